"""Maps of an arm's fold models: of many patients on the tensor's grid, of a few on their own scans, of groups.

A patient's map is the mean over the fold models that did not see the patient. Files are NIfTI on the scan's own
voxels with the scan's own affine, so that they open aligned in any viewer; group maps lie in template mm, the
affected side where the study's flip brings it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from rlvo_lib import images, registration, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping
from rlvo_lib.explain.atlas import nearest
from rlvo_lib.explain.attribution import METHODS, attribute, is_flat
from rlvo_lib.explain.lesions import load_atlas
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.patients import chosen
from rlvo_lib.preprocess import TensorCache, tensor_affine
from rlvo_lib.preprocess.grid import standing_grid

FLAT = "no gradient reaches the image"
TERRITORY_HU = (18.0, 26.0, 34.0)  # of territories beside each other in the atlas's numbers
BASES = ("ncct", "cta")  # the scans that a map is laid on, where a patient has them
MAP_COLUMNS = [
    "participant_id", "arm", "method", "scan", "map", "unit", "highest", "lowest", "x_mm", "y_mm", "z_mm",
    "y_true", "reason",
]  # fmt: skip
GROUP_COLUMNS = ["arm", "method", "group", "n", "map", "unit", "highest", "lowest", "x_mm", "y_mm", "z_mm"]  # fmt: skip
#: Groups of patients in the order they are shown.
GROUPS = ("outcome", "no outcome", "TP", "FN", "FP", "TN")


@dataclass(frozen=True)
class Maps:
    """Maps of an arm: values[method] is (N, D, H, W) float32 on the tensor's grid, of `participants`.

    by_model holds each fold model's own, in the order of the tasks: by_model[method][k] is (n, D, H, W) of the
    patients unseen[k].
    """

    arm: str
    participants: list[str]
    values: dict[str, np.ndarray]
    by_model: dict[str, list[np.ndarray]] = field(default_factory=dict)
    unseen: list[list[str]] = field(default_factory=list)

    def of(self, participant: str, method: str) -> np.ndarray:
        """The map (D, H, W) of one patient."""
        return self.values[method][self.participants.index(participant)]


def maps_of_folds(
    analysis: Analysis,
    cache: TensorCache,
    tasks: Sequence[Task],
    methods: Sequence[str] = tuple(METHODS),
) -> Maps:
    """Maps of ``settings.mapped_patients`` by each method, mean over the fold models of one arm.

    Found again where nothing that they depend on has changed. Models of other training seeds are averaged like
    those of other folds.

    Raises
    ------
    InputError
        For an unknown method, tasks of several arms, or an arm without images.
    """
    _check(tasks, methods)
    calls = [(analysis, cache, task, tuple(methods)) for task in tasks]
    places = [_place(*call[:3], method) for call in calls for method in methods]
    known = all(keeping.path(analysis, *place, ".npy").exists() for place in places)
    workers.run(
        _make_maps, calls, workers=analysis.settings.workers, label="maps: folds",
        spawn_from=len(calls) + 1 if known else 1,
    )  # fmt: skip
    people = [chosen_for_maps(analysis, cache, task) for task in tasks]
    everyone = sorted(set().union(*people))
    own = {method: [fold_maps(*call[:3], method) for call in calls] for method in methods}
    values = {method: _mean_over_models(everyone, people, maps) for method, maps in own.items()}
    return Maps(tasks[0].arm.name, everyone, values, own, people)


def chosen_for_maps(analysis: Analysis, cache: TensorCache, task: Task) -> list[str]:
    """The patients of whom maps are made (`patients.chosen`), none that the fold's model saw."""
    wanted = analysis.settings.mapped_patients
    return [str(p) for p in chosen(analysis, cache, task, wanted)]


def fold_maps(analysis: Analysis, cache: TensorCache, task: Task, method: str) -> np.ndarray:
    """Maps (N, D, H, W) float32 of one fold's model, of the patients of `chosen_for_maps`; kept on disk."""
    people = chosen_for_maps(analysis, cache, task)
    return keeping.kept_array(
        analysis, *_place(analysis, cache, task, method),
        lambda: attribute(FusedModel.load(analysis, cache, task), people, method),
    )  # fmt: skip


def _check(tasks: Sequence[Task], methods: Sequence[str]) -> None:
    for method in methods:
        if method not in METHODS:
            raise InputError(f"method '{method}' is not known; allowed: {', '.join(METHODS)}")
    arms = list(dict.fromkeys(task.arm.name for task in tasks))
    if len(arms) != 1:
        raise InputError(f"maps of the arms {', '.join(arms) or 'none'}; allowed: tasks of one arm")
    if not tasks[0].arm.channels:
        raise InputError(
            f"arm '{arms[0]}' has no image channels and no convolution; allowed for maps: an arm of kind cnn"
        )


def _place(analysis: Analysis, cache: TensorCache, task: Task, method: str) -> tuple[str, Any]:
    people = chosen_for_maps(analysis, cache, task)
    depends = [
        task.folder.name, method, [[p, cache.table.at[p, "key"]] for p in people],
        analysis.settings.subset("shap_background", "seed"),
    ]  # fmt: skip
    return f"map-{method}-{task.arm.name}-{task.seed}-{task.fold}", depends


def _make_maps(analysis: Analysis, cache: TensorCache, task: Task, methods: Sequence[str]) -> None:
    """The maps of one fold's model, of all methods: the model is loaded once."""
    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    people, model = chosen_for_maps(analysis, cache, task), None
    for method in methods:
        place = _place(analysis, cache, task, method)
        if not keeping.path(analysis, *place, ".npy").exists():
            model = model or FusedModel.load(analysis, cache, task)
            keeping.kept_array(analysis, *place, lambda m=method, f=model: attribute(f, people, m))


def _mean_over_models(
    everyone: list[str], people: Sequence[list[str]], maps: Sequence[np.ndarray]
) -> np.ndarray:
    total = np.zeros((len(everyone), *maps[0].shape[1:]))
    count = np.zeros(len(everyone))
    for own, values in zip(people, maps, strict=True):
        rows = [everyone.index(p) for p in own]
        total[rows] += values
        count[rows] += 1
    return (total / count[:, None, None, None]).astype(np.float32)


# --------------------------------------------------------------------------------- on the scans


def write_maps(
    analysis: Analysis,
    cache: TensorCache,
    maps: Maps,
    participants: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> pd.DataFrame:
    """Maps on the patients' own scans, as NIfTI under ``attributions/maps`` of the run.

    participants : of those of ``maps``; empty: ``settings.saliency_patients`` of them, half with the outcome.
    methods : empty: all of ``maps`` but the controls. Values are rounded to a 2,000th of the map's largest, or finer.

    Returns
    -------
    DataFrame with `MAP_COLUMNS`; a row a patient, method and scan. ``map`` is the path inside the run folder,
    ``unit`` that of the map; highest and lowest are those on the tensor's grid, x, y, z (mm, RAS+, of the scan's
    world) where the highest lies. A map that is flat is not written: ``map`` is empty, and ``reason`` says why.
    """
    rows = []
    for participant in participants or few(analysis, maps):
        for method in methods or [m for m in maps.values if not METHODS[m].control]:
            array = maps.of(participant, method)
            flat = is_flat(array)
            for scan in bases(cache, participant):
                name = f"attributions/maps/{participant}_{scan}_{method}.nii.gz"
                place = [np.nan] * 3 if flat else peak_mm(cache, participant, array, scan)
                if not flat:
                    save_map(analysis, cache, participant, array, scan, name, METHODS[method].unit)
                rows.append((participant, maps.arm, method, scan, "" if flat else name, METHODS[method].unit,
                             float(array.max()), float(array.min()), *place, int(analysis.y[participant]),
                             FLAT if flat else ""))  # fmt: skip
    return pd.DataFrame(rows, columns=MAP_COLUMNS)


def few(analysis: Analysis, maps: Maps) -> list[str]:
    """``settings.saliency_patients`` of the mapped ones, half of them with the outcome; sorted."""
    wanted = min(analysis.settings.saliency_patients, len(maps.participants))
    events = [p for p in maps.participants if analysis.y[p] == 1]
    others = [p for p in maps.participants if analysis.y[p] == 0]
    n_events = min(len(events), max(wanted // 2, wanted - len(others)))
    return sorted([*events[:n_events], *others[: wanted - n_events]])


def bases(cache: TensorCache, participant: str) -> list[str]:
    """The scans that a patient's maps are laid on: the NCCT, or else the CTA, or the first there is.

    And the CTA beside the NCCT where it lies in a world of its own, as the patient had moved: elsewhere a viewer shows
    the one map on both.
    """
    record = cache.records[participant]
    there = [scan for scan in BASES if scan in record["scans"]] or list(record["scans"])[:1]
    return [scan for k, scan in enumerate(there) if k == 0 or scan in record["moves"]]


def window_of(cache: TensorCache, participant: str, scan: str) -> tuple[float, float, str]:
    """Low and high end, and unit, of the window in which a scan entered the tensor.

    Raises
    ------
    InputError
        If no channel of the study shows the scan.
    """
    windows = [w for w in cache.records[participant]["windows"].values() if w["scan"] == scan]
    plain = [w for w in windows if "minus_mirror" not in w]
    if not plain:
        raise InputError(f"patient {participant}: no channel shows scan '{scan}' as it is")
    return float(plain[0]["low"]), float(plain[0]["high"]), str(plain[0]["unit"])


def peak_mm(cache: TensorCache, participant: str, array: np.ndarray, scan: str) -> list[float]:
    """World mm (RAS+) of the highest value of a map (D, H, W), in the world of a scan."""
    peak = np.unravel_index(int(np.argmax(array)), array.shape)
    return [round(float(v), 1) for v in (cache.affine(participant, scan) @ [*peak, 1])[:3]]


def save_map(
    analysis: Analysis,
    cache: TensorCache,
    participant: str,
    array: np.ndarray,
    scan: str,
    name: str,
    unit: str = "",
) -> None:
    """A map (D, H, W) of the tensor's grid on a scan's own voxels, as NIfTI ``name`` of the run folder."""
    native, affine = cache.to_native(participant, array, scan)
    said = f"SIMULATED DATA: {unit}" if analysis.dataset.simulated else unit
    images.save_nifti(analysis.settings.out / name, few_bits(native), affine, description=said[:79])


def few_bits(values: np.ndarray) -> np.ndarray:
    """Values rounded to multiples of a power of two, a 2,000th of the largest or less: they compress tenfold.

    >>> few_bits(np.array([0.0, 0.12345678, 1.0], np.float32)).tolist()
    [0.0, 0.12353515625, 1.0]
    """
    largest = float(np.abs(values).max())
    if not largest > 0:
        return values.astype(np.float32)
    step = 2.0 ** np.floor(np.log2(largest / 2000))
    return (np.rint(values / step) * step).astype(np.float32)


# ------------------------------------------------------------------------------------- of groups


def groups(y: pd.Series, probability: pd.Series, threshold: float) -> dict[str, list[str]]:
    """Patients by label, and by what becomes of them at a threshold: `GROUPS`.

    y and probability are indexed by participant; those without a probability are in no group.

    >>> y, p = pd.Series({"a": 1, "b": 0}), pd.Series({"a": 0.7, "b": 0.2})
    >>> {name: who for name, who in groups(y, p, 0.5).items() if who}
    {'outcome': ['a'], 'no outcome': ['b'], 'TP': ['a'], 'TN': ['b']}
    """
    known = [p for p in probability.index if p in y.index and not np.isnan(probability[p])]
    found = {name: [] for name in GROUPS}
    for p in sorted(known):
        event, flagged = y[p] == 1, probability[p] >= threshold
        found["outcome" if event else "no outcome"].append(p)
        found[("TP" if event else "FP") if flagged else ("FN" if event else "TN")].append(p)
    return found


def template_affine(analysis: Analysis) -> np.ndarray:
    """4x4 from the tensor's voxels to template mm: where group maps lie, affected side on the common side.

    In a study whose scans share a standard space, to the mm of that space.
    """
    settings = analysis.settings
    study, shape, spacing = settings.study, settings.grid_shape, settings.grid_spacing_mm
    if study.grid.space == "template":
        return standing_grid(study.grid, shape, spacing)
    side = None if study.flip_to_side == "none" else study.flip_to_side
    return tensor_affine(
        np.eye(4), registration.load_template(settings.template or None).length_mm, side,
        flip_to=study.flip_to_side, region=study.grid.region, shape=shape, spacing_mm=spacing,
    )  # fmt: skip


def template_picture(analysis: Analysis) -> np.ndarray | None:
    """What group maps are drawn over, (D, H, W) on their grid, in HU: the head template.

    In a study whose scans share a standard space, the territories of the dataset's atlas in a few greys of brain
    (`TERRITORY_HU`, the two sides alike), which are no densities; None where it has no atlas.
    """
    settings, grid = analysis.settings, template_affine(analysis)
    if settings.study.grid.space == "head":
        template = registration.load_template(settings.template or None)
        return images.resample(
            template.array, template.affine, grid, settings.grid_shape, fill=images.AIR_HU
        )
    plan = settings.study.explain_atlas
    if plan is None or not (analysis.dataset.root / plan.path).is_file():
        return None
    labels, affine = load_atlas(analysis.dataset.root / plan.path, len(plan.territories))
    found = nearest(labels, np.linalg.inv(affine) @ grid, settings.grid_shape).astype(int)
    greys = np.array(TERRITORY_HU)[(found - 1) // 2 % len(TERRITORY_HU)]
    return np.where(found > 0, greys, 0.0)


def group_means(
    maps: Maps, method: str, people: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """The mean map (D, H, W) of each group of which somebody was mapped."""
    means = {}
    for name, members in people.items():
        rows = [k for k, p in enumerate(maps.participants) if p in set(members)]
        if rows:
            means[name] = maps.values[method][rows].mean(axis=0, dtype=float).astype(np.float32)
    return means


def write_group_maps(
    analysis: Analysis, maps: Maps, people: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Mean maps of groups in template space, as NIfTI ``attributions/groups/<method>_<group>.nii.gz``.

    people : group to participants (`groups`). Returns a DataFrame with `GROUP_COLUMNS`: a row a method and group;
    a group of which nobody was mapped has n 0, no map, and NaN.
    """
    affine, rows = template_affine(analysis), []
    for method in maps.values:
        means, unit = group_means(maps, method, people), METHODS[method].unit
        for name, members in people.items():
            n = len(set(members) & set(maps.participants))
            if name not in means:
                rows.append((maps.arm, method, name, 0, "", unit, *[np.nan] * 5))
                continue
            mean, file = (
                means[name],
                f"attributions/groups/{method}_{name.replace(' ', '-')}.nii.gz",
            )
            said = f"SIMULATED DATA: n = {n}" if analysis.dataset.simulated else f"n = {n}"
            images.save_nifti(
                analysis.settings.out / file, few_bits(mean), affine, description=said
            )
            peak = affine @ [*np.unravel_index(int(mean.argmax()), mean.shape), 1]
            rows.append((maps.arm, method, name, n, file, unit, float(mean.max()), float(mean.min()),
                         *np.round(peak[:3], 1)))  # fmt: skip
    return pd.DataFrame(rows, columns=GROUP_COLUMNS)
