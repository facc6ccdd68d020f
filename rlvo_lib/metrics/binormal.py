"""The binormal model with equal variances: what two normal score distributions imply and yield.

Scores of non-events are N(0, 1), of events N(d, 1) with d = sqrt(2) * normal quantile of the AUC
(`separation`). The log odds of an event are then a straight line in the score, so that an AUC and a
prevalence fix everything else. Exact values come from formulas and numerical integration; where
there is none, test sets are drawn: always with a seed, all draws at once.

References: Hanley and McNeil, Radiology 1982 (variance of the AUC); Owen, Ann. Math. Stat. 1956
(bivariate normal probability); DeLong et al., Biometrics 1988.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, quantile

DRAWS = 20_000
NODES = 400  # of the integration over a standard normal, from -10 to 10


@dataclass(frozen=True)
class BestF1:
    """The threshold on the score that maximises F1 in the population, and what it gives."""

    threshold: float
    f1: float
    sensitivity: float
    specificity: float


def separation(area: float) -> float:
    """Distance of the two means, in standard deviations, that gives an AUC.

    >>> round(separation(0.70), 4)
    0.7416
    """
    from scipy.special import ndtri

    if not 0 < area < 1:
        raise InputError(f"AUC is {area!r}; allowed: between 0 and 1, ends excluded")
    return float(np.sqrt(2) * ndtri(area))


def auc_variance(area: float, events: float, n: float) -> float:
    """Exact variance of the AUC of a sample (Hanley and McNeil's form, binormal probabilities).

    The probability that two events (or two non-events) both rank right against the same patient is
    that of two standard normals with correlation 1/2, both below the normal quantile of the AUC.

    >>> round(auc_variance(0.70, 16, 118) ** 0.5, 4)
    0.0698
    """
    from scipy.special import owens_t

    h = separation(area) / np.sqrt(2)
    both = area - 2 * owens_t(h, np.sqrt(1 / 3))
    return float((area * (1 - area) + (n - 2) * (both - area**2)) / (events * (n - events)))


def averaged_auc(area: float, models: int, correlation: float) -> float:
    """AUC of the mean of several equally good scores whose scores correlate within each class.

    >>> round(averaged_auc(0.70, 4, 0.92), 3), averaged_auc(0.70, 4, 1.0)
    (0.706, 0.7)
    """
    from scipy.special import ndtr

    spread = np.sqrt((1 + (models - 1) * correlation) / models)
    return round(float(ndtr(separation(area) / np.sqrt(2) / spread)), 12)


def expectations(area: float, prevalence: float) -> tuple[Floats, Floats, Floats]:
    """Points for integrals over patients: log odds (2 * `NODES`,), outcome 1/0, and weight.

    The weights sum to 1; the log odds are those of the model itself (perfect calibration).
    """
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence is {prevalence!r}; allowed: between 0 and 1, ends excluded")
    d = separation(area)
    x = np.linspace(-10, 10, NODES)
    weight = np.exp(-(x**2) / 2)
    weight /= weight.sum()
    score = np.concatenate([x, x + d])
    outcome = np.repeat([0.0, 1.0], NODES)
    log_odds = np.log(prevalence / (1 - prevalence)) + d * score - d**2 / 2
    return log_odds, outcome, np.concatenate([weight * (1 - prevalence), weight * prevalence])


def best_f1(area: float, prevalence: float) -> BestF1:
    """The best F1 that a threshold reaches in the population: 2 TP / (2 TP + FP + FN) of shares.

    >>> best = best_f1(0.70, 16 / 118)
    >>> round(best.f1, 3), round(best.sensitivity, 2), round(best.specificity, 2)
    (0.338, 0.51, 0.76)
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import ndtr

    d = separation(area)

    def f1(threshold: float) -> float:
        sensitivity, flagged = ndtr(d - threshold), ndtr(-threshold)
        positive = prevalence * sensitivity
        return float(2 * positive / (positive + (1 - prevalence) * flagged + prevalence))

    grid = np.linspace(-8, 8 + abs(d), 400)
    start = int(np.argmax([f1(t) for t in grid]))
    bounds = (grid[max(start - 1, 0)], grid[min(start + 1, grid.size - 1)])
    found = minimize_scalar(
        lambda t: -f1(t), bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    t = float(found.x)
    return BestF1(t, f1(t), float(ndtr(d - t)), float(ndtr(t)))


# --------------------------------------------------------------------------------- drawn test sets


def _noise(events: int, n: int, draws: int, rng: np.random.Generator) -> Floats:
    if not 0 < events < n or draws < 1:
        raise InputError(
            f"{events} events of {n} patients, {draws} draws; allowed: 0 < events < n, draws >= 1"
        )
    return rng.standard_normal((draws, n))


def placements(scores: Floats, events: int) -> tuple[Floats, Floats]:
    """Of each event the share of non-events below it, of each non-event that of events above it.

    Parameters
    ----------
    scores : ``(draws, n)`` without ties, events in the first columns.

    Returns
    -------
    above : ``(draws, events)``
    below : ``(draws, n - events)``; the mean of either is the AUC.

    >>> above, below = placements(np.array([[0.8, 0.35, 0.1, 0.4]]), 2)
    >>> above.tolist(), below.tolist()
    ([[1.0, 0.5]], [[1.0, 0.5]])
    """
    n = scores.shape[1]
    order = np.argsort(scores, axis=1)
    others_below = np.cumsum(order >= events, axis=1, dtype=np.int32)
    counts = np.empty_like(others_below)
    np.put_along_axis(counts, order, others_below, axis=1)
    ranks = np.empty_like(counts)
    np.put_along_axis(ranks, order, np.arange(1, n + 1, dtype=np.int32)[None, :], axis=1)
    events_below = ranks[:, events:] - counts[:, events:]
    return counts[:, :events] / (n - events), 1 - events_below / events


def _variance(above: Floats, below: Floats) -> Floats:
    """DeLong's variance of each draw's AUC (or of a difference, from differences of placements)."""
    return above.var(axis=1, ddof=1) / above.shape[1] + below.var(axis=1, ddof=1) / below.shape[1]


def simulate_auc(
    area: float, events: int, n: int, *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Drawn test sets, one a row: the observed AUC, its DeLong SE, both DeLong intervals.

    Returns
    -------
    DataFrame with auc, se, low, high (AUC scale, not cut at 0 and 1), logit_low, logit_high; the
    logit interval of a perfect separation is that AUC alone.
    """
    from scipy.special import expit, logit

    scores = _noise(events, n, draws, np.random.default_rng(seed))
    scores[:, :events] += separation(area)
    above, below = placements(scores, events)
    auc, se = above.mean(axis=1), np.sqrt(_variance(above, below))
    half = quantile(level) * se
    inside = (auc > 0) & (auc < 1)
    safe = np.where(inside, auc, 0.5)
    on_logit = half / (safe * (1 - safe))
    return pd.DataFrame(
        {
            "auc": auc,
            "se": se,
            "low": auc - half,
            "high": auc + half,
            "logit_low": np.where(inside, expit(logit(safe) - on_logit), auc),
            "logit_high": np.where(inside, expit(logit(safe) + on_logit), auc),
        }
    )


def simulate_pair(
    area_a: float,
    area_b: float,
    correlation: float,
    events: int,
    n: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Drawn test sets scored by two models, one a row, with the paired DeLong test.

    ``correlation`` is that of the two scores within each class; it lies a little above the
    correlation of the two AUCs.

    Returns
    -------
    DataFrame with auc_a, auc_b, difference (a - b), se, p (two-sided; 1 if the SE is 0 and so is
    the difference).
    """
    from scipy.special import ndtr

    if not -1 <= correlation <= 1:
        raise InputError(f"correlation is {correlation!r}; allowed: -1 to 1")
    rng = np.random.default_rng(seed)
    a = _noise(events, n, draws, rng)
    b = correlation * a + np.sqrt(1 - correlation**2) * _noise(events, n, draws, rng)
    a[:, :events] += separation(area_a)
    b[:, :events] += separation(area_b)
    (above_a, below_a), (above_b, below_b) = placements(a, events), placements(b, events)
    auc_a, auc_b = above_a.mean(axis=1), above_b.mean(axis=1)
    se = np.sqrt(_variance(above_a - above_b, below_a - below_b))
    difference = auc_a - auc_b
    z = np.divide(difference, se, out=np.zeros_like(se), where=se > 0)
    return pd.DataFrame(
        {
            "auc_a": auc_a,
            "auc_b": auc_b,
            "difference": difference,
            "se": se,
            "p": 2 * ndtr(-np.abs(z)),
        }
    )


def simulate_f1(
    area: float, events: int, n: int, *, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Drawn test sets, one a row: the AUC, and F1 under two rules for the threshold.

    Returns
    -------
    DataFrame with auc, fixed (F1 at the population's best threshold, set beforehand) and tuned (the
    highest F1 that any threshold reaches on the same patients; at least that of flagging everyone).
    """
    scores = _noise(events, n, draws, np.random.default_rng(seed))
    scores[:, :events] += separation(area)
    flagged = scores >= best_f1(area, events / n).threshold
    fixed = 2 * flagged[:, :events].sum(axis=1) / (flagged.sum(axis=1) + events)
    order = np.argsort(-scores, axis=1)
    hits = np.cumsum(order < events, axis=1, dtype=np.int32)
    tuned = (2 * hits / (np.arange(1, n + 1) + events)).max(axis=1)
    # of each non-event, the events ranked above it: the Mann-Whitney count
    wins = np.where(order >= events, hits, 0).sum(axis=1)
    return pd.DataFrame({"auc": wins / (events * (n - events)), "fixed": fixed, "tuned": tuned})


def simulate_auto_direction(
    area: float, events: int, n: int, *, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Drawn test sets, one a row: the AUC, and what a routine reports that turns scores round.

    It does so where the median score of events is below that of non-events (pROC's
    ``direction = "auto"``).

    Returns
    -------
    DataFrame with auc, flipped (bool), reported.
    """
    scores = _noise(events, n, draws, np.random.default_rng(seed))
    scores[:, :events] += separation(area)
    auc = placements(scores, events)[0].mean(axis=1)
    flipped = np.median(scores[:, :events], axis=1) < np.median(scores[:, events:], axis=1)
    return pd.DataFrame(
        {"auc": auc, "flipped": flipped, "reported": np.where(flipped, 1 - auc, auc)}
    )
