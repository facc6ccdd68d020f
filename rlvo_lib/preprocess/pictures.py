"""Pictures of one patient for a person's eye: is the head where it should be, are the vessels vessels?

All are drawn in head mm (millimetres from the mid-plane, the middle and the vertex of the head), both
hemispheres, nothing flipped, from the scans themselves and not from the tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rlvo_lib import images, registration
from rlvo_lib.config import Settings
from rlvo_lib.dataset import Dataset
from rlvo_lib.preprocess.cache import TensorCache, patient_task
from rlvo_lib.preprocess.reading import read_scan

STEP_MM = 1.5
X_MM, Y_MM, Z_MM = (-90.0, 90.0), (-112.0, 112.0), (-165.0, 8.0)
SLICE_BELOW_VERTEX = 0.42  # the axial slice: basal ganglia, in head lengths
SLAB_BELOW_VERTEX = (
    0.72,
    0.40,
)  # the vessels' projection: from below the siphon to the M2 branches
SKIN_HU, BONE_HU = -300.0, 300.0
TMAX_LATE_S = 6.0


@dataclass(frozen=True)
class Picture:
    """A slice or projection, (X, Y) or (Y, Z), as a figure draws it.

    image : grey values, `low` black and `high` white; axes: the names of the two, in head mm
    contours : what is outlined, by name; bool, of the image's shape
    overlay : what is laid over in colour (NaN: nothing), in `unit`, from `overlay_low` to `overlay_high`
    """

    image: np.ndarray
    low: float
    high: float
    axes: tuple[str, str] = ("x", "y")
    contours: dict[str, np.ndarray] = field(default_factory=dict)
    overlay: np.ndarray | None = None
    overlay_low: float = 0.0
    overlay_high: float = 1.0
    unit: str = ""


def pictures(
    dataset: Dataset, settings: Settings, cache: TensorCache, participant_id: str
) -> dict[str, Picture]:
    """The pictures that this patient's scans allow, by name: axial, sagittal, vessels, perfusion.

    ``axial`` and ``sagittal``: the NCCT with the template's outline (head and inner skull) over it;
    where the head is well placed, they meet. ``vessels``: the CTA's maximum over a slab about the
    circle of Willis, seen from above, with the mask's outline. ``perfusion``: Tmax over 6 s on the NCCT.
    """
    record = cache.records[participant_id]
    if record["head_to_world"] is None:
        return {}
    task = patient_task(dataset, settings, participant_id)
    template = registration.load_template(task.template or None)
    pose, length = np.array(record["head_to_world"]), float(record["length_mm"])
    level = -SLICE_BELOW_VERTEX * length

    def on(scan: str, grid: np.ndarray, shape: tuple[int, ...], fill: float) -> np.ndarray:
        array, affine = read_scan(task, scan, [])
        move = np.array(record["moves"].get(scan, np.eye(4)))
        return images.resample(array, move @ affine, pose @ grid, shape, fill)

    drawn = {}
    axial, sagittal = _plane("xy", level), _plane("yz", 0.0)
    outline = {}
    for name, (grid, shape) in {"axial": axial, "sagittal": sagittal}.items():
        seen = images.resample(template.array, template.affine, grid, shape, -1000.0).squeeze()
        outline[name] = {"template": seen > SKIN_HU, "template's skull": seen > BONE_HU}
    base = next((scan for scan in ("ncct", "cta") if scan in record["scans"]), None)
    if base:
        drawn["axial"] = Picture(
            on(base, *axial, -1000.0)[:, :, 0], 0, 80, contours=outline["axial"]
        )
        drawn["sagittal"] = Picture(
            on(base, *sagittal, -1000.0)[0], -100, 200, ("y", "z"), outline["sagittal"]
        )
    if "cta" in record["scans"]:
        grid, shape = _slab(length)
        contours = {}
        file = cache.folder / record["key"] / "vessels.nii.gz"
        if file.is_file():
            mask, affine = images.load_nifti(file)
            move = np.array(record["moves"].get("cta", np.eye(4)))
            share = images.resample(mask, move @ affine, pose @ grid, shape, 0.0)
            contours["vessel mask"] = share.max(axis=2) > 0.3
        drawn["vessels"] = Picture(
            on("cta", grid, shape, -1000.0).max(axis=2), 0, 500, contours=contours
        )
    if base and "tmax" in record["scans"]:
        tmax = on("tmax", *axial, 0.0)[:, :, 0]
        late = np.where(tmax > TMAX_LATE_S, tmax, np.nan)
        drawn["perfusion"] = Picture(
            drawn["axial"].image,
            0,
            80,
            overlay=late,
            overlay_low=TMAX_LATE_S,
            overlay_high=16.0,
            unit="s",
        )
    return drawn


def _plane(axes: str, at: float) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A plane of head mm, one voxel thick: 4x4 from its indices to head mm, and its shape."""
    ranges = {"x": X_MM, "y": Y_MM, "z": Z_MM}
    return _box([ranges[a] if a in axes else (at, at + STEP_MM) for a in "xyz"])


def _slab(length: float) -> tuple[np.ndarray, tuple[int, int, int]]:
    return _box([X_MM, Y_MM, tuple(-length * part for part in SLAB_BELOW_VERTEX)])


def _box(ranges: list[tuple[float, float]]) -> tuple[np.ndarray, tuple[int, int, int]]:
    grid = np.diag([STEP_MM] * 3 + [1.0])
    grid[:3, 3] = [low for low, _ in ranges]
    return grid, tuple(max(1, round((high - low) / STEP_MM)) for low, high in ranges)
