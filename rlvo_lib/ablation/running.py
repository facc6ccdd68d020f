"""The tasks of a grid of variants, run and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rlvo_lib import experiment, storage
from rlvo_lib.ablation.thinning import thinned, without_test
from rlvo_lib.ablation.variants import Variant
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError, Study
from rlvo_lib.experiment.arms import COMBINED
from rlvo_lib.experiment.running import run_work, unfinished
from rlvo_lib.preprocess import TensorCache


@dataclass(frozen=True)
class Planned:
    """A variant with the analysis, tensors and tasks that it needs, or the reason why it cannot run."""

    variant: Variant
    analysis: Analysis
    tensors: TensorCache | None
    tasks: list[experiment.Task]
    reason: str = ""


def plan(analysis: Analysis, variants: Iterable[Variant]) -> list[Planned]:
    """What each variant needs, without the test patients; tensors are made where they are absent.

    A variant that cannot run has no task and says why.

    Raises
    ------
    InputError
        If none can run.
    """
    base, tensors, planned = without_test(analysis), {}, []
    for variant in variants:
        own = _varied(base, variant)
        grid_of = (own.settings.grid_shape, own.settings.grid_spacing_mm)
        parts = parts_of(own.settings.study, variant.arm)
        sees_images = any(_sees_images(part) for part in parts)
        if sees_images and grid_of not in tensors:
            tensors[grid_of] = own.tensors()
        used = tensors[grid_of] if sees_images else None
        possible = experiment.ladder(own, used).set_index("arm").loc[variant.arm.name]
        names = [part.name for part in parts if possible["runs"]]
        tasks = experiment.plan(own, used, names)
        planned.append(Planned(variant, own, used, tasks, possible["reason"]))
    if planned and not any(one.tasks for one in planned):
        first = planned[0]
        raise InputError(f"arm '{first.variant.arm.name}' cannot run: {first.reason}")
    return planned


def parts_of(study: Study, arm: Arm) -> list[Arm]:
    """What an arm is made of (`Arm.of`), each after its own parts, and itself last."""
    found: dict[str, Arm] = {}
    for name in arm.of:
        found |= {part.name: part for part in parts_of(study, study.arms[name])}
    return [*found.values(), arm]


def _sees_images(arm: Arm) -> bool:
    return bool(arm.channels or arm.measures) or arm.kind == "concepts"


def _varied(analysis: Analysis, variant: Variant) -> Analysis:
    settings = analysis.settings
    study = dataclasses.replace(
        settings.study, arms=settings.study.arms | {variant.arm.name: variant.arm}
    )
    settings = dataclasses.replace(
        settings, study=study, arms=(variant.arm.name,), **variant.settings
    )
    return thinned(dataclasses.replace(analysis, settings=settings), variant.share)


def train(planned: Sequence[Planned], shard: tuple[int, int] = (1, 1)) -> int:
    """Run what is not done of a grid's tasks, or of a shard of them; returns how many were run."""
    return run_work([(one.analysis, one.tensors, t) for one in planned for t in one.tasks], shard)


def run(analysis: Analysis, variants: Iterable[Variant]) -> pd.DataFrame:
    """Run a grid and return its `predictions`; what was finished before is not done twice."""
    planned = plan(analysis, variants)
    train(planned)
    return predictions(planned)


def predictions(planned: Sequence[Planned]) -> pd.DataFrame:
    """The out-of-fold predictions of a grid that was run.

    Returns
    -------
    DataFrame with group, variant, n_train (patients that the fold's model, or any of its parts, learnt
    from, those who stop the training with them) and the columns of ``predictions.csv``.

    Raises
    ------
    InputError
        If a task is not finished.
    """
    tasks = list({task.folder: task for one in planned for task in one.tasks}.values())
    left = unfinished(tasks)
    if left:
        raise InputError(
            f"{len(left)} of {len(tasks)} tasks of the ablations are not finished, first "
            f"'{left[0].title}'; run the other shards, and rlvo merge"
        )
    frames = []
    for one in planned:
        if one.tasks:
            frame = _predicted(one)
            frame.insert(0, "group", one.variant.group)
            frame.insert(1, "variant", one.variant.name)
            frames.append(frame)
    columns = ["group", "variant", "n_train", *experiment.PREDICTION_COLUMNS]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _predicted(one: Planned) -> pd.DataFrame:
    """n_train and the predictions of a variant whose tasks are done."""
    arm, learnt = one.variant.arm, {}
    frames = []
    for task in one.tasks:
        parts = experiment.fold_patients(one.analysis, one.tensors, task)
        learnt.setdefault((task.seed, task.fold), set()).update(parts["train"], parts["inner"])
        frames.append(storage.read_csv(task.result))
    frame = pd.concat(frames, ignore_index=True)
    for part in parts_of(one.analysis.settings.study, arm):
        if part.kind in COMBINED:
            frame = pd.concat([frame, _combined(frame, part, learnt)], ignore_index=True)
    frame = frame[frame["arm"] == arm.name]
    rounds = zip(frame["seed"], frame["fold"], strict=True)
    frame.insert(0, "n_train", [len(learnt[one_round]) for one_round in rounds])
    return frame


def _combined(
    frame: pd.DataFrame, arm: Arm, learnt: Mapping[tuple[int, int], set[str]]
) -> pd.DataFrame:
    """Predictions of an arm made of others that learnt from a share of the patients.

    A stack learns its weights from out-of-fold predictions: here of those patients alone whom the fold's
    models may learn from, else it would know of more patients than its share.
    """
    if arm.kind == "mean":
        return experiment.average_arms(frame, arm)
    made = []
    for (seed, fold), known in learnt.items():
        own = frame[frame["seed"] == seed]
        own = own[(own["fold"] == fold) | own["participant_id"].isin(known)]
        stacked = experiment.stack_arms(own, arm)
        made.append(stacked[stacked["fold"] == fold])
    return pd.concat(made, ignore_index=True)
