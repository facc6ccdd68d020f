"""What clinical variables switch on or off inside a network: α and β of FiLM and DAFT, channel by channel.

F'_c = α_c F_c + β_c (`rlvo_lib.fusion`). For patients the fold's model did not see: their own α and β; how
they change when one variable moves and all else stays the patient's own; and how much of the logit hangs on
a channel being modulated patient by patient. A channel of one fold model is no channel of another: only sums
over channels can be compared between models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rlvo_lib import experiment, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.scope import asked, one_thread
from rlvo_lib.preprocess import TensorCache

MODULATION_COLUMNS = [
    "arm", "seed", "fold", "channel", "variable", "change", "d_alpha", "d_beta", "flips", "d_active",
    "alpha", "alpha_sd", "beta", "beta_sd", "reversed", "active", "weight", "n",
]  # fmt: skip
#: Fusions whose features are scaled and shifted by clinical variables.
MODULATED = ("film", "daft")
#: The place in the block behind which a ReLU silences what is not above 0.
BEFORE_RELU = 3
FEW = 6  # models from which processes of their own, each of some 5 s, are worth it
DIGITS = 5  # significant ones of what is stored


def modulation_reason(analysis: Analysis, task: Task) -> str:
    """Why an arm's network has no α and β that differ between patients; empty if it has."""
    arm, settings = task.arm, analysis.settings
    if arm.kind != "cnn" or arm.fusion not in MODULATED:
        how = f"kind {arm.kind}" if arm.kind != "cnn" else f"fusion {arm.fusion}"
        return (
            f"Arm '{arm.name}' ({how}) scales and shifts no feature of an image by clinical variables: "
            f"there is no α and β to show. Fusions that do: {', '.join(MODULATED)}."
        )
    if not settings.fusion_scale and not settings.fusion_shift:
        return f"Arm '{arm.name}': neither α nor β is learnt."
    return ""


def modulation_effects(
    analysis: Analysis,
    cache: TensorCache | None,
    tasks: Sequence[Task],
    participants: Sequence[str] | None = None,
) -> pd.DataFrame:
    """How each clinical variable moves α and β of each channel, in patients a fold's model did not see.

    Parameters
    ----------
    tasks : finished tasks of kind ``cnn``.
    participants : named patients (`scope.asked`); left out, as many as the run explains, of each model's unseen.

    Returns
    -------
    DataFrame with `MODULATION_COLUMNS`, a row a model, channel, variable and change of it (in words);
    empty where there is no modulation (`modulation_reason`). d_alpha, d_beta, d_active: mean change over
    patients; flips: share of them whose α changes sign; alpha, beta, their SDs, reversed (share of patients with
    α < 0), active (share of voxels above 0 after modulation, NaN where no ReLU follows) as patients are.
    weight: mean absolute change of the logit when the channel's α and β are everybody's mean. Kept in the
    cache.
    """
    if not tasks or modulation_reason(analysis, tasks[0]):
        return pd.DataFrame(columns=MODULATION_COLUMNS)
    wanted = analysis.settings.explained_patients
    # each model's own: an SD over the few patients of a fold's share would be chance, or none of one patient
    chosen = asked(analysis, cache, tasks, participants, wanted, each=True)
    calls = [(analysis, cache, *one) for one in chosen]
    known = all(_place(*call).exists() for call in calls)
    frames = workers.run(
        _kept, calls, workers=analysis.settings.workers, label="modulation: folds",
        spawn_from=len(calls) + 1 if known else FEW,
    )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _depends(analysis: Analysis, task: Task, ids: Sequence[str]) -> list:
    return [task.folder.name, list(ids)]


def _place(analysis: Analysis, cache: TensorCache | None, task: Task, ids: Sequence[str]):
    name = f"modulation-{task.arm.name}-{task.fold}"
    return keeping.path(analysis, name, _depends(analysis, task, ids), ".csv")


def _kept(
    analysis: Analysis, cache: TensorCache | None, task: Task, ids: Sequence[str]
) -> pd.DataFrame:
    def make() -> pd.DataFrame:
        with one_thread():
            return effects(FusedModel.load(analysis, cache, task), ids)

    name = f"modulation-{task.arm.name}-{task.fold}"
    return keeping.kept_table(analysis, name, _depends(analysis, task, ids), make)


# -------------------------------------------------------------------------------- one fold's model


@dataclass(frozen=True)
class _Place:
    """The modulation of a network and what reaches it from N patients, which clinical variables do not move."""

    model: FusedModel
    trunk: Tensor  # (N, 4 nf, D', H', W'): enters the last block
    features: Tensor  # (N, C, ...): is modulated
    relu_follows: bool

    @property
    def modulation(self) -> torch.nn.Module:
        return self.model.network.block.modulation

    def coefficients(self, tabular: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """α and β (N, C) float64 under tabular vectors (N, P)."""
        with torch.inference_mode():
            found = self.modulation.coefficients(self.features, tabular)
        return tuple(one.double().cpu().numpy() for one in found)

    def active(self, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """The share of voxels (N, C) that the ReLU behind lets through."""
        if not self.relu_follows:
            return np.full(alpha.shape, np.nan)
        features = self.features.flatten(2).double().cpu().numpy()
        return (alpha[..., None] * features + beta[..., None] > 0).mean(axis=2)

    def logits(self, tabular: Tensor, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """The network's logits (N,) if the features were scaled and shifted by these α and β (N, C)."""
        a, b = (torch.as_tensor(c, dtype=self.features.dtype) for c in (alpha, beta))
        a, b = (c.to(self.features.device)[:, :, None, None, None] for c in (a, b))
        with _instead(self.modulation, lambda features: a * features + b), torch.inference_mode():
            return self.model.network.fuse(self.trunk, tabular)[:, 0].double().cpu().numpy()


def effects(model: FusedModel, participants: Sequence[str]) -> pd.DataFrame:
    """`modulation_effects` of one model."""
    tabular = model.tabular(participants)
    place = _reached(model, participants, tabular)
    alpha, beta = place.coefficients(tabular)
    active = place.active(alpha, beta)
    own = {
        "alpha": alpha.mean(axis=0), "alpha_sd": _sd(alpha), "beta": beta.mean(axis=0),
        "beta_sd": _sd(beta), "reversed": (alpha < 0).mean(axis=0), "active": active.mean(axis=0),
        "weight": _weights(place, tabular, alpha, beta),
    }  # fmt: skip
    tables = []
    for variable, change, before, after in _changes(model, participants):
        low, high = place.coefficients(before), place.coefficients(after)
        moved = {
            "d_alpha": (high[0] - low[0]).mean(axis=0),
            "d_beta": (high[1] - low[1]).mean(axis=0),
            "flips": ((high[0] < 0) != (low[0] < 0)).mean(axis=0),
            "d_active": (place.active(*high) - place.active(*low)).mean(axis=0),
        }
        table = pd.DataFrame(moved | own).assign(variable=variable, change=change)
        tables.append(table.assign(channel=np.arange(alpha.shape[1])))
    task, together = model.task, pd.concat(tables, ignore_index=True)
    together = together.assign(
        arm=task.arm.name, seed=task.seed, fold=task.fold, n=len(participants)
    )
    numbers = list(moved) + list(own)
    together[numbers] = together[numbers].map(lambda value: float(f"{value:.{DIGITS}g}"))
    return together[MODULATION_COLUMNS]


def _reached(model: FusedModel, participants: Sequence[str], tabular: Tensor) -> _Place:
    """Run the patients once, and keep what enters the last block and what enters its modulation."""
    network, seen = model.network, []
    hook = network.block.modulation.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    trunks = []
    try:
        with torch.inference_mode():
            for participant, own in zip(participants, tabular.split(1), strict=True):
                trunks.append(network.trunk(model.images([participant]), own))
                network.fuse(trunks[-1], own)
    finally:
        hook.remove()
    return _Place(model, torch.cat(trunks), torch.cat(seen), network.block.location == BEFORE_RELU)


@contextmanager
def _instead(modulation: torch.nn.Module, scaled: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Another output of the modulation, while the block lasts."""
    hook = modulation.register_forward_hook(lambda _, inputs, __: scaled(inputs[0]))
    try:
        yield
    finally:
        hook.remove()


def _sd(values: np.ndarray) -> np.ndarray:
    """SD over patients (C,); NaN of one patient; exactly 0 where rounding alone differs."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    return np.where(np.ptp(values, axis=0) < 1e-9, 0.0, values.std(axis=0, ddof=1))


def _weights(place: _Place, tabular: Tensor, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Mean absolute change of the logit (C,) when one channel's α and β are everybody's mean."""
    own = place.logits(tabular, alpha, beta)
    found = np.empty(alpha.shape[1])
    for channel in range(alpha.shape[1]):
        a, b = alpha.copy(), beta.copy()
        a[:, channel], b[:, channel] = alpha[:, channel].mean(), beta[:, channel].mean()
        found[channel] = np.abs(place.logits(tabular, a, b) - own).mean()
    return found


def _changes(
    model: FusedModel, participants: Sequence[str]
) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """Each variable, what is changed of it in words, and tabular vectors (N, P) before and after."""
    own = model.analysis.dataset.table.loc[list(participants)]
    changes, tables = list(_values(model)), []
    for name, _, *ends in changes:
        for value in ends:
            changed = own.copy()
            changed[name] = pd.Series([value] * len(own), index=own.index, dtype=own[name].dtype)
            tables.append(changed)
    if not changes:
        return
    matrix = torch.as_tensor(model.encoder.transform(pd.concat(tables))).to(model.device)
    vectors = iter(matrix.split(len(own)))  # one call of the encoder for all of them
    for name, words, *_ in changes:
        yield name, words, next(vectors), next(vectors)


def _values(model: FusedModel) -> Iterator[tuple[str, str, object, object]]:
    """Each variable, a change in words, and its two values.

    A quantity goes from its lower to its upper quartile, a code from the first to the second, or from the
    commonest to each other that occurs, in the patients outside the test set: the same for all folds.
    """
    parts = experiment.fold_patients(model.analysis, model.cache, model.task)
    ids = sorted({*parts["train"], *parts["inner"], *parts["held_out"]})
    outside = model.analysis.dataset.table.loc[ids]
    for name in model.encoder.columns:
        field, known = model.analysis.dictionary[name], outside[name].dropna()
        if field.is_categorical:
            counts = known.astype(str).value_counts()
            codes = [code for code in field.choices if code in counts.index]
            if len(codes) < 2:
                continue
            common = codes[0] if len(codes) == 2 else max(codes, key=lambda code: counts[code])
            for code in codes:
                if code != common:
                    yield name, f"{field.choices[common]} to {field.choices[code]}", common, code
        elif known.nunique() > 1:
            low, high = np.quantile(known.astype(float), [0.25, 0.75])
            if low < high:
                yield name, f"{low:.4g} to {high:.4g}", low, high
