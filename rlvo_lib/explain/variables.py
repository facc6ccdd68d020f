"""SHAP values of the clinical variables, of fused models and of models of the table, on the logit.

Estimator: shap's permutation explainer (Shapley values of what a model gives when variables that are not in
a coalition are those of a background patient), antithetic permutations drawn with the run's seed. The image
of the patient, or what was read off it, is held. Background: training patients of the fold, the same for
every arm that is explained side by side.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from rlvo_lib import experiment, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError, Settings
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping, patients
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.players import PlacedMatrix, Places, Player, players_of
from rlvo_lib.explain.tables import KINDS as TABLE_KINDS
from rlvo_lib.explain.tables import TableModel
from rlvo_lib.preprocess import TensorCache

SHAP_COLUMNS = [
    "participant_id", "arm", "seed", "fold", "variable", "value", "shap", "base", "logit",
]  # fmt: skip
#: Base value plus SHAP values is the logit, to this.
TOLERANCE = 1e-3
#: Sets of clinical variables that pass through the end of a network together: what a processor's cache holds.
ROWS = 500


def model_of(analysis: Analysis, cache: TensorCache | None, task: Task) -> FusedModel | TableModel:
    """The model of a finished task as a function of its clinical variables.

    Raises
    ------
    InputError
        If the arm's kind has no clinical variables of its own (``ridge``, ``mean``, ``stack``), or its model
        cannot be loaded.
    """
    if task.arm.kind in TABLE_KINDS:
        return TableModel.load(analysis, cache, task)
    if task.arm.kind not in ("cnn", "mlp"):
        raise InputError(
            f"arm '{task.arm.name}' is of kind {task.arm.kind}; allowed to be explained: cnn, mlp, "
            f"{', '.join(TABLE_KINDS)}"
        )
    model = FusedModel.load(analysis, cache, task)
    if not model.columns:
        raise InputError(
            f"arm '{task.arm.name}' has no clinical variables; allowed: an arm of predictors"
        )
    return model


class Remembered:
    """A function of points (N, M) that is called once for each different point.

    A third of the points of an explanation come again: variables of two codes, small coalitions.
    """

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self._function, self._known = function, {}

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """The values (N,)."""
        keys = [row.tobytes() for row in points.astype(np.uint16)]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            found = self._function(points[list(new.values())])
            self._known.update(zip(new, found.tolist(), strict=True))
        return np.array([self._known[key] for key in keys])


@dataclass
class PlayedModel:
    """A model as a function of what is held at the patient's own, and of places of players (`Places`)."""

    model: FusedModel | TableModel
    participants: tuple[str, ...]  # whose values occur

    @cached_property
    def players(self) -> tuple[Player, ...]:
        """The players, in the order of the study's columns."""
        return tuple(players_of(self.model.analysis.dictionary, self.model.columns))

    @cached_property
    def places(self) -> Places:
        """The values of the players among the participants."""
        return Places(self.model.variables, self.players, self.participants)

    @cached_property
    def _matrix(self) -> PlacedMatrix | None:
        return self.places.matrix(self.model.encoder) if self.model.encoder else None

    @cached_property
    def _offset(self) -> tuple[PlacedMatrix, Any] | None:
        offset = getattr(self.model, "offset", None)
        return (self.places.matrix(offset[0]), offset[1]) if offset else None

    def logits(self, features: Any, places: np.ndarray) -> np.ndarray:
        """Logits (N,) of one patient's features with N sets of places (N, n_players)."""
        matrix = self._matrix(places) if self._matrix else None
        if isinstance(self.model, TableModel):
            return self.model.of_matrix(features, matrix)
        parts = [
            _end_of_network(
                self.model, features, None if matrix is None else matrix[k : k + ROWS], n
            )
            for k, n in _blocks(len(places))
        ]
        added = 0.0
        if self._offset:
            added = np.asarray(self._offset[1].logit(self._offset[0](places)), float)
        return np.concatenate(parts) + added


def _blocks(n: int) -> list[tuple[int, int]]:
    """The start and length of each block of `ROWS`."""
    return [(start, min(ROWS, n - start)) for start in range(0, n, ROWS)]


def _end_of_network(
    model: FusedModel, features: torch.Tensor | None, matrix: np.ndarray | None, n: int
) -> np.ndarray:
    """The network's logits (n,) of one patient's features with n rows of tabular data."""
    tabular = None if matrix is None else torch.as_tensor(matrix).to(model.device)
    if features is not None and model.network.trunk_needs_tabular:
        return model.logits(features.expand(n, *features.shape[1:]), tabular)
    with torch.inference_mode():
        if features is None:
            output = model.network(None, tabular)
        else:
            output = model.network.fuse(features.expand(n, *features.shape[1:]), tabular)
        return output[:, 0].double().cpu().numpy()


# ------------------------------------------------------------------------------------ SHAP values


@dataclass(frozen=True)
class Explained:
    """A task to explain, in which patients, against which background."""

    task: Task
    patients: tuple[str, ...]
    background: tuple[str, ...]

    @classmethod
    def of(cls, analysis: Analysis, cache: TensorCache | None, task: Task) -> Explained:
        """A task with patients whom its model did not see (`patients.chosen`), and its background."""
        chosen = patients.chosen(analysis, cache, task, analysis.settings.explained_patients)
        training = experiment.fold_patients(analysis, cache, task)["train"]
        return cls(task, tuple(chosen), tuple(patients.background(analysis, training)))

    def beside(self, analysis: Analysis, cache: TensorCache | None, task: Task) -> Explained:
        """Another task in the same patients, against the same background.

        But for those who lack what its arm needs, or whom it was trained on.
        """
        own = experiment.fold_patients(analysis, cache, task)
        known = {*own["train"], *own["inner"]}
        usable = {p for part in own.values() for p in part}
        chosen = tuple(p for p in self.patients if p in usable - known)
        return Explained(task, chosen, tuple(p for p in self.background if p in usable))

    def kept(self, analysis: Analysis) -> tuple[Analysis, str, list]:
        """Where its SHAP values are kept: what `keeping.path` takes."""
        depends_on = [
            self.task.folder.name, self.patients, self.background,
            analysis.settings.subset("shap_permutations", "seed"),
        ]  # fmt: skip
        return analysis, f"shap-{self.task.arm.name}-{self.task.fold}", depends_on


def shap_values(
    analysis: Analysis, cache: TensorCache | None, task: Task, like: Task | None = None
) -> pd.DataFrame:
    """SHAP values of the players of one fold model, for patients it did not see; kept on disk.

    Parameters
    ----------
    like : a task whose patients and background are taken, so that two arms can be compared.

    Returns
    -------
    DataFrame with `SHAP_COLUMNS`; one row a patient and player. ``value`` is the quantity or the place
    of the code among the dictionary's choices, NaN where missing or for a player of several columns.

    Raises
    ------
    InputError
        If the arm cannot be explained, or none of the patients can be given to it.
    RuntimeError
        If base value and SHAP values do not add up to the logit, to 1e-3.
    """
    explained = Explained.of(analysis, cache, like or task)
    if like is not None:
        explained = explained.beside(analysis, cache, task)
    return _kept_shap(analysis, cache, explained)


def _kept_shap(analysis: Analysis, cache: TensorCache | None, explained: Explained) -> pd.DataFrame:
    return keeping.kept_table(
        *explained.kept(analysis), lambda: _compute_shap(analysis, cache, explained)
    )


def shap_of_folds(
    analysis: Analysis,
    cache: TensorCache | None,
    tasks: Sequence[Task],
    *,
    beside: Sequence[str] = (),
) -> pd.DataFrame:
    """`shap_values` of several fold models, one after the other in the frame.

    Parameters
    ----------
    beside : arms that are explained in the same patients, against the same background, after them.

    Raises
    ------
    InputError
        If an arm cannot be explained, or was not run.
    """
    explained = [Explained.of(analysis, cache, task) for task in tasks]
    like = {(one.task.seed, one.task.fold): one for one in explained}
    for task in experiment.plan(analysis, cache, list(beside)):
        if (task.seed, task.fold) in like:
            explained.append(like[task.seed, task.fold].beside(analysis, cache, task))
    calls = [(analysis, cache, one) for one in explained]
    known = all(keeping.path(*one.kept(analysis), ".csv").exists() for one in explained)
    frames = workers.run(
        _kept_shap, calls, workers=analysis.settings.workers, label="SHAP values: models",
        titles=[one.task.title for one in explained], spawn_from=len(calls) + 1 if known else 1,
    )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _compute_shap(
    analysis: Analysis, cache: TensorCache | None, explained: Explained
) -> pd.DataFrame:
    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    task, settings = explained.task, analysis.settings
    chosen, background = explained.patients, explained.background
    if not chosen:
        raise InputError(f"{task.title}: none of the patients to explain can be given to this arm")
    model = model_of(analysis, cache, task)
    played = PlayedModel(model, tuple(dict.fromkeys([*background, *chosen])))
    names = [player.name for player in played.players]
    shown = played.places.single_values(chosen)
    frames = []
    function = None
    for participant, values in zip(chosen, shown, strict=True):
        features = model.image_features(participant)
        if function is None or features is not None:
            function = Remembered(partial(played.logits, features))
        base, shap = shapley_values(
            function,
            played.places.of([participant])[0],
            played.places.of(background),
            permutations=settings.shap_permutations,
            seed=settings.seed,
        )
        logit = float(model.logit(features, model.variables.values([participant]))[0])
        if not abs(base + shap.sum() - logit) <= TOLERANCE:
            raise RuntimeError(
                f"{task.title}: base and SHAP values of {participant} give {base + shap.sum():.5f}, the "
                f"model {logit:.5f}; allowed to differ by {TOLERANCE}"
            )
        about = {
            "participant_id": participant, "arm": task.arm.name, "seed": task.seed, "fold": task.fold,
            "variable": names, "value": values, "shap": shap, "base": base, "logit": logit,
        }  # fmt: skip
        frames.append(pd.DataFrame(about, columns=SHAP_COLUMNS))
    return pd.concat(frames, ignore_index=True)


def shapley_values(
    function: Callable[[np.ndarray], np.ndarray],
    own: np.ndarray,
    background: np.ndarray,
    *,
    permutations: int,
    seed: int,
) -> tuple[float, np.ndarray]:
    """Base value and Shapley values (M,) of a function at one point, by shap's permutations.

    Parameters
    ----------
    function : of (N, M) points, gives (N,).
    own : (M,), the point.
    background : (B, M), where a coordinate outside the coalition is taken from.
    permutations : at least so many, each run through forward and backward.

    Notes
    -----
    phi_i = mean over permutations of E_b[f(own on {i and those before it}, b elsewhere) - f(own on those
    before it, b elsewhere)] (Shapley 1953; Štrumbelj & Kononenko, J Mach Learn Res 2010). Exact for
    interactions of up to two variables.

    Examples
    --------
    >>> base, phi = shapley_values(
    ...     lambda x: 2 * x[:, 0] + x[:, 1], np.array([1.0, 3.0]), np.zeros((2, 2)), permutations=1, seed=0
    ... )
    >>> base, phi.tolist()
    (0.0, [2.0, 3.0])
    """
    shap = _shap_package()
    state = np.random.get_state()  # noqa: NPY002
    try:  # shap seeds the global generator
        masker = shap.maskers.Independent(background, max_samples=len(background))
        explainer = shap.PermutationExplainer(function, masker, seed=seed)
        result = explainer(own[None], max_evals=permutations * (2 * len(own) + 1), silent=True)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return float(np.ravel(result.base_values)[0]), np.asarray(result.values[0], float)


def _shap_package() -> Any:
    """shap, imported without compiling its loops: that costs 8 s a process, and saves 3 ms a patient."""
    import numba

    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shap's own imports
            import shap
    finally:
        numba.config.DISABLE_JIT = before
    return shap


def shap_caption(shap: pd.DataFrame, y: pd.Series, settings: Settings | None = None) -> str:
    """What the SHAP values are of, in a sentence: how many patients, how chosen, which models.

    With ``settings`` the numbers of background patients and permutations are stated too.
    """
    arms, people = list(shap["arm"].unique()), shap["participant_id"].unique()
    n_models = int(shap.groupby(["arm", "participant_id"])["fold"].nunique().max())
    models = f"{n_models} fold models" if n_models > 1 else "fold model"
    drawn, times = "training patients", "permutations"
    if settings is not None:
        drawn = f"{settings.shap_background} {drawn}"
        times = f"at least {settings.shap_permutations} antithetic permutations"
    return (
        f"SHAP values (log-odds) of the clinical variables of {', '.join(arms)}, mean over "
        f"the {models} that did not see the patient: {len(people)} patients, of whom "
        f"{int(y[people].sum())} with the outcome (drawn to be up to half); the image, or what was read "
        f"off it, held at the patient's own; estimator: shap's permutation explainer, {times}; background: "
        f"{drawn} of the fold. What moves the model, not what causes the outcome; intervals over these "
        "patients."
    )
