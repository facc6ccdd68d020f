"""Maps over the images (being rebuilt)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rlvo_lib import images, progress, storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.experiment import Task
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.patients import chosen as _chosen_patients
from rlvo_lib.preprocess import TensorCache

OCCLUSION_BOX_SHARE = 0.25  # side of the occluding box, as a share of the smallest grid side


def _chosen(analysis, setting, task, cache):
    return _chosen_patients(analysis, cache, task, getattr(analysis.settings, setting))


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
        encoder, image = model.network.encoder, model.images([participant])
        box = max(2, int(min(image.shape[2:]) * OCCLUSION_BOX_SHARE))
        occlude = OcclusionSensitivity(
            _OnStandardised(model.network, image, model.tabular([participant])).eval(),  # MONAI restores it
            mask_size=box, n_batch=64, overlap=0.5, mode=0.0, verbose=False, activate=False,
        )  # fmt: skip
        with torch.no_grad():
            whole = float(model.network(image, model.tabular([participant]))[0, 0])
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
