"""Clinical variables as numbers that an explainer can exchange between patients, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlvo_lib.analysis import Analysis


@dataclass(frozen=True)
class ClinicalVariables:
    """Some columns of a dataset's table, one number a patient and column.

    A quantity is itself, a code its place among the dictionary's choices, NaN what is missing. What a
    model makes of one column (one-hot levels, missing indicator) thus moves together.
    """

    analysis: Analysis
    columns: list[str]

    def values(self, participants: Sequence[str]) -> np.ndarray:
        """(N, n_columns) float64 of some patients."""
        table = self.analysis.dataset.table.loc[list(participants), self.columns]
        numbers = {}
        for name in self.columns:
            field = self.analysis.dictionary[name]
            if field.is_categorical:
                codes = {code: float(rank) for rank, code in enumerate(field.choices)}
                numbers[name] = table[name].map(codes).astype(float)
            else:
                numbers[name] = table[name].astype(float)
        return pd.DataFrame(numbers).to_numpy()

    def table(self, values: np.ndarray) -> pd.DataFrame:
        """The inverse of `values`: a typed table (N rows) that an encoder takes."""
        columns = {}
        for number, name in enumerate(self.columns):
            field = self.analysis.dictionary[name]
            column = pd.Series(values[:, number])
            if field.is_categorical:
                column = column.map(dict(enumerate(field.choices)))
            columns[name] = column
        return pd.DataFrame(columns)
