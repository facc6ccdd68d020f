"""Discrimination, calibration, uncertainty and comparison of predictions; arrays in, numbers out.

Conventions
-----------
- ``y_true`` is ``(n,)`` with 1 for an event and 0 otherwise (booleans are taken as 1 and 0). Both
  classes must be present. ``score`` is ``(n,)`` and finite; higher means more likely an event. The
  direction is never detected from the data: a score that ranks backwards has an AUC below 0.5.
- A patient is flagged where ``score >= threshold``. Tied scores count one half in the AUC.
- F1, sensitivity and PPV are those of the event class.
- What cannot be estimated is NaN, with the reason in the result; what cannot be used raises
  `InputError` and says what is wrong.
- Intervals are two-sided, over patients.

References
----------
DeLong et al., Biometrics 1988; Sun and Xu, IEEE Signal Process. Lett. 2014 (the mid-rank form);
Hanley and McNeil, Radiology 1982; McClish, Med. Decis. Making 1989 (partial AUC);
Nadeau and Bengio, Mach. Learn. 2003 (corrected resampled t test);
Wilson, JASA 1927; Holm, Scand. J. Stat. 1979;
Cox, Biometrika 1958 (calibration); Van Calster et al., Lancet Digit. Health 2025 (what to report).
"""

from rlvo_lib.metrics.balance import SMD_KINDS, smd
from rlvo_lib.metrics.classification import (
    THRESHOLD_RULES,
    OperatingPoint,
    clopper_pearson,
    coin_f1,
    f1_score,
    flag_everyone_f1,
    operating_point,
    threshold_by,
    wilson,
)
from rlvo_lib.metrics.comparison import (
    AucDifference,
    CorrectedResampledTest,
    compare_auc,
    contrast_auc,
    holm,
    nadeau_bengio,
)
from rlvo_lib.metrics.curves import (
    precision_recall_band,
    precision_recall_curve,
    roc_band,
    roc_curve,
)
from rlvo_lib.metrics.discordance import OperatingPointComparison, compare_operating_points
from rlvo_lib.metrics.discrimination import (
    auc,
    auc_ci,
    auc_interval,
    average_precision,
    delong_covariance,
    hanley_mcneil_se,
    partial_auc,
)
from rlvo_lib.metrics.extrapolation import PowerLaw, fit_power_law
from rlvo_lib.metrics.reliability import Calibration, brier_loss, calibration, scaled_brier
from rlvo_lib.metrics.resampling import (
    STATISTICS,
    Interval,
    bootstrap_ci,
    bootstrap_many,
    bootstrap_replicates,
)
from rlvo_lib.metrics.sample_size import (
    DevelopmentSize,
    F1Spread,
    ValidationSize,
    auc_power,
    auc_se,
    auc_width,
    expected_shrinkage,
    f1_spread,
    feasible_counts,
    n_for_auc_difference,
    n_for_auc_width,
    parameters_supported,
    precision_plan,
    r2_cox_snell,
    r2_max,
    riley_development,
    riley_validation,
)
from rlvo_lib.metrics.smoothing import SMOOTHERS, calibration_curve
from rlvo_lib.metrics.utility import net_benefit
from rlvo_lib.metrics.within import auc_within, bootstrap_within

__all__ = [
    "SMD_KINDS",
    "SMOOTHERS",
    "STATISTICS",
    "THRESHOLD_RULES",
    "AucDifference",
    "Calibration",
    "CorrectedResampledTest",
    "Interval",
    "OperatingPoint",
    "OperatingPointComparison",
    "PowerLaw",
    "DevelopmentSize",
    "F1Spread",
    "ValidationSize",
    "auc",
    "auc_ci",
    "auc_interval",
    "auc_power",
    "auc_se",
    "auc_width",
    "auc_within",
    "average_precision",
    "bootstrap_ci",
    "bootstrap_many",
    "bootstrap_replicates",
    "bootstrap_within",
    "brier_loss",
    "calibration",
    "calibration_curve",
    "clopper_pearson",
    "coin_f1",
    "compare_auc",
    "compare_operating_points",
    "contrast_auc",
    "delong_covariance",
    "expected_shrinkage",
    "f1_score",
    "f1_spread",
    "feasible_counts",
    "fit_power_law",
    "flag_everyone_f1",
    "hanley_mcneil_se",
    "holm",
    "nadeau_bengio",
    "net_benefit",
    "operating_point",
    "partial_auc",
    "precision_recall_band",
    "precision_recall_curve",
    "roc_band",
    "roc_curve",
    "n_for_auc_difference",
    "n_for_auc_width",
    "parameters_supported",
    "precision_plan",
    "r2_cox_snell",
    "r2_max",
    "riley_development",
    "riley_validation",
    "scaled_brier",
    "smd",
    "threshold_by",
    "wilson",
]
