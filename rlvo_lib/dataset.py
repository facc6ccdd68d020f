"""A dataset folder: its table, and where its scans lie.

Where scans lie is said by the study file; names follow BIDS (see the README). No scan is taken from
``derivatives/``: what a simulator knows lies there. The table is kept as the text it was written in
(`Dataset.raw`) and as typed values (`Dataset.table`): quantities as floats, codes as text, every
missing code as NaN.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import twins
from rlvo_lib.config import DERIVATIVES, InputError, Scan, Study
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary, Field
from rlvo_lib.exclusions import Exclusions, read_exclusions

TABLE = "participants.tsv"
#: What only a simulator writes: its truth, and the best AUC that its patients allow.
TRUTH, CEILING = f"{DERIVATIVES}/truth", f"{DERIVATIVES}/ceiling.json"
MAX_TABLE_BYTES = 200_000_000
MISSING_TOKENS = {"": "-99", "n/a": "-99"}
IDENTIFIER = re.compile(r"sub-[A-Za-z0-9]+")
DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?")
#: Timings of columns that are no content: what a patient is called, what is calculated, and what may be
#: entered differently for the same patient.
NO_CONTENT = ("ID", "DERIVED", "PRE_SENSITIVITY")


def scan_path(root: str | Path, participant_id: str, scan: Scan) -> Path:
    """Where a scan of a patient lies in a dataset folder, whether or not it exists.

    ``scan`` is one of the study's (`Study.scans`).

    Raises
    ------
    InputError
        If the identifier is not ``sub-`` and letters or digits: it could lead out of the folder. If
        the scan would lie in a folder ``derivatives`` of any dataset, also through a symbolic link.
    """
    file = _scan_file(participant_id, scan)
    _refuse_derivatives(Path(root, file), file, _real_places(root))
    return Path(root, file)


def _real_places(root: str | Path) -> tuple[str, str]:
    """Where a dataset folder and its ``derivatives`` lie once their links are followed."""
    return os.path.realpath(root), os.path.realpath(os.path.join(root, DERIVATIVES))


def _refuse_derivatives(path: str | Path, file: str, places: tuple[str, str]) -> None:
    """An `InputError` if a scan lies in ``derivatives``: by its name, or where its links lead."""
    target, (root, derivatives) = os.path.realpath(path), places
    led = target.removeprefix(os.path.join(root, ""))  # whole, if it leads out of the dataset
    folders = {part for place in (file, led) for part in place.casefold().split(os.sep)}
    if DERIVATIVES in folders or target.startswith(os.path.join(derivatives, "")):
        raise InputError(
            f"{path}: lies in, or links to, a folder {DERIVATIVES}/; allowed: a scan outside it "
            "(no model may read what lies there)"
        )


def _scan_file(participant_id: str, scan: Scan) -> str:
    if not IDENTIFIER.fullmatch(participant_id):
        raise InputError(f"participant_id {participant_id!r}; allowed: sub- and letters or digits")
    return scan.path.format(participant_id)


@dataclass(frozen=True)
class Dataset:
    """A dataset folder: its table, and where its scans are."""

    root: Path
    name: str
    simulated: bool
    raw: pd.DataFrame  # index participant_id; the text of participants.tsv
    table: pd.DataFrame  # index participant_id; typed values, missing codes as NaN
    scans: dict[str, Scan]  # those of the study, by name
    exclusions: Exclusions = field(default_factory=Exclusions)  # what a person left out

    @property
    def kind(self) -> str:
        """``"simulated"`` or ``"real"``: the ``data`` column of every result table."""
        return "simulated" if self.simulated else "real"

    def scan(self, participant_id: str, scan: str) -> Path | None:
        """The path of a scan, or None if the patient does not have it; as `scan_path`, but it exists.

        A scan that ``exclusions.csv`` excludes is one that the patient does not have.
        """
        if (participant_id, scan) in self.exclusions.scans:
            return None
        name = _scan_file(participant_id, self.scans[scan])
        file = os.path.join(self.root, name)
        if not os.path.isfile(file):
            return None
        _refuse_derivatives(file, name, self._places)
        return Path(file)

    @cached_property
    def _places(self) -> tuple[str, str]:
        return _real_places(self.root)


def load_dataset(root: str | Path, study: Study, dictionary: Dictionary) -> Dataset:
    """Read a dataset folder (`participants.tsv`, `dataset_description.json`) of a study.

    Raises
    ------
    InputError
        If the folder or one of the two files is missing or unreadable, or a value is not what the
        dictionary allows (the first such value is named; ``rlvo validate`` lists all). If there is an
        ``exclusions.csv`` with a problem.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"dataset folder {root} does not exist")
    description = read_description(root)
    raw = read_participants(root)
    return Dataset(
        root=root,
        name=description["Name"],
        simulated=description["simulated"],
        raw=raw,
        table=typed(raw, dictionary),
        scans=study.scans,
        exclusions=read_exclusions(root, raw.index, study.scans),
    )


def read_description(root: Path) -> dict:
    """``dataset_description.json``: at least a Name, and whether the data are simulated."""
    path = root / "dataset_description.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{root}: dataset_description.json is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(description, dict) or "Name" not in description:
        raise InputError(f"{path}: 'Name' is missing")
    name = description["Name"]
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{path}: 'Name' is {json.dumps(name)}; allowed: the dataset's name")
    if not isinstance(description.get("simulated"), bool):
        raise InputError(
            f"{path}: 'simulated' is {description.get('simulated')!r}; allowed: true or false, so "
            "that simulated data can never pass for real"
        )
    for place in (TRUTH, CEILING):
        if (root / place).exists() and not description["simulated"]:
            raise InputError(
                f"{path}: 'simulated' is false, but {place} holds a simulator's truth; allowed: true"
            )
    _refuse_relabelled(root, path, description)
    return description


def _refuse_relabelled(root: Path, path: Path, description: dict) -> None:
    """A simulated dataset says so in several places; one that says both is refused."""
    if description["simulated"]:
        return
    signs = {"'scenario' is there": "scenario" in description}
    signs["'Name' says SIMULATED"] = "simulated" in description["Name"].lower()
    columns = root / "participants.json"
    if columns.is_file():
        try:
            said = json.loads(columns.read_text(encoding="utf-8-sig"))
        except (ValueError, OSError, RecursionError):
            said = {}
        marked = isinstance(said, dict) and said.get("Simulated") is True
        signs["participants.json says Simulated: true"] = marked
    for sign, there in signs.items():
        if there:
            raise InputError(f"{path}: 'simulated' is false, but {sign}; allowed: true")


@dataclass(frozen=True)
class TextTable:
    """``participants.tsv`` as it is written: its rows by the line of the file they begin on."""

    rows: pd.DataFrame  # index: line, the header being 1; text, participant_id among the columns
    ragged: tuple[tuple[int, str, int], ...]  # rows of another length: line, patient, fields

    @property
    def width(self) -> int:
        """The number of fields that each row must have."""
        return self.rows.shape[1]


def read_participants(root: Path) -> pd.DataFrame:
    """``participants.tsv`` as text, indexed by participant_id.

    Raises
    ------
    InputError
        As `read_table`; and for a row of another length than the header, or a doubled patient.
    """
    path, table = root / TABLE, read_table(root)
    for line, patient, fields in table.ragged:
        who = f"patient {patient!r}" if patient else "the row"
        raise InputError(
            f"{path}, line {line}: {who} has {fields} fields; allowed: {table.width}, as in the header"
        )
    ids = table.rows["participant_id"]
    if ids.duplicated().any():
        again = ids.index[ids.duplicated()][0]
        first = ids.index[ids == ids[again]][0]
        raise InputError(
            f"{path}: patient {ids[again]!r} stands in more than one row (lines {first} and {again})"
        )
    return table.rows.set_index("participant_id")


def read_table(root: Path) -> TextTable:
    """``participants.tsv`` as text, with rows that do not fit the header kept apart.

    Every line that is not blank is a row. Spaces around a participant_id are left out.

    Raises
    ------
    InputError
        If the file is missing, empty, too large, not UTF-8 or not tab-separated, has no patient or no
        column ``participant_id``, or has a column twice; if a quotation mark is not closed in its line.
    """
    path = root / TABLE
    lines = re.split(r"\r\n|\r|\n", _read_text(path))
    written = _rows(lines, path)
    header = [name.strip() for name in next(written)[1]]
    _check_header(header, path)
    place = header.index("participant_id")
    rows, begins, ragged = [], [], []
    seen: dict[str, str] = {}  # one object for each text, however often it stands in the table
    for line, row in written:
        if len(row) > place:
            row[place] = row[place].strip()
        if len(row) == len(header):
            rows.append([seen.setdefault(cell, cell) for cell in row])
            begins.append(line)
        elif lines[line - 1].strip():
            ragged.append((line, row[place] if len(row) > place else "", len(row)))
    if not rows and not ragged:
        raise InputError(f"{path}: the table has no patients")
    table = pd.DataFrame(rows, columns=header, index=pd.Index(begins, name="line"), dtype=str)
    return TextTable(table, tuple(ragged))


def _rows(lines: list[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each line as its number and fields; an `InputError` where a row would go on in the next line."""
    # an empty line at the end: a quotation mark that is open in the last line would go on in it
    reader = csv.reader([*lines, ""], delimiter="\t")
    for line in range(1, len(lines) + 1):
        try:
            row = next(reader)
        except csv.Error as error:
            if reader.line_num > line:
                raise _open_quote(path, line, reader.line_num, lines) from None
            most = csv.field_size_limit()
            what = f"a field of over {most:,} characters" if len(lines[line - 1]) > most else error
            raise InputError(f"{path}, line {line}: {what}; allowed: shorter text") from error
        if reader.line_num > line:
            raise _open_quote(path, line, reader.line_num, lines)
        yield line, row


def _open_quote(path: Path, first: int, last: int, lines: list[str]) -> InputError:
    end = len(lines) - (lines[-1] == "")  # the last line, which a line end may close
    closed = f"is closed in line {last} only" if last <= end else "is not closed"
    span = f"lines {first} to {last}" if first < (last := min(last, end)) else f"line {first}"
    return InputError(
        f'{path}, {span}: a quotation mark (") that is opened in line {first} {closed}, and what stands '
        "between would be one field; allowed: a field in quotation marks ends in its own line"
    )


def _read_text(path: Path) -> str:
    """The text of a table; an `InputError` that says what is wrong with its size or encoding."""
    try:
        size = path.stat().st_size
        if size > MAX_TABLE_BYTES:
            raise InputError(
                f"{path}: {size / 1e6:,.0f} MB, too large for a table; allowed: "
                f"{MAX_TABLE_BYTES // 1_000_000} MB"
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path.parent}: {path.name} is missing") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(
            f"{path}: is in UTF-16 (in Excel 'Unicode Text'); allowed: save the table as UTF-8"
        )
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise InputError(f"{path}, line {line}: holds a zero byte; allowed: text in UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: is not in UTF-8 (byte 0x{content[error.start]:02x}); allowed: save "
            "the whole table as UTF-8"
        ) from None


def _check_header(header: list[str], path: Path) -> None:
    if not any(header):
        raise InputError(f"{path}: not a readable tab-separated table (its first line is empty)")
    if "participant_id" not in header:
        for mark, name in ((",", "commas"), (";", "semicolons")):
            if "participant_id" in [part.strip(' "') for part in header[0].split(mark)]:
                raise InputError(f"{path}: columns are separated by {name}; allowed: tabs")
        raise InputError(f"{path}: column 'participant_id' is missing")
    nameless = [str(place) for place, name in enumerate(header, start=1) if not name]
    if len(nameless) > 1:
        raise InputError(
            f"{path}: {len(nameless)} columns have no name (columns {', '.join(nameless)} of "
            f"{len(header)}); allowed: a name for each"
        )
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"{path}: column {name!r} stands in it twice")


def missing_codes(text: pd.Series) -> pd.Series:
    """The missing code of each value (``-99``, ``-98``, ``-97``), or "" where a value is present."""
    position, distinct = _distinct(text)
    codes = np.array([_missing_code(value) for value in distinct], dtype=object)
    return pd.Series(codes[position], index=text.index, name=text.name, dtype=str)


def _missing_code(value: object) -> str:
    token = value.strip() if isinstance(value, str) else "no text"
    code = MISSING_TOKENS.get(token, token)
    return code if code in MISSING_REASONS else ""


def _distinct(text: pd.Series) -> tuple[np.ndarray, pd.Series]:
    """The distinct values of a column, and which of them stands in each row: few in a long table."""
    position, distinct = pd.factorize(text, use_na_sentinel=False)
    return position, pd.Series(distinct, dtype=str)


def typed(raw: pd.DataFrame, dictionary: Dictionary) -> pd.DataFrame:
    """Text columns as typed values: quantities float64, codes as text, missing as NaN.

    Columns that the dictionary does not know are left out.

    Raises
    ------
    InputError
        For a quantity that is not a number, naming patient, column and value.
    """
    columns = {}
    for name in [name for name in raw.columns if name in dictionary]:
        position, distinct = _distinct(raw[name])
        value = distinct.str.strip().where(missing_codes(distinct) == "")
        if dictionary[name].is_quantity:
            numbers = pd.to_numeric(value, errors="coerce").astype(float)
            wrong = (value.notna() & ~np.isfinite(numbers)).to_numpy()[position]
            if wrong.any():
                first = int(wrong.argmax())
                raise InputError(
                    f"participants.tsv: patient '{raw.index[first]}', column '{name}': "
                    f"{value[position[first]]!r} is not a number; allowed: {dictionary[name].allowed}"
                )
            value = numbers
        columns[name] = value.array[position]
    return pd.DataFrame(columns, index=raw.index)


def datetimes(text: pd.Series) -> pd.Series:
    """Dates and times of text (``YYYY-MM-DD HH:MM``); NaT where it is none.

    >>> datetimes(pd.Series(["2020-03-01 10:30", "1 March"])).isna().tolist()
    [False, True]
    """
    value = text.str.strip()
    written = value.where(value.str.fullmatch(DATETIME))
    return pd.to_datetime(written, format="ISO8601", errors="coerce")


def value_codes(text: pd.Series, field: Field) -> np.ndarray:
    """A whole number for each value: the same for equal values however written, -1 where missing.

    >>> from rlvo_lib.config import load_study
    >>> from rlvo_lib.dictionary import load
    >>> value_codes(pd.Series(["70", "70.0", "-99", "71"]), load(load_study().dictionary_path)["age"])
    array([ 0,  0, -1,  1])
    """
    position, distinct = _distinct(text)
    value = distinct.str.strip()
    if field.is_quantity or field.type == "datetime":
        as_read = pd.to_numeric(value, errors="coerce") if field.is_quantity else datetimes(value)
        value = value.where(as_read.isna(), as_read.astype(str))
    return pd.factorize(value.where(missing_codes(distinct) == ""))[0][position]


def content_codes(raw: pd.DataFrame, dictionary: Dictionary) -> pd.DataFrame:
    """The content of a text table as whole numbers (`value_codes`), one column for each of it.

    Content is every column of the dictionary but identifiers, what is calculated from other columns, and
    what is not the patient's own (year, centre, operator).
    """
    names = [n for n in raw.columns if n in dictionary and dictionary[n].timing not in NO_CONTENT]
    codes = {name: value_codes(raw[name], dictionary[name]).astype(np.int32) for name in names}
    return pd.DataFrame(codes, index=raw.index)


def twins_of(codes: pd.DataFrame, dictionary: Dictionary) -> pd.DataFrame:
    """Which rows of `content_codes` are one patient: numbers ``same`` and ``alike`` (`twins.find`).

    Quantities and dates are the evidence.
    """
    fields = [dictionary[name] for name in codes.columns]
    evidence = np.array([f.is_quantity or f.type == "datetime" for f in fields], dtype=bool)
    same, alike = twins.find(codes.to_numpy(), evidence)
    return pd.DataFrame({"same": same, "alike": alike}, index=codes.index)


def content_groups(raw: pd.DataFrame, dictionary: Dictionary) -> pd.Series:
    """A number for each row of a text table: the same where rows are one patient by their content.

    Values count as equal however written, and all reasons for a missing value as one. Rows are one
    patient where all content is the same or, as after a correction, where at most two of the columns
    that both have recorded differ; the exact rule is that of `twins`.

    Returns
    -------
    Series of whole numbers with the index of ``raw``.
    """
    return twins_of(content_codes(raw, dictionary), dictionary)["alike"].rename(None)
