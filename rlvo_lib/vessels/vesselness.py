"""How much a place looks like a bright tube: eigenvalues of the Hessian at several scales.

The image is smoothed once a scale; the six second derivatives are then taken as differences, and only
at the voxels asked for. Most voxels of a CTA are too dark to be a vessel, so that the eigenvalues of
about a hundredth of them are all that is computed: there goes the time that scikit-image's `frangi`
spends on every voxel.
"""

from __future__ import annotations

import numpy as np

SCALES_MM = (0.6, 0.9, 1.4, 2.0)
"""Standard deviations of the Gaussian, for radii of about 0.5 to 3 mm."""
PASS_VOXELS = 200_000  # so many at a time, so that memory stays flat


def tubeness(
    array: np.ndarray,
    where: np.ndarray,
    spacing: np.ndarray,
    scales_mm: tuple[float, ...] = SCALES_MM,
) -> np.ndarray:
    """Contrast of the bright tube around each voxel of `where`, in the unit of `array`; 0: none.

    array : (X, Y, Z) float32, HU; where : bool of that shape; spacing : mm a voxel, (3,).
    Returns float32, one value for each True of `where`, in the order of `np.nonzero`.

    With eigenvalues |l1| <= |l2| <= |l3| of the Hessian at scale s (mm) it is s^2 sqrt(l2 l3) where
    both are negative (Sato et al., Med Image Anal 1998; the measure of Frangi et al., MICCAI 1998,
    needs a free constant for the image's contrast, this keeps HU), less s^2 |l1|, which tells a tube
    from a ball; the largest over the scales. In the middle of a long tube of radius r and contrast C
    it reaches C (r/s)^2/2 exp(-(r/s)^2/2), at most 0.37 C, at s = r / sqrt(2).
    """
    from scipy import ndimage

    spacing = np.broadcast_to(np.asarray(spacing, dtype=float), 3)
    places = np.flatnonzero(where)
    best = np.zeros(len(places), dtype=np.float32)
    if not len(places) or min(array.shape) < 3:
        return best
    for scale in scales_mm:
        smooth = ndimage.gaussian_filter(
            array, scale / spacing, mode="nearest", truncate=3.0, output=np.float32
        )
        for first in range(0, len(places), PASS_VOXELS):
            part = slice(first, first + PASS_VOXELS)
            values = eigenvalues(hessian(smooth, places[part], spacing))
            tube = np.sqrt(np.clip(values[0], None, 0) * np.clip(values[1], None, 0))
            tube = scale**2 * (tube - np.abs(values[2]))
            np.maximum(best[part], tube, out=best[part])
    return best


def hessian(array: np.ndarray, places: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Second derivatives xx, yy, zz, xy, xz, yz at flat indices `places`, (6, n) float32, a unit/mm^2.

    Central differences; voxels of the outermost layer take those of their neighbour inside.

    >>> x = np.arange(5.0)
    >>> square = np.broadcast_to(x[:, None, None] ** 2, (5, 5, 5)).astype(np.float32)
    >>> hessian(square, np.array([62]), np.ones(3)).ravel().tolist()
    [2.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    inner = np.unravel_index(places, array.shape)
    inner = [np.clip(i, 1, n - 2) for i, n in zip(inner, array.shape, strict=True)]
    at = np.ravel_multi_index(inner, array.shape)
    flat = np.ascontiguousarray(array).ravel()
    steps = (array.shape[1] * array.shape[2], array.shape[2], 1)
    middle = 2 * flat[at]
    out = np.empty((6, len(at)), dtype=np.float32)
    for a in range(3):
        out[a] = (flat[at + steps[a]] + flat[at - steps[a]] - middle) / np.float32(spacing[a] ** 2)
    for row, (a, b) in enumerate(((0, 1), (0, 2), (1, 2)), start=3):
        plus, minus = steps[a] + steps[b], steps[a] - steps[b]
        mixed = flat[at + plus] + flat[at - plus] - flat[at + minus] - flat[at - minus]
        out[row] = mixed / np.float32(4 * spacing[a] * spacing[b])
    return out


def eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues of symmetric 3 x 3 matrices (6, n: xx, yy, zz, xy, xz, yz); (3, n), ascending.

    The closed form (Smith, Commun ACM 1961), some twenty times as fast as LAPACK on many small ones.

    >>> eigenvalues(np.array([[2.0], [1], [3], [0], [0], [0]])).ravel().round(6).tolist()
    [1.0, 2.0, 3.0]
    """
    xx, yy, zz, xy, xz, yz = matrix
    mean = (xx + yy + zz) / 3
    a, b, c = xx - mean, yy - mean, zz - mean
    spread = np.sqrt((a * a + b * b + c * c + 2 * (xy * xy + xz * xz + yz * yz)) / 6)
    safe = np.maximum(spread, np.finfo(matrix.dtype).tiny ** 0.25)
    a, b, c, d, e, f = (v / safe for v in (a, b, c, xy, xz, yz))
    half = (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)) / 2
    angle = np.arccos(np.clip(half, -1, 1)) / 3
    high = mean + 2 * spread * np.cos(angle)
    low = mean + 2 * spread * np.cos(angle + 2 * np.pi / 3)
    return np.stack([low, 3 * mean - high - low, high])
