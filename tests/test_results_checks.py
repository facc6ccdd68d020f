import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from rlvo_lib import results, storage
from rlvo_lib.config import InputError
from rlvo_lib.results import checks

PATIENTS = [f"sub-{k:02d}" for k in range(20)]


def made(check, value, reference=0.0, *, measure="", part="all", method="gradcam", ids=PATIENTS):
    """Rows of one check: a value, or one a patient."""
    return pd.DataFrame(
        {"participant_id": ids, "arm": "imaging", "method": method, "check": check,
         "measure": measure, "part": part, "seed": 0, "fold": 1, "value": value, "reference": reference}
    )  # fmt: skip


def row_of(frame, check, method="gradcam"):
    table = results.explanation_checks(frame, data="simulated", resamples=400)
    return table.set_index(["method", "check"]).loc[(method, check)]


def spread(mean, sd):
    drawn = np.random.default_rng(1).normal(size=len(PATIENTS))
    return mean + sd * (drawn - drawn.mean()) / drawn.std()


def test_every_method_meets_every_check_and_what_lacks_says_why():
    frame = pd.concat(
        [made("deletion", -1.0, part="50%"), made("null_scenario", 0.1, 0.1, method="random")]
    )
    table = results.explanation_checks(frame, data="real", resamples=50)
    assert list(table) == checks.CHECK_TABLE_COLUMNS
    assert len(table) == 2 * len(results.CHECKS) and set(table["data"]) == {"real"}
    lacking = table[table["verdict"] == "not made"]
    assert lacking["reason"].str.len().gt(0).all() and lacking["value"].isna().all()
    reasons = table.set_index(["method", "check"])["reason"]
    assert "make explain-checks" in reasons["gradcam", "label_randomisation"]
    assert "simulated cohort" in reasons["gradcam", "pointing"]


@pytest.mark.parametrize("check", ["model_randomisation", "label_randomisation"])
@pytest.mark.parametrize(("value", "verdict"), [(0.2, "pass"), (0.47, "fail"), (0.9, "fail")])
def test_maps_must_be_unlike_those_of_a_network_that_learnt_nothing(check, value, verdict):
    rows = made(check, spread(value, 0.15), measure="absolute")
    others = [made(check, 1.0, measure="signed"), made(check, 1.0, measure="absolute", part="head")]
    found = row_of(pd.concat([rows, *others]), check)
    assert found["verdict"] == verdict
    assert found["value"] == pytest.approx(rows["value"].mean())
    assert found["low"] < found["value"] < found["high"]


@pytest.mark.parametrize(("check", "sign"), [("deletion", -1), ("insertion", 1)])
def test_the_area_between_the_curves_is_that_of_the_trapezoids(check, sign):
    parts = {"20%": 1.0, "50%": 2.0}
    rows = [made(check, sign * gap + 3, 3.0, part=part) for part, gap in parts.items()]
    found = row_of(pd.concat(rows), check)
    assert found["value"] == pytest.approx(0.2 * 0.5 + 0.3 * 1.5 + 0.5 * 1.0)
    assert found["verdict"] == "pass"
    rows = [made(check, 3 - sign * spread(gap, 0.1), 3.0, part=p) for p, gap in parts.items()]
    assert row_of(pd.concat(rows), check)["verdict"] == "fail"


def test_reliability_is_that_of_the_mean_map_of_all_models():
    rows = made("stability_folds", 0.5, 0.1, measure="boxes", part="4 models")
    noise = made("stability_folds", 0.0, measure="voxels", part="4 models")
    found = row_of(pd.concat([rows, noise]), "stability_folds")
    assert found["value"] == pytest.approx(0.8) and found["verdict"] == "pass"
    assert found["reference"] == pytest.approx(0.4 / 1.3)
    rows["value"] = 0.2
    assert row_of(rows, "stability_folds")["verdict"] == "fail"
    assert checks.spearman_brown(-0.3, 2) == 0 and np.isnan(checks.spearman_brown(np.nan, 2))


def test_a_shift_is_judged_by_boxes():
    rows = made("stability_shifts", 0.9, measure="boxes", part="1 voxel")
    voxels = made("stability_shifts", 0.1, measure="voxels", part="1 voxel")
    assert row_of(pd.concat([rows, voxels]), "stability_shifts")["verdict"] == "pass"
    rows["value"] = 0.6
    assert row_of(rows, "stability_shifts")["verdict"] == "fail"


def test_equal_chances_make_the_poisson_binomial_a_binomial():
    for hits in (0, 3, 8):
        tail = checks.poisson_binomial_tail(np.full(8, 0.3), hits)
        assert tail == pytest.approx(binom.sf(hits - 1, 8, 0.3))
    assert checks.poisson_binomial_tail(np.array([0.2, 1.0]), 1) == pytest.approx(1)


@pytest.mark.parametrize(("hits", "verdict"), [(4, "fail"), (10, "pass")])
def test_pointing_must_beat_the_lesions_volume(hits, verdict):
    value = np.arange(20) < hits
    found = row_of(made("pointing", value.astype(float), 0.2, part="lesion"), "pointing")
    assert found["verdict"] == verdict and found["value"] == hits / 20
    assert found["reference"] == pytest.approx(0.2) and found["reason"].startswith("p = ")


@pytest.mark.parametrize("check", ["enrichment", "learnt"])
def test_enrichment_is_the_ratio_of_the_mean_shares(check):
    reference = np.linspace(0.1, 0.3, 20)
    found = row_of(made(check, 2 * reference, reference), check)
    assert found["value"] == found["low"] == found["high"] == pytest.approx(2)
    assert found["verdict"] == "pass" and found["reference"] == 1
    assert row_of(made(check, spread(0.2, 0.05), 0.2), check)["verdict"] == "fail"


def test_one_enriched_region_fails_where_nothing_predicts_and_is_named():
    quiet = [made("null_scenario", spread(0.1, 0.03), 0.1, part=f"region {k}") for k in range(9)]
    assert row_of(pd.concat(quiet), "null_scenario")["verdict"] == "pass"
    loud = made("null_scenario", spread(0.2, 0.02), 0.1, part="vessel wall")
    found = row_of(pd.concat([*quiet, loud]), "null_scenario")
    assert found["verdict"] == "fail" and found["reason"] == "1 of 10 regions: vessel wall"
    assert found["value"] == pytest.approx(2, rel=0.1)


def test_limits_of_many_regions_are_wider_than_those_of_one():
    rows = made("null_scenario", spread(0.1, 0.05), 0.1, part="core")
    alone = row_of(rows, "null_scenario")
    many = [rows, *(made("null_scenario", 0.0, 0.1, part=f"region {k}") for k in range(9))]
    among = row_of(pd.concat(many), "null_scenario")
    assert among["value"] == alone["value"]
    assert among["low"] < alone["low"] and among["high"] > alone["high"]


def test_patients_are_counted_once_whatever_the_number_of_models():
    rows = made("enrichment", spread(0.3, 0.1), 0.2)
    twice = pd.concat([rows.assign(fold=1), rows.assign(fold=2)])
    one, two = row_of(rows, "enrichment"), row_of(twice, "enrichment")
    assert one["n"] == two["n"] == 20 and one["low"] == pytest.approx(two["low"])


def test_flat_maps_leave_too_few_patients():
    rows = made("enrichment", np.where(np.arange(20) < 4, 0.3, np.nan), 0.2)
    found = row_of(rows, "enrichment")
    assert found["verdict"] == "not made" and found["reason"].startswith("4 patients")


def test_methods_that_fail_nothing_are_usable_but_no_control():
    def verdicts(method, *said):
        return pd.DataFrame({"method": method, "verdict": said})

    table = pd.concat(
        [verdicts("gradcam", "pass", "not made"), verdicts("occlusion", "pass", "fail"),
         verdicts("hirescam", "not made"), verdicts("random", "pass")]
    )  # fmt: skip
    assert results.usable_methods(table) == ["gradcam"]


def test_what_a_run_lacks_is_taken_from_the_dated_result_with_its_source():
    run = results.explanation_checks(made("deletion", -1.0, part="50%"), data="simulated")
    dated = results.explanation_checks(
        pd.concat(
            [made("deletion", 5.0, part="50%"), made("null_scenario", 0.1, 0.1, part="core")]
        ),
        data="simulated",
    )
    joined = results.joined_checks(run, dated, source="2026-11-27").set_index("check")
    assert list(joined.reset_index()[list(run)]) == list(run)
    assert joined.loc["deletion", "verdict"] == "pass"
    assert joined.loc["null_scenario", "verdict"] == "pass"
    assert joined.loc["null_scenario", "reason"] == "2026-11-27; highest: core"
    assert joined.loc["pointing", "verdict"] == "not made"


def test_unknown_checks_and_missing_columns_are_refused():
    with pytest.raises(InputError, match="check 'seance' is not known; allowed: model_random"):
        results.explanation_checks(made("seance", 1.0), data="real")
    with pytest.raises(InputError, match="column 'reference' is missing"):
        results.explanation_checks(
            made("null_scenario", 1.0).drop(columns="reference"), data="real"
        )


def test_criteria_say_the_numbers_that_are_applied():
    words = {name: check.criterion for name, check in results.CHECKS.items()}
    assert str(checks.ALIKE) in words["model_randomisation"]
    assert str(checks.RELIABLE) in words["stability_seeds"]
    assert set(checks._JUDGES) == set(results.CHECKS)
    assert results.check_labels(["null_scenario"]) == {"null_scenario": "nothing to find"}


def test_the_table_is_the_same_from_the_file(tmp_path):
    rows = pd.concat(
        [made("deletion", spread(-0.3, 0.2), part="5%"), made("null_scenario", 0.1, 0.1, part="core"),
         made("model_randomisation", spread(0.2, 0.1), np.nan, measure="absolute"),
         made("stability_folds", spread(0.5, 0.1), 0.1, measure="boxes", part="4 models")]
    )  # fmt: skip
    storage.write_csv(tmp_path / "checks.csv", rows)
    table = results.explanation_checks(rows, data="simulated", resamples=100)
    read = storage.read_csv(tmp_path / "checks.csv")
    again = results.explanation_checks(read, data="simulated", resamples=100)
    pd.testing.assert_frame_equal(table, again)
    storage.write_csv(tmp_path / "table.csv", table)
    assert set(storage.read_csv(tmp_path / "table.csv")["verdict"]) == {"pass", "not made"}
