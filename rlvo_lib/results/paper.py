"""The paper's table, in the paper's form, beside what the paper printed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import MAIN, InputError, Study

PUBLISHED = "published, another cohort"
#: Metric -> what it is called where it is shown.
SHOWN = {"auc": "AUC", "f1": "F1 (event class)"}


def best_arm(out_of_fold: pd.DataFrame, study: Study, group: str | list[str]) -> str:
    """The arm of a group, or of those named, with the highest pooled out-of-fold AUC.

    The test set plays no part. ``out_of_fold`` is the table of `rlvo_lib.results.out_of_fold`. Of equals,
    the first in the study file's order is taken.
    """
    members = _members(study, group)
    rows = out_of_fold[(out_of_fold["metric"] == "auc") & out_of_fold["arm"].isin(members)]
    if rows.empty:
        raise InputError(
            f"no arm of group '{group}' was run; allowed: {', '.join(members) or 'none'}"
        )
    estimate = rows.set_index("arm")["estimate"].reindex(
        [m for m in members if m in set(rows["arm"])]
    )
    return str(estimate.idxmax())


def paper_table(performance: pd.DataFrame, out_of_fold: pd.DataFrame, study: Study) -> pd.DataFrame:
    """AUC and F1 as mean ± SD over the fold models, the published numbers, and the ensemble's CI.

    First the rows that the paper printed, then every arm of the ladder. A published row with
    ``best_of`` (a group, or a list of arms) stands for the arm of these with the best out-of-fold AUC. The F1 of
    flagging everyone is that among the row's own n patients. Under a sensitivity definition of the
    outcome nothing published stands beside ours: it is another outcome. A study without published
    numbers has no columns for them.

    Returns
    -------
    DataFrame of text, one row a model: model, arm, "AUC, mean ± SD", "F1 (event class), mean ± SD",
    "AUC, published, another cohort", "F1, published, another cohort" (of which class, a paper may not
    say), "ensemble AUC [95 % CI]", "ensemble F1 (event class) [95 % CI]", "F1 (event class) of flagging
    everyone", "threshold of F1" (its rule, and where it was chosen), n, events, data.
    """
    by = performance.set_index(["arm", "metric"])
    ran = list(dict.fromkeys(performance["arm"]))
    rows = []
    for name, entry in study.published.items():
        group = entry.get("best_of")
        arm = best_arm(out_of_fold, study, group) if group and _any_ran(study, group, ran) else name
        if arm in ran:
            model = str(entry.get("label", study.arms[arm].label))
            rows.append(_row(model, arm, by, entry if study.definition == MAIN else {}))
    rows += [_row(_label(study, arm), arm, by, {}) for arm in ran]
    table = pd.DataFrame(rows)
    if study.published:
        return table
    return table.drop(columns=[name for name in table if name.endswith(PUBLISHED)])


def _members(study: Study, group: str | list[str]) -> list[str]:
    """The arms of a group, or those named, in the order of the study file."""
    if isinstance(group, str):
        return [name for name, arm in study.arms.items() if arm.group == group]
    return [name for name in study.arms if name in group]


def _any_ran(study: Study, group: str | list[str], ran: list[str]) -> bool:
    return bool(set(_members(study, group)) & set(ran))


def _label(study: Study, arm: str) -> str:
    return study.arms[arm].label if arm in study.arms else arm


def _row(model: str, arm: str, by: pd.DataFrame, entry: dict) -> dict[str, object]:
    row: dict[str, object] = {"model": model, "arm": arm}
    for metric, name in SHOWN.items():
        values = by.loc[(arm, metric)]
        row[f"{name}, mean ± SD"] = _plus_minus(values["mean"], values["sd"])
    for metric in SHOWN:
        published = (entry.get(metric, np.nan), entry.get(f"{metric}_sd", np.nan))
        row[f"{metric.upper()}, {PUBLISHED}"] = _plus_minus(*published) if metric in entry else "–"
    for metric, name in SHOWN.items():
        values = by.loc[(arm, metric)]
        limits = f"[{_number(values['low'])}, {_number(values['high'])}]"
        row[f"ensemble {name} [95 % CI]"] = f"{_number(values['ensemble'])} {limits}"
    f1 = by.loc[(arm, "f1")]
    row[f"{SHOWN['f1']} of flagging everyone"] = _number(f1["no_skill"], 3)
    row["threshold of F1"] = f1["threshold_rule"]
    return row | {"n": int(f1["n"]), "events": int(f1["events"]), "data": f1["data"]}


def _number(value: float, digits: int = 2) -> str:
    return "n/e" if np.isnan(value) else f"{value:.{digits}f}"


def _plus_minus(mean: float, sd: float) -> str:
    return _number(mean) if np.isnan(sd) else f"{_number(mean)} ± {_number(sd)}"
