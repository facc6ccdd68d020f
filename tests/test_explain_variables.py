"""SHAP values and permutation importance of clinical variables: known answers, laws, what is refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from rlvo_lib import experiment, explain, storage
from rlvo_lib.config import InputError
from rlvo_lib.explain import importance, variables
from rlvo_lib.explain.players import Places
from rlvo_lib.explain.variables import Explained, PlayedModel, Remembered, shapley_values

BESIDE = ["clinical_logistic", "ctp_logistic", "clinical_mlp"]


def planned(analysis, tensors, arm):
    """The first fold's task of an arm, finished."""
    task = experiment.plan(analysis, tensors, [arm])[0]
    if not task.done:
        experiment.run_task(analysis, tensors, task)
    return task


@pytest.fixture(scope="module")
def task(analysis, tensors):
    return planned(analysis, tensors, "daft")


@pytest.fixture(scope="module")
def model(analysis, tensors, task):
    return explain.FusedModel.load(analysis, tensors, task)


@pytest.fixture(scope="module")
def shap(analysis, tensors, task):
    for arm in BESIDE:
        explain.shap_values(analysis, tensors, planned(analysis, tensors, arm), task)
    explain.shap_values(analysis, tensors, task)
    return explain.shap_of_folds(analysis, tensors, [task], beside=BESIDE)  # all are kept by now


# --------------------------------------------------------------------------------------- players


def test_a_ratio_and_its_parts_are_one_player(words, study):
    columns = study.columns_of(study.arms["ctp_logistic"])
    players = explain.players_of(words, columns)
    assert sorted(c for p in players for c in p.columns) == sorted(columns), "each column once"
    joint = [p for p in players if p.is_joint]
    assert [set(p.columns) for p in joint] == [
        {"core_ml", "tmax6_ml", "tmax10_ml", "mismatch_ratio", "hir"}
    ], "mismatch ratio and HIR share the Tmax > 6 s volume"
    assert joint[0].label == "Mismatch ratio + Hypoperfusion intensity ratio, with parts"
    assert joint[0].name == "core_ml+tmax6_ml+tmax10_ml+mismatch_ratio+hir"
    assert [p.name for p in players][:2] == ["age", "sex"]


def test_a_ratio_without_its_parts_among_the_variables_is_a_player_of_its_own(words):
    names = [p.name for p in explain.players_of(words, ["hir", "core_ml", "age"])]
    assert names == ["hir", "core_ml", "age"]


def test_groups_are_the_headings_of_the_dictionary(analysis):
    table = explain.players_table(analysis, ["clinical_logistic", "ctp_logistic"])
    assert list(table.columns) == explain.PLAYER_COLUMNS
    by = table[table["arm"] == "ctp_logistic"].set_index("variable")
    assert by.loc["sex", "group"] == "Demographics" and by.loc["nihss_adm", "group"] == "Admission"
    assert by.loc["cbv_index", "group"] == "CT perfusion"
    assert by["columns"].str.split("; ").str.len().max() == 5
    assert not table["group"].eq("").any()


def test_values_are_told_in_words(analysis):
    participant = analysis.y.index[0]
    rows = pd.DataFrame({"participant_id": participant, "variable": ["age", "sex", "core_ml+hir"]})
    table = analysis.dataset.table
    changed = table.copy()
    changed.loc[participant, ["age", "sex", "core_ml"]] = [71, "1", np.nan]
    changed.loc[participant, "hir"] = 0.25
    other = dataclasses.replace(
        analysis, dataset=dataclasses.replace(analysis.dataset, table=changed)
    )
    assert explain.described(other, rows)["text"].tolist() == [
        "71 y",
        "male",
        "core_ml not recorded, hir 0.25",
    ]


@pytest.mark.parametrize("arm", ["daft", "ctp_logistic"])
def test_places_give_back_the_table_and_the_encoder_s_matrix(analysis, tensors, task, arm):
    own = planned(analysis, tensors, arm)
    known = variables.model_of(analysis, tensors, own)
    people = tuple(analysis.y.index[:25])
    players = tuple(explain.players_of(analysis.dictionary, known.columns))
    places = Places(known.variables, players, people)
    np.testing.assert_array_equal(places.values(places.of(people)), known.variables.values(people))
    rng = np.random.default_rng(0)
    mixed = np.stack([rng.permutation(column) for column in places.of(people).T], axis=1)
    table = known.variables.table(places.values(mixed))
    np.testing.assert_array_equal(
        places.matrix(known.encoder)(mixed), known.encoder.transform(table)
    )


def test_an_encoder_that_mixes_columns_is_refused(analysis, model):
    class Mixing:
        def transform(self, table):
            return (table["age"] * table["nihss_adm"]).fillna(0).to_numpy(np.float32)[:, None]

    people = tuple(analysis.y.index[:25])
    players = tuple(explain.players_of(analysis.dictionary, model.columns))
    with pytest.raises(RuntimeError, match="mixes columns"):
        Places(model.variables, players, people).matrix(Mixing())


def test_a_function_is_called_once_for_each_point():
    called = []

    def function(points):
        called.extend(map(tuple, points))
        return points.sum(axis=1)

    remembered = Remembered(function)
    points = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert remembered(points).tolist() == [3, 7, 3]
    assert remembered(points[::-1]).tolist() == [3, 7, 3]
    assert called == [(1, 2), (3, 4)]


# ---------------------------------------------------------------------------------- SHAP values


def test_shapley_values_of_functions_whose_values_are_known():
    rng = np.random.default_rng(0)
    own, background = np.array([2.0, 1.0, 3.0]), rng.integers(0, 4, (6, 3)).astype(float)
    weights = np.array([1.0, -2.0, 0.5])
    base, phi = shapley_values(lambda x: x @ weights, own, background, permutations=2, seed=1)
    np.testing.assert_allclose(phi, weights * (own - background.mean(axis=0)))
    assert base == pytest.approx(float((background @ weights).mean()))
    _, phi = shapley_values(
        lambda x: x[:, 0] * x[:, 1], own, np.zeros((1, 3)), permutations=1, seed=1
    )
    np.testing.assert_allclose(phi, [1.0, 1.0, 0.0], atol=1e-12)


def test_shap_leaves_the_random_generator_as_it_was():
    np.random.seed(3)  # noqa: NPY002
    wanted = np.random.get_state()[1].copy()  # noqa: NPY002
    shapley_values(lambda x: x[:, 0], np.ones(2), np.zeros((2, 2)), permutations=1, seed=9)
    np.testing.assert_array_equal(np.random.get_state()[1], wanted)  # noqa: NPY002


def test_shap_values_add_up_and_cover_each_player_once(analysis, shap):
    sums = shap.groupby(["arm", "participant_id"]).agg(
        total=("shap", "sum"), base=("base", "first"), logit=("logit", "first"), n=("shap", "size")
    )
    assert (sums["total"] + sums["base"] - sums["logit"]).abs().max() < 1e-3
    study = analysis.settings.study
    for arm, rows in sums.groupby("arm"):
        players = explain.players_of(analysis.dictionary, study.columns_of(study.arms[arm]))
        assert set(rows["n"]) == {len(players)}, arm
        assert shap.query("arm == @arm")["shap"].abs().max() > 0, arm
    assert list(shap["arm"].unique()) == ["daft", *BESIDE]


def test_arms_are_explained_in_the_same_patients(analysis, shap):
    people = shap.groupby("arm")["participant_id"].agg(lambda ids: tuple(sorted(set(ids))))
    assert people.nunique() == 1 and len(people.iloc[0]) == analysis.settings.explained_patients


def test_the_background_of_arms_side_by_side_is_the_same(analysis, tensors, task):
    other = planned(analysis, tensors, "clinical_logistic")
    first = Explained.of(analysis, tensors, task)
    second = first.beside(analysis, tensors, other)
    assert second == dataclasses.replace(first, task=other)
    assert list(first.background) == explain.FusedModel.load(analysis, tensors, task).background


def test_a_patient_whom_the_other_arm_was_trained_on_is_left_out(analysis, tensors, task):
    first = Explained.of(analysis, tensors, task)
    trained = analysis.fold_parts(task.fold, task.seed)["train"][0]
    also = dataclasses.replace(first, patients=(*first.patients, trained))
    other = planned(analysis, tensors, "clinical_logistic")
    assert also.beside(analysis, tensors, other).patients == first.patients
    nobody = dataclasses.replace(first, patients=(trained,)).beside(analysis, tensors, other)
    with pytest.raises(
        InputError, match="none of the patients to explain can be given to this arm"
    ):
        variables._compute_shap(analysis, tensors, nobody)


def test_shap_of_a_logistic_regression_is_coefficient_times_distance_from_the_background(
    analysis, tensors, task, shap
):
    """phi of a player is the sum over its columns of coefficient x (own - mean of the background)."""
    own = planned(analysis, tensors, "ctp_logistic")
    known = explain.TableModel.load(analysis, tensors, own)
    background = list(Explained.of(analysis, tensors, task).background)
    table = analysis.dataset.table
    distance = known.encoder.transform(table) - known.encoder.transform(table.loc[background]).mean(
        axis=0
    )
    parts = pd.DataFrame(
        distance * known.model.coef, index=table.index, columns=known.encoder.names
    )
    for row in shap.query("arm == 'ctp_logistic'").itertuples():
        columns = row.variable.split("+")
        mine = [
            n for n in parts
            if any(n in (c, f"missingindicator_{c}") or n.startswith(f"{c}_") and n[len(c) + 1 :].isdigit()
                   for c in columns)
        ]  # fmt: skip
        assert row.shap == pytest.approx(parts.loc[row.participant_id, mine].sum(), abs=1e-6)


def test_values_are_those_of_the_table_and_none_for_a_joint_player(analysis, shap):
    own = shap[(shap["arm"] == "ctp_logistic")].set_index(["participant_id", "variable"])["value"]
    table = analysis.dataset.table
    for (participant, variable), value in own.items():
        if "+" in variable:
            assert np.isnan(value)
        elif variable == "age":
            assert value == table.at[participant, "age"]


def test_a_variable_that_the_model_ignores_gets_nothing(analysis, tensors, task, monkeypatch):
    model = explain.FusedModel.load(analysis, tensors, task)
    columns = [i for i, name in enumerate(model.encoder.names) if name.startswith("age")]
    weight = model.network.block.modulation.reduce.weight
    offset = weight.shape[1] - len(model.encoder.names)
    with torch.no_grad():
        weight[:, [offset + i for i in columns]] = 0
    monkeypatch.setattr(explain.FusedModel, "load", lambda *_: model)
    values = variables._compute_shap(analysis, tensors, Explained.of(analysis, tensors, task))
    assert values[values["variable"] == "age"]["shap"].abs().max() < 1e-6
    assert values[values["variable"] != "age"]["shap"].abs().max() > 1e-6
    permuted = importance._compute(analysis, tensors, task, 1).fillna({"variable": ""})
    wide = permuted.pivot_table(index="participant_id", columns="variable", values="logit")
    np.testing.assert_allclose(wide["age"], wide[""], atol=1e-5)
    assert (wide["nihss_adm"] - wide[""]).abs().max() > 1e-6


def test_values_that_do_not_add_up_are_refused(analysis, tensors, task, monkeypatch):
    monkeypatch.setattr(explain.FusedModel, "logit", lambda *_: np.array([5.0]))
    with pytest.raises(RuntimeError, match="allowed to differ by 0.001"):
        variables._compute_shap(analysis, tensors, Explained.of(analysis, tensors, task))


def test_the_same_seed_gives_the_same_bytes(analysis, tensors, task, shap):
    again = variables._compute_shap(analysis, tensors, Explained.of(analysis, tensors, task))
    kept = explain.shap_values(analysis, tensors, task)
    assert again.to_csv() == kept.to_csv()


@pytest.mark.parametrize("fusion", ["offset", "interactive"])
def test_an_offset_and_a_trunk_that_needs_the_table_are_part_of_the_played_model(
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
    people = explain.chosen(other, tensors, task, 3)
    played = PlayedModel(model, tuple(people))
    features = model.image_features(people[0])
    np.testing.assert_allclose(
        played.logits(features, played.places.of(people)),
        model.logit(features, model.variables.values(people)),
        atol=1e-5,
    )


def test_the_caption_states_patients_models_estimator_and_background(analysis, shap):
    caption = explain.shap_caption(shap[shap["arm"] == "daft"], analysis.y, analysis.settings)
    n = analysis.settings.explained_patients
    for words in (
        f"{n} patients", "fold model that did not see", "permutation explainer", "log-odds",
        f"{analysis.settings.shap_background} training patients", "not what causes",
        f"at least {analysis.settings.shap_permutations} antithetic permutations",
    ):  # fmt: skip
        assert words in caption
    assert "daft, clinical_logistic" in explain.shap_caption(shap, analysis.y)


# ------------------------------------------------------------------------------- models of tables


@pytest.mark.parametrize("arm", ["clinical_logistic", "clinical_boosting"])
def test_a_baseline_fitted_again_is_the_one_of_the_run(analysis, tensors, task, arm):
    """Loading compares with every stored prediction; those of another arm are not this model's."""
    own = planned(analysis, tensors, arm)
    known = explain.TableModel.load(analysis, tensors, own)
    known.check_same()
    with pytest.raises(RuntimeError, match="fitted again, its probabilities differ"):
        dataclasses.replace(known, task=planned(analysis, tensors, "clinical_mlp")).check_same()


def test_concepts_are_a_function_of_the_table_with_the_reads_held(analysis, tensors, tmp_path):
    settings = dataclasses.replace(analysis.settings, cache=tmp_path, reader_epochs=1)
    other = dataclasses.replace(analysis, settings=settings)
    for reader in experiment.plan(other, tensors, ["concepts"])[0].readers:
        experiment.run_task(other, tensors, reader)
    own = planned(other, tensors, "concepts")
    known = explain.TableModel.load(other, tensors, own)
    people = explain.chosen(other, tensors, own, 3)
    values = known.variables.values(people)
    first, second = (known.logit(known.image_features(p), values) for p in people[:2])
    apart = first - second  # a linear model: reads shift all patients alike
    np.testing.assert_allclose(apart, apart[0], atol=1e-6)
    assert abs(apart[0]) > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "ridge"}, "is of kind ridge; allowed to be explained: cnn, mlp, logistic"),
        ({"kind": "logistic", "measures": ("vessels",)}, "sees vessels, measured in the scans"),
        ({"kind": "logistic", "predictors": ()}, "has no clinical variables; allowed: an arm of pred"),
        ({"kind": "concepts"}, "is of kind concepts with fusion daft; allowed as a model of the table"),
    ],
)  # fmt: skip
def test_arms_without_clinical_variables_of_their_own_are_refused(
    analysis, tensors, task, change, words
):
    other = dataclasses.replace(task, what=dataclasses.replace(task.arm, **change))
    with pytest.raises(InputError, match=words):
        variables.model_of(analysis, tensors, other)


def test_an_image_arm_has_no_clinical_variables(analysis, tensors):
    with pytest.raises(InputError, match="arm 'ncct' has no clinical variables"):
        variables.model_of(analysis, tensors, planned(analysis, tensors, "ncct"))


def test_a_baseline_that_was_not_run_is_refused(analysis, tensors, tmp_path):
    settings = dataclasses.replace(analysis.settings, cache=tmp_path)
    other = dataclasses.replace(analysis, settings=settings)
    own = experiment.plan(other, tensors, ["clinical_logistic"])[0]
    with pytest.raises(InputError, match="clinical_logistic, fold 1, seed 0: not run; run the arm"):
        explain.TableModel.load(other, tensors, own)


def test_arms_that_are_models_of_the_table(analysis):
    names = list(analysis.settings.study.arms)
    found = explain.table_only(names, analysis)
    assert "clinical_logistic" in found and "concepts" in found
    assert not {"daft", "measured_logistic", "concepts_daft", "concepts_imaging", "late"} & set(
        found
    )


# ----------------------------------------------------------------------------------- permutation


@pytest.fixture(scope="module")
def permuted(analysis, tensors, task):
    tasks = [task, planned(analysis, tensors, "ctp_logistic")]
    for one in tasks:
        importance.permuted_logits(analysis, tensors, one, 2)
    return explain.permuted(analysis, tensors, tasks, repeats=2)  # both are kept by now


def test_permuted_logits_are_of_all_unseen_patients_and_all_players(
    analysis, tensors, task, permuted
):
    assert list(permuted.columns) == explain.PERMUTED_COLUMNS
    own = permuted[permuted["arm"] == "daft"]
    people = explain.unseen(analysis, tensors, task)
    assert sorted(own["participant_id"].unique()) == sorted(people)
    players = explain.players_table(analysis, ["daft"])["variable"]
    assert set(own["variable"]) == {"", *players}
    assert len(own) == len(people) * (1 + 2 * len(players))


def test_unpermuted_logits_are_the_stored_predictions(analysis, tensors, task, permuted):
    stored = storage.read_csv(task.result).query("partition == 'test'").set_index("participant_id")
    own = permuted.query("arm == 'daft' and variable == ''").set_index("participant_id")["logit"]
    np.testing.assert_allclose(
        1 / (1 + np.exp(-own)), stored.loc[own.index, "probability"], atol=1e-5
    )


def test_a_permuted_variable_is_another_patient_s(analysis, tensors, task, permuted):
    """Against the model itself: repeat 1 of sex, the order found again from the seed."""
    own = planned(analysis, tensors, "ctp_logistic")
    known = explain.TableModel.load(analysis, tensors, own)
    people = explain.unseen(analysis, tensors, own)
    order = importance._order(analysis.settings.seed, "sex", 1, len(people))
    values = known.variables.values(people).copy()
    place = known.columns.index("sex")
    values[:, place] = values[order, place]
    rows = permuted.query("arm == 'ctp_logistic' and variable == 'sex' and repeat == 1")
    found = rows.set_index("participant_id")["logit"][people]
    np.testing.assert_allclose(found, known.logit(None, values), rtol=1e-5)


def test_the_caption_of_permutation_states_patients_and_orders(analysis, permuted):
    caption = explain.permuted_caption(permuted, analysis.y)
    people = permuted["participant_id"].unique()
    for words in (
        f"{len(people)} patients",
        "in 2 orders",
        f"({int(analysis.y[people].sum())} with",
    ):
        assert words in caption


def test_orders_differ_between_variables_and_repeats_but_not_between_calls():
    one = importance._order(2025, "age", 0, 30)
    np.testing.assert_array_equal(one, importance._order(2025, "age", 0, 30))
    assert sorted(one) == list(range(30))
    for other in (("sex", 0), ("age", 1)):
        assert (importance._order(2025, *other, 30) != one).any()


@pytest.mark.parametrize("repeats", [0, 1.5])
def test_repeats_are_at_least_one(analysis, tensors, task, repeats):
    with pytest.raises(
        InputError, match=f"repeats is {repeats}; allowed: a whole number of at least 1"
    ):
        explain.permuted(analysis, tensors, [task], repeats=repeats)
