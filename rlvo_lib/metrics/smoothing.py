"""The smoothed share of events against the predicted probability: calibration curves.

The smoother and its options are part of every number that rests on one: by the smoother alone the
ICI of the same predictions differs by 15 to 40 %.

References
----------
Cleveland and Devlin, JASA 1988 (loess); Austin and Steyerberg, Stat Med 2019 (ICI, E50, E90).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, as_probabilities, quantile

if TYPE_CHECKING:
    import pandas as pd

SMOOTHERS = {
    "loess": "loess (span 0.75, degree 2, interpolated surface)",
    "loess-direct": "loess (span 0.75, degree 2, direct surface)",
    "lowess": "lowess (frac 2/3, it 0, delta 0)",
}
#: Patients up to which these are smoothed: their time grows with the square of the number.
_SLOW = {"loess-direct": 10_000, "lowess": 20_000}
#: Patients up to which an interval is computed. skmisc's standard errors take memory with the square
#: of the number and end the process at 50,000 (has2k1/scikit-misc issue 3).
_WITH_INTERVAL = 5_000


def calibration_curve(
    y_true: ArrayLike,
    p: ArrayLike,
    *,
    smoother: str = "loess",
    points: int = 50,
    level: float = 0.95,
) -> pd.DataFrame:
    """The smoothed share of events over the range of the predicted probabilities.

    Parameters
    ----------
    smoother : ``loess``, ``loess-direct`` (R's ``loess`` with its defaults, surface interpolated or
        direct) or ``lowess`` (not robust, every point fitted).
    points : how many equally spaced predictions from the lowest to the highest.

    Returns
    -------
    DataFrame with predicted, observed, low, high (pointwise, loess only; t quantile times the
    standard error, as R's ``predict``), reason (why a value is NaN). Observed shares and limits are
    not clipped to 0..1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.random(200)
    >>> curve = calibration_curve(rng.random(200) < p, p, points=3)
    >>> bool((abs(curve.observed - curve.predicted) < 0.2).all())
    True
    """
    import pandas as pd

    y, p = as_probabilities(y_true, p)
    if points < 2:
        raise InputError(f"points is {points!r}; allowed: at least 2")
    quantile(level)
    grid = np.linspace(p.min(), p.max(), points)
    low = high = np.full(points, np.nan)
    observed, reason = smooth(y, p, smoother, at=grid)
    if not reason:
        low, high, reason = _interval(y, p, grid, smoother, level)
    return pd.DataFrame(
        {"predicted": grid, "observed": observed, "low": low, "high": high, "reason": reason}
    )


def smooth(
    y: Floats, p: Floats, smoother: str = "loess", *, at: Floats | None = None
) -> tuple[Floats, str]:
    """The smoothed share of events at each patient's prediction, or at ``at``, and why it is NaN.

    Checked labels and probabilities are expected. skmisc raises where R warns of a near-singular
    fit (few distinct probabilities): NaN here.
    """
    if smoother not in SMOOTHERS:
        raise InputError(f"smoother is '{smoother}'; allowed: {', '.join(SMOOTHERS)}")
    if p.size > _SLOW.get(smoother, p.size):
        raise InputError(
            f"smoother '{smoother}' with {p.size} patients; allowed: at most {_SLOW[smoother]} "
            "(use 'loess')"
        )
    missing = np.full(p.size if at is None else at.size, np.nan)
    distinct = np.unique(p).size
    if distinct < 4:
        words = "constant probability" if distinct == 1 else f"{distinct} distinct probabilities"
        return missing, f"{words}: no smoothed curve"
    values, reason = _lowess(y, p, at) if smoother == "lowess" else _loess(y, p, at, smoother)
    return (missing, reason) if reason else (values, "")


def _loess(y: Floats, p: Floats, at: Floats | None, smoother: str) -> tuple[Floats, str]:
    try:
        fit = _fitted(y, p, smoother, trace="approximate")
        values = fit.outputs.fitted_values if at is None else fit.predict(at).values
    except ValueError as error:
        return np.array([]), _words(error)
    values = np.array(values)
    return values, "" if np.isfinite(values).all() else "loess gives no finite value"


def _fitted(y: Floats, p: Floats, smoother: str, *, trace: str):
    from skmisc.loess import loess

    surface = "direct" if smoother == "loess-direct" else "interpolate"
    fit = loess(p, y, span=0.75, degree=2, surface=surface, trace_hat=trace)
    fit.fit()
    return fit


def _words(error: ValueError) -> str:
    """skmisc's message, which it raises as bytes."""
    text = error.args[0] if error.args else ""
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return f"loess has no stable fit ({' '.join(text.split())}); smoother 'lowess' may have one"


def _interval(
    y: Floats, p: Floats, at: Floats, smoother: str, level: float
) -> tuple[Floats, Floats, str]:
    nothing = np.full(at.size, np.nan)
    if smoother == "lowess":
        return nothing, nothing, "lowess has no interval"
    if p.size > _WITH_INTERVAL:
        return nothing, nothing, f"more than {_WITH_INTERVAL} patients: no interval computed"
    from scipy.stats import t

    try:
        predicted = _fitted(y, p, smoother, trace="exact").predict(at, stderror=True)
        half = t.ppf(0.5 + level / 2, predicted.df) * np.array(predicted.stderr)
    except ValueError as error:
        return nothing, nothing, _words(error)
    values = np.array(predicted.values)
    if not np.isfinite(half).all():
        return nothing, nothing, "loess has no finite standard error"
    return values - half, values + half, ""


def _lowess(y: Floats, p: Floats, at: Floats | None) -> tuple[Floats, str]:
    """Not robust: with statsmodels' default of three iterations 0/1 outcomes are outliers."""
    import warnings

    from statsmodels.nonparametric.smoothers_lowess import lowess

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        values = lowess(y, p, frac=2 / 3, it=0, delta=0.0, return_sorted=False, xvals=at)
    if np.isfinite(values).all():
        return values, ""
    # where all neighbours share one probability (statsmodels issue 2449)
    return values, "lowess gives no value where many patients share a probability"
