"""Recomputes every reported number of a run folder from its small files.

The pages are checked too: ``index.html`` shows the numbers of these files, and notebooks and pages are
those that ``pages.json`` recorded. A figure is checked by the files it was drawn from. `BUILDERS` maps each table to the function that makes it. Text and
whole numbers must be the same, other numbers within 1e-9 of their size. Nothing here needs torch, the
scans or a GPU.
"""

from rlvo_lib.verify.cells import ABSENT, AGREE, DIFFER, NEEDS_DATASET, compare
from rlvo_lib.verify.checks import COLUMNS, verify_run
from rlvo_lib.verify.run import BUILDERS, NEEDS, Run

__all__ = [
    "ABSENT", "AGREE", "BUILDERS", "COLUMNS", "DIFFER", "NEEDS", "NEEDS_DATASET", "Run", "compare", "verify_run",
]  # fmt: skip
