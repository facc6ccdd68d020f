"""What figures of several panels share: which axes show something, and one legend above them all."""

from __future__ import annotations

from matplotlib.axes import Axes

from rlvo_lib.figures.style import INK, Figure

STAMP_IN, ROW_IN = 0.38, 0.22  # inches: room for the stamp, and a row of the legend


def shown(figure: Figure) -> list[Axes]:
    """The axes that are not hidden."""
    return [axis for axis in figure.axes if axis.get_visible()]


LEAST_WIDTH_IN = 5.4  # of a figure of one panel: its legend and axis labels need that


def legend_above(figure: Figure, *, columns: int) -> None:
    """Each kind of line once, between the stamp's place and the axes, which are kept clear of both."""
    kinds: dict[str, object] = {}
    for axis in shown(figure):
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            kinds.setdefault(text, handle)
    columns = min(columns, 2) if figure.get_figwidth() < 6 else columns
    height, rows = figure.get_figheight(), -(-len(kinds) // columns)
    below = 1 - (STAMP_IN + ROW_IN * rows + 0.08) / height
    figure.get_layout_engine().set(rect=(0, 0, 1, below))
    legend = figure.legend(
        list(kinds.values()), list(kinds), loc="upper center", ncols=columns, frameon=False,
        bbox_to_anchor=(0.5, 1 - STAMP_IN / height), borderaxespad=0, fontsize=8.5, labelcolor=INK,
    )  # fmt: skip
    legend.set_in_layout(False)
