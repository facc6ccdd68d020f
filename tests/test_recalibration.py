"""Recalibration in the large: one shift of the logit; what it changes, and what it must not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import make_predictions

from rlvo_lib import metrics, results
from rlvo_lib.config import InputError
from rlvo_lib.results import recalibration


@pytest.fixture(scope="module")
def made():
    predictions = make_predictions(seeds=(0, 1))
    predictions["probability"] = 0.2 * predictions["probability"]  # far too low
    return predictions, results.choose_thresholds(predictions)


def test_a_known_shift():
    # odds of 1 and 3 become a fifth of themselves: logits shifted by -log 5
    p = np.array([0.5, 0.75])
    expected = np.array([1 / 6, 3 / 8])
    assert recalibration.shift_to(p, expected.mean()) == pytest.approx(-np.log(5), abs=1e-9)
    assert recalibration.shifted(p, -np.log(5)) == pytest.approx(expected, abs=1e-12)


@given(
    st.lists(st.floats(0.001, 0.999), min_size=1, max_size=40),
    st.floats(0.02, 0.98),
)
def test_the_mean_becomes_the_prevalence_and_the_order_stays(p, prevalence):
    p = np.array(p)
    moved = recalibration.shifted(p, recalibration.shift_to(p, prevalence))
    assert moved.mean() == pytest.approx(prevalence, abs=1e-9)
    assert (np.diff(moved[np.argsort(p, kind="stable")]) >= 0).all()


def test_certain_probabilities_stay_and_may_make_a_shift_impossible():
    p = np.array([0.0, 1.0, 0.5])
    assert recalibration.shifted(p, 3.0)[:2].tolist() == [0.0, 1.0]
    assert np.isnan(recalibration.shift_to(np.array([1.0, 1.0, 0.5]), 0.1))


@pytest.mark.parametrize("prevalence", [0.0, 1.0])
def test_one_outcome_alone_is_refused(prevalence):
    with pytest.raises(InputError, match="above 0 and below 1"):
        recalibration.shift_to(np.array([0.2, 0.4]), prevalence)


def test_observed_meets_expected_while_auc_and_flagged_patients_stay(made, study):
    predictions, thresholds = made
    table = recalibration.recalibration_table(predictions, thresholds, study, data="simulated")
    assert len(table) == predictions.groupby(["arm", "seed"]).ngroups
    assert (table["o_to_e_before"] > 1.5).all()
    assert table["o_to_e_after"].to_numpy() == pytest.approx(1.0, abs=1e-9)
    assert table["intercept_after"].to_numpy() == pytest.approx(0.0, abs=1e-7)
    assert (table["auc_after"] == table["auc_before"]).all()
    assert (table["flagged_after"] == table["flagged_before"]).all()
    assert table["slope_after"].to_numpy() == pytest.approx(table["slope_before"], rel=1e-6)
    assert table["estimated_on"].str.contains("optimistic").all()
    assert (table["data"] == "simulated").all()


def test_the_same_patients_are_flagged_one_by_one(made, study):
    predictions, thresholds = made
    moved, cuts = recalibration.in_the_large(predictions, thresholds, study)
    before = results.ensembles(predictions, "test").set_index(["arm", "seed", "participant_id"])
    after = moved.set_index(["arm", "seed", "participant_id"])["probability"][before.index]
    old = thresholds.set_index(["arm", "seed"])["threshold"]
    new = cuts.set_index(["arm", "seed"])["threshold"]
    for key, part in before.groupby(["arm", "seed"]):
        flagged = part["probability"] >= old[key]
        assert (flagged == (after[part.index] >= new[key])).all() and flagged.any()
    assert cuts["chosen_on"].str.endswith("shifted with the probabilities").all()
    assert set(moved["fold"]) == {0} and list(moved) == list(predictions)


def test_an_arm_that_no_shift_helps_is_left_as_it_is_and_says_so(study):
    ids = [f"sub-{i}" for i in range(4)]
    frame = pd.DataFrame({"participant_id": ids, "partition": "test", "arm": "ncct", "seed": 0})
    frame = frame.assign(fold=1, y_true=[1, 0, 0, 0], probability=[1.0, 1.0, 1.0, 0.5])
    found = recalibration.shifts(frame, study).iloc[0]
    assert np.isnan(found["shift"]) and "not shifted" in found["reason"]
    cut = pd.DataFrame(
        {"arm": ["ncct"], "seed": 0, "rule": "max-f1", "threshold": 0.9, "chosen_on": "out-of-fold"}
    )
    moved, cuts = recalibration.in_the_large(frame, cut, study)
    assert moved["probability"].tolist() == [1.0, 1.0, 1.0, 0.5]
    assert cuts["threshold"].iloc[0] == pytest.approx(0.9)
    assert metrics.auc(moved["y_true"], moved["probability"]) == pytest.approx(2 / 3)
