import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from rlvo_lib import experiment, explain, images, storage
from rlvo_lib.config import InputError


@pytest.fixture(scope="module")
def task(analysis, tensors):
    experiment.run_arms(analysis, tensors, ["daft"])
    return experiment.plan(analysis, tensors, ["daft"])[0]


@pytest.fixture(scope="module")
def model(analysis, tensors, task):
    return explain.FusedModel.load(analysis, tensors, task)


@pytest.fixture(scope="module")
def shap(analysis, tensors, task):
    return explain.shap_values(analysis, tensors, task)


def test_players_and_table_are_inverse(analysis, model):
    ids = list(analysis.y.index[:12])
    table = analysis.dataset.table.loc[ids, model.columns].reset_index(drop=True)
    back = model.variables.table(model.variables.values(ids))
    for column in table:
        wanted = table[column].to_numpy(object, na_value=None)
        assert [None if pd.isna(v) else v for v in back[column]] == list(wanted), column


def test_logit_of_a_patient_s_own_variables_is_the_stored_prediction(
    analysis, tensors, task, model
):
    stored = experiment.run_arms(analysis, tensors, ["daft"]).query(
        "partition == 'test' and fold == 1"
    )
    for row in stored.head(4).itertuples():
        features = model.image_features(row.participant_id)
        logit = model.logit(features, model.variables.values([row.participant_id]))[0]
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(row.probability, abs=1e-5)


@pytest.mark.parametrize("fusion", ["offset", "interactive"])
def test_an_offset_is_part_of_the_logit_and_an_encoder_may_need_the_table(
    analysis, tensors, tmp_path, fusion
):
    study = analysis.settings.study
    arm = study.arms["daft_offset"]
    if fusion == "interactive":
        arm = dataclasses.replace(arm, fusion="interactive", offset="")
    study = dataclasses.replace(study, arms=study.arms | {"daft_offset": arm})
    settings = dataclasses.replace(analysis.settings, study=study, cache=tmp_path, epochs_max=1)
    other = dataclasses.replace(analysis, settings=settings)
    task = experiment.plan(other, tensors, ["daft_offset"])[0]
    experiment.run_task(other, tensors, task)
    model = explain.FusedModel.load(other, tensors, task)
    stored = storage.read_csv(task.result).query("partition == 'test'")
    logits = []
    for row in stored.head(3).itertuples():
        features = model.image_features(row.participant_id)
        players = model.variables.values([row.participant_id])
        other_age = players.copy()
        other_age[0, model.columns.index("age")] += 20
        logits.append(model.logit(features, np.concatenate([players, other_age])))
        assert 1 / (1 + np.exp(-logits[-1][0])) == pytest.approx(row.probability, abs=1e-5)
    if fusion == "offset":
        assert all(one[0] != one[1] for one in logits)
    else:
        assert torch.equal(features, model.images([row.participant_id]))


def test_an_absent_scan_stays_absent_whatever_is_occluded(analysis, tensors, task):
    patient = analysis.y.index[0]
    record = tensors.records[patient]
    lacking = record | {"channels": record["channels"][:-1], "reasons": {"tmax": "not made"}}
    fewer = dataclasses.replace(tensors, records=tensors.records | {patient: lacking})
    settings = dataclasses.replace(analysis.settings, absent="flag")
    flagged = dataclasses.replace(analysis, settings=settings)
    parts, encoder = experiment.fold_encoder(flagged, fewer, task)
    network = experiment.build_network(settings, task.arm, len(encoder.names)).eval()
    model = explain.FusedModel(flagged, fewer, task, network, encoder, parts["train"])
    assert torch.isnan(model.images([patient])[0, -1]).all()
    found = explain.occlusion_map(model, patient)
    assert np.isfinite(found).all() and np.abs(found).max() > 0
    features = model.image_features(patient)
    assert np.isfinite(model.logit(features, model.variables.values([patient]))).all()


def test_an_arm_of_what_is_measured_is_not_explained(analysis, tensors, task):
    measured = dataclasses.replace(task.arm, measures=("vessels",))
    with pytest.raises(InputError, match="arm 'daft' sees vessels, measured in the scans"):
        explain.FusedModel.load(analysis, tensors, dataclasses.replace(task, what=measured))


def test_shap_values_add_up_and_cover_each_variable_once(analysis, shap, model):
    sums = shap.groupby("participant_id").agg(
        total=("shap", "sum"), base=("base", "first"), logit=("logit", "first"), n=("shap", "size")
    )
    assert (sums["total"] + sums["base"] - sums["logit"]).abs().max() < 1e-3
    assert (sums["n"] == len(model.columns)).all()
    assert len(sums) == analysis.settings.explained_patients
    assert shap["shap"].abs().max() > 0


def test_a_variable_that_the_model_ignores_gets_nothing(
    analysis, tensors, task, model, monkeypatch
):
    columns = [i for i, name in enumerate(model.encoder.names) if name.startswith("age")]
    weight = model.network.block.modulation.reduce.weight
    offset = weight.shape[1] - len(model.encoder.names)
    with torch.no_grad():
        weight[:, [offset + i for i in columns]] = 0
    monkeypatch.setattr(explain.FusedModel, "load", lambda *_: model)
    values = explain.variables._compute_shap(analysis, tensors, task)
    assert values[values["variable"] == "age"]["shap"].abs().max() < 1e-9
    assert values[values["variable"] != "age"]["shap"].abs().max() > 1e-9


def test_occlusion_finds_the_region_that_the_model_looks_at(analysis, tensors, task):
    """A model that is the mean of one corner of one channel is explained by that corner."""
    model = explain.FusedModel.load(analysis, tensors, task)
    d, h, w = analysis.settings.grid_shape

    class Corner(torch.nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, image, tabular=None):
            standard = (image - self.encoder.mean) / self.encoder.sd
            return standard[:, :1, d // 2 :, h // 2 :, w // 2 :].mean(dim=(1, 2, 3, 4))[:, None]

    model.network = Corner(model.network.encoder)
    participant = analysis.y.index[0]
    image = torch.ones(1, 7, d, h, w)
    model.network.encoder.mean.zero_(), model.network.encoder.sd.fill_(1)
    model.images = lambda _: image
    found = explain.occlusion_map(model, participant)
    assert found.shape == (d, h, w)
    inside = found[d // 2 + 3 :, h // 2 + 3 :, w // 2 + 3 :]
    assert inside.min() > 0
    assert np.abs(found[: d // 2 - 3, : h // 2 - 3, : w // 2 - 3]).max() < 1e-6


def test_maps_lie_where_the_tensor_looked_things_up(analysis, tensors, tmp_path):
    """The world position of a voxel in the saved map is that of the tensor's affine, flip included."""
    sides = tensors.table["side"]
    for side in ("left", "right"):
        participant = sides.index[sides == side][0]
        array = np.zeros(analysis.settings.grid_shape, np.float32)
        array[3, 5, 7] = 1
        path = explain.save_map(tensors, participant, array, tmp_path / f"{side}.nii.gz")
        loaded, affine = images.load_nifti(path)
        voxel = np.argwhere(loaded == 1)[0]
        np.testing.assert_allclose(
            (affine @ [*voxel, 1])[:3], (tensors.affine(participant) @ [3, 5, 7, 1])[:3], atol=1e-3
        )
        middle = tensors.affine(participant) @ [*(np.array(array.shape) / 2), 1]
        assert (middle[0] < 0) == (side == "left"), "the grid holds the affected hemisphere"


def test_explaining_one_patient_leaves_the_model_as_it_was(analysis, tensors, task):
    first, second = analysis.y.index[:2]
    model = explain.FusedModel.load(analysis, tensors, task)
    explain.occlusion_map(model, first)
    assert not any(module.training for module in model.network.modules())
    fresh = explain.FusedModel.load(analysis, tensors, task)
    np.testing.assert_array_equal(
        explain.occlusion_map(model, second), explain.occlusion_map(fresh, second)
    )


def test_saliency_maps_are_written_and_found_again(analysis, tensors, task):
    maps = explain.saliency_maps(analysis, tensors, task)
    assert len(maps) == analysis.settings.saliency_patients
    for row in maps.itertuples():
        array, _ = images.load_nifti(analysis.settings.out / row.map)
        assert array.max() == pytest.approx(row.highest, rel=1e-6)
    pd.testing.assert_frame_equal(explain.saliency_maps(analysis, tensors, task), maps)


def test_explained_patients_are_test_patients_half_with_the_outcome(analysis, tensors, task):
    chosen = explain.chosen(analysis, tensors, task, analysis.settings.explained_patients)
    test = set(analysis.split.query("partition == 'test'")["participant_id"])
    assert set(chosen) <= test and len(chosen) == 4
    assert analysis.y[chosen].sum() == min(2, analysis.y[list(test)].sum())
