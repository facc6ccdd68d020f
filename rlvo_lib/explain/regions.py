"""Parts of a patient's image, as masks on the tensor's grid.

`truth` has what a simulator drew. It is used only to judge explanations, never by a model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlvo_lib import images, storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.dataset import TRUTH
from rlvo_lib.preprocess import TensorCache

MAPS = ("tmax", "cbf", "cbv", "mtt")  # scans on whose grid a simulator's lesion lies
STENOSIS_MM = 5.0  # radius about the middle of a true stenosis


def truth(analysis: Analysis, cache: TensorCache, participant: str) -> dict[str, np.ndarray]:
    """What the simulator drew in a patient, as masks (D, H, W) bool on the tensor's grid.

    ``clot`` (a voxel that holds any of it), ``core`` and ``penumbra`` (late flow around it), ``tangle`` of
    collaterals, ``stenosis`` (spheres about those on other vessels), and ``lesion``: clot, core, penumbra and
    tangle together. One that is not there, or outside the grid, is empty.

    Raises
    ------
    InputError
        If the dataset is not simulated, or holds no truth of the patient.
    """
    folder = _truth_folder(analysis, participant)
    grid, shape = cache.affine(participant), _shape(cache, participant)
    drawn = {
        name: np.zeros(shape, bool) for name in ("clot", "core", "penumbra", "tangle", "stenosis")
    }
    for file, scans, values in (
        ("clot", ("ncct",), {"clot": 1}),
        ("vessels", ("cta",), {"clot": 2, "tangle": 3}),
        ("lesion", MAPS, {"penumbra": 1, "core": 2}),
    ):
        path = folder / f"{participant}_{file}.nii.gz"
        if not path.is_file():
            continue
        labels, affine = images.load_nifti(path)
        affine = _to_head_world(cache, participant, scans) @ affine
        for name, value in values.items():
            drawn[name] |= on_grid(labels == value, affine, grid, shape, any_of_it=name == "clot")
    told = storage.read_json(folder / f"{participant}_truth.json")
    for place in told["stenoses"]:
        drawn["stenosis"] |= sphere(place["at"], STENOSIS_MM, grid, shape)
    lesion = drawn["clot"] | drawn["core"] | drawn["penumbra"] | drawn["tangle"]
    return drawn | {"lesion": lesion}


def on_grid(
    mask: np.ndarray,
    affine: np.ndarray,
    grid: np.ndarray,
    shape: tuple[int, int, int],
    *,
    any_of_it: bool = False,
) -> np.ndarray:
    """A mask (X, Y, Z) with its affine on another grid, bool of ``shape``.

    A voxel counts where the mask fills half of it; with ``any_of_it`` where it holds the centre of a voxel of
    the mask at all, so that what is thinner than the grid is not lost.
    """
    if not mask.any():
        return np.zeros(shape, bool)
    found = images.resample(mask.astype(np.float32), affine, grid, shape, 0.0) >= 0.5
    if any_of_it:
        to_grid = np.linalg.inv(grid) @ affine
        at = np.rint(np.argwhere(mask) @ to_grid[:3, :3].T + to_grid[:3, 3]).astype(int)
        at = at[((at >= 0) & (at < shape)).all(axis=1)]
        found[tuple(at.T)] = True
    return found


def sphere(
    centre: np.ndarray, radius_mm: float, grid: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Voxels whose centre is within ``radius_mm`` of a place in world mm; and the one that holds it.

    >>> int(sphere([1, 1, 1], 1.0, np.eye(4), (3, 3, 3)).sum())
    7
    """
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ grid[:3, :3].T + grid[:3, 3]
    found = np.linalg.norm(world - np.asarray(centre), axis=-1) <= radius_mm
    own = np.rint(np.linalg.inv(grid) @ [*centre, 1.0])[:3].astype(int)
    if ((own >= 0) & (own < shape)).all():
        found[tuple(own)] = True
    return found


def _truth_folder(analysis: Analysis, participant: str) -> Path:
    data = analysis.dataset
    if not data.simulated:
        raise InputError(
            f"dataset {data.name} is not simulated: nobody knows its truth; allowed: a simulated one"
        )
    folder = data.root / TRUTH / participant
    if not (folder / f"{participant}_truth.json").is_file():
        raise InputError(f"patient {participant}: no truth in {TRUTH} of dataset {data.name}")
    return folder


def _shape(cache: TensorCache, participant: str) -> tuple[int, int, int]:
    return tuple(cache.records[participant]["grid"]["shape"])


def _to_head_world(cache: TensorCache, participant: str, scans: tuple[str, ...]) -> np.ndarray:
    """4x4 from the world of the first of these scans that was used to that the head was found in."""
    moves = cache.records[participant]["moves"]
    return next((np.array(moves[scan]) for scan in scans if scan in moves), np.eye(4))
