"""ROC and precision-recall curves as tables, and their pointwise bands over patients.

A curve has one row a threshold, from the highest to the lowest; its first row, with no threshold
(NaN), flags nobody. A band gives the curve on a grid, with percentile limits of stratified
resamples at each grid value: 95 % of resampled curves at one value, not whole curves, lie between.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, checked, checked_columns, quantile
from rlvo_lib.metrics.resampling import fixed_stratum, weight_blocks

GRID = tuple(round(0.02 * step, 2) for step in range(51))


def roc_curve(y_true: ArrayLike, score: ArrayLike) -> pd.DataFrame:
    """ROC curve at every observed score; patients are flagged where ``score >= threshold``.

    Returns
    -------
    DataFrame with threshold (NaN in the first row, which flags nobody), fpr, tpr. Thresholds are
    observed scores, as scikit-learn's; pROC gives the midpoints between them (same fpr and tpr).

    Examples
    --------
    >>> roc_curve([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
       threshold  fpr  tpr
    0        NaN  0.0  0.0
    1        0.8  0.0  0.5
    2        0.4  0.5  1.0
    3        0.1  1.0  1.0
    """
    y, s = checked(y_true, score)
    ranking = _Ranking(y, s)
    fpr, tpr = ranking.rates(np.ones(y.size))
    return pd.DataFrame(
        {"threshold": np.append(np.nan, ranking.thresholds), "fpr": fpr, "tpr": tpr}
    )


def precision_recall_curve(y_true: ArrayLike, score: ArrayLike) -> pd.DataFrame:
    """Precision (PPV) and recall (sensitivity) of the event class at every observed score.

    Returns
    -------
    DataFrame with threshold (NaN in the first row: recall 0, precision 1 by convention, as in
    scikit-learn), recall, precision. Between rows the curve is a step, not a line: average
    precision is the sum of precision times the gain in recall.

    Examples
    --------
    >>> precision_recall_curve([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
       threshold  recall  precision
    0        NaN     0.0   1.000000
    1        0.8     0.5   1.000000
    2        0.4     1.0   0.666667
    3        0.1     1.0   0.500000
    """
    y, s = checked(y_true, score)
    ranking = _Ranking(y, s)
    recall, precision = ranking.recall_precision(np.ones(y.size))
    return pd.DataFrame(
        {
            "threshold": np.append(np.nan, ranking.thresholds),
            "recall": np.append(0.0, recall),
            "precision": np.append(1.0, precision),
        }
    )


def roc_band(
    y_true: ArrayLike,
    scores: ArrayLike,
    *,
    fpr: ArrayLike = GRID,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """True positive rate at given false positive rates, with a pointwise stratified bootstrap band.

    Parameters
    ----------
    scores : ``(n,)``, or ``(n, seeds)`` for the mean of the curves of several columns, all of them
        resampled together.
    fpr : grid of false positive rates, 0..1. Between points the curve is a line, and at a rate that
        it has, the highest point counts (both as pROC's ``ci.se``).

    Returns
    -------
    DataFrame with fpr, tpr, low, high (NaN with a single event or non-event: every stratified
    resample holds the same one).

    Examples
    --------
    >>> y, s = [0, 0, 1, 0, 1, 1], [0.1, 0.4, 0.35, 0.2, 0.8, 0.7]
    >>> band = roc_band(y, s, fpr=[0, 0.5], n=200)
    >>> band["tpr"].round(3).tolist(), bool((band["low"] <= band["high"]).all())
    ([0.667, 1.0], True)
    """
    return _band(y_true, scores, _tpr_at, ("fpr", fpr, "tpr"), n=n, seed=seed, level=level)


def precision_recall_band(
    y_true: ArrayLike,
    scores: ArrayLike,
    *,
    recall: ArrayLike = GRID,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Precision at given recalls, with a pointwise stratified bootstrap band.

    The precision at a recall is that of the highest threshold which reaches it (no interpolation;
    at recall 0 that of the highest score), so its mean over all recalls is the average precision.

    Parameters
    ----------
    scores : ``(n,)``, or ``(n, seeds)`` for the mean of the curves of several columns.
    recall : grid, 0..1.

    Returns
    -------
    DataFrame with recall, precision, low, high (NaN as in `roc_band`).

    Examples
    --------
    >>> y, s = [0, 0, 1, 0, 1, 1], [0.1, 0.4, 0.35, 0.2, 0.8, 0.7]
    >>> precision_recall_band(y, s, recall=[0.5, 1], n=200)["precision"].tolist()
    [1.0, 0.75]
    """
    names = ("recall", recall, "precision")
    return _band(y_true, scores, _precision_at, names, n=n, seed=seed, level=level)


def tpr_at(fpr: Floats, tpr: Floats, rates: Floats) -> Floats:
    """True positive rates of an ROC curve at false positive rates: a line between its points, and
    the highest of the points at a rate."""
    left = np.searchsorted(fpr, rates, side="right") - 1
    right = np.minimum(left + 1, fpr.size - 1)
    width = fpr[right] - fpr[left]
    share = np.divide(rates - fpr[left], width, out=np.zeros_like(rates), where=width > 0)
    return tpr[left] + share * (tpr[right] - tpr[left])


class _Ranking:
    """Patients from the highest score to the lowest, ties together."""

    def __init__(self, y: Floats, s: Floats) -> None:
        self.order = np.argsort(-s, kind="stable")
        self.y = y[self.order]
        s = s[self.order]
        self.last = np.append(np.flatnonzero(np.diff(s)), s.size - 1)  # of each tied score
        self.thresholds = s[self.last]

    def _flagged(self, weights: Floats) -> tuple[Floats, Floats]:
        """Events and patients at or above each threshold, of patients with whole weights."""
        weights = weights[self.order]
        return np.cumsum(weights * self.y)[self.last], np.cumsum(weights)[self.last]

    def rates(self, weights: Floats) -> tuple[Floats, Floats]:
        """False and true positive rates, from flagging nobody on."""
        tp, flagged = (np.append(0.0, count) for count in self._flagged(weights))
        return (flagged - tp) / (flagged[-1] - tp[-1]), tp / tp[-1]

    def recall_precision(self, weights: Floats) -> tuple[Floats, Floats]:
        """Recall and precision at each threshold that flags anybody."""
        tp, flagged = self._flagged(weights)
        kept = flagged > 0
        return tp[kept] / tp[-1], tp[kept] / flagged[kept]


def _tpr_at(ranking: _Ranking, weights: Floats, grid: Floats) -> Floats:
    return tpr_at(*ranking.rates(weights), grid)


def _precision_at(ranking: _Ranking, weights: Floats, grid: Floats) -> Floats:
    recall, precision = ranking.recall_precision(weights)
    return precision[np.searchsorted(recall, grid, side="left")]


def _band(
    y_true: ArrayLike,
    scores: ArrayLike,
    curve: Callable[[_Ranking, Floats, Floats], Floats],
    names: tuple[str, ArrayLike, str],
    *,
    n: int,
    seed: int,
    level: float,
) -> pd.DataFrame:
    """A curve on a grid, mean over the columns, and its percentiles over resamples."""
    x_name, values, y_name = names
    quantile(level)
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 1 or grid.size == 0 or not ((grid >= 0) & (grid <= 1)).all():
        raise InputError(f"{x_name} is {values!r}; allowed: one or more values in 0 to 1")
    y, s = checked_columns(y_true, scores)
    rankings = [_Ranking(y, column) for column in s.T]

    def mean(weights: Floats) -> Floats:
        return np.mean([curve(ranking, weights, grid) for ranking in rankings], axis=0)

    blocks = weight_blocks(y, n=n, seed=seed, stratified=True)
    drawn = np.array([mean(weights) for block in blocks for weights in block.T])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    if fixed_stratum(y):
        low = high = np.nan
    return pd.DataFrame({x_name: grid, y_name: mean(np.ones(y.size)), "low": low, "high": high})
