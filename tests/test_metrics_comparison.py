"""Comparisons of scores against pROC and base R, and the laws they obey."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import S118, Y118, formula_12, formula_118, labelled_scores

from rlvo_lib import metrics
from rlvo_lib.config import InputError

OTHER118 = S118 + np.random.default_rng(12).normal(size=118)


@pytest.mark.parametrize(
    ("case", "z", "p", "low", "high"),
    [  # R 4.2.2, pROC 1.18.0: roc.test(ra, rb, method = "delong", paired = TRUE), direction "<"
        (formula_118(), -0.2681076960810793, 0.7886164220204689,
         -0.2291459772141262, 0.1739989183905967),
        (formula_12(), 0.9155405258188342, 0.3599079375368612,
         -0.2317194150013271, 0.6379694150013271),
    ],
)  # fmt: skip
def test_paired_comparison_is_that_of_proc(case, z, p, low, high):
    test = metrics.compare_auc(*case)
    assert (test.z, test.p, test.low, test.high) == pytest.approx((z, p, low, high), abs=1e-11)
    assert test.paired and np.isinf(test.df) and (test.n, test.events) == (
        case[0].size, case[0].sum(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("case", "t", "df", "p"),
    [  # pROC: roc.test(ra, rb, method = "delong", paired = FALSE)
        (formula_118(), -0.2641091673101041, 233.9907178601506, 0.7919282643796888),
        (formula_12(), 0.8166116371646006, 21.99862992458231, 0.4229058933304507),
    ],
)
def test_unpaired_comparison_is_that_of_proc(case, t, df, p):
    test = metrics.compare_auc(*case, paired=False)
    assert (test.z, test.df, test.p) == pytest.approx((t, df, p), abs=1e-11)
    assert not test.paired
    assert (test.low + test.high) / 2 == pytest.approx(test.difference)
    assert (test.p < 0.05) == (test.low > 0 or test.high < 0)


def test_unpaired_comparison_of_different_patients():
    y_a, a, _ = formula_118()
    y_b, b, _ = formula_12()
    test = metrics.compare_auc((y_a, y_b), a, b, paired=False)
    # pROC: roc.test(roc of 118, roc of 12, method = "delong", paired = FALSE)
    expected = (-0.5552092225410301, 15.16571539657305, 0.5868483661117135)
    assert (test.z, test.df, test.p) == pytest.approx(expected, abs=1e-11)
    assert (test.n, test.events) == (130, 20)
    with pytest.raises(InputError, match="pair of labels; that needs paired=False"):
        metrics.compare_auc((y_a, y_b), a, b)
    with pytest.raises(InputError, match="b has 118 values, y_true has 12"):
        metrics.compare_auc((y_a, y_b), a, a, paired=False)


@settings(max_examples=60, deadline=None)
@given(labelled_scores(columns=2), st.booleans())
def test_a_comparison_turned_round_changes_sign(case, paired):
    y, s = case
    a, b = s.T
    ab = metrics.compare_auc(y, a, b, paired=paired)
    ba = metrics.compare_auc(y, b, a, paired=paired)
    up = metrics.compare_auc(y, np.exp(a), b**3, paired=paired)
    assert ab.difference == pytest.approx(metrics.auc(y, a) - metrics.auc(y, b), abs=1e-12)
    assert ab.difference == -ba.difference and ab == up
    for x, turned in ((ab.z, -ba.z), (ab.p, ba.p), (ab.low, -ba.high), (ab.se, ba.se)):
        assert x == pytest.approx(turned, nan_ok=True)
    assert np.isfinite(ab.p) or ab.reason


@settings(max_examples=60, deadline=None)
@given(labelled_scores())  # one event among them
def test_scores_that_rank_alike_have_p_1(case):
    y, s = case
    same = metrics.compare_auc(y, s, 2 * s + 1)
    assert (same.p, same.z, same.difference, same.low, same.high) == (1, 0, 0, 0, 0)
    assert same.reason


def test_the_smallest_difference_of_many_patients_is_tested():
    rng = np.random.default_rng(2)
    y = (rng.random(20_000) < 0.15).astype(int)
    a = rng.normal(size=y.size) + y
    order = np.argsort(a)
    place = np.flatnonzero(np.diff(y[order]))[1000]  # an event and a non-event side by side
    b = a.copy()
    b[order[[place, place + 1]]] = a[order[[place + 1, place]]]
    test = metrics.compare_auc(y, a, b)
    assert abs(test.difference) == pytest.approx(1 / (y.sum() * (1 - y).sum()))
    # one component of the events and one of the non-events differ, each by the difference
    assert abs(test.z) == pytest.approx(1 / np.sqrt(2), abs=1e-3) and test.reason == ""


def test_where_a_difference_has_no_test_the_reason_is_given():
    apart = metrics.compare_auc([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert apart.difference == 1 and np.isnan(apart.p) and "variance" in apart.reason
    for paired in (True, False):
        alone = metrics.compare_auc([0, 0, 1], [1, 2, 1.5], [1, 2, 3], paired=paired)
        assert alone.difference == -0.5 and np.isnan(alone.p) and "fewer than two" in alone.reason
        two = metrics.compare_auc([0, 1], [1, 2], [1, 2 if not paired else 0], paired=paired)
        assert np.isnan([two.p, two.low, two.high, two.se]).all() and two.reason
    both = metrics.compare_auc([0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4], paired=False)
    assert both.difference == 0 and np.isnan(both.p) and "variance" in both.reason
    constant = metrics.compare_auc(Y118, np.ones(118), S118)
    assert constant.auc_a == 0.5 and constant.p < 0.05
    with pytest.raises(InputError, match="level is 1"):
        metrics.compare_auc(Y118, S118, OTHER118, level=1)


def test_a_contrast_of_two_scores_is_their_comparison():
    aucs, covariance = metrics.delong_covariance(Y118, np.column_stack([S118, OTHER118]))
    found = metrics.contrast_auc(Y118, aucs, covariance, np.array([1.0, -1.0]))
    assert found == metrics.compare_auc(Y118, S118, OTHER118)
    # the mean of equal columns on one side, as of the seeds of an arm
    three = np.column_stack([S118, S118, OTHER118])
    aucs, covariance = metrics.delong_covariance(Y118, three)
    halves = metrics.contrast_auc(Y118, aucs, covariance, np.array([0.5, 0.5, -1.0]))
    assert (halves.z, halves.p) == pytest.approx((found.z, found.p))


def test_nadeau_bengio_known_answer():
    test = metrics.nadeau_bengio([0.031, -0.012, 0.024, 0.018, 0.007], n_train=481, n_test=118)
    # R: se <- sqrt((1/5 + 118/481) * var(x)); t <- mean(x)/se; 2*pt(-abs(t), 4);
    # mean(x) + c(-1, 1)*qt(.975, 4)*se
    found = (test.difference, test.se, test.t, test.p, test.low, test.high)
    expected = (0.0136, 0.01121224642319593, 1.212959427279825, 0.2918774085655432,
                -0.0175301866999538, 0.04473018669995379)  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-12)
    assert (test.df, test.k, test.reason) == (4, 5, "")


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=12), st.integers(1, 500))
def test_nadeau_bengio_turned_round_and_without_a_test_set(values, n_train):
    d = np.array(values) / 100
    test = metrics.nadeau_bengio(d, n_train=n_train, n_test=100)
    back = metrics.nadeau_bengio(-d, n_train=n_train, n_test=100)
    assert (test.t, test.low) == pytest.approx((-back.t, -back.high), nan_ok=True)
    if d.std() > 0:  # wider than the naive t interval, which it nears with a large training set
        naive = d.std(ddof=1) / np.sqrt(d.size)
        assert test.se > naive
        assert metrics.nadeau_bengio(d, n_train=10**12, n_test=1).se == pytest.approx(naive)


def test_nadeau_bengio_at_the_edges():
    one = metrics.nadeau_bengio([0.1], n_train=10, n_test=5)
    assert np.isnan([one.p, one.t, one.se, one.low]).all() and "one difference" in one.reason
    none = metrics.nadeau_bengio([0.0, 0.0, 0.0], n_train=10, n_test=5)
    assert (none.p, none.t, none.low, none.high) == (1, 0, 0, 0) and none.reason
    same = metrics.nadeau_bengio([0.1, 0.1], n_train=10, n_test=5)
    assert np.isnan([same.p, same.t, same.low]).all() and same.se == 0 and same.reason
    for bad, words in (
        (dict(differences=[0.1, np.nan]), "1 missing"),
        (dict(differences=[[0.1, 0.2]]), r"shape \(1, 2\)"),
        (dict(differences=[]), r"shape \(0,\)"),
        (dict(n_train=0), "n_train is 0; allowed: above 0"),
        (dict(n_test=np.inf), "n_test is inf"),
        (dict(level=0), "level is 0"),
    ):
        known = dict(differences=[0.1, 0.2], n_train=10, n_test=5)
        with pytest.raises(InputError, match=words):
            metrics.nadeau_bengio(**(known | bad))


def test_holm_leaves_out_what_was_not_tested():
    found = metrics.holm([0.01, 0.02, np.nan, 0.04, 0.04, 0.9])
    # R: p.adjust(c(.01, .02, NA, .04, .04, .9), "holm")
    np.testing.assert_allclose(found, [0.05, 0.08, np.nan, 0.12, 0.12, 0.9], atol=1e-15)
    assert np.isnan(metrics.holm([np.nan])).all() and metrics.holm([]).size == 0
    with pytest.raises(InputError, match=r"p value 1\.2 is out of range; allowed: 0 to 1"):
        metrics.holm([0.1, 1.2])


@settings(max_examples=15, deadline=None)  # statsmodels collects garbage at every call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_helps(values):
    p = np.array(values)
    adjusted = metrics.holm(p)
    assert (adjusted >= p - 1e-15).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_differences_equal_up_to_rounding_have_no_spread():
    same = metrics.nadeau_bengio([0.3, 0.1 + 0.2, 0.3], n_train=90, n_test=30)
    assert np.isnan(same.p) and same.se == 0 and same.reason == "all differences are the same"
    none = metrics.nadeau_bengio([0.0, 1e-17, -1e-17], n_train=90, n_test=30)
    assert (none.p, none.t) == (1.0, 0.0)


def test_unpaired_labels_may_be_a_list_of_two():
    labels, s = ([0, 1, 0, 1, 1], [0, 1, 0, 1, 1, 0]), np.arange(6) % 4
    test = metrics.compare_auc(list(labels), s[:5], s, False)
    assert test == metrics.compare_auc(labels, s[:5], s, paired=False)
