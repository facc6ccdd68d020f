"""What a run shows: its figures and their sources, maps, checklists and pages."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlvo_lib import report, storage
from rlvo_lib.report.table_files import read_text_table
from rlvo_lib.verify.cells import ABSENT, NEEDS_DATASET, attempt, compare, contents, row
from rlvo_lib.verify.run import Run

#: How the names of figures begin that are drawn from scans, or from training, not from the run's files.
WITHOUT_SOURCES = ("mosaic", "quality_mosaic", "curves")


def figure_sources(run: Run, wrong: set[str]) -> list[tuple]:
    """Each figure was drawn from the files that are in the run now, and these agree.

    Figures of scans and training curves (`WITHOUT_SOURCES`) are held by their digests alone.

    Parameters
    ----------
    wrong : files of the run of which something differs.
    """
    rows = []
    for png in sorted((run.root / "figures").glob("*.png")):
        where = f"figures/{png.name}"
        rows += attempt("figure source", where, lambda p=png, w=where: _sources(run, p, w, wrong))
    return rows


def _sources(run: Run, png: Path, where: str, wrong: set[str]) -> list[tuple]:
    drawn_from = report.read_sources(png)
    if not drawn_from and png.stem.startswith(WITHOUT_SOURCES):
        return [("figure source", where, "", "names no table it is drawn from", NEEDS_DATASET)]
    if not drawn_from:
        return [row("figure source", where, "none", "the tables it is drawn from", False)]
    rows = []
    for file, before in drawn_from.items():
        there = (run.root / file).is_file()
        now = storage.digest(run.root / file) if there else "missing"
        same = before == now and file not in wrong
        words = f"{now[:16]}, which differs" if file in wrong else now[:16]
        rows.append(row("figure source", f"{where}: {file}", before[:16], words, same))
    return rows


def checklists(run: Run) -> list[tuple]:
    """The reporting checklists say what the run's files say."""
    folder = run.root / "checklists"
    if not folder.exists() and not (run.root / "index.html").exists():
        return []

    def check() -> list[tuple]:
        made = report.checklists(run.root)
        rows = [
            r for name, table in made.items() for r in _checklist(folder / f"{name}.csv", table)
        ]
        known = {f"{name}{suffix}" for name in made for suffix in (".csv", ".md")}
        others = sorted(p.name for p in folder.glob("*") if p.name not in known)
        others = [name for name in others if not name.startswith(".")]
        return rows + [
            row("checklist", f"checklists/{name}", "there", "none of this name", False)
            for name in others
        ]

    return attempt("checklist", "checklists", check)


def _checklist(path: Path, made: pd.DataFrame) -> list[tuple]:
    if not path.exists():
        return [row("checklist", f"checklists/{path.name}", "missing", f"{len(made)} items", False)]
    page = path.with_suffix(".md")
    found = page.read_text("utf-8") if page.exists() else ""
    same = found == report.render_checklist(path.stem, read_text_table(path))
    stored = "as the CSV" if same else "other text"
    rows = compare(path, made, f"checklists/{path.name}")
    return [*rows, row("rendering", f"checklists/{page.name}", stored, "as the CSV", same)]


def maps(run: Run) -> list[tuple]:
    """The maps in the folder are those of ``attributions/maps.csv``: none missing, none left over."""

    def check() -> list[tuple]:
        table = run.root / "attributions" / "maps.csv"
        named = set(storage.read_csv(table)["map"]) if table.exists() else set()
        folder = (run.root / "attributions" / "maps").glob("*")
        there = {p.relative_to(run.root).as_posix() for p in folder if not p.name.startswith(".")}
        words = {True: "there", False: "not there"}, {True: "in maps.csv", False: "not in maps.csv"}
        return [
            row(
                "map", name, words[0][name in there], words[1][name in named], name in there & named
            )
            for name in sorted(there | named)
        ]

    return attempt("map", "attributions/maps.csv", check)


def pages(run: Run) -> list[tuple]:
    """The page shows the numbers of the files; pages and notebooks are as ``pages.json`` says."""
    page, record = run.root / "index.html", run.root / "pages.json"
    if not page.exists() and not record.exists():
        return [("page", "index.html", "", "this run was made without its page", ABSENT)]

    def digests() -> list[tuple]:
        if not record.exists():
            return [row("file content", "pages.json", "missing", "digests of the pages", False)]
        return contents(storage.read_json(record)["files"], report.page_digests(run.root))

    def numbers() -> list[tuple]:
        if not page.exists():
            return [row("page", "index.html", "missing", "the page", False)]
        found = [row("page", *cells, False) for cells in report.page_differences(run.root)]
        return found or [row("page", "index.html: tables", "as the files", "as the files", True)]

    def ledger() -> list[tuple]:
        if not (run.root / report.LEDGER_PAGE).exists():
            return []
        found = [row("page", *cells, False) for cells in report.ledger_differences(run.root)]
        where = f"{report.LEDGER_PAGE}: table"
        return found or [row("page", where, "as claims.csv", "as claims.csv", True)]

    return [
        *attempt("file content", "pages.json", digests),
        *attempt("page", "index.html", numbers),
        *attempt("page", report.LEDGER_PAGE, ledger),
    ]
