"""Recalibration in the large on new patients: one shift of the logit, nothing else.

logit p' = logit p + a, with a of an arm and seed such that the mean of p' is the share of patients with
the outcome (Steyerberg 2019, Clinical Prediction Models, ch. 15: updating the intercept alone). p is the
fold ensemble's probability. Ranks stay, so the AUC does; the threshold is shifted alike, so the same
patients are flagged. The shift is estimated on the patients it is judged on: optimistic for calibration.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError, Study
from rlvo_lib.results.predictions import check_predictions, ensembles, scores_of, threshold_of

SAME_PATIENTS = (
    "the same patients: optimistic for calibration; ranks and flagged patients unchanged"
)
SHIFTED = "shifted with the probabilities"
BOUND = 40.0  # of a shift: beyond it a probability is 0 or 1 as far as a double can tell


def shift_to(p: np.ndarray, prevalence: float) -> float:
    """The shift a (logit) for which the mean of the shifted probabilities is the prevalence.

    Parameters
    ----------
    p : (n,) probabilities; 0 and 1 stay what they are.
    prevalence : share of patients with the outcome, above 0 and below 1.

    Returns
    -------
    The shift; NaN where no shift reaches the prevalence (too many probabilities of exactly 0 or 1).

    Raises
    ------
    InputError
        For a prevalence of 0 or 1: then no finite shift fits.

    >>> round(shift_to(np.array([0.5, 0.5]), 0.2), 6)
    -1.386294
    """
    from scipy.optimize import brentq

    if not 0 < prevalence < 1:
        raise InputError(
            f"prevalence is {prevalence:g}; allowed: above 0 and below 1 (patients with and without "
            "the outcome)"
        )

    def excess(a: float) -> float:
        return float(shifted(p, a).mean()) - prevalence

    if excess(-BOUND) > 0 or excess(BOUND) < 0:
        return float("nan")
    return float(brentq(excess, -BOUND, BOUND, xtol=1e-14, rtol=8.9e-16))


def shifted(p: np.ndarray, shift: float) -> np.ndarray:
    """Probabilities with their logit shifted; 0, 1 and what lies outside stay.

    >>> shifted(np.array([0.0, 0.5, 1.0]), 1.0).round(3).tolist()
    [0.0, 0.731, 1.0]
    """
    from scipy.special import expit, logit

    p = np.asarray(p, dtype=float)
    inside = (p > 0) & (p < 1)
    out = p.copy()
    out[inside] = expit(logit(p[inside]) + shift)
    return out


def shifts(predictions: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The shift of each arm and seed on the test patients: arm, seed, shift, n, events, reason."""
    rows = []
    for scores in scores_of(ensembles(check_predictions(predictions), "test"), study.arms):
        n, events = scores.y.size, int(scores.y.sum())
        for k, seed in enumerate(scores.seeds):
            shift = shift_to(scores.p[:, k], events / n)
            reason = "" if np.isfinite(shift) else "no shift reaches the prevalence: not shifted"
            rows.append((scores.arm, seed, shift, n, events, reason))
    return pd.DataFrame(rows, columns=["arm", "seed", "shift", "n", "events", "reason"])


def in_the_large(
    predictions: pd.DataFrame, thresholds: pd.DataFrame, study: Study
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and thresholds after recalibration in the large on the test patients.

    The predictions are the fold ensembles' (``fold`` 0: one row a patient, arm and seed), so that their
    order is exactly that of the ensembles before.

    Raises
    ------
    InputError
        If the test patients are all with, or all without, the outcome.
    """
    by = shifts(predictions, study).set_index(["arm", "seed"])["shift"].fillna(0.0)
    frame = ensembles(check_predictions(predictions), "test").drop(columns="n_models")
    moved = [
        part.assign(probability=shifted(part["probability"].to_numpy(), by[key]))
        for key, part in frame.groupby(["arm", "seed"], sort=False)
    ]
    made = pd.concat(moved, ignore_index=True).assign(partition="test", fold=0)
    keys = list(zip(thresholds["arm"], thresholds["seed"], strict=True))
    own = thresholds[[key in by.index for key in keys]]
    cuts = [
        float(shifted(np.array([row.threshold]), by[(row.arm, row.seed)])[0])
        for row in own.itertuples()
    ]
    cut = own.assign(threshold=cuts, chosen_on=own["chosen_on"] + f", {SHIFTED}")
    return made[list(predictions.columns)], cut.reset_index(drop=True)


def recalibration_table(
    predictions: pd.DataFrame, thresholds: pd.DataFrame, study: Study, *, data: str
) -> pd.DataFrame:
    """What recalibration in the large changes, a row an arm and seed.

    Returns
    -------
    DataFrame with arm, seed, shift, n, events; of ``o_to_e``, ``intercept``, ``slope``, ``brier``,
    ``auc`` and ``flagged`` (patients at or above the threshold) the value ``_before`` and ``_after``;
    estimated_on, reason, data.
    """
    moved, cuts = in_the_large(predictions, thresholds, study)
    before = _judged(ensembles(check_predictions(predictions), "test"), thresholds, study)
    after = _judged(ensembles(moved, "test"), cuts, study)
    table = shifts(predictions, study)
    for name in before.columns.drop(["arm", "seed"]):
        table[f"{name}_before"], table[f"{name}_after"] = before[name], after[name]
    return table.assign(estimated_on=SAME_PATIENTS, reason=table.pop("reason"), data=data)


def _judged(frame: pd.DataFrame, thresholds: pd.DataFrame, study: Study) -> pd.DataFrame:
    from rlvo_lib.results.probabilities import CLIP

    rows = []
    for scores in scores_of(frame, study.arms):
        for k, seed in enumerate(scores.seeds):
            p = scores.p[:, k]
            found = metrics.calibration(scores.y, p, clip=CLIP)
            flagged = int((p >= threshold_of(thresholds, scores.arm, seed)).sum())
            brier = metrics.brier_loss(scores.y, p)
            area = metrics.auc(scores.y, p)
            rows.append(
                (scores.arm, seed, found.o_to_e, found.intercept, found.slope, brier, area, flagged)
            )
    columns = ["arm", "seed", "o_to_e", "intercept", "slope", "brier", "auc", "flagged"]
    return pd.DataFrame(rows, columns=columns)
