"""Bootstrap over patients: replicates of many scores and statistics at once, and their intervals.

A resample is a count for each patient (how often it was drawn), so a statistic of a resample is the
statistic of weighted patients. Counts are held as ``(patients, resamples)``, some resamples at a
time: memory does not grow with their number. Resamples depend on ``seed``, the labels and their
order only, so replicates of different scores and statistics are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import (
    Floats,
    as_labels,
    as_probabilities,
    checked,
    checked_columns,
    quantile,
)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; ``reason`` says why a field is NaN.

    ``z`` and ``p`` belong to a difference from another score; they are NaN without one.
    """

    estimate: float
    low: float
    high: float
    se: float
    method: str
    n: int
    events: int
    z: float = np.nan
    p: float = np.nan
    reason: str = ""


Statistic = Callable[[Floats, Floats], float]
Seed = int | Sequence[int]
_THRESHOLDED = ("f1", "sensitivity", "specificity")
_PROBABILITY = ("brier", "scaled_brier")
_RANKED = ("auc", "average_precision")
STATISTICS = (*_RANKED, *_PROBABILITY, *_THRESHOLDED)

_ROUNDING = 1e-13  # replicates that differ by less are equal
_BLOCK = 2**17  # counts held at once: about what a processor's own cache holds
_NARROW = 16  # but at least so many resamples


def bootstrap_many(
    y_true: ArrayLike,
    scores: ArrayLike,
    statistics: Sequence[str] = ("auc", "average_precision", "f1", "brier"),
    *,
    thresholds: ArrayLike | None = None,
    stratified: bool = True,
    n: int = 2000,
    seed: Seed = 0,
) -> dict[str, Floats]:
    """Replicates of several statistics of several scores on the same resamples of the patients.

    Parameters
    ----------
    scores : ``(n,)`` or ``(n, k)``, a column a score.
    statistics : of `STATISTICS`.
    thresholds : ``(k,)`` or one for all; needed by f1, sensitivity and specificity.
    stratified : resample events and non-events apart, so that their numbers stay.
    n : resamples.

    Returns
    -------
    dict of statistic -> ``(n, k)`` float64. A resample with one class only, which an unstratified
    one can be, is NaN.

    Raises
    ------
    InputError
        For an unknown statistic, a missing threshold, or a Brier score of values outside 0..1.

    Examples
    --------
    >>> y, scores = [0, 0, 1, 1], [[0.1, 0.4], [0.4, 0.3], [0.35, 0.2], [0.8, 0.1]]
    >>> found = bootstrap_many(y, scores, ("auc", "f1"), thresholds=[0.3, 0.3], n=100)
    >>> found["auc"].shape, found["f1"].shape, bool((found["auc"][:, 1] == 0).all())
    ((100, 2), (100, 2), True)
    """
    y, s = checked_columns(y_true, scores)
    names = (statistics,) if isinstance(statistics, str) else tuple(statistics)
    cuts = _checked_statistics(names, y, s, thresholds)
    columns = _Scores(y, s, names, cuts)
    blocks = weight_blocks(y, n=n, seed=seed, stratified=stratified)
    found = {name: np.empty((n, s.shape[1])) for name in names}
    start = 0
    for weights in blocks:
        stop = start + weights.shape[1]
        for name, values in columns.statistics(weights).items():
            found[name][start:stop] = values.T
        start = stop
    return found


def bootstrap_replicates(
    y_true: ArrayLike,
    score: ArrayLike,
    statistic: str | Statistic = "auc",
    *,
    threshold: float | None = None,
    stratified: bool = True,
    n: int = 2000,
    seed: Seed = 0,
) -> Floats:
    """``(n,)`` values of a statistic on ``n`` resamples of the patients, with replacement.

    Stratified resamples keep the number of events. The same ``seed`` on the same patients in the
    same order gives the same resamples, whatever the score: differences of replicates are paired.
    ``statistic`` is one of `STATISTICS` (see `bootstrap_many`) or a function of (y, score), which
    is not called for a resample with one class only: NaN.
    """
    y, s = checked(y_true, score)
    settings = dict(stratified=stratified, n=n, seed=seed)
    if not callable(statistic):
        return bootstrap_many(y, s, (statistic,), thresholds=threshold, **settings)[statistic][:, 0]
    return np.array(
        [
            _called(statistic, y, s, counts)
            for weights in weight_blocks(y, **settings)
            for counts in weights.T
        ],
        dtype=float,
    )


def bootstrap_ci(
    y_true: ArrayLike,
    score: ArrayLike,
    statistic: str | Statistic = "auc",
    *,
    other: ArrayLike | None = None,
    threshold: float | None = None,
    other_threshold: float | None = None,
    stratified: bool = True,
    paired: bool = True,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval over patients (quantiles by linear interpolation).

    Parameters
    ----------
    other : a second score; the interval is then that of ``statistic(score) - statistic(other)``,
        with z = difference / SD of the replicates and a normal p (pROC's rule).
    other_threshold : threshold of ``other``; that of ``score`` if not given.
    paired : draw the same patients for both scores. False: the two scores are resampled
        independently, and ``y_true`` may be a pair of the labels of each, for different patients.

    Returns
    -------
    Interval. Limits are NaN, with a reason, where a resample has no value (one class only), where all
    resamples give the same one (perfect separation), or where stratified ones draw the same single
    event (or non-event) every time; equal replicates of both scores give p = 1.

    Examples
    --------
    >>> ci = bootstrap_ci([0, 0, 1, 0, 1, 1], [0.1, 0.4, 0.35, 0.2, 0.8, 0.7], "auc", n=500, seed=1)
    >>> ci.low < ci.estimate <= ci.high
    True
    """
    quantile(level)
    y, y_other = label_pair(y_true, paired=paired)
    settings = dict(stratified=stratified, n=n)
    estimate, values = _estimated(y, score, statistic, threshold, seed=seed, **settings)
    kind = f"{'stratified ' if stratified else ''}bootstrap, percentile, {n} resamples"
    counted = (y.size, int(y.sum()))
    if other is None:
        if y_other is not y:
            raise InputError("y_true is a pair of labels; that needs other, the second score")
        if stratified and (alone := fixed_stratum(y)):
            return Interval(estimate, *(np.nan,) * 3, kind, *counted, reason=alone)
        return _interval(estimate, values, level=level, method=kind, counted=counted)
    if y_other is not y:
        counted = (y.size + y_other.size, int(y.sum() + y_other.sum()))
    subtracted, others = _estimated(
        y_other, other, statistic, threshold if other_threshold is None else other_threshold,
        seed=seed if paired else (seed, 1), **settings,
    )  # fmt: skip
    method = f"{'paired' if paired else 'unpaired'} {kind}"
    difference, values = estimate - subtracted, values - others
    if paired and (np.abs(np.append(values, difference)) <= _ROUNDING).all():
        reason = "both scores have the same value in every resample"
        return Interval(0.0, 0.0, 0.0, 0.0, method, *counted, z=0.0, p=1.0, reason=reason)
    if stratified and (alone := fixed_stratum(y) or fixed_stratum(y_other)):
        return Interval(difference, *(np.nan,) * 3, method, *counted, reason=alone)
    return _tested(_interval(difference, values, level=level, method=method, counted=counted))


def fixed_stratum(y: Floats) -> str:
    """Why stratified resamples say nothing of the spread, or an empty text.

    >>> fixed_stratum(np.array([0.0, 0.0, 1.0]))
    'one event: the same in every stratified resample, no interval'
    """
    events = int(y.sum())
    name = "event" if events == 1 else "non-event" if y.size - events == 1 else ""
    return f"one {name}: the same in every stratified resample, no interval" if name else ""


def label_pair(y_true: ArrayLike, *, paired: bool) -> tuple[Floats, Floats]:
    """Labels of the first and the second score: the same, or those of a pair if not ``paired``."""
    pair = isinstance(y_true, tuple | list) and len(y_true) == 2 and all(np.ndim(v) for v in y_true)
    if pair and paired:
        raise InputError("y_true is a pair of labels; that needs paired=False")
    if pair:
        return as_labels(y_true[0]), as_labels(y_true[1])
    y = as_labels(y_true)
    return y, y


def weight_blocks(y: Floats, *, n: int, seed: Seed, stratified: bool) -> Iterator[Floats]:
    """``(patients, resamples)`` counts, some of the ``n`` resamples at a time.

    Each stratum has a random stream of its own, so the counts do not depend on the block's width.
    """
    if not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n is {n!r}; allowed: at least 1 resample, a whole number")
    return _blocks(y, n, seed, stratified)


def _blocks(y: Floats, n: int, seed: Seed, stratified: bool) -> Iterator[Floats]:
    event = y == 1
    strata = [np.flatnonzero(event), np.flatnonzero(~event)] if stratified else [np.arange(y.size)]
    streams = np.random.default_rng(seed).spawn(len(strata))
    width = max(_BLOCK // y.size, _NARROW)
    for start in range(0, n, width):
        weights = np.empty((y.size, min(width, n - start)))
        for stratum, stream in zip(strata, streams, strict=True):
            weights[stratum] = _drawn(stratum.size, weights.shape[1], stream).T
        yield weights


def _drawn(size: int, times: int, stream: np.random.Generator) -> np.ndarray:
    """``(times, size)`` counts of ``size`` draws with replacement."""
    drawn = stream.integers(size, size=(times, size)) + size * np.arange(times)[:, None]
    return np.bincount(drawn.ravel(), minlength=times * size).reshape(times, size)


def _called(statistic: Statistic, y: Floats, s: Floats, counts: Floats) -> float:
    chosen = np.repeat(np.arange(y.size), counts.astype(int))
    labels = y[chosen]
    return np.nan if labels.min() == labels.max() else float(statistic(labels, s[chosen]))


def _estimated(
    y: Floats, score: ArrayLike, statistic: str | Statistic, threshold: float | None, **settings
) -> tuple[float, Floats]:
    """A statistic of all patients, and its replicates."""
    values = bootstrap_replicates(y, score, statistic, threshold=threshold, **settings)
    y, s = checked_columns(y, score)
    if callable(statistic):
        return float(statistic(y, s[:, 0])), values
    cuts = _checked_statistics((statistic,), y, s, threshold)
    everyone = _Scores(y, s, (statistic,), cuts).statistics(np.ones((y.size, 1)))
    return float(everyone[statistic][0, 0]), values


def _interval(
    estimate: float, values: Floats, *, level: float, method: str, counted: tuple[int, int]
) -> Interval:
    undefined = int(np.isnan(values).sum())
    if undefined:
        reason = f"undefined in {undefined} of {values.size} resamples"
        return Interval(estimate, np.nan, np.nan, np.nan, method, *counted, reason=reason)
    se = float(values.std(ddof=1)) if values.size > 1 else np.nan
    if np.ptp(values) <= _ROUNDING:
        reason = f"the same value in all {values.size} resamples: no interval"
        return Interval(estimate, np.nan, np.nan, se, method, *counted, reason=reason)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), se, method, *counted)


def _tested(found: Interval) -> Interval:
    """The interval of a difference, with its test against 0."""
    from scipy.stats import norm

    if found.reason or not found.se > 0:
        return found
    z = found.estimate / found.se
    return replace(found, z=z, p=float(2 * norm.sf(abs(z))))


def _checked_statistics(
    names: tuple[str | Statistic, ...], y: Floats, s: Floats, thresholds: ArrayLike | None
) -> Floats | None:
    """The thresholds, one a column, or None where no statistic needs one."""
    for name in names:
        if name not in STATISTICS:
            raise InputError(f"statistic is '{name}'; allowed: {', '.join(STATISTICS)}")
    if set(names) & set(_PROBABILITY):
        for column in s.T:
            as_probabilities(y, column)
    needing = [name for name in names if name in _THRESHOLDED]
    if not needing:
        return None
    cuts = np.asarray(np.nan if thresholds is None else thresholds, dtype=float)
    if cuts.ndim > 1 or cuts.size not in (1, s.shape[1]):
        raise InputError(f"thresholds have shape {cuts.shape}; allowed: one for each of the scores")
    if not np.isfinite(cuts).all():
        raise InputError(f"statistic '{needing[0]}' needs a finite threshold; got {thresholds!r}")
    return np.broadcast_to(cuts, s.shape[1])


class _Scores:
    """Scores prepared once for their statistics in any weighting of the patients."""

    def __init__(
        self, y: Floats, s: Floats, names: tuple[str, ...], thresholds: Floats | None
    ) -> None:
        self.names = names
        # what is summed over the patients of a resample, a row each
        parts = {"events": y[None], "others": 1 - y[None]}
        if set(names) & set(_PROBABILITY):
            parts["loss"] = (s - y[:, None]).T ** 2
        if thresholds is not None:
            flagged = (s >= thresholds).T
            parts |= {"flagged": flagged, "tp": flagged * y}
        self._parts, self._rows = list(parts), np.vstack([*parts.values()])
        self._ends = np.cumsum([len(part) for part in parts.values()])[:-1]
        self._rankings: list[_Ranking] = []
        if set(names) & set(_RANKED):
            self._rankings = [_Ranking(y, column) for column in s.T]

    def statistics(self, weights: Floats) -> dict[str, Floats]:
        """``(k, resamples)`` of each statistic; NaN where only one class was drawn."""
        # not `@`: products this small wait for BLAS threads, whose number can change the last digit
        rows = np.einsum("pn,nr->pr", self._rows, weights)
        sums = dict(zip(self._parts, np.split(rows, self._ends), strict=True))
        alone = (sums["events"] == 0) | (sums["others"] == 0)
        events, others = (np.where(alone, np.nan, sums[name]) for name in ("events", "others"))
        found: dict[str, Floats] = {}
        if self._rankings:
            found |= self._ranked(weights, events, events * others)
        if "loss" in sums:
            brier = sums["loss"] / (events + others)
            no_skill = events * others / (events + others) ** 2
            found |= {"brier": brier, "scaled_brier": 1 - brier / no_skill}
        if "flagged" in sums:
            found["f1"] = 2 * sums["tp"] / (sums["flagged"] + events)
            found["sensitivity"] = sums["tp"] / events
            found["specificity"] = 1 - (sums["flagged"] - sums["tp"]) / others
        return {name: found[name] for name in self.names}

    def _ranked(self, weights: Floats, events: Floats, pairs: Floats) -> dict[str, Floats]:
        sums = np.array([ranking.sums(weights) for ranking in self._rankings])
        return {"auc": (pairs - sums[:, 0]) / pairs, "average_precision": sums[:, 1] / events}


class _Ranking:
    """Patients from the highest score to the lowest, as segments that are summed together.

    A segment is one score that an event has, with all patients who share it, or the patients
    between two such scores, of whom only the number counts.
    """

    def __init__(self, y: Floats, s: Floats) -> None:
        self.order = np.argsort(-s, kind="stable")
        y, s = y[self.order], s[self.order]
        start = np.append(True, np.diff(s) != 0)  # of tied scores
        tie = np.cumsum(start) - 1
        with_event = np.bincount(tie, weights=y) > 0
        opens = with_event | np.append(True, with_event[:-1])
        self.starts = np.flatnonzero(start)[opens]
        self.with_event = with_event[opens]
        self.events = np.flatnonzero(y == 1)
        self.event_starts = np.flatnonzero(np.append(True, np.diff(tie[self.events]) != 0))

    def sums(self, weights: Floats) -> tuple[Floats, Floats]:
        """``(resamples,)``: pairs in which the non-event is above (ties one half), and the
        precision at each event summed over events."""
        ordered = weights[self.order]
        size = np.add.reduceat(ordered, self.starts, axis=0)
        flagged = np.cumsum(size, axis=0)[self.with_event]
        new = np.add.reduceat(ordered[self.events], self.event_starts, axis=0)
        tp = np.cumsum(new, axis=0)
        above = (flagged - tp) - (size[self.with_event] - new) / 2
        precision = np.divide(tp, flagged, out=np.zeros_like(tp), where=flagged > 0)
        return (new * above).sum(axis=0), (new * precision).sum(axis=0)
