"""What must hold between the columns of one patient.

A relation is judged only where all of its values are there and allowed by the dictionary.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from rlvo_lib import cohort, dataset
from rlvo_lib.cohort.rules import label_columns
from rlvo_lib.config import MAIN, Consistency, Rule, Study
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary
from rlvo_lib.validation.faults import Fault, Patients

IN_WORDS = {">": "over", ">=": "at least", "<": "under", "<=": "at most"}
RELATIVE = 1e-9  # of floating-point arithmetic


def order_faults(people: Patients, study: Study, words: Dictionary) -> Iterator[Fault]:
    """Columns that the study file says must not decrease from one to the next."""
    for columns in study.ordered:
        if not set(columns) <= set(people.values.columns):
            continue
        for low, high in itertools.pairwise(columns):
            first, second = _comparable(people, low, high, words)
            for line in people.raw.index[first > second]:
                value, other = people.raw.at[line, low], people.raw.at[line, high]
                yield Fault("error", people.ids[line], low, value, f"at most {high}",
                            f"{low} {value} exceeds {high} {other}")  # fmt: skip


def _comparable(
    people: Patients, low: str, high: str, words: Dictionary
) -> tuple[pd.Series, pd.Series]:
    """Two columns as numbers or times; days are compared where one of two has no time of day."""
    if words[low].type != "datetime":
        return people.values[low], people.values[high]
    texts = [people.clean[column].str.strip() for column in (low, high)]
    first, second = (dataset.datetimes(text) for text in texts)
    day_only = (texts[0].str.len() <= 10) | (texts[1].str.len() <= 10)
    return (
        first.where(~day_only, first.dt.normalize()),
        second.where(~day_only, second.dt.normalize()),
    )


# ---------------------------------------------------------------------------------------- ratios


def ratio_faults(people: Patients, words: Dictionary) -> Iterator[Fault]:
    """Ratios that do not agree with their parts, within the rounding of all three as written."""
    for name in people.values.columns:
        ratio = words[name].ratio
        if ratio and set(ratio) <= set(people.values.columns):
            yield from _ratio_faults(people, name, *ratio)


def _ratio_faults(people: Patients, name: str, top: str, bottom: str) -> Iterator[Fault]:
    number, over, under = (people.values[column] for column in (name, top, bottom))
    intact = people.intact
    code = dataset.missing_codes(people.clean[name])
    judged = intact[name] & under.notna()
    coded = judged & np.where(under == 0, code.isin(["-99", "-97"]), code == "-98")
    low, high = _quotient(people, top, bottom)
    slack, half = RELATIVE * number.abs().clip(lower=1), half_unit(people.clean[name])
    apart = judged & ((number + half + slack < low) | (number - half - slack > high))
    for line in people.raw.index[coded | apart]:
        value, a, b = (people.raw.at[line, column].strip() for column in (name, top, bottom))
        if coded[line]:
            severity = "warning" if under[line] == 0 else "error"
            allowed = f"-98 (not applicable) where {bottom} is 0, and only there"
            message = f"{name} is {value or 'empty'} and {bottom} is {b}"
        else:
            severity, allowed = "error", f"{top} / {bottom}, within rounding"
            is_ = (
                f"{float(over[line]) / float(under[line]):.3g}"
                if under[line]
                else f"at least {low[line]:.3g}"
            )
            message = f"{name} is {value}, but {top} {a} / {bottom} {b} is {is_}"
        yield Fault(severity, people.ids[line], name, value, allowed, message)


def _quotient(people: Patients, top: str, bottom: str) -> tuple[pd.Series, pd.Series]:
    """The lowest and highest quotient of two columns, each known to half its last digit.

    A denominator written as 0 may be up to half a unit: then there is a lowest quotient only.
    """
    (over, over_half), (under, under_half) = (
        (people.values[column], half_unit(people.clean[column])) for column in (top, bottom)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = pd.concat(
            [
                (over + a * over_half) / (under + b * under_half)
                for a in (-1, 1)
                for b in (-1, 1)
            ],
            axis=1,
        )  # fmt: skip
        least = (over - over_half) / under_half
    is_zero = under == 0
    return ends.min(axis=1).mask(is_zero, least), ends.max(axis=1).mask(is_zero, np.inf)


def half_unit(text: pd.Series) -> pd.Series:
    """Half a unit of the last digit that each number is written with.

    >>> half_unit(pd.Series(["12", "0.40", "1e3"])).tolist()
    [0.5, 0.005, 500.0]
    """
    parts = text.str.strip().str.extract(r"^[+-]?\d*(?:\.(\d*))?(?:[eE]([+-]?\d+))?$")
    decimals = parts[0].fillna("").str.len()
    exponent = pd.to_numeric(parts[1]).fillna(0)
    return 0.5 * 10.0 ** (exponent - decimals).astype(float)


# --------------------------------------------------------------------------------------- outcome


def applicability_faults(people: Patients, study: Study) -> Iterator[Fault]:
    """Sources of the outcome that must be -98 where they do not apply, and only there."""
    for rule in study.definitions[MAIN].criteria:
        when = rule.not_applicable_when
        if not when or not {rule.column, when.column} <= set(people.values.columns):
            continue
        met = cohort.meets(when, people.values).where(people.intact[rule.column])
        inapplicable = dataset.missing_codes(people.clean[rule.column]) == "-98"
        for line in people.raw.index[met.notna() & ((met == 1) != inapplicable)]:
            value, other = (people.raw.at[line, c].strip() for c in (rule.column, when.column))
            yield Fault(
                "error", people.ids[line], rule.column, value,
                f"-98 (not applicable) where {when.column} is {_values(when)}, and only there",
                f"{rule.column} is {value or 'empty'} and {when.column} is {other}",
            )  # fmt: skip


def outcome_faults(people: Patients, study: Study) -> Iterator[Fault]:
    """A stored outcome that is not the one derived from its sources."""
    main = dataclasses.replace(study, criteria=study.definitions[MAIN].criteria)
    columns = label_columns(main)
    if study.outcome not in people.raw or not set(columns) <= set(people.values.columns):
        return
    text = people.raw[study.outcome]
    missing = dataset.missing_codes(text) != ""
    stored = pd.to_numeric(text.str.strip(), errors="coerce").mask(missing)
    derived = cohort.derive_label(cohort.criteria(people.values, main))
    judged = people.intact[columns].all(axis=1)
    differs = ~missing & ~((stored == derived) & stored.notna()) & judged
    lacking = missing & derived.notna() & judged & (not missing.all())
    allowed = f"0 or 1, as derived from {', '.join(columns)}"
    for line in people.raw.index[differs | lacking]:
        found = ", ".join(f"{column} {people.raw.at[line, column].strip()}" for column in columns)
        is_ = "missing" if np.isnan(derived[line]) else f"{derived[line]:.0f}"
        value = text[line].strip()
        yield Fault(
            "error" if differs[line] else "warning", people.ids[line], study.outcome, value, allowed,
            f"stored {value or 'empty'}, derived {is_} ({found})",
        )  # fmt: skip


# ----------------------------------------------------------------------------------- consistency


def consistency_faults(people: Patients, study: Study, words: Dictionary) -> Iterator[Fault]:
    """The study file's own relations: where all of ``when`` are met, all of ``then`` must be."""
    for relation in study.consistency:
        columns = list(dict.fromkeys(r.column for r in (*relation.when, *relation.then)))
        if not set(columns) <= set(people.values.columns):
            continue
        broken = _broken(people, relation)
        allowed = "; ".join(_in_words(rule, words) for rule in relation.then)
        where = relation.then[0].column
        for line in people.raw.index[broken]:
            found = ", ".join(f"{c} {people.raw.at[line, c].strip()}" for c in columns)
            yield Fault(
                relation.severity, people.ids[line], where, people.raw.at[line, where], allowed,
                f"{relation.text} ({found})",
            )  # fmt: skip


def _broken(people: Patients, relation: Consistency) -> pd.Series:
    when = pd.Series(True, index=people.raw.index)
    for rule in relation.when:
        when &= _met(people, rule) == 1
    then = pd.concat([_met(people, rule) == 0 for rule in relation.then], axis=1)
    return when & then.any(axis=1)


def _met(people: Patients, rule: Rule) -> pd.Series:
    """As `cohort.meets`, and for the missing code of a value (op ``code``)."""
    if rule.op != "code":
        return cohort.meets(rule, people.values)
    code = dataset.missing_codes(people.clean[rule.column])
    return code.isin(_codes(rule)).astype(float).where(people.intact[rule.column])


def _codes(rule: Rule) -> list[str]:
    return [rule.value] if isinstance(rule.value, str) else list(rule.value)


def _in_words(rule: Rule, words: Dictionary) -> str:
    """What a rule asks for, as ``column: 0 (none)``."""
    if rule.op == "code":
        reasons = [f"{c} ({MISSING_REASONS[c]})" if c else "a value" for c in _codes(rule)]
        return f"{rule.column}: {' or '.join(reasons)}"
    if rule.op == "between":
        return f"{rule.column}: {rule.value[0]} to {rule.value[1]}"
    if rule.op in IN_WORDS:
        return f"{rule.column}: {IN_WORDS[rule.op]} {rule.value}"
    return f"{rule.column}: {_values(rule, words[rule.column].choices)}"


def _values(rule: Rule, choices: dict[str, str] | None = None) -> str:
    """The values of an ``==`` or ``in`` rule, each with its meaning."""
    values = rule.value if isinstance(rule.value, tuple | list) else [rule.value]
    meanings = {str(v): (choices or {}).get(str(v), str(v)) for v in values}
    return " or ".join(v if v == meaning else f"{v} ({meaning})" for v, meaning in meanings.items())
