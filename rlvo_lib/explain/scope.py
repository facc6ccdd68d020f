"""Whom each fold's model can be asked about, when patients are named: never one it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rlvo_lib import experiment
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.explain import patients
from rlvo_lib.preprocess import TensorCache

#: A fold's task with the patients to be explained.
Asked = tuple[Task, tuple[str, ...]]


def asked(
    analysis: Analysis,
    cache: TensorCache | None,
    tasks: Sequence[Task],
    participants: Sequence[str] | None = None,
    wanted: int = 0,
    *,
    each: bool = False,
) -> list[Asked]:
    """The tasks whose model can be asked, each with its patients, sorted.

    Parameters
    ----------
    participants : named patients: each goes to the models of all folds if they are test patients, to that
        of one fold if they were held out of it. Left out: `explain.unseen`, or ``wanted`` of them
        (`explain.chosen`).
    each : so many for each model, and not for all folds together: for what is a mean over a model's patients.

    Raises
    ------
    InputError
        For a named patient whom no model can be asked about, with the reason.
    """
    found, reached = [], set()
    for task in tasks:
        if participants is None:
            ids = (
                patients.chosen(analysis, cache, task, wanted, each=each)
                if wanted
                else patients.unseen(analysis, cache, task)
            )
        else:
            parts = experiment.fold_patients(analysis, cache, task)
            ids = sorted(set(participants) & {*parts["test"], *parts["held_out"]})
        reached |= set(ids)
        if ids:
            found.append((task, tuple(ids)))
    for participant in participants or ():
        if participant not in reached:
            raise InputError(_why_not(analysis, cache, tasks[0], participant))
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, and so the same bytes each time; afterwards as many threads as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _why_not(analysis: Analysis, cache: TensorCache | None, task: Task, participant: str) -> str:
    usable = experiment.arm_patients(analysis, cache, task.arm).set_index("participant_id")
    if participant not in usable.index:
        reason = "not an eligible patient of this dataset"
    else:
        reason = usable.loc[participant, "reason"] or "every fold model asked was trained on them"
    return f"patient {participant}, arm '{task.arm.name}': {reason}; allowed: a test patient, or one held out of a fold"
