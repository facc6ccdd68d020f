"""A dataset folder: its table, and where its scans lie.

Names follow BIDS (see the README). The table is kept as the text it was written in (`Dataset.raw`) and
as typed values (`Dataset.table`): quantities as floats, codes as text, every missing code as NaN.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary

#: Path of each scan inside a dataset folder; ``{0}`` is the participant identifier.
SCANS = {
    "ncct": "{0}/ct/{0}_ncct.nii.gz",
    "cta": "{0}/ct/{0}_cta.nii.gz",
    "vessels": "{0}/ct/{0}_vessels.nii.gz",
    "cbf": "{0}/perf/{0}_cbf.nii.gz",
    "cbv": "{0}/perf/{0}_cbv.nii.gz",
    "mtt": "{0}/perf/{0}_mtt.nii.gz",
    "tmax": "{0}/perf/{0}_tmax.nii.gz",
}
MISSING_TOKENS = {"": "-99", "n/a": "-99"}


def scan_path(root: str | Path, participant_id: str, scan: str) -> Path:
    """Where a scan of a patient lies in a dataset folder, whether or not it exists."""
    return Path(root) / SCANS[scan].format(participant_id)


@dataclass(frozen=True)
class Dataset:
    """A dataset folder: its table, and where its scans are."""

    root: Path
    name: str
    simulated: bool
    raw: pd.DataFrame  # index participant_id; the text of participants.tsv
    table: pd.DataFrame  # index participant_id; typed values, missing codes as NaN

    @property
    def kind(self) -> str:
        """``"simulated"`` or ``"real"``: the ``data`` column of every result table."""
        return "simulated" if self.simulated else "real"

    def scan(self, participant_id: str, scan: str) -> Path | None:
        """The path of a scan, or None if the patient does not have it."""
        path = scan_path(self.root, participant_id, scan)
        return path if path.is_file() else None


def load_dataset(root: str | Path, dictionary: Dictionary) -> Dataset:
    """Read a dataset folder (`participants.tsv`, `dataset_description.json`).

    Raises
    ------
    InputError
        If the folder or one of the two files is missing or unreadable, or a value is not what the
        dictionary allows (the first such value is named; ``rlvo validate`` lists all).
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"dataset folder {root} does not exist")
    description = read_description(root)
    raw = read_participants(root)
    return Dataset(
        root=root,
        name=str(description["Name"]),
        simulated=description["simulated"],
        raw=raw,
        table=typed(raw, dictionary),
    )


def read_description(root: Path) -> dict:
    """``dataset_description.json``: at least a Name, and whether the data are simulated."""
    path = root / "dataset_description.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{root}: dataset_description.json is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(description, dict) or "Name" not in description:
        raise InputError(f"{path}: 'Name' is missing")
    if not isinstance(description.get("simulated"), bool):
        raise InputError(
            f"{path}: 'simulated' is {description.get('simulated')!r}; allowed: true or false, so "
            "that simulated data can never pass for real"
        )
    if (root / "derivatives" / "truth").exists() and not description["simulated"]:
        raise InputError(
            f"{path}: 'simulated' is false, but derivatives/truth holds a simulator's truth; allowed: true"
        )
    return description


def read_participants(root: Path) -> pd.DataFrame:
    """``participants.tsv`` as text, indexed by participant_id."""
    path = root / "participants.tsv"
    try:
        text = path.read_text(encoding="utf-8-sig")
        _check_rows(text, path)
        raw = pd.read_csv(
            io.StringIO(text), sep="\t", dtype=str, keep_default_na=False, index_col=False
        )
    except FileNotFoundError:
        raise InputError(f"{root}: participants.tsv is missing") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not in UTF-8; allowed: save the table as UTF-8") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        raise InputError(f"{path}: not a readable tab-separated table ({error})") from error
    if "participant_id" not in raw:
        raise InputError(f"{path}: column 'participant_id' is missing")
    if raw.empty:
        raise InputError(f"{path}: the table has no patients")
    doubled = raw["participant_id"][raw["participant_id"].duplicated()]
    if len(doubled):
        raise InputError(f"{path}: patient '{doubled.iloc[0]}' stands in more than one row")
    return raw.set_index("participant_id")


def _check_rows(text: str, path: Path) -> None:
    """Raise if columns are doubled, or a row has more or fewer fields than the header."""
    rows = csv.reader(io.StringIO(text), delimiter="\t")
    header = next(rows, [])
    if "participant_id" not in header:
        for mark, name in ((",", "commas"), (";", "semicolons")):
            if "participant_id" in [part.strip('"') for part in text.split("\n")[0].split(mark)]:
                raise InputError(f"{path}: columns are separated by {name}; allowed: tabs")
    for column in header:
        if header.count(column) > 1:
            raise InputError(f"{path}: column '{column}' stands in it twice")
    for row in rows:
        if row and len(row) != len(header):
            raise InputError(
                f"{path}, line {rows.line_num}: patient '{row[0]}' has {len(row)} fields; "
                f"allowed: {len(header)}, as in the header"
            )


def missing_codes(text: pd.Series) -> pd.Series:
    """The missing code of each value (``-99``, ``-98``, ``-97``), or "" where a value is present."""
    code = text.str.strip().replace(MISSING_TOKENS)
    return code.where(code.isin(list(MISSING_REASONS)), "")


def typed(raw: pd.DataFrame, dictionary: Dictionary) -> pd.DataFrame:
    """Text columns as typed values: quantities float64, codes as text, missing as NaN.

    Columns that the dictionary does not know are left out.

    Raises
    ------
    InputError
        For a quantity that is not a number, naming patient, column and value.
    """
    columns = {}
    for name in raw.columns:
        if name not in dictionary:
            continue
        text = raw[name].str.strip()
        present = missing_codes(raw[name]) == ""
        if not dictionary[name].is_quantity:
            columns[name] = text.where(present)
            continue
        numbers = pd.to_numeric(text.where(present), errors="coerce")
        wrong = present & ~np.isfinite(numbers.fillna(np.inf))
        if wrong.any():
            patient = wrong.idxmax()
            raise InputError(
                f"participants.tsv: patient '{patient}', column '{name}': '{text[patient]}' is not "
                f"a number; allowed: {dictionary[name].allowed}"
            )
        columns[name] = numbers.astype(float)
    return pd.DataFrame(columns, index=raw.index)
