"""A patient's scans, read and judged: what is no scan of its kind stops here, by name of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlvo_lib import images, perfusion
from rlvo_lib.config import DERIVATIVES, InputError
from rlvo_lib.preprocess.task import Task

SAME_DICE = 0.97  # a given mask that agrees so far with the truth is the truth

#: A scan: its voxels (X, Y, Z), and 4x4 from voxel indices to world mm (RAS+).
Volume = tuple[np.ndarray, np.ndarray]


def read_scan(task: Task, name: str, flags: list[str]) -> Volume:
    """The voxels and affine of one of the task's scans; what is odd but usable is added to `flags`.

    InputError names the file and the fault.
    """
    path, scan = task.scans[name], task.kinds[name]
    array, affine, found = images.load_scan(path, scan)
    slab = [images.CUT] if name == "cta" else []  # a CTA seldom holds the whole head
    flags += [f"{name}: {w.what} ({w.value})" for w in found if w.what not in slab]
    if scan.kind == "mask":
        _refuse_truth(task, path, array, affine)
        _check_binary(path, array)
    elif scan.kind == "map":
        odd = perfusion.check_map(array, name, scan.low, scan.high, scan.unit, path)
        flags += [f"{name}: {words}" for words in odd]
    return array, affine


def _check_binary(path: str, mask: np.ndarray) -> None:
    if not np.isin(np.unique(mask), (0.0, 1.0)).all():
        raise InputError(f"{path}: holds values other than 0 and 1; a binary mask is allowed")


def _refuse_truth(task: Task, path: str, mask: np.ndarray, affine: np.ndarray) -> None:
    """A given mask must not be the simulator's, nor nearly: any of its levels, alone or together,
    in whatever order the voxels are stored.

    Only a simulated dataset has such a truth; it is read here so that no model reads it. This stops
    accidents; whoever wants to can always hand a model what it should not have.
    """
    patient = task.participant_id
    given = images.canonical((mask > 0).astype(np.uint8), affine)[0] > 0
    for truth in sorted(Path(task.root, DERIVATIVES, "truth", patient).glob("*.nii.gz")):
        known, _ = images.canonical(*images.load_nifti(truth))
        if known.shape != given.shape:
            continue
        levels = [level for level in np.unique(known) if level > 0]
        sets = (
            [{level} for level in levels]
            + [set(levels) - {level} for level in levels]
            + [set(levels)]
        )
        for chosen in sets:
            part = np.isin(known, list(chosen))
            if 2 * (part & given).sum() >= SAME_DICE * max(1, part.sum() + given.sum()):
                what = truth.name.removeprefix(f"{patient}_").removesuffix(".nii.gz")
                raise InputError(
                    f"{path}: the true {what} of a simulated patient may not be a model's input; "
                    "allowed: a mask made from the scans"
                )


def check_same_grid(
    path: str, mask: np.ndarray, affine: np.ndarray, cta: np.ndarray, cta_affine: np.ndarray
) -> None:
    if mask.shape != cta.shape or not np.allclose(affine, cta_affine, atol=1e-2):
        raise InputError(
            f"{path}: lies on another grid ({' x '.join(map(str, mask.shape))}) than the CTA "
            f"({' x '.join(map(str, cta.shape))}); the same voxels and affine are allowed"
        )
