"""New patients beside the run's own, scored in one pass by the frozen models.

The development data and the new patients are put into one `Analysis` in which the new ones belong to the
test part, under identifiers with a `PREFIX`; then the functions that made the run score them. The
outcomes of the new patients are not in it: every one of them counts as without the outcome, and content
groups are those of the development data alone, so nothing that is fitted can see who was added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import experiment, storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError, Study
from rlvo_lib.experiment.cases import fitted_encoder, measured_table
from rlvo_lib.experiment.fitting import PREDICTION_COLUMNS, SCORED
from rlvo_lib.experiment.tasks import TRAINING_SETTINGS, Task
from rlvo_lib.external.arrivals import Arrivals
from rlvo_lib.external.frozen import NETWORKS, FrozenRun
from rlvo_lib.preprocess import TensorCache

PREFIX = "new:"  # before the identifiers of new patients; no BIDS identifier begins so
TOLERANCE = 1e-5  # between a probability of the run and the same one made again
KEY = ["participant_id", "partition", "arm", "seed", "fold"]
PROOF_COLUMNS = ["arm", "predictions", "largest_difference"]


@dataclass(frozen=True)
class Together(Analysis):
    """Development data with new patients in the test part, whose outcomes nobody knows."""

    development: Analysis

    @cached_property
    def y(self) -> pd.Series:
        """Outcomes of the development data; 0 for every new patient."""
        new = self.split["participant_id"]
        new = new[new.str.startswith(PREFIX)]
        return pd.concat([self.development.y, pd.Series(0, index=pd.Index(new))])

    @property
    def units(self) -> pd.Series:
        """The content groups of the development data."""
        return self.development.units


def together(run: FrozenRun, arrivals: Arrivals) -> tuple[Together, TensorCache]:
    """The run's patients and the new ones in one analysis, and their tensors in one cache."""
    own, new = run.analysis, arrivals.analysis
    ids = list(new.split["participant_id"])
    data = dataclasses.replace(
        own.dataset, table=_stacked(own.dataset.table, new.dataset.table.loc[ids])
    )
    frame = new.frame[new.frame["participant_id"].isin(ids)]
    frame = frame.assign(participant_id=PREFIX + frame["participant_id"])
    columns = ["participant_id", "included", "exclusion", "scans"]
    frame = pd.concat([own.frame[columns], frame[columns]], ignore_index=True)
    split = pd.DataFrame({"participant_id": [PREFIX + p for p in ids], "partition": "test"})
    split = pd.concat([own.split, split.reindex(columns=own.split.columns, fill_value="")])
    records = run.tensors.records | {PREFIX + p: arrivals.tensors.records[p] for p in ids}
    cache = TensorCache(
        run.tensors.folder, _stacked(run.tensors.table, arrivals.tensors.table.loc[ids]), records
    )
    analysis = Together(
        own.settings, own.dictionary, data, frame, split.reset_index(drop=True), own
    )
    return analysis, cache


def _stacked(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The second table below the first, with the first's columns and types; the ids get the prefix."""
    index = pd.Index([*first.index, *(PREFIX + p for p in second.index)], name=first.index.name)
    empty = [np.nan] * len(second)
    columns = {
        name: pd.Series(
            [*first[name], *second.get(name, empty)],
            index=index,
            dtype=first[name].dtype,
        )
        for name in first
    }
    return pd.DataFrame(columns, index=index)


def score(
    run: FrozenRun, analysis: Together, tensors: TensorCache, arms: Sequence[str]
) -> pd.DataFrame:
    """What the frozen models of some arms say of the run's own patients and of the new ones.

    Returns
    -------
    DataFrame with the columns of ``predictions.csv``: the run's held-out and test patients as in the run,
    and the new ones (with `PREFIX`) in the partition ``test``, with ``y_true`` 0 whatever it is.

    Raises
    ------
    InputError
        If a stored model is missing, damaged or of another configuration.
    """
    study = run.analysis.settings.study
    tasks = run.tasks(list(arms))
    folders = _folders(run, analysis, tensors, tasks)
    readers = {r.folder: r for task in tasks for r in task.readers}.values()
    _do([(analysis, tensors, r, folders) for r in readers], run.analysis.settings.workers)
    _do([(analysis, tensors, t, folders) for t in tasks], run.analysis.settings.workers)
    made = [storage.read_csv(folders[t.folder] / "predictions.csv") for t in tasks]
    predictions = pd.concat(made, ignore_index=True)
    for name in _parts_first(study, arms):
        arm = study.arms[name]
        if arm.kind in ("mean", "stack"):
            combine = experiment.average_arms if arm.kind == "mean" else experiment.stack_arms
            predictions = pd.concat([predictions, combine(predictions, arm)], ignore_index=True)
    predictions = predictions[predictions["arm"].isin(list(arms))].reset_index(drop=True)
    if run.analysis.settings.recalibrate:  # on the same out-of-fold predictions: the run's own line
        predictions = experiment.recalibrated(predictions)[0]
    return predictions


def _folders(
    run: FrozenRun, analysis: Together, tensors: TensorCache, tasks: Sequence[Task]
) -> dict[Path, Path]:
    """Where each task's scores are kept: a key of the task, its model as it is now, and the patients."""
    new = [p for p in analysis.split["participant_id"] if p.startswith(PREFIX)]
    patients = storage.key(
        analysis.dataset.table.loc[new].to_csv(), tensors.table.loc[new, "key"].to_list()
    )
    code = storage.code_key("external/scoring")
    folders = {}
    for task in tasks:
        for one in (*task.readers, task):
            models = [_model_digest(t) for t in (*one.readers, one)]
            key = storage.key(one.folder.name, models, patients, code)
            folders[one.folder] = (
                run.analysis.settings.cache / "applied" / f"{one.what.name}-{one.fold}-{key}"
            )
    return folders


def _model_digest(task: Task) -> str:
    path = task.folder / "model.safetensors"
    return storage.digest(path) if path.is_file() else ""


def _do(work: list[tuple], processes: int) -> None:
    """Score what is not scored yet; a few tasks in this process, as a new one costs seconds."""
    open_ = [item for item in work if not _result(item[2], item[3]).exists()]
    if open_:
        workers.run(
            score_task, open_, workers=processes, label="scoring",
            titles=[item[2].title for item in open_], spawn_from=40,
        )  # fmt: skip


def _result(task: Task, folders: dict[Path, Path]) -> Path:
    return folders[task.folder] / ("predictions.csv" if isinstance(task.what, Arm) else "reads.csv")


def _parts_first(study: Study, arms: Sequence[str]) -> list[str]:
    """The arms, each after those it is made of."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for part in study.arms[name].of:
            add(part)
        found[name] = None

    for name in arms:
        add(name)
    return list(found)


# ---------------------------------------------------------------------------------- one task


def score_task(
    analysis: Together, tensors: TensorCache, task: Task, folders: dict[Path, Path]
) -> None:
    """Score one task's patients by its stored network; what has none is made again as in the run."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the run
    try:
        if not isinstance(task.what, Arm):
            _read(analysis, tensors, task, folders)
        elif task.arm.kind in NETWORKS:
            _score_network(analysis, tensors, task, folders)
        else:
            readers = tuple(dataclasses.replace(r, folder=folders[r.folder]) for r in task.readers)
            own = dataclasses.replace(task, folder=folders[task.folder], readers=readers)
            experiment.run_task(analysis, tensors, own)
    finally:
        torch.set_num_threads(before)


def _score_network(
    analysis: Together, tensors: TensorCache, task: Task, folders: dict[Path, Path]
) -> None:
    from rlvo_lib import training

    parts, encoder = experiment.fold_encoder(analysis, tensors, task)
    scored = {part: parts[part] for part in SCORED if parts[part]}
    cases = experiment.arm_cases(analysis, tensors, task.arm, scored, encoder)
    if task.arm.offset:
        _add_offset(analysis, tensors, task, parts, cases)
    network = experiment.load_network(analysis, task, len(encoder.names) if encoder else 0)
    rows = []
    for part, ids in scored.items():
        logit = training.predict_logit(network, cases[part], analysis.settings)
        found = zip(ids, analysis.y[ids], 1 / (1 + np.exp(-logit)), strict=True)
        name = SCORED[part]
        rows += [
            (i, name, task.arm.name, task.seed, task.fold, int(y), float(p)) for i, y, p in found
        ]
    storage.write_csv(_result(task, folders), pd.DataFrame(rows, columns=PREDICTION_COLUMNS))


def _add_offset(
    analysis: Together, tensors: TensorCache, task: Task, parts: dict[str, list[str]], cases: dict
) -> None:
    """The frozen logit of another arm, by the model that was fitted on the whole training part."""
    study = analysis.settings.study
    measures = study.measures_of(study.arms[task.arm.offset].measures)
    encoder, model, _ = experiment.offset_model(analysis, tensors, task, parts)
    for name, part in cases.items():
        matrix = encoder.transform(measured_table(analysis, tensors, parts[name], measures))
        part.offset = np.asarray(model.logit(matrix), np.float32)


def _read(analysis: Together, tensors: TensorCache, task: Task, folders: dict[Path, Path]) -> None:
    """What a stored reader reads in patients it was not trained on; of the others, what it read then."""
    from rlvo_lib import concepts
    from rlvo_lib.training import Cases

    reader, settings = task.what, concepts.read_settings(analysis.settings)
    codes = concepts.ReadCodes(reader.concepts, analysis.dictionary)
    parts = experiment.fold_patients(analysis, tensors, task)
    arm = Arm(reader.name, reader.name, "mlp", measures=reader.measures)
    encoder = fitted_encoder(analysis, tensors, arm, parts)
    network = _load_reader(analysis, task, codes, len(encoder.names) if encoder else 0)
    stored = storage.read_csv(task.result)
    frames = [stored[stored["part"].isin(("train", "inner"))]]
    for name in SCORED:
        ids = parts[name]
        if not ids:
            continue
        table = measured_table(
            analysis, tensors, ids, analysis.settings.study.measures_of(reader.measures)
        )
        cases = Cases(
            image=tensors.images(ids, reader.channels, view=reader.view),
            tabular=encoder.transform(table) if encoder else None,
            y=None,
            extra=np.zeros((len(ids), 0), np.float32),  # only its length counts
        )
        reads = codes.bounded(concepts.predict_reads(network, cases, settings))
        frame = pd.DataFrame(reads, columns=codes.names)
        frame.insert(0, "participant_id", ids)
        frame.insert(1, "part", name)
        frames.append(frame)
    storage.write_csv(_result(task, folders), pd.concat(frames, ignore_index=True))


def _load_reader(analysis: Together, task: Task, codes: Any, n_measured: int) -> Any:
    """The trained network of a finished reader task, in evaluation mode."""
    from rlvo_lib import concepts, training

    reader, settings = task.what, concepts.read_settings(analysis.settings)
    study = settings.study
    grid = study.views[reader.view].shape if reader.view else settings.grid_shape
    network = concepts.ReaderNet(
        len(reader.channels),
        tuple(grid),
        n_measured=n_measured,
        n_reads=len(codes.parts),
        encoder=settings.encoder,
        base_filters=settings.base_filters,
    )
    about = {"reader": repr(reader), "grid": list(grid)} | settings.subset(*TRAINING_SETTINGS)
    training.load_model(task.folder / "model.safetensors", network, about)
    return network.eval()


# ------------------------------------------------------------------------------------- the proof


def proof(reported: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """Each arm's probabilities of the run's own patients, made again beside the new ones.

    Parameters
    ----------
    reported : ``predictions.csv`` of the run.
    made : of the same arms, by `score`; rows of new patients are left aside.

    Returns
    -------
    DataFrame with arm, predictions (compared), largest_difference.

    Raises
    ------
    InputError
        If a patient, arm, seed or fold is not in both, or a probability differs by more than
        `TOLERANCE`: then the models are not those that the run reports.
    """
    own = made[~made["participant_id"].str.startswith(PREFIX)]
    rows = []
    for arm, now in own.groupby("arm", sort=False):
        before = reported[reported["arm"] == arm].set_index(KEY)["probability"]
        after = now.set_index(KEY)["probability"]
        if not before.index.sort_values().equals(after.index.sort_values()):
            raise InputError(
                f"arm '{arm}': scores other patients, seeds or folds ({len(after)}) than the run "
                f"reports ({len(before)}); the models are not those of the run"
            )
        difference = (after - before.reindex(after.index)).abs()
        if not difference.max() <= TOLERANCE:
            patient, _, _, seed, fold = difference.idxmax()
            raise InputError(
                f"arm '{arm}', seed {seed}, fold {fold}, patient '{patient}': the run reports "
                f"{before[difference.idxmax()]:.6g}, and its models now say "
                f"{after[difference.idxmax()]:.6g} (largest difference {difference.max():.2g}); allowed: "
                f"{TOLERANCE:g}. A model, a package, the processor or the data changed since the run"
            )
        rows.append((arm, len(after), float(difference.max())))
    return pd.DataFrame(rows, columns=PROOF_COLUMNS)
