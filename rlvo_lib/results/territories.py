"""Which territories carry risk beyond a lesion's volume, in the models: from logits of virtual lesions.

Input is a row a model (arm, seed, fold), territory (label, territory, side) and size: ``logit`` with a lesion of that
size in that territory, ``empty`` without one (`rlvo_lib.explain.territories`). With c = logit - empty,

    beyond volume = c - mean of c over the territories that a lesion of that size fits in,

all in log-odds. A model that sees no place has 0 everywhere. Ranges are percentiles over models, which share
patients: they say how alike models are, and nothing about other patients.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError

NEEDED = (
    "arm", "seed", "fold", "label", "territory", "side", "size_ml", "logit", "empty", "change_sd",
    "coefficient", "touched", "as_large",
)  # fmt: skip
#: A territory that fewer patients' lesions reach into: the models have learnt nothing there.
LEAST_TOUCHED = 10
SAME = 1e-6  # log-odds: territories of a model that sees no place differ by rounding alone
SIDES = ("left", "right")
MODEL = ["seed", "fold"]


def territory_risk(territories: pd.DataFrame, *, data: str) -> pd.DataFrame:
    """The change of the log-odds by a lesion in each territory, and what of it is beyond its volume.

    Returns
    -------
    DataFrame with arm, label, territory, side, size_ml, change (against no lesion), beyond_volume, low, high (2.5
    and 97.5 percentile of beyond_volume over models), rank (of beyond_volume, 1 the highest, within arm and
    size), switched (mean SD of the change over patients: how far clinical values move it), coefficient (mean
    log-odds per SD of the territory's column; NaN but for logistic regression), touched (patients whose lesion reaches into it),
    as_large (those with at least this volume in it), n_models, reason, data. ``reason`` says why a territory is not to be
    read, where a value is extrapolated, or why a range is NaN.
    """
    tables = []
    for (arm, size), rows in _beyond(territories).groupby(["arm", "size_ml"], sort=False):
        beyond = _wide(rows, "beyond")
        low, high = _spread(beyond)
        first = rows.groupby("label").first()
        table = pd.DataFrame(
            {
                "territory": first["territory"],
                "side": first["side"],
                "size_ml": size,
                "change": _wide(rows, "change").mean(),
                "beyond_volume": beyond.mean(),
                "low": low,
                "high": high,
                "rank": beyond.mean().rank(ascending=False, method="min").astype(int),
                "switched": rows.groupby("label")["change_sd"].mean(),
                "coefficient": rows.groupby("label")["coefficient"].mean(),
                "touched": first["touched"],
                "as_large": first["as_large"],
                "n_models": len(beyond),
            }
        )
        one = "one model: no range" if len(beyond) < 2 else ""
        table["reason"] = [
            _said(few_words(n, m), one)
            for n, m in zip(table["touched"], table["as_large"], strict=True)
        ]
        tables.append(table.reset_index().assign(arm=arm))
    columns = [
        "arm", "label", "territory", "side", "size_ml", "change", "beyond_volume", "low", "high", "rank",
        "switched", "coefficient", "touched", "as_large", "n_models", "reason",
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)[columns].assign(data=data)


def territory_sides(territories: pd.DataFrame, *, data: str) -> pd.DataFrame:
    """Left against right of the same territory, lesions of the same size.

    Returns
    -------
    DataFrame with arm, territory, size_ml, left, right (beyond volume, log-odds), difference (left - right), low,
    high (percentiles over models), same_sign (share of models on the side of the mean), touched_left,
    touched_right, n_models, reason, data. Territories without two sides are left out; the table may be empty.
    """
    tables = []
    for (arm, size), rows in _beyond(territories).groupby(["arm", "size_ml"], sort=False):
        both = rows[rows["side"].isin(SIDES)]
        wide = both.pivot_table(
            index=MODEL, columns=["territory", "side"], values="beyond", sort=False
        )
        patients = both.groupby(["territory", "side"])[["touched", "as_large"]].first()
        names = [
            name for name in both["territory"].unique() if {(name, s) for s in SIDES} <= set(wide)
        ]
        for name in names:
            left, right = (wide[name, side] for side in SIDES)
            apart = (left - right).to_frame()
            low, high = _spread(apart)
            mean = float(apart.mean().iloc[0])
            own = patients.loc[[(name, side) for side in SIDES]]
            tables.append({
                "arm": arm, "territory": name, "size_ml": size, "left": left.mean(), "right": right.mean(),
                "difference": mean, "low": low[0], "high": high[0],
                "same_sign": float((np.sign(apart) == np.sign(mean)).mean().iloc[0]),
                "touched_left": int(own["touched"].iloc[0]), "touched_right": int(own["touched"].iloc[1]),
                "n_models": len(apart),
                "reason": _said(few_words(*own.min()), "one model: no range" if len(apart) < 2 else ""),
            })  # fmt: skip
    columns = [
        "arm", "territory", "size_ml", "left", "right", "difference", "low", "high", "same_sign", "touched_left",
        "touched_right", "n_models", "reason",
    ]  # fmt: skip
    return pd.DataFrame(tables, columns=columns).assign(data=data)


def territory_agreement(
    territories: pd.DataFrame, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """Do two arms rank the territories alike? Spearman correlation of each pair of arms at each size.

    Over territories that at least `LEAST_TOUCHED` patients' lesions reach into. Limits are 95 % percentiles of a
    bootstrap over models, the same (seed, fold) in both arms: other patients are not in them.

    Returns
    -------
    DataFrame with first, second, size_ml, rho, low, high, n_territories, n_models, over, reason, data; NaN with
    the reason where an arm does not tell territories apart, or fewer than three are left.
    """
    beyond = _beyond(territories)
    beyond = beyond[beyond["touched"] >= LEAST_TOUCHED]
    rows = []
    for first, second in itertools.combinations(territories["arm"].unique(), 2):
        for size in sorted(territories["size_ml"].unique()):
            pair = [
                _wide(beyond[(beyond["arm"] == arm) & (beyond["size_ml"] == size)], "beyond")
                for arm in (first, second)
            ]
            rows.append(
                {"first": first, "second": second, "size_ml": size}
                | _agreement(*pair, resamples=resamples, seed=seed)
            )
    columns = [
        "first", "second", "size_ml", "rho", "low", "high", "n_territories", "n_models", "over", "reason",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def common_size(risk: pd.DataFrame) -> float:
    """The largest size (mL) that fits in as many territories as any does: the one to show all of them at."""
    n = risk.groupby("size_ml")["label"].nunique()
    return float(n.index[n == n.max()].max())


def few_words(touched: int, as_large: int) -> str:
    """Why a value is not to be read, or is extrapolated; empty if enough patients have such a lesion.

    >>> few_words(40, 2)
    'extrapolated: 2 patients have as much of the lesion there'
    """
    if touched < LEAST_TOUCHED:
        return f"reached by the lesions of {touched} patients: too few to learn from"
    if as_large < LEAST_TOUCHED:
        return f"extrapolated: {as_large} patients have as much of the lesion there"
    return ""


# ------------------------------------------------------------------------------------- the parts


def _beyond(territories: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``change`` and ``beyond``, log-odds."""
    for column in NEEDED:
        if column not in territories:
            raise InputError(
                f"territories: column '{column}' is missing; needed: {', '.join(NEEDED)}"
            )
    if territories.empty:
        raise InputError("territories: no rows; ask a fold model first")
    rows = territories.assign(
        change=territories["logit"] - territories["empty"],
        side=territories["side"].astype(object).fillna(""),
    )
    mean = rows.groupby(["arm", *MODEL, "size_ml"])["change"].transform("mean")
    beyond = rows["change"] - mean
    return rows.assign(beyond=beyond.where(beyond.abs() > SAME, 0.0))


def _wide(rows: pd.DataFrame, values: str) -> pd.DataFrame:
    """A row a model, a column a territory."""
    return rows.pivot(index=MODEL, columns="label", values=values)


def _spread(values: pd.DataFrame) -> np.ndarray:
    """2.5 and 97.5 percentile over models (2, k); NaN of one model."""
    if len(values) < 2:
        return np.full((2, values.shape[1]), np.nan)
    return np.quantile(values.to_numpy(float), [0.025, 0.975], axis=0)


def _said(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _agreement(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int, seed: int
) -> dict[str, object]:
    labels = first.columns.intersection(second.columns)
    models = first.index.intersection(second.index)
    a, b = (one.loc[models, labels].to_numpy(float) for one in (first, second))
    found = {"n_territories": len(labels), "n_models": len(models), "over": "models"}
    rho = _spearman(a.mean(axis=0), b.mean(axis=0)) if len(models) else np.nan
    if len(labels) < 3:
        reason = f"{len(labels)} territories that both arms can be asked about; 3 are needed"
        return found | {"rho": np.nan, "low": np.nan, "high": np.nan, "reason": reason}
    if np.isnan(rho):
        reason = "an arm does not tell territories apart"
        return found | {"rho": np.nan, "low": np.nan, "high": np.nan, "reason": reason}
    if len(models) < 2:
        return found | {"rho": rho, "low": np.nan, "high": np.nan, "reason": "one model: no range"}
    weights = np.random.default_rng(seed).multinomial(
        len(models), np.full(len(models), 1 / len(models)), size=resamples
    )
    low, high = np.nanquantile(_spearman(weights @ a, weights @ b), [0.025, 0.975])
    return found | {"rho": rho, "low": float(low), "high": float(high), "reason": ""}


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray | float:
    """Rank correlation along the last axis; NaN where one is the same everywhere.

    >>> _spearman(np.array([1.0, 2, 3]), np.array([[1.0, 5, 9], [3, 2, 2]])).round(3).tolist()
    [1.0, -0.866]
    """
    from scipy.stats import rankdata

    a, b = (rankdata(one, axis=-1) for one in (a, b))
    a, b = (one - one.mean(axis=-1, keepdims=True) for one in (a, b))
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(size > 0, (a * b).sum(axis=-1) / size, np.nan)
    return found if found.ndim else float(found)
