"""Pages about single patients: what they say, of whom, and what is refused."""

import dataclasses
import functools
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import (
    casebook,
    experiment,
    explain,
    external,
    figures,
    report,
    results,
    storage,
    workers,
)
from rlvo_lib.analysis import open_analysis
from rlvo_lib.casebook import drivers, explaining
from rlvo_lib.cli import main
from rlvo_lib.config import InputError

ARMS = ("clinical_logistic", "ncct", "daft")


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Tasks without processes of their own, each of which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run", functools.partial(workers.run, spawn_from=1000))
        yield


@pytest.fixture(scope="module")
def finished(analysis, tensors, tmp_path_factory):
    """The settings of a finished run of the small cohort, which lies in their ``out``."""
    out = tmp_path_factory.mktemp("casebook") / "run"
    settings = dataclasses.replace(analysis.settings, out=out, arms=ARMS)
    opened = open_analysis(settings)
    predictions = experiment.run_arms(opened, tensors, list(ARMS))
    storage.write_csv(out / "predictions.csv", predictions)
    storage.write_csv(out / "thresholds.csv", results.choose_thresholds(predictions))
    report.write_provenance(
        out, settings=settings, study=settings.study, data="simulated",
        dataset=opened.fingerprint(tensors),
    )  # fmt: skip
    return settings


@pytest.fixture(scope="module")
def frozen(finished, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    return external.open_frozen(
        finished.out, development=None, cache=finished.cache, scratch=scratch
    )


@pytest.fixture(scope="module")
def cases(frozen):
    return casebook.open_cases(frozen)


@pytest.fixture(scope="module")
def tested(cases):
    return cases.patients.index[cases.patients["partition"] == "test"][0]


@pytest.fixture(scope="module")
def page(cases, frozen, tested):
    return casebook.render_patient(
        cases, tested, run=frozen.root, data="simulated", about=[("run", "run")]
    )


def _words(page):
    """A page's text without its pictures and tags."""
    page = re.sub(r"<style>.*?</style>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


# ------------------------------------------------------------------------------------- one patient


def test_a_patient_s_cases_are_those_of_the_predictions(cases, tested, frozen):
    own = frozen.predictions.query("arm == 'daft' and participant_id == @tested")
    assert cases.arm.name == "daft"
    assert cases.patients.at[tested, "probability"] == pytest.approx(own["probability"].mean())
    assert len(cases.models(tested)) == len(own) == 4
    threshold = frozen.thresholds.set_index("arm").at["daft", "threshold"]
    flagged = cases.patients["flagged"] == 1
    np.testing.assert_array_equal(flagged, cases.patients["probability"] >= threshold)


def test_a_training_patient_is_explained_by_the_one_model_that_did_not_see_them(cases):
    inside = cases.patients.index[cases.patients["partition"] == "out-of-fold"]
    for participant in inside[:5]:
        (task,) = cases.models(participant)
        parts = cases.analysis.fold_parts(task.fold, task.seed)
        assert participant in parts["held_out"]
        assert participant not in parts["train"] + parts["inner"]


def test_the_page_is_one_stamped_file_that_loads_nothing(page):
    words = _words(page)
    assert page.index("SIMULATED DATA") < page.index("<h1>")
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"/(tmp|root|home|work)/", words)


def test_the_page_says_what_was_predicted_and_what_that_means(cases, page, tested):
    words = _words(page)
    own = cases.patients.loc[tested]
    assert f"{own['probability']:.1%} predicted probability" in words
    assert f"{next(iter(cases.limits.values())):.1%} threshold of the run" in words
    assert ("at or above" if own["flagged"] else "is below") in words
    known = cases.study.outcome_label if own["y_true"] else cases.study.negative_label
    assert f"{known} what happened" in words
    assert "mean of the 4 fold models, none of which saw this test patient" in words
    assert "not a medical device" in words and "what moves the model" in words
    assert "holds no checks of its explanations" in words


def test_a_model_that_was_not_shown_to_discriminate_says_so(cases, frozen, tested):
    others = cases.others(tested)
    flat = others.assign(
        probability=np.linspace(0, 1, len(others)), y_true=[0, 1] * (len(others) // 2)
    )
    weak = dataclasses.replace(cases)
    weak.__dict__["patients"] = flat
    said = casebook.patient_page._discrimination(weak, tested)
    assert "was not shown to tell" in said and "may be noise" in said
    strong = others.assign(
        y_true=(np.arange(len(others)) > 3).astype(int), probability=np.arange(len(others)) + 0.0
    )
    strong.loc[strong.index[4], "probability"] = 2.5
    weak.__dict__["patients"] = strong
    assert "was not shown" not in casebook.patient_page._discrimination(weak, tested)


def test_clinical_values_add_up_and_are_named_in_words(cases, tested):
    tasks = cases.models(tested)
    found = drivers.clinical_values(cases.analysis, cases.tensors, tasks, tested)
    assert found["shap"].sum() + found["base"].iloc[0] == pytest.approx(
        found["logit"].iloc[0], abs=1e-3
    )
    logits = np.log(cases.scores(tested)["probability"] / (1 - cases.scores(tested)["probability"]))
    assert found["logit"].iloc[0] == pytest.approx(logits.mean(), abs=1e-4)
    assert found["shap"].abs().is_monotonic_decreasing
    age = found.set_index("variable").loc["age"]
    assert age["text"].startswith(f"{cases.analysis.dataset.table.at[tested, 'age']:.3g}")
    again = drivers.clinical_values(cases.analysis, cases.tensors, tasks, tested)
    pd.testing.assert_frame_equal(again, found)


def test_the_map_lies_on_the_patient_s_own_scan(cases, tested):
    values = np.zeros(cases.analysis.settings.grid_shape, np.float32)
    values[8, 10, 8] = 1
    scan, voxels, native, affine = drivers.on_scan(cases.analysis, cases.tensors, tested, values)
    assert (scan, voxels.shape) == ("ncct", native.shape)
    peak = affine @ [*np.unravel_index(native.argmax(), native.shape), 1]
    wanted = cases.tensors.affine(tested, "ncct") @ [8, 10, 8, 1]
    assert np.abs(peak - wanted)[:3].max() <= cases.analysis.settings.grid_spacing_mm


def test_a_flat_map_is_said_and_not_drawn(cases, tested, monkeypatch):
    shape = cases.analysis.settings.grid_shape
    monkeypatch.setattr(drivers, "image_map", lambda *_: np.zeros(shape, np.float32))
    part = explaining.drivers_part(cases, tested, "gradcam", None)
    assert len(part.beside) == 1, "the clinical variables alone"
    assert any("no gradient reaches the image" in words for words in part.text)


def test_an_arm_of_one_scan_has_neither_clinical_variables_nor_modalities(frozen, tested):
    ncct = casebook.open_cases(frozen, "ncct")
    ncct = dataclasses.replace(ncct, tasks=ncct.tasks[:1])  # one model is enough
    part = explaining.drivers_part(ncct, tested, "gradcam", None)
    assert any("sees no clinical variables" in words for words in part.text)
    assert len(part.beside) == 1
    assert explaining.modalities_part(ncct, tested) is None


# --------------------------------------------------------------------------------------- checks


def _checks(**verdicts):
    rows = [
        ("daft", method, check, verdict)
        for method, own in verdicts.items()
        for check, verdict in own.items()
    ]
    return pd.DataFrame(rows, columns=["arm", "method", "check", "verdict"])


def test_methods_that_fail_are_shown_as_failing_and_not_chosen():
    checks = _checks(
        gradcam={"weights": "fail", "pointing": "pass"},
        occlusion={"weights": "pass", "pointing": "not made"},
        edges={"weights": "pass"},
    )
    assert explaining.choose_method(checks) == "occlusion"
    assert explaining.choose_method(checks, "gradcam") == "gradcam"
    assert explaining.choose_method(None) == "occlusion"
    assert "used for no claim" in explaining.standing(checks, "gradcam")
    assert "failed none" in explaining.standing(checks, "occlusion")
    assert "control" in explaining.standing(checks, "edges")
    assert "was not checked" in explaining.standing(checks, "random")
    table = explaining.checks_part(checks).table.set_index("method")
    assert table.loc["Grad-CAM", "usable"] == "no" and table.loc["Occlusion", "usable"] == "yes"
    with pytest.raises(InputError, match="method is 'magic'; allowed: gradcam"):
        explaining.choose_method(checks, "magic")


def test_a_check_of_simulated_networks_is_not_called_one_of_this_run():
    checks = pd.DataFrame(
        {"arm": "daft", "method": "occlusion", "check": ["deletion", "learnt"],
         "verdict": ["pass", "fail"], "reason": [np.nan, f"{results.DATED}; more"], "data": "real"}
    )  # fmt: skip
    said = explaining.standing(checks, "occlusion")
    assert "(enrichment by learning (simulated networks))" in said
    table = explaining.checks_part(checks).table.set_index("method")
    assert table.loc["Occlusion", "passed"] == "deletion"
    assert table.loc["Occlusion", "failed"].endswith("(simulated networks)")


def test_checks_of_another_arm_are_not_taken_for_this_one_s(tmp_path):
    storage.write_csv(tmp_path / explaining.CHECKS_TABLE, _checks(gradcam={"weights": "pass"}))
    assert len(explaining.read_checks(tmp_path, "daft")) == 1
    assert explaining.read_checks(tmp_path, "imaging") is None


# ---------------------------------------------------------------------------------------- reads


def test_reads_are_shown_with_their_reliability_and_what_if(cases, tested, monkeypatch, tmp_path):
    reads = pd.DataFrame(
        {"participant_id": tested, "arm": "concepts", "part": ["read", "clinical"],
         "variable": ["siphon_calc", "age"], "value": [1.2, 70.0], "reading": ["severe", ""],
         "share": [0.8, np.nan], "contribution": [0.4, -0.1], "base": -1.0, "logit": -0.7}
    )  # fmt: skip
    what_if = pd.DataFrame(
        {"participant_id": tested, "arm": "concepts", "variable": ["siphon_calc"], "to": ["none"],
         "to_value": [np.nan], "before": [0.33], "after": [0.25], "change": [-0.08]}
    )  # fmt: skip
    monkeypatch.setattr(drivers, "concept_values", lambda *_: (reads, what_if))
    more = cases.predictions.query("arm == 'daft'").assign(arm="concepts")
    with_reads = dataclasses.replace(cases, predictions=pd.concat([cases.predictions, more]))
    quality = pd.DataFrame(
        {"concept": ["siphon_calc"], "measure": ["R2"], "value": [0.5], "reason": [""]}
    )
    storage.write_csv(tmp_path / "tables" / "reading.csv", quality)
    part = explaining.reads_part(with_reads, tested, tmp_path)
    assert part.table.iloc[0].tolist()[1:] == ["R2 0.50", "none", 0.25, -0.08]
    assert "33.0%" in part.text[0]
    labels = [t.get_text() for t in part.beside[0].figure.axes[0].get_yticklabels()]
    assert any("severe" in label and "R² 0.50" in label for label in labels)
    assert len(part.beside) == 2
    assert explaining.reads_part(cases, tested, tmp_path) is None


def test_reads_that_cannot_be_made_say_why(cases, tested, monkeypatch, tmp_path):
    def refused(*_):
        raise InputError("patient lacks a CTA")

    monkeypatch.setattr(drivers, "concept_values", refused)
    more = cases.predictions.query("arm == 'daft'").assign(arm="concepts")
    with_reads = dataclasses.replace(cases, predictions=pd.concat([cases.predictions, more]))
    part = explaining.reads_part(with_reads, tested, tmp_path)
    assert part.table is None and "cannot be asked: patient lacks a CTA" in part.text[0]


# ----------------------------------------------------------------------------------- bad input


def test_unknown_and_excluded_patients_are_refused_with_the_reason(cases, tested):
    with pytest.raises(InputError, match="participant is 'sub-9999'; allowed: one of the run's 40"):
        cases.require("sub-9999")
    frame = cases.analysis.frame.copy()
    own = frame["participant_id"] == tested
    frame.loc[own, ["included", "exclusion", "age"]] = ["0", "adult", "17"]
    other = dataclasses.replace(cases, analysis=dataclasses.replace(cases.analysis, frame=frame))
    with pytest.raises(
        InputError, match=r"is excluded from the run: not met: 18 years or older .*age: 17"
    ):
        other.require(tested)


def test_a_patient_who_lacks_a_modality_has_a_page_of_what_there_is(cases, frozen, tested):
    fewer = dataclasses.replace(cases)
    fewer.__dict__["lacking"] = {tested: "no tmax scan"}
    page = casebook.render_patient(fewer, tested, run=frozen.root, data="simulated")
    words = _words(page)
    assert "cannot score this patient: no tmax scan" in words
    label = cases.study.arms["clinical_logistic"].label
    assert f"{label} needs no scan." in words
    assert page.count("data:image") == 1 and f"of {tested} in {label}: SHAP values" in words
    assert not fewer.models(tested)


def test_arms_that_cannot_be_shown_are_refused(cases, frozen):
    study = cases.study
    with pytest.raises(
        InputError, match="arm 'clinical_logistic' is no network of scans and table"
    ):
        casebook.choose_arm(study, list(ARMS), "clinical_logistic")
    with pytest.raises(
        InputError, match="arm 'film' is not an arm of the run; allowed: ncct, daft"
    ):
        casebook.choose_arm(study, list(ARMS), "film")
    with pytest.raises(InputError, match="the run has no network"):
        casebook.choose_arm(study, ["clinical_logistic"])
    assert casebook.choose_arm(study, ["ncct"]).name == "ncct"


def _command(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["rlvo", "explain", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr()


def test_the_command_writes_a_page_beside_the_run(monkeypatch, capsys, finished, tested, page):
    code, said = _command(
        monkeypatch, capsys, finished.out, "--participant", tested, "--cache", finished.cache
    )
    assert code in (0, None), said.err
    written = finished.out.parent / "run-cases" / f"{tested}.html"
    assert str(written) in said.out.replace("\n", "")
    pictures = re.findall(r"base64,[^\"]+", written.read_text("utf-8"))
    assert pictures == re.findall(r"base64,[^\"]+", page), "the same patient, the same page"


def test_the_command_refuses_in_one_line(monkeypatch, capsys, finished, tmp_path, tested):
    code, said = _command(
        monkeypatch, capsys, finished.out, "--participant", "sub-9999", "--cache", finished.cache
    )
    assert code == 2 and said.err.count("\n") == 1 and "sub-9999" in said.err
    empty = tmp_path / "cache"
    shutil.copytree(finished.cache / "datasets", empty / "datasets")
    shutil.copytree(finished.cache / "tensors", empty / "tensors")
    code, said = _command(
        monkeypatch, capsys, finished.out, "--participant", tested, "--cache", empty
    )
    assert code == 2 and "the trained model of daft, fold 1" in said.err
    code, said = _command(monkeypatch, capsys, tmp_path, "--participant", tested)
    assert code == 2 and "not a finished run folder" in said.err


# --------------------------------------------------------------------------- wrong predictions


def test_wrong_predictions_are_on_the_wrong_side_largest_error_first(cases):
    wrong = casebook.wrong_cases(cases, shown=2)
    limit = next(iter(cases.limits.values()))
    missed = wrong[wrong["error"] == "false negative"]
    alarms = wrong[wrong["error"] == "false positive"]
    assert (missed["probability"] < limit).all() and (missed["y_true"] == 1).all()
    assert (alarms["probability"] >= limit).all() and (alarms["y_true"] == 0).all()
    assert missed["probability"].is_monotonic_increasing
    assert alarms["probability"].is_monotonic_decreasing
    tested = cases.patients[cases.patients["partition"] == "test"]
    flagged = tested["probability"] >= limit
    assert len(wrong) == (flagged != (tested["y_true"] == 1)).sum()
    assert wrong.groupby("error")["shown"].sum().max() <= 2


def test_the_page_of_wrong_predictions_lies_in_the_run(cases, finished):
    wrong = casebook.wrong_cases(cases, shown=1)
    shown = wrong[wrong["shown"]]
    assert len(shown)
    path = casebook.write_wrong_predictions(
        finished.out,
        cases.analysis,
        cases.tensors,
        cases.tasks[:1],
        predictions=cases.predictions,
        thresholds=cases.thresholds,
        data="simulated",
        method="gradcam",
        shown=1,
    )
    page = path.read_text("utf-8")
    assert path == finished.out / casebook.WRONG_PAGE
    assert page.count("data:image/png") == 2 * len(shown)
    assert re.findall(r'href="([^"]+)"', page) == ["index.html"]
    for row in shown.itertuples():
        assert f"{row.participant_id}, {row.error} 1 of {row.of}" in page
        assert f"{row.probability:.1%}" in page


# --------------------------------------------------------------------------------- parts, figures


def test_text_and_captions_are_escaped():
    figure = figures.canvas(2, 2)
    part = casebook.Part(
        "<h>", ["<script>x</script>"], [casebook.Picture(figure, 'a "b" <c>')],
        table=pd.DataFrame({"<t>": ["<u>"]}), caption="<v>",
    )  # fmt: skip
    page = casebook.render_page("<title>", [part], data="real")
    for bad in ("<script>x", "<h>", "<c>", "<t>", "<u>", "<v>", '"b"'):
        assert bad not in page
    assert "SIMULATED" not in page


def test_the_place_of_a_patient_shows_everybody_once():
    patients = pd.DataFrame(
        {"participant_id": list("abcde"), "y_true": [0, 0, 0, 1, 1], "probability": [0.1, 0.2, 0.3, 0.4, 0.5]}
    )  # fmt: skip
    figure = figures.place_in_distribution(
        patients, "d", threshold=0.35, models=pd.DataFrame({"probability": [0.38, 0.42]})
    )
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert lines["Without"][:, 0].tolist() == [0.1, 0.2, 0.3]
    assert lines["With the outcome"][:, 0].tolist() == [0.4, 0.5]
    assert set(lines["d"][:, 0]) == {0.4}
    ticks = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert ticks == ["Without (n = 3)", "With the outcome (n = 2)", "This patient's 2 models"]


def test_methods_of_the_page_are_those_of_the_package(cases, tested):
    with pytest.raises(InputError, match="method is 'cam'"):
        drivers.image_map(cases.analysis, cases.tensors, cases.tasks[:1], tested, "cam")
    assert set(explain.METHODS) >= {"gradcam", "occlusion", "integrated_gradients"}
