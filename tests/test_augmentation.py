import dataclasses
import math

import pytest
import torch

from rlvo_lib.augmentation import Augmentation, check_mirror
from rlvo_lib.config import InputError, load_settings
from rlvo_lib.config.study import Arm


@pytest.fixture(scope="module")
def still():
    """Settings that change nothing."""
    return load_settings("smoke", augment_noise=0.0, augment_shift_voxels=0, workers=1)


def augmented(image, settings, seed=0, sd=None, **fields):
    changed = dataclasses.replace(settings, **fields)
    sd = torch.ones(image.shape[1]) if sd is None else sd
    return Augmentation(changed, sd, torch.Generator().manual_seed(seed))(image)


def points(shape, *places):
    image = torch.zeros(1, 1, *shape)
    for place in places:
        image[0, 0, *place] = 1
    return image


def test_settings_of_zero_change_nothing(still):
    image = torch.rand(2, 3, 6, 7, 8)
    assert torch.equal(augmented(image, still), image)


def test_shifts_are_of_whole_voxels(still):
    image = points((9, 9, 9), (4, 4, 4))
    seen = set()
    for seed in range(5):
        moved = augmented(image, still, seed, augment_shift_voxels=2)
        assert moved.shape == image.shape and moved.sum() == 1
        place = moved[0, 0].nonzero()[0] - 4
        assert place.abs().max() <= 2
        seen.add(tuple(place.tolist()))
    assert len(seen) > 1


def test_the_interpolated_motion_is_rigid_about_the_centre(still, monkeypatch):
    """A quarter turn about z on a grid of unequal edges: x becomes y, in voxels and not in shares."""
    size, generator = (21, 25, 17), torch.Generator()
    turn = Augmentation(
        dataclasses.replace(still, augment_rotation_deg=90.0), torch.ones(1), generator
    )
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.tensor([[0.5, 0.5, 1.0]]))
    moved = turn(points(size, (10 + 6, 12, 8)))  # +6 voxels along x
    # R(90°) maps output to input: input x = -output y, so what was at +x appears at -y
    assert moved[0, 0].argmax() == points(size, (10, 12 - 6, 8)).argmax()
    assert moved.max() == pytest.approx(1, abs=1e-4)


def test_a_shift_is_parts_of_a_voxel_beside_a_rotation(still, monkeypatch):
    """Half a voxel along y, at as good as no rotation: two neighbours share the point."""
    draws = iter([torch.full((1, 3), 0.5), torch.tensor([[0.5, 0.75, 0.5]])])  # angles, shift
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(draws))
    moved = augmented(
        points((9, 9, 9), (4, 4, 4)), still, augment_rotation_deg=1e-9, augment_shift_voxels=1
    )
    torch.testing.assert_close(
        moved[0, 0, 4, :, 4], torch.tensor([0, 0, 0, 0.5, 0.5, 0, 0, 0, 0]), rtol=0, atol=1e-4
    )


def test_rotation_keeps_a_constant_image_and_an_absent_channel(still):
    image = torch.full((3, 2, 8, 8, 8), 5.0)
    image[1, 1] = math.nan
    moved = augmented(image, still, augment_rotation_deg=10.0, augment_shift_voxels=2)
    torch.testing.assert_close(moved, image, equal_nan=True)


def test_noise_and_offsets_are_in_proportion_to_each_channel(still):
    sd = torch.tensor([0.01, 1.0])
    image = torch.zeros(40, 2, 12, 12, 12)
    noisy = augmented(image, still, sd=sd, augment_noise=0.1)
    torch.testing.assert_close(noisy.std(dim=(0, 2, 3, 4)), 0.1 * sd, rtol=0.05, atol=0)
    offset = augmented(image, still, sd=sd, augment_intensity=0.1)
    assert (offset == offset[..., :1, :1, :1]).all()  # one number a channel
    torch.testing.assert_close(offset[..., 0, 0, 0].std(0), 0.1 * sd, rtol=0.4, atol=0)


def test_noise_differs_between_patients_channels_and_batches(still):
    noisy = dataclasses.replace(still, augment_noise=1.0)
    augment = Augmentation(noisy, torch.ones(2), torch.Generator().manual_seed(0))
    image = torch.zeros(4, 2, 12, 12, 12)
    rows = torch.cat([augment(image), augment(image)]).flatten(2).flatten(0, 1)
    alike = torch.corrcoef(rows) - torch.eye(len(rows))
    assert alike.abs().max() < 0.15  # 1,728 independent voxels: an SD of 0.024


def test_the_same_seed_gives_the_same_images(still):
    fields = dict(
        augment_noise=0.1,
        augment_shift_voxels=1,
        augment_rotation_deg=5.0,
        augment_intensity=0.1,
        augment_mirror=True,
        absent="flag",
        modality_dropout=0.3,
    )
    image = torch.rand(4, 2, 8, 8, 8)
    first, again, other = (augmented(image, still, seed, **fields) for seed in (1, 1, 2))
    assert torch.equal(first.nan_to_num(), again.nan_to_num())
    assert not torch.equal(first.nan_to_num(), other.nan_to_num())


def test_mirroring_turns_x_of_about_half_the_patients(still):
    image = torch.rand(64, 1, 4, 3, 2)
    mirrored = augmented(image, still, augment_mirror=True)
    turned = (mirrored == image.flip(2)).all(dim=(1, 2, 3, 4))
    assert ((mirrored == image).all(dim=(1, 2, 3, 4)) ^ turned).all()
    assert 16 < turned.sum() < 48


def test_hidden_scans_are_hidden_whole_and_one_remains(still):
    scans = (("ncct", (0,)), ("ctp", (1, 2)))
    image = torch.ones(200, 3, 2, 2, 2)
    image[:50, 0] = math.nan  # patients without the first scan
    hiding = dataclasses.replace(still, absent="flag", modality_dropout=0.5)
    hidden = Augmentation(hiding, torch.ones(3), torch.Generator().manual_seed(0), scans)(image)
    gone = hidden.isnan().flatten(2)
    assert (gone.all(2) == gone.any(2)).all()
    gone = gone.all(2)
    assert (gone[:, 1] == gone[:, 2]).all()
    assert not gone.all(1).any()
    assert gone[:50, 0].all() and not gone[:50, 1].any()
    # of two scans, each hidden half of the time, but never both
    assert gone[50:, 1].float().mean() == pytest.approx(0.375, abs=0.1)
    with pytest.raises(ValueError, match=r"scans name channels \[0\]; allowed: each of 0 to 2"):
        Augmentation(hiding, torch.ones(3), torch.Generator(), scans[:1])(image)


def test_mirroring_is_refused_where_the_side_matters(still):
    study = still.study
    arm = Arm("cta-net", "CTA", "cnn", predictors=("own",))

    def check(region="convexity", **changes):
        grid = dataclasses.replace(study.grid, region=region, **changes.pop("grid", {}))
        columns = changes.pop("columns", ("age",))
        plan = dataclasses.replace(
            study,
            **({"flip_to_side": "none"} | changes),
            grid=grid,
            predictors={"own": columns},
        )
        check_mirror(dataclasses.replace(still, augment_mirror=True, study=plan), arm)

    check()
    check("head")
    check("hemisphere", grid={"space": "template", "centre_mm": (0.0, 5.0, 5.0)})
    with pytest.raises(InputError, match="'augment_mirror' is True.*brings the affected side"):
        check(flip_to_side="left")
    with pytest.raises(InputError, match="region 'hemisphere' is not symmetric"):
        check("hemisphere")
    with pytest.raises(InputError, match="centre is 4 mm off the midline"):
        check(grid={"space": "template", "centre_mm": (4.0, 0.0, 0.0)})
    with pytest.raises(
        InputError, match="the side .column 'side'. is a predictor of arm 'cta-net'"
    ):
        check(columns=("age", "side"))
    check_mirror(still, dataclasses.replace(arm, predictors=()))  # off: nothing to refuse
