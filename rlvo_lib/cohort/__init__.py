"""The patients of a study: label, eligibility flow, split and the cohort tables.

The cohort frame of a run (``cohort.csv``) is the dataset's text table plus the derived label, the
scans that each patient has, ``included`` and ``exclusion``; with ``split.csv`` all cohort tables are
computed from it alone.
"""

from rlvo_lib.cohort.eligibility import (
    assign,
    build,
    exclusions,
    flow,
    included,
    labels,
    outcome_is_known,
    read_frame,
)
from rlvo_lib.cohort.freezing import freeze_split, frozen_files, refuse_embedded_over
from rlvo_lib.cohort.label import (
    label_bounds,
    label_definitions,
    label_overlap,
    label_sources,
)
from rlvo_lib.cohort.rules import criteria, derive_label, meets
from rlvo_lib.cohort.screen import screen_predictors
from rlvo_lib.cohort.split import (
    SPLIT_COLUMNS,
    fold_column,
    make_split,
    read_split,
    split_counts,
    units,
)
from rlvo_lib.cohort.tables import (
    missingness,
    standardised_differences,
    table1,
    table1_values,
)

__all__ = [
    "SPLIT_COLUMNS",
    "assign",
    "build",
    "criteria",
    "derive_label",
    "exclusions",
    "flow",
    "fold_column",
    "freeze_split",
    "frozen_files",
    "included",
    "label_bounds",
    "label_definitions",
    "label_overlap",
    "label_sources",
    "labels",
    "make_split",
    "meets",
    "missingness",
    "outcome_is_known",
    "read_frame",
    "read_split",
    "refuse_embedded_over",
    "screen_predictors",
    "split_counts",
    "standardised_differences",
    "table1",
    "table1_values",
    "units",
]
