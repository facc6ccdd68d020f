"""Subgroups: strata in words, counts, estimates by hand, and what cannot be estimated."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from made_run import make_predictions
from sklearn import metrics as sk
from statsmodels.stats.meta_analysis import combine_effects

from rlvo_lib import dictionary, metrics, results
from rlvo_lib.config import InputError, Subgroup, load_study

NUMBERS = ["auc", "low", "high", "o_to_e", "o_to_e_low", "o_to_e_high", "difference", "q"]


@pytest.fixture(scope="module")
def study():
    return load_study("rlvo")


@pytest.fixture(scope="module")
def words(study):
    return dictionary.load(study.dictionary_path)


@pytest.fixture(scope="module")
def predictions():
    return make_predictions(n_train=240)


def make_cohort(predictions):
    """Text columns as in ``cohort.csv``: every third a man, ages 60 to 89, few clots beyond M1."""
    ids = sorted(predictions["participant_id"].unique())
    number = np.arange(len(ids))
    return pd.DataFrame({
        "participant_id": ids, "sex": np.where(number % 3 == 0, "1", "0"),
        "age": (60 + number % 30).astype(str), "occl_site_cta": np.where(number % 24 == 5, "4", "3"),
        "icad_suspected_cta": np.where(number % 7 == 0, "-99", np.where(number % 2 == 0, "1", "0")),
        "admit_year": np.where(number % 2 == 0, "2018", "2021"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def cohort(predictions):
    return make_cohort(predictions)


@pytest.fixture(scope="module")
def table(predictions, cohort, study, words):
    return results.subgroups(predictions, cohort, study, words, data="real")


def rows_of(table, subgroup, arm="daft"):
    return table[(table["arm"] == arm) & (table["subgroup"] == subgroup)].set_index("stratum")


def pooled(predictions, cohort, arm="daft"):
    rows = predictions[(predictions["arm"] == arm) & (predictions["partition"] == "out-of-fold")]
    return rows.merge(cohort, on="participant_id")


def test_each_main_arm_is_judged_out_of_fold_in_each_named_subgroup(table, study):
    assert list(dict.fromkeys(table["arm"])) == ["clinical_logistic", "imaging", "concat", "daft"]
    assert list(dict.fromkeys(table["subgroup"])) == ["all", *[g.id for g in study.subgroups]]
    assert set(table["partition"]) == {"out-of-fold"} and set(table["data"]) == {"real"}
    everyone = rows_of(table, "all").loc["all"]
    assert everyone["n"] == 240 and everyone["events"] == 60
    counted = table[table["reason"] != "column 'transfer' is not in this dataset"]
    assert (counted.groupby(["arm", "subgroup"])["n"].sum() == 240).all()
    assert (counted.groupby(["arm", "subgroup"])["events"].sum() == 60).all()


def test_strata_are_named_in_words_in_the_dictionarys_order(table):
    assert list(rows_of(table, "sex").index) == ["female", "male"]
    assert list(rows_of(table, "age").index) == ["below 70", "70 to below 80", "80 and more"]
    assert list(rows_of(table, "site").index) == ["M1", "M2"]
    assert list(rows_of(table, "icad").index) == ["no", "yes", "missing"]
    assert list(rows_of(table, "year").index) == ["below 2020", "2020 to below 2022"]


def test_an_estimate_by_hand(table, predictions, cohort):
    frame = pooled(predictions, cohort)
    men = frame[frame["sex"] == "1"]
    row = rows_of(table, "sex").loc["male"]
    assert row["auc"] == pytest.approx(sk.roc_auc_score(men["y_true"], men["probability"]))
    expected = metrics.auc_ci(men["y_true"], men["probability"], "delong-logit")
    assert [row["low"], row["high"]] == pytest.approx([expected.low, expected.high])
    n, events = len(men), men["y_true"].sum()
    assert row["o_to_e"] == pytest.approx(events / men["probability"].sum())
    half = 1.959964 * np.sqrt((1 - events / n) / events)
    assert np.log(row["o_to_e_high"] / row["o_to_e"]) == pytest.approx(half, rel=1e-6)
    assert np.log(row["o_to_e"] / row["o_to_e_low"]) == pytest.approx(half, rel=1e-6)
    age = frame["age"].astype(int)
    middle = frame[(age >= 70) & (age < 80)]  # the lower end of a stratum is in it
    found = rows_of(table, "age").loc["70 to below 80"]
    assert found["n"] == len(middle) and found["events"] == middle["y_true"].sum()
    assert found["auc"] == pytest.approx(sk.roc_auc_score(middle["y_true"], middle["probability"]))


def test_heterogeneity_is_cochrans_q_beside_each_difference(table):
    strata = rows_of(table, "age")
    area = strata["auc"].to_numpy()
    logit = np.log(area / (1 - area))
    se = np.log(strata["high"] / (1 - strata["high"])).to_numpy() - logit
    variance = (se / 1.959963984540054) ** 2
    known = combine_effects(logit, variance, method_re="dl")
    assert strata["q"].tolist() == pytest.approx([known.q] * 3)
    assert strata["p_interaction"].tolist() == pytest.approx([known.test_homogeneity().pvalue] * 3)
    assert set(strata["df"]) == {2}
    largest = strata["n"].idxmax()
    assert set(strata["reference"]) == {largest}
    assert np.isnan(strata.loc[largest, "difference"])
    others = strata.drop(largest)
    expected = others["auc"] - strata.loc[largest, "auc"]
    assert others["difference"].tolist() == pytest.approx(expected.tolist())
    inside = others["difference"].between(others["difference_low"], others["difference_high"])
    assert inside.all()
    tested = table[table["p_interaction"].notna()]
    assert (tested["reference"] != "").all() and tested["test"].str.startswith("Cochran").all()


def test_holm_counts_the_subgroups_of_an_arm(table):
    first = table[(table["arm"] == "daft") & table["p_interaction"].notna()]
    first = first.drop_duplicates("subgroup")
    assert first["p_holm"].tolist() == pytest.approx(metrics.holm(first["p_interaction"]).tolist())
    assert len(first) == 4  # site has one stratum that can be judged, transfer is absent


def test_too_few_events_are_not_estimated_and_said_so(table):
    strata = rows_of(table, "site")
    few = strata.loc["M2"]
    assert few["events"] < 10
    assert few["reason"] == f"not estimable: {few['events']} events, fewer than 10"
    assert few[NUMBERS].isna().all()
    assert strata.loc["M1", "reason"] == "no other stratum to compare with"
    assert np.isfinite(strata.loc["M1", "auc"]) and np.isnan(strata.loc["M1", "q"])


def test_too_few_non_events_are_not_estimated(predictions, cohort, study, words):
    ids = predictions.drop_duplicates("participant_id").set_index("participant_id")["y_true"]
    sick = cohort["participant_id"].map(ids) == 1
    frame = cohort.assign(sex=np.where(sick & (cohort.index % 2 == 0), "1", "0"))
    row = rows_of(results.subgroups(predictions, frame, study, words, data="real"), "sex")
    assert row.loc["male", "reason"] == "not estimable: 0 non-events, fewer than 10"


def test_missing_values_are_counted_in_no_stratum(table, cohort, predictions):
    train = set(pooled(predictions, cohort)["participant_id"])
    known = cohort[cohort["participant_id"].isin(train)]
    row = rows_of(table, "icad").loc["missing"]
    assert row["n"] == (known["icad_suspected_cta"] == "-99").sum()
    assert row["reason"] == "no value: in no stratum" and row[NUMBERS].isna().all()


def test_a_column_that_the_dataset_lacks_is_left_out_with_the_reason(table):
    rows = table[table["subgroup"] == "transfer"]
    assert len(rows) == 4 and set(rows["n"]) == {0} and rows[NUMBERS].isna().all(axis=None)
    assert set(rows["reason"]) == {"column 'transfer' is not in this dataset"}


def test_a_column_without_values_and_a_quantity_without_cuts(predictions, cohort, study, words):
    groups = (Subgroup("sex", "Sex", "sex"), Subgroup("age", "Age", "age"))
    frame = cohort.assign(sex="-99")
    other = dataclasses.replace(study, subgroups=groups)
    table = results.subgroups(predictions, frame, other, words, data="real")
    assert rows_of(table, "sex")["reason"].tolist() == ["column 'sex' has no value in any patient"]
    assert rows_of(table, "age")["reason"].tolist() == [
        "column 'age' is a quantity, and the study file says no cut"
    ]
    cut = dataclasses.replace(study, subgroups=(Subgroup("sex", "Sex", "sex", (1.0,)),))
    with pytest.raises(
        InputError, match="subgroup 'sex': column 'sex' holds codes; allowed: no cut"
    ):
        results.subgroups(predictions, cohort, cut, words, data="real")


def test_a_patient_outside_the_cohort_is_named(predictions, cohort, study, words):
    with pytest.raises(InputError, match="patient 'sub-0003' was predicted but is not in it"):
        results.subgroups(predictions, cohort.drop(index=3), study, words, data="real")


def test_several_seeds_are_averaged(study, words):
    both = make_predictions(seeds=(0, 1), n_train=240)
    cohort = make_cohort(both)
    together = results.subgroups(both, cohort, study, words, data="real")
    alone = [
        results.subgroups(both[both["seed"] == s], cohort, study, words, data="real")
        for s in (0, 1)
    ]
    np.testing.assert_allclose(together["auc"], (alone[0]["auc"] + alone[1]["auc"]) / 2)
    assert together["n"].tolist() == alone[0]["n"].tolist()
    expected = 2 / (1 / alone[0]["o_to_e"] + 1 / alone[1]["o_to_e"])
    np.testing.assert_allclose(together["o_to_e"], expected)


def test_only_other_patients_are_judged_where_nothing_is_out_of_fold(
    predictions, cohort, study, words
):
    test = predictions[predictions["partition"] == "test"]
    table = results.subgroups(test, cohort, study, words, data="real")
    assert set(table["partition"]) == {"test"} and rows_of(table, "all").loc["all", "n"] == 60


@pytest.mark.parametrize(("shift", "power"), [(0.05, 0.5), (-0.04, 2)])
def test_aucs_depend_on_ranks_alone(predictions, cohort, study, words, table, shift, power):
    moved = predictions.assign(
        probability=(predictions["probability"] * 0.9 + 0.05 + shift) ** power
    )
    found = results.subgroups(moved, cohort, study, words, data="real")
    columns = ["auc", "low", "high", "difference", "q", "p_holm"]
    pd.testing.assert_frame_equal(found[columns], table[columns])
