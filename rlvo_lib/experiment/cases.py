"""The patients of a fold as arrays: tables encoded, images, what was measured, by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm
from rlvo_lib.experiment.arms import NETWORKS
from rlvo_lib.experiment.tasks import Task, fold_patients
from rlvo_lib.preprocess import TensorCache

if TYPE_CHECKING:
    from rlvo_lib.tabular import TabularEncoder
    from rlvo_lib.training import Cases

Parts = dict[str, list[str]]


def fold_encoder(
    analysis: Analysis, cache: TensorCache | None, task: Task
) -> tuple[Parts, TabularEncoder | None]:
    """The fold's patients that an arm can use, by part, and its tabular encoder, fitted."""
    parts = fold_patients(analysis, cache, task)
    return parts, fitted_encoder(analysis, cache, task.arm, parts)


def fitted_encoder(
    analysis: Analysis, cache: TensorCache | None, arm: Arm, parts: Parts
) -> TabularEncoder | None:
    """Encoder of an arm's predictors and measures, fitted on the fold's training part."""
    from rlvo_lib.tabular import TabularEncoder

    study = analysis.settings.study
    columns, measures = study.columns_of(arm), study.measures_of(arm.measures)
    if not columns and not measures:
        return None
    encoder = TabularEncoder(
        columns,
        analysis.dictionary,
        measures=_measured_columns(measures),
        allow_sensitivity=analysis.settings.allow_sensitivity_predictors,
        indicators=analysis.settings.missing_indicators,
    )
    # Networks stop on the inner part, so their scales must not see it; baselines have no such part.
    fitted_on = parts["train"] + ([] if arm.kind in NETWORKS else parts["inner"])
    return encoder.fit(measured_table(analysis, cache, fitted_on, measures))


def measured_table(
    analysis: Analysis, cache: TensorCache | None, ids: list[str], measures: tuple[str, ...]
) -> pd.DataFrame:
    """The dataset's table of some patients, with what was measured in their scans beside it."""
    table = analysis.dataset.table.loc[ids]
    if not measures:
        return table
    values = cache.measures(ids, measures)
    return table.join(
        pd.DataFrame(values, index=table.index, columns=list(_measured_columns(measures)))
    )


def _measured_columns(measures: tuple[str, ...]) -> tuple[str, ...]:
    """What was measured, by names that no column of the table has."""
    return tuple(f"scan:{name.removeprefix('measured_')}" for name in measures)


def fold_cases(
    analysis: Analysis, cache: TensorCache | None, task: Task
) -> tuple[Parts, dict[str, Cases]]:
    """The fold's patients that an arm can use, and their cases, by part."""
    parts, encoder = fold_encoder(analysis, cache, task)
    return parts, arm_cases(analysis, cache, task.arm, parts, encoder)


def arm_cases(
    analysis: Analysis,
    cache: TensorCache | None,
    arm: Arm,
    parts: Parts,
    encoder: TabularEncoder | None,
) -> dict[str, Cases]:
    """The cases of each part, with auxiliary targets of training patients where they are asked for."""
    from rlvo_lib.training import Cases

    settings, cases = analysis.settings, {}
    measures = settings.study.measures_of(arm.measures)
    absent = "nan" if settings.absent == "flag" and arm.kind == "cnn" else "refuse"
    for name, ids in parts.items():
        if not ids:  # a design without a test set
            continue
        table = measured_table(analysis, cache, ids, measures)
        extra = None
        if arm.kind == "cnn" and settings.auxiliary_weight and name in ("train", "inner"):
            extra = _auxiliary(analysis, ids)
        cases[name] = Cases(
            image=cache.images(ids, arm.channels, absent=absent) if arm.channels else None,
            tabular=encoder.transform(table) if encoder else None,
            y=analysis.y[ids].to_numpy(float),
            extra=extra,
        )
    return cases


def _auxiliary(analysis: Analysis, ids: list[str]) -> np.ndarray:
    """What people read off the scans of training patients (N, K): extra supervision."""
    from rlvo_lib.concepts import ReadCodes

    codes = ReadCodes(tuple(analysis.settings.study.concepts), analysis.dictionary)
    return codes.of_table(analysis.dataset.table.loc[ids])


def content_groups(analysis: Analysis, ids: list[str]) -> np.ndarray:
    """The content group of each patient: those of one group stay on one side of any split."""
    return analysis.units[ids].to_numpy()
