"""The scans of a dataset: whose they are, what is missing or unknown, and whether they can be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rlvo_lib import dataset, exclusions, images, progress
from rlvo_lib.config import InputError, Study
from rlvo_lib.validation import duplicates
from rlvo_lib.validation.faults import Fault, listed

IMAGES = (".nii.gz", ".nii", ".dcm")


def scan_faults(root: Path, ids: pd.Series, study: Study, read_scans: bool) -> list[Fault]:
    """Faults of the folders ``sub-*``; of scans the headers are read, or with ``read_scans`` all."""
    known = {name for name in ids if dataset.IDENTIFIER.fullmatch(name)}
    folders = sorted(path for path in root.glob("sub-*") if path.is_dir())
    faults: list[Fault] = []
    held: dict[str, list[str]] = {}
    unread = set()
    comparable: list[tuple[str, Path]] = []
    for folder in progress.track(folders, label="checking scans"):
        name = folder.name
        try:
            outside, files = _walk(folder, root)
            faults += outside
            if name not in known:
                faults.append(_orphan(name, files))
                continue
            if any(fault.severity == "error" for fault in outside):
                unread.add(name)
                continue
            faults += _unknown_files(name, files, study)
            held[name], broken = _check_scans(root, name, study, read_scans, comparable)
            faults += broken
        except OSError as error:
            unread.add(name)
            faults.append(Fault("error", name, name, "", "a folder that can be read",
                                f"cannot be read ({error.strerror})"))  # fmt: skip
    return [
        *faults,
        *_lacking(ids[ids.isin(known - unread)].drop_duplicates(), held, study),
        *duplicates.scan_faults(comparable, root),
    ]


def exclusion_faults(root: Path, ids: pd.Series, study: Study) -> Iterator[Fault]:
    """Faults of ``exclusions.csv``: each could exclude somebody whom nobody meant to."""
    try:
        found = exclusions.problems(root, ids, study.scans)
    except InputError as error:
        yield Fault("error", "", exclusions.FILE, "", "a table of participant_id, reason and scan",
                    str(error))  # fmt: skip
        return
    for problem in found:
        yield Fault("error", problem.participant_id, exclusions.FILE, problem.value, problem.allowed,
                    f"line {problem.line}: {problem.message}")  # fmt: skip


def _walk(folder: Path, root: Path) -> tuple[list[Fault], list[str]]:
    """Links that lead out of the dataset, and the files of a patient's folder by their path in it."""
    inside = os.path.realpath(root)
    faults, files = [], []

    def leads_out(path: Path) -> bool:
        return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside)

    def fault(path: Path, severity: str) -> Fault:
        return Fault(severity, folder.name, path.relative_to(root).as_posix(), "",
                     "files inside the dataset folder", "a link that leads out of the dataset")  # fmt: skip

    if leads_out(folder):
        return [fault(folder, "error")], []
    for place, below, names in os.walk(folder):
        faults += [
            fault(Path(place, d), "error") for d in sorted(below) if leads_out(Path(place, d))
        ]
        faults += [
            fault(Path(place, n), "warning") for n in sorted(names) if leads_out(Path(place, n))
        ]
        files += [Path(place, name).relative_to(root).as_posix() for name in names]
    return faults, sorted(files)


def _orphan(name: str, files: list[str]) -> Fault:
    count = sum(file.endswith(IMAGES) for file in files)
    return Fault("warning", name, name, f"{count} images", "a row in participants.tsv",
                 f"scans without a row are not used (images: {count})")  # fmt: skip


def _unknown_files(name: str, files: list[str], study: Study) -> Iterator[Fault]:
    """Files that are neither a scan, nor a scan's JSON sidecar, nor hidden."""
    scans = [scan.path.format(name) for scan in study.scans.values()]
    expected = {*scans, *(scan.removesuffix(".nii.gz") + ".json" for scan in scans)}
    unknown = [f for f in files if f not in expected and not Path(f).name.startswith(".")]
    if unknown:
        yield Fault(
            "warning", name, unknown[0], f"{len(unknown)} files",
            f"scans by their names: {', '.join(s.path.format('sub-XXXX') for s in study.scans.values())}",
            f"not a scan by its name, not used: {listed(unknown)}",
        )  # fmt: skip


def _check_scans(
    root: Path, patient: str, study: Study, read_scans: bool, comparable: list[tuple[str, Path]]
) -> tuple[list[str], list[Fault]]:
    """The scans that a patient has, and faults of their files; good ones are added to ``comparable``.

    Masks are not: two that are empty, or hold one small lesion, may be the same by chance.
    """
    held, faults = [], []
    for name, scan in study.scans.items():
        path = dataset.scan_path(root, patient, scan)
        if not path.exists():
            continue
        held.append(name)
        where = path.relative_to(root).as_posix()
        look = images.scan_findings if read_scans else images.header_findings
        try:
            found = look(path, scan)
        except InputError as error:
            faults.append(Fault("error", patient, where, "", "a 3D NIfTI scan", str(error)))
            continue
        faults += [_fault(finding, patient, where) for finding in found]
        if scan.kind != "mask" and not any(f.severity == "error" for f in found):
            comparable.append((patient, path))
    return held, faults


def _fault(finding: images.Finding, patient: str, where: str) -> Fault:
    value = f" ({finding.value})" if finding.value else ""
    return Fault(finding.severity, patient, where, finding.value, finding.allowed,
                 f"{finding.what}{value}")  # fmt: skip


def _lacking(ids: pd.Series, held: dict[str, list[str]], study: Study) -> Iterator[Fault]:
    """Patients without some of the scans that others of the dataset have."""
    expected = [scan for scan in study.scans if any(scan in scans for scans in held.values())]
    if not expected:
        return
    allowed = f"as other patients: {', '.join(expected)}"
    for patient in ids:
        lacking = [scan for scan in expected if scan not in held.get(patient, [])]
        if len(lacking) == len(expected):
            yield Fault("warning", patient, patient, "", allowed, "a row without any scan")
        elif lacking:
            yield Fault("warning", patient, patient, ", ".join(lacking), allowed,
                        f"lacks {', '.join(lacking)}")  # fmt: skip
