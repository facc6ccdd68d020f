"""Write the embedded cohort as a dataset folder, in the format a hospital's folder has.

Work goes patient by patient, on all workers, in files that are whole or absent. The folder's
``derivatives/truth/generation.json`` holds the `Request` and a key of the source code: work of the
same request is continued, anything else in the folder is refused. ``participants.tsv`` is written
last but one and ``dataset_description.json`` last, so an interrupted folder is never taken for a
finished one.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import rlvo_lib
from rlvo_lib import dictionary, storage
from rlvo_lib import workers as parallel
from rlvo_lib.config import InputError, load_study
from rlvo_lib.dataset import scan_path
from rlvo_lib.dictionary import MISSING_REASONS, Field
from rlvo_lib.images import save_nifti
from rlvo_lib.simulate import patients as cohort_patients
from rlvo_lib.simulate.scenarios import SCENARIOS

if TYPE_CHECKING:
    from rlvo_lib.simulate.rendering import GridPlan

STUDY = "rlvo"  # whose dataset is simulated
STAMP = "SIMULATED DATA"  # in the header of every image, and first in the README

STORED = 0  # scans are not compressed, so that the size of a file tells nothing of what it shows
MAX_WITH_SCANS, MAX_TABLE_ONLY = 99_999, 500_000
CTA_MM = (0.3, 4.0)  # voxel edges of a CTA that can be asked for
BATCH = 2000  # patients whose latents are held for the workers at one time


@dataclass(frozen=True)
class Disk:
    """Measured size of one patient's files on a grid, in MB, where CTA voxels have `cta_mm` mm."""

    cta_mm: float
    cta_mb: float  # the CTA and its vessel mask
    rest_mb: float


DISK = {"cohort": Disk(1.5, 1.57, 1.31), "fine": Disk(0.6, 24.0, 30.0)}
TABLE_MB = 0.0008  # one patient's rows of all tables

README = """{stamp}. No patient stands behind any row or scan of this folder.

It was written by `rlvo simulate` (seed {seed}, scenario {scenario}, {patients} patients, {extent}) in the
format that real data have, so that the pipeline can be run without any. Results on it say whether the
pipeline works, never how well anything predicts in patients.

Scenario {scenario}: {text}.
{coarse}
derivatives/truth/ holds what the simulator knows (latents, true masks and vessels), and
derivatives/ceiling.json how well anything could predict here. No model may read them.
How the cohort is made, and what is not realistic: docs/embedded_cohort.md of rlvo-repro.
"""


@dataclass(frozen=True)
class Request:
    """What is simulated: everything that the folder's bytes depend on, but the source code."""

    patients: int = 599
    seed: int = 2025
    scenario: str = "paper"
    grid: str = "cohort"
    prevalence: float | None = None  # None: the scenario's
    test: int | None = None  # test patients; None: the study's share
    table_only: bool = False
    cta_mm: float | None = None  # None: the grid's

    @property
    def particulars(self) -> dict[str, Any]:
        """What differs from the defaults, besides patients, seed and scenario."""
        plain = ("patients", "seed", "scenario")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in plain}
        return {name: value for name, value in given.items() if value != getattr(Request, name)}


def write_dataset(
    out: str | Path,
    *,
    patients: int = 599,
    seed: int = 2025,
    scenario: str = "paper",
    grid: str = "cohort",
    prevalence: float | None = None,
    test: int | None = None,
    table_only: bool = False,
    cta_mm: float | None = None,
    workers: int = 2,
    label: str = "simulate",
) -> Path:
    """Simulate a cohort and write it to the folder `out`; continue or return what is there already.

    Parameters
    ----------
    out : path of the dataset folder, new, empty, or begun with the same arguments.
    patients : 20 or more; at most 99,999 with scans, 500,000 without. 599 gives the study's counts
        (481 / 118 patients, 77 / 16 events); other numbers keep its proportions.
    seed : the only source of randomness: same seed, same bytes, whatever the number of workers.
    scenario : one of `SCENARIOS`.
    grid : one of `rendering.GRIDS`: cohort, or fine (about ten times the disk and time).
    prevalence : share with the outcome in both parts, 0 to 1; None: the scenario's.
    test : number of test patients; None: the study's share.
    table_only : write no scans.
    cta_mm : edge of the CTA's voxels in mm, 0.3 to 4; None: the grid's. `coarse_warning` says which
        arteries it loses, and so does the folder's README.
    workers : processes; with 1 the patients are made in this process.
    label : words beside the progress bar.

    Raises
    ------
    InputError
        For an argument out of range, a folder that holds something else, a disk that is full or has
        not the room.
    """
    out = Path(out)
    request = Request(
        int(patients), int(seed), scenario, grid, prevalence, test, table_only, cta_mm
    )
    _check_request(request, workers)
    with storage.lock(out.parent / f".{out.name}"):
        if _finished(out, request):
            return out
        _check_space(out, request)
        latents, table, split = cohort_patients.select(
            request.patients, request.seed, scenario, prevalence=prevalence, test=test
        )
        storage.write_json(_generation(out), asdict(request) | {"code": _code()})
        storage.write_text(out / "README", _readme(request))
        storage.write_csv(out / "derivatives" / "truth" / "latents.csv", latents)
        _write_ceiling_and_patients(out, latents, request, workers, label)
        storage.write_csv(out / "split.csv", split)
        storage.write_json(out / "participants.json", _columns(table))
        _write_tsv(out / "participants.tsv", table)
        storage.write_json(out / "dataset_description.json", _description(request))
    return out


def coarse_warning(grid: str, cta_mm: float | None) -> str:
    """Which arteries a CTA with voxels of `cta_mm` mm is too coarse for, or "" if for none.

    Raises InputError for an unknown grid or a `cta_mm` out of range. Nothing is said of a grid's own
    voxels (None).
    """
    _check_grid(grid, cta_mm)
    if cta_mm is None:
        return ""
    from rlvo_lib.simulate import rendering

    lost = rendering.lost_calibres(_plan(grid, cta_mm))
    what = f"CTA voxels of {cta_mm:g} mm are too coarse for arteries narrower than 1.5 voxels"
    return f"{what}: {'; '.join(lost)}" if lost else ""


# ------------------------------------------------------------------------------- what can be asked


def _check_request(request: Request, workers: int) -> None:
    if request.scenario not in SCENARIOS:
        raise InputError(f"scenario is {request.scenario!r}; allowed: {', '.join(SCENARIOS)}")
    _check_grid(request.grid, request.cta_mm)
    if request.patients < cohort_patients.MIN_PATIENTS:
        raise InputError(
            f"patients is {request.patients}; allowed: {cohort_patients.MIN_PATIENTS} or more "
            "(four folds and a test part each need an event)"
        )
    most = MAX_TABLE_ONLY if request.table_only else MAX_WITH_SCANS
    if request.patients > most:
        raise InputError(
            f"patients is {request.patients}; allowed: at most {MAX_WITH_SCANS} with scans, "
            f"{MAX_TABLE_ONLY} of tables only"
        )
    if request.seed < 0:
        raise InputError(f"seed is {request.seed}; allowed: 0 or more")
    if request.prevalence is not None and not 0 < request.prevalence < 1:
        raise InputError(f"prevalence is {request.prevalence}; allowed: between 0 and 1")
    if workers < 1:
        raise InputError(f"workers is {workers}; allowed: 1 or more")


def _check_grid(grid: str, cta_mm: float | None) -> None:
    if grid not in DISK:
        raise InputError(f"grid is {grid!r}; allowed: {', '.join(DISK)}")
    if cta_mm is not None and not CTA_MM[0] <= cta_mm <= CTA_MM[1]:
        raise InputError(f"cta_mm is {cta_mm:g}; allowed: {CTA_MM[0]:g} to {CTA_MM[1]:g} mm")


def _plan(grid: str, cta_mm: float | None) -> GridPlan:
    from rlvo_lib.simulate.rendering import GRIDS

    return GRIDS[grid] if cta_mm is None else GRIDS[grid].with_cta_mm(cta_mm)


def _check_space(out: Path, request: Request) -> None:
    """Refuse to begin, or to go on, on a disk that has not the room for what is not there yet."""
    done = len(list((out / "derivatives" / "truth").glob("sub-*/*_truth.json")))
    needed_mb = request.patients * TABLE_MB
    if not request.table_only:
        needed_mb += (request.patients - done) * _patient_mb(request.grid, request.cta_mm)
    place = next(path for path in (out, *out.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(place).free / 1e6
    if free_mb < needed_mb:
        raise InputError(
            f"{out} needs about {needed_mb:,.0f} MB more and the disk has {free_mb:,.0f} MB free; "
            "allowed: a disk with the room, fewer patients, or tables only"
        )


def _patient_mb(grid: str, cta_mm: float | None) -> float:
    """About how much disk one patient's scans and truth take; the CTA's goes with its voxels."""
    disk = DISK[grid]
    return disk.rest_mb + disk.cta_mb * (disk.cta_mm / (cta_mm or disk.cta_mm)) ** 3


def _generation(out: Path) -> Path:
    return out / "derivatives" / "truth" / "generation.json"


def _code() -> str:
    return storage.code_key("simulate", "images")


def _finished(out: Path, request: Request) -> bool:
    """Whether `out` holds the finished dataset of `request`; InputError if it holds another thing."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise InputError(f"{out} is a file; allowed: a new folder, or one this simulation began")
    if not _generation(out).exists():
        raise InputError(
            f"{out} holds something that is not a simulated dataset; allowed: a new folder, or one "
            "this simulation began"
        )
    try:
        found, wanted = dict(storage.read_json(_generation(out))), asdict(request)
        code = found["code"]
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f"{_generation(out)} is damaged; allowed: a new folder, or {out} once it is deleted"
        ) from None
    held = {name: found.get(name, getattr(Request, name)) for name in wanted}
    differing = [name for name in wanted if held[name] != wanted[name]]
    if differing:
        what = ", ".join(f"{n} {_said(held[n])} instead of {_said(wanted[n])}" for n in differing)
        raise InputError(f"{out} holds another simulation ({what}); allowed: a new folder")
    if code != _code():
        raise InputError(
            f"{out} was simulated by another version of rlvo-repro; allowed: a new folder, or this "
            "one once it is deleted"
        )
    files = (
        "dataset_description.json",
        "participants.tsv",
        "split.csv",
        "derivatives/ceiling.json",
    )
    return all((out / name).exists() for name in files) and not _missing(out, request)


def _missing(out: Path, request: Request) -> bool:
    """Whether a patient of the finished table lacks their scans or truth."""
    if request.table_only:
        return False
    made = {p.parent.name for p in (out / "derivatives" / "truth").glob("sub-*/*_truth.json")}
    return len(made) < request.patients or any(not (out / name).is_dir() for name in made)


def _said(value: Any) -> str:
    return "the default" if value is None else str(value)


# ------------------------------------------------------------------------------------ scans, truth


def _write_ceiling_and_patients(
    out: Path, latents: pd.DataFrame, request: Request, workers: int, label: str
) -> None:
    """The ceiling and every patient that is not complete yet, on the same processes.

    The ceiling is always made by a process of one thread, so that its sums have one order.
    """
    place = out / "derivatives" / "ceiling.json"
    first = [(_write_ceiling, place, request.scenario, request.prevalence)]
    first = [] if place.exists() else first
    names = [] if request.table_only else latents["participant_id"]
    missing = [
        i for i, name in enumerate(names)
        if not (_truth(out, name).exists() and (out / name).is_dir())
    ]  # fmt: skip
    if first and (workers == 1 or not missing):
        parallel.run(_perform, first, workers=1, label=f"{label} (ceiling)")
        first = []
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        rows = latents.iloc[batch].to_dict("records")
        tasks = [
            (_write_patient, out, request.seed, i, row, request.grid, request.cta_mm)
            for i, row in zip(batch, rows, strict=True)
        ]
        part = f" {start + len(batch):,} of {len(missing):,}" if len(missing) > BATCH else ""
        alone = len(tasks) + 1  # so many tasks are never reached: all are done in this process
        parallel.run(
            _perform,
            first + tasks,
            workers=workers,
            label=label + part,
            spawn_from=1 if workers > 1 else alone,
        )
        first = []


def _perform(work: Callable[..., None], *arguments: Any) -> None:
    work(*arguments)


def _write_ceiling(path: Path, scenario: str, prevalence: float | None) -> None:
    from rlvo_lib.simulate import ceiling

    storage.write_json(path, ceiling.compute(scenario, prevalence))


def _truth(out: Path, name: str) -> Path:
    """The last file of a patient: where it is, the patient is complete."""
    return out / "derivatives" / "truth" / name / f"{name}_truth.json"


def _write_patient(
    out: Path, seed: int, index: int, patient: dict, grid: str, cta_mm: float | None
) -> None:
    """Render one patient from their own random stream and write the scans, then the truth."""
    from rlvo_lib.simulate import rendering

    stream = np.random.SeedSequence([seed, 1, index])
    drawn = rendering.render(patient, stream, _plan(grid, cta_mm))
    name = patient["participant_id"]
    places = load_study(STUDY).scans
    for scan, (array, affine) in drawn.scans.items():
        path = scan_path(out, name, places[scan])
        save_nifti(path, array, affine, description=STAMP, level=STORED)
        sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        storage.write_json(sidecar, drawn.sidecars[scan])
    folder = _truth(out, name).parent
    for mask, (array, affine) in drawn.masks.items():
        save_nifti(folder / f"{name}_{mask}.nii.gz", array, affine, description=STAMP)
    _write_tree(folder / f"{name}_tree.tsv.gz", drawn.tree)
    storage.write_json(_truth(out, name), drawn.truth)


def _write_tree(path: Path, tree: pd.DataFrame) -> None:
    """The centre lines as a gzipped table: a fifth of the size; no name or date in the file."""
    text = tree.to_csv(sep="\t", index=False, lineterminator="\n")
    with storage.atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


# -------------------------------------------------------------------------------- table and words


def _write_tsv(path: Path, table: pd.DataFrame) -> None:
    """The participants table; whole numbers are written without a decimal point."""
    written = table.copy(deep=False)
    for column in table.select_dtypes("float"):
        position, distinct = pd.factorize(table[column])
        text = [f"{v:.0f}" if v == round(v) else repr(float(v)) for v in distinct]
        written[column] = np.array(text, dtype=object)[position]
    with storage.atomic(path) as temporary:
        written.to_csv(temporary, sep="\t", index=False, lineterminator="\n")


def _columns(table: pd.DataFrame) -> dict[str, Any]:
    """``participants.json``: what each column of the table holds, in the words of the dictionary."""
    words = dictionary.load(load_study(STUDY).dictionary_path)
    note = {"Simulated": True, "Note": f"{STAMP}: no patient stands behind any row."}
    return note | {name: _column(words[name]) for name in table.columns}


def _column(field: Field) -> dict[str, Any]:
    levels = field.choices | {code: MISSING_REASONS[code] for code in field.missing}
    about = {"Description": field.label, "Units": field.unit, "Levels": levels}
    return {name: value for name, value in about.items() if value}


def _readme(request: Request) -> str:
    coarse = coarse_warning(request.grid, request.cta_mm)
    return README.format(
        stamp=STAMP,
        extent="tables only" if request.table_only else f"scans on the {request.grid} grid",
        text=SCENARIOS[request.scenario].text.rstrip("."),
        coarse=f"\n{coarse}.\n" if coarse else "",
        **{name: getattr(request, name) for name in ("seed", "scenario", "patients")},
    )


def _description(request: Request) -> dict[str, Any]:
    return {
        "Name": "SIMULATED embedded cohort of rLVO-repro",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "rlvo-repro", "Version": rlvo_lib.__version__}],
        "simulated": True,
        "seed": request.seed,
        "scenario": request.scenario,
        "patients": request.patients,
    } | request.particulars
