"""A fold's model as a function of image and clinical variables: what all explanations are made of.

Everything is explained on the logit, in patients whom the model was not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rlvo_lib import experiment, training
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.explain import patients
from rlvo_lib.explain.clinical import ClinicalVariables
from rlvo_lib.preprocess import TensorCache

#: Images that pass through a network together.
BATCH_VOXELS = 800_000


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
        network.to(training.pick_device(analysis.settings.device))
        added = experiment.offset_model(analysis, cache, task, parts)[:2] if offset else None
        return cls(analysis, cache, task, network, encoder, parts["train"], added)

    @cached_property
    def variables(self) -> ClinicalVariables:
        """The clinical variables, those of the offset's arm included."""
        study, arm = self.analysis.settings.study, self.task.arm
        offset = study.columns_of(study.arms[arm.offset]) if arm.offset else ()
        names = list(dict.fromkeys([*study.columns_of(arm), *offset]))
        return ClinicalVariables(self.analysis, names)

    @property
    def columns(self) -> list[str]:
        """The names of the clinical variables."""
        return self.variables.columns

    @cached_property
    def background(self) -> list[str]:
        """Training patients who stand for "unknown" and "absent" (`patients.background`)."""
        return patients.background(self.analysis, self.training_patients)

    # ------------------------------------------------------------------------------------ images

    def require_images(self) -> None:
        """InputError if the model sees no image, so that nothing of one can be explained."""
        if not self.task.arm.channels:
            raise InputError(
                f"arm '{self.task.arm.name}' has no image channels and no convolution; allowed for maps: "
                "an arm of kind cnn"
            )

    def images(self, participants: Sequence[str]) -> Tensor:
        """Tensors (N, C, D, H, W) float32; an absent channel is NaN, if the network is told of it.

        Raises
        ------
        InputError
            If a patient lacks a channel and the network is not told (names patient, channel, reason).
        """
        self.require_images()
        absent = "nan" if self.analysis.settings.absent == "flag" else "refuse"
        loaded = self.cache.load(list(participants), self.task.arm.channels, absent=absent)
        return self.placed(torch.as_tensor(loaded, dtype=torch.float32))

    def placed(self, images: Tensor) -> Tensor:
        """Images (N, C, D, H, W) on the model's device, in the memory order it was trained in."""
        last = self.analysis.settings.channels_last
        order = torch.channels_last_3d if last else torch.contiguous_format
        return images.to(self.device, memory_format=order)

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.network.parameters()).device

    @property
    def batch(self) -> int:
        """How many images pass through the network together."""
        return max(1, BATCH_VOXELS // int(np.prod(self.analysis.settings.grid_shape)))

    @cached_property
    def mean_image(self) -> Tensor:
        """The mean image (1, C, D, H, W) of the `background` patients, voxel by voxel.

        Affected sides are flipped to one side and heads lie alike, so it looks like a blurred head.
        """
        total, count = 0.0, 0.0
        for participant in self.background:  # one at a time: a full-resolution image has 70 MB
            image = self.images([participant])
            present = ~image.isnan()
            total, count = total + image.nan_to_num(0.0), count + present
        return total / count.clamp_min(1) if torch.is_tensor(count) else total

    def tabular(self, participants: Sequence[str]) -> Tensor | None:
        """Tabular vectors (N, P) float32, or None for an image-only arm."""
        if self.encoder is None:
            return None
        table = self.analysis.dataset.table.loc[list(participants)]
        return torch.as_tensor(self.encoder.transform(table)).to(self.device)

    def added(self, participants: Sequence[str]) -> np.ndarray:
        """The offset's logits (N,) of patients' own clinical variables; 0 for an arm without one."""
        table = self.analysis.dataset.table.loc[list(participants)]
        return self.offset_of(table)

    def logits(self, images: Tensor, tabular: Tensor | None) -> np.ndarray:
        """The network's logits (N,) of N images and tabular vectors (N or 1, P); no offset, no gradient."""
        found = []
        with torch.inference_mode():
            for start in range(0, len(images), self.batch):
                part = images[start : start + self.batch]
                own = tabular
                if tabular is not None:
                    own = tabular.expand(len(images), -1)[start : start + self.batch]
                found.append(self.network(part, own)[:, 0].double().cpu().numpy())
        return np.concatenate(found)

    # -------------------------------------------------------------------------- clinical variables

    def image_features(self, participant: str) -> Tensor | None:
        """The encoder's features (1, 4 nf, D', H', W') of the patient's image, computed once.

        Where they depend on the clinical variables, the image (1, C, D, H, W) itself.
        """
        if not self.task.arm.channels:
            return None
        if self.network.trunk_needs_tabular:
            return self.images([participant])
        with torch.inference_mode():
            return self.network.encoder(self.images([participant]))

    def logit(self, features: Tensor | None, players: np.ndarray) -> np.ndarray:
        """Logits (N,) of one image's features with N sets of clinical variables; offset included."""
        table = self.variables.table(players)
        tabular = None
        if self.encoder is not None:
            tabular = torch.as_tensor(self.encoder.transform(table)).to(self.device)
        added = self.offset_of(table)
        with torch.inference_mode():
            if features is None:
                return self.network(None, tabular)[:, 0].double().cpu().numpy() + added
            repeated = features.expand(len(table), *features.shape[1:])
            whole = self.network.trunk_needs_tabular
            output = (self.network if whole else self.network.fuse)(repeated, tabular)
            return output[:, 0].double().cpu().numpy() + added

    def offset_of(self, table: pd.DataFrame) -> np.ndarray:
        """The offset's logits (N,) of rows of a table; 0 for an arm without one."""
        if self.offset is None:
            return np.zeros(len(table))
        encoder, model = self.offset
        return np.asarray(model.logit(encoder.transform(table)), float)
