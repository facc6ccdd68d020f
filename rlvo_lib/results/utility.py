"""What acting on the predictions would give: net benefit, and operating points by several rules."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError, Study
from rlvo_lib.results.predictions import (
    Scores,
    check_predictions,
    ensembles,
    reported,
    reported_partition,
    scores_of,
)
from rlvo_lib.results.uncertainty import RESAMPLES, SEED, percentile_limits

#: Threshold probabilities of the decision curve: 5 to 40 %.
DECISION_THRESHOLDS = tuple(round(k / 100, 2) for k in range(5, 41))
#: Rules by which `operating_points` chooses thresholds, and what each needs.
RULES: tuple[tuple[str, float | None], ...] = (
    ("max-f1", None),
    ("youden", None),
    ("sensitivity", 0.9),
    ("specificity", 0.9),
    ("net-benefit", 0.15),
)
RULE_WORDS = {
    "max-f1": "maximal F1 (event class)",
    "youden": "maximal sensitivity + specificity",
    "sensitivity": "sensitivity of at least {:g}",
    "specificity": "specificity of at least {:g}",
    "net-benefit": "maximal net benefit at a threshold probability of {:g}",
}


def decision_curve(
    predictions: pd.DataFrame,
    study: Study,
    *,
    data: str,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Net benefit of treating whom a main arm flags, beside treating everyone and nobody.

    A patient is flagged where the probability is at least the threshold. Several seeds are averaged.
    The interval is the percentile bootstrap over patients, drawn whatever their outcome.

    Returns
    -------
    DataFrame with arm, threshold, net_benefit (per patient) with its 95 % limits low and high,
    standardised (net benefit over prevalence), treat_all, treat_none, interventions_avoided_per_100
    (patients; against treating everyone), n, events, seeds, interval_method, data.
    """
    frames = [
        _net_benefit(scores, resamples, seed) for scores in reported(predictions, study, main=True)
    ]
    return pd.concat(frames, ignore_index=True).assign(data=data)


def _net_benefit(scores: Scores, resamples: int, seed: int) -> pd.DataFrame:
    cuts = np.array(DECISION_THRESHOLDS)
    each = [metrics.net_benefit(scores.y, p, cuts) for p in scores.p.T]
    mean = {
        name: np.mean([table[name] for table in each], axis=0)
        for name in ("net_benefit", "standardised", "interventions_avoided")
    }
    each_patient = _benefit_of_each(scores, cuts) / scores.y.size
    drawn = metrics.resampling.weight_blocks(scores.y, n=resamples, seed=seed, stratified=False)
    replicates = np.hstack([each_patient.T @ weights for weights in drawn])
    limits = [percentile_limits(row) for row in replicates]
    return pd.DataFrame({
        "arm": scores.arm, "threshold": cuts, "net_benefit": mean["net_benefit"],
        "low": [low for low, _, _ in limits], "high": [high for _, high, _ in limits],
        "standardised": mean["standardised"], "treat_all": each[0]["treat_all"],
        "treat_none": each[0]["treat_none"],
        "interventions_avoided_per_100": 100 * mean["interventions_avoided"], "n": scores.y.size,
        "events": int(scores.y.sum()), "seeds": len(scores.seeds),
        "interval_method": [text for _, _, text in limits],
    })  # fmt: skip


def _benefit_of_each(scores: Scores, cuts: np.ndarray) -> np.ndarray:
    """``(n, thresholds)``: what each patient adds to the net benefit, mean over the seeds.

    One for an event that is flagged, minus the odds of the threshold for a non-event that is.
    """
    flagged = (scores.p[:, :, None] >= cuts).mean(axis=1)
    y = scores.y[:, None]
    return flagged * (y - (1 - y) * cuts / (1 - cuts))


def operating_points(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """What each main arm gives at thresholds chosen by several rules, a row an arm, seed and rule.

    Every threshold is chosen on the pooled out-of-fold predictions alone, and judged where results are
    reported; in a design without a test set these are the same patients, and ``judged_on`` says so.

    Returns
    -------
    DataFrame with arm, seed, rule (in words), chosen_on, judged_on, then the fields of
    `rlvo_lib.metrics.OperatingPoint` (threshold, confusion, sensitivity, specificity, PPV and NPV with
    Wilson and Clopper–Pearson limits, F1, MCC, likelihood ratios, reason), data.
    """
    predictions = check_predictions(predictions)
    pooled = ensembles(predictions, "out-of-fold")
    if pooled.empty:
        raise InputError("predictions: no out-of-fold rows to choose a threshold from")
    development = {scores.arm: scores for scores in scores_of(pooled, study.arms)}
    partition = reported_partition(predictions)
    same = partition == "out-of-fold"
    judged = f"{partition} (the same patients: optimistic)" if same else partition
    rows = []
    for scores in reported(predictions, study, main=True):
        for k, seed in enumerate(scores.seeds):
            own = _development(development, scores.arm, seed)
            for rule, asked in RULES:
                cut = metrics.threshold_by(*own, rule=rule, value=asked)
                row = {"arm": scores.arm, "seed": seed, "rule": RULE_WORDS[rule].format(asked)}
                row |= {"chosen_on": "out-of-fold", "judged_on": judged}
                rows.append(row | asdict(metrics.operating_point(scores.y, scores.p[:, k], cut)))
    return pd.DataFrame(rows).assign(data=data)


def _development(
    development: dict[str, Scores], arm: str, seed: object
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and pooled out-of-fold probabilities of an arm and seed."""
    if arm not in development or seed not in development[arm].seeds:
        raise InputError(f"predictions: arm '{arm}', seed {seed} has no out-of-fold rows")
    own = development[arm]
    return own.y, own.p[:, own.seeds.index(seed)]
