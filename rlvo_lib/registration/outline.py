"""A hint that a head moved while it was scanned: its outline steps from one slice to the next."""

from __future__ import annotations

import numpy as np

from rlvo_lib.images import canonical, voxel_sizes
from rlvo_lib.registration.blocks import block_means, block_of
from rlvo_lib.registration.masks import MASK_MM, coarse_head

CRANIUM_MM = 90.0  # only above the face: below it outlines change by nature
LEAST_AREA_MM2 = 6000.0  # and not at the very top, where they shrink fast
MOTION_MM = 3.5
"""A hint is given from here on: the one real head at hand, still, has 3.0 after its uneven slices were
straightened, simulated ones up to 2.2; a jump of 5 mm has 4.1 or more."""


def motion(array: np.ndarray, affine: np.ndarray) -> float:
    """The largest step of the head's outline between neighbouring slices of a CT in HU, in mm.

    The middle of the outline, across and front to back, is followed along the slices; a step is how
    far it jumps over what its neighbours on both sides lead one to expect (median of the second
    differences' parts). A head that lies askew or is tilted drifts evenly and counts as still. 0.0
    where fewer than 5 slices can be judged. A hint only: motion within a slice (double contours,
    streaks), and a turn about the head's own long axis, are not seen.
    """
    array, affine = canonical(np.asarray(array), np.asarray(affine, dtype=float))
    block = np.minimum(block_of(affine, MASK_MM), array.shape)
    block[2] = 1
    blocks = block_means(array, block, -1000.0, 1000.0)
    size = voxel_sizes(affine) * block
    grey = np.clip((blocks + 1000.0) / 1000.0, 0.0, 1.0) * coarse_head(blocks, size)
    area = grey.sum(axis=(0, 1)) * size[0] * size[1]
    judged = np.flatnonzero(area > LEAST_AREA_MM2)
    if not len(judged):
        return 0.0
    judged = judged[judged > judged[-1] - CRANIUM_MM / size[2]]
    if len(judged) < 5 or np.any(np.diff(judged) != 1):
        return 0.0
    middles = np.stack([_middle(grey[..., judged].sum(axis=1 - k), size[k]) for k in (0, 1)])
    steps = np.diff(middles, axis=1)
    expected = np.stack([_running_median(row, 5) for row in steps])
    return float(np.linalg.norm(steps - expected, axis=0).max())


def _middle(profile: np.ndarray, size: float) -> np.ndarray:
    """The centre of mass of each slice's profile (positions, slices), in mm."""
    places = size * np.arange(len(profile))
    return (places[:, None] * profile).sum(axis=0) / profile.sum(axis=0)


def _running_median(row: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(row, width // 2, mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
