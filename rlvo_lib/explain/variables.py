"""SHAP values of the clinical variables (being rebuilt)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rlvo_lib import storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.experiment import Task
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.patients import chosen as _chosen_patients
from rlvo_lib.preprocess import TensorCache

SHAP_COLUMNS = [
    "participant_id", "arm", "seed", "fold", "variable", "value", "shap", "base", "logit",
]  # fmt: skip


def _chosen(analysis, setting, task, cache):
    return _chosen_patients(analysis, cache, task, getattr(analysis.settings, setting))


def shap_of_folds(analysis: Analysis, cache: TensorCache | None, tasks: list[Task]) -> pd.DataFrame:
    """`shap_values` of several fold models, one after the other in the frame."""
    calls = [(analysis, cache, task) for task in tasks]
    known = all(_shap_path(*call).exists() for call in calls)
    frames = workers.run(
        shap_values, calls, workers=analysis.settings.workers, label="SHAP values: folds",
        spawn_from=len(calls) + 1 if known else 1,
    )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def shap_caption(shap: pd.DataFrame, y: pd.Series) -> str:
    """What the SHAP values are of, in a sentence: how many patients, how chosen, which models."""
    patients = shap["participant_id"].unique()
    n_models = int(shap.groupby("participant_id")["fold"].nunique().max())
    models = f"{n_models} fold models" if n_models > 1 else "fold model"
    return (
        f"SHAP values (log-odds) of the clinical variables of {shap['arm'].iloc[0]}, mean over "
        f"the {models} that did not see the patient: {len(patients)} patients, of whom "
        f"{int(y[patients].sum())} with the outcome (drawn to be up to half); intervals over these "
        "patients."
    )


def shap_values(analysis: Analysis, cache: TensorCache | None, task: Task) -> pd.DataFrame:
    """SHAP values of the clinical variables of one fold model, for patients it did not see.

    Estimator: shap's PermutationExplainer. Background: training patients drawn with the run's seed,
    of whom only the clinical variables are used. Base value plus SHAP values gives the logit
    (checked to 1e-3).

    Returns
    -------
    DataFrame with `SHAP_COLUMNS`; one row a patient and variable. ``value`` is the table's code or
    quantity, NaN where missing.
    """
    path = _shap_path(analysis, cache, task)
    with storage.lock(path):
        if not path.exists():
            storage.write_csv(path, _compute_shap(analysis, cache, task))
    return storage.read_csv(path)


def _shap_path(analysis: Analysis, cache: TensorCache | None, task: Task) -> Path:
    key = storage.key(
        task.folder.name, _chosen(analysis, "explained_patients", task, cache),
        analysis.settings.subset("shap_background", "shap_permutations", "seed"), storage.code_key("explain"),
    )  # fmt: skip
    folder = analysis.settings.cache / "explanations"
    return folder / f"shap-{task.arm.name}-{task.fold}-{key}.csv"


def _compute_shap(analysis: Analysis, cache: TensorCache | None, task: Task) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shap's own imports
        import shap

    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    model = FusedModel.load(analysis, cache, task)
    chosen = _chosen(analysis, "explained_patients", task, cache)
    rng = np.random.default_rng(analysis.settings.seed)
    pool = model.training_patients
    background = sorted(rng.choice(pool, min(len(pool), analysis.settings.shap_background), False))
    masker = shap.maskers.Independent(
        model.variables.values(background), max_samples=len(background)
    )
    rows = []
    for participant in chosen:
        features = model.image_features(participant)

        def logit(players: np.ndarray, features: Tensor | None = features) -> np.ndarray:
            return model.logit(features, players)

        explainer = shap.PermutationExplainer(logit, masker, seed=analysis.settings.seed)
        own = model.variables.values([participant])
        result = explainer(
            own, max_evals=analysis.settings.shap_permutations * (2 * own.shape[1] + 1), silent=True
        )
        base, values = float(np.ravel(result.base_values)[0]), result.values[0]
        predicted = float(logit(own)[0])
        if abs(base + values.sum() - predicted) > 1e-3:
            raise RuntimeError(f"SHAP values of {participant} do not add up to the logit")
        for name, value, contribution in zip(model.columns, own[0], values, strict=True):
            rows.append(
                (
                    participant,
                    task.arm.name,
                    task.seed,
                    task.fold,
                    name,
                    value,
                    contribution,
                    base,
                    predicted,
                )
            )
    return pd.DataFrame(rows, columns=SHAP_COLUMNS)
