"""Two scans of one patient: do they lie in the same place, and are they of the same head?

The scans of one session share the scanner's world, so they usually lie on each other and are left as
they are. A CTA is registered rigidly to the NCCT, skull on skull. Whether it is the same skull shows
in whether letting the head change its size makes the two more alike: it does for two heads, however
alike, and does not for one, whatever the contrast, the kernel and the slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvo_lib.registration import solver
from rlvo_lib.registration.blocks import coarse
from rlvo_lib.registration.masks import coarse_head
from rlvo_lib.registration.solver import Volume
from rlvo_lib.registration.template import RIM_MM, WINDOW_HU

PAIR_MM = 4.0
MAX_EXTENT_MM = 400.0
MAX_SIZE_GAIN = 0.0015
MIN_SIMILARITY = 0.94
SURE_SIMILARITY = 0.98  # asked of a scan that has to be moved before it fits
MIN_PAIR_OVERLAP = 0.15
MOVED_MM, MOVED_DEG, MOVED_GAIN = 1.0, 1.0, 0.001
STEPS, SIZE_STEPS = 20, 3
MIN_MAP_INSIDE = 0.95
"""A perfusion map with less of its brain in the CT's intracranial space lies elsewhere (`map_inside`)."""


@dataclass(frozen=True)
class Within:
    """How a moving scan lies on a fixed one of the same patient.

    affine : 4x4 rigid, world mm (RAS+) of the moving scan to world mm of the fixed one:
        ``within.affine @ moving_affine`` is the moving scan's corrected affine. Identity where the
        scans lie on each other already.
    shift_mm, turn_deg : how far this moves the middle of the fixed head, and turns it; 0 for identity.
    similarity : correlation of the skulls, -1..1, as `affine` lays them; NaN where not compared.
    size_gain : how much more alike they become if one may be scaled.
    overlap : share of the fixed head's surroundings that the moving scan shows, 0..1.
    same_head : True, False, or None where it cannot be said.
    flags : in words.
    """

    affine: np.ndarray
    shift_mm: float
    turn_deg: float
    similarity: float
    size_gain: float
    overlap: float
    same_head: bool | None
    flags: tuple[str, ...] = ()


def within_patient(
    moving: np.ndarray,
    moving_affine: np.ndarray,
    fixed: np.ndarray,
    fixed_affine: np.ndarray,
    *,
    names: tuple[str, str] = ("CTA", "NCCT"),
    start: np.ndarray | None = None,
) -> Within:
    """Register one CT (X, Y, Z) in HU rigidly to another of the same patient: CTA to NCCT.

    Both with their voxels-to-world-mm (RAS+) matrices. `start`: 4x4, moving to fixed world mm, where to
    begin (default identity), such as ``fixed_alignment.affine @ inv(moving_alignment.affine)`` where
    the scanners' worlds have nothing in common.

    The identity is kept where the motion found is under 1 mm and 1 degree, or makes the scans no more
    alike (correlation by 0.001). Different heads: the correlation rises by more than 0.0015 when
    scales and a shear are let free, or stays under 0.94. Then the identity is returned and flagged.
    A scan that had to be moved and fits less than 0.98 is moved, but `same_head` is None.
    """
    still = np.eye(4)
    fixed_head, moving_head = _head(fixed, fixed_affine), _head(moving, moving_affine)
    if not fixed_head.inside.any() or not moving_head.array.any():
        flag = f"no head to compare in {' and '.join(names)}"
        return Within(still, 0.0, 0.0, float("nan"), float("nan"), 0.0, None, (flag,))
    middle = _middle(fixed_head)
    before = solver.similarity(fixed_head, moving_head, still)
    first = still if start is None else np.linalg.inv(start)
    found = solver.register(fixed_head, moving_head, first, solver.RIGID, middle, steps=STEPS)
    fit = solver.similarity(fixed_head, moving_head, found)
    if not fit.overlap >= MIN_PAIR_OVERLAP or np.isnan(fit.similarity):
        flag = f"{names[0]} and {names[1]} show too little in common ({fit.overlap:.0%}) to compare"
        return Within(still, 0.0, 0.0, float("nan"), float("nan"), fit.overlap, None, (flag,))
    sized = solver.register(
        fixed_head, moving_head, found, solver.HEAD_AFFINE, middle, steps=SIZE_STEPS
    )
    gain = solver.similarity(fixed_head, moving_head, sized).similarity - fit.similarity
    if not (gain <= MAX_SIZE_GAIN and fit.similarity >= MIN_SIMILARITY):
        flag = (
            f"{names[0]} and {names[1]} of different heads (correlation {fit.similarity:.3f}, "
            f"{gain:+.4f} with another size)"
        )
        return Within(still, 0.0, 0.0, before.similarity, gain, before.overlap, False, (flag,))
    shift, turn = displacement(found, middle)
    small = shift < MOVED_MM and turn < MOVED_DEG
    if small or fit.similarity - before.similarity < MOVED_GAIN:
        return Within(still, 0.0, 0.0, before.similarity, gain, before.overlap, True)
    flag = f"{names[0]} moved by {shift:.1f} mm and {turn:.1f} degrees to the {names[1]}"
    sure = fit.similarity >= SURE_SIMILARITY
    flag += "" if sure else f" (correlation {fit.similarity:.3f}: make sure both are of one head)"
    same = True if sure else None
    return Within(
        np.linalg.inv(found), shift, turn, fit.similarity, gain, fit.overlap, same, (flag,)
    )


def displacement(motion: np.ndarray, middle: np.ndarray) -> tuple[float, float]:
    """By how many mm a rigid 4x4 moves the point `middle` (3,), and by how many degrees it turns.

    >>> displacement(np.array([[1.0, 0, 0, 3], [0, 1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]]), np.zeros(3))
    (5.0, 0.0)
    """
    shift = float(np.linalg.norm(motion[:3, :3] @ middle + motion[:3, 3] - middle))
    cosine = np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1.0, 1.0)
    return shift, float(np.degrees(np.arccos(cosine)))


def map_inside(
    values: np.ndarray, affine: np.ndarray, brain: np.ndarray, brain_affine: np.ndarray
) -> float:
    """Which share of a perfusion map's brain (values over 0) lies in the intracranial space of a CT.

    `values` (X, Y, Z) with its 4x4; `brain` bool (`brain_mask_ct`) with its own. Only what lies within
    the CT's field of view counts; NaN where that is nothing. A check, not a registration: a map has no
    skull, and its values stop where the vendor's own mask does.
    """
    index = np.stack(np.nonzero(values > 0))
    to_brain = np.linalg.inv(brain_affine) @ affine
    place = np.rint(to_brain[:3, :3] @ index + to_brain[:3, 3:]).astype(int)
    seen = ((place >= 0) & (place < np.array(brain.shape)[:, None])).all(axis=0)
    return float(brain[tuple(place[:, seen])].mean()) if seen.any() else float("nan")


def _head(array: np.ndarray, affine: np.ndarray) -> Volume:
    """A head alone, grey 0..1 on 4 mm voxels along the world's axes; `inside`: it and 10 mm around it."""
    from scipy import ndimage

    blocks, where = coarse(array, affine, low=-1000.0, high=1500.0)
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in blocks.shape])).reshape(3, -1)
    world = where[:3, :3] @ corners + where[:3, 3:]
    low, high = world.min(axis=1), world.max(axis=1)
    shape = np.maximum(np.floor(np.minimum(high - low, MAX_EXTENT_MM) / PAIR_MM), 2).astype(int)
    grid = np.diag([PAIR_MM] * 3 + [1.0])
    grid[:3, 3] = (low + high) / 2 - PAIR_MM * (shape - 1) / 2
    volume = solver.volume(blocks, where, np.eye(4), grid, tuple(map(int, shape)), *WINDOW_HU)
    dark, bright = WINDOW_HU
    hu = volume.array * np.float32(bright - dark) + np.float32(dark)
    head = coarse_head(hu, np.full(3, PAIR_MM))
    near = ndimage.binary_dilation(head, iterations=round(RIM_MM / PAIR_MM))
    grey = np.where(near, volume.array, np.float32(0))
    return Volume(grey, grid, volume.inside & near)


def _middle(head: Volume) -> np.ndarray:
    """The middle of a head, world mm."""
    place = np.argwhere(head.inside).mean(axis=0)
    return head.affine[:3, :3] @ place + head.affine[:3, 3]
