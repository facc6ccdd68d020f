"""What each modality carries: a fold's model with every coalition of modalities, the others absent.

Absent means "another patient's" (`ABSENT`): scans, and clinical variables, of training patients, the same
few donors for every patient of a fold, so that a coalition's scores differ between patients only by what the
coalition holds; all that is absent comes from one donor. A model trained with flags of absent channels is
asked a second time with the scans flagged absent. `rlvo_lib.results.modalities` makes Shapley values of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from rlvo_lib import workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, Study
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.scope import asked, one_thread
from rlvo_lib.preprocess import TensorCache

CLINICAL = "clinical"
#: What stands in the place of an absent modality.
ABSENT = {"donor": "another patient's", "flag": "flagged as absent"}
MODALITY_COLUMNS = ["participant_id", "arm", "seed", "fold", "absent", "coalition", "logit"]
DIGITS = 6  # significant ones of a stored logit


def modality_channels(study: Study, arm: Arm) -> dict[str, tuple[int, ...]]:
    """The places of an arm's channels that belong together, by the modality's name, in the arm's order.

    Maps of one folder are one modality; it, like any other, is called after the study's arm that sees it
    alone, or its scan.

    Examples
    --------
    >>> from rlvo_lib.config import load_study
    >>> study = load_study("rlvo")
    >>> modality_channels(study, study.arms["daft"])
    {'ncct': (0,), 'cta': (1,), 'vessels': (2,), 'ctp': (3, 4, 5, 6)}
    """
    groups: dict[str, list[str]] = {}
    for channel in arm.channels:
        scan = study.channels[channel].scan
        kind = "maps" if study.scans[scan].kind == "map" else scan
        groups.setdefault(kind, []).append(channel)
    named = {}
    for kind, channels in groups.items():
        alone = _arm_of(study, tuple(channels))
        named[alone.name if alone else kind] = tuple(arm.channels.index(c) for c in channels)
    return named


def modality_labels(study: Study, arm: Arm) -> dict[str, str]:
    """What figures call the modalities of an arm, its clinical variables last."""
    labels = {}
    for name, places in modality_channels(study, arm).items():
        alone = _arm_of(study, tuple(arm.channels[k] for k in places))
        labels[name] = alone.label if alone else name
    clinical = bool(arm.predictors or arm.offset)
    return labels | ({CLINICAL: "Clinical variables"} if clinical else {})


def _arm_of(study: Study, channels: tuple[str, ...]) -> Arm | None:
    """The study's arm of these channels and nothing else."""
    for arm in study.arms.values():
        if arm.kind == "cnn" and arm.channels == channels and not (arm.predictors or arm.measures):
            return arm
    return None


def coalitions(names: Sequence[str]) -> list[str]:
    """All 2^n coalitions of n modalities, by the number they hold; "" is that of none.

    >>> coalitions(["ncct", "cta"])
    ['', 'ncct', 'cta', 'ncct+cta']
    """
    sizes = range(len(names) + 1)
    return ["+".join(some) for n in sizes for some in itertools.combinations(names, n)]


def modality_donors(model: FusedModel) -> list[str]:
    """The training patients who stand in for what is absent: of the model's background; sorted."""
    settings = model.analysis.settings
    rng = np.random.default_rng(settings.seed)
    n = min(len(model.background), settings.modality_donors)
    return sorted(str(p) for p in rng.choice(model.background, n, replace=False))


def modality_logits(
    analysis: Analysis,
    cache: TensorCache | None,
    tasks: Sequence[Task],
    participants: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The logit of each coalition of modalities, for patients that each fold's model did not see.

    Parameters
    ----------
    tasks : finished tasks of kind ``cnn``.
    participants : named patients (`scope.asked`); left out, all that a fold did not see.

    Returns
    -------
    DataFrame with `MODALITY_COLUMNS`, a row a patient, model and coalition; ``logit`` is the mean over
    the donors, to six digits. Kept in the cache.

    Raises
    ------
    InputError
        For an arm without images, or a patient that no model can be asked about.
    """
    calls = [(analysis, cache, *one) for one in asked(analysis, cache, tasks, participants)]
    known = all(_place(*call).exists() for call in calls)
    frames = workers.run(
        _kept, calls, workers=analysis.settings.workers, label="modalities: folds",
        spawn_from=len(calls) + 1 if known else 2,
    )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def modality_caption(modalities: pd.DataFrame, y: pd.Series, donors: int) -> str:
    """What the values are of, in a sentence or two: patients, models, what absent means."""
    ids = modalities["participant_id"].unique()
    models = int(modalities.groupby("participant_id")["fold"].nunique().max())
    flagged = (modalities["absent"] == "flag").any()
    words = (
        f"Exact Shapley values over the modalities of {', '.join(modalities['arm'].unique())}, from the "
        f"logits of all their coalitions, mean over {models} fold model{'s' * (models > 1)} that did not "
        f"see the patient: {len(ids)} patients, {int(y[ids].sum())} with the outcome. Absent: as in "
        f"another patient, mean over {donors} training patients of each fold, the same for everybody."
    )
    if modalities["fold"].nunique() > models:  # each scores patients of its own
        words += (
            " For an AUC, logits are taken from each fold model's logit of nothing: that of all modalities "
            "is not the AUC of the pooled predictions."
        )
    return words + (" Or, as labelled, the scans flagged as absent." if flagged else "")


def _depends(analysis: Analysis, task: Task, ids: Sequence[str]) -> list:
    names = ("modality_donors", "shap_background", "seed")
    called = list(modality_labels(analysis.settings.study, task.arm))
    return [task.folder.name, called, list(ids), analysis.settings.subset(*names)]


def _name(task: Task) -> str:
    return f"modalities-{task.arm.name}-{task.fold}"


def _place(analysis: Analysis, cache: TensorCache | None, task: Task, ids: Sequence[str]):
    return keeping.path(analysis, _name(task), _depends(analysis, task, ids), ".csv")


def _kept(
    analysis: Analysis, cache: TensorCache | None, task: Task, ids: Sequence[str]
) -> pd.DataFrame:
    def make() -> pd.DataFrame:
        with one_thread():
            return coalition_logits(FusedModel.load(analysis, cache, task), ids)

    return keeping.kept_table(analysis, _name(task), _depends(analysis, task, ids), make)


def coalition_logits(model: FusedModel, participants: Sequence[str]) -> pd.DataFrame:
    """`modality_logits` of one model, of patients who are among those it can be asked about."""
    model.require_images()
    task, study = model.task, model.analysis.settings.study
    groups = list(modality_channels(study, task.arm).values())
    names = list(modality_labels(study, task.arm))
    mixer = _mixer(model.network, groups)
    donors = _together(list(_people(model, mixer, modality_donors(model))))
    how = ["donor", "flag"] if model.analysis.settings.absent == "flag" else ["donor"]
    rows = []
    for participant, own in zip(participants, _people(model, mixer, participants), strict=True):
        for absent in how:
            found = _values(model, mixer, own, donors, flagged=absent == "flag")
            for coalition in coalitions(names):
                inside = coalition.split("+") if coalition else []
                value = found[tuple(name in inside for name in names)]
                rows.append((participant, task.arm.name, task.seed, task.fold, absent, coalition,
                             float(f"{value:.{DIGITS}g}")))  # fmt: skip
    return pd.DataFrame(rows, columns=MODALITY_COLUMNS)


# ------------------------------------------------------------------------- mixing of modalities


@dataclass(frozen=True)
class _People:
    """Some patients (N) as a mixer needs them."""

    parts: list[Tensor]  # of their images, one a modality, (N, ...) each
    tabular: Tensor | None  # (N, P)
    added: np.ndarray  # (N,): the offset's logits


def _people(model: FusedModel, mixer: _Images | _Stems, ids: Sequence[str]) -> Iterator[_People]:
    """Patients one by one: an image at full resolution has 70 MB."""
    tabular, added = model.tabular(ids), model.added(ids)
    for k, participant in enumerate(ids):
        with torch.inference_mode():
            parts = mixer.parts(model.images([participant]))
        yield _People(parts, None if tabular is None else tabular[k : k + 1], added[k : k + 1])


def _together(people: Sequence[_People]) -> _People:
    """Several patients as one."""
    tabular = None if people[0].tabular is None else torch.cat([p.tabular for p in people])
    parts = [torch.cat(part) for part in zip(*(p.parts for p in people), strict=True)]
    return _People(parts, tabular, np.concatenate([p.added for p in people]))


def _values(
    model: FusedModel, mixer: _Images | _Stems, own: _People, donors: _People, *, flagged: bool
) -> dict[tuple[bool, ...], float]:
    """One patient's logit with each coalition: which modalities are present, clinical last, if any.

    The features of a coalition of images serve it with and without the clinical variables.
    """
    absent = [mixer.absent(part) for part in donors.parts] if flagged else donors.parts
    inside = list(itertools.product([False, True], repeat=len(absent)))
    chosen = (
        [one if here else other for here, one, other in zip(which, own.parts, absent, strict=True)]
        for which in inside
    )
    keys, features, people = [], [], []
    with torch.inference_mode():
        for which, found in zip(inside, _features(mixer, chosen, model.batch), strict=True):
            for clinical in (False, True) if model.columns else (None,):
                keys.append(which if clinical is None else (*which, clinical))
                features.append(found)
                people.append(donors if clinical is False else own)
        logits = _logits(mixer, features, people, model.batch)
    return {key: float(part.mean()) for key, part in zip(keys, logits, strict=True)}


def _features(
    mixer: _Images | _Stems, chosen: Iterable[list[Tensor]], batch: int
) -> Iterator[Tensor]:
    """The features of each coalition's images, a batch or a coalition at a time, whichever is more."""
    waiting: list[Tensor] = []

    def done() -> Iterator[Tensor]:
        sizes = [len(images) for images in waiting]
        parts = [mixer.features(part) for part in torch.cat(waiting).split(batch)]
        yield from torch.cat(parts).split(sizes)

    for parts in chosen:
        waiting.append(mixer.together(parts))
        if sum(map(len, waiting)) >= batch:
            yield from done()
            waiting.clear()
    if waiting:
        yield from done()


def _logits(
    mixer: _Images | _Stems, features: list[Tensor], people: list[_People], batch: int
) -> list[np.ndarray]:
    """The logits of each n images' features with the clinical variables of n people; either may be one."""
    sizes = [max(len(f), len(p.added)) for f, p in zip(features, people, strict=True)]
    every = torch.cat([f.expand(n, *f.shape[1:]) for f, n in zip(features, sizes, strict=True)])
    added = [np.broadcast_to(p.added, n) for p, n in zip(people, sizes, strict=True)]
    tabular: Sequence[Tensor | None] = [None] * -(-len(every) // batch)
    if people[0].tabular is not None:
        rows = [p.tabular.expand(n, -1) for p, n in zip(people, sizes, strict=True)]
        tabular = torch.cat(rows).split(batch)
    found = [mixer.logits(f, t) for f, t in zip(every.split(batch), tabular, strict=True)]
    together = torch.cat(found)[:, 0].double().cpu().numpy() + np.concatenate(added)
    return np.split(together, np.cumsum(sizes)[:-1])


class _Images:
    """Images mixed voxel by voxel: right for every network."""

    def __init__(self, network: nn.Module, groups: Sequence[Sequence[int]]) -> None:
        self.network, self.groups = network, [list(channels) for channels in groups]
        places = [channel for channels in self.groups for channel in channels]
        self.order = [places.index(channel) for channel in range(len(places))]

    def parts(self, images: Tensor) -> list[Tensor]:
        """What each modality gives of images (N, C, D, H, W)."""
        return [images[:, channels] for channels in self.groups]

    def absent(self, part: Tensor) -> Tensor:
        """A part that the network takes for absent."""
        return torch.full_like(part[:1], torch.nan)

    def together(self, parts: Sequence[Tensor]) -> Tensor:
        """The parts, n or one of each modality, joined."""
        n = max(len(part) for part in parts)
        return torch.cat([part.expand(n, *part.shape[1:]) for part in parts], 1)[:, self.order]

    def features(self, joined: Tensor) -> Tensor:
        """The encoder's features of joined parts, or the images, where features need the table."""
        if self.network.trunk_needs_tabular:
            return joined
        return self.network.encoder(joined)

    def logits(self, features: Tensor, tabular: Tensor | None) -> Tensor:
        """The outputs (N, ...) of features and tabular vectors."""
        whole = self.network.trunk_needs_tabular
        return (self.network if whole else self.network.fuse)(features, tabular)


class _Stems(_Images):
    """Images mixed behind the first convolution, which is linear: the sum of what each modality gives.

    The rest of the encoder works on an eighth of the voxels: a third of the time of `_Images`.
    """

    def __init__(self, network: nn.Module, groups: Sequence[Sequence[int]]) -> None:
        super().__init__(network, groups)
        encoder = network.encoder
        self.trunk, n = encoder.trunks[0], encoder.in_channels
        flags = [[n + c for c in channels] if encoder.flags else [] for channels in self.groups]
        self.inputs = [channels + own for channels, own in zip(self.groups, flags, strict=True)]

    def parts(self, images: Tensor) -> list[Tensor]:
        conv, seen = self.trunk.stem[0], []
        hook = conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.network.encoder(images)
        finally:
            hook.remove()
        order = torch.channels_last_3d  # of their sum as well, which then need not be copied
        each = [
            functional.conv3d(seen[0][:, own], conv.weight[:, own], None, conv.stride, conv.padding)
            for own in self.inputs
        ]
        return [part.contiguous(memory_format=order) for part in each]

    def absent(self, part: Tensor) -> Tensor:
        return torch.zeros_like(part[:1])

    def together(self, parts: Sequence[Tensor]) -> Tensor:
        joined, bias = sum(parts), self.trunk.stem[0].bias
        return joined if bias is None else joined + bias[:, None, None, None]

    def features(self, joined: Tensor) -> Tensor:
        x = self.trunk.stem[1:](joined)
        for block in self.trunk.blocks:
            x = block(x)
        return self.trunk.last(x)


def _mixer(network: nn.Module, groups: Sequence[Sequence[int]]) -> _Images | _Stems:
    encoder = network.encoder
    first = encoder.trunks[0].stem[0]
    linear = isinstance(first, nn.Conv3d) and first.groups == 1 and first.dilation == (1, 1, 1)
    stacked = encoder.join is None and not network.trunk_needs_tabular
    return (_Stems if linear and stacked else _Images)(network, groups)
