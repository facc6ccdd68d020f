"""One plain training loop, for networks of images, of tabular data and of both.

Loss: binary cross-entropy of the logit, unweighted by default, so that probabilities keep their
meaning; the head starts at the training log-odds. AdamW with warm-up and cosine decay; training stops
when the loss on the inner validation part has not improved for some epochs, and the best epoch's
weights are kept.

`cases` what goes in, `batches` how it reaches the device, `losses`, `loop`, `devices`, `checkpoints`.
"""

from rlvo_lib.training.batches import Batches
from rlvo_lib.training.cases import Cases, image_scale
from rlvo_lib.training.checkpoints import load_model, save_model
from rlvo_lib.training.devices import pick_device, seed_everything
from rlvo_lib.training.loop import fit, predict_logit, predict_outputs
from rlvo_lib.training.losses import log_loss

__all__ = [
    "Batches", "Cases", "fit", "image_scale", "load_model", "log_loss", "pick_device", "predict_logit",
    "predict_outputs",    "save_model", "seed_everything",
]  # fmt: skip
