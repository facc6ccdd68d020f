"""The same patient twice: by identifier, by content (`rlvo_lib.twins`), by scan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import dataset, storage, twins
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.validation.faults import Fault, Patients, listed

ONCE = "each patient once"
#: More patients than this with one scan time: the time says little, and all quantities must agree.
CROWD = 20


def identifier_faults(ids: pd.Series) -> Iterator[Fault]:
    """Identifiers that stand in more than one row."""
    doubled = ids[ids.duplicated(keep=False)]
    for name, rows in doubled.groupby(doubled, sort=False):
        lines = listed([str(line) for line in rows.index])
        yield Fault("error", name, "participant_id", name, ONCE,
                    f"stands in {len(rows)} rows: lines {lines}")  # fmt: skip


def content_faults(people: Patients, words: Dictionary) -> Iterator[Fault]:
    """Rows of two identifiers with the same or nearly the same content, or with the same scan time."""
    ids, same, lines = people.ids.to_numpy(), people.same.to_numpy(), people.ids.index
    doubled = np.flatnonzero(people.content.duplicated(keep=False))
    for rows in _in_groups(doubled, people.content.to_numpy()[doubled]):
        seen: dict[int, int] = {}
        for row in rows:
            first = seen.setdefault(same[row], row)
            severity = "error"
            if first == row:
                severity, first = "warning", rows[0]
            if ids[row] == ids[first]:
                continue
            where = f"{ids[first]} (lines {lines[first]} and {lines[row]})"
            message = f"the same content as {where}"
            if severity == "warning":
                message = f"nearly {message}{_what_differs(people, first, row)}"
            yield Fault(severity, ids[row], dataset.TABLE, ids[first], ONCE, message)
    yield from _near_faults(people, words)


def _in_groups(rows: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    """The rows of each group, in their order."""
    order = np.argsort(group, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(group[order])) + 1)


def _what_differs(people: Patients, first: int, row: int) -> str:
    """How two rows that are nearly the same differ, and what becomes of it."""
    one, other = people.codes.to_numpy()[[first, row]]
    both = (one >= 0) & (other >= 0)
    names = list(people.codes.columns[both & (one != other)])
    what = f"; of {both.sum()} columns that both have, {listed(names)} differ" if names else ""
    return f"{what}; a split keeps them on one side"


def _near_faults(people: Patients, words: Dictionary) -> Iterator[Fault]:
    """Patients with the same dates known before treatment and at least five quantities alike."""
    known = [words[name] for name in people.values.columns]
    dates = [f for f in known if f.type == "datetime" and f.timing in ("ID", "PRE")]
    quantities = [f for f in known if f.is_quantity and f.timing == "PRE"]
    if not dates or len(quantities) < twins.EVIDENCE:
        return
    when = np.column_stack([dataset.value_codes(people.clean[f.name], f) for f in dates])
    codes = np.column_stack([dataset.value_codes(people.clean[f.name], f) for f in quantities])
    dated = np.flatnonzero((when >= 0).all(axis=1))
    moments = pd.DataFrame(when[dated]).groupby(list(range(len(dates)))).ngroup().to_numpy()
    names = ", ".join(f.name for f in dates)
    for a, b in _alike(dated, moments, codes):
        first, line = people.raw.index[a], people.raw.index[b]
        if people.ids[line] == people.ids[first] or people.content[line] == people.content[first]:
            continue
        same = [f.name for f, s in zip(quantities, codes[a] == codes[b], strict=True) if s]
        yield Fault(
            "warning", people.ids[line], dataset.TABLE, people.ids[first], ONCE,
            f"the same {names} as {people.ids[first]} (lines {first} and {line}), "
            f"and the same {listed(same)}",
        )  # fmt: skip


def _alike(rows: np.ndarray, moments: np.ndarray, codes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Each row with an earlier one of the same moment that shares at least five recorded quantities."""
    for members in _in_groups(rows, moments):
        if len(members) > CROWD:
            yield from _alike_in_crowd(members, codes)
            continue
        for at, row in enumerate(members[1:], start=1):
            shared = ((codes[members[:at]] == codes[row]) & (codes[row] >= 0)).sum(axis=1)
            if shared.max() >= twins.EVIDENCE:
                yield members[shared.argmax()], row


def _alike_in_crowd(members: np.ndarray, codes: np.ndarray) -> Iterator[tuple[int, int]]:
    """The same where very many share a moment, without comparing each with each: all must agree."""
    seen: dict[bytes, int] = {}
    for row in members:
        if (codes[row] >= 0).sum() >= twins.EVIDENCE:
            first = seen.setdefault(codes[row].tobytes(), row)
            if first != row:
                yield first, row


def scan_faults(files: list[tuple[str, Path]], root: Path) -> Iterator[Fault]:
    """Scans of two patients that are the same to the byte; only files of one size are read."""
    by_size = defaultdict(list)
    for patient, path in files:
        by_size[path.stat().st_size].append((patient, path))
    for candidates in by_size.values():
        if len({patient for patient, _ in candidates}) < 2:
            continue
        first: dict[str, tuple[str, Path]] = {}
        for patient, path in candidates:
            other, twin = first.setdefault(storage.digest(path), (patient, path))
            if other != patient:
                yield Fault(
                    "error", patient, path.relative_to(root).as_posix(), other,
                    "each scan of one patient",
                    f"the same file, to the byte, as {twin.relative_to(root).as_posix()}",
                )  # fmt: skip
