"""Reporting checklists filled from a run: TRIPOD+AI, CLAIM 2024, PROBAST+AI, as CSV and Markdown.

`templates/checklists.csv` lists the items. TRIPOD+AI has topics in words of our own and, where the run knows
the answer, a sentence with facts of the run (`facts`); the other two have numbers and pointers alone, as their
wording is not at hand. A pointer is a file of the run, and a table's is followed by the notebook cell that
makes it. What no file of the run says is left to the authors, and says so.
"""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path

import pandas as pd

from rlvo_lib import results, storage
from rlvo_lib.report.ledger import cell_page
from rlvo_lib.report.run_facts import facts
from rlvo_lib.report.table_files import read_text_table, stamp_text

FOLDER = "checklists"
FROM_RUN, IN_PART, POINTED = "from the run", "in part", "to be judged by the evidence"
AUTHORS, ABSENT = "to be written by the authors", "not in this run"
STATUSES = (FROM_RUN, IN_PART, POINTED, AUTHORS, ABSENT)
COLUMNS = ("item", "section", "topic", "status", "answer", "evidence", "authors", "data")
#: Each checklist: its name, and how its items must be read.
CHECKLISTS = {
    "tripod_ai": (
        "TRIPOD+AI",
        "Items by number (BMJ 2024;385:e078378), their topics in words of our own. Read them beside the "
        "published checklist.",
    ),
    "claim_2024": (
        "CLAIM 2024",
        "Item numbers (Radiol Artif Intell 2024;6:e240300) with pointers. The wording of the items is not at "
        "hand here, and what each number asks was noted from memory: check every line against the published "
        "checklist.",
    ),
    "probast_ai": (
        "PROBAST+AI",
        "Signalling questions by number, D for development and E for evaluation, with pointers. Their wording "
        "is not at hand here; the judgements (yes to no) and applicability are the reader's.",
    ),
}
SOFTWARE_ONLY = "The patients are simulated: this documents the software, not a study."


def write_checklists(run: str | Path) -> list[Path]:
    """Write ``checklists/<name>.csv`` and ``.md`` for each of `CHECKLISTS`; returns the CSV paths.

    Tables, figures and the notebooks' pages must be there: what is not is not pointed at.
    """
    run, written = Path(run), []
    for name, table in checklists(run).items():
        path = run / FOLDER / f"{name}.csv"
        storage.write_csv(path, table)
        storage.write_text(path.with_suffix(".md"), render_checklist(name, read_text_table(path)))
        written.append(path)
    return written


def checklists(run: str | Path) -> dict[str, pd.DataFrame]:
    """Each checklist by name, filled from a run's files.

    Returns
    -------
    DataFrames with item, section, topic, status (`FROM_RUN`, `IN_PART`, `POINTED`, `AUTHORS`, `ABSENT`), answer,
    evidence (addresses inside the run folder, joined by ``; ``), authors (what is left to them), data.
    """
    run = Path(run)
    known, cells = facts(run), results.table_cells(run / "notebooks")
    return {name: _filled(run, name, known, cells) for name in CHECKLISTS}


def _filled(
    run: Path, name: str, known: dict[str, str], cells: dict[str, tuple[str, str]]
) -> pd.DataFrame:
    rows = []
    for item in _items().query("checklist == @name").to_dict("records"):
        evidence = _pointers(run, item["evidence"].split(), cells)
        answer = _fill(item["answer"], known) if evidence else ""
        rows.append(
            {
                "item": item["item"],
                "section": item["section"],
                "topic": item["topic"],
                "status": _status(item, answer, evidence),
                "answer": answer,
                "evidence": "; ".join(evidence),
                "authors": item["authors"],
            }
        )
    return pd.DataFrame(rows).assign(data=known["data"])[list(COLUMNS)]


def render_checklist(name: str, text: pd.DataFrame) -> str:
    """A checklist as Markdown, from the text of its CSV alone; links are relative to its folder."""
    title, words = CHECKLISTS[name]
    stamp = stamp_text(text["data"].iloc[0])
    counts = text["status"].value_counts()
    summary = ", ".join(f"{counts[s]} {s}" for s in STATUSES if s in counts)
    notes = [f"**{stamp}.** {SOFTWARE_ONLY}", ""] if stamp else []
    columns = [c for c in COLUMNS[:-1] if (text[c] != "").any()]
    lines = [f"# {title}", "", *notes, words, "", f"{len(text)} items: {summary}.", ""]
    lines += ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    for row in text.to_dict("records"):
        row["evidence"] = ", ".join(_link(p) for p in row["evidence"].split("; ") if p)
        lines.append("| " + " | ".join(row[c].replace("|", "/") for c in columns) + " |")
    return "\n".join([*lines, ""])


def checklist_summary(run: str | Path) -> list[dict[str, str]]:
    """Each checklist of a run for its page: name, title, items, and how many have which status."""
    found = []
    for name, table in checklists(run).items():
        counts = table["status"].value_counts()
        numbers = {status: str(int(counts.get(status, 0))) for status in STATUSES}
        found.append(
            {
                "name": name,
                "title": CHECKLISTS[name][0],
                "items": str(len(table)),
                "counts": numbers,
            }
        )
    return found


@cache
def _items() -> pd.DataFrame:
    return read_text_table(Path(__file__).parents[1] / "templates" / "checklists.csv")


def _status(item: dict[str, str], answer: str, evidence: list[str]) -> str:
    """Who answers an item: the run answers only where we wrote a sentence for it."""
    if answer:
        return IN_PART if item["authors"] else FROM_RUN
    if not item["topic"] and evidence:
        return POINTED  # a checklist without words of ours
    return AUTHORS if item["authors"] else ABSENT


def _fill(answer: str, known: dict[str, str]) -> str:
    """The sentence with the run's facts; empty if the run lacks one of them."""
    fields = [field for _, field, _, _ in string.Formatter().parse(answer) if field]
    return answer.format_map(known) if all(known.get(field) for field in fields) else ""


def _pointers(run: Path, names: list[str], cells: dict[str, tuple[str, str]]) -> list[str]:
    """The addresses of those pointers that lead somewhere in this run."""
    found = []
    for name in names:
        kind, _, what = name.rpartition(":")
        file = {"table": f"tables/{what}.csv", "figure": f"figures/{what}.png"}.get(kind, what)
        if not (run / file).exists():
            continue
        found.append(file)
        if kind == "table" and (page := cell_page(run, *cells.get(what, ("", "")))):
            found.append(page)
    return found


def _link(pointer: str) -> str:
    """A pointer as a Markdown link.

    >>> _link("notebooks/01_cohort.html#cell-id=flow")
    '[01_cohort, cell flow](../notebooks/01_cohort.html#cell-id=flow)'
    """
    page, _, anchor = pointer.partition("#cell-id=")
    words = f"{Path(page).stem}, cell {anchor}" if anchor else pointer
    return f"[{words}](../{pointer})"
