"""Running the tasks, in shards if need be, and putting their results together."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rlvo_lib import storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError, Settings
from rlvo_lib.experiment.arms import COMBINED, ladder
from rlvo_lib.experiment.combining import average_arms, recalibrated, stack_arms
from rlvo_lib.experiment.fitting import PREDICTION_COLUMNS, reads_of, run_task
from rlvo_lib.experiment.tasks import Task, plan
from rlvo_lib.preprocess import TensorCache

HISTORY_COLUMNS = ["arm", "seed", "fold", "epoch", "part", "loss"]
#: A task with the analysis and the tensors that it belongs to.
Work = tuple[Analysis, TensorCache | None, Task]


def run_arms(
    analysis: Analysis, cache: TensorCache | None, arms: list[str] | None = None
) -> pd.DataFrame:
    """Run all tasks of some arms (default: all of the `ladder` that run) and return their predictions.

    Returns
    -------
    DataFrame with the columns of ``predictions.csv``, in the order of arms, seeds, folds, partition
    and patients. Arms of kind ``mean`` and ``stack`` are made from the arms they name.

    Raises
    ------
    InputError
        If an arm is not in the study file, or too few patients have what it needs.
    """
    study = analysis.settings.study
    arms = _runnable(analysis, cache, arms)
    wanted = _with_parts(analysis, arms)
    tasks = plan(analysis, cache, wanted)
    run_tasks(analysis, cache, tasks)
    made = [storage.read_csv(task.result) for task in tasks]
    if not made:
        return pd.DataFrame(columns=PREDICTION_COLUMNS)
    predictions = pd.concat(made, ignore_index=True)
    for name in wanted:
        if study.arms[name].kind in COMBINED:
            combine = average_arms if study.arms[name].kind == "mean" else stack_arms
            predictions = pd.concat([predictions, combine(predictions, study.arms[name])])
    predictions = predictions[predictions["arm"].isin(arms)]
    order = predictions["arm"].map({name: rank for rank, name in enumerate(study.arms)})
    predictions = predictions.assign(order=order).sort_values(
        ["order", "seed", "fold", "partition", "participant_id"], ignore_index=True
    )[PREDICTION_COLUMNS]
    return recalibrated(predictions)[0] if analysis.settings.recalibrate else predictions


def _runnable(analysis: Analysis, cache: TensorCache | None, arms: list[str] | None) -> list[str]:
    """The arms asked for, or all that run."""
    study = analysis.settings.study
    for name in arms or ():
        if name not in study.arms:
            raise InputError(f"arm '{name}' is not in the study; allowed: {', '.join(study.arms)}")
    possible = ladder(analysis, cache).set_index("arm")
    arms = list(possible.index[possible["runs"]]) if arms is None else arms
    for name in arms:
        if not possible.loc[name, "runs"]:
            raise InputError(f"arm '{name}' cannot run: {possible.loc[name, 'reason']}")
    return arms


def _with_parts(analysis: Analysis, arms: list[str]) -> list[str]:
    """The arms and those they are made of, each after its own."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for part in analysis.settings.study.arms[name].of:
            add(part)
        found[name] = None

    for name in arms:
        add(name)
    return list(found)


def plan_arms(
    analysis: Analysis, cache: TensorCache | None, arms: list[str] | None = None
) -> list[Task]:
    """The tasks of some arms (default: all of the `ladder` that run) and of those they are made of.

    Raises
    ------
    InputError
        As `run_arms`.
    """
    return plan(analysis, cache, _with_parts(analysis, _runnable(analysis, cache, arms)))


def run_tasks(
    analysis: Analysis,
    cache: TensorCache | None,
    tasks: list[Task],
    shard: tuple[int, int] = (1, 1),
) -> int:
    """Run what is not done of some tasks, readers first, and return how many were run.

    ``shard`` (i, n): the i-th of n parts of the whole list (`in_shard`), so that n machines with the same
    data and settings share the work.
    """
    return run_work([(analysis, cache, task) for task in tasks], shard)


def run_work(work: Sequence[Work], shard: tuple[int, int] = (1, 1)) -> int:
    """As `run_tasks`, of tasks that each have an analysis and tensors of their own, in one cache."""
    chosen = in_shard(work, shard)
    if not chosen:
        return 0
    settings = chosen[0][0].settings
    with storage.lock(settings.cache / "tasks"):
        readers = _open([(a, cache, r) for a, cache, task in chosen for r in task.readers])
        own = _open(chosen)
        _run(settings, readers + [item for item in own if not item[2].readers])
        _run(settings, [item for item in own if item[2].readers])
    return len(readers) + len(own)


def in_shard(work: Sequence[Work], shard: tuple[int, int]) -> list[Work]:
    """The i-th of n parts of some work, done or not: every n-th task from the i-th on, in their order.

    Tasks that are built on the same readers count as one, so that no two shards train the same reader.

    Raises
    ------
    InputError
        For a shard that is none of 1 to n.
    """
    if not 1 <= shard[0] <= shard[1]:
        raise InputError(f"shard {shard[0]} of {shard[1]}; allowed: 1 to {max(1, shard[1])}")
    bundles: dict[object, list[Work]] = {}
    for item in work:
        task = item[2]
        bundles.setdefault(tuple(r.folder for r in task.readers) or task.folder, []).append(item)
    return [item for bundle in list(bundles.values())[shard[0] - 1 :: shard[1]] for item in bundle]


def unfinished(tasks: Sequence[Task]) -> list[Task]:
    """Those of some tasks that have no result yet."""
    return [task for task in tasks if not task.done]


def _open(work: Sequence[Work]) -> list[Work]:
    """What is not done of some work, each task once."""
    return list({item[2].folder: item for item in work if not item[2].done}.values())


def _run(settings: Settings, work: list[Work]) -> None:
    if work:
        workers.run(
            run_task,
            work,
            workers=_processes(settings),
            label="training",
            titles=[task.title for _, _, task in work],
        )


def _processes(settings: Settings) -> int:
    """How many tasks run at once: on a GPU, which they share, few."""
    from rlvo_lib.training import pick_device

    on_gpu = pick_device(settings.device).type == "cuda"
    return settings.gpu_processes if on_gpu else settings.workers


def histories(tasks: list[Task]) -> pd.DataFrame:
    """Training curves of finished network tasks: arm, seed, fold, epoch, part, loss.

    Of an arm of concepts the curves are its readers', by their names.
    """
    frames, seen = [], {t.folder: t for task in tasks for t in (*task.readers, task)}
    for task in seen.values():
        if (task.folder / "history.csv").exists():
            history = storage.read_csv(task.folder / "history.csv")
            frames.append(history.assign(arm=task.what.name, seed=task.seed, fold=task.fold))
    return (
        pd.concat(frames, ignore_index=True)[HISTORY_COLUMNS]
        if frames
        else pd.DataFrame(columns=HISTORY_COLUMNS)
    )


def reading(analysis: Analysis, cache: TensorCache | None, seed: int | None = None) -> pd.DataFrame:
    """How well each concept is read out of fold: the columns of `concepts.reading_quality`, and reader.

    Each training patient is read once, by the readers that did not see them; what was recorded is used
    to judge only. Empty where no arm is built on concepts.

    Raises
    ------
    InputError
        For a seed that the run does not train with.
    """
    from rlvo_lib import concepts

    study = analysis.settings.study
    seed = analysis.seeds[0] if seed is None else seed
    if seed not in analysis.seeds:
        raise InputError(f"seed is {seed}; allowed: {', '.join(map(str, analysis.seeds))}")
    names = [arm.name for arm in study.arms.values() if arm.kind == "concepts"]
    if not names:
        return pd.DataFrame(columns=[*concepts.quality.COLUMNS, "reader"])
    tasks = [t for t in plan(analysis, cache, names[:1]) if t.seed == seed]
    run_tasks(analysis, cache, [r for t in tasks for r in t.readers])
    reads = []
    for task in tasks:
        codes, frame = reads_of(analysis, task)
        held = [p for p in analysis.fold_parts(task.fold, seed)["held_out"] if p in frame.index]
        reads.append(frame.loc[held])
    together = pd.concat(reads)
    recorded = codes.of_table(analysis.dataset.table.loc[together.index])
    table = concepts.reading_quality(codes, recorded, together.to_numpy(float))
    return table.assign(reader=table["concept"].map(study.concepts))


def single_source(arm: Arm) -> bool:
    """Whether an arm sees images or a table, not both."""
    sees_images = bool(arm.channels) or arm.kind == "concepts" or bool(arm.measures)
    return arm.kind not in COMBINED and sees_images != bool(arm.predictors)
