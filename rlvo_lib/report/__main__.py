"""``python -m rlvo_lib.report reference RUN FOLDER`` and ``... summary RUN FOLDER``.

The first replaces the committed reference run (``make reference``); the second keeps the result tables
of a run of real patients, without any row of a patient (``make soop-results``).
"""

import sys
from pathlib import Path

from rlvo_lib.config import project_root
from rlvo_lib.report.reference import keep_reference
from rlvo_lib.report.summary import keep_summary

if __name__ == "__main__":
    what, *places = sys.argv[1:]
    run, folder = (Path(place).resolve() for place in places)
    if what == "reference":
        keep_reference(run, folder, project_root() / "README.md")
    elif what == "summary":
        keep_summary(run, folder)
    else:
        sys.exit(f"'{what}'; allowed: reference, summary")
