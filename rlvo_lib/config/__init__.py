"""Settings of a run and the study file.

`Settings` is the one object that says how a run is made; `Study` (``studies/<name>/study.toml``)
says what is studied. Both are frozen. Units stand in the names: ``_mm``, ``_s``, ``_min``.
"""

from rlvo_lib.config.arms import ARM_KINDS, ENCODERS, FUSIONS, POOLINGS, Arm, Reader
from rlvo_lib.config.errors import InputError
from rlvo_lib.config.imaging import DERIVATIVES, PERFUSION_PARAMETERS, Channel, Grid, Scan, View
from rlvo_lib.config.settings import (
    PROFILES,
    SCENARIOS,
    Settings,
    available_workers,
    load_settings,
)
from rlvo_lib.config.study import (
    MAIN,
    Consistency,
    Definition,
    Rule,
    Study,
    load_study,
    project_root,
    read_study,
)
from rlvo_lib.config.subgroups import Subgroup

__all__ = [
    "ARM_KINDS",
    "DERIVATIVES",
    "ENCODERS",
    "FUSIONS",
    "POOLINGS",
    "MAIN",
    "PERFUSION_PARAMETERS",
    "PROFILES",
    "SCENARIOS",
    "Arm",
    "Channel",
    "Consistency",
    "Definition",
    "Grid",
    "InputError",
    "Reader",
    "Rule",
    "Scan",
    "Settings",
    "Study",
    "Subgroup",
    "View",
    "available_workers",
    "load_settings",
    "load_study",
    "project_root",
    "read_study",
]
