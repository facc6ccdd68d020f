"""How precise an AUC or an F1 from a number of patients is, and how many patients it takes.

Formulas and exact distributions; nothing is drawn. ``prevalence`` is the share with the event, ``n``
counts patients, ``events`` those with the event (a fraction where an expected number is meant).

References
----------
Hanley and McNeil, Radiology 1982;143:29 and 1983;148:839 (SE, paired difference); Newcombe, Stat.
Med. 2006;25:559 (method 4, the SE of Riley's criteria); `rlvo_lib.metrics.binormal` (exact for
normal scores).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlvo_lib.config import InputError
from rlvo_lib.metrics import binormal
from rlvo_lib.metrics.checks import quantile
from rlvo_lib.metrics.discrimination import hanley_mcneil_se

SE_METHODS = ("hanley-mcneil", "newcombe", "binormal")
LARGEST = 10**9  # patients; a search beyond this is hopeless


@dataclass(frozen=True)
class F1Spread:
    """How the F1 of one operating point varies from test set to test set of the same counts."""

    f1: float  # of the expected counts
    mean: float
    sd: float
    low: float
    high: float


def share(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise InputError(f"{name} is {value!r}; allowed: between 0 and 1, ends excluded")
    return float(value)


def positive(name: str, value: float) -> float:
    if not value > 0 or not np.isfinite(value):
        raise InputError(f"{name} is {value!r}; allowed: a number above 0")
    return float(value)


def smallest(enough: Callable[[int], bool], start: int = 2) -> int:
    """The smallest whole number from which on ``enough`` holds (it must not turn false again)."""
    high = max(start, 2)
    while not enough(high):
        high *= 2
        if high > LARGEST:
            raise InputError(f"no sample of up to {LARGEST:g} patients is large enough")
    low = max(start, 2) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# ----------------------------------------------------------------------------------------- AUC


def auc_se(area: float, events: float, n: float, method: str = "hanley-mcneil") -> float:
    """Standard error of an AUC expected from its value and the counts.

    ``hanley-mcneil`` (1982; exponential scores), ``newcombe`` (2006, method 4: the same with the
    mean group size, as in Riley's criteria), ``binormal`` (exact for normal scores of equal spread).

    >>> [round(auc_se(0.70, 16, 118, m), 4) for m in SE_METHODS]
    [0.077, 0.0702, 0.0698]
    """
    if method not in SE_METHODS:
        raise InputError(f"method is '{method}'; allowed: {', '.join(SE_METHODS)}")
    share("AUC", area)
    if not 0 < events < n:
        raise InputError(f"{events} events of {n}; allowed: 0 < events < n")
    if method == "hanley-mcneil":
        return hanley_mcneil_se(area, events=events, n=n)
    if method == "binormal":
        return float(np.sqrt(binormal.auc_variance(area, events, n)))
    pairs = (n / 2 - 1) * ((1 - area) / (2 - area) + area / (1 + area))
    return float(np.sqrt(area * (1 - area) * (1 + pairs) / (events * (n - events))))


def auc_width(
    area: float, events: float, n: float, method: str = "hanley-mcneil", *, level: float = 0.95
) -> float:
    """Expected width of the interval of an AUC on its own scale: 2 z SE, not cut at 0 and 1.

    >>> round(auc_width(0.53, 16, 118), 3)
    0.309
    """
    return 2 * quantile(level) * auc_se(area, events, n, method)


def n_for_auc_width(
    area: float,
    prevalence: float,
    width: float,
    method: str = "hanley-mcneil",
    *,
    level: float = 0.95,
) -> int:
    """The fewest patients whose expected interval of an AUC is no wider than ``width``.

    >>> [n_for_auc_width(0.70, 16 / 118, 0.10, m) for m in SE_METHODS]
    [1067, 886, 877]
    """
    p = share("prevalence", prevalence)
    positive("width", width)
    start = int(np.ceil(1 / min(p, 1 - p)))  # at least one of each kind expected
    return smallest(lambda n: auc_width(area, p * n, n, method, level=level) <= width, start)


def auc_difference_se(
    a: float,
    b: float,
    correlation: float,
    events: float,
    n: float,
    method: str = "hanley-mcneil",
) -> float:
    """SE of the difference of two AUCs on the same patients; ``correlation`` is that of the AUCs.

    >>> round(auc_difference_se(0.70, 0.53, 0.5, 16, 118), 3)
    0.078
    """
    if not -1 <= correlation <= 1:
        raise InputError(f"correlation is {correlation!r}; allowed: -1 to 1")
    first, second = auc_se(a, events, n, method), auc_se(b, events, n, method)
    variance = first**2 + second**2 - 2 * correlation * first * second
    return float(np.sqrt(max(variance, 0.0)))


def auc_power(
    area: float,
    events: float,
    n: float,
    *,
    other: float | None = None,
    correlation: float = 0.0,
    method: str = "hanley-mcneil",
    level: float = 0.95,
) -> float:
    """Probability of a two-sided significant result in the true direction: Phi(difference / SE - z).

    Of one AUC against 0.5 (SE at its own value, as a Wald test has it), or with ``other`` of the
    paired difference of two AUCs whose estimates correlate by ``correlation``.

    >>> round(auc_power(0.70, 16, 118), 2), round(auc_power(0.70, 16, 118, other=0.53), 2)
    (0.74, 0.34)
    """
    from scipy.special import ndtr

    if other is None:
        difference, se = abs(area - 0.5), auc_se(area, events, n, method)
    else:
        difference = abs(area - other)
        se = auc_difference_se(area, other, correlation, events, n, method)
    if se == 0:
        return 1.0 if difference else float("nan")
    return float(ndtr(difference / se - quantile(level)))


def n_for_auc_difference(
    a: float,
    b: float,
    correlation: float,
    prevalence: float,
    *,
    power: float = 0.8,
    method: str = "hanley-mcneil",
    level: float = 0.95,
) -> int:
    """The fewest patients that show a paired difference of two AUCs with a power (see `auc_power`).

    >>> [n_for_auc_difference(0.70, 0.53, 0.0, 16 / 118, method=m) for m in SE_METHODS]
    [388, 350, 348]
    """
    p = share("prevalence", prevalence)
    share("power", power)
    if a == b:
        raise InputError(f"both AUCs are {a!r}; allowed: two different ones")

    def enough(n: int) -> bool:
        found = auc_power(a, p * n, n, other=b, correlation=correlation, method=method, level=level)
        return bool(found >= power)

    return smallest(enough, int(np.ceil(1 / min(p, 1 - p))))


def correlation_for_significance(
    a: float,
    b: float,
    events: float,
    n: float,
    *,
    method: str = "hanley-mcneil",
    level: float = 0.95,
) -> float:
    """The correlation of two AUCs above which their observed difference is significant.

    From (difference / z)^2 = SE_a^2 + SE_b^2 - 2 r SE_a SE_b. Above 1: never; below -1: always.

    >>> round(correlation_for_significance(0.70, 0.53, 16, 118), 2)
    0.38
    """
    first, second = auc_se(a, events, n, method), auc_se(b, events, n, method)
    allowed = ((a - b) / quantile(level)) ** 2
    return float((first**2 + second**2 - allowed) / (2 * first * second))


def detectable_difference(
    a: float,
    b: float,
    correlation: float,
    events: float,
    n: float,
    *,
    power: float = 0.8,
    method: str = "hanley-mcneil",
    level: float = 0.95,
) -> float:
    """The paired difference found significant with a power, at the SE of two given AUCs.

    (z + power quantile) * SE of the difference; the SE is held at the AUCs given.

    >>> round(detectable_difference(0.70, 0.53, 0.5, 16, 118), 2)
    0.22
    """
    from scipy.special import ndtri

    factor = quantile(level) + float(ndtri(share("power", power)))
    return factor * auc_difference_se(a, b, correlation, events, n, method)


# ------------------------------------------------------------------------------ one operating point


def f1_spread(
    sensitivity: float, specificity: float, events: int, n: int, *, level: float = 0.95
) -> F1Spread:
    """Exact distribution of F1 over test sets with these counts: TP and FP are binomial.

    ``low`` and ``high`` are its quantiles (the smallest F1 that the distribution function brings to
    2.5 and 97.5 %). Nobody flagged counts as F1 0.

    >>> spread = f1_spread(8 / 16, 85 / 102, 16, 118)
    >>> round(spread.f1, 3), round(spread.sd, 3)
    (0.39, 0.087)
    """
    from scipy.stats import binom

    if not 0 < events < n:
        raise InputError(f"{events} events of {n}; allowed: 0 < events < n")
    for name, value in (("sensitivity", sensitivity), ("specificity", specificity)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value!r}; allowed: 0 to 1")
    tp = _likely(events, sensitivity)[:, None]
    fp = _likely(n - events, 1 - specificity)[None, :]
    f1 = 2 * tp / (tp + fp + events)
    weight = binom.pmf(tp, events, sensitivity) * binom.pmf(fp, n - events, 1 - specificity)
    mean = float((weight * f1).sum())
    order = np.argsort(f1, axis=None)
    reached = np.cumsum(weight.ravel()[order])
    tail = (1 - level) / 2
    ends = np.minimum(np.searchsorted(reached, [tail, 1 - tail]), order.size - 1)
    low, high = f1.ravel()[order[ends]]
    hits, alarms = events * sensitivity, (n - events) * (1 - specificity)
    return F1Spread(
        f1=float(2 * hits / (hits + alarms + events)), mean=mean,
        sd=float(np.sqrt((weight * (f1 - mean) ** 2).sum())), low=float(low), high=float(high),
    )  # fmt: skip


def _likely(n: int, rate: float) -> NDArray[np.int64]:
    """The counts within eight standard deviations of a binomial's mean: all that matter."""
    spread = 8 * np.sqrt(n * rate * (1 - rate)) + 1
    low, high = max(int(n * rate - spread), 0), min(int(n * rate + spread) + 1, n)
    return np.arange(low, high + 1)


def feasible_counts(
    f1_low: float, f1_high: float, events: int, n: int, *, area: float | None = None
) -> pd.DataFrame:
    """All counts of true and false alarms whose F1 lies from ``f1_low`` to ``f1_high``, ends included.

    One operating point bounds the AUC of the whole score: TPR (1 - FPR) <= AUC <= 1 - FPR (1 - TPR).

    Returns
    -------
    DataFrame with tp, fp, fn, tn, f1, sensitivity, specificity, precision, balanced_accuracy,
    auc_low, auc_high and compatible (whether ``area`` lies within; True without one). Precision is
    NaN if nobody is flagged.

    >>> feasible_counts(0.385, 0.395, 16, 118)[["tp", "fp"]].head(3).values.tolist()
    [[6, 9], [7, 13], [8, 17]]
    """
    if not 0 < events < n:
        raise InputError(f"{events} events of {n}; allowed: 0 < events < n")
    if not 0 <= f1_low <= f1_high <= 1:
        raise InputError(f"F1 from {f1_low!r} to {f1_high!r}; allowed: 0 <= low <= high <= 1")
    if area is not None and not 0 <= area <= 1:
        raise InputError(f"area is {area!r}; allowed: 0 to 1")
    tp, fp = np.indices((events + 1, n - events + 1))
    f1 = 2 * tp / (tp + fp + events)
    inside = (f1 >= f1_low - 1e-12) & (f1 <= f1_high + 1e-12)
    tp, fp, f1 = tp[inside], fp[inside], f1[inside]
    tpr, fpr, flagged = tp / events, fp / (n - events), tp + fp
    low, high = tpr * (1 - fpr), 1 - fpr * (1 - tpr)
    compatible = np.ones(tp.size, bool) if area is None else (low <= area) & (area <= high)
    precision = np.divide(tp, flagged, out=np.full(tp.size, np.nan), where=flagged > 0)
    return pd.DataFrame(
        {
            "tp": tp, "fp": fp, "fn": events - tp, "tn": n - events - fp, "f1": f1,
            "sensitivity": tpr, "specificity": 1 - fpr, "precision": precision,
            "balanced_accuracy": (tpr + 1 - fpr) / 2, "auc_low": low, "auc_high": high,
            "compatible": compatible,
        }
    )  # fmt: skip
