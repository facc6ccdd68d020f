"""From reads, and clinical data, to the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from rlvo_lib import baselines
from rlvo_lib.concepts.reads import LEAST_SD, ReadCodes
from rlvo_lib.fusion import AffineModulation


@dataclass
class Bottleneck:
    """Logistic regression on K reads and P clinical columns, fitted on what people read.

    The reads of training patients are those in their records, those lacking are the reader's; a patient
    to be predicted has the reader's alone. Where the outcome depends on an image through the concepts
    only, E[β·c | image] = β·E[c | image], so that a reader's best guess may stand in the place of a
    reading (regression calibration: Carroll et al., Measurement Error in Nonlinear Models, 2006, ch. 4).

    Examples
    --------
    A person corrects one read and the probability follows::

        model.predict(codes.corrected(reads, "occl_type_cta", "1"), clinical)
    """

    codes: ReadCodes
    seed: int
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sd: np.ndarray = field(default_factory=lambda: np.zeros(0))
    model: baselines.Predictor | None = None

    def standardised(self, reads: np.ndarray) -> np.ndarray:
        """Reads (N, K) with the mean and SD of the training patients' records."""
        return (self.codes.bounded(reads) - self.mean) / self.sd

    def set_scale(self, recorded: np.ndarray) -> None:
        """Mean and SD of recorded reads (N, K), NaN where missing; a code's SD is at least 0.3."""
        least = np.array([0.0 if level is None else LEAST_SD for _, level in self.codes.parts])
        sd = np.maximum(np.nanstd(recorded, axis=0), least)
        self.mean, self.sd = np.nanmean(recorded, axis=0), np.where(sd > 0, sd, 1.0)

    def fit(
        self,
        recorded: np.ndarray,
        guessed: np.ndarray,
        clinical: np.ndarray | None,
        y: np.ndarray,
        groups: np.ndarray | None = None,
    ) -> Bottleneck:
        """Fit on recorded reads (N, K), the reader's guesses where they are NaN, and clinical (N, P)."""
        self.set_scale(recorded)
        matrix = self._matrix(np.where(np.isnan(recorded), guessed, recorded), clinical)
        self.model = baselines.fit_logistic(matrix, y, seed=self.seed, groups=groups)
        return self

    def predict(self, reads: np.ndarray, clinical: np.ndarray | None) -> np.ndarray:
        """Probabilities (N,) of reads (N, K) and clinical columns (N, P) or None."""
        return self.model.predict_proba(self._matrix(reads, clinical))[:, 1]

    def _matrix(self, reads: np.ndarray, clinical: np.ndarray | None) -> np.ndarray:
        parts = [self.standardised(reads)] + ([] if clinical is None else [clinical])
        return np.concatenate(parts, axis=1).astype(np.float32)


class ConceptDaft(nn.Module):
    """DAFT on reads: each read is a channel of one voxel, scaled and shifted by reads and clinical data.

    ``tabular`` (N, K + P) holds the standardised reads, then the clinical columns; the image is ignored.

    Examples
    --------
    >>> import torch
    >>> ConceptDaft(5, 20)(None, torch.zeros(2, 25)).shape
    torch.Size([2, 1])
    """

    def __init__(self, n_reads: int, n_clinical: int) -> None:
        super().__init__()
        self.n_reads = n_reads
        bottleneck = max(1, (n_reads + n_clinical) // 7)
        self.modulation = AffineModulation(
            n_reads, n_clinical, bottleneck, sees_image=True, identity_start=True
        )
        self.head = nn.Linear(n_reads, 1)

    def forward(self, image: Tensor | None, tabular: Tensor) -> Tensor:
        """Logits (N, 1)."""
        reads, clinical = tabular[:, : self.n_reads], tabular[:, self.n_reads :]
        modulated = self.modulation(reads[:, :, None, None, None], clinical)
        return self.head(modulated.flatten(1))
