"""AUC, partial AUC and average precision against pROC, scikit-learn, double loops and their laws."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from labelled import S118, Y118, by_pairs, formula_12, formula_118, labelled_scores
from sklearn import metrics as sk

from rlvo_lib import metrics
from rlvo_lib.config import InputError

CASES = {
    "a": (formula_118()[0], formula_118()[1]),
    "b": (formula_118()[0], formula_118()[2]),
    "c": (formula_12()[0], formula_12()[1]),
    "d": (formula_12()[0], formula_12()[2]),
}
# R 4.2.2, pROC 1.18.0: r <- roc(y, s, direction = "<"); auc(r); var(r); ci.auc(r)[c(1, 3)];
# base R: plogis(qlogis(auc) + c(-1, 1) * qnorm(.975) * sqrt(var) / (auc * (1 - auc)))
PROC = {
    "a": (0.7218137254901961, 0.005484215588333632, 0.5766676323757328, 0.8669598186046593,
          0.5574038451704413, 0.8424166311303872),
    "b": (0.7493872549019608, 0.005415565277872943, 0.6051524775224056, 0.8936220322815159,
          0.581114012469657, 0.865686447616225),
    "c": (0.828125, 0.03118024553571428, 0.4820359518569272, 1.0,
          0.2975208912312505, 0.9820829763398934),
    "d": (0.625, 0.03069196428571429, 0.2816315143613408, 0.9683684856386592,
          0.2780382935999601, 0.8782396241392746),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(CASES))
def test_auc_and_its_intervals_are_those_of_proc(case):
    y, s = CASES[case]
    area, variance, low, high, logit_low, logit_high = PROC[case]
    wald, logit = metrics.auc_ci(y, s), metrics.auc_ci(y, s, "delong-logit")
    assert (wald.method, logit.method) == ("delong", "delong-logit")
    assert metrics.auc(y, s) == pytest.approx(area, abs=1e-14)
    found = [wald.estimate, wald.se**2, wald.low, wald.high, logit.low, logit.high]
    np.testing.assert_allclose(
        found, [area, variance, low, high, logit_low, logit_high], atol=1e-12
    )


def test_the_level_of_an_interval():
    ci = metrics.auc_ci(*CASES["a"], level=0.9)  # pROC: ci.auc(r, conf.level = .9)
    assert (ci.low, ci.high) == pytest.approx((0.6000032842880393, 0.8436241666923527), abs=1e-12)
    with pytest.raises(InputError, match="level is 95; allowed: between 0 and 1"):
        metrics.auc_ci(*CASES["a"], level=95)


def test_covariances_are_those_of_proc():
    for (y, *scores), expected in (
        (formula_118(), 0.0001613459491494131),
        (formula_12(), 0.006324404761904762),
    ):  # pROC: cov(roc(y, a, direction = "<"), roc(y, b, direction = "<"))
        _, covariance = metrics.delong_covariance(y, np.column_stack(scores))
        assert covariance[0, 1] == pytest.approx(expected, abs=1e-14) == covariance[1, 0]


@settings(max_examples=80, deadline=None)
@given(labelled_scores())
def test_auc_is_the_share_of_ordered_pairs(case):
    y, s = case
    assert metrics.auc(y, s) == pytest.approx(by_pairs(y, s).mean(), abs=1e-12)
    assert metrics.auc(y, -s) == pytest.approx(1 - metrics.auc(y, s), abs=1e-12)
    assert metrics.auc(1 - y, s) + metrics.auc(y, s) == pytest.approx(1, abs=1e-12)
    assert metrics.auc(y, np.exp(3 * s)) == metrics.auc(y, s)


@settings(max_examples=60, deadline=None)
@given(labelled_scores(columns=3))
def test_delong_is_its_definition(case):
    """Covariances of the components of DeLong, found by comparing every pair."""
    y, s = case
    aucs, covariance = metrics.delong_covariance(y, s)
    pairs = np.array([by_pairs(y, column) for column in s.T])
    np.testing.assert_allclose(aucs, pairs.mean(axis=(1, 2)), atol=1e-12)
    events, others = pairs.shape[1:]
    if min(events, others) < 2:
        assert np.isnan(covariance).all() and covariance.shape == (3, 3)
        return
    expected = np.cov(pairs.mean(axis=2)) / events + np.cov(pairs.mean(axis=1)) / others
    np.testing.assert_allclose(covariance, expected, atol=1e-12)
    np.testing.assert_array_equal(covariance, metrics.delong_covariance(y, np.exp(s))[1])


@settings(max_examples=60, deadline=None)
@given(labelled_scores())
def test_average_precision_is_precision_summed_over_events(case):
    y, s = case
    precision = [y[s >= t].mean() for t in s[y == 1]]
    assert metrics.average_precision(y, s) == pytest.approx(np.mean(precision), abs=1e-12)


def test_average_precision_known_answers():
    # R: u <- sort(unique(s), decreasing = TRUE); step sum of precision times gain in recall
    expected = (0.4996812830245448, 0.5322872840991192, 0.85, 0.5833333333333333)
    for case, value in zip("abcd", expected, strict=True):
        assert metrics.average_precision(*CASES[case]) == pytest.approx(value, abs=1e-14)
    assert metrics.average_precision(Y118, np.ones(118)) == pytest.approx(16 / 118)


@pytest.mark.parametrize(
    ("case", "max_fpr", "area", "corrected"),
    [  # pROC: auc(r, partial.auc = c(1, 1 - max_fpr), partial.auc.correct = FALSE or TRUE)
        ("a", 0.1, 0.03807598039215685, 0.6740841073271414),
        ("a", 0.25, 0.1127450980392157, 0.6862745098039216),
        ("a", 1, 0.7218137254901961, 0.7218137254901961),
        ("b", 0.1, 0.04205357142857142, 0.6950187969924813),
        ("b", 0.25, 0.1220990349264706, 0.70765493697479),
        ("c", 0.1, 0.07499999999999998, 0.868421052631579),
        ("c", 0.25, 0.1875, 0.8571428571428572),
        ("c", 1, 0.828125, 0.828125),
    ],
)
def test_partial_auc_is_that_of_proc(case, max_fpr, area, corrected):
    y, s = CASES[case]
    assert metrics.partial_auc(y, s, max_fpr=max_fpr) == pytest.approx(area, abs=1e-12)
    assert metrics.partial_auc(y, s, max_fpr=max_fpr, corrected=True) == pytest.approx(
        corrected, abs=1e-12
    )
    assert sk.roc_auc_score(y, s, max_fpr=max_fpr) == pytest.approx(corrected, abs=1e-12)


def test_partial_auc_below_the_diagonal_has_no_correction():
    y, s = CASES["a"]
    assert metrics.partial_auc(y, -s, max_fpr=0.25) == 0
    assert np.isnan(metrics.partial_auc(y, -s, max_fpr=0.25, corrected=True))  # pROC: NA
    assert np.isnan(metrics.partial_auc(y, -s, max_fpr=1, corrected=True))  # pROC: NA
    constant = metrics.partial_auc(y, np.ones(118), max_fpr=0.25, corrected=True)
    assert constant == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(labelled_scores())
def test_partial_auc_of_every_rate_is_the_auc(case):
    y, s = case
    assert metrics.partial_auc(y, s, max_fpr=1) == pytest.approx(metrics.auc(y, s), abs=1e-12)
    parts = [metrics.partial_auc(y, s, max_fpr=f) for f in (0.05, 0.3, 0.5, 0.9)]
    assert parts == sorted(parts) and parts[-1] <= 0.9 + 1e-12


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.2, np.nan])
def test_a_partial_auc_needs_a_rate(max_fpr):
    with pytest.raises(InputError, match="max_fpr is .*; allowed: above 0, at most 1"):
        metrics.partial_auc(Y118, S118, max_fpr=max_fpr)


def test_other_intervals_of_an_auc():
    wald = metrics.auc_ci(Y118, S118, "delong")
    resampled = metrics.auc_ci(Y118, S118, "bootstrap", n=4000, seed=1)
    assert resampled.low == pytest.approx(wald.low, abs=0.02)
    assert resampled.high == pytest.approx(wald.high, abs=0.02)
    # paper_consistency.md, section 2
    assert metrics.hanley_mcneil_se(0.53, events=16, n=118) == pytest.approx(0.0789, abs=5e-5)
    assert metrics.hanley_mcneil_se(0.70, events=16, n=118) == pytest.approx(0.0770, abs=5e-5)
    counted = metrics.auc_ci(Y118, S118, "hanley-mcneil")
    assert counted.se == metrics.hanley_mcneil_se(wald.estimate, events=16, n=118)
    with pytest.raises(InputError, match="AUC 1.2, 16 events of 118; allowed: 0 <= AUC <= 1"):
        metrics.hanley_mcneil_se(1.2, events=16, n=118)
    with pytest.raises(InputError, match="method is 'exact'; allowed: delong, delong-logit"):
        metrics.auc_ci(Y118, S118, "exact")


def test_limits_are_cut_at_0_and_1():
    y, s = CASES["c"]
    assert metrics.auc_ci(y, s).high == 1 and metrics.auc_ci(y, -s).low == 0
    assert metrics.auc_ci(y, -s, "delong-logit").low > 0


@pytest.mark.parametrize(
    ("y", "s", "words"),
    [
        ([0, 0, 1, 1], [1, 2, 3, 4], "variance is 0"),  # perfect separation; pROC gives 1 to 1
        ([0, 0, 1, 1], [1, 1, 1, 1], "variance is 0"),  # constant score
        ([0, 0, 1], [1, 2, 1.5], "fewer than two events"),  # one positive
        ([0, 1], [1, 2], "fewer than two events"),
    ],
)
def test_where_an_auc_has_no_interval_the_reason_is_given(y, s, words):
    for method in ("delong", "delong-logit"):
        ci = metrics.auc_ci(y, s, method)
        assert np.isfinite(ci.estimate) and np.isnan(ci.low) and np.isnan(ci.high)
        assert words in ci.reason


def test_two_patients():
    assert metrics.auc([0, 1], [1, 2]) == 1 and metrics.auc([0, 1], [2, 1]) == 0
    assert metrics.average_precision([0, 1], [2, 1]) == 0.5
    assert metrics.partial_auc([0, 1], [1, 2], max_fpr=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("y", "s", "words"),
    [
        ([1, 1], [0.1, 0.2], "only 1"),
        ([0, 0, 0], [0.1, 0.2, 0.3], "only 0"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "y_true holds 2; allowed: 0 and 1"),
        ([0, 1, np.nan], [0.1, 0.2, 0.3], "1 missing"),
        (np.array([0, None, 1]), [0.1, 0.2, 0.3], "1 missing"),
        (pd.array([0, 1, pd.NA], dtype="boolean"), [0.1, 0.2, 0.3], "1 missing"),
        (["no", "yes"], [0.1, 0.2], "y_true holds .*'no'"),
        (["0", "1"], [0.1, 0.2], "y_true holds .*'0'"),
        (np.array([0, 1, "1"], dtype=object), [0.1, 0.2, 0.3], r"y_true holds '1' \(str\)"),
        (np.eye(2), [0.1, 0.2], r"y_true has shape \(2, 2\)"),
        ([0, 1], [0.1, np.nan], "1 missing or infinite"),
        ([0, 1], [0.1, np.inf], "1 missing or infinite"),
        ([0, 1], [0.1], "1 values, y_true has 2"),
        ([0, 1], 0.1, "0 values, y_true has 2"),
        ([0, 1], ["a", "b"], "not numeric"),
        ([0, 1], np.ones((2, 2, 2)), "shape"),
        ([0, 1], np.ones((2, 0)), "shape"),
        ([], [], "at least two patients"),
    ],
)
def test_unusable_input_is_named(y, s, words):
    calls = (
        metrics.auc,
        metrics.auc_ci,
        metrics.average_precision,
        metrics.delong_covariance,
        metrics.roc_curve,
        metrics.precision_recall_curve,
        lambda y, s: metrics.partial_auc(y, s, max_fpr=0.5),
        lambda y, s: metrics.compare_auc(y, s, s),
        lambda y, s: metrics.bootstrap_ci(y, s, n=2),
        lambda y, s: metrics.bootstrap_many(y, s, ("auc",), n=2),
        lambda y, s: metrics.roc_band(y, s, n=2),
        lambda y, s: metrics.precision_recall_band(y, s, n=2),
    )
    for call in calls:
        with pytest.raises(InputError, match=words):
            call(y, s)


def test_booleans_are_zero_and_one():
    for labels in ([False, True], np.array([False, True], dtype=object), pd.Series([0.0, 1.0])):
        assert metrics.auc(labels, [0.1, 0.2]) == 1
    assert metrics.auc(pd.array([True, False], dtype="boolean"), [0.1, 0.2]) == 0
