"""The command that applies a frozen run to another dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvo_lib.cli.application import CacheFolder, app, read_names


@app.command()
def apply(
    run: Annotated[Path, typer.Argument(help="A finished run folder, e.g. reports/latest.")],
    data: Annotated[Path, typer.Option(help="The other dataset folder, in the same format.")],
    development: Annotated[
        Path | None,
        typer.Option(help="The run's own dataset folder; left out: a run of the embedded cohort."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the result; left out: reports/, the dataset's name, -external."
        ),
    ] = None,
    arms: Annotated[
        str, typer.Option(help="Names between commas; left out: all arms of the run.")
    ] = "",
    recalibrate: Annotated[
        bool,
        typer.Option(
            "--recalibrate",
            help="Also recalibrate in the large on the new patients: a shift, the ranks stay.",
        ),
    ] = False,
    cache: CacheFolder = None,
) -> None:
    """Apply a frozen run to another dataset: external validation, nothing fitted on the new patients.

    The same tables as the run's own, in a run folder that rlvo verify checks. The run's own patients are
    scored in the same pass and must come out as reported.

    Exit status: 0 written; 2 not carried out, with the reason.
    """
    from rlvo_lib import external, storage
    from rlvo_lib.config import load_settings, project_root

    place = load_settings(cache=cache.resolve() if cache else "").cache
    target = out or project_root() / "reports" / f"{data.resolve().name}-external"
    written = external.apply_run(
        run.resolve(),
        data.resolve(),
        out=target.resolve(),
        cache=place,
        development=development.resolve() if development else None,
        arms=read_names(arms, "--arms") if arms else None,
        recalibrate=recalibrate,
    )
    _say(written, storage.read_json(written / "run.json"))


def _say(written: Path, info: dict) -> None:
    """The patients, the proof, and where to look."""
    applied = info["applied"]
    stamp = "SIMULATED DATA: " if info["data"] == "simulated" else ""
    typer.echo(
        f"{stamp}run {applied['run']} applied to {applied['patients']} patients "
        f"({applied['also_in_training']} more are also in its training part and were left out)"
    )
    typer.echo(
        f"frozen: {applied['reproduced_predictions']} of its own predictions made again, largest "
        f"difference {applied['largest_difference']:.1g}"
    )
    if applied["not_judged"]:
        typer.echo(f"no performance: {applied['not_judged']}")
    typer.echo(f"report: {written / 'index.html'}")
