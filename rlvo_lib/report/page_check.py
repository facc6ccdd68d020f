"""Whether the pages say what the run's files say: their tables cell by cell, not their design."""

from __future__ import annotations

import html.parser
from dataclasses import dataclass, field
from pathlib import Path

from rlvo_lib.report.ledger import LEDGER_PAGE
from rlvo_lib.report.page import render_ledger_page, render_tables
from rlvo_lib.report.prose_check import prose_differences
from rlvo_lib.report.table_files import read_caption

Row = tuple[str, ...]


@dataclass
class PageTable:
    """The text of one table of a page; the counts at its top are read as a table without caption."""

    caption: str = ""
    head: list[str] = field(default_factory=list)
    body: list[list[str]] = field(default_factory=list)


class _Reader(html.parser.HTMLParser):
    """Collects the tables of a page, and its list of class ``numbers``."""

    ROWS, CELLS = ("tr", "li"), ("td", "b", "span")

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[PageTable] = []
        self._inside, self._part = "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table" or (tag == "ul" and ("class", "numbers") in attrs):
            self.tables.append(PageTable())
            self._inside = tag
        elif self._inside and tag in self.ROWS:
            self.tables[-1].body.append([])
        elif self._inside and tag in (*self.CELLS, "th", "caption"):
            self._part = tag
            if tag in self.CELLS and self.tables[-1].body:
                self.tables[-1].body[-1].append("")
            elif tag == "th":
                self.tables[-1].head.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        if tag == self._part:
            self._part = ""

    def handle_data(self, data: str) -> None:
        if not self._inside or not self._part:
            return
        table = self.tables[-1]
        if self._part == "caption":
            table.caption += data
        elif self._part == "th":
            table.head[-1] += data
        elif table.body and table.body[-1]:
            table.body[-1][-1] += data


def page_tables(text: str) -> list[PageTable]:
    """The tables of a page, and the counts at its top.

    >>> page_tables("<table><caption>AUC</caption><tr><th>n</th></tr><tr><td>0.7</td></tr></table>")
    [PageTable(caption='AUC', head=['n'], body=[['0.7']])]
    """
    reader = _Reader()
    reader.feed(text)
    for table in reader.tables:
        table.body = [row for row in table.body if row]
    return reader.tables


def page_differences(run: str | Path) -> list[tuple[str, str, str]]:
    """What ``index.html`` shows otherwise than the run's files: where, on the page, from the files.

    Its tables are compared with those that the page would have if it were written now. Caption and
    header count for the tables of ``tables/``; of the page's own tables (claims, counts, provenance)
    the cells do.
    """
    return _differences(Path(run), "index.html", render_tables(run))


def ledger_differences(run: str | Path) -> list[tuple[str, str, str]]:
    """What the page of the ledger shows otherwise than ``claims.csv``: as `page_differences`."""
    return _differences(Path(run), LEDGER_PAGE, render_ledger_page(run))


def _differences(run: Path, page: str, expected: str) -> list[Row]:
    names = {read_caption(path): path.stem for path in sorted((run / "tables").glob("*.html"))}
    found = page_tables((run / page).read_text("utf-8"))
    missing = []
    for table in page_tables(expected):
        same = [t for t in found if _said(t, names) == _said(table, names)]
        if same:
            found.remove(same[0])
        else:
            missing.append(table)
    rows = []
    for table in missing:
        alike = [t for t in found if _shape(t) == _shape(table)]
        if not alike:
            rows.append((_label(table, names, page), "missing", f"{len(table.body)} rows"))
            continue
        nearest = min(alike, key=lambda t: len(_cells(t, table)))
        found.remove(nearest)
        rows += [
            (f"{_label(table, names, page)}{place}", a, b) for place, a, b in _cells(nearest, table)
        ]
    rows += [
        (_label(table, names, page), f"{len(table.body)} rows", "no such table") for table in found
    ]
    text = (run / page).read_text("utf-8")
    return rows + [(f"{page}: {what}", a, b) for what, a, b in prose_differences(text, expected)]


def _said(table: PageTable, names: dict[str, str]) -> tuple:
    return (table.caption, table.head, table.body) if table.caption in names else (table.body,)


def _shape(table: PageTable) -> list[int]:
    return [len(row) for row in table.body]


def _label(table: PageTable, names: dict[str, str], page: str) -> str:
    first = table.body[0][0] if table.body else "no rows"
    name = names.get(table.caption, table.caption.split(". ")[0][:60] or f"the one from '{first}'")
    return f"{page}: table {name}"


def _cells(stored: PageTable, expected: PageTable) -> list[Row]:
    """The places in which two tables of one shape differ."""
    rows = [
        (f": {b_row[0]}", a, b)
        for a_row, b_row in zip(stored.body, expected.body, strict=True)
        for a, b in zip(a_row, b_row, strict=True)
        if a != b
    ]
    if stored.head != expected.head:
        rows.append((": header", ", ".join(stored.head), ", ".join(expected.head)))
    if stored.caption != expected.caption:
        rows.append((": caption", stored.caption, expected.caption))
    return rows
