"""A second study (SOOP) through the same library: nothing may be hard-wired to the first."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import (
    cohort,
    dictionary,
    experiment,
    explain,
    images,
    notebooks,
    results,
    storage,
    validation,
)
from rlvo_lib.analysis import open_analysis
from rlvo_lib.config import InputError, load_settings, load_study
from rlvo_lib.dataset import scan_path
from rlvo_lib.tabular import TabularEncoder

N = 60
CLINICAL = ["clinical_logistic", "volume", "territories", "clinical_volume", "clinical_territories"]


@pytest.fixture(scope="module")
def soop():
    return load_study("soop")


@pytest.fixture(scope="module")
def soop_dataset(tmp_path_factory, soop):
    """Sixty invented patients: large lesions and high NIHSS go with a poor outcome."""
    root = tmp_path_factory.mktemp("soop") / "dataset"
    rng = np.random.default_rng(1)
    affine = np.diag([-8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = [78, -112, -50]  # left is on the higher voxel indices, as in the source
    rows = []
    for i in range(N):
        name, radius = f"sub-{i + 1}", 1 + rng.integers(0, 4)
        grid = np.indices((20, 24, 17)) - np.array([6, 12, 8]).reshape(3, 1, 1, 1)
        mask = ((grid**2).sum(axis=0) <= radius**2).astype(np.uint8)
        images.save_nifti(scan_path(root, name, soop.scans["lesion"]), mask, affine)
        volume = mask.sum() * 0.512
        nihss = int(np.clip(3 * radius + rng.integers(0, 6), 0, 42))
        poor = rng.random() < 1 / (1 + np.exp(-(nihss - 10) / 2))
        territories = rng.multinomial(int(volume), np.full(32, 1 / 32))
        rows.append(
            {"participant_id": name, "age": rng.integers(40, 90), "sex": i % 2, "race": "w",
             "acute_stroke": 1, "prior_stroke": int(rng.random() < 0.2), "bmi": round(20 + 15 * rng.random(), 1),
             "nihss": nihss, "lesion_ml": round(float(volume), 3), "etiology": 1 + i % 5,
             "mrs_discharge": 4 if poor else 1}
            | {f"territory_{k + 1:02d}_ml": int(v) for k, v in enumerate(territories)}
        )  # fmt: skip
    table = pd.DataFrame(rows).astype(str)
    table.loc[0, "nihss"] = "-99"
    table.loc[1, "mrs_discharge"] = "-99"
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    description = {"Name": "invented", "BIDSVersion": "1.10.0", "simulated": True}
    storage.write_json(root / "dataset_description.json", description)
    scan_path(root, "sub-3", soop.scans["lesion"]).unlink()
    return root


@pytest.fixture(scope="module")
def opened(soop_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("soop_run")
    settings = load_settings(
        "smoke",
        study="soop",
        data=soop_dataset,
        out=folder / "run",
        cache=folder / "cache",
        workers=1,
    )
    study = settings.study
    fewer = dataclasses.replace(study, validation=study.validation | {"repeats": 3})
    return open_analysis(dataclasses.replace(settings, study=fewer))


def test_both_studies_are_there_and_the_first_is_the_default():
    assert load_study().name == "rlvo" and load_study("soop").name == "soop"
    assert load_settings("demo").out.name == "latest"


def test_the_miniature_is_valid(soop_dataset, soop):
    faults = validation.validate(soop_dataset, soop, dictionary.load(soop.dictionary_path))
    assert faults[faults["severity"] == "error"].empty, faults
    assert faults["message"].tolist() == ["a row without any scan"]


def test_eligibility_counts_what_is_unknown(opened):
    flow = cohort.flow(opened.frame, opened.settings.study).set_index("step")["excluded"]
    assert flow.to_dict() == {
        "assessed": 0, "lesion": 1, "age": 0, "sex": 0, "nihss": 1, "outcome": 1, "included": 0,
    }  # fmt: skip
    assert len(opened.y) == N - 3


def test_each_repetition_has_folds_of_its_own(opened):
    split = opened.split
    assert list(split.columns) == ["participant_id", "partition", "fold", "fold_2", "fold_3"]
    assert set(split["partition"]) == {"train"}
    assert not split["fold"].equals(split["fold_2"])
    assert opened.seeds == (0, 1, 2)
    for seed, column in enumerate(["fold", "fold_2", "fold_3"]):
        held_out = [p for f in range(1, 6) for p in opened.fold_parts(f, seed)["held_out"]]
        assert sorted(held_out) == sorted(split["participant_id"])
        first = split.loc[split[column] == "1", "participant_id"]
        assert opened.fold_parts(1, seed)["held_out"] == sorted(first)


def test_a_written_split_reads_back_with_its_repetitions(opened):
    kept = cohort.read_split(opened.settings.out / "split.csv")
    assert kept.equals(opened.split)
    again = cohort.make_split(
        opened.frame, opened.settings.study, opened.dictionary, seed=0,
        given=opened.settings.out / "split.csv",
    )  # fmt: skip
    assert again.equals(opened.split)
    with pytest.raises(InputError, match="column 'fold_4' is missing"):
        plan = opened.settings.study
        plan = dataclasses.replace(plan, validation=plan.validation | {"repeats": 4})
        cohort.make_split(
            opened.frame, plan, opened.dictionary, seed=0, given=opened.settings.out / "split.csv"
        )


def test_baselines_are_scored_out_of_fold_once_a_repetition(opened):
    predictions = experiment.run_arms(opened, opened.tensors(), CLINICAL)
    assert set(predictions["partition"]) == {"out-of-fold"}
    assert (predictions.groupby(["arm", "seed"]).size() == len(opened.y)).all()
    thresholds = results.choose_thresholds(predictions)
    table = results.performance(
        predictions, thresholds, opened.settings.study, data="simulated", resamples=50
    ).set_index(["arm", "metric"])
    assert table.loc[("clinical_logistic", "auc"), "ensemble"] > 0.6
    pairs = results.comparisons(predictions, opened.settings.study, data="simulated")
    done = pairs[pairs["reason"] == ""]
    assert done[["a", "b"]].to_numpy().tolist() == [
        ["clinical_volume", "clinical_logistic"], ["clinical_territories", "clinical_logistic"],
    ]  # fmt: skip
    assert (done["low"] < done["difference"]).all() and (done["difference"] < done["high"]).all()


def test_the_lesion_lies_where_its_affine_says(opened):
    tensors = opened.tensors()
    volume = tensors.load(["sub-10"], ["lesion"])[0, 0].astype(float)
    assert volume.min() >= 0 and volume.max() <= 1
    centre = np.array(np.nonzero(volume > 0.5)).mean(axis=1)
    world = tensors.affine("sub-10") @ [*centre, 1]
    np.testing.assert_allclose(world[:3], [78 - 8 * 6, -112 + 8 * 12, -50 + 8 * 8], atol=6)
    spacing = opened.settings.grid_spacing_mm
    stored = volume.sum() * spacing**3 / 1000
    recorded = float(opened.dataset.table.at["sub-10", "lesion_ml"])
    assert stored == pytest.approx(recorded, rel=0.15)


def test_a_network_runs_and_other_arms_are_left_out_when_not_asked_for(opened):
    asked = dataclasses.replace(opened.settings, arms=("daft",), epochs_max=1)
    one = dataclasses.replace(asked.study, validation=asked.study.validation | {"repeats": 1})
    chosen = dataclasses.replace(opened, settings=dataclasses.replace(asked, study=one))
    ladder = experiment.ladder(chosen, chosen.tensors()).set_index("arm")
    assert ladder.index[ladder["runs"]].tolist() == ["clinical_territories", "daft"]  # its teacher
    assert ladder.loc["concat", "reason"] == "not asked for"
    predictions = experiment.run_arms(chosen, chosen.tensors())
    assert predictions["arm"].value_counts().to_dict() == dict.fromkeys(
        ("clinical_territories", "daft"), len(opened.y)
    )
    assert experiment.explained_arm(chosen, chosen.tensors()) == "daft"
    assert experiment.run_arms(chosen, chosen.tensors(), []).empty
    for task in experiment.plan(chosen, chosen.tensors(), ["daft"])[:2]:
        held_out = chosen.fold_parts(task.fold, task.seed)["held_out"]
        explained = explain.chosen(
            chosen, chosen.tensors(), task, chosen.settings.explained_patients
        )
        assert explained and set(explained) <= set(held_out)
    mean = dataclasses.replace(chosen.settings, arms=("late",))
    ladder = experiment.ladder(dataclasses.replace(chosen, settings=mean), chosen.tensors())
    assert ladder["arm"][ladder["runs"]].tolist() == [
        "clinical_logistic", "territories", "image", "late",
    ]  # fmt: skip
    none = dataclasses.replace(chosen.settings, arms=("clinical_logistic",))
    assert experiment.explained_arm(dataclasses.replace(chosen, settings=none), None) == ""


def test_a_study_without_an_embedded_cohort_needs_a_dataset(tmp_path):
    settings = load_settings("smoke", study="soop", out=tmp_path / "run", cache=tmp_path / "cache")
    with pytest.raises(InputError, match="'soop' has no embedded cohort; give a dataset folder"):
        open_analysis(settings)


def test_volumes_enter_a_model_as_logarithms(soop):
    words = dictionary.load(soop.dictionary_path)
    assert all(words[name].transform == "log1p" for name in soop.predictors["territories"])
    for group in soop.predictors.values():
        words.refuse_leakage(group)
    for column in ("mrs_discharge", "etiology", "poor_outcome"):
        with pytest.raises(InputError, match="cannot be a predictor"):
            words.refuse_leakage((column,))


def test_an_arm_that_is_not_in_the_study_is_refused():
    with pytest.raises(InputError, match="setting 'arms' names 'ncct'; allowed: clinical_logistic"):
        load_settings("smoke", study="soop", arms=("ncct",))


def test_notebooks_without_anything_to_do_are_left_out():
    def asked(*arms):
        settings = load_settings("smoke", study="soop", data=".", arms=arms)
        return notebooks._single_sources(settings), notebooks._networks(settings)

    assert asked("daft") == (False, True)
    assert asked("clinical_logistic") == (True, False)
    assert asked("image", "clinical_logistic") == (True, False)
    assert asked("late") == (True, False)


def test_absence_can_be_left_out_of_the_models(opened):
    words = opened.dictionary
    table = opened.dataset.table.loc[opened.y.index].copy()
    table.loc[table.index[:9], "bmi"] = np.nan
    with_indicator = TabularEncoder(("age", "bmi"), words).fit(table)
    without = TabularEncoder(("age", "bmi"), words, indicators=False).fit(table)
    assert with_indicator.names == ["age", "bmi", "missingindicator_bmi"]
    assert without.names == ["age", "bmi"]
