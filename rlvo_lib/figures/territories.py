"""Risk beyond a lesion's volume by territory of an atlas, in one model and another."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd

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

SIDES = {"left": (COLOURS[0], "o", -0.16), "right": (COLOURS[1], "s", 0.16), "": (INK, "D", 0.0)}
FAINT = 0.35  # what is extrapolated, or not to be read


def territory_forest(
    risk: pd.DataFrame, *, size_ml: float, labels: Mapping[str, str] | None = None
) -> Figure:
    """Log-odds beyond volume of a lesion of one size in each territory, a panel an arm (`results.territory_risk`).

    A row a territory with its left and right side, the highest of the first arm on top; bars are the spread of models.
    Faint: with a reason in the table, too few patients have such a lesion. Arms that see no territory are left out.
    """
    frame = _of_size(risk, size_ml)
    frame = frame[frame["arm"].map(frame.groupby("arm")["beyond_volume"].std()) > 0]
    if frame.empty:
        raise InputError("figure of territories: no arm tells territories apart")
    arms = list(frame["arm"].unique())
    order = frame[frame["arm"] == arms[0]].groupby("territory")["beyond_volume"].mean()
    names = list(order.sort_values(ascending=False, kind="stable").index)
    figure = canvas(
        3.2 + 2.6 * len(arms), 1.5 + 0.3 * len(names), 1, len(arms), sharey=True, squeeze=False
    )
    for axis, arm in zip(figure.axes, arms, strict=True):
        axis.axvline(0, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1)
        for side, rows in frame[frame["arm"] == arm].groupby("side", sort=False):
            _points(axis, rows, side, names)
        axis.set_title(textwrap.fill(name_of(labels, arm), 30), fontsize=9, color=INK)
        axis.grid(axis="x", color=GRID, linewidth=0.6)
        axis.tick_params(axis="x", labelsize=8)
    first = figure.axes[0]
    first.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
    first.set_yticklabels(names, fontsize=8)
    handles = [
        first.plot([], [], marker, color=colour, markersize=4, label=side)[0]
        for side, (colour, marker, _) in SIDES.items()
        if side and side in set(frame["side"])
    ]
    if handles:
        legend(figure.axes[-1], handles=handles, loc="lower right")
    figure.supxlabel(
        f"Log-odds beyond volume, a lesion of {size_ml:g} mL [spread of models]; scales differ",
        fontsize=9,
    )
    return figure


def territory_scatter(
    risk: pd.DataFrame,
    agreement: pd.DataFrame,
    *,
    first: str,
    second: str,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Log-odds beyond volume of two arms, a point a territory, a panel a size (`results.territory_agreement`).

    Above each panel the rank correlation over the territories that enough patients' lesions reach into.
    """
    frame = need(risk, "arm", "label", "side", "size_ml", "beyond_volume", "reason")
    known = need(agreement, "first", "second", "size_ml", "rho", "low", "high", "n_territories")
    known = known[(known["first"] == first) & (known["second"] == second)].set_index("size_ml")
    if known.empty:
        raise InputError(f"figure of territories: no agreement of '{first}' and '{second}'")
    sizes = sorted(known.index)
    figure = canvas(1.0 + 2.3 * len(sizes), 3.3, 1, len(sizes), squeeze=False)
    for axis, size in zip(figure.axes, sizes, strict=True):
        rows = frame[frame["size_ml"] == size]
        x, y = (
            rows[rows["arm"] == arm].set_index("label")["beyond_volume"] for arm in (second, first)
        )
        about = rows[rows["arm"] == first].set_index("label").loc[x.index.intersection(y.index)]
        for line in (axis.axhline, axis.axvline):
            line(0, color=GRID, linewidth=1)
        for side, own in about.groupby("side", sort=False):
            colour, marker, _ = SIDES[side]
            faded = np.where(own["reason"].astype(object).fillna("") != "", FAINT, 1.0)
            axis.scatter(
                x[own.index],
                y[own.index],
                s=16,
                color=colour,
                marker=marker,
                alpha=faded,
                label=side,
            )
        axis.set_title(f"{size:g} mL\n{_rho(known.loc[size])}", fontsize=8, color=INK)
        axis.tick_params(labelsize=7.5)
    if set(frame["side"]) & {"left", "right"}:
        legend(figure.axes[-1], loc="best")
    figure.supxlabel(f"{name_of(labels, second)}: log-odds beyond volume", fontsize=9)
    figure.supylabel(f"{name_of(labels, first)}:\nlog-odds beyond volume", fontsize=9)
    return figure


def _of_size(risk: pd.DataFrame, size_ml: float) -> pd.DataFrame:
    frame = need(
        risk, "arm", "territory", "side", "size_ml", "beyond_volume", "low", "high", "reason"
    )
    sizes = sorted(frame["size_ml"].unique())
    if size_ml not in sizes:
        shown = ", ".join(f"{size:g}" for size in sizes)
        raise InputError(f"figure of territories: size_ml is {size_ml}; allowed: {shown}")
    own = frame[frame["size_ml"] == size_ml]
    return own.assign(
        side=own["side"].astype(object).fillna(""), reason=own["reason"].astype(object).fillna("")
    )


def _points(axis, rows: pd.DataFrame, side: str, names: list[str]) -> None:
    colour, marker, shift = SIDES[side]
    for row in rows.itertuples():
        y = names.index(row.territory) + shift
        alpha = FAINT if row.reason else 1.0
        if np.isfinite(row.low):
            axis.plot([row.low, row.high], [y, y], color=colour, linewidth=1.2, alpha=alpha)
        axis.plot([row.beyond_volume], [y], marker, color=colour, markersize=4, alpha=alpha)


def _rho(row: pd.Series) -> str:
    if not np.isfinite(row["rho"]):
        return "rank correlation not defined"
    limits = f" [{row['low']:.2f}, {row['high']:.2f}]" if np.isfinite(row["low"]) else ""
    return f"ρ {row['rho']:.2f}{limits}, {row['n_territories']:.0f} territories"
