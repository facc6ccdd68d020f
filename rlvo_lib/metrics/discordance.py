"""Two classifiers with their thresholds on the same patients: the patients on whom they disagree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.metrics.checks import checked, finite, quantile
from rlvo_lib.metrics.classification import wilson


@dataclass(frozen=True)
class OperatingPointComparison:
    """Sensitivity (of the events) and specificity (of the non-events) of a and b, paired.

    ``_difference`` is a - b, ``_only_a`` the patients whom only a has right; ``_p`` is McNemar's
    exact test, ``_mid_p`` its less conservative form.
    """

    threshold_a: float
    threshold_b: float
    n: int
    events: int
    sensitivity_a: float
    sensitivity_b: float
    sensitivity_difference: float
    sensitivity_low: float
    sensitivity_high: float
    sensitivity_only_a: int
    sensitivity_only_b: int
    sensitivity_p: float
    sensitivity_mid_p: float
    specificity_a: float
    specificity_b: float
    specificity_difference: float
    specificity_low: float
    specificity_high: float
    specificity_only_a: int
    specificity_only_b: int
    specificity_p: float
    specificity_mid_p: float
    reason: str = ""


def compare_operating_points(
    y_true: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    threshold_a: float,
    threshold_b: float,
    *,
    level: float = 0.95,
) -> OperatingPointComparison:
    """Sensitivity and specificity of ``a >= threshold_a`` and ``b >= threshold_b``, paired.

    The interval of a difference is Newcombe's method 10 (Wilson limits of both proportions, joined
    with their correlation after a continuity correction). McNemar's exact p is the two-sided
    binomial of the discordant patients; the mid-p counts the observed table half on either side:
    2 P(X < k) + P(X = k), k the smaller count. Both are 1 without discordant patients.

    References
    ----------
    Newcombe, Stat Med 1998;17:2635 (method 10); Fagerland, Lydersen and Laake, BMC Med Res Methodol
    2013 (mid-p; theirs is 1 - P(X = k) / 2 where both counts are equal, here it is 1).

    Examples
    --------
    >>> result = compare_operating_points(
    ...     [1, 1, 1, 0, 0], [0.9, 0.8, 0.7, 0.1, 0.6], [0.9, 0.2, 0.1, 0.1, 0.2],
    ...     threshold_a=0.5, threshold_b=0.5)
    >>> result.sensitivity_only_a, result.sensitivity_p, result.specificity_difference
    (2, 0.5, -0.5)
    """
    y, a = checked(y_true, a, "a")
    _, b = checked(y, b, "b")
    for name, threshold in (("threshold_a", threshold_a), ("threshold_b", threshold_b)):
        finite(threshold, name)
    quantile(level)
    values: dict[str, float] = {}
    reasons = []
    for name, event in (("sensitivity", 1), ("specificity", 0)):
        right_a, right_b = (
            (s[y == event] >= threshold) == event
            for s, threshold in ((a, threshold_a), (b, threshold_b))
        )
        found = _paired(right_a, right_b, level)
        values |= {f"{name}_{key}": value for key, value in found.items()}
        if found["only_a"] + found["only_b"] == 0:
            reasons.append(f"{name}: no discordant patient, p is 1 by convention")
    return OperatingPointComparison(
        threshold_a=float(threshold_a), threshold_b=float(threshold_b),
        n=y.size, events=int(y.sum()), **values, reason="; ".join(reasons),
    )  # fmt: skip


def _paired(a: np.ndarray, b: np.ndarray, level: float) -> dict[str, float]:
    both, only_a, only_b = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
    low, high = _newcombe(both, only_a, only_b, a.size - both - only_a - only_b, level)
    p, mid_p = _mcnemar(only_a, only_b)
    return {
        "a": float(a.mean()), "b": float(b.mean()),
        "difference": (only_a - only_b) / a.size, "low": low, "high": high,
        "only_a": only_a, "only_b": only_b, "p": p, "mid_p": mid_p,
    }  # fmt: skip


def _newcombe(
    both: int, only_a: int, only_b: int, neither: int, level: float
) -> tuple[float, float]:
    n = both + only_a + only_b + neither
    k_a, k_b = both + only_a, both + only_b
    a, b = k_a / n, k_b / n
    (low_a, high_a), (low_b, high_b) = (wilson(k, n, level=level) for k in (k_a, k_b))
    phi = _correlation(both, only_a, only_b, neither)

    def apart(of_a: float, of_b: float) -> float:
        return float(np.sqrt(max(of_a**2 - 2 * phi * of_a * of_b + of_b**2, 0.0)))

    return a - b - apart(a - low_a, high_b - b), a - b + apart(high_a - a, b - low_b)


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Phi of the fourfold table, a positive one moved towards 0 by n / 2; 0 with an empty margin."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    product = both * neither - only_a * only_b
    if product > 0:
        product = max(product - (both + only_a + only_b + neither) / 2, 0)
    return product / margins**0.5


def _mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """Exact and mid-p of McNemar's test."""
    from scipy.stats import binom

    k, n = min(only_a, only_b), only_a + only_b
    if n == 0:
        return 1.0, 1.0
    p = min(1.0, float(2 * binom.cdf(k, n, 0.5)))
    return p, min(1.0, float(2 * binom.cdf(k - 1, n, 0.5) + binom.pmf(k, n, 0.5)))
