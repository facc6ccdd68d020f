"""The whole job: a folder of DICOM files becomes scans of a dataset folder (`convert_folder`).

Two places are written. The dataset holds scans, sidecars and a report without any text of the headers.
The private folder beside it stays at the hospital: the secret, the list that links patients, the series
with their descriptions, open questions and answers, and what is finished.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd

from rlvo_lib import __version__, dataset, storage, workers
from rlvo_lib.config import InputError, Study
from rlvo_lib.dataset import IDENTIFIER, TABLE, scan_path
from rlvo_lib.dicom import conversion, deidentify, records, report
from rlvo_lib.dicom.choice import Answer, Choice, choose, read_choices
from rlvo_lib.dicom.headers import Header, read_headers
from rlvo_lib.dicom.kinds import SCANS
from rlvo_lib.dicom.report import Summary, Work
from rlvo_lib.dicom.series import Patient, Stack, patients
from rlvo_lib.dicom.sources import Sources, find
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.intake import folder as dataset_folder

REPORT = "derivatives/dicom/report"
WHEN = "scan_datetime"
UNKNOWN = "not in the list of patients"
SAME_NAME = "another patient has the same name here; allowed: a row for each, as 'identifier / issuer of it'"


def convert_folder(
    source: str | Path,
    out: str | Path,
    study: Study,
    words: Dictionary,
    *,
    patients_path: str | Path | None = None,
    patient: str = "",
    choices_path: str | Path | None = None,
    private: str | Path | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    processes: int = 1,
) -> Summary:
    """Write the scans of all patients below `source` into the dataset folder `out`.

    ``patients_path``: a table patient_id, participant_id; without it names are keyed hashes.
    ``patient``: all files are of this one participant. ``choices_path``: answers to what was undecided.
    ``private``: the folder that stays at the hospital, by default ``OUT_private`` beside `out`.
    ``overwrite``: write over scans that this command did not make. ``dry_run``: decide, and write nothing.
    A patient whose files and decisions are as they were is not converted again.

    Raises
    ------
    InputError
        If an argument cannot be used: no DICOM below `source`, a simulated or unwritable `out`, a
        private folder inside it or of another dataset, an answer that is none. What goes wrong with a
        patient is told in the summary, and does not stop the others.
    """
    source, out = Path(source), Path(out)
    if not set(SCANS) & set(study.scans):
        raise InputError(
            f"--study {study.name}: has none of the scans {', '.join(SCANS)}; allowed: one with"
        )
    private = Path(private) if private else out.absolute().parent / f"{out.absolute().name}_private"
    dataset_folder.read_description(out)
    _refuse_inside(private, out)
    if _lies_in(source, out):
        raise InputError(
            f"{out}: would hold the DICOM files, with names and dates; allowed: a folder of its own"
        )
    named = deidentify.read_patients(patients_path) if patients_path else None
    answers = _answers(private, choices_path)
    with tempfile.TemporaryDirectory(prefix="rlvo-dicom-") as workspace:
        sources = find(source, Path(workspace) / "unpacked")
        people, summary = _read(source, sources, processes)
        if dry_run:
            secret = (
                deidentify.read_secret(private) if (private / deidentify.SECRET).exists() else b""
            )
            summary.works = _decided(people, secret, named, patient, answers)
            summary.dry = True
            return summary
        with storage.lock(out.absolute().parent / f".{out.absolute().name}"):
            secret = _secret(out, private)
            works = _decided(people, secret, named, patient, answers)
            summary.works = _converted(works, study, out, private, overwrite, workspace, processes)
            summary.private = private.name
            _write_private(private, summary.works, answers)
            _write_report(out, [w for w in summary.works if not w.left], secret)
            summary.without_row = _write_table(out, private, words)
            _write_description(out)
    return summary


def _lies_in(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _refuse_inside(private: Path, out: Path) -> None:
    if _lies_in(private, out):
        raise InputError(
            f"{private}: lies in the dataset, and would be handed on with it; allowed: a folder outside"
        )


def _answers(private: Path, path: str | Path | None) -> dict[str, dict[str, Answer]]:
    """Answers given now and before; those of now go first."""
    kept = private / "choices.csv"
    answers = {
        name: {scan: replace(answer, kept=True) for scan, answer in given.items()}
        for name, given in (read_choices(kept) if kept.exists() else {}).items()
    }
    for name, given in (read_choices(path) if path else {}).items():
        answers[name] = answers.get(name, {}) | given
    return answers


def _read(source: Path, sources: Sources, processes: int) -> tuple[list[Patient], Summary]:
    """All headers, by patient; and what else was in the folder."""
    reading = read_headers(sources.files, processes=processes)
    usable = [h for h in reading.headers if h.series_uid]
    lost = [h for h in reading.headers if not h.series_uid]
    if not usable:
        raise InputError(
            f"{source}: no DICOM file that can be read, among {len(sources.files):,} files"
            + (f" ({sources.skipped[0][1]})" if sources.skipped else "")
        )
    people, doubles = patients(usable)
    summary = Summary([], skipped=list(sources.skipped))
    for header in lost:
        name = os.path.relpath(header.path, source)
        summary.skipped.append((name, header.fault or "no series identifier"))
    summary.counts.update(
        {
            "DICOM files": len(usable),
            "files that are not DICOM, ignored": reading.others,
            "tables of contents (DICOMDIR), ignored": reading.directories,
            "files exported twice, taken once": doubles,
            "files that cannot be used": sum(bool(h.fault) for h in usable),
        }
    )
    return people, summary


# ------------------------------------------------------------------------------------ who is who


def _secret(out: Path, private: Path) -> bytes:
    """The secret; an error if the dataset was begun with another one, since names would differ."""
    marked = out / f"{REPORT}.json"
    secret_path = private / deidentify.SECRET
    kept = storage.read_json(marked).get("secret_check") if marked.exists() else None
    if kept and not secret_path.exists():
        raise InputError(
            f"{secret_path}: is missing, but {out} was begun with a secret; allowed: --private and the "
            "folder that was used then"
        )
    try:
        if not private.exists():
            private.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise InputError(f"cannot write {private}: {error.strerror or error}") from error
    secret = deidentify.read_secret(private)
    if kept and kept != _check_of(secret):
        raise InputError(f"{secret_path}: {out} was begun with another secret; allowed: that one")
    return secret


def _check_of(secret: bytes) -> str:
    """Tells two secrets apart, and says nothing about either."""
    return deidentify.participant(secret, "\0check").removeprefix("sub-")


def _decided(
    people: Sequence[Patient],
    secret: bytes,
    named: Mapping[str, str] | None,
    patient: str,
    answers: Mapping[str, Mapping[str, Answer]],
) -> list[Work]:
    """Each patient with a name and all decisions."""
    if patient and (len(people) > 1 or not IDENTIFIER.fullmatch(patient)):
        what = f"{len(people)} patients in the folder" if len(people) > 1 else repr(patient)
        raise InputError(f"--patient: {what}; allowed: sub-XXXX for a folder of one patient")
    works = []
    for number, person in enumerate(people, start=1):
        work = Work("", person.original, Choice())
        name, fault = patient, person.fault
        if not patient and named is not None:
            name = named.get(person.original) or named.get(person.original.split(" / ")[0], "")
            fault = fault or ("" if name else UNKNOWN)
        elif not patient:
            name = deidentify.participant(secret, person.original) if secret else f"sub-new{number}"
            if person.original.startswith("(none)"):
                fault = fault or "files without a patient identifier; allowed: --patient sub-XXXX"
        work.participant_id = name or f"patient{number}"
        work.days = deidentify.shift_days(secret, work.participant_id) if secret else 0
        if fault:
            work.failed[""] = fault
        else:
            work.choice = choose(person.stacks, answers.get(name, {}), f"{name} ")
        works.append(work)
    names = Counter(work.participant_id for work in works)
    for work in works:
        if names[work.participant_id] > 1:
            work.failed[""], work.choice = SAME_NAME, Choice()
    return works


# ------------------------------------------------------------------------------------ conversion


def _converted(
    works: Sequence[Work], study: Study, out: Path, private: Path, overwrite: bool, workspace: str,
    processes: int,
) -> list[Work]:  # fmt: skip
    places = {scan: study.scans[scan] for scan in SCANS if scan in study.scans}
    code = storage.key(storage.code_key("dicom", "images"), version("dcm2niix"))
    tasks = [
        (work, places, out, private, overwrite, Path(workspace) / "work", code) for work in works
    ]
    return workers.run(
        _convert_patient,
        tasks,
        workers=processes,
        label="patients",
        titles=[work.participant_id for work in works],
        spawn_from=2 if processes > 1 else len(tasks) + 1,
    )


def _convert_patient(
    work: Work,
    places: Mapping,
    out: Path,
    private: Path,
    overwrite: bool,
    workspace: Path,
    code: str,
) -> Work:
    """Convert the chosen scans of one patient; what fails is kept in ``work.failed``."""
    name = work.participant_id
    path = records.path_of(private, name)
    old = records.read(path)
    if work.failed:  # refused as a whole: nothing of an earlier run may stay
        if path.exists():
            records.remove_stale(out, old, {})
            storage.write_json(path, records.EMPTY)
        return work
    here = {outcome.stack.first.series_uid for outcome in work.choice.outcomes.values()}
    if not overwrite and (reason := records.lost(old, here)):
        work.failed[""], work.left = reason, True
        return work
    key = _key(work, code)
    if old["key"] == key and records.intact(out, old["files"]) and not old["failed"]:
        work.made, work.unchanged = old["made"], True
        return work
    files: dict[str, str] = {}
    for scan, stack in work.choice.chosen.items():
        if scan not in places:
            continue  # the study has no such scan
        target = scan_path(out, name, places[scan])
        try:
            records.begin(path, target, out, old, overwrite)
            volume = conversion.convert(stack, scan, places[scan], target, workspace / name)
        except (
            InputError,
            OSError,
            ValueError,
            MemoryError,
            nib.filebasedimages.ImageFileError,
        ) as error:
            if str(error).startswith("cannot write"):
                raise  # the disk, and not this patient
            work.failed[scan] = str(error) if isinstance(error, InputError) else (
                f"{stack.label}: cannot be converted ({type(error).__name__})"
            )  # fmt: skip
            continue
        beside = target.with_name(target.name.removesuffix(".nii.gz") + ".json")
        first = stack.first
        tilt = first.tilt if first.tilt is not None else stack.tilt_deg
        about = deidentify.sidecar(scan, first, thickness_mm=stack.thickness_mm, tilt_deg=tilt,
                                   straightened=volume.straightened)  # fmt: skip
        storage.write_json(beside, about)
        for made in (target, beside):
            files[made.relative_to(out).as_posix()] = storage.digest(made)
        work.made[scan] = stack.label
    records.remove_stale(out, old, files)
    storage.write_json(path, records.EMPTY | {
        "key": key, "files": files, "made": work.made,
        "series": {scan: work.choice.chosen[scan].first.series_uid for scan in work.made}, "failed": work.failed, "when": _when(work),
    })  # fmt: skip
    return work


def _key(work: Work, code: str) -> str:
    """Changes with the content of a chosen file, a decision, the code or the converter."""
    chosen = {
        scan: [storage.digest(path) for path in sorted({h.path for h in stack.headers})]
        for scan, stack in work.choice.chosen.items()
    }
    return storage.key(code, work.participant_id, work.days, chosen)


def _when(work: Work) -> str:
    """Date and time of the baseline scan, moved by the patient's days; "" where not said."""
    for scan in ("ncct", "cta", *SCANS):
        if scan in work.made:
            first = _earliest(work.choice.chosen[scan])
            return deidentify.shifted(first.date, first.time, work.days)
    return ""


def _earliest(stack: Stack) -> Header:
    return min(stack.headers, key=lambda h: (h.date or "9", h.time or "9"))


# ----------------------------------------------------------------------------------------- tables


def _write_private(
    private: Path, works: Sequence[Work], answers: Mapping[str, Mapping[str, Answer]]
) -> None:
    taken = {
        (work.participant_id, scan): stack.first.series_uid
        for work in works
        for scan, stack in work.choice.chosen.items()
    }
    rows = [
        {
            "participant_id": name, "scan": scan, "choice": answer.label, "state": answer.state,
            "series_uid": answer.series_uid or taken.get((name, scan), ""),
        }
        for name, given in sorted(answers.items())
        for scan, answer in given.items()
    ]  # fmt: skip
    if rows:
        storage.write_csv(private / "choices.csv", pd.DataFrame(rows))
    storage.write_csv(private / "refused.csv", report.refused_table(works))
    works = [work for work in works if not work.left]
    names = [work.participant_id for work in works]
    for file, table in (
        ("undecided.csv", report.undecided_table(works)),
        (
            "patients.csv",
            report.patient_table([w for w in works if w.participant_id.startswith("sub-")]),
        ),
        ("series.csv", report.series_table(works)),
    ):
        storage.write_csv(private / file, _merged(private / file, table, names))
    for path in private.glob("*.csv"):
        path.chmod(0o600)


def _write_report(out: Path, works: Sequence[Work], secret: bytes) -> None:
    path = out / f"{REPORT}.csv"
    table = report.stack_table([w for w in works if w.participant_id.startswith("sub-")])
    table = _merged(path, table, [work.participant_id for work in works])
    storage.write_csv(path, table)
    counts = table["status"].value_counts().sort_index()
    storage.write_json(
        out / f"{REPORT}.json",
        {
            "GeneratedBy": [{"Name": "rlvo dicom", "Version": __version__}],
            "converter": f"dcm2niix {version('dcm2niix')}",
            "patients": int(table["participant_id"].nunique()),
            "stacks": {str(status): int(n) for status, n in counts.items()},
            "secret_check": _check_of(secret),
        },
    )


def _merged(path: Path, table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """A table with the rows that it had of patients who are not in this run."""
    if path.exists():
        old = storage.read_csv(path, dtype=dict.fromkeys(table.columns, str), keep_default_na=False)
        old = old[~old["participant_id"].isin(names)]
        if len(old):
            table = pd.concat([old, table.astype(str)], ignore_index=True)[list(table.columns)]
    return table.sort_values("participant_id", kind="stable", ignore_index=True)


def _write_table(out: Path, private: Path, words: Dictionary) -> list[str]:
    """``participants.tsv``, if there is none but this command's own; else who has no row in it."""
    done = {
        path.stem: records.read(path) for path in sorted((private / "finished").glob("sub-*.json"))
    }
    # a private folder may serve several datasets
    done = {
        name: record
        for name, record in done.items()
        if any((out / file).is_file() for file in record["files"])
    }
    path, mark = out / TABLE, private / "table.json"
    own = storage.read_json(mark)["sha256"] if mark.exists() else None
    if path.exists() and storage.digest(path) != own:
        rows = set(dataset.read_table(out).rows["participant_id"])
        return sorted(set(done) - rows)
    if not done:
        path.unlink(missing_ok=True)  # nobody is left in it
        return []
    columns: dict[str, Any] = {"participant_id": list(done)}
    if WHEN in words:
        missing = (*words[WHEN].missing, "n/a")[0]
        columns[WHEN] = [record["when"] or missing for record in done.values()]
    storage.write_text(path, dataset_folder.table_text(pd.DataFrame(columns), "\t"))
    storage.write_json(mark, {"sha256": storage.digest(path)})
    return []


def _write_description(out: Path) -> None:
    """Last: a folder that has it is complete."""
    path = out / dataset_folder.DESCRIPTION
    if not path.exists():
        storage.write_json(
            path,
            {
                "Name": out.absolute().name,
                "BIDSVersion": dataset_folder.BIDS_VERSION,
                "simulated": False,
                "GeneratedBy": [{"Name": "rlvo dicom", "Version": __version__}],
            },
        )
