"""Figures from tidy tables: each function takes a table, returns a Figure and computes nothing.

Figures are plain `matplotlib.figure.Figure` objects: no global state of pyplot is touched, and a
notebook shows one that ends a cell. Colours are Okabe and Ito's, told apart by the colour-blind;
line styles and markers repeat what colour says. `stamp` marks a figure as made from simulated data.
"""

from rlvo_lib.figures.calibration import calibration_plot
from rlvo_lib.figures.cases import place_in_distribution
from rlvo_lib.figures.checks import cascade_bars, check_table, deletion_curves
from rlvo_lib.figures.cohort import flow_diagram, label_overlap_bars, missingness_bars
from rlvo_lib.figures.counterfactuals import counterfactual_scatter
from rlvo_lib.figures.curves import decision_curves, precision_recall_curves, roc_curves
from rlvo_lib.figures.learning import ablation_forest, learning_curve, learning_curve_extrapolated
from rlvo_lib.figures.modalities import coalition_forest, modality_bars, modality_waterfall
from rlvo_lib.figures.modulation import modulation_bars, modulation_heatmap
from rlvo_lib.figures.mosaic import qc_mosaic
from rlvo_lib.figures.overlay import group_maps, overlay
from rlvo_lib.figures.palette import png
from rlvo_lib.figures.performance import (
    auc_forest,
    ceiling_forest,
    ladder_forest,
    risk_by_outcome,
    training_curves,
)
from rlvo_lib.figures.phantom import phantom_page
from rlvo_lib.figures.planning import auc_width_by_n
from rlvo_lib.figures.reads import (
    concept_agreement_bars,
    reads_bars,
    reads_importance_bars,
    what_if_dots,
)
from rlvo_lib.figures.regions import region_forest
from rlvo_lib.figures.scans import scan_mosaic
from rlvo_lib.figures.style import COLOURS, Figure, canvas, stamp, stamped
from rlvo_lib.figures.subgroups import subgroup_forest
from rlvo_lib.figures.territories import territory_forest, territory_scatter
from rlvo_lib.figures.variables import (
    agreement_heatmap,
    permutation_bars,
    shap_bars,
    shap_beeswarm,
    shap_dependence,
    shap_waterfall,
)

__all__ = [
    "COLOURS",
    "Figure",
    "ablation_forest",
    "agreement_heatmap",
    "auc_forest",
    "auc_width_by_n",
    "calibration_plot",
    "canvas",
    "cascade_bars",
    "ceiling_forest",
    "check_table",
    "coalition_forest",
    "contribution_bars",
    "counterfactual_scatter",
    "concept_agreement_bars",
    "decision_curves",
    "deletion_curves",
    "flow_diagram",
    "group_maps",
    "label_overlap_bars",
    "ladder_forest",
    "learning_curve",
    "learning_curve_extrapolated",
    "missingness_bars",
    "modality_bars",
    "modality_waterfall",
    "modulation_bars",
    "modulation_heatmap",
    "overlay",
    "permutation_bars",
    "phantom_page",
    "place_in_distribution",
    "png",
    "precision_recall_curves",
    "qc_mosaic",
    "reads_bars",
    "reads_importance_bars",
    "region_forest",
    "risk_by_outcome",
    "roc_curves",
    "scan_mosaic",
    "shap_bars",
    "shap_beeswarm",
    "shap_dependence",
    "shap_waterfall",
    "stamp",
    "stamped",
    "subgroup_forest",
    "training_curves",
    "territory_forest",
    "territory_scatter",
    "what_if_dots",
]
