"""The committed reference run: a copy of a finished simulated run, and what the README shows of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rlvo_lib import storage
from rlvo_lib.config import InputError
from rlvo_lib.report.table_files import read_text_table, stamp_text

BEGIN = "<!-- reference run: begin (written by `make reference`) -->"
END = "<!-- reference run: end -->"
COLUMNS = {
    "model": "model", "AUC, mean ± SD": "AUC, mean ± SD", 
    "F1 (event class), mean ± SD": "F1 (event class), mean ± SD",
    "ensemble AUC [95 % CI]": "ensemble AUC [95 % CI]",
    "AUC, published, another cohort": "AUC, *published, another cohort*",
    "F1, published, another cohort": "F1, *published, another cohort*",
}  # fmt: skip


def keep_reference(run: Path, reference: Path, readme: Path) -> None:
    """Replace the reference run by ``run`` and renew the part of the README that shows it.

    Raises
    ------
    InputError
        If the run is not finished, or holds real patients: their data must not be published.
    """
    if not (run / "run.json").is_file() or not (run / "index.html").is_file():
        raise InputError(f"{run}: not a finished run folder (no run.json and index.html in it)")
    if storage.read_json(run / "run.json")["data"] != "simulated":
        raise InputError(f"{run}: holds real patients; allowed as reference: simulated data only")
    fresh = reference.with_name(f".{reference.name}-new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(run, fresh, ignore=shutil.ignore_patterns("*.lock", "*.failed.ipynb"))
    shutil.rmtree(reference, ignore_errors=True)
    fresh.rename(reference)
    text = readme.read_text(encoding="utf-8")
    part = readme_part(reference, reference.relative_to(readme.parent).as_posix())
    renewed = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: part, text, flags=re.S)
    storage.write_text(readme, renewed)


def readme_part(run: Path, where: str) -> str:
    """The paper's table and its figure as Markdown; ``where`` is the run's path from the README."""
    whole = read_text_table(run / "tables" / "paper.csv")
    table = whole[list(COLUMNS)]
    info = storage.read_json(run / "run.json")
    counts = info["expected"]
    lines = [
        BEGIN,
        "",
        f"**{stamp_text(info['data'])}.** Test set of {counts['split']['test']} of "
        f"{counts['included']} simulated patients; mean ± SD over the fold models, and the fold "
        "ensemble with its 95 % interval over patients. F1 at a threshold chosen by "
        f"{whole['threshold of F1'].iloc[0]} predictions; flagging everyone has "
        f"{whole['F1 (event class) of flagging everyone'].iloc[0]}.",
        "",
        "| " + " | ".join(COLUMNS.values()) + " |",
        "| " + " | ".join("---" for _ in COLUMNS) + " |",
        *("| " + " | ".join(cell or "–" for cell in row) + " |" for row in table.to_numpy()),
        "",
        f"![SIMULATED DATA: AUC of each arm on the test set]({where}/figures/auc_forest.png)",
        "",
        END,
    ]
    return "\n".join(lines)
