"""From a patient's image to features: standardisation, flags of absent channels, one or more trunks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlvo_lib.encoders.trunks import STRIDE, build_trunk

#: Scans as (name, indices of its channels) each.
Scans = Sequence[tuple[str, Sequence[int]]]


class Encoder(nn.Module):
    """Images to features of ``4 nf`` channels.

    Channels are standardised first, by the mean and SD given with `set_scale` (of the training
    patients). The last residual block stands in `rlvo_lib.fusion`.

    Parameters
    ----------
    name
        One of `rlvo_lib.config.ENCODERS`.
    scans
        None: one trunk sees all channels stacked. Else a trunk for each scan, whose features are
        joined on the channel axis and brought back to 4 nf by a 1³ convolution.
    share_weights
        The same trunk for each scan, which then have equal numbers of channels. It runs on all scans
        as one batch, so that batch norm sees in training what it later averages.
    flags
        A channel that is NaN throughout in a patient is absent: it becomes 0, the training mean, after
        standardisation, and the trunk also sees a constant map a channel, 1 where it is present.

    Examples
    --------
    >>> Encoder(2, base_filters=4)(torch.zeros(1, 2, 32, 40, 32)).shape
    torch.Size([1, 16, 4, 5, 4])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        base_filters: int = 4,
        name: str = "light",
        scans: Scans | None = None,
        share_weights: bool = False,
        flags: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.flags = in_channels, flags
        self.scans = _checked(scans, in_channels, share_weights)
        self.share_weights = share_weights and len(self.scans) > 1
        self.register_buffer("mean", torch.zeros(1, in_channels, 1, 1, 1))
        self.register_buffer("sd", torch.ones(1, in_channels, 1, 1, 1))
        counts = [len(channels) * (1 + flags) for _, channels in self.scans]
        own = counts[:1] if self.share_weights else counts
        self.trunks = nn.ModuleList(build_trunk(name, count, base_filters) for count in own)
        self.join = None
        if len(self.scans) > 1:
            self.join = nn.Conv3d(len(self.scans) * 4 * base_filters, 4 * base_filters, 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels that enter each block of a trunk: the lengths of ``scales`` in `forward`."""
        return self.trunks[0].widths

    def set_scale(self, mean: Tensor, sd: Tensor) -> None:
        """Set the mean and SD (C,) by which each channel is standardised."""
        self.mean.copy_(mean.view_as(self.mean))
        self.sd.copy_(sd.clamp_min(1e-6).view_as(self.sd))

    def forward(self, image: Tensor, scales: Sequence[Tensor] | None = None) -> Tensor:
        """Features (N, 4 nf, D', H', W') of images (N, C, D, H, W).

        ``scales``: a vector (N, widths[k]) for each block k of a trunk, which multiplies the block's
        input channelwise; the same for each scan.

        Raises
        ------
        ValueError
            For another number of channels, or an image smaller than the strides.
        """
        self.check(image)
        inputs = self._inputs(image)
        if self.join is None:
            return self.trunks[0](inputs[0], scales)
        return self.join(self._each(inputs, scales))

    def _inputs(self, image: Tensor) -> list[Tensor]:
        """What the trunk of each scan sees: its standardised channels, then their flags."""
        x = (image - self.mean) / self.sd
        present = None
        if self.flags:
            absent = _absent(image)[:, :, None, None, None]
            x = x.masked_fill(absent, 0.0) if absent.any() else x
            present = (~absent).to(x.dtype).expand_as(x)
        if self.join is None:
            return [x if present is None else torch.cat([x, present], 1)]
        parts = (x,) if present is None else (x, present)
        return [
            torch.stack([part[:, c] for part in parts for c in channels], 1)
            for _, channels in self.scans
        ]

    def _each(self, inputs: list[Tensor], scales: Sequence[Tensor] | None) -> Tensor:
        """The trunks' features (N, S 4 nf, D', H', W'), scan after scan."""
        if not self.share_weights:
            pairs = zip(self.trunks, inputs, strict=True)
            return torch.cat([trunk(x, scales) for trunk, x in pairs], 1)
        many = None if scales is None else [s.repeat(len(inputs), 1) for s in scales]
        return torch.cat(self.trunks[0](torch.cat(inputs), many).chunk(len(inputs)), 1)

    def check(self, image: Tensor) -> None:
        """Refuse, by a ValueError, images of another number of channels or on too small a grid."""
        if image.ndim != 5 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"images of shape {tuple(image.shape)}; allowed: (N, {self.in_channels}, D, H, W)"
            )
        grid = tuple(image.shape[2:])
        if min(grid) < STRIDE:
            raise ValueError(
                f"images on a grid of {grid} voxels; allowed: at least {STRIDE} along each axis, the "
                "product of the encoder's strides"
            )


def _absent(image: Tensor) -> Tensor:
    """Whether a channel of a patient is NaN throughout: (N, C) bool of images (N, C, D, H, W)."""
    absent = image[:, :, 0, 0, 0].isnan()
    if absent.any():  # only then is the rest worth reading
        absent = absent & image.isnan().flatten(2).all(dim=2)
    return absent


def _checked(
    scans: Scans | None, in_channels: int, share_weights: bool
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The scans as tuples, or one that holds all channels; each channel belongs to one scan."""
    if scans is None:
        return (("all", tuple(range(in_channels))),)
    kept = tuple((str(name), tuple(channels)) for name, channels in scans)
    held = sorted(c for _, channels in kept for c in channels)
    if held != list(range(in_channels)) or not all(channels for _, channels in kept):
        words = ", ".join(f"{name} {channels}" for name, channels in kept)
        raise ValueError(
            f"scans hold the channels {words}; allowed: each of 0 to {in_channels - 1} in one scan, "
            "and no scan without a channel"
        )
    counts = {name: len(channels) for name, channels in kept}
    if share_weights and len(set(counts.values())) > 1:
        words = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(
            f"share_weights with scans of {words} channels; allowed: the same number in every scan"
        )
    return kept
