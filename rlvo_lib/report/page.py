"""``index.html`` of a run folder and the pages it leads to: read offline, printed, linked relatively.

The paper's table comes first, then `SECTIONS` in order, then the ledger of claims, the reporting checklists
and all else. ``pages.json``, written last, holds their digests: ``run.json`` is older than the pages that show it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rlvo_lib import storage
from rlvo_lib.config import InputError, Study
from rlvo_lib.report.checklists import checklist_summary, write_checklists
from rlvo_lib.report.figure_files import read_description, read_sources
from rlvo_lib.report.ledger import LEDGER_PAGE, ledger_rows, render_ledger
from rlvo_lib.report.provenance import digests, run_study
from rlvo_lib.report.table_files import (
    LONGEST,
    cell,
    html_table,
    read_caption,
    read_text_table,
    stamp_text,
    template,
)

MAIN_TABLES, MAIN_FIGURES = ("paper",), ("auc_forest", "f1_forest")
#: The parts of the page after the paper's table: id, heading, and how the names of their figures and tables
#: begin (a whole name, or up to an underscore); the first part that fits has it.
SECTIONS = (
    ("discrimination", "Discrimination: ROC and precision-recall curves",
     ("roc", "pr", "precision_recall", "no_skill")),
    ("calibration", "Calibration", ("calibration",)),
    ("utility", "Clinical utility: decision curves", ("decision", "net_benefit", "operating")),
    ("risk", "Predicted risk by outcome", ("risk",)),
    ("comparisons", "Comparisons named in advance", ("comparisons", "comparison", "differences")),
    ("subgroups", "Subgroups", ("subgroups", "subgroup")),
    ("explanations", "What drives the predictions, and whether that can be believed",
     ("explanation", "shap", "permutation", "modality", "modulation", "region", "group_maps", "case", "concept",
      "reads", "counterfactual")),
    ("precision", "What a sample of this size can say",
     ("precision", "development_size", "feasible", "consistency", "auc_width")),
)  # fmt: skip
OPENED = ("comparisons",)  # shown without a click
#: The order in which the other tables and figures are shown, by how their names begin; then by name.
ORDER = (
    "performance", "out_of_fold", "flow", "exclusions", "split_counts", "label", "table1",
    "missingness", "predictor_screen", "ceiling",
)  # fmt: skip
WRONG_PAGE = "wrong_predictions.html"  # written by notebook 5: patients whom the model got wrong
#: What ``pages.json`` holds the digests of, as glob patterns inside the run folder.
PAGES = (
    "index.html", LEDGER_PAGE, WRONG_PAGE, "checklists/*", "notebooks/*.html", "notebooks/*.ipynb",
)  # fmt: skip
CHECKS = ("mosaic", "curves")  # figures that check the work rather than report a result
FILES = (
    "predictions.csv", "thresholds.csv", "claims.csv", "cohort.csv", "split.csv", "study.toml", "data_dictionary.csv",
    "ceiling.json", "run.json",
)  # fmt: skip


def write_index(run: str | Path, *, study: Study | None = None, data: str = "") -> Path:
    """Write ``index.html`` from what lies in the run folder, and the pages it leads to.

    These are the notebooks as HTML, the ledger (``claims.html``), the reporting checklists
    (``checklists/``) and last ``pages.json``.

    Tables come with the captions they were saved with, the paper's table first. All text is escaped.
    Study and data are those of the run (its ``study.toml`` and ``run.json``) unless given.

    Returns
    -------
    Path of ``index.html``.
    """
    run = Path(run)
    study, data = study or _study(run), data or _data(run)
    figures = [_figure(path) for path in sorted((run / "figures").glob("*.png"), key=_rank)]
    notebooks = [_notebook(path, data) for path in sorted((run / "notebooks").glob("*.ipynb"))]
    if (run / "claims.csv").exists():
        ledger = render_ledger(run, title=study.title, data=data)
        storage.write_text(run / LEDGER_PAGE, ledger)
    if (run / "run.json").exists():
        write_checklists(run)
    page = _index(run, study, data, figures, notebooks)
    storage.write_text(run / "index.html", page)
    storage.write_json(run / "pages.json", {"files": page_digests(run)})
    return run / "index.html"


def page_digests(run: str | Path) -> dict[str, str]:
    """SHA-256 of each page and notebook of a run (`PAGES`), by its path inside the folder."""
    return digests(run, PAGES)


def render_ledger_page(run: str | Path) -> str:
    """The page of the ledger, made from the run's files as they are now."""
    run = Path(run)
    return render_ledger(run, title=_study(run).title, data=_data(run))


def render_tables(run: str | Path) -> str:
    """The page without the list of notebooks, made from the run's files as they are now."""
    run = Path(run)
    figures = [_figure(path) for path in sorted((run / "figures").glob("*.png"), key=_rank)]
    return _index(run, _study(run), _data(run), figures, [])


def _index(run: Path, study: Study, data: str, figures: list[dict], notebooks: list[dict]) -> str:
    stamp = stamp_text(data)
    tables = [_table(path) for path in sorted((run / "tables").glob("*.csv"), key=_rank)]
    sections = [_section(*part, figures, tables) for part in SECTIONS]
    placed = [x["name"] for s in sections for kind in _KINDS for x in s[kind]]
    placed += [*MAIN_TABLES, *MAIN_FIGURES]
    rest = [t for t in tables if t["name"] not in placed]
    more = [f for f in figures if f["name"] not in placed]
    return template("index.html").render(
        heading=f"{stamp + ': ' if stamp else ''}{study.title}",
        data=data,
        stamp=f"{stamp}. " if stamp else "",
        title=study.title,
        question=study.question,
        citation=study.citation,
        published=bool(study.published),
        has_test=_has_test(run),
        flag_everyone=_flag_everyone(run),
        numbers=_numbers(run, study),
        main_tables=[t for name in MAIN_TABLES for t in tables if t["name"] == name],
        main_figures=[f for f in figures if f["name"] in MAIN_FIGURES],
        sections=[s for s in sections if any(s[kind] for kind in _KINDS)],
        wrong_page=WRONG_PAGE if (run / WRONG_PAGE).exists() else "",
        claims=ledger_rows(run),
        checklists=checklist_summary(run) if (run / "run.json").exists() else [],
        figures=[f for f in more if not f["name"].startswith(CHECKS)],
        checks=[f for f in more if f["name"].startswith(CHECKS)],
        other_tables=[t for t in rest if t["rows"] <= LONGEST],
        linked_tables=[t for t in rest if t["rows"] > LONGEST],
        notebooks=notebooks,
        files=[name for name in FILES if (run / name).exists()],
        provenance=_provenance(run),
    )


_KINDS = ("figures", "opened", "folded", "linked")


def _section(
    name: str, heading: str, starts: tuple[str, ...], figures: list[dict], tables: list[dict]
) -> dict[str, Any]:
    """One part of the page: its figures, and its tables, shown, folded or (long ones) linked."""

    def place(item: dict) -> int:
        return next(k for k, start in enumerate(starts) if _begins(item["name"], start))

    mine = [t for t in tables if _part(t["name"]) == name and t["name"] not in MAIN_TABLES]
    mine.sort(key=place)
    short = [t for t in mine if t["rows"] <= LONGEST]
    return {
        "id": name,
        "heading": heading,
        "figures": sorted([f for f in figures if _part(f["name"]) == name], key=place),
        "opened": [t for t in short if t["name"] in OPENED],
        "folded": [t for t in short if t["name"] not in OPENED],
        "linked": [t for t in mine if t["rows"] > LONGEST],
    }


def _part(name: str) -> str:
    """The id of the part of the page that a figure or table of this name belongs to, or nothing."""
    return next((p for p, _, starts in SECTIONS if any(_begins(name, s) for s in starts)), "")


def _begins(name: str, start: str) -> bool:
    return name == start or name.startswith(f"{start}_")


def _flag_everyone(run: Path) -> dict[str, str]:
    """The F1 of flagging everyone where the models are judged, from ``tables/no_skill.csv``."""
    path = run / "tables" / "no_skill.csv"
    if not path.exists():
        return {}
    rows = read_text_table(path)
    rows = rows[(rows["metric"] == "f1") & (rows["how"] == "flagging everyone")]
    rows = rows.sort_values("partition", key=lambda p: p != "test", kind="stable")
    if rows.empty:
        return {}
    first = rows.iloc[0]
    return {"value": cell(first["value"]), "n": first["n"], "events": first["events"]}


def _has_test(run: Path) -> bool:
    path = run / "split.csv"
    return path.exists() and "test" in set(read_text_table(path)["partition"])


def _data(run: Path) -> str:
    path = run / "run.json"
    if not path.exists():
        raise InputError(f"{run}: not a finished run folder (no run.json in it)")
    return storage.read_json(path)["data"]


def _study(run: Path) -> Study:
    if not (run / "study.toml").exists():
        raise InputError(f"{run}: not a finished run folder (no study.toml in it)")
    return run_study(run, storage.read_json(run / "run.json"))


def _rank(path: Path) -> tuple[int, str]:
    places = [k for k, start in enumerate(ORDER) if path.stem.startswith(start)]
    return (places[0] if places else len(ORDER), path.stem)


def _table(path: Path) -> dict[str, Any]:
    text, caption = read_text_table(path), read_caption(path.with_suffix(".html"))
    sentence = caption.removeprefix("SIMULATED DATA. ").split(". ")[0].rstrip(".")
    title = sentence if 0 < len(sentence) <= 90 else path.stem.replace("_", " ")
    return {"name": path.stem, "title": title, "rows": len(text), "html": html_table(text, caption)}


def _figure(path: Path) -> dict[str, Any]:
    caption, width, height = read_description(path)
    return {
        "name": path.stem, "caption": caption, "width": width // 2 * 4 // 3, "height": height // 2 * 4 // 3,
        "svg": path.with_suffix(".svg").exists(), "sources": list(read_sources(path)),
    }  # fmt: skip


def _numbers(run: Path, study: Study) -> list[dict[str, str]]:
    """The counts at the top of the page, from ``tables/split_counts.csv`` if it is there."""
    path = run / "tables" / "split_counts.csv"
    if not path.exists():
        return []
    rows = read_text_table(path)
    words = {"all": "patients", "train": "in the training part", "test": "in the test set"}
    if "test" not in set(rows["partition"]):
        del words["train"]  # all are scored out of fold
    found = []
    for partition, text in words.items():
        row = rows[(rows["partition"] == partition) & (rows["fold"] == "all")]
        if len(row):
            events = f"{text}, {row['events'].iloc[0]} with {study.outcome_label}"
            found.append({"value": row["n"].iloc[0], "text": events})
    return found


def _provenance(run: Path) -> list[tuple[str, str]]:
    path = run / "run.json"
    if not path.exists():
        return []
    content = storage.read_json(path)
    software, machine, settings = content["software"], content["machine"], content["settings"]
    packages = software["packages"]
    known = [
        f"{name} {packages[name]}"
        for name in ("torch", "monai", "scikit-learn")
        if name in packages
    ]
    return [
        ("Dataset", f"{content['dataset'].get('name', '')} ({content['data']})"),
        ("Study file", f"{content['study']['name']}, SHA-256 {content['study']['sha256'][:16]}…"),
        ("Split", f"SHA-256 {content['split'].get('sha256', 'none')[:16]}…"),
        ("Profile", str(settings.get("profile", ""))),
        (
            "Software",
            ", ".join(
                [f"rlvo-repro {software['rlvo-repro']}", f"Python {software['python']}", *known]
            ),
        ),
        ("Commit", software["commit"] or "not a checkout"),
        (
            "Machine",
            f"{machine['system']} {machine['architecture']}, {machine['processors']} processors",
        ),
        ("Finished", content["finished"]),
    ]


def _notebook(path: Path, data: str) -> dict[str, str]:
    title = render_notebook(path, data=data)
    number = re.match(r"\d+", path.stem)
    return {"name": path.stem, "title": title, "number": str(int(number.group())) if number else ""}


def render_notebook(path: str | Path, *, data: str) -> str:
    """Write an executed notebook as an HTML page beside it, stamped; returns its first heading.

    Pictures are inside the page, and nothing is loaded from the network (formulas stay as typed).
    """
    import nbformat
    from nbconvert import HTMLExporter

    path = Path(path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
        raise InputError(f"{path}: not a readable notebook ({error})") from error
    exporter = HTMLExporter(template_name="basic")
    exporter.embed_images = True
    body, _ = exporter.from_notebook_node(notebook)
    from pygments.formatters import HtmlFormatter

    colours = HtmlFormatter(style="default").get_style_defs(".notebook .highlight")
    title = _heading(notebook) or path.stem
    page = template("page.html").render(
        heading=title, data=data,
        body=f'<p class="note"><a href="../index.html">Report</a></p>\n<style>{colours}</style>\n'
        f'<div class="notebook">{body}</div>',
    )  # fmt: skip
    storage.write_text(path.with_suffix(".html"), page)
    return title


def _heading(notebook: Any) -> str:
    for item in notebook.cells:
        if item.cell_type == "markdown":
            found = re.search(r"^#\s+(.+)$", item.source, re.M)
            if found:
                return found.group(1).strip()
    return ""
