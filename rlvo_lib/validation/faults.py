"""One fault of a dataset, and the values of a table that the checks work on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from rlvo_lib import dataset
from rlvo_lib.dictionary import MISSING_REASONS, Dictionary, Field

SHOWN = 5  # names listed in a message before "and … more"
LONGEST = 60  # characters of a value that a message quotes


class Fault(NamedTuple):
    """What is wrong, where, and what is allowed. ``where`` is a column, or a file or folder.

    ``allowed`` says the same for all faults of one kind; ``message`` holds what differs.
    """

    severity: str  # error: stops an analysis; warning: asks a person to look
    participant_id: str
    where: str
    value: str
    allowed: str
    message: str


@dataclass(frozen=True)
class Patients:
    """The rows of ``participants.tsv``; every index is the line of the file."""

    ids: pd.Series  # participant_id as written: may be doubled or no identifier at all
    raw: pd.DataFrame  # text as written
    clean: pd.DataFrame  # the same with every value that is not allowed left empty
    values: pd.DataFrame  # `clean` typed, columns of the dictionary only
    codes: pd.DataFrame  # the content of `raw` as whole numbers (`dataset.content_codes`)
    same: pd.Series  # a number for each row: the same where all content is
    content: pd.Series  # the same where rows are one patient (`dataset.content_groups`)

    @property
    def intact(self) -> pd.DataFrame:
        """Whether each value is as it was written: relations of a faulty value are not judged."""
        return self.raw[self.values.columns] == self.clean[self.values.columns]


def patients(ids: pd.Series, raw: pd.DataFrame, clean: pd.DataFrame, words: Dictionary) -> Patients:
    """The rows with their typed values and content groups."""
    values, codes = dataset.typed(clean, words), dataset.content_codes(raw, words)
    twins = dataset.twins_of(codes, words)
    return Patients(ids, raw, clean, values, codes, twins["same"], twins["alike"])


def spelled(fault: Fault) -> Fault:
    """The fault with every byte of a file's name that is not UTF-8 spelled out, so that it can be written.

    >>> name = os.fsdecode(b"sub-1/Tom" + bytes([0xF3]) + b"grafo")
    >>> spelled(Fault("warning", "sub-1", name, "", "", "")).where
    'sub-1/Tom\\\\xf3grafo'
    """
    return Fault(*(os.fsencode(cell).decode("utf-8", "backslashreplace") for cell in fault))


def quoted(text: str) -> str:
    """A value as a message shows it: in quotes, control characters spelled out, not too long.

    >>> quoted("7,5"), quoted("a\\tb")
    ("'7,5'", "'a\\\\tb'")
    """
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are.

    >>> listed(list("abcdefg"))
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def allowed_in_words(field: Field) -> str:
    """What a column may hold: values, then missing codes."""
    codes = [f"{code} ({MISSING_REASONS[code]})" for code in field.missing]
    return "; ".join([field.allowed, *(["missing: " + ", ".join(codes)] if codes else [])])
