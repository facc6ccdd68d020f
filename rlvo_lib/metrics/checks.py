"""Checks of labels and scores that every metric shares; each error names what is wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlvo_lib.config import InputError

Floats = NDArray[np.float64]
_NUMBER = (bool, int, float, np.number, np.bool_)


def as_labels(y_true: ArrayLike) -> Floats:
    """``(n,)`` of 0.0 and 1.0 with both present, or an `InputError`."""
    try:
        y = np.asarray(_unmasked(y_true))
    except ValueError:  # lists of different lengths
        raise InputError("y_true is a list of lists; allowed: one label a patient") from None
    if y.ndim != 1 or y.size == 0:
        raise InputError(
            f"y_true has shape {y.shape}; allowed: one dimension, at least two patients"
        )
    if y.dtype == object:
        y = _numbers(y)
    if not (np.issubdtype(y.dtype, np.number) or y.dtype == bool):
        raise InputError(f"y_true holds {y[0]!r} ({y.dtype}); allowed: the numbers 0 and 1")
    y = y.astype(np.float64)
    if np.isnan(y).any():
        raise InputError(
            f"y_true has {int(np.isnan(y).sum())} missing values; remove or fill them first"
        )
    strange = np.unique(y[(y != 0) & (y != 1)])
    if strange.size:
        raise InputError(f"y_true holds {strange[0]:g}; allowed: 0 and 1")
    if y.min() == y.max():
        raise InputError(f"y_true holds only {y[0]:g} ({y.size} patients); both 0 and 1 are needed")
    return y


def _numbers(y: NDArray[np.object_]) -> Floats:
    """Numbers and booleans that come as objects; None and pandas' NA become NaN."""
    from pandas import isna

    strange = [v for v in y if not (isna(v) or isinstance(v, _NUMBER))]
    if strange:
        raise InputError(
            f"y_true holds {strange[0]!r} ({type(strange[0]).__name__}); "
            "allowed: the numbers 0 and 1"
        )
    return np.array([np.nan if isna(v) else float(v) for v in y])


def _unmasked(values: ArrayLike) -> ArrayLike:
    """What a masked array hides is missing."""
    masked = isinstance(values, np.ma.MaskedArray)
    return np.ma.filled(values.astype(np.float64), np.nan) if masked else values


def as_scores(score: ArrayLike, y: Floats, name: str = "score") -> Floats:
    """Finite floats, one row a patient, or an `InputError`."""
    try:
        s = np.asarray(_unmasked(score))
        if s.dtype.kind in "mMc":
            raise TypeError  # dates would become nanoseconds
        s = s.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} is not numeric; allowed: finite numbers") from None
    if s.shape[:1] != y.shape:
        raise InputError(f"{name} has {s.shape[0] if s.ndim else 0} values, y_true has {y.size}")
    if not np.isfinite(s).all():
        bad = int((~np.isfinite(s)).sum())
        raise InputError(f"{name} has {bad} missing or infinite values; remove or fill them first")
    return s


def checked(y_true: ArrayLike, score: ArrayLike, name: str = "score") -> tuple[Floats, Floats]:
    """Labels and one finite score a patient, or an `InputError`."""
    y = as_labels(y_true)
    s = as_scores(score, y, name)
    if s.ndim != 1:
        raise InputError(f"{name} has shape {s.shape}; allowed: one value a patient")
    return y, s


def checked_columns(y_true: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Labels ``(n,)`` and scores ``(n, k)``, from ``(n,)`` or ``(n, k)``, or an `InputError`."""
    y = as_labels(y_true)
    s = as_scores(scores, y, "scores")
    if s.ndim > 2 or s.size == 0:
        raise InputError(f"scores have shape {s.shape}; allowed: (n,) or (n, k), a column a score")
    return y, s[:, None] if s.ndim == 1 else s


def as_probabilities(y_true: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    """Labels and probabilities in 0..1, or an `InputError`."""
    y, p = checked(y_true, p, "probability")
    if p.min() < 0 or p.max() > 1:
        worst = p.min() if p.min() < 0 else p.max()
        raise InputError(f"probability {worst:g} is out of range; allowed: 0 to 1")
    return y, p


def finite(value: float, name: str) -> float:
    """One finite number, or an `InputError`.

    >>> finite(0.5, "threshold")
    0.5
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {value!r}; allowed: a finite number") from None
    if not np.isfinite(number):
        raise InputError(f"{name} is {value!r}; allowed: a finite number")
    return number


def quantile(level: float) -> float:
    """Standard normal quantile of a two-sided interval: 1.96 for 0.95."""
    from scipy.special import ndtri

    if not 0 < level < 1:
        raise InputError(f"level is {level!r}; allowed: between 0 and 1")
    return float(ndtri(0.5 + level / 2))
