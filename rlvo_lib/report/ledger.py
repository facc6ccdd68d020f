"""``claims.html``: the ledger of claims as a page, each row leading to its table and notebook cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlvo_lib.report.table_files import LONGEST, cell, read_text_table, stamp_text, template

LEDGER_PAGE = "claims.html"
_OPEN = ("not reproducible without the cohort", "not testable", "not computed", "another cohort")


def ledger_rows(run: str | Path) -> list[dict[str, Any]]:
    """The claims of a run as its pages show them; empty if it has no ``claims.csv``."""
    run = Path(run)
    if not (run / "claims.csv").exists():
        return []
    rows = read_text_table(run / "claims.csv").to_dict("records")
    for row in rows:
        sd = f" ± {cell(row['here_sd'])}" if row["here_sd"] else ""
        row["here"] = row["here_text"] or cell(row["here"].removesuffix(".0")) + sd
        row["implied"] = _interval(row["implied_low"], row["implied_high"])
        ours = _interval(row["low"], row["high"])
        row["ensemble"] = f"{cell(row['ensemble'])} {ours}" if row["ensemble"] else ""
        row["why"] = "; ".join(
            text
            for text in (f"ensemble {row['ensemble']}" if row["ensemble"] else "", row["reason"])
            if text
        )
        simulated_size = row["kind"] == "count" and row["data"] == "simulated"
        is_open = row["verdict"] in _OPEN or (simulated_size and row["verdict"] == "inconsistent")
        row["style"] = "open" if is_open else row["verdict"]
        row["tables"] = [
            {"name": name, "file": table_page(run, name)}
            for name in row["table"].split("; ")
            if name
        ]
        row["cell_page"] = cell_page(run, row["notebook"], row["cell"])
    return rows


def _interval(low: str, high: str) -> str:
    return f"[{cell(low)}, {cell(high)}]" if low else ""


def table_page(run: Path, name: str) -> str:
    """Where a table is read: its page, or the CSV if it is long; empty if the run lacks it."""
    file = f"tables/{name}.csv"
    if not (run / file).exists():
        return ""
    short = len(read_text_table(run / file)) <= LONGEST
    page = f"tables/{name}.html"
    return page if short and (run / page).exists() else file


def cell_page(run: Path, notebook: str, cell_id: str) -> str:
    """The address of a notebook's cell in the run folder; the anchor is nbconvert's. Empty if not there."""
    page = f"notebooks/{notebook}.html"
    return f"{page}#cell-id={cell_id}" if cell_id and (run / page).exists() else ""


def render_ledger(run: str | Path, *, title: str, data: str) -> str:
    """The page of the ledger, from ``claims.csv`` as it is now."""
    stamp = stamp_text(data)
    return template("claims.html").render(
        heading=f"{stamp + ': ' if stamp else ''}Claims and what became of them",
        title=title,
        data=data,
        stamp=f"{stamp}. " if stamp else "",
        claims=ledger_rows(run),
    )
