"""CT values: a scan in HU, and the window that a network sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlvo_lib.images.findings import Finding, error, refuse
from rlvo_lib.images.nifti import load_nifti

AIR_HU = -1024.0
"""The lowest HU kept: scanners pad with lower values (-1500, -2000, -3024), which mean nothing."""

HIGHEST_AIR_HU = -200.0
"""Air, even mixed with skin in thick slices, lies below; fat (-100) above."""

HIGHEST_HU = 31743.0
"""The extended CT scale ends at 30,710 HU (metal); the unsigned twin of -1024 is 64,512."""

LEAST_TISSUE = 0.01
"""Share of voxels of soft tissue in a head CT: 20 to 60 % of a head field of view, 5 % of a large one."""


def load_ct(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """A CT scan as (X, Y, Z) float32 HU and its affine; padding below -1024 is clipped to -1024.

    Raises InputError as `load_nifti` does, and where the values cannot be HU (`check_hu`).
    """
    array, affine = load_nifti(path)
    return check_hu(array, path), affine


def check_hu(array: np.ndarray, path: str | Path) -> np.ndarray:
    """`array` with padding clipped to -1024 HU; InputError, naming `path`, if it is not a head CT."""
    refuse(hu_findings(array), path)
    return clip_padding(array)


def clip_padding(array: np.ndarray) -> np.ndarray:
    """`array` with everything below -1024 HU raised to it."""
    return np.maximum(array, np.float32(AIR_HU)) if array.min() < AIR_HU else array


def hu_findings(array: np.ndarray) -> list[Finding]:
    """Whether the values can be the HU of a head CT: at most one error.

    A head CT has air (something at or below -200 HU) and soft tissue (some voxels in 0-100 HU,
    more than 1 in 100). A picture scaled to 0-255 or 0-1, HU that lack their offset, or a brain cut
    out of its skull, has not.
    """
    low, high = float(array.min()), float(array.max())
    value = f"values {low:g} to {high:g}"
    if low == high:
        return [error("every voxel has the same value", value, "a scan")]
    if low >= 0 and high <= 255:
        scale = "0 to 1" if high <= 1 else "0 to 255"
        what = f"its values are a picture's ({scale}); a CT must be in HU"
        return [error(what, value, "HU, air near -1000: convert again from DICOM")]
    if high > HIGHEST_HU:
        what = f"has values over {HIGHEST_HU:g}: negative HU were stored as unsigned numbers"
        return [error(what, value, "HU, air near -1000: convert again from DICOM")]
    sample = array[::2, ::2]
    lifted = min(_share(sample, 1000, 1124), _share(sample, low - 1, 200))  # tissue, and air
    if low > HIGHEST_AIR_HU and lifted > LEAST_TISSUE:
        what = "its values are HU without their offset: air near 0, soft tissue near 1024"
        mend = "HU, air near -1000: convert again from DICOM, or add the rescale intercept (-1024)"
        return [error(what, value, mend)]
    if low > HIGHEST_AIR_HU:
        what = "holds no air (nothing below -200); a CT must be in HU, uncropped"
        return [error(what, value, "HU, air near -1000, the skull not removed")]
    tissue = _share(sample, 0, 100)
    if tissue < LEAST_TISSUE:
        what = f"holds hardly any soft tissue ({tissue:.1%} of voxels in 0 to 100 HU)"
        return [error(what, value, "at least 1 %, as in a head CT")]
    return []


def _share(sample: np.ndarray, low: float, high: float) -> float:
    return float(np.count_nonzero((sample > low) & (sample < high)) / sample.size)


def window(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """`array` scaled so that `low` becomes 0 and `high` 1, and clipped there; float32.

    >>> window(np.array([-50.0, 20.0, 500.0]), 0, 80).tolist()
    [0.0, 0.25, 1.0]
    """
    scaled = (np.asarray(array, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0, out=scaled)
