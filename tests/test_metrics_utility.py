"""Net benefit by hand, and paired comparison of operating points against R and the literature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from rlvo_lib import metrics
from rlvo_lib.config import InputError

# ------------------------------------------------------------------------------------ net benefit


def test_net_benefit_by_hand():
    """10 patients, 3 events; at 0.2 there are 2 true and 2 false positives, at 0.5 one and none."""
    y = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    p = [0.8, 0.2, 0.1, 0.4, 0.3, 0.1, 0.1, 0.05, 0.05, 0.0]
    table = metrics.net_benefit(y, p, [0.5, 0.2, 0]).set_index("threshold")
    assert list(table.columns) == [
        "n", "events", "true_positives", "false_positives", "net_benefit", "standardised",
        "treat_all", "treat_none", "interventions_avoided",
    ]  # fmt: skip
    at = table.loc[0.2]
    assert (at.n, at.events, at.true_positives, at.false_positives) == (10, 3, 2, 2)
    assert at.net_benefit == pytest.approx(0.2 - 0.2 / 4)
    assert at.standardised == pytest.approx(0.15 / 0.3)
    assert at.treat_all == pytest.approx(0.3 - 0.7 / 4) and at.treat_none == 0
    # of 6 patients not flagged 5 are spared, against 1 missed event worth 4 of them
    assert at.interventions_avoided == pytest.approx(5 / 10 - 1 / 10 * 4)
    at = table.loc[0.5]
    assert (at.true_positives, at.false_positives) == (1, 0)
    assert at.net_benefit == pytest.approx(0.1) and at.treat_all == pytest.approx(-0.4)
    at = table.loc[0]  # everybody is flagged and no intervention can be avoided
    assert at.net_benefit == at.treat_all == pytest.approx(0.3)
    assert np.isnan(at.interventions_avoided)


def test_thresholds_that_are_not_quite_what_was_meant():
    """np.arange(0.05, 0.5, 0.05) holds 0.15000000000000002: patients at 0.15 are flagged."""
    grid = np.arange(0.05, 0.5, 0.05)
    assert grid[2] > 0.15 and grid[6] > 0.35
    table = metrics.net_benefit([1, 0, 1, 0], [0.15, 0.15, 0.35, 0.35], grid)
    assert table.threshold.tolist() == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45]
    assert table.true_positives.tolist() == [2, 2, 2, 1, 1, 1, 1, 0, 0]
    assert table.false_positives.tolist() == [2, 2, 2, 1, 1, 1, 1, 0, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40))
def test_laws_of_net_benefit(seed, n):
    rng = np.random.default_rng(seed)
    y = np.append([0, 1], rng.integers(0, 2, n - 2))
    p = np.round(rng.random(n), 1)
    grid = np.arange(0, 1, 0.1)
    table = metrics.net_benefit(y, p, grid)
    brute = [((p >= t) @ y - (p >= t) @ (1 - y) * t / (1 - t)) / n for t in np.round(grid, 10)]
    np.testing.assert_allclose(table.net_benefit, brute, atol=1e-12)
    assert (table.net_benefit <= table.events / n + 1e-12).all()
    constant = metrics.net_benefit(y, np.full(n, y.mean()), grid)
    flagged = constant.threshold <= y.mean()
    best = np.where(flagged, constant.treat_all, constant.treat_none)
    np.testing.assert_allclose(constant.net_benefit, best, atol=1e-12)
    # the rule's threshold reaches the highest net benefit at the exchange rate it was given
    threshold = metrics.threshold_by(y, p, rule="net-benefit", value=0.3)
    point = metrics.operating_point(y, p, threshold)
    reached = (point.tp - point.fp * 0.3 / 0.7) / n
    assert reached >= table.net_benefit[3] - 1e-12


@pytest.mark.parametrize(
    ("p", "thresholds", "words"),
    [
        ([0.1, 1.2], [0.1], r"probability 1\.2 is out of range"),
        ([0.1, 0.2], [0.1, 1], "threshold 1 is out of range; allowed: 0 <= threshold < 1"),
        ([0.1, 0.2], [-0.1], r"threshold -0\.1 is out of range"),
        ([0.1, 0.2], [np.nan], "threshold nan is out of range"),
        ([0.1, 0.2], [], "at least one"),
        ([0.1, 0.2], ["low"], "allowed: numbers"),
        ([0.1, np.nan], [0.1], "1 missing"),
    ],
)
def test_net_benefit_of_unusable_input(p, thresholds, words):
    with pytest.raises(InputError, match=words):
        metrics.net_benefit([0, 1], p, thresholds)
    assert metrics.net_benefit([False, True], [0, 1], 0.5).net_benefit.tolist() == [0.5]


# ------------------------------------------------------------------------------- paired comparison


def compared(both, only_a, only_b, neither, level=0.95):
    """The comparison in which events fall into a fourfold table; 2 non-events are never flagged."""
    a = np.repeat([1, 1, 0, 0, 0], [both, only_a, only_b, neither, 2])
    b = np.repeat([1, 0, 1, 0, 0], [both, only_a, only_b, neither, 2])
    y = np.repeat([1, 0], [both + only_a + only_b + neither, 2])
    return metrics.compare_operating_points(y, a, b, threshold_a=1, threshold_b=1, level=level)


@pytest.mark.parametrize(
    ("table", "difference", "low", "high", "digits"),
    [
        # Fagerland, Lydersen and Laake, Stat Med 2014: Bentur et al. 2009
        ((1, 1, 7, 12), -0.286, -0.507, -0.026, 3),
        # Cavo et al. 2012, as the tests of R package contingencytables have it
        ((59, 6, 16, 80), -0.0621, -0.1186, -0.0046, 4),
    ],
)
def test_newcombes_interval_in_the_literature(table, difference, low, high, digits):
    result = compared(*table)
    found = (result.sensitivity_difference, result.sensitivity_low, result.sensitivity_high)
    assert [round(v, digits) for v in found] == [difference, low, high]


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(0, 12)] * 4).filter(any), st.sampled_from([0.9, 0.95]))
def test_newcombes_interval_from_the_table(table, level):
    """Again from r, s, t, u as in Altman et al., Statistics with Confidence, chapter 6."""
    r, s, t, u = table
    n = sum(table)
    result = compared(*table, level=level)
    root, product = ((r + s) * (t + u) * (r + t) * (s + u)) ** 0.5, r * u - s * t
    if product > 0:
        product = product - n / 2 if product > n / 2 else 0
    phi = product / root if root else 0
    p1, p2 = (r + s) / n, (r + t) / n
    l1, u1 = metrics.wilson(r + s, n, level=level)
    l2, u2 = metrics.wilson(r + t, n, level=level)
    lower = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    upper = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    assert result.sensitivity_difference == pytest.approx(p1 - p2, abs=1e-12)
    assert result.sensitivity_low == pytest.approx(p1 - p2 - max(lower, 0) ** 0.5, abs=1e-7)
    assert result.sensitivity_high == pytest.approx(p1 - p2 + max(upper, 0) ** 0.5, abs=1e-7)
    assert -1 <= result.sensitivity_low <= p1 - p2 + 1e-12
    swapped = compared(r, t, s, u, level=level)
    assert swapped.sensitivity_low == pytest.approx(-result.sensitivity_high, abs=1e-7)
    assert swapped.sensitivity_p == result.sensitivity_p


@pytest.mark.parametrize(
    ("only_a", "only_b", "exact", "mid"),
    [  # R 4.2.2: binom.test(b, b + c); 2 * pbinom(min(b, c) - 1, b + c, .5) + dbinom(b, b + c, .5)
        (1, 7, 0.0703125, 0.0390625),
        (3, 9, 0.14599609375, 0.0922851562499999),
        (0, 4, 0.125, 0.0625),
        (5, 5, 1, 1),
        (1, 2, 1, 0.625),
        (0, 0, 1, 1),
    ],
)
def test_mcnemar_as_in_r(only_a, only_b, exact, mid):
    result = compared(4, only_a, only_b, 6)
    assert result.sensitivity_p == pytest.approx(exact, rel=1e-12)
    assert result.sensitivity_mid_p == pytest.approx(mid, rel=1e-12)
    if only_a + only_b:
        again = binomtest(only_a, only_a + only_b).pvalue
        assert result.sensitivity_p == pytest.approx(again, rel=1e-9)
    assert ("sensitivity: no discordant" in result.reason) == (only_a + only_b == 0)


def test_comparison_of_operating_points():
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    a = np.array([9, 8, 7, 2, 6, 1, 1, 1, 1])
    b = np.array([0.9, 0.1, 0.2, 0.1, 0.9, 0.8, 0.7, 0.1, 0.1])
    result = metrics.compare_operating_points(y, a, b, threshold_a=7, threshold_b=0.5)
    assert (result.n, result.events) == (9, 4)
    assert (result.threshold_a, result.threshold_b) == (7, 0.5)
    assert (result.sensitivity_a, result.sensitivity_b) == (0.75, 0.25)
    assert (result.sensitivity_only_a, result.sensitivity_only_b) == (2, 0)
    # right about a non-event is not flagging it
    assert (result.specificity_a, result.specificity_b) == (1, 0.4)
    assert (result.specificity_only_a, result.specificity_only_b) == (3, 0)
    assert result.specificity_difference == 0.6 and result.specificity_p == 0.25
    assert result.reason == ""
    for one, other in (("a", "b"), ("b", "a")):
        point = metrics.operating_point(y, {"a": a, "b": b}[one], {"a": 7, "b": 0.5}[one])
        assert getattr(result, f"sensitivity_{one}") == point.sensitivity
        assert getattr(result, f"specificity_{one}") == point.specificity, other


def test_comparison_with_itself_and_with_chance():
    y, s = [1, 0], [0.9, 0.1]  # two patients, perfect separation
    same = metrics.compare_operating_points(y, s, s, threshold_a=0.5, threshold_b=0.5)
    assert (same.sensitivity_p, same.sensitivity_mid_p, same.specificity_p) == (1, 1, 1)
    assert same.sensitivity_difference == 0 and same.sensitivity_low < 0 < same.sensitivity_high
    assert "sensitivity: no discordant" in same.reason and "specificity: no" in same.reason
    constant = metrics.compare_operating_points(y, s, [0.3, 0.3], threshold_a=0.5, threshold_b=0.5)
    assert constant.sensitivity_difference == 1 and constant.specificity_difference == 0


@pytest.mark.parametrize(
    ("y", "b", "threshold", "words"),
    [
        ([1, 1], [0.1, 0.2], 0.5, "only 1"),
        ([0, 1], [0.1, np.nan], 0.5, "b has 1 missing"),
        ([0, 1], [0.1], 0.5, "b has 1 values, y_true has 2"),
        ([0, 1], [0.1, 0.2], np.inf, "threshold_b is inf"),
        (["no", "yes"], [0.1, 0.2], 0.5, "y_true holds .*'no'"),
    ],
)
def test_comparison_of_unusable_input(y, b, threshold, words):
    with pytest.raises(InputError, match=words):
        metrics.compare_operating_points(y, [0.1, 0.2], b, threshold_a=0.5, threshold_b=threshold)
