"""``python -m rlvo_lib.report RUN REFERENCE``: what ``make reference`` does."""

import sys
from pathlib import Path

from rlvo_lib.config import project_root
from rlvo_lib.report.reference import keep_reference

if __name__ == "__main__":
    run, reference = (Path(argument).resolve() for argument in sys.argv[1:])
    keep_reference(run, reference, project_root() / "README.md")
