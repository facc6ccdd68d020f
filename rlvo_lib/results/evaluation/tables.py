"""All tables of anyone's predictions: one call from a table of patients to everything that is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from rlvo_lib.results.evaluation import curves, pairs, strata
from rlvo_lib.results.evaluation.measures import measures
from rlvo_lib.results.evaluation.points import operating_points
from rlvo_lib.results.evaluation.resampled import RESAMPLES, SEED, Resampled, resampled
from rlvo_lib.results.evaluation.scored import Scored, scored_columns

#: Tables of `evaluation_tables`, in the order in which they are read, and what each shows.
CAPTIONS = {
    "evaluation": "Every statistic of every score, with 95 % intervals over patients",
    "operating_points": "Operating points. A threshold chosen on these same patients is optimistic",
    "comparisons": "Every pair of scores on the same patients: AUC (DeLong, and bootstrap) and average "
    "precision (bootstrap), Holm-adjusted",
    "comparisons_flagged": "Every pair of scores at their thresholds: McNemar's exact test and mid-p",
    "calibration": "Calibration, with the smoother named",
    "calibration_points": "Observed and predicted risk in groups of equal size, Wilson intervals",
    "calibration_curve": "Smoothed observed risk by predicted risk, pointwise 95 % intervals",
    "decision_curve": "Net benefit at threshold probabilities of 5 to 40 %, beside treating everyone and nobody",
    "risk_distribution": "Quartiles of each score by outcome",
    "subgroups": "Subgroups: fewer than 10 events or non-events are not estimable",
    "precision": "How wide the 95 % interval of the AUC is expected to be with this many patients, and with more",
    "roc_points": "ROC curve",
    "roc_band": "ROC curve with its pointwise 95 % band, stratified bootstrap",
    "pr_points": "Precision-recall curve",
    "pr_band": "Precision-recall curve with its pointwise 95 % band, stratified bootstrap",
}


def evaluate(
    frame: pd.DataFrame,
    truth: str = "y_true",
    scores: Sequence[str] | None = None,
    *,
    event: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    data: str = "real",
) -> pd.DataFrame:
    """Discrimination, classification and calibration of one or more columns against an outcome.

    Parameters
    ----------
    frame : one row a patient.
    truth : the column with the outcome: 0 and 1, True and False, or two values of which ``event`` is one.
    scores : the score columns, higher meaning more likely an event; none: every numeric column other than
        the outcome whose values lie in 0..1 and are not just 0 and 1, or constant.
    thresholds : score -> threshold that was chosen on other patients; without one, that of maximal F1 on
        these.
    data : ``real`` or ``simulated``.

    Returns
    -------
    DataFrame with score, metric, value, low, high (95 % over patients), n, events, missing (rows left
    out for want of outcome or score), method, reason (why a value is missing), data.

    Raises
    ------
    InputError
        For an unknown column, an outcome that cannot be read as 0 and 1 or has one class only, or a score
        that is not numeric.
    """
    found, _ = scored_columns(frame, truth, scores, event=event, thresholds=thresholds)
    drawn = resampled(found, resamples=resamples, seed=seed)
    return _evaluation(found, drawn).assign(data=data)


def evaluation_tables(
    scores: Sequence[Scored],
    frame: pd.DataFrame,
    *,
    by: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
    data: str = "real",
) -> dict[str, pd.DataFrame]:
    """Every table of `CAPTIONS` that has rows, each with a column ``data``.

    Parameters
    ----------
    scores : of `rlvo_lib.results.evaluation.scored_columns` of the same ``frame``.
    by : columns whose values tell subgroups apart.
    """
    drawn = resampled(scores, resamples=resamples, seed=seed)
    found = {
        "evaluation": _evaluation(scores, drawn),
        "operating_points": operating_points(scores),
        "comparisons": pairs.comparisons(scores, drawn),
        "comparisons_flagged": pairs.comparisons_flagged(scores),
        "calibration": curves.calibration(scores),
        "calibration_points": curves.calibration_points(scores),
        "calibration_curve": curves.calibration_curve(scores),
        "decision_curve": curves.decision_curve(scores),
        "risk_distribution": curves.risk_distribution(scores),
        "subgroups": strata.subgroups(scores, frame, by),
        "precision": curves.precision(scores),
        "roc_points": curves.roc_points(scores),
        "roc_band": curves.roc_band(scores, resamples=resamples, seed=seed),
        "pr_points": curves.pr_points(scores),
        "pr_band": curves.pr_band(scores, resamples=resamples, seed=seed),
    }
    return {name: found[name].assign(data=data) for name in CAPTIONS if len(found[name])}


def _evaluation(scores: Sequence[Scored], drawn: Resampled) -> pd.DataFrame:
    frames = []
    for score in scores:
        table = measures(score, drawn)
        table.insert(0, "score", score.name)
        for place, (name, count) in enumerate(score.counts().items(), start=5):
            table.insert(place, name, count)
        frames.append(table)
    return pd.concat(frames, ignore_index=True)
