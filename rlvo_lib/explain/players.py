"""Clinical variables as players: what enters an explanation as one, however many columns it has.

One-hot levels and the missing indicator of a column move with the column. A calculated column and those
that it is made from are one player: no patient has one ratio with the parts of another.

A player's *place* is the number of its value in a list of the different values (of its columns together)
among some patients. So one number stands for a missing value, a code, or several columns at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from rlvo_lib.analysis import Analysis
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.explain.clinical import ClinicalVariables
from rlvo_lib.tabular import TabularEncoder

PLAYER_COLUMNS = ["arm", "variable", "group", "columns", "label"]
#: What a missing value is called.
MISSING = "not recorded"


@dataclass(frozen=True)
class Player:
    """One variable of an explanation; ``group`` is the heading that it stands under in the dictionary."""

    name: str
    columns: tuple[str, ...]
    group: str
    label: str

    @property
    def is_joint(self) -> bool:
        """Whether it is made of several columns."""
        return len(self.columns) > 1


def players_of(dictionary: Dictionary, columns: Sequence[str]) -> list[Player]:
    """The players of some columns, in their order; together they hold each column once.

    Columns are joined where one is calculated from the other (connected components); a joint player
    stands in the place of its first column and is named after all of them.

    Examples
    --------
    The core and Tmax volumes that the mismatch ratio is made of are one player with it::

        [p.name for p in players_of(words, ["age", "core_ml", "tmax6_ml", "mismatch_ratio"])]
        # ["age", "core_ml+tmax6_ml+mismatch_ratio"]
    """
    joined = {name: {name} for name in columns}
    for name in columns:
        for parent in {*dictionary[name].parents, *(dictionary[name].ratio or ())} & set(joined):
            together = joined[name] | joined[parent]
            joined |= dict.fromkeys(together, together)
    headings, found = _headings(dictionary), {}
    for name in columns:
        own = tuple(c for c in columns if c in joined[name])
        if own not in found:
            found[own] = Player("+".join(own), own, headings[name], _label(dictionary, own))
    return list(found.values())


def _label(dictionary: Dictionary, columns: tuple[str, ...]) -> str:
    """A column's label; of several those of the calculated ones, as they say what the others are."""
    if len(columns) == 1:
        return dictionary[columns[0]].label
    made = [c for c in columns if set(dictionary[c].parents) & set(columns)]
    return " + ".join(dictionary[c].label for c in made) + ", with parts"


def _headings(dictionary: Dictionary) -> dict[str, str]:
    """The section that each column stands in; its form's name where it has none."""
    current, found = {}, {}
    for name, field in dictionary.fields.items():
        current[field.form] = field.section or current.get(field.form, "")
        found[name] = current[field.form] or field.form
    return found


def players_table(analysis: Analysis, arms: Sequence[str]) -> pd.DataFrame:
    """The players of some arms of the study, one row each: `PLAYER_COLUMNS`, columns joined by "; "."""
    study, rows = analysis.settings.study, []
    for name in arms:
        arm = study.arms[name]
        below = study.columns_of(study.arms[arm.offset]) if arm.offset else ()
        columns = list(dict.fromkeys([*study.columns_of(arm), *below]))
        for player in players_of(analysis.dictionary, columns):
            rows.append((name, player.name, player.group, "; ".join(player.columns), player.label))
    return pd.DataFrame(rows, columns=PLAYER_COLUMNS)


def described(analysis: Analysis, shap: pd.DataFrame) -> pd.DataFrame:
    """Rows of SHAP values with a column ``text``: the patient's value in words ("71 y", "male").

    Of a joint player the values of all its columns, each after its name. The rows need participant_id
    and variable.
    """
    table, words = analysis.dataset.table, []
    for participant, variable in zip(shap["participant_id"], shap["variable"], strict=True):
        columns = variable.split("+")
        texts = [_text(analysis.dictionary, c, table.at[participant, c]) for c in columns]
        if len(columns) > 1:
            texts = [f"{c} {text}" for c, text in zip(columns, texts, strict=True)]
        words.append(", ".join(texts))
    return shap.assign(text=words)


def _text(dictionary: Dictionary, column: str, value: object) -> str:
    field = dictionary[column]
    if pd.isna(value):
        return MISSING
    if field.is_categorical:
        return field.choices.get(str(value), str(value))
    unit = "" if field.unit in ("", "ratio") else f" {field.unit}"
    return f"{float(value):.3g}{unit}" if abs(float(value)) < 1000 else f"{float(value):.0f}{unit}"


@dataclass(frozen=True)
class Places:
    """The values that players have among some patients, and the places of each in their list.

    ``participants`` are those whose values may occur: background and explained.
    """

    variables: ClinicalVariables
    players: tuple[Player, ...]
    participants: tuple[str, ...]

    @cached_property
    def _found(self) -> tuple[list[np.ndarray], np.ndarray]:
        """For each player its different values (K, n_columns); and the places (N, n_players)."""
        values = self.variables.values(self.participants)
        known, places = [], np.empty((len(values), len(self.players)))
        for number, player in enumerate(self.players):
            own = values[:, self._columns(player)]
            # -inf stands for a missing value, as NaN in a row is never equal to another
            different, where = np.unique(
                np.where(np.isnan(own), -np.inf, own), axis=0, return_inverse=True
            )
            known.append(np.where(np.isinf(different), np.nan, different))
            places[:, number] = where.ravel()
        return known, places

    def _columns(self, player: Player) -> list[int]:
        return [self.variables.columns.index(c) for c in player.columns]

    def of(self, participants: Sequence[str]) -> np.ndarray:
        """Places (N, n_players) float64 of some of the ``participants``."""
        rows = [self.participants.index(p) for p in participants]
        return self._found[1][rows]

    def values(self, places: np.ndarray) -> np.ndarray:
        """The columns' values (N, n_columns) at some places: what `ClinicalVariables.table` takes."""
        found = np.empty((len(places), len(self.variables.columns)))
        for number, player in enumerate(self.players):
            known = self._found[0][number]
            found[:, self._columns(player)] = known[places[:, number].astype(int)]
        return found

    def single_values(self, participants: Sequence[str]) -> np.ndarray:
        """Values (N, n_players) of players of one column, NaN for a joint one: what tables show."""
        values = self.values(self.of(participants))
        columns = [np.nan if p.is_joint else self._columns(p)[0] for p in self.players]
        return np.stack(
            [np.full(len(values), np.nan) if np.isnan(c) else values[:, c] for c in columns], axis=1
        )

    def matrix(self, encoder: TabularEncoder) -> PlacedMatrix:
        """The encoder's matrix as a look-up of places."""
        return PlacedMatrix(self, encoder)


class PlacedMatrix:
    """What a tabular encoder makes of players, looked up by their places instead of computed anew.

    Each column of its matrix comes from one column of the table, so each player's columns are computed
    once for each of its values. That this is so is checked on the patients themselves.

    Raises
    ------
    RuntimeError
        If a looked-up row is not what the encoder gives.
    """

    def __init__(self, places: Places, encoder: TabularEncoder) -> None:
        known, own = places._found
        lengths = [len(values) for values in known]
        rows = np.zeros((1 + sum(lengths), len(known)))  # the first: each player's first value
        start = 1
        for number, length in enumerate(lengths):
            rows[start : start + length, number] = np.arange(length)
            start += length
        encoded = encoder.transform(places.variables.table(places.values(rows)))
        self._base, self._parts = encoded[0], []
        start = 1
        for length in lengths:
            part = encoded[start : start + length]
            changing = np.flatnonzero((part != self._base).any(axis=0))
            self._parts.append((changing, part[:, changing]))
            start += length
        expected = encoder.transform(places.variables.table(places.values(own)))
        if not np.array_equal(self(own), expected):
            raise RuntimeError("the encoder mixes columns of the table: its matrix has no look-up")

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """The matrix (N, P) float32 of places (N, n_players)."""
        found = np.repeat(self._base[None], len(places), axis=0)
        for number, (columns, part) in enumerate(self._parts):
            if len(columns):
                found[:, columns] = part[places[:, number].astype(int)]
        return found
