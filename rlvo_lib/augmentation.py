"""Random changes of training images that leave a head a head.

Images are (N, C, D, H, W) float32 along the model tensor's x, y, z, NaN where a whole channel is
absent. Small rigid motion, noise, an offset of a channel, and left-right mirroring where neither the
study nor the arm tells the sides apart. All random numbers are drawn on the CPU, so that a GPU sees
the same changes.

MONAI's transforms work one patient at a time, on a GPU with a launch for each patient and step, and draw
noise voxel by voxel; the few that are needed take a whole batch here, in about half of the time
on one thread of a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rlvo_lib.config import Arm, InputError, Settings

#: Scans and their channels: what is hidden together.
Scans = Sequence[tuple[str, Sequence[int]]]


def check_mirror(settings: Settings, arm: Arm) -> None:
    """Refuse left-right mirroring where a mirrored patient is not one that the arm could meet.

    Raises
    ------
    InputError
        If the setting ``augment_mirror`` is on and the affected side is brought to one side, the grid
        is not symmetric about the midline, or the side is a predictor of the arm.
    """
    study = settings.study
    if not settings.augment_mirror:
        return
    reasons = {
        f"the study brings the affected side to the {study.flip_to_side} (flip_to_side), so a mirrored "
        "patient is one that never occurs": study.flip_to_side != "none",
        f"the grid's centre is {study.grid.centre_mm[0]:g} mm off the midline of the standard space, "
        "so its mirror image shows another part of the head": (
            study.grid.space == "template" and study.grid.centre_mm[0] != 0
        ),
        f"grid region '{study.grid.region}' is not symmetric about the midline (allowed: convexity, "
        "head)": study.grid.space == "head" and study.grid.region not in ("convexity", "head"),
        f"the side (column '{study.side_column}') is a predictor of arm '{arm.name}' and would "
        "contradict a mirrored image": study.side_column in study.columns_of(arm),
    }
    for reason, holds in reasons.items():
        if holds:
            raise InputError(f"setting 'augment_mirror' is True; allowed: False, since {reason}")


class Augmentation:
    """Random changes in proportion to each channel's SD; called on a batch, returns a new one.

    Parameters
    ----------
    settings
        The fields ``augment_*`` and ``modality_dropout``.
    sd
        SD of each channel over the training patients, of C values.
    generator
        On the CPU; each call draws from it.
    scans
        Which channels belong to a scan and are hidden together; None: each channel is one.
    """

    def __init__(
        self, settings: Settings, sd: Tensor, generator: torch.Generator, scans: Scans | None = None
    ) -> None:
        self.settings, self.generator = settings, generator
        self.sd = sd.reshape(1, -1, 1, 1, 1)
        self.scans = scans
        self.noise_field: Tensor | None = None

    def __call__(self, image: Tensor) -> Tensor:
        """Changed images, of the same shape (N, C, D, H, W) and on the same device."""
        settings = self.settings
        if settings.augment_rotation_deg:
            image = self.move(image)
        elif settings.augment_shift_voxels:
            image = self.shift(image)
        if settings.augment_mirror:
            turned = self._draw(torch.rand(len(image), generator=self.generator) < 0.5, image)
            image = torch.where(turned.view(-1, 1, 1, 1, 1), image.flip(2), image)
        if settings.augment_intensity:
            offset = torch.randn(image.shape[:2], generator=self.generator)[..., None, None, None]
            image = image + settings.augment_intensity * self.sd * self._draw(offset, image)
        if settings.augment_noise:
            image = torch.addcmul(image, self.noise(image), settings.augment_noise * self.sd)
        if settings.modality_dropout:
            image = self.hide(image)
        return image

    def _draw(self, drawn: Tensor, image: Tensor) -> Tensor:
        return drawn.to(image.device, non_blocking=True)

    def shift(self, image: Tensor) -> Tensor:
        """Each patient moved by whole voxels (edges repeated): nothing is interpolated or blurred."""
        reach, size = self.settings.augment_shift_voxels, image.shape[2:]
        padded = F.pad(image, [reach] * 6, mode="replicate")
        starts = torch.randint(0, 2 * reach + 1, (len(image), 3), generator=self.generator)
        windows = [
            one[:, d : d + size[0], h : h + size[1], w : w + size[2]]
            for one, (d, h, w) in zip(padded, starts.tolist(), strict=True)
        ]
        return torch.stack(windows)

    def move(self, image: Tensor) -> Tensor:
        """Each patient turned about the grid's centre and moved by parts of voxels, interpolated once.

        Angles about x, y and z are uniform up to ``augment_rotation_deg``, the shift up to
        ``augment_shift_voxels``; edges are repeated.
        """
        reach = self.settings.augment_rotation_deg * math.pi / 180
        angles = reach * (2 * torch.rand(len(image), 3, generator=self.generator) - 1)
        shift = 2 * torch.rand(len(image), 3, generator=self.generator) - 1
        theta = rigid(angles, shift * self.settings.augment_shift_voxels, image.shape[2:])
        grid = F.affine_grid(self._draw(theta, image), list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, padding_mode="border", align_corners=False)

    def noise(self, image: Tensor) -> Tensor:
        """Standard normal noise of the shape of the images.

        Windows at random places of one long row of normal numbers: a draw for every voxel of every
        batch would cost more time on the CPU than a network's step on a GPU.
        """
        voxels = image[0, 0].numel()
        if self.noise_field is None or len(self.noise_field) < 4 * voxels:
            length = max(1 << 20, 4 * voxels)
            self.noise_field = torch.randn(length, generator=self.generator).to(image.device)
        count = image.shape[0] * image.shape[1]
        starts = torch.randint(
            0, len(self.noise_field) - voxels + 1, (count,), generator=self.generator
        )
        windows = [self.noise_field[start : start + voxels] for start in starts.tolist()]
        return torch.stack(windows).view(image.shape)

    def hide(self, image: Tensor) -> Tensor:
        """Whole scans set to NaN, each with probability ``modality_dropout``; one at least remains."""
        channels = image.shape[1]
        scan_of = _scan_of_channel(self.scans, channels).to(image.device)
        scan = torch.arange(channels if self.scans is None else len(self.scans)).to(image.device)
        drawn = torch.rand(len(image), len(scan), generator=self.generator)
        drawn = self._draw(drawn, image)
        here = ~image[:, :, 0, 0, 0].isnan()  # a channel is there as a whole or not at all
        there = (here[:, None] & (scan_of == scan[:, None])).any(2)  # (N, scans)
        last = drawn.masked_fill(~there, -1.0).argmax(1, keepdim=True)
        kept = (drawn >= self.settings.modality_dropout) | (scan == last)
        return image.masked_fill(~kept[:, scan_of][..., None, None, None], math.nan)


def rigid(angles: Tensor, shift: Tensor, shape: Sequence[int]) -> Tensor:
    """Matrices (N, 3, 4) for `torch.nn.functional.affine_grid` (``align_corners=False``).

    An output voxel at o (voxels from the grid's centre) shows the input at R o + s, with R = Rz Ry Rx;
    voxels are cubes. ``affine_grid`` counts from -1 to 1 over each axis, the last axis first.

    Parameters
    ----------
    angles
        (N, 3) radians about x, y, z, the image's axes D, H, W.
    shift
        (N, 3) voxels along x, y, z.
    shape
        D, H, W.

    Examples
    --------
    >>> rigid(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 4.0]]), (8, 8, 16))[0, 0].tolist()
    [1.0, 0.0, 0.0, 0.5]
    """
    cos, sin = angles.cos(), angles.sin()
    turn = torch.eye(3).expand(len(angles), 3, 3)
    for axis in range(3):
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        one = torch.eye(3).repeat(len(angles), 1, 1)
        one[:, a, a] = one[:, b, b] = cos[:, axis]
        one[:, a, b], one[:, b, a] = -sin[:, axis], sin[:, axis]
        turn = one @ turn
    half = torch.tensor(shape, dtype=torch.float32) / 2
    matrix = turn * half / half[:, None]  # half-widths: to voxels on the right, back on the left
    theta = torch.cat([matrix, (shift / half)[:, :, None]], dim=2)
    return torch.cat([theta[:, :, :3].flip(1, 2), theta[:, :, 3:].flip(1)], dim=2)


def _scan_of_channel(scans: Scans | None, channels: int) -> Tensor:
    """The number of the scan that each of C channels belongs to."""
    if scans is None:
        return torch.arange(channels)
    number = {channel: n for n, (_, own) in enumerate(scans) for channel in own}
    if sorted(number) != list(range(channels)):
        raise ValueError(
            f"scans name channels {sorted(number)}; allowed: each of 0 to {channels - 1}, once"
        )
    return torch.tensor([number[channel] for channel in range(channels)])
