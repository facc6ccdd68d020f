"""Whether explanations can be believed: the grid of methods and checks, and the curves behind it."""

from __future__ import annotations

import textwrap
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
    STYLES,
    Figure,
    canvas,
    name_of,
    need,
    pick,
)

#: Background of a cell; the words say the same.
SHADES = {"pass": "#CFE8DD", "fail": "#F6D2BE", "not made": "#F2F2F2"}
MARKS = {"pass": "✓ pass", "fail": "✗ fail", "not made": "not made"}


def check_table(
    table: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    check_labels: Mapping[str, str] | None = None,
    arm: str = "",
) -> Figure:
    """Methods as columns, checks as rows, each cell in words: pass, fail or not made, with value and limits.

    Parameters
    ----------
    table
        ``results.explanation_checks``; of several arms name one by ``arm``.
    labels, check_labels
        The words for methods and for checks (``results.check_labels``).

    Raises
    ------
    InputError
        For a table of several arms and no ``arm``, or a verdict that is not known.
    """
    table = _of_arm(need(table, "arm", "method", "check", "verdict", "value", "low", "high"), arm)
    methods = pick(table["method"], (), labels)
    checks = list(table["check"].unique())
    wide = table.set_index(["check", "method"])
    figure = canvas(2.3 + 1.25 * len(methods), 0.95 + 0.42 * len(checks))
    axis = figure.axes[0]
    for row, check in enumerate(checks):
        for column, method in enumerate(methods):
            if (check, method) in wide.index:
                _cell(axis, column, row, wide.loc[(check, method)])
    words = [textwrap.fill(name_of(labels, method), 16) for method in methods]
    axis.set_xticks(range(len(methods)), words, fontsize=8.5)
    axis.set_yticks(range(len(checks)), [name_of(check_labels, c) for c in checks], fontsize=8.5)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set(xlim=(-0.5, len(methods) - 0.5), ylim=(len(checks) - 0.5, -0.5))
    return figure


def _of_arm(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    arms = list(table["arm"].unique())
    if not arm and len(arms) > 1:
        raise InputError(f"figure: checks of {len(arms)} arms; name one of {', '.join(arms)}")
    if arm and arm not in arms:
        raise InputError(f"figure: no checks of arm '{arm}'; allowed: {', '.join(arms)}")
    return table[table["arm"] == (arm or arms[0])]


def _cell(axis: Axes, column: int, row: int, found: pd.Series) -> None:
    verdict = found["verdict"]
    if verdict not in SHADES:
        raise InputError(f"figure: verdict '{verdict}'; allowed: {', '.join(SHADES)}")
    axis.fill_between(
        [column - 0.48, column + 0.48], row - 0.46, row + 0.46, color=SHADES[verdict], linewidth=0
    )
    text = MARKS[verdict]
    if np.isfinite(found["value"]):
        text += f"\n{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    bold = "bold" if verdict == "fail" else "normal"
    axis.text(
        column, row, text, ha="center", va="center", fontsize=7.2, color=INK, fontweight=bold,
        linespacing=1.25,
    )  # fmt: skip


def deletion_curves(
    checks: pd.DataFrame,
    *,
    methods: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Mean change of the logit as boxes are deleted (left) and inserted (right), beside random orders.

    Parameters
    ----------
    checks
        ``attributions/checks.csv`` of one arm: the checks deletion and insertion.
    """
    rows = need(checks, "method", "check", "part", "value", "reference", "participant_id")
    rows = rows[rows["check"].isin(["deletion", "insertion"])]
    if rows.empty:
        raise InputError("figure: no rows of the checks deletion and insertion")
    share = rows["part"].str.rstrip("%").astype(float)
    means = rows.assign(share=share).groupby(["check", "method", "share"], sort=True)
    means = means[["value", "reference"]].mean().reset_index()
    figure = canvas(7.6, 3.7, 1, 2)
    names = pick(means["method"], methods, labels)
    for axis, check in zip(figure.axes, ("deletion", "insertion"), strict=True):
        own = means[means["check"] == check]
        chance = own.groupby("share")["reference"].mean()
        axis.plot(
            chance.index, chance, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1.6,
            label="random order",
        )  # fmt: skip
        for k, method in enumerate(names):
            line = own[own["method"] == method]
            axis.plot(
                line["share"], line["value"], color=COLOURS[k % len(COLOURS)], linewidth=1.4,
                linestyle=STYLES[k % len(STYLES)], label=name_of(labels, method), marker="o", markersize=2.6,
            )  # fmt: skip
        axis.axhline(0, color=GRID, linewidth=0.8)
        verb = "replaced by the mean image" if check == "deletion" else "put into the mean image"
        axis.set(xlabel=f"Boxes of the head {verb}\n(%, highest first)", xlim=(0, 100))
        axis.xaxis.label.set_size(8.5)
        axis.grid(color=GRID, linewidth=0.6)
    figure.axes[0].set_ylabel("Change of the log-odds,\nmean over patients", fontsize=8.5)
    legend_above(figure, columns=4)
    return figure


def cascade_bars(
    checks: pd.DataFrame,
    *,
    measure: str = "absolute",
    methods: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    limit: float = 0.5,
) -> Figure:
    """How alike each method's maps stay as the network's weights are drawn anew, from the head down.

    ``measure``: absolute, signed (rank correlations) or ssim; ``limit``: drawn as a line, what counts as alike.
    """
    rows = need(checks, "method", "check", "measure", "part", "value")
    rows = rows[(rows["check"] == "model_randomisation") & (rows["measure"] == measure)]
    if rows.empty:
        raise InputError(f"figure: no rows of model_randomisation with measure '{measure}'")
    names, parts = pick(rows["method"], methods, labels), list(rows["part"].unique())
    means = rows.groupby(["method", "part"])["value"].mean()
    figure = canvas(max(5.6, 1.0 + 1.1 * len(names)), 3.4)
    axis, width = figure.axes[0], 0.8 / len(parts)
    for k, part in enumerate(parts):
        words = "all weights anew" if part == "all" else f"down to the {part}"
        at = np.arange(len(names)) + (k - (len(parts) - 1) / 2) * width
        values = [means.get((name, part), np.nan) for name in names]
        axis.bar(
            at, values, width=0.92 * width, color=COLOURS[(5, 0, 1)[k % 3]], label=words,
            hatch=("", "//", "xx")[k % 3], edgecolor="white", linewidth=0.4,
        )  # fmt: skip
    axis.axhline(limit, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1)
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set_xticks(
        range(len(names)), [textwrap.fill(name_of(labels, n), 16) for n in names], fontsize=8.5
    )
    what = "SSIM" if measure == "ssim" else f"Rank correlation ({measure} values)"
    axis.set_ylabel(f"{what}\nwith the trained network's map", fontsize=8.5)
    axis.grid(axis="y", color=GRID, linewidth=0.6)
    legend_above(figure, columns=3)
    return figure
