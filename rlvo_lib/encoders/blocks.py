"""Parts of encoders: the residual block of the DAFT papers, and pooling with a fixed order of sums."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

#: Where a modulation can stand in a residual block (Wolf et al., NeuroImage 2022).
LOCATIONS = {
    0: "block input, both paths",
    1: "input of the skip path only",
    2: "main path before the first convolution",
    3: "after the first batch norm, before the ReLU",
    4: "after the first ReLU",
}


class ResidualBlock(nn.Module):
    """Two 3³ convolutions with batch norm, and a 1³ convolution on the skip where the shape changes.

    Parameters
    ----------
    in_filters, filters
        Channels that enter and leave.
    stride
        Of the first convolution and of the skip.
    modulation
        A module called as ``modulation(features, tabular)`` that keeps the features' shape; None:
        a plain block.
    location
        Where it is called, one of `LOCATIONS`. Its features have ``in_filters`` channels at 0 to 2,
        ``filters`` at 3 and 4. At 3 the norm before it has no affine parameters of its own.
    """

    def __init__(
        self,
        in_filters: int,
        filters: int,
        stride: int,
        modulation: nn.Module | None = None,
        location: int = 3,
    ) -> None:
        super().__init__()
        own_affine = modulation is None or location != 3
        self.conv1 = nn.Conv3d(in_filters, filters, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(filters, momentum=0.1, affine=own_affine)
        self.conv2 = nn.Conv3d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(filters, momentum=0.1)
        self.modulation, self.location = modulation, location
        self.skip = None
        if stride != 1 or in_filters != filters:
            self.skip = nn.Sequential(
                nn.Conv3d(in_filters, filters, 1, stride=stride, bias=False),
                nn.BatchNorm3d(filters, momentum=0.1),
            )

    def forward(self, x: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Features (N, filters, D', H', W') from (N, in_filters, D, H, W), and t (N, P) if modulated."""

        def modulated(features: Tensor, *locations: int) -> Tensor:
            here = self.modulation is not None and self.location in locations
            return self.modulation(features, tabular) if here else features

        x = modulated(x, 0)
        out = modulated(self.norm1(self.conv1(modulated(x, 2))), 3)
        out = self.norm2(self.conv2(modulated(F.relu(out), 4)))
        skipped = modulated(x, 1)
        return F.relu(out + (skipped if self.skip is None else self.skip(skipped)))


class BlockMean(nn.Module):
    """Average pooling of 2³ voxels: `nn.AvgPool3d(2)` with a deterministic backward pass on a GPU.

    A last odd voxel of an axis is left out, as there.

    Examples
    --------
    >>> import torch
    >>> BlockMean()(torch.arange(8.0).view(1, 1, 2, 2, 2)).item()
    3.5
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) to (N, C, D // 2, H // 2, W // 2)."""
        d, h, w = (n // 2 for n in x.shape[2:])
        x = x[..., : 2 * d, : 2 * h, : 2 * w]
        return x.reshape(*x.shape[:2], d, 2, h, 2, w, 2).mean(dim=(3, 5, 7))
