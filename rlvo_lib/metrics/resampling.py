"""Bootstrap over patients, and adjustment for several tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, checked, quantile


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; ``reason`` says why a field is NaN."""

    estimate: float
    low: float
    high: float
    se: float
    method: str
    n: int
    events: int
    reason: str = ""


Statistic = Callable[[Floats, Floats], float]
_THRESHOLDED = ("f1", "sensitivity", "specificity")
STATISTICS = ("auc", "average_precision", "brier", "scaled_brier", *_THRESHOLDED)


def bootstrap_replicates(
    y_true: ArrayLike,
    score: ArrayLike,
    statistic: str | Statistic = "auc",
    *,
    threshold: float | None = None,
    stratified: bool = True,
    n: int = 2000,
    seed: int = 0,
) -> Floats:
    """``(n,)`` values of a statistic on ``n`` resamples of the patients, with replacement.

    Stratified resamples keep the number of events. The same ``seed`` on the same patients in the
    same order gives the same resamples, whatever the score: differences of replicates are paired.
    ``statistic`` is one of `STATISTICS` (all resamples at once) or a function of (y, score).
    """
    y, s = checked(y_true, score)
    _check_statistic(statistic, threshold)
    weights = resamples(y, n=n, seed=seed, stratified=stratified)
    if callable(statistic):
        counts = weights.astype(int)
        return np.array([statistic(np.repeat(y, c), np.repeat(s, c)) for c in counts], dtype=float)
    return _weighted(statistic, y, s, weights, threshold)


def bootstrap_ci(
    y_true: ArrayLike,
    score: ArrayLike,
    statistic: str | Statistic = "auc",
    *,
    threshold: float | None = None,
    stratified: bool = True,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval over patients (quantiles by linear interpolation).

    >>> ci = bootstrap_ci([0, 0, 1, 0, 1, 1], [0.1, 0.4, 0.35, 0.2, 0.8, 0.7], "auc", n=500, seed=1)
    >>> ci.low < ci.estimate <= ci.high
    True
    """
    y, s = checked(y_true, score)
    quantile(level)
    values = bootstrap_replicates(
        y, s, statistic, threshold=threshold, stratified=stratified, n=n, seed=seed
    )
    if callable(statistic):
        estimate = float(statistic(y, s))
    else:
        estimate = float(_weighted(statistic, y, s, np.ones((1, y.size)), threshold)[0])
    method = f"{'stratified ' if stratified else ''}bootstrap, percentile, {n} resamples"
    undefined = int(np.isnan(values).sum())
    reason = f"undefined in {undefined} of {n} resamples" if undefined else ""
    low, high = (
        (np.nan, np.nan) if undefined else np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    )
    se = np.nan if undefined or n < 2 else float(values.std(ddof=1))
    return Interval(estimate, float(low), float(high), se, method, y.size, int(y.sum()), reason)


def _check_statistic(statistic: str | Statistic, threshold: float | None) -> None:
    if callable(statistic):
        return
    if statistic not in STATISTICS:
        raise InputError(f"statistic is '{statistic}'; allowed: {', '.join(STATISTICS)}")
    if statistic in _THRESHOLDED and (threshold is None or not np.isfinite(threshold)):
        raise InputError(f"statistic '{statistic}' needs a finite threshold; got {threshold!r}")


def resamples(y: Floats, *, n: int, seed: int, stratified: bool) -> Floats:
    """``(n, patients)``: how often each patient is drawn in each resample."""
    if n < 1:
        raise InputError(f"n is {n!r}; allowed: at least 1 resample")
    return _drawn((y == 1).tobytes(), n, seed, stratified)


@lru_cache(maxsize=2)
def _drawn(events: bytes, n: int, seed: int, stratified: bool) -> Floats:
    """The resamples, kept for the next score of the same patients."""
    event = np.frombuffer(events, dtype=bool)
    rng = np.random.default_rng(seed)
    weights = np.empty((n, event.size))
    strata = (event, ~event) if stratified else (np.ones(event.size, bool),)
    for stratum in strata:
        size = int(stratum.sum())
        weights[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=n)
    weights.setflags(write=False)
    return weights


def _weighted(name: str, y: Floats, s: Floats, weights: Floats, threshold: float | None) -> Floats:
    """A statistic for each row of patient weights; NaN where a row has one class only."""
    events, others = weights @ y, weights @ (1 - y)
    with np.errstate(invalid="ignore", divide="ignore"):
        if name in ("brier", "scaled_brier"):
            loss = weights @ (s - y) ** 2 / (events + others)
            prevalence = events / (events + others)
            return loss if name == "brier" else 1 - loss / (prevalence * (1 - prevalence))
        if name in _THRESHOLDED:
            flagged = s >= threshold
            tp, fp = weights @ (flagged * y), weights @ (flagged * (1 - y))
            return {
                "f1": 2 * tp / (tp + fp + events),
                "sensitivity": tp / events,
                "specificity": 1 - fp / others,
            }[name]
        ordered = np.argsort(-s, kind="stable")
        last = np.append(np.flatnonzero(np.diff(s[ordered])), s.size - 1)
        tp = np.cumsum(weights[:, ordered] * y[ordered], axis=1)[:, last]
        fp = np.cumsum(weights[:, ordered] * (1 - y[ordered]), axis=1)[:, last]
        new_tp, new_fp = np.diff(tp, axis=1, prepend=0), np.diff(fp, axis=1, prepend=0)
        if name == "auc":
            return (new_fp * (tp - new_tp / 2)).sum(axis=1) / (events * others)
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0)
        return (new_tp * precision).sum(axis=1) / events


def holm(p: ArrayLike) -> Floats:
    """Holm-adjusted p values; NaN stays NaN and is not counted among the tests.

    >>> [round(x, 4) for x in holm([0.01, 0.04, 0.03]).tolist()]
    [0.03, 0.06, 0.06]
    """
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise InputError("a p value is outside 0 to 1")
    adjusted = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted
