"""ROC and precision-recall curves and bands against scikit-learn, pROC and explicit resamples."""

import numpy as np
import pytest
from hypothesis import given, settings
from labelled import S118, Y118, formula_12, formula_118, labelled_scores, resamples
from sklearn import metrics as sk

from rlvo_lib import metrics
from rlvo_lib.config import InputError


@settings(max_examples=60, deadline=None)
@given(labelled_scores())
def test_curves_are_those_of_scikit_learn(case):
    y, s = case
    curve = metrics.roc_curve(y, s)
    fpr, tpr, thresholds = sk.roc_curve(y, s, drop_intermediate=False)
    np.testing.assert_array_equal(curve[["fpr", "tpr"]], np.column_stack([fpr, tpr]))
    np.testing.assert_array_equal(curve["threshold"][1:], thresholds[1:])
    assert np.isnan(curve["threshold"][0]) and np.isinf(thresholds[0])
    area = np.trapezoid(curve["tpr"], curve["fpr"])
    assert area == pytest.approx(metrics.auc(y, s), abs=1e-12)

    curve = metrics.precision_recall_curve(y, s)
    precision, recall, thresholds = sk.precision_recall_curve(y, s)
    np.testing.assert_allclose(curve["recall"], recall[::-1], atol=1e-15)
    np.testing.assert_allclose(curve["precision"], precision[::-1], atol=1e-15)
    np.testing.assert_array_equal(curve["threshold"][1:], thresholds[::-1])
    steps = (np.diff(curve["recall"]) * curve["precision"][1:]).sum()
    assert steps == pytest.approx(metrics.average_precision(y, s), abs=1e-12)


def test_rows_of_a_curve_are_operating_points():
    curve = metrics.roc_curve(Y118, S118).merge(metrics.precision_recall_curve(Y118, S118)[1:])
    for row in curve.iloc[::20].itertuples():
        flagged = row.threshold <= S118
        assert row.tpr == row.recall == flagged[Y118 == 1].mean()
        assert row.fpr == flagged[Y118 == 0].mean()
        assert row.precision == Y118[flagged].mean()


def test_the_middle_of_a_roc_band_is_that_of_proc():
    rates = [0, 0.1, 0.25, 0.5, 1]
    # R 4.2.2, pROC 1.18.0: coords(r, x = 1 - rates, input = "specificity", ret = "sensitivity")
    for (y, s, _), expected in (
        (formula_118(), [0.3125, 0.4625, 0.5, 0.75, 1]),
        (formula_12(), [0.75, 0.75, 0.75, 0.75, 1]),
    ):
        band = metrics.roc_band(y, s, fpr=rates, n=5)
        np.testing.assert_allclose(band["tpr"], expected, atol=1e-12)
        assert band["fpr"].tolist() == rates


def explicit(y, s, n, seed):
    """The labels and scores of each stratified resample, patient by patient."""
    for counts in resamples(y, n=n, seed=seed, stratified=True):
        yield np.repeat(y, counts), np.repeat(s, counts, axis=0)


@settings(max_examples=25, deadline=None)
@given(labelled_scores(columns=2))
def test_bands_are_percentiles_of_the_curves_of_resamples(case):
    y, s = case
    grid = np.array([0, 0.2, 0.5, 0.6, 1])

    def tpr_at(y, s):
        fpr, tpr, _ = sk.roc_curve(y, s, drop_intermediate=False)
        return [max(np.interp(x, fpr, tpr), tpr[fpr <= x].max()) for x in grid]

    def precision_at(y, s):
        precision, recall, _ = sk.precision_recall_curve(y, s)
        reached = [np.flatnonzero(recall[:-1] >= x) for x in grid]
        return [precision[i[recall[i] == recall[i].min()][-1]] for i in reached]

    for band, value, curve in (
        (metrics.roc_band(y, s, fpr=grid, n=20, seed=4), "tpr", tpr_at),
        (metrics.precision_recall_band(y, s, recall=grid, n=20, seed=4), "precision", precision_at),
    ):
        drawn = [np.mean([curve(v, w[:, k]) for k in (0, 1)], 0) for v, w in explicit(y, s, 20, 4)]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        if 1 in (y.sum(), (1 - y).sum()):  # every resample holds the same one
            low = high = np.full(grid.size, np.nan)
        np.testing.assert_allclose(band["low"], low, atol=1e-12)
        np.testing.assert_allclose(band["high"], high, atol=1e-12)
        middle = np.mean([curve(y, s[:, k]) for k in (0, 1)], axis=0)
        np.testing.assert_allclose(band[value], middle, atol=1e-12)


def test_bands_on_their_own_grid():
    for band, x, value in (
        (metrics.roc_band(Y118, S118, n=200), "fpr", "tpr"),
        (metrics.precision_recall_band(Y118, S118, n=200), "recall", "precision"),
    ):
        assert band.columns.tolist() == [x, value, "low", "high"]
        assert band[x].tolist() == [round(0.02 * k, 2) for k in range(51)]
        assert (band["low"] <= band["high"]).all() and band.notna().all(axis=None)
        narrower = (metrics.roc_band if x == "fpr" else metrics.precision_recall_band)(
            Y118, S118, n=200, level=0.5
        )
        inside = (narrower["low"] >= band["low"]) & (narrower["high"] <= band["high"])
        assert inside.all() and (narrower["high"] < band["high"]).any()
    assert band["precision"].iloc[-1] >= 16 / 118


def test_the_mean_precision_over_recalls_is_the_average_precision():
    y, s, _ = formula_118()
    recalls = (np.arange(16) + 0.5) / 16
    band = metrics.precision_recall_band(y, s, recall=recalls, n=2)
    assert band["precision"].mean() == pytest.approx(metrics.average_precision(y, s), abs=1e-12)


@pytest.mark.parametrize("grid", [[0, 1.2], [-0.1], [], [[0.1, 0.2]], [np.nan]])
def test_a_band_needs_a_grid_of_rates(grid):
    with pytest.raises(InputError, match="fpr is .*; allowed: one or more values in 0 to 1"):
        metrics.roc_band(Y118, S118, fpr=grid)
    with pytest.raises(InputError, match="recall is .*; allowed"):
        metrics.precision_recall_band(Y118, S118, recall=grid)
    with pytest.raises(InputError, match="n is 0; allowed: at least 1 resample"):
        metrics.roc_band(Y118, S118, n=0)


def test_curves_at_the_edges():
    constant = metrics.roc_curve([0, 1, 0], [2, 2, 2])
    assert constant[["fpr", "tpr"]].to_numpy().tolist() == [[0, 0], [1, 1]]
    assert metrics.roc_band([0, 1, 0], [2, 2, 2], fpr=[0.3], n=9)["tpr"][0] == pytest.approx(0.3)
    perfect = metrics.roc_band([0, 0, 1, 1], [1, 2, 3, 4], fpr=[0, 1], n=50)
    assert (perfect[["tpr", "low", "high"]] == 1).all(axis=None)
    alone = metrics.precision_recall_band([0, 1], [0.1, 0.2], recall=[0, 1], n=5)
    assert (alone["precision"] == 1).all()
