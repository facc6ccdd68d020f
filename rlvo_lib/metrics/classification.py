"""What flagging patients at a threshold gives, how it is chosen, and the no-skill lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import as_labels, checked, quantile


@dataclass(frozen=True)
class OperatingPoint:
    """The confusion table at one threshold, proportions with Wilson intervals, and F1."""

    threshold: float
    n: int
    events: int
    tp: int
    fp: int
    tn: int
    fn: int
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    specificity: float
    specificity_low: float
    specificity_high: float
    ppv: float
    ppv_low: float
    ppv_high: float
    npv: float
    npv_low: float
    npv_high: float
    f1: float


def wilson(k: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of k out of n, without continuity correction; NaN for n = 0.

    >>> tuple(round(x, 4) for x in wilson(8, 16))
    (0.28, 0.72)
    """
    if n == 0:
        return np.nan, np.nan
    z = quantile(level)
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # exactly 0 and 1 at the ends, where rounding would leave 1e-17
    return (float(centre - half) if k > 0 else 0.0), (float(centre + half) if k < n else 1.0)


def f1_score(y_true: ArrayLike, flagged: ArrayLike, *, zero_division: float = 0.0) -> float:
    """F1 of the event class, 2 TP / (2 TP + FP + FN), of 0/1 decisions.

    ``zero_division`` is returned where nobody is flagged and precision is undefined.

    >>> f1_score([1, 1, 0, 0], [1, 0, 1, 0]), f1_score([1, 1, 0, 0], [0, 0, 0, 0])
    (0.5, 0.0)
    """
    y, flagged = checked(y_true, flagged, "flagged")
    if not np.isin(flagged, (0, 1)).all():
        raise InputError("flagged holds values other than 0 and 1; use operating_point for a score")
    tp = float(y @ flagged)
    return float(2 * tp / (y.sum() + flagged.sum())) if flagged.any() else float(zero_division)


def operating_point(
    y_true: ArrayLike,
    score: ArrayLike,
    threshold: float,
    *,
    zero_division: float = 0.0,
    level: float = 0.95,
) -> OperatingPoint:
    """What flagging ``score >= threshold`` gives, with Wilson intervals.

    PPV is NaN, and F1 ``zero_division``, if nobody is flagged.

    >>> point = operating_point([1, 1, 0, 0, 0], [0.9, 0.2, 0.6, 0.1, 0.1], 0.5)
    >>> point.tp, point.fp, point.sensitivity, point.f1
    (1, 1, 0.5, 0.5)
    """
    y, s = checked(y_true, score)
    if not np.isfinite(threshold):
        raise InputError(f"threshold is {threshold!r}; allowed: a finite number")
    flagged = s >= threshold
    tp, fp = int((flagged & (y == 1)).sum()), int((flagged & (y == 0)).sum())
    fn, tn = int(y.sum()) - tp, int((y == 0).sum()) - fp
    parts = {
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
    }
    values: dict[str, float] = {}
    for name, (k, n) in parts.items():
        values[name] = k / n if n else np.nan
        values[f"{name}_low"], values[f"{name}_high"] = wilson(k, n, level=level)
    f1 = f1_score(y, flagged, zero_division=zero_division)
    return OperatingPoint(
        threshold=float(threshold),
        n=y.size,
        events=tp + fn,
        tp=tp,
        fp=fp,
        tn=tn,
        fn=fn,
        **values,
        f1=f1,
    )


THRESHOLD_RULES = ("max-f1", "youden")


def threshold_by(
    y_true: ArrayLike, score: ArrayLike, *, rule: Literal["max-f1", "youden"]
) -> float:
    """The observed score that maximises F1 or Youden's J when used as threshold.

    Of several equally good thresholds the highest is taken (fewest patients flagged). The F1
    at this threshold on the same patients is optimistic.

    >>> threshold_by([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], rule="max-f1")
    0.35
    """
    if rule not in THRESHOLD_RULES:
        raise InputError(f"threshold rule is '{rule}'; allowed: {', '.join(THRESHOLD_RULES)}")
    y, s = checked(y_true, score)
    ordered = np.argsort(-s, kind="stable")
    y, s = y[ordered], s[ordered]
    last = np.append(np.flatnonzero(np.diff(s)), s.size - 1)  # of each group of tied scores
    tp, flagged = np.cumsum(y)[last], last + 1.0
    events, others = y.sum(), (1 - y).sum()
    if rule == "max-f1":
        gain = 2 * tp / (flagged + events)
    else:  # Youden's J times a constant, in whole numbers: ties are found exactly
        gain = tp * others - (flagged - tp) * events
    return float(s[last[np.argmax(gain)]])


def flag_everyone_f1(y_true: ArrayLike) -> float:
    """F1 of flagging every patient, 2 prevalence / (1 + prevalence): what no skill at all reaches.

    >>> round(flag_everyone_f1([1] * 16 + [0] * 102), 4)
    0.2388
    """
    prevalence = float(as_labels(y_true).mean())
    return 2 * prevalence / (1 + prevalence)


def coin_f1(y_true: ArrayLike, flag_rate: float = 0.5) -> float:
    """Expected F1 of flagging each patient at random with probability ``flag_rate``.

    >>> round(coin_f1([1] * 16 + [0] * 102), 3)
    0.213
    """
    from scipy.stats import binom

    y = as_labels(y_true)
    events, others = int(y.sum()), int((1 - y).sum())
    tp, fp = (np.arange(*_support(n, flag_rate))[:, None] for n in (events, others))
    weight = binom.pmf(tp, events, flag_rate) * binom.pmf(fp.T, others, flag_rate)
    return float((weight * 2 * tp / (tp + fp.T + events)).sum())


def _support(n: int, rate: float) -> tuple[int, int]:
    """The counts that hold all but a negligible part of a binomial distribution."""
    spread = 8 * np.sqrt(n * rate * (1 - rate)) + 1
    return max(int(n * rate - spread), 0), min(int(n * rate + spread), n) + 1
