"""Saliency over the scan, and slices for quality control.

Volumes are ``(X, Y, Z)`` with a 4×4 affine from voxel indices to world mm (RAS+). Axial slices are
shown as radiologists read them: the patient's right on the left of the picture, anterior up. Which
side is which comes from the affine, never from the order of the voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import (
    INK,
    Figure,
    canvas,
    titled,
)


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
