"""Learning curves and ablations, from the tidy table of `rlvo_lib.ablation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    NO_SKILL,
    STYLES,
    Figure,
    canvas,
    legend,
    name_of,
    need,
    pick,
)


def learning_curve(
    ablations: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    arms: Sequence[str] = (),
) -> Figure:
    """AUC out of fold against the patients trained on, with 95 % intervals; the last point is all of them.

    ``arms`` picks and orders the curves; variants without a number are left out.
    """
    rows = need(ablations, "group", "variant", "arm", "n_train", "auc", "low", "high")
    rows = rows[rows["auc"].notna()]
    curves = rows[rows["group"] == "patients"]
    if curves.empty:
        raise InputError("figure: the table has no rows of group 'patients'")
    figure = canvas(6.4, 4.6)
    axis = figure.axes[0]
    axis.axhline(0.5, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1, label="no skill (0.50)")
    chosen = pick(curves["arm"], arms, labels)[: len(COLOURS)]
    points = rows[rows["group"].isin(["base", "patients"])].sort_values("n_train")
    apart = 0.008 * float(points["n_train"].max())  # intervals of several arms beside each other
    for k, arm in enumerate(chosen):
        own = points[points["arm"] == arm]
        axis.errorbar(
            own["n_train"] + apart * (k - (len(chosen) - 1) / 2), own["auc"],
            yerr=_reach(own, "auc", "low", "high"), color=COLOURS[k], linestyle=STYLES[k % 4],
            marker="o", markersize=5, capsize=3, linewidth=1.6, label=name_of(labels, arm),
        )  # fmt: skip
    axis.set(
        xlabel="Patients that a fold's model learns from", ylabel="AUC, out of fold [95 % CI]",
        xlim=(0, None),
    )  # fmt: skip
    axis.grid(color=GRID, linewidth=0.6)
    legend(axis, loc="best")
    return figure


def learning_curve_extrapolated(
    points: pd.DataFrame,
    bands: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    arms: Sequence[str] = (),
    farthest: float = 10,
) -> Figure:
    """Measured points and fitted curves with 95 % bands, dashed beyond what was measured; differences below.

    Parameters
    ----------
    points : `rlvo_lib.results.learning_points`.
    bands : `rlvo_lib.results.learning_bands`.
    arms : picks and orders the curves.
    farthest : times the largest measured number of patients; what is drawn beyond is shaded.
    """
    need(points, "arm", "n_train", "auc", "low", "high")
    need(bands, "arm", "minus", "n_train", "reach", "value", "low", "high")
    bands = bands.assign(minus=bands["minus"].fillna(""))  # empty in a file that was read back
    chosen = pick(points["arm"], arms, labels)[: len(COLOURS)]
    own = bands[(bands["minus"] == "") & bands["arm"].isin(chosen)]
    pairs = bands[(bands["minus"] != "") & bands["arm"].isin(chosen) & bands["minus"].isin(chosen)]
    if own.empty:
        raise InputError(f"figure: the bands hold none of the arms {', '.join(chosen)}")
    figure = canvas(7.2, 8.0 if len(pairs) else 4.8, 2 if len(pairs) else 1, 1, sharex=True)
    for k, arm in enumerate(chosen):
        _band(figure.axes[0], own[own["arm"] == arm], k, name_of(labels, arm))
        _points(figure.axes[0], points[points["arm"] == arm], k, len(chosen))
    figure.axes[0].set(ylabel="AUC, out of fold [95 % CI]")
    for k, (pair, rows) in enumerate(pairs.groupby(["arm", "minus"], sort=False)):
        words = " − ".join(name_of(labels, arm) for arm in pair)
        _band(figure.axes[1], rows, len(chosen) + k, words)  # no arm's colour
        figure.axes[1].set(ylabel="Difference in AUC [95 % CI]")
    if len(pairs):
        figure.axes[1].axhline(0, color=NO_SKILL, linewidth=1)
    measured = float(points["n_train"].max())
    ends = (0.9 * float(points["n_train"].min()), 1.05 * float(bands["n_train"].max()))
    for axis in figure.axes:
        axis.set(xscale="log", xlim=ends)
        axis.axvline(measured, color=NO_SKILL, linewidth=0.8, linestyle=(0, (2, 2)))
        if ends[1] > farthest * measured:
            axis.axvspan(farthest * measured, ends[1], color=GRID, alpha=0.6, zorder=0)
        axis.grid(color=GRID, linewidth=0.6)
        legend(axis, loc="best")
    _count_patients(figure.axes[-1], ends)
    return figure


def _band(axis: Axes, rows: pd.DataFrame, k: int, label: str) -> None:
    """A fitted curve with its band; dashed where nothing was measured."""
    rows, colour = rows.sort_values("n_train"), COLOURS[k % len(COLOURS)]
    axis.fill_between(rows["n_train"], rows["low"], rows["high"], color=colour, alpha=0.13, lw=0)
    inside, beyond = rows[rows["reach"] <= 1], rows[rows["reach"] >= 1]
    if len(inside) and len(beyond) and inside["reach"].iloc[-1] < 1:
        beyond = pd.concat([inside.tail(1), beyond])  # no gap between the two
    axis.plot(inside["n_train"], inside["value"], color=colour, linewidth=1.8, label=label)
    axis.plot(beyond["n_train"], beyond["value"], color=colour, linewidth=1.8, linestyle="--")


def _points(axis: Axes, rows: pd.DataFrame, k: int, arms: int) -> None:
    """Measured points with their intervals, those of several arms beside each other."""
    apart = 1.012 ** (k - (arms - 1) / 2)
    axis.errorbar(
        rows["n_train"] * apart, rows["auc"], yerr=_reach(rows, "auc", "low", "high"), fmt="o",
        color=COLOURS[k % len(COLOURS)], markersize=4.5, capsize=2, linewidth=1,
    )  # fmt: skip


def _count_patients(axis: Axes, ends: tuple[float, float]) -> None:
    """Round numbers of patients on a log axis."""
    ticks = [n * 10**k for k in range(7) for n in (1, 2, 5) if ends[0] <= n * 10**k <= ends[1]]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="Patients that a fold's model learns from (log scale)")


def ablation_forest(
    ablations: pd.DataFrame, *, labels: Mapping[str, str] | None = None, arm: str = ""
) -> Figure:
    """One arm's variants: AUC beside the unchanged arm's (line), and the paired difference to it.

    ``arm``: left out, the first of the table. Learning curves have a figure of their own.
    """
    columns = ("group", "variant", "arm", "auc", "low", "high")
    paired = ("difference", "difference_low", "difference_high")
    rows = need(ablations, *columns, *paired)
    arm = arm or rows["arm"].iloc[0]
    rows = rows[(rows["arm"] == arm) & (rows["group"] != "patients") & rows["auc"].notna()]
    if not (rows["group"] != "base").any():
        raise InputError(f"figure: the table has no variants of arm '{arm}'")
    y = np.arange(len(rows))[::-1].astype(float)
    figure = canvas(9.0, 1.5 + 0.34 * len(rows), 1, 2, sharey=True)
    left, right = figure.axes
    for place in rows.loc[rows["group"] == "base", "auc"]:
        left.axvline(place, color=COLOURS[0], linewidth=0.8)
    left.axvline(0.5, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1)
    right.axvline(0, color=COLOURS[0], linewidth=0.8)
    for axis, names, colour in (
        (left, ("auc", "low", "high"), COLOURS[0]),
        (right, paired, COLOURS[1]),
    ):
        axis.errorbar(
            rows[names[0]], y, xerr=_reach(rows, *names), fmt="o", color=colour, markersize=5,
            capsize=3, linewidth=1.5,
        )  # fmt: skip
        axis.grid(axis="x", color=GRID, linewidth=0.6)
        axis.tick_params(axis="y", length=0)
    for k in np.flatnonzero((rows["group"] != rows["group"].shift()).to_numpy())[1:]:
        for axis in (left, right):
            axis.axhline(y[k] + 0.5, color=GRID, linewidth=1)
    words = [
        name_of(labels, arm)
        if r.group == "base"
        else f"{r.group}: {r.variant.removeprefix(r.group + '_').replace('_', ' ')}"
        for r in rows.itertuples()
    ]
    left.set_yticks(y, words)
    left.set(xlabel="AUC, out of fold [95 % CI]", ylim=(-0.7, y.max() + 0.7))
    right.set(xlabel="Difference to the unchanged arm [95 % CI]")
    return figure


def _reach(rows: pd.DataFrame, middle: str, low: str, high: str) -> np.ndarray:
    """Lengths of error bars (2, n); 0 where there is no interval."""
    values = rows[[middle, low, high]].to_numpy(float)
    return np.nan_to_num(np.abs([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]))
