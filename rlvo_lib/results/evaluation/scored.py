"""One score of the patients who have it and an outcome, and which columns are scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError
from rlvo_lib.intake.scores import absent
from rlvo_lib.results.evaluation.outcomes import read_outcome
from rlvo_lib.results.probabilities import CLIP

#: Columns by which patients are told apart, if there; capitals do not count.
ID_COLUMNS = (
    "participant_id", "patient_id", "subject_id", "case_id", "record_id", "id", "patient", "subject",
)  # fmt: skip
#: Columns of a table that has several rows a patient: a model each.
MODEL_COLUMNS = ("arm", "model", "seed", "fold", "partition", "repeat")


SAME_PATIENTS = "chosen on these same patients: optimistic"
ELSEWHERE = "given, chosen elsewhere"


@dataclass(frozen=True)
class Scored:
    """The patients with an outcome and this score; what several tables need is computed once."""

    name: str
    rows: np.ndarray  # (n,) their places in the table
    y: np.ndarray  # (n,) 0 and 1
    s: np.ndarray  # (n,) finite
    without_outcome: int
    without_score: int
    threshold: float | None  # chosen elsewhere

    @property
    def probability(self) -> bool:
        """Whether all values lie within 0 to 1."""
        return bool(self.s.min() >= 0 and self.s.max() <= 1)

    @property
    def reason(self) -> str:
        """Why the score cannot be judged as a probability; empty if it can."""
        if self.probability:
            return ""
        low, high = f"{self.s.min():g}", f"{self.s.max():g}"
        percent = self.s.min() >= 0 and 1 < self.s.max() <= 100
        hint = "; if they are percent, divide by 100" if percent else ""
        return (
            f"not a probability (values {low} to {high}, not rescaled{hint}): discrimination only"
        )

    @cached_property
    def cut(self) -> tuple[float, str]:
        """The threshold that decisions are judged at, and where it comes from."""
        if self.threshold is not None:
            return self.threshold, f"threshold {ELSEWHERE}"
        found = metrics.threshold_by(self.y, self.s, rule="max-f1")
        return found, f"threshold of maximal F1, {SAME_PATIENTS}"

    @cached_property
    def average_precision(self) -> float:
        return metrics.average_precision(self.y, self.s)

    @cached_property
    def calibration(self) -> metrics.Calibration | None:
        """None for a score that is no probability."""
        return metrics.calibration(self.y, self.s, clip=CLIP) if self.probability else None

    def counts(self) -> dict[str, int]:
        missing = self.without_outcome + self.without_score
        return {"n": self.y.size, "events": int(self.y.sum()), "missing": missing}


def scored_columns(
    frame: pd.DataFrame,
    truth: str,
    scores: Sequence[str] | None = None,
    *,
    event: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    leave: Sequence[str] = (),
) -> tuple[list[Scored], str]:
    """The scores of a table (one row a patient), and how its outcome was read.

    Without ``scores``: every numeric column other than the outcome and ``leave`` whose values lie within
    0 to 1 and are not just 0 and 1, or constant.

    Raises
    ------
    InputError
        For an unknown column, an outcome that is not 0 and 1, a score that is not numeric, or patients of
        one class only.
    """
    for column in (truth, *(scores or ())):
        if column not in frame:
            raise InputError(absent(column, list(frame.columns)))
    names = list(dict.fromkeys(scores or _probability_columns(frame, {truth, *leave})))
    if not names:
        raise InputError(
            f"no column besides '{truth}' holds probabilities (0 to 1); name one as score"
        )
    if truth in names:
        raise InputError(f"column '{truth}' is given both as outcome and as score")
    unknown = [name for name in thresholds or () if name not in names]
    if unknown:
        raise InputError(f"threshold of '{unknown[0]}'; allowed: the scores {', '.join(names)}")
    outcome, note = read_outcome(frame[truth], event)
    return [_scored(frame, outcome, name, (thresholds or {}).get(name)) for name in names], note


def _probability_columns(frame: pd.DataFrame, other: set[str]) -> list[str]:
    """Numeric columns within 0..1 that hold more than 0 and 1 or a constant."""
    numeric = frame.select_dtypes("number")
    values = {c: numeric[c].dropna() for c in numeric if c not in other}
    return [
        c
        for c, v in values.items()
        if v.between(0, 1).all() and v.nunique() > 1 and not v.isin((0, 1)).all()
    ]


def _scored(frame: pd.DataFrame, outcome: pd.Series, name: str, threshold: float | None) -> Scored:
    truth = outcome.name
    has_outcome, has_score = outcome.notna().to_numpy(), frame[name].notna().to_numpy()
    rows = np.flatnonzero(has_outcome & has_score)
    if not rows.size:
        raise InputError(f"score '{name}': no row has both '{truth}' and '{name}'")
    try:
        y, s = metrics.checks.checked(
            outcome.to_numpy()[rows], frame[name].to_numpy()[rows], "score"
        )
    except InputError as error:
        raise InputError(f"outcome '{truth}', score '{name}': {error}") from None
    if threshold is not None and not np.isfinite(threshold):
        raise InputError(f"threshold of '{name}' is {threshold!r}; allowed: a finite number")
    left = int((~has_outcome).sum()), int((has_outcome & ~has_score).sum())
    return Scored(name, rows, y, s, *left, threshold)


def check_patients(frame: pd.DataFrame, column: str = "") -> str:
    """How patients are told apart; an `InputError` that names the first who is there twice.

    Parameters
    ----------
    column : identifies a patient; left out, the first of `ID_COLUMNS` that the table has.
    """
    if column and column not in frame:
        raise InputError(absent(column, list(frame.columns)))
    by_name = {str(c).casefold(): c for c in frame.columns}
    column = column or next((by_name[c] for c in ID_COLUMNS if c in by_name), "")
    if not column:
        return "no column of patients (--id): a row was taken for a patient, and nobody looked for duplicates"
    ids = frame[column].dropna()
    twice = ids[ids.duplicated()]
    if len(twice):
        raise InputError(_twice(frame, column, twice.iloc[0], by_name))
    nameless = len(frame) - len(ids)
    note = f"; rows without one: {nameless}" if nameless else ""
    return f"patients told apart by column '{column}'{note}"


def _twice(frame: pd.DataFrame, column: str, who: object, by_name: dict[str, str]) -> str:
    rows = frame.index[frame[column] == who]
    text = (
        f"patient '{who}' (column '{column}') has {len(rows)} rows, first {rows[0]} and {rows[1]}"
    )
    models = [by_name[c] for c in MODEL_COLUMNS if c in by_name]
    if len(models) > 1:
        return (
            f"{text}: the table has a row for each model ({', '.join(models)}); a run's own predictions are "
            "judged by `rlvo verify RUN`; here, allowed: one row a patient, e.g. one arm of one partition, the "
            "mean of its folds (docs/evaluate.md shows how)"
        )
    return (
        f"{text}; allowed: one row a patient (--id names another column, if rows are no patients)"
    )
