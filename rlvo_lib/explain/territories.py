"""What a lesion in each territory of an atlas does to a model, whatever else is the patient's own.

Virtual lesions (`lesions`) are shown to each fold's network with the clinical values of patients that it did not see;
models of the table are given the same volumes. What differs between territories at one size is what the model makes of
the place, beyond volume (`rlvo_lib.results.territories`). It is no effect of a lesion on patients: the models saw real
lesions, whose place goes with cause, severity and what else is hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rlvo_lib import experiment, storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, Study
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping, lesions
from rlvo_lib.explain.lesions import VirtualLesion
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.scope import asked, one_thread
from rlvo_lib.explain.tables import KINDS, TableModel, table_only
from rlvo_lib.preprocess import TensorCache
from rlvo_lib.preprocess.cache import patient_task

TERRITORY_COLUMNS = [
    "arm", "seed", "fold", "label", "territory", "side", "size_ml", "ml", "logit", "empty", "change_sd",
    "coefficient", "touched", "as_large", "n",
]  # fmt: skip
FEW = 3  # models from which processes of their own are worth it
DIGITS = 6  # significant ones of what is stored


@dataclass(frozen=True)
class _Lesions:
    """What every model is asked: L lesions and no lesion, as columns of the table and as tensors."""

    laid: tuple[VirtualLesion, ...]
    columns: tuple[str, ...]  # of the territories, by label
    volume: str
    tensors: np.ndarray | None = None  # (1 + L, C, D, H, W), the empty mask first

    def table(self, own: pd.DataFrame) -> pd.DataFrame:
        """Rows of N patients with no lesion, then with each of L: (1 + L) N rows."""
        frames = []
        for lesion in (None, *self.laid):
            values = dict.fromkeys([*self.columns, self.volume], 0.0)
            if lesion is not None:
                values |= {self.columns[lesion.label - 1]: lesion.ml, self.volume: lesion.ml}
            frames.append(own.assign(**values))
        return pd.concat(frames)


def territories_reason(analysis: Analysis, arm: Arm) -> str:
    """Why an arm cannot be explained by territories of the dataset's atlas; empty if it can."""
    study, data = analysis.settings.study, analysis.dataset
    if study.explain_atlas is None:
        return f"Study '{study.name}' names no atlas of territories ([explain.atlas])."
    if study.grid.space != "template":
        return "The scans share no standard space that an atlas could lie in."
    if not (data.root / study.explain_atlas.path).is_file():
        return (
            f"Dataset {data.name} holds no {study.explain_atlas.path}; `rlvo adapt` writes it into a "
            "dataset that it made."
        )
    for column in (*study.explain_atlas.territories, study.explain_atlas.volume):
        if column not in data.table:
            return (
                f"Dataset {data.name} has no column {column}, the volume that the atlas stands for."
            )
    if arm.kind != "cnn" or not lesions.mask_of(arm, analysis):
        return f"Arm '{arm.name}' is no network that sees a lesion mask and no other scan."
    return ""


def territory_logits(
    analysis: Analysis, cache: TensorCache, tasks: Sequence[Task], *, beside: Sequence[str] = ()
) -> pd.DataFrame:
    """The mean logit of each fold's models with a virtual lesion in each territory, and without one.

    Parameters
    ----------
    tasks : finished tasks of one arm that sees the lesion mask alone, of one or more seeds.
    beside : networks of the same channels, which are shown the same lesions, and arms of the table, which are given
        their volumes; those that see no lesion and no volume, or were not run, are left out.

    Returns
    -------
    DataFrame with `TERRITORY_COLUMNS`, a row a model, territory and size that fits; empty where
    `territories_reason` says why. logit, empty: mean over n patients that the model did not see, with the lesion
    and with none; change_sd: SD over them of the difference. coefficient: of logistic regression, log-odds per SD of
    the territory's column. touched: patients of the run whose lesion reaches into the territory; as_large: those with at least that volume
    in it. Kept in the cache.
    """
    if not tasks or territories_reason(analysis, tasks[0].arm):
        return pd.DataFrame(columns=TERRITORY_COLUMNS)
    what, key = _what(analysis, cache, tasks[0].arm)
    wanted = analysis.settings.explained_patients
    chosen = asked(analysis, cache, tasks, None, wanted, each=True)
    own = {(task.seed, task.fold): ids for task, ids in chosen}
    calls = [(analysis, cache, task, ids, what, key) for task, ids in chosen]
    others = _seeing(analysis, tasks[0].arm, beside)
    for task in experiment.plan(analysis, cache, others) if others else ():
        if (task.seed, task.fold) in own and task.done:
            shown = what if task.arm.kind == "cnn" else without_images(what)
            calls.append((analysis, cache, task, own[task.seed, task.fold], shown, key))
    known = all(_place(analysis, task, ids, key).exists() for _, _, task, ids, *_ in calls)
    frames = workers.run(
        _kept, calls, workers=analysis.settings.workers, label="territories: models",
        spawn_from=len(calls) + 1 if known else FEW,
    )  # fmt: skip
    table = pd.concat(frames, ignore_index=True)
    return _named(table, analysis)[TERRITORY_COLUMNS]


def territory_caption(territories: pd.DataFrame) -> str:
    """What the values are of, in two or three sentences."""
    models = territories.groupby("arm")[["seed", "fold"]].apply(lambda m: len(m.drop_duplicates()))
    sizes = ", ".join(f"{size:g}" for size in sorted(territories["size_ml"].unique()))
    return (
        f"A compact virtual lesion ({sizes} mL where it fits) in one territory, nothing elsewhere, the clinical values "
        f"of {territories['n'].min()} to {territories['n'].max()} patients that the model did not see: mean log-odds of "
        f"{models.max()} models an arm. Beyond volume: minus the mean over the territories at the same size. Ranges "
        "are the spread of these models (2.5 to 97.5 %), which share patients: no confidence intervals. Faint: fewer "
        "than ten patients have as much of the lesion there. It says what moves the models, not what a lesion does."
    )


def territory_teaching(study: Study, names: Sequence[str]) -> str:
    """Which of some arms learnt from which other's predictions, in a sentence; empty if none did."""
    taught = [(name, study.arms[name].teacher) for name in names if study.arms[name].teacher]
    pairs = [f"{name} was taught by {teacher}" for name, teacher in taught if teacher in names]
    return f"{', '.join(pairs)}: these agree by construction. " if pairs else ""


def _seeing(analysis: Analysis, arm: Arm, names: Sequence[str]) -> list[str]:
    """Those of some arms that see the channels of an arm, or are models of the table with a volume of the lesion."""
    study = analysis.settings.study
    seen = {study.explain_atlas.volume, *study.explain_atlas.territories}
    tables = [name for name in table_only(names, analysis) if study.arms[name].kind in KINDS[:2]]
    tables = [name for name in tables if seen & set(study.columns_of(study.arms[name]))]
    alike = [
        n for n in names if study.arms[n].kind == "cnn" and study.arms[n].channels == arm.channels
    ]
    return [name for name in names if name in tables or (name in alike and name != arm.name)]


def _what(analysis: Analysis, cache: TensorCache, arm: Arm) -> tuple[_Lesions, str]:
    """The lesions with their tensors, and a key of both."""
    settings, atlas = analysis.settings, analysis.settings.study.explain_atlas
    path = analysis.dataset.root / atlas.path
    laid = tuple(lesions.lay(*lesions.load_atlas(path, len(atlas.territories))))
    task = patient_task(analysis.dataset, settings, next(iter(cache.records)))
    scan = lesions.mask_of(arm, analysis)
    tensors = lesions.tensors_of(analysis, path, laid, task, scan)
    order = [name for name in task.channels if task.channels[name].scan == scan]
    tensors = tensors[:, [order.index(name) for name in arm.channels]]
    key = storage.key(storage.digest(path), atlas.territories, atlas.volume, _digest(tensors))
    return _Lesions(laid, atlas.territories, atlas.volume, tensors), key


def _digest(tensors: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(tensors)).hexdigest()


def without_images(what: _Lesions) -> _Lesions:
    """The same lesions without tensors, for models of the table."""
    return _Lesions(what.laid, what.columns, what.volume)


def _depends(task: Task, ids: Sequence[str], key: str) -> list:
    return [task.folder.name, list(ids), key]


def _place(analysis: Analysis, task: Task, ids: Sequence[str], key: str) -> Path:
    return keeping.path(analysis, _name(task), _depends(task, ids, key), ".csv")


def _name(task: Task) -> str:
    return f"territories-{task.arm.name}-{task.fold}"


def _kept(
    analysis: Analysis,
    cache: TensorCache,
    task: Task,
    ids: Sequence[str],
    what: _Lesions,
    key: str,
) -> pd.DataFrame:
    def make() -> pd.DataFrame:
        with one_thread():
            if task.arm.kind == "cnn":
                model = FusedModel.load(analysis, cache, task)
                return rows(task, what, network_logits(model, ids, what))
            model = TableModel.load(analysis, cache, task)
            return rows(task, what, table_logits(model, ids, what), coefficients(model, what))

    return keeping.kept_table(analysis, _name(task), _depends(task, ids, key), make)


# ------------------------------------------------------------------------------------- one model


def network_logits(model: FusedModel, participants: Sequence[str], what: _Lesions) -> np.ndarray:
    """Logits (1 + L, N) of a network: no lesion, then each of L, with N patients' clinical values."""
    table = what.table(model.analysis.dataset.table.loc[list(participants)])
    added = model.offset_of(table).reshape(-1, len(participants))
    tabular = [None] * len(what.tensors)
    if model.encoder is not None:
        encoded = torch.as_tensor(model.encoder.transform(table)).to(model.device)
        tabular = encoded.split(len(participants))
    found = np.empty(added.shape)
    with torch.inference_mode():
        for k, (tensor, own) in enumerate(zip(what.tensors, tabular, strict=True)):
            image = model.placed(torch.as_tensor(tensor[None], dtype=torch.float32))
            found[k] = _logits(model.network, image, own)
    return found + added


def _logits(network: torch.nn.Module, image: torch.Tensor, tabular: torch.Tensor | None):
    """Logits (N,), or (1,) without a table, of one image with N tabular vectors."""
    if network.trunk_needs_tabular:
        output = network(image.expand(len(tabular), *image.shape[1:]), tabular)
    else:
        features = network.trunk(image, None if tabular is None else tabular[:1])
        n = 1 if tabular is None else len(tabular)
        output = network.fuse(features.expand(n, *features.shape[1:]), tabular)
    return output[:, 0].double().cpu().numpy()


def table_logits(model: TableModel, participants: Sequence[str], what: _Lesions) -> np.ndarray:
    """Logits (1 + L, N) of a model of the table, as `network_logits`."""
    table = what.table(model.analysis.dataset.table.loc[list(participants)])
    logits = model.of_matrix(None, model.encoder.transform(table))
    return logits.reshape(-1, len(participants))


def coefficients(model: TableModel, what: _Lesions) -> dict[int, float]:
    """Of logistic regression: log-odds per SD of each territory's column, by label; else nothing."""
    coef = getattr(model.model, "coef", None)
    if coef is None:
        return {}
    names = list(model.encoder.names)
    return {
        label: float(coef[names.index(column)])
        for label, column in enumerate(what.columns, start=1)
        if column in names
    }


def rows(
    task: Task,
    what: _Lesions,
    logits: np.ndarray,
    coefficient: dict[int, float] | None = None,
) -> pd.DataFrame:
    """One model's part of `territory_logits`, without the columns that are the same for all models."""
    change = logits[1:] - logits[0]
    n = logits.shape[1]
    sd = change.std(axis=1, ddof=1) if n > 1 else np.full(len(change), np.nan)
    table = pd.DataFrame(
        {
            "label": [one.label for one in what.laid],
            "size_ml": [one.size_ml for one in what.laid],
            "ml": [one.ml for one in what.laid],
            "logit": logits[1:].mean(axis=1),
            "empty": logits[0].mean(),
            "change_sd": np.where(sd < 1e-9, 0.0, sd),  # where rounding alone differs
        }
    )
    table["coefficient"] = table["label"].map(coefficient or {}).astype(float)
    numbers = ["ml", "logit", "empty", "change_sd", "coefficient"]
    table[numbers] = table[numbers].map(lambda value: float(f"{value:.{DIGITS}g}"))
    return table.assign(arm=task.arm.name, seed=task.seed, fold=task.fold, n=n)


# ------------------------------------------------------------------------------------- territories


def _named(table: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    columns = analysis.settings.study.explain_atlas.territories
    names = [territory_name(analysis.dictionary, column) for column in columns]
    known = analysis.dataset.table.loc[analysis.y.index, list(columns)]
    touched = (known > 0).sum().to_numpy()
    place = table["label"] - 1
    as_large = [
        int((known.iloc[:, k] >= size).sum())
        for k, size in zip(place, table["size_ml"], strict=True)
    ]
    return table.assign(
        territory=[names[k][0] for k in place],
        side=[names[k][1] for k in place],
        touched=touched[place],
        as_large=as_large,
    )


def territory_name(dictionary: Dictionary, column: str) -> tuple[str, str]:
    """A territory and its side, from the label of its column: ``Lesion volume: basilar, left``."""
    words = dictionary[column].label.split(": ", 1)[-1]
    name, _, side = words.rpartition(", ")
    return (name, side) if side in ("left", "right") else (words, "")
