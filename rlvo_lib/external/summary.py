"""What may be published of an applied run: tables over patients, and where they come from; no row of a patient."""

from __future__ import annotations

from pathlib import Path

from rlvo_lib import storage
from rlvo_lib.config import InputError
from rlvo_lib.report.summary import PATIENT
from rlvo_lib.report.table_files import read_text_table

TABLES = (
    "flow", "availability", "proof", "transport", "performance", "comparisons", "calibration",
    "calibration_points", "recalibration", "calibration_recalibrated", "decision_curve",
    "decision_curve_recalibrated",
)  # fmt: skip
#: Columns of the two short tables that the page of the docs shows.
SHORT = {
    "discrimination": (
        "transport",
        ["label", "run_out_of_fold", "run_auc", "run_low", "run_high", "auc", "low", "high"],
    ),
    "calibration_shift": (
        "recalibration",
        ["arm", "o_to_e_before", "intercept_before", "slope_before", "brier_before", "o_to_e_after",
         "brier_after", "auc_before", "auc_after", "flagged_before", "flagged_after"],
    ),
}  # fmt: skip


def keep_summary(out: str | Path, folder: str | Path) -> Path:
    """Copy the result tables of an applied run into ``folder``, with ``summary.json``.

    ``discrimination.csv`` and ``calibration_shift.csv`` are columns of two of them, to three decimals.

    Raises
    ------
    InputError
        If the folder is not an applied run, or a table has a row of a patient.
    """
    out, folder = Path(out), Path(folder)
    info = storage.read_json(out / "run.json") if (out / "run.json").is_file() else {}
    if "applied" not in info:
        raise InputError(f"{out}: not a run that was applied (run.json has no entry 'applied')")
    tables = {}
    for name in TABLES:
        path = out / "tables" / f"{name}.csv"
        if path.exists():
            tables[name] = read_text_table(path)
            _refuse_patients(name, tables[name])
    for name, table in tables.items():
        storage.write_csv(folder / f"{name}.csv", table)
    for name, (whole, columns) in SHORT.items():
        if whole in tables:
            short = storage.read_csv(out / "tables" / f"{whole}.csv")[[*columns, "data"]]
            storage.write_csv(folder / f"{name}.csv", short.round(3))
    names = ("data", "study", "dataset", "applied", "software", "finished")
    storage.write_json(folder / "summary.json", {name: info[name] for name in names})
    return folder


def _refuse_patients(name: str, table) -> None:
    for column in table:
        if column == "participant_id" or table[column].str.contains(PATIENT).any():
            raise InputError(
                f"table '{name}', column '{column}': holds rows of patients; allowed in a summary: "
                "tables over patients"
            )
