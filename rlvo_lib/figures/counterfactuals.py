"""Counterfactual reading: what a change does to the prediction, against what it does to the risk."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from rlvo_lib.figures.panels import legend_above
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    INK,
    NO_SKILL,
    Figure,
    canvas,
    name_of,
    need,
)

#: How a point against each risk is drawn.
MARKS = {
    "risk": ("o", COLOURS[0], "true risk, all else held"),
    "seen": ("D", COLOURS[1], "risk as seen by the knowing predictor"),
}
LEAST_SPAN = 2.0  # percentage points shown to either side


def counterfactual_scatter(
    changes: pd.DataFrame, *, labels: Mapping[str, str] | None = None
) -> Figure:
    """Change of the model's probability against the change of risk; a panel a change, a point a patient.

    Parameters
    ----------
    changes : `results.counterfactual_changes` of one arm: change, probability, risk, seen (0 to 1).
    labels : what each change is called.

    On the dashed line the prediction changes as much as the risk; on the grey one not at all.
    """
    frame = need(changes, "change", "participant_id", "probability", "risk", "seen")
    names = list(dict.fromkeys(frame["change"]))
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = canvas(max(2.7 * columns + 0.6, 4.2), 2.9 * rows + 0.9, rows, columns, squeeze=False)
    size = 100 * frame[["probability", "risk", "seen"]].abs().to_numpy().max()
    span = 1.08 * max(size, LEAST_SPAN)
    for axis in figure.axes[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(figure.axes, names, strict=False):
        own = frame[frame["change"] == name]
        axis.axhline(0, color=GRID, linewidth=1)
        axis.axline((0, 0), slope=1, color=NO_SKILL, linestyle="--", linewidth=1)
        for column, (marker, colour, text) in MARKS.items():
            axis.plot(
                100 * own[column], 100 * own["probability"], linestyle="none", marker=marker,
                markersize=4.5, markerfacecolor="none" if column == "seen" else colour,
                markeredgecolor=colour, label=text,
            )  # fmt: skip
        axis.set(xlim=(-span, span), ylim=(-span, span), aspect="equal")
        axis.set_title(f"{name_of(labels, name)} (n = {len(own)})", fontsize=9.5, color=INK)
        axis.locator_params(nbins=5)
    figure.supxlabel("Change of risk (percentage points)", fontsize=9.5, color=INK)
    figure.supylabel(
        "Change of the model's probability\n(percentage points)", fontsize=9.5, ha="center"
    )
    legend_above(figure, columns=2)
    return figure
