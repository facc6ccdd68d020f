"""Learning curves as inverse power laws: AUC(n) = a - b n^(-c), fitted and read beyond what was measured.

``n`` counts the patients that a model learns from. ``a`` (0.5 to 1) is what endless patients would bring,
``b`` (at least 0) what is lost for want of them, ``c`` how fast that loss shrinks. Least squares weighted
by inverse variances: for a given c, a and b have a closed form, cut at their limits; c is searched on a
grid that is refined twice (0.0005 at the end). Many curves are fitted at once.

``c`` is free (form ``power``, from `LEAST_C`, where the curve is all but a straight line over log n, to 1)
or fixed: 0.5 (``root``), the rate of bounds that assume nothing of the model, and 1 (``inverse``), the
rate of regular parametric models. Three forms that agree beyond the measured sizes are no proof, but
forms that disagree show that the data do not decide.

References
----------
Mukherjee et al., J. Comput. Biol. 2003;10:119 (inverse power law, extrapolated); Figueroa et al., BMC
Med. Inform. Decis. Mak. 2012;12:8 (weighted fit of it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats

#: Form -> its exponent c; None: searched.
FORMS: dict[str, float | None] = {"power": None, "root": 0.5, "inverse": 1.0}
LEAST_C, LEAST_A = 0.05, 0.5
LEAST_SIZES = 4
_STEP, _REFINED = 0.05, 2  # of the grid over c, and how often it is refined tenfold
_FLAT = 1e-9  # a smaller b is rounding
_ROUNDING = 1e-12  # sums of squares that differ by less are equal, relative to the curve's own


@dataclass(frozen=True)
class PowerLaw:
    """Fitted curves; each field has the leading shape of the AUCs that were fitted.

    ``c`` is NaN where ``b`` is 0: the curve is flat, and any c is as good.
    """

    a: Floats
    b: Floats
    c: Floats
    form: str

    def at(self, n: ArrayLike) -> Floats:
        """AUC at ``n`` patients ``(m,)``: ``(..., m)``."""
        sizes = _sizes(n)
        loss = self.b[..., None] * sizes ** -np.nan_to_num(self.c, nan=1.0)[..., None]
        return self.a[..., None] - loss


def fit_power_law(
    n: ArrayLike, auc: ArrayLike, variance: ArrayLike | None = None, *, form: str = "power"
) -> PowerLaw:
    """Inverse power laws through the AUCs of models that learnt from ``n`` patients.

    Parameters
    ----------
    n : ``(k,)`` numbers of training patients, at least `LEAST_SIZES` different ones.
    auc : ``(..., k)``, 0 to 1: one curve or many.
    variance : ``(k,)`` of the AUCs, above 0; left out: all alike.
    form : of `FORMS`.

    Raises
    ------
    InputError
        For too few sizes, an AUC out of range, a variance that is not above 0, or an unknown form.

    Examples
    --------
    >>> n = [50, 100, 150, 200, 250]
    >>> law = fit_power_law(n, [0.85 - 0.9 * k**-0.5 for k in n])
    >>> [round(float(v), 3) for v in (law.a, law.b, law.c, law.at([1000])[0])]
    [0.85, 0.9, 0.5, 0.822]
    """
    if form not in FORMS:
        raise InputError(f"form is '{form}'; allowed: {', '.join(FORMS)}")
    sizes, areas, weights = _checked(n, auc, variance)
    fixed = FORMS[form]
    if fixed is not None:
        grid = np.full((*areas.shape[:-1], 1), fixed)
        return _law(*_best(sizes, areas, weights, grid), form)
    steps = np.arange(round((1 - LEAST_C) / _STEP) + 1) * _STEP + LEAST_C
    a, b, c = _best(sizes, areas, weights, np.broadcast_to(steps, (*areas.shape[:-1], steps.size)))
    step = _STEP
    for _ in range(_REFINED):
        near = c[..., None] + np.arange(-10, 11) * step / 10
        a, b, c = _best(sizes, areas, weights, near.clip(LEAST_C, 1.0))
        step /= 10
    return _law(a, b, c, form)


def _law(a: Floats, b: Floats, c: Floats, form: str) -> PowerLaw:
    b = np.where(b > _FLAT, b, 0.0)
    return PowerLaw(a, b, np.where(b > 0, c, np.nan), form)


def _best(n: Floats, auc: Floats, weights: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b and c ``(...)`` of the least squares among some exponents c ``(..., g)``."""
    x = n ** -c[..., None]  # (..., g, k)
    y = auc[..., None, :]
    mean_x, mean_y = x @ weights, y @ weights  # weights sum to 1
    spread = ((x - mean_x[..., None]) ** 2) @ weights
    slope = (((x - mean_x[..., None]) * (y - mean_y[..., None])) @ weights) / spread
    b = np.maximum(-slope, 0)
    a = np.clip(mean_y + b * mean_x, LEAST_A, 1)
    # where a was cut, b follows it: least squares through a fixed a
    through = ((a[..., None] - y) * x) @ weights / ((x**2) @ weights)
    b = np.where((a <= LEAST_A) | (a >= 1), np.maximum(through, 0), b)
    squares = ((y - a[..., None] + b[..., None] * x) ** 2) @ weights
    least = squares.min(axis=-1, keepdims=True)
    chosen = (squares <= least * (1 + _ROUNDING) + _ROUNDING**2).argmax(axis=-1)[..., None]
    return tuple(np.take_along_axis(values, chosen, axis=-1)[..., 0] for values in (a, b, c))


def _sizes(n: ArrayLike) -> Floats:
    sizes = np.asarray(n, dtype=float)
    if sizes.ndim != 1 or not (np.isfinite(sizes) & (sizes >= 1)).all():
        raise InputError(
            f"n is {n!r}; allowed: numbers of patients, one dimension, at least 1 each"
        )
    return sizes


def _checked(
    n: ArrayLike, auc: ArrayLike, variance: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Sizes, AUCs and weights (of sum 1), or an `InputError`."""
    sizes, areas = _sizes(n), np.asarray(auc, dtype=float)
    if np.unique(sizes).size < LEAST_SIZES:
        raise InputError(
            f"a learning curve has {np.unique(sizes).size} different sizes; allowed: at least "
            f"{LEAST_SIZES}"
        )
    if areas.shape[-1:] != sizes.shape:
        raise InputError(f"auc has shape {areas.shape}; allowed: (..., {sizes.size}), one a size")
    if not ((areas >= 0) & (areas <= 1)).all():
        worst = areas[~((areas >= 0) & (areas <= 1))][0]
        raise InputError(f"auc is {worst:g}; allowed: 0 to 1")
    spread = np.ones_like(sizes) if variance is None else np.asarray(variance, dtype=float)
    if spread.shape != sizes.shape or not (np.isfinite(spread) & (spread > 0)).all():
        raise InputError(f"variance is {variance!r}; allowed: {sizes.size} numbers above 0")
    return sizes, areas, (1 / spread) / (1 / spread).sum()
