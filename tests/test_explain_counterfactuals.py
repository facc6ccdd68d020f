import dataclasses

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import experiment, explain, figures, images, results, storage
from rlvo_lib.config import InputError, load_settings
from rlvo_lib.explain import risk
from rlvo_lib.explain.counterfactuals import CHANGES, Simulation
from rlvo_lib.simulate import patients, scenarios


@pytest.fixture(scope="module")
def tasks(analysis, tensors):
    experiment.run_arms(analysis, tensors, ["daft"])
    return experiment.plan(analysis, tensors, ["daft"])


@pytest.fixture(scope="module")
def frame(analysis, tensors, tasks):
    return explain.counterfactuals_of_folds(
        analysis, tensors, tasks[:2], changes=["clot_length", "truncal"]
    )


@pytest.fixture(scope="module")
def simulation(analysis):
    return Simulation.open(analysis.dataset)


# ----------------------------------------------------------------------------- rendered again


def test_latents_that_are_not_changed_give_the_stored_scans_byte_for_byte(
    analysis, simulation, tmp_path
):
    participant = analysis.y.index[5]
    drawn = simulation.render(participant, {})
    for name, (array, affine) in drawn.scans.items():
        stored = analysis.dataset.scan(participant, name)
        again = images.save_nifti(
            tmp_path / f"{name}.nii.gz", array, affine, description="SIMULATED DATA", level=0
        )
        assert again.read_bytes() == stored.read_bytes(), name


def test_latents_that_are_not_changed_give_the_patient_s_own_tensor(analysis, tensors):
    participant = analysis.y.index[6]
    again = explain.changed_tensor(analysis, tensors, participant, {})
    channels = tensors.records[participant]["channels"]
    np.testing.assert_array_equal(again, tensors.load([participant], channels)[0])


def test_predictions_before_are_those_of_the_run(analysis, tensors, frame):
    stored = experiment.run_arms(analysis, tensors, ["daft"]).query("partition == 'test'")
    both = frame.merge(stored, on=["participant_id", "arm", "seed", "fold"])
    assert len(both) == len(frame)
    before = 1 / (1 + np.exp(-both["logit_before"]))
    np.testing.assert_allclose(before, both["probability"], atol=1e-6)


def test_a_change_shows_in_the_scan_and_only_where_it_is(analysis, tensors, simulation, frame):
    participant = frame["participant_id"].iloc[0]
    own = tensors.load([participant], tensors.records[participant]["channels"])[0].astype(float)
    changed = simulation.changed(participant, "clot_length")
    after = explain.changed_tensor(analysis, tensors, participant, changed)
    differing = (np.abs(after - own) > 0.02).mean(axis=(1, 2, 3))
    names = tensors.records[participant]["channels"]
    assert (np.abs(after - own)[[names.index("ncct"), names.index("cta")]] > 0.005).any()
    assert differing.max() < 0.1, "the head is where it was"


def test_the_frame_has_each_patient_change_and_fold_once_and_is_found_again(
    analysis, tensors, tasks, frame
):
    assert list(frame) == explain.COUNTERFACTUAL_COLUMNS
    assert not frame.duplicated(["participant_id", "fold", "change"]).any()
    assert (frame["fold"].nunique(), set(frame["change"])) == (2, {"clot_length", "truncal"})
    assert frame.drop(columns="participant_id").notna().all(axis=None)
    assert (frame["logit_before"] != frame["logit_after"]).any()
    again = explain.counterfactuals_of_folds(
        analysis, tensors, tasks[:2], changes=["clot_length", "truncal"]
    )
    pd.testing.assert_frame_equal(again, frame)


def test_only_patients_with_something_to_change_are_changed(simulation):
    for participant, latents in simulation.latents.iterrows():
        without = simulation.changed(participant, "calcification")
        assert bool(without) == (latents["siphon_grade"] > 0)
        assert simulation.changed(participant, "stenosis") == (
            {"other_stenosis": 0} if latents["other_stenosis"] else {}
        )
        assert bool(simulation.changed(participant, "truncal")) == (latents["truncal"] == 0)
        assert not simulation.changed(participant, "grain"), "no index in this scenario"
        longer = simulation.changed(participant, "clot_length").get("clot_length_mm", 0)
        assert longer <= 75


def test_a_siphon_without_calcium_has_no_plaque(simulation):
    calcified = simulation.latents.index[simulation.latents["siphon_grade"] == 2][0]
    assert simulation.render(calcified, {}).truth["plaques"] > 0
    without = simulation.changed(calcified, "calcification")
    assert simulation.render(calcified, without).truth["plaques"] == 0


# ------------------------------------------------------------------------------------- bad input


def test_other_datasets_are_refused_with_the_reason(analysis, tensors, tasks, tmp_path):
    real = dataclasses.replace(analysis.dataset, simulated=False)
    with pytest.raises(InputError, match="are real: nobody can scan them again"):
        explain.counterfactuals_of_folds(
            dataclasses.replace(analysis, dataset=real), tensors, tasks
        )
    assert explain.changes_of(real) == []
    stored = storage.read_json(analysis.dataset.root / "derivatives/truth/generation.json")
    for field, value, words in (
        ("code", "old", "another version"),
        ("table_only", True, "without scans"),
    ):
        truth = tmp_path / field / "derivatives" / "truth"
        storage.write_json(truth / "generation.json", stored | {field: value})
        other = dataclasses.replace(analysis.dataset, root=tmp_path / field)
        with pytest.raises(InputError, match=words):
            Simulation.open(other)


def test_an_unknown_change_and_an_arm_without_images_are_refused(analysis, tensors, tasks):
    with pytest.raises(InputError, match="change is 'age'; allowed: calcification"):
        explain.counterfactuals_of_folds(analysis, tensors, tasks, changes=["age"])
    arm = analysis.settings.study.arms["clinical_mlp"]
    with pytest.raises(InputError, match="arm 'clinical_mlp' sees no image"):
        explain.counterfactuals_of_folds(
            analysis, tensors, [dataclasses.replace(tasks[0], what=arm)]
        )


# ------------------------------------------------------------------------------------------ risk


def test_the_risk_of_a_patient_is_the_share_among_alike_patients_of_the_generator():
    """Averaged over patients, the risk of each is the share with the outcome in the pool."""
    latents = patients.draw_latents(300, np.random.default_rng(1))
    risks = [
        risk.drawn_labels(row, "paper", draws=400).mean() for row in latents.to_dict("records")
    ]
    pool = patients.draw_latents(40_000, np.random.default_rng(2))["rlvo"].mean()
    assert np.mean(risks) == pytest.approx(pool, abs=3 * np.std(risks) / 300**0.5)


def test_the_common_poisson_numbers_have_mean_and_variance_of_their_rate():
    rng = risk._Common(np.random.PCG64(1))
    for rate in (0.2, 1.7, 6.0):
        drawn = rng.poisson(np.full(60_000, rate))
        assert drawn.mean() == pytest.approx(rate, rel=0.03)
        assert drawn.var() == pytest.approx(rate, rel=0.05)


def test_the_same_latents_meet_the_same_chance_and_a_stenosis_elsewhere_changes_nothing(simulation):
    own = simulation.patient(simulation.latents.index[0])
    assert risk.true_risk(own, own, "paper")[2] == 0
    before, after, error = risk.true_risk(
        own | {"other_stenosis": 1}, own | {"other_stenosis": 0}, "paper"
    )
    assert (before, error) == (after, 0)
    before, after, error = risk.true_risk(own, own | {"clot_length_mm": 70.0}, "paper")
    assert after - before > 3 * error > 0
    independent = (before * (1 - before) + after * (1 - after)) ** 0.5 / risk.DRAWS**0.5
    assert error < 0.8 * independent, "the draws are in step"


def test_no_change_changes_a_risk_where_the_outcome_is_another_patient_s():
    own = patients.draw_latents(1, np.random.default_rng(1), "null").iloc[0].to_dict()
    before, after, error = risk.true_risk(own, own | {"clot_length_mm": 70.0}, "null", draws=2000)
    assert (before, error) == (after, 0)


def test_the_knowing_predictor_knows_much_and_is_moved_by_a_marker():
    latents, _ = patients.draw(1500, np.random.default_rng(4))
    seen = risk.seen_risk(latents, "paper", fitted_on=10_000)
    y = latents["rlvo"].to_numpy()
    assert seen.mean() == pytest.approx(y.mean(), abs=0.03)
    assert (seen[y == 1][:, None] > seen[y == 0]).mean() > 0.7
    marked = latents["other_stenosis"] == 1
    opened = latents[marked].assign(other_stenosis=0)
    assert risk.seen_risk(opened, "paper", fitted_on=10_000).mean() < seen[marked].mean() - 0.02
    null = risk.seen_risk(latents.head(50), "null", fitted_on=5000)
    assert null.std() < 0.1


def test_a_finer_grain_is_a_higher_risk_in_the_scenario_signal():
    plan = scenarios.named("signal")
    latents = patients.draw_latents(200, np.random.default_rng(3), "signal").to_dict("records")
    changes = [(p, CHANGES["grain"].make(p, plan)) for p in latents]
    applied = [(p, x) for p, x in changes if x]
    assert {p["index"] <= -0.5 for p, _ in applied} == {True}
    assert len(applied) == sum(p["index"] <= -0.5 for p in latents)
    for own, changed in applied[:5]:
        assert changed["lesion_grain_mm"] < own["lesion_grain_mm"]
        before, after, _ = risk.true_risk(own, own | changed, "signal", draws=2000)
        assert after > before + 0.3
    assert not any(CHANGES["truncal"].make(p, plan) for p in latents)


# --------------------------------------------------------------------------------- table and figure


def _made(model, truth, seen=None):
    """A frame in which patients' probabilities and risks change by given amounts from 0.5 and 0.2."""
    n = len(model)
    rows = pd.DataFrame(
        {
            "participant_id": [f"sub-{i}" for i in range(n)], "arm": "daft", "seed": 0, "change": "clot",
            "logit_before": 0.0, "logit_after": [np.log((0.5 + p) / (0.5 - p)) for p in model],
            "risk_before": 0.2, "risk_after": 0.2 + np.array(truth), "risk_se": 0.01,
            "seen_before": 0.3, "seen_after": 0.3 + np.array(truth if seen is None else seen),
        }
    )  # fmt: skip
    return pd.concat([rows.assign(fold=fold) for fold in (1, 2)])


def test_the_table_of_a_model_that_moves_half_as_much_as_the_truth():
    truth = np.array([0.0, 0.1, 0.2, 0.3])
    table = results.counterfactual_table(_made(truth / 2, truth, 2 * truth), data="simulated")
    first, second = (row for _, row in table.iterrows())
    assert (first["against"], second["against"]) == ("true risk", "knowing predictor")
    assert first[["slope", "slope_low", "slope_high"]].tolist() == pytest.approx([0.5] * 3)
    assert second["slope"] == pytest.approx(0.25)
    assert first["correlation"] == pytest.approx(1)
    assert first["n"] == 4 and first["probability_change"] == pytest.approx(0.075)
    assert first["risk_change"] == pytest.approx(0.15)
    assert first["risk_low"] < 0.15 < first["risk_high"]
    assert first["risk_se"] == pytest.approx(0.01 / 2) and second["risk_se"] == 0
    assert list(table)[-1] == "data" and set(table["data"]) == {"simulated"}


@pytest.mark.parametrize(
    ("model", "truth", "reason"),
    [
        ([0.1, 0.2, 0.3], [0, 0, 0], "the risk does not change"),
        ([0.1, 0.2, 0.3], [0.2, 0.2, 0.2], "the risk changes alike in all"),
        ([0.1, 0.2], [0.1, 0.3], "fewer than 3 patients"),
    ],
)
def test_what_has_no_slope_says_why(model, truth, reason):
    row = results.counterfactual_table(_made(model, truth), data="simulated").iloc[0]
    assert np.isnan(row["slope"]) and row["reason"] == reason
    assert row["probability_change"] == pytest.approx(np.mean(model))


def test_a_prediction_that_never_moves_has_slope_0_and_no_correlation():
    row = results.counterfactual_table(_made([0, 0, 0], [0.1, 0.2, 0.3]), data="simulated").iloc[0]
    assert row["slope"] == 0 and np.isnan(row["correlation"])
    assert row["reason"] == "the prediction changes alike in all"


def test_a_table_without_a_column_is_refused():
    with pytest.raises(InputError, match="counterfactuals: column 'seen_after' is missing"):
        results.counterfactual_table(
            _made([0.1], [0.1]).drop(columns="seen_after"), data="simulated"
        )


def test_the_figure_has_a_panel_a_change_and_a_point_a_patient(frame):
    changes = results.counterfactual_changes(frame)
    labels = {name: change.label for name, change in explain.CHANGES.items()}
    figure = figures.counterfactual_scatter(changes, labels=labels)
    panels = figure.axes
    assert len(panels) == 4, "two changes, each against two risks"
    assert panels[0].get_title().replace("\n", " ").startswith("Clot twice as long n = ")
    own = changes[changes["change"] == "clot_length"]
    for panel, column in ((panels[0], "risk"), (panels[2], "seen")):
        points = {line.get_label(): line.get_xydata() for line in panel.lines}["patients"]
        np.testing.assert_allclose(points, 100 * own[[column, "probability"]].to_numpy())
    limits = [(*axis.get_xlim(), *axis.get_ylim()) for axis in panels]
    assert limits[0] == limits[1] and limits[2] == limits[3]


def test_the_smoke_profile_changes_few_patients(analysis, frame):
    n = load_settings("smoke").counterfactual_patients
    assert frame.groupby("change")["participant_id"].nunique().max() <= n
