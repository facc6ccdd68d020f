"""Importance of predictors from per-patient SHAP values."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError


def shap_importance(
    shap: pd.DataFrame, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """Mean absolute SHAP value of each variable, with a 95 % percentile bootstrap over patients.

    Parameters
    ----------
    shap : one row a patient and variable (and model): participant_id, arm, variable, shap, and
        perhaps fold and seed, over which a patient's values are averaged first.

    Returns
    -------
    DataFrame with arm, variable, mean_abs_shap, low, high, rank (1 is largest), n, data.
    """
    for column in ("participant_id", "arm", "variable", "shap"):
        if column not in shap:
            raise InputError(f"SHAP values: column '{column}' is missing")
    tables = []
    for arm, rows in shap.groupby("arm", sort=True):
        wide = rows.pivot_table(
            index="participant_id", columns="variable", values="shap", aggfunc="mean", sort=True
        )
        if wide.isna().any(axis=None):
            raise InputError(f"SHAP values of arm '{arm}': some patients lack some variables")
        size = np.abs(wide.to_numpy())
        n = len(size)
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        low, high = np.quantile(draws @ size / n, [0.025, 0.975], axis=0)
        table = pd.DataFrame(
            {"arm": arm, "variable": wide.columns, "mean_abs_shap": size.mean(axis=0), "low": low}
        ).assign(high=high)
        table = table.sort_values(["mean_abs_shap", "variable"], ascending=[False, True])
        tables.append(table.assign(rank=np.arange(1, len(table) + 1), n=n))
    return pd.concat(tables, ignore_index=True).assign(data=data)
