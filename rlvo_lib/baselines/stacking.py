"""Stacking: one probability from those of several arms."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from rlvo_lib.baselines.tuning import as_logits, as_outcome, log_loss, two_columns
from rlvo_lib.config import InputError


class Stack:
    """Stacking: a logistic regression on the logits of K arms, with weights >= 0 near equal ones.

    logit = a + sum_k w_k logit_k, where a and w minimise log loss + penalty x sum_k (w_k - 1/K)² / 2.
    Weights below 0 would reward an arm for being wrong. K free weights are too many for some sixty events when
    the arms are alike; the prior says "the mean of the logits" with a standard deviation of 1/2 a weight
    (penalty 4), and data move it from there (Breiman, Mach. Learn. 1996, for the constraint). Fit it on
    probabilities of patients whom the arms did not see.
    """

    def __init__(self, *, penalty: float = 4.0) -> None:
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
            wrong, away = expit(score) - y, b[1:] - equal
            gradient = np.concatenate([[wrong.sum()], logits.T @ wrong + self.penalty * away])
            return log_loss(y, score) + self.penalty * (away @ away) / 2, gradient

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
