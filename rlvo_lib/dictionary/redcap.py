"""REDCap's own rules for a data dictionary that is to be imported.

The rules are those that REDCap's help pages and university guides to it document: the 18 columns, names
of fields and forms, field types, choices, calculations, validation, branching logic, matrices. A rule is
a function of one row that yields ``(column, value, allowed)`` for each breach; `redcap_faults` puts line
and field before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rlvo_lib.dictionary.rows import read_cells

REDCAP_COLUMNS = (
    "Variable / Field Name", "Form Name", "Section Header", "Field Type", "Field Label",
    "Choices, Calculations, OR Slider Labels", "Field Note",
    "Text Validation Type OR Show Slider Number", "Text Validation Min", "Text Validation Max",
    "Identifier?", "Branching Logic (Show field only if...)", "Required Field?", "Custom Alignment",
    "Question Number (surveys only)", "Matrix Group Name", "Matrix Ranking?", "Field Annotation",
)  # fmt: skip
(
    VARIABLE, FORM, SECTION, TYPE, LABEL, CHOICES, NOTE, VALIDATION, LOW, HIGH, IDENTIFIER, BRANCHING,
    REQUIRED, ALIGNMENT, QUESTION, MATRIX, RANKING, ANNOTATION,
) = REDCAP_COLUMNS  # fmt: skip

FIELD_TYPES = (
    "text", "notes", "radio", "dropdown", "checkbox", "yesno", "truefalse", "calc", "file", "slider",
    "descriptive",
)  # fmt: skip
WITH_CHOICES = ("radio", "dropdown", "checkbox")
#: How the ends of a range are written for dates and times: year first, whatever order is shown.
MOMENTS = {
    f"{kind}_{order}": "%Y-%m-%d" + time
    for kind, time in (("date", ""), ("datetime", " %H:%M"), ("datetime_seconds", " %H:%M:%S"))
    for order in ("ymd", "mdy", "dmy")
} | {"time": "%H:%M", "time_mm_ss": "%M:%S", "time_hh_mm_ss": "%H:%M:%S"}
PLACES = ("", "_1dp", "_2dp", "_3dp", "_4dp")
NUMBERS = tuple(f"number{dp}{comma}" for comma in ("", "_comma_decimal") for dp in PLACES)
VALIDATIONS = (
    "integer", *NUMBERS, *MOMENTS, "email", "phone", "phone_australia", "phone_uk", "zipcode",
    "postalcode_australia", "postalcode_canada", "postalcode_french", "postalcode_germany", "ssn",
    "vmrn", "mrn_10d", "mrn_generic", "alpha_only",
)  # fmt: skip
#: What the validation column may hold at field types other than text.
OTHER_VALIDATIONS = {
    "slider": ("number",), "file": ("signature", "enhanced_signature"), "dropdown": ("autocomplete",),
}  # fmt: skip
RESERVED = (
    "redcap_event_name", "redcap_data_access_group", "redcap_repeat_instrument",
    "redcap_repeat_instance", "redcap_survey_identifier",
)  # fmt: skip
MAX_NAME = 100
NAME_RULE = (
    "lower-case letters, digits and single underscores, beginning with a letter, not ending in an "
    f"underscore, at most {MAX_NAME} characters (26 advised)"
)

Row = dict[str, str]
Breach = tuple[str, str, str]  # column, value, what is allowed


@dataclass(frozen=True)
class _Sheet:
    """What a rule must know beyond its own row."""

    rows: list[tuple[int, Row]]
    names: frozenset[str]
    forms: frozenset[str]

    @property
    def referable(self) -> frozenset[str]:
        """What logic may refer to: fields, and REDCap's own completion status of each form."""
        return self.names | {f"{form}_complete" for form in self.forms}


def redcap_faults(path: str | Path) -> list[str]:
    """Every breach of REDCap's rules in a dictionary file, in the order of the file.

    Each is one line: file line, field, column, value, what is allowed. An empty list means that the
    file can be imported into a REDCap project.

    Raises
    ------
    InputError
        If the file is missing, not in UTF-8, or no CSV.
    """
    (_, header), *cells = read_cells(Path(path), "REDCap dictionary") or [(1, [])]
    if tuple(header) != REDCAP_COLUMNS:
        return [_header_fault(header)]
    if not cells:
        return [
            "line 2: the file has no field; allowed: a row for each, the record identifier first"
        ]
    uneven = [
        f"line {line}: has {len(row)} cells; allowed: {len(REDCAP_COLUMNS)}"
        for line, row in cells
        if len(row) != len(REDCAP_COLUMNS)
    ]
    if uneven:
        return uneven
    rows = [(line, dict(zip(REDCAP_COLUMNS, row, strict=True))) for line, row in cells]
    sheet = _Sheet(
        rows, frozenset(r[VARIABLE] for _, r in rows), frozenset(r[FORM] for _, r in rows)
    )
    return [
        f"line {line}, field '{row[VARIABLE]}': {column} is '{value}'; allowed: {allowed}"
        for place, (line, row) in enumerate(rows)
        for rule in RULES
        for column, value, allowed in rule(place, row, sheet)
    ]


def _header_fault(header: list[str]) -> str:
    for place, column in enumerate(REDCAP_COLUMNS):
        found = header[place] if place < len(header) else ""
        if found != column:
            return f"line 1: column {place + 1} is '{found}'; allowed: '{column}'"
    return (
        f"line 1: column {len(REDCAP_COLUMNS) + 1} is '{header[len(REDCAP_COLUMNS)]}'; allowed: no "
        f"column beyond the {len(REDCAP_COLUMNS)}"
    )


def variables(logic: str) -> tuple[str, ...]:
    """The fields that an equation or a branching logic refers to, in order, each once.

    >>> variables("if([a] > 0 or [b(1)] = '[not this]', [event_1][a], 0)")
    ('a', 'b')
    """
    plain = r"\[\w+(?:\(\w+\))?(?::\w+)?\]"  # [field], [field(code)], [field:value]
    # a bracket right before another one is an event
    events_gone = re.sub(rf"\[\w+\](?={plain})", "", _unquoted(logic))
    references = re.findall(plain, events_gone)
    return tuple(dict.fromkeys(re.findall(r"\w+", reference)[0] for reference in references))


def _unquoted(logic: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"]*\"", "", logic)


def _is_balanced(logic: str) -> bool:
    """Whether quotes are closed, and brackets and parentheses closed in the order they were opened."""
    bare, opened = _unquoted(logic), []
    if "'" in bare or '"' in bare:
        return False
    for mark in bare:
        if mark in "([":
            opened.append(mark)
        elif mark in ")]" and (not opened or opened.pop() != "(["[")]".index(mark)]):
            return False
    return not opened


def _names(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    name = row[VARIABLE]
    good = re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) and len(name) <= MAX_NAME
    if not good:
        yield VARIABLE, name, NAME_RULE
    if name in [earlier[VARIABLE] for _, earlier in sheet.rows[:place]]:
        yield VARIABLE, name, "each name once"
    system = [f"{form}_{end}" for form in sheet.forms for end in ("complete", "timestamp")]
    if name in (*RESERVED, *system):
        yield VARIABLE, name, "a name that REDCap does not keep for itself"


def _record_identifier(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    if place == 0 and row[TYPE] != "text":
        yield TYPE, row[TYPE], "text, since the first field is the record identifier"


def _forms(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    form, before = row[FORM], [earlier[FORM] for _, earlier in sheet.rows[:place]]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", form):
        yield FORM, form, "lower-case letters, digits and underscores, beginning with a letter"
    if form in before and before[-1] != form:
        yield FORM, form, f"the fields of a form together; '{before[-1]}' stands between"


def _types(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    if row[TYPE] not in FIELD_TYPES:
        yield TYPE, row[TYPE], ", ".join(FIELD_TYPES)
    if not row[LABEL].strip():
        yield LABEL, row[LABEL], "some text"


def _choices(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    text = row[CHOICES]
    if row[TYPE] in ("text", "notes", "yesno", "truefalse", "file", "descriptive"):
        if text:
            yield CHOICES, text, f"nothing at a field of type {row[TYPE]}"
        return
    if row[TYPE] not in WITH_CHOICES:
        return
    codes = []
    for choice in text.split("|"):
        code, _, label = (part.strip() for part in choice.partition(","))
        if not code or not label:
            yield CHOICES, choice.strip(), "code, label | code, label, none of them empty"
        elif not re.fullmatch(r"[A-Za-z0-9_]+|-[0-9]+", code):
            yield CHOICES, code, "codes of letters, digits and underscores, or a negative number"
        elif code in codes:
            yield CHOICES, code, "each code once"
        codes.append(code)


def _calculations(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    if row[TYPE] != "calc":
        return
    if not row[CHOICES].strip():
        yield CHOICES, row[CHOICES], "an equation"
    yield from _logic(CHOICES, row, sheet)
    if row[VARIABLE] in variables(row[CHOICES]):
        yield CHOICES, row[CHOICES], "an equation that does not refer to its own field"


def _branching(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    yield from _logic(BRANCHING, row, sheet)


def _logic(column: str, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    if not _is_balanced(row[column]):
        yield column, row[column], "brackets, parentheses and quotes that are closed"
    for name in variables(row[column]):
        if name not in sheet.referable:
            yield column, f"[{name}]", "a field of this file"


def _validation(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    kind, validation = row[TYPE], row[VALIDATION]
    if not validation:
        return
    allowed = VALIDATIONS if kind == "text" else OTHER_VALIDATIONS.get(kind, ())
    if validation not in allowed:
        yield (
            VALIDATION, validation,
            ", ".join(allowed) if allowed else f"nothing at a field of type {kind}",
        )  # fmt: skip


def _range(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    validation = row[VALIDATION] if row[TYPE] == "text" else ""
    read = _end_of_range(validation)
    ends = []
    for column in (LOW, HIGH):
        text = row[column]
        if not text:
            continue
        if read is None:
            yield column, text, "nothing without a validation of integer, number, date or time"
            continue
        # REDCap also takes another field as the end of a range, and for dates today and now
        if re.fullmatch(r"\[\w+\]", text):
            if text[1:-1] not in sheet.names:
                yield column, text, "a field of this file"
            continue
        if text in ("today", "now") and validation in MOMENTS:
            continue
        try:
            ends.append(read(text))
        except ValueError:
            yield column, text, f"a value of validation type {validation}"
    if len(ends) == 2 and ends[0] > ends[1]:
        yield LOW, row[LOW], f"at most {HIGH}, '{row[HIGH]}'"


def _end_of_range(validation: str) -> Callable[[str], float | datetime] | None:
    """How the end of a range is read for a validation type; None where it has no range."""
    if validation == "integer" or validation in NUMBERS:
        mark = "," if "comma" in validation else r"\."
        pattern = r"-?\d+" if validation == "integer" else rf"-?\d+({mark}\d+)?"
        return lambda text: _number(text, pattern)
    if validation in MOMENTS:
        return lambda text: datetime.strptime(text, MOMENTS[validation])
    return None


def _number(text: str, pattern: str) -> float:
    if not re.fullmatch(pattern, text):
        raise ValueError(f"'{text}' is not a number")
    return float(text.replace(",", "."))


def _flags(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    for column in (IDENTIFIER, REQUIRED, RANKING):
        if row[column] not in ("", "y"):
            yield column, row[column], "y or empty"
    if row[ALIGNMENT] not in ("", "RV", "RH", "LV", "LH"):
        yield ALIGNMENT, row[ALIGNMENT], "RV, RH, LV, LH or empty"


def _matrices(place: int, row: Row, sheet: _Sheet) -> Iterator[Breach]:
    matrix = row[MATRIX]
    if row[RANKING] and (not matrix or row[TYPE] != "radio"):
        yield RANKING, row[RANKING], "only in a matrix of radio fields"
    if not matrix:
        return
    if not re.fullmatch(r"[a-z0-9_]+", matrix) or matrix in sheet.names:
        yield MATRIX, matrix, "lower-case letters, digits and underscores, and no field's name"
    if row[TYPE] not in ("radio", "checkbox"):
        yield TYPE, row[TYPE], "radio or checkbox in a matrix"
    before = [earlier for _, earlier in sheet.rows[:place]]
    group = [earlier for earlier in before if earlier[MATRIX] == matrix]
    if group and before[-1][MATRIX] != matrix:
        yield MATRIX, matrix, "the fields of a matrix together"
    if group and (group[0][CHOICES], group[0][TYPE]) != (row[CHOICES], row[TYPE]):
        yield CHOICES, row[CHOICES], f"type and choices of the matrix, '{group[0][CHOICES]}'"


RULES = (
    _names, _record_identifier, _forms, _types, _choices, _calculations, _branching, _validation,
    _range, _flags, _matrices,
)  # fmt: skip
