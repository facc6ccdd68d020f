"""Fusion of images and tabular data as one family.

All members share the encoder and differ in how the tabular vector t (P) meets the features F (C
channels) of the last residual block (Pölsterl et al., MICCAI 2021; Wolf et al., NeuroImage 2022):

``none``       image only
``concat1fc``  the head sees [GAP(F); t]
``film``       F'_c = α_c F_c + β_c, with [α; β] = W₂ ReLU(W₁ t) (Perez et al., AAAI 2018)
``daft``       the same with [GAP(F); t] in the place of t

F are the features after the block's first batch norm (the papers' location 3). W₁ has b = int((4·nf + P)/7) rows for DAFT and FiLM alike, neither has a bias, and α, β are linear.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlvo_lib.encoders import ResidualBlock, ResidualEncoder

FUSIONS = ("none", "concat1fc", "film", "daft")


def pooled(features: Tensor) -> Tensor:
    """Global average pooling: (N, C, D, H, W) to (N, C)."""
    return features.mean(dim=(2, 3, 4))


class AffineModulation(nn.Module):
    """α F + β with α and β from t (FiLM) or from [GAP(F); t] (DAFT).

    Parameters
    ----------
    filters
        C, the channels of the features F.
    n_tabular
        P, the length of t.
    bottleneck
        b, the width between W₁ and W₂.
    sees_image
        True for DAFT, False for FiLM.
    """

    def __init__(self, filters: int, n_tabular: int, bottleneck: int, *, sees_image: bool) -> None:
        super().__init__()
        self.sees_image = sees_image
        self.reduce = nn.Linear((filters if sees_image else 0) + n_tabular, bottleneck, bias=False)
        self.expand = nn.Linear(bottleneck, 2 * filters, bias=False)

    def coefficients(self, features: Tensor, tabular: Tensor) -> tuple[Tensor, Tensor]:
        """α and β, each (N, C), for features (N, C, D, H, W) and t (N, P)."""
        z = torch.cat([pooled(features), tabular], dim=1) if self.sees_image else tabular
        alpha, beta = self.expand(torch.relu(self.reduce(z))).chunk(2, dim=1)
        return alpha, beta

    def forward(self, features: Tensor, tabular: Tensor) -> Tensor:
        """The features scaled and shifted channel by channel; shape (N, C, D, H, W)."""
        alpha, beta = (c[:, :, None, None, None] for c in self.coefficients(features, tabular))
        return alpha * features + beta


class FusionNet(nn.Module):
    """Encoder, a last residual block that tabular data may modulate, and a linear head."""

    def __init__(
        self,
        encoder: ResidualEncoder,
        *,
        fusion: str,
        n_tabular: int,
        n_outputs: int,
        base_filters: int,
    ) -> None:
        super().__init__()
        nf, modulation = base_filters, None
        if fusion in ("film", "daft"):
            bottleneck = (4 * nf + n_tabular) // 7
            modulation = AffineModulation(
                8 * nf, n_tabular, bottleneck, sees_image=fusion == "daft"
            )
        self.fusion, self.n_tabular = fusion, n_tabular
        self.encoder = encoder
        self.block = ResidualBlock(4 * nf, 8 * nf, 2, modulation)
        self.head = nn.Linear(8 * nf + (n_tabular if fusion == "concat1fc" else 0), n_outputs)

    def forward(self, image: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Logits (N, n_outputs) of images (N, C, D, H, W) and tabular vectors (N, P) or None."""
        return self.fuse(self.encoder(image), tabular)

    def fuse(self, features: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Logits (N, n_outputs) from the encoder's features (N, 4 nf, D', H', W') and t (N, P).

        Called by itself when only t varies, so that the encoder runs once a patient.
        """
        if self.fusion != "none" and (tabular is None or tabular.shape[1] != self.n_tabular):
            given = None if tabular is None else tuple(tabular.shape)
            raise ValueError(f"tabular data of shape {given}; allowed: (N, {self.n_tabular})")
        z = pooled(self.block(features, tabular))
        return self.head(torch.cat([z, tabular], dim=1) if self.fusion == "concat1fc" else z)


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
) -> FusionNet:
    """A network ``model(image (N, C, D, H, W), tabular (N, P) or None) -> logits (N, n_outputs)``.

    Raises
    ------
    ValueError
        For an unknown fusion or encoder, or a fusion without tabular data.

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
    trunk = ResidualEncoder(in_channels, base_filters=base_filters, name=encoder)
    return FusionNet(
        trunk, fusion=fusion, n_tabular=n_tabular, n_outputs=n_outputs, base_filters=base_filters
    )
