"""The run folder of a run that was applied: the usual files and tables, and what is only here.

``run.json`` has an entry ``applied`` that names the run, its digests and the proof. Tables that only a
development has (out of fold, the ledger of claims) are left out. With recalibration each table that it
changes stands beside the first as ``<name>_recalibrated``, and ``recalibration`` says what changed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from rlvo_lib import figures, report, storage, verify
from rlvo_lib.config import InputError
from rlvo_lib.external.arrivals import Arrivals
from rlvo_lib.external.frozen import FrozenRun

#: Tables of the usual kind that need no out-of-fold predictions, by what they show.
TABLES = {
    "flow": "The eligibility flow of the other dataset.",
    "split_counts": "Patients of the other dataset, all of whom are test patients.",
    "table1": "The patients of the other dataset by outcome.",
    "missingness": "What is missing in the other dataset.",
    "performance": "The frozen run in the patients of the other dataset; its thresholds, nothing refitted.",
    "no_skill": "What each metric is without any skill.",
    "comparisons": "Differences in AUC of the pairs named in advance.",
    "comparisons_flagged": "Differences in sensitivity and specificity at the frozen thresholds.",
    "calibration": "Calibration of the frozen probabilities.",
    "calibration_points": "Observed against predicted risk in groups.",
    "calibration_curve": "Observed against predicted risk, smoothed.",
    "roc_points": "The corners of the ROC curves.",
    "roc_band": "ROC curves with pointwise 95 % bands.",
    "pr_points": "The corners of the precision-recall curves.",
    "pr_band": "Precision-recall curves with pointwise 95 % bands.",
    "decision_curve": "Net benefit of the frozen probabilities.",
    "risk_distribution": "The distribution of predicted risk by outcome.",
    "subgroups": "The main arms within the subgroups named in advance.",
}
#: Those that recalibration in the large changes.
RECALIBRATED = (
    "performance", "calibration", "calibration_points", "calibration_curve", "decision_curve",
    "risk_distribution",
)  # fmt: skip
OPTIMISTIC = (
    "After recalibration in the large on these same patients: optimistic for calibration; ranks and "
    "flagged patients are unchanged. Fold ensembles only."
)
WRITTEN = ("tables", "figures")
FILES = (
    "run.json", "pages.json", "index.html", "predictions.csv", "thresholds.csv", "cohort.csv", "split.csv",
    "study.toml", "data_dictionary.csv",
)  # fmt: skip


def refuse_other_folder(out: Path, run: Path) -> None:
    """Raise if a folder holds something other than an earlier result of this package's ``apply``."""
    if out.resolve() == run.resolve():
        raise InputError(f"--out {out}: is the run itself; allowed: another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out {out}: a file is in the way; allowed: a new folder")
    if not any(out.iterdir()):
        return
    try:
        applied = storage.read_json(out / "run.json").get("applied")
    except (OSError, ValueError, AttributeError):
        applied = None
    if not applied:
        raise InputError(
            f"--out {out}: holds something that is not an earlier result of rlvo apply; allowed: a new "
            "folder"
        )


def write(
    out: Path,
    run: FrozenRun,
    arrivals: Arrivals,
    predictions: pd.DataFrame,
    own: dict[str, pd.DataFrame],
    *,
    recalibrate: bool,
) -> Path:
    """Write the run folder of an applied run.

    Parameters
    ----------
    predictions : of the new patients, with their outcomes.
    own : the tables ``availability`` and ``proof``.

    Returns
    -------
    ``out``.
    """
    _clear(out)
    storage.write_csv(out / "predictions.csv", predictions)
    shutil.copyfile(run.root / "thresholds.csv", out / "thresholds.csv")
    storage.write_csv(out / "cohort.csv", arrivals.analysis.frame)
    storage.write_csv(out / "split.csv", arrivals.analysis.split)
    applied = _applied(run, arrivals, own["proof"], recalibrate)
    _provenance(out, run, arrivals, applied)
    judged = not arrivals.no_outcome
    tables = _tables(out, run, own, judged=judged, recalibrate=recalibrate)
    if judged:
        _figures(out, run, tables)
    _provenance(out, run, arrivals, applied)
    report.write_index(out)
    return out


def _clear(out: Path) -> None:
    for name in WRITTEN:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)


def _applied(
    run: FrozenRun, arrivals: Arrivals, proven: pd.DataFrame, recalibrate: bool
) -> dict[str, Any]:
    """What ``run.json`` says of the frozen run, and of the proof that it is still the same."""
    new = len(arrivals.analysis.split)
    return {
        "run": run.root.resolve().name,
        "dataset": run.info["dataset"].get("name", ""),
        "predictions": storage.digest(run.root / "predictions.csv"),
        "thresholds": storage.digest(run.root / "thresholds.csv"),
        "reproduced_predictions": int(proven["predictions"].sum()),
        "largest_difference": float(proven["largest_difference"].max()),
        "patients": new,
        "also_in_training": arrivals.known,
        "also_in_test": arrivals.seen_in_test,
        "not_judged": arrivals.no_outcome,
        "recalibration": "in the large, on the same patients" if recalibrate else "none",
    }


def _provenance(out: Path, run: FrozenRun, arrivals: Arrivals, applied: dict[str, Any]) -> None:
    """``run.json`` with its entry ``applied``, and the run's study file and dictionary."""
    settings = run.info["settings"] | {"data": arrivals.analysis.dataset.root.resolve().name}
    path = report.write_provenance(
        out,
        settings=settings,
        study=run.analysis.settings.study,
        data=run.info["data"],
        dataset=arrivals.analysis.fingerprint(arrivals.tensors),
    )
    storage.write_json(path, storage.read_json(path) | {"applied": applied})


# ---------------------------------------------------------------------------------- tables


def _tables(
    out: Path,
    run: FrozenRun,
    own: dict[str, pd.DataFrame],
    *,
    judged: bool,
    recalibrate: bool,
) -> dict[str, pd.DataFrame]:
    made, folder, data = {}, verify.Run(out), run.info["data"]

    def save(name: str, table: pd.DataFrame, caption: str) -> None:
        report.save_table(out, name, table, data=data, caption=caption)
        made[name] = table

    captions = {
        "availability": "The arms of the run, and the patients of the other dataset whom each can score.",
        "proof": "The run's own predictions, made again in the same pass, beside those it reports.",
    }
    for name, table in own.items():
        save(name, table, captions[name])
    if not judged:  # the others, the flow too, ask for the outcome
        return made
    for name in TABLES:
        save(name, folder.table(name), TABLES[name])
    save(
        "transport",
        transport(verify.Run(run.root), folder),
        "Each arm's AUC in the patients of the run and in those of the other dataset.",
    )
    if recalibrate:
        save(
            "recalibration",
            folder.table("recalibration"),
            "What recalibration in the large changes; estimated on the same patients.",
        )
        for name in RECALIBRATED:
            full = f"{name}_recalibrated"
            save(full, folder.table(full), f"{TABLES[name]} {OPTIMISTIC}")
    return made


def transport(run: verify.Run, applied: verify.Run) -> pd.DataFrame:
    """Each arm where it was developed and where it was applied.

    Returns
    -------
    DataFrame with arm, label; the run's out-of-fold AUC (``run_out_of_fold``), and auc, low, high, n,
    events where it reports (``run_…``); the same of the other dataset, with its calibration (mean over
    the seeds): o_to_e, intercept (in the large), slope.
    """
    study = run.study
    here, there = (
        r.table("performance").query("metric == 'auc'").set_index("arm") for r in (run, applied)
    )
    development = run.table("out_of_fold").query("metric == 'auc'").set_index("arm")["estimate"]
    calibration = (
        applied.table("calibration").groupby("arm")[["o_to_e", "intercept", "slope"]].mean()
    )
    columns = {"ensemble": "auc", "low": "low", "high": "high", "n": "n", "events": "events"}
    rows = []
    for arm in there.index:
        label = study.arms[arm].label if arm in study.arms else arm
        row = {"arm": arm, "label": label, "run_out_of_fold": development[arm]}
        row |= {f"run_{new}": here.at[arm, old] for old, new in columns.items()}
        row |= {new: there.at[arm, old] for old, new in columns.items()}
        rows.append(row | calibration.loc[arm].to_dict())
    return pd.DataFrame(rows).assign(data=applied.data)


# --------------------------------------------------------------------------------- figures


def _figures(out: Path, run: FrozenRun, tables: dict[str, pd.DataFrame]) -> None:
    study, data = run.analysis.settings.study, run.info["data"]
    labels = {name: arm.label for name, arm in study.arms.items()}
    shown = {"labels": labels, "arms": _main_arms(study, list(tables["transport"]["arm"]))}

    def save(name: str, figure: Any, caption: str, *sources: str) -> None:
        report.save_figure(out, name, figure, data=data, caption=caption, sources=sources)

    performance, points, band = (tables[n] for n in ("performance", "roc_points", "roc_band"))
    save(
        "auc_forest",
        figures.auc_forest(performance, labels=labels),
        "AUC of the frozen run in the other dataset.",
        "performance",
    )
    save(
        "roc",
        figures.roc_curves(points, band=band, performance=performance, **shown),
        "ROC curves of the frozen ensembles in the other dataset.",
        "roc_points",
        "roc_band",
        "performance",
    )
    save(
        "decision_curve",
        figures.decision_curves(tables["decision_curve"], **shown),
        "Net benefit of the frozen probabilities in the other dataset.",
        "decision_curve",
    )
    save("calibration", *_calibration(tables, **shown))


def _calibration(
    tables: dict[str, pd.DataFrame], labels: dict[str, str], arms: list[str]
) -> tuple[Any, ...]:
    """The calibration plot, with recalibrated arms below the others; its caption and sources."""
    names = ["calibration_points", "calibration_curve"]
    caption = "Observed against predicted risk in the other dataset"
    drawn = [tables[name] for name in names]
    if f"{names[0]}_recalibrated" not in tables:
        figure = figures.calibration_plot(drawn[0], curve=drawn[1], labels=labels, arms=arms)
        return figure, f"{caption}.", *names
    after = [f"{name}_recalibrated" for name in names]
    mark = " recalibrated"
    points, curve = (
        pd.concat([table, tables[name].assign(arm=tables[name]["arm"] + mark)])
        for table, name in zip(drawn, after, strict=True)
    )
    figure = figures.calibration_plot(
        points,
        curve=curve,
        labels=labels | {arm + mark: f"{labels[arm]}, recalibrated" for arm in arms},
        arms=[*arms, *(arm + mark for arm in arms)],
    )
    caption += ", as it is and after recalibration on the same patients."
    return figure, caption, *names, *after


def _main_arms(study: Any, present: list[str]) -> list[str]:
    """The first three arms of the comparisons named in advance, or of all."""
    named = [arm for pair in study.comparisons for arm in pair]
    chosen = [arm for arm in dict.fromkeys(named) if arm in present]
    return (chosen or present)[:3]
