"""What each modality carries, from the logits of all coalitions of modalities: exact Shapley values.

The Shapley value of a player i among n is its mean contribution over all orders in which they may enter,

    φ_i = Σ_{S without i} |S|! (n - |S| - 1)! / n!  [v(S with i) - v(S)],

and the values add up to v(all) - v(none) (Shapley, Ann. Math. Stud. 28, 1953). v(S) is a patient's logit
when S is present and the rest absent, or the AUC of these logits over the patients. An interaction is the
pair's second difference, averaged likewise (Grabisch and Roubens, Int. J. Game Theory 1999): above 0 the
two together carry more than each alone, below 0 the one repeats the other.

Logits are averaged over fold models and seeds first, patient by patient. For an AUC each model's logits are taken
from its own logit of nothing first: without a test part different models score different patients, and their constants
alone would rank patients who are all the same to them. So the AUC of nothing is 0.5 exactly. Intervals are over patients
(stratified bootstrap of all coalitions at once); ``sd_folds`` is the spread over the fold models' own values.
"""

from __future__ import annotations

import itertools
from math import factorial

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError

NEEDED = ("participant_id", "arm", "seed", "fold", "absent", "coalition", "logit")
TOLERANCE = 1e-6  # of the sum of Shapley values


def shapley_weights(n: int) -> np.ndarray:
    """The matrix (n, 2^n) that makes Shapley values of the values of all coalitions.

    Coalitions are in the order of binary numbers, player 0 being the lowest bit.

    Examples
    --------
    >>> shapley_weights(2) @ np.array([0.0, 1.0, 3.0, 8.0])
    array([3., 5.])
    """
    weights = np.zeros((n, 2**n))
    for player, coalition in itertools.product(range(n), range(2**n)):
        inside = bool(coalition >> player & 1)
        size = coalition.bit_count() - inside
        weights[player, coalition] = (
            factorial(size) * factorial(n - size - 1) / factorial(n) * (1 if inside else -1)
        )
    return weights


def interaction_weights(n: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Pairs of n players, and the matrix (pairs, 2^n) of their Shapley interaction index.

    Examples
    --------
    >>> interaction_weights(2)[1] @ np.array([0.0, 1.0, 3.0, 8.0])
    array([4.])
    """
    pairs = list(itertools.combinations(range(n), 2))
    weights = np.zeros((len(pairs), 2**n))
    for k, (i, j) in enumerate(pairs):
        for coalition in range(2**n):
            inside = (coalition >> i & 1) + (coalition >> j & 1)
            size = coalition.bit_count() - inside
            share = factorial(size) * factorial(n - size - 2) / factorial(n - 1)
            weights[k, coalition] = share * (-1 if inside == 1 else 1)
    return pairs, weights


def modality_values(modalities: pd.DataFrame) -> pd.DataFrame:
    """The Shapley value of each modality for each patient's logit, mean over fold models and seeds.

    Returns
    -------
    DataFrame with participant_id, arm, absent, modality, shapley, base (the logit where all is absent),
    logit (where nothing is); base plus a patient's values is the logit.
    """
    tables = []
    for (arm, absent), rows in _checked(modalities).groupby(["arm", "absent"], sort=False):
        names, logits = _wide(rows)
        values = logits.to_numpy() @ shapley_weights(len(names)).T
        _require_sum(values.sum(axis=1), logits.iloc[:, -1] - logits.iloc[:, 0])
        table = pd.DataFrame(values, index=logits.index, columns=names).rename_axis(
            columns="modality"
        )
        table = table.stack().rename("shapley").reset_index()
        ends = logits.iloc[:, [0, -1]].set_axis(["base", "logit"], axis=1)
        table = table.join(ends, on="participant_id").assign(arm=arm, absent=absent)
        tables.append(table)
    columns = ["participant_id", "arm", "absent", "modality", "shapley", "base", "logit"]
    return pd.concat(tables, ignore_index=True)[columns]


def modality_shares(
    modalities: pd.DataFrame, y: pd.Series, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """How much of the discrimination, and of single predictions, each modality carries.

    Parameters
    ----------
    modalities : participant_id, arm, seed, fold, absent, coalition ("" or names joined by "+"), logit.
    y : outcome (0 or 1) by participant_id.

    Returns
    -------
    DataFrame with arm, absent, measure, modality, value, low, high, share, sd_folds, n, events, reason,
    data. Measure ``auc``: Shapley value of the AUC, and as modality ``all`` their sum, the AUC of the whole
    above that of nothing; measure ``logit``: mean absolute Shapley value of the patients' logits. ``share`` is
    of the sum of a measure; NaN, with the reason, where the AUC gained is not clear of 0.
    """
    tables = []
    for (arm, absent), rows in _checked(modalities).groupby(["arm", "absent"], sort=False):
        tables.append(_auc_shares(rows, y, resamples, seed).assign(arm=arm, absent=absent))
        tables.append(_logit_shares(rows, y, resamples, seed).assign(arm=arm, absent=absent))
    columns = ["arm", "absent", "measure", "modality", "value", "low", "high", "share", "sd_folds", "n",
               "events", "reason"]  # fmt: skip
    return pd.concat(tables, ignore_index=True)[columns].assign(data=data)


def modality_coalitions(
    modalities: pd.DataFrame, y: pd.Series, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """The AUC of each coalition of modalities, the others absent.

    Returns
    -------
    DataFrame with arm, absent, coalition, size, auc, low, high, n, events, reason, data; the best of
    each size first.
    """
    tables = []
    for (arm, absent), rows in _checked(modalities).groupby(["arm", "absent"], sort=False):
        names, logits = _wide(_centred(rows))
        auc, drawn, reason = _aucs(logits, y, resamples, seed)
        low, high = _limits(drawn)
        table = pd.DataFrame({"coalition": _names(names), "auc": auc, "low": low, "high": high})
        table["size"] = table["coalition"].map(lambda c: len(c.split("+")) if c else 0)
        table = table.sort_values(["size", "auc", "coalition"], ascending=[True, False, True])
        tables.append(table.assign(arm=arm, absent=absent, reason=reason, **_counts(logits, y)))
    columns = ["arm", "absent", "coalition", "size", "auc", "low", "high", "n", "events", "reason"]
    return pd.concat(tables, ignore_index=True)[columns].assign(data=data)


def modality_interactions(
    modalities: pd.DataFrame, y: pd.Series, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """Shapley interaction index of each pair of modalities, of the AUC and of the patients' logits.

    Returns
    -------
    DataFrame with arm, absent, measure (``auc``; ``logit``: mean absolute index), a, b, value, low, high, n,
    events, reason, data.
    """
    tables = []
    for (arm, absent), rows in _checked(modalities).groupby(["arm", "absent"], sort=False):
        names, logits = _wide(rows)
        pairs, weights = interaction_weights(len(names))
        auc, drawn, reason = _aucs(_wide(_centred(rows))[1], y, resamples, seed)
        size = np.abs(logits.to_numpy() @ weights.T)
        resampled = _draws(len(size), resamples, seed) @ size
        for measure, value, limits, why in (
            ("auc", weights @ auc, _limits(drawn @ weights.T), reason),
            ("logit", size.mean(axis=0), _limits(resampled), ""),
        ):
            table = pd.DataFrame(
                {"a": [names[i] for i, _ in pairs], "b": [names[j] for _, j in pairs]}
            )
            table = table.assign(value=value, low=limits[0], high=limits[1], measure=measure)
            tables.append(table.assign(arm=arm, absent=absent, reason=why, **_counts(logits, y)))
    columns = [
        "arm",
        "absent",
        "measure",
        "a",
        "b",
        "value",
        "low",
        "high",
        "n",
        "events",
        "reason",
    ]
    return pd.concat(tables, ignore_index=True)[columns].assign(data=data)


# ------------------------------------------------------------------------------------- the parts


def _checked(modalities: pd.DataFrame) -> pd.DataFrame:
    for column in NEEDED:
        if column not in modalities:
            raise InputError(
                f"modalities: column '{column}' is missing; needed: {', '.join(NEEDED)}"
            )
    if modalities.empty:
        raise InputError("modalities: no rows; ask a fold model first")
    return modalities.assign(coalition=modalities["coalition"].fillna(""))


def _players(coalitions: pd.Series) -> list[str]:
    """The modalities, in the order of the coalition that holds them all."""
    names = max(coalitions.unique(), key=lambda c: len(c.split("+")) if c else 0).split("+")
    if set(coalitions) != set(_names(names)):
        raise InputError(
            f"modalities: {coalitions.nunique()} coalitions of {', '.join(names)}; needed: all "
            f"{2 ** len(names)}, the empty one and the whole among them"
        )
    return names


def _names(names: list[str]) -> list[str]:
    """The names of the coalitions, in the order of `shapley_weights`."""
    return [
        "+".join(name for k, name in enumerate(names) if number >> k & 1)
        for number in range(2 ** len(names))
    ]


def _centred(rows: pd.DataFrame) -> pd.DataFrame:
    """Logits less what each model says where all is absent, which is one number for all its patients."""
    nothing = rows[rows["coalition"] == ""].groupby(["seed", "fold"])["logit"].median()
    own = pd.MultiIndex.from_frame(rows[["seed", "fold"]])
    return rows.assign(logit=rows["logit"] - nothing.reindex(own).to_numpy())


def _wide(rows: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The modalities, and logits (n, 2^m) of one arm, a row a patient, mean over folds and seeds."""
    names = _players(rows["coalition"])
    wide = rows.pivot_table(
        index="participant_id", columns="coalition", values="logit", aggfunc="mean", sort=True
    )[_names(names)]
    if wide.isna().any(axis=None):
        raise InputError(
            f"modalities of arm '{rows['arm'].iloc[0]}': some patients lack a coalition"
        )
    return names, wide


def _require_sum(sums: np.ndarray, whole: np.ndarray) -> None:
    if np.abs(np.asarray(sums) - np.asarray(whole)).max() > TOLERANCE:
        raise RuntimeError("Shapley values do not add up to what all modalities change")


def _outcomes(logits: pd.DataFrame, y: pd.Series) -> np.ndarray:
    unknown = logits.index.difference(y.index)
    if len(unknown):
        raise InputError(f"modalities: the outcome of patient '{unknown[0]}' is not given")
    return y[logits.index].to_numpy(int)


def _counts(logits: pd.DataFrame, y: pd.Series) -> dict[str, int]:
    return {"n": len(logits), "events": int(_outcomes(logits, y).sum())}


def _auc(logits: pd.DataFrame, y: pd.Series) -> np.ndarray:
    """AUC of each coalition (2^m,); NaN if all patients have the same outcome."""
    outcome = _outcomes(logits, y)
    if len(set(outcome)) < 2:
        return np.full(logits.shape[1], np.nan)
    return np.array([metrics.auc(outcome, column) for column in logits.to_numpy().T])


def _aucs(
    logits: pd.DataFrame, y: pd.Series, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """AUC of each coalition (2^m,), replicates (resamples, 2^m), and why they are NaN."""
    auc, outcome = _auc(logits, y), _outcomes(logits, y)
    reason = metrics.resampling.fixed_stratum(outcome)
    if np.isnan(auc).any():
        reason = "all patients have the same outcome"
    if reason:
        return auc, np.full((resamples, logits.shape[1]), np.nan), reason
    found = metrics.bootstrap_many(outcome, logits.to_numpy(), ("auc",), n=resamples, seed=seed)
    return auc, found["auc"], ""


def _draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """Weights (resamples, n) of patients drawn with replacement."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n


def _limits(replicates: np.ndarray) -> np.ndarray:
    return np.quantile(replicates, [0.025, 0.975], axis=0)


def _each_fold(rows: pd.DataFrame) -> list[pd.DataFrame]:
    return [own for _, own in rows.groupby(["seed", "fold"], sort=True)]


def _auc_shares(rows: pd.DataFrame, y: pd.Series, resamples: int, seed: int) -> pd.DataFrame:
    names, logits = _wide(_centred(rows))
    weights = shapley_weights(len(names))
    weights = np.vstack([weights, weights.sum(axis=0)])  # their sum: all modalities
    auc, drawn, reason = _aucs(logits, y, resamples, seed)
    value, (low, high) = weights @ auc, _limits(drawn @ weights.T)
    if not reason:
        _require_sum(value[:-1].sum(), auc[-1] - auc[0])
    clear = low[-1] > 0
    own = [_auc(_wide(fold)[1], y) @ weights.T for fold in _each_fold(rows)]
    return pd.DataFrame(
        {
            "modality": [*names, "all"],
            "value": value,
            "low": low,
            "high": high,
            "share": value / value[-1] if clear else np.nan,
            "sd_folds": np.std(own, axis=0, ddof=1) if len(own) > 1 else np.nan,
            "reason": reason or ("" if clear else "share: the AUC gained is not clear of 0"),
        }
    ).assign(measure="auc", **_counts(logits, y))


def _logit_shares(rows: pd.DataFrame, y: pd.Series, resamples: int, seed: int) -> pd.DataFrame:
    names, logits = _wide(rows)
    weights = shapley_weights(len(names))
    size = np.abs(logits.to_numpy() @ weights.T)
    value = size.mean(axis=0)
    low, high = _limits(_draws(len(size), resamples, seed) @ size)
    own = [np.abs(_wide(fold)[1].to_numpy() @ weights.T).mean(axis=0) for fold in _each_fold(rows)]
    still = value.sum() == 0
    return pd.DataFrame(
        {
            "modality": names,
            "value": value,
            "low": low,
            "high": high,
            "share": np.nan if still else value / value.sum(),
            "sd_folds": np.std(own, axis=0, ddof=1) if len(own) > 1 else np.nan,
            "reason": "share: no modality moves a logit" if still else "",
        }
    ).assign(measure="logit", **_counts(logits, y))
