"""One patient: from the scans to a (C, D, H, W) tensor and its record."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlvo_lib import images, perfusion, vessels
from rlvo_lib.config import InputError, Scan, Settings
from rlvo_lib.config.study import DERIVATIVES
from rlvo_lib.head import HeadFrame, head_frame

#: The scans that show where the head is, the best first.
SHOW_HEAD = ("ncct", "cta", "cbf", "tmax", "cbv", "mtt")

# The part of the head that the grid holds, in the head frame; chosen for the anterior circulation.
ACROSS_MIDLINE_MM = 12.0  # the crop reaches so far into the other hemisphere
GRID_CENTRE_Y_MM = 5.0  # its centre lies so far before the middle of the head
BASE_BELOW_VERTEX = 0.64  # its floor, just below the circle of Willis, in head lengths
SAME_DICE = 0.97  # a given mask that agrees so far with the truth is the truth
LEAST_COVERAGE = 0.10  # a scan that covers less of the grid is an absent channel


# ------------------------------------------------------------------------------------------------ grid


def tensor_affine(frame: HeadFrame, side: str | None, settings: Settings) -> np.ndarray:
    """4x4 from tensor voxel indices to world mm (RAS+).

    The grid holds the affected hemisphere from 12 mm across the midline outwards, upwards from just
    below the circle of Willis (0.64 head lengths below the vertex). `side` is the affected side
    ("left", "right", None: unknown); it is brought to ``settings.study.flip_to_side`` by a
    negative x axis. Unknown side: not flipped. ``flip_to_side = "none"``: not flipped, and the
    grid is centred on the midline.
    """
    return _grid_affine(
        frame, side, settings.study.flip_to_side, settings.grid_shape, settings.grid_spacing_mm
    )


def _grid_affine(
    frame: HeadFrame, side: str | None, flip_to: str, shape: Sequence[int], spacing: float
) -> np.ndarray:
    extent = np.asarray(shape) * spacing
    low = np.array([-extent[0] / 2, GRID_CENTRE_Y_MM - extent[1] / 2, 0.0])
    low[2] = -BASE_BELOW_VERTEX * frame.length_mm
    if flip_to == "left":
        low[0] = ACROSS_MIDLINE_MM - extent[0]
    elif flip_to == "right":
        low[0] = -ACROSS_MIDLINE_MM
    grid = np.diag([spacing] * 3 + [1.0])
    grid[:3, 3] = low + spacing / 2
    mirror = flip_to != "none" and side is not None and side != flip_to
    return frame.affine @ np.diag([-1.0 if mirror else 1.0, 1, 1, 1]) @ grid


# --------------------------------------------------------------------------------------- one patient


@dataclass(frozen=True)
class Task:
    """All that one patient's tensor depends on, besides the content of the files."""

    participant_id: str
    root: str
    scans: dict[str, str]  # name -> path
    excluded: dict[str, str]  # name of a scan that a person left out -> reason
    kinds: dict[str, Scan]  # name -> what the study file says of it
    side: str | None
    flip_to_side: str
    space: str
    grid_centre_mm: tuple[float, float, float]
    channels: dict[str, tuple[str, float, float]]  # name -> scan, window low, high
    grid_shape: tuple[int, int, int]
    grid_spacing_mm: float


def patient_tensor(task: Task) -> tuple[np.ndarray, dict[str, Any]]:
    """The (C, D, H, W) float16 tensor of one patient and its record (channels, affine, QC).

    Only the channels whose scan is there are in the tensor; the record names them in order, and
    says why the others are not. InputError names the patient and the file.
    """
    try:
        return _patient_tensor(task)
    except InputError as error:
        message = str(error).replace(f"{task.root}{os.sep}", "")
        raise InputError(f"patient {task.participant_id}: {message}") from error


def _patient_tensor(task: Task) -> tuple[np.ndarray, dict[str, Any]]:
    found = task.space == "head"  # there vessels are segmented where no mask is given
    volumes = {s: _load(task, s) for s in task.scans if not (found and s == "vessels")}
    frame, mask, qc = None, None, {}
    if task.space == "head":
        source = next((s for s in SHOW_HEAD if s in volumes), None)
        frame = head_frame(*volumes[source], source) if source else None
        mask, qc = _vessel_mask(task, volumes, frame)
    if mask is not None:
        volumes["vessels"] = mask
    record: dict[str, Any] = {"participant_id": task.participant_id, "side": task.side}
    reasons = {
        name: _why_absent(task, scan)
        for name, (scan, _, _) in task.channels.items()
        if scan not in volumes
    }
    if frame is None and task.space == "head":
        reasons = {name: reasons.get(name, "no scan to find the head in") for name in task.channels}
        record |= {"channels": [], "reasons": reasons, "flags": [], "affine": None, "qc": {}}
        return np.empty((0, *task.grid_shape), np.float16), record
    grid = _task_grid(task, frame)
    filled = {}
    for name in [name for name in task.channels if name not in reasons]:
        scan, low, high = task.channels[name]
        array, affine = volumes[scan]
        inside = images.field_of_view(array.shape, affine, grid, task.grid_shape)
        qc[f"coverage_{name}"] = round(float(inside.mean()), 4)
        if inside.mean() < LEAST_COVERAGE:
            reasons[name] = f"{scan} scan covers under {LEAST_COVERAGE:.0%} of the grid"
            continue
        clipped = np.clip(array, low, high, dtype=np.float32)
        values = images.resample(clipped, affine, grid, task.grid_shape, fill=low)
        filled[name] = images.window(values, low, high).astype(np.float16)
    names = list(filled)
    tensor = np.stack([*filled.values()]) if names else np.empty((0, *task.grid_shape), np.float16)
    if frame and all(s in volumes for s in ("cbf", "cbv", "tmax")):
        qc |= _perfusion_qc(volumes, frame, task.side)
    flags = [*(frame.flags if frame else ()), *_flags(task, qc)]
    record |= {"channels": names, "reasons": reasons, "flags": flags}
    return tensor, record | {"affine": grid.tolist(), "qc": qc}


def _why_absent(task: Task, scan: str) -> str:
    """Why a patient lacks a scan: no such file, or a person excluded it."""
    by_cta = scan == "vessels" and task.space == "head"  # there it is segmented from the CTA
    for name in (scan, "cta") if by_cta else (scan,):
        if name in task.excluded:
            return f"{name} scan excluded: {task.excluded[name]}"
    return "no vessels or CTA scan" if by_cta else f"no {scan} scan"


def _task_grid(task: Task, frame: HeadFrame | None) -> np.ndarray:
    """4x4 from tensor voxel indices to world mm (RAS+)."""
    if frame:
        return _grid_affine(
            frame, task.side, task.flip_to_side, task.grid_shape, task.grid_spacing_mm
        )
    spacing = task.grid_spacing_mm
    grid = np.diag([spacing] * 3 + [1.0])
    grid[:3, 3] = task.grid_centre_mm - spacing * (np.asarray(task.grid_shape) - 1) / 2
    return grid


def _load(task: Task, name: str) -> tuple[np.ndarray, np.ndarray]:
    path, scan = task.scans[name], task.kinds[name]
    if scan.kind == "ct":
        return images.load_ct(path)
    array, affine = images.load_nifti(path)
    if scan.kind == "mask":
        _refuse_truth(task, path, array)
        _check_binary(path, array)
        return array, affine
    perfusion.check_map(array, name, scan.low, scan.high, scan.unit, path)
    return array, affine


def _check_binary(path: str, mask: np.ndarray) -> None:
    if not np.isin(np.unique(mask), (0.0, 1.0)).all():
        raise InputError(f"{path}: holds values other than 0 and 1; a binary mask is allowed")


def _refuse_truth(task: Task, path: str, mask: np.ndarray) -> None:
    """A given mask must not be the simulator's, nor nearly: any of its levels, alone or together.

    Only a simulated dataset has such a truth; it is read here so that no model reads it. This stops
    accidents; whoever wants to can always hand a model what it should not have.
    """
    patient, given = task.participant_id, mask > 0
    for truth in sorted(Path(task.root, DERIVATIVES, "truth", patient).glob("*.nii.gz")):
        known, _ = images.load_nifti(truth)
        if known.shape != mask.shape:
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


def _vessel_mask(
    task: Task, volumes: dict[str, tuple[np.ndarray, np.ndarray]], frame: HeadFrame | None
) -> tuple[tuple[np.ndarray, np.ndarray] | None, dict[str, Any]]:
    """The user's own mask if there is one, else segmented from the CTA; and its volume.

    Neither where a person excluded the vessels: what they looked at may have been either.
    """
    if "vessels" in task.excluded:
        return None, {}
    path = task.scans.get("vessels")
    if path is not None:
        mask, affine = images.load_nifti(path)
        _refuse_truth(task, path, mask)
        if "cta" in volumes:
            _check_same_grid(path, mask, affine, *volumes["cta"])
        _check_binary(path, mask)
    elif "cta" in volumes:
        cta, affine = volumes["cta"]
        mask = vessels.segment(cta, affine, frame)
    else:
        return None, {}
    ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    volume = round(float(np.count_nonzero(mask)) * ml, 3)
    return (mask, affine), {"vessel_volume_ml": volume}


def _check_same_grid(
    path: str, mask: np.ndarray, affine: np.ndarray, cta: np.ndarray, cta_affine: np.ndarray
) -> None:
    if mask.shape != cta.shape or not np.allclose(affine, cta_affine, atol=1e-2):
        raise InputError(
            f"{path}: lies on another grid ({' x '.join(map(str, mask.shape))}) than the CTA "
            f"({' x '.join(map(str, cta.shape))}); the same voxels and affine are allowed"
        )


def _perfusion_qc(
    volumes: dict[str, tuple[np.ndarray, np.ndarray]], frame: HeadFrame, side: str | None
) -> dict[str, Any]:
    """Parameters measured from the maps, or nothing where the maps lie on different grids."""
    maps = {s: volumes[s] for s in ("cbf", "cbv", "tmax")}
    try:
        perfusion.check_same_grid(maps)
    except InputError as error:
        flag = f"perfusion maps lie on different grids: not measured ({error})"
        return {"tmax_side": "unknown: grids differ", "perfusion_flags": [flag]}
    found = perfusion.measure(
        *(array for array, _ in maps.values()), maps["cbf"][1], frame.midline, side
    )
    record = found.record()
    return record["values"] | {
        "tmax_side": found.tmax_side,
        "perfusion_reasons": record["reasons"],
        "perfusion_flags": record["flags"],
    }


MIN_COVERAGE = 0.3
MIN_VESSELS_ML = 1.0


def _flags(task: Task, qc: dict[str, Any]) -> list[str]:
    """What a person should look at, in words."""
    flags = []
    if task.side is None and task.flip_to_side != "none":
        flags.append("affected side unknown: not flipped")
    for name in task.channels:
        if qc.get(f"coverage_{name}", 1.0) < MIN_COVERAGE:
            flags.append(f"{name} covers only {qc[f'coverage_{name}']:.0%} of the grid")
    if qc.get("vessel_volume_ml", MIN_VESSELS_ML) < MIN_VESSELS_ML:
        flags.append(f"few vessels found ({qc['vessel_volume_ml']:.2f} mL)")
    flags += qc.pop("perfusion_flags", [])
    if qc.get("tmax_side") in ("left", "right") and task.side not in (None, qc["tmax_side"]):
        flags.append(f"delayed flow is on the {qc['tmax_side']}, recorded side is {task.side}")
    return flags
