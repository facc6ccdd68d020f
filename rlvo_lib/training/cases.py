"""Patients as a network sees them: arrays in one order, checked before training."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from rlvo_lib.config import InputError, Settings


@dataclass
class Cases:
    """N patients in the order of ``y``.

    image : (N, C, D, H, W) float16 or None; a channel that is NaN throughout is absent
    tabular : (N, P) float32 or None
    y : (N,) outcomes, 0 and 1; None: the network learns ``extra`` alone
    offset : (N,) float32 or None; a frozen logit that is added to the network's
    taught : (N,) float32 or None; a teacher's probability of the outcome
    extra : (N, K) float32 or None; auxiliary targets, in any unit, NaN where missing
    """

    image: np.ndarray | None
    tabular: np.ndarray | None
    y: np.ndarray | None
    offset: np.ndarray | None = None
    taught: np.ndarray | None = None
    extra: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.extra if self.y is None else self.y)

    def take(self, rows: np.ndarray) -> Cases:
        """The patients of some rows."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Cases(**{name: None if p is None else p[rows] for name, p in parts.items()})


def image_scale(image: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and SD (C,) of each channel over training images (N, C, D, H, W); absent ones left out.

    Over all voxels of all patients: the mean of the patients' means, and the mean of their variances
    plus the variance of their means.

    Raises
    ------
    InputError
        If no patient has a channel.
    """
    moments = [_moments(torch.from_numpy(np.array(one, np.float32)).flatten(1)) for one in image]
    mean, variance = (torch.stack(part).double() for part in zip(*moments, strict=True))
    absent = mean.isnan().all(0).nonzero().flatten().tolist()
    if absent:
        raise InputError(
            f"channel {absent[0]} is absent in all {len(image)} training patients; allowed: a channel "
            "that some have"
        )
    centre = mean.nanmean(0)
    spread = variance.nanmean(0) + ((mean - centre) ** 2).nanmean(0)
    return centre.float(), spread.sqrt().float()


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each row; `torch.var_mean` takes two and a half times as long on a CPU."""
    mean = values.mean(1, keepdim=True)
    values -= mean
    return mean[:, 0], values.square_().mean(1)


def check_cases(cases: Cases, settings: Settings, part: str) -> None:
    """Refuse numbers that would spoil a training without a word.

    Raises
    ------
    InputError
        Naming the part, row and channel or column: for a voxel that is not finite, unless the whole
        channel is NaN and the setting ``absent`` is ``flag``; for a tabular value, offset or outcome
        that is not finite.
    """
    for row, one in enumerate(() if cases.image is None else cases.image):
        finite = np.isfinite(one).reshape(len(one), -1)
        for channel in np.flatnonzero(~finite.all(1)):
            where = f"{part} part, patient in row {row}, channel {channel}"
            if not np.isnan(one[channel]).all():
                lost = finite.shape[1] - int(finite[channel].sum())
                raise InputError(
                    f"{where}: {lost} of {finite.shape[1]} voxels are not finite numbers; allowed: "
                    "none, or NaN throughout for a channel that is absent"
                )
            if settings.absent != "flag":
                raise InputError(
                    f"{where}: the channel is absent (NaN throughout), but setting 'absent' is "
                    f"'{settings.absent}'; allowed: patients who have all channels, or 'flag'"
                )
    for name in ("tabular", "offset", "taught", "y"):
        values = getattr(cases, name)
        if values is not None and not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0]
            column = f", column {place[1]}" if len(place) > 1 else ""
            raise InputError(
                f"{part} part, patient in row {place[0]}: {name}{column} is "
                f"{values[tuple(place)]}; allowed: finite numbers"
            )


def check_training(model: torch.nn.Module, train: Cases, inner: Cases, settings: Settings) -> None:
    """Refuse a training part from which nothing can be learnt.

    Raises
    ------
    InputError
        For one outcome only, batches of one patient, a teacher where outcomes are weighted, or an
        auxiliary target that no patient has.
    ValueError
        If the network's outputs are not one for the outcome and one for each auxiliary target, or one
        part has a frozen offset, or a teacher, and the other has not.
    """
    if train.y is not None and len(set(train.y.tolist())) < 2:
        raise InputError(
            f"training needs both outcomes; all {len(train)} training patients have the same"
        )
    if settings.batch_size < 2:
        raise InputError(
            f"setting 'batch_size' is {settings.batch_size}; allowed: 2 or more, since batch "
            "normalisation compares patients"
        )
    for name, words in (("offset", "a frozen offset"), ("taught", "a teacher")):
        if (getattr(train, name) is None) != (getattr(inner, name) is None):
            raise ValueError(f"{words} for one part only; allowed: for training and inner, or none")
    if train.taught is not None and settings.imbalance != "none":
        raise InputError(
            f"setting 'imbalance' is '{settings.imbalance}' for an arm with a teacher; allowed: none, since "
            "a teacher's probabilities are those of the cohort"
        )
    if train.extra is None or not (settings.auxiliary_weight or train.y is None):
        return
    expected = train.extra.shape[1] + (train.y is not None)
    if model.head.out_features != expected:
        raise ValueError(
            f"a network of {model.head.out_features} outputs for {train.extra.shape[1]} auxiliary "
            f"targets; allowed: {expected}"
        )
    if train.y is None and np.isnan(inner.extra).all():
        raise InputError(
            "no auxiliary target is known in the inner part; allowed: one at least, to keep the best epoch by"
        )
    for column in np.flatnonzero(np.isnan(train.extra).all(0)):
        raise InputError(
            f"auxiliary target {column} is missing in all {len(train)} training patients; allowed: a "
            "target that some have"
        )
