"""A finished run as it was frozen: its settings, its development data, its stored models.

Trained networks lie in the cache under keys of all that went into them; baselines, encoders and stacks
are made again from the development data, which is quick and gives the same numbers (`scoring.proof`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rlvo_lib import analysis as analyses
from rlvo_lib import dataset, report, storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError, Settings, available_workers, project_root
from rlvo_lib.experiment.running import plan_arms
from rlvo_lib.experiment.tasks import Task
from rlvo_lib.preprocess import TensorCache

EMBEDDED = "embedded simulated cohort"  # what run.json says in the place of a dataset folder
#: Files that must be as the run recorded them.
FROZEN = ("predictions.csv", "thresholds.csv", "study.toml", "data_dictionary.csv", "split.csv")
NETWORKS = ("cnn", "mlp")


@dataclass(frozen=True)
class FrozenRun:
    """A run folder with the data and the tasks that it was made of."""

    root: Path
    info: dict[str, Any]  # run.json
    analysis: Analysis  # of the development data
    tensors: TensorCache

    @property
    def predictions(self) -> pd.DataFrame:
        """``predictions.csv``."""
        return storage.read_csv(self.root / "predictions.csv")

    @property
    def thresholds(self) -> pd.DataFrame:
        """``thresholds.csv``."""
        return storage.read_csv(self.root / "thresholds.csv")

    @property
    def arms(self) -> list[str]:
        """The arms that the run reports, in the study's order."""
        ran = set(self.predictions["arm"])
        return [name for name in self.analysis.settings.study.arms if name in ran]

    def tasks(self, arms: list[str]) -> list[Task]:
        """The finished tasks of some arms, each with its stored models.

        Raises
        ------
        InputError
            If a network's stored model is not in the cache, naming it and the command that makes it.
        """
        tasks = plan_arms(self.analysis, self.tensors, arms)
        readers = {r.folder: r for task in tasks for r in task.readers}.values()
        stored = [*readers, *(task for task in tasks if _is_network(task))]
        lacking = [task for task in stored if not _is_stored(task)]
        if lacking:
            raise InputError(
                f"{self.root}: the trained model of {lacking[0].title} is not in "
                f"{lacking[0].folder.parent} ({len(lacking)} of {len(stored)} models are missing); "
                f"allowed: the cache of the run (--cache), or train them again: {self._command()}"
            )
        return tasks

    def _command(self) -> str:
        settings = self.info["settings"]
        own = "" if settings["data"] == EMBEDDED else " --data DATASET"
        words = f"rlvo train --profile {settings['profile']} --study {self.info['study']['name']}"
        return f"{words}{own}, with the run's settings"


def _is_network(task: Task) -> bool:
    return task.what.kind in NETWORKS


def _is_stored(task: Task) -> bool:
    return (task.folder / "model.safetensors").is_file() and task.done


def open_frozen(
    run: str | Path, *, development: Path | None, cache: Path, scratch: Path
) -> FrozenRun:
    """Open a finished run with the data it was developed on.

    Parameters
    ----------
    development : the run's own dataset folder; None for a run of the embedded cohort.
    cache : where its trained models lie.
    scratch : an empty folder for what opening the data writes.

    Raises
    ------
    InputError
        If the folder is no finished run, or one that was applied itself; if a file of it was changed; if
        the development data are not those the run was made with.
    """
    root = Path(run)
    info = _read_info(root)
    settings = _settings(root, info, development, cache, scratch)
    _refuse_other_files(settings, info)
    analysis = analyses.open_analysis(settings)
    tensors = analysis.tensors()
    _refuse_other_data(root, info, analysis, tensors)
    return FrozenRun(root, info, analysis, tensors)


def _read_info(root: Path) -> dict[str, Any]:
    for name in ("run.json", *FROZEN):
        if not (root / name).is_file():
            raise InputError(f"{root}: not a finished run folder (no {name} in it)")
    try:
        info = storage.read_json(root / "run.json")
        report.stamp_text(info["data"])
        recorded = info["files"] | {"split.csv": info["split"]["sha256"]}
        needed = [
            info["settings"]["profile"],
            info["settings"]["data"],
            info["dataset"],
            info["study"],
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{root / 'run.json'}: not readable ({type(error).__name__}: {error})"
        ) from error
    if not all(needed):
        raise InputError(f"{root / 'run.json'}: not that of a finished run")
    if info.get("applied"):
        raise InputError(
            f"{root}: is itself a run applied to other patients; allowed: the run "
            f"'{info['applied']['run']}' that it was made with"
        )
    for name in FROZEN:
        if recorded.get(name) != storage.digest(root / name):
            raise InputError(
                f"{root / name}: was changed since the run was finished; allowed: as it was written"
            )
    return info


def _settings(
    root: Path, info: dict[str, Any], development: Path | None, cache: Path, scratch: Path
) -> Settings:
    """The settings of ``run.json`` with the run's own study file, on this machine's processors."""
    given = dict(info["settings"])
    embedded = given.pop("data") == EMBEDDED
    if embedded and development:
        raise InputError(
            f"--development {development}: the run {root} was made with the embedded cohort; allowed: "
            "leave it out"
        )
    if not embedded and development is None:
        raise InputError(
            f"{root}: was made with the dataset '{info['dataset'].get('name', '')}', which is needed "
            "to make its baselines and encoders again; allowed: --development DATASET"
        )
    if development and not development.is_dir():
        raise InputError(f"dataset folder {development} does not exist")
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in given:
        if name not in known:
            raise InputError(
                f"{root / 'run.json'}: setting '{name}' is not one of this version of the package"
            )
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
    if template := values.get("template", ""):
        values["template"] = str(project_root() / template)
        if not Path(values["template"]).is_file():
            raise InputError(f"{root}: its registration template {template} is not at hand")
    own = {"workers": available_workers(), "data": development, "out": scratch, "cache": cache}
    try:
        return Settings(**values | own | {"study": report.run_study(root, info)})
    except TypeError as error:
        raise InputError(f"{root / 'run.json'}: settings are not complete ({error})") from error


def _refuse_other_files(settings: Settings, info: dict[str, Any]) -> None:
    """Whether the development dataset's files are those of the run, before they are read in earnest."""
    root = settings.data or analyses.embedded_dataset(settings)
    recorded = {n: d for n, d in info["dataset"].items() if n not in ("name", "scans")}
    for name in ("participants.tsv", "dataset_description.json", "split.csv", "exclusions.csv"):
        before = recorded.get(name, "not there")
        now = storage.digest(root / name) if (root / name).is_file() else "not there"
        if before != now:
            raise InputError(
                f"development data {root}: {name} is not that of the run (SHA-256 {now[:16]}; "
                f"allowed: {before[:16]})"
            )


def _refuse_other_data(
    root: Path, info: dict[str, Any], analysis: Analysis, tensors: TensorCache
) -> None:
    """Whether split and scans, as this version of the package makes them, are those of the run."""
    now = storage.digest(analysis.settings.out / "split.csv")
    if now != info["split"]["sha256"]:
        raise InputError(
            f"development data: the split is drawn otherwise than in {root / 'split.csv'}; allowed: "
            "the run's dataset, and the version of the package that it was made with"
        )
    if tensors.fingerprint != info["dataset"].get("scans"):
        raise InputError(
            f"development data: the prepared scans ({tensors.fingerprint}) are not those of the run "
            f"({info['dataset'].get('scans')}); allowed: the run's scans, and the version of the package "
            "that it was made with"
        )


def dataset_kind(root: Path) -> str:
    """``simulated`` or ``real``, as a dataset folder says."""
    return "simulated" if dataset.read_description(root)["simulated"] else "real"
