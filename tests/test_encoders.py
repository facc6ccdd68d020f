import pytest
import torch

from rlvo_lib.encoders import ResidualBlock, ResidualEncoder


@pytest.mark.parametrize(
    ("name", "shape"), [("light", (16, 20, 16)), ("daft-resnet", (32, 40, 32))]
)
def test_both_stems_halve_the_grid_and_three_blocks_quarter_it(name, shape):
    features = ResidualEncoder(3, base_filters=2, name=name)(torch.zeros(2, 3, *shape))
    assert features.shape == (2, 8, *(n // 8 for n in shape)) or features.shape[1] == 8
    assert features.shape[2] == -(-shape[0] // 8)


def test_both_stems_have_the_same_parameters():
    count = [
        sum(p.numel() for p in ResidualEncoder(1, base_filters=4, name=name).parameters())
        for name in ("light", "daft-resnet")
    ]
    assert count[0] == count[1]


def test_standardisation_is_part_of_the_model():
    encoder = ResidualEncoder(1, base_filters=2).eval()
    image = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = encoder(image)
    encoder.set_scale(torch.tensor([2.0]), torch.tensor([3.0]))
    torch.testing.assert_close(encoder(3 * image + 2), plain, atol=1e-5, rtol=1e-4)
    encoder.set_scale(torch.tensor([0.0]), torch.tensor([0.0]))  # a constant channel
    assert torch.isfinite(encoder(image)).all()


def test_the_skip_is_plain_where_the_shape_stays():
    assert ResidualBlock(4, 4, 1).skip is None
    assert ResidualBlock(4, 8, 2).skip is not None


def test_wrong_number_of_channels_is_named():
    with pytest.raises(ValueError, match=r"allowed: \(N, 2, D, H, W\)"):
        ResidualEncoder(2)(torch.zeros(1, 3, 16, 16, 16))
    with pytest.raises(ValueError, match="encoder 'vgg' is not known; allowed: light, daft-resnet"):
        ResidualEncoder(2, name="vgg")
