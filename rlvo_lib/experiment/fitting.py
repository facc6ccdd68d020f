"""How one task is done: its patients as arrays, a model for its kind, and the probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rlvo_lib import storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError, Reader, Settings
from rlvo_lib.experiment.cases import (
    Parts,
    content_groups,
    fitted_encoder,
    fold_cases,
    fold_encoder,
    measured_table,
)
from rlvo_lib.experiment.tasks import TRAINING_SETTINGS, Task, fold_patients
from rlvo_lib.preprocess import TensorCache

if TYPE_CHECKING:
    from torch import nn

    from rlvo_lib.tabular import TabularEncoder
    from rlvo_lib.training import Cases

PREDICTION_COLUMNS = ["participant_id", "partition", "arm", "seed", "fold", "y_true", "probability"]
SCORED = {"held_out": "out-of-fold", "test": "test"}


# ------------------------------------------------------------------------------------- networks


def network_scans(settings: Settings, arm: Arm) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    """The channels of each modality by their places, or None where all are stacked.

    Perfusion maps are one modality: an arm's channels whose scans are maps of one folder belong together.
    """
    if settings.encoder_inputs == "stacked" or len(arm.channels) < 2:
        return None
    if settings.encoder_inputs == "shared":  # one weight for all: a scan is one channel
        return tuple((name, (k,)) for k, name in enumerate(arm.channels))
    study, groups = settings.study, {}
    for k, name in enumerate(arm.channels):
        scan = study.channels[name].scan
        kind = "maps" if study.scans[scan].kind == "map" else scan
        groups.setdefault(kind, []).append(k)
    return tuple((name, tuple(places)) for name, places in groups.items())


def build_network(settings: Settings, arm: Arm, n_tabular: int) -> nn.Module:
    """The untrained network of a ``cnn`` or ``mlp`` arm for P tabular columns."""
    from rlvo_lib import fusion

    if arm.kind == "mlp":
        return fusion.TabularNet(n_tabular)
    outputs = 1
    if settings.auxiliary_weight:
        from rlvo_lib import dictionary
        from rlvo_lib.concepts import ReadCodes

        words = dictionary.load(settings.study.dictionary_path)
        outputs += len(ReadCodes(tuple(settings.study.concepts), words).parts)
    scans = network_scans(settings, arm)
    return fusion.build_model(
        fusion=arm.fusion,
        encoder=settings.encoder,
        in_channels=len(arm.channels),
        n_tabular=n_tabular,
        n_outputs=outputs,
        base_filters=settings.base_filters,
        pooling=settings.pooling,
        location=settings.fusion_location,
        scale=settings.fusion_scale,
        shift=settings.fusion_shift,
        activation=settings.fusion_activation,
        identity_start=settings.fusion_identity_start,
        scans=scans,
        share_weights=scans is not None and settings.encoder_inputs == "shared",
        flags=settings.absent == "flag",
    )


def _about(settings: Settings, task: Task, n_tabular: int) -> dict[str, Any]:
    """What a stored network must agree with to be loaded."""
    names = ("kind", "fusion", "channels", "offset", "teacher")
    arm = {name: getattr(task.arm, name) for name in names}
    return arm | {"n_tabular": n_tabular} | settings.subset(*TRAINING_SETTINGS)


def load_network(analysis: Analysis, task: Task, n_tabular: int) -> nn.Module:
    """The trained network of a finished ``cnn`` or ``mlp`` task, on the CPU, in evaluation mode."""
    from rlvo_lib import training

    path = task.folder / "model.safetensors"
    if not path.exists():
        raise InputError(f"arm '{task.arm.name}', fold {task.fold}: no stored model; run it first")
    network = build_network(analysis.settings, task.arm, n_tabular)
    training.load_model(path, network, _about(analysis.settings, task, n_tabular))
    return network.eval()


# ----------------------------------------------------------------------------------------- tasks


def run_task(analysis: Analysis, cache: TensorCache | None, task: Task) -> None:
    """Fit one task and write its folder: model, history where there is one, then its result."""
    import torch

    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    if isinstance(task.what, Reader):
        _run_reader(analysis, cache, task)
        return
    runs = {"cnn": _run_network, "mlp": _run_network, "concepts": _run_concepts}
    parts, probability = runs.get(task.arm.kind, _run_baseline)(analysis, cache, task)
    rows = []
    for part, name in SCORED.items():
        ids = parts[part]
        for participant, y, p in zip(ids, analysis.y[ids], probability.get(part, ()), strict=True):
            rows.append((participant, name, task.arm.name, task.seed, task.fold, int(y), float(p)))
    storage.write_csv(task.result, pd.DataFrame(rows, columns=PREDICTION_COLUMNS))


def _seed(task: Task) -> int:
    return task.seed * 1000 + task.fold


def _run_network(
    analysis: Analysis, cache: TensorCache | None, task: Task
) -> tuple[Parts, dict[str, np.ndarray]]:
    from rlvo_lib import training

    settings = analysis.settings
    parts, cases = fold_cases(analysis, cache, task)
    if task.arm.offset:
        _add_offset(analysis, cache, task, parts, cases)
    if task.arm.teacher:
        _add_teacher(analysis, cache, task, parts, cases)
    training.seed_everything(_seed(task))
    tabular = cases["train"].tabular
    n_tabular = 0 if tabular is None else tabular.shape[1]
    network = build_network(settings, task.arm, n_tabular)
    if cases["train"].image is not None:
        network.encoder.set_scale(*training.image_scale(cases["train"].image))
    _fit(task, network, cases, settings, scans=network_scans(settings, task.arm))
    about = _about(settings, task, n_tabular)
    training.save_model(task.folder / "model.safetensors", network.cpu(), about)
    return parts, _scored(network, cases, settings)


def _fit(task: Task, network: nn.Module, cases: dict[str, Cases], settings: Settings, **more):
    from rlvo_lib import training

    try:
        history = training.fit(
            network, cases["train"], cases["inner"], settings, seed=_seed(task), **more
        )
    except InputError as error:
        raise InputError(f"{task.title}: {error}") from error
    storage.write_csv(task.folder / "history.csv", history)


def _scored(
    network: nn.Module, cases: dict[str, Cases], settings: Settings
) -> dict[str, np.ndarray]:
    """Probabilities of the parts that are scored."""
    from rlvo_lib import training

    scored = [part for part in SCORED if part in cases]
    logits = {part: training.predict_logit(network, cases[part], settings) for part in scored}
    return {part: 1 / (1 + np.exp(-values)) for part, values in logits.items()}


def _add_offset(
    analysis: Analysis,
    cache: TensorCache | None,
    task: Task,
    parts: Parts,
    cases: dict[str, Cases],
) -> None:
    """The frozen logit of another arm, for training patients by models that did not see them."""
    other = analysis.settings.study.arms[task.arm.offset]
    measures = analysis.settings.study.measures_of(other.measures)
    encoder, model, logits = offset_model(analysis, cache, task, parts)
    n = len(parts["train"])
    found = {"train": logits[:n], "inner": logits[n:]}
    for name, part in cases.items():
        if name not in found:
            matrix = encoder.transform(measured_table(analysis, cache, parts[name], measures))
            found[name] = model.logit(matrix)
        part.offset = np.asarray(found[name], np.float32)


def _add_teacher(
    analysis: Analysis,
    cache: TensorCache | None,
    task: Task,
    parts: Parts,
    cases: dict[str, Cases],
) -> None:
    """A teacher's probabilities of the patients learnt from, by models that did not see them."""
    other, n = analysis.settings.study.arms[task.arm.teacher], len(parts["train"])
    *_, logits = _cross_fitted(analysis, cache, task, parts, other)
    probability = np.asarray(1 / (1 + np.exp(-logits)), np.float32)
    cases["train"].taught, cases["inner"].taught = probability[:n], probability[n:]


def offset_model(
    analysis: Analysis, cache: TensorCache | None, task: Task, parts: Parts
) -> tuple[TabularEncoder, Any, np.ndarray]:
    """Encoder and model of the offset's arm, and logits of train + inner by models that did not see them."""
    other = analysis.settings.study.arms[task.arm.offset]
    return _cross_fitted(analysis, cache, task, parts, other)


def _cross_fitted(
    analysis: Analysis, cache: TensorCache | None, task: Task, parts: Parts, other: Arm
) -> tuple[TabularEncoder, Any, np.ndarray]:
    """Encoder and model of a baseline on train + inner, and their logits by models that did not see them."""
    from rlvo_lib import baselines

    ids = parts["train"] + parts["inner"]
    encoder = fitted_encoder(analysis, cache, other, parts)
    table = measured_table(
        analysis, cache, ids, analysis.settings.study.measures_of(other.measures)
    )
    logits, model = baselines.cross_fitted_logit(
        other.kind,
        encoder.transform(table),
        analysis.y[ids].to_numpy(float),
        seed=task.seed,
        groups=content_groups(analysis, ids),
    )
    return encoder, model, logits


def _run_baseline(
    analysis: Analysis, cache: TensorCache | None, task: Task
) -> tuple[Parts, dict[str, np.ndarray]]:
    from rlvo_lib import baselines

    parts, cases = fold_cases(analysis, cache, task)
    voxels = task.arm.kind == "ridge"
    x = {name: part.image if voxels else part.tabular for name, part in cases.items()}
    ids = parts["train"] + parts["inner"]
    if voxels:  # a patient at a time where they do not fit in memory
        known = cache.images(ids, task.arm.channels)
    else:
        known = np.concatenate([x["train"], x["inner"]])
    model = baselines.fit_baseline(
        "ridge_voxels" if voxels else task.arm.kind,
        known,
        analysis.y[ids].to_numpy(float),
        seed=task.seed,
        groups=content_groups(analysis, ids),
    )
    scored = [part for part in SCORED if part in cases]
    return parts, {part: model.predict_proba(x[part])[:, 1] for part in scored}


# -------------------------------------------------------------------------------------- concepts


def _run_reader(analysis: Analysis, cache: TensorCache | None, task: Task) -> None:
    """Train a reader on the fold's training part; write what it reads in every patient of the fold."""
    from rlvo_lib import concepts, training
    from rlvo_lib.training import Cases

    reader, study = task.what, analysis.settings.study
    settings = concepts.read_settings(analysis.settings)
    codes = concepts.ReadCodes(reader.concepts, analysis.dictionary)
    parts = fold_patients(analysis, cache, task)
    arm = Arm(reader.name, reader.name, "mlp", measures=reader.measures)  # scales: training part
    encoder = fitted_encoder(analysis, cache, arm, parts)
    cases = {}
    for name, ids in parts.items():
        if not ids:
            continue
        table = measured_table(analysis, cache, ids, study.measures_of(reader.measures))
        cases[name] = Cases(
            image=cache.images(ids, reader.channels, view=reader.view),
            tabular=encoder.transform(table) if encoder else None,
            y=None,
            extra=codes.of_table(table) if name in ("train", "inner") else None,
        )
    training.seed_everything(_seed(task))
    grid = study.views[reader.view].shape if reader.view else settings.grid_shape
    network = concepts.ReaderNet(
        len(reader.channels),
        tuple(grid),
        n_measured=len(encoder.names) if encoder else 0,
        n_reads=len(codes.parts),
        encoder=settings.encoder,
        base_filters=settings.base_filters,
    )
    network.encoder.set_scale(*training.image_scale(cases["train"].image))
    network.set_targets(cases["train"].extra)
    _fit(task, network, cases, settings)
    frames = []
    for name, part in cases.items():
        part.extra = np.zeros((len(parts[name]), 0), np.float32)  # only its length counts
        reads = codes.bounded(concepts.predict_reads(network, part, settings))
        frame = pd.DataFrame(reads, columns=codes.names)
        frame.insert(0, "participant_id", parts[name])
        frame.insert(1, "part", name)
        frames.append(frame)
    about = {"reader": repr(reader), "grid": list(grid)} | settings.subset(*TRAINING_SETTINGS)
    training.save_model(task.folder / "model.safetensors", network.cpu(), about)
    storage.write_csv(task.result, pd.concat(frames, ignore_index=True))


def reads_of(analysis: Analysis, task: Task) -> tuple[Any, pd.DataFrame]:
    """The `ReadCodes` of the readers an arm is built on, and their reads, one row a patient."""
    from rlvo_lib.concepts import ReadCodes

    columns = tuple(c for one in task.readers for c in one.what.concepts)
    codes = ReadCodes(columns, analysis.dictionary)
    frames = [
        storage.read_csv(one.result).drop(columns="part").set_index("participant_id")
        for one in task.readers
    ]
    return codes, pd.concat(frames, axis=1)[codes.names]


def fit_concepts(analysis: Analysis, cache: TensorCache | None, task: Task):
    """The fitted `Bottleneck` of a concepts arm, its parts, and for each the reads and clinical columns."""
    from rlvo_lib.concepts import Bottleneck

    parts, encoder = fold_encoder(analysis, cache, task)
    codes, reads = reads_of(analysis, task)
    measures = analysis.settings.study.measures_of(task.arm.measures)
    clinical = {
        name: encoder.transform(measured_table(analysis, cache, ids, measures))
        if encoder and ids
        else None
        for name, ids in parts.items()
    }
    guessed = {name: reads.loc[ids].to_numpy(float) for name, ids in parts.items()}
    ids = parts["train"] + parts["inner"]
    recorded = codes.of_table(analysis.dataset.table.loc[ids])
    model = Bottleneck(codes, task.seed).fit(
        recorded,
        np.concatenate([guessed["train"], guessed["inner"]]),
        np.concatenate([clinical["train"], clinical["inner"]]) if encoder else None,
        analysis.y[ids].to_numpy(float),
        content_groups(analysis, ids),
    )
    return model, parts, guessed, clinical


def _run_concepts(
    analysis: Analysis, cache: TensorCache | None, task: Task
) -> tuple[Parts, dict[str, np.ndarray]]:
    model, parts, guessed, clinical = fit_concepts(analysis, cache, task)
    if task.arm.fusion == "daft":
        if clinical["train"] is None:
            raise InputError(f"arm '{task.arm.name}': fusion daft needs predictors; it has none")
        return parts, _concept_daft(analysis, task, model, parts, guessed, clinical)
    scored = [part for part in SCORED if parts[part]]
    return parts, {part: model.predict(guessed[part], clinical[part]) for part in scored}


def _concept_daft(
    analysis: Analysis, task: Task, model: Any, parts: Parts, guessed: dict, clinical: dict
) -> dict[str, np.ndarray]:
    """DAFT on the reads: recorded ones in training, guesses where they lack and for everybody else."""
    from rlvo_lib import training
    from rlvo_lib.concepts import ConceptDaft
    from rlvo_lib.training import Cases

    cases = {}
    for name, ids in parts.items():
        if not ids:
            continue
        reads = guessed[name]
        if name in ("train", "inner"):
            recorded = model.codes.of_table(analysis.dataset.table.loc[ids])
            reads = np.where(np.isnan(recorded), reads, recorded)
        tabular = np.concatenate([model.standardised(reads), clinical[name]], axis=1)
        cases[name] = Cases(None, tabular.astype(np.float32), analysis.y[ids].to_numpy(float))
    training.seed_everything(_seed(task))
    network = ConceptDaft(len(model.codes.parts), clinical["train"].shape[1])
    _fit(task, network, cases, analysis.settings)
    return _scored(network, cases, analysis.settings)
