import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from rlvo_lib.config import ENCODERS
from rlvo_lib.encoders import BlockMean, Encoder, ResidualBlock, build_trunk

SCANS = (("ncct", (0,)), ("cta", (1,)), ("ctp", (2, 3)))


def _image(n=2, channels=4, shape=(16, 16, 16), seed=0):
    return torch.rand(n, channels, *shape, generator=torch.Generator().manual_seed(seed))


def _encoder(channels=4, **options):
    torch.manual_seed(0)
    return Encoder(channels, base_filters=2, **options).eval()


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    ("shape", "grid"), [((16, 24, 16), (2, 3, 2)), ((8, 8, 8), (1, 1, 1)), ((17, 16, 9), None)]
)
def test_every_encoder_ends_in_4_nf_channels_on_an_eighth_of_the_grid(name, shape, grid):
    features = _encoder(3, name=name)(_image(2, 3, shape))
    assert features.shape[:2] == (2, 8) and torch.isfinite(features).all()
    if grid:
        assert features.shape[2:] == grid
    else:  # rounded up or down
        assert all(
            n // 8 <= m <= -(-n // 8) for n, m in zip(shape, features.shape[2:], strict=True)
        )


def test_both_stems_have_the_same_parameters():
    count = [
        sum(p.numel() for p in build_trunk(name, 1).parameters())
        for name in ("light", "daft-resnet")
    ]
    assert count[0] == count[1]


def test_published_stem_is_convolution_norm_relu_and_pooling():
    trunk = build_trunk("daft-resnet", 2).eval()
    conv, norm = trunk.stem[0], trunk.stem[1]
    image = _image(channels=2, shape=(9, 8, 8))
    by_hand = nn.functional.max_pool3d(torch.relu(norm(conv(image))), 2)
    assert torch.equal(trunk.stem(image), by_hand)


def test_standardisation_is_part_of_the_model():
    encoder, image = _encoder(1), _image(1, 1)
    plain = encoder(image)
    encoder.set_scale(torch.tensor([2.0]), torch.tensor([3.0]))
    torch.testing.assert_close(encoder(3 * image + 2), plain, atol=1e-5, rtol=1e-4)
    encoder.set_scale(torch.tensor([0.0]), torch.tensor([0.0]))  # a constant channel
    assert torch.isfinite(encoder(image)).all()


def test_the_skip_is_plain_where_the_shape_stays():
    assert ResidualBlock(4, 4, 1).skip is None
    assert ResidualBlock(4, 8, 2).skip is not None


# ------------------------------------------------------------------------------ one encoder a scan


@pytest.mark.parametrize("name", ENCODERS)
def test_each_scan_has_its_own_encoder(name):
    encoder = _encoder(name=name, scans=SCANS)
    assert len(encoder.trunks) == 3 and encoder(_image()).shape == (2, 8, 2, 2, 2)
    # the trunk of a scan sees that scan's channels only: its features stay when others change
    heard = []
    encoder.trunks[2].register_forward_hook(lambda _, given, out: heard.append(out))
    image, other = _image(), _image(seed=1)
    encoder(image), encoder(torch.cat([other[:, :2], image[:, 2:]], 1))
    assert torch.equal(heard[0], heard[1])
    encoder(torch.cat([image[:, :3], other[:, 3:]], 1))
    assert not torch.equal(heard[0], heard[2])


@pytest.mark.parametrize("name", ["light", "monai-densenet"])
def test_shared_weights_are_one_trunk_that_runs_on_each_scan(name):
    scans = (("ncct", (0, 3)), ("cta", (2, 1)))
    encoder, image = _encoder(name=name, scans=scans, share_weights=True), _image()
    assert len(encoder.trunks) == 1
    each = [encoder.trunks[0](image[:, list(channels)]) for _, channels in scans]
    torch.testing.assert_close(encoder(image), encoder.join(torch.cat(each, 1)))


def test_one_scan_alone_is_the_stacked_encoder():
    image = _image()
    assert torch.equal(_encoder(scans=[("all", range(4))])(image), _encoder()(image))


@pytest.mark.parametrize(
    ("scans", "share", "message"),
    [
        (
            (("ncct", (0, 1)), ("cta", (2,))),
            False,
            "ncct (0, 1), cta (2,); allowed: each of 0 to 3",
        ),
        ((("ncct", (0, 1)), ("cta", (1, 2, 3))), False, "allowed: each of 0 to 3 in one scan"),
        ((("ncct", (0, 1, 2, 4)),), False, "allowed: each of 0 to 3 in one scan"),
        ((("ncct", ()), ("cta", (0, 1, 2, 3))), False, "no scan without a channel"),
        (SCANS, True, "ncct 1, cta 1, ctp 2 channels; allowed: the same number in every scan"),
    ],
)
def test_scans_that_cannot_be(scans, share, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Encoder(4, scans=scans, share_weights=share)


# --------------------------------------------------------------------------------- absent channels


@pytest.mark.parametrize("scans", [None, SCANS])
def test_an_absent_channel_is_the_mean_with_a_flag(scans):
    encoder = _encoder(flags=True, scans=scans)
    encoder.set_scale(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 2.0, 2.0, 2.0]))
    image = _image()
    absent = image.clone()
    absent[1, 2] = torch.nan
    seen = torch.cat(encoder._inputs(absent), 1)
    order = [c for _, channels in encoder.scans for c in [*channels, *(4 + c for c in channels)]]
    by_hand = torch.cat([(image - encoder.mean) / encoder.sd, torch.ones_like(image)], 1)
    by_hand[1, 2], by_hand[1, 6] = 0, 0
    assert torch.equal(seen, by_hand[:, order])
    # the other patient does not change, and the mean itself is not the same as being absent
    features, mean = encoder(absent), image.clone()
    mean[1, 2] = 3.0
    assert torch.equal(features[0], encoder(image)[0])
    assert not torch.allclose(features[1], encoder(mean)[1])


def test_gradients_pass_an_absent_channel():
    image = _image()
    image[0, 1] = torch.nan
    image.requires_grad_()
    _encoder(flags=True)(image).sum().backward()
    assert torch.isfinite(image.grad).all() and (image.grad[0, 1] == 0).all()
    assert image.grad[1, 1].abs().sum() > 0


def test_a_channel_with_some_voxels_missing_is_not_taken_for_absent():
    image = _image()
    image[0, 1, 0, 0, 0] = torch.nan
    features = _encoder(flags=True)(image)
    assert features[0].isnan().any() and torch.isfinite(features[1]).all()


# -------------------------------------------------------------------------- operations and bad input


@pytest.mark.parametrize("name", ENCODERS)
def test_no_operation_is_on_torchs_list_of_those_without_a_deterministic_backward(name):
    text = torch.use_deterministic_algorithms.__doc__
    refused = text[text.index("operations will throw a") :]
    listed = set(re.findall(r"torch\.nn\.(\w+)`", refused))
    assert "AvgPool3d" in listed
    assert not listed & {type(m).__name__ for m in build_trunk(name, 1, 2).modules()}


@pytest.mark.parametrize("name", ENCODERS)
def test_no_relu_overwrites_its_input(name):
    assert not any(getattr(m, "inplace", False) for m in build_trunk(name, 1, 2).modules())


def test_block_mean_is_average_pooling_forward_and_backward():
    x = _image(shape=(6, 5, 7)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    ours, torchs = BlockMean()(x), nn.AvgPool3d(2)(y)
    torch.testing.assert_close(ours, torchs)
    weight = torch.rand(ours.shape, generator=torch.Generator().manual_seed(2))
    (ours * weight).sum().backward(), (torchs * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_monai_is_imported_inside_a_function_only():
    for path in Path(inspect.getfile(Encoder)).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            assert "monai" not in ast.unparse(node) or not isinstance(
                node, ast.Import | ast.ImportFrom
            )


def test_bad_images_and_names_are_named():
    with pytest.raises(ValueError, match=r"shape \(1, 3, 16, 16, 16\); allowed: \(N, 2, D, H, W\)"):
        Encoder(2)(torch.zeros(1, 3, 16, 16, 16))
    with pytest.raises(ValueError, match=r"grid of \(8, 7, 8\) voxels; allowed: at least 8"):
        Encoder(2)(torch.zeros(1, 2, 8, 7, 8))
    allowed = "light, daft-resnet, monai-resnet, monai-densenet"
    with pytest.raises(ValueError, match=f"encoder 'vgg' is not known; allowed: {allowed}"):
        Encoder(2, name="vgg")
