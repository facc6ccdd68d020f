import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, roc_auc_score

from rlvo_lib import baselines
from rlvo_lib.baselines import boosting, logistic, voxels
from rlvo_lib.config import InputError


def _made(n, p, *, seed=0, slope=1.0):
    """A matrix whose first column has a signal, and outcomes of which about a sixth are events."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, p)).astype(np.float32)
    y = (rng.uniform(size=n) < expit(slope * matrix[:, 0] - 1.8)).astype(float)
    return matrix, y


@pytest.fixture
def few_trees(monkeypatch):
    monkeypatch.setattr(boosting, "GRID_ITERATIONS", (5, 10, 20))


# ------------------------------------------------------------------------------- one interface


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_baselines_learn_a_signal_and_repeat_themselves(kind, few_trees):
    matrix, y = _made(800, 5, slope=1.5)
    first, again = (
        baselines.fit_baseline(kind, matrix[:300], y[:300], seed=1).predict_proba(matrix[300:])
        for _ in range(2)
    )
    assert first.shape == (500, 2) and first.sum(axis=1) == pytest.approx(1)
    assert roc_auc_score(y[300:], first[:, 1]) > 0.7
    assert (first == again).all()


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_noise_gives_about_the_prevalence(kind, few_trees):
    """A tuned model of nothing is hardly worse than the share of events."""
    rng = np.random.default_rng(3)
    y = np.repeat([1.0, 0.0], [40, 200])
    model = baselines.fit_baseline(kind, rng.normal(size=(240, 20)), y, seed=0)
    p = model.predict_proba(rng.normal(size=(240, 20)))[:, 1]
    assert log_loss(y, p) < log_loss(y, np.full(240, 1 / 6)) + 0.03


def test_an_unknown_kind_names_the_allowed_ones():
    with pytest.raises(
        InputError,
        match="baseline 'forest' is not known; allowed: logistic, boosting, ridge_voxels",
    ):
        baselines.fit_baseline("forest", np.zeros((4, 1)), np.array([0, 1, 0, 1]), seed=0)


@pytest.mark.parametrize("kind", ["logistic", "boosting", "ridge_voxels"])
@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.zeros(6), r"y holds \[0.0\]; allowed: 0 and 1, with patients of both"),
        (np.array([0, 1, 2, 0, 1, 2]), "allowed: 0 and 1"),
        (np.array([0, 1, np.nan, 0, 1, 0]), "allowed: 0 and 1"),
        (np.array([0, 1]), r"y has shape \(2,\); allowed: \(6,\)"),
    ],
)
def test_outcomes_that_cannot_be_used(kind, y, said):
    x = np.zeros((6, 1, 2, 2, 2)) if kind == "ridge_voxels" else np.zeros((6, 2))
    with pytest.raises(InputError, match=said):
        baselines.fit_baseline(kind, x, y, seed=0)


def test_matrices_that_cannot_be_used():
    y = np.array([0, 1, 0, 1])
    with pytest.raises(InputError, match="column 1 has a value that is not finite"):
        baselines.fit_logistic(np.array([[1, 2], [1, np.nan], [0, 1], [2, 2]]), y, seed=0)
    with pytest.raises(InputError, match=r"matrix has shape \(4, 0\)"):
        baselines.fit_boosting(np.zeros((4, 0)), y, seed=0)
    with pytest.raises(InputError, match=r"offset has shape \(3,\); allowed: \(4,\)"):
        baselines.fit_logistic(np.ones((4, 1)), y, seed=0, offset=np.zeros(3))


# -------------------------------------------------------------------------------- inner folds


def test_inner_folds_hold_groups_together_and_share_out_events():
    y = np.repeat([1, 0], [10, 50])
    groups = np.concatenate([np.repeat(np.arange(5), 2), np.repeat(np.arange(100, 125), 2)])
    fold = baselines.inner_folds(y, seed=1, groups=groups)
    assert np.bincount(fold, weights=y).tolist() == [2] * 5
    assert all(len(set(fold[groups == g])) == 1 for g in groups)
    assert (fold == baselines.inner_folds(y, seed=1, groups=groups)).all()
    assert (fold != baselines.inner_folds(y, seed=2, groups=groups)).any()


def test_fewer_events_than_folds_make_fewer_folds():
    y = np.array([1, 1, 1] + [0] * 20)
    assert set(baselines.inner_folds(y, seed=0)) == {0, 1, 2}
    same = np.array([7, 7, 7, *range(100, 120)])  # one patient, three times
    assert not len(baselines.inner_folds(y, seed=0, groups=same))


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_one_event_is_enough_for_the_default(kind, few_trees):
    matrix, _ = _made(40, 3)
    y = np.eye(40)[0]
    p = baselines.fit_baseline(kind, matrix, y, seed=0).predict_proba(matrix)[:, 1]
    assert np.isfinite(p).all() and p.mean() == pytest.approx(1 / 40, abs=0.01)


# --------------------------------------------------------------------------------- regression


def test_each_penalty_gives_the_coefficients_of_scikit_learn():
    matrix, y = _made(120, 6)
    matrix = matrix.astype(float)
    path = logistic._path(matrix, y, np.zeros(120))
    for c, found in zip(logistic.GRID_C, path, strict=True):
        known = LogisticRegression(C=c, tol=1e-10, solver="newton-cholesky").fit(matrix, y)
        assert found[1:] == pytest.approx(known.coef_[0], abs=1e-6)
        assert found[0] == pytest.approx(known.intercept_[0], abs=1e-6)


def test_a_strong_signal_is_shrunk_less_than_a_weak_one():
    def mean_log_c(slope):
        weights = baselines.fit_logistic(*_made(300, 10, slope=slope), seed=0).weights
        assert sum(weights.values()) == pytest.approx(1)
        return sum(w * np.log(c) for c, w in weights.items())

    assert mean_log_c(3.0) > mean_log_c(0.0) + 1


def test_a_constant_predictor_and_more_predictors_than_patients():
    matrix, y = _made(60, 3)
    constant = baselines.fit_logistic(np.column_stack([matrix, np.full(60, 7.0)]), y, seed=0)
    without = baselines.fit_logistic(matrix, y, seed=0)
    assert constant.coef[3] == pytest.approx(0, abs=1e-6)
    assert constant.logit(np.column_stack([matrix, np.full(60, 7.0)])) == pytest.approx(
        without.logit(matrix), abs=1e-5
    )
    wide, y = _made(60, 100, slope=3.0)
    model = baselines.fit_logistic(wide, y, seed=0)
    assert np.isfinite(model.coef).all() and model.coef[0] > 0


def test_perfectly_separated_outcomes_stay_finite():
    matrix = np.linspace(-1, 1, 40)[:, None]
    model = baselines.fit_logistic(matrix, (matrix[:, 0] > 0).astype(float), seed=0)
    p = model.predict_proba(matrix)[:, 1]
    assert ((p > 0) & (p < 1)).all() and (np.diff(p) > 0).all()


def test_an_offset_takes_what_it_explains():
    matrix, y = _made(2000, 2, slope=1.5)
    known = 1.5 * matrix[:, 0].astype(float) - 1.8
    model = baselines.fit_logistic(matrix, y, seed=0, offset=known)
    assert abs(model.intercept) < 0.2 and np.abs(model.coef).max() < 0.15
    assert model.logit(matrix, known) == pytest.approx(model.logit(matrix) + known)


def test_groups_keep_copies_out_of_the_tuning():
    """Copies of the same patients make noise look learnable, unless they stay together."""
    rng = np.random.default_rng(5)
    matrix, y = np.repeat(rng.normal(size=(60, 30)), 4, axis=0), np.repeat([1.0, 0.0], [80, 160])
    apart = baselines.fit_logistic(matrix, y, seed=0).weights
    together = baselines.fit_logistic(matrix, y, seed=0, groups=np.repeat(np.arange(60), 4)).weights
    assert apart[10.0] > 0.5 and together[10.0] < 0.01


# ------------------------------------------------------------------------------- cross-fitting


def test_cross_fitted_logits_do_not_know_the_patient():
    rng = np.random.default_rng(2)
    matrix, y = rng.normal(size=(150, 60)), np.repeat([1.0, 0.0], [50, 100])
    found, model = baselines.cross_fitted_logit("logistic", matrix, y, seed=0)
    assert roc_auc_score(y, model.logit(matrix)) > 0.8 > 0.65 > roc_auc_score(y, found)
    fold = baselines.inner_folds(y, seed=0)
    rest = baselines.fit_baseline("logistic", matrix[fold != 2], y[fold != 2], seed=0)
    assert (found[fold == 2] == rest.logit(matrix[fold == 2])).all()


def test_cross_fitting_needs_two_events():
    with pytest.raises(InputError, match="1 events among 20 patients; cross-fitting needs"):
        baselines.cross_fitted_logit("logistic", np.ones((20, 1)), np.eye(20)[0], seed=0)


# -------------------------------------------------------------------------------------- voxels


def _images(n, *, seed=0, effect=1.0):
    """Images (n, 2, 6, 5, 4) float16 whose second channel has a lesion in events."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 4 == 0).astype(float)
    image = rng.normal(size=(n, 2, 6, 5, 4)) * np.array([100, 1]).reshape(1, 2, 1, 1, 1) + 50
    image[:, 1, :2, :2, :2] += effect * y[:, None, None, None]
    return image.astype(np.float16), y


def test_voxel_ridge_finds_a_lesion_and_gives_probabilities():
    image, y = _images(200)
    model = baselines.fit_baseline("ridge_voxels", image[:120], y[:120], seed=0)
    p = model.predict_proba(image[120:])[:, 1]
    assert roc_auc_score(y[120:], p) > 0.8
    assert log_loss(y[120:], p) < log_loss(y[120:], np.full(80, 0.25))
    again = baselines.fit_ridge_voxels(image[:120], y[:120], seed=0)
    assert (again.predict_proba(image[120:])[:, 1] == p).all()


def test_voxel_ridge_of_noise_says_the_prevalence():
    image, y = _images(120, effect=0.0)
    p = baselines.fit_ridge_voxels(image, y, seed=0).predict_proba(_images(120, seed=1)[0])[:, 1]
    assert p.mean() == pytest.approx(0.25, abs=0.05) and p.std() < 0.1


def test_scores_left_out_are_those_of_models_that_did_not_see_the_fold():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 50)), rng.integers(0, 2, 30).astype(float)
    fold = np.arange(30) % 3
    centred = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    found = voxels._left_out(np.clip(values, 0, None), vectors, y, 5.0, fold)
    for k in range(3):
        rest = Ridge(alpha=5.0).fit(x[fold != k], y[fold != k])
        assert found[fold == k] == pytest.approx(rest.predict(x[fold == k]))


def test_an_absent_channel_counts_as_the_training_mean(monkeypatch):
    image, y = _images(40)
    model = baselines.fit_ridge_voxels(image, y, seed=0)
    absent, mean = image[:1].astype(float).copy(), image[:1].astype(float).copy()
    absent[0, 0] = np.nan
    mean[0, 0] = model.mean.reshape(2, 6, 5, 4)[0]
    assert model.logit(absent) == pytest.approx(model.logit(mean), abs=1e-5)
    image[:, 0] = np.nan  # nobody has it
    assert np.isfinite(baselines.fit_ridge_voxels(image, y, seed=0).logit(image)).all()


def test_blocks_are_means_also_at_the_edges():
    image = np.arange(2 * 3 * 3 * 2, dtype=np.float16).reshape(1, 2, 3, 3, 2)
    blocks = voxels._blocks(image, 2).reshape(2, 2, 2, 1)
    assert blocks[0, 0, 0, 0] == image[0, 0, :2, :2].mean()
    assert blocks[1, 1, 1, 0] == image[0, 1, 2, 2].mean()
    assert voxels._block_size((5, 7, 32, 40, 32)) == 2


def test_voxel_ridge_of_constant_images_is_the_prevalence():
    _, y = _images(40)
    p = baselines.fit_ridge_voxels(np.ones((40, 1, 2, 2, 2)), y, seed=0).predict_proba(
        np.ones((3, 1, 2, 2, 2))
    )[:, 1]
    assert p == pytest.approx(0.25)


def test_images_that_cannot_be_used():
    with pytest.raises(InputError, match=r"image has shape \(4, 3\); allowed: \(N, C, D, H, W\)"):
        baselines.fit_ridge_voxels(np.ones((4, 3)), np.array([0, 1, 0, 1]), seed=0)
    with pytest.raises(InputError, match="1 events among 8 patients; the voxel ridge needs"):
        baselines.fit_ridge_voxels(np.ones((8, 1, 2, 2, 2)), np.eye(8)[0], seed=0)


# ----------------------------------------------------------------------------------- stacking


def test_a_stack_of_alike_arms_is_their_mean_and_of_unlike_ones_the_better():
    rng = np.random.default_rng(1)
    score = rng.normal(size=3000)
    y = (rng.uniform(size=3000) < expit(score - 1.5)).astype(float)
    good, noise = expit(score - 1.5), expit(rng.normal(size=3000) - 1.5)
    alike = baselines.Stack().fit(np.column_stack([good, good]), y)
    assert alike.weights[0] == pytest.approx(alike.weights[1], abs=1e-4)
    assert alike.weights.sum() == pytest.approx(1, abs=0.15)
    unlike = baselines.Stack().fit(np.column_stack([good, noise]), y)
    assert unlike.weights[0] > 0.8 and unlike.weights[1] < 0.15
    harmful = baselines.Stack().fit(np.column_stack([good, expit(-3 * score)]), y)
    assert harmful.weights[1] == 0
    p = unlike.predict(np.column_stack([good, noise]))
    assert p.mean() == pytest.approx(y.mean(), abs=1e-4)
    assert (p == unlike.predict_proba(np.column_stack([good, noise]))[:, 1]).all()


def test_a_few_patients_hardly_tell_arms_apart():
    p = np.array([[0.1, 0.3], [0.2, 0.6], [0.6, 0.4], [0.3, 0.0], [0.2, 1.0]])
    y = np.array([0, 0, 1, 0, 0])
    free, firm = (baselines.Stack(penalty=penalty).fit(p, y).weights for penalty in (1e-3, 1e5))
    usual = baselines.Stack().fit(p, y).weights
    assert firm[0] == pytest.approx(firm[1], abs=1e-3)
    assert abs(np.diff(usual)[0]) < 0.2 < abs(np.diff(free)[0])
    assert (np.concatenate([free, firm, usual]) >= 0).all()


def test_stacks_refuse_what_are_no_probabilities_or_other_arms():
    stack = baselines.Stack().fit(np.array([[0.1], [0.8], [0.5]]), np.array([0, 1, 0]))
    with pytest.raises(InputError, match="probabilities of 2 arms; the stack was fitted on 1"):
        stack.predict(np.full((3, 2), 0.5))
    with pytest.raises(InputError, match="each in 0 to 1"):
        stack.predict(np.array([[1.2]]))
    with pytest.raises(InputError, match="each in 0 to 1"):
        stack.predict(np.array([[np.nan]]))
    with pytest.raises(InputError, match="y holds"):
        baselines.Stack().fit(np.array([[0.1], [0.8]]), np.array([0, 0]))
    with pytest.raises(InputError, match="penalty is 0; allowed: above 0"):
        baselines.Stack(penalty=0)


# ------------------------------------------------------------------------------ recalibration


def test_recalibration_undoes_a_distortion():
    rng = np.random.default_rng(0)
    true = rng.normal(-1.5, 1, size=20000)
    y = (rng.uniform(size=20000) < expit(true)).astype(float)
    intercept, slope = found = baselines.recalibration(y, 1e4 * (3 * true + 2))
    assert slope == pytest.approx(1 / 3e4, rel=0.05)
    assert found.apply(1e4 * (3 * true + 2)) == pytest.approx(true, abs=0.3)
    again = baselines.recalibration(y, found.apply(1e4 * (3 * true + 2)))
    assert again == pytest.approx((0, 1), abs=1e-6)


@pytest.mark.parametrize("score", [[-2.0, -1, 1, 2], [2.0, 1, -1, -2], [-1.0, 0, 0, 1], [0.3] * 4])
def test_recalibration_without_a_slope_keeps_it_at_one(score):
    found = baselines.recalibration(np.array([0, 0, 1, 1]), np.array(score))
    assert found.slope == 1
    assert expit(found.apply(score)).mean() == pytest.approx(0.5)


def test_recalibration_refuses_infinite_logits():
    with pytest.raises(InputError, match="logit has shape"):
        baselines.recalibration(np.array([0, 1]), logit(np.array([0.0, 0.5])))
