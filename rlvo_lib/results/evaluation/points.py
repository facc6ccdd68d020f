"""What flagging patients gives: at a threshold chosen elsewhere, and by rules on these same patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.results.evaluation.scored import ELSEWHERE, SAME_PATIENTS, Scored

#: Name -> rule and value of `rlvo_lib.metrics.threshold_by`.
RULES: dict[str, tuple[str, float | None]] = {
    "maximal F1": ("max-f1", None),
    "Youden": ("youden", None),
    "sensitivity at least 0.9": ("sensitivity", 0.9),
    "specificity at least 0.9": ("specificity", 0.9),
}


def operating_points(scores: Sequence[Scored]) -> pd.DataFrame:
    """Each score at its given threshold, if it has one, and at those of `RULES`.

    Returns
    -------
    DataFrame with score, rule, chosen, the fields of `rlvo_lib.metrics.OperatingPoint`,
    f1_flag_everyone, f1_coin.
    """
    rows = []
    for score in scores:
        cuts = {} if score.threshold is None else {"given": (score.threshold, ELSEWHERE)}
        for name, (rule, value) in RULES.items():
            cut = metrics.threshold_by(score.y, score.s, rule=rule, value=value)
            cuts[name] = (cut, SAME_PATIENTS)
        lines = {
            "f1_flag_everyone": metrics.flag_everyone_f1(score.y),
            "f1_coin": metrics.coin_f1(score.y),
        }
        for name, (cut, chosen) in cuts.items():
            point = asdict(metrics.operating_point(score.y, score.s, cut))
            rows.append({"score": score.name, "rule": name, "chosen": chosen} | point | lines)
    return pd.DataFrame(rows)
