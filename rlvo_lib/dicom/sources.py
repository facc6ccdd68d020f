"""Every file below a folder, and in archives there; nothing outside it, and nothing written into it."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rlvo_lib.config import InputError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_ARCHIVE_BYTES = 20_000_000_000  # unpacked: a patient's scans; more is refused before unpacking
MAX_MEMBERS = 200_000
ROOM_BYTES = 1_000_000_000  # what stays free on the disk that archives are unpacked to


@dataclass
class Sources:
    """The files to read, and what was left out on the way, with the reason."""

    files: list[Path] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name from the folder, reason


def find(source: str | Path, workspace: str | Path) -> Sources:
    """All plain files below `source` (a folder, or one archive), in a stable order.

    Archives (`ARCHIVES`) are unpacked into `workspace`. Symbolic links are followed only to files
    inside `source`; others are listed in ``skipped``, as are archives that cannot be used.

    Raises
    ------
    InputError
        If `source` does not exist, is a file that is no archive, or is an archive that cannot be used.
    """
    source, workspace = Path(source), Path(workspace)
    found = Sources()
    if source.is_file():
        if not _is_archive(source):
            raise InputError(f"{source}: is a file; allowed: a folder, or an archive of one "
                             f"({', '.join(ARCHIVES)})")  # fmt: skip
        _walk(unpacked(source, workspace / "0"), found, PurePosixPath(source.name))
        return found
    if not source.is_dir():
        raise InputError(f"{source}: no such folder or archive")
    _walk(source, found, PurePosixPath())
    archives = [path for path in found.files if _is_archive(path)]
    found.files = [path for path in found.files if not _is_archive(path)]
    for number, archive in enumerate(archives):
        name = PurePosixPath(archive.relative_to(source).as_posix())
        try:
            _walk(unpacked(archive, workspace / str(number)), found, name)
        except InputError as error:
            found.skipped.append((str(name), str(error).removeprefix(f"{archive}: ")))
    return found


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def _walk(root: Path, found: Sources, shown: PurePosixPath) -> None:
    """Add the files below `root`; ``shown`` is what their folder is called in messages."""
    real = os.path.realpath(root)

    def unreadable(error: OSError) -> None:
        found.skipped.append((str(error.filename), f"folder cannot be read ({error.strerror})"))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders.sort()
        for name in sorted([*names, *(f for f in folders if os.path.islink(f"{folder}/{f}"))]):
            path = Path(folder, name)
            label = str(shown / Path(os.path.relpath(path, root)).as_posix())
            if path.is_symlink():
                target = os.path.realpath(path)
                if os.path.commonpath([real, target]) != real:
                    found.skipped.append((label, "a symbolic link that leads out of the folder"))
                continue  # what it leads to inside the folder is found there
            if path.is_file():
                found.files.append(path)


def unpacked(archive: Path, folder: Path) -> Path:
    """The plain files of an archive, written below `folder`, never outside it.

    Raises
    ------
    InputError
        If the archive is damaged, claims over 20 GB or more than the disk has room for, or has a
        member whose name (``../``, an absolute path) or link leads out of it; nothing is kept then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if archive.name.lower().endswith(".zip"):
            _unpack_zip(archive, folder)
        else:
            _unpack_tar(archive, folder)
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except (
        tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, RuntimeError,
        NotImplementedError, ValueError,
    ) as error:  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, tarfile.FilterError):
            reason = "a member leads out of it, by its name or as a link"
            raise InputError(f"{archive}: {reason}; unpack it yourself") from error
        reason = (str(error).splitlines() or ["damaged"])[0].rstrip(":")
        raise InputError(f"{archive}: is not a folder or a whole archive ({reason})") from error
    return folder


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        members, claimed = [], 0
        for member in tar:
            claimed += member.size
            members.append(member)
            _refuse_size(archive, folder, claimed, len(members))
        tar.extractall(folder, members=members, filter="data")


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [m for m in packed.infolist() if not m.filename.endswith("/")]
        _refuse_size(archive, folder, sum(member.file_size for member in members), len(members))
        for member in members:
            place = PurePosixPath(member.filename.replace("\\", "/"))
            link = stat.S_ISLNK(member.external_attr >> 16)
            if not place.parts:
                raise InputError(f"{archive}: has a member without a name; unpack it yourself")
            if link or place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
                raise InputError(
                    f"{archive}: a member leads out of it, by its name or as a link; unpack it yourself"
                )
            target = folder.joinpath(*place.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as read, target.open("wb") as written:
                left = member.file_size
                while block := read.read(1 << 20):
                    left -= len(block)
                    if left < 0:
                        raise InputError(f"{archive}: a member is longer than the archive says")
                    written.write(block)


def _refuse_size(archive: Path, folder: Path, claimed: int, members: int) -> None:
    room = shutil.disk_usage(folder).free - ROOM_BYTES
    if claimed > min(MAX_ARCHIVE_BYTES, room) or members > MAX_MEMBERS:
        raise InputError(
            f"{archive}: claims {claimed / 1e9:.1f} GB in {members:,} files; allowed: "
            f"{max(min(MAX_ARCHIVE_BYTES, room), 0) / 1e9:.1f} GB here; unpack it yourself"
        )
