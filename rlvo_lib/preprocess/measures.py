"""What is measured in a patient's scans without anybody's reading, as quantities of the affected side.

They stand in the cache's table as ``measured_<name>``, NaN where a scan is absent or there is nothing to
measure, and may be predictors of a study file (`[measures]`). Places are mm of the template: outwards
from the midline, anterior, and superior from the vertex, so that both sides read alike.

=========================  ======================================================================
occlusion                  1 where the vessel graph found an occlusion on the affected side, else 0
occlusion_carotid          1 where it lies in the carotid, 0 in M1
occlusion_out_mm           its place: outwards, ...
occlusion_anterior_mm      ... anterior, ...
occlusion_up_mm            ... superior
occlusion_gap_mm           lumen that the affected side lacks, compared with the other
resumes_out_mm             where the lumen resumes: outwards, ...
resumes_up_mm              ... and superior
clot_hu                    NCCT, mean along the gap
clot_excess_hu             the same, minus its mirror image: hyperdense or not
clot_enhanced_hu           CTA, mean along the gap, minus that of the NCCT: perviousness
vessel_share               of the vessel volume, on the affected side
tortuosity                 of the affected side's arteries, arc over chord minus 1
tortuosity_other           the same of the other side
siphon_calcium_ml          NCCT over 130 HU beside the affected carotid's lumen
=========================  ======================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlvo_lib import images
from rlvo_lib.preprocess.grid import outward
from rlvo_lib.preprocess.task import Task

if TYPE_CHECKING:
    from rlvo_lib.preprocess.tensor import Patient

NAMES = (
    "occlusion", "occlusion_carotid", "occlusion_out_mm", "occlusion_anterior_mm", "occlusion_up_mm",
    "occlusion_gap_mm", "resumes_out_mm", "resumes_up_mm", "clot_hu", "clot_excess_hu",
    "clot_enhanced_hu", "vessel_share", "tortuosity", "tortuosity_other", "siphon_calcium_ml",
)  # fmt: skip
LONGEST_MM = 15.0  # of the gap, along which a clot's density is averaged
NO_BONE_HU = 100.0  # no clot is denser (Riedel et al., Stroke 2011: up to 90); what is, is bone
CALCIUM_HU = 130.0  # Agatston's threshold
BESIDE_MM = 3.0  # from the carotid's wall
#: Where the carotid siphon runs, mm outwards and superior, of the template.
SIPHON_OUT_MM, SIPHON_UP_MM = (4.0, 24.0), (-126.0, -104.0)


def affected_side(task: Task, patient: Patient) -> str | None:
    """The recorded side, or where that is unknown the one on which the graph found an occlusion."""
    found = (patient.vessels or {}).get("occlusion_side")
    return task.side or (found if found in ("left", "right") else None)


def occlusion_place(task: Task, patient: Patient, end: str = "") -> np.ndarray | None:
    """Where the graph found the occlusion, (3,) head mm; None if not on the affected side.

    end : "" for its start, ``end_`` for where the lumen resumes.
    """
    found = patient.vessels
    if not found or found.get("occlusion_side") not in ("left", "right"):
        return None
    if task.side is not None and found["occlusion_side"] != task.side:
        return None
    world = np.array([found[f"occlusion_{end}{axis}_mm"] for axis in "xyz"], dtype=float)
    inverse = np.linalg.inv(patient.alignment.affine)
    return inverse[:3, :3] @ world + inverse[:3, 3]


def measured(task: Task, patient: Patient) -> dict[str, float]:
    """`measured_` and each of `NAMES`: the value, NaN where there is none."""
    values = dict.fromkeys(NAMES, float("nan"))
    side = affected_side(task, patient)
    scale, sign = patient.length_mm / patient.template_mm, outward(side)
    if patient.vessels:
        values |= _of_vessels(task, patient)
        start = occlusion_place(task, patient)
        values["occlusion"] = float(start is not None)
        if start is not None:
            end = occlusion_place(task, patient, "end_")
            place, resumes = start / scale * [sign, 1, 1], end / scale * [sign, 1, 1]
            values["occlusion_carotid"] = float(patient.vessels["occlusion_segment"] == "ICA")
            names = ("occlusion_out_mm", "occlusion_anterior_mm", "occlusion_up_mm")
            values |= dict(zip(names, map(float, place), strict=True))
            values["occlusion_gap_mm"] = float(patient.vessels["occlusion_gap_mm"])
            values["resumes_out_mm"], values["resumes_up_mm"] = float(resumes[0]), float(resumes[2])
            values |= _of_clot(patient, start, end)
    return {f"measured_{name}": value for name, value in values.items()}


def _of_vessels(task: Task, patient: Patient) -> dict[str, float]:
    found, side = patient.vessels, affected_side(task, patient)
    if side is None:
        return {}
    other = "left" if side == "right" else "right"
    both = (found["vessel_left_ml"] or 0.0) + (found["vessel_right_ml"] or 0.0)
    values = {
        "vessel_share": (found[f"vessel_{side}_ml"] or 0.0) / both if both else float("nan"),
        "tortuosity": _number(found[f"tortuosity_{side}"]),
        "tortuosity_other": _number(found[f"tortuosity_{other}"]),
    }
    return values | {"siphon_calcium_ml": _siphon_calcium(patient, side)}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _of_clot(patient: Patient, start: np.ndarray, end: np.ndarray) -> dict[str, float]:
    """Density along the gap, head mm from `start` to `end`, in both scans and against the mirror."""
    length = float(np.linalg.norm(end - start))
    if length < 1.0:
        return {}
    along = np.arange(0.5, min(length, LONGEST_MM), 0.5)
    line = start + along[:, None] * (end - start) / length
    plain = _mean_hu(patient, "ncct", line)
    return {
        "clot_hu": plain,
        "clot_excess_hu": plain - _mean_hu(patient, "ncct", line * [-1, 1, 1]),
        "clot_enhanced_hu": _mean_hu(patient, "cta", line) - plain,
    }


def _mean_hu(patient: Patient, scan: str, line: np.ndarray) -> float:
    """Mean HU of a scan at places (n, 3) head mm, bone left out; NaN without the scan."""
    from scipy import ndimage

    if scan not in patient.volumes:
        return float("nan")
    array, affine = patient.volumes[scan]
    to_voxels = np.linalg.inv(affine) @ patient.alignment.affine
    at = line @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    values = ndimage.map_coordinates(
        np.asarray(array, dtype=np.float32), at.T, order=1, mode="nearest"
    )
    soft = values[values < NO_BONE_HU] if scan == "ncct" else values
    return float(soft.mean()) if len(soft) else float("nan")


def _siphon_calcium(patient: Patient, side: str) -> float:
    """mL of the NCCT over 130 HU within 3 mm of the wall of the affected carotid's siphon."""
    from scipy.spatial import cKDTree

    points = patient.centre_line
    if "ncct" not in patient.volumes or points is None or not len(points):
        return float("nan")
    inverse = np.linalg.inv(patient.alignment.affine)
    head = points[["x", "y", "z"]].to_numpy(float) @ inverse[:3, :3].T + inverse[:3, 3]
    head /= patient.length_mm / patient.template_mm
    out = head[:, 0] * outward(side)
    siphon = (out > SIPHON_OUT_MM[0]) & (out < SIPHON_OUT_MM[1])
    siphon &= (head[:, 2] > SIPHON_UP_MM[0]) & (head[:, 2] < SIPHON_UP_MM[1])
    if not siphon.any():
        return float("nan")
    array, affine = patient.volumes["ncct"]
    world = points.loc[siphon, ["x", "y", "z"]].to_numpy(float)
    back = np.linalg.inv(affine)
    at = world @ back[:3, :3].T + back[:3, 3]
    reach = points.loc[siphon, "radius_mm"].max() + BESIDE_MM
    reach = reach / images.voxel_sizes(affine) + 1
    low = np.clip(np.floor(at.min(0) - reach), 0, np.array(array.shape) - 1).astype(int)
    high = np.clip(np.ceil(at.max(0) + reach) + 1, low + 1, array.shape).astype(int)
    part = np.asarray(array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    dense = np.argwhere(part > CALCIUM_HU) + low
    if not len(dense):
        return 0.0
    places = dense @ affine[:3, :3].T + affine[:3, 3]
    away, nearest = cKDTree(world).query(places)
    radius = points.loc[siphon, "radius_mm"].to_numpy(float)[nearest]
    ml = float(np.prod(images.voxel_sizes(affine))) / 1000
    return float(np.count_nonzero(away < radius + BESIDE_MM)) * ml
