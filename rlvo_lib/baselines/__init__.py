"""Baselines that are hard to beat, tuned inside the training part, and ways to combine models.

Every fitted model has ``logit(x) -> (N,)`` and ``predict_proba(x) -> (N, 2)``; y is (N,) with 0 and 1.
What is tuned is tuned by cross-validation of the patients given: folds are stratified by outcome, and
patients of one group (``groups``) stay together. Where there are fewer events than folds, there are fewer
folds; where two are not possible, nothing is tuned and the default is taken.

The grids and rules were chosen on simulated cohorts of the study's size (360 patients, 57 or 58 events, scored on
12,000 others), none of which is used elsewhere.
"""

from rlvo_lib.baselines.boosting import Boosted, fit_boosting
from rlvo_lib.baselines.fitting import Predictor, cross_fitted_logit, fit_baseline
from rlvo_lib.baselines.logistic import Linear, Recalibration, fit_logistic, recalibration
from rlvo_lib.baselines.stacking import Stack
from rlvo_lib.baselines.tuning import inner_folds
from rlvo_lib.baselines.voxels import VoxelRidge, fit_ridge_voxels

__all__ = [
    "Boosted", "Linear", "Predictor", "Recalibration", "Stack", "VoxelRidge", "cross_fitted_logit",
    "fit_baseline", "fit_boosting", "fit_logistic", "fit_ridge_voxels", "inner_folds", "recalibration",
]  # fmt: skip
