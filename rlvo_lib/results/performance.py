"""Discrimination and classification of every arm, its no-skill lines and the planned comparisons."""

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
    scores_of,
    threshold_of,
)

#: Metric of `performance` -> whether it depends on a threshold.
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
NO_THRESHOLD = "no threshold"
RESAMPLES, SEED = 2000, 2025


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


def interval(
    scores: Scores, metric: str, thresholds: list[float], *, resamples: int, seed: int
) -> tuple[float, float, float, str]:
    """Mean over the seeds of a metric, its 95 % limits over patients, and how these were found.

    AUC: DeLong on the logit scale. Sensitivity, specificity, PPV, NPV: Wilson. Others, which depend
    on prevalence: `bootstrap_limits`, with the same resampled patients for every arm.
    """
    y, p = scores.y, scores.p
    if metric == "auc":
        aucs, covariance = metrics.delong_covariance(y, p)
        low, high, reason = metrics.auc_interval(float(aucs.mean()), float(covariance.mean()))
        return (
            float(aucs.mean()),
            low,
            high,
            f"DeLong, logit scale{'; ' + reason if reason else ''}",
        )
    columns = [(p[:, k], threshold) for k, threshold in enumerate(thresholds)]
    estimate = float(np.mean([value(y, s, metric, t) for s, t in columns]))
    if metric in ("sensitivity", "specificity", "ppv", "npv"):
        if np.isnan(estimate):
            return estimate, np.nan, np.nan, "Wilson"
        n = np.mean([_denominator(y, s >= t, metric) for s, t in columns])
        return estimate, *metrics.wilson(estimate * n, n), "Wilson"
    return estimate, *bootstrap_limits(y, columns, metric, resamples=resamples, seed=seed)


def bootstrap_limits(
    y: np.ndarray,
    columns: list[tuple[np.ndarray, float | None]],
    metric: str,
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float, str]:
    """95 % percentile limits of the mean of a metric over score columns, by resampling patients.

    Patients are drawn whatever their outcome, so the number of events varies as it would in another
    sample. Resamples with one class only are dropped, and the text returned counts them.

    Parameters
    ----------
    y : (n,) of 0 and 1.
    columns : pairs of scores (n,) and threshold; the same patients are drawn for each pair.

    Returns
    -------
    Low, high (NaN if no resample has both classes) and a text saying how they were found.
    """
    drawn = metrics.resampling.resamples(y, n=resamples, seed=seed, stratified=False)
    events = drawn @ y
    both = (events > 0) & (events < y.size)
    replicates = [
        metrics.bootstrap_replicates(
            y, s, metric, threshold=t, stratified=False, n=resamples, seed=seed
        )
        for s, t in columns
    ]
    kept, dropped = np.mean(replicates, axis=0)[both], int((~both).sum())
    text = f"bootstrap over patients, percentile, {kept.size} resamples"
    text += f" ({dropped} of one class only dropped)" if dropped else ""
    low, high = np.quantile(kept, [0.025, 0.975]) if kept.size else (np.nan, np.nan)
    return float(low), float(high), text


def _denominator(y: np.ndarray, flagged: np.ndarray, metric: str) -> int:
    group = {"sensitivity": y == 1, "specificity": y == 0, "ppv": flagged, "npv": ~flagged}
    return int(group[metric].sum())


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
    95 % limits low and high over patients, n, events, threshold_rule, interval_method, data. See
    `rlvo_lib.results` for how several seeds, and designs without a test set, are handled.
    """
    predictions = check_predictions(predictions)
    partition = reported_partition(predictions)
    rule_text = _rule_text(thresholds, same_patients=partition == "out-of-fold")
    rows = []
    for scores in scores_of(ensembles(predictions, partition), study.arms):
        cut = [threshold_of(thresholds, scores.arm, s) for s in scores.seeds]
        folds = _by_fold(predictions, partition, scores.arm)
        for metric, needs_threshold in METRICS.items():
            mean, sd, n_folds = _over_folds(
                folds, metric, dict(zip(scores.seeds, cut, strict=True))
            )
            *estimate, method = interval(scores, metric, cut, resamples=resamples, seed=seed)
            rule = rule_text if needs_threshold else NO_THRESHOLD
            found = (mean, sd, n_folds, *estimate, *_counts(scores), rule, method)
            rows.append((scores.arm, metric, *found))
    columns = [
        "arm", "metric", "mean", "sd", "n_folds", "ensemble", "low", "high", "n", "events",
        "threshold_rule", "interval_method",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def _counts(scores: Scores) -> tuple[int, int]:
    return scores.y.size, int(scores.y.sum())


def _rule_text(thresholds: pd.DataFrame, *, same_patients: bool) -> str:
    rules = " / ".join(sorted(set(thresholds["rule"] + " on pooled " + thresholds["chosen_on"])))
    return f"{rules} (the same patients: optimistic)" if same_patients else rules


def _by_fold(predictions: pd.DataFrame, partition: Partition, arm: str) -> pd.DataFrame:
    return predictions[(predictions["partition"] == partition) & (predictions["arm"] == arm)]


def _over_folds(rows: pd.DataFrame, metric: str, threshold: dict) -> tuple[float, float, int]:
    """Mean of the seeds' means, root mean square of the seeds' SDs, and fold models a seed."""
    means, variances, n_folds = [], [], 0
    for seed, models in rows.groupby("seed"):
        values = [
            value(
                fold["y_true"].to_numpy(int),
                fold["probability"].to_numpy(),
                metric,
                threshold[seed],
            )
            for _, fold in models.groupby("fold")
        ]
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
    DataFrame with arm, metric, estimate, low, high, n, events, threshold_rule, interval_method, data.
    """
    pooled = ensembles(check_predictions(predictions), "out-of-fold")
    rows = []
    for scores in scores_of(pooled, study.arms):
        cut = [threshold_of(thresholds, scores.arm, s) for s in scores.seeds]
        for metric in ("auc", "f1", "average_precision"):
            *estimate, method = interval(scores, metric, cut, resamples=resamples, seed=seed)
            rule = _rule_text(thresholds, same_patients=True) if METRICS[metric] else NO_THRESHOLD
            rows.append((scores.arm, metric, *estimate, *_counts(scores), rule, method))
    columns = [
        "arm", "metric", "estimate", "low", "high", "n", "events", "threshold_rule",
        "interval_method",
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
        ]
        rows += [(partition, *line, y.size, int(y.sum())) for line in lines]
    columns = ["partition", "metric", "how", "value", "n", "events"]
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def comparisons(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Paired differences in AUC of the ensembles, for the pairs named in the study file.

    DeLong's test on the patients that both arms scored, Holm-adjusted over the pairs that could be
    compared.

    Returns
    -------
    DataFrame with a, b, auc_a, auc_b, difference (a - b), low, high, z, p, p_holm, n, events,
    reason, data.
    """
    predictions = check_predictions(predictions)
    frame = ensembles(predictions, reported_partition(predictions))
    rows = [_compare(frame, a, b) for a, b in study.comparisons]
    columns = [
        "a", "b", "auc_a", "auc_b", "difference", "low", "high", "z", "p", "n", "events", "reason",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table.insert(9, "p_holm", metrics.holm(table["p"].astype(float)))
    return table.assign(data=data)


def _compare(frame: pd.DataFrame, a: str, b: str) -> tuple:
    absent = [arm for arm in (a, b) if arm not in set(frame["arm"])]
    if absent:
        return (a, b, *(np.nan,) * 7, 0, 0, f"arm '{absent[0]}' was not run")
    ids = {arm: set(frame.loc[frame["arm"] == arm, "participant_id"]) for arm in (a, b)}
    both = frame[frame["participant_id"].isin(ids[a] & ids[b]) & frame["arm"].isin((a, b))]
    first, second = scores_of(both, (a, b))
    aucs, covariance = metrics.delong_covariance(first.y, np.hstack([first.p, second.p]))
    weights = np.repeat(
        [1 / len(first.seeds), -1 / len(second.seeds)], [len(first.seeds), len(second.seeds)]
    )
    test = metrics.contrast_auc(first.y, aucs, covariance, weights)
    return (
        a, b, test.auc_a, test.auc_b, test.difference, test.low, test.high, test.z, test.p,
        test.n, test.events, test.reason,
    )  # fmt: skip
