"""Importance of clinical variables: SHAP values and permutation, by group, and how far models agree.

All is on the logit of models that did not see the patient. What is averaged over models is averaged for
each patient first; intervals are 95 % percentile bootstraps over patients, and say nothing of retraining.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError

RESAMPLES, SEED = 2000, 2025
#: Fewer variables have no rank correlation worth the name.
LEAST_VARIABLES = 3
AGREEMENT_COLUMNS = [
    "between", "first", "second", "rho", "low", "high", "patients_rho", "variables", "n", "reason", "data",
]  # fmt: skip


def shap_means(shap: pd.DataFrame) -> pd.DataFrame:
    """The mean over the fold models (and seeds) of each patient's SHAP values, base and logit.

    Returns
    -------
    DataFrame with participant_id, arm, variable, value, shap, base, logit, in the order of ``shap``; what
    else the rows hold of text (a column ``text``) is kept.
    """
    need(shap, "participant_id", "arm", "variable", "shap")
    own = ["participant_id", "arm", "variable"]
    means = [name for name in ("shap", "base", "logit") if name in shap]
    first = [name for name in ("value", "text") if name in shap]
    groups = shap.groupby(own, sort=False, as_index=False)
    found = groups[means].mean()
    for name in first:  # `first` of a group skips a missing value, and all of a patient's are alike
        found[name] = groups[name].first()[name]
    return found[[*own, *first, *means]]


def shap_importance(
    shap: pd.DataFrame,
    *,
    data: str,
    players: pd.DataFrame | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Mean absolute SHAP value of each variable, with a 95 % percentile bootstrap over patients.

    Parameters
    ----------
    shap : one row a patient and variable (and model): participant_id, arm, variable, shap, and
        perhaps fold and seed, over which a patient's values are averaged first.
    players : arm, variable, group; the table then has a column ``group``.

    Returns
    -------
    DataFrame with arm, variable, (group,) mean_abs_shap, low, high, rank (1 is largest), n, data.
    """
    tables = []
    for arm, wide in wide_by_arm(shap):
        table = _sizes(np.abs(wide.to_numpy()), list(wide.columns), "variable", resamples, seed)
        if players is not None:
            table.insert(1, "group", table["variable"].map(_groups_of(players, arm)).fillna(""))
        tables.append(_with_arm(table, arm))
    return pd.concat(tables, ignore_index=True).assign(data=data)


def shap_groups(
    shap: pd.DataFrame,
    players: pd.DataFrame,
    *,
    data: str,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Mean absolute SHAP value of each group of variables: those of a patient are added up first.

    A group's value is the absolute sum, so variables of one group that speak against each other cancel.

    Parameters
    ----------
    players : arm, variable, group.

    Returns
    -------
    DataFrame with arm, group, mean_abs_shap, low, high, rank, variables (number of), n, data.

    Raises
    ------
    InputError
        If a variable has no group.
    """
    tables = []
    for arm, wide in wide_by_arm(shap):
        groups = _groups_of(players, arm)
        lacking = [v for v in wide.columns if v not in groups]
        if lacking:
            raise InputError(f"SHAP values of arm '{arm}': variable '{lacking[0]}' has no group")
        own = wide.T.groupby(wide.columns.map(groups), sort=True).sum().T
        table = _sizes(np.abs(own.to_numpy()), list(own.columns), "group", resamples, seed)
        counts = pd.Series(wide.columns.map(groups)).value_counts()
        table.insert(5, "variables", table["group"].map(counts))
        tables.append(_with_arm(table, arm))
    return pd.concat(tables, ignore_index=True).assign(data=data)


def permutation_importance(
    permuted: pd.DataFrame,
    y: pd.Series,
    *,
    data: str,
    shap: pd.DataFrame | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """The fall of the AUC when a variable is permuted among patients, with a bootstrap over patients.

    Fall = AUC(as they are) - mean over repeats of AUC(permuted), of the fold-mean logit; 0 is what a
    variable that the model does not use has (the no-skill line). Several seeds are averaged. Negative:
    the model ranks better without the variable.

    Parameters
    ----------
    permuted : participant_id, arm, seed, variable ("" or NaN: nothing permuted), repeat, logit.
    y : outcome by participant_id.
    shap : SHAP values of the same arms, whose mean absolute value is put beside the fall.

    Returns
    -------
    DataFrame with arm, variable, auc_drop, low, high, no_skill, auc, repeats, mean_abs_shap, rank,
    n, events, reason, data.

    Raises
    ------
    InputError
        If a column is missing, a patient lacks a row or an outcome, or an arm has no unpermuted logits.
    """
    need(permuted, "participant_id", "arm", "variable", "repeat", "logit")
    sizes = {}
    if shap is not None:
        sizes = {
            (arm, variable): float(np.abs(wide[variable]).mean())
            for arm, wide in wide_by_arm(shap)
            for variable in wide
        }
    tables = []
    for arm, rows in permuted.fillna({"variable": ""}).groupby("arm", sort=True):
        table = _falls(str(arm), rows, y, resamples, seed)
        table["mean_abs_shap"] = [sizes.get((arm, v), np.nan) for v in table["variable"]]
        tables.append(table)
    columns = [
        "arm", "variable", "auc_drop", "low", "high", "no_skill", "auc", "repeats", "mean_abs_shap",
        "rank", "n", "events", "reason",
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)[columns].assign(data=data)


def _falls(arm: str, rows: pd.DataFrame, y: pd.Series, resamples: int, seed: int) -> pd.DataFrame:
    """The permutation importance of one arm's variables."""
    keys = ["variable", "repeat"] if "seed" not in rows else ["seed", "variable", "repeat"]
    wide = rows.pivot_table(index="participant_id", columns=keys, values="logit", aggfunc="mean")
    if wide.isna().any(axis=None):
        raise InputError(f"permuted logits of arm '{arm}': some patients lack some variables")
    names = wide.columns.get_level_values("variable")
    if "" not in names:
        raise InputError(f"permuted logits of arm '{arm}': none is unpermuted (variable '')")
    lacking = [p for p in wide.index if p not in y.index]
    if lacking:
        raise InputError(f"permuted logits: patient '{lacking[0]}' has no outcome")
    outcome = y[wide.index].to_numpy(float)
    n, events = len(outcome), int(outcome.sum())
    variables = [v for v in dict.fromkeys(names) if v]
    about = {"arm": arm, "no_skill": 0.0, "n": n, "events": events, "reason": ""}
    about["repeats"] = int(rows["repeat"].nunique())
    if not 0 < events < n:
        reason = "one outcome only: no AUC"
        undefined = dict.fromkeys(("auc_drop", "low", "high", "auc", "rank"), np.nan)
        return pd.DataFrame({"variable": variables}).assign(
            **about | undefined | {"reason": reason}
        )
    matrix = wide.to_numpy()
    aucs = np.array([metrics.auc(outcome, column) for column in matrix.T])
    drawn = metrics.bootstrap_many(
        outcome, matrix, ("auc",), stratified=False, n=resamples, seed=seed
    )["auc"]
    whole, drawn_whole = aucs[names == ""].mean(), drawn[:, names == ""].mean(axis=1)
    found = []
    for variable in variables:
        own = names == variable
        fall = drawn_whole - drawn[:, own].mean(axis=1)
        found.append((variable, whole - aucs[own].mean(), *np.nanquantile(fall, [0.025, 0.975])))
    table = pd.DataFrame(found, columns=["variable", "auc_drop", "low", "high"])
    table = table.sort_values(["auc_drop", "variable"], ascending=[False, True])
    return table.assign(auc=whole, rank=np.arange(1, len(table) + 1), **about)


# ------------------------------------------------------------------------------------- agreement


def shap_agreement(
    shap: pd.DataFrame, *, data: str, resamples: int = RESAMPLES, seed: int = SEED
) -> pd.DataFrame:
    """Rank correlation of importances between models: folds, training seeds, and arms.

    ``rho`` is Spearman's correlation, over the variables that both have, of the mean absolute SHAP value
    in the patients of each; its interval is a bootstrap over patients, who are the same in both.
    ``patients_rho`` is the mean over shared patients of the correlation of their signed values: whether
    two models say the same of one person. Without agreement both are about 0.

    Parameters
    ----------
    shap : participant_id, arm, variable, shap, and perhaps seed and fold.

    Returns
    -------
    DataFrame with between ("folds" of one arm and seed, "seeds" of one arm, "arms"), first, second
    (names of models: "daft, fold 1"), rho, low, high, patients_rho, variables, n (shared patients),
    reason, data.
    """
    need(shap, "participant_id", "arm", "variable", "shap")
    full = shap.assign(**{name: 0 for name in ("seed", "fold") if name not in shap})
    rows = []
    for between, pair in _pairs(full):
        (first, a), (second, b) = pair
        rows.append((between, first, second, *_agreement(a, b, resamples, seed)))
    return pd.DataFrame(rows, columns=AGREEMENT_COLUMNS[:-1]).assign(data=data)


def _pairs(shap: pd.DataFrame) -> Iterator[tuple[str, tuple]]:
    """Each pair of models that are compared: what differs, and (name, wide table) of the two."""
    several = shap["seed"].nunique() > 1
    arms = {}
    for arm, rows in shap.groupby("arm", sort=False):
        seeds = {}
        for seed, part in rows.groupby("seed", sort=True):
            word = f", seed {seed}" if several else ""
            folds = [
                (f"{arm}{word}, fold {fold}", wide_table(arm, own))
                for fold, own in part.groupby("fold", sort=True)
            ]
            yield from (("folds", pair) for pair in combinations(folds, 2))
            seeds[f"{arm}, seed {seed}"] = wide_table(arm, part)
        yield from (("seeds", pair) for pair in combinations(seeds.items(), 2))
        arms[arm] = wide_table(arm, rows)
    yield from (("arms", pair) for pair in combinations(arms.items(), 2))


def _agreement(a: pd.DataFrame, b: pd.DataFrame, resamples: int, seed: int) -> tuple:
    """rho, low, high, patients_rho, variables, n, reason of two wide tables."""
    shared = [v for v in a.columns if v in b.columns]
    people = a.index.intersection(b.index)
    counted = (len(shared), len(people))
    if len(shared) < LEAST_VARIABLES:
        reason = f"{len(shared)} variables in both; a rank correlation needs {LEAST_VARIABLES}"
        return (*(np.nan,) * 4, *counted, reason)
    first, second = a[shared], b[shared]
    rho = spearman(np.abs(first).mean(axis=0), np.abs(second).mean(axis=0))
    if not len(people) or len(people) < max(len(a), len(b)):
        reason = "not the same patients: no interval over them"
        people_rho = np.nan
        if len(people):
            people_rho = _patients(first.loc[people].to_numpy(), second.loc[people].to_numpy())
        return (rho, np.nan, np.nan, people_rho, *counted, reason)
    first, second = first.loc[people].to_numpy(), second.loc[people].to_numpy()
    n = len(people)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = spearman(draws @ np.abs(first), draws @ np.abs(second))
    reason = "" if np.isfinite(rho) else "all variables of one model are alike"
    if n < 2 or np.isnan(drawn).all():
        return (rho, np.nan, np.nan, _patients(first, second), *counted, reason or "one patient")
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return (rho, low, high, _patients(first, second), *counted, reason)


def _patients(first: np.ndarray, second: np.ndarray) -> float:
    """The mean over patients of the correlation of their values (N, M); NaN where nobody's is defined."""
    each = np.atleast_1d(spearman(first, second))
    return float(np.nanmean(each)) if np.isfinite(each).any() else np.nan


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray | float:
    """Spearman's rank correlation along the last axis; NaN where all values of one are alike.

    >>> float(spearman([1, 2, 3], [10, 20, 15]))
    0.5
    """
    from scipy.stats import rankdata

    x, y = (rankdata(np.asarray(values, float), axis=-1) for values in (a, b))
    x, y = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (x, y))
    spread = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    together = (x * y).sum(axis=-1)
    return np.where(spread > 0, together / np.where(spread > 0, spread, 1), np.nan)[()]


# ------------------------------------------------------------------------------------ shared parts


def need(frame: pd.DataFrame, *columns: str) -> None:
    """InputError if a table of SHAP values, or permuted logits, lacks a column."""
    for column in columns:
        if column not in frame:
            raise InputError(f"SHAP values: column '{column}' is missing")


def wide_by_arm(shap: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each arm's SHAP values as a table of patients by variables, averaged over models."""
    need(shap, "participant_id", "arm", "variable", "shap")
    for arm, rows in shap.groupby("arm", sort=True):
        yield str(arm), wide_table(str(arm), rows)


def wide_table(arm: str, rows: pd.DataFrame) -> pd.DataFrame:
    """SHAP values of one arm: patients by variables; what is there several times is averaged."""
    wide = rows.pivot_table(
        index="participant_id", columns="variable", values="shap", aggfunc="mean", sort=True
    )
    if wide.isna().any(axis=None):
        raise InputError(f"SHAP values of arm '{arm}': some patients lack some variables")
    return wide


def _sizes(
    size: np.ndarray, names: list[str], column: str, resamples: int, seed: int
) -> pd.DataFrame:
    """Means of sizes (N, M) with their bootstrap interval, largest first."""
    n = len(size)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    low, high = np.quantile(draws @ size / n, [0.025, 0.975], axis=0)
    table = pd.DataFrame({column: names, "mean_abs_shap": size.mean(axis=0)})
    table = table.assign(low=low, high=high)
    table = table.sort_values(["mean_abs_shap", column], ascending=[False, True])
    return table.assign(rank=np.arange(1, len(table) + 1), n=n)


def _with_arm(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    table.insert(0, "arm", arm)
    return table


def _groups_of(players: pd.DataFrame, arm: str) -> dict[str, str]:
    need(players, "arm", "variable", "group")
    own = players[players["arm"] == arm]
    return dict(zip(own["variable"], own["group"], strict=True))
