"""Scores within subgroups that a column of the table tells apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.intake.scores import absent
from rlvo_lib.results.evaluation.scored import Scored
from rlvo_lib.results.predictions import Scores
from rlvo_lib.results.subgroups import ESTIMATES, MISSING, compare_strata, estimate_stratum

MOST = 12  # strata of a column
COLUMNS = [
    "score", "subgroup", "stratum", "n", "events", *ESTIMATES, "reference", "difference",
    "difference_low", "difference_high", "q", "df", "p_interaction", "p_holm", "test", "reason",
]  # fmt: skip


def subgroups(scores: Sequence[Scored], frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """AUC and O:E of each score in each stratum of each column, and whether the AUCs differ.

    Strata are estimated and compared as those of a study's subgroups (`rlvo_lib.results.subgroups`): with
    fewer than 10 events or non-events a stratum is not estimated, and rows without a value are counted and
    not judged. O:E is of probabilities only; p of the interaction is Holm-adjusted over the columns of a
    score.

    Raises
    ------
    InputError
        For a column that is not there, or with more than `MOST` values.
    """
    for column in by:
        if column not in frame:
            raise InputError(absent(column, list(frame.columns)))
        values = frame[column].nunique()
        if values > MOST:
            raise InputError(
                f"column '{column}' has {values} different values; allowed: at most {MOST} subgroups (cut a "
                "quantity into groups first)"
            )
    rows = [row for score in scores for row in _of_score(score, frame, by)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_score(score: Scored, frame: pd.DataFrame, by: Sequence[str]) -> list[dict]:
    one = Scores(score.name, (), score.y, score.s[:, None], (0,))
    tables = []
    for column in dict.fromkeys(by):
        strata = frame[column].iloc[score.rows].to_numpy()
        unknown = pd.isna(strata)
        rows = [
            {"stratum": str(name)} | estimate_stratum(one, strata == name)
            for name in sorted(set(strata[~unknown]), key=str)
        ]
        compare_strata(rows)
        if unknown.any():
            counts = {"n": int(unknown.sum()), "events": int(score.y[unknown].sum())}
            rows.append({"stratum": MISSING} | counts | {"reason": "no value: in no stratum"})
        tables.append([{"score": score.name, "subgroup": column} | row for row in rows])
    p = [
        next((r["p_interaction"] for r in rows if "p_interaction" in r), np.nan) for rows in tables
    ]
    for rows, adjusted in zip(tables, metrics.holm(p), strict=True):
        for row in rows:
            if "p_interaction" in row:
                row["p_holm"] = adjusted
            if not score.probability:
                row |= dict.fromkeys(ESTIMATES[3:], np.nan)
    return [row for rows in tables for row in rows]
