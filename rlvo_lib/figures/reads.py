"""What was read off a patient's images, what each read adds, and what another reading would change."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    INK,
    NO_SKILL,
    Figure,
    canvas,
    legend,
    name_of,
    need,
)

PARTS = {"read": "read off the images", "clinical": "clinical", "measured": "measured in the scans"}
PART_COLOURS = dict(zip(PARTS, (COLOURS[2], COLOURS[5], COLOURS[4]), strict=True))
WIDTH = 46  # letters of a label


def reads_bars(
    rows: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    quality: pd.DataFrame | None = None,
    top: int = 14,
    axis: Axes | None = None,
) -> Figure:
    """One patient's reads and clinical variables, by what each adds to the log-odds.

    Parameters
    ----------
    rows : `results.reads_of_patients` of one patient and arm.
    quality : concept, measure, value (`experiment.reading`): stands beside each read, as its reliability.
    axis : where to draw; left out, on a figure of its own.
    """
    frame = need(rows, "participant_id", "arm", "part", "variable", "value", "reading", "share",
                 "contribution", "base", "logit")  # fmt: skip
    _require_one(frame, "participant_id", "arm")
    frame = frame.loc[frame["contribution"].abs().sort_values(kind="stable").index[-top:]]
    axis = axis or canvas(6.6, 1.3 + 0.3 * len(frame)).axes[0]
    for part, words in PARTS.items():
        here = (frame["part"] == part).to_numpy()
        if here.any():
            axis.barh(
                np.flatnonzero(here), frame["contribution"][here], height=0.65,
                color=PART_COLOURS[part], label=words,
            )  # fmt: skip
    known = {} if quality is None else {row.concept: row for row in quality.itertuples()}
    names = [_read_words(row, labels, units, known) for row in frame.itertuples()]
    axis.set_yticks(range(len(frame)), names, fontsize=7.5)
    axis.axvline(0, color=NO_SKILL, linewidth=1)
    base, logit = frame["base"].iloc[0], frame["logit"].iloc[0]
    axis.set_xlabel(
        f"Adds to the log-odds\n({base:.2f} of the mean patient, {logit:.2f} of this one)",
        fontsize=8.5,
    )
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    axis.locator_params(axis="x", nbins=5)
    legend(axis, loc="best")
    return axis.figure


def _read_words(row, labels, units, known) -> str:
    """A variable with what was read of it, how sure the reader is, and how well it reads others."""
    name = textwrap.shorten(name_of(labels, row.variable), WIDTH, placeholder=" …")
    if isinstance(row.reading, str) and row.reading:
        told = textwrap.shorten(row.reading, WIDTH - 16, placeholder=" …")
        told += "" if np.isnan(row.share) else f" ({row.share * 100:.0f} %)"
    elif np.isnan(row.value):
        told = "not known"
    else:
        told = _quantity(row.value, row.variable, units)
    judged = known.get(row.variable) if row.part == "read" else None
    if judged is None or np.isnan(judged.value):
        return f"{name}: {told}"
    return (
        f"{name}: {told}; {'R²' if judged.measure == 'R2' else judged.measure} {judged.value:.2f}"
    )


def what_if_dots(
    rows: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    threshold: float | None = None,
    top: int = 8,
    axis: Axes | None = None,
) -> Figure:
    """One patient's probability had a read been different, all other reads their own.

    Parameters
    ----------
    rows : `results.what_if_of_patients` of one patient and arm. The ``top`` concepts that change it most.
    threshold : of the arm, drawn dotted.
    """
    frame = need(rows, "participant_id", "arm", "variable", "to", "to_value", "before", "after")
    _require_one(frame, "participant_id", "arm")
    size = (frame["after"] - frame["before"]).abs().groupby(frame["variable"], sort=False).max()
    chosen = list(size.sort_values(ascending=False, kind="stable").index[:top])
    frame = frame[frame["variable"].isin(chosen)].copy()
    frame["place"] = frame["variable"].map(chosen.index)
    frame = frame.sort_values("place", kind="stable", ignore_index=True)
    y = np.arange(len(frame)) + 0.6 * frame["place"]
    axis = axis or canvas(6.6, 1.3 + 0.22 * len(frame) + 0.12 * len(chosen)).axes[0]
    before = frame["before"].iloc[0]
    axis.hlines(y, before, frame["after"], color=NO_SKILL, linewidth=1)
    axis.plot(frame["after"], y, "o", color=COLOURS[1], markersize=5, label="had it been read so")
    axis.axvline(before, color=INK, linewidth=1.2, label=f"as it was read: {before:.3f}")
    if threshold is not None:
        axis.axvline(
            threshold, color=INK, linestyle=":", linewidth=1.2, label=f"threshold {threshold:.3f}"
        )
    names = [_other_words(row, labels, units) for row in frame.itertuples()]
    axis.set_yticks(y, names, fontsize=7.5)
    axis.set_ylim(y.iloc[-1] + 0.7, -0.7)
    axis.set_xlabel("Probability", fontsize=9)
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    legend(axis, loc="best")
    return axis.figure


def _other_words(row, labels, units) -> str:
    name = textwrap.shorten(name_of(labels, row.variable), WIDTH, placeholder=" …")
    if np.isnan(row.to_value):
        return f"{name}: {textwrap.shorten(str(row.to), WIDTH - 12, placeholder=' …')}"
    return f"{name}: {_quantity(row.to_value, row.variable, units)}"


def _quantity(value: float, variable: str, units: Mapping[str, str] | None) -> str:
    unit = (units or {}).get(variable, "")
    return f"{value:.3g}" if unit in ("", "ratio") else f"{value:.3g} {unit}"


def reads_importance_bars(
    importance: pd.DataFrame, *, labels: Mapping[str, str] | None = None, top: int = 20
) -> Figure:
    """Mean absolute contribution of each read and clinical variable (`results.reads_importance`, one arm).

    Beside a read stands how well it is read out of fold: R², or AUC of a code of two levels.
    """
    frame = need(importance, "arm", "part", "variable", "mean_abs_contribution", "low", "high",
                 "measure", "reliability")  # fmt: skip
    _require_one(frame, "arm")
    frame = frame.sort_values("mean_abs_contribution", ascending=False, kind="stable")[:top][::-1]
    figure = canvas(7.0, 1.2 + 0.27 * len(frame))
    axis = figure.axes[0]
    y, value = np.arange(len(frame)), frame["mean_abs_contribution"]
    for part, words in PARTS.items():
        here = (frame["part"] == part).to_numpy()
        if here.any():
            axis.barh(y[here], value[here], height=0.65, color=PART_COLOURS[part], label=words)
    spread = np.abs([value - frame["low"], frame["high"] - value])
    axis.errorbar(value, y, xerr=spread, fmt="none", color=INK, capsize=2)
    for place, row in zip(y, frame.itertuples(), strict=True):
        if not np.isnan(row.reliability):
            words = f"{'R²' if row.measure == 'R2' else row.measure} {row.reliability:.2f}"
            axis.annotate(
                words, (row.high, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5,
                color=INK,
            )  # fmt: skip
    axis.set_yticks(y, [name_of(labels, v) for v in frame["variable"]], fontsize=8.5)
    axis.set_xlabel("Mean |contribution to the log-odds|\n[95 % CI over patients]", fontsize=9)
    axis.set_xlim(0, None)
    axis.margins(x=0.12)
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    legend(axis, loc="lower right")
    return figure


def concept_agreement_bars(
    shap_importance: pd.DataFrame,
    reads_importance: pd.DataFrame,
    agreement: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    arm_labels: Mapping[str, str] | None = None,
) -> Figure:
    """The variables that an end-to-end arm and an arm of concepts share, by how much they move each.

    Parameters
    ----------
    shap_importance : `results.shap_importance` of one arm.
    reads_importance : `results.reads_importance` of one arm.
    agreement : `results.concept_agreement`; the two arms' rank correlations stand above the right panel.
    """
    first = need(shap_importance, "arm", "variable", "mean_abs_shap", "low", "high")
    second = need(reads_importance, "arm", "variable", "mean_abs_contribution", "low", "high")
    for frame in (first, second):
        _require_one(frame, "arm")
    order = first.sort_values("mean_abs_shap", ascending=False, kind="stable")["variable"]
    names = [name for name in order if name in set(second["variable"])]
    if not names:
        raise InputError("figure: the two arms share no variable")
    figure = canvas(8.4, 1.7 + 0.25 * len(names), 1, 2, sharey=True)
    pairs = ((first, "mean_abs_shap", "Mean |SHAP value|"),
             (second, "mean_abs_contribution", "Mean |contribution|"))  # fmt: skip
    for k, (axis, (frame, column, words)) in enumerate(zip(figure.axes, pairs, strict=True)):
        own = frame.set_index("variable").loc[names]
        spread = np.abs([own[column] - own["low"], own["high"] - own[column]])
        axis.barh(range(len(names)), own[column], height=0.65, color=COLOURS[5 - 3 * k])
        axis.errorbar(own[column], range(len(names)), xerr=spread, fmt="none", color=INK, capsize=2)
        arm = textwrap.fill(name_of(arm_labels, frame["arm"].iloc[0]), 40)
        axis.set_title(arm, fontsize=9, color=INK)
        axis.set_xlabel(f"{words}, log-odds [95 % CI]", fontsize=8.5)
        axis.set_xlim(0, None)
        axis.grid(axis="x", color=GRID, linewidth=0.6)
        axis.locator_params(axis="x", nbins=5)
    figure.axes[0].set_yticks(range(len(names)), [name_of(labels, n) for n in names], fontsize=8)
    figure.axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel(
        _agreement_words(agreement, first["arm"].iloc[0], second["arm"].iloc[0]), fontsize=8.5
    )
    return figure


def _agreement_words(agreement: pd.DataFrame, arm: str, other: str) -> str:
    rows = agreement[(agreement["arm"] == arm) & (agreement["concepts_arm"] == other)]
    told = []
    for row in rows.itertuples():
        words = {"patient": "of a patient's values, mean", "mean": "of the bars"}[row.level]
        if np.isnan(row.spearman):
            told.append(f"{words}: not known ({row.reason})")
        else:
            told.append(f"{words}: {row.spearman:.2f} [{row.low:.2f} to {row.high:.2f}]")
    return "Rank correlation " + "; ".join(told)


def _require_one(frame: pd.DataFrame, *columns: str) -> None:
    """InputError unless a figure of one patient, or arm, is given one."""
    for column in columns:
        found = frame[column].unique()
        if len(found) != 1:
            raise InputError(f"figure: {len(found)} values of '{column}'; allowed: one")
