"""Arterial territories on the package's template, and how they lie on a patient's tensor.

Labels: 1 ACA, 2 MCA, 3 PCA on the right, 4 to 6 on the left, 7 what else is intracranial; 0 outside. The package's
own atlas is that of the generic anatomy which the embedded cohort is made from: borders between territories vary
between people, and nobody's angiogram stands behind these. `python -m rlvo_lib.explain.atlas` makes it.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from rlvo_lib import images, registration
from rlvo_lib.config import InputError, Settings
from rlvo_lib.preprocess import TensorCache
from rlvo_lib.registration.template import TEMPLATE_FILE

ATLAS_FILE = Path(__file__).with_name("territories.nii.gz")
TERRITORIES = {"aca": 1, "mca": 2, "pca": 3}
ON_THE_LEFT = 3  # is added to a label
OTHER = 7
AGE = 70.0  # years, of the generic head
DESCRIPTION = "SIMULATED anatomy: territories on the template; rlvo-repro"


def on_tensor(
    settings: Settings, cache: TensorCache, participant: str, path: str | Path = ""
) -> np.ndarray | None:
    """The atlas' labels on a patient's tensor, (D, H, W) uint8; None where no atlas fits the study.

    path : another atlas, NIfTI with the labels above, in template mm (in a study whose scans share a standard
        space: in that space). Left out, the package's own, which such a study has no use for.
    """
    record = cache.records[participant]
    if not path and record["head_to_world"] is None:
        return None
    labels, affine = load(path)
    to_world = np.eye(4)
    if record["head_to_world"] is not None:
        length = registration.load_template(settings.template or None).length_mm
        scale = record["length_mm"] / length  # 1 where heads are brought to the template's size
        to_world = np.array(record["head_to_world"]) @ np.diag([scale] * 3 + [1.0])
    shape = tuple(record["grid"]["shape"])
    return nearest(labels, np.linalg.inv(to_world @ affine) @ cache.affine(participant), shape)


def load(path: str | Path = "") -> tuple[np.ndarray, np.ndarray]:
    """Labels (X, Y, Z) uint8 of an atlas, the package's own by default, and 4x4 to template mm.

    Raises
    ------
    InputError
        For a file that holds other values than the labels 0 to 7.
    """
    labels, affine = _load(str(path or ATLAS_FILE))
    return labels, affine


@lru_cache(maxsize=4)
def _load(path: str) -> tuple[np.ndarray, np.ndarray]:
    labels, affine = images.load_nifti(path)
    odd = np.setdiff1d(labels, np.arange(OTHER + 1))
    if len(odd):
        raise InputError(f"{path}: holds the value {odd[0]:g}; allowed in an atlas: labels 0 to 7")
    return labels.astype(np.uint8), affine


def nearest(labels: np.ndarray, to_source: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Labels looked up at each voxel of a grid of ``shape``; 4x4 leads to their voxels; 0 outside.

    >>> nearest(np.array([[[1, 2]]]), np.diag([1, 1, 0.4, 1]), (1, 1, 5)).ravel().tolist()
    [1, 1, 2, 2, 0]
    """
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    at = np.floor(index @ to_source[:3, :3].T + to_source[:3, 3] + 0.5).astype(int)
    inside = ((at >= 0) & (at < labels.shape)).all(axis=-1)
    found = np.zeros(shape, labels.dtype)
    found[inside] = labels[tuple(at[inside].T)]
    return found


def build() -> tuple[np.ndarray, np.ndarray]:
    """The package's atlas (X, Y, Z) uint8 on the voxels of its template, and 4x4 to template mm."""
    from rlvo_lib.simulate import lesion
    from rlvo_lib.simulate.anatomy import Pose, build_head
    from rlvo_lib.simulate.template import grid

    pose = Pose(np.eye(3), np.ones(3), np.zeros(3))
    head = build_head({"age": AGE}, pose, grid().spacing[0], np.random.default_rng(0))
    seen = head.on(grid(), ("depth", "base", "tentorium", *lesion.TERRITORIES))
    labels = lesion.territories(head, grid(), seen)
    intracranial = (seen["depth"] > head.outer_mm) & (seen["base"] > 0)
    labels[intracranial & (labels == 0)] = OTHER
    return labels, images.load_nifti(TEMPLATE_FILE)[1]


def write(path: str | Path) -> Path:
    """Write the atlas as NIfTI; the same bytes each time."""
    return images.save_nifti(path, *build(), description=DESCRIPTION, level=9)


if __name__ == "__main__":
    print(write(sys.argv[1] if len(sys.argv) > 1 else ATLAS_FILE))
