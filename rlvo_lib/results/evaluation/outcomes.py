"""Who had the event: an outcome column, however it is coded, as 0 and 1."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError

WORDS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
SHOWN = 8


def read_outcome(column: pd.Series, event: str | None = None) -> tuple[pd.Series, str]:
    """The outcome as 1.0 (event), 0.0 and NaN (missing), and a note where it was not 0 and 1.

    Parameters
    ----------
    column : numbers 0 and 1, booleans, the words True and False in any capitals, or, with ``event``, any
        two values.
    event : the value that is the event.

    Raises
    ------
    InputError
        For other values without ``event``, for an ``event`` that is not there, and for more than two
        values: what a third one means is not guessed.

    Examples
    --------
    >>> read_outcome(pd.Series(["no", "yes", None], name="died"), "yes")[0].tolist()
    [0.0, 1.0, nan]
    """
    given = column.dropna()
    text = given.map(_as_text)
    values = sorted(set(text))
    if not values:
        raise InputError(f"outcome '{column.name}': no row has a value")
    shown = ", ".join(f"'{v}'" for v in values[:SHOWN])
    shown += f" and {len(values) - SHOWN} more" * (len(values) > SHOWN)
    words = {v.casefold() for v in values}
    if event is None:
        if not words <= set(WORDS):
            raise InputError(
                f"outcome '{column.name}' holds {shown}; allowed: 0 and 1, or True and False, or two values of "
                "which --event names the one that is the event, e.g. --event yes"
            )
        coded = text.str.casefold().map(WORDS)
        note = (
            ""
            if words <= {"0", "1", "0.0", "1.0"}
            else f"outcome '{column.name}': True is the event"
        )
    else:
        chosen = _find(event, values)
        if chosen is None:
            raise InputError(f"--event {event}: outcome '{column.name}' holds {shown}")
        if len(values) > 2:
            raise InputError(
                f"outcome '{column.name}' holds {len(values)} values ({shown}); allowed: two, so that it is "
                f"known what is no '{event}'"
            )
        coded = (text == chosen).astype(float)
        others = " or ".join(f"'{v}'" for v in values if v != chosen)
        note = f"outcome '{column.name}': '{chosen}' is the event, {others} none"
    return coded.reindex(column.index).astype(float), note


def _as_text(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return str(value)
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value).strip()


def _find(event: str, values: list[str]) -> str | None:
    """The value that is meant: as written, else whatever its capitals, else as the same number."""
    same = [v for v in values if v == event] or [
        v for v in values if v.casefold() == event.casefold()
    ]
    return (same or [v for v in values if _number(v) == _number(event) is not None] or [None])[0]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
