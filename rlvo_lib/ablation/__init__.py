"""Ablations of one arm as a grid of variants, and learning curves, scored on out-of-fold predictions only.

A variant changes one thing: the modalities that the arm sees, its fusion, where the fusion acts, the grid
of its images, or how many patients it learns from. Before anything is planned the test patients are taken
out of cohort and split (`without_test`): no variant is chosen by them, since none ever predicts them.
Variants are compared with the unchanged arm on the same patients. The intervals are over patients (DeLong,
of pooled out-of-fold predictions); they leave out what another training seed would change.

`variants` what is changed, `thinning` who is learnt from, `running` the tasks, `scoring` the table.
"""

from rlvo_lib.ablation.running import Planned, plan, predictions, run, train
from rlvo_lib.ablation.scoring import score, table
from rlvo_lib.ablation.thinning import Thinned, thinned, without_test
from rlvo_lib.ablation.variants import BASE, CURVES, GROUPS, SHARES, Variant, grid

__all__ = [
    "BASE", "CURVES", "GROUPS", "SHARES", "Planned", "Thinned", "Variant", "grid", "plan", "predictions",
    "run", "score", "table", "thinned", "train", "without_test",
]  # fmt: skip
