"""Figures of modalities, modulation and reads, tested by the data they hold."""

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import figures, results
from rlvo_lib.config import InputError

LABELS = {"a": "NCCT", "b": "Clinical variables"}


def draw(figure):
    figure.canvas.draw()
    return figure


def _ticks(axis):
    return [text.get_text() for text in axis.get_yticklabels()]


@pytest.fixture
def coalitions():
    rng = np.random.default_rng(0)
    rows = []
    for k in range(30):
        a, b = rng.normal() + k % 2, rng.normal()
        for coalition, logit in (("", 0.0), ("a", a), ("b", b), ("a+b", a + b)):
            rows.append((f"sub-{k:02d}", "daft", 0, 1, "donor", coalition, logit))
    columns = ["participant_id", "arm", "seed", "fold", "absent", "coalition", "logit"]
    y = pd.Series([k % 2 for k in range(30)], index=[f"sub-{k:02d}" for k in range(30)])
    return pd.DataFrame(rows, columns=columns), y


def test_bars_of_modalities_are_the_table(coalitions):
    table = results.modality_shares(*coalitions, data="simulated", resamples=50)
    figure = draw(figures.modality_bars(table, labels=LABELS))
    of_auc, of_logit = figure.axes
    assert _ticks(of_auc) == ["NCCT", "Clinical variables", "All together"]
    for axis, measure in ((of_auc, "auc"), (of_logit, "logit")):
        widths = [bar.get_width() for bar in axis.patches]
        assert widths == table[table["measure"] == measure]["value"].tolist()
    with pytest.raises(InputError, match="absent is 'flag'; allowed: donor"):
        figures.modality_bars(table, absent="flag")


def test_the_waterfall_ends_at_the_patient_s_logit(coalitions):
    values = results.modality_values(coalitions[0])
    own = values[values["participant_id"] == "sub-03"]
    figure = draw(figures.modality_waterfall(own, labels=LABELS))
    bars = figure.axes[0].patches
    assert bars[0].get_x() == pytest.approx(own["base"].iloc[0])
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(own["logit"].iloc[0])
    assert abs(bars[0].get_width()) <= abs(bars[-1].get_width())
    with pytest.raises(InputError, match="30 values of 'participant_id'; allowed: one"):
        figures.modality_waterfall(values)
    beside = figures.canvas(8, 3, 1, 2)
    assert figures.modality_waterfall(own, axis=beside.axes[1]) is beside
    assert not beside.axes[0].patches and len(beside.axes[1].patches) == 2


def test_the_forest_of_coalitions_shows_what_is_present(coalitions):
    table = results.modality_coalitions(*coalitions, data="simulated", resamples=50)
    figure = draw(figures.coalition_forest(table, labels=LABELS))
    dots, forest = figure.axes
    present = [tuple(point) for c in dots.collections[::2] for point in c.get_offsets()]
    names = list(LABELS)
    wanted = [(k, row) for k, name in enumerate(names) for row, c in enumerate(table["coalition"])
              if name in c.split("+")]  # fmt: skip
    assert sorted(present) == sorted(wanted)
    assert list(forest.lines[1].get_xdata()) == table["auc"].tolist()


@pytest.fixture
def modulation():
    rows = []
    for fold in (1, 2):
        for channel in range(3):
            for variable, change in (("age", "60 to 70"), ("sex", "female to male")):
                size = (channel + 1) * (2 if variable == "sex" else 1) * fold
                rows.append(("daft", 0, fold, channel, variable, change, 0.1 * size, -0.1 * size,
                             0.5 if size > 3 else 0.0, 0.1, 1.0, 0.0 if channel == 2 else 1.0, 3.0 - channel,
                             0.9, 4))  # fmt: skip
    columns = [*results.modulation.NEEDED, "reversed", "n"]
    return pd.DataFrame(rows, columns=columns)


def test_the_heatmap_of_one_model_puts_the_channels_that_matter_first(modulation):
    channels = results.modulation_channels(modulation, data="simulated")
    figure = draw(
        figures.modulation_heatmap(channels, seed=0, fold=2, top=2, labels={"sex": "Sex"})
    )
    alpha, beta = figure.axes[:2]
    assert _ticks(alpha) == ["Sex: female to male", "age: 60 to 70"]
    assert [t.get_text() for t in alpha.get_xticklabels()] == ["0", "1"]
    np.testing.assert_allclose(alpha.images[0].get_array(), [[0.4, 0.8], [0.2, 0.4]])
    np.testing.assert_allclose(beta.images[0].get_array(), [[-0.4, -0.8], [-0.2, -0.4]])
    crosses = alpha.lines[0]
    assert list(zip(crosses.get_xdata(), crosses.get_ydata(), strict=True)) == [
        (0, 0),
        (1, 0),
        (1, 1),
    ]
    whole = draw(figures.modulation_heatmap(channels, seed=0, fold=1))
    assert np.ma.getmaskarray(whole.axes[1].images[0].get_array())[:, 2].all(), "β is constant"
    with pytest.raises(InputError, match="no channels of seed 0, fold 9"):
        figures.modulation_heatmap(channels, seed=0, fold=9)


def test_bars_of_modulation_are_means_with_the_lowest_and_highest_model(modulation):
    summary = results.modulation_summary(modulation, data="simulated")
    figure = draw(figures.modulation_bars(summary))
    axis = figure.axes[0]
    assert _ticks(axis) == ["sex: female to male", "age: 60 to 70"]
    alpha = summary[summary["measure"] == "alpha"].set_index("variable")
    assert [bar.get_width() for bar in axis.patches[:2]] == alpha.loc[
        ["sex", "age"], "value"
    ].tolist()
    segments = axis.collections[0].get_segments()
    assert [s[1][0] for s in segments] == pytest.approx(
        alpha.loc[["sex", "age"], "highest"].tolist()
    )
    nothing = summary.assign(value=np.nan)
    with pytest.raises(InputError, match="neither α nor β differs"):
        figures.modulation_bars(nothing)


@pytest.fixture
def reads():
    return pd.DataFrame({
        "participant_id": "sub-01", "arm": "concepts", "part": ["read", "read", "clinical"],
        "variable": ["siphon", "clot_hu", "age"], "value": [1.7, 52.0, np.nan],
        "reading": ["severe", "", ""], "share": [0.77, np.nan, np.nan],
        "contribution": [0.4, -0.1, 0.2], "base": -2.0, "logit": -1.5,
    })  # fmt: skip


def test_bars_of_reads_say_what_was_read_and_how_well(reads):
    quality = pd.DataFrame(
        {"concept": ["siphon", "clot_hu"], "measure": ["R2", "AUC"], "value": [0.53, np.nan]}
    )
    figure = draw(figures.reads_bars(reads, quality=quality, units={"clot_hu": "HU"}))
    axis = figure.axes[0]
    assert _ticks(axis) == ["clot_hu: 52 HU", "age: not known", "siphon: severe (77 %); R² 0.53"]
    widths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axis.patches}
    assert widths == {0: -0.1, 1: 0.2, 2: 0.4}
    assert "-2.00 of the mean patient, -1.50 of this one" in axis.get_xlabel()
    assert len(figures.reads_bars(reads, top=1).axes[0].patches) == 1
    with pytest.raises(InputError, match="2 values of 'arm'"):
        figures.reads_bars(pd.concat([reads, reads.assign(arm="other")]))


def test_dots_of_other_readings_stand_by_the_probability_as_it_was_read():
    rows = pd.DataFrame({
        "participant_id": "sub-01", "arm": "concepts", "variable": ["x", "x", "y", "y"],
        "to": ["no", "yes", "10th percentile", "90th percentile"],
        "to_value": [np.nan, np.nan, 3.0, 9.0],
        "before": 0.2, "after": [0.19, 0.22, 0.1, 0.5],
    })  # fmt: skip
    figure = draw(figures.what_if_dots(rows, units={"y": "mm"}, threshold=0.3))
    axis = figure.axes[0]
    assert _ticks(axis) == ["y: 3 mm", "y: 9 mm", "x: no", "x: yes"], "what changes most is first"
    assert list(axis.lines[0].get_xdata()) == [0.1, 0.5, 0.19, 0.22]
    assert [line.get_xdata()[0] for line in axis.lines[1:]] == [0.2, 0.3]
    assert _ticks(figures.what_if_dots(rows, top=1).axes[0]) == ["y: 3", "y: 9"]


def test_bars_of_importance_carry_the_reliability():
    table = pd.DataFrame({
        "arm": "concepts", "part": ["read", "clinical"], "variable": ["siphon", "age"],
        "mean_abs_contribution": [0.4, 0.2], "low": [0.3, 0.1], "high": [0.5, 0.3],
        "measure": ["R2", ""], "reliability": [0.53, np.nan],
    })  # fmt: skip
    axis = draw(figures.reads_importance_bars(table)).axes[0]
    assert _ticks(axis) == ["age", "siphon"]
    assert [text.get_text() for text in axis.texts] == ["R² 0.53"]


def test_shared_variables_of_two_arms_stand_side_by_side_with_their_agreement():
    shap = pd.DataFrame({
        "arm": "daft", "variable": ["age", "sex", "only"], "mean_abs_shap": [0.1, 0.3, 0.9],
        "low": 0.05, "high": 1.0,
    })  # fmt: skip
    reads = pd.DataFrame({
        "arm": "concepts", "variable": ["age", "siphon", "sex"],
        "mean_abs_contribution": [0.2, 0.5, 0.1], "low": 0.05, "high": 0.6,
    })  # fmt: skip
    agreement = pd.DataFrame({
        "arm": "daft", "concepts_arm": ["concepts", "concepts", "other"],
        "level": ["patient", "mean", "mean"], "spearman": [0.57, np.nan, 0.9],
        "low": [0.5, np.nan, 0.8], "high": [0.6, np.nan, 1.0], "reason": ["", "2 variables", ""],
    })  # fmt: skip
    figure = draw(figures.concept_agreement_bars(shap, reads, agreement))
    first, second = figure.axes
    assert _ticks(first) == ["sex", "age"]
    assert [bar.get_width() for bar in first.patches] == [0.3, 0.1]
    assert [bar.get_width() for bar in second.patches] == [0.1, 0.2]
    words = figure.get_supxlabel()
    assert "0.57 [0.50 to 0.60]" in words and "not known (2 variables)" in words
    assert "0.9" not in words
    with pytest.raises(InputError, match="share no variable"):
        figures.concept_agreement_bars(shap, reads.assign(variable="x"), agreement)
