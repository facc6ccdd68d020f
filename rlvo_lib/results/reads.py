"""What was read off the images, what each read adds, and whether the end-to-end arms agree.

Values of several fold models and seeds are averaged first, patient by patient; intervals are over patients
(percentile bootstrap). Probabilities are means of the fold models' probabilities, as in the predictions.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError

READS = ("participant_id", "arm", "seed", "fold", "part", "variable", "value", "reading", "share",
         "contribution", "base", "logit")  # fmt: skip
WHAT_IF = (
    "participant_id",
    "arm",
    "seed",
    "fold",
    "variable",
    "to",
    "to_value",
    "logit_before",
    "logit",
)
LEAST_VARIABLES = 3  # that a rank correlation is made of


def reads_of_patients(reads: pd.DataFrame) -> pd.DataFrame:
    """Each patient's reads and contributions, mean over fold models and seeds.

    Returns
    -------
    DataFrame with participant_id, arm, part, variable, value, reading (the commonest of the models), share (the
    readers' mean share of it), contribution, base, logit; contributions and base add up to the logit.
    """
    frame = _checked(reads, READS, "reads")
    frame = frame.assign(reading=frame["reading"].fillna(""))
    keys = ["participant_id", "arm", "part", "variable"]
    means = frame.groupby(keys, sort=False)[["value", "contribution", "base", "logit"]].mean()
    counted = frame.groupby([*keys, "reading"], sort=False).agg(
        models=("fold", "size"), share=("share", "mean")
    )
    best = counted.reset_index().sort_values(["models", "share"], ascending=False, kind="stable")
    best = best.drop_duplicates(keys).set_index(keys)[["reading", "share"]]
    table = means.join(best).reset_index()
    return table[[*keys, "value", "reading", "share", "contribution", "base", "logit"]]


def reads_importance(
    reads: pd.DataFrame,
    quality: pd.DataFrame | None = None,
    *,
    data: str,
    resamples: int = 2000,
    seed: int = 2025,
) -> pd.DataFrame:
    """Mean absolute contribution of each read and clinical variable, beside how well it is read.

    Parameters
    ----------
    quality : concept, measure (``R2`` or ``AUC``), value, reason, as `experiment.reading` makes it.

    Returns
    -------
    DataFrame with arm, part, variable, mean_abs_contribution, low, high, rank (1 is largest), n, measure,
    reliability (out of fold; NaN of what is not read), reason, data.
    """
    frame, tables = reads_of_patients(reads), []
    known = pd.DataFrame(columns=["concept", "measure", "value", "reason"])
    known = (known if quality is None else quality).set_index("concept")
    for arm, rows in frame.groupby("arm", sort=False):
        wide = _wide(rows, "contribution", f"reads of arm '{arm}'")
        size = np.abs(wide.to_numpy())
        low, high = np.quantile(_draws(len(size), resamples, seed) @ size, [0.025, 0.975], axis=0)
        table = pd.DataFrame(
            {"variable": wide.columns, "mean_abs_contribution": size.mean(axis=0), "low": low,
             "high": high}
        )  # fmt: skip
        table["part"] = table["variable"].map(
            rows.drop_duplicates("variable").set_index("variable")["part"]
        )
        table = table.sort_values(
            ["mean_abs_contribution", "variable"], ascending=[False, True], ignore_index=True
        )
        read = table["part"] == "read"
        judged = known.reindex(table["variable"])
        table["measure"] = (
            judged["measure"].astype(object).where(read.to_numpy()).fillna("").to_numpy()
        )
        table["reliability"] = judged["value"].astype(float).where(read.to_numpy()).to_numpy()
        given = judged["reason"].astype(object).fillna("not judged").to_numpy()
        table["reason"] = np.where(read & table["reliability"].isna(), given, "")
        tables.append(table.assign(arm=arm, rank=np.arange(1, len(table) + 1), n=len(wide)))
    columns = ["arm", "part", "variable", "mean_abs_contribution", "low", "high", "rank", "n", "measure",
               "reliability", "reason"]  # fmt: skip
    return pd.concat(tables, ignore_index=True)[columns].assign(data=data)


def what_if_of_patients(what_if: pd.DataFrame) -> pd.DataFrame:
    """What each patient's probability would be had a read been different, all other reads their own.

    Returns
    -------
    DataFrame with participant_id, arm, variable, to, to_value, before, after (probabilities, mean over fold
    models and seeds), change.
    """
    frame = _checked(what_if, WHAT_IF, "what if")
    before, after = (1 / (1 + np.exp(-frame[name])) for name in ("logit_before", "logit"))
    frame = frame.assign(before=before, after=after)
    keys = ["participant_id", "arm", "variable", "to"]
    table = frame.groupby(keys, sort=False)[["to_value", "before", "after"]].mean().reset_index()
    return table.assign(change=table["after"] - table["before"])


def what_if_effects(
    what_if: pd.DataFrame, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """Mean change of the probability had a read been different.

    Returns
    -------
    DataFrame with arm, variable, to, to_value, before, after, change, low, high, n, data.
    """
    frame = what_if_of_patients(what_if)
    rows = []
    for (arm, variable, to), own in frame.groupby(["arm", "variable", "to"], sort=False):
        own = own.sort_values("participant_id")
        drawn = _draws(len(own), resamples, seed) @ own["change"].to_numpy()
        means = own[["to_value", "before", "after", "change"]].mean()
        rows.append((arm, variable, to, *means, *np.quantile(drawn, [0.025, 0.975]), len(own)))
    columns = ["arm", "variable", "to", "to_value", "before", "after", "change", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def concept_agreement(
    shap: pd.DataFrame,
    reads: pd.DataFrame,
    *,
    data: str,
    resamples: int = 2000,
    seed: int = 2025,
) -> pd.DataFrame:
    """Whether the variables of an arm of concepts move its logit as they move that of another arm.

    Spearman's rank correlation of SHAP values and contributions over the variables that both explain, in the
    patients that both explain: signed and patient by patient (``level`` patient: mean over patients), and
    of the variables' mean absolute values (``level`` mean).

    Returns
    -------
    DataFrame with arm (of SHAP), concepts_arm, level, spearman, low, high (over patients), n, variables, reason,
    data.
    """
    for column in ("participant_id", "arm", "variable", "shap"):
        if column not in shap:
            raise InputError(f"SHAP values: column '{column}' is missing")
    of_reads, rows = reads_of_patients(reads), []
    for arm, own in shap.groupby("arm", sort=False):
        first = own.pivot_table(
            index="participant_id", columns="variable", values="shap", aggfunc="mean"
        )
        for other, theirs in of_reads.groupby("arm", sort=False):
            second = theirs.pivot_table(
                index="participant_id", columns="variable", values="contribution", aggfunc="mean"
            )
            ids = first.index.intersection(second.index)
            names = sorted(set(first) & set(second))
            a, b = (frame.loc[ids, names].to_numpy(float) for frame in (first, second))
            for level, values in _agreement(a, b, resamples, seed).items():
                rows.append((arm, other, level, *values[:3], len(ids), len(names), values[3]))
    columns = [
        "arm",
        "concepts_arm",
        "level",
        "spearman",
        "low",
        "high",
        "n",
        "variables",
        "reason",
    ]
    return pd.DataFrame(rows, columns=columns).assign(data=data)


def _agreement(
    a: np.ndarray, b: np.ndarray, resamples: int, seed: int
) -> dict[str, tuple[float, float, float, str]]:
    """Of values (n, variables) of two models: correlation, low, high and why they are NaN, by level."""
    nothing = (np.nan, np.nan, np.nan)
    if not len(a):
        return dict.fromkeys(("patient", "mean"), (*nothing, "no patient is explained by both"))
    if a.shape[1] < LEAST_VARIABLES:
        reason = f"{a.shape[1]} variables in both; needed: {LEAST_VARIABLES}"
        return dict.fromkeys(("patient", "mean"), (*nothing, reason))
    draws = _draws(len(a), resamples, seed)
    each = spearman(a, b)
    whole = spearman(np.abs(a).mean(axis=0)[None], np.abs(b).mean(axis=0)[None])[0]
    means = spearman(draws @ np.abs(a), draws @ np.abs(b))
    found = {}
    for level, value, drawn in (
        ("patient", each.mean(), draws @ each),
        ("mean", whole, means),
    ):
        if np.isnan(value) or np.isnan(drawn).any():
            found[level] = (float(value), np.nan, np.nan, "the values of a model are all alike")
        else:
            found[level] = (float(value), *np.quantile(drawn, [0.025, 0.975]).tolist(), "")
    return found


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of a with that of b, both (n, k); NaN where a row is constant.

    Examples
    --------
    >>> spearman(np.array([[1.0, 2.0, 3.0]]), np.array([[10.0, 30.0, 20.0]]))
    array([0.5])
    """
    from scipy.stats import rankdata

    x, y = (rankdata(one, axis=1) for one in (a, b))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return (x * y).sum(axis=1) / np.where(size > 0, size, np.nan)


def _checked(frame: pd.DataFrame, needed: tuple[str, ...], what: str) -> pd.DataFrame:
    for column in needed:
        if column not in frame:
            raise InputError(f"{what}: column '{column}' is missing; needed: {', '.join(needed)}")
    if frame.empty:
        raise InputError(f"{what}: no rows; explain an arm of kind concepts first")
    return frame


def _wide(rows: pd.DataFrame, values: str, what: str) -> pd.DataFrame:
    wide = rows.pivot(index="participant_id", columns="variable", values=values).sort_index()
    if wide.isna().any(axis=None):
        raise InputError(f"{what}: some patients lack some variables")
    return wide


def _draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """Weights (resamples, n) of patients drawn with replacement."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n
