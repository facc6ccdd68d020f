"""Explanations kept on disk, and found again while nothing that they depend on has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import storage
from rlvo_lib.analysis import Analysis


def path(analysis: Analysis, name: str, depends_on: Any, suffix: str) -> Path:
    """Where a kept explanation lies: ``name`` and a key of what it depends on and of this package."""
    key = storage.key(depends_on, storage.code_key("explain"))
    return analysis.settings.cache / "explanations" / f"{name}-{key}{suffix}"


def kept_table(
    analysis: Analysis, name: str, depends_on: Any, make: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """A table, made where it is not there yet; always read back from its file."""
    place = path(analysis, name, depends_on, ".csv")
    with storage.lock(place):
        if not place.exists():
            storage.write_csv(place, make())
    return storage.read_csv(place)


def kept_array(
    analysis: Analysis, name: str, depends_on: Any, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """An array, made where it is not there yet; always read back from its file."""
    place = path(analysis, name, depends_on, ".npy")
    with storage.lock(place):
        if not place.exists():
            storage.write_array(place, make())
    return np.load(place)
