"""The measurements behind the table of methods and checks: can an explanation be believed?

Each function gives tidy rows with `CHECK_COLUMNS`, of which `results.explanation_checks` makes the table.
`checks_of_folds` has all that needs no retraining; `retraining` has what is of networks trained for the purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from rlvo_lib import workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.explain import patients, similarity, stability
from rlvo_lib.explain.attribution import METHODS, attribute
from rlvo_lib.explain.faithfulness import faithfulness_curves
from rlvo_lib.explain.keeping import kept_table
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.randomisation import cascade, randomised
from rlvo_lib.preprocess import TensorCache

CHECK_COLUMNS = [
    "participant_id", "arm", "method", "check", "measure", "part", "seed", "fold", "value", "reference",
]  # fmt: skip
#: The steps of the cascade before the last are for the figure: made in every so many patients.
EVERY = 3
#: Digits that are kept: the file stays small, and no check depends on more.
DIGITS = 5
#: The maps (N, D, H, W) of each method, and the mask (D, H, W) of what the images show.
Maps = tuple[dict[str, np.ndarray], np.ndarray]
#: Masks (D, H, W) of a simulated patient's true lesion on the tensor grid, by name.
Truth = Callable[[Analysis, TensorCache, str], Mapping[str, np.ndarray]]


def checks_of_folds(
    analysis: Analysis,
    cache: TensorCache,
    tasks: Sequence[Task],
    methods: Sequence[str] = (),
    *,
    truth: Truth | None = None,
) -> pd.DataFrame:
    """Every check that needs no retraining, of the fold models of one arm and seed.

    The costly ones (randomised weights, a shift by a voxel, deletion and insertion) are made in the
    explained patients dealt out among the fold models that did not see them, so that each model is
    checked; stability over folds, pointing and enrichment in all of them with every such model.

    Parameters
    ----------
    methods
        Names of `attribution.METHODS`; empty: all, the controls included.
    truth
        Where the true lesion lies, on a simulated dataset (`regions.truth`); None: those checks are not made.

    Returns
    -------
    DataFrame with `CHECK_COLUMNS`; ``value`` and ``reference`` as `results.CHECKS` says.

    Raises
    ------
    InputError
        For tasks of several arms or seeds, an arm without images, or an unknown method.
    """
    methods = known_methods(methods)
    one = {(task.arm.name, task.seed) for task in tasks}
    if len(one) != 1:
        raise InputError(
            f"checks of folds got tasks of {len(one)} arms and seeds; allowed: the folds of one"
        )
    depends_on = [
        [task.folder.name for task in tasks], methods, truth is not None,
        analysis.settings.subset("explained_patients", "shap_background", "seed"),
    ]  # fmt: skip
    name = f"checks-{tasks[0].arm.name}"
    return kept_table(
        analysis,
        name,
        depends_on,
        lambda: _made(analysis, cache, list(tasks), methods, truth),
    )


def known_methods(methods: Sequence[str]) -> list[str]:
    for name in methods:
        if name not in METHODS:
            raise InputError(f"method '{name}' is not known; allowed: {', '.join(METHODS)}")
    return list(methods) or list(METHODS)


def _made(
    analysis: Analysis,
    cache: TensorCache,
    tasks: list[Task],
    methods: list[str],
    truth: Truth | None,
) -> pd.DataFrame:
    wanted = analysis.settings.explained_patients
    explained = [patients.chosen(analysis, cache, task, wanted) for task in tasks]
    shared = all(chosen == explained[0] for chosen in explained)
    own = [ids[k :: len(tasks)] if shared else ids for k, ids in enumerate(explained)]
    calls = [
        (analysis, cache, task, ids, part, methods)
        for task, ids, part in zip(tasks, explained, own, strict=True)
    ]
    found = workers.run(
        fold_checks, calls, workers=analysis.settings.workers, label="checks of explanations: folds"
    )
    tables = [rows for rows, _ in found]
    all_maps = [maps for _, maps in found]
    if shared and len(tasks) > 1:
        about = (tasks[0].arm.name, tasks[0].seed)
        tables.append(agreement_rows("stability_folds", explained[0], all_maps, about))
    if truth is not None:
        groups = [(ids, [maps]) for ids, maps in zip(explained, all_maps, strict=True)]
        for ids, maps in [(explained[0], all_maps)] if shared else groups:
            tables.append(truth_rows(analysis, cache, ids, maps, truth, tasks[0]))
    return rounded(pd.concat(tables, ignore_index=True))


def rounded(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with numbers of so many digits, in the order of `CHECK_COLUMNS`."""
    digits = {
        name: rows[name].map(lambda v: float(f"{v:.{DIGITS}g}")) for name in ("value", "reference")
    }
    return rows.assign(**digits)[CHECK_COLUMNS]


# --------------------------------------------------------------------------------- one fold model


def fold_checks(
    analysis: Analysis,
    cache: TensorCache,
    task: Task,
    explained: list[str],
    own: list[str],
    methods: list[str],
) -> tuple[pd.DataFrame, Maps]:
    """The costly checks of one fold model in its ``own`` patients, and its maps of all ``explained``."""
    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    model = FusedModel.load(analysis, cache, task)
    maps, head = model_maps(model, explained, methods)
    places = [explained.index(p) for p in own]
    own_maps = {name: array[places] for name, array in maps.items()}
    tables = [
        _randomised(model, own, own_maps, head),
        _shifted(model, own, own_maps, head),
        _curves(model, own, own_maps, head),
    ]
    rows = pd.concat([t for t in tables if len(t)], ignore_index=True)
    return rows.assign(arm=task.arm.name, seed=task.seed, fold=task.fold), (maps, head)


def model_maps(model: FusedModel, participants: list[str], methods: Sequence[str]) -> Maps:
    """Each method's maps (N, D, H, W) of some patients by a fold model, and its `head_mask`."""
    model.require_images()
    maps = {name: attribute(model, participants, name) for name in methods}
    return maps, similarity.head_mask(model)


def _randomised(
    model: FusedModel, own: list[str], maps: dict[str, np.ndarray], head: np.ndarray
) -> pd.DataFrame:
    """Maps of the network with weights drawn anew down to some depth, beside those of the trained one."""
    parts = [name for name, _ in cascade(model.network)]
    tables = []
    for depth in sorted({1, 2, len(parts)}):
        whole = depth == len(parts)
        places = list(range(0, len(own), 1 if whole else EVERY))
        some = [own[k] for k in places]
        fresh = randomised(model, depth, seed=model.analysis.settings.seed)
        others = {name: attribute(fresh, some, name) for name in maps}
        same = {name: array[places] for name, array in maps.items()}
        part = "all" if whole else parts[depth - 1]
        tables.append(likeness_rows("model_randomisation", part, some, same, others, head))
    return pd.concat(tables, ignore_index=True)


def _shifted(
    model: FusedModel, own: list[str], maps: dict[str, np.ndarray], head: np.ndarray
) -> pd.DataFrame:
    """Maps of the image moved by a voxel and moved back, beside those of the image as it lies."""
    moves = stability.drawn_moves(own, model.analysis.settings.seed)
    images = torch.cat(
        [stability.moved(model.images([p]), move) for p, move in zip(own, moves, strict=True)]
    )
    rows = []
    for method, array in maps.items():
        other = torch.as_tensor(attribute(model, own, method, images=model.placed(images)))
        for k, (patient, move) in enumerate(zip(own, moves, strict=True)):
            back = stability.moved(other[k], tuple(-step for step in move)).numpy()
            kept = stability.unaffected(head, move)
            for measure, pair in _at_both_scales([array[k : k + 1], back[None]], kept).items():
                value = similarity.rank_correlation(*pair)[0]
                rows.append(
                    (patient, method, "stability_shifts", measure, "1 voxel", value, np.nan)
                )
    return pd.DataFrame(rows, columns=SHORT_COLUMNS)


def _at_both_scales(maps: list[np.ndarray], head: np.ndarray) -> dict[str, list[np.ndarray]]:
    """What is compared of some maps (N, D, H, W): their means in boxes, and their voxels."""
    boxes = np.where(head, similarity.head_boxes(head), -1)
    boxes = np.unique(boxes, return_inverse=True)[1].reshape(boxes.shape) - int((boxes < 0).any())
    return {
        "boxes": [similarity.box_means(one, boxes) for one in maps],
        "voxels": [similarity.voxels(one, head) for one in maps],
    }


SHORT_COLUMNS = ["participant_id", "method", "check", "measure", "part", "value", "reference"]


def _curves(
    model: FusedModel, own: list[str], maps: dict[str, np.ndarray], head: np.ndarray
) -> pd.DataFrame:
    boxes = similarity.head_boxes(head)
    tables = [
        faithfulness_curves(
            model,
            patient,
            {name: array[k] for name, array in maps.items()},
            boxes,
            seed=model.analysis.settings.seed,
        )
        for k, patient in enumerate(own)
    ]
    return (
        pd.concat(tables, ignore_index=True).assign(measure="logit") if tables else pd.DataFrame()
    )


# ------------------------------------------------------------------------------- maps beside maps


def likeness_rows(
    check: str,
    part: str,
    participants: list[str],
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    head: np.ndarray,
) -> pd.DataFrame:
    """How alike two sets of maps (N, D, H, W) are, by method: rank correlation of the absolute values
    (what the check is judged by), of the maps as they are, and SSIM."""
    rows = []
    for method, one in first.items():
        pair = [similarity.voxels(maps, head) for maps in (one, second[method])]
        measures = {
            "absolute": similarity.rank_correlation(*np.abs(pair)),
            "signed": similarity.rank_correlation(*pair),
            "ssim": similarity.structural_similarity(one, second[method]),
        }
        for measure, values in measures.items():
            for patient, value in zip(participants, values, strict=True):
                rows.append((patient, method, check, measure, part, value, np.nan))
    return pd.DataFrame(rows, columns=SHORT_COLUMNS)


def agreement_rows(
    check: str,
    participants: list[str],
    all_maps: Sequence[Maps],
    about: tuple[str, float],
    fold: float = np.nan,
) -> pd.DataFrame:
    """Mean rank correlation of each patient's maps between models, one row a patient and method.

    ``reference`` is the same between the map of one model and another patient's of the other model: maps that
    are alike whoever is explained agree without saying anything. ``part``: how many models.
    """
    head = np.all([head for _, head in all_maps], axis=0)
    rows = []
    for method in all_maps[0][0]:
        scales = _at_both_scales([maps[method] for maps, _ in all_maps], head)
        for measure, values in scales.items():
            found = zip(participants, *similarity.agreement(values), strict=True)
            for patient, value, other in found:
                rows.append(
                    (patient, method, check, measure, f"{len(all_maps)} models", value, other)
                )
    frame = pd.DataFrame(rows, columns=SHORT_COLUMNS)
    return frame.assign(arm=about[0], seed=about[1], fold=fold)


# ------------------------------------------------------------------------------------- the truth


def truth_rows(
    analysis: Analysis,
    cache: TensorCache,
    participants: list[str],
    all_maps: Sequence[Maps],
    truth: Truth,
    task: Task,
) -> pd.DataFrame:
    """Pointing and enrichment inside the true lesion, of the mean map over fold models.

    ``value`` of pointing: 1 if the highest voxel of the head lies in the lesion, else 0; of enrichment: the
    share of the positive attribution that does. ``reference`` of both: the lesion's share of the head.
    """
    head = np.all([head for _, head in all_maps], axis=0)
    lesions = [lesion_of(truth(analysis, cache, patient)) for patient in participants]
    rows = []
    for method in all_maps[0][0]:
        mean = np.mean([maps[method] for maps, _ in all_maps], axis=0)
        for array, lesion, patient in zip(mean, lesions, participants, strict=True):
            hit, share, volume = inside_lesion(array, lesion, head)
            rows.append((patient, method, "pointing", "hit", "lesion", hit, volume))
            rows.append((patient, method, "enrichment", "share", "lesion", share, volume))
    frame = pd.DataFrame(rows, columns=SHORT_COLUMNS)
    return frame.assign(arm=task.arm.name, seed=task.seed, fold=np.nan)


def lesion_of(masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """A patient's true lesion: the mask of that name, or the union of all."""
    chosen = [masks["lesion"]] if "lesion" in masks else list(masks.values())
    return np.any([np.asarray(mask) > 0 for mask in chosen], axis=0)


def inside_lesion(
    attribution: np.ndarray, lesion: np.ndarray, head: np.ndarray
) -> tuple[float, float, float]:
    """Whether the peak of a map (D, H, W) is in a lesion, the lesion's share of the positive attribution, and
    of the head's volume; NaN for a map without positive values or a lesion outside the grid.

    >>> ramp = np.arange(8.0).reshape(2, 2, 2)
    >>> inside_lesion(ramp, ramp == 7, np.ones((2, 2, 2), bool))
    (1.0, 0.25, 0.125)
    """
    seen = lesion & head
    if not seen.any():
        return (np.nan,) * 3
    volume = float(seen.sum() / head.sum())
    positive = np.where(head, np.maximum(attribution, 0), 0).astype(np.float64)
    if not positive.max() > 0:
        return np.nan, np.nan, volume
    hit = float(seen.flat[positive.argmax()])
    return hit, float(positive[seen].sum() / positive.sum()), volume
