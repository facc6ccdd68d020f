"""Rules of the study file applied to a typed table, and the outcome that follows from its criteria."""

from __future__ import annotations

import pandas as pd

from rlvo_lib.config import InputError, Rule, Study


def meets(rule: Rule, table: pd.DataFrame) -> pd.Series:
    """Whether each patient meets a rule: 1.0, 0.0, or NaN where the value is missing or unknown."""
    if rule.column not in table:
        needed = f"; it is needed for '{rule.text}'" if rule.text else ""
        raise InputError(f"participants.tsv: column '{rule.column}' is missing{needed}")
    values = table[rule.column]
    if rule.op == "in":
        met = values.isin(list(rule.value))
    elif rule.op == "known":
        return values.notna().astype(float)
    elif rule.op == "between":
        met = values.between(*rule.value)
    else:
        compare = {
            ">": values.gt,
            ">=": values.ge,
            "<": values.lt,
            "<=": values.le,
            "==": values.eq,
        }
        met = compare[rule.op](rule.value)
    return met.astype(float).where(values.notna() & ~values.isin(list(rule.unknown)))


def label_columns(study: Study) -> list[str]:
    """The columns that the outcome is derived from."""
    rules = [r for c in study.criteria for r in (c, c.not_applicable_when) if r]
    return list(dict.fromkeys(rule.column for rule in rules))


def needed_columns(study: Study) -> list[str]:
    """The columns that outcome and eligibility need."""
    rules = [rule.column for rule in study.eligibility if rule.column]
    return list(dict.fromkeys([*label_columns(study), *rules]))


def criteria(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Each criterion of the outcome for each patient of a typed table: 1.0, 0.0 or NaN (unknown).

    A criterion that does not apply (its ``not_applicable_when`` is met) is not met: 0.0.
    """
    result = {}
    for rule in study.criteria:
        met = meets(rule, table)
        if rule.not_applicable_when:
            met = met.mask(meets(rule.not_applicable_when, table) == 1, 0.0)
        result[rule.id] = met
    return pd.DataFrame(result, index=table.index)


def derive_label(met: pd.DataFrame) -> pd.Series:
    """The outcome from its criteria: any met gives 1; otherwise any unknown gives NaN; otherwise 0.

    Without any criterion it is unknown.

    >>> derive_label(pd.DataFrame({"a": [0, 1, 0], "b": [0, float("nan"), float("nan")]})).tolist()
    [0.0, 1.0, nan]
    """
    if met.columns.empty:
        return pd.Series(float("nan"), index=met.index)
    return (
        (met == 1).any(axis=1).astype(float).mask((met != 1).all(axis=1) & met.isna().any(axis=1))
    )
