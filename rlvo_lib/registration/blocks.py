"""Coarse copies of a scan, so that pose and masks cost little at clinical resolution."""

from __future__ import annotations

import numpy as np

from rlvo_lib.images import voxel_sizes

BLOCK_MM = 2.6
"""Blocks are as many whole voxels as fit into this; a voxel that is larger stays itself."""


def block_of(affine: np.ndarray, mm: float = BLOCK_MM) -> np.ndarray:
    """How many voxels along each axis make a block of at most `mm`; (3,) int, at least 1.

    >>> block_of(np.diag([0.45, 0.45, 5.0, 1.0])).tolist()
    [5, 5, 1]
    """
    return np.maximum(np.floor(mm / voxel_sizes(affine) + 1e-6), 1).astype(int)


def block_affine(block: np.ndarray) -> np.ndarray:
    """4x4, block indices to voxel indices: the middle of each block."""
    affine = np.diag([*np.asarray(block, dtype=float), 1.0])
    affine[:3, 3] = (np.asarray(block) - 1) / 2
    return affine


def block_means(
    array: np.ndarray, block: np.ndarray, low: float = -np.inf, high: float = np.inf
) -> np.ndarray:
    """Means over blocks of voxels (X, Y, Z), clipped to `low`..`high` before; float32.

    Voxels beyond the last whole block are left out. Works slab by slab: the scan is not copied.
    """
    n = np.maximum(np.array(array.shape) // block, 1)
    block = np.minimum(block, array.shape)
    out = np.empty(n, dtype=np.float32)
    bx, by, bz = (int(b) for b in block)
    for i in range(n[0]):
        slab = array[i * bx : (i + 1) * bx, : n[1] * by, : n[2] * bz]
        slab = np.clip(slab, low, high, dtype=np.float32) if np.isfinite(low) else slab
        slab = slab.mean(axis=0, dtype=np.float32) if bx > 1 else slab[0]
        slab = slab.reshape(n[1], by, n[2], bz)
        slab = slab.mean(axis=1, dtype=np.float32) if by > 1 else slab[:, 0]
        out[i] = slab.mean(axis=2, dtype=np.float32) if bz > 1 else slab[..., 0]
    return out


def coarse(
    array: np.ndarray,
    affine: np.ndarray,
    mm: float = BLOCK_MM,
    low: float = -1000.0,
    high: float = 3000.0,
) -> tuple[np.ndarray, np.ndarray]:
    """A scan as means over blocks of at most `mm`, clipped to `low`..`high`, and their affine."""
    block = np.minimum(block_of(affine, mm), array.shape)
    return block_means(array, block, low, high), np.asarray(affine, float) @ block_affine(block)


def enlarged(mask: np.ndarray, block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of blocks on the voxels they were made from; the outermost blocks reach to the edge."""
    for axis, (b, n) in enumerate(zip(block, shape, strict=True)):
        index = np.minimum(np.arange(n) // int(b), mask.shape[axis] - 1)
        mask = np.take(mask, index, axis=axis)
    return mask
