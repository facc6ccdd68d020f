"""The statistics of one score: discrimination, classification, calibration, and their no-skill lines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.results.evaluation.resampled import Resampled
from rlvo_lib.results.evaluation.scored import Scored
from rlvo_lib.results.probabilities import CLIP

PARTIAL = 0.1  # the false positive rates, from 0, over which the partial AUC is taken
TREATED = (0.05, 0.1, 0.2, 0.3, 0.4)
CALIBRATION = (
    "calibration in the large", "calibration slope", "observed / expected", "ici", "e50", "e90", "eci",
    "hosmer-lemeshow p", "spiegelhalter p",
)  # fmt: skip

#: metric, value, low, high, method, reason
Row = tuple[str, float, float, float, str, str]


def measures(score: Scored, drawn: Resampled) -> pd.DataFrame:
    """Every statistic of one score: metric, value, low, high (95 % over patients), method, reason."""
    rows = [
        *_discrimination(score, drawn),
        *_classification(score, drawn),
        *_probabilities(score, drawn),
        *_no_skill(score.y),
    ]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "method", "reason"])


def _plain(metric: str, value: float, method: str, reason: str = "") -> Row:
    return metric, float(value), np.nan, np.nan, method, reason


def _discrimination(score: Scored, drawn: Resampled) -> Iterator[Row]:
    y, s = score.y, score.s
    for name, method, words in (
        ("auc", "delong-logit", "DeLong, logit scale"),
        ("auc, plain scale", "delong", "DeLong, cut at 0 and 1"),
        ("auc, hanley-mcneil", "hanley-mcneil", "Hanley and McNeil"),
    ):
        area = metrics.auc_ci(y, s, method)
        yield name, area.estimate, area.low, area.high, words, area.reason
    limits = drawn.limits(score.name, "auc")
    if alone := metrics.resampling.fixed_stratum(y):
        limits = np.nan, np.nan, limits[2], alone
    yield "auc, bootstrap", metrics.auc(y, s), *limits
    for corrected in (False, True):
        area = metrics.partial_auc(y, s, max_fpr=PARTIAL, corrected=corrected)
        name = f"partial auc{', corrected' if corrected else ''}"
        words = f"false positive rates 0 to {PARTIAL:g}{', McClish' if corrected else ''}"
        reason = "below the diagonal: McClish's correction has no meaning" if np.isnan(area) else ""
        yield _plain(name, area, words, reason)
    limits = drawn.limits(score.name, "average_precision")
    yield "average precision", score.average_precision, *limits


def _classification(score: Scored, drawn: Resampled) -> Iterator[Row]:
    threshold, where = score.cut
    point = metrics.operating_point(score.y, score.s, threshold)
    yield _plain("threshold", threshold, where)
    low, high, how, reason = drawn.limits(score.name, "f1")
    yield "f1 (event class)", point.f1, low, high, f"{where}; {how}", reason
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        value, reason = getattr(point, name), ""
        if np.isnan(value):
            reason = f"{'nobody' if name == 'ppv' else 'everybody'} is flagged"
        yield name, value, *_limits(point, name), f"{where}; Wilson", reason
        exact = _limits(point, f"{name}_exact")
        yield f"{name}, exact", value, *exact, f"{where}; Clopper and Pearson", reason
    for name in ("accuracy", "balanced_accuracy", "mcc"):
        value = getattr(point, name)
        reason = _part(point.reason, "MCC") if np.isnan(value) else ""
        yield _plain(name.replace("_", " "), value, where, reason)
    for name, sign in (("positive", "LR+"), ("negative", "LR-")):
        value, limits = getattr(point, f"lr_{name}"), _limits(point, f"lr_{name}")
        reason = _part(point.reason, sign) if np.isnan([value, *limits]).any() else ""
        yield f"{name} likelihood ratio", value, *limits, f"{where}; log scale", reason


def _limits(point: metrics.OperatingPoint, name: str) -> tuple[float, float]:
    return getattr(point, f"{name}_low"), getattr(point, f"{name}_high")


def _part(reason: str, word: str) -> str:
    """The parts of a reason that speak of one thing; all of it, if none does.

    >>> _part("no true negative: LR- has no upper bound; everybody is flagged: no MCC", "MCC")
    'everybody is flagged: no MCC'
    """
    parts = [part for part in reason.split("; ") if word in part]
    return "; ".join(parts) or reason


def _probabilities(score: Scored, drawn: Resampled) -> Iterator[Row]:
    y, s = score.y, score.s
    if not score.probability:
        treated = [f"net benefit at {t * 100:g} %" for t in TREATED]
        for name in ("brier", "scaled brier", *CALIBRATION, *treated):
            yield _plain(name, np.nan, "not estimated", score.reason)
        return
    brier = {"brier": metrics.brier_loss(y, s), "scaled_brier": metrics.scaled_brier(y, s)}
    for name, value in brier.items():
        yield name.replace("_", " "), value, *drawn.limits(score.name, name)
    yield from _calibration(score)
    benefit = metrics.net_benefit(y, s, list(TREATED))
    for row in benefit.itertuples():
        words = f"treat all {row.treat_all:.4f}, treat none 0"
        yield _plain(f"net benefit at {row.threshold * 100:g} %", row.net_benefit, words)


def _calibration(score: Scored) -> Iterator[Row]:
    found = score.calibration
    moved = f"; {found.n_clipped} of 0 or 1 moved by {CLIP:g}" if found.n_clipped else ""
    wald = f"logistic model, Wald{moved}"

    def why(value: float, word: str) -> str:
        return _part(found.reason, word) if np.isnan(value) else ""

    yield (
        CALIBRATION[0], found.intercept, found.intercept_low, found.intercept_high,
        f"{wald}; slope fixed at 1", why(found.intercept, "intercept"),
    )  # fmt: skip
    yield (
        CALIBRATION[1],
        found.slope,
        found.slope_low,
        found.slope_high,
        wald,
        why(found.slope, "slope"),
    )
    yield (
        CALIBRATION[2], found.o_to_e, *ratio_limits(found.o_to_e, found.events, found.n),
        "events / sum of probabilities; log scale", "all probabilities are 0" * (not score.s.any()),
    )  # fmt: skip
    outside = f"; {found.smoothed_outside} smoothed values outside 0 to 1"
    smooth = f"smoother: {found.smoother}{outside if found.smoothed_outside else ''}"
    for name in CALIBRATION[3:7]:
        value = getattr(found, name)
        scale = "100 x mean squared distance; " if name == "eci" else ""
        yield _plain(name, value, f"{scale}{smooth}", why(value, "smooth"))
    yield _plain(
        CALIBRATION[7], found.hosmer_lemeshow_p,
        f"chi-squared {found.hosmer_lemeshow:.2f}, {found.hosmer_lemeshow_df:g} degrees of freedom, "
        f"{found.hosmer_lemeshow_groups} groups", why(found.hosmer_lemeshow_p, "Hosmer"),
    )  # fmt: skip
    yield _plain(CALIBRATION[8], found.spiegelhalter_p, f"z {found.spiegelhalter_z:.2f}",
                 why(found.spiegelhalter_p, "Spiegelhalter"))  # fmt: skip


def ratio_limits(ratio: float, events: int, n: int) -> tuple[float, float]:
    """95 % limits of observed / expected events on the log scale, SE = sqrt((1 - O/n) / O).

    Debray et al., BMJ 2017;356:i6460. NaN where the ratio is.

    >>> [round(limit, 3) for limit in ratio_limits(1.0, 16, 118)]
    [0.634, 1.577]
    """
    spread = np.exp(metrics.checks.quantile(0.95) * np.sqrt((1 - events / n) / events))
    return float(ratio / spread), float(ratio * spread)


def _no_skill(y: np.ndarray) -> Iterator[Row]:
    prevalence = float(y.mean())
    yield _plain("auc of no skill", 0.5, "ranking at random")
    yield _plain("average precision of no skill", prevalence, "prevalence")
    yield _plain("f1 of flagging everyone", metrics.flag_everyone_f1(y), "no skill")
    yield _plain("f1 of a coin", metrics.coin_f1(y), "no skill; expected")
    yield _plain("brier of no skill", prevalence * (1 - prevalence), "the prevalence for everyone")
