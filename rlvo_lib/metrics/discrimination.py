"""AUC, partial AUC and average precision, and the intervals of an AUC."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, checked, checked_columns, quantile
from rlvo_lib.metrics.curves import roc_curve, tpr_at
from rlvo_lib.metrics.resampling import Interval, bootstrap_ci

ROUNDING = 1e-15  # a DeLong variance below this is rounding error around 0
AUC_METHODS = ("delong", "delong-logit", "hanley-mcneil", "bootstrap")


def auc(y_true: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: P(score of an event > score of a non-event), ties one half.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    >>> auc([0, 1], [0.5, 0.5])
    0.5
    """
    from scipy.stats import rankdata

    y, s = checked(y_true, score)
    events = int(y.sum())
    ranks = rankdata(s)[y == 1].sum()
    return float((ranks - events * (events + 1) / 2) / (events * (y.size - events)))


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

    y, s = checked_columns(y_true, scores)
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
    method: Literal["delong", "delong-logit", "hanley-mcneil", "bootstrap"] = "delong",
    *,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """AUC with a confidence interval over patients.

    ``delong`` takes the DeLong variance on the AUC scale and cuts the limits at 0 and 1, as pROC;
    ``delong-logit`` takes it on the logit scale (coverage is nearer 95 % at 16 events);
    ``hanley-mcneil`` needs only the AUC and the counts; ``bootstrap`` is the percentile of ``n``
    stratified resamples. Where the variance is 0 (perfect separation, constant score) or undefined
    (one event) the limits are NaN and ``reason`` says so; pROC gives 1 to 1.

    >>> ci = auc_ci([0, 0, 1, 0, 1, 1], [0.1, 0.4, 0.35, 0.2, 0.8, 0.7])
    >>> round(ci.estimate, 3), round(ci.low, 3), round(ci.high, 3)
    (0.889, 0.581, 1.0)
    >>> ci = auc_ci([0, 0, 1, 0, 1, 1], [0.1, 0.4, 0.35, 0.2, 0.8, 0.7], "delong-logit")
    >>> round(ci.estimate, 3), round(ci.low, 3), round(ci.high, 3)
    (0.889, 0.261, 0.995)
    """
    if method not in AUC_METHODS:
        raise InputError(f"method is '{method}'; allowed: {', '.join(AUC_METHODS)}")
    if method == "bootstrap":
        return bootstrap_ci(y_true, score, "auc", level=level, n=n, seed=seed)
    y, s = checked(y_true, score)
    aucs, covariance = delong_covariance(y, s)
    area, variance = float(aucs[0]), float(covariance[0, 0])
    if method == "hanley-mcneil":
        variance = hanley_mcneil_se(area, events=int(y.sum()), n=y.size) ** 2
    low, high, reason = auc_interval(area, variance, logit=method == "delong-logit", level=level)
    se = float(np.sqrt(variance)) if variance >= 0 else np.nan
    return Interval(area, low, high, se, method, y.size, int(y.sum()), reason=reason)


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


def average_precision(y_true: ArrayLike, score: ArrayLike) -> float:
    """Average precision (step sum, scikit-learn's definition); a constant score has the prevalence.

    >>> average_precision([0, 0, 0, 1], [0.2, 0.2, 0.2, 0.2])
    0.25
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*checked(y_true, score)))


def partial_auc(
    y_true: ArrayLike, score: ArrayLike, *, max_fpr: float, corrected: bool = False
) -> float:
    """Area under the ROC curve where the false positive rate is at most ``max_fpr``.

    Parameters
    ----------
    max_fpr : above 0, at most 1. The curve is cut there by linear interpolation.
    corrected : McClish's (1989) rescaling, 0.5 for no skill and 1 for perfect: with min =
        max_fpr^2 / 2 and max = max_fpr, (1 + (area - min) / (max - min)) / 2. An area below min
        (a curve below the diagonal) is NaN, as in pROC; scikit-learn gives a value below 0.5.

    Returns
    -------
    float; uncorrected it lies between 0 and ``max_fpr``.

    Examples
    --------
    >>> y, s = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    >>> partial_auc(y, s, max_fpr=0.5), partial_auc(y, s, max_fpr=0.5, corrected=True)
    (0.25, 0.6666666666666666)
    """
    if max_fpr is None or isinstance(max_fpr, str) or not 0 < max_fpr <= 1:
        raise InputError(f"max_fpr is {max_fpr!r}; allowed: above 0, at most 1")
    curve = roc_curve(y_true, score)
    fpr, tpr = curve["fpr"].to_numpy(), curve["tpr"].to_numpy()
    inside = fpr <= max_fpr
    end = tpr_at(fpr, tpr, np.array([float(max_fpr)]))
    area = float(np.trapezoid(np.append(tpr[inside], end), np.append(fpr[inside], max_fpr)))
    if not corrected:
        return area
    least = max_fpr**2 / 2
    if area < least:
        return float("nan")
    return (1 + (area - least) / (max_fpr - least)) / 2
