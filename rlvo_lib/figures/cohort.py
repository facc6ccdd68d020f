"""Patient flow, missing values, and how the outcome came about."""

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
    WITH,
    WITHOUT,
    Figure,
    canvas,
    legend,
    name_of,
    need,
)


def flow_diagram(flow: pd.DataFrame, split_counts: pd.DataFrame | None = None) -> Figure:
    """The flow of patients in the manner of STARD and CONSORT (`cohort.flow`, `cohort.split_counts`).

    From those assessed to those included, with a box beside for each rule: how many did not meet it.
    Below, where given, the partitions with their events.
    """
    flow = need(flow, "step", "text", "n", "excluded", "unknown").reset_index(drop=True)
    rules, parts = flow.iloc[1:-1], _partitions(split_counts)
    height = len(rules) + 1 + (1.5 if parts else 0)
    figure = canvas(7.6, 0.9 + 0.62 * (height + 1))
    axis = figure.axes[0]
    axis.set_axis_off()
    axis.set(xlim=(0, 10), ylim=(-height - 0.5, 0.5))
    bottom = -(len(rules) + 1)
    _arrow(axis, (2.6, -0.33), (2.6, bottom + 0.33), INK)
    _box(axis, 2.6, 0, 4.4, _counted(flow.iloc[0]), COLOURS[0])
    for k, rule in enumerate(rules.itertuples(), start=1):
        colour = COLOURS[1] if rule.excluded else NO_SKILL
        _arrow(axis, (2.6, -k), (4.65, -k), colour)
        unknown = f", {rule.unknown} of them since it is unknown" if rule.unknown else ""
        text = textwrap.fill(f"rule: {rule.text}", 56)
        _box(axis, 7.3, -k, 5.2, f"{text}\nexcluded: {rule.excluded}{unknown}", colour)
    _box(axis, 2.6, bottom, 4.4, _counted(flow.iloc[-1]), COLOURS[0])
    for centre, text in zip((2.6, 7.3), parts, strict=False):
        _arrow(axis, (2.6, bottom - 0.33), (centre, bottom - 1.17), INK)
        _box(axis, centre, bottom - 1.5, 4.4, text, COLOURS[0])
    return figure


def _counted(step: pd.Series) -> str:
    return f"{step['text']}\nn = {step['n']}"


def _partitions(counts: pd.DataFrame | None) -> list[str]:
    """Training and test part in words, from `cohort.split_counts`."""
    if counts is None:
        return []
    whole = need(counts, "partition", "fold", "n", "events").query("fold == 'all'")
    folds = counts.loc[counts["fold"] != "all", "fold"].nunique()
    words = {"train": f"training part, {folds} folds", "test": "test part"}
    whole = whole.set_index("partition")
    return [
        f"{text}\nn = {whole.at[name, 'n']}, with the outcome {whole.at[name, 'events']}"
        for name, text in words.items()
        if name in whole.index
    ]


def _box(axis: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    axis.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.33), width, 0.66, boxstyle="round,pad=0.02", facecolor="white",
            edgecolor=colour,
        )
    )  # fmt: skip
    axis.text(x, y, text, ha="center", va="center", fontsize=8, color=INK)


def _arrow(axis: Axes, start: tuple, end: tuple, colour: str) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour})


def missingness_bars(
    missingness: pd.DataFrame, *, labels: Mapping[str, str] | None = None
) -> Figure:
    """Share of patients without a value, variables with any missing only (`cohort.missingness`).

    The bar is the share of all; the two marks those of the patients without and with the outcome.
    """
    frame = need(missingness, "variable", "share", "share_without", "share_with_outcome")
    frame = frame[frame["share"] > 0].sort_values("share")
    figure = canvas(7.0, 1.4 + 0.24 * max(len(frame), 1))
    axis, rows = figure.axes[0], np.arange(len(frame))
    axis.barh(rows, 100 * frame["share"], color=GRID, height=0.7, label="all")
    for column, colour, marker, words in (
        ("share_without", WITHOUT, "o", "without the outcome"),
        ("share_with_outcome", WITH, "D", "with the outcome"),
    ):
        axis.scatter(100 * frame[column], rows, color=colour, marker=marker, s=22, label=words)
    axis.set_yticks(rows, [name_of(labels, v) for v in frame["variable"]], fontsize=8)
    widest = frame[["share", "share_without", "share_with_outcome"]].max().max()
    axis.set(xlabel="Patients without a value (%)", xlim=(0, max(5, min(100, 112 * widest))))
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    if frame.empty:
        axis.set_xlim(0, 100)
        axis.text(0.5, 0.5, "no value is missing", transform=axis.transAxes, ha="center")
    else:
        legend(axis, loc="lower right")
    return figure


def label_overlap_bars(overlap: pd.DataFrame, *, texts: Mapping[str, str] | None = None) -> Figure:
    """How many patients meet each combination of the outcome's criteria (`cohort.label_overlap`).

    An UpSet plot: combinations are columns of a dot matrix, with their size above; the size of each
    criterion stands to the left. Patients who meet none are left out.
    """
    criteria = [c for c in need(overlap, "n").columns if c not in ("n", "data", "share")]
    frame = overlap[overlap[criteria].astype(int).any(axis=1)].reset_index(drop=True)
    if frame.empty:
        raise InputError("figure: no patient meets any criterion of the outcome")
    figure = canvas(
        4.6 + 0.75 * len(frame), 3.2 + 0.3 * len(criteria), 2, 2, gridspec_kw={
            "height_ratios": [3, 0.6 * len(criteria)], "width_ratios": [1.6, 0.75 * len(frame)],
        },
    )  # fmt: skip
    corner, bars, sizes, dots = figure.axes
    corner.set_axis_off()
    drawn = bars.bar(frame.index, frame["n"], color=COLOURS[0], width=0.6)
    bars.bar_label(drawn, fontsize=9, color=INK)
    bars.set(ylabel="Patients", xlim=(-0.6, len(frame) - 0.4))
    bars.tick_params(axis="x", length=0, labelbottom=False)
    for row, criterion in enumerate(criteria):
        met = frame[criterion].astype(int) == 1
        dots.scatter(frame.index, [row] * len(frame), s=70, color=GRID)
        dots.scatter(frame.index[met], [row] * int(met.sum()), s=70, color=INK)
    for k, column in frame[criteria].astype(int).iterrows():
        rows = np.flatnonzero(column.to_numpy())
        dots.plot([k, k], [rows.min(), rows.max()], color=INK, linewidth=1.5)
    dots.set_yticks(range(len(criteria)), [name_of(texts, c) for c in criteria])
    dots.set(ylim=(len(criteria) - 0.5, -0.5), xlim=(-0.6, len(frame) - 0.4))
    totals = [int(frame.loc[frame[c].astype(int) == 1, "n"].sum()) for c in criteria]
    sizes.barh(range(len(criteria)), totals, color=NO_SKILL, height=0.5)
    for row, total in enumerate(totals):  # the axis runs to the left
        sizes.text(total, row, f"{total} ", ha="right", va="center", fontsize=9, color=INK)
    sizes.set(ylim=dots.get_ylim(), xlim=(1.35 * max(totals), 0), yticks=[], xlabel="in all")
    for axis in (dots, sizes):
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.tick_params(axis="both", length=0, labelbottom=False)
    return figure
