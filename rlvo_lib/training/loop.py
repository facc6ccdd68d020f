"""The training loop, and the logits of a trained network."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rlvo_lib.augmentation import Augmentation, Scans
from rlvo_lib.config import InputError, Settings
from rlvo_lib.training.batches import Batches, epoch_order, split_rows
from rlvo_lib.training.cases import Cases, check_cases, check_training
from rlvo_lib.training.devices import autocast, laid_out, memory_errors, pick_device, placed
from rlvo_lib.training.losses import Criterion, start_head


def fit(
    model: nn.Module,
    train: Cases,
    inner: Cases,
    settings: Settings,
    *,
    seed: int,
    scans: Scans | None = None,
) -> pd.DataFrame:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    Parameters
    ----------
    train
        Patients the weights are fitted to.
    inner
        Patients, taken from the fold's training part, whose loss decides when to stop: that of the
        outcome alone, without augmentation.
    seed
        Of the order of patients and their augmentation.
    scans
        Channels that modality dropout hides together; None: each by itself.

    Returns
    -------
    DataFrame with epoch, part (``train``, ``inner``) and loss. With a frozen offset, epoch -1 is the
    offset alone, which stays if no epoch is better.

    Raises
    ------
    InputError
        If training patients have one outcome only, a number is NaN where it must not be, the loss
        becomes NaN, or memory does not suffice.
    """
    check_training(model, train, inner, settings)
    check_cases(train, settings, "training")
    check_cases(inner, settings, "inner")
    with memory_errors(settings):
        return _fit(model, train, inner, settings, seed, scans)


def _fit(
    model: nn.Module,
    train: Cases,
    inner: Cases,
    settings: Settings,
    seed: int,
    scans: Scans | None,
) -> pd.DataFrame:
    device = pick_device(settings.device)
    generator = torch.Generator().manual_seed(seed)
    criterion = Criterion(train, settings, device)
    start_head(model, criterion, offset=train.offset is not None)
    placed(model, device, settings)
    optimiser = adamw(model, settings)
    average = WeightAverage(model, settings.weight_averaging)
    augment = None
    if train.image is not None:
        augment = Augmentation(settings, model.encoder.sd, generator, scans)
    patients, judges = Batches(train, device), Batches(inner, device)
    history, step = [], 0
    best_loss, best_epoch, best_weights = math.inf, -1, None

    def judge(epoch: int) -> None:
        nonlocal best_loss, best_epoch, best_weights
        loss = criterion.judged(_outputs(average.model, judges, settings), inner)
        history.append((epoch, "inner", loss))
        if loss < best_loss:
            best_loss, best_epoch = loss, epoch
            best_weights = copy.deepcopy(average.model.state_dict())

    if train.offset is not None:
        judge(-1)
    for epoch in range(settings.epochs_max):
        model.train()
        total = torch.zeros((), device=device)
        even = settings.imbalance == "balanced" and train.y is not None
        order = epoch_order(train.y if even else np.zeros(len(train)), generator, balanced=even)
        batches = split_rows(order, settings.batch_size)
        for rows, batch in zip(batches, patients.of(batches), strict=True):
            rate = settings.learning_rate * rate_share(
                step, settings.warmup_epochs * len(batches), settings.epochs_max * len(batches)
            )
            for group in optimiser.param_groups:
                group["lr"] = rate
            image = laid_out(None if augment is None else augment(batch.image), settings)
            optimiser.zero_grad(set_to_none=True)
            with autocast(device, settings):
                output = model(image, batch.tabular)
            loss = criterion(output.float(), batch)
            loss.backward()
            if settings.gradient_clip:
                nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
            optimiser.step()
            average.update(step)
            total += loss.detach() * len(rows)
            step += 1
        mean = float(total) / len(order)
        if not math.isfinite(mean):
            raise InputError(
                f"training diverged in epoch {epoch} (the loss is {mean}) at a learning rate of "
                f"{rate:.3g}; lower the setting 'learning_rate' ({settings.learning_rate:g})"
            )
        history.append((epoch, "train", mean))
        judge(epoch)
        if epoch - best_epoch >= settings.patience_epochs:
            break
    if best_weights is None:
        raise InputError(
            f"training diverged: the inner loss is not a number in any epoch; lower the setting "
            f"'learning_rate' ({settings.learning_rate:g})"
        )
    model.load_state_dict(best_weights)
    return pd.DataFrame(history, columns=["epoch", "part", "loss"])


def predict_outputs(model: nn.Module, cases: Cases, settings: Settings) -> np.ndarray:
    """Outputs (N, K) float64 of the patients, without gradients; a frozen offset is in the first.

    Raises
    ------
    InputError
        If a number is NaN where it must not be, or memory does not suffice.
    """
    check_cases(cases, settings, "predicted")
    device = pick_device(settings.device)
    with memory_errors(settings):
        model = placed(model, device, settings)
        return _outputs(model, Batches(cases, device), settings).numpy()


def predict_logit(model: nn.Module, cases: Cases, settings: Settings) -> np.ndarray:
    """Logits (N,) float64 of the outcome: the first of `predict_outputs`."""
    return predict_outputs(model, cases, settings)[:, 0]


def _outputs(model: nn.Module, patients: Batches, settings: Settings) -> Tensor:
    model.eval()
    rows, size, found = np.arange(len(patients.cases)), 2 * settings.batch_size, []
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    with torch.inference_mode():
        for batch in patients.of(batches):
            with autocast(patients.device, settings):
                output = model(laid_out(batch.image, settings), batch.tabular).double()
            if batch.offset is not None:
                output[:, 0] += batch.offset
            found.append(output)
    return torch.cat(found).cpu()


def adamw(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW whose weight decay spares biases and norms: all parameters of one dimension."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    on_gpu = next(model.parameters()).is_cuda
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=on_gpu
    )


def rate_share(step: int, warm: int, last: int) -> float:
    """Share of the learning rate at a step: rising linearly over ``warm`` steps, then a cosine to 0.

    >>> [round(rate_share(step, 2, 6), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (last - warm)))


class WeightAverage:
    """A running mean of a network's weights, which is what is judged and kept.

    mean ← d · mean + (1 - d) · weights after each step, with d = min(decay, (1 + step) / (10 + step))
    so that the first mean is not that of the start. Running statistics of batch norms are averaged
    alike: they then belong to the averaged weights about as well as to the last ones. Without decay,
    ``model`` is the network itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.source, self.decay = model, decay
        self.model = copy.deepcopy(model) if decay else model

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after this step into the mean."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(_numbers(self.model), _numbers(self.source), strict=True):
            if value.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def _numbers(model: nn.Module) -> Iterator[Tensor]:
    """Weights and buffers, each once, also where parts of a network share them."""
    return itertools.chain(model.parameters(), model.buffers())
