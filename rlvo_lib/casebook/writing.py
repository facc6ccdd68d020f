"""The whole of it: open the run, find the patient, explain, write the page beside the run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rlvo_lib import external, storage
from rlvo_lib.casebook.case import Cases, choose_arm
from rlvo_lib.casebook.patient_page import render_patient
from rlvo_lib.external import FrozenRun


def write_case(
    run: str | Path,
    participant: str,
    *,
    cache: Path,
    arm: str = "",
    method: str = "",
    development: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Write the page of one patient of a finished run.

    Parameters
    ----------
    run : a finished run folder.
    arm : one of its networks; left out: the arm that the study explains.
    method : of the map over the scan; left out: one that failed none of the run's checks.
    development : the run's own dataset folder; left out for a run of the embedded cohort.
    cache : where the run's trained models lie.
    out : the file; left out: a folder beside the run, so that a run that is shared holds no patient's page.

    Returns
    -------
    Path of the page.

    Raises
    ------
    InputError
        If the run, its data or models are not those it was finished with; if a model is not stored; if the
        patient is unknown or excluded; for an arm that is no network of the run, or an unknown method.
    """
    run = Path(run)
    with tempfile.TemporaryDirectory() as scratch:
        frozen = external.open_frozen(
            run, development=development, cache=cache, scratch=Path(scratch)
        )
        cases = open_cases(frozen, arm)
        page = render_patient(
            cases, participant, run=run, data=frozen.info["data"], method=method,
            about=_about(frozen, cases),
        )  # fmt: skip
    path = out or run.parent / f"{run.name}-cases" / f"{participant}.html"
    storage.write_text(path, page)
    return Path(path)


def open_cases(frozen: FrozenRun, arm: str = "") -> Cases:
    """The cases of one arm of a frozen run, with its stored models.

    Raises
    ------
    InputError
        If the arm is no network of the run, or one of its models is not stored.
    """
    chosen = choose_arm(frozen.analysis.settings.study, frozen.arms, arm)
    tasks = frozen.tasks([chosen.name])
    return Cases(
        frozen.analysis, frozen.tensors, chosen, tasks, frozen.predictions, frozen.thresholds
    )


def _about(frozen: FrozenRun, cases: Cases) -> list[tuple[str, str]]:
    info = frozen.info
    return [
        ("run", frozen.root.name),
        ("arm", f"{cases.arm.label} ({cases.arm.name})"),
        ("dataset", f"{info['dataset'].get('name', '')} ({info['data']})"),
        ("study file, SHA-256", info["study"]["sha256"][:16]),
        ("split, SHA-256", info["split"]["sha256"][:16]),
        ("software", f"rlvo-repro {info['software']['rlvo-repro']}"),
        ("run finished", str(info["finished"])),
    ]
