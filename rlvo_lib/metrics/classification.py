"""What flagging patients at a threshold gives, how it is chosen, and the no-skill lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, as_labels, checked, finite, quantile


@dataclass(frozen=True)
class OperatingPoint:
    """The confusion table at one threshold and what follows from it.

    ``_low`` and ``_high`` are Wilson's limits, ``_exact_low`` and ``_exact_high`` those of Clopper
    and Pearson; those of the likelihood ratios are by the log method. ``f1`` and ``ppv`` are those of
    the event class. ``reason`` says why a field is NaN.
    """

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
    sensitivity_exact_low: float
    sensitivity_exact_high: float
    specificity_exact_low: float
    specificity_exact_high: float
    ppv_exact_low: float
    ppv_exact_high: float
    npv_exact_low: float
    npv_exact_high: float
    accuracy: float
    balanced_accuracy: float
    mcc: float
    lr_positive: float
    lr_positive_low: float
    lr_positive_high: float
    lr_negative: float
    lr_negative_low: float
    lr_negative_high: float
    reason: str = ""


def wilson(k: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of k out of n, without continuity correction; NaN for n = 0.

    >>> tuple(round(x, 4) for x in wilson(8, 16))
    (0.28, 0.72)
    """
    _counted(k, n)
    if n == 0:
        return np.nan, np.nan
    z = quantile(level)
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # exactly 0 and 1 at the ends, where rounding would leave 1e-17
    return (float(centre - half) if k > 0 else 0.0), (float(centre + half) if k < n else 1.0)


def clopper_pearson(k: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of k out of n (Clopper and Pearson 1934): beta quantiles; NaN for n = 0.

    >>> tuple(round(x, 4) for x in clopper_pearson(8, 16))
    (0.2465, 0.7535)
    """
    from scipy.special import betaincinv

    quantile(level)
    _counted(k, n)
    if n == 0:
        return np.nan, np.nan
    tail = (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high


def _counted(k: float, n: float) -> None:
    if not -1e-9 <= k <= n + 1e-9:  # a mean of counts may be rounded
        raise InputError(f"{k!r} of {n!r}; allowed: 0 up to the number of patients")


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
    """What flagging ``score >= threshold`` gives, with intervals over patients.

    If nobody is flagged F1 is ``zero_division``; PPV, a ratio with a zero below the line and
    Matthews' coefficient (MCC, as in R; scikit-learn says 0) are NaN. A likelihood ratio of 0 has no
    interval.

    References
    ----------
    Wilson, JASA 1927; Clopper and Pearson, Biometrika 1934; Simel, Samsa and Matchar, J Clin
    Epidemiol 1991 (log method of likelihood ratios).

    Examples
    --------
    >>> point = operating_point([1, 1, 0, 0, 0], [0.9, 0.2, 0.6, 0.1, 0.1], 0.5)
    >>> point.tp, point.fp, point.sensitivity, point.f1
    (1, 1, 0.5, 0.5)
    """
    y, s = checked(y_true, score)
    threshold = finite(threshold, "threshold")
    flagged = s >= threshold
    tp, fp = int((flagged & (y == 1)).sum()), int((flagged & (y == 0)).sum())
    fn, tn = int(y.sum()) - tp, int((y == 0).sum()) - fp
    values = _proportions(tp, fp, tn, fn, level)
    margins = (tp + fn) * (tp + fp) * (tn + fn) * (tn + fp)
    return OperatingPoint(
        threshold=float(threshold), n=y.size, events=tp + fn, tp=tp, fp=fp, tn=tn, fn=fn,
        f1=f1_score(y, flagged, zero_division=zero_division),
        accuracy=(tp + tn) / y.size,
        balanced_accuracy=(values["sensitivity"] + values["specificity"]) / 2,
        mcc=(tp * tn - fp * fn) / margins**0.5 if margins else np.nan,
        reason=_undefined(tp, fp, tn, fn),
        **values,
        **_likelihood_ratio("lr_positive", tp, fp, tp + fn, tn + fp, level),
        **_likelihood_ratio("lr_negative", fn, tn, tp + fn, tn + fp, level),
    )  # fmt: skip


def _proportions(tp: int, fp: int, tn: int, fn: int, level: float) -> dict[str, float]:
    parts = {
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
    }
    values: dict[str, float] = {}
    for name, (k, n) in parts.items():
        values[name] = k / n if n else np.nan
        for kind, interval in (("", wilson), ("exact_", clopper_pearson)):
            low, high = interval(k, n, level=level)
            values[f"{name}_{kind}low"], values[f"{name}_{kind}high"] = low, high
    return values


def _likelihood_ratio(
    name: str, a: int, b: int, events: int, others: int, level: float
) -> dict[str, float]:
    """(a / events) / (b / others), log-normal interval; NaN where a count is 0."""
    z = quantile(level)
    ratio = low = high = np.nan
    if b > 0:
        ratio = (a / events) / (b / others)
    if a > 0 and b > 0:
        half = z * np.sqrt(1 / a - 1 / events + 1 / b - 1 / others)
        low, high = (float(ratio * np.exp(sign * half)) for sign in (-1, 1))
    return {name: ratio, f"{name}_low": low, f"{name}_high": high}


def _undefined(tp: int, fp: int, tn: int, fn: int) -> str:
    reasons = []
    if tp + fp == 0:
        reasons.append("nobody is flagged: no PPV, no MCC")
    if tn + fn == 0:
        reasons.append("everybody is flagged: no NPV, no MCC")
    for count, words in (
        (fp, "no false positive: LR+ has no upper bound"),
        (tn, "no true negative: LR- has no upper bound"),
        (tp, "no true positive: no interval of LR+"),
        (fn, "no false negative: no interval of LR-"),
    ):
        if count == 0:
            reasons.append(words)
    return "; ".join(reasons)


THRESHOLD_RULES = ("max-f1", "youden", "sensitivity", "specificity", "net-benefit")


def threshold_by(
    y_true: ArrayLike, score: ArrayLike, *, rule: str, value: float | None = None
) -> float:
    """The observed score that is best as a threshold (``score >= threshold`` is flagged) by a rule.

    Parameters
    ----------
    rule : ``max-f1``: highest F1. ``youden``: highest sensitivity + specificity - 1.
        ``sensitivity``: the highest threshold with a sensitivity of at least ``value``.
        ``specificity``: the lowest with a specificity of at least ``value`` (the value of the step
        that is reached, not pROC's interpolation). ``net-benefit``: highest net benefit where a
        false positive costs ``value`` / (1 - ``value``) of a true positive.
    value : for the last three rules: above 0; up to 1, for net benefit below 1.

    Returns
    -------
    float. Of several equally good thresholds the highest (fewest patients flagged). Where flagging
    nobody alone reaches the specificity, or is best by net benefit, the next double above the
    largest score. What a rule reaches on the patients it was chosen on is optimistic.

    Examples
    --------
    >>> threshold_by([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], rule="max-f1")
    0.35
    >>> threshold_by([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], rule="specificity", value=0.9)
    0.8
    """
    value = _checked_value(rule, value)
    y, s = checked(y_true, score)
    candidates, tp, fp = _steps(y, s)
    events, others = int(y.sum()), int((1 - y).sum())
    if rule == "sensitivity":
        return float(candidates[np.argmax(tp / events >= value)])
    if rule == "specificity":
        reached = np.flatnonzero(1 - fp / others >= value)
        return float(candidates[reached[-1]] if reached.size else np.nextafter(s.max(), np.inf))
    if rule == "max-f1":
        gain = 2 * tp / (tp + fp + events)
    elif rule == "youden":  # times a constant, in whole numbers: ties are found exactly
        gain = tp * others - fp * events
    else:
        cost = round(value * 10**10)  # likewise
        gain = tp * (10**10 - cost) - fp * cost
        if gain.max() <= 0:
            return float(np.nextafter(s.max(), np.inf))
    return float(candidates[np.argmax(gain)])


def _checked_value(rule: str, value: float | None) -> float:
    if rule not in THRESHOLD_RULES:
        raise InputError(f"threshold rule is '{rule}'; allowed: {', '.join(THRESHOLD_RULES)}")
    if rule in ("max-f1", "youden"):
        if value is not None:
            raise InputError(f"threshold rule '{rule}' takes no value; got {value!r}")
        return np.nan
    top = rule != "net-benefit"
    if isinstance(value, str) or value is None or not (0 < value < 1 or (top and value == 1)):
        allowed = "above 0 and up to 1" if top else "above 0 and below 1"
        raise InputError(f"threshold rule '{rule}': value is {value!r}; allowed: {allowed}")
    return float(value) - 1e-12 if top else float(value)  # 0.3 of 10 events are 3, not 4


def _steps(y: Floats, s: Floats) -> tuple[Floats, np.ndarray, np.ndarray]:
    """Distinct scores from high to low; true and false positives with each as threshold."""
    ordered = np.argsort(-s, kind="stable")
    y, s = y[ordered], s[ordered]
    last = np.append(np.flatnonzero(np.diff(s)), s.size - 1)  # of each group of tied scores
    tp = np.cumsum(y.astype(np.int64))[last]
    return s[last], tp, last + 1 - tp


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
    if not 0 <= finite(flag_rate, "flag_rate") <= 1:
        raise InputError(f"flag_rate is {flag_rate!r}; allowed: 0 to 1")
    events, others = int(y.sum()), int((1 - y).sum())
    tp, fp = (np.arange(*_support(n, flag_rate))[:, None] for n in (events, others))
    weight = binom.pmf(tp, events, flag_rate) * binom.pmf(fp.T, others, flag_rate)
    return float((weight * 2 * tp / (tp + fp.T + events)).sum())


def _support(n: int, rate: float) -> tuple[int, int]:
    """The counts that hold all but a negligible part of a binomial distribution."""
    spread = 8 * np.sqrt(n * rate * (1 - rate)) + 1
    return max(int(n * rate - spread), 0), min(int(n * rate + spread), n) + 1
