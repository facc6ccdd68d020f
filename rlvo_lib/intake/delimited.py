"""Delimited text (CSV, TSV, and their relatives): bytes as text (`decode`), text as rows (`read_rows`).

UTF-8 and files with a byte order mark are recognised; anything else is Windows-1252, of which Latin-1's
letters are a part, unless the map says otherwise. A file in which some lines are UTF-8 and others are
not was glued together from two: no encoding reads it right.

The separator is the one that makes columns appear that are looked for. Quoted fields may hold
separators and line breaks. Rows are numbered as a spreadsheet shows them: records, not lines, the header
being row 1; a first line ``sep=;``, which Excel reads and hides, is not counted.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from rlvo_lib.config import InputError

MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f]")
FALLBACK = "windows-1252"
#: Python's name for a text encoding where that is not what people call it.
SHOWN = {"utf-8-sig": "utf-8 with a byte order mark", "utf-16": "utf-16 with a byte order mark"}

SEPARATORS = {";": "semicolon", ",": "comma", "\t": "tab", "|": "pipe"}
MAX_COLUMNS = 16_384  # as Excel has
MAX_LINE = 1_000_000  # characters; a table of a thousand columns stays far below
SEP_LINE = re.compile(r'"?sep=(.)"?(\r\n|\r|\n|$)', re.IGNORECASE)
#: A number or a date that stands alone, or between any marks.
FIGURE = re.compile(r"(^|[;,\t|^])[\d.,:/ -]*\d[\d.,:/ -]*($|[;,\t|^])")

Row = tuple[int, list[str]]  # row number, cells


def decode(data: bytes, file: Path, encoding: str = "") -> tuple[str, str]:
    """The text of a file, and the name of its encoding (``encoding``: what the map says it is).

    Raises
    ------
    InputError
        If it is no text, mixes encodings, or is not in the encoding that the map says.
    """
    used = encoding or _recognise(data, file)
    try:
        text = data.decode(used)
    except LookupError:
        raise InputError(
            f"{file}: encoding '{encoding}' is not known; allowed: utf-8, utf-16, latin-1, "
            "windows-1252, or another one that Python knows"
        ) from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{file}, line {line}: byte 0x{data[error.start]:02x} is no letter in {used}; allowed: "
            'the right `encoding` under [file] in the map, e.g. "cp850", or a file saved as UTF-8'
        ) from None
    except UnicodeError as error:
        raise InputError(f"{file}: cannot be read as {used} ({error})") from None
    wrong = NO_TEXT.search(text)
    if wrong:
        line = text.count("\n", 0, wrong.start()) + 1
        raise InputError(
            f"{file}, line {line}: holds the control character 0x{ord(wrong[0]):02x}, so it is no "
            "text; allowed: CSV or TSV text, or an Excel workbook (.xlsx)"
        )
    return text.removeprefix("\ufeff"), SHOWN.get(used, used)


def _recognise(data: bytes, file: Path) -> str:
    for mark, name in MARKS:
        if data.startswith(mark):
            return name
    if b"\x00" in data:
        line = data[: data.index(b"\x00")].count(b"\n") + 1
        raise InputError(
            f"{file}, line {line}: holds NUL bytes, so it is no text that can be recognised; allowed: "
            "CSV or TSV text, an Excel workbook (.xlsx), or UTF-16 text named by `encoding` in the map"
        )
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        _refuse_mixed(data, file)
        return FALLBACK
    return "utf-8"


def _refuse_mixed(data: bytes, file: Path) -> None:
    """Raise if letters beyond ASCII are UTF-8 in one line and something else in another."""
    first: dict[bool, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            first.setdefault(True, number)
        except UnicodeDecodeError:
            first.setdefault(False, number)
    if len(first) == 2:
        raise InputError(
            f"{file}: mixes encodings: line {first[True]} is UTF-8, line {first[False]} is not; "
            "allowed: one encoding in the whole file, or its name as `encoding` under [file] in the map"
        )


def name_of(header: str) -> str:
    """A header as it is compared: blanks of any kind are one space, and none at the ends."""
    return " ".join(header.split())


def read_rows(
    text: str, file: Path, wanted: set[str], separator: str = ""
) -> tuple[list[Row], str]:
    """All rows that are not blank, and the separator.

    ``wanted`` are the column names that are looked for; ``separator`` is what the map says.

    Raises
    ------
    InputError
        If no separator, or more than one, makes wanted columns appear; if quotation marks are not
        closed; if a row has more or fewer fields than the header.
    """
    told = SEP_LINE.match(text)
    if told:
        text = text[told.end() :]
    separator = separator or (told[1] if told else "") or _find_separator(text, file, wanted)
    if len(separator) != 1 or separator in '"\r\n':
        raise InputError(
            f"{file}: separator '{separator}'; allowed: one character that is no quotation mark or "
            "line break"
        )
    width = len(_header(text, file, separator))
    if width > MAX_COLUMNS:
        raise InputError(f"{file}: has {width} columns; allowed: {MAX_COLUMNS}")
    rows = list(_records(text, file, separator))
    for number, row in rows[1:]:
        if len(row) != len(rows[0][1]):
            raise InputError(
                f"{file}, row {number}: has {len(row)} fields; allowed: {len(rows[0][1])}, as in the "
                "header (is a separator or line break inside a value that is not in quotation marks?)"
            )
    return rows, separator


def _records(text: str, file: Path, separator: str) -> Iterator[Row]:
    """Records that are not blank, each with its number."""
    number = 0
    try:
        for number, row in enumerate(
            csv.reader(_lines(text, file), delimiter=separator, strict=True), 1
        ):
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield number, cells
    except csv.Error as error:
        raise InputError(
            f"{file}, row {number + 1}: quotation marks do not match, or a value is far too long "
            f"({error}); allowed: a mark inside a quoted value written twice"
        ) from None


def _lines(text: str, file: Path) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if len(line) > MAX_LINE:
            raise InputError(
                f"{file}, line {number}: is {len(line)} characters long; allowed: {MAX_LINE}, so this "
                "is no table of patients"
            )
        yield line


def _header(text: str, file: Path, separator: str) -> list[str]:
    """The first row that is not blank; empty if it cannot be read with this separator."""
    reader = csv.reader(_lines(text, file), delimiter=separator, strict=True)
    try:
        row = next((row for row in reader if any(cell.strip() for cell in row)), [])
    except csv.Error:
        return []
    return [name_of(cell) for cell in row]


def _find_separator(text: str, file: Path, wanted: set[str]) -> str:
    headers = {separator: _header(text, file, separator) for separator in SEPARATORS}
    found = {separator: len(set(header) & wanted) for separator, header in headers.items()}
    best = max(found.values())
    if not best:
        raise InputError(f"{file}: {none_found(max(headers.values(), key=len), wanted)}")
    likely = [separator for separator in SEPARATORS if found[separator] == best]
    if len(likely) > 1 and max(len(headers[separator]) for separator in likely) > 1:
        names = " or ".join(SEPARATORS[separator] for separator in likely)
        raise InputError(
            f"{file}: the separator may be {names}; allowed: say which as `separator` under [file] in "
            "the map"
        )
    return likely[0]


def none_found(header: list[str], wanted: set[str]) -> str:
    """What to say of a header that holds none of the wanted columns."""
    shown = ", ".join(repr(name) for name in header[:8]) + (", …" if len(header) > 8 else "")
    reads = f"reads {shown}"
    if any(FIGURE.search(name) for name in header):  # a patient's row is shown to nobody
        reads = "holds numbers and seems to be none"
    return (
        f"none of the columns that are looked for is in the header, the first row that is not blank, which "
        f"{reads}; allowed: columns named as in the map or the data dictionary, e.g. "
        f"{', '.join(sorted(wanted)[:5])}"
    )
