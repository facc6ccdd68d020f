"""What a run leaves to be read: tables, figures, provenance and the page that shows them.

Everything written here is a function of its arguments: the same table or figure gives the same bytes.
What comes from simulated patients says so on every table, figure and page. Nothing written holds an
absolute path or needs the network to be read.
"""

from rlvo_lib.report.ceiling_file import NO_CEILING, keep_ceiling, read_ceiling
from rlvo_lib.report.checklists import checklists, render_checklist, write_checklists
from rlvo_lib.report.evaluation import write_evaluation
from rlvo_lib.report.figure_files import read_sources, save_figure, source_digests
from rlvo_lib.report.ledger import LEDGER_PAGE
from rlvo_lib.report.page import page_digests, render_notebook, write_index
from rlvo_lib.report.page_check import ledger_differences, page_differences
from rlvo_lib.report.provenance import (
    DIGESTED,
    digests,
    expected_counts,
    run_study,
    write_provenance,
)
from rlvo_lib.report.summary import dated_checks
from rlvo_lib.report.table_files import (
    LONGEST,
    SIMULATED,
    html_table,
    read_caption,
    render_html,
    render_tex,
    save_table,
    shown_rows,
    stamp_text,
    with_data,
)

__all__ = [
    "dated_checks",
    "DIGESTED",
    "LEDGER_PAGE",
    "LONGEST",
    "NO_CEILING",
    "SIMULATED",
    "checklists",
    "digests",
    "expected_counts",
    "html_table",
    "keep_ceiling",
    "ledger_differences",
    "page_differences",
    "page_digests",
    "read_caption",
    "read_ceiling",
    "read_sources",
    "render_checklist",
    "render_html",
    "render_notebook",
    "render_tex",
    "run_study",
    "save_figure",
    "save_table",
    "shown_rows",
    "source_digests",
    "stamp_text",
    "with_data",
    "write_checklists",
    "write_evaluation",
    "write_index",
    "write_provenance",
]
