"""What is to be done: one task for each arm, or reader, fold and seed, keyed by all that goes in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rlvo_lib import augmentation, storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import Arm, InputError, Reader, Settings
from rlvo_lib.experiment.arms import COMBINED, NETWORKS, arm_patients
from rlvo_lib.preprocess import TensorCache

#: What a trained network depends on, beside its data.
TRAINING_SETTINGS = (
    "encoder", "encoder_inputs", "base_filters", "fusion_location", "fusion_scale", "fusion_shift",
    "fusion_activation", "fusion_identity_start", "pooling", "teaching", "absent", "modality_dropout", "epochs_max",
    "patience_epochs", "batch_size", "learning_rate", "warmup_epochs", "weight_decay", "gradient_clip",
    "weight_averaging", "imbalance", "focal_gamma", "auxiliary_weight", "precision", "channels_last",
    "augment_shift_voxels", "augment_rotation_deg", "augment_noise", "augment_intensity",
    "augment_mirror", "device",
)  # fmt: skip
READER_SETTINGS = ("reader_epochs", "reader_filters", "reader_batch_size")
#: The modules whose source a result depends on.
CODE = (
    "twins", "dataset", "cohort", "analysis", "tabular", "baselines", "encoders", "fusion",
    "augmentation", "training", "concepts", "experiment",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One arm, or reader, of one fold and seed, with the folder of its result.

    ``readers``: the finished tasks that an arm of concepts is built on.
    """

    what: Arm | Reader
    fold: int
    seed: int
    folder: Path
    readers: tuple[Task, ...] = field(default=(), repr=False)

    @property
    def arm(self) -> Arm:
        """The arm, where it is one."""
        if not isinstance(self.what, Arm):
            raise InputError(f"'{self.what.name}' is a reader of images, not an arm")
        return self.what

    @property
    def result(self) -> Path:
        """The file that is written last: where it is, the result is complete."""
        return self.folder / ("predictions.csv" if isinstance(self.what, Arm) else "reads.csv")

    @property
    def done(self) -> bool:
        """Whether the result is complete."""
        return self.result.exists()

    @property
    def title(self) -> str:
        """What the progress display calls it."""
        kind = "" if isinstance(self.what, Arm) else "reader "
        return f"{kind}{self.what.name}, fold {self.fold}, seed {self.seed}"


def plan(analysis: Analysis, cache: TensorCache | None, arms: list[str]) -> list[Task]:
    """The tasks of some arms; arms made of others have none.

    Raises
    ------
    InputError
        If an arm would see what is not known before the intervention, or mirror what must not be.
    """
    settings, study = analysis.settings, analysis.settings.study
    readers = {}
    if any(study.arms[name].kind == "concepts" for name in arms):
        readers = {(t.seed, t.fold, t.what.name): t for t in reader_tasks(analysis, cache)}
    tasks = []
    for name in arms:
        arm = study.arms[name]
        if arm.kind in COMBINED:
            continue
        if arm.kind == "cnn":
            augmentation.check_mirror(settings, arm)
        content = _content(analysis, cache, arm)
        for seed, fold in _rounds(analysis):
            own = [t for (s, f, _), t in readers.items() if (s, f) == (seed, fold)]
            own = tuple(own) if arm.kind == "concepts" else ()
            key = storage.key(content, seed, fold, [t.folder.name for t in own])
            folder = settings.cache / "tasks" / f"{name}-{fold}-{key}"
            tasks.append(Task(arm, fold, seed, folder, own))
    return tasks


def reader_tasks(analysis: Analysis, cache: TensorCache | None) -> list[Task]:
    """The tasks of the study's readers of images."""
    settings, study = analysis.settings, analysis.settings.study
    tasks = []
    for reader in study.readers.values():
        analysis.dictionary.refuse_leakage(reader.concepts)
        arm = Arm(reader.name, reader.name, "concepts")
        augmentation.check_mirror(settings, arm)
        used = _used(analysis, cache, arm)
        what = {
            "reader": repr(reader),
            "columns": [repr(analysis.dictionary[c]) for c in reader.concepts],
            "table": analysis.dataset.table.loc[used, list(reader.concepts)].to_csv(),
            "split": analysis.split.to_csv(),
            "used": used,
            "inner": _inner(analysis),
            "measured": _measured(cache, used, study.measures_of(reader.measures)),
            "images": cache.table.loc[used, "key"].to_list() if cache else [],
            "view": repr(study.views.get(reader.view)),
            "study": [study.channels[c] for c in reader.channels],
            "measures": study.measures_of(reader.measures),
            "validation": study.validation,
            "settings": settings.subset(
                *TRAINING_SETTINGS, *READER_SETTINGS, "seed", "missing_indicators"
            ),
            "runs_on": _runs_on(settings),
            "code": storage.code_key(*CODE),
        }
        content = storage.key(what)
        for seed, fold in _rounds(analysis):
            folder = (
                settings.cache
                / "tasks"
                / f"read-{reader.name}-{fold}-{storage.key(content, seed, fold)}"
            )
            tasks.append(Task(reader, fold, seed, folder))
    return tasks


def _rounds(analysis: Analysis) -> list[tuple[int, int]]:
    folds = range(1, analysis.settings.study.validation["folds"] + 1)
    return [(seed, fold) for seed in analysis.seeds for fold in folds]


def _inner(analysis: Analysis) -> list[str]:
    """What the inner part is drawn by: outcomes and content groups of all eligible patients."""
    return [analysis.y.to_csv(), analysis.units.to_csv()]


def _measured(cache: TensorCache | None, used: list[str], names: tuple[str, ...]) -> list:
    """What was measured in the scans, as it is now in the table."""
    return cache.measures(used, names).tolist() if cache and used else []


def _runs_on(settings: Settings) -> str:
    """The kind of machine: networks of a GPU, in bfloat16, are not those of a CPU."""
    from rlvo_lib.training import pick_device

    return pick_device(settings.device).type


def _used(analysis: Analysis, cache: TensorCache | None, arm: Arm) -> list[str]:
    usable = arm_patients(analysis, cache, arm)
    return list(usable["participant_id"][usable["used"]])


def _content(analysis: Analysis, cache: TensorCache | None, arm: Arm) -> str:
    """A key of all that an arm's results depend on, but fold, seed and readers."""
    settings, study = analysis.settings, analysis.settings.study
    columns = list(study.columns_of(arm))
    analysis.dictionary.refuse_leakage(
        tuple(columns), allow_sensitivity=settings.allow_sensitivity_predictors
    )
    used = _used(analysis, cache, arm)
    below = [study.arms[name] for name in (arm.offset, arm.teacher) if name]
    seen = [*columns, *(column for other in below for column in study.columns_of(other))]
    if arm.kind == "concepts" or settings.auxiliary_weight:
        analysis.dictionary.refuse_leakage(tuple(study.concepts))
        seen += list(study.concepts)
    sees_images = bool(arm.channels or any(one.measures for one in (arm, *below)))
    what = {
        "kind": arm.kind, "fusion": arm.fusion, "offset": arm.offset, "teacher": arm.teacher, "channels": arm.channels,
        "measures": [study.measures_of(one.measures) for one in (arm, *below)],
        "below": [(one.kind, study.columns_of(one)) for one in below],
        "columns": [repr(analysis.dictionary[c]) for c in seen],
        "predictors": columns,
        "table": analysis.dataset.table.loc[used, list(dict.fromkeys(seen))].to_csv() if seen else "",
        "used": used,
        "inner": _inner(analysis),
        "split": analysis.split.to_csv(),
        "images": cache.table.loc[used, "key"].to_list() if sees_images else [],
        "study": [study.channels[c] for c in arm.channels],
        "validation": study.validation,
        "settings": settings.subset(*TRAINING_SETTINGS, "seed", "missing_indicators"),
        "runs_on": _runs_on(settings) if arm.kind in (*NETWORKS, "concepts") else "",
        "code": storage.code_key(*CODE),
    }  # fmt: skip
    return storage.key(what)


def fold_patients(
    analysis: Analysis, cache: TensorCache | None, task: Task
) -> dict[str, list[str]]:
    """The fold's patients that a task can use, by part (`Analysis.fold_parts`)."""
    arm = task.what
    if not isinstance(arm, Arm):
        arm = Arm(arm.name, arm.name, "concepts")
    usable = arm_patients(analysis, cache, arm).set_index("participant_id")["used"]
    whole = analysis.fold_parts(task.fold, task.seed)
    return {name: [p for p in ids if usable[p]] for name, ids in whole.items()}
