"""The notebook cell that makes each table of a run, found in the notebooks' sources."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from rlvo_lib.config import InputError

SAVING = (
    "save",
    "keep",
    "save_table",
)  # calls that write a table, its name in the first two arguments
LEDGER = "claims"  # the call that makes the ledger


def table_cells(folder: str | Path) -> dict[str, tuple[str, str]]:
    """Where each table is made: name of the table -> (notebook without its ending, id of the cell).

    A cell makes a table if it calls one of `SAVING` with its name; the last one in the order of the
    notebooks counts, as its table is the one that stays. Under ``"claims"`` stands the cell of the ledger.
    A folder without notebooks gives nothing.

    Raises
    ------
    InputError
        If a notebook cannot be read.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(Path(folder).glob("[0-9]*.ipynb")):
        if path.name.startswith(".") or path.name.endswith(".failed.ipynb"):
            continue
        for cell, source in _code(path):
            found |= dict.fromkeys(tables_made(source), (path.stem, cell))
    return found


def tables_made(source: str) -> list[str]:
    """The tables that a cell's source saves.

    >>> tables_made("shown = save('roc_points', table, 'Corners.')")
    ['roc_points']
    >>> tables_made("for name, t in {'flow': a, 'table1': b}.items(): save(name, t, 'Words.')")
    ['flow', 'table1']
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a magic
        return []
    names, loose = [], False
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if called == LEDGER:
            names.append(LEDGER)
        if called in SAVING:
            texts = [a.value for a in call.args[:2] if isinstance(a, ast.Constant)]
            names += texts
            loose |= not texts
    defined = any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
    if loose and not defined:  # the name is a variable: any word of the cell may be it
        words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        names += [w for w in words if isinstance(w, str) and w.isidentifier()]
    return list(dict.fromkeys(names))


def _code(path: Path) -> Iterator[tuple[str, str]]:
    """The id and source of each code cell of a notebook."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{path}: not a readable notebook ({error})") from error
    for cell in cells:
        if cell.get("cell_type") == "code":
            source = cell.get("source", "")
            yield cell.get("id", ""), source if isinstance(source, str) else "".join(source)
