"""Stacking: one probability from those of several arms."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from rlvo_lib.baselines.tuning import as_logits, as_outcome, log_loss, two_columns
from rlvo_lib.config import InputError

#: Keeps weights finite where the arms separate the outcomes: a penalty towards 1/K each.
WEAK = 0.01


class Stack:
    """Stacking: a logistic regression on the logits of K arms, with weights >= 0 that are nearly equal.

    logit = a + sum_k w_k logit_k, where a and w minimise log loss + penalty x sum_k (w_k - mean w)² / 2.
    The common slope is free, so the mean of the logits is recalibrated; how arms differ in weight is
    shrunk, since K free weights are too many for some sixty events. Weights below 0 would reward an
    arm for being wrong (Breiman, Mach. Learn. 1996, for the constraint). Fit it on probabilities of
    patients whom the arms did not see. On simulated cohorts penalties of 16 and more are alike; below,
    the AUC falls by up to 0.005.
    """

    def __init__(self, *, penalty: float = 16.0) -> None:
        if not penalty > 0:
            raise InputError(f"penalty is {penalty}; allowed: above 0")
        self.penalty = penalty
        self.intercept, self.weights = 0.0, np.empty(0)

    def fit(self, probabilities: np.ndarray, y: np.ndarray) -> Stack:
        """Learn intercept and weights (K,) from probabilities (N, K) and outcomes (N,)."""
        from scipy.optimize import minimize

        logits = as_logits(probabilities)
        y = as_outcome(y, len(logits))
        k = logits.shape[1]
        equal = np.full(k, 1 / k)

        def objective(b: np.ndarray) -> tuple[float, np.ndarray]:
            score = b[0] + logits @ b[1:]
            wrong, away = expit(score) - y, b[1:] - b[1:].mean()
            off = b[1:] - equal
            slope = logits.T @ wrong + self.penalty * away + WEAK * off
            value = log_loss(y, score) + (self.penalty * (away @ away) + WEAK * (off @ off)) / 2
            return value, np.concatenate([[wrong.sum()], slope])

        found = minimize(
            objective, np.concatenate([[0.0], equal]), jac=True, method="L-BFGS-B",
            bounds=[(None, None)] + [(0, None)] * k, options={"ftol": 1e-13, "gtol": 1e-8},
        )  # fmt: skip
        self.intercept, self.weights = float(found.x[0]), found.x[1:]
        return self

    def logit(self, probabilities: np.ndarray) -> np.ndarray:
        """The stacked logits (N,) of probabilities (N, K)."""
        logits = as_logits(probabilities)
        if logits.shape[1] != len(self.weights):
            raise InputError(
                f"probabilities of {logits.shape[1]} arms; the stack was fitted on {len(self.weights)}"
            )
        return self.intercept + logits @ self.weights

    def predict(self, probabilities: np.ndarray) -> np.ndarray:
        """The stacked probabilities (N,)."""
        return expit(self.logit(probabilities))

    def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
        """The stacked probabilities (N, 2)."""
        return two_columns(self.logit(probabilities))
