"""What is kept of a patient's finished work, so that it is found again and taken away when it is stale."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rlvo_lib import storage
from rlvo_lib.config import InputError

#: ``begun``: scans that an unfinished run may have written; ``files``: those of a finished one, digests;
#: ``made`` and ``series``: the stack and the series of each scan.
EMPTY = {"key": "", "files": {}, "made": {}, "series": {}, "failed": {}, "when": "", "begun": []}


def path_of(private: Path, name: str) -> Path:
    return private / "finished" / f"{name}.json"


def read(path: Path) -> dict[str, Any]:
    """The record at ``path``; an empty one if there is none."""
    return EMPTY | (storage.read_json(path) if path.exists() else {})


def intact(out: Path, files: Mapping[str, str]) -> bool:
    """Whether all files of the dataset are as they were written."""
    return all((out / f).is_file() and storage.digest(out / f) == d for f, d in files.items())


def lost(old: Mapping[str, Any], series: Collection[str]) -> str:
    """Why a patient's scans must not be made anew: some are of series that are not here now; else ""."""
    scans = sorted(scan for scan, uid in old["series"].items() if uid not in series)
    if not scans:
        return ""
    return (
        f"an earlier run made {', '.join(scans)} of series that are not in this folder, and nothing was "
        "changed; allowed: all files of the patient in one folder, or --replace"
    )


def begin(path: Path, target: Path, out: Path, old: dict[str, Any], overwrite: bool) -> None:
    """Note in the record that ``target`` will be written, so that it is known if this run is killed.

    Raises
    ------
    InputError
        If it is there, was not made so by this command, and is not to be written over.
    """
    name = target.relative_to(out).as_posix()
    if name in old["begun"]:
        return
    if not target.exists() or storage.digest(target) == old["files"].get(name):
        old["begun"] = [*old["begun"], name]
        storage.write_json(path, old | {"key": ""})
    elif not overwrite:
        raise InputError(
            f"{name}: is there already, and was not made so by this command; allowed: --replace"
        )


def remove_stale(out: Path, old: Mapping[str, Any], new: Mapping[str, str]) -> None:
    """Take away what this command made before, or began, and would not make any more."""
    for name, digest in old["files"].items():
        if name not in new and (out / name).is_file() and storage.digest(out / name) == digest:
            (out / name).unlink()
    for name in old["begun"]:
        if name not in new and name not in old["files"]:
            (out / name).unlink(missing_ok=True)
            (out / name.replace(".nii.gz", ".json")).unlink(missing_ok=True)
