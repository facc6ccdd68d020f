"""Simulated patients: the label's rule, exact counts, values that agree, no leak through order.

Their marginal distributions are tested in test_simulate_marginals.
"""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvo_lib.config import InputError
from rlvo_lib.metrics import auc
from rlvo_lib.simulate import patients, recording


@pytest.fixture(scope="module")
def pool():
    return patients.draw(20_000, np.random.default_rng(11))


@pytest.fixture(scope="module")
def study():
    return patients.select(599, 2025)


def test_smoking_is_missing_not_at_random(pool):
    latents, table = pool
    lost = table["smoking_current"] == -99
    assert lost[latents["nihss"] > 20].mean() > lost[latents["nihss"] <= 20].mean() + 0.04
    assert lost[latents["smoking"] == 1].mean() > lost[latents["smoking"] == 0].mean() + 0.02


def test_perfusion_values_of_a_patient_agree_with_each_other(pool):
    table = pool[1][pool[1]["tmax6_ml"] > 0]
    assert (table["tmax10_ml"] <= table["tmax6_ml"]).all()
    assert (table["tmax6_ml"] <= table["tmax4_ml"]).all()
    np.testing.assert_allclose(table["hir"], table["tmax10_ml"] / table["tmax6_ml"], atol=0.0051)
    with_core = table["core_ml"] > 0
    assert (table.loc[~with_core, "mismatch_ratio"] == -98).all()
    assert (table.loc[with_core, "mismatch_ratio"] > 0).all()


def test_stenosis_is_not_applicable_exactly_where_the_vessel_stayed_shut(pool):
    table = pool[1]
    assert ((table["final_stenosis_pct"] == -98) == (table["etici_final"] == "0")).all()


def test_scan_is_before_puncture_and_hours_fit(pool):
    latents, table = pool
    scan = pd.to_datetime(table["scan_datetime"])
    puncture = pd.to_datetime(table["puncture_datetime"])
    assert (scan < puncture).all()
    assert (scan.dt.year == table["admit_year"]).all()
    assert table["admit_year"].between(2017, 2023).all()
    working = (puncture.dt.day_of_week < 5) & puncture.dt.hour.between(8, 17)
    assert (working == (latents["off_hours"] == 0)).all()


def test_study_has_the_papers_counts(study):
    latents, _, split = study
    counts = latents["rlvo"].groupby(split["partition"]).agg(["size", "sum"])
    assert counts.loc["train"].tolist() == [481, 77]
    assert counts.loc["test"].tolist() == [118, 16]


@settings(max_examples=25, deadline=None)
@given(st.integers(patients.MIN_PATIENTS, 400))
def test_any_size_keeps_events_in_every_fold_and_part(n):
    (train, events), (test, test_events) = patients.study_counts(n)
    assert train + test == n
    assert events >= 4
    assert test_events >= 1
    assert events <= train / 2 and test_events <= test / 2


@pytest.mark.parametrize("n", [20, 61, 599])
def test_folds_are_even_in_size_and_events(n):
    latents, _, split = patients.select(n, 3)
    folds = latents["rlvo"].groupby(split["fold"]).agg(["size", "sum"]).drop(index="")
    assert folds.index.tolist() == ["1", "2", "3", "4"]
    assert folds["size"].max() - folds["size"].min() <= 1
    assert folds["sum"].max() - folds["sum"].min() <= 1


def test_label_is_recomputed_from_the_raw_outcomes(study):
    latents, table, _ = study
    stenosis = table["final_stenosis_pct"].to_numpy()
    derived = patients.label(table["etici_final"].to_numpy(), stenosis, table["rescue_type"])
    assert (derived.astype(int) == latents["rlvo"]).all()
    assert derived.sum() == 93


def test_neither_order_nor_identifier_tells_the_label():
    scores = []
    for seed in range(12):
        latents, table, split = patients.select(599, seed)
        assert table["participant_id"].tolist() == split["participant_id"].tolist()
        assert table["participant_id"].is_monotonic_increasing
        scores.append(auc(latents["rlvo"].to_numpy(), np.arange(599.0)))
    # One cohort's AUC has a standard error of 0.033; the mean of twelve 0.0095.
    assert np.mean(scores) == pytest.approx(0.5, abs=0.03)
    assert np.std(scores) < 0.06


def test_same_seed_same_patients_other_seed_others():
    first, again, other = (patients.select(40, seed)[1] for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(first, again)
    assert not first["age"].equals(other["age"])


@pytest.mark.parametrize("n", [0, 1, 19])
def test_too_few_patients_are_refused(n):
    with pytest.raises(InputError, match=f"patients is {n}; allowed: 20 or more"):
        patients.select(n, 1)


def test_nobody_cannot_be_drawn():
    with pytest.raises(InputError, match="n is 0; allowed: 1 or more"):
        patients.draw(0, np.random.default_rng(1))
    latents, table = patients.draw(1, np.random.default_rng(1))
    assert len(latents) == len(table) == 1


@pytest.mark.parametrize(
    ("n", "prevalence", "test", "expected"),
    [(599, None, None, {"train": (481, 77), "test": (118, 16)}),
     (599, 0.5, None, {"train": (481, 240), "test": (118, 59)}),
     (2481, None, 2000, {"train": (481, 77), "test": (2000, 271)}),
     (2481, 0.5, 2000, {"train": (481, 240), "test": (2000, 1000)}),
     (400, 0.9, 100, {"train": (300, 270), "test": (100, 90)})],
)  # fmt: skip
def test_prevalence_and_test_part_are_exact(n, prevalence, test, expected):
    latents, table, split = patients.select(n, 4, prevalence=prevalence, test=test)
    counts = latents["rlvo"].groupby(split["partition"]).agg(["size", "sum"])
    assert {
        part: tuple(row) for part, row in zip(counts.index, counts.to_numpy(), strict=True)
    } == expected
    assert latents.drop(columns="participant_id").drop_duplicates().shape[0] == n
    folds = latents["rlvo"].groupby(split["fold"]).agg(["size", "sum"]).drop(index="")
    assert (folds["sum"] > 0).all() and (folds["sum"] < folds["size"]).all()
    assert len(table) == n


@pytest.mark.parametrize("share", ["low", "high"])
def test_the_named_range_of_prevalence_can_be_met_and_no_more(share):
    low, high = 0.25, 0.75  # 20 patients: 16 to train in four folds, 4 to test
    edge, beyond = (low, low - 0.01) if share == "low" else (high, high + 0.01)
    latents, _, split = patients.select(20, 1, prevalence=edge)
    groups = latents["rlvo"].groupby(split["fold"])
    assert (groups.sum() > 0).all() and (groups.sum() < groups.size()).all()
    message = r"allowed with 16 training and 4 test patients: 0\.25 to 0\.75"
    with pytest.raises(InputError, match=message):
        patients.select(20, 1, prevalence=beyond)


@pytest.mark.parametrize("prevalence", [-0.1, 0.0, 1.0, float("nan")])
def test_impossible_prevalence_is_refused(prevalence):
    with pytest.raises(InputError, match=r"prevalence is .*; allowed with 481 training"):
        patients.select(599, 1, prevalence=prevalence)


@pytest.mark.parametrize("test", [0, 1, 593, 600])
def test_impossible_test_part_is_refused(test):
    with pytest.raises(InputError, match=f"test is {test}; allowed with 599 patients: 2 to 591"):
        patients.select(599, 1, test=test)


def test_identifiers_grow_only_beyond_9999():
    assert patients.select(9999, 1)[1]["participant_id"].iloc[[0, -1]].tolist() == [
        "sub-0001",
        "sub-9999",
    ]
    assert patients.select(10_000, 1)[1]["participant_id"].iloc[[0, -1]].tolist() == [
        "sub-00001",
        "sub-10000",
    ]


def test_a_hundred_thousand_patients_take_seconds():
    start = time.process_time()
    patients.draw(100_000, np.random.default_rng(1))
    patients.select(100_000, 1)
    assert time.process_time() - start < 20  # about 2 on one core


def test_table_has_the_dictionarys_columns(study):
    from rlvo_lib import config, dictionary

    known = dictionary.load(config.load_study("rlvo").dictionary_path)
    assert all(name in known for name in study[1].columns)
    assert set(recording.ORDER) <= set(study[1].columns)
