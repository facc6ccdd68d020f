"""Standardised mean differences against their formulas."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvo_lib import metrics
from rlvo_lib.config import InputError


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


def test_smd_of_what_is_not_a_number():
    numbers = np.array([1.0, 2.0])
    with pytest.raises(InputError, match="SMD of kind continuous: 'high' is not a number"):
        metrics.smd(numbers, np.array(["high", "low"]), kind="continuous")
    with pytest.raises(InputError, match="a value is infinite"):
        metrics.smd(numbers, np.array([1.0, np.inf]), kind="continuous")
    gaps = np.array([1, pd.NA, 2, None], dtype=object)
    assert metrics.smd(gaps, numbers, kind="continuous") == 0
    assert metrics.smd([True, False], [False, False], kind="binary") == pytest.approx(
        0.5 / 0.125**0.5
    )


def test_constants_equal_up_to_rounding_do_not_differ():
    assert metrics.smd([0.1 + 0.2] * 3, [0.3] * 3, kind="continuous") == 0
    assert metrics.smd([0.1] * 3, [0.3] * 3, kind="continuous") == -np.inf
