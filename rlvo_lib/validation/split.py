"""Whether there is a cohort to analyse, and whether the dataset's own split can be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rlvo_lib import cohort, dataset
from rlvo_lib.cohort.rules import needed_columns
from rlvo_lib.config import InputError, Study
from rlvo_lib.dataset import Dataset
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.exclusions import Exclusions, read_exclusions
from rlvo_lib.validation.faults import Fault, Patients

FILE = "split.csv"
#: Columns in which a table may also carry the split, if the dictionary has them with timing ID.
COLUMNS = {"partition": "split", "fold": "cv_fold"}


def cohort_faults(
    root: Path, description: dict, people: Patients, study: Study, words: Dictionary, *, clean: bool
) -> Iterator[Fault]:
    """Faults of the cohort as a whole: nobody eligible, one outcome only, a split that cannot be used.

    Values that are not allowed count as missing here; ``clean`` says that there is no such value, so
    that too few patients for the folds are the table's own.
    """
    given = root / FILE if (root / FILE).exists() else None
    split = None
    if given:
        try:
            split = cohort.read_split(given)
        except InputError as error:
            yield _unusable(FILE, error)
        else:
            yield from _unknown_patients(split, people)
    yield from _column_faults(split, people, words)
    if not study.criteria:
        return  # read for its images alone
    if not set(needed_columns(study)) <= set(people.values.columns):
        return  # said already: a column is missing
    try:
        frame = cohort.build(_dataset(root, description, people, study), study, words)
    except InputError as error:
        yield _unusable(dataset.TABLE, error)
        return
    yield from _class_faults(frame, study, with_folds=clean and not given)
    if split is not None:
        try:
            cohort.make_split(frame, study, words, seed=0, given=given)
        except InputError as error:
            yield _unusable(FILE, error)


def _unusable(where: str, error: InputError) -> Fault:
    return Fault("error", "", where, "", "a cohort that can be split into folds", str(error))


def _dataset(root: Path, description: dict, people: Patients, study: Study) -> Dataset:
    """The dataset as far as it can be used: the first row of each patient with a good identifier."""
    good = people.ids.str.fullmatch(dataset.IDENTIFIER) & ~people.ids.duplicated()
    index = pd.Index(people.ids[good], name="participant_id")
    return Dataset(
        root=root,
        name=str(description["Name"]),
        simulated=description["simulated"],
        raw=people.clean[good].set_axis(index),
        table=people.values[good].set_axis(index),
        scans=study.scans,
        exclusions=_exclusions(root, index, study),
    )


def _exclusions(root: Path, index: pd.Index, study: Study) -> Exclusions:
    """Those of the dataset; none while the file is faulty, which is said elsewhere."""
    try:
        return read_exclusions(root, index, study.scans)
    except InputError:
        return Exclusions()


def _class_faults(frame: pd.DataFrame, study: Study, *, with_folds: bool) -> Iterator[Fault]:
    y = cohort.labels(frame, study)
    counts = y.value_counts().reindex([0, 1], fill_value=0)
    least, folds = int(counts.min()), study.validation["folds"]
    allowed = f"patients with and without the outcome, at least {folds} of each"
    if len(y) == 1:
        message = "a single eligible patient"
    elif least == 0:
        message = (
            f"all {len(y):,} eligible patients are {'with' if counts[1] else 'without'} the outcome"
        )
    elif with_folds and least < folds:
        message = (
            f"of {len(y):,} eligible patients {counts[1]} have the outcome: too few for the folds"
        )
    else:
        return
    yield Fault("error", "", study.outcome, str(len(y)), allowed, message)


def _unknown_patients(split: pd.DataFrame, people: Patients) -> Iterator[Fault]:
    for name in split["participant_id"][~split["participant_id"].isin(people.ids)]:
        yield Fault("warning", name, FILE, name, "patients of participants.tsv",
                    "a patient who is not in participants.tsv; the row is not used")  # fmt: skip


def _column_faults(
    split: pd.DataFrame | None, people: Patients, words: Dictionary
) -> Iterator[Fault]:
    """The split in the table's own columns: it must be that of ``split.csv``, which is what counts."""
    for part, column in COLUMNS.items():
        if column not in people.values or words[column].timing != "ID":
            continue
        if split is None:
            yield Fault("warning", "", column, "", FILE,
                        f"column '{column}' is not used: a dataset's own split stands in {FILE}")  # fmt: skip
            continue
        listed = (
            split.set_index("participant_id")[part].reindex(people.ids).set_axis(people.ids.index)
        )
        written, code = (
            people.clean[column].str.strip(),
            dataset.missing_codes(people.clean[column]),
        )
        same = _plain(written.mask(code == "-98", "")) == _plain(listed)
        judged = listed.notna() & code.isin(["", "-98"])
        for line in people.raw.index[judged & ~same]:
            yield Fault("error", people.ids[line], column, written[line], f"as in {FILE}",
                        f"'{column}' is {written[line]}, but {FILE} has {listed[line] or 'none'}")  # fmt: skip


def _plain(text: pd.Series) -> pd.Series:
    """Whole numbers without a decimal point, as text."""
    return text.str.replace(r"^(\d+)\.0*$", r"\1", regex=True)
