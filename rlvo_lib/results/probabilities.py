"""Whether the ensembles' probabilities can be believed: calibration, and how risks are distributed."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import Study
from rlvo_lib.results.predictions import check_predictions, reported, reported_partition

CLIP = 1e-6  # by which a probability of exactly 0 or 1 is moved before its logit is taken


def calibration_table(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Calibration of each arm's ensemble, a row an arm and seed.

    Returns
    -------
    DataFrame with arm, seed, partition, the fields of `rlvo_lib.metrics.Calibration`, data.
    """
    partition = reported_partition(check_predictions(predictions))
    rows = [
        {"arm": scores.arm, "seed": seed, "partition": partition}
        | asdict(metrics.calibration(scores.y, scores.p[:, k], clip=CLIP))
        for scores in reported(predictions, study)
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
    for scores in reported(predictions, study):
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


def calibration_curve(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Smoothed observed against predicted risk of the main arms (`rlvo_lib.metrics.calibration_curve`).

    Returns
    -------
    DataFrame with arm, seed, predicted, observed, low, high (95 %, pointwise), reason, data.
    """
    frames = []
    for scores in reported(predictions, study, main=True):
        for k, seed in enumerate(scores.seeds):
            curve = metrics.calibration_curve(scores.y, scores.p[:, k])
            curve.insert(0, "arm", scores.arm)
            curve.insert(1, "seed", seed)
            frames.append(curve)
    return pd.concat(frames, ignore_index=True).assign(data=data)


def risk_distribution(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Quartiles of the ensemble's probability by outcome: arm, seed, y_true, n, min … max, data."""
    rows = []
    for scores in reported(predictions, study):
        for k, seed in enumerate(scores.seeds):
            for label in (0, 1):
                p = scores.p[scores.y == label, k]
                rows.append(
                    (scores.arm, seed, label, p.size, *np.quantile(p, [0, 0.25, 0.5, 0.75, 1]))
                )
    columns = ["arm", "seed", "y_true", "n", "min", "q1", "median", "q3", "max"]
    return pd.DataFrame(rows, columns=columns).assign(data=data)
