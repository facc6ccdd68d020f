"""Shapley values over modalities: their arithmetic, what absent means, and known answers of made models."""

import dataclasses
import functools
import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from rlvo_lib import experiment, explain, results, storage, workers
from rlvo_lib.config import InputError
from rlvo_lib.explain import modalities
from rlvo_lib.results.modalities import interaction_weights, shapley_weights

NAMES = ["ncct", "cta", "vessels", "ctp", "clinical"]


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
def found(analysis, tensors, tasks):
    return explain.modality_logits(analysis, tensors, tasks[:2])


def _untrained(analysis, cache, task, **changes):
    settings = dataclasses.replace(analysis.settings, **changes)
    other = dataclasses.replace(analysis, settings=settings)
    parts, encoder = experiment.fold_encoder(analysis, cache, task)
    torch.manual_seed(0)
    network = experiment.build_network(settings, task.arm, len(encoder.names)).eval()
    return explain.FusedModel(other, cache, task, network, encoder, parts["train"])


def _logit(frame, participant, coalition):
    rows = frame[(frame["participant_id"] == participant) & (frame["coalition"] == coalition)]
    return rows["logit"].item()


# ------------------------------------------------------------------------------- the arithmetic


def test_shapley_values_by_all_orders_are_those_of_the_weights():
    values = np.random.default_rng(0).normal(size=16)
    by_orders = np.zeros(4)
    for order in itertools.permutations(range(4)):
        inside = 0
        for player in order:
            by_orders[player] += values[inside | 1 << player] - values[inside]
            inside |= 1 << player
    np.testing.assert_allclose(shapley_weights(4) @ values, by_orders / 24)
    np.testing.assert_allclose((shapley_weights(4) @ values).sum(), values[-1] - values[0])


def test_players_who_only_add_do_not_interact_and_a_pair_that_needs_both_does():
    sizes = np.array([1.0, 3.0, -2.0])
    added = np.array([sizes[[k for k in range(3) if c >> k & 1]].sum() for c in range(8)])
    pairs, weights = interaction_weights(3)
    np.testing.assert_allclose(weights @ added, 0, atol=1e-12)
    both = np.array([float(c & 3 == 3) for c in range(8)])
    assert dict(zip(pairs, weights @ both, strict=True)) == pytest.approx(
        {(0, 1): 1, (0, 2): 0, (1, 2): 0}
    )


# --------------------------------------------------------------------------- what a model is asked


def test_modalities_are_named_after_the_arms_that_see_them_alone(study):
    assert modalities.modality_channels(study, study.arms["daft"])["ctp"] == (3, 4, 5, 6)
    labels = explain.modality_labels(study, study.arms["daft"])
    assert list(labels) == NAMES and labels["ctp"] == study.arms["ctp"].label
    assert "clinical" not in explain.modality_labels(study, study.arms["imaging"])
    lesion = dataclasses.replace(study.arms["daft"], channels=("tmax", "cta"))
    assert list(modalities.modality_channels(study, lesion)) == ["maps", "cta"]


def test_every_unseen_patient_has_every_coalition_of_each_fold(analysis, tensors, tasks, found):
    pool = explain.unseen(analysis, tensors, tasks[0])
    assert list(found.columns) == explain.MODALITY_COLUMNS
    assert len(found) == 2 * len(pool) * 32 and set(found["participant_id"]) == set(pool)
    assert set(found["absent"]) == {"donor"}
    again = explain.modality_logits(analysis, tensors, tasks[:2])
    pd.testing.assert_frame_equal(found, again)


def test_all_present_is_the_stored_prediction(tasks, found):
    stored = storage.read_csv(tasks[0].result).set_index(["participant_id", "partition"])
    rows = found[(found["coalition"] == "+".join(NAMES)) & (found["fold"] == tasks[0].fold)]
    for row in rows.itertuples():
        probability = stored.loc[(row.participant_id, "test"), "probability"]
        assert 1 / (1 + np.exp(-row.logit)) == pytest.approx(probability, abs=2e-6)


def test_absent_is_the_mean_over_the_same_training_patients_for_everybody(model, found, tasks):
    donors = modalities.modality_donors(model)
    assert set(donors) <= set(model.training_patients)
    assert len(donors) == model.analysis.settings.modality_donors
    own = model.logits(model.images(donors), model.tabular(donors)).mean()
    none = found[found["coalition"].isna() | (found["coalition"] == "")]
    none = none[none["fold"] == tasks[0].fold]["logit"]
    np.testing.assert_allclose(none, own, atol=1e-5)


def test_a_coalition_is_the_image_put_together_by_hand(model, found):
    patient, donors = found["participant_id"].iloc[0], modalities.modality_donors(model)
    logits = []
    for donor in donors:
        image = model.images([donor]).clone()
        image[:, [0, 3, 4, 5, 6]] = model.images([patient])[:, [0, 3, 4, 5, 6]]
        logits.append(model.logits(image, model.tabular([donor]))[0])
    rows = found[found["fold"] == model.task.fold]
    assert _logit(rows, patient, "ncct+ctp") == pytest.approx(np.mean(logits), abs=1e-5)


@pytest.mark.parametrize("inputs", ["stacked", "per-modality"])
def test_mixing_behind_the_first_convolution_is_mixing_images(
    analysis, tensors, tasks, monkeypatch, inputs
):
    model = _untrained(analysis, tensors, tasks[0], encoder_inputs=inputs)
    ids = explain.unseen(analysis, tensors, tasks[0])[:2]
    quick = modalities.coalition_logits(model, ids)
    groups = [(0,), (1,), (2,), (3, 4, 5, 6)]
    kind = modalities._Stems if inputs == "stacked" else modalities._Images
    assert type(modalities._mixer(model.network, groups)) is kind
    monkeypatch.setattr(modalities, "_mixer", modalities._Images)
    slow = modalities.coalition_logits(model, ids)
    np.testing.assert_allclose(quick["logit"], slow["logit"], atol=1e-5)
    assert quick["logit"].nunique() > 30


def test_where_the_encoder_needs_the_table_the_whole_network_is_asked(analysis, tensors, tasks):
    arm = dataclasses.replace(tasks[0].arm, fusion="interactive")
    model = _untrained(analysis, tensors, dataclasses.replace(tasks[0], what=arm))
    ids = explain.unseen(analysis, tensors, tasks[0])[:1]
    found = modalities.coalition_logits(model, ids)
    whole = model.logits(model.images(ids), model.tabular(ids))[0]
    assert _logit(found, ids[0], "+".join(NAMES)) == pytest.approx(whole, abs=1e-5)
    donors = modalities.modality_donors(model)
    images = model.images(ids).expand(len(donors), -1, -1, -1, -1)
    wanted = model.logits(images, model.tabular(donors)).mean()
    assert _logit(found, ids[0], "ncct+cta+vessels+ctp") == pytest.approx(wanted, abs=1e-5)


def test_a_modality_that_the_network_ignores_carries_nothing(model, found):
    ids = list(found["participant_id"].unique()[:3])
    with torch.no_grad():
        model.network.encoder.trunks[0].stem[0].weight[:, 1] = 0
        modulation = model.network.block.modulation
        modulation.reduce.weight[:, -len(model.encoder.names) :] = 0
    values = results.modality_values(modalities.coalition_logits(model, ids))
    size = values["shapley"].abs().groupby(values["modality"]).max()
    assert size[["cta", "clinical"]].max() < 1e-6 < size[["ncct", "ctp"]].min()


def test_an_offset_belongs_to_the_clinical_variables(model, found, monkeypatch):
    ids = list(found["participant_id"].unique()[:2])
    plain = results.modality_values(modalities.coalition_logits(model, ids))
    added = {p: 1.0 + k for k, p in enumerate(ids)}
    monkeypatch.setattr(
        explain.FusedModel, "added", lambda _, some: np.array([added.get(p, 0.5) for p in some])
    )
    moved = results.modality_values(modalities.coalition_logits(model, ids))
    wanted = [added[p] - 0.5 if m == "clinical" else 0.0
              for p, m in zip(plain["participant_id"], plain["modality"], strict=True)]  # fmt: skip
    np.testing.assert_allclose(moved["shapley"] - plain["shapley"], wanted, atol=1e-5)
    np.testing.assert_allclose(moved["base"] - plain["base"], 0.5, atol=1e-5)


def test_flags_are_a_second_meaning_of_absent_and_a_scan_that_is_not_there_adds_nothing(
    analysis, tensors, tasks
):
    patient = explain.unseen(analysis, tensors, tasks[0])[0]
    original = type(tensors)._one

    def without_cta(self, participant, channels, view, absent):
        whole = original(self, participant, channels, view, absent).copy()
        if participant == patient:
            whole[list(channels).index("cta")] = np.nan
        return whole

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tensors), "_one", without_cta)
        model = _untrained(analysis, tensors, tasks[0], absent="flag")
        found = modalities.coalition_logits(model, [patient])
        patch.setattr(modalities, "_mixer", modalities._Images)
        slow = modalities.coalition_logits(model, [patient])
    assert list(found["absent"].unique()) == ["donor", "flag"]
    np.testing.assert_allclose(found["logit"], slow["logit"], atol=1e-5)
    values = results.modality_values(found).set_index(["absent", "modality"])["shapley"]
    assert abs(values["flag", "cta"]) < 1e-6 < abs(values["flag", "ncct"])
    assert abs(values["donor", "cta"]) > 1e-6


def test_who_cannot_be_asked_about_is_said(analysis, tensors, tasks):
    seen = analysis.fold_parts(tasks[0].fold, tasks[0].seed)["train"][0]
    with pytest.raises(InputError, match=f"patient {seen}, arm 'daft': every fold model asked"):
        explain.modality_logits(analysis, tensors, tasks[:1], [seen])
    with pytest.raises(InputError, match="patient sub-none, arm 'daft': not an eligible patient"):
        explain.modality_logits(analysis, tensors, tasks, ["sub-none"])
    held = analysis.fold_parts(tasks[1].fold, tasks[1].seed)["held_out"][0]
    one = explain.modality_logits(analysis, tensors, tasks, [held])
    assert set(one["fold"]) == {tasks[1].fold} and len(one) == 32


def test_an_arm_without_images_has_no_modalities(analysis, tensors, tasks):
    model = _untrained(analysis, tensors, tasks[0])
    arm = dataclasses.replace(tasks[0].arm, channels=())
    model.task = dataclasses.replace(tasks[0], what=arm)
    with pytest.raises(InputError, match="has no image channels"):
        modalities.coalition_logits(model, ["sub-0001"])


def test_caption_says_what_absent_means(analysis, found):
    words = explain.modality_caption(found, analysis.y, 2)
    assert "2 training patients of each fold" in words and "2 fold models" in words
    assert f"{found['participant_id'].nunique()} patients" in words


# ------------------------------------------------------------------------------------ the tables


def _made(values, folds=1):
    """Coalition logits of two modalities a and b for patients with these (a, b), f = a + 2 b."""
    rows = []
    for fold in range(1, folds + 1):
        for k, (a, b) in enumerate(values):
            for coalition, logit in (("", 0.0), ("a", a), ("b", 2 * b), ("a+b", a + 2 * b)):
                rows.append((f"sub-{k:02d}", "x", 0, fold, "donor", coalition, logit))
    return pd.DataFrame(rows, columns=explain.MODALITY_COLUMNS)


@pytest.fixture
def separated():
    rng = np.random.default_rng(1)
    y = pd.Series([0, 1] * 20, index=[f"sub-{k:02d}" for k in range(40)])
    return _made([(3.0 * event + rng.normal(), 0.0) for event in y]), y


def test_all_discrimination_is_given_to_the_modality_that_has_it(separated):
    frame, y = separated
    table = results.modality_shares(frame, y, data="simulated", resamples=200)
    auc = table[table["measure"] == "auc"].set_index("modality")
    assert auc.loc["b", "value"] == 0 and auc.loc["a", "share"] == pytest.approx(1)
    coalitions = results.modality_coalitions(frame, y, data="simulated", resamples=200)
    by_name = coalitions.set_index("coalition")["auc"]
    assert by_name[""] == by_name["b"] == 0.5 and by_name["a"] == by_name["a+b"]
    assert auc.loc["all", "value"] == pytest.approx(by_name["a+b"] - 0.5)
    assert auc.loc["a", "low"] < auc.loc["a", "value"] < auc.loc["a", "high"]
    assert list(table.columns)[-1] == "data" and set(table["data"]) == {"simulated"}


def test_shares_of_single_predictions_are_mean_sizes(separated):
    frame = _made([(1.0, -1.0), (-3.0, 2.0)] * 2)
    y = pd.Series([0, 1, 1, 0], index=[f"sub-{k:02d}" for k in range(4)])
    table = results.modality_shares(frame, y, data="real", resamples=50)
    logit = table[table["measure"] == "logit"].set_index("modality")
    assert logit["value"].to_dict() == {"a": 2.0, "b": 3.0}
    assert logit["share"].to_dict() == pytest.approx({"a": 0.4, "b": 0.6})
    pairs = results.modality_interactions(frame, y, data="real", resamples=50)
    assert pairs.set_index("measure").loc["logit", "value"] == pytest.approx(0)


def test_the_spread_over_folds_is_not_the_interval_over_patients(separated):
    frame, y = separated
    two = pd.concat([frame, frame.assign(fold=2, logit=frame["logit"] * 3)], ignore_index=True)
    one = results.modality_shares(frame, y, data="simulated", resamples=100)
    both = results.modality_shares(two, y, data="simulated", resamples=100)
    size = both[(both["measure"] == "logit") & (both["modality"] == "a")].iloc[0]
    first = one[(one["measure"] == "logit") & (one["modality"] == "a")].iloc[0]
    assert size["value"] == pytest.approx(2 * first["value"])
    assert size["sd_folds"] == pytest.approx(np.std([1, 3], ddof=1) * first["value"])
    assert one["sd_folds"].isna().all()
    assert both[both["measure"] == "auc"]["sd_folds"].max() == pytest.approx(0)


def test_out_of_fold_nothing_has_an_auc_of_one_half():
    """Each fold scores patients of its own; its constant, in step with its prevalence here, must rank nobody."""
    rng, rows, y = np.random.default_rng(4), [], {}
    for seed in (0, 1):
        for k in range(60):
            fold = k % 3 if seed == 0 else k // 20
            y[f"sub-{k:02d}"] = int(k % 6 < 1 + k % 3)
            constant = 2.0 * (k % 3) if seed == 0 else -1.0 * fold
            signal = 3.0 * y[f"sub-{k:02d}"] + rng.normal()
            for coalition, logit in (("", 0.0), ("a", signal), ("b", 0.0), ("a+b", signal)):
                rows.append((f"sub-{k:02d}", "x", seed, fold, "donor", coalition, constant + logit))
    frame, y = pd.DataFrame(rows, columns=explain.MODALITY_COLUMNS), pd.Series(y)
    table = results.modality_coalitions(frame, y, data="simulated", resamples=100)
    by_name = table.set_index("coalition")
    assert (by_name.loc[["", "b"], ["auc", "low", "high"]] == 0.5).all(axis=None)
    assert by_name.loc["a", "auc"] == by_name.loc["a+b", "auc"] > 0.95
    shares = results.modality_shares(frame, y, data="simulated", resamples=100)
    auc = shares[shares["measure"] == "auc"].set_index("modality")["value"]
    assert auc["b"] == 0 and auc["a"] == pytest.approx(by_name.loc["a+b", "auc"] - 0.5)
    values = results.modality_values(frame)
    assert values["base"].nunique() > 1, "a patient's own values start from what the models say"


def test_what_cannot_be_estimated_says_why(separated):
    frame, y = separated
    alike = results.modality_shares(frame, y * 0, data="simulated", resamples=20)
    auc = alike[alike["measure"] == "auc"]
    assert auc["value"].isna().all() and set(auc["reason"]) == {
        "all patients have the same outcome"
    }
    nothing = _made([(1.0, 0.0)] * 40)
    table = results.modality_shares(nothing, y, data="simulated", resamples=20)
    assert (
        table["reason"][table["measure"] == "auc"] == "share: the AUC gained is not clear of 0"
    ).all()
    still = results.modality_shares(_made([(0.0, 0.0)] * 40), y, data="simulated", resamples=20)
    assert (
        still["reason"][still["measure"] == "logit"] == "share: no modality moves a logit"
    ).all()


def test_faulty_tables_are_refused(separated):
    frame, y = separated
    with pytest.raises(InputError, match="column 'coalition' is missing"):
        results.modality_values(frame.drop(columns="coalition"))
    with pytest.raises(InputError, match="3 coalitions of a, b; needed: all 4"):
        results.modality_values(frame[frame["coalition"] != "b"])
    with pytest.raises(InputError, match="some patients lack a coalition"):
        results.modality_values(frame.drop(index=1))
    with pytest.raises(InputError, match="the outcome of patient 'sub-00' is not given"):
        results.modality_shares(frame, y.iloc[1:], data="simulated", resamples=5)
    with pytest.raises(InputError, match="no rows"):
        results.modality_values(frame.iloc[:0])


def test_a_table_read_back_from_its_file_gives_the_same(found, tmp_path):
    storage.write_csv(tmp_path / "modalities.csv", found)
    back = storage.read_csv(tmp_path / "modalities.csv")
    pd.testing.assert_frame_equal(results.modality_values(back), results.modality_values(found))
