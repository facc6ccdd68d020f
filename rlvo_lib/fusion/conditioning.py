"""What turns tabular data into coefficients of feature maps: α and β of FiLM and DAFT, a_k of Duanmu."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: What α may pass through; β never does.
ACTIVATIONS = {"linear": nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def pooled(features: Tensor, how: str = "mean") -> Tensor:
    """Pooling over all places, one of `config.POOLINGS`: (N, C, D, H, W) to (N, C), of ``mean-max`` (N, 2 C).

    >>> pooled(torch.tensor([0.0, 4.0]).view(1, 1, 1, 1, 2), "mean-max").tolist()
    [[2.0, 4.0]]
    """
    found = {"mean": torch.mean, "max": torch.amax}
    return torch.cat([found[part](features, dim=(2, 3, 4)) for part in how.split("-")], dim=1)


def check_switches(scale: bool, shift: bool, activation: str, identity_start: bool) -> None:
    """Refuse, by a ValueError, switches of `AffineModulation` that make no modulation."""
    if not (scale or shift):
        raise ValueError("scale and shift are both False; allowed: one of them or both True")
    if activation not in ACTIVATIONS:
        allowed = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation '{activation}' is not known; allowed: {allowed}")
    if identity_start and scale and activation == "sigmoid":
        raise ValueError("identity_start with activation 'sigmoid'; allowed: linear, tanh")


class AffineModulation(nn.Module):
    """α F + β, with [α; β] = W₂ ReLU(W₁ z) and z = t (FiLM) or [GAP(F); t] (DAFT); no biases.

    Pölsterl, Wolf & Wachinger, MICCAI 2021; Perez et al., AAAI 2018.

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
    scale, shift
        Whether α and β are computed; else α = 1, β = 0, and W₂ has no rows for them.
    activation
        What α passes through, one of `ACTIVATIONS`.
    identity_start
        1 + α in the place of α, with W₂ = 0 at the start: training starts from the network without
        tabular data. Not in the papers. With a sigmoid it would start at 1.5, and is refused.

    Examples
    --------
    >>> at_start = AffineModulation(2, 3, 2, sees_image=True, identity_start=True)
    >>> at_start(torch.ones(1, 2, 1, 1, 1), torch.rand(1, 3)).flatten().tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        filters: int,
        n_tabular: int,
        bottleneck: int,
        *,
        sees_image: bool,
        scale: bool = True,
        shift: bool = True,
        activation: str = "linear",
        identity_start: bool = False,
    ) -> None:
        super().__init__()
        check_switches(scale, shift, activation, identity_start)
        self.sees_image, self.scale, self.shift = sees_image, scale, shift
        self.identity_start, self.activation = identity_start, ACTIVATIONS[activation]()
        self.reduce = nn.Linear((filters if sees_image else 0) + n_tabular, bottleneck, bias=False)
        self.expand = nn.Linear(bottleneck, (scale + shift) * filters, bias=False)
        if identity_start:
            nn.init.zeros_(self.expand.weight)

    def coefficients(self, features: Tensor, tabular: Tensor) -> tuple[Tensor, Tensor]:
        """α and β, each (N, C), for features (N, C, D, H, W) and t (N, P)."""
        z = torch.cat([pooled(features), tabular], dim=1) if self.sees_image else tabular
        out = self.expand(torch.relu(self.reduce(z)))
        parts = list(out.chunk(self.scale + self.shift, dim=1))
        alpha = self.activation(parts.pop(0)) if self.scale else torch.ones_like(out)
        if self.scale and self.identity_start:
            alpha = 1 + alpha
        return alpha, parts.pop() if self.shift else torch.zeros_like(alpha)

    def forward(self, features: Tensor, tabular: Tensor) -> Tensor:
        """The features scaled and shifted channel by channel; shape (N, C, D, H, W)."""
        alpha, beta = (c[:, :, None, None, None] for c in self.coefficients(features, tabular))
        return alpha * features + beta


class BlockScales(nn.Module):
    """A vector a_k for each residual block: a₁ = W₁ ReLU(W₀ t), a_k = W_k a_{k-1}; no biases.

    Duanmu et al., MICCAI 2020, as Pölsterl et al. (2021) compare with: W₀ has 8 rows.

    Parameters
    ----------
    n_tabular
        P, the length of t.
    widths
        The channels that enter each block, the length of each a_k.

    Examples
    --------
    >>> [tuple(a.shape) for a in BlockScales(14, (4, 4, 8, 16))(torch.rand(2, 14))]
    [(2, 4), (2, 4), (2, 8), (2, 16)]
    """

    def __init__(self, n_tabular: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.reduce = nn.Linear(n_tabular, 8, bias=False)
        self.expand = nn.ModuleList(
            nn.Linear(before, after, bias=False)
            for before, after in zip((8, *widths), widths, strict=False)
        )

    def forward(self, tabular: Tensor) -> list[Tensor]:
        """The a_k (N, widths[k]) of tabular vectors (N, P)."""
        a, scales = torch.relu(self.reduce(tabular)), []
        for layer in self.expand:
            a = layer(a)
            scales.append(a)
        return scales
