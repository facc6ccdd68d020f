"""Recomputes every reported number of a run folder from its small files.

The pages are checked too: ``index.html`` shows the numbers of these files, and notebooks and pages are
those that ``pages.json`` recorded. `BUILDERS` maps each table to the function that makes it. Text and whole numbers must be the same,
other numbers within 1e-9 of their size. Nothing here needs torch, the scans or a GPU.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import cohort, config, dictionary, report, results, storage
from rlvo_lib.config import InputError, Study
from rlvo_lib.report.table_files import read_text_table

AGREE, DIFFER, NEEDS_DATASET, ABSENT = "agree", "differ", "needs dataset", "absent"
COLUMNS = ["what", "where", "stored", "recomputed", "verdict"]
RELATIVE = 1e-9
SHOWN = 20  # differing cells listed a table


@dataclass(frozen=True)
class Run:
    """The small files of a run folder, each read once."""

    root: Path

    def __post_init__(self) -> None:
        if not (self.root / "run.json").is_file():
            raise InputError(f"{self.root}: not a finished run folder (no run.json in it)")

    @cached_property
    def info(self) -> dict:
        """``run.json``."""
        try:
            content = storage.read_json(self.root / "run.json")
            report.stamp_text(content["data"])
            return content
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.root / 'run.json'}: not readable ({error})") from error

    @property
    def data(self) -> str:
        """``simulated`` or ``real``."""
        return self.info["data"]

    @property
    def resampling(self) -> dict[str, int]:
        """Number and seed of the bootstrap resamples."""
        settings = self.info["settings"]
        return {"resamples": int(settings["bootstrap_resamples"]), "seed": int(settings["seed"])}

    @cached_property
    def study(self) -> Study:
        """The study file as it was when the run was made."""
        return config.read_study(self.root / "study.toml")

    @cached_property
    def dictionary(self) -> dictionary.Dictionary:
        """The data dictionary as it was when the run was made."""
        return dictionary.load(self.root / "data_dictionary.csv")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """``predictions.csv``."""
        return storage.read_csv(self.root / "predictions.csv")

    @cached_property
    def thresholds(self) -> pd.DataFrame:
        """``thresholds.csv``."""
        return storage.read_csv(self.root / "thresholds.csv")

    @cached_property
    def cohort(self) -> pd.DataFrame:
        """``cohort.csv``, as text."""
        return cohort.read_frame(self.root)

    @cached_property
    def split(self) -> pd.DataFrame:
        """``split.csv``, as text."""
        return cohort.read_split(self.root / "split.csv")

    @cached_property
    def shap(self) -> pd.DataFrame:
        """``attributions/shap.csv``."""
        return storage.read_csv(self.root / "attributions" / "shap.csv")

    def table(self, name: str) -> pd.DataFrame:
        """A table recomputed from the files (not read from ``tables``), made once."""
        if name not in self._tables:
            self._tables[name] = report.with_data(BUILDERS[name](self), self.data)
        return self._tables[name]

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        return {}


#: Table of a run -> how it is made from the run's files.
BUILDERS: dict[str, Callable[[Run], pd.DataFrame]] = {
    "flow": lambda run: cohort.flow(run.cohort, run.study),
    "split_counts": lambda run: cohort.split_counts(run.cohort, run.split, run.study),
    "table1": lambda run: cohort.table1(
        run.cohort, run.split, run.study, run.dictionary, by="label"
    ),
    "table1_partition": lambda run: cohort.table1(
        run.cohort, run.split, run.study, run.dictionary, by="partition"
    ),
    "missingness": lambda run: cohort.missingness(run.cohort, run.study, run.dictionary),
    "label_overlap": lambda run: cohort.label_overlap(run.cohort, run.study, run.dictionary),
    "performance": lambda run: results.performance(
        run.predictions, run.thresholds, run.study, data=run.data, **run.resampling
    ),
    "out_of_fold": lambda run: results.out_of_fold(
        run.predictions, run.thresholds, run.study, data=run.data, **run.resampling
    ),
    "no_skill": lambda run: results.no_skill(run.predictions, data=run.data),
    "paper": lambda run: results.paper_table(
        run.table("performance"), run.table("out_of_fold"), run.study
    ),
    "comparisons": lambda run: results.comparisons(run.predictions, run.study, data=run.data),
    "calibration": lambda run: results.calibration_table(run.predictions, run.study, data=run.data),
    "calibration_points": lambda run: results.calibration_points(
        run.predictions, run.study, data=run.data
    ),
    "roc_points": lambda run: results.roc_points(run.predictions, run.study, data=run.data),
    "risk_distribution": lambda run: results.risk_distribution(
        run.predictions, run.study, data=run.data
    ),
    "shap_importance": lambda run: results.shap_importance(
        run.shap, data=run.data, **run.resampling
    ),
}


def verify_run(run_dir: str | Path) -> pd.DataFrame:
    """Check a run folder: files, predictions, thresholds, tables, the ledger of claims and the page.

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
    return pd.DataFrame([*rows, *_maps(run), *_pages(run)], columns=COLUMNS)


def _row(what: str, where: str, stored: object, recomputed: object, same: bool) -> tuple:
    return what, where, str(stored), str(recomputed), AGREE if same else DIFFER


# ------------------------------------------------------------------------- files and predictions


def _files(run: Run) -> list[tuple]:
    """The content of every small file against the digests that the run recorded."""
    rows = _contents(run.info.get("files", {}), report.digests(run.root))
    expected, counted = run.info.get("expected", {}), report.expected_counts(run.root)
    for name in sorted(set(expected) | set(counted)):
        before, after = expected.get(name, "not recorded"), counted.get(name, "missing")
        if isinstance(before, dict) and isinstance(after, dict):
            changed = [k for k in {**before, **after} if before.get(k) != after.get(k)]
            for k in changed:
                rows.append(
                    _row(
                        "number of patients",
                        f"{name}: {k}",
                        before.get(k, 0),
                        after.get(k, 0),
                        False,
                    )
                )
            if not changed:
                rows.append(
                    _row("number of patients", name, f"{len(before)} groups", "the same", True)
                )
        else:
            rows.append(_row("number of patients", name, before, after, before == after))
    return rows


def _contents(stored: dict[str, str], now: dict[str, str]) -> list[tuple]:
    rows = []
    for name in sorted(set(stored) | set(now)):
        before, after = stored.get(name, "not recorded"), now.get(name, "missing")
        rows.append(_row("file content", name, before[:16], after[:16], before == after))
    return rows


def _attempt(what: str, where: str, check: Callable[[], list[tuple]]) -> list[tuple]:
    """The rows of a check; a file it cannot use is a difference, not a crash."""
    try:
        return check()
    except InputError as error:
        return [_row(what, where, "unusable", str(error), False)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return [_row(what, where, "unusable", f"{type(error).__name__}: {error}", False)]


def _predictions(run: Run) -> list[tuple]:
    return _attempt("predictions", "predictions.csv", lambda: _check_predictions(run))


def _check_predictions(run: Run) -> list[tuple]:
    frame = results.check_predictions(run.predictions)
    where = "predictions.csv"
    rows = [
        _row(
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
            frame.loc[held_out, "fold"].astype(str), ids[held_out].map(split["fold"]),
        ),
        "label is the cohort's": (frame["y_true"], ids.map(label)),
    }  # fmt: skip
    for what, (stored, expected) in facts.items():
        wrong = stored.ne(expected)
        if wrong.any():
            first = wrong.idxmax()
            place = f"{where}: patient {ids[first]}, arm {frame.at[first, 'arm']}"
            rows.append(
                _row(what, place, stored[first], f"{expected[first]} ({wrong.sum()} rows)", False)
            )
        else:
            rows.append(_row(what, where, f"{len(stored)} rows", "the same", True))
    parts = {"out-of-fold": "train", "test": "test"}
    for (partition, arm, seed), group in frame.groupby(["partition", "arm", "seed"]):
        members = set(split.index[split["partition"] == parts[partition]])
        if partition == "out-of-fold" and group["participant_id"].duplicated().any():
            rows.append(
                _row(
                    "each patient once out of fold",
                    f"{where}: {arm}, seed {seed}",
                    "twice",
                    "once",
                    False,
                )
            )
        if not set(group["participant_id"]) <= members:
            rows.append(
                _row(
                    "patients of the partition", f"{where}: {arm}, {partition}", "others", "", False
                )
            )
    return rows


def _thresholds(run: Run) -> list[tuple]:
    def check() -> list[tuple]:
        rule = run.study.threshold
        chosen = results.choose_thresholds(
            run.predictions, rule=rule["rule"], chosen_on=rule["chosen_on"]
        )
        return compare(run.root / "thresholds.csv", chosen, "thresholds.csv")

    return _attempt("threshold", "thresholds.csv", check)


# ------------------------------------------------------------------------------------- tables


def _tables(run: Run) -> list[tuple]:
    rows = []
    for path in sorted((run.root / "tables").glob("*.csv")):
        where = f"tables/{path.name}"
        if path.stem in BUILDERS:
            rows += _attempt(
                "table", where, lambda p=path, w=where: compare(p, run.table(p.stem), w)
            )
        else:
            rows.append(("table", where, "", "not made from the run's files", NEEDS_DATASET))
        rows += _attempt("rendering", where, lambda p=path: _renderings(p, run.data))
    return rows


def _renderings(path: Path, data: str) -> list[tuple]:
    """The HTML and LaTeX of a table say what its CSV says."""
    text, page = read_text_table(path), path.with_suffix(".html")
    caption = report.read_caption(page)
    expected = {
        page: report.html_table(text, caption),
        path.with_suffix(".tex"): report.render_tex(text, caption, name=path.stem),
    }
    rows = []
    for file, wanted in expected.items():
        found = file.read_text("utf-8") if file.exists() else ""
        table = re.search(r"<table>.*</table>", found, re.S) if file == page else None
        same = (table.group() if table else found) == wanted
        stored = "as the CSV" if same else "other text"
        rows.append(_row("rendering", f"tables/{file.name}", stored, "as the CSV", same))
    stamped = data != "simulated" or caption.startswith(report.SIMULATED)
    rows.append(
        _row("stamp", f"tables/{page.name}", caption[:40], report.stamp_text(data), stamped)
    )
    return rows


def _claims(run: Run) -> list[tuple]:
    if not (run.root / "claims.csv").exists():
        return []

    def check() -> list[tuple]:
        made = {p.stem for p in (run.root / "tables").glob("*.csv")} & set(BUILDERS)
        tables = {name: run.table(name) for name in sorted(made)}
        return compare(
            run.root / "claims.csv", results.claims(run.study, tables, data=run.data), "claims.csv"
        )

    return _attempt("claims", "claims.csv", check)


# -------------------------------------------------------------------------- maps and pages


def _maps(run: Run) -> list[tuple]:
    """The maps in the folder are those of ``attributions/maps.csv``: none missing, none left over."""

    def check() -> list[tuple]:
        table = run.root / "attributions" / "maps.csv"
        named = set(storage.read_csv(table)["map"]) if table.exists() else set()
        folder = (run.root / "attributions" / "maps").glob("*")
        there = {p.relative_to(run.root).as_posix() for p in folder if not p.name.startswith(".")}
        words = {True: "there", False: "not there"}, {True: "in maps.csv", False: "not in maps.csv"}
        return [
            _row(
                "map", name, words[0][name in there], words[1][name in named], name in there & named
            )
            for name in sorted(there | named)
        ]

    return _attempt("map", "attributions/maps.csv", check)


def _pages(run: Run) -> list[tuple]:
    """The page shows the numbers of the files; pages and notebooks are as ``pages.json`` says."""
    page, record = run.root / "index.html", run.root / "pages.json"
    if not page.exists() and not record.exists():
        return [("page", "index.html", "", "this run was made without its page", ABSENT)]

    def digests() -> list[tuple]:
        if not record.exists():
            return [_row("file content", "pages.json", "missing", "digests of the pages", False)]
        return _contents(storage.read_json(record)["files"], report.page_digests(run.root))

    def numbers() -> list[tuple]:
        if not page.exists():
            return [_row("page", "index.html", "missing", "the page", False)]
        found = [_row("page", *cells, False) for cells in report.page_differences(run.root)]
        return found or [_row("page", "index.html: tables", "as the files", "as the files", True)]

    return _attempt("file content", "pages.json", digests) + _attempt("page", "index.html", numbers)


# ------------------------------------------------------------------------------------ cells


def compare(path: str | Path, recomputed: pd.DataFrame, where: str) -> list[tuple]:
    """A stored CSV against a recomputed table, cell by cell: one row if they agree, else the cells."""
    if not Path(path).exists():
        return [_row("table", where, "missing", f"{len(recomputed)} rows", False)]
    stored = read_text_table(path)
    buffer = io.StringIO(recomputed.to_csv(index=False, lineterminator="\n"))
    expected = pd.read_csv(buffer, dtype=str, keep_default_na=False)
    if list(stored.columns) != list(expected.columns):
        return [_row("table", f"{where}: columns", ", ".join(stored), ", ".join(expected), False)]
    if len(stored) != len(expected):
        return [_row("table", f"{where}: rows", len(stored), len(expected), False)]
    rows, names = (
        [],
        [c for c in expected if c in ("arm", "metric", "variable", "id", "step", "a", "b")],
    )
    differing = 0
    for line, column in zip(*np.nonzero((stored != expected).to_numpy()), strict=True):
        before, after = stored.iat[line, column], expected.iat[line, column]
        if _close(before, after):
            continue
        differing += 1
        if differing <= SHOWN:
            row = ", ".join(expected[n].iat[line] for n in names) or f"row {line + 2}"
            rows.append(
                _row("table", f"{where}: {row}: {expected.columns[column]}", before, after, False)
            )
    if differing > SHOWN:
        rows.append(_row("table", where, f"{differing} cells differ", "", False))
    return rows or [_row("table", where, f"{stored.size} cells", "the same", True)]


def _close(a: str, b: str) -> bool:
    """Two numbers written differently but within 1e-9 of their size; whole numbers must be the same."""
    try:
        x, y = float(a), float(b)
    except ValueError:
        return False
    if not any(c in a + b for c in ".en"):
        return False
    return bool(abs(x - y) <= RELATIVE * max(abs(x), abs(y), 1e-3))
