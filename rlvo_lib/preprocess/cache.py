"""The prepared tensors of a dataset: made where they are not there yet, kept by content, found again.

A patient's folder ``tensors/<key>/`` holds ``tensor.npy`` (C, D, H, W) float16; ``<view>.npy``, the same of
each view of the study file; ``record.json`` (the order of channels, their windows and units, the affine,
how scans were moved, quality figures, what was measured, flags); ``vessels.nii.gz`` (the mask, on the CTA's own grid) and ``centre_line.csv`` where there is one.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlvo_lib import images, storage, workers
from rlvo_lib.config import InputError, Settings
from rlvo_lib.preprocess import quality
from rlvo_lib.preprocess.task import Task
from rlvo_lib.preprocess.tensor import patient_tensor
from rlvo_lib.registration.template import TEMPLATE_FILE

if TYPE_CHECKING:
    import pandas as pd

    from rlvo_lib.dataset import Dataset

#: Tensors of a task are held in memory up to this size (two tasks run at once).
IN_MEMORY_BYTES = 2 * 2**30
#: What a patient's folder holds at least; the record is written last.
WHOLE = ("tensor.npy", "record.json")


@dataclass(frozen=True)
class TensorCache:
    """The prepared tensors of a dataset: what is there, where, and how good it looks.

    ``table`` has one row a patient (index participant_id): ``key``, ``available`` (tuple of channel
    names), ``side``, ``flags`` (text, "; " between), and all that was measured in any of them:
    ``coverage_<channel>``, ``registration_cost``, ``vessel_volume_ml``, ``tmax6_ml``, ... (NaN, or ""
    for words, where it was not).
    """

    folder: Path
    table: pd.DataFrame
    records: dict[str, dict[str, Any]]

    def load(
        self,
        participant_ids: Iterable[str],
        channels: Sequence[str],
        *,
        view: str = "",
        absent: str = "refuse",
    ) -> np.ndarray:
        """Tensors (N, C, D, H, W) float16, in the order asked for; ``view``: those of a view.

        A channel that a patient lacks is never zeros, which would look like air: ``absent="refuse"``
        raises InputError naming patient, channel and reason; ``absent="nan"`` fills it with NaN, for a
        model that is told what is `present` and puts something of its own there.
        """
        if absent not in ("refuse", "nan"):
            raise InputError(f"absent is '{absent}'; allowed: refuse, nan")
        return np.stack([self._one(str(p), channels, view, absent) for p in participant_ids])

    def present(
        self, participant_ids: Iterable[str], channels: Sequence[str], view: str = ""
    ) -> np.ndarray:
        """Which patients have which channels; bool (N, C): the flags that go with absent channels."""
        have = [self._channels(self._record(str(p)), view) for p in participant_ids]
        return np.array([[c in own for c in channels] for own in have]).reshape(-1, len(channels))

    def images(
        self,
        participant_ids: Iterable[str],
        channels: Sequence[str],
        *,
        view: str = "",
        absent: str = "refuse",
    ) -> Any:
        """Like `load`; where that would fill over `IN_MEMORY_BYTES`, read from disk batch by batch."""
        stack = TensorStack(self, list(participant_ids), tuple(channels), view, absent)
        return stack if stack.nbytes > IN_MEMORY_BYTES else stack[np.arange(len(stack))]

    def measures(self, participant_ids: Iterable[str], names: Sequence[str]) -> np.ndarray:
        """What was measured in the scans, (N, K) float64: columns of ``table``, NaN where it was not.

        Raises
        ------
        InputError
            For a quantity that no patient of this cache has a column for.
        """
        for name in names:
            if name not in self.table:
                raise InputError(
                    f"'{name}' is not measured in these scans; allowed: columns of the tensors' table"
                )
        return self.table.loc[[str(p) for p in participant_ids], list(names)].to_numpy(float)

    def _one(
        self, participant_id: str, channels: Sequence[str], view: str, absent: str
    ) -> np.ndarray:
        record = self._record(participant_id)
        own = self._channels(record, view)
        lacking = [c for c in channels if c not in own]
        if lacking and absent == "refuse":
            reason = record["reasons"].get(lacking[0], "not a channel of this study, or view")
            raise InputError(f"patient {participant_id}: no channel '{lacking[0]}' ({reason})")
        path = self.folder / record["key"] / f"{view or 'tensor'}.npy"
        if not path.is_file():
            raise InputError(f"patient {participant_id}: no view '{view}' (no scan shows the head)")
        tensor = np.load(path, mmap_mode="r")
        if not lacking:
            return tensor[[own.index(c) for c in channels]]
        out = np.full((len(channels), *tensor.shape[1:]), np.nan, np.float16)
        for k, channel in enumerate(channels):
            if channel not in lacking:
                out[k] = tensor[own.index(channel)]
        return out

    @staticmethod
    def _channels(record: dict[str, Any], view: str) -> list[str]:
        """The channels that a patient's tensor, or view, holds, in its order."""
        return record["views"].get(view, {}).get("channels", []) if view else record["channels"]

    def affine(self, participant_id: str, scan: str | None = None) -> np.ndarray:
        """4x4, tensor voxel indices to world mm (RAS+) of a scan of the patient.

        Left out, `scan` is the one the head was found in. Only a scan that had to be moved onto it (a
        CTA after the patient had moved) has a world of its own.
        """
        record = self._record(participant_id)
        if record["affine"] is None:
            raise InputError(f"patient {participant_id}: no scan, so no image grid")
        self._check_scan(record, scan)
        move = np.array(record["moves"].get(scan, np.eye(4)))
        return np.linalg.inv(move) @ np.array(record["affine"])

    def to_native(
        self, participant_id: str, array: np.ndarray, scan: str, fill: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """A map (D, H, W) on the tensor's grid, carried back to the voxels of one of the scans.

        Returns the map (X, Y, Z) float32 on the scan's own grid (trilinear; `fill` outside the
        tensor's grid) and the scan's affine: saved with it, the map opens aligned in any viewer.
        """
        record = self._record(participant_id)
        self._check_scan(record, scan)
        native = record["scans"][scan]
        affine = np.array(native["affine"])
        source = self.affine(participant_id, scan)
        return images.resample(array, source, affine, tuple(native["shape"]), fill), affine

    def _check_scan(self, record: dict[str, Any], scan: str | None) -> None:
        if scan is not None and scan not in record["scans"]:
            had = ", ".join(record["scans"]) or "none"
            raise InputError(f"patient {record['participant_id']}: no scan '{scan}'; has: {had}")

    def missing(
        self, participant_ids: Iterable[str], channels: Sequence[str], view: str = ""
    ) -> dict[str, str]:
        """The patients who lack a channel, each with the reason: to be excluded and counted."""
        reasons = {}
        for participant_id in map(str, participant_ids):
            record = self._record(participant_id)
            own = self._channels(record, view)
            absent = [c for c in channels if c not in own]
            if absent:
                known = record["views"].get(view, {}).get("reasons", {}) if view else {}
                why = {**record["reasons"], **known}.get(absent[0], f"no view '{view}'")
                reasons[participant_id] = why
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
    view: str = ""
    absent: str = "refuse"

    def __len__(self) -> int:
        return len(self.participants)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._load([self.participants[row] for row in rows])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._load([p])[0] for p in self.participants)

    def _load(self, ids: list[str]) -> np.ndarray:
        return self.cache.load(ids, self.channels, view=self.view, absent=self.absent)

    @cached_property
    def _one(self) -> np.ndarray:
        return self._load(self.participants[:1])

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, D, H, W)."""
        return (len(self), *self._one.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes that all of it would fill in memory."""
        return len(self) * self._one.nbytes


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
    tasks = [patient_task(dataset, settings, p) for p in ids]
    with storage.lock(folder / "prepare"):
        keys = _keys(tasks, folder)
        todo = [(t, folder / k) for t, k in zip(tasks, keys, strict=True)]
        todo = [(t, f) for t, f in todo if not all((f / name).is_file() for name in WHOLE)]
        _make(todo, settings.workers)
    records = {}
    for task, key in zip(tasks, keys, strict=True):
        records[task.participant_id] = storage.read_json(folder / key / "record.json") | {
            "key": key
        }
    return TensorCache(folder, _table(records), records)


def patient_task(dataset: Dataset, settings: Settings, participant_id: str) -> Task:
    study = settings.study
    paths = {scan: dataset.scan(participant_id, scan) for scan in study.scans}
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
        kinds=study.scans,
        side=side,
        flip_to_side=study.flip_to_side,
        grid=study.grid,
        channels=study.channels,
        views=study.views,
        grid_shape=tuple(settings.grid_shape),
        grid_spacing_mm=float(settings.grid_spacing_mm),
        template=settings.template,
        excluded={
            s: reason for (p, s), reason in dataset.exclusions.scans.items() if p == participant_id
        },
    )


def _keys(tasks: Sequence[Task], folder: Path) -> list[str]:
    """A key for each task; files' digests are remembered by path, size and times of change.

    Both times count: a program may set the one of the content back (cp -p, rsync), not the other.
    """
    memory = folder / "digests.json"
    known = storage.read_json(memory) if memory.is_file() else {}
    code = storage.code_key("images", "head", "registration", "vessels", "perfusion", "preprocess")
    template = storage.digest(tasks[0].template or TEMPLATE_FILE) if tasks else ""
    seen, keys = {}, []
    for task in tasks:
        digests = {}
        for scan, path in task.scans.items():
            stat = os.stat(path)
            mark = f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"
            digests[scan] = seen[mark] = known.get(mark) or storage.digest(path)
        rest = dataclasses.asdict(task)
        del rest["scans"], rest["root"], rest["template"]
        keys.append(storage.key(digests, rest, code, template))
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
    arrays, record, patient = patient_tensor(task)
    for name, array in arrays.items():
        storage.write_array(folder / f"{name}.npy", array)
    if "vessels" in patient.volumes and task.grid.space == "head":
        mask, affine = patient.volumes["vessels"]
        own = np.linalg.inv(patient.moves.get("cta", np.eye(4))) @ affine
        images.save_nifti(folder / "vessels.nii.gz", mask.astype(np.uint8), own)
    if patient.centre_line is not None:
        storage.write_csv(folder / "centre_line.csv", patient.centre_line)
    storage.write_json(folder / "record.json", record)


def _table(records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row a patient: what is available, what was measured, and what to look at."""
    import pandas as pd

    measured = dict.fromkeys(name for r in records.values() for name in r["qc"])
    words = {n for r in records.values() for n, value in r["qc"].items() if isinstance(value, str)}
    rows = {
        p: {"key": r["key"], "available": tuple(r["channels"]), "side": r["side"]}
        | {name: "" if name in words else np.nan for name in measured}
        | {name: value for name, value in r["qc"].items() if value is not None}
        for p, r in records.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("participant_id")
    beside = quality.cohort_flags(table)
    flags = {
        p: "; ".join(flag.replace("; ", ", ") for flag in [*r["flags"], *beside.get(p, [])])
        for p, r in records.items()
    }
    table.insert(3, "flags", pd.Series(flags, dtype=object))
    return table
