"""Pictures of one patient for a person's eye: is the head where it should be, are the vessels vessels?

All are drawn in head mm (millimetres from the mid-plane, the middle and the vertex of the head), both
hemispheres, nothing flipped, from the scans themselves and not from the tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlvo_lib import images, registration
from rlvo_lib.config import Settings
from rlvo_lib.dataset import Dataset
from rlvo_lib.preprocess.cache import TensorCache, patient_task
from rlvo_lib.preprocess.reading import Volume, read_scan
from rlvo_lib.preprocess.task import Task

STEP_MM = 1.5
X_MM, Y_MM, Z_MM = (-90.0, 90.0), (-112.0, 112.0), (-165.0, 8.0)
SLICE_BELOW_VERTEX = 0.42  # the axial slice: basal ganglia, in head lengths
SLAB_BELOW_VERTEX = (
    0.72,
    0.40,
)  # the vessels' projection: from below the siphon to the M2 branches
SKIN_HU, BONE_HU = -300.0, 300.0
TMAX_LATE_S, TMAX_HIGH_S = 6.0, 16.0
LEAST_SHARE = 0.3  # of a 1.5 mm voxel, to be outlined

#: 4x4 from the voxels of a box to head mm, and the box's shape.
Box = tuple[np.ndarray, tuple[int, int, int]]


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
    sheet = _Sheet(patient_task(dataset, settings, participant_id), record)
    file = cache.folder / record["key"] / "vessels.nii.gz"
    base = next((scan for scan in ("ncct", "cta") if scan in record["scans"]), None)
    drawn = sheet.placement(base) if base else {}
    if "cta" in record["scans"]:
        drawn["vessels"] = sheet.vessels(file if file.is_file() else None)
    if base and "tmax" in record["scans"]:
        drawn["perfusion"] = sheet.perfusion(drawn["axial"])
    return drawn


@dataclass(frozen=True)
class _Sheet:
    """One patient's scans, drawn in head mm."""

    task: Task
    record: dict[str, Any]

    @property
    def length_mm(self) -> float:
        return float(self.record["length_mm"])

    @property
    def level(self) -> Box:
        return _plane("xy", -SLICE_BELOW_VERTEX * self.length_mm)

    def on(self, volume: Volume, scan: str, box: Box, fill: float) -> np.ndarray:
        """A volume in the world of `scan`, on a box of head mm."""
        (array, affine), (grid, shape) = volume, box
        move = np.array(self.record["moves"].get(scan, np.eye(4)))
        pose = np.array(self.record["head_to_world"])
        return images.resample(array, move @ affine, pose @ grid, shape, fill)

    def placement(self, scan: str) -> dict[str, Picture]:
        """An axial and a sagittal slice, with the template's outline over them."""
        template = registration.load_template(self.task.template or None)
        volume, drawn = read_scan(self.task, scan, []), {}
        for name, axes, box, low, high in (
            ("axial", ("x", "y"), self.level, 0, 80),
            ("sagittal", ("y", "z"), _plane("yz", 0.0), -100, 200),
        ):
            seen = images.resample(template.array, template.affine, *box, fill=-1000.0).squeeze()
            contours = {"template": seen > SKIN_HU, "template's skull": seen > BONE_HU}
            slice_ = self.on(volume, scan, box, -1000.0).squeeze()
            drawn[name] = Picture(slice_, low, high, axes, contours)
        return drawn

    def vessels(self, file: Path | None) -> Picture:
        """The maximum over a slab of the CTA within the skull, from above, and the mask's outline."""
        array, affine = read_scan(self.task, "cta", [])
        box = _box([X_MM, Y_MM, tuple(-self.length_mm * part for part in SLAB_BELOW_VERTEX)])
        inside = registration.brain_mask_ct(array, affine).astype(np.float32)
        hu = self.on((array, affine), "cta", box, -1000.0)
        within = self.on((inside, affine), "cta", box, 0.0) > 0.9
        contours = {}
        if file:
            share = self.on(images.load_nifti(file), "cta", box, 0.0)
            contours["vessel mask"] = share.max(axis=2) > LEAST_SHARE
        return Picture(np.where(within, hu, 0.0).max(axis=2), 0, 400, contours=contours)

    def perfusion(self, beneath: Picture) -> Picture:
        """Late flow, laid over the axial slice."""
        tmax = self.on(read_scan(self.task, "tmax", []), "tmax", self.level, 0.0)[:, :, 0]
        late = np.where(tmax > TMAX_LATE_S, tmax, np.nan)
        return Picture(
            beneath.image, beneath.low, beneath.high, overlay=late, overlay_low=TMAX_LATE_S,
            overlay_high=TMAX_HIGH_S, unit="s",
        )  # fmt: skip


def _plane(axes: str, at: float) -> Box:
    """A plane of head mm, one voxel thick: 4x4 from its indices to head mm, and its shape."""
    ranges = {"x": X_MM, "y": Y_MM, "z": Z_MM}
    return _box([ranges[a] if a in axes else (at, at + STEP_MM) for a in "xyz"])


def _box(ranges: list[tuple[float, float]]) -> Box:
    grid = np.diag([STEP_MM] * 3 + [1.0])
    grid[:3, 3] = [low for low, _ in ranges]
    return grid, tuple(max(1, round((high - low) / STEP_MM)) for low, high in ranges)
