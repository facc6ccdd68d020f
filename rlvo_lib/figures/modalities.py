"""What each modality carries: Shapley values of the discrimination and of single predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
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
    pick,
)

UP, DOWN = COLOURS[1], COLOURS[0]  # towards the outcome, and away from it
AXES = {
    "auc": "Shapley value of the AUC\n[95 % CI]",
    "logit": "Mean |Shapley value| of the log-odds\n[95 % CI]",
}


def modality_bars(
    shares: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    arm_labels: Mapping[str, str] | None = None,
    absent: str = "donor",
) -> Figure:
    """Shapley value of each modality with its interval (`results.modality_shares`), a colour an arm.

    Left of the AUC, with the sum of all below; right of single predictions. The line at 0 is what a modality
    gives that the model does not use.
    """
    shares = need(shares, "arm", "absent", "measure", "modality", "value", "low", "high")
    frame = _of(shares, absent)
    arms = pick(frame["arm"], (), arm_labels)
    names = pick(frame["modality"][frame["modality"] != "all"], (), labels) + ["all"]
    height = 1.5 + len(names) * (0.16 + 0.2 * len(arms))
    figure = canvas(7.6, height, 1, 2, sharey=True)
    for axis, (measure, title) in zip(figure.axes, AXES.items(), strict=True):
        axis.axvline(0, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1)
        for k, arm in enumerate(arms):
            rows = frame[(frame["arm"] == arm) & (frame["measure"] == measure)]
            y = np.array([names.index(name) for name in rows["modality"]], float)
            y += (k - (len(arms) - 1) / 2) * 0.8 / len(arms)
            spread = np.abs([rows["value"] - rows["low"], rows["high"] - rows["value"]])
            axis.barh(
                y, rows["value"], height=0.66 / len(arms), color=COLOURS[k % len(COLOURS)],
                label=name_of(arm_labels, arm),
            )  # fmt: skip
            axis.errorbar(rows["value"], y, xerr=spread, fmt="none", color=INK, capsize=2)
        axis.set_xlabel(title, fontsize=9)
        axis.grid(axis="x", color=GRID, linewidth=0.6)
        axis.locator_params(axis="x", nbins=5)
    words = dict(labels or {}) | {"all": "All together"}
    figure.axes[0].set_yticks(range(len(names)), [name_of(words, n) for n in names], fontsize=8.5)
    figure.axes[0].set_ylim(len(names) - 0.4, -0.6)
    legend_above(figure, columns=2)
    return figure


def modality_waterfall(
    values: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    absent: str = "donor",
    axis: Axes | None = None,
) -> Figure:
    """From the log-odds where all is absent to one patient's own, modality by modality.

    Parameters
    ----------
    values : `results.modality_values` of one patient and arm.
    axis : where to draw; left out, on a figure of its own.
    """
    frame = _of(
        need(values, "participant_id", "arm", "modality", "shapley", "base", "logit"), absent
    )
    _require_one(frame, "participant_id", "arm")
    frame = frame.loc[frame["shapley"].abs().sort_values(kind="stable").index]
    own = axis or canvas(4.6, 1.3 + 0.34 * len(frame)).axes[0]
    base, logit = frame["base"].iloc[0], frame["logit"].iloc[0]
    start = base + np.append(0, np.cumsum(frame["shapley"])[:-1])
    colours = [UP if value > 0 else DOWN for value in frame["shapley"]]
    own.barh(range(len(frame)), frame["shapley"], left=start, color=colours, height=0.6)
    for y, (left, value) in enumerate(zip(start, frame["shapley"], strict=True)):
        own.annotate(
            f"{value:+.2g}", (max(left, left + value), y), xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=8, color=INK,
        )  # fmt: skip
    own.axvline(base, color=NO_SKILL, linestyle=":", linewidth=1)
    own.axvline(logit, color=INK, linewidth=1)
    own.set_yticks(range(len(frame)), [name_of(labels, m) for m in frame["modality"]], fontsize=8.5)
    own.set_xlabel(
        f"Log-odds: {base:.2f} (dotted: all absent)\nto {logit:.2f} (this patient)", fontsize=8.5
    )
    own.margins(x=0.15)
    own.locator_params(axis="x", nbins=5)
    return own.figure


def coalition_forest(
    table: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    absent: str = "donor",
) -> Figure:
    """The AUC of every coalition of modalities (`results.modality_coalitions` of one arm).

    Dots on the left say what is present; all else is as in another patient.
    """
    frame = _of(need(table, "arm", "coalition", "size", "auc", "low", "high"), absent)
    frame = frame.assign(coalition=frame["coalition"].fillna(""))
    _require_one(frame, "arm")
    whole = frame.loc[frame["size"].idxmax(), "coalition"].split("+")
    figure = canvas(
        6.6, 1.9 + 0.19 * len(frame), 1, 2, sharey=True, gridspec_kw={"width_ratios": [len(whole), 9]}
    )  # fmt: skip
    dots, forest = figure.axes
    y = np.arange(len(frame))
    for k, name in enumerate(whole):
        inside = np.array([name in c.split("+") for c in frame["coalition"]])
        dots.scatter(np.full(inside.sum(), k), y[inside], s=18, color=INK)
        dots.scatter(np.full((~inside).sum(), k), y[~inside], s=18, color=GRID)
    dots.set_xticks(
        range(len(whole)), [name_of(labels, n) for n in whole], rotation=60, ha="right", fontsize=8
    )
    dots.set(yticks=[], ylim=(len(frame) - 0.4, -0.6), xlim=(-0.6, len(whole) - 0.4))
    dots.spines[:].set_visible(False)
    spread = np.abs([frame["auc"] - frame["low"], frame["high"] - frame["auc"]])
    forest.axvline(0.5, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1)
    forest.errorbar(
        frame["auc"], y, xerr=spread, fmt="o", color=COLOURS[0], markersize=4, capsize=2
    )
    forest.set_xlabel("AUC [95 % CI over patients]", fontsize=9)
    forest.grid(axis="x", color=GRID, linewidth=0.6)
    forest.tick_params(axis="y", length=0)
    return figure


def _of(frame: pd.DataFrame, absent: str) -> pd.DataFrame:
    """The rows of one meaning of absent."""
    if "absent" not in frame:
        return frame
    rows = frame[frame["absent"] == absent]
    if rows.empty:
        known = ", ".join(map(str, frame["absent"].unique()))
        raise InputError(f"figure: absent is '{absent}'; allowed: {known}")
    return rows


def _require_one(frame: pd.DataFrame, *columns: str) -> None:
    """InputError unless a figure of one patient, or arm, is given one."""
    for column in columns:
        found: Sequence = frame[column].unique()
        if len(found) != 1:
            raise InputError(f"figure: {len(found)} values of '{column}'; allowed: one")
