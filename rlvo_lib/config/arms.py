"""What a study file says of its models: the arms of the ladder, and the readers of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvo_lib.config.study import Study


@dataclass(frozen=True)
class Arm:
    """One row of the ladder: what a model is and what goes into it."""

    name: str
    label: str
    kind: str  # one of ARM_KINDS
    group: str = "clinical"  # clinical | imaging | multimodal
    channels: tuple[str, ...] = ()
    predictors: tuple[str, ...] = ()  # names of predictor sets
    measures: tuple[str, ...] = ()  # names of sets of what is measured in the scans
    fusion: str = "none"  # one of FUSIONS; kind "concepts": none (logistic regression) or daft
    offset: str = ""  # kind "cnn": the arm whose logit is added, frozen
    teacher: str = ""  # kinds "cnn" and "mlp": the arm whose probabilities it learns as well
    of: tuple[str, ...] = ()  # kinds "mean" and "stack": the arms combined
    on_request: bool = False  # runs only where the setting ``arms`` names it


@dataclass(frozen=True)
class Reader:
    """A network that learns to read columns of the table off images: one view, one or more channels.

    view : a name of ``[views]``, or empty: the model tensor.
    concepts : the columns it learns; measures : sets of measured quantities that it is told as well.
    """

    name: str
    channels: tuple[str, ...]
    concepts: tuple[str, ...]
    view: str = ""
    measures: tuple[str, ...] = ()


ENCODERS = ("light", "daft-resnet", "monai-resnet", "monai-densenet")
POOLINGS = ("mean", "max", "mean-max")
FUSIONS = ("none", "concat1fc", "concat2fc", "1fc-concat-1fc", "interactive", "film", "daft")
#: Models of tables (logistic, boosting, mlp), of images with or without a table (cnn), of voxels without a
#: network (ridge), of what was read off the images (concepts), and of other arms (mean, stack).
ARM_KINDS = ("logistic", "boosting", "mlp", "cnn", "ridge", "concepts", "mean", "stack")


def read_arms(raw: Mapping[str, Any]) -> dict[str, Arm]:
    """The study file's tables ``[arms.<name>]``."""
    return {name: Arm(name=name, **_tuples(entry)) for name, entry in raw["arms"].items()}


def read_readers(raw: Mapping[str, Any]) -> dict[str, Reader]:
    """The study file's tables ``[readers.<name>]``."""
    return {
        name: Reader(name=name, **_tuples(entry)) for name, entry in raw.get("readers", {}).items()
    }


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}


def check_arms(study: Study, refuse: Callable[[str, Any, Any], None]) -> None:
    """Calls `refuse` (what, value, allowed) at the first arm that makes no sense."""
    seen: list[str] = []
    for arm in study.arms.values():
        if arm.kind not in ARM_KINDS:
            refuse(f"kind of arm '{arm.name}'", arm.kind, ARM_KINDS)
        if arm.fusion not in FUSIONS:
            refuse(f"fusion of arm '{arm.name}'", arm.fusion, FUSIONS)
        if arm.kind == "concepts" and arm.fusion not in ("none", "daft"):
            refuse(f"fusion of arm '{arm.name}'", arm.fusion, ("none", "daft"))
        if arm.kind == "concepts" and arm.fusion == "daft" and not arm.predictors:
            refuse(f"predictors of arm '{arm.name}'", "", ("predictor sets, which DAFT needs",))
        if arm.kind == "cnn" and not arm.channels:
            refuse(f"channels of arm '{arm.name}'", "", study.channels)
        tables = bool(arm.predictors or arm.measures)
        if arm.kind == "cnn" and tables != (arm.fusion != "none"):
            refuse(
                f"fusion of arm '{arm.name}'",
                arm.fusion,
                ("none without a table, another with one",),
            )
        if arm.kind in ("logistic", "boosting", "mlp") and not tables:
            refuse(f"predictors of arm '{arm.name}'", "", study.predictors)
        if arm.kind == "ridge" and not arm.channels:
            refuse(f"channels of arm '{arm.name}'", "", study.channels)
        if arm.kind in ("mean", "stack") and not arm.of:
            refuse(f"of of arm '{arm.name}'", "", seen)
        if arm.offset and arm.kind != "cnn":
            refuse(f"offset of arm '{arm.name}'", arm.offset, ("none: only a cnn has one",))
        if arm.kind == "concepts" and not study.readers:
            refuse(f"kind of arm '{arm.name}'", arm.kind, ("a study with [readers]",))
        for names, known, what in (
            (arm.channels, study.channels, "channel"),
            (arm.predictors, study.predictors, "predictor set"),
            (arm.measures, study.measures, "set of measures"),
            (arm.of, seen, "arm"),
        ):
            for name in names:
                if name not in known:
                    refuse(f"{what} of arm '{arm.name}'", name, known)
        if arm.offset and (arm.offset not in seen or study.arms[arm.offset].kind != "logistic"):
            known = [name for name in seen if study.arms[name].kind == "logistic"]
            refuse(f"offset of arm '{arm.name}'", arm.offset, known)
        if arm.teacher and arm.kind not in ("cnn", "mlp"):
            refuse(f"teacher of arm '{arm.name}'", arm.teacher, ("none: only a network has one",))
        taught_by = [name for name in seen if study.arms[name].kind in ("logistic", "boosting")]
        if arm.teacher and arm.teacher not in taught_by:
            refuse(f"teacher of arm '{arm.name}'", arm.teacher, taught_by)
        seen.append(arm.name)


def check_readers(study: Study, refuse: Callable[[str, Any, Any], None]) -> None:
    """Calls `refuse` (what, value, allowed) at the first reader that makes no sense."""
    taken: dict[str, str] = {}
    for reader in study.readers.values():
        if reader.view and reader.view not in study.views:
            refuse(f"view of reader '{reader.name}'", reader.view, study.views)
        own = study.views[reader.view].channels if reader.view else study.channels
        for names, known, what in (
            (reader.channels, own, "channel"),
            (reader.measures, study.measures, "set of measures"),
        ):
            for name in names:
                if name not in known:
                    refuse(f"{what} of reader '{reader.name}'", name, known)
        for column in reader.concepts:
            if column in taken:
                refuse(
                    f"concept of reader '{reader.name}'", column, ("a column of one reader only",)
                )
            taken[column] = reader.name
