"""The command that explains the prediction of one patient of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvo_lib.cli.application import CacheFolder, app


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A finished run folder, e.g. reports/latest.")],
    participant: Annotated[str, typer.Option(help="A patient of the run, e.g. sub-0042.")],
    arm: Annotated[
        str, typer.Option(help="A network of the run; left out: the arm that the study explains.")
    ] = "",
    method: Annotated[
        str,
        typer.Option(
            help="How the map over the scan is made, e.g. occlusion; left out: one that failed no check."
        ),
    ] = "",
    development: Annotated[
        Path | None,
        typer.Option(help="The run's own dataset folder; left out: a run of the embedded cohort."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file; left out: a folder beside the run, -cases."),
    ] = None,
    cache: CacheFolder = None,
) -> None:
    """Explain one patient's prediction on one page: probability, what moved it, and the caveats.

    All from the run's stored models; no network of images is trained. The page is one file that opens offline. It is
    about one patient: it lies beside the run, not in it.

    Exit status: 0 written; 2 not carried out, with the reason.
    """
    from rlvo_lib import casebook
    from rlvo_lib.config import load_settings

    place = load_settings(cache=cache.resolve() if cache else "").cache
    written = casebook.write_case(
        run.resolve(),
        participant,
        cache=place,
        arm=arm,
        method=method,
        development=development.resolve() if development else None,
        out=out.resolve() if out else None,
    )
    typer.echo(f"page: {written}")
