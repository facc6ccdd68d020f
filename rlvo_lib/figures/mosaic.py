"""Slices of many patients or channels side by side, for a look at the images themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlvo_lib.config import InputError
from rlvo_lib.figures.overlay import mark_sides, show_slice
from rlvo_lib.figures.style import INK, Figure, canvas


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
