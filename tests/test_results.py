"""Result tables from small made-up predictions with known answers."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from made_run import ARMS, CEILINGS, make_ceiling, make_predictions
from scipy import stats
from sklearn import metrics as sk
from test_architecture import ORDER

from rlvo_lib import metrics, results
from rlvo_lib.config import Arm, InputError, load_study, project_root

PUBLISHED = {
    "imaging": {
        "label": "Best imaging-only model",
        "best_of": "imaging",
        "auc": 0.53,
        "auc_sd": 0.02,
    }
    | {"f1": 0.19, "f1_sd": 0.05},
    "daft": {"label": "Multimodal model", "auc": 0.70, "auc_sd": 0.02, "f1": 0.39, "f1_sd": 0.02},
}


@pytest.fixture(scope="module")
def study():
    return dataclasses.replace(load_study("rlvo"), published=PUBLISHED)


@pytest.fixture(scope="module")
def predictions():
    return make_predictions()


@pytest.fixture(scope="module")
def thresholds(predictions):
    return results.choose_thresholds(predictions)


@pytest.fixture(scope="module")
def performance(predictions, thresholds, study):
    return results.performance(predictions, thresholds, study, data="simulated", resamples=200)


def test_thresholds_come_from_the_pooled_out_of_fold_predictions(predictions, thresholds):
    assert list(thresholds.columns) == [
        "arm",
        "seed",
        "rule",
        "threshold",
        "chosen_on",
        "n",
        "events",
    ]
    assert set(thresholds["n"]) == {120} and set(thresholds["events"]) == {30}
    daft = predictions.query("arm == 'daft' and partition == 'out-of-fold'")
    chosen = thresholds.set_index("arm").loc["daft", "threshold"]
    scores = {t: sk.f1_score(daft.y_true, daft.probability >= t) for t in daft.probability}
    assert scores[chosen] == max(scores.values())
    # the test set plays no part
    other = predictions.copy()
    other.loc[other["partition"] == "test", "probability"] = 0.5
    pd.testing.assert_frame_equal(results.choose_thresholds(other), thresholds)
    with pytest.raises(InputError, match="chosen_on is 'test'; allowed: out-of-fold"):
        results.choose_thresholds(predictions, chosen_on="test")


def test_performance_columns_and_order(performance):
    assert list(performance.columns) == [
        "arm", "metric", "mean", "sd", "n_folds", "ensemble", "low", "high", "n", "events",
        "threshold_rule", "interval_method", "seeds", "sd_seeds", "no_skill", "no_skill_how", "data",
    ]  # fmt: skip
    assert set(performance["seeds"]) == {1} and performance["sd_seeds"].isna().all()
    assert list(dict.fromkeys(performance["arm"])) == list(ARMS)  # the study file's order
    assert set(performance["n"]) == {60} and set(performance["events"]) == {15}
    assert set(performance["n_folds"]) == {4} and set(performance["data"]) == {"simulated"}
    inside = performance["ensemble"].between(performance["low"], performance["high"])
    assert inside.all()


def test_performance_by_hand(performance, predictions, thresholds):
    test = predictions.query("arm == 'daft' and partition == 'test'")
    cut = thresholds.set_index("arm").loc["daft", "threshold"]
    row = performance.set_index(["arm", "metric"]).loc["daft"]
    folds = [sk.roc_auc_score(f.y_true, f.probability) for _, f in test.groupby("fold")]
    assert row.loc["auc", "mean"] == pytest.approx(np.mean(folds))
    assert row.loc["auc", "sd"] == pytest.approx(np.std(folds, ddof=1))
    folds = [sk.f1_score(f.y_true, f.probability >= cut) for _, f in test.groupby("fold")]
    assert row.loc["f1", "mean"] == pytest.approx(np.mean(folds))
    assert row.loc["f1", "sd"] == pytest.approx(np.std(folds, ddof=1))
    ensemble = test.groupby("participant_id")[["y_true", "probability"]].mean()
    y, p = ensemble["y_true"].astype(int), ensemble["probability"]
    assert row.loc["auc", "ensemble"] == pytest.approx(sk.roc_auc_score(y, p))
    assert row.loc["f1", "ensemble"] == pytest.approx(sk.f1_score(y, p >= cut))
    assert row.loc["average_precision", "ensemble"] == pytest.approx(
        sk.average_precision_score(y, p)
    )
    assert row.loc["brier", "ensemble"] == pytest.approx(sk.brier_score_loss(y, p))
    assert row.loc["f1", "threshold_rule"] == "max-f1 on pooled out-of-fold"
    assert row.loc["auc", "threshold_rule"] == "no threshold"


def test_several_seeds_are_averaged(study):
    predictions = make_predictions(seeds=(0, 1))
    thresholds = results.choose_thresholds(predictions)
    both = results.performance(predictions, thresholds, study, data="real", resamples=50)
    alone = [
        results.performance(
            predictions[predictions["seed"] == s], thresholds, study, data="real", resamples=50
        )
        for s in (0, 1)
    ]
    for column in ("mean", "ensemble"):
        expected = (alone[0][column] + alone[1][column]) / 2
        np.testing.assert_allclose(both[column], expected, atol=1e-12)
    rms = np.sqrt((alone[0]["sd"] ** 2 + alone[1]["sd"] ** 2) / 2)
    np.testing.assert_allclose(both["sd"], rms, atol=1e-12)
    assert set(both["n_folds"]) == {4} and set(both["n"]) == {60}
    # the spread over seeds is that of their ensembles, apart from the spread over fold models
    between = np.abs(alone[0]["ensemble"] - alone[1]["ensemble"]) / np.sqrt(2)
    np.testing.assert_allclose(both["sd_seeds"], between, atol=1e-12)
    assert set(both["seeds"]) == {2}
    compared = results.comparisons(predictions, study, data="real")
    aucs = both[both["metric"] == "auc"].set_index("arm")["ensemble"]
    expected = aucs["daft"] - aucs["imaging"]
    assert compared.loc[0, "difference"] == pytest.approx(expected)


def test_a_design_without_a_test_set(study):
    predictions = make_predictions(test=False)
    thresholds = results.choose_thresholds(predictions)
    table = results.performance(predictions, thresholds, study, data="real", resamples=50)
    assert set(table["n"]) == {120} and table["mean"].notna().all()
    assert "optimistic" in table.set_index(["arm", "metric"]).loc[("daft", "f1"), "threshold_rule"]
    pooled = results.out_of_fold(predictions, thresholds, study, data="real", resamples=50)
    np.testing.assert_allclose(
        table[table["metric"] == "auc"]["ensemble"], pooled[pooled["metric"] == "auc"]["estimate"]
    )
    paper = results.paper_table(table, pooled, study)
    assert paper.loc[0, "F1 (event class) of flagging everyone"] == "0.400"


def test_the_papers_table(performance, predictions, thresholds, study):
    pooled = results.out_of_fold(predictions, thresholds, study, data="simulated", resamples=50)
    table = results.paper_table(performance, pooled, study)
    auc = pooled[pooled["metric"] == "auc"].set_index("arm")["estimate"]
    best = auc[["ncct", "imaging"]].idxmax()
    assert list(table["model"][:2]) == ["Best imaging-only model", "Multimodal model"]
    assert list(table["arm"]) == [best, "daft", *ARMS]
    assert table.loc[0, "AUC, published, another cohort"] == "0.53 ± 0.02"
    assert table.loc[1, "F1, published, another cohort"] == "0.39 ± 0.02"
    assert set(table["AUC, published, another cohort"][2:]) == {"–"}
    row = performance.set_index(["arm", "metric"]).loc[("daft", "auc")]
    assert table.loc[1, "AUC, mean ± SD"] == f"{row['mean']:.2f} ± {row['sd']:.2f}"
    limits = f"{row['ensemble']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    assert table.loc[1, "ensemble AUC [95 % CI]"] == limits
    assert {"F1 (event class), mean ± SD", "ensemble F1 (event class) [95 % CI]"} <= set(table)
    assert set(table["threshold of F1"]) == {"max-f1 on pooled out-of-fold"}


def test_the_best_imaging_arm_is_chosen_out_of_fold_only(
    performance, predictions, thresholds, study
):
    pooled = results.out_of_fold(predictions, thresholds, study, data="real", resamples=50)
    best = results.best_arm(pooled, study, "imaging")
    worse = "imaging" if best == "ncct" else "ncct"
    other = performance.copy()
    other.loc[other["arm"] == worse, ["mean", "ensemble"]] = 0.99
    assert results.paper_table(other, pooled, study).loc[0, "arm"] == best
    assert results.best_arm(pooled, study, [worse, "daft_offset"]) == worse  # of those named alone
    with pytest.raises(InputError, match="no arm of group 'genetics'"):
        results.best_arm(pooled, study, "genetics")


def test_flagging_everyone_is_that_of_the_rows_own_patients(predictions, study):
    ids = predictions.loc[(predictions["partition"] == "test") & (predictions["y_true"] == 1)]
    gone = set(ids["participant_id"].unique()[:5])
    fewer = predictions[(predictions["arm"] != "daft") | ~predictions["participant_id"].isin(gone)]
    chosen = results.choose_thresholds(fewer)
    table = results.performance(fewer, chosen, study, data="real", resamples=10)
    pooled = results.out_of_fold(fewer, chosen, study, data="real", resamples=10)
    paper = results.paper_table(table, pooled, study).drop_duplicates("arm").set_index("arm")
    assert paper.loc["daft", ["n", "events"]].tolist() == [55, 10]
    assert paper.loc["daft", "F1 (event class) of flagging everyone"] == f"{20 / 65:.3f}"
    assert paper.loc["imaging", "F1 (event class) of flagging everyone"] == f"{30 / 75:.3f}"


def test_flagging_everyone_has_an_interval_over_patients(predictions, thresholds, study):
    everyone = results.performance(
        predictions, thresholds.assign(threshold=0.0), study, data="real", resamples=2000
    )
    rows = everyone.set_index(["arm", "metric"])
    f1 = rows.loc[("daft", "f1")]
    assert f1["ensemble"] == pytest.approx(0.4)
    # the exact distribution: 2 k / (k + 60) with k events among 60 patients drawn
    k = stats.binom.ppf([0.025, 0.975], 60, 15 / 60)
    assert [f1["low"], f1["high"]] == pytest.approx(list(2 * k / (k + 60)), abs=0.03)
    assert f1["interval_method"] == "bootstrap over patients, percentile, 2000 resamples"
    assert rows.loc[("daft", "auc"), "interval_method"] == "DeLong, logit scale"
    assert rows.loc[("daft", "ppv"), "interval_method"] == "Wilson"


def test_resamples_of_one_class_are_dropped_and_counted(study):
    predictions = make_predictions(n_test=8)  # two events among eight test patients
    test = predictions[predictions["partition"] == "test"].drop_duplicates("participant_id")
    n, events = len(test), test["y_true"].sum()
    chosen = results.choose_thresholds(predictions)
    table = results.performance(predictions, chosen, study, data="real", resamples=400)
    for metric in ("f1", "average_precision", "brier", "scaled_brier"):
        row = table.set_index(["arm", "metric"]).loc[("daft", metric)]
        kept, dropped = map(
            int,
            re.fullmatch(
                r"bootstrap over patients, percentile, (\d+) resamples "
                r"\((\d+) of one class only dropped\)",
                row["interval_method"],
            ).groups(),
        )
        assert kept + dropped == 400
        share = (1 - events / n) ** n + (events / n) ** n
        assert dropped == pytest.approx(400 * share, abs=5 * np.sqrt(400 * share * (1 - share)))
        assert row["low"] <= row["high"] and np.isfinite([row["low"], row["high"]]).all()


def test_no_skill_lines(predictions):
    lines = results.no_skill(predictions, data="real").set_index(["partition", "metric", "how"])[
        "value"
    ]
    assert lines["test", "f1", "flagging everyone"] == pytest.approx(0.4)
    assert lines["test", "average_precision", "prevalence"] == 0.25
    assert lines["out-of-fold", "auc", "ranking at random"] == 0.5
    coin = lines["test", "f1", "flagging by the toss of a coin (expected)"]
    assert coin == pytest.approx(metrics.coin_f1([1] * 15 + [0] * 45)) and coin < 0.4
    assert lines["test", "net_benefit", "treating nobody, at any threshold"] == 0
    everyone = lines["test", "net_benefit", "treating everyone, threshold 20 %"]
    assert everyone == pytest.approx(0.25 - 0.75 * 0.25)
    assert lines["test", "npv", "flagging at random"] == 0.75


def test_every_estimate_stands_beside_what_no_skill_gives(
    performance, predictions, thresholds, study
):
    rows = performance.set_index(["arm", "metric"]).loc["daft"]
    assert rows["no_skill"][["auc", "average_precision", "scaled_brier", "ppv"]].tolist() == [
        0.5, 0.25, 0.0, 0.25,
    ]  # fmt: skip
    assert rows.loc["f1", ["no_skill", "no_skill_how"]].tolist() == [0.4, "flagging everyone"]
    assert rows.loc["brier", "no_skill"] == 0.1875 and rows.loc["npv", "no_skill"] == 0.75
    # as many flagged at random: sensitivity is the share flagged, specificity the rest
    test = predictions.query("arm == 'daft' and partition == 'test'")
    p = test.groupby("participant_id")["probability"].mean()
    share = (p >= thresholds.set_index("arm").loc["daft", "threshold"]).mean()
    assert rows.loc["sensitivity", "no_skill"] == pytest.approx(share)
    assert rows.loc["specificity", "no_skill"] == pytest.approx(1 - share)
    pooled = results.out_of_fold(predictions, thresholds, study, data="real", resamples=10)
    assert pooled.set_index(["arm", "metric"]).loc[("daft", "f1"), "no_skill"] == pytest.approx(0.4)


def test_the_main_arms_are_those_compared(study):
    assert results.main_arms(study, ["daft", "ncct", "imaging"]) == ["imaging", "daft"]
    assert results.main_arms(study, ["ncct"]) == ["ncct"]  # nothing compared was run
    assert results.main_arms(dataclasses.replace(study, comparisons=()), ["daft", "cta"]) == [
        "cta",
        "daft",
    ]


def test_all_arms_share_the_resamples_of_one_arm_alone(predictions, thresholds, performance, study):
    alone = predictions[predictions["arm"] == "daft"]
    table = results.performance(alone, thresholds, study, data="simulated", resamples=200)
    both = performance[performance["arm"] == "daft"].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, both)


def test_comparisons_are_paired_and_adjusted(predictions, performance, study):
    table = results.comparisons(predictions, study, data="real")
    assert list(zip(table["a"], table["b"], strict=True)) == list(study.comparisons)
    aucs = performance[performance["metric"] == "auc"].set_index("arm")["ensemble"]
    for row in table.itertuples():
        assert row.difference == pytest.approx(aucs[row.a] - aucs[row.b])
        assert row.low < row.difference < row.high and row.p <= row.p_holm <= 1
    # an arm that scored fewer patients: compared on those both scored
    fewer = predictions.drop(
        predictions.query("arm == 'imaging' and participant_id >= 'sub-0170'").index
    )
    assert list(results.comparisons(fewer, study, data="real")["n"]) == [50, 60, 60]
    without = results.comparisons(predictions.query("arm != 'concat'"), study, data="real")
    assert without.loc[2, "reason"] == "arm 'concat' was not run" and np.isnan(
        without.loc[2, "p_holm"]
    )
    assert without.loc[0, "p_holm"] <= table.loc[0, "p_holm"]
    assert without.loc[2, ["bootstrap_low", "bootstrap_p"]].isna().all()


def test_probability_tables(predictions, study):
    table = results.calibration_table(predictions, study, data="real")
    assert list(table["arm"]) == list(ARMS) and set(table["partition"]) == {"test"}
    points = results.calibration_points(predictions, study, data="real")
    assert (points.groupby("arm")["n"].sum() == 60).all()
    assert (points.groupby("arm")["events"].sum() == 15).all()
    assert points["observed"].between(points["low"], points["high"]).all()
    roc = results.roc_points(predictions, study, data="real")
    assert list(dict.fromkeys(roc["arm"])) == ["clinical_logistic", "imaging", "concat", "daft"]
    area = roc.groupby("arm").apply(lambda g: np.trapezoid(g["tpr"], g["fpr"]))
    ensembles = results.ensembles(predictions, "test")
    for arm, group in ensembles[ensembles["arm"] != "ncct"].groupby("arm"):
        assert area[arm] == pytest.approx(sk.roc_auc_score(group["y_true"], group["probability"]))
    assert not np.isinf(roc["threshold"]).any()
    spread = results.risk_distribution(predictions, study, data="real")
    assert (spread.groupby("arm")["n"].sum() == 60).all()


def test_tied_probabilities_are_not_split_between_groups(study):
    flat = make_predictions()
    flat["probability"] = flat["probability"].round(1)
    for row in results.calibration_points(flat, study, data="real").itertuples():
        assert row.n > 0
    flat["probability"] = 0.25
    points = results.calibration_points(flat, study, data="real")
    assert list(points["n"]) == [60] * len(ARMS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.drop(columns="fold"), "column 'fold' is missing"),
        (lambda p: p.iloc[:0], "no rows"),
        (lambda p: p.assign(partition="validation"), "partition is 'validation'"),
        (lambda p: p.assign(y_true=2), "y_true is .*2"),
        (lambda p: p.assign(probability=1.2), "probability 1.2"),
        (lambda p: p.assign(probability=np.nan), "probability nan"),
        (lambda p: pd.concat([p, p.iloc[:1]]), "'sub-0000' is scored twice"),
        (
            lambda p: p.assign(y_true=[1 - p.y_true[0], *p.y_true[1:]]),
            "'sub-0000' has two different",
        ),
    ],
)
def test_faulty_predictions_are_named(predictions, change, words):
    with pytest.raises(InputError, match=words):
        results.check_predictions(change(predictions))


def test_a_test_set_without_events_is_named(predictions, thresholds, study):
    test = predictions["partition"] == "test"
    quiet = predictions[~test | (predictions["y_true"] == 0)]
    with pytest.raises(
        InputError, match="all 45 patients that arm 'clinical_logistic' is judged on"
    ):
        results.performance(quiet, thresholds, study, data="real")


def test_shap_importance():
    shap = pd.DataFrame({
        "participant_id": ["sub-1"] * 2 + ["sub-2"] * 2, "arm": "daft",
        "variable": ["age", "sex"] * 2, "value": 1.0, "shap": [0.2, -0.5, -0.4, 0.1],
    })  # fmt: skip
    table = results.shap_importance(shap, data="real", resamples=100)
    by = table.set_index("variable")
    assert by["mean_abs_shap"].to_dict() == pytest.approx({"age": 0.3, "sex": 0.3})
    assert by.loc["age", ["low", "high"]].tolist() == pytest.approx([0.2, 0.4])
    assert sorted(table["rank"]) == [1, 2] and set(table["n"]) == {2}
    with pytest.raises(InputError, match="column 'shap' is missing"):
        results.shap_importance(shap.drop(columns="shap"), data="real")
    with pytest.raises(InputError, match="some patients lack some variables"):
        results.shap_importance(shap.iloc[:3], data="real")


def test_arms_that_the_study_does_not_name_come_last(predictions, thresholds, study):
    assert isinstance(study.arms["daft"], Arm)
    other = study.__class__(**{**study.__dict__, "arms": {"daft": study.arms["daft"]}})
    table = results.performance(predictions, thresholds, other, data="real", resamples=10)
    assert list(dict.fromkeys(table["arm"])) == ["daft", *sorted(set(ARMS) - {"daft"})]


def test_patient_risk_is_the_mean_over_seeds():
    predictions = make_predictions(seeds=(0, 1), n_train=40, n_test=20)
    risk = results.patient_risk(predictions, "test")
    assert len(risk) == 20 * predictions["arm"].nunique()
    first = risk.iloc[0]
    rows = predictions.query("partition == 'test' and arm == @first.arm")
    rows = rows[rows["participant_id"] == first.participant_id]
    assert len(rows) == 8 and first.probability == pytest.approx(rows["probability"].mean())


# ---------------------------------------------------------------------------------------- ceiling


def test_a_ceiling_file_is_taken_as_it_is():
    assert results.check_ceiling(make_ceiling()) == make_ceiling()
    later = make_ceiling() | {"seed": 1}  # a field more does no harm
    assert results.check_ceiling(later) == later


def planted(path, value):
    """A ceiling with one field changed, or left out if the value is None."""
    content = holder = make_ceiling()
    *parents, last = path.split(".")
    for name in parents:
        holder = holder[name]
    holder[last] = value
    if value is None:
        del holder[last]
    return content


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("scenario", 5, "'scenario' is 5; allowed: text"),
        ("scenario", None, "'scenario' is missing; allowed: text"),
        ("predictor", " ", "'predictor' is \" \"; allowed: text"),
        ("n_fitted", 481.0, r"'n_fitted' is 481\.0; allowed: a whole number, 2 to"),
        ("n_fitted", True, "'n_fitted' is true"),
        ("events_fitted", 0, "'events_fitted' is 0; allowed: a whole number, 1 to"),
        ("events_fitted", 481, r"'events_fitted' is 481; allowed: fewer than 'n_fitted' \(481\)"),
        ("replicates", 1, "'replicates' is 1; allowed: a whole number, 2 to"),
        ("evaluated_on", "many", "'evaluated_on' is \"many\""),
        ("arms", [], r"'arms' is \[\]; allowed: an object"),
        ("arms.vessels", None, "'arms.vessels' is null; allowed: an object"),
        ("arms.all_additive", 0.7, "'arms.all_additive' is 0.7; allowed: an object"),
        ("arms.ncct.infinite", None, "'arms.ncct.infinite' is missing; allowed: a number, 0 to 1"),
        ("arms.ncct.infinite", 1.2, r"'arms.ncct.infinite' is 1\.2; allowed: a number, 0 to 1"),
        ("arms.ncct.fitted", np.nan, "'arms.ncct.fitted' is NaN; allowed: a number, 0 to 1"),
        ("arms.ncct.fitted", "0.5", "'arms.ncct.fitted' is \"0.5\""),
        ("arms.ctp.fitted_sd", -0.1, "'arms.ctp.fitted_sd' is -0.1; allowed: a number, 0 to 1"),
        ("arms.ctp.fitted_high", 0.4, r"'arms.ctp.fitted_high' is 0\.4; allowed: at least 'fitted_low' \(0\.475\)"),
        ("arms.all.latents", [], r"'arms.all.latents' is \[\]; allowed: a list of names"),
        ("arms.all.latents", [1], r"'arms.all.latents' is \[1\]"),
    ],
)  # fmt: skip
def test_every_field_of_a_ceiling_is_checked(path, value, words):
    with pytest.raises(InputError, match=f"^made.json: {words}"):
        results.check_ceiling(planted(path, value), "made.json")


def test_a_ceiling_that_is_no_object_is_named():
    with pytest.raises(InputError, match=r"the file is \[1\]; allowed: an object"):
        results.check_ceiling([1])


def test_each_arm_of_the_study_has_the_ceiling_of_what_it_sees(study):
    found = {arm: results.ceiling_of(arm, study) for arm in study.arms}
    assert {arm: name for arm, (name, _) in found.items() if name} == {
        "clinical_logistic": "clinical", "clinical_boosting": "clinical", "clinical_mlp": "clinical",
        "ncct": "ncct", "cta": "cta", "vessels": "vessels", "ctp": "ctp", "imaging": "imaging",
        "concat": "all", "film": "all", "daft": "all", "concat2fc": "all", "daft_offset": "all",
        "voxels": "imaging", "concepts_imaging": "imaging", "concepts": "all", "concepts_daft": "all",
        "stacked": "all", "late": "all", "measured_logistic": "all", "measured_boosting": "all",
    }  # fmt: skip
    why = {arm: reason for arm, (name, reason) in found.items() if not name}
    assert why == {
        name: f"no ceiling is computed for clinical + {what}"
        for names, what in (
            (("ctp_logistic", "ctp_boosting"), "ctp_scalars"),
            (("read_logistic", "read_boosting"), "ctp_scalars + image_read"),
        )
        for name in names
    }


@pytest.mark.parametrize(
    ("arm", "ceiling", "reason"),
    [
        (Arm("x", "X", "cnn", channels=("tmax",)), "", "tmax"),
        (Arm("x", "X", "cnn", channels=("cbf", "cbv", "mtt", "tmax")), "ctp", ""),
        (Arm("x", "X", "cnn", channels=("cta", "vessels")), "cta", ""),
        (Arm("x", "X", "cnn", channels=("ncct", "cta", "cbf", "cbv", "mtt", "tmax")), "imaging", ""),
        (Arm("x", "X", "mean", of=("ncct", "cta", "ctp")), "imaging", ""),
        (Arm("x", "X", "mean", of=("late", "ctp")), "all", ""),
        (Arm("x", "X", "cnn", channels=("ncct", "cta")), "", "cta + ncct"),
        (Arm("x", "X", "cnn", channels=("ncct", "vessels", "cbf")), "", "cbf + ncct + vessels"),
        (Arm("x", "X", "cnn", channels=("ncct",), predictors=("clinical",)), "", "clinical + ncct"),
        (Arm("x", "X", "mean", of=("ctp", "clinical_mlp")), "", "clinical + ctp"),
        (Arm("x", "X", "boosting", predictors=("image_read",)), "", "image_read"),
        (Arm("x", "X", "mlp", predictors=("clinical", "ctp_scalars")), "", "clinical + ctp_scalars"),
    ],
)  # fmt: skip
def test_the_ceiling_follows_from_scans_and_predictors(study, arm, ceiling, reason):
    with_arm = dataclasses.replace(study, arms=study.arms | {"x": arm})
    why = f"no ceiling is computed for {reason}" if reason else ""
    assert results.ceiling_of("x", with_arm) == (ceiling, why)


def test_an_unknown_arm_and_a_scan_of_another_study_have_no_ceiling(study):
    assert results.ceiling_of("y", study) == ("", "not an arm of the study file")
    assert results.ceiling_of("image", load_study("soop")) == (
        "",
        "no ceiling is computed for lesion",
    )


def test_the_share_and_its_limits():
    exact = results.share_of(0.66, 0.63, 0.70, fitted=0.70, fitted_se=0.0)
    np.testing.assert_allclose(exact, (0.8, 0.65, 1.0))
    assert results.share_of(0.5, 0.4, 0.6, fitted=0.7, fitted_se=0.05) == (0.0, -0.5, 0.5)
    below = results.share_of(0.46, 0.43, 0.49, fitted=0.6, fitted_se=0.002)
    assert below[0] == pytest.approx(-0.4) and below[1] < -0.7 and below[2] > -0.1


def test_the_limits_of_the_share_are_those_of_simulated_errors():
    rng = np.random.default_rng(3)
    auc, fitted = rng.normal(0.66, 0.015, 200_000), rng.normal(0.70, 0.008, 200_000)
    spread = np.std((auc - 0.5) / (fitted - 0.5))
    limits = (0.66 - 1.96 * 0.015, 0.66 + 1.96 * 0.015)
    _, low, high = results.share_of(0.66, *limits, fitted=0.70, fitted_se=0.008)
    assert (high - low) / (2 * 1.96) == pytest.approx(spread, rel=0.02)
    without = results.share_of(0.66, *limits, fitted=0.70, fitted_se=0.0)
    assert without[2] - without[1] < 0.95 * (high - low)  # the ceiling's own error counts


def scored(arm, n_train=481, n_test=2000):
    """The predictions of one arm: so many patients out of fold, and so many in the test set."""
    n = n_train + n_test
    part = ["out-of-fold"] * n_train + ["test"] * n_test
    return pd.DataFrame({
        "participant_id": [f"sub-{i}" for i in range(n)], "partition": part, "arm": arm, "seed": 0,
        "fold": 1, "y_true": np.arange(n) % 6 == 0, "probability": 0.3,
    }).astype({"y_true": int})  # fmt: skip


def ceiling_row(study, arm="daft", *, n=2000, auc=(0.66, 0.63, 0.69), ceiling=None, **sizes):
    """The ceiling table's row of one arm whose performance is given."""
    row = dict(zip(("ensemble", "low", "high"), auc, strict=True))
    performance = pd.DataFrame([{"arm": arm, "metric": "auc", "n": n, "events": n // 4} | row])
    table = results.ceiling_table(
        ceiling or make_ceiling(), scored(arm, **sizes), performance, study, data="simulated"
    )
    assert len(table) == 1
    return table.iloc[0]


def test_the_ceiling_table_by_hand(study):
    row = ceiling_row(study)
    assert list(row.index) == [
        "arm", "label", "ceiling", "infinite", "fitted", "fitted_sd", "fitted_low", "fitted_high", "auc",
        "auc_low", "auc_high", "share", "share_low", "share_high", "n", "events", "reason", "data",
    ]  # fmt: skip
    assert (row.arm, row.label, row.ceiling) == ("daft", study.arms["daft"].label, "all")
    assert (row.infinite, row.fitted) == CEILINGS["all"] and row.fitted_sd == 0.02
    assert (row.auc, row.auc_low, row.auc_high, row.n, row.events) == (0.66, 0.63, 0.69, 2000, 500)
    assert row.share == pytest.approx(0.8) and row.reason == "" and row.data == "simulated"
    judged = metrics.hanley_mcneil_se(0.70, events=16008, n=100_000)  # 77 of 481
    error = np.hypot(0.02 / 10, judged)
    half = np.hypot(0.03 / 0.2, 1.959964 * 0.8 * error / 0.2)
    assert row.share_high - row.share == pytest.approx(half)
    assert row.share - row.share_low == pytest.approx(half)


TOO_FEW = "2,000 or more are needed (at 118 the share's standard error is about 0.4 and more)"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"n": 1999}, f"1999 test patients; {TOO_FEW}"),
        ({"n": 118, "n_test": 118}, f"118 test patients; {TOO_FEW}"),
        ({"n": 2400, "n_train": 2400, "n_test": 0}, "the ceiling was fitted on 481 patients, the models on 2400; the ceiling was fitted on 77 events, the models on 400"),
        ({"n": 481, "n_test": 0}, f"481 patients out of fold; {TOO_FEW}"),
        ({"n_train": 578}, "the ceiling was fitted on 481 patients, the models on 578; the ceiling was fitted on 77 events, the models on 97"),
        ({"n_train": 384}, "the ceiling was fitted on 481 patients, the models on 384"),
        ({"arm": "ctp"}, "the fitted ceiling is 0.515: a share of nothing"),
        ({"arm": "ctp", "n": 118}, f"118 test patients; {TOO_FEW}; the fitted ceiling is 0.515: a share of nothing"),
        ({"arm": "mine"}, "not an arm of the study file"),
        ({"auc": (0.66, np.nan, np.nan)}, "the AUC or its interval is undefined"),
    ],
)  # fmt: skip
def test_where_no_share_is_stated_the_reason_is(study, given, reason):
    row = ceiling_row(study, **given)
    assert row[["share", "share_low", "share_high"]].isna().all()
    assert row.reason == reason and row.auc == 0.66
    assert pd.isna(row.fitted) == (given.get("arm") == "mine")


def test_a_training_part_within_a_fifth_of_the_ceilings_will_do(study):
    for n_train in (385, 552):  # 65 and 92 events
        assert ceiling_row(study, n_train=n_train).share == pytest.approx(0.8)


def test_another_definition_of_the_outcome_has_no_ceiling(study):
    row = ceiling_row(study.under("stenosis_only"))
    assert row.ceiling == "" and pd.isna(row.share)
    assert "that of the main outcome, not of 'stenosis_only'" in row.reason


def test_where_nothing_predicts_no_share_is_stated(study):
    nothing = make_ceiling() | {"scenario": "null"}
    for arm in nothing["arms"].values():
        arm |= {"infinite": 0.5, "fitted": 0.5, "fitted_low": 0.48, "fitted_high": 0.52}
    for arm in [name for name in study.arms if results.ceiling_of(name, study)[0]]:
        row = ceiling_row(study, arm, ceiling=nothing, auc=(0.51, 0.48, 0.54))
        assert pd.isna(row.share) and row.reason.endswith("0.500: a share of nothing")


def test_the_ceiling_table_of_a_run_has_its_performance(predictions, performance, study):
    table = results.ceiling_table(make_ceiling(), predictions, performance, study, data="simulated")
    assert list(table["arm"]) == list(ARMS)
    auc = performance[performance["metric"] == "auc"]
    for column, source in {"auc": "ensemble", "auc_low": "low", "auc_high": "high"}.items():
        assert table[column].tolist() == auc[source].tolist()
    assert table["share"].isna().all()
    assert table["reason"].str.startswith(f"60 test patients; {TOO_FEW}; the ceiling").all()


def test_real_patients_have_no_ceiling(predictions, performance, study):
    with pytest.raises(InputError, match="ceiling: data is 'real'; allowed: simulated"):
        results.ceiling_table(make_ceiling(), predictions, performance, study, data="real")


def test_only_the_report_reads_the_ceiling():
    """Nothing that trains, chooses or scores a model knows of it; `dataset` has its place in the folder."""
    package, named = project_root() / "rlvo_lib", {}
    for noun in ORDER[: ORDER.index("results")]:
        place = package / noun
        files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        for path in files:
            lines = path.read_text(encoding="utf-8").splitlines()
            found = [line.strip() for line in lines if "ceiling" in line.casefold()]
            if found:
                named[noun] = named.get(noun, []) + found
    assert {"dataset", "figures"} <= set(named) <= {"dataset", "figures", "simulate", "explain"}
    # The true risk that judges counterfactual predictions knows which latents scans show, not the file.
    assert [line for line in named["explain"] if "ceiling" in line and "`" not in line] == [
        "from rlvo_lib.simulate import ceiling, patients, scenarios",
        "matrix, _ = ceiling.features(sees, whole, plan)",
    ]
    assert named["dataset"] == [
        'TRUTH, CEILING = f"{DERIVATIVES}/truth", f"{DERIVATIVES}/ceiling.json"',
        "for place in (TRUTH, CEILING):",  # whether it is there, never what it says
    ]


def test_a_proportion_of_nobody_says_why_it_is_missing():
    y, p = np.array([0, 1, 0, 1]), np.array([[0.1], [0.4], [0.3], [0.8]])
    scores = results.predictions.Scores("daft", tuple("abcd"), y, p, (0,))
    for metric, cut, words in (
        ("npv", 0.0, "everybody is flagged"),
        ("ppv", 0.9, "nobody is flagged"),
    ):
        *limits, how = results.uncertainty.interval(scores, metric, [cut])
        assert np.isnan(limits).all() and how == f"Wilson; {words}: no {metric.upper()}"


def test_one_event_has_no_bootstrap_interval(study):
    rows = [
        (f"sub-{i}", part, "daft", 0, fold, int(i == 0 or (part == "out-of-fold" and i < 4)), 0.1 + 0.01 * i)
        for part, ids in (("out-of-fold", range(1, 9)), ("test", (0, *range(10, 16))))
        for i in ids
        for fold in ((1 + i % 2,) if part == "out-of-fold" else (1, 2))
    ]  # fmt: skip
    columns = ["participant_id", "partition", "arm", "seed", "fold", "y_true", "probability"]
    frame = pd.DataFrame(rows, columns=columns)
    chosen = results.choose_thresholds(frame)
    table = results.performance(frame, chosen, study, data="simulated", resamples=50)
    brier = table.set_index("metric").loc["brier"]
    assert brier["events"] == 1 and np.isnan([brier["low"], brier["high"]]).all()
    assert "fewer than two events" in brier["interval_method"]
