"""The ledger of claims: what was published, where it is recomputed here, and what follows.

A claim of the study file is a table with

- ``id``, ``text``, ``kind``: ``count``, ``arithmetic``, ``performance`` or ``attribution``;
- ``stated_by``: ``paper`` (default), or ``check`` for one that follows from its numbers;
- ``value``: the published number, with ``decimals`` as printed and perhaps ``sd``; or
  ``expect``: ``positive`` or ``negative``, for a claim about a direction;
- ``interval``: optional ``[low, high]``, the 95 % interval implied for the published value;
- ``source``: where the value here comes from. Either a cell of a result table,
  ``{table = "performance", where = {arm = "daft", metric = "auc"}, column = "mean"}``, to which
  ``sd_column`` may be added, and in which a value under ``where`` may itself be such a cell; or
  arithmetic on published numbers, ``{op = "ratio", of = [77, 481]}``, with one of `OPERATIONS`, whose
  arguments may be sources too. A performance claim is judged only if its source names
  ``ensemble_column``, ``low_column`` and ``high_column``, all three or none.

Two estimands are kept apart. ``here ± here_sd`` is what the paper printed: mean and SD over the fold
models. ``ensemble`` with ``low`` to ``high`` is the fold ensemble with its 95 % interval over patients;
verdicts use it alone, as the mean over the fold models has no interval over patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib.config import MAIN, InputError, Study
from rlvo_lib.metrics import hanley_mcneil_se

NOT_REPRODUCIBLE = "not reproducible without the cohort"
ANOTHER_COHORT = "another cohort"
INTERVAL = ("ensemble", "low", "high")  # one estimate and its interval
KINDS = ("count", "arithmetic", "performance", "attribution")
COLUMNS = (
    "id", "claim", "kind", "stated_by", "published", "where", "here", "here_sd", "ensemble", "low",
    "high", "verdict", "reason",
)  # fmt: skip

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


def claims(study: Study, tables: Mapping[str, pd.DataFrame], *, data: str) -> pd.DataFrame:
    """Every claim of the study file with its verdict.

    On simulated data a performance or attribution claim is always "not reproducible without the
    cohort", whatever the numbers are. On real data a count that is not the published one is of
    "another cohort". Under a sensitivity definition of the outcome only arithmetic is judged.

    Parameters
    ----------
    tables : result tables by name, as in the run's ``tables`` folder.

    Returns
    -------
    DataFrame with id, claim, kind, stated_by, published (as printed), where, here, here_sd, ensemble,
    low, high, verdict, reason, data.
    """
    if data not in ("simulated", "real"):
        raise InputError(f"claims: data is '{data}'; allowed: simulated, real")
    rows = [_judge(claim, tables, data) for claim in study.claims]
    if study.definition != MAIN:
        reason = f"outcome definition '{study.definition}' is not the published one"
        for row in rows:
            if row["kind"] != "arithmetic":
                row |= {"verdict": "not testable", "reason": reason}
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(data=data)


def _judge(
    claim: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], data: str
) -> dict[str, Any]:
    _check(claim)
    found = resolve(claim.get("source", {}), tables)
    here = found["value"] if isinstance(found["value"], int | float | np.number) else np.nan
    here = float(here) if here is not None else np.nan
    ensemble, low, high = (found[part] for part in INTERVAL)
    if claim["kind"] in ("performance", "attribution"):
        verdict, reason = _model_verdict(claim, ensemble, low, high, data)
    else:
        verdict, reason = _number_verdict(claim, here, data)
    return {
        "id": claim["id"], "claim": claim["text"], "kind": claim["kind"],
        "stated_by": claim.get("stated_by", "paper"), "published": printed(claim),
        "where": found["where"], "here": here, "here_sd": found["sd"], "ensemble": ensemble,
        "low": low, "high": high, "verdict": verdict, "reason": found["absent"] or reason,
    }  # fmt: skip


def _check(claim: Mapping[str, Any]) -> None:
    name = claim.get("id", "?")
    for field in ("id", "text", "kind"):
        if field not in claim:
            raise InputError(f"study file: claim '{name}' has no '{field}'")
    if claim["kind"] not in KINDS:
        raise InputError(
            f"study file: claim '{name}' has kind '{claim['kind']}'; allowed: {', '.join(KINDS)}"
        )
    if claim.get("expect", "positive") not in ("positive", "negative"):
        raise InputError(f"study file: claim '{name}': expect is positive or negative")
    source = claim.get("source", {})
    columns = source if isinstance(source, Mapping) else {}
    named = [f"{part}_column" for part in INTERVAL if f"{part}_column" in columns]
    if named and claim["kind"] != "performance":
        raise InputError(
            f"study file: claim '{name}' of kind '{claim['kind']}' names {named[0]}; allowed: only "
            "with kind 'performance'"
        )
    if named and len(named) < len(INTERVAL):
        raise InputError(
            f"study file: claim '{name}' names {', '.join(named)}; needed: ensemble_column, "
            "low_column and high_column together, as one estimate with its interval"
        )


def printed(claim: Mapping[str, Any]) -> str:
    """The published value as it was printed: ``0.70 ± 0.02``, ``599``, or the expected direction."""
    if "value" not in claim:
        return {"positive": "above 0", "negative": "below 0"}.get(
            claim.get("expect", ""), "no number"
        )
    digits = _decimals(claim)
    text = f"{claim['value']:.{digits}f}"
    return f"{text} ± {claim['sd']:.{digits}f}" if "sd" in claim else text


def _decimals(claim: Mapping[str, Any]) -> int:
    return int(claim.get("decimals", 0 if isinstance(claim["value"], int) else 2))


def _number_verdict(claim: Mapping[str, Any], here: float, data: str) -> tuple[str, str]:
    """Counts and arithmetic are reproduced or inconsistent; counts of real patients are their own."""
    counted = claim["kind"] == "count"
    by_design = counted and data == "simulated"
    if np.isnan(here):
        return "not computed", "no value here"
    if "value" not in claim:
        holds = here > 0 if claim.get("expect") == "positive" else here < 0
        return ("reproduced", "") if holds else ("inconsistent", "the direction is the other")
    half = 0.5 * 10.0 ** -_decimals(claim)
    if abs(here - claim["value"]) <= half * (1 + 1e-9):
        return "reproduced", "by construction of the simulator" if by_design else ""
    if by_design:
        return (
            "inconsistent",
            "this run simulated another number of patients",
        )
    if counted:
        return ANOTHER_COHORT, f"{here:.6g} here: the patients or the design are not the paper's"
    return "inconsistent", f"{here:.6g} here"


def _model_verdict(
    claim: Mapping[str, Any], ensemble: float, low: float, high: float, data: str
) -> tuple[str, str]:
    """Performance and attribution: judged on a real cohort only, by the fold ensemble."""
    if data != "real":
        return NOT_REPRODUCIBLE, "the patients here are simulated"
    if claim["kind"] == "attribution" or ("value" not in claim and "expect" not in claim):
        return "not testable", "no number was published"
    if np.isnan([ensemble, low, high]).any():
        return "not testable", "no interval could be estimated here"
    if "value" not in claim:
        holds = low > 0 if claim["expect"] == "positive" else high < 0
        opposite = high < 0 if claim["expect"] == "positive" else low > 0
        if not holds and not opposite:
            return "not testable", f"the interval here, {low:.3f} to {high:.3f}, includes 0"
        return ("consistent" if holds else "differs"), f"interval here {low:.3f} to {high:.3f}"
    inside = low <= claim["value"] <= high
    word = "inside" if inside else "outside"
    parts = [f"published value {word} the {low:.3f} to {high:.3f} of our ensemble"]
    if "interval" in claim:
        lower, upper = claim["interval"]
        also = lower <= ensemble <= upper
        parts.append(
            f"our ensemble {'inside' if also else 'outside'} the {lower:g} to {upper:g} implied for "
            "theirs"
        )
        inside = inside and also
    return ("consistent" if inside else "differs"), "; ".join(parts)


def resolve(source: Any, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """The value a source points at, with sd, ensemble, low and high where it names their columns.

    ``where`` says in words where the value is, ``absent`` why there is none.
    """
    nothing = {
        "value": np.nan,
        "sd": np.nan,
        "ensemble": np.nan,
        "low": np.nan,
        "high": np.nan,
        "where": "",
        "absent": "",
    }
    if isinstance(source, int | float):
        return nothing | {"value": source, "where": f"{source:g}"}
    if "op" in source:
        return nothing | _calculate(source, tables)
    if "table" not in source:
        return nothing
    name = source["table"]
    if name not in tables:
        return nothing | {
            "where": f"tables/{name}.csv",
            "absent": f"this run has no table '{name}'",
        }
    table, texts = tables[name], []
    for column, wanted in source.get("where", {}).items():
        if isinstance(wanted, Mapping):
            inner = resolve(wanted, tables)
            if inner["absent"]:
                return nothing | {"where": f"tables/{name}.csv", "absent": inner["absent"]}
            wanted = inner["value"]
        _need(column, table, name)
        table = table[table[column].astype(str) == str(wanted)]
        texts.append(f"{column} {wanted}")
    where = f"tables/{name}.csv: {source['column']} of {', '.join(texts) or 'its row'}"
    if len(table) > 1:
        raise InputError(f"study file: a claim points at {len(table)} rows of {where}; needed: one")
    if table.empty:
        return nothing | {"where": where, "absent": f"no such row in table '{name}'"}
    found = {"where": where}
    parts = {
        part: source[f"{part}_column"] for part in ("sd", *INTERVAL) if f"{part}_column" in source
    }
    for part, column in {"value": source["column"], **parts}.items():
        _need(column, table, name)
        cell = table[column].iloc[0]
        found[part] = cell.item() if isinstance(cell, np.generic) else cell
    return nothing | found


def _need(column: str, table: pd.DataFrame, name: str) -> None:
    if column not in table:
        raise InputError(f"study file: a claim names column '{column}', which table '{name}' lacks")


def _calculate(source: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    operation = source["op"]
    if operation not in OPERATIONS:
        raise InputError(f"study file: op '{operation}'; allowed: {', '.join(OPERATIONS)}")
    parts = [resolve(part, tables) for part in source["of"]]
    absent = next((part["absent"] for part in parts if part["absent"]), "")
    where = f"{operation}({', '.join(part['where'] for part in parts)})"
    if absent:
        return {"where": where, "absent": absent}
    return {"value": OPERATIONS[operation](*(part["value"] for part in parts)), "where": where}
