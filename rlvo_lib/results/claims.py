"""The ledger of claims: what was published, where it is recomputed here, and what follows.

A claim of the study file is a table with

- ``id``, ``text``, ``kind``: one of `KINDS`;
- ``stated_by``: ``paper`` (default), or ``check`` for one that follows from its numbers;
- ``value``: the published number, with ``decimals`` as printed and perhaps ``sd``; or, of a ``definition``,
  text, with ``printed`` if it was printed otherwise; or
  ``expect``: ``positive`` or ``negative``, for a claim about a direction;
- ``interval``: optional, the 95 % interval implied for the published value (`results.sources`);
- ``source``: where the value here comes from (`results.sources`). A performance claim is judged by an
  interval over patients only if its source names ``ensemble_column``, ``low_column`` and ``high_column``,
  all three or none; if none, by the implied interval alone.

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
from rlvo_lib.results.cells import LEDGER
from rlvo_lib.results.sources import Found, implied_interval, resolve

NOT_REPRODUCIBLE = "not reproducible without the cohort"
ANOTHER_COHORT = "another cohort"
INTERVAL = ("ensemble", "low", "high")  # one estimate and its interval
KINDS = ("count", "definition", "arithmetic", "performance", "attribution")
OF_MODELS = ("performance", "attribution")
COLUMNS = (
    "id", "claim", "kind", "stated_by", "published", "implied_low", "implied_high", "where", "here",
    "here_text", "here_sd", "ensemble", "low", "high", "verdict", "test", "reason", "table", "row",
    "notebook", "cell",
)  # fmt: skip


def claims(
    study: Study,
    tables: Mapping[str, pd.DataFrame],
    *,
    data: str,
    cells: Mapping[str, tuple[str, str]] | None = None,
) -> pd.DataFrame:
    """Every claim of the study file with its verdict.

    On simulated data a performance or attribution claim is always "not reproducible without the
    cohort", whatever the numbers are. On real data a count that is not the published one is of
    "another cohort". Under a sensitivity definition of the outcome only arithmetic is judged.

    Parameters
    ----------
    tables : result tables by name, as in the run's ``tables`` folder.
    cells : the notebook and the id of the cell that make each table (`table_cells`).

    Returns
    -------
    DataFrame with id, claim, kind, stated_by, published (as printed), implied_low and implied_high (95 %,
    implied for the published value), where, here, here_text, here_sd, ensemble, low, high, verdict, test
    (behind the verdict, in words), reason, table, row, notebook, cell, data.
    """
    if data not in ("simulated", "real"):
        raise InputError(f"claims: data is '{data}'; allowed: simulated, real")
    rows = [_judge(claim, tables, study, data) for claim in study.claims]
    if study.definition != MAIN:
        reason = f"outcome definition '{study.definition}' is not the published one"
        for row in rows:
            if row["kind"] != "arithmetic":
                row |= {"verdict": "not testable", "reason": reason}
    for row in rows:
        maker = row["table"].split("; ")[0] or LEDGER
        row["notebook"], row["cell"] = (cells or {}).get(maker, ("", ""))
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(data=data)


def _judge(
    claim: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], study: Study, data: str
) -> dict[str, Any]:
    _check(claim)
    found = resolve(claim.get("source", {}), tables, study)
    implied = implied_interval(claim.get("interval"), tables, study)
    text = found.value if isinstance(found.value, str) else ""
    here = np.nan if text or found.value is None else float(found.value)
    if claim["kind"] in OF_MODELS:
        verdict, reason = _model_verdict(claim, here, found, implied, data)
    elif claim["kind"] == "definition":
        same = text == claim["value"]
        verdict, reason = ("reproduced", "") if same else ("inconsistent", f"{text or 'none'} here")
    else:
        verdict, reason = _number_verdict(claim, here, data)
    return {
        "id": claim["id"], "claim": claim["text"], "kind": claim["kind"],
        "stated_by": claim.get("stated_by", "paper"), "published": printed(claim),
        "implied_low": implied[0], "implied_high": implied[1],
        "where": found.where, "here": here, "here_text": text, "here_sd": found.sd,
        "ensemble": found.ensemble, "low": found.low, "high": found.high, "verdict": verdict,
        "test": _test(claim, data), "reason": found.absent or reason, "table": found.table,
        "row": found.row,
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
    defined = claim["kind"] == "definition"
    if ("value" in claim or defined) and isinstance(claim.get("value"), str) != defined:
        raise InputError(
            f"study file: claim '{name}' of kind '{claim['kind']}' has value "
            f"{claim.get('value')!r}; allowed: text of a definition, else a number"
        )
    _check_columns(claim)


def _check_columns(claim: Mapping[str, Any]) -> None:
    name, columns = claim["id"], claim.get("source", {})
    named = [
        f"{p}_column" for p in INTERVAL if isinstance(columns, Mapping) and f"{p}_column" in columns
    ]
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
    if "printed" in claim:
        return str(claim["printed"])
    if "value" not in claim:
        return {"positive": "above 0", "negative": "below 0"}.get(
            claim.get("expect", ""), "no number"
        )
    if isinstance(claim["value"], str):
        return claim["value"]
    digits = _decimals(claim)
    text = f"{claim['value']:.{digits}f}"
    return f"{text} ± {claim['sd']:.{digits}f}" if "sd" in claim else text


def _decimals(claim: Mapping[str, Any]) -> int:
    return int(claim.get("decimals", 0 if isinstance(claim["value"], int) else 2))


def _judged_by_ensemble(claim: Mapping[str, Any]) -> bool:
    return "ensemble_column" in claim.get("source", {})


def _test(claim: Mapping[str, Any], data: str) -> str:
    """The test behind a claim's verdict, in words."""
    kind = claim["kind"]
    if kind == "definition":
        return "the study file's rule is the printed one"
    if kind not in OF_MODELS:
        if "value" not in claim:
            return f"the value here is {printed(claim)}"
        if kind == "count":
            return "the number here is the printed one"
        return f"the value here rounds to the printed one ({_decimals(claim)} decimals)"
    words = _model_test(claim)
    return words if data == "real" else f"not applied to simulated patients: {words}"


def _model_test(claim: Mapping[str, Any]) -> str:
    if claim["kind"] == "attribution" or not {"value", "expect"} & set(claim):
        return "none, as no number was published"
    if "value" not in claim:
        return f"95 % interval over patients is {printed(claim)} as a whole"
    parts = ["published value inside the 95 % interval over patients of our ensemble"]
    if not _judged_by_ensemble(claim):
        parts = []
    if "interval" in claim:
        ours = "our ensemble" if parts else "our value"
        parts.append(f"{ours} inside the 95 % interval implied for theirs")
    return ", and ".join(parts) or "none, as no interval belongs to the value"


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
    claim: Mapping[str, Any], here: float, found: Found, implied: tuple[float, float], data: str
) -> tuple[str, str]:
    """Performance and attribution: judged on a real cohort only."""
    if data != "real":
        return NOT_REPRODUCIBLE, "the patients here are simulated"
    if claim["kind"] == "attribution" or ("value" not in claim and "expect" not in claim):
        return "not testable", "no number was published"
    if "value" in claim and not _judged_by_ensemble(claim):
        return _by_implied(here, implied)
    low, high = found.low, found.high
    if np.isnan([found.ensemble, low, high]).any():
        return "not testable", "no interval could be estimated here"
    if "value" not in claim:
        holds = low > 0 if claim["expect"] == "positive" else high < 0
        opposite = high < 0 if claim["expect"] == "positive" else low > 0
        if not holds and not opposite:
            return "not testable", f"the interval here, {low:.3f} to {high:.3f}, includes 0"
        return ("consistent" if holds else "differs"), f"interval here {low:.3f} to {high:.3f}"
    inside = low <= claim["value"] <= high
    parts = [f"published value {_word(inside)} the {low:.3f} to {high:.3f} of our ensemble"]
    if not np.isnan(implied).any():
        also = implied[0] <= found.ensemble <= implied[1]
        parts.append(f"our ensemble {_word(also)} the {_range(implied)} implied for theirs")
        inside = inside and also
    return ("consistent" if inside else "differs"), "; ".join(parts)


def _by_implied(here: float, implied: tuple[float, float]) -> tuple[str, str]:
    """A value without an interval over patients, such as an SD: by what is implied for the paper's."""
    if np.isnan([here, *implied]).any():
        return "not testable", "no interval could be estimated here"
    inside = implied[0] <= here <= implied[1]
    reason = f"our value {_word(inside)} the {_range(implied)} implied for theirs"
    return ("consistent" if inside else "differs"), reason


def _word(inside: bool) -> str:
    return "inside" if inside else "outside"


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.3f} to {limits[1]:.3f}"
