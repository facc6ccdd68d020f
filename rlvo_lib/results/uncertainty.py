"""Intervals over patients of what arms reach: DeLong, Wilson, and one bootstrap shared by all arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np

from rlvo_lib import metrics
from rlvo_lib.results.predictions import Scores

#: Metric of `rlvo_lib.results.performance` -> whether it depends on a threshold.
METRICS = {
    "auc": False,
    "f1": True,
    "average_precision": False,
    "brier": False,
    "scaled_brier": False,
    "sensitivity": True,
    "specificity": True,
    "ppv": True,
    "npv": True,
}
PROPORTIONS = ("sensitivity", "specificity", "ppv", "npv")
#: What has a bootstrap interval: it depends on prevalence, or is no proportion.
BOOTSTRAPPED = ("f1", "average_precision", "brier", "scaled_brier")
RESAMPLES, SEED = 2000, 2025

Replicates = dict[str, dict[str, np.ndarray]]


def value(y: np.ndarray, p: np.ndarray, metric: str, threshold: float) -> float:
    """One metric of one score; NaN where only one class is present or nobody is flagged (PPV)."""
    if y.min() == y.max():
        return np.nan
    if METRICS[metric]:
        return float(getattr(metrics.operating_point(y, p, threshold), metric))
    functions = {
        "auc": metrics.auc,
        "average_precision": metrics.average_precision,
        "brier": metrics.brier_loss,
        "scaled_brier": metrics.scaled_brier,
    }
    return float(functions[metric](y, p))


def replicates_of(
    arms: Iterable[Scores],
    thresholds: Mapping[str, Sequence[float]],
    statistics: Sequence[str] = BOOTSTRAPPED,
    *,
    resamples: int,
    seed: int,
) -> Replicates:
    """Bootstrap replicates of every arm at once: arm -> statistic -> ``(resamples,)``, mean over seeds.

    Patients are drawn whatever their outcome, so that the number of events varies as it would in
    another sample, and the same patients for every arm that was judged on the same ones. NaN where a
    resample has one class only.

    Parameters
    ----------
    thresholds
        Arm -> one threshold a seed.
    """
    found: Replicates = {}
    ordered = sorted(arms, key=lambda scores: scores.participants)
    for _, group in groupby(ordered, key=lambda scores: scores.participants):
        same = list(group)
        y, cuts = same[0].y, [t for scores in same for t in thresholds[scores.arm]]
        drawn = metrics.bootstrap_many(
            y, np.hstack([scores.p for scores in same]), tuple(statistics), thresholds=cuts,
            stratified=False, n=resamples, seed=seed,
        )  # fmt: skip
        ends = np.cumsum([len(scores.seeds) for scores in same])
        for name, columns in drawn.items():
            parts = np.split(columns, ends[:-1], axis=1)
            for scores, part in zip(same, parts, strict=True):
                found.setdefault(scores.arm, {})[name] = part.mean(axis=1)
    return found


def percentile_limits(replicates: np.ndarray) -> tuple[float, float, str]:
    """95 % percentile limits of replicates without those that are NaN, and how they were found."""
    kept = replicates[~np.isnan(replicates)]
    dropped = replicates.size - kept.size
    text = f"bootstrap over patients, percentile, {kept.size} resamples"
    text += f" ({dropped} of one class only dropped)" if dropped else ""
    low, high = np.quantile(kept, [0.025, 0.975]) if kept.size else (np.nan, np.nan)
    return float(low), float(high), text


def interval(
    scores: Scores,
    metric: str,
    thresholds: Sequence[float],
    *,
    replicates: Replicates | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float, float, str]:
    """Mean over the seeds of a metric, its 95 % limits over patients, and how these were found.

    AUC: DeLong on the logit scale. Sensitivity, specificity, PPV, NPV: Wilson. Others, which depend
    on prevalence: percentiles of ``replicates`` (`replicates_of`, drawn here if not given).
    """
    y = scores.y
    if metric == "auc":
        area, variance = mean_auc(scores)
        low, high, reason = metrics.auc_interval(area, variance, logit=True)
        return area, low, high, f"DeLong, logit scale{'; ' + reason if reason else ''}"
    columns = list(_columns(scores, thresholds))
    estimate = float(np.mean([value(y, s, metric, t) for s, t in columns]))
    if metric in PROPORTIONS:
        if np.isnan(estimate):
            who = "nobody is" if metric == "ppv" else "everybody is"
            return estimate, np.nan, np.nan, f"Wilson; {who} flagged: no {metric.upper()}"
        n = np.mean([_denominator(y, s >= t, metric) for s, t in columns])
        return estimate, *metrics.wilson(estimate * n, n), "Wilson"
    if replicates is None:
        cuts = {scores.arm: thresholds}
        replicates = replicates_of([scores], cuts, [metric], resamples=resamples, seed=seed)
    low, high, text = percentile_limits(replicates[scores.arm][metric])
    if min(y.sum(), (1 - y).sum()) < 2:  # a resample holds that one, or it is dropped
        return estimate, np.nan, np.nan, f"{text}; fewer than two events or two non-events"
    return estimate, low, high, text


def mean_auc(scores: Scores) -> tuple[float, float]:
    """Mean of the seeds' AUCs, and its DeLong variance (the seeds judge the same patients)."""
    aucs, covariance = metrics.delong_covariance(scores.y, scores.p)
    return float(aucs.mean()), float(covariance.mean())


def over_seeds(scores: Scores, metric: str, thresholds: Sequence[float]) -> tuple[int, float]:
    """Number of training seeds, and the SD (ddof 1) of their values; NaN for one seed."""
    if len(scores.seeds) == 1:
        return 1, np.nan
    values = [value(scores.y, s, metric, t) for s, t in _columns(scores, thresholds)]
    return len(values), float(np.std(values, ddof=1))


def no_skill_of(scores: Scores, metric: str, thresholds: Sequence[float]) -> tuple[float, str]:
    """What a metric is without any skill among an arm's own patients, and whose it is.

    Sensitivity and specificity are those of flagging as many patients as the arm does, at random: of
    any other share they would be others.
    """
    prevalence = float(scores.y.mean())
    flagged = float(np.mean([(s >= t).mean() for s, t in _columns(scores, thresholds)]))
    random = "flagging as many patients at random"
    constant = "predicting the prevalence for everyone"
    return {
        "auc": (0.5, "ranking at random"),
        "f1": (metrics.flag_everyone_f1(scores.y), "flagging everyone"),
        "average_precision": (prevalence, "prevalence"),
        "brier": (prevalence * (1 - prevalence), constant),
        "scaled_brier": (0.0, constant),
        "sensitivity": (flagged, random),
        "specificity": (1 - flagged, random),
        "ppv": (prevalence, random),
        "npv": (1 - prevalence, random),
    }[metric]


def _columns(scores: Scores, thresholds: Sequence[float]) -> Iterable[tuple[np.ndarray, float]]:
    """Each seed's probabilities, with its threshold."""
    cuts = thresholds or [np.nan] * len(scores.seeds)
    return zip(scores.p.T, cuts, strict=True)


def _denominator(y: np.ndarray, flagged: np.ndarray, metric: str) -> int:
    group = {"sensitivity": y == 1, "specificity": y == 0, "ppv": flagged, "npv": ~flagged}
    return int(group[metric].sum())
