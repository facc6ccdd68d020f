"""Formulas of sample size and precision against published and R's answers, and drawn test sets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.metrics import binormal
from rlvo_lib.metrics import sample_size as size

AREAS = st.floats(0.52, 0.97)
SHARES = st.floats(0.05, 0.6)


# --------------------------------------------------------------------------------- development


def test_r2_of_a_c_statistic():
    # R 4.2.2, integrate() of the two expected log likelihoods, rel.tol 1e-12
    assert size.r2_cox_snell(0.70, 77 / 481) == pytest.approx(0.0686821236851, rel=1e-11)
    assert size.r2_max(77 / 481) == pytest.approx(0.585, abs=5e-4)


def test_r2_is_that_of_a_logistic_fit_to_many_patients():
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    y = (rng.random(200_000) < 0.16).astype(float)
    x = rng.standard_normal(y.size) + y * binormal.separation(0.70)
    fit = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit()
    drawn = 1 - np.exp(-(fit.null_deviance - fit.deviance) / y.size)
    assert drawn == pytest.approx(size.r2_cox_snell(0.70, 0.16), abs=0.004)  # 3 standard errors


def test_the_published_example_of_riley_2020():
    # 24 parameters, prevalence 0.174, R2 0.288 (Riley et al.; pmsampsize's help page)
    found = size.riley_development(24, 0.174, r2=0.288)
    assert (found.n_shrinkage, found.n_optimism, found.n_risk) == (623, 662, 221)
    assert (found.n, found.binding) == (662, "optimism")
    assert found.epv == pytest.approx(4.80, abs=0.005)
    assert found.shrinkage == pytest.approx(0.905, abs=0.0015)


def test_expected_shrinkage_against_r():
    # R 4.2.2, uniroot, tol 1e-13
    found = size.expected_shrinkage(10, 481, size.r2_cox_snell(0.70, 77 / 481))
    assert found == pytest.approx(0.775739813051, rel=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(50, 20_000), AREAS, SHARES)
def test_shrinkage_size_and_parameters_are_one_formula_turned_round(k, n, c, prevalence):
    r2 = size.r2_cox_snell(c, prevalence)
    shrinkage = size.expected_shrinkage(k, n, r2)
    assert r2 < shrinkage < 1
    assert size.parameters_supported(n, r2, shrinkage) == pytest.approx(k, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), AREAS, SHARES)
def test_no_criterion_asks_for_more_than_the_answer(k, c, prevalence):
    found = size.riley_development(k, prevalence, c=c)
    assert found.n == max(found.n_shrinkage, found.n_optimism, found.n_risk)
    assert size.expected_shrinkage(k, found.n, found.r2) >= 0.9 - 1e-9
    assert found.events == pytest.approx(found.n * prevalence)


# ---------------------------------------------------------------------------------- validation


def test_the_size_for_o_e_is_exact():
    # prevalence 0.018, width 1: pmvalsampsize steps the SE by 1e-4 and says 905
    found = size.riley_validation(0.018, 0.8, width_oe=1)
    assert found.n_oe == 906
    assert size.oe_width(0.018, 906) < 1 < size.oe_width(0.018, 905)


def test_the_se_of_the_slope_is_that_of_a_glm():
    # R 4.2.2: glm(p ~ q, binomial) of p = plogis(q), q the 20,000 quantiles of N(-5, 2.5)
    q = -5 + 2.5 * ndtri((np.arange(20_000) + 0.5) / 20_000)
    found = size.slope_se(1, prevalence=0.018, c=0.8, linear_predictor=q)
    assert found == pytest.approx(3.44295878781, rel=2e-7)  # glm's SEs are good to 1e-7
    # the same of the binormal linear predictor, 8,002 weighted points
    found = size.slope_se(1, prevalence=16 / 118, c=0.70)
    assert found == pytest.approx(4.22963666276, rel=2e-7)
    sizes = size.riley_validation(0.018, 0.8, linear_predictor=q, width_oe=1)
    assert sizes.n_slope == int(np.ceil((2 * 1.959963985 * 3.44295878781 / 0.2) ** 2))
    assert (sizes.n, sizes.binding) == (sizes.n_slope, "slope")


def test_the_size_for_the_net_benefit_has_the_width_when_drawn():
    prevalence, c, threshold, width = 0.3, 0.75, 0.25, 0.3
    n = int(
        size.riley_validation(
            prevalence, c, threshold=threshold, width_net_benefit=width
        ).n_net_benefit
    )
    rng = np.random.default_rng(1)
    y = rng.random((4000, n)) < prevalence
    d = binormal.separation(c)
    lp = (
        np.log(prevalence / (1 - prevalence))
        + d * (rng.standard_normal(y.shape) + d * y)
        - d**2 / 2
    )
    flagged = lp >= np.log(threshold / (1 - threshold))
    benefit = (flagged & y).mean(axis=1) - (flagged & ~y).mean(axis=1) / 3
    drawn = (benefit / y.mean(axis=1)).std()
    assert 2 * 1.96 * drawn == pytest.approx(width, rel=0.05)
    without = size.riley_validation(prevalence, c)
    assert np.isnan(without.n_net_benefit)


# ----------------------------------------------------------------------------------------- AUC


def test_standard_errors_of_an_auc():
    assert size.auc_se(0.70, 16, 118) == pytest.approx(0.0770, abs=5e-5)
    assert size.auc_se(0.53, 16, 118) == pytest.approx(0.0789, abs=5e-5)
    # R 4.2.2, integrate() of pnorm(d - x)^2 dnorm(x)
    assert size.auc_se(0.70, 16, 118, "binormal") == pytest.approx(0.0698168524902, rel=1e-10)
    assert size.auc_se(0.53, 16, 118, "binormal") == pytest.approx(0.0778, abs=5e-5)


@settings(max_examples=40, deadline=None)
@given(AREAS, st.integers(2, 40), st.integers(2, 80))
def test_the_standard_error_does_not_depend_on_the_side(area, events, others):
    n = events + others
    for method in ("newcombe", "binormal"):
        here = size.auc_se(area, events, n, method)
        assert size.auc_se(1 - area, events, n, method) == pytest.approx(here, rel=1e-9)
        assert size.auc_se(area, others, n, method) == pytest.approx(here, rel=1e-9)
    mirrored = size.auc_se(1 - area, others, n)  # of Hanley and McNeil: both sides changed
    assert mirrored == pytest.approx(size.auc_se(area, events, n), rel=1e-9)


@pytest.mark.parametrize(
    ("prevalence", "width", "expected"),
    [
        (16 / 118, 0.10, (1067, 886, 877)), (93 / 599, 0.10, (945, 792, 784)),
        (16 / 118, 0.15, (475, 395, 391)), (16 / 118, 0.20, (268, 223, 220)),
    ],
)  # fmt: skip
def test_patients_for_a_width(prevalence, width, expected):
    for method, n in zip(size.SE_METHODS, expected, strict=True):
        assert size.n_for_auc_width(0.70, prevalence, width, method) == n
        assert size.auc_width(0.70, prevalence * n, n, method) <= width
        assert size.auc_width(0.70, prevalence * (n - 1), n - 1, method) > width


def test_patients_for_a_paired_difference():
    for other, expected in ((0.53, (348, 245, 176, 107)), (0.65, (3770, 2641, 1888, 1136))):
        for r, n in zip((0, 0.3, 0.5, 0.7), expected, strict=True):
            assert size.n_for_auc_difference(0.70, other, r, 16 / 118, method="binormal") == n
            assert size.auc_power(
                0.70, 16 / 118 * n, n, other=other, correlation=r, method="binormal"
            ) >= 0.8  # fmt: skip


def test_power_of_one_auc_is_near_that_of_drawn_test_sets():
    drawn = binormal.simulate_auc(0.75, 60, 300, draws=4000, seed=1)
    expected = size.auc_power(0.60, 60, 300, method="binormal")
    found = (binormal.simulate_auc(0.60, 60, 300, draws=4000, seed=2)["low"] > 0.5).mean()
    assert found == pytest.approx(expected, abs=0.03)
    assert drawn["auc"].std() == pytest.approx(size.auc_se(0.75, 60, 300, "binormal"), rel=0.05)


def test_power_at_the_limits():
    assert size.auc_power(0.5, 16, 118) == pytest.approx(0.025)
    assert size.auc_power(0.7, 16, 118, other=0.7, correlation=0.5) == pytest.approx(0.025)
    assert np.isnan(size.auc_power(0.7, 16, 118, other=0.7, correlation=1.0))
    half = size.correlation_for_significance(0.70, 0.53, 16, 118)
    p = size.auc_difference_se(0.70, 0.53, half, 16, 118)
    assert 0.17 / p == pytest.approx(1.959964, rel=1e-6)


# ----------------------------------------------------------------------------- operating points


def test_feasible_counts_are_all_there_are():
    found = size.feasible_counts(0.385, 0.395, 16, 118, area=0.70)
    pairs = [
        (6, 9), (7, 13), (8, 17), (9, 21), (10, 25), (11, 29), (11, 30), (12, 33), (12, 34),
        (13, 37), (13, 38), (14, 41), (14, 42), (15, 45), (15, 46), (16, 50), (16, 51),
    ]  # fmt: skip
    assert list(zip(found["tp"], found["fp"], strict=True)) == pairs
    assert found["compatible"].all()
    y = np.repeat([1, 0], [16, 102])
    for row in found.itertuples():
        flagged = np.concatenate([np.arange(16) < row.tp, np.arange(102) < row.fp]).astype(int)
        assert metrics.f1_score(y, flagged) == pytest.approx(row.f1)
        assert (row.tp + row.fn, row.fp + row.tn) == (16, 102)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 30))
def test_a_score_lies_within_the_bounds_of_its_own_operating_points(seed, events, others):
    rng = np.random.default_rng(seed)
    y = np.repeat([1, 0], [events, others])
    s = rng.integers(0, 6, y.size).astype(float)
    t = rng.choice(s)
    point, area = metrics.operating_point(y, s, t), metrics.auc(y, s)
    found = size.feasible_counts(point.f1, point.f1, events, y.size, area=area)
    mine = found[(found["tp"] == point.tp) & (found["fp"] == point.fp)]
    assert len(mine) == 1
    assert (mine["auc_low"] <= area + 1e-12).all() and (mine["auc_high"] >= area - 1e-12).all()


def test_an_impossible_auc_is_found_out():
    found = size.feasible_counts(0.385, 0.395, 16, 118, area=0.95)
    assert found["compatible"].sum() == 4  # those with 15 or 16 true alarms


def test_the_spread_of_f1_against_r():
    # R 4.2.2: sums over outer(dbinom(0:16, 16, .5), dbinom(0:102, 102, 17/102))
    found = size.f1_spread(8 / 16, 85 / 102, 16, 118)
    assert (found.mean, found.sd) == pytest.approx((0.3896284778743, 0.0874789292015), rel=1e-10)
    assert (round(found.low, 2), round(found.high, 2)) == (0.22, 0.56)
    many = size.f1_spread(0.5, 0.8, 3000, 20_000)  # as exact, and no table of 51 million cells
    assert many.mean == pytest.approx(many.f1, abs=1e-4) and 0 < many.sd < 0.01
    certain = size.f1_spread(1.0, 0.0, 16, 118)
    assert (certain.f1, certain.low, certain.high) == pytest.approx((32 / 134,) * 3)
    assert certain.sd == pytest.approx(0, abs=1e-12)


def test_best_f1_of_the_binormal_curve():
    # R 4.2.2, optimize, tol 1e-10
    assert binormal.best_f1(0.70, 16 / 118).f1 == pytest.approx(0.337774489183, rel=1e-10)


# ------------------------------------------------------------------------------------- planning


def test_the_plan_agrees_with_its_parts():
    plan = size.precision_plan(118, 16 / 118, (0.53, 0.70))
    at = plan[plan["auc"] == 0.70].set_index("quantity")
    assert at.at["auc", "width"] == pytest.approx(size.auc_width(0.70, 16, 118, "binormal"))
    assert at.at["auc", "power"] == size.auc_power(0.70, 16, 118, method="binormal")
    assert at.at["oe", "width"] == pytest.approx(size.oe_width(16 / 118, 118))
    best = binormal.best_f1(0.70, 16 / 118)
    assert at.at["f1", "se"] == size.f1_spread(best.sensitivity, best.specificity, 16, 118).sd
    low, high = metrics.wilson(best.sensitivity * 16, 16)
    assert (at.at["sensitivity", "low"], at.at["sensitivity", "high"]) == (low, high)
    assert (plan["low"] <= plan["value"]).all() and (plan["value"] <= plan["high"]).all()
    assert list(plan["quantity"][:5]) == ["auc", "sensitivity", "specificity", "f1", "oe"]


def test_more_patients_are_never_less_precise():
    widths = [
        size.precision_plan(n, 0.16, (0.7,)).set_index("quantity")["width"]
        for n in (100, 200, 400, 800, 1600)
    ]
    for before, after in zip(widths, widths[1:], strict=False):
        assert (after < before).all()


# ------------------------------------------------------------------------------ drawn test sets


def test_drawn_test_sets_are_those_of_the_metrics():
    """The vectorised AUC, DeLong SE, paired test and F1 equal the metrics, draw by draw."""
    rng = np.random.default_rng(9)
    scores = rng.standard_normal((5, 40))
    y = np.repeat([1, 0], [9, 31])
    above, below = binormal.placements(scores, 9)
    for k in range(5):
        aucs, covariance = metrics.delong_covariance(y, scores[k])
        assert above[k].mean() == pytest.approx(aucs[0]) == below[k].mean()
        variance = above[k].var(ddof=1) / 9 + below[k].var(ddof=1) / 31
        assert variance == pytest.approx(covariance[0, 0])


def test_a_drawn_pair_has_delongs_p():
    events, n, draws, seed, r = 9, 40, 3, 4, 0.6
    found = binormal.simulate_pair(0.8, 0.6, r, events, n, draws=draws, seed=seed)
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((draws, n))
    b = r * a + 0.8 * rng.standard_normal((draws, n))
    a[:, :events] += binormal.separation(0.8)
    b[:, :events] += binormal.separation(0.6)
    y = np.repeat([1, 0], [events, n - events])
    for k in range(draws):
        test = metrics.compare_auc(y, a[k], b[k])
        assert found["p"][k] == pytest.approx(test.p)
        assert found["difference"][k] == pytest.approx(test.difference)


def test_a_drawn_f1_is_that_of_the_threshold_rule():
    events, n, seed = 9, 40, 4
    found = binormal.simulate_f1(0.75, events, n, draws=3, seed=seed)
    scores = np.random.default_rng(seed).standard_normal((3, n))
    scores[:, :events] += binormal.separation(0.75)
    y = np.repeat([1, 0], [events, n - events])
    fixed = binormal.best_f1(0.75, events / n).threshold
    for k in range(3):
        tuned = metrics.threshold_by(y, scores[k], rule="max-f1")
        assert found["tuned"][k] == pytest.approx(metrics.operating_point(y, scores[k], tuned).f1)
        assert found["fixed"][k] == pytest.approx(metrics.operating_point(y, scores[k], fixed).f1)
        assert found["auc"][k] == pytest.approx(metrics.auc(y, scores[k]))


def test_the_same_seed_draws_the_same():
    one, two, three = (
        binormal.simulate_auc(0.7, 16, 118, draws=50, seed=s)["auc"] for s in (1, 1, 2)
    )
    assert one.equals(two) and not one.equals(three)


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: size.r2_cox_snell(1.0, 0.2), "AUC is 1.0"),
        (lambda: size.r2_cox_snell(0.7, 0.0), "prevalence is 0.0"),
        (lambda: size.riley_development(5, 0.2), "exactly one"),
        (lambda: size.riley_development(5, 0.2, c=0.7, r2=0.1), "exactly one"),
        (lambda: size.riley_development(5, 0.2, r2=0.9), "below"),
        (lambda: size.riley_development(5, 0.2, c=0.5), "above 0"),
        (lambda: size.riley_development(0, 0.2, c=0.7), "parameters is 0"),
        (lambda: size.parameters_supported(100, 0.2, 0.1), "shrinkage is 0.1"),
        (lambda: size.riley_validation(0.2, 0.5), "no slope"),
        (lambda: size.riley_validation(0.2, 0.7, threshold=1.0), "threshold is 1.0"),
        (lambda: size.riley_validation(0.2, 0.7, width_c=0), "width_c is 0"),
        (lambda: size.auc_se(0.7, 16, 16), "16 events of 16"),
        (lambda: size.auc_se(0.7, 16, 118, "exact"), "hanley-mcneil, newcombe, binormal"),
        (lambda: size.auc_se(float("nan"), 16, 118), "AUC is nan"),
        (lambda: size.n_for_auc_width(0.7, 0.2, 1e-6), "no sample"),
        (lambda: size.n_for_auc_difference(0.7, 0.7, 0.5, 0.2), "two different"),
        (lambda: size.auc_difference_se(0.7, 0.6, 1.1, 16, 118), "correlation is 1.1"),
        (lambda: size.feasible_counts(0.4, 0.3, 16, 118), "low <= high"),
        (lambda: size.feasible_counts(0.3, 0.4, 0, 118), "0 events of 118"),
        (lambda: size.feasible_counts(0.3, 0.4, 16, 118, area=2), "area is 2"),
        (lambda: size.f1_spread(1.2, 0.5, 16, 118), "sensitivity is 1.2"),
        (lambda: size.precision_plan(4, 0.01), "at least one event"),
        (lambda: binormal.simulate_auc(0.7, 16, 118, draws=0), "0 draws"),
        (lambda: binormal.simulate_pair(0.7, 0.6, 2, 16, 118, draws=1), "correlation is 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
