"""An epoch of the default encoder against the DAFT papers' own, on the same tensors and machine.

    python benchmarks/epoch.py [OUT.csv]

All networks are DAFT (nf = 4, location 3) on 256 random patients of seven 32×40×32 channels, one
thread, in turn, several rounds. The papers' network is timed as it is (contiguous memory) and in the memory
order that our training uses; the ratio is ours to each, median (min to max).
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd
import torch

from rlvo_lib import storage, training
from rlvo_lib.config import load_settings
from rlvo_lib.fusion import build_model
from rlvo_lib.training import Cases

#: Encoder and whether convolutions run in channels-last order; the first is the default on a CPU.
VARIANTS = (
    ("light", True),
    ("light", False),
    ("daft-resnet", False),
    ("daft-resnet", True),
)


def epoch(encoder: str, channels_last: bool, cases: Cases) -> float:
    """CPU seconds of one epoch of training (and the inner evaluation that ends it)."""
    settings = load_settings(
        "demo", encoder=encoder, channels_last=channels_last, epochs_max=1, device="cpu"
    )
    training.seed_everything(0)
    model = build_model(fusion="daft", encoder=encoder, in_channels=7, n_tabular=30)
    inner = cases.take(np.arange(32))
    begun = time.process_time()
    training.fit(model, cases, inner, settings, seed=0)
    return time.process_time() - begun


def main(out: str = "", rounds: int = 5) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    image = rng.random((256, 7, 32, 40, 32), dtype=np.float32).astype(np.float16)
    cases = Cases(image, rng.normal(size=(256, 30)).astype(np.float32), np.tile([0.0, 1.0], 128))
    taken = np.array([[epoch(*v, cases) for v in VARIANTS] for _ in range(rounds + 1)])[1:]
    rows = []
    for (encoder, last), seconds in zip(VARIANTS, taken.T, strict=True):
        ratio = taken[:, 0] / seconds
        rows.append({
            "encoder": encoder, "memory order": "channels last" if last else "contiguous",
            "CPU s an epoch": np.median(seconds), "lowest": seconds.min(), "highest": seconds.max(),
            "default / this": np.median(ratio), "ratio lowest": ratio.min(), "ratio highest": ratio.max(),
        })  # fmt: skip
    table = pd.DataFrame(rows).round(3)
    print(table.to_string(index=False))
    if out:
        storage.write_csv(out, table)


if __name__ == "__main__":
    main(*sys.argv[1:2])
