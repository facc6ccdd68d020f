"""The look that all figures share, and the stamp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as _Figure

from rlvo_lib.config import InputError
from rlvo_lib.figures.palette import png

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
STYLES = ("-", "--", "-.", ":")
INK, GRID, NO_SKILL = "#222222", "#DDDDDD", "#777777"
WITHOUT, WITH = COLOURS[5], COLOURS[1]  # patients without and with the outcome
STAMP_ID = "stamp"


class Figure(_Figure):
    """A figure that shows itself in a notebook without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self, dpi=72)


def canvas(width_in: float, height_in: float, rows: int = 1, columns: int = 1, **options) -> Figure:
    """An empty figure with axes, room for the stamp above them, and the look all figures share."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.32 / height_in))
    for axis in np.ravel(figure.subplots(rows, columns, **options)):
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(NO_SKILL)
        axis.tick_params(colors=INK, labelsize=9)
        axis.set_axisbelow(True)
    return figure


def stamp(figure: _Figure, text: str = "SIMULATED DATA") -> _Figure:
    """Write ``text`` across the top of a figure, once; returns the figure."""
    for old in [t for t in figure.texts if t.get_gid() == STAMP_ID]:
        old.remove()
    figure.text(
        0.5, 1 - 0.06 / figure.get_figheight(), text, gid=STAMP_ID, ha="center", va="top",
        fontsize=10, fontweight="bold", color="#B00020", in_layout=False,
        bbox={"facecolor": "#FFF1F1", "edgecolor": "#B00020", "boxstyle": "round,pad=0.25"},
    )  # fmt: skip
    return figure


def stamped(figure: _Figure) -> str:
    """The text a figure is stamped with, or an empty string."""
    return next((t.get_text() for t in figure.texts if t.get_gid() == STAMP_ID), "")


def need(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    missing = [c for c in columns if c not in frame]
    if missing:
        raise InputError(
            f"figure: the table has no column '{missing[0]}'; needed: {', '.join(columns)}"
        )
    if frame.empty:
        raise InputError("figure: the table is empty")
    return frame


def name_of(labels: Mapping[str, str] | None, arm: str) -> str:
    return (labels or {}).get(arm, arm)


def legend(axis: Axes, **options) -> None:
    axis.legend(frameon=False, fontsize=8.5, labelcolor=INK, **options)


def titled(figure: Figure, title: str) -> Figure:
    """Write a title below the stamp's place and keep the axes clear of both."""
    height = figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.62 / height))
    figure.text(
        0.5,
        1 - 0.38 / height,
        title,
        ha="center",
        va="top",
        fontsize=10,
        color=INK,
        in_layout=False,
    )
    return figure


def pick(present: pd.Series, wanted: Sequence[str], labels: Mapping[str, str] | None) -> list[str]:
    """The names to draw, in order: those wanted, else those of ``labels`` first, else as they come."""
    names = list(present.unique())
    known = [name for name in labels or () if name in names]
    return [name for name in wanted if name in names] or known + [
        n for n in names if n not in known
    ]
