"""How a run is made: `Settings`, its profiles, and the checks of every field."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvo_lib.config.arms import ENCODERS, POOLINGS
from rlvo_lib.config.errors import InputError
from rlvo_lib.config.study import MAIN, Study, load_study, project_root


@dataclass(frozen=True)
class Settings:
    """How a run is made. Build it with `load_settings`; every field can be overridden there."""

    study: Study
    profile: str
    data: Path | None  # a dataset folder; None: the embedded simulated cohort
    out: Path  # run folder
    cache: Path  # embedded dataset, tensors and finished training tasks
    # cohort
    outcome_definition: str = "main"  # one of the study file's definitions of the outcome
    allow_sensitivity_predictors: bool = False  # year, vendor, ...: known before, but not biology
    arms: tuple[str, ...] = ()  # those to run; empty: all of the study file
    repeats: int = 0  # of the cross-validation; 0: as the study file says
    missing_indicators: bool = True  # whether a model sees that a quantity is missing
    # embedded cohort
    patients: int = 599
    scenario: str = "paper"  # one of SCENARIOS
    seed: int = 2025  # of the embedded cohort, the split and the resampling
    # machine
    workers: int = 2  # processes of one thread each
    device: str = "auto"  # auto | cpu | cuda
    gpu_processes: int = 1  # tasks that share a GPU: small networks leave it idle
    # model tensor
    grid_shape: tuple[int, int, int] = (32, 40, 32)  # voxels along x, y, z
    grid_spacing_mm: float = 3.0
    template: str = ""  # CT template (NIfTI, HU) for registration; empty: the package's
    # network
    training_seeds: tuple[int, ...] = (0,)
    encoder: str = "light"  # one of ENCODERS; light: the published network with a stride-2 stem
    encoder_inputs: str = "stacked"  # or per-modality, shared: one encoder a scan
    base_filters: int = 4  # the DAFT papers' nf
    pooling: str = "mean"  # of the last block's features: mean (published), max, mean-max
    fusion_location: int = 3  # of FiLM and DAFT in the last block, 0 to 4
    fusion_scale: bool = True  # whether alpha is learnt (else 1)
    fusion_shift: bool = True  # whether beta is learnt (else 0)
    fusion_activation: str = "linear"  # of alpha: linear (published), tanh or sigmoid
    fusion_identity_start: bool = False  # 1 + alpha: a deviation from the papers, labelled as one
    absent: str = "leave-out"  # a patient without a channel leaves the arm; or flag: is told of it
    modality_dropout: float = 0.0  # share of scans hidden in training; needs absent = flag
    # its training
    epochs_max: int = 40  # a texture is found after some 20; where nothing is, patience ends it
    patience_epochs: int = 6  # stop after so many epochs without a better inner validation loss
    batch_size: int = 16  # some 20 steps an epoch from 300 patients
    learning_rate: float = 3e-3  # AdamW, cosine decay to zero
    warmup_epochs: int = 1  # of linearly rising rate: the first steps of batch norm are rough
    weight_decay: float = 1e-2  # of AdamW; not of biases and norms
    gradient_clip: float = 1.0  # norm of all gradients; 0: off
    weight_averaging: float = 0.0  # decay a step of a running mean of the weights; 0: off
    imbalance: str = "none"  # none keeps probabilities honest; weights, balanced (batches), focal
    focal_gamma: float = 2.0  # as Lin et al. (2017)
    teaching: float = 0.7  # a teacher's share in what is learnt; the outcome's is the rest
    recalibrate: bool = False  # logistic, on the out-of-fold predictions
    auxiliary_weight: float = 0.0  # of image reads as extra targets; 0: off
    reader_epochs: int = 16  # of networks that read concepts off images; no early end, best kept
    reader_filters: int = 4
    reader_batch_size: int = 32  # reads are many numbers a patient: larger steps lose nothing
    precision: str = "auto"  # auto: bfloat16 on a GPU, float32 on a CPU; or one of the two
    channels_last: bool = True  # memory order of convolutions: 0.65 of the time on a CPU
    augment_shift_voxels: int = 2  # random translation
    augment_rotation_deg: float = 0.0  # random rotation about each axis
    augment_noise: float = 0.1  # SD of added noise, as a share of each channel's SD
    augment_intensity: float = 0.0  # SD of an offset added to a whole channel, as a share of its SD
    augment_mirror: bool = False  # left-right; refused where the side is not handled by mirroring
    # reporting
    bootstrap_resamples: int = 2000
    explained_patients: int = 18  # test patients with SHAP values
    mapped_patients: int = 20  # test patients whose attributions are counted by region
    saliency_patients: int = 2  # of them, those with maps on their own scans and figures
    shap_background: int = 50  # training patients that stand for "unknown" and "absent"
    shap_permutations: int = 4  # orders of the variables, each forwards and backwards
    modality_donors: int = 3  # training patients whose scans stand in for absent ones
    counterfactual_patients: int = 5  # simulated patients rendered again with one thing changed

    def subset(self, *names: str) -> dict[str, Any]:
        """The named fields as a plain dictionary, for content keys.

        >>> load_settings("smoke").subset("base_filters")
        {'base_filters': 4}
        """
        return {name: getattr(self, name) for name in names}


#: What the embedded cohort can be; `rlvo_lib.simulate.scenarios` holds how each is made.
SCENARIOS = {
    "paper": "difficulty, counts and prevalence like the study's",
    "null": "nothing predicts: each outcome is another patient's, so every AUC must be 0.5",
    "signal": "each modality shows enough for a small network to learn within minutes",
    "interaction": "an image feature's effect has opposite signs with and without atrial fibrillation",
    "shift": "a second centre: other scanners, prevalence and case mix, the same causes",
    "missing": "scans and values missing for reasons",
}

#: What each profile changes from the defaults of `Settings`.
PROFILES: dict[str, dict[str, Any]] = {
    # tens of patients, seconds a notebook: a first look, and what the tests run
    "smoke": dict(
        patients=60,
        grid_shape=(16, 20, 16),
        grid_spacing_mm=6.0,
        epochs_max=2,
        reader_epochs=3,
        bootstrap_resamples=200,
        explained_patients=4,
        mapped_patients=4,
        saliency_patients=2,
        shap_background=10,
        shap_permutations=3,
        modality_donors=2,
        counterfactual_patients=2,
    ),
    # the embedded cohort of the study's size: `make reproduce`
    "demo": dict(),
    # a hospital's scans at full resolution, on a GPU
    "full": dict(
        grid_shape=(128, 160, 128),
        grid_spacing_mm=0.75,
        epochs_max=60,
        patience_epochs=10,
        batch_size=8,
        augment_shift_voxels=6,
    ),
}

_DEFAULT_OUT = {"smoke": "smoke", "demo": "latest", "full": "full"}


def load_settings(
    profile: str = "demo",
    *,
    study: str = "rlvo",
    data: str | Path = "",
    out: str | Path = "",
    cache: str | Path = "",
    **overrides: Any,
) -> Settings:
    """Settings of a profile with some fields replaced.

    Relative ``data``, ``out`` and ``cache`` are taken from the project folder, wherever the caller
    runs. The run folder is ``reports/`` and the name of the dataset's folder, or of the profile. An override of None keeps the profile's value; the study file may change a profile's.

    Raises
    ------
    InputError
        For an unknown profile, study or field, or a value out of range.

    Examples
    --------
    >>> load_settings("smoke", patients=80).patients
    80
    """
    if profile not in PROFILES:
        raise InputError(f"profile '{profile}' is not known; allowed: {', '.join(PROFILES)}")
    known = {f.name for f in dataclasses.fields(Settings)} - {
        "profile",
        "study",
        "data",
        "out",
        "cache",
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:
        if name not in known:
            raise InputError(f"setting '{name}' is not known; allowed: {', '.join(sorted(known))}")
    root = project_root()
    plan = load_study(study)
    own = plan.profiles.get(profile, {})
    for name in own:
        if name not in known:
            raise InputError(
                f"study.toml of study '{study}': profile '{profile}' changes '{name}', which is no "
                f"setting; allowed: {', '.join(sorted(known))}"
            )
    values = {"workers": available_workers()} | PROFILES[profile] | own | given
    for name in ("grid_shape", "training_seeds", "arms"):
        if name in values:
            value = values[name]
            values[name] = tuple(value) if isinstance(value, list | tuple) else (value,)
    repeats = values.get("repeats", 0)
    plan = plan.repeated(repeats) if isinstance(repeats, int) else plan  # else refused below
    place = (Path(data).name or study) if str(data) else _DEFAULT_OUT[profile]
    settings = Settings(
        study=plan.under(values.get("outcome_definition", MAIN)),
        profile=profile,
        data=root / data if str(data) else None,
        out=root / (out or f"reports/{place}"),
        cache=root / (cache or os.environ.get("RLVO_CACHE") or ".rlvo_cache"),
        **values,
    )
    if isinstance(settings.template, str) and settings.template:
        settings = dataclasses.replace(settings, template=str(root / settings.template))
    _check_settings(settings)
    return settings


def available_workers() -> int:
    """How many processes to use: the processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_settings(settings: Settings) -> None:
    kinds = {
        "int": (int, "a whole number"),
        "float": ((int, float), "a number"),
        "str": (str, "text"),
        "bool": (bool, "True or False"),
    }
    may_be_zero = (
        "seed", "repeats", "weight_decay", "warmup_epochs", "gradient_clip", "weight_averaging",
        "fusion_location", "modality_dropout", "focal_gamma", "auxiliary_weight", "teaching",
        "augment_shift_voxels", "augment_rotation_deg", "augment_noise", "augment_intensity",
    )  # fmt: skip
    for entry in dataclasses.fields(Settings):
        value, (kind, words) = getattr(settings, entry.name), kinds.get(entry.type, (object, ""))
        is_number = kind not in (str, bool, object)
        if not isinstance(value, kind) or (is_number and isinstance(value, bool)):
            raise InputError(f"setting '{entry.name}' is {value!r}; allowed: {words}")
        if is_number and (value < 0 or (value == 0 and entry.name not in may_be_zero)):
            least = "0 or more" if entry.name in may_be_zero else "above 0"
            raise InputError(f"setting '{entry.name}' is {value!r}; allowed: {words}, {least}")
    for name, allowed in (
        ("device", ("auto", "cpu", "cuda")),
        ("encoder", ENCODERS),
        ("encoder_inputs", ("stacked", "per-modality", "shared")),
        ("pooling", POOLINGS),
        ("fusion_activation", ("linear", "tanh", "sigmoid")),
        ("absent", ("leave-out", "flag")),
        ("imbalance", ("none", "weights", "balanced", "focal")),
        ("precision", ("auto", "float32", "bfloat16")),
        ("scenario", tuple(SCENARIOS)),
    ):
        if getattr(settings, name) not in allowed:
            raise InputError(
                f"setting '{name}' is '{getattr(settings, name)}'; allowed: {', '.join(allowed)}"
            )
    for name, least, words in (
        ("grid_shape", 16, "three whole numbers of at least 16, e.g. (32,40,32)"),
        ("training_seeds", 0, "at least one whole number, e.g. (0,1)"),
    ):
        value = getattr(settings, name)
        whole = bool(value) and all(isinstance(n, int) and n >= least for n in value)
        if not whole or (name == "grid_shape" and len(value) != 3):
            raise InputError(f"setting '{name}' is {value}; allowed: {words}")
    for name, most in (
        ("modality_dropout", 0.9),
        ("teaching", 1.0),
        ("weight_averaging", 0.9999),
        ("fusion_location", 4),
    ):
        if getattr(settings, name) > most:
            raise InputError(
                f"setting '{name}' is {getattr(settings, name)!r}; allowed: 0 to {most}"
            )
    if settings.modality_dropout and settings.absent != "flag":
        raise InputError(
            "setting 'modality_dropout' needs 'absent' to be 'flag': a network that is not told which "
            "scan is absent would take its mean for the scan"
        )
    if settings.auxiliary_weight and not settings.study.readers:
        raise InputError(
            f"setting 'auxiliary_weight' is {settings.auxiliary_weight}; allowed: 0 for study "
            f"'{settings.study.name}', which names no reads"
        )
    if not (settings.fusion_scale or settings.fusion_shift):
        raise InputError(
            "settings 'fusion_scale' and 'fusion_shift' are both False; allowed: one of them True"
        )
    if settings.fusion_identity_start and settings.fusion_activation == "sigmoid":
        raise InputError(
            "setting 'fusion_identity_start' with 'fusion_activation' 'sigmoid'; allowed: linear, tanh"
        )
    for name in settings.arms:
        if name not in settings.study.arms:
            raise InputError(
                f"setting 'arms' names '{name}'; allowed: {', '.join(settings.study.arms)}"
            )
    if settings.template and not Path(settings.template).is_file():
        raise InputError(
            f"setting 'template' is '{settings.template}': no such file; allowed: a CT template "
            "(NIfTI, HU), or empty for the package's own"
        )
    if settings.data is not None and not settings.data.is_dir():
        raise InputError(f"dataset folder {settings.data} does not exist")
