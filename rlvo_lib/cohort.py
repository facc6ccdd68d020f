"""The patients of a study: label, eligibility flow, split and the cohort tables.

The cohort frame of a run (``cohort.csv``) is the dataset's text table plus the derived label,
``included`` and ``exclusion``; all cohort tables are computed from it alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import storage
from rlvo_lib.config import InputError, Rule, Study
from rlvo_lib.dataset import Dataset, missing_codes, typed
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary

# ---------------------------------------------------------------------------------------- label


def meets(rule: Rule, table: pd.DataFrame) -> pd.Series:
    """Whether each patient meets a rule: 1.0, 0.0, or NaN where the value is missing."""
    if rule.column not in table:
        raise InputError(
            f"participants.tsv: column '{rule.column}' is missing; it is needed for '{rule.text}'"
        )
    values = table[rule.column]
    if rule.op == "in":
        met = values.isin(list(rule.value))
    elif rule.op == "between":
        met = values.between(*rule.value)
    else:
        compare = {
            ">": values.gt,
            ">=": values.ge,
            "<": values.lt,
            "<=": values.le,
            "==": values.eq,
        }
        met = compare[rule.op](rule.value)
    return met.astype(float).where(values.notna())


def criteria(dataset_raw: pd.DataFrame, table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Each label criterion of each patient: 1.0, 0.0 or NaN (unknown).

    A source that is *not applicable* (−98) does not meet its criterion: 0.0.
    """
    result = {}
    for rule in study.criteria:
        met = meets(rule, table)
        not_applicable = missing_codes(dataset_raw[rule.column]) == "-98"
        result[rule.id] = met.mask(not_applicable, 0.0)
    return pd.DataFrame(result, index=table.index)


def derive_label(met: pd.DataFrame) -> pd.Series:
    """The outcome from its criteria: any met gives 1; otherwise any unknown gives NaN; otherwise 0.

    >>> derive_label(pd.DataFrame({"a": [0, 1, 0], "b": [0, np.nan, np.nan]})).tolist()
    [0.0, 1.0, nan]
    """
    return (
        (met == 1).any(axis=1).astype(float).mask((met != 1).all(axis=1) & met.isna().any(axis=1))
    )


# --------------------------------------------------------------------------------- eligibility


def build(dataset: Dataset, study: Study) -> pd.DataFrame:
    """The cohort frame: the dataset's text table, the derived label, ``included``, ``exclusion``.

    ``included`` is "1" or "0"; ``exclusion`` is the id of the first eligibility rule not met. A
    patient whose value for a rule is missing does not meet it.

    Returns
    -------
    DataFrame of text with column ``participant_id`` first; what ``cohort.csv`` holds.

    Raises
    ------
    InputError
        If a column that the label or a rule needs is missing, or nobody is eligible.
    """
    label = derive_label(criteria(dataset.raw, dataset.table, study))
    exclusion = pd.Series("", index=dataset.table.index)
    for rule in study.eligibility:
        met = label.notna() if rule.op == "label-known" else meets(rule, dataset.table) == 1
        exclusion = exclusion.mask((exclusion == "") & ~met, rule.id)
    known = dataset.raw[[name for name in dataset.raw.columns if name != study.outcome]]
    frame = known.assign(
        **{study.outcome: label.map({0.0: "0", 1.0: "1"}).fillna("")},
        included=(exclusion == "").map({True: "1", False: "0"}),
        exclusion=exclusion,
    )
    if (exclusion != "").all():
        raise InputError(
            f"dataset '{dataset.name}': none of {len(frame)} patients is eligible; exclusions: "
            f"{exclusion.value_counts().to_dict()}"
        )
    return frame.reset_index()


def read_frame(run: str | Path) -> pd.DataFrame:
    """``cohort.csv`` of a run folder, as the text it was written in."""
    path = Path(run) / "cohort.csv"
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (FileNotFoundError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: missing or empty") from error


def included(frame: pd.DataFrame) -> pd.DataFrame:
    """The eligible patients of a cohort frame, indexed by participant_id."""
    return frame[frame["included"] == "1"].set_index("participant_id")


def labels(frame: pd.DataFrame, study: Study) -> pd.Series:
    """The outcome (0 or 1, integers) of the eligible patients, by participant_id."""
    return included(frame)[study.outcome].astype(int)


def flow(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The eligibility flow: step, n, excluded, reason; one row a rule, in order.

    ``n`` counts the patients left after the step.
    """
    left = len(frame)
    rows = [("assessed", "patients in the dataset", left, 0)]
    for rule in study.eligibility:
        excluded = int((frame["exclusion"] == rule.id).sum())
        left -= excluded
        rows.append((rule.id, rule.text, left, excluded))
    events = int(labels(frame, study).sum())
    rows.append(("included", f"included, of whom {events} with the outcome", left, 0))
    return pd.DataFrame(rows, columns=["step", "text", "n", "excluded"])


# ---------------------------------------------------------------------------------------- split


def make_split(frame: pd.DataFrame, study: Study, *, seed: int, given: Path | None) -> pd.DataFrame:
    """The patient-level split: participant_id, partition (``train``, ``test``), fold (1…k or empty).

    A split that the dataset brings (``given``) is honoured. Otherwise the hold-out is random, as the
    study's, and the folds inside the training part are stratified by outcome.

    Raises
    ------
    InputError
        If a given split lacks a patient, names a fold that is not allowed, or a fold has no patient
        with, or none without, the outcome.
    """
    y = labels(frame, study)
    split = _read_split(given, y.index, study) if given else _draw_split(y, study, seed)
    fold_of = split.set_index("participant_id")["fold"]
    for fold in [str(number + 1) for number in range(study.validation["folds"])]:
        counts = y[fold_of.index[fold_of == fold]].value_counts()
        if counts.empty:
            raise InputError(f"split: fold {fold} has no patient; allowed: some in each fold")
        if len(counts) < 2:
            only = "without" if 0 in counts else "with"
            raise InputError(
                f"split: fold {fold} has only patients {only} the outcome; allowed: both in each "
                f"fold ({int(y.sum())} of {len(y)} patients have it)"
            )
    return split


def _draw_split(y: pd.Series, study: Study, seed: int) -> pd.DataFrame:
    from sklearn.model_selection import KFold, StratifiedKFold

    rng = np.random.default_rng(seed)
    ids = np.array(sorted(y.index))
    rng.shuffle(ids)
    holdout = study.validation["design"] == "holdout"
    n_test = round(len(ids) * study.validation["test_fraction"]) if holdout else 0
    test, train = ids[:n_test], ids[n_test:]
    splitter = StratifiedKFold if study.validation.get("stratified", True) else KFold
    folds = splitter(study.validation["folds"], shuffle=True, random_state=seed)
    fold = pd.Series("", index=ids)
    least = int(y[train].value_counts().reindex([0, 1], fill_value=0).min())
    if least < study.validation["folds"]:
        raise InputError(
            f"split: the rarer outcome has {least} of {len(train)} training patients; allowed: at "
            f"least one in each of {study.validation['folds']} folds"
        )
    for number, (_, held_out) in enumerate(folds.split(train, y[train]), start=1):
        fold[train[held_out]] = str(number)
    split = pd.DataFrame({"participant_id": ids, "fold": fold[ids].to_numpy()})
    split["partition"] = np.where(split["participant_id"].isin(test), "test", "train")
    return split[["participant_id", "partition", "fold"]].sort_values(
        "participant_id", ignore_index=True
    )


def _read_split(path: Path, ids: pd.Index, study: Study) -> pd.DataFrame:
    split = read_split(path)
    unknown = ids.difference(pd.Index(split["participant_id"]))
    if len(unknown):
        raise InputError(
            f"{path}: {len(unknown)} eligible patients are not in it, first '{unknown[0]}'"
        )
    split = split[split["participant_id"].isin(ids)]
    allowed = {("test", ""), *(("train", str(k + 1)) for k in range(study.validation["folds"]))}
    for row in split.itertuples():
        if (row.partition, row.fold) not in allowed:
            raise InputError(
                f"{path}: patient '{row.participant_id}': partition '{row.partition}', fold "
                f"'{row.fold}'; allowed: train with fold 1 to {study.validation['folds']}, or test "
                "with no fold"
            )
    return split.sort_values("participant_id", ignore_index=True)


def read_split(path: str | Path) -> pd.DataFrame:
    """A ``split.csv`` as text: participant_id, partition, fold (empty in the test set)."""
    try:
        split = pd.read_csv(path, dtype=str, keep_default_na=False)
        split = split[["participant_id", "partition", "fold"]]
    except (FileNotFoundError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: missing or empty") from error
    except (UnicodeDecodeError, pd.errors.ParserError, OSError) as error:
        raise InputError(f"{path}: not a readable CSV table ({error})") from error
    except KeyError:
        raise InputError(
            f"{path}: a column is missing; allowed: participant_id, partition, fold, with commas between"
        ) from None
    doubled = split["participant_id"][split["participant_id"].duplicated()]
    if len(doubled):
        raise InputError(f"{path}: patient '{doubled.iloc[0]}' stands in it twice")
    return split


def keep_split(split: pd.DataFrame, run: Path, *, replace: bool) -> None:
    """Write ``split.csv`` of a run once; only where ``replace`` may another take its place.

    Raises
    ------
    InputError
        If the run folder holds the split of other patients, naming the difference.
    """
    path = run / "split.csv"
    if path.exists() and not replace:
        kept = read_split(path)
        gone = set(kept["participant_id"]) - set(split["participant_id"])
        new = set(split["participant_id"]) - set(kept["participant_id"])
        if gone or new or not kept.equals(split):
            change = ", ".join(
                [f"'{p}' is gone" for p in sorted(gone)[:3]]
                + [f"'{p}' is new" for p in sorted(new)[:3]]
            )
            raise InputError(
                f"{path}: the split is frozen, and the dataset or seed changed since "
                f"({change or 'same patients, other assignment'}); give another --out for a new run"
            )
    storage.write_csv(path, split)


def split_counts(frame: pd.DataFrame, split: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Patients and events by partition and fold: partition, fold, n, events, prevalence."""
    y = labels(frame, study)
    rows = []
    groups = [("all", "all", split)]
    groups += [(part, "all", rows_) for part, rows_ in split.groupby("partition")]
    groups += [("train", fold, rows_) for fold, rows_ in split[split["fold"] != ""].groupby("fold")]
    for partition, fold, members in groups:
        outcome = y[members["participant_id"]]
        rows.append((partition, fold, len(outcome), int(outcome.sum()), float(outcome.mean())))
    return pd.DataFrame(rows, columns=["partition", "fold", "n", "events", "prevalence"])


# --------------------------------------------------------------------------------------- tables


def table1(
    frame: pd.DataFrame, split: pd.DataFrame, study: Study, dictionary: Dictionary, *, by: str
) -> pd.DataFrame:
    """Table 1 of the predictors, by ``"label"`` or by ``"partition"``.

    Returns
    -------
    DataFrame with variable, level, missing, overall, one column a group, smd. Quantities as median
    [quartiles], codes as n (%). The standardised mean difference is tableone's.
    """
    from tableone import TableOne

    eligible = included(frame)
    columns = [c for group in study.predictors.values() for c in group if c in eligible]
    values = typed(eligible[columns], dictionary)
    if by == "label":
        names = {"0": study.negative_label, "1": study.outcome_label}
        group = eligible[study.outcome].map(names)
    else:
        group = split.set_index("participant_id")["partition"].reindex(eligible.index)
    categorical = [c for c in columns if dictionary[c].is_categorical]
    for column in categorical:
        values[column] = values[column].map(dictionary[column].choices)
    values = values.dropna(axis="columns", how="all")
    columns = [c for c in columns if c in values]
    values["group"] = group
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tableone 0.9.6 with pandas 3 warns of its own calls
        table = TableOne(
            values,
            columns=columns,
            categorical=[c for c in categorical if c in columns],
            continuous=[c for c in columns if c not in categorical],
            nonnormal=[c for c in columns if c not in categorical],
            groupby="group",
            smd=values["group"].nunique() == 2,
            htest_name=False,
            pval=False,
        ).tableone
    return _flat(table, dictionary)


def _flat(table: pd.DataFrame, dictionary: Dictionary) -> pd.DataFrame:
    """A tableone as a tidy frame: its two-level rows and columns become plain columns."""
    table = table.copy()
    table.columns = [str(column[-1]) for column in table.columns]
    table = table.reset_index(names=["variable", "level"]).rename(
        columns={"Missing": "missing", "Overall": "overall"}
    )
    smd = [c for c in table.columns if c.startswith("SMD")]
    table = table.rename(columns=dict(zip(smd, ["smd"], strict=False)))
    name = table["variable"].str.split(",").str[0]
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


def label_overlap(frame: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    """Which criteria make the outcome: one row a combination, with its number of patients."""
    raw = included(frame)
    sources = list(dict.fromkeys(rule.column for rule in study.criteria))
    met = criteria(raw, typed(raw[sources], dictionary), study) == 1
    counts = met.value_counts().rename("n").reset_index()
    names = [rule.id for rule in study.criteria]
    counts[names] = counts[names].astype(int)
    return counts.sort_values(
        ["n", *names], ascending=[False] + [True] * len(names), ignore_index=True
    )
