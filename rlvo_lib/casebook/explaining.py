"""The parts of a page that explain one patient's prediction; a part that cannot be made says why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlvo_lib import explain, figures, results, storage
from rlvo_lib.casebook import drivers
from rlvo_lib.casebook.case import Cases
from rlvo_lib.casebook.parts import Part, Picture
from rlvo_lib.config import InputError

CHECKS_TABLE = "tables/explanation_checks.csv"
NOT_CAUSAL = (
    "An explanation says what moves the model, not what causes the outcome, and not what would happen to "
    "the patient if it were otherwise."
)


def read_checks(run: Path, arm: str) -> pd.DataFrame | None:
    """The rows of an arm in ``tables/explanation_checks.csv`` of a run, or None where none was made."""
    path = Path(run) / CHECKS_TABLE
    if not path.is_file():
        return None
    table = storage.read_csv(path)
    own = table[table["arm"] == arm] if "arm" in table else table
    return own if len(own) else None


def choose_method(checks: pd.DataFrame | None, wanted: str = "") -> str:
    """The method of a page's map: the one wanted, else the first that failed no check, else occlusion.

    Raises
    ------
    InputError
        For an unknown method.
    """
    if wanted and wanted not in explain.METHODS:
        raise InputError(f"method is '{wanted}'; allowed: {', '.join(explain.METHODS)}")
    usable = [] if checks is None else results.usable_methods(checks)
    offered = [method for method in explain.METHODS if method in usable]
    return wanted or next(iter([*offered, "occlusion"]))


def standing(checks: pd.DataFrame | None, method: str) -> str:
    """What is known of a method's checks, in a sentence."""
    label = explain.METHODS[method].label
    if checks is None or method not in set(checks["method"]):
        return f"{label} was not checked in this run: it supports no claim."
    own = checks[checks["method"] == method]
    failed = list(_check_words(own)[own["verdict"] == "fail"])
    if explain.METHODS[method].control:
        return (
            f"{label} knows nothing of the model: it is a control of the checks, used for no claim."
        )
    if failed:
        return f"{label} failed checks ({', '.join(failed)}): shown as failing, used for no claim."
    passed = int((own["verdict"] == "pass").sum())
    return f"{label} failed none of the checks made ({passed} passed)."


def _check_words(rows: pd.DataFrame) -> pd.Series:
    """What checks are called, each with a word if it was made on networks of simulated patients instead."""
    words = rows["check"].map(lambda name: results.check_labels().get(name, name))
    elsewhere = pd.Series(False, index=rows.index)
    if "reason" in rows:
        elsewhere = rows["reason"].astype(object).fillna("").str.startswith(results.DATED)
    return words + elsewhere.map({True: " (simulated networks)", False: ""})


# ------------------------------------------------------------------------------------------- parts


def drivers_part(cases: Cases, participant: str, method: str, checks: pd.DataFrame | None) -> Part:
    """The waterfall of the clinical variables beside the map over the patient's own scan."""
    tasks = cases.models(participant)
    pictures, text, notes = [], [NOT_CAUSAL], []
    if cases.arm.predictors:
        pictures.append(clinical_picture(cases, participant, tasks))
    else:
        text.append(f"Arm '{cases.arm.name}' sees no clinical variables.")
    if not cases.arm.channels:
        text.append(f"Arm '{cases.arm.name}' sees no images.")
        return Part("What moved the prediction", text, pictures)
    found = map_picture(cases, participant, tasks, method)
    if found is None:
        text.append(
            f"{explain.METHODS[method].label}: no gradient reaches the image, in no voxel; nothing is drawn."
        )
    else:
        pictures.append(found)
    notes.append(standing(checks, method))
    return Part("What moved the prediction", text, pictures, notes=notes)


def clinical_picture(cases: Cases, participant: str, tasks: Sequence) -> Picture:
    """The patient's clinical variables and what each adds."""
    values = drivers.clinical_values(cases.analysis, cases.tensors, list(tasks), participant)
    labels = dict(zip(values["variable"], values["label"], strict=True))
    n = len(tasks)
    held = ", the image held at the patient's own" if cases.arm.channels else ""
    return Picture(
        figures.shap_waterfall(values.assign(arm=cases.arm.name), labels=labels),
        f"Clinical variables of {participant} in {cases.arm.label}: SHAP values (log-odds), mean over "
        f"{n} fold model{'s' * (n > 1)}{held}. Unknown means: as in "
        f"{cases.analysis.settings.shap_background} training patients of the fold.",
    )


def map_picture(cases: Cases, participant: str, tasks: Sequence, method: str) -> Picture | None:
    """The map over the patient's own scan; None where it is the same everywhere."""
    values = drivers.image_map(cases.analysis, cases.tensors, list(tasks), participant, method)
    if explain.is_flat(values):
        return None
    scan, voxels, native, affine = drivers.on_scan(
        cases.analysis, cases.tensors, participant, values
    )
    low, high, unit = explain.window_of(cases.tensors, participant, scan)
    about, n = explain.METHODS[method], len(tasks)
    return Picture(
        figures.overlay(voxels, native, affine, window=(low, high), unit=unit, map_unit=about.unit),
        f"{about.label} over the {scan} scan of {participant}, in the scan's own space, mean over {n} "
        f"fold model{'s' * (n > 1)}; R and L are the patient's sides.",
    )


def modalities_part(cases: Cases, participant: str) -> Part | None:
    """Shapley values of the modalities; None for an arm of one modality."""
    if not cases.arm.channels:
        return None
    tasks = cases.models(participant)
    values = drivers.modality_values(cases.analysis, cases.tensors, tasks, participant)
    values = values[values["absent"] == "donor"]
    if len(values) < 2:
        return None
    labels = explain.modality_labels(cases.study, cases.arm)
    figure = figures.modality_waterfall(values, labels=labels)
    n = cases.analysis.settings.modality_donors
    caption = (
        f"What each modality adds to the prediction of {participant}. Absent means: as in {n} training "
        "patients of the fold, one after the other."
    )
    return Part("What each modality carried", beside=[Picture(figure, caption)])


def checks_part(checks: pd.DataFrame | None) -> Part:
    """Which ways of explaining can be believed in this run."""
    heading = "Which explanations of the image can be believed"
    if checks is None:
        return Part(
            heading,
            [
                "The run holds no checks of its explanations (tables/explanation_checks.csv): none of its "
                "maps supports a claim."
            ],
        )
    rows = []
    for method, own in checks.groupby("method", sort=False):
        verdicts = _check_words(own).groupby(own["verdict"]).agg(", ".join)
        label = explain.METHODS[method].label if method in explain.METHODS else method
        usable = "yes" if method in results.usable_methods(checks) else "no"
        rows.append((label, usable, *(verdicts.get(v, "") for v in ("pass", "fail", "not made"))))
    table = pd.DataFrame(rows, columns=["method", "usable", "passed", "failed", "not made"])
    return Part(
        heading,
        ["A method that fails a check is shown as failing and used for no claim."],
        table=table,
        caption="Ways of explaining by the checks of this run, and, where so said, of networks of simulated patients: usable means that none was failed.",
    )


def reads_part(cases: Cases, participant: str, run: Path) -> Part | None:
    """What the run's readers read in the patient and what each read adds; None without an arm of concepts."""
    arm = _concepts_arm(cases)
    if arm is None:
        return None
    heading = "What was read off the images"
    label = cases.study.arms[arm].label
    try:
        reads, what_if = drivers.concept_values(cases.analysis, cases.tensors, arm, participant)
    except InputError as error:
        return Part(heading, [f"{label} cannot be asked: {error}"])
    fields = cases.analysis.dictionary.fields
    labels = {name: field.label for name, field in fields.items()}
    units = {name: field.unit for name, field in fields.items()}
    quality = _quality(run)
    bars = figures.reads_bars(reads, labels=labels, units=units, quality=quality)
    limits = cases.thresholds.loc[cases.thresholds["arm"] == arm, "threshold"].unique()
    limit = float(limits[0]) if len(limits) == 1 else None
    pictures = [
        Picture(
            bars,
            f"{label}: what each read and clinical variable of {participant} adds to its logit, from the "
            "mean of the training patients; beside a read, how well it is read out of fold.",
        )
    ]
    if len(what_if):
        dots = figures.what_if_dots(what_if, labels=labels, units=units, threshold=limit)
        words = "What the probability would be had one read been different, all other reads as they are."
        pictures.append(Picture(dots, words))
    probability = float(what_if["before"].iloc[0]) if len(what_if) else float("nan")
    return Part(
        heading,
        [
            f"{label} reads concepts off the scans and predicts from them; it is another model than "
            f"{cases.arm.label}. Its probability here: {probability:.1%}."
        ],
        pictures,
        table=_what_if_table(what_if, labels, quality),
        caption=(
            "What the probability would be had a read been different, all other reads as they are; "
            "reliability of the read out of fold (R2 of a quantity, AUC of a code)."
        ),
    )


def _concepts_arm(cases: Cases) -> str | None:
    """The first of the run's arms that are built on concepts, with clinical variables where there is one."""
    ran = set(cases.predictions["arm"])
    names = [n for n, arm in cases.study.arms.items() if n in ran and arm.kind == "concepts"]
    fused = [name for name in names if cases.study.arms[name].predictors]
    return next(iter([*fused, *names]), None)


def _quality(run: Path) -> pd.DataFrame | None:
    """How well each concept is read out of fold: ``tables/reading.csv`` of a run, or None."""
    path = Path(run) / "tables" / "reading.csv"
    return storage.read_csv(path) if path.is_file() else None


def _what_if_table(
    what_if: pd.DataFrame, labels: dict[str, str], quality: pd.DataFrame | None
) -> pd.DataFrame:
    known = {} if quality is None else quality.set_index("concept").to_dict("index")
    rows = []
    for row in what_if.itertuples():
        own = known.get(row.variable)
        judged = "not judged"
        if own is not None:
            judged = (
                f"{own['measure']} {own['value']:.2f}" if pd.notna(own["value"]) else own["reason"]
            )
        other = row.to if pd.isna(row.to_value) else f"{row.to} ({row.to_value:.3g})"
        rows.append((labels[row.variable], judged, other, row.after, row.change))
    columns = ["read", "reliability", "had it been", "probability", "change"]
    return pd.DataFrame(rows, columns=columns)
