"""Quality control: what a person should look at, in words, and pictures of one patient to look at.

Flags never exclude: a person looks, and lists who or what is to be left out, with the reason, in the
dataset's ``exclusions.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlvo_lib.preprocess.task import Task
from rlvo_lib.registration import MOTION_MM

if TYPE_CHECKING:
    import pandas as pd

MIN_COVERAGE = 0.3
MIN_VESSELS_ML = 1.0
OUTLIER_SDS = 4.0
"""A registration is an outlier so many robust SDs (1.4826 x MAD) on the bad side of the cohort's median."""

LEAST_SPREAD = 0.25
"""Of the median: where all fit alike, an outlier still has twice its cost."""

LEAST_PATIENTS = 20
"""For outliers; fewer patients say nothing of what is usual."""


def flags(task: Task, qc: dict[str, Any]) -> list[str]:
    """What a person should look at in one patient, in words."""
    words = []
    if task.side is None and task.flip_to_side != "none":
        words.append("affected side unknown: not flipped")
    for name in task.channels:
        if qc.get(f"coverage_{name}", 1.0) < MIN_COVERAGE:
            words.append(f"{name} covers only {qc[f'coverage_{name}']:.0%} of the grid")
    if qc.get("vessel_volume_ml", MIN_VESSELS_ML) < MIN_VESSELS_ML:
        words.append(f"few vessels found ({qc['vessel_volume_ml']:.2f} mL)")
    for scan in ("ncct", "cta"):
        step = qc.get(f"motion_{scan}_mm", 0.0)
        if step >= MOTION_MM:
            words.append(
                f"the outline in the {scan} steps by {step:.1f} mm between slices: motion?"
            )
    if qc.get("tmax_side") in ("left", "right") and task.side not in (None, qc["tmax_side"]):
        words.append(f"delayed flow is on the {qc['tmax_side']}, recorded side is {task.side}")
    return words


def cohort_flags(table: pd.DataFrame) -> dict[str, list[str]]:
    """What stands out only beside the other patients: registrations that fit much worse than most.

    `table` is the cache's (index participant_id). A patient gets a flag where the cost of the
    registration to the template, or of the CTA to the NCCT, lies over `OUTLIER_SDS` robust SDs above
    the median. Costs on the template are compared among patients whose heads were found in the same
    kind of scan and laid on it in the same way (columns ``head_scan``, ``alignment``, where there are
    such): those of a CTA, or of a pose that was not fitted, are larger without being worse than usual.

    >>> import numpy as np
    >>> import pandas as pd
    >>> costs = pd.DataFrame({"registration_cost": [*np.linspace(0.1, 0.2, 30), 0.9]})
    >>> cohort_flags(costs)
    {30: ['head fits the template worse than in the other patients (cost 0.900, median 0.152)']}
    """
    words = {
        "registration_cost": "head fits the template worse than in the other patients",
        "cta_cost": "CTA fits the NCCT worse than in the other patients",
    }
    found: dict[str, list[str]] = {}
    for column, what in words.items():
        if column not in table:
            continue
        alike = [c for c in ("head_scan", "alignment") if c in table and column != "cta_cost"]
        groups = table.groupby(alike)[column] if alike else [("", table[column])]
        for _, costs in groups:
            for participant, cost, middle in _outliers(costs.dropna()):
                found.setdefault(participant, []).append(
                    f"{what} (cost {cost:.3f}, median {middle:.3f})"
                )
    return found


def _outliers(costs: pd.Series) -> Iterator[tuple[Any, float, float]]:
    """Who of a group lies far above its median, with the cost and the median; nobody in a small group."""
    if len(costs) < LEAST_PATIENTS:
        return
    middle = float(costs.median())
    spread = 1.4826 * float((costs - middle).abs().median())
    limit = middle + OUTLIER_SDS * max(spread, LEAST_SPREAD * middle)
    for participant, cost in costs[costs > limit].items():
        yield participant, float(cost), middle
