"""A patient's head on the template: one matrix from template mm to the scanner's world mm (RAS+).

Matrices compose by `@` before anything is interpolated: ``alignment.affine @ grid`` leads from the
voxels of a grid in template mm straight to the scan, so that a tensor is interpolated once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvo_lib.config import InputError
from rlvo_lib.head import CT_SCANS, HeadFrame, head_frame
from rlvo_lib.registration import solver
from rlvo_lib.registration.blocks import coarse
from rlvo_lib.registration.masks import coarse_head
from rlvo_lib.registration.solver import Fit, Volume
from rlvo_lib.registration.template import (
    GRID,
    GRID_MM,
    GRID_SHAPE,
    WINDOW_HU,
    Template,
    load_template,
)

KINDS = ("symmetry", "rigid", "affine")
MIDDLE = np.array([0.0, 0.0, -85.0])
"""Middle of the head, template mm: turns and scales are taken about it."""

SIZE = np.full(3, GRID_MM)
PRIOR = 100.0  # holds scales back where little of the head is seen
SCALES = (0.8, 1.25)
MAX_COST = 0.20
MIN_OVERLAP = 0.25
MAX_PITCH_DEG, MAX_SHIFT_MM = 40.0, 45.0
SURE_COST = 0.06  # under this a first try is kept; over it other pitches are tried too
OTHER_PITCHES_DEG = (-15.0, 15.0)


@dataclass(frozen=True)
class Alignment:
    """Where the template lies in a patient's world.

    affine : 4x4, template mm to world mm (RAS+); rigid unless `kind` is "affine".
    kind : what was done: "symmetry", "rigid" or "affine".
    cost : 1 minus the correlation with the template over the cranium that both show (0 best), of the
        head frame for "symmetry", of the affine fit for "rigid" and "affine" (size is no misfit);
        comparable between patients of one scan; NaN where nothing was compared.
    frame : the pose from mirror symmetry that it started from.
    flags : what was uncertain, in words.
    """

    affine: np.ndarray
    kind: str
    cost: float
    frame: HeadFrame
    flags: tuple[str, ...] = ()

    @property
    def midline(self) -> np.ndarray:
        """The mid-sagittal plane (a, b, c, d) in world mm; a*x + b*y + c*z > d is the right."""
        normal = np.linalg.inv(self.affine)[0, :3]
        normal = normal / np.linalg.norm(normal)
        return np.append(normal, normal @ self.affine[:3, 3])

    @property
    def scales(self) -> np.ndarray:
        """How much larger the head is than the template along three axes, (3,), the largest first."""
        return np.linalg.svd(self.affine[:3, :3], compute_uv=False)


def align(
    array: np.ndarray,
    affine: np.ndarray,
    scan: str,
    *,
    kind: str = "affine",
    template: Template | None = None,
) -> Alignment:
    """The head in a CT (X, Y, Z) in HU, or in a perfusion map, laid on the template.

    Parameters
    ----------
    array, affine : the scan and its voxels-to-world-mm (RAS+) matrix; shear and mirror are fine.
    scan : its name; "ncct" and "cta" are registered, of a map only the symmetry is used (flagged).
    kind : "symmetry": the head frame as it is. "affine": pose, scales along the three axes and the
        shear of the sagittal plane, by Gauss-Newton from the head frame (`solver`), down to the skull
        base. "rigid": the same without scales and shear: turn and place are those of the affine one,
        which a rigid fit to a head of another size would get wrong.
    template : None: the package's own (`load_template`).

    Where there is no head, or the result is not plausible (cost over 0.2, less than a quarter of the
    cranium in the scan, a scale outside 0.8 to 1.25, a pitch over 40 degrees or a shift over 45 mm
    against the head frame), the head frame is returned with a flag. InputError for an unknown `kind`.
    """
    if kind not in KINDS:
        raise InputError(f"alignment is {kind!r}; allowed: {', '.join(KINDS)}")
    if scan not in CT_SCANS:
        frame = head_frame(array, affine, scan)
        flag = () if kind == "symmetry" else (f"{kind} alignment not done: only a {scan} map",)
        return Alignment(frame.affine, "symmetry", float("nan"), frame, frame.flags + flag)
    template = load_template() if template is None else template
    blocks, where = coarse(array, affine, low=-1000.0, high=1500.0)
    frame = head_frame(blocks, where, scan)
    if any(flag.startswith("no head") for flag in frame.flags):
        flag = () if kind == "symmetry" else (f"{kind} alignment not done: no head",)
        return Alignment(frame.affine, "symmetry", float("nan"), frame, frame.flags + flag)
    return _aligned(head_volume(blocks, where, frame), frame, kind, template)


def _aligned(head: Volume, frame: HeadFrame, kind: str, template: Template) -> Alignment:
    fixed = template.volume
    before = solver.similarity(fixed, head, np.eye(4))
    if kind == "symmetry":
        return Alignment(frame.affine, kind, 1 - before.similarity, frame, frame.flags)
    fit = _best_fit(fixed, head)
    reason = _implausible(fit)
    if reason:
        flags = (*frame.flags, f"{kind} alignment not taken: {reason}")
        return Alignment(frame.affine, "symmetry", 1 - before.similarity, frame, flags)
    found = straightened(fit.matrix)
    if kind == "rigid":
        found = rigid_part(found, MIDDLE)
    return Alignment(frame.affine @ found, kind, 1 - fit.similarity, frame, frame.flags)


def head_volume(blocks: np.ndarray, where: np.ndarray, frame: HeadFrame) -> Volume:
    """The head alone, on the grid of comparison as its frame lays it there."""
    volume = solver.volume(blocks, where, frame.affine, GRID, GRID_SHAPE, *WINDOW_HU)
    low, high = WINDOW_HU
    head = coarse_head(volume.array * np.float32(high - low) + np.float32(low), SIZE)
    return Volume(np.where(head, volume.array, np.float32(0)), GRID, volume.inside)


def _best_fit(fixed: Volume, head: Volume) -> Fit:
    """The best of several starts; the others are tried only where the first does not convince."""
    best = _fit(fixed, head, np.eye(4))
    if 1 - best.similarity <= SURE_COST:
        return best
    for pitch in OTHER_PITCHES_DEG:
        fit = _fit(fixed, head, turned_about_x(pitch, MIDDLE))
        if not best.similarity >= fit.similarity:
            best = fit
    return best


def _fit(fixed: Volume, head: Volume, start: np.ndarray) -> Fit:
    found = solver.register(fixed, head, start, solver.HEAD_AFFINE, MIDDLE, prior=PRIOR)
    return solver.similarity(fixed, head, found)


def _implausible(fit: Fit) -> str:
    """Why a fit is not believed, or "" where it is."""
    if not fit.overlap >= MIN_OVERLAP:
        return f"only {fit.overlap:.0%} of the cranium in the scan"
    if not 1 - fit.similarity <= MAX_COST:
        return f"unlike the template (cost {1 - fit.similarity:.2f})"
    scales = np.linalg.svd(fit.matrix[:3, :3], compute_uv=False)
    if scales.max() > SCALES[1] or scales.min() < SCALES[0]:
        return f"scales of {scales.min():.2f} to {scales.max():.2f}"
    rigid = rigid_part(fit.matrix, MIDDLE)
    pitch = np.degrees(np.arctan2(rigid[2, 1], rigid[1, 1]))
    shift = np.linalg.norm(rigid[:3, :3] @ MIDDLE + rigid[:3, 3] - MIDDLE)
    if abs(pitch) > MAX_PITCH_DEG or shift > MAX_SHIFT_MM:
        return f"turned by {pitch:.0f} degrees and moved by {shift:.0f} mm"
    return ""


# -------------------------------------------------------------------------------------------- matrices


def rigid_part(matrix: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The rigid motion in an affine 4x4: the mid-plane x = 0 and the place of `middle` (3,) as there.

    The x axis is the image's normal of that plane; the turn about it that of the polar decomposition.
    """
    normal = np.linalg.inv(matrix)[0, :3]
    normal = normal / np.linalg.norm(normal)
    u, _, v = np.linalg.svd(matrix[:3, :3])
    forward = (u @ v)[:, 1]
    forward = forward - normal * (normal @ forward)
    forward /= np.linalg.norm(forward)
    out = np.eye(4)
    out[:3, :3] = np.stack([normal, forward, np.cross(normal, forward)], axis=1)
    out[:3, 3] = matrix[:3, :3] @ middle + matrix[:3, 3] - out[:3, :3] @ middle
    return out


def straightened(matrix: np.ndarray) -> np.ndarray:
    """An affine 4x4 whose x axis is at right angles to its mid-plane: the little shear that several
    Gauss-Newton steps leave between x and the others is taken away."""
    rigid = rigid_part(matrix, MIDDLE)
    inner = np.linalg.inv(rigid) @ matrix
    inner[0, 1:3] = inner[1:3, 0] = 0.0
    inner[:3, 3] = MIDDLE - inner[:3, :3] @ MIDDLE
    return rigid @ inner


def turned_about_x(degrees: float, middle: np.ndarray) -> np.ndarray:
    """4x4: a nod of so many degrees (y towards z) about `middle`, (3,)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    out = np.eye(4)
    out[1:3, 1:3] = [[c, -s], [s, c]]
    out[:3, 3] = middle - out[:3, :3] @ middle
    return out
