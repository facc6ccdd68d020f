"""Arms made of other arms' probabilities, and probabilities recalibrated."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib import baselines
from rlvo_lib.config import Arm
from rlvo_lib.experiment.fitting import PREDICTION_COLUMNS

#: Of a recalibration: nearly the prevalence for everybody, in the arm's own order.
LEAST_SLOPE = 0.01
KEYS = ["participant_id", "partition", "seed", "fold", "y_true"]


def average_arms(predictions: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """Predictions of a ``mean`` arm: the mean probability of the arms it names, patient by patient."""
    wide = _side_by_side(predictions, arm)
    return _long(wide, wide[list(arm.of)].mean(axis=1), arm)


def stack_arms(predictions: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """Predictions of a ``stack`` arm: a logistic regression of the outcome on the logits of its arms.

    For each seed and fold it is fitted on the out-of-fold predictions of the other folds, and applied to
    the patients held out of this one and to what this fold's models say of the test set.
    """
    wide, made = _side_by_side(predictions, arm), []
    for _, rows in wide.groupby("seed", sort=False):
        known = rows[rows["partition"] == "out-of-fold"]
        for fold, own in rows.groupby("fold", sort=False):
            other = known[known["fold"] != fold]
            stack = baselines.Stack().fit(
                other[list(arm.of)].to_numpy(), other["y_true"].to_numpy()
            )
            found = stack.predict(own[list(arm.of)].to_numpy())
            made.append(_long(own, pd.Series(found, own.index), arm))
    return pd.concat(made, ignore_index=True) if made else _long(wide, wide["seed"], arm)


def _side_by_side(predictions: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """One row a patient, fold and seed that every arm scored, one column an arm."""
    parts = predictions[predictions["arm"].isin(arm.of)]
    wide = parts.pivot(index=KEYS, columns="arm", values="probability").dropna()
    return wide.reindex(columns=list(arm.of)).dropna().reset_index()


def _long(wide: pd.DataFrame, probability: pd.Series, arm: Arm) -> pd.DataFrame:
    frame = wide[KEYS].assign(arm=arm.name, probability=probability.to_numpy(float))
    return frame[PREDICTION_COLUMNS]


def recalibrated(predictions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probabilities after logistic recalibration, and each arm's intercept and slope.

    logit p' = a + b logit p, with a and b of an arm and seed fitted on its pooled out-of-fold
    predictions, and used for fold models and test set alike. It undoes what class weights, balanced
    batches or a focal loss did to the probabilities; the test set plays no part. b is at least
    `LEAST_SLOPE`: the outcomes that it is fitted on must not turn an arm's ranks around.

    Returns
    -------
    The predictions in the same order, and a DataFrame with arm, seed, intercept, slope, n, events.
    """
    out, rows = predictions.copy(), []
    for (arm, seed), part in predictions.groupby(["arm", "seed"], sort=False):
        p = part["probability"].clip(1e-9, 1 - 1e-9)
        logit = pd.Series(np.log(p / (1 - p)), part.index)
        held = part["partition"] == "out-of-fold"
        y = part.loc[held, "y_true"].to_numpy(float)
        found = _rising(baselines.recalibration(y, logit[held].to_numpy()), y, logit[held])
        out.loc[part.index, "probability"] = 1 / (1 + np.exp(-found.apply(logit.to_numpy())))
        rows.append((arm, seed, found.intercept, found.slope, len(y), int(y.sum())))
    columns = ["arm", "seed", "intercept", "slope", "n", "events"]
    return out, pd.DataFrame(rows, columns=columns)


def _rising(
    found: baselines.Recalibration, y: np.ndarray, logit: pd.Series
) -> baselines.Recalibration:
    """The recalibration, or that of the least slope where its own is smaller or negative."""
    from scipy.optimize import brentq
    from scipy.special import expit

    if found.slope >= LEAST_SLOPE:
        return found
    flat = LEAST_SLOPE * logit.to_numpy()
    intercept = brentq(lambda a: expit(a + flat).mean() - y.mean(), -20.0, 20.0, xtol=1e-12)
    return baselines.Recalibration(float(intercept), LEAST_SLOPE)
