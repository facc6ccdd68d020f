"""From a patient's files to one model-ready tensor, kept on disk and found again.

Conventions
-----------
* Scans share one world: mm, RAS+ (+x right, +y anterior, +z superior).
* The **head frame** is rigid: origin in the mid-sagittal plane, midway along the head front to
  back, at the vertex; axes right, anterior, superior of the head.
* The **tensor** is (C, D, H, W) float16, windowed to 0..1; D, H, W run along the frame's x, y, z.
  `tensor_affine` maps its voxel indices to world mm and contains the flip to the common side, so a
  map on the tensor grid saved with it lies right on the patient's own scans.
* Outside a scan's field of view a channel holds 0 (the low end of its window), and the covered
  fraction is recorded. A channel without a scan is absent, never zero.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlvo_lib import images, perfusion, storage, vessels, workers
from rlvo_lib.config import InputError, Settings
from rlvo_lib.head import CT_SCANS, HeadFrame, head_frame

if TYPE_CHECKING:
    import pandas as pd

    from rlvo_lib.dataset import Dataset

PERFUSION_SCANS = ("cbf", "cbv", "mtt", "tmax")
#: Values that perfusion maps may have (more than 1 % outside: another unit, or another map).
PLAUSIBLE = {
    "cbf": (-20.0, 400.0, "mL/100 g/min"), "cbv": (-10.0, 60.0, "mL/100 g"),
    "mtt": (-10.0, 120.0, "s"), "tmax": (-10.0, 120.0, "s"),
}  # fmt: skip

# The part of the head that the grid holds, in the head frame; chosen for the anterior circulation.
ACROSS_MIDLINE_MM = 12.0  # the crop reaches so far into the other hemisphere
GRID_CENTRE_Y_MM = 5.0  # its centre lies so far before the middle of the head
BASE_BELOW_VERTEX = 0.64  # its floor, just below the circle of Willis, in head lengths


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
    scans: dict[str, str]  # modality -> path
    side: str | None
    flip_to_side: str
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
    wanted = [s for s in (*CT_SCANS, *PERFUSION_SCANS) if s in task.scans]
    volumes = {s: _load(task.scans[s], s) for s in wanted}
    source = next((s for s in ("ncct", "cta", "cbf", "tmax", "cbv", "mtt") if s in volumes), None)
    frame = head_frame(*volumes[source], source) if source else None
    mask, qc = _vessel_mask(task, volumes, frame)
    if mask is not None:
        volumes["vessels"] = mask
    record: dict[str, Any] = {"participant_id": task.participant_id, "side": task.side}
    reasons = {
        name: "no vessels or CTA scan" if scan == "vessels" else f"no {scan} scan"
        for name, (scan, _, _) in task.channels.items()
        if scan not in volumes
    }
    if frame is None:
        reasons = {name: reasons.get(name, "no scan to find the head in") for name in task.channels}
        record |= {"channels": [], "reasons": reasons, "flags": [], "affine": None, "qc": {}}
        return np.empty((0, *task.grid_shape), np.float16), record
    grid = _grid_affine(frame, task.side, task.flip_to_side, task.grid_shape, task.grid_spacing_mm)
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
    if all(s in volumes for s in ("cbf", "cbv", "tmax")):
        qc |= _perfusion_qc(volumes, frame, task.side)
    flags = [*frame.flags, *_flags(task, qc)]
    record |= {"channels": names, "reasons": reasons, "flags": flags}
    return tensor, record | {"affine": grid.tolist(), "qc": qc}


def _load(path: str, scan: str) -> tuple[np.ndarray, np.ndarray]:
    if scan in CT_SCANS:
        return images.load_ct(path)
    array, affine = images.load_nifti(path)
    if not array.any():
        raise InputError(f"{path}: holds nothing but zeros")
    low, high, unit = PLAUSIBLE.get(scan, (-np.inf, np.inf, ""))
    outside = float(((array < low) | (array > high)).mean())
    if outside > 0.01:
        raise InputError(
            f"{path}: {outside:.0%} of the voxels lie outside {low:g} to {high:g} {unit} (values "
            f"{array.min():g} to {array.max():g}); allowed: a map in {unit}"
        )
    return array, affine


def _vessel_mask(
    task: Task, volumes: dict[str, tuple[np.ndarray, np.ndarray]], frame: HeadFrame | None
) -> tuple[tuple[np.ndarray, np.ndarray] | None, dict[str, Any]]:
    """The user's own mask if there is one, else segmented from the CTA; and its volume."""
    path = task.scans.get("vessels")
    if path is not None:
        mask, affine = images.load_nifti(path)
        if "cta" in volumes:
            _check_same_grid(path, mask, affine, *volumes["cta"])
        if not np.isin(np.unique(mask), (0.0, 1.0)).all():
            raise InputError(f"{path}: holds values other than 0 and 1; a binary mask is allowed")
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
    (cbf, affine), (cbv, _), (tmax, _) = (volumes[s] for s in ("cbf", "cbv", "tmax"))
    same = all(
        volumes[s][0].shape == cbf.shape and np.allclose(volumes[s][1], affine, atol=1e-2)
        for s in ("cbv", "tmax")
    )
    if not same:
        return {"tmax_side": "unknown: grids differ"}
    measured = perfusion.parameters(cbf, cbv, tmax, affine, frame.midline, side)
    return {k: _plain(v) for k, v in measured.items()}


def _plain(value: float | str) -> float | str | None:
    """A value that JSON can hold: rounded, None for NaN."""
    if isinstance(value, str):
        return value
    return None if np.isnan(value) else round(value, 4)


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
    if qc.get("tmax_side") == "unknown: grids differ":
        flags.append("perfusion maps lie on different grids: not measured")
    if qc.get("tmax_side") in ("left", "right") and task.side not in (None, qc["tmax_side"]):
        flags.append(f"delayed flow is on the {qc['tmax_side']}, recorded side is {task.side}")
    return flags


# -------------------------------------------------------------------------------------- tensor cache


#: Tensors of a task are held in memory up to this size (two tasks run at once).
IN_MEMORY_BYTES = 2 * 2**30


@dataclass(frozen=True)
class TensorCache:
    """The prepared tensors of a dataset: what is there, where, and how good it looks.

    ``table`` has one row a patient (index participant_id): ``key``, ``available`` (tuple of channel
    names), ``side``, ``flags`` (text, "; " between), the quality figures ``coverage_<channel>``,
    ``vessel_volume_ml``, ``core_ml``, ``tmax6_ml``, ... (NaN where not measured).
    """

    folder: Path
    table: pd.DataFrame
    records: dict[str, dict[str, Any]]

    def load(self, participant_ids: Iterable[str], channels: Sequence[str]) -> np.ndarray:
        """Tensors (N, C, D, H, W) float16, in the order asked for.

        Raises InputError naming the patient and the channel that is absent.
        """
        return np.stack([self._one(str(p), channels) for p in participant_ids])

    def images(self, participant_ids: Iterable[str], channels: Sequence[str]) -> Any:
        """Like `load`; where that would fill over `IN_MEMORY_BYTES`, read from disk batch by batch."""
        stack = TensorStack(self, list(participant_ids), tuple(channels))
        return stack if stack.nbytes > IN_MEMORY_BYTES else stack[np.arange(len(stack))]

    def _one(self, participant_id: str, channels: Sequence[str]) -> np.ndarray:
        record = self._record(participant_id)
        absent = [c for c in channels if c not in record["channels"]]
        if absent:
            reason = record["reasons"].get(absent[0], "not a channel of this study")
            raise InputError(f"patient {participant_id}: no channel '{absent[0]}' ({reason})")
        tensor = np.load(self.folder / record["key"] / "tensor.npy", mmap_mode="r")
        return tensor[[record["channels"].index(c) for c in channels]]

    def affine(self, participant_id: str) -> np.ndarray:
        """4x4, tensor voxel indices to world mm (RAS+) of the patient's scans."""
        affine = self._record(participant_id)["affine"]
        if affine is None:
            raise InputError(f"patient {participant_id}: no scan, so no image grid")
        return np.array(affine)

    def missing(self, participant_ids: Iterable[str], channels: Sequence[str]) -> dict[str, str]:
        """The patients who lack a channel, each with the reason: to be excluded and counted."""
        reasons = {}
        for participant_id in map(str, participant_ids):
            record = self._record(participant_id)
            absent = [c for c in channels if c not in record["channels"]]
            if absent:
                reasons[participant_id] = record["reasons"][absent[0]]
        return reasons

    def _record(self, participant_id: str) -> dict[str, Any]:
        if participant_id not in self.records:
            raise InputError(f"patient {participant_id}: not among the prepared patients")
        return self.records[participant_id]

    @property
    def fingerprint(self) -> str:
        """Changes when any patient's files, side, channels or grid change."""
        return storage.key(sorted((p, r["key"]) for p, r in self.records.items()))


@dataclass(frozen=True)
class TensorStack:
    """Tensors of N patients that stay on disk: indexed by rows, it gives (n, C, D, H, W) float16."""

    cache: TensorCache
    participants: list[str]
    channels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.participants)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.cache.load([self.participants[row] for row in rows], self.channels)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.cache.load([p], self.channels)[0] for p in self.participants)

    @property
    def nbytes(self) -> int:
        """Bytes that all of it would fill in memory."""
        return len(self) * self.cache.load(self.participants[:1], self.channels).nbytes


def prepare(
    dataset: Dataset, settings: Settings, participants: Iterable[str] | None = None
) -> TensorCache:
    """The tensors of a dataset's patients (all, or those named), made where they are not there yet.

    One folder a patient under ``settings.cache / "tensors"``, named by a key of the content of the
    scans, the side, the channels, the grid and this package's imaging code. A second process that
    prepares into the same cache waits. An unreadable scan raises InputError naming patient and file.
    """
    folder = Path(settings.cache) / "tensors"
    ids = [str(p) for p in (dataset.table.index if participants is None else participants)]
    unknown = [p for p in ids if p not in dataset.table.index]
    if unknown:
        raise InputError(f"patient {unknown[0]}: not in the table of dataset {dataset.name}")
    tasks = [_task(dataset, settings, p) for p in ids]
    with storage.lock(folder / "prepare"):
        keys = _keys(tasks, folder)
        todo = [(t, folder / k) for t, k in zip(tasks, keys, strict=True)]
        todo = [(t, f) for t, f in todo if not (f / "record.json").is_file()]
        _make(todo, settings.workers)
    records = {}
    for task, key in zip(tasks, keys, strict=True):
        records[task.participant_id] = storage.read_json(folder / key / "record.json") | {
            "key": key
        }
    return TensorCache(folder, _table(records), records)


def _task(dataset: Dataset, settings: Settings, participant_id: str) -> Task:
    study = settings.study
    channels = {name: (c.scan, c.low, c.high) for name, c in study.channels.items()}
    paths = {s: dataset.scan(participant_id, s) for s in (*CT_SCANS, "vessels", *PERFUSION_SCANS)}
    side = None
    if study.side_column in dataset.table.columns:
        code = dataset.table.at[participant_id, study.side_column]
        if isinstance(code, float | np.floating):
            code = "" if np.isnan(code) else str(int(code))
        side = study.side_codes.get(str(code))
    return Task(
        participant_id=participant_id,
        root=str(dataset.root),
        scans={s: str(p) for s, p in paths.items() if p is not None},
        side=side,
        flip_to_side=study.flip_to_side,
        channels=channels,
        grid_shape=tuple(settings.grid_shape),
        grid_spacing_mm=float(settings.grid_spacing_mm),
    )


def _keys(tasks: Sequence[Task], folder: Path) -> list[str]:
    """A key for each task; files' digests are remembered by path, size and time of change."""
    memory = folder / "digests.json"
    known = storage.read_json(memory) if memory.is_file() else {}
    code = storage.code_key("images", "head", "vessels", "perfusion", "preprocess")
    seen, keys = {}, []
    for task in tasks:
        digests = {}
        for scan, path in task.scans.items():
            stat = os.stat(path)
            mark = f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
            digests[scan] = seen[mark] = known.get(mark) or storage.digest(path)
        rest = dataclasses.asdict(task)
        del rest["scans"], rest["root"]
        keys.append(storage.key(digests, rest, code))
    if not seen.keys() <= known.keys():
        storage.write_json(memory, known | seen)
    return keys


def _make(todo: Sequence[tuple[Task, Path]], processes: int) -> None:
    """Make the missing tensors; a few are made in this process, a new one costs a second."""
    if todo:
        few = len(todo) + 1 if processes == 1 else 8
        workers.run(_make_one, todo, workers=processes, label="tensors", spawn_from=few)


def _make_one(task: Task, folder: Path) -> None:
    """One patient's folder; its record is written last and marks it whole."""
    tensor, record = patient_tensor(task)
    storage.write_array(folder / "tensor.npy", tensor)
    storage.write_json(folder / "record.json", record)


MEASURED = (
    "vessel_volume_ml", "core_ml", "tmax4_ml", "tmax6_ml", "tmax10_ml", "mismatch_ratio", "hir",
    "cbv_index",
)  # fmt: skip


def _table(records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    covered = [f"coverage_{c}" for r in records.values() for c in r["channels"]]
    rows = {
        p: {
            "key": r["key"],
            "available": tuple(r["channels"]),
            "side": r["side"],
            "flags": "; ".join(r["flags"]),
            "tmax_side": "",
        }
        | dict.fromkeys((*MEASURED, *covered), np.nan)
        | {name: value for name, value in r["qc"].items() if value is not None}
        for p, r in records.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("participant_id")
