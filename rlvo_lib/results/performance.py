"""Discrimination and classification of every arm, each beside what no skill gives."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import Study
from rlvo_lib.results.predictions import (
    Partition,
    Scores,
    check_predictions,
    ensembles,
    reported_partition,
    rule_text,
    scores_of,
    threshold_of,
)
from rlvo_lib.results.uncertainty import (
    BOOTSTRAPPED,
    METRICS,
    RESAMPLES,
    SEED,
    interval,
    no_skill_of,
    over_seeds,
    replicates_of,
    value,
)

NO_THRESHOLD = "no threshold"
#: Threshold probabilities at which `no_skill` states the net benefit of treating everyone.
TREATED_FROM = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


def performance(
    predictions: pd.DataFrame,
    thresholds: pd.DataFrame,
    study: Study,
    *,
    data: str,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Every metric of every arm where results are reported (the test set, if there is one).

    Returns
    -------
    DataFrame with arm, metric, mean and sd (ddof 1) over the fold models, n_folds, ensemble with its
    95 % limits low and high over patients, n, events, threshold_rule, interval_method, seeds and
    sd_seeds (number of training seeds, and the SD of their ensembles' values; NaN for one), no_skill
    and no_skill_how, data. Metric ``f1`` is that of the event class. See `rlvo_lib.results` for how
    several seeds, and designs without a test set, are handled.
    """
    predictions = check_predictions(predictions)
    partition = reported_partition(predictions)
    rule = rule_text(thresholds, same_patients=partition == "out-of-fold")
    arms = list(scores_of(ensembles(predictions, partition), study.arms))
    cuts = _cuts(arms, thresholds)
    drawn = replicates_of(arms, cuts, BOOTSTRAPPED, resamples=resamples, seed=seed)
    rows = []
    for scores in arms:
        cut = cuts[scores.arm]
        models = _fold_models(predictions, partition, scores.arm)
        for metric, needs_threshold in METRICS.items():
            spread = _over_folds(models, metric, dict(zip(scores.seeds, cut, strict=True)))
            *estimate, method = interval(scores, metric, cut, replicates=drawn)
            where = rule if needs_threshold else NO_THRESHOLD
            rows.append((
                scores.arm, metric, *spread, *estimate, *_counts(scores), where, method,
                *over_seeds(scores, metric, cut), *no_skill_of(scores, metric, cut),
            ))  # fmt: skip
    columns = [
        "arm", "metric", "mean", "sd", "n_folds", "ensemble", "low", "high", "n", "events",
        "threshold_rule", "interval_method", "seeds", "sd_seeds", "no_skill", "no_skill_how",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def _cuts(arms: list[Scores], thresholds: pd.DataFrame) -> dict[str, list[float]]:
    """Arm -> its threshold for each seed."""
    return {s.arm: [threshold_of(thresholds, s.arm, seed) for seed in s.seeds] for s in arms}


def _counts(scores: Scores) -> tuple[int, int]:
    return scores.y.size, int(scores.y.sum())


#: Seed -> outcomes and probabilities of each of its fold models.
Models = dict[object, list[tuple[np.ndarray, np.ndarray]]]


def _fold_models(predictions: pd.DataFrame, partition: Partition, arm: str) -> Models:
    rows = predictions[(predictions["partition"] == partition) & (predictions["arm"] == arm)]
    models: Models = {}
    for (seed, _), fold in rows.groupby(["seed", "fold"]):
        scored = fold["y_true"].to_numpy(int), fold["probability"].to_numpy()
        models.setdefault(seed, []).append(scored)
    return models


def _over_folds(models: Models, metric: str, threshold: dict) -> tuple[float, float, int]:
    """Mean of the seeds' means, root mean square of the seeds' SDs, and fold models a seed."""
    means, variances, n_folds = [], [], 0
    for seed, folds in models.items():
        values = [value(y, p, metric, threshold[seed]) for y, p in folds]
        means.append(np.mean(values))
        variances.append(np.var(values, ddof=1) if len(values) > 1 else np.nan)
        n_folds = len(values)
    return float(np.mean(means)), float(np.sqrt(np.mean(variances))), n_folds


def out_of_fold(
    predictions: pd.DataFrame,
    thresholds: pd.DataFrame,
    study: Study,
    *,
    data: str,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Pooled out-of-fold estimates: what model choices are made on, before the test set is read.

    F1 uses the threshold chosen on these same predictions and is optimistic; ``threshold_rule`` says
    so.

    Returns
    -------
    DataFrame with arm, metric, estimate, low, high, n, events, threshold_rule, interval_method,
    no_skill, no_skill_how, data.
    """
    arms = list(scores_of(ensembles(check_predictions(predictions), "out-of-fold"), study.arms))
    cuts, chosen = _cuts(arms, thresholds), ("auc", "f1", "average_precision")
    drawn = replicates_of(arms, cuts, chosen[1:], resamples=resamples, seed=seed)
    rule = rule_text(thresholds, same_patients=True)
    rows = []
    for scores in arms:
        cut = cuts[scores.arm]
        for metric in chosen:
            *estimate, method = interval(scores, metric, cut, replicates=drawn)
            where = rule if METRICS[metric] else NO_THRESHOLD
            rows.append((
                scores.arm, metric, *estimate, *_counts(scores), where, method,
                *no_skill_of(scores, metric, cut),
            ))  # fmt: skip
    columns = [
        "arm", "metric", "estimate", "low", "high", "n", "events", "threshold_rule",
        "interval_method", "no_skill", "no_skill_how",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def no_skill(predictions: pd.DataFrame, *, data: str) -> pd.DataFrame:
    """What each metric is without any skill, by partition, over all patients that any arm scored.

    Returns
    -------
    DataFrame with partition, metric, how, value, n, events, data.
    """
    patients = check_predictions(predictions).drop_duplicates(["partition", "participant_id"])
    rows = []
    for partition, group in patients.groupby("partition", sort=True):
        y = group["y_true"].to_numpy(int)
        lines = [
            ("auc", "ranking at random", 0.5),
            ("f1", "flagging everyone", metrics.flag_everyone_f1(y)),
            ("f1", "flagging by the toss of a coin (expected)", metrics.coin_f1(y)),
            ("average_precision", "prevalence", float(y.mean())),
            ("brier", "predicting the prevalence for everyone", float(y.mean() * (1 - y.mean()))),
            ("scaled_brier", "predicting the prevalence for everyone", 0.0),
            ("ppv", "flagging at random", float(y.mean())),
            ("npv", "flagging at random", float(1 - y.mean())),
            ("net_benefit", "treating nobody, at any threshold", 0.0),
            *[
                ("net_benefit", f"treating everyone, threshold {t:.0%}".replace("%", " %"),
                 float(y.mean() - (1 - y.mean()) * t / (1 - t)))
                for t in TREATED_FROM
            ],
        ]  # fmt: skip
        rows += [(partition, *line, y.size, int(y.sum())) for line in lines]
    columns = ["partition", "metric", "how", "value", "n", "events"]
    return pd.DataFrame(rows, columns=columns).assign(data=data)
