"""Write the embedded cohort as a dataset folder, in the format a hospital's folder has.

Work goes patient by patient, on all workers, in files that are whole or absent. The folder's
``derivatives/truth/generation.json`` holds a key of seed, scenario, patients and source code: work
with the same key is continued, anything else in the folder is refused. ``participants.tsv`` is
written last but one and ``dataset_description.json`` last, so an interrupted folder is never taken
for a finished one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import rlvo_lib
from rlvo_lib import storage
from rlvo_lib import workers as parallel
from rlvo_lib.config import InputError, load_study
from rlvo_lib.dataset import scan_path
from rlvo_lib.images import save_nifti
from rlvo_lib.simulate import patients as cohort_patients

#: Scenario name: what it is. Others (null, signal, ...) take their place here and in `patients`.
SCENARIOS = {"paper": "difficulty, counts and prevalence like the study's"}

STUDY = "rlvo"  # whose dataset is simulated
WRITTEN_SCANS = ("ncct", "cta", "cbf", "cbv", "mtt", "tmax")

README = """SIMULATED DATA. No patient stands behind any row or scan of this folder.

It was written by `rlvo simulate` (seed {seed}, scenario {scenario}, {patients} patients) in the format
that real data have, so that the pipeline can be run without any. Results on it say whether the
pipeline works, never how well anything predicts in patients.

derivatives/truth/ holds what the simulator knows (latents, true vessel masks). No model may read it.
How the cohort is made, and what is not realistic: docs/embedded_cohort.md of rlvo-repro.
"""


def write_dataset(
    out: str | Path,
    *,
    patients: int = 599,
    seed: int = 2025,
    scenario: str = "paper",
    workers: int = 2,
    label: str = "simulate",
) -> Path:
    """Simulate a cohort and write it to the folder `out`; continue or return what is there already.

    Parameters
    ----------
    out : path of the dataset folder, new, empty, or begun with the same arguments.
    patients : 20 or more. 599 gives the study's counts (481 / 118 patients, 77 / 16 events); other
        numbers keep its proportions.
    seed : the only source of randomness: same seed, same bytes, whatever the number of workers.
    scenario : one of `SCENARIOS`.
    workers : processes; 1 works in this process.
    label : words beside the progress bar.

    Raises
    ------
    InputError
        For an unknown scenario, too few patients, a folder that holds something else, a full disk.
    """
    out = Path(out)
    _check_arguments(patients, seed, scenario, workers)
    request = {
        "seed": int(seed),
        "scenario": scenario,
        "patients": int(patients),
        "code": storage.code_key("simulate"),
    }
    with storage.lock(out.parent / f".{out.name}"):
        if _finished(out, request):
            return out
        latents, table, split = cohort_patients.select(patients, seed)
        storage.write_json(_generation(out), request)
        storage.write_text(out / "README", README.format(**request))
        _write_patients(out, latents, seed, workers, label)
        storage.write_csv(out / "derivatives" / "truth" / "latents.csv", latents)
        storage.write_csv(out / "split.csv", split)
        _write_tsv(out / "participants.tsv", table)
        storage.write_json(out / "dataset_description.json", _description(request))
    return out


def _check_arguments(patients: int, seed: int, scenario: str, workers: int) -> None:
    if scenario not in SCENARIOS:
        raise InputError(f"scenario is {scenario!r}; allowed: {', '.join(SCENARIOS)}")
    if patients < cohort_patients.MIN_PATIENTS:
        raise InputError(
            f"patients is {patients}; allowed: {cohort_patients.MIN_PATIENTS} or more "
            "(four folds and a test part each need an event)"
        )
    if patients > 9999:
        raise InputError(f"patients is {patients}; allowed: at most 9999 (identifiers sub-0001 on)")
    if seed < 0:
        raise InputError(f"seed is {seed}; allowed: 0 or more")
    if workers < 1:
        raise InputError(f"workers is {workers}; allowed: 1 or more")


def _generation(out: Path) -> Path:
    return out / "derivatives" / "truth" / "generation.json"


def _finished(out: Path, request: dict) -> bool:
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
    found = storage.read_json(_generation(out))
    differing = [name for name in ("scenario", "patients", "seed") if found[name] != request[name]]
    if differing:
        what = ", ".join(f"{n} {found[n]} instead of {request[n]}" for n in differing)
        raise InputError(f"{out} holds another simulation ({what}); allowed: a new folder")
    if found["code"] != request["code"]:
        raise InputError(
            f"{out} was simulated by another version of rlvo-repro; allowed: a new folder, or this "
            "one once it is deleted"
        )
    return (out / "dataset_description.json").exists()


def _write_patients(out: Path, latents: pd.DataFrame, seed: int, workers: int, label: str) -> None:
    """Render and write every patient that is not complete yet."""
    rows = latents.to_dict("records")
    tasks = [(out, seed, i, row) for i, row in enumerate(rows) if not _truth(out, row).exists()]
    alone = len(tasks) + 1  # so many tasks are never reached: all are done in this process
    parallel.run(
        _write_patient,
        tasks,
        workers=workers,
        label=label,
        spawn_from=2 if workers > 1 else alone,
    )


def _truth(out: Path, patient: dict) -> Path:
    """The last file of a patient: where it is, the patient is complete."""
    name = patient["participant_id"]
    return out / "derivatives" / "truth" / name / f"{name}_truth.json"


def _write_patient(out: Path, seed: int, index: int, patient: dict) -> str:
    """Render one patient from their own random stream and write the scans, then the truth."""
    from rlvo_lib.simulate import physics

    rng = np.random.default_rng(np.random.SeedSequence([seed, 1, index]))
    scans, truth = physics.render(patient, rng)
    name = patient["participant_id"]
    places = load_study(STUDY).scans
    for scan in WRITTEN_SCANS:
        save_nifti(scan_path(out, name, places[scan]), *scans[scan])
    folder = _truth(out, patient).parent
    save_nifti(folder / f"{name}_vessels.nii.gz", *scans["vessels"])
    storage.write_json(_truth(out, patient), truth)
    return name


def _write_tsv(path: Path, table: pd.DataFrame) -> None:
    """The participants table; whole numbers are written without a decimal point."""
    text = table.copy()
    for column in text.select_dtypes("float"):
        text[column] = [f"{v:g}" if v == round(v) else repr(float(v)) for v in text[column]]
    with storage.atomic(path) as temporary:
        text.to_csv(temporary, sep="\t", index=False, lineterminator="\n")


def _description(request: dict) -> dict:
    return {
        "Name": "SIMULATED embedded cohort of rLVO-repro",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "rlvo-repro", "Version": rlvo_lib.__version__}],
        "simulated": True,
        "seed": request["seed"],
        "scenario": request["scenario"],
        "patients": request["patients"],
    }
