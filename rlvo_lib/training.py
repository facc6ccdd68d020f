"""One plain training loop, for networks of images, of tabular data and of both.

Loss: binary cross-entropy of the logit, unweighted, so that probabilities keep their meaning; the
head starts at the training log-odds. AdamW with cosine decay; training stops when the loss on the
inner validation part has not improved for some epochs, and the best epoch's weights are kept.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rlvo_lib.config import InputError, Settings


@dataclass
class Cases:
    """N patients in the order of ``y``: images, tabular vectors and outcomes.

    ``image``: (N, C, D, H, W) float16 or None; ``tabular``: (N, P) float32 or None;
    ``y``: (N,) of 0 and 1.
    """

    image: np.ndarray | None
    tabular: np.ndarray | None
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> Cases:
        """The patients of some rows."""
        pick = [None if part is None else part[rows] for part in (self.image, self.tabular)]
        return Cases(*pick, self.y[rows])


def pick_device(device: str) -> torch.device:
    """The torch device of the setting ``auto``, ``cpu`` or ``cuda``."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "setting 'device' is 'cuda', but no NVIDIA GPU is available; allowed: auto, cpu"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed torch and ask it for deterministic operations only (NumPy is used with generators)."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())


def image_scale(image: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and SD (C,) of each channel over training images (N, C, D, H, W), a patient at a time."""
    total, square, count = 0.0, 0.0, 0
    for one in image:
        values = one.reshape(one.shape[0], -1).astype(np.float64)
        total, square = total + values.sum(1), square + (values**2).sum(1)
        count += values.shape[1]
    mean = total / count
    sd = np.sqrt(np.maximum(square / count - mean**2, 0))
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(sd, dtype=torch.float32)


def augment(image: Tensor, sd: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Images (N, C, D, H, W) shifted by a few voxels (edges repeated), with noise in proportion to
    each channel's SD (1, C, 1, 1, 1)."""
    shift = settings.augment_shift_voxels
    if shift:
        size = image.shape[2:]
        padded = nn.functional.pad(image, [shift] * 6, mode="replicate")
        starts = torch.randint(0, 2 * shift + 1, (len(image), 3), generator=generator).tolist()
        image = torch.stack(
            [
                one[:, d : d + size[0], h : h + size[1], w : w + size[2]]
                for one, (d, h, w) in zip(padded, starts, strict=True)
            ]
        )
    if settings.augment_noise:
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        image = image + settings.augment_noise * sd * noise
    return image


def fit(
    model: nn.Module, train: Cases, inner: Cases, settings: Settings, *, seed: int
) -> pd.DataFrame:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    Parameters
    ----------
    train
        Patients the weights are fitted to.
    inner
        Patients, taken from the fold's training part, whose loss decides when to stop.

    Returns
    -------
    DataFrame with epoch, part (``train``, ``inner``) and loss.

    Raises
    ------
    InputError
        If training patients have one outcome only, or the loss becomes NaN.
    """
    if len(set(train.y.tolist())) < 2:
        raise InputError(
            f"training needs both outcomes; all {len(train)} training patients have the same"
        )
    device = pick_device(settings.device)
    generator = torch.Generator().manual_seed(seed)
    model.to(device)
    with torch.no_grad():
        prevalence = float(train.y.mean())
        model.head.weight.mul_(0.1)  # start close to the prevalence, not at random probabilities
        model.head.bias.fill_(float(np.log(prevalence / (1 - prevalence))))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs_max)
    loss_function = nn.BCEWithLogitsLoss()
    history, best_loss, best_epoch, best_weights = [], np.inf, -1, copy.deepcopy(model.state_dict())
    for epoch in range(settings.epochs_max):
        model.train()
        total = 0.0
        order = torch.randperm(len(train), generator=generator).numpy()
        for rows in np.array_split(order, max(1, len(order) // settings.batch_size)):
            image, tabular, y = _batch(train, rows, device)
            if image is not None:
                image = augment(image, model.encoder.sd, settings, generator)
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = loss_function(model(image, tabular)[:, 0], y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            total += float(loss.detach()) * len(rows)
        schedule.step()
        if not np.isfinite(total):
            raise InputError(
                f"training diverged in epoch {epoch} (loss is not a number); lower the setting "
                f"'learning_rate' ({settings.learning_rate:g}) or look for NaN in the images"
            )
        inner_loss = log_loss(inner.y, predict_logit(model, inner, settings))
        history += [(epoch, "train", total / len(train)), (epoch, "inner", inner_loss)]
        if inner_loss < best_loss:
            best_loss, best_epoch = inner_loss, epoch
            best_weights = copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= settings.patience_epochs:
            break
    model.load_state_dict(best_weights)
    return pd.DataFrame(history, columns=["epoch", "part", "loss"])


def predict_logit(model: nn.Module, cases: Cases, settings: Settings) -> np.ndarray:
    """Logits (N,) float64 of the patients, in batches, without gradients."""
    device = pick_device(settings.device)
    model.to(device).eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(cases), 64):
            image, tabular, _ = _batch(cases, np.arange(start, min(start + 64, len(cases))), device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits.append(model(image, tabular)[:, 0].double().cpu())
    return torch.cat(logits).numpy()


def log_loss(y: np.ndarray, logit: np.ndarray) -> float:
    """Mean negative log-likelihood of outcomes (N,) under logits (N,).

    >>> round(log_loss(np.array([0, 1]), np.array([0.0, 0.0])), 4)
    0.6931
    """
    return float(np.mean(np.logaddexp(0, logit) - y * logit))


def _batch(cases: Cases, rows: np.ndarray, device: torch.device):
    """Image, tabular and outcome tensors of some rows, float32, on the device."""
    parts = (cases.image, cases.tabular, cases.y)
    return [
        None
        if part is None
        else torch.as_tensor(part[rows]).to(device, torch.float32, non_blocking=True)
        for part in parts
    ]
