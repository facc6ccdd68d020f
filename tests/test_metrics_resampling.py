"""The bootstrap against scikit-learn on explicit resamples, and its intervals and tests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import S118, Y118, formula_12, labelled_scores, resamples
from scipy.stats import norm
from sklearn import metrics as sk

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.metrics import resampling

P118 = 1 / (1 + np.exp(-S118))
PEERS = {
    "auc": lambda y, s, t: sk.roc_auc_score(y, s),
    "average_precision": lambda y, s, t: sk.average_precision_score(y, s),
    "brier": lambda y, s, t: sk.brier_score_loss(y, s),
    "scaled_brier": lambda y, s, t: sk.d2_brier_score(y, s),
    "f1": lambda y, s, t: sk.f1_score(y, s >= t, zero_division=0),
    "sensitivity": lambda y, s, t: sk.recall_score(y, s >= t),
    "specificity": lambda y, s, t: sk.recall_score(y, s >= t, pos_label=0),
}


def test_every_statistic_has_a_peer():
    assert set(PEERS) == set(metrics.STATISTICS)


@settings(max_examples=20, deadline=None)
@given(labelled_scores(columns=3), st.booleans())
def test_replicates_are_those_of_scikit_learn_on_the_same_resamples(case, stratified):
    y, s = case
    thresholds = np.array([0.2, 0.5, 0.8])
    settings = dict(stratified=stratified, n=6, seed=5)
    found = metrics.bootstrap_many(y, s, metrics.STATISTICS, thresholds=thresholds, **settings)
    for r, counts in enumerate(resamples(y, **settings)):
        labels, scores = np.repeat(y, counts), np.repeat(s, counts, axis=0)
        for name, peer in PEERS.items():
            if labels.min() == labels.max():
                assert np.isnan(found[name][r]).all(), name
                continue
            for k, t in enumerate(thresholds):
                expected = peer(labels, scores[:, k], t)
                assert found[name][r, k] == pytest.approx(expected, abs=1e-12), name


@settings(max_examples=30, deadline=None)
@given(labelled_scores())
def test_the_estimate_is_the_plain_statistic(case):
    y, s = case
    for name, peer in PEERS.items():
        ci = metrics.bootstrap_ci(y, s, name, threshold=0.5, n=2)
        assert ci.estimate == pytest.approx(peer(y, s, 0.5), abs=1e-12), name


def test_resamples_are_seeded_stratified_and_paired():
    a = metrics.bootstrap_replicates(Y118, S118, "auc", n=50, seed=3)
    assert (a == metrics.bootstrap_replicates(Y118, S118, "auc", n=50, seed=3)).all()
    assert (a != metrics.bootstrap_replicates(Y118, S118, "auc", n=50, seed=4)).any()
    # a plain function sees the same resamples, and so does a score in another company
    plain = metrics.bootstrap_replicates(Y118, S118, sk.roc_auc_score, n=50, seed=3)
    np.testing.assert_allclose(plain, a, atol=1e-12)
    together = metrics.bootstrap_many(Y118, np.column_stack([-S118, S118]), n=50, seed=3,
                                      statistics="auc")["auc"]  # fmt: skip
    assert (together[:, 1] == a).all()
    np.testing.assert_allclose(together[:, 0], 1 - a, atol=1e-12)
    events = metrics.bootstrap_replicates(Y118, S118, lambda y, s: y.sum(), n=20)
    assert set(events) == {16}
    loose = metrics.bootstrap_replicates(Y118, S118, lambda y, s: y.sum(), n=20, stratified=False)
    assert len(set(loose)) > 1


@pytest.mark.parametrize("stratified", [True, False])
def test_counts_are_draws_with_replacement_whatever_the_block(monkeypatch, stratified):
    drawn = resamples(Y118, n=3000, seed=1, stratified=stratified)
    assert drawn.shape == (3000, 118) and (drawn.sum(axis=1) == 118).all()
    assert np.abs(drawn.mean(axis=0) - 1).max() < 5 / np.sqrt(3000)  # each has mean 1, variance < 1
    assert (drawn[:, Y118 == 1].sum(axis=1) == 16).all() == stratified
    monkeypatch.setattr(resampling, "_BLOCK", 118 * 17)
    blocks = [*resampling.weight_blocks(Y118, n=3000, seed=1, stratified=stratified)]
    assert len(blocks) == 177 and blocks[0].shape == (118, 17)
    np.testing.assert_array_equal(np.hstack(blocks).T, drawn)


def test_an_unstratified_resample_of_one_class_has_no_value():
    y, s, _ = formula_12()
    y = (np.arange(12) == 3).astype(int)  # one event: a third of resamples have none
    found = metrics.bootstrap_many(
        y, s / 20, metrics.STATISTICS, thresholds=0.5, stratified=False, n=200
    )
    undefined = np.isnan(found["auc"][:, 0])
    assert 40 < undefined.sum() < 110
    for name, values in found.items():
        assert (np.isnan(values[:, 0]) == undefined).all(), name
    called = metrics.bootstrap_replicates(y, s, sk.roc_auc_score, stratified=False, n=200)
    np.testing.assert_allclose(called, found["auc"][:, 0], atol=1e-12)
    ci = metrics.bootstrap_ci(y, s, "auc", stratified=False, n=200)
    assert np.isfinite(ci.estimate) and np.isnan([ci.low, ci.high, ci.se]).all()
    assert ci.reason == f"undefined in {undefined.sum()} of 200 resamples"


def test_an_interval_is_the_percentiles_of_its_replicates():
    values = metrics.bootstrap_replicates(Y118, P118, "brier", n=300, seed=2)
    ci = metrics.bootstrap_ci(Y118, P118, "brier", n=300, seed=2, level=0.9)
    assert [ci.low, ci.high] == np.quantile(values, [0.05, 0.95]).tolist()
    assert ci.se == values.std(ddof=1) and (ci.n, ci.events) == (118, 16)
    assert ci.method == "stratified bootstrap, percentile, 300 resamples"
    assert np.isnan([ci.z, ci.p]).all() and ci.reason == ""
    with pytest.raises(InputError, match="level is 95"):
        metrics.bootstrap_ci(Y118, S118, level=95)


@pytest.mark.parametrize("statistic", ["auc", "brier", sk.average_precision_score])
def test_a_difference_is_that_of_paired_replicates(statistic):
    other = P118 * np.random.default_rng(5).random(118)
    settings = dict(n=150, seed=7)
    ci = metrics.bootstrap_ci(Y118, P118, statistic, other=other, **settings)
    a, b = (metrics.bootstrap_replicates(Y118, s, statistic, **settings) for s in (P118, other))
    assert [ci.low, ci.high] == np.quantile(a - b, [0.025, 0.975]).tolist()
    # pROC: the statistic is difference / SD of the replicates, its p normal
    assert ci.z == pytest.approx(ci.estimate / (a - b).std(ddof=1))
    assert ci.p == pytest.approx(2 * norm.sf(abs(ci.z)))
    assert ci.method == "paired stratified bootstrap, percentile, 150 resamples"


def test_a_difference_turned_round_changes_sign():
    other = S118 + np.random.default_rng(5).normal(size=118)
    ab = metrics.bootstrap_ci(Y118, S118, other=other, n=400, seed=1)
    ba = metrics.bootstrap_ci(Y118, other, other=S118, n=400, seed=1)
    assert (ab.estimate, ab.low, ab.z, ab.p) == pytest.approx((-ba.estimate, -ba.high, -ba.z, ba.p))
    delong = metrics.compare_auc(Y118, S118, other)
    assert ab.estimate == pytest.approx(delong.difference)
    assert ab.se == pytest.approx(delong.se, rel=0.15)


def test_scores_that_rank_alike_have_p_1():
    for statistic in ("auc", "average_precision"):
        same = metrics.bootstrap_ci(Y118, S118, statistic, other=P118, n=50)
        assert (same.estimate, same.p, same.z, same.low, same.high) == (0, 1, 0, 0, 0)
        assert same.reason
    alone = np.arange(12) == 3
    same = metrics.bootstrap_ci(
        alone, formula_12()[1], other=formula_12()[1], stratified=False, n=50
    )
    assert np.isnan([same.p, same.low, same.z]).all() and "undefined in" in same.reason


def test_each_score_has_its_threshold():
    settings = dict(threshold=0.5, n=60, seed=1)
    same = metrics.bootstrap_ci(Y118, P118, "f1", other=P118, **settings)
    moved = metrics.bootstrap_ci(Y118, P118, "f1", other=P118, other_threshold=0.6, **settings)
    both = [
        metrics.f1_score(Y118, P118 >= 0.5),
        metrics.f1_score(Y118, P118 >= 0.6),
    ]
    assert same.p == 1 and moved.estimate == pytest.approx(both[0] - both[1])
    found = metrics.bootstrap_many(
        Y118, np.column_stack([P118, P118]), ("f1",), thresholds=[0.5, 0.6], n=60, seed=1
    )["f1"]
    assert moved.se == pytest.approx(np.diff(found, axis=1).std(ddof=1))


def test_an_unpaired_difference_resamples_each_score_for_itself():
    y, _, s = formula_12()
    apart = metrics.bootstrap_ci(Y118, S118, other=S118, paired=False, n=500, seed=2)
    assert apart.estimate == 0 and apart.se > 0 and (apart.p, apart.z) == (1, 0)
    one = metrics.bootstrap_ci(Y118, S118, n=500, seed=2)
    assert apart.se == pytest.approx(one.se * np.sqrt(2), rel=0.1)
    two = metrics.bootstrap_ci((Y118, y), S118, other=s, paired=False, n=200)
    assert two.estimate == pytest.approx(metrics.auc(Y118, S118) - metrics.auc(y, s))
    assert (two.n, two.events) == (130, 20)
    assert two.method == "unpaired stratified bootstrap, percentile, 200 resamples"
    with pytest.raises(InputError, match="that needs other, the second score"):
        metrics.bootstrap_ci((Y118, y), S118, paired=False)
    with pytest.raises(InputError, match="that needs paired=False"):
        metrics.bootstrap_ci((Y118, y), S118, other=s)


@pytest.mark.parametrize(
    ("y", "s"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]),  # perfect separation
        ([0, 0, 1, 1], [0.3, 0.3, 0.3, 0.3]),  # constant score
    ],
)
def test_resamples_without_spread_give_no_interval(y, s):
    ci = metrics.bootstrap_ci(y, s, n=50)
    assert np.isfinite(ci.estimate) and np.isnan([ci.low, ci.high]).all()
    assert ci.reason == "the same value in all 50 resamples: no interval"
    apart = metrics.bootstrap_ci(y, s, other=[-v for v in s], paired=False, n=50)
    assert np.isnan([apart.p, apart.low]).all() and apart.reason


def test_equal_up_to_rounding_is_equal():
    """A constant probability has one Brier score, though sums in another order differ by 1e-17."""
    ci = metrics.bootstrap_ci(Y118, np.full(118, 0.1357), "brier", n=50)
    assert np.isnan(ci.low) and "the same value" in ci.reason


def test_scores_of_any_size_can_be_ranked():
    assert (
        metrics.bootstrap_ci(Y118, 1e200 * S118, n=50).low
        == metrics.bootstrap_ci(Y118, S118, n=50).low
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(statistics=("kappa",)), "statistic is 'kappa'; allowed: auc, average_precision"),
        (dict(statistics=("f1",)), "'f1' needs a finite threshold; got None"),
        (dict(statistics=("f1",), thresholds=[0.1, np.nan]), "needs a finite threshold"),
        (dict(statistics=("f1",), thresholds=[0.1, 0.2, 0.3]), r"thresholds have shape \(3,\)"),
        (dict(statistics=("brier",)), r"probability .* is out of range"),
        (dict(statistics=("auc",), n=0), "n is 0; allowed: at least 1"),
        (dict(statistics=("auc",), n=-1), "n is -1"),
    ],
)
def test_settings_that_cannot_be_used(settings, words):
    scores = np.column_stack([S118, S118])
    with pytest.raises(InputError, match=words):
        metrics.bootstrap_many(Y118, scores, **settings)


def test_one_score_is_wanted():
    with pytest.raises(InputError, match=r"score has shape \(118, 2\); allowed: one value"):
        metrics.bootstrap_ci(Y118, np.column_stack([S118, S118]))
    with pytest.raises(InputError, match="needs a finite threshold; got None"):
        metrics.bootstrap_ci(Y118, S118, "f1")
    with pytest.raises(InputError, match="statistic is 'kappa'; allowed: auc"):
        metrics.bootstrap_ci(Y118, S118, "kappa")


@pytest.mark.parametrize("y", [[0, 0, 1, 0], [1, 1, 0, 1]])
def test_one_single_event_has_no_stratified_interval(y):
    """Every stratified resample holds the same one, so its spread is left out: p was 1e-5 for n = 3."""
    s, other = [0.2, 0.7, 0.6, 0.1], [0.1, 0.2, 0.9, 0.3]
    for ci in (
        metrics.auc_ci(y, s, "bootstrap", n=50),
        metrics.bootstrap_ci(y, s, "brier", n=50),
        metrics.bootstrap_ci(y, s, other=other, n=50),
        metrics.bootstrap_ci(y, s, other=other, n=50, paired=False),
    ):
        assert np.isfinite(ci.estimate) and np.isnan([ci.low, ci.high, ci.se, ci.p]).all()
        assert "the same in every stratified resample" in ci.reason
    band = metrics.roc_band(y, s, n=20)
    assert band["tpr"].notna().all() and band[["low", "high"]].isna().all(axis=None)


def test_the_same_score_twice_has_p_1_even_with_one_event():
    assert metrics.bootstrap_ci([0, 0, 1], [1, 3, 2], other=[1, 3, 2], n=20).p == 1
