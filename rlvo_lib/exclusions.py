"""``exclusions.csv`` of a dataset folder: patients, or single scans, that a person left out, and why.

The file is made by hand after a look at the quality pictures: ``participant_id``, ``reason`` and, if
wanted, ``scan`` (a scan of the study). Without a scan the patient leaves the cohort; with one that
scan counts as absent. A mistake in it could silently exclude somebody, so nothing in it is guessed.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rlvo_lib import storage
from rlvo_lib.config import InputError

FILE = "exclusions.csv"
COLUMNS = ("participant_id", "reason", "scan")
MAX_BYTES = 5_000_000
MAX_REASON = 120  # characters


class Problem(NamedTuple):
    """What is wrong with a line (the header is line 1), and what is allowed."""

    line: int
    participant_id: str
    value: str
    message: str
    allowed: str


@dataclass(frozen=True)
class Exclusions:
    """Who, and what, is left out, with the reasons."""

    patients: dict[str, str] = field(default_factory=dict)  # participant_id -> reason
    scans: dict[tuple[str, str], str] = field(
        default_factory=dict
    )  # (participant_id, scan) -> reason

    @property
    def fingerprint(self) -> str:
        """Changes when a patient, a scan or a reason does; empty if nothing is excluded."""
        rows = [(p, "", r) for p, r in self.patients.items()]
        rows += [(p, s, r) for (p, s), r in self.scans.items()]
        return storage.key(sorted(rows)) if rows else ""


def read_exclusions(root: Path, patients: Collection[str], scans: Collection[str]) -> Exclusions:
    """The exclusions of a dataset folder; none if it has no such file.

    ``patients`` and ``scans`` are those that may be named: the table's, and the study's.

    Raises
    ------
    InputError
        If the file cannot be read, or for its first problem (`problems` has all).
    """
    path = root / FILE
    rows, found = _examined(path, patients, scans)
    if found:
        first, more = found[0], f" ({len(found)} problems in all)" if len(found) > 1 else ""
        raise InputError(
            f"{path}, line {first.line}: {first.message}; allowed: {first.allowed}{more}"
        )
    return Exclusions(
        patients={p: reason for p, scan, reason in rows if not scan},
        scans={(p, scan): reason for p, scan, reason in rows if scan},
    )


def problems(root: Path, patients: Collection[str], scans: Collection[str]) -> list[Problem]:
    """Everything that is wrong with the rows of ``exclusions.csv``.

    Raises
    ------
    InputError
        If it cannot be read as a table at all.
    """
    return _examined(root / FILE, patients, scans)[1]


def _examined(
    path: Path, patients: Collection[str], scans: Collection[str]
) -> tuple[list[tuple[str, str, str]], list[Problem]]:
    """Rows as participant, scan, reason; and the problems of all rows."""
    if not os.path.lexists(path):  # a link that leads nowhere is a fault, not an absent file
        for other in path.parent.glob("*.[cC][sS][vV]"):
            if other.name.casefold() == FILE:
                raise InputError(f"{other}: would not be read; allowed: the name {FILE}")
        return [], []
    known = set(patients)
    rows, found, seen = [], [], {}
    for line, cells in _table(path):
        patient, scan, reason = (cells.get(n, "") for n in ("participant_id", "scan", "reason"))
        wrong = _wrong(patient, scan, reason, known, scans, seen)
        if "" in cells:
            wrong = (
                cells[""], f"patient {patient!r} has another number of fields than the header",
                "as many as in the header; a reason that holds a comma stands in quotation marks",
            )  # fmt: skip
        if wrong:
            found.append(Problem(line, patient, *wrong))
        else:
            rows.append((patient, scan, reason))
        seen.setdefault((patient, scan), line)
    whole = {p: line for (p, scan), line in seen.items() if not scan}
    for (patient, scan), line in seen.items():
        if scan in scans and whole.get(patient) and patient in known:
            said = f"patient {patient!r}, scan '{scan}': line {whole[patient]} excludes the patient as a whole"
            found.append(Problem(line, patient, scan, said, "one of the two"))
    return rows, sorted(found)


def _wrong(
    patient: str,
    scan: str,
    reason: str,
    known: set[str],
    scans: Collection[str],
    seen: dict[tuple[str, str], int],
) -> tuple[str, str, str] | None:
    """Value, message and what is allowed for a row that is wrong."""
    if patient not in known:
        return patient, f"patient {patient!r} is not in the table", "patients of participants.tsv"
    if scan and scan not in scans:
        return scan, f"patient {patient!r}: scan {scan!r} is not known", (
            f"none for the whole patient, or one of {', '.join(scans)}"
        )  # fmt: skip
    if not reason:
        return "", f"patient {patient!r} has no reason", "a reason in a few words"
    if len(reason) > MAX_REASON or not reason.isprintable():
        return reason[:MAX_REASON], f"patient {patient!r}: a reason of {len(reason)} characters", (
            f"a line of at most {MAX_REASON} printable characters"
        )  # fmt: skip
    if (patient, scan) in seen:
        what = f", scan '{scan}'," if scan else ""
        said = f"patient {patient!r}{what} stands in line {seen[patient, scan]} already"
        return patient, said, "one line for each patient, or patient and scan"
    return None


def _table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows that are not blank, by line; "" holds the number of fields where it does not fit."""
    reader = csv.reader(_text(path).splitlines(), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not readable ({error}); allowed: fields with commas "
            "between, in quotation marks where a field holds one"
        ) from error
    header = lines[0][1] if lines else []
    _check_header(header, path)
    rows = []
    for line, row in lines[1:]:
        if any(row):
            cells = dict(zip(header, row, strict=False))
            rows.append((line, cells if len(row) == len(header) else cells | {"": str(len(row))}))
    return rows


def _check_header(header: list[str], path: Path) -> None:
    allowed = f"{', '.join(COLUMNS[:2])} and, if wanted, {COLUMNS[2]}, with commas between"
    if len(header) == 1:
        for mark, name in ((";", "semicolons"), ("\t", "tabs")):
            if mark in header[0]:
                raise InputError(f"{path}: columns are separated by {name}; allowed: {allowed}")
    for name in COLUMNS[:2]:
        if name not in header:
            raise InputError(f"{path}: column '{name}' is missing; allowed: {allowed}")
    for name in header:
        if name not in COLUMNS:
            raise InputError(f"{path}: column {name!r} is not known; allowed: {allowed}")
        if header.count(name) > 1:
            raise InputError(f"{path}: column '{name}' stands in it twice; allowed: {allowed}")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: {path.stat().st_size / 1e6:,.0f} MB; allowed: {MAX_BYTES // 1_000_000} MB"
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); allowed: a file") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise InputError(f"{path}: is in UTF-16, or holds zero bytes; allowed: text in UTF-8")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: is not in UTF-8 (byte 0x{content[error.start]:02x}); allowed: save "
            "the whole table as UTF-8"
        ) from None
