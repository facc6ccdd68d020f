"""How wide the interval of an AUC is expected to be, by the number of patients."""

from __future__ import annotations

import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    INK,
    NO_SKILL,
    STYLES,
    Figure,
    canvas,
    legend,
    need,
)

MARKS = {"this run": ("o", INK), "published": ("D", COLOURS[1])}


def auc_width_by_n(precision: pd.DataFrame) -> Figure:
    """Expected width of the 95 % interval of an AUC against n, a line an AUC (`results.precision`).

    Upright lines mark the run's own test set and the published one; markers on them give the widths
    at their own prevalence, which is why they may lie off the lines.
    """
    rows = need(precision, "whose", "n", "events", "auc", "quantity", "width")
    rows = rows[rows["quantity"] == "auc"]
    planned = rows[rows["whose"] == "planned"]
    if planned.empty:
        raise InputError("figure: the table has no rows of quantity 'auc' and whose 'planned'")
    figure = canvas(6.6, 4.6)
    axis = figure.axes[0]
    for k, (area, line) in enumerate(planned.groupby("auc")):
        line = line.sort_values("n")
        axis.plot(
            line["n"], line["width"], color=COLOURS[k % len(COLOURS)], linestyle=STYLES[k % 4],
            linewidth=1.8, label=f"AUC {area:.2f}",
        )  # fmt: skip
    for whose, (marker, colour) in MARKS.items():
        own = rows[rows["whose"] == whose]
        if own.empty:
            continue
        n, events = int(own["n"].iloc[0]), own["events"].iloc[0]
        axis.axvline(n, color=NO_SKILL, linewidth=1, linestyle=(0, (2, 2)))
        axis.plot(
            own["n"], own["width"], linestyle="none", marker=marker, color=colour, markersize=6,
            markerfacecolor="white", label=f"{whose}: {n} patients, {events:.0f} with the outcome",
        )  # fmt: skip
    axis.set_xscale("log")
    ticks = sorted(planned["n"].unique())
    axis.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axis.minorticks_off()
    axis.set(xlabel="Patients", ylabel="Expected width of the 95 % interval of the AUC")
    axis.set_ylim(bottom=0)
    axis.grid(color=GRID, linewidth=0.6)
    legend(axis, loc="upper right")
    return figure
