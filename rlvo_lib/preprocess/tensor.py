"""One patient: from the scans to a (C, D, H, W) tensor and its record.

The main path is `patient_tensor`: read the scans, find the head's pose in the world, bring the scans
of the patient together, segment the vessels, lay the grid, and interpolate each channel once.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rlvo_lib import images, perfusion, registration, vessels
from rlvo_lib.config import Channel, InputError, View
from rlvo_lib.preprocess import grid as grids
from rlvo_lib.preprocess import quality
from rlvo_lib.preprocess.measures import affected_side, measured, occlusion_place
from rlvo_lib.preprocess.reading import Volume, check_same_grid, read_scan
from rlvo_lib.preprocess.task import Task
from rlvo_lib.registration import Alignment

if TYPE_CHECKING:
    import pandas as pd

#: The scans that show where the head is, the best first.
SHOW_HEAD = ("ncct", "cta", "cbf", "tmax", "cbv", "mtt")
MAPS = ("cbf", "cbv", "mtt", "tmax")
LEAST_COVERAGE = 0.10  # a scan that covers less of the grid is an absent channel


@dataclass
class Patient:
    """What is known of a patient on the way to the tensor.

    volumes : scan to (array, affine); the affines lead to the patient's world, which is that of the
        scan the head was found in. `moves` holds, for a scan that had to be moved there, the rigid
        4x4 from its own world.
    """

    volumes: dict[str, Volume]
    alignment: Alignment | None = None
    length_mm: float | None = None  # of the head, in the mm that the grid is laid in
    template_mm: float = 0.0  # of the template's head
    moves: dict[str, np.ndarray] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # scans that were read, and why not used
    centre_line: pd.DataFrame | None = None  # of the vessels, `vessels.VesselGraph.points`
    vessels: dict[str, Any] = field(default_factory=dict)  # `vessels.VesselGraph.summary`
    qc: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # why something was not measured
    flags: list[str] = field(default_factory=list)


def patient_tensor(
    task: Task,
) -> tuple[dict[str, np.ndarray], dict[str, Any], Patient]:
    """The (C, D, H, W) float16 tensors of one patient, their record, and what they were made of.

    The tensor is called ``tensor``, the study's views by their names.

    Only the channels whose scan is there are in the tensor; the record names them in order with
    their windows and units, and says why the others are not. InputError names the patient and the
    file.
    """
    try:
        return _patient_tensor(task)
    except InputError as error:
        message = str(error).replace(f"{task.root}{os.sep}", "")
        raise InputError(f"patient {task.participant_id}: {message}") from error


def _patient_tensor(task: Task) -> tuple[dict[str, np.ndarray], dict[str, Any], Patient]:
    in_head = task.grid.space == "head"  # there vessels are segmented where no mask is given
    patient = Patient({})
    for scan in task.scans:
        if not (in_head and scan == "vessels"):
            patient.volumes[scan] = read_scan(task, scan, patient.flags)
    stored = {
        s: {"shape": list(v.shape), "affine": a.tolist()} for s, (v, a) in patient.volumes.items()
    }
    if in_head:
        _find_head(task, patient)
        _bring_together(task, patient)
        _find_vessels(task, patient)
        _measure_perfusion(task, patient)
    if in_head and patient.alignment is None:
        grid, tensor, names = None, np.empty((0, *task.grid_shape), np.float16), []
        reasons = dict.fromkeys(task.channels, "no scan to find the head in") | _absent(
            task, patient
        )
    else:
        grid = _grid(task, patient)
        tensor, names, reasons = _channels(task, patient, grid)
        patient.flags += quality.flags(task, patient.qc)
    arrays, shown = {"tensor": tensor}, {}
    if in_head and patient.alignment is not None:
        patient.qc |= measured(task, patient)
        for name, view in task.views.items():
            arrays[name], shown[name] = _view(view, task, patient)
    record = {
        "participant_id": task.participant_id,
        "side": task.side,
        "channels": names,
        "windows": {name: _window(task.channels[name]) for name in names},
        "reasons": reasons,
        "flags": list(dict.fromkeys(patient.flags)),
        "excluded": task.excluded,
        "grid": dataclasses.asdict(task.grid)
        | {"flip_to_side": task.flip_to_side}
        | {"shape": list(task.grid_shape), "spacing_mm": task.grid_spacing_mm},
        "flipped": None if grid is None else bool(np.linalg.det(grid[:3, :3]) < 0),
        "affine": None if grid is None else grid.tolist(),
        "head_to_world": None if patient.alignment is None else patient.alignment.affine.tolist(),
        "views": shown,
        "length_mm": patient.length_mm,
        "scans": stored,
        "moves": {scan: move.tolist() for scan, move in patient.moves.items()},
        "qc": {name: _plain(value) for name, value in patient.qc.items()},
        "vessels": patient.vessels,
        "not_measured": patient.reasons,
    }
    return arrays, record, patient


def _window(channel: Channel) -> dict[str, Any]:
    """What 0 and 1 of a channel stand for; with `minus_mirror`, of differences between the sides."""
    window = {"scan": channel.scan, "low": channel.low, "high": channel.high, "unit": channel.unit}
    clip = channel.minus_mirror
    return window | ({"minus_mirror": list(clip)} if clip is not None else {})


def _absent(task: Task, patient: Patient) -> dict[str, str]:
    """The channels whose scan is not there, with the reason."""
    reasons = {}
    for name, channel in task.channels.items():
        if channel.scan in patient.volumes:
            continue
        from_cta = channel.scan == "vessels" and task.grid.space == "head"
        excluded = [n for n in (channel.scan, *("cta",) * from_cta) if n in task.excluded]
        refused = patient.refused.get("cta") if channel.scan in ("cta", "vessels") else None
        if refused:
            reasons[name] = f"cta not used: {refused}"
        elif excluded:
            reasons[name] = f"{excluded[0]} scan excluded: {task.excluded[excluded[0]]}"
        else:
            reasons[name] = "no vessels or CTA scan" if from_cta else f"no {channel.scan} scan"
    return reasons


# ------------------------------------------------------------------------------------ pose, registration


def _find_head(task: Task, patient: Patient) -> None:
    template = registration.load_template(task.template or None)
    found, source = None, ""
    for source in [scan for scan in SHOW_HEAD if scan in patient.volumes]:
        volume = patient.volumes[source]
        found = registration.align(*volume, source, kind=task.grid.alignment, template=template)
        if not any(flag.startswith("no head") for flag in found.flags):
            break
        patient.flags += found.flags  # and the next scan is tried
    if found is None:
        return
    one_size = found.kind == "affine"  # heads are brought to the template's
    patient.alignment, patient.template_mm = found, template.length_mm
    patient.length_mm = template.length_mm if one_size else found.frame.length_mm
    patient.flags += found.flags
    patient.qc |= {"registration_cost": found.cost, "alignment": found.kind, "head_scan": source}
    for scan in ("ncct", "cta"):
        if scan in patient.volumes:
            patient.qc[f"motion_{scan}_mm"] = registration.motion(*patient.volumes[scan])


def _bring_together(task: Task, patient: Patient) -> None:
    """The CTA rigidly onto the NCCT, where both are there; maps are checked against the NCCT."""
    if "ncct" not in patient.volumes:
        return
    fixed = patient.volumes["ncct"]
    if "cta" in patient.volumes:
        array, affine = patient.volumes["cta"]
        found = _onto(array, affine, fixed, patient.alignment)
        patient.qc |= {"cta_shift_mm": found.shift_mm, "cta_turn_deg": found.turn_deg}
        patient.qc["cta_cost"] = 1.0 - found.similarity
        patient.flags += found.flags
        if found.same_head is False and task.grid.other_head == "absent":
            patient.refused["cta"] = found.flags[0]
            del patient.volumes["cta"]
        elif not np.array_equal(found.affine, np.eye(4)):
            patient.moves["cta"] = found.affine
            patient.volumes["cta"] = array, found.affine @ affine
    _check_maps(patient)


def _check_maps(patient: Patient) -> None:
    """Whether the perfusion maps lie in the NCCT's intracranial space; one map of each grid is looked at."""
    (ncct, to_ncct), grids_seen, inside, brain = patient.volumes["ncct"], [], {}, None
    for name in MAPS:
        values, affine = patient.volumes.get(name, (None, None))
        if values is None or any(np.allclose(affine, seen, atol=1e-2) for seen in grids_seen):
            continue
        if brain is None:
            brain = registration.brain_mask_ct(ncct, to_ncct, patient.alignment.frame)
        grids_seen.append(affine)
        share = registration.map_inside(values, affine, brain, to_ncct)
        inside[name] = 0.0 if np.isnan(share) else share  # beside the NCCT altogether
    if not inside:
        return
    name = min(inside, key=inside.get)
    patient.qc["map_inside"] = inside[name]
    if inside[name] < registration.MIN_MAP_INSIDE:
        patient.flags.append(
            f"only {inside[name]:.0%} of the {name} map's brain lies in the NCCT's intracranial space"
        )


def _onto(
    array: np.ndarray, affine: np.ndarray, fixed: Volume, alignment: Alignment
) -> registration.Within:
    """The CTA on the NCCT: as they lie, or, where that says nothing or two heads, head on head.

    Scanners' worlds, and table positions, may have nothing in common: then the two poses are laid on
    each other first, and the motion from there counts only if it shows one head.
    """
    found = registration.within_patient(array, affine, *fixed)
    if found.same_head or found.shift_mm:
        return found
    frame = registration.align(array, affine, "cta", kind="symmetry").frame
    start = alignment.frame.affine @ np.linalg.inv(frame.affine)
    again = registration.within_patient(array, affine, *fixed, start=start)
    return again if again.same_head else found


# ----------------------------------------------------------------------------------------------- vessels


def _find_vessels(task: Task, patient: Patient) -> None:
    """The user's own mask if there is one, else segmented from the CTA; and its graph.

    Neither where a person excluded the vessels: what they looked at may have been either.
    """
    if "vessels" in task.excluded or "cta" in patient.refused:
        return
    path = task.scans.get("vessels")
    frame = patient.alignment.frame if patient.alignment else None
    cta = patient.volumes.get("cta")
    if path is not None:
        mask, affine = read_scan(task, "vessels", patient.flags)
        if cta is not None:
            own = np.linalg.inv(patient.moves.get("cta", np.eye(4))) @ cta[1]
            check_same_grid(path, mask, affine, cta[0], own)
            affine = cta[1]
        elif frame is not None and frame.scan != "cta":
            patient.flags.append(
                f"vessel mask without its CTA: taken to lie where the {frame.scan} does, not checked"
            )
    elif cta is not None:
        affine = cta[1]
        mask = vessels.segment(*cta, frame)
    else:
        return
    patient.volumes["vessels"] = mask, affine
    tree = vessels.graph(mask, affine, cta[0] if cta else None, frame)
    found = tree.summary()
    patient.centre_line, patient.vessels = tree.points, found
    patient.qc |= {name: value for name, value in found.items() if not isinstance(value, list)}
    patient.qc["stenoses_found"] = len(tree.stenoses)
    patient.flags += tree.notes
    if cta is not None:
        phase = vessels.contrast_phase(cta[0], affine, mask, frame)
        patient.qc |= {k: phase[k] for k in ("arterial_hu", "venous_hu", "venous_ratio")}
        if phase["poor_opacification"]:
            patient.flags.append(f"poor opacification: arteries at {phase['arterial_hu']:.0f} HU")
        if phase["late_phase"]:
            patient.flags.append(
                f"late contrast phase: veins at {phase['venous_ratio']:.2f} of arteries"
            )


# ------------------------------------------------------------------------------------------------ channels


def _grid(task: Task, patient: Patient) -> np.ndarray:
    """4x4 from tensor voxel indices to the patient's world mm (RAS+)."""
    shape, spacing = task.grid_shape, task.grid_spacing_mm
    if patient.alignment is None:
        return grids.standing_grid(task.grid, shape, spacing)
    return grids.tensor_affine(
        patient.alignment.affine,
        patient.length_mm,
        task.side,
        flip_to=task.flip_to_side,
        region=task.grid.region,
        shape=shape,
        spacing_mm=spacing,
    )


def _channels(
    task: Task, patient: Patient, grid: np.ndarray
) -> tuple[np.ndarray, list[str], dict[str, str]]:
    """The tensor, its channels in order, and why the others are absent."""
    reasons, filled = _absent(task, patient), {}
    for name, channel in task.channels.items():
        if name in reasons:
            continue
        source = patient.volumes[channel.scan]
        inside = _inside(channel, source, grid, task.grid_shape, patient)
        patient.qc[f"coverage_{name}"] = float(inside.mean())
        if inside.mean() < LEAST_COVERAGE:
            reasons[name] = f"{channel.scan} scan covers under {LEAST_COVERAGE:.0%} of the grid"
            continue
        filled[name] = _channel(channel, source, grid, task.grid_shape, patient, inside)
    tensor = [*filled.values()] or np.empty((0, *task.grid_shape), np.float16)
    return np.stack(tensor) if filled else tensor, list(filled), reasons


def _channel(
    channel: Channel,
    source: Volume,
    grid: np.ndarray,
    shape: tuple[int, int, int],
    patient: Patient,
    inside: np.ndarray,
) -> np.ndarray:
    """One channel (D, H, W) float16 in 0..1: by one interpolation, from the scan's own voxels."""
    array, affine = source
    low, high = channel.minus_mirror or (channel.low, channel.high)
    clipped = np.clip(array, low, high, dtype=np.float32)  # before: bone must not bleed into brain
    values = images.resample(clipped, affine, grid, shape, fill=low)
    if channel.minus_mirror:
        other = grids.mirrored(patient.alignment.affine, grid)
        values -= images.resample(clipped, affine, other, shape, fill=low)
        values[~inside] = 0.0
    return images.window(values, channel.low, channel.high).astype(np.float16)


def _inside(
    channel: Channel,
    source: Volume,
    grid: np.ndarray,
    shape: tuple[int, int, int],
    patient: Patient,
) -> np.ndarray:
    """Where the grid lies in the scan; with `minus_mirror`, where its mirror image does too."""
    array, affine = source
    inside = images.field_of_view(array.shape, affine, grid, shape)
    if channel.minus_mirror:
        other = grids.mirrored(patient.alignment.affine, grid)
        inside &= images.field_of_view(array.shape, affine, other, shape)
    return inside


def _view(view: View, task: Task, patient: Patient) -> tuple[np.ndarray, dict[str, Any]]:
    """One view (C, D, H, W) float16, of the channels whose scan is there, and what is recorded of it."""
    found = occlusion_place(task, patient)
    grid = grids.view_affine(
        view, patient.alignment.affine, patient.length_mm / patient.template_mm,
        affected_side(task, patient),
        flip_to=task.flip_to_side, occlusion=found,
    )  # fmt: skip
    reasons, filled = _absent(task, patient), {}
    reasons = {name: why for name, why in reasons.items() if name in view.channels}
    for name in [name for name in view.channels if name not in reasons]:
        channel = task.channels[name]
        source = patient.volumes[channel.scan]
        inside = _inside(channel, source, grid, view.shape, patient)
        if inside.mean() < LEAST_COVERAGE:
            reasons[name] = f"{channel.scan} scan covers under {LEAST_COVERAGE:.0%} of the view"
            continue
        filled[name] = _channel(channel, source, grid, view.shape, patient, inside)
    made = np.stack([*filled.values()]) if filled else np.empty((0, *view.shape), np.float16)
    followed = view.follow == "occlusion" and found is not None
    record = {"channels": list(filled), "reasons": reasons, "affine": grid.tolist()}
    return made, record | {"followed": followed}


# ---------------------------------------------------------------------------------------------- perfusion


def _measure_perfusion(task: Task, patient: Patient) -> None:
    """Parameters measured from the maps, or why not."""
    there = {scan: patient.volumes[scan] for scan in MAPS if scan in patient.volumes}
    if patient.alignment is None or not there:
        return
    absent = [scan for scan in ("cbf", "cbv", "tmax") if scan not in there]
    why = f"no {' and no '.join(absent)} map" if absent else ""
    try:
        perfusion.check_same_grid(there)
    except InputError as error:
        said = str(error).split(";")[0]  # flags are joined by semicolons
        patient.flags.append(f"perfusion maps lie on different grids: not measured ({said})")
        why = "perfusion maps lie on different grids"
    if why:
        patient.reasons |= dict.fromkeys(perfusion.NAMES, why)
        return
    maps = {scan: there[scan] for scan in ("cbf", "cbv", "tmax")}
    (cbf, affine), (cbv, _), (tmax, _) = maps.values()
    midline = patient.alignment.midline
    found = perfusion.measure(cbf, cbv, tmax, affine, midline, task.side)
    patient.qc |= found.values | {"tmax_side": found.tmax_side}
    patient.reasons |= found.reasons
    patient.flags += found.flags


def _plain(value: Any) -> Any:
    """A value that JSON can hold: numbers rounded, None for NaN."""
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), 4)
    return value
