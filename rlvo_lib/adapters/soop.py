"""SOOP, the Stroke Outcome Optimization Project, as a dataset folder.

In come a folder of lesion masks in standard space (``sub-3_lesion.nii.gz``, or ``bwsrsub-3_lesion.nii.gz``
as published), the ``participants.tsv`` of OpenNeuro ds004889, and the arterial atlas that is published
with the masks. Out comes the table under the columns of ``studies/soop/data_dictionary.csv``, with the
volume of each lesion and of its part in each territory (mL), the masks, voxels in their own order, and the
atlas as it came: what explains a model by territories must use the one that the volumes were counted with.

Nothing is guessed: a value that is not one of the source's own stops the adaptation, and all of them are
listed. What is merely unusual is kept and listed in ``derivatives/adapt/report.csv``: participant_id,
what (`KINDS`), value, detail.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rlvo_lib import __version__, dataset, progress, storage
from rlvo_lib.adapters import lesions
from rlvo_lib.adapters.lesions import Lesion
from rlvo_lib.config import InputError
from rlvo_lib.intake import folder
from rlvo_lib.intake.ledger import PROBLEM_COLUMNS, summary

ATLAS = "ArterialAtlas136.nii.gz"
REPORT = "derivatives/adapt/report.csv"
ATLAS_COPY = "derivatives/atlas/arterial_territories.nii.gz"  # the atlas's file, byte for byte
KEPT = ("Name", "BIDSVersion", "License", "Authors", "DatasetDOI")  # of the source's description
DEFAULTS = {"Name": "Stroke Outcome Optimization Project (SOOP)", "BIDSVersion": "1.6.0"}
MASK = re.compile(r"(?:bwsr)?(sub-[A-Za-z0-9]+)_.*lesion.*\.nii\.gz")
MISSING, MISSING_CODE = "n/a", "-99"
OLDEST, OLDEST_AGE = "89+", "89"
LARGE_ML, SMALL_ML = 400.0, 0.1
REPORT_COLUMNS = ["participant_id", "what", "value", "detail"]
#: What a report can list, in its order.
KINDS = (
    "row without a mask", "mask without a row", "column not used", "age 89 or more", "over 400 mL",
    "under 0.1 mL", "all zero", "another data type", "coded other than 1", "outside the atlas",
)  # fmt: skip
Line = tuple[str, str, str, str]  # of the report


class ValuesError(InputError):
    """Values of the table that are not the source's. The message names the first; ``problems`` has all.

    ``problems`` has the columns row (the header being 1), source, column, value and allowed.
    """

    def __init__(self, file: Path, problems: pd.DataFrame) -> None:
        self.problems = problems
        lines = summary(problems)
        more = f" (and {len(lines) - 1} more: all are listed by `rlvo adapt`)" if lines[1:] else ""
        super().__init__(f"{file}: {lines[0]}{more}")


@dataclass(frozen=True)
class Column:
    """A column of the dataset, the source's column it is read from, and how."""

    name: str
    source: str
    allowed: str
    read: Callable[[str], str | None]  # None: not a value of the source


def _whole(highest: int) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        return text if re.fullmatch("0|[1-9][0-9]?", text) and int(text) <= highest else None

    return read


def _age(text: str) -> str | None:
    return OLDEST_AGE if text == OLDEST else _whole(int(OLDEST_AGE))(text)


def _number(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", text) else None


def _leading_code(text: str) -> str | None:
    found = re.fullmatch(r"([1-5])(: .*)?", text)
    return found[1] if found else None


COLUMNS = (
    Column("age", "age", f"whole years from 0 to {OLDEST_AGE}, {OLDEST}", _age),
    Column("sex", "sex", "F, M", {"F": "0", "M": "1"}.get),
    Column("race", "race", "b, w", {"b": "b", "w": "w"}.get),
    Column("acute_stroke", "acuteischaemicstroke", "0, 1", _whole(1)),
    Column("prior_stroke", "priorstroke", "0, 1", _whole(1)),
    Column("bmi", "bmi", "a number with a decimal point", _number),
    Column("nihss", "nihss", "whole number 0 to 42", _whole(42)),
    Column("etiology", "etiology", "1 to 5, a colon and words, as '5: Cryptogenic Stroke'", _leading_code),
    Column("mrs_discharge", "gs_rankin_6isdeath", "whole number 0 to 6", _whole(6)),
)  # fmt: skip
SOURCES = ("participant_id", *(column.source for column in COLUMNS))
VOLUMES = ("lesion_ml", *(f"territory_{n:02d}_ml" for n in range(1, lesions.TERRITORIES + 1)))
#: The columns of the dataset's table, in their order.
TABLE_COLUMNS = (
    "participant_id", *(column.name for column in COLUMNS[:-2]), *VOLUMES,
    *(column.name for column in COLUMNS[-2:]),
)  # fmt: skip


def adapt(
    masks: str | Path,
    participants: str | Path,
    out: str | Path,
    *,
    atlas: str | Path | None = None,
    replace: bool = False,
) -> pd.DataFrame:
    """Write SOOP as a dataset folder; the report is returned, and written into it.

    Parameters
    ----------
    masks : folder of the lesion masks, or of sub-folders that hold them.
    participants : ``participants.tsv`` as published.
    out : the dataset folder, new or begun from the same files. Masks of clean uint8 0 and 1 are copied
        byte by byte, others written anew so; the atlas is copied to `ATLAS_COPY` (a dataset of an earlier
        version gets it by adapting again); ``dataset_description.json`` comes last.
    atlas : the arterial atlas; left out, it is looked for beside ``participants``, then in ``masks``.
    replace : write over a dataset that differs (never over a simulated one).

    Returns
    -------
    DataFrame with the columns participant_id, what, value, detail.

    Raises
    ------
    ValuesError
        If the table holds values that are not the source's; nothing is written.
    InputError
        If table, masks or atlas cannot be used or do not fit each other, or ``out`` holds something else.
        Nothing is written.
    """
    masks, participants, out = Path(masks), Path(participants), Path(out)
    folder.read_description(out)  # refuses a file and a simulated dataset
    folder.refuse_own_source(out, participants)
    source = read_participants(participants)
    table = _translate(source, participants)
    found = lesions.find_masks(masks, MASK)
    atlas = _find_atlas(atlas, participants, masks)
    measured = _measure(found, table, masks, atlas)
    report = _report([*_of_table(source), *_of_matching(table, found), *_of_masks(measured)])
    description = _description(participants)
    _write(out, _with_volumes(table, measured), measured, atlas, report, description, replace)
    return report


def _measure(
    found: dict[str, Path], table: pd.DataFrame, masks: Path, atlas_path: Path
) -> dict[str, Lesion]:
    """The masks of the table's patients, each read once, in the order of the rows."""
    used = {name: found[name] for name in table.index if name in found}
    if not used:
        raise InputError(
            f"{masks}: none of its {len(found)} masks belongs to a row of the table; allowed: masks named "
            f"as the rows are, e.g. {table.index[0]}_lesion.nii.gz"
        )
    atlas = lesions.load_atlas(atlas_path)
    headers = {path: lesions.read_header(path) for path in used.values()}
    lesions.refuse_other_grids(headers, atlas)
    return {
        name: lesions.measure(path, headers[path], atlas)
        for name, path in progress.track(used.items(), total=len(used), label="masks")
    }


# ------------------------------------------------------------------------------------ what comes in


def read_participants(path: Path) -> pd.DataFrame:
    """The source's table as text, by row number (the header being row 1).

    Raises
    ------
    InputError
        If it is no tab-separated table, lacks a column, has rows of another length or a patient twice.
    """
    types = dict.fromkeys(SOURCES, str)
    form = {"sep": "\t", "keep_default_na": False, "encoding": "utf-8-sig"}
    table = storage.read_csv(path, dtype=types, **form)
    lacking = [name for name in SOURCES if name not in table]
    if lacking:
        raise InputError(
            f"{path}: has no column {', '.join(map(repr, lacking))}, so it is another dataset's; allowed: "
            "the tab-separated participants.tsv of OpenNeuro ds004889"
        )
    if table.empty or not isinstance(table.index, pd.RangeIndex):
        what = "no patients" if table.empty else "rows with more fields than the header"
        raise InputError(f"{path}: the table has {what}")
    table.index = pd.RangeIndex(2, len(table) + 2, name="row")
    names = table["participant_id"]
    doubled = names[names.duplicated(keep=False)]
    if len(doubled):
        rows = " and ".join(str(row) for row in doubled.index[doubled == doubled.iloc[0]])
        raise InputError(
            f"{path}: patient '{doubled.iloc[0]}' stands in rows {rows} ({doubled.nunique()} patients stand "
            "in several); allowed: one row a patient"
        )
    return table


def _find_atlas(given: str | Path | None, participants: Path, masks: Path) -> Path:
    for path in (participants.with_name(ATLAS), masks / ATLAS):
        if not given and path.is_file():
            return path
    if not given:
        raise InputError(
            f"{ATLAS} lies neither beside {participants} nor in {masks}; allowed: --atlas FILE; it is "
            "published with the masks: GitHub, neurolabusc/StrokeOutcomeOptimizationProjectDemo, NIfTI"
        )
    return Path(given)


def _description(participants: Path) -> dict:
    """``dataset_description.json``, with what the source's own says where it lies beside the table."""
    source = folder.read_description(participants.parent)
    return {
        **DEFAULTS,
        **{key: source[key] for key in KEPT if key in source},
        "simulated": False,
        "GeneratedBy": [{"Name": "rlvo adapt soop", "Version": __version__}],
    }


# --------------------------------------------------------------------------------- table and report


def _translate(source: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table under the dataset's columns, by patient; without the volumes."""
    names, columns = source["participant_id"], {}
    problems = [
        (row, "participant_id", "participant_id", name, "sub- and letters or digits")
        for row, name in names[~names.str.fullmatch(dataset.IDENTIFIER)].items()
    ]
    for column in COLUMNS:
        text = source[column.source]
        meaning = {value: column.read(value) for value in text.unique()} | {MISSING: MISSING_CODE}
        columns[column.name] = text.map(meaning)
        problems += [
            (row, column.source, column.name, value, f"{column.allowed}, {MISSING}")
            for row, value in text[columns[column.name].isna()].items()
        ]
    if problems:
        raise ValuesError(path, pd.DataFrame(problems, columns=PROBLEM_COLUMNS))
    return pd.DataFrame(columns).set_axis(pd.Index(names, name="participant_id"))


def _with_volumes(table: pd.DataFrame, measured: dict[str, Lesion]) -> pd.DataFrame:
    without = [MISSING_CODE] * len(VOLUMES)
    texts = {name: [f"{ml:.3f}" for ml in lesion.ml] for name, lesion in measured.items()}
    rows = [texts.get(name, without) for name in table.index]
    volumes = pd.DataFrame(rows, index=table.index, columns=VOLUMES)
    return table.join(volumes).reset_index()[list(TABLE_COLUMNS)]


def _of_table(source: pd.DataFrame) -> Iterator[Line]:
    for name in source["participant_id"][source["age"] == OLDEST]:
        yield name, "age 89 or more", OLDEST, f"written as {OLDEST_AGE}"
    for name in source.columns:
        if name not in SOURCES:
            yield "", "column not used", name, ""


def _of_matching(table: pd.DataFrame, found: dict[str, Path]) -> Iterator[Line]:
    for name in table.index:
        if name not in found:
            yield name, "row without a mask", "", f"kept, its volumes are {MISSING_CODE}"
    for name, path in found.items():
        if name not in table.index:
            yield name, "mask without a row", path.name, "not written"


def _of_masks(measured: dict[str, Lesion]) -> Iterator[Line]:
    types = Counter(lesion.header.dtype for lesion in measured.values())
    common = types.most_common(1)[0][0]
    for name, lesion in measured.items():
        ml, dtype = lesion.ml[0], lesion.header.dtype
        if ml > LARGE_ML:
            yield name, "over 400 mL", f"{ml:.3f}", "mL"
        if 0 < ml < SMALL_ML:
            yield name, "under 0.1 mL", f"{ml:.3f}", "mL"
        if lesion.total == 0:
            yield name, "all zero", f"{ml:.3f}", "mL"
        if dtype != common:
            yield name, "another data type", dtype, f"the others: {common}"
        if lesion.coded != 1:
            yield name, "coded other than 1", f"{lesion.coded:g}", "read as 1"
        if lesion.outside:
            said = f"{lesion.outside} of {lesion.total} lesion voxels"
            yield name, "outside the atlas", f"{lesion.outside / lesion.total:.4f}", said


def _report(lines: list[Line]) -> pd.DataFrame:
    ordered = sorted(lines, key=lambda line: KINDS.index(line[1]))  # patients keep their order
    return pd.DataFrame(ordered, columns=REPORT_COLUMNS, dtype=str)


# ------------------------------------------------------------------------------------- what goes out


def _mask_path(out: Path, name: str) -> Path:
    return out / name / "anat" / f"{name}_lesion.nii.gz"


def _refuse_other(out: Path, text: str, masks: list[Path]) -> None:
    """Raise if ``out`` holds anything but this dataset, finished or begun; ``masks`` are not its own."""
    table, other = out / folder.TABLE, list(masks)
    if table.exists() and table.read_bytes() != text.encode():
        other.insert(0, table)
    if not (out / folder.DESCRIPTION).exists():  # begun: nothing else can have come in since
        ours = re.compile(rf"\..*|sub-.*|derivatives|{re.escape(folder.TABLE)}")
        other += [path for path in sorted(out.glob("*")) if not ours.fullmatch(path.name)]
    if other:
        raise InputError(
            f"{out}: holds another dataset or other files ({other[0].relative_to(out)} is not of this "
            "one); allowed: a new folder, or --replace to write over it"
        )


def _write(
    out: Path,
    table: pd.DataFrame,
    measured: dict[str, Lesion],
    atlas: Path,
    report: pd.DataFrame,
    description: dict,
    replace: bool,
) -> None:
    """Masks and atlas that are not there yet, then table, report and description; each whole or absent."""
    text = folder.table_text(table, "\t")
    targets = {_mask_path(out, name): lesion for name, lesion in measured.items()}
    stale = sorted(set(out.glob("sub-*/anat/sub-*_lesion.nii.gz")) - set(targets))
    to_do = [path for path, lesion in targets.items() if not lesions.is_written(lesion, path)]
    kept = lesions.is_copied(atlas, out / ATLAS_COPY)
    other = [out / ATLAS_COPY] * ((out / ATLAS_COPY).exists() and not kept)
    if not replace:
        _refuse_other(out, text, [*filter(Path.exists, to_do), *stale, *other])
    elif to_do or stale or other:
        (out / folder.DESCRIPTION).unlink(missing_ok=True)  # only what is whole has one
    for path in stale:
        path.unlink()
    for path in to_do:
        lesions.write(targets[path], path)
    if not kept:
        lesions.copy(atlas, out / ATLAS_COPY)
    storage.write_text(out / folder.TABLE, text)
    storage.write_csv(out / REPORT, report)
    storage.write_json(out / folder.DESCRIPTION, description)


# ------------------------------------------------------------------------------------ on the screen


def show(report: pd.DataFrame, name: str) -> str:
    """The report in short: how many of each kind, the first few by name, shares as median and largest."""
    lines = [f"{name}: written; listed in {REPORT}:"]
    for what, group in report.groupby("what", sort=False):
        named = [f"{row.participant_id} {row.value}".strip() for row in group.itertuples()]
        said = ", ".join(named[:5]) + (" …" if named[5:] else "")
        if what == "outside the atlas":
            share = group["value"].astype(float)
            said = f"median share of the lesion {share.median():.3f}, largest {share.max():.3f}"
        lines.append(f"  {what}: {len(group)} ({said})")
    return "\n".join(lines if len(report) else [f"{name}: written; nothing to report"])
