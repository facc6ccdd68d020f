"""Automated segmentation of the intracranial arteries from a CT angiogram, without trained weights.

Steps, each on the CTA's own grid or on blocks of about 3 mm of it:

1. intracranial space: the largest region of soft tissue (0-120 HU in 3 mm blocks), closed over
   vessels and cisterns;
2. bone: what stays bright (> 250 HU) after smoothing with 3 mm: thick, as skull and skull base are
   and arteries are not;
3. contrast: hysteresis between two thresholds set from the brain's own HU and noise;
4. veins: what lies where the dural sinuses run is left out: along the skull in the midline (superior
   sagittal sinus) and at the back (torcula, transverse and sigmoid sinus), and in the midline behind
   the thalamus (deep veins, straight sinus);
5. components smaller than 50 mm3 are dropped;
6. edges: a voxel stays if it has at least 0.45 of the contrast of the brightest one near it (the
   half-height rule: without it, a bright vessel's blur makes it twice as thick).

What it cannot do: tell arteries from cortical veins of a late phase, or from bone they touch (the
petrous and part of the cavernous carotid are lost); vessels under about 1 mm fade into noise.
"""

from __future__ import annotations

import numpy as np

from rlvo_lib.head import HeadFrame, head_frame
from rlvo_lib.images import voxel_sizes

BLOCK_MM = 3.0
TISSUE_HU = (0.0, 120.0)
BONE_HU = 250.0
BONE_SIGMA_MM = 3.0
WEAK_HU, WEAK_SDS = 60.0, 3.0  # a vessel is so far above the brain, in HU and in noise SD
STRONG_HU, STRONG_SDS = 110.0, 5.0  # and somewhere at least so far
MIN_COMPONENT_MM3 = 50.0
EDGE_SHARE, EDGE_MM = 0.45, 2.0


def segment(cta: np.ndarray, affine: np.ndarray, frame: HeadFrame | None = None) -> np.ndarray:
    """Mask of the contrasted arteries, bool (X, Y, Z), from a CTA in HU and its 4x4 affine.

    `frame` is the head's pose, from the NCCT if there is one; None: taken from the CTA. An empty
    mask where there is no head or no contrast: the caller's quality control sees it.
    """
    from scipy import ndimage

    frame = head_frame(cta, affine, "cta") if frame is None else frame

    block = np.maximum(np.round(BLOCK_MM / voxel_sizes(affine)), 1).astype(int)
    coarse = _block_means(cta, block)
    size = voxel_sizes(affine) * block
    inside = _intracranial(coarse, size)
    if not inside.any():
        return np.zeros(cta.shape, dtype=bool)
    bone = ndimage.gaussian_filter(coarse, BONE_SIGMA_MM / size, truncate=2.5) > BONE_HU
    allowed = inside & ~bone & ~_veins(inside, affine @ _block_affine(block), size, frame)
    brain, noise = _brain_values(cta, coarse, inside, block)
    weak = cta > brain + max(WEAK_HU, WEAK_SDS * noise)
    weak &= _enlarge(allowed, block, cta.shape)
    found = _hysteresis(cta, weak, brain + max(STRONG_HU, STRONG_SDS * noise), affine)
    return _narrowed(cta, found, brain, voxel_sizes(affine))


def _block_means(array: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Means over blocks of voxels; the last, incomplete blocks repeat the outermost voxels."""
    padding = [(0, int(-n % b)) for n, b in zip(array.shape, block, strict=True)]
    out = np.pad(array, padding, mode="edge") if np.any(padding) else array
    for axis, b in enumerate(int(b) for b in block):
        shape = (*out.shape[:axis], out.shape[axis] // b, b, *out.shape[axis + 1 :])
        out = out.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return out


def _enlarge(mask: np.ndarray, block: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of blocks, on the voxels the blocks were made from."""
    for axis, b in enumerate(block):
        mask = np.repeat(mask, b, axis=axis)
    return mask[: shape[0], : shape[1], : shape[2]]


def _intracranial(coarse: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The space inside the skull, on blocks: the largest soft region, closed over its vessels."""
    from scipy import ndimage

    soft = (coarse > TISSUE_HU[0]) & (coarse < TISSUE_HU[1])
    core = ndimage.binary_erosion(soft, border_value=1)
    labels, n = ndimage.label(core)
    if n == 0:
        return core
    core = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    grown = ndimage.binary_dilation(core) & soft
    reach = int(np.ceil(9.0 / size.max()))
    closed = ndimage.binary_erosion(
        ndimage.binary_dilation(grown, iterations=reach), iterations=reach, border_value=1
    )
    return np.stack(
        [ndimage.binary_fill_holes(closed[..., k]) for k in range(closed.shape[2])], axis=2
    )


def _block_affine(block: np.ndarray) -> np.ndarray:
    """4x4, block indices to voxel indices (block centres)."""
    affine = np.diag([*block.astype(float), 1.0])
    affine[:3, 3] = (block - 1) / 2
    return affine


def _veins(
    inside: np.ndarray, affine: np.ndarray, size: np.ndarray, frame: HeadFrame
) -> np.ndarray:
    """Where the dural sinuses and the deep veins run (step 4), on blocks; distances in mm.

    The head frame's z counts only if it comes from a scan with the vertex in it.
    """
    from scipy import ndimage

    padded = np.pad(inside, [(1, 1), (1, 1), (0, 0)])
    depth = ndimage.distance_transform_edt(padded, sampling=size)[1:-1, 1:-1]
    to_head = np.linalg.inv(frame.affine) @ affine
    i, j, k = (
        np.arange(n).reshape([-1 if axis == a else 1 for a in range(3)])
        for axis, n in enumerate(inside.shape)
    )
    x, y, z = (row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_head[:3])
    midline = np.abs(x)
    veins = (midline < 8) & (depth < 14)  # superior sagittal sinus
    veins |= (midline < 7) & (y < -20)  # internal cerebral veins, straight sinus
    veins |= (midline < 30) & (y < -50) & (depth < 16)  # torcula
    veins |= (y < -35) & (depth < 8)  # transverse sinus
    if frame.scan == "ncct":  # sigmoid sinus: low, beside the petrous bone
        veins |= (y < -15) & (z < -0.5 * frame.length_mm) & (depth < 14)
    return veins


def _brain_values(
    cta: np.ndarray, coarse: np.ndarray, inside: np.ndarray, block: np.ndarray
) -> tuple[float, float]:
    """HU of the brain (median over blocks) and the voxel noise (SD, from neighbours in blocks)."""
    brain = float(np.median(coarse[inside]))
    corner = cta[:: block[0], :: block[1], :: block[2]]
    corner = corner[: coarse.shape[0], : coarse.shape[1], : coarse.shape[2]]
    noise = float(np.median(np.abs(corner - coarse)[inside])) * 1.4826
    return brain, noise


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

    box = ndimage.find_objects(found.astype(np.uint8))
    if not box:
        return found
    inner = found[box[0]]
    contrast = np.where(inner, cta[box[0]] - np.float32(brain), np.float32(0))
    width = 2 * np.maximum(np.round(EDGE_MM / size), 1).astype(int) + 1
    nearby = ndimage.maximum_filter(contrast, size=tuple(width), mode="constant")
    out = np.zeros_like(found)
    out[box[0]] = inner & (contrast >= EDGE_SHARE * nearby)
    return out
