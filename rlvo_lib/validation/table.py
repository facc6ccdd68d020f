"""The table by itself: its columns, identifiers, and each value against the data dictionary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rlvo_lib import dataset, storage
from rlvo_lib.cohort.rules import needed_columns
from rlvo_lib.config import Study
from rlvo_lib.dataset import TextTable
from rlvo_lib.dictionary import Dictionary, Field
from rlvo_lib.validation import units
from rlvo_lib.validation.faults import Fault, allowed_in_words, quoted

GRACE = pd.Timedelta(days=1)  # a clock in another time zone is no future


def ragged_faults(table: TextTable) -> Iterator[Fault]:
    """Rows with more or fewer fields than the header: nothing in them can be read."""
    for line, patient, fields in table.ragged:
        yield Fault(
            "error", patient, dataset.TABLE, str(fields), f"{table.width} fields, as in the header",
            f"line {line} has {fields} fields, and is not read further",
        )  # fmt: skip


def identifier_faults(ids: pd.Series) -> Iterator[Fault]:
    """Identifiers that are not BIDS; they are never used as part of a path."""
    for line, name in ids[~ids.str.fullmatch(dataset.IDENTIFIER)].items():
        yield Fault(
            "error", name, "participant_id", name, "sub- and letters or digits",
            f"{quoted(name)} is not a BIDS identifier (line {line})",
        )  # fmt: skip


def column_faults(raw: pd.DataFrame, study: Study, words: Dictionary) -> Iterator[Fault]:
    """Columns that are missing, or that the dictionary does not know."""
    predictors = [column for group in study.predictors.values() for column in group]
    needed = {
        column
        for arm in study.arms.values()
        for name in arm.predictors
        if name not in study.optional_predictors
        for column in study.predictors[name]
    }
    for column in needed_columns(study):
        if column not in raw:
            yield Fault(
                "error", "", column, "", "a column of this name",
                f"column '{column}' is missing; the outcome or the eligibility is derived from it",
            )  # fmt: skip
    for column in dict.fromkeys(predictors):
        if column not in raw and column not in needed_columns(study):
            severity = "error" if column in needed else "warning"
            yield Fault(severity, "", column, "", "a column of this name",
                        f"predictor column '{column}' is missing")  # fmt: skip
    for column in raw.columns:
        if column not in words:
            yield Fault("warning", "", column, "", "the columns of data_dictionary.md",
                        f"column {quoted(column)} is not in the data dictionary and is not used")  # fmt: skip


def value_faults(
    raw: pd.DataFrame, ids: pd.Series, words: Dictionary
) -> tuple[list[Fault], pd.DataFrame]:
    """Every value that the dictionary does not allow, and the table with these left empty."""
    faults, clean = [], {}
    for name in [column for column in raw.columns if column in words]:
        position, written = pd.factorize(raw[name])
        bad = _not_allowed(pd.Series(written, dtype=str, name=name), words[name])
        if not bad.any():
            continue
        allowed = allowed_in_words(words[name])
        says = dict(zip(np.flatnonzero(bad), _messages(words[name], written[bad]), strict=True))
        rows = bad[position]
        faults += [
            Fault("error", patient, name, written[at], allowed, says[at])
            for patient, at in zip(ids[rows], position[rows], strict=True)
        ]
        clean[name] = raw[name].mask(rows, "")
    return faults, raw.assign(**clean)


def _not_allowed(distinct: pd.Series, field: Field) -> np.ndarray:
    """Whether each distinct value of a column breaks a pandera schema made from the dictionary."""
    import pandera.pandas as pa

    checks = [pa.Check(lambda text: _is_allowed(text, field), name=field.name)]
    bad = np.zeros(len(distinct), dtype=bool)
    try:
        pa.SeriesSchema(checks=checks, name=field.name).validate(distinct, lazy=True)
    except pa.errors.SchemaErrors as error:
        bad[error.failure_cases["index"].astype(int)] = True
    return bad


def _is_allowed(text: pd.Series, field: Field) -> pd.Series:
    value, code = text.str.strip(), dataset.missing_codes(text)
    missing = code.isin([*field.missing]) | (
        value.isin(list(dataset.MISSING_TOKENS)) & (not field.required)
    )
    return missing | ((code == "") & _is_valid(value, field))


def _is_valid(value: pd.Series, field: Field) -> pd.Series:
    """Whether each present value (text) is what the field allows."""
    if field.is_categorical:
        return value.isin(list(field.choices))
    if field.type == "datetime":
        when = dataset.datetimes(value)
        return when.notna() & ~_is_future(when)
    if not field.is_quantity:
        return pd.Series(True, index=value.index)
    number = pd.to_numeric(value, errors="coerce")
    low = float("-inf") if field.low is None else field.low
    high = float("inf") if field.high is None else field.high
    good = number.between(low, high) & np.isfinite(number)
    return good & (number == number.round()) if field.type == "integer" else good


def _is_future(when: pd.Series) -> pd.Series:
    return when > pd.Timestamp.now() + GRACE


def _messages(field: Field, written: pd.Index) -> Iterator[str]:
    """What is wrong with each value that is not allowed."""
    text = pd.Series(written, dtype=str)
    future = [False] * len(text)
    if field.type == "datetime":
        future = _is_future(dataset.datetimes(text))
    for value, in_future in zip(text, future, strict=True):
        wrong = "lies in the future" if in_future else f"is not allowed{units.hint(value, field)}"
        yield f"{field.label}: {quoted(value)} {wrong}"


def empty_faults(raw: pd.DataFrame, study: Study, words: Dictionary) -> Iterator[Fault]:
    """Columns in which every value is missing."""
    for name in [column for column in raw.columns if column in words]:
        codes = set(dataset.missing_codes(pd.Series(raw[name].unique(), dtype=str)))
        if "" in codes:
            continue
        # a source that applies to nobody is known: its criterion is met by nobody
        needed = name in needed_columns(study) and codes != {"-98"}
        why = "; the outcome or the eligibility is derived from it" if needed else ""
        yield Fault(
            "error" if needed else "warning", "", name, ", ".join(sorted(codes)), "some values",
            f"every value of '{name}' is missing{why}",
        )  # fmt: skip


def formula_faults(raw: pd.DataFrame, ids: pd.Series, words: Dictionary) -> Iterator[Fault]:
    """Free text, or a column's name, that a spreadsheet would run."""
    allowed = "text that does not begin with = + - @ or a tab"
    for name in raw.columns:
        if storage.is_formula(name):
            yield Fault("warning", "", name, name, allowed, "a column name that is a formula")
        if name in words and (words[name].is_quantity or words[name].is_categorical):
            continue  # anything but a value of the dictionary is an error there
        if name in words and words[name].type == "datetime":
            continue
        position, written = pd.factorize(raw[name])
        formula = np.array([storage.is_formula(text) for text in written], dtype=bool)
        code = dataset.missing_codes(pd.Series(written, dtype=str)).to_numpy()
        rows = (formula & (code == ""))[position]
        for patient, text in zip(ids[rows], raw.loc[rows, name], strict=True):
            yield Fault(
                "warning", patient, name, text, allowed,
                f"{quoted(text)} is a formula that a spreadsheet would run; exported tables have an "
                "apostrophe before it",
            )  # fmt: skip
