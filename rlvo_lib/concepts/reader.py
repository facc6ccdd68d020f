"""A network that reads named columns off one view of the scans."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from rlvo_lib import training
from rlvo_lib.config import Settings
from rlvo_lib.encoders import Encoder, ResidualBlock
from rlvo_lib.training import Cases

HIDDEN = 16  # units that what was measured passes through


class ReaderNet(nn.Module):
    """Encoder and last block, their features at their places, and what was measured: to K reads.

    The features are flattened, not averaged: where something lies tells what it is. What was measured
    (N, M) passes through a hidden layer of its own. Outputs are standardised reads; `set_targets` keeps
    the mean and SD of the training patients' and `predict_reads` undoes it.

    Parameters
    ----------
    grid
        (D, H, W) of the view.
    n_measured, n_reads
        M (may be 0) and K.
    dropout
        Share of the features that each training step leaves out.

    Examples
    --------
    >>> net = ReaderNet(1, (32, 32, 32), n_measured=3, n_reads=5)
    >>> net(torch.zeros(2, 1, 32, 32, 32), torch.zeros(2, 3)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        in_channels: int,
        grid: tuple[int, int, int],
        *,
        n_measured: int,
        n_reads: int,
        encoder: str = "light",
        base_filters: int = 4,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(in_channels, base_filters=base_filters, name=encoder)
        self.block = ResidualBlock(4 * base_filters, 8 * base_filters, 2)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(n_measured, HIDDEN) if n_measured else None
        with torch.no_grad():
            self.eval()
            size = self.block(self.encoder(torch.zeros(1, in_channels, *grid))).numel()
            self.train()
        self.head = nn.Linear(size + (HIDDEN if n_measured else 0), n_reads)
        self.register_buffer("target_mean", torch.zeros(n_reads))
        self.register_buffer("target_sd", torch.ones(n_reads))

    def forward(self, image: Tensor, tabular: Tensor | None = None) -> Tensor:
        """Standardised reads (N, K) of images (N, C, D, H, W) and what was measured (N, M) or None."""
        features = self.dropout(self.block(self.encoder(image)).flatten(1))
        if self.hidden is not None:
            features = torch.cat([features, torch.relu(self.hidden(tabular))], dim=1)
        return self.head(features)

    def set_targets(self, targets: np.ndarray) -> None:
        """Keep mean and SD of the training patients' reads (N, K), NaN where missing."""
        mean, sd = np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)
        self.target_mean.copy_(torch.from_numpy(mean))
        self.target_sd.copy_(torch.from_numpy(np.where(sd > 0, sd, 1.0)))


def read_settings(settings: Settings) -> Settings:
    """The settings of the training loop for a reader, which has all its channels and is told of none."""
    return dataclasses.replace(
        settings,
        epochs_max=settings.reader_epochs,
        patience_epochs=settings.reader_epochs,
        base_filters=settings.reader_filters,
        batch_size=settings.reader_batch_size,
        modality_dropout=0.0,
    )


def predict_reads(model: ReaderNet, cases: Cases, settings: Settings) -> np.ndarray:
    """Reads (N, K) float64 in the units of `ReadCodes`."""
    outputs = training.predict_outputs(model, cases, settings)
    mean, sd = (buffer.double().cpu().numpy() for buffer in (model.target_mean, model.target_sd))
    return mean + sd * outputs
