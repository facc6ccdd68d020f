"""Curves with bands, decision curves, calibration and subgroups, by the data they hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_figures import draw, legend_texts

from rlvo_lib import figures
from rlvo_lib.config import InputError

LABELS = {"daft": "DAFT", "imaging": "Imaging"}


@pytest.fixture(autouse=True)
def no_global_state():
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def performance():
    return pd.DataFrame({
        "arm": ["imaging", "daft", "daft"], "metric": ["auc", "auc", "average_precision"],
        "ensemble": [0.52, 0.72, 0.41], "low": [0.4, 0.6, 0.3], "high": [0.65, 0.8, 0.5],
    })  # fmt: skip


@pytest.fixture
def roc():
    return pd.DataFrame({
        "arm": ["daft"] * 3 + ["imaging"] * 2, "seed": 0, "fpr": [0, 0.2, 1, 0, 1],
        "tpr": [0, 0.9, 1, 0, 1],
    })  # fmt: skip


@pytest.fixture
def band():
    rows = [(arm, x, x, max(x - 0.1, 0), min(x + 0.2, 1)) for arm in ("daft", "imaging") for x in (0, 0.5, 1)]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "fpr", "tpr", "low", "high"])


def panels(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


def filled(axis):
    """The corners of the band that an axis is filled with."""
    (region,) = axis.collections
    return {tuple(point) for point in region.get_paths()[0].vertices.round(6)}


def in_front(axis, colour):
    (line,) = [line for line in axis.lines if line.get_color() == colour]
    return line.get_xydata()


def test_each_roc_curve_has_a_panel_with_its_band(roc, band, performance):
    figure = draw(figures.roc_curves(roc, band=band, performance=performance, labels=LABELS))
    first, second = panels(figure)
    assert first.get_title() == "DAFT\nAUC 0.72 [0.60, 0.80]"
    np.testing.assert_array_equal(in_front(first, figures.COLOURS[0]), [[0, 0], [0.2, 0.9], [1, 1]])
    assert {(0.5, 0.4), (0.5, 0.7), (1.0, 0.9)} <= filled(first)
    np.testing.assert_array_equal(in_front(second, figures.COLOURS[1]), [[0, 0], [1, 1]])
    behind = [line for line in second.lines if line.get_label() == "the other arms"]
    np.testing.assert_array_equal(behind[0].get_xydata(), [[0, 0], [0.2, 0.9], [1, 1]])
    assert legend_texts(figure) == [
        "the other arms", "95 % band over patients, pointwise", "no skill",
    ]  # fmt: skip
    with pytest.raises(InputError, match="no column 'low'"):
        figures.roc_curves(roc, band=band.drop(columns="low"))


def test_of_several_seeds_the_mean_curve_is_drawn(roc, band):
    both = pd.concat([roc, roc.assign(seed=1)])
    axis = panels(figures.roc_curves(both, band=band, arms=["daft"]))[0]
    np.testing.assert_array_equal(in_front(axis, figures.COLOURS[0]), [[0, 0], [0.5, 0.5], [1, 1]])


def test_the_legend_stands_between_stamp_and_panels(roc, band):
    figure = figures.stamp(figures.roc_curves(roc, band=band, labels=LABELS))
    draw(figure)
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 < figure.texts[-1].get_window_extent().y0
    assert all(axis.get_tightbbox().y1 < legend.y0 for axis in panels(figure))
    assert legend.x0 > 0 and legend.x1 < figure.bbox.width


def test_precision_recall_curves_start_at_the_first_precision(performance):
    points = pd.DataFrame({
        "arm": "daft", "seed": 0, "threshold": [np.nan, 0.8, 0.5, 0.2], "recall": [0, 0.5, 0.5, 1],
        "precision": [1.0, 0.6, 0.4, 0.25], "prevalence": 0.25,
    })  # fmt: skip
    figure = draw(figures.precision_recall_curves(points, performance=performance, labels=LABELS))
    (axis,) = panels(figure)
    curve, prevalence = axis.lines
    np.testing.assert_array_equal(curve.get_xydata(), [[0, 0.6], [0.5, 0.6], [0.5, 0.4], [1, 0.25]])
    assert curve.get_drawstyle() == "steps-pre"  # the area below is the average precision
    assert set(prevalence.get_ydata()) == {0.25}
    assert axis.get_title() == "DAFT\naverage precision 0.41 [0.30, 0.50]"
    assert legend_texts(figure) == ["no skill: prevalence"]


def test_decision_curves_stand_beside_treating_everyone_and_nobody():
    table = pd.DataFrame({
        "arm": ["daft"] * 3 + ["imaging"] * 3, "threshold": [0.05, 0.2, 0.4] * 2,
        "net_benefit": [0.1, 0.05, 0.0, 0.1, -0.02, 0.0], "low": [0.0, -0.1, 0.0] * 2,
        "high": [0.2, 0.1, 0.0] * 2, "treat_all": [0.1, -0.1, -0.5] * 2, "treat_none": 0.0,
    })  # fmt: skip
    figure = draw(figures.decision_curves(table, labels=LABELS))
    first, second = panels(figure)
    assert [axis.get_title() for axis in (first, second)] == ["DAFT", "Imaging"]
    np.testing.assert_array_equal(in_front(first, figures.COLOURS[0])[:, 1], [0.1, 0.05, 0.0])
    by_label = {line.get_label(): line for line in second.lines}
    assert by_label["treat everyone"].get_ydata().tolist() == [0.1, -0.1, -0.5]
    assert by_label["treat nobody"].get_ydata().tolist() == [0, 0, 0]
    assert by_label["the other arms"].get_ydata().tolist() == [0.1, 0.05, 0.0]
    assert {(0.2, -0.1), (0.2, 0.1)} <= filled(first)
    assert first.get_xlim() == (0.05, 0.4)
    low, high = first.get_ylim()
    assert high > 0.2 and -0.1 < low < 0  # far below 0 nothing is shown
    assert "5 %" not in [t.get_text() for t in first.get_xticklabels()]
    with pytest.raises(InputError, match="no column 'treat_all'"):
        figures.decision_curves(table.drop(columns="treat_all"))


@pytest.fixture
def points():
    return pd.DataFrame({
        "arm": ["daft", "daft", "imaging"], "seed": 0, "predicted": [0.1, 0.3, 0.2],
        "observed": [0.0, 0.4, 0.2], "low": [0.0, 0.2, 0.1], "high": [0.2, 0.6, 0.4],
    })  # fmt: skip


def test_calibration_shows_curve_groups_and_the_distribution(points):
    curve = pd.DataFrame({
        "arm": "daft", "seed": 0, "predicted": [0.05, 0.35], "observed": [0.02, 0.45],
        "low": [0.0, 0.3], "high": [0.1, 0.6],
    })  # fmt: skip
    risk = pd.DataFrame({
        "arm": ["daft"] * 4 + ["imaging"] * 2, "y_true": [1, 0, 0, 0, 1, 0],
        "probability": [0.3, 0.1, 0.1, 0.2, 0.5, 0.4],
    })  # fmt: skip
    table = pd.DataFrame({"arm": ["daft"], "o_to_e": [0.84], "slope": [0.9], "ici": [0.0731]})
    figure = draw(figures.calibration_plot(
        points, curve=curve, risk=risk, calibration=table, labels=LABELS,
        outcome_names=("recanalised", "refractory"),
    ))  # fmt: skip
    upper, other, lower, last = panels(figure)
    assert upper.get_title() == "DAFT\nO:E 0.84, slope 0.90, ICI 0.073"
    assert other.get_title() == "Imaging"
    np.testing.assert_array_equal(upper.containers[0][0].get_xydata(), [[0.1, 0.0], [0.3, 0.4]])
    smooth = {line.get_label(): line for line in upper.lines}["smoothed"]
    np.testing.assert_array_equal(smooth.get_xydata(), [[0.05, 0.02], [0.35, 0.45]])
    ends = [region for region in upper.collections if region.get_label() == "its 95 % band"]
    assert {(0.35, 0.3), (0.35, 0.6)} <= {
        tuple(v) for v in ends[0].get_paths()[0].vertices.round(6)
    }
    # upwards the patients with the outcome, downwards those without: each adds to one
    heights = np.array([bar.get_height() for bar in lower.patches])
    assert heights[heights > 0].sum() == pytest.approx(1)
    assert sorted(heights[heights < 0]) == pytest.approx([-2 / 3, -1 / 3])
    assert upper.get_xlim() == lower.get_xlim() == upper.get_ylim() and lower.get_xlim()[1] >= 0.6
    assert {"recanalised", "refractory", "smoothed"} <= set(legend_texts(figure))
    # one below the other: the same risk is at the same place
    assert upper.get_position().x0 == pytest.approx(lower.get_position().x0)
    assert upper.get_position().x1 == pytest.approx(lower.get_position().x1)
    assert len(last.patches) > 0


def test_several_seeds_have_curves_without_bands(points):
    curve = pd.DataFrame({
        "arm": "daft", "seed": [0, 0, 1, 1], "predicted": [0.1, 0.3] * 2, "observed": [0.1, 0.3] * 2,
        "low": 0.0, "high": 0.4,
    })  # fmt: skip
    axis = panels(draw(figures.calibration_plot(points, curve=curve, arms=["daft"])))[0]
    assert [line.get_label() for line in axis.lines].count("smoothed") == 2
    assert "its 95 % band" not in [region.get_label() for region in axis.collections]


@pytest.fixture
def strata():
    rows = [
        ("all", "All patients", "all", 100, 40, 0.6, 0.5, 0.7, np.nan, np.nan, ""),
        ("sex", "Sex", "female", 60, 25, 0.65, 0.5, 0.8, 0.25, 0.5, ""),
        ("sex", "Sex", "male", 35, 12, 0.5, 0.3, 0.7, 0.25, 0.5, ""),
        ("sex", "Sex", "missing", 5, 3, np.nan, np.nan, np.nan, np.nan, np.nan, "no value: in no stratum"),
        ("site", "Site", "M2", 20, 4, np.nan, np.nan, np.nan, np.nan, np.nan, "not estimable: 4 events, fewer than 10"),
        ("year", "Year", "", 0, 0, np.nan, np.nan, np.nan, np.nan, np.nan, "column 'admit_year' is not in this dataset"),
    ]  # fmt: skip
    columns = ["subgroup", "text", "stratum", "n", "events", "auc", "low", "high", "p_interaction",
               "p_holm", "reason"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    return pd.concat(
        [frame.assign(arm="daft"), frame.assign(arm="imaging", auc=frame["auc"] - 0.05)]
    )


def test_subgroups_stand_beside_all_patients(strata):
    figure = draw(figures.subgroup_forest(strata, labels=LABELS))
    first, second = panels(figure)
    assert [axis.get_title() for axis in (first, second)] == ["DAFT", "Imaging"]
    names = [t.get_text() for t in first.get_yticklabels()]
    assert names == [
        "All patients (100; 40)", "Sex", "female (60; 25)", "male (35; 12)", "missing (5; 3)",
        "Site", "M2 (20; 4)", "Year",
    ]  # fmt: skip
    places = dict(zip(names, first.get_yticks(), strict=True))
    assert (np.diff(first.get_yticks()) < 0).all()
    drawn = first.containers[0]
    assert drawn[0].get_xdata().tolist() == [0.6, 0.65, 0.5]
    assert drawn[0].get_ydata().tolist() == [
        places["All patients (100; 40)"], places["female (60; 25)"], places["male (35; 12)"],
    ]  # fmt: skip
    limits = [segment[:, 0].tolist() for segment in drawn[2][0].get_segments()]
    np.testing.assert_allclose(limits, [[0.5, 0.7], [0.5, 0.8], [0.3, 0.7]])
    said = {t.get_position()[1]: t.get_text() for t in first.texts}
    assert said == {
        places["missing (5; 3)"]: "not judged", places["M2 (20; 4)"]: "not estimable",
        places["Year"]: "not judged", places["Sex"]: "heterogeneity: p 0.25 (Holm 0.50)",
    }  # fmt: skip
    assert second.containers[0][0].get_xdata().tolist() == pytest.approx([0.55, 0.6, 0.45])
    labels = [t.get_window_extent() for t in first.get_yticklabels()]
    assert all(box.x0 > 0 for box in labels)  # none is cut off
    with pytest.raises(InputError, match="no column 'p_holm'"):
        figures.subgroup_forest(strata.drop(columns="p_holm"))


def test_risks_are_drawn_where_they_lie():
    frame = pd.DataFrame({"arm": "daft", "y_true": [0, 0, 1], "probability": [0.1, 0.2, 0.3]})
    low, high = draw(figures.risk_by_outcome(frame)).axes[0].get_xlim()
    assert 0.05 < low < 0.1 and 0.3 < high < 0.35


def test_the_words_of_a_single_panel_fit(roc, band, performance):
    one = [frame[frame["arm"] == "daft"] for frame in (roc, band, performance)]
    figure = draw(figures.roc_curves(one[0], band=one[1], performance=one[2], labels=LABELS))
    figure.canvas.draw()
    words = [figure.legends[0], *(text for text in figure.texts if text.get_text())]
    assert len(words) > 1
    for item in words:
        box = item.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
