"""Checks of explanations that need networks trained for the purpose: `make explain-checks`.

Networks trained on outcomes dealt out anew (label randomisation), with other seeds, and where nothing predicts.
Each function gives rows with `checks.CHECK_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from rlvo_lib import workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.explain import patients
from rlvo_lib.explain.checks import (
    CHECK_COLUMNS,
    SHORT_COLUMNS,
    Truth,
    agreement_rows,
    inside_lesion,
    known_methods,
    lesion_of,
    likeness_rows,
    model_maps,
    rounded,
)
from rlvo_lib.explain.keeping import kept_table
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.randomisation import PermutedLabels
from rlvo_lib.preprocess import TensorCache


def checks_of_labels(
    analysis: Analysis,
    cache: TensorCache,
    tasks: Sequence[Task],
    permuted: PermutedLabels,
    permuted_tasks: Sequence[Task],
    methods: Sequence[str] = (),
    *,
    truth: Truth | None = None,
) -> pd.DataFrame:
    """Maps of networks trained on the outcomes, beside those trained on outcomes dealt out anew.

    Both of one fold explain the same test patients, dealt out among the folds. With ``truth``, also the share
    of positive attribution in the true lesion: ``value`` of the trained, ``reference`` of the other network.

    Raises
    ------
    InputError
        If the two lists are not of the same folds, or the design has no test part: patients held out of a fold
        of the one are in the training of no other, but are too few.
    """
    methods = known_methods(methods)
    if [t.fold for t in tasks] != [t.fold for t in permuted_tasks]:
        raise InputError("label randomisation: the two lists of tasks are not of the same folds")
    depends_on = [
        [t.folder.name for t in (*tasks, *permuted_tasks)], methods, truth is not None,
        analysis.settings.subset("explained_patients", "shap_background", "seed"),
    ]  # fmt: skip

    def make() -> pd.DataFrame:
        ids = patients.chosen(analysis, cache, tasks[0], analysis.settings.explained_patients)
        calls = [
            (analysis, cache, task, permuted, other, ids[k :: len(tasks)], methods, truth)
            for k, (task, other) in enumerate(zip(tasks, permuted_tasks, strict=True))
        ]
        frames = workers.run(
            label_checks,
            calls,
            workers=analysis.settings.workers,
            label="label randomisation: folds",
        )
        return rounded(pd.concat(frames, ignore_index=True))

    return kept_table(analysis, f"checks-labels-{tasks[0].arm.name}", depends_on, make)


def label_checks(
    analysis: Analysis,
    cache: TensorCache,
    task: Task,
    permuted: PermutedLabels,
    other: Task,
    own: list[str],
    methods: list[str],
    truth: Truth | None,
) -> pd.DataFrame:
    """One fold of `checks_of_labels`."""
    torch.set_num_threads(1)
    first, head = model_maps(FusedModel.load(analysis, cache, task), own, methods)
    second, _ = model_maps(FusedModel.load(permuted, cache, other), own, methods)
    tables = [likeness_rows("label_randomisation", "all", own, first, second, head)]
    if truth is not None:
        lesions = [lesion_of(truth(analysis, cache, patient)) for patient in own]
        rows = []
        for method in methods:
            for k, (patient, lesion) in enumerate(zip(own, lesions, strict=True)):
                _, share, _ = inside_lesion(first[method][k], lesion, head)
                _, untaught, _ = inside_lesion(second[method][k], lesion, head)
                rows.append((patient, method, "learnt", "share", "lesion", share, untaught))
        tables.append(pd.DataFrame(rows, columns=SHORT_COLUMNS))
    frame = pd.concat(tables, ignore_index=True)
    return frame.assign(arm=task.arm.name, seed=task.seed, fold=task.fold)


def checks_of_seeds(
    analysis: Analysis, cache: TensorCache, tasks: Sequence[Task], methods: Sequence[str] = ()
) -> pd.DataFrame:
    """Agreement of the maps of networks that differ in their training seed alone, fold by fold.

    Raises
    ------
    InputError
        For tasks of one seed.
    """
    methods = known_methods(methods)
    seeds = sorted({task.seed for task in tasks})
    if len(seeds) < 2:
        raise InputError(
            f"stability over seeds got the seed {seeds[0]}; allowed: two seeds or more"
        )
    folds = sorted({task.fold for task in tasks})
    depends_on = [
        [t.folder.name for t in tasks], methods,
        analysis.settings.subset("explained_patients", "shap_background", "seed"),
    ]  # fmt: skip

    def make() -> pd.DataFrame:
        ids = patients.chosen(analysis, cache, tasks[0], analysis.settings.explained_patients)
        calls = [
            (analysis, cache, [t for t in tasks if t.fold == fold], ids[k :: len(folds)], methods)
            for k, fold in enumerate(folds)
        ]
        frames = workers.run(
            seed_checks,
            calls,
            workers=analysis.settings.workers,
            label="stability over seeds: folds",
        )
        return rounded(pd.concat(frames, ignore_index=True))

    return kept_table(analysis, f"checks-seeds-{tasks[0].arm.name}", depends_on, make)


def seed_checks(
    analysis: Analysis, cache: TensorCache, tasks: list[Task], own: list[str], methods: list[str]
) -> pd.DataFrame:
    """One fold of `checks_of_seeds`."""
    torch.set_num_threads(1)
    all_maps = [model_maps(FusedModel.load(analysis, cache, task), own, methods) for task in tasks]
    about = (tasks[0].arm.name, np.nan)
    return agreement_rows("stability_seeds", own, all_maps, about, tasks[0].fold)


def null_rows(regions: pd.DataFrame) -> pd.DataFrame:
    """The check `null` from ``regions.csv`` of networks trained where nothing predicts.

    One row a patient, method and region: ``value`` is the region's share of the positive attribution,
    ``reference`` its share of the volume.
    """
    frame = regions.groupby(
        ["participant_id", "arm", "method", "region"], as_index=False, sort=False
    )
    frame = frame[["share", "volume_share"]].mean()
    frame = frame.rename(columns={"region": "part", "share": "value", "volume_share": "reference"})
    frame = frame.assign(check="null", measure="share", seed=np.nan, fold=np.nan)
    return frame[CHECK_COLUMNS]
