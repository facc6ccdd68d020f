"""Seconds and memory of the statistics, the bootstrap beside a plain scikit-learn loop.

    python benchmarks/evaluation.py [OUT.csv]     # about a minute on two cores

The loop draws the same resamples, repeats the patients and calls scikit-learn's four functions for each
score; it runs on `PEER` resamples, in turn with ours, and is scaled to all. Values of both are compared.
Memory is what the process's peak grew by. Not named statistics.py: that would hide Python's own module
from the other scripts of this folder.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from rlvo_lib import metrics

STATISTICS = ("auc", "average_precision", "f1", "brier")
RESAMPLES, PEER, PAIRS = 10_000, 20, 5
PATIENTS, EVENTS, ARMS, THRESHOLD = 599, 77, 12, 0.15
MANY = 100_000


def cohort(n: int, events: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(n,)`` and ``k`` probabilities each, of AUC about 0.7."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) < events).astype(int)
    return y, 1 / (1 + np.exp(2 - 0.74 * y[:, None] - rng.normal(size=(n, k))))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def scikit_learn(y: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``(resamples, scores, 4)``: `STATISTICS` by a plain loop."""
    values = np.empty((len(counts), scores.shape[1], len(STATISTICS)))
    for row, drawn in enumerate(counts):
        chosen = np.repeat(np.arange(y.size), drawn)
        labels = y[chosen]
        for k in range(scores.shape[1]):
            p = scores[chosen, k]
            values[row, k] = (
                sk.roc_auc_score(labels, p),
                sk.average_precision_score(labels, p),
                sk.f1_score(labels, p >= THRESHOLD),
                sk.brier_score_loss(labels, p),
            )
    return values


def bootstrap() -> list[dict]:
    """Ours and the loop in turn, `PAIRS` times."""
    y, scores = cohort(PATIENTS, EVENTS, ARMS)
    settings = dict(thresholds=np.full(ARMS, THRESHOLD), seed=1)
    blocks = metrics.resampling.weight_blocks(y.astype(float), n=PEER, seed=1, stratified=True)
    counts = next(blocks).T.astype(int)
    found = metrics.bootstrap_many(y, scores, STATISTICS, n=PEER, **settings)
    apart = np.stack([found[name] for name in STATISTICS], axis=2) - scikit_learn(y, scores, counts)
    ours, peer = [], []
    for _ in range(PAIRS):
        ours += [
            seconds(lambda: metrics.bootstrap_many(y, scores, STATISTICS, n=RESAMPLES, **settings))
        ]
        peer += [seconds(lambda: scikit_learn(y, scores, counts)) * RESAMPLES / PEER]
    ratios = np.divide(peer, ours)
    what = f"{RESAMPLES} stratified resamples, {ARMS} scores, {PATIENTS} patients: "
    what += ", ".join(STATISTICS)
    loop = {
        "what": f"the same by scikit-learn, scaled from {PEER} resamples",
        "seconds": np.median(peer),
        "over_ours": np.median(ratios),
        "over_ours_low": ratios.min(),
        "over_ours_high": ratios.max(),
        "over_ours_at_least": 50,
        "largest_difference": np.abs(apart).max(),
    }
    return [{"what": what, "seconds": np.median(ours), "at_most": 5}, loop]


def many_patients() -> list[dict]:
    """DeLong and the bootstrap of a large cohort."""
    y, scores = cohort(MANY, 13_000, 10)
    before = peak_mb()
    taken = seconds(
        lambda: metrics.bootstrap_many(y, scores[:, 0], STATISTICS, thresholds=THRESHOLD, n=2000)
    )
    grown = peak_mb() - before
    delong = np.median(
        [seconds(lambda: metrics.delong_covariance(y, scores)) for _ in range(PAIRS)]
    )
    return [
        {
            "what": f"2000 stratified resamples, 1 score, {MANY} patients",
            "seconds": taken,
            "mb": grown,
            "mb_at_most": 300,
        },
        {"what": f"DeLong covariance, 10 scores, {MANY} patients", "seconds": delong, "at_most": 2},
    ]


def main(out: Path | None) -> None:
    columns = [
        "what", "seconds", "at_most", "mb", "mb_at_most", "over_ours", "over_ours_low",
        "over_ours_high", "over_ours_at_least", "largest_difference",
    ]  # fmt: skip
    table = pd.DataFrame(many_patients() + bootstrap(), columns=columns)
    digits = dict.fromkeys(("seconds", "mb"), 2) | {name: 0 for name in columns if "over" in name}
    table = table.round(digits)
    table["machine"] = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    print(table.to_string(index=False))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
