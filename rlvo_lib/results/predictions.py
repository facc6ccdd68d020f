"""The predictions of a run: checked, averaged over folds, and the thresholds chosen from them.

A predictions frame has one row a patient and model: participant_id, partition (``out-of-fold`` or
``test``), arm, seed, fold, y_true (0 or 1), probability (0..1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError, Study

Partition = Literal["out-of-fold", "test"]
COLUMNS = ("participant_id", "partition", "arm", "seed", "fold", "y_true", "probability")
KEY = ["participant_id", "partition", "arm", "seed", "fold"]


def check_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions, sorted, or an `InputError` that names the first fault."""
    missing = [c for c in COLUMNS if c not in predictions]
    if missing:
        raise InputError(
            f"predictions: column '{missing[0]}' is missing; needed: {', '.join(COLUMNS)}"
        )
    if predictions.empty:
        raise InputError("predictions: no rows; train at least one arm first")
    for column, allowed in (("partition", ["out-of-fold", "test"]), ("y_true", [0, 1])):
        strange = predictions[~predictions[column].isin(allowed)]
        if len(strange):
            row = strange.iloc[0]
            raise InputError(
                f"predictions: patient '{row.participant_id}', {column} is '{row[column]}'; "
                f"allowed: {' or '.join(map(str, allowed))}"
            )
    outside = predictions[~predictions["probability"].between(0, 1)]
    if len(outside):
        row = outside.iloc[0]
        raise InputError(
            f"predictions: patient '{row.participant_id}', arm '{row.arm}': probability "
            f"{row.probability:g}; allowed: 0 to 1"
        )
    doubled = predictions[predictions.duplicated(KEY)]
    if len(doubled):
        row = doubled.iloc[0]
        raise InputError(
            f"predictions: patient '{row.participant_id}' is scored twice by arm '{row.arm}', "
            f"seed {row.seed}, fold {row.fold} ({row.partition})"
        )
    labels = predictions.groupby("participant_id")["y_true"].nunique()
    if (labels > 1).any():
        raise InputError(f"predictions: patient '{labels.idxmax()}' has two different labels")
    return predictions.sort_values(["arm", "seed", "partition", "fold", "participant_id"])


def reported_partition(predictions: pd.DataFrame) -> Partition:
    """Where results are reported: the test set if there is one, else the held-out folds."""
    return "test" if (predictions["partition"] == "test").any() else "out-of-fold"


def ensembles(predictions: pd.DataFrame, partition: Partition) -> pd.DataFrame:
    """One probability a patient, arm and seed: the mean over the fold models that scored the patient.

    In the test set that is the fold ensemble; out of fold, each patient was scored by one model.

    Returns
    -------
    DataFrame with arm, seed, participant_id, y_true, probability, n_models; sorted.
    """
    rows = predictions[predictions["partition"] == partition]
    grouped = rows.groupby(["arm", "seed", "participant_id"], sort=True)
    return grouped.agg(
        y_true=("y_true", "first"), probability=("probability", "mean"), n_models=("fold", "size")
    ).reset_index()


def patient_risk(predictions: pd.DataFrame, partition: Partition) -> pd.DataFrame:
    """One probability a patient and arm: the mean over the seeds of `ensembles`.

    Returns
    -------
    DataFrame with arm, participant_id, y_true, probability; sorted.
    """
    grouped = ensembles(predictions, partition).groupby(["arm", "participant_id"], sort=True)
    return grouped.agg(
        y_true=("y_true", "first"), probability=("probability", "mean")
    ).reset_index()


def arms_in_order(arms: Iterable[str], order: Iterable[str] = ()) -> list[str]:
    """The arms that were run: first those of the study, in its order, then any other by name."""
    present = set(arms)
    known = [arm for arm in order if arm in present]
    return known + sorted(present - set(known))


def main_arms(study: Study, present: Iterable[str]) -> list[str]:
    """The arms that the study file compares, of those present, in its order; all, if none of them is.

    Curves, decision curves and subgroups are stored for these alone.
    """
    named = {arm for pair in study.comparisons for arm in pair}
    ordered = arms_in_order(present, study.arms)
    return [arm for arm in ordered if arm in named] or ordered


def reported(predictions: pd.DataFrame, study: Study, *, main: bool = False) -> list[Scores]:
    """The arms (``main``: `main_arms`) where results are reported, in the study file's order."""
    predictions = check_predictions(predictions)
    frame = ensembles(predictions, reported_partition(predictions))
    if main:
        frame = frame[frame["arm"].isin(main_arms(study, frame["arm"]))]
    return list(scores_of(frame, study.arms))


@dataclass(frozen=True)
class Scores:
    """One arm's probabilities on the same patients: one column a seed (an ensemble each)."""

    arm: str
    participants: tuple[str, ...]
    y: np.ndarray  # (n,)
    p: np.ndarray  # (n, seeds)
    seeds: tuple[Any, ...]


def scores_of(frame: pd.DataFrame, order: Iterable[str] = ()) -> Iterator[Scores]:
    """The arms of an `ensembles` frame, each with its seeds side by side."""
    for arm in arms_in_order(frame["arm"], order):
        rows = frame[frame["arm"] == arm]
        wide = rows.pivot(index="participant_id", columns="seed", values="probability").sort_index()
        if wide.isna().any(axis=None):
            raise InputError(
                f"predictions: the seeds of arm '{arm}' did not score the same patients"
            )
        y = rows.groupby("participant_id")["y_true"].first().reindex(wide.index)
        if y.nunique() < 2:
            raise InputError(
                f"predictions: all {len(y)} patients that arm '{arm}' is judged on have outcome "
                f"{y.iloc[0]}; needed: some with and some without it"
            )
        yield Scores(
            arm, tuple(wide.index), y.to_numpy(int), wide.to_numpy(float), tuple(wide.columns)
        )


def choose_thresholds(
    predictions: pd.DataFrame, *, rule: str = "max-f1", chosen_on: Partition = "out-of-fold"
) -> pd.DataFrame:
    """One threshold an arm and seed, from the pooled out-of-fold predictions.

    Each training patient is scored once, by the fold model that did not see them. The threshold is
    used for the fold models and for their ensemble alike; the test set plays no part.

    Returns
    -------
    DataFrame with arm, seed, rule, threshold, chosen_on, n, events: what ``thresholds.csv`` holds.
    """
    if chosen_on != "out-of-fold":
        raise InputError(f"thresholds: chosen_on is '{chosen_on}'; allowed: out-of-fold")
    pooled = ensembles(check_predictions(predictions), "out-of-fold")
    if pooled.empty:
        raise InputError("predictions: no out-of-fold rows to choose a threshold from")
    rows = []
    for (arm, seed), group in pooled.groupby(["arm", "seed"], sort=True):
        y = group["y_true"].to_numpy()
        threshold = metrics.threshold_by(y, group["probability"], rule=rule)
        rows.append((arm, seed, rule, threshold, chosen_on, y.size, int(y.sum())))
    columns = ["arm", "seed", "rule", "threshold", "chosen_on", "n", "events"]
    return pd.DataFrame(rows, columns=columns)


def rule_text(thresholds: pd.DataFrame, *, same_patients: bool) -> str:
    """How the thresholds were chosen and on what; judged on the same patients, they are optimistic."""
    rules = " / ".join(sorted(set(thresholds["rule"] + " on pooled " + thresholds["chosen_on"])))
    return f"{rules} (the same patients: optimistic)" if same_patients else rules


def threshold_of(thresholds: pd.DataFrame, arm: str, seed: Any) -> float:
    """The threshold of one arm and seed."""
    row = thresholds[(thresholds["arm"] == arm) & (thresholds["seed"] == seed)]
    if len(row) != 1:
        raise InputError(f"thresholds: {len(row)} rows for arm '{arm}', seed {seed}; needed: one")
    return float(row["threshold"].iloc[0])


def averaged_repetitions(predictions: pd.DataFrame) -> pd.DataFrame:
    """A repeated cross-validation as one: each patient's mean probability over the repetitions that scored them.

    What a model made of as many as there are repetitions would say; the AUC of a mean is not the mean of the AUCs,
    and the less alike the repetitions are the higher it is. Out-of-fold rows only; seed and fold are the first's.

    Returns
    -------
    DataFrame with the columns of ``predictions.csv``; empty without out-of-fold rows.
    """
    rows = predictions[predictions["partition"] == "out-of-fold"]
    mean = rows.groupby(["arm", "participant_id"])["probability"].mean().rename("mean")
    first = rows.sort_values("seed", kind="stable").drop_duplicates(["arm", "participant_id"])
    first = first.assign(seed=int(rows["seed"].min()) if len(rows) else 0)
    joined = first.merge(mean, on=["arm", "participant_id"]).sort_index()
    return joined.assign(probability=joined["mean"]).drop(columns="mean")
