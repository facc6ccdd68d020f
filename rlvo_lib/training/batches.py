"""Batches: which patients make one, and how their arrays reach the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from rlvo_lib.training.cases import Cases

#: Images that need at most this share of a GPU's free memory are put there once.
RESIDENT_SHARE = 0.4


@dataclass
class Batch:
    """`Cases` of some rows as float32 tensors on the device."""

    image: Tensor | None
    tabular: Tensor | None
    y: Tensor | None
    offset: Tensor | None
    taught: Tensor | None
    extra: Tensor | None


def split_rows(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches of nearly equal size, at most ``batch_size``, and never of one patient.

    Three patients in batches of two are one batch, since one would be left alone.

    >>> [len(batch) for batch in split_rows(np.arange(33), 16)]
    [11, 11, 11]
    """
    count = -(-len(rows) // batch_size)
    return np.array_split(rows, max(1, min(count, len(rows) // 2)))


def epoch_order(y: np.ndarray, generator: torch.Generator, *, balanced: bool) -> np.ndarray:
    """The rows of an epoch in random order.

    ``balanced``: the outcomes alternate, so that each batch holds both alike; of the rarer one
    patients come several times, of the other some wait for a later epoch.
    """

    def shuffled(rows: np.ndarray) -> np.ndarray:
        return rows[torch.randperm(len(rows), generator=generator).numpy()]

    if not balanced:
        return shuffled(np.arange(len(y)))
    sides = []
    for outcome in (0, 1):
        rows, half = np.flatnonzero(y == outcome), len(y) // 2
        rounds = [shuffled(rows) for _ in range(-(-half // len(rows)))]
        sides.append(np.concatenate(rounds)[:half])
    return np.stack(sides, axis=1).ravel()


class Batches:
    """Hands out batches of `Cases` on a device.

    On a GPU, images that fit are put there once, as float16; else a thread gathers the next batch in
    pinned memory while the network works on this one. On a CPU batches are gathered as they come.
    """

    def __init__(self, cases: Cases, device: torch.device) -> None:
        self.cases, self.device = cases, device
        self.ahead = device.type == "cuda"  # whether a thread gathers while the network works
        self.resident: Tensor | None = None
        if device.type == "cuda" and cases.image is not None:
            free, _ = torch.cuda.mem_get_info(device)
            if cases.image.nbytes <= RESIDENT_SHARE * free:
                self.keep()

    def keep(self) -> None:
        """Put all images on the device, one at a time: no second copy in the CPU's memory."""
        shape = self.cases.image.shape
        self.resident = torch.empty(shape, dtype=torch.float16, device=self.device)
        for row, one in enumerate(self.cases.image):
            self.resident[row] = torch.from_numpy(np.array(one))

    def of(self, batches: Sequence[np.ndarray]) -> Iterator[Batch]:
        """A `Batch` for each set of rows, in order."""
        if not self.ahead:
            yield from (self._sent(self._gathered(rows), rows) for rows in batches)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(self._gathered, batches[0])]
            for number, rows in enumerate(batches):
                waiting += [pool.submit(self._gathered, r) for r in batches[number + 1 :][:1]]
                yield self._sent(waiting.pop(0).result(), rows)

    def _gathered(self, rows: np.ndarray) -> dict[str, Tensor | None]:
        """The arrays of some rows, in pinned memory where they go to a GPU."""
        found = {field.name: None for field in fields(Cases)}
        for name in found:
            source = getattr(self.cases, name)
            if source is None or (name == "image" and self.resident is not None):
                continue
            kind = source.dtype if isinstance(source, np.ndarray) else np.float16
            whole = torch.from_numpy(np.empty(0, kind)).new_empty(
                (len(rows), *source.shape[1:]), pin_memory=self.device.type == "cuda"
            )
            if isinstance(source, np.ndarray):
                np.take(source, rows, axis=0, out=whole.numpy(), mode="clip")
            else:  # images that stay on disk
                whole.copy_(torch.from_numpy(source[rows]))
            found[name] = whole
        return found

    def _sent(self, found: dict[str, Tensor | None], rows: np.ndarray) -> Batch:
        """The gathered tensors on the device, as float32."""
        if self.resident is not None:
            wanted = torch.from_numpy(rows).to(self.device, non_blocking=True)
            found["image"] = self.resident.index_select(0, wanted)
        send = {
            name: None
            if part is None
            else part.to(self.device, non_blocking=True).to(torch.float32)
            for name, part in found.items()
        }
        return Batch(**send)
