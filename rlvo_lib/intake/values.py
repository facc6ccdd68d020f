"""One column of a file as one column of the dataset: codes, yes and no, quantities, dates, text.

A value is looked up in this order: the column's ``values`` in the map; missing (blank, a code, a word of
the map); a failed formula, which is never a value; the map's words for yes and no; what the field allows;
the words for unknown that need no map. What has no reading is kept as a problem, with its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pandas as pd

from rlvo_lib import storage
from rlvo_lib.dataset import MISSING_TOKENS
from rlvo_lib.dictionary import MISSING_REASONS, Field
from rlvo_lib.intake import dates, quantities
from rlvo_lib.intake.ledger import Cells, Ledger, Read, Unmapped
from rlvo_lib.intake.mapping import Entry, How
from rlvo_lib.intake.words import NO, UNKNOWN, YES, as_word, fold
from rlvo_lib.intake.workbook import ERRORS

NOT_RECORDED = "-99"
TICI = re.compile(r"(?:[emo]?\s*tici)?\s*(?:grade|grado|grau|grad)?\s*(iii|ii|i|[0-3])\s*(.*)")
ROMAN = {"i": "1", "ii": "2", "iii": "3"}

Reader = Callable[[str, bool], Read]


def read_column(
    field: Field, entry: Entry, cells: Cells, how: How, ledger: Ledger, *, is_outcome: bool = False
) -> pd.Series:
    """The values of a column as the dataset holds them, by row number; "" where there is a problem.

    ``how`` is what column and file say together, with the decimal mark found.
    """
    field = _with_outcome_codes(field) if is_outcome else field
    if field.type == "datetime":
        return _read_dates(field, entry, cells, how, ledger)
    if field.is_categorical:
        read = _code_reader(field, entry, how)
    elif field.is_quantity or field.type == "calc":
        read = _quantity_reader(field, entry, how)
    else:
        read = _read_text
    words = UNKNOWN if field.type != "text" else frozenset()
    return ledger.convert(field.name, cells, _with_missing(field, entry, how, words, read))


def take_from_dates(
    field: Field, entry: Entry, sources: list[Cells], how: How, ledger: Ledger
) -> pd.Series:
    """A quantity that is calculated from one or two dates (``take``); missing if one of them is."""
    silent = [_read_dates(field, entry, cells, how, ledger, count=False) for cells in sources]
    name = " and ".join(cells.name for cells in sources)
    pairs = pd.Series(list(zip(*silent, strict=True)), index=silent[0].index, dtype=object)
    known = pairs.map(all)  # where a date is a problem, that has been told

    def read(values: tuple[str, ...], typed: bool) -> Read:
        for value in values:
            if value in (*MISSING_REASONS, "n/a"):
                return value, (("a date is missing", "", value),)
        return dates.calculate(entry.take, values, field)

    cells = Cells(name, pairs[known], sources[0].typed[known.to_numpy()])
    return ledger.convert(field.name, cells, read).reindex(pairs.index, fill_value="")


def missing_code(
    text: str, field: Field, how: How, words: frozenset[str] | set[str]
) -> Read | None:
    """The missing code that a text stands for, as this field writes it; None if it is a value."""
    folded, word = fold(text), as_word(text)
    if word in how.missing:
        return _as_missing(how.missing[word], text, field, "missing, word of the map")
    if text in MISSING_TOKENS or folded in MISSING_TOKENS:
        return _as_missing(NOT_RECORDED, text, field, "no value")
    plain = re.fullmatch(r"(-9[789])(?:[.,]0+)?", text.translate(quantities.MINUS))
    if plain and plain[1] in MISSING_REASONS:
        return plain[1], () if plain[1] == text else (("missing code", text, plain[1]),)
    if folded in words:
        return _as_missing(NOT_RECORDED, text, field, "word for unknown")
    for code, reason in MISSING_REASONS.items():
        if field.type != "text" and folded == reason and code in field.missing:
            return _as_missing(code, text, field, "missing, in words")
    return None


def _as_missing(code: str, text: str, field: Field, conversion: str) -> Read:
    """A missing code; "n/a" where the field has no code for a value that was not recorded."""
    if code not in field.missing:
        if code != NOT_RECORDED:
            allowed = ", ".join(field.missing) or "none"
            raise Unmapped(f"missing codes of this column: {allowed} ('{code}' is not one)")
        code = "n/a"
    return code, () if code == text else ((conversion, text, code),)


def _with_missing(
    field: Field, entry: Entry, how: How, words: frozenset[str] | set[str], read: Reader
) -> Reader:
    """A reader that first looks at the map's values, at missing values and at failed formulas."""
    by_word = _values_by_word(entry)
    answers = _own_answers(field, entry, how)
    redefined = _redefines_codes(field, by_word | answers, read)
    meanings = {fold(meaning) for meaning in field.choices.values()}
    # where "unknown" is itself a choice, a word for unknown in another language may mean that
    words = words if not meanings & words else frozenset()

    def read_any(text: str, typed: bool) -> Read:
        word = as_word(text)
        mapped = entry.values.get(text, by_word.get(word))
        if mapped is not None:
            return _value_of_the_map(mapped, text, field)
        if word in how.missing and word not in entry.how.missing and _may_hold(field, word):
            raise Unmapped(
                "a word for missing under [file] that no column holds as a value; say at this column what "
                "it means, under `missing` or `values`"
            )
        if fold(text) not in meanings or word in entry.how.missing:
            missing = missing_code(text, field, how, words)
            if missing:
                return missing
        if text in ERRORS:
            raise Unmapped("a value; mend the cell, or name it under `missing` in the map")
        if word in answers:
            answer = answers[word]
            return answer, (("yes or no in words", text, answer),) if answer != text else ()
        if redefined:
            raise Unmapped(
                "what the map names: it gives codes of the dictionary another meaning, so all codes of "
                "this column have to stand there"
            )
        return read(text, typed)

    return read_any


def _may_hold(field: Field, word: str) -> bool:
    """Whether a word is also a code of the column, or a number in its range."""
    number = quantities.parse(word, ".")
    if not field.is_quantity or number is None:
        return word in field.choices
    low, high = field.low, field.high
    return (low is None or number >= low) and (high is None or number <= high)


def _values_by_word(entry: Entry) -> dict[str, str]:
    """The column's ``values`` by word; a word that would stand for two codes stands for none."""
    codes: dict[str, set[str]] = {}
    for text, code in entry.values.items():
        codes.setdefault(as_word(text), set()).add(code)
    return {word: next(iter(of)) for word, of in codes.items() if len(of) == 1}


def _redefines_codes(field: Field, told: Mapping[str, str], read: Reader) -> bool:
    """Whether the map says that a code, label or word for yes or no means another code here."""

    def usual(text: str) -> str:
        try:
            return read(text, False)[0]
        except Unmapped:
            return ""

    if not field.is_categorical:
        return False
    return any(usual(text) not in ("", code) for text, code in told.items())


def _value_of_the_map(mapped: str, text: str, field: Field) -> Read:
    """A value of the map; the report names what it stood for only if that is a category."""
    if field.is_categorical:
        if mapped not in (*field.choices, *MISSING_REASONS):
            raise Unmapped(f"{field.allowed}, and not '{mapped}' as the map says")
        return mapped, (("value of the map", text, mapped),)
    value, steps = _read_text(mapped, False) if field.type == "text" else (mapped, ())
    return value, (("value of the map", "", ""), *steps)


# --------------------------------------------------------------------------------------- codes


def _with_outcome_codes(field: Field) -> Field:
    """The study's outcome, which REDCap calculates, as the yes or no that it is."""
    return (
        field
        if field.is_categorical
        else replace(field, type="yesno", choices={"0": "no", "1": "yes"})
    )


def _code_reader(field: Field, entry: Entry, how: How) -> Reader:
    spellings = _spellings(field)
    yes_no = dict.fromkeys(YES, "1") | dict.fromkeys(NO, "0") if _is_yes_or_no(field) else {}

    def read(text: str, typed: bool) -> Read:
        if text in field.choices:
            return text, ()
        folded = fold(text)
        whole = re.fullmatch(r"(\d+)[.,]0+", text)
        if whole and whole[1] in field.choices:
            return whole[1], (("code written without decimals", text, whole[1]),)
        if folded in yes_no:
            return yes_no[folded], (("yes or no in words", text, yes_no[folded]),)
        if folded in spellings:
            return spellings[folded], (("code or label", text, spellings[folded]),)
        if field.spelling == "TICI":
            grade = _tici(folded)
            if grade in field.choices:
                return grade, (("TICI spelling", text, grade),)
        raise Unmapped(_allowed_codes(field, bool(yes_no or _own_answers(field, entry, how))))

    return read


def _spellings(field: Field) -> dict[str, str]:
    """Folded codes and labels; what would stand for two codes stands for none."""
    codes: dict[str, set[str]] = {}
    for code, meaning in field.choices.items():
        for text in {fold(code), fold(meaning)}:
            codes.setdefault(text, set()).add(code)
    for code in field.choices:
        codes[code] = {code}
    return {text: next(iter(of)) for text, of in codes.items() if len(of) == 1}


def _is_yes_or_no(field: Field) -> bool:
    """Whether the codes 1 and 0 of a column are yes and no."""
    meanings = {fold(field.choices.get(code, "")) for code in ("0", "1")}
    return field.type == "yesno" or meanings == {"no", "yes"}


def _own_answers(field: Field, entry: Entry, how: How) -> Mapping[str, str]:
    """The map's words with code 1 or 0; where these codes mean something else, only the column's own."""
    if not {"0", "1"} <= set(field.choices):
        return {}
    return how.answers if _is_yes_or_no(field) else entry.how.answers


def _allowed_codes(field: Field, yes_no: bool) -> str:
    words = "; yes or no in words" if yes_no else ""
    missing = f"; missing: {', '.join(field.missing)}" if field.missing else ""
    return f"{field.allowed}{words}{missing}; or say what it means under `values` in the map"


def _tici(folded: str) -> str:
    """A TICI grade in the dictionary's spelling, as far as it can be read.

    >>> [_tici(text) for text in ("iib", "tici iib", "2b-50", "mtici 2b", "iii", "3.0", "2b (50)")]
    ['2b', '2b', '2b50', '2b', '3', '3', '2b50']
    """
    match = TICI.fullmatch(folded)
    if not match:
        return folded
    grade, rest = ROMAN.get(match[1], match[1]), re.sub(r"[\s\-_()]", "", match[2])
    return grade if re.fullmatch(r"[.,]0+", rest) else grade + rest


# --------------------------------------------------------------------------------------- others


def _quantity_reader(field: Field, entry: Entry, how: How) -> Reader:
    def read(text: str, typed: bool) -> Read:
        return quantities.read_number(
            text, field, decimal=how.decimal, thousands=how.thousands, unit=entry.unit, typed=typed
        )

    return read


def _read_text(text: str, typed: bool) -> Read:
    """Text on one line that no spreadsheet takes for a formula."""
    steps = []
    line = " ".join(text.split())
    if line != text:
        steps.append(("blanks and line breaks in text", "", " "))
    if storage.is_formula(line):
        line = "'" + line
        steps.append(("formula made harmless", "", "'"))
    return line, tuple(steps)


def _read_dates(
    field: Field, entry: Entry, cells: Cells, how: How, ledger: Ledger, *, count: bool = True
) -> pd.Series:
    """Dates as the dataset holds them; without ``count`` only the order found is reported."""
    book = ledger if count else Ledger(problems=ledger.problems)
    nothing = _with_missing(field, entry, how, UNKNOWN, _is_a_date)
    present = cells.text.isin([text for text in cells.text.unique() if _is_present(text, nothing)])
    dated = cells.only(present)
    read = dates.date_reader(field.name, dated, how.date_order, ledger)
    result = pd.Series("", index=cells.text.index, dtype=object)
    result[present] = book.convert(field.name, dated, read)
    result[~present] = book.convert(field.name, cells.only(~present), nothing)
    return result


def _is_a_date(text: str, typed: bool) -> Read:
    return text, (("to be read as a date", "", ""),)


def _is_present(text: str, nothing: Reader) -> bool:
    """Whether a text is to be read as a date: it is no missing value and no failed formula."""
    try:
        return nothing(text, False) == _is_a_date(text, False)
    except Unmapped:
        return False
