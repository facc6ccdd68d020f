"""Learning curves and their extrapolation, on predictions that are made with known curves."""

import time

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import metrics, results
from rlvo_lib.config import InputError
from rlvo_lib.results import growth

SIZES = (48, 84, 120, 180, 240)
LAWS = {"daft": (0.85, 0.9, 0.5), "clinical_logistic": (0.80, 0.3, 0.5)}
PAIRS = [("daft", "clinical_logistic")]


def auc_of(law, n):
    a, b, c = law
    return a - b * np.asarray(n, float) ** -c


def made(rng, *, n=300, sizes=SIZES, laws=LAWS, seeds=1, exact=False):
    """Predictions of ablations; an arm's scores are normal and of the AUC that its law gives.

    Patients keep most of their luck between sizes and arms. ``exact``: no luck, ranks by quantiles.
    """
    from scipy.stats import norm

    y, luck, frames = np.arange(n) % 2, rng.normal(size=n), []
    quantiles = norm.ppf((np.arange(n) // 2 + 0.5) / (n / 2))
    for arm, law in laws.items():
        own = np.sqrt(0.6) * luck + np.sqrt(0.4) * rng.normal(size=n)
        for size in sizes:
            for seed in range(seeds):
                noise = np.sqrt(0.8) * own + np.sqrt(0.2) * rng.normal(size=n)
                shift = np.sqrt(2) * norm.ppf(auc_of(law, size)) * y
                whole = size == max(sizes)
                frames.append(
                    pd.DataFrame({
                        "group": "base" if whole else "patients",
                        "variant": "base" if whole else f"share_{size}",
                        "n_train": size, "participant_id": [f"sub-{i:04d}" for i in range(n)],
                        "partition": "out-of-fold", "arm": arm, "seed": seed, "fold": 1 + np.arange(n) % 5,
                        "y_true": y, "probability": norm.cdf((quantiles if exact else noise) + shift),
                    })
                )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def frame():
    return made(np.random.default_rng(3), seeds=2)


@pytest.fixture(scope="module")
def table(frame):
    return results.extrapolation(frame, folds=5, data="real", pairs=PAIRS, resamples=200)


def test_points_are_the_mean_over_seeds_of_the_pooled_auc(frame):
    points = results.learning_points(frame, data="simulated")
    assert points["arm"].tolist() == ["daft"] * 5 + ["clinical_logistic"] * 5
    assert points["n_train"].tolist() == [*SIZES, *SIZES]
    row = points.iloc[1]
    own = frame[(frame["arm"] == "daft") & (frame["n_train"] == 84)]
    aucs = [metrics.auc(g["y_true"], g["probability"]) for _, g in own.groupby("seed")]
    assert row["auc"] == pytest.approx(np.mean(aucs)) and row["seeds"] == 2
    assert row["sd_seeds"] == pytest.approx(np.std(aucs, ddof=1))
    assert row["low"] < row["auc"] < row["high"] and (row["n"], row["events"]) == (300, 150)
    assert points.columns[-1] == "data" and set(points["data"]) == {"simulated"}


def test_known_curves_are_recovered_at_other_numbers_of_patients():
    exact = made(np.random.default_rng(0), n=2000, exact=True)
    found = results.extrapolation(exact, folds=5, data="real", pairs=PAIRS, resamples=20)
    free = found[(found["form"] == "root")]
    for arm, law in LAWS.items():
        rows = free[(free["arm"] == arm) & (free["minus"] == "")]
        np.testing.assert_allclose(rows["value"], auc_of(law, rows["n_train"]), atol=2e-3)
    rows = free[free["minus"] != ""]
    truth = auc_of(LAWS["daft"], rows["n_train"]) - auc_of(
        LAWS["clinical_logistic"], rows["n_train"]
    )
    np.testing.assert_allclose(rows["value"], truth, atol=3e-3)


def test_cohorts_are_counted_apart_from_who_is_learnt_from(table):
    rows = table[(table["form"] == "power") & (table["arm"] == "daft") & (table["minus"] == "")]
    assert rows["patients"].tolist() == [300, 618, 1500, 5000]
    np.testing.assert_allclose(rows["n_train"], [240, 494.4, 1200, 4000])
    np.testing.assert_allclose(rows["reach"], np.array([240, 494.4, 1200, 4000]) / 240)
    flagged = rows["reason"].str.contains("more than 10 times the largest measured number")
    assert flagged.tolist() == [False, False, False, True]


def test_a_difference_is_that_of_the_curves_and_its_interval_is_paired(table):
    rows = table[table["form"] == "root"].set_index(["arm", "minus", "patients"])
    gap = rows.loc[("daft", "clinical_logistic", 618)]
    daft, clinical = rows.loc[("daft", "", 618)], rows.loc[("clinical_logistic", "", 618)]
    assert gap["value"] == pytest.approx(daft["value"] - clinical["value"])
    widths = [one["high"] - one["low"] for one in (gap, daft, clinical)]
    assert widths[0] < 0.9 * np.hypot(*widths[1:])  # less than that of independent arms
    assert np.isnan(gap["a"]) and not np.isnan(daft["a"])


def test_limits_are_wider_the_farther_the_curve_is_read(table):
    rows = table[table["form"] == "power"]
    width = (rows["high"] - rows["low"]).to_numpy().reshape(3, 4)
    assert (width[:, 3] > width[:, 1]).all()  # 5,000 patients against 618


def test_the_interval_covers_the_truth_at_about_its_rate():
    """60 cohorts, form of the truth: at least 85 % of the 95 % intervals (see docs for more)."""
    rng, hits = np.random.default_rng(11), []
    for k in range(60):
        cohort = made(rng, n=200)
        found = results.extrapolation(
            cohort, folds=5, data="simulated", pairs=PAIRS, targets=[618], forms=["root"],
            resamples=200, seed=k,
        )  # fmt: skip
        values = {arm: auc_of(law, found["n_train"].iloc[0]) for arm, law in LAWS.items()}
        truth = [*values.values(), values["daft"] - values["clinical_logistic"]]
        hits.append((found["low"] <= truth) & (truth <= found["high"]))
    rate = np.mean(hits, axis=0)
    assert (rate >= 0.85).all(), rate


def test_pairs_across_folds_do_not_count_within_folds(frame, table):
    """A fold whose model scores everybody higher changes pooled AUCs, not those within folds."""
    higher = frame["probability"].where(frame["fold"] != 2, 0.5 + frame["probability"] / 2)
    moved = frame.assign(probability=higher)
    before, after = (results.learning_points(f, data="real") for f in (frame, moved))
    np.testing.assert_array_equal(before["auc_within"], after["auc_within"])
    assert (after["auc"] < before["auc"]).all()
    own = frame[(frame["arm"] == "daft") & (frame["n_train"] == 84)]
    aucs = [metrics.auc(g["y_true"], g["probability"]) for _, g in own.groupby(["seed", "fold"])]
    assert before["auc_within"].iloc[1] == pytest.approx(np.mean(aucs))  # folds of equal pairs
    options = {"folds": 5, "data": "real", "pairs": PAIRS, "resamples": 50, "within_folds": True}
    same = [results.extrapolation(f, **options) for f in (frame, moved)]
    values = [one["value"].to_numpy() for one in same]  # weights are of pooled AUCs
    np.testing.assert_allclose(*values, atol=5e-3)
    assert set(same[0]["auc"]) == {"within folds"} and set(table["auc"]) == {"pooled"}


def test_a_flat_curve_is_a_constant_and_says_so():
    flat = made(np.random.default_rng(0), laws={"daft": (0.75, 0.0, 0.5)}, exact=True)
    found = results.extrapolation(flat, folds=5, data="real", resamples=20)
    assert (found["b"] == 0).all() and found["c"].isna().all()
    assert found["value"].round(9).nunique() == 1
    assert found["reason"].str.startswith("curve of daft is flat or falls: b = 0").all()


def test_only_patients_whom_all_arms_scored_are_judged(frame):
    lacking = frame[(frame["arm"] != "daft") | (frame["participant_id"] > "sub-0009")]
    points = results.learning_points(lacking, data="real")
    assert set(points["n"]) == {290}
    alone = frame["participant_id"].where(frame["arm"] == "daft", "x" + frame["participant_id"])
    with pytest.raises(InputError, match="no patient was scored by all arms at all sizes"):
        results.learning_points(frame.assign(participant_id=alone), data="real")


def test_bands_run_from_the_fewest_measured_to_the_targets(frame):
    bands = results.learning_bands(frame, folds=5, data="real", pairs=PAIRS, resamples=20)
    for _, rows in bands.groupby(["arm", "minus"]):
        assert rows["n_train"].iloc[0] == pytest.approx(48)
        assert rows["n_train"].iloc[-1] == pytest.approx(4000)
        assert len(rows) == growth.BAND_POINTS
    assert set(bands["form"]) == {"power"}


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_rows(frame, table):
    shuffled = frame.sample(frac=1, random_state=0).sort_values("arm", ascending=False)
    again = results.extrapolation(shuffled, folds=5, data="real", pairs=PAIRS, resamples=200)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    other = results.extrapolation(
        frame, folds=5, data="real", pairs=PAIRS, resamples=200, seed=growth.SEED + 1
    )
    assert (other["value"] == table["value"]).all() and (other["low"] != table["low"]).any()


def test_pairs_are_those_of_the_study_then_the_first_arm_against_others(study):
    named = study.comparisons[0]
    assert results.learning_pairs(study, named, named[0]) == [named]
    assert results.learning_pairs(study, ["daft", "x"], "daft") == [("daft", "x")]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"arms": ["late"]}, "arm 'late' has no learning curve; allowed: daft, clinical_logistic"),
        ({"pairs": [("daft", "late")]}, "pairs: arm 'late' has no curve; allowed: daft, clinical"),
        ({"targets": [1]}, r"targets are \[1\]; allowed: numbers of patients"),
        ({"targets": []}, r"targets are \[\]; allowed"),
        ({"folds": 1}, "folds is 1; allowed: a whole number of at least 2"),
        ({"forms": ["line"]}, "form is 'line'; allowed: power, root, inverse"),
        ({"resamples": 0}, "n is 0; allowed: at least 1 resample"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(frame, change, message):
    options = {"folds": 5, "data": "real", "resamples": 5} | change
    with pytest.raises(InputError, match=message):
        results.extrapolation(frame, **options)


def test_tables_that_hold_no_curves_are_refused(frame):
    fewer = frame[frame["n_train"] > 84]
    with pytest.raises(
        InputError, match="'daft' has a learning curve of 3 sizes; allowed: at least 4"
    ):
        results.extrapolation(fewer, folds=5, data="real")
    with pytest.raises(InputError, match="no rows of group 'patients'"):
        results.learning_points(frame[frame["group"] == "base"], data="real")
    with pytest.raises(InputError, match="holds predictions of the test set"):
        results.learning_points(frame.assign(partition="test"), data="real")
    with pytest.raises(InputError, match="no column 'n_train'"):
        results.learning_points(frame.drop(columns="n_train"), data="real")


def test_a_single_event_has_no_limits_and_the_reason():
    ids = ["sub-0001", *(f"sub-{i:04d}" for i in range(0, 100, 2))]
    rows = made(np.random.default_rng(0))
    one = rows[rows["participant_id"].isin(ids)]
    found = results.extrapolation(one, folds=5, data="real", resamples=5, targets=[300])
    assert found["low"].isna().all() and found["value"].notna().all()
    assert found["reason"].str.contains("one event: the same in every stratified resample").all()


def test_a_thousand_resamples_of_six_arms_take_seconds():
    six = made(np.random.default_rng(0), laws=dict.fromkeys("abcdef", LAWS["daft"]))
    started = time.process_time()
    results.extrapolation(six, folds=5, data="real", pairs=[("a", "b")], forms=["power"])
    assert time.process_time() - started < 20


def test_values_stand_side_by_side_and_those_not_to_be_built_on_are_marked(table):
    shown = results.extrapolation_side_by_side(table).set_index("arm")
    own = table[table["form"] == "power"]
    assert list(shown.index) == [
        f"{row.arm} - {row.minus}" if row.minus else row.arm
        for row in own.drop_duplicates(["arm", "minus"]).itertuples()
    ]
    for row in own.itertuples():
        name = f"{row.arm} - {row.minus}" if row.minus else row.arm
        cell = shown.loc[name, f"{row.patients:,.0f} patients"]
        assert float(cell.removeprefix("Δ ").split()[0]) == pytest.approx(row.value, abs=6e-4)
        assert cell.endswith("*") == bool(row.reason)
        assert cell.startswith("Δ ") == bool(row.minus)
    assert set(shown["data"]) == set(table["data"])
