"""A look at the training part for predictors that are too good to be true."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.cohort.eligibility import included, labels
from rlvo_lib.config import Study
from rlvo_lib.dataset import typed
from rlvo_lib.dictionary import Dictionary

MAX_SEPARATION = 0.95  # AUC of one predictor, either direction
MAX_CORRELATION = 0.95  # Spearman's, with the identifier or a date, either sign
MIN_VALUES = 10
MAX_P_MISSING = 0.001  # Fisher's exact test of missingness against the outcome


def screen_predictors(
    frame: pd.DataFrame, split: pd.DataFrame, study: Study, dictionary: Dictionary
) -> pd.DataFrame:
    """Each predictor of the study file in the training part: does it nearly give the outcome away?

    ``separation`` is the AUC of the predictor alone, whichever direction is better (codes are ordered by
    the share of patients with the outcome); ``separation_missing`` that of its missingness, and
    ``p_missing`` Fisher's exact p of missingness against the outcome;
    ``identifier`` and ``date`` are Spearman correlations with the number in the identifier and with the
    dates of the table (the largest in size). NaN where fewer than 10 values, or one value only, exist.

    Returns
    -------
    DataFrame with variable, n, separation, separation_missing, p_missing, identifier, date, warning
    (empty if all is well). The test part is not looked at.
    """
    training = split.loc[split["partition"] == "train", "participant_id"]
    patients, y = included(frame).loc[training], labels(frame, study).loc[training]
    table = typed(patients.drop(columns=["scans", "included", "exclusion"]), dictionary)
    digits = [int(re.sub(r"\D", "", name) or 0) for name in patients.index]
    number = pd.Series(digits, index=patients.index, dtype=float)
    dates = [
        pd.to_datetime(table[name], format="ISO8601", errors="coerce").astype("int64").astype(float)
        .where(table[name].notna())
        for name in table
        if dictionary[name].type == "datetime"
    ]  # fmt: skip
    year = study.validation.get("date_column", "")  # dates may be shifted patient by patient
    dates += [table[year]] if year in table and dictionary[year].is_quantity else []
    predictors = dict.fromkeys(c for group in study.predictors.values() for c in group)
    rows = [
        _screen(
            name,
            _by_outcome(table[name], y, dictionary),
            _in_own_order(table[name], dictionary),
            y,
            number,
            dates,
        )
        for name in predictors
        if name in table
    ]
    columns = ["variable", "n", "separation", "separation_missing", "p_missing", "identifier", "date",
               "warning"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _in_own_order(values: pd.Series, dictionary: Dictionary) -> pd.Series:
    """Values as numbers; codes by their place in the dictionary."""
    if dictionary[values.name].is_quantity:
        return values
    places = {code: float(k) for k, code in enumerate(dictionary[values.name].choices)}
    return values.map(places).astype(float)


def _by_outcome(values: pd.Series, y: pd.Series, dictionary: Dictionary) -> pd.Series:
    """Values as numbers; codes as the share of patients with the outcome who have them."""
    if dictionary[values.name].is_quantity:
        return values
    return values.map(y.groupby(values).mean()).astype(float)


def _screen(
    name: str,
    value: pd.Series,
    ordered: pd.Series,
    y: pd.Series,
    number: pd.Series,
    dates: list[pd.Series],
) -> tuple:
    separation, absent = _separation(value, y), _separation(value.isna().astype(float), y)
    p_missing = _p_missing(value, y)
    identifier = _correlation(ordered, number)
    by_date = max((_correlation(ordered, d) for d in dates), key=_size, default=float("nan"))
    found = [
        (separation > MAX_SEPARATION, "nearly separates the outcome"),
        (absent > MAX_SEPARATION, "whether it is missing nearly separates the outcome"),
        (p_missing < MAX_P_MISSING, "whether it is missing goes with the outcome"),
        (_size(identifier) > MAX_CORRELATION, "follows the identifier"),
        (_size(by_date) > MAX_CORRELATION, "follows a date"),
    ]
    warning = "; ".join(words for is_so, words in found if is_so)
    n = int(value.notna().sum())
    return name, n, separation, absent, p_missing, identifier, by_date, warning


def _p_missing(value: pd.Series, y: pd.Series) -> float:
    from scipy.stats import fisher_exact

    if not value.isna().any() or value.isna().all():
        return float("nan")
    table = [[int(((y == k) & (value.isna() == gone)).sum()) for gone in (0, 1)] for k in (0, 1)]
    return float(fisher_exact(table).pvalue)


def _separation(value: pd.Series, y: pd.Series) -> float:
    present = value.notna()
    value, y = value[present], y[present]
    if len(value) < MIN_VALUES or value.nunique() < 2 or y.nunique() < 2:
        return float("nan")
    area = metrics.auc(y.to_numpy(int), value.to_numpy(float))
    return float(max(area, 1 - area))


def _correlation(value: pd.Series, other: pd.Series) -> float:
    both = value.notna() & other.notna()
    value, other = value[both], other[both]
    if len(value) < MIN_VALUES or value.nunique() < 2 or other.nunique() < 2:
        return float("nan")
    return float(np.corrcoef(value.rank(), other.rank())[0, 1])


def _size(correlation: float) -> float:
    return abs(correlation) if correlation == correlation else -1.0
