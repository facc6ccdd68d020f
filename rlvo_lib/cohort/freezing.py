"""A run's cohort and split are written once: ``cohort.csv``, ``split.csv``, ``split.json``.

``split.json`` holds their fingerprints, how the split came about (`plan`) and of which dataset it is.
Only what was made of the embedded cohort, which can be made again, may be replaced.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import storage
from rlvo_lib.cohort.eligibility import read_frame
from rlvo_lib.cohort.split import read_split
from rlvo_lib.config import InputError

RECORD = "split.json"
FILES = ("cohort.csv", "split.csv")
SHOWN = 5  # differences named when a changed dataset is refused


def freeze_split(
    frame: pd.DataFrame,
    split: pd.DataFrame,
    run: Path,
    *,
    plan: dict[str, Any],
    dataset: dict[str, Any],
) -> None:
    """Write cohort, split and their record into a run folder, or check that it holds the same.

    Parameters
    ----------
    plan : how the split came about: outcome definition, seed, design.
    dataset : ``name``, ``simulated`` and ``embedded`` (simulated by the package itself), and
        ``exclusions`` (`Exclusions.fingerprint`) if there are some.

    Raises
    ------
    InputError
        If the folder holds another cohort or split that may not be replaced, naming what differs: the
        dataset, the plan, patients, columns, values. Or if one of the three files is missing, was
        changed by hand, or cannot be read.
    """
    kept = read_record(run)
    if kept and not kept["dataset"]["embedded"]:
        _refuse_edited(run, kept)
        difference = _difference(run, kept, frame, split, plan, dataset)
        if difference:
            raise InputError(
                f"{run / 'split.csv'}: the split is frozen, and {difference}; give another --out for "
                "a new run"
            )
        return
    for name, table in zip(FILES, (frame, split), strict=True):
        storage.write_csv(run / name, table)
    fingerprints = {name: storage.digest(run / name) for name in FILES}
    storage.write_json(
        run / RECORD,
        {"sha256": fingerprints, "patients": len(split), "plan": plan, "dataset": dataset},
    )


def read_record(run: str | Path) -> dict[str, Any]:
    """``split.json`` of a run folder, or nothing if no cohort was written there.

    Raises
    ------
    InputError
        If it is missing although a cohort or split is there, or cannot be read.
    """
    path = Path(run) / RECORD
    if not path.exists():
        there = [name for name in FILES if (Path(run) / name).exists()]
        if there:
            raise InputError(
                f"{path}: is missing, although {there[0]} is there; allowed: both, or another --out "
                "for a new run"
            )
        return {}
    try:
        kept = storage.read_json(path)
        complete = set(kept["sha256"]) == set(FILES) and "embedded" in kept["dataset"]
        if not complete or not isinstance(kept["plan"], dict):
            raise KeyError("entries")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not readable ({type(error).__name__}); allowed: as it was written, or another "
            "--out for a new run"
        ) from error
    return kept


def refuse_embedded_over(run: Path) -> None:
    """Raise if a run folder holds another dataset's run, before the embedded cohort is put there."""
    kept = read_record(run)
    if kept and not kept["dataset"]["embedded"]:
        raise InputError(
            f"{run}: holds the run of dataset '{kept['dataset']['name']}'; give another --out for the "
            "embedded cohort"
        )


def frozen_files(run: str | Path) -> list[tuple[str, str, str]]:
    """Each frozen file with its digest as recorded and as it is now ("missing" if it is gone)."""
    kept = read_record(run)
    return [
        (name, recorded, storage.digest(path) if (path := Path(run) / name).exists() else "missing")
        for name, recorded in (kept["sha256"] if kept else {}).items()
    ]


def _refuse_edited(run: Path, kept: dict[str, Any]) -> None:
    for name, recorded, now in frozen_files(run):
        if recorded != now:
            raise InputError(
                f"{run / name}: the split is frozen, and this file was changed or deleted by hand; "
                "allowed: as it was written, or another --out for a new run"
            )


def _difference(
    run: Path,
    kept: dict[str, Any],
    frame: pd.DataFrame,
    split: pd.DataFrame,
    plan: dict[str, Any],
    dataset: dict[str, Any],
) -> str:
    """What differs from what the run was made with, in words; empty if nothing does."""
    for what, before, now in (
        ("dataset", kept["dataset"], dataset),
        ("plan", kept["plan"], _as_json(plan)),
    ):
        for name in dict.fromkeys([*before, *now]):
            if name != "exclusions" and before.get(name) != now.get(name):
                return f"the {what} is another: {name} was {before.get(name)!r} and is {now.get(name)!r}"
    if kept["dataset"].get("exclusions", "") != dataset.get("exclusions", ""):
        return _of_exclusions(kept["dataset"], dataset, read_frame(run), _as_read(frame))
    changes = _changes(read_frame(run), _as_read(frame))
    if changes:
        more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        return f"the dataset changed since ({', '.join(changes[:SHOWN])}{more})"
    if not read_split(run / "split.csv").equals(_as_read(split)):
        return "it is drawn otherwise now (same patients, other assignment)"
    return ""


def _of_exclusions(
    before: dict[str, Any], now: dict[str, Any], kept: pd.DataFrame, new: pd.DataFrame
) -> str:
    """How exclusions.csv differs, whose inclusion that changes, and what else than a new run helps."""
    what, help_ = "changed since", "put the former one back"
    if not before.get("exclusions"):
        what, help_ = "is new", "take it away"
    elif not now.get("exclusions"):
        what = "is gone or empty"
    one, two = (f.set_index("participant_id")["included"] for f in (kept, new))
    both = one.index.intersection(two.index)
    other = [repr(p) for p in both[one[both] != two[both]]]
    more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    whom = f" (in or out now: {', '.join(other[:SHOWN])}{more})" if other else ""
    return f"the dataset's exclusions.csv {what}{whom}; {help_} to go on with this run"


def _changes(kept: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    """Patients, columns, then values that differ between two cohort frames."""
    kept, new = kept.set_index("participant_id"), new.set_index("participant_id")
    gone, added = kept.index.difference(new.index), new.index.difference(kept.index)
    changes = [f"'{p}' is gone" for p in gone] + [f"'{p}' is new" for p in added]
    columns = kept.columns.symmetric_difference(new.columns)
    changes += [f"column '{c}' is {'gone' if c in kept else 'new'}" for c in columns]
    if changes:
        return changes
    new = new.loc[kept.index, kept.columns]
    return [
        f"'{kept.index[row]}' {kept.columns[column]}: '{kept.iat[row, column]}' became "
        f"'{new.iat[row, column]}'"
        for row, column in np.argwhere((kept != new).to_numpy())
    ]


def _as_json(content: dict[str, Any]) -> dict[str, Any]:
    """A record as it reads back once it is written: tuples as lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in content.items()}


def _as_read(table: pd.DataFrame) -> pd.DataFrame:
    """A table as it reads back once it is written."""
    text = io.StringIO(storage.csv_text(table))
    return pd.read_csv(text, dtype=str, keep_default_na=False)
