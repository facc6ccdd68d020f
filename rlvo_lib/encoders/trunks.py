"""Encoder networks by name, each a stem and a few blocks that end in 4 nf channels.

MONAI's networks are taken whole from its public classes and cut where the grid is an eighth of the
image's; a 1³ convolution brings their channels to 4 nf. MONAI is imported when one is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from rlvo_lib.config import ENCODERS
from rlvo_lib.encoders.blocks import BlockMean, ResidualBlock

#: Voxels of the image along each axis that become one of the features.
STRIDE = 8


class Trunk(nn.Module):
    """A stem, blocks, and what brings the channels of the last to 4 nf.

    Attributes
    ----------
    widths
        Channels that enter each block: what a per-block scale vector must fit.
    """

    def __init__(
        self, stem: nn.Module, blocks: Sequence[nn.Module], widths: Sequence[int], last: nn.Module
    ) -> None:
        super().__init__()
        self.stem, self.blocks, self.last = stem, nn.ModuleList(blocks), last
        self.widths = tuple(widths)

    def forward(self, x: Tensor, scales: Sequence[Tensor] | None = None) -> Tensor:
        """Features (N, 4 nf, D', H', W') of (N, C, D, H, W).

        ``scales`` holds a vector (N, widths[k]) for each block k, which multiplies the channels of the
        block's input.
        """
        x = self.stem(x)
        for k, block in enumerate(self.blocks):
            x = block(x if scales is None else scales[k][:, :, None, None, None] * x)
        return self.last(x)


def build_trunk(name: str, in_channels: int, base_filters: int = 4) -> Trunk:
    """The trunk of an encoder's name for images of ``in_channels`` channels, nf = ``base_filters``.

    Examples
    --------
    >>> build_trunk("light", 1).widths
    (4, 4, 8)
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder '{name}' is not known; allowed: {', '.join(ENCODERS)}")
    if name == "monai-resnet":
        return _monai_resnet(in_channels, base_filters)
    if name == "monai-densenet":
        return _monai_densenet(in_channels, base_filters)
    return _daft_resnet(in_channels, base_filters, light=name == "light")


def _daft_resnet(in_channels: int, nf: int, *, light: bool) -> Trunk:
    """The encoder of Pölsterl, Wolf & Wachinger (MICCAI 2021), or the same with a stem of stride 2."""
    conv = nn.Conv3d(in_channels, nf, 3, stride=2 if light else 1, padding=1, bias=False)
    stem = nn.Sequential(conv, nn.BatchNorm3d(nf, momentum=0.1))
    if not light:  # before the ReLU, an eighth of its work: max and ReLU commute
        stem.append(nn.MaxPool3d(2))
    stem.append(nn.ReLU())
    blocks = [
        ResidualBlock(nf, nf, 1), ResidualBlock(nf, 2 * nf, 2), ResidualBlock(2 * nf, 4 * nf, 2)
    ]  # fmt: skip
    return Trunk(stem, blocks, (nf, nf, 2 * nf), nn.Identity())


def _monai_resnet(in_channels: int, nf: int) -> Trunk:
    """MONAI's ResNet without its max-pooling and its fourth level."""
    net = _monai("ResNet")(
        block="basic", layers=[2, 2, 2, 1], block_inplanes=[nf, 2 * nf, 4 * nf, 8 * nf],
        n_input_channels=in_channels, conv1_t_size=7, conv1_t_stride=2, no_max_pool=True,
        feed_forward=False, bias_downsample=False,
    )  # fmt: skip
    stem = nn.Sequential(net.conv1, net.bn1, net.act)
    last = nn.Conv3d(4 * nf, 4 * nf, 1)
    return _tamed(Trunk(stem, [net.layer1, net.layer2, net.layer3], (nf, nf, 2 * nf), last))


def _monai_densenet(in_channels: int, nf: int) -> Trunk:
    """MONAI's DenseNet with two dense blocks of two and four layers, growth nf, up to its last norm."""
    part = _monai("DenseNet")(
        spatial_dims=3, in_channels=in_channels, out_channels=1, init_features=2 * nf,
        growth_rate=nf, block_config=(2, 4),
    ).features  # fmt: skip
    stem = nn.Sequential(part.conv0, part.norm0, part.relu0, part.pool0)
    part.transition1.pool = BlockMean()
    blocks = [
        nn.Sequential(part.denseblock1, part.transition1),
        nn.Sequential(part.denseblock2, part.norm5, nn.ReLU()),
    ]
    last = nn.Conv3d(6 * nf, 4 * nf, 1)
    return _tamed(Trunk(stem, blocks, (2 * nf, 2 * nf), last))


def _monai(name: str) -> type[nn.Module]:
    """A network class of MONAI, whose import takes seconds and warns of what it deprecates itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.networks import nets
    return getattr(nets, name)


def _tamed(trunk: Trunk) -> Trunk:
    """The trunk with ReLUs that leave their input alone, so that features can be watched by hooks."""
    for module in trunk.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return trunk
