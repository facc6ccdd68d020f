"""Values that look like another unit than the dictionary's, by the factors it gives."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rlvo_lib.dictionary import Dictionary, Field
from rlvo_lib.validation.faults import Fault, Patients, allowed_in_words

FEWEST = 10  # values below which nothing can be said of a whole column


def hint(written: str, field: Field) -> str:
    """What to say of a value out of range that another unit would bring into it, or "".

    >>> import types
    >>> glucose = types.SimpleNamespace(
    ...     is_quantity=True, low=40, high=600, unit="mg/dL", other_units={"mmol/L": 18.016}
    ... )
    >>> hint("6.7", glucose), hint("high", glucose)
    ('; looks like mmol/L (121 mg/dL)', '')
    """
    if not field.is_quantity or not field.other_units:
        return ""
    number = float(pd.to_numeric(written.strip(), errors="coerce"))
    for unit, factor in field.other_units.items():
        if _in_range(number * factor, field) and not _in_range(number, field):
            return f"; looks like {unit} ({_short(number * factor)} {field.unit})"
    return ""


def _in_range(number: float, field: Field) -> bool:
    low = float("-inf") if field.low is None else field.low
    high = float("inf") if field.high is None else field.high
    return bool(low <= number <= high)


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def column_faults(people: Patients, words: Dictionary) -> Iterator[Fault]:
    """Columns whose values are all in range, and would all be in another unit."""
    for name in people.values.columns:
        field = words[name]
        if not field.is_quantity or field.high is None:
            continue
        present = people.values[name].dropna()
        if len(present) < FEWEST or not present.any():
            continue
        for unit, factor in field.other_units.items():
            if factor > 1 and present.max() * factor <= field.high:
                span = f"{present.min():g} to {present.max():g}"
                yield Fault(
                    "warning", "", name, span, f"{allowed_in_words(field)}; in {field.unit}",
                    f"all {len(present):,} values ({span}) look like {unit}, not {field.unit}",
                )  # fmt: skip
