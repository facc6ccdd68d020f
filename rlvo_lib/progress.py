"""Progress of long work: a bar on the error stream, and a file that `rlvo reproduce` follows.

Bars are silent when the environment has ``TQDM_DISABLE=1``. When ``RLVO_PROGRESS`` names a file,
each step is also written there, so that the command that runs the notebooks can show it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(
    items: Iterable[Item],
    *,
    total: int | None = None,
    label: str = "",
    describe: Callable[[Item], str] = lambda item: "",
) -> Iterator[Item]:
    """Yield ``items`` unchanged while showing how many of ``total`` are done and the time left.

    ``describe`` says in words which item was just finished.

    >>> list(track([1, 2, 3], label="patients"))
    [1, 2, 3]
    """
    from tqdm import tqdm

    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    begun = time.monotonic()
    disable = True if os.environ.get("RLVO_PROGRESS") else None
    for done, item in enumerate(tqdm(items, total=total, desc=label, disable=disable), start=1):
        yield item
        report(label, done, total, time.monotonic() - begun, describe(item))


def report(label: str, done: int, total: int | None, elapsed_s: float, detail: str = "") -> None:
    """Append one step to the progress file, if one was asked for."""
    path = os.environ.get("RLVO_PROGRESS")
    if not path:
        return
    left_s = elapsed_s / done * (total - done) if total and done else None
    step = {"label": label, "done": done, "total": total, "left_s": left_s, "detail": detail}
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(step) + "\n")
