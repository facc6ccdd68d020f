"""``python -m rlvo_lib.report reference RUN FOLDER``, ``... summary RUN FOLDER``, ``... page PAGE``.

The first replaces the committed reference run (``make reference``); the second keeps the result tables
of a run of real patients, without any row of a patient; the third writes the tables that a page of the
docs names into it (``make soop-results``, ``make simulation-checks``).
"""

import sys
from pathlib import Path

from rlvo_lib.config import project_root
from rlvo_lib.report.reference import keep_reference
from rlvo_lib.report.summary import fill_page, keep_summary

if __name__ == "__main__":
    what, *places = sys.argv[1:]
    paths = [Path(place).resolve() for place in places]
    if what == "reference":
        keep_reference(*paths, project_root() / "README.md")
    elif what == "summary":
        keep_summary(*paths)
    elif what == "page":
        fill_page(*paths)
    else:
        sys.exit(f"'{what}'; allowed: reference, summary, page")
