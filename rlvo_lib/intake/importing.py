"""The import as a whole: `import_table`; and its plan, which column of the file becomes which."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import storage
from rlvo_lib.config import InputError, Study
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary, Field
from rlvo_lib.intake import dates, folder, identifiers, quantities, values
from rlvo_lib.intake.delimited import name_of
from rlvo_lib.intake.ledger import IGNORED, LACKING, UNUSED, Cells, Ledger
from rlvo_lib.intake.mapping import IDENTIFIER, Entry, Map, close_to, read_map
from rlvo_lib.intake.spreadsheet import Sheet, read_sheet

#: Columns of a dictionary that are written to split.csv, and what they are called there.
SPLIT_COLUMNS = {"split": "partition", "cv_fold": "fold"}


@dataclass(frozen=True)
class Plan:
    """How each column of the dataset is made; and, by name only, what is not used or not there."""

    entries: tuple[Entry, ...]  # in the dictionary's order
    by_label: tuple[str, ...]  # columns that were found by their label, as in a REDCap label export
    ignored: tuple[str, ...]  # columns of the file that the map ignores
    unused: tuple[str, ...]  # columns of the file that nothing asks for
    lacking: tuple[str, ...]  # columns of the dictionary that the file does not have


def import_table(
    file: str | Path,
    out: str | Path,
    study: Study,
    words: Dictionary,
    *,
    map_path: str | Path | None = None,
    replace: bool = False,
) -> pd.DataFrame:
    """Write the table of a hospital as a dataset folder; the report is returned and written beside it.

    Writes ``participants.tsv``, ``split.csv`` if the file holds a split, ``derivatives/import/report.csv``
    and ``.json``, and last ``dataset_description.json``. Scans that are in the folder stay. The report has
    the columns column, source, conversion, from, to, n.

    Raises
    ------
    UnmappedError
        If values have no reading; all are in its ``problems``, and nothing is written.
    InputError
        If file or map cannot be used, or the folder holds another table (without ``replace``) or a
        simulated dataset. Nothing is written.
    """
    file, out = Path(file), Path(out)
    given = read_map(Path(map_path), words) if map_path else Map()
    description = folder.read_description(out)
    folder.refuse_own_source(out, file)
    sheet = read_sheet(
        file, given.wanted(words), separator=given.separator, code=given.encoding, sheet=given.sheet
    )
    ledger = Ledger()
    plan = make_plan(given, list(sheet.cells), words, file)
    _count_file(sheet, plan, ledger)
    table = _read_table(sheet, plan, given, study, words, ledger, file)
    split = _take_split(table, sheet, plan, ledger)
    ledger.stop_if_problems(file)
    texts = {folder.TABLE: folder.table_text(table, "\t")}
    if split is not None:
        texts[folder.SPLIT] = folder.table_text(split, ",")
    elif (out / folder.SPLIT).exists():
        ledger.count(
            "", "", ("split.csv was there and stays, since the file brings no split", "", "")
        )
    if not replace:
        folder.refuse_overwriting(out, texts)
    report = ledger.report()
    facts = _facts(file, map_path, table, plan, sheet)
    folder.write(out, texts, report, facts, folder.describe(description, given.name, out))
    return report


def make_plan(given: Map, headers: list[str], words: Dictionary, file: Path) -> Plan:
    """The map's columns, and those whose header is the dictionary's own name or label.

    Raises
    ------
    InputError
        If a column of the map is not in the file, or nothing says which column identifies patients.
    """
    _check_mapped(given, headers, file)
    taken = {name for entry in given.entries.values() for name in entry.names} | {*given.ignore}
    free = [name for name in headers if name not in taken]
    labels = Counter(name_of(field.label) for field in words.fields.values())
    entries, by_label = [], []
    for name, field in words.fields.items():
        label = name_of(field.label)
        if name in given.entries:
            entries.append(given.entries[name])
        elif name in free:
            entries.append(Entry(name, ((name,),)))
        elif label in free and labels[label] == 1 and label not in words:
            entries.append(Entry(name, ((label,),)))
            by_label.append(name)
    made = {entry.column for entry in entries}
    if IDENTIFIER not in made:
        raise InputError(
            f"{file}: nothing says which column identifies a patient; allowed: "
            f'{IDENTIFIER} = "name of the column" under [columns] in the map'
        )
    used = {name for entry in entries for name in entry.names}
    return Plan(
        tuple(entries),
        tuple(by_label),
        tuple(name for name in headers if name in given.ignore),
        tuple(name for name in headers if name not in used and name not in given.ignore),
        tuple(name for name in words.fields if name not in made),
    )


def _check_mapped(given: Map, headers: list[str], file: Path) -> None:
    absent = {
        name: entry.column
        for entry in given.entries.values()
        for name in entry.names
        if name not in headers
    }
    if absent:
        raise InputError(
            f"{file}: "
            + "; ".join(
                f"column '{name}' (for {column}) is not in the file{close_to(name, headers)}"
                for name, column in absent.items()
            )
            + f"; allowed: the {len(headers)} headers of the file, written as there"
        )


def _count_file(sheet: Sheet, plan: Plan, ledger: Ledger) -> None:
    """What is said of the file as a whole, in the report."""
    for what, found in sheet.found.items():
        ledger.count("", "", (what, "", found))
    for column in plan.by_label:
        source = next(entry.names[0] for entry in plan.entries if entry.column == column)
        ledger.count(column, source, ("header is the label of the column", source, column))
    for name in plan.ignored:
        ledger.count("", name, (IGNORED, "", ""))
    for name in plan.unused:
        ledger.count("", name, (UNUSED, "", ""))
    for name in plan.lacking:
        ledger.count(name, "", (LACKING, "", ""))


def _read_table(
    sheet: Sheet,
    plan: Plan,
    given: Map,
    study: Study,
    words: Dictionary,
    ledger: Ledger,
    file: Path,
) -> pd.DataFrame:
    """All columns as the dataset holds them, by row number; problems are left to the ledger."""
    decimal = _decimal(sheet, plan, given, words, ledger)
    columns = {}
    for entry in plan.entries:
        field = words[entry.column]
        if entry.column == IDENTIFIER:
            cells = _cells(entry, sheet)[0]
            identifiers.refuse_repeating(list(sheet.cells), cells, file)
            columns[entry.column] = identifiers.read_identifiers(entry, cells, ledger)
            continue
        how = entry.how.before(given.how)
        how = changed(how, decimal=how.decimal or decimal)
        if _is_number(field, entry, study) and not how.decimal:
            continue  # the decimal mark is a problem, told once
        cells = _cells(entry, sheet)
        if entry.take:
            columns[entry.column] = values.take_from_dates(field, entry, cells, how, ledger)
        else:
            columns[entry.column] = values.read_column(
                field, entry, cells[0], how, ledger, is_outcome=entry.column == study.outcome
            )
    return pd.DataFrame(columns)


def _is_number(field: Field, entry: Entry, study: Study) -> bool:
    calculated = field.type == "calc" and field.name != study.outcome
    return (field.is_quantity or calculated) and bool(entry.sources) and not entry.take


def _cells(entry: Entry, sheet: Sheet) -> list[Cells]:
    """The cells of each source of a column; of a constant, the same value in each row."""
    if entry.value is not None:
        text = pd.Series(entry.value.strip(), index=sheet.cells.index, dtype=object)
        return [Cells("(the map)", text, np.ones(len(text), bool))]
    return [
        sheet.column(source[0])
        if len(source) == 1
        else dates.joined(*(sheet.column(name) for name in source))
        for source in entry.sources
    ]


def _decimal(sheet: Sheet, plan: Plan, given: Map, words: Dictionary, ledger: Ledger) -> str:
    """The decimal mark of columns for which the map names none; "" if it is a problem."""
    columns = [
        sheet.column(entry.names[0])
        for entry in plan.entries
        if entry.sources and not entry.take and not entry.how.decimal
        and words[entry.column].type in ("integer", "number", "calc")
    ]  # fmt: skip
    if given.how.decimal or not columns:
        return given.how.decimal or "."
    decimal, problem = quantities.find_decimal(columns)
    if problem:
        ledger.problem("", "", *problem)
    else:
        ledger.count("", "", ("decimal mark of text cells", "", decimal))
    return decimal


def _take_split(
    table: pd.DataFrame, sheet: Sheet, plan: Plan, ledger: Ledger
) -> pd.DataFrame | None:
    """The columns of the split, taken out of the table, as split.csv holds them."""
    found = [column for column in SPLIT_COLUMNS if column in table]
    if not found:
        return None
    source = {entry.column: " + ".join(entry.names) for entry in plan.entries}
    if len(found) == 1:
        ledger.problem(source[found[0]], found[0], "the split is half there",
                       f"both or none of {' and '.join(SPLIT_COLUMNS)}")  # fmt: skip
        return None
    partition, fold = (table.pop(column) for column in SPLIT_COLUMNS)
    missing = [*MISSING_REASONS, "n/a"]
    for column, wrong, allowed in (
        ("split", ~partition.isin(["train", "test", ""]), "train or test"),
        ("cv_fold", (partition == "train") & fold.isin(missing), "a fold, in the training part"),
        (
            "cv_fold",
            (partition == "test") & ~fold.isin([*missing, ""]),
            "no fold, in the test part",
        ),
    ):
        for row in sheet.cells.index[wrong]:
            value = (partition if column == "split" else fold)[row]
            ledger.problem(source[column], column, value, allowed, [row])
    fold = fold.mask(fold.isin(missing), "")
    return pd.DataFrame({IDENTIFIER: table[IDENTIFIER], "partition": partition, "fold": fold})


def _facts(
    file: Path, map_path: str | Path | None, table: pd.DataFrame, plan: Plan, sheet: Sheet
) -> dict:
    """What the report says of files and columns, besides the conversions."""
    facts = {"file": file.name, "file_sha256": storage.digest(file)}
    if map_path:
        facts |= {"map": Path(map_path).name, "map_sha256": storage.digest(map_path)}
    return facts | {
        "patients": len(table),
        **sheet.found,
        "columns_imported": list(table),
        "columns_ignored": list(plan.ignored),
        "columns_not_used": list(plan.unused),
        "columns_lacking": list(plan.lacking),
    }
