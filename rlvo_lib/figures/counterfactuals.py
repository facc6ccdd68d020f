"""Counterfactual reading: what a change does to the prediction, against what it does to the risk."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

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

#: What the rows are set against: column, marker, colour, words.
ROWS = (
    ("risk", "o", COLOURS[0], "Change of true risk, all else held"),
    ("seen", "D", COLOURS[1], "Change for the knowing predictor"),
)
LEAST_SPAN = 1.0  # percentage points shown to either side


def counterfactual_scatter(
    changes: pd.DataFrame, *, labels: Mapping[str, str] | None = None
) -> Figure:
    """Change of the model's probability against the change of risk; a column a change, a point a patient.

    The upper row is against the true risk with all else held, the lower against what the best predictor that
    knows every visible latent would say. On the dashed line the prediction changes as much as the risk; on the
    grey one not at all.

    Parameters
    ----------
    changes : `results.counterfactual_changes` of one arm: change, probability, risk, seen (0 to 1).
    labels : what each change is called.
    """
    frame = need(changes, "change", "participant_id", "probability", "risk", "seen")
    names = list(dict.fromkeys(frame["change"]))
    figure = canvas(2.5 * len(names) + 0.9, 6.2, 2, len(names), squeeze=False)
    for place, axis in enumerate(figure.axes):
        row, column = divmod(place, len(names))
        against, marker, colour, words = ROWS[row]
        own = frame[frame["change"] == names[column]]
        size = 100 * frame[["probability", against]].abs().to_numpy().max()
        _panel(axis, own[against], own["probability"], (marker, colour), max(size, LEAST_SPAN))
        axis.set_xlabel(f"{words}\n(percentage points)", fontsize=8.5, color=INK)
        if row == 0:
            name = textwrap.fill(name_of(labels, names[column]), 26)
            axis.set_title(f"{name}\nn = {len(own)}", fontsize=9.5, color=INK)
        if column == 0:
            words = "Change of the model's probability\n(percentage points)"
            axis.set_ylabel(words, fontsize=8.5, color=INK)
    return figure


def _panel(axis: Axes, risk: pd.Series, probability: pd.Series, mark: tuple, size: float) -> None:
    span = 1.08 * size
    axis.axhline(0, color=GRID, linewidth=1)
    axis.axline((0, 0), slope=1, color=NO_SKILL, linestyle="--", linewidth=1)
    axis.plot(
        100 * risk, 100 * probability, linestyle="none", marker=mark[0], markersize=4.5,
        markerfacecolor="none", markeredgecolor=mark[1], label="patients", clip_on=False,
    )  # fmt: skip
    axis.set(xlim=(-span, span), ylim=(-span, span), aspect="equal")
    axis.locator_params(nbins=5)
