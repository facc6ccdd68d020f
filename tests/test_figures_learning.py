"""Drawn data of learning curves and ablations."""

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import figures
from rlvo_lib.config import InputError


@pytest.fixture
def table():
    rows = [
        ("base", "base", "daft", 360, 0.70, 0.62, 0.77, np.nan, np.nan, np.nan),
        ("modalities", "without_cta", "daft", 360, 0.64, 0.55, 0.72, -0.06, -0.11, -0.01),
        ("modalities", "only_cta", "daft", 360, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan),
        ("fusion", "film", "daft", 360, 0.69, np.nan, np.nan, -0.01, -0.03, 0.01),
        ("base", "base", "concepts", 360, 0.66, 0.58, 0.74, np.nan, np.nan, np.nan),
        ("patients", "share_50", "daft", 180, 0.60, 0.50, 0.69, -0.10, -0.15, -0.05),
        ("patients", "share_25", "daft", 90, 0.55, 0.45, 0.65, -0.15, -0.20, -0.1),
        ("patients", "share_50", "concepts", 180, 0.63, 0.55, 0.71, -0.03, -0.06, 0.01),
    ]
    names = [
        "group", "variant", "arm", "n_train", "auc", "low", "high", "difference",
        "difference_low", "difference_high",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def _drawn(axis):
    """Points (x, y) of each error bar of an axes."""
    return [bar[0].get_xydata() for bar in axis.containers]


def test_the_learning_curve_rises_with_the_patients_and_ends_with_all_of_them(table):
    figure = figures.learning_curve(table, labels={"daft": "DAFT"})
    figure.canvas.draw()
    axis = figure.axes[0]
    daft, concepts = _drawn(axis)
    np.testing.assert_allclose(daft[:, 1], [0.55, 0.60, 0.70])
    np.testing.assert_allclose(daft[:, 0], [90, 180, 360], atol=2)
    np.testing.assert_allclose(concepts[:, 1], [0.63, 0.66])
    assert (daft[1:, 0] < concepts[:, 0]).all()  # beside each other, not over
    bars = axis.containers[0][2][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 1], [0.45, 0.65])
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["no skill (0.50)", "DAFT", "concepts"]


def test_the_forest_shows_each_variant_and_its_difference(table):
    figure = figures.ablation_forest(table, labels={"daft": "DAFT"})
    figure.canvas.draw()
    left, right = figure.axes
    words = [text.get_text() for text in left.get_yticklabels()]
    assert words == ["DAFT", "modalities: without cta", "fusion: film"]
    np.testing.assert_allclose(_drawn(left)[0][:, 0], [0.70, 0.64, 0.69])
    np.testing.assert_allclose(_drawn(right)[0][:, 0], [np.nan, -0.06, -0.01])
    assert left.lines[0].get_xdata()[0] == 0.70  # the unchanged arm, as a line
    bars = right.containers[0][2][0].get_segments()
    np.testing.assert_allclose(bars[1][:, 0], [-0.11, -0.01])


@pytest.fixture
def grown():
    """Points of two arms, and bands of both and of their difference."""
    rows = [
        (arm, n, auc, auc - 0.05, auc + 0.05)
        for arm, aucs in (("daft", (0.6, 0.7, 0.75)), ("concat", (0.55, 0.6, 0.7)))
        for n, auc in zip((60, 120, 240), aucs, strict=True)
    ]
    points = pd.DataFrame(rows, columns=["arm", "n_train", "auc", "low", "high"])
    sizes = np.array([60, 120, 240, 600, 4000.0])
    bands = [
        pd.DataFrame({
            "arm": arm, "minus": minus, "n_train": sizes, "reach": sizes / 240,
            "value": base + sizes / 1e5, "low": base - 0.05, "high": base + 0.1,
        })
        for arm, minus, base in (("daft", "", 0.7), ("concat", "", 0.6), ("daft", "concat", 0.1))
    ]  # fmt: skip
    return points, pd.concat(bands, ignore_index=True)


def test_an_extrapolated_curve_is_dashed_beyond_what_was_measured(grown):
    figure = figures.learning_curve_extrapolated(*grown, labels={"daft": "DAFT"})
    figure.canvas.draw()
    top, bottom = figure.axes
    lines = [line for line in top.lines if len(line.get_xdata()) == 3]  # not the verticals
    solid = [line for line in lines if line.get_linestyle() == "-"]
    dashed = [line for line in lines if line.get_linestyle() == "--"]
    assert [line.get_xdata().tolist() for line in solid] == [[60, 120, 240]] * 2
    assert [line.get_xdata().tolist() for line in dashed] == [[240, 600, 4000]] * 2
    np.testing.assert_allclose(solid[0].get_ydata(), 0.7 + np.array([60, 120, 240]) / 1e5)
    bars = [bar[0].get_xydata() for bar in top.containers]
    np.testing.assert_allclose(bars[0][:, 1], [0.6, 0.7, 0.75])
    band = top.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.65, 0.8))
    words = [text.get_text() for text in top.get_legend().get_texts()]
    assert words == ["DAFT", "concat"]
    assert [t.get_text() for t in bottom.get_legend().get_texts()] == ["DAFT − concat"]
    assert bottom.get_xscale() == "log"


def test_what_lies_beyond_ten_times_the_measured_is_shaded(grown):
    points, bands = grown
    far = figures.learning_curve_extrapolated(points, bands).axes[0]
    near = figures.learning_curve_extrapolated(points, bands[bands["n_train"] < 2400]).axes[0]
    shades = [[p.get_x() for p in axis.patches] for axis in (far, near)]
    assert shades == [[2400.0], []]


def test_a_single_arm_has_one_panel_and_files_read_back_draw_the_same(grown, tmp_path):
    points, bands = grown
    alone = figures.learning_curve_extrapolated(points, bands, arms=["daft"])
    assert len(alone.axes) == 1
    bands.to_csv(tmp_path / "bands.csv", index=False)
    again = figures.learning_curve_extrapolated(points, pd.read_csv(tmp_path / "bands.csv"))
    assert len(again.axes) == 2
    with pytest.raises(InputError, match="the bands hold none of the arms daft"):
        figures.learning_curve_extrapolated(points, bands[bands["arm"] != "daft"], arms=["daft"])


def test_tables_without_what_is_drawn_are_refused(table):
    with pytest.raises(InputError, match="no rows of group 'patients'"):
        figures.learning_curve(table[table["group"] != "patients"])
    with pytest.raises(InputError, match="no variants of arm 'concepts'"):
        figures.ablation_forest(table, arm="concepts")
    with pytest.raises(InputError, match="no column 'n_train'"):
        figures.learning_curve(table.drop(columns="n_train"))
