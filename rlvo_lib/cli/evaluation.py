"""The command that judges anyone's predictions: a CSV from any software, and no data of this package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlvo_lib.cli.application import app
from rlvo_lib.config import InputError

if TYPE_CHECKING:
    import pandas as pd

    from rlvo_lib.results.evaluation import Scored

SHOWN_PAIRS = 10


@app.command()
def evaluate(
    csv: Annotated[
        Path,
        typer.Argument(
            help="A table with a row a patient, an outcome and one or more scores: CSV with comma, semicolon "
            "or tab."
        ),
    ],
    truth: Annotated[str, typer.Option(help="Column of the outcome.")] = "y_true",
    score: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a score, higher meaning more likely an event; repeat for several. Left out: every "
            "column of probabilities."
        ),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option(help="The outcome that is the event, if not 1 or True: --event yes."),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X|COL=X",
            help="Threshold chosen on other patients, of all scores or of one; repeat for several. Left out: that "
            "of maximal F1 on these same patients, which is optimistic.",
        ),
    ] = None,
    id_: Annotated[
        str,
        typer.Option("--id", help="Column that tells patients apart; left out: the usual names."),
    ] = "",
    by: Annotated[
        list[str] | None, typer.Option(help="Column of subgroups; repeat for several.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables (CSV), figures and index.html.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="JSON file for all tables.")] = None,
    resamples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Bootstrap resamples; left out: 2000, fewer of a very large table."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same resamples.")] = 2025,
    data: Annotated[
        str | None,
        typer.Option(help="real or simulated; left out: what a column 'data' says, else real."),
    ] = None,
) -> None:
    """The whole statistics for anyone's predictions: AUC, F1, calibration, net benefit, comparisons.

    A summary is shown; --out and --json have everything. Nothing is sent anywhere.

    Exit status: 0 done, 2 the table cannot be judged.
    """
    from rlvo_lib.results import evaluation

    frame, notes = _read(csv, truth, score, id_, by or [])
    kind, said = _data_of(frame, data)
    scored, coded = evaluation.scored_columns(
        frame, truth, score, event=event, leave=[id_, "data", *(by or [])]
    )
    scored = _with_thresholds(scored, threshold or [])
    drawn, fewer = evaluation.resamples_for(len(frame), len(scored), resamples)
    chosen = (
        ""
        if score
        else f"scores: {', '.join(s.name for s in scored)} (every column of probabilities)"
    )
    notes += [note for note in (coded, said, chosen, fewer) if note] + _left_out(scored)
    tables = evaluation.evaluation_tables(
        scored, frame, by=by or [], resamples=drawn, seed=seed, data=kind
    )
    _show(csv, kind, notes, scored, tables)
    if json:
        _write_json(json, csv, truth, notes, tables, resamples=drawn, seed=seed)
        typer.echo(f"all {len(tables)} tables: {json}")
    if out:
        typer.echo(
            f"tables, figures and page: {_write_folder(out, csv, notes, scored, tables, kind)}"
        )
    if not out and not json:
        typer.echo(f"all {len(tables)} tables: --json FILE; with figures and a page: --out FOLDER")


def _read(
    csv: Path, truth: str, score: list[str] | None, id_: str, by: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The table with its scores as numbers, and what is to be said of the reading."""
    from rlvo_lib.intake.scores import read_scores, with_numbers
    from rlvo_lib.results import evaluation

    table = read_scores(csv, truth=truth)
    patients = evaluation.check_patients(table.frame, id_)
    table = with_numbers(table, score, leave=[truth, id_, "data", *by])
    return table.frame, [*table.notes, patients]


def _data_of(frame: pd.DataFrame, asked: str | None) -> tuple[str, str]:
    """``real`` or ``simulated``, and a note if the table says so itself."""
    allowed = ("real", "simulated")
    if asked is not None and asked not in allowed:
        raise InputError(f"--data {asked}: allowed: {' or '.join(allowed)}")
    told = set(frame["data"].dropna()) & set(allowed) if "data" in frame else set()
    if len(told) > 1:
        raise InputError("column 'data' holds real and simulated; allowed: patients of one kind")
    if asked and told and asked not in told:
        raise InputError(f"--data {asked}: column 'data' of the table says {told.pop()}")
    if told and not asked:
        kind = told.pop()
        return kind, f"the patients are {kind}: column 'data' says so"
    return asked or "real", ""


def _with_thresholds(scored: list[Scored], texts: list[str]) -> list[Scored]:
    """The scores with the thresholds of ``X`` (all scores) and ``COL=X``."""
    import dataclasses
    import math

    found: dict[str, float] = {}
    names = [score.name for score in scored]
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            cut = float(value)
        except ValueError:
            cut = math.nan
        if not math.isfinite(cut):
            raise InputError(f"--threshold {text}: allowed: a number, or COLUMN=NUMBER")
        if equals and name.strip() not in names:
            raise InputError(f"--threshold {text}: allowed: one of the scores {', '.join(names)}")
        for chosen in [name.strip()] if equals else names:
            if chosen in found:
                raise InputError(
                    f"--threshold {text}: score '{chosen}' has another threshold already"
                )
            found[chosen] = cut
    return [dataclasses.replace(score, threshold=found.get(score.name)) for score in scored]


def _left_out(scored: list[Scored]) -> list[str]:
    """Rows that cannot be used, by why; scores that are no probabilities; scores given twice."""
    import numpy as np

    notes = []
    if scored[0].without_outcome:
        notes.append(f"rows without an outcome, left out: {scored[0].without_outcome}")
    for score in scored:
        if score.without_score:
            notes.append(f"rows without '{score.name}', left out of it: {score.without_score}")
        if score.reason:
            notes.append(f"'{score.name}': {score.reason}")
        if np.ptp(score.s) == 0:
            notes.append(f"'{score.name}' has the same value for everyone")
    return notes


def _show(
    csv: Path, kind: str, notes: list[str], scored: list[Scored], tables: dict[str, pd.DataFrame]
) -> None:
    """The summary, within 100 columns."""
    typer.echo(f"{'SIMULATED DATA: ' if kind == 'simulated' else ''}{csv.name}")
    for note in notes:
        typer.echo(f"  {note}")
    rows = tables["evaluation"].set_index(["score", "metric"])
    widths = tables["precision"].query("patients == 'here'").set_index("score")["width"]
    for score in scored:
        _show_score(score, rows.loc[score.name], widths[score.name])
    strata = tables.get("subgroups", rows.iloc[:0])
    if len(strata):
        typer.echo("\nSubgroups, AUC [95 % CI, DeLong]")
    for row in strata.itertuples():
        estimate = _interval(row.auc, row.low, row.high)
        estimate = row.reason if estimate == "-" else f"AUC {estimate}"
        typer.echo(
            f"  {row.score}, {row.subgroup} {row.stratum}: n {row.n}, events {row.events}, {estimate}"
            + (
                ""
                if row.p_interaction != row.p_interaction
                else f", interaction p {_p(row.p_interaction)}"
            )
        )
    pairs = tables.get("comparisons", rows.iloc[:0])
    if len(pairs):
        typer.echo("\nDifference in AUC on the same patients, DeLong [95 % CI]")
    for row in pairs.head(SHOWN_PAIRS).itertuples():
        typer.echo(
            f"  {row.a} - {row.b}: {_interval(row.difference, row.low, row.high)}, p {_p(row.p)}, "
            f"Holm {_p(row.p_holm)}" + (f" ({row.reason})" if row.reason else "")
        )
    if len(pairs) > SHOWN_PAIRS:
        typer.echo(f"  and {len(pairs) - SHOWN_PAIRS} more pairs, in the tables")
    typer.echo("")


def _show_score(score: Scored, rows: pd.DataFrame, width: float) -> None:
    counts = score.counts()
    typer.echo(
        f"\n{score.name}: n {counts['n']}, events {counts['events']} "
        f"({100 * counts['events'] / counts['n']:.1f} %)"
    )

    def line(words: str, metric: str, beside: str) -> None:
        row = rows.loc[metric]
        estimate = _interval(row["value"], row["low"], row["high"])
        typer.echo(f"  {words:<25}{estimate:<25}{row['reason'] or beside}")

    expected = f"; expected width at this n {width:.2f}" if width == width else ""
    line("AUC [95 % CI, DeLong]", "auc", f"no skill 0.5{expected}")
    prevalence = rows.loc["average precision of no skill", "value"]
    line("average precision", "average precision", f"no skill (prevalence) {prevalence:.3f}")
    everyone, coin = (rows.loc[f"f1 of {k}", "value"] for k in ("flagging everyone", "a coin"))
    line(
        f"F1, score >= {rows.loc['threshold', 'value']:.4g}", "f1 (event class)",
        f"flagging everyone {everyone:.3f}, a coin {coin:.3f}",
    )  # fmt: skip
    typer.echo(f"{'':27}{rows.loc['threshold', 'method']}")
    if score.probability:
        line("calibration slope", "calibration slope", "perfect 1")
        line("observed / expected", "observed / expected", "perfect 1")
        line("scaled Brier score", "scaled brier", "no skill 0")


def _interval(value: float, low: float, high: float) -> str:
    """
    >>> _interval(0.7, 0.5491, 0.851), _interval(0.7, float("nan"), float("nan"))
    ('0.700 [0.549, 0.851]', '0.700')
    """
    if value != value:
        return "-"
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low == low else "")


def _p(value: float) -> str:
    if value != value:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _write_json(
    path: Path, csv: Path, truth: str, notes: list[str], tables: dict[str, pd.DataFrame], **how: int
) -> None:
    from rlvo_lib import storage

    content = {"file": csv.name, "truth": truth, "notes": notes, **how}
    storage.write_json(
        path, content | {name: table.to_dict("records") for name, table in tables.items()}
    )


def _write_folder(
    out: Path,
    csv: Path,
    notes: list[str],
    scored: list[Scored],
    tables: dict[str, pd.DataFrame],
    kind: str,
) -> Path:
    from rlvo_lib import report
    from rlvo_lib.results import evaluation

    return report.write_evaluation(
        out, tables, evaluation.patient_risks(scored), captions=evaluation.CAPTIONS,
        heading=f"Evaluation of {csv.name}", notes=notes, data=kind,
    )  # fmt: skip
