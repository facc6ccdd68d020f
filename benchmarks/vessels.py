"""Vessel enhancement against scikit-image's `frangi`: seconds and memory on the same crop and scales.

    python benchmarks/vessels.py            # prints a table; about two minutes

A 256 x 256 x 200 crop of 0.6 mm with brain, noise and a few hundred tubes, each measured in a process of
its own with one thread: processor seconds of the call, and the largest resident memory above what the process
held before it. `rlvo` is what the package calls (`vessels.vesselness.tubeness` on voxels 15 HU above brain
after smoothing, which is timed too); `frangi` is called with the same scales, bright ridges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

SHAPE, SPACING_MM = (256, 256, 200), 0.6
SCALES_MM = (0.9, 1.3)
ALL_SCALES_MM = (0.6, 0.9, 1.4, 2.0)
TUBES, NOISE_HU = 300, 18.0
REPEATS = 3


def crop(seed: int = 0) -> np.ndarray:
    """(256, 256, 200) float32 HU: brain of 35 HU, tubes of 0.5 to 2.5 mm at 150 to 400 HU, noise of SD 18."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    hu = np.full(SHAPE, 35.0, np.float32)
    for _ in range(TUBES):
        start, way = rng.uniform(0, SHAPE), rng.normal(size=3)
        way /= np.linalg.norm(way)
        radius, contrast = rng.uniform(0.5, 2.5) / SPACING_MM, rng.uniform(150, 400)
        reach = int(np.ceil(radius))
        ball = np.argwhere(np.ones((2 * reach + 1,) * 3)) - reach
        ball = ball[np.linalg.norm(ball, axis=1) <= radius]
        course = start + np.arange(0, rng.uniform(20, 80))[:, None] * way
        places = (np.rint(course)[:, None] + ball).reshape(-1, 3).astype(int)
        inside = ((places >= 0) & (places < SHAPE)).all(axis=1)
        hu[tuple(places[inside].T)] = contrast
    hu = ndimage.gaussian_filter(hu, 0.5 / SPACING_MM)
    return hu + rng.normal(0, NOISE_HU, SHAPE).astype(np.float32)


def ours(hu: np.ndarray, scales_mm: tuple[float, ...]) -> float:
    """The package's vesselness; returns the share of voxels it was computed at."""
    from scipy import ndimage

    from rlvo_lib.vessels.vesselness import tubeness

    smooth = ndimage.gaussian_filter(hu, 0.6 / SPACING_MM, truncate=3.0)
    where = smooth > 35 + 15
    tubeness(hu, where, np.full(3, SPACING_MM), scales_mm)
    return float(where.mean())


def frangi(hu: np.ndarray, scales_mm: tuple[float, ...]) -> float:
    """scikit-image's filter over the same scales."""
    from skimage.filters import frangi as filter_frangi

    filter_frangi(hu, sigmas=[s / SPACING_MM for s in scales_mm], black_ridges=False)
    return 1.0


def measure(name: str, scales_mm: tuple[float, ...]) -> dict[str, float]:
    """CPU seconds and peak memory (MiB above the start) of one call, in this process."""
    import time
    from pathlib import Path

    import torch

    torch.set_num_threads(1)
    hu = crop()
    call = {"rlvo": ours, "frangi": frangi}[name]
    call(hu[:20, :20, :20].copy(), scales_mm)  # imports are not timed
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from here
    held = _kib("VmRSS")
    begun = time.process_time()
    share = call(hu, scales_mm)
    seconds = time.process_time() - begun
    return {"seconds": seconds, "mib": (_kib("VmHWM") - held) / 1024, "voxels": share}


def _kib(name: str) -> int:
    """A figure of this process's memory, KiB."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))


def compare(repeats: int = REPEATS):
    """Tidy table: scales, method, seconds (median), mib, ratios of `frangi` to `rlvo`."""
    import pandas as pd

    rows = []
    for scales in (SCALES_MM, ALL_SCALES_MM):
        for _ in range(repeats):
            for name in ("rlvo", "frangi"):
                rows.append({"scales_mm": str(scales), "method": name, **_apart(name, scales)})
    table = pd.DataFrame(rows).groupby(["scales_mm", "method"], sort=False).median().reset_index()
    peer = table[table["method"] == "frangi"].set_index("scales_mm")
    for column in ("seconds", "mib"):
        table[f"frangi_over_this_{column}"] = table["scales_mm"].map(peer[column]) / table[column]
    return table.round(2)


def _apart(name: str, scales: tuple[float, ...]) -> dict[str, float]:
    """`measure` in a fresh process with one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, "1")
    ran = subprocess.run(
        [sys.executable, __file__, name, json.dumps(scales)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(ran.stdout)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], tuple(json.loads(sys.argv[2])))))
    else:
        print(compare().to_string(index=False))
