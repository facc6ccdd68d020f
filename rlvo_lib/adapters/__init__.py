"""Published datasets that come in a form of their own, made into dataset folders: one module each.

`soop`: the Stroke Outcome Optimization Project (lesion masks in standard space, and a clinical table);
`lesions` measures its lesions by arterial territory.
`isles24`: the ISLES'24 challenge (acute CT and perfusion maps); `phenotype` reads its clinical tables.
"""

from rlvo_lib.adapters import isles24, soop

__all__ = ["isles24", "soop"]
