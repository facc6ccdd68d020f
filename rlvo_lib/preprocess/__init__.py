"""From a patient's files to one model-ready tensor, kept on disk and found again.

Conventions
-----------
* Scans share one world: mm, RAS+ (+x right, +y anterior, +z superior).
* The **head frame** is rigid: origin in the mid-sagittal plane, midway along the head front to
  back, at the vertex; axes right, anterior, superior of the head. A study whose scans already lie
  in a standard space (``space = "template"``) needs none: its grid stands still in that space.
* The **tensor** is (C, D, H, W) float16, windowed to 0..1; D, H, W run along the frame's x, y, z.
  `tensor_affine` maps its voxel indices to world mm and contains the flip to the common side, so a
  map on the tensor grid saved with it lies right on the patient's own scans.
* Outside a scan's field of view a channel holds 0 (the low end of its window), and the covered
  fraction is recorded. A channel without a scan is absent, never zero.
"""

from rlvo_lib.preprocess.cache import TensorCache, TensorStack, prepare
from rlvo_lib.preprocess.grid import tensor_affine
from rlvo_lib.preprocess.pictures import Picture, pictures
from rlvo_lib.preprocess.task import Task
from rlvo_lib.preprocess.tensor import patient_tensor

__all__ = [
    "Picture",
    "Task",
    "TensorCache",
    "TensorStack",
    "patient_tensor",
    "pictures",
    "prepare",
    "tensor_affine",
]
