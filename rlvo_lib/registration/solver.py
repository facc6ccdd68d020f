"""Gauss-Newton registration of two CT volumes: the small motion that lessens their difference most.

At each step the moving image is seen through the motion found so far, its difference from the fixed
image is taken as linear in a few further motions (the free ones), and these are solved for at once.
Compared with `rlvo_lib.registration.itk`, which walks down the gradient, it needs some 10 steps
instead of 100 to 300 for the same optimum: this is what fits into a cohort's time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvo_lib import images

STEPS = 12
ENOUGH_MM = 0.02  # a step that moves no corner of the head further is the last
REACH_MM = 90.0  # how far the corners of a head lie from its middle
ROBUST_SHARE = 0.25  # of the grey range: larger differences count for little (lesions, contrast)
LEAST_VOXELS = 500


def generators(names: tuple[str, ...]) -> np.ndarray:
    """(n, 4, 4): the derivative of each named motion: `x`, `y`, `z` (shifts, mm), `about_x` ...
    (turns, rad), `scale_x` ... and `shear_yz` (y and z pulled towards each other)."""
    axis = {"x": 0, "y": 1, "z": 2}
    out = np.zeros((len(names), 4, 4))
    for matrix, name in zip(out, names, strict=True):
        kind, _, along = name.rpartition("_")
        if kind == "":
            matrix[axis[along], 3] = 1.0
        elif kind == "about":
            b, c = [k for k in range(3) if k != axis[along]]
            sign = -1.0 if along == "y" else 1.0
            matrix[c, b], matrix[b, c] = sign, -sign
        elif kind == "scale":
            matrix[axis[along], axis[along]] = 1.0
        else:
            b, c = (axis[letter] for letter in along)
            matrix[b, c] = matrix[c, b] = 1.0
    return out


RIGID = ("x", "y", "z", "about_x", "about_y", "about_z")
#: A head on a symmetric template: no shear that would tilt the mid-plane against the head's axes.
HEAD_AFFINE = (*RIGID, "scale_x", "scale_y", "scale_z", "shear_yz")


@dataclass(frozen=True)
class Volume:
    """Grey values 0..1 (X, Y, Z) float32 on a grid, and where they mean something (bool)."""

    array: np.ndarray
    affine: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class Fit:
    """matrix: 4x4, fixed mm to moving mm; similarity: correlation -1..1 where both are seen;
    overlap: which share of the fixed volume's `inside` the moving one covers."""

    matrix: np.ndarray
    similarity: float
    overlap: float


def similarity(fixed: Volume, moving: Volume, matrix: np.ndarray) -> Fit:
    """How well two volumes agree as `matrix` (fixed mm to moving mm) lays them on each other."""
    seen, grey = _seen(fixed, moving, matrix)
    overlap = np.count_nonzero(seen) / max(1, np.count_nonzero(fixed.inside))
    if np.count_nonzero(seen) < LEAST_VOXELS:
        return Fit(matrix, float("nan"), overlap)
    a, b = fixed.array[seen], grey[seen]
    a, b = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return Fit(matrix, float((a * b).sum() / norm) if norm > 0 else float("nan"), overlap)


def register(
    fixed: Volume,
    moving: Volume,
    start: np.ndarray,
    free: tuple[str, ...],
    middle: np.ndarray,
    prior: float = 0.0,
    steps: int = STEPS,
) -> np.ndarray:
    """4x4, fixed mm to moving mm, found from `start` by the motions in `free` about `middle` (fixed mm).

    Both volumes' grids lie along their own axes in any position. Sum of robustly weighted squares of
    differences; the moving grey values are fitted to the fixed ones by a factor and an offset.
    `prior` holds scales and shears back: the weight, in voxels, of their squares over 0.05.
    Deterministic; returns what it has where too few voxels are seen or nothing is to be gained.
    """
    about = np.eye(4)
    about[:3, 3] = middle
    motions = about @ generators(free) @ np.linalg.inv(about)
    held = np.array([name.startswith(("scale", "shear")) for name in free])
    places = _places(fixed)
    found = np.array(start, dtype=float)
    total = np.zeros(len(free))
    for _ in range(steps):
        seen, grey = _seen(fixed, moving, found)
        if np.count_nonzero(seen) < LEAST_VOXELS:
            break
        fixed_grey = fixed.array[seen]
        factor, offset = _fitted(grey[seen], fixed_grey)
        slopes = _slopes(fixed, factor * grey + offset, seen)
        change = np.einsum("aij,jn->ain", motions[:, :3], places[:, seen.ravel()])
        jacobian = np.einsum("in,ain->an", slopes, change)
        difference = factor * grey[seen] + offset - fixed_grey
        weight = 1.0 / (1.0 + (difference / ROBUST_SHARE) ** 2)
        normal = (jacobian * weight) @ jacobian.T
        gradient = (jacobian * weight) @ difference
        noise = float((weight * difference**2).sum() / weight.sum())
        hold = held * prior * noise / 0.05**2
        normal = normal + np.diag(hold + 1e-9 * np.diag(normal))
        if not np.isfinite(normal).all() or np.linalg.cond(normal) > 1e13:
            break
        step = -np.linalg.solve(normal, gradient + hold * total)
        step *= min(1.0, 12.0 / max(_reach(step, free), 1e-9))
        total += step
        found = found @ _exponential(np.einsum("a,aij->ij", step, motions))
        if _reach(step, free) < ENOUGH_MM:
            break
    return found


def _reach(step: np.ndarray, free: tuple[str, ...]) -> float:
    """How far, in mm, a step moves the corners of a head at most."""
    lengths = np.array([1.0 if "_" not in name else REACH_MM for name in free])
    return float(np.abs(step * lengths).max())


def _exponential(small: np.ndarray) -> np.ndarray:
    from scipy.linalg import expm

    return expm(small)


def _places(fixed: Volume) -> np.ndarray:
    """(4, n) fixed mm of all voxels, in the order of `ravel`."""
    index = np.indices(fixed.array.shape).reshape(3, -1)
    return fixed.affine @ np.vstack([index, np.ones(index.shape[1])])


def _seen(fixed: Volume, moving: Volume, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where both volumes mean something, and the moving grey values on the fixed grid."""
    from scipy import ndimage

    to_moving = np.linalg.inv(moving.affine) @ matrix @ fixed.affine
    shape = fixed.array.shape
    grey = ndimage.affine_transform(
        moving.array, to_moving[:3, :3], to_moving[:3, 3], shape, order=1, mode="nearest"
    )
    where = ndimage.affine_transform(
        moving.inside.astype(np.uint8), to_moving[:3, :3], to_moving[:3, 3], shape, order=0
    )
    return fixed.inside & (where > 0), grey


def _fitted(grey: np.ndarray, target: np.ndarray) -> tuple[np.float32, np.float32]:
    """Factor (0.8 to 1.25) and offset that bring `grey` closest to `target`."""
    mean, goal = grey.mean(dtype=np.float64), target.mean(dtype=np.float64)
    centred = grey - mean
    square = (centred * centred).sum(dtype=np.float64)
    factor = (centred * (target - goal)).sum(dtype=np.float64) / square if square > 0 else 1.0
    factor = float(np.clip(factor, 0.8, 1.25))
    return np.float32(factor), np.float32(goal - factor * mean)


def _slopes(fixed: Volume, grey: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(3, n) mean slope of both images per fixed mm, where `seen`."""
    both = (grey + fixed.array) / 2
    per_voxel = np.stack([slope[seen] for slope in np.gradient(both)])
    return np.linalg.inv(fixed.affine[:3, :3]).T @ per_voxel


def volume(
    array: np.ndarray,
    affine: np.ndarray,
    to_grid: np.ndarray,
    grid: np.ndarray,
    shape: tuple[int, int, int],
    low: float,
    high: float,
) -> Volume:
    """A scan as grey values 0..1 (`low`..`high` HU) on a grid of `grid` mm (4x4), seen from there by
    `to_grid` (grid mm to the scan's world mm)."""
    place = to_grid @ grid
    grey = images.resample(np.clip(array, low, high), affine, place, shape, fill=low)
    grey -= np.float32(low)
    grey /= np.float32(high - low)
    return Volume(grey, grid, images.field_of_view(array.shape, affine, place, shape))
