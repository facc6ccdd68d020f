"""Independent tasks in fresh processes of one thread each.

One thread a process keeps sums in one order, so that results do not depend on how many processes
run beside each other, and the processors are not oversubscribed.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from rlvo_lib import progress

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    *,
    workers: int,
    label: str,
    titles: Sequence[str] = (),
    spawn_from: int = 1,
) -> list[Any]:
    """``[function(*task) for task in tasks]`` by ``workers`` processes, with progress.

    Fewer than ``spawn_from`` tasks are done in this process: a new one costs about a second. The
    first error ends the run; tasks that are waiting are dropped. ``titles`` name the tasks in the
    progress display.
    """
    if len(tasks) < spawn_from:
        return [function(*task) for task in progress.track(tasks, label=label)]
    with _one_thread(), _pool(min(workers, len(tasks))) as pool:
        futures = {pool.submit(function, *task): number for number, task in enumerate(tasks)}
        results = [None] * len(tasks)
        finished = progress.track(
            as_completed(futures),
            total=len(tasks),
            label=label,
            describe=lambda future: titles[futures[future]] if titles else "",
        )
        try:
            for future in finished:
                results[futures[future]] = future.result()
        finally:
            for future in futures:
                future.cancel()
    return results


_kept: list[ProcessPoolExecutor] = []


@contextmanager
def kept(workers: int) -> Iterator[None]:
    """Processes that every `run` inside uses, one after the other: short stages start no new ones.

    In a notebook, where a block cannot span cells, enter it by `keep` and leave it by `release`.
    """
    keep(workers)
    try:
        yield
    finally:
        release()


def keep(workers: int) -> None:
    """Start processes for every `run` that follows, whatever number it asks for, until `release`."""
    release()
    _kept.append(ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")))


def release() -> None:
    """End the processes that `keep` started, if there are any."""
    while _kept:
        _kept.pop().shutdown(cancel_futures=True)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """The kept processes, or fresh ones that end with the run."""
    if _kept:
        yield _kept[-1]
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that start now have one thread each for OpenMP and linear algebra."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
