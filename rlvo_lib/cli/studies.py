"""Commands that run a study, or judge what was run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlvo_lib.cli.application import (
    Changes,
    Data,
    Profile,
    RunFolder,
    StudyName,
    app,
    complain,
    from_project,
    read_changes,
    read_settings,
)


@app.command()
def reproduce(
    data: Data = None,
    profile: Profile = "demo",
    out: RunFolder = None,
    study: StudyName = "rlvo",
    set_: Changes = None,
) -> None:
    """Run the whole study: six notebooks, tables, figures and a report to open in a browser.

    Interrupted? Run it again: what was finished is not done twice.
    """
    from rlvo_lib import notebooks

    changes = read_changes(set_, "reproduce")
    settings = read_settings(profile, study, data, out, None, changes)
    parameters = {
        "profile": profile,
        "study": study,
        "data": from_project(settings.data or ""),
        "out": from_project(settings.out),
        # a notebook's parameters have no tuples
        "overrides": {k: list(v) if isinstance(v, tuple) else v for k, v in changes.items()},
    }
    try:
        notebooks.run_all(settings, parameters)
    except notebooks.NotebookError as error:
        sys.exit(complain(str(error)))
    except KeyboardInterrupt:
        sys.exit(complain("interrupted; run the same command again to continue"))
    from rlvo_lib import report

    typer.echo(f"report: {report.write_index(settings.out)}")


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(help="A run folder, e.g. reports/latest.")],
    json: Annotated[
        Path | None, typer.Option(help="Also write all checks to this JSON file.")
    ] = None,
) -> None:
    """Recompute every reported number of a run from its files, without a GPU or the dataset.

    Exit status: 0 all agree, 1 something differs, 2 the folder is not a run.
    """
    from rlvo_lib import storage
    from rlvo_lib import verify as verification

    checks = verification.verify_run(run)
    if json:
        storage.write_json(json, checks.to_dict("records"))
    counts = checks["verdict"].value_counts()
    for check in checks[checks["verdict"] != "agree"].itertuples():
        typer.echo(f"{check.verdict}: {check.what}, {check.where}: stored {check.stored}, "
                   f"recomputed {check.recomputed}")  # fmt: skip
    typer.echo(f"{run}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    raise typer.Exit(1 if "differ" in counts else 0)
