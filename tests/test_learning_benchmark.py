"""The learning benchmark: cutting, dealing, tables and goals, on made outcomes and predictions."""

import dataclasses
import importlib

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import storage, workers
from rlvo_lib.analysis import Analysis
from rlvo_lib.config import InputError, load_settings, project_root
from rlvo_lib.results.ceiling import CEILINGS
from rlvo_lib.simulate import dataset, write_dataset


def _module(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(project_root() / "benchmarks"))
        return importlib.import_module(name)


cohorts, tables = _module("learning_cohorts"), _module("learning_tables")
learning = _module("learning")


def ceiling(scenario="paper", fitted=0.70):
    arm = dict(infinite=fitted, fitted=fitted, fitted_sd=0.01, fitted_low=fitted - 0.02,
               fitted_high=fitted + 0.02, latents=["clot_hu"])  # fmt: skip
    return dict(scenario=scenario, predictor="made", n_fitted=481, events_fitted=77, replicates=60,
                evaluated_on=100_000, arms=dict.fromkeys(CEILINGS, arm))  # fmt: skip


# -------------------------------------------------------------------------------------- cutting


def outcomes(n, events):
    ids = [f"sub-{i:04d}" for i in np.random.default_rng(0).permutation(n)]
    return pd.Series([1] * events + [0] * (n - events), index=ids)


@pytest.mark.parametrize("n, events", [(2405, 385), (2405, 1202), (1000, 3), (990, 989), (481, 77)])
def test_cohorts_are_disjoint_and_as_stratified_as_they_can_be(n, events):
    y = outcomes(n, events)
    cut = cohorts.carve(y, seed=7001)
    assert cut["participant_id"].is_unique and set(cut["participant_id"]) <= set(y.index)
    assert cut.groupby("cohort").size().tolist() == [481] * (n // 481)
    counts = cut.assign(y=y[cut["participant_id"]].to_numpy()).groupby("cohort")["y"].sum()
    assert (abs(counts - 481 * events / n) < 1).all()
    folds = cut.assign(y=y[cut["participant_id"]].to_numpy()).groupby(["cohort", "fold"])["y"]
    assert set(folds.size()) <= {120, 121}
    assert (folds.sum().groupby("cohort").agg(lambda f: f.max() - f.min()) <= 1).all()
    assert set(cut["fold"]) == {"1", "2", "3", "4"}


def test_the_study_s_counts_come_out():
    cut = cohorts.carve(outcomes(2405, 385), seed=1)
    events = outcomes(2405, 385)[cut["participant_id"]].groupby(cut["cohort"].to_numpy()).sum()
    assert events.tolist() == [77] * 5


def test_the_cut_depends_on_the_seed_and_not_on_the_order_of_patients():
    y = outcomes(1000, 160)
    assert cohorts.carve(y, seed=1).equals(cohorts.carve(y.sample(frac=1, random_state=3), seed=1))
    assert not cohorts.carve(y, seed=1).equals(cohorts.carve(y, seed=2))


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="480 patients; allowed: 481"):
        cohorts.carve(outcomes(480, 77), seed=1)


@pytest.fixture(scope="module")
def prepared():
    """1,000 training patients and 300 test patients, of whom only the outcome is known."""
    y = outcomes(1300, 200)
    ids = sorted(y.index)
    test = np.arange(len(ids)) % 13 < 3
    frame = pd.DataFrame({"participant_id": ids, "rlvo": y[ids].astype(str), "included": "1"})
    split = pd.DataFrame({"participant_id": ids, "partition": np.where(test, "test", "train")})
    whole = Analysis(load_settings("demo"), None, None, frame, split.assign(fold=""))
    return cohorts.Prepared(whole, None, ceiling(), 7001)


def test_a_cohort_is_an_analysis_of_its_own_patients_and_the_shared_test_part(prepared):
    one, two = (cohorts.cohort_analysis(prepared, k) for k in (1, 2))
    parts = [a.split.groupby("partition")["participant_id"].agg(set) for a in (one, two)]
    assert parts[0]["test"] == parts[1]["test"] and len(parts[0]["test"]) == 300
    assert len(parts[0]["train"]) == len(parts[1]["train"]) == 481
    assert not parts[0]["train"] & (parts[1]["train"] | parts[0]["test"])
    assert sorted(one.split["participant_id"]) == sorted(one.frame["participant_id"])
    folds = one.split.groupby("partition")["fold"].agg(set)
    assert folds["test"] == {""} and folds["train"] == {"1", "2", "3", "4"}
    assert one.seeds != two.seeds
    assert one.y.equals(prepared.analysis.y[one.y.index])


def test_a_cohort_that_the_dataset_does_not_hold_is_refused(prepared):
    with pytest.raises(InputError, match="cohort is 3; allowed: 1 to 2"):
        cohorts.cohort_analysis(prepared, 3)


def test_dealing_keeps_the_events_of_each_part_and_breaks_the_link(prepared):
    true = cohorts.cohort_analysis(prepared, 1)
    deals = [cohorts.cohort_analysis(prepared, 1, d) for d in (1, 2)]
    part = true.split.set_index("participant_id")[["partition", "fold"]].agg("-".join, axis=1)
    for one in deals:
        assert one.split.equals(true.split)
        assert one.y.groupby(part).sum().equals(true.y.groupby(part).sum())
        assert abs(np.corrcoef(one.y, true.y[one.y.index])[0, 1]) < 0.15
    assert not deals[0].y.equals(deals[1].y)
    assert deals[0].seeds != deals[1].seeds
    assert cohorts.cohort_analysis(prepared, 1, 1).y.equals(deals[0].y)


def _in_this_process(function, tasks, **_):
    return [function(*task) for task in tasks]


def test_a_given_folder_is_opened_left_as_it_is_and_held_to_its_scenario(tmp_path, monkeypatch):
    monkeypatch.setattr(
        dataset, "_write_ceiling", lambda path, name, _: storage.write_json(path, ceiling(name))
    )
    monkeypatch.setattr(workers, "run", _in_this_process)
    root = write_dataset(tmp_path / "d", patients=60, test=20, scenario="signal", table_only=True)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    options = dict(cohorts=1, test=20, cache=tmp_path / "cache", data=root, images=False)
    first, again = (cohorts.prepare("signal", **options) for _ in range(2))
    assert first.fingerprint == again.fingerprint and first.tensors is None
    assert first.analysis.split["partition"].value_counts().to_dict() == {"train": 40, "test": 20}
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="scenario 'signal'; allowed: simulated, 'paper'"):
        cohorts.prepare("null", **options)
    (root / "split.csv").unlink()
    with pytest.raises(InputError, match="split.csv is missing"):
        cohorts.prepare("signal", **options)


def test_only_simulated_scans_and_their_truth_are_deleted(tmp_path):
    for name in ("sub-1/ct/a", "derivatives/truth/sub-1/b", "derivatives/truth/c", "split.csv"):
        storage.write_text(tmp_path / name, "x")
    cohorts._delete_scans(tmp_path)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"derivatives/truth/c", "split.csv"}


# --------------------------------------------------------------------------------------- tables


def predictions(arm, *, ranks, n=100, fold_noise=0.0):
    """Half events; `ranks` of the event-pairs ordered rightly in the test part, so the AUC is known."""
    rng, rows = np.random.default_rng(1), []
    for partition, folds in (("test", (1, 2)), ("out-of-fold", (1,))):
        for fold in folds:
            for i in range(n):
                y = i % 2
                right = (
                    i // 2 < ranks * n / 2
                )  # so many events lie above all others, the rest below
                p = 0.5 if y == 0 else (0.9 if right else 0.1)
                p += fold_noise * rng.normal()
                name = f"{partition[:1]}{i:03d}"
                rows.append((name, partition, arm, 0, fold, y, p))
    names = ["participant_id", "partition", "arm", "seed", "fold", "y_true", "probability"]
    return pd.DataFrame(rows, columns=names)


def scored(arm, ranks, cohort=1, scenario="paper", deal=0, **more):
    unit = dict(scenario=scenario, cohort=cohort, deal=deal, arm=arm)
    return tables.score(predictions(arm, ranks=ranks, **more), unit)


def test_the_scored_aucs_are_those_that_were_made():
    row = scored("ncct", 0.7).row
    assert [row[n] for n in ("auc", "auc_folds", "auc_out_of_fold")] == pytest.approx([0.7] * 3)
    assert (row["test"], row["test_events"], row["train"], row["train_events"]) == (
        100,
        50,
        100,
        50,
    )
    # each event is above all others or below all: variance of a share, with n - 1 in its place
    assert row["test_se"] == pytest.approx(np.sqrt(0.7 * 0.3 / 49))


def test_the_ensemble_is_the_mean_of_the_folds():
    made = predictions("ncct", ranks=0.6)
    made.loc[(made["partition"] == "test") & (made["fold"] == 2), "probability"] = 0.5
    row = tables.score(made, dict(scenario="paper", cohort=1, deal=0, arm="ncct")).row
    assert row["auc"] == pytest.approx(0.6)
    assert row["auc_folds"] == pytest.approx((0.6 + 0.5) / 2)


def test_limits_over_cohorts_are_those_of_student():
    mean, sd, low, high = tables.over_cohorts([0.6, 0.7])
    assert (mean, sd) == pytest.approx((0.65, np.sqrt(0.005)))
    assert high - mean == pytest.approx(12.7062 * np.sqrt(0.005) / np.sqrt(2), rel=1e-4)
    assert mean - low == pytest.approx(high - mean)
    assert np.isnan(tables.over_cohorts([0.6])[1:]).all()


def test_the_learning_table_has_mean_limits_and_share(study):
    results = [scored("ncct", r, k) for k, r in enumerate((0.64, 0.66, 0.68), 1)]
    given = ceiling() | {"n_fitted": 100, "events_fitted": 50}
    row = tables.learning_table(results, {"paper": given}, {"paper": 2000}, study).loc[0]
    assert row["AUC"] == pytest.approx(0.66) and row["SD"] == pytest.approx(0.02)
    assert (row["cohorts"], row["runs"], row["data"]) == (3, 3, "simulated")
    assert np.isnan(row["share"]) and "100 test patients" in row["reason"]  # 100 of 2,000 scored
    small = tables.learning_table(results, {"paper": given}, {"paper": 100}, study).loc[0]
    assert "100 test patients" in small["reason"]


def test_the_share_follows_the_ceiling_s_rules(study):
    results = [scored("ncct", r, k, n=2000) for k, r in enumerate((0.64, 0.66, 0.68), 1)]
    fits = ceiling() | {"n_fitted": 2000, "events_fitted": 1000}
    row = tables.learning_table(results, {"paper": fits}, {"paper": 2010}, study).loc[0]
    assert row["share"] == pytest.approx(0.8) and row["reason"] == ""
    t, se = row["AUC"] - row["low"], 1.96 * row["test_se"]
    assert row["share"] - row["share_low"] >= np.hypot(t, se) / 0.2 - 1e-3
    other = tables.learning_table(results, {"paper": ceiling()}, {"paper": 2010}, study).loc[0]
    assert np.isnan(other["share"]) and "fitted on 481 patients" in other["reason"]
    null = [scored("ncct", 0.5, scenario="null", deal=1)]
    assert np.isnan(tables.learning_table(null, {"null": fits}, {"null": 2010}, study)["share"][0])


def test_differences_are_paired_by_cohort():
    results = [scored("daft", r, k) for k, r in enumerate((0.70, 0.74, 0.9), 1)]
    results += [
        scored("concat", r, k) for k, r in enumerate((0.60, 0.62), 1)
    ]  # one is not finished
    table = tables.difference_table(results)
    assert len(table) == 1 and table["runs"][0] == 2
    assert table["difference"][0] == pytest.approx(0.11)
    assert table["SD"][0] == pytest.approx(np.sqrt(0.0002))


def test_arms_judged_on_other_outcomes_are_refused():
    one, two = scored("daft", 0.7), scored("concat", 0.6)
    two.ensemble["y_true"] = 1 - two.ensemble["y_true"]
    with pytest.raises(InputError, match="other outcomes"):
        tables.compared(one, two)


# ---------------------------------------------------------------------------------------- goals

TESTS = {"null": 2000, "signal": 2000, "interaction": 2000, "paper": 2000}


def learned(**row):
    given = dict(scenario="null", arm="ncct", runs=10, AUC=0.5, low=0.49, high=0.51, share=np.nan,
                 share_low=np.nan, share_high=np.nan, reason="")  # fmt: skip
    return given | row


def differs(**row):
    given = dict(scenario="interaction", first="daft", second="concat", runs=5, difference=0.1, low=0.05, high=0.15)  # fmt: skip
    return given | row


def reached(learned_rows=(), differing_rows=(), tests=TESTS):
    table = tables.goal_table(pd.DataFrame(learned_rows), pd.DataFrame(differing_rows), tests)
    return {(r["scenario"], r["arm"], r["goal"]): r["reached"] for r in table.to_dict("records")}


@pytest.mark.parametrize(
    "row, verdict",
    [
        (learned(AUC=0.519), "yes"),
        (learned(AUC=0.481), "yes"),
        (learned(AUC=0.521), "no"),
        (learned(AUC=0.479), "no"),
        (learned(runs=9), "9 of 10 cohorts"),
    ],
)
def test_null_stays_at_one_half(row, verdict):
    assert reached([row])["null", "ncct", "mean AUC within 0.5 ± 0.02"] == verdict


@pytest.mark.parametrize(
    "row, ahead, sure",
    [
        (differs(), "yes", "yes"),
        (differs(difference=0.04), "no", "yes"),
        (differs(low=0.0), "yes", "no"),
        (differs(low=np.nan, runs=1), "1 of 5 cohorts", "1 of 5 cohorts"),
    ],
)
def test_interaction_needs_the_lead_and_an_interval_above_zero(row, ahead, sure):
    found = reached(differing_rows=[row])
    assert found["interaction", "daft - concat", "ahead by at least 0.05"] == ahead
    assert found["interaction", "daft - concat", "interval excludes 0"] == sure


def test_signal_and_paper_are_held_to_their_limits():
    found = reached(
        [
            learned(scenario="signal", arm="cta", runs=3, share=0.9),
            learned(scenario="signal", arm="ctp", runs=3, share=0.89),
            learned(scenario="signal", arm="daft", runs=3, reason="too small"),
            learned(scenario="paper", arm="concepts_imaging", runs=5, AUC=0.62),
            learned(scenario="paper", arm="concepts", runs=5, share=0.74),
        ],
        [
            differs(scenario="paper", first="daft_offset", second="clinical_logistic", low=-0.02),
            differs(scenario="paper", first="concepts", second="clinical_logistic", low=0.001),
        ],
    )
    share = "share of the achievable at least 0.9"
    assert [found["signal", a, share] for a in ("cta", "ctp")] == ["yes", "no"]
    assert found["signal", "daft", share] == "no share: too small"
    assert found["signal", "ncct", share] == "not measured"
    assert found["paper", "concepts_imaging", "AUC at least 0.62"] == "yes"
    assert found["paper", "concepts", "share of the achievable at least 0.75"] == "no"
    offset = "daft_offset - clinical_logistic"
    assert found["paper", offset, "lower limit above -0.02"] == "no"
    assert found["paper", "concepts - clinical_logistic", "lower limit above 0"] == "yes"


def test_a_small_test_part_reaches_nothing_and_nothing_measured_says_so():
    row = learned()
    small = reached([row], tests=TESTS | {"null": 600})
    assert small["null", "ncct", "mean AUC within 0.5 ± 0.02"] == "test part of 600: 2,000 needed"
    assert set(reached().values()) == {"not measured"}


# ------------------------------------------------------------------------------ running, command


@pytest.fixture
def trained(prepared, tmp_path, monkeypatch):
    """A function that runs units into a result folder; training is replaced by made predictions."""
    calls = []

    def run_arms(analysis, _, arms):
        calls.append((len(analysis.y), list(arms)))
        return pd.concat([predictions(arm, ranks=0.6) for arm in arms])

    ladder = pd.DataFrame({"arm": ["ncct", "ctp", "daft"], "runs": [True, False, True], "reason": ["", "no CTP", ""]})  # fmt: skip
    monkeypatch.setattr(learning.experiment, "run_arms", run_arms)
    monkeypatch.setattr(learning.experiment, "ladder", lambda *_: ladder)
    monkeypatch.setattr(learning, "_about", lambda p: {
        "dataset": p.seed, "test": 300, "settings": {}, "ceiling": p.ceiling})  # fmt: skip

    def run(name, unit, arms, made=prepared):
        learning.run_unit(unit, made, arms, tmp_path / name)
        return tmp_path / name

    return run, calls


def test_finished_arms_are_found_again_and_one_that_cannot_run_is_named(trained, capsys):
    run, calls = trained
    unit = learning.Unit("paper", 2)
    folder = run("a", unit, ["ncct", "ctp"])
    assert "arm 'ctp' is left out: no CTP" in capsys.readouterr().err
    run("a", unit, ["ncct", "daft"])
    assert calls == [(781, ["ncct"]), (781, ["daft"])]
    assert sorted(p.name for p in (folder / "paper/cohort-02").iterdir()) == [
        "daft.csv",
        "ncct.csv",
    ]


def test_shards_are_merged_and_other_patients_refused(trained, prepared, tmp_path):
    run, _ = trained
    one = run("a", learning.Unit("paper", 1), ["daft", "ncct"])
    two = run("b", learning.Unit("paper", 2), ["daft"])
    run("b", learning.Unit("null", 1, 2), ["ncct"])
    learning.summarise(tmp_path / "out", [one, two])
    found = storage.read_csv(tmp_path / "out/cohorts.csv", keep_default_na=False)
    assert found[["scenario", "cohort", "deal", "arm"]].to_numpy().tolist() == [
        ["null", 1, 2, "ncct"], ["paper", 1, 0, "ncct"], ["paper", 1, 0, "daft"], ["paper", 2, 0, "daft"],
    ]  # fmt: skip
    names = {p.stem for p in (tmp_path / "out").iterdir()}
    assert names == {"cohorts", "learning", "differences", "goals"}
    other = dataclasses.replace(prepared, seed=7)
    three = run("c", learning.Unit("paper", 1), ["daft"], other)
    with pytest.raises(InputError, match="scenario 'paper' was measured with another dataset"):
        learning.summarise(tmp_path / "out", [one, three])


def test_nothing_finished_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no finished cohort"):
        learning.summarise(tmp_path / "out", [tmp_path])


def test_ten_runs_of_null_are_five_cohorts_with_two_deals_and_shards_share_them():
    every = learning.units("null", 5, 2)
    assert len(set(every)) == 10 and {u.deal for u in every} == {1, 2}
    shards = [every[k::3] for k in range(3)]
    assert sorted(sum(shards, []), key=str) == sorted(every, key=str)
    assert [u.deal for u in learning.units("paper", 3, 2)] == [0, 0, 0]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nonsense"], "part is 'nonsense'; allowed: null, signal, interaction, paper, summary"),
        (["paper", "--shard", "3/2"], "--shard is '3/2'"),
        (["paper", "--shard", "one"], "--shard is 'one'"),
        (["paper", "--cohorts", "0"], "--cohorts is 0; allowed: 1 or more"),
        (["paper", "--test", "5"], "--test is 5; allowed: 20 or more"),
        (["paper", "--arms", "ncct,magic"], "--arms names 'magic'"),
        (["paper", "--data", "nowhere-at-all"], "no such folder"),
        (["paper", "signal", "--data", "."], "--data is one dataset"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(InputError) as caught:
        learning.parse(["out", *arguments])
    assert words in str(caught.value)


def test_null_and_paper_may_share_a_folder_given():
    options = learning.parse(["out", "null", "paper", "--data", ".", "--shard", "2/3"])
    assert options.shard == (2, 3) and options.cohorts == 5 and options.test == 2000
