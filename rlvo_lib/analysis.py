"""A dataset with its cohort and split under some settings: where every notebook starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rlvo_lib import cohort, dataset, dictionary, preprocess, simulate, storage, validation
from rlvo_lib.config import InputError, Settings, Study
from rlvo_lib.dataset import Dataset
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.preprocess import TensorCache


@dataclass(frozen=True)
class Analysis:
    """A dataset with its cohort and split: where every notebook starts."""

    settings: Settings
    dictionary: Dictionary
    dataset: Dataset
    frame: pd.DataFrame  # the cohort frame (see rlvo_lib.cohort)
    split: pd.DataFrame  # participant_id, partition, fold

    @property
    def y(self) -> pd.Series:
        """Outcome (0 or 1) of the eligible patients, by participant_id."""
        return cohort.labels(self.frame, self.settings.study)

    @cached_property
    def units(self) -> pd.Series:
        """The content group of each eligible patient (`dataset.content_groups`)."""
        return cohort.units(self.frame, self.dictionary)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the training: one a repetition where the cross-validation is repeated."""
        repeats = self.settings.study.repeats
        return tuple(range(repeats)) if repeats > 1 else self.settings.training_seeds

    def fold_parts(self, fold: int, seed: int) -> dict[str, list[str]]:
        """Patients of a fold: ``train``, ``inner`` (stops the training), ``held_out``, ``test``.

        ``inner`` is taken from the fold's training part, stratified by outcome. Patients of the same
        content stay together.
        """
        from sklearn.model_selection import train_test_split

        members = self.split.set_index("participant_id")
        in_training = members["partition"] == "train"
        folds = members[cohort.fold_column(self.settings.study, seed)]
        held_out = members.index[in_training & (folds == str(fold))]
        rest = members.index[in_training & (folds != str(fold))]
        first = self.units[sorted(rest)].drop_duplicates()  # one patient stands for each unit
        _, stopping = train_test_split(
            list(first.index),
            test_size=self.settings.study.validation["inner_fraction"],
            stratify=self.y[first.index],
            random_state=self.settings.seed + fold,
        )
        inner = self.units[rest].isin(first[stopping]).to_numpy()
        return {
            "train": sorted(rest[~inner]),
            "inner": sorted(rest[inner]),
            "held_out": sorted(held_out),
            "test": sorted(members.index[members["partition"] == "test"]),
        }

    def tensors(self) -> TensorCache:
        """The model tensors of the eligible patients, prepared where absent."""
        eligible = list(cohort.included(self.frame).index)
        return preprocess.prepare(self.dataset, self.settings, eligible)

    def fingerprint(self, tensors: TensorCache) -> dict[str, str]:
        """Name and content of the dataset's table, description, split and scans, for the provenance."""
        root = self.dataset.root
        names = ("participants.tsv", "dataset_description.json", "split.csv", "exclusions.csv")
        files = {name: storage.digest(root / name) for name in names if (root / name).exists()}
        return {"name": self.dataset.name} | files | {"scans": tensors.fingerprint}


def open_analysis(settings: Settings) -> Analysis:
    """Find the dataset, or simulate the embedded one; check it; derive label and split.

    Writes ``cohort.csv``, ``split.csv`` and their fingerprints (``split.json``) into the run folder,
    once: only the embedded cohort's may be replaced.

    Raises
    ------
    InputError
        If the dataset has faults (the first is named; ``rlvo validate`` lists all), or differs from
        what the run folder was made with.
    """
    words = dictionary.load(settings.study.dictionary_path)
    _refuse_unknown_columns(settings.study, words)
    if settings.data is None:
        cohort.refuse_embedded_over(settings.out)
    root = settings.data or embedded_dataset(settings)
    validation.require_valid(root, settings.study, words)
    data = dataset.load_dataset(root, settings.study, words)
    study = settings.study
    frame = cohort.build(data, study, words)
    given = root / "split.csv" if (root / "split.csv").exists() else None
    split = cohort.make_split(frame, study, words, seed=settings.seed, given=given)
    known = {"name": data.name, "simulated": data.simulated, "embedded": settings.data is None}
    if data.exclusions.fingerprint:
        known["exclusions"] = data.exclusions.fingerprint
    cohort.freeze_split(frame, split, settings.out, plan=split_plan(settings, given), dataset=known)
    return Analysis(settings, words, data, frame, split)


def _refuse_unknown_columns(study: Study, words: Dictionary) -> None:
    for column in study.measured:
        if column not in words:
            raise InputError(
                f"study.toml of study '{study.name}': [measured] names the column '{column}'; allowed: "
                "a column of the data dictionary"
            )


def open_images(settings: Settings) -> Analysis:
    """As `open_analysis`; but a dataset in which nobody's outcome is known opens too, for its images.

    Then every patient with one of the scans that eligibility asks for is in, ``y`` and ``split`` are
    empty, and nothing is written: there is no cohort to freeze.

    Raises
    ------
    InputError
        As `open_analysis`, apart from what outcome, predictors and eligibility would need.
    """
    words = dictionary.load(settings.study.dictionary_path)
    if settings.data is None or _has_outcome(settings, words):
        return open_analysis(settings)
    settings = dataclasses.replace(settings, study=settings.study.images_only)
    validation.require_valid(settings.data, settings.study, words)
    data = dataset.load_dataset(settings.data, settings.study, words)
    frame = cohort.build(data, settings.study, words)
    return Analysis(settings, words, data, frame, pd.DataFrame(columns=cohort.SPLIT_COLUMNS))


def _has_outcome(settings: Settings, words: Dictionary) -> bool:
    try:
        raw = dataset.read_participants(settings.data)
        return cohort.outcome_is_known(raw, settings.study, words)
    except InputError:
        return True  # `open_analysis` says what is wrong


def split_plan(settings: Settings, given: Path | None) -> dict[str, Any]:
    """How the split came about, for its record: the dataset's own, or drawn by plan and seed."""
    definition = {"outcome_definition": settings.outcome_definition}
    if given:
        return definition | {"given": storage.digest(given)}
    return definition | {"seed": settings.seed} | settings.study.validation


def embedded_dataset(settings: Settings) -> Path:
    """The simulated cohort of these settings, made if absent."""
    if not settings.study.embedded:
        raise InputError(
            f"study '{settings.study.name}' has no embedded cohort; give a dataset folder with --data"
        )
    name = f"embedded-{settings.scenario}-{settings.patients}-{settings.seed}"
    key = storage.key(storage.code_key("simulate", "dataset", "images"))
    root = settings.cache / "datasets" / f"{name}-{key}"
    with storage.lock(root):
        simulate.write_dataset(
            root,
            patients=settings.patients,
            seed=settings.seed,
            scenario=settings.scenario,
            workers=settings.workers,
        )
    return root
