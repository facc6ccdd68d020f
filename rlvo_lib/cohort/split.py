"""The patient-level split: a held-out test part and folds inside the training part, drawn once.

Patients with the same content under two identifiers (`dataset.content_groups`) are one unit: they are
never on both sides. How the test part is chosen is ``holdout`` of the study file's ``[validation]``:

``random``      of all eligible patients (the study's design)
``stratified``  the same share of patients with and without the outcome
``date``        the latest patients by ``date_column``; patients of one date stay together
``centre``      whole centres by ``centre_column``: ``test_centres``, or drawn until the share is reached

The folds are stratified by outcome. A cross-validation that is repeated (``repeats``, without a test
part) has one column of folds a repetition: ``fold``, ``fold_2``, ``fold_3``, …; a repetition is a seed of
the training, so that predictions of seed 1 belong to ``fold_2``.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib.cohort.eligibility import included, labels
from rlvo_lib.config import InputError, Study
from rlvo_lib.dataset import content_groups, missing_codes
from rlvo_lib.dictionary import Dictionary

SPLIT_COLUMNS = ["participant_id", "partition", "fold"]


def fold_column(study: Study, seed: int) -> str:
    """The column of the split with the folds of a training seed."""
    return "fold" if study.repeats == 1 or seed == 0 else f"fold_{seed + 1}"


def make_split(
    frame: pd.DataFrame, study: Study, dictionary: Dictionary, *, seed: int, given: Path | None
) -> pd.DataFrame:
    """The split: participant_id, partition (``train``, ``test``), fold (1…k, or empty in the test part).

    A split that the dataset brings (``given``) is honoured; otherwise it is drawn.

    Raises
    ------
    InputError
        If a given split lacks a patient, names a fold that is not allowed, or parts patients of the
        same content; if a date or centre is missing; or if a fold or the test part has no patient
        with, or none without, the outcome.
    """
    patients, y = included(frame), labels(frame, study)
    group = units(frame, dictionary)
    if given:
        split = _given_split(given, y.index, study)
        _refuse_parted(split, group, given)
    else:
        order = _order_of_split(patients, study, dictionary)
        split = _draw_split(order, y, group, study, seed)
    _check_classes(split, y, study)
    return split


def units(frame: pd.DataFrame, dictionary: Dictionary) -> pd.Series:
    """The unit of each eligible patient: the same number where content is that of one patient."""
    patients = included(frame).drop(columns=["included", "exclusion", "scans"])
    return content_groups(patients, dictionary)


def _check_classes(split: pd.DataFrame, y: pd.Series, study: Study) -> None:
    members = split.set_index("participant_id")
    parts = {}
    for seed in range(study.repeats):
        column = fold_column(study, seed)
        if column not in members:
            raise InputError(f"split: column '{column}' is missing; allowed: one a repetition")
        for fold in [str(number + 1) for number in range(study.validation["folds"])]:
            name = f"fold {fold}" + (f" of repetition {seed + 1}" if seed else "")
            parts[name] = members.index[members[column] == fold]
    if study.validation["design"] == "holdout":
        parts["the test part"] = members.index[members["partition"] == "test"]
    for name, ids in parts.items():
        counts = y[ids].value_counts()
        if counts.empty:
            raise InputError(f"split: {name} has no patient; allowed: some in each part")
        if len(counts) < 2:
            only = "without" if 0 in counts else "with"
            raise InputError(
                f"split: {name} has only patients {only} the outcome; allowed: both in each part "
                f"({int(y.sum())} of {len(y)} patients have it)"
            )
    _check_inner(split, y, study)


def _check_inner(split: pd.DataFrame, y: pd.Series, study: Study) -> None:
    """Whether the training part of each fold is large enough for the inner part that stops a training."""
    for seed in range(study.repeats):
        fold = split.set_index("participant_id")[fold_column(study, seed)]
        for held_out in sorted(set(fold) - {""}):
            rest = y[fold.index[(fold != held_out) & (fold != "")]]
            inner = math.ceil(study.validation["inner_fraction"] * len(rest))
            if rest.value_counts().min() < 2 or inner < 2:
                raise InputError(
                    f"split: without fold {held_out}, {len(rest)} patients are left to train on, "
                    f"{int(rest.sum())} with the outcome; allowed: enough for an inner part with both "
                    "outcomes (2 of each at least, and 2 patients in the inner part)"
                )


# --------------------------------------------------------------------------------------- drawing


def _draw_split(
    decides: pd.Series | None, y: pd.Series, group: pd.Series, study: Study, seed: int
) -> pd.DataFrame:
    """Draw units (patients of the same content together), then give each patient its unit's place."""
    ids = pd.Index(sorted(y.index))
    first = group[ids].drop_duplicates()  # the first patient of each unit stands for it
    units = pd.DataFrame({"y": y[ids].groupby(group[ids]).max()}).loc[first.to_numpy()]
    units["size"] = group.value_counts()[units.index]
    units.index = first.index
    order = units.index.to_numpy(copy=True)
    np.random.default_rng(seed).shuffle(order)
    units = units.loc[order]
    test = _choose_test(units, decides, study, seed)
    unit_of = group[ids].map({g: p for p, g in first.items()})
    partition = unit_of.map(test).map({True: "test", False: "train"})
    split = pd.DataFrame({"participant_id": ids, "partition": partition.to_numpy()})
    for repetition in range(study.repeats):
        fold = _draw_folds(units["y"][~test], study, seed + repetition, held_out=int(test.sum()))
        split[fold_column(study, repetition)] = unit_of.map(fold).fillna("").to_numpy()
    return split


def _choose_test(
    units: pd.DataFrame, decides: pd.Series | None, study: Study, seed: int
) -> pd.Series:
    """Whether each unit (in drawn order) is in the test part."""
    plan = study.validation
    if plan["design"] != "holdout":
        return pd.Series(False, index=units.index)
    holdout, share = plan.get("holdout", "random"), plan["test_fraction"]
    if holdout == "random":
        return units["size"].cumsum() <= round(units["size"].sum() * share)
    if holdout == "stratified":
        parts = [_first_share(units[units["y"] == value], share) for value in (0, 1)]
        return pd.concat(parts)[units.index]
    values = decides[units.index]
    if holdout == "date":
        return values > _latest_cut(values, units["size"], share)
    return values.isin(_test_centres(values, units["size"], plan, seed))


def _first_share(units: pd.DataFrame, share: float) -> pd.Series:
    return units["size"].cumsum() <= round(units["size"].sum() * share)


def _order_of_split(
    patients: pd.DataFrame, study: Study, dictionary: Dictionary
) -> pd.Series | None:
    """The dates or centres that a split is made by; None where it is made by chance alone.

    Raises
    ------
    InputError
        If the column, or a patient's value, is missing.
    """
    holdout = study.validation.get("holdout", "random")
    if study.validation["design"] != "holdout" or holdout not in ("date", "centre"):
        return None
    column = study.validation[f"{holdout}_column"]
    if column not in patients:
        raise InputError(f"participants.tsv: column '{column}' is missing; the split is made by it")
    missing = patients.index[missing_codes(patients[column]) != ""]
    if len(missing):
        raise InputError(
            f"participants.tsv: patient '{missing[0]}', column '{column}': no value "
            f"({len(missing)} patients); allowed: a value for each, as the split is made by it"
        )
    if holdout == "centre":
        return patients[column].str.strip()
    if dictionary[column].type == "datetime":
        return pd.to_datetime(patients[column], format="ISO8601").dt.normalize()
    if not dictionary[column].is_quantity:
        raise InputError(
            f"study file: date_column '{column}' is of type {dictionary[column].type}; allowed: a date "
            "or a number, such as a year"
        )
    return pd.to_numeric(patients[column])


def _latest_cut(values: pd.Series, sizes: pd.Series, share: float) -> Any:
    """The last date of the training part: those after it come nearest to the test share."""
    dates = sorted(set(values))
    if len(dates) < 2:
        raise InputError(
            f"split by date: all patients have the date '{dates[0]}'; allowed: several"
        )
    later = [sizes[values > date].sum() / sizes.sum() for date in dates[:-1]]
    return dates[int(np.argmin(np.abs(np.array(later) - share)))]


def _test_centres(
    values: pd.Series, sizes: pd.Series, plan: dict[str, Any], seed: int
) -> list[str]:
    centres = sorted(set(values))
    if len(centres) < 2:
        raise InputError(f"split by centre: one centre, '{centres[0]}'; allowed: several")
    named = list(plan.get("test_centres", []))
    for name in named:
        if name not in centres:
            raise InputError(
                f"test_centres: centre '{name}' has no eligible patient; allowed: {', '.join(centres)}"
            )
    if named:
        return named
    drawn = list(np.random.default_rng(seed).permutation(centres))
    shares = np.cumsum([sizes[values == centre].sum() for centre in drawn[:-1]]) / sizes.sum()
    return drawn[: int(np.argmin(np.abs(shares - plan["test_fraction"]))) + 1]


def _draw_folds(y: pd.Series, study: Study, seed: int, *, held_out: int) -> pd.Series:
    """The fold (text) of each training unit."""
    from sklearn.model_selection import KFold, StratifiedKFold

    count = study.validation["folds"]
    least = int(y.value_counts().reindex([0, 1], fill_value=0).min())
    if least < count:
        raise InputError(
            f"split: the rarer outcome has {least} of {len(y)} training patients ({held_out} are held "
            f"out); allowed: at least one in each of {count} folds"
        )
    splitter = StratifiedKFold if study.validation.get("stratified", True) else KFold
    folds = splitter(count, shuffle=True, random_state=seed)
    fold = pd.Series("", index=y.index)
    for number, (_, held_out) in enumerate(folds.split(y.index, y), start=1):
        fold.iloc[held_out] = str(number)
    return fold


# ------------------------------------------------------------------------------------------ given


def _given_split(path: Path, ids: pd.Index, study: Study) -> pd.DataFrame:
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


def _refuse_parted(split: pd.DataFrame, group: pd.Series, path: Path) -> None:
    """An `InputError` if patients of the same content are on two sides or in two folds."""
    place = split.set_index("participant_id")[["partition", "fold"]].agg(" ".join, axis=1)
    parted = place.groupby(group[place.index]).nunique()
    for unit in parted.index[parted > 1][:1]:
        names = [name for name in place.index if group[name] == unit]
        raise InputError(
            f"{path}: patients {' and '.join(repr(n) for n in names)} have the same or nearly the same content and are "
            f"in different parts ({' and '.join(repr(place[n].strip()) for n in names)}); allowed: "
            "one patient, one row"
        )


def read_split(path: str | Path) -> pd.DataFrame:
    """A ``split.csv`` as text: participant_id, partition, fold (empty in the test set)."""
    try:
        split = pd.read_csv(path, dtype=str, keep_default_na=False)
        repeated = [name for name in split if re.fullmatch(r"fold_\d+", name)]
        split = split[[*SPLIT_COLUMNS, *repeated]].apply(lambda column: column.str.strip())
        for name in ("fold", *repeated):  # a spreadsheet may have written 1.0
            split[name] = split[name].str.replace(r"^(\d+)\.0+$", r"\1", regex=True)
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
