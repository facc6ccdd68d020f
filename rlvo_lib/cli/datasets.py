"""Commands that make or check a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlvo_lib.cli.application import adapt_app, app
from rlvo_lib.config import SCENARIOS


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the dataset into.")],
    patients: Annotated[
        int | None,
        typer.Option(help="Number of simulated patients; left out: 599, or 20 with --grid fine."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same patients.")] = 2025,
    scenario: Annotated[
        str,
        typer.Option(
            help="What is simulated: " + "; ".join(f"{n} ({text})" for n, text in SCENARIOS.items())
        ),
    ] = "paper",
    grid: Annotated[
        str, typer.Option(help="Voxels of the scans: cohort, or fine (much more disk and time).")
    ] = "cohort",
    prevalence: Annotated[
        float | None,
        typer.Option(help="Share with the outcome, 0 to 1; left out: the scenario's."),
    ] = None,
    test: Annotated[
        int | None,
        typer.Option(help="Number of test patients; left out: the study's share, 118 of 599."),
    ] = None,
    table_only: Annotated[bool, typer.Option("--table-only", help="Write no scans.")] = False,
    cta_mm: Annotated[
        float | None,
        typer.Option(help="Edge of the CTA's voxels, 0.3 to 4 mm; left out: the grid's."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0: one a processor.")] = 0,
) -> None:
    """Write a simulated cohort (table and scans) as a dataset folder.

    Interrupted? Run it again: what was finished is not done twice.
    """
    from rlvo_lib import simulate as simulator
    from rlvo_lib.config import available_workers

    coarse = simulator.coarse_warning(grid, cta_mm)
    if coarse:
        typer.echo(f"rlvo: warning: {coarse}", err=True)
    if patients is None:
        patients = 20 if grid == "fine" and not table_only else 599
    simulator.write_dataset(
        out,
        patients=patients,
        seed=seed,
        scenario=scenario,
        grid=grid,
        prevalence=prevalence,
        test=test,
        table_only=table_only,
        cta_mm=cta_mm,
        workers=workers or available_workers(),
    )
    typer.echo(f"SIMULATED DATA: {patients} patients in {out}")


@app.command()
def validate(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder to check.")],
    study: Annotated[str, typer.Option(help="Study whose data dictionary applies.")] = "rlvo",
    json: Annotated[
        Path | None, typer.Option(help="Also write all faults to this JSON file.")
    ] = None,
    read_scans: Annotated[
        bool, typer.Option("--read-scans", help="Also read every voxel of every scan (slow).")
    ] = False,
) -> None:
    """Check a dataset folder: every fault with its patient, file or column, and what is allowed.

    The table on the screen lists at most 50 faults of a kind, errors first; --json writes all.
    Of the scans the headers are checked; --read-scans reads them whole.

    Exit status: 0 no errors (warnings may be), 1 errors, 2 the folder cannot be read.
    """
    from rlvo_lib import dictionary, storage, validation
    from rlvo_lib.config import load_study

    plan = load_study(study)
    faults = validation.validate(
        dataset, plan, dictionary.load(plan.dictionary_path), read_scans=read_scans
    )
    if json:
        storage.write_json(json, faults.to_dict("records"))
    typer.echo(validation.show(faults, str(dataset)))
    raise typer.Exit(1 if (faults["severity"] == "error").any() else 0)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="REDCap CSV export, CSV, TSV or Excel (.xlsx).")],
    out: Annotated[Path, typer.Option(help="Dataset folder to write into; scans in it stay.")],
    map_: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="Which column is which (TOML); left out: the columns have the dictionary's names.",
        ),
    ] = None,
    study: Annotated[str, typer.Option(help="Study whose data dictionary applies.")] = "rlvo",
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over a table that differs.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(help="Also write to this JSON file what could not be read, or all faults."),
    ] = None,
) -> None:
    """Make a dataset folder from a hospital's table, count every conversion, and check the result.

    docs/import.md explains the map. The report lies in DATASET/derivatives/import. A value that cannot
    be read stops the import, with its row and column; all such values are listed.

    Exit status: 0 imported, no errors; 1 imported, but what was imported has errors; 2 not imported,
    nothing was written.
    """
    from rlvo_lib import dictionary, intake, storage, validation
    from rlvo_lib.config import load_study

    plan = load_study(study)
    words = dictionary.load(plan.dictionary_path)
    try:
        report = intake.import_table(file, out, plan, words, map_path=map_, replace=replace)
    except intake.UnmappedError as error:
        if json:
            storage.write_json(json, intake.problem_records(error.problems))
        typer.echo(intake.show_problems(error.problems))
        raise
    typer.echo(intake.show_report(report, str(file)))
    faults = validation.validate(out, plan, words)
    if json:
        storage.write_json(json, faults.to_dict("records"))
    typer.echo(validation.show(faults, str(out)))
    raise typer.Exit(1 if (faults["severity"] == "error").any() else 0)


@app.command("dicom")
def dicom_(
    folder: Annotated[Path, typer.Argument(help="Folder (or archive) of DICOM files.")],
    out: Annotated[Path, typer.Option(help="Dataset folder; a table that is in it stays.")],
    patients: Annotated[
        Path | None,
        typer.Option(
            "--patients-file",
            help="Table patient_id, participant_id; left out: names are keyed hashes.",
        ),
    ] = None,
    patient: Annotated[
        str, typer.Option(help="All files are of this one participant, sub-XXXX.")
    ] = "",
    choices: Annotated[
        Path | None, typer.Option(help="Answers: undecided.csv with its last column filled in.")
    ] = None,
    private: Annotated[
        Path | None,
        typer.Option(help="What stays at the hospital; left out: DATASET_private beside it."),
    ] = None,
    study: Annotated[str, typer.Option(help="Study whose scans are written.")] = "rlvo",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List all series and what would happen; write nothing."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over scans that came from elsewhere.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0: one a processor.")] = 0,
) -> None:
    """Make the scans of a dataset folder from a hospital's DICOM files, without names and dates.

    docs/dicom.md explains what is chosen, set aside and let out. What cannot be decided is listed for a
    person. Interrupted? Run it again: what was finished is not done twice.

    Exit status: 0 all done; 1 something is undecided or was refused, and is listed; 2 not carried out.
    """
    from rlvo_lib import dicom, dictionary
    from rlvo_lib.config import available_workers, load_study

    plan = load_study(study)
    summary = dicom.convert_folder(
        folder,
        out,
        plan,
        dictionary.load(plan.dictionary_path),
        patients_path=patients,
        patient=patient,
        choices_path=choices,
        private=private,
        dry_run=dry_run,
        overwrite=replace,
        processes=workers or available_workers(),
    )
    typer.echo(dicom.show(summary, str(out)))
    raise typer.Exit(0 if summary.in_order else 1)


@adapt_app.command()
def soop(
    masks: Annotated[Path, typer.Option(help="Folder of the lesion masks in standard space.")],
    participants: Annotated[Path, typer.Option(help="participants.tsv of OpenNeuro ds004889.")],
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    atlas: Annotated[
        Path | None,
        typer.Option(
            help="ArterialAtlas136.nii.gz; left out: beside the participants, or in the masks' folder."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over a dataset that differs.")
    ] = False,
) -> None:
    """SOOP, the Stroke Outcome Optimization Project: lesion masks and a clinical table, for --study soop.

    A row without mask stays, a mask without row is not written, implausible masks are flagged and kept:
    all are listed in DATASET/derivatives/adapt/report.csv. A value that is not one of the source's stops
    the work before anything is written, and all such values are listed.

    Exit status: 0 written, 2 not written.
    """
    from rlvo_lib.adapters import soop as adapter
    from rlvo_lib.intake import show_problems

    try:
        report = adapter.adapt(masks, participants, out, atlas=atlas, replace=replace)
    except adapter.ValuesError as error:
        typer.echo(show_problems(error.problems))
        raise
    typer.echo(adapter.show(report, str(out)))


@adapt_app.command()
def isles24(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The unpacked train folder of ISLES'24.")
    ],
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    native: Annotated[
        bool,
        typer.Option(
            "--native", help="CTA and maps in their own space, not those registered to the NCCT."
        ),
    ] = False,
) -> None:
    """ISLES'24: acute CT and perfusion maps of stroke patients, for notebook 02. No rLVO outcome.

    Every file is checked and copied; follow-up images and masks are never taken. What was left out, and
    why, is listed in DATASET/derivatives/adapt/report.csv. Interrupted? Run it again.

    Exit status: 0 written, 2 not written.
    """
    from rlvo_lib.adapters import isles24 as adapter

    typer.echo(adapter.show(adapter.adapt(source, out, native=native), str(out)))
