"""Clinical predictors as numbers, and the clinical baselines.

Everything here is fitted on training patients only. This is the policy for missing values
(``docs/data.md`` says it for readers):

quantities                     (as log(1 + x) where the dictionary says ``@TRANSFORM=log1p``) imputed by
                               the training median, flagged by a missing indicator, z-scored
quantities never imputed       (``@IMPUTE=never`` in the data dictionary: a ratio that does not apply)
                               z-scored over the patients who have one; in the others the column is
                               switched off (0 after scaling) and the indicator is on
codes                          imputed by the most frequent code, then one-hot columns (one for two levels)

The indicator exists where a training patient lacks the value. A column that does not vary in training
is 0 for everybody.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from rlvo_lib.config import InputError
from rlvo_lib.dictionary import Dictionary


class TabularEncoder:
    """Predictor columns of a typed table to a matrix (N, P) float32.

    Parameters
    ----------
    columns
        Predictors; each must be known before the intervention.
    dictionary
        Says which columns are codes and which are quantities, and refuses leakage.
    indicators
        Whether a missing quantity gets an indicator column. Without, a model does not see that a value
        is missing: a sensitivity analysis where missingness itself tells the outcome.
    allow_sensitivity
        Whether columns known before but not of the patient (year, centre, vendor) may be predictors.

    Raises
    ------
    InputError
        If a column is not known before the intervention (`Dictionary.refuse_leakage`).
    """

    def __init__(
        self,
        columns: tuple[str, ...],
        dictionary: Dictionary,
        *,
        allow_sensitivity: bool = False,
        indicators: bool = True,
    ) -> None:
        dictionary.refuse_leakage(columns, allow_sensitivity=allow_sensitivity)
        self.columns = columns
        self._logged = [c for c in columns if dictionary[c].transform == "log1p"]
        self._categories = {
            c: list(dictionary[c].choices) for c in columns if dictionary[c].is_categorical
        }
        ratios = [c for c in columns if not dictionary[c].impute and c not in self._categories]
        quantities = [c for c in columns if c not in self._categories and c not in ratios]
        codes = list(self._categories)
        impute = SimpleImputer(
            strategy="median", add_indicator=indicators, keep_empty_features=True
        )
        switch_off = SimpleImputer(
            strategy="constant", fill_value=0.0, add_indicator=indicators, keep_empty_features=True
        )
        one_hot = OneHotEncoder(
            categories=[self._categories[c] for c in codes],
            drop="if_binary",
            handle_unknown="ignore",
            sparse_output=False,
        )
        frequent = SimpleImputer(strategy="most_frequent", keep_empty_features=True)
        self._transformer = ColumnTransformer(
            [
                ("quantity", make_pipeline(impute, StandardScaler()), quantities),
                ("ratio", make_pipeline(StandardScaler(), switch_off), ratios),
                ("code", make_pipeline(frequent, one_hot), codes),
            ]
        )

    def fit(self, table: pd.DataFrame) -> TabularEncoder:
        """Learn medians, scales and the missing indicators from training patients."""
        selected = self._select(table)
        matrix = self._transformer.fit_transform(selected)
        # What never varied in training taught nothing: it stays 0 whatever other patients have.
        self._varied = (
            np.ptp(matrix, axis=0) > 0 if len(matrix) else np.zeros(matrix.shape[1], bool)
        )
        return self

    def transform(self, table: pd.DataFrame) -> np.ndarray:
        """The matrix (N, P) float32 of a table of N patients."""
        with warnings.catch_warnings():
            # a code column without any value in training has no category: it becomes zeros
            warnings.filterwarnings(
                "ignore", message="Found unknown categories", category=UserWarning
            )
            matrix = self._transformer.transform(self._select(table))
        return np.where(self._varied, matrix, 0.0).astype(np.float32)

    @property
    def names(self) -> list[str]:
        """The P column names of the matrix, once fitted."""
        return [name.split("__", 1)[1] for name in self._transformer.get_feature_names_out()]

    def _select(self, table: pd.DataFrame) -> pd.DataFrame:
        for column in self.columns:
            if column not in table:
                raise InputError(f"participants.tsv: predictor column '{column}' is missing")
        selected = table[list(self.columns)].copy()
        for column in self._logged:
            selected[column] = np.log1p(selected[column].to_numpy(float))
        for column in self._categories:
            selected[column] = (
                selected[column].astype(object).where(selected[column].notna(), np.nan)
            )
        return selected


def fit_baseline(kind: str, matrix: np.ndarray, y: np.ndarray, *, seed: int):
    """A fitted clinical baseline with ``predict_proba``.

    ``logistic``: ridge-penalised logistic regression (C = 0.1: about 20 coefficients on about 58
    events need shrinkage). ``boosting``: histogram gradient boosting, shallow and slow.
    """
    if kind == "logistic":
        model = LogisticRegression(C=0.1, max_iter=1000)
    elif kind == "boosting":
        model = HistGradientBoostingClassifier(
            max_iter=80, learning_rate=0.05, max_depth=2, min_samples_leaf=20,
            l2_regularization=1.0, early_stopping=False, random_state=seed,
        )  # fmt: skip
    else:
        raise InputError(f"baseline '{kind}' is not known; allowed: logistic, boosting")
    return model.fit(matrix, y)
