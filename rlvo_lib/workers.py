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
    with _pool(min(workers, len(tasks))) as pool:
        futures = {pool.submit(function, *task): number for number, task in enumerate(tasks)}
        results = [None] * len(tasks)
        finished = progress.track(
            as_completed(futures),
            total=len(tasks),
            label=label,
            describe=lambda future: titles[futures[future]] if titles else "",
        )
        for future in finished:
            results[futures[future]] = future.result()
    return results


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes with one thread each for OpenMP and linear algebra."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
