"""Anyone's predictions: every table, its known answers, and predictions of the worst kind."""

import dataclasses
import re
import time

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from rlvo_lib import metrics, results, storage
from rlvo_lib.config import InputError, project_root
from rlvo_lib.results import evaluation
from rlvo_lib.results.evaluation import pairs, strata


def made(n=120, events=30, seed=2):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"outcome": rng.permutation([1.0] * events + [0.0] * (n - events))})
    frame["risk"] = 1 / (1 + np.exp(-(rng.normal(-1, 1, n) + frame["outcome"])))
    frame["other"] = 1 / (1 + np.exp(-(rng.normal(-1, 1, n) + 0.5 * frame["outcome"])))
    frame["points"] = (10 * frame["risk"]).round()
    return frame


@pytest.fixture(scope="module")
def frame():
    return made()


@pytest.fixture(scope="module")
def tables(frame):
    """All tables of three scores, one with a threshold from elsewhere, and of two subgroups."""
    groups = frame.assign(
        sex=["F", "M"] * 60, few=["x"] * 115 + [None] * 5, site=["a"] * 100 + ["b"] * 20
    )
    scores, _ = evaluation.scored_columns(
        groups, "outcome", ["risk", "other", "points"], thresholds={"risk": 0.4}
    )
    return evaluation.evaluation_tables(
        scores, groups, by=["sex", "site", "few"], resamples=100, data="simulated"
    )


def test_evaluate_anyones_table(frame):
    holes = frame.copy()
    holes.loc[3, "risk"] = np.nan
    table = results.evaluate(holes, "outcome", ["risk", "points"], resamples=50)
    risk = table[table["score"] == "risk"].set_index("metric")
    whole = holes.dropna()
    assert risk.loc["auc", "value"] == pytest.approx(
        sk.roc_auc_score(whole["outcome"], whole["risk"])
    )
    assert set(risk["n"]) == {119} and set(risk["missing"]) == {1}
    assert "optimistic" in risk.loc["f1 (event class)", "method"]
    assert risk.loc["f1 of flagging everyone", "value"] <= risk.loc["f1 (event class)", "value"]
    points = table[table["score"] == "points"].set_index("metric")
    assert (
        np.isnan(points.loc["brier", "value"])
        and "not a probability" in points.loc["brier", "reason"]
    )
    other = frame[["outcome", "risk"]].assign(seed=0, sex=frame.index % 2)
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
        ("words", ["risk"], "outcome 'words' holds 'a', 'b', 'c'; allowed: 0 and 1"),
        ("outcome", ["words"], "score is not numeric"),
        ("outcome", ["outcome"], "both as outcome and as score"),
        ("outcome", None, "name one as score"),
    ],
)
def test_evaluate_names_what_it_cannot_use(truth, scores, words):
    frame = pd.DataFrame({"outcome": [0, 1, 1], "risk": [0.1, 0.2, 0.3], "words": ["a", "b", "c"]})
    with pytest.raises(InputError, match=words):
        results.evaluate(frame if scores else frame.drop(columns="risk"), truth, scores)


def test_every_table_is_there_and_says_that_patients_are_simulated(tables):
    assert list(tables) == list(evaluation.CAPTIONS)
    assert all(set(table["data"]) == {"simulated"} for table in tables.values())
    assert all("score" in table or {"a", "b"} <= set(table) for table in tables.values())


def test_every_missing_value_has_a_reason(tables):
    table = tables["evaluation"]
    missing = table["value"].isna()
    assert missing.any() and (table.loc[missing, "reason"] != "").all()
    assert not table.duplicated(["score", "metric"]).any()


def test_the_main_table_agrees_with_the_metrics(frame, tables):
    y, s = frame["outcome"].to_numpy(), frame["risk"].to_numpy()
    rows = tables["evaluation"].query("score == 'risk'").set_index("metric")
    for name, method in (("auc", "delong-logit"), ("auc, plain scale", "delong"), ("auc, hanley-mcneil", "hanley-mcneil")):  # fmt: skip
        expected = metrics.auc_ci(y, s, method)
        assert tuple(rows.loc[name, ["value", "low", "high"]]) == pytest.approx(
            (expected.estimate, expected.low, expected.high)
        )
    drawn = metrics.bootstrap_ci(y, s, "auc", n=100, seed=2025)
    assert rows.loc["auc, bootstrap", "low"] == pytest.approx(drawn.low)
    assert rows.loc["partial auc, corrected", "value"] == pytest.approx(
        sk.roc_auc_score(y, s, max_fpr=0.1)
    )
    point = metrics.operating_point(y, s, 0.4)
    assert rows.loc["threshold", "value"] == 0.4
    assert "given, chosen elsewhere" in rows.loc["f1 (event class)", "method"]
    assert rows.loc["mcc", "value"] == pytest.approx(sk.matthews_corrcoef(y, s >= 0.4))
    assert rows.loc["sensitivity, exact", "low"] == point.sensitivity_exact_low
    assert rows.loc["positive likelihood ratio", "value"] == pytest.approx(
        point.sensitivity / (1 - point.specificity)
    )
    found = metrics.calibration(y, s)
    assert rows.loc["calibration slope", "value"] == found.slope
    assert rows.loc["ici", "value"] == found.ici and "loess" in rows.loc["ici", "method"]
    assert rows.loc["brier of no skill", "value"] == pytest.approx(0.1875)
    assert rows.loc["average precision of no skill", "value"] == 0.25


def test_operating_points_by_rule_are_said_to_be_optimistic(frame, tables):
    table = tables["operating_points"].set_index(["score", "rule"])
    given = table.loc[("risk", "given")]
    assert given["threshold"] == 0.4 and "elsewhere" in given["chosen"]
    rules = table.drop(("risk", "given"))
    assert (
        rules["chosen"].str.contains("optimistic").all() and ("other", "given") not in table.index
    )
    assert (rules.xs("sensitivity at least 0.9", level="rule")["sensitivity"] >= 0.9).all()
    assert (rules.xs("specificity at least 0.9", level="rule")["specificity"] >= 0.9).all()
    assert table["f1_flag_everyone"].unique() == pytest.approx([0.4])


def test_all_pairs_are_compared(frame, tables):
    table = tables["comparisons"].set_index(["a", "b"])
    assert list(table.index) == [("risk", "other"), ("risk", "points"), ("other", "points")]
    y = frame["outcome"]
    for a, b in table.index:
        test = metrics.compare_auc(y, frame[a], frame[b])
        row = table.loc[(a, b)]
        assert (row["difference"], row["p"]) == pytest.approx((test.difference, test.p))
    drawn = metrics.bootstrap_ci(y, frame["risk"], "auc", other=frame["other"], n=100, seed=2025)
    row = table.loc[("risk", "other")]
    assert (row["bootstrap_low"], row["bootstrap_high"], row["bootstrap_p"]) == pytest.approx(
        (drawn.low, drawn.high, drawn.p)
    )
    assert list(table["p_holm"]) == pytest.approx(list(metrics.holm(table["p"])))
    flagged = tables["comparisons_flagged"].iloc[0]
    assert flagged["threshold_a"] == 0.4 and "elsewhere" in flagged["chosen_a"]
    assert "optimistic" in flagged["chosen_b"] and 0 <= flagged["sensitivity_p"] <= 1
    assert flagged["sensitivity_p_holm"] >= flagged["sensitivity_p"]


def test_pairs_are_compared_on_the_patients_that_both_scored(frame):
    holes = frame.assign(other=frame["other"].where(frame.index >= 10))
    scores, _ = evaluation.scored_columns(holes, "outcome", ["risk", "other"])
    found = evaluation.evaluation_tables(scores, holes, resamples=20)
    both = holes.dropna()
    row = found["comparisons"].iloc[0]
    assert row["n"] == 110 and found["comparisons_flagged"].iloc[0]["n"] == 110
    assert row["auc_a"] == pytest.approx(sk.roc_auc_score(both["outcome"], both["risk"]))
    assert row["bootstrap_low"] <= row["difference"] <= row["bootstrap_high"]


def test_scores_without_common_patients_of_both_kinds_are_not_compared():
    frame = pd.DataFrame({"y": [1, 0, 1, 0, 1], "a": [0.9, 0.1, 0.6, None, None]})
    frame["b"] = [None, None, 0.4, 0.2, 0.3]
    scores, _ = evaluation.scored_columns(frame, "y", ["a", "b"])
    found = evaluation.evaluation_tables(scores, frame, resamples=20)
    for name in ("comparisons", "comparisons_flagged"):
        assert found[name]["reason"].iloc[0].startswith("patients with both: y_true holds only 1")
    assert np.isnan(found["comparisons"]["p"].iloc[0])


def test_a_score_beside_itself_differs_by_nothing(frame):
    twice = frame.assign(again=frame["risk"])
    scores, _ = evaluation.scored_columns(twice, "outcome", ["risk", "again"])
    row = evaluation.evaluation_tables(scores, twice, resamples=20)["comparisons"].iloc[0]
    assert (row["difference"], row["p"], row["p_holm"], row["bootstrap_p"]) == (0, 1, 1, 1)
    assert "alike" in row["reason"]


def test_subgroups_with_few_events_are_not_estimated(frame, tables):
    table = tables["subgroups"].set_index(["score", "subgroup", "stratum"])
    women = frame.iloc[::2]
    row = table.loc[("risk", "sex", "F")]
    assert row["auc"] == pytest.approx(sk.roc_auc_score(women["outcome"], women["risk"]))
    assert row["o_to_e"] == pytest.approx(women["outcome"].sum() / women["risk"].sum())
    assert row["o_to_e_low"] < row["o_to_e"] < row["o_to_e_high"]
    assert 0 <= row["p_interaction"] <= row["p_holm"] <= 1
    small = table.loc[("risk", "site", "b")]
    assert small["reason"].startswith("not estimable: ") and np.isnan(small["auc"])
    assert table.loc[("risk", "site", "a"), "reason"] == "no other stratum to compare with"
    assert table.loc[("risk", "few", "missing"), "n"] == 5
    assert np.isnan(table.loc[("points", "sex", "F"), "o_to_e"])


def test_two_strata_of_equal_auc_do_not_differ(frame):
    double = pd.concat([frame, frame], ignore_index=True).assign(half=["a"] * 120 + ["b"] * 120)
    scores, _ = evaluation.scored_columns(double, "outcome", ["risk"])
    table = strata.subgroups(scores, double, ["half"])
    assert table["q"].max() < 1e-12 and table["p_interaction"].tolist() == pytest.approx([1, 1])


def test_a_quantity_is_no_subgroup(frame):
    scores, _ = evaluation.scored_columns(frame, "outcome", ["risk"])
    with pytest.raises(InputError, match="column 'other' has 120 different values; allowed: at most 12"):  # fmt: skip
        strata.subgroups(scores, frame, ["other"])
    with pytest.raises(InputError, match="column 'age' is not in the table"):
        strata.subgroups(scores, frame, ["age"])


def test_curves_are_those_of_the_metrics(frame, tables):
    for name in ("calibration_curve", "decision_curve", "calibration_points"):
        assert set(tables[name]["score"]) == {"risk", "other"}  # points are no probabilities
    decision = tables["decision_curve"].query("score == 'risk'")
    assert decision["threshold"].tolist() == [round(k / 100, 2) for k in range(5, 41)]
    assert (decision["low"] < decision["net_benefit"]).all()
    assert decision["treat_none"].eq(0).all()
    first = decision.iloc[0]
    assert first["treat_all"] == pytest.approx(0.25 - 0.75 * 0.05 / 0.95)
    roc = tables["roc_points"].query("score == 'risk'")
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(
        metrics.auc(frame["outcome"], frame["risk"])
    )
    width = tables["precision"].query("score == 'risk'").set_index("patients")["width"]
    area = metrics.auc(frame["outcome"], frame["risk"])
    assert width["here"] == pytest.approx(metrics.auc_width(area, 30, 120))
    assert width["10 times"] < width["here"] / 3
    assert tables["calibration"].set_index("score").loc["points", "reason"].startswith("not a prob")


def test_the_net_benefit_interval_is_that_of_a_mean(frame, tables):
    y, s = frame["outcome"].to_numpy(), frame["risk"].to_numpy()
    gain = (s >= 0.2) * np.where(y == 1, 1, -0.25)
    row = tables["decision_curve"].query("score == 'risk' and threshold == 0.2").iloc[0]
    assert row["net_benefit"] == pytest.approx(gain.mean())
    half = 1.959964 * gain.std(ddof=1) / np.sqrt(120)
    assert row["high"] - row["net_benefit"] == pytest.approx(half, rel=1e-6)


def test_long_curves_are_thinned_and_keep_their_ends():
    frame = made(3000, 900)
    scores, _ = evaluation.scored_columns(frame, "outcome", ["risk"])
    roc = evaluation.evaluation_tables(scores, frame, resamples=2)["roc_points"]
    assert len(roc) == 500
    assert roc[["fpr", "tpr"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]


WORST = {
    "constant": ([0.3] * 20, 10),
    "perfect separation": ([0.9] * 10 + [0.1] * 10, 10),
    "perfect, no ties": (list(np.linspace(0.9, 0.1, 20)), 10),
    "backwards": (list(np.linspace(0.1, 0.9, 20)), 10),
    "zeros and ones": ([1.0, 0.0] * 10, 10),
    "all zero": ([0.0] * 20, 10),
    "one event": (list(np.linspace(0.9, 0.1, 20)), 1),
    "one non-event": (list(np.linspace(0.9, 0.1, 20)), 19),
    "two patients": ([0.9, 0.1], 1),
    "two patients, tied": ([0.5, 0.5], 1),
    "few ties": ([0.2, 0.4] * 10, 10),
    "logits": (list(np.linspace(4, -4, 20)), 10),
    "tiny": (list(np.linspace(1e-12, 1e-13, 20)), 10),
    "percent": (list(np.linspace(90, 1, 20)), 10),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_predictions_have_every_table_and_every_gap_a_reason(name):
    values, events = WORST[name]
    frame = pd.DataFrame({"y": [1] * events + [0] * (len(values) - events), "s": values})
    scores, _ = evaluation.scored_columns(frame, "y", ["s"])
    found = evaluation.evaluation_tables(scores, frame, resamples=20)
    table = found["evaluation"].set_index("metric")
    missing = table["value"].isna()
    assert (table.loc[missing, "reason"] != "").all(), table[missing & (table["reason"] == "")]
    assert table.loc["auc", "value"] == pytest.approx(sk.roc_auc_score(frame["y"], frame["s"]))
    for other in found.values():  # JSON has no infinity, and what is unbounded is said in words
        assert not np.isinf(other.select_dtypes("number").to_numpy(float)).any()
    bounded = table.loc[["auc", "f1 (event class)", "sensitivity", "npv"], ["low", "high"]]
    assert (bounded.isna() | bounded.map(lambda limit: 0 <= limit <= 1)).all(axis=None)


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_is_refused(value):
    frame = pd.DataFrame({"y": [value] * 5, "s": [0.1, 0.2, 0.3, 0.4, 0.5]})
    with pytest.raises(InputError, match=f"outcome 'y', score 's': y_true holds only {value}"):
        results.evaluate(frame, "y")


def test_nothing_but_gaps_is_refused():
    frame = pd.DataFrame({"y": [1, 0, 1], "s": [np.nan] * 3})
    with pytest.raises(InputError, match="no row has both 'y' and 's'"):
        results.evaluate(frame, "y", ["s"])
    with pytest.raises(InputError, match="no row has a value"):
        results.evaluate(frame.assign(y=np.nan, s=0.5), "y", ["s"])
    with pytest.raises(InputError, match="infinite"):
        results.evaluate(frame.assign(s=[0.1, 0.2, np.inf]), "y", ["s"])


def test_fewer_resamples_of_a_large_table_only_if_said_so():
    assert evaluation.resamples_for(10_000, 10, None) == (2000, "")
    fewer, note = evaluation.resamples_for(100_000, 10, None)
    assert fewer == 200 and "200 bootstrap resamples in place of 2000" in note
    assert evaluation.resamples_for(100_000, 10, 2000) == (2000, "")


def test_a_score_is_given_as_frozen(frame):
    score = evaluation.scored_columns(frame, "outcome", ["risk"])[0][0]
    assert score.cut[0] == metrics.threshold_by(score.y, score.s, rule="max-f1")
    assert dataclasses.replace(score, threshold=0.7).cut == (
        0.7,
        "threshold given, chosen elsewhere",
    )
    assert pairs.comparisons([score], None).empty


def test_the_page_shows_how_a_runs_predictions_are_judged(tmp_path, monkeypatch):
    root = project_root()
    page = (root / "docs" / "evaluate.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("reports/reference", str(root / "reports" / "reference")), {})
    wide = storage.read_csv("predictions_wide.csv")
    assert evaluation.check_patients(wide).startswith("patients told apart")
    table = results.evaluate(wide, "y_true", ["daft"], resamples=20).set_index("metric")
    run = storage.read_csv(root / "reports" / "reference" / "tables" / "performance.csv")
    stored = run.query("arm == 'daft' and metric == 'auc'").iloc[0]
    assert table.loc["auc", "n"] == stored["n"]
    assert tuple(table.loc["auc", ["value", "low", "high"]]) == pytest.approx(
        (stored["ensemble"], stored["low"], stored["high"])
    )


def test_the_page_lists_every_table():
    page = (project_root() / "docs" / "evaluate.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in evaluation.CAPTIONS)
    assert all(f"`{name}`" in page for name in ("participant_id", "patient_id", "record_id", "id"))


@pytest.mark.long
def test_a_hundred_thousand_patients_and_ten_scores():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((100_000, 10)), columns=[f"s{k}" for k in range(10)])
    frame["y_true"] = rng.integers(0, 2, len(frame))
    scores, _ = evaluation.scored_columns(frame, "y_true")
    resamples, _ = evaluation.resamples_for(len(frame), len(scores), None)
    before = time.process_time()
    found = evaluation.evaluation_tables(scores, frame, resamples=resamples)
    assert time.process_time() - before < 120  # about 45 s of a free core
    assert len(found["comparisons"]) == 45 and len(found["roc_points"]) == 5000


def test_one_event_has_no_stratified_interval_alone_or_in_a_pair():
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"y": [1] + [0] * 29, "a": rng.random(30), "b": rng.random(30)})
    scores, _ = evaluation.scored_columns(frame, "y", ["a", "b"])
    found = evaluation.evaluation_tables(scores, frame, resamples=50)
    row = found["evaluation"].set_index(["score", "metric"]).loc[("a", "auc, bootstrap")]
    assert np.isfinite(row["value"]) and np.isnan(row["low"])
    assert "one event: the same in every stratified resample" in row["reason"]
    pair = found["comparisons"].loc[0]
    assert pair[["bootstrap_low", "bootstrap_high", "bootstrap_p", "p"]].isna().all()
    assert pair["reason"]
