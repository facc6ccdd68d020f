"""Metrics against hand-worked numbers, brute force, scikit-learn and the laws they obey."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from rlvo_lib import metrics
from rlvo_lib.config import InputError

# the size of the study's test set
Y118 = np.array([1] * 16 + [0] * 102)
RNG = np.random.default_rng(11)
S118 = RNG.normal(size=118) + 0.74 * Y118


@st.composite
def labelled_scores(draw):
    """Labels with both classes, and scores with many ties."""
    n = draw(st.integers(2, 14))
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda v: 0 < sum(v) < n))
    s = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    return np.array(y), np.array(s) / 6


def auc_by_pairs(y, s):
    pairs = list(itertools.product(s[y == 1], s[y == 0]))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


@settings(max_examples=60, deadline=None)
@given(labelled_scores())
def test_auc_is_the_share_of_ordered_pairs(case):
    y, s = case
    assert metrics.auc(y, s) == pytest.approx(auc_by_pairs(y, s), abs=1e-12)
    assert metrics.auc(y, -s) == pytest.approx(1 - metrics.auc(y, s), abs=1e-12)
    assert metrics.auc(1 - y, s) == pytest.approx(1 - metrics.auc(y, s), abs=1e-12)
    assert metrics.auc(y, np.exp(3 * s)) == metrics.auc(y, s)


@settings(max_examples=40, deadline=None)
@given(labelled_scores())
def test_the_threshold_cannot_be_beaten(case):
    y, s = case
    for rule, gain in (
        ("max-f1", lambda t: sk.f1_score(y, s >= t, zero_division=0)),
        ("youden", lambda t: (s >= t)[y == 1].mean() - (s >= t)[y == 0].mean()),
    ):
        chosen = metrics.threshold_by(y, s, rule=rule)
        best = max(gain(t) for t in np.unique(s))
        assert gain(chosen) == pytest.approx(best)
        assert all(gain(t) < best - 1e-12 for t in np.unique(s) if t > chosen)


@settings(max_examples=30, deadline=None)
@given(labelled_scores())
def test_unit_weights_give_the_plain_statistic(case):
    y, s = case
    point = metrics.operating_point(y, s, 0.5)
    expected = {
        "auc": sk.roc_auc_score(y, s),
        "average_precision": sk.average_precision_score(y, s),
        "brier": sk.brier_score_loss(y, s),
        "scaled_brier": sk.d2_brier_score(y, s),
        "f1": sk.f1_score(y, s >= 0.5, zero_division=0),
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
    }
    for name, value in expected.items():
        ci = metrics.bootstrap_ci(y, s, name, threshold=0.5, n=2)
        assert ci.estimate == pytest.approx(value, abs=1e-12), name


def test_delong_matches_its_definition():
    """Components of Sun and Xu by double loop, and the covariance of two scores."""
    a, b = S118, S118 + RNG.normal(size=118)

    def components(s):
        psi = (s[Y118 == 1][:, None] > s[Y118 == 0]) + 0.5 * (s[Y118 == 1][:, None] == s[Y118 == 0])
        return psi.mean(axis=1), psi.mean(axis=0)

    (a10, a01), (b10, b01) = components(a), components(b)
    expected = np.cov(a10, b10) / 16 + np.cov(a01, b01) / 102
    aucs, covariance = metrics.delong_covariance(Y118, np.column_stack([a, b]))
    np.testing.assert_allclose(covariance, expected, rtol=1e-12)
    np.testing.assert_allclose(aucs, [sk.roc_auc_score(Y118, s) for s in (a, b)], rtol=1e-12)


def test_intervals_of_an_auc():
    wald = metrics.auc_ci(Y118, S118, "delong")
    assert (wald.low + wald.high) / 2 == pytest.approx(wald.estimate)
    logit = metrics.auc_ci(Y118, S118, "delong-logit")
    assert logit.method == "delong-logit" and logit.se == wald.se
    centre = np.mean([np.log(v / (1 - v)) for v in (logit.low, logit.high)])
    assert 1 / (1 + np.exp(-centre)) == pytest.approx(logit.estimate)
    assert logit.low < wald.low  # the logit interval leans towards 0.5
    resampled = metrics.auc_ci(Y118, S118, "bootstrap", n=4000, seed=1)
    assert resampled.low == pytest.approx(wald.low, abs=0.02)
    assert resampled.high == pytest.approx(wald.high, abs=0.02)
    # paper_consistency.md, section 2
    assert metrics.hanley_mcneil_se(0.53, events=16, n=118) == pytest.approx(0.0789, abs=5e-5)
    assert metrics.hanley_mcneil_se(0.70, events=16, n=118) == pytest.approx(0.0770, abs=5e-5)
    with pytest.raises(InputError, match="method is 'exact'; allowed: delong, "):
        metrics.auc_ci(Y118, S118, "exact")


@pytest.mark.parametrize(
    ("y", "s", "words"),
    [
        ([0, 0, 1, 1], [1, 2, 3, 4], "variance is 0"),  # perfect separation
        ([0, 0, 1, 1], [1, 1, 1, 1], "variance is 0"),  # constant score
        ([0, 0, 1], [1, 2, 1.5], "fewer than two events"),
        ([0, 1], [1, 2], "fewer than two events"),
    ],
)
def test_where_an_auc_has_no_interval_the_reason_is_given(y, s, words):
    for method in ("delong", "delong-logit"):
        ci = metrics.auc_ci(y, s, method)
        assert np.isfinite(ci.estimate) and np.isnan(ci.low) and np.isnan(ci.high)
        assert words in ci.reason


def test_comparison_of_two_aucs():
    a, b = S118, S118 + RNG.normal(size=118)
    ab, ba = metrics.compare_auc(Y118, a, b), metrics.compare_auc(Y118, b, a)
    assert ab.difference == pytest.approx(metrics.auc(Y118, a) - metrics.auc(Y118, b))
    assert (ab.difference, ab.z, ab.low) == pytest.approx((-ba.difference, -ba.z, -ba.high))
    assert ab.p == ba.p and 0 < ab.p < 1
    assert (ab.p < 0.05) == (ab.low > 0 or ab.high < 0)
    same = metrics.compare_auc(Y118, a, 2 * a + 1)
    assert (same.p, same.z, same.difference, same.low, same.high) == (1, 0, 0, 0, 0)
    apart = metrics.compare_auc([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert apart.difference == 1 and np.isnan(apart.p) and "variance" in apart.reason


def test_operating_point():
    point = metrics.operating_point([1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.2, 0.5, 0.4, 0.1, 0.1], 0.5)
    assert (point.tp, point.fp, point.tn, point.fn) == (2, 1, 3, 1)  # 0.5 >= 0.5 is flagged
    assert point.f1 == pytest.approx(2 / 3) and point.ppv == pytest.approx(2 / 3)
    assert (point.specificity, point.npv) == (0.75, 0.75)
    # Wilson limits of 2 of 3: R, binom.confint(2, 3, methods = "wilson")
    assert point.sensitivity_low == pytest.approx(0.2076596, abs=1e-7)
    assert point.sensitivity_high == pytest.approx(0.9385081, abs=1e-7)
    nobody = metrics.operating_point([1, 0], [0.1, 0.2], 0.9)
    assert np.isnan(nobody.ppv) and nobody.f1 == 0
    assert metrics.operating_point([1, 0], [0.1, 0.2], 0.9, zero_division=1.0).f1 == 1
    with pytest.raises(InputError, match="threshold is nan"):
        metrics.operating_point([1, 0], [0.1, 0.2], np.nan)


def test_no_skill_lines():
    assert metrics.flag_everyone_f1(Y118) == pytest.approx(32 / 134)
    assert metrics.f1_score(Y118, np.ones(118)) == pytest.approx(32 / 134)
    assert metrics.coin_f1(Y118) == pytest.approx(0.213, abs=5e-4)
    assert metrics.coin_f1(Y118, 0.25) == pytest.approx(0.175, abs=5e-4)
    assert metrics.average_precision(Y118, np.ones(118)) == pytest.approx(16 / 118)
    assert metrics.auc(Y118, np.ones(118)) == 0.5


def test_calibration():
    rng = np.random.default_rng(4)
    logit = rng.normal(-1.5, 1.2, 4000)
    p = 1 / (1 + np.exp(-logit))
    y = (rng.random(4000) < p).astype(int)
    good = metrics.calibration(y, p)
    assert good.intercept_low < 0 < good.intercept_high
    assert good.slope_low < 1 < good.slope_high
    assert good.brier == pytest.approx(sk.brier_score_loss(y, p))
    assert good.scaled_brier == pytest.approx(sk.d2_brier_score(y, p))
    assert good.o_to_e == pytest.approx(y.sum() / p.sum())
    # twice too extreme halves the slope; a shift of the logit moves the intercept by as much
    assert metrics.calibration(y, 1 / (1 + np.exp(-2 * logit))).slope == pytest.approx(
        good.slope / 2
    )
    shifted = metrics.calibration(y, 1 / (1 + np.exp(-(logit + 1))))
    assert shifted.slope == pytest.approx(good.slope)
    assert shifted.intercept == pytest.approx(good.intercept - 1, abs=1e-6)


def test_calibration_where_something_cannot_be_estimated():
    constant = metrics.calibration(Y118, np.full(118, 16 / 118))
    assert constant.intercept == pytest.approx(0, abs=1e-9) and np.isnan(constant.slope)
    assert "constant" in constant.reason and constant.scaled_brier == pytest.approx(0)
    separated = metrics.calibration([0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.8])
    assert np.isnan(separated.slope) and "separated" in separated.reason
    with pytest.raises(InputError, match="2 probabilities are exactly 0 or 1"):
        metrics.calibration([0, 1, 1, 0], [0, 1, 0.4, 0.3])
    clipped = metrics.calibration([0, 1, 1, 0], [0, 1, 0.4, 0.3], clip=1e-6)
    assert clipped.n_clipped == 2
    assert clipped.brier == pytest.approx((0.36 + 0.09) / 4)  # the Brier score needs no clipping
    with pytest.raises(InputError, match=r"probability 1\.2 is out of range"):
        metrics.calibration([0, 1], [0.2, 1.2])


def test_bootstrap_is_seeded_stratified_and_paired():
    a = metrics.bootstrap_replicates(Y118, S118, "auc", n=50, seed=3)
    assert (a == metrics.bootstrap_replicates(Y118, S118, "auc", n=50, seed=3)).all()
    assert (a != metrics.bootstrap_replicates(Y118, S118, "auc", n=50, seed=4)).any()
    # a plain function sees the same resamples
    plain = metrics.bootstrap_replicates(Y118, S118, sk.roc_auc_score, n=50, seed=3)
    np.testing.assert_allclose(plain, a, atol=1e-12)
    events = metrics.bootstrap_replicates(Y118, S118, lambda y, s: y.sum(), n=20)
    assert set(events) == {16}
    loose = metrics.bootstrap_replicates(Y118, S118, lambda y, s: y.sum(), n=20, stratified=False)
    assert len(set(loose)) > 1
    with pytest.raises(InputError, match="needs a finite threshold"):
        metrics.bootstrap_ci(Y118, S118, "f1")
    with pytest.raises(InputError, match="statistic is 'kappa'; allowed: auc"):
        metrics.bootstrap_ci(Y118, S118, "kappa")


def test_holm_leaves_out_what_was_not_tested():
    np.testing.assert_allclose(
        metrics.holm([0.01, 0.02, np.nan, 0.04]), [0.03, 0.04, np.nan, 0.04], equal_nan=True
    )  # R: p.adjust(c(.01, .02, NA, .04), "holm")
    assert np.isnan(metrics.holm([np.nan])).all()


@pytest.mark.parametrize(
    ("y", "s", "words"),
    [
        ([1, 1], [0.1, 0.2], "only 1"),
        ([0, 0, 0], [0.1, 0.2, 0.3], "only 0"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "y_true holds 2; allowed: 0 and 1"),
        ([0, 1, np.nan], [0.1, 0.2, 0.3], "1 missing"),
        (["no", "yes"], [0.1, 0.2], "y_true holds .*'no'"),
        ([0, 1], [0.1, np.nan], "score has 1 missing or infinite"),
        ([0, 1], [0.1, np.inf], "score has 1 missing or infinite"),
        ([0, 1], [0.1], "score has 1 values, y_true has 2"),
        ([0, 1], ["a", "b"], "score is not numeric"),
        ([], [], "at least two patients"),
    ],
)
def test_unusable_input_is_named(y, s, words):
    calls = (
        metrics.auc,
        metrics.auc_ci,
        metrics.average_precision,
        lambda y, s: metrics.threshold_by(y, s, rule="max-f1"),
        lambda y, s: metrics.operating_point(y, s, 0.5),
        lambda y, s: metrics.bootstrap_ci(y, s, n=2),
        lambda y, s: metrics.compare_auc(y, s, s),
    )
    for call in calls:
        with pytest.raises(InputError, match=words.replace("score", "(score|a)")):
            call(y, s)


def test_booleans_are_zero_and_one():
    assert metrics.auc([False, True], [0.1, 0.2]) == 1
    assert metrics.auc(np.array([False, True], dtype=object), [0.1, 0.2]) == 1


# ------------------------------------------------------------------------------------ balance


def test_smd_known_answers():
    a, b = np.array([60.0, 61, 62, 64]), np.array([63.0, 65, 66, 67])
    expected = (a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert metrics.smd(a, b, kind="continuous") == pytest.approx(expected)
    # binary: p (1 - p), not the sample variance
    p, q = np.repeat([1, 0], [3, 7]), np.repeat([1, 0], [6, 4])
    assert metrics.smd(p, q, kind="binary") == pytest.approx(-0.3 / np.sqrt((0.21 + 0.24) / 2))
    assert metrics.smd(p, q, kind="categorical") == pytest.approx(0.3 / np.sqrt((0.21 + 0.24) / 2))


def test_smd_of_three_levels_by_hand():
    a, b = np.repeat(["x", "y", "z"], [2, 3, 5]), np.repeat(["x", "y", "z"], [5, 3, 2])
    p, q = np.array([0.3, 0.5]), np.array([0.3, 0.2])
    covariance = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    expected = np.sqrt((p - q) @ np.linalg.inv(covariance) @ (p - q))
    assert metrics.smd(a, b, kind="categorical") == pytest.approx(expected)


def test_smd_at_the_edges():
    same, other = np.array([1.0, 1.0]), np.array([2.0, 2.0])
    assert metrics.smd(same, same, kind="continuous") == 0
    assert metrics.smd(same, other, kind="continuous") == -np.inf
    assert metrics.smd(np.array(["a"]), np.array(["b"]), kind="categorical") == np.inf
    assert np.isnan(metrics.smd(np.array([np.nan, 1.0]), other, kind="continuous"))
    assert np.isnan(metrics.smd(np.array([]), other, kind="binary"))
    with_missing = np.array(["a", None, "b", np.nan], dtype=object)
    assert metrics.smd(with_missing, np.array(["a", "b"]), kind="categorical") == 0
    with pytest.raises(InputError, match="kind of SMD 'odd'; allowed: continuous, binary"):
        metrics.smd(same, other, kind="odd")
    with pytest.raises(InputError, match="neither 0 nor 1"):
        metrics.smd(same, other, kind="binary")


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=20, unique=True), st.integers(-5, 5))
def test_smd_changes_sign_with_the_groups_and_ignores_units(values, shift):
    a = np.array(values, dtype=float)
    b = a[::-1] + shift
    there, back = metrics.smd(a, b, kind="continuous"), metrics.smd(b, a, kind="continuous")
    assert there == pytest.approx(-back)
    assert metrics.smd(10 * a, 10 * b, kind="continuous") == pytest.approx(there, abs=1e-6)
