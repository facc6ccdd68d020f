"""Does an explanation hold still: the same image moved by a voxel, explained and moved back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: One voxel along one axis.
MOVES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


def moved(volume: Tensor, move: tuple[int, ...]) -> Tensor:
    """Volumes (..., D, H, W) moved by whole voxels; what comes in at the edge repeats it.

    >>> moved(torch.arange(3.0).reshape(1, 1, 3), (0, 0, 1)).flatten().tolist()
    [0.0, 0.0, 1.0]
    """
    for axis, step in zip((-3, -2, -1), move, strict=True):
        n = volume.shape[axis]
        source = (torch.arange(n, device=volume.device) - step).clamp(0, n - 1)
        volume = volume.index_select(axis, source)
    return volume


def drawn_moves(participants: list[str], seed: int) -> list[tuple[int, ...]]:
    """A move of one voxel for each patient, drawn with the run's seed: the six directions in turn."""
    start = np.random.default_rng(seed).permutation(len(MOVES))
    return [MOVES[start[k % len(MOVES)]] for k in range(len(participants))]


def unaffected(where: np.ndarray, move: tuple[int, ...]) -> np.ndarray:
    """A mask (D, H, W) without the voxels at the grid's edge that a move, and its way back, repeat."""
    kept = where.copy()
    for axis, step in enumerate(move):
        if step:
            edge = [slice(None)] * 3
            edge[axis] = slice(-2, None) if step > 0 else slice(0, 2)
            kept[tuple(edge)] = False
    return kept
