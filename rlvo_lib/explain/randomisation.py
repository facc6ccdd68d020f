"""Networks that have learnt nothing, to see whether an explanation notices (Adebayo et al., NeurIPS 2018).

`PermutedLabels` is an analysis whose training outcomes were dealt out anew among the patients of each fold;
`randomised` a trained network whose weights were drawn anew, from the head down.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import nn

from rlvo_lib import cohort
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.explain.model import FusedModel


@dataclass(frozen=True)
class PermutedLabels(Analysis):
    """An analysis whose outcomes are dealt out anew within each fold of the training part.

    Each fold keeps its number of events; outcomes of the test part stay what they are, so that a network
    trained on it is judged on the truth (AUC near 0.5). `experiment.plan` gives tasks of their own.
    """

    original: Analysis
    deal: int = 1

    @classmethod
    def of(cls, analysis: Analysis, deal: int = 1) -> PermutedLabels:
        """The same patients, split and settings with outcomes dealt out anew for that time."""
        return cls(
            analysis.settings, analysis.dictionary, analysis.dataset, analysis.frame, analysis.split,
            analysis, deal,
        )  # fmt: skip

    @cached_property
    def y(self) -> pd.Series:
        """Outcome (0 or 1) of the eligible patients, permuted within folds; drawn with the run's seed."""
        outcomes = self.original.y.copy()
        members = self.split.set_index("participant_id")
        column = cohort.fold_column(self.settings.study, self.seeds[0])
        rng = np.random.default_rng([self.settings.seed, self.deal])
        training = members[members["partition"] == "train"]
        for _, fold in training.groupby(training[column].astype(str), sort=True):
            ids = sorted(fold.index)
            outcomes[ids] = rng.permutation(outcomes[ids].to_numpy())
        return outcomes


def cascade(network: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """The parts of a network from the head down to the stem, each with its modules.

    Raises
    ------
    InputError
        For a network without an encoder of images.
    """
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise InputError(
            f"{type(network).__name__} has no encoder of images; allowed for the randomisation check: "
            "the network of an arm of kind cnn"
        )
    trunks = list(encoder.trunks)
    parts = [
        ("head", [network.head, network.hidden]),
        ("last block", [network.block, network.scales, encoder.join]),
    ]
    for number in reversed(range(len(trunks[0].blocks))):
        last = [t.last for t in trunks] if number == len(trunks[0].blocks) - 1 else []
        parts.append((f"block {number + 1}", [*last, *(t.blocks[number] for t in trunks)]))
    parts.append(("stem", [t.stem for t in trunks]))
    return [(name, [m for m in modules if m is not None]) for name, modules in parts]


def randomised(model: FusedModel, depth: int, *, seed: int) -> FusedModel:
    """The model with the weights of the first ``depth`` parts of its `cascade` drawn anew.

    Weights are drawn as before training, with a seed of their own. The running moments of their batch norms are
    measured again on the `background` patients, so that signals keep their scale; the rest of the network is as
    it was trained. The model that is given stays as it is.

    Raises
    ------
    InputError
        For a depth that the network does not have.
    """
    network = copy.deepcopy(model.network)
    parts = cascade(network)
    if not 1 <= depth <= len(parts):
        raise InputError(f"depth is {depth}; allowed: 1 to {len(parts)} parts of the network")
    drawn = [m for _, modules in parts[:depth] for top in modules for m in top.modules()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in drawn:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    fresh = dataclasses.replace(model, network=network)
    if "mean_image" in vars(model):  # of the images alone: the same for both
        vars(fresh)["mean_image"] = model.mean_image
    _measure_moments(fresh, [m for m in drawn if isinstance(m, nn.BatchNorm3d)])
    return fresh


def _measure_moments(model: FusedModel, norms: list[nn.Module]) -> None:
    """Set the running moments of some batch norms to those of the background patients."""
    ids, size = model.background, max(2, model.batch)
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    with torch.inference_mode():
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            if norms and (len(part) > 1 or len(ids) == 1):
                model.network(model.images(part), model.tabular(part))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
