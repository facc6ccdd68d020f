import numpy as np
import pandas as pd
import pytest

from rlvo_lib.config import InputError
from rlvo_lib.tabular import RARE_SD, TabularEncoder

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
    assert matrix[:, 1].tolist() == [0, 0, 0, 1]  # an indicator keeps its scale
    sex = np.array([0, 1, 1, 1])  # missing takes the most frequent
    assert matrix[:, 2] == pytest.approx((sex - 0.75) / np.std(sex))
    assert matrix[2, 3:] == pytest.approx([-1, -((0.25 / 0.75) ** 0.5), (0.75 / 0.25) ** 0.5])


def test_a_rare_code_is_not_blown_up(words):
    table = pd.DataFrame({"sex": ["0"] * 99 + ["1"]})
    matrix = TabularEncoder(("sex",), words).fit(table).transform(table)
    assert matrix.max() == pytest.approx(0.99 / RARE_SD)
    assert matrix.mean() == pytest.approx(0, abs=1e-6)


def test_an_indicator_that_repeats_another_is_zero_for_everybody(words):
    table = pd.DataFrame(
        {
            "core_ml": [1.0, 2, np.nan, 4],
            "tmax6_ml": [9.0, 5, np.nan, 7],
            "age": [60.0, np.nan, 70, 80],
        }
    )
    encoder = TabularEncoder(tuple(table), words).fit(table)
    others = table.assign(tmax6_ml=np.nan)
    matrix = pd.DataFrame(encoder.transform(others), columns=encoder.names)
    assert matrix["missingindicator_core_ml"].tolist() == [0, 0, 1, 0]
    assert matrix["missingindicator_tmax6_ml"].tolist() == [0, 0, 0, 0]
    assert matrix["missingindicator_age"].tolist() == [0, 1, 0, 0]


def test_only_the_training_part_is_learnt_from(table, words):
    fitted = TabularEncoder(COLUMNS, words).fit(table.iloc[:2])
    others = table.iloc[2:].assign(age=[1000.0, -1000.0])
    scale = fitted.transform(table.iloc[:2])
    fitted.transform(others)
    assert (fitted.transform(table.iloc[:2]) == scale).all()
    assert fitted.transform(others)[0, 0] == pytest.approx((1000 - 65) / 5)


@pytest.mark.parametrize("column", ["age", "sex", "hir"])
def test_a_column_without_any_value_is_zero_and_does_not_break_it(table, words, column):
    table["hir"] = [0.1, 0.2, 0.3, 0.6]
    table[column] = np.nan
    encoder = TabularEncoder((*COLUMNS, "hir"), words).fit(table)
    matrix = pd.DataFrame(encoder.transform(table), columns=encoder.names)
    assert np.isfinite(matrix).all(axis=None)
    own = [name for name in matrix if name.split("_")[0] == column]
    assert own and (matrix[own] == 0).all(axis=None)
    assert (matrix.drop(columns=own) != 0).any(axis=None)


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
