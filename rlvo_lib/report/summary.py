"""What may be published of a run of real patients: its result tables and figure, no row of a patient."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd

from rlvo_lib import storage
from rlvo_lib.config import InputError
from rlvo_lib.report.provenance import run_study
from rlvo_lib.report.table_files import read_text_table

#: Tables that count or estimate over patients.
TABLES = ("flow", "paper", "performance", "comparisons", "no_skill", "label_definitions")
FIGURES = ("auc_forest.png",)
PATIENT = re.compile(r"sub-[A-Za-z0-9]+", re.I)
SETTINGS = (
    "profile", "outcome_definition", "arms", "missing_indicators", "seed", "grid_shape",
    "grid_spacing_mm", "bootstrap_resamples",
)  # fmt: skip


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
