"""The main arms within the subgroups named in the study file, from the pooled out-of-fold predictions.

The development patients have several times the events of the test set, which cannot carry subgroups. Only
where a frozen run is applied to other patients, and nothing is out of fold, are these judged.
Strata share no patient, so their estimates are independent of each other (given the fold models).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError, Study, Subgroup
from rlvo_lib.dataset import typed
from rlvo_lib.dictionary import Dictionary, Field
from rlvo_lib.results.predictions import (
    Scores,
    check_predictions,
    ensembles,
    main_arms,
    scores_of,
)
from rlvo_lib.results.uncertainty import mean_auc

#: A stratum with fewer events, or fewer non-events, is not estimated.
LEAST = 10
MISSING = "missing"
OVERALL = ("all", "All patients")
TEST = "Cochran's Q of the strata's AUCs on the logit scale"
COLUMNS = [
    "arm", "subgroup", "text", "stratum", "n", "events", "auc", "low", "high", "o_to_e",
    "o_to_e_low", "o_to_e_high", "reference", "difference", "difference_low", "difference_high",
    "q", "df", "p_interaction", "p_holm", "test", "reason",
]  # fmt: skip
ESTIMATES = ("auc", "low", "high", "o_to_e", "o_to_e_low", "o_to_e_high")


def subgroups(
    predictions: pd.DataFrame,
    cohort: pd.DataFrame,
    study: Study,
    dictionary: Dictionary,
    *,
    data: str,
) -> pd.DataFrame:
    """AUC and O:E of the main arms in each stratum of each subgroup, and whether AUCs differ.

    Strata are the codes of the subgroup's column, or a quantity cut where the study file says. A patient
    without a value stands in a stratum ``missing``, which is counted and not judged. With fewer than
    `LEAST` events or non-events a stratum is not estimated. AUC: DeLong on the logit scale, mean over
    the seeds. O:E: events over the sum of probabilities, limits on the log scale with
    SE = sqrt((1 - O/n) / O) (Debray et al., BMJ 2017). Heterogeneity of the AUCs: Cochran's Q over the
    strata that have an interval, weights from the DeLong variances, on the logit scale; Holm-adjusted
    over the subgroups of an arm; beside it each stratum's difference from the largest one.

    Parameters
    ----------
    cohort
        ``cohort.csv`` as text, one row a patient.

    Returns
    -------
    DataFrame with arm, subgroup, text, stratum, n, events, auc, low, high, o_to_e and its limits,
    reference (the stratum that differences are taken from), difference and its limits, q, df,
    p_interaction, p_holm, test, reason, partition, data. The first row of an arm is of all patients.

    Raises
    ------
    InputError
        If a patient who was predicted is not in the cohort, or codes are to be cut.
    """
    predictions = check_predictions(predictions)
    developed = (predictions["partition"] == "out-of-fold").any()
    partition = "out-of-fold" if developed else "test"
    pooled = ensembles(predictions, partition)
    known = cohort.set_index("participant_id")
    absent = set(pooled["participant_id"]) - set(known.index)
    if absent:
        raise InputError(f"cohort: patient '{min(absent)}' was predicted but is not in it")
    chosen = pooled[pooled["arm"].isin(main_arms(study, pooled["arm"]))]
    rows = [
        row
        for scores in scores_of(chosen, study.arms)
        for row in _of_arm(scores, known, study, dictionary)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).assign(partition=partition, data=data)


def _of_arm(
    scores: Scores, cohort: pd.DataFrame, study: Study, dictionary: Dictionary
) -> list[dict]:
    patients = cohort.loc[list(scores.participants)]
    identifier, text = OVERALL
    everyone = estimate_stratum(scores, np.ones(scores.y.size, bool))
    tables = [[{"subgroup": identifier, "text": text, "stratum": identifier} | everyone]]
    for group in study.subgroups:
        rows = list(_strata_rows(scores, patients, group, dictionary))
        compare_strata(rows)
        tables.append([{"subgroup": group.id, "text": group.text} | row for row in rows])
    p = [_first(rows, "p_interaction") for rows in tables]
    for rows, adjusted in zip(tables, metrics.holm(p), strict=True):
        for row in rows:
            row |= {"arm": scores.arm} | {name: row.get(name, "") for name in ("reference", "test")}
            if "p_interaction" in row:
                row["p_holm"] = adjusted
    return [row for rows in tables for row in rows]


def _first(rows: list[dict], name: str) -> float:
    return next((row[name] for row in rows if name in row), np.nan)


def _strata_rows(
    scores: Scores, patients: pd.DataFrame, group: Subgroup, dictionary: Dictionary
) -> Iterator[dict]:
    """A row a stratum with what is estimated in it; one row that says why, if there is no stratum."""
    strata, reason = _strata(patients, group, dictionary)
    if reason:
        yield {"stratum": "", "n": 0, "events": 0, "reason": reason}
        return
    for name in strata.cat.categories:
        inside = (strata == name).to_numpy()
        if inside.any():
            yield {"stratum": name} | estimate_stratum(scores, inside)
    unknown = strata.isna().to_numpy()
    if unknown.any():
        counts = {"n": int(unknown.sum()), "events": int(scores.y[unknown].sum())}
        yield {"stratum": MISSING} | counts | {"reason": "no value: in no stratum"}


def _strata(
    patients: pd.DataFrame, group: Subgroup, dictionary: Dictionary
) -> tuple[pd.Series, str]:
    """Each patient's stratum, ordered categories in words (NaN: no value); or why there are none."""
    none = pd.Series(pd.Categorical([]))
    if group.column not in patients or group.column not in dictionary:
        return none, f"column '{group.column}' is not in this dataset"
    field = dictionary[group.column]
    values = typed(patients[[group.column]], dictionary)[group.column]
    if values.isna().all():
        return none, f"column '{group.column}' has no value in any patient"
    if field.is_quantity:
        if not group.cut:
            return none, f"column '{group.column}' is a quantity, and the study file says no cut"
        cut = np.searchsorted(group.cut, values, side="right")
        position = np.where(values.isna(), -1, cut)
        return pd.Series(pd.Categorical.from_codes(position, _cut_names(group.cut))), ""
    if group.cut:
        raise InputError(
            f"subgroup '{group.id}': column '{group.column}' holds codes; allowed: no cut"
        )
    return pd.Series(pd.Categorical(values.map(_words(field, values)), _order(field, values))), ""


def _cut_names(cut: tuple[float, ...]) -> list[str]:
    """
    >>> _cut_names((70, 80))
    ['below 70', '70 to below 80', '80 and more']
    """
    between = [f"{a:g} to below {b:g}" for a, b in zip(cut, cut[1:], strict=False)]
    return [f"below {cut[0]:g}", *between, f"{cut[-1]:g} and more"]


def _words(field: Field, values: pd.Series) -> dict[str, str]:
    return {code: field.choices.get(code, code) for code in values.dropna().unique()}


def _order(field: Field, values: pd.Series) -> list[str]:
    """The strata in words: codes in the dictionary's order, then any other."""
    present = _words(field, values)
    known = [code for code in field.choices if code in present]
    others = sorted(set(present) - set(known))
    return list(dict.fromkeys(present[code] for code in [*known, *others]))


def estimate_stratum(scores: Scores, inside: np.ndarray) -> dict:
    """What is estimated among some patients: n, events, `ESTIMATES`, reason; ``variance`` of the AUC.

    Parameters
    ----------
    inside
        ``(n,)`` bool, of the patients of ``scores``.
    """
    y = scores.y[inside]
    n, events = int(y.size), int(y.sum())
    if reason := _too_few(n, events):
        return {"n": n, "events": events, "reason": reason}
    own = Scores(scores.arm, (), y, scores.p[inside], scores.seeds)
    area, variance = mean_auc(own)
    low, high, reason = metrics.auc_interval(area, variance, logit=True)
    expected = float(own.p.sum(axis=0).mean())
    ratio = events / expected if expected > 0 else np.nan
    spread = np.exp(metrics.checks.quantile(0.95) * np.sqrt((1 - events / n) / events))
    found = (area, low, high, ratio, ratio / spread, ratio * spread)
    row = {"n": n, "events": events} | dict(zip(ESTIMATES, found, strict=True))
    return row | {"variance": variance, "reason": reason}


def _too_few(n: int, events: int) -> str:
    """Why a stratum cannot be judged, or an empty text."""
    for count, what in ((events, "event"), (n - events, "non-event")):
        if count < LEAST:
            return f"not estimable: {count} {what}{'' if count == 1 else 's'}, fewer than {LEAST}"
    return ""


def compare_strata(rows: list[dict]) -> None:
    """Add each stratum's difference from the largest one, and the test of heterogeneity, to its row."""
    from scipy.stats import chi2

    judged = [row for row in rows if np.isfinite(row.get("low", np.nan))]
    if len(judged) < 2:
        for row in judged:
            row["reason"] = "; ".join(
                [row["reason"]] * bool(row["reason"]) + ["no other stratum to compare with"]
            )
        return
    area = np.array([row["auc"] for row in judged])
    variance = np.array([row["variance"] for row in judged])
    logit = np.log(area / (1 - area))
    weight = (area * (1 - area)) ** 2 / variance
    q = float(weight @ (logit - weight @ logit / weight.sum()) ** 2)
    degrees = len(judged) - 1
    largest = int(np.argmax([row["n"] for row in judged]))
    for k, row in enumerate(judged):
        row |= {"reference": judged[largest]["stratum"], "q": q, "df": degrees, "test": TEST}
        row["p_interaction"] = float(chi2.sf(q, degrees))
        if k != largest:
            difference = area[k] - area[largest]
            half = metrics.checks.quantile(0.95) * np.sqrt(variance[k] + variance[largest])
            limits = (difference, difference - half, difference + half)
            names = ("difference", "difference_low", "difference_high")
            row |= dict(zip(names, map(float, limits), strict=True))
