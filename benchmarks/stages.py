"""Seconds, memory and disk of each stage of `make reproduce`, from an empty cache.

    make bench            # the demo profile; about 8 minutes on two cores
    python benchmarks/stages.py smoke

The same library calls as in the notebooks, without the notebooks. Memory is the sum over this process
and all it started (pages shared between them are counted once for each).
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path

from rlvo_lib import experiment, explain, results, storage
from rlvo_lib.analysis import embedded_dataset, open_analysis
from rlvo_lib.config import load_settings


class Memory:
    """The largest resident memory (GiB) of this process and its descendants, sampled twice a second."""

    def __init__(self) -> None:
        self.peak, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            self.peak = max(self.peak, sum(_resident_gib(pid) for pid in _family()))

    def stop(self) -> float:
        self._stop.set()
        self._thread.join()
        return self.peak


def _family() -> list[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            )
        except (OSError, IndexError):
            continue
    family = [os.getpid()]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _resident_gib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def main(profile: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(profile, cache=f"{scratch}/cache", out=f"{scratch}/run")
        rows = []

        def timed(name, stage):
            memory, begun = Memory(), time.perf_counter()
            made = stage()
            rows.append((name, time.perf_counter() - begun, memory.stop()))
            print(f"{name}: {rows[-1][1]:.1f} s, {rows[-1][2]:.1f} GiB", file=sys.stderr)
            return made

        timed("simulate", lambda: embedded_dataset(settings))
        analysis = timed("check, label, split", lambda: open_analysis(settings))
        tensors = timed("preprocess", analysis.tensors)
        predictions = timed(
            "train, all arms and folds", lambda: experiment.run_arms(analysis, tensors)
        )
        tasks = experiment.plan(analysis, tensors, [experiment.explained_arm(analysis, tensors)])
        timed("explain: SHAP", lambda: explain.shap_of_folds(analysis, tensors, tasks))
        timed("explain: maps", lambda: explain.saliency_maps(analysis, tensors, tasks[0]))
        thresholds = results.choose_thresholds(predictions)
        timed("performance table", lambda: results.performance(
            predictions, thresholds, settings.study, data=analysis.dataset.kind))  # fmt: skip
        timed(
            "all of it again",
            lambda: experiment.run_arms(open_analysis(settings), analysis.tensors()),
        )
        disk = sum(f.stat().st_size for f in Path(scratch).rglob("*") if f.is_file()) / 2**30
        print(f"\n{profile}, {settings.patients} patients, {settings.workers} workers, "
              f"{platform.machine()}, {os.cpu_count()} processors\n")  # fmt: skip
        print("| stage | seconds | peak resident, all processes (GiB) |\n| --- | --- | --- |")
        for name, seconds, peak in rows:
            print(f"| {name} | {seconds:.1f} | {peak:.1f} |")
        print(f"\ndisk: {disk:.2f} GiB; predictions.csv: {storage.key(predictions.to_csv())}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
