"""SimpleITK's registration on the same volumes, and the only place where its coordinates are seen.

SimpleITK's physical space is LPS+ (x to the left, y to the back), ours RAS+: `FLIP` turns one into the
other. Its transforms, like the matrices here, lead from the fixed image to the moving one. One thread
and every voxel, no random sample: the same input gives the same bytes. It is the check on `solver`
(tests, benchmarks/registration_accuracy.py), which reaches the same optimum some twenty times faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlvo_lib.registration.solver import Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS+ mm to LPS+ mm, and back."""


def image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """`array` (X, Y, Z) as float32 (bool as uint8) image; `affine` (4x4, to RAS+ mm) without shear."""
    import SimpleITK as sitk

    kind = np.uint8 if array.dtype == bool else np.float32
    out = sitk.GetImageFromArray(np.ascontiguousarray(array.T, dtype=kind))
    lps = FLIP @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    out.SetSpacing(spacing.tolist())
    out.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    out.SetOrigin(lps[:3, 3].tolist())
    return out


def transform(matrix: np.ndarray, centre: np.ndarray, *, rigid: bool) -> sitk.Transform:
    """A 4x4 in RAS+ mm as SimpleITK's Euler (rigid) or affine transform about `centre`, (3,) RAS+ mm."""
    import SimpleITK as sitk

    lps, middle = FLIP @ matrix @ FLIP, FLIP[:3, :3] @ centre
    out = sitk.Euler3DTransform() if rigid else sitk.AffineTransform(3)
    out.SetCenter(middle.tolist())
    out.SetMatrix(lps[:3, :3].ravel().tolist())
    out.SetTranslation((lps[:3, :3] @ middle + lps[:3, 3] - middle).tolist())
    return out


def matrix(found: sitk.Transform) -> np.ndarray:
    """A SimpleITK transform that has a matrix, a translation and a centre, as 4x4 in RAS+ mm."""
    centre = np.array(found.GetCenter())
    out = np.eye(4)
    out[:3, :3] = np.array(found.GetMatrix()).reshape(3, 3)
    out[:3, 3] = np.array(found.GetTranslation()) + centre - out[:3, :3] @ centre
    return FLIP @ out @ FLIP


def register(
    fixed: Volume,
    moving: Volume,
    start: np.ndarray,
    middle: np.ndarray,
    *,
    rigid: bool,
    steps: int = 300,
) -> np.ndarray:
    """4x4, fixed mm to moving mm, found from `start` by SimpleITK: as `solver.register` is called.

    Mean squares, regular-step gradient descent, rigid (6 parameters) or affine (12).
    """
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMeanSquares()
    method.SetMetricFixedMask(image(fixed.inside, fixed.affine))
    method.SetMetricMovingMask(image(moving.inside, moving.affine))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-4, numberOfIterations=steps, relaxationFactor=0.5,
        gradientMagnitudeTolerance=1e-8,
    )  # fmt: skip
    method.SetOptimizerScalesFromPhysicalShift()
    found = transform(start, middle, rigid=rigid)
    method.SetInitialTransform(found, inPlace=True)
    method.Execute(image(fixed.array, fixed.affine), image(moving.array, moving.affine))
    return matrix(found)
