"""The variants of an arm: one thing changed at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlvo_lib.analysis import Analysis
from rlvo_lib.config import FUSIONS, Arm, InputError, Study
from rlvo_lib.experiment.arms import COMBINED
from rlvo_lib.experiment.fitting import network_scans

GROUPS = ("modalities", "fusion", "location", "resolution", "patients")
BASE = "base"  # the group and the name of an unchanged arm
#: Arms whose learning curve is drawn beside the varied arm's, where the study has them.
CURVES = ("clinical_logistic", "concepts")
SHARES = (0.25, 0.5, 0.75)  # of the training patients
LOCATIONS = (0, 1, 2, 3, 4)  # of FiLM and DAFT in the last block (`Settings.fusion_location`)
#: What the voxels' edge is multiplied by; no grid becomes smaller than 16 voxels or finer than 1 mm.
ZOOMS = (2.0, 4 / 3, 2 / 3)
LEAST_VOXELS, FINEST_MM = 16, 1.0


@dataclass(frozen=True)
class Variant:
    """An arm with one thing changed.

    settings : fields of `Settings` that are replaced; share : of the training patients, 0 to 1.
    """

    name: str
    group: str
    arm: Arm
    settings: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0


# ------------------------------------------------------------------------------------- the grid


def grid(
    analysis: Analysis,
    groups: Sequence[str] | None = None,
    *,
    arm: str = "",
    beside: Sequence[str] | None = None,
    shares: Sequence[float] | None = None,
) -> list[Variant]:
    """The variants of an arm (default: the one the study explains), the unchanged arm first.

    Parameters
    ----------
    groups : of `GROUPS`; default: all that apply.
    beside : arms with learning curves of their own (default: `CURVES`, where the study has them). They
        may be made of others (kinds ``mean`` and ``stack``).
    shares : of the training patients (default: `SHARES`), above 0 and at most 1; the whole, which is
        the unchanged arm, is always there.

    Raises
    ------
    InputError
        If a group or arm is not known, a group that is asked for does not apply to the arm, a share is
        out of range, or ``beside`` or ``shares`` are given without the group ``patients``.
    """
    study = analysis.settings.study
    base = _base(study, arm)
    for group in groups or ():
        if group not in GROUPS:
            raise InputError(f"group '{group}' is not known; allowed: {', '.join(GROUPS)}")
    for name, given in (("beside", beside), ("shares", shares)):
        if given is not None and groups is not None and "patients" not in groups:
            raise InputError(f"{name} is given without group 'patients', which alone uses it")
    others, parts = _beside(study, base, beside), _shares(shares)
    makers = {
        "modalities": _modalities,
        "fusion": _fusions,
        "location": _locations,
        "resolution": _resolutions,
        "patients": lambda _, varied: _patients(varied, others, parts),
    }
    variants = [Variant(BASE, BASE, base)]
    for group in GROUPS if groups is None else dict.fromkeys(groups):
        made = makers[group](analysis, base)
        if not made and groups is not None:
            raise InputError(
                f"group '{group}' does not apply to arm '{base.name}' (kind {base.kind}, fusion "
                f"{base.fusion}, {len(base.channels)} channels); allowed: another --arm, or group"
            )
        variants += made
    return variants


def _base(study: Study, name: str) -> Arm:
    name = name or study.explain_arm
    single = [arm.name for arm in study.arms.values() if arm.kind not in COMBINED]
    if name not in single:
        raise InputError(f"arm '{name}' cannot be varied; allowed: {', '.join(single)}")
    return study.arms[name]


def _modalities(analysis: Analysis, base: Arm) -> list[Variant]:
    """Each modality alone, and all but each; the clinical variables are one of them."""
    if base.kind != "cnn":
        return []
    apart = dataclasses.replace(analysis.settings, encoder_inputs="per-modality")
    scans = network_scans(apart, base) or ((base.channels[0], (0,)),)
    names = [name for name, _ in scans] + ["clinical"] * bool(base.predictors)
    if len(names) < 2:
        return []
    channels = {name: tuple(base.channels[k] for k in places) for name, places in scans}
    subsets = {f"only_{name}": [name] for name in names}
    subsets |= {f"without_{name}": [n for n in names if n != name] for name in names}
    made: dict[Arm, Variant] = {}
    for label, kept in subsets.items():
        seen = tuple(c for name in kept if name in channels for c in channels[name])
        arm = _seeing(base, seen, base.predictors if "clinical" in kept else ())
        made.setdefault(arm, Variant(label, "modalities", arm))  # of two, one alone is all but one
    return list(made.values())


def _seeing(base: Arm, channels: tuple[str, ...], predictors: tuple[str, ...]) -> Arm:
    """The arm with other inputs: without table no fusion, without images a network of the table.

    Offset and teacher know the clinical variables; they go where those go, and an offset is of networks of images.
    """
    if not channels:
        return dataclasses.replace(
            base,
            kind="mlp",
            fusion="none",
            channels=(),
            predictors=predictors,
            offset="",
            teacher="",
        )
    below = {} if predictors else {"fusion": "none", "offset": "", "teacher": ""}
    return dataclasses.replace(base, channels=channels, predictors=predictors, **below)


def _fusions(analysis: Analysis, base: Arm) -> list[Variant]:
    if base.kind != "cnn" or not base.predictors:
        return []
    return [
        Variant(fusion, "fusion", dataclasses.replace(base, fusion=fusion))
        for fusion in FUSIONS
        if fusion not in ("none", base.fusion)
    ]


def _locations(analysis: Analysis, base: Arm) -> list[Variant]:
    if base.kind != "cnn" or base.fusion not in ("film", "daft"):
        return []
    return [
        Variant(f"location_{place}", "location", base, {"fusion_location": place})
        for place in LOCATIONS
        if place != analysis.settings.fusion_location
    ]


def _resolutions(analysis: Analysis, base: Arm) -> list[Variant]:
    """The same field of view in larger and smaller voxels."""
    if not base.channels:
        return []
    shape, spacing = analysis.settings.grid_shape, analysis.settings.grid_spacing_mm
    made = []
    for zoom in ZOOMS:
        voxels, edge = tuple(round(n / zoom) for n in shape), round(spacing * zoom, 3)
        if min(voxels) >= LEAST_VOXELS and (zoom > 1 or edge >= FINEST_MM):
            change = {"grid_shape": voxels, "grid_spacing_mm": edge}
            made.append(Variant(f"{edge:g}_mm", "resolution", base, change))
    return made


def _beside(study: Study, base: Arm, names: Sequence[str] | None) -> list[Arm]:
    """The arms whose learning curves stand beside the varied one's."""
    if names is None:
        names = [name for name in CURVES if name in study.arms]
    for name in names:
        if name not in study.arms:
            raise InputError(f"arm '{name}' is not known; allowed: {', '.join(study.arms)}")
    return [study.arms[name] for name in dict.fromkeys(names) if name != base.name]


def _shares(shares: Sequence[float] | None) -> list[float]:
    """Shares below 1, rising, each once."""
    found = sorted({check_share(share) for share in (SHARES if shares is None else shares)})
    return [share for share in found if share < 1]


def check_share(share: float) -> float:
    """A share of the training patients, or an `InputError`."""
    if not 0 < share <= 1:
        raise InputError(f"share of the training patients is {share}; allowed: above 0, at most 1")
    return float(share)


def _patients(base: Arm, others: Sequence[Arm], shares: Sequence[float]) -> list[Variant]:
    """Learning curves: of the arm, and of others with their own unchanged arms."""
    made = [Variant(BASE, BASE, arm) for arm in others]
    return made + [
        Variant(f"share_{100 * share:g}", "patients", arm, share=share)
        for arm in (base, *others)
        for share in shares
    ]
