"""The marks of a Field Annotation, ``@NAME=value`` or ``@NAME='value'``: what REDCap has no column for.

The package's docstring lists them. Other text in the annotation is a remark; a mark that is not known
is refused, so that a misspelt one cannot pass unseen. ``where`` is the place that errors name.
"""

from __future__ import annotations

import math
import re

from rlvo_lib.config import InputError
from rlvo_lib.dictionary.fields import MISSING_REASONS, Field

MARKS = ("TIMING", "UNIT", "MISSING", "RANGE", "OTHER_UNITS", "SPELLING", "IMPUTE", "TRANSFORM")
#: Marks that take one of a few words.
WORDS = {"SPELLING": ("TICI",), "IMPUTE": ("never",), "TRANSFORM": ("log1p",)}


def read_marks(annotation: str, where: str) -> dict[str, str]:
    """Name and value of each mark.

    >>> read_marks("@TIMING=PRE @UNIT='mL/100 g' agreed in March", "line 2")
    {'TIMING': 'PRE', 'UNIT': 'mL/100 g'}
    """
    marks: dict[str, str] = {}
    for text in re.findall(r"(?<!\S)@[^\s'=]*(?:='[^']*'\S*|=\S*)?", annotation):
        name, equals, value = text[1:].partition("=")
        if name not in MARKS:
            allowed = ", ".join(f"@{mark}" for mark in MARKS)
            raise InputError(f"{where}: annotation '@{name}' is unknown; allowed: {allowed}")
        value = (value[1:-1] if re.fullmatch(r"'[^']*'", value) else value).strip()
        if not equals or not value or "'" in value:
            raise InputError(
                f"{where}: annotation '{text}' is malformed; allowed: @{name}=value or "
                f"@{name}='value', without a space around '='"
            )
        if value not in WORDS.get(name, (value,)):
            raise InputError(
                f"{where}: @{name} is '{value}'; allowed: {', '.join(WORDS.get(name, ()))}"
            )
        if name in marks:
            raise InputError(f"{where}: annotation '@{name}' stands there twice; allowed: once")
        marks[name] = value
    return marks


def number(text: str, where: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: '{text}' is not a number; allowed: as 12 or 0.5")
    return value


def missing(marks: dict[str, str], where: str) -> tuple[str, ...]:
    """The codes of ``@MISSING=-99,-97``."""
    if "MISSING" not in marks:
        return ()
    codes = tuple(marks["MISSING"].split(","))
    if len(set(codes)) < len(codes) or not set(codes) <= set(MISSING_REASONS):
        raise InputError(
            f"{where}: @MISSING is '{marks['MISSING']}'; allowed: {', '.join(MISSING_REASONS)}, each "
            "once, with commas and no space between"
        )
    return codes


def other_units(marks: dict[str, str], where: str) -> dict[str, float]:
    """Unit and factor of each part of ``@OTHER_UNITS='mmol/L:18.0156,g/L:100'``."""
    units: dict[str, float] = {}
    for part in marks["OTHER_UNITS"].split(",") if "OTHER_UNITS" in marks else ():
        unit, _, factor = (piece.strip() for piece in part.rpartition(":"))
        good = unit and unit not in units and unit != marks.get("UNIT")
        if not good or number(factor, f"{where}: @OTHER_UNITS") <= 0:
            raise InputError(
                f"{where}: @OTHER_UNITS has '{part}'; allowed: unit:factor, the factor above 0, each "
                "unit once and not the column's own"
            )
        units[unit] = float(factor)
    return units


def check(field: Field, marks: dict[str, str], where: str) -> None:
    """Raise if a mark does not fit the column it stands at."""
    if field.spelling and not field.is_categorical:
        raise InputError(f"{where}: @SPELLING is for codes; allowed: at a column with choices")
    for mark in ("RANGE", "OTHER_UNITS", "TRANSFORM"):
        if mark in marks and not (field.is_quantity and field.unit):
            raise InputError(f"{where}: @{mark} is for quantities; allowed: beside a @UNIT")
    high = math.inf if field.high is None else field.high
    for code in field.missing:
        if field.low is not None and field.low <= float(code) <= high:
            raise InputError(
                f"{where}: missing code {code} is also a value of the range {field.allowed}; allowed: "
                "a range that holds no missing code"
            )
