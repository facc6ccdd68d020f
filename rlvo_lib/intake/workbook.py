"""Excel workbooks (.xlsx) as rows of text cells, written as Excel shows their content.

A cell that Excel holds as a number, a date or TRUE/FALSE is *typed*: it is written with a decimal point
or as YYYY-MM-DD whatever the country, and needs no guess. Of a formula the stored result is read. The
number format matters where it changes the meaning: leading zeros (``0000``), percent, date without time.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from rlvo_lib.config import InputError

MAX_UNPACKED_BYTES = 500_000_000
#: Stands for a formula whose result is not in the file (it was written by a program, not by Excel).
NO_RESULT = "#FORMULA WITHOUT A STORED RESULT!"
#: Stands for a cell that is merged with one above or beside it: whether it has that one's value, only
#: who made the sheet knows.
MERGED = "#MERGED WITH ANOTHER CELL!"
#: What cells of a failed formula show, and what stands for cells without a value of their own.
ERRORS = (
    "#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!",
    "#GETTING_DATA", "#FIELD!", "#BLOCKED!", "#UNKNOWN!", NO_RESULT, MERGED,
)  # fmt: skip

FORMULA = re.compile(rb"<(\w+:)?f[ />]")
MERGE = re.compile(rb'<(?:\w+:)?mergeCell [^>]*?ref="([A-Z]+\d+:[A-Z]+\d+)"')

Row = tuple[int, list[str], list[bool]]  # row number, cells, which of them are typed


def read_workbook(file: Path, sheet: str = "") -> tuple[list[Row], str]:
    """The rows that are not blank of a sheet, and the sheet's name.

    Raises
    ------
    InputError
        If it is no workbook, unpacks to too much, or has several filled sheets and none is named.
    """
    with_formulas = _check_archive(file)
    try:
        with warnings.catch_warnings():
            # openpyxl warns of styles and extensions that it does not keep; values are not touched
            warnings.simplefilter("ignore", UserWarning)
            return _read(file, sheet, with_formulas)
    except (
        zipfile.BadZipFile, ParseError, KeyError, ValueError, IndexError, TypeError, AttributeError,
        OverflowError, OSError,
    ) as error:  # fmt: skip
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file}: the workbook is damaged or not in Excel's usual format "
            f"({type(error).__name__}); allowed: open it "
            "in Excel and save it as 'Excel Workbook (.xlsx)' or 'CSV UTF-8'"
        ) from error


def _check_archive(file: Path) -> bool:
    """Refuse what is no workbook or unpacks to too much; whether any sheet holds formulas."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if "xl/workbook.xml" not in names:
                raise InputError(
                    f"{file}: is an archive, not an Excel workbook; allowed: .xlsx, CSV or TSV (save "
                    "other spreadsheets as one of these)"
                )
            # a member never yields more bytes than its entry states, so that the sum is a true limit
            size = sum(member.file_size for member in members)
            if size > MAX_UNPACKED_BYTES:
                raise InputError(
                    f"{file}: unpacks to {size / 1e6:.0f} MB; allowed: "
                    f"{MAX_UNPACKED_BYTES / 1e6:.0f} MB (delete sheets that are not needed, or save as CSV)"
                )
            sheets = [name for name in names if name.startswith("xl/worksheets/")]
            return any(True for name in sheets for _ in _search(archive, name, FORMULA))
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise InputError(
            f"{file}: a damaged or encrypted workbook ({error}); allowed: an .xlsx file without a password"
        ) from error


def _search(archive: zipfile.ZipFile, name: str, pattern: re.Pattern) -> Iterator[re.Match]:
    """All that matches in a part of a workbook, read by blocks; what lies across two comes once more."""
    tail = b""
    with archive.open(name) as part:
        while block := part.read(1 << 20):
            yield from pattern.finditer(tail + block)
            tail = block[-100:]


def _read(file: Path, wanted: str, with_formulas: bool) -> tuple[list[Row], str]:
    from openpyxl import load_workbook

    book = load_workbook(file, read_only=True, data_only=True)
    formulas = load_workbook(file, read_only=True) if with_formulas else None
    try:
        name = _choose_sheet(book, file, wanted)
        instead = _without_result(book[name], formulas[name]) if formulas else {}
        rows = [
            (number, texts, typed)
            for number, cells in _numbered(book[name])
            for texts, typed in [_as_text(number, cells, instead)]
            if any(texts)
        ]
        _mark_merged(rows, _merged(file, book[name]))
    finally:
        book.close()
        if formulas:
            formulas.close()
    return rows, name


def _choose_sheet(book: Any, file: Path, wanted: str) -> str:
    names = [sheet.title for sheet in book.worksheets]
    if wanted:
        if wanted not in names:
            raise InputError(f"{file}: sheet '{wanted}' is not in it; allowed: {', '.join(names)}")
        return wanted
    filled = [
        name
        for name in names
        if any(cell.value is not None for _, cells in _numbered(book[name]) for cell in cells)
    ]
    if len(filled) > 1:
        raise InputError(
            f"{file}: has several sheets; allowed: one of them as `sheet` under [file] in the map: "
            f"{', '.join(filled)}"
        )
    if not filled:
        raise InputError(
            f"{file}: the workbook is empty; allowed: a header and a row for each patient"
        )
    return filled[0]


def _numbered(sheet: Any) -> Iterator[tuple[int, tuple]]:
    sheet.reset_dimensions()  # what a file says of its own size is often wrong
    yield from enumerate(sheet.iter_rows(), 1)


def _without_result(results: Any, formulas: Any) -> dict[tuple[int, int], str]:
    """Row and place of the formulas without a stored result, and what stands there instead."""
    places = {
        (number, place)
        for number, cells in _numbered(formulas)
        for place, cell in enumerate(cells)
        if cell.data_type == "f"
    }
    for number, cells in _numbered(results):
        for place, cell in enumerate(cells):
            # type "str" without a value is a formula whose stored result is an empty text
            if cell.value is not None or cell.data_type == "str":
                places.discard((number, place))
    return dict.fromkeys(places, NO_RESULT)


def _merged(file: Path, sheet: Any) -> list[tuple[int, int, int, int]]:
    """First place, first row, last place and last row of the merged cells; places from 0."""
    from openpyxl.utils import range_boundaries

    # read by rows, openpyxl does not tell which cells are merged
    with zipfile.ZipFile(file) as archive:
        found = {match[1].decode() for match in _search(archive, sheet._worksheet_path, MERGE)}
    ranges = [range_boundaries(cells) for cells in sorted(found)]
    return [(left - 1, top, right - 1, bottom) for left, top, right, bottom in ranges]


def _mark_merged(rows: list[Row], merged: list[tuple[int, int, int, int]]) -> None:
    """Put `MERGED` into the blank cells of merged ones, below the header and under its columns."""
    if not merged:
        return
    below, width = {number: (texts, typed) for number, texts, typed in rows[1:]}, len(rows[0][1])
    for left, top, right, bottom in merged:
        for number in range(top, min(bottom, rows[-1][0]) + 1):
            texts, typed = below.get(number, ([], []))
            missing = width - len(texts) if number in below else 0
            texts += [""] * missing
            typed += [False] * missing
            for place in range(left, min(right + 1, width, len(texts))):
                texts[place] = texts[place] or MERGED


def _as_text(
    number: int, cells: tuple, instead: dict[tuple[int, int], str]
) -> tuple[list[str], list[bool]]:
    texts, typed = [], []
    for place, cell in enumerate(cells):
        value = cell.value
        if value is None:
            texts.append(instead.get((number, place), ""))
            typed.append(False)
        elif isinstance(value, str):
            texts.append(value.strip())
            typed.append(False)
        else:
            texts.append(_typed_text(value, cell.number_format or "General"))
            typed.append(True)
    return texts, typed


def _typed_text(value: Any, number_format: str) -> str:
    """A number, date, time or truth value as Excel shows it, apart from rounding.

    >>> _typed_text(7.0, "General"), _typed_text(7, "0000"), _typed_text(0.07, "0%"), _typed_text(True, "")
    ('7', '0007', '7%', 'TRUE')
    >>> _typed_text(datetime(2021, 3, 5), "dd/mm/yyyy"), _typed_text(datetime(2021, 3, 5), "d/m/yy h:mm")
    ('2021-03-05', '2021-03-05 00:00:00')
    """
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        value = (value + timedelta(microseconds=500_000)).replace(
            microsecond=0
        )  # stored as a float
        shows_time = re.search(r"[hs]", re.sub(r'"[^"]*"|\[[^\]]*\]', "", number_format.lower()))
        return str(value) if shows_time or value.time() != time() else str(value.date())
    if isinstance(value, time):
        return str((datetime.combine(date.min, value) + timedelta(microseconds=500_000)).time())[:8]
    if isinstance(value, date | timedelta):
        return str(value)
    shown = number_format.split(";")[0]
    if "%" in re.sub(r'"[^"]*"|\\.', "", shown):
        return f"{value * 100:.15g}%"
    text = f"{value:.15g}"  # the digits that Excel keeps
    if re.fullmatch("0{2,}", shown) and text.isdigit():
        return text.zfill(len(shown))
    return text
