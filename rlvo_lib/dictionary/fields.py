"""What a column may hold (`Field`), all columns of a study (`Dictionary`), and which may be predictors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rlvo_lib.config import InputError
from rlvo_lib.dictionary.leakage import Registered, spelling

TIMINGS = ("PRE", "PRE_SENSITIVITY", "INTRA", "POST", "ID", "DERIVED")
MISSING_REASONS = {"-99": "not recorded", "-98": "not applicable", "-97": "not done"}
#: The setting that lets PRE_SENSITIVITY columns be predictors.
SETTING = "allow_sensitivity_predictors"


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
    note: str = field(repr=False)  # wording is no part of a content key that is made of the repr
    parents: tuple[str, ...]  # columns that a calculated field is made from
    section: str = field(default="", repr=False)  # heading that stands above the field
    other_units: dict[str, float] = field(default_factory=dict)  # unit -> factor into `unit`
    spelling: str = ""  # how free spellings of the codes are read: "" (as they stand) or "TICI"
    transform: str = ""  # before a model sees it: "" (as it is) or "log1p"
    impute: bool = True  # False: a missing value is never filled in
    ratio: tuple[str, str] | None = None  # (numerator, denominator) of a calculated ratio

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
        if self.parents:
            return f"calculated from {', '.join(self.parents)}"
        return "sub- and letters or digits" if self.name == "participant_id" else "text"


@dataclass(frozen=True)
class Dictionary:
    """All columns of a study, in the order of the file, and the study's leakage register."""

    fields: dict[str, Field]
    register: dict[str, Registered] = field(default_factory=dict)  # by `leakage.spelling`

    def __getitem__(self, name: str) -> Field:
        if name not in self.fields:
            raise InputError(f"column '{name}' is not in the data dictionary")
        return self.fields[name]

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def leakage(self, column: str, *, allow_sensitivity: bool = False) -> str:
        """Why a column may not be a predictor, or "" if it may.

        It may if it is known before the intervention (timing PRE, or PRE_SENSITIVITY with
        ``allow_sensitivity``), the leakage register does not name it, and the same holds for every
        column that it is calculated from.
        """
        allowed = ("PRE", "PRE_SENSITIVITY") if allow_sensitivity else ("PRE",)
        for source, timing, why in self._judged(column):
            made_from = "" if source == column else f" (made from '{source}')"
            if timing and timing not in allowed:
                setting = f", or {timing} with the setting {SETTING}"
                return (
                    f"column '{column}'{made_from} cannot be a predictor: its timing is {timing}{why}"
                    "; allowed: PRE, known before the intervention"
                    f"{setting if timing == 'PRE_SENSITIVITY' else ''}"
                )
            if source not in self:
                return f"column '{source}' is not in the data dictionary"
        return ""

    def refuse_leakage(self, columns: Iterable[str], *, allow_sensitivity: bool = False) -> None:
        """Raise if any of ``columns`` may not be a predictor (see `leakage`).

        Raises
        ------
        InputError
            Naming the first such column, the column it is made from, and the timing.
        """
        for column in columns:
            reason = self.leakage(column, allow_sensitivity=allow_sensitivity)
            if reason:
                raise InputError(reason)

    def _judged(self, column: str) -> Iterator[tuple[str, str, str]]:
        """Each (column, timing, reason) that a column is judged by: its own, and its parents'."""
        entry, own = self.register.get(spelling(column)), self.fields.get(column)
        if entry:
            yield column, entry.timing, f" (leakage register: {entry.why})"
        if own is None:
            yield column, "", ""
            return
        if own.timing != "DERIVED" or not own.parents:
            yield column, own.timing, ""
        for parent in own.parents:
            yield from self._judged(parent)
