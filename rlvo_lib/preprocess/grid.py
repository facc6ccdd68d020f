"""Where the tensor's grid lies in the head, and from there in the patient's world.

Head mm: origin in the mid-sagittal plane, midway along the head, at the vertex; axes right,
anterior, superior (`head.HeadFrame`, and the template).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlvo_lib.config import Grid, View

# The parts of the head that the grid holds; chosen for the anterior circulation.
ACROSS_MIDLINE_MM = 12.0  # the hemisphere's crop reaches so far into the other one
GRID_CENTRE_Y_MM = 5.0  # its centre lies so far before the middle of the head
BASE_BELOW_VERTEX = 0.64  # its floor, just below the circle of Willis, in head lengths
ABOVE_VERTEX_MM = 5.0  # region "head": the top, above the vertex


def tensor_affine(
    pose: np.ndarray,
    length_mm: float,
    side: str | None,
    *,
    flip_to: str,
    region: str,
    shape: Sequence[int],
    spacing_mm: float,
) -> np.ndarray:
    """4x4 from tensor voxel indices to world mm (RAS+).

    Parameters
    ----------
    pose : 4x4, head mm to world mm; rigid, or affine where heads are brought to one size
    length_mm : the head's length in head mm, skin to skin
    side : the affected side, "left", "right" or None (unknown: nothing is mirrored)
    flip_to : the side that the affected one is brought to by a negative x axis, or "none"
    region : what the grid holds, see `config.Grid`; without a flip, "hemisphere" is "convexity"
    shape, spacing_mm : the grid's voxels along x, y, z, and their edge

    Examples
    --------
    >>> grid = tensor_affine(np.eye(4), 185.0, "right", flip_to="left", region="hemisphere",
    ...                      shape=(32, 40, 32), spacing_mm=3.0)
    >>> grid[:3, 3].round(1).tolist(), float(grid[0, 0])
    ([82.5, -53.5, -116.9], -3.0)
    """
    extent = np.asarray(shape) * spacing_mm
    low = np.array([-extent[0] / 2, GRID_CENTRE_Y_MM - extent[1] / 2, 0.0])
    low[2] = -BASE_BELOW_VERTEX * length_mm
    if region == "head":
        low[1:] = -extent[1] / 2, ABOVE_VERTEX_MM - extent[2]
    elif region == "hemisphere" and flip_to == "left":
        low[0] = ACROSS_MIDLINE_MM - extent[0]
    elif region == "hemisphere" and flip_to == "right":
        low[0] = -ACROSS_MIDLINE_MM
    grid = np.diag([spacing_mm] * 3 + [1.0])
    grid[:3, 3] = low + spacing_mm / 2
    mirror = flip_to != "none" and side is not None and side != flip_to
    return pose @ np.diag([-1.0 if mirror else 1.0, 1, 1, 1]) @ grid


def standing_grid(grid: Grid, shape: Sequence[int], spacing_mm: float) -> np.ndarray:
    """4x4 from tensor voxel indices to world mm of a standard space that the scans already share."""
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = grid.centre_mm - spacing_mm * (np.asarray(shape) - 1) / 2
    return affine


def outward(side: str | None) -> float:
    """Which way along x leads outwards from the midline on the affected side (unknown: the left)."""
    return 1.0 if side == "right" else -1.0


def view_affine(
    view: View,
    pose: np.ndarray,
    scale: float,
    side: str | None,
    *,
    flip_to: str,
    occlusion: np.ndarray | None,
) -> np.ndarray:
    """4x4 from a view's voxel indices to world mm (RAS+).

    Parameters
    ----------
    pose : 4x4, head mm to world mm
    scale : of the head's length to the template's, by which ``centre_mm`` is stretched
    side, flip_to : as of `tensor_affine`: a view is mirrored where the tensor is
    occlusion : (3,) head mm where the occlusion was found on the affected side; None: nowhere

    Examples
    --------
    >>> view = View(("cta",), (9, 9, 9), 1.0, (30.0, 20.0, -97.0))
    >>> grid = view_affine(view, np.eye(4), 1.0, "right", flip_to="left", occlusion=None)
    >>> (grid @ [4, 4, 4, 1])[:3].tolist(), float(grid[0, 0])
    ([30.0, 20.0, -97.0], -1.0)
    """
    sign = outward(side)
    if view.follow == "occlusion" and occlusion is not None:
        centre = occlusion + np.array(view.offset_mm) * [sign, 1, 1]
    else:
        centre = np.array(view.centre_mm) * scale * [sign, 1, 1]
    mirror = flip_to != "none" and side is not None and side != flip_to
    step = np.array([-1.0 if mirror else 1.0, 1, 1]) * view.spacing_mm
    grid = np.diag([*step, 1.0])
    grid[:3, 3] = centre - step * (np.asarray(view.shape) - 1) / 2
    return pose @ grid


def mirrored(pose: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The grid's mirror image in the mid-sagittal plane of `pose`; 4x4, tensor indices to world mm.

    >>> mirrored(np.eye(4), np.diag([2.0, 2, 2, 1]))[0].tolist()
    [-2.0, 0.0, 0.0, 0.0]
    """
    return pose @ np.diag([-1.0, 1, 1, 1]) @ np.linalg.inv(pose) @ grid
