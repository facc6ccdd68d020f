"""Which patients an explanation is of: never one that the model was trained on."""

from __future__ import annotations

import numpy as np

from rlvo_lib import experiment
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.preprocess import TensorCache


def unseen(analysis: Analysis, cache: TensorCache | None, task: Task) -> list[str]:
    """The patients that a fold's model was not trained on: test patients, or those held out.

    Raises
    ------
    InputError
        If every one of them lacks a modality of the arm.
    """
    usable = experiment.arm_patients(analysis, cache, task.arm)
    usable = usable.set_index("participant_id")["used"]
    parts = analysis.fold_parts(task.fold, task.seed)
    pool = [p for p in parts["test"] or parts["held_out"] if usable[p]]
    if not pool:
        raise InputError(f"arm '{task.arm.name}': no patient can be explained; all lack a modality")
    return pool


def chosen(
    analysis: Analysis, cache: TensorCache | None, task: Task, wanted: int, *, each: bool = False
) -> list[str]:
    """So many of the `unseen`, half of them with the outcome where there are enough; sorted.

    Drawn with the run's seed, so that the folds explain the same test patients. In a design without a
    test part each fold explains its share of ``wanted`` among those held out; with ``each``, as many. An
    odd one has the outcome in every second fold.
    """
    pool, odd = unseen(analysis, cache, task), 0
    if not analysis.fold_parts(task.fold, task.seed)["test"]:
        folds = analysis.settings.study.validation["folds"]
        wanted, odd = wanted if each else -(-wanted // folds), task.fold % 2
    n = min(len(pool), wanted)
    y = analysis.y[pool]
    rng = np.random.default_rng(analysis.settings.seed)
    events = list(rng.permutation([p for p in pool if y[p] == 1]))
    others = list(rng.permutation([p for p in pool if y[p] == 0]))
    n_events = min(len(events), max((n + odd) // 2, n - len(others)))
    return sorted([*events[:n_events], *others[: n - n_events]])


def background(analysis: Analysis, training_patients: list[str]) -> list[str]:
    """Training patients who stand for "unknown" and "absent": drawn with the run's seed; sorted."""
    rng = np.random.default_rng(analysis.settings.seed)
    n = min(len(training_patients), analysis.settings.shap_background)
    return sorted(str(p) for p in rng.choice(training_patients, n, replace=False))
