"""What drove a prediction, with evidence that the explanation can be believed.

`model` is a fold's network as a function of image and clinical variables (`tables` a model of the table alone),
`patients` who is explained, `keeping` where finished explanations lie.

Clinical variables: `players` what enters as one, `variables` SHAP values, `importance` permutation importance,
`reads` what arms of concepts say of themselves. Modalities: `modalities` the logit of every coalition,
`modulation` what clinical variables switch inside a network. Images: `attribution` the methods, `maps` a
patient's own scan and group means, `regions` and `atlas` where attribution falls, `territories` what a virtual lesion
(`lesions`) in each territory of a dataset's atlas does. Whether it can be believed:
`checks` with `randomisation`, `faithfulness`, `similarity`, `stability`; `counterfactuals` and `risk` render simulated
patients again with one thing changed.
"""

from rlvo_lib.explain.attribution import METHODS, Method, attribute, attribute_channels, is_flat
from rlvo_lib.explain.checks import (
    checks_of_folds,
    head_of,
    label_rows,
    learnt_rows,
    lesion_rows,
    null_rows,
    seed_rows,
)
from rlvo_lib.explain.counterfactuals import (
    CHANGES,
    COUNTERFACTUAL_COLUMNS,
    changed_tensor,
    changes_of,
    counterfactuals_of_folds,
    not_simulated,
)
from rlvo_lib.explain.importance import (
    PERMUTED_COLUMNS,
    permuted,
    permuted_caption,
    permuted_logits,
)
from rlvo_lib.explain.maps import (
    Maps,
    fold_maps,
    group_means,
    groups,
    maps_of_folds,
    save_map,
    template_affine,
    template_picture,
    window_of,
    write_group_maps,
    write_maps,
)
from rlvo_lib.explain.modalities import (
    MODALITY_COLUMNS,
    modality_caption,
    modality_labels,
    modality_logits,
)
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.modulation import MODULATION_COLUMNS, modulation_effects, modulation_reason
from rlvo_lib.explain.patients import background, chosen, unseen
from rlvo_lib.explain.players import PLAYER_COLUMNS, Player, described, players_of, players_table
from rlvo_lib.explain.randomisation import PermutedLabels
from rlvo_lib.explain.reads import READ_COLUMNS, WHAT_IF_COLUMNS, concept_reads
from rlvo_lib.explain.regions import region_shares, regions_of, truth
from rlvo_lib.explain.tables import TableModel, table_only
from rlvo_lib.explain.territories import (
    TERRITORY_COLUMNS,
    territories_reason,
    territory_caption,
    territory_logits,
    territory_teaching,
)
from rlvo_lib.explain.variables import (
    SHAP_COLUMNS,
    model_of,
    shap_caption,
    shap_of_folds,
    shap_values,
    shapley_values,
)

__all__ = [
    "CHANGES",
    "COUNTERFACTUAL_COLUMNS",
    "FusedModel",
    "METHODS",
    "MODALITY_COLUMNS",
    "MODULATION_COLUMNS",
    "Maps",
    "Method",
    "PERMUTED_COLUMNS",
    "PLAYER_COLUMNS",
    "PermutedLabels",
    "Player",
    "READ_COLUMNS",
    "SHAP_COLUMNS",
    "TERRITORY_COLUMNS",
    "TableModel",
    "WHAT_IF_COLUMNS",
    "attribute",
    "attribute_channels",
    "background",
    "changed_tensor",
    "changes_of",
    "checks_of_folds",
    "chosen",
    "concept_reads",
    "counterfactuals_of_folds",
    "described",
    "fold_maps",
    "group_means",
    "groups",
    "head_of",
    "is_flat",
    "label_rows",
    "learnt_rows",
    "lesion_rows",
    "maps_of_folds",
    "modality_caption",
    "modality_labels",
    "modality_logits",
    "model_of",
    "modulation_effects",
    "modulation_reason",
    "not_simulated",
    "null_rows",
    "permuted",
    "permuted_caption",
    "permuted_logits",
    "players_of",
    "players_table",
    "region_shares",
    "regions_of",
    "save_map",
    "seed_rows",
    "shap_caption",
    "shap_of_folds",
    "shap_values",
    "shapley_values",
    "table_only",
    "template_affine",
    "template_picture",
    "territories_reason",
    "territory_caption",
    "territory_logits",
    "territory_teaching",
    "truth",
    "unseen",
    "window_of",
    "write_group_maps",
    "write_maps",
]
