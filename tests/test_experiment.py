import dataclasses

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import cohort, experiment, storage
from rlvo_lib.analysis import open_analysis
from rlvo_lib.config import Arm, InputError

QUICK = ["clinical_logistic", "vessels", "daft"]


@pytest.fixture(scope="module")
def predictions(analysis, tensors):
    return experiment.run_arms(analysis, tensors, QUICK)


def test_fold_parts_are_disjoint_and_the_test_set_is_in_none_of_them(analysis):
    parts = {fold: analysis.fold_parts(fold, 0) for fold in range(1, 5)}
    for fold in parts.values():
        members = [p for name in fold for p in fold[name]]
        assert len(members) == len(set(members)) == len(analysis.y)
        assert analysis.y[fold["inner"]].sum() >= 1 or analysis.y[fold["train"]].sum() >= 2
    assert len({tuple(fold["test"]) for fold in parts.values()}) == 1
    held_out = [p for fold in parts.values() for p in fold["held_out"]]
    assert sorted(held_out + parts[1]["test"]) == sorted(analysis.y.index)


def test_each_training_patient_is_scored_once_and_each_test_patient_by_each_fold(
    analysis, predictions
):
    n_test = (analysis.split["partition"] == "test").sum()
    for _, rows in predictions.groupby("arm"):
        out_of_fold = rows[rows["partition"] == "out-of-fold"]
        assert out_of_fold["participant_id"].is_unique
        assert len(out_of_fold) == len(analysis.y) - n_test
        assert (rows[rows["partition"] == "test"].groupby("fold").size() == n_test).all()
    assert predictions["probability"].between(0, 1).all()
    truth = predictions.set_index("participant_id")["y_true"]
    assert (truth == analysis.y[truth.index]).all()


def test_finished_tasks_are_found_again_and_give_the_same_bytes(analysis, tensors, predictions):
    tasks = experiment.plan(analysis, tensors, QUICK)
    assert len(tasks) == 12 and all(task.done for task in tasks)
    before = {t.folder: (t.folder / "predictions.csv").stat().st_mtime_ns for t in tasks}
    again = experiment.run_arms(analysis, tensors, QUICK)
    assert again.to_csv() == predictions.to_csv()
    assert before == {t.folder: (t.folder / "predictions.csv").stat().st_mtime_ns for t in tasks}


def test_bytes_do_not_depend_on_workers_or_on_what_was_finished_before(
    analysis, tensors, predictions, tmp_path
):
    settings = dataclasses.replace(analysis.settings, cache=tmp_path, workers=2)
    elsewhere = dataclasses.replace(analysis, settings=settings)
    tasks = experiment.plan(elsewhere, tensors, ["daft"])
    experiment.run_task(elsewhere, tensors, tasks[2])  # as if the run had been killed after one
    made = experiment.run_arms(elsewhere, tensors, ["daft"])
    wanted = predictions[predictions["arm"] == "daft"].reset_index(drop=True)
    assert made.to_csv() == wanted.to_csv()


def test_a_half_written_task_is_not_trusted(analysis, tensors, predictions):
    task = experiment.plan(analysis, tensors, ["vessels"])[0]
    content = (task.folder / "predictions.csv").read_bytes()
    (task.folder / "predictions.csv").unlink()
    assert not task.done
    experiment.run_arms(analysis, tensors, ["vessels"])
    assert (task.folder / "predictions.csv").read_bytes() == content


def test_a_change_of_inputs_changes_the_task(analysis, tensors):
    folder = experiment.plan(analysis, tensors, ["daft"])[0].folder

    def changed(**change):
        return experiment.plan(dataclasses.replace(analysis, **change), tensors, ["daft"])[0].folder

    settings = dataclasses.replace(analysis.settings, learning_rate=1e-4)
    assert changed(settings=settings) != folder
    table = analysis.dataset.table.copy()
    table.iloc[0, table.columns.get_loc("age")] += 1
    assert changed(dataset=dataclasses.replace(analysis.dataset, table=table)) != folder
    table = analysis.dataset.table.copy()
    table.iloc[0, table.columns.get_loc("n_passes")] += 1  # no predictor: changes nothing
    assert changed(dataset=dataclasses.replace(analysis.dataset, table=table)) == folder


def test_the_test_set_changes_no_model(analysis, tensors):
    """Other outcomes and predictors in the test set leave the out-of-fold predictions as they are."""
    arm = analysis.settings.study.arms["clinical_logistic"]
    test = list(analysis.split.query("partition == 'test'")["participant_id"])
    table = analysis.dataset.table.copy()
    table.loc[test, "age"] = 1000.0
    other = dataclasses.replace(
        analysis, dataset=dataclasses.replace(analysis.dataset, table=table)
    )
    for fold in (1, 2):
        task = experiment.Task(arm, fold, 0, analysis.settings.cache)
        _, a = experiment.fold_cases(analysis, None, task)
        _, b = experiment.fold_cases(other, None, task)
        for part in ("train", "inner", "held_out"):
            np.testing.assert_array_equal(a[part].tabular, b[part].tabular)
        assert (a["test"].tabular != b["test"].tabular).any()


def test_mean_arm_averages_patient_by_patient():
    rows = [("sub-1", "test", arm, 0, 1, 1, p) for arm, p in (("a", 0.2), ("b", 0.6), ("c", 0.9))]
    rows += [("sub-2", "test", "a", 0, 1, 0, 0.5)]  # whom b did not score
    predictions = pd.DataFrame(rows, columns=experiment.PREDICTION_COLUMNS)
    late = experiment.average_arms(predictions, Arm("late", "", "mean", of=("a", "b")))
    assert late["participant_id"].tolist() == ["sub-1"]
    assert late["probability"].tolist() == pytest.approx([0.4])


def test_a_patient_without_a_channel_leaves_the_arms_that_need_it(analysis, tensors):
    patient = analysis.y.index[0]
    records = dict(tensors.records)
    without = [c for c in records[patient]["channels"] if c != "cta"]
    records[patient] = records[patient] | {"channels": without, "reasons": {"cta": "no cta"}}
    fewer = dataclasses.replace(tensors, records=records)
    arms = analysis.settings.study.arms
    assert experiment.arm_patients(analysis, fewer, arms["ncct"])["used"].all()
    used = experiment.arm_patients(analysis, fewer, arms["cta"]).set_index("participant_id")
    assert (used.loc[patient, "used"], used.loc[patient, "reason"]) == (False, "no cta")
    assert used["used"].sum() == len(used) - 1


def test_leaking_arms_and_unknown_arms_are_refused(analysis, tensors):
    study = analysis.settings.study
    leaky = dataclasses.replace(
        study, predictors=study.predictors | {"clinical": ("age", "n_passes")}
    )
    settings = dataclasses.replace(analysis.settings, study=leaky)
    with pytest.raises(InputError, match="column 'n_passes' cannot be a predictor"):
        experiment.run_arms(
            dataclasses.replace(analysis, settings=settings), None, ["clinical_mlp"]
        )
    with pytest.raises(
        InputError, match="arm 'magic' is not in the study; allowed: clinical_logistic"
    ):
        experiment.run_arms(analysis, tensors, ["magic"])


def test_table_only_dataset_runs_the_clinical_arms(raw, write_dataset, other_run):
    rows = [
        raw.assign(sbp_adm=str(100 + k)).set_axis([f"sub-{k}x{i}" for i in range(8)])
        for k in range(6)
    ]
    large = pd.concat(rows)
    large.index.name = "participant_id"
    settings = dataclasses.replace(other_run, data=write_dataset(large))
    analysis = open_analysis(settings)
    assert (settings.out / "cohort.csv").exists()
    predictions = experiment.run_arms(analysis, None, ["clinical_logistic"])
    assert set(predictions["arm"]) == {"clinical_logistic"}


def test_an_invalid_dataset_stops_before_anything_is_written(raw, write_dataset, other_run):
    raw.loc["sub-00", "age"] = "old"
    settings = dataclasses.replace(other_run, data=write_dataset(raw))
    with pytest.raises(InputError, match="patient 'sub-00', age"):
        open_analysis(settings)
    assert not settings.out.exists()


def test_stored_models_load_and_missing_ones_are_named(analysis, tensors, predictions, tmp_path):
    task = experiment.plan(analysis, tensors, ["daft"])[0]
    _, encoder = experiment.fold_encoder(analysis, tensors, task)
    network = experiment.load_network(analysis, task, len(encoder.names))
    assert not network.training
    absent = dataclasses.replace(task, folder=tmp_path)
    with pytest.raises(InputError, match="arm 'daft', fold 1: no stored model"):
        experiment.load_network(analysis, absent, len(encoder.names))


def test_cohort_and_split_are_in_the_run_folder(analysis):
    frame = cohort.read_frame(analysis.settings.out)
    assert frame.equals(analysis.frame)
    split = storage.read_csv(analysis.settings.out / "split.csv", dtype={"fold": str})
    assert len(split) == 40


def test_ladder_runs_all_arms_where_all_scans_are_there(analysis, tensors):
    table = experiment.ladder(analysis, tensors).set_index("arm")
    arms = analysis.settings.study.arms
    assert list(table.index[~table["runs"]]) == [n for n, a in arms.items() if a.on_request]
    assert (table["left_out"] == 0).all()
    assert list(table.index) == list(analysis.settings.study.arms)
    assert experiment.explained_arm(analysis, tensors) == "daft"


def test_ladder_without_scans_keeps_the_clinical_arms_and_says_why(analysis, tensors):
    table = experiment.ladder(analysis, None).set_index("arm")
    assert list(table.index[table["runs"]]) == [
        "clinical_logistic", "clinical_boosting", "clinical_mlp", "ctp_logistic", "ctp_boosting",
        "read_logistic", "read_boosting",
    ]  # fmt: skip
    for name in ("daft", "voxels", "concepts", "measured_logistic"):
        assert "(no scans)" in table.loc[name, "reason"]
    assert table.loc["late", "reason"] == "arm imaging does not run"
    assert table.loc["stacked", "reason"] == "arm imaging, concepts_imaging does not run"
    assert experiment.explained_arm(analysis, None) == "clinical_mlp"
    with pytest.raises(InputError, match=r"arm 'daft' cannot run: fold 1: 0 patients left"):
        experiment.run_arms(analysis, None, ["daft"])
    settings = dataclasses.replace(analysis.settings, arms=("clinical_mlp", "late"))
    some = dataclasses.replace(analysis, settings=settings)
    assert set(experiment.run_arms(some, None)["arm"]) == {"clinical_mlp", "clinical_logistic"}


def test_an_arm_of_measures_needs_something_that_was_measured(analysis, tensors):
    study = analysis.settings.study
    arm, first = study.arms["measured_logistic"], analysis.y.index[0]
    names = list(study.measures_of(arm.measures))
    table = tensors.table.copy()
    table.loc[first, names] = np.nan
    found = experiment.arm_patients(analysis, dataclasses.replace(tensors, table=table), arm)
    assert list(found.loc[~found["used"], "participant_id"]) == [first]
    assert found.set_index("participant_id")["reason"][first] == "nothing measured in the scans"
    table = table.drop(columns="measured_occlusion")  # as in a dataset without scans
    found = experiment.arm_patients(analysis, dataclasses.replace(tensors, table=table), arm)
    assert not found["used"].any()
    assert set(found["reason"]) == {"'measured_occlusion' is measured in nobody's scans"}


def test_arms_of_arms_of_arms_are_asked_for_with_all_their_parts(analysis):
    study = analysis.settings.study
    arms = {
        "one": study.arms["clinical_logistic"],
        "two": Arm("two", "", "stack", of=("one",)),
        "three": Arm("three", "", "mean", of=("two",)),
        "four": study.arms["clinical_mlp"],
    }
    study = dataclasses.replace(study, arms=arms)
    settings = dataclasses.replace(analysis.settings, study=study, arms=("three",))
    table = experiment.ladder(dataclasses.replace(analysis, settings=settings), None)
    assert table["runs"].tolist() == [True, True, True, False]


def test_an_arm_without_both_outcomes_in_the_test_set_is_left_out(analysis, tensors):
    test = analysis.split.query("partition == 'test'")["participant_id"]
    events = [p for p in test if analysis.y[p] == 1]
    records = dict(tensors.records)
    for patient in events:
        without = [c for c in records[patient]["channels"] if c != "tmax"]
        records[patient] = records[patient] | {
            "channels": without,
            "reasons": {"tmax": "no tmax scan"},
        }
    fewer = dataclasses.replace(tensors, records=records)
    table = experiment.ladder(analysis, fewer).set_index("arm")
    assert not table.loc["ctp", "runs"] and table.loc["ncct", "runs"]
    assert table.loc["ctp", "reason"].startswith("test set: ")


def test_a_change_of_the_dictionary_changes_the_task(analysis, tensors):
    folder = experiment.plan(analysis, tensors, ["clinical_logistic"])[0].folder
    fields = dict(analysis.dictionary.fields)
    fields["anticoagulant"] = dataclasses.replace(
        fields["anticoagulant"], choices=fields["anticoagulant"].choices | {"3": "other"}
    )
    words = dataclasses.replace(analysis.dictionary, fields=fields)
    other = dataclasses.replace(analysis, dictionary=words)
    assert experiment.plan(other, tensors, ["clinical_logistic"])[0].folder != folder


def test_a_design_without_a_test_set(raw, write_dataset, other_run):
    rows = [
        raw.assign(sbp_adm=str(100 + k)).set_axis([f"sub-{k}x{i}" for i in range(8)])
        for k in range(6)
    ]
    large = pd.concat(rows)
    large.index.name = "participant_id"
    root = write_dataset(large)
    rows = [f"{name},train,{1 + k // 12}" for k, name in enumerate(large.index)]
    (root / "split.csv").write_text("participant_id,partition,fold\n" + "\n".join(rows))
    plan = other_run.study.validation | {"design": "cross-validation"}
    study = dataclasses.replace(other_run.study, validation=plan)
    opened = open_analysis(dataclasses.replace(other_run, data=root, study=study))
    predictions = experiment.run_arms(opened, None, ["clinical_logistic", "clinical_mlp"])
    assert set(predictions["partition"]) == {"out-of-fold"} and len(predictions) == 2 * len(large)
