"""How the outcome came about: its criteria, what is unknown of them, and other definitions of it.

All tables are made from a cohort frame. A missing criterion never makes a negative: dropping patients
with an unrecorded criterion takes mostly negatives away and so raises the prevalence; `label_bounds`
says by how much at most.
"""

from __future__ import annotations

import pandas as pd

from rlvo_lib.cohort.eligibility import assign, included, labels
from rlvo_lib.cohort.rules import criteria, label_columns, meets, needed_columns
from rlvo_lib.config import Study
from rlvo_lib.dataset import typed
from rlvo_lib.dictionary import Dictionary


def label_overlap(frame: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    """Which criteria make the outcome: one row a combination of criteria met, with its n, eligible.

    A criterion that is unknown in a patient with the outcome counts as not met; `label_sources` says
    how often.
    """
    met = _criteria(included(frame), study, dictionary) == 1
    counts = met.value_counts().rename("n").reset_index()
    names = [rule.id for rule in study.criteria]
    counts[names] = counts[names].astype(int)
    return counts.sort_values(
        ["n", *names], ascending=[False] + [True] * len(names), ignore_index=True
    )


def label_sources(frame: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    """Each criterion in all otherwise eligible patients: met, not met, not applicable, unknown."""
    candidates = _candidates(frame, study)
    met, table = _criteria(candidates, study, dictionary), _typed(candidates, study, dictionary)
    rows = []
    for rule in study.criteria:
        value, inapplicable = met[rule.id], pd.Series(False, index=met.index)
        if rule.not_applicable_when:
            inapplicable = meets(rule.not_applicable_when, table) == 1
        not_met = (value == 0) & ~inapplicable
        counts = [(value == 1), not_met, inapplicable, value.isna()]
        rows.append((rule.id, rule.text, *(int(c.sum()) for c in counts)))
    columns = ["criterion", "text", "met", "not_met", "not_applicable", "unknown"]
    return pd.DataFrame(rows, columns=columns)


def label_bounds(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """What an unknown outcome may hide: n, events and prevalence as derived, and at both extremes.

    Rows: ``known`` (patients whose outcome is unknown are left out, as in the analysis), ``all 0`` and
    ``all 1`` (they are kept, and all without or all with the outcome). ``unknown`` counts them.
    """
    candidates = _candidates(frame, study)
    label = candidates[study.outcome]
    events, unknown = int((label == "1").sum()), int((label == "").sum())
    n = len(label)
    rows = [
        ("known", "outcome known (analysed)", unknown, n - unknown, events),
        ("all 0", "unknown taken as without the outcome", unknown, n, events),
        ("all 1", "unknown taken as with the outcome", unknown, n, events + unknown),
    ]
    table = pd.DataFrame(rows, columns=["case", "text", "unknown", "n", "events"])
    return table.assign(prevalence=table["events"] / table["n"])


def label_definitions(frame: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    """The outcome under each definition of the study file, over the same patients.

    Returns
    -------
    DataFrame with definition, text, n (eligible, outcome known), events, prevalence, unknown (left out
    since the outcome is unknown), excluded (left out by the definition), gained and lost (patients with
    the outcome under this definition but not under ``main``, and the reverse), in_force.
    """
    known = frame.set_index("participant_id").drop(columns=["included", "exclusion"])
    main = _under("main", known, study, dictionary)
    rows = []
    for name, definition in study.definitions.items():
        absent = [c for c in needed_columns(study.under(name)) if c not in known]
        if absent:
            reason = f"column '{absent[0]}' is missing"
            rows.append((name, definition.text, 0, 0, float("nan"), 0, 0, 0, 0, False, reason))
            continue
        derived = _under(name, known, study, dictionary)
        y, in_main = labels(derived, study), labels(main, study)
        steps = derived["exclusion"]
        both = y.index.intersection(in_main.index)
        rows.append(
            (
                name,
                definition.text,
                len(y),
                int(y.sum()),
                float(y.mean()),
                int(steps.isin(_label_known(study)).sum()),
                int(steps.isin([rule.id for rule in definition.exclude]).sum()),
                int((y[both] > in_main[both]).sum()),
                int((y[both] < in_main[both]).sum()),
                name == study.definition,
                "",
            )
        )
    columns = ["definition", "text", "n", "events", "prevalence", "unknown", "excluded", "gained",
               "lost", "in_force", "reason"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _under(name: str, known: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    return assign(known, study.under(name), dictionary).reset_index()


def _label_known(study: Study) -> list[str]:
    return [rule.id for rule in study.eligibility if rule.op == "label-known"]


def _candidates(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Patients who are eligible, or would be if their outcome were known; by participant_id."""
    return frame[frame["exclusion"].isin(["", *_label_known(study)])].set_index("participant_id")


def _typed(patients: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    return typed(patients[label_columns(study)], dictionary)


def _criteria(patients: pd.DataFrame, study: Study, dictionary: Dictionary) -> pd.DataFrame:
    return criteria(_typed(patients, study, dictionary), study)
