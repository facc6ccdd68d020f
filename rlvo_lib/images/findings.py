"""What a check found in a scan: one line that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rlvo_lib.config import InputError


class Finding(NamedTuple):
    """One thing that is wrong with a scan, or unusual about it.

    ``allowed`` says the same for all findings of one kind; ``what`` and ``value`` hold what differs.
    """

    severity: str  # error: the scan cannot be used; warning: a person should look
    what: str
    value: str
    allowed: str

    @property
    def words(self) -> str:
        """The finding in one line.

        >>> Finding("error", "slices are 12 mm thick", "0.5 x 0.5 x 12 mm", "10 mm at most").words
        'slices are 12 mm thick (0.5 x 0.5 x 12 mm); allowed: 10 mm at most'
        """
        value = f" ({self.value})" if self.value else ""
        return f"{self.what}{value}; allowed: {self.allowed}"


def error(what: str, value: str, allowed: str) -> Finding:
    """A finding that stops the scan's use."""
    return Finding("error", what, value, allowed)


def warning(what: str, value: str, allowed: str) -> Finding:
    """A finding that a person should look at."""
    return Finding("warning", what, value, allowed)


def refuse(findings: Iterable[Finding], path: str | Path) -> list[Finding]:
    """The warnings among the findings; InputError that names ``path`` at the first error."""
    warnings = []
    for finding in findings:
        if finding.severity == "error":
            raise InputError(f"{path}: {finding.words}")
        warnings.append(finding)
    return warnings
