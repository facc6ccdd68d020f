"""The tables that figures of scores are drawn from; each has a column ``score``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.results.evaluation.scored import Scored

LONGEST = 500  # points of a curve that are kept: more cannot be seen
RISKS = tuple(round(k / 100, 2) for k in range(5, 41))  # threshold probabilities, 5 to 40 %
GROUPS = 5


def _stacked(
    scores: Iterable[Scored], table_of: Callable[[Scored], pd.DataFrame | None]
) -> pd.DataFrame:
    frames = []
    for score in scores:
        table = table_of(score)
        if table is not None:
            table.insert(0, "score", score.name)
            frames.append(table)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """At most `LONGEST` points, evenly spaced, both ends among them."""
    if len(curve) <= LONGEST:
        return curve
    return curve.iloc[np.unique(np.linspace(0, len(curve) - 1, LONGEST).round().astype(int))]


def roc_points(scores: Sequence[Scored]) -> pd.DataFrame:
    """score, threshold, fpr, tpr: the ROC curve, thinned to `LONGEST` points."""
    return _stacked(scores, lambda score: _thinned(metrics.roc_curve(score.y, score.s)))


def pr_points(scores: Sequence[Scored]) -> pd.DataFrame:
    """score, threshold, recall, precision, prevalence; thinned as `roc_points`."""
    return _stacked(
        scores,
        lambda score: _thinned(metrics.precision_recall_curve(score.y, score.s)).assign(
            prevalence=score.y.mean()
        ),
    )


def roc_band(scores: Sequence[Scored], *, resamples: int, seed: int) -> pd.DataFrame:
    """score, fpr, tpr, low, high: pointwise 95 % band, stratified bootstrap."""
    return _stacked(
        scores, lambda score: metrics.roc_band(score.y, score.s, n=resamples, seed=seed)
    )


def pr_band(scores: Sequence[Scored], *, resamples: int, seed: int) -> pd.DataFrame:
    """score, recall, precision, low, high: as `roc_band`."""
    return _stacked(
        scores,
        lambda score: metrics.precision_recall_band(score.y, score.s, n=resamples, seed=seed),
    )


def calibration(scores: Sequence[Scored]) -> pd.DataFrame:
    """score and the fields of `rlvo_lib.metrics.Calibration`; of a score that is no probability, why."""
    rows = []
    for score in scores:
        found = (
            asdict(score.calibration)
            if score.calibration
            else {"n": score.y.size, "events": int(score.y.sum()), "reason": score.reason}
        )
        rows.append({"score": score.name} | found)
    return pd.DataFrame(rows)


def calibration_curve(scores: Sequence[Scored]) -> pd.DataFrame:
    """score, predicted, observed, low, high: the smoothed curve of each probability."""
    return _stacked(
        (score for score in scores if score.probability and np.ptp(score.s) > 0),
        lambda score: metrics.calibration_curve(score.y, score.s),
    )


def calibration_points(scores: Sequence[Scored]) -> pd.DataFrame:
    """Observed against predicted risk in groups of equal size (fewer where probabilities are tied).

    Returns
    -------
    DataFrame with score, group, predicted (mean), observed, low, high (Wilson), n, events.
    """

    def table_of(score: Scored) -> pd.DataFrame:
        edges = np.unique(np.quantile(score.s, np.linspace(0, 1, GROUPS + 1)[1:-1]))
        group = np.searchsorted(edges, score.s, side="left")
        rows = []
        for number, members in enumerate(np.unique(group), start=1):
            inside = group == members
            n, events = int(inside.sum()), int(score.y[inside].sum())
            limits = metrics.wilson(events, n)
            rows.append((number, float(score.s[inside].mean()), events / n, *limits, n, events))
        names = ["group", "predicted", "observed", "low", "high", "n", "events"]
        return pd.DataFrame(rows, columns=names)

    return _stacked((score for score in scores if score.probability), table_of)


def decision_curve(scores: Sequence[Scored]) -> pd.DataFrame:
    """Net benefit of treating whom a probability flags, beside treating everyone and nobody.

    The limits are those of a mean over patients (normal): net benefit is the mean of 1 for each event
    flagged and -t / (1 - t) for each other patient flagged.

    Returns
    -------
    DataFrame with score and the columns of `rlvo_lib.metrics.net_benefit`, low and high.
    """
    z = metrics.checks.quantile(0.95)

    def table_of(score: Scored) -> pd.DataFrame:
        table = metrics.net_benefit(score.y, score.s, list(RISKS))
        half = [z * _spread(score, t) / np.sqrt(score.y.size) for t in table["threshold"]]
        return table.assign(low=table["net_benefit"] - half, high=table["net_benefit"] + half)

    return _stacked((score for score in scores if score.probability), table_of)


def _spread(score: Scored, threshold: float) -> float:
    gain = np.where(score.y == 1, 1.0, -threshold / (1 - threshold)) * (score.s >= threshold)
    return float(gain.std(ddof=1))


def risk_distribution(scores: Sequence[Scored]) -> pd.DataFrame:
    """score, y_true, n, min, q1, median, q3, max: quartiles of each score by outcome."""

    def table_of(score: Scored) -> pd.DataFrame:
        rows = []
        for label in (0, 1):
            s = score.s[score.y == label]
            rows.append((label, s.size, *np.quantile(s, [0, 0.25, 0.5, 0.75, 1])))
        return pd.DataFrame(rows, columns=["y_true", "n", "min", "q1", "median", "q3", "max"])

    return _stacked(scores, table_of)


def patient_risks(scores: Sequence[Scored]) -> pd.DataFrame:
    """score, y_true, probability of every patient, of the scores that are probabilities."""
    found = _stacked(
        (score for score in scores if score.probability),
        lambda score: pd.DataFrame({"y_true": score.y.astype(int), "probability": score.s}),
    )
    return found.reindex(columns=["score", "y_true", "probability"])


def precision(scores: Sequence[Scored]) -> pd.DataFrame:
    """How wide the 95 % interval of each AUC is expected to be, here and with more patients.

    Hanley and McNeil's standard error at the observed AUC and prevalence.

    Returns
    -------
    DataFrame with score, auc, patients (this number: here, or times 2, 5, 10), n, events, width, reason.
    """

    def table_of(score: Scored) -> pd.DataFrame:
        area, rows = metrics.auc(score.y, score.s), []
        for words, factor in (("here", 1), ("2 times", 2), ("5 times", 5), ("10 times", 10)):
            n, events = factor * score.y.size, factor * int(score.y.sum())
            defined = 0 < area < 1
            width = metrics.auc_width(area, events, n) if defined else np.nan
            reason = "" if defined else f"an AUC of {area:g} has no expected interval"
            rows.append((area, words, n, events, width, reason))
        return pd.DataFrame(rows, columns=["auc", "patients", "n", "events", "width", "reason"])

    return _stacked(scores, table_of)
