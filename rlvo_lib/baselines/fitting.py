"""Baselines by the name of their kind, and their cross-fitted logits."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rlvo_lib.baselines.boosting import fit_boosting
from rlvo_lib.baselines.logistic import fit_logistic
from rlvo_lib.baselines.tuning import FOLDS, as_outcome, inner_folds
from rlvo_lib.baselines.voxels import fit_ridge_voxels
from rlvo_lib.config import InputError


class Predictor(Protocol):
    """What every baseline can do."""

    def logit(self, x: np.ndarray) -> np.ndarray:
        """The logits (N,)."""
        ...

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """The probabilities (N, 2) of outcome 0 and 1, as scikit-learn orders them."""
        ...


def fit_baseline(
    kind: str,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seed: int,
    groups: np.ndarray | None = None,
) -> Predictor:
    """A fitted baseline of a kind: ``logistic``, ``boosting`` (matrix) or ``ridge_voxels`` (image).

    Raises
    ------
    InputError
        For another kind, or data that it cannot be fitted on.
    """
    fits = {"logistic": fit_logistic, "boosting": fit_boosting, "ridge_voxels": fit_ridge_voxels}
    if kind not in fits:
        raise InputError(f"baseline '{kind}' is not known; allowed: {', '.join(fits)}")
    return fits[kind](x, y, seed=seed, groups=groups)


def cross_fitted_logit(
    kind: str,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seed: int,
    groups: np.ndarray | None = None,
    folds: int = FOLDS,
) -> tuple[np.ndarray, Predictor]:
    """Logits (N,) of training patients by models that did not see them, and the model of all.

    The frozen offset of a network: in training it must be as uninformed about a patient as the model
    of all will be about a new one.

    Raises
    ------
    InputError
        As `fit_baseline`, and if two folds with both outcomes are not possible.
    """
    x, y = np.asarray(x), as_outcome(y, len(x))
    fold = inner_folds(y, seed=seed, groups=groups, folds=folds)
    if not len(fold):
        raise InputError(
            f"{int(y.sum())} events among {len(y)} patients; cross-fitting needs two groups of patients "
            "with an event and two without"
        )
    found = np.empty(len(y))
    for k in range(fold.max() + 1):
        rest = fold != k
        own = None if groups is None else np.asarray(groups)[rest]
        model = fit_baseline(kind, x[rest], y[rest], seed=seed, groups=own)
        found[~rest] = model.logit(x[~rest])
    return found, fit_baseline(kind, x, y, seed=seed, groups=groups)
