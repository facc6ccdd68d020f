"""The two files of a study's dictionary, read: fields, and the leakage register beside them."""

from __future__ import annotations

import re
from pathlib import Path

from rlvo_lib.config import InputError
from rlvo_lib.dictionary import annotation, redcap
from rlvo_lib.dictionary.fields import TIMINGS, Dictionary, Field
from rlvo_lib.dictionary.leakage import REGISTER, load_register, spelling
from rlvo_lib.dictionary.rows import read_rows

#: REDCap field types that are one column of a table, and what they are here ("text": by validation).
KINDS = {
    "text": "text", "notes": "text", "radio": "radio", "dropdown": "radio", "yesno": "yesno",
    "truefalse": "yesno", "calc": "calc",
}  # fmt: skip


def load(path: str | Path) -> Dictionary:
    """Read a data dictionary, and the leakage register beside it if there is one.

    Raises
    ------
    InputError
        If the file is missing or not REDCap's format; if a row has no usable type, choices, range,
        timing or annotation; if a calculated field refers to an unknown field or to itself; or if a
        field that the leakage register names is marked as known before the intervention.
    """
    path = Path(path)
    fields: dict[str, Field] = {}
    for line, row in read_rows(path, "REDCap dictionary", redcap.REDCAP_COLUMNS):
        parsed = _parse(row, f"{path.name}, line {line}")
        if parsed.name in fields:
            raise InputError(f"{path.name}: column '{parsed.name}' is defined twice")
        fields[parsed.name] = parsed
    dictionary = Dictionary(fields, load_register(path.parent / REGISTER))
    _check_parents(dictionary, path.name)
    _check_register(dictionary, path.name)
    return dictionary


def _parse(row: dict[str, str], line: str) -> Field:
    name = row[redcap.VARIABLE]
    where = f"{line}, field '{name}'"
    marks = annotation.read_marks(row[redcap.ANNOTATION], where)
    timing = marks.get("TIMING", "")
    if timing not in TIMINGS:
        raise InputError(f"{line}: timing of '{name}' is '{timing}'; allowed: {', '.join(TIMINGS)}")
    kind, logic = _kind(row, where), row[redcap.CHOICES] if row[redcap.TYPE] == "calc" else ""
    low, high = _range(row, marks, kind, where)
    ratio = re.fullmatch(r"\s*\[(\w+)\]\s*/\s*\[(\w+)\]\s*", logic)
    parsed = Field(
        name=name,
        form=row[redcap.FORM],
        type=kind,
        label=row[redcap.LABEL],
        choices=_choices(row, where),
        low=low,
        high=high,
        unit=marks.get("UNIT", ""),
        missing=annotation.missing(marks, where),
        timing=timing,
        required=row[redcap.REQUIRED].lower() == "y",
        note=row[redcap.NOTE],
        parents=redcap.variables(logic),
        section=row[redcap.SECTION],
        other_units=annotation.other_units(marks, where),
        spelling=marks.get("SPELLING", ""),
        transform=marks.get("TRANSFORM", ""),
        impute="IMPUTE" not in marks,
        ratio=(ratio[1], ratio[2]) if ratio else None,
    )
    annotation.check(parsed, marks, where)
    return parsed


def _kind(row: dict[str, str], where: str) -> str:
    kind = KINDS.get(row[redcap.TYPE])
    if kind is None:
        raise InputError(
            f"{where}: field type '{row[redcap.TYPE]}' is not one column of a table; allowed: "
            f"{', '.join(KINDS)}"
        )
    validation = row[redcap.VALIDATION]
    if kind != "text" or not validation:
        return kind
    if validation not in redcap.VALIDATIONS:
        raise InputError(
            f"{where}: validation type '{validation}' is not REDCap's; allowed: "
            f"{', '.join(redcap.VALIDATIONS)}"
        )
    for stem, meaning in (("integer", "integer"), ("number", "number"), ("date", "datetime")):
        if validation.startswith(stem):
            return meaning
    return kind


def _choices(row: dict[str, str], where: str) -> dict[str, str]:
    if row[redcap.TYPE] in ("yesno", "truefalse"):
        words = ("no", "yes") if row[redcap.TYPE] == "yesno" else ("false", "true")
        return dict(zip(("0", "1"), words, strict=True))
    if KINDS[row[redcap.TYPE]] != "radio":
        return {}
    choices: dict[str, str] = {}
    for choice in row[redcap.CHOICES].split("|"):
        code, comma, meaning = (part.strip() for part in choice.partition(","))
        if not code or not comma or code in choices:
            raise InputError(
                f"{where}: choice '{choice.strip()}' is doubled or malformed; allowed: "
                "code, meaning | code, meaning"
            )
        choices[code] = meaning
    return choices


def _range(
    row: dict[str, str], marks: dict[str, str], kind: str, where: str
) -> tuple[float | None, float | None]:
    """The lowest and highest value of a quantity; dates and text have none."""
    low, high = row[redcap.LOW], row[redcap.HIGH]
    if "RANGE" in marks:
        low, comma, high = (part.strip() for part in marks["RANGE"].partition(","))
        if not comma:
            raise InputError(f"{where}: @RANGE is '{marks['RANGE']}'; allowed: low,high")
    elif kind not in ("integer", "number"):
        return None, None
    ends = [annotation.number(end, where) if end else None for end in (low, high)]
    if None not in ends and ends[0] > ends[1]:
        raise InputError(f"{where}: range is {low} to {high}; allowed: the lower number first")
    return ends[0], ends[1]


def _check_parents(dictionary: Dictionary, file: str) -> None:
    """Raise if a calculated field is made from an unknown field, or from itself by any way."""

    def walk(name: str, trail: tuple[str, ...]) -> None:
        for parent in dictionary.fields[name].parents:
            if parent not in dictionary:
                raise InputError(f"{file}: field '{name}' is calculated from '{parent}', "
                                 "which is not defined; allowed: fields of this file")  # fmt: skip
            if parent in (*trail, name):
                raise InputError(f"{file}: field '{parent}' is calculated from itself")
            walk(parent, (*trail, name))

    for name in dictionary.fields:
        walk(name, ())


def _check_register(dictionary: Dictionary, file: str) -> None:
    """Raise if the register names an unknown field, or the dictionary lets a registered one through."""
    for entry in dictionary.register.values():
        if entry.field and entry.field not in dictionary:
            raise InputError(
                f"{REGISTER}: field of '{entry.name}' is '{entry.field}'; allowed: a field of {file}, or "
                "empty"
            )
    for name, column in dictionary.fields.items():
        entry = dictionary.register.get(spelling(name))
        if entry is None or column.timing not in ("PRE", "PRE_SENSITIVITY"):
            continue
        if column.timing != entry.timing:
            raise InputError(
                f"{file}: field '{name}' has timing {column.timing}, but the leakage register names it "
                f"('{entry.name}': {entry.why}); allowed: {entry.timing}"
            )
