"""What clinical variables switch in FiLM and DAFT: by hand, in networks whose answer is known, and in words."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest
import torch

from rlvo_lib import experiment, explain, results, workers
from rlvo_lib.config import InputError
from rlvo_lib.explain import modulation


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Folds without processes of their own, each of which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", functools.partial(_run_here, workers.run))
        yield


def _run_here(run, function, tasks, **options):
    return run(function, tasks, **(options | {"spawn_from": 1000}))


@pytest.fixture(scope="module")
def tasks(analysis, tensors):
    experiment.run_arms(analysis, tensors, ["daft"])
    return experiment.plan(analysis, tensors, ["daft"])


@pytest.fixture
def model(analysis, tensors, tasks):
    torch.set_num_threads(1)
    return explain.FusedModel.load(analysis, tensors, tasks[0])


@pytest.fixture(scope="module")
def ids(analysis, tensors, tasks):
    return explain.chosen(analysis, tensors, tasks[0], 4)


@pytest.fixture(scope="module")
def found(analysis, tensors, tasks):
    return explain.modulation_effects(analysis, tensors, tasks[:2])


def _film(model):
    """FiLM whose α of channel 0 is the standardised age, whose β of channel 1 is it negated, all else 0."""
    settings, task = model.analysis.settings, model.task
    arm = dataclasses.replace(task.arm, fusion="film")
    torch.manual_seed(0)
    network = experiment.build_network(settings, arm, len(model.encoder.names)).eval()
    film, age = network.block.modulation, model.encoder.names.index("age")
    n = film.expand.out_features // 2
    with torch.no_grad():
        film.reduce.weight.zero_(), film.expand.weight.zero_()
        film.reduce.weight[0, age], film.reduce.weight[1, age] = 1, -1  # ReLU(x) - ReLU(-x) = x
        film.expand.weight[0, 0], film.expand.weight[0, 1] = 1, -1
        film.expand.weight[n + 1, 0], film.expand.weight[n + 1, 1] = -1, 1
    task = dataclasses.replace(task, what=arm)
    return dataclasses.replace(model, network=network, task=task)


def test_each_model_channel_and_change_has_one_row(analysis, found, tasks):
    assert list(found.columns) == explain.MODULATION_COLUMNS
    keys = ["seed", "fold", "channel", "variable", "change"]
    assert not found.duplicated(keys).any() and found["channel"].nunique() == 32
    assert set(found["fold"]) == {tasks[0].fold, tasks[1].fold}
    assert set(found["variable"]) <= set(analysis.settings.study.columns_of(tasks[0].arm))
    assert found["flips"].between(0, 1).all() and found["reversed"].between(0, 1).all()
    assert found["active"].between(0, 1).all() and (found["weight"] >= 0).all()
    assert set(found["n"]) == {analysis.settings.explained_patients}
    changes = found.groupby("fold")[["variable", "change"]].apply(
        lambda f: set(map(tuple, f.values))
    )
    assert changes.iloc[0] == changes.iloc[1], "the same changes in all folds"


def test_a_linear_modulation_moves_by_the_quartiles_of_its_variable_and_nothing_else(model, ids):
    frame = modulation.effects(_film(model), ids).set_index(["variable", "channel"])
    parts = experiment.fold_patients(model.analysis, model.cache, model.task)
    outside = [p for part in ("train", "inner", "held_out") for p in parts[part]]
    low, high = (
        model.analysis.dataset.table.loc[outside, "age"].astype(float).quantile([0.25, 0.75])
    )
    assert frame.loc[("age", 0), "change"] == f"{low:g} to {high:g}"
    unit = float(
        model.analysis.dataset.table.loc[model.training_patients, "age"].astype(float).std(ddof=0)
    )
    assert frame.loc[("age", 0), "d_alpha"] == pytest.approx((high - low) / unit, rel=1e-4)
    assert frame.loc[("age", 1), "d_beta"] == pytest.approx(-(high - low) / unit, rel=1e-4)
    rest = frame.drop(index=[("age", 0), ("age", 1)])
    assert rest[["d_alpha", "d_beta", "flips"]].abs().max(axis=None) == 0
    own = model.tabular(ids)[:, model.encoder.names.index("age")].double().numpy()
    assert frame.loc[("age", 0), "alpha"] == pytest.approx(own.mean(), rel=1e-3, abs=1e-4)
    assert frame.loc[("age", 0), "alpha_sd"] == pytest.approx(own.std(ddof=1), rel=1e-3)
    assert frame.loc[("age", 0), "reversed"] == (own < 0).mean()
    assert frame.loc[("age", 0), "flips"] == 1, "from below the mean age to above it"


def test_coefficients_are_those_of_the_forward_pass(model, ids):
    """With one variable moved in the table, the whole network run again by hand."""
    frame = modulation.effects(model, ids)
    rows = frame[(frame["variable"] == "diabetes") & (frame["change"] == "no to yes")]
    table = model.analysis.dataset.table.loc[ids].copy()
    alphas, active = [], []

    def watch(module, inputs, output):
        alphas.append(module.coefficients(*inputs)[0])
        active.append((output > 0).double().flatten(2).mean(2))

    model.network.block.modulation.register_forward_hook(watch)
    for code in ("0", "1"):
        table["diabetes"] = pd.Series(code, index=table.index, dtype=table["diabetes"].dtype)
        model.network(model.images(ids), torch.as_tensor(model.encoder.transform(table)))
    moved = (alphas[1] - alphas[0]).double().mean(0).detach().numpy()
    np.testing.assert_allclose(rows["d_alpha"], moved, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(rows["d_active"], (active[1] - active[0]).mean(0), atol=1e-4)
    assert np.abs(moved).max() > 1e-4


def test_the_weight_of_a_channel_is_what_the_logit_loses_with_its_modulation(model, ids):
    tabular = model.tabular(ids)
    place = modulation._reached(model, ids, tabular)
    alpha, beta = place.coefficients(tabular)
    own = place.logits(tabular, alpha, beta)
    np.testing.assert_allclose(own, model.logits(model.images(ids), tabular), atol=1e-5)
    film = _film(model)
    frame = modulation.effects(film, ids).drop_duplicates("channel").set_index("channel")
    assert (frame["weight"].drop([0, 1]) == 0).all() and frame["weight"].max() > 0
    assert not film.network.block.modulation._forward_hooks, "no hook is left behind"
    assert not film.network.block.modulation._forward_pre_hooks


def test_where_no_relu_follows_nothing_is_switched(model, ids, monkeypatch):
    model.network.block.location = 4
    frame = modulation.effects(model, ids)
    assert frame["active"].isna().all() and frame["d_active"].isna().all()
    table = results.modulation_summary(frame, data="simulated")
    rows = table[table["measure"] == "active"]
    assert set(rows["reason"]) == {"no ReLU follows the modulation"}


def test_arms_without_modulation_get_a_sentence(analysis, tensors, tasks, study):
    for name, words in (("concat", "fusion concat1fc"), ("clinical_logistic", "kind logistic")):
        task = dataclasses.replace(tasks[0], what=study.arms[name])
        assert words in explain.modulation_reason(analysis, task)
        assert explain.modulation_effects(analysis, tensors, [task]).empty
    assert explain.modulation_reason(analysis, tasks[0]) == ""
    with pytest.raises(InputError, match="no rows; the arm's fusion"):
        results.modulation_summary(explain.modulation_effects(analysis, tensors, []), data="real")


def test_the_summary_weighs_channels_and_keeps_the_spread_over_models():
    rows = []
    for fold, d_alpha in ((1, (1.0, 4.0)), (2, (3.0, 4.0))):
        for channel, weight in ((0, 3.0), (1, 1.0)):
            rows.append(("x", 0, fold, channel, "age", "60 to 70", d_alpha[channel], 0.0, 0.5, -0.2,
                         2.0, 0.0, weight, 5))  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*results.modulation.NEEDED, "n"])
    channels = results.modulation_channels(frame, data="simulated")
    assert channels["alpha_sds"].tolist() == [0.5, 2.0, 1.5, 2.0]
    assert channels["rank"].tolist() == [1, 2, 1, 2] and channels["share"].tolist()[:2] == [
        0.75,
        0.25,
    ]
    assert set(channels["reason"]) == {"β: the same in all patients"}
    table = results.modulation_summary(frame, data="simulated").set_index("measure")
    assert table.loc["alpha", "value"] == pytest.approx((0.875 + 1.625) / 2)
    assert table.loc["alpha", "sd_models"] == pytest.approx(np.std([0.875, 1.625], ddof=1))
    assert (table.loc["alpha", "lowest"], table.loc["alpha", "highest"]) == (0.875, 1.625)
    assert np.isnan(table.loc["beta", "value"])
    assert table.loc["beta", "reason"] == "β: the same in all patients"
    assert table.loc["active", "value"] == pytest.approx(0.2) and table["models"].unique() == [2]
    still = results.modulation_summary(frame.assign(weight=0.0), data="simulated")
    assert set(still["reason"]) == {"no channel's modulation moves the logit"}
    with pytest.raises(InputError, match="column 'flips' is missing"):
        results.modulation_summary(frame.drop(columns="flips"), data="simulated")
