"""The checks of a run: files, predictions, thresholds, tables and claims."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from rlvo_lib import cohort, report, results, storage
from rlvo_lib.report.prose_check import prose_differences
from rlvo_lib.report.table_files import read_text_table, render_html
from rlvo_lib.verify.cells import DIFFER, NEEDS_DATASET, attempt, compare, contents, row
from rlvo_lib.verify.membership import membership
from rlvo_lib.verify.pages import checklists, figure_sources, maps, pages
from rlvo_lib.verify.run import BUILDERS, NEEDS, Run

COLUMNS = ["what", "where", "stored", "recomputed", "verdict"]


def verify_run(run_dir: str | Path) -> pd.DataFrame:
    """Check a run folder: files, predictions, thresholds, tables, claims, figures, checklists and pages.

    Returns
    -------
    DataFrame with what, where (file, row and column), stored, recomputed, verdict: ``agree``,
    ``differ``, ``needs dataset`` (not made from the run's files, so not checked) or ``absent`` (the
    run was made without its page).

    Raises
    ------
    InputError
        If the folder is not a finished run.
    """
    run = Run(Path(run_dir))
    rows = [*_files(run), *_predictions(run), *_thresholds(run), *_tables(run), *_claims(run)]
    wrong = {
        row[1].split(": ")[0] for row in rows if row[-1] == DIFFER and row[0] != "file content"
    }
    rows += [*figure_sources(run, wrong), *maps(run), *checklists(run), *pages(run)]
    return pd.DataFrame(rows, columns=COLUMNS)


# ------------------------------------------------------------------------- files and predictions


def _files(run: Run) -> list[tuple]:
    """The content of every small file against the digests that the run recorded."""
    rows = contents(run.info.get("files", {}), report.digests(run.root))
    if (run.root / "split.json").exists():
        rows += attempt("frozen split", "split.json", lambda: _frozen(run.root))
        rows += attempt("kind of data", "split.json", lambda: _kind(run))
    expected, counted = run.info.get("expected", {}), report.expected_counts(run.root)
    for name in sorted(set(expected) | set(counted)):
        before, after = expected.get(name, "not recorded"), counted.get(name, "missing")
        if isinstance(before, dict) and isinstance(after, dict):
            changed = [k for k in {**before, **after} if before.get(k) != after.get(k)]
            for k in changed:
                rows.append(
                    row(
                        "number of patients",
                        f"{name}: {k}",
                        before.get(k, 0),
                        after.get(k, 0),
                        False,
                    )
                )
            if not changed:
                rows.append(
                    row("number of patients", name, f"{len(before)} groups", "the same", True)
                )
        else:
            rows.append(row("number of patients", name, before, after, before == after))
    return rows


def _frozen(root: Path) -> list[tuple]:
    """Cohort and split as they were when the split was drawn."""
    return [
        row("frozen split", name, before[:16], now[:16], before == now)
        for name, before, now in cohort.frozen_files(root)
    ]


def _kind(run: Run) -> list[tuple]:
    """Simulated patients stay simulated: the split was frozen with the word of the dataset."""
    told = storage.read_json(run.root / "split.json").get("dataset", {}).get("simulated")
    if told is None:
        return []
    kind = "simulated" if told else "real"
    return [row("kind of data", "run.json: data", run.data, kind, run.data == kind)]


def _predictions(run: Run) -> list[tuple]:
    if run.info.get("applied", {}).get("not_judged"):
        reason = run.info["applied"]["not_judged"]
        return [("predictions", "predictions.csv", "", reason, NEEDS_DATASET)]
    return attempt("predictions", "predictions.csv", lambda: _check_predictions(run))


def _check_predictions(run: Run) -> list[tuple]:
    frame = results.check_predictions(run.predictions)
    where = "predictions.csv"
    rows = [
        row(
            "predictions are complete and unique",
            where,
            f"{len(frame)} rows",
            "as they should",
            True,
        )
    ]
    split = run.split.set_index("participant_id")
    label = cohort.labels(run.cohort, run.study)
    ids = frame["participant_id"]
    claimed = frame["partition"].map({"out-of-fold": "train", "test": "test"})
    held_out = frame["partition"] == "out-of-fold"
    facts = {
        "patients are in the split": (ids, ids.where(ids.isin(split.index), "not in split.csv")),
        "partition is that of the split": (claimed, ids.map(split["partition"])),
        "out-of-fold means not trained on": (
            frame.loc[held_out, "fold"].astype(str), _held_out_in(frame[held_out], split, run),
        ),
        "label is the cohort's": (frame["y_true"], ids.map(label)),
    }  # fmt: skip
    for what, (stored, expected) in facts.items():
        wrong = stored.ne(expected)
        if wrong.any():
            first = wrong.idxmax()
            place = f"{where}: patient {ids[first]}, arm {frame.at[first, 'arm']}"
            rows.append(
                row(what, place, stored[first], f"{expected[first]} ({wrong.sum()} rows)", False)
            )
        else:
            rows.append(row(what, where, f"{len(stored)} rows", "the same", True))
    parts = {"out-of-fold": "train", "test": "test"}
    for (partition, arm, seed), group in frame.groupby(["partition", "arm", "seed"]):
        members = set(split.index[split["partition"] == parts[partition]])
        if partition == "out-of-fold" and group["participant_id"].duplicated().any():
            rows.append(
                row(
                    "each patient once out of fold",
                    f"{where}: {arm}, seed {seed}",
                    "twice",
                    "once",
                    False,
                )
            )
        if not set(group["participant_id"]) <= members:
            rows.append(
                row(
                    "patients of the partition", f"{where}: {arm}, {partition}", "others", "", False
                )
            )
    return [*rows, *membership(run, frame)]


def _held_out_in(rows: pd.DataFrame, split: pd.DataFrame, run: Run) -> pd.Series:
    """The fold in which each row's patient was held out, in the repetition of the row's seed."""
    parts = [
        group["participant_id"].map(split[cohort.fold_column(run.study, seed)])
        for seed, group in rows.groupby("seed")
    ]
    return pd.concat(parts)[rows.index] if parts else pd.Series(dtype=str)


def _thresholds(run: Run) -> list[tuple]:
    if applied := run.info.get("applied"):  # those of the frozen run, as they are there
        now = storage.digest(run.root / "thresholds.csv")
        same = applied["thresholds"] == now
        return [
            row("frozen thresholds", "thresholds.csv", applied["thresholds"][:16], now[:16], same)
        ]

    def check() -> list[tuple]:
        rule = run.study.threshold
        chosen = results.choose_thresholds(
            run.predictions, rule=rule["rule"], chosen_on=rule["chosen_on"]
        )
        rows = compare(run.root / "thresholds.csv", chosen, "thresholds.csv")
        return [*rows, *_from_the_test_set(run, chosen)]

    return attempt("threshold", "thresholds.csv", check)


def _from_the_test_set(run: Run, chosen: pd.DataFrame) -> list[tuple]:
    """Thresholds that are not those of the out-of-fold predictions, but of the test set.

    Such a threshold makes F1 on the test set optimistic; its other columns may say what they like.
    """
    test = run.predictions[run.predictions["partition"] == "test"]
    if test.empty:
        return []
    keys = ["arm", "seed"]
    stored = run.thresholds.set_index(keys)["threshold"]
    honest = chosen.set_index(keys)["threshold"]
    peeking = _chosen_on_test(test, run.study.threshold["rule"])
    rows = []
    for key in stored.index.intersection(honest.index).intersection(peeking.index):
        other = abs(stored[key] - honest[key]) > 1e-9
        if other and abs(stored[key] - peeking[key]) <= 1e-9:
            where = f"thresholds.csv: {key[0]}, seed {key[1]}"
            rows.append(
                row("threshold chosen on the test set", where, stored[key], honest[key], False)
            )
    return rows


def _chosen_on_test(test: pd.DataFrame, rule: str) -> pd.Series:
    """The thresholds that the test set would give, by arm and seed: of the fold ensembles."""
    keys = ["arm", "seed"]
    mean = test.groupby([*keys, "participant_id"], as_index=False).agg(
        y_true=("y_true", "first"), probability=("probability", "mean")
    )
    planted = mean.assign(partition="out-of-fold", fold=1)
    return results.choose_thresholds(planted, rule=rule).set_index(keys)["threshold"]


# ------------------------------------------------------------------------------------- tables


def _tables(run: Run) -> list[tuple]:
    rows = []
    for path in sorted((run.root / "tables").glob("*.csv")):
        where = f"tables/{path.name}"
        if run.makes(path.stem):
            rows += attempt(
                "table", where, lambda p=path, w=where: compare(p, run.table(p.stem), w)
            )
        else:
            rows.append(("table", where, "", "not made from the run's files", NEEDS_DATASET))
        rows += attempt("rendering", where, lambda p=path: _renderings(p, run.data))
    rows += attempt("table", "notebooks", lambda: _missing(run))
    for path in sorted((run.root / "tables").glob("*")):
        if path.suffix in (".html", ".tex") and not path.with_suffix(".csv").exists():
            rows.append(row("rendering", f"tables/{path.name}", "there", "no CSV it shows", False))
    return rows


def _missing(run: Run) -> list[tuple]:
    """The tables that the run's own notebooks make from its files, and that are not there."""
    made = set(results.table_cells(run.root / "notebooks")) & set(BUILDERS)
    if "test" not in set(run.split["partition"]):
        made -= {"table1_partition"}
    if run.study.repeats == 1:
        made -= {"comparisons_averaged"}
    promised = [name for name in sorted(made) if (run.root / NEEDS.get(name, "run.json")).exists()]
    return [
        row("table", f"tables/{name}.csv", "missing", "the notebooks make it", False)
        for name in promised
        if not (run.root / "tables" / f"{name}.csv").exists()
    ]


def _renderings(path: Path, data: str) -> list[tuple]:
    """The HTML and LaTeX of a table say what its CSV says."""
    text, page = read_text_table(path), path.with_suffix(".html")
    caption = report.read_caption(page)
    expected = {page: report.html_table(report.shown_rows(text), caption)}
    tex = path.with_suffix(".tex")
    if len(text) <= report.LONGEST:
        expected[tex] = report.render_tex(text, caption, name=path.stem)
    elif tex.exists():
        expected[tex] = ""  # a long table has none: of an earlier run
    rows = []
    for file, wanted in expected.items():
        found = file.read_text("utf-8") if file.exists() else ""
        table = re.search(r"<table>.*</table>", found, re.S) if file == page else None
        same = _plain(table.group()) == _plain(wanted) if table else found == wanted
        stored = "as the CSV" if same else "other text"
        rows.append(row("rendering", f"tables/{file.name}", stored, "as the CSV", same))
    around = render_html(text, caption, name=path.stem, data=data)
    found = page.read_text("utf-8") if page.exists() else ""
    for what, before, now in prose_differences(found, around) if found else ():
        rows.append(row("rendering", f"tables/{page.name}: {what}", before, now, False))
    stamped = data != "simulated" or caption.startswith(report.SIMULATED)
    rows.append(row("stamp", f"tables/{page.name}", caption[:40], report.stamp_text(data), stamped))
    return rows


def _plain(table: str) -> str:
    """An HTML table without the classes of its cells: looks differ between versions, numbers must not.

    >>> _plain('<td class="number">0.7</td>')
    '<td>0.7</td>'
    """
    return re.sub(r' class="(?:number|short|sentence)"', "", table)


def _with_cells(made: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The ledger with its notebook cells as stored, where the run keeps no notebook that says them."""
    stored = read_text_table(run.root / "claims.csv")
    for column in ("notebook", "cell"):
        if column in stored:
            kept = made["id"].map(stored.drop_duplicates("id").set_index("id")[column]).fillna("")
            made[column] = made[column].where(made[column] != "", kept)
    return made


def _claims(run: Run) -> list[tuple]:
    if not (run.root / "claims.csv").exists():
        has_page = (run.root / "index.html").exists()
        if run.info.get("applied") or not run.study.claims or not has_page:
            return []  # an applied run has no ledger
        wanted = f"{len(run.study.claims)} claims"
        return [row("claims", "claims.csv", "missing", wanted, False)]

    def check() -> list[tuple]:
        made = {p.stem for p in (run.root / "tables").glob("*.csv")} & set(BUILDERS)
        tables = {name: run.table(name) for name in sorted(made)}
        cells = results.table_cells(run.root / "notebooks")
        made = results.claims(run.study, tables, data=run.data, cells=cells)
        return compare(run.root / "claims.csv", _with_cells(made, run), "claims.csv")

    return attempt("claims", "claims.csv", check)
