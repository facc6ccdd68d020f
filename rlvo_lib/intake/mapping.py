"""The map: which column of a file becomes which column of the dictionary, and how it is written there.

A TOML file of three parts, all optional::

    [file]
    separator = ";"          # encoding, decimal, thousands, date_order, sheet, yes, no, missing, ignore
    [dataset]
    name = "Stroke unit"
    [columns]
    age = "edad"             # the name of a column of the file, or what `COLUMN_KEYS` lists:
    sex = { from = "sexo", values = { H = "1", M = "0" } }
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlvo_lib.config import InputError
from rlvo_lib.dataset import DATETIME
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary, Field
from rlvo_lib.intake import quantities
from rlvo_lib.intake.delimited import name_of
from rlvo_lib.intake.words import as_word

PARTS = ("file", "dataset", "columns")
HOW_KEYS = ("decimal", "thousands", "date_order", "yes", "no", "missing")
FILE_KEYS = ("separator", "encoding", "sheet", "ignore", *HOW_KEYS)
COLUMN_KEYS = ("from", "value", "values", "unit", "take", "prefix", "remove", *HOW_KEYS)
DATASET_KEYS = ("name",)
DATE_ORDERS = ("ymd", "dmy", "mdy")
#: What is taken from dates, and from how many columns of the file.
TAKES = {"year": 1, "minutes": 2, "years": 2}
THOUSANDS = (".", ",", " ", "'", "’")
#: The decimal mark that goes with a mark of thousands, where the map names only this.
DECIMAL_WITH = {".": ",", ",": "."}
IDENTIFIER = "participant_id"


@dataclass(frozen=True)
class How:
    """How values are written; a column's own setting goes before the file's. "" is: not said."""

    decimal: str = ""
    thousands: str = ""
    date_order: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)  # word -> "1" (yes), "0" (no)
    missing: Mapping[str, str] = field(default_factory=dict)  # word -> missing code

    def before(self, other: How) -> How:
        """These settings, and where they say nothing, those of ``other``."""
        decimal, thousands = self.decimal or other.decimal, self.thousands or other.thousands
        return How(
            decimal,
            ""
            if thousands == decimal
            else thousands,  # a mark cannot be both; the column's own holds
            self.date_order or other.date_order,
            {**other.answers, **self.answers},
            {**other.missing, **self.missing},
        )


@dataclass(frozen=True)
class Entry:
    """How one column of the dictionary is made.

    ``sources`` are columns of the file; one in two parts holds the date in the first and the time of
    day in the second. A constant has none.
    """

    column: str
    sources: tuple[tuple[str, ...], ...]
    value: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)  # as written in the file -> code
    unit: str = ""
    take: str = ""
    prefix: str = ""
    remove: tuple[str, ...] = ()
    how: How = field(default_factory=How)

    @property
    def names(self) -> list[str]:
        """All columns of the file that it is made from."""
        return [name for source in self.sources for name in source]


@dataclass(frozen=True)
class Map:
    """A whole map; an empty one stands for a file that has the dictionary's own names."""

    separator: str = ""
    encoding: str = ""
    sheet: str = ""
    ignore: tuple[str, ...] = ()
    how: How = field(default_factory=How)
    name: str = ""  # of the dataset
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def wanted(self, words: Dictionary) -> set[str]:
        """The headers that are looked for: the map's, the dictionary's names and its labels."""
        mapped = {name for entry in self.entries.values() for name in entry.names}
        return mapped | set(words.fields) | {name_of(f.label) for f in words.fields.values()}


def read_map(path: Path, words: Dictionary) -> Map:
    """Read a map and check it against the dictionary.

    Raises
    ------
    InputError
        If the file is missing or no TOML, has a key or a column that is unknown, or says something
        that the column cannot be.
    """
    try:
        raw = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError:
        raise InputError(f"map {path} does not exist or cannot be read") from None
    except UnicodeDecodeError:
        raise InputError(f"map {path} is not in UTF-8; allowed: save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"map {path} is not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"map {path} is not valid TOML: brackets within brackets") from None
    try:
        _only(raw, PARTS, "the map")
        for part in PARTS:
            if not isinstance(raw.get(part, {}), dict):
                raise InputError(f"'{part}' is not a part; allowed: [{part}]")
        told, dataset = raw.get("file", {}), raw.get("dataset", {})
        _only(told, FILE_KEYS, "[file]")
        _only(dataset, DATASET_KEYS, "[dataset]")
        entries = {
            column: _entry(column, entry, words) for column, entry in raw.get("columns", {}).items()
        }
        ignore = tuple(name_of(name) for name in _texts(told, "ignore", "[file]"))
        _check_sources(entries.values(), ignore)
        return Map(
            **{key: _text(told, key, "[file]") for key in ("separator", "encoding", "sheet")},
            ignore=ignore,
            how=_how(told, "[file]"),
            name=_text(dataset, "name", "[dataset]"),
            entries=entries,
        )
    except InputError as error:
        raise InputError(f"map {path}: {error}") from None


def close_to(name: str, known: Iterable[str]) -> str:
    """Known names that resemble one that is not known, in words; "" if there are none."""
    known = list(known)
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
    return f"; perhaps {', '.join(repr(folded[other]) for other in close)}" if close else ""


def _only(raw: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for key in raw:
        if key not in allowed:
            raise InputError(f"{where}: key '{key}' is not known; allowed: {', '.join(allowed)}")


def _text(raw: Mapping[str, Any], key: str, where: str, *, numbers: bool = False) -> str:
    value = raw.get(key, "")
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InputError(f"{where}: '{key}' is {value!r}; allowed: text in quotation marks")
    return value


def _texts(raw: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = raw.get(key, [])
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f'{where}: \'{key}\' is {value!r}; allowed: ["one", "two"]')
    return tuple(value)


def _how(raw: Mapping[str, Any], where: str) -> How:
    missing = raw.get("missing", {})
    if not isinstance(missing, dict):
        raise InputError(f'{where}: \'missing\' is {missing!r}; allowed: {{ "-99" = ["word"] }}')
    _only(missing, MISSING_REASONS, f"{where}, missing")
    how = How(
        **{key: _text(raw, key, where) for key in ("decimal", "thousands", "date_order")},
        answers=_words({"1": _texts(raw, "yes", where), "0": _texts(raw, "no", where)}, where),
        missing=_words(
            {code: _texts(missing, code, f"{where}, missing") for code in missing}, where
        ),
    )
    for key, allowed in (
        ("decimal", (",", ".")),
        ("thousands", THOUSANDS),
        ("date_order", DATE_ORDERS),
    ):
        value = getattr(how, key)
        if value and value not in allowed:
            shown = ", ".join(repr(item) for item in allowed)
            raise InputError(f"{where}: '{key}' is '{value}'; allowed: {shown}")
    if how.thousands and how.thousands == how.decimal:
        raise InputError(f"{where}: 'thousands' and 'decimal' are both '{how.decimal}'")
    return replace(how, decimal=how.decimal or DECIMAL_WITH.get(how.thousands, ""))


def _words(of: Mapping[str, tuple[str, ...]], where: str) -> dict[str, str]:
    """Words, as `as_word` writes them, with what they stand for; a word that stands for two things is refused."""
    meanings: dict[str, str] = {}
    for meaning, words in of.items():
        for word in words:
            if meanings.setdefault(as_word(word), meaning) != meaning:
                raise InputError(f"{where}: '{word}' stands for two things; allowed: one")
    return meanings


def _entry(column: str, raw: Any, words: Dictionary) -> Entry:
    where = f"[columns] {column}"
    if column not in words:
        raise InputError(
            f"{where}: is not a column of the data dictionary{close_to(column, words.fields)}; allowed: "
            "the names on the left are the dictionary's (data_dictionary.md), those on the right the file's"
        )
    if isinstance(raw, str):
        raw = {"from": raw}
    if not isinstance(raw, dict):
        raise InputError(f'{where}: is {raw!r}; allowed: a column\'s name, or {{ from = "name" }}')
    _only(raw, COLUMN_KEYS, where)
    values = raw.get("values", {})
    if not isinstance(values, dict):
        raise InputError(
            f'{where}: \'values\' is {values!r}; allowed: {{ "in the file" = "code" }}'
        )
    constant = _text(raw, "value", where, numbers=True) if "value" in raw else None
    take = _text(raw, "take", where)
    entry = Entry(
        column,
        () if constant is not None else _sources(raw.get("from", column), take, where),
        constant,
        {key.strip(): _text(values, key, f"{where}, values", numbers=True) for key in values},
        _text(raw, "unit", where),
        take,
        _text(raw, "prefix", where),
        _texts(raw, "remove", where),
        _how(raw, where),
    )
    _check_entry(entry, set(raw), words[column], where)
    return entry


def _sources(raw: Any, take: str, where: str) -> tuple[tuple[str, ...], ...]:
    """``from`` as sources of one part, or of two (date and time of day).

    With ``take`` of two dates a list names these; an item may itself be a list of date and time.
    """
    items = raw if isinstance(raw, list) else [raw]
    two_dates = TAKES.get(take) == 2
    sources = [item if isinstance(item, list) else [item] for item in items]
    if not two_dates and len(items) > 1:
        sources = [items]
    parts = [part for source in sources for part in source]
    wrong = any(not isinstance(part, str) or not part.strip() for part in parts)
    if wrong or not sources or any(len(source) not in (1, 2) for source in sources):
        raise InputError(
            f"{where}: 'from' is {raw!r}; allowed: a column of the file, or two that hold the date and the "
            "time of day"
        )
    if two_dates and len(sources) != 2:
        raise InputError(
            f'{where}: take = "{take}" needs two dates; allowed: from = ["first", "last"]'
        )
    return tuple(tuple(name_of(part) for part in source) for source in sources)


def _check_entry(entry: Entry, keys: set[str], known: Field, where: str) -> None:
    """Raise if an entry says what its column cannot be."""

    def refuse(key: str, allowed: str) -> None:
        if key in keys:
            raise InputError(f"{where}: '{key}' cannot be used here; allowed: {allowed}")

    if entry.take and entry.take not in TAKES:
        raise InputError(f'{where}: take = "{entry.take}"; allowed: {", ".join(TAKES)}')
    if entry.value is not None:
        for key in keys - {"value"}:
            refuse(key, "beside 'value' nothing else")
    if entry.column == IDENTIFIER:
        for key in keys - {"from", "prefix", "remove"}:
            refuse(key, "from, prefix and remove")
    else:
        refuse("prefix", f"at {IDENTIFIER}")
        refuse("remove", f"at {IDENTIFIER}")
    if not known.is_quantity:
        refuse("unit", "at a quantity")
        refuse("take", "at a quantity")
        refuse("decimal", "at a quantity")
        refuse("thousands", "at a quantity")
    if not {"0", "1"} <= set(known.choices) and known.type != "calc":
        refuse("yes", "at a column with the codes 0 and 1")
        refuse("no", "at a column with the codes 0 and 1")
    if known.type != "datetime" and not entry.take:
        refuse("date_order", "at a date, or with 'take'")
        if any(len(source) > 1 for source in entry.sources):
            raise InputError(
                f"{where}: 'from' names two columns; allowed: one, unless it is a date"
            )
    if entry.take:
        refuse("unit", "no unit beside 'take'")
        refuse("values", "no values beside 'take'")
    if entry.unit and entry.unit not in (known.unit, *known.other_units):
        units = ", ".join(unit for unit in (known.unit, *known.other_units) if unit)
        raise InputError(f"{where}: unit '{entry.unit}' is not known; allowed: {units or 'none'}")
    for text, code in entry.values.items():
        if code not in MISSING_REASONS and not _may_be(code, known):
            raise InputError(
                f"{where}: values: '{text}' becomes '{code}'; allowed: {known.allowed}, or a missing code"
            )


def _may_be(code: str, known: Field) -> bool:
    """Whether a column may hold what a value becomes, as the dataset writes it."""
    if known.is_categorical:
        return code in known.choices
    if known.type == "datetime":
        return bool(DATETIME.fullmatch(code))
    return known.type == "text" or quantities.parse(code, ".") is not None


def _check_sources(entries: Iterable[Entry], ignore: tuple[str, ...]) -> None:
    """Raise if a column of the file is used for two columns without a say, or used and ignored."""
    plain: dict[str, str] = {}
    for entry in entries:
        for name in entry.names:
            if name in ignore:
                raise InputError(
                    f"[columns] {entry.column}: '{name}' is also under 'ignore'; allowed: one of them"
                )
        if entry.take or entry.values or entry.column == IDENTIFIER:
            continue
        for name in entry.names:
            if name in plain:
                raise InputError(
                    f"[columns] '{name}' is the source of '{plain[name]}' and '{entry.column}'; allowed: "
                    "one of them, unless 'values' or 'take' say how they differ"
                )
            plain[name] = entry.column
