import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from rlvo_lib import training
from rlvo_lib.config import InputError, load_settings
from rlvo_lib.fusion import TabularNet, build_model
from rlvo_lib.training import Cases, batches, devices, loop, losses


@pytest.fixture(scope="module")
def settings():
    return load_settings("smoke", epochs_max=12, patience_epochs=12, workers=1, device="cpu")


def changed(settings, **fields):
    return dataclasses.replace(settings, **fields)


def bright_or_not(n, seed):
    """Images whose outcome is whether a corner is bright."""
    rng = np.random.default_rng(seed)
    y = np.tile([0.0, 1.0], n // 2)
    image = rng.normal(0.5, 0.2, (n, 1, 16, 16, 16))
    image[y == 1, :, 4:12, 4:12, 4:12] += 0.4
    return Cases(image.astype(np.float16), None, y)


def table(n, seed, signal=1.0, events=0.5):
    """Tabular cases; the first column carries the outcome."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < events * n).astype(float)
    tabular = rng.normal(size=(n, 4)).astype(np.float32)
    tabular[:, 0] += signal * (2 * y - 1)
    return Cases(None, tabular, y)


def small_net(seed=0, **options):
    training.seed_everything(seed)
    return build_model(in_channels=1, encoder="light", base_filters=2, **options)


def flat(model):
    return torch.cat([value.detach().double().ravel() for value in model.state_dict().values()])


# ---------------------------------------------------------------------------------------- the loop


def test_the_loop_learns_what_an_image_shows(settings):
    train, inner, test = (bright_or_not(n, s) for s, n in enumerate((64, 16, 64)))
    model = small_net()
    model.encoder.set_scale(*training.image_scale(train.image))
    history = training.fit(model, train, inner, settings, seed=0)
    assert roc_auc_score(test.y, training.predict_logit(model, test, settings)) > 0.9
    assert set(history["part"]) == {"train", "inner"}


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_best_epoch_of_the_inner_part_is_kept(settings, decay):
    averaged = changed(settings, weight_averaging=decay, epochs_max=5)
    train, inner, model = bright_or_not(32, 0), bright_or_not(32, 1), small_net()
    history = training.fit(model, train, inner, averaged, seed=0)
    best = history[history["part"] == "inner"]["loss"].min()
    logit = training.predict_logit(model, inner, averaged)
    assert training.log_loss(inner.y, logit) == pytest.approx(best, abs=1e-9)


def test_patience_ends_training(settings):
    impatient = changed(settings, epochs_max=50, patience_epochs=2)
    training.seed_everything(0)
    cases = [table(40, seed, signal) for seed, signal in ((0, 0.3), (1, -0.3))]
    history = training.fit(TabularNet(4), *cases, impatient, seed=0)
    inner = history[history["part"] == "inner"]["loss"].to_numpy()
    assert len(inner) < 50
    assert len(inner) - 1 - inner.argmin() == 2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(
            weight_averaging=0.9,
            precision="bfloat16",
            channels_last=True,
            imbalance="balanced",
            augment_rotation_deg=5.0,
        ),
    ],
)
def test_same_seed_same_bytes(settings, fields):
    short = changed(settings, epochs_max=2, **fields)
    weights = []
    for _ in range(2):
        model = small_net(3)
        training.fit(model, bright_or_not(16, 0), bright_or_not(8, 1), short, seed=3)
        weights.append(flat(model))
    assert torch.equal(*weights)


def test_channels_last_and_the_order_of_memory_change_no_result_much(settings):
    logits = []
    for last in (False, True):
        own = changed(settings, epochs_max=2, channels_last=last)
        model = small_net()
        training.fit(model, bright_or_not(32, 0), bright_or_not(8, 1), own, seed=0)
        logits.append(training.predict_logit(model, bright_or_not(8, 2), own))
        if last:
            assert (
                model.encoder.trunks[0]
                .stem[0]
                .weight.is_contiguous(memory_format=torch.channels_last_3d)
            )
    np.testing.assert_allclose(*logits, atol=1e-3)


def test_the_averaged_weights_are_the_running_mean():
    model = nn.BatchNorm1d(1)
    average = loop.WeightAverage(model, 0.5)
    expected = 1.0
    for step, value in enumerate((3.0, 5.0, 7.0)):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        model.num_batches_tracked.fill_(int(value))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.model.weight.item() == pytest.approx(expected)
    assert float(average.model.running_mean) != pytest.approx(expected)  # it started at 0
    assert int(average.model.num_batches_tracked) == 7
    assert loop.WeightAverage(model, 0.0).model is model


def test_weight_decay_spares_parameters_of_one_dimension(settings):
    model = small_net()
    decayed, spared = loop.adamw(model, changed(settings, weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0.0
    assert {p.ndim for p in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_image_scale_is_that_of_all_voxels_there_are():
    image = np.random.default_rng(0).random((5, 2, 4, 4, 4)).astype(np.float16)
    mean, sd = training.image_scale(image)
    flat_image = image.astype(np.float64).transpose(1, 0, 2, 3, 4).reshape(2, -1)
    np.testing.assert_allclose(mean, flat_image.mean(1), rtol=1e-5)
    np.testing.assert_allclose(sd, flat_image.std(1), rtol=1e-5)
    without = np.concatenate([image, np.full_like(image[:1], np.nan)])
    torch.testing.assert_close(training.image_scale(without), (mean, sd))
    image[:, 1] = np.nan
    with pytest.raises(InputError, match="channel 1 is absent in all 5 training patients"):
        training.image_scale(image)


# -------------------------------------------------------------------------------------- imbalance


def test_no_batch_is_of_one_patient_and_none_larger_than_asked():
    for n in range(2, 70):
        sizes = [len(rows) for rows in batches.split_rows(np.arange(n), 8)]
        assert sum(sizes) == n and min(sizes) >= 2 and max(sizes) <= 8
    assert [len(rows) for rows in batches.split_rows(np.arange(3), 2)] == [3]


@pytest.mark.parametrize(("ahead", "kept"), [(True, False), (True, True), (False, True)])
def test_batches_are_the_same_however_they_are_made(ahead, kept):
    """What a GPU's loader does, on the CPU: a thread gathers ahead, or images lie on the device."""
    cases = dataclasses.replace(bright_or_not(10, 0), offset=np.arange(10, dtype=np.float32))
    plain, other = (batches.Batches(cases, torch.device("cpu")) for _ in "ab")
    other.ahead = ahead
    if kept:
        other.keep()
    wanted = [np.array([3, 1, 9]), np.array([0, 2]), np.array([4, 5, 6])]
    for rows, one, two in zip(wanted, plain.of(wanted), other.of(wanted), strict=True):
        assert one.image.dtype == torch.float32 and one.tabular is None and two.extra is None
        np.testing.assert_array_equal(one.image, cases.image[rows].astype(np.float32))
        np.testing.assert_array_equal(one.offset, rows)
        assert torch.equal(one.image, two.image) and torch.equal(one.y, two.y)
        assert torch.equal(one.offset, two.offset)


def test_balanced_batches_hold_both_outcomes_alike():
    y = (np.arange(60) < 9).astype(float)
    order = batches.epoch_order(y, torch.Generator().manual_seed(0), balanced=True)
    assert len(order) == 60
    for rows in batches.split_rows(order, 8):
        assert abs(2 * y[rows].sum() - len(rows)) <= 1
    events = np.bincount(order, minlength=60)[:9]
    assert events.min() >= 3 and events.max() <= 4  # 30 places for 9 patients
    plain = batches.epoch_order(y, torch.Generator().manual_seed(0), balanced=False)
    assert sorted(plain) == list(range(60))


def test_the_weights_of_the_classes_sum_to_the_number_of_patients(settings):
    train = table(40, 0, events=0.1)
    criterion = losses.Criterion(train, changed(settings, imbalance="weights"), torch.device("cpu"))
    weights = np.where(train.y == 1, criterion.class_weights[1], criterion.class_weights[0])
    assert weights.sum() == pytest.approx(40)
    assert weights[train.y == 1].sum() == pytest.approx(20)
    assert criterion.start == 0.0
    y = torch.tensor([0.0, 1.0])
    expected = np.log(2) * (0.5 / 0.9 + 0.5 / 0.1) / 2
    assert float(criterion.outcome(torch.zeros(2), y)) == pytest.approx(expected)


def test_focal_loss_by_hand():
    logit, y = torch.tensor([1.0, -2.0]), torch.tensor([1.0, 1.0])
    p = 1 / (1 + np.exp(-logit.numpy()))
    expected = -((1 - p) ** 2) * np.log(p)
    np.testing.assert_allclose(losses.focal_loss(logit, y, 2.0), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.focal_loss(-logit, 1 - y, 2.0), expected, rtol=1e-5)


@pytest.mark.parametrize("imbalance", ["none", "weights", "balanced", "focal"])
def test_only_none_keeps_the_mean_probability(settings, imbalance):
    train, inner = (table(200, s, signal=0.2, events=0.1) for s in (0, 1))
    own = changed(settings, imbalance=imbalance, learning_rate=1e-2)
    training.seed_everything(0)
    model = TabularNet(4)
    training.fit(model, train, inner, own, seed=0)
    probability = 1 / (1 + np.exp(-training.predict_logit(model, train, own)))
    if imbalance == "none":
        assert probability.mean() == pytest.approx(0.1, abs=0.03)
    else:
        assert probability.mean() > 0.15


# ----------------------------------------------------------------------- offset, auxiliary targets


def test_a_network_that_finds_nothing_is_its_offset_exactly(settings):
    train, inner = table(40, 0), table(40, 1, signal=-1.0)  # what is learnt is wrong elsewhere
    for cases in (train, inner):
        cases.offset = np.linspace(-1, 1, 40, dtype=np.float32)
    training.seed_everything(0)
    model = TabularNet(4)
    history = training.fit(
        model, train, inner, changed(settings, patience_epochs=2, learning_rate=0.1), seed=0
    )
    np.testing.assert_array_equal(training.predict_logit(model, inner, settings), inner.offset)
    assert history["epoch"].min() == -1 and len(history) == 1 + 2 * 2
    before = history.iloc[0]
    assert before["loss"] == pytest.approx(training.log_loss(inner.y, inner.offset))


def test_a_network_learns_what_its_offset_lacks(settings):
    train, inner = (table(100, s) for s in (0, 1))
    for cases in (train, inner):
        cases.offset = np.full(100, 1.0, np.float32)
    training.seed_everything(0)
    model, own = TabularNet(4), changed(settings, learning_rate=3e-2)
    history = training.fit(model, train, inner, own, seed=0)
    inner_loss = history[history["part"] == "inner"]["loss"].to_numpy()
    assert inner_loss.min() < 0.7 * inner_loss[0]
    without = dataclasses.replace(inner, offset=None)
    gap = training.predict_logit(model, inner, own) - training.predict_logit(model, without, own)
    np.testing.assert_allclose(gap, 1.0, atol=1e-6)


def test_auxiliary_targets_are_standardised_and_masked(settings):
    extra = np.array([[10.0, np.nan], [30.0, 1.0], [np.nan, 3.0]], np.float32)
    train = Cases(None, np.zeros((3, 1), np.float32), np.array([0.0, 1, 0]), extra=extra)
    criterion = losses.Criterion(
        train, changed(settings, auxiliary_weight=0.5), torch.device("cpu")
    )
    batch = next(batches.Batches(train, torch.device("cpu")).of([np.arange(3)]))
    # standardised: (-1, ?), (1, -1), (?, 1); a network of zeros errs by 1 four times
    assert float(criterion.auxiliary(torch.zeros(3, 2), batch.extra)) == pytest.approx(1.0)
    output = torch.zeros(3, 3, requires_grad=True)
    loss = criterion(output, batch)
    assert float(loss.detach()) == pytest.approx(
        float(criterion.outcome(torch.zeros(3), batch.y)) + 0.5
    )
    loss.backward()
    assert torch.isfinite(output.grad).all() and output.grad[0, 2] == 0
    batch.extra = torch.full((3, 2), torch.nan)
    assert float(criterion.auxiliary(torch.zeros(3, 2), batch.extra)) == 0.0


def test_auxiliary_targets_train_a_network_of_more_outputs(settings):
    train, inner = table(80, 0), table(40, 1)
    train.extra = train.tabular[:, 1:3] * 100 + 7
    train.extra[::3, 0] = np.nan
    own = changed(settings, auxiliary_weight=1.0, learning_rate=3e-2, epochs_max=30)
    training.seed_everything(0)
    model = TabularNet(4, n_outputs=3)
    training.fit(model, train, inner, changed(own, patience_epochs=30), seed=0)
    with torch.no_grad():
        output = model(None, torch.from_numpy(train.tabular)).numpy()
    assert np.corrcoef(output[:, 1], train.tabular[:, 1])[0, 1] > 0.8
    assert training.predict_logit(model, inner, own).shape == (40,)


# ------------------------------------------------------------------------------------------ teacher


def test_what_is_learnt_lies_between_outcome_and_teacher(settings):
    y, taught = torch.tensor([0.0, 1.0]), torch.tensor([0.4, 0.6])
    train = table(8, 0)
    for share, target in ((0.0, [0.0, 1.0]), (0.25, [0.1, 0.9]), (1.0, [0.4, 0.6])):
        own = changed(settings, teaching=share)
        criterion = training.losses.Criterion(train, own, torch.device("cpu"))
        assert criterion.target(y, taught).tolist() == pytest.approx(target)
        assert criterion.target(y, None) is y


def test_a_network_taught_alone_learns_its_teacher_and_not_the_outcome(settings):
    own = changed(settings, teaching=1.0, learning_rate=3e-2, epochs_max=30, patience_epochs=30)
    train, inner = (table(100, s) for s in (0, 1))
    for cases in (train, inner):  # the teacher says the opposite of what happened
        cases.taught = np.where(cases.y == 1, 0.1, 0.9).astype(np.float32)
    training.seed_everything(0)
    model = TabularNet(4)
    history = training.fit(model, train, inner, own, seed=0)
    logit = training.predict_logit(model, dataclasses.replace(inner, taught=None), own)
    assert np.corrcoef(logit, inner.y)[0, 1] < -0.5
    least = history[history["part"] == "inner"]["loss"].min()
    assert least >= -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))  # the teacher's own entropy


def test_a_teacher_of_one_part_or_beside_weights_is_refused(settings):
    train, inner = table(8, 0), table(8, 1)
    taught = dataclasses.replace(train, taught=np.full(8, 0.5, np.float32))
    with pytest.raises(ValueError, match="a teacher for one part only"):
        training.fit(TabularNet(4), taught, inner, settings, seed=0)
    inner.taught = np.full(8, 0.5, np.float32)
    with pytest.raises(InputError, match="'imbalance' is 'focal' for an arm with a teacher"):
        training.fit(TabularNet(4), taught, inner, changed(settings, imbalance="focal"), seed=0)
    inner.taught[3] = np.nan
    with pytest.raises(InputError, match="inner part, patient in row 3: taught is nan"):
        training.fit(TabularNet(4), taught, inner, settings, seed=0)


# --------------------------------------------------------------------------------------- bad input


def test_one_outcome_batches_of_one_and_missing_targets_are_refused(settings):
    train, inner = table(8, 0), table(8, 1)
    one_class = dataclasses.replace(train, y=np.ones(8))
    with pytest.raises(InputError, match="all 8 training patients have the same"):
        training.fit(TabularNet(4), one_class, inner, settings, seed=0)
    with pytest.raises(InputError, match="'batch_size' is 1; allowed: 2 or more"):
        training.fit(TabularNet(4), train, inner, changed(settings, batch_size=1), seed=0)
    shifted = dataclasses.replace(train, offset=np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="a frozen offset for one part only"):
        training.fit(TabularNet(4), shifted, inner, settings, seed=0)
    own = changed(settings, auxiliary_weight=1.0)
    train.extra = np.stack([np.ones(8), np.full(8, np.nan)], 1).astype(np.float32)
    with pytest.raises(InputError, match="auxiliary target 1 is missing in all 8"):
        training.fit(TabularNet(4, n_outputs=3), train, inner, own, seed=0)
    with pytest.raises(ValueError, match="1 outputs for 2 auxiliary targets; allowed: 3"):
        training.fit(TabularNet(4), train, inner, own, seed=0)


def test_nan_is_named_where_it_is(settings):
    good, model = bright_or_not(8, 0), small_net()
    broken = dataclasses.replace(good, image=good.image.copy())
    broken.image[3, 0, 1, 1, 1:4] = np.nan
    with pytest.raises(
        InputError, match="inner part, patient in row 3, channel 0: 3 of 4096 voxels"
    ):
        training.fit(model, good, broken, settings, seed=0)
    broken.image[3, 0] = np.nan
    with pytest.raises(InputError, match="training part.*row 3.*absent.*'leave-out'"):
        training.fit(model, broken, good, settings, seed=0)
    training.loop.check_cases(broken, changed(settings, absent="flag"), "training")
    broken.image[3, 0] = np.inf
    with pytest.raises(InputError, match="predicted part, patient in row 3, channel 0: 4096 of"):
        training.predict_logit(model, broken, changed(settings, absent="flag"))
    bad = table(8, 0)
    bad.tabular[2, 1] = np.nan
    with pytest.raises(InputError, match="row 2: tabular, column 1 is nan"):
        training.fit(TabularNet(4), bad, table(8, 1), settings, seed=0)
    bad = dataclasses.replace(table(8, 0), offset=np.full(8, np.inf, np.float32))
    with pytest.raises(InputError, match="row 0: offset is inf"):
        training.predict_logit(TabularNet(4), bad, settings)


def test_divergence_is_named(settings):
    wild = changed(settings, learning_rate=1e25, gradient_clip=0.0, warmup_epochs=0)
    with pytest.raises(
        InputError, match=r"diverged in epoch \d+ .*rate of .*'learning_rate' .1e\+25"
    ):
        training.fit(small_net(), bright_or_not(40, 0), bright_or_not(8, 1), wild, seed=0)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_does_not_suffice_names_the_settings(settings, monkeypatch, error):
    def full(*_):
        raise error

    cases = table(8, 0)
    model = TabularNet(4)
    monkeypatch.setattr(model, "forward", full)
    words = r"'batch_size' \(16\), 'grid_shape' \(16, 20, 16\) or 'base_filters' \(4\)"
    with pytest.raises(InputError, match=words):
        training.fit(model, cases, cases, settings, seed=0)
    with pytest.raises(InputError, match=words):
        training.predict_logit(model, cases, settings)


class ToldOfAbsence(nn.Module):
    """A network of two channels that takes an absent one for its mean."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.register_buffer("sd", torch.ones(1, 2, 1, 1, 1))
        self.seen = []
        self.head = nn.Linear(2, 1)

    def forward(self, image, _tabular):
        self.seen.append((self.training, image.isnan().flatten(2).all(2)))
        return self.head(image.nan_to_num().mean(dim=(2, 3, 4)))


def test_scans_are_hidden_in_training_only(settings):
    one = bright_or_not(32, 0)
    both = dataclasses.replace(one, image=np.repeat(one.image, 2, axis=1))
    hiding = changed(settings, absent="flag", modality_dropout=0.5, epochs_max=2)
    training.seed_everything(0)
    model = ToldOfAbsence()
    training.fit(model, both, both, hiding, seed=0, scans=(("ncct", (0,)), ("cta", (1,))))
    hidden = {mode: torch.cat([h for m, h in model.seen if m is mode]) for mode in (True, False)}
    assert not hidden[False].any()
    assert 0.2 < hidden[True].float().mean() < 0.55 and not hidden[True].all(1).any()


def test_other_errors_keep_their_words(settings):
    with pytest.raises(RuntimeError, match="no such thing"), devices.memory_errors(settings):
        raise RuntimeError("no such thing")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no NVIDIA GPU is available"):
            training.pick_device("cuda")


# ------------------------------------------------------------------------------------- checkpoints


ABOUT = {"fusion": "none", "channels": ("cta",), "settings": {"base_filters": 2}}


@pytest.fixture
def checkpoint(tmp_path):
    pytest.importorskip("safetensors")
    path, model = tmp_path / "model.safetensors", small_net(1)
    training.save_model(path, model, ABOUT)
    return path, model


def test_a_checkpoint_gives_the_weights_back(checkpoint, tmp_path):
    path, model = checkpoint
    other = training.load_model(path, small_net(2), ABOUT)
    assert torch.equal(flat(model), flat(other))
    again = tmp_path / "again.safetensors"
    other = other.to(memory_format=torch.channels_last_3d)  # another order of memory, the same file
    training.save_model(again, other, ABOUT)
    assert path.read_bytes() == again.read_bytes()


def test_a_checkpoint_of_another_configuration_is_refused_by_name(checkpoint):
    path, model = checkpoint
    with pytest.raises(
        InputError, match=r"another configuration: fusion is 'none'; allowed: 'daft'"
    ):
        training.load_model(path, model, ABOUT | {"fusion": "daft"})
    with pytest.raises(InputError, match="seed is 'not given'; allowed: 3"):
        training.load_model(path, model, ABOUT | {"seed": 3})
    with pytest.raises(InputError, match=r"channels is \['cta'\]; allowed: 'not given'"):
        training.load_model(path, model, {k: v for k, v in ABOUT.items() if k != "channels"})


def test_a_checkpoint_of_another_network_is_refused(checkpoint):
    path, _ = checkpoint
    with pytest.raises(InputError, match="has a tensor that the network does not: 'block.conv1"):
        training.load_model(path, TabularNet(4), ABOUT)
    wider = build_model(in_channels=2, encoder="light", base_filters=2)
    with pytest.raises(InputError, match=r"'encoder.mean' is of shape \(1, 1.*allowed: \(1, 2"):
        training.load_model(path, wider, ABOUT)
    more = small_net()
    more.register_buffer("more", torch.zeros(1))
    with pytest.raises(InputError, match="lacks tensor 'more'"):
        training.load_model(path, more, ABOUT)


def test_a_damaged_checkpoint_is_refused_and_the_network_left_alone(checkpoint):
    path, _ = checkpoint
    whole = path.read_bytes()
    model = small_net(5)
    before = flat(model)
    flipped = bytearray(whole)
    flipped[-10] ^= 1
    for content, words in (
        (whole[: len(whole) // 2], "not a checkpoint"),
        (b"", "not a checkpoint"),
        (b"\x80\x02}q\x00." * 9, "not a checkpoint"),
        (bytes(flipped), "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            training.load_model(path, model, ABOUT)
    assert torch.equal(flat(model), before)
    with pytest.raises(InputError, match="no such checkpoint"):
        training.load_model(path.with_name("none.safetensors"), model, ABOUT)


def test_safetensors_of_elsewhere_are_refused(checkpoint):
    from safetensors.torch import save

    path, model = checkpoint
    for metadata in (None, {"rlvo": "[]"}, {"rlvo": json.dumps({"about": {}})}):
        path.write_bytes(save({"a": torch.zeros(1)}, metadata=metadata))
        with pytest.raises(InputError, match="not a checkpoint of this package"):
            training.load_model(path, model, ABOUT)
