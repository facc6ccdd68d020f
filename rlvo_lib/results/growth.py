"""Learning curves in the number of patients, and what more patients would bring by their fitted form.

The frame of `rlvo_lib.ablation.predictions` goes in: out-of-fold predictions of arms that learnt from
several shares of their training patients. All arms and sizes are judged on the patients whom all of them
scored, and drawn together in the bootstrap, so that points of a curve and differences between arms keep
their pairing. Training seeds are averaged first, as everywhere in `rlvo_lib.results`.

The intervals are over the patients who are judged. They leave out another draw of the patients who are
learnt from, the luck of training as far as seeds do not average it, the choice of form (three are given)
and every other hospital.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError, Study
from rlvo_lib.metrics.extrapolation import FORMS, LEAST_SIZES
from rlvo_lib.results.predictions import Scores, check_predictions, ensembles, scores_of
from rlvo_lib.results.uncertainty import SEED, interval, mean_auc, over_seeds

TARGETS = (300, 618, 1500, 5000)  # patients of a cohort
RESAMPLES = 1000
#: Times the largest measured number of training patients; beyond, the form decides.
FARTHEST = 10
LEAST_VARIANCE = 1e-6  # of an AUC, in weights: an SE of 0.001
GROUPS = ("base", "patients")
BAND_POINTS = 60
CAPTION = (
    "AUC of pooled out-of-fold predictions against the patients that a fold's model learns from: measured "
    "points with 95 % intervals over patients, fitted inverse power law with its 95 % bootstrap band, dashed "
    "beyond the largest measured number. The bands are over the patients who are judged. They leave out the "
    "form of the curve, another draw of the patients who are learnt from, the luck of training as far as "
    "seeds do not average it, and every other hospital."
)


@dataclass(frozen=True)
class _Curve:
    """One arm: its numbers of training patients, rising, and its scores at each."""

    arm: str
    n_train: np.ndarray  # (k,) mean over folds and seeds
    scores: tuple[Scores, ...]  # k
    folds: np.ndarray  # (n, seeds) in which fold each patient was held out

    @property
    def within(self) -> np.ndarray:
        """``(k,)`` AUCs of pairs of the same fold, mean over seeds."""
        found = [metrics.auc_within(one.y, one.p, self.folds).mean() for one in self.scores]
        return np.array(found)


def learning_points(
    predictions: pd.DataFrame, *, data: str, arms: Sequence[str] = ()
) -> pd.DataFrame:
    """The measured points of learning curves: AUC out of fold at each number of training patients.

    Parameters
    ----------
    predictions : `rlvo_lib.ablation.predictions`; rows of groups other than ``base`` and ``patients`` are
        left out.
    data : ``"simulated"`` or ``"real"``.
    arms : which, in this order; default: all, as they come.

    Returns
    -------
    DataFrame with arm, n_train (mean over folds and seeds), n, events (judged: scored by all arms at all
    sizes), auc (pooled) with its 95 % limits low and high (DeLong, logit scale), auc_within (of pairs of
    the same fold, `metrics.auc_within`), seeds, sd_seeds, data.

    Raises
    ------
    InputError
        If there are no learning curves, an arm is not in them, test patients were predicted, or nobody
        was scored by all arms at all sizes.
    """
    rows = []
    for curve in _curves(predictions, arms):
        points = zip(curve.n_train, curve.scores, curve.within, strict=True)
        for n_train, scores, within in points:
            auc, low, high, _ = interval(scores, "auc", [])
            counts = (scores.y.size, int(scores.y.sum()))
            spread = over_seeds(scores, "auc", [])
            rows.append((curve.arm, n_train, *counts, auc, low, high, within, *spread))
    columns = [
        "arm", "n_train", "n", "events", "auc", "low", "high", "auc_within", "seeds", "sd_seeds",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def extrapolation(
    predictions: pd.DataFrame,
    *,
    folds: int,
    data: str,
    arms: Sequence[str] = (),
    pairs: Sequence[tuple[str, str]] = (),
    targets: Sequence[float] = TARGETS,
    forms: Sequence[str] = tuple(FORMS),
    within_folds: bool = False,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """AUC of each arm, and differences of pairs, at other numbers of patients (`metrics.fit_power_law`).

    Limits: 2.5th and 97.5th percentile over resamples of the judged patients, stratified by outcome, the
    same for all arms and sizes, with a refit of every curve in each. The variances that weight the points
    are those of the patients as they are.

    Parameters
    ----------
    folds : of the cross-validation; a model of a cohort of n patients learns from n (folds - 1) / folds.
    pairs : (arm, minus which arm).
    targets : patients of cohorts.
    within_folds : fit `metrics.auc_within` in place of pooled AUCs, on the same resamples: pooling costs
        most where models learn from few patients, and makes curves steeper.

    Returns
    -------
    DataFrame with auc (``pooled`` or ``within folds``), form, arm, minus (empty: the arm itself), patients, n_train, reach (n_train over the
    largest that was measured), value with its limits low and high, a, b, c (of the arm's fit), n, events,
    seeds, resamples, reason (why a limit is NaN, or a value is not to be built on), data.

    Raises
    ------
    InputError
        As `learning_points`; for fewer than four sizes, an arm of a pair that is not there, or targets,
        folds or resamples out of range.
    """
    curves = {curve.arm: curve for curve in _curves(predictions, arms)}
    patients, n_train = _checked_targets(targets, folds)
    for arm, other in pairs:
        for name in (arm, other):
            if name not in curves:
                raise InputError(f"pairs: arm '{name}' has no curve; allowed: {', '.join(curves)}")
    for curve in curves.values():
        if np.unique(curve.n_train).size < LEAST_SIZES:
            raise InputError(
                f"arm '{curve.arm}' has a learning curve of {np.unique(curve.n_train).size} sizes; "
                f"allowed: at least {LEAST_SIZES} to extrapolate (shares of the training patients)"
            )
    fitted = _areas(list(curves.values()), within_folds, resamples, seed)
    alone = metrics.resampling.fixed_stratum(next(iter(curves.values())).scores[0].y)
    rows = []
    for form in forms:
        laws = {arm: _fit(curve, fitted[arm], form) for arm, curve in curves.items()}
        values = {arm: law.at(n_train) for arm, law in laws.items()}
        for arm, minus in [*((arm, "") for arm in curves), *pairs]:
            found = values[arm] - values[minus] if minus else values[arm]
            measured = min(curves[name].n_train.max() for name in (arm, minus or arm))
            names = {"form": form, "arm": arm, "minus": minus}
            counts = _counts(curves[arm], resamples)
            law = laws[arm] if not minus else None
            flat = [name for name in (arm, minus) if name and laws[name].b[0] == 0]
            for place, (target, size) in enumerate(zip(patients, n_train, strict=True)):
                line = _line(found[:, place], law, size / measured, flat, alone)
                rows.append(names | {"patients": target, "n_train": size} | line | counts)
    columns = [
        "form", "arm", "minus", "patients", "n_train", "reach", "value", "low", "high", "a", "b", "c",
        "n", "events", "seeds", "resamples", "reason",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table.insert(0, "auc", "within folds" if within_folds else "pooled")
    return table.assign(data=data)


def learning_bands(
    predictions: pd.DataFrame,
    *,
    folds: int,
    data: str,
    targets: Sequence[float] = TARGETS,
    **options,
) -> pd.DataFrame:
    """`extrapolation` (form ``power``) on many numbers of patients, from the fewest measured to the targets.

    Evenly spaced on a log scale; what a figure draws as curve and band. ``options``: as of `extrapolation`.
    """
    curves = _curves(predictions, options.get("arms", ()))
    ends, _ = _checked_targets(targets, folds)
    cohort = folds / (folds - 1)
    smallest = cohort * min(curve.n_train.min() for curve in curves)
    largest = max(ends.max(), cohort * max(curve.n_train.max() for curve in curves))
    dense = np.geomspace(smallest, largest, BAND_POINTS)
    return extrapolation(
        predictions, folds=folds, data=data, targets=dense, forms=("power",), **options
    )


def learning_pairs(study: Study, arms: Iterable[str], first: str) -> list[tuple[str, str]]:
    """The pairs to extrapolate: those that the study compares, of these arms, then ``first`` minus others."""
    present = list(arms)
    planned = [pair for pair in study.comparisons if set(pair) <= set(present)]
    others = [(first, arm) for arm in present if arm != first] if first in present else []
    known = {frozenset(pair) for pair in planned}
    return planned + [pair for pair in others if frozenset(pair) not in known]


# ------------------------------------------------------------------------------------ the curves


def _curves(predictions: pd.DataFrame, arms: Sequence[str]) -> list[_Curve]:
    for column in ("group", "variant", "n_train"):
        if column not in predictions:
            raise InputError(f"learning curves: the table has no column '{column}'")
    rows = predictions[predictions["group"].isin(GROUPS)]
    if not (rows["group"] == "patients").any():
        raise InputError("learning curves: the table has no rows of group 'patients'")
    if (rows["partition"] == "test").any():
        raise InputError(
            "learning curves: the table holds predictions of the test set; allowed: out-of-fold"
        )
    present = list(rows.loc[rows["group"] == "patients", "arm"].unique())
    for arm in arms:
        if arm not in present:
            raise InputError(f"arm '{arm}' has no learning curve; allowed: {', '.join(present)}")
    rows = rows[rows["arm"].isin(list(arms) or present)]
    labels = rows["arm"] + "/" + rows["variant"]
    trained = rows.groupby(["arm", labels.rename("label")])["n_train"].mean()
    pooled = _judged_by_all(ensembles(check_predictions(rows.assign(arm=labels)), "out-of-fold"))
    found = {scores.arm: scores for scores in scores_of(pooled)}
    folds = rows.assign(arm=labels).groupby(["arm", "participant_id", "seed"])["fold"].first()
    curves = []
    for arm in arms or present:
        sizes = trained[arm].sort_values(kind="stable")
        scores = tuple(found[label] for label in sizes.index)
        held = folds[sizes.index[0]].unstack().loc[list(scores[0].participants)]
        curves.append(_Curve(arm, sizes.to_numpy(float), scores, held.to_numpy()))
    return curves


def _judged_by_all(pooled: pd.DataFrame) -> pd.DataFrame:
    """The rows of the patients whom every arm scored at every size."""
    times = pooled.groupby("participant_id")["arm"].nunique()
    common = times.index[times == pooled["arm"].nunique()]
    if common.empty:
        raise InputError("learning curves: no patient was scored by all arms at all sizes")
    return pooled[pooled["participant_id"].isin(common)]


def _checked_targets(targets: Sequence[float], folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Patients of cohorts, and how many of them a fold's model learns from."""
    if not isinstance(folds, int | np.integer) or folds < 2:
        raise InputError(f"folds is {folds!r}; allowed: a whole number of at least 2")
    patients = np.asarray(targets, dtype=float)
    n_train = patients * (folds - 1) / folds
    if patients.ndim != 1 or not patients.size or not (np.isfinite(n_train) & (n_train >= 1)).all():
        raise InputError(
            f"targets are {list(targets)}; allowed: numbers of patients, of whom at least one is learnt from"
        )
    return patients, n_train


# ---------------------------------------------------------------------------- fits and intervals


def _areas(
    curves: Sequence[_Curve], within_folds: bool, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Arm -> AUCs ``(1 + resamples, k)``, mean over seeds: first of the patients as they are.

    The resamples are the same for all arms and sizes.
    """
    every = [(scores, curve.folds) for curve in curves for scores in curve.scores]
    y, columns = every[0][0].y, np.hstack([scores.p for scores, _ in every])
    if within_folds:
        groups = np.hstack([folds for _, folds in every])
        drawn = metrics.bootstrap_within(y, columns, groups, n=resamples, seed=seed)
        known = metrics.auc_within(y, columns, groups)
    else:
        options = {"stratified": True, "n": resamples, "seed": seed}
        drawn = metrics.bootstrap_many(y, columns, ("auc",), **options)["auc"]
        known = metrics.delong_covariance(y, columns)[0]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]  # a resample may hold no pair within any fold
    areas = np.vstack([known, drawn])
    ends = np.cumsum([scores.p.shape[1] for scores, _ in every])[:-1]
    means = iter([part.mean(axis=1) for part in np.split(areas, ends, axis=1)])
    return {curve.arm: np.column_stack([next(means) for _ in curve.scores]) for curve in curves}


def _fit(curve: _Curve, areas: np.ndarray, form: str) -> metrics.PowerLaw:
    """The arm's fit (first), and those of the resamples."""
    variance = np.array([mean_auc(scores)[1] for scores in curve.scores])
    if np.isnan(variance).any():
        variance = np.ones_like(variance)  # a single event: no variance, and no interval either
    variance = np.maximum(variance, LEAST_VARIANCE)
    return metrics.fit_power_law(curve.n_train, areas, variance, form=form)


def _counts(curve: _Curve, resamples: int) -> dict[str, int]:
    scores = curve.scores[0]
    seeds = min(len(one.seeds) for one in curve.scores)
    events = int(scores.y.sum())
    return {"n": scores.y.size, "events": events, "seeds": seeds, "resamples": resamples}


def _line(
    values: np.ndarray,
    law: metrics.PowerLaw | None,
    reach: float,
    flat: Sequence[str],
    alone: str,
) -> dict[str, object]:
    """A value with its limits, and why one is NaN or not to be built on."""
    low, high = (np.nan, np.nan) if alone else np.quantile(values[1:], [0.025, 0.975])
    reasons = [alone] * bool(alone)
    reasons += [f"curve of {name} is flat or falls: b = 0" for name in flat]
    if reach > FARTHEST:
        reasons.append(
            f"more than {FARTHEST} times the largest measured number: the form decides, not the patients"
        )
    line = {"reach": reach, "value": float(values[0]), "low": float(low), "high": float(high)}
    if law:
        line |= {"a": float(law.a[0]), "b": float(law.b[0]), "c": float(law.c[0])}
    return line | {"reason": "; ".join(reasons)}


def extrapolation_side_by_side(found: pd.DataFrame, form: str = "power") -> pd.DataFrame:
    """The pooled values of one form of `extrapolation` to read: a row an arm or difference, a column a cohort's size.

    Returns
    -------
    DataFrame with arm (or ``a - b``), a column for each number of patients ("value [low, high]", a difference after a Δ, ``*`` where
    ``reason`` says that it is not to be built on), data.
    """
    rows = found[(found["auc"] == "pooled") & (found["form"] == form)] if "auc" in found else found
    table: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        sign = "+" if row["minus"] else ""
        name = f"{row['arm']} - {row['minus']}" if row["minus"] else row["arm"]
        value, low, high = (f"{row[key]:{sign}.3f}" for key in ("value", "low", "high"))
        star = "*" if row["reason"] else ""
        cell = f"{'Δ ' if row['minus'] else ''}{value} [{low}, {high}]{star}"
        table.setdefault(name, {})[f"{row['patients']:,.0f} patients"] = cell
    shown = pd.DataFrame.from_dict(table, orient="index").rename_axis("arm").reset_index()
    return shown.assign(data=rows["data"].iloc[0])
