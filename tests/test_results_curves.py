"""Curves, bands, net benefit and operating points of the main arms, from made-up predictions."""

import numpy as np
import pandas as pd
import pytest
from made_run import make_predictions
from sklearn import metrics as sk

from rlvo_lib import metrics, results
from rlvo_lib.config import InputError, load_study

MAIN = ["clinical_logistic", "imaging", "concat", "daft"]
DRAWN = {"data": "real", "resamples": 200, "seed": 3}


@pytest.fixture(scope="module")
def study():
    return load_study("rlvo")


@pytest.fixture(scope="module")
def predictions():
    return make_predictions()


@pytest.fixture(scope="module")
def two_seeds():
    return make_predictions(seeds=(0, 1))


@pytest.fixture(scope="module")
def decision(predictions, study):
    return results.decision_curve(predictions, study, **DRAWN)


def ensemble(predictions, arm, partition="test"):
    rows = predictions[(predictions["arm"] == arm) & (predictions["partition"] == partition)]
    rows = rows.groupby("participant_id")[["y_true", "probability"]].mean()
    return rows["y_true"].to_numpy(int), rows["probability"].to_numpy()


def test_roc_corners_hold_the_whole_curve(predictions, study):
    points = results.roc_points(predictions, study, data="real")
    assert list(points.columns) == ["arm", "seed", "threshold", "fpr", "tpr", "data"]
    assert list(dict.fromkeys(points["arm"])) == MAIN
    for arm, own in points.groupby("arm"):
        y, p = ensemble(predictions, arm)
        assert np.trapezoid(own["tpr"], own["fpr"]) == pytest.approx(sk.roc_auc_score(y, p))
        assert own[["fpr", "tpr"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]
        assert np.isnan(own["threshold"].iloc[0]) and own["threshold"].iloc[1:].notna().all()
        row = own.iloc[3]  # a corner is what its threshold gives
        assert row["tpr"] == pytest.approx((p[y == 1] >= row["threshold"]).mean())
        assert row["fpr"] == pytest.approx((p[y == 0] >= row["threshold"]).mean())
        steps = np.diff(own[["fpr", "tpr"]].to_numpy(), axis=0)
        turns = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]
        assert (np.abs(turns) > 1e-12).all()  # none lies on a straight line


def test_precision_recall_points_hold_the_average_precision(predictions, study):
    points = results.pr_points(predictions, study, data="real")
    assert set(points["prevalence"]) == {0.25} and list(dict.fromkeys(points["arm"])) == MAIN
    for arm, own in points.groupby("arm"):
        y, p = ensemble(predictions, arm)
        gained = np.diff(own["recall"]) @ own["precision"].iloc[1:]
        assert gained == pytest.approx(sk.average_precision_score(y, p))
        assert (own["recall"].value_counts() <= 2).all()
        assert own["precision"].iloc[-1] == pytest.approx(0.25)  # everyone is flagged


def test_tied_scores_are_one_corner(study):
    flat = make_predictions().assign(probability=0.25)
    points = results.roc_points(flat, study, data="real")
    assert points.groupby("arm").size().tolist() == [2] * 4
    assert results.pr_points(flat, study, data="real").groupby("arm").size().tolist() == [2] * 4


def test_bands_hold_the_curves_on_a_grid(predictions, study):
    roc = results.roc_band(predictions, study, **DRAWN)
    precision = results.pr_band(predictions, study, **DRAWN)
    for band, y, x in ((roc, "tpr", "fpr"), (precision, "precision", "recall")):
        assert list(band.columns) == ["arm", x, y, "low", "high", "seeds", "data"]
        assert list(dict.fromkeys(band["arm"])) == MAIN and set(band["seeds"]) == {1}
        assert (band["low"] <= band["high"]).all()
        assert band[y].between(band["low"], band["high"]).mean() > 0.95
    y, p = ensemble(predictions, "daft")
    known = metrics.roc_band(y, p, n=200, seed=3)
    own = roc[roc["arm"] == "daft"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[known.columns.tolist()], known)


def test_of_several_seeds_the_band_is_of_their_mean_curve(two_seeds, study):
    band = results.roc_band(two_seeds, study, **DRAWN)
    assert set(band["seeds"]) == {2}
    alone = [
        results.roc_band(two_seeds[two_seeds["seed"] == s], study, **DRAWN)["tpr"] for s in (0, 1)
    ]
    np.testing.assert_allclose(band["tpr"], (alone[0] + alone[1]) / 2)


def test_the_calibration_curve_is_that_of_the_metrics(predictions, study):
    curve = results.calibration_curve(predictions, study, data="real")
    assert list(curve.columns)[:6] == ["arm", "seed", "predicted", "observed", "low", "high"]
    assert list(dict.fromkeys(curve["arm"])) == MAIN
    known = metrics.calibration_curve(*ensemble(predictions, "daft"))
    own = curve[curve["arm"] == "daft"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[known.columns.tolist()], known)
    table = results.calibration_table(predictions, study, data="real")
    assert {"ici", "e50", "e90", "eci", "smoother", "spiegelhalter_p"} <= set(table)
    assert table["smoother"].str.startswith("loess").all()


def test_net_benefit_by_hand(decision, predictions):
    assert decision["threshold"].unique().tolist() == [round(k / 100, 2) for k in range(5, 41)]
    assert list(dict.fromkeys(decision["arm"])) == MAIN
    y, p = ensemble(predictions, "daft")
    for row in decision[decision["arm"] == "daft"].itertuples():
        flagged, odds = p >= row.threshold, row.threshold / (1 - row.threshold)
        value = (flagged & (y == 1)).mean() - (flagged & (y == 0)).mean() * odds
        everyone = 0.25 - 0.75 * odds
        assert row.net_benefit == pytest.approx(value)
        assert row.standardised == pytest.approx(value / 0.25)
        assert row.treat_all == pytest.approx(everyone) and row.treat_none == 0
        assert row.interventions_avoided_per_100 == pytest.approx(100 * (value - everyone) / odds)
        assert row.low <= row.net_benefit <= row.high
    assert set(decision["interval_method"]) == {
        "bootstrap over patients, percentile, 200 resamples"
    }


def test_the_interval_of_treating_everyone_is_that_of_the_prevalence(study):
    """All flagged at 5 %: net benefit is linear in the events of a binomial sample of 60."""
    from scipy import stats

    everyone = make_predictions().assign(probability=0.9)
    table = results.decision_curve(everyone, study, data="real", resamples=2000)
    row = table[(table["arm"] == "daft") & (table["threshold"] == 0.05)].iloc[0]
    share = stats.binom.ppf([0.025, 0.975], 60, 0.25) / 60
    expected = share - (1 - share) * 0.05 / 0.95
    assert [row["low"], row["high"]] == pytest.approx(list(expected), abs=0.02)


def test_net_benefits_of_several_seeds_are_averaged(two_seeds, study):
    table = results.decision_curve(two_seeds, study, **DRAWN)
    alone = [
        results.decision_curve(two_seeds[two_seeds["seed"] == s], study, **DRAWN) for s in (0, 1)
    ]
    for column in ("net_benefit", "standardised", "interventions_avoided_per_100"):
        expected = (alone[0][column] + alone[1][column]) / 2
        np.testing.assert_allclose(table[column], expected, atol=1e-12)
    assert set(table["seeds"]) == {2}


def test_thresholds_are_chosen_out_of_fold_and_judged_on_the_test_set(predictions, study):
    table = results.operating_points(predictions, study, data="real")
    assert list(dict.fromkeys(table["arm"])) == MAIN
    assert set(table["chosen_on"]) == {"out-of-fold"} and set(table["judged_on"]) == {"test"}
    assert set(table["n"]) == {60}
    own = table[table["arm"] == "daft"].set_index("rule")
    y, p = ensemble(predictions, "daft", "out-of-fold")
    cut = own.loc["sensitivity of at least 0.9", "threshold"]
    assert (p[y == 1] >= cut).mean() >= 0.9 > (p[y == 1] > cut).mean()
    cut = own.loc["specificity of at least 0.9", "threshold"]
    assert (p[y == 0] < cut).mean() >= 0.9
    chosen = results.choose_thresholds(predictions).set_index("arm").loc["daft", "threshold"]
    row = own.loc["maximal F1 (event class)"]
    assert row["threshold"] == chosen
    known = metrics.operating_point(*ensemble(predictions, "daft"), chosen)
    for name in ("f1", "mcc", "lr_positive", "sensitivity_exact_low", "ppv_high", "tp"):
        assert row[name] == pytest.approx(getattr(known, name))
    # another test set changes no threshold
    moved = predictions.copy()
    moved.loc[moved["partition"] == "test", "probability"] /= 2
    again = results.operating_points(moved, study, data="real")
    assert again["threshold"].tolist() == table["threshold"].tolist()


def test_operating_points_without_a_test_set_are_said_to_be_optimistic(study):
    table = results.operating_points(make_predictions(test=False), study, data="real")
    assert set(table["judged_on"]) == {"out-of-fold (the same patients: optimistic)"}
    assert set(table["n"]) == {120}


def test_no_threshold_is_chosen_on_the_test_set(predictions, study):
    test = predictions[predictions["partition"] == "test"]
    with pytest.raises(InputError, match="no out-of-fold rows to choose a threshold from"):
        results.operating_points(test, study, data="real")
    some = pd.concat([test, predictions[predictions["arm"] == "ncct"]]).drop_duplicates()
    with pytest.raises(InputError, match="arm 'clinical_logistic', seed 0 has no out-of-fold rows"):
        results.operating_points(some, study, data="real")


@pytest.mark.parametrize("table", ["roc_points", "pr_points", "roc_band", "pr_band",
                                   "calibration_curve", "decision_curve"])  # fmt: skip
def test_every_table_says_whose_data_it_is(predictions, study, table):
    given = DRAWN if table.endswith("band") or table == "decision_curve" else {"data": "real"}
    made = getattr(results, table)(predictions, study, **given)
    assert set(made["data"]) == {"real"} and list(made.columns)[-1] == "data"
