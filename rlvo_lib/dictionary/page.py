"""The dictionary as a page to read (``data_dictionary.md``): what each column means, and why it is kept."""

from __future__ import annotations

from collections.abc import Iterable

from rlvo_lib.dictionary.fields import MISSING_REASONS, SETTING, Dictionary, Field
from rlvo_lib.dictionary.reading import load

TIMING_MEANINGS = {
    "PRE": "known when the prediction is made, before the intervention: may be a predictor",
    "PRE_SENSITIVITY": "known before the intervention, but not the patient's biology (year, operator, "
    f"software): a predictor only in sensitivity analyses, with the setting `{SETTING}`",
    "INTRA": "becomes known during the intervention: never a predictor",
    "POST": "becomes known afterwards: never a predictor",
    "ID": "identifies a patient or a scan: never a predictor",
    "DERIVED": "calculated from other columns: a predictor only if every one of them may be",
}
HEADER = (
    "column",
    "meaning",
    "allowed",
    "unit",
    "other units",
    "timing",
    "missing",
    "why, and source",
)


def render(dictionary: Dictionary, title: str) -> str:
    """The dictionary as a Markdown page, form by form; ``title`` is the name of the outcome."""
    register = " and `leakage_register.csv`" if dictionary.register else ""
    lines = [
        f"# Data dictionary: {title}",
        "",
        f"Rendered from the study's `data_dictionary.csv`{register} by `make dictionary`; edit",
        "that, not this page.",
        "",
        "One row of `participants.tsv` is one patient.",
        *_how_to_read(),
    ]
    form = None
    for field in dictionary.fields.values():
        if field.form != form:
            form = field.form
            lines += ["", f"## {field.section or form}", "", *_table(HEADER, ())]
        lines.append(_row(_cells(field)))
    return "\n".join(lines + _register(dictionary)) + "\n"


def _how_to_read() -> list[str]:
    return [
        "",
        "## When a value becomes known",
        "",
        *_table(("timing", "meaning"), TIMING_MEANINGS.items()),
        "",
        "## When a value is missing",
        "",
        *_table(("code", "meaning"), MISSING_REASONS.items()),
        "",
        "`n/a` and empty cells are read as not recorded, which a column that may be not done therefore allows",
        "too. Each column lists the codes it may hold.",
        "",
        "## In REDCap",
        "",
        "`data_dictionary.csv` is a REDCap data dictionary: upload it in a project under Data Dictionary.",
        "The codes of missing values lie outside the ranges that REDCap checks. Enter them once in the",
        "project, under Project Setup, Additional Customizations, Missing Data Codes:",
        "",
        *(f"    {code}, {reason}" for code, reason in MISSING_REASONS.items()),
        "",
        "Values in other units need not be converted by hand: where a column lists them, `rlvo import`",
        "multiplies by the factor given.",
    ]


def _cells(field: Field) -> tuple[str, ...]:
    allowed = field.allowed
    if field.ratio:
        allowed += f"; calculated: {field.ratio[0]} / {field.ratio[1]}"
    if field.transform == "log1p":
        allowed += "; models see log(1 + value)"
    if field.spelling:
        allowed += f"; other spellings of {field.spelling} grades are read on import"
    missing = ", ".join(field.missing) or ("none: required" if field.required else "")
    return (
        f"`{field.name}`",
        field.label,
        allowed,
        field.unit,
        ", ".join(f"{unit} × {factor:g}" for unit, factor in field.other_units.items()),
        field.timing,
        missing if field.impute else f"{missing}; never filled in",
        field.note,
    )


def _register(dictionary: Dictionary) -> list[str]:
    entries = dict.fromkeys(dictionary.register.values())
    if not entries:
        return []
    return [
        "",
        "## Leakage register",
        "",
        "These names are refused as predictors in any spelling, whatever the dictionary says of them, and",
        f"also where it has no such column; only PRE_SENSITIVITY ones pass with the setting `{SETTING}`.",
        "",
        *_table(
            ("name", "timing", "our column", "why"),
            ((f"`{e.name}`", e.timing, f"`{e.field}`" if e.field else "", e.why) for e in entries),
        ),
    ]


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = tuple(header)
    return [_row(header), _row(["---"] * len(header)), *map(_row, rows)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Render every study's dictionary: the default one's into the top of the checkout, others beside them."""
    from rlvo_lib import storage
    from rlvo_lib.config import load_study, project_root

    for path in sorted((project_root() / "studies").glob("*/study.toml")):
        study = load_study(path.parent.name)
        place = project_root() if study.name == load_study().name else study.folder
        page = render(load(study.dictionary_path), study.outcome_label)
        storage.write_text(place / "data_dictionary.md", page)
