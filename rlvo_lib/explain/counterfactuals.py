"""Counterfactual reading of simulated patients: one latent changed, rendered again, predicted again.

Of a simulated patient all is known that an image is drawn from. One thing is changed (a calcification
removed, a clot made longer), the scans are rendered again from the patient's own random stream, and pass
through the same preparation and the same fold models, with the patient's table unchanged. The change of
the model's prediction is set beside the change of true risk (`risk`). It says what moves the model, and
whether that moves the truth; of real patients it says nothing.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rlvo_lib import progress, storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError
from rlvo_lib.dataset import TRUTH, Dataset, scan_path
from rlvo_lib.experiment import Task
from rlvo_lib.explain import keeping, risk
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.explain.patients import unseen
from rlvo_lib.images import save_nifti
from rlvo_lib.preprocess import TensorCache, patient_tensor
from rlvo_lib.preprocess.cache import patient_task
from rlvo_lib.simulate import rendering, scenarios
from rlvo_lib.simulate.scenarios import Scenario

COUNTERFACTUAL_COLUMNS = [
    "participant_id", "arm", "seed", "fold", "change", "logit_before", "logit_after", "risk_before",
    "risk_after", "risk_se", "seen_before", "seen_after",
]  # fmt: skip

Latents = dict[str, Any]

NO_CALCIUM = -3.15  # latent of a siphon without plaques, also on the side that adds noise to it
LONGEST_CLOT_MM = 75.0  # the generator's limit
LEAST_LENGTHENING = 1.2  # a clot at the limit cannot grow
LEAST_INDEX = 0.5  # an index near its mean has no other side to go to


@dataclass(frozen=True)
class Change:
    """One thing that can be changed; `make` gives the latents that differ, none where it does not apply."""

    name: str
    label: str
    text: str
    make: Callable[[Latents, Scenario], Latents]


def _without_calcium(patient: Latents, plan: Scenario) -> Latents:
    if patient["siphon_grade"] < 1:
        return {}
    return {"siphon_calcium": NO_CALCIUM, "siphon_grade": 0}


def _longer_clot(patient: Latents, plan: Scenario) -> Latents:
    length = min(2 * patient["clot_length_mm"], LONGEST_CLOT_MM)
    long_already = length < LEAST_LENGTHENING * patient["clot_length_mm"]
    # a truncal occlusion has no room beyond its trunk: the scan would not show what is changed
    return {} if long_already or patient["truncal"] else {"clot_length_mm": length}


def _open_stenosis(patient: Latents, plan: Scenario) -> Latents:
    return {"other_stenosis": 0} if patient["other_stenosis"] else {}


def _into_trunk(patient: Latents, plan: Scenario) -> Latents:
    return {} if plan.index or patient["truncal"] else {"truncal": 1}


def _finer_grain(patient: Latents, plan: Scenario) -> Latents:
    """A low index mirrored at its mean; grain and tangles follow it, each with its own noise kept."""
    index = plan.index
    if index is None or patient["index"] > -LEAST_INDEX:
        return {}
    low, high = np.log(index.grain_mm)  # 4 SD of the index
    moved = 2 * patient["index"] * (high - low) / 4  # of log grain per unit of correlation

    def grain(name: str, r: float) -> float:
        return float(np.clip(patient[name] * np.exp(r * moved), *index.grain_mm))

    tangle_r = index.grain_r if index.tangle_r is None else index.tangle_r
    return {
        "index": -patient["index"],
        "lesion_grain_mm": grain("lesion_grain_mm", index.grain_r),
        "tangle_grain_mm": grain("tangle_grain_mm", tangle_r),
    }


CHANGES = {
    change.name: change
    for change in (
        Change(
            "calcification", "Calcification removed",
            "all plaques of the carotid siphons removed", _without_calcium,
        ),
        Change(
            "clot_length", "Clot twice as long",
            f"the embolus made twice as long, at most {LONGEST_CLOT_MM:g} mm", _longer_clot,
        ),
        Change(
            "stenosis", "Other stenosis opened",
            "the stenoses away from the occlusion opened", _open_stenosis,
        ),
        Change(
            "truncal", "Occlusion into the trunk",
            "the embolus at a bifurcation made a tapered truncal occlusion", _into_trunk,
        ),
        Change(
            "grain", "Lesion in finer patches",
            "a low index of the outcome mirrored to a high one; lesion and collaterals follow", _finer_grain,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Simulation:
    """What a simulated dataset was made from."""

    root: Path
    request: dict[str, Any]
    latents: pd.DataFrame  # index participant_id; in the order they were rendered

    @classmethod
    def open(cls, dataset: Dataset) -> Simulation:
        """The simulation behind a dataset.

        Raises
        ------
        InputError
            If the dataset is not simulated, holds no scans, or was rendered by another version.
        """
        if reason := not_simulated(dataset):
            raise InputError(f"counterfactual reading: {reason}")
        root = Path(dataset.root)
        request = storage.read_json(root / TRUTH / "generation.json")
        latents = storage.read_csv(root / TRUTH / "latents.csv")
        return cls(root, request, latents.set_index("participant_id"))

    @property
    def scenario(self) -> str:
        return self.request["scenario"]

    @cached_property
    def plan(self) -> Scenario:
        return scenarios.named(self.scenario)

    def patient(self, participant: str) -> Latents:
        """The latents of one patient, by name."""
        return self.latents.loc[participant].to_dict()

    def changed(self, participant: str, change: str) -> Latents:
        """What a change makes of a patient's latents; nothing where it does not apply."""
        return CHANGES[change].make(self.patient(participant), self.plan)

    def render(self, participant: str, changed: Latents) -> rendering.Rendered:
        """The patient's scans with some latents changed, from the random stream they were made with."""
        number = self.latents.index.get_loc(participant)
        stream = np.random.SeedSequence([self.request["seed"], 1, number])
        grid = rendering.GRIDS[self.request["grid"]]
        if self.request["cta_mm"] is not None:
            grid = grid.with_cta_mm(self.request["cta_mm"])
        patient = {"participant_id": participant} | self.patient(participant) | changed
        return rendering.render(patient, stream, grid)


def not_simulated(dataset: Dataset) -> str:
    """Why no patient of a dataset can be rendered again, in words; empty where they can."""
    if not dataset.simulated:
        return f"the patients of dataset '{dataset.name}' are real: nobody can scan them again with one thing changed"
    path = Path(dataset.root) / TRUTH / "generation.json"
    if not path.is_file():
        return (
            f"dataset '{dataset.name}' does not say what its scans were drawn from; allowed: a cohort that "
            "this package simulated"
        )
    request = storage.read_json(path)
    if request["table_only"]:
        return f"dataset '{dataset.name}' was simulated without scans; allowed: one with scans"
    if request["code"] != storage.code_key("simulate", "images"):
        return f"dataset '{dataset.name}' was simulated by another version of this package"
    return ""


def changes_of(dataset: Dataset) -> list[str]:
    """The changes that apply to at least one patient of a simulated dataset; none of any other."""
    if not_simulated(dataset):
        return []
    simulation = Simulation.open(dataset)
    ids = [p for p in simulation.latents.index if p in dataset.table.index]
    return [name for name in CHANGES if any(simulation.changed(p, name) for p in ids)]


def counterfactuals_of_folds(
    analysis: Analysis, cache: TensorCache, tasks: list[Task], *, changes: list[str] | None = None
) -> pd.DataFrame:
    """Predictions and risks of simulated patients before and after one thing is changed.

    For each change ``counterfactual_patients`` of those to whom it applies, drawn with the run's seed
    from the patients that the fold models did not see.

    Parameters
    ----------
    tasks : finished tasks of arms that see images.
    changes : names of `CHANGES`; left out: `changes_of` the dataset.

    Returns
    -------
    DataFrame with `COUNTERFACTUAL_COLUMNS`; a row a patient, fold model and change. ``risk``: the true
    risk (0 to 1), ``risk_se`` the standard error of its change by simulation; ``seen``: that of the knowing
    predictor (`risk.seen_risk`) of what the arm sees.

    Raises
    ------
    InputError
        If the dataset was not simulated by this version, a change is unknown, an arm sees no image.
    """
    simulation = Simulation.open(analysis.dataset)
    for task in tasks:
        if not task.arm.channels:
            raise InputError(f"counterfactual reading: arm '{task.arm.name}' sees no image")
    names = changes_of(analysis.dataset) if changes is None else list(changes)
    for name in names:
        if name not in CHANGES:
            raise InputError(f"change is '{name}'; allowed: {', '.join(CHANGES)}")
    pools = [unseen(analysis, cache, task) for task in tasks]
    cases = _cases(analysis, simulation, sorted({p for pool in pools for p in pool}), names)
    depends = [
        [t.folder.name for t in tasks], [(p, c, repr(x)) for p, c, x in cases],
        [cache.table.at[p, "key"] for p, _, _ in cases], simulation.request, analysis.settings.seed,
    ]  # fmt: skip
    return keeping.kept_table(
        analysis, "counterfactuals", depends, lambda: _made(analysis, cache, tasks, cases, pools)
    )


def _cases(
    analysis: Analysis, simulation: Simulation, pool: list[str], changes: list[str]
) -> list[tuple[str, str, Latents]]:
    """Who is changed how: (participant, change, latents that differ)."""
    order = np.random.default_rng(analysis.settings.seed).permutation(pool)
    cases = []
    for change in changes:
        found = [(str(p), change, simulation.changed(p, change)) for p in order]
        found = [case for case in found if case[2]]
        cases += sorted(found[: analysis.settings.counterfactual_patients])
    return cases


def _made(
    analysis: Analysis,
    cache: TensorCache,
    tasks: list[Task],
    cases: list[tuple[str, str, Latents]],
    pools: list[list[str]],
) -> pd.DataFrame:
    n = analysis.settings.workers
    if not cases:
        return pd.DataFrame(columns=COUNTERFACTUAL_COLUMNS)
    known = all(_place(analysis, cache, p, x).exists() for p, _, x in cases)
    workers.run(
        changed_tensor, [(analysis, cache, p, x) for p, _, x in cases], workers=n,
        label="counterfactuals: scans", titles=[f"{p}, {c}" for p, c, _ in cases],
        spawn_from=len(cases) + 1 if known or n == 1 else 3,
    )  # fmt: skip
    own = [[case for case in cases if case[0] in pool] for pool in pools]
    frames = [  # in this process: loading a model costs less than a process
        _predicted(analysis, cache, task, some)
        for task, some in progress.track(
            list(zip(tasks, own, strict=True)), label="counterfactuals: folds"
        )
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame.merge(_risks(analysis, tasks, cases))[COUNTERFACTUAL_COLUMNS]


# --------------------------------------------------------------------------------- scans, models, risks


def _place(analysis: Analysis, cache: TensorCache, participant: str, changed: Latents) -> Path:
    content = [cache.table.at[participant, "key"], repr(changed), storage.code_key("simulate")]
    return keeping.path(analysis, f"changed-{participant}", content, ".npy")


def changed_tensor(
    analysis: Analysis, cache: TensorCache, participant: str, changed: Latents
) -> np.ndarray:
    """The patient's tensor (C, D, H, W) float16 once some latents are changed; kept.

    Channels as in the patient's own tensor (`TensorCache.records`). Without a change it is that tensor.
    """
    path = _place(analysis, cache, participant, changed)
    with storage.lock(path):
        if not path.exists():
            storage.write_array(path, _prepared(analysis, cache, participant, changed))
    return np.load(path)


def _prepared(
    analysis: Analysis, cache: TensorCache, participant: str, changed: Latents
) -> np.ndarray:
    """Scans rendered to a folder that is gone afterwards, and prepared as the patient's own were."""
    torch.set_num_threads(1)  # sums in one order: the same bytes each time
    own = patient_task(analysis.dataset, analysis.settings, participant)
    drawn = Simulation.open(analysis.dataset).render(participant, changed)
    with tempfile.TemporaryDirectory() as folder:
        scans = {}
        for name in own.scans:
            array, affine = drawn.scans[name]
            place = scan_path(folder, participant, analysis.settings.study.scans[name])
            scans[name] = str(save_nifti(place, array, affine, level=0))
        task = dataclasses.replace(own, root=folder, scans=scans, views={})
        arrays, record, _ = patient_tensor(task)
    if record["channels"] != cache.records[participant]["channels"]:
        raise RuntimeError(f"patient {participant}: other channels after the change than before")
    return arrays["tensor"]


def _predicted(
    analysis: Analysis, cache: TensorCache, task: Task, cases: list[tuple[str, str, Latents]]
) -> pd.DataFrame:
    """Logits of one fold model before and after each change."""
    torch.set_num_threads(1)
    model = FusedModel.load(analysis, cache, task)
    rows, before = [], {}
    for participant, change, changed in cases:
        tabular, added = model.tabular([participant]), model.added([participant])
        if participant not in before:
            own = model.images([participant])
            before[participant] = float((model.logits(own, tabular) + added)[0])
        image = _shown(model, participant, changed_tensor(analysis, cache, participant, changed))
        after = float((model.logits(image, tabular) + added)[0])
        rows.append(
            (participant, task.arm.name, task.seed, task.fold, change, before[participant], after)
        )
    return pd.DataFrame(rows, columns=COUNTERFACTUAL_COLUMNS[:7])


def _shown(model: FusedModel, participant: str, tensor: np.ndarray) -> torch.Tensor:
    """The arm's channels (1, C, D, H, W) of a patient's tensor, on the model's device."""
    names = model.cache.records[participant]["channels"]
    image = np.full((1, len(model.task.arm.channels), *tensor.shape[1:]), np.nan, np.float32)
    for k, channel in enumerate(model.task.arm.channels):
        if channel in names:
            image[0, k] = tensor[names.index(channel)]
    return model.placed(torch.as_tensor(image))


def _risks(
    analysis: Analysis, tasks: list[Task], cases: list[tuple[str, str, Latents]]
) -> pd.DataFrame:
    """True risk and that of the knowing predictor, before and after; a row a case and arm."""
    simulation = Simulation.open(analysis.dataset)
    seed, scenario = analysis.settings.seed, simulation.scenario
    before = simulation.latents.loc[[p for p, _, _ in cases]]
    after = before.reset_index(drop=True)
    for row, (_, _, changed) in enumerate(cases):
        for name, value in changed.items():
            after[name] = after[name].astype(float) if isinstance(value, float) else after[name]
            after.loc[row, name] = value
    frame = pd.DataFrame(
        [
            (p, c, *risk.true_risk(simulation.patient(p), simulation.patient(p) | x, scenario, seed=seed))
            for p, c, x in cases
        ],
        columns=["participant_id", "change", "risk_before", "risk_after", "risk_se"],
    )  # fmt: skip
    frames = []
    for arm in {task.arm.name: task.arm for task in tasks}.values():
        sees = "all" if arm.predictors else "imaging"
        both = pd.concat([before.reset_index(drop=True), after], ignore_index=True)
        seen = risk.seen_risk(both, scenario, sees=sees, seed=seed)
        known = {"seen_before": seen[: len(cases)], "seen_after": seen[len(cases) :]}
        frames.append(frame.assign(arm=arm.name, **known))
    return pd.concat(frames, ignore_index=True)
