"""Arterial lumens at the skull base: where carotids and basilar artery touch bone or run through it.

There the lumen is no bright tube: in the petrous bone it is darker than what surrounds it. What
remains is that it is of one density, that of the arteries, and 2 to 8 mm wide, while the blurred rim
of bone, which passes through that density too, is thin. Marrow of the same density is told by its
shape: not a tube.
"""

from __future__ import annotations

import numpy as np

from rlvo_lib.vessels.space import bounding_box, large, nearer
from rlvo_lib.vessels.vesselness import tubeness

LEAST_HU = 70.0  # contrast; a carotid behind a narrow neck artery can be so faint
MOST_SHARE, MOST_HU = 1.05, 30.0  # of the wide arteries' contrast, and over
CORE_MM = 1.0  # a lumen's core lies so far from its wall
WIDEST_MM = 4.2  # radius
CALCIUM_MM3 = 100.0
TUBE_SHARE = 0.135  # tubeness of the band itself, of at most 0.37
COMPACT = 0.25  # share of its box that a blob fills
LEAST_LENGTH_MM, LEAST_MM3 = 12.0, 15.0
LOCAL_MM = 1.5


def lumens(
    contrast: np.ndarray,
    base: np.ndarray,
    arterial: float,
    trusted: np.ndarray,
    bone: np.ndarray,
    size: np.ndarray,
) -> np.ndarray:
    """Mask of the lumens within `base`, bool (X, Y, Z).

    contrast : HU over brain, lightly smoothed; base : where to look; arterial : contrast of the wide
    arteries, HU; trusted : arteries found elsewhere; bone : mask; size : mm a voxel.
    """
    out = np.zeros(contrast.shape, dtype=bool)
    if not base.any():
        return out
    box = bounding_box(base)
    s, most = contrast[box], MOST_SHARE * arterial + MOST_HU
    dense = s > most
    calcium = dense & ~large(dense, CALCIUM_MM3 / np.prod(size))
    band = base[box] & (s > LEAST_HU) & (~dense | calcium)
    core = _cores(band, trusted[box], size)
    if not core.any():
        return out
    near = nearer(core, CORE_MM + 0.8, size)
    local = _local_mean(s, core, size)
    wall = float(np.median(s[bone[box]])) if bone[box].any() else 2.5 * arterial
    out[box] = base[box] & near & (s >= local / 2) & ((s <= (local + wall) / 2) | calcium)
    return out


def _cores(band: np.ndarray, trusted: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The middle of what in `band` is a wide tube, or goes on as a trusted artery."""
    from scipy import ndimage

    deep = ndimage.distance_transform_edt(band, sampling=size)
    core = deep > CORE_MM
    core[core] = tubeness(band.astype(np.float32), core, size, (1.2, 1.8)) > TUBE_SHARE
    labels, n = ndimage.label(core)
    keep = np.zeros(n + 1, dtype=bool)
    known = np.bincount(labels[trusted], minlength=n + 1) > 10
    for k, part in enumerate(ndimage.find_objects(labels), start=1):
        mine = labels[part] == k
        length = np.linalg.norm([(s.stop - s.start) * mm for s, mm in zip(part, size, strict=True)])
        tube = length > LEAST_LENGTH_MM and mine.mean() < COMPACT
        narrow = deep[part][mine].max() < WIDEST_MM
        keep[k] = narrow and (known[k] or tube) and mine.sum() * np.prod(size) > LEAST_MM3
    return keep[labels]


def _local_mean(values: np.ndarray, where: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Mean of `values` over the part of `where` around each voxel (Gaussian of `LOCAL_MM`)."""
    from scipy import ndimage

    sigma = LOCAL_MM / size
    weight = ndimage.gaussian_filter(where.astype(np.float32), sigma, truncate=3.0)
    total = ndimage.gaussian_filter(np.where(where, values, np.float32(0)), sigma, truncate=3.0)
    return total / np.maximum(weight, np.float32(1e-6))
