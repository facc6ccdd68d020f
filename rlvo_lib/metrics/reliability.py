"""Agreement of probabilities with outcomes: calibration in the large, slope, smoothed, Brier."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, as_probabilities, quantile
from rlvo_lib.metrics.smoothing import SMOOTHERS, smooth


@dataclass(frozen=True)
class Calibration:
    """Agreement of probabilities with outcomes.

    ``intercept`` is calibration-in-the-large (0 is perfect): the intercept of a logistic model with
    the logit of the prediction as offset. ``slope`` (1 is perfect) is from a model of its own.
    ``o_to_e`` is observed over expected events. ``scaled_brier`` is 1 - Brier / Brier of the
    prevalence. ``ici``, ``e50``, ``e90`` are the mean, median and 90 % quantile (type 7) of the
    patients' distance of prediction and smoothed share of events, ``eci`` 100 times its mean
    square, by ``smoother``; ``smoothed_outside`` smoothed values lie outside 0..1 and are not
    clipped. ``hosmer_lemeshow`` is chi-squared with ``_df`` over ``_groups`` non-empty groups.
    ``n_clipped`` probabilities were moved off 0 or 1 before taking logits. ``reason`` says why a
    field is NaN.
    """

    intercept: float
    intercept_low: float
    intercept_high: float
    slope: float
    slope_low: float
    slope_high: float
    o_to_e: float
    brier: float
    scaled_brier: float
    ici: float
    e50: float
    e90: float
    eci: float
    smoother: str
    smoothed_outside: float
    hosmer_lemeshow: float
    hosmer_lemeshow_df: int
    hosmer_lemeshow_p: float
    hosmer_lemeshow_groups: int
    spiegelhalter_z: float
    spiegelhalter_p: float
    n: int
    events: int
    n_clipped: int = 0
    reason: str = ""


def brier_loss(y_true: ArrayLike, p: ArrayLike) -> float:
    """Mean squared difference of probability and outcome.

    >>> brier_loss([0, 1], [0.5, 0.5])
    0.25
    """
    y, p = as_probabilities(y_true, p)
    return float(np.mean((p - y) ** 2))


def scaled_brier(y_true: ArrayLike, p: ArrayLike) -> float:
    """1 - Brier / Brier of always predicting the prevalence: 0 is no skill, below 0 is worse.

    >>> scaled_brier([0, 1], [0.5, 0.5])
    0.0
    """
    y, p = as_probabilities(y_true, p)
    return 1 - brier_loss(y, p) / float(y.mean() * (1 - y.mean()))


def calibration(
    y_true: ArrayLike,
    p: ArrayLike,
    *,
    clip: float | None = None,
    smoother: str = "loess",
    groups: int = 10,
    fitted_here: bool = False,
    level: float = 0.95,
) -> Calibration:
    """Calibration in the large, slope, O:E, ICI, E50, E90, ECI, Brier and two tests.

    Parameters
    ----------
    clip : a small number by which probabilities of exactly 0 or 1, which have no logit, are moved
        inward (for intercept and slope only; ``n_clipped`` counts them). None refuses them.
    smoother : see `rlvo_lib.metrics.calibration_curve`; the ICI depends on it.
    groups : Hosmer-Lemeshow groups asked for, cut at the distinct quantiles (type 7) of ``p``, each
        closed on the right, as R's ResourceSelection. Ties leave fewer.
    fitted_here : the model was fitted on these patients: Hosmer-Lemeshow has the groups left - 2
        degrees of freedom, else as many as groups left. (ResourceSelection: always ``groups`` - 2.)

    Raises
    ------
    InputError
        For probabilities outside 0..1, or of exactly 0 or 1 without ``clip``.

    References
    ----------
    Cox, Biometrika 1958; Hosmer and Lemeshow, Commun Stat 1980; Spiegelhalter, Stat Med 1986;
    Austin and Steyerberg, Stat Med 2019 (ICI); Van Hoorde et al., J Biomed Inform 2015 (ECI).

    Examples
    --------
    >>> result = calibration([0, 1, 0, 1], [0.4, 0.5, 0.5, 0.6])
    >>> abs(result.intercept) < 1e-9, result.o_to_e
    (True, 1.0)
    """
    y, p = as_probabilities(y_true, p)
    quantile(level)
    inner = _inside(p, clip)
    if groups < 2:
        raise InputError(f"groups is {groups!r}; allowed: at least 2")
    parts = (
        _recalibration(y, np.log(inner / (1 - inner)), level),
        _smoothed(y, p, smoother),
        _hosmer_lemeshow(y, p, groups, fitted_here),
        _spiegelhalter(y, p),
        ({}, "" if p.any() else "no event is expected: no O:E"),
    )
    values = {key: value for found, _ in parts for key, value in found.items()}
    return Calibration(
        **values,
        o_to_e=float(y.sum() / p.sum()) if p.any() else np.nan,
        brier=brier_loss(y, p), scaled_brier=scaled_brier(y, p),
        n=y.size, events=int(y.sum()), n_clipped=int((inner != p).sum()),
        reason="; ".join(reason for _, reason in parts if reason),
    )  # fmt: skip


def _inside(p: Floats, clip: float | None) -> Floats:
    """``p`` with exact zeros and ones moved inward, or an `InputError`."""
    extreme = (p == 0) | (p == 1)
    if extreme.any() and clip is None:
        raise InputError(
            f"{int(extreme.sum())} probabilities are exactly 0 or 1 and have no logit; "
            "give clip, such as 1e-6, to move them inward"
        )
    if clip is not None and not 0 < clip < 0.5:
        raise InputError(f"clip is {clip!r}; allowed: above 0 and below 0.5")
    return np.clip(p, clip, 1 - clip) if extreme.any() else p


def _recalibration(y: Floats, logit: Floats, level: float) -> tuple[dict[str, float], str]:
    """Calibration in the large (slope fixed at 1) and slope, each from its own model."""
    names = ("intercept", "intercept_low", "intercept_high")
    large = dict(
        zip(names, _logistic(y, np.ones((y.size, 1)), offset=logit, level=level), strict=True)
    )
    names, slope = ("slope", "slope_low", "slope_high"), (np.nan,) * 3
    reasons = []
    if not np.isfinite(large["intercept"]):
        reasons.append("the logistic model does not converge: no calibration in the large")
    if np.ptp(logit) < 1e-12:
        reasons.append("constant probability: no slope")
    elif _separated(y, logit):
        reasons.append("the outcome is separated perfectly: no slope")
    else:
        slope = _logistic(y, np.column_stack([logit, np.ones(y.size)]), level=level)
        if not np.isfinite(slope[0]):
            reasons.append("the logistic model does not converge: no slope")
    return large | dict(zip(names, slope, strict=True)), "; ".join(reasons)


def _separated(y: Floats, x: Floats) -> bool:
    """Whether a cut of ``x`` parts the classes, save patients on the cut: no finite coefficient."""
    events, others = x[y == 1], x[y == 0]
    return bool(others.max() <= events.min() or events.max() <= others.min())


def _logistic(
    y: Floats, x: Floats, *, offset: Floats | None = None, level: float
) -> tuple[float, float, float]:
    """First coefficient of an unpenalised logistic model, Wald interval; NaN if it has none."""
    import statsmodels.api as sm
    from scipy.special import expit
    from statsmodels.tools.sm_exceptions import (
        ConvergenceWarning,
        PerfectSeparationError,
        PerfectSeparationWarning,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("error", PerfectSeparationWarning)
        warnings.simplefilter("error", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            fit = sm.GLM(y, x, family=sm.families.Binomial(), offset=offset).fit(tol=1e-12)
        except (PerfectSeparationError, PerfectSeparationWarning, ConvergenceWarning):
            return np.nan, np.nan, np.nan
    p = expit(x @ fit.params + (0 if offset is None else offset))
    # statsmodels also stops where it was thrown to 1e14 by a probability of 1e-300
    if not (np.abs(x.T @ (y - p)) <= 1e-6 * np.abs(x).sum(axis=0)).all():
        return np.nan, np.nan, np.nan
    low, high = fit.conf_int(alpha=1 - level)[0]
    return float(fit.params[0]), float(low), float(high)


def _smoothed(y: Floats, p: Floats, smoother: str) -> tuple[dict[str, float | str], str]:
    observed, reason = smooth(y, p, smoother)
    distance = np.abs(p - observed)
    # by more than rounding: a stretch without events is smoothed to 1e-17 on either side of 0
    outside = np.nan if reason else int(((observed < -1e-12) | (observed > 1 + 1e-12)).sum())
    return {
        "ici": float(distance.mean()),
        "e50": float(np.quantile(distance, 0.5)),
        "e90": float(np.quantile(distance, 0.9)),
        "eci": float(100 * np.mean(distance**2)),
        "smoother": SMOOTHERS[smoother],
        "smoothed_outside": outside,
    }, reason


def _hosmer_lemeshow(
    y: Floats, p: Floats, groups: int, fitted_here: bool
) -> tuple[dict[str, float], str]:
    from scipy.stats import chi2

    edges = np.unique(_quantiles(p, groups))
    # (a, b], the lowest edge included
    group = np.maximum(np.searchsorted(edges, p, side="left"), 1) - 1
    size = np.bincount(group)
    expected, observed = (np.bincount(group, weights=v)[size > 0] for v in (p, y))
    size = size[size > 0]
    df = size.size - (2 if fitted_here else 0)
    found = {"hosmer_lemeshow_groups": size.size, "hosmer_lemeshow_df": df}
    missing = {"hosmer_lemeshow": np.nan, "hosmer_lemeshow_p": np.nan}
    if size.size < 2 or df < 1:
        return found | missing, f"Hosmer-Lemeshow groups left: {size.size}, no test"
    if (expected <= 0).any() or (expected >= size).any():
        return found | missing, "a group expects no event or only events: no Hosmer-Lemeshow test"
    statistic = float(
        np.sum((observed - expected) ** 2 / expected)
        + np.sum((observed - expected) ** 2 / (size - expected))
    )
    return found | {
        "hosmer_lemeshow": statistic,
        "hosmer_lemeshow_p": float(chi2.sf(statistic, df)),
    }, ""


def _quantiles(p: Floats, groups: int) -> Floats:
    """Quantiles of type 7 at 0, 1/groups .. 1, in R's order of operations.

    numpy's interpolation can differ in the last bit, and a patient on an edge would change groups.
    """
    at = 1 + (p.size - 1) * np.minimum(np.arange(groups + 1) * (1 / groups), 1.0)
    below, ordered = np.floor(at).astype(int), np.sort(p)
    share = at - below
    low, high = ordered[below - 1], ordered[np.ceil(at).astype(int) - 1]
    return np.where(low == high, low, (1 - share) * low + share * high)


def _spiegelhalter(y: Floats, p: Floats) -> tuple[dict[str, float], str]:
    """z of the Brier score, were the probabilities right."""
    from scipy.stats import norm

    variance = float(np.sum((1 - 2 * p) ** 2 * p * (1 - p)))
    if variance <= 0:
        reason = "every probability is 0, 0.5 or 1: no Spiegelhalter test"
        return {"spiegelhalter_z": np.nan, "spiegelhalter_p": np.nan}, reason
    z = float(np.sum((y - p) * (1 - 2 * p)) / np.sqrt(variance))
    return {"spiegelhalter_z": z, "spiegelhalter_p": float(2 * norm.sf(abs(z)))}, ""
