"""What moves the fold models in one patient: the mean over those that did not see the patient.

Everything is on the logit and kept in the cache, under what it was made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch

from rlvo_lib import experiment, explain, images, results
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping
from rlvo_lib.explain.patients import background
from rlvo_lib.explain.players import described, players_of
from rlvo_lib.explain.variables import PlayedModel, model_of, shapley_values
from rlvo_lib.preprocess import TensorCache

CLINICAL_COLUMNS = ["participant_id", "variable", "label", "text", "shap", "base", "logit"]


def clinical_values(
    analysis: Analysis, tensors: TensorCache | None, tasks: Sequence[Task], participant: str
) -> pd.DataFrame:
    """SHAP values of a patient's clinical variables, the image held at the patient's own.

    Returns
    -------
    DataFrame with `CLINICAL_COLUMNS`, a row a variable, the largest first; ``text`` is the patient's value
    in words. base + sum of shap = logit, each the mean over the models.
    """
    frames = [_shap(analysis, tensors, task, participant) for task in tasks]
    mean = pd.concat(frames).groupby("variable", sort=False)[["shap", "base", "logit"]].mean()
    players = players_of(analysis.dictionary, _columns(frames[0]["variable"]))
    mean = mean.reset_index().assign(participant_id=participant)
    mean["label"] = mean["variable"].map({player.name: player.label for player in players})
    found = described(analysis, mean)
    order = found["shap"].abs().sort_values(ascending=False, kind="stable").index
    return found.loc[order, CLINICAL_COLUMNS].reset_index(drop=True)


def _columns(variables: pd.Series) -> list[str]:
    return [column for name in variables for column in name.split("+")]


def _shap(
    analysis: Analysis, tensors: TensorCache | None, task: Task, participant: str
) -> pd.DataFrame:
    names = ("shap_background", "shap_permutations", "seed")
    depends_on = [task.folder.name, participant, analysis.settings.subset(*names)]

    def make() -> pd.DataFrame:
        with _one_thread():
            return _computed(analysis, tensors, task, participant)

    name = f"shap-{participant}-{task.arm.name}-{task.fold}"
    return keeping.kept_table(analysis, name, depends_on, make)


def _computed(
    analysis: Analysis, tensors: TensorCache | None, task: Task, participant: str
) -> pd.DataFrame:
    model, settings = model_of(analysis, tensors, task), analysis.settings
    others = background(analysis, model.training_patients)
    played = PlayedModel(model, tuple(dict.fromkeys([*others, participant])))
    held = model.image_features(participant)
    base, shap = shapley_values(
        lambda places: played.logits(held, places),
        played.places.of([participant])[0],
        played.places.of(others),
        permutations=settings.shap_permutations,
        seed=settings.seed,
    )
    logit = float(model.logit(held, model.variables.values([participant]))[0])
    names = [player.name for player in played.players]
    return pd.DataFrame({"variable": names, "shap": shap, "base": base, "logit": logit})


def image_map(
    analysis: Analysis, tensors: TensorCache, tasks: Sequence[Task], participant: str, method: str
) -> np.ndarray:
    """The mean map (D, H, W) float32 of a method, in the method's unit, on the tensor's grid."""
    if method not in explain.METHODS:
        raise InputError(f"method is '{method}'; allowed: {', '.join(explain.METHODS)}")
    return np.mean([_map(analysis, tensors, t, participant, method) for t in tasks], axis=0)


def _map(
    analysis: Analysis, tensors: TensorCache, task: Task, participant: str, method: str
) -> np.ndarray:
    key = tensors.table.at[participant, "key"]
    depends_on = [task.folder.name, key, analysis.settings.subset("shap_background", "seed")]

    def make() -> np.ndarray:
        with _one_thread():
            model = explain.FusedModel.load(analysis, tensors, task)
            return explain.attribute(model, [participant], method)[0]

    name = f"case-{method}-{participant}-{task.arm.name}-{task.fold}"
    return keeping.kept_array(analysis, name, depends_on, make)


def on_scan(
    analysis: Analysis, tensors: TensorCache, participant: str, values: np.ndarray
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """A map on the grid of one of the patient's scans: the scan's name, its voxels, the map, the affine.

    The study's background scan where the patient has it, else the first scan that is no mask, else the first.
    """
    study, record = analysis.settings.study, tensors.records[participant]
    plain = [name for name in record["scans"] if study.scans[name].kind != "mask"]
    wanted = [study.explain_background, *plain, *record["scans"]]
    scan = next(name for name in wanted if name in record["scans"])
    voxels, affine, _ = images.load_scan(
        analysis.dataset.scan(participant, scan), study.scans[scan]
    )
    native, _ = tensors.to_native(participant, values, scan)
    return scan, voxels, native, affine


def modality_values(
    analysis: Analysis, tensors: TensorCache, tasks: Sequence[Task], participant: str
) -> pd.DataFrame:
    """Shapley values of a patient's modalities, as `results.modality_values`."""
    logits = explain.modality_logits(analysis, tensors, list(tasks), [participant])
    return results.modality_values(logits)


def concept_values(
    analysis: Analysis, tensors: TensorCache | None, arm: str, participant: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A patient's reads with what each adds, and the probabilities had a read been different.

    As `results.reads_of_patients` and `results.what_if_of_patients`, of the fold models of an arm of concepts
    that did not see the patient.

    Raises
    ------
    InputError
        If no model of the arm can be asked about the patient.
    """
    tasks = experiment.plan(analysis, tensors, [arm])
    if not all(task.done for task in tasks):
        raise InputError(
            f"arm '{arm}' has no finished models in the cache; allowed: one that was run"
        )
    reads, what_if = explain.concept_reads(analysis, tensors, tasks, [participant])
    return results.reads_of_patients(reads), results.what_if_of_patients(what_if)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that the same patient gives the same page; the number before comes back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
