"""Metrics against hand-worked numbers, brute force, scikit-learn and the laws they obey."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import Y118, labelled_scores
from sklearn import metrics as sk

from rlvo_lib import metrics
from rlvo_lib.config import InputError


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
        lambda y, s: metrics.threshold_by(y, s, rule="max-f1"),
        lambda y, s: metrics.operating_point(y, s, 0.5),
    )
    for call in calls:
        with pytest.raises(InputError, match=words):
            call(y, s)


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
