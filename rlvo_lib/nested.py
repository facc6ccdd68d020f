"""Settings chosen inside the training part: for each fold, candidates are compared on folds of its own patients.

Nested cross-validation (Varma & Simon, BMC Bioinformatics 2006): what is held out of an outer fold has no part in
the choice made for it, so predictions under each fold's own choice are judged by patients who did not choose. The study's
settings are then those of the candidate with the least mean loss over all outer folds: a choice in which every
patient had a part, and `estimates` shows both, side by side. It is one repetition and one training seed: the
difference of the two is within the luck of training.

Candidates stand in ``candidates.toml`` beside the study file::

    arms = ["daft", "concat"]   # whose losses are averaged
    folds = 3                   # inside each outer training part
    [start]                     # the first candidate: what differs from the study's profile
    encoder = "light"
    [candidates.coarse]         # what differs from the start
    grid_spacing_mm = 10.0

``python -m rlvo_lib.nested STUDY DATA OUT`` writes ``candidates.csv`` (losses), ``means.csv``, ``choices.csv``
and ``estimates.csv``; what was finished before is not trained again.
"""

from __future__ import annotations

import dataclasses
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import cohort, experiment, metrics, storage
from rlvo_lib.analysis import Analysis, open_analysis
from rlvo_lib.config import InputError, Settings, Study, load_settings
from rlvo_lib.experiment.arms import COMBINED
from rlvo_lib.experiment.running import run_work
from rlvo_lib.preprocess import TensorCache

FILE = "candidates.toml"
START = "start"  # the name of the first candidate


@dataclass(frozen=True)
class Plan:
    """What is compared: arms whose losses are averaged, inner folds, and each candidate's changed settings."""

    arms: tuple[str, ...]
    folds: int
    candidates: Mapping[str, Mapping[str, Any]]
    start: Mapping[str, Any] = field(default_factory=dict)  # what all of them share


def load_plan(study: Study) -> Plan:
    """The study's ``candidates.toml``.

    Raises
    ------
    InputError
        If there is none, or it names no candidate, an arm the study has not, or fewer than two folds.
    """
    path = study.folder / FILE
    if not path.is_file():
        raise InputError(f"study '{study.name}' has no {FILE}; allowed: a study with candidates")
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    for name in raw.get("arms", ()):
        if name not in study.arms:
            raise InputError(f"{FILE}: arm '{name}'; allowed: {', '.join(study.arms)}")
        if study.arms[name].kind in COMBINED:
            raise InputError(
                f"{FILE}: arm '{name}' is made of others; allowed: arms that are trained"
            )
    folds, candidates = raw.get("folds", 0), raw.get("candidates", {})
    if START in candidates:
        raise InputError(f"{FILE}: candidate '{START}'; allowed: another name, this is the first's")
    if not raw.get("arms") or not candidates:
        raise InputError(f"{FILE}: allowed: at least one of 'arms' and one [candidates.NAME]")
    if not isinstance(folds, int) or folds < 2:
        raise InputError(f"{FILE}: folds is {folds!r}; allowed: 2 or more")
    return Plan(tuple(raw["arms"]), folds, {START: {}} | candidates, raw.get("start", {}))


def inside(analysis: Analysis, fold: int, seed: int, folds: int) -> Analysis:
    """The analysis of an outer fold's training part alone, with ``folds`` folds drawn anew among it.

    The fold's held-out patients, and test patients, are in neither its table of patients nor its split.
    """
    parts = analysis.fold_parts(fold, seed)
    hidden = {*parts["held_out"], *parts["test"]}
    frame = analysis.frame[~analysis.frame["participant_id"].isin(hidden)].reset_index(drop=True)
    validation = dict(analysis.settings.study.validation) | {
        "design": "cross-validation", "folds": folds, "repeats": 1,
    }  # fmt: skip
    study = dataclasses.replace(analysis.settings.study, validation=validation)
    settings = dataclasses.replace(analysis.settings, study=study)
    drawn = analysis.settings.seed + 1000 * (seed + 1) + fold
    split = cohort.make_split(frame, study, analysis.dictionary, seed=drawn, given=None)
    return dataclasses.replace(analysis, settings=settings, frame=frame, split=split)


def compare(
    analyses: Mapping[str, tuple[Analysis, TensorCache]], plan: Plan, *, seed: int = 0
) -> pd.DataFrame:
    """Train all candidates on the inner folds of every outer fold, and how well each predicts there.

    Parameters
    ----------
    analyses : each candidate's analysis of all patients, with its tensors.
    seed : the repetition whose outer folds are used.

    Returns
    -------
    DataFrame with candidate, arm, fold (outer), n, events, loss (mean negative log-likelihood of the inner
    out-of-fold predictions), auc (of the same, each inner fold by itself, averaged).
    """
    wanted, work = [], []
    for name, (analysis, tensors) in analyses.items():
        for fold in _outer(analysis):
            own = inside(analysis, fold, seed, plan.folds)
            tasks = experiment.plan(own, tensors, list(plan.arms))
            tasks = [task for task in tasks if task.seed == own.seeds[0]]
            wanted.append((name, fold, tasks))
            work += [(own, tensors, task) for task in tasks]
    run_work(work)
    rows = []
    for name, fold, tasks in wanted:
        for arm in plan.arms:
            made = [storage.read_csv(t.result) for t in tasks if t.arm.name == arm]
            rows.append((name, arm, fold, *_quality(made)))
    columns = ["candidate", "arm", "fold", "n", "events", "loss", "auc"]
    return pd.DataFrame(rows, columns=columns)


def _outer(analysis: Analysis) -> range:
    return range(1, analysis.settings.study.validation["folds"] + 1)


def _quality(made: list[pd.DataFrame]) -> tuple[int, int, float, float]:
    """Patients, events, loss and AUC of the predictions of inner folds."""
    frame = pd.concat(made)
    y, p = frame["y_true"].to_numpy(float), frame["probability"].clip(1e-9, 1 - 1e-9).to_numpy()
    logit = np.log(p / (1 - p))
    loss = float(np.mean(np.logaddexp(0, logit) - y * logit))
    auc = np.mean([metrics.auc(f["y_true"].to_numpy(), f["probability"].to_numpy()) for f in made])
    return len(y), int(y.sum()), loss, float(auc)


def means(compared: pd.DataFrame) -> pd.DataFrame:
    """A row a candidate, least loss first: loss and AUC of inner folds, each arm's mean over the outer folds.

    Examples
    --------
    >>> table = pd.DataFrame({"candidate": ["a", "b"], "arm": "daft", "fold": 1, "loss": [0.5, 0.4], "auc": 0.7})
    >>> means(table)["candidate"].tolist()
    ['b', 'a']
    """
    order = list(dict.fromkeys(compared["candidate"]))
    wide = compared.pivot_table(index="candidate", columns="arm", values=["loss", "auc"]).loc[order]
    table = wide["loss"].add_prefix("loss_").join(wide["auc"].add_prefix("auc_"))
    table.insert(0, "loss", wide["loss"].mean(axis=1))
    return table.sort_values("loss", kind="stable").reset_index()


def choices(compared: pd.DataFrame) -> pd.DataFrame:
    """The candidate of least loss, for each outer fold and (fold ``all``) over them all.

    Returns
    -------
    DataFrame with fold, candidate, loss (mean over the arms), start_loss (that of the first candidate).

    Examples
    --------
    >>> table = pd.DataFrame({"candidate": ["a", "b"] * 2, "arm": "daft", "fold": [1, 1, 2, 2],
    ...                       "loss": [0.5, 0.4, 0.3, 0.6]})
    >>> choices(table)["candidate"].tolist()
    ['b', 'a', 'a']
    """
    order = list(dict.fromkeys(compared["candidate"]))
    loss = compared.pivot_table(index="candidate", columns="fold", values="loss").loc[order]
    loss.columns = loss.columns.astype(str)
    loss["all"] = loss.mean(axis=1)
    rows = []
    for fold in loss:
        best = loss[fold].idxmin()
        rows.append((fold, best, loss.loc[best, fold], loss.loc[order[0], fold]))
    return pd.DataFrame(rows, columns=["fold", "candidate", "loss", "start_loss"])


def estimates(
    analyses: Mapping[str, tuple[Analysis, TensorCache]],
    chosen: pd.DataFrame,
    plan: Plan,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """AUC out of (outer) fold of each arm: under each fold's own choice, and under the choice over all.

    ``difference`` is the second minus the first: optimism of a choice by the patients it is judged on, and luck.

    Returns
    -------
    DataFrame with arm, choice (``of each fold`` or ``over all folds``), n, events, auc, low, high (DeLong, logit
    scale), difference (NaN in the first row of an arm).
    """
    per_fold = chosen[chosen["fold"] != "all"].set_index("fold")["candidate"]
    overall = chosen.set_index("fold").loc["all", "candidate"]
    ways = {
        "of each fold": dict(per_fold),
        "over all folds": dict.fromkeys(per_fold.index, overall),
    }
    found = {way: _outer_predictions(analyses, own, plan, seed) for way, own in ways.items()}
    rows = []
    for arm in plan.arms:
        aucs = {}
        for way, frame in found.items():
            own = frame[frame["arm"] == arm]
            y, p = own["y_true"].to_numpy(), own["probability"].to_numpy()
            limits = metrics.auc_ci(y, p, method="delong-logit")
            aucs[way] = limits.estimate
            gain = aucs[way] - aucs["of each fold"] if way != "of each fold" else np.nan
            rows.append(
                (arm, way, len(own), int(y.sum()), aucs[way], limits.low, limits.high, gain)
            )
    columns = ["arm", "choice", "n", "events", "auc", "low", "high", "difference"]
    return pd.DataFrame(rows, columns=columns)


def _outer_predictions(
    analyses: Mapping[str, tuple[Analysis, TensorCache]],
    candidate_of: Mapping[str, str],
    plan: Plan,
    seed: int,
) -> pd.DataFrame:
    """Out-of-fold predictions where each outer fold has a candidate of its own."""
    work = []
    for fold, candidate in candidate_of.items():
        analysis, tensors = analyses[candidate]
        tasks = experiment.plan(analysis, tensors, list(plan.arms))
        own = [task for task in tasks if (task.seed, str(task.fold)) == (seed, fold)]
        work += [(analysis, tensors, task) for task in own]
    run_work(work)
    frames = [storage.read_csv(task.result) for _, _, task in work]
    predicted = pd.concat(frames, ignore_index=True)
    return predicted[predicted["partition"] == "out-of-fold"]


def run(settings: Settings, changes: Mapping[str, Any], out: Path) -> pd.DataFrame:
    """Compare a study's candidates and write the four tables into ``out``; returns the choices.

    ``changes`` : settings that every candidate shares, beside the study's profile.
    """
    plan, analyses = load_plan(settings.study), {}
    tensors: dict[tuple, TensorCache] = {}
    for name, own in plan.candidates.items():
        varied = load_settings(
            settings.profile, study=settings.study.name, data=settings.data or "",
            cache=settings.cache, out=settings.cache / "nested" / settings.study.name,
            **{**changes, **plan.start, **own},
        )  # fmt: skip
        analysis = open_analysis(varied)
        grid = (varied.grid_shape, varied.grid_spacing_mm)
        if grid not in tensors:
            tensors[grid] = analysis.tensors()
        analyses[name] = (analysis, tensors[grid])
    compared = compare(analyses, plan)
    chosen = choices(compared)
    judged = estimates(analyses, chosen, plan)
    changed = {name: _in_words({**plan.start, **own}) for name, own in plan.candidates.items()}
    averaged = means(compared)
    for table in (compared, averaged):
        table.insert(1, "changes", table["candidate"].map(changed))
    written = {"candidates": compared, "means": averaged, "choices": chosen, "estimates": judged}
    for name, table in written.items():
        storage.write_csv(out / f"{name}.csv", table.assign(data=analysis.dataset.kind).round(5))
    return chosen


def _in_words(changes: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} = {value}" for name, value in changes.items())


if __name__ == "__main__":
    study_name, data_folder, target = sys.argv[1:4]
    try:
        asked = load_settings("demo", study=study_name, data=data_folder, repeats=1)
        print(run(asked, {"repeats": 1}, Path(target)).to_string(index=False))
    except InputError as error:
        sys.exit(str(error))
