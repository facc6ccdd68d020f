"""The long checks of the embedded cohort: `make simulation-checks`; their results are committed, dated.

    python benchmarks/simulation.py OUT [marginals] [ceilings] [readings] [cost] [scenarios] [summary]

Each part writes its tables into OUT; no part named: all. What is finished is kept in the cache and found
again, so an interrupted run continues. About 40 minutes on two cores, half of it networks.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import cohort, experiment, metrics, progress, storage, workers
from rlvo_lib.analysis import embedded_dataset, open_analysis
from rlvo_lib.config import available_workers, load_settings
from rlvo_lib.simulate import (
    ceiling,
    marginals,
    patients,
    reading,
    rendering,
    scenarios,
    write_dataset,
)

SEEDS = (101, 102, 103, 104, 105)
#: The arms that are trained on each seed's cohort of 599, by scenario.
ARMS = {
    "null": ("clinical_logistic", "ncct", "cta", "vessels", "ctp", "daft"),
    "signal": ("clinical_logistic", "ncct", "cta", "vessels", "ctp"),
    "interaction": ("clinical_logistic", "concat", "daft"),
}
#: To spare time the networks of a scenario see one cohort, and one fold of four: of `signal` and `interaction`
#: trained with five seeds; of `null` with one, and the outcomes dealt out anew five times.
PATIENTS, TRAINED_FOLD = {"null": 400}, 1
TRAINING_SEEDS, DEALS = (0, 1, 2, 3, 4), {"null": 5}
#: The same of tables alone.
TABLE_ARMS = ("clinical_logistic", "clinical_boosting")
CEILING = {"clinical_logistic": "clinical", "clinical_boosting": "clinical", "concat": "all",
           "film": "all", "daft": "all"}  # fmt: skip
FINE_PATIENTS = 10
CLOT_MM = 8.0  # a shorter clot fills too few voxels of a 3 mm slice to be measured
NULL_IS_A_NAME = {
    "keep_default_na": False,
    "na_values": [""],
}  # of a scenario, when a table is read
NEIGHBOUR_MM = 6.0  # a stenosis is read where no other vessel or calcium is nearer


def marginal_tables(out: Path) -> None:
    """20,000 table-only patients of the scenario `paper` against every value that was aimed at."""
    latents, table = patients.draw(20_000, np.random.default_rng(11))
    storage.write_csv(out / "marginals.csv", _rounded(marginals.measure(latents, table)))


def ceiling_tables(out: Path) -> None:
    """The best AUC that can be reached, by scenario and arm."""
    rows = []
    for name in scenarios.SCENARIOS:
        for arm, found in ceiling.compute(name)["arms"].items():
            values = {n: v for n, v in found.items() if n != "latents"}
            rows.append({"scenario": name, "ceiling": arm} | values)
    storage.write_csv(out / "ceilings.csv", _rounded(pd.DataFrame(rows)))


# ------------------------------------------------------------------------------------- readings


def reading_tables(out: Path, cache: Path) -> None:
    """Latents read back from whole scans of ten patients, on the fine grid and on the cohort's."""
    rows = []
    for grid in ("fine", "cohort"):
        tasks = [(cache, grid, index) for index in range(FINE_PATIENTS)]
        folder = cache / f"readings-{storage.code_key('simulate')}"
        todo = [t for t in tasks if not (folder / f"{grid}-{t[2]}.csv").exists()]
        workers.run(_read_one, [(folder, *t[1:]) for t in todo], workers=available_workers(),
                    label=f"reading {grid}", spawn_from=2)  # fmt: skip
        rows += [storage.read_csv(folder / f"{grid}-{index}.csv") for _, _, index in tasks]
    single = pd.concat(rows, ignore_index=True)
    limits = {"clot_hu": 3.0, "perviousness_hu": 6.0, "stenosis": 0.15, "occlusion_mm": 3.0,
              "core_ml": 0.10, "tmax4_ml": 0.10, "tmax6_ml": 0.10, "tmax10_ml": 0.10}  # fmt: skip
    table = []
    for (grid, latent), part in single.groupby(["grid", "latent"], sort=False):
        part = part.dropna(subset="read")
        error = (part["read"] - part["truth"]).abs()
        if latent.endswith("_ml"):
            error = np.minimum(error / part["truth"].clip(lower=1), error / 30)  # 10 % or 3 mL
        scored = latent == "calcium"
        table.append({
            "grid": grid, "latent": latent, "n": len(part),
            "limit": limits.get(latent, np.nan),
            "within": np.nan if scored else float((error <= limits[latent]).mean()),
            "median error": np.nan if scored else float(error.median()),
            "largest error": np.nan if scored else float(error.max()),
            "rank correlation": part["read"].corr(part["truth"], method="spearman"),
        })  # fmt: skip
    storage.write_csv(out / "readings.csv", _rounded(pd.DataFrame(table)))


def _read_one(folder: Path, grid: str, index: int) -> None:
    patient = patients.select(599, 2025)[0].iloc[index].to_dict()
    stream = np.random.SeedSequence([2025, 1, index])
    found = rendering.render(patient, stream, rendering.GRIDS[grid])
    side = "R" if patient["side"] == 1 else "L"
    measured = reading.volumes(found, patient["side"])
    laid = found.truth["volumes_ml"]
    start = np.array(found.truth["occlusion"]["start"])
    long = patient["clot_length_mm"] >= CLOT_MM
    rows = [
        ("clot_hu", patient["clot_hu"], reading.clot_density(found) if long else np.nan),
        (
            "perviousness_hu",
            patient["perviousness_hu"],
            reading.perviousness(found) if long else np.nan,
        ),
        ("occlusion_mm", 0.0, float(np.linalg.norm(reading.occlusion_start(found) - start))),
        ("calcium", patient["siphon_calcium"], reading.calcium(found, side)),
        *((f"{n}_ml", laid[n], measured[f"{n}_ml"]) for n in ("core", "tmax4", "tmax6", "tmax10")),
    ]
    for k, stenosis in enumerate(found.truth["stenoses"]):
        if _clear(found, stenosis):
            rows.append(("stenosis", stenosis["degree"], reading.stenosis_degree(found, k)))
    frame = pd.DataFrame(rows, columns=["latent", "truth", "read"])
    storage.write_csv(folder / f"{grid}-{index}.csv", frame.assign(grid=grid, patient=index))


def _clear(found: rendering.Rendered, stenosis: dict) -> bool:
    """Whether no other vessel lies beside a stenosis; carotids run beside bone and calcium."""
    if stenosis["vessel"].startswith(("ICA", "BA")):
        return False
    others = found.tree[found.tree["vessel"] != stenosis["vessel"]][["x", "y", "z"]].to_numpy()
    return bool(np.linalg.norm(others - np.array(stenosis["at"]), axis=1).min() > NEIGHBOUR_MM)


# ------------------------------------------------------------------------------------ scenarios


def scenario_tables(out: Path, cache: Path) -> None:
    """What arms reach in each scenario over five seeds, and whether anything else tells the label."""
    for name in ARMS:
        _scan_cohort(cache, name, SEEDS[0])
    for seed in SEEDS:
        for name in scenarios.SCENARIOS:
            if name not in ARMS:
                _table_cohort(cache, name, seed)
    _scan_cohort(cache, "paper", SEEDS[0], arms=False)
    scenario_summary(out, cache)


def _place(cache: Path, scenario: str, seed: int) -> Path:
    key = storage.code_key("simulate", "dataset", "images", "preprocess", "tabular", "encoders",
                           "fusion", "training", "experiment")  # fmt: skip
    return cache / f"cohorts-{key}" / f"{scenario}-{seed}"


def _table_cohort(cache: Path, scenario: str, seed: int) -> None:
    """AUCs of the clinical arms on one cohort of 599 rows."""
    place = _place(cache, scenario, seed)
    if (place / "aucs.csv").exists():
        return
    root = write_dataset(
        place / "scratch" / scenario, scenario=scenario, seed=seed, table_only=True
    )
    settings = load_settings("demo", data=root, arms=TABLE_ARMS, seed=seed,
                             cache=place / "scratch" / "cache", out=place / "scratch" / "run")  # fmt: skip
    predictions = experiment.run_arms(open_analysis(settings), None)
    storage.write_csv(place / "aucs.csv", _fold_aucs(predictions))
    shutil.rmtree(place / "scratch")


def _scan_cohort(cache: Path, scenario: str, seed: int, *, arms: bool = True) -> None:
    """Simulate, train, and keep AUCs, leaks and (signal) tensors of one cohort with scans."""
    place = _place(cache, scenario, seed)
    if (place / "leaks.csv").exists():
        return
    print(f"{scenario}, seed {seed}", file=sys.stderr)
    scratch = place / "scratch"
    settings = load_settings("demo", scenario=scenario, seed=seed, arms=ARMS.get(scenario, ()),
                             patients=PATIENTS.get(scenario, 599),
                             training_seeds=(0,) if scenario in DEALS else TRAINING_SEEDS,
                             cache=scratch / "cache", out=scratch / "run")  # fmt: skip
    root = embedded_dataset(settings)
    analysis = open_analysis(settings)
    if arms:
        tensors = analysis.tensors()
        dealt = [_dealt(analysis, k) for k in range(DEALS.get(scenario, 1))]
        tasks = [
            (one, tensors, task)
            for one in dealt
            for task in experiment.plan(one, tensors, list(ARMS[scenario]))
            if task.fold == TRAINED_FOLD
        ]
        workers.run(experiment.run_task, tasks, workers=settings.workers, label="training")
        made = [
            storage.read_csv(task.folder / "predictions.csv").assign(
                seed=task.seed + k * len(TRAINING_SEEDS)
            )
            for k, one in enumerate(dealt) for case, _, task in tasks if case is one
        ]  # fmt: skip
        storage.write_csv(place / "aucs.csv", _fold_aucs(pd.concat(made)))
    if scenario == "signal":
        names = sorted(cohort.included(analysis.frame).index)
        np.save(place / "tensors.npy", tensors.load(names, tuple(settings.study.channels)))
        np.save(place / "labels.npy", analysis.y[names].to_numpy())
    storage.write_csv(place / "leaks.csv", _leaks(root, analysis))
    shutil.rmtree(scratch)


def _dealt(analysis, k: int):
    """The same patients, the outcomes dealt out anew within each part and fold; `k` 0: as they are."""
    if k == 0:
        return analysis
    rng, frame = np.random.default_rng(k), analysis.frame.set_index("participant_id")
    column = analysis.settings.study.outcome
    parts = (
        analysis.split.set_index("participant_id")[["partition", "fold"]]
        .astype(str)
        .agg("-".join, axis=1)
    )
    new = frame[column].copy()
    for _, ids in parts.groupby(parts).groups.items():
        new[ids] = rng.permutation(frame.loc[ids, column].to_numpy())
    return dataclasses.replace(analysis, frame=frame.assign(**{column: new}).reset_index())


def _fold_aucs(predictions: pd.DataFrame) -> pd.DataFrame:
    """AUC of each fold's model on those it has not seen: held out of the fold, and the test set."""
    rows = [
        (arm, seed, f"fold {fold}", len(part), metrics.auc(part["y_true"], part["probability"]))
        for (arm, seed, fold), part in predictions.groupby(["arm", "seed", "fold"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["arm", "run", "part", "n", "auc"])


def _leaks(root: Path, analysis) -> pd.DataFrame:
    """AUC of what must not tell the label: order, identifier, sidecars and headers, file sizes."""
    import nibabel

    y = analysis.y
    scores: dict[str, list[float]] = {
        "order": [], "scanner": [], "NCCT tilt": [], "CTA voxels": [], "map slices": [],
    }  # fmt: skip
    sizes: dict[str, list[float]] = {}
    for k, name in enumerate(y.index):
        files = {
            p.name.split("_")[-1].removesuffix(".nii.gz"): p for p in (root / name).rglob("*.gz")
        }
        sidecar = storage.read_json(Path(str(files["ncct"]).removesuffix(".nii.gz") + ".json"))
        scores["order"].append(k)
        scores["scanner"].append(ord(sidecar["ManufacturersModelName"][-1]))
        scores["NCCT tilt"].append(float(nibabel.load(files["ncct"]).affine[1, 2]))
        scores["CTA voxels"].append(float(np.prod(nibabel.load(files["cta"]).shape)))
        scores["map slices"].append(float(nibabel.load(files["tmax"]).shape[2]))
        for scan in sorted(files):
            sizes.setdefault(scan, [np.nan] * len(y))[k] = float(files[scan].stat().st_size)
    rows = []
    for what, score in (scores | {f"bytes of {n}": s for n, s in sizes.items()}).items():
        known = ~np.isnan(score)
        rows.append((what, int(known.sum()), metrics.auc(y[known], np.array(score)[known])))
    return pd.DataFrame(rows, columns=["score", "n", "auc"])


def scenario_summary(out: Path, cache: Path) -> None:
    """Means over the cohorts that are finished, beside what could be reached."""
    aucs, leaks = [], []
    for name in scenarios.SCENARIOS:
        for seed in SEEDS:
            place, own = _place(cache, name, seed), {"scenario": name, "cohort": seed}
            if (place / "aucs.csv").exists():
                aucs.append(storage.read_csv(place / "aucs.csv").assign(**own))
            if (place / "leaks.csv").exists():
                leaks.append(storage.read_csv(place / "leaks.csv").assign(**own))
    reached = storage.read_csv(out / "ceilings.csv", **NULL_IS_A_NAME).set_index(
        ["scenario", "ceiling"]
    )["fitted"]
    rows = []
    for (name, arm), part in pd.concat(aucs).groupby(["scenario", "arm"], sort=False):
        runs = part.groupby(["cohort", "run"])["auc"].mean()
        rows.append({
            "scenario": name, "arm": arm, "cohorts": part["cohort"].nunique(), "runs": len(runs),
            "patients judged": int(part["n"].max()), "AUC": runs.mean(), "SD over runs": runs.std(ddof=1),
            "lowest": runs.min(), "highest": runs.max(), "reachable from 481": reached.get((name, CEILING.get(arm, arm)), np.nan),
        })  # fmt: skip
    storage.write_csv(out / "scenarios.csv", _rounded(pd.DataFrame(rows)))
    found = pd.concat(leaks).groupby(["scenario", "score"], sort=False)["auc"]
    table = found.agg(["count", "mean", "min", "max"]).reset_index()
    table = table.rename(columns={"count": "cohorts", "mean": "mean AUC"})
    storage.write_csv(out / "leaks.csv", _rounded(table))
    if (_place(cache, "signal", SEEDS[0]) / "tensors.npy").exists():
        storage.write_csv(out / "signal_rules.csv", _rounded(_plain_rules(cache)))


def _plain_rules(cache: Path) -> pd.DataFrame:
    """The best single voxel and the mean intensity of each channel, over the patients of `signal`.

    AUC or its mirror, whichever is larger; of 40,960 voxels the best is high by chance: 0.60 of 599 patients
    whose voxels tell nothing.
    """
    from scipy.stats import rankdata

    places = [p for p in (_place(cache, "signal", s) for s in SEEDS) if (p / "labels.npy").exists()]
    y = np.concatenate([np.load(p / "labels.npy") for p in places]).astype(bool)
    tensors = [np.load(p / "tensors.npy", mmap_mode="r") for p in places]
    positive, negative = int(y.sum()), int((~y).sum())

    def auc_of(scores: np.ndarray) -> np.ndarray:
        ranks = rankdata(scores, axis=0)[y].sum(axis=0)
        auc = (ranks - positive * (positive + 1) / 2) / (positive * negative)
        return np.maximum(auc, 1 - auc)

    rows = []
    for k, name in enumerate(load_settings("demo").study.channels):
        flat = np.concatenate([np.asarray(t[:, k]).reshape(len(t), -1) for t in tensors])
        best = max(float(auc_of(part).max()) for part in np.array_split(flat, 16, axis=1))
        mean = float(auc_of(flat.mean(axis=1, dtype=np.float32)[:, None])[0])
        rows.append((name, len(y), positive, best, mean))
    columns = ["channel", "n", "events", "best single voxel", "mean intensity"]
    return pd.DataFrame(rows, columns=columns)


# ----------------------------------------------------------------------------------------- cost


def cost_table(out: Path) -> None:
    """Seconds of one process and voxels a patient, as the grid of the CTA grows."""
    latents = patients.select(599, 2025)[0].head(2).to_dict("records")
    plan = rendering.GRIDS["cohort"]
    plans = {f"cohort, CTA {mm:g} mm": plan.with_cta_mm(mm) for mm in (3.0, 2.0, 1.5, 1.0, 0.7)}
    plans["fine"] = rendering.GRIDS["fine"]
    rows = []
    for name, grids in plans.items():
        begun, voxels = time.process_time(), 0
        for index, patient in enumerate(progress.track(latents, label=name)):
            found = rendering.render(patient, np.random.SeedSequence([2025, 1, index]), grids)
            voxels += sum(scan.size for scan, _ in found.scans.values())
        seconds = (time.process_time() - begun) / len(latents)
        rows.append((name, voxels / len(latents) / 1e6, seconds))
    columns = ["grid", "million voxels a patient", "CPU seconds a patient"]
    storage.write_csv(out / "cost.csv", _rounded(pd.DataFrame(rows, columns=columns)))


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    numbers = table.select_dtypes("float").columns
    return table.assign(**{n: table[n].round(4) for n in numbers})


def main(out: str, parts: list[str]) -> None:
    """Make the named parts, or all."""
    folder, cache = Path(out), load_settings("demo").cache / "simulation-checks"
    made = {
        "marginals": lambda: marginal_tables(folder),
        "ceilings": lambda: ceiling_tables(folder),
        "readings": lambda: reading_tables(folder, cache),
        "cost": lambda: cost_table(folder),
        "scenarios": lambda: scenario_tables(folder, cache),
        "summary": lambda: scenario_summary(folder, cache),
    }
    for part in parts or [name for name in made if name != "summary"]:
        print(part, file=sys.stderr)
        made[part]()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give the folder for the results: python benchmarks/simulation.py OUT [PART ...]")
    main(sys.argv[1], sys.argv[2:])
