"""Arms of concepts explain themselves: contributions that add up, and other readings."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import baselines, concepts, experiment, explain, results, storage, workers
from rlvo_lib.config import InputError, Reader
from rlvo_lib.explain import reads

ARMS = ["concepts_imaging", "concepts", "concepts_daft"]
READERS = {
    "clot": Reader("clot", ("ncct",), ("clot_hu", "hyperdense_sign"), "clot"),
    "perfusion": Reader("perfusion", ("tmax",), ("collateral_tan", "core_ml")),
}


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Tasks without processes of their own, each of which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", functools.partial(_run_here, workers.run))
        yield


def _run_here(run, function, tasks, **options):
    return run(function, tasks, **(options | {"spawn_from": 1000}))


@pytest.fixture(scope="module")
def small(analysis, tmp_path_factory):
    """The small cohort with two readers of one epoch, and a cache of its own."""
    study = dataclasses.replace(analysis.settings.study, readers=READERS)
    settings = dataclasses.replace(
        analysis.settings, study=study, cache=tmp_path_factory.mktemp("reads"),
        reader_epochs=1, reader_filters=2,
    )  # fmt: skip
    return dataclasses.replace(analysis, settings=settings)


@pytest.fixture(scope="module")
def tasks(small, tensors):
    planned = [t for t in experiment.plan(small, tensors, ARMS) if t.fold < 3]
    experiment.run_tasks(small, tensors, planned)
    return planned


@pytest.fixture(scope="module")
def found(small, tensors, tasks):
    return explain.concept_reads(small, tensors, tasks)


@pytest.fixture(scope="module")
def models(small, tensors, tasks):
    return {t.arm.name: reads.ConceptModel.load(small, tensors, t) for t in tasks if t.fold == 1}


def test_contributions_add_up_to_the_stored_prediction(tasks, found):
    frame = found[0]
    assert list(frame.columns) == explain.READ_COLUMNS
    for task in tasks:
        own = frame[(frame["arm"] == task.arm.name) & (frame["fold"] == task.fold)]
        stored = storage.read_csv(task.result).query("partition == 'test'")
        stored = stored.set_index("participant_id")["probability"]
        by = own.groupby("participant_id")
        sums = by["contribution"].sum() + by["base"].first()
        np.testing.assert_allclose(sums, by["logit"].first(), atol=1e-4)
        wanted = np.log(stored[sums.index] / (1 - stored[sums.index]))
        np.testing.assert_allclose(by["logit"].first(), wanted, atol=1e-4)


def test_each_concept_and_clinical_variable_is_one(small, found):
    frame, study = found[0], small.settings.study
    read = [c for reader in READERS.values() for c in reader.concepts]
    for arm, rows in frame.groupby("arm"):
        own = rows.drop_duplicates("variable").groupby("part")["variable"].agg(set)
        assert own["read"] == set(read)
        clinical = set(study.columns_of(study.arms[arm]))
        assert ("clinical" in own) == bool(clinical) and own.get("clinical", set()) == clinical


def test_the_linear_contribution_is_the_effect_of_putting_the_training_mean_there(models):
    model = models["concepts"]
    ids = list(model.guessed.index[-3:])
    rows, (values, _) = model.rows(ids).astype(float), model.contributions(ids)
    mean = model.fitted_on.astype(float).mean(axis=0)
    for k, own in enumerate(model.variables):
        without = rows.copy()
        columns = [i for i, one in enumerate(model.owners) if one == own]
        without[:, columns] = mean[columns]
        np.testing.assert_allclose(
            values[:, k], model.logit(rows) - model.logit(without), atol=1e-9
        )


def test_columns_belong_to_the_variable_that_moves_them(small, tensors, models):
    model = models["concepts"]
    parts, encoder = experiment.fold_encoder(small, tensors, model.task)
    owners = reads.encoder_owners(encoder)
    table = small.dataset.table.loc[parts["train"]]
    before = encoder.transform(table)
    for name in ("age", "anticoagulant", "onset_type"):
        other = table.copy()
        other[name] = np.roll(table[name].to_numpy(object), 1)
        other[name] = other[name].astype(table[name].dtype)
        moved = {
            k
            for k in range(before.shape[1])
            if (encoder.transform(other)[:, k] != before[:, k]).any()
        }
        own = {k for k, one in enumerate(owners) if one == ("clinical", name)}
        assert moved and moved <= own


def test_shapley_of_a_linear_function_is_exact_and_of_a_product_is_shared():
    rng = np.random.default_rng(0)
    rows, background = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    coef = np.array([1.0, -2.0, 0.5, 3.0])
    groups = [[0], [1, 2], [3]]
    options = {"orders": 2, "rng": np.random.default_rng(1)}
    found, base = reads.shapley(lambda x: x @ coef, rows, background, groups, **options)
    wanted, linear_base = reads.linear_contributions(
        baselines.logistic.Linear(0.0, coef, {}), rows, background, groups
    )
    np.testing.assert_allclose(found, wanted)
    assert base == pytest.approx(linear_base)
    ones, zeros = np.ones((1, 2)), np.zeros((1, 2))
    pair, _ = reads.shapley(lambda x: x[:, 0] * x[:, 1], ones, zeros, [[0], [1]], **options)
    np.testing.assert_allclose(pair, [[0.5, 0.5]])


def test_another_reading_is_that_of_the_arm_with_the_read_corrected(small, models, found):
    model, what_if = models["concepts"], found[1]
    participant = what_if["participant_id"].iloc[0]
    rows = what_if[(what_if["participant_id"] == participant) & (what_if["fold"] == 1)]
    rows = rows[rows["arm"] == "concepts"].set_index(["variable", "to"])
    own = model.guessed.loc[[participant]].to_numpy()
    field = small.dictionary["collateral_tan"]
    for code, words in field.choices.items():
        if ("collateral_tan", words) in rows.index:
            corrected = model.codes.corrected(own, "collateral_tan", code)
            place = [list(model.guessed.index).index(participant)]
            p = model.bottleneck.predict(corrected, model.clinical[place])[0]
            logit = rows.loc[("collateral_tan", words), "logit"]
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(p, abs=1e-6)
    high = rows.loc[("clot_hu", "90th percentile")]
    outside = small.dataset.table.loc[model.outside, "clot_hu"].dropna().astype(float)
    assert high["to_value"] == pytest.approx(np.percentile(outside, 90), rel=1e-5)
    assert rows["logit_before"].nunique() == 1


def test_what_a_person_read_in_the_patient_plays_no_part(small, tensors, tasks, models):
    model = models["concepts"]
    ids = list(model.guessed.index[-4:])
    table = small.dataset.table.copy()
    table.loc[ids, "clot_hu"] = 999.0
    table.loc[ids, "collateral_tan"] = None
    other = dataclasses.replace(small, dataset=dataclasses.replace(small.dataset, table=table))
    again = reads.ConceptModel.load(other, tensors, model.task)
    pd.testing.assert_frame_equal(again.reads(ids), model.reads(ids))


def test_a_model_that_is_not_the_stored_one_is_refused(small, tensors, tasks, monkeypatch):
    task = next(t for t in tasks if t.arm.name == "concepts")
    original = storage.read_csv

    def changed(path):
        frame = original(path)
        return (
            frame.assign(probability=frame["probability"] + 0.01) if path == task.result else frame
        )

    monkeypatch.setattr(storage, "read_csv", changed)
    with pytest.raises(RuntimeError, match="fitted again, its probabilities differ by 0.01"):
        reads.ConceptModel.load(small, tensors, task)


def test_the_stored_folder_is_left_as_it_was(small, tensors, tasks):
    task = next(t for t in tasks if t.arm.name == "concepts_daft")
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in task.folder.iterdir()}
    reads.ConceptModel.load(small, tensors, task)
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in task.folder.iterdir()} == before


def test_named_patients_and_arms_that_read_nothing(small, tensors, tasks, study):
    held = small.fold_parts(2, 0)["held_out"][0]
    frame, _ = explain.concept_reads(small, tensors, tasks[:2], [held])
    assert set(frame["fold"]) == {2} and set(frame["participant_id"]) == {held}
    with pytest.raises(InputError, match="arm 'daft' has kind cnn; allowed for reads"):
        task = dataclasses.replace(tasks[0], what=study.arms["daft"])
        explain.concept_reads(small, tensors, [task])
    with pytest.raises(
        InputError, match="patient sub-none, arm 'concepts_imaging': not an eligible"
    ):
        explain.concept_reads(small, tensors, tasks[:2], ["sub-none"])


def test_reads_in_words(words):
    codes = concepts.ReadCodes(("core_ml", "hyperdense_sign", "collateral_tan"), words)
    row = np.array([[np.log1p(20.0), 0.2, 0.0, 0.1, 0.9, 0.0]])
    logged = words["core_ml"].transform == "log1p"
    value, told, share = reads.told(codes, row, "core_ml")
    assert value[0] == pytest.approx(20.0 if logged else np.log1p(20.0)) and told == [""]
    assert np.isnan(share[0])
    value, told, share = reads.told(codes, row, "hyperdense_sign")
    assert (value[0], told[0], share[0]) == (0.2, "no", pytest.approx(0.8))
    value, told, share = reads.told(codes, row, "collateral_tan")
    assert told[0] == words["collateral_tan"].choices["2"] and share[0] == pytest.approx(
        0.9, abs=1e-4
    )


# ------------------------------------------------------------------------------------- the tables


def _made(values, fold=1, arm="concepts"):
    """Contributions of variables v0, v1, ... of patients (rows of values)."""
    rows = []
    for i, own in enumerate(values):
        for k, value in enumerate(own):
            part = "read" if k < 2 else "clinical"
            rows.append((f"sub-{i}", arm, 0, fold, part, f"v{k}", 1.0, "", np.nan, value, -1.0,
                         sum(own) - 1))  # fmt: skip
    return pd.DataFrame(rows, columns=explain.READ_COLUMNS)


def test_fold_models_are_averaged_first_and_the_commonest_reading_stands():
    one, two, three = _made([[1.0, 0.0]]), _made([[3.0, 0.0]], 2), _made([[2.0, 0.0]], 3)
    one["reading"], two["reading"], three["reading"] = "yes", "no", "yes"
    one["share"], two["share"], three["share"] = 0.6, 0.9, 0.8
    table = results.reads_of_patients(pd.concat([one, two, three])).set_index("variable")
    assert table.loc["v0", "contribution"] == 2 and table.loc["v0", "logit"] == 1
    assert (table.loc["v0", "reading"], table.loc["v0", "share"]) == ("yes", pytest.approx(0.7))


def test_importance_stands_beside_how_well_a_thing_is_read():
    quality = pd.DataFrame(
        {"concept": ["v0", "v1"], "measure": ["R2", "AUC"], "value": [0.4, np.nan],
         "reason": ["", "all alike"]}
    )  # fmt: skip
    table = results.reads_importance(
        _made([[1.0, -3.0, 0.5], [-1.0, 1.0, 0.5]]), quality, data="simulated", resamples=100
    ).set_index("variable")
    assert table["mean_abs_contribution"].to_dict() == {"v1": 2.0, "v0": 1.0, "v2": 0.5}
    assert table.loc["v0", "reliability"] == 0.4 and table.loc["v0", "measure"] == "R2"
    assert np.isnan(table.loc["v1", "reliability"]) and table.loc["v1", "reason"] == "all alike"
    assert np.isnan(table.loc["v2", "reliability"]) and table.loc["v2", "reason"] == ""
    assert table.loc["v1", "low"] == 1 and table.loc["v1", "high"] == 3
    plain = results.reads_importance(_made([[1.0, 0.0]] * 2), data="real", resamples=10)
    assert set(plain["reason"]) == {"not judged"} and set(plain["data"]) == {"real"}


def test_what_another_reading_would_change_is_in_probabilities():
    rows = [
        (f"sub-{i}", "c", 0, fold, "v", "yes", np.nan, 0.0, logit)
        for i in range(2)
        for fold, logit in ((1, 0.0), (2, np.log(3)))
    ]
    frame = pd.DataFrame(rows, columns=explain.WHAT_IF_COLUMNS)
    table = results.what_if_effects(frame, data="simulated", resamples=10)
    assert table[["before", "after", "change", "n"]].iloc[0].tolist() == [0.5, 0.625, 0.125, 2]
    with pytest.raises(InputError, match="what if: column 'to' is missing"):
        results.what_if_of_patients(frame.drop(columns="to"))


def _shap(values):
    frame = _made(values, arm="daft").rename(columns={"contribution": "shap"})
    return frame[["participant_id", "arm", "seed", "fold", "variable", "shap"]]


def test_arms_that_say_the_same_agree_and_reversed_ones_do_not():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 6)) * np.arange(1, 7)
    same = results.concept_agreement(
        _shap(2 * values), _made(values), data="simulated", resamples=100
    )
    np.testing.assert_allclose(same[["spearman", "low", "high"]], 1)
    assert list(same["level"]) == ["patient", "mean"] and set(same["variables"]) == {6}
    turned = results.concept_agreement(
        _shap(-values), _made(values), data="simulated", resamples=100
    )
    assert turned["spearman"].tolist() == pytest.approx([-1.0, 1.0])
    noise = results.concept_agreement(
        _shap(rng.normal(size=(12, 6))), _made(values), data="simulated", resamples=100
    ).set_index("level")
    assert abs(noise.loc["patient", "spearman"]) < 0.5


def test_agreement_that_has_no_meaning_says_why():
    values = np.arange(12.0).reshape(3, 4) - 5
    two = results.concept_agreement(_shap(values[:, :2]), _made(values), data="real", resamples=10)
    assert two["spearman"].isna().all() and set(two["reason"]) == {"2 variables in both; needed: 3"}
    others = _shap(values)
    others["participant_id"] = "other-" + others["participant_id"]
    apart = results.concept_agreement(others, _made(values), data="real", resamples=10)
    assert set(apart["reason"]) == {"no patient is explained by both"}
    still = results.concept_agreement(_shap(0 * values), _made(values), data="real", resamples=10)
    assert set(still["reason"]) == {"the values of a model are all alike"}
