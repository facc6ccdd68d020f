"""Rows of a CSV file, each with the line of the file that it begins on."""

from __future__ import annotations

import csv
from pathlib import Path

from rlvo_lib.config import InputError


def read_cells(path: Path, what: str) -> list[tuple[int, list[str]]]:
    """Every row that is not blank, the header too, as (line, cells); ``what`` names the file in errors.

    Raises
    ------
    InputError
        If the file is missing, not in UTF-8, or no CSV.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            return [
                (reader.line_num - sum(cell.count("\n") for cell in row), row)
                for row in reader
                if row
            ]
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist") from None
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not in UTF-8; allowed: a {what} in UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path.name}: {error}; allowed: a {what} as CSV") from error


def read_rows(path: Path, what: str, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """The rows below the header as (line, cells by column); a short row is filled with "".

    Raises
    ------
    InputError
        As `read_cells`, or if one of ``columns`` is missing, or a row is longer than the header.
    """
    (_, header), *rows = read_cells(path, what) or [(1, [])]
    for column in columns:
        if header.count(column) != 1:
            fault = "is missing" if column not in header else "stands in it twice"
            raise InputError(f"{path.name}: column '{column}' of a {what} {fault}")
    for line, row in rows:
        if len(row) > len(header):
            raise InputError(
                f"{path.name}, line {line}: has {len(row)} cells; allowed: {len(header)}, as in the "
                "header"
            )
    return [
        (line, dict(zip(header, row + [""] * (len(header) - len(row)), strict=True)))
        for line, row in rows
    ]
