"""All faults of a dataset folder at once: which patient, which column or file, what is allowed.

Faults are a tidy table: severity (``error``, ``warning``), participant_id, where (a column or a file),
value, allowed, message. An error stops an analysis; a warning asks a person to look.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pandas as pd

from rlvo_lib import cohort, dataset, dictionary, images, progress
from rlvo_lib.config import InputError, Study
from rlvo_lib.dictionary import Dictionary, Field

FAULT_COLUMNS = ["severity", "participant_id", "where", "value", "allowed", "message"]
IDENTIFIER = re.compile(r"sub-[A-Za-z0-9]+")
MAX_TABLE_BYTES = 200_000_000


def validate(
    root: str | Path, study: Study, words: Dictionary, *, read_scans: bool = False
) -> pd.DataFrame:
    """Every fault of the dataset folder ``root``; an empty frame if there is none.

    Of the scans the headers are checked, or with ``read_scans`` every voxel.

    Raises
    ------
    InputError
        If the folder, its description or its table cannot be read at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"dataset folder {root} does not exist")
    table_file = root / "participants.tsv"
    if table_file.exists() and table_file.stat().st_size > MAX_TABLE_BYTES:
        raise InputError(
            f"{table_file}: over {MAX_TABLE_BYTES // 1_000_000} MB, too large for a table"
        )
    dataset.read_description(root)
    raw = dataset.read_participants(root)
    faults = [
        *_column_faults(raw, study, words),
        *_identifier_faults(raw),
        *_value_faults(raw, words),
        *_order_faults(raw, study, words),
        *_scan_faults(root, raw, read_scans),
    ]
    if not any(fault[0] == "error" for fault in faults):
        faults += _cohort_faults(root, study, words)
    return pd.DataFrame(faults, columns=FAULT_COLUMNS)


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


def _column_faults(raw: pd.DataFrame, study: Study, words: Dictionary) -> list[tuple]:
    sources = [rule.column for rule in (*study.criteria, *study.eligibility) if rule.column]
    predictors = [column for group in study.predictors.values() for column in group]
    needed = {column for arm in study.arms.values() for column in study.columns_of(arm)}
    faults = []
    for column in dict.fromkeys(sources):
        if column not in raw:
            faults.append(
                ("error", "", column, "", "a column of this name",
                 f"column '{column}' is missing; the outcome or the eligibility is derived from it")
            )  # fmt: skip
    for column in dict.fromkeys(predictors):
        if column not in raw and column not in sources:
            severity = "error" if column in needed else "warning"
            faults.append((severity, "", column, "", "a column of this name",
                           f"predictor column '{column}' is missing"))  # fmt: skip
    for column in raw.columns:
        if column not in words:
            faults.append(("warning", "", column, "", "the columns of data_dictionary.md",
                           f"column '{column}' is not in the data dictionary and is not used"))  # fmt: skip
    return faults


def _identifier_faults(raw: pd.DataFrame) -> list[tuple]:
    return [
        (
            "error",
            name,
            "participant_id",
            name,
            "sub- and letters or digits",
            "not a BIDS identifier",
        )
        for name in raw.index
        if not IDENTIFIER.fullmatch(name)
    ]


def _value_faults(raw: pd.DataFrame, words: Dictionary) -> list[tuple]:
    """Types, choices, ranges and missing codes, by a pandera schema made from the dictionary."""
    import pandera.pandas as pa

    known = [column for column in raw.columns if column in words]
    schema = pa.DataFrameSchema(
        {column: pa.Column(checks=_check(words[column])) for column in known}, strict=False
    )
    try:
        schema.validate(raw[known], lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        return [
            ("error", case.index, case.column, str(case.failure_case), _allowed(words[case.column]),
             f"{words[case.column].label}: {case.failure_case!r} is not allowed")
            for case in cases.itertuples(index=False)
        ]  # fmt: skip
    return []


def _check(field: Field):
    import pandera.pandas as pa

    def is_allowed(text: pd.Series) -> pd.Series:
        value, code = text.str.strip(), dataset.missing_codes(text)
        missing = code.isin([*field.missing]) | (
            value.isin(list(dataset.MISSING_TOKENS)) & (not field.required)
        )
        return missing | ((code == "") & _valid(field, value))

    return pa.Check(is_allowed, name=field.name)


def _valid(field: Field, value: pd.Series) -> pd.Series:
    """Whether each present value (text) is what the field allows."""
    if field.is_categorical:
        return value.isin(list(field.choices))
    if field.type == "datetime":
        return pd.to_datetime(value, format="ISO8601", errors="coerce").notna()
    if not field.is_quantity:
        return pd.Series(True, index=value.index)
    number = pd.to_numeric(value, errors="coerce")
    low = float("-inf") if field.low is None else field.low
    high = float("inf") if field.high is None else field.high
    good = number.between(low, high)
    return good & (number == number.round()) if field.type == "integer" else good


def _allowed(field: Field) -> str:
    codes = [f"{code} ({dictionary.MISSING_REASONS[code]})" for code in field.missing]
    return "; ".join([field.allowed, *(["missing: " + ", ".join(codes)] if codes else [])])


def _order_faults(raw: pd.DataFrame, study: Study, words: Dictionary) -> list[tuple]:
    """Columns that the study file says must not decrease from one to the next."""
    faults = []
    for columns in study.ordered:
        if not set(columns) <= set(raw.columns):
            continue
        for low, high in itertools.pairwise(columns):
            first, second = (_comparable(raw[column], words[column]) for column in (low, high))
            for patient in raw.index[first > second]:
                value, other = raw.loc[patient, low], raw.loc[patient, high]
                message = f"{low} {value} exceeds {high} {other}"
                faults.append(("error", patient, low, value, f"at most {high} ({other})", message))
    return faults


def _comparable(text: pd.Series, field: Field) -> pd.Series:
    present = text.where(dataset.missing_codes(text) == "")
    if field.type == "datetime":
        return pd.to_datetime(present, format="ISO8601", errors="coerce")
    return pd.to_numeric(present, errors="coerce")


def _cohort_faults(root: Path, study: Study, words: Dictionary) -> list[tuple]:
    """Whether outcome and eligibility can be derived, and the dataset's own split, if any, used."""
    given = root / "split.csv"
    try:
        frame = cohort.build(dataset.load_dataset(root, words), study)
        if given.exists():
            cohort.make_split(frame, study, seed=0, given=given)
    except InputError as error:
        where = "split.csv" if given.exists() else "participants.tsv"
        return [("error", "", where, "", "a cohort that can be split into folds", str(error))]
    return []


def _scan_faults(root: Path, raw: pd.DataFrame, read_scans: bool) -> list[tuple]:
    faults = []
    for folder in sorted(root.glob("sub-*")):
        if folder.name not in raw.index:
            faults.append(("warning", folder.name, folder.name, "", "a row in participants.tsv",
                           "scans without a row are not used"))  # fmt: skip
    for patient in progress.track(raw.index, label="checking scans"):
        for scan in dataset.SCANS:
            path = dataset.scan_path(root, patient, scan)
            if not path.exists():
                continue
            try:
                if not read_scans:
                    images.check_header(path)
                elif scan in ("ncct", "cta"):
                    images.load_ct(path)
                else:
                    images.load_nifti(path)
            except InputError as error:
                faults.append(("error", patient, path.relative_to(root).as_posix(), "",
                               "a 3D NIfTI scan", str(error)))  # fmt: skip
    return faults
