"""Faults on the screen: a table that no text of a dataset can take over."""

from __future__ import annotations

import io
import sys

import pandas as pd

SHOWN = 50  # rows of one kind
WIDTH = 160  # columns where the output is not a terminal
LONGEST = 300  # characters of one cell


def show(faults: pd.DataFrame, name: str) -> str:
    """The faults of ``name`` as a table, errors first, and the line "{name}: N errors, M warnings".

    At most 50 faults of one kind are listed. On a terminal the table fits its width and has colours;
    elsewhere it is 160 columns wide, without.

    >>> none = pd.DataFrame(columns=["severity", "participant_id", "where", "value", "allowed", "message"])
    >>> show(none, "mine")
    'mine: 0 errors, 0 warnings'
    """
    errors = int((faults["severity"] == "error").sum())
    count = f"{printable(name)}: {errors:,} errors, {len(faults) - errors:,} warnings"
    return f"{_drawn(faults)}\n{count}" if len(faults) else count


def _drawn(faults: pd.DataFrame) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    for header in ("severity", "patient", "where", "what", "allowed"):
        drawn.add_column(header, overflow="fold")
    for *cells, style in _rows(faults):
        drawn.add_row(*[Text(printable(cell)) for cell in cells], style=style)
    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(), width=None if terminal else WIDTH, force_terminal=terminal,
        no_color=not terminal, highlight=False, emoji=False, markup=False,
    )  # fmt: skip
    console.print(drawn)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _rows(faults: pd.DataFrame) -> list[tuple[str, ...]]:
    """Cells and style of each line: at most `SHOWN` of a kind, then how many more."""
    rows = []
    for severity, style in (("error", "red"), ("warning", "")):
        mine = faults[faults["severity"] == severity]
        for _, kind in mine.groupby([_column(mine), mine["allowed"]], sort=False):
            for fault in kind.head(SHOWN).itertuples():
                cells = (fault.participant_id, fault.where, fault.message, fault.allowed)
                rows.append((severity, *cells, style))
            if len(kind) > SHOWN:
                more = f"and {len(kind) - SHOWN:,} more (see --json)"
                rows.append((severity, "", "", more, "", style))
    return rows


def _column(faults: pd.DataFrame) -> pd.Series:
    """The column that a fault is about; empty for files and folders, which differ by patient."""
    is_file = faults["where"].str.contains("/") | (faults["where"] == faults["participant_id"])
    return faults["where"].mask(is_file, "")


def printable(text: str) -> str:
    """Text with every control and invisible character spelled out, and not too long.

    >>> printable("a" + chr(27) + "[31m")
    'a\\\\x1b[31m'
    """
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
