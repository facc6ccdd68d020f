"""What may be published of a run of real patients: its result tables and figure, no row of a patient.

A page of the docs can show such a summary: `fill_page` writes its tables into it, none is typed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd

from rlvo_lib import storage
from rlvo_lib.config import InputError, project_root
from rlvo_lib.report.provenance import run_study
from rlvo_lib.report.table_files import read_text_table

#: Tables that count or estimate over patients.
TABLES = (
    "flow", "paper", "performance", "comparisons", "comparisons_averaged", "no_skill", "label_definitions", "calibration",
    "shap_importance", "permutation_importance", "modality_shares", "modulation_summary", "territory_risk",
    "territory_sides", "territory_agreement",
)  # fmt: skip
FIGURES = (
    "auc_forest.png", "territory_risk.png", "territory_agreement.png", "modulation_summary.png",
    "shap_importance.png", "modality_shares.png",
)  # fmt: skip
#: Places of a page for the tables of a summary, and for one table.
MARK = re.compile(r"(<!-- summary: (\S+) -->\n).*?(<!-- end -->)", re.S)
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.S)
PATIENT = re.compile(r"sub-[A-Za-z0-9]+", re.I)
SETTINGS = (
    "profile", "outcome_definition", "arms", "missing_indicators", "seed", "grid_shape",
    "grid_spacing_mm", "teaching", "pooling", "encoder", "batch_size", "bootstrap_resamples",
)  # fmt: skip


def dated_checks() -> pd.DataFrame | None:
    """The latest checks of explanations that needed networks trained for them (``make explain-checks``), or None."""
    found = sorted((project_root() / "studies" / "rlvo" / "explain").glob("*/checks.csv"))
    return storage.read_csv(found[-1]) if found else None


def keep_summary(run: str | Path, folder: str | Path) -> Path:
    """Copy a run's result tables and figure into ``folder``, with ``summary.json``: where they come from.

    Raises
    ------
    InputError
        If the run is not finished, or a table has a row of a patient (an identifier in any cell).
    """
    run, folder = Path(run), Path(folder)
    if not (run / "run.json").is_file():
        raise InputError(f"{run}: not a finished run folder (no run.json in it)")
    info = storage.read_json(run / "run.json")
    tables = {
        name: read_text_table(run / "tables" / f"{name}.csv")
        for name in TABLES
        if (run / "tables" / f"{name}.csv").exists()
    }
    for name, table in tables.items():
        _refuse_patients(name, table)
    for name, table in tables.items():
        storage.write_csv(folder / f"{name}.csv", table)
    for name in FIGURES:
        if (run / "figures" / name).exists():
            shutil.copyfile(run / "figures" / name, folder / name)
    summary = {
        "study": info["study"],
        "data": info["data"],
        "dataset": info["dataset"].get("name", ""),
        "patients": info["expected"]["included"],
        "validation": run_study(run, info).validation,
        "settings": {n: info["settings"][n] for n in SETTINGS if n in info["settings"]},
        "software": info["software"],
        "finished": info["finished"],
    }
    storage.write_json(folder / "summary.json", summary)
    return folder


def _refuse_patients(name: str, table: pd.DataFrame) -> None:
    for column in table:
        named = table[column].str.contains(PATIENT)
        if column == "participant_id" or named.any():
            raise InputError(
                f"table '{name}', column '{column}': holds rows of patients; allowed in a summary: "
                "tables over patients"
            )


def fill_page(page: str | Path) -> None:
    """Put the tables that a Markdown page names into it.

    ``<!-- summary: FOLDER -->`` stands for the tables of a run's summary, ``<!-- table: FILE.csv -->`` for
    one table as it is. Both are relative to the page's folder.
    """
    page = Path(page)
    storage.write_text(page, filled(page))


def filled(page: str | Path) -> str:
    """The text of a Markdown page with the tables it names as they are now."""
    page = Path(page)

    def tables(mark: re.Match) -> str:
        return mark[1] + render_summary(page.parent / mark[2]) + mark[3]

    def table(mark: re.Match) -> str:
        return mark[1] + render_table(page.parent / mark[2]) + mark[3]

    return TABLE.sub(table, MARK.sub(tables, page.read_text(encoding="utf-8")))


def render_table(path: str | Path) -> str:
    """A CSV table as Markdown, cell by cell as it is written."""
    table = read_text_table(path)
    rows = [
        list(table.columns),
        ["---"] * len(table.columns),
        *table.fillna("").to_numpy().tolist(),
    ]
    lines = ["| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(["", *lines, "", ""])


def render_summary(folder: str | Path) -> str:
    """A summary's results and comparisons as Markdown, stamped with its data, date and design."""
    folder = Path(folder)
    info = storage.read_json(folder / "summary.json")
    performance = read_text_table(folder / "performance.csv").query("metric == 'auc'")
    paper = read_text_table(folder / "paper.csv").drop_duplicates("arm", keep="last")
    names = paper.set_index("arm")[
        "model"
    ]  # the last row of an arm is its own, not a published one
    plan = info["validation"]
    lines = [
        "",
        f"{info['data'].capitalize()} data, {info['patients']} patients, {performance['events'].iloc[0]} "
        f"with the outcome; {plan['folds']}-fold cross-validation"
        + (f", {plan['repeats']} repetitions" if plan.get("repeats", 1) > 1 else "")
        + f"; run of {info['finished'][:10]}.",
        "",
        "| model | AUC [95 % CI over patients] | mean ± SD over folds |",
        "| --- | --- | --- |",
    ]
    for row in performance.to_dict("records"):
        auc, low, high, mean, sd = (
            float(row[n]) for n in ("ensemble", "low", "high", "mean", "sd")
        )
        lines.append(
            f"| {names[row['arm']]} | {auc:.3f} [{low:.3f}, {high:.3f}] | {mean:.3f} ± {sd:.3f} |"
        )
    lines += _differences(folder / "comparisons.csv", names, "difference in AUC")
    if (folder / "comparisons_averaged.csv").exists():
        lines += [
            "",
            "Each patient's probability averaged over the repetitions first (not named in advance):",
        ]
        title = "difference in AUC of the averages"
        lines += _differences(folder / "comparisons_averaged.csv", names, title)
    return "\n".join([*lines, "", ""])


def _differences(path: Path, names: pd.Series, title: str) -> list[str]:
    """Lines of a table of paired differences, of those that could be compared."""
    lines = [
        "",
        f"| {title} | first | second | difference [95 % CI] | p | p (Holm) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    keys = ("auc_a", "auc_b", "difference", "low", "high", "p", "p_holm")
    for row in read_text_table(path).query("reason == ''").to_dict("records"):
        first, second, estimate, low, high, p, adjusted = (float(row[key]) for key in keys)
        lines.append(
            f"| {names[row['a']]} − {names[row['b']]} | {first:.3f} | {second:.3f} | "
            f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}] | {p:.3f} | {adjusted:.3f} |"
        )
    return lines
