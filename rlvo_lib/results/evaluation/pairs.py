"""Several scores of the same patients: every pair in AUC and average precision, and at the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.results.evaluation.resampled import Resampled, percentiles
from rlvo_lib.results.evaluation.scored import Scored

COLUMNS = (
    "a", "b", "auc_a", "auc_b", "difference", "low", "high", "z", "p", "p_holm", "bootstrap_low",
    "bootstrap_high", "bootstrap_p", "average_precision_a", "average_precision_b", "average_precision_difference",
    "average_precision_low", "average_precision_high", "n", "events", "reason",
)  # fmt: skip
STATISTICS = ("auc", "average_precision")
Areas = dict[bytes, tuple[list[str], np.ndarray, np.ndarray]]
#: What `rlvo_lib.metrics.compare_operating_points` says of sensitivity, and of specificity.
SIDES = ("a", "b", "difference", "low", "high", "only_a", "only_b", "p", "mid_p")
FLAGGED = [f"{name}_{side}" for name in ("sensitivity", "specificity") for side in SIDES]


def comparisons(scores: Sequence[Scored], drawn: Resampled) -> pd.DataFrame:
    """Every pair of scores, a minus b, on the patients who have both.

    AUC: DeLong's paired test, p also Holm-adjusted over all pairs; beside it the paired stratified
    bootstrap (percentile limits, p from difference / SD of the replicates as in pROC). Average precision:
    the paired bootstrap over patients.

    Returns
    -------
    DataFrame with the columns `COLUMNS`; none for a single score.
    """
    areas = _areas(scores)
    table = pd.DataFrame([_compared(a, b, drawn, areas) for a, b in combinations(scores, 2)])
    table = table.reindex(columns=list(COLUMNS))
    table["p_holm"] = metrics.holm(table["p"].astype(float))
    return table


def _areas(scores: Sequence[Scored]) -> Areas:
    """AUCs and their DeLong covariance of all scores of the same patients, with their names."""
    groups: dict[bytes, list[Scored]] = {}
    for score in scores:
        groups.setdefault(score.rows.tobytes(), []).append(score)
    return {
        rows: (
            [score.name for score in group],
            *metrics.delong_covariance(group[0].y, np.column_stack([score.s for score in group])),
        )
        for rows, group in groups.items()
    }


def _common(a: Scored, b: Scored) -> tuple[Scored, Scored]:
    """Both scores on the patients who have both; an `InputError` if these are of one class."""
    if np.array_equal(a.rows, b.rows):
        return a, b
    rows, *places = np.intersect1d(a.rows, b.rows, assume_unique=True, return_indices=True)
    first, second = (
        replace(score, rows=rows, y=score.y[place], s=score.s[place])
        for score, place in zip((a, b), places, strict=True)
    )
    metrics.checks.as_labels(first.y)
    return first, second


def _compared(a: Scored, b: Scored, drawn: Resampled, areas: Areas) -> dict:
    names = {"a": a.name, "b": b.name}
    try:
        first, second = _common(a, b)
    except InputError as error:
        return names | {"n": 0, "events": 0, "reason": f"patients with both: {error}"}
    if first is a:
        test = _contrasted(a, b, areas)
        replicates = [drawn.values[a.name][k] - drawn.values[b.name][k] for k in STATISTICS]
    else:
        test = metrics.compare_auc(first.y, first.s, second.s)
        replicates = _redrawn(first, second, drawn)
    (low, high, *_), (ap_low, ap_high, *_) = (
        percentiles(values, stratified=name == "auc")
        for name, values in zip(STATISTICS, replicates, strict=True)
    )
    redrawn_p = _p(test.difference, replicates[0])
    if metrics.resampling.fixed_stratum(first.y):  # DeLong's test gives the reason
        low = high = redrawn_p = np.nan
    precision = first.average_precision, second.average_precision
    return names | {
        "auc_a": test.auc_a, "auc_b": test.auc_b, "difference": test.difference, "low": test.low,
        "high": test.high, "z": test.z, "p": test.p, "bootstrap_low": low, "bootstrap_high": high,
        "bootstrap_p": redrawn_p,
        "average_precision_a": precision[0], "average_precision_b": precision[1],
        "average_precision_difference": precision[0] - precision[1],
        "average_precision_low": ap_low, "average_precision_high": ap_high,
        "n": test.n, "events": test.events, "reason": test.reason,
    }  # fmt: skip


def _contrasted(a: Scored, b: Scored, areas: Areas) -> metrics.AucDifference:
    names, aucs, covariance = areas[a.rows.tobytes()]
    places = [names.index(a.name), names.index(b.name)]
    square = covariance[np.ix_(places, places)]
    return metrics.contrast_auc(a.y, aucs[places], square, np.array([1.0, -1.0]))


def _redrawn(a: Scored, b: Scored, drawn: Resampled) -> list[np.ndarray]:
    """Replicates of both differences on the patients that the two have in common."""
    found = []
    for name in STATISTICS:
        values = metrics.bootstrap_many(
            a.y, np.column_stack([a.s, b.s]), (name,), stratified=name == "auc",
            n=drawn.resamples, seed=drawn.seed,
        )[name]  # fmt: skip
        found.append(values[:, 0] - values[:, 1])
    return found


def _p(difference: float, replicates: np.ndarray) -> float:
    """Two-sided normal p of difference / SD; 1 if it is 0 in every resample, NaN if constant otherwise."""
    from scipy.stats import norm

    spread = float(replicates.std(ddof=1)) if replicates.size > 1 else np.nan
    if spread < 1e-12:
        return 1.0 if abs(difference) < 1e-12 else np.nan
    return float(2 * norm.sf(abs(difference) / spread))


def comparisons_flagged(scores: Sequence[Scored]) -> pd.DataFrame:
    """Every pair of scores at their thresholds: sensitivity and specificity, McNemar exact and mid-p.

    Returns
    -------
    DataFrame with a, b, threshold_a, threshold_b, chosen_a, chosen_b, n, events; for sensitivity and
    specificity the two values, their difference with Newcombe's paired limits, whom one score alone
    judges rightly (_only_a, _only_b), p, mid_p and p_holm; reason.
    """
    rows = []
    for a, b in combinations(scores, 2):
        cuts = {k: score.cut for k, score in (("a", a), ("b", b))}
        row = {"a": a.name, "b": b.name}
        row |= {f"threshold_{k}": cut for k, (cut, _) in cuts.items()}
        row |= {f"chosen_{k}": how for k, (_, how) in cuts.items()}
        try:
            first, second = _common(a, b)
        except InputError as error:
            rows.append(row | {"n": 0, "events": 0, "reason": f"patients with both: {error}"})
            continue
        found = metrics.compare_operating_points(
            first.y, first.s, second.s, threshold_a=cuts["a"][0], threshold_b=cuts["b"][0]
        )
        rows.append(row | {name: getattr(found, name) for name in ("n", "events", *FLAGGED, "reason")})  # fmt: skip
    start = ["a", "b", "threshold_a", "threshold_b", "chosen_a", "chosen_b", "n", "events"]
    table = pd.DataFrame(rows).reindex(columns=[*start, *FLAGGED, "reason"])
    for name in ("sensitivity", "specificity"):
        place = table.columns.get_loc(f"{name}_mid_p") + 1
        table.insert(place, f"{name}_p_holm", metrics.holm(table[f"{name}_p"].astype(float)))
    return table
