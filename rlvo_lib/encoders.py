"""3D CNN encoders.

Images are ``(N, C, D, H, W)`` float32, D, H, W along the model tensor's x, y, z. The encoder is that of
the DAFT papers (Pölsterl, Wolf & Wachinger, MICCAI 2021; Wolf et al., NeuroImage 2022): a stem and four
residual blocks of ``nf, 2nf, 4nf, 8nf`` filters. Two stems:

``daft-resnet``
    3³ convolution at full resolution, then 2³ max-pooling, as published.
``light``
    3³ convolution of stride 2 and no pooling: an eighth of the stem's work, the default on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlvo_lib.config import ENCODERS


class ResidualBlock(nn.Module):
    """Two 3³ convolutions with batch norm, and a 1³ convolution on the skip where the shape changes.

    ``modulation`` is called on the features after the first batch norm, before the ReLU (the DAFT
    papers' location 3); that norm then has no affine parameters of its own.
    """

    def __init__(
        self, in_filters: int, filters: int, stride: int, modulation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_filters, filters, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(filters, momentum=0.1, affine=modulation is None)
        self.conv2 = nn.Conv3d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(filters, momentum=0.1)
        self.modulation = modulation
        self.skip = None
        if stride != 1 or in_filters != filters:
            self.skip = nn.Sequential(
                nn.Conv3d(in_filters, filters, 1, stride=stride, bias=False),
                nn.BatchNorm3d(filters, momentum=0.1),
            )

    def forward(self, x: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Features (N, filters, D', H', W') from (N, in_filters, D, H, W), and t (N, P) if modulated."""
        out = self.norm1(self.conv1(x))
        if self.modulation is not None:
            out = self.modulation(out, tabular)
        out = self.norm2(self.conv2(F.relu(out)))
        return F.relu(out + (x if self.skip is None else self.skip(x)))


class ResidualEncoder(nn.Module):
    """Stem and the first three residual blocks: images to features of ``4 nf`` channels.

    The last block stands in `rlvo_lib.fusion`, where tabular data may enter it. Channels are
    standardised first, by the mean and SD given with `set_scale` (of the training patients).

    Examples
    --------
    >>> ResidualEncoder(2, base_filters=4)(torch.zeros(1, 2, 32, 40, 32)).shape
    torch.Size([1, 16, 4, 5, 4])
    """

    def __init__(self, in_channels: int, *, base_filters: int = 4, name: str = "light") -> None:
        super().__init__()
        if name not in ENCODERS:
            raise ValueError(f"encoder '{name}' is not known; allowed: {', '.join(ENCODERS)}")
        nf = base_filters
        self.in_channels = in_channels
        self.register_buffer("mean", torch.zeros(1, in_channels, 1, 1, 1))
        self.register_buffer("sd", torch.ones(1, in_channels, 1, 1, 1))
        stride = 2 if name == "light" else 1
        self.conv = nn.Conv3d(in_channels, nf, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(nf, momentum=0.1)
        self.pool = nn.Identity() if name == "light" else nn.MaxPool3d(2)
        self.blocks = nn.Sequential(
            ResidualBlock(nf, nf, 1), ResidualBlock(nf, 2 * nf, 2), ResidualBlock(2 * nf, 4 * nf, 2)
        )

    def set_scale(self, mean: Tensor, sd: Tensor) -> None:
        """Set the mean and SD (C,) by which each channel is standardised."""
        self.mean.copy_(mean.view_as(self.mean))
        self.sd.copy_(sd.clamp_min(1e-6).view_as(self.sd))

    def forward(self, image: Tensor) -> Tensor:
        """Features (N, 4 nf, D', H', W') of images (N, C, D, H, W)."""
        if image.ndim != 5 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"images of shape {tuple(image.shape)}; allowed: (N, {self.in_channels}, D, H, W)"
            )
        x = F.relu(self.norm(self.conv((image - self.mean) / self.sd)))
        return self.blocks(self.pool(x))
