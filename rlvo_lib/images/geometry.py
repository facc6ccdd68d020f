"""Where voxels lie: axes, sizes, shear, orientation. Affines are 4x4, voxel indices to world mm (RAS+)."""

from __future__ import annotations

import nibabel as nib
import numpy as np


def is_sheared(affine: np.ndarray, tolerance: float = 1e-3) -> bool:
    """Whether the voxel axes are not at right angles (cosine over `tolerance`): a tilted gantry.

    >>> is_sheared(np.diag([0.5, 0.5, 5, 1]))
    False
    """
    axes = np.asarray(affine, dtype=float)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > tolerance)


def shear_degrees(affine: np.ndarray) -> float:
    """How far the voxel axes are from right angles, at most, in degrees.

    >>> tilted = np.eye(4)
    >>> tilted[1, 2] = 1.0  # slices shifted by a voxel each
    >>> round(shear_degrees(tilted), 1)
    45.0
    """
    axes = np.asarray(affine, dtype=float)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    return float(np.degrees(np.arcsin(min(cosine, 1.0))))


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with its axes closest to x, y, z of the world (RAS+), nothing interpolated.

    >>> array, affine = canonical(np.arange(8.0).reshape(2, 2, 2), np.diag([-1.0, 1, 1, 1]))
    >>> array[0, 0, 0], affine[0, 0]
    (np.float64(4.0), np.float64(1.0))
    """
    image = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    return np.asarray(image.dataobj), np.array(image.affine)


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Edge lengths of a voxel along its three axes, in mm.

    >>> voxel_sizes(np.diag([-0.5, 0.5, 5, 1])).tolist()
    [0.5, 0.5, 5.0]
    """
    return np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
