"""Arms that stand on what readers read: what they may see, and tasks shared between machines."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from rlvo_lib import experiment, storage, workers
from rlvo_lib.config import Arm, InputError, Reader

ARMS = ["concepts_imaging", "concepts", "concepts_daft"]
READERS = {
    "clot": Reader("clot", ("ncct",), ("clot_hu", "hyperdense_sign"), "clot", ("occlusion",)),
    "perfusion": Reader("perfusion", ("tmax",), ("collateral_tan", "hir")),
}


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Tasks without processes of their own, each of which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", functools.partial(workers.run, spawn_from=1000))
        yield


@pytest.fixture(scope="module")
def small(analysis, tmp_path_factory):
    """The small cohort with two readers of one epoch, and a cache of its own."""
    study = dataclasses.replace(analysis.settings.study, readers=READERS)
    settings = dataclasses.replace(
        analysis.settings, study=study, cache=tmp_path_factory.mktemp("concepts"),
        reader_epochs=1, reader_filters=2,
    )  # fmt: skip
    return dataclasses.replace(analysis, settings=settings)


@pytest.fixture(scope="module")
def predictions(small, tensors):
    return experiment.run_arms(small, tensors, ARMS)


def _elsewhere(analysis, cache, **changes):
    settings = dataclasses.replace(analysis.settings, cache=cache, **changes)
    return dataclasses.replace(analysis, settings=settings)


def _fold_1(analysis, tensors, arms):
    return {t.what.name: t for t in experiment.plan(analysis, tensors, arms) if t.fold == 1}


def _unseen(analysis):
    parts = analysis.fold_parts(1, 0)
    return parts["held_out"] + parts["test"]


def _with_reads(analysis, ids, *, absent):
    """The same patients, some with other image reads in their records, or none."""
    table = analysis.dataset.table.copy()
    study = analysis.settings.study
    for name in {*study.predictors["image_read"], *study.concepts}:
        field = analysis.dictionary[name]
        if absent:
            table.loc[ids, name] = np.nan
        elif field.is_categorical:
            codes = list(field.choices)
            other = dict(zip(codes, codes[1:] + codes[:1], strict=True))
            table.loc[ids, name] = table.loc[ids, name].map(other).fillna(codes[0])
        else:
            table.loc[ids, name] = 3 + 2 * table.loc[ids, name].astype(float).fillna(7)
    dataset = dataclasses.replace(analysis.dataset, table=table)
    return dataclasses.replace(analysis, dataset=dataset)


def _with_other_outcomes(analysis, ids):
    frame, column = analysis.frame.copy(), analysis.settings.study.outcome
    rows = frame["participant_id"].isin(ids)
    frame.loc[rows, column] = frame.loc[rows, column].map({"0": "1", "1": "0"})
    return dataclasses.replace(analysis, frame=frame)


def test_every_patient_is_scored_by_readers_that_did_not_see_them(small, predictions):
    n_test = (small.split["partition"] == "test").sum()
    for _, rows in predictions.groupby("arm"):
        scored = rows[rows["partition"] == "out-of-fold"]
        assert scored["participant_id"].is_unique and len(scored) == len(small.y) - n_test
    assert predictions["probability"].between(0, 1).all()
    assert predictions.groupby("arm")["probability"].nunique().min() > 10


@pytest.mark.parametrize("absent", [False, True])
def test_what_a_person_read_in_those_to_be_predicted_is_never_used(
    small, tensors, predictions, absent
):
    """Other reads in held-out and test patients, or none at all: the same bytes from the same models."""
    other = _with_reads(small, _unseen(small), absent=absent)
    before, after = (_fold_1(a, tensors, ARMS) for a in (small, other))
    experiment.run_tasks(other, tensors, list(after.values()))
    for name, task in after.items():
        assert task.folder != before[name].folder
        assert task.result.read_bytes() == before[name].result.read_bytes(), name
    for one, two in zip(before["concepts"].readers, after["concepts"].readers, strict=True):
        assert one.folder != two.folder
        assert one.result.read_bytes() == two.result.read_bytes(), one.what.name


def test_what_a_person_read_in_training_patients_is_what_a_reader_learns(
    small, tensors, predictions
):
    other = _with_reads(small, small.fold_parts(1, 0)["train"], absent=False)
    before, after = (_fold_1(a, tensors, ARMS)["concepts"].readers[1] for a in (small, other))
    experiment.run_task(other, tensors, after)
    assert after.result.read_bytes() != before.result.read_bytes()


def test_outcomes_of_held_out_and_test_patients_enter_no_model(small, tensors, predictions):
    names = ["clinical_logistic", "daft_offset", "voxels", "concepts_imaging", "concepts_daft"]
    other = _with_other_outcomes(small, _unseen(small))
    found = []
    for one in (small, other):
        tasks = _fold_1(one, tensors, names)
        experiment.run_tasks(one, tensors, list(tasks.values()))
        found.append({name: storage.read_csv(task.result) for name, task in tasks.items()})
    for name in names:
        before, after = (side[name] for side in found)
        assert (before["y_true"] == 1 - after["y_true"]).all()
        assert before["probability"].equals(after["probability"]), name


def test_shards_put_together_are_the_run_in_one_piece(small, tensors, predictions, tmp_path):
    for number in (1, 2):
        shard = _elsewhere(small, tmp_path / f"{number}")
        tasks = experiment.plan(shard, tensors, ["concepts_imaging"])
        assert experiment.run_tasks(shard, tensors, tasks, shard=(number, 2)) == 2 + 2 * 2
        shutil.copytree(tmp_path / f"{number}", tmp_path / "both", dirs_exist_ok=True)
    both = _elsewhere(small, tmp_path / "both")
    tasks = experiment.plan(both, tensors, ["concepts_imaging"])
    assert experiment.run_tasks(both, tensors, tasks) == 0
    found = experiment.run_arms(both, tensors, ["concepts_imaging"])
    whole = predictions[predictions["arm"] == "concepts_imaging"].reset_index(drop=True)
    storage.write_csv(tmp_path / "a.csv", found), storage.write_csv(tmp_path / "b.csv", whole)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1, 0)])
def test_a_shard_that_is_none_is_refused(small, tensors, shard):
    with pytest.raises(InputError, match=f"shard {shard[0]} of {shard[1]}; allowed: 1 to"):
        experiment.run_tasks(small, tensors, [], shard=shard)


def test_how_well_is_read_counts_each_training_patient_once(small, tensors, predictions):
    table = experiment.reading(small, tensors).set_index("concept")
    assert table["reader"].to_dict() == {
        "clot_hu": "clot", "hyperdense_sign": "clot", "collateral_tan": "perfusion",
        "hir": "perfusion",
    }  # fmt: skip
    training = small.split.query("partition == 'train'")["participant_id"]
    recorded = small.dataset.table.loc[training, list(table.index)].notna().sum()
    assert table["n"].to_dict() == recorded.to_dict()
    with pytest.raises(InputError, match="seed is 7; allowed: 0"):
        experiment.reading(small, tensors, seed=7)
    study = dataclasses.replace(
        small.settings.study, arms={"x": small.settings.study.arms["clinical_mlp"]}
    )
    settings = dataclasses.replace(small.settings, study=study)
    nobody = experiment.reading(dataclasses.replace(small, settings=settings), tensors)
    assert nobody.empty and list(nobody.columns) == [*table.reset_index().columns]


def test_curves_of_an_arm_of_concepts_are_its_readers(small, tensors, predictions):
    curves = experiment.histories(experiment.plan(small, tensors, ["concepts_imaging"]))
    assert set(curves["arm"]) == set(READERS) and set(curves["part"]) == {"train", "inner"}
    assert len(curves) == len(READERS) * 4 * 2


def test_a_reader_is_keyed_by_what_it_sees(small, tensors):
    def folder(analysis):
        return experiment.reader_tasks(analysis, tensors)[0].folder.name

    assert folder(_elsewhere(small, small.settings.cache, missing_indicators=False)) != folder(
        small
    )
    assert folder(_elsewhere(small, small.settings.cache, reader_epochs=2)) != folder(small)
    assert folder(_elsewhere(small, small.settings.cache, bootstrap_resamples=7)) == folder(small)
    view = dataclasses.replace(small.settings.study.views["clot"], spacing_mm=1.0)
    study = dataclasses.replace(
        small.settings.study, views=small.settings.study.views | {"clot": view}
    )
    assert folder(_elsewhere(small, small.settings.cache, study=study)) != folder(small)


def test_daft_without_predictors_and_mirrored_views_are_refused(small, tensors, predictions):
    arm = dataclasses.replace(small.settings.study.arms["concepts_daft"], predictors=())
    study = dataclasses.replace(
        small.settings.study, arms=small.settings.study.arms | {"concepts_daft": arm}
    )
    bare = _elsewhere(small, small.settings.cache, study=study)
    task = _fold_1(bare, tensors, ["concepts_daft"])["concepts_daft"]
    with pytest.raises(InputError, match="arm 'concepts_daft': fusion daft needs predictors"):
        experiment.run_task(bare, tensors, task)
    mirrored = _elsewhere(small, small.settings.cache, augment_mirror=True)
    with pytest.raises(InputError, match="'augment_mirror' is True; allowed: False"):
        experiment.plan(mirrored, tensors, ["concepts"])


def test_a_reader_is_no_arm(small, tensors):
    task = experiment.reader_tasks(small, tensors)[0]
    assert task.title == "reader clot, fold 1, seed 0"
    with pytest.raises(InputError, match="'clot' is a reader of images, not an arm"):
        _ = task.arm


def test_who_lacks_a_view_or_scan_of_a_reader_leaves_the_arms_of_concepts(small, tensors):
    patient = small.y.index[0]
    views = tensors.records[patient]["views"]
    without = views | {"clot": views["clot"] | {"channels": ["cta"]}}
    lacking = tensors.records[patient] | {"views": without, "reasons": {"ncct": "no ncct scan"}}
    fewer = dataclasses.replace(tensors, records=tensors.records | {patient: lacking})
    arms = small.settings.study.arms
    used = experiment.arm_patients(small, fewer, arms["concepts"]).set_index("participant_id")
    assert used.loc[patient].tolist() == ["no ncct scan", False] and used["used"].sum() == 39
    assert experiment.arm_patients(small, fewer, arms["daft"])["used"].all()
    measured = Arm("m", "m", "logistic", measures=("occlusion",))
    assert not experiment.arm_patients(small, None, measured)["used"].any()
