"""Does the prediction move as an explanation says: deletion and insertion curves against random orders.

Boxes of the head (`similarity.head_boxes`) are put into the order of their attribution, highest first. Deletion replaces them one after
the other by the training patients' mean image; insertion puts them into the mean image. What a map says
speaks for the outcome must lower the logit when it is deleted, and raise it when it is inserted, sooner than
boxes in random order do (Petsiuk et al., BMVC 2018). All on the logit; clinical variables stay the patient's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.similarity import box_means

#: Shares of the head's boxes that are deleted or inserted; symmetric, so that random orders serve both.
FRACTIONS = (0.02, 0.05, 0.1, 0.3, 0.7, 0.9, 0.95, 0.98)
RANDOM_ORDERS = 4
#: Images that are made together, at most: more leave the processor's cache.
TOGETHER = 16
CURVE_COLUMNS = ["participant_id", "method", "check", "part", "value", "reference"]


def box_order(attribution: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The boxes from the highest mean attribution to the lowest; those alike in random order."""
    mean = box_means(attribution[None], boxes)[0]
    shuffled = rng.permutation(len(mean))
    return shuffled[np.argsort(-mean[shuffled], kind="stable")]


def faithfulness_curves(
    model: FusedModel,
    participant: str,
    maps: Mapping[str, np.ndarray],
    boxes: np.ndarray,
    *,
    seed: int,
) -> pd.DataFrame:
    """Deletion and insertion curves of one patient for each method's map (D, H, W).

    Returns
    -------
    DataFrame with `CURVE_COLUMNS`: ``check`` (deletion, insertion), ``part`` (the share of boxes as text, "5%"),
    ``value`` (the logit's change from the whole image, or from the mean image) and ``reference`` (the same of
    random orders, their mean).
    """
    rng = np.random.default_rng([seed, *participant.encode()])
    n = int(boxes.max()) + 1
    counts = [round(f * n) for f in FRACTIONS]
    random = [rng.permutation(n) for _ in range(RANDOM_ORDERS)]
    orders = {name: box_order(array, boxes, rng) for name, array in maps.items()}
    kept = [order[k:] for order in random for k in counts]
    kept += [part for order in orders.values() for k in counts for part in (order[k:], order[:k])]
    whole, empty = np.arange(n), np.arange(0)
    logits = _logits_of(model, participant, [whole, empty, *kept], boxes)
    at_all, at_none, logits = logits[0], logits[1], logits[2:]
    steps = len(counts)
    chance = logits[: RANDOM_ORDERS * steps].reshape(RANDOM_ORDERS, steps).mean(axis=0)
    own = logits[RANDOM_ORDERS * steps :].reshape(len(orders), steps, 2)
    rows = []
    for number, method in enumerate(orders):
        for step, fraction in enumerate(FRACTIONS):
            part = f"{fraction:.0%}"
            deleted = (own[number, step, 0] - at_all, chance[step] - at_all)
            inserted = (own[number, step, 1] - at_none, chance[steps - 1 - step] - at_none)
            rows.append((participant, method, "deletion", part, *deleted))
            rows.append((participant, method, "insertion", part, *inserted))
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def _logits_of(
    model: FusedModel, participant: str, kept: list[np.ndarray], boxes: np.ndarray
) -> np.ndarray:
    """The logits of images of which some boxes are the patient's own and the rest are the mean image.

    What is no box stays the patient's own; a channel that is absent stays absent.
    """
    image, tabular = model.images([participant]), model.tabular([participant])
    absent = image.isnan()
    base = torch.where(absent, image, model.mean_image.to(image.dtype))
    place = torch.as_tensor(boxes, device=image.device)
    found, size = [], min(model.batch, TOGETHER)
    for start in range(0, len(kept), size):
        part = kept[start : start + size]
        own = torch.zeros(len(part), int(boxes.max()) + 2, dtype=torch.bool)
        own[:, -1] = True  # what is no box
        for row, chosen in enumerate(part):
            own[row, torch.as_tensor(chosen)] = True
        mask = own.to(image.device)[:, place][:, None]
        found.append(model.logits(model.placed(torch.where(mask, image, base)), tabular))
    return np.concatenate(found)
