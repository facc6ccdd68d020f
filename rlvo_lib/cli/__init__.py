"""The ``rlvo`` command. Nothing heavy is imported before a command needs it.

Exit status: 0 done and in order; 1 faults or differences were found; 2 the command could not be
carried out, with one line on the error stream that says why.

`application` what all commands share, `datasets` those that make or check a dataset, `studies` those that
run a study or judge a run, `external` the one that applies a run to other patients, `explaining` the one
that explains one patient's prediction, `evaluation` the one that judges anyone's predictions, `sharing`
those whose work several machines share.
"""

from __future__ import annotations

import errno
import io
import sys

from rlvo_lib.cli import (  # noqa: F401  (they register their commands)
    datasets,
    evaluation,
    explaining,
    external,
    sharing,
    studies,
)
from rlvo_lib.cli.application import app, complain
from rlvo_lib.config import InputError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command; a fault of the input becomes one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a screen that lacks a letter shows ? in its place
            stream.reconfigure(errors="replace")
    try:
        app()
    except InputError as error:
        sys.exit(complain(str(error)))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(complain("the disk is full; free some space and run again"))
        sys.exit(complain(f"{error.filename or 'a file'}: {error.strerror or error}"))
