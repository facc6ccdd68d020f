"""What a number of patients can say: for developing a model, for validating one, for one AUC.

Formulas only; nothing is drawn. ``prevalence`` is the share with the event, ``n`` counts patients,
``events`` those with the event (a fraction is allowed where an expected number is meant). Sizes are
rounded up. Where a linear predictor is needed and none is given, it is that of the binormal model
with the C statistic and the prevalence (`rlvo_lib.metrics.binormal`), by numerical integration.

References
----------
Riley et al., Stat. Med. 2019;38:1276 and BMJ 2020;368:m441 (development, criteria 1 to 3);
Riley, Van Calster and Collins, Stat. Med. 2021;40:859 (R2 from a C statistic);
Riley et al., Stat. Med. 2021;40:4230 (validation); Newcombe, Stat. Med. 2006;25:559 (method 4);
Hanley and McNeil, Radiology 1982;143:29 and 1983;148:839 (SE, paired difference).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics import binormal
from rlvo_lib.metrics.checks import quantile
from rlvo_lib.metrics.classification import wilson
from rlvo_lib.metrics.planning import (
    SE_METHODS,
    F1Spread,
    auc_difference_se,
    auc_power,
    auc_se,
    auc_width,
    correlation_for_significance,
    detectable_difference,
    f1_spread,
    feasible_counts,
    n_for_auc_difference,
    n_for_auc_width,
    positive,
    share,
)

__all__ = [
    "SE_METHODS", "DevelopmentSize", "F1Spread", "ValidationSize", "auc_difference_se", "auc_power",
    "auc_se", "auc_width", "correlation_for_significance", "detectable_difference",
    "expected_shrinkage", "f1_spread", "feasible_counts", "n_for_auc_difference", "n_for_auc_width",
    "oe_width", "parameters_supported", "precision_plan", "r2_cox_snell", "r2_max",
    "riley_development", "riley_validation", "slope_se",
]  # fmt: skip


@dataclass(frozen=True)
class DevelopmentSize:
    """Patients needed to develop a model (Riley's criteria 1 to 3), and what they give."""

    n: int
    events: float  # expected among n
    epv: float  # events per candidate parameter
    binding: str  # the criterion that asks for most: shrinkage, optimism or risk
    n_shrinkage: int
    n_optimism: int
    n_risk: int
    shrinkage: float  # expected at n
    parameters: int
    r2: float
    r2_max: float


@dataclass(frozen=True)
class ValidationSize:
    """Patients needed to validate a model, by criterion; NaN where a criterion was not asked for."""

    n: int
    events: float
    binding: str  # oe, slope, c or net_benefit
    n_oe: int
    n_slope: int
    n_c: int
    n_net_benefit: float


# --------------------------------------------------------------------------------- development


def r2_max(prevalence: float) -> float:
    """The largest Cox-Snell R2 at a prevalence: 1 - exp(2 * log likelihood of no model / n).

    >>> round(r2_max(77 / 481), 3)
    0.585
    """
    p = share("prevalence", prevalence)
    return float(1 - np.exp(2 * (p * np.log(p) + (1 - p) * np.log1p(-p))))


def r2_cox_snell(c: float, prevalence: float) -> float:
    """Cox-Snell R2 of a calibrated model with a C statistic: 1 - exp(-2 * gain in log likelihood).

    The gain per patient is the expected log likelihood of the binormal model minus that of the
    prevalence alone. Riley, Van Calster and Collins (2021) estimate the same from a simulated
    sample, as pmsampsize does: with a million patients theirs varies by 1 % around this.

    >>> round(r2_cox_snell(0.70, 77 / 481), 4), r2_cox_snell(0.5, 0.2)
    (0.0687, 0.0)
    """
    log_odds, outcome, weight = binormal.expectations(c, prevalence)
    model = weight @ (outcome * log_odds - np.logaddexp(0, log_odds))
    p = prevalence
    gain = model - (p * np.log(p) + (1 - p) * np.log1p(-p))
    return max(round(float(-np.expm1(-2 * gain)), 14), 0.0)


def expected_shrinkage(parameters: int, n: float, r2: float) -> float:
    """Van Houwelingen's global shrinkage S expected when ``parameters`` are fitted to n patients.

    S solves S = 1 + parameters / (n ln(1 - R2 / S)); R2 / S is the apparent R2 that goes with an
    adjusted R2 of ``r2`` (Riley et al. 2019, equation 11 turned round).

    >>> round(expected_shrinkage(10, 481, 0.068), 2)
    0.77
    """
    from scipy.optimize import brentq

    positive("parameters", parameters)
    positive("n", n)
    share("r2", r2)

    def gap(s: float) -> float:
        return s - 1 - parameters / (n * np.log1p(-r2 / s))

    return float(brentq(gap, r2 * (1 + 1e-12), 1.0, xtol=1e-14))


def _n_for_shrinkage(parameters: float, r2: float, shrinkage: float) -> float:
    if not r2 < shrinkage < 1:
        raise InputError(f"shrinkage is {shrinkage!r}; allowed: above R2 ({r2:.3g}) and below 1")
    return float(parameters / ((shrinkage - 1) * np.log1p(-r2 / shrinkage)))


def parameters_supported(n: float, r2: float, shrinkage: float = 0.9) -> float:
    """How many candidate parameters n patients carry at a shrinkage: n (S - 1) ln(1 - R2 / S).

    >>> round(parameters_supported(481, r2_cox_snell(0.70, 77 / 481)), 1)
    3.8
    """
    return positive("n", n) / _n_for_shrinkage(1.0, share("r2", r2), shrinkage)


def riley_development(
    parameters: int,
    prevalence: float,
    *,
    c: float | None = None,
    r2: float | None = None,
    shrinkage: float = 0.9,
    optimism: float = 0.05,
    margin: float = 0.05,
    level: float = 0.95,
) -> DevelopmentSize:
    """Patients needed to develop a regression model with a binary outcome: the largest of three.

    1. ``shrinkage``: n = P / ((S - 1) ln(1 - R2 / S)) for an expected shrinkage of S.
    2. ``optimism`` in Nagelkerke's R2 of at most 0.05: the same with S = R2 / (R2 + 0.05 max R2).
    3. overall ``risk`` within ± ``margin``: n = (z / margin)^2 * prevalence * (1 - prevalence).

    Either ``c`` (a C statistic, see `r2_cox_snell`) or ``r2`` (an adjusted Cox-Snell R2) is given.
    ``parameters`` counts candidate coefficients, before any selection. Networks have far more, so
    that this bounds their need from below.

    >>> size = riley_development(24, 0.174, r2=0.288)
    >>> size.n, size.binding, size.n_shrinkage, size.n_risk
    (662, 'optimism', 623, 221)
    """
    if (c is None) == (r2 is None):
        raise InputError(f"c is {c!r} and r2 is {r2!r}; allowed: exactly one of them")
    positive("parameters", parameters)
    largest = r2_max(prevalence)
    r2 = r2_cox_snell(c, prevalence) if r2 is None else share("r2", r2)
    if not 0 < r2 < largest:
        raise InputError(
            f"R2 is {r2:.4g}; allowed: above 0 and below {largest:.4g}, the largest at this prevalence"
        )
    positive("margin", margin)
    second = r2 / (r2 + positive("optimism", optimism) * largest)
    needed = {
        "shrinkage": _n_for_shrinkage(parameters, r2, shrinkage),
        "optimism": _n_for_shrinkage(parameters, r2, second),
        "risk": (quantile(level) / margin) ** 2 * prevalence * (1 - prevalence),
    }
    sizes = {name: int(np.ceil(value - 1e-9)) for name, value in needed.items()}
    binding = max(needed, key=lambda name: needed[name])
    n = sizes[binding]
    return DevelopmentSize(
        n=n, events=n * prevalence, epv=n * prevalence / parameters, binding=binding,
        n_shrinkage=sizes["shrinkage"], n_optimism=sizes["optimism"], n_risk=sizes["risk"],
        shrinkage=expected_shrinkage(parameters, n, r2), parameters=int(parameters),
        r2=r2, r2_max=largest,
    )  # fmt: skip


# ---------------------------------------------------------------------------------- validation


def oe_width(prevalence: float, n: float, *, level: float = 0.95) -> float:
    """Expected width of the interval of observed / expected events, where their ratio is 1.

    The SE of ln(O/E) is sqrt((1 - prevalence) / (n prevalence)).

    >>> oe_width(0.018, 905) > 1.0 > oe_width(0.018, 906)
    True
    """
    se = np.sqrt((1 - share("prevalence", prevalence)) / (positive("n", n) * prevalence))
    return float(2 * np.sinh(quantile(level) * se))


def slope_se(
    n: float, *, prevalence: float, c: float, linear_predictor: ArrayLike | None = None
) -> float:
    """Expected SE of the calibration slope of a calibrated model (Riley et al. 2021, equation 7).

    With w = p (1 - p) and I the mean of w, w LP and w LP^2 over patients:
    SE^2 = I0 / (n (I0 I2 - I1^2)).
    """
    if linear_predictor is None:
        lp, _, weight = binormal.expectations(c, prevalence)
    else:
        lp = np.asarray(linear_predictor, dtype=float)
        if lp.ndim != 1 or lp.size < 2 or not np.isfinite(lp).all():
            raise InputError("linear_predictor must hold at least two finite log odds")
        weight = np.full(lp.size, 1 / lp.size)
    w = weight * np.exp(-np.logaddexp(0, lp) - np.logaddexp(0, -lp))
    i0, i1, i2 = w.sum(), w @ lp, w @ lp**2
    spread = i0 * i2 - i1**2
    return float(np.sqrt(i0 / (n * spread))) if spread > 1e-14 else float("inf")


def _net_benefit_variance(prevalence: float, c: float, threshold: float) -> float:
    """n times the variance of the standardised net benefit at a risk threshold (Riley et al. 2021)."""
    lp, outcome, weight = binormal.expectations(c, prevalence)
    flagged = lp >= np.log(threshold / (1 - threshold))
    sensitivity = (weight * outcome) @ flagged / prevalence
    specificity = 1 - (weight * (1 - outcome)) @ flagged / (1 - prevalence)
    w = (1 - prevalence) / prevalence * threshold / (1 - threshold)
    return float(
        sensitivity * (1 - sensitivity) / prevalence
        + w**2 * specificity * (1 - specificity) / (1 - prevalence)
        + w**2 * (1 - specificity) ** 2 / (prevalence * (1 - prevalence))
    )


def riley_validation(
    prevalence: float,
    c: float,
    *,
    width_oe: float = 0.2,
    width_slope: float = 0.2,
    width_c: float = 0.1,
    threshold: float | None = None,
    width_net_benefit: float = 0.2,
    linear_predictor: ArrayLike | None = None,
    level: float = 0.95,
) -> ValidationSize:
    """Patients needed to validate a calibrated model: the largest of three or four criteria.

    Each asks for a 95 % interval no wider than given: of O/E, of the calibration slope, of the
    C statistic (Newcombe's SE) and, if a risk ``threshold`` is named, of the standardised net
    benefit there. ``linear_predictor`` holds log odds of patients like those to come; without it
    the binormal model stands in.

    >>> size = riley_validation(16 / 118, 0.70)
    >>> size.n_c, size.binding
    (886, 'slope')
    """
    for name, value in (("width_oe", width_oe), ("width_slope", width_slope), ("width_c", width_c)):
        positive(name, value)
    z = quantile(level)
    se_oe = np.arcsinh(width_oe / 2) / z
    slope = slope_se(1, prevalence=prevalence, c=c, linear_predictor=linear_predictor)
    if not np.isfinite(slope):
        raise InputError(
            f"C {c:g}: the model does not tell patients apart, no slope can be estimated"
        )
    needed = {
        "oe": (1 - share("prevalence", prevalence)) / (prevalence * se_oe**2),
        "slope": (2 * z * slope / width_slope) ** 2,
        "c": float(n_for_auc_width(c, prevalence, width_c, method="newcombe", level=level)),
    }
    if threshold is not None:
        variance = _net_benefit_variance(prevalence, c, share("threshold", threshold))
        needed["net_benefit"] = (
            variance * (2 * z / positive("width_net_benefit", width_net_benefit)) ** 2
        )
    sizes = {name: int(np.ceil(value - 1e-9)) for name, value in needed.items()}
    binding = max(needed, key=lambda name: needed[name])
    return ValidationSize(
        n=sizes[binding], events=sizes[binding] * prevalence, binding=binding, n_oe=sizes["oe"],
        n_slope=sizes["slope"], n_c=sizes["c"], n_net_benefit=sizes.get("net_benefit", np.nan),
    )  # fmt: skip


# -------------------------------------------------------------------------------------- planning


def precision_plan(
    n: int,
    prevalence: float,
    areas: Sequence[float] = (0.6, 0.7, 0.8, 0.9),
    *,
    method: str = "binormal",
    level: float = 0.95,
) -> pd.DataFrame:
    """How precise results of n patients will be, for each AUC the model may have.

    The operating point is the binormal model's with the best F1 (`binormal.best_f1`), its threshold
    fixed beforehand. AUC: z intervals with the SE of ``method``, cut at 0 and 1 (their width is not);
    sensitivity and specificity: Wilson at the expected counts; F1: its exact distribution at the
    rounded number of events; O/E: on the log scale, at 1.

    Returns
    -------
    DataFrame with n, events (expected), prevalence, auc, quantity (auc, sensitivity, specificity,
    f1, oe), value, se (of F1 its SD; NaN for proportions, whose interval is not value ± z SE; of O/E
    that of its logarithm), low, high, width, power (of the AUC against 0.5; NaN elsewhere), method.

    >>> plan = precision_plan(118, 16 / 118, (0.70,))
    >>> plan.set_index("quantity")["width"].round(2).to_dict()
    {'auc': 0.27, 'sensitivity': 0.44, 'specificity': 0.16, 'f1': 0.3, 'oe': 0.94}
    """
    p, events = share("prevalence", prevalence), positive("n", n) * prevalence
    whole = round(events)
    if not 0 < whole < n:
        raise InputError(
            f"n is {n} at prevalence {prevalence:g}; allowed: at least one event and one non-event "
            "expected"
        )
    z, rows = quantile(level), []
    for area in areas:
        best, se = binormal.best_f1(area, p), auc_se(area, events, n, method)
        half, power = z * se, auc_power(area, events, n, method=method, level=level)
        rows.append(
            (area, "auc", area, se, max(area - half, 0), min(area + half, 1), power, method)
        )
        for name, value, size in (
            ("sensitivity", best.sensitivity, events),
            ("specificity", best.specificity, n - events),
        ):
            limits = wilson(value * size, size, level=level)
            rows.append((area, name, value, np.nan, *limits, np.nan, "Wilson"))
        spread = f1_spread(best.sensitivity, best.specificity, whole, n, level=level)
        f1 = (spread.f1, spread.sd, spread.low, spread.high)
        rows.append((area, "f1", *f1, np.nan, "exact distribution"))
        se_log = np.sqrt((1 - p) / events)
        limits = np.exp([-z * se_log, z * se_log])
        rows.append((area, "oe", 1.0, se_log, *limits, np.nan, "log scale"))
    names = ["auc", "quantity", "value", "se", "low", "high", "power", "method"]
    table = pd.DataFrame(rows, columns=names).assign(n=n, events=events, prevalence=p)
    table["width"] = table["high"] - table["low"]
    areas_only = table["quantity"] == "auc"
    table.loc[areas_only, "width"] = 2 * z * table.loc[areas_only, "se"]
    order = ["n", "events", "prevalence", "auc", "quantity", "value", "se", "low", "high", "width"]
    return table[[*order, "power", "method"]]
