"""Which arms of the study file can run, on which patients."""

from __future__ import annotations

import itertools

import pandas as pd

from rlvo_lib import cohort
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, Study
from rlvo_lib.preprocess import TensorCache

#: Arms made of others' predictions, without a task of their own.
COMBINED = ("mean", "stack")
#: Arms that are networks, and so have an inner part that stops their training.
NETWORKS = ("cnn", "mlp")


def arm_needs(analysis: Analysis, arm: Arm) -> list[tuple[str, tuple[str, ...]]]:
    """The views (empty: the model tensor) and channels that a patient must have for an arm."""
    needs = [("", arm.channels)] if arm.channels else []
    if arm.kind == "concepts":
        readers = analysis.settings.study.readers.values()
        needs += [(reader.view, reader.channels) for reader in readers]
    return needs


def arm_patients(analysis: Analysis, cache: TensorCache | None, arm: Arm) -> pd.DataFrame:
    """Which eligible patients an arm can use: participant_id, used, reason.

    A patient who lacks one of the arm's channels, or in whom nothing of its measures could be measured,
    is left out of it, with the reason; with the setting
    ``absent = "flag"`` a network takes everybody who has one of them.
    """
    eligible = sorted(cohort.included(analysis.frame).index)
    needs = arm_needs(analysis, arm)
    if not cache and (needs or arm.measures):
        missing = dict.fromkeys(eligible, "no scans")
    elif analysis.settings.absent == "flag" and arm.kind == "cnn":
        missing = _without_any(cache, eligible, arm)
    else:
        missing = {}
        if arm.kind == "concepts" and (reason := _unreadable(analysis, cache)):
            missing = dict.fromkeys(eligible, reason)
        for view, channels in needs:
            missing = cache.missing(eligible, channels, view) | missing
        if arm.measures:
            missing = _without_measures(analysis, cache, eligible, arm) | missing
    frame = pd.DataFrame({"participant_id": eligible})
    frame["reason"] = [missing.get(participant, "") for participant in eligible]
    return frame.assign(used=frame["reason"] == "")


def _unreadable(analysis: Analysis, cache: TensorCache) -> str:
    """Why the readers cannot learn what they are to read; empty if they can."""
    table, study = analysis.dataset.table, analysis.settings.study
    for reader in study.readers.values():
        for concept in reader.concepts:
            if concept not in table or table[concept].isna().all():
                return f"concept '{concept}' is recorded in nobody"
        for name in study.measures_of(reader.measures):
            if name not in cache.table:
                return f"'{name}' is measured in nobody's scans"
    return ""


def _without_measures(
    analysis: Analysis, cache: TensorCache, eligible: list[str], arm: Arm
) -> dict[str, str]:
    """The patients in whom none of an arm's measures is known; all, where one is known of nobody."""
    names = list(analysis.settings.study.measures_of(arm.measures))
    for name in names:
        if name not in cache.table:
            return dict.fromkeys(eligible, f"'{name}' is measured in nobody's scans")
    empty = cache.table.loc[eligible, names].isna().all(axis=1)
    return {p: "nothing measured in the scans" for p in eligible if empty[p]}


def _without_any(cache: TensorCache, eligible: list[str], arm: Arm) -> dict[str, str]:
    """The patients who have none of an arm's channels; all, where one is nobody's."""
    lacking = cache.missing(eligible, arm.channels)
    present = cache.present(eligible, arm.channels)
    for name in [
        c for c, known in zip(arm.channels, present.any(axis=0), strict=True) if not known
    ]:
        return dict.fromkeys(eligible, f"nobody has channel '{name}'")
    some = dict(zip(eligible, present.any(axis=1), strict=True))
    return {p: reason for p, reason in lacking.items() if not some[p]}


def ladder(analysis: Analysis, cache: TensorCache | None) -> pd.DataFrame:
    """The study's arms, the patients each can use, and whether it runs.

    An arm runs if each fold keeps both outcomes to train on, and someone to stop the training and to
    be held out, and the test set, if there is one, keeps both outcomes. An arm made of others runs if all
    of them do.

    Returns
    -------
    DataFrame with arm, label, kind, fusion, channels and predictors (numbers of), n, events, left_out
    (patients), runs, reason.
    """
    study, rows, runs, has = analysis.settings.study, [], {}, {}
    asked = set(_with_parts(study, analysis.settings.arms))
    for name, arm in study.arms.items():
        usable = arm_patients(analysis, cache, arm)
        used = set(usable["participant_id"][usable["used"]])
        if arm.kind in COMBINED:
            used = set.intersection(*(has[part] for part in arm.of))
        has[name] = used
        if (asked and name not in asked) or (arm.on_request and name not in asked):
            reason = "not asked for"
        elif arm.kind in COMBINED:
            lacking = [part for part in arm.of if not runs[part]]
            reason = f"arm {', '.join(lacking)} does not run" if lacking else ""
        else:
            seen = [arm, *(study.arms[below] for below in (arm.offset, arm.teacher) if below)]
            absent = [c for one in seen for c in study.columns_of(one)]
            absent = [c for c in absent if c not in analysis.dataset.table]
            reason = f"column '{absent[0]}' is missing" if absent else _why_not(analysis, used)
            left_out = usable.loc[~usable["used"], "reason"]
            if reason and len(left_out):
                reason += f" ({left_out.mode()[0]})"
        runs[name] = not reason
        predictors = len(study.columns_of(arm)) + len(study.measures_of(arm.measures))
        rows.append(
            (name, arm.label, arm.kind, arm.fusion, len(arm.channels), predictors,
             len(used), int(analysis.y[sorted(used)].sum()), len(usable) - len(used), not reason, reason)
        )  # fmt: skip
    columns = ["arm", "label", "kind", "fusion", "channels", "predictors", "n", "events", "left_out",
               "runs", "reason"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _with_parts(study: Study, names: tuple[str, ...]) -> list[str]:
    """Some arms, and all that they are made of, start from or are taught by."""
    arms = [study.arms[name] for name in names]
    own = [part for arm in arms for part in (*arm.of, arm.offset, arm.teacher) if part]
    return [*names, *(_with_parts(study, tuple(own)) if own else ())]


def _why_not(analysis: Analysis, used: set[str]) -> str:
    """Why an arm with these patients cannot be trained and judged; empty if it can."""
    folds = range(1, analysis.settings.study.validation["folds"] + 1)
    repetitions = analysis.seeds if analysis.settings.study.repeats > 1 else analysis.seeds[:1]
    for seed, fold in itertools.product(repetitions, folds):
        parts = {
            name: [p for p in ids if p in used]
            for name, ids in analysis.fold_parts(fold, seed).items()
        }
        if analysis.y[parts["train"]].nunique() < 2:
            return (
                f"fold {fold}: {len(parts['train'])} patients left to train on, not both outcomes"
            )
        for part in ("inner", "held_out"):
            if not parts[part]:
                return f"fold {fold}: no patient left in the {part} part"
    if (analysis.split["partition"] == "test").any() and analysis.y[parts["test"]].nunique() < 2:
        return f"test set: {len(parts['test'])} patients left, not both outcomes"
    return ""


def explained_arm(analysis: Analysis, cache: TensorCache | None) -> str:
    """The arm to explain: the study's, or the first network of predictors where that cannot run.

    Empty if no such network runs: there is nothing to explain.
    """
    study = analysis.settings.study
    runs = set(ladder(analysis, cache).query("runs")["arm"])
    networks = [
        arm.name
        for arm in study.arms.values()
        if arm.kind in NETWORKS and arm.predictors and not arm.measures
    ]
    for name in (study.explain_arm, *networks):
        if name in runs:
            return name
    return ""
