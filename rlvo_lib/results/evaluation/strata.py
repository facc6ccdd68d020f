"""Scores within subgroups that a column of the table tells apart, as `rlvo_lib.results.subgroups`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.intake.scores import absent
from rlvo_lib.results.evaluation.measures import ratio_limits
from rlvo_lib.results.evaluation.scored import Scored

LEAST = 10  # events, and non-events, below which a stratum is not estimated
MOST = 12  # strata of a column
MISSING = "missing"
COLUMNS = [
    "score", "subgroup", "stratum", "n", "events", "auc", "low", "high", "o_to_e", "o_to_e_low",
    "o_to_e_high", "q", "df", "p_interaction", "p_holm", "reason",
]  # fmt: skip


def subgroups(scores: Sequence[Scored], frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """AUC and O:E of each score in each stratum of each column, and whether the AUCs differ.

    A stratum with fewer than `LEAST` events or non-events is not estimated; rows without a value are
    counted and not judged. AUC: DeLong on the logit scale. O:E (probabilities only): limits on the log
    scale, SE = sqrt((1 - O/n) / O). Heterogeneity: Cochran's Q of the logits of the AUCs with DeLong
    weights; p also Holm-adjusted over the columns of a score.

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
    tables = []
    for column in dict.fromkeys(by):
        strata = frame[column].iloc[score.rows].to_numpy()
        unknown = pd.isna(strata)
        rows = [
            {"stratum": str(name)} | _estimate(score, strata == name)
            for name in sorted(set(strata[~unknown]), key=str)
        ]
        _test(rows)
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
    return [row for rows in tables for row in rows]


def _estimate(score: Scored, inside: np.ndarray) -> dict:
    """What is estimated among some patients; ``variance`` is that of the AUC."""
    y, s = score.y[inside], score.s[inside]
    n, events = int(y.size), int(y.sum())
    found = {"n": n, "events": events}
    for count, what in ((events, "events"), (n - events, "non-events")):
        if count < LEAST:
            return found | {"reason": f"not estimable: {count} {what}, fewer than {LEAST}"}
    aucs, covariance = metrics.delong_covariance(y, s)
    area, variance = float(aucs[0]), float(covariance[0, 0])
    low, high, reason = metrics.auc_interval(area, variance, logit=True)
    found |= {"auc": area, "low": low, "high": high, "variance": variance, "reason": reason}
    if score.probability and s.any():
        ratio = events / float(s.sum())
        limits = dict(
            zip(("o_to_e_low", "o_to_e_high"), ratio_limits(ratio, events, n), strict=True)
        )
        found |= {"o_to_e": ratio} | limits
    return found


def _test(rows: list[dict]) -> None:
    """Add Cochran's Q over the strata that have an interval to their rows."""
    from scipy.stats import chi2

    judged = [row for row in rows if np.isfinite(row.get("low", np.nan))]
    if len(judged) < 2:
        for row in judged:
            row["reason"] = "no other stratum to compare with"
        return
    area = np.array([row["auc"] for row in judged])
    weight = (area * (1 - area)) ** 2 / np.array([row["variance"] for row in judged])
    logit = np.log(area / (1 - area))
    q = float(weight @ (logit - weight @ logit / weight.sum()) ** 2)
    for row in judged:
        row |= {"q": q, "df": len(judged) - 1, "p_interaction": float(chi2.sf(q, len(judged) - 1))}
