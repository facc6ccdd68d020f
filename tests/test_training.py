import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rlvo_lib import training
from rlvo_lib.config import InputError, load_settings
from rlvo_lib.fusion import TabularNet, build_model
from rlvo_lib.training import Cases


@pytest.fixture(scope="module")
def settings():
    return load_settings("smoke", epochs_max=15, patience_epochs=15, workers=1)


def _bright_or_not(n, seed):
    """Images whose outcome is whether a corner is bright."""
    rng = np.random.default_rng(seed)
    y = np.tile([0.0, 1.0], n // 2)
    image = rng.normal(0.5, 0.2, (n, 1, 16, 16, 16))
    image[y == 1, :, 4:12, 4:12, 4:12] += 0.4
    return Cases(image.astype(np.float16), None, y)


def test_the_loop_learns_what_an_image_shows(settings):
    training.seed_everything(0)
    train, inner, test = (_bright_or_not(n, s) for s, n in enumerate((96, 32, 64)))
    model = build_model(in_channels=1, encoder="light", base_filters=2)
    model.encoder.set_scale(*training.image_scale(train.image))
    history = training.fit(model, train, inner, settings, seed=0)
    assert roc_auc_score(test.y, training.predict_logit(model, test, settings)) > 0.9
    assert set(history["part"]) == {"train", "inner"}


def test_the_best_epoch_of_the_inner_part_is_kept(settings):
    training.seed_everything(0)
    train, inner = _bright_or_not(32, 0), _bright_or_not(32, 1)
    model = build_model(in_channels=1, encoder="light", base_filters=2)
    history = training.fit(model, train, inner, settings, seed=0)
    best = history[history["part"] == "inner"]["loss"].min()
    logit = training.predict_logit(model, inner, settings)
    assert training.log_loss(inner.y, logit) == pytest.approx(best, abs=1e-9)


def test_patience_ends_training(settings):
    impatient = dataclasses.replace(settings, epochs_max=50, patience_epochs=2)
    rng = np.random.default_rng(0)
    cases = [
        Cases(None, rng.normal(size=(40, 6)).astype(np.float32), np.tile([0.0, 1.0], 20))
        for _ in "ab"
    ]
    training.seed_everything(0)
    history = training.fit(TabularNet(6), *cases, impatient, seed=0)
    inner = history[history["part"] == "inner"]["loss"].to_numpy()
    assert len(inner) < 50
    assert len(inner) - 1 - inner.argmin() == 2


def test_same_seed_same_weights(settings):
    weights = []
    for _ in range(2):
        training.seed_everything(3)
        model = build_model(in_channels=1, encoder="light", base_filters=2)
        short = dataclasses.replace(settings, epochs_max=2)
        training.fit(model, _bright_or_not(16, 0), _bright_or_not(8, 1), short, seed=3)
        weights.append(torch.cat([p.detach().ravel() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_image_scale_is_that_of_all_voxels():
    image = np.random.default_rng(0).random((5, 2, 4, 4, 4)).astype(np.float16)
    mean, sd = training.image_scale(image)
    flat = image.astype(np.float64).transpose(1, 0, 2, 3, 4).reshape(2, -1)
    np.testing.assert_allclose(mean, flat.mean(1), rtol=1e-5)
    np.testing.assert_allclose(sd, flat.std(1), rtol=1e-5)


def test_augmentation_shifts_by_whole_voxels(settings):
    still = dataclasses.replace(settings, augment_noise=0.0, augment_shift_voxels=2)
    image = torch.zeros(1, 1, 9, 9, 9)
    image[0, 0, 4, 4, 4] = 1
    for seed in range(5):
        moved = training.augment(image, torch.ones(1), still, torch.Generator().manual_seed(seed))
        assert moved.shape == image.shape and moved.sum() == 1
        assert (moved[0, 0].nonzero()[0] - 4).abs().max() <= 2
    off = dataclasses.replace(still, augment_shift_voxels=0)
    assert torch.equal(training.augment(image, torch.ones(1), off, torch.Generator()), image)


def test_noise_is_in_proportion_to_each_channel(settings):
    noisy = dataclasses.replace(settings, augment_noise=0.1, augment_shift_voxels=0)
    sd = torch.tensor([0.01, 1.0]).view(1, 2, 1, 1, 1)
    image = torch.zeros(4, 2, 16, 16, 16)
    moved = training.augment(image, sd, noisy, torch.Generator().manual_seed(0))
    spread = moved.std(dim=(0, 2, 3, 4))
    torch.testing.assert_close(spread, torch.tensor([0.001, 0.1]), rtol=0.05, atol=0)


def test_faults_are_named(settings):
    cases = _bright_or_not(8, 0)
    model = build_model(in_channels=1, encoder="light", base_filters=2)
    one_class = Cases(cases.image, None, np.ones(8))
    with pytest.raises(InputError, match="all 8 training patients have the same"):
        training.fit(model, one_class, cases, settings, seed=0)
    broken = Cases(np.full_like(cases.image, np.nan), None, cases.y)
    with pytest.raises(InputError, match=r"training diverged in epoch 0.*'learning_rate'"):
        training.fit(model, broken, cases, settings, seed=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no NVIDIA GPU is available"):
            training.pick_device("cuda")
