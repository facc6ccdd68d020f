"""Agreement of probabilities with outcomes: Brier score, calibration in the large and slope."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, as_probabilities


@dataclass(frozen=True)
class Calibration:
    """Agreement of probabilities with outcomes.

    ``intercept`` is calibration-in-the-large (0 is perfect): the intercept of a logistic model with
    the logit of the prediction as offset. ``slope`` (1 is perfect) is from a model of its own.
    ``o_to_e`` is observed over expected events. ``scaled_brier`` is 1 - Brier / Brier of the
    prevalence. ``n_clipped`` probabilities were moved off 0 or 1 before taking logits.
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
    y_true: ArrayLike, p: ArrayLike, *, clip: float | None = None, level: float = 0.95
) -> Calibration:
    """Calibration in the large, calibration slope, O:E, Brier score and scaled Brier score.

    Parameters
    ----------
    clip : a small number by which probabilities of exactly 0 or 1, which have no logit, are moved
        inward (for intercept and slope only; ``n_clipped`` counts them). None refuses them.

    Raises
    ------
    InputError
        For probabilities outside 0..1, or of exactly 0 or 1 without ``clip``.

    Examples
    --------
    >>> result = calibration([0, 1, 0, 1], [0.4, 0.5, 0.5, 0.6])
    >>> abs(result.intercept) < 1e-9, result.o_to_e
    (True, 1.0)
    """
    y, p = as_probabilities(y_true, p)
    extreme = (p == 0) | (p == 1)
    if extreme.any() and clip is None:
        raise InputError(
            f"{int(extreme.sum())} probabilities are exactly 0 or 1 and have no logit; "
            "give clip, such as 1e-6, to move them inward"
        )
    if clip is not None and not 0 < clip < 0.5:
        raise InputError(f"clip is {clip!r}; allowed: above 0 and below 0.5")
    inner = np.clip(p, clip, 1 - clip) if extreme.any() else p
    moved = int((inner != p).sum())
    logit = np.log(inner / (1 - inner))
    constant = bool(np.ptp(logit) < 1e-12)
    intercept = _logistic(y, np.ones((y.size, 1)), offset=logit, level=level)
    slope = (
        (np.nan,) * 3
        if constant
        else _logistic(y, np.column_stack([logit, np.ones(y.size)]), level=level)
    )
    reason = "constant probability: no slope" if constant else ""
    if not constant and np.isnan(slope[0]):
        reason = "the outcome is separated perfectly: no slope"
    return Calibration(
        *intercept, *slope,
        o_to_e=float(y.sum() / p.sum()) if p.sum() > 0 else np.nan,
        brier=brier_loss(y, p), scaled_brier=scaled_brier(y, p),
        n=y.size, events=int(y.sum()), n_clipped=moved, reason=reason,
    )  # fmt: skip


def _logistic(
    y: Floats, x: Floats, *, offset: Floats | None = None, level: float
) -> tuple[float, float, float]:
    """First coefficient of an unpenalised logistic model, Wald interval; NaN if it has none."""
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError, PerfectSeparationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", PerfectSeparationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            fit = sm.GLM(y, x, family=sm.families.Binomial(), offset=offset).fit(tol=1e-12)
        except (PerfectSeparationError, PerfectSeparationWarning):
            return np.nan, np.nan, np.nan
    low, high = fit.conf_int(alpha=1 - level)[0]
    return float(fit.params[0]), float(low), float(high)
