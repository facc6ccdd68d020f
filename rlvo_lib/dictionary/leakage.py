"""The leakage register: what is never a predictor, under the names it is exported as.

One row a name (``leakage_register.csv``): ``name``, ``timing`` as in the dictionary, ``field`` (the
dictionary's own column for the same thing, if it has one) and ``why``. A name is recognised in any
spelling: case, spaces, hyphens, underscores and accents do not count.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from rlvo_lib.config import InputError
from rlvo_lib.dictionary.rows import read_rows

REGISTER = "leakage_register.csv"
REGISTER_COLUMNS = ("name", "timing", "field", "why")
REGISTER_TIMINGS = ("PRE_SENSITIVITY", "INTRA", "POST", "ID")


@dataclass(frozen=True)
class Registered:
    """One row of the register."""

    name: str
    timing: str  # PRE_SENSITIVITY | INTRA | POST | ID
    field: str  # the dictionary's column for the same thing, or ""
    why: str


def spelling(name: str) -> str:
    """A name without what spellings differ in.

    >>> spelling("N passes") == spelling("n_passes") == spelling("N-Passes")
    True
    """
    plain = unicodedata.normalize("NFKD", name).casefold()
    return re.sub(r"[^a-z0-9]", "", plain)


def load_register(path: Path) -> dict[str, Registered]:
    """The register by the spelling of its names and of their dictionary columns; empty if no file.

    Raises
    ------
    InputError
        If a column is missing, a timing is not one of `REGISTER_TIMINGS`, or a row has no reason.
    """
    if not path.is_file():
        return {}
    rows = [
        _parse({c: row[c].strip() for c in REGISTER_COLUMNS}, f"{path.name}, line {line}")
        for line, row in read_rows(path, "leakage register", REGISTER_COLUMNS)
    ]
    register: dict[str, Registered] = {}
    for entry in rows:
        if spelling(entry.name) in register:
            raise InputError(f"{path.name}: '{entry.name}' is registered twice")
        register[spelling(entry.name)] = entry
    for entry in rows:
        if entry.field:
            register.setdefault(spelling(entry.field), entry)
    return register


def _parse(row: dict[str, str], where: str) -> Registered:
    if not spelling(row["name"]):
        raise InputError(f"{where}: name is '{row['name']}'; allowed: letters and digits")
    if row["timing"] not in REGISTER_TIMINGS:
        raise InputError(
            f"{where}: timing of '{row['name']}' is '{row['timing']}'; allowed: "
            f"{', '.join(REGISTER_TIMINGS)}"
        )
    if not row["why"]:
        raise InputError(f"{where}: '{row['name']}' has no reason in column 'why'")
    return Registered(**row)
