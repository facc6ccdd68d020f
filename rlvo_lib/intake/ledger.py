"""What an import did, and what it could not do: every conversion counted, every problem kept, and shown.

The report is tidy: column (of the dictionary), source (column of the file), conversion, from, to, n.
It never holds a patient's value: ``from`` and ``to`` are words that stand for a category ("sí", "1"), or
ways of writing ("dmy", ","). Problems do hold values; they go to the screen, not into the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.validation.screen import printable

PROBLEM_COLUMNS = ["row", "source", "column", "value", "allowed"]
UNCHANGED = "unchanged"
IGNORED = "column ignored, as the map says"
UNUSED = "column of the file that is not used"
LACKING = "column of the dictionary that the file lacks"
LISTED = (IGNORED, UNUSED, LACKING)
ROWS_SHOWN = 10
LINES_SHOWN = 500
REPORT_COLUMNS = ["column", "source", "conversion", "from", "to", "n"]

Step = tuple[str, str, str]  # conversion, from, to
Read = tuple[str, tuple[Step, ...]]  # a value as the dataset holds it, and the steps that led to it


class Unmapped(Exception):
    """A value that has no reading; the argument says what is allowed."""


class UnmappedError(InputError):
    """Values of a file have no reading. The message names the first; ``problems`` holds all.

    ``problems`` has the columns row (as a spreadsheet shows it, missing where the whole column is
    meant), source, column, value and allowed.
    """

    def __init__(self, file: Path, problems: pd.DataFrame) -> None:
        self.problems = problems
        lines = summary(problems)
        others = (
            f" (and {len(lines) - 1} more: all are listed by `rlvo import`)" if lines[1:] else ""
        )
        super().__init__(f"{file}: {lines[0]}{others}")


@dataclass(frozen=True)
class Cells:
    """One column of a file: ``text`` by row number, and which cells a workbook holds as a number or
    date rather than as text (``typed``). ``name`` is what messages call it."""

    name: str
    text: pd.Series
    typed: np.ndarray  # bool, one a row

    def groups(self) -> Iterable[tuple[bool, pd.Series]]:
        """The text cells, then the typed ones, each if there are any."""
        for kind in (False, True):
            chosen = self.typed == kind
            if chosen.any():
                yield kind, self.text[chosen]

    def only(self, rows: pd.Series) -> Cells:
        """The cells of the rows that are true in ``rows``."""
        return Cells(self.name, self.text[rows], self.typed[rows.to_numpy()])


@dataclass
class Ledger:
    """Counts of conversions and the problems met on the way."""

    counts: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)
    problems: list[dict] = field(default_factory=list)

    def count(self, column: str, source: str, step: Step, n: int = 1) -> None:
        """Add ``n`` values that went through a step."""
        self.counts[(column, source, *step)] += n

    def problem(
        self, source: str, column: str, value: str, allowed: str, rows: Iterable[int] = ()
    ) -> None:
        """Keep one problem for each row, or one for the whole column."""
        for row in list(rows) or [None]:
            self.problems.append(
                {"row": row, "source": source, "column": column, "value": value, "allowed": allowed}
            )

    def convert(self, column: str, cells: Cells, read: Callable[[str, bool], Read]) -> pd.Series:
        """Each cell as ``read(text, typed)`` reads it, called once for each different cell.

        A cell without a reading is kept as a problem and comes back as "".
        """
        result = pd.Series("", index=cells.text.index, dtype=object)
        for typed, text in cells.groups():
            codes, different = pd.factorize(text.to_numpy(dtype=object))
            n = np.bincount(codes, minlength=len(different))
            values = np.full(len(different), "", dtype=object)
            for place, value in enumerate(different):
                try:
                    values[place], steps = read(value, typed)
                except Unmapped as reason:
                    rows = text.index[codes == place]
                    self.problem(cells.name, column, value, str(reason), rows)
                    continue
                for step in steps or ((UNCHANGED, "", ""),):
                    self.count(column, cells.name, step, int(n[place]))
            result[text.index] = values[codes]
        return result

    def stop_if_problems(self, file: Path) -> None:
        """Raise an `UnmappedError` with all problems, if there is any."""
        if self.problems:
            frame = pd.DataFrame(self.problems, columns=PROBLEM_COLUMNS)
            raise UnmappedError(file, frame.astype({"row": "Int64"}))

    def report(self) -> pd.DataFrame:
        """The counts as a tidy table, in the order in which they were first made."""
        rows = [(*what, n) for what, n in self.counts.items()]
        return pd.DataFrame(rows, columns=REPORT_COLUMNS)


# ----------------------------------------------------------------------------------- on the screen


def summary(problems: pd.DataFrame) -> list[str]:
    """One line for each different problem, with the rows it stands in.

    >>> summary(pd.DataFrame([[7, "edad", "age", "x", "0 to 120"], [9, "edad", "age", "x", "0 to 120"]],
    ...                      columns=PROBLEM_COLUMNS))
    ["rows 7, 9, column 'edad' (age): 'x'; allowed: 0 to 120"]
    """
    lines = []
    same = ["source", "column", "value", "allowed"]
    for (source, column, value, allowed), group in problems.groupby(same, sort=False):
        source, value = printable(source), printable(value)
        rows = [str(row) for row in group["row"].dropna()]
        more = f" and {len(rows) - ROWS_SHOWN} more" if len(rows) > ROWS_SHOWN else ""
        listed = f"row{'s' if len(rows) > 1 else ''} {', '.join(rows[:ROWS_SHOWN])}{more}, "
        name = f" ({column})" if column and column != source else ""
        what = f": '{value}'" if rows else f": {value}"
        where = f"{listed if rows else ''}column '{source}'{name}{what}" if source else value
        lines.append(f"{where}; allowed: {allowed}")
    return lines


def show_problems(problems: pd.DataFrame) -> str:
    """All problems of an import, one line each, and how many there are."""
    lines = summary(problems)
    shown = lines[:LINES_SHOWN]
    if len(lines) > LINES_SHOWN:
        shown.append(f"… and {len(lines) - LINES_SHOWN} more; --json writes all")
    cells = int(problems["row"].notna().sum())
    return "\n".join(
        [*shown, f"{len(lines)} different problems, {cells} cells; nothing was written"]
    )


def problem_records(problems: pd.DataFrame) -> list[dict]:
    """Problems as JSON holds them; the row is null where the whole column is meant."""
    return problems.astype(object).where(problems.notna(), None).to_dict("records")


def show_report(report: pd.DataFrame, name: str) -> str:
    """What was found out of the file, each conversion, and the columns left over, as text."""
    lines = [f"{printable(name)}:"]
    for _, row in report[~report["conversion"].isin([UNCHANGED, *LISTED])].iterrows():
        names = [printable(row[key]) for key in ("column", "source") if row[key]]
        where = f"{names[0]} (from {names[1]}): " if len(names) == 2 else "".join(names)
        change = f" {row['from']!r} → {row['to']!r}" if row["from"] or row["to"] else ""
        lines.append(f"  {where}{row['conversion']}{printable(change)}, {row['n']}")
    for what in LISTED:
        listed = report[report["conversion"] == what]
        if len(listed):
            columns = ", ".join(printable(n) for n in listed["source"] + listed["column"])
            lines.append(f"  {what}: {columns}")
    return "\n".join(lines)
