"""Where one patient stands among others."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.figures.style import COLOURS, GRID, INK, NO_SKILL, WITH, WITHOUT, Figure, canvas, need

SPREAD = 0.32  # of the points of one outcome, above and below its line


def place_in_distribution(
    patients: pd.DataFrame,
    participant: str,
    *,
    threshold: float | None = None,
    models: pd.DataFrame | None = None,
    outcome_names: tuple[str, str] = ("Without", "With the outcome"),
) -> Figure:
    """Predicted probabilities of patients by outcome, one of them marked; below, that patient's fold models.

    Parameters
    ----------
    patients : participant_id, y_true, probability; the marked patient is one of them.
    threshold : drawn as a dashed line.
    models : of the marked patient: probability, one row a fold model.
    """
    frame = need(patients, "participant_id", "y_true", "probability")
    own = frame[frame["participant_id"] == participant]
    rows = 2 + (models is not None)
    figure = canvas(7.2, 1.2 + 0.62 * rows)
    axis = figure.axes[0]
    axis.set_axisbelow(True)
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    ticks = []
    for y, (name, colour) in enumerate(zip(outcome_names, (WITHOUT, WITH), strict=True)):
        values = np.sort(frame.loc[frame["y_true"] == y, "probability"].to_numpy())
        # neighbours in rank are laid apart, by a fixed sequence
        heights = rows - 1 - y + SPREAD * (2 * ((np.arange(len(values)) * 0.618) % 1) - 1)
        axis.plot(
            values, heights, "o", markersize=3.4, color=colour, alpha=0.8, label=name, zorder=2
        )
        ticks.append(f"{name} (n = {len(values)})")
    if models is not None:
        axis.plot(
            models["probability"], np.zeros(len(models)), "D", markersize=6, color=COLOURS[4],
            markeredgecolor=INK, zorder=4,
        )  # fmt: skip
        ticks.append(f"This patient's {len(models)} model{'s' * (len(models) > 1)}")
    if threshold is not None:
        axis.axvline(threshold, color=NO_SKILL, linestyle="--", linewidth=1.2)
        axis.annotate(
            "threshold", (threshold, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=8.5, color=NO_SKILL,
        )  # fmt: skip
    axis.axvline(
        float(own["probability"].iloc[0]), color=COLOURS[6], linewidth=2, label=participant
    )
    axis.set_yticks(range(rows - 1, -1, -1), ticks, fontsize=8.5)
    axis.set(ylim=(-0.6, rows - 0.45), xlabel="Predicted probability (mean of the fold models)")
    axis.set_title(f"Black line: {participant}", fontsize=9, color=INK, loc="left")
    return figure
