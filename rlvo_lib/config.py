"""Settings of a run and the study file.

`Settings` is the one object that says how a run is made; `Study` (``studies/<name>/study.toml``)
says what is studied. Both are frozen. Units stand in the names: ``_mm``, ``_s``, ``_min``.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line: what, where, what is allowed."""


def project_root() -> Path:
    """The checkout this package was installed from, or the current folder for an installed wheel."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "studies").is_dir() else Path.cwd()


# ---------------------------------------------------------------------------------------- study


@dataclass(frozen=True)
class Rule:
    """One comparison of a column with a value: a label criterion or an eligibility rule.

    ``op`` is one of ``>``, ``>=``, ``<``, ``<=``, ``==``, ``in``, ``between`` (both ends included)
    or, for eligibility only, ``label-known``.
    """

    id: str
    text: str
    op: str
    column: str = ""
    value: Any = None


@dataclass(frozen=True)
class Channel:
    """One channel of the model tensor: a scan, and the window ``[low, high]`` that becomes 0..1."""

    scan: str
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Arm:
    """One row of the ladder: what a model is and what goes into it."""

    name: str
    label: str
    kind: str  # logistic | boosting | mlp | cnn | mean
    group: str = "clinical"  # clinical | imaging | multimodal
    channels: tuple[str, ...] = ()
    predictors: tuple[str, ...] = ()  # names of predictor sets
    fusion: str = "none"  # none | concat1fc | film | daft
    of: tuple[str, ...] = ()  # kind "mean": the arms averaged


ENCODERS = ("light", "daft-resnet")
ARM_KINDS = ("logistic", "boosting", "mlp", "cnn", "mean")
RULE_OPS = (">", ">=", "<", "<=", "==", "in", "between", "label-known")


@dataclass(frozen=True)
class Study:
    """What is predicted, from what, and how it is validated; read from ``study.toml``."""

    name: str
    title: str
    citation: str
    folder: Path
    outcome: str
    outcome_label: str
    negative_label: str
    question: str
    criteria: tuple[Rule, ...]
    eligibility: tuple[Rule, ...]
    ordered: tuple[tuple[str, ...], ...]  # columns that must not decrease from one to the next
    predictors: dict[str, tuple[str, ...]]
    channels: dict[str, Channel]
    arms: dict[str, Arm]
    validation: dict[str, Any]
    threshold: dict[str, Any]
    explain_arm: str
    comparisons: tuple[tuple[str, str], ...]
    published: dict[str, dict[str, Any]]
    claims: tuple[dict[str, Any], ...]
    flip_to_side: str
    side_column: str
    side_codes: dict[str, str]
    dictionary: str = "data_dictionary.csv"

    @property
    def dictionary_path(self) -> Path:
        """The study's data dictionary, a CSV file in REDCap's format."""
        return self.folder / self.dictionary

    @property
    def text(self) -> str:
        """The study file as it stands on disk."""
        return (self.folder / "study.toml").read_text(encoding="utf-8")

    def columns_of(self, arm: Arm) -> tuple[str, ...]:
        """The predictor columns of an arm, in the order of the study file."""
        return tuple(column for name in arm.predictors for column in self.predictors[name])


def load_study(name: str = "rlvo") -> Study:
    """Read ``studies/<name>/study.toml``.

    Raises
    ------
    InputError
        If there is no such study, or the file names an arm, channel or predictor set that it does
        not define.
    """
    studies = project_root() / "studies"
    path = studies / name / "study.toml"
    if not path.is_file():
        known = sorted(p.parent.name for p in studies.glob("*/study.toml"))
        raise InputError(
            f"study '{name}' does not exist; allowed: {', '.join(known) or 'none found'}"
        )
    return read_study(path)


def read_study(path: Path) -> Study:
    """A study file, wherever it lies; its dictionary is looked for in the same folder."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} of study '{path.parent.name}': {error}") from error
    where = f"study.toml of study '{path.parent.name}'"
    try:
        study = Study(
            name=raw["name"],
            title=raw["title"],
            citation=raw.get("citation", ""),
            folder=path.parent,
            outcome=raw["outcome"]["name"],
            outcome_label=raw["outcome"]["label"],
            negative_label=raw["outcome"]["negative_label"],
            question=raw["outcome"]["question"],
            criteria=tuple(Rule(**rule) for rule in raw["outcome"]["criteria"]),
            eligibility=tuple(Rule(**rule) for rule in raw.get("eligibility", [])),
            ordered=tuple(tuple(columns) for columns in raw.get("ordered", [])),
            predictors={name: tuple(columns) for name, columns in raw["predictors"].items()},
            channels={
                name: Channel(**channel) for name, channel in raw.get("channels", {}).items()
            },
            arms={name: _parse_arm(name, arm) for name, arm in raw["arms"].items()},
            validation=raw["validation"],
            threshold=raw["threshold"],
            explain_arm=raw.get("explain", {}).get("arm", ""),
            comparisons=tuple(
                (pair["first"], pair["second"]) for pair in raw.get("comparisons", [])
            ),
            published=raw.get("published", {}),
            claims=tuple(raw.get("claims", [])),
            flip_to_side=raw.get("flip_to_side", "none"),
            side_column=raw.get("side_column", ""),
            side_codes={str(code): side for code, side in raw.get("side_codes", {}).items()},
            dictionary=raw.get("dictionary", "data_dictionary.csv"),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: missing or unknown entry {error}") from error
    _check_study(study, where)
    return study


def _parse_arm(name: str, raw: dict[str, Any]) -> Arm:
    lists = {key: tuple(raw[key]) for key in ("channels", "predictors", "of") if key in raw}
    return Arm(name=name, **(raw | lists))


def _check_study(study: Study, where: str) -> None:
    def refuse(what: str, value: str, allowed: Any) -> None:
        raise InputError(f"{where}: {what} '{value}' is not defined; allowed: {', '.join(allowed)}")

    for rule in (*study.criteria, *study.eligibility):
        if rule.op not in RULE_OPS:
            refuse(f"op of rule '{rule.id}'", rule.op, RULE_OPS)
    for arm in study.arms.values():
        if arm.kind not in ARM_KINDS:
            refuse(f"kind of arm '{arm.name}'", arm.kind, ARM_KINDS)
        for names, known, what in (
            (arm.channels, study.channels, "channel"),
            (arm.predictors, study.predictors, "predictor set"),
            (arm.of, study.arms, "arm"),
        ):
            for name in names:
                if name not in known:
                    refuse(f"{what} of arm '{arm.name}'", name, known)
    for pair in study.comparisons:
        for name in pair:
            if name not in study.arms:
                refuse("arm in comparisons", name, study.arms)
    if study.explain_arm and study.explain_arm not in study.arms:
        refuse("arm to explain", study.explain_arm, study.arms)
    if study.flip_to_side not in ("left", "right", "none"):
        refuse("flip_to_side", study.flip_to_side, ("left", "right", "none"))


# ------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Settings:
    """How a run is made. Build it with `load_settings`; every field can be overridden there."""

    study: Study
    profile: str
    data: Path | None  # a dataset folder; None: the embedded simulated cohort
    out: Path  # run folder
    cache: Path  # embedded dataset, tensors and finished training tasks
    # embedded cohort
    patients: int = 599
    scenario: str = "paper"
    seed: int = 2025  # of the embedded cohort, the split and the resampling
    # machine
    workers: int = 2  # processes of one thread each
    device: str = "auto"  # auto | cpu | cuda
    # model tensor
    grid_shape: tuple[int, int, int] = (32, 40, 32)  # voxels along x, y, z
    grid_spacing_mm: float = 3.0
    # network and its training
    training_seeds: tuple[int, ...] = (0,)
    encoder: str = (
        "light"  # light: stride-2 stem; daft-resnet: the DAFT papers' full-resolution stem
    )
    base_filters: int = 4  # the DAFT papers' nf
    epochs_max: int = 14
    patience_epochs: int = 4  # stop after so many epochs without a better inner validation loss
    batch_size: int = 16
    learning_rate: float = 3e-3  # AdamW, cosine decay to zero
    weight_decay: float = 1e-2
    augment_shift_voxels: int = 2  # random translation; no left-right flip: the side is handled
    augment_noise: float = 0.1  # SD of added noise, as a share of each channel's SD
    # reporting
    bootstrap_resamples: int = 2000
    explained_patients: int = 24  # test patients with SHAP values
    saliency_patients: int = 6  # test patients with a saliency map
    shap_background: int = 50  # training patients that stand for "variable unknown"

    def subset(self, *names: str) -> dict[str, Any]:
        """The named fields as a plain dictionary, for content keys.

        >>> load_settings("smoke").subset("base_filters")
        {'base_filters': 4}
        """
        return {name: getattr(self, name) for name in names}


#: What each profile changes from the defaults of `Settings`.
PROFILES: dict[str, dict[str, Any]] = {
    # tens of patients, seconds a notebook: a first look, and what the tests run
    "smoke": dict(
        patients=60,
        grid_shape=(16, 20, 16),
        grid_spacing_mm=6.0,
        epochs_max=2,
        bootstrap_resamples=200,
        explained_patients=4,
        saliency_patients=2,
        shap_background=10,
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
    runs. An override of None keeps the profile's value.

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
    for name in ("grid_shape", "training_seeds"):
        if name in given:
            value = given[name]
            given[name] = tuple(value) if isinstance(value, list | tuple) else (value,)
    settings = Settings(
        study=load_study(study),
        profile=profile,
        data=root / data if str(data) else None,
        out=root / (out or f"reports/{_DEFAULT_OUT[profile]}"),
        cache=root / (cache or os.environ.get("RLVO_CACHE") or ".rlvo_cache"),
        **({"workers": available_workers()} | PROFILES[profile] | given),
    )
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
    }
    may_be_zero = ("seed", "weight_decay", "augment_shift_voxels", "augment_noise")
    for entry in dataclasses.fields(Settings):
        value, (kind, words) = getattr(settings, entry.name), kinds.get(entry.type, (object, ""))
        is_number = kind not in (str, object)
        if not isinstance(value, kind) or (is_number and isinstance(value, bool)):
            raise InputError(f"setting '{entry.name}' is {value!r}; allowed: {words}")
        if is_number and (value < 0 or (value == 0 and entry.name not in may_be_zero)):
            least = "0 or more" if entry.name in may_be_zero else "above 0"
            raise InputError(f"setting '{entry.name}' is {value!r}; allowed: {words}, {least}")
    for name, allowed in (("device", ("auto", "cpu", "cuda")), ("encoder", ENCODERS)):
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
    if settings.data is not None and not settings.data.is_dir():
        raise InputError(f"dataset folder {settings.data} does not exist")


__all__ = [
    "ARM_KINDS", "Arm", "ENCODERS", "Channel", "InputError", "PROFILES", "Rule", "Settings", "Study",
    "available_workers", "load_settings", "load_study", "read_study", "project_root",
]  # fmt: skip
