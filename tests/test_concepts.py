"""Concepts as numbers, readers that learn them, and the regression that stands on them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from rlvo_lib import concepts, training
from rlvo_lib.concepts import Bottleneck, ConceptDaft, ReadCodes, ReaderNet
from rlvo_lib.config import InputError, load_settings
from rlvo_lib.training import Cases

COLUMNS = ("clot_hu", "siphon_calc", "tandem_cta")


@pytest.fixture
def codes(words):
    return ReadCodes(COLUMNS, words)


@pytest.fixture
def table():
    rows = {"a": (40.0, "2", "1"), "b": (60.0, "0", "0"), "c": (np.nan, np.nan, np.nan)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


# --------------------------------------------------------------------------- concepts as numbers


def test_a_quantity_a_code_of_two_levels_and_one_of_more(codes, table):
    assert codes.names == [
        "clot_hu", "siphon_calc=0", "siphon_calc=1", "siphon_calc=2", "tandem_cta",
    ]  # fmt: skip
    found = codes.of_table(table)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[40, 0, 0, 1, 1], [60, 1, 0, 0, 0], [np.nan] * 5])
    assert codes.where("siphon_calc") == [1, 2, 3] and codes.where("tandem_cta") == [4]


def test_a_skewed_quantity_is_logged_and_a_correction_of_it_too(words, table):
    fields = words.fields | {
        "clot_hu": dataclasses.replace(words["clot_hu"], transform="log1p"),
    }
    codes = ReadCodes(("clot_hu",), dataclasses.replace(words, fields=fields))
    assert codes.of_table(table)[0, 0] == pytest.approx(np.log(41))
    assert codes.corrected(np.zeros((2, 1)), "clot_hu", 9) == pytest.approx(np.log([[10], [10]]))


def test_one_read_is_corrected_and_the_others_stay(codes):
    reads = np.array([[50.0, 0.5, 0.3, 0.2, 0.4], [30.0, 0.1, 0.8, 0.1, 0.9]])
    before = reads.copy()
    siphon = codes.corrected(reads, "siphon_calc", "1")
    np.testing.assert_array_equal(siphon[:, 1:4], [[0, 1, 0]] * 2)
    np.testing.assert_array_equal(siphon[:, [0, 4]], reads[:, [0, 4]])
    assert codes.corrected(reads, "tandem_cta", 0)[:, 4].tolist() == [0, 0]
    assert codes.corrected(reads, "clot_hu", "44.5")[:, 0].tolist() == [44.5, 44.5]
    np.testing.assert_array_equal(reads, before)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("age", 70, "'age' is no concept; allowed: clot_hu, siphon_calc, tandem_cta"),
        ("siphon_calc", "7", "'siphon_calc' is read as '7'; allowed: 0, 1, 2"),
        ("tandem_cta", "no", "'tandem_cta' is read as 'no'; allowed: 0, 1"),
        ("clot_hu", "dense", "'clot_hu' is read as 'dense'; allowed: a number"),
    ],
)
def test_a_correction_that_makes_no_sense_is_refused(codes, column, value, message):
    with pytest.raises(InputError) as caught:
        codes.corrected(np.zeros((1, 5)), column, value)
    assert str(caught.value) == message


def test_a_concept_that_the_table_lacks_is_named(codes, table):
    with pytest.raises(InputError, match="column 'tandem_cta', a concept, is missing"):
        codes.of_table(table.drop(columns="tandem_cta"))


def test_shares_are_bounded_and_quantities_are_not(codes):
    reads = np.array([[-300.0, -0.2, 1.3, 0.5, 2.0]])
    assert codes.bounded(reads).tolist() == [[-300.0, 0.0, 1.0, 0.5, 1.0]]


def test_the_expected_code_weighs_the_shares(codes):
    reads = np.array([[50.0, 0.2, 0.2, 0.1, 0.7], [50.0, 0.0, 0.0, 3.0, 0.1]])
    assert codes.expected(reads, "siphon_calc") == pytest.approx([0.8, 2.0], abs=1e-5)
    assert codes.expected(reads, "tandem_cta").tolist() == [0.7, 0.1]
    assert codes.expected(reads, "clot_hu").tolist() == [50.0, 50.0]


def test_reading_quality_of_known_reads(codes):
    recorded = np.array(
        [[10, 1, 0, 0, 0], [20, 0, 1, 0, 0], [30, 0, 0, 1, 1], [40, 0, 0, 1, 1]], float
    )
    reads = recorded.copy()
    reads[:, 0] = 25  # the mean: R² 0
    reads[:, 4] = [0.1, 0.6, 0.5, 0.9]  # one of four pairs the wrong way round
    recorded = np.vstack([recorded, [np.nan] * 5])
    reads = np.vstack([reads, [0] * 5])
    found = concepts.reading_quality(codes, recorded, reads).set_index("concept")
    assert found["measure"].tolist() == ["R2", "R2", "AUC"]
    assert found["value"].tolist() == pytest.approx([0.0, 1.0, 0.75], abs=1e-5)
    assert found["n"].tolist() == [4, 4, 4] and found.loc["tandem_cta", "events"] == 2
    alike = concepts.reading_quality(codes, recorded[:1], reads[:1]).set_index("concept")
    assert alike["value"].isna().all() and set(alike["reason"]) == {"all alike"}


# --------------------------------------------------------------------------- from reads to outcome


@pytest.fixture
def made(codes):
    """Recorded reads and an outcome that follows the tandem lesion alone; guesses tell nothing."""
    rng = np.random.default_rng(0)
    n = 160
    siphon = np.eye(3)[rng.integers(0, 3, n)]
    tandem = rng.integers(0, 2, n)
    recorded = np.column_stack([rng.normal(50, 10, n), siphon, tandem])
    y = (rng.random(n) < np.where(tandem == 1, 0.8, 0.2)).astype(float)
    guessed = recorded[rng.permutation(n)]
    return recorded, guessed, rng.normal(size=(n, 2)), y


def test_a_corrected_read_moves_the_probability_the_right_way(codes, made):
    recorded, guessed, clinical, y = made
    model = Bottleneck(codes, seed=0).fit(recorded, guessed, clinical, y)
    none = model.predict(codes.corrected(guessed, "tandem_cta", "0"), clinical)
    some = model.predict(codes.corrected(guessed, "tandem_cta", "1"), clinical)
    other = model.predict(codes.corrected(guessed, "siphon_calc", "2"), clinical)
    assert (some - none > 0.25).all()
    assert np.abs(other - model.predict(guessed, clinical)).max() < 0.2
    assert ((none > 0) & (some < 1)).all()


def test_what_was_recorded_decides_and_guesses_fill_the_gaps_alone(codes, made):
    recorded, guessed, clinical, y = made
    model = Bottleneck(codes, seed=0).fit(recorded, guessed, clinical, y)
    other = Bottleneck(codes, seed=0).fit(recorded, -guessed, clinical, y)
    np.testing.assert_array_equal(model.model.coef, other.model.coef)
    gaps = recorded.copy()
    gaps[::2] = np.nan
    filled = Bottleneck(codes, seed=0).fit(gaps, guessed, clinical, y)
    tandem = filled.model.coef[4], model.model.coef[4]
    assert tandem[0] < 0.8 * tandem[1], "guesses that tell nothing weaken the coefficient"
    np.testing.assert_allclose(filled.mean, recorded[1::2].mean(axis=0))


def test_a_rare_code_is_not_blown_up_and_reads_out_of_range_are_bounded(codes, made):
    recorded, _, _, y = made
    rare = recorded.copy()
    rare[:, 4] = 0
    rare[0, 4] = 1
    model = Bottleneck(codes, seed=0)
    model.set_scale(rare)
    assert model.sd[4] == 0.3 and model.sd[0] == pytest.approx(recorded[:, 0].std())
    model.fit(recorded, recorded, None, y)
    beyond = recorded.copy()
    beyond[:, 4] = 25 * recorded[:, 4]
    np.testing.assert_array_equal(model.predict(beyond, None), model.predict(recorded, None))


def test_daft_on_reads_starts_as_the_regression_it_modulates():
    torch.manual_seed(0)
    net, both = ConceptDaft(3, 4), torch.randn(6, 7)
    with torch.no_grad():
        torch.testing.assert_close(net(None, both), net.head(both[:, :3]))
        net.modulation.expand.weight.normal_()
        assert (net(None, both) - net.head(both[:, :3])).abs().max() > 1e-3
    assert net.modulation.reduce.in_features == 7


# ----------------------------------------------------------------------------------------- readers

GRID = (16, 16, 16)


def _blobs(n, seed):
    """Images with one bright ball, and its place along x (voxels) and radius."""
    rng = np.random.default_rng(seed)
    x, radius = rng.uniform(4, 11, n), rng.uniform(1.5, 4, n)
    axes = np.indices(GRID)
    image = rng.normal(0, 0.05, (n, 1, *GRID)).astype(np.float32)
    for k in range(n):
        away = np.sqrt((axes[0] - x[k]) ** 2 + ((axes[1:] - 7.5) ** 2).sum(axis=0))
        image[k, 0] += np.clip(radius[k] - away + 0.5, 0, 1)
    return image.astype(np.float16), np.column_stack([x, radius]).astype(np.float32)


@pytest.fixture
def quick(tmp_path):
    settings = load_settings(
        "smoke", cache=tmp_path, device="cpu", reader_epochs=12, reader_batch_size=16,
        augment_shift_voxels=0, learning_rate=1e-2,
    )  # fmt: skip
    return concepts.read_settings(settings)


def _reader(cases, n_measured=0):
    training.seed_everything(0)
    net = ReaderNet(1, GRID, n_measured=n_measured, n_reads=cases.extra.shape[1], dropout=0.1)
    net.encoder.set_scale(*training.image_scale(cases.image))
    net.set_targets(cases.extra)
    return net


def test_a_reader_learns_where_a_ball_lies_and_its_size_in_their_units(quick):
    (image, reads), (new, truth) = _blobs(64, 0), _blobs(30, 1)
    reads[::5, 1] = np.nan  # a radius that nobody noted
    train = Cases(image[:48], None, None, extra=reads[:48])
    inner = Cases(image[48:], None, None, extra=reads[48:])
    net = _reader(train)
    history = training.fit(net, train, inner, quick, seed=0)
    assert history["epoch"].max() == quick.reader_epochs - 1
    found = concepts.predict_reads(net, Cases(new, None, None, extra=truth[:, :0]), quick)
    assert found.shape == truth.shape and found.dtype == np.float64
    r2 = 1 - ((found - truth) ** 2).sum(axis=0) / ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    assert (r2 > 0.6).all(), r2


def test_missing_reads_reach_no_gradient():
    image, reads = _blobs(8, 0)
    settings = load_settings("smoke", device="cpu", augment_noise=0.0)
    gradients = []
    for filler in (0.0, 50.0):
        net = _reader(Cases(image, None, None, extra=reads)).eval()
        targets = np.array(reads)
        targets[:4, 1] = np.nan
        criterion = training.losses.Criterion(
            Cases(image, None, None, extra=targets), settings, torch.device("cpu")
        )
        output = net(torch.from_numpy(image).float())
        output = output + filler * torch.from_numpy(np.isnan(targets))
        loss = criterion.auxiliary(output, torch.from_numpy(targets))
        loss.backward()
        gradients.append([loss.detach()] + [p.grad.clone() for p in net.parameters()])
    assert all(torch.isfinite(g).all() for g in gradients[0])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_reads_come_back_in_the_units_of_the_record(quick):
    image, _ = _blobs(5, 0)
    reads = np.array([[10, 1], [30, 0], [50, np.nan], [np.nan, 1], [70, 0]], np.float32)
    net = _reader(Cases(image, None, None, extra=reads))
    with torch.no_grad():
        net.head.weight.zero_(), net.head.bias.copy_(torch.tensor([0.0, 1.0]))
    found = concepts.predict_reads(net, Cases(image, None, None, extra=reads), quick)
    np.testing.assert_allclose(found, [[40.0, 1.0]] * 5, atol=1e-5)


def test_what_was_measured_changes_the_reads_and_one_value_for_all_has_no_scale():
    image, reads = _blobs(4, 0)
    net = _reader(Cases(image, None, None, extra=np.ones_like(reads)), n_measured=3).eval()
    assert net.target_sd.tolist() == [1.0, 1.0]
    seen = torch.from_numpy(image).float()
    with torch.no_grad():
        assert not torch.equal(net(seen, torch.zeros(4, 3)), net(seen, torch.ones(4, 3)))


def test_a_reader_is_trained_to_its_last_epoch_with_settings_of_its_own(tmp_path):
    given = load_settings(
        "smoke", cache=tmp_path, reader_epochs=7, reader_filters=2, reader_batch_size=9,
        absent="flag", modality_dropout=0.5,
    )  # fmt: skip
    own = concepts.read_settings(given)
    assert (own.epochs_max, own.patience_epochs, own.base_filters, own.batch_size) == (7, 7, 2, 9)
    assert own.modality_dropout == 0, "a reader has no flag that says what is hidden"


def test_images_of_another_grid_or_number_of_channels_are_refused():
    net = ReaderNet(2, GRID, n_measured=0, n_reads=1).eval()
    with pytest.raises(ValueError, match=r"allowed: \(N, 2, D, H, W\)"):
        net(torch.zeros(1, 1, *GRID))
    with pytest.raises(ValueError, match="at least"):
        ReaderNet(1, (4, 4, 4), n_measured=0, n_reads=1)


def test_a_read_that_no_training_patient_has_is_named(quick):
    image, reads = _blobs(6, 0)
    reads[:, 1] = np.nan
    cases = Cases(image, None, None, extra=reads)
    with pytest.raises(InputError, match="auxiliary target 1 is missing in all 6"):
        training.fit(ReaderNet(1, GRID, n_measured=0, n_reads=2), cases, cases, quick, seed=0)
