import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from rlvo_lib import storage
from rlvo_lib.cli import main
from rlvo_lib.config import SCENARIOS, project_root
from rlvo_lib.report.figure_files import read_sources


def rlvo(*arguments):
    """Run the command as a user does; returns exit status, output and error text."""
    code = "from rlvo_lib.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        env=None,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def rlvo_here(monkeypatch, capsys, *arguments):
    """The same in this process, where a test can change what the command meets."""
    monkeypatch.setattr(sys, "argv", ["rlvo", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0, *capsys.readouterr()


@pytest.mark.parametrize(
    "command",
    [
        "simulate",
        "validate",
        "reproduce",
        "evaluate",
        "apply",
        "verify",
        "train",
        "merge",
        "ablate",
    ],
)
def test_each_command_explains_itself(command):
    status, out, _ = rlvo(command, "--help")
    assert status == 0 and "Usage" in out and len(out) > 300


def test_one_line_and_status_2_for_what_cannot_be_done(tmp_path):
    (tmp_path / "file").write_text("")
    cases = [
        (["validate", tmp_path / "absent"], "does not exist"),
        (
            ["reproduce", "--profile", "quick"],
            "profile 'quick' is not known; allowed: smoke, demo, full",
        ),
        (["reproduce", "--data", tmp_path / "absent"], "does not exist"),
        (["reproduce", "--set", "data=x"], "--set data: not a setting"),
        (["reproduce", "--set", "training_seeds=x"], "at least one whole number"),
        (["simulate", tmp_path / "file" / "x", "--patients", "20"], "a file is in the way"),
        (["evaluate", tmp_path], "not a readable CSV table"),
        (["reproduce", "--set", "epoch=3"], "setting 'epoch' is not known"),
        (["reproduce", "--set", "epochs_max"], "allowed: NAME=VALUE"),
        (["verify", tmp_path], "not a finished run folder"),
        (["evaluate", tmp_path / "absent.csv"], "no such file"),
        (["reproduce", "--set", "scenario=moon"], "'scenario' is 'moon'; allowed: paper, null"),
    ]
    for arguments, message in cases:
        status, out, err = rlvo(*arguments)
        assert status == 2, arguments
        assert message in err and "Traceback" not in err + out, (arguments, err)
        assert err.count("\n") == 1 and err.startswith("rlvo: "), err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scenario", "moon"], "scenario is 'moon'; allowed: paper, null, signal, interaction"),
        (["--grid", "coarse"], "grid is 'coarse'; allowed: cohort, fine"),
        (["--patients", "0"], "patients is 0; allowed: 20 or more"),
        (["--patients", "1"], "patients is 1; allowed: 20 or more"),
        (["--patients", "19"], "patients is 19; allowed: 20 or more"),
        (["--prevalence", "0"], "prevalence is 0.0; allowed: between 0 and 1"),
        (["--prevalence", "0.999"], "prevalence is 0.999; allowed"),
        (["--cta-mm", "5"], "cta_mm is 5; allowed: 0.3 to 4 mm"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(
    tmp_path, monkeypatch, capsys, options, message
):
    status, _, err = rlvo_here(monkeypatch, capsys, "simulate", tmp_path / "x", *options)
    assert (status, err.count("\n")) == (2, 1) and err.startswith(f"rlvo: {message}"), err
    assert not (tmp_path / "x").exists()


def test_simulation_into_a_folder_in_use_or_a_full_disk_is_refused(tmp_path, monkeypatch, capsys):
    from rlvo_lib.simulate import dataset

    (tmp_path / "mine.txt").write_text("mine")
    status, _, err = rlvo_here(monkeypatch, capsys, "simulate", tmp_path)
    assert status == 2 and "holds something that is not a simulated dataset" in err
    monkeypatch.setattr(dataset.shutil, "disk_usage", lambda _: SimpleNamespace(free=700_000_000))
    status, _, err = rlvo_here(monkeypatch, capsys, "simulate", tmp_path / "x")
    assert (status, err.count("\n")) == (2, 1)
    assert "MB more and the disk has 700 MB free" in err and not (tmp_path / "x").exists()


def test_simulate_names_all_scenarios_and_passes_its_options_on(monkeypatch, capsys):
    from rlvo_lib import simulate

    _, out, _ = rlvo_here(monkeypatch, capsys, "simulate", "--help")
    unwrapped = "".join(out.split())
    for name, words in SCENARIOS.items():
        assert f"{name}({words})".replace(" ", "") in unwrapped
    asked = {}
    monkeypatch.setattr(simulate, "write_dataset", lambda out, **options: asked.update(options))
    rlvo_here(monkeypatch, capsys, "simulate", "x")
    assert (asked["patients"], asked["grid"], asked["cta_mm"]) == (599, "cohort", None)
    rlvo_here(monkeypatch, capsys, "simulate", "x", "--grid", "fine")
    assert (asked["patients"], asked["grid"]) == (20, "fine")
    options = "--patients 50 --prevalence 0.3 --test 20 --table-only --scenario shift --workers 3"
    status, out, err = rlvo_here(
        monkeypatch, capsys, "simulate", "x", "--cta-mm", "3", *options.split()
    )
    assert status == 0 and out == "SIMULATED DATA: 50 patients in x\n"
    assert asked == {
        "patients": 50, "seed": 2025, "scenario": "shift", "grid": "cohort", "prevalence": 0.3,
        "test": 20, "table_only": True, "cta_mm": 3.0, "workers": 3,
    }  # fmt: skip
    assert err.startswith("rlvo: warning: CTA voxels of 3 mm are too coarse") and "M1" in err


@pytest.mark.parametrize("command", ["train", "ablate"])
@pytest.mark.parametrize("shard", ["0/2", "3/2", "a/b", "2", "-1/2", "1/0", "1/2/3"])
def test_bad_shards_are_refused_before_anything_is_opened(monkeypatch, capsys, command, shard):
    status, _, err = rlvo_here(monkeypatch, capsys, command, f"--shard={shard}")
    assert (status, err.count("\n")) == (2, 1)
    assert f"--shard {shard}: allowed: I/N with whole numbers, I from 1 to N, e.g. 1/3" in err


def test_what_cannot_be_trained_ablated_or_merged_is_said_in_one_line(
    monkeypatch, capsys, tmp_path
):
    (tmp_path / "file").write_text("")
    for arguments, message in [
        (["train", "--arms", ","], "--arms ',': allowed: one or more names between commas"),
        (["train", "--set", "out=x"], "--set out: not a setting"),
        (["train", "--profile", "quick"], "profile 'quick' is not known"),
        (["ablate", "--groups", " "], "--groups ' ': allowed: one or more names"),
        (["ablate", "--shares", "0.5,x"], "--shares '0.5,x': allowed: numbers between commas"),
        (["merge", tmp_path / "file"], "holds no folder 'tasks'"),
    ]:
        status, _, err = rlvo_here(monkeypatch, capsys, *arguments)
        assert (status, err.count("\n")) == (2, 1) and message in err, (arguments, err)


@pytest.fixture
def opened(analysis, monkeypatch, tmp_path):
    """Every command opens the small simulated cohort, without its scans; tasks run in this process."""
    from rlvo_lib import workers
    from rlvo_lib.analysis import Analysis

    def open_small(settings):
        own = dataclasses.replace(analysis.settings, cache=settings.cache, out=settings.out)
        return dataclasses.replace(analysis, settings=own)

    monkeypatch.setattr("rlvo_lib.analysis.open_analysis", open_small)
    monkeypatch.setattr(Analysis, "tensors", lambda self: None)
    monkeypatch.setattr(workers, "run", lambda f, tasks, **_: [f(*task) for task in tasks])
    return tmp_path


def test_two_shards_are_trained_merged_and_found(opened, monkeypatch, capsys):
    def run(*arguments):
        status, out, err = rlvo_here(monkeypatch, capsys, *arguments)
        assert status == 0, err
        return out

    one, two = opened / "one", opened / "two"
    train = ["train", "--arms", "clinical_logistic"]
    out = run(*train, "--shard", "1/2", "--cache", one)
    assert "4 tasks, shard 1/2; plan " in out
    assert "2 run now" in out and "2 of 4 tasks are finished" in out
    assert "left: clinical_logistic" in out and "rlvo merge FOLDER...; then: rlvo reproduce" in out
    other = run(*train, "--shard", "2/2", "--cache", two)
    assert out.split("plan ")[1][:16] == other.split("plan ")[1][:16]
    assert "2 tasks copied, 0 were there already, 0 unfinished left out" in run(
        "merge", two, "--cache", one
    )
    out = run(*train, "--cache", one)
    assert "0 run now" in out and "all is done; next: rlvo reproduce" in out


def test_ablations_end_in_a_table_and_its_figures(opened, monkeypatch, capsys):
    command = ["ablate", "--arm", "clinical_logistic", "--groups", "patients"]
    paths = ["--cache", opened / "cache", "--out", opened / "made" / "a.csv"]
    _, out, _ = rlvo_here(monkeypatch, capsys, *command, *paths, "--shard", "1/2")
    assert "8 of 16 tasks are finished" in out and not (opened / "made").exists()
    status, out, err = rlvo_here(monkeypatch, capsys, *command, *paths)
    assert status == 0 and "8 run now" in out, err
    table = storage.read_csv(opened / "made" / "a.csv")
    shares = ["share_25", "share_50", "share_75"]
    assert table["variant"].tolist() == ["base", "base", *shares, *shares]
    assert table.loc[table["arm"] == "clinical_logistic", "auc"].between(0, 1).all()
    assert table.loc[table["arm"] == "concepts", "auc"].isna().all()  # no scans, and says so
    assert (opened / "made" / "figures" / "learning_curve.svg").exists()
    found = storage.read_csv(opened / "made" / "extrapolation.csv")
    assert set(found["arm"]) == {"clinical_logistic"} and set(found["data"]) == {"simulated"}
    assert found["patients"].unique().tolist() == [300, 618, 1500, 5000]
    points = storage.read_csv(opened / "made" / "learning_curve.csv")
    assert len(points) == 4 and points["auc"].iloc[-1] == table["auc"].iloc[0]
    for name in ("ablations", "extrapolation", "learning_curve", "learning_bands"):
        header = "a" if name == "ablations" else name
        columns = storage.read_csv(opened / "made" / f"{header}.csv").columns
        assert "participant_id" not in columns and columns[-1] == "data"
    picture = opened / "made" / "figures" / "learning_curve_extrapolated.svg"
    assert "SIMULATED DATA" in picture.read_text(encoding="utf-8")


def test_too_few_shares_give_points_and_no_extrapolation(opened, monkeypatch, capsys):
    command = ["ablate", "--arm", "clinical_logistic", "--groups", "patients", "--shares", "0.5"]
    paths = ["--cache", opened / "cache", "--out", opened / "made" / "a.csv"]
    status, out, err = rlvo_here(monkeypatch, capsys, *command, *paths)
    assert status == 0, err
    assert "no extrapolation of clinical_logistic: 2 sizes; needed: at least 4 (--shares)" in out
    assert len(storage.read_csv(opened / "made" / "learning_curve.csv")) == 2
    assert not (opened / "made" / "extrapolation.csv").exists()


def test_a_wrong_option_has_status_2():
    assert rlvo("verify")[0] == 2
    assert rlvo("verify", "--nope", "x")[0] == 2


@pytest.fixture
def raw(raw):
    """Eight patients whose columns also agree with each other."""
    return raw.assign(ivt_pre="0", access_failure="0", n_passes="1")


def test_validate_lists_all_faults_and_writes_json(raw, write_dataset, tmp_path):
    raw.loc["sub-01", "age"], raw.loc["sub-02", "sex"] = "200", "x"
    root = write_dataset(raw)
    status, out, _ = rlvo("validate", root, "--json", tmp_path / "faults.json")
    assert status == 1
    row = next(line for line in out.splitlines() if "sub-01" in line)
    assert row.split()[:3] == ["error", "sub-01", "age"]
    assert "Age: '200' is not allowed" in row and "whole number 0 to 120" in row
    assert "2 errors, 0 warnings" in out
    faults = json.loads((tmp_path / "faults.json").read_text())
    assert [fault["participant_id"] for fault in faults] == ["sub-01", "sub-02"]


def test_validate_says_when_all_is_well(raw, write_dataset):
    status, out, _ = rlvo("validate", write_dataset(raw))
    assert status == 0 and "0 errors, 0 warnings" in out


@pytest.fixture
def judged(tmp_path, monkeypatch, capsys):
    """Write a CSV and evaluate it with few resamples."""

    def evaluate(text, *options):
        path = tmp_path / "p.csv"
        path.write_text(text) if isinstance(text, str) else storage.write_csv(path, text)
        return rlvo_here(monkeypatch, capsys, "evaluate", path, "--resamples", "20", *options)

    return evaluate


def _predictions(n=60):
    events = [1, 0, 0] * (n // 3)
    risk = [0.1 + 0.8 * ((7 * k + 5 * e) % 13) / 13 for k, e in enumerate(events)]
    frame = pd.DataFrame({"patient_id": [f"p{k}" for k in range(n)], "died": events, "risk": risk})
    return frame.assign(other=[(k * 5 % 11) / 11 for k in range(n)], sex=["F", "M"] * (n // 2))


def test_evaluate_any_csv(tmp_path):
    frame = pd.DataFrame({"outcome": [0, 0, 1, 1, 0, 1], "risk": [0.1, 0.4, 0.35, 0.8, 0.2, 0.7]})
    storage.write_csv(tmp_path / "p.csv", frame)
    status, out, _ = rlvo(
        "evaluate", tmp_path / "p.csv", "--truth", "outcome", "--score", "risk",
        "--json", tmp_path / "e.json", "--resamples", "50",
    )  # fmt: skip
    assert status == 0
    assert "risk: n 6, events 3 (50.0 %)" in out and "flagging everyone 0.667" in out
    written = json.loads((tmp_path / "e.json").read_text(), parse_constant=pytest.fail)
    table = pd.DataFrame(written["evaluation"])
    auc = table[(table["score"] == "risk") & (table["metric"] == "auc")]["value"].iloc[0]
    assert auc == pytest.approx(8 / 9)
    assert (written["resamples"], written["file"]) == (50, "p.csv")
    status, _, err = rlvo("evaluate", tmp_path / "p.csv", "--truth", "nope")
    assert status == 2 and "nope" in err and "Traceback" not in err


def test_evaluate_compares_scores_and_writes_tables_figures_and_a_page(judged, tmp_path):
    status, out, err = judged(
        _predictions(), "--truth", "died", "--threshold", "risk=0.5", "--by", "sex",
        "--data", "simulated", "--out", tmp_path / "out",
    )  # fmt: skip
    assert status == 0, err
    assert out.startswith("SIMULATED DATA: p.csv\n")
    assert "patients told apart by column 'patient_id'" in out
    assert "F1, score >= 0.5 " in out and "threshold given, chosen elsewhere" in out
    assert "threshold of maximal F1, chosen on these same patients: optimistic" in out
    assert "risk, sex F: n 30, events 10, AUC" in out and "risk - other: " in out
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("SIMULATED DATA") > 10 and "http" not in page
    for name in ("roc", "precision_recall", "calibration", "decision_curve", "risk_by_outcome"):
        assert f'src="figures/{name}.png"' in page
        assert (tmp_path / "out" / "figures" / f"{name}.svg").exists()
    sources = read_sources(tmp_path / "out" / "figures" / "roc.png")
    assert list(sources) == [f"tables/{t}.csv" for t in ("roc_points", "roc_band", "evaluation")]
    table = storage.read_csv(tmp_path / "out" / "tables" / "evaluation.csv")
    assert set(table["data"]) == {"simulated"} and set(table["score"]) == {"risk", "other"}
    assert len(list((tmp_path / "out" / "tables").glob("*.csv"))) == 15


def test_evaluate_of_what_is_no_probability_needs_no_calibration(judged, tmp_path):
    frame = _predictions().assign(risk=lambda t: 100 * t["risk"])[["died", "risk"]]
    status, out, err = judged(
        frame, "--truth", "died", "--score", "risk", "--out", tmp_path / "out"
    )
    assert status == 0, err
    assert "not rescaled; if they are percent, divide by 100): discrimination only" in out
    assert "calibration slope" not in out
    assert not (tmp_path / "out" / "figures" / "calibration.png").exists()


def test_evaluate_reads_words_commas_and_gaps_and_says_so(judged):
    text = "case;dead;risk\n1;yes;0,9\n2;no;0,1\n3;yes;0,4\n4;no;0,5\n5;;0,5\n6;no;\n"
    status, out, err = judged(text, "--truth", "dead", "--event", "yes", "--score", "risk", "--id", "case")  # fmt: skip
    assert status == 0, err
    for words in (
        "rows: 6, separator: semicolon", "column 'risk': decimal commas read as points",
        "patients told apart by column 'case'", "outcome 'dead': 'yes' is the event, 'no' none",
        "rows without an outcome, left out: 1", "rows without 'risk', left out of it: 1",
        "risk: n 4, events 2 (50.0 %)",
    ):  # fmt: skip
        assert words in out


def test_evaluate_believes_a_column_that_says_simulated(judged):
    frame = _predictions().assign(data="simulated")
    _, out, _ = judged(frame, "--truth", "died")
    assert out.startswith("SIMULATED DATA") and "column 'data' says so" in out
    status, _, err = judged(frame, "--truth", "died", "--data", "real")
    assert status == 2 and "--data real: column 'data' of the table says simulated" in err
    mixed = frame.assign(data=["simulated", "real"] * 30)
    assert judged(mixed, "--truth", "died")[0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--truth", "dead"], "column 'dead' is not in the table; its columns: patient_id, died"),
        (["--score", "nope"], "column 'nope' is not in the table"),
        (["--score", "sex"], "column 'sex', row 2: 'F'; allowed: finite numbers"),
        (["--score", "died"], "column 'died' is given both as outcome and as score"),
        (["--truth", "sex"], "outcome 'sex' holds 'F', 'M'; allowed: 0 and 1, or True and False"),
        (["--event", "yes"], "--event yes: outcome 'died' holds '0', '1'"),
        (["--id", "sex"], "patient 'F' (column 'sex') has 30 rows, first 2 and 4"),
        (["--by", "risk"], "column 'risk' has 13 different values; allowed: at most 12"),
        (["--by", "age"], "column 'age' is not in the table"),
        (["--threshold", "high"], "--threshold high: allowed: a number, or COLUMN=NUMBER"),
        (["--threshold", "nan"], "--threshold nan: allowed: a number"),
        (["--threshold", "age=0.5"], "--threshold age=0.5: allowed: one of the scores risk, other"),
        (["--threshold", "0.5", "--threshold", "risk=0.4"], "another threshold already"),
        (["--data", "fake"], "--data fake: allowed: real or simulated"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_said_in_one_line(judged, options, message):
    truth = [] if "--truth" in options else ["--truth", "died"]
    status, out, err = judged(_predictions(), *truth, *options)
    assert (status, err.count("\n"), out) == (2, 1, "") and message in err, err


def test_evaluate_sends_a_runs_own_predictions_to_verify(monkeypatch, capsys):
    run = project_root() / "reports" / "reference"
    status, _, err = rlvo_here(monkeypatch, capsys, "evaluate", run / "predictions.csv")
    assert status == 2 and "has a row for each model (arm, seed, fold, partition)" in err
    assert "rlvo verify RUN" in err and err.count("\n") == 1
    status, _, err = rlvo_here(monkeypatch, capsys, "evaluate", run)
    assert (
        status == 2 and "it is a folder (a run? its numbers are recomputed by `rlvo verify`)" in err
    )


def test_the_reference_run_is_a_finished_run():
    info = json.loads((project_root() / "reports" / "reference" / "run.json").read_text())
    assert info["data"] == "simulated"
