"""The planned comparisons: in AUC, at the frozen thresholds, and over folds (another question)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import Study
from rlvo_lib.results.predictions import (
    Scores,
    check_predictions,
    ensembles,
    reported_partition,
    rule_text,
    scores_of,
    threshold_of,
)
from rlvo_lib.results.uncertainty import RESAMPLES, SEED

ANSWERS = "would training on another sample of this size give the difference too"
#: What `metrics.compare_operating_points` says of sensitivity, and of specificity.
SIDES = ("a", "b", "difference", "low", "high", "only_a", "only_b", "p", "mid_p")
FLAGGED = [f"{name}_{side}" for name in ("sensitivity", "specificity") for side in SIDES]


def comparisons(
    predictions: pd.DataFrame,
    study: Study,
    *,
    data: str,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Paired differences in AUC of the ensembles, for the pairs named in the study file.

    DeLong's test on the patients that both arms scored, Holm-adjusted over the pairs that could be
    compared; beside it the percentile limits of the paired stratified bootstrap, and its p from the
    difference over the SD of its replicates (as pROC).

    Returns
    -------
    DataFrame with a, b, auc_a, auc_b, difference (a - b), low, high, z, p, p_holm, n, events,
    bootstrap_low, bootstrap_high, bootstrap_p, reason, data.
    """
    predictions = check_predictions(predictions)
    frame = ensembles(predictions, reported_partition(predictions))
    rows = [_compare(frame, a, b, resamples, seed) for a, b in study.comparisons]
    columns = [
        "a", "b", "auc_a", "auc_b", "difference", "low", "high", "z", "p", "n", "events",
        "bootstrap_low", "bootstrap_high", "bootstrap_p", "reason",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table.insert(9, "p_holm", metrics.holm(table["p"].astype(float)))
    return table.assign(data=data)


def _absent(frame: pd.DataFrame, a: str, b: str) -> str:
    """Why a pair cannot be compared, or an empty text."""
    absent = [arm for arm in (a, b) if arm not in set(frame["arm"])]
    return f"arm '{absent[0]}' was not run" if absent else ""


def _both(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """The rows of two arms, of the patients that both scored."""
    ids = [set(frame.loc[frame["arm"] == arm, "participant_id"]) for arm in (a, b)]
    return frame[frame["participant_id"].isin(ids[0] & ids[1]) & frame["arm"].isin((a, b))]


def _compare(frame: pd.DataFrame, a: str, b: str, resamples: int, seed: int) -> tuple:
    if reason := _absent(frame, a, b):
        return (a, b, *(np.nan,) * 7, 0, 0, *(np.nan,) * 3, reason)
    first, second = scores_of(_both(frame, a, b), (a, b))
    aucs, covariance = metrics.delong_covariance(first.y, np.hstack([first.p, second.p]))
    weights = np.repeat(
        [1 / len(first.seeds), -1 / len(second.seeds)], [len(first.seeds), len(second.seeds)]
    )
    test = metrics.contrast_auc(first.y, aucs, covariance, weights)
    return (
        a, b, test.auc_a, test.auc_b, test.difference, test.low, test.high, test.z, test.p,
        test.n, test.events, *_bootstrapped(first, second, weights, resamples, seed), test.reason,
    )  # fmt: skip


def _bootstrapped(
    a: Scores, b: Scores, weights: np.ndarray, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Limits and p of the difference of two AUCs on the same, stratified resamples."""
    from scipy.stats import norm

    if metrics.resampling.fixed_stratum(a.y):  # DeLong's test gives the reason
        return np.nan, np.nan, np.nan
    scores = np.hstack([a.p, b.p])
    drawn = metrics.bootstrap_many(a.y, scores, ("auc",), stratified=True, n=resamples, seed=seed)
    replicates = drawn["auc"] @ weights
    difference = float(metrics.delong_covariance(a.y, scores)[0] @ weights)
    spread = float(replicates.std(ddof=1)) if resamples > 1 else np.nan
    if spread < 1e-12:  # the same ranking in every resample
        p = 1.0 if abs(difference) < 1e-12 else np.nan
    else:
        p = float(2 * norm.sf(abs(difference) / spread))
    low, high = np.quantile(replicates, [0.025, 0.975])
    return float(low), float(high), p


def comparisons_flagged(
    predictions: pd.DataFrame, thresholds: pd.DataFrame, study: Study, *, data: str
) -> pd.DataFrame:
    """The same pairs at their frozen thresholds: who is flagged by one arm and not by the other.

    A row a pair and training seed (each has its own thresholds; seeds are not pooled).

    Returns
    -------
    DataFrame with a, b, seed, threshold_a, threshold_b, threshold_rule, n, events; for sensitivity
    and specificity the value of each arm, their difference with its 95 % limits (Newcombe's, paired),
    the patients whom one arm alone judges rightly (_only_a, _only_b), McNemar's exact p (_p), its mid-p
    (_mid_p) and the exact p Holm-adjusted over the pairs of a seed (_p_holm); reason, data.
    """
    predictions = check_predictions(predictions)
    partition = reported_partition(predictions)
    frame = ensembles(predictions, partition)
    rows = [row for a, b in study.comparisons for row in _flagged(frame, thresholds, a, b)]
    names = ["a", "b", "seed", "threshold_a", "threshold_b", "n", "events", *FLAGGED, "reason"]
    table = pd.DataFrame(rows, columns=names)
    table.insert(5, "threshold_rule", rule_text(thresholds, same_patients=partition != "test"))
    for name in ("sensitivity", "specificity"):
        adjusted = table.groupby("seed", dropna=False)[f"{name}_p"].transform(
            lambda p: metrics.holm(p.astype(float))
        )
        table.insert(table.columns.get_loc(f"{name}_mid_p") + 1, f"{name}_p_holm", adjusted)
    return table.assign(data=data)


def _flagged(frame: pd.DataFrame, thresholds: pd.DataFrame, a: str, b: str) -> list[dict]:
    reason = _absent(frame, a, b)
    if not reason:
        first, second = scores_of(_both(frame, a, b), (a, b))
        seeds = [seed for seed in first.seeds if seed in second.seeds]
        reason = "" if seeds else "the two arms have no training seed in common"
    if reason:
        return [{"a": a, "b": b, "n": 0, "events": 0, "reason": reason}]
    rows = []
    for seed in seeds:
        cuts = {f"threshold_{k}": threshold_of(thresholds, arm, seed) for k, arm in zip("ab", (a, b), strict=True)}  # fmt: skip
        compared = metrics.compare_operating_points(
            first.y, _column(first, seed), _column(second, seed), **cuts
        )
        found = {name: getattr(compared, name) for name in ("n", "events", *FLAGGED, "reason")}
        rows.append({"a": a, "b": b, "seed": seed} | cuts | found)
    return rows


def _column(scores: Scores, seed: object) -> np.ndarray:
    return scores.p[:, scores.seeds.index(seed)]


def comparisons_folds(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """The same pairs over the held-out folds: the answer to another question, never pooled with ours.

    The other comparisons ask how sure the difference of *these* models is on new patients; this one
    whether *training again*, on another sample of this size, would give it. The out-of-fold AUC of
    both arms is taken in each fold and seed, and their differences are tested with Nadeau and Bengio's
    correction for training sets that overlap. Training seeds on the same split are no further samples:
    their differences are averaged first. Folds with one class only are left out and counted.

    Returns
    -------
    DataFrame with a, b, auc_a, auc_b (means over folds), difference, se, t, df, low, high, p, p_holm,
    k (splits), n_train, n_test (patients a fold, rounded), answers, reason, data.
    """
    predictions = check_predictions(predictions)
    frame = predictions[predictions["partition"] == "out-of-fold"]
    rows = [_over_folds(frame, a, b) for a, b in study.comparisons]
    columns = [
        "a", "b", "auc_a", "auc_b", "difference", "se", "t", "df", "low", "high", "p", "k",
        "n_train", "n_test", "reason",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table.insert(11, "p_holm", metrics.holm(table["p"].astype(float)))
    table.insert(15, "answers", ANSWERS)
    return table.assign(data=data)


def _over_folds(frame: pd.DataFrame, a: str, b: str) -> tuple:
    if reason := _absent(frame, a, b) if len(frame) else "no out-of-fold predictions":
        return (a, b, *(np.nan,) * 9, 0, 0, 0, reason)
    keys = ["seed", "fold", "participant_id"]
    first, second = (
        frame[frame["arm"] == arm].set_index(keys)[["y_true", "probability"]] for arm in (a, b)
    )
    both = first.join(second["probability"].rename("probability_b"), how="inner")
    folds = [fold for _, fold in both.groupby(["seed", "fold"])]
    kept = [fold for fold in folds if fold["y_true"].nunique() == 2]
    left_out = len(folds) - len(kept)
    reasons = [f"{left_out} of {len(folds)} folds have one class only: left out"] * bool(left_out)
    if not kept:
        why = "; ".join(reasons) or "the two arms were not scored in the same folds"
        return (a, b, *(np.nan,) * 9, 0, 0, 0, why)
    splits: dict[frozenset, list[Sequence[float]]] = {}
    for fold in kept:
        tested = frozenset(fold.index.get_level_values("participant_id"))
        splits.setdefault(tested, []).append(_fold_aucs(fold))
    aucs = np.array([np.mean(seeds, axis=0) for seeds in splits.values()])
    n_test = int(round(np.mean([len(fold) for fold in kept])))
    n_train = both.index.get_level_values("participant_id").nunique() - n_test
    test = metrics.nadeau_bengio(aucs[:, 0] - aucs[:, 1], n_train=n_train, n_test=n_test)
    reasons += [test.reason] * bool(test.reason)
    return (
        a, b, *aucs.mean(axis=0), test.difference, test.se, test.t, test.df, test.low, test.high,
        test.p, test.k, n_train, n_test, "; ".join(reasons),
    )  # fmt: skip


def _fold_aucs(fold: pd.DataFrame) -> Sequence[float]:
    columns = fold[["probability", "probability_b"]].to_numpy()
    return metrics.delong_covariance(fold["y_true"].to_numpy(), columns)[0]
