"""Where a network runs, how exactly, and what is said when memory does not suffice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rlvo_lib.config import InputError, Settings


def pick_device(device: str) -> torch.device:
    """The torch device of the setting ``auto``, ``cpu`` or ``cuda``."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "setting 'device' is 'cuda', but no NVIDIA GPU is available; allowed: auto, cpu"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed torch and ask it for deterministic operations (NumPy is used with generators).

    Call it before anything runs on a GPU: cuBLAS reads its workspace setting once.

    On a GPU an operation without a deterministic kernel warns instead of stopping: torch counts the
    backward pass of `MaxPool3d` among them, though windows that do not overlap (the published stem)
    add to each voxel once, and the bytes are the same (`benchmarks/gpu.py` compares them).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = False  # a pass over memory for nothing
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as on a CPU


def autocast(device: torch.device, settings: Settings) -> torch.autocast:
    """The precision of a forward pass: bfloat16, by default on a GPU only, or float32."""
    half = settings.precision == "bfloat16" or (
        settings.precision == "auto" and device.type == "cuda"
    )
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def placed(module: nn.Module, device: torch.device, settings: Settings) -> nn.Module:
    """The module on the device, its convolutions in the memory order that the settings ask for."""
    layout = torch.channels_last_3d if settings.channels_last else torch.contiguous_format
    return module.to(device).to(memory_format=layout)


def laid_out(image: Tensor | None, settings: Settings) -> Tensor | None:
    """Images (N, C, D, H, W) in the memory order that the settings ask for."""
    if image is None or not settings.channels_last:
        return image
    return image.contiguous(memory_format=torch.channels_last_3d)


@contextmanager
def memory_errors(settings: Settings) -> Iterator[None]:
    """Say which settings need less memory when it does not suffice.

    Raises
    ------
    InputError
        In the place of CUDA's and the CPU allocator's errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # CUDA's error is a RuntimeError
        words = ("out of memory", "not enough memory", "can't allocate memory")
        if isinstance(error, RuntimeError) and not any(w in str(error) for w in words):
            raise
        grid = ", ".join(map(str, settings.grid_shape))
        raise InputError(
            f"not enough memory on the {pick_device(settings.device).type} to train this network; "
            f"lower the setting 'batch_size' ({settings.batch_size}), 'grid_shape' ({grid}) or "
            f"'base_filters' ({settings.base_filters})"
        ) from error
