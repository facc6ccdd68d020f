"""Paired comparisons of arms: in AUC, at the frozen thresholds, and over folds."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from made_run import make_predictions
from sklearn import metrics as sk

from rlvo_lib import metrics, results
from rlvo_lib.config import load_study


@pytest.fixture(scope="module")
def study():
    return load_study("rlvo")


@pytest.fixture(scope="module")
def predictions():
    return make_predictions()


@pytest.fixture(scope="module")
def thresholds(predictions):
    return results.choose_thresholds(predictions)


def of_arm(predictions, arm, partition="test"):
    rows = predictions[(predictions["arm"] == arm) & (predictions["partition"] == partition)]
    return rows.groupby("participant_id")[["y_true", "probability"]].mean()


def test_the_bootstrap_of_a_difference_is_that_of_the_two_scores(predictions, study):
    table = results.comparisons(predictions, study, data="real", resamples=300, seed=7)
    assert list(table.columns) == [
        "a", "b", "auc_a", "auc_b", "difference", "low", "high", "z", "p", "p_holm", "n", "events",
        "bootstrap_low", "bootstrap_high", "bootstrap_p", "reason", "data",
    ]  # fmt: skip
    a, b = of_arm(predictions, "daft"), of_arm(predictions, "imaging")
    expected = metrics.bootstrap_ci(
        a["y_true"], a["probability"], "auc", other=b["probability"], n=300, seed=7
    )
    row = table.loc[0]
    assert [row.bootstrap_low, row.bootstrap_high] == pytest.approx([expected.low, expected.high])
    assert row.bootstrap_p == pytest.approx(expected.p)
    delong = metrics.compare_auc(a["y_true"], a["probability"], b["probability"])
    assert [row.p, row.low, row.high] == pytest.approx([delong.p, delong.low, delong.high])
    assert table["p_holm"].tolist() == pytest.approx(metrics.holm(table["p"]).tolist())


def test_arms_that_rank_alike_do_not_differ(predictions, study):
    daft = predictions[predictions["arm"] == "daft"]
    same = pd.concat([daft, daft.assign(arm="imaging", probability=daft["probability"] ** 2)])
    same = same[same["fold"] == 1]  # one model an arm: a power keeps its ranking
    row = results.comparisons(same, study, data="real", resamples=50).loc[0]
    assert row[["difference", "bootstrap_low", "bootstrap_high"]].tolist() == [0, 0, 0]
    assert row["p"] == 1 and row["bootstrap_p"] == 1


def test_perfect_separation_has_no_test(predictions, study):
    rows = predictions[predictions["arm"].isin(["daft", "imaging"])].copy()
    rows["probability"] = np.where(rows["y_true"] == (rows["arm"] == "daft"), 0.9, 0.1)
    row = results.comparisons(rows, study, data="real", resamples=50).loc[0]
    assert row["difference"] == 1 and np.isnan(row["p"]) and np.isnan(row["bootstrap_p"])
    assert row["reason"]


def test_pairs_at_their_frozen_thresholds(predictions, thresholds, study):
    table = results.comparisons_flagged(predictions, thresholds, study, data="real")
    assert list(zip(table["a"], table["b"], strict=True)) == list(study.comparisons)
    assert set(table["threshold_rule"]) == {"max-f1 on pooled out-of-fold"}
    cut = thresholds.set_index("arm")["threshold"]
    for row in table.itertuples():
        a, b = of_arm(predictions, row.a), of_arm(predictions, row.b)
        flagged_a, flagged_b = a["probability"] >= cut[row.a], b["probability"] >= cut[row.b]
        event = a["y_true"] == 1
        assert row.sensitivity_difference == pytest.approx(
            flagged_a[event].mean() - flagged_b[event].mean()
        )
        assert row.specificity_only_a == int((~flagged_a & flagged_b & ~event).sum())
        assert row.specificity_low <= row.specificity_difference <= row.specificity_high
        assert row.sensitivity_mid_p <= row.sensitivity_p <= row.sensitivity_p_holm
    # another test set changes no threshold
    moved = predictions.copy()
    moved.loc[moved["partition"] == "test", "probability"] /= 2
    again = results.comparisons_flagged(moved, thresholds, study, data="real")
    assert again["threshold_a"].tolist() == table["threshold_a"].tolist()


def test_seeds_are_compared_each_at_its_own_thresholds(study):
    predictions = make_predictions(seeds=(0, 1))
    thresholds = results.choose_thresholds(predictions)
    table = results.comparisons_flagged(predictions, thresholds, study, data="real")
    assert table["seed"].tolist() == [0, 1] * 3
    alone = results.comparisons_flagged(
        predictions[predictions["seed"] == 1], thresholds, study, data="real"
    )
    pd.testing.assert_frame_equal(
        table[table["seed"] == 1].reset_index(drop=True), alone, check_dtype=False
    )
    fewer = predictions[(predictions["arm"] != "daft") | (predictions["seed"] == 1)]
    fewer = fewer[(fewer["arm"] != "concat") | (fewer["seed"] == 0)]
    row = results.comparisons_flagged(fewer, thresholds, study, data="real").iloc[-1]
    assert row["reason"] == "the two arms have no training seed in common"
    assert row["n"] == 0 and np.isnan(row["sensitivity_p"])


def test_an_arm_that_was_not_run_is_named_in_each_comparison(predictions, thresholds, study):
    fewer = predictions[predictions["arm"] != "concat"]
    for table in (
        results.comparisons(fewer, study, data="real", resamples=10),
        results.comparisons_flagged(fewer, thresholds, study, data="real"),
        results.comparisons_folds(fewer, study, data="real"),
    ):
        assert table["reason"].iloc[-1] == "arm 'concat' was not run"
        assert (table["reason"].iloc[:-1] != table["reason"].iloc[-1]).all()


def test_out_of_fold_the_same_patients_are_said_to_be_optimistic(study):
    predictions = make_predictions(test=False)
    thresholds = results.choose_thresholds(predictions)
    table = results.comparisons_flagged(predictions, thresholds, study, data="real")
    assert table["threshold_rule"].str.endswith("(the same patients: optimistic)").all()


def test_folds_answer_another_question(predictions, study):
    table = results.comparisons_folds(predictions, study, data="real")
    row = table.loc[0]
    folds = predictions[predictions["partition"] == "out-of-fold"].groupby(["arm", "fold"])
    auc = folds.apply(lambda f: sk.roc_auc_score(f["y_true"], f["probability"])).unstack("fold")
    difference = (auc.loc["daft"] - auc.loc["imaging"]).to_numpy()
    assert row["difference"] == pytest.approx(difference.mean())
    assert row[["k", "n_train", "n_test"]].tolist() == [4, 90, 30]
    # Nadeau and Bengio 2003: variance (1/k + n_test/n_train) times that of the differences
    se = np.sqrt((1 / 4 + 30 / 90) * difference.var(ddof=1))
    assert row["se"] == pytest.approx(se) and row["df"] == 3
    assert table["answers"].str.startswith("would training on another sample").all()
    # the test set plays no part
    train = predictions[predictions["partition"] == "out-of-fold"]
    pd.testing.assert_frame_equal(results.comparisons_folds(train, study, data="real"), table)


def test_seeds_on_the_same_split_are_no_further_samples(study):
    """The same four differences again, as of another seed, make the test no surer."""
    one = make_predictions(seeds=(0,))
    table = results.comparisons_folds(one, study, data="real")
    again = pd.concat([one, one.assign(seed=1)], ignore_index=True)
    pd.testing.assert_frame_equal(results.comparisons_folds(again, study, data="real"), table)
    several = results.comparisons_folds(make_predictions(seeds=(0, 1, 2)), study, data="real")
    assert set(several["k"]) == {4} and set(several["df"]) == {3}


def test_repeated_splits_all_count(study):
    one = make_predictions(seeds=(0,))
    one = one[one["partition"] == "out-of-fold"]
    other = one.assign(seed=1, fold=(one["participant_id"].str[-1].astype(int) % 4) + 1)
    table = results.comparisons_folds(pd.concat([one, other]), study, data="real")
    assert set(table["k"]) == {8} and set(table["df"]) == {7}


def test_a_fold_of_one_class_is_left_out_and_counted(predictions, study):
    third = (predictions["fold"] == 3) & (predictions["partition"] == "out-of-fold")
    fewer = predictions[~third | (predictions["y_true"] == 0)]
    row = results.comparisons_folds(fewer, study, data="real").loc[0]
    assert row["k"] == 3 and row["reason"] == "1 of 4 folds have one class only: left out"
    only = fewer[(fewer["partition"] == "test") | (fewer["fold"] == 3)]
    row = results.comparisons_folds(only, study, data="real").loc[0]
    assert row["k"] == 0 and np.isnan(row["p"]) and "1 of 1 folds" in row["reason"]
    test = predictions[predictions["partition"] == "test"]
    assert set(results.comparisons_folds(test, study, data="real")["reason"]) == {
        "no out-of-fold predictions"
    }


def test_a_study_without_comparisons_has_empty_tables(predictions, thresholds, study):
    alone = dataclasses.replace(study, comparisons=())
    assert results.comparisons(predictions, alone, data="real").empty
    assert results.comparisons_flagged(predictions, thresholds, alone, data="real").empty
    assert results.comparisons_folds(predictions, alone, data="real").empty


def test_averaged_repetitions_are_one_cross_validation_of_mean_probabilities():
    rows = [
        (p, "out-of-fold", "daft", seed, 1 + (i + seed) % 2, i % 2, 0.1 * (i + 1) + 0.05 * seed)
        for seed in (0, 1)
        for i, p in enumerate(["a", "b", "c", "d"])
    ]
    rows.append(("a", "test", "daft", 0, 1, 0, 0.9))
    columns = ["participant_id", "partition", "arm", "seed", "fold", "y_true", "probability"]
    averaged = results.averaged_repetitions(pd.DataFrame(rows, columns=columns))
    assert list(averaged.columns) == columns and set(averaged["partition"]) == {"out-of-fold"}
    by_patient = averaged.set_index("participant_id")
    assert set(by_patient["seed"]) == {0} and by_patient["fold"].tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(by_patient["probability"], [0.125, 0.225, 0.325, 0.425])
