"""The clinical values of ISLES'24: one small table a patient and session, under the rLVO study's columns.

Read are ``<patient>_ses-01_demographic_baseline`` and ``<patient>_ses-02_outcome``, as .csv or .xlsx
(both were published), wherever they lie below ``phenotype``. Their columns are known from programs that
read the published files; the publisher's description of them was not at hand. Nothing is guessed: a
column is taken only if its name has one meaning here (`COLUMNS`), a value only in the form expected;
any other is "not recorded" (-99), and listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlvo_lib.config import InputError
from rlvo_lib.intake import read_sheet

MISSING_CODE = "-99"
MISSING = {"", "nan", "na", "n/a", "none", "-"}
SOONEST_MIN, LATEST_MIN = 10, 1440  # of lkw_to_ct_min in the data dictionary
Line = tuple[str, str, str]  # what, value, detail: of the report


@dataclass(frozen=True)
class Column:
    """A column of the dataset, the source's it is read from (lower case), and how."""

    name: str
    source: str
    read: Callable[[str], str | None]  # None: no reading


def _whole(highest: int) -> Callable[[str], str | None]:
    """A whole number from 0, perhaps written as a float."""

    def read(text: str) -> str | None:
        found = re.fullmatch(r"(\d{1,3})(\.0+)?", text)
        return str(int(found[1])) if found and int(found[1]) <= highest else None

    return read


def _age(text: str) -> str | None:
    """Completed years."""
    found = re.fullmatch(r"(\d{1,3})(\.\d+)?", text)
    return str(int(found[1])) if found and int(found[1]) <= 120 else None


def _sex(text: str) -> str | None:
    return {"f": "0", "female": "0", "m": "1", "male": "1"}.get(text.lower())


def _centre(text: str) -> str | None:
    found = re.fullmatch(r"(?:cent(?:er|re)[ _-]?)?(\d{1,2})(\.0+)?", text.lower())
    return f"centre{int(found[1])}" if found else None


#: What has one clear counterpart in the rLVO study's data dictionary, in its order.
COLUMNS = (
    Column("centre", "center", _centre),
    Column("age", "age", _age),
    Column("sex", "sex", _sex),
    Column("hypertension", "hypertension", _whole(1)),
    Column("diabetes", "diabetes", _whole(1)),
    Column("dyslipidemia", "hyperlipidemia", _whole(1)),
    Column("af_known", "atrial fibrillation", _whole(1)),
    Column("antiplatelet", "pais", _whole(1)),
    Column("pre_mrs", "mrs premorbid", _whole(5)),
    Column("nihss_adm", "nihss at admission", _whole(42)),
    Column("nihss_24h", "nihss 24h", _whole(42)),
    Column("mrs_90d", "mrs 3 months", _whole(6)),
)
LKW = "lkw_to_ct_min"
TABLE_COLUMNS = (*(column.name for column in COLUMNS[:10]), LKW, "nihss_24h", "mrs_90d")
TIMES = ("wake-up", "onset to door", "door to imaging")
#: Left out, and why: in the report once.
LEFT_OUT = {
    "anticoagulation": "the kind of drug is not told",
    "glucose": "its unit is not told",
    "wake-up": "0 does not tell a witnessed onset from an unknown one; it decides on lkw_to_ct_min",
    "in-house": "no counterpart",
    "referral": "whether it is a transfer from another hospital is not told",
    "mrs at admission": "no counterpart",
    "lipid lowering drugs": "no counterpart",
    "leucocytes": "no counterpart",
    "crp": "no counterpart",
    "inr": "no counterpart",
    "alert to door": "no counterpart",
    "door to groin": "no counterpart",
    "door to first series": "no counterpart",
    "time of intervention": "no counterpart",
    "door to recanalization": "no counterpart",
    "nihss discharge": "no counterpart",
    "mrs 24h": "no counterpart",
    "mrs discharge": "no counterpart",
    "tici postinterventional": (
        "one of three sources of the outcome; alone it would make cases, and no controls"
    ),
}
LEFT_OUT["mtici postinterventional"] = LEFT_OUT["tici postinterventional"]
#: Headers as they were published: a table that has none of them is another one.
HEADERS = {
    "Age", "Sex", "Center", "NIHSS at admission", "mRS premorbid", "mRS 3 months", "MRS 3 months", "NIHSS 24h",
    "mRS 24h", "mRS discharge", "NIHSS discharge", "TICI postinterventional", "mTici postinterventional",
}  # fmt: skip


def read_patient(folder: Path, patient: str) -> tuple[dict[str, str], list[Line], set[str]]:
    """A patient's values by column, what is to be reported of them, and the source's columns."""
    cells, lines = {}, []
    for part in ("demographic_baseline", "outcome"):
        files = sorted(
            path
            for kind in ("csv", "xlsx")
            for path in folder.rglob(f"{patient}_*{part}*.{kind}")
            if path.is_file() and not path.name.startswith((".", "~"))
        )
        if not files:
            lines.append(("no clinical file", part, "its columns are -99"))
            continue
        try:
            cells |= _cells(files[0])
        except InputError as error:
            reason = str(error).replace(f"{files[0]}: ", "")
            lines.append(("file that cannot be used", files[0].name, reason))
    row = {}
    for column in COLUMNS:
        row[column.name], problem = _value(cells, column.source, column.read)
        lines += problem
    row[LKW], problem = _last_known_well(cells)
    return {name: row[name] for name in TABLE_COLUMNS}, [*lines, *problem], set(cells)


def _cells(file: Path) -> dict[str, str]:
    """The first row of a table, by lower-case header."""
    sheet = read_sheet(file, HEADERS)
    if len(sheet.cells) != 1:
        raise InputError(f"{file}: has {len(sheet.cells)} rows; allowed: one, the patient's")
    return {str(k).lower(): str(v).strip() for k, v in sheet.cells.iloc[0].items()}


def _value(
    cells: dict[str, str], source: str, read: Callable[[str], str | None]
) -> tuple[str, list[Line]]:
    text = cells.get(source, "")
    if text.lower() in MISSING:
        return MISSING_CODE, []
    value = read(text)
    if value is None:
        return MISSING_CODE, [("value without a reading", f"{source}: {text}", "-99")]
    return value, []


def _last_known_well(cells: dict[str, str]) -> tuple[str, list[Line]]:
    """Minutes from onset to imaging, the sum of two intervals; only for a known time of onset.

    After a wake-up stroke "onset" may be the time of waking: then it is not recorded (-99).
    """
    if cells.get("wake-up", "") not in ("0", "0.0"):
        return MISSING_CODE, []
    texts = {name: cells.get(name, "") for name in TIMES[1:]}
    if any(text.lower() in MISSING for text in texts.values()):
        return MISSING_CODE, []
    parts = {name: minutes(text) for name, text in texts.items()}
    bad = [(f"{name}: {texts[name]}") for name, part in parts.items() if part is None]
    if bad:
        return MISSING_CODE, [("value without a reading", "; ".join(bad), "-99")]
    total = round(sum(parts.values()))
    if not SOONEST_MIN <= total <= LATEST_MIN:
        detail = f"{total} min; allowed: {SOONEST_MIN} to {LATEST_MIN}"
        said = "; ".join(f"{name}: {text}" for name, text in texts.items())
        return MISSING_CODE, [("value without a reading", said, detail)]
    return str(total), []


def minutes(text: str) -> float | None:
    """An interval as it is written in the source, in minutes; None if it is none.

    >>> minutes("1:30:00"), minutes("1 day, 2:00:30"), minutes("0 days 00:20:00"), minutes("90")
    (90.0, 1560.5, 20.0, None)
    """
    found = re.fullmatch(r"(?:(\d+) days?,? )?(\d{1,3}):([0-5]\d)(?::([0-5]\d)(?:\.\d+)?)?", text)
    if not found:
        return None
    days, hours, mins, seconds = (float(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + mins + seconds / 60
