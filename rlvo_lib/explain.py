"""What drove a prediction: SHAP values of clinical variables, and maps over the images.

Everything is explained on the logit of a fold's model, for test patients. Clinical variables are the
players of the SHAP values as they stand in the table, so that the columns made from one variable
(one-hot levels, missing indicator) count together; the image is held at the patient's own.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rlvo_lib import experiment, images, progress, storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.preprocess import TensorCache

SHAP_COLUMNS = [
    "participant_id",
    "arm",
    "seed",
    "fold",
    "variable",
    "value",
    "shap",
    "base",
    "logit",
]
OCCLUSION_BOX_SHARE = 0.25  # side of the occluding box, as a share of the smallest grid side


def shap_of_folds(analysis: Analysis, cache: TensorCache | None, tasks: list[Task]) -> pd.DataFrame:
    """`shap_values` of several fold models, one after the other in the frame."""
    calls = [(analysis, cache, task) for task in tasks]
    known = all(_shap_path(*call).exists() for call in calls)
    frames = workers.run(
        shap_values, calls, workers=analysis.settings.workers, label="SHAP values: folds",
        spawn_from=len(calls) + 1 if known else 1,
    )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def shap_caption(shap: pd.DataFrame, y: pd.Series) -> str:
    """What the SHAP values are of, in a sentence: how many patients, how chosen, which models."""
    patients = shap["participant_id"].unique()
    n_models = int(shap.groupby("participant_id")["fold"].nunique().max())
    models = f"{n_models} fold models" if n_models > 1 else "fold model"
    return (
        f"SHAP values (log-odds) of the clinical variables of {shap['arm'].iloc[0]}, mean over "
        f"the {models} that did not see the patient: {len(patients)} patients, of whom "
        f"{int(y[patients].sum())} with the outcome (drawn to be up to half); intervals over these "
        "patients."
    )


def shap_values(analysis: Analysis, cache: TensorCache | None, task: Task) -> pd.DataFrame:
    """SHAP values of the clinical variables of one fold model, for patients it did not see.

    Estimator: shap's PermutationExplainer. Background: training patients drawn with the run's seed,
    of whom only the clinical variables are used. Base value plus SHAP values gives the logit
    (checked to 1e-3).

    Returns
    -------
    DataFrame with `SHAP_COLUMNS`; one row a patient and variable. ``value`` is the table's code or
    quantity, NaN where missing.
    """
    path = _shap_path(analysis, cache, task)
    with storage.lock(path):
        if not path.exists():
            storage.write_csv(path, _compute_shap(analysis, cache, task))
    return storage.read_csv(path)


def _shap_path(analysis: Analysis, cache: TensorCache | None, task: Task) -> Path:
    key = storage.key(
        task.folder.name, _chosen(analysis, "explained_patients", task, cache),
        analysis.settings.subset("shap_background", "seed"), storage.code_key("explain"),
    )  # fmt: skip
    folder = analysis.settings.cache / "explanations"
    return folder / f"shap-{task.arm.name}-{task.fold}-{key}.csv"


def _compute_shap(analysis: Analysis, cache: TensorCache | None, task: Task) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shap's own imports
        import shap

    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    model = FusedModel.load(analysis, cache, task)
    chosen = _chosen(analysis, "explained_patients", task, cache)
    rng = np.random.default_rng(analysis.settings.seed)
    pool = model.training_patients
    background = sorted(rng.choice(pool, min(len(pool), analysis.settings.shap_background), False))
    masker = shap.maskers.Independent(model.players(background), max_samples=len(background))
    rows = []
    for participant in chosen:
        features = model.image_features(participant)

        def logit(players: np.ndarray, features: Tensor | None = features) -> np.ndarray:
            return model.logit(features, players)

        explainer = shap.PermutationExplainer(logit, masker, seed=analysis.settings.seed)
        own = model.players([participant])
        result = explainer(own, max_evals=20 * (2 * own.shape[1] + 1), silent=True)
        base, values = float(np.ravel(result.base_values)[0]), result.values[0]
        predicted = float(logit(own)[0])
        if abs(base + values.sum() - predicted) > 1e-3:
            raise RuntimeError(f"SHAP values of {participant} do not add up to the logit")
        for name, value, contribution in zip(model.columns, own[0], values, strict=True):
            rows.append(
                (
                    participant,
                    task.arm.name,
                    task.seed,
                    task.fold,
                    name,
                    value,
                    contribution,
                    base,
                    predicted,
                )
            )
    return pd.DataFrame(rows, columns=SHAP_COLUMNS)


@dataclass
class FusedModel:
    """A fold's network with its tabular encoder, as a function of image and clinical variables."""

    analysis: Analysis
    cache: TensorCache | None
    task: Task
    network: nn.Module
    encoder: object
    training_patients: list[str]
    offset: tuple | None = None  # encoder and model of the arm whose logit is added

    @classmethod
    def load(cls, analysis: Analysis, cache: TensorCache | None, task: Task) -> FusedModel:
        """The model of a finished task; its tabular encoder is fitted again on the same patients.

        Raises
        ------
        InputError
            If the arm, or that of its offset, sees what is measured in the scans: these are no
            clinical variables.
        """
        arms = analysis.settings.study.arms
        offset = [arms[task.arm.offset]] if task.arm.offset else []
        for arm in (task.arm, *offset):
            if arm.measures:
                raise InputError(
                    f"arm '{arm.name}' sees {', '.join(arm.measures)}, measured in the scans; allowed "
                    "to be explained: a network of images and columns of the table"
                )
        parts, encoder = experiment.fold_encoder(analysis, cache, task)
        n_tabular = len(encoder.names) if encoder else 0
        network = experiment.load_network(analysis, task, n_tabular)
        added = experiment.offset_model(analysis, cache, task, parts)[:2] if offset else None
        return cls(analysis, cache, task, network, encoder, parts["train"], added)

    @property
    def columns(self) -> list[str]:
        """The clinical variables, those of the offset's arm included: the players."""
        study, arm = self.analysis.settings.study, self.task.arm
        offset = study.columns_of(study.arms[arm.offset]) if arm.offset else ()
        return list(dict.fromkeys([*study.columns_of(arm), *offset]))

    def players(self, participants: list[str]) -> np.ndarray:
        """Clinical variables (N, n_variables) as numbers: quantities, or positions of codes; NaN missing."""
        table = self.analysis.dataset.table.loc[participants, self.columns]
        numbers = {}
        for name in self.columns:
            field = self.analysis.dictionary[name]
            if field.is_categorical:
                codes = {code: float(rank) for rank, code in enumerate(field.choices)}
                numbers[name] = table[name].map(codes).astype(float)
            else:
                numbers[name] = table[name].astype(float)
        return pd.DataFrame(numbers).to_numpy()

    def table_of(self, players: np.ndarray) -> pd.DataFrame:
        """The inverse of `players`: a typed table (N rows)."""
        columns = {}
        for number, name in enumerate(self.columns):
            field = self.analysis.dictionary[name]
            values = pd.Series(players[:, number])
            if field.is_categorical:
                values = values.map(dict(enumerate(field.choices)))
            columns[name] = values
        return pd.DataFrame(columns)

    def image(self, participant: str) -> Tensor:
        """The patient's tensor (1, C, D, H, W) float32; NaN where absent, if the network is told."""
        absent = "nan" if self.analysis.settings.absent == "flag" else "refuse"
        loaded = self.cache.load([participant], self.task.arm.channels, absent=absent)
        return torch.as_tensor(loaded, dtype=torch.float32)

    def tabular(self, participant: str) -> Tensor | None:
        """The patient's tabular vector (1, P) float32, or None for an image-only arm."""
        if self.encoder is None:
            return None
        return torch.as_tensor(
            self.encoder.transform(self.analysis.dataset.table.loc[[participant]])
        )

    def image_features(self, participant: str) -> Tensor | None:
        """The encoder's features (1, 4 nf, D', H', W') of the patient's image, computed once.

        Where they depend on the clinical variables, the image (1, C, D, H, W) itself.
        """
        if not self.task.arm.channels:
            return None
        if self.network.trunk_needs_tabular:
            return self.image(participant)
        with torch.inference_mode():
            return self.network.encoder(self.image(participant))

    def logit(self, features: Tensor | None, players: np.ndarray) -> np.ndarray:
        """Logits (N,) of one image's features with N sets of clinical variables; offset included."""
        table = self.table_of(players)
        tabular = None
        if self.encoder is not None:
            tabular = torch.as_tensor(self.encoder.transform(table))
        added = 0.0
        if self.offset is not None:
            encoder, model = self.offset
            added = model.logit(encoder.transform(table))
        with torch.inference_mode():
            if features is None:
                return self.network(None, tabular)[:, 0].double().numpy() + added
            repeated = features.expand(len(table), *features.shape[1:])
            whole = self.network.trunk_needs_tabular
            output = (self.network if whole else self.network.fuse)(repeated, tabular)
            return output[:, 0].double().numpy() + added


# --------------------------------------------------------------------------------------- saliency


def occlusion_map(model: FusedModel, participant: str) -> np.ndarray:
    """How much the logit falls when a region of all channels is replaced by the training mean.

    MONAI's OcclusionSensitivity with a box of a quarter of the smallest grid side, half
    overlapping. Positive: the region speaks for the outcome.

    Returns
    -------
    (D, H, W) float32 on the tensor grid, in units of the logit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's imports, and a form of indexing torch will drop
        from monai.visualize import OcclusionSensitivity

        torch.set_num_threads(1)  # sums in one order: the same bytes each time
        encoder, image = model.network.encoder, model.image(participant)
        box = max(2, int(min(image.shape[2:]) * OCCLUSION_BOX_SHARE))
        occlude = OcclusionSensitivity(
            _OnStandardised(model.network, image, model.tabular(participant)).eval(),  # MONAI restores it
            mask_size=box, n_batch=64, overlap=0.5, mode=0.0, verbose=False, activate=False,
        )  # fmt: skip
        with torch.no_grad():
            whole = float(model.network(image, model.tabular(participant))[0, 0])
            occluded, _ = occlude((image - encoder.mean) / encoder.sd)
    return (whole - np.asarray(occluded[0, 0])).astype(np.float32)


class _OnStandardised(nn.Module):
    """A network as a function of the standardised image alone: 0 is the training patients' mean.

    A channel that is absent in ``image`` stays so, whatever is occluded.
    """

    def __init__(self, network: nn.Module, image: Tensor, tabular: Tensor | None) -> None:
        super().__init__()
        self.network, self.tabular = network, tabular
        self.absent = image.isnan().flatten(2).all(2)[:, :, None, None, None]

    def forward(self, standardised: Tensor) -> Tensor:
        image = standardised * self.network.encoder.sd + self.network.encoder.mean
        image = image.masked_fill(self.absent, float("nan"))
        tabular = None if self.tabular is None else self.tabular.expand(len(image), -1)
        return self.network(image, tabular)


def saliency_maps(analysis: Analysis, cache: TensorCache, task: Task) -> pd.DataFrame:
    """Occlusion maps of a few test patients, as NIfTI under ``attributions/maps`` of the run.

    Returns
    -------
    DataFrame with participant_id, arm, fold, y_true, map (path inside the run folder), the highest
    and lowest contribution (logit) and the world position (mm, RAS+) of the highest.
    """
    chosen = _chosen(analysis, "saliency_patients", task, cache) if task.arm.channels else []
    key = storage.key(task.folder.name, storage.code_key("explain"))
    model, rows = None, []
    for participant in progress.track(chosen, label=f"saliency, {task.arm.name}, fold {task.fold}"):
        kept = (
            analysis.settings.cache
            / "explanations"
            / f"map-{participant}-{cache.table.at[participant, 'key']}-{key}.npy"
        )
        with storage.lock(kept):
            if not kept.exists():
                model = model or FusedModel.load(analysis, cache, task)
                array = occlusion_map(model, participant)
                storage.write_array(kept, array)
        array = np.load(kept)
        name = f"attributions/maps/{participant}_occlusion.nii.gz"
        save_map(cache, participant, array, analysis.settings.out / name)
        peak = np.unravel_index(array.argmax(), array.shape)
        world = cache.affine(participant) @ [*peak, 1]
        rows.append((participant, task.arm.name, task.fold, int(analysis.y[participant]), name,
                     float(array.max()), float(array.min()), *np.round(world[:3], 1)))  # fmt: skip
    columns = [
        "participant_id",
        "arm",
        "fold",
        "y_true",
        "map",
        "highest",
        "lowest",
        "x_mm",
        "y_mm",
        "z_mm",
    ]
    return pd.DataFrame(rows, columns=columns)


def save_map(cache: TensorCache, participant: str, array: np.ndarray, path: Path) -> Path:
    """Save a map on the tensor grid as NIfTI that lies right on the patient's own scans.

    ``array`` is (D, H, W); the tensor's affine of this patient carries crop, pose and flip.
    """
    return images.save_nifti(path, array.astype(np.float32), cache.affine(participant))


def _chosen(analysis: Analysis, setting: str, task: Task, cache: TensorCache | None) -> list[str]:
    """Patients to explain that the model did not see, half of them with the outcome if possible.

    Test patients, drawn with the run's seed; in a design without a test part, patients held out of the
    task's fold, each fold its share of them.
    """
    usable = experiment.arm_patients(analysis, cache, task.arm)
    usable = usable.set_index("participant_id")["used"]
    parts, wanted = analysis.fold_parts(task.fold, task.seed), getattr(analysis.settings, setting)
    if not parts["test"]:
        wanted = -(-wanted // analysis.settings.study.validation["folds"])
    pool = [p for p in parts["test"] or parts["held_out"] if usable[p]]
    if not pool:
        raise InputError(f"arm '{task.arm.name}': no patient can be explained; all lack a modality")
    n = min(len(pool), wanted)
    y = analysis.y[pool]
    rng = np.random.default_rng(analysis.settings.seed)
    events = list(rng.permutation([p for p in pool if y[p] == 1]))
    others = list(rng.permutation([p for p in pool if y[p] == 0]))
    n_events = min(len(events), max(n // 2, n - len(others)))
    return sorted([*events[:n_events], *others[: n - n_events]])
