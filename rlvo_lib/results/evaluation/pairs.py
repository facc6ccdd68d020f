"""Several scores of the same patients: every pair in AUC and average precision, and at the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.results.evaluation.points import threshold_of
from rlvo_lib.results.evaluation.resampled import Resampled, percentiles
from rlvo_lib.results.evaluation.scored import Scored

COLUMNS = (
    "a", "b", "auc_a", "auc_b", "difference", "low", "high", "z", "p", "p_holm", "bootstrap_low",
    "bootstrap_high", "bootstrap_p", "average_precision_a", "average_precision_b", "average_precision_difference",
    "average_precision_low", "average_precision_high", "n", "events", "reason",
)  # fmt: skip
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
    table = pd.DataFrame([_compared(a, b, drawn) for a, b in combinations(scores, 2)])
    table = table.reindex(columns=list(COLUMNS))
    table["p_holm"] = metrics.holm(table["p"].astype(float))
    return table


def _common(a: Scored, b: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome and both scores of the patients who have both; an `InputError` if they are of one class."""
    _, first, second = np.intersect1d(a.rows, b.rows, assume_unique=True, return_indices=True)
    y = a.y[first]
    metrics.checks.as_labels(y)
    return y, a.s[first], b.s[second]


def _compared(a: Scored, b: Scored, drawn: Resampled) -> dict:
    try:
        y, s, t = _common(a, b)
    except InputError as error:
        return {"a": a.name, "b": b.name, "n": 0, "events": 0, "reason": f"on both: {error}"}
    test = metrics.compare_auc(y, s, t)
    areas, precisions = _differences(a, b, y, s, t, drawn)
    low, high, _ = percentiles(areas, stratified=True)
    precision = metrics.average_precision(y, s), metrics.average_precision(y, t)
    ap_low, ap_high, _ = percentiles(precisions, stratified=False)
    return {
        "a": a.name, "b": b.name, "auc_a": test.auc_a, "auc_b": test.auc_b,
        "difference": test.difference, "low": test.low, "high": test.high, "z": test.z, "p": test.p,
        "bootstrap_low": low, "bootstrap_high": high,
        "bootstrap_p": _p(test.difference, areas),
        "average_precision_a": precision[0], "average_precision_b": precision[1],
        "average_precision_difference": precision[0] - precision[1],
        "average_precision_low": ap_low, "average_precision_high": ap_high,
        "n": test.n, "events": test.events, "reason": test.reason,
    }  # fmt: skip


def _differences(
    a: Scored, b: Scored, y: np.ndarray, s: np.ndarray, t: np.ndarray, drawn: Resampled
) -> tuple[np.ndarray, np.ndarray]:
    """Replicates of both differences; drawn anew where the two were not scored on the same patients."""
    names = ("auc", "average_precision")
    if np.array_equal(a.rows, b.rows):
        first, second = drawn.values[a.name], drawn.values[b.name]
        return tuple(first[name] - second[name] for name in names)
    return tuple(
        found[:, 0] - found[:, 1]
        for name in names
        for found in metrics.bootstrap_many(
            y, np.column_stack([s, t]), (name,), stratified=name == "auc",
            n=drawn.resamples, seed=drawn.seed,
        ).values()
    )  # fmt: skip


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
        cuts = {k: threshold_of(score) for k, score in (("a", a), ("b", b))}
        row = {"a": a.name, "b": b.name}
        row |= {f"threshold_{k}": cut for k, (cut, _) in cuts.items()}
        row |= {f"chosen_{k}": how for k, (_, how) in cuts.items()}
        try:
            y, s, t = _common(a, b)
        except InputError as error:
            rows.append(row | {"n": 0, "events": 0, "reason": f"on both: {error}"})
            continue
        found = metrics.compare_operating_points(
            y, s, t, threshold_a=cuts["a"][0], threshold_b=cuts["b"][0]
        )
        rows.append(row | {name: getattr(found, name) for name in ("n", "events", *FLAGGED, "reason")})  # fmt: skip
    first = ["a", "b", "threshold_a", "threshold_b", "chosen_a", "chosen_b", "n", "events"]
    table = pd.DataFrame(rows).reindex(columns=[*first, *FLAGGED, "reason"])
    for name in ("sensitivity", "specificity"):
        place = table.columns.get_loc(f"{name}_mid_p") + 1
        table.insert(place, f"{name}_p_holm", metrics.holm(table[f"{name}_p"].astype(float)))
    return table
