"""Tests of one score against another, and what several tests do to each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, as_labels, checked, finite, quantile
from rlvo_lib.metrics.discrimination import delong_covariance
from rlvo_lib.metrics.resampling import label_pair

_ROUNDING = 1e-14  # a variance below this share of its parts' variances is rounding around 0
_NO_VARIANCE = "fewer than two events or two non-events: no variance"


@dataclass(frozen=True)
class AucDifference:
    """Difference of two AUCs, first minus second.

    ``z`` is difference / ``se``. It is referred to the normal distribution (``df`` infinite) or,
    unpaired, to Student's t with ``df`` degrees of freedom. ``n`` and ``events`` count the patients
    of both scores.
    """

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
    df: float = np.inf
    paired: bool = True
    reason: str = ""


@dataclass(frozen=True)
class CorrectedResampledTest:
    """Mean difference over ``k`` train-test splits that share patients, and its t test."""

    difference: float
    se: float
    t: float
    df: float
    p: float
    low: float
    high: float
    k: int
    reason: str = ""


def compare_auc(
    y_true: ArrayLike, a: ArrayLike, b: ArrayLike, paired: bool = True, *, level: float = 0.95
) -> AucDifference:
    """DeLong test of two scores: AUC of ``a`` minus AUC of ``b``.

    Parameters
    ----------
    y_true : ``(n,)`` labels; with ``paired=False`` also a pair (labels of a, labels of b), for
        scores of different patients.
    paired : the scores are of the same patients and their covariance counts (DeLong 1988). If not,
        the variances are added and the ratio is referred to t with the degrees of freedom of Welch,
        as in pROC: (Va + Vb)^2 / (Va^2 / (na - 1) + Vb^2 / (nb - 1)), n all patients of a score.

    Returns
    -------
    AucDifference. Paired scores that rank the patients alike have difference 0 and p = 1. NaN with
    a reason where there is no variance.

    Examples
    --------
    >>> compare_auc([0, 1, 0, 1], [0.1, 0.4, 0.3, 0.8], [0.1, 0.4, 0.3, 0.8]).p
    1.0
    >>> y = [0, 0, 0, 1, 1, 1]
    >>> test = compare_auc(y, [1, 2, 4, 3, 5, 6], [1, 5, 4, 3, 2, 6], paired=False)
    >>> round(test.difference, 4), round(test.df, 2), round(test.p, 3)
    (0.3333, 7.35, 0.373)
    """
    y_a, y_b = label_pair(y_true, paired=paired)
    _, a = checked(y_a, a, "a")
    _, b = checked(y_b, b, "b")
    if paired:
        aucs, covariance = delong_covariance(y_a, np.column_stack([a, b]))
        test = contrast_auc(y_a, aucs, covariance, np.array([1.0, -1.0]), level=level)
        return _alike(test) if np.isnan(test.p) and _same_order(a, b) else test
    (first, v_a), (second, v_b) = delong_covariance(y_a, a), delong_covariance(y_b, b)
    aucs = np.concatenate([first, second])
    variances = np.array([v_a[0, 0], v_b[0, 0]])
    counted = np.concatenate([y_a, y_b]) if y_b is not y_a else y_a
    squares = variances**2 / (np.array([y_a.size, y_b.size]) - 1)
    df = float(variances.sum() ** 2 / squares.sum()) if squares.sum() > 0 else np.nan
    return _tested(
        aucs, variances.sum(), variances.max(), counted, df=df, paired=False, level=level
    )


def contrast_auc(
    y: ArrayLike, aucs: Floats, covariance: Floats, weights: Floats, *, level: float = 0.95
) -> AucDifference:
    """Test of a weighted sum of correlated AUCs; the weights sum to 0 (see `compare_auc`).

    ``auc_a`` is the sum over the positive weights and ``auc_b`` that over the negative ones.
    """
    y = as_labels(y)
    sides = np.array([aucs @ np.clip(weights, 0, None), aucs @ np.clip(-weights, 0, None)])
    variance = float(weights @ covariance @ weights)
    scale = float(weights**2 @ np.diag(covariance))
    return _tested(sides, variance, scale, y, df=np.inf, paired=True, level=level)


def _tested(
    sides: Floats,
    variance: float,
    scale: float,
    y: Floats,
    *,
    df: float,
    paired: bool,
    level: float,
) -> AucDifference:
    """The test of ``sides[0] - sides[1]``; a variance negligible beside ``scale`` is none."""
    quantile(level)
    auc_a, auc_b = map(float, sides)
    difference = auc_a - auc_b
    common = dict(auc_a=auc_a, auc_b=auc_b, n=y.size, events=int(y.sum()), df=df, paired=paired)
    if np.isnan(variance):
        return _untested(**common, difference=difference, se=np.nan, reason=_NO_VARIANCE)
    if variance <= _ROUNDING * scale:
        if paired and abs(difference) < 1e-12:
            return _alike(_untested(**common, difference=0.0, se=0.0, reason=""))
        reason = "the variance of the difference is 0: no test"
        return _untested(**common, difference=difference, se=0.0, reason=reason)
    se = float(np.sqrt(variance))
    return AucDifference(
        **common, difference=difference, se=se, **_student(difference, se, df, level)
    )


def _same_order(a: Floats, b: Floats) -> bool:
    from scipy.stats import rankdata

    return bool(np.array_equal(rankdata(a), rankdata(b)))


def _alike(test: AucDifference) -> AucDifference:
    """Two scores that rank the patients alike: no difference, whatever the number of events."""
    nothing = dict.fromkeys(("difference", "se", "z", "low", "high"), 0.0)
    reason = "both order events and non-events alike"
    return dataclasses.replace(test, **nothing, p=1.0, reason=reason)


def _untested(**known) -> AucDifference:
    return AucDifference(**known, z=np.nan, p=np.nan, low=np.nan, high=np.nan)


def _student(difference: float, se: float, df: float, level: float) -> dict[str, float]:
    """z, two-sided p and limits by Student's t; normal where ``df`` is infinite."""
    from scipy.stats import norm, t

    law = norm if np.isinf(df) else t(df)
    half = float(law.ppf(0.5 + level / 2)) * se
    ratio = difference / se
    return dict(
        z=float(ratio), p=float(2 * law.sf(abs(ratio))), low=difference - half,
        high=difference + half,
    )  # fmt: skip


def nadeau_bengio(
    differences: ArrayLike, *, n_train: float, n_test: float, level: float = 0.95
) -> CorrectedResampledTest:
    """Corrected resampled t test of differences from repeated splits or folds of the same patients.

    The training sets overlap, so the variance of the mean of k differences is taken as
    (1 / k + n_test / n_train) s^2, s^2 with k - 1 (Nadeau and Bengio, Mach. Learn. 2003); t has
    k - 1 degrees of freedom. It speaks of the learning procedure on data of this size, not of one
    fitted model.

    Parameters
    ----------
    differences : ``(k,)`` one a split, score of a minus score of b; finite.
    n_train, n_test : patients in the training and test part of a split (their mean if they vary).

    Examples
    --------
    >>> test = nadeau_bengio([0.02, 0.05, -0.01, 0.04], n_train=450, n_test=150)
    >>> round(test.difference, 3), round(test.se, 4), round(test.t, 3), test.df
    (0.025, 0.0202, 1.237, 3.0)
    """
    quantile(level)
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or d.size == 0:
        raise InputError(f"differences have shape {d.shape}; allowed: one value a split")
    if not np.isfinite(d).all():
        raise InputError(f"differences have {int((~np.isfinite(d)).sum())} missing values")
    for name, count in (("n_train", n_train), ("n_test", n_test)):
        if not finite(count, name) > 0:
            raise InputError(f"{name} is {count!r}; allowed: above 0 patients")
    mean = float(d.mean())
    common = dict(difference=mean, df=float(d.size - 1), k=d.size)
    nothing = dict.fromkeys(("t", "p", "low", "high"), np.nan)
    if d.size < 2:
        return CorrectedResampledTest(
            **common, se=np.nan, **nothing, reason="one difference: no variance"
        )
    if np.ptp(d) <= 1e-13 * max(1.0, np.abs(d).max()):  # 0.1 + 0.2 is not 0.3
        if abs(mean) <= 1e-13:
            nothing = dict(t=0.0, p=1.0, low=0.0, high=0.0)
        reason = "all differences are the same"
        return CorrectedResampledTest(**common, se=0.0, **nothing, reason=reason)
    se = float(np.sqrt((1 / d.size + n_test / n_train) * d.var(ddof=1)))
    test = _student(mean, se, d.size - 1, level)
    return CorrectedResampledTest(**common, se=se, t=test.pop("z"), **test)


def holm(p: ArrayLike) -> Floats:
    """Holm-adjusted p values; NaN stays NaN and is not counted among the tests.

    >>> [round(x, 4) for x in holm([0.01, 0.04, 0.03]).tolist()]
    [0.03, 0.06, 0.06]
    """
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=np.float64)
    strange = p[(p < 0) | (p > 1)]
    if strange.size:
        raise InputError(f"p value {strange[0]:g} is out of range; allowed: 0 to 1")
    adjusted = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted
