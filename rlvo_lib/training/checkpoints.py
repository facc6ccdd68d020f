"""Trained weights on disk: safetensors, which hold numbers and text and run nothing when read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlvo_lib import storage
from rlvo_lib.config import InputError


def save_model(path: str | Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write a network's weights and buffers, and what it is, atomically.

    ``about`` is all that `load_model` must find again, as plain text, numbers, lists and dictionaries.
    The same weights and ``about`` give the same bytes.
    """
    from safetensors.torch import save

    tensors = {
        name: value.detach().cpu().contiguous().clone()  # a clone: names may share a tensor
        for name, value in model.state_dict().items()
    }
    # one entry of text: the library writes several in any order
    text = json.dumps({"about": about, "sha256": _digest(tensors)}, sort_keys=True)
    written = save(tensors, metadata={"rlvo": text})
    with storage.atomic(path) as temporary:
        temporary.write_bytes(written)


def load_model(path: str | Path, model: nn.Module, about: dict[str, Any]) -> nn.Module:
    """Fill a network with stored weights, on its own device, and return it.

    Raises
    ------
    InputError
        If the file is missing or damaged, is of another ``about`` (the first entry that differs is
        named), or holds other tensors than the network.
    """
    path = Path(path)
    tensors, stored = _read(path)
    wanted = json.loads(json.dumps(about))
    for name in sorted(wanted.keys() | stored["about"].keys()):
        there, here = (side.get(name, "not given") for side in (stored["about"], wanted))
        if there != here:
            raise InputError(
                f"{path.name} is a checkpoint of another configuration: {name} is {there!r}; "
                f"allowed: {here!r}"
            )
    own = model.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        what = "lacks tensor" if name in own else "has a tensor that the network does not:"
        raise InputError(f"{path.name}: the checkpoint {what} '{name}'")
    for name, value in tensors.items():
        if value.shape != own[name].shape:
            raise InputError(
                f"{path.name}: tensor '{name}' is of shape {tuple(value.shape)}; allowed: "
                f"{tuple(own[name].shape)}"
            )
    model.load_state_dict(tensors)
    return model


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint and what is written beside them, checked against their digest."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stored = json.loads((file.metadata() or {})["rlvo"])
        whole = stored["sha256"] == _digest(tensors)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path.name}: not a checkpoint of this package ({error})") from error
    if not whole:
        raise InputError(f"{path.name}: the checkpoint is damaged (its weights have changed)")
    return tensors, stored


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, as hexadecimal text."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
