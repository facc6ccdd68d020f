"""Virtual lesions: one compact lesion in one territory of an atlas, brought to the model's grid as real masks are.

A lesion is laid in the atlas's own voxels (world mm, RAS+): the voxel of the territory that is nearest to the
territory's middle, and the voxels of the territory nearest to that one until the volume is reached. Lesions of one
territory are nested. No patient has such a lesion: real ones cross borders and follow vessels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rlvo_lib import images, storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError
from rlvo_lib.explain import keeping
from rlvo_lib.preprocess import Task, patient_tensor

#: Volumes of the lesions that are laid where they fit, in mL.
SIZES_ML = (1.0, 3.0, 10.0, 30.0)
#: The modules that bring a mask to the model's grid.
CODE = ("images", "head", "registration", "vessels", "perfusion", "preprocess")


@dataclass(frozen=True)
class VirtualLesion:
    """A lesion in the territory ``label``: the volume wanted, and the one of its voxels (mL)."""

    label: int
    size_ml: float
    ml: float
    voxels: np.ndarray  # (n,) places in the raveled atlas


def load_atlas(path: str | Path, territories: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (X, Y, Z) uint8 of an atlas, 0 outside, and 4x4 from voxel indices to world mm (RAS+).

    Raises
    ------
    InputError
        If it holds other values than 0 and all of 1 to ``territories``.
    """
    labels, affine = images.load_nifti(path)
    found = np.unique(labels)
    if not np.array_equal(found[found != 0], np.arange(1, territories + 1)):
        raise InputError(
            f"{path}: holds {len(found)} labels from {found[0]:g} to {found[-1]:g}; allowed: 0 and all of 1 "
            f"to {territories}, one for each column of the study's territories"
        )
    return labels.astype(np.uint8), affine


def lay(
    labels: np.ndarray, affine: np.ndarray, sizes_ml: Sequence[float] = SIZES_ML
) -> list[VirtualLesion]:
    """A lesion of each size in each territory that is large enough, by label and size.

    Parameters
    ----------
    labels : (X, Y, Z), 0 outside; affine : 4x4, voxel indices to world mm.

    Examples
    --------
    >>> line = np.array([[[0, 1, 1, 1, 2]]])
    >>> [(one.label, one.ml, one.voxels.tolist()) for one in lay(line, np.diag([10.0, 10, 10, 1]), (1, 2))]
    [(1, 1.0, [2]), (1, 2.0, [1, 2]), (2, 1.0, [4])]
    """
    voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    found = []
    for label in (int(one) for one in np.unique(labels) if one):
        flat = np.flatnonzero(labels.ravel() == label)
        places = np.stack(np.unravel_index(flat, labels.shape), axis=1) @ affine[:3, :3].T
        middle = places[_nearest(places, places.mean(axis=0))[0]]
        order = flat[_nearest(places, middle)]
        for size in sizes_ml:
            n = max(1, round(size / voxel_ml))
            if n <= len(order):
                own = np.sort(order[:n])
                found.append(VirtualLesion(label, float(size), round(n * voxel_ml, 6), own))
    return found


def _nearest(places: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The order of places (n, 3) by distance; of equal ones the first in the volume comes first."""
    return np.argsort(((places - to) ** 2).sum(axis=1).round(6), kind="stable")


def mask_of(arm: Arm, analysis: Analysis) -> str:
    """The mask scan that all channels of an arm show; empty if it sees anything else."""
    study = analysis.settings.study
    scans = {study.channels[name].scan for name in arm.channels}
    is_mask = len(scans) == 1 and study.scans[next(iter(scans))].kind == "mask"
    return next(iter(scans)) if is_mask else ""


def on_grid(
    labels: np.ndarray, affine: np.ndarray, lesions: Sequence[VirtualLesion], task: Task, scan: str
) -> np.ndarray:
    """The model's tensors (1 + L, C, D, H, W) float16 of an empty mask, then of L lesions.

    Each mask is written as a file and passes `preprocess.patient_tensor`, as a patient's does.

    Parameters
    ----------
    task : of any patient, whose grid, channels and kinds of scan count; their scans do not.
    scan : the name of the mask.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lesion.nii.gz"
        own = replace(task, participant_id="virtual", root=folder, scans={scan: str(path)})
        return np.stack([
            patient_tensor(_written(path, mask, affine, own))[0]["tensor"]
            for mask in _masks(labels.shape, lesions)
        ])  # fmt: skip


def _written(path: Path, mask: np.ndarray, affine: np.ndarray, task: Task) -> Task:
    images.save_nifti(path, mask, affine)
    return task


def _masks(shape: tuple[int, ...], lesions: Sequence[VirtualLesion]) -> Iterator[np.ndarray]:
    yield np.zeros(shape, np.uint8)
    for lesion in lesions:
        mask = np.zeros(shape, np.uint8)
        mask.ravel()[lesion.voxels] = 1
        yield mask


def tensors_of(
    analysis: Analysis, path: Path, lesions: Sequence[VirtualLesion], task: Task, scan: str
) -> np.ndarray:
    """`on_grid` of the atlas at ``path``, kept in the cache."""
    labels, affine = images.load_nifti(path)
    grid = (task.grid, task.channels, task.grid_shape, task.grid_spacing_mm, task.kinds[scan])
    depends = [storage.digest(path), repr(grid), scan, [(one.label, one.size_ml) for one in lesions],
               storage.code_key(*CODE)]  # fmt: skip
    return keeping.kept_array(
        analysis,
        "virtual-lesions",
        depends,
        lambda: on_grid(labels, affine, lesions, task, scan),
    )
