"""Where the head is, and the space inside its skull: masks of a CT on its own grid.

Both are found on blocks of up to 5 mm and then brought to the scan's voxels, so that they cost little
at clinical resolution: what lies well inside is taken from the blocks, the rim from the voxels.
"""

from __future__ import annotations

import numpy as np

from rlvo_lib.head import SKIN_HU, HeadFrame
from rlvo_lib.images import voxel_sizes
from rlvo_lib.registration.blocks import block_affine, block_means, block_of, enlarged

MASK_MM = 5.0
HEADREST_MM = 5.0  # a shell or a cable thinner than twice this is not head
BONE_HU = 250.0
SOFT_HU = (-30.0, 200.0)
BRIDGE_MM = 6.0  # soft ways out of the skull narrower than twice this are cut
DENSE_HU = 500.0  # thick bone; contrast and calcium reach this in no block of 5 mm
VESSEL_MM = 7.0  # bright vessels and calcium up to twice this are closed over
BRAIN_DEPTH = 0.80  # of the head's length: nothing of the brain lies deeper below the vertex


def head_mask(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The head without table, headrest and cables: bool (X, Y, Z) on the grid of a CT in HU.

    The largest part over -300 HU that is thicker than 10 mm, with the air inside it filled slice by
    slice. All False where there is none.
    """
    block = np.minimum(block_of(affine, MASK_MM), array.shape)
    if (block == 1).all():
        return coarse_head(np.asarray(array, np.float32), voxel_sizes(affine))
    blocks = block_means(array, block, -1000.0, 1000.0)
    head = coarse_head(blocks, voxel_sizes(affine) * block)
    return _refined(head, block, array.shape, array > SKIN_HU)


def coarse_head(blocks: np.ndarray, size: np.ndarray) -> np.ndarray:
    """`head_mask` on blocks whose edges are `size` mm, (3,)."""
    mask = _grown_back(blocks > SKIN_HU + 1e-3, HEADREST_MM, size)
    return _filled(mask)


def brain_mask_ct(
    array: np.ndarray, affine: np.ndarray, frame: HeadFrame | None = None
) -> np.ndarray:
    """The intracranial space of a CT in HU, with or without contrast: bool (X, Y, Z) on its grid.

    Soft tissue (-30 to 200 HU in 5 mm blocks) within the skull, cut off where it leaves it by a way
    narrower than 12 mm, closed over vessels and calcium. With the head's `frame` nothing deeper than
    0.8 head lengths below the vertex is taken: the foramen magnum is wider than that.
    All False where there is none.
    """
    block = np.minimum(block_of(affine, MASK_MM), array.shape)
    size = voxel_sizes(affine) * block
    blocks = block_means(array, block, -1000.0, 1000.0)
    brain = coarse_brain(blocks, size, np.asarray(affine) @ block_affine(block), frame)
    if (block == 1).all():
        return brain
    return _refined(brain, block, array.shape, (array > SOFT_HU[0]) & (array < BONE_HU))


def coarse_brain(
    blocks: np.ndarray, size: np.ndarray, affine: np.ndarray, frame: HeadFrame | None
) -> np.ndarray:
    """`brain_mask_ct` on blocks whose edges are `size` mm, (3,)."""
    head = coarse_head(blocks, size)
    soft = head & (blocks > SOFT_HU[0]) & (blocks < SOFT_HU[1])
    if frame is not None:
        to_head = np.linalg.inv(frame.affine) @ affine
        i, j, k = (
            np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)])
            for axis, n in enumerate(blocks.shape)
        )
        z = to_head[2, 0] * i + to_head[2, 1] * j + to_head[2, 2] * k + to_head[2, 3]
        soft &= z > -BRAIN_DEPTH * frame.length_mm
    brain = _grown_back(soft, BRIDGE_MM, size)
    if not brain.any():
        return brain
    closed = _eroded(_dilated(brain, VESSEL_MM, size), VESSEL_MM, size)
    return brain | (closed & head & (blocks > SOFT_HU[0]) & (blocks < DENSE_HU))


# ------------------------------------------------------------------------------------ shapes on blocks


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    labels, n = ndimage.label(mask)
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1 if n else mask


def _eroded(mask: np.ndarray, mm: float, size: np.ndarray) -> np.ndarray:
    """What is deeper than `mm` along each axis; the faces of the scan are no surface of the head."""
    from scipy import ndimage

    return ndimage.minimum_filter(mask.view(np.uint8), _width(mm, size), mode="nearest") > 0


def _dilated(mask: np.ndarray, mm: float, size: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.maximum_filter(mask.view(np.uint8), _width(mm, size), mode="nearest") > 0


def _width(mm: float, size: np.ndarray) -> tuple[int, ...]:
    """Voxels across a box that reaches `mm` to each side, one at least."""
    return tuple(2 * int(n) + 1 for n in np.maximum(np.round(mm / size), 1))


def _grown_back(mask: np.ndarray, mm: float, size: np.ndarray) -> np.ndarray:
    """The part of `mask` that is largest once all that is thinner than 2 `mm` is gone, at its full
    width again."""
    return mask & _dilated(_largest(_eroded(mask, mm, size)), mm + float(max(size)), size)


def _filled(mask: np.ndarray) -> np.ndarray:
    """`mask` with its holes filled, slice by slice along the last axis."""
    from scipy import ndimage

    return np.stack([ndimage.binary_fill_holes(mask[..., k]) for k in range(mask.shape[2])], axis=2)


def _refined(
    mask: np.ndarray, block: np.ndarray, shape: tuple[int, ...], wanted: np.ndarray
) -> np.ndarray:
    """A mask of blocks on the voxels: as it is inside, by the voxels' own value along its rim."""
    from scipy import ndimage

    inner = ndimage.binary_erosion(mask, border_value=1)
    outer = ndimage.binary_dilation(mask)
    return enlarged(inner, block, shape) | (enlarged(outer, block, shape) & wanted)
