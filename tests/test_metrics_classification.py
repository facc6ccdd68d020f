"""Operating points, thresholds and no-skill lines against R, brute force and scikit-learn."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from rlvo_lib import metrics
from rlvo_lib.config import InputError

# the size of the study's test set: 9 of 16 events and 20 of 102 others are flagged
Y118 = np.array([1] * 16 + [0] * 102)
FLAGGED = np.repeat([1, 0, 1, 0], [9, 7, 20, 82])


@st.composite
def labelled_scores(draw):
    """Labels with both classes, and scores with many ties."""
    n = draw(st.integers(2, 14))
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda v: 0 < sum(v) < n))
    s = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    return np.array(y), np.array(s) / 6


# ------------------------------------------------------------------------------ operating point


def test_operating_point():
    point = metrics.operating_point([1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.2, 0.5, 0.4, 0.1, 0.1], 0.5)
    assert (point.tp, point.fp, point.tn, point.fn) == (2, 1, 3, 1)  # 0.5 >= 0.5 is flagged
    assert point.f1 == pytest.approx(2 / 3) and point.ppv == pytest.approx(2 / 3)
    assert (point.specificity, point.npv) == (0.75, 0.75)
    assert point.accuracy == pytest.approx(5 / 7)
    assert point.balanced_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert point.reason == ""
    nobody = metrics.operating_point([1, 0], [0.1, 0.2], 0.9)
    assert np.isnan(nobody.ppv) and nobody.f1 == 0
    assert metrics.operating_point([1, 0], [0.1, 0.2], 0.9, zero_division=1.0).f1 == 1
    with pytest.raises(InputError, match="threshold is nan"):
        metrics.operating_point([1, 0], [0.1, 0.2], np.nan)


def test_operating_point_as_in_r():
    point = metrics.operating_point(Y118, FLAGGED, 1)
    assert (point.tp, point.fp, point.tn, point.fn) == (9, 20, 82, 7)
    expected = {
        # R 4.2.2: prop.test(9, 16, correct = FALSE), binom.test(9, 16)
        "sensitivity_low": 0.331785563988119,
        "sensitivity_high": 0.769013475945076,
        "sensitivity_exact_low": 0.298776899083177,
        "sensitivity_exact_high": 0.802465859467332,
        # cor(y, flagged)
        "mcc": 0.29137152332128,
        # exp(log(ratio) + c(-1, 1) * qnorm(.975) * sqrt(1 / a - 1 / 16 + 1 / b - 1 / 102))
        "lr_positive": 2.86875,
        "lr_positive_low": 1.59966884927457,
        "lr_positive_high": 5.14464388440901,
        "lr_negative": 0.544207317073171,
        "lr_negative_low": 0.309676065641163,
        "lr_negative_high": 0.956359360039002,
    }
    for name, value in expected.items():
        assert getattr(point, name) == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize(
    ("k", "n", "level", "exact", "wilson"),
    [  # R 4.2.2: binom.test(k, n, conf.level = level), prop.test(k, n, correct = FALSE)
        (2, 3, 0.95, (0.0942993240502461, 0.991596241340387), (0.207659600802048, 0.938508055279604)),
        (0, 16, 0.95, (0, 0.205907214207823), (0, 0.193607680534436)),
        (16, 16, 0.95, (0.794092785792177, 1), (0.806392319465564, 1)),
        (40, 102, 0.95, (0.29694684337967, 0.493800465494723), (0.302975181892627, 0.489166760923277)),
        (9, 16, 0.90, (0.333374171524924, 0.773308431533713), None),
    ],
)  # fmt: skip
def test_intervals_of_a_proportion_as_in_r(k, n, level, exact, wilson):
    assert metrics.clopper_pearson(k, n, level=level) == pytest.approx(exact, abs=1e-13)
    if wilson:
        assert metrics.wilson(k, n, level=level) == pytest.approx(wilson, abs=1e-13)


def test_a_proportion_of_nobody_has_no_interval():
    assert np.isnan([*metrics.wilson(0, 0), *metrics.clopper_pearson(0, 0)]).all()
    with pytest.raises(InputError, match="level is 95"):
        metrics.clopper_pearson(1, 2, level=95)


def test_what_an_operating_point_cannot_say_is_nan_with_the_reason():
    nobody = metrics.operating_point(Y118, FLAGGED, 2)
    assert np.isnan([nobody.ppv, nobody.ppv_exact_low, nobody.mcc, nobody.lr_positive]).all()
    assert nobody.lr_negative == 1 and nobody.accuracy == pytest.approx(102 / 118)
    assert sk.matthews_corrcoef(Y118, FLAGGED * 0) == 0  # where R, and we, say it is undefined
    assert "nobody is flagged" in nobody.reason and "LR+" in nobody.reason
    everybody = metrics.operating_point(Y118, FLAGGED, 0)
    assert np.isnan([everybody.npv, everybody.mcc, everybody.lr_negative]).all()
    assert everybody.lr_positive == 1 and "everybody is flagged" in everybody.reason
    right = metrics.operating_point([0, 0, 1, 1], [1, 2, 3, 4], 3)
    assert right.mcc == 1 and np.isnan(right.lr_positive)
    assert right.lr_negative == 0 and np.isnan(right.lr_negative_low)
    assert "no false positive" in right.reason and "no false negative" in right.reason
    wrong = metrics.operating_point([0, 1], [2, 1], 2)
    assert wrong.mcc == -1 and wrong.lr_positive == 0 and np.isnan(wrong.lr_positive_high)


@settings(max_examples=60, deadline=None)
@given(labelled_scores(), st.integers(0, 7))
def test_operating_point_is_scikit_learns(case, step):
    y, s = case
    flagged = s >= step / 6
    point = metrics.operating_point(y, s, step / 6)
    assert point.accuracy == pytest.approx(sk.accuracy_score(y, flagged))
    assert point.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(y, flagged))
    assert point.f1 == pytest.approx(sk.f1_score(y, flagged, pos_label=1, zero_division=0))
    if 0 < flagged.sum() < y.size:
        assert point.mcc == pytest.approx(sk.matthews_corrcoef(y, flagged), abs=1e-12)
    missing = [name for name, value in vars(point).items() if value != value]
    assert bool(missing) == bool(point.reason)
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        low, high = (getattr(point, f"{name}_{end}") for end in ("low", "high"))
        wide = [getattr(point, f"{name}_exact_{end}") for end in ("low", "high")]
        assert name in missing or low <= getattr(point, name) <= high
        assert name in missing or wide[0] <= getattr(point, name) <= wide[1]


# ------------------------------------------------------------------------------------ threshold


def above(s):
    return float(np.nextafter(s.max(), np.inf))


@settings(max_examples=60, deadline=None)
@given(labelled_scores(), st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.75]))
@example((np.array([1, 0, 1, 0]), np.array([0, 0.5, 0.5, 1])), 0.5)
def test_the_threshold_cannot_be_beaten(case, risk):
    y, s = case
    n, nobody = y.size, above(s)
    for rule, value, gain, candidates in (
        ("max-f1", None, lambda t: sk.f1_score(y, s >= t, zero_division=0), np.unique(s)),
        ("youden", None, lambda t: (s >= t)[y == 1].mean() - (s >= t)[y == 0].mean(), np.unique(s)),
        (
            "net-benefit",
            risk,
            lambda t: ((s >= t) @ y - (s >= t) @ (1 - y) * risk / (1 - risk)) / n,
            np.append(np.unique(s), nobody),
        ),
    ):
        chosen = metrics.threshold_by(y, s, rule=rule, value=value)
        best = max(gain(t) for t in candidates)
        assert chosen in candidates
        assert gain(chosen) == pytest.approx(best)
        assert all(gain(t) < best - 1e-12 for t in candidates if t > chosen)


@settings(max_examples=60, deadline=None)
@given(labelled_scores(), st.sampled_from([0.1, 0.3, 0.5, 2 / 3, 0.9, 1.0]))
def test_the_threshold_keeps_what_was_asked(case, value):
    y, s = case
    candidates = np.append(np.unique(s), above(s))

    def rates(t):
        point = metrics.operating_point(y, s, t)
        return point.sensitivity, point.specificity

    chosen = metrics.threshold_by(y, s, rule="sensitivity", value=value)
    assert chosen == max(t for t in candidates if rates(t)[0] >= value)
    chosen = metrics.threshold_by(y, s, rule="specificity", value=value)
    assert chosen == min(t for t in candidates if rates(t)[1] >= value)


def test_a_rate_reached_exactly_counts():
    y, s = np.repeat([1, 0], 10), np.tile(np.arange(10) / 10, 2)
    # 0.1 * 3 is a little more than 0.3, and 3 of 10 is what is asked for
    assert metrics.threshold_by(y, s, rule="sensitivity", value=0.1 * 3) == 0.7
    assert metrics.threshold_by(y, s, rule="specificity", value=0.1 * 3) == 0.3
    assert metrics.threshold_by(y, s, rule="sensitivity", value=1) == 0
    assert metrics.threshold_by(y, s, rule="specificity", value=1) == np.nextafter(0.9, 1)
    assert metrics.operating_point(y, s, np.nextafter(0.9, 1)).specificity == 1


def test_specificity_is_the_value_of_the_step():
    # a score of three values: no interpolation between 0.5 and 0.9, as pROC would
    y = np.repeat([1, 0], [4, 10])
    s = np.array([3, 3, 2, 1, *[1] * 5, *[2] * 4, 3])
    assert metrics.threshold_by(y, s, rule="specificity", value=0.8) == 3
    assert metrics.operating_point(y, s, 3).sensitivity == 0.5


def test_a_score_without_benefit_flags_nobody():
    y, s = np.array([0, 0, 0, 1]), np.array([0.9, 0.8, 0.7, 0.1])
    assert metrics.threshold_by(y, s, rule="net-benefit", value=0.9) == np.nextafter(0.9, 1)
    assert metrics.threshold_by(y, s, rule="net-benefit", value=0.01) == 0.1


@pytest.mark.parametrize(
    ("rule", "value", "words"),
    [
        ("best", None, "threshold rule is 'best'; allowed: max-f1, youden, sensitivity"),
        ("max-f1", 0.5, "'max-f1' takes no value; got 0.5"),
        ("sensitivity", None, "'sensitivity': value is None; allowed: above 0 and up to 1"),
        ("specificity", 90, "'specificity': value is 90; allowed: above 0 and up to 1"),
        ("sensitivity", np.nan, "value is nan"),
        ("net-benefit", 1, "'net-benefit': value is 1; allowed: above 0 and below 1"),
    ],
)
def test_an_unknown_rule_or_value_is_named(rule, value, words):
    with pytest.raises(InputError, match=words):
        metrics.threshold_by([0, 1], [0.1, 0.2], rule=rule, value=value)


# --------------------------------------------------------------------------------- no-skill lines


def test_no_skill_lines():
    assert metrics.flag_everyone_f1(Y118) == pytest.approx(32 / 134)
    assert metrics.f1_score(Y118, np.ones(118)) == pytest.approx(32 / 134)
    assert metrics.coin_f1(Y118) == pytest.approx(0.213, abs=5e-4)
    assert metrics.coin_f1(Y118, 0.25) == pytest.approx(0.175, abs=5e-4)
    assert metrics.average_precision(Y118, np.ones(118)) == pytest.approx(16 / 118)
    assert metrics.auc(Y118, np.ones(118)) == 0.5


def test_f1_is_that_of_decisions():
    with pytest.raises(InputError, match="other than 0 and 1"):
        metrics.f1_score([0, 1], [0.2, 1])
    assert metrics.f1_score([False, True], [True, True]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.operating_point([0, 1], [0.1, 0.2], None), "threshold is None"),
        (lambda: metrics.operating_point([0, 1], [0.1, 0.2], "x"), "threshold is 'x'"),
        (
            lambda: metrics.compare_operating_points([0, 1], [0, 1], [1, 0], 0.5, None),
            "threshold_b",
        ),
        (
            lambda: metrics.threshold_by([0, 1], [0, 1], rule="sensitivity", value="a"),
            "value is 'a'",
        ),
        (lambda: metrics.partial_auc([0, 1], [0, 1], max_fpr=None), "max_fpr is None"),
        (lambda: metrics.nadeau_bengio([0.1, 0.2], n_train=None, n_test=3), "n_train is None"),
        (lambda: metrics.bootstrap_ci([0, 1], [0, 1], n=100.0), "n is 100.0"),
        (lambda: metrics.wilson(20, 16), "20 of 16"),
        (lambda: metrics.clopper_pearson(-1, 16), "-1 of 16"),
        (lambda: metrics.wilson(np.nan, 16), "nan of 16"),
        (lambda: metrics.coin_f1([0, 1], 2), "flag_rate is 2"),
        (lambda: metrics.auc([[0], [0, 1]], [1, 2]), "y_true is a list of lists"),
        (lambda: metrics.auc([0, 1], np.array(["2020", "2021"], "M8[Y]")), "not numeric"),
        (lambda: metrics.auc([0, 1, 1], np.ma.array([1, 2, 3], mask=[0, 1, 0])), "1 missing"),
        (lambda: metrics.auc(np.ma.array([0, 1, 1], mask=[0, 1, 0]), [1, 2, 3]), "1 missing"),
    ],
)
def test_what_cannot_be_used_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
