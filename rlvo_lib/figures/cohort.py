"""Patient flow, missing values, how the outcome came about, and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
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


def flow_diagram(flow: pd.DataFrame) -> Figure:
    """Boxes from the first to the last step, with what each rule excluded (`cohort.flow`)."""
    from matplotlib.patches import FancyBboxPatch

    flow = need(flow, "step", "text", "n", "excluded").reset_index(drop=True)
    figure = canvas(7.2, 0.4 + 0.85 * len(flow))
    axis = figure.axes[0]
    axis.set_axis_off()
    axis.set(xlim=(0, 10), ylim=(-len(flow) + 0.5, 0.5))
    for k, row in flow.iterrows():
        last = k in (0, len(flow) - 1)
        colour = COLOURS[0] if last else NO_SKILL
        box = FancyBboxPatch(
            (0.3, -k - 0.3), 5.4, 0.6, boxstyle="round,pad=0.02", facecolor="#F4F8FB" if last else "white",
            edgecolor=colour,
        )  # fmt: skip
        axis.add_patch(box)
        text = row["text"] if last else f"{row['text']}"
        axis.text(
            3.0, -k, f"{text}\nn = {row['n']}", ha="center", va="center", fontsize=9, color=INK
        )
        if k:
            axis.annotate(
                "",
                (3.0, -k + 0.33),
                (3.0, -k + 0.67),
                arrowprops={"arrowstyle": "->", "color": INK},
            )
        if row["excluded"]:
            axis.annotate(
                f"excluded: {row['excluded']}", (5.75, -k + 0.5), (6.4, -k + 0.5), va="center", fontsize=9,
                color=COLOURS[1], arrowprops={"arrowstyle": "<-", "color": COLOURS[1]},
            )  # fmt: skip
    return figure


def missingness_bars(
    missingness: pd.DataFrame, *, labels: Mapping[str, str] | None = None
) -> Figure:
    """Share of patients without a value, variables with any missing only (`cohort.missingness`)."""
    frame = need(missingness, "variable", "share")
    frame = frame[frame["share"] > 0].sort_values("share")
    figure = canvas(7.0, 1.2 + 0.24 * max(len(frame), 1))
    axis = figure.axes[0]
    axis.barh(np.arange(len(frame)), 100 * frame["share"], color=COLOURS[0], height=0.7)
    axis.set_yticks(
        np.arange(len(frame)), [name_of(labels, v) for v in frame["variable"]], fontsize=8
    )
    axis.set(xlabel="Patients without a value (%)", xlim=(0, 100))
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    if frame.empty:
        axis.text(0.5, 0.5, "no value is missing", transform=axis.transAxes, ha="center")
    return figure


def label_overlap_bars(overlap: pd.DataFrame, *, texts: Mapping[str, str] | None = None) -> Figure:
    """How many patients meet each combination of the outcome's criteria (`cohort.label_overlap`).

    Combinations are columns of a dot matrix; patients who meet none are left out.
    """
    criteria = [c for c in need(overlap, "n").columns if c not in ("n", "data", "share")]
    frame = overlap[overlap[criteria].astype(int).any(axis=1)].reset_index(drop=True)
    if frame.empty:
        raise InputError("figure: no patient meets any criterion of the outcome")
    figure = canvas(
        2.6 + 0.75 * len(frame), 3.2 + 0.25 * len(criteria), 2, 1,
        gridspec_kw={"height_ratios": [3, 0.5 * len(criteria)]}, sharex=True,
    )  # fmt: skip
    bars, dots = figure.axes
    drawn = bars.bar(frame.index, frame["n"], color=COLOURS[0], width=0.6)
    bars.bar_label(drawn, fontsize=9, color=INK)
    bars.set(ylabel="Patients")
    bars.tick_params(axis="x", length=0, labelbottom=False)
    for row, criterion in enumerate(criteria):
        met = frame[criterion].astype(int) == 1
        dots.scatter(frame.index, [row] * len(frame), s=70, color=GRID)
        dots.scatter(frame.index[met], [row] * int(met.sum()), s=70, color=INK)
    dots.set_yticks(range(len(criteria)), [name_of(texts, c) for c in criteria])
    dots.set(ylim=(len(criteria) - 0.5, -0.5), xlim=(-0.6, len(frame) - 0.4))
    dots.spines[["left", "bottom"]].set_visible(False)
    dots.tick_params(axis="both", length=0, labelbottom=False)
    return figure


def training_curves(
    history: pd.DataFrame, *, labels: Mapping[str, str] | None = None, arms: Sequence[str] = ()
) -> Figure:
    """Loss by epoch of each arm and fold (columns arm, fold, epoch, part, loss)."""
    frame = need(history, "arm", "fold", "epoch", "part", "loss")
    chosen = pick(frame["arm"], arms, labels)
    columns = min(3, len(chosen))
    count = -(-len(chosen) // columns)
    figure = canvas(
        3.1 * columns + 0.4, 2.3 * count + 0.9, count, columns, squeeze=False, sharex=True
    )
    parts = list(dict.fromkeys(frame["part"]))
    for k, axis in enumerate(figure.axes):
        if k >= len(chosen):
            axis.set_visible(False)
            continue
        rows = frame[frame["arm"] == chosen[k]]
        model = [c for c in ("seed", "fold") if c in rows]
        for number, part in enumerate(parts):
            curves = rows[rows["part"] == part].groupby(model)
            for first, (_, curve) in enumerate(curves):
                axis.plot(
                    curve["epoch"], curve["loss"], color=COLOURS[number], linestyle=STYLES[number % 4],
                    linewidth=1.1, alpha=0.8, label=part if first == 0 and k == 0 else None,
                )  # fmt: skip
        axis.set_title(name_of(labels, chosen[k]), fontsize=9.5, color=INK)
        axis.grid(color=GRID, linewidth=0.6)
        axis.tick_params(labelbottom=k + columns >= len(chosen))  # nothing is drawn below
    figure.supxlabel("Epoch", fontsize=9.5)
    figure.supylabel("Loss", fontsize=9.5)
    figure.legend(loc="outside upper right", ncols=len(parts), frameon=False, fontsize=8.5)
    return figure
