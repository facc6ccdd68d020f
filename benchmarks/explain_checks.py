"""Can explanations be believed: the checks that need networks trained for them: `make explain-checks`.

    python benchmarks/explain_checks.py OUT [options]

SIMULATED patients throughout. On a cohort of ``signal``, where a network of images finds what decides the outcome:
the checks of a run, networks trained on outcomes dealt out anew, and further training seeds. On a cohort of
``null``, where nothing predicts: whether any region is enriched. Datasets, tensors, networks and maps are kept in
the cache and found again, so an interrupted benchmark continues. Writes into OUT

- ``checks.csv``: method by check, value with limits, criterion, verdict (`results.explanation_checks`);
- ``method_by_check.csv``: the same in words, a column a method;
- ``networks.csv``: the AUC of every network on the test part, and of their mean;
- ``regions.csv``: enrichment by region (`results.region_enrichment`) of the three kinds of networks;
- ``about.json``: cohorts, settings and versions.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import experiment, explain, metrics, results, storage
from rlvo_lib.analysis import Analysis, open_analysis
from rlvo_lib.config import InputError, Settings, available_workers, load_settings
from rlvo_lib.preprocess import TensorCache

NETWORK_COLUMNS = [
    "scenario", "outcomes", "arm", "seed", "fold", "n", "events", "auc", "low", "high", "data",
]  # fmt: skip
DIGITS = 4
METHODS = tuple(explain.METHODS)


@dataclass(frozen=True)
class Trained:
    """Networks of one arm and seed on a cohort: its folds, with what they explain."""

    scenario: str
    outcomes: str  # "own" or "dealt anew"
    analysis: Analysis
    tensors: TensorCache
    tasks: list[experiment.Task]

    @property
    def title(self) -> str:
        """The scenario as a cell of a table: the bare word null would be read as a missing value."""
        return f"{self.scenario} scenario"

    @property
    def maps(self) -> explain.Maps:
        """Maps of all `METHODS`, by each fold model and their mean."""
        return explain.maps_of_folds(self.analysis, self.tensors, self.tasks, METHODS)

    def regions(self) -> pd.DataFrame:
        """Where the attribution falls, patient by patient."""
        return explain.region_shares(self.analysis, self.tensors, self.maps)


def cohort(scenario: str, settings: Settings) -> tuple[Analysis, TensorCache]:
    """A simulated cohort of a scenario and its tensors, made where they are not there yet."""
    place = settings.cache / "explain-checks" / f"{scenario}-{settings.patients}-{settings.seed}"
    own = dataclasses.replace(settings, scenario=scenario, out=place)
    analysis = open_analysis(own)
    return analysis, analysis.tensors()


def train(
    analysis: Analysis, tensors: TensorCache, arm: str, seed: int, outcomes: str = "own"
) -> Trained:
    """The fold models of an arm with one training seed; what is finished is found again."""
    settings = dataclasses.replace(analysis.settings, training_seeds=(seed,))
    seeded = dataclasses.replace(analysis, settings=settings)
    if outcomes != "own":
        seeded = explain.PermutedLabels.of(seeded)
    tasks = experiment.plan(seeded, tensors, [arm])
    if not all(task.done for task in tasks):
        experiment.run_tasks(seeded, tensors, tasks)
    return Trained(settings.scenario, outcomes, seeded, tensors, tasks)


def network_table(trained: Sequence[Trained]) -> pd.DataFrame:
    """AUC of each fold's network on the test part, and of the mean of their probabilities (fold empty), DeLong."""
    rows = []
    for one in trained:
        frames = [storage.read_csv(task.result) for task in one.tasks]
        test = pd.concat(frames).query("partition == 'test'")
        scores = [(task.fold, part["probability"]) for task, part in _by_fold(one, test)]
        y = _by_fold(one, test)[0][1]["y_true"].to_numpy(float)
        scores.append((np.nan, sum(values for _, values in scores) / len(scores)))
        for fold, values in scores:
            area, variance = metrics.delong_covariance(y, values.to_numpy()[:, None])
            low, high, _ = metrics.auc_interval(float(area[0]), float(variance[0, 0]))
            about = (one.title, one.outcomes, one.tasks[0].arm.name, one.tasks[0].seed, fold)
            rows.append((*about, len(y), int(y.sum()), float(area[0]), low, high, "simulated"))
    return pd.DataFrame(rows, columns=NETWORK_COLUMNS)


def _by_fold(one: Trained, test: pd.DataFrame) -> list[tuple[experiment.Task, pd.DataFrame]]:
    """The test patients' rows of each task, in one order."""
    parts = [test[test["fold"] == task.fold].sort_values("participant_id") for task in one.tasks]
    aligned = [part.reset_index(drop=True) for part in parts]
    return list(zip(one.tasks, aligned, strict=True))


def measure(signal: Sequence[Trained], dealt: Trained, null: Trained) -> pd.DataFrame:
    """The rows of every check: networks of several seeds, of outcomes dealt out anew, and of ``null``."""
    first = signal[0]
    head = explain.head_of(first.analysis, first.tensors, first.tasks[0])
    own = first.regions()
    tables = [
        explain.checks_of_folds(first.analysis, first.tensors, first.tasks, METHODS, regions=own),
        explain.label_rows(first.maps, dealt.maps, head),
        explain.learnt_rows(own, dealt.regions()),
        explain.null_rows(null.regions()),
    ]
    if len(signal) > 1:
        tables.append(explain.seed_rows([one.maps for one in signal], head))
    return pd.concat(tables, ignore_index=True)


def region_table(trained: Sequence[Trained]) -> pd.DataFrame:
    """Enrichment by region of each kind of networks."""
    tables = []
    for one in trained:
        table = results.region_enrichment(one.regions(), data="simulated")
        table.insert(0, "scenario", one.title)
        table.insert(1, "outcomes", one.outcomes)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    numbers = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].round(DIGITS) for name in numbers})


def run(settings: Settings, arm: str, seeds: Sequence[int], out: Path) -> pd.DataFrame:
    """Train what is missing, measure, write the tables into ``out`` and return that of the checks."""
    analysis, tensors = cohort("signal", settings)
    signal = [train(analysis, tensors, arm, seed) for seed in seeds[:1]]
    _log("signal: trained")
    dealt = train(analysis, tensors, arm, seeds[0], "dealt anew")
    _log("signal, outcomes dealt out anew: trained")
    signal += [train(analysis, tensors, arm, seed) for seed in seeds[1:]]
    _log("signal, further seeds: trained")
    null = train(*cohort("null", settings), arm, seeds[0])
    _log("null: trained")
    table = results.explanation_checks(measure(signal, dealt, null), data="simulated")
    storage.write_csv(out / "networks.csv", _rounded(network_table([*signal, dealt, null])))
    storage.write_csv(out / "regions.csv", _rounded(region_table([signal[0], dealt, null])))
    storage.write_csv(out / "checks.csv", _rounded(table))
    storage.write_csv(out / "method_by_check.csv", results.check_matrix(table))
    storage.write_json(out / "about.json", _about(settings, arm, seeds))
    return table


def _about(settings: Settings, arm: str, seeds: Sequence[int]) -> dict:
    named = ("patients", "seed", "grid_shape", "grid_spacing_mm", "encoder", "explained_patients",
             "mapped_patients", "shap_background")  # fmt: skip
    code = storage.code_key("simulate", "preprocess", "training", "explain", "results")
    about = {"data": "simulated", "arm": arm, "training_seeds": list(seeds)}
    return about | settings.subset(*named) | {"code": code}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked.

    Raises
    ------
    InputError
        For an arm without images, or seeds that are no whole numbers.
    """
    parser = argparse.ArgumentParser(prog="explain_checks.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the tables")
    parser.add_argument("--arm", default="imaging", help="an arm of images (imaging)")
    parser.add_argument("--seeds", default="0,1,2", help="training seeds (0,1,2)")
    parser.add_argument("--profile", default="demo", help="profile of the settings (demo)")
    parser.add_argument("--cache", type=Path, help="default: the package's")
    parser.add_argument("--workers", type=int, default=available_workers())
    options = parser.parse_args(arguments)
    arms = load_settings("demo").study.arms
    if options.arm not in arms or arms[options.arm].kind != "cnn":
        allowed = ", ".join(name for name, arm in arms.items() if arm.kind == "cnn")
        raise InputError(f"--arm is '{options.arm}'; allowed: {allowed}")
    parts = options.seeds.split(",")
    if not all(part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise InputError(
            f"--seeds is '{options.seeds}'; allowed: different whole numbers, e.g. 0,1,2"
        )
    options.seeds = [int(part) for part in parts]
    return options


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> None:
    """Run the benchmark as the command line says."""
    options = parse(arguments)
    more = {"cache": options.cache.resolve()} if options.cache else {}
    settings = load_settings(options.profile, workers=options.workers, **more)
    table = run(settings, options.arm, options.seeds, options.out)
    said = table.pivot(index="check", columns="method", values="verdict")
    print(said.loc[list(results.CHECKS)].to_string())
    print(f"fail nothing: {', '.join(results.usable_methods(table)) or 'none'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
