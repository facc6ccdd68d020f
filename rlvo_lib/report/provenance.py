"""Where a run's numbers come from: ``run.json``, and copies of the study file and the dictionary."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from rlvo_lib import __version__, storage
from rlvo_lib.config import MAIN, Settings, Study, project_root, read_study
from rlvo_lib.report.table_files import read_text_table, stamp_text

DISTRIBUTION = "rlvo-repro"
#: Files whose content `digests` records, as glob patterns inside the run folder.
DIGESTED = (
    "*.csv", "study.toml", "split.json", "ceiling.json", "tables/*.csv", "tables/*.html", "tables/*.tex",
    "attributions/**/*", "figures/**/*",
)  # fmt: skip


def write_provenance(
    run: str | Path,
    *,
    settings: Settings | Mapping[str, Any],
    study: Study,
    data: str,
    dataset: Mapping[str, Any],
) -> Path:
    """Write ``run.json`` and copies of the study's two files; call it when all else is written.

    Parameters
    ----------
    dataset : the dataset's name and fingerprints, such as ``{"name": ..., "participants.tsv": sha256}``.

    Returns
    -------
    Path of ``run.json``: data, study, settings, dataset, split, expected counts, software, machine,
    and the digest of every small file. It holds no absolute path and no host or user name.
    """
    run = Path(run)
    stamp_text(data)
    storage.write_text(run / "study.toml", study.text)
    dictionary = study.dictionary_path.read_text(encoding="utf-8")
    storage.write_text(run / "data_dictionary.csv", dictionary)
    split = run / "split.csv"
    content = {
        "data": data,
        "study": {
            "name": study.name,
            "title": study.title,
            "sha256": storage.digest(run / "study.toml"),
        },
        "settings": _portable(_fields(settings)),
        "dataset": _portable(dict(dataset)),
        "split": {"sha256": storage.digest(split)} if split.exists() else {},
        "expected": expected_counts(run),
        "software": _software(),
        "machine": _machine(),
        "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "files": digests(run),
    }
    storage.write_json(run / "run.json", content)
    return run / "run.json"


def run_study(run: str | Path, info: Mapping[str, Any]) -> Study:
    """The study file that a run keeps, with the outcome definition and repetitions of its ``run.json``."""
    settings = info["settings"]
    study = read_study(Path(run) / "study.toml").under(settings.get("outcome_definition", MAIN))
    return study.repeated(settings.get("repeats", 0))


def expected_counts(run: str | Path) -> dict[str, Any]:
    """How many patients each file holds: by partition, and by arm, partition, seed and fold."""
    run, counts = Path(run), {}
    if (run / "cohort.csv").exists():
        cohort = read_text_table(run / "cohort.csv")
        counts["cohort"] = len(cohort)
        if "included" in cohort:
            counts["included"] = int((cohort["included"] == "1").sum())
    if (run / "split.csv").exists():
        parts = read_text_table(run / "split.csv")["partition"].value_counts().sort_index()
        counts["split"] = {str(name): int(n) for name, n in parts.items()}
    if (run / "predictions.csv").exists():
        rows = read_text_table(run / "predictions.csv")
        sizes = rows.groupby(["arm", "partition", "seed", "fold"], sort=True).size()
        counts["predictions"] = {" / ".join(key): int(n) for key, n in sizes.items()}
    return counts


def digests(run: str | Path, patterns: tuple[str, ...] = DIGESTED) -> dict[str, str]:
    """SHA-256 of every small file of a run that matches a pattern, by its path inside the folder.

    Hidden files, locks and notebooks that failed are no part of a run.
    """
    run = Path(run)
    files = {path for pattern in patterns for path in run.glob(pattern) if path.is_file()}
    names = {
        path.relative_to(run).as_posix(): path
        for path in files
        if not path.name.startswith(".") and not path.name.endswith((".lock", ".failed.ipynb"))
    }
    return {name: storage.digest(names[name]) for name in sorted(names)}


def _fields(settings: Settings | Mapping[str, Any]) -> dict[str, Any]:
    if not dataclasses.is_dataclass(settings):
        return dict(settings)
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    left_out = ("study", "out", "cache")
    values = {name: value for name, value in values.items() if name not in left_out}
    return values | {
        "data": "embedded simulated cohort" if values["data"] is None else values["data"]
    }


def _portable(value: Any) -> Any:
    """The value for JSON, with every absolute path cut to its last part."""
    if isinstance(value, Mapping):
        return {str(key): _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, PurePath) or (
        isinstance(value, str) and re.match(r"([A-Za-z]:)?[\\/]", value)
    ):
        return PurePath(str(value).replace("\\", "/")).name
    return value


def _software() -> dict[str, Any]:
    return {
        "rlvo-repro": __version__, "commit": _commit(), "python": platform.python_version(),
        "packages": _versions(),
    }  # fmt: skip


def _versions() -> dict[str, str]:
    """Versions of the packages this one asks for (all installed ones if it is not installed)."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
        names = [re.match(r"[\w.-]+", line).group() for line in required if "extra ==" not in line]
    except importlib.metadata.PackageNotFoundError:
        names = [d.metadata["Name"] for d in importlib.metadata.distributions()]
    found = {}
    for name in sorted(set(names), key=str.lower):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The checkout's commit, with ``+changes`` if files differ from it; empty outside a checkout.

    The reference run and the README that shows it are written by a run, not read: their changes do
    not count.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=project_root(),
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != project_root().resolve():
            return ""
        left_out = (":(exclude)reports", ":(exclude)README.md")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *left_out)
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processors": os.cpu_count(),
    }
