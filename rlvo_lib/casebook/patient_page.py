"""One page about one patient: the prediction, its place among others, what moved it, and the caveats."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlvo_lib import experiment, explain, figures, metrics
from rlvo_lib.casebook import explaining
from rlvo_lib.casebook.case import Cases
from rlvo_lib.casebook.parts import Part, Picture, render_page

PARTITIONS = {"test": "test patients", "out-of-fold": "patients of the training part, out of fold"}


def render_patient(
    cases: Cases,
    participant: str,
    *,
    run: Path,
    data: str,
    method: str = "",
    about: Sequence[tuple[str, str]] = (),
) -> str:
    """The page of one eligible patient of a run, as HTML.

    Parameters
    ----------
    run : the run folder, of whose checks the page tells.
    method : one of `explain.METHODS`; left out: `explaining.choose_method`.
    about : names and values for the list of provenance at the end.

    Raises
    ------
    InputError
        If the patient is unknown or excluded, or the method unknown.
    """
    cases.require(participant)
    checks = explaining.read_checks(run, cases.arm.name)
    method = explaining.choose_method(checks, method)
    if participant in cases.lacking:
        parts, numbers = _not_scored(cases, participant), _outcome(cases, participant)
        lead = f"{cases.arm.label} cannot score this patient: {cases.lacking[participant]}."
    else:
        parts, numbers = _scored(cases, participant, run, method, checks)
        lead = _lead(cases, participant)
    parts += [explaining.checks_part(checks), _caveats(cases, participant), _provenance(about)]
    return render_page(
        f"{participant}: prediction by {cases.arm.label}",
        parts,
        data=data,
        lead=lead,
        numbers=numbers,
    )


def _scored(
    cases: Cases, participant: str, run: Path, method: str, checks: pd.DataFrame | None
) -> tuple[list[Part], list[tuple[str, str]]]:
    own = cases.patients.loc[participant]
    limits = sorted(set(cases.limits.values()))
    numbers = [
        (f"{own['probability']:.1%}", f"predicted probability of {cases.study.outcome_label}"),
        (" / ".join(f"{limit:.1%}" for limit in limits), "threshold of the run"),
        *_outcome(cases, participant),
    ]
    parts = [
        _prediction(cases, participant),
        explaining.drivers_part(cases, participant, method, checks),
        explaining.modalities_part(cases, participant),
        explaining.reads_part(cases, participant, run),
    ]
    return [part for part in parts if part is not None], numbers


def _outcome(cases: Cases, participant: str) -> list[tuple[str, str]]:
    y = cases.analysis.y.get(participant)
    if y is None:
        return [("unknown", "outcome")]
    known = cases.study.outcome_label if y else cases.study.negative_label
    return [(known, "what happened")]


def _lead(cases: Cases, participant: str) -> str:
    n = len(cases.models(participant))
    if cases.patients.at[participant, "partition"] == "test":
        return (
            f"{cases.arm.label}: mean of the {n} fold models, none of which saw this test patient."
        )
    return (
        f"{cases.arm.label}: a patient of the training part, explained only by the fold "
        f"model{'s' * (n > 1)} that did not see them."
    )


# ------------------------------------------------------------------------------------ the prediction


def _prediction(cases: Cases, participant: str) -> Part:
    others = cases.others(participant)
    scores = cases.scores(participant)
    limits = list(cases.limits.values())
    figure = figures.place_in_distribution(
        others.reset_index(), participant, models=scores,
        threshold=limits[0] if len(set(limits)) == 1 else None,
        outcome_names=(cases.study.negative_label, cases.study.outcome_label),
    )  # fmt: skip
    words = PARTITIONS[cases.patients.at[participant, "partition"]]
    caption = f"Predicted probabilities of the {len(others)} {words}, by outcome; the line is {participant}."
    return Part(
        "The prediction and its place among others",
        [
            _threshold_words(cases, participant),
            _place_words(others, participant, words),
            _models(scores),
        ],
        [Picture(figure, caption)],
        table=scores.rename(columns={"probability": "probability of the outcome"}),
        caption=f"What each model that did not see {participant} said.",
    )


def _threshold_words(cases: Cases, participant: str) -> str:
    own, others = cases.patients.loc[participant], cases.others(participant)
    share = float(own["flagged"])
    side = (
        "at or above"
        if share == 1
        else "below"
        if share == 0
        else f"in {share:.0%} of the seeds above"
    )
    flagged = others[others["flagged"] >= 0.5]
    events = int(others["y_true"].sum())
    rule = cases.thresholds[cases.thresholds["arm"] == cases.arm.name].iloc[0]
    nobody = " It separates nobody from anybody." if len(flagged) in (0, len(others)) else ""
    return (
        f"The probability is {side} the threshold ({rule['rule']}, chosen on the pooled {rule['chosen_on']} "
        f"predictions; no limit for treating anyone). At that threshold {len(flagged)} of {len(others)} such "
        f"patients are flagged, {int(flagged['y_true'].sum())} of the {events} with the outcome among them.{nobody}"
    )


def _place_words(others: pd.DataFrame, participant: str, words: str) -> str:
    p = others.at[participant, "probability"]
    rest = others.drop(index=participant)
    said = [
        f"{(rest.loc[rest['y_true'] == y, 'probability'] < p).mean():.0%} of the {(rest['y_true'] == y).sum()} "
        f"{name} the outcome"
        for y, name in ((0, "without"), (1, "with"))
        if (rest["y_true"] == y).any()
    ]
    return f"Among the other {words} it is higher than in {' and '.join(said)}."


def _models(scores: pd.DataFrame) -> str:
    p = scores["probability"]
    if len(p) == 1:
        return "One fold model did not see this patient; how much another training changes is not known."
    return f"The {len(p)} models say {p.min():.1%} to {p.max():.1%}: how much another training changes it."


def _not_scored(cases: Cases, participant: str) -> list[Part]:
    """What can be shown of a patient who lacks something that the arm needs."""
    own = cases.predictions[cases.predictions["participant_id"] == participant]
    labels = {name: arm.label for name, arm in cases.study.arms.items()}
    table = own.groupby("arm", sort=False)["probability"].mean().reset_index()
    table = table.assign(arm=table["arm"].map(labels))
    missing = f"{cases.arm.label} needs what this patient lacks: {cases.lacking[participant]}."
    if table.empty:
        return [Part("The prediction", [missing, "No arm of the run could score this patient."])]
    return [
        Part(
            "What other arms say",
            [
                missing,
                "The arms of the run that could score the patient are listed; none is explained here.",
            ],
            table=table,
            caption=f"Mean predicted probability of {participant} by the models that did not see them.",
        ),
        *_of_table(cases, participant),
    ]


def _of_table(cases: Cases, participant: str) -> list[Part]:
    """What moved an arm of the table alone, which needs no scan, where one scored the patient."""
    ran = set(cases.predictions.loc[cases.predictions["participant_id"] == participant, "arm"])
    arms = cases.study.arms
    names = [n for n in explain.table_only(list(arms), cases.analysis) if n in ran]
    names = [name for name in names if arms[name].kind != "concepts"]
    for name in names:
        tasks = experiment.plan(cases.analysis, cases.tensors, [name])
        other = dataclasses.replace(cases, arm=arms[name], tasks=tasks)
        models = other.models(participant)
        if models and all(task.done for task in models):
            picture = explaining.clinical_picture(other, participant, models)
            said = f"{other.arm.label} needs no scan."
            return [
                Part("What moved an arm of the table", [said, explaining.NOT_CAUSAL], [picture])
            ]
    return []


# ------------------------------------------------------------------------------ caveats, provenance


def _caveats(cases: Cases, participant: str) -> Part:
    text = [
        "Research software, not a medical device: this page supports no decision about a patient.",
        explaining.NOT_CAUSAL,
        "Probability and explanation are those of stored models; models of the table and of reads were fitted again and give the stored predictions; no network of images was trained.",
    ]
    if participant not in cases.lacking:
        text.insert(1, _discrimination(cases, participant))
    if cases.analysis.settings.recalibrate:
        text.append("Probabilities are recalibrated; the explanations are of the logit before.")
    flags = cases.tensors.table["flags"].get(participant, "") if cases.tensors is not None else ""
    if flags:
        text.append(f"Noted when the scans were prepared: {flags}.")
    return Part("Caveats", text)


def _discrimination(cases: Cases, participant: str) -> str:
    others = cases.others(participant)
    words = PARTITIONS[cases.patients.at[participant, "partition"]]
    if others["y_true"].nunique() < 2:
        return f"All {words} have the same outcome: how well the model discriminates is not known."
    area = metrics.auc_ci(others["y_true"], others["probability"])
    said = (
        f"AUC {area.estimate:.2f} [{area.low:.2f}, {area.high:.2f}] among the {len(others)} {words}"
    )
    if not area.low > 0.5:
        return (
            f"The model was not shown to tell patients with and without the outcome apart ({said}): what "
            "moves it may be noise."
        )
    return f"How well the model tells patients with and without the outcome apart: {said}."


def _provenance(about: Sequence[tuple[str, str]]) -> Part:
    table = pd.DataFrame(list(about), columns=["what", "value"])
    return Part("Provenance", table=table, caption="The run that this page is of.")
