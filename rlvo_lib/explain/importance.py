"""Permutation importance: what a model's logits become when a variable is another unseen patient's.

One order of the patients for each variable and repeat, drawn with the run's seed, is used for all folds,
seeds and arms, so that the logits of a patient's fold models can be averaged. All that is not permuted,
images included, stays the patient's own.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from rlvo_lib import workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping, patients
from rlvo_lib.explain.variables import PlayedModel, model_of
from rlvo_lib.preprocess import TensorCache

PERMUTED_COLUMNS = ["participant_id", "arm", "seed", "variable", "repeat", "logit"]
#: Orders of the patients for each variable.
REPEATS = 5


def permuted(
    analysis: Analysis,
    cache: TensorCache | None,
    tasks: Sequence[Task],
    *,
    repeats: int = REPEATS,
) -> pd.DataFrame:
    """Logits of unseen patients as they are and with each variable permuted, mean over the fold models.

    Returns
    -------
    DataFrame with `PERMUTED_COLUMNS`; ``variable`` is empty where nothing is permuted (repeat 0). Logits
    have six significant digits.

    Raises
    ------
    InputError
        For fewer repeats than one, or an arm that cannot be explained.
    """
    if not isinstance(repeats, int) or repeats < 1:
        raise InputError(f"repeats is {repeats!r}; allowed: a whole number of at least 1")
    calls = [(analysis, cache, task, repeats) for task in tasks]
    known = all(keeping.path(*_kept(*call), ".csv").exists() for call in calls)
    frames = workers.run(
        permuted_logits, calls, workers=analysis.settings.workers,
        label="Permutation importance: models", titles=[task.title for task in tasks],
        spawn_from=len(calls) + 1 if known else 1,
    )  # fmt: skip
    own = [name for name in PERMUTED_COLUMNS if name != "logit"]
    together = pd.concat(frames, ignore_index=True).fillna({"variable": ""})
    found = together.groupby(own, sort=False, as_index=False)["logit"].mean()
    return found.assign(logit=[float(f"{value:.6g}") for value in found["logit"]])


def permuted_caption(permuted: pd.DataFrame, y: pd.Series) -> str:
    """What permutation importance is of, in a sentence: patients, orders, what an interval is over."""
    people = permuted["participant_id"].unique()
    changed = permuted[permuted["variable"].fillna("") != ""]
    return (
        f"Permutation importance of the clinical variables of {', '.join(permuted['arm'].unique())}: each "
        f"replaced by that of another of {len(people)} patients whom the models did not see "
        f"({int(y[people].sum())} with the outcome), in {changed['repeat'].nunique()} orders; the fall of "
        "the AUC of the mean logit over the fold models, interval: bootstrap over patients; 0: not used "
        "(no skill). What moves the model, not what causes the outcome."
    )


def permuted_logits(
    analysis: Analysis, cache: TensorCache | None, task: Task, repeats: int = REPEATS
) -> pd.DataFrame:
    """The rows of one fold model, with its ``fold``; kept on disk (an empty ``variable`` is read as NaN)."""
    return keeping.kept_table(
        *_kept(analysis, cache, task, repeats), lambda: _compute(analysis, cache, task, repeats)
    )


def _kept(analysis: Analysis, cache: TensorCache | None, task: Task, repeats: int) -> tuple:
    depends_on = [
        task.folder.name, patients.unseen(analysis, cache, task), analysis.settings.seed, repeats,
    ]  # fmt: skip
    return analysis, f"permuted-{task.arm.name}-{task.fold}", depends_on


def _compute(
    analysis: Analysis, cache: TensorCache | None, task: Task, repeats: int
) -> pd.DataFrame:
    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    people = patients.unseen(analysis, cache, task)
    played = PlayedModel(model_of(analysis, cache, task), tuple(people))
    own = played.places.of(people)
    points, rows = [own], [("", 0)]
    for number, player in enumerate(played.players):
        for repeat in range(repeats):
            order = _order(analysis.settings.seed, player.name, repeat, len(people))
            changed = own.copy()
            changed[:, number] = own[order, number]
            points.append(changed)
            rows.append((player.name, repeat))
    stacked = np.stack(points, axis=1)  # (patients, rows, players)
    frames = []
    for participant, sets in zip(people, stacked, strict=True):
        logits = played.logits(played.model.image_features(participant), sets)
        frame = pd.DataFrame(rows, columns=["variable", "repeat"]).assign(logit=logits)
        frames.append(frame.assign(participant_id=participant))
    about = {"arm": task.arm.name, "seed": task.seed, "fold": task.fold}
    found = pd.concat(frames, ignore_index=True).assign(**about)
    return found[["participant_id", "arm", "seed", "fold", "variable", "repeat", "logit"]]


def _order(seed: int, player: str, repeat: int, n: int) -> np.ndarray:
    """An order of n patients; it depends on the player's name, not on which others there are."""
    return np.random.default_rng([seed, zlib.crc32(player.encode()), repeat]).permutation(n)
