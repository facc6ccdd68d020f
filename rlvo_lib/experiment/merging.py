"""Finished tasks of other caches, taken into this one: how shards of a run come together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlvo_lib import storage
from rlvo_lib.config import InputError

#: The file of a task's folder that is written last, of an arm and of a reader.
RESULTS = ("predictions.csv", "reads.csv")


@dataclass(frozen=True)
class Merged:
    """How many tasks were copied, were there with the same bytes, and were left out as unfinished."""

    copied: int
    there: int
    unfinished: int


def merge(folders: Sequence[Path], cache: Path) -> Merged:
    """Copy the finished tasks of other caches (or their ``tasks`` folders) into a cache.

    What is finished there is never written over. The result file is copied last, so that a copy which
    is interrupted is an unfinished task, not a wrong one.

    Raises
    ------
    InputError
        If a folder is no cache, or a task is finished twice with other bytes: the same key promises the
        same inputs, so the processors differ, or somebody changed a file. Nothing is copied then.
    """
    target = cache / "tasks"
    sources = [_tasks_of(folder, target) for folder in folders]
    with storage.lock(target):
        found, unfinished = _finished(sources)
        known = {name: target / name for name in found if _result(target / name)}
        _refuse_difference({name: [*found[name], known[name]] for name in known})
        _refuse_difference(found)
        copied = [name for name in found if name not in known]
        for name in copied:
            _copy(found[name][0], target / name)
    left_out = [name for name in unfinished if name not in found and not _result(target / name)]
    return Merged(len(copied), len(known), len(left_out))


def _tasks_of(folder: Path, target: Path) -> Path:
    tasks = folder if folder.name == "tasks" else folder / "tasks"
    if not tasks.is_dir():
        raise InputError(
            f"merge: {folder} holds no folder 'tasks'; allowed: the cache of another machine, or its "
            "folder 'tasks'"
        )
    if tasks.resolve() == target.resolve():
        raise InputError(f"merge: {folder} is the cache to merge into; allowed: other caches")
    return tasks


def _result(folder: Path) -> Path | None:
    """The result file of a finished task's folder."""
    name = RESULTS[folder.name.startswith("read-")]
    return folder / name if (folder / name).is_file() else None


def _finished(sources: Sequence[Path]) -> tuple[dict[str, list[Path]], set[str]]:
    """The folders of each finished task by its name, and the names of unfinished ones."""
    found: dict[str, list[Path]] = {}
    unfinished = set()
    for source in sources:
        for folder in sorted(path for path in source.iterdir() if path.is_dir()):
            if _result(folder):
                found.setdefault(folder.name, []).append(folder)
            else:
                unfinished.add(folder.name)
    return found, unfinished


def _files(folder: Path) -> list[Path]:
    """The files of a task, its result last; temporary ones (hidden) and links are not its."""
    result = _result(folder)
    whole = [p for p in folder.iterdir() if p.is_file() and not p.is_symlink() and p.name[0] != "."]
    return sorted(whole, key=lambda path: (path == result, path.name))


def _refuse_difference(found: dict[str, list[Path]]) -> None:
    faults = []
    for name, folders in found.items():
        contents = [{p.name: storage.digest(p) for p in _files(folder)} for folder in folders]
        for folder, other in zip(folders[1:], contents[1:], strict=True):
            if other != contents[0]:
                files = sorted({n for n, _ in set(other.items()) ^ set(contents[0].items())})
                faults.append(
                    f"{name} ({', '.join(files)}) in {folders[0].parent} and {folder.parent}"
                )
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(
            f"merge: finished twice with other content: {'; '.join(faults[:3])}{more}. The keys are the "
            "same, so the machines differ (another processor), or a file was changed. Nothing was "
            "copied; delete the folders of one side"
        )


def _copy(source: Path, target: Path) -> None:
    for path in _files(source):
        with storage.atomic(target / path.name) as temporary:
            temporary.write_bytes(path.read_bytes())
