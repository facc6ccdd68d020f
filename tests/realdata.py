"""The real-data files that some tests look at: there and intact, changed, or where to fetch them.

``realdata.csv`` names each file, its public source (project, version, path inside it, licence) and its
SHA-256. Where the file is an archive that was packed here, ``contents_sha256`` is that of its contents,
so that anyone who packs the same files has an intact one. None of them is part of this project; the
folder is the one that RLVO_REALDATA names, by default ``../shared/realdata`` beside the project.
``make realdata`` prints the list; exit status 0, or 1 if a file is not the one that is listed.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("realdata.csv")
COLUMNS = [
    "file", "project", "version", "path", "licence", "sha256", "contents_sha256", "note",
]  # fmt: skip


def folder() -> Path:
    """Where the files lie, whether or not they do."""
    return Path(os.environ.get("RLVO_REALDATA") or ROOT.parent / "shared" / "realdata")


def listed(path: Path = LIST) -> list[dict[str, str]]:
    """The rows of ``realdata.csv``."""
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def contents(archive: Path) -> str:
    """SHA-256 of what a tar archive holds: a line ``<sha256>  <name>`` a file, by name, without folders.

    Raises
    ------
    tarfile.TarError, OSError, EOFError
        If it is no whole tar archive.
    """
    lines = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():
                data = tar.extractfile(member).read()
                lines[Path(member.name).name] = hashlib.sha256(data).hexdigest()
    text = "".join(f"{lines[name]}  {name}\n" for name in sorted(lines))
    return hashlib.sha256(text.encode()).hexdigest()


def state(row: dict[str, str], where: Path) -> str:
    """``intact``, ``changed`` or ``absent``."""
    path = where / row["file"]
    if not path.is_file():
        return "absent"
    if hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]:
        return "intact"
    if not row["contents_sha256"]:
        return "changed"
    try:
        return "intact" if contents(path) == row["contents_sha256"] else "changed"
    except (tarfile.TarError, OSError, EOFError):
        return "changed"


def source(row: dict[str, str]) -> str:
    """Where a file comes from, in words."""
    note = f"; {row['note']}" if row["note"] else ""
    return f"{row['project']}, version {row['version']}, {row['path']} ({row['licence']}){note}"


def main() -> int:
    """Print the state of each file; 1 if one is changed, otherwise 0."""
    where, found = folder(), []
    print("Real data for tests, not part of this project; RLVO_REALDATA names their folder.")
    for row in listed():
        found.append(state(row, where))
        print(f"{found[-1]:8}{row['file']}")
        if found[-1] != "intact":
            print(f"        from {source(row)}")
            print(f"        SHA-256 {row['sha256']}")
    print(", ".join(f"{found.count(word)} {word}" for word in ("intact", "changed", "absent")))
    return 1 if "changed" in found else 0


if __name__ == "__main__":
    sys.exit(main())
