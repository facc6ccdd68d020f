"""Automated segmentation of the intracranial arteries from a CT angiogram, without trained weights.

Common to all scans, on blocks of about 3 mm (`space`): the intracranial space, thick bone, where the
dural sinuses and deep veins run, the brain's HU and the noise.

Voxels of at most 1.6 mm (finer than 0.55 mm are averaged to 0.6 mm for the work):

1. enhancement of the wide arteries, from lumens at least 2.4 mm wide near the carotids;
2. bone: brighter than these by a third and large, or part of the thick vault; nothing within 1.8 mm
   of it counts, except
3. lumens at the skull base (`skullbase`): carotids and basilar artery where they touch bone or run in it;
4. elsewhere: tubes (`vesselness`) and what is plainly bright, connected, and long enough;
5. veins are left out by where they run;
6. edges: half the local lumen's contrast (half-height rule; without it, a bright vessel's blur makes it
   twice as thick).

Coarser voxels, where an artery is one or two voxels wide and shape tells little: hysteresis between
two thresholds from the brain's HU and noise instead of 1 to 4, the same veins and edges.

What it cannot do: tell arteries from cortical veins of a late phase; find a carotid in bone of its own
density; vessels under about 1 mm fade into noise.
"""

from __future__ import annotations

import numpy as np

from rlvo_lib.head import HeadFrame, head_frame
from rlvo_lib.images import resample, voxel_sizes
from rlvo_lib.vessels.skullbase import lumens
from rlvo_lib.vessels.space import (
    Space,
    bounding_box,
    grown,
    large,
    nearer,
    skull_base,
    surroundings,
    within,
)
from rlvo_lib.vessels.vesselness import tubeness

FINE_MM = 1.6  # up to this voxel edge, arteries are told by their shape as well
TOO_FINE_MM, WORK_MM = 0.55, 0.6

SMOOTH_MM, EDGE_SIGMA_MM = 0.6, 0.4
COARSER = 6.0  # and so much longer for each mm of a voxel over 0.6: noise clots are of voxels
PLAIN_HU, PLAIN_MM = 60.0, 1.5  # contrast that makes what lies so near to a tube a part of it
TUBE_SHARE = 0.1  # a tube's tubeness is 0.37 of its contrast at most, a sheet's is none
DIM_SDS, TUBE_SDS = 0.7, 0.3  # least contrast and tubeness of a vessel, in noise SD of a voxel,
DIM_HU, TUBE_HU = 12.0, 4.0  # and in HU
COARSE_MM, COARSE_FACTOR = 1.1, 3.0  # larger voxels: smoothing by 0.6 mm leaves the noise as it is
TUBE_SCALES_MM = (0.9, 1.3)
LEAST_MM, LEAST_TUBE = 12.0, 10  # diagonal of the box around a vessel; its voxels that are tubes
RIM_MM = 1.8
BONE_MM3 = 200.0
SLAB = 32
VAULT_HU = 150.0

WEAK_HU, WEAK_SDS = 60.0, 3.0  # a vessel is so far above the brain, in HU and in noise SD
STRONG_HU, STRONG_SDS = 110.0, 5.0  # and somewhere at least so far
MIN_COMPONENT_MM3 = 50.0
EDGE_SHARE, EDGE_MM = 0.5, 2.0


def segment(cta: np.ndarray, affine: np.ndarray, frame: HeadFrame | None = None) -> np.ndarray:
    """Mask of the contrasted arteries, bool (X, Y, Z), from a CTA in HU and its 4x4 affine.

    `frame` is the head's pose, from the NCCT if there is one; None: taken from the CTA. An empty
    mask where there is no head or no contrast: the caller's quality control sees it.
    """
    cta = np.asarray(cta)
    frame = head_frame(cta, affine, "cta") if frame is None else frame
    space = surroundings(cta, affine, frame)
    found = np.zeros(cta.shape, dtype=bool)
    if not space.inside.any():
        return found
    if voxel_sizes(affine).max() > FINE_MM:
        return _by_density(cta, affine, space)
    box = bounding_box(space.enlarged(space.around | skull_base(space), cta.shape))
    start = np.eye(4)
    start[:3, 3] = [b.start for b in box]
    here, part = np.asarray(affine) @ start, cta[box]
    if voxel_sizes(affine).max() > TOO_FINE_MM and voxel_sizes(affine).min() > 0.8 * TOO_FINE_MM:
        found[box] = _by_shape(part.astype(np.float32), here, space)
        return found
    grid, shape = _work_grid(part.shape, here)
    work = resample(part, here, grid, shape, fill=-1000.0)
    mask = _by_shape(work, grid, space).astype(np.float32)
    found[box] = resample(mask, grid, here, part.shape, fill=0.0) >= 0.5
    return found


def _work_grid(shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """A grid of `WORK_MM` voxels over the same box, along the same axes."""
    factor = WORK_MM / voxel_sizes(affine)
    grid = affine @ np.diag([*factor, 1.0])
    grid[:3, 3] = affine[:3, :3] @ ((factor - 1) / 2) + affine[:3, 3]
    return grid, tuple(max(3, int(n / f)) for n, f in zip(shape, factor, strict=True))


def _by_shape(work: np.ndarray, affine: np.ndarray, space: Space) -> np.ndarray:
    """Steps 1 to 6 on a box of the CTA, (X, Y, Z) float32 HU."""
    from scipy import ndimage

    size = voxel_sizes(affine)
    work = work - np.float32(space.brain_hu)

    def on(mask: np.ndarray) -> np.ndarray:
        return within(mask, space.affine, work.shape, affine)

    few = 0.35 * size.min() > EDGE_SIGMA_MM  # a kernel so narrow would do nothing
    sharp = work if few else ndimage.gaussian_filter(work, EDGE_SIGMA_MM / size, truncate=3.0)
    smooth = ndimage.gaussian_filter(work, SMOOTH_MM / size, truncate=3.0)
    base = skull_base(space)
    arterial = arterial_contrast(sharp, on(space.clear & base), size)
    if np.isnan(arterial):
        arterial = 300.0
    dense = smooth > max(1.35 * arterial, arterial + 80)
    bone = large(dense, BONE_MM3 / np.prod(size))
    hard = bone | (on(space.bone) & (smooth > VAULT_HU))
    rim = _within_reach(hard, RIM_MM, size)
    noise = space.noise_hu * (COARSE_FACTOR if size.min() > COARSE_MM else 1.0)
    dim, least = max(DIM_HU, DIM_SDS * noise), max(TUBE_HU, TUBE_SDS * noise)
    candidate = on(space.around & ~space.veins) & ~rim & (smooth > dim)
    tube = np.zeros(work.shape, np.float32)
    tube[candidate] = tubeness(np.where(rim, np.float32(0), work), candidate, size, TUBE_SCALES_MM)
    line = tube > np.maximum(least, TUBE_SHARE * smooth)
    near = grown(line, int(np.ceil(PLAIN_MM / size.min())))
    found = _long(line | (candidate & near & (smooth > PLAIN_HU)), line, size)
    wide = lumens(sharp, on(base), arterial, found, bone, size)
    reference = np.minimum(sharp, arterial)
    return (_narrowed(reference, found | wide, 0.0, size) & found) | wide


def arterial_contrast(smooth: np.ndarray, where: np.ndarray, size: np.ndarray) -> float:
    """HU over brain of the wide arteries within `where` (a mask), NaN where there are none.

    The 85th percentile over voxels at least 1.2 mm inside of something of 70 to 800 HU, 3 mm or more
    from dense bone: with an occluded carotid, those of the dimmer side are fewer than half.
    """
    from scipy import ndimage

    if not where.any():
        return float("nan")
    box = bounding_box(where)
    s = smooth[box]
    deep = where[box] & (s > 70) & (s < 800)
    if size.min() <= 1.2:  # of larger voxels, all are so deep
        deep = ndimage.distance_transform_edt(deep, sampling=size) > 1.2
    bone = large(s > 500, 500 / np.prod(size))
    deep &= ~nearer(bone, np.nextafter(3.0, 4.0), size)
    tube = tubeness(np.clip(s, 0, 800), deep, size, (1.4, 2.0))
    values = s[deep][tube > 2 * TUBE_SHARE * s[deep]]
    return float(np.percentile(values, 90)) if len(values) >= 50 else float("nan")


def _within_reach(mask: np.ndarray, mm: float, size: np.ndarray) -> np.ndarray:
    """Voxels within `mm` of a mask; of coarse voxels, those that touch it."""
    from scipy import ndimage

    if size.min() > 0.6 * mm:
        return grown(mask, corners=True)
    near = np.empty_like(mask)
    margin = int(np.ceil(mm / size[2])) + 1
    for first in range(0, mask.shape[2], SLAB):  # the transform holds 30 bytes a voxel
        low, stop = max(0, first - margin), min(mask.shape[2], first + SLAB)
        slab = mask[..., low : min(mask.shape[2], stop + margin)]
        if not slab.any():
            near[..., first:stop] = False
            continue
        away = ndimage.distance_transform_edt(~slab, sampling=size)
        near[..., first:stop] = away[..., first - low : stop - low] < mm
    return near


def _long(found: np.ndarray, tube: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The connected parts that are long, and not all blob."""
    from scipy import ndimage

    labels, n = ndimage.label(found, structure=np.ones((3, 3, 3)))
    boxes = ndimage.find_objects(labels)
    keep = np.bincount(labels[found & tube], minlength=n + 1) > LEAST_TUBE
    for k in np.flatnonzero(keep):
        spans = [s.stop - s.start for s in boxes[k - 1]]
        keep[k] = np.linalg.norm(spans * size) > LEAST_MM + COARSER * (size.min() - WORK_MM)
    return keep[labels]


def _by_density(cta: np.ndarray, affine: np.ndarray, space: Space) -> np.ndarray:
    """Hysteresis, on the CTA's own voxels."""
    allowed = space.inside & ~space.bone & ~space.veins
    weak = cta > space.brain_hu + max(WEAK_HU, WEAK_SDS * space.noise_hu)
    weak &= space.enlarged(allowed, cta.shape)
    strong = space.brain_hu + max(STRONG_HU, STRONG_SDS * space.noise_hu)
    found = _hysteresis(cta, weak, strong, affine)
    return _narrowed(cta, found, space.brain_hu, voxel_sizes(affine))


def _hysteresis(
    cta: np.ndarray, weak: np.ndarray, strong_hu: float, affine: np.ndarray
) -> np.ndarray:
    """The connected parts of `weak` that reach `strong_hu` and are not too small."""
    from scipy import ndimage

    labels, n = ndimage.label(weak, structure=np.ones((3, 3, 3)))
    found = np.flatnonzero(labels)
    of = labels.ravel()[found]
    strong = np.bincount(of[cta.ravel()[found] > strong_hu], minlength=n + 1) > 0
    mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    keep = strong & (np.bincount(of, minlength=n + 1) * mm3 >= MIN_COMPONENT_MM3)
    keep[0] = False
    return keep[labels]


def _narrowed(cta: np.ndarray, found: np.ndarray, brain: float, size: np.ndarray) -> np.ndarray:
    """`found` without the blurred rim of its vessels (step 6)."""
    from scipy import ndimage

    if not found.any():
        return found
    box = bounding_box(found)
    inner = found[box]
    contrast = np.where(inner, cta[box] - np.float32(brain), np.float32(0))
    width = 2 * np.maximum(np.round(EDGE_MM / size), 1).astype(int) + 1
    nearby = ndimage.maximum_filter(contrast, size=tuple(width), mode="constant")
    out = np.zeros_like(found)
    out[box] = inner & (contrast >= EDGE_SHARE * nearby)
    return out
