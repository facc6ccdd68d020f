"""All faults of a dataset folder at once: which patient, which column or file, what is allowed.

Faults are a tidy table: severity (``error``, ``warning``), participant_id, where (a column or a file),
value, allowed, message. An error stops an analysis; a warning asks a person to look. `docs/validation.md`
lists every check.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlvo_lib import dataset
from rlvo_lib.config import InputError, Study
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.validation import duplicates, relations, scans, split, table, units
from rlvo_lib.validation.faults import Fault, Patients, patients, spelled
from rlvo_lib.validation.screen import show

__all__ = ["FAULT_COLUMNS", "require_valid", "show", "validate"]

FAULT_COLUMNS = list(Fault._fields)


def validate(
    root: str | Path, study: Study, words: Dictionary, *, read_scans: bool = False
) -> pd.DataFrame:
    """Every fault of the dataset folder ``root``, always in the same order; empty if there is none.

    Of the scans the headers are checked, or with ``read_scans`` every voxel.

    Raises
    ------
    InputError
        If the folder, its description or its table cannot be read at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"dataset folder {root} does not exist")
    description = dataset.read_description(root)
    written = dataset.read_table(root)
    ids, raw = written.rows["participant_id"], written.rows.drop(columns="participant_id")
    faults = [*table.ragged_faults(written), *table.column_faults(raw, study, words)]
    if len(raw):
        value_faults, clean = table.value_faults(raw, ids, words)
        people = patients(ids, raw, clean, words)
        faults += [
            *table.identifier_faults(ids),
            *value_faults,
            *table.empty_faults(raw, study, words),
            *table.formula_faults(raw, ids, words),
            *units.column_faults(people, words),
            *_relation_faults(people, study, words),
            *duplicates.identifier_faults(ids),
            *duplicates.content_faults(people, words),
        ]
    faults += scans.scan_faults(root, ids, study, read_scans)
    faults += scans.exclusion_faults(root, ids, study)
    if len(raw):
        in_order = not any(fault.severity == "error" for fault in faults)
        faults += split.cohort_faults(root, description, people, study, words, clean=in_order)
    return pd.DataFrame([spelled(fault) for fault in faults], columns=FAULT_COLUMNS)


def _relation_faults(people: Patients, study: Study, words: Dictionary) -> list[Fault]:
    return [
        *relations.order_faults(people, study, words),
        *relations.ratio_faults(people, words),
        *relations.applicability_faults(people, study),
        *relations.outcome_faults(people, study),
        *relations.consistency_faults(people, study, words),
    ]


def require_valid(root: str | Path, study: Study, words: Dictionary) -> None:
    """Raise an `InputError` that names the first error of a dataset, and how many there are."""
    faults = validate(root, study, words)
    errors = faults[faults["severity"] == "error"]
    if len(errors):
        first = errors.iloc[0]
        patient = f"patient '{first.participant_id}', " if first.participant_id else ""
        raise InputError(
            f"{root}: {patient}{first['where']}: {first.message}; allowed: {first.allowed} "
            f"({len(errors)} errors in all: `rlvo validate` lists them)"
        )
