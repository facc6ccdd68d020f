"""Figures of clinical variables, tested by the data they hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rlvo_lib import figures
from rlvo_lib.config import InputError

LABELS = {"age": "Age (y)", "sex": "Sex"}


@pytest.fixture(autouse=True)
def no_global_state():
    """No figure is left behind in pyplot."""
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def shap():
    """Three patients, two variables; the sex of one is missing."""
    return pd.DataFrame({
        "participant_id": ["sub-1", "sub-1", "sub-2", "sub-2", "sub-3", "sub-3"], "arm": "daft",
        "variable": ["age", "sex"] * 3, "value": [50.0, 0, 60, 1, 70, np.nan],
        "shap": [-0.2, 0.1, 0.0, -0.1, 0.3, 0.05], "base": -1.0, "logit": [-1.1, -1.1, -1.1, -1.1, -0.65, -0.65],
    })  # fmt: skip


def draw(figure):
    figure.canvas.draw()
    return figure


def tick_texts(axis):
    return [text.get_text() for text in axis.get_yticklabels()]


def test_bars_of_groups_are_those_of_variables_by_another_column():
    groups = pd.DataFrame({"arm": "daft", "group": ["History", "Demographics"]})
    groups = groups.assign(mean_abs_shap=[0.4, 0.1], low=[0.3, 0.05], high=[0.6, 0.2])
    axis = draw(figures.shap_bars(groups, variable="group")).axes[0]
    assert tick_texts(axis) == ["Demographics", "History"]
    assert [bar.get_width() for bar in axis.patches] == [0.1, 0.4]
    ends = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
    np.testing.assert_allclose(ends, [[0.05, 0.2], [0.3, 0.6]])


def test_a_figure_is_of_one_arm(shap):
    both = pd.concat([shap, shap.assign(arm="film")])
    with pytest.raises(InputError, match="the table is of arms daft, film; allowed: one of them"):
        figures.shap_beeswarm(both)


def test_dependence_shows_each_patient_at_its_value(shap):
    y = pd.Series([0, 1, 1], index=["sub-1", "sub-2", "sub-3"])
    figure = draw(
        figures.shap_dependence(
            shap, ["age", "sex"], labels=LABELS, choices={"sex": ["female", "male"]}, y=y
        )
    )
    age, sex = figure.axes
    without, with_it = (c.get_offsets().data for c in age.collections[:2])
    assert without.tolist() == [[50, -0.2]]
    assert with_it.tolist() == [[60, 0.0], [70, 0.3]]
    assert age.get_xlabel() == "Age (y)"
    places = np.concatenate([c.get_offsets().data for c in sex.collections[:2]])
    assert [t.get_text() for t in sex.get_xticklabels()] == ["missing", "female", "male"]
    missing = sex.get_xticks()[0]
    assert missing < -0.3
    near = [np.abs(places[:, 0] - x).min() for x in (missing, 0, 1)]
    assert max(near) < 0.13, "each is at its code, spread a little"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "without the outcome",
        "with it",
    ]
    with pytest.raises(InputError, match="no SHAP values of variable 'bmi'; allowed: age, sex"):
        figures.shap_dependence(shap, ["bmi"])


def test_a_missing_quantity_stands_left_of_the_others(shap):
    gone = shap.assign(value=shap["value"].where(shap["participant_id"] != "sub-1"))
    axis = draw(figures.shap_dependence(gone, ["age"])).axes[0]
    x = axis.collections[0].get_offsets().data[:, 0]
    assert x[0] < 60 and x[1:].tolist() == [60, 70]
    assert [t.get_text() for t in axis.get_xticklabels()][0] == "missing"


def waterfall_rows(n=4):
    shap = np.array([0.5, -0.25, 0.125, 0.0625, -0.03, 0.01])[:n]
    return pd.DataFrame({
        "variable": [f"v{k}" for k in range(n)], "shap": shap, "base": -2.0, "logit": -2.0 + shap.sum(),
        "text": ["71 y", "male", "", "no", "yes", "no"][:n],
    })  # fmt: skip


def test_a_waterfall_leads_from_the_base_to_the_logit():
    axis = draw(figures.shap_waterfall(waterfall_rows(), labels={"v0": "Age"}, title="sub-1")).axes[
        0
    ]
    assert tick_texts(axis) == ["v3: no", "v2", "v1: male", "Age: 71 y"], "the largest on top"
    starts = [bar.get_x() for bar in axis.patches]
    widths = [bar.get_width() for bar in axis.patches]
    assert starts[0] == -2.0
    np.testing.assert_allclose(starts[1:], np.add(starts, widths)[:-1])
    assert starts[-1] + widths[-1] == pytest.approx(-2.0 + 0.4375)
    texts = [text.get_text() for text in axis.texts]
    assert "base -2.00 (11.9 %)" in texts and "this patient -1.56 (17.3 %)" in texts
    assert "-0.25" in texts and "+0.50" in texts
    low, high = axis.get_xlim()
    assert low < -2 and high > -1.5


def test_small_variables_of_a_waterfall_are_one_bar_and_nothing_is_lost():
    rows = waterfall_rows(6)
    axis = draw(figures.shap_waterfall(rows, top=3)).axes[0]
    assert tick_texts(axis)[0] == "3 other variables"
    widths = [bar.get_width() for bar in axis.patches]
    assert len(widths) == 4 and sum(widths) == pytest.approx(rows["shap"].sum())
    whole = draw(figures.shap_waterfall(rows, top=5)).axes[0]
    assert len(whole.patches) == 6, "one variable left over is drawn as itself"


def test_a_waterfall_stands_beside_an_image():
    figure = figures.canvas(9, 4, 1, 2)
    image, beside = figure.axes
    image.imshow(np.zeros((3, 3)))
    assert figures.shap_waterfall(waterfall_rows(), axis=beside) is figure
    draw(figure)
    assert len(beside.patches) == 4 and not image.patches


def test_a_waterfall_is_of_one_patient(shap):
    with pytest.raises(
        InputError, match="a variable stands twice; allowed: the rows of one patient"
    ):
        figures.shap_waterfall(shap)


def test_small_steps_keep_two_digits():
    rows = waterfall_rows(2).assign(shap=[0.0123, -0.004], logit=-2 + 0.0083)
    texts = [t.get_text() for t in draw(figures.shap_waterfall(rows)).axes[0].texts]
    assert "+0.012" in texts and "-0.004" in texts


def test_a_model_that_ignores_its_variables_has_a_waterfall():
    rows = waterfall_rows(2).assign(shap=0.0, logit=-2.0)
    widths = [bar.get_width() for bar in draw(figures.shap_waterfall(rows)).axes[0].patches]
    assert widths == [0.0, 0.0]


def test_permutation_stands_beside_the_mean_shap_value():
    table = pd.DataFrame({
        "arm": "daft", "variable": ["age", "sex"], "auc_drop": [0.06, -0.01], "low": [0.01, -0.04],
        "high": [0.12, 0.02], "mean_abs_shap": [0.3, np.nan],
    })  # fmt: skip
    falls, sizes = draw(figures.permutation_bars(table, labels=LABELS)).axes
    assert tick_texts(falls) == ["Sex", "Age (y)"]
    assert falls.lines[0].get_xdata()[0] == 0, "the no-skill line"
    points = falls.containers[0]
    assert points[0].get_xdata().tolist() == [-0.01, 0.06]
    np.testing.assert_allclose(points[2][0].get_segments()[1][:, 0], [0.01, 0.12])
    assert sizes.patches[1].get_width() == 0.3


def test_agreement_is_a_symmetric_matrix_with_its_numbers():
    table = pd.DataFrame({
        "between": ["arms"] * 3 + ["folds"], "first": ["a", "a", "b", "a, fold 1"],
        "second": ["b", "c", "c", "a, fold 2"], "rho": [0.9, -0.2, np.nan, 0.5], "patients_rho": [0.1, 0.2, 0.3, 0.4],
    })  # fmt: skip
    axis = draw(figures.agreement_heatmap(table, labels={"a": "DAFT"})).axes[0]
    shown = axis.images[0].get_array().filled(np.nan)
    np.testing.assert_array_equal(shown, shown.T)
    assert shown[0, 1] == 0.9 and np.isnan(shown[1, 2])
    assert [t.get_text() for t in axis.texts] == [
        "",
        "0.90",
        "-0.20",
        "0.90",
        "",
        "–",
        "-0.20",
        "–",
        "",
    ]
    assert tick_texts(axis) == ["DAFT", "b", "c"]
    folds = draw(figures.agreement_heatmap(table, between="folds", value="patients_rho")).axes[0]
    assert folds.images[0].get_array()[0, 1] == 0.4
    with pytest.raises(InputError, match="no agreement between seeds; allowed: arms, folds"):
        figures.agreement_heatmap(table, between="seeds")
    with pytest.raises(InputError, match="value is 'p'; allowed: rho, patients_rho"):
        figures.agreement_heatmap(table, value="p")
