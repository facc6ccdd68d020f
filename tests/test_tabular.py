import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from rlvo_lib import tabular
from rlvo_lib.config import InputError
from rlvo_lib.tabular import TabularEncoder

COLUMNS = ("age", "sex", "anticoagulant")


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "age": [60.0, 70.0, 80.0, np.nan],
            "sex": ["0", "1", np.nan, "1"],
            "anticoagulant": ["0", "1", "2", "0"],
        }
    )


def test_known_matrix(table, words):
    encoder = TabularEncoder(COLUMNS, words).fit(table)
    matrix = encoder.transform(table)
    assert encoder.names == [
        "age", "missingindicator_age", "sex_1", "anticoagulant_0", "anticoagulant_1", "anticoagulant_2",
    ]  # fmt: skip
    assert matrix.dtype == np.float32 and matrix.shape == (4, 6)
    assert matrix[1, 0] == matrix[3, 0] == 0  # the median, 70, is also the mean
    assert matrix[:, 2].tolist() == [0, 1, 1, 1]  # sex: missing takes the most frequent
    assert matrix[2, 3:].tolist() == [0, 0, 1]


def test_only_the_training_part_is_learnt_from(table, words):
    fitted = TabularEncoder(COLUMNS, words).fit(table.iloc[:2])
    others = table.iloc[2:].assign(age=[1000.0, -1000.0])
    scale = fitted.transform(table.iloc[:2])
    fitted.transform(others)
    assert (fitted.transform(table.iloc[:2]) == scale).all()
    assert fitted.transform(others)[0, 0] == pytest.approx((1000 - 65) / 5)


def test_a_column_without_any_value_does_not_break_it(table, words):
    table["age"] = np.nan
    assert np.isfinite(TabularEncoder(COLUMNS, words).fit(table).transform(table)).all()


def test_a_ratio_that_does_not_apply_is_switched_off_and_never_filled_in(words):
    table = pd.DataFrame(
        {"mismatch_ratio": [1.0, 3.0, np.nan, 5.0], "age": [60.0, 70.0, 80.0, 90.0]}
    )
    encoder = TabularEncoder(("mismatch_ratio", "age"), words).fit(table)
    assert encoder.names == ["age", "mismatch_ratio", "missingindicator_mismatch_ratio"]
    ratio = encoder.transform(table)[:, 1:]
    assert ratio[:, 1].tolist() == [0, 0, 1, 0]
    assert ratio[2, 0] == 0
    # scaled over those who have one: mean 3, SD of 1, 3, 5
    assert ratio[[0, 1, 3], 0] == pytest.approx(np.array([-2, 0, 2]) / np.std([1, 3, 5]))


def test_columns_of_the_setting_need_the_switch(words):
    with pytest.raises(InputError, match="allow_sensitivity_predictors"):
        TabularEncoder(("age", "admit_year"), words)
    TabularEncoder(("age", "admit_year"), words, allow_sensitivity=True)
    with pytest.raises(InputError, match="n_passes"):
        TabularEncoder(("age", "n_passes"), words, allow_sensitivity=True)


def test_what_did_not_vary_in_training_is_zero_for_everybody(table, words):
    training = table.assign(age=np.nan, sex="1", anticoagulant="0")
    others = table.assign(age=[196.0, 1.0, 2.0, 3.0], sex="0", anticoagulant="2")
    encoder = TabularEncoder(COLUMNS, words).fit(training)
    assert (encoder.transform(others) == 0).all()
    constant = TabularEncoder(("age",), words).fit(table.assign(age=70.0))
    assert (constant.transform(others) == 0).all()


def test_leakage_and_missing_columns_are_refused(table, words):
    with pytest.raises(
        InputError, match="column 'n_passes' cannot be a predictor: its timing is INTRA"
    ):
        TabularEncoder(("age", "n_passes"), words)
    with pytest.raises(InputError, match="predictor column 'sex' is missing"):
        TabularEncoder(COLUMNS, words).fit(table.drop(columns="sex"))


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_baselines_learn_a_strong_signal_and_repeat_themselves(kind):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(400, 5)).astype(np.float32)
    y = (matrix[:, 0] + rng.normal(size=400) > 0).astype(float)
    first, again = (
        tabular.fit_baseline(kind, matrix[:300], y[:300], seed=1).predict_proba(matrix[300:])[:, 1]
        for _ in range(2)
    )
    assert roc_auc_score(y[300:], first) > 0.75
    assert (first == again).all()


def test_unknown_baseline():
    with pytest.raises(
        InputError, match="baseline 'forest' is not known; allowed: logistic, boosting"
    ):
        tabular.fit_baseline("forest", np.zeros((4, 1)), np.array([0, 1, 0, 1]), seed=0)
