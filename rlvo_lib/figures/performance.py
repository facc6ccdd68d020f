"""Training curves, estimates with their uncertainty and ceilings, predicted risks."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    INK,
    NO_SKILL,
    STYLES,
    WITH,
    WITHOUT,
    Figure,
    canvas,
    name_of,
    need,
    pick,
)

#: How the ladder's groups are told apart, by colour and marker.
GROUPS = {
    "clinical": (COLOURS[2], "s", "clinical data"),
    "imaging": (COLOURS[0], "o", "images"),
    "multimodal": (COLOURS[1], "D", "images and clinical data"),
}


def training_curves(
    history: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    arms: Sequence[str] = (),
    unit: str = "Loss",
) -> Figure:
    """Loss by epoch of each arm, a panel each, and fold (columns arm, fold, epoch, part, loss).

    An epoch before 0 is a frozen offset alone: a level line, which the network has to get under. Losses
    of different units (``unit``, the axis label) belong into figures of their own.
    """
    frame = need(history, "arm", "fold", "epoch", "part", "loss")
    chosen = pick(frame["arm"], arms, labels)
    columns = min(3 if len(chosen) <= 9 else 4, len(chosen))
    count = -(-len(chosen) // columns)
    width, height = (3.1, 2.3) if columns <= 3 else (2.6, 2.0)
    figure = canvas(
        width * columns + 0.4, height * count + 0.9, count, columns, squeeze=False, sharex=True
    )
    styles = {p: (COLOURS[k], STYLES[k % 4]) for k, p in enumerate(dict.fromkeys(frame["part"]))}
    named: set[str] = set()
    for k, axis in enumerate(figure.axes):
        if k >= len(chosen):
            axis.set_visible(False)
            continue
        _draw_losses(axis, frame[frame["arm"] == chosen[k]], styles, named)
        title = textwrap.fill(name_of(labels, chosen[k]), round(11 * width))
        axis.set_title(title, fontsize=9.5 if columns <= 3 else 8.5, color=INK)
        axis.grid(color=GRID, linewidth=0.6)
        axis.tick_params(labelbottom=k + columns >= len(chosen))  # nothing is drawn below
    figure.supxlabel("Epoch", fontsize=9.5)
    figure.supylabel(unit, fontsize=9.5)
    figure.legend(loc="outside upper right", ncols=len(named), frameon=False, fontsize=8.5)
    return figure


def _draw_losses(
    axis: Axes, rows: pd.DataFrame, styles: Mapping[str, tuple[str, str]], named: set[str]
) -> None:
    """One arm's curves; each kind of line is named once in a figure (``named``: those that are)."""

    def label(text: str) -> str | None:
        new = text not in named
        named.add(text)
        return text if new else None

    for loss in rows.loc[rows["epoch"] < 0, "loss"]:
        axis.axhline(
            loss, color=INK, linestyle=":", linewidth=1, alpha=0.8, label=label("frozen offset alone")
        )  # fmt: skip
    rows = rows[rows["epoch"] >= 0]
    for part, (colour, style) in styles.items():
        for _, curve in rows[rows["part"] == part].groupby(
            [c for c in ("seed", "fold") if c in rows]
        ):
            axis.plot(
                curve["epoch"], curve["loss"], color=colour, linestyle=style, linewidth=1.1, alpha=0.8,
                label=label(part), marker="o" if len(curve) == 1 else None, markersize=3,
            )  # fmt: skip
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def auc_forest(
    performance: pd.DataFrame,
    *,
    published: Mapping[str, Mapping[str, float]] | None = None,
    labels: Mapping[str, str] | None = None,
    metric: str = "auc",
    no_skill: float = 0.5,
    title: str = "AUC",
) -> Figure:
    """Each arm's estimate in two ways: mean ± SD over the fold models, and the ensemble with its CI.

    Published values (name -> ``{"label": ..., "auc": 0.70, "auc_sd": 0.02}``) have rows of their own
    below a line, with open diamonds: they come from another cohort.
    """
    rows = need(performance, "arm", "metric", "mean", "sd", "ensemble", "low", "high")
    rows = rows[rows["metric"] == metric]
    if rows.empty:
        raise InputError(f"figure: the table has no rows of metric '{metric}'")
    papers = [(name, value) for name, value in (published or {}).items() if metric in value]
    y = np.arange(len(rows))[::-1] + len(papers) + 0.3
    figure = canvas(7.2, 1.6 + 0.42 * (len(rows) + len(papers)))
    axis = figure.axes[0]
    axis.axvline(no_skill, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1, label="no skill")
    axis.errorbar(
        rows["ensemble"], y + 0.13,
        xerr=np.abs([rows["ensemble"] - rows["low"], rows["high"] - rows["ensemble"]]),
        fmt="o", color=COLOURS[0], markersize=6, capsize=3, linewidth=1.6,
        label="fold ensemble, 95 % CI over patients",
    )  # fmt: skip
    axis.errorbar(
        rows["mean"], y - 0.13, xerr=rows["sd"], fmt="s", color=COLOURS[4], markersize=4, capsize=0,
        linewidth=3, alpha=0.95, label="mean ± SD over fold models",
    )  # fmt: skip
    ticks = list(zip(y, [name_of(labels, arm) for arm in rows["arm"]], strict=True))
    if papers:
        places = np.arange(len(papers))[::-1]
        axis.errorbar(
            [value[metric] for _, value in papers], places,
            xerr=[value.get(f"{metric}_sd", 0) for _, value in papers], fmt="D", color=COLOURS[1],
            markerfacecolor="white", markersize=6, linewidth=1.4, label="published, another cohort",
        )  # fmt: skip
        axis.axhline(len(papers) - 0.35, color=GRID, linewidth=1)
        names = [f"{value.get('label', name)} (published)" for name, value in papers]
        ticks += list(zip(places, names, strict=True))
    axis.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
    axis.tick_params(axis="y", length=0)
    axis.set(xlabel=title, ylim=(-0.7, y.max() + 0.7))
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure


def ladder_forest(
    table: pd.DataFrame,
    *,
    groups: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    metric: str = "auc",
    no_skill: float = 0.5,
    title: str = "AUC, out of fold [95 % CI over patients]",
) -> Figure:
    """Each arm's estimate with its interval, in the order of the table within its group.

    Parameters
    ----------
    table
        arm, metric, estimate, low, high (`results.out_of_fold`); an estimate may lack its interval.
    groups
        Arm to group, one of `GROUPS`, which are drawn in that order from above.
    """
    rows = need(table, "arm", "metric", "estimate", "low", "high")
    rows = rows[rows["metric"] == metric]
    if rows.empty:
        raise InputError(f"figure: the table has no rows of metric '{metric}'")
    own = rows["arm"].map(dict(groups))
    if not own.isin(list(GROUPS)).all():
        bad = rows.loc[~own.isin(list(GROUPS)), "arm"].iloc[0]
        raise InputError(
            f"figure: arm '{bad}' is of group '{dict(groups).get(bad)}'; allowed: {', '.join(GROUPS)}"
        )
    parts = [(look, rows[own == name]) for name, look in GROUPS.items() if (own == name).any()]
    figure = canvas(8.0, 1.6 + 0.27 * (len(rows) + len(parts)))
    axis, ticks, top = figure.axes[0], [], float(len(rows) + len(parts))
    axis.axvline(no_skill, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1, label="no skill")
    for number, ((colour, marker, words), part) in enumerate(parts):
        y = top - 1 - np.arange(len(part))
        axis.errorbar(
            part["estimate"], y,
            xerr=np.abs([part["estimate"] - part["low"], part["high"] - part["estimate"]]),
            fmt=marker, color=colour, markersize=5, capsize=3, linewidth=1.5, label=words,
        )  # fmt: skip
        if number:
            axis.axhline(top - 0.1, color=GRID, linewidth=1)
        ticks += list(zip(y, [name_of(labels, arm) for arm in part["arm"]], strict=True))
        top -= len(part) + 0.8
    axis.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
    axis.tick_params(axis="y", length=0)
    axis.set(xlabel=title, ylim=(ticks[-1][0] - 0.7, ticks[0][0] + 0.7))
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)
    return figure


def ceiling_forest(ceiling: pd.DataFrame, *, labels: Mapping[str, str] | None = None) -> Figure:
    """Each arm's AUC with its interval, above its two ceilings (`results.ceiling_table`).

    An arm without a ceiling, and an AUC without an interval, are drawn without it.
    """
    columns = ("infinite", "fitted", "fitted_low", "fitted_high", "auc", "auc_low", "auc_high")
    rows = need(ceiling, "arm", *columns)
    y = np.arange(len(rows))[::-1].astype(float)
    figure = canvas(7.2, 1.7 + 0.46 * len(rows))
    axis = figure.axes[0]
    axis.axvline(0.5, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1, label="no skill (0.50)")
    axis.errorbar(
        rows["auc"], y + 0.14,
        xerr=np.abs([rows["auc"] - rows["auc_low"], rows["auc_high"] - rows["auc"]]), fmt="o",
        color=COLOURS[0], markersize=6, capsize=3, linewidth=1.6, label="model, 95 % CI over patients",
    )  # fmt: skip
    axis.errorbar(
        rows["fitted"], y - 0.14,
        xerr=np.abs([rows["fitted"] - rows["fitted_low"], rows["fitted_high"] - rows["fitted"]]),
        fmt="D", color=INK, markerfacecolor="white", markersize=5, linewidth=1.2,
        label="ceiling of one cohort: mean and 95 % of cohorts",
    )  # fmt: skip
    axis.plot(
        rows["infinite"], y - 0.14, linestyle="none", marker="|", color=INK, markersize=11,
        markeredgewidth=2, label="ceiling of unlimited patients",
    )  # fmt: skip
    axis.set_yticks(y, [name_of(labels, arm) for arm in rows["arm"]])
    axis.tick_params(axis="y", length=0)
    axis.set(xlabel="AUC", ylim=(-0.7, y.max() + 0.7))
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure


def risk_by_outcome(
    ensembles: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    outcome_names: tuple[str, str] = ("without", "with the outcome"),
    arms: Sequence[str] = (),
) -> Figure:
    """Every patient's predicted probability by outcome (`results.ensembles`), a row an arm."""
    import seaborn as sns

    frame = need(ensembles, "arm", "y_true", "probability")
    chosen = pick(frame["arm"], arms, labels)
    frame = frame[frame["arm"].isin(chosen)]
    figure = canvas(7.2, 1.4 + 0.8 * len(chosen))
    axis = figure.axes[0]
    low, high = frame["probability"].min(), frame["probability"].max()
    margin = 0.06 * (high - low) + 0.01
    sns.swarmplot(
        data=frame.assign(outcome=frame["y_true"].map(dict(enumerate(outcome_names)))),
        x="probability", y="arm", hue="outcome", order=chosen, hue_order=list(outcome_names),
        palette=[WITHOUT, WITH], dodge=True, size=3.2, warn_thresh=1, ax=axis,
    )  # fmt: skip
    axis.set_yticks(range(len(chosen)), [name_of(labels, arm) for arm in chosen])
    axis.set(
        xlabel="Predicted probability (fold ensemble)",
        ylabel="",
        xlim=(low - margin, high + margin),
    )
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    axis.get_legend().remove()
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure
