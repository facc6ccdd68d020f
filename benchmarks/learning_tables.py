"""Tables of the learning benchmark: AUC by cohort and arm, shares, paired differences, goals. SIMULATED.

Intervals are t-intervals (95 %) over training cohorts. The cohorts share one test part, whose own sampling
error is not in them; it has a column of its own (``test_se``, DeLong). For the share both are added as
squares. Of `null` each deal of the outcomes, to cohort and test part, counts as a cohort of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError, Study
from rlvo_lib.results.ceiling import LEAST_PATIENTS, ceiling_table

UNIT = ["scenario", "cohort", "deal"]
NEARLY_ALL = 0.99  # of the test part: an arm that scores fewer is judged on other patients
#: Paired differences, first minus second.
PAIRS = (
    ("daft", "concat"), ("daft", "concat2fc"), ("concat2fc", "concat"), ("film", "concat"),
    ("daft", "imaging"), ("daft", "clinical_logistic"), ("imaging", "clinical_logistic"),
    ("daft_offset", "clinical_logistic"), ("daft_offset", "daft"),
    ("concepts_imaging", "clinical_logistic"), ("concepts", "clinical_logistic"),
    ("concepts", "concepts_imaging"), ("concepts_daft", "clinical_logistic"),
    ("concepts_daft", "concepts"),
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """One arm of one cohort, judged: its row of the table, and what the arm said of each test patient."""

    row: dict[str, Any]
    ensemble: pd.DataFrame  # index participant_id: y_true, probability (mean over folds)
    predictions: pd.DataFrame


def score(predictions: pd.DataFrame, unit: dict[str, Any]) -> Scored:
    """AUC on the test part of the fold ensemble, mean of the fold models', pooled out of fold.

    Parameters
    ----------
    predictions : of one arm and one training seed.
    unit : what else stands in the row, at least scenario, cohort, deal, arm.
    """
    test = predictions[predictions["partition"] == "test"]
    held_out = predictions[predictions["partition"] == "out-of-fold"]
    ensemble = test.groupby("participant_id").agg(
        y_true=("y_true", "first"), probability=("probability", "mean")
    )
    found = metrics.auc_ci(ensemble["y_true"], ensemble["probability"], "delong")
    folds = [metrics.auc(f["y_true"], f["probability"]) for _, f in test.groupby("fold")]
    row = unit | {
        "auc": found.estimate, "test_se": found.se, "auc_folds": float(np.mean(folds)),
        "auc_out_of_fold": metrics.auc(held_out["y_true"], held_out["probability"]),
        "train": len(held_out), "train_events": int(held_out["y_true"].sum()),
        "test": found.n, "test_events": found.events,
    }  # fmt: skip
    return Scored(row, ensemble, predictions)


def over_cohorts(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, SD (ddof 1) and the 95 % limits mean +- t * SD / sqrt(n) over n cohorts; NaN of one.

    >>> [round(v, 3) for v in over_cohorts(np.array([0.60, 0.62, 0.64]))]
    [0.62, 0.02, 0.57, 0.67]
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan, np.nan
    sd = float(values.std(ddof=1))
    half = float(t.ppf(0.975, len(values) - 1)) * sd / np.sqrt(len(values))
    return mean, sd, mean - half, mean + half


def cohort_table(results: list[Scored]) -> pd.DataFrame:
    """One row an arm and cohort."""
    return pd.DataFrame([r.row for r in results])


def learning_table(
    results: list[Scored], ceilings: dict[str, dict], tests: dict[str, int], study: Study
) -> pd.DataFrame:
    """One row an arm and scenario: AUC over cohorts, and its share of the achievable.

    Parameters
    ----------
    ceilings : by scenario, the content of the dataset's ceiling.json.
    tests : by scenario, the patients of the shared test part.
    """
    rows = []
    for (scenario, arm), group in _grouped(results):
        table = cohort_table(group)
        mean, sd, low, high = over_cohorts(table["auc"])
        row = {
            "scenario": scenario, "arm": arm, "cohorts": table["cohort"].nunique(),
            "runs": len(table), "AUC": mean, "SD": sd, "low": low, "high": high,
            "test_se": table["test_se"].mean(), "AUC of fold models": table["auc_folds"].mean(),
            "AUC out of fold": table["auc_out_of_fold"].mean(), "test": int(table["test"].min()),
        }  # fmt: skip
        empty = dict.fromkeys(("infinite", "fitted", "share", "share_low", "share_high"), np.nan)
        share = {"ceiling": "", **empty, "reason": "outcomes dealt out anew: nothing to learn"}
        if scenario in ceilings and scenario != "null":
            share = _share(row, group, ceilings[scenario], tests[scenario], study)
        rows.append(row | share | {"data": "simulated"})
    return pd.DataFrame(rows)


def _grouped(results: list[Scored]):
    groups: dict[tuple[str, str], list[Scored]] = {}
    for one in results:
        groups.setdefault((one.row["scenario"], one.row["arm"]), []).append(one)
    return groups.items()


def _share(row: dict, group: list[Scored], ceiling: dict, test: int, study: Study) -> dict:
    """The share by the rules of `rlvo_lib.results.ceiling`; the error of the test part added.

    An arm that lost at most 1 % of the test part (a scan that could not be used) is taken to have scored it.
    """
    half = metrics.checks.quantile(0.95) * row["test_se"]
    below, above = np.hypot([row["AUC"] - row["low"], row["high"] - row["AUC"]], half)
    performance = pd.DataFrame([{
        "arm": row["arm"], "metric": "auc", "ensemble": row["AUC"],
        "low": row["AUC"] - below, "high": row["AUC"] + above,
        "n": test if row["test"] >= NEARLY_ALL * test else row["test"],
        "events": group[0].row["test_events"],
    }])  # fmt: skip
    found = ceiling_table(ceiling, group[0].predictions, performance, study, data="simulated")
    names = ["ceiling", "infinite", "fitted", "share", "share_low", "share_high", "reason"]
    return found.loc[0, names].to_dict()


def difference_table(results: list[Scored], pairs=PAIRS) -> pd.DataFrame:
    """Paired differences in AUC, cohort by cohort on the test patients whom both arms scored.

    ``test_se`` is the DeLong standard error of the difference, mean over cohorts.
    """
    by = {tuple(r.row[n] for n in (*UNIT, "arm")): r for r in results}
    units = list(dict.fromkeys(key[:3] for key in by))
    rows = []
    for scenario in dict.fromkeys(u[0] for u in units):
        for first, second in pairs:
            both = [
                compared(by[(*u, first)], by[(*u, second)])
                for u in units
                if u[0] == scenario and (*u, first) in by and (*u, second) in by
            ]
            if not both:
                continue
            mean, sd, low, high = over_cohorts([b.difference for b in both])
            rows.append({
                "scenario": scenario, "first": first, "second": second, "runs": len(both),
                "difference": mean, "SD": sd, "low": low, "high": high,
                "test_se": float(np.mean([b.se for b in both])),
                "test": min(b.n for b in both), "data": "simulated",
            })  # fmt: skip
    columns = ["scenario", "first", "second", "runs", "difference", "SD", "low", "high", "test_se",
               "test", "data"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def compared(first: Scored, second: Scored) -> metrics.AucDifference:
    """AUC of the first arm minus the second's on the test patients whom both scored."""
    ids = first.ensemble.index.intersection(second.ensemble.index)
    y = first.ensemble.loc[ids, "y_true"]
    if not y.equals(second.ensemble.loc[ids, "y_true"]):
        names = f"'{first.row['arm']}' and '{second.row['arm']}'"
        raise InputError(
            f"arms {names}, cohort {first.row['cohort']}: other outcomes in the test part"
        )
    return metrics.compare_auc(
        y, first.ensemble.loc[ids, "probability"], second.ensemble.loc[ids, "probability"]
    )


# ---------------------------------------------------------------------------------------- goals


@dataclass(frozen=True)
class Goal:
    """What is to be reached: a number of one of the tables, and the limit it is held to."""

    scenario: str
    text: str
    arm: str  # or "first - second"
    column: str  # AUC, share, difference, or the lower limit of a difference: low
    limit: float
    strict: bool = False  # above the limit; else at least
    cohorts: int = 2  # that it takes


_ENOUGH = 5
GOALS = (
    *(Goal("signal", "share of the achievable at least 0.9", arm, "share", 0.9)
      for arm in ("ncct", "cta", "vessels", "ctp", "imaging", "daft")),
    Goal("interaction", "ahead by at least 0.05", "daft - concat", "difference", 0.05, cohorts=_ENOUGH),
    Goal("interaction", "interval excludes 0", "daft - concat", "low", 0.0, True, _ENOUGH),
    Goal("paper", "lower limit above -0.02", "daft_offset - clinical_logistic", "low", -0.02, True),
    Goal("paper", "AUC at least 0.62", "concepts_imaging", "AUC", 0.62),
    Goal("paper", "share of the achievable at least 0.75", "concepts", "share", 0.75),
    Goal("paper", "lower limit above 0", "concepts - clinical_logistic", "low", 0.0, True),
)  # fmt: skip
NULL_WITHIN, NULL_RUNS = 0.02, 10


def goal_table(
    learning: pd.DataFrame, differences: pd.DataFrame, tests: dict[str, int]
) -> pd.DataFrame:
    """Each goal with the value it is judged by and its 95 % limits over cohorts.

    ``reached`` is yes or no, or why it cannot be said: not measured, too few cohorts, a test part of fewer
    than 2,000 patients, or (of a share) the reason of `learning_table`.
    """
    rows = []
    null = learning[learning["scenario"] == "null"] if len(learning) else learning
    for row in null.to_dict("records"):
        near = abs(row["AUC"] - 0.5) <= NULL_WITHIN
        text = f"mean AUC within 0.5 ± {NULL_WITHIN:g}"
        why = _unjudged(row["runs"], NULL_RUNS, tests["null"])
        rows.append(_row("null", text, row["arm"], row["AUC"], row["low"], row["high"], row["runs"],
                         why or ("yes" if near else "no")))  # fmt: skip
    if null.empty:
        text = f"mean AUC within 0.5 ± {NULL_WITHIN:g}"
        rows.append(_row("null", text, "each", np.nan, np.nan, np.nan, 0, "not measured"))
    rows += [_judge(goal, learning, differences, tests) for goal in GOALS]
    return pd.DataFrame(rows)


def _row(scenario, goal, arm, value, low, high, runs, reached) -> dict[str, Any]:
    return {"scenario": scenario, "goal": goal, "arm": arm, "value": value, "low": low, "high": high,
            "runs": runs, "reached": reached, "data": "simulated"}  # fmt: skip


def _judge(goal: Goal, learning: pd.DataFrame, differences: pd.DataFrame, tests) -> dict[str, Any]:
    first, _, second = goal.arm.partition(" - ")
    if second:
        keys, table = {"scenario": goal.scenario, "first": first, "second": second}, differences
        names = ("difference", "low", "high")
    else:
        keys, table = {"scenario": goal.scenario, "arm": first}, learning
        names = (
            ("share", "share_low", "share_high")
            if goal.column == "share"
            else ("AUC", "low", "high")
        )
    for name, value in keys.items():
        table = table[table[name] == value] if len(table) else table
    if table.empty:
        nothing = (np.nan, np.nan, np.nan, 0, "not measured")
        return _row(goal.scenario, goal.text, goal.arm, *nothing)
    found = table.iloc[0]
    value = found[goal.column]
    reached = _unjudged(found["runs"], goal.cohorts, tests[goal.scenario])
    if not reached and np.isnan(value):
        reached = f"no share: {found['reason']}"
    if not reached:
        above = value > goal.limit if goal.strict else value >= goal.limit
        reached = "yes" if above else "no"
    shown = [found[n] for n in names]
    return _row(goal.scenario, goal.text, goal.arm, *shown, found["runs"], reached)


def _unjudged(runs: int, needed: int, test: int) -> str:
    if test < LEAST_PATIENTS:
        return f"test part of {test}: {LEAST_PATIENTS:,} needed"
    return f"{runs} of {needed} cohorts" if runs < needed else ""
