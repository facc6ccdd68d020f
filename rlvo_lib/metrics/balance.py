"""How far two groups lie apart: the standardised mean difference (SMD)."""

from __future__ import annotations

import numpy as np

from rlvo_lib.config import InputError

SMD_KINDS = ("continuous", "binary", "categorical")


def smd(a: np.ndarray, b: np.ndarray, *, kind: str) -> float:
    """Standardised mean difference of group ``a`` from group ``b``.

    Parameters
    ----------
    a, b : (n_a,), (n_b,) values of the two groups; missing values (NaN, None, NA) are left out.
    kind : ``continuous``: (mean a − mean b) / sqrt((s²a + s²b) / 2), variances with n − 1;
        ``binary`` (0/1): the same with p (1 − p) as variance; ``categorical``: the Mahalanobis
        distance of the level proportions (no sign), levels of both groups together.

    Returns
    -------
    float. NaN where a group is empty or (continuous) has one value. Where the pooled spread is zero:
    0 if the groups are the same, else infinite with the difference's sign.

    References
    ----------
    Austin, Stat Med 2009; Yang and Dalton, SAS Global Forum 2012, paper 335 (categorical).

    Examples
    --------
    >>> round(smd(np.array([2.0, 4.0]), np.array([1.0, 3.0]), kind="continuous"), 4)
    0.7071
    >>> smd(np.array(["x", "x"]), np.array(["y", "y"]), kind="categorical")
    inf
    """
    if kind not in SMD_KINDS:
        raise InputError(f"kind of SMD '{kind}'; allowed: {', '.join(SMD_KINDS)}")
    a, b = _present(a), _present(b)
    if kind == "categorical":
        return _categorical(a, b)
    a, b = _numbers(a, kind), _numbers(b, kind)
    if min(a.size, b.size) < (2 if kind == "continuous" else 1):
        return float("nan")
    if kind == "binary":
        if not np.isin(np.concatenate([a, b]), (0, 1)).all():
            raise InputError("SMD of kind binary: a value is neither 0 nor 1")
        variances = [x.mean() * (1 - x.mean()) for x in (a, b)]
    else:
        variances = [x.var(ddof=1) for x in (a, b)]
    difference, variance = float(a.mean() - b.mean()), float(np.mean(variances))
    size = 1e-14 * float(np.abs(np.concatenate([a, b])).max())  # rounding: 0.1 + 0.2 is not 0.3
    return _ratio(
        difference if abs(difference) > size else 0.0, variance if variance > size**2 else 0.0
    )


def _present(values: np.ndarray) -> np.ndarray:
    import pandas as pd

    values = np.asarray(values, dtype=object)
    return values[~pd.isna(values)]


def _numbers(values: np.ndarray, kind: str) -> np.ndarray:
    words = [v for v in values if isinstance(v, str)]
    if words:
        raise InputError(f"SMD of kind {kind}: {words[0]!r} is not a number")
    values = values.astype(float)
    if not np.isfinite(values).all():
        raise InputError(f"SMD of kind {kind}: a value is infinite")
    return values


def _ratio(difference: float, variance: float) -> float:
    if variance > 0:
        return difference / variance**0.5
    return 0.0 if difference == 0 else float(np.copysign(np.inf, difference))


def _categorical(a: np.ndarray, b: np.ndarray) -> float:
    """The first level is dropped: the proportions of the others say its own."""
    if min(a.size, b.size) == 0:
        return float("nan")
    levels = sorted(set(a) | set(b), key=str)
    p, q = (np.array([np.mean(x == level) for level in levels])[1:] for x in (a, b))
    covariance = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    difference = p - q
    if not difference.any():
        return 0.0
    # A direction without spread in which the groups differ sets them infinitely apart.
    values, directions = np.linalg.eigh(covariance)
    along = directions.T @ difference
    flat = values <= 1e-12
    if np.abs(along[flat]).max(initial=0) > 1e-9:
        return float("inf")
    return float(np.sqrt(np.sum(along[~flat] ** 2 / values[~flat])))
