"""ROC, precision-recall and decision curves, with their bands over patients."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import MultipleLocator, PercentFormatter

from rlvo_lib.figures.panels import LEAST_WIDTH_IN, legend_above, shown
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    INK,
    NO_SKILL,
    STYLES,
    Figure,
    canvas,
    legend,
    name_of,
    need,
    pick,
)

OTHERS = "#C4C4C4"  # the other arms, behind the one that a panel is about
DOTS = (0, (2, 2))  # of a no-skill line
BAND = "95 % band over patients, pointwise"


def roc_curves(
    points: pd.DataFrame,
    *,
    band: pd.DataFrame | None = None,
    performance: pd.DataFrame | None = None,
    labels: Mapping[str, str] | None = None,
    arms: Sequence[str] = (),
) -> Figure:
    """ROC curves of the ensembles (`results.roc_points`), the AUCs from `performance`.

    With a ``band`` (`results.roc_band`) each arm has a panel, the others behind it in grey; without,
    all are in one. ``arms`` picks and orders the curves; at most eight can be told apart, the rest are
    left out. Of several seeds the band's mean curve is drawn.
    """
    points = need(points, "arm", "fpr", "tpr")
    chosen = pick(points["arm"], arms, labels)[: len(COLOURS)]
    words = {
        "xlabel": "1 - specificity (share of patients without the outcome who are flagged)",
        "ylabel": "Sensitivity",
    }
    if band is not None:
        need(band, "arm", "fpr", "tpr", "low", "high")
        figure = _panels(
            points, band, "fpr", "tpr", chosen, labels, aspect="equal",
            titles={arm: "AUC" + _found(performance, arm, "auc") for arm in chosen},
        )  # fmt: skip
        for axis in shown(figure):
            axis.plot([0, 1], [0, 1], color=NO_SKILL, linewidth=1, linestyle=DOTS, label="no skill")
        return _finished(figure, **words)
    figure = canvas(6.2, 5.6)
    axis = figure.axes[0]
    axis.plot([0, 1], [0, 1], color=NO_SKILL, linewidth=1, linestyle=DOTS, label="no skill (0.50)")
    for k, arm in enumerate(chosen):
        for number, curve in enumerate(_curves(points, arm)):
            axis.plot(
                curve["fpr"], curve["tpr"], color=COLOURS[k], linestyle=STYLES[k % 4], linewidth=1.8,
                label=name_of(labels, arm) + _area(performance, arm) if number == 0 else None,
            )  # fmt: skip
    axis.set(**words, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axis.grid(color=GRID, linewidth=0.6)
    legend(axis, loc="lower right", title="AUC of the fold ensemble [95 % CI]", title_fontsize=8.5)
    return figure


def precision_recall_curves(
    points: pd.DataFrame,
    *,
    band: pd.DataFrame | None = None,
    performance: pd.DataFrame | None = None,
    labels: Mapping[str, str] | None = None,
    arms: Sequence[str] = (),
) -> Figure:
    """Precision-recall curves (`results.pr_points`) with their bands (`results.pr_band`), a panel an arm.

    The dotted line is the prevalence: what any ranking at random has.
    """
    points = need(points, "arm", "threshold", "recall", "precision", "prevalence")
    # where nobody is flagged there is no precision: up to the first recall the curve is level
    points = points.assign(precision=points["precision"].where(points["threshold"].notna()).bfill())
    chosen = pick(points["arm"], arms, labels)[: len(COLOURS)]
    figure = _panels(
        points, band, "recall", "precision", chosen, labels, step="steps-pre",
        titles={
            arm: "average precision" + _found(performance, arm, "average_precision")
            for arm in chosen
        },
    )  # fmt: skip
    for axis, arm in zip(shown(figure), chosen, strict=True):
        axis.axhline(
            points.loc[points["arm"] == arm, "prevalence"].iloc[0], color=NO_SKILL, linewidth=1,
            linestyle=DOTS, label="no skill: prevalence",
        )  # fmt: skip
    return _finished(
        figure,
        xlabel="Recall (sensitivity)",
        ylabel="Precision (share of the flagged with the outcome)",
    )


def decision_curves(
    table: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    arms: Sequence[str] = (),
) -> Figure:
    """Net benefit by threshold probability (`results.decision_curve`), a panel an arm.

    Beside it treating everyone and treating nobody: a model is of use where it is above both. Net
    benefits far below 0 are cut off.
    """
    table = need(table, "arm", "threshold", "net_benefit", "low", "high", "treat_all", "treat_none")
    chosen = pick(table["arm"], arms, labels)[: len(COLOURS)]
    drawn = table[table["arm"].isin(chosen)]
    figure = _panels(table, table, "threshold", "net_benefit", chosen, labels, titles={})
    top = 1.08 * float(drawn[["high", "treat_all"]].max().max())
    for axis, arm in zip(shown(figure), chosen, strict=True):
        rows = table[table["arm"] == arm]
        axis.plot(
            rows["threshold"], rows["treat_all"], color=INK, linewidth=1.1, linestyle="--",
            label="treat everyone",
        )  # fmt: skip
        axis.plot(
            rows["threshold"], rows["treat_none"], color=INK, linewidth=1.1, linestyle=":",
            label="treat nobody",
        )  # fmt: skip
        axis.set(xlim=(rows["threshold"].min(), rows["threshold"].max()), ylim=(-0.35 * top, top))
        axis.xaxis.set_major_locator(MultipleLocator(0.1))
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return _finished(
        figure, xlabel="Threshold probability", ylabel="Net benefit (per patient)", square=False
    )


def _panels(
    points: pd.DataFrame,
    band: pd.DataFrame | None,
    x: str,
    y: str,
    chosen: Sequence[str],
    labels: Mapping[str, str] | None,
    *,
    titles: Mapping[str, str],
    aspect: str = "auto",
    step: str = "default",
) -> Figure:
    """A panel an arm: its curve and band in colour, the other arms' curves behind in grey."""
    columns = 1 if len(chosen) == 1 else 2 if len(chosen) <= 4 else 3
    count = -(-len(chosen) // columns)
    figure = canvas(
        max(3.3 * columns + 0.5, LEAST_WIDTH_IN), 3.2 * count + 1.0, count, columns, squeeze=False, sharex=True, sharey=True
    )  # fmt: skip
    for k, axis in enumerate(figure.axes):
        if k >= len(chosen):
            axis.set_visible(False)
            continue
        arm, colour = chosen[k], COLOURS[k]
        for number, other in enumerate([a for a in chosen if a != arm]):
            for curve in _main_curves(points, band, other)[:1]:
                axis.plot(
                    curve[x], curve[y], color=OTHERS, linewidth=1, drawstyle=step, zorder=1,
                    label="the other arms" if number == 0 else None,
                )  # fmt: skip
        if band is not None:
            own = band[band["arm"] == arm]
            axis.fill_between(
                own[x], own["low"], own["high"], color=colour, alpha=0.18, linewidth=0, label=BAND
            )
        for curve in _main_curves(points, band, arm):
            axis.plot(curve[x], curve[y], color=colour, linewidth=1.8, drawstyle=step)
        title = textwrap.fill(name_of(labels, arm), 44)
        if arm in titles:
            title += f"\n{titles[arm]}"
        axis.set_title(title, fontsize=9, color=INK)
        axis.set_aspect(aspect)
        axis.grid(color=GRID, linewidth=0.6)
    return figure


def _main_curves(points: pd.DataFrame, band: pd.DataFrame | None, arm: str) -> list[pd.DataFrame]:
    """An arm's own curve; of several seeds the band's, which is their mean, if there is a band."""
    curves = _curves(points, arm)
    if len(curves) > 1 and band is not None:
        return [band[band["arm"] == arm]]
    return curves


def _curves(points: pd.DataFrame, arm: str) -> list[pd.DataFrame]:
    """An arm's curves, one a seed."""
    rows = points[points["arm"] == arm]
    return [curve for _, curve in rows.groupby("seed")] if "seed" in rows else [rows]


def _finished(figure: Figure, *, xlabel: str, ylabel: str, square: bool = True) -> Figure:
    """Axis labels once, limits of a unit square, and a legend above of the kinds of line."""
    for axis in shown(figure) if square else ():
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xticks=np.linspace(0, 1, 6))
    figure.supxlabel(xlabel, fontsize=9.5)
    figure.supylabel(ylabel, fontsize=9.5)
    kinds = {text for axis in shown(figure) for text in axis.get_legend_handles_labels()[1]}
    legend_above(figure, columns=2 if len(kinds) > 3 else 3)
    return figure


def _area(performance: pd.DataFrame | None, arm: str) -> str:
    found = _found(performance, arm, "auc")
    return f" {found}" if found else ""


def _found(performance: pd.DataFrame | None, arm: str, metric: str) -> str:
    """An ensemble's value with its limits, as text."""
    if performance is None:
        return ""
    row = performance[(performance["arm"] == arm) & (performance["metric"] == metric)]
    if row.empty:
        return ""
    r = row.iloc[0]
    return f" {r['ensemble']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
