"""Table 1 and what is missing: made from a cohort frame, the split and the data dictionary."""

from __future__ import annotations

import warnings

import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.cohort.eligibility import included, labels
from rlvo_lib.cohort.rules import label_columns
from rlvo_lib.config import InputError, Study
from rlvo_lib.dataset import missing_codes, typed
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary

MAX_LEVELS = 20  # of a text column (centre, operator) that Table 1 shows


def table1(
    frame: pd.DataFrame, split: pd.DataFrame, study: Study, dictionary: Dictionary, *, by: str
) -> pd.DataFrame:
    """Table 1 of the eligible patients, by ``"label"`` or by ``"partition"``.

    By label: the predictors. By partition, which compares development with evaluation data (TRIPOD+AI
    item 20c), also the outcome, where it comes from, and what else is known of the setting (year,
    centre, software).

    Returns
    -------
    DataFrame with variable, level, missing, overall, one column a group, smd. Quantities as median
    [quartiles], codes as n (%) of the patients with a value. The standardised mean difference is
    `metrics.smd` of the second group from the first (tableone's agrees where it has one; it has none
    for groups without a common level, or without spread): "inf" where the groups have nothing in
    common, empty where a group has no value.
    """
    from tableone import TableOne

    values, categorical = table1_values(frame, split, study, dictionary, by=by)
    columns = [c for c in values if c != "group"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tableone 0.9.6 with pandas 3 warns of its own calls
        table = TableOne(
            values,
            columns=columns,
            categorical=[c for c in categorical if c in columns],
            continuous=[c for c in columns if c not in categorical],
            nonnormal=[c for c in columns if c not in categorical],
            groupby="group",
            smd=False,
            htest_name=False,
            pval=False,
            include_null=False,
            order={
                c: [w for w in dictionary[c].choices.values() if w in set(values[c])]
                for c in columns
                if dictionary[c].is_categorical
            },
        ).tableone
    return _flat(table, standardised_differences(values, categorical), dictionary)


def standardised_differences(values: pd.DataFrame, categorical: list[str]) -> dict[str, float]:
    """`metrics.smd` of each column of `table1_values`, second group minus first; empty if not two."""
    groups = [group for _, group in values.groupby("group")]
    if len(groups) != 2:
        return {}
    first, second = groups
    return {
        name: metrics.smd(
            second[name].to_numpy(),
            first[name].to_numpy(),
            kind="categorical" if name in categorical else "continuous",
        )
        for name in values.columns.drop("group")
    }


def table1_values(
    frame: pd.DataFrame, split: pd.DataFrame, study: Study, dictionary: Dictionary, *, by: str
) -> tuple[pd.DataFrame, list[str]]:
    """What Table 1 is made from: typed values with codes in words and ``group``; the code columns."""
    if by not in ("label", "partition"):
        raise InputError(f"Table 1 by '{by}'; allowed: label, partition")
    eligible = included(frame)
    columns = list(dict.fromkeys(c for group in study.predictors.values() for c in group))
    outcome = eligible[study.outcome].map({"0": study.negative_label, "1": study.outcome_label})
    group = outcome
    if by == "partition":
        setting = [f.name for f in dictionary.fields.values() if f.timing == "PRE_SENSITIVITY"]
        columns = list(dict.fromkeys([*columns, *setting, *label_columns(study)]))
        group = split.set_index("participant_id")["partition"].reindex(eligible.index)
    columns = [c for c in columns if c in eligible]
    values = typed(eligible[columns], dictionary)
    for column in [c for c in columns if dictionary[c].is_categorical]:
        values[column] = values[column].map(dictionary[column].choices)
    values = values.dropna(axis="columns", how="all")
    free = [c for c in values if dictionary[c].type == "text" and values[c].nunique() > MAX_LEVELS]
    values = values.drop(columns=free)
    categorical = [c for c in values if not dictionary[c].is_quantity]
    if by == "partition":
        values.insert(0, study.outcome, outcome)
        categorical.insert(0, study.outcome)
    return values.assign(group=group), categorical


def _flat(
    table: pd.DataFrame, differences: dict[str, float], dictionary: Dictionary
) -> pd.DataFrame:
    """A tableone as a tidy frame: its two-level rows and columns become plain columns."""
    table = table.copy()
    table.columns = [str(column[-1]) for column in table.columns]
    table = table.reset_index(names=["variable", "level"]).rename(
        columns={"Missing": "missing", "Overall": "overall"}
    )
    name = table["variable"].str.split(",").str[0]
    if differences:
        first = ~name.duplicated()
        shown = {n: "" if d != d else f"{d:.3f}" for n, d in differences.items()}
        table["smd"] = name.map(shown).where(first, "")
    table["variable"] = [
        dictionary[n].label + (f" ({dictionary[n].unit})" if dictionary[n].unit else "")
        if n in dictionary
        else n
        for n in name
    ]
    return table.fillna("").astype(str)


def missingness(frame: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    """Missing values among the eligible by variable: n, share, by reason, and by outcome."""
    eligible, y = included(frame), labels(frame, study)
    rows = []
    for name in eligible.columns:
        if name not in dictionary or dictionary[name].timing == "ID" or name == study.outcome:
            continue
        code = missing_codes(eligible[name])
        missing = code != ""
        by_reason = [int((code == c).sum()) for c in MISSING_REASONS]
        by_label = [float(missing[y == value].mean()) for value in (0, 1)]
        rows.append(
            (
                name,
                dictionary[name].timing,
                int(missing.sum()),
                float(missing.mean()),
                *by_reason,
                *by_label,
            )
        )
    reasons = [reason.replace(" ", "_") for reason in MISSING_REASONS.values()]
    columns = [
        "variable",
        "timing",
        "n_missing",
        "share",
        *reasons,
        "share_without",
        "share_with_outcome",
    ]
    return pd.DataFrame(rows, columns=columns)
