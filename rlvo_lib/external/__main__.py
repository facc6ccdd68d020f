"""``python -m rlvo_lib.external OUT FOLDER``: keep the result tables of an applied run, no row of a patient."""

import sys
from pathlib import Path

from rlvo_lib.external.summary import keep_summary

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("allowed: python -m rlvo_lib.external OUT FOLDER")
    print(keep_summary(*(Path(place).resolve() for place in sys.argv[1:])))
