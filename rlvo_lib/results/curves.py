"""ROC and precision-recall curves of the main arms, and their bands over patients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import Study
from rlvo_lib.results.predictions import Scores, reported
from rlvo_lib.results.uncertainty import RESAMPLES, SEED


def roc_points(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Every corner of the ROC curves of the main arms' ensembles: arm, seed, threshold, fpr, tpr, data.

    The first point, where nobody is flagged, has no threshold (NaN). Points on a straight line between
    two corners are left out.
    """
    return _points(predictions, study, metrics.roc_curve, _roc_corners).assign(data=data)


def pr_points(predictions: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """The precision-recall curves of the main arms' ensembles: arm, seed, threshold, recall, precision,
    prevalence, data.

    Of thresholds with the same recall, the first and the last are kept. The first point, where nobody is
    flagged, has no threshold (NaN), and precision 1 by convention.
    """
    found = _points(predictions, study, metrics.precision_recall_curve, _recall_steps)
    prevalence = {s.arm: float(s.y.mean()) for s in reported(predictions, study, main=True)}
    return found.assign(prevalence=found["arm"].map(prevalence), data=data)


def _points(
    predictions: pd.DataFrame,
    study: Study,
    curve: Callable[..., pd.DataFrame],
    corners: Callable[[pd.DataFrame], np.ndarray],
) -> pd.DataFrame:
    frames = []
    for scores in reported(predictions, study, main=True):
        for k, seed in enumerate(scores.seeds):
            points = curve(scores.y, scores.p[:, k])
            points = points[corners(points)]
            points.insert(0, "arm", scores.arm)
            points.insert(1, "seed", seed)
            frames.append(points)
    return pd.concat(frames, ignore_index=True)


def _roc_corners(points: pd.DataFrame) -> np.ndarray:
    """``(n,)``: whether the curve turns at a point; its ends are corners."""
    x, y = np.diff(points["fpr"]), np.diff(points["tpr"])
    turns = np.abs(x[:-1] * y[1:] - x[1:] * y[:-1]) > 1e-12
    return np.concatenate([[True], turns, [True]])


def _recall_steps(points: pd.DataFrame) -> np.ndarray:
    """``(n,)``: the first and last point of each recall."""
    moves = np.diff(points["recall"].to_numpy()) != 0
    return np.append(True, moves) | np.append(moves, True)


def roc_band(
    predictions: pd.DataFrame,
    study: Study,
    *,
    data: str,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Pointwise 95 % bands of the main arms' ROC curves; of several seeds, of the mean of their curves.

    Returns
    -------
    DataFrame with arm, fpr, tpr, low, high (stratified bootstrap over patients), seeds, data.
    """
    return _bands(predictions, study, metrics.roc_band, resamples, seed).assign(data=data)


def pr_band(
    predictions: pd.DataFrame,
    study: Study,
    *,
    data: str,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Pointwise 95 % bands of the main arms' precision-recall curves, as `roc_band`.

    Returns
    -------
    DataFrame with arm, recall, precision, low, high, seeds, data.
    """
    band = metrics.precision_recall_band
    return _bands(predictions, study, band, resamples, seed).assign(data=data)


def _bands(
    predictions: pd.DataFrame,
    study: Study,
    band: Callable[..., pd.DataFrame],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    def of(scores: Scores) -> pd.DataFrame:
        found = band(scores.y, scores.p, n=resamples, seed=seed)
        found.insert(0, "arm", scores.arm)
        return found.assign(seeds=len(scores.seeds))

    arms = reported(predictions, study, main=True)
    return pd.concat([of(scores) for scores in arms], ignore_index=True)
