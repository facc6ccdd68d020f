"""One patient of a finished run: what was predicted, by which models, and where that stands among others.

Only fold models that did not see the patient count: all of them for a test patient, one for a patient of the
training part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from rlvo_lib import cohort, experiment, results
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError, Study
from rlvo_lib.experiment import Task
from rlvo_lib.preprocess import TensorCache

EXPLAINED = ("cnn", "mlp")  # kinds of arms whose cases are shown


@dataclass(frozen=True)
class Cases:
    """The patients of a run as one arm sees them. ``tasks``: the arm's finished tasks, all folds and seeds."""

    analysis: Analysis
    tensors: TensorCache | None
    arm: Arm
    tasks: list[Task]
    predictions: pd.DataFrame  # predictions.csv
    thresholds: pd.DataFrame  # thresholds.csv

    @property
    def study(self) -> Study:
        return self.analysis.settings.study

    @cached_property
    def patients(self) -> pd.DataFrame:
        """Each patient that the arm scored: partition, y_true, probability, flagged; by participant_id.

        The probability is the mean over fold models, then seeds; ``flagged`` the share of seeds in which
        the fold ensemble reaches the seed's threshold.
        """
        own = self.predictions[self.predictions["arm"] == self.arm.name]
        frames = []
        for partition in own["partition"].unique():
            rows = results.ensembles(own, partition)
            limits = rows["seed"].map(self.limits)
            rows = rows.assign(partition=partition, flagged=rows["probability"] >= limits)
            frames.append(
                rows.groupby("participant_id").agg(
                    partition=("partition", "first"),
                    y_true=("y_true", "first"),
                    probability=("probability", "mean"),
                    flagged=("flagged", "mean"),
                )
            )
        return pd.concat(frames).sort_index()

    @cached_property
    def limits(self) -> dict[int, float]:
        """The arm's threshold of each seed."""
        own = self.thresholds[self.thresholds["arm"] == self.arm.name]
        return dict(zip(own["seed"], own["threshold"], strict=True))

    @cached_property
    def lacking(self) -> dict[str, str]:
        """Eligible patients whom the arm cannot score, each with the reason."""
        usable = experiment.arm_patients(self.analysis, self.tensors, self.arm)
        left_out = usable[~usable["used"]]
        return dict(zip(left_out["participant_id"], left_out["reason"], strict=True))

    def models(self, participant: str) -> list[Task]:
        """The tasks whose model did not see the patient."""
        found = []
        for task in self.tasks:
            parts = self.analysis.fold_parts(task.fold, task.seed)
            if participant in (*parts["test"], *parts["held_out"]):
                found.append(task)
        return [] if participant in self.lacking else found

    def scores(self, participant: str) -> pd.DataFrame:
        """What each fold model said of a patient: seed, fold, probability."""
        own = self.predictions[self.predictions["participant_id"] == participant]
        own = own[own["arm"] == self.arm.name]
        return own[["seed", "fold", "probability"]].sort_values(["seed", "fold"])

    def others(self, participant: str) -> pd.DataFrame:
        """The patients that a patient stands among: of the same part of the data, the patient too."""
        return self.patients[
            self.patients["partition"] == self.patients.at[participant, "partition"]
        ]

    def require(self, participant: str) -> None:
        """InputError unless this is an eligible patient of the run's cohort, with the reason."""
        frame = self.analysis.frame.set_index("participant_id")
        if participant not in frame.index:
            ids = sorted(frame.index)
            raise InputError(
                f"participant is '{participant}'; allowed: one of the run's {len(ids)} patients, "
                f"{ids[0]} to {ids[-1]}"
            )
        if frame.at[participant, "included"] != "1":
            row = cohort.exclusions(self.analysis.frame, self.study).set_index("participant_id")
            rule, found = row.loc[participant, ["rule", "found"]]
            raise InputError(
                f"participant {participant} is excluded from the run: not met: {rule} (found: {found}); "
                "allowed: an eligible patient"
            )


def choose_arm(study: Study, ran: list[str], wanted: str = "") -> Arm:
    """The arm whose cases are shown: the one wanted, or the study's, or the first network that ran.

    Raises
    ------
    InputError
        If the arm was not run, or is no network whose inputs are images and columns of the table.
    """
    networks = [n for n in ran if study.arms[n].kind in EXPLAINED and not study.arms[n].measures]
    if wanted and wanted not in networks:
        why = (
            "is not an arm of the run" if wanted not in ran else "is no network of scans and table"
        )
        raise InputError(f"arm '{wanted}' {why}; allowed: {', '.join(networks) or 'none'}")
    fused = [name for name in networks if study.arms[name].predictors]
    for name in (wanted, study.explain_arm, *fused, *networks):
        if name in networks:
            return study.arms[name]
    raise InputError(
        "the run has no network to explain; allowed: a run with an arm of kind cnn or mlp"
    )
