"""An epoch of the default encoder against the DAFT papers' own, on the same tensors and machine.

    python benchmarks/epoch.py

Both networks are DAFT (nf = 4, location 3) on 256 random patients of seven 32×40×32 channels, one
thread, the two in turn; printed are the seconds of each and the ratio, median (min to max).
"""

from __future__ import annotations

import time

import numpy as np
import torch

from rlvo_lib import training
from rlvo_lib.config import load_settings
from rlvo_lib.fusion import build_model
from rlvo_lib.training import Cases


def epoch(encoder: str, cases: Cases) -> float:
    """Seconds of one epoch of training (and the inner evaluation that ends it)."""
    settings = load_settings("demo", encoder=encoder, epochs_max=1, device="cpu")
    training.seed_everything(0)
    model = build_model(fusion="daft", encoder=encoder, in_channels=7, n_tabular=30)
    inner = cases.take(np.arange(32))
    begun = time.perf_counter()
    training.fit(model, cases, inner, settings, seed=0)
    return time.perf_counter() - begun


def main(repeats: int = 5) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    image = rng.random((256, 7, 32, 40, 32), dtype=np.float32).astype(np.float16)
    cases = Cases(image, rng.normal(size=(256, 30)).astype(np.float32), np.tile([0.0, 1.0], 128))
    pairs = np.array(
        [[epoch(name, cases) for name in ("light", "daft-resnet")] for _ in range(repeats + 1)]
    )
    light, published = pairs[1:].T  # the first pair warms up
    for name, values in (
        ("light", light),
        ("daft-resnet", published),
        ("ratio", light / published),
    ):
        print(f"{name}: {np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})")


if __name__ == "__main__":
    main()
