"""Variants of an arm, their analyses without test patients, and the table of a grid."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import ablation, experiment, metrics, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import FUSIONS, InputError


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Tasks run here: a fresh process would import torch again."""
    monkeypatch.setattr(workers, "run", lambda f, tasks, **_: [f(*task) for task in tasks])


@pytest.fixture(scope="module")
def clinical(analysis, tmp_path_factory):
    """The small simulated cohort with a cache of its own."""
    settings = dataclasses.replace(
        analysis.settings, cache=tmp_path_factory.mktemp("ablation"), epochs_max=1
    )
    return dataclasses.replace(analysis, settings=settings)


@pytest.fixture(scope="module")
def curve(clinical):
    """The learning curve of the clinical logistic regression, run."""
    variants = ablation.grid(clinical, ["patients"], arm="clinical_logistic")
    assert {v.arm.name for v in variants} == {"clinical_logistic", "concepts"}
    own = [v for v in variants if v.arm.name == "clinical_logistic"]
    planned = ablation.plan(clinical, own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", lambda f, tasks, **_: [f(*task) for task in tasks])
        ablation.train(planned)
    return planned


def names(variants, group):
    return [v.name for v in variants if v.group == group]


def test_the_grid_changes_one_thing_at_a_time(clinical):
    variants = ablation.grid(clinical)
    base = variants[0]
    assert (base.name, base.group, base.arm.name) == ("base", "base", "daft")
    sources = ["ncct", "cta", "vessels", "maps", "clinical"]
    assert names(variants, "modalities") == [
        *(f"only_{s}" for s in sources), *(f"without_{s}" for s in sources),
    ]  # fmt: skip
    assert set(names(variants, "fusion")) == set(FUSIONS) - {"none", "daft"}
    assert names(variants, "location") == [f"location_{k}" for k in (0, 1, 2, 4)]
    assert names(variants, "resolution") == ["4_mm"]  # coarser: fewer than 16 voxels
    for v in variants:
        changed = [
            f.name for f in dataclasses.fields(v.arm) if getattr(v.arm, f.name) != getattr(base.arm, f.name)
        ]  # fmt: skip
        assert bool(v.settings) + (v.share < 1) + bool(changed) <= 1 or v.arm.name != "daft"


def test_an_arm_without_a_source_has_no_fusion_and_without_images_no_channels(clinical):
    arms = {v.name: v.arm for v in ablation.grid(clinical, ["modalities"])}
    channels = clinical.settings.study.arms["daft"].channels
    assert (arms["without_clinical"].channels, arms["without_clinical"].fusion) == (
        channels,
        "none",
    )
    assert arms["without_cta"].channels == tuple(c for c in channels if c != "cta")
    assert arms["only_maps"].channels == ("cbf", "cbv", "mtt", "tmax")
    assert (arms["only_clinical"].kind, arms["only_clinical"].channels) == ("mlp", ())


def test_of_two_modalities_one_alone_is_all_but_the_other(clinical):
    arms = clinical.settings.study.arms
    two = dataclasses.replace(arms["daft"], channels=("cta",))
    study = dataclasses.replace(clinical.settings.study, arms=arms | {"daft": two})
    settings = dataclasses.replace(clinical.settings, study=study)
    variants = ablation.grid(dataclasses.replace(clinical, settings=settings), ["modalities"])
    assert names(variants, "modalities") == ["only_cta", "only_clinical"]


def test_grids_keep_the_field_of_view(clinical):
    settings = dataclasses.replace(clinical.settings, grid_shape=(32, 40, 32), grid_spacing_mm=3.0)
    variants = ablation.grid(dataclasses.replace(clinical, settings=settings), ["resolution"])
    assert [v.settings for v in variants[1:]] == [
        {"grid_shape": (16, 20, 16), "grid_spacing_mm": 6.0},
        {"grid_shape": (24, 30, 24), "grid_spacing_mm": 4.0},
        {"grid_shape": (48, 60, 48), "grid_spacing_mm": 2.0},
    ]


def test_what_cannot_be_varied_is_refused(clinical):
    with pytest.raises(InputError, match="group 'depth' is not known; allowed: modalities, fusion"):
        ablation.grid(clinical, ["depth"])
    with pytest.raises(
        InputError, match="group 'fusion' does not apply to arm 'clinical_logistic'"
    ):
        ablation.grid(clinical, ["fusion"], arm="clinical_logistic")
    with pytest.raises(InputError, match="arm 'late' cannot be varied; allowed: clinical_logistic"):
        ablation.grid(clinical, arm="late")


def test_the_test_patients_are_gone(clinical):
    test = set(clinical.split.query("partition == 'test'")["participant_id"])
    other = ablation.without_test(clinical)
    assert test and not test & set(other.y.index) and not test & set(other.units.index)
    assert not test & set(other.split["participant_id"])
    for fold in (1, 2, 3, 4):
        mine, whole = other.fold_parts(fold, 0), clinical.fold_parts(fold, 0)
        assert mine == whole | {"test": []}  # everybody else is where they were


def test_shares_are_nested_stratified_and_leave_the_held_out_alone(clinical):
    analysis = ablation.without_test(clinical)
    for fold in (1, 2):
        larger = analysis.fold_parts(fold, 0)
        for share in (0.75, 0.5, 0.25):
            parts = ablation.thinned(analysis, share).fold_parts(fold, 0)
            assert parts["held_out"] == larger["held_out"]
            for part in ("train", "inner"):
                assert set(parts[part]) <= set(larger[part])
                for outcome in (0, 1):
                    whole = (analysis.y[analysis.fold_parts(fold, 0)[part]] == outcome).sum()
                    kept = (analysis.y[parts[part]] == outcome).sum()
                    assert share * whole <= kept < share * whole + 1
            larger = parts
    assert ablation.thinned(analysis, 1.0) is analysis
    for share in (0, 1.5):
        with pytest.raises(InputError, match="allowed: above 0, at most 1"):
            ablation.thinned(analysis, share)


def test_each_seed_draws_patients_of_its_own(clinical):
    settings = dataclasses.replace(clinical.settings, training_seeds=(0, 1))
    half = ablation.thinned(
        ablation.without_test(dataclasses.replace(clinical, settings=settings)), 0.5
    )
    first, second = (half.fold_parts(1, seed) for seed in (0, 1))
    assert len(first["train"]) == len(second["train"]) and first["train"] != second["train"]
    assert first["held_out"] == second["held_out"]


def test_shares_and_arms_beside_are_chosen(clinical):
    variants = ablation.grid(
        clinical, ["patients"], arm="daft", beside=["late", "daft"], shares=[0.5, 0.125, 1, 0.5]
    )
    assert [(v.arm.name, v.name, v.share) for v in variants] == [
        ("daft", "base", 1.0), ("late", "base", 1.0),
        ("daft", "share_12.5", 0.125), ("daft", "share_50", 0.5),
        ("late", "share_12.5", 0.125), ("late", "share_50", 0.5),
    ]  # fmt: skip
    for options, message in [
        ({"beside": ["daftt"]}, "arm 'daftt' is not known; allowed: clinical_logistic"),
        ({"shares": [0.5, 1.2]}, "share of the training patients is 1.2; allowed: above 0"),
        ({"shares": [0.0]}, "share of the training patients is 0.0; allowed: above 0"),
    ]:
        with pytest.raises(InputError, match=message):
            ablation.grid(clinical, ["patients"], **options)
    with pytest.raises(InputError, match="beside is given without group 'patients'"):
        ablation.grid(clinical, ["fusion"], beside=["late"])


@pytest.fixture(scope="module")
def combined(clinical):
    """A stack and a mean of two logistic regressions, run at two shares."""
    study = clinical.settings.study
    one = study.arms["clinical_logistic"]
    other = dataclasses.replace(one, name="other", predictors=one.predictors[:1], measures=())
    parts = {"clinical_logistic": one, "other": other}
    made = {
        kind: dataclasses.replace(
            study.arms["late"], name=kind, kind=kind, of=tuple(parts), channels=(), predictors=()
        )
        for kind in ("stack", "mean")
    }
    study = dataclasses.replace(study, arms=parts | made)
    analysis = dataclasses.replace(
        clinical, settings=dataclasses.replace(clinical.settings, study=study)
    )
    variants = ablation.grid(
        analysis, ["patients"], arm="clinical_logistic", beside=["other", *made], shares=[0.5]
    )
    planned = ablation.plan(analysis, variants)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", lambda f, tasks, **_: [f(*task) for task in tasks])
        assert ablation.train(planned) == 2 * 4 * 2  # parts, folds, shares: nothing twice
    return planned


def test_combined_arms_have_curves_of_their_own(combined):
    frame = ablation.predictions(combined)
    keys = ["participant_id", "variant"]
    wide = frame.pivot(index=keys, columns="arm", values="probability")
    assert wide.notna().all(axis=None)
    np.testing.assert_allclose(wide["mean"], wide[["clinical_logistic", "other"]].mean(axis=1))
    sizes = frame.groupby(["variant", "arm"])["n_train"].mean().unstack()
    assert (sizes["stack"] == sizes["clinical_logistic"]).all()
    assert sizes.loc["share_50", "stack"] < 0.6 * sizes.loc["base", "stack"]
    assert set(ablation.table(combined)["arm"]) == {"clinical_logistic", "other", "stack", "mean"}


def test_a_stack_of_all_patients_is_that_of_a_run(combined):
    frame = ablation.predictions(combined)
    base = frame[frame["variant"] == "base"]
    arm = combined[0].analysis.settings.study.arms["stack"]
    parts = base[base["arm"] != "stack"][list(experiment.PREDICTION_COLUMNS)]
    run = experiment.stack_arms(parts, arm).set_index("participant_id")["probability"]
    own = base[base["arm"] == "stack"].set_index("participant_id")["probability"]
    np.testing.assert_allclose(own, run[own.index])


def test_a_stack_of_a_share_learns_its_weights_from_that_share(combined):
    from rlvo_lib.ablation import running

    frame = ablation.predictions(combined)
    half = frame[(frame["variant"] == "share_50")][list(experiment.PREDICTION_COLUMNS)]
    one = next(p for p in combined if (p.variant.arm.name, p.variant.name) == ("stack", "share_50"))
    learnt = {}
    for task in one.tasks:
        parts = experiment.fold_patients(one.analysis, one.tensors, task)
        learnt[task.seed, task.fold] = {*parts["train"], *parts["inner"]}
    fold = 1
    strangers = half["participant_id"].isin(learnt[0, fold]) | (half["fold"] == fold)
    flipped = half.assign(y_true=half["y_true"].where(strangers, 1 - half["y_true"]))
    arms = half["arm"].isin(one.variant.arm.of)
    made = [running._combined(rows[arms], one.variant.arm, learnt) for rows in (half, flipped)]
    first, second = (m[m["fold"] == fold]["probability"].to_numpy() for m in made)
    np.testing.assert_array_equal(first, second)


def test_each_share_is_a_task_of_its_own(curve):
    folders = [task.folder for one in curve for task in one.tasks]
    assert len(set(folders)) == len(folders) == 16
    assert all(task.done for one in curve for task in one.tasks)
    assert ablation.train(curve) == 0  # found again


def test_predictions_are_out_of_fold_only(clinical, curve):
    frame = ablation.predictions(curve)
    test = set(clinical.split.query("partition == 'test'")["participant_id"])
    assert set(frame["partition"]) == {"out-of-fold"} and not test & set(frame["participant_id"])
    n = frame.groupby("variant")["participant_id"].nunique()
    assert (n == len(clinical.y) - len(test)).all()
    trained = frame.groupby("variant")["n_train"].mean()
    assert trained["share_25"] < trained["share_50"] < trained["share_75"] < trained["base"]


def test_the_table_holds_auc_and_the_paired_difference(clinical, curve):
    table = ablation.table(curve)
    frame = ablation.predictions(curve)
    wide = frame.pivot(index="participant_id", columns="variant", values="probability")
    y = clinical.y[wide.index].to_numpy()
    row = table.set_index("variant").loc["share_25"]
    test = metrics.compare_auc(y, wide["share_25"], wide["base"])
    assert row["auc"] == pytest.approx(metrics.auc(y, wide["share_25"].to_numpy()))
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(
        [test.difference, test.low, test.high]
    )
    assert row["low"] < row["auc"] < row["high"] and row["events"] == y.sum()
    base = table.iloc[0]
    assert base["variant"] == "base" and np.isnan(base["difference"])
    assert set(table["data"]) == {"simulated"}


def test_a_variant_that_cannot_run_is_in_the_table_with_its_reason(clinical, curve, monkeypatch):
    monkeypatch.setattr(Analysis, "tensors", lambda self: None)
    concepts = ablation.Variant("base", "base", clinical.settings.study.arms["concepts"])
    with pytest.raises(
        InputError, match=r"arm 'concepts' cannot run: fold 1: 0 patients .*no scans"
    ):
        ablation.plan(clinical, [concepts])
    planned = [*curve, *ablation.plan(clinical, [curve[0].variant, concepts])[1:]]
    row = ablation.table(planned).iloc[-1]
    assert row["arm"] == "concepts" and np.isnan(row["auc"]) and "(no scans)" in row["reason"]


def test_unfinished_grids_and_predicted_test_patients_are_refused(clinical, curve):
    fewer = dataclasses.replace(clinical.settings, seed=clinical.settings.seed + 1)
    planned = ablation.plan(
        dataclasses.replace(clinical, settings=fewer), [one.variant for one in curve]
    )
    with pytest.raises(InputError, match="16 of 16 tasks of the ablations are not finished"):
        ablation.predictions(planned)
    frame = ablation.predictions(curve)
    leaked = frame.assign(partition=["test"] + ["out-of-fold"] * (len(frame) - 1))
    with pytest.raises(InputError, match="holds predictions of the test set"):
        ablation.score(leaked, clinical.settings.study, data="simulated")


def test_image_variants_run_and_each_grid_has_tensors_of_its_own(
    analysis, tensors, monkeypatch, tmp_path
):
    settings = dataclasses.replace(analysis.settings, epochs_max=1, cache=tmp_path)
    small = dataclasses.replace(analysis, settings=settings)
    made = []
    monkeypatch.setattr(
        Analysis, "tensors", lambda self: made.append(self.settings.grid_shape) or tensors
    )
    wanted = ("base", "without_cta", "location_1", "4_mm")
    variants = [v for v in ablation.grid(small) if v.name in wanted and v.arm.name == "daft"]
    planned = ablation.plan(small, variants)
    assert made == [(16, 20, 16), (24, 30, 24)]
    assert len({task.folder for one in planned for task in one.tasks}) == 12  # same tensors here
    for one in planned[:3]:
        task = one.tasks[0]
        experiment.run_task(one.analysis, one.tensors, task)
        frame = pd.read_csv(task.result)
        assert (
            set(frame["partition"]) == {"out-of-fold"} and frame["probability"].between(0, 1).all()
        )
