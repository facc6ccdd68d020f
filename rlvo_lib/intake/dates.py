"""Dates in three orders, with or without a time of day, and what is calculated from two of them.

Orders: ``ymd`` (2021-03-05), ``dmy`` (05/03/2021), ``mdy`` (03/05/2021), with ``-``, ``/`` or ``.``
between; the time of day after a blank or ``T``. An order is inferred for a column only if it is the one
order that fits all its values. Years have four digits. The dataset holds ``YYYY-MM-DD HH:MM`` (``:SS``
where the seconds are not 0), or the date alone where there was no time of day.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from rlvo_lib.dictionary import Field
from rlvo_lib.intake.ledger import Cells, Ledger, Read, Step, Unmapped
from rlvo_lib.intake.mapping import DATE_ORDERS
from rlvo_lib.intake.quantities import plain, rounded

PATTERN = re.compile(
    r"(?P<a>\d{1,4})(?P<mark>[-/.])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{1,4})"
    r"(?:(?:T|\s+)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.0+)?)?)?"
)
FIRST_YEAR, LAST_YEAR = 1850, 2199
ALLOWED = "a date that exists, with a year of four digits, e.g. 2021-03-05 14:30 or 05/03/2021"
TAKEN = {
    "year": "year of a date",
    "minutes": "minutes between two dates",
    "years": "completed years between two dates",
}
TWO_DIGITS = re.compile(r"\d{1,2}([-/.])\d{1,2}\1\d{2}(\D.*)?")


def read_date(text: str, order: str) -> tuple[datetime, bool] | None:
    """Date and whether it has a time of day; None if the text is no date in this order.

    >>> read_date("5/3/2021", "dmy"), read_date("31/02/2021", "dmy"), read_date("5/3/21", "dmy")
    ((datetime.datetime(2021, 3, 5, 0, 0), False), None, None)
    """
    match = PATTERN.fullmatch(text)
    if not match:
        return None
    parts = dict(zip(order, (match["a"], match["b"], match["c"]), strict=True))
    if len(parts["y"]) != 4 or max(len(parts["m"]), len(parts["d"])) > 2:
        return None
    if not FIRST_YEAR <= int(parts["y"]) <= LAST_YEAR:
        return None
    clock = [int(match[name] or 0) for name in ("hour", "minute", "second")]
    try:
        return datetime(int(parts["y"]), int(parts["m"]), int(parts["d"]), *clock), bool(
            match["hour"]
        )
    except ValueError:
        return None


def written(when: datetime, has_time: bool) -> str:
    """A date as the dataset holds it."""
    if not has_time:
        return f"{when:%Y-%m-%d}"
    return f"{when:%Y-%m-%d %H:%M:%S}" if when.second else f"{when:%Y-%m-%d %H:%M}"


def find_order(texts: Sequence[str]) -> tuple[str, str]:
    """The one order in which all texts are dates, and a problem if it is not one.

    Orders that give the same dates are one. Texts that are no date in any order must not be among them.
    """
    readings = {order: [read_date(text, order) for text in texts] for order in DATE_ORDERS}
    fitting = [order for order in DATE_ORDERS if None not in readings[order]]
    if not fitting:
        shown = {}
        for place, text in enumerate(texts):
            orders = [order for order in DATE_ORDERS if readings[order][place]]
            shown.setdefault(" or ".join(orders), text)
        examples = ", ".join(f"'{text}' is {orders}" for orders, text in shown.items())
        return "", f"dates in different orders: {examples}"
    for other in fitting[1:]:
        for text, one, two in zip(texts, readings[fitting[0]], readings[other], strict=True):
            if one != two:
                return "", (
                    f"'{text}' is {one[0].day} {one[0]:%B %Y} as {fitting[0]} and "
                    f"{two[0].day} {two[0]:%B %Y} as {other}"
                )
    return fitting[0], ""


def date_reader(column: str, cells: Cells, order: str, ledger: Ledger):
    """A function that reads each of the ``cells``; problems of the column as a whole go to ``ledger``.

    ``cells`` hold no missing values; ``order`` is what the map says, or "".
    """
    texts = list(cells.text[~cells.typed].drop_duplicates())
    _refuse_swapped(column, cells, texts, ledger)
    if not order:
        dates = [text for text in texts if any(read_date(text, o) for o in DATE_ORDERS)]
        order, problem = find_order(dates)
        if problem:
            allowed = f'the order in the map: date_order = "dmy" (or {", ".join(DATE_ORDERS)})'
            ledger.problem(cells.name, column, problem, allowed)
        elif dates:
            ledger.count(column, cells.name, ("date order detected", "", order))

    def read(text: str, typed: bool) -> Read:
        used = "ymd" if typed else order
        if not used and any(read_date(text, o) for o in DATE_ORDERS):
            return "", ()  # the column's problem is told once
        found = read_date(text, used) if used else None
        if found is None:
            raise Unmapped(_allowed(text, order))
        value = written(*found)
        return value, () if value == text else (("date", "workbook" if typed else used, "ymd"),)

    return read


def _refuse_swapped(column: str, cells: Cells, texts: Sequence[str], ledger: Ledger) -> None:
    """Keep a problem if a spreadsheet seems to have taken days for months in part of a column.

    Opened in a country with another order, 13/04/2021 stays text, while 04/03/2021 becomes a date: the
    wrong one. Then all that is text has a day above 12, and all that is a date has none.
    """
    typed = [read_date(text, "ymd") for text in cells.text[cells.typed].unique()]
    read = {order: [read_date(text, order) for text in texts] for order in ("dmy", "mdy")}
    dates = [pair for pair in zip(*read.values(), strict=True) if any(pair)]
    if not dates or not any(typed):
        return
    if all(None in pair for pair in dates) and all(found[0].day <= 12 for found in typed if found):
        ledger.problem(
            cells.name, column,
            "cells that Excel holds as dates have no day above 12, those it holds as text have no other: "
            "opening the file seems to have swapped days and months",
            "all dates as text or all as dates, from the source and not from this workbook",
        )  # fmt: skip


def joined(day: Cells, clock: Cells) -> Cells:
    """Date and time of day of two columns as one; midnight that a workbook puts to a date is left out."""
    date = day.text.str.replace(r"[T\s]+0?0:00(:00)?$", "", regex=True)
    text = (date + " " + clock.text).str.strip()
    # a time without its date stays no date
    text = text.where((date != "") | (clock.text == ""), "(no date) " + clock.text)
    return Cells(f"{day.name} + {clock.name}", text, day.typed)


def calculate(take: str, values: Sequence[str], field: Field) -> Read:
    """What is taken from one or two dates, as the dataset writes them.

    ``year``: of the date; ``years``: completed ones from the first to the second; ``minutes``: from the
    first to the second, both with a time of day.

    >>> from types import SimpleNamespace
    >>> calculate("years", ["1950-03-05", "2021-03-04 10:00"], SimpleNamespace(type="integer"))
    ('70', (('completed years between two dates', '', ''),))
    """
    steps: list[Step] = [(TAKEN[take], "", "")]
    dates = [datetime.fromisoformat(value) for value in values]
    if take == "year":
        return str(dates[0].year), tuple(steps)
    first, last = dates
    if take == "years":
        before_birthday = (last.month, last.day) < (first.month, first.day)
        return str(last.year - first.year - before_birthday), tuple(steps)
    if any(":" not in value for value in values):
        raise Unmapped("a time of day in both columns, to count minutes")
    number = Decimal(int((last - first).total_seconds())) / 60
    return plain(rounded(number, field, steps)), tuple(steps)


def _allowed(text: str, order: str) -> str:
    if re.fullmatch(r"\d{5}(\.\d+)?", text):
        return f"{ALLOWED}; if this is Excel's number of a day, give the cells a date format there"
    if re.search(r"\d\s*[ap]\.?\s*m\.?$", text, re.IGNORECASE):
        return "a time of 24 hours, as in 14:30"
    if TWO_DIGITS.fullmatch(text):
        return "a year of four digits, since two do not say the century"
    return f"{ALLOWED}{f', as {order}' if order else ''}"
