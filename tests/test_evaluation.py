"""Anyone's predictions: the table of statistics."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from rlvo_lib import results
from rlvo_lib.config import InputError


def test_evaluate_anyones_table():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"outcome": rng.permutation([1.0] * 30 + [0.0] * 90)})
    frame["risk"] = 1 / (1 + np.exp(-(rng.normal(-1, 1, 120) + frame["outcome"])))
    frame["points"] = (10 * frame["risk"]).round()
    frame.loc[3, "risk"] = np.nan
    table = results.evaluate(frame, "outcome", ["risk", "points"], resamples=50)
    risk = table[table["score"] == "risk"].set_index("metric")
    whole = frame.dropna()
    assert risk.loc["auc", "value"] == pytest.approx(
        sk.roc_auc_score(whole["outcome"], whole["risk"])
    )
    assert set(risk["n"]) == {119} and set(risk["missing"]) == {1}
    assert "optimistic" in risk.loc["f1 (event class)", "method"]
    assert risk.loc["f1 of flagging everyone", "value"] <= risk.loc["f1 (event class)", "value"]
    points = table[table["score"] == "points"].set_index("metric")
    assert (
        np.isnan(points.loc["brier", "value"])
        and "not a probability" in points.loc["brier", "method"]
    )
    other = frame.assign(seed=0, sex=(frame.index % 2))
    assert list(results.evaluate(other, "outcome", resamples=9)["score"].unique()) == ["risk"]


@pytest.mark.parametrize(
    ("truth", "scores", "words"),
    [
        (
            "death",
            ["risk"],
            "column 'death' is not in the table; its columns: outcome, risk, words",
        ),
        ("outcome", ["score"], "column 'score' is not in the table"),
        ("words", ["risk"], "outcome 'words', score 'risk': y_true holds 'a'"),
        ("outcome", ["words"], "score is not numeric"),
        ("outcome", ["outcome"], "both as outcome and as score"),
    ],
)
def test_evaluate_names_what_it_cannot_use(truth, scores, words):
    frame = pd.DataFrame({"outcome": [0, 1, 1], "risk": [0.1, 0.2, 0.3], "words": ["a", "b", "c"]})
    with pytest.raises(InputError, match=words):
        results.evaluate(frame, truth, scores)
