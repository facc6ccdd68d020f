"""A frozen run on other patients: nothing is fitted on them, and that is proven in the same pass."""

import dataclasses
import functools
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import experiment, external, report, results, storage, verify, workers
from rlvo_lib.analysis import embedded_dataset, open_analysis
from rlvo_lib.cli import main
from rlvo_lib.config import InputError, project_root, read_study
from rlvo_lib.external import writing
from rlvo_lib.external.arrivals import availability
from rlvo_lib.external.scoring import PREFIX, together
from rlvo_lib.report.summary import filled

ARMS = (
    "clinical_logistic", "imaging", "daft_offset", "concepts_imaging", "concepts_daft", "measured_boosting",
    "stacked", "late",
)  # fmt: skip
FAST = ["clinical_logistic"]


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Tasks without processes of their own, each of which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", functools.partial(workers.run, spawn_from=1000))
        yield


def _fewer_readers(text):
    """The study file with two of its five readers: those are trained in seconds."""
    blocks = text.split("\n[")
    dropped = ("readers.siphon]", "readers.carotid]", "readers.occlusion]")
    return "\n[".join(block for block in blocks if not block.startswith(dropped))


@pytest.fixture(scope="module")
def frozen(analysis, tensors, tmp_path_factory):
    """The settings of a finished run of the small cohort, which lies in their ``out``."""
    folder = tmp_path_factory.mktemp("frozen")
    plan = folder / "rlvo"
    plan.mkdir()
    own = analysis.settings.study
    (plan / "study.toml").write_text(_fewer_readers(own.text), encoding="utf-8")
    shutil.copyfile(own.dictionary_path, plan / "data_dictionary.csv")
    settings = dataclasses.replace(
        analysis.settings, study=read_study(plan / "study.toml"), out=folder / "run", arms=ARMS,
        reader_epochs=1, reader_filters=2,
    )  # fmt: skip
    opened = open_analysis(settings)
    predictions = experiment.run_arms(opened, tensors, list(ARMS))
    storage.write_csv(settings.out / "predictions.csv", predictions)
    storage.write_csv(settings.out / "thresholds.csv", results.choose_thresholds(predictions))
    report.write_provenance(
        settings.out, settings=settings, study=settings.study, data="simulated",
        dataset=opened.fingerprint(tensors),
    )  # fmt: skip
    return settings


@pytest.fixture(scope="module")
def run(frozen, tmp_path_factory):
    """The finished run, opened."""
    scratch = tmp_path_factory.mktemp("scratch")
    return external.open_frozen(frozen.out, development=None, cache=frozen.cache, scratch=scratch)


def _copy(root, target, change=lambda table: table, *, ids=None, **description):
    """The embedded dataset again, with another table; its scans are the same files."""
    left = shutil.ignore_patterns("derivatives", "split.csv")
    shutil.copytree(root, target, copy_function=os.link, ignore=left)
    path, about = target / "participants.tsv", target / "dataset_description.json"
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    table = table if ids is None else table[table["participant_id"].isin(ids)]
    words = storage.read_json(about) | description
    path.unlink()
    about.unlink()
    change(table.copy()).to_csv(path, sep="\t", index=False)
    storage.write_json(about, words)
    for folder in target.glob("sub-*"):
        if folder.name not in set(table["participant_id"]):
            shutil.rmtree(folder)
    return target


def _others(table):
    """Patients who are nobody of the development data: other ages, pressures, times."""
    for column, step in (("age", 1), ("sbp_adm", 3), ("nihss_adm", 1)):
        table[column] = [str(int(v) - step) if v[0] != "-" else v for v in table[column]]
    for column in ("scan_datetime", "puncture_datetime"):
        moved = pd.to_datetime(table[column], format="ISO8601") + pd.Timedelta(days=3, minutes=7)
        table[column] = moved.dt.strftime("%Y-%m-%dT%H:%M:%S")
    return table


@pytest.fixture(scope="module")
def other(frozen, tmp_path_factory):
    """Another centre: the same scans, other patients."""
    root = embedded_dataset(frozen)
    folder = tmp_path_factory.mktemp("other") / "centre"
    return _copy(root, folder, _others, Name="SIMULATED centre")


@pytest.fixture(scope="module")
def few(analysis):
    """Eight patients, three of them with the outcome."""
    y = analysis.y
    return [*y.index[y == 1][:3], *y.index[y == 0][:5]]


@pytest.fixture(scope="module")
def applied(frozen, other, tmp_path_factory):
    """The run applied to the other centre, with recalibration."""
    out = tmp_path_factory.mktemp("applied") / "out"
    return external.apply_run(frozen.out, other, out=out, cache=frozen.cache, recalibrate=True)


# ------------------------------------------------------------------------------ what is written


def test_every_arm_is_applied_and_the_result_verifies(applied):
    checks = verify.verify_run(applied)
    assert not len(checks[checks["verdict"] == "differ"]), checks[checks["verdict"] == "differ"]
    assert (checks["where"] == "tables/performance_recalibrated.csv").any()
    predictions = storage.read_csv(applied / "predictions.csv")
    assert set(predictions["arm"]) == set(ARMS) and set(predictions["partition"]) == {"test"}
    assert not predictions["participant_id"].str.startswith(PREFIX).any()
    assert "SIMULATED DATA" in (applied / "index.html").read_text("utf-8")
    for path in (applied / "tables").glob("*.csv"):
        assert set(storage.read_csv(path)["data"]) == {"simulated"}, path.name


def test_the_run_is_named_and_its_own_predictions_came_out_again(frozen, applied):
    info = storage.read_json(applied / "run.json")["applied"]
    own = storage.read_csv(frozen.out / "predictions.csv")
    assert info["largest_difference"] <= external.TOLERANCE
    assert info["reproduced_predictions"] == len(own)
    assert info["predictions"] == storage.digest(frozen.out / "predictions.csv")
    thresholds = (frozen.out / "thresholds.csv").read_bytes()
    assert (applied / "thresholds.csv").read_bytes() == thresholds
    proven = storage.read_csv(applied / "tables" / "proof.csv")
    assert set(proven["arm"]) == set(ARMS)


def test_recalibration_changes_what_it_should_and_nothing_else(applied):
    table = storage.read_csv(applied / "tables" / "recalibration.csv")
    assert table["o_to_e_after"].to_numpy() == pytest.approx(1.0, abs=1e-9)
    assert (table["auc_after"] == table["auc_before"]).all()
    assert (table["flagged_after"] == table["flagged_before"]).all()
    before, after = (
        storage.read_csv(applied / "tables" / f"performance{end}.csv").set_index(["arm", "metric"])
        for end in ("", "_recalibrated")
    )
    for metric in ("auc", "f1", "sensitivity", "average_precision"):
        one, two = (t.xs(metric, level="metric")["ensemble"] for t in (before, after))
        assert two.to_numpy() == pytest.approx(one.to_numpy(), abs=1e-12), metric
    assert after["threshold_rule"].str.contains("shifted with the probabilities").any()


@pytest.mark.parametrize("name", ["thresholds.csv", "tables/recalibration.csv"])
def test_verification_finds_a_changed_digit(applied, tmp_path, name):
    changed = tmp_path / "changed"
    shutil.copytree(applied, changed)
    table = storage.read_csv(changed / name)
    column = "threshold" if "threshold" in table else "o_to_e_before"
    table.loc[0, column] += 0.001
    storage.write_csv(changed / name, table)
    checks = verify.verify_run(changed)
    wrong = checks[(checks["verdict"] == "differ") & (checks["what"] != "file content")]
    assert wrong["where"].str.contains(name).any()


def test_a_summary_holds_tables_over_patients_alone(applied, frozen, tmp_path):
    folder = external.keep_summary(applied, tmp_path / "kept")
    names = {path.stem for path in folder.glob("*.csv")}
    assert {"performance", "transport", "proof", "recalibration", "discrimination"} <= names
    assert not any("sub-0" in path.read_text("utf-8") for path in folder.iterdir())
    with pytest.raises(InputError, match="not a run that was applied"):
        external.keep_summary(frozen.out, tmp_path / "none")


# --------------------------------------------------------------------------------- the freezing


def test_on_the_runs_own_data_training_patients_are_left_out_and_the_test_set_is_as_reported(
    run, frozen, tmp_path
):
    root = _copy(embedded_dataset(frozen), tmp_path / "again")
    arrivals = external.open_arrivals(root, run)
    parts = run.analysis.split["partition"].value_counts()
    assert (arrivals.known, arrivals.seen_in_test) == (parts["train"], parts["test"])
    flow = verify.BUILDERS["flow"]
    told = flow(
        dataclasses.make_dataclass("R", ["cohort", "study"])(arrivals.analysis.frame, frozen.study)
    )
    assert told["text"].str.contains(f"also in the training part of the run {parts['train']}").any()
    both, cache = together(run, arrivals)
    made = external.score(run, both, cache, ["imaging", "clinical_logistic", "late"])
    new = made[made["participant_id"].str.startswith(PREFIX)]
    new = new.assign(participant_id=new["participant_id"].str.removeprefix(PREFIX))
    new = new.assign(y_true=arrivals.analysis.y[new["participant_id"]].to_numpy())
    own = run.predictions.query("partition == 'test'")
    own = own[own["arm"].isin(new["arm"].unique())]
    given = {"data": "simulated", "resamples": 50}
    before, after = (
        results.performance(frame, run.thresholds, frozen.study, **given) for frame in (own, new)
    )
    pd.testing.assert_frame_equal(before, after, rtol=1e-4)


def test_the_outcomes_of_new_patients_are_not_there_to_be_learnt_from(run, other):
    arrivals = external.open_arrivals(other, run)
    assert arrivals.known == 0 and arrivals.analysis.y.sum() > 0
    both, _ = together(run, arrivals)
    new = both.split["participant_id"].str.startswith(PREFIX)
    assert new.sum() == len(arrivals.analysis.y)
    assert (both.y[both.split["participant_id"][new]] == 0).all()
    assert both.units.equals(run.analysis.units)
    for part in ("train", "inner", "held_out"):
        assert both.fold_parts(1, 0)[part] == run.analysis.fold_parts(1, 0)[part]


@pytest.fixture
def stored(run):
    """The files of two folds' models of one arm, put back after the test."""
    tasks = [t for t in run.tasks(["imaging"]) if t.fold in (1, 2)]
    paths = [t.folder / "model.safetensors" for t in tasks]
    before = [path.read_bytes() for path in paths]
    yield paths
    for path, content in zip(paths, before, strict=True):
        path.write_bytes(content)


def _score_imaging(run, other):
    arrivals = external.open_arrivals(other, run)
    both, cache = together(run, arrivals)
    return external.proof(run.predictions, external.score(run, both, cache, ["imaging"]))


def test_another_model_in_the_place_of_the_runs_is_found(run, other, stored):
    assert _score_imaging(run, other)["largest_difference"].max() <= external.TOLERANCE
    stored[0].write_bytes(stored[1].read_bytes())
    with pytest.raises(InputError, match=r"arm 'imaging', seed 0, fold 1.*the run reports"):
        _score_imaging(run, other)


def test_a_damaged_model_is_refused_and_a_missing_one_named_with_what_makes_it(run, other, stored):
    content = bytearray(stored[0].read_bytes())
    content[-9] ^= 1
    stored[0].write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        _score_imaging(run, other)
    stored[0].unlink()
    with pytest.raises(InputError, match=r"imaging, fold 1, seed 0 is not in .*1 of 4.*rlvo train"):
        run.tasks(["imaging"])


def test_the_proof_names_arm_and_difference_and_compares_the_same_patients(run):
    reported = run.predictions.query("arm == 'late'")
    found = external.proof(reported, reported)
    assert found["predictions"].tolist() == [len(reported)]
    off = reported.assign(probability=reported["probability"] + 2e-5)
    with pytest.raises(InputError, match="arm 'late'.*2e-05.*allowed: 1e-05"):
        external.proof(reported, off)
    with pytest.raises(InputError, match="scores other patients"):
        external.proof(reported, reported.iloc[1:])


def test_a_recalibrated_run_keeps_its_own_line(run, other):
    settings = dataclasses.replace(run.analysis.settings, recalibrate=True)
    again = dataclasses.replace(run, analysis=dataclasses.replace(run.analysis, settings=settings))
    arrivals = external.open_arrivals(other, again)
    both, cache = together(again, arrivals)
    made = external.score(again, both, cache, FAST)
    own, line = experiment.recalibrated(run.predictions.query("arm == 'clinical_logistic'"))
    assert external.proof(own, made)["largest_difference"].max() <= external.TOLERANCE
    plain = external.score(run, both, cache, FAST)
    logit = [np.log(f["probability"] / (1 - f["probability"])) for f in (plain, made)]
    assert logit[1].to_numpy() == pytest.approx(
        (line["intercept"].iloc[0] + line["slope"].iloc[0] * logit[0]).to_numpy(), abs=1e-5
    )


# ------------------------------------------------------------------- what a dataset may lack


def test_arms_without_their_scans_or_columns_are_left_out_with_the_reason(
    run, frozen, tmp_path, few
):
    def change(table):
        return _others(table).drop(columns="hypertension")

    few = few[2:5]
    root = _copy(embedded_dataset(frozen), tmp_path / "centre", change, ids=few)
    for path in root.glob("sub-*/perf/*tmax*"):
        path.unlink()
    arrivals = external.open_arrivals(root, run)
    both, cache = together(run, arrivals)
    table = availability(run, arrivals, both, cache).set_index("arm")
    assert not table["applied"].any()
    assert table.at["clinical_logistic", "reason"] == "column 'hypertension' is missing"
    assert table.at["late", "reason"] == "column 'hypertension' is missing"
    assert "no patient has the scans" in table.at["imaging", "reason"]
    assert table.at["imaging", "left_out"] == len(few)
    with pytest.raises(InputError, match="arm 'daft' is not in the run"):
        availability(run, arrivals, both, cache, ["daft"])


def test_without_outcomes_patients_are_scored_and_nothing_is_judged(frozen, tmp_path, few):
    def change(table):
        return _others(table).drop(columns=["etici_final", "final_stenosis_pct", "rescue_type"])

    root = _copy(embedded_dataset(frozen), tmp_path / "centre", change, ids=few)
    given = {"cache": frozen.cache, "arms": FAST}
    out = external.apply_run(frozen.out, root, out=tmp_path / "out", **given)
    predictions = storage.read_csv(out / "predictions.csv")
    assert predictions["y_true"].isna().all() and predictions["probability"].between(0, 1).all()
    assert set(predictions["participant_id"]) == set(few)
    assert not (out / "tables" / "performance.csv").exists()
    assert (
        "outcome of nobody is known" in storage.read_json(out / "run.json")["applied"]["not_judged"]
    )
    checks = verify.verify_run(out)
    assert not (checks["verdict"] == "differ").any()
    with pytest.raises(InputError, match="--recalibrate: the outcome of nobody is known"):
        external.apply_run(frozen.out, root, out=tmp_path / "two", recalibrate=True, **given)


# ------------------------------------------------------------------------------ bad folders


def _edited(source, target, **changes):
    """A copy of a run folder with other entries in its run.json."""
    shutil.copytree(source, target)
    info = storage.read_json(target / "run.json")
    storage.write_json(target / "run.json", info | changes)
    return target


def test_a_folder_that_is_no_run_or_a_changed_one_is_refused(frozen, other, tmp_path, applied):
    given = {"cache": frozen.cache, "out": tmp_path / "out"}
    with pytest.raises(InputError, match="not a finished run folder"):
        external.apply_run(tmp_path, other, **given)
    with pytest.raises(InputError, match="is itself a run applied to other patients"):
        external.apply_run(applied, other, **given)
    for name in ("predictions.csv", "split.csv", "study.toml"):
        changed = _edited(frozen.out, tmp_path / name.replace(".", "_"))
        with open(changed / name, "a", encoding="utf-8") as handle:
            handle.write("\n")
        with pytest.raises(InputError, match=f"{name}: was changed since"):
            external.apply_run(changed, other, **given)
    broken = _edited(frozen.out, tmp_path / "broken")
    (broken / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="not readable"):
        external.apply_run(broken, other, **given)
    later = _edited(frozen.out, tmp_path / "later")
    info = storage.read_json(later / "run.json")
    storage.write_json(later / "run.json", info | {"settings": info["settings"] | {"moons": 2}})
    with pytest.raises(InputError, match="setting 'moons'"):
        external.apply_run(later, other, **given)


def test_the_development_data_must_be_those_of_the_run(frozen, other, tmp_path):
    given = {"cache": frozen.cache, "out": tmp_path / "out"}
    with pytest.raises(InputError, match="made with the embedded cohort"):
        external.apply_run(frozen.out, other, development=other, **given)
    info = storage.read_json(frozen.out / "run.json")
    own = _edited(frozen.out, tmp_path / "own", settings=info["settings"] | {"data": "mine"})
    with pytest.raises(InputError, match="allowed: --development DATASET"):
        external.apply_run(own, other, **given)
    with pytest.raises(InputError, match="participants.tsv is not that of the run"):
        external.apply_run(own, other, development=other, **given)
    with pytest.raises(InputError, match="does not exist"):
        external.apply_run(own, other, development=tmp_path / "absent", **given)


def test_simulated_and_real_are_never_mixed(frozen, other, tmp_path):
    real = _edited(frozen.out, tmp_path / "real", data="real")
    with pytest.raises(InputError, match="simulated patients are never taken for real"):
        external.apply_run(real, other, out=tmp_path / "out", cache=frozen.cache)


def test_a_dataset_with_faults_or_of_another_study_is_refused(run, frozen, tmp_path, few):
    def fault(table):
        table.loc[table.index[0], "age"] = "7x"
        return table

    root = _copy(embedded_dataset(frozen), tmp_path / "faulty", fault, ids=few)
    with pytest.raises(InputError, match="'7x' is not allowed; allowed: whole number"):
        external.open_arrivals(root, run)

    def strange(table):
        return table[["participant_id"]].assign(lesion_ml="3", mrs="4")

    root = _copy(embedded_dataset(frozen), tmp_path / "strange", strange, ids=few)
    with pytest.raises(InputError, match="column '.*' is missing"):
        external.open_arrivals(root, run)
    with pytest.raises(InputError, match="does not exist"):
        external.open_arrivals(tmp_path / "absent", run)


def test_nothing_of_the_users_is_written_over(frozen, other, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    for out, message in (
        (frozen.out, "is the run itself"),
        (tmp_path / "mine", "is not an earlier result of rlvo apply"),
        (tmp_path / "file", "a file is in the way"),
    ):
        with pytest.raises(InputError, match=message):
            external.apply_run(frozen.out, other, out=out, cache=frozen.cache)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_an_earlier_result_may_be_replaced(frozen, applied, tmp_path):
    writing.refuse_other_folder(applied, frozen.out)
    writing.refuse_other_folder(tmp_path, frozen.out)  # empty


def test_the_command_says_what_it_did(frozen, other, tmp_path, monkeypatch, capsys):
    words = ["rlvo", "apply", frozen.out, "--data", other, "--out", tmp_path / "out", "--cache",
             frozen.cache, "--arms", "clinical_logistic"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    assert said.startswith("SIMULATED DATA: run run applied to 40 patients"), said
    assert "largest difference" in said
    assert not (tmp_path / "out" / "tables" / "recalibration.csv").exists()


def test_the_command_explains_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rlvo", "apply", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().out
    assert not end.value.code and "Usage" in said and "--recalibrate" in said


def test_the_page_shows_the_committed_tables():
    page = project_root() / "docs" / "external.md"
    assert filled(page) == page.read_text("utf-8"), (
        "run: python -m rlvo_lib.report page docs/external.md"
    )
    assert page.read_text("utf-8").count("| simulated |") > 40


def test_a_dataset_folder_that_is_not_there_is_refused_at_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"data": "simulated"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"dataset folder .*nowhere does not exist"):
        external.apply_run(
            tmp_path / "run", tmp_path / "nowhere", out=tmp_path / "out", cache=tmp_path / "cache"
        )
