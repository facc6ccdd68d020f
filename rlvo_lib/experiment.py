"""Arms × folds × seeds as independent tasks, each with one result folder; together ``predictions.csv``.

A task fits one arm on one fold's training part and scores the patients held out of the fold
(``out-of-fold``) and the test set. It runs in a process of one thread, so its bytes do not depend on
how many run beside it, and is kept under the content of all that went in: a run that was
interrupted, or is repeated, continues with what is finished.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rlvo_lib import cohort, storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError, Settings
from rlvo_lib.preprocess import TensorCache

if TYPE_CHECKING:
    from torch import nn

    from rlvo_lib.tabular import TabularEncoder
    from rlvo_lib.training import Cases

PREDICTION_COLUMNS = ["participant_id", "partition", "arm", "seed", "fold", "y_true", "probability"]
#: What a trained network depends on, beside its data.
TRAINING_SETTINGS = (
    "encoder", "base_filters", "epochs_max", "patience_epochs", "batch_size", "learning_rate",
    "weight_decay", "augment_shift_voxels", "augment_noise", "device",
)  # fmt: skip


# ---------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Task:
    """One arm, fold and seed, with the folder of its result."""

    arm: Arm
    fold: int
    seed: int
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the result is complete (its predictions are written last)."""
        return (self.folder / "predictions.csv").exists()

    @property
    def title(self) -> str:
        """What the progress display calls it."""
        return f"{self.arm.name}, fold {self.fold}, seed {self.seed}"


def arm_patients(analysis: Analysis, cache: TensorCache | None, arm: Arm) -> pd.DataFrame:
    """Which eligible patients an arm can use: participant_id, used, reason.

    A patient who lacks one of the arm's channels is left out of it, with the reason.
    """
    eligible = sorted(cohort.included(analysis.frame).index)
    missing = {}
    if arm.channels:
        missing = (
            cache.missing(eligible, arm.channels) if cache else dict.fromkeys(eligible, "no scans")
        )
    frame = pd.DataFrame({"participant_id": eligible})
    frame["reason"] = [missing.get(participant, "") for participant in eligible]
    return frame.assign(used=frame["reason"] == "")


def ladder(analysis: Analysis, cache: TensorCache | None) -> pd.DataFrame:
    """The study's arms, the patients each can use, and whether it runs.

    An arm runs if each fold keeps both outcomes to train on, and someone to stop the training and to
    be held out, and the test set, if there is one, keeps both outcomes. A ``mean`` arm runs if all its arms do.

    Returns
    -------
    DataFrame with arm, label, kind, fusion, channels and predictors (numbers of), n, events, left_out
    (patients), runs, reason.
    """
    study, rows, runs = analysis.settings.study, [], {}
    asked = {part for name in analysis.settings.arms for part in (name, *study.arms[name].of)}
    for name, arm in study.arms.items():
        usable = arm_patients(analysis, cache, arm)
        used = set(usable["participant_id"][usable["used"]])
        if asked and name not in asked:
            reason = "not asked for"
        elif arm.kind == "mean":
            lacking = [part for part in arm.of if not runs[part]]
            reason = f"arm {', '.join(lacking)} does not run" if lacking else ""
        else:
            reason = _why_not(analysis, used)
            left_out = usable.loc[~usable["used"], "reason"]
            if reason and len(left_out):
                reason += f" ({left_out.mode()[0]})"
        runs[name] = not reason
        rows.append(
            (name, arm.label, arm.kind, arm.fusion, len(arm.channels), len(study.columns_of(arm)),
             len(used), int(analysis.y[sorted(used)].sum()), len(usable) - len(used), not reason, reason)
        )  # fmt: skip
    columns = ["arm", "label", "kind", "fusion", "channels", "predictors", "n", "events", "left_out",
               "runs", "reason"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _why_not(analysis: Analysis, used: set[str]) -> str:
    """Why an arm with these patients cannot be trained and judged; empty if it can."""
    folds = range(1, analysis.settings.study.validation["folds"] + 1)
    repetitions = analysis.seeds if analysis.settings.study.repeats > 1 else analysis.seeds[:1]
    for seed, fold in itertools.product(repetitions, folds):
        parts = {
            name: [p for p in ids if p in used]
            for name, ids in analysis.fold_parts(fold, seed).items()
        }
        if analysis.y[parts["train"]].nunique() < 2:
            return (
                f"fold {fold}: {len(parts['train'])} patients left to train on, not both outcomes"
            )
        for part in ("inner", "held_out"):
            if not parts[part]:
                return f"fold {fold}: no patient left in the {part} part"
    if (analysis.split["partition"] == "test").any() and analysis.y[parts["test"]].nunique() < 2:
        return f"test set: {len(parts['test'])} patients left, not both outcomes"
    return ""


def explained_arm(analysis: Analysis, cache: TensorCache | None) -> str:
    """The arm to explain: the study's, or the first network with predictors where that cannot run.

    Empty if no such network runs: there is nothing to explain.
    """
    study = analysis.settings.study
    runs = set(ladder(analysis, cache).query("runs")["arm"])
    networks = [a.name for a in study.arms.values() if a.kind in ("cnn", "mlp") and a.predictors]
    for name in (study.explain_arm, *networks):
        if name in runs:
            return name
    return ""


def plan(analysis: Analysis, cache: TensorCache | None, arms: list[str]) -> list[Task]:
    """The tasks of some arms; ``mean`` arms have none, since they are made from others."""
    settings, study = analysis.settings, analysis.settings.study
    code = storage.code_key(
        "twins",
        "dataset",
        "cohort",
        "analysis",
        "tabular",
        "encoders",
        "fusion",
        "training",
        "experiment",
    )
    tasks = []
    for name in arms:
        arm = study.arms[name]
        if arm.kind == "mean":
            continue
        columns = list(study.columns_of(arm))
        analysis.dictionary.refuse_leakage(
            tuple(columns), allow_sensitivity=settings.allow_sensitivity_predictors
        )
        usable = arm_patients(analysis, cache, arm)
        used = list(usable["participant_id"][usable["used"]])
        what = {
            "kind": arm.kind, "fusion": arm.fusion, "channels": arm.channels, "columns": [repr(analysis.dictionary[c]) for c in columns],
            "table": analysis.dataset.table.loc[used, columns].to_csv() if columns else "",
            "outcome": analysis.y[used].to_csv(),
            "split": analysis.split.to_csv(),
            "images": cache.table.loc[used, "key"].to_list() if arm.channels else [],
            "study": [study.channels[c] for c in arm.channels],
            "validation": study.validation,
            "settings": settings.subset(*TRAINING_SETTINGS, "seed", "missing_indicators"),
            "code": code,
        }  # fmt: skip
        content = storage.key(what)
        for seed in analysis.seeds:
            for fold in range(1, study.validation["folds"] + 1):
                key = storage.key(content, seed, fold)
                tasks.append(
                    Task(arm, fold, seed, settings.cache / "tasks" / f"{name}-{fold}-{key}")
                )
    return tasks


def fold_encoder(
    analysis: Analysis, cache: TensorCache | None, task: Task
) -> tuple[dict[str, list[str]], TabularEncoder | None]:
    """The fold's patients that an arm can use, by part, and its tabular encoder, fitted."""
    from rlvo_lib.tabular import TabularEncoder

    arm = task.arm
    usable = arm_patients(analysis, cache, arm).set_index("participant_id")["used"]
    whole = analysis.fold_parts(task.fold, task.seed)
    parts = {name: [p for p in ids if usable[p]] for name, ids in whole.items()}
    columns = analysis.settings.study.columns_of(arm)
    if not columns:
        return parts, None
    encoder = TabularEncoder(
        columns,
        analysis.dictionary,
        allow_sensitivity=analysis.settings.allow_sensitivity_predictors,
        indicators=analysis.settings.missing_indicators,
    )
    # Networks stop on the inner part, so their scales must not see it; baselines have no such part.
    fitted_on = parts["train"] + ([] if arm.kind in ("cnn", "mlp") else parts["inner"])
    return parts, encoder.fit(analysis.dataset.table.loc[fitted_on])


def fold_cases(
    analysis: Analysis, cache: TensorCache | None, task: Task
) -> tuple[dict[str, list[str]], dict[str, Cases]]:
    """The fold's patients that an arm can use, and their cases, by part."""
    from rlvo_lib.training import Cases

    arm = task.arm
    parts, encoder = fold_encoder(analysis, cache, task)
    cases = {}
    for name, ids in parts.items():
        if not ids:  # a design without a test set
            continue
        cases[name] = Cases(
            image=cache.images(ids, arm.channels) if arm.channels else None,
            tabular=encoder.transform(analysis.dataset.table.loc[ids]) if encoder else None,
            y=analysis.y[ids].to_numpy(float),
        )
    return parts, cases


def build_network(settings: Settings, arm: Arm, n_tabular: int) -> nn.Module:
    """The untrained network of a ``cnn`` or ``mlp`` arm for P tabular columns."""
    from rlvo_lib import fusion

    if arm.kind == "mlp":
        return fusion.TabularNet(n_tabular)
    return fusion.build_model(
        fusion=arm.fusion,
        encoder=settings.encoder,
        in_channels=len(arm.channels),
        n_tabular=n_tabular,
        base_filters=settings.base_filters,
    )


def run_task(analysis: Analysis, cache: TensorCache | None, task: Task) -> None:
    """Fit one task and write its folder: model, history where there is one, then predictions."""
    import torch

    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    parts, cases = fold_cases(analysis, cache, task)
    if task.arm.kind in ("cnn", "mlp"):
        probability = _run_network(analysis.settings, task, cases)
    else:
        probability = _run_baseline(task, cases)
    rows = []
    for part, name in (("held_out", "out-of-fold"), ("test", "test")):
        if part not in cases:
            continue
        for participant, y, p in zip(parts[part], cases[part].y, probability[part], strict=True):
            rows.append((participant, name, task.arm.name, task.seed, task.fold, int(y), float(p)))
    storage.write_csv(
        task.folder / "predictions.csv", pd.DataFrame(rows, columns=PREDICTION_COLUMNS)
    )


def _run_network(settings: Settings, task: Task, cases: dict[str, Cases]) -> dict[str, np.ndarray]:
    import torch

    from rlvo_lib import training

    training.seed_everything(task.seed * 1000 + task.fold)
    tabular = cases["train"].tabular
    network = build_network(settings, task.arm, 0 if tabular is None else tabular.shape[1])
    if cases["train"].image is not None:
        network.encoder.set_scale(*training.image_scale(cases["train"].image))
    history = training.fit(
        network, cases["train"], cases["inner"], settings, seed=task.seed * 1000 + task.fold
    )
    storage.write_csv(task.folder / "history.csv", history)
    weights = io.BytesIO()
    torch.save(network.cpu().state_dict(), weights)
    with storage.atomic(task.folder / "model.pt") as temporary:
        temporary.write_bytes(weights.getbuffer())
    scored = [part for part in ("held_out", "test") if part in cases]
    logits = {part: training.predict_logit(network, cases[part], settings) for part in scored}
    return {part: 1 / (1 + np.exp(-values)) for part, values in logits.items()}


def _run_baseline(task: Task, cases: dict[str, Cases]) -> dict[str, np.ndarray]:
    from rlvo_lib import tabular

    matrix = np.concatenate([cases["train"].tabular, cases["inner"].tabular])
    y = np.concatenate([cases["train"].y, cases["inner"].y])
    model = tabular.fit_baseline(task.arm.kind, matrix, y, seed=task.seed)
    scored = [part for part in ("held_out", "test") if part in cases]
    return {part: model.predict_proba(cases[part].tabular)[:, 1] for part in scored}


def load_network(analysis: Analysis, task: Task, n_tabular: int) -> nn.Module:
    """The trained network of a finished ``cnn`` task, on the CPU, in evaluation mode."""
    import torch

    path = task.folder / "model.pt"
    if not path.exists():
        raise InputError(f"arm '{task.arm.name}', fold {task.fold}: no stored model; run it first")
    network = build_network(analysis.settings, task.arm, n_tabular)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


# ------------------------------------------------------------------------------------------ run


def run_arms(
    analysis: Analysis, cache: TensorCache | None, arms: list[str] | None = None
) -> pd.DataFrame:
    """Run all tasks of some arms (default: all of the `ladder` that run) and return their predictions.

    Returns
    -------
    DataFrame with the columns of ``predictions.csv``, in the order of arms, seeds, folds, partition
    and patients. Arms of kind ``mean`` are averaged from the arms they name.

    Raises
    ------
    InputError
        If an arm is not in the study file, or too few patients have what it needs.
    """
    study = analysis.settings.study
    for name in arms or ():
        if name not in study.arms:
            raise InputError(f"arm '{name}' is not in the study; allowed: {', '.join(study.arms)}")
    possible = ladder(analysis, cache).set_index("arm")
    arms = list(possible.index[possible["runs"]]) if arms is None else arms
    for name in arms:
        if not possible.loc[name, "runs"]:
            raise InputError(f"arm '{name}' cannot run: {possible.loc[name, 'reason']}")
    wanted = list(dict.fromkeys(a for name in arms for a in (*study.arms[name].of, name)))
    tasks = plan(analysis, cache, wanted)
    with storage.lock(analysis.settings.cache / "tasks"):
        _run_tasks(analysis, cache, [task for task in tasks if not task.done])
    made = [storage.read_csv(task.folder / "predictions.csv") for task in tasks]
    if not made:
        return pd.DataFrame(columns=PREDICTION_COLUMNS)
    predictions = pd.concat(made, ignore_index=True)
    for name in arms:
        if study.arms[name].kind == "mean":
            predictions = pd.concat([predictions, average_arms(predictions, study.arms[name])])
    predictions = predictions[predictions["arm"].isin(arms)]
    order = predictions["arm"].map({name: rank for rank, name in enumerate(study.arms)})
    predictions = predictions.assign(order=order).sort_values(
        ["order", "seed", "fold", "partition", "participant_id"], ignore_index=True
    )
    return predictions[PREDICTION_COLUMNS]


def average_arms(predictions: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """Predictions of a ``mean`` arm: the mean probability of the arms it names, patient by patient."""
    parts = predictions[predictions["arm"].isin(arm.of)]
    keys = ["participant_id", "partition", "seed", "fold", "y_true"]
    grouped = parts.groupby(keys)["probability"]
    mean = grouped.mean()[grouped.count() == len(arm.of)]  # patients whom every arm scored
    return mean.reset_index().assign(arm=arm.name)[PREDICTION_COLUMNS]


def histories(tasks: list[Task]) -> pd.DataFrame:
    """Training curves of finished network tasks: arm, seed, fold, epoch, part, loss."""
    frames = []
    for task in tasks:
        if (task.folder / "history.csv").exists():
            history = storage.read_csv(task.folder / "history.csv")
            frames.append(history.assign(arm=task.arm.name, seed=task.seed, fold=task.fold))
    columns = ["arm", "seed", "fold", "epoch", "part", "loss"]
    return (
        pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    )


def _run_tasks(analysis: Analysis, cache: TensorCache | None, tasks: list[Task]) -> None:
    if tasks:
        workers.run(
            run_task,
            [(analysis, cache, task) for task in tasks],
            workers=_processes(analysis.settings),
            label="training",
            titles=[task.title for task in tasks],
        )


def _processes(settings: Settings) -> int:
    """How many tasks run at once: one on a GPU, which they would share."""
    from rlvo_lib.training import pick_device

    return 1 if pick_device(settings.device).type == "cuda" else settings.workers
