"""The measurements behind the table of methods and checks: can an explanation be believed?

Each function gives tidy rows with `CHECK_COLUMNS`, of which `results.explanation_checks` makes the table.
`checks_of_folds` has all that needs no retraining; `lesion_rows` come from ``regions.csv`` of a simulated cohort.
`label_rows`, `seed_rows`, `learnt_rows` and `null_rows` compare networks trained for the purpose
(`make explain-checks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from rlvo_lib.explain.maps import Maps, chosen_for_maps, fold_maps, maps_of_folds
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.randomisation import cascade, randomised
from rlvo_lib.explain.regions import OUTSIDE
from rlvo_lib.preprocess import TensorCache

CHECK_COLUMNS = [
    "participant_id", "arm", "method", "check", "measure", "part", "seed", "fold", "value", "reference",
]  # fmt: skip
#: The steps of the cascade before the last are for the figure: made in every so many patients.
EVERY = 3
#: Shifts are made in every so many patients.
SHIFTED = 2
#: Digits that are kept: the file stays small, and no check depends on more.
DIGITS = 5
_SHORT = ["participant_id", "method", "check", "measure", "part", "value", "reference"]


def checks_of_folds(
    analysis: Analysis,
    cache: TensorCache,
    tasks: Sequence[Task],
    methods: Sequence[str] = (),
    *,
    regions: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Every check that needs no retraining, of the fold models of one arm and seed.

    The costly ones (weights drawn anew, deletion and insertion; a shift by a voxel in half of them) are made in
    ``settings.explained_patients``, dealt out among the fold models that did not see them, so that each model is
    checked; stability over folds is of all patients with maps, if the models explain the same ones.

    Parameters
    ----------
    methods
        Names of `attribution.METHODS`; empty: all, the controls included.
    regions
        ``regions.csv`` of the same arm (`regions.region_shares`): with the truth of a simulated cohort in it, the
        rows of pointing and enrichment are added.

    Returns
    -------
    DataFrame with `CHECK_COLUMNS`; ``value`` and ``reference`` as `results.CHECKS` says.

    Raises
    ------
    InputError
        For tasks of several arms or seeds, an arm without images, or an unknown method.
    """
    methods = _known(methods)
    one = {(task.arm.name, task.seed) for task in tasks}
    if len(one) != 1:
        raise InputError(
            f"checks of folds got tasks of {len(one)} arms and seeds; allowed: the folds of one"
        )
    depends_on = [
        [task.folder.name for task in tasks], methods,
        analysis.settings.subset("explained_patients", "mapped_patients", "shap_background", "seed"),
    ]  # fmt: skip
    rows = kept_table(
        analysis,
        f"checks-{tasks[0].arm.name}",
        depends_on,
        lambda: _made(analysis, cache, list(tasks), methods),
    )
    if regions is None:
        return rows
    lesions = lesion_rows(regions[regions["method"].isin(methods)])
    return pd.concat([rows, lesions.assign(seed=tasks[0].seed)], ignore_index=True)[CHECK_COLUMNS]


def _known(methods: Sequence[str]) -> list[str]:
    for name in methods:
        if name not in METHODS:
            raise InputError(f"method '{name}' is not known; allowed: {', '.join(METHODS)}")
    return list(methods) or list(METHODS)


def _made(
    analysis: Analysis, cache: TensorCache, tasks: list[Task], methods: list[str]
) -> pd.DataFrame:
    maps = maps_of_folds(analysis, cache, tasks, methods)
    wanted = min(analysis.settings.explained_patients, analysis.settings.mapped_patients)
    explained = [patients.chosen(analysis, cache, task, wanted) for task in tasks]
    shared = all(chosen == explained[0] for chosen in explained)
    own = [ids[k :: len(tasks)] if shared else ids for k, ids in enumerate(explained)]
    calls = [
        (analysis, cache, task, ids, methods)
        for task, ids in zip(tasks, own, strict=True)
        if ids  # more folds than patients
    ]
    tables = workers.run(
        fold_checks, calls, workers=analysis.settings.workers, label="checks of explanations: folds"
    )
    if shared and len(tasks) > 1:
        head = head_of(analysis, cache, tasks[0])
        found = {name: maps.by_model[name] for name in methods}
        rows = _agreement("stability_folds", maps.unseen[0], found, head)
        tables.append(rows.assign(arm=maps.arm, seed=tasks[0].seed, fold=np.nan))
    return rounded(pd.concat(tables, ignore_index=True))


def rounded(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with numbers of `DIGITS` digits, in the order of `CHECK_COLUMNS`."""
    digits = {
        name: rows[name].map(lambda v: float(f"{v:.{DIGITS}g}")) for name in ("value", "reference")
    }
    return rows.assign(**digits)[CHECK_COLUMNS]


def head_of(analysis: Analysis, cache: TensorCache, task: Task) -> np.ndarray:
    """`similarity.head_mask` by the background patients of a task's fold."""
    return similarity.head_mask(FusedModel.load(analysis, cache, task))


# --------------------------------------------------------------------------------- one fold model


def fold_checks(
    analysis: Analysis, cache: TensorCache, task: Task, own: list[str], methods: list[str]
) -> pd.DataFrame:
    """The costly checks of one fold model in its ``own`` patients."""
    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    model = FusedModel.load(analysis, cache, task)
    people = chosen_for_maps(analysis, cache, task)
    places = [people.index(p) for p in own]
    maps = {name: fold_maps(analysis, cache, task, name)[places] for name in methods}
    head = similarity.head_mask(model)
    tables = [
        _randomised(model, own, maps, head),
        _shifted(model, own, maps, head),
        _curves(model, own, maps, head),
    ]
    rows = pd.concat(tables, ignore_index=True)
    return rows.assign(arm=task.arm.name, seed=task.seed, fold=task.fold)


def _randomised(
    model: FusedModel, own: list[str], maps: Mapping[str, np.ndarray], head: np.ndarray
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
        tables.append(_likeness("model_randomisation", part, some, same, others, head))
    return pd.concat(tables, ignore_index=True)


def _shifted(
    model: FusedModel, own: list[str], maps: Mapping[str, np.ndarray], head: np.ndarray
) -> pd.DataFrame:
    """Maps of the image moved by a voxel and moved back, beside those of the image as it lies."""
    places = list(range(0, len(own), SHIFTED))
    some = [own[k] for k in places]
    moves = stability.drawn_moves(some, model.analysis.settings.seed)
    images = [stability.moved(model.images([p]), move) for p, move in zip(some, moves, strict=True)]
    kept = [stability.unaffected(head, move) for move in moves]
    rows = []
    for method, array in maps.items():
        others = torch.as_tensor(
            attribute(model, some, method, images=model.placed(torch.cat(images)))
        )
        for n, (place, patient, move) in enumerate(zip(places, some, moves, strict=True)):
            back = stability.moved(others[n], tuple(-step for step in move)).numpy()
            pairs = at_both_scales([array[place : place + 1], back[None]], kept[n])
            for measure, pair in pairs.items():
                value = similarity.rank_correlation(*pair)[0]
                rows.append(
                    (patient, method, "stability_shifts", measure, "1 voxel", value, np.nan)
                )
    return pd.DataFrame(rows, columns=_SHORT)


def at_both_scales(maps: Sequence[np.ndarray], head: np.ndarray) -> dict[str, list[np.ndarray]]:
    """What is compared of some maps (N, D, H, W): their means in boxes of the head, and its voxels; (N, V)."""
    boxes = np.where(head, similarity.head_boxes(head), -1)
    within = boxes >= 0
    boxes[within] = np.unique(boxes[within], return_inverse=True)[1]
    return {
        "boxes": [similarity.box_means(one, boxes) for one in maps],
        "voxels": [similarity.voxels(one, head) for one in maps],
    }


def _curves(
    model: FusedModel, own: list[str], maps: Mapping[str, np.ndarray], head: np.ndarray
) -> pd.DataFrame:
    boxes, seed = similarity.head_boxes(head), model.analysis.settings.seed
    tables = []
    for k, patient in enumerate(own):
        his = {name: array[k] for name, array in maps.items()}
        tables.append(faithfulness_curves(model, patient, his, boxes, seed=seed))
    return pd.concat(tables, ignore_index=True).assign(measure="logit")


# ------------------------------------------------------------------------------- maps beside maps


def _likeness(
    check: str,
    part: str,
    participants: Sequence[str],
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    head: np.ndarray,
) -> pd.DataFrame:
    """How alike two sets of maps (N, D, H, W) are, by method: rank correlation over voxels of the absolute
    values (by which the check is judged), of the maps as they are, and SSIM."""
    rows = []
    for method, one in first.items():
        pair = [similarity.voxels(maps, head) for maps in (one, second[method])]
        measures = {
            "absolute": similarity.rank_correlation(*map(np.abs, pair)),
            "signed": similarity.rank_correlation(*pair),
            "ssim": similarity.structural_similarity(one, second[method]),
        }
        for measure, values in measures.items():
            for patient, value in zip(participants, values, strict=True):
                rows.append((patient, method, check, measure, part, value, np.nan))
    return pd.DataFrame(rows, columns=_SHORT)


def _agreement(
    check: str,
    participants: Sequence[str],
    found: Mapping[str, Sequence[np.ndarray]],
    head: np.ndarray,
) -> pd.DataFrame:
    """Mean rank correlation of each patient's maps between models, one row a patient, method and scale.

    ``reference`` is the same between the map of one model and another patient's of the other model: maps that
    are alike whoever is explained agree without saying anything. ``part``: how many models.
    """
    rows = []
    for method, maps in found.items():
        part = f"{len(maps)} models"
        for measure, values in at_both_scales(maps, head).items():
            for patient, value, other in zip(
                participants, *similarity.agreement(values), strict=True
            ):
                rows.append((patient, method, check, measure, part, value, other))
    return pd.DataFrame(rows, columns=_SHORT)


def label_rows(maps: Maps, permuted: Maps, head: np.ndarray) -> pd.DataFrame:
    """Label randomisation: maps of networks trained on the outcomes, beside those of `PermutedLabels`.

    Raises
    ------
    InputError
        If the two are not of the same patients and folds.
    """
    if maps.unseen != permuted.unseen:
        raise InputError(
            "label randomisation: maps of other patients or folds; allowed: the same for both"
        )
    tables = []
    for k, participants in enumerate(maps.unseen):
        pair = [{n: own[k] for n, own in one.by_model.items()} for one in (maps, permuted)]
        rows = _likeness("label_randomisation", "all", participants, *pair, head)
        tables.append(rows.assign(arm=maps.arm, seed=np.nan, fold=k + 1))
    return rounded(pd.concat(tables, ignore_index=True))


def seed_rows(of_seeds: Sequence[Maps], head: np.ndarray) -> pd.DataFrame:
    """Stability over training seeds: maps of networks that differ in it alone, fold by fold.

    Raises
    ------
    InputError
        For maps of one seed, or of several patients or folds.
    """
    if len(of_seeds) < 2:
        raise InputError("stability over seeds got maps of 1 seed; allowed: two seeds or more")
    if any(maps.unseen != of_seeds[0].unseen for maps in of_seeds):
        raise InputError(
            "stability over seeds: maps of other patients or folds; allowed: the same for all"
        )
    tables = []
    for k, participants in enumerate(of_seeds[0].unseen):
        found = {n: [maps.by_model[n][k] for maps in of_seeds] for n in of_seeds[0].values}
        rows = _agreement("stability_seeds", participants, found, head)
        tables.append(rows.assign(arm=of_seeds[0].arm, seed=np.nan, fold=k + 1))
    return rounded(pd.concat(tables, ignore_index=True))


# ---------------------------------------------------------------------------------- from regions


def lesion_rows(regions: pd.DataFrame) -> pd.DataFrame:
    """Pointing and enrichment inside the true lesion, from ``regions.csv``; no rows where nobody knows it.

    ``value`` of pointing: 1 if the highest voxel lies in the lesion, else 0; of enrichment: the share of the
    positive attribution that does. ``reference`` of both: the lesion's share of the volume.
    """
    lesion = _of_lesion(regions)
    hits = lesion.assign(check="pointing", measure="hit", value=lesion["hit"])
    shares = lesion.assign(check="enrichment", measure="share", value=lesion["share"])
    rows = pd.concat([hits, shares], ignore_index=True)
    rows = rows.assign(reference=rows["volume_share"], part="lesion", seed=np.nan, fold=np.nan)
    return rounded(rows)


def _of_lesion(regions: pd.DataFrame) -> pd.DataFrame:
    return regions[(regions["kind"] == "truth") & (regions["region"] == "lesion")]


def learnt_rows(regions: pd.DataFrame, permuted: pd.DataFrame) -> pd.DataFrame:
    """The share of attribution in the true lesion by the network, and as ``reference`` by that of `PermutedLabels`."""
    keys = ["participant_id", "arm", "method"]
    other = _of_lesion(permuted)[[*keys, "share"]].rename(columns={"share": "reference"})
    rows = _of_lesion(regions)[[*keys, "share"]].merge(other, on=keys)
    rows = rows.rename(columns={"share": "value"})
    rows = rows.assign(check="learnt", measure="share", part="lesion", seed=np.nan, fold=np.nan)
    return rounded(rows)


def null_rows(regions: pd.DataFrame) -> pd.DataFrame:
    """The check `null_scenario` from ``regions.csv`` of networks trained where nothing predicts.

    One row a patient, method and region: ``value`` is the region's share of the positive attribution,
    ``reference`` its share of the volume. What lies outside the field is left out: its shares are of another whole.
    """
    rows = regions[regions["region"] != OUTSIDE]
    part = rows["kind"] + ": " + rows["region"]
    rows = rows.assign(part=part, value=rows["share"], reference=rows["volume_share"])
    return rounded(rows.assign(check="null_scenario", measure="share", seed=np.nan, fold=np.nan))
