"""What a page about patients is made of: parts with sentences, pictures side by side and a table.

The page is one file: pictures are inside it, nothing is loaded from elsewhere, all text is escaped.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rlvo_lib import figures, storage
from rlvo_lib.figures import Figure
from rlvo_lib.report.table_files import html_table, stamp_text, template

DPI = 130
CSS_PIXELS = 96  # an inch on a page


@dataclass(frozen=True)
class Picture:
    """A figure with the words below it."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Part:
    """One part of a page. ``beside``: pictures side by side; ``table``: a tidy table with its ``caption``."""

    heading: str
    text: Sequence[str] = ()
    beside: Sequence[Picture] = ()
    table: pd.DataFrame | None = None
    caption: str = ""
    notes: Sequence[str] = ()


def render_page(
    title: str,
    parts: Sequence[Part],
    *,
    data: str,
    lead: str = "",
    numbers: Sequence[tuple[str, str]] = (),
    back: str = "",
) -> str:
    """The page as HTML: the stamp, a heading with ``lead`` and ``numbers`` (value, words), then the parts.

    ``back`` is the address of a page that this one belongs to. Pictures of simulated patients are stamped.
    """
    stamp = stamp_text(data)
    return template("case.html").render(
        heading=f"{stamp + ': ' if stamp else ''}{title}",
        title=title,
        data=data,
        lead=lead,
        back=back,
        numbers=[{"value": value, "text": text} for value, text in numbers],
        parts=[_shown(part, stamp) for part in parts],
    )


def _shown(part: Part, stamp: str) -> dict[str, object]:
    table = ""
    if part.table is not None:
        caption = f"{stamp}. {part.caption}" if stamp else part.caption
        table = html_table(_text(part.table), caption)
    return {
        "heading": part.heading,
        "text": list(part.text),
        "pictures": [_image(picture, stamp) for picture in part.beside],
        "table": table,
        "notes": list(part.notes),
    }


def _text(table: pd.DataFrame) -> pd.DataFrame:
    """A table as the text that a CSV of it holds."""
    read = io.StringIO(storage.csv_text(table))
    return pd.read_csv(read, dtype=str, keep_default_na=False)


def _image(picture: Picture, stamp: str) -> str:
    """An ``img`` that holds the figure itself, with its caption."""
    if stamp:
        figures.stamp(picture.figure, stamp)
    encoded = base64.b64encode(figures.png(picture.figure, dpi=DPI)).decode("ascii")
    width = round(picture.figure.get_figwidth() * CSS_PIXELS)
    words = html.escape(picture.caption)
    return (
        f'<figure style="flex: 0 1 {width}px"><img src="data:image/png;base64,{encoded}" width="{width}" '
        f'alt="{words}"><figcaption>{words}</figcaption></figure>'
    )
