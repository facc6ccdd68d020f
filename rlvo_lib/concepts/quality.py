"""How well concepts are read: R² of quantities and ordered codes, AUC of codes of two levels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.concepts.reads import ReadCodes

COLUMNS = ["concept", "measure", "value", "n", "events", "reason"]


def reading_quality(codes: ReadCodes, recorded: np.ndarray, reads: np.ndarray) -> pd.DataFrame:
    """Reads (N, K) against what was recorded (N, K; NaN where it was not).

    R² = 1 - Σ (read - recorded)² / Σ (recorded - mean)²: below 0 is worse than the mean. What is
    recorded is itself a reading with its error, so 1 is out of reach.

    Returns
    -------
    DataFrame with concept, measure (``R2`` or ``AUC``), value, n, events (of an AUC; else NaN) and
    reason (why a value is NaN).
    """
    rows = []
    for column in codes.columns:
        places = codes.where(column)
        truth = codes.expected(recorded, column) if len(places) > 1 else recorded[:, places[0]]
        known = ~np.isnan(recorded[:, places]).any(axis=1) & ~np.isnan(reads[:, places]).any(axis=1)
        y, read = truth[known].astype(float), codes.expected(reads, column)[known]
        binary = len(places) == 1 and codes.parts[places[0]][1] is not None
        if len(np.unique(y)) < 2:
            rows.append((column, "AUC" if binary else "R2", np.nan, len(y), np.nan, "all alike"))
        elif binary:
            rows.append((column, "AUC", metrics.auc(y, read), len(y), float(y.sum()), ""))
        else:
            value = 1 - float(((y - read) ** 2).sum() / ((y - y.mean()) ** 2).sum())
            rows.append((column, "R2", value, len(y), np.nan, ""))
    return pd.DataFrame(rows, columns=COLUMNS)
