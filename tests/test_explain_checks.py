import dataclasses

import hypothesis
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvo_lib import experiment, explain, results, workers
from rlvo_lib.config import InputError
from rlvo_lib.explain import checks, faithfulness, randomisation, similarity, stability
from rlvo_lib.explain.attribution import METHODS
from rlvo_lib.results import checks as judged

QUICK = ["gradcam", "integrated_gradients", "edges", "random"]


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """Everything in this process: a new one costs seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", lambda make, calls, **_: [make(*call) for call in calls])
        yield


@pytest.fixture(scope="module")
def more(analysis):
    """The small cohort with enough explained patients for intervals."""
    settings = dataclasses.replace(analysis.settings, explained_patients=10, mapped_patients=10)
    return dataclasses.replace(analysis, settings=settings)


@pytest.fixture(scope="module")
def tasks(more, tensors):
    experiment.run_arms(more, tensors, ["daft"])
    return experiment.plan(more, tensors, ["daft"])


@pytest.fixture
def model(more, tensors, tasks):
    return explain.FusedModel.load(more, tensors, tasks[0])


@pytest.fixture(scope="module")
def maps(more, tensors, tasks):
    return explain.maps_of_folds(more, tensors, tasks, QUICK)


@pytest.fixture(scope="module")
def regions(more, tensors, maps):
    return explain.region_shares(more, tensors, maps)


@pytest.fixture(scope="module")
def rows(more, tensors, tasks, regions):
    return explain.checks_of_folds(more, tensors, tasks, QUICK, regions=regions)


# ------------------------------------------------------------------------------------ similarity


@hypothesis.settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=3, max_size=20, unique=True))
def test_rank_correlation_sees_order_alone(values):
    row = np.array([values])
    steps = np.argsort(np.argsort(row)).astype(float)
    np.testing.assert_allclose(similarity.rank_correlation(row, np.exp(steps / 10)), 1)
    np.testing.assert_allclose(similarity.rank_correlation(row, -steps), -1)


def test_rank_correlation_is_scipy_s_with_ties():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 4, (2, 3, 50)).astype(float)
    wanted = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(similarity.rank_correlation(one, other), wanted)


def test_a_flat_map_has_nothing_to_compare_and_shares_nothing():
    ramp, flat = np.arange(5.0)[None], np.zeros((1, 5))
    assert np.isnan(similarity.rank_correlation(flat, ramp)[0])
    assert similarity.rank_correlation(ramp, flat)[0] == 0
    volume = np.arange(512.0).reshape(1, 8, 8, 8)
    assert np.isnan(similarity.structural_similarity(volume * 0, volume)[0])
    assert similarity.structural_similarity(volume, volume * 0)[0] == 0
    assert similarity.structural_similarity(volume, -3 * volume)[0] == pytest.approx(1)


def test_agreement_is_the_mean_over_pairs_and_compares_other_patients():
    rng = np.random.default_rng(2)
    values = [rng.normal(size=(2, 40)) for _ in range(3)]
    own, other = similarity.agreement(values)
    pairs = [(0, 1), (0, 2), (1, 2)]
    wanted = np.mean([similarity.rank_correlation(values[a], values[b]) for a, b in pairs], 0)
    np.testing.assert_allclose(own, wanted)
    swapped = [similarity.rank_correlation(values[a], values[b][::-1]) for a, b in pairs]
    np.testing.assert_allclose(other, np.mean(swapped, axis=0))
    assert np.isnan(similarity.agreement([v[:1] for v in values])[1]).all()
    assert np.isnan(similarity.agreement([v * 0 for v in values])[0]).all()


def test_boxes_cover_the_head_once_and_leave_air_out():
    inside = np.zeros((16, 24, 16), bool)
    inside[:8] = True
    boxes = similarity.head_boxes(inside)
    assert set(np.unique(boxes)) == {-1, *range(boxes.max() + 1)}
    assert (boxes[:8] >= 0).all() and (boxes[8:] < 0).all()
    assert set(np.bincount(boxes[boxes >= 0])) == {8}
    maps = np.random.default_rng(0).normal(size=(2, *inside.shape))
    means = similarity.box_means(maps, boxes)
    np.testing.assert_allclose(means[1, boxes[3, 5, 7]], maps[1][boxes == boxes[3, 5, 7]].mean())


def test_the_head_is_where_images_differ(model):
    head = similarity.head_mask(model)
    images = model.images(model.background)
    assert head.shape == tuple(model.analysis.settings.grid_shape)
    assert 0.05 < head.mean() < 0.98
    constant = (images.amax((0, 1)) - images.amin((0, 1)) == 0).numpy()
    assert not (head & constant).any()


# --------------------------------------------------------------------------------- randomisation


def test_the_cascade_holds_every_weight_once_from_the_head_down(model):
    parts = randomisation.cascade(model.network)
    assert [name for name, _ in parts] == [
        "head",
        "last block",
        "block 3",
        "block 2",
        "block 1",
        "stem",
    ]
    held = [p for _, modules in parts for m in modules for p in m.parameters()]
    assert len(held) == len({id(p) for p in held}) == len(list(model.network.parameters()))


def test_weights_are_drawn_anew_down_to_the_depth_and_no_further(model):
    before = {n: p.clone() for n, p in model.network.state_dict().items()}
    one = randomisation.randomised(model, 1, seed=3).network.state_dict()
    changed = {n for n in before if not torch.equal(before[n], one[n])}
    assert changed == {"head.weight", "head.bias"}
    fresh = randomisation.randomised(model, 6, seed=3)
    weights = [n for n, p in model.network.named_parameters() if p.ndim > 1]
    assert all(not torch.equal(before[n], fresh.network.state_dict()[n]) for n in weights)
    assert all(torch.equal(p, before[n]) for n, p in model.network.state_dict().items())
    same = randomisation.randomised(model, 6, seed=3).network.state_dict()
    assert all(torch.equal(p, same[n]) for n, p in fresh.network.state_dict().items())
    assert not any(m.training for m in fresh.network.modules())


def test_signals_of_a_network_drawn_anew_keep_their_scale(model):
    fresh = randomisation.randomised(model, 6, seed=3)
    features = fresh.network.encoder(fresh.images(fresh.background))
    assert 0.05 < float(features.detach().std()) < 20
    norm = fresh.network.encoder.trunks[0].stem[1]
    assert norm.momentum == 0.1 and int(norm.num_batches_tracked) == 1


def test_depths_and_networks_that_cannot_be_randomised_are_refused(model):
    with pytest.raises(InputError, match="depth is 7; allowed: 1 to 6"):
        randomisation.randomised(model, 7, seed=1)
    with pytest.raises(InputError, match="Linear has no encoder of images"):
        randomisation.cascade(torch.nn.Linear(2, 1))


def test_permuted_outcomes_keep_folds_and_test_part_and_have_tasks_of_their_own(analysis, tensors):
    permuted = randomisation.PermutedLabels.of(analysis)
    assert (permuted.y != analysis.y).sum() > 4
    split = analysis.split.set_index("participant_id")
    test = split.index[split["partition"] == "test"]
    assert (permuted.y[test] == analysis.y[test]).all()
    column = split.loc[analysis.y.index, "fold"].astype(str)
    pd.testing.assert_series_equal(
        permuted.y.groupby(column).sum(), analysis.y.groupby(column).sum()
    )
    pd.testing.assert_series_equal(randomisation.PermutedLabels.of(analysis).y, permuted.y)
    assert (randomisation.PermutedLabels.of(analysis, 2).y != permuted.y).any()
    own = {t.folder for t in experiment.plan(permuted, tensors, ["daft"])}
    assert own.isdisjoint({t.folder for t in experiment.plan(analysis, tensors, ["daft"])})


# ---------------------------------------------------------------------------------- faithfulness


class Corner(torch.nn.Module):
    """A network whose logit is ten times the mean of one corner of the first channel."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(10.0))

    def forward(self, image, tabular=None):
        d, h, w = (n // 2 for n in image.shape[2:])
        return self.scale * image[:, :1, d:, h:, w:].mean(dim=(1, 2, 3, 4))[:, None]


@pytest.fixture
def corner(model):
    """The corner's network, whose patients are ones before a mean image of zeros."""
    shape = tuple(model.analysis.settings.grid_shape)
    model.network = Corner()
    model.images = lambda ids: torch.ones(len(ids), 7, *shape)
    model.placed = lambda images: images
    vars(model)["mean_image"] = torch.zeros(1, 7, *shape)
    truth = np.zeros(shape, np.float32)
    truth[tuple(slice(n // 2, None) for n in shape)] = 1
    return model, truth


def test_a_true_map_moves_the_logit_sooner_than_chance_and_its_opposite_later(corner):
    model, truth = corner
    boxes = similarity.head_boxes(np.ones(truth.shape, bool))
    maps = {"true": truth, "opposite": -truth}
    curves = faithfulness.faithfulness_curves(model, model.background[0], maps, boxes, seed=1)
    areas = {
        (method, check): judged.curve_areas(part, -1.0 if check == "deletion" else 1.0).iloc[0]
        for (method, check), part in curves.groupby(["method", "check"])
    }
    assert areas["true", "deletion"] > 1 and areas["true", "insertion"] > 1
    assert areas["opposite", "deletion"] < -1 and areas["opposite", "insertion"] < -1
    own = curves[curves["method"] == "true"].set_index(["check", "part"])["value"]
    n = boxes.max() + 1
    assert own["deletion", "5%"] == pytest.approx(-10 * round(0.05 * n) / (n / 8), abs=1e-4)
    assert own["deletion", "30%"] == pytest.approx(-10, abs=1e-4)
    assert own["insertion", "30%"] == pytest.approx(10, abs=1e-4)


def test_random_orders_change_the_logit_by_their_share(corner):
    model, truth = corner
    boxes = similarity.head_boxes(np.ones(truth.shape, bool))
    curves = faithfulness.faithfulness_curves(
        model, model.background[0], {"true": truth}, boxes, seed=1
    )
    shares = curves["part"].str.rstrip("%").astype(float) / 100
    sign = np.where(curves["check"] == "deletion", -10, 10)
    assert np.abs(curves["reference"] - sign * shares).max() < 1.5
    again = faithfulness.faithfulness_curves(
        model, model.background[0], {"true": truth}, boxes, seed=1
    )
    pd.testing.assert_frame_equal(curves, again)


def test_an_absent_channel_stays_absent_whatever_is_deleted(corner):
    model, truth = corner
    whole = torch.ones(1, 7, *truth.shape)
    whole[:, 6] = float("nan")
    seen = []
    model.images = lambda ids: whole
    logits = model.logits
    model.logits = lambda images, tabular: seen.append(images) or logits(images, tabular)
    boxes = similarity.head_boxes(np.ones(truth.shape, bool))
    faithfulness.faithfulness_curves(model, model.background[0], {"true": truth}, boxes, seed=1)
    seen = torch.cat(seen)
    assert seen[:, 6].isnan().all() and not seen[:, :6].isnan().any()


# ------------------------------------------------------------------------------------- stability


@pytest.mark.parametrize("move", stability.MOVES)
def test_moving_there_and_back_changes_only_the_edge(move):
    volume = torch.arange(210.0).reshape(5, 6, 7)
    there = stability.moved(volume, move)
    back = stability.moved(there, tuple(-step for step in move))
    kept = stability.unaffected(np.ones((5, 6, 7), bool), move)
    assert (back == volume).numpy()[kept].all() and (back != volume).any()
    inside = (slice(1, -1),) * 3
    rolled = np.roll(volume.numpy(), move, (0, 1, 2))
    np.testing.assert_array_equal(there.numpy()[inside], rolled[inside])


def test_moves_take_all_directions_in_turn():
    drawn = stability.drawn_moves([f"sub-{k}" for k in range(6)], 5)
    assert sorted(drawn) == sorted(stability.MOVES)
    assert drawn == stability.drawn_moves([f"sub-{k}" for k in range(6)], 5)


# ------------------------------------------------------------------------------ a small run's rows


def test_rows_cover_every_check_that_needs_no_retraining(rows, more, tensors, tasks):
    assert list(rows) == checks.CHECK_COLUMNS
    wanted = {name for name, c in judged.CHECKS.items() if c.needs != judged.RETRAINED}
    assert set(rows["check"]) == wanted
    ids = explain.chosen(more, tensors, tasks[0], 10)
    for name in ("deletion", "stability_folds", "pointing"):
        assert set(rows.loc[rows["check"] == name, "participant_id"]) == set(ids)
    folds = rows[rows["check"] == "deletion"].groupby("participant_id")["fold"].nunique()
    assert (folds == 1).all(), "the explained patients are dealt out among the fold models"
    again = explain.checks_of_folds(more, tensors, tasks, QUICK)
    pd.testing.assert_frame_equal(rows.head(len(again)), again)
    assert not {"pointing", "enrichment"} & set(again["check"])


def test_controls_that_know_no_model_fail_and_a_network_s_maps_change(rows):
    table = results.explanation_checks(rows, data="simulated", resamples=200)
    found = table.set_index(["method", "check"])
    for name in judged.CONTROLS:
        row = found.loc[(name, "model_randomisation")]
        assert row["verdict"] == "fail" and row["value"] == pytest.approx(1)
    assert found.loc[("gradcam", "model_randomisation"), "value"] < 0.99
    assert set(results.usable_methods(table)).isdisjoint(judged.CONTROLS)
    assert (found.xs("null_scenario", level="check")["verdict"] == "not made").all()
    assert found.loc[("edges", "stability_folds"), "value"] == pytest.approx(1)


def test_controls_and_names_are_those_of_the_methods():
    assert set(judged.CONTROLS) == {name for name, one in METHODS.items() if one.control}


def test_what_cannot_be_checked_is_refused(more, tensors, tasks):
    with pytest.raises(InputError, match="method 'cam' is not known; allowed: gradcam"):
        explain.checks_of_folds(more, tensors, tasks, ["cam"])
    other = dataclasses.replace(tasks[0], seed=7)
    with pytest.raises(InputError, match="tasks of 2 arms and seeds; allowed: the folds of one"):
        explain.checks_of_folds(more, tensors, [*tasks, other])
    tabular = dataclasses.replace(tasks[0], what=more.settings.study.arms["clinical_mlp"])
    with pytest.raises(InputError, match="has no image channels"):
        explain.checks_of_folds(more, tensors, [tabular], QUICK)


def test_pointing_and_enrichment_are_those_of_the_lesion_among_the_regions(rows, regions):
    lesion = regions.query("kind == 'truth' and region == 'lesion' and method == 'gradcam'")
    lesion = lesion.set_index("participant_id")
    for check, column in (("pointing", "hit"), ("enrichment", "share")):
        own = rows[(rows["check"] == check) & (rows["method"] == "gradcam")]
        own = own.set_index("participant_id")
        assert len(own) == len(lesion) > 4
        np.testing.assert_allclose(own["value"], lesion.loc[own.index, column], rtol=1e-4)
        np.testing.assert_allclose(
            own["reference"], lesion.loc[own.index, "volume_share"], rtol=1e-4
        )
    real = regions[regions["kind"] != "truth"]
    assert explain.lesion_rows(real).empty


# ---------------------------------------------------------------------------- networks retrained


@pytest.fixture(scope="module")
def untaught(more, tensors, tasks):
    """Analysis and maps of networks trained on outcomes dealt out anew, of two folds."""
    permuted = randomisation.PermutedLabels.of(more)
    others = experiment.plan(permuted, tensors, ["daft"])[:2]
    for task in [t for t in others if not t.done]:
        experiment.run_task(permuted, tensors, task)
    return permuted, explain.maps_of_folds(permuted, tensors, others, ["gradcam", "edges"])


def test_maps_of_permuted_outcomes_are_compared_fold_by_fold(more, tensors, tasks, untaught):
    permuted, other = untaught
    own = explain.maps_of_folds(more, tensors, tasks[:2], ["gradcam", "edges"])
    head = explain.head_of(more, tensors, tasks[0])
    rows = explain.label_rows(own, other, head)
    assert list(rows) == checks.CHECK_COLUMNS and set(rows["fold"]) == {1, 2}
    alike = rows[rows["measure"] == "absolute"].groupby("method")["value"].mean()
    assert alike["edges"] == pytest.approx(1) and alike["gradcam"] < 0.99
    learnt = explain.learnt_rows(
        explain.region_shares(more, tensors, own), explain.region_shares(permuted, tensors, other)
    )
    edges = learnt[learnt["method"] == "edges"]
    np.testing.assert_allclose(edges["value"], edges["reference"])
    table = results.explanation_checks(pd.concat([rows, learnt]), data="simulated", resamples=100)
    verdicts = table.set_index(["method", "check"])["verdict"]
    assert verdicts["edges", "label_randomisation"] == verdicts["edges", "learnt"] == "fail"
    short = dataclasses.replace(other, unseen=other.unseen[:1])
    with pytest.raises(InputError, match="maps of other patients or folds"):
        explain.label_rows(own, short, head)


def test_maps_of_several_seeds_are_compared_fold_by_fold(more, tensors, tasks, untaught):
    own = explain.maps_of_folds(more, tensors, tasks[:2], ["gradcam", "edges"])
    head = explain.head_of(more, tensors, tasks[0])
    rows = explain.seed_rows([own, untaught[1]], head)
    assert set(rows["part"]) == {"2 models"} and set(rows["fold"]) == {1, 2}
    boxes = rows[(rows["measure"] == "boxes") & (rows["fold"] == 2)].set_index(
        ["method", "participant_id"]
    )
    assert boxes.loc["edges", "value"].round(3).eq(1).all()
    pair = [
        checks.at_both_scales([m.by_model["gradcam"][1]], head)["boxes"][0]
        for m in (own, untaught[1])
    ]
    wanted = similarity.rank_correlation(*pair)
    np.testing.assert_allclose(boxes.loc["gradcam", "value"], wanted, atol=1e-4)
    with pytest.raises(InputError, match="maps of 1 seed; allowed: two seeds or more"):
        explain.seed_rows([own], head)


def test_null_rows_are_the_regions_shares_without_the_outside():
    regions = pd.DataFrame(
        {"participant_id": "a", "arm": "imaging", "method": "gradcam", "region": ["core", "outside"],
         "kind": "structure", "share": [0.2, 0.4], "volume_share": [0.1, 0.5]}
    )  # fmt: skip
    rows = explain.null_rows(regions)
    assert rows["part"].tolist() == ["structure: core"]
    assert rows["value"].tolist() == [0.2] and rows["reference"].tolist() == [0.1]
