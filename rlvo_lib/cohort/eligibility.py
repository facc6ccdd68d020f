"""Who enters: the eligibility rules in order, the flow, and each excluded patient with the reason.

Patients whom a person excluded for the quality of their scans (``exclusions.csv``) are a step of their
own. It comes before any rule about the outcome, and before what a definition of the outcome leaves
out: whether a patient is excluded then does not depend on how the outcome is, or whether it is known.
It comes after the other rules, so that it counts only patients whom the study would have taken.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlvo_lib.cohort.rules import criteria, derive_label, label_columns, meets, needed_columns
from rlvo_lib.config import InputError, Rule, Study
from rlvo_lib.dataset import Dataset, missing_codes, typed
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary

QUALITY = "quality-control"  # the step of the flow; no id of a study's rule
QUALITY_REASON = "quality_exclusion"  # the column of the frame that holds a person's reason
SHOWN_REASONS = 5


def build(dataset: Dataset, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    """The cohort frame: the dictionary's columns as text, the derived label, and who is eligible.

    Beside the dataset's columns it has ``scans`` (those that the patient has, by name), ``included``
    ("1" or "0") and ``exclusion`` (the id of the first eligibility rule that is not met). A patient
    whose value for a rule is missing does not meet it. If the dataset excludes patients by hand, their reasons stand in
    ``quality_exclusion``. Columns that the data dictionary does not know are left out, so that names or
    addresses in a dataset reach no file of a run.

    Returns
    -------
    DataFrame of text with column ``participant_id`` first; what ``cohort.csv`` holds.

    Raises
    ------
    InputError
        If a column that the label or a rule needs is missing, or nobody is eligible.
    """
    own = (study.outcome, "scans", "included", "exclusion", QUALITY_REASON)
    columns = [name for name in dataset.table.columns if name not in own]
    known = dataset.raw[columns].assign(
        scans=[
            " ".join(scan for scan in study.scans if dataset.scan(patient, scan))
            for patient in dataset.raw.index
        ]
    )
    if dataset.exclusions.patients:
        reasons = pd.Series(dataset.exclusions.patients, dtype=str)
        known[QUALITY_REASON] = reasons.reindex(known.index).fillna("")
    frame = assign(known, study, dictionary)
    if (frame["included"] == "0").all():
        counts = frame["exclusion"].value_counts().to_dict()
        raise InputError(
            f"dataset '{dataset.name}': none of {len(frame)} patients is eligible; exclusions: {counts}"
        )
    return frame.reset_index()


def assign(known: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    """Label and eligibility of patients given as text with a column ``scans``, by participant_id."""
    columns = [name for name in needed_columns(study) if name in known]
    table = typed(known[columns], dictionary)
    label = derive_label(criteria(table, study))
    exclusion = pd.Series("", index=known.index)
    left_out = known.get(QUALITY_REASON, exclusion) != ""
    for rule in _steps(study, known):
        met = ~left_out if rule.id == QUALITY else _meets(rule, table, known["scans"], label)
        exclusion = exclusion.mask((exclusion == "") & ~met, rule.id)
    return known.assign(
        **{study.outcome: label.map({0.0: "0", 1.0: "1"}).fillna("")},
        included=(exclusion == "").map({True: "1", False: "0"}),
        exclusion=exclusion,
    )


def _steps(study: Study, frame: pd.DataFrame) -> list[Rule]:
    """The eligibility rules in order, with the exclusions for quality where there are some."""
    rules = list(study.eligibility)
    if QUALITY_REASON not in frame:
        return rules
    of_definition = study.definitions[study.definition].exclude
    late = [rule.op == "label-known" or rule in of_definition for rule in rules]
    place = late.index(True) if any(late) else len(rules)
    step = Rule(QUALITY, "not excluded by quality control", "known")
    return [*rules[:place], step, *rules[place:]]


def _meets(rule: Rule, table: pd.DataFrame, scans: pd.Series, label: pd.Series) -> pd.Series:
    if rule.op == "label-known":
        return label.notna()
    if rule.op == "any-scan":
        if not _assessed(rule, scans):
            return pd.Series(True, index=scans.index)
        return scans.map(lambda held: bool(set(held.split()) & set(rule.value)))
    return meets(rule, table) == 1


def _assessed(rule: Rule, scans: pd.Series) -> bool:
    """A rule about scans is not assessed in a dataset that has none at all: a table alone."""
    return rule.op != "any-scan" or bool((scans != "").any())


def outcome_is_known(raw: pd.DataFrame, study: Study, dictionary: Dictionary) -> bool:
    """Whether the outcome of any patient of a table of text can be derived, eligible or not."""
    columns = label_columns(study)
    if not set(columns) <= set(raw.columns):
        return False
    label = derive_label(criteria(typed(raw[columns], dictionary), study))
    return bool(label.notna().any())


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
    """The outcome (0 or 1, integers) of the eligible patients in whom it is known, by participant_id."""
    outcome = included(frame)[study.outcome]
    return outcome[outcome != ""].astype(int)


def flow(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The eligibility flow: step, text, n, excluded, unknown; one row a rule, in order.

    ``n`` counts the patients left after the step; ``unknown`` those of the excluded whose value for the
    rule is missing.
    """
    left = len(frame)
    rows = [("assessed", "patients in the dataset", left, 0, 0)]
    for rule in _steps(study, frame):
        out = frame["exclusion"] == rule.id
        left -= int(out.sum())
        unknown = out & (missing_codes(frame[rule.column]) != "") if rule.column else out & False
        text = rule.text
        if rule.id == QUALITY:
            text += _counted(frame.loc[out, QUALITY_REASON])
        if not _assessed(rule, frame["scans"]):
            text += ": not assessed, the dataset has no scans"
        rows.append((rule.id, text, left, int(out.sum()), int(unknown.sum())))
    events = int(labels(frame, study).sum())
    rows.append(("included", f"included, of whom {events} with the outcome", left, 0, 0))
    return pd.DataFrame(rows, columns=["step", "text", "n", "excluded", "unknown"])


def _counted(reasons: pd.Series) -> str:
    """The reasons with their counts, the most frequent first; those of a long list together."""
    counts = sorted(reasons.value_counts().items(), key=lambda item: (-item[1], item[0]))
    said = [f"{reason} {n}" for reason, n in counts[:SHOWN_REASONS]]
    if counts[SHOWN_REASONS:]:
        said.append(f"other reasons {sum(n for _, n in counts[SHOWN_REASONS:])}")
    return f" ({', '.join(said)})" if said else ""


def exclusions(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Each excluded patient: participant_id, step, rule (not met), found (the values that decided)."""
    rules = {rule.id: rule for rule in _steps(study, frame)}
    rows = []
    for patient in frame[frame["exclusion"] != ""].to_dict("records"):
        rule = rules[patient["exclusion"]]
        if rule.id == QUALITY:
            found = patient[QUALITY_REASON]
        elif rule.op == "any-scan":
            found = f"no {' or '.join(rule.value)}"
        elif rule.op == "label-known":
            found = "; ".join(_said(c.column, patient) for c in study.criteria)
        else:
            found = _said(rule.column, patient)
        rows.append((patient["participant_id"], rule.id, rule.text, found))
    order = list(rules)
    rows.sort(key=lambda row: (order.index(row[1]), row[0]))
    return pd.DataFrame(rows, columns=["participant_id", "step", "rule", "found"])


def _said(column: str, patient: dict[str, str]) -> str:
    code = missing_codes(pd.Series([patient[column]])).iloc[0]
    words = MISSING_REASONS[code] if code else patient[column].strip()
    return f"{column}: {words}"
