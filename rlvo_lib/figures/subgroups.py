"""Estimates within subgroups, each beside that of all patients."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

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

FADED = "#6B6B6B"
COLUMNS = (
    "arm", "subgroup", "text", "stratum", "n", "events", "auc", "low", "high", "p_interaction",
    "p_holm", "reason",
)  # fmt: skip


def subgroup_forest(
    table: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    arms: Sequence[str] = (),
    title: str = "AUC, out of fold [95 % CI]",
) -> Figure:
    """AUC with its interval in each stratum (`results.subgroups`), a panel an arm, at most four.

    The shaded band is the arm's interval among all patients. What could not be estimated says so where
    its estimate would stand; the heterogeneity test stands beside the subgroup's name.
    """
    table = need(table, *COLUMNS)
    chosen = pick(table["arm"], arms, labels)[:4]
    places, ticks = _places(table[table["arm"] == chosen[0]])
    figure = canvas(
        3.4 + 2.5 * len(chosen), 1.5 + 0.235 * len(ticks), 1, len(chosen), squeeze=False, sharey=True
    )  # fmt: skip
    for k, axis in enumerate(figure.axes):
        _draw_arm(axis, table[table["arm"] == chosen[k]], places, COLOURS[k])
        axis.set_title(textwrap.fill(name_of(labels, chosen[k]), 32), fontsize=9.5, color=INK)
    first = figure.axes[0]
    first.set_yticks([y for y, _ in ticks], [text for _, text in ticks], fontsize=8.5)
    first.set_ylim(min(y for y, _ in ticks) - 0.7, 0.7)
    headings = {y for (_, stratum), y in places.items() if not stratum}
    for (y, _), text in zip(ticks, first.get_yticklabels(), strict=True):
        if y in headings or y == 0:
            text.set_fontweight("bold")
    first.set_ylabel("Stratum (patients; with the outcome)", fontsize=9.5, color=INK)
    figure.supxlabel(title, fontsize=9.5)
    return figure


def _places(rows: pd.DataFrame) -> tuple[dict[tuple[str, str], float], list[tuple[float, str]]]:
    """Where each subgroup's heading (stratum "") and each stratum stands, and what is written there."""
    places: dict[tuple[str, str], float] = {}
    ticks: list[tuple[float, str]] = []
    y = 0.0
    for (subgroup, text), strata in rows.groupby(["subgroup", "text"], sort=False):
        alone = len(strata) == 1 and strata["stratum"].iloc[0] in (subgroup, "")
        if not alone:
            places[subgroup, ""] = y
            ticks.append((y, text))
            y -= 1
        for row in strata.itertuples():
            places[subgroup, row.stratum or text] = y
            name = text if alone else f"{row.stratum}"
            ticks.append((y, f"{name} ({row.n}; {row.events})" if row.n else name))
            y -= 1
        y -= 0.35
    return places, ticks


def _draw_arm(
    axis: Axes, rows: pd.DataFrame, places: Mapping[tuple[str, str], float], colour: str
) -> None:
    everyone = rows.iloc[0]
    axis.axvline(0.5, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1)
    axis.axvspan(everyone["low"], everyone["high"], color=colour, alpha=0.1, linewidth=0)
    y = np.array([places[r.subgroup, r.stratum or r.text] for r in rows.itertuples()])
    known = rows["auc"].notna().to_numpy()
    axis.errorbar(
        rows["auc"][known], y[known],
        xerr=np.abs([(rows["auc"] - rows["low"])[known], (rows["high"] - rows["auc"])[known]]),
        fmt="o", color=colour, markersize=4.5, capsize=2.5, linewidth=1.3,
    )  # fmt: skip
    for place, reason in zip(y[~known], rows["reason"][~known], strict=True):
        words = "not estimable" if reason.startswith("not estimable") else "not judged"
        axis.text(
            0.5, place, words, ha="center", va="center", fontsize=7.5, color=FADED,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
        )  # fmt: skip
    tested = rows.dropna(subset="p_interaction").drop_duplicates("subgroup")
    for row in tested.itertuples():
        axis.text(
            0.02, places[row.subgroup, ""],
            f"heterogeneity: p {row.p_interaction:.2f} (Holm {row.p_holm:.2f})",
            transform=axis.get_yaxis_transform(), ha="left", va="center", fontsize=7.5, color=FADED,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color=GRID, linewidth=0.6)
