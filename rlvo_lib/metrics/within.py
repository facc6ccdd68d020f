"""AUC of the pairs that lie in the same group, such as the held-out fold of one model.

Pooled out-of-fold scores come from several models; pairs across folds also compare how high each model's
scores lie as a whole. Where models learn from few patients that costs pooled AUCs most, and learning curves
look steeper. Here only patients whom the same model scored are compared (fold AUCs, weighted by their pairs).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from rlvo_lib.config import InputError
from rlvo_lib.metrics.checks import Floats, checked_columns
from rlvo_lib.metrics.resampling import Seed, _Ranking, weight_blocks


def auc_within(y_true: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> Floats:
    """``(k,)`` AUCs of the pairs within groups; ties count one half.

    Parameters
    ----------
    scores : ``(n,)`` or ``(n, k)``, a column a score.
    groups : ``(n,)``, or ``(n, k)`` where the columns have groups of their own.

    Raises
    ------
    InputError
        If shapes differ, or no group holds both outcomes.

    Examples
    --------
    >>> auc_within([0, 1, 0, 1], [0.1, 0.2, 0.8, 0.9], [1, 1, 2, 2]).tolist()
    [1.0]
    """
    y, columns = _prepared(y_true, scores, groups)
    return next(_areas(columns, iter([np.ones((y.size, 1))])))[0]


def bootstrap_within(
    y_true: ArrayLike, scores: ArrayLike, groups: ArrayLike, *, n: int = 2000, seed: Seed = 0
) -> Floats:
    """``(n, k)`` of `auc_within` on the stratified resamples that `bootstrap_many` draws with this seed."""
    y, columns = _prepared(y_true, scores, groups)
    blocks = weight_blocks(y, n=n, seed=seed, stratified=True)
    return np.concatenate(list(_areas(columns, blocks)))


Column = list[tuple[np.ndarray, np.ndarray, _Ranking]]  # of each group: patients, outcomes, ranking


def _prepared(
    y_true: ArrayLike, scores: ArrayLike, groups: ArrayLike
) -> tuple[Floats, list[Column]]:
    y, s = checked_columns(y_true, scores)
    g = np.asarray(groups)
    if g.shape not in ((y.size,), s.shape):
        raise InputError(f"groups have shape {g.shape}; allowed: ({y.size},) or {s.shape}")
    g = np.broadcast_to(g[:, None], s.shape) if g.ndim == 1 else g
    columns = []
    for score, group in zip(s.T, g.T, strict=True):
        own = [np.flatnonzero(group == name) for name in np.unique(group)]
        both = [place for place in own if 0 < y[place].sum() < place.size]
        if not both:
            raise InputError("groups: none holds both outcomes, so no pair can be compared")
        columns.append([(place, y[place], _Ranking(y[place], score[place])) for place in both])
    return y, columns


def _areas(columns: list[Column], blocks: Iterator[Floats]) -> Iterator[Floats]:
    """``(resamples, k)`` of each block of counts; NaN where no pair was drawn."""
    for weights in blocks:
        found = np.empty((weights.shape[1], len(columns)))
        for k, column in enumerate(columns):
            wrong, pairs = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
            for place, y, ranking in column:
                own = weights[place]
                events = own[y == 1].sum(axis=0)
                pairs += events * (own.sum(axis=0) - events)
                wrong += ranking.sums(own)[0]
            found[:, k] = 1 - np.divide(
                wrong, pairs, out=np.full_like(wrong, np.nan), where=pairs > 0
            )
        yield found
