"""A foreign table as text cells with row numbers, whatever it was saved as: `read_sheet`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.dataset import MAX_TABLE_BYTES
from rlvo_lib.intake import delimited, workbook
from rlvo_lib.intake.ledger import Cells

#: First bytes of files that people take for tables, and what to do instead.
OTHER_FILES = {
    b"\xd0\xcf\x11\xe0": (
        "is an old Excel file (.xls) or one with a password; allowed: open it in Excel and save it as "
        "'Excel Workbook (.xlsx)' without a password"
    ),
    b"%PDF": "is a PDF; allowed: the table itself, as .xlsx, CSV or TSV",
    b"$FL2": "is an SPSS file; allowed: its export as .xlsx or CSV",
    b"\x1f\x8b": "is compressed; allowed: the unpacked file",
    b"<": "is a web page or XML, not a table; allowed: open it in Excel and save it as .xlsx",
}


@dataclass(frozen=True)
class Sheet:
    """A table as it stands in a file."""

    cells: pd.DataFrame  # text; index: row numbers as a spreadsheet shows them; columns: headers
    typed: pd.DataFrame  # bool, same shape: the workbook holds a number or date, not text
    found: dict[str, str]  # what was detected: "encoding", "separator", "sheet"

    def column(self, name: str) -> Cells:
        """One column."""
        return Cells(name, self.cells[name], self.typed[name].to_numpy())


def read_sheet(
    file: Path, wanted: set[str], *, separator: str = "", code: str = "", sheet: str = ""
) -> Sheet:
    """Read a table; blank rows, and columns without header or content, are left out.

    ``wanted`` are column names that are looked for; separator, encoding (``code``) and sheet are what
    the map says.

    Raises
    ------
    InputError
        If the file is missing, too large, no table, has no rows, or a header stands in it twice.
    """
    start = _check_file(file)
    if start.startswith(b"PK"):
        rows, name = workbook.read_workbook(file, sheet)
        width = max(len(cells) for _, cells, _ in rows)
        typed = [kinds + [False] * (width - len(kinds)) for _, _, kinds in rows]
        rows = [(number, cells + [""] * (width - len(cells))) for number, cells, _ in rows]
        found = {"sheet": name}
    else:
        text, name = delimited.decode(file.read_bytes(), file, code)
        if not text.strip():
            raise InputError(
                f"{file}: the file is empty; allowed: a header and a row for each patient"
            )
        rows, mark = delimited.read_rows(text, file, wanted, separator)
        typed = None
        found = {"encoding": name, "separator": delimited.SEPARATORS.get(mark, mark)}
    return _as_sheet(rows, typed, found, file, wanted)


def _check_file(file: Path) -> bytes:
    """The first bytes of a file that may be a table."""
    if not file.is_file():
        raise InputError(f"{file}: no such file; allowed: a CSV, TSV or Excel (.xlsx) file")
    size = file.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise InputError(
            f"{file}: has {size / 1e6:.0f} MB; allowed: {MAX_TABLE_BYTES / 1e6:.0f} MB, far more than "
            "a table of patients needs"
        )
    with open(file, "rb") as handle:
        start = handle.read(64)
    for mark, reason in OTHER_FILES.items():
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(mark):
            raise InputError(f"{file}: {reason}")
    return start


def _as_sheet(
    rows: list[tuple[int, list[str]]],
    typed: list[list[bool]] | None,
    found: dict[str, str],
    file: Path,
    wanted: set[str],
) -> Sheet:
    header = [delimited.name_of(cell) for cell in rows[0][1]]
    if len(rows) == 1:
        raise InputError(f"{file}: holds a header only; allowed: a row for each patient below it")
    cells = pd.DataFrame([row for _, row in rows[1:]], dtype=object)
    cells.index = pd.Index([number for number, _ in rows[1:]], name="row")
    kinds = np.zeros(cells.shape, bool) if typed is None else np.array(typed[1:], bool)
    kept = [
        place for place, name in enumerate(header) if name or (cells.iloc[:, place] != "").any()
    ]
    names = [header[place] or f"(column {place + 1}, no name)" for place in kept]
    if not wanted & set(names):
        raise InputError(f"{file}: {delimited.none_found(names, wanted)}")
    for name, n in Counter(names).items():
        if n > 1:
            places = [str(place + 1) for place, other in enumerate(header) if other == name]
            raise InputError(
                f"{file}: header '{name}' stands in columns {' and '.join(places)}; allowed: each once"
            )
    cells = cells.iloc[:, kept].set_axis(names, axis=1)
    return Sheet(cells, pd.DataFrame(kinds[:, kept], cells.index, names), found)
