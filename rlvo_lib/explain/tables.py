"""Models of the table alone, as functions of clinical variables: what fused models are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import baselines, experiment, storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.experiment.cases import content_groups
from rlvo_lib.experiment.fitting import reads_of
from rlvo_lib.explain import patients
from rlvo_lib.explain.clinical import ClinicalVariables
from rlvo_lib.preprocess import TensorCache
from rlvo_lib.tabular import TabularEncoder

KINDS = ("logistic", "boosting", "concepts")
#: A model fitted again gives the stored probabilities, up to rounding.
SAME = 1e-6


@dataclass
class TableModel:
    """A fold's baseline, or logistic regression on concepts, as a function of the clinical variables.

    It is fitted again as the run fitted it, and must give the run's predictions (checked to 1e-6). The
    reads of a ``concepts`` arm are held at the patient's own, as the image is in a fused model.
    """

    analysis: Analysis
    task: Task
    encoder: TabularEncoder
    model: Any  # a `baselines.Predictor`, or a `concepts.Bottleneck`
    training_patients: list[str]
    reads: pd.DataFrame | None = None  # of every patient of the fold

    @classmethod
    def load(cls, analysis: Analysis, cache: TensorCache | None, task: Task) -> TableModel:
        """The model of a finished task, fitted again on the same patients.

        Raises
        ------
        InputError
            If the arm is of another kind, sees what is measured in the scans, has no clinical variables,
            or was not run.
        """
        _check(analysis, task)
        fitted = _concepts if task.arm.kind == "concepts" else _baseline
        found = fitted(analysis, cache, task)
        found.check_same()
        return found

    @cached_property
    def variables(self) -> ClinicalVariables:
        """The clinical variables."""
        return ClinicalVariables(
            self.analysis, list(self.analysis.settings.study.columns_of(self.task.arm))
        )

    @property
    def columns(self) -> list[str]:
        """The names of the clinical variables."""
        return self.variables.columns

    @cached_property
    def background(self) -> list[str]:
        """Training patients who stand for "unknown" (`patients.background`)."""
        return patients.background(self.analysis, self.training_patients)

    def image_features(self, participant: str) -> np.ndarray | None:
        """What is held at the patient's own: the reads (1, K) of a concepts arm; nothing otherwise."""
        return None if self.reads is None else self.reads.loc[[participant]].to_numpy(float)

    def logit(self, features: np.ndarray | None, values: np.ndarray) -> np.ndarray:
        """Logits (N,) of N sets of clinical variables (N, n_columns), the reads being ``features``."""
        return self.of_matrix(features, self.encoder.transform(self.variables.table(values)))

    def of_matrix(self, features: np.ndarray | None, matrix: np.ndarray) -> np.ndarray:
        """Logits (N,) of what the encoder makes of N sets of clinical variables: (N, P)."""
        if features is None:
            return np.asarray(self.model.logit(matrix), float)
        p = self.model.predict(np.repeat(features, len(matrix), axis=0), matrix)
        return np.log(p) - np.log1p(-p)

    def check_same(self) -> None:
        """RuntimeError if the model does not give the predictions that the run stored."""
        stored = storage.read_csv(self.task.result)
        table = self.analysis.dataset.table.loc[list(stored["participant_id"])]
        features = None
        if self.reads is not None:
            features = self.reads.loc[list(stored["participant_id"])].to_numpy(float)
        matrix = self.encoder.transform(table)
        if features is None:
            found = 1 / (1 + np.exp(-self.of_matrix(None, matrix)))
        else:
            found = self.model.predict(features, matrix)
        apart = float(np.abs(found - stored["probability"].to_numpy()).max())
        if not apart <= SAME:
            raise RuntimeError(
                f"{self.task.title}: fitted again, its probabilities differ by {apart:.1e}; "
                f"allowed: {SAME:.0e}"
            )


def _check(analysis: Analysis, task: Task) -> None:
    arm = task.arm
    if arm.kind not in KINDS or (arm.kind == "concepts" and arm.fusion != "none"):
        kind = f"{arm.kind} with fusion {arm.fusion}" if arm.kind == "concepts" else arm.kind
        raise InputError(
            f"arm '{arm.name}' is of kind {kind}; allowed as a model of the table: logistic, boosting, "
            "concepts without fusion"
        )
    if arm.measures:
        raise InputError(
            f"arm '{arm.name}' sees {', '.join(arm.measures)}, measured in the scans; allowed to be "
            "explained: columns of the table"
        )
    if not analysis.settings.study.columns_of(arm):
        raise InputError(
            f"arm '{arm.name}' has no clinical variables; allowed: an arm of predictors"
        )
    if not task.done:
        raise InputError(f"{task.title}: not run; run the arm first")


def _baseline(analysis: Analysis, cache: TensorCache | None, task: Task) -> TableModel:
    parts, encoder = experiment.fold_encoder(analysis, cache, task)
    ids = parts["train"] + parts["inner"]
    model = baselines.fit_baseline(
        task.arm.kind,
        encoder.transform(analysis.dataset.table.loc[ids]),
        analysis.y[ids].to_numpy(float),
        seed=task.seed,
        groups=content_groups(analysis, ids),
    )
    return TableModel(analysis, task, encoder, model, parts["train"])


def _concepts(analysis: Analysis, cache: TensorCache | None, task: Task) -> TableModel:
    model, parts, *_ = experiment.fit_concepts(analysis, cache, task)
    _, encoder = experiment.fold_encoder(analysis, cache, task)
    _, reads = reads_of(analysis, task)
    return TableModel(analysis, task, encoder, model, parts["train"], reads)


def table_only(names: Sequence[str], analysis: Analysis) -> list[str]:
    """Those of some arms that `TableModel` can be."""
    arms, found = analysis.settings.study.arms, []
    for name in names:
        arm = arms[name]
        plain = arm.kind in KINDS and (arm.kind != "concepts" or arm.fusion == "none")
        if plain and not arm.measures and analysis.settings.study.columns_of(arm):
            found.append(name)
    return found
