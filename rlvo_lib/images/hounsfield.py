"""CT values: a scan in HU, and the window that a network sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlvo_lib.config import InputError
from rlvo_lib.images.nifti import load_nifti

AIR_HU = -1024.0
"""The lowest HU kept: scanners pad with lower values (-1500, -2000, -3024), which mean nothing."""


def load_ct(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """A CT scan as (X, Y, Z) float32 HU and its affine; padding below -1024 is clipped to -1024.

    Raises InputError as `load_nifti` does, and where the values cannot be HU (`check_hu`).
    """
    array, affine = load_nifti(path)
    return check_hu(array, path), affine


def check_hu(array: np.ndarray, path: str | Path) -> np.ndarray:
    """`array` with padding clipped to -1024 HU; InputError, naming `path`, if it is not a head CT.

    A head CT has air (something at or below -200 HU) and soft tissue (some voxels in 0-100 HU,
    more than 1 in 100). A picture scaled to 0-255 or 0-1, or a brain cut out of its skull, has not.
    """
    low, high = float(array.min()), float(array.max())
    said = f"{path}: its values {low:g} to {high:g}"
    if low >= 0 and high <= 255:
        scale = "0 to 1" if high <= 1 else "0 to 255"
        raise InputError(f"{said} are a picture's ({scale}); a CT must be in HU, air near -1000")
    if low > -200:
        raise InputError(f"{said} hold no air (nothing below -200); a CT must be in HU, uncropped")
    sample = array[::2, ::2]
    tissue = float(np.count_nonzero((sample > 0) & (sample < 100)) / sample.size)
    if tissue < 0.01:
        raise InputError(
            f"{said} hold hardly any soft tissue ({tissue:.1%} of voxels in 0 to 100 HU, at least "
            "1 % in a head CT)"
        )
    return np.maximum(array, np.float32(AIR_HU)) if low < AIR_HU else array


def window(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """`array` scaled so that `low` becomes 0 and `high` 1, and clipped there; float32.

    >>> window(np.array([-50.0, 20.0, 500.0]), 0, 80).tolist()
    [0.0, 0.25, 1.0]
    """
    scaled = (np.asarray(array, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0, out=scaled)
