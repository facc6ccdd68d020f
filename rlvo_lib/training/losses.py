"""What a network is trained for: the outcome, and auxiliary targets beside it.

Weights, balanced batches and the focal loss turn the logit away from the log-odds of the outcome;
whoever uses them has to recalibrate before a probability is read.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlvo_lib.config import Settings
from rlvo_lib.training.batches import Batch
from rlvo_lib.training.cases import Cases


def log_loss(y: np.ndarray, logit: np.ndarray) -> float:
    """Mean negative log-likelihood of outcomes (N,) under logits (N,).

    >>> round(log_loss(np.array([0, 1]), np.array([0.0, 0.0])), 4)
    0.6931
    """
    return float(np.mean(np.logaddexp(0, logit) - y * logit))


def focal_loss(logit: Tensor, y: Tensor, gamma: float) -> Tensor:
    """(1 - p_t)^γ · -log p_t of each patient (N,), p_t the probability given to what happened.

    Lin et al., ICCV 2017, without their class weight α. γ = 0 is the cross-entropy.

    >>> focal_loss(torch.zeros(1), torch.ones(1), 2.0) / focal_loss(torch.zeros(1), torch.ones(1), 0)
    tensor([0.2500])
    """
    loss = F.binary_cross_entropy_with_logits(logit, y, reduction="none")
    return loss * torch.sigmoid((1 - 2 * y) * logit) ** gamma


class Criterion:
    """The loss of a batch, with what it needs to know of the training patients.

    Parameters
    ----------
    train
        Its outcomes give the class weights N / (2 N_class), its ``extra`` the mean and SD by which
        auxiliary targets are standardised.
    """

    def __init__(self, train: Cases, settings: Settings, device: torch.device) -> None:
        self.settings, self.reads_only, self.start = settings, train.y is None, 0.0
        if train.y is not None:
            share = float(train.y.mean())
            weighted = settings.imbalance in ("weights", "balanced")
            self.class_weights = (0.5 / (1 - share), 0.5 / share) if weighted else (1.0, 1.0)
            self.start = 0.0 if weighted else float(np.log(share / (1 - share)))
        self.with_extra = train.extra is not None and (
            self.reads_only or settings.auxiliary_weight > 0
        )
        if self.with_extra:
            mean, sd = np.nanmean(train.extra, axis=0), np.nanstd(train.extra, axis=0)
            scale = np.stack([mean, np.where(sd > 0, sd, 1)]).astype(np.float32)
            self.extra_mean, self.extra_sd = torch.from_numpy(scale).to(device)

    def __call__(self, output: Tensor, batch: Batch) -> Tensor:
        """The mean loss of a network's output (N, 1 + K) in training; without an outcome (N, K)."""
        if self.reads_only:
            return self.auxiliary(output, batch.extra)
        logit = output[:, 0] if batch.offset is None else output[:, 0] + batch.offset
        even = self.settings.imbalance == "balanced"  # balanced batches need no weights
        target = self.target(batch.y, batch.taught)
        loss = self.outcome(logit, target, weights=(1.0, 1.0) if even else self.class_weights)
        if self.with_extra:
            loss = loss + self.settings.auxiliary_weight * self.auxiliary(
                output[:, 1:], batch.extra
            )
        return loss

    def judged(self, output: Tensor, cases: Cases) -> float:
        """The loss by which an epoch is judged: of the outcome (output: the offset included), or the reads."""
        if self.reads_only:
            target = torch.from_numpy(np.asarray(cases.extra, np.float32)).to(self.extra_mean)
            return float(self.auxiliary(output.to(target), target))
        y, taught = (
            None if part is None else torch.from_numpy(np.asarray(part, float))
            for part in (cases.y, cases.taught)
        )
        return float(self.outcome(output[:, 0], self.target(y, taught)))

    def target(self, y: Tensor, taught: Tensor | None) -> Tensor:
        """What is learnt (N,): the outcome, or (1 - w) y + w p with a teacher's p and w = ``teaching``.

        Hinton, Vinyals & Dean, arXiv:1503.02531, at temperature 1: the cross-entropies of outcome and
        teacher, in these shares. Most of an outcome is chance; a teacher's probability is not.
        """
        share = self.settings.teaching
        return y if taught is None else torch.lerp(y, taught, share)

    def outcome(
        self, logit: Tensor, y: Tensor, weights: tuple[float, float] | None = None
    ) -> Tensor:
        """The mean loss of the outcome alone, by which an epoch is judged: as if classes were balanced
        where training balances them."""
        gamma = self.settings.focal_gamma if self.settings.imbalance == "focal" else 0.0
        none, event = weights or self.class_weights
        loss = focal_loss(logit, y, gamma) if gamma else self._cross_entropy(logit, y)
        return (loss * (none + (event - none) * y)).mean()

    def auxiliary(self, output: Tensor, extra: Tensor) -> Tensor:
        """Mean squared error over the standardised targets (N, K) that are known; 0 if none is."""
        target = (extra - self.extra_mean) / self.extra_sd
        known = ~target.isnan()
        error = torch.where(known, output - target.nan_to_num(), 0.0)
        return error.square().sum() / known.sum().clamp_min(1)

    @staticmethod
    def _cross_entropy(logit: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logit, y, reduction="none")


def start_head(model: nn.Module, criterion: Criterion, *, offset: bool) -> None:
    """Start the head close to the prevalence, not at random probabilities.

    With a frozen offset its weights to the outcome and its bias are 0: the network then is the offset.
    """
    with torch.no_grad():
        model.head.weight.mul_(0.1)
        model.head.bias.zero_()
        if offset:
            model.head.weight[0] = 0
        elif not criterion.reads_only:
            model.head.bias[0] = criterion.start
