"""Each arm against its ceiling: what simulated patients allow, given the latents that the arm shows.

The simulator knows what drives its patients' outcome, so the AUC of a predictor that knows the true
latents can be computed: the best of those tried, from very many patients (``infinite``), and from one
cohort of the study's size (``fitted``: mean over many such cohorts, judged on very many other patients).
It describes the simulator, never patients. A share of it may exceed 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import MAIN, PERFUSION_PARAMETERS, InputError, Study
from rlvo_lib.results.predictions import check_predictions, reported_partition

#: Modality with a ceiling of its own -> the scans that it is.
MODALITIES = {
    "ncct": {"ncct"}, "cta": {"cta"}, "vessels": {"vessels"}, "ctp": {"cbf", "cbv", "mtt", "tmax"},
}  # fmt: skip
ALL_IMAGING = {"ncct", "cta", "ctp"}
CEILINGS = (*MODALITIES, "clinical", "imaging", "all", "all_additive")
LEAST_PATIENTS = 2000  # in the part that is reported on: below, a share says next to nothing
SIZE_TOLERANCE = 0.2  # how far training patients and events may differ from the ceiling's cohorts
MOST = 10**9  # of any count in the file
LEAST_SPAN = 0.02  # of the fitted ceiling above 0.5: of less, no share is taken
NUMBERS = ("infinite", "fitted", "fitted_sd", "fitted_low", "fitted_high")
COLUMNS = (
    "arm", "label", "ceiling", *NUMBERS, "auc", "auc_low", "auc_high", "share", "share_low",
    "share_high", "n", "events", "reason", "data",
)  # fmt: skip


def check_ceiling(content: Any, where: str = "ceiling.json") -> dict[str, Any]:
    """The content of a ceiling file, or an `InputError` that names file and field.

    Fields: ``scenario``, ``predictor`` (text); ``n_fitted``, ``events_fitted``, ``replicates``,
    ``evaluated_on`` (counts of patients and cohorts); ``arms``: for each of `CEILINGS` the AUCs
    ``infinite``, ``fitted``, ``fitted_low``, ``fitted_high``, their ``fitted_sd`` over the replicate
    cohorts, and ``latents`` (names of what the predictor knows).
    """
    _is_object(content, where, "the file")
    for name in ("scenario", "predictor"):
        _field(content, name, where, lambda v: isinstance(v, str) and v.strip(), "text")
    for name, least in (
        ("n_fitted", 2),
        ("events_fitted", 1),
        ("replicates", 2),
        ("evaluated_on", 2),
    ):
        whole = f"a whole number, {least} to {MOST:,}"
        _field(content, name, where, lambda v, least=least: _whole(v) and least <= v <= MOST, whole)
    fewer = f"fewer than 'n_fitted' ({content['n_fitted']})"
    _field(content, "events_fitted", where, lambda v: v < content["n_fitted"], fewer)
    _is_object(content.get("arms"), where, "'arms'")
    for name in CEILINGS:
        _is_object(content["arms"].get(name), where, f"'arms.{name}'")
        _check_arm(content["arms"][name], where, f"arms.{name}.")
    return content


def _check_arm(arm: dict[str, Any], where: str, prefix: str) -> None:
    for name in NUMBERS:
        _field(arm, name, where, lambda v: _number(v) and 0 <= v <= 1, "a number, 0 to 1", prefix)
    low, high = arm["fitted_low"], arm["fitted_high"]
    least = f"at least 'fitted_low' ({low:g})"
    _field(arm, "fitted_high", where, lambda v: v >= low, least, prefix)
    within = f"between 'fitted_low' and 'fitted_high' ({low:g} to {high:g})"
    _field(arm, "fitted", where, lambda v: low - 1e-3 <= v <= high + 1e-3, within, prefix)
    _field(arm, "latents", where, _names, "a list of names", prefix)


def _is_object(value: Any, where: str, what: str) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {what} is {json.dumps(value)[:40]}; allowed: an object {{...}}")


def _field(
    holder: dict, name: str, where: str, fits: Callable[[Any], Any], allowed: str, prefix: str = ""
) -> None:
    if name not in holder:
        raise InputError(f"{where}: '{prefix}{name}' is missing; allowed: {allowed}")
    if not fits(holder[name]):
        shown = json.dumps(holder[name])[:40]
        raise InputError(f"{where}: '{prefix}{name}' is {shown}; allowed: {allowed}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, float) or _whole(value)


def _names(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(v, str) for v in value)


def ceiling_of(arm: str, study: Study) -> tuple[str, str]:
    """Which of `CEILINGS` an arm is held against, or "" and the reason why none.

    What counts is what goes in. The vessel channel alone has a ceiling of its own; beside the CTA it
    adds nothing, since it is segmented from it. A mean of arms sees what its parts see.

    >>> from rlvo_lib.config import load_study
    >>> [ceiling_of(arm, load_study())[0] for arm in ("clinical_mlp", "vessels", "imaging", "late")]
    ['clinical', 'vessels', 'imaging', 'all']
    """
    if arm not in study.arms:
        return "", "not an arm of the study file"
    scans, tables = _inputs(arm, study)
    whole = {name for name, own in MODALITIES.items() if own <= scans}
    seen = whole | scans.difference(*(MODALITIES[name] for name in whole))
    seen -= {"vessels"} if "cta" in seen else set()
    if not tables and len(seen) == 1 and seen <= set(CEILINGS):
        return seen.pop(), ""
    if tables <= {"clinical"} and seen in (set(), ALL_IMAGING):
        return {(0, 1): "clinical", (1, 0): "imaging", (1, 1): "all"}[bool(seen), bool(tables)], ""
    return "", f"no ceiling is computed for {' + '.join(sorted(seen | tables))}"


def _inputs(arm: str, study: Study) -> tuple[set[str], set[str]]:
    """The scans and the predictor sets that go into an arm, or into any part of it."""
    own = study.arms[arm]
    tables = set(own.predictors)
    names, measures = list(own.channels), study.measures_of(own.measures)
    if own.kind == "concepts":
        for reader in study.readers.values():
            names += reader.channels
            measures += study.measures_of(reader.measures)
    scans = {study.channels[name].scan for name in names}
    if measures:  # of NCCT and CTA, or of the maps
        maps = {"cbf", "cbv", "tmax"} if set(measures) & set(PERFUSION_PARAMETERS) else set()
        scans |= maps | {"ncct", "cta"}
    if {"cbf", "cbv"} <= scans:
        scans.add("mtt")  # their ratio
    for part in (*own.of, *((own.offset,) if own.offset else ())):
        more = _inputs(part, study)
        scans, tables = scans | more[0], tables | more[1]
    return scans, tables


def share_of(
    auc: float, low: float, high: float, *, fitted: float, fitted_se: float
) -> tuple[float, float, float]:
    """Share of the achievable, (AUC - 0.5) / (fitted - 0.5), and its 95 % limits over patients.

    With D = fitted - 0.5 the AUC's distances to its own limits become (auc - low) / D and
    (high - auc) / D. The fitted ceiling's standard error adds z * share * fitted_se / D (delta method:
    the derivative of the share by it is -share / D). The two errors are independent, so distances are
    added as squares, each side for itself (Zou and Donner, Stat. Med. 2008).

    Parameters
    ----------
    fitted_se : standard error of ``fitted``, see `fitted_se`.

    Examples
    --------
    >>> [round(x, 3) for x in share_of(0.66, 0.63, 0.69, fitted=0.70, fitted_se=0.002)]
    [0.8, 0.649, 0.951]
    """
    span = fitted - 0.5
    share = (auc - 0.5) / span
    own = metrics.checks.quantile(0.95) * share * fitted_se / span
    below, above = np.hypot([(auc - low) / span, (high - auc) / span], own)
    return share, float(share - below), float(share + above)


def fitted_se(ceiling: dict[str, Any], name: str) -> float:
    """Standard error of a fitted ceiling as an estimate: of its replicate cohorts, and of the patients it
    was judged on (Hanley and McNeil), added as squares.
    """
    arm = ceiling["arms"][name]
    judged = ceiling["evaluated_on"]
    events = max(1, round(judged * ceiling["events_fitted"] / ceiling["n_fitted"]))
    cohorts = arm["fitted_sd"] / np.sqrt(ceiling["replicates"])
    return float(
        np.hypot(cohorts, metrics.hanley_mcneil_se(arm["fitted"], events=events, n=judged))
    )


def ceiling_table(
    ceiling: dict[str, Any],
    predictions: pd.DataFrame,
    performance: pd.DataFrame,
    study: Study,
    *,
    data: str,
) -> pd.DataFrame:
    """Every arm's AUC beside its ceilings, and the share of the achievable where that can be stated.

    The share needs at least 2,000 patients in the part that is reported on, a training part with about
    as many patients and events as the fitted ceiling's cohorts (20 % more or less; of it, each network's
    fold leaves a quarter out, and 15 % more to stop), the main definition of the outcome, and a fitted
    ceiling of at least 0.52. It holds for the models as they were trained on this one cohort;
    ``fitted_sd`` says how much another cohort would have given the knowing predictor.

    Parameters
    ----------
    ceiling : what `check_ceiling` gives.
    performance : the table of `rlvo_lib.results.performance`; its AUC is that of the ensemble.

    Returns
    -------
    DataFrame with the columns of `COLUMNS`: arm, label, ceiling (one of `CEILINGS`, or empty), infinite,
    fitted, fitted_sd, fitted_low, fitted_high (2.5 and 97.5 percentiles over cohorts), auc, auc_low,
    auc_high, share, share_low, share_high, n, events, reason (why there is no share), data.

    Raises
    ------
    InputError
        If the data are not simulated: of real patients no ceiling is known.
    """
    if data != "simulated":
        raise InputError(
            f"ceiling: data is '{data}'; allowed: simulated (no ceiling of real patients)"
        )
    predictions = check_predictions(predictions)
    held_out = predictions[predictions["partition"] == "out-of-fold"]
    trained = held_out.drop_duplicates(["arm", "participant_id"]).groupby("arm")["y_true"]
    trained = trained.agg(["size", "sum"])
    test = reported_partition(predictions) == "test"
    patients = "test patients" if test else "patients out of fold"
    rows = []
    for found in performance[performance["metric"] == "auc"].to_dict("records"):
        row = _row(found, ceiling, study)
        known = row["arm"] in trained.index
        size, events = trained.loc[row["arm"]].astype(int) if known else (0, 0)
        row |= _share(row, ceiling, (int(size), int(events)), patients)
        rows.append(row | {"data": data})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(found: dict[str, Any], ceiling: dict[str, Any], study: Study) -> dict[str, Any]:
    """An arm beside its ceilings, without the share."""
    arm = found["arm"]
    name, reason = ceiling_of(arm, study)
    if study.definition != MAIN:
        name, reason = "", f"the ceiling is that of the main outcome, not of '{study.definition}'"
    numbers = ceiling["arms"][name] if name else dict.fromkeys(NUMBERS, np.nan)
    row = {"arm": arm, "label": study.arms[arm].label if arm in study.arms else arm}
    row |= {"ceiling": name, "reason": reason} | {column: numbers[column] for column in NUMBERS}
    row |= {"auc": found["ensemble"], "auc_low": found["low"], "auc_high": found["high"]}
    return row | {"n": found["n"], "events": found["events"]}


def _share(
    row: dict[str, Any], ceiling: dict[str, Any], trained: tuple[int, int], patients: str
) -> dict[str, Any]:
    """The share with its limits, or empty cells and every reason why."""
    reasons = [row["reason"]] if row["reason"] else []
    if row["n"] < LEAST_PATIENTS:
        reasons.append(
            f"{row['n']} {patients}; {LEAST_PATIENTS:,} or more are needed (at 118 the share's standard "
            "error is about 0.4 and more)"
        )
    for what, name, found in zip(
        ("patients", "events"), ("n_fitted", "events_fitted"), trained, strict=True
    ):
        if abs(found - ceiling[name]) > SIZE_TOLERANCE * ceiling[name]:
            reasons.append(
                f"the ceiling was fitted on {ceiling[name]} {what}, the models on {found}"
            )
    if np.isnan([row["auc"], row["auc_low"], row["auc_high"]]).any():
        reasons.append("the AUC or its interval is undefined")
    if row["fitted"] - 0.5 < LEAST_SPAN:
        reasons.append(f"the fitted ceiling is {row['fitted']:.3f}: a share of nothing")
    empty = dict.fromkeys(("share", "share_low", "share_high"), np.nan)
    if reasons:
        return empty | {"reason": "; ".join(reasons)}
    se = fitted_se(ceiling, row["ceiling"])
    found = share_of(
        row["auc"], row["auc_low"], row["auc_high"], fitted=row["fitted"], fitted_se=se
    )
    return dict(zip(empty, found, strict=True)) | {"reason": ""}
