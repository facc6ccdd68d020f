"""Inverse power laws: recovery, limits of the coefficients, forms, and what is refused."""

import numpy as np
import pytest

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.metrics.extrapolation import FORMS, LEAST_C

N = np.array([48.0, 84.0, 120.0, 180.0, 240.0])


def law(a, b, c, n=N):
    return a - b * np.asarray(n, float) ** -c


@pytest.mark.parametrize("a, b, c", [(0.85, 0.9, 0.5), (0.8, 2.0, 1.0), (0.9, 0.6, 0.13)])
def test_a_known_power_law_is_recovered_and_read_beyond(a, b, c):
    found = metrics.fit_power_law(N, law(a, b, c))
    assert (found.a, found.b, found.c) == pytest.approx((a, b, c), rel=1e-6)
    assert found.at([240, 4000]) == pytest.approx(law(a, b, c, [240, 4000]))


@pytest.mark.parametrize("form, c", [("root", 0.5), ("inverse", 1.0)])
def test_fixed_forms_keep_their_exponent_and_recover_their_own(form, c):
    found = metrics.fit_power_law(N, law(0.85, 0.9, c), form=form)
    assert (found.a, found.b, found.c) == pytest.approx((0.85, 0.9, c))
    other = metrics.fit_power_law(N, law(0.85, 0.9, 0.3), form=form)
    assert other.c == c


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("auc", [np.full(5, 0.7), np.linspace(0.8, 0.7, 5)])
def test_a_curve_that_is_flat_or_falls_is_its_weighted_mean_everywhere(form, auc):
    variance = np.array([4.0, 1.0, 1.0, 1.0, 2.0])
    found = metrics.fit_power_law(N, auc, variance, form=form)
    assert found.b == 0 and np.isnan(found.c)
    assert found.at([10, 5000]) == pytest.approx(np.average(auc, weights=1 / variance))


def test_the_limit_is_never_beyond_0_5_and_1():
    steep = metrics.fit_power_law(N, law(1.3, 2.0, 0.3), form="root")
    assert steep.a == 1 and steep.b > 0
    low = metrics.fit_power_law(N, law(0.45, 0.5, 0.5), form="root")
    assert low.a == 0.5 and 0 < low.b < 1
    noise = np.random.default_rng(0).uniform(0, 1, (400, 5))
    many = metrics.fit_power_law(N, noise)
    assert ((many.a >= 0.5) & (many.a <= 1) & (many.b >= 0)).all()
    c = many.c[many.b > 0]
    assert ((c >= LEAST_C - 1e-12) & (c <= 1)).all()
    rising = many.at([50, 500, 5000])
    assert (np.diff(rising, axis=1) >= 0).all()


@pytest.mark.parametrize("form", ["root", "inverse"])
def test_the_closed_form_is_the_constrained_least_squares(form):
    from scipy.optimize import minimize

    rng, c = np.random.default_rng(1), FORMS[form]
    for _ in range(20):
        auc, variance = rng.normal(0.75, 0.08, 5).clip(0, 1), rng.uniform(0.5, 2, 5)
        found = metrics.fit_power_law(N, auc, variance, form=form)

        def squares(q, auc=auc, variance=variance):
            return float(((auc - q[0] + q[1] * (N / 100) ** -c) ** 2 / variance).sum())

        starts = ([0.7, 0.1], [0.9, 0.0], [0.5, 0.05])
        least = min(minimize(squares, s, bounds=[(0.5, 1), (0, None)]).fun for s in starts)
        mine = float(((auc - found.at(N)) ** 2 / variance).sum())
        assert mine <= least + 1e-8


def test_many_curves_are_fitted_as_each_alone():
    rng = np.random.default_rng(2)
    curves = law(0.85, 0.9, 0.5) + rng.normal(0, 0.02, (3, 4, 5))
    many = metrics.fit_power_law(N, curves)
    assert many.a.shape == (3, 4) and many.at([300, 600]).shape == (3, 4, 2)
    one = metrics.fit_power_law(N, curves[1, 2])
    assert (many.a[1, 2], many.b[1, 2]) == (one.a, one.b)


def test_a_point_of_large_variance_counts_little():
    auc = law(0.85, 0.9, 0.5)
    auc[0] -= 0.1
    variance = np.array([1e6, 1.0, 1.0, 1.0, 1.0])
    assert metrics.fit_power_law(N, auc, variance).at([4000])[0] == pytest.approx(
        law(0.85, 0.9, 0.5, 4000), abs=1e-3
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n": [50, 100, 100, 50, 100]}, "2 different sizes; allowed: at least 4"),
        ({"n": [0, 50, 100, 150, 200]}, "at least 1 each"),
        ({"auc": [0.7, 0.7, 0.7, 0.7]}, r"auc has shape \(4,\); allowed: \(..., 5\)"),
        ({"auc": [0.7, 0.7, 1.2, 0.7, 0.7]}, "auc is 1.2; allowed: 0 to 1"),
        ({"auc": [0.7, np.nan, 0.7, 0.7, 0.7]}, "auc is nan; allowed: 0 to 1"),
        ({"variance": [1, 1, 0, 1, 1]}, "allowed: 5 numbers above 0"),
        ({"form": "logarithm"}, "form is 'logarithm'; allowed: power, root, inverse"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    given = {"n": N, "auc": law(0.85, 0.9, 0.5)} | change
    with pytest.raises(InputError, match=message):
        metrics.fit_power_law(**given)
