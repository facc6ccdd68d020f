"""Arms made of other arms' probabilities, and recalibration: known answers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import experiment, metrics
from rlvo_lib.config import Arm


def _logit(p):
    return np.log(p / (1 - p))


@pytest.fixture(scope="module")
def made():
    """Arms: one that tells the outcome, one that tells nothing, one that is wrong; four folds."""
    rng = np.random.default_rng(0)
    rows = []
    y = pd.Series(rng.integers(0, 2, 120), [f"sub-{i:03d}" for i in range(120)])
    fold = pd.Series(np.arange(120) % 4 + 1, y.index)
    for patient in y.index:
        test = patient >= "sub-080"
        for number in range(1, 5) if test else [fold[patient]]:
            score = rng.normal(1.5 * (2 * y[patient] - 1), 1)
            for arm, value in (
                ("tells", 0.7 * score - 1), ("nothing", rng.normal()), ("wrong", -score),
            ):  # fmt: skip
                part = "test" if test else "out-of-fold"
                p = 1 / (1 + np.exp(-value))
                rows.append((patient, part, arm, 0, number, y[patient], p))
    return pd.DataFrame(rows, columns=experiment.PREDICTION_COLUMNS)


def _flipped(frame, rows):
    return frame.assign(y_true=np.where(rows, 1 - frame["y_true"], frame["y_true"]))


STACK = Arm("stacked", "", "stack", of=("tells", "nothing"))


def test_a_stack_of_a_fold_does_not_know_the_outcomes_of_that_fold_or_of_the_test_set(made):
    def stacked(frame):
        found = experiment.stack_arms(frame, STACK)
        return found.set_index(["participant_id", "partition", "fold"])["probability"]

    before = stacked(made)
    assert len(before) == 80 + 40 * 4
    after = stacked(_flipped(made, (made["fold"] == 2) & (made["partition"] == "out-of-fold")))
    fold = before.index.get_level_values("fold")
    assert before[fold == 2].equals(after[fold == 2])
    assert (before[fold != 2] != after[fold != 2]).all()
    assert before.equals(stacked(_flipped(made, made["partition"] == "test")))


def test_a_stack_keeps_the_columns_and_ranks_well(made):
    found = experiment.stack_arms(made, STACK)
    assert list(found.columns) == experiment.PREDICTION_COLUMNS and set(found["arm"]) == {"stacked"}
    held = found[found["partition"] == "out-of-fold"]
    assert metrics.auc(held["y_true"].to_numpy(), held["probability"].to_numpy()) > 0.85
    missing = made.drop(made.index[(made["arm"] == "nothing") & (made["fold"] == 1)][0])
    assert len(experiment.stack_arms(missing, STACK)) == len(found) - 1
    assert experiment.stack_arms(made[made["arm"] == "wrong"], STACK).empty


def test_recalibrated_probabilities_have_the_prevalence_and_the_ranks_they_had(made):
    found, table = experiment.recalibrated(made)
    pd.testing.assert_frame_equal(
        found.drop(columns="probability"), made.drop(columns="probability")
    )
    held = found[found["partition"] == "out-of-fold"]
    means = held.groupby("arm")[["probability", "y_true"]].mean()
    np.testing.assert_allclose(means["probability"], means["y_true"], atol=1e-6)
    for arm, part in found.groupby("arm"):
        before = made.loc[part.index, "probability"]
        assert (part["probability"].rank() == before.rank()).all(), arm
    table = table.set_index("arm")
    assert table.loc["tells", "slope"] > 1 > table.loc["wrong", "slope"] > 0
    assert (table["n"] == 80).all()


def test_the_test_set_is_recalibrated_by_the_out_of_fold_fit(made):
    found, table = experiment.recalibrated(made)
    for row in table.itertuples():
        part = made[made["arm"] == row.arm]
        expected = row.intercept + row.slope * _logit(part["probability"])
        np.testing.assert_allclose(
            _logit(found.loc[part.index, "probability"]), expected, atol=1e-9
        )
    other, _ = experiment.recalibrated(_flipped(made, made["partition"] == "test"))
    assert other["probability"].equals(found["probability"])


def test_recalibrating_twice_changes_nothing_and_certainty_stays_finite(made):
    tells = made[made["arm"] == "tells"]
    once = experiment.recalibrated(tells)[0]
    again, table = experiment.recalibrated(once)
    assert table.loc[0, ["intercept", "slope"]].tolist() == pytest.approx([0, 1], abs=1e-4)
    np.testing.assert_allclose(again["probability"], once["probability"], atol=1e-4)
    sure = tells.assign(probability=tells["probability"].round())
    assert np.isfinite(experiment.recalibrated(sure)[0]["probability"]).all()


def test_the_setting_recalibrates_what_a_run_returns(analysis, tensors):
    plain = experiment.run_arms(analysis, tensors, ["clinical_logistic"])
    settings = dataclasses.replace(analysis.settings, recalibrate=True)
    changed = dataclasses.replace(analysis, settings=settings)
    pd.testing.assert_frame_equal(
        experiment.run_arms(changed, tensors, ["clinical_logistic"]),
        experiment.recalibrated(plain)[0],
    )
