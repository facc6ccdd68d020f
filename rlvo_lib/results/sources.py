"""Where the value behind a claim comes from: a cell of a result table, the study file, or arithmetic.

A source is one of

- a number;
- ``{table = "performance", where = {arm = "daft", metric = "auc"}, column = "mean"}``: one cell of a result
  table. ``sd_column``, ``ensemble_column``, ``low_column`` and ``high_column`` may name more of its row, and
  a value under ``where`` may itself be a source;
- ``{design = "events_test"}``: a number of the study file's ``[published_design]``;
- ``{published = "daft", column = "auc"}``: one that it says was published;
- ``{criterion = "stenosis"}`` or ``{eligibility = "years"}``: a rule of the study file, as text;
- ``{op = "ratio", of = [77, 481]}``: arithmetic on sources, one of `OPERATIONS`.

The 95 % interval implied for a published value is two numbers, or one of `INTERVALS` on sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib.config import MAIN, InputError, Study
from rlvo_lib.metrics import hanley_mcneil_se

PARTS = ("sd", "ensemble", "low", "high")  # what may stand beside a value, in columns of its row
LEVEL = 0.95


@dataclass(frozen=True)
class Found:
    """A value with what stands beside it; ``where`` it is in words, ``absent`` why there is none."""

    value: Any = np.nan
    sd: float = np.nan
    ensemble: float = np.nan
    low: float = np.nan
    high: float = np.nan
    where: str = ""
    table: str = ""
    row: str = ""
    absent: str = ""


def auc_interval(area: float, events: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a published AUC from its sample's size alone (Hanley and McNeil 1982).

    >>> [round(x, 3) for x in auc_interval(0.70, 16, 118)]
    [0.549, 0.851]
    """
    from scipy.stats import norm

    half = norm.ppf(0.5 + LEVEL / 2) * hanley_mcneil_se(area, events=int(events), n=int(n))
    return max(0.0, float(area - half)), min(1.0, float(area + half))


def f1_interval(f1: float, events: float, n: float, decimals: int = 2) -> tuple[float, float]:
    """The sampling interval of a published F1: the hull of those of all operating points it may be.

    An F1 does not say how many true and false alarms made it. For each pair that rounds to it, both counts
    are binomial around the pair's rates; the central 95 % of F1 are enumerated, not simulated.

    >>> [round(x, 2) for x in f1_interval(0.39, 16, 118)]
    [0.17, 0.59]
    """
    events, n = int(events), int(n)
    hits, alarms = np.meshgrid(np.arange(events + 1), np.arange(n - events + 1), indexing="ij")
    scores = 2 * hits / (hits + alarms + events)
    half = 0.5 * 10.0**-decimals
    possible = np.argwhere(np.abs(scores - f1) <= half * (1 + 1e-9))
    if not len(possible):
        raise InputError(
            f"f1_interval: F1 {f1:g} cannot be reached with {events} events in {n} patients"
        )
    limits = np.array([_f1_spread(scores, *pair) for pair in possible])
    return float(limits[:, 0].min()), float(limits[:, 1].max())


def _f1_spread(scores: np.ndarray, hits: int, alarms: int) -> tuple[float, float]:
    """The central 95 % of F1, of which ``scores`` (events + 1, others + 1) holds all values."""
    from scipy.stats import binom

    events, others = scores.shape[0] - 1, scores.shape[1] - 1
    chance = np.outer(
        binom.pmf(np.arange(events + 1), events, hits / events),
        binom.pmf(np.arange(others + 1), others, alarms / others),
    )
    order = np.argsort(scores, axis=None, kind="stable")
    below = np.cumsum(chance.ravel()[order])
    tail = (1 - LEVEL) / 2
    places = np.searchsorted(below, [tail, 1 - tail]).clip(max=len(order) - 1)
    return tuple(float(scores.ravel()[order[place]]) for place in places)


def sd_interval(sd: float, k: float) -> tuple[float, float]:
    """The 95 % interval of a standard deviation over k models (chi-square with k - 1 degrees of freedom).

    >>> [round(x, 3) for x in sd_interval(0.02, 4)]
    [0.011, 0.075]
    """
    from scipy.stats import chi2

    tail = (1 - LEVEL) / 2
    low, high = (sd * np.sqrt((k - 1) / chi2.ppf(q, k - 1)) for q in (1 - tail, tail))
    return float(low), float(high)


#: Arithmetic on published numbers.
OPERATIONS = {
    "ratio": lambda a, b: a / b,
    "sum": lambda *values: sum(values),
    "minus": lambda a, b: a - b,
    "flag_everyone_f1": lambda events, n: 2 * events / (events + n),
    "auc_standard_error": lambda auc, events, n: hanley_mcneil_se(
        auc, events=int(events), n=int(n)
    ),
}
#: What a published number's sample implies for it.
INTERVALS = {
    "auc_interval": auc_interval,
    "f1_interval": f1_interval,
    "sd_interval": sd_interval,
}


def resolve(source: Any, tables: Mapping[str, pd.DataFrame], study: Study) -> Found:
    """The value a source points at, with sd, ensemble, low and high where it names their columns."""
    if isinstance(source, int | float):
        return Found(source, where=f"{source:g}")
    if "op" in source:
        return _calculate(source, tables, study)
    if "table" in source:
        return _look_up(source, tables, study)
    return _of_study(source, study) if source else Found()


def implied_interval(
    interval: Any, tables: Mapping[str, pd.DataFrame], study: Study
) -> tuple[float, float]:
    """The 95 % interval implied for a published value: as typed, or computed; NaN if there is none."""
    if not interval:
        return np.nan, np.nan
    if not isinstance(interval, Mapping):
        low, high = interval
        return float(low), float(high)
    operation = interval.get("op")
    if operation not in INTERVALS:
        raise InputError(f"study file: interval '{operation}'; allowed: {', '.join(INTERVALS)}")
    parts = [resolve(part, tables, study) for part in interval["of"]]
    return INTERVALS[operation](*(part.value for part in parts))


def _of_study(source: Mapping[str, Any], study: Study) -> Found:
    """A number or a rule of the study file."""
    if "design" in source:
        value = _named(study.published_design, source["design"], "published_design")
        return Found(value, where=f"{value:g}")
    if "published" in source:
        arm = _named(study.published, source["published"], "published")
        value = _named(arm, source.get("column"), f"published.{source['published']}")
        return Found(value, where=f"{value:g}")
    for part, rules in (
        ("criterion", study.definitions[MAIN].criteria),
        ("eligibility", study.eligibility),
    ):
        if part in source:
            rule = _named({rule.id: rule for rule in rules}, source[part], part)
            where = f"study.toml: {part} '{rule.id}'"
            return Found(rule_text(rule.op, rule.value), where=where, row=f"{part} {rule.id}")
    raise InputError(
        f"study file: a claim's source is {dict(source)}; allowed: see results.sources"
    )


def _named(held: Mapping[str, Any], name: Any, what: str) -> Any:
    if name not in held:
        raise InputError(f"study file: {what} has no '{name}'; it has: {', '.join(held)}")
    return held[name]


def rule_text(op: str, value: Any) -> str:
    """A rule's comparison as text.

    >>> rule_text(">", 50), rule_text("in", ["0", "1", "2a"]), rule_text("between", [2017, 2023])
    ('> 50', '0, 1, 2a', '2017–2023')
    """
    if op == "between":
        return "–".join(str(v) for v in value)
    return ", ".join(str(v) for v in value) if op == "in" else f"{op} {value}"


def _look_up(source: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], study: Study) -> Found:
    name = source["table"]
    nothing = Found(where=f"tables/{name}.csv", table=name)
    if name not in tables:
        return replace(nothing, absent=f"this run has no table '{name}'")
    table, texts = tables[name], []
    for column, wanted in source.get("where", {}).items():
        if isinstance(wanted, Mapping):
            inner = resolve(wanted, tables, study)
            if inner.absent:
                return replace(nothing, absent=inner.absent)
            wanted = inner.value
        _need(column, table, name)
        table = table[table[column].astype(str) == str(wanted)]
        texts.append(f"{column} {wanted}")
    row = ", ".join(texts) or "its row"
    nothing = replace(nothing, where=f"tables/{name}.csv: {source['column']} of {row}", row=row)
    if len(table) > 1:
        raise InputError(
            f"study file: a claim points at {len(table)} rows of {nothing.where}; needed: one"
        )
    if table.empty:
        return replace(nothing, absent=f"no such row in table '{name}'")
    columns = {part: source[f"{part}_column"] for part in PARTS if f"{part}_column" in source}
    found = {}
    for part, column in {"value": source["column"], **columns}.items():
        _need(column, table, name)
        cell = table[column].iloc[0]
        found[part] = cell.item() if isinstance(cell, np.generic) else cell
    return replace(nothing, **found)


def _need(column: str, table: pd.DataFrame, name: str) -> None:
    if column not in table:
        raise InputError(f"study file: a claim names column '{column}', which table '{name}' lacks")


def _calculate(
    source: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], study: Study
) -> Found:
    operation = source["op"]
    if operation not in OPERATIONS:
        raise InputError(f"study file: op '{operation}'; allowed: {', '.join(OPERATIONS)}")
    parts = [resolve(part, tables, study) for part in source["of"]]
    found = Found(
        where=f"{operation}({', '.join(part.where for part in parts)})",
        table="; ".join(dict.fromkeys(part.table for part in parts if part.table)),
        row="; ".join(dict.fromkeys(part.row for part in parts if part.row)),
        absent=next((part.absent for part in parts if part.absent), ""),
    )
    if found.absent:
        return found
    return replace(found, value=OPERATIONS[operation](*(part.value for part in parts)))
