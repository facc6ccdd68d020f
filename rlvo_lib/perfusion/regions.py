"""Where flow is late and where tissue is lost: the field's thresholds, without what is no stroke.

Half of the maps of large vessel occlusions hold late flow that fits neither vessel nor symptoms
(26 of 60, median 12 mL: PMC6731139), and cores are found where there is none. What is left out:

- the other hemisphere: only the affected side counts, as a reader would correct it;
- islands under `ISLAND_ML`;
- islands of at most `SYMMETRIC_ML` that are late on the mirrored place too (at least half of them):
  ventricles, sinuses, a slow heart;
- cerebrospinal fluid: hardly any blood volume (`CSF_RCBV` of the healthy hemisphere's mean) in a voxel
  and in its mirror image; in a core only one of the two is empty.

Where flow is under the core's threshold there is hardly a curve whose delay could be read: Tmax is
there the median of the voxel and its eight neighbours in the slice, as far as they are brain, and a
voxel beside the deficit belongs to it from 4 s on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from rlvo_lib.perfusion.maps import brain_mask

THRESHOLDS_S = (4, 6, 8, 10)
DEFICIT_S = 6  # the perfusion deficit, within which core counts
NEAR_DEFICIT_S = 4  # is enough where hardly anything flows and the neighbour is in the deficit
CORE_RCBF = 0.30  # of the healthy hemisphere's mean (PMC10069177; RAPID's default)
CSF_RCBV = 0.30
ISLAND_ML = 1.0
SYMMETRIC = 0.5  # an island of which this share is late on both sides ...
SYMMETRIC_ML = 20.0  # ... and that is no larger
MEDIAL_MM = 3.0  # so near the midline a voxel belongs to no hemisphere's mean
NEIGHBOUR_MM = 2.0  # at least so far apart are neighbours: finer grids are interpolated


@dataclass(frozen=True)
class Regions:
    """What the thresholds find, as (X, Y, Z) bool masks on the maps' grid."""

    brain: np.ndarray
    healthy: np.ndarray  # the tissue whose mean is 1 in relative maps
    late: dict[int, np.ndarray]  # Tmax > 4, 6, 8, 10 s, each within those before; 6: the deficit
    core: np.ndarray  # relative CBF < 30 % within Tmax > 6 s
    artefact: np.ndarray  # Tmax > 6 s that was left out
    side: str  # the hemisphere that counts: "left", "right"; "none": no late flow, no side given
    tmax_side: str  # the hemisphere with more Tmax > 6 s, whatever side was given
    other_ml: float  # Tmax > 6 s in the other hemisphere, mL; of `artefact`
    mean_cbf: float  # of the healthy tissue, mL/100 g/min; NaN where there is none
    mean_cbv: float  # mL/100 g
    voxel_ml: float


def right_of(shape: tuple[int, ...], affine: np.ndarray, midline: np.ndarray) -> np.ndarray:
    """Which voxels lie on the patient's right of the mid-sagittal plane; bool of `shape`.

    `midline` is the plane (a, b, c, d) in world mm (RAS+), a*x + b*y + c*z > d being the right.
    """
    return _to_the_right(shape, affine, midline) > 0


def _to_the_right(shape: tuple[int, ...], affine: np.ndarray, midline: np.ndarray) -> np.ndarray:
    """Distance of each voxel from the mid-sagittal plane in mm, positive on the right; float32."""
    normal = np.asarray(midline[:3], dtype=float)
    along = normal @ np.asarray(affine)[:3, :3]
    offset = float(normal @ np.asarray(affine)[:3, 3]) - float(midline[3])
    i, j, k = (np.arange(n) * step for n, step in zip(shape, along, strict=True))
    i, j, k = (axis.astype(np.float32) for axis in (i + offset, j, k))
    return (i[:, None, None] + j[:, None] + k) / np.float32(np.linalg.norm(normal))


def regions(
    cbf: np.ndarray,
    cbv: np.ndarray,
    tmax: np.ndarray,
    affine: np.ndarray,
    midline: np.ndarray,
    side: str | None = None,
    brain: np.ndarray | None = None,
) -> Regions:
    """The regions of one patient; see the module's text for what is left out.

    Parameters
    ----------
    cbf, cbv, tmax : (X, Y, Z) arrays on one grid, in mL/100 g/min, mL/100 g and s, 0 outside the brain
    affine : 4x4, voxel indices to world mm (RAS+)
    midline : (a, b, c, d), the mid-sagittal plane in world mm, see `right_of`
    side : "left" or "right", the affected hemisphere; None: the one with more Tmax > 6 s
    brain : (X, Y, Z) bool, the brain; None: found by `brain_mask`. A map that is not cut to the brain
        needs one
    """
    brain = brain_mask(cbf, tmax) if brain is None else brain.astype(bool)
    ml = abs(float(np.linalg.det(np.asarray(affine)[:3, :3]))) / 1000.0
    distance = _to_the_right(brain.shape, affine, midline)
    raw = brain & (tmax > DEFICIT_S)
    large = _without_islands(raw, ISLAND_ML / ml)
    on_right = np.count_nonzero(large & (distance > 0))
    on_left = np.count_nonzero(large) - on_right
    tmax_side = "none" if on_left == on_right == 0 else ("right" if on_right > on_left else "left")
    chosen = side or tmax_side
    own = {"right": distance > 0, "left": distance <= 0, "none": np.True_}[chosen] & brain
    other = brain if chosen == "none" else brain & (np.abs(distance) > MEDIAL_MM) & ~own
    healthy, mean_cbf, mean_cbv = _healthy(cbf, cbv, other)
    mirror = _mirror(affine, midline)
    low = own & (cbf < CORE_RCBF * mean_cbf) if mean_cbf == mean_cbf else np.zeros_like(own)
    tmax = _steadied(tmax, low, brain, affine)
    late_anywhere = {s: brain & (tmax > s) for s in THRESHOLDS_S}
    csf = _csf(cbv, own & (late_anywhere[NEAR_DEFICIT_S] | low), mirror, mean_cbv)
    own &= ~csf
    late = {}
    for s, everywhere in late_anywhere.items():
        mask = everywhere & own
        if s == DEFICIT_S:
            mask |= _beside(mask, low & late_anywhere[NEAR_DEFICIT_S] & own, affine)
        twin = partial(_mirrored, everywhere, mirror)
        late[s] = _without_islands(mask, ISLAND_ML / ml, SYMMETRIC_ML / ml, twin)
    for outer, inner in zip(THRESHOLDS_S, THRESHOLDS_S[1:], strict=False):
        late[inner] &= late[outer]
    there = distance > 0 if chosen == "left" else distance <= 0
    return Regions(
        brain=brain,
        healthy=healthy,
        late=late,
        core=low & late[DEFICIT_S],
        artefact=raw & ~late[DEFICIT_S],
        side=chosen,
        tmax_side=tmax_side,
        other_ml=0.0 if chosen == "none" else float(np.count_nonzero(large & there)) * ml,
        mean_cbf=mean_cbf,
        mean_cbv=mean_cbv,
        voxel_ml=ml,
    )


def _healthy(
    cbf: np.ndarray, cbv: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """The other hemisphere's tissue without its fluid, and its mean CBF and CBV."""
    tissue = other & (cbf > 0)
    if not tissue.any():
        return tissue, math.nan, math.nan
    tissue &= cbv >= CSF_RCBV * float(cbv[tissue].mean(dtype=float))
    if not tissue.any() or not cbv[tissue].any():
        return tissue, math.nan, math.nan
    return tissue, *(float(m[tissue].mean(dtype=float)) for m in (cbf, cbv))


def _steadied(
    tmax: np.ndarray, low: np.ndarray, brain: np.ndarray, affine: np.ndarray
) -> np.ndarray:
    """Tmax with the median of 3 x 3 brain voxels of the slice where flow is low (X, Y, Z), s."""
    at = np.nonzero(low)
    if not len(at[0]):
        return tmax
    known = [np.where(inside, late, np.nan) for inside, late in zip(
        _around(brain, at, affine), _around(tmax, at, affine), strict=True
    )]  # fmt: skip
    steady = tmax.copy()
    steady[at] = np.nanmedian(np.stack(known), axis=0)
    return steady


def _beside(region: np.ndarray, candidates: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Those candidates (X, Y, Z) of which one of the 3 x 3 voxels of the slice is in the region."""
    found = np.zeros_like(region)
    at = np.nonzero(candidates)
    found[at] = np.any(_around(region, at, affine), axis=0)
    return found


def _around(volume: np.ndarray, at: tuple, affine: np.ndarray) -> list[np.ndarray]:
    """The values at voxels `at` and at their eight neighbours within the slice, nine arrays."""
    spacing = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    across = 2 if spacing[2] >= 0.999 * spacing.max() else int(np.argmax(spacing))
    first, second = (axis for axis in range(3) if axis != across)
    step = np.maximum(1, np.round(NEIGHBOUR_MM / spacing).astype(int))
    values = []
    for di in (-step[first], 0, step[first]):
        for dj in (-step[second], 0, step[second]):
            place = list(at)
            place[first] = np.clip(at[first] + di, 0, volume.shape[first] - 1)
            place[second] = np.clip(at[second] + dj, 0, volume.shape[second] - 1)
            values.append(volume[tuple(place)])
    return values


def _mirror(affine: np.ndarray, midline: np.ndarray) -> np.ndarray:
    """4x4, voxel indices to those of the mirrored place."""
    normal = np.asarray(midline[:3], dtype=float)
    length = np.linalg.norm(normal)
    normal, d = normal / length, float(midline[3]) / length
    flip = np.eye(4)
    flip[:3, :3] -= 2 * np.outer(normal, normal)
    flip[:3, 3] = 2 * d * normal
    return np.linalg.inv(affine) @ flip @ affine


def _mirrored(volume: np.ndarray, mirror: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The values of a volume in the mirror image of voxels `at` (n, 3); 0 outside the grid."""
    place = np.rint(at @ mirror[:3, :3].T + mirror[:3, 3]).astype(int)
    inside = ((place >= 0) & (place < volume.shape)).all(axis=1)
    values = np.zeros(len(at), volume.dtype)
    values[inside] = volume[tuple(place[inside].T)]
    return values


def _csf(
    cbv: np.ndarray, candidates: np.ndarray, mirror: np.ndarray, mean_cbv: float
) -> np.ndarray:
    """Voxels among the candidates that hold hardly any blood, like their mirror image."""
    found = np.zeros(cbv.shape, dtype=bool)
    if mean_cbv != mean_cbv:
        return found
    at = np.argwhere(candidates & (cbv < CSF_RCBV * mean_cbv))
    at = at[_mirrored(cbv, mirror, at) < CSF_RCBV * mean_cbv]
    found[tuple(at.T)] = True
    return found


def _without_islands(
    mask: np.ndarray, least: float, most: float = 0.0, twin: Callable | None = None
) -> np.ndarray:
    """`mask` without connected components (faces and edges) of less than `least` voxels.

    Nor those of at most `most` voxels of which `SYMMETRIC` lies opposite to what `twin` knows.
    """
    from scipy import ndimage

    labels, n = ndimage.label(mask, structure=ndimage.generate_binary_structure(3, 2))
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    keep = sizes >= least
    judged = keep & (sizes <= most)
    judged[0] = keep[0] = False
    if judged.any():
        at = np.argwhere(judged[labels])
        opposite = np.bincount(labels[tuple(at.T)], weights=twin(at), minlength=n + 1)
        keep &= ~(judged & (opposite >= SYMMETRIC * sizes))
    return keep[labels]
