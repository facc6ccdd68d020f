"""Where arteries can be: the intracranial space, bone, and where the dural sinuses run.

All on blocks of about 3 mm of the CTA, which a clinical scan has a few hundred thousand of.
Coordinates are mm of the head frame: x right, y anterior of the head's middle, z above the vertex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvo_lib.head import HeadFrame
from rlvo_lib.images import voxel_sizes
from rlvo_lib.registration.blocks import block_affine

BLOCK_MM = 3.0
TISSUE_HU = (0.0, 120.0)
BONE_HU = 250.0
BONE_SIGMA_MM = 3.0
MOST_SHIFTS = 60


@dataclass(frozen=True)
class Space:
    """What surrounds the arteries, on blocks; `brain_hu` and `noise_hu` are of the CTA's own voxels."""

    affine: np.ndarray  # 4x4, block indices -> world mm
    block: np.ndarray  # (3,) voxels a block
    inside: np.ndarray  # (X, Y, Z) bool: within the skull
    bone: np.ndarray  # bool: thick bone
    veins: np.ndarray  # bool: where sinuses and deep veins run
    head_mm: tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y, z of each block in the head frame
    length_mm: float  # of the head
    brain_hu: float
    noise_hu: float  # SD of a voxel

    @property
    def around(self) -> np.ndarray:
        """`inside`, a block wider: arteries run along its floor."""
        return grown(self.inside)

    @property
    def clear(self) -> np.ndarray:
        """Inside, and neither bone nor veins."""
        return self.inside & ~self.bone & ~self.veins

    @property
    def size_mm(self) -> np.ndarray:
        """Edge lengths of a block."""
        return voxel_sizes(self.affine)

    def enlarged(self, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A mask of blocks, on the CTA's voxels that the blocks were made from."""
        for axis, b in enumerate(self.block):
            mask = np.repeat(mask, b, axis=axis)
        return mask[: shape[0], : shape[1], : shape[2]]


def surroundings(cta: np.ndarray, affine: np.ndarray, frame: HeadFrame) -> Space:
    """The `Space` of a CTA (X, Y, Z) in HU; `inside` is empty where there is no head."""
    from scipy import ndimage

    block = np.maximum(np.round(BLOCK_MM / voxel_sizes(affine)), 1).astype(int)
    coarse = _block_means(cta, block)
    to_world = affine @ block_affine(block)
    size = voxel_sizes(to_world)
    inside = _intracranial(coarse, size)
    bone = ndimage.gaussian_filter(coarse, BONE_SIGMA_MM / size, truncate=2.5) > BONE_HU
    head_mm = _head_mm(inside.shape, np.linalg.inv(frame.affine) @ to_world)
    veins = _veins(inside, size, head_mm, frame)
    brain, noise = _brain_values(cta, coarse, inside, block) if inside.any() else (0.0, 0.0)
    return Space(to_world, block, inside, bone, veins, head_mm, frame.length_mm, brain, noise)


def skull_base(space: Space) -> np.ndarray:
    """Where carotids and basilar artery pass the skull base, bool on blocks.

    From the petrous canal to the siphon: within 32 mm of the midline, from 28 mm behind to 32 mm
    before the head's middle, and below the convexity by 0.45 head lengths.
    """
    x, y, z = space.head_mm
    return (np.abs(x) < 32) & (y > -28) & (y < 32) & (z < -0.45 * space.length_mm)


def within(
    mask: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], target: np.ndarray
) -> np.ndarray:
    """A mask of blocks (4x4 `affine`) on finer voxels along the same axes (4x4 `target`): the nearest."""
    to_block = np.linalg.inv(affine) @ target
    places = [
        np.clip(np.rint(to_block[a, a] * np.arange(n) + to_block[a, 3]), 0, mask.shape[a] - 1)
        for a, n in enumerate(shape)
    ]
    for axis in (
        2,
        1,
        0,
    ):  # the large copies along the rows; as mask[np.ix_(...)], in a third of the time
        mask = mask.take(places[axis].astype(int), axis=axis)
    return mask


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box around a mask that is not empty."""
    spans = []
    for axis in range(3):
        seen = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append(slice(int(seen[0]), int(seen[-1]) + 1))
    return tuple(spans)


def grown(mask: np.ndarray, times: int = 1, corners: bool = False) -> np.ndarray:
    """A mask and its neighbours by faces, or by corners too, `times` over.

    The same as `scipy.ndimage.binary_dilation`, in a tenth of the time.

    >>> grown(np.array([[[False, True, False, False]]])).tolist()
    [[[True, True, True, False]]]
    """
    out = mask
    for _ in range(times):
        wide = out.copy()
        for axis in range(mask.ndim):
            to, source = np.moveaxis(wide, axis, 0), np.moveaxis(out, axis, 0)
            to[1:] |= source[:-1]
            to[:-1] |= source[1:]
            out = wide.copy() if corners else out
        out = wide
    return out


def nearer(mask: np.ndarray, mm: float, size: np.ndarray) -> np.ndarray:
    """Voxels of a mask and those nearer to it than `mm`, by their centres; size : mm a voxel.

    Where few neighbours are so near, the mask is shifted to each; else by the distance transform.

    >>> nearer(np.array([[[True, False, False]]]), 1.6, np.full(3, 1.5)).tolist()
    [[[True, True, False]]]
    """
    from scipy import ndimage

    if not mask.any():
        return mask.copy()
    reach = (mm / size).astype(int)
    spans = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), axis=-1)
    shifts = spans[np.sqrt(((spans * size) ** 2).sum(axis=-1)) < mm]
    if len(shifts) > MOST_SHIFTS:
        return ndimage.distance_transform_edt(~mask, sampling=size) < mm
    wide = np.pad(mask, [(n, n) for n in reach])
    out = np.zeros_like(mask)
    for shift in shifts:
        first = reach + shift
        out |= wide[tuple(slice(a, a + n) for a, n in zip(first, mask.shape, strict=True))]
    return out


def large(mask: np.ndarray, voxels: float) -> np.ndarray:
    """The connected parts (faces) of at least so many voxels."""
    from scipy import ndimage

    labels, n = ndimage.label(mask)
    keep = np.bincount(labels.ravel(), minlength=n + 1) >= voxels
    keep[0] = False
    return keep[labels]


def _block_means(array: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Means over blocks of voxels; the last, incomplete blocks repeat the outermost voxels."""
    padding = [(0, int(-n % b)) for n, b in zip(array.shape, block, strict=True)]
    out = np.pad(array, padding, mode="edge") if np.any(padding) else array
    for axis, b in enumerate(int(b) for b in block):
        shape = (*out.shape[:axis], out.shape[axis] // b, b, *out.shape[axis + 1 :])
        out = out.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return out


def _intracranial(coarse: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The space inside the skull, on blocks: the largest soft region, closed over its vessels."""
    from scipy import ndimage

    soft = (coarse > TISSUE_HU[0]) & (coarse < TISSUE_HU[1])
    core = ndimage.binary_erosion(soft, border_value=1)
    labels, n = ndimage.label(core)
    if n == 0:
        return core
    core = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    whole = grown(core) & soft
    reach = int(np.ceil(9.0 / size.max()))
    closed = ~grown(~grown(whole, reach), reach)
    return np.stack(
        [ndimage.binary_fill_holes(closed[..., k]) for k in range(closed.shape[2])], axis=2
    )


def _head_mm(shape: tuple[int, ...], to_head: np.ndarray) -> tuple[np.ndarray, ...]:
    i, j, k = (
        np.arange(n).reshape([-1 if axis == a else 1 for a in range(3)])
        for axis, n in enumerate(shape)
    )
    return tuple(row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_head[:3])


def _veins(
    inside: np.ndarray, size: np.ndarray, head_mm: tuple[np.ndarray, ...], frame: HeadFrame
) -> np.ndarray:
    """Where the dural sinuses and the deep veins run, on blocks; distances in mm.

    The head frame's z counts only if it comes from a scan with the vertex in it.
    """
    from scipy import ndimage

    padded = np.pad(inside, [(1, 1), (1, 1), (0, 0)])
    depth = ndimage.distance_transform_edt(padded, sampling=size)[1:-1, 1:-1]
    x, y, z = head_mm
    midline = np.abs(x)
    veins = (midline < 8) & (depth < 14)  # superior sagittal sinus
    veins |= (midline < 7) & (y < -20)  # internal cerebral veins, straight sinus
    veins |= (midline < 30) & (y < -50) & (depth < 16)  # torcula
    veins |= (y < -35) & (depth < 8)  # transverse sinus
    if frame.scan == "ncct":
        height = z / frame.length_mm
        veins |= (midline < 6) & (y < 24) & (height > -0.48) & (height < -0.34)
    if frame.scan == "ncct":  # sigmoid sinus: low, beside the petrous bone
        veins |= (midline > 20) & (y < -15) & (z < -0.5 * frame.length_mm) & (depth < 14)
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
