"""Concepts as numbers: what a reader learns, and what a fusion sees."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.dictionary import Dictionary

LEAST_SD = 0.3  # of a 0/1 column: a rare code is not blown up (as in `tabular`)


class ReadCodes:
    """Columns of the table as numbers, and back to a word about each.

    A quantity is one number (as log(1 + x) where the dictionary says so); a code of two levels is 0 or 1;
    a code of more levels is one 0/1 column a level, so that a reader gives each level's probability.

    Parameters
    ----------
    columns
        Concepts, in the order of the outputs.
    dictionary
        Says which are codes and which are quantities.

    Examples
    --------
    >>> from rlvo_lib import dictionary
    >>> from rlvo_lib.config import load_study
    >>> codes = ReadCodes(("clot_hu", "siphon_calc"), dictionary.load(load_study().dictionary_path))
    >>> codes.names
    ['clot_hu', 'siphon_calc=0', 'siphon_calc=1', 'siphon_calc=2']
    """

    def __init__(self, columns: tuple[str, ...], dictionary: Dictionary) -> None:
        self.columns, self.dictionary = tuple(columns), dictionary
        self.parts: list[tuple[str, str | None]] = []  # column, and the level or None
        for column in self.columns:
            levels = list(dictionary[column].choices) if dictionary[column].is_categorical else []
            if len(levels) > 2:
                self.parts += [(column, level) for level in levels]
            else:
                self.parts.append((column, levels[1] if levels else None))

    @property
    def names(self) -> list[str]:
        """The K names of the outputs."""
        many = {c for c, _ in self.parts if sum(c == other for other, _ in self.parts) > 1}
        return [f"{c}={level}" if c in many else c for c, level in self.parts]

    def of_table(self, table: pd.DataFrame) -> np.ndarray:
        """What was recorded, (N, K) float32, NaN where it was not."""
        out = np.full((len(table), len(self.parts)), np.nan, np.float32)
        for k, (column, level) in enumerate(self.parts):
            if column not in table:
                raise InputError(f"participants.tsv: column '{column}', a concept, is missing")
            values = table[column]
            known = values.notna().to_numpy()
            if level is not None:
                out[known, k] = (values[known].astype(str) == level).to_numpy(np.float32)
            else:
                numbers = values[known].to_numpy(float)
                logged = self.dictionary[column].transform == "log1p"
                out[known, k] = np.log1p(numbers) if logged else numbers
        return out

    def where(self, column: str) -> list[int]:
        """The outputs that belong to a column.

        Raises
        ------
        InputError
            If it is no concept.
        """
        found = [k for k, (name, _) in enumerate(self.parts) if name == column]
        if not found:
            raise InputError(f"'{column}' is no concept; allowed: {', '.join(self.columns)}")
        return found

    def corrected(self, reads: np.ndarray, column: str, value: str | float) -> np.ndarray:
        """The reads (N, K) with one column as a person read it: a code, or a quantity in its unit.

        Raises
        ------
        InputError
            If the column is no concept, has no such code, or the value is no number.
        """
        out = np.array(reads, dtype=float)
        for k in self.where(column):
            level = self.parts[k][1]
            if level is None:
                number = _number(column, value)
                logged = self.dictionary[column].transform == "log1p"
                out[:, k] = np.log1p(number) if logged else number
            else:
                choices = self.dictionary[column].choices
                if str(value) not in choices:
                    raise InputError(
                        f"'{column}' is read as {value!r}; allowed: {', '.join(choices)}"
                    )
                out[:, k] = float(str(value) == level)
        return out

    def bounded(self, reads: np.ndarray) -> np.ndarray:
        """Reads (N, K) within what is possible: shares of a code between 0 and 1."""
        out = np.array(reads, dtype=float)
        for k, (_, level) in enumerate(self.parts):
            if level is not None:
                out[:, k] = np.clip(out[:, k], 0.0, 1.0)
        return out

    def expected(self, reads: np.ndarray, column: str) -> np.ndarray:
        """One number a patient for a column (N,): its quantity, or the mean code by the shares."""
        rows = self.where(column)
        if len(rows) == 1:
            return np.asarray(reads, dtype=float)[:, rows[0]]
        shares = np.clip(np.asarray(reads, dtype=float)[:, rows], 1e-6, None)
        levels = np.array([float(self.parts[k][1]) for k in rows])
        return shares @ levels / shares.sum(axis=1)


def _number(column: str, value: str | float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"'{column}' is read as {value!r}; allowed: a number") from error
