"""Import: a hospital's table (REDCap export, CSV, TSV, Excel) becomes a dataset folder.

`import_table` reads the file (`spreadsheet`), finds which column is which (`mapping`), reads
each value (`values`, `dates`, `quantities`, `identifiers`) and writes the folder (`folder`). Nothing is
guessed silently: `ledger` counts each conversion, and a value without a reading stops the import, with
all others like it, before anything is written.
"""

from rlvo_lib.intake.importing import import_table
from rlvo_lib.intake.ledger import (
    REPORT_COLUMNS,
    UnmappedError,
    problem_records,
    show_problems,
    show_report,
)
from rlvo_lib.intake.mapping import Map, read_map
from rlvo_lib.intake.spreadsheet import Sheet, read_sheet

__all__ = [
    "REPORT_COLUMNS",
    "Map",
    "Sheet",
    "UnmappedError",
    "import_table",
    "read_map",
    "read_sheet",
    "problem_records",
    "show_problems",
    "show_report",
]
