"""Ablations of one arm as a grid of variants, and learning curves, scored on out-of-fold predictions only.

A variant changes one thing: the modalities that the arm sees, its fusion, where the fusion acts, the grid
of its images, or how many patients it learns from. Before anything is planned the test patients are taken
out of cohort and split (`without_test`): no variant is chosen by them, since none ever predicts them.
Variants are compared with the unchanged arm on the same patients. The intervals are over patients (DeLong,
of pooled out-of-fold predictions); they leave out what another training seed would change.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import experiment, results, storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import FUSIONS, Arm, InputError, Study
from rlvo_lib.experiment.arms import COMBINED
from rlvo_lib.experiment.fitting import network_scans
from rlvo_lib.experiment.running import run_work, unfinished
from rlvo_lib.preprocess import TensorCache
from rlvo_lib.results.predictions import scores_of
from rlvo_lib.results.uncertainty import interval

GROUPS = ("modalities", "fusion", "location", "resolution", "patients")
BASE = "base"  # the group and the name of an unchanged arm
#: Arms whose learning curve is drawn beside the varied arm's, where the study has them.
CURVES = ("clinical_logistic", "concepts")
SHARES = (0.25, 0.5, 0.75)  # of the training patients
LOCATIONS = (0, 1, 2, 3, 4)  # of FiLM and DAFT in the last block (`Settings.fusion_location`)
#: What the voxels' edge is multiplied by; no grid becomes smaller than 16 voxels or finer than 1 mm.
ZOOMS = (2.0, 4 / 3, 2 / 3)
LEAST_VOXELS, FINEST_MM = 16, 1.0


@dataclass(frozen=True)
class Variant:
    """An arm with one thing changed.

    settings : fields of `Settings` that are replaced; share : of the training patients, 0 to 1.
    """

    name: str
    group: str
    arm: Arm
    settings: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0


@dataclass(frozen=True)
class Planned:
    """A variant with the analysis, tensors and tasks that it needs, or the reason why it cannot run."""

    variant: Variant
    analysis: Analysis
    tensors: TensorCache | None
    tasks: list[experiment.Task]
    reason: str = ""


# ------------------------------------------------------------------------------------- the grid


def grid(
    analysis: Analysis, groups: Sequence[str] | None = None, *, arm: str = ""
) -> list[Variant]:
    """The variants of an arm (default: the one the study explains), the unchanged arm first.

    Raises
    ------
    InputError
        If a group or arm is not known, or a group that is asked for does not apply to the arm.
    """
    study = analysis.settings.study
    base = _base(study, arm)
    for group in groups or ():
        if group not in GROUPS:
            raise InputError(f"group '{group}' is not known; allowed: {', '.join(GROUPS)}")
    makers = {
        "modalities": _modalities,
        "fusion": _fusions,
        "location": _locations,
        "resolution": _resolutions,
        "patients": _patients,
    }
    variants = [Variant(BASE, BASE, base)]
    for group in GROUPS if groups is None else dict.fromkeys(groups):
        made = makers[group](analysis, base)
        if not made and groups is not None:
            raise InputError(
                f"group '{group}' does not apply to arm '{base.name}' (kind {base.kind}, fusion "
                f"{base.fusion}, {len(base.channels)} channels); allowed: another --arm, or group"
            )
        variants += made
    return variants


def _base(study: Study, name: str) -> Arm:
    name = name or study.explain_arm
    single = [arm.name for arm in study.arms.values() if arm.kind not in COMBINED]
    if name not in single:
        raise InputError(f"arm '{name}' cannot be varied; allowed: {', '.join(single)}")
    return study.arms[name]


def _modalities(analysis: Analysis, base: Arm) -> list[Variant]:
    """Each modality alone, and all but each; the clinical variables are one of them."""
    if base.kind != "cnn":
        return []
    apart = dataclasses.replace(analysis.settings, encoder_inputs="per-modality")
    scans = network_scans(apart, base) or ((base.channels[0], (0,)),)
    names = [name for name, _ in scans] + ["clinical"] * bool(base.predictors)
    if len(names) < 2:
        return []
    channels = {name: tuple(base.channels[k] for k in places) for name, places in scans}
    subsets = {f"only_{name}": [name] for name in names}
    subsets |= {f"without_{name}": [n for n in names if n != name] for name in names}
    made: dict[Arm, Variant] = {}
    for label, kept in subsets.items():
        seen = tuple(c for name in kept if name in channels for c in channels[name])
        arm = _seeing(base, seen, base.predictors if "clinical" in kept else ())
        made.setdefault(arm, Variant(label, "modalities", arm))  # of two, one alone is all but one
    return list(made.values())


def _seeing(base: Arm, channels: tuple[str, ...], predictors: tuple[str, ...]) -> Arm:
    """The arm with other inputs: without table no fusion, without images a network of the table."""
    if not channels:
        return dataclasses.replace(
            base, kind="mlp", fusion="none", channels=(), predictors=predictors, offset=""
        )
    fusion, offset = (base.fusion, base.offset) if predictors else ("none", "")
    return dataclasses.replace(
        base, channels=channels, predictors=predictors, fusion=fusion, offset=offset
    )


def _fusions(analysis: Analysis, base: Arm) -> list[Variant]:
    if base.kind != "cnn" or not base.predictors:
        return []
    return [
        Variant(fusion, "fusion", dataclasses.replace(base, fusion=fusion))
        for fusion in FUSIONS
        if fusion not in ("none", base.fusion)
    ]


def _locations(analysis: Analysis, base: Arm) -> list[Variant]:
    if base.kind != "cnn" or base.fusion not in ("film", "daft"):
        return []
    return [
        Variant(f"location_{place}", "location", base, {"fusion_location": place})
        for place in LOCATIONS
        if place != analysis.settings.fusion_location
    ]


def _resolutions(analysis: Analysis, base: Arm) -> list[Variant]:
    """The same field of view in larger and smaller voxels."""
    if not base.channels:
        return []
    shape, spacing = analysis.settings.grid_shape, analysis.settings.grid_spacing_mm
    made = []
    for zoom in ZOOMS:
        voxels, edge = tuple(round(n / zoom) for n in shape), round(spacing * zoom, 3)
        if min(voxels) >= LEAST_VOXELS and (zoom > 1 or edge >= FINEST_MM):
            change = {"grid_shape": voxels, "grid_spacing_mm": edge}
            made.append(Variant(f"{edge:g}_mm", "resolution", base, change))
    return made


def _patients(analysis: Analysis, base: Arm) -> list[Variant]:
    """Learning curves: of the arm, and of `CURVES` with their own unchanged arms."""
    arms = analysis.settings.study.arms
    others = [arms[name] for name in CURVES if name in arms and name != base.name]
    made = [Variant(BASE, BASE, arm) for arm in others]
    return made + [
        Variant(f"share_{share:.0%}".replace("%", ""), "patients", arm, share=share)
        for arm in (base, *others)
        for share in SHARES
    ]


# ------------------------------------------------------------------------- analyses of variants


def without_test(analysis: Analysis) -> Analysis:
    """The analysis as if the test patients had never been there."""
    test = analysis.split["partition"] == "test"
    hidden = set(analysis.split.loc[test, "participant_id"])
    frame = analysis.frame[~analysis.frame["participant_id"].isin(hidden)]
    return dataclasses.replace(
        analysis,
        frame=frame.reset_index(drop=True),
        split=analysis.split[~test].reset_index(drop=True),
    )


class Thinned(Analysis):
    """An analysis that learns from a share of its training patients.

    Its ``split`` says who they are: a column for each seed and fold (`_kept_column`), "1" or "". So they are
    part of the key of each task.
    """

    def fold_parts(self, fold: int, seed: int) -> dict[str, list[str]]:
        """As of the whole analysis, ``train`` and ``inner`` cut down; ``held_out`` is the same."""
        whole = super().fold_parts(fold, seed)
        kept = self.split[_kept_column(fold, seed)] == "1"
        known = set(self.split.loc[kept, "participant_id"])
        return {
            name: [p for p in ids if p in known] if name in ("train", "inner") else ids
            for name, ids in whole.items()
        }


def _kept_column(fold: int, seed: int) -> str:
    return f"kept_{seed}_{fold}"


def thinned(analysis: Analysis, share: float) -> Analysis:
    """The analysis with a share of the training patients of each fold, by outcome, part by part.

    Shares are nested: who is in a smaller one is in every larger one, in the same part. Patients of the
    same content stay together.

    Raises
    ------
    InputError
        If the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise InputError(f"share of the training patients is {share}; allowed: above 0, at most 1")
    if share == 1:
        return analysis
    units = analysis.units
    drawn = np.random.default_rng(analysis.settings.seed).permutation(sorted(units.unique()))
    rank = {unit: place for place, unit in enumerate(drawn)}
    columns = {}
    for seed in analysis.seeds:
        for fold in range(1, analysis.settings.study.validation["folds"] + 1):
            parts = analysis.fold_parts(fold, seed)
            kept = set()
            for part in ("train", "inner"):
                kept |= _first(units[parts[part]], analysis.y, rank, share)
            inside = analysis.split["participant_id"].isin(kept)
            columns[_kept_column(fold, seed)] = np.where(inside, "1", "")
    split = analysis.split.assign(**columns)
    fields = {f.name: getattr(analysis, f.name) for f in dataclasses.fields(Analysis)}
    return Thinned(**fields | {"split": split})


def _first(units: pd.Series, y: pd.Series, rank: dict[int, int], share: float) -> set[str]:
    """The patients of the first units of each outcome, by rank, a share of them rounded up."""
    kept: set[str] = set()
    outcome = y[units.index].groupby(units).max()  # of a unit: whether one of its patients has it
    for value in (0, 1):
        own = sorted(outcome.index[outcome == value], key=rank.__getitem__)
        chosen = own[: math.ceil(round(share * len(own), 9))]
        kept |= set(units.index[units.isin(chosen)])
    return kept


# ---------------------------------------------------------------------------- running the grid


def plan(analysis: Analysis, variants: Iterable[Variant]) -> list[Planned]:
    """What each variant needs, without the test patients; tensors are made where they are absent.

    A variant that cannot run has no task and says why.

    Raises
    ------
    InputError
        If none can run.
    """
    base, tensors, planned = without_test(analysis), {}, []
    for variant in variants:
        own = _varied(base, variant)
        grid_of = (own.settings.grid_shape, own.settings.grid_spacing_mm)
        sees_images = variant.arm.channels or variant.arm.measures or variant.arm.kind == "concepts"
        if sees_images and grid_of not in tensors:
            tensors[grid_of] = own.tensors()
        used = tensors[grid_of] if sees_images else None
        name = variant.arm.name
        possible = experiment.ladder(own, used).set_index("arm").loc[name]
        tasks = experiment.plan(own, used, [name]) if possible["runs"] else []
        planned.append(Planned(variant, own, used, tasks, possible["reason"]))
    if planned and not any(one.tasks for one in planned):
        first = planned[0]
        raise InputError(f"arm '{first.variant.arm.name}' cannot run: {first.reason}")
    return planned


def _varied(analysis: Analysis, variant: Variant) -> Analysis:
    settings = analysis.settings
    study = dataclasses.replace(
        settings.study, arms=settings.study.arms | {variant.arm.name: variant.arm}
    )
    settings = dataclasses.replace(
        settings, study=study, arms=(variant.arm.name,), **variant.settings
    )
    return thinned(dataclasses.replace(analysis, settings=settings), variant.share)


def train(planned: Sequence[Planned], shard: tuple[int, int] = (1, 1)) -> int:
    """Run what is not done of a grid's tasks, or of a shard of them; returns how many were run."""
    return run_work([(one.analysis, one.tensors, t) for one in planned for t in one.tasks], shard)


def run(analysis: Analysis, variants: Iterable[Variant]) -> pd.DataFrame:
    """Run a grid and return its `predictions`; what was finished before is not done twice."""
    planned = plan(analysis, variants)
    train(planned)
    return predictions(planned)


def predictions(planned: Sequence[Planned]) -> pd.DataFrame:
    """The out-of-fold predictions of a grid that was run.

    Returns
    -------
    DataFrame with group, variant, n_train (patients that the fold's model learnt from, those who stop the
    training with them) and the columns of ``predictions.csv``.

    Raises
    ------
    InputError
        If a task is not finished.
    """
    tasks = [task for one in planned for task in one.tasks]
    left = unfinished(tasks)
    if left:
        raise InputError(
            f"{len(left)} of {len(tasks)} tasks of the ablations are not finished, first "
            f"'{left[0].title}'; run the other shards, and rlvo merge"
        )
    frames = []
    for one in planned:
        for task in one.tasks:
            parts = experiment.fold_patients(one.analysis, one.tensors, task)
            frame = storage.read_csv(task.result)
            frame.insert(0, "group", one.variant.group)
            frame.insert(1, "variant", one.variant.name)
            frame.insert(2, "n_train", len(parts["train"]) + len(parts["inner"]))
            frames.append(frame)
    columns = ["group", "variant", "n_train", *experiment.PREDICTION_COLUMNS]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


# -------------------------------------------------------------------------------- the tidy table


def table(planned: Sequence[Planned]) -> pd.DataFrame:
    """One row a variant and arm of a grid that was run (`score`), and one for each that cannot run."""
    analysis = planned[0].analysis
    data = "simulated" if analysis.dataset.simulated else "real"
    scored = score(predictions(planned), analysis.settings.study, data=data)
    ran = {(r.group, r.variant, r.arm): k for k, r in enumerate(scored.itertuples())}
    rows = []
    for one in planned:
        key = (one.variant.group, one.variant.name, one.variant.arm.name)
        if key in ran:
            rows.append(scored.iloc[ran[key]].to_dict())
        else:
            names = dict(zip(("group", "variant", "arm"), key, strict=True))
            rows.append(names | {"n": 0, "events": 0, "reason": one.reason, "data": data})
    return pd.DataFrame(rows, columns=scored.columns)


def score(frame: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Discrimination of each variant out of fold, and its difference to the unchanged arm.

    Parameters
    ----------
    frame : `predictions` of a grid.
    data : ``"simulated"`` or ``"real"``.

    Returns
    -------
    DataFrame with group, variant, arm, n_train (mean over the folds), n, events, auc with its 95 % limits
    low and high (DeLong, logit scale), difference (variant minus unchanged arm, on the patients of both)
    with its limits difference_low and difference_high (paired DeLong), p, p_holm (over all rows), reason
    (why something is NaN), data. Several seeds are averaged, as in `rlvo_lib.results`.

    Raises
    ------
    InputError
        If a test patient was predicted: ablations are judged out of fold only.
    """
    if (frame["partition"] == "test").any():
        raise InputError(
            "ablations: the table holds predictions of the test set; allowed: out-of-fold"
        )
    label = frame["group"] + "/" + frame["variant"] + "/" + frame["arm"]
    rows = label.to_frame("label").join(frame[["group", "variant", "arm"]]).drop_duplicates()
    labelled = frame.assign(arm=label)
    bases = {f"{BASE}/{BASE}/{arm}" for arm in frame["arm"].unique()}
    pairs = [(r.label, f"{BASE}/{BASE}/{r.arm}") for r in rows.itertuples() if r.label not in bases]
    against = results.comparisons(
        labelled, dataclasses.replace(study, comparisons=tuple(pairs)), data=data
    ).set_index("a")
    pooled = results.ensembles(labelled, "out-of-fold")
    found = {scores.arm: scores for scores in scores_of(pooled, rows["label"])}
    trained = labelled.groupby("arm")["n_train"].mean()
    out = []
    for row in rows.itertuples():
        scores = found[row.label]
        auc, low, high, _ = interval(scores, "auc", [], resamples=1, seed=0)
        line = {
            "group": row.group, "variant": row.variant, "arm": row.arm,
            "n_train": float(trained[row.label]), "n": scores.y.size, "events": int(scores.y.sum()),
            "auc": auc, "low": low, "high": high, "reason": "",
        }  # fmt: skip
        if row.label in against.index:
            other = against.loc[row.label]
            line |= {
                "difference": other["difference"], "difference_low": other["low"],
                "difference_high": other["high"], "p": other["p"], "p_holm": other["p_holm"],
                "reason": other["reason"],
            }  # fmt: skip
        out.append(line)
    columns = [
        "group", "variant", "arm", "n_train", "n", "events", "auc", "low", "high", "difference",
        "difference_low", "difference_high", "p", "p_holm", "reason",
    ]  # fmt: skip
    return pd.DataFrame(out, columns=columns).assign(data=data)
