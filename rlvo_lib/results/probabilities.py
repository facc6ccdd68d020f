"""Calibration and the curves that figures are drawn from, of the fold ensembles."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import Study
from rlvo_lib.results.predictions import (
    Scores,
    check_predictions,
    ensembles,
    reported_partition,
    scores_of,
)

CLIP = 1e-6  # by which a probability of exactly 0 or 1 is moved before its logit is taken


def _reported(predictions: pd.DataFrame, study: Study) -> tuple[str, list[Scores]]:
    predictions = check_predictions(predictions)
    partition = reported_partition(predictions)
    return partition, list(scores_of(ensembles(predictions, partition), study.arms))


def calibration_table(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Calibration of each arm's ensemble, a row an arm and seed.

    Returns
    -------
    DataFrame with arm, seed, partition, the fields of `rlvo_lib.metrics.Calibration`, data.
    """
    partition, arms = _reported(predictions, study)
    rows = [
        {"arm": scores.arm, "seed": seed, "partition": partition}
        | asdict(metrics.calibration(scores.y, scores.p[:, k], clip=CLIP))
        for scores in arms
        for k, seed in enumerate(scores.seeds)
    ]
    return pd.DataFrame(rows).assign(data=data)


def calibration_points(
    predictions: pd.DataFrame, study: Study, *, data: str, groups: int = 5
) -> pd.DataFrame:
    """Observed against predicted risk in groups of equal size (fewer where probabilities are tied).

    Returns
    -------
    DataFrame with arm, seed, group, predicted (mean), observed, low, high (Wilson), n, events, data.
    """
    rows = []
    for scores in _reported(predictions, study)[1]:
        for k, seed in enumerate(scores.seeds):
            p = scores.p[:, k]
            edges = np.unique(np.quantile(p, np.linspace(0, 1, groups + 1)[1:-1]))
            group = np.searchsorted(edges, p, side="left")
            for number, members in enumerate(np.unique(group), start=1):
                inside = group == members
                n, events = int(inside.sum()), int(scores.y[inside].sum())
                observed = (events / n, *metrics.wilson(events, n))
                rows.append(
                    (scores.arm, seed, number, float(p[inside].mean()), *observed, n, events)
                )
    columns = ["arm", "seed", "group", "predicted", "observed", "low", "high", "n", "events"]
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def roc_points(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Every corner of each ensemble's ROC curve: arm, seed, threshold, fpr, tpr, data.

    The first point, where nobody is flagged, has no threshold (NaN).
    """
    from sklearn.metrics import roc_curve

    frames = []
    for scores in _reported(predictions, study)[1]:
        for k, seed in enumerate(scores.seeds):
            fpr, tpr, threshold = roc_curve(scores.y, scores.p[:, k], drop_intermediate=False)
            threshold[0] = np.nan  # scikit-learn says infinity
            points = {
                "arm": scores.arm,
                "seed": seed,
                "threshold": threshold,
                "fpr": fpr,
                "tpr": tpr,
            }
            frames.append(pd.DataFrame(points))
    return pd.concat(frames, ignore_index=True).assign(data=data)


def risk_distribution(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Quartiles of the ensemble's probability by outcome: arm, seed, y_true, n, min … max, data."""
    rows = []
    for scores in _reported(predictions, study)[1]:
        for k, seed in enumerate(scores.seeds):
            for label in (0, 1):
                p = scores.p[scores.y == label, k]
                rows.append(
                    (scores.arm, seed, label, p.size, *np.quantile(p, [0, 0.25, 0.5, 0.75, 1]))
                )
    columns = ["arm", "seed", "y_true", "n", "min", "q1", "median", "q3", "max"]
    return pd.DataFrame(rows, columns=columns).assign(data=data)
