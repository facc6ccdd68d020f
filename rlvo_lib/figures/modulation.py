"""What clinical variables switch on or off in the features of an image: α and β of FiLM and DAFT."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import COLOURS, GRID, INK, Figure, canvas, name_of, need

FLIPPED = 0.25  # share of patients whose α changes sign, from which a cell is marked
MOST = 2.0  # SDs at which the colour is full
LETTERS = {"alpha": "α", "beta": "β"}


def modulation_heatmap(
    channels: pd.DataFrame,
    *,
    seed: int,
    fold: int,
    labels: Mapping[str, str] | None = None,
    top: int = 16,
    variables: int = 16,
) -> Figure:
    """Change of α and β of each channel when one clinical variable moves, in one fold's model.

    Parameters
    ----------
    channels : `results.modulation_channels` of one arm. Channels stand from the one the logit hangs on
        most, the ``top`` of them; the ``variables`` rows that move them most are shown.

    A cross marks a cell where α changes its sign in a quarter of the patients or more: the feature turns
    from speaking for to speaking against, or the reverse. Grey: the same in all patients.
    """
    frame = need(channels, "seed", "fold", "channel", "variable", "change", "rank", "flips",
                 "alpha_sds", "beta_sds", "reversed")  # fmt: skip
    own = frame[(frame["seed"] == seed) & (frame["fold"] == fold) & (frame["rank"] <= top)]
    if own.empty:
        raise InputError(f"figure: no channels of seed {seed}, fold {fold}")
    order = own.drop_duplicates("channel").sort_values("rank")
    size = own[["alpha_sds", "beta_sds"]].abs().max(axis=1).fillna(0.0)
    rows = size.groupby([own["variable"], own["change"]], sort=False).mean()
    rows = rows.sort_values(ascending=False, kind="stable").index[:variables]
    figure = canvas(10.2, 2.0 + 0.27 * len(rows), 1, 2, sharey=True)
    for axis, letter in zip(figure.axes, LETTERS, strict=True):
        image = _draw_cells(axis, own, rows, list(order["channel"]), letter)
    names = [f"{name_of(labels, v)}: {c}" for v, c in rows]
    names = [textwrap.shorten(name, 62, placeholder=" …") for name in names]
    figure.axes[0].set_yticks(range(len(rows)), names, fontsize=7.5)
    share = (order["reversed"] > 0.5).sum()
    figure.supxlabel(
        f"Channel, by how much the log-odds hang on its modulation. α is below 0 in most patients in {share} "
        f"of these {len(order)}. ×: α changes sign in {FLIPPED * 100:.0f} % of patients or more.",
        fontsize=8,
    )
    bar = figure.colorbar(image, ax=figure.axes[:2], pad=0.01, shrink=0.8, extend="both")
    bar.set_label("Change, SDs over patients", fontsize=8.5)
    bar.outline.set_visible(False)
    return figure


def _draw_cells(axis: Axes, own: pd.DataFrame, rows: pd.Index, columns: list[int], letter: str):
    wide = own.pivot(index=["variable", "change"], columns="channel", values=f"{letter}_sds")
    cells = np.ma.masked_invalid(wide.loc[list(rows), columns].to_numpy(float))
    axis.set_facecolor(GRID)
    image = axis.imshow(cells, cmap="PuOr_r", vmin=-MOST, vmax=MOST, aspect="auto")
    if letter == "alpha":
        flips = own.pivot(index=["variable", "change"], columns="channel", values="flips")
        y, x = np.nonzero(flips.loc[list(rows), columns].to_numpy(float) >= FLIPPED)
        axis.plot(x, y, linestyle="none", marker="x", markersize=4, color=INK)
    axis.set_xticks(range(len(columns)), [str(c) for c in columns], fontsize=7)
    axis.set_title(
        f"{LETTERS[letter]} ({'scale' if letter == 'alpha' else 'shift'})", fontsize=9.5, color=INK
    )
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return image


def modulation_bars(
    summary: pd.DataFrame, *, labels: Mapping[str, str] | None = None, top: int = 16
) -> Figure:
    """How much each clinical variable moves α and β (`results.modulation_summary` of one arm).

    Bars: mean over the fold models; whiskers: from the lowest to the highest of them.
    """
    frame = need(summary, "variable", "change", "measure", "value", "lowest", "highest", "models")
    frame = frame[frame["measure"].isin(LETTERS) & frame["value"].notna()]
    if frame.empty:
        raise InputError("figure: neither α nor β differs between patients")
    keys = list(dict.fromkeys(zip(frame["variable"], frame["change"], strict=True)))[:top]
    figure = canvas(7.4, 1.4 + 0.36 * len(keys))
    axis = figure.axes[0]
    for k, (measure, letter) in enumerate(LETTERS.items()):
        own = frame[frame["measure"] == measure].set_index(["variable", "change"])
        own = own.loc[[key for key in keys if key in own.index]]
        y = np.array([keys.index(key) for key in own.index]) + (k - 0.5) * 0.38
        spread = np.abs([own["value"] - own["lowest"], own["highest"] - own["value"]])
        axis.barh(y, own["value"], height=0.34, color=COLOURS[k], label=letter)
        axis.errorbar(own["value"], y, xerr=spread, fmt="none", color=INK, capsize=2)
    names = [textwrap.shorten(f"{name_of(labels, v)}: {c}", 70, placeholder=" …") for v, c in keys]
    axis.set_yticks(range(len(keys)), names, fontsize=8)
    axis.set_ylim(len(keys) - 0.4, -0.6)
    models = int(frame["models"].max())
    axis.set_xlabel(
        f"Mean |change|, SDs over patients;\nlowest to highest of {models} models", fontsize=9
    )
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    return figure
