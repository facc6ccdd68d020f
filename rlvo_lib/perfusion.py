"""CT perfusion parameters from maps: volumes in mL and ratios, as the field's software reports them.

Maps are (X, Y, Z) arrays on one grid: CBF in mL/100 g/min, CBV in mL/100 g, Tmax in s, zero outside
the brain. "Relative" is: divided by the mean over the brain of the healthy hemisphere. Each
threshold stands in the name; a ratio that does not apply (nothing to divide by) is NaN. The
numbers serve quality control (do maps and table agree?), they are not model inputs.
"""

from __future__ import annotations

import math

import numpy as np

CORE_RCBF = 0.30
"""Core: relative CBF below this (Cereda 2016; RAPID's default)."""

CORE_MIN_TMAX_S = 4.0
"""Core counts only where flow is also late, so that ventricles and old scars are left out."""

ISLAND_ML = 1.0
"""Islands of late flow smaller than this are taken for artefacts and not counted."""


def brain_mask(cbf: np.ndarray, tmax: np.ndarray) -> np.ndarray:
    """The brain in perfusion maps: the largest connected region with any flow, holes filled."""
    from scipy import ndimage

    tissue = (cbf > 0) | (tmax > 0)
    labels, n = ndimage.label(tissue)
    if n == 0:
        return tissue
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return np.stack(
        [ndimage.binary_fill_holes(largest[..., k]) for k in range(largest.shape[2])], axis=2
    )


def right_of(shape: tuple[int, ...], affine: np.ndarray, midline: np.ndarray) -> np.ndarray:
    """Which voxels lie on the patient's right of the mid-sagittal plane; bool of `shape`.

    `midline` is the plane (a, b, c, d) in world mm (RAS+), a*x + b*y + c*z > d being the right.
    """
    a = np.asarray(midline[:3], dtype=float) @ np.asarray(affine)[:3, :3]
    d = midline[3] - float(np.asarray(midline[:3]) @ np.asarray(affine)[:3, 3])
    i, j, k = (np.arange(n) * step for n, step in zip(shape, a, strict=True))
    return i[:, None, None] + j[:, None] + k > d


def parameters(
    cbf: np.ndarray,
    cbv: np.ndarray,
    tmax: np.ndarray,
    affine: np.ndarray,
    midline: np.ndarray,
    side: str | None = None,
) -> dict[str, float | str]:
    """CTP parameters of one patient.

    Parameters
    ----------
    cbf, cbv, tmax : (X, Y, Z) arrays on one grid, in mL/100 g/min, mL/100 g and s
    affine : 4x4, voxel indices to world mm (RAS+)
    midline : (a, b, c, d), the mid-sagittal plane in world mm, see `right_of`
    side : "left" or "right", the affected hemisphere; None: the one with more Tmax > 6 s

    Returns
    -------
    dict
        core_ml (relative CBF < 30 % and Tmax > 4 s, affected side), tmax4_ml, tmax6_ml, tmax10_ml
        (both sides, islands under 1 mL dropped), mismatch_ratio (tmax6 / core), hir
        (tmax10 / tmax6), cbv_index (mean relative CBV where Tmax > 6 s), tmax_side ("left",
        "right", or "none").
    """
    brain = brain_mask(cbf, tmax)
    right = right_of(brain.shape, affine, midline)
    ml = abs(float(np.linalg.det(np.asarray(affine)[:3, :3]))) / 1000.0
    late = {s: _without_islands(brain & (tmax > s), ISLAND_ML / ml) for s in (4, 6, 10)}
    on_right = int((late[6] & right).sum())
    on_left = int(late[6].sum()) - on_right
    tmax_side = "none" if on_left == on_right == 0 else ("right" if on_right > on_left else "left")
    affected = right if (side or tmax_side) == "right" else ~right
    healthy = brain & ~affected & (cbf > 0)
    mean_cbf = float(cbf[healthy].mean()) if healthy.any() else math.nan
    mean_cbv = float(cbv[healthy].mean()) if healthy.any() else math.nan
    core = brain & affected & (cbf < CORE_RCBF * mean_cbf) & (tmax > CORE_MIN_TMAX_S)
    volumes = {s: float(mask.sum()) * ml for s, mask in late.items()}
    core_ml = float(core.sum()) * ml
    return {
        "core_ml": core_ml,
        "tmax4_ml": volumes[4],
        "tmax6_ml": volumes[6],
        "tmax10_ml": volumes[10],
        "mismatch_ratio": _ratio(volumes[6], core_ml),
        "hir": _ratio(volumes[10], volumes[6]),
        "cbv_index": _ratio(float(cbv[late[6]].mean()) if late[6].any() else math.nan, mean_cbv),
        "tmax_side": tmax_side,
    }


def _ratio(above: float, below: float) -> float:
    """above / below, NaN where there is nothing to divide by."""
    return above / below if below > 0 else math.nan


def _without_islands(mask: np.ndarray, min_voxels: float) -> np.ndarray:
    """`mask` without connected components (faces and edges) smaller than `min_voxels`."""
    from scipy import ndimage

    labels, n = ndimage.label(mask, structure=ndimage.generate_binary_structure(3, 2))
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    keep = sizes >= min_voxels
    keep[0] = False
    return keep[labels]
