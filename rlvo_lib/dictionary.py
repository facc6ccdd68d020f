"""The data dictionary: one file in REDCap's format that says what every column may hold.

Types, choices and ranges stand in REDCap's own columns. Timing, unit and missing codes stand in its
Field Annotation: ``@TIMING=PRE @UNIT='mmHg' @MISSING=-99,-97 @RANGE=0,1``.

Timing is one of

========================  ====================================================================
``PRE``                   known before the intervention: may be a predictor
``PRE_SENSITIVITY``       known before, but not the patient's biology (year, centre, vendor)
``INTRA``, ``POST``       known during or after the intervention: never a predictor
``ID``                    identifies a patient or a scan: never a predictor
``DERIVED``               computed from other columns: a predictor only if all of them may be
========================  ====================================================================
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from rlvo_lib.config import InputError

TIMINGS = ("PRE", "PRE_SENSITIVITY", "INTRA", "POST", "ID", "DERIVED")
MISSING_REASONS = {"-99": "not recorded", "-98": "not applicable", "-97": "not done"}
REDCAP_COLUMNS = (
    "Variable / Field Name", "Form Name", "Section Header", "Field Type", "Field Label",
    "Choices, Calculations, OR Slider Labels", "Field Note",
    "Text Validation Type OR Show Slider Number", "Text Validation Min", "Text Validation Max",
    "Identifier?", "Branching Logic (Show field only if...)", "Required Field?", "Custom Alignment",
    "Question Number (surveys only)", "Matrix Group Name", "Matrix Ranking?", "Field Annotation",
)  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One column of ``participants.tsv``."""

    name: str
    form: str
    type: str  # text | integer | number | radio | yesno | calc | datetime
    label: str
    choices: dict[str, str]  # code -> meaning, for radio and yesno
    low: float | None
    high: float | None
    unit: str
    missing: tuple[str, ...]  # codes allowed for a missing value
    timing: str
    required: bool
    note: str
    parents: tuple[str, ...]  # columns that a calculated field is made from

    @property
    def is_categorical(self) -> bool:
        """Whether the values are codes rather than quantities."""
        return self.type in ("radio", "yesno")

    @property
    def is_quantity(self) -> bool:
        """Whether the values are numbers on a scale."""
        return self.type in ("integer", "number") or (self.type == "calc" and bool(self.unit))

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.is_categorical:
            return ", ".join(f"{c} ({m})" if m != c else c for c, m in self.choices.items())
        if self.low is not None or self.high is not None:
            low = "" if self.low is None else f"{self.low:g}"
            high = "" if self.high is None else f"{self.high:g}"
            kind = "whole number " if self.type == "integer" else ""
            return f"{kind}{low} to {high}".strip() if high else f"{low} or more"
        if self.type == "datetime":
            return "date and time, YYYY-MM-DD HH:MM"
        return "sub- and letters or digits" if self.name == "participant_id" else "text"


@dataclass(frozen=True)
class Dictionary:
    """All columns of a study, in the order of the file."""

    fields: dict[str, Field]

    def __getitem__(self, name: str) -> Field:
        if name not in self.fields:
            raise InputError(f"column '{name}' is not in the data dictionary")
        return self.fields[name]

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def refuse_leakage(self, columns: tuple[str, ...]) -> None:
        """Raise if any of ``columns`` is not known before the intervention.

        A derived column is judged by the columns it is made from.

        Raises
        ------
        InputError
            Naming the first such column and its timing.
        """
        for column in columns:
            for source in self._sources(column):
                if self[source].timing != "PRE":
                    made_from = "" if source == column else f" (made from '{source}')"
                    raise InputError(
                        f"column '{column}'{made_from} cannot be a predictor: its timing is "
                        f"{self[source].timing}; allowed: PRE, known before the intervention"
                    )

    def _sources(self, column: str) -> tuple[str, ...]:
        field = self[column]
        if field.timing != "DERIVED" or not field.parents:
            return (column,)
        return tuple(source for parent in field.parents for source in self._sources(parent))


def load(path: str | Path) -> Dictionary:
    """Read a data dictionary.

    Raises
    ------
    InputError
        If the file is missing, lacks a REDCap column, or a row has no usable timing or range.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            lacking = [c for c in REDCAP_COLUMNS if c not in (reader.fieldnames or [])]
            if lacking:
                raise InputError(
                    f"{path.name}: column '{lacking[0]}' of a REDCap dictionary is missing"
                )
            fields = [
                _parse(row, f"{path.name}, line {line}") for line, row in enumerate(reader, 2)
            ]
    except FileNotFoundError:
        raise InputError(f"data dictionary {path} does not exist") from None
    names = [field.name for field in fields]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise InputError(f"{path.name}: column '{sorted(doubled)[0]}' is defined twice")
    return Dictionary({field.name: field for field in fields})


def _parse(row: dict[str, str], where: str) -> Field:
    name, annotation = row[REDCAP_COLUMNS[0]], row["Field Annotation"]
    marks = dict(re.findall(r"@(\w+)=('[^']*'|\S+)", annotation))
    timing = marks.get("TIMING", "")
    if timing not in TIMINGS:
        raise InputError(
            f"{where}: timing of '{name}' is '{timing}'; allowed: {', '.join(TIMINGS)}"
        )
    kind, validation = row["Field Type"], row["Text Validation Type OR Show Slider Number"]
    if kind == "text" and validation:
        kind = "datetime" if validation.startswith("date") else validation
    choices_text = row["Choices, Calculations, OR Slider Labels"]
    choices: dict[str, str] = {}
    if kind == "radio":
        for choice in choices_text.split("|"):
            code, _, meaning = choice.strip().partition(",")
            choices[code.strip()] = meaning.strip()
    if kind == "yesno":
        choices = {"0": "no", "1": "yes"}
    low, high = row["Text Validation Min"], row["Text Validation Max"]
    if "RANGE" in marks:
        low, _, high = marks["RANGE"].partition(",")
    return Field(
        name=name,
        form=row["Form Name"],
        type=kind,
        label=row["Field Label"],
        choices=choices,
        low=float(low) if low else None,
        high=float(high) if high else None,
        unit=marks.get("UNIT", "").strip("'"),
        missing=tuple(code for code in marks.get("MISSING", "").split(",") if code),
        timing=timing,
        required=row["Required Field?"].lower() == "y",
        note=row["Field Note"],
        parents=tuple(dict.fromkeys(re.findall(r"\[(\w+)\]", choices_text)))
        if kind == "calc"
        else (),
    )


def render(dictionary: Dictionary, title: str) -> str:
    """The dictionary as a Markdown page (``data_dictionary.md``)."""
    lines = [
        f"# Data dictionary: {title}",
        "",
        "Rendered from the study's `data_dictionary.csv` (REDCap format) by `make dictionary`; edit",
        "that file, not this page.",
        "",
        "One row of `participants.tsv` is one patient. Missing values are coded "
        + ", ".join(f"{code} ({reason})" for code, reason in MISSING_REASONS.items())
        + "; `n/a` and empty cells are read as not recorded.",
        "Only columns with timing PRE may be predictors; a DERIVED column is judged by the columns it",
        "is made from.",
    ]
    form = None
    for field in dictionary.fields.values():
        if field.form != form:
            form = field.form
            lines += [
                "",
                f"## {form}",
                "",
                "| column | meaning | allowed | unit | timing | missing | note |",
            ]
            lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        cells = (
            f"`{field.name}`", field.label, field.allowed, field.unit, field.timing,
            ", ".join(field.missing), field.note,
        )  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Render the default study's dictionary into ``data_dictionary.md`` of the checkout."""
    from rlvo_lib import storage
    from rlvo_lib.config import load_study, project_root

    study = load_study()
    page = render(load(study.dictionary_path), study.outcome_label)
    storage.write_text(project_root() / "data_dictionary.md", page)


if __name__ == "__main__":
    main()
