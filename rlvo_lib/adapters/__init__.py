"""Published datasets that come in a form of their own, made into dataset folders: one module each.

`soop`: the Stroke Outcome Optimization Project (lesion masks in standard space, and a clinical table);
`atlas` measures its lesions by arterial territory.
"""

from rlvo_lib.adapters import soop

__all__ = ["soop"]
