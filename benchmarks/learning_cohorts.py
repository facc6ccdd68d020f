"""Training cohorts of 481 cut from one SIMULATED dataset, beside one test part that all share.

The dataset of a scenario has ``test + cohorts * 481`` patients. Its training part is cut into disjoint
cohorts with the same number of events, each with four folds stratified by outcome. Which patients make
cohort 3 depends on the dataset and the scenario's seed, not on how many cohorts are asked for: asked
for fewer, or continued with more of the same dataset, it stays the same. A dataset of another size is
other patients throughout (`simulate.patients.select` draws them together), so that its cohorts and its
test part have nothing in common with those of the smaller one, and results of the two are not mixed.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import cohort, dataset, dictionary, preprocess, simulate, storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError, Settings, load_settings
from rlvo_lib.results.ceiling import check_ceiling

COHORT = 481  # the study's training part
SEEDS = {"paper": 7001, "signal": 7002, "interaction": 7003}  # of the dataset, and of the cutting
SOURCE = {"null": "paper"}  # whose patients and tensors are taken; the outcomes are dealt out anew
#: What the opened dataset and its tensors depend on.
PREPARING = ("simulate", "dataset", "cohort", "images", "head", "registration", "vessels",
             "perfusion", "preprocess")  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """The opened dataset of a scenario: eligible patients, both parts, tensors where they are needed."""

    analysis: Analysis  # its split has partitions, and no folds yet
    tensors: preprocess.TensorCache | None
    ceiling: dict  # content of derivatives/ceiling.json
    seed: int  # of the cutting

    @property
    def fingerprint(self) -> str:
        """Changes when a patient, an outcome or the partition changes."""
        parts = self.analysis.split[["participant_id", "partition"]].to_csv(index=False)
        return storage.key(parts, self.analysis.y.to_csv(), self.seed)


# -------------------------------------------------------------------------------------- cutting


def carve(y: pd.Series, *, seed: int, size: int = COHORT, folds: int = 4) -> pd.DataFrame:
    """Cut training patients into as many disjoint cohorts of `size` as there are, each into folds.

    Events are spread evenly: of n patients with E events the first k cohorts together hold
    floor(k * size * E / n), so that two cohorts differ by one at most (77 of 481 each where E / n is
    77 / 481). Within a cohort events are dealt to the folds first and the others after, which keeps
    sizes and events of the folds within one.

    Parameters
    ----------
    y : outcome (0 or 1) of the training patients, by participant_id; their order does not matter.

    Returns
    -------
    DataFrame participant_id, cohort (1...), fold ("1" to "4"); patients who are left over are not in it.

    Raises
    ------
    InputError
        If there are fewer than `size` patients.

    Examples
    --------
    >>> y = pd.Series([1, 0] * 20, index=[f"sub-{i:02d}" for i in range(40)])
    >>> carve(y, seed=1, size=20).groupby("cohort").size().to_dict()
    {1: 20, 2: 20}
    """
    if len(y) < size:
        raise InputError(f"training part has {len(y)} patients; allowed: {size} or more")
    y = y.sort_index()
    rng = np.random.default_rng([seed, 1])
    events, others = (rng.permutation(y.index[y == value].to_numpy()) for value in (1, 0))
    rows, cuts = [], [k * size * len(events) // len(y) for k in range(len(y) // size + 1)]
    for number in range(1, len(cuts)):
        first, last = cuts[number - 1], cuts[number]
        members = [*events[first:last], *others[(number - 1) * size - first : number * size - last]]
        dealt = np.random.default_rng([seed, 2, number]).permutation(folds)
        rows += [(p, number, str(dealt[i % folds] + 1)) for i, p in enumerate(members)]
    return pd.DataFrame(rows, columns=["participant_id", "cohort", "fold"])


def cohort_analysis(prepared: Prepared, number: int, deal: int = 0) -> Analysis:
    """Training cohort `number` (1...) with the shared test part; outcomes dealt out anew if `deal` > 0.

    The seed of the training is the cohort's (and the deal's) own, so that initial weights vary with
    the cohort and an interval over cohorts holds that too.
    """
    whole = prepared.analysis
    split = whole.split.set_index("participant_id")["partition"]
    cut = carve(whole.y[split.index[split == "train"]], seed=prepared.seed)
    if not 1 <= number <= cut["cohort"].max():
        raise InputError(f"cohort is {number}; allowed: 1 to {cut['cohort'].max()} in this dataset")
    own = cut[cut["cohort"] == number].set_index("participant_id")["fold"]
    test = split.index[split == "test"]
    members = sorted([*own.index, *test])
    part = pd.DataFrame({"participant_id": members})
    part["partition"] = np.where(part["participant_id"].isin(test), "test", "train")
    part["fold"] = part["participant_id"].map(own).fillna("").astype(str)
    frame = whole.frame[whole.frame["participant_id"].isin(members)].reset_index(drop=True)
    if deal:
        frame = dealt(
            frame, part, whole.settings.study.outcome, seed=[prepared.seed, 3, number, deal]
        )
    settings = dataclasses.replace(whole.settings, training_seeds=(number + 1000 * deal,))
    return dataclasses.replace(whole, settings=settings, frame=frame, split=part)


def dealt(
    frame: pd.DataFrame, split: pd.DataFrame, outcome: str, *, seed: list[int]
) -> pd.DataFrame:
    """The frame with its outcomes permuted within the test part and within each fold.

    So each part keeps its number of events, and nothing that is known of a patient tells the outcome:
    every AUC is 0.5 but for chance. (Permuted across parts, the events of a fold would vary with those
    of the rest, and the pooled out-of-fold AUC would fall below 0.5 by that alone.)
    """
    rng = np.random.default_rng(seed)
    frame = frame.set_index("participant_id")
    part = split.set_index("participant_id")[["partition", "fold"]].agg("-".join, axis=1)
    new = frame[outcome].copy()
    for name in sorted(set(part)):
        ids = sorted(part.index[part == name])
        new[ids] = rng.permutation(frame.loc[ids, outcome].to_numpy())
    return frame.assign(**{outcome: new}).reset_index()


def patients_of(tensors: preprocess.TensorCache | None, analysis: Analysis):
    """The tensor cache of a cohort's patients alone: what a training process is handed."""
    if tensors is None:
        return None
    ids = list(analysis.frame["participant_id"])
    records = {p: tensors.records[p] for p in ids if p in tensors.records}
    return dataclasses.replace(tensors, table=tensors.table.loc[list(records)], records=records)


# -------------------------------------------------------------------------------------- opening


def prepare(
    scenario: str, *, cohorts: int, test: int, cache: Path, data: Path | None = None,
    workers: int = 1, images: bool = True, keep_scans: bool = False,
) -> Prepared:  # fmt: skip
    """Simulate or open the dataset of a scenario, and prepare its tensors where `images` asks for them.

    What was opened is kept in the cache: the next call needs no scan, and those of a dataset made here
    are deleted once their tensors exist, unless `keep_scans`. A folder given as `data` is never changed.

    Raises
    ------
    InputError
        If a given folder is no simulated dataset of the scenario, or holds too few patients.
    """
    source = SOURCE.get(scenario, scenario)
    settings = load_settings("demo", cache=cache, out=cache / "learning" / "run", workers=workers,
                             gpu_processes=min(workers, 8))  # fmt: skip
    study = settings.study
    seen = repr([getattr(study, name) for name in (
        "scans", "channels", "views", "grid", "flip_to_side", "side_column", "side_codes", "criteria",
        "eligibility",
    )] + [settings.subset("grid_shape", "grid_spacing_mm", "template"),
          storage.digest(study.dictionary_path)])  # fmt: skip
    code = storage.key(storage.code_key(*PREPARING), seen)
    if data is None:
        name = f"{source}-{test + cohorts * COHORT}-{test}-{SEEDS[source]}-{code}"
        name += "" if images else "-tables"
        root = settings.cache / "learning" / "datasets" / name
    else:
        root = Path(data).resolve()
        name = f"{source}-{root.name}-{_content(root)}-{code}"
    opened = settings.cache / "learning" / "opened" / f"{name}-{cohorts}"
    with storage.lock(opened):
        if not (opened / ("tensors.json" if images else "cohort.csv")).exists():
            if data is None:
                _log(f"{source}: simulating {test + cohorts * COHORT} patients into {root}")
                simulate.write_dataset(root, patients=test + cohorts * COHORT, seed=SEEDS[source],
                                       scenario=source, test=test, table_only=not images,
                                       workers=workers, label=source)  # fmt: skip
            _open(root, opened, settings, source, cohorts if images else 0)
        if data is None and images and not keep_scans:
            _delete_scans(root)
    return _restore(root, opened, settings, source, images)


def _content(root: Path) -> str:
    for name in ("participants.tsv", "split.csv", "derivatives/ceiling.json"):
        if not (root / name).exists():
            raise InputError(
                f"data: {root / name} is missing; allowed: a folder of `rlvo simulate`"
            )
    return storage.key([storage.digest(root / n) for n in ("participants.tsv", "split.csv")])


def _open(root: Path, opened: Path, settings: Settings, source: str, cohorts: int) -> None:
    """Cohort frame, given split and keys of the tensors; the last file says that all is there.

    Tensors are made of the test part and of the first `cohorts` training cohorts.
    """
    words = dictionary.load(settings.study.dictionary_path)
    data = dataset.load_dataset(root, settings.study, words)
    frame = cohort.build(data, settings.study, words)
    eligible = set(cohort.included(frame).index)
    split = cohort.read_split(root / "split.csv")
    split = split[split["participant_id"].isin(eligible)]
    group = cohort.units(frame, words)
    if group.duplicated().any():
        raise InputError(f"{root}: patient '{group.index[group.duplicated()][0]}' is there twice")
    storage.write_csv(opened / "split.csv", split.assign(fold=""))
    storage.write_csv(opened / "cohort.csv", frame)
    if cohorts:
        part = split.set_index("participant_id")["partition"]
        y = cohort.labels(frame, settings.study)
        cut = carve(y[part.index[part == "train"]], seed=SEEDS[source])
        wanted = [*part.index[part == "test"], *cut["participant_id"][cut["cohort"] <= cohorts]]
        tensors = preprocess.prepare(data, settings, sorted(wanted))
        keys = {p: record["key"] for p, record in tensors.records.items()}
        storage.write_json(opened / "tensors.json", keys)


def _restore(root: Path, opened: Path, settings: Settings, source: str, images: bool) -> Prepared:
    words = dictionary.load(settings.study.dictionary_path)
    data = dataset.load_dataset(root, settings.study, words)
    ceiling = check_ceiling(storage.read_json(root / "derivatives" / "ceiling.json"), str(root))
    if not data.simulated or ceiling["scenario"] != source:
        raise InputError(
            f"data: {root} holds scenario '{ceiling['scenario']}'; allowed: simulated, '{source}'"
        )
    frame = cohort.read_frame(opened)
    split = cohort.read_split(opened / "split.csv")
    tensors = _tensors(settings.cache / "tensors", opened) if images else None
    return Prepared(Analysis(settings, words, data, frame, split), tensors, ceiling, SEEDS[source])


def _tensors(folder: Path, opened: Path) -> preprocess.TensorCache:
    """The tensors of an opened dataset, found without its scans."""
    from rlvo_lib.preprocess.cache import _table

    records = {
        p: storage.read_json(folder / key / "record.json") | {"key": key}
        for p, key in storage.read_json(opened / "tensors.json").items()
    }
    return preprocess.TensorCache(folder, _table(records), records)


def _delete_scans(root: Path) -> None:
    places = [*root.glob("sub-*"), *(root / "derivatives" / "truth").glob("sub-*")]
    for place in places:
        shutil.rmtree(place)
    if places:
        _log(f"scans of {root} deleted: their tensors are in the cache")


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
