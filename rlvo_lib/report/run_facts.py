"""What a run knows of itself, in words: the facts that a reporting checklist asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from rlvo_lib import storage
from rlvo_lib.config import Study
from rlvo_lib.report.provenance import run_study
from rlvo_lib.report.table_files import cell, read_text_table


def facts(run: str | Path) -> dict[str, str]:
    """Facts by name, from ``run.json``, the study file and the tables; one the run lacks is left out."""
    run = Path(run)
    info = storage.read_json(run / "run.json")
    study = run_study(run, info)
    found = {"data": info["data"]} | _of_study(study) | _of_settings(info, study)
    found["design"] = _given_design(run, study) or _design(study.validation)
    return (
        found
        | _of_cohort(run, study)
        | _of_counts(run)
        | _of_missing(run)
        | _of_results(run, study)
    )


def _of_study(study: Study) -> dict[str, str]:
    arms = [arm for arm in study.arms.values() if not arm.on_request]
    kinds = dict.fromkeys(arm.kind for arm in arms)
    return {
        "question": study.question,
        "outcome_label": study.outcome_label,
        "outcome_rule": "; ".join(rule.text for rule in study.criteria),
        "eligibility": "; ".join(rule.text for rule in study.eligibility),
        "predictors": str(len(study.predictors.get("clinical", ()))),
        "arms": str(len(arms)),
        "arm_kinds": ", ".join(f"{sum(a.kind == k for a in arms)} {k}" for k in kinds),
        "inner": f"{100 * study.validation.get('inner_fraction', 0):g} %",
        "folds": str(study.validation.get("folds", "")),
        "comparisons": str(len(study.comparisons)),
        "subgroups": ", ".join(group.text for group in study.subgroups),
        "threshold_rule": str(study.threshold.get("rule", "")),
        "chosen_on": str(study.threshold.get("chosen_on", "")),
    }


def _given_design(run: Path, study: Study) -> str:
    """The design where the dataset brought the split: how it was drawn is not known to the run."""
    path = run / "split.json"
    if not path.exists() or not storage.read_json(path).get("plan", {}).get("given"):
        return ""
    rest = f"{study.validation.get('folds')} folds"
    return (
        f"a split that came with the dataset (split.csv): how it was drawn is not recorded; {rest}"
    )


def _design(plan: dict[str, Any]) -> str:
    folds = f"{plan.get('folds')} folds" + (
        ", stratified by outcome" if plan.get("stratified") else ""
    )
    if plan.get("design") != "holdout":
        return f"cross-validation, {folds}, {plan.get('repeats', 1)} times"
    share = f"{100 * plan.get('test_fraction', 0):g} %"
    how = {
        "random": f"{share} drawn at random",
        "stratified": f"{share} drawn at random, stratified by outcome",
        "date": f"the latest {share}",
        "centre": "whole centres",
    }[plan.get("holdout", "random")]
    return f"a test set of {how}; {folds}, in the rest"


def _of_settings(info: dict[str, Any], study: Study) -> dict[str, str]:
    settings, software = info["settings"], info["software"]
    grid = settings.get("grid_shape", ())
    imbalance = settings.get("imbalance", "")
    found = {
        "dataset": str(info["dataset"].get("name", "")),
        "version": str(software["rlvo-repro"]),
        "commit": str(software["commit"] or "not a checkout"),
        "indicators": " with a missing indicator"
        if settings.get("missing_indicators")
        else ", no indicator",
    }
    if grid:
        found["grid"] = f"{'×'.join(map(str, grid))} voxels of {settings['grid_spacing_mm']:g} mm"
    if imbalance:
        none = "no weights, no resampling: probabilities keep the prevalence"
        found["imbalance"] = none if imbalance == "none" else f"{imbalance}, of the networks"
    if "recalibrate" in settings:
        on = "logistic recalibration on the out-of-fold predictions"
        found["recalibration"] = on if settings["recalibrate"] else "none: no model is updated"
    if settings.get("absent"):
        words = {"leave-out": "a patient without a scan is not scored by models that need it"}
        found["absent"] = words.get(settings["absent"], "models are told which scan is absent")
    if info["data"] == "simulated":
        found["sharing"] = "simulated patients, made again from the seed in run.json"
    return found


def _of_cohort(run: Path, study: Study) -> dict[str, str]:
    if not (run / "cohort.csv").exists():
        return {}
    frame = read_text_table(run / "cohort.csv")
    if "included" in frame:
        frame = frame[frame["included"] == "1"]
    found, plan = {}, study.validation
    dates, centre = plan.get("date_column", ""), plan.get("centre_column", "")
    if dates in frame:
        years = sorted({text[:4] for text in frame[dates] if text[:4].isdigit()})
        found["years"] = "–".join(dict.fromkeys(years[:1] + years[-1:]))
    if centre in frame:
        n = frame.loc[frame[centre] != "", centre].nunique()
        found["centres"] = f"{n} centre{'s' if n != 1 else ''}" if n else ""
    return found


def _table(run: Path, name: str) -> pd.DataFrame | None:
    path = run / "tables" / f"{name}.csv"
    return read_text_table(path) if path.exists() else None


def _of_counts(run: Path) -> dict[str, str]:
    found = {}
    flow, counts = _table(run, "flow"), _table(run, "split_counts")
    if flow is not None and len(flow):
        found |= {"assessed": flow["n"].iloc[0], "included": flow["n"].iloc[-1]}
    if counts is not None:
        whole = counts[counts["fold"] == "all"].set_index("partition")
        names = {"train": "training part", "test": "test set"}
        parts = [
            f"{words}: {whole.at[part, 'n']} patients, {whole.at[part, 'events']} events"
            for part, words in names.items()
            if part in whole.index
        ]
        found["parts"] = "; ".join(parts)
        if "all" in whole.index:
            found |= {"n_all": whole.at["all", "n"], "events_all": whole.at["all", "events"]}
    return found


def _of_missing(run: Path) -> dict[str, str]:
    table = _table(run, "missingness")
    if table is None or table.empty:
        return {}
    share = table["share"].astype(float)
    some = int((share > 0).sum())
    if not some:
        return {"missing": f"none in {len(table)} variables"}
    worst = f"{table['variable'][share.idxmax()]}, {100 * share.max():.1f} %"
    return {"missing": f"values missing in {some} of {len(table)} variables, most in {worst}"}


def _of_results(run: Path, study: Study) -> dict[str, str]:
    """The AUC of the arms compared in advance, with the intervals over patients."""
    table = _table(run, "performance")
    if table is None:
        return {}
    named = list(dict.fromkeys(arm for pair in study.comparisons for arm in pair))
    auc = table[table["metric"] == "auc"].set_index("arm")
    texts = [
        f"{study.arms[arm].label} {cell(auc.at[arm, 'ensemble'])} "
        f"[{cell(auc.at[arm, 'low'])}, {cell(auc.at[arm, 'high'])}]"
        for arm in named
        if arm in auc.index and arm in study.arms
    ]
    return {"performance": f"AUC with 95 % interval: {'; '.join(texts)}"} if texts else {}
