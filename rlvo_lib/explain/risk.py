"""What the outcome of a simulated patient truly depends on: their risk, and what can be seen of it.

Two risks of one patient, both between 0 and 1 and both in the pool that a cohort is selected from:

- `true_risk`: every latent held, the procedure drawn again and again. Only what acts on the procedure
  moves it: a stenosis elsewhere does not.
- `seen_risk`: what the best predictor that knows every visible latent, but not the cause of the stroke,
  would say. A stenosis elsewhere moves it, because it makes another cause likelier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib.simulate import ceiling, patients, scenarios

#: Procedures drawn for each patient, and patients that the knowing predictor is fitted on.
DRAWS, FITTED_ON = 20_000, 60_000


class _Common(np.random.Generator):
    """A generator whose Poisson numbers use one uniform each, so that the draws after them stay in step."""

    def poisson(self, lam: np.ndarray) -> np.ndarray:
        lam = np.asarray(lam, float)
        u = self.random(lam.shape)
        count, term = np.zeros(lam.shape, int), np.exp(-lam)
        below = term.copy()
        while (more := (u > below) & (term > 0)).any():
            count += more
            term = term * lam / np.maximum(count, 1)
            below = np.where(more, below + term, below)
        return count


def drawn_labels(
    latents: Mapping[str, Any], scenario: str, *, draws: int = DRAWS, seed: int = 2025
) -> np.ndarray:
    """Outcomes (draws,) bool of one patient treated again and again, all latents held.

    With the same seed two sets of latents meet the same chance (common random numbers), so the standard
    error of a difference is that of the paired differences. In a scenario whose outcome is another
    patient's, the outcomes are those of others drawn from the pool.
    """
    plan = scenarios.named(scenario)
    rng = _Common(np.random.PCG64(np.random.SeedSequence([seed, 2])))
    if plan.outcome_of_another:
        return patients.draw_latents(draws, rng, scenario)["rlvo"].to_numpy() == 1
    held = {name: np.broadcast_to(value, draws) for name, value in latents.items()}
    return patients._procedure(held, rng, plan.index)["rlvo"] == 1


def true_risk(
    before: Mapping[str, Any], after: Mapping[str, Any], scenario: str, **options: Any
) -> tuple[float, float, float]:
    """The true risk of two sets of latents of one patient, and the standard error of their difference."""
    first, second = (drawn_labels(one, scenario, **options) for one in (before, after))
    change = second.astype(float) - first
    return float(first.mean()), float(second.mean()), float(change.std(ddof=1) / len(change) ** 0.5)


def seen_risk(
    latents: pd.DataFrame,
    scenario: str,
    *,
    sees: str = "all",
    fitted_on: int = FITTED_ON,
    seed: int = 2025,
) -> np.ndarray:
    """What the knowing predictor says of patients (N rows of latents): (N,) in 0..1.

    A mixture over the true aetiologies, P(aetiology | seen) P(outcome | aetiology, seen), each a logistic
    regression on the visible latents of very many patients; one regression where an index decides
    (`simulate.ceiling`).

    Parameters
    ----------
    sees : what the predictor is shown: "all", "imaging", "clinical" or a modality (`ceiling.visible`).
    """
    plan = scenarios.named(scenario)
    pool = patients.draw_latents(fitted_on, np.random.default_rng([seed, 3]), scenario)
    whole = pd.concat([latents[pool.columns], pool], ignore_index=True)
    matrix, _ = ceiling.features(sees, whole, plan)
    known = matrix[len(latents) :]
    varies = known.std(axis=0) > 1e-9
    matrix = (matrix - known.mean(axis=0))[:, varies] / known.std(axis=0)[varies]
    causes = pool["etiology_code"].to_numpy()
    if plan.index is not None or plan.outcome_of_another:
        causes = np.zeros(fitted_on, int)
    return _mixture(matrix[len(latents) :], causes, pool["rlvo"].to_numpy(), matrix[: len(latents)])


def _mixture(x: np.ndarray, causes: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """P(outcome) at the features z, summed over the causes that the patients of x have."""
    from sklearn.linear_model import LogisticRegression

    def fitted(x: np.ndarray, target: np.ndarray) -> np.ndarray:
        model = LogisticRegression(solver="newton-cholesky", max_iter=100)
        return model.fit(x, target).predict_proba(z)

    codes: Sequence[int] = np.unique(causes)
    share = fitted(x, causes) if len(codes) > 1 else np.ones((len(z), 1))
    risks = [fitted(x[causes == code], y[causes == code])[:, 1] for code in codes]
    return (share * np.stack(risks, axis=1)).sum(axis=1)
