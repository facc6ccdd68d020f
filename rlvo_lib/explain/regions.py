"""Parts of a patient's image as masks on the tensor's grid, and how much of an attribution falls into each.

Structures are measured from the scans, in real data as in simulated; territories come from an atlas; `truth` is what
a simulator drew, and is used only to judge explanations, never by a model.

=============  =============================================================================================
occlusion      within 8 mm of the line along which the vessel graph found the lumen missing
vessels        lumen: a third of the voxel or more is in the vessel mask
vessel_wall    within 2 mm (one voxel on a coarse grid) of the lumen, not in it
core           relative CBF < 30 % within Tmax > 6 s (`perfusion.regions`, on the maps as they were stored)
penumbra       the rest of Tmax > 6 s
contralateral  intracranial, beyond the mid-plane
rest           intracranial and in none of these
=============  =============================================================================================

The **field** is what is intracranial and on the grid, with the vessels: shares of volume and of attribution are
taken of it, so that air is nobody's success. What lies outside it is a region of its own, ``outside``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import images, perfusion, storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.dataset import TRUTH
from rlvo_lib.explain import atlas, keeping
from rlvo_lib.explain.attribution import is_flat
from rlvo_lib.explain.maps import FLAT, Maps
from rlvo_lib.perfusion.regions import DEFICIT_S
from rlvo_lib.preprocess import TensorCache
from rlvo_lib.preprocess.cache import patient_task
from rlvo_lib.preprocess.grid import outward
from rlvo_lib.preprocess.reading import read_scan

MAPS = ("tmax", "cbf", "cbv", "mtt")  # scans on whose grid a simulator's lesion lies
STENOSIS_MM = 5.0  # radius about the middle of a true stenosis
OCCLUSION_MM, WALL_MM = 8.0, 2.0
LUMEN_SHARE = 1 / 3
REGION_COLUMNS = [
    "participant_id", "arm", "method", "region", "kind", "share", "share_negative", "volume_share", "hit",
    "reason",
]  # fmt: skip
OUTSIDE = "outside"
WORTH_A_PROCESS = (
    10_000_000  # voxels of all patients: below, starting one takes longer than the work
)


@dataclass(frozen=True)
class Regions:
    """A patient's regions: kind ("structure", "territory", "truth") to name to mask (D, H, W) bool.

    field : what shares are taken of.
    """

    field: np.ndarray
    masks: dict[str, dict[str, np.ndarray]]


def regions_of(
    analysis: Analysis,
    cache: TensorCache,
    participant: str,
    *,
    judged: bool = False,
    atlas_path: str | Path = "",
) -> Regions:
    """The regions of one patient on the tensor's grid; a region that cannot be found is left out.

    judged : with the simulator's `truth`. atlas_path : see `atlas.on_tensor`.
    """
    labels = atlas.on_tensor(analysis.settings, cache, participant, atlas_path)
    found = structures(analysis, cache, participant)
    lumen = found.get("vessels")
    field = _seen(cache, participant) if labels is None else labels > 0
    field = field if lumen is None else field | lumen | found["vessel_wall"]
    beyond = _beyond_midline(cache, participant)
    if beyond is not None:
        found["contralateral"] = beyond & field
    found["rest"] = field & ~np.any(list(found.values()), axis=0) if found else field
    masks = {"structure": found}
    if labels is not None:
        masks["territory"] = _territories(labels, cache.records[participant]["side"])
    if judged:
        masks["truth"] = truth(analysis, cache, participant)
    return Regions(field, masks)


def structures(analysis: Analysis, cache: TensorCache, participant: str) -> dict[str, np.ndarray]:
    """Occlusion, vessels, vessel_wall, core, penumbra: masks (D, H, W) bool of those the scans show.

    And each mask among the study's scans that is no vessel mask (a lesion, say), by its name.
    """
    record = cache.records[participant]
    grid, shape = cache.affine(participant), _shape(cache, participant)
    found = {}
    ends = [[record["qc"].get(f"occlusion_{end}{a}_mm") for a in "xyz"] for end in ("", "end_")]
    side = record["qc"].get("occlusion_side")
    if side in ("left", "right") and record["side"] in (side, None) and ends[0][0] is not None:
        ends[1] = ends[0] if ends[1][0] is None else ends[1]
        found["occlusion"] = capsule(*ends, OCCLUSION_MM, grid, shape)
    if "vessels" in record["channels"]:
        lumen = cache.load([participant], ["vessels"])[0, 0] >= LUMEN_SHARE
        found |= {"vessels": lumen, "vessel_wall": shell(lumen, WALL_MM, grid)}
    for name, channel in analysis.settings.study.channels.items():
        kind = analysis.settings.study.scans[channel.scan].kind
        if kind == "mask" and name != "vessels" and name in record["channels"]:
            found[name] = cache.load([participant], [name])[0, 0] >= 0.5
    return found | _perfusion(analysis, cache, participant)


def _perfusion(analysis: Analysis, cache: TensorCache, participant: str) -> dict[str, np.ndarray]:
    """Core and penumbra by the field's thresholds, found on the maps' own voxels."""
    record = cache.records[participant]
    there = [scan for scan in ("cbf", "cbv", "tmax") if scan in record["scans"]]
    if len(there) < 3 or record["head_to_world"] is None:
        return {}
    task = patient_task(analysis.dataset, analysis.settings, participant)
    volumes = {scan: read_scan(task, scan, []) for scan in there}
    if len({(v.shape, a.round(3).tobytes()) for v, a in volumes.values()}) > 1:
        return {}
    pose = np.array(record["head_to_world"])
    normal = np.linalg.inv(pose)[0, :3]
    midline = np.append(normal, normal @ pose[:3, 3])
    arrays, affine = [volumes[scan][0] for scan in there], volumes["tmax"][1]
    found = perfusion.regions(*arrays, affine, midline, record["side"])
    late = found.late[DEFICIT_S]
    grid, shape = cache.affine(participant), _shape(cache, participant)
    core = on_grid(found.core, affine, grid, shape)
    return {"core": core, "penumbra": on_grid(late, affine, grid, shape) & ~core}


def _territories(labels: np.ndarray, side: str | None) -> dict[str, np.ndarray]:
    """Territories of the affected side (of both where it is unknown), and the rest of the field."""
    own = {"right": (0,), "left": (atlas.ON_THE_LEFT,)}.get(side, (0, atlas.ON_THE_LEFT))
    found = {
        name: np.isin(labels, [label + shift for shift in own])
        for name, label in atlas.TERRITORIES.items()
    }
    return found | {"elsewhere": (labels > 0) & ~np.any(list(found.values()), axis=0)}


def _seen(cache: TensorCache, participant: str) -> np.ndarray:
    """Where any channel of the tensor shows something: the field where no atlas fits."""
    return (cache.load([participant], cache.records[participant]["channels"])[0] > 0).any(axis=0)


def _beyond_midline(cache: TensorCache, participant: str) -> np.ndarray | None:
    """The half of the grid (D, H, W) on the other side of the mid-plane; None if no side is affected."""
    record = cache.records[participant]
    if record["side"] is None:
        return None
    pose = np.eye(4) if record["head_to_world"] is None else np.array(record["head_to_world"])
    row = (np.linalg.inv(pose) @ cache.affine(participant))[0]
    i, j, k = (
        np.arange(n) * step for n, step in zip(_shape(cache, participant), row, strict=False)
    )
    x = i[:, None, None] + j[:, None] + k + row[3]
    return x * outward(record["side"]) < 0


# ------------------------------------------------------------------------------------ attribution


def region_shares(
    analysis: Analysis, cache: TensorCache, maps: Maps, *, atlas_path: str | Path = ""
) -> pd.DataFrame:
    """How much of each patient's maps falls into each region; on a simulated dataset the truth's too.

    Returns
    -------
    DataFrame with `REGION_COLUMNS`, a row a patient, method, kind and region that the patient has in the field:
    share of the positive attribution and of the negative one, and of the volume; hit: whether the highest voxel of
    the field lies in it. NaN with a reason where a map is flat, or nothing of it has that sign. Of ``outside`` the
    shares are of the whole grid.
    """
    judged = analysis.dataset.simulated
    people = maps.participants
    depends = [
        [[p, cache.table.at[p, "key"]] for p in people], maps.arm, list(maps.values), str(atlas_path), judged,
        [hashlib.sha256(np.ascontiguousarray(v)).hexdigest() for v in maps.values.values()],
    ]  # fmt: skip
    return keeping.kept_table(
        analysis,
        f"regions-{maps.arm}",
        depends,
        lambda: _shares(analysis, cache, maps, judged, atlas_path),
    )


def _shares(
    analysis: Analysis, cache: TensorCache, maps: Maps, judged: bool, atlas_path: str | Path
) -> pd.DataFrame:
    calls = [
        (
            analysis,
            cache,
            p,
            {name: maps.of(p, name) for name in maps.values},
            judged,
            str(atlas_path),
        )
        for p in maps.participants
    ]
    many = np.prod(analysis.settings.grid_shape) * len(calls) > WORTH_A_PROCESS
    rows = workers.run(
        _patient_rows, calls, workers=analysis.settings.workers, label="regions: patients",
        spawn_from=1 if many else len(calls) + 1,
    )  # fmt: skip
    table = pd.DataFrame(
        [row for some in rows for row in some], columns=[c for c in REGION_COLUMNS if c != "arm"]
    )
    table.insert(1, "arm", maps.arm)
    return table


def _patient_rows(
    analysis: Analysis,
    cache: TensorCache,
    participant: str,
    maps: Mapping[str, np.ndarray],
    judged: bool,
    atlas_path: str,
) -> list[tuple]:
    parts = regions_of(analysis, cache, participant, judged=judged, atlas_path=atlas_path)
    named = [
        (kind, name, mask) for kind, masks in parts.masks.items() for name, mask in masks.items()
    ]
    return [
        (participant, method, region, kind, *values)
        for method, array in maps.items()
        for region, kind, *values in shares_of(array, parts.field, named)
    ]


def shares_of(
    array: np.ndarray, field: np.ndarray, named: Sequence[tuple[str, str, np.ndarray]]
) -> list[tuple]:
    """Rows (region, kind, share, share_negative, volume_share, hit, reason) of one map (D, H, W).

    named : (kind, name, mask) each; a region without a voxel in the field is left out.

    >>> array, field = np.array([[[3.0, 1.0, -2.0, 9.0]]]), np.array([[[True, True, True, False]]])
    >>> shares_of(array, field, [("structure", "core", np.array([[[True, False, False, False]]]))])[0]
    ('core', 'structure', 0.75, 0.0, 0.3333333333333333, 1.0, '')
    """
    reason = FLAT if is_flat(array) else ""
    up, down = np.clip(array, 0, None).astype(float), np.clip(-array, 0, None).astype(float)
    total_up, total_down = float(up[field].sum()), float(down[field].sum())
    if not reason and not total_up > 0:
        reason = "nothing in the field speaks for the outcome"
    peak = np.unravel_index(int(np.where(field, array, -np.inf).argmax()), array.shape)
    rows = []
    for kind, name, mask in named:
        inside = mask & field
        if not inside.any():
            continue
        rows.append((
            name, kind, _share(up[inside].sum(), total_up), _share(down[inside].sum(), total_down),
            float(inside.sum() / field.sum()), np.nan if reason else float(inside[peak]), reason,
        ))  # fmt: skip
    if not field.all():
        top = np.unravel_index(int(array.argmax()), array.shape)
        rows.append((
            OUTSIDE, "structure", _share(up[~field].sum(), float(up.sum())),
            _share(down[~field].sum(), float(down.sum())), float((~field).mean()),
            np.nan if reason else float(~field[top]), reason,
        ))  # fmt: skip
    return rows


def _share(part: float, whole: float) -> float:
    return float(part) / whole if whole > 0 else float("nan")


# ------------------------------------------------------------------------------------------ truth


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
        drawn["stenosis"] |= capsule(place["at"], place["at"], STENOSIS_MM, grid, shape)
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


def capsule(
    start: Sequence[float],
    end: Sequence[float],
    radius_mm: float,
    grid: np.ndarray,
    shape: tuple[int, int, int],
) -> np.ndarray:
    """Voxels whose centre is within ``radius_mm`` of a line between two places in world mm; bool.

    And those that hold its ends, so that it is not lost on a coarse grid.

    >>> int(capsule([1, 1, 1], [1, 1, 1], 1.0, np.eye(4), (3, 3, 3)).sum())
    7
    """
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ grid[:3, :3].T + grid[:3, 3]
    start, along = np.asarray(start, float), np.subtract(end, start)
    far = ((world - start) @ along) / max(float(along @ along), 1e-12)
    away = world - start - np.clip(far, 0, 1)[..., None] * along
    found = np.linalg.norm(away, axis=-1) <= radius_mm
    for place in (start, end):
        own = np.rint(np.linalg.inv(grid) @ [*place, 1.0])[:3].astype(int)
        if ((own >= 0) & (own < shape)).all():
            found[tuple(own)] = True
    return found


def shell(mask: np.ndarray, width_mm: float, grid: np.ndarray) -> np.ndarray:
    """Voxels outside a mask within ``width_mm`` of it, at least one voxel wide; bool.

    >>> shell(np.array([[[False, True, False, False]]]), 1.0, np.eye(4)).ravel().tolist()
    [True, False, True, False]
    """
    from scipy import ndimage

    if not mask.any():
        return np.zeros_like(mask, bool)
    spacing = images.voxel_sizes(grid)
    away = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return ~mask & (away <= max(width_mm, float(spacing.max())) + 1e-6)


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
