"""What all baselines share: checks of arguments, folds inside the training part, weights by log loss."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_expit, logit

from rlvo_lib.config import InputError

FOLDS = 5
CLIP = 1e-6  # probabilities of 0 and 1 have no logit


def inner_folds(
    y: np.ndarray, *, seed: int, groups: np.ndarray | None = None, folds: int = FOLDS
) -> np.ndarray:
    """The fold (N,) of each patient, 0 … k-1, stratified by outcome; a group is in one fold.

    k is ``folds``, or the number of groups with (or without) an event where that is smaller. Empty
    if k would be below 2.

    >>> inner_folds(np.array([1, 1, 0, 0, 0, 0]), seed=0, folds=5).max()
    np.int64(1)
    """
    from sklearn.model_selection import StratifiedKFold

    own = np.arange(len(y)) if groups is None else np.asarray(groups)
    _, unit = np.unique(own, return_inverse=True)
    event = np.zeros(unit.max() + 1, dtype=int)
    np.maximum.at(event, unit, np.asarray(y).astype(int))
    k = min(folds, event.sum(), (1 - event).sum())
    if k < 2:
        return np.empty(0, dtype=int)
    fold = np.empty(len(event), dtype=int)
    dealt = StratifiedKFold(int(k), shuffle=True, random_state=seed)
    for number, (_, rows) in enumerate(dealt.split(event, event)):
        fold[rows] = number
    return fold[unit]


def log_loss(y: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Sum over patients of the log loss of logits (…, N)."""
    return -(y * log_expit(logits) + (1 - y) * log_expit(-logits)).sum(axis=-1)


def by_loss(total: np.ndarray) -> np.ndarray:
    """Weights, of sum 1, that fall with the total log loss."""
    weights = np.exp(total.min() - total)
    return weights / weights.sum()


def two_columns(logits: np.ndarray) -> np.ndarray:
    return np.column_stack([expit(-logits), expit(logits)])


def as_logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits (N, K) of probabilities, those of 0 and 1 moved inwards by `CLIP`."""
    p = np.asarray(probabilities, float)
    if p.ndim != 2 or not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"probabilities have shape {p.shape}; allowed: (N, K), each in 0 to 1")
    return logit(np.clip(p, CLIP, 1 - CLIP))


def as_matrix(matrix: np.ndarray) -> np.ndarray:
    found = np.asarray(matrix, float)
    if found.ndim != 2 or 0 in found.shape:
        raise InputError(f"matrix has shape {found.shape}; allowed: (N, P), neither of them 0")
    if not np.isfinite(found).all():
        column = int(np.argwhere(~np.isfinite(found))[0, 1])
        raise InputError(f"matrix: column {column} has a value that is not finite")
    return found


def as_finite(name: str, values: np.ndarray, n: int) -> np.ndarray:
    found = np.asarray(values, float)
    if found.shape != (n,) or not np.isfinite(found).all():
        raise InputError(f"{name} has shape {found.shape}; allowed: ({n},), each finite")
    return found


def as_outcome(y: np.ndarray, n: int) -> np.ndarray:
    """The outcome (N,) as floats; InputError if it is not 0 and 1 with both there."""
    found = np.asarray(y, float)
    if found.shape != (n,):
        raise InputError(f"y has shape {found.shape}; allowed: ({n},), one for each patient")
    if set(np.unique(found)) != {0.0, 1.0}:
        raise InputError(
            f"y holds {np.unique(found)[:5].tolist()}; allowed: 0 and 1, with patients of both"
        )
    return found
