"""The networks: encoder, last residual block and head, with tabular data entering as the fusion says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlvo_lib.config import POOLINGS
from rlvo_lib.encoders import LOCATIONS, STRIDE, Encoder, ResidualBlock, Scans
from rlvo_lib.fusion.conditioning import (
    AffineModulation,
    BlockScales,
    check_switches,
    pooled,
)

FUSIONS = ("none", "concat1fc", "concat2fc", "1fc-concat-1fc", "interactive", "film", "daft")


class FusionNet(nn.Module):
    """Encoder, a last residual block that tabular data may modulate, and a linear head.

    Built by `build_model`. ``forward`` is `trunk`, then `finish`. Where the trunk is the same for every t
    (all fusions but ``interactive``: see ``trunk_needs_tabular``), `fuse` does the second half alone.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        fusion: str,
        n_tabular: int,
        n_outputs: int,
        base_filters: int,
        pooling: str,
        location: int,
        modulation: dict[str, bool | str],
    ) -> None:
        super().__init__()
        nf, b = base_filters, max(1, (4 * base_filters + n_tabular) // 7)
        modulated = None
        if fusion in ("film", "daft"):
            filters = 4 * nf if location < 3 else 8 * nf
            modulated = AffineModulation(
                filters, n_tabular, b, sees_image=fusion == "daft", **modulation
            )
        self.fusion, self.n_tabular, self.pooling = fusion, n_tabular, pooling
        self.encoder = encoder
        self.block = ResidualBlock(4 * nf, 8 * nf, 2, modulated, location)
        self.scales = None
        if fusion == "interactive":
            self.scales = BlockScales(n_tabular, (*encoder.widths, 4 * nf))
        self.hidden = None  # FC_b
        z = (16 if pooling == "mean-max" else 8) * nf
        if fusion in ("concat2fc", "1fc-concat-1fc"):
            self.hidden = nn.Linear(n_tabular + (z if fusion == "concat2fc" else 0), b)
        seen = {"concat1fc": z + n_tabular, "concat2fc": b, "1fc-concat-1fc": z + b}
        self.head = nn.Linear(seen.get(fusion, z), n_outputs)

    @property
    def trunk_needs_tabular(self) -> bool:
        """Whether features depend on t, so that they must be computed anew for each t."""
        return self.scales is not None

    def forward(self, image: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Logits (N, n_outputs) of images (N, C, D, H, W) and tabular vectors (N, P) or None."""
        return self.finish(self.trunk(image, tabular), tabular)

    def trunk(self, image: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Features (N, 4 nf, D', H', W') that enter the last block.

        Raises
        ------
        ValueError
            For images or tabular data of another shape, or a training batch of one image so small
            that batch norm would see a single value per channel.
        """
        self._check_tabular(tabular)
        self.encoder.check(image)
        alone = self.training and len(image) == 1
        if alone and max(image.shape[2:]) <= 2 * STRIDE:
            raise self._too_few(image)
        if self.scales is None:
            features = self.encoder(image)
        else:
            *inner, last = self.scales(tabular)
            features = self.encoder(image, inner) * last[:, :, None, None, None]
        if alone and max(features.shape[2:]) <= 2:
            raise self._too_few(image)
        return features

    def fuse(self, features: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Logits (N, n_outputs) from the encoder's features (N, 4 nf, D', H', W') and t (N, P).

        Called by itself when only t varies, so that the encoder runs once a patient.

        Raises
        ------
        ValueError
            For ``interactive``, whose encoder depends on t, or tabular data of another shape.
        """
        if self.trunk_needs_tabular:
            raise ValueError(
                f"fuse with fusion '{self.fusion}', whose encoder depends on the tabular data; allowed: "
                "model(image, tabular), or finish(trunk(image, tabular), tabular)"
            )
        return self.finish(features, tabular)

    def finish(self, features: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Logits (N, n_outputs) from the features that `trunk` gives for these images and this t."""
        self._check_tabular(tabular)
        z = pooled(self.block(features, tabular), self.pooling)
        if self.fusion in ("concat1fc", "concat2fc"):
            z = torch.cat([z, tabular], dim=1)
        if self.fusion == "concat2fc":
            z = torch.relu(self.hidden(z))
        elif self.fusion == "1fc-concat-1fc":
            z = torch.cat([z, torch.relu(self.hidden(tabular))], dim=1)
        return self.head(z)

    def _check_tabular(self, tabular: Tensor | None) -> None:
        if self.fusion == "none":
            return
        if tabular is None or tabular.ndim != 2 or tabular.shape[1] != self.n_tabular:
            given = None if tabular is None else tuple(tabular.shape)
            raise ValueError(f"tabular data of shape {given}; allowed: (N, {self.n_tabular})")

    def _too_few(self, image: Tensor) -> ValueError:
        return ValueError(
            f"a training batch of 1 image on a grid of {tuple(image.shape[2:])} voxels leaves batch norm "
            "one value per channel; allowed: two images or more, a larger grid, or model.eval()"
        )


class TabularNet(nn.Module):
    """A network of tabular data alone: one hidden layer of 16 units; the image is ignored."""

    def __init__(self, n_tabular: int, n_outputs: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_tabular, 16)
        self.head = nn.Linear(16, n_outputs)

    def forward(self, image: Tensor | None, tabular: Tensor) -> Tensor:
        """Logits (N, n_outputs) of tabular vectors (N, P)."""
        return self.head(torch.relu(self.hidden(tabular)))


def build_model(
    *,
    fusion: str = "none",
    encoder: str = "daft-resnet",
    in_channels: int,
    n_tabular: int = 0,
    n_outputs: int = 1,
    base_filters: int = 4,
    pooling: str = "mean",
    location: int = 3,
    scale: bool = True,
    shift: bool = True,
    activation: str = "linear",
    identity_start: bool = False,
    scans: Scans | None = None,
    share_weights: bool = False,
    flags: bool = False,
) -> FusionNet:
    """A network ``model(image (N, C, D, H, W), tabular (N, P) or None) -> logits (N, n_outputs)``.

    Parameters
    ----------
    fusion, encoder
        One of `FUSIONS`, one of `rlvo_lib.config.ENCODERS`.
    base_filters
        nf, the filters of the first block.
    pooling
        Of the last block's features, one of `rlvo_lib.config.POOLINGS`; mean in the papers.
    location, scale, shift, activation, identity_start
        Of FiLM and DAFT (`rlvo_lib.encoders.LOCATIONS`, `AffineModulation`); other fusions have none.
    scans, share_weights, flags
        One encoder a scan, with its own weights or not, and flags of absent channels
        (`rlvo_lib.encoders.Encoder`).

    Raises
    ------
    ValueError
        For an unknown fusion, encoder, pooling, location or activation, switches that leave nothing of a
        modulation, scans that do not hold each channel once, or a fusion without tabular data.

    Examples
    --------
    >>> model = build_model(fusion="daft", in_channels=1, n_tabular=14, n_outputs=3)
    >>> sum(p.numel() for p in model.parameters())
    56911
    """
    if fusion not in FUSIONS:
        raise ValueError(f"fusion '{fusion}' is not known; allowed: {', '.join(FUSIONS)}")
    if fusion != "none" and n_tabular < 1:
        raise ValueError(f"fusion '{fusion}' needs tabular data; n_tabular is {n_tabular}")
    if location not in LOCATIONS:
        words = "; ".join(f"{key}: {place}" for key, place in LOCATIONS.items())
        raise ValueError(f"location {location!r} is not known; allowed: {words}")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling '{pooling}' is not known; allowed: {', '.join(POOLINGS)}")
    check_switches(scale, shift, activation, identity_start)
    trunk = Encoder(
        in_channels,
        base_filters=base_filters,
        name=encoder,
        scans=scans,
        share_weights=share_weights,
        flags=flags,
    )
    return FusionNet(
        trunk,
        fusion=fusion,
        n_tabular=n_tabular,
        n_outputs=n_outputs,
        base_filters=base_filters,
        pooling=pooling,
        location=location,
        modulation=dict(
            scale=scale, shift=shift, activation=activation, identity_start=identity_start
        ),
    )
