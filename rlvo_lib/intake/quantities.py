"""Numbers as hospitals write them: decimal commas, thousands marks, minus signs, units.

Values are decimal numbers throughout (`decimal.Decimal`), so that nothing is rounded on the way. "1.200"
is never 1200 unless the map says that "." marks thousands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal

from rlvo_lib.dictionary import Field
from rlvo_lib.intake.ledger import Cells, Read, Step, Unmapped
from rlvo_lib.intake.words import MINUS

BLANKS = dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f"), " ")
COMMA = re.compile(r"[+-]?\d*,\d+")
POINT = re.compile(r"[+-]?\d*\.\d+")
#: Written like this, a comma may as well mark thousands: 1,200.
LIKE_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
SMALLEST, LARGEST = -30, 15  # powers of ten; beyond, nothing that is measured


def plain(number: Decimal) -> str:
    """The shortest writing of a decimal number, without exponent.

    >>> plain(Decimal("6.20")), plain(Decimal("1E+2")), plain(Decimal("-0.0")), plain(Decimal("007"))
    ('6.2', '100', '0', '7')
    """
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def parse(text: str, decimal: str, thousands: str = "") -> Decimal | None:
    """The number that a text is with these marks; None if it is none.

    >>> parse("1.234,5", ",", "."), parse("1.200", "."), parse("1.200", ","), parse("<5", ".")
    (Decimal('1234.5'), Decimal('1.200'), None, None)
    """
    point, mark = re.escape(decimal), re.escape(thousands)
    whole = rf"(?:\d+|\d{{1,3}}(?:{mark}\d{{3}})+)" if thousands else r"\d+"
    pattern = rf"[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d{{1,3}})?"
    if not text.isascii() and thousands != "’":
        return None
    if not re.fullmatch(pattern, text):
        return None
    if thousands:
        text = text.replace(thousands, "")
    number = Decimal(text.replace(decimal, "."))
    return number if SMALLEST <= number.adjusted() <= LARGEST else None


def find_decimal(columns: Iterable[Cells]) -> tuple[str, tuple[str, str] | None]:
    """The decimal mark of the text cells of all numeric columns; or "", what is wrong, and what is allowed.

    A comma is the mark if some numbers hold one and none holds a point. The mark is a point where no
    number holds either.
    """
    found: dict[str, tuple[str, str]] = {}
    only_thousands = True
    for cells in columns:
        for text in cells.text[~cells.typed].drop_duplicates():
            text = text.translate(MINUS)
            for mark, pattern in ((",", COMMA), (".", POINT)):
                if pattern.fullmatch(text):
                    found.setdefault(mark, (text, cells.name))
                    if mark == ",":
                        only_thousands &= bool(LIKE_THOUSANDS.fullmatch(text))
    if len(found) == 2:
        (comma, first), (point, second) = found[","], found["."]
        return "", (
            f"'{comma}' in column '{first}' has a comma and '{point}' in column '{second}' a point",
            'one decimal mark, under [file] or at a column in the map: decimal = ","; the other one may '
            'mark thousands: thousands = "."',
        )
    if "," in found and only_thousands:
        text, name = found[","]
        return "", (
            f"'{text}' in column '{name}' may be read with a decimal comma or with a thousands comma",
            'one reading, under [file] or at a column in the map: decimal = "," or thousands = ","',
        )
    return ("," if "," in found else "."), None


def read_number(
    text: str, field: Field, *, decimal: str, thousands: str, unit: str, typed: bool
) -> Read:
    """A number in the field's unit as the dataset writes it, and the steps taken.

    Raises
    ------
    Unmapped
        If it is no number with these marks.
    """
    clean, steps = text.translate(MINUS).translate(BLANKS), []
    if typed:
        decimal, thousands = ".", ""
    clean, fraction = _without_percent(clean, unit or field.unit, typed, steps)
    number = parse(clean, decimal, thousands)
    if number is None:
        raise Unmapped(_allowed(clean, field, decimal, thousands))
    if decimal == "," and "," in clean:
        steps.append(("decimal comma", ",", "."))
    if thousands and thousands in clean:
        steps.append(("thousands mark taken out", thousands, ""))
    if clean != text and not steps:
        steps.append(("minus sign or blank", "", ""))
    if not steps and not typed and clean != plain(number):
        steps.append(("number written plainly", "", ""))
    number = number / 100 if fraction else number
    if unit and unit != field.unit:
        number *= Decimal(str(field.other_units[unit]))
        steps.append(("unit", unit, field.unit))
        number = rounded(number, field, steps)
    return plain(number), tuple(steps)


def rounded(number: Decimal, field: Field, steps: list[Step]) -> Decimal:
    """A calculated number, rounded (half away from zero) where the field takes whole numbers only."""
    whole = number.quantize(Decimal(1), ROUND_HALF_UP)
    if field.type != "integer" or whole == number:
        return number
    steps.append(("rounded to a whole number", "", ""))
    return whole


def _without_percent(text: str, unit: str, typed: bool, steps: list[Step]) -> tuple[str, bool]:
    """The text without a percent sign, and whether it is to be divided by 100."""
    if not text.endswith("%"):
        return text, False
    if unit == "%":
        steps.append(("percent sign taken off", "%", ""))
        return text[:-1].rstrip(), False
    if typed:  # the workbook holds 0.7 and shows 70%
        steps.append(("percent cell read as a fraction", "%", ""))
        return text[:-1], True
    return text, False


def _allowed(text: str, field: Field, decimal: str, thousands: str) -> str:
    marks = f"a number with '{decimal}' as decimal mark"
    if not thousands and re.fullmatch(r"[+-]?\d{1,3}([.,' ]\d{3})+([.,]\d+)?", text):
        marks += " (`thousands` in the map, if a mark groups thousands)"
    limits = f"; {field.allowed}" if field.low is not None or field.high is not None else ""
    unit = f" {field.unit}, written without the unit" if field.unit else ""
    return f"{marks}{limits}{unit}"
