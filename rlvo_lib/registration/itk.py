"""SimpleITK at arm's length: the only place where its coordinates (LPS) and transforms are seen.

SimpleITK's physical space is LPS+ (x to the left, y to the back), ours RAS+: `FLIP` turns one into the
other. Its transforms lead from points of the fixed image to points of the moving one, as do the
matrices here. One thread and every voxel, no random sample: the same input gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS+ mm to LPS+ mm, and back."""


def image(array: np.ndarray, affine: np.ndarray):
    """A SimpleITK float32 (bool: uint8) image of `array` (X, Y, Z) whose `affine` (4x4, RAS+) has no shear."""
    import SimpleITK as sitk

    kind = np.uint8 if array.dtype == bool else np.float32
    out = sitk.GetImageFromArray(np.ascontiguousarray(array.T, dtype=kind))
    lps = FLIP @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    out.SetSpacing(spacing.tolist())
    out.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    out.SetOrigin(lps[:3, 3].tolist())
    return out


def matrix(transform) -> np.ndarray:
    """A SimpleITK transform with matrix, translation and centre as 4x4 in RAS+ mm."""
    centre = np.array(transform.GetCenter())
    out = np.eye(4)
    out[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    out[:3, 3] = np.array(transform.GetTranslation()) + centre - out[:3, :3] @ centre
    return FLIP @ out @ FLIP


@dataclass(frozen=True)
class Freedom:
    """Which motions are free: all of a rigid body, or those that leave the plane x = 0 where it is."""

    affine: bool
    weights: tuple[float, ...]


RIGID = Freedom(False, (1, 1, 1, 1, 1, 1))
#: turn about x, shifts along y and z: the mid-plane slides in itself
SAGITTAL = Freedom(False, (1, 0, 0, 0, 1, 1))
#: the same, with scales along x, y, z and a shear of y and z
SAGITTAL_AFFINE = Freedom(True, (1, 0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1))


def register(
    fixed: tuple[np.ndarray, np.ndarray],
    moving: tuple[np.ndarray, np.ndarray],
    fixed_mask: np.ndarray | None,
    moving_mask: np.ndarray | None,
    start: np.ndarray,
    freedom: Freedom,
    *,
    centre: np.ndarray,
    metric: str = "correlation",
    steps: int = 60,
    shrink: tuple[int, ...] = (1,),
    sampling: float = 1.0,
    learning: float = 2.0,
    opt="rs",
    conv=1e-5,
    least: float = 0.02,
) -> np.ndarray:
    """4x4, fixed mm to moving mm, found from `start` by minus the correlation of both images.

    Volumes are (array (X, Y, Z), affine without shear). Masks: bool on the same grids, where to look.
    `centre`: fixed mm, (3,), about which turns and scales are taken.
    """
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    if metric == "correlation":
        method.SetMetricAsCorrelation()
    elif metric == "mse":
        method.SetMetricAsMeanSquares()
    else:
        method.SetMetricAsMattesMutualInformation(32)
    if sampling < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(sampling)
    if fixed_mask is not None:
        method.SetMetricFixedMask(image(fixed_mask, fixed[1]))
    if moving_mask is not None:
        method.SetMetricMovingMask(image(moving_mask, moving[1]))
    method.SetInterpolator(sitk.sitkLinear)
    transform = sitk.AffineTransform(3) if freedom.affine else sitk.Euler3DTransform()
    lps = FLIP @ start @ FLIP
    middle = (FLIP[:3, :3] @ centre).tolist()
    transform.SetCenter(middle)
    transform.SetMatrix(lps[:3, :3].ravel().tolist(), *(() if freedom.affine else (1e-6,)))
    transform.SetTranslation((lps[:3, :3] @ middle + lps[:3, 3] - middle).tolist())
    if opt == "rs":
        method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=learning, minStep=least, numberOfIterations=steps, relaxationFactor=0.5,
        gradientMagnitudeTolerance=1e-8,
    )  # fmt: skip
    elif opt == "cg":
        method.SetOptimizerAsConjugateGradientLineSearch(
            learningRate=learning,
            numberOfIterations=steps,
            convergenceMinimumValue=conv,
            convergenceWindowSize=5,
            lineSearchLowerLimit=0,
            lineSearchUpperLimit=5.0,
            lineSearchEpsilon=0.05,
            lineSearchMaximumIterations=8,
            estimateLearningRate=method.Once,
        )
    elif opt == "gl":
        method.SetOptimizerAsGradientDescentLineSearch(
            learningRate=learning,
            numberOfIterations=steps,
            convergenceMinimumValue=conv,
            convergenceWindowSize=5,
            lineSearchLowerLimit=0,
            lineSearchUpperLimit=5.0,
            lineSearchEpsilon=0.05,
            lineSearchMaximumIterations=8,
            estimateLearningRate=method.EachIteration,
        )
    elif opt == "gd":
        method.SetOptimizerAsGradientDescent(
            learningRate=learning,
            numberOfIterations=steps,
            convergenceMinimumValue=conv,
            convergenceWindowSize=5,
            estimateLearningRate=method.EachIteration,
        )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetOptimizerWeights(list(freedom.weights))
    if len(shrink) > 1 or shrink[0] > 1:
        method.SetShrinkFactorsPerLevel(list(shrink))
        method.SetSmoothingSigmasPerLevel([0.0] * len(shrink))
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(image(*fixed), image(*moving))
    if register.verbose:
        print(
            method.GetOptimizerIteration(),
            method.GetMetricValue(),
            method.GetOptimizerStopConditionDescription(),
        )
    return matrix(transform)


register.verbose = False
