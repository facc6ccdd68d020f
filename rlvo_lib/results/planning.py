"""What the number of patients can say: for development, for the precision of results, for an F1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlvo_lib.config import Study
from rlvo_lib.metrics import sample_size as size
from rlvo_lib.results.predictions import check_predictions, reported_partition
from rlvo_lib.results.published import HALF_PRINTED, Model, Published, read_published

THIS_RUN, PUBLISHED, PLANNED = "this run", "published", "planned"
PARAMETERS = (3, 5, 10, 20, 30)
SIZES = (50, 100, 200, 300, 500, 1000, 2000, 5000)
AREAS = (0.6, 0.7, 0.8, 0.9)


def _patients(predictions: pd.DataFrame, partition: str) -> tuple[int, int]:
    """Patients and events of a part of the predictions, whatever arm scored them."""
    rows = predictions[predictions["partition"] == partition].drop_duplicates("participant_id")
    return len(rows), int(rows["y_true"].sum())


def development_size(
    predictions: pd.DataFrame, study: Study, *, data: str, c: float | None = None
) -> pd.DataFrame:
    """What the training patients carry by Riley's criteria, for the run and the published design.

    ``c`` is the C statistic that a model is hoped to reach: the best published one, or 0.70. Both
    the whole training part and what one fold model is trained on are listed. Beside round numbers of
    parameters stand the sizes of the study's predictor sets (each column counted once: the fewest
    parameters it can take).

    Returns
    -------
    DataFrame with whose (this run or published), part, n, events, c, r2, r2_max, parameters,
    parameters_of, epv, shrinkage (expected), n_needed, binding, n_shrinkage, n_optimism, n_risk,
    supported (parameters at an expected shrinkage of 0.9), data.
    """
    predictions = check_predictions(predictions)
    published = read_published(study)
    if c is None:
        c = published.best_auc if published and np.isfinite(published.best_auc) else 0.70
    folds = int(study.validation["folds"])
    parts = [(THIS_RUN, *_patients(predictions, "out-of-fold"), folds)]
    if published:
        parts.append((PUBLISHED, published.n_train, published.events_train, published.folds))
    counts = {k: "any model" for k in PARAMETERS}
    for arm in study.arms.values():
        columns = len(study.columns_of(arm))
        if columns and counts.get(columns, "any model") == "any model":
            counts[columns] = " + ".join(arm.predictors)
    rows = []
    for whose, n_all, events_all, k in parts:
        for part, share in (("training part", 1.0), ("training part of a fold", (k - 1) / k)):
            n, events = round(n_all * share), round(events_all * share)
            if not 0 < events < n:
                continue
            for parameters in sorted(counts):
                found = size.riley_development(parameters, events / n, c=c)
                rows.append(
                    (
                        whose, part, n, events, c, found.r2, found.r2_max, parameters,
                        counts[parameters], events / parameters,
                        size.expected_shrinkage(parameters, n, found.r2), found.n, found.binding,
                        found.n_shrinkage, found.n_optimism, found.n_risk,
                        size.parameters_supported(n, found.r2),
                    )
                )  # fmt: skip
    columns = [
        "whose", "part", "n", "events", "c", "r2", "r2_max", "parameters", "parameters_of", "epv",
        "shrinkage", "n_needed", "binding", "n_shrinkage", "n_optimism", "n_risk", "supported",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def precision(
    predictions: pd.DataFrame,
    study: Study,
    *,
    data: str,
    areas: Sequence[float] = AREAS,
    sizes: Sequence[int] = SIZES,
) -> pd.DataFrame:
    """How precise results are expected to be: at the run's own number of patients, and at others.

    Those where the run reports (the test set, or out of fold without one), those of the published
    test set, and ``sizes`` at the run's prevalence. See `metrics.sample_size.precision_plan`.

    Returns
    -------
    DataFrame with whose (this run, published or planned), n, events (expected), prevalence, auc,
    quantity (auc, sensitivity, specificity, f1, oe), value, se, low, high, width, power, method,
    data.
    """
    predictions = check_predictions(predictions)
    n, events = _patients(predictions, reported_partition(predictions))
    wanted = [(THIS_RUN, n, events / n)]
    published = read_published(study)
    if published:
        wanted.append((PUBLISHED, published.n_test, published.events_test / published.n_test))
    expected = [(PLANNED, k, events / n) for k in sizes]
    wanted += [(w, k, p) for w, k, p in expected if 0 < round(k * p) < k]
    plans = [size.precision_plan(k, p, areas).assign(whose=whose) for whose, k, p in wanted]
    table = pd.concat(plans, ignore_index=True)
    return table[["whose", *[c for c in table if c != "whose"]]].assign(data=data)


def feasible_points(study: Study, *, data: str) -> pd.DataFrame:
    """Every confusion table of the published test set whose F1 rounds to a published one.

    As if one model had given it; a mean over fold models need not be one table. Empty for a study
    without a published design.

    Returns
    -------
    DataFrame with model, label, published_f1, published_auc, tp, fp, fn, tn, f1, sensitivity,
    specificity, precision, balanced_accuracy, auc_low, auc_high (the bounds this point sets for the
    AUC), compatible (with the published AUC), f1_sd, f1_low, f1_high (of other test sets with these
    counts; 95 %), data.
    """
    published = read_published(study)
    names = [
        "model", "label", "published_f1", "published_auc", "tp", "fp", "fn", "tn", "f1",
        "sensitivity", "specificity", "precision", "balanced_accuracy", "auc_low", "auc_high",
        "compatible", "f1_sd", "f1_low", "f1_high",
    ]  # fmt: skip
    tables = [
        points_of(published, model).assign(
            model=model.id, label=model.label, published_f1=model.f1, published_auc=model.auc
        )[names]
        for model in (published.with_f1 if published else ())
    ]
    if not tables:
        return pd.DataFrame(columns=[*names, "data"])
    return pd.concat(tables, ignore_index=True).assign(data=data)


def points_of(published: Published, model: Model) -> pd.DataFrame:
    """The confusion tables behind one published F1, each with the sampling spread of its F1."""
    area = None if np.isnan(model.auc) else model.auc
    low, high = max(model.f1 - HALF_PRINTED, 0), min(model.f1 + HALF_PRINTED, 1)
    points = size.feasible_counts(low, high, *published.counts, area=area)
    spread = [
        size.f1_spread(tpr, tnr, *published.counts)
        for tpr, tnr in zip(points["sensitivity"], points["specificity"], strict=True)
    ]
    return points.assign(
        f1_sd=[s.sd for s in spread],
        f1_low=[s.low for s in spread],
        f1_high=[s.high for s in spread],
    )
