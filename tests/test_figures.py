"""Figures are tested by the data they hold, never by pixels."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rlvo_lib import figures
from rlvo_lib.config import InputError

LABELS = {"daft": "DAFT", "imaging": "Imaging"}


@pytest.fixture(autouse=True)
def no_global_state():
    """No figure is left behind in pyplot, and every warning is an error (pyproject.toml)."""
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def performance():
    return pd.DataFrame({
        "arm": ["imaging", "daft", "daft"], "metric": ["auc", "auc", "f1"],
        "mean": [0.5, 0.7, 0.4], "sd": [0.02, 0.03, 0.05],
        "ensemble": [0.52, 0.72, 0.41], "low": [0.4, 0.6, 0.3], "high": [0.65, 0.8, 0.5],
    })  # fmt: skip


def draw(figure):
    figure.canvas.draw()
    return figure


def legend_texts(figure):
    legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()] + figure.legends
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_stamp_is_written_once_and_visible():
    figure = figures.canvas(4, 3)
    figures.stamp(figure)
    figures.stamp(figure, "SIMULATED DATA")
    assert [t.get_text() for t in figure.texts] == ["SIMULATED DATA"]
    assert figures.stamped(figure) == "SIMULATED DATA"
    assert figures.stamped(figures.canvas(4, 3)) == ""
    draw(figure)
    box = figure.texts[0].get_window_extent()
    assert box.x0 > 0 and box.x1 < figure.bbox.width and box.y1 <= figure.bbox.height
    axes = figure.axes[0].get_tightbbox()
    assert axes.y1 < box.y0  # it covers nothing


def test_a_figure_shows_itself_in_a_notebook():
    assert figures.canvas(2, 2)._repr_png_().startswith(b"\x89PNG")


def test_roc_curves(performance):
    points = pd.DataFrame({
        "arm": ["daft"] * 3 + ["imaging"] * 2, "seed": 0, "fpr": [0, 0.2, 1, 0, 1], "tpr": [0, 0.9, 1, 0, 1],
    })  # fmt: skip
    figure = draw(figures.roc_curves(points, performance=performance, labels=LABELS))
    axis = figure.axes[0]
    by_label = {line.get_label().split("  ")[0]: line for line in axis.lines}
    np.testing.assert_array_equal(by_label["DAFT"].get_xydata(), [[0, 0], [0.2, 0.9], [1, 1]])
    assert by_label["DAFT"].get_label() == "DAFT  0.72 [0.60, 0.80]"
    np.testing.assert_array_equal(by_label["no skill (0.50)"].get_xydata(), [[0, 0], [1, 1]])
    only = figures.roc_curves(points, arms=["imaging"])
    assert [line.get_label() for line in only.axes[0].lines][1:] == ["imaging"]


def test_auc_forest_shows_two_uncertainties_and_the_published_value(performance):
    published = {"daft": {"label": "Paper", "auc": 0.70, "auc_sd": 0.02}, "other": {"f1": 0.5}}
    figure = draw(figures.auc_forest(performance, published=published, labels=LABELS))
    axis = figure.axes[0]
    texts = legend_texts(figure)
    assert "fold ensemble, 95 % CI over patients" in texts and "mean ± SD over fold models" in texts
    assert "published, another cohort" in texts and "no skill" in texts
    assert [t.get_text() for t in axis.get_yticklabels()] == [
        "Imaging",
        "DAFT",
        "Paper (published)",
    ]
    ensemble, folds, paper = axis.containers
    np.testing.assert_array_equal(ensemble[0].get_xdata(), [0.52, 0.72])
    limits = [segment[:, 0] for segment in ensemble[2][0].get_segments()]
    np.testing.assert_allclose(limits, [[0.4, 0.65], [0.6, 0.8]])
    spread = [segment[:, 0] for segment in folds[2][0].get_segments()]
    np.testing.assert_allclose(spread, [[0.48, 0.52], [0.67, 0.73]])
    assert paper[0].get_xydata().tolist() == [[0.70, 0.0]]
    assert min(ensemble[0].get_ydata()) > 0.5  # apart from the arms of this cohort
    assert [line.get_xdata()[0] for line in axis.lines][0] == 0.5
    with pytest.raises(InputError, match="no rows of metric 'kappa'"):
        figures.auc_forest(performance, metric="kappa")


def test_ceiling_forest_shows_each_arm_above_its_two_ceilings():
    table = pd.DataFrame({
        "arm": ["daft", "imaging", "reads"], "infinite": [0.76, 0.73, np.nan],
        "fitted": [0.70, 0.66, np.nan], "fitted_low": [0.66, 0.62, np.nan],
        "fitted_high": [0.74, 0.68, np.nan], "auc": [0.64, 0.48, 0.6], "auc_low": [0.6, 0.4, np.nan],
        "auc_high": [0.68, 0.55, np.nan],
    })  # fmt: skip
    figure = draw(figures.ceiling_forest(table, labels=LABELS))
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["DAFT", "Imaging", "reads"]
    models, fitted = axis.containers
    np.testing.assert_array_equal(models[0].get_xdata(), [0.64, 0.48, 0.6])
    limits = [segment[:, 0] for segment in models[2][0].get_segments()[:2]]
    np.testing.assert_allclose(limits, [[0.6, 0.68], [0.4, 0.55]])
    np.testing.assert_array_equal(fitted[0].get_xdata().astype(float), [0.70, 0.66, np.nan])
    spread = [segment[:, 0] for segment in fitted[2][0].get_segments()[:2]]
    np.testing.assert_allclose(spread, [[0.66, 0.74], [0.62, 0.68]])
    by_label = {line.get_label(): line for line in axis.lines}
    assert set(by_label["no skill (0.50)"].get_xdata()) == {0.5}
    unlimited = by_label["ceiling of unlimited patients"]
    np.testing.assert_array_equal(unlimited.get_xdata(), [0.76, 0.73, np.nan])
    assert (models[0].get_ydata() > fitted[0].get_ydata()).all()
    assert len(legend_texts(figure)) == 4
    with pytest.raises(InputError, match="no column 'fitted_low'"):
        figures.ceiling_forest(table.drop(columns="fitted_low"))


def test_calibration_plot():
    points = pd.DataFrame({
        "arm": ["daft", "daft", "imaging"], "predicted": [0.1, 0.3, 0.2], "observed": [0.0, 0.4, 0.2],
        "low": [0.0, 0.2, 0.1], "high": [0.2, 0.6, 0.4],
    })  # fmt: skip
    figure = draw(figures.calibration_plot(points, labels=LABELS))
    shown = {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}
    assert list(shown) == ["DAFT", "Imaging"]
    drawn = shown["DAFT"].containers[0]
    np.testing.assert_array_equal(drawn[0].get_xydata(), [[0.1, 0.0], [0.3, 0.4]])
    assert shown["DAFT"].get_xlim() == shown["DAFT"].get_ylim()


def test_risk_by_outcome_shows_every_patient():
    frame = pd.DataFrame(
        {"arm": ["daft"] * 4, "y_true": [0, 0, 1, 1], "probability": [0.1, 0.2, 0.3, 0.9]}
    )
    figure = draw(figures.risk_by_outcome(frame, outcome_names=("no", "yes")))
    shown = np.concatenate([c.get_offsets().data[:, 0] for c in figure.axes[0].collections])
    assert sorted(shown) == [0.1, 0.2, 0.3, 0.9]
    assert legend_texts(figure) == ["no", "yes"]


def test_flow_diagram_says_every_number():
    flow = pd.DataFrame({
        "step": ["assessed", "adult", "included"], "text": ["in the dataset", "18 or older", "included"],
        "n": [640, 620, 620], "excluded": [0, 20, 0], "unknown": [0, 3, 0],
    })  # fmt: skip
    texts = [t.get_text() for t in draw(figures.flow_diagram(flow)).axes[0].texts]
    assert [t for t in texts if t] == [
        "in the dataset\nn = 640", "rule: 18 or older\nexcluded: 20, 3 of them since it is unknown",
        "included\nn = 620",
    ]  # fmt: skip
    counts = pd.DataFrame({
        "partition": ["all", "test", "train", "train", "train"], "fold": ["all", "all", "all", "1", "2"],
        "n": [620, 120, 500, 250, 250], "events": [90, 15, 75, 37, 38],
    })  # fmt: skip
    texts = [t.get_text() for t in draw(figures.flow_diagram(flow, counts)).axes[0].texts]
    assert "training part, 2 folds\nn = 500, with the outcome 75" in texts
    assert "test part\nn = 120, with the outcome 15" in texts


def test_missingness_bars_leave_out_the_complete_and_tell_the_outcomes_apart():
    frame = pd.DataFrame(
        {"variable": ["age", "hir", "aspects"], "share": [0.0, 0.25, 0.1],
         "share_without": [0.0, 0.2, 0.1], "share_with_outcome": [0.0, 0.5, 0.1]}
    )  # fmt: skip
    axis = draw(figures.missingness_bars(frame)).axes[0]
    assert [bar.get_width() for bar in axis.patches] == [10.0, 25.0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["aspects", "hir"]
    without, with_outcome = (c.get_offsets().data[:, 0].tolist() for c in axis.collections)
    assert without == [10.0, 20.0] and with_outcome == [10.0, 50.0]
    assert axis.get_xlim()[1] > 50
    shares = ["share", "share_without", "share_with_outcome"]
    none = draw(figures.missingness_bars(frame.assign(**dict.fromkeys(shares, 0.0))))
    assert none.axes[0].texts[0].get_text() == "no value is missing"


def test_label_overlap_bars():
    frame = pd.DataFrame({"stenosis": [0, 1, 1], "rescue": [0, 1, 0], "n": [500, 60, 30]})
    texts = {"stenosis": "stenosis > 50 %"}
    _, bars, sizes, dots = draw(figures.label_overlap_bars(frame, texts=texts)).axes
    assert [bar.get_height() for bar in bars.patches] == [60, 30]  # nobody's criteria are left out
    assert [bar.get_width() for bar in sizes.patches] == [90, 60]  # of each criterion, in all
    met = [c.get_offsets().data.tolist() for c in dots.collections][1::2]
    assert met == [[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0]]]
    assert [line.get_ydata().tolist() for line in dots.lines] == [[0, 1], [0, 0]]
    assert dots.get_yticklabels()[0].get_text() == "stenosis > 50 %"
    with pytest.raises(InputError, match="no patient meets any criterion"):
        figures.label_overlap_bars(frame.iloc[:1])


def test_training_curves():
    rows = [
        ("daft", f, e, part, e * f)
        for f in (1, 2)
        for e in range(3)
        for part in ("training", "inner")
    ]
    history = pd.DataFrame(rows, columns=["arm", "fold", "epoch", "part", "loss"])
    figure = draw(figures.training_curves(history, labels=LABELS))
    lines = figure.axes[0].lines
    assert len(lines) == 4
    np.testing.assert_array_equal(lines[1].get_xydata(), [[0, 0], [1, 2], [2, 4]])
    assert legend_texts(figure) == ["training", "inner"]


def test_a_frozen_offset_is_a_level_line_beside_the_curves():
    history = pd.DataFrame(
        [("daft", 1, -1, "inner", 0.4), ("daft", 1, 0, "train", 0.5), ("daft", 1, 0, "inner", 0.3),
         ("plain", 1, 0, "train", 0.7)],
        columns=["arm", "fold", "epoch", "part", "loss"],
    )  # fmt: skip
    figure = draw(figures.training_curves(history, unit="Error"))
    by_label = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(by_label["frozen offset alone"].get_ydata()) == [0.4, 0.4]
    assert by_label["inner"].get_xydata().tolist() == [[0, 0.3]]  # not joined to epoch -1
    assert legend_texts(figure) == ["frozen offset alone", "inner", "train"]
    assert figure.get_supylabel() == "Error"
    assert by_label["inner"].get_marker() == "o"  # a line of one point would not be seen


def test_training_curves_of_twenty_arms_have_a_panel_each():
    names = [f"an arm with a rather long label, number {k}" for k in range(20)]
    history = pd.DataFrame({"arm": names, "fold": 1, "epoch": 0, "part": "train", "loss": 1.0})
    figure = figures.training_curves(history)
    titles = [a.get_title() for a in figure.axes if a.get_visible()]
    assert [t.replace("\n", " ") for t in titles] == names
    assert figure.get_figwidth() < 12 and all("\n" in t for t in titles)


def test_the_ladder_is_drawn_by_group_in_the_order_of_the_table():
    table = pd.DataFrame({
        "arm": ["table", "daft", "cta", "ncct"], "metric": "auc", "estimate": [0.6, 0.7, 0.5, 0.4],
        "low": [0.5, 0.6, np.nan, 0.3], "high": [0.7, 0.8, np.nan, 0.5],
    })  # fmt: skip
    groups = {"table": "clinical", "daft": "multimodal", "cta": "imaging", "ncct": "imaging"}
    figure = draw(figures.ladder_forest(table, groups=groups, labels=LABELS))
    axis = figure.axes[0]
    names = [t.get_text() for t in axis.get_yticklabels()]
    assert names == ["table", "cta", "ncct", "DAFT"]
    places = axis.get_yticks()
    assert (np.diff(places) < 0).all()
    clinical, images, fused = axis.containers
    np.testing.assert_array_equal(images[0].get_xdata(), [0.5, 0.4])
    assert fused[0].get_xydata().tolist() == [[0.7, places[-1]]]
    np.testing.assert_allclose(fused[2][0].get_segments()[0][:, 0], [0.6, 0.8])
    assert axis.lines[0].get_xdata()[0] == 0.5
    assert legend_texts(figure)[0] == "no skill" and len(legend_texts(figure)) == 4
    with pytest.raises(
        InputError, match="arm 'cta' is of group 'None'; allowed: clinical, imaging"
    ):
        figures.ladder_forest(table, groups={"table": "clinical", "daft": "multimodal"})
    with pytest.raises(InputError, match="no rows of metric 'f1'"):
        figures.ladder_forest(table, groups=groups, metric="f1")


def test_shap_figures():
    importance = pd.DataFrame({"variable": ["age", "sex"], "mean_abs_shap": [0.4, 0.1]})
    importance = importance.assign(low=[0.3, 0.05], high=[0.6, 0.2])
    axis = draw(figures.shap_bars(importance, labels={"age": "Age (y)"})).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["sex", "Age (y)"]  # largest on top
    assert [bar.get_width() for bar in axis.patches] == [0.1, 0.4]
    shap = pd.DataFrame({
        "variable": ["age", "age", "sex", "sex"], "value": [50, np.nan, "0", "1"], "shap": [0.1, 0.2, -0.3, 0.4],
    })  # fmt: skip
    figure = draw(figures.shap_beeswarm(shap, order=["sex", "age"]))
    points = np.concatenate(
        [c.get_offsets().data for c in figure.axes[0].collections if len(c.get_offsets())]
    )
    assert sorted(points[:, 0]) == [-0.3, 0.1, 0.2, 0.4]
    assert "log-odds" in figure.axes[0].get_xlabel()


def test_qc_mosaic():
    slices = [np.full((3, 5), k / 4) for k in range(4)]
    figure = draw(
        figures.qc_mosaic(slices, titles=list("abcd"), columns=3, affine=np.diag([2.0, 2, 2, 1]))
    )
    shown = [a for a in figure.axes if a.images and a.get_visible()]
    assert [a.get_title() for a in shown] == list("abcd")
    assert shown[3].images[0].get_array()[0, 0] == 0.75
    assert abs(np.ptp(shown[0].get_xlim())) == 6 and np.ptp(shown[0].get_ylim()) == 10  # mm
    assert [t.get_text() for t in shown[0].texts] == ["R", "L"]
    unknown = figures.qc_mosaic(slices)  # no affine: no side is named
    assert not any(axis.texts for axis in unknown.axes)
    with pytest.raises(InputError, match="first two voxel axes"):
        figures.qc_mosaic(slices, affine=np.eye(4)[[1, 0, 2, 3]])
    with pytest.raises(InputError, match="no slices"):
        figures.qc_mosaic([])


AFFINE = np.array([[2.0, 0, 0, -80], [0, 2, 0, -100], [0, 0, 2, -40], [0, 0, 0, 1]])
OCCLUSION = {"start": [24.0, 4.0, -12.0], "end": [34.0, 6.0, -12.0]}


@pytest.fixture
def phantom():
    """Scans of 80 x 90 x 40 voxels of 2 mm, brain in the middle, and a tree of four vessels."""
    scans = {name: (np.zeros((80, 90, 40)), AFFINE) for name in ("ncct", "cta", "tmax", "cbf")}
    brain = (slice(20, 60), slice(20, 70), slice(5, 35))
    scans["cbf"][0][brain], scans["tmax"][0][brain] = 40.0, 2.0
    rows = [("ICA_L", -13, 2, z, 2.0, 1.0, 0) for z in range(-40, -14, 2)] + [
        ("ICA_R", 13, 2, z, 2.0, 1.0, 0) for z in range(-40, -14, 2)
    ]
    rows += [("M1_R", x, 4, -12, 1.5, 1.0, int(x >= 24)) for x in range(14, 36, 2)]
    rows += [("M2_R", 36, 4, z, 1.0, 0.4, 0) for z in range(-12, 20, 2)]
    columns = ["vessel", "x", "y", "z", "radius_mm", "fill", "clot"]
    return scans, pd.DataFrame(rows, columns=columns)


def voxel(world):
    return tuple(np.rint(np.linalg.solve(AFFINE, [*world, 1])[:3]).astype(int))


def bright(axis):
    """World mm of the only bright pixel that an axis shows."""
    image = axis.images[0]
    left, right, bottom, top = image.get_extent()
    shown = image.get_array()
    row, column = np.argwhere(shown == shown.max())[0]
    size = (right - left) / shown.shape[1], (top - bottom) / shown.shape[0]
    return left + (column + 0.5) * size[0], bottom + (row + 0.5) * size[1]


def test_phantom_page_marks_the_occlusion_where_it_is(phantom):
    scans, tree = phantom
    start = OCCLUSION["start"]
    for name in ("ncct", "cta"):
        scans[name][0][voxel(start)] = 300.0
    scans["cta"][0][voxel([24.0, 4.0, 14.0])] = 450.0  # above the slab that is projected
    page = draw(figures.phantom_page(scans, tree, OCCLUSION, "sub-1"))
    assert figures.stamped(page) == "SIMULATED DATA"
    assert "sub-1" in [t.get_text() for t in page.texts]
    upper = page.axes[:4]
    for axis in upper[:3]:
        assert bright(axis) == pytest.approx((24, 4))
        assert axis.images[0].get_array().max() == 300
        arrow = next(t for t in axis.texts if hasattr(t, "xy"))
        assert arrow.xy == pytest.approx((24, 4)) and arrow.xyann[0] > 24  # from outside
        assert axis.get_xlim()[0] > axis.get_xlim()[1]  # right of the patient on the left
    assert upper[2].get_xlim() == pytest.approx((29 + 24, 29 - 24))
    other = figures.phantom_page(
        scans, tree, {"start": [-24.0, 4, -12], "end": [-30.0, 4, -12]}, ""
    ).axes[0]
    assert next(t for t in other.texts if hasattr(t, "xy")).xyann[0] < -24


def test_phantom_page_draws_the_tree_by_calibre_filling_and_clot(phantom):
    scans, tree = phantom
    axis = draw(figures.phantom_page(scans, tree, OCCLUSION)).axes[3]
    assert len(axis.lines) == len(tree) - 4  # a piece between neighbours of each vessel
    clot = [line for line in axis.lines if line.get_color() == figures.COLOURS[1]]
    assert sorted(line.get_xdata()[0] for line in clot) == [24, 26, 28, 30, 32]
    pieces = {line.get_linewidth(): line.get_color() for line in axis.lines if line not in clot}
    assert pieces == {4.0: "0.0", 3.0: "0.0", 2.0: "0.51"}
    assert axis.get_xlim()[0] > axis.get_xlim()[1]


def test_phantom_page_shows_maps_of_brain_only_where_delay_is_largest(phantom):
    scans, tree = phantom
    scans["tmax"][0][40:50, 30:40, 25] = 12.0
    scans["cbf"][0][40:50, 30:40, 25] = 8.0
    scans["ncct"][0][45, 35, 25] = 33.0
    page = draw(figures.phantom_page(scans, tree, OCCLUSION))
    tmax, cbf, level = (axis.images[0].get_array() for axis in page.axes[4:7])
    assert tmax.max() == 12 and tmax.count() == cbf.count() == 40 * 50
    assert (cbf[tmax == 12] == 8).all()
    assert bright(page.axes[6]) == pytest.approx((10, -30)) and level.max() == 33


def test_phantom_page_looks_for_calcium_around_both_siphons(phantom):
    scans, tree = phantom
    scans["ncct"][0][voxel([-14.0, 2.0, -22.0])] = 600.0
    axis = draw(figures.phantom_page(scans, tree, OCCLUSION)).axes[7]
    assert bright(axis) == pytest.approx((-14, 2)) and axis.images[0].get_array().max() == 600
    assert axis.get_xlim() == pytest.approx((30, -30))


def test_phantom_page_names_what_is_missing(phantom):
    scans, tree = phantom
    with pytest.raises(InputError, match="no scan 'cbf'; needed: ncct, cta, tmax, cbf"):
        figures.phantom_page({n: s for n, s in scans.items() if n != "cbf"}, tree, OCCLUSION)
    with pytest.raises(InputError, match="no column 'clot'"):
        figures.phantom_page(scans, tree.drop(columns="clot"), OCCLUSION)
    with pytest.raises(InputError, match="not both carotids; needed: ICA_L, ICA_R"):
        figures.phantom_page(scans, tree[tree["vessel"] != "ICA_L"], OCCLUSION)


def test_a_missing_column_and_an_empty_table_are_named():
    with pytest.raises(InputError, match="no column 'fpr'"):
        figures.roc_curves(pd.DataFrame({"arm": ["daft"]}))
    with pytest.raises(InputError, match="table is empty"):
        figures.roc_curves(pd.DataFrame({"arm": [], "fpr": [], "tpr": []}))
