"""Predictions as anybody's software writes them: a delimited file with an outcome and scores.

A row is a patient. Nothing is guessed silently: what was read in another way than as plain text with
decimal points is in `ScoreTable.notes`, and what has two readings is refused.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.intake.delimited import SEP_LINE, SEPARATORS, decode, name_of, read_rows
from rlvo_lib.intake.quantities import LIKE_THOUSANDS

#: Cells that hold nothing, as written by R, pandas, SAS, Stata and Excel; capitals do not count.
MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "<na>", ".")
ALLOWED = "a CSV file: text with comma, semicolon or tab, best UTF-8; save a workbook as CSV first"
SHOWN_COLUMNS = 12
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
COMMA_NUMBER = r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?"


@dataclass(frozen=True)
class ScoreTable:
    """Cells as text (None: nothing there); the index is the row number in the file, the header being 1."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


def read_scores(path: str | Path, *, truth: str) -> ScoreTable:
    """A delimited file whose separator is the one that makes the outcome's column appear.

    Raises
    ------
    InputError
        For a file that is missing, empty, no text or without that column; for rows of another length
        than the header, and a column name that is there twice.
    """
    path = Path(path)
    text, encoding = _text(path)
    separator, header = _separator(text, path, truth)
    rows, _ = read_rows(text, path, {truth}, separator)
    names = [name or f"(column {k})" for k, name in enumerate(header, start=1)]  # R's row names
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError(f"{path}: two columns are named '{doubled[0]}'; allowed: each name once")
    if len(rows) < 2:
        raise InputError(f"{path}: has a header and no rows; needed: a row for each patient")
    cells = pd.DataFrame(
        [cells for _, cells in rows[1:]],
        columns=names,
        index=[k for k, _ in rows[1:]],
        dtype=object,
    )
    for name in names:
        cells[name] = cells[name].mask(cells[name].str.lower().isin(MISSING), None)
    notes = [f"rows: {len(cells)}, separator: {SEPARATORS.get(separator, repr(separator))}"]
    if encoding == "windows-1252":
        notes.append("the file is not UTF-8; its letters were read as Windows-1252")
    return ScoreTable(cells, tuple(notes))


def _text(path: Path) -> tuple[str, str]:
    if path.is_dir():
        run = " (a run? its numbers are recomputed by `rlvo verify`)" * (path / "run.json").exists()
        raise InputError(f"{path}: not a readable CSV table: it is a folder{run}")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    if not data.strip():
        raise InputError(f"{path}: not a readable CSV table: it is empty")
    try:
        return decode(data, path)
    except InputError as error:  # its advice is for `rlvo import`
        raise InputError(f"{str(error).split('; allowed:')[0]}; allowed: {ALLOWED}") from None


def _separator(text: str, path: Path, truth: str) -> tuple[str, list[str]]:
    """The separator, and the column names it makes."""
    told = SEP_LINE.match(text)
    body = text[told.end() :] if told else text
    first = next((line for line in body.splitlines() if line.strip()), "")
    headers = {}
    for separator in (told[1],) if told else SEPARATORS:
        try:
            cells = next(csv.reader([first], delimiter=separator, strict=True))
        except (csv.Error, TypeError):
            continue
        # a quotation mark after a blank is a letter to csv
        headers[separator] = [name_of(name_of(cell).strip('"')) for cell in cells]
    if not headers:
        raise InputError(f"{path}: quotation marks in the header do not match")
    with_truth = [s for s, header in headers.items() if truth in header]
    best = max(with_truth or headers, key=lambda separator: len(headers[separator]))
    if not with_truth:
        raise InputError(f"{path}: {absent(truth, headers[best])}; name the outcome with --truth")
    return best, headers[best]


def absent(name: str, columns: Sequence[str]) -> str:
    """What to say of a column that is not there.

    >>> absent("y", ["id", "risk"])
    "column 'y' is not in the table; its columns: id, risk"
    """
    shown = ", ".join(map(str, list(columns)[:SHOWN_COLUMNS]))
    more = f" and {len(columns) - SHOWN_COLUMNS} more" * (len(columns) > SHOWN_COLUMNS)
    return f"column '{name}' is not in the table; its columns: {shown}{more}"


def with_numbers(
    table: ScoreTable, scores: Sequence[str] | None, leave: Sequence[str] = ()
) -> ScoreTable:
    """The table with the score columns as floats; without ``scores``, every column that is numeric.

    ``leave``: columns that stay text (outcome, patient, subgroups). See `read_numbers` for what is refused.
    """
    frame, notes = table.frame.copy(deep=False), list(table.notes)
    for name in dict.fromkeys(scores or frame.columns):
        if name not in frame:
            raise InputError(absent(name, list(frame.columns)))
        if name in leave:
            continue
        try:
            frame[name], done = read_numbers(frame[name])
        except InputError:
            if scores:
                raise
            continue
        if done:
            notes.append(f"column '{name}': {done}")
    return ScoreTable(frame, tuple(notes))


def read_numbers(cells: pd.Series) -> tuple[pd.Series, str]:
    """A column of text as floats (NaN: nothing there), and what was done beyond reading decimal points.

    Decimal commas are read if the column has no decimal point and not every comma may as well mark
    thousands ("1,234"). Percent signs are read (35% is 0.35) if every value has one.

    Raises
    ------
    InputError
        Naming column, row and value, for anything else that is no finite number.
    """
    given = cells.dropna()
    percent = bool(len(given)) and bool(given.str.endswith("%").all())
    text = given.str.removesuffix("%").str.strip() if percent else given
    plain, comma = text.str.fullmatch(NUMBER), text.str.fullmatch(COMMA_NUMBER)
    too_large = text.where(plain, "0").astype(float).abs() == float("inf")
    for wrong in text.index[~(plain | comma) | too_large][:1]:
        raise InputError(
            f"column '{cells.name}', row {wrong}: '{given[wrong]}'; allowed: finite numbers, or nothing"
        )
    done = ["percent signs read as hundredths"] if percent else []
    if comma.any():
        _refuse_two_readings(cells.name, text, text[comma])
        text = text.str.replace(",", ".")
        done.append("decimal commas read as points")
    values = text.astype(float) / (100 if percent else 1)
    return values.reindex(cells.index), ", ".join(done)


def _refuse_two_readings(name: object, text: pd.Series, commas: pd.Series) -> None:
    points = text[text.str.contains(".", regex=False)]
    where = f"column '{name}', row {commas.index[0]}: '{commas.iloc[0]}'"
    if len(points):
        raise InputError(
            f"{where} has a comma and '{points.iloc[0]}' in row {points.index[0]} a point; allowed: one "
            "decimal mark"
        )
    if commas.str.fullmatch(LIKE_THOUSANDS).all():
        raise InputError(
            f"{where} may be read with a decimal comma or with a thousands comma; allowed: decimal points"
        )
