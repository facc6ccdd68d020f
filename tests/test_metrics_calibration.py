"""Calibration against R (glm, rms, loess, lowess), its laws, and what cannot be estimated."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from rlvo_lib import metrics
from rlvo_lib.config import InputError


def cohort(n, events, digits=None):
    """Outcomes and probabilities by a formula, of a model whose predictions are too spread."""
    i = np.arange(n)
    u, v = (i * 0.6180339887498949 + 0.25) % 1, (i * 0.7548776662466927 + 0.5) % 1
    logit = -2.1 + 0.9 * np.log((u + 0.01) / (1.01 - u))
    chance = 1 / (1 + np.exp(-(0.4 + 0.8 * logit)))
    y = np.zeros(n)
    y[np.argsort(v / chance, kind="stable")[:events]] = 1
    p = 1 / (1 + np.exp(-logit))
    return y, p if digits is None else np.round(p, digits)


# R 4.2.2 on cohort(...): stats::glm(y ~ offset(qlogis(p))), glm(y ~ qlogis(p)), confint.default,
# epsilon 1e-14; rms 6.5 val.prob (Brier, S:z, S:p)
MODELS = {
    118: {
        "intercept": -0.4586047181787,
        "intercept_low": -1.056421732199,
        "intercept_high": 0.1392122958412,
        "slope": 0.6434807745813,
        "slope_low": 0.2328420112273,
        "slope_high": 1.054119537935,
        "brier": 0.1158706375083,
        "spiegelhalter_z": 0.1814879976314,
        "spiegelhalter_p": 0.8559845532223,
    },
    599: {
        "intercept": -0.4957285381001,
        "intercept_low": -0.7651513949857,
        "intercept_high": -0.2263056812145,
        "slope": 0.5628294865767,
        "slope_low": 0.3811707686495,
        "slope_high": 0.7444882045039,
        "brier": 0.1166026502998,
        "spiegelhalter_z": 0.6127815097074,
        "spiegelhalter_p": 0.5400208185085,
    },
}
EVENTS = {118: 16, 599: 77}

# mean, median and 90 % quantile of abs(f - p), 100 * mean((f - p)^2) and sum(f < 0 | f > 1) for
# f = fitted(loess(y ~ p)), with surface = "direct", and lowess(p, y, iter = 0, delta = 0)
SMOOTHED = [
    (118, None, "loess", 0.07443714124967, 0.03875150300818, 0.1926432317821, 1.247780939038, 11),
    (118, None, "loess-direct", 0.07553510849662, 0.04080736529325, 0.1894312029619, 1.243841423123, 11),
    (118, None, "lowess", 0.06438723406195, 0.02750627984125, 0.153405232307, 1.015257985167, 10),
    (118, 2, "loess", 0.07350834279417, 0.03538580880174, 0.1930601108591, 1.24614000508, 8),
    (118, 2, "loess-direct", 0.07472398929850, 0.03986971007457, 0.1894867720336, 1.237466625474, 8),
    (118, 2, "lowess", 0.06402729813563, 0.02854009110937, 0.154511736536, 1.017141823057, 8),
    (118, 1, "lowess", 0.06544812536314, 0.03125, 0.1645163050867, 0.988202725824, 0),
    (599, None, "loess", 0.06224332154387, 0.01786579159066, 0.1723648475174, 1.330103088756, 4),
    (599, None, "loess-direct", 0.06192488017126, 0.01783656815093, 0.1709700674806, 1.313160418171, 4),
    (599, None, "lowess", 0.06036265427787, 0.01022749114978, 0.1781895325681, 1.253035340108, 0),
    (599, 2, "loess", 0.06265102122534, 0.01777703166101, 0.1722036339312, 1.331327746004, 10),
    (599, 2, "loess-direct", 0.06258554040071, 0.01767970848662, 0.1714532669155, 1.320364139933, 10),
    (599, 2, "lowess", 0.06080299786388, 0.01067764153146, 0.178534296815, 1.258290660506, 0),
    (599, 1, "lowess", 0.06466235175499, 0.03012048192771, 0.1609504041334, 1.2692987058, 0),
]  # fmt: skip

# by their definition in R: unique(quantile(p, 0:10 / 10)), cut(include.lowest = TRUE); groups,
# chi-squared, pchisq with as many df as groups and with 2 fewer
HOSMER_LEMESHOW = [
    (118, None, 10, 10.72486845828, 0.379351208553, 0.217781077508),
    (118, 2, 10, 11.63889298911, 0.3099506373952, 0.1680573089958),
    (118, 1, 5, 6.136848923275, 0.2931298014823, 0.1051387647663),
    (599, None, 10, 30.70146672065, 0.0006571552501447, 0.0001587685098742),
    (599, 1, 5, 31.66383003331, 6.924921583199e-06, 6.160651356317e-07),
]

# m <- loess(y ~ p, surface = ...); predict(m, seq(min(p), max(p), length.out = 5), se = TRUE),
# fit and fit -/+ qt(.975, df) * se.fit
CURVES = [
    (118, None, "loess",
     [-0.03770966885863, 0.1469474628909, 0.2434537240081, 0.3993454669635, 0.4655563162172],
     [-0.2188132799318, 0.0170967256636, 0.09112926366873, 0.2253414650792, 0.04135313187469],
     [0.1433939422145, 0.2767982001182, 0.3957781843474, 0.5733494688479, 0.8897595005597]),
    (599, None, "loess",
     [-0.001367355091983, 0.1582546753542, 0.2744872133194, 0.3304850341289, 0.3067209405926],
     [-0.07841562698841, 0.1022684518357, 0.2088375383553, 0.2501258960583, 0.0890773549706],
     [0.07568091680445, 0.2142408988727, 0.3401368882834, 0.4108441721995, 0.5243645262146]),
    (599, 2, "loess-direct",
     [-0.00371698349565, 0.154970553037, 0.27445999425, 0.3331172820547, 0.3087815089877],
     [-0.08491801995506, 0.098137672622, 0.208868616632, 0.2524973802757, 0.0957202941272],
     [0.07748405296376, 0.2118034334521, 0.3400513718681, 0.4137371838336, 0.5218427238483]),
]  # fmt: skip


@pytest.mark.parametrize("n", [118, 599])
def test_models_and_scores_as_in_r(n):
    y, p = cohort(n, EVENTS[n])
    result = metrics.calibration(y, p)
    assert (result.n, result.events, result.n_clipped, result.reason) == (n, EVENTS[n], 0, "")
    for name, value in MODELS[n].items():
        assert getattr(result, name) == pytest.approx(value, rel=1e-9), name
    assert result.brier == pytest.approx(sk.brier_score_loss(y, p))
    assert result.scaled_brier == pytest.approx(sk.d2_brier_score(y, p))
    assert result.o_to_e == pytest.approx(y.sum() / p.sum())


def test_calibration_in_the_large_is_not_the_intercept_of_the_slope_model():
    y, p = cohort(118, 16)
    # R: coef(glm(y ~ qlogis(p)))[1], which val.prob calls Intercept
    assert metrics.calibration(y, p).intercept != pytest.approx(-0.8341566849465, abs=0.3)


@pytest.mark.parametrize(
    ("n", "digits", "smoother", "ici", "e50", "e90", "eci", "outside"), SMOOTHED
)
def test_smoothed_indices_as_in_r(n, digits, smoother, ici, e50, e90, eci, outside):
    y, p = cohort(n, EVENTS[n], digits)
    result = metrics.calibration(y, p, clip=1e-6, smoother=smoother)
    found = (result.ici, result.e50, result.e90, result.eci)
    assert found == pytest.approx((ici, e50, e90, eci), rel=1e-9)
    assert result.smoothed_outside == outside
    assert result.smoother == metrics.SMOOTHERS[smoother] and result.reason == ""


@pytest.mark.parametrize(("n", "digits", "smoother", "fit", "low", "high"), CURVES)
def test_curve_as_in_r(n, digits, smoother, fit, low, high):
    y, p = cohort(n, EVENTS[n], digits)
    curve = metrics.calibration_curve(y, p, smoother=smoother, points=5)
    np.testing.assert_allclose(curve.predicted, np.linspace(p.min(), p.max(), 5))
    for name, expected in (("observed", fit), ("low", low), ("high", high)):
        np.testing.assert_allclose(curve[name], expected, rtol=1e-9, err_msg=name)
    assert (curve.reason == "").all()
    wider = metrics.calibration_curve(y, p, smoother=smoother, points=5, level=0.99)
    assert (wider.low < curve.low).all() and (wider.high > curve.high).all()


@pytest.mark.parametrize(
    ("n", "digits", "groups", "statistic", "p_external", "p_here"), HOSMER_LEMESHOW
)
def test_hosmer_lemeshow_as_in_r(n, digits, groups, statistic, p_external, p_here):
    y, p = cohort(n, EVENTS[n], digits)
    result = metrics.calibration(y, p, clip=1e-6)
    assert result.hosmer_lemeshow_groups == result.hosmer_lemeshow_df == groups
    assert result.hosmer_lemeshow == pytest.approx(statistic, rel=1e-9)
    assert result.hosmer_lemeshow_p == pytest.approx(p_external, rel=1e-9)
    here = metrics.calibration(y, p, clip=1e-6, fitted_here=True)
    assert here.hosmer_lemeshow_df == groups - 2
    assert here.hosmer_lemeshow_p == pytest.approx(p_here, rel=1e-9)


def test_few_distinct_probabilities():
    """Where R's loess only warns of a near-singular fit, there is no value, and the rest stands."""
    y, p = cohort(599, 77, 1)
    assert np.unique(p).size == 10
    result = metrics.calibration(y, p, clip=1e-6)
    assert np.isnan([result.ici, result.e50, result.e90, result.eci, result.smoothed_outside]).all()
    assert "loess has no stable fit" in result.reason
    assert result.slope == pytest.approx(0.1853944884812, rel=1e-9)  # glm, as above
    curve = metrics.calibration_curve(y, p)
    assert curve.observed.isna().all() and curve.reason.str.contains("no stable fit").all()
    # and the failure leaves nothing behind
    assert metrics.calibration(*cohort(599, 77)).ici == pytest.approx(0.06224332154387, rel=1e-9)


def test_lowess_curve_has_no_interval():
    y, p = cohort(118, 16)
    curve = metrics.calibration_curve(y, p, smoother="lowess", points=2)
    # R: lowess(p, y, iter = 0, delta = 0)$y[c(1, 118)]
    np.testing.assert_allclose(curve.observed, [-0.02404049843544, 0.5197270302364], rtol=1e-9)
    assert curve[["low", "high"]].isna().all(axis=None)
    assert set(curve.reason) == {"lowess has no interval"}


def test_a_share_without_events_is_not_outside():
    """Smoothed to -1e-17 is 0: only what leaves 0..1 by more than rounding is counted."""
    p = np.linspace(0.01, 0.99, 100)
    result = metrics.calibration((p > 0.985).astype(int), p)
    curve = metrics.calibration_curve((p > 0.985).astype(int), p, points=3)
    assert abs(curve.observed[0]) < 1e-12
    assert result.smoothed_outside < 20


# ------------------------------------------------------------------------------------------- laws


def test_calibration():
    rng = np.random.default_rng(4)
    logit = rng.normal(-1.5, 1.2, 4000)
    p = 1 / (1 + np.exp(-logit))
    y = (rng.random(4000) < p).astype(int)
    good = metrics.calibration(y, p)
    assert good.intercept_low < 0 < good.intercept_high
    assert good.slope_low < 1 < good.slope_high
    assert good.ici < 0.02 and good.hosmer_lemeshow_p > 0.01 and good.spiegelhalter_p > 0.01
    # twice too extreme halves the slope; a shift of the logit moves the intercept by as much
    extreme = metrics.calibration(y, 1 / (1 + np.exp(-2 * logit)))
    assert extreme.slope == pytest.approx(good.slope / 2)
    assert extreme.ici > 3 * good.ici and extreme.hosmer_lemeshow_p < 1e-6
    assert extreme.spiegelhalter_z > 5
    shifted = metrics.calibration(y, 1 / (1 + np.exp(-(logit + 1))))
    assert shifted.slope == pytest.approx(good.slope)
    assert shifted.intercept == pytest.approx(good.intercept - 1, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_predicting_the_other_class_is_the_mirror_image(seed):
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.02, 0.98, 80)
    y = np.append([0, 1], rng.random(78) < p[2:]).astype(int)
    one = metrics.calibration(y, p, smoother="loess-direct")
    other = metrics.calibration(1 - y, 1 - p, smoother="loess-direct")
    assert other.intercept == pytest.approx(-one.intercept, abs=1e-8)
    for name in ("slope", "brier", "scaled_brier", "spiegelhalter_z", "ici", "e90"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-7), name
    ordered = rng.permutation(80)
    again = metrics.calibration(y[ordered], p[ordered], smoother="loess-direct")
    for name in ("slope", "ici", "e50", "hosmer_lemeshow", "spiegelhalter_p"):
        assert getattr(again, name) == pytest.approx(getattr(one, name), abs=1e-8), name


def test_every_patient_twice_is_no_new_knowledge_but_looks_like_it():
    y, p = cohort(118, 16)
    one, twice = metrics.calibration(y, p), metrics.calibration(np.tile(y, 2), np.tile(p, 2))
    assert (twice.intercept, twice.slope, twice.brier) == pytest.approx(
        (one.intercept, one.slope, one.brier), rel=1e-9
    )
    assert (one.slope_high - one.slope_low) / (twice.slope_high - twice.slope_low) == pytest.approx(
        2**0.5, rel=1e-7
    )


def test_groups_are_closed_on_the_right():
    """Four groups of 0.1..0.8 by hand: edges 0.1, 0.275, 0.45, 0.625, 0.8."""
    p, y = np.arange(1, 9) / 10, np.array([0, 0, 1, 0, 1, 0, 1, 1])
    result = metrics.calibration(y, p, groups=4)
    observed, expected = np.array([0, 1, 1, 2]), np.array([0.3, 0.7, 1.1, 1.5])
    by_hand = sum((observed - expected) ** 2 / (expected * (1 - expected / 2)))
    assert result.hosmer_lemeshow == pytest.approx(by_hand)
    # 0.2 is a quantile of five values in four groups: it closes the first group
    result = metrics.calibration([0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6], groups=4)
    observed, expected, size = np.array([1, 0, 1, 1]), np.array([0.3, 0.3, 0.4, 0.6]), [2, 1, 1, 1]
    by_hand = sum((observed - expected) ** 2 / (expected * (1 - expected / size)))
    assert result.hosmer_lemeshow == pytest.approx(by_hand)


# ------------------------------------------------------------------- what cannot be estimated, and errors


def test_constant_probability():
    y = cohort(118, 16)[0]
    constant = metrics.calibration(y, np.full(118, 16 / 118))
    assert constant.intercept == pytest.approx(0, abs=1e-9) and np.isnan(constant.slope)
    assert constant.scaled_brier == pytest.approx(0) and np.isfinite(constant.spiegelhalter_z)
    assert np.isnan([constant.ici, constant.hosmer_lemeshow, constant.hosmer_lemeshow_p]).all()
    assert constant.hosmer_lemeshow_groups == 1
    for words in ("no slope", "no smoothed curve", "groups left: 1"):
        assert words in constant.reason
    half = metrics.calibration(y, np.full(118, 0.5))
    assert np.isnan(half.spiegelhalter_z) and "no Spiegelhalter test" in half.reason
    assert metrics.calibration_curve(y, np.full(118, 0.5), points=3).observed.isna().all()


@pytest.mark.parametrize(
    ("y", "p"),
    [
        ([0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.8]),
        ([1, 1, 1, 0, 0], [0.1, 0.2, 0.3, 0.7, 0.8]),  # backwards
        ([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.3, 0.7, 0.8]),  # save patients on the cut
        ([0, 1], [0.4, 0.6]),
    ],
)
def test_perfect_separation(y, p):
    separated = metrics.calibration(y, p)
    assert np.isnan([separated.slope, separated.slope_low, separated.slope_high]).all()
    assert "separated perfectly" in separated.reason
    assert np.isfinite([separated.intercept, separated.brier, separated.spiegelhalter_z]).all()


def test_a_perfect_prediction_has_no_finite_intercept():
    sure = metrics.calibration([0, 0, 1, 1], [1e-12, 1e-12, 1 - 1e-12, 1 - 1e-12])
    assert np.isnan(sure.intercept) and "no calibration in the large" in sure.reason


def test_probabilities_of_exactly_0_or_1():
    with pytest.raises(InputError, match="2 probabilities are exactly 0 or 1"):
        metrics.calibration([0, 1, 1, 0], [0, 1, 0.4, 0.3])
    clipped = metrics.calibration([0, 1, 1, 0], [0, 1, 0.4, 0.3], clip=1e-6)
    assert clipped.n_clipped == 2
    assert clipped.brier == pytest.approx((0.36 + 0.09) / 4)  # the Brier score needs no clipping
    with pytest.raises(InputError, match="clip is 0.5; allowed: above 0 and below 0.5"):
        metrics.calibration([0, 1], [0.2, 0.4], clip=0.5)
    sure = metrics.calibration([0, 1, 0, 1], [0, 0, 1, 1], clip=1e-6)
    assert np.isnan([sure.hosmer_lemeshow, sure.spiegelhalter_z]).all()
    assert "a group expects no event" in sure.reason
    nothing = metrics.calibration([0, 1], [0, 0], clip=1e-6)
    assert np.isnan(nothing.o_to_e) and "no O:E" in nothing.reason


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from([1, 2, 6]))
def test_small_and_tied_samples_say_why_they_have_no_value(seed, n, digits):
    rng = np.random.default_rng(seed)
    y = np.append([0, 1], rng.integers(0, 2, n - 2))
    p = np.clip(np.round(rng.random(n), digits), 0.01, 0.99)
    for smoother in metrics.SMOOTHERS:
        result = metrics.calibration(y, p, smoother=smoother)
        missing = [name for name, value in vars(result).items() if value != value]
        assert bool(missing) == bool(result.reason), (missing, result.reason)
        curve = metrics.calibration_curve(y, p, smoother=smoother, points=4)
        assert (curve.isna().any(axis=1) == (curve.reason != "")).all()


@pytest.mark.parametrize(
    ("y", "p", "words"),
    [
        ([0, 1], [0.2, 1.2], r"probability 1\.2 is out of range; allowed: 0 to 1"),
        ([0, 1], [-0.1, 0.2], r"probability -0\.1 is out of range"),
        ([0, 1], [0.1, np.nan], "probability has 1 missing"),
        ([0, 1], ["low", "high"], "probability is not numeric"),
        ([0, 1], [0.1], "probability has 1 values, y_true has 2"),
        ([1, 1], [0.1, 0.2], "only 1"),
        (["no", "yes"], [0.1, 0.2], "y_true holds .*'no'"),
        ([], [], "at least two patients"),
    ],
)
def test_unusable_input_is_named(y, p, words):
    for call in (metrics.calibration, metrics.calibration_curve):
        with pytest.raises(InputError, match=words):
            call(y, p)


def test_unknown_options_are_named():
    y, p = cohort(118, 16)
    for call in (metrics.calibration, metrics.calibration_curve):
        with pytest.raises(InputError, match="smoother is 'spline'; allowed: loess, loess-direct"):
            call(y, p, smoother="spline")
        with pytest.raises(InputError, match="level is 95"):
            call(y, p, level=95)
    with pytest.raises(InputError, match="groups is 1; allowed: at least 2"):
        metrics.calibration(y, p, groups=1)
    with pytest.raises(InputError, match="points is 1; allowed: at least 2"):
        metrics.calibration_curve(y, p, points=1)


def test_labels_may_be_booleans():
    y, p = cohort(118, 16)
    assert metrics.calibration(y == 1, p) == metrics.calibration(y, p)


def test_many_patients():
    """skmisc's standard errors end the process at 50,000 patients; they are not asked for."""
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-rng.normal(-2, 1, 100_000)))
    y = rng.random(100_000) < p
    start = time.perf_counter()
    result = metrics.calibration(y, p)
    curve = metrics.calibration_curve(y, p)
    assert time.perf_counter() - start < 10
    assert result.ici < 0.01 and result.slope == pytest.approx(1, abs=0.05)
    assert curve.observed.notna().all() and curve.low.isna().all()
    assert set(curve.reason) == {"more than 5000 patients: no interval computed"}
    for smoother in ("loess-direct", "lowess"):
        with pytest.raises(InputError, match=f"smoother '{smoother}' with 100000 patients"):
            metrics.calibration(y, p, smoother=smoother)


def test_an_intercept_that_does_not_solve_its_equation_is_none():
    """A probability of 1e-300 throws the iteration to 1e14, which is no estimate."""
    p = np.where(np.arange(20) < 6, 1e-300, np.linspace(0.1, 0.9, 20))
    found = metrics.calibration(np.arange(20) % 2, p)
    assert np.isnan([found.intercept, found.intercept_low, found.intercept_high]).all()
    assert "does not converge: no calibration in the large" in found.reason
