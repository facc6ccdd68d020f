"""Whether the sentences of a page say the numbers that the run's files say, and whose patients they are."""

from __future__ import annotations

import html.parser
import re
from collections import Counter

#: Parts of a page that are compared cell by cell, or are no sentences: tables, counts, captions of figures, links.
LEFT_OUT = ("table", "figure", "nav", "style", "ol", "summary")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class _Sentences(html.parser.HTMLParser):
    """Collects the text outside `LEFT_OUT`."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self._depth = 0
        self._counts = False  # inside the counts at the top of a page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._depth += tag in LEFT_OUT
        self._counts = self._counts or (tag == "ul" and ("class", "numbers") in attrs)

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag in LEFT_OUT
        self._counts = self._counts and tag != "ul"

    def handle_data(self, data: str) -> None:
        if not self._depth and not self._counts:
            self.text.append(data)


def prose(page: str) -> str:
    """The sentences of a page, without its tables, figures and lists of links.

    >>> prose("<p>F1 <b>0.24</b></p><table><tr><td>0.7</td></tr></table>")
    'F1 0.24'
    """
    reader = _Sentences()
    reader.feed(page)
    return " ".join(" ".join(reader.text).split())


def prose_differences(found: str, expected: str) -> list[tuple[str, str, str]]:
    """Numbers in the sentences of a page that the page written now would not have, or has otherwise.

    Returns
    -------
    Of each that differs: what, on the page, expected. Words may differ between versions of the
    package; numbers and the stamp of simulated patients must not.
    """
    texts = prose(found), prose(expected)
    here, now = (Counter(NUMBER.findall(text)) for text in texts)
    rows = []
    if here != now:
        extra, lacking = (
            ", ".join(sorted((a - b).elements())) for a, b in ((here, now), (now, here))
        )
        rows.append(("numbers in sentences", extra or "none", lacking or "none"))
    stamps = ["SIMULATED DATA" in _heading(text) for text in (found, expected)]
    if stamps[0] != stamps[1]:
        rows.append(("stamp", *("SIMULATED DATA" if there else "none" for there in stamps)))
    return rows


def _heading(page: str) -> str:
    """The banner above a page's text."""
    banner = re.search(r'<div class="stamp"[^>]*>(.*?)</div>', page, re.S)
    return banner.group(1) if banner else ""
