"""Networks as arms: frozen offsets, absent scans, auxiliary targets, encoders, stored weights."""

import dataclasses

import numpy as np
import pytest

from rlvo_lib import experiment, storage, training
from rlvo_lib.config import InputError
from rlvo_lib.experiment import fitting


def _changed(analysis, cache, **changes):
    settings = dataclasses.replace(analysis.settings, cache=cache, **changes)
    return dataclasses.replace(analysis, settings=settings)


def _task(analysis, tensors, arm, fold=1):
    return next(t for t in experiment.plan(analysis, tensors, [arm]) if t.fold == fold)


def _run(analysis, tensors, arm):
    task = _task(analysis, tensors, arm)
    experiment.run_task(analysis, tensors, task)
    return storage.read_csv(task.result)


def _without(tensors, patient, channel):
    """The tensors with one patient's last channel said to be absent."""
    record = tensors.records[patient]
    assert record["channels"][-1] == channel
    views = {
        name: view | {"channels": [c for c in view["channels"] if c != channel]}
        for name, view in record["views"].items()
    }
    lacking = record | {"channels": record["channels"][:-1], "reasons": {channel: "not made"}}
    lacking["views"] = views
    return dataclasses.replace(tensors, records=tensors.records | {patient: lacking})


# ------------------------------------------------------------------------------------ frozen offset


def test_a_network_that_finds_nothing_is_the_model_it_started_from(analysis, tensors, tmp_path):
    still = _changed(analysis, tmp_path, learning_rate=1e-12, epochs_max=1)
    network, logistic = (_run(still, tensors, arm) for arm in ("daft_offset", "clinical_logistic"))
    assert network["participant_id"].equals(logistic["participant_id"])
    np.testing.assert_allclose(network["probability"], logistic["probability"], atol=1e-6)
    history = storage.read_csv(_task(still, tensors, "daft_offset").folder / "history.csv")
    assert history["epoch"].tolist() == [-1, 0, 0]


def test_the_offset_of_training_patients_is_of_models_that_did_not_see_them(analysis, tensors):
    task = _task(analysis, tensors, "daft_offset")
    parts, cases = experiment.fold_cases(analysis, tensors, task)
    fitting._add_offset(analysis, tensors, task, parts, cases)
    encoder, model, _ = experiment.offset_model(analysis, tensors, task, parts)
    seen = {
        name: model.logit(encoder.transform(analysis.dataset.table.loc[ids]))
        for name, ids in parts.items()
    }
    for part in ("held_out", "test"):
        np.testing.assert_allclose(cases[part].offset, seen[part], rtol=1e-6)
    for part in ("train", "inner"):
        assert (np.abs(cases[part].offset - seen[part]) > 1e-4).all()
    y = np.concatenate([cases[part].y for part in ("train", "inner")])
    given, by_all = (
        np.concatenate([side["train"], side["inner"]])
        for side in ({n: c.offset for n, c in cases.items()}, seen)
    )
    assert training.log_loss(y, given) > training.log_loss(y, by_all)


def _taught(analysis, tensors, cache, **changes):
    """The analysis in which `daft` has the clinical regression as its teacher, and the task of its first fold."""
    study = analysis.settings.study
    daft = dataclasses.replace(study.arms["daft"], teacher="clinical_logistic")
    study = dataclasses.replace(study, arms=study.arms | {"daft": daft})
    own = _changed(analysis, cache, study=study, **changes)
    return own, _task(own, tensors, "daft")


def test_a_teacher_has_not_seen_whom_it_teaches_about(analysis, tensors, tmp_path):
    own, task = _taught(analysis, tensors, tmp_path)
    parts, cases = experiment.fold_cases(own, tensors, task)
    fitting._add_teacher(own, tensors, task, parts, cases)
    assert cases["held_out"].taught is None and cases["test"].taught is None
    offset = _task(analysis, tensors, "daft_offset")
    encoder, model, logits = experiment.offset_model(analysis, tensors, offset, parts)
    n = len(parts["train"])
    for part, logit in (("train", logits[:n]), ("inner", logits[n:])):
        np.testing.assert_allclose(cases[part].taught, 1 / (1 + np.exp(-logit)), rtol=1e-5)
        table = encoder.transform(analysis.dataset.table.loc[parts[part]])
        knowing = 1 / (1 + np.exp(-model.logit(table)))
        assert (np.abs(cases[part].taught - knowing) > 1e-5).all()


def test_a_teacher_and_its_share_are_part_of_the_key_and_of_the_predictions(
    analysis, tensors, tmp_path
):
    seen = {}
    for share in (0.0, 1.0):
        own, task = _taught(analysis, tensors, tmp_path, teaching=share)
        experiment.run_task(own, tensors, task)
        seen[share] = storage.read_csv(task.result)["probability"].to_numpy()
        assert task.folder != _task(_changed(own, tmp_path), tensors, "imaging").folder
        network = experiment.load_network(
            own, task, experiment.fold_cases(own, tensors, task)[1]["train"].tabular.shape[1]
        )
        assert not network.training
    plain = _changed(analysis, tmp_path)
    alone = _task(plain, tensors, "daft")
    assert alone.folder not in {task.folder}
    experiment.run_task(plain, tensors, alone)
    np.testing.assert_array_equal(storage.read_csv(alone.result)["probability"], seen[0.0])
    assert np.abs(seen[0.0] - seen[1.0]).max() > 1e-4


def test_what_kind_of_model_teaches_is_part_of_the_key(analysis, tensors, tmp_path):
    own, task = _taught(analysis, tensors, tmp_path)
    study = own.settings.study
    other = dataclasses.replace(study.arms["clinical_logistic"], kind="boosting")
    changed = dataclasses.replace(study, arms=study.arms | {"clinical_logistic": other})
    assert _task(_changed(own, tmp_path, study=changed), tensors, "daft").folder != task.folder


def test_an_arm_whose_teacher_lacks_a_column_does_not_run(analysis, tensors, tmp_path):
    own, _ = _taught(analysis, tensors, tmp_path)
    study = own.settings.study
    daft = dataclasses.replace(study.arms["daft"], predictors=("clinical",))
    column = next(c for c in study.columns_of(study.arms["clinical_logistic"]))
    table = own.dataset.table.drop(columns=column)
    lacking = dataclasses.replace(own, dataset=dataclasses.replace(own.dataset, table=table))
    arms = study.arms | {"daft": dataclasses.replace(daft, predictors=())}
    lacking = _changed(lacking, tmp_path, study=dataclasses.replace(study, arms=arms))
    ladder = experiment.ladder(lacking, tensors).set_index("arm")
    assert not ladder.loc["daft", "runs"] and column in ladder.loc["daft", "reason"]


def test_what_an_offset_sees_is_part_of_the_key(analysis, tensors):
    study = analysis.settings.study
    other = dataclasses.replace(study.arms["clinical_logistic"], measures=("vessels",))
    changed = dataclasses.replace(study, arms=study.arms | {"clinical_logistic": other})
    folder = _task(analysis, tensors, "daft_offset").folder
    again = _changed(analysis, analysis.settings.cache, study=changed)
    assert _task(again, tensors, "daft_offset").folder != folder


# ------------------------------------------------------------------------------------- absent scans


def test_a_flagged_patient_without_a_scan_is_used_by_networks_alone(analysis, tensors, tmp_path):
    flagged = _changed(analysis, tmp_path, absent="flag")
    parts, arms = analysis.fold_parts(1, 0), analysis.settings.study.arms
    trained, held = parts["train"][0], parts["held_out"][0]
    fewer = _without(_without(tensors, trained, "tmax"), held, "tmax")
    for name, lost in (("daft", 0), ("ctp", 0), ("voxels", 2), ("concepts", 2)):
        used = experiment.arm_patients(flagged, fewer, arms[name])
        assert (~used["used"]).sum() == lost, name
    assert experiment.arm_patients(analysis, fewer, arms["daft"])["used"].sum() == 38
    alone = dataclasses.replace(arms["ctp"], channels=("tmax",))
    assert experiment.arm_patients(flagged, fewer, alone)["used"].sum() == 38

    found = _run(flagged, fewer, "ctp").set_index("participant_id")["probability"]
    assert found.between(0, 1).all() and held in found.index
    _, cases = experiment.fold_cases(flagged, fewer, _task(flagged, fewer, "ctp"))
    lacking = np.isnan(cases["train"].image).all(axis=(2, 3, 4))
    assert lacking.sum() == 1 and lacking[0, 3]


def test_scans_hidden_in_training_change_the_network_and_not_who_is_scored(
    analysis, tensors, tmp_path
):
    plain = _changed(analysis, tmp_path, absent="flag")
    hiding = _changed(analysis, tmp_path, absent="flag", modality_dropout=0.5)
    before, after = (_run(one, tensors, "ctp") for one in (plain, hiding))
    assert before["participant_id"].equals(after["participant_id"])
    assert after["probability"].between(0, 1).all()
    assert (before["probability"] != after["probability"]).any()


# ------------------------------------------------------------------------- targets, encoders, storage


def test_auxiliary_targets_add_outputs_and_are_those_of_training_patients_alone(
    analysis, tensors, tmp_path
):
    helped = _changed(analysis, tmp_path, auxiliary_weight=0.3)
    task = _task(helped, tensors, "vessels")
    _, cases = experiment.fold_cases(helped, tensors, task)
    targets = cases["train"].extra.shape[1]
    assert targets > len(analysis.settings.study.concepts)
    assert cases["inner"].extra.shape[1] == targets
    assert cases["held_out"].extra is None and cases["test"].extra is None
    assert experiment.build_network(helped.settings, task.arm, 0).head.out_features == 1 + targets
    assert experiment.build_network(analysis.settings, task.arm, 0).head.out_features == 1
    assert _run(helped, tensors, "vessels")["probability"].between(0, 1).all()


def test_perfusion_maps_are_one_modality(analysis):
    arm, settings = analysis.settings.study.arms["imaging"], analysis.settings

    def scans(inputs, arm=arm):
        return fitting.network_scans(dataclasses.replace(settings, encoder_inputs=inputs), arm)

    assert scans("stacked") is None
    assert scans("per-modality") == (
        ("ncct", (0,)), ("cta", (1,)), ("vessels", (2,)), ("maps", (3, 4, 5, 6)),
    )  # fmt: skip
    assert scans("shared") == tuple((name, (k,)) for k, name in enumerate(arm.channels))
    assert scans("per-modality", settings.study.arms["ncct"]) is None


@pytest.mark.parametrize("inputs", ["per-modality", "shared"])
def test_an_encoder_a_scan_runs(analysis, tensors, tmp_path, inputs):
    apart = _changed(analysis, tmp_path, encoder_inputs=inputs, epochs_max=1)
    assert _run(apart, tensors, "imaging")["probability"].between(0, 1).all()
    network = experiment.load_network(apart, _task(apart, tensors, "imaging"), 0)
    assert len(network.encoder.trunks) == {"per-modality": 4, "shared": 1}[inputs]


def test_stored_weights_are_not_taken_for_another_configuration(analysis, tensors, tmp_path):
    own = _changed(analysis, tmp_path, epochs_max=1)
    _run(own, tensors, "vessels")
    task = _task(own, tensors, "vessels")
    assert (task.folder / "model.safetensors").exists()
    experiment.load_network(own, task, 0)
    for name, value in (("base_filters", 8), ("learning_rate", 1e-4), ("fusion_location", 0)):
        other = _changed(own, tmp_path, **{name: value})
        with pytest.raises(InputError, match=f"another configuration: {name} is "):
            experiment.load_network(other, task, 0)
    cta = dataclasses.replace(task, what=analysis.settings.study.arms["cta"])
    with pytest.raises(InputError, match="another configuration: channels is"):
        experiment.load_network(own, cta, 0)
