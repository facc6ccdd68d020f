"""The folder of `rlvo evaluate`: tables, figures and one page, to open in a browser without the network."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from rlvo_lib import figures, storage
from rlvo_lib.report.figure_files import read_description, save_figure
from rlvo_lib.report.table_files import (
    LONGEST,
    html_table,
    read_caption,
    read_text_table,
    save_table,
    stamp_text,
    template,
)

Tables = Mapping[str, pd.DataFrame]
MOST_CURVES = 8  # as many can be told apart
MOST_DOTS = 3000  # patients times scores; of more a dot for each cannot be told apart
OUTCOMES = ("without the event", "with the event")
#: Figure -> the tables that it is drawn from, beside every patient's risk.
SOURCES = {
    "roc": ("roc_points", "roc_band", "evaluation"),
    "precision_recall": ("pr_points", "pr_band", "evaluation"),
    "calibration": ("calibration", "calibration_points", "calibration_curve"),
    "decision_curve": ("decision_curve",),
    "risk_by_outcome": (),
}
#: The first table of the page holds these rows of ``evaluation``.
FIRST = (
    "auc", "average precision", "average precision of no skill", "f1 (event class)", "f1 of flagging everyone",
    "calibration slope", "observed / expected", "ici", "scaled brier",
)  # fmt: skip


def write_evaluation(
    out: str | Path,
    tables: Tables,
    risk: pd.DataFrame,
    *,
    captions: Mapping[str, str],
    heading: str,
    notes: Sequence[str],
    data: str,
) -> Path:
    """Write ``tables/``, ``figures/`` and ``index.html`` into ``out``; files of those names are replaced.

    Parameters
    ----------
    tables : of `rlvo_lib.results.evaluation_tables`, with a column ``score``.
    risk : score, y_true, probability of every patient, of the scores that are probabilities.
    captions : of the tables, by name.
    notes : how the predictions were read, and what was left out.

    Returns
    -------
    Path of ``index.html``.
    """
    out = Path(out)
    for name, table in tables.items():
        save_table(out, name, table, data=data, caption=captions[name])
    notes = [*notes, *_not_drawn(tables, risk)]
    parts = [f"<h1>{html.escape(heading)}</h1>", _list(notes), _summary(out, data)]
    for name, figure, caption in _drawn(tables, risk):
        sources = [source for source in SOURCES[name] if source in tables]
        png = save_figure(out, name, figure, data=data, caption=caption, sources=sources)
        parts.append(_figure(png))
    parts.append('<h2 id="tables">All tables</h2>')
    parts += [_table(out / "tables" / f"{name}.csv") for name in tables]
    stamp = stamp_text(data)
    page = template("page.html").render(
        heading=f"{stamp + ': ' if stamp else ''}{heading}", data=data, body="\n".join(parts)
    )
    storage.write_text(out / "index.html", page)
    return out / "index.html"


def _drawn(tables: Tables, risk: pd.DataFrame) -> Iterator[tuple[str, figures.Figure, str]]:
    """Name, figure and caption of each figure."""
    parts = {name: _of_arms(table) for name, table in tables.items()}
    found = tables["evaluation"].assign(metric=lambda t: t["metric"].str.replace(" ", "_"))
    found = _of_arms(found).rename(columns={"value": "ensemble"})
    area = {"band": parts["roc_band"], "performance": found}
    yield (
        "roc", figures.roc_curves(parts["roc_points"], **area),
        "ROC curves with pointwise 95 % bands over patients (stratified bootstrap); AUC with DeLong's interval",
    )  # fmt: skip
    area["band"] = parts["pr_band"]
    yield (
        "precision_recall", figures.precision_recall_curves(parts["pr_points"], **area),
        "Precision-recall curves with pointwise 95 % bands; the dotted line, the prevalence, is no skill",
    )  # fmt: skip
    if risk.empty:
        return
    yield (
        "calibration",
        figures.calibration_plot(
            parts["calibration_points"], curve=parts.get("calibration_curve"), risk=_of_arms(risk),
            calibration=parts["calibration"], outcome_names=OUTCOMES,
        ),
        f"Calibration, smoothed ({_smoother(tables)}) and in groups of equal size, above the distribution of "
        "the predictions",
    )  # fmt: skip
    yield (
        "decision_curve", figures.decision_curves(parts["decision_curve"]),
        "Net benefit at threshold probabilities of 5 to 40 %, beside treating everyone and nobody",
    )  # fmt: skip
    if len(risk) <= MOST_DOTS:
        figure = figures.risk_by_outcome(_of_arms(risk), outcome_names=OUTCOMES)
        figure.axes[0].set_xlabel("Predicted probability")
        yield "risk_by_outcome", figure, "Every patient's predicted probability, by outcome"


def _not_drawn(tables: Tables, risk: pd.DataFrame) -> list[str]:
    """What the figures leave out."""
    found = []
    if tables["evaluation"]["score"].nunique() > MOST_CURVES:
        found.append(
            f"figures show the first {MOST_CURVES} scores at most, calibration the first six"
        )
    if len(risk) > MOST_DOTS:
        found.append("too many patients for a figure with a dot for each")
    return found


def _of_arms(table: pd.DataFrame) -> pd.DataFrame:
    """A table of scores as figures take it."""
    return table.rename(columns={"score": "arm"}).assign(seed=0)


def _smoother(tables: Tables) -> str:
    names = tables["calibration"]["smoother"].dropna().unique()
    return " / ".join(names)


def _list(notes: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>"


def _summary(out: Path, data: str) -> str:
    """The rows that are read first, a score after the other."""
    text = read_text_table(out / "tables" / "evaluation.csv")
    stamp = f"{stamp_text(data)}. " * bool(stamp_text(data))
    text = text[text["metric"].isin(FIRST)].drop(columns=["missing"])
    caption = f"{stamp}What to read first, with 95 % intervals over patients and lines of no skill"
    return f'<div class="scroll">{html_table(text, caption)}</div>'


def _figure(png: Path) -> str:
    caption, width, height = read_description(png)
    text = html.escape(caption)
    size = f'width="{width // 2 * 4 // 3}" height="{height // 2 * 4 // 3}"'
    return (
        f'<figure><img src="figures/{png.name}" alt="{text}" {size} loading="lazy">'
        f'<figcaption>{text} <a href="figures/{png.name}">PNG</a> · '
        f'<a href="figures/{png.stem}.svg">SVG</a></figcaption></figure>'
    )


def _table(path: Path) -> str:
    """A table, folded; of a long one, a link."""
    text, caption = read_text_table(path), read_caption(path.with_suffix(".html"))
    name = html.escape(path.stem.replace("_", " "))
    link = f'<a href="tables/{path.name}">CSV</a>'
    if len(text) > LONGEST:
        return f"<p>{name}: {html.escape(caption)} ({len(text)} rows, {link})</p>"
    body = f'<div class="scroll">{html_table(text, caption)}</div><p class="note">{link}</p>'
    return f"<details><summary>{name}</summary>{body}</details>"
