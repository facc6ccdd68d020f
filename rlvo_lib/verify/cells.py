"""A stored table against a recomputed one, cell by cell, and the rows that a check reports."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import storage
from rlvo_lib.config import InputError
from rlvo_lib.report.table_files import read_text_table

AGREE, DIFFER = "agree", "differ"
NEEDS_DATASET, ABSENT = "needs dataset", "absent"
RELATIVE = 1e-9
SHOWN = 20  # differing cells listed a table
#: Columns that say which row a cell is in.
NAMES = (
    "arm", "metric", "variable", "id", "item", "step", "a", "b", "definition", "subgroup", "stratum",
)  # fmt: skip


def row(what: str, where: str, stored: object, recomputed: object, same: bool) -> tuple:
    """One check: what, where, stored, recomputed, verdict."""
    return what, where, str(stored), str(recomputed), AGREE if same else DIFFER


def compare(path: str | Path, recomputed: pd.DataFrame, where: str) -> list[tuple]:
    """A stored CSV against a recomputed table, cell by cell: one row if they agree, else the cells."""
    if not Path(path).exists():
        return [row("table", where, "missing", f"{len(recomputed)} rows", False)]
    stored = read_text_table(path)
    buffer = io.StringIO(storage.csv_text(recomputed))
    expected = pd.read_csv(buffer, dtype=str, keep_default_na=False)
    if list(stored.columns) != list(expected.columns):
        return [row("table", f"{where}: columns", ", ".join(stored), ", ".join(expected), False)]
    if len(stored) != len(expected):
        return [row("table", f"{where}: rows", len(stored), len(expected), False)]
    rows, names = [], [c for c in expected if c in NAMES]
    differing = 0
    for line, column in zip(*np.nonzero((stored != expected).to_numpy()), strict=True):
        before, after = stored.iat[line, column], expected.iat[line, column]
        if _close(before, after):
            continue
        differing += 1
        if differing <= SHOWN:
            place = ", ".join(expected[n].iat[line] for n in names) or f"row {line + 2}"
            rows.append(
                row("table", f"{where}: {place}: {expected.columns[column]}", before, after, False)
            )
    if differing > SHOWN:
        rows.append(row("table", where, f"{differing} cells differ", "", False))
    return rows or [row("table", where, f"{stored.size} cells", "the same", True)]


def _close(a: str, b: str) -> bool:
    """Two numbers written differently but within 1e-9 of their size; whole numbers must be the same."""
    try:
        x, y = float(a), float(b)
    except ValueError:
        return False
    if not any(c in a + b for c in ".en"):
        return False
    if not (math.isfinite(x) and math.isfinite(y)):
        return x == y
    return bool(abs(x - y) <= RELATIVE * max(abs(x), abs(y), 1e-3))


def contents(stored: dict[str, str], now: dict[str, str]) -> list[tuple]:
    """One row for each file: the digest that was recorded, and the one it has now."""
    rows = []
    for name in sorted(set(stored) | set(now)):
        before, after = stored.get(name, "not recorded"), now.get(name, "missing")
        rows.append(row("file content", name, before[:16], after[:16], before == after))
    return rows


def attempt(what: str, where: str, check: Callable[[], list[tuple]]) -> list[tuple]:
    """The rows of a check; a file it cannot use is a difference, not a crash."""
    try:
        return check()
    except InputError as error:
        return [row(what, where, "unusable", str(error), False)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return [row(what, where, "unusable", f"{type(error).__name__}: {error}", False)]
