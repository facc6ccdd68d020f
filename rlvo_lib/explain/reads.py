"""Arms of concepts explain themselves: what was read off a patient's images, and what each read adds.

For patients that neither the readers nor the model of a fold were fitted on. The model is fitted again, as it
was for the predictions (a logistic regression, or a small network on some forty numbers: a second or two), and
must give the stored predictions. Contributions are on the logit and add up to it from a base, the mean of the
training patients: of the logistic regression exactly, coefficient x (value - training mean); of DAFT on reads
as Shapley values over the variables (`shapley`). All columns of one concept, or one clinical variable, are one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from rlvo_lib import concepts, experiment, storage, training, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping
from rlvo_lib.explain.clinical import ClinicalVariables
from rlvo_lib.explain.scope import asked, one_thread
from rlvo_lib.preprocess import TensorCache

READ_COLUMNS = [
    "participant_id", "arm", "seed", "fold", "part", "variable", "value", "reading", "share", "contribution",
    "base", "logit",
]  # fmt: skip
WHAT_IF_COLUMNS = [
    "participant_id", "arm", "seed", "fold", "variable", "to", "to_value", "logit_before", "logit",
]  # fmt: skip
PERCENTILES = {"10th percentile": 10, "90th percentile": 90}
#: A variable's part: read off the images, of the table, measured in the scans.
PARTS = ("read", "clinical", "measured")
TOLERANCE = 1e-6  # of contributions' sum, and of probabilities against the stored ones
HALF_PRECISION = 1e-2  # of probabilities that a GPU stored
FEW = 6  # models from which processes of their own, each of some 5 s, are worth it
DIGITS = 6  # significant ones of what is stored
Logit = Callable[[np.ndarray], np.ndarray]


def concept_reads(
    analysis: Analysis,
    cache: TensorCache | None,
    tasks: Sequence[Task],
    participants: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reads with their contributions, and what the logit would be had a read been different.

    Parameters
    ----------
    tasks : finished tasks of kind ``concepts``.
    participants : named patients (`scope.asked`); left out, the run's explained patients.

    Returns
    -------
    Two DataFrames, kept in the cache. `READ_COLUMNS`: a row a patient, model and variable. ``value`` is the
    quantity in its unit, or the (mean) code; ``reading`` the meaning of the likeliest code and ``share`` the
    reader's share of it. `WHAT_IF_COLUMNS`: a row a patient, model, concept and other reading: ``to`` the meaning of a code, or a percentile
    of the records outside the test set with ``to_value``; all other reads stay.

    Raises
    ------
    InputError
        For an arm that is not built on concepts, or a patient whom no model can be asked about.
    """
    for task in tasks:
        if task.arm.kind != "concepts":
            raise InputError(
                f"arm '{task.arm.name}' has kind {task.arm.kind}; allowed for reads: an arm of kind concepts"
            )
    wanted = analysis.settings.explained_patients
    calls = [(analysis, cache, *one) for one in asked(analysis, cache, tasks, participants, wanted)]
    known = all(place.exists() for call in calls for place in _places(*call))
    slow = any(task.arm.fusion == "daft" for task in tasks)  # a network is trained
    made = workers.run(
        _kept, calls, workers=analysis.settings.workers, label="reads: folds",
        spawn_from=len(calls) + 1 if known else 2 if slow else FEW,
    )  # fmt: skip
    return tuple(pd.concat(frames, ignore_index=True) for frames in zip(*made, strict=True))


def _depends(analysis: Analysis, task: Task, ids: Sequence[str]) -> list:
    names = ("shap_background", "shap_permutations", "seed")
    return [task.folder.name, list(ids), analysis.settings.subset(*names)]


def _names(task: Task) -> tuple[str, str]:
    return tuple(f"{what}-{task.arm.name}-{task.fold}" for what in ("reads", "what-if"))


def _places(analysis: Analysis, cache: TensorCache | None, task: Task, ids: Sequence[str]):
    return [
        keeping.path(analysis, name, _depends(analysis, task, ids), ".csv") for name in _names(task)
    ]


def _kept(
    analysis: Analysis, cache: TensorCache | None, task: Task, ids: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    @functools.cache
    def model() -> ConceptModel:
        return ConceptModel.load(analysis, cache, task)

    depends, names = _depends(analysis, task, ids), _names(task)
    with one_thread():
        return (
            keeping.kept_table(analysis, names[0], depends, lambda: model().reads(ids)),
            keeping.kept_table(analysis, names[1], depends, lambda: model().what_if(ids)),
        )


# --------------------------------------------------------------------------------- one fold's model


@dataclass(frozen=True)
class ConceptModel:
    """The model of a finished task of concepts: rows of standardised reads and clinical columns to logits."""

    analysis: Analysis
    task: Task
    codes: concepts.ReadCodes
    bottleneck: concepts.Bottleneck
    logit: Logit  # of rows (N, K + P)
    owners: list[tuple[str, str]]  # part and variable of each of the K + P columns
    guessed: pd.DataFrame  # reads (N, K) of the patients to be predicted, by participant_id
    clinical: np.ndarray | None  # (N, P) of the same
    fitted_on: np.ndarray  # (M, K + P) rows of training patients
    outside: list[str]  # patients outside the test set

    @classmethod
    def load(cls, analysis: Analysis, cache: TensorCache | None, task: Task) -> ConceptModel:
        """Fit again, as for the predictions; RuntimeError if they come out otherwise."""
        from rlvo_lib.experiment.cases import fitted_encoder

        model, parts, guessed, clinical = experiment.fit_concepts(analysis, cache, task)
        encoder = fitted_encoder(analysis, cache, task.arm, parts)
        owners = [("read", column) for column, _ in model.codes.parts]
        owners += encoder_owners(encoder) if encoder else []
        rows = {
            part: _rows(model, _known(analysis, model, part, ids, guessed[part]), clinical[part])
            for part, ids in parts.items()
            if ids
        }
        fitted_on = np.concatenate([rows["train"], rows["inner"]])
        logit = model.model.logit
        if task.arm.fusion == "daft":
            logit = _network(analysis, task, model, parts, rows)
        scored = [part for part in ("held_out", "test") if parts[part]]
        ids = [p for part in scored for p in parts[part]]
        index = pd.Index(ids, name="participant_id")
        frame = pd.DataFrame(np.concatenate([guessed[part] for part in scored]), index=index)
        found = cls(
            analysis,
            task,
            model.codes,
            model,
            logit,
            owners,
            frame,
            np.concatenate([clinical[part] for part in scored]) if encoder else None,
            fitted_on,
            [p for part in ("train", "inner", "held_out") for p in parts[part]],
        )
        found._check_stored()
        return found

    def rows(self, participants: Sequence[str], reads: np.ndarray | None = None) -> np.ndarray:
        """Rows (N, K + P) of some patients, with their own reads or others (N, K)."""
        places = self.guessed.index.get_indexer(list(participants))
        own = self.guessed.to_numpy()[places] if reads is None else reads
        clinical = None if self.clinical is None else self.clinical[places]
        return _rows(self.bottleneck, own, clinical)

    def _check_stored(self) -> None:
        """Logits of the fitted model against the probabilities that the task stored."""
        stored = storage.read_csv(self.task.result).set_index("participant_id")["probability"]
        logits = self.logit(self.rows(stored.index))
        wrong = np.abs(1 / (1 + np.exp(-logits)) - stored.to_numpy()).max()
        on_cpu = training.pick_device(self.analysis.settings.device).type == "cpu"
        if wrong > (TOLERANCE if on_cpu else HALF_PRECISION):
            raise RuntimeError(
                f"{self.task.title}: fitted again, its probabilities differ by {wrong:.2g} from the stored ones"
            )

    def contributions(self, participants: Sequence[str]) -> tuple[np.ndarray, float]:
        """Contributions (N, variables) to the logit, in the order of `variables`, and the base."""
        rows, groups = self.rows(participants), self._groups()
        if self.task.arm.fusion == "daft":
            settings = self.analysis.settings
            rng = np.random.default_rng(settings.seed)
            n = min(len(self.fitted_on), settings.shap_background)
            background = self.fitted_on[np.sort(rng.choice(len(self.fitted_on), n, replace=False))]
            orders = settings.shap_permutations
            found, base = shapley(self.logit, rows, background, groups, orders=orders, rng=rng)
        else:
            found, base = linear_contributions(self.bottleneck.model, rows, self.fitted_on, groups)
        off = np.abs(found.sum(axis=1) + base - self.logit(rows)).max()
        if off > TOLERANCE * 100:  # a network's logits are float32
            raise RuntimeError(f"{self.task.title}: contributions do not add up to the logit")
        return found, base

    @property
    def variables(self) -> list[tuple[str, str]]:
        """Part and name of each variable, concepts first."""
        return list(dict.fromkeys(self.owners))

    def _groups(self) -> list[list[int]]:
        return [[k for k, one in enumerate(self.owners) if one == own] for own in self.variables]

    def reads(self, participants: Sequence[str]) -> pd.DataFrame:
        """`READ_COLUMNS` of some patients."""
        contributions, base = self.contributions(participants)
        logits, task = self.logit(self.rows(participants)), self.task
        told = {own: self._told(own, participants) for own in self.variables}
        rows = []
        for i, participant in enumerate(participants):
            for k, (part, name) in enumerate(self.variables):
                value, words, share = (column[i] for column in told[part, name])
                rows.append((participant, task.arm.name, task.seed, task.fold, part, name, value, words,
                             share, contributions[i, k], base, logits[i]))  # fmt: skip
        return _rounded(pd.DataFrame(rows, columns=READ_COLUMNS))

    def _told(
        self, own: tuple[str, str], ids: Sequence[str]
    ) -> tuple[np.ndarray, list, np.ndarray]:
        """Value, meaning of a code and the reader's share of it, of one variable (N each)."""
        part, name = own
        nothing = np.full(len(ids), np.nan)
        if part == "read":
            return told(self.codes, self.guessed.loc[list(ids)].to_numpy(), name)
        if part == "measured":
            return nothing, [""] * len(ids), nothing
        value = ClinicalVariables(self.analysis, [name]).values(ids)[:, 0]
        codes = [""] * len(ids)
        if self.analysis.dictionary[name].is_categorical:
            column = self.analysis.dataset.table.loc[list(ids), name]
            choices = self.analysis.dictionary[name].choices
            codes = ["" if pd.isna(code) else choices[str(code)] for code in column]
        return value, codes, nothing

    def what_if(self, participants: Sequence[str]) -> pd.DataFrame:
        """`WHAT_IF_COLUMNS` of some patients."""
        task, own = self.task, self.guessed.loc[list(participants)].to_numpy()
        before, rows = self.logit(self.rows(participants)), []
        table = self.analysis.dataset.table.loc[self.outside]
        for column in self.codes.columns:
            for to, value in other_readings(self.analysis.dictionary, column, table[column]):
                reads = self.codes.corrected(own, column, value)
                after = self.logit(self.rows(participants, reads))
                number = np.nan if isinstance(value, str) else value
                for i, participant in enumerate(participants):
                    rows.append((participant, task.arm.name, task.seed, task.fold, column, to, number,
                                 before[i], after[i]))  # fmt: skip
        return _rounded(pd.DataFrame(rows, columns=WHAT_IF_COLUMNS))


def other_readings(
    dictionary: Dictionary, column: str, recorded: pd.Series
) -> list[tuple[str, str | float]]:
    """What a concept might have been read as, in words and as a value: each recorded code, or two percentiles."""
    known = recorded.dropna()
    if dictionary[column].is_categorical:
        present, choices = set(known.astype(str)), dictionary[column].choices
        return [(words, code) for code, words in choices.items() if code in present]
    values = np.percentile(known.astype(float), list(PERCENTILES.values()))
    return [(words, float(value)) for words, value in zip(PERCENTILES, values, strict=True)]


def told(
    codes: concepts.ReadCodes, reads: np.ndarray, column: str
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Reads (N, K) of a column: value, meaning of the likeliest code ("" of a quantity), the code's share.

    Examples
    --------
    >>> from rlvo_lib import dictionary
    >>> from rlvo_lib.config import load_study
    >>> codes = concepts.ReadCodes(("siphon_calc",), dictionary.load(load_study().dictionary_path))
    >>> value, words, share = told(codes, np.array([[0.1, 0.3, 0.6]]), "siphon_calc")
    >>> round(float(value[0]), 2), words[0], round(float(share[0]), 2)
    (1.5, 'severe', 0.6)
    """
    places, field = codes.where(column), codes.dictionary[column]
    value = codes.expected(codes.bounded(reads), column)
    if not field.is_categorical:
        unlogged = np.expm1(value) if field.transform == "log1p" else value
        return unlogged, [""] * len(reads), np.full(len(reads), np.nan)
    shares = np.clip(reads[:, places], 0, 1)
    levels = [codes.parts[k][1] for k in places]
    if len(places) == 1:
        levels, shares = list(field.choices)[:2], np.column_stack([1 - shares, shares])
    shares = np.clip(shares, 1e-6, None)
    shares = shares / shares.sum(axis=1, keepdims=True)
    best = shares.argmax(axis=1)
    words = [field.choices[levels[k]] for k in best]
    return value, words, shares[np.arange(len(reads)), best]


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its real numbers to `DIGITS` significant digits."""
    real = frame.select_dtypes("float").columns
    return frame.assign(**{name: [float(f"{v:.{DIGITS}g}") for v in frame[name]] for name in real})


# ------------------------------------------------------------------------------------ contributions


def linear_contributions(
    model: object, rows: np.ndarray, fitted_on: np.ndarray, groups: Sequence[Sequence[int]]
) -> tuple[np.ndarray, float]:
    """Coefficient x (value - training mean), summed over each group's columns, and the mean's logit.

    Examples
    --------
    >>> from rlvo_lib.baselines.logistic import Linear
    >>> model = Linear(0.5, np.array([1.0, 2.0]), {})
    >>> linear_contributions(model, np.array([[3.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 2.0]]), [[0], [1]])
    (array([[2., 0.]]), 3.5)
    """
    mean = np.asarray(fitted_on, float).mean(axis=0)
    each = (np.asarray(rows, float) - mean) * model.coef
    summed = np.column_stack([each[:, list(columns)].sum(axis=1) for columns in groups])
    return summed, float(model.intercept + mean @ model.coef)


def shapley(
    logit: Logit,
    rows: np.ndarray,
    background: np.ndarray,
    groups: Sequence[Sequence[int]],
    *,
    orders: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Shapley values (N, groups) of rows (N, C), what is absent being as in the background rows (B, C).

    Over random orders of the groups, each forwards and backwards (as shap's PermutationExplainer): each row's
    values add up to its logit minus the background's mean logit, the base, exactly.

    Examples
    --------
    >>> found, base = shapley(lambda x: x.sum(axis=1), np.array([[3.0, 1.0]]), np.zeros((1, 2)), [[0], [1]],
    ...                       orders=1, rng=np.random.default_rng(0))
    >>> found, base
    (array([[3., 1.]]), 0.0)
    """
    found = np.zeros((len(rows), len(groups)))
    base = float(np.mean(logit(background)))
    for _ in range(orders):
        order = rng.permutation(len(groups))
        for way in (order, order[::-1]):
            before = np.full(len(rows), base)
            mixed = np.repeat(background[None], len(rows), axis=0)  # (N, B, C)
            for group in way:
                columns = list(groups[group])
                mixed[:, :, columns] = rows[:, None, columns]
                flat = logit(mixed.reshape(-1, rows.shape[1]))
                after = flat.reshape(len(rows), -1).mean(axis=1)
                found[:, group] += after - before
                before = after
    return found / (2 * orders), base


def encoder_owners(encoder: object) -> list[tuple[str, str]]:
    """Part and variable of each column of a fitted `TabularEncoder`'s matrix."""
    variables = [*encoder.columns, *encoder.measures]
    owners = []
    for name in encoder.names:
        bare = name.removeprefix("missingindicator_")
        fits = [v for v in variables if bare == v or bare.startswith(f"{v}_")]
        variable = max(fits, key=len)
        owners.append(("measured" if variable in encoder.measures else "clinical", variable))
    return owners


# ------------------------------------------------------------------------------------ fitted again


def _known(
    analysis: Analysis, model: concepts.Bottleneck, part: str, ids: list[str], guessed: np.ndarray
) -> np.ndarray:
    """The reads (N, K) a part is fitted on or predicted with: records only of training patients."""
    if part not in ("train", "inner"):
        return guessed
    recorded = model.codes.of_table(analysis.dataset.table.loc[ids])
    return np.where(np.isnan(recorded), guessed, recorded)


def _rows(model: concepts.Bottleneck, reads: np.ndarray, clinical: np.ndarray | None) -> np.ndarray:
    parts = [model.standardised(reads)] + ([] if clinical is None else [clinical])
    return np.concatenate(parts, axis=1).astype(np.float32)


def _network(
    analysis: Analysis, task: Task, model: concepts.Bottleneck, parts: dict, rows: dict
) -> Logit:
    """DAFT on reads, trained again as `experiment` trains it."""
    seed = task.seed * 1000 + task.fold
    cases = {
        part: training.Cases(None, rows[part], analysis.y[parts[part]].to_numpy(float))
        for part in ("train", "inner")
    }
    training.seed_everything(seed)
    n = len(model.codes.parts)
    network = concepts.ConceptDaft(n, rows["train"].shape[1] - n)
    training.fit(network, cases["train"], cases["inner"], analysis.settings, seed=seed)

    network.eval()

    def logit(matrix: np.ndarray) -> np.ndarray:
        device = next(network.parameters()).device
        with torch.inference_mode():
            output = network(None, torch.as_tensor(np.asarray(matrix, np.float32)).to(device))
        return output[:, 0].double().cpu().numpy()

    return logit
