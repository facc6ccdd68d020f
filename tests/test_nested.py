"""Settings chosen on folds inside the training part."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import experiment, nested, workers
from rlvo_lib.config import InputError, load_study

ARM = "clinical_logistic"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Tasks run here: a fresh process would import torch again."""
    monkeypatch.setattr(workers, "run", lambda f, tasks, **_: [f(*task) for task in tasks])


@pytest.fixture
def own(analysis, tmp_path):
    """The small simulated cohort with a cache of its own."""
    settings = dataclasses.replace(analysis.settings, cache=tmp_path)
    return dataclasses.replace(analysis, settings=settings)


def test_the_held_out_patients_of_a_fold_are_nowhere_inside(own):
    for fold in (1, 2):
        parts = own.fold_parts(fold, 0)
        inner = nested.inside(own, fold, 0, 3)
        ids = {*parts["train"], *parts["inner"]}
        assert set(inner.split["participant_id"]) == ids
        assert not set(inner.frame["participant_id"]) & {*parts["held_out"], *parts["test"]}
        assert set(inner.split["partition"]) == {"train"}
        assert set(inner.split["fold"]) == {"1", "2", "3"}
        events = (
            inner.y[inner.split["participant_id"]].groupby(inner.split["fold"].to_numpy()).sum()
        )
        assert events.max() - events.min() <= 1
    assert (
        own.fold_parts(1, 0) == parts or own.fold_parts(2, 0) == parts
    )  # the outer split is as it was


def test_outcomes_of_the_held_out_do_not_move_a_choice(own):
    """Everything that an inner task is keyed by is the same, whatever happened to the held-out."""
    held = own.fold_parts(1, 0)["held_out"]

    def other_age(ages):
        return "99" if ages.dtype == "str" else 99.0

    plain = experiment.plan(nested.inside(own, 1, 0, 3), None, [ARM])
    table = own.dataset.table.copy()
    table.loc[held, "age"] = other_age(table["age"])
    dataset = dataclasses.replace(own.dataset, table=table)
    frame = own.frame.copy()
    frame.loc[frame["participant_id"].isin(held), "age"] = other_age(frame["age"])
    other = dataclasses.replace(own, dataset=dataset, frame=frame)
    again = experiment.plan(nested.inside(other, 1, 0, 3), None, [ARM])
    assert [t.folder for t in plain] == [t.folder for t in again]


def test_candidates_are_compared_chosen_and_judged(own):
    plain = dataclasses.replace(own.settings, missing_indicators=False)
    analyses = {
        nested.START: (own, None),
        "no_indicators": (dataclasses.replace(own, settings=plain), None),
    }
    plan = nested.Plan((ARM,), 3, {nested.START: {}, "no_indicators": {}})
    compared = nested.compare(analyses, plan)
    folds = own.settings.study.validation["folds"]
    assert len(compared) == 2 * folds and (compared["loss"] > 0.2).all()
    train = [
        len(own.fold_parts(k, 0)["train"] + own.fold_parts(k, 0)["inner"])
        for k in range(1, folds + 1)
    ]
    assert compared.groupby("fold")["n"].first().tolist() == train
    chosen = nested.choices(compared)
    assert chosen["fold"].tolist() == [*map(str, range(1, folds + 1)), "all"]
    assert (chosen["loss"] <= chosen["start_loss"]).all()
    judged = nested.estimates(analyses, chosen, plan).set_index("choice")
    whole = experiment.run_arms(own, None, [ARM])
    assert judged["n"].tolist() == [(whole["partition"] == "out-of-fold").sum()] * 2
    gain = judged.loc["over all folds", "auc"] - judged.loc["of each fold", "auc"]
    assert judged.loc["over all folds", "difference"] == pytest.approx(gain)
    assert np.isnan(judged.loc["of each fold", "difference"])


def test_the_least_mean_loss_is_chosen_and_the_first_wins_ties():
    rows = [
        ("as", 1, 0.5),
        ("as", 2, 0.5),
        ("b", 1, 0.5),
        ("b", 2, 0.5),
        ("c", 1, 0.4),
        ("c", 2, 0.7),
    ]
    table = pd.DataFrame(rows, columns=["candidate", "fold", "loss"]).assign(arm="daft")
    assert nested.choices(table)["candidate"].tolist() == ["c", "as", "as"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('arms = ["moon"]\nfolds = 3\n[candidates.a]\n', "arm 'moon'; allowed: clinical_logistic"),
        ("folds = 3\n[candidates.a]\n", "at least one of 'arms'"),
        ('arms = ["daft"]\nfolds = 3\n', "at least one of 'arms'"),
        ('arms = ["late"]\nfolds = 3\n[candidates.a]\n', "arm 'late' is made of others"),
        ('arms = ["daft"]\nfolds = 3\n[candidates.start]\n', "candidate 'start'; allowed: another"),
        ('arms = ["daft"]\nfolds = 1\n[candidates.a]\n', "folds is 1; allowed: 2 or more"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path, text, said):
    study = dataclasses.replace(load_study("soop"), folder=tmp_path)
    (tmp_path / nested.FILE).write_text(text)
    with pytest.raises(InputError, match=said):
        nested.load_plan(study)


def test_a_study_without_candidates_says_so_and_that_of_soop_is_whole(study):
    with pytest.raises(InputError, match="study 'rlvo' has no candidates.toml"):
        nested.load_plan(study)
    plan = nested.load_plan(load_study("soop"))
    assert plan.arms == ("daft", "concat") and next(iter(plan.candidates)) == nested.START
