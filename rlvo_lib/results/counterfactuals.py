"""How predictions of simulated patients change where one thing is changed, beside their true risk."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError

NEEDED = (
    "participant_id", "arm", "fold", "change", "logit_before", "logit_after", "risk_before", "risk_after",
    "risk_se", "seen_before", "seen_after",
)  # fmt: skip
#: What the model's change is set against, by its column.
AGAINST = {"risk": "true risk", "seen": "knowing predictor"}
LEAST_PATIENTS = 3
LEAST_SPREAD = 1e-4  # SD of a change of risk below which no slope is given


def counterfactual_changes(frame: pd.DataFrame) -> pd.DataFrame:
    """One row an arm, change and patient: changes of logit, probability, true risk and seen risk.

    Fold models (and seeds) are averaged per patient first: the logits, and the probabilities.

    Raises
    ------
    InputError
        If a column of ``counterfactuals.csv`` is missing.
    """
    for column in NEEDED:
        if column not in frame:
            raise InputError(f"counterfactuals: column '{column}' is missing")
    before, after = frame["logit_before"], frame["logit_after"]
    rows = frame[["arm", "change", "participant_id"]].assign(
        logit=after - before,
        probability=_probability(after) - _probability(before),
        risk=frame["risk_after"] - frame["risk_before"],
        seen=frame["seen_after"] - frame["seen_before"],
        risk_se=frame["risk_se"],
    )
    return rows.groupby(["arm", "change", "participant_id"], sort=False, as_index=False).mean()


def counterfactual_table(
    frame: pd.DataFrame, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """Mean changes with 95 % percentile intervals over patients, and whether the two go together.

    Parameters
    ----------
    frame : ``attributions/counterfactuals.csv``: a row a patient, arm, fold model and change.

    Returns
    -------
    DataFrame with a row an arm, change and ``against`` ("true risk" or "knowing predictor"): n; of the
    model ``logit_change`` and ``probability_change``, of the risk ``risk_change``, each with ``_low`` and
    ``_high``; ``risk_se``, the standard error of the mean change of true risk by simulation (0 for the knowing
    predictor); ``slope`` of the change of probability on that of risk (least squares; 1: as much as the risk,
    0: not at all) with ``slope_low`` and ``slope_high``, and their Pearson ``correlation``, NaN with a ``reason``
    where the risk does not vary or patients are too few; data.

    Examples
    --------
    >>> rows = [["a", 0.0, 0.4, .50, .60], ["b", 0.0, 0.8, .50, .70], ["c", 0.0, 1.2, .50, .77]]
    >>> names = ["participant_id", "logit_before", "logit_after", "risk_before", "risk_after"]
    >>> frame = pd.DataFrame(rows, columns=names).assign(arm="m", fold=1, change="clot", risk_se=0)
    >>> frame = frame.assign(seen_before=0.5, seen_after=0.5)
    >>> table = counterfactual_table(frame, data="simulated", resamples=200)
    >>> [round(float(table.at[0, name]), 1) for name in ("logit_change", "risk_change", "slope")]
    [0.8, 0.2, 1.0]
    >>> table.at[1, "reason"]
    'the risk does not change'
    """
    changes = counterfactual_changes(frame)
    rows = []
    for (arm, change), own in changes.groupby(["arm", "change"], sort=False):
        n = len(own)
        weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n
        model = _mean("logit", own["logit"], weights) | _mean(
            "probability", own["probability"], weights
        )
        for column, against in AGAINST.items():
            error = (own["risk_se"] ** 2).sum() ** 0.5 / n if column == "risk" else 0.0
            rows.append(
                {"arm": arm, "change": change, "against": against, "n": n}
                | model
                | _mean("risk", own[column], weights)
                | {"risk_se": error}
                | _together(own[column].to_numpy(), own["probability"].to_numpy(), weights)
            )
    return pd.DataFrame(rows).assign(data=data)


def _probability(logit: pd.Series) -> pd.Series:
    return 1 / (1 + np.exp(-logit))


def _mean(name: str, values: pd.Series, weights: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(weights @ values.to_numpy(), [0.025, 0.975])
    return {f"{name}_change": values.mean(), f"{name}_low": low, f"{name}_high": high}


def _together(risk: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> dict[str, object]:
    """Slope of probability on risk with its interval, and their correlation."""
    names = ("slope", "slope_low", "slope_high", "correlation")
    if len(risk) < LEAST_PATIENTS:
        return dict.fromkeys(names, np.nan) | {"reason": f"fewer than {LEAST_PATIENTS} patients"}
    if risk.std() < LEAST_SPREAD:
        alike = "the risk changes alike in all" if abs(risk.mean()) > LEAST_SPREAD else ""
        return dict.fromkeys(names, np.nan) | {"reason": alike or "the risk does not change"}
    slope, spread = _slope(risk, probability, np.full((1, len(risk)), 1 / len(risk)))
    drawn, varies = _slope(risk, probability, weights)
    low, high = np.quantile(drawn[varies > LEAST_SPREAD**2], [0.025, 0.975])
    flat = probability.std() == 0
    correlation = np.nan if flat else np.corrcoef(risk, probability)[0, 1]
    found = zip(names, (slope[0], low, high, correlation), strict=True)
    return dict(found) | {"reason": "the prediction changes alike in all" if flat else ""}


def _slope(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares slopes (R,) of y on x under weights (R, n) that add up to 1, and x's variances."""
    mean_x, mean_y = weights @ x, weights @ y
    variance = weights @ x**2 - mean_x**2
    covariance = weights @ (x * y) - mean_x * mean_y
    return covariance / np.where(variance > 0, variance, np.nan), variance
