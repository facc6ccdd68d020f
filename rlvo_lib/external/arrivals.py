"""The other dataset: checked as any other, without a split; who of it is new, and which arms can score whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rlvo_lib import cohort, dataset, experiment, preprocess, validation
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError, Study
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.external.frozen import FrozenRun
from rlvo_lib.preprocess import TensorCache

#: Why a patient is left out whom the models know.
KNOWN = "also in the training part of the run"
AVAILABILITY_COLUMNS = ["arm", "label", "n", "events", "left_out", "applied", "reason"]


@dataclass(frozen=True)
class Arrivals:
    """The patients of another dataset, under the run's study file, dictionary and settings."""

    analysis: Analysis  # frame, dataset and an all-test split of the new patients
    tensors: TensorCache
    known: int  # patients left out since they are also in the run's training part
    seen_in_test: int  # patients kept who are also in the run's test set
    no_outcome: str  # why nothing can be judged; empty if it can


def open_arrivals(root: str | Path, run: FrozenRun) -> Arrivals:
    """Read another dataset for a frozen run.

    Patients who are also in the run's training part, by their content (`twins`), are left out, as a step
    of the eligibility flow. A dataset without outcomes, or with one outcome only, can be scored but not
    judged.

    Raises
    ------
    InputError
        If the dataset has faults, is simulated where the run's is real or the reverse, or nobody of it
        is eligible or new.
    """
    root, settings, words = Path(root), run.analysis.settings, run.analysis.dictionary
    if not root.is_dir():
        raise InputError(f"dataset folder {root} does not exist")
    study, known_outcome = _study_for(root, settings.study, words)
    _refuse_faults(root, study, words)
    data = dataset.load_dataset(root, study, words)
    if data.kind != run.info["data"]:
        raise InputError(
            f"{root}: the data are {data.kind}, those of the run {run.info['data']}; allowed: a run and "
            "a dataset of one kind, so that simulated patients are never taken for real ones"
        )
    twins = _twins(data.raw, run)
    left_out = {p: KNOWN for p, part in twins.items() if part == "train"}
    exclusions = dataclasses.replace(data.exclusions, patients=data.exclusions.patients | left_out)
    data = dataclasses.replace(data, exclusions=exclusions)
    frame = cohort.build(data, study, words)
    members = cohort.included(frame).index
    split = pd.DataFrame({"participant_id": sorted(members), "partition": "test", "fold": ""})
    own = dataclasses.replace(settings, data=root, study=study)
    analysis = Analysis(own, words, data, frame, split)
    tensors = preprocess.prepare(data, own, list(split["participant_id"]))
    seen = sum(part == "test" for patient, part in twins.items() if patient in members)
    return Arrivals(analysis, tensors, len(left_out), seen, _no_outcome(analysis, known_outcome))


def _study_for(root: Path, study: Study, words: Dictionary) -> tuple[Study, bool]:
    """The study, without its outcome where nobody's is known; and whether it is."""
    if cohort.outcome_is_known(dataset.read_participants(root), study, words):
        return study, True
    rules = tuple(rule for rule in study.eligibility if rule.op != "label-known")
    return dataclasses.replace(study, criteria=(), eligibility=rules, consistency=()), False


def _refuse_faults(root: Path, study: Study, words: Dictionary) -> None:
    """An `InputError` for the first error, but what folds would need, and columns that arms may lack."""
    lenient = dataclasses.replace(study, optional_predictors=tuple(study.predictors))
    faults = validation.validate(root, lenient, words)
    errors = faults[(faults["severity"] == "error")]
    errors = errors[~errors["where"].isin((study.outcome, "split.csv"))]
    if len(errors):
        first = errors.iloc[0]
        patient = f"patient '{first.participant_id}', " if first.participant_id else ""
        raise InputError(
            f"{root}: {patient}{first['where']}: {first.message}; allowed: {first.allowed} "
            f"({len(errors)} errors in all: `rlvo validate` lists them)"
        )


def _twins(raw: pd.DataFrame, run: FrozenRun) -> dict[str, str]:
    """The patients who are also among the run's by content, each with the part they are in there."""
    own = run.analysis.dataset.raw
    part = run.analysis.split.set_index("participant_id")["partition"]
    own = own.loc[part.index]
    columns = [c for c in own.columns if c in raw.columns]
    both = pd.concat([own[columns], raw[columns]], keys=["run", "other"])
    group = dataset.content_groups(both, run.analysis.dictionary)
    where = group["run"].to_frame("group").assign(part=part)
    parts = where.groupby("group")["part"].agg(
        lambda names: "train" if "train" in set(names) else "test"
    )
    found = group["other"].map(parts)
    return found.dropna().to_dict()


def _no_outcome(analysis: Analysis, known: bool) -> str:
    if not known:
        return "the outcome of nobody is known: scored, not judged"
    if analysis.y.nunique() < 2:
        which = "with" if analysis.y.iloc[0] == 1 else "without"
        return f"all {len(analysis.y)} patients are {which} the outcome: scored, not judged"
    return ""


# --------------------------------------------------------------------------------- availability


def availability(
    run: FrozenRun,
    arrivals: Arrivals,
    together: Analysis,
    tensors: TensorCache,
    arms: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Which arms of the run can score which of the new patients.

    An arm is left out if a column that it learnt from has no value in the new dataset, if no patient
    has the scans it needs, or, where outcomes are known, if the patients left have not both.

    Parameters
    ----------
    together : run and new patients in one (`scoring.together`), with their tensors.
    arms : those to apply; left out: all that the run reports.

    Returns
    -------
    DataFrame with arm, label, n, events, left_out (patients), applied, reason.

    Raises
    ------
    InputError
        For an arm that the run does not report.
    """
    for name in arms or ():
        if name not in run.arms:
            raise InputError(f"arm '{name}' is not in the run; allowed: {', '.join(run.arms)}")
    study, rows, used = run.analysis.settings.study, [], {}
    new = list(arrivals.analysis.split["participant_id"])
    for name in run.arms if arms is None else arms:
        arm = study.arms[name]
        reasons = [_lacking(run, arrivals, part) for part in _all_parts(study, arm)]
        ids = _usable(study, arm, new, together, tensors, used)
        reason = next((text for text in reasons if text), "") or _too_few(arrivals, ids)
        events = int(arrivals.analysis.y.reindex(ids).sum()) if not arrivals.no_outcome else 0
        rows.append((name, arm.label, len(ids), events, len(new) - len(ids), not reason, reason))
    return pd.DataFrame(rows, columns=AVAILABILITY_COLUMNS)


def _all_parts(study: Study, arm: Arm) -> list[Arm]:
    """An arm, and all that it is made of or starts from."""
    below = [study.arms[name] for name in (*arm.of, arm.offset) if name]
    return [arm, *(part for one in below for part in _all_parts(study, one))]


def _lacking(run: FrozenRun, arrivals: Arrivals, arm: Arm) -> str:
    """Which column of an arm has no value in the new dataset, though the run learnt from it."""
    ours, theirs = run.analysis.dataset.table, arrivals.analysis.dataset.table
    ids = arrivals.analysis.split["participant_id"]
    for column in run.analysis.settings.study.columns_of(arm):
        if column in ours and ours[column].notna().any():
            if column not in theirs:
                return f"column '{column}' is missing"
            if theirs.loc[ids, column].isna().all():
                return f"column '{column}' has no value in any patient"
    return ""


def _usable(
    study: Study, arm: Arm, new: list[str], together: Analysis, tensors: TensorCache, memo: dict
) -> list[str]:
    """The new patients whom an arm, and each that it is made of, can score."""
    from rlvo_lib.external.scoring import PREFIX

    left = set(new)
    for part in _all_parts(study, arm):
        if part.kind in ("mean", "stack"):
            continue
        if part.name not in memo:
            table = experiment.arm_patients(together, tensors, part)
            memo[part.name] = set(table["participant_id"][table["used"]])
        left = {p for p in left if PREFIX + p in memo[part.name]}
    return sorted(left)


def _too_few(arrivals: Arrivals, ids: list[str]) -> str:
    if not ids:
        return "no patient has the scans it needs"
    if not arrivals.no_outcome and arrivals.analysis.y.reindex(ids).nunique() < 2:
        return f"{len(ids)} patients left, not both outcomes"
    return ""
