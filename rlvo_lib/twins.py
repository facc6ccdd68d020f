"""The same patient under two identifiers: rows of a table with the same, or nearly the same, content.

Content comes as whole numbers (rows, columns): one for each value of a column, -1 where it is missing.
Some columns are evidence: quantities and dates, whose values differ between patients. Of these only
values that are rare in the table count, so that a column of zeros says nothing.

same   all content is the same, and at least `EVIDENCE` rare values are
alike  of at least `COMPARED` columns that both rows have recorded, at most one in ten and at most two
       differ, and at least `EVIDENCE` rare values are the same; and whatever is linked by such pairs

No row is compared with every other: only rows that share three rare values are (`_blocks`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

EVIDENCE = 5  # rare values that two rows must share
COMPARED = 15  # columns that both rows must have recorded to be alike
DIFFERING = 2  # of these, the most that may differ, and ...
SHARE = 10  # ... no more than one in so many
RARE = 20  # a value is rare if at most one in so many distinct rows has it, ...
RARE_IN_FEW = 4  # ... or at most so many rows
BLOCKED = 32  # the most columns that rows are compared by
WINDOW = 8  # rows of a block that each row is compared with
CHUNK = 100_000  # pairs compared at once
FIRST = 12  # columns of a pair that are looked at first: most pairs differ in them already
REMEMBERED = 64  # pairs of each row that are not compared again


def find(codes: np.ndarray, evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers for each row: equal where rows are the same, and where they are the same or alike.

    ``codes`` (rows, columns) holds whole numbers, -1 where a value is missing; ``evidence`` (columns,)
    says which columns are.

    >>> same, alike = find(np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]]), np.full(5, True))
    >>> same.tolist(), alike.tolist()
    ([0, 0, 1], [0, 0, 1])
    """
    if not codes.size:
        return np.arange(len(codes)), np.arange(len(codes))
    distinct, first, unit = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    unit = unit.reshape(-1)
    rare = _rare(distinct, evidence)
    known = rare.sum(axis=1) >= EVIDENCE
    telling = np.argsort(-rare.sum(axis=0), kind="stable")
    distinct, rare = np.ascontiguousarray(distinct[:, telling]), rare[:, telling]
    rows = np.arange(len(codes))
    same = np.where(known[unit], first[unit], rows)
    linked = np.where(known[unit], first[_linked(distinct, rare)][unit], rows)
    return _numbered(same), _numbered(linked)


def _numbered(labels: np.ndarray) -> np.ndarray:
    """The labels as 0, 1, 2 … in the order in which they first stand."""
    _, first, at = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[at]


def _rare(codes: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Whether each value (rows, columns) is evidence, and that of few rows."""
    rare = np.zeros(codes.shape, dtype=bool)
    most = max(RARE_IN_FEW, len(codes) // RARE)
    for column in np.flatnonzero(evidence):
        count = np.bincount(codes[:, column] + 1)
        count[0] = len(codes) + RARE_IN_FEW  # a missing value is none
        rare[:, column] = count[codes[:, column] + 1] <= most
    return rare


def _linked(codes: np.ndarray, rare: np.ndarray) -> np.ndarray:
    """The first row that each of these distinct rows is linked with, by alike pairs."""
    group = np.arange(len(codes))
    pairs = np.empty((0, 2), dtype=np.int64)
    compared = np.full((len(codes), REMEMBERED), -1, dtype=np.int32)
    for candidates in _blocks(codes, rare):
        one, other = candidates.T
        slot = other % REMEMBERED
        new = (group[one] != group[other]) & (compared[one, slot] != other)
        compared[one[new], slot[new]] = other[new]
        found = candidates[new][_alike(codes, rare, candidates[new])]
        if len(found):
            pairs = np.concatenate([pairs, found])
            group = _components(pairs, len(codes))
    return group


def _components(pairs: np.ndarray, n: int) -> np.ndarray:
    """The lowest row of the connected component of each of ``n`` rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label]


def _blocks(codes: np.ndarray, rare: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs (pairs, 2) of rows that share three rare values, for each choice of three columns.

    The columns are dealt into two halves and the three chosen within a half: of any five columns three
    lie in one half, so that two rows that share five rare values meet, whatever else differs. Where
    many rows share three, each meets only the next few, which are the nearest by content since rows are
    sorted: a long run of alike rows is linked by its links.
    """
    columns = [column for column in range(codes.shape[1]) if rare[:, column].sum() > 1][:BLOCKED]
    mark = _marks(codes)
    for half in (columns[::2], columns[1::2]):
        for three in itertools.combinations(half, 3):
            rows = np.flatnonzero(np.logical_and.reduce([rare[:, column] for column in three]))
            yield _neighbours(rows, sum(mark[column][rows] for column in three))


def _marks(codes: np.ndarray) -> np.ndarray:
    """A random number for each value of each column (columns, rows): sums of them tell rows apart.

    Where two sums are equal by chance, two rows are compared in vain.
    """
    rng = np.random.default_rng(0)
    size = int(codes.max()) + 2
    return np.stack(
        [rng.integers(2**62, size=size, dtype=np.uint64)[column + 1] for column in codes.T]
    )


def _neighbours(rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Pairs of rows with one key, of which each comes with the next `WINDOW` of its key."""
    order = np.argsort(key, kind="stable")
    rows, key = rows[order], key[order]
    pairs = []
    for step in range(1, WINDOW + 1):
        one = np.flatnonzero(key[:-step] == key[step:])
        if not len(one):
            break
        pairs.append(np.column_stack([rows[one], rows[one + step]]))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)


def _alike(codes: np.ndarray, rare: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether the two rows of each pair are alike."""
    alike = np.zeros(len(pairs), dtype=bool)
    for begin in range(0, len(pairs), CHUNK):
        chunk = pairs[begin : begin + CHUNK]
        _, differing = _compared(codes[:, :FIRST], *chunk.T)
        near = np.flatnonzero(differing <= DIFFERING)
        one, other = chunk[near].T
        equal, differing = _compared(codes, one, other)
        both = equal.sum(axis=1) + differing
        alike[begin + near] = (
            (both >= COMPARED)
            & (differing <= np.minimum(DIFFERING, both // SHARE))
            & ((equal & rare[one]).sum(axis=1) >= EVIDENCE)
        )
    return alike


def _compared(
    codes: np.ndarray, one: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which recorded values of two rows are equal (pairs, columns), and how many differ (pairs,)."""
    a, b = codes[one], codes[other]
    both = (a >= 0) & (b >= 0)
    equal = both & (a == b)
    return equal, both.sum(axis=1) - equal.sum(axis=1)
