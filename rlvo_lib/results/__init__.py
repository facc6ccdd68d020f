"""The result tables: tidy frames in, a tidy frame out; nothing is read, written, drawn or trained.

`verify` calls the same functions on the files of a run folder, so that every reported number can be
recomputed. Every table has a column ``data``: ``simulated`` or ``real``.

Two uncertainties are kept apart and never mixed:

- ``sd``: the spread over the fold models of one training seed, scored on the same test patients (the
  ± of the paper). It says how much retraining matters, nothing about new patients.
- ``low`` to ``high``: the 95 % confidence interval over patients of the fold ensemble, whose
  probability is the mean of the fold models' probabilities. AUC: DeLong; sensitivity, specificity,
  PPV and NPV: Wilson; F1, average precision and the Brier scores, which depend on prevalence: a
  bootstrap that draws patients whatever their outcome (not stratified), so that the number of events
  varies too. Resamples with one class only are dropped and counted in ``interval_method``.

Several training seeds are averaged: the mean of the seeds' values, the root mean square of the
seeds' SDs, and the interval of the average of the seeds' ensembles (each seed has its own ensemble
and threshold, on the same patients). ``sd_seeds`` is the SD of the ensemble's value over the seeds: how
much another start of training changes, a third thing that is mixed with neither.

Beside every estimate stands ``no_skill``: what no skill at all would give. F1, wherever it stands, is
that of the event class. Curves, decision curves and subgroups are made for `main_arms` alone.

In a design without a test set, the out-of-fold predictions take its place: ``mean`` and ``sd`` are
then over the held-out folds, and the "ensemble" is the pooled out-of-fold estimate.

Of simulated patients the best AUC that can be reached is known: `ceiling_table` sets each arm against
it. It describes the simulator, never patients.
"""

from rlvo_lib.results.attribution import (
    permutation_importance,
    shap_agreement,
    shap_groups,
    shap_importance,
    shap_means,
)
from rlvo_lib.results.ceiling import ceiling_of, ceiling_table, check_ceiling, share_of
from rlvo_lib.results.cells import table_cells
from rlvo_lib.results.checks import (
    CHECKS,
    DATED,
    check_labels,
    check_matrix,
    explanation_checks,
    joined_checks,
    usable_methods,
)
from rlvo_lib.results.claims import claims
from rlvo_lib.results.comparisons import comparisons, comparisons_flagged, comparisons_folds
from rlvo_lib.results.consistency import consistency
from rlvo_lib.results.counterfactuals import counterfactual_changes, counterfactual_table
from rlvo_lib.results.curves import pr_band, pr_points, roc_band, roc_points
from rlvo_lib.results.evaluation import evaluate
from rlvo_lib.results.growth import (
    LEAST_SIZES,
    extrapolation,
    extrapolation_side_by_side,
    learning_bands,
    learning_pairs,
    learning_points,
)
from rlvo_lib.results.modalities import (
    modality_coalitions,
    modality_interactions,
    modality_shares,
    modality_values,
)
from rlvo_lib.results.modulation import modulation_channels, modulation_summary
from rlvo_lib.results.paper import best_arm, paper_table
from rlvo_lib.results.performance import no_skill, out_of_fold, performance
from rlvo_lib.results.planning import development_size, feasible_points, precision
from rlvo_lib.results.predictions import (
    averaged_repetitions,
    check_predictions,
    choose_thresholds,
    ensembles,
    main_arms,
    patient_risk,
    reported_partition,
)
from rlvo_lib.results.probabilities import (
    calibration_curve,
    calibration_points,
    calibration_table,
    risk_distribution,
)
from rlvo_lib.results.reads import (
    concept_agreement,
    reads_importance,
    reads_of_patients,
    what_if_effects,
    what_if_of_patients,
)
from rlvo_lib.results.regions import region_claims, region_enrichment
from rlvo_lib.results.subgroups import subgroups
from rlvo_lib.results.territories import (
    common_size,
    territory_agreement,
    territory_risk,
    territory_sides,
)
from rlvo_lib.results.uncertainty import METRICS
from rlvo_lib.results.utility import DECISION_THRESHOLDS, decision_curve, operating_points

__all__ = [
    "CHECKS",
    "DATED",
    "DECISION_THRESHOLDS",
    "LEAST_SIZES",
    "METRICS",
    "best_arm",
    "calibration_curve",
    "calibration_points",
    "calibration_table",
    "ceiling_of",
    "ceiling_table",
    "check_ceiling",
    "check_labels",
    "check_matrix",
    "check_predictions",
    "choose_thresholds",
    "claims",
    "common_size",
    "comparisons",
    "comparisons_flagged",
    "comparisons_folds",
    "concept_agreement",
    "consistency",
    "counterfactual_changes",
    "counterfactual_table",
    "decision_curve",
    "development_size",
    "averaged_repetitions",
    "ensembles",
    "evaluate",
    "explanation_checks",
    "extrapolation",
    "extrapolation_side_by_side",
    "feasible_points",
    "joined_checks",
    "learning_bands",
    "learning_pairs",
    "learning_points",
    "main_arms",
    "modality_coalitions",
    "modality_interactions",
    "modality_shares",
    "modality_values",
    "modulation_channels",
    "modulation_summary",
    "no_skill",
    "operating_points",
    "out_of_fold",
    "paper_table",
    "patient_risk",
    "performance",
    "permutation_importance",
    "pr_band",
    "pr_points",
    "precision",
    "reads_importance",
    "reads_of_patients",
    "region_claims",
    "region_enrichment",
    "reported_partition",
    "risk_distribution",
    "roc_band",
    "roc_points",
    "shap_agreement",
    "shap_groups",
    "shap_importance",
    "shap_means",
    "share_of",
    "subgroups",
    "table_cells",
    "territory_agreement",
    "territory_risk",
    "territory_sides",
    "usable_methods",
    "what_if_effects",
    "what_if_of_patients",
]
