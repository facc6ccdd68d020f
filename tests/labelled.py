"""Labels and scores that the tests of metrics share."""

import numpy as np
from hypothesis import strategies as st

from rlvo_lib.metrics.resampling import weight_blocks

# the size of the study's test set
Y118 = np.array([1] * 16 + [0] * 102)
S118 = np.random.default_rng(11).normal(size=118) + 0.74 * Y118


def formula_118():
    """118 patients, 16 events: labels and two scores of whole numbers with ties, without chance."""
    i = np.arange(118)
    y = ((i * 7) % 118 < 16).astype(int)
    return y, (i * 37) % 41 + 12 * y, (i * 29) % 13 + 3 * y


def formula_12():
    """12 patients, 4 events: labels and two scores of whole numbers, without chance."""
    i = np.arange(12)
    y = ((i * 5) % 12 < 4).astype(int)
    return y, (i * 7) % 12 + 3 * y, (i * 11) % 5 + 2 * y


@st.composite
def labelled_scores(draw, columns=1):
    """Labels with both classes, and scores with many ties: ``(n,)``, or ``(n, columns)``."""
    n = draw(st.integers(2, 14))
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda v: 0 < sum(v) < n))
    values = st.lists(st.integers(0, 6), min_size=n * columns, max_size=n * columns)
    s = np.array(draw(values)).reshape(n, columns) / 6
    return np.array(y), s[:, 0] if columns == 1 else s


def by_pairs(y, s):
    """``(events, non-events)``: 1 where the event has the higher score, one half for a tie."""
    events, others = s[y == 1][:, None], s[y == 0]
    return (events > others) + 0.5 * (events == others)


def resamples(y, *, n, seed, stratified):
    """``(n, patients)``: how often each patient is drawn in each of the bootstrap's resamples."""
    blocks = weight_blocks(y, n=n, seed=seed, stratified=stratified)
    return np.hstack([*blocks]).T.astype(int)
