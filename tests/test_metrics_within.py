"""AUC within groups: against the AUC of each group, its bootstrap, and what is refused."""

import numpy as np
import pytest

from rlvo_lib import metrics
from rlvo_lib.config import InputError


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 90), np.arange(90) % 3
    return y, (rng.normal(size=(90, 2)) + y[:, None]).round(1), groups


def test_it_is_the_mean_of_the_groups_weighted_by_their_pairs(scored):
    y, s, groups = scored
    for k, found in enumerate(metrics.auc_within(y, s, groups)):
        parts = [(y[groups == g], s[groups == g, k]) for g in range(3)]
        pairs = [a.sum() * (1 - a).sum() for a, _ in parts]
        aucs = [metrics.auc(a, b) for a, b in parts]
        assert found == pytest.approx(np.average(aucs, weights=pairs))


def test_with_one_group_it_is_the_auc_and_its_bootstrap(scored):
    y, s, groups = scored
    alone = np.zeros_like(groups)
    assert metrics.auc_within(y, s, alone) == pytest.approx(metrics.delong_covariance(y, s)[0])
    drawn = metrics.bootstrap_within(y, s, alone, n=40, seed=3)
    other = metrics.bootstrap_many(y, s, ("auc",), stratified=True, n=40, seed=3)["auc"]
    np.testing.assert_allclose(drawn, other)


def test_each_score_may_have_groups_of_its_own(scored):
    y, s, groups = scored
    own = np.column_stack([groups, groups[::-1]])
    both = metrics.auc_within(y, s, own)
    assert both[1] == metrics.auc_within(y, s[:, 1], groups[::-1])[0]
    assert metrics.bootstrap_within(y, s, own, n=7).shape == (7, 2)


def test_a_group_with_one_outcome_is_left_out(scored):
    y, s, groups = scored
    alone = np.where(y == 1, 9, groups)
    with pytest.raises(InputError, match="none holds both outcomes"):
        metrics.auc_within(y, s, alone)
    one = np.where((groups == 0) & (y == 1), 9, groups)
    kept = groups > 0
    assert metrics.auc_within(y, s, one) == pytest.approx(
        metrics.auc_within(y[kept], s[kept], groups[kept])
    )
    with pytest.raises(InputError, match=r"groups have shape \(3,\); allowed: \(90,\) or"):
        metrics.auc_within(y, s, [1, 2, 3])
