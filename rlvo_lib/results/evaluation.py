"""The statistics of anyone's predictions: a table with an outcome and probability columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.results.probabilities import CLIP
from rlvo_lib.results.uncertainty import bootstrap_limits

SAME_DATA = "threshold of maximal F1, chosen on these same patients: optimistic"
NOT_PROBABILITY = "not a probability (outside 0 to 1): not estimated"


def evaluate(
    frame: pd.DataFrame,
    truth: str = "y_true",
    scores: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 2025,
) -> pd.DataFrame:
    """Discrimination, classification and calibration of one or more columns against an outcome.

    Parameters
    ----------
    frame : one row a patient.
    truth : the column with the outcome, 0 or 1.
    scores : the probability columns; none: every numeric column other than the outcome whose values
        lie in 0..1 and are not just 0 and 1, or constant.

    Returns
    -------
    DataFrame with score, metric, value, low, high (95 % over patients), n, events, missing (rows left
    out for want of outcome or score), method.

    Raises
    ------
    InputError
        For an unknown column, an outcome that is not 0/1, or a score that is not numeric.
    """
    wanted = list(scores or ())
    for column in (truth, *wanted):
        if column not in frame:
            known = ", ".join(map(str, frame.columns))
            raise InputError(f"column '{column}' is not in the table; its columns: {known}")
    chosen = wanted or _probability_columns(frame, truth)
    if not chosen:
        raise InputError(
            f"no column besides '{truth}' holds probabilities (0 to 1); name one as score"
        )
    return pd.concat(
        [_evaluate_one(frame, truth, score, resamples, seed) for score in chosen], ignore_index=True
    )


def _probability_columns(frame: pd.DataFrame, truth: str) -> list[str]:
    """Numeric columns within 0..1 that hold more than 0 and 1 or a constant."""
    numeric = frame.select_dtypes("number").drop(columns=truth, errors="ignore")
    values = {c: numeric[c].dropna() for c in numeric}
    return [
        c
        for c, v in values.items()
        if v.between(0, 1).all() and v.nunique() > 1 and not v.isin((0, 1)).all()
    ]


def _evaluate_one(
    frame: pd.DataFrame, truth: str, score: str, resamples: int, seed: int
) -> pd.DataFrame:
    both = frame[[truth, score]].dropna() if score != truth else None
    if both is None:
        raise InputError(f"column '{truth}' is given both as outcome and as score")
    if both.empty:
        raise InputError(f"score '{score}': no row has both '{truth}' and '{score}'")
    try:
        y, s = metrics.checks.checked(both[truth].to_numpy(), both[score].to_numpy(), "score")
    except InputError as error:
        raise InputError(f"outcome '{truth}', score '{score}': {error}") from None
    rows = _discrimination(y, s, resamples, seed) + _at_best_f1(y, s, resamples, seed)
    rows += _calibration(y, s, resamples, seed)
    rows += [
        ("auc of no skill", 0.5, np.nan, np.nan, "ranking at random"),
        ("average precision of no skill", float(y.mean()), np.nan, np.nan, "prevalence"),
        ("f1 of flagging everyone", metrics.flag_everyone_f1(y), np.nan, np.nan, "no skill"),
        ("f1 of a coin", metrics.coin_f1(y), np.nan, np.nan, "no skill; expected"),
    ]
    table = pd.DataFrame(rows, columns=["metric", "value", "low", "high", "method"])
    table.insert(0, "score", score)
    counts = {"n": y.size, "events": int(y.sum()), "missing": len(frame) - y.size}
    for place, (name, count) in enumerate(counts.items(), start=5):
        table.insert(place, name, count)
    return table


def _discrimination(y: np.ndarray, s: np.ndarray, resamples: int, seed: int) -> list[tuple]:
    area = metrics.auc_ci(y, s)
    note = f"DeLong, logit scale{'; ' + area.reason if area.reason else ''}"
    limits = bootstrap_limits(y, [(s, None)], "average_precision", resamples=resamples, seed=seed)
    return [
        ("auc", area.estimate, area.low, area.high, note),
        ("average precision", metrics.average_precision(y, s), *limits),
    ]


def _at_best_f1(y: np.ndarray, s: np.ndarray, resamples: int, seed: int) -> list[tuple]:
    threshold = metrics.threshold_by(y, s, rule="max-f1")
    point = metrics.operating_point(y, s, threshold)
    low, high, how = bootstrap_limits(y, [(s, threshold)], "f1", resamples=resamples, seed=seed)
    rows = [
        ("threshold", threshold, np.nan, np.nan, SAME_DATA),
        ("f1 (event class)", point.f1, low, high, f"{SAME_DATA}; {how}"),
    ]
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        limits = (getattr(point, f"{name}_low"), getattr(point, f"{name}_high"))
        rows.append((name, getattr(point, name), *limits, f"{SAME_DATA}; Wilson"))
    return rows


def _calibration(y: np.ndarray, s: np.ndarray, resamples: int, seed: int) -> list[tuple]:
    names = (
        "brier",
        "scaled brier",
        "calibration in the large",
        "calibration slope",
        "observed / expected",
    )
    if s.min() < 0 or s.max() > 1:
        return [(name, np.nan, np.nan, np.nan, NOT_PROBABILITY) for name in names]
    result = metrics.calibration(y, s, clip=CLIP)
    moved = (
        f"; {result.n_clipped} probabilities of 0 or 1 moved by {CLIP:g}"
        if result.n_clipped
        else ""
    )
    reason = f"; {result.reason}" if result.reason else ""
    rows = []
    losses = {"brier": metrics.brier_loss(y, s), "scaled_brier": metrics.scaled_brier(y, s)}
    for name, (statistic, found) in zip(names, losses.items(), strict=False):
        limits = bootstrap_limits(y, [(s, None)], statistic, resamples=resamples, seed=seed)
        rows.append((name, found, *limits))
    wald = f"logistic model, Wald{moved}"
    intercept = (result.intercept, result.intercept_low, result.intercept_high)
    slope = (result.slope, result.slope_low, result.slope_high)
    rows.append((names[2], *intercept, f"{wald}; slope fixed at 1"))
    rows.append((names[3], *slope, f"{wald}{reason}"))
    rows.append((names[4], result.o_to_e, np.nan, np.nan, "events / sum of probabilities"))
    return rows
