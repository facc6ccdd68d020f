"""What the arms learn from cohorts of the study's size: `make learning`. SIMULATED patients throughout.

    python benchmarks/learning.py OUT null|signal|interaction|paper|summary ... [options]

A scenario is one dataset in the cache: a test part of 2,000 that all share, and training cohorts of 481
(`learning_cohorts`). Each cohort runs the study's arms as any run does. `null` is the dataset of `paper`
with its outcomes dealt out anew, by default twice a cohort: ten runs are five cohorts with two deals each.
What a cohort gave is written at once and found again, so an interrupted run continues. `summary`
makes the tables (`learning_tables`) from what is finished, here and in the result folders of `--merge`.
Adding cohorts makes a larger dataset of other patients: every cohort of it is trained anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import learning_cohorts
import learning_tables
import pandas as pd

from rlvo_lib import experiment, storage
from rlvo_lib.config import InputError, Settings, available_workers, load_settings, project_root

SCENARIOS = ("null", "signal", "interaction", "paper")
_IMAGING = ("ncct", "cta", "vessels", "ctp", "imaging")
#: The arms of a scenario; empty: all of the study file.
ARMS: dict[str, tuple[str, ...]] = {
    "null": (),
    "signal": ("clinical_logistic", *_IMAGING, "daft"),
    "interaction": ("clinical_logistic", "imaging", "concat", "concat2fc", "film", "daft"),
    "paper": (),
}
#: Of the package, what cannot change a prediction.
_AFTER = ("figures", "results", "report", "verify", "notebooks", "cli", "explain", "templates", "intake",
          "dicom", "adapters", "progress", "workers")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Unit:
    """One training cohort of a scenario; `deal` above 0: the outcomes dealt out anew for that time."""

    scenario: str
    cohort: int
    deal: int = 0

    def folder(self, results: Path) -> Path:
        """Where its predictions are kept, a file an arm."""
        deal = f"-deal-{self.deal}" if self.deal else ""
        return results / self.scenario / f"cohort-{self.cohort:02d}{deal}"


def units(scenario: str, cohorts: int, deals: int) -> list[Unit]:
    """The cohorts of a scenario; of `null` each with every deal, in the order deal by deal."""
    if scenario != "null":
        return [Unit(scenario, k + 1) for k in range(cohorts)]
    return [Unit(scenario, k + 1, d + 1) for d in range(deals) for k in range(cohorts)]


def results_folder(settings: Settings) -> Path:
    """Results of the present code, arms and settings; others lie beside it."""
    root = project_root() / "rlvo_lib"
    modules = sorted(
        p.stem for p in root.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    )
    names = ("scans", "channels", "views", "grid", "flip_to_side", "side_codes", "criteria", "eligibility",
             "predictors", "measures", "readers", "arms", "validation")  # fmt: skip
    study = {name: repr(getattr(settings.study, name)) for name in names}
    study["dictionary"] = storage.digest(settings.study.dictionary_path)
    code = storage.code_key(*(m for m in modules if m not in (*_AFTER, "__init__")))
    return settings.cache / "learning" / f"results-{storage.key(code, study, _given(settings))}"


def _given(settings: Settings) -> dict[str, Any]:
    """The settings that a result depends on: not places, machine, or what each cohort has of its own."""
    left_out = ("study", "profile", "data", "out", "cache", "workers", "arms", "training_seeds",
                "patients", "scenario", "device", "gpu_processes", "bootstrap_resamples")  # fmt: skip
    return settings.subset(
        *(f.name for f in dataclasses.fields(settings) if f.name not in left_out)
    )


# ---------------------------------------------------------------------------------------- running


def run_scenario(scenario: str, options: argparse.Namespace, results: Path) -> None:
    """Train the arms on this shard's cohorts of a scenario; what is finished is left out."""
    study = load_settings("demo").study
    arms = [a for a in (options.arms or ARMS[scenario] or study.arms) if _known(a, study)]
    number, of = options.shard
    own = units(scenario, options.cohorts, options.deals)[number - 1 :: of]
    if not arms or all((u.folder(results) / f"{a}.csv").exists() for u in own for a in arms):
        _log(f"{scenario}: nothing left to train")
        return
    prepared = learning_cohorts.prepare(
        scenario, cohorts=options.cohorts, test=options.test, cache=options.cache, data=options.data,
        workers=options.workers, images=any(_has_images(a, study) for a in arms), keep_scans=options.keep_scans,
    )  # fmt: skip
    for unit in own:
        run_unit(unit, prepared, arms, results)


def _known(arm: str, study) -> bool:
    if arm not in study.arms:
        _log(f"arm '{arm}' is left out: not in the study file")
    return arm in study.arms


def _has_images(arm: str, study) -> bool:
    """Whether an arm, or an arm it is made of, sees scans; of unknown kinds: all but the tabular ones."""
    own = study.arms[arm]
    tabular = own.kind in ("logistic", "boosting", "mlp", "mean", "stack")
    tabular = tabular and not own.channels and not own.measures
    return not tabular or any(_has_images(part, study) for part in own.of)


def run_unit(
    unit: Unit, prepared: learning_cohorts.Prepared, arms: list[str], results: Path
) -> None:
    """Train the arms that a cohort lacks, and write each one's predictions."""
    folder = unit.folder(results)
    todo = [a for a in arms if not (folder / f"{a}.csv").exists()]
    if not todo:
        return
    begun = time.monotonic()
    analysis = learning_cohorts.cohort_analysis(prepared, unit.cohort, unit.deal)
    tensors = learning_cohorts.patients_of(prepared.tensors, analysis)
    analysis = dataclasses.replace(
        analysis, settings=dataclasses.replace(analysis.settings, arms=tuple(todo))
    )
    ladder = experiment.ladder(analysis, tensors).set_index("arm")
    for arm in [a for a in todo if not ladder.loc[a, "runs"]]:
        _log(f"{folder.name}: arm '{arm}' is left out: {ladder.loc[arm, 'reason']}")
        todo.remove(arm)
    if not todo:
        return
    _log(f"{unit.scenario}, {folder.name}: {', '.join(todo)}")
    predictions = experiment.run_arms(analysis, tensors, todo)
    storage.write_json(folder.parent / "dataset.json", _about(prepared))
    for arm in todo:
        storage.write_csv(folder / f"{arm}.csv", predictions[predictions["arm"] == arm])
    _log(f"{unit.scenario}, {folder.name}: {time.monotonic() - begun:.0f} s")


def _about(prepared: learning_cohorts.Prepared) -> dict[str, Any]:
    """What results must have in common to be summarised together."""
    analysis = prepared.analysis
    return {
        "dataset": prepared.fingerprint,
        "name": analysis.dataset.name,
        "test": int((analysis.split["partition"] == "test").sum()),
        "settings": _given(analysis.settings),
        "ceiling": prepared.ceiling,
    }


# ---------------------------------------------------------------------------------------- summary


def summarise(out: Path, folders: list[Path]) -> None:
    """Write cohorts.csv, learning.csv, differences.csv and goals.csv from the finished cohorts.

    Raises
    ------
    InputError
        If nothing is finished, or two folders hold a scenario measured on other patients or settings.
    """
    results, about = collect(folders)
    if not results:
        raise InputError(
            f"no finished cohort in {', '.join(map(str, folders))}; name a scenario first"
        )
    study = load_settings("demo").study
    tests = {name: known["test"] for name, known in about.items()}
    ceilings = {name: known["ceiling"] for name, known in about.items()}
    learning = learning_tables.learning_table(results, ceilings, tests, study)
    differences = learning_tables.difference_table(results)
    tables = {
        "cohorts": learning_tables.cohort_table(results).assign(data="simulated"),
        "learning": learning,
        "differences": differences,
        "goals": learning_tables.goal_table(learning, differences, tests),
    }
    for name, table in tables.items():
        numbers = table.select_dtypes("float").columns
        rounded = table.assign(**{n: table[n].round(4) for n in numbers})
        storage.write_csv(out / f"{name}.csv", rounded)
    _log(f"tables of {len(results)} trained arms in {out}")


def collect(folders: list[Path]) -> tuple[list[learning_tables.Scored], dict[str, dict]]:
    """The scored results of several result folders, and what is known of each scenario's dataset.

    A cohort and arm that two folders hold is taken from the first.
    """
    found: dict[tuple, Path] = {}
    about: dict[str, dict] = {}
    came: dict[str, Path] = {}
    for folder in folders:
        for place in sorted(folder.glob("*/dataset.json")):
            scenario, own = place.parent.name, storage.read_json(place)
            known = about.setdefault(scenario, own)
            differing = [n for n in ("dataset", "test", "settings") if own[n] != known[n]]
            if differing:
                raise InputError(
                    f"{place}: scenario '{scenario}' was measured with another {differing[0]} than in "
                    f"{came[scenario]}; allowed: results of one dataset and the same settings"
                )
            came.setdefault(scenario, place)
            for path in sorted(place.parent.glob("cohort-*/*.csv")):
                _, cohort, *deal = path.parent.name.split("-")
                key = (scenario, int(cohort), int(deal[1]) if deal else 0, path.stem)
                found.setdefault(key, path)
    ranks = (SCENARIOS, tuple(load_settings("demo").study.arms))
    order = sorted(found, key=lambda k: (_rank(ranks[0], k[0]), _rank(ranks[1], k[3]), k))
    scored = [
        learning_tables.score(
            _read(found[key]), dict(zip((*learning_tables.UNIT, "arm"), key, strict=True))
        )
        for key in order
    ]
    return scored, about


def _read(path: Path) -> pd.DataFrame:
    return storage.read_csv(path)


def _rank(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else len(names)


# ---------------------------------------------------------------------------------------- command


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked.

    Raises
    ------
    InputError
        Naming the argument, its value and what is allowed.
    """
    parser = argparse.ArgumentParser(prog="learning.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the tables")
    parser.add_argument("parts", nargs="+", help=f"{', '.join(SCENARIOS)} or summary")
    parser.add_argument("--cohorts", type=int, default=5, help="training cohorts of 481 (5)")
    parser.add_argument(
        "--test", type=int, default=2000, help="patients of the shared test part (2000)"
    )
    parser.add_argument("--deals", type=int, default=2, help="of `null`, for each cohort (2)")
    parser.add_argument("--arms", default="", help="a,b: those to run; default: the scenario's")
    parser.add_argument("--shard", default="1/1", help="i/n: every n-th cohort, from the i-th")
    parser.add_argument(
        "--keep-scans", action="store_true", help="do not delete the simulated scans"
    )
    parser.add_argument("--cache", type=Path, help="default: the package's")
    parser.add_argument("--data", type=Path, help="a dataset folder that is there already")
    parser.add_argument("--workers", type=int, default=available_workers())
    parser.add_argument("--merge", nargs="+", type=Path, default=[], metavar="DIR",
                        help="result folders of other machines")  # fmt: skip
    options = parser.parse_args(arguments)
    options.arms = tuple(a for a in options.arms.split(",") if a)
    options.cache = options.cache.resolve() if options.cache else load_settings("demo").cache
    options.shard = _shard(options.shard)
    _check(options)
    return options


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise InputError(f"--shard is '{text}'; allowed: i/n with i from 1 to n, e.g. 2/3")
    return int(number), int(of)


def _check(options: argparse.Namespace) -> None:
    for part in options.parts:
        if part not in (*SCENARIOS, "summary"):
            raise InputError(f"part is '{part}'; allowed: {', '.join(SCENARIOS)}, summary")
    for name, least in (("cohorts", 1), ("test", 20), ("deals", 1), ("workers", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}; allowed: {least} or more")
    for arm in options.arms:
        if arm not in load_settings("demo").study.arms:
            raise InputError(f"--arms names '{arm}'; allowed: arms of the study file")
    sources = {learning_cohorts.SOURCE.get(p, p) for p in options.parts if p != "summary"}
    if options.data and len(sources) > 1:
        raise InputError(
            f"--data is one dataset; allowed with one scenario, not {', '.join(sources)}"
        )
    for folder in (options.data, *options.merge):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder; allowed: a folder that is there")


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> None:
    """Run the parts that are named, then make the tables from everything that is finished."""
    options = parse(arguments)
    results = results_folder(load_settings("demo", cache=options.cache))
    _log(f"results are kept in {results}")
    for part in options.parts:
        if part != "summary":
            run_scenario(part, options, results)
    summarise(options.out, [results, *options.merge])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
