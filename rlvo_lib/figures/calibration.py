"""Observed against predicted risk: groups, the smooth curve, and where the predictions lie."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlvo_lib.figures.panels import LEAST_WIDTH_IN, legend_above
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    INK,
    NO_SKILL,
    WITH,
    WITHOUT,
    Figure,
    canvas,
    name_of,
    need,
    pick,
)

BINS = 40  # of the distribution below the curve


def calibration_plot(
    points: pd.DataFrame,
    *,
    curve: pd.DataFrame | None = None,
    risk: pd.DataFrame | None = None,
    calibration: pd.DataFrame | None = None,
    labels: Mapping[str, str] | None = None,
    outcome_names: tuple[str, str] = ("without", "with the outcome"),
    arms: Sequence[str] = (),
) -> Figure:
    """Observed against predicted risk, a panel an arm, with the distribution of the predictions below.

    Parameters
    ----------
    points
        Groups of equal size with Wilson intervals (`results.calibration_points`).
    curve
        The smoothed curve with its band (`results.calibration_curve`); of several seeds without band.
    risk
        Every patient's risk (`results.patient_risk`): below each panel, the share of the patients with
        the outcome (upwards) and without it (downwards) by predicted risk.
    calibration
        O:E, slope and ICI for the titles (`results.calibration_table`), where there is one seed.
    """
    points = need(points, "arm", "predicted", "observed", "low", "high")
    chosen = pick(points["arm"], arms, labels)[:6]
    columns = min(3, len(chosen)) if len(chosen) != 4 else 2
    count = -(-len(chosen) // columns)
    stacked = 1 if risk is None else 2
    ratios = [1.0] if risk is None else [1.0, 0.34]
    figure = canvas(
        max(3.2 * columns + 0.6, LEAST_WIDTH_IN), (3.2 if risk is None else 4.4) * count + 0.9, stacked * count, columns,
        squeeze=False, gridspec_kw={"height_ratios": ratios * count},
    )  # fmt: skip
    top = _top(points, curve, risk, chosen)
    grid = np.array(figure.axes).reshape(stacked * count, columns)
    for k in range(count * columns):
        axes = grid[stacked * (k // columns) : stacked * (k // columns + 1), k % columns]
        if k >= len(chosen):
            for axis in axes:
                axis.set_visible(False)
            continue
        _draw_agreement(axes[0], points, curve, chosen[k], top)
        title = textwrap.fill(name_of(labels, chosen[k]), 40) + _summary(calibration, chosen[k])
        axes[0].set_title(title, fontsize=9, color=INK)
        if risk is not None:
            _draw_distribution(axes[1], risk[risk["arm"] == chosen[k]], outcome_names, top)
            axes[0].tick_params(labelbottom=False)
    figure.supxlabel("Predicted risk", fontsize=9.5)
    figure.supylabel("Observed share with the outcome [95 % CI]", fontsize=9.5)
    legend_above(figure, columns=3)
    return figure


def _top(
    points: pd.DataFrame,
    curve: pd.DataFrame | None,
    risk: pd.DataFrame | None,
    chosen: Sequence[str],
) -> float:
    """The end of the axes: all points with their intervals and every patient's risk are inside."""
    parts = [(points, ["predicted", "high"]), (curve, ["predicted", "observed"])]
    parts.append((risk, ["probability"]))
    ends = [
        float(table.loc[table["arm"].isin(chosen), columns].max().max())
        for table, columns in parts
        if table is not None
    ]
    return min(1.0, 1.06 * max(ends))


def _draw_agreement(
    axis: Axes, points: pd.DataFrame, curve: pd.DataFrame | None, arm: str, top: float
) -> None:
    axis.plot([0, 1], [0, 1], color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1, label="perfect")
    if curve is not None:
        seeds = [rows for _, rows in curve[curve["arm"] == arm].groupby("seed")]
        for rows in seeds:
            axis.plot(
                rows["predicted"], rows["observed"], color=COLOURS[1], label="smoothed",
                linewidth=1.5 if len(seeds) == 1 else 0.8,
            )  # fmt: skip
            if len(seeds) == 1:
                axis.fill_between(
                    rows["predicted"], rows["low"], rows["high"], color=COLOURS[1], alpha=0.15,
                    linewidth=0, label="its 95 % band",
                )  # fmt: skip
    rows = points[points["arm"] == arm]
    faint = "seed" in rows and rows["seed"].nunique() > 1
    axis.errorbar(
        rows["predicted"], rows["observed"],
        yerr=np.abs([rows["observed"] - rows["low"], rows["high"] - rows["observed"]]),
        fmt="o", color=COLOURS[0], markersize=5, capsize=2, linewidth=1.3, label="groups of equal size",
        alpha=0.4 if faint else 1,
    )  # fmt: skip
    axis.set(xlim=(0, top), ylim=(0, top))
    axis.set_box_aspect(1)
    axis.grid(color=GRID, linewidth=0.6)


def _draw_distribution(
    axis: Axes, risk: pd.DataFrame, outcome_names: tuple[str, str], top: float
) -> None:
    """Shares of the patients with the outcome upwards, without it downwards, by predicted risk."""
    for label, sign, colour in ((1, 1, WITH), (0, -1, WITHOUT)):
        p = risk.loc[risk["y_true"] == label, "probability"].to_numpy()
        axis.hist(
            p, bins=np.linspace(0, top, BINS + 1), weights=np.full(p.size, sign / p.size),
            color=colour, label=outcome_names[label],
        )  # fmt: skip
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set(xlim=(0, top), yticks=[])
    axis.spines["left"].set_visible(False)
    axis.set_box_aspect(0.34)


def _summary(calibration: pd.DataFrame | None, arm: str) -> str:
    if calibration is None:
        return ""
    rows = calibration[calibration["arm"] == arm]
    if len(rows) != 1:
        return ""
    r = rows.iloc[0]
    return f"\nO:E {r['o_to_e']:.2f}, slope {r['slope']:.2f}, ICI {r['ici']:.3f}"
