"""Analyses without their test patients, and with a share of their training patients."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd

from rlvo_lib.ablation.variants import check_share
from rlvo_lib.analysis import Analysis


def without_test(analysis: Analysis) -> Analysis:
    """The analysis as if the test patients had never been there."""
    test = analysis.split["partition"] == "test"
    hidden = set(analysis.split.loc[test, "participant_id"])
    frame = analysis.frame[~analysis.frame["participant_id"].isin(hidden)]
    return dataclasses.replace(
        analysis,
        frame=frame.reset_index(drop=True),
        split=analysis.split[~test].reset_index(drop=True),
    )


class Thinned(Analysis):
    """An analysis that learns from a share of its training patients.

    Its ``split`` says who they are: a column for each seed and fold (`_kept_column`), "1" or "". So they are
    part of the key of each task.
    """

    def fold_parts(self, fold: int, seed: int) -> dict[str, list[str]]:
        """As of the whole analysis, ``train`` and ``inner`` cut down; ``held_out`` is the same."""
        whole = super().fold_parts(fold, seed)
        kept = self.split[_kept_column(fold, seed)] == "1"
        known = set(self.split.loc[kept, "participant_id"])
        return {
            name: [p for p in ids if p in known] if name in ("train", "inner") else ids
            for name, ids in whole.items()
        }


def _kept_column(fold: int, seed: int) -> str:
    return f"kept_{seed}_{fold}"


def thinned(analysis: Analysis, share: float) -> Analysis:
    """The analysis with a share of the training patients of each fold, by outcome, part by part.

    Shares are nested: who is in a smaller one is in every larger one, in the same part. Patients of the
    same content stay together. Each training seed draws patients of its own, so that repetitions average
    the luck of who is in a small share.

    Raises
    ------
    InputError
        If the share is not above 0 and at most 1.
    """
    if check_share(share) == 1:
        return analysis
    units = analysis.units
    columns = {}
    for seed in analysis.seeds:
        drawn = np.random.default_rng([analysis.settings.seed, seed]).permutation(
            sorted(units.unique())
        )
        rank = {unit: place for place, unit in enumerate(drawn)}
        for fold in range(1, analysis.settings.study.validation["folds"] + 1):
            parts = analysis.fold_parts(fold, seed)
            kept = set()
            for part in ("train", "inner"):
                kept |= _first(units[parts[part]], analysis.y, rank, share)
            inside = analysis.split["participant_id"].isin(kept)
            columns[_kept_column(fold, seed)] = np.where(inside, "1", "")
    split = analysis.split.assign(**columns)
    fields = {f.name: getattr(analysis, f.name) for f in dataclasses.fields(Analysis)}
    return Thinned(**fields | {"split": split})


def _first(units: pd.Series, y: pd.Series, rank: dict[int, int], share: float) -> set[str]:
    """The patients of the first units of each outcome, by rank, a share of them rounded up."""
    kept: set[str] = set()
    outcome = y[units.index].groupby(units).max()  # of a unit: whether one of its patients has it
    for value in (0, 1):
        own = sorted(outcome.index[outcome == value], key=rank.__getitem__)
        chosen = own[: math.ceil(round(share * len(own), 9))]
        kept |= set(units.index[units.isin(chosen)])
    return kept
