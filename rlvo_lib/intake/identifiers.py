"""Participant identifiers: from a study number in a column to ``sub-`` and letters or digits."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.dataset import IDENTIFIER as PATTERN
from rlvo_lib.intake.ledger import Cells, Ledger, Read, Step, Unmapped
from rlvo_lib.intake.mapping import IDENTIFIER, Entry
from rlvo_lib.intake.words import TOTALS, fold

#: Columns that REDCap writes where a record has several rows.
REPEATING = ("redcap_event_name", "redcap_repeat_instrument", "redcap_repeat_instance")
REPEATING_LABELS = ("Event Name", "Repeat Instrument", "Repeat Instance")


def read_identifiers(entry: Entry, cells: Cells, ledger: Ledger) -> pd.Series:
    """Identifiers by row number; an unusable or doubled one is kept as a problem."""

    def read(text: str, typed: bool) -> Read:
        steps: list[Step] = []
        body = text.removeprefix("sub-")
        if fold(body) in TOTALS:
            raise Unmapped("a patient; a row that sums up others is none: take it out of the file")
        if typed and not text.isdigit():
            raise Unmapped("text or a whole number; Excel has made a date or another number of it")
        for mark in entry.remove:
            if mark in body:
                body = body.replace(mark, "")
                steps.append(("taken out of the identifier", mark, ""))
        if entry.prefix:
            body = entry.prefix + body
            steps.append(("put before the identifier", "", entry.prefix))
        if not text.startswith("sub-"):
            steps.append(("put before the identifier", "", "sub-"))
        if not text or not PATTERN.fullmatch(f"sub-{body}"):
            raise Unmapped(
                "letters a-z and digits, as in 0042; `remove` and `prefix` in the map take out and add "
                "what is always the same"
            )
        return f"sub-{body}", tuple(steps)

    names = ledger.convert(IDENTIFIER, cells, read)
    _refuse_doubled(names, cells, ledger)
    return names


def _refuse_doubled(names: pd.Series, cells: Cells, ledger: Ledger) -> None:
    """Keep a problem for each identifier that stands in several rows, or differs too little."""
    found = names[names != ""]
    # sub-a07, sub-A07 and sub-a7: one folder on many disks, or one patient from two programs
    alike = found.map(lambda name: re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold()))
    doubled = alike[alike.duplicated(keep=False)]
    for _, group in doubled.groupby(doubled, sort=False):
        rows = " and ".join(str(row) for row in group.index)
        written = found[group.index]
        allowed = f"one row a patient; it stands in rows {rows}"
        if written.nunique() > 1:
            allowed = f"identifiers that differ in more than case and leading zeros; rows {rows}"
        for name, same in written.groupby(written, sort=False):
            ledger.problem(cells.name, IDENTIFIER, name, allowed, same.index)


def refuse_repeating(headers: list[str], cells: Cells, file: Path) -> None:
    """Raise if a REDCap export has several rows a patient, one an event or a repeated instrument."""
    found = [name for name in (*REPEATING, *REPEATING_LABELS) if name in headers]
    doubled = cells.text[cells.text.duplicated(keep=False) & (cells.text != "")]
    if found and len(doubled):
        rows = doubled.index[doubled == doubled.iloc[0]]
        raise InputError(
            f"{file}, rows {rows[0]} and {rows[1]}: a REDCap export with several rows a patient "
            f"('{found[0]}'); allowed: one row a patient: in REDCap make a report of the one event, "
            "without repeating instruments, and export that"
        )
