"""Gradient-boosted trees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvo_lib.baselines.tuning import (
    as_matrix,
    as_outcome,
    by_loss,
    inner_folds,
    log_loss,
    two_columns,
)

#: Depth and L2 penalty of the trees; the number of trees is tuned with them.
GRID_TREES = ((1, 1.0), (2, 20.0), (3, 10.0))
GRID_ITERATIONS = (10, 20, 40, 80, 160)
LEARNING_RATE = 0.05


@dataclass(frozen=True)
class Boosted:
    """Gradient-boosted trees of each depth, with the weight of each number of trees.

    weights : (len(GRID_TREES), len(GRID_ITERATIONS)), of sum 1.
    """

    models: list
    weights: np.ndarray

    def logit(self, matrix: np.ndarray) -> np.ndarray:
        """The logits (N,) of a matrix (N, P)."""
        matrix = np.asarray(matrix, float)
        stages = np.array([_stages(model, matrix) for model in self.models])
        return np.einsum("ts,tsn->n", self.weights, stages)

    def predict_proba(self, matrix: np.ndarray) -> np.ndarray:
        """The probabilities (N, 2)."""
        return two_columns(self.logit(matrix))


def fit_boosting(
    matrix: np.ndarray, y: np.ndarray, *, seed: int, groups: np.ndarray | None = None
) -> Boosted:
    """Histogram gradient boosting, averaged over depths and numbers of trees by how well each cross-validates.

    Logits are averaged with the weights of `fit_logistic`: on simulated cohorts the AUC is 0.006 to
    0.011 higher than with the best configuration, the log loss lower by 0.001. Stages of one long fit
    are shorter fits, so the number of trees costs nothing to tune.

    Parameters
    ----------
    matrix : (N, P).

    Raises
    ------
    InputError
        If the outcome has one class only, or a value is not finite.
    """
    matrix = as_matrix(matrix)
    y = as_outcome(y, len(matrix))
    fold = inner_folds(y, seed=seed, groups=groups)
    weights = np.zeros((len(GRID_TREES), len(GRID_ITERATIONS)))
    weights[0, 1] = 1.0  # if nothing can be tuned: twenty stumps
    if len(fold):
        loss = np.zeros_like(weights)
        for row, tree in enumerate(GRID_TREES):
            for k in range(fold.max() + 1):
                out = fold == k
                model = _trees(*tree, seed).fit(matrix[~out], y[~out])
                loss[row] += log_loss(y[out], _stages(model, matrix[out]))
        weights = by_loss(loss)
    return Boosted([_trees(*tree, seed).fit(matrix, y) for tree in GRID_TREES], weights)


def _trees(depth: int, l2: float, seed: int):
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=GRID_ITERATIONS[-1], learning_rate=LEARNING_RATE, max_depth=depth, min_samples_leaf=20,
        l2_regularization=l2, early_stopping=False, random_state=seed,
    )  # fmt: skip


def _stages(model, matrix: np.ndarray) -> np.ndarray:
    """The logits (len(GRID_ITERATIONS), N) after so many trees."""
    stages = list(model.staged_decision_function(matrix))
    return np.array([np.ravel(stages[n - 1]) for n in GRID_ITERATIONS])
