"""Who must be in the predictions: every seed and fold of the run, and every patient whom an arm can score.

A patient, a seed or a fold model that is left out of the predictions and of all that is made from them
leaves a run that agrees with itself; it does not agree with the split and the settings.
"""

from __future__ import annotations

import pandas as pd

from rlvo_lib import cohort
from rlvo_lib.config import Arm, Study
from rlvo_lib.verify.cells import row
from rlvo_lib.verify.run import Run

WHERE = "predictions.csv"
PARTS = {"out-of-fold": "train", "test": "test"}


def membership(run: Run, frame: pd.DataFrame) -> list[tuple]:
    """The rows of these checks; ``frame`` holds the checked predictions."""
    missing = [*_seeds(run, frame), *_folds(run, frame), *_models(frame), *_patients(run, frame)]
    return missing or [row("nobody is left out", WHERE, f"{len(frame)} rows", "as the split", True)]


def _seeds(run: Run, frame: pd.DataFrame) -> list[tuple]:
    """Each arm has the training seeds of the settings (of repeated cross-validation: the repetitions)."""
    repeats = run.study.repeats
    given = range(repeats) if repeats > 1 else run.info["settings"].get("training_seeds")
    if given is None:
        return []
    wanted = sorted(int(seed) for seed in given)
    found = frame.groupby("arm")["seed"].unique()
    return [
        row("seeds are those of the settings", f"{WHERE}: {arm}", sorted(map(int, seeds)), wanted, False)
        for arm, seeds in found.items()
        if sorted(map(int, seeds)) != wanted
    ]  # fmt: skip


def _folds(run: Run, frame: pd.DataFrame) -> list[tuple]:
    """Each arm and seed has a model of every fold."""
    rows = []
    for (partition, arm, seed), group in frame.groupby(["partition", "arm", "seed"]):
        column = cohort.fold_column(run.study, seed)
        folds = set(run.split[column]) - {""} if column in run.split else set()
        if not folds:  # an applied run has none of its own
            folds = {str(k + 1) for k in range(run.study.validation.get("folds", 0))}
        found = set(group["fold"].astype(str))
        if folds and found != folds:
            where = f"{WHERE}: {arm}, seed {seed}, {partition}"
            rows.append(row("a model of every fold", where, sorted(found), sorted(folds), False))
    return rows


def _models(frame: pd.DataFrame) -> list[tuple]:
    """All fold models and seeds of an arm scored the same test patients."""
    test, rows = frame[frame["partition"] == "test"], []
    for arm, group in test.groupby("arm"):
        models = len(group[["seed", "fold"]].drop_duplicates())
        times = group["participant_id"].value_counts()
        short = times[times != models]
        if len(short):
            where = f"{WHERE}: {arm}, patient {min(short.index)}"
            rows.append(row("scored by each model", where, short[min(short.index)], models, False))
    return rows


def _patients(run: Run, frame: pd.DataFrame) -> list[tuple]:
    """Everyone of the split is scored: by each arm that needs no scan, and by some arm at least."""
    rows, study = [], run.study
    for partition, part in PARTS.items():
        here = frame[frame["partition"] == partition]
        if here.empty:
            continue
        members = set(run.split.loc[run.split["partition"] == part, "participant_id"])
        scored = {f"{arm}, {partition}": set(ids) for arm, ids in here.groupby("arm")["participant_id"]
                  if arm in study.arms and not _needs_scans(study, study.arms[arm])}  # fmt: skip
        for name, ids in {**scored, f"any arm, {partition}": set(here["participant_id"])}.items():
            if absent := sorted(members - ids):
                where = f"{WHERE}: {name}, patient {absent[0]}"
                text = f"scored ({len(absent)} of {len(members)} are not)"
                rows.append(row("everyone of the split is scored", where, "missing", text, False))
    return rows


def _needs_scans(study: Study, arm: Arm) -> bool:
    """Whether a patient without scans is left out of an arm, or of one that it is made of."""
    below = [study.arms[name] for name in (*arm.of, arm.offset) if name]
    own = bool(arm.channels or arm.measures or arm.kind == "concepts")
    return own or any(_needs_scans(study, part) for part in below)
