import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from rlvo_lib import experiment, explain, storage
from rlvo_lib.config import InputError


@pytest.fixture(scope="module")
def task(analysis, tensors):
    experiment.run_arms(analysis, tensors, ["daft"])
    return experiment.plan(analysis, tensors, ["daft"])[0]


@pytest.fixture(scope="module")
def model(analysis, tensors, task):
    return explain.FusedModel.load(analysis, tensors, task)


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


def test_an_arm_of_what_is_measured_is_not_explained(analysis, tensors, task):
    measured = dataclasses.replace(task.arm, measures=("vessels",))
    with pytest.raises(InputError, match="arm 'daft' sees vessels, measured in the scans"):
        explain.FusedModel.load(analysis, tensors, dataclasses.replace(task, what=measured))


def test_explained_patients_are_test_patients_half_with_the_outcome(analysis, tensors, task):
    chosen = explain.chosen(analysis, tensors, task, analysis.settings.explained_patients)
    test = set(analysis.split.query("partition == 'test'")["participant_id"])
    assert set(chosen) <= test and len(chosen) == 4
    assert analysis.y[chosen].sum() == min(2, analysis.y[list(test)].sum())
