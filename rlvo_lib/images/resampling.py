"""A scan on another grid, by one interpolation."""

from __future__ import annotations

import numpy as np

from rlvo_lib.images.geometry import voxel_sizes


def field_of_view(
    shape: tuple[int, ...],
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: tuple[int, ...],
) -> np.ndarray:
    """Which voxels of the target grid have their centre inside the scan; bool of `target_shape`.

    A scan's field of view ends at the outer faces of its outer voxels, not at their centres.
    """
    to_source = np.linalg.inv(affine) @ np.asarray(target_affine)
    inside = np.ones(target_shape, dtype=bool)
    for row, n in zip(to_source[:3], shape, strict=True):
        i, j, k = (
            np.arange(m, dtype=np.float64) * step
            for m, step in zip(target_shape, row[:3], strict=True)
        )
        place = i[:, None, None] + j[:, None] + (k + row[3])
        inside &= (place >= -0.5) & (place <= n - 0.5)
    return inside


def resample(
    array: np.ndarray,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: tuple[int, int, int],
    fill: float,
    order: int = 1,
) -> np.ndarray:
    """`array` (X, Y, Z) on another grid, by one interpolation; float32 of `target_shape`.

    Both affines are 4x4, voxel indices to world mm (RAS+); sheared and mirrored ones are fine.
    Where the target voxel is larger than the source voxel (t > s mm along a source axis) the
    source is first smoothed with a Gaussian of sigma = sqrt(t^2 - s^2) / 2.355 mm, so that detail
    the target cannot hold is averaged and not aliased. Outside the field of view: `fill`.
    """
    from scipy import ndimage

    target_affine = np.asarray(target_affine, dtype=float)
    inside = field_of_view(array.shape, affine, target_affine, target_shape)
    if not inside.any():
        return np.full(target_shape, fill, dtype=np.float32)
    to_source = np.linalg.inv(affine) @ target_affine
    sizes = voxel_sizes(affine)
    directions = np.asarray(affine, dtype=float)[:3, :3] / sizes
    steps = np.linalg.norm(target_affine[:3, :3].T @ directions, axis=0)
    sigmas = np.sqrt(np.maximum(steps**2 - sizes**2, 0.0)) / 2.355 / sizes
    sigmas[sigmas < 0.2] = 0.0
    part, start = _needed_part(array.shape, to_source, target_shape, 4.0 * sigmas + 2.0)
    source = array[part].astype(np.float32, copy=False)
    if sigmas.any():
        source = ndimage.gaussian_filter(source, sigmas, mode="nearest", truncate=3.0)
    out = ndimage.affine_transform(
        source,
        to_source[:3, :3],
        to_source[:3, 3] - start,
        output_shape=tuple(target_shape),
        output=np.float32,
        order=order,
        mode="nearest",
    )
    out[~inside] = fill
    return out


def _needed_part(
    shape: tuple[int, ...], to_source: np.ndarray, target_shape: tuple[int, ...], margin: np.ndarray
) -> tuple[tuple[slice, ...], np.ndarray]:
    """The block of source voxels (slices, and its first index) that a target grid looks at."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in target_shape])).reshape(3, -1)
    places = to_source[:3, :3] @ corners + to_source[:3, 3:]
    last = np.asarray(shape) - 1
    first = np.clip(np.floor(places.min(axis=1) - margin), 0, last).astype(int)
    stop = np.clip(np.ceil(places.max(axis=1) + margin), 0, last).astype(int) + 1
    return tuple(slice(a, b) for a, b in zip(first, stop, strict=True)), first.astype(float)
