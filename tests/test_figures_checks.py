import numpy as np
import pandas as pd
import pytest

from rlvo_lib import figures
from rlvo_lib.config import InputError


@pytest.fixture
def table():
    return pd.DataFrame(
        {"arm": "daft", "method": ["gradcam", "gradcam", "edges", "edges"],
         "check": ["deletion", "null_scenario"] * 2, "verdict": ["pass", "not made", "fail", "pass"],
         "value": [0.41, np.nan, -0.1, 1.0], "low": [0.2, np.nan, -0.3, 0.9], "high": [0.6, np.nan, 0.2, 1.1]}
    )  # fmt: skip


def test_each_cell_says_its_verdict_and_value_in_words(table):
    labels = {"gradcam": "Grad-CAM", "edges": "Edges (control)"}
    figure = figures.check_table(
        table, labels=labels, check_labels={"null_scenario": "nothing to find"}
    )
    axis = figure.axes[0]
    said = {(t.get_position()): t.get_text() for t in axis.texts}
    assert said[(0, 0)] == "✓ pass\n0.41 [0.20, 0.60]"
    assert said[(0, 1)] == "not made"
    assert said[(1, 0)].startswith("✗ fail\n-0.10")
    assert [t.get_text() for t in axis.get_xticklabels()] == ["Grad-CAM", "Edges (control)"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["deletion", "nothing to find"]


def test_a_table_of_several_arms_or_unknown_verdicts_is_refused(table):
    both = pd.concat([table, table.assign(arm="imaging")])
    with pytest.raises(InputError, match="checks of 2 arms; name one of daft, imaging"):
        figures.check_table(both)
    assert len(figures.check_table(both, arm="imaging").axes[0].texts) == 4
    with pytest.raises(InputError, match="no checks of arm 'film'; allowed: daft"):
        figures.check_table(table, arm="film")
    with pytest.raises(InputError, match="verdict 'perhaps'; allowed: pass, fail, not made"):
        figures.check_table(table.assign(verdict="perhaps"))


@pytest.fixture
def curves():
    rows = [
        (patient, method, check, part, sign * gain * (1 + patient), sign * 0.5)
        for patient in (0, 1)
        for method, gain in (("gradcam", 2.0), ("random", 0.4))
        for check, sign in (("deletion", -1), ("insertion", 1))
        for part in ("5%", "50%")
    ]
    columns = ["participant_id", "method", "check", "part", "value", "reference"]
    return pd.DataFrame(rows, columns=columns)


def test_curves_are_means_over_patients_beside_random_orders(curves):
    left, right = figures.deletion_curves(curves).axes
    lines = {line.get_label(): line.get_xydata() for line in left.lines}
    np.testing.assert_allclose(lines["gradcam"], [[5, -3], [50, -3]])
    np.testing.assert_allclose(lines["random order"], [[5, -0.5], [50, -0.5]])
    lines = {line.get_label(): line.get_xydata() for line in right.lines}
    np.testing.assert_allclose(lines["random"], [[5, 0.6], [50, 0.6]])
    with pytest.raises(InputError, match="no rows of the checks deletion"):
        figures.deletion_curves(curves.assign(check="pointing"))


def test_bars_are_means_by_depth_of_the_measure_asked_for():
    rows = pd.DataFrame(
        {"method": ["gradcam"] * 4, "check": "model_randomisation", "part": ["head", "all"] * 2,
         "measure": ["absolute", "absolute", "ssim", "ssim"], "value": [0.6, 0.2, 0.9, 0.8]}
    )  # fmt: skip
    heights = [bar.get_height() for bar in figures.cascade_bars(rows).axes[0].patches]
    assert heights == [0.6, 0.2]
    heights = [
        bar.get_height() for bar in figures.cascade_bars(rows, measure="ssim").axes[0].patches
    ]
    assert heights == [0.9, 0.8]
    with pytest.raises(InputError, match="with measure 'signed'"):
        figures.cascade_bars(rows, measure="signed")
