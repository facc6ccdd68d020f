"""Kernel ridge regression on voxels: what images give without a convolutional network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from rlvo_lib.baselines.logistic import Recalibration, recalibration
from rlvo_lib.baselines.tuning import FOLDS, as_outcome, inner_folds, two_columns
from rlvo_lib.config import InputError

#: Ridge penalties of the voxel kernel, as multiples of the kernel's mean eigenvalue.
GRID_RIDGE = tuple(10.0 ** np.arange(-2, 4.5, 0.5))
MAX_VOXELS = 8192  # of a channel; above, blocks of voxels are averaged


@dataclass(frozen=True)
class VoxelRidge:
    """Linear kernel ridge on voxels: one weight a block of voxels, then a logistic recalibration."""

    mean: np.ndarray  # (F,) of each block of voxels, over training patients
    sd: np.ndarray  # (C,) of each channel about these means
    weight: np.ndarray  # (F,), of the scaled blocks
    block: int  # edge of a block in voxels
    penalty: float
    calibration: Recalibration

    def logit(self, image: np.ndarray) -> np.ndarray:
        """The logits (N,) of images (N, C, D, H, W)."""
        blocks = _scaled(_blocks(image, self.block), self.mean, self.sd)
        return self.calibration.apply((blocks @ self.weight).astype(float))

    def predict_proba(self, image: np.ndarray) -> np.ndarray:
        """The probabilities (N, 2)."""
        return two_columns(self.logit(image))


def fit_ridge_voxels(
    image: np.ndarray, y: np.ndarray, *, seed: int, groups: np.ndarray | None = None
) -> VoxelRidge:
    """Kernel ridge regression of the outcome on voxels: the control without a convolutional network.

    Blocks of voxels are averaged where a channel has more than `MAX_VOXELS`; each block is centred,
    each channel scaled to unit variance. The penalty has the least squared error of patients left
    out, which needs one eigendecomposition: with the smoother S, the residuals r = y - S y and a set g
    of patients left out together, their errors are (I - S_gg)^-1 r_g (Golub, Heath and Wahba,
    Technometrics 1979, for one patient). The sets are stratified folds and not single patients: the
    mean of all others is higher for a patient without the event than with it, so scores that leave out
    one patient rank backwards where nothing can be learnt. The scores of patients left out are
    recalibrated to probabilities; a slope below 0, which is noise, becomes nearly 0.

    Parameters
    ----------
    image : (N, C, D, H, W), any float; NaN (an absent channel) counts as the training mean.

    Raises
    ------
    InputError
        If the image has another shape, or the outcome one class only or too few of one.
    """
    y = as_outcome(y, len(image))
    fold = inner_folds(y, seed=seed, groups=groups, folds=2 * FOLDS)
    if not len(fold):
        raise InputError(
            f"{int(y.sum())} events among {len(y)} patients; the voxel ridge needs two groups of "
            "patients with an event and two without"
        )
    block = _block_size(np.shape(image))
    blocks = _blocks(image, block)
    mean, sd = _centre(blocks, np.shape(image)[1])
    blocks = _scaled(blocks, mean, sd)
    kernel = (blocks @ blocks.T).astype(float) / blocks.shape[1]
    values, vectors = np.linalg.eigh(kernel)
    values = np.clip(values, 0.0, None)
    scale = values.mean() or 1.0
    held = [_left_out(values, vectors, y, scale * g, fold) for g in GRID_RIDGE]
    best = int(np.argmin([((y - scores) ** 2).sum() for scores in held]))
    penalty = float(scale * GRID_RIDGE[best])
    dual = vectors @ ((vectors.T @ (y - y.mean())) / (values + penalty))
    weight = (blocks.T @ dual.astype(np.float32)) / blocks.shape[1]
    calibration = _rising(recalibration(y, held[best] - y.mean()), held[best], y)
    return VoxelRidge(mean, sd, weight, block, penalty, calibration)


def _left_out(values, vectors, y, penalty: float, fold: np.ndarray) -> np.ndarray:
    """Scores (N,) of patients by ridge with a free intercept, fitted without their fold.

    The kernel is centred, so the intercept's part of the smoother is 1/N.
    """
    smoother = (vectors * (values / (values + penalty))) @ vectors.T + 1 / len(y)
    residual = y - smoother @ y
    scores = np.empty(len(y))
    for k in range(fold.max() + 1):
        out = np.flatnonzero(fold == k)
        own = np.eye(len(out)) - smoother[np.ix_(out, out)]
        scores[out] = y[out] - np.linalg.solve(own, residual[out])
    return scores


def _rising(found: Recalibration, scores: np.ndarray, y: np.ndarray) -> Recalibration:
    """The recalibration, with a slope of at least 0.01 a standard deviation of the scores."""
    least = 0.01 / max(float(scores.std()), 1e-12)
    if found.slope >= least:
        return found
    return Recalibration(float(logit(y.mean())), least)


def _block_size(shape: tuple[int, ...]) -> int:
    """Edge of the blocks, in voxels, that leave at most `MAX_VOXELS` of a channel."""
    if len(shape) != 5 or 0 in shape:
        raise InputError(f"image has shape {shape}; allowed: (N, C, D, H, W), none of them 0")
    block = 1
    while np.prod([-(-n // block) for n in shape[2:]]) > MAX_VOXELS:
        block += 1
    return block


def _blocks(image: np.ndarray, block: int) -> np.ndarray:
    """Means of blocks (N, F) float32, channel by channel, a patient at a time to spare memory.

    Blocks at the far edges hold what is left of the grid.
    """
    edges = [np.arange(0, n, block) for n in np.shape(image)[2:]]
    sizes = [np.diff([*edge, n]) for edge, n in zip(edges, np.shape(image)[2:], strict=True)]
    volume = np.einsum("i,j,k->ijk", *sizes)
    rows = []
    for one in image:
        summed = np.asarray(one, np.float32)
        for axis, edge in enumerate(edges, start=1):
            summed = np.add.reduceat(summed, edge, axis=axis)
        rows.append((summed / volume).astype(np.float32).ravel())
    return np.array(rows)


def _centre(blocks: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) of each block over the patients who have it, and SD (C,) about it of each channel."""
    seen = np.isfinite(blocks)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = (np.where(seen, blocks, 0).sum(axis=0, dtype=float) / count).astype(np.float32)
    parts = np.split(np.arange(len(mean)), channels)
    sd = []
    for part in parts:
        square = np.where(seen[:, part], blocks[:, part] - mean[part], 0) ** 2
        sd.append(np.sqrt(square.sum(dtype=float) / max(seen[:, part].sum(), 1)))
    return mean, np.array(sd, np.float32)


def _scaled(blocks: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Blocks (N, F) centred, each channel with unit variance; 0 where absent or without variance."""
    each = np.repeat(np.where(sd > 0, sd, np.inf), len(mean) // len(sd)).astype(np.float32)
    return np.nan_to_num((blocks - mean) / each, nan=0.0, posinf=0.0, neginf=0.0)
