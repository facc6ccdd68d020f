"""Commands whose work several machines can share: train, merge, ablate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlvo_lib.cli.application import (
    CacheFolder,
    Changes,
    Data,
    Profile,
    RunFolder,
    ShardText,
    StudyName,
    app,
    read_changes,
    read_names,
    read_settings,
    read_shard,
)
from rlvo_lib.config import InputError

if TYPE_CHECKING:
    import pandas as pd

    from rlvo_lib.config import Study
    from rlvo_lib.experiment import Task


@app.command()
def train(
    data: Data = None,
    profile: Profile = "demo",
    study: StudyName = "rlvo",
    set_: Changes = None,
    arms: Annotated[
        str, typer.Option(help="Names between commas; left out: all arms that run.")
    ] = "",
    shard: ShardText = "1/1",
    cache: CacheFolder = None,
    out: RunFolder = None,
) -> None:
    """Train the models only, all or a shard of them, so that several machines can share a run.

    Each machine needs the same data, settings and version of this package; it trains its shard into its
    own cache. Then: rlvo merge, and rlvo reproduce finds all of it. Interrupted? Run it again: what was
    finished is not done twice.
    """
    part = read_shard(shard)
    names = read_names(arms, "--arms") if arms else None
    settings = read_settings(profile, study, data, out, cache, read_changes(set_, "train"))
    from rlvo_lib import experiment
    from rlvo_lib.analysis import open_analysis
    from rlvo_lib.experiment import running

    analysis = open_analysis(settings)
    tensors = analysis.tensors()
    tasks = running.plan_arms(analysis, tensors, names)
    _show_plan(tasks, shard)
    ran = experiment.run_tasks(analysis, tensors, tasks, part)
    after = "rlvo reproduce with the same options"
    after += f", and RLVO_CACHE={settings.cache}" if cache else ""
    if _show_progress(tasks, ran, settings.cache, after):
        typer.echo(f"all is done; next: {after}")


def _show_plan(tasks: list[Task], shard: str) -> None:
    """Say what will be run, with a key by which machines see at once whether they agree."""
    from rlvo_lib import storage

    key = storage.key([task.folder.name for task in tasks])
    typer.echo(f"{len(tasks)} tasks, shard {shard}; plan {key}, the same on every machine")


def _show_progress(tasks: list[Task], ran: int, cache: Path, after: str) -> bool:
    """Say what was run, what is done and what is left, and how to go on; whether all is done."""
    from rlvo_lib.experiment import running

    left = running.unfinished(tasks)
    finished = f"{len(tasks) - len(left)} of {len(tasks)} tasks are finished"
    typer.echo(f"{ran} run now, readers counted; {finished} in {cache / 'tasks'}")
    if not left:
        return True
    typer.echo("left: " + ", ".join(dict.fromkeys(task.what.name for task in left)))
    typer.echo(
        "next: run the other shards; copy the folders of their tasks (each machine's cache, at least "
        f"its folder tasks) to this machine; rlvo merge FOLDER...; then: {after}"
    )
    return False


@app.command()
def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Caches of other machines, or their tasks folders."
        ),
    ],
    cache: CacheFolder = None,
) -> None:
    """Take the finished tasks of other caches into this one; nothing finished is ever overwritten.

    A task that is finished here and there with other content (the same key, but another processor or a
    file that was changed) is named, and nothing is copied.

    Exit status: 0 merged, 2 not merged.
    """
    from rlvo_lib.config import load_settings
    from rlvo_lib.experiment import merging

    place = load_settings(cache=cache.resolve() if cache else "").cache
    done = merging.merge([folder.resolve() for folder in folders], place)
    typer.echo(
        f"{place / 'tasks'}: {done.copied} tasks copied, {done.there} were there already, "
        f"{done.unfinished} unfinished left out"
    )


@app.command()
def ablate(
    data: Data = None,
    profile: Profile = "demo",
    study: StudyName = "rlvo",
    set_: Changes = None,
    groups: Annotated[
        str,
        typer.Option(
            help="Of modalities, fusion, location, resolution, patients; left out: all that apply."
        ),
    ] = "",
    arm: Annotated[str, typer.Option(help="The arm to vary; left out: the study's.")] = "",
    beside: Annotated[
        str, typer.Option(help="Arms with learning curves beside it; left out: two of the study's.")
    ] = "",
    shares: Annotated[
        str,
        typer.Option(
            help="Of the training patients, e.g. 0.2,0.35,0.5; left out: 0.25,0.5,0.75. The whole is added."
        ),
    ] = "",
    targets: Annotated[
        str,
        typer.Option(
            help="Patients of cohorts to extrapolate to; left out: 300,618,1500,5000.",
        ),
    ] = "",
    shard: ShardText = "1/1",
    cache: CacheFolder = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The CSV file to write; left out: ablations/ablations.csv in the run folder."
        ),
    ] = None,
) -> None:
    """Vary one arm in one respect at a time, and score each variant out of fold; never on the test set.

    Writes a table (AUC of each variant, and its paired difference to the unchanged arm) and, beside it,
    figures of the learning curve and of the variants; of learning curves with at least four sizes also
    learning_curve.csv (points), extrapolation.csv (other numbers of patients) and learning_bands.csv (what
    their figure is drawn from). Shards as with rlvo train.

    Exit status: 0 the table is written, or the shard is done; 2 not carried out.
    """
    part = read_shard(shard)
    asked = read_names(groups, "--groups") if groups else None
    others = read_names(beside, "--beside") if beside else None
    parts = read_numbers(shares, "--shares") if shares else None
    sizes = read_numbers(targets, "--targets") if targets else None
    settings = read_settings(profile, study, data, None, cache, read_changes(set_, "ablate"))
    out = out.resolve() if out else settings.out / "ablations" / "ablations.csv"
    from rlvo_lib import ablation, storage
    from rlvo_lib.analysis import open_analysis

    plan = (
        str(settings.data),
        settings.study.validation,
        settings.seed,
        settings.outcome_definition,
    )
    # a split of its own: that of the run folder may be frozen under another plan
    settings = dataclasses.replace(
        settings, out=settings.cache / "ablations" / storage.key(settings.study.name, *plan)
    )
    analysis = open_analysis(settings)
    variants = ablation.grid(analysis, asked, arm=arm, beside=others, shares=parts)
    planned = ablation.plan(analysis, variants)
    every = [task for one in planned for task in one.tasks]
    tasks = list({task.folder: task for task in every}.values())
    _show_plan(tasks, shard)
    ran = ablation.train(planned, part)
    after = "rlvo ablate with the same options, without --shard"
    if not _show_progress(tasks, ran, settings.cache, after):
        return
    table = ablation.table(planned)
    labels = {name: one.label for name, one in settings.study.arms.items()}
    storage.write_csv(out, table)
    _draw(table, out.parent, labels)
    typer.echo(f"{table['data'].iloc[0]} data: {len(table)} rows in {out}")
    if "patients" in set(table.loc[table["auc"].notna(), "group"]):
        _extrapolate(ablation.predictions(planned), settings.study, table, out.parent, sizes)


def _draw(table: pd.DataFrame, folder: Path, labels: dict[str, str]) -> None:
    """The figures of an ablation table, into ``figures/`` beside it."""
    from rlvo_lib import figures, report

    caption = "AUC of pooled out-of-fold predictions, with 95 % intervals over patients"
    data, groups = table["data"].iloc[0], set(table.loc[table["auc"].notna(), "group"])
    drawn = {}
    if "patients" in groups:
        drawn["learning_curve"] = figures.learning_curve(table, labels=labels)
    if groups - {"base", "patients"}:
        drawn["ablation_forest"] = figures.ablation_forest(table, labels=labels)
    for name, figure in drawn.items():
        report.save_figure(folder, name, figure, data=data, caption=caption)


def _extrapolate(
    predictions: pd.DataFrame,
    study: Study,
    table: pd.DataFrame,
    folder: Path,
    targets: list[float] | None,
) -> None:
    """The learning curves' points, what more patients would bring, and the figure of both."""
    import pandas as pd

    from rlvo_lib import figures, report, results, storage
    from rlvo_lib.results.growth import CAPTION, TARGETS

    data, first = table["data"].iloc[0], table["arm"].iloc[0]
    points = results.learning_points(predictions, data=data)
    storage.write_csv(folder / "learning_curve.csv", points)
    sizes = points.groupby("arm", sort=False)["n_train"].nunique()
    for arm, count in sizes[sizes < results.LEAST_SIZES].items():
        needed = f"needed: at least {results.LEAST_SIZES} (--shares)"
        typer.echo(f"no extrapolation of {arm}: {count} sizes; {needed}")
    arms = list(sizes.index[sizes >= results.LEAST_SIZES])
    if not arms:
        return
    options = {
        "folds": int(study.validation["folds"]),
        "data": data,
        "arms": arms,
        "pairs": results.learning_pairs(study, arms, first),
        "targets": targets or TARGETS,
    }
    found = pd.concat(
        [results.extrapolation(predictions, within_folds=w, **options) for w in (False, True)],
        ignore_index=True,
    )
    bands = results.learning_bands(predictions, **options)
    storage.write_csv(folder / "extrapolation.csv", found)
    shown = results.extrapolation_side_by_side(found)
    storage.write_csv(folder / "extrapolation_side_by_side.csv", shown)
    storage.write_csv(folder / "learning_bands.csv", bands)
    labels = {name: arm.label for name, arm in study.arms.items()}
    figure = figures.learning_curve_extrapolated(points, bands, labels=labels)
    report.save_figure(folder, "learning_curve_extrapolated", figure, data=data, caption=CAPTION)
    typer.echo(f"{data} data: {len(found)} extrapolated values in {folder / 'extrapolation.csv'}")


def read_numbers(text: str, option: str) -> list[float]:
    """Numbers between commas; an `InputError` where one is none.

    >>> read_numbers("0.2, 0.5", "--shares")
    [0.2, 0.5]
    """
    try:
        return [float(name) for name in read_names(text, option)]
    except ValueError:
        raise InputError(f"{option} {text!r}: allowed: numbers between commas") from None
