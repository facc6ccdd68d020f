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
LONGEST_STEP_MM = 12.0
LEAST_VOXELS = 500
NOTHING = -1e6  # grey value of a voxel that means nothing


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
    fixed = _cropped(fixed)
    seen, grey = _seen(fixed, _marked(moving), moving.affine, matrix)
    overlap = float(np.count_nonzero(seen) / max(1, np.count_nonzero(fixed.inside)))
    if np.count_nonzero(seen) < LEAST_VOXELS:
        return Fit(matrix, float("nan"), overlap)
    a, b = fixed.array[seen].astype(np.float64), grey[seen].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return Fit(matrix, float((a * b).sum() / norm) if norm > 1e-9 else float("nan"), overlap)


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
    fixed = _cropped(fixed)
    marked = _marked(moving)
    about = np.eye(4)
    about[:3, 3] = middle
    motions = about @ generators(free) @ np.linalg.inv(about)
    held = np.array([name.startswith(("scale", "shear")) for name in free])
    found = np.array(start, dtype=float)
    total = np.zeros(len(free))
    for _ in range(steps):
        seen, grey = _seen(fixed, marked, moving.affine, found)
        if np.count_nonzero(seen) < LEAST_VOXELS:
            break
        weight, difference, changes = _linear(fixed, seen, grey)
        jacobian = motions[:, :3].reshape(len(free), 12) @ changes
        weighted = jacobian * weight
        noise = float((weight * difference**2).sum() / weight.sum())
        hold = held * prior * noise / 0.05**2
        normal = weighted @ jacobian.T
        normal = normal + np.diag(hold + 1e-9 * np.diag(normal))
        if not np.isfinite(normal).all() or np.linalg.cond(normal) > 1e13:
            break
        step = -np.linalg.solve(normal, weighted @ difference + hold * total)
        step *= min(1.0, LONGEST_STEP_MM / max(_reach(step, free), 1e-9))
        total += step
        found = found @ _exponential(np.einsum("a,aij->ij", step, motions))
        if _reach(step, free) < ENOUGH_MM:
            break
    return found


def _linear(
    fixed: Volume, seen: np.ndarray, grey: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Robust weights (n,), differences (n,) where `seen`, and (12, n) how the difference changes with
    each of the 3 x 4 numbers of a small motion: the mean slope of both images times the place."""
    fixed_grey = fixed.array[seen]
    factor, offset = _fitted(grey[seen], fixed_grey)
    fitted = np.where(seen, factor * grey + offset, fixed.array)
    difference = (fitted[seen] - fixed_grey).astype(np.float64)
    both = (fitted + fixed.array) / 2
    slopes = np.stack([slope[seen] for slope in np.gradient(both)])
    slopes = np.linalg.inv(fixed.affine[:3, :3]).T @ slopes
    places = fixed.affine[:3, :3] @ np.stack(np.nonzero(seen)) + fixed.affine[:3, 3:]
    places = np.vstack([places, np.ones(places.shape[1])])
    weight = 1.0 / (1.0 + (difference / ROBUST_SHARE) ** 2)
    return weight, difference, (slopes[:, None] * places).reshape(12, -1)


def _reach(step: np.ndarray, free: tuple[str, ...]) -> float:
    """How far, in mm, a step moves the corners of a head at most."""
    lengths = np.array([1.0 if "_" not in name else REACH_MM for name in free])
    return float(np.abs(step * lengths).max())


def _exponential(small: np.ndarray) -> np.ndarray:
    from scipy.linalg import expm

    return expm(small)


def _cropped(fixed: Volume) -> Volume:
    """The part of a volume around its `inside`, one voxel wider for the slopes."""
    from scipy import ndimage

    box = ndimage.find_objects(fixed.inside.view(np.uint8))
    if not box:
        return fixed
    box = tuple(
        slice(max(s.start - 1, 0), min(s.stop + 1, n))
        for s, n in zip(box[0], fixed.inside.shape, strict=True)
    )
    affine = np.array(fixed.affine, dtype=float)
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return Volume(fixed.array[box], affine, fixed.inside[box])


def _marked(moving: Volume) -> np.ndarray:
    """The grey values, far under zero where they mean nothing: what touches those is not seen."""
    return np.where(moving.inside, moving.array, np.float32(NOTHING))


def _seen(
    fixed: Volume, marked: np.ndarray, affine: np.ndarray, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where both volumes mean something, neighbours too, and the moving grey values on the fixed grid."""
    from scipy import ndimage

    to_moving = np.linalg.inv(affine) @ matrix @ fixed.affine
    grey = ndimage.affine_transform(
        marked,
        to_moving[:3, :3],
        to_moving[:3, 3],
        fixed.array.shape,
        order=1,
        mode="constant",
        cval=NOTHING,
    )
    known = grey > -0.5
    seen = fixed.inside & known
    for axis in range(3):  # slopes need both neighbours; those beyond the edge are let be
        rest = np.moveaxis(seen, axis, 0)
        there = np.moveaxis(known, axis, 0)
        rest[1:] &= there[:-1]
        rest[:-1] &= there[1:]
    return seen, grey


def _fitted(grey: np.ndarray, target: np.ndarray) -> tuple[np.float32, np.float32]:
    """Factor (0.8 to 1.25) and offset that bring `grey` closest to `target`."""
    mean, goal = grey.mean(dtype=np.float64), target.mean(dtype=np.float64)
    centred = grey - mean
    square = (centred * centred).sum(dtype=np.float64)
    factor = (centred * (target - goal)).sum(dtype=np.float64) / square if square > 0 else 1.0
    factor = float(np.clip(factor, 0.8, 1.25))
    return np.float32(factor), np.float32(goal - factor * mean)


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
