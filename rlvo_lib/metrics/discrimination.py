"""AUC and average precision: their values, intervals and paired comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, as_labels, as_scores, checked, quantile
from rlvo_lib.metrics.resampling import Interval, bootstrap_ci

ROUNDING = 1e-15  # a DeLong variance below this is rounding error around 0


@dataclass(frozen=True)
class AucDifference:
    """Difference of two AUCs on the same patients, first minus second."""

    auc_a: float
    auc_b: float
    difference: float
    se: float
    z: float
    p: float
    low: float
    high: float
    n: int
    events: int
    reason: str = ""


def auc(y_true: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: P(score of an event > score of a non-event), ties one half.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    >>> auc([0, 1], [0.5, 0.5])
    0.5
    """
    return float(delong_covariance(y_true, score)[0][0])


def delong_covariance(y_true: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """AUCs of k scores on the same patients, and their ``(k, k)`` DeLong covariance.

    Parameters
    ----------
    scores : ``(n,)`` or ``(n, k)``

    Returns
    -------
    aucs : ``(k,)``
    covariance : ``(k, k)``; NaN with fewer than two events or two non-events.

    Examples
    --------
    >>> aucs, covariance = delong_covariance([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    >>> aucs.tolist(), covariance.tolist()
    ([0.75], [[0.125]])
    """
    from scipy.stats import rankdata

    y = as_labels(y_true)
    s = as_scores(scores, y)
    s = s[:, None] if s.ndim == 1 else s
    event = y == 1
    n1, n0 = int(event.sum()), int((~event).sum())
    rank = rankdata(s, axis=0)
    # share of non-events below each event, and of events above each non-event: mid-ranks
    above = (rank[event] - rankdata(s[event], axis=0)) / n0
    below = 1 - (rank[~event] - rankdata(s[~event], axis=0)) / n1
    aucs = above.mean(axis=0)
    if min(n1, n0) < 2:
        return aucs, np.full((s.shape[1],) * 2, np.nan)
    covariance = np.cov(above.T, ddof=1) / n1 + np.cov(below.T, ddof=1) / n0
    return aucs, np.atleast_2d(covariance)


def auc_ci(
    y_true: ArrayLike,
    score: ArrayLike,
    method: Literal["delong-logit", "delong", "hanley-mcneil", "bootstrap"] = "delong-logit",
    *,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """AUC with a confidence interval over patients.

    ``delong-logit`` takes the DeLong interval on the logit scale (coverage is nearer 95 % at 16
    events); ``delong`` is the same on the AUC scale, cut at 0 and 1; ``hanley-mcneil`` needs only
    the AUC and the counts; ``bootstrap`` is the percentile of ``n`` stratified resamples.

    >>> ci = auc_ci([0, 0, 1, 0, 1, 1], [0.1, 0.4, 0.35, 0.2, 0.8, 0.7])
    >>> round(ci.estimate, 3), round(ci.low, 3), round(ci.high, 3)
    (0.889, 0.261, 0.995)
    """
    allowed = ("delong-logit", "delong", "hanley-mcneil", "bootstrap")
    if method not in allowed:
        raise InputError(f"method is '{method}'; allowed: {', '.join(allowed)}")
    if method == "bootstrap":
        return bootstrap_ci(y_true, score, "auc", level=level, n=n, seed=seed)
    y, s = checked(y_true, score)
    aucs, covariance = delong_covariance(y, s)
    area, variance = float(aucs[0]), float(covariance[0, 0])
    if method == "hanley-mcneil":
        variance = hanley_mcneil_se(area, events=int(y.sum()), n=y.size) ** 2
    low, high, reason = auc_interval(area, variance, logit=method == "delong-logit", level=level)
    se = float(np.sqrt(variance)) if variance >= 0 else np.nan
    return Interval(area, low, high, se, method, y.size, int(y.sum()), reason)


def auc_interval(
    area: float, variance: float, *, logit: bool = True, level: float = 0.95
) -> tuple[float, float, str]:
    """Limits of an AUC from its variance, and the reason where they are NaN.

    >>> low, high, reason = auc_interval(0.70, 0.077**2, logit=False)
    >>> round(low, 3), round(high, 3), reason
    (0.549, 0.851, '')
    """
    z = quantile(level)
    if np.isnan(variance):
        return np.nan, np.nan, "fewer than two events or two non-events: no variance"
    if variance < ROUNDING:
        return (
            np.nan,
            np.nan,
            "the variance is 0 (perfect separation or constant score): no interval",
        )
    half = z * np.sqrt(variance)
    if not logit:
        return float(max(area - half, 0)), float(min(area + half, 1)), ""
    if not 0 < area < 1:
        return np.nan, np.nan, f"the logit of an AUC of {area:g} is infinite: no interval"
    from scipy.special import expit

    centre, half = np.log(area / (1 - area)), half / (area * (1 - area))
    return float(expit(centre - half)), float(expit(centre + half)), ""


def hanley_mcneil_se(area: float, *, events: int, n: int) -> float:
    """Standard error of an AUC from its value and the counts alone (Hanley and McNeil 1982).

    >>> round(hanley_mcneil_se(0.70, events=16, n=118), 4)
    0.077
    """
    if not 0 <= area <= 1 or not 0 < events < n:
        raise InputError(
            f"AUC {area:g}, {events} events of {n}; allowed: 0 <= AUC <= 1, 0 < events < n"
        )
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    others = n - events
    total = area * (1 - area) + (events - 1) * (q1 - area**2) + (others - 1) * (q2 - area**2)
    return float(np.sqrt(total / (events * others)))


def compare_auc(
    y_true: ArrayLike, a: ArrayLike, b: ArrayLike, *, level: float = 0.95
) -> AucDifference:
    """Paired DeLong test of two scores on the same patients: AUC of ``a`` minus AUC of ``b``.

    Scores that rank the patients alike have difference 0 and p = 1.

    >>> compare_auc([0, 1, 0, 1], [0.1, 0.4, 0.3, 0.8], [0.1, 0.4, 0.3, 0.8]).p
    1.0
    """
    y, a = checked(y_true, a, "a")
    _, b = checked(y, b, "b")
    aucs, covariance = delong_covariance(y, np.column_stack([a, b]))
    return contrast_auc(y, aucs, covariance, np.array([1.0, -1.0]), level=level)


def contrast_auc(
    y: ArrayLike, aucs: Floats, covariance: Floats, weights: Floats, *, level: float = 0.95
) -> AucDifference:
    """Test of a weighted sum of correlated AUCs; the weights sum to 0 (see `compare_auc`)."""
    y = as_labels(y)
    z_level = quantile(level)
    auc_a = float(aucs @ np.clip(weights, 0, None))
    auc_b = float(aucs @ np.clip(-weights, 0, None))
    difference = auc_a - auc_b
    variance = float(weights @ covariance @ weights)
    common = dict(auc_a=auc_a, auc_b=auc_b, difference=difference, n=y.size, events=int(y.sum()))
    if np.isnan(variance):
        reason = "fewer than two events or two non-events: no variance"
        return AucDifference(
            **common, se=np.nan, z=np.nan, p=np.nan, low=np.nan, high=np.nan, reason=reason
        )
    if variance < ROUNDING:
        if abs(difference) < 1e-12:
            common["difference"] = 0.0
            return AucDifference(
                **common, se=0.0, z=0.0, p=1.0, low=0.0, high=0.0, reason="same ranking"
            )
        reason = "the variance of the difference is 0: no test"
        return AucDifference(
            **common, se=0.0, z=np.nan, p=np.nan, low=np.nan, high=np.nan, reason=reason
        )
    from scipy.stats import norm

    se = float(np.sqrt(variance))
    z = difference / se
    return AucDifference(
        **common, se=se, z=z, p=float(2 * norm.sf(abs(z))),
        low=difference - z_level * se, high=difference + z_level * se,
    )  # fmt: skip


def average_precision(y_true: ArrayLike, score: ArrayLike) -> float:
    """Average precision (step sum, scikit-learn's definition); a constant score has the prevalence.

    >>> average_precision([0, 0, 0, 1], [0.2, 0.2, 0.2, 0.2])
    0.25
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*checked(y_true, score)))
