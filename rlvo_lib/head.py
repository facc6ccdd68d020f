"""The pose of a head in the scanner, from its mirror symmetry and its outline.

The **head frame** is rigid: origin in the mid-sagittal plane, midway along the head front to back,
at the vertex; axes right, anterior, superior of the head, in mm. All scans of a patient share the
scanner's world (mm, RAS+), so the frame found in one of them serves all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvo_lib import images

CT_SCANS = ("ncct", "cta")
HEAD_GRID_MM = 5.0
SKIN_HU = -300.0
SKULL_AND_SCALP_MM = 10.0
CRANIUM_MM = 105.0
"""Depth below the vertex within which the head is nearly symmetric (no jaw, no neck)."""


@dataclass(frozen=True)
class HeadFrame:
    """Where a head lies in the scanner: a rigid pose, the head's length and what was uncertain."""

    affine: np.ndarray  # 4x4, head mm -> world mm (RAS+)
    length_mm: float  # skin to skin, front to back, above the skull base
    scan: str  # the scan it was taken from
    flags: tuple[str, ...] = ()

    @property
    def midline(self) -> np.ndarray:
        """The mid-sagittal plane (a, b, c, d) in world mm; a*x + b*y + c*z > d is the right."""
        normal = self.affine[:3, 0]
        return np.append(normal, normal @ self.affine[:3, 3])


def head_frame(array: np.ndarray, affine: np.ndarray, scan: str = "ncct") -> HeadFrame:
    """The pose of the head in a CT (X, Y, Z) in HU; or, for a perfusion map, of the brain.

    Yaw, roll and x come from mirror symmetry (Gauss-Newton on the difference between the image,
    5 mm voxels, -300..300 HU, and its mirror image), y from the middle of the head's length, z from
    the vertex. Pitch is not corrected. On the embedded NCCTs (rotations of SD 3 degrees, shifts of
    SD 5 mm) the errors are 0.2 degrees (at most 0.6) and 0.1 mm for the mid-plane, 1.4 mm in y and
    z; docs/imaging.md has those of the other scans. Where the top of the head is cut, the vertex is
    extrapolated, and flagged if by more than 10 mm.
    """
    ct = scan in CT_SCANS
    grid_affine, shape = _head_grid(array.shape, affine)
    low, high = (-1000.0, 300.0) if ct else (0.0, float(np.percentile(array, 99)) or 1.0)
    head = images.resample(np.clip(array, low, high), affine, grid_affine, shape, fill=low)
    mask = _largest(head > SKIN_HU if ct else head > 0.05 * high)
    if not mask.any():
        return HeadFrame(grid_affine, 185.0, scan, (f"no head found in {scan}",))
    low = SKIN_HU if ct else 0.0
    head = np.where(mask, np.maximum(head, low), low)
    vertex, guessed = _vertex(mask, grid_affine)
    vertex += 0.0 if ct else SKULL_AND_SCALP_MM
    inside = np.argwhere(mask) @ grid_affine[:3, :3].T + grid_affine[:3, 3]
    middle = np.median(inside[inside[:, 2] > vertex - CRANIUM_MM], axis=0)
    frame = np.eye(4)
    frame[:3, 3] = [middle[0], middle[1], vertex]
    frame = _symmetric_frame(head, grid_affine, frame, (high - low) / 4)
    inside = (inside - frame[:3, 3]) @ frame[:3, :3]
    band = inside[(inside[:, 2] < -25) & (inside[:, 2] > -85) & (np.abs(inside[:, 0]) < 60), 1]
    back, front = np.percentile(band, (0.5, 99.5)) if len(band) else (-92.5, 92.5)
    frame[:3, 3] += frame[:3, 1] * (back + front) / 2
    flags = (f"the top of the head is outside the {scan}",) if guessed > 10 else ()
    if scan != "ncct":
        flags += (f"pose taken from the {scan}, no ncct",)
    length = front - back + (0.0 if ct else 2 * SKULL_AND_SCALP_MM)
    return HeadFrame(frame, float(np.clip(length, 150.0, 225.0)), scan, flags)


def _head_grid(shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """A coarse grid along the world axes that holds the whole scan (at most 400 mm a side)."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    middle = (world.max(axis=1) + world.min(axis=1)) / 2
    extent = np.minimum(world.max(axis=1) - world.min(axis=1), 400.0)
    counts = np.maximum(np.floor(extent / HEAD_GRID_MM) + 1, 2).astype(int)
    grid = np.diag([HEAD_GRID_MM] * 3 + [1.0])
    grid[:3, 3] = middle - HEAD_GRID_MM * (counts - 1) / 2
    return grid, tuple(int(n) for n in counts)


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected component, so that the head rest and cables are left out."""
    from scipy import ndimage

    labels, n = ndimage.label(mask)
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1 if n else mask


VERTEX_AREA_MM2 = 1500.0
LONGEST_GUESS_MM = 50.0


def _vertex(mask: np.ndarray, affine: np.ndarray) -> tuple[float, float]:
    """World z (mm) where the head's cross-section falls below 15 cm2, and how much was guessed.

    That is some 3 mm below the topmost point, and steadier. Of a head that is cut, the
    cross-section A is taken to go on falling as a sphere's does that fell by s mm2/mm over the last
    15 mm: A(0) - A(d) = (s + 15 pi) d + pi d^2, for at most 50 mm. The guessed part is returned in
    mm, 0 for a whole head.
    """
    areas = mask.sum(axis=(0, 1)) * HEAD_GRID_MM**2
    wide = np.flatnonzero(areas >= VERTEX_AREA_MM2)
    last = int(wide[-1]) if len(wide) else int(np.flatnonzero(areas)[-1])
    z = float(affine[2, 3] + HEAD_GRID_MM * last)
    if last < len(areas) - 1:
        fall = areas[last] - areas[last + 1]
        part = (areas[last] - VERTEX_AREA_MM2) / fall if fall > 0 else 0.0
        return z + HEAD_GRID_MM * float(np.clip(part, 0, 1)), 0.0
    fall_per_mm = (areas[max(last - 3, 0)] - areas[last]) / (3 * HEAD_GRID_MM)
    slope = max(fall_per_mm, 0.0) + 3 * HEAD_GRID_MM * np.pi
    missing = max(areas[last] - VERTEX_AREA_MM2, 0.0)
    guessed = (np.sqrt(slope**2 + 4 * np.pi * missing) - slope) / (2 * np.pi)
    guessed = float(np.clip(guessed, 0, LONGEST_GUESS_MM))
    return z + guessed, guessed


def _symmetric_frame(
    head: np.ndarray, affine: np.ndarray, start: np.ndarray, scale: float, steps: int = 6
) -> np.ndarray:
    """`start` turned (about z and y) and moved (along x) until the head equals its mirror image.

    Differences well over `scale` (HU, or the map's unit) count for little: lesions, not pose.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(head, 1.0, mode="nearest")
    shape = np.array([35, 41, 21])
    local = np.diag([HEAD_GRID_MM] * 3 + [1.0])
    local[:3, 3] = [-85.0, -100.0, -CRANIUM_MM]
    x, y, z = (
        (np.arange(n) * HEAD_GRID_MM + o).reshape([-1 if i == a else 1 for i in range(3)])
        for a, (n, o) in enumerate(zip(shape, local[:3, 3], strict=True))
    )
    # Where a slab is cut its faces are not the head's: they must not look like asymmetry.
    inner_affine = affine.copy()
    inner_affine[:3, 3] += HEAD_GRID_MM
    inner_shape = tuple(n - 2 for n in head.shape)
    frame = start.copy()
    for _ in range(steps):
        to_source = np.linalg.inv(affine) @ frame @ local
        image = ndimage.affine_transform(
            smooth, to_source[:3, :3], to_source[:3, 3], tuple(shape), order=1, mode="nearest"
        )
        seen = images.field_of_view(inner_shape, inner_affine, frame @ local, tuple(shape))
        if np.count_nonzero(seen & seen[::-1]) < 500:
            break
        gx, gy, gz = np.gradient(image, HEAD_GRID_MM)
        moved = np.stack([gx, x * gy - y * gx, x * gz - z * gx])  # shift x, yaw, roll
        moved = (moved - moved[:, ::-1]).reshape(3, -1)
        difference = (image - image[::-1]).ravel()
        weight = (seen & seen[::-1]).ravel() / (1.0 + (difference / scale) ** 2)
        normal = (moved * weight) @ moved.T
        if np.linalg.cond(normal) > 1e12:
            break
        dx, yaw, roll = np.linalg.solve(normal, -(moved * weight) @ difference)
        step = np.clip([dx, yaw, roll], [-8, -0.1, -0.1], [8, 0.1, 0.1])
        frame = frame @ _small_motion(*step)
        if abs(step[0]) < 0.05 and max(abs(step[1:])) < 0.0005:
            break
    return frame


def _small_motion(dx: float, yaw: float, roll: float) -> np.ndarray:
    """A shift along x and turns about z (towards y) and y (towards z), in mm and radians."""
    about_z, about_y = np.eye(4), np.eye(4)
    about_z[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    about_y[[0, 0, 2, 2], [0, 2, 0, 2]] = [np.cos(roll), -np.sin(roll), np.sin(roll), np.cos(roll)]
    motion = about_z @ about_y
    motion[0, 3] = dx
    return motion
