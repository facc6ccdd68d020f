"""SHAP values of predictors, saliency over the scan, and slices for quality control.

Volumes are ``(X, Y, Z)`` with a 4×4 affine from voxel indices to world mm (RAS+). Axial slices are
shown as radiologists read them: the patient's right on the left of the picture, anterior up. Which
side is which comes from the affine, never from the order of the voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    INK,
    NO_SKILL,
    Figure,
    canvas,
    name_of,
    need,
    titled,
)


def shap_bars(
    importance: pd.DataFrame, *, labels: Mapping[str, str] | None = None, top: int = 20
) -> Figure:
    """Mean absolute SHAP value of each variable with its interval (`results.shap_importance`)."""
    frame = need(importance, "variable", "mean_abs_shap", "low", "high").head(top)[::-1]
    figure = canvas(6.6, 1.0 + 0.27 * len(frame))
    axis = figure.axes[0]
    y = np.arange(len(frame))
    spread = [frame["mean_abs_shap"] - frame["low"], frame["high"] - frame["mean_abs_shap"]]
    axis.barh(y, frame["mean_abs_shap"], color=COLOURS[5], height=0.65)
    axis.errorbar(frame["mean_abs_shap"], y, xerr=np.abs(spread), fmt="none", color=INK, capsize=2)
    axis.set_yticks(y, [name_of(labels, v) for v in frame["variable"]], fontsize=8.5)
    axis.set(xlabel="Mean |SHAP value| [95 % CI over patients]", xlim=(0, None))
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    return figure


def shap_beeswarm(
    shap: pd.DataFrame,
    *,
    order: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    top: int = 20,
    unit: str = "log-odds of the outcome",
) -> Figure:
    """One point a patient and variable; colour is the value, from the variable's lowest to highest.

    Columns variable, value, shap. Values that are not numbers are grey. ``order`` lists the
    variables from the top (default: as they come).
    """
    import seaborn as sns
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    frame = need(shap, "variable", "value", "shap")
    chosen = [v for v in (order or frame["variable"].unique()) if v in set(frame["variable"])][:top]
    frame = frame[frame["variable"].isin(chosen)].copy()
    value = pd.to_numeric(frame["value"], errors="coerce")
    low = value.groupby(frame["variable"]).transform("min")
    spread = value.groupby(frame["variable"]).transform("max") - low
    frame["colour"] = (value - low) / spread.where(spread > 0)
    figure = canvas(7.0, 1.2 + 0.32 * len(chosen))
    axis = figure.axes[0]
    axis.axvline(0, color=NO_SKILL, linewidth=1)
    style = {"order": chosen, "size": 4, "warn_thresh": 1, "ax": axis, "x": "shap", "y": "variable"}
    known = frame["colour"].notna()
    if known.any():
        sns.swarmplot(
            data=frame[known],
            hue="colour",
            palette="cividis",
            hue_norm=(0, 1),
            legend=False,
            **style,
        )
    if (~known).any():
        sns.swarmplot(data=frame[~known], color="#999999", **style)
    axis.set_yticks(range(len(chosen)), [name_of(labels, v) for v in chosen], fontsize=8.5)
    axis.set(xlabel=f"SHAP value ({unit})", ylabel="")
    axis.locator_params(axis="x", nbins=6)
    axis.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)
    axis.xaxis.get_offset_text().set(x=1.0, horizontalalignment="left")  # beside the label
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    bar = figure.colorbar(
        ScalarMappable(cmap=colormaps["cividis"]), ax=axis, ticks=[0, 1], pad=0.02, shrink=0.7
    )
    bar.ax.set_yticklabels(["low", "high"], fontsize=8.5)
    bar.set_label("Value of the variable", fontsize=8.5)
    bar.outline.set_visible(False)
    return figure


def saliency_overlay(
    background: np.ndarray,
    saliency: np.ndarray,
    affine: np.ndarray,
    *,
    slices: Sequence[int] = (),
    window: tuple[float, float] = (0.0, 80.0),
    unit: str = "HU",
    saliency_unit: str = "change of the log-odds",
    title: str = "",
    threshold: float = 0.15,
) -> Figure:
    """A saliency map over axial slices of a scan.

    Parameters
    ----------
    background, saliency : ``(X, Y, Z)`` on the same grid. A map with negative values is shown in two
        colours around 0 (orange raises the risk, purple lowers it), another from dark to bright.
    affine : ``(4, 4)`` voxel indices to world mm (RAS+).
    slices : indices along the third axis; empty: the four with the most saliency, in order.
    window : of the background, in ``unit``.
    threshold : saliency below this share of the largest (in size) is not drawn.
    """
    background, saliency = np.asarray(background, float), np.asarray(saliency, float)
    if background.shape != saliency.shape or background.ndim != 3:
        raise InputError(
            f"saliency figure: shapes {background.shape} and {saliency.shape}; allowed: the same (X, Y, Z)"
        )
    size = np.abs(saliency)
    peak = float(size.max()) or 1.0
    signed = bool(saliency.min() < 0)
    chosen = list(slices) or sorted(np.argsort(-size.sum(axis=(0, 1)), kind="stable")[:4].tolist())
    colours = {"cmap": "PuOr_r", "vmin": -peak} if signed else {"cmap": "inferno", "vmin": 0.0}
    figure = canvas(2.5 * len(chosen) + 1.2, 3.7, 1, len(chosen), squeeze=False)
    for axis, k in zip(figure.axes, chosen, strict=True):
        grey = show_slice(
            axis, background[:, :, k], affine, cmap="gray", vmin=window[0], vmax=window[1]
        )
        shown = np.ma.masked_where(size[:, :, k] < threshold * peak, saliency[:, :, k])
        colour = show_slice(axis, shown, affine, vmax=peak, alpha=0.6, **colours)
        mark_sides(axis)
        axis.set_title(
            f"z = {affine[2, :3] @ [0, 0, k] + affine[2, 3]:.0f} mm", fontsize=8.5, color=INK
        )
    panels = figure.axes[: len(chosen)]
    for image, label, place in (
        (grey, f"Scan ({unit})", "left"),
        (colour, f"Saliency ({saliency_unit})", "right"),
    ):
        bar = figure.colorbar(image, ax=panels, location=place, shrink=0.75, pad=0.02)
        bar.set_label(label, fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    if title:
        titled(figure, title)
    return figure


def qc_mosaic(
    slices: Sequence[np.ndarray],
    *,
    titles: Sequence[str] = (),
    affine: np.ndarray | None = None,
    columns: int = 6,
    window: tuple[float, float] = (0.0, 1.0),
    unit: str = "",
) -> Figure:
    """Axial slices ``(X, Y)`` side by side, one a patient or channel, in one window.

    ``affine`` gives sides and voxel sizes. Without it (slices of different patients, perhaps flipped)
    voxels are taken as square and no side is named.
    """
    if not len(slices):
        raise InputError("mosaic: no slices to show")
    grid = np.eye(4) if affine is None else affine
    columns = min(columns, len(slices))
    rows = -(-len(slices) // columns)
    figure = canvas(1.55 * columns + 0.7, 1.85 * rows + 0.4, rows, columns, squeeze=False)
    image = None
    for k, axis in enumerate(figure.axes):
        if k >= len(slices):
            axis.set_visible(False)
            continue
        image = show_slice(
            axis, np.asarray(slices[k]), grid, cmap="gray", vmin=window[0], vmax=window[1]
        )
        if affine is not None:
            mark_sides(axis)
        if k < len(titles):
            axis.set_title(titles[k], fontsize=7.5, color=INK)
    bar = figure.colorbar(image, ax=figure.axes[: rows * columns], shrink=0.6, pad=0.01)
    bar.set_label(unit, fontsize=8.5)
    bar.outline.set_visible(False)
    return figure


def show_slice(axis: Axes, values: np.ndarray, affine: np.ndarray, **options):
    """Draw an axial slice ``(X, Y)`` in world mm, right of the patient on the left, anterior up.

    The affine's in-plane axes may be flipped; a rotation is shown along the nearest world axis.
    """
    sides = []
    for k in (0, 1):
        step = float(np.linalg.norm(affine[:3, k])) * (-1 if affine[k, k] < 0 else 1)
        if np.abs(affine[:3, k]).argmax() != k:
            raise InputError("slice: the first two voxel axes are not left-right and back-front")
        start = float(affine[k, 3]) - step / 2
        sides.append((start, start + step * values.shape[k]))
    image = axis.imshow(
        values.T, origin="lower", extent=(*sides[0], *sides[1]), interpolation="nearest", **options
    )
    # world x grows to the patient's right; it is drawn to the left
    axis.set(xlim=(max(sides[0]), min(sides[0])), ylim=(min(sides[1]), max(sides[1])))
    axis.set(aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    return image


def mark_sides(axis: Axes) -> None:
    """Letters R and L at the edges of a slice drawn by `show_slice`."""
    right, left = axis.get_xlim()
    middle = sum(axis.get_ylim()) / 2
    inset = 0.03 * abs(right - left)
    for letter, x, align in (("R", right - inset, "left"), ("L", left + inset, "right")):
        axis.text(
            x, middle, letter, ha=align, va="center", fontsize=9, fontweight="bold", color="#FFD24A"
        )
