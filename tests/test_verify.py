"""Verification agrees with an untouched run, and finds each planted alteration."""

import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from made_run import finished_run

from rlvo_lib import figures, report, results, storage, verify
from rlvo_lib.config import InputError


@pytest.fixture(scope="session")
def untouched(tmp_path_factory, study):
    return finished_run(tmp_path_factory, study)


@pytest.fixture
def run(untouched, tmp_path):
    shutil.copytree(untouched, tmp_path / "run")
    return tmp_path / "run"


#: Tables of the light run: those that alterations are planted in, and those that they show in.
LIGHT = (
    "paper", "performance", "out_of_fold", "no_skill", "comparisons", "roc_points", "flow",
    "split_counts", "shap_importance", "ceiling", "history",
)  # fmt: skip


@pytest.fixture(scope="session")
def light_untouched(untouched, tmp_path_factory):
    """The run with some of its tables, and the pages that show these."""
    run = tmp_path_factory.mktemp("light") / "run"
    shutil.copytree(untouched, run)
    for path in (run / "tables").iterdir():
        if path.stem not in LIGHT:
            path.unlink()
    refit(run)
    report.write_index(run)
    assert found(run, but_digests=False).empty
    return run


@pytest.fixture
def light(light_untouched, tmp_path):
    shutil.copytree(light_untouched, tmp_path / "light")
    return tmp_path / "light"


@pytest.fixture
def bare(light):
    """The light run as it is before its pages are written."""
    for name in ("index.html", "pages.json", "claims.html"):
        (light / name).unlink()
    shutil.rmtree(light / "checklists")
    return light


def refit(run):
    """Record the digests of the small files as they are now."""
    info = storage.read_json(run / "run.json")
    storage.write_json(run / "run.json", info | {"files": report.digests(run)})


def found(run, *, but_digests=True):
    """What differs, leaving out the digests (which notice any change) unless asked for."""
    checks = verify.verify_run(run)
    wrong = checks[checks["verdict"] == "differ"]
    return wrong[wrong["what"] != "file content"] if but_digests else wrong


def test_an_untouched_run_agrees(untouched):
    start = time.perf_counter()
    checks = verify.verify_run(untouched)
    assert time.perf_counter() - start < 30
    assert list(checks.columns) == ["what", "where", "stored", "recomputed", "verdict"]
    assert not (checks["verdict"] == "differ").any()
    unchecked = checks[checks["verdict"] == "needs dataset"]
    assert list(unchecked["where"]) == ["tables/history.csv"]
    sources = checks.loc[checks["what"] == "figure source", "where"]
    assert list(sources) == [
        "figures/roc.png: tables/roc_points.csv", "figures/roc.png: tables/performance.csv",
    ]  # fmt: skip
    assert {"claims.html: table", "checklists/tripod_ai.csv", "checklists/tripod_ai.md"} <= set(
        checks["where"]
    )
    assert not (checks["verdict"] == "absent").any()
    agreed = set(checks["where"])
    assert {"index.html", "notebooks/01_cohort.html", "index.html: tables"} <= agreed
    agreeing = set(checks.loc[checks["what"] == "table", "where"])
    assert {f"tables/{name}.csv" for name in made_tables(untouched)} <= agreeing
    assert {"thresholds.csv", "claims.csv"} <= agreeing


def edit(path, change):
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    storage.write_csv(path, change(text))


def one_digit(text):
    """Change one digit in the middle of the first number with a fraction (or the last whole number)."""
    places = [m for m in re.finditer(r"\d+\.\d{2,}", text)] or [
        m for m in re.finditer(r"\d+", text)
    ]
    match = places[len(places) // 2]
    at = match.start() + min(4, len(match.group()) - 1)
    while not text[at].isdigit():
        at -= 1
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def made_tables(run):
    """The tables whose files a run made by hand holds: all but those of most explanations."""
    names = [n for n in verify.BUILDERS if (run / verify.NEEDS.get(n, "run.json")).exists()]
    assert {"performance", "shap_groups", "modality_shares", "consistency"} <= set(names)
    return names


def test_one_changed_digit_in_any_table_is_found(run):
    names = made_tables(run)
    for name in names:
        path = run / "tables" / f"{name}.csv"
        path.write_text(one_digit(path.read_text("utf-8")), encoding="utf-8")
    wrong = found(run)
    for name in names:
        here = wrong[
            (wrong["what"] == "table") & wrong["where"].str.startswith(f"tables/{name}.csv")
        ]
        assert len(here) == 1, name
        assert one_digit_apart(*here[["stored", "recomputed"]].iloc[0])


def one_digit_apart(a, b):
    return len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1


def test_one_changed_digit_in_a_rendered_table_is_found(bare):
    changed = set()
    for name in ("paper", "performance"):
        for suffix, mark in ((".html", "<tbody>"), (".tex", "midrule")):
            path = bare / "tables" / f"{name}{suffix}"
            head, body = path.read_text("utf-8").split(mark, 1)
            path.write_text(head + mark + one_digit(body), encoding="utf-8")
            changed.add(f"tables/{name}{suffix}")
    assert set(found(bare)["where"]) == changed


def swap(frame, a, b):
    return frame.assign(**{a: frame[b], b: frame[a]})


def first_row(frame, column, value):
    frame.loc[frame.index[0], column] = value
    return frame


def threshold_from_test(frame, run):
    """Thresholds of the test set's ensembles; the columns n, events and chosen_on as they were."""
    predictions = storage.read_csv(run / "predictions.csv")
    test = predictions[predictions["partition"] == "test"]
    means = test.groupby(["arm", "seed", "participant_id"], as_index=False).agg(
        {"y_true": "first", "probability": "mean"}
    )
    chosen = results.choose_thresholds(means.assign(partition="out-of-fold", fold=1))
    return frame.assign(threshold=chosen["threshold"].astype(str))


def rounded(frame, places):
    numbers = frame["probability"].astype(float).round(places)
    return frame.assign(probability=numbers.astype(str))


def swapped_names(frame, a, b):
    return frame.assign(arm=frame["arm"].replace({a: b, b: a}))


def shuffled_labels(frame):
    """The labels in another order, as many of each as before."""
    order = frame["participant_id"].drop_duplicates().tolist()
    label = frame.drop_duplicates("participant_id").set_index("participant_id")["y_true"]
    moved = dict(zip(order, label[order[::-1]], strict=True))
    return frame.assign(y_true=frame["participant_id"].map(moved))


@pytest.mark.parametrize(
    ("file", "change", "where"),
    [
        ("thresholds.csv", lambda f, r: threshold_from_test(f, r), "thresholds.csv: daft, seed 0"),
        ("thresholds.csv", lambda f, r: f.assign(n="47"), "thresholds.csv"),
        (
            "predictions.csv",
            lambda f, r: f[f["participant_id"] != "sub-0060"],
            ("tables/performance.csv", "predictions: daft / test"),
        ),
        ("predictions.csv", lambda f, r: f[f["arm"] != "ncct"], "predictions: ncct / test / 0 / 1"),
        ("predictions.csv", lambda f, r: swap(f, "seed", "fold"), "predictions"),
        ("predictions.csv", lambda f, r: first_row(f, "probability", "0.99999"), "out_of_fold.csv"),
        ("predictions.csv", lambda f, r: first_row(f, "probability", "1.5"), "predictions.csv"),
        ("predictions.csv", lambda f, r: first_row(f, "participant_id", "sub-9999"), "sub-9999"),
        ("predictions.csv", lambda f, r: first_row(f, "participant_id", "sub-0004"), "predictions.csv"),
        ("predictions.csv", lambda f, r: first_row(f, "partition", "test"), "patient sub-0000"),
        ("predictions.csv", lambda f, r: first_row(f, "fold", "2"), "patient sub-0000"),
        (
            "predictions.csv",
            lambda f, r: f.assign(y_true=f["y_true"].where(f["participant_id"] != "sub-0050", "1")),
            "patient sub-0050",
        ),
        ("predictions.csv", lambda f, r: swapped_names(f, "daft", "ncct"), "tables/performance.csv"),
        ("predictions.csv", lambda f, r: rounded(f, 2), "tables/performance.csv"),
        ("predictions.csv", lambda f, r: rounded(f, 6), "tables/roc_points.csv"),
        ("predictions.csv", lambda f, r: shuffled_labels(f), "predictions.csv: patient"),
        ("cohort.csv", lambda f, r: f[f["participant_id"] != "sub-0050"], "cohort"),
        ("split.csv", lambda f, r: first_row(f, "partition", "test"), "predictions.csv"),
        ("split.csv", lambda f, r: f.iloc[1:], "split: train"),
    ],
)  # fmt: skip
def test_alterations_are_found(bare, file, change, where):
    run = bare
    edit(run / file, lambda frame: change(frame, run))
    places = " ".join(found(run)["where"])
    for place in [where] if isinstance(where, str) else where:
        assert place in places


#: Alterations that can be told apart in one run: each is of another file, and of none that tables are made from.
TOGETHER = [
    {
        "tables/performance.csv": (lambda f: swap(f, "mean", "ensemble"), "clinical_logistic, auc: mean"),
        "tables/comparisons.csv": (lambda f: swap(f, "a", "b"), "imaging: a"),
        "tables/flow.csv": (lambda f: f.assign(data="real"), "assessed: data"),
        "claims.csv": (lambda f: f.assign(verdict="reproduced"), "imaging-auc: verdict"),
    },
    {
        "tables/performance.csv": (lambda f: swap(f, "low", "high"), "clinical_logistic, auc: low"),
        "tables/comparisons.csv": (lambda f: f.rename(columns={"p": "q"}), "columns"),
        "tables/flow.csv": (lambda f: f.iloc[::-1], "included: step"),
        "claims.csv": (lambda f: first_row(f, "published", "600"), "patients: published"),
    },
    {
        "tables/performance.csv": (lambda f: swapped_names(f, "daft", "ncct"), "arm"),
        "tables/comparisons.csv": (lambda f: f.assign(p="0.049"), "p"),
        "tables/out_of_fold.csv": (lambda f: f.iloc[:-1], "rows"),
        "claims.csv": (lambda f: f.assign(implied_high="0.99"), "patients: implied_high"),
        "tables/shap_importance.csv": (lambda f: f.iloc[::-1], "variable"),
    },
    {
        "tables/performance.csv": (lambda f: f.iloc[:-1], "rows"),
        "tables/no_skill.csv": (lambda f: f.assign(value="0.5"), "f1: value"),
        "claims.csv": (lambda f: f.assign(cell="printed"), "imaging-auc: cell"),
    },
]  # fmt: skip


@pytest.mark.parametrize("alterations", TOGETHER)
def test_altered_tables_are_found_at_their_place(bare, alterations):
    for file, (change, _) in alterations.items():
        edit(bare / file, change)
    wrong = found(bare)
    for file, (_, place) in alterations.items():
        here = wrong[wrong["where"].str.startswith(f"{file}: ")]["where"]
        assert here.str.endswith(place).any(), (file, list(here))


def test_an_altered_attribution_shows_in_its_table(bare):
    edit(bare / "attributions" / "shap.csv", lambda f: first_row(f, "shap", "3.0"))
    assert found(bare)["where"].str.startswith("tables/shap_importance.csv").any()


def test_a_threshold_chosen_on_the_test_set_is_called_so(bare):
    edit(bare / "thresholds.csv", lambda frame: threshold_from_test(frame, bare))
    wrong = found(bare)
    peeking = wrong[wrong["what"] == "threshold chosen on the test set"]
    stored = storage.read_csv(bare / "thresholds.csv").set_index("arm")["threshold"]
    assert len(peeking) >= 4  # an arm may have the same threshold on both
    for check in peeking.itertuples():
        arm = check.where.removeprefix("thresholds.csv: ").removesuffix(", seed 0")
        assert float(check.stored) == pytest.approx(stored[arm]) != float(check.recomputed)


def test_a_threshold_rule_changed_in_the_study_file_is_found(bare):
    text = (bare / "study.toml").read_text("utf-8")
    assert 'rule = "max-f1"' in text
    (bare / "study.toml").write_text(text.replace('rule = "max-f1"', 'rule = "youden"'), "utf-8")
    where = " ".join(found(bare, but_digests=False)["where"])
    assert "study.toml" in where and "thresholds.csv" in where


def redraw(run, name, sources):
    """Another figure under the same name, drawn from the named sources; the digests are made to fit."""
    report.save_figure(run, name, figures.canvas(3, 2), data="simulated", sources=sources)
    refit(run)


def test_a_changed_figure_is_found(bare):
    png = bare / "figures" / "roc.png"
    report.save_figure(bare, "roc", figures.canvas(3, 2), data="simulated")
    wrong = found(bare, but_digests=False)
    assert {"figures/roc.png", "figures/roc.svg"} <= set(wrong["where"])
    png.write_bytes(b"no picture")
    assert "not a readable PNG" in " ".join(found(bare)["recomputed"])


def test_a_figure_that_names_no_table_is_found_unless_it_shows_scans_or_training(bare):
    redraw(bare, "roc", ())
    redraw(bare, "mosaic_ncct", ())
    assert list(found(bare)["where"]) == ["figures/roc.png"]


def test_a_table_that_the_notebooks_make_may_not_be_missing(bare):
    for path in (bare / "tables").glob("comparisons.*"):
        path.unlink()
    refit(bare)
    assert "tables/comparisons.csv" in set(found(bare)["where"])


def test_a_figure_drawn_from_another_table_than_the_runs_is_found(bare):
    table = bare / "tables" / "roc_points.csv"
    kept = table.read_text("utf-8")
    table.write_text(one_digit(kept), encoding="utf-8")
    redraw(bare, "roc", ("roc_points",))
    table.write_text(kept, encoding="utf-8")
    refit(bare)
    wrong = found(bare)
    assert list(wrong["where"]) == ["figures/roc.png: tables/roc_points.csv"]
    table.unlink()
    assert "missing" in set(found(bare)["recomputed"])


def test_a_figure_drawn_from_a_changed_table_is_found_though_the_digests_fit(bare):
    table = bare / "tables" / "roc_points.csv"
    report.save_table(
        bare,
        "roc_points",
        storage.read_csv(table).assign(fpr=0.5),
        data="simulated",
        caption="ROC",
    )
    redraw(bare, "roc", ("roc_points",))
    wrong = found(bare)
    assert "figures/roc.png: tables/roc_points.csv" in set(wrong["where"])


#: What is replaced by what in a page, and where it is found though all digests were made to fit.
EDITED = {
    "claims.html": ('open">not reproducible', 'consistent">not reproducible', ""),
    "checklists/tripod_ai.md": ("to be written by the authors", "from the run", "tripod_ai.md"),
    "checklists/probast_ai.md": ("| E4.7 |", "| E4.8 |", "probast_ai.md"),
    "notebooks/01_cohort.html": ("Text with", "Text without", ""),
    "tables/paper.html": ("SIMULATED DATA. The paper", "The paper", "tables/paper.html"),
    "tables/comparisons.tex": ("SIMULATED DATA", "REAL DATA", "tables/comparisons.tex"),
}


def test_edited_pages_are_found(light):
    for file, (old, new, _) in EDITED.items():
        text = (light / file).read_text("utf-8")
        assert old in text, file
        (light / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert set(EDITED) <= set(found(light, but_digests=False)["where"])
    refit(light)
    storage.write_json(light / "pages.json", {"files": report.page_digests(light)})
    rest = set(found(light)["where"])
    for file, (_, _, where) in EDITED.items():
        if where:  # the others' colours and words are held by their digests alone
            assert any(where in place for place in rest), file


def test_another_verdict_or_value_on_the_page_of_the_ledger_is_found(light):
    page = light / "claims.html"
    text = page.read_text("utf-8")
    verdict = ">not reproducible without the cohort</td>"
    for old, new in ((">599</td>", ">600</td>"), (verdict, ">consistent</td>")):
        assert old in text
        text = text.replace(old, new, 1)
    page.write_text(text, encoding="utf-8")
    storage.write_json(light / "pages.json", {"files": report.page_digests(light)})
    wrong = found(light, but_digests=False)
    assert wrong["where"].str.startswith("claims.html: table").all()
    assert set(wrong["stored"]) == {"600", "consistent"}


def test_edited_checklists_are_found(light):
    edit(light / "checklists" / "tripod_ai.csv", lambda f: f.assign(status="from the run"))
    edit(light / "checklists" / "claim_2024.csv", lambda f: f.assign(evidence="run.json"))
    edit(light / "checklists" / "probast_ai.csv", lambda f: f.iloc[1:])
    where = set(found(light)["where"])
    places = ["tripod_ai.csv: 1: status", "claim_2024.csv: 1: evidence", "probast_ai.csv: rows"]
    assert {f"checklists/{place}" for place in places} <= where


def test_a_table_of_another_run_left_behind_is_found(bare):
    (bare / "tables" / "roc_points.tex").write_text("of a shorter table", encoding="utf-8")
    refit(bare)
    assert list(found(bare)["where"]) == ["tables/roc_points.tex"]


def test_at_least_twenty_alterations_are_planted():
    alone = test_alterations_are_found.pytestmark[0].args[1]
    assert len(alone) + sum(len(batch) for batch in TOGETHER) + len(EDITED) >= 35


def test_an_applied_runs_thresholds_are_held_by_the_digest_it_recorded(bare):
    info = storage.read_json(bare / "run.json")
    digest = storage.digest(bare / "thresholds.csv")
    storage.write_json(bare / "run.json", info | {"applied": {"thresholds": digest}})
    edit(bare / "thresholds.csv", lambda frame: frame.assign(threshold="0.5"))
    wrong = found(bare)
    assert "frozen thresholds" in set(wrong["what"])


def test_a_changed_age_shows_in_table_1(run):
    edit(run / "cohort.csv", lambda frame: first_row(frame, "age", "105"))
    assert found(run)["where"].str.startswith("tables/table1.csv").any()


def test_what_cannot_be_recomputed_is_held_by_its_digest(light):
    files = {"tables/history.csv", "figures/roc.png", "study.toml"}
    files |= {"attributions/maps/sub-0050_occlusion.nii.gz", "notebooks/01_cohort.ipynb"}
    files |= {"notebooks/01_cohort.html"}
    for file in files:
        with open(light / file, "ab") as handle:
            handle.write(b"\n# 1\n")
    assert files <= set(found(light, but_digests=False)["where"])


def test_a_missing_file_is_a_difference_not_a_crash(bare):
    (bare / "predictions.csv").unlink()
    (bare / "tables" / "flow.csv").unlink()
    wrong = found(bare, but_digests=False)
    assert {"predictions.csv", "tables/flow.csv"} <= set(wrong["where"])


def rewrite(run, old, new):
    """Change the page and its recorded digest: only the numbers can tell."""
    page = run / "index.html"
    text = page.read_text("utf-8")
    assert old in text
    page.write_text(text.replace(old, new, 1), encoding="utf-8")
    storage.write_json(run / "pages.json", {"files": report.page_digests(run)})


def test_a_changed_auc_on_the_page_is_found_though_its_digest_was_changed_too(light):
    paper = storage.read_csv(light / "tables" / "paper.csv")
    auc = paper.loc[1, "AUC, mean ± SD"]
    rewrite(light, auc, "0.99 ± 0.01")
    wrong = found(light, but_digests=False)
    assert len(wrong) == 1
    check = wrong.iloc[0]
    assert check["where"].startswith("index.html: table paper: ")
    assert (check["stored"], check["recomputed"]) == ("0.99 ± 0.01", auc)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("<b>72</b>", "<b>599</b>", "index.html: table the one from '72'"),
        ("SIMULATED DATA. The paper", "The paper", "index.html: table paper: caption"),
        (">not reproducible without the cohort<", ">consistent<", "index.html: table"),
        ("</main>", "<table><tr><td>0.99</td></tr></table></main>", "the one from '0.99'"),
    ],
)
def test_what_the_page_says_otherwise_is_found(light, old, new, where):
    rewrite(light, old, new)
    wrong = found(light)
    assert len(wrong) == 1 and where in wrong["where"].iloc[0]


def test_a_page_without_its_digests_and_digests_without_their_page(light):
    kept = (light / "pages.json").read_bytes()
    (light / "pages.json").unlink()
    assert list(found(light, but_digests=False)["where"]) == ["pages.json"]
    (light / "pages.json").write_bytes(kept)
    (light / "index.html").unlink()
    assert set(found(light, but_digests=False)["where"]) == {"index.html"}
    (light / "pages.json").write_text("{", encoding="utf-8")
    assert "pages.json" in set(found(light, but_digests=False)["where"])


def test_a_run_made_without_its_page_is_no_difference(light):
    (light / "index.html").unlink()
    (light / "pages.json").unlink()
    checks = verify.verify_run(light)
    absent = checks[checks["verdict"] == "absent"]
    assert list(absent["recomputed"]) == ["this run was made without its page"]
    assert not (checks["verdict"] == "differ").any()


def test_files_left_over_from_another_run_are_found(bare):
    stale = {
        "figures/old.pdf",
        "figures/more/old.png",
        "attributions/old.npy",
        "attributions/maps/sub-0001_occlusion.nii.gz",
    }
    for name in stale:
        (bare / name).parent.mkdir(exist_ok=True)
        (bare / name).write_bytes(b"1")
    (bare / "figures" / ".hidden").write_bytes(b"1")
    (bare / "attributions" / "shap.csv.lock").write_bytes(b"")
    wrong = found(bare, but_digests=False)
    assert set(wrong.loc[wrong["stored"] == "not recorded", "where"]) == stale
    left_over = wrong[wrong["what"] == "map"]
    assert list(left_over["where"]) == ["attributions/maps/sub-0001_occlusion.nii.gz"]
    (bare / "attributions" / "maps" / "sub-0050_occlusion.nii.gz").unlink()
    assert "not there" in set(found(bare)["stored"])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a finished run folder"):
        verify.verify_run(tmp_path)
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.json: not readable"):
        verify.verify_run(tmp_path)


def test_numbers_agree_to_a_billionth_and_whole_numbers_exactly(tmp_path):
    def differs(stored, recomputed):
        path = tmp_path / "t.csv"
        path.write_text(f"x,y\n{stored},1\n", encoding="utf-8")
        rows = verify.compare(path, pd.DataFrame({"x": [recomputed], "y": 1}), "t.csv")
        return rows[0][-1] == "differ"

    assert not differs("0.5000000000001", 0.5)
    assert differs("0.50000001", 0.5)
    assert differs("118", 117) and not differs("118", 118)
    assert differs("", 0.1) and not differs("", np.nan)
    assert differs("imaging", "imagine")


def test_a_frozen_cohort_that_was_edited_is_named(bare):
    edit(bare / "cohort.csv", lambda t: t.assign(age="77"))
    wrong = found(bare)
    assert (wrong["what"] == "frozen split").any()


def test_another_ceiling_than_the_tables_is_found(bare):
    path = bare / "ceiling.json"
    content = storage.read_json(path)
    content["arms"]["all"]["fitted"] = 0.71
    storage.write_json(path, content)
    wrong = found(bare, but_digests=False)
    cells = wrong[wrong["what"] == "table"]
    assert list(cells["where"]) == [
        "tables/ceiling.csv: concat: fitted", "tables/ceiling.csv: daft: fitted",
    ]  # fmt: skip
    assert set(cells["stored"]) == {"0.7"} and set(cells["recomputed"]) == {"0.71"}
    assert list(wrong.loc[wrong["what"] == "file content", "where"]) == ["ceiling.json"]


def test_an_unusable_or_missing_ceiling_is_a_difference_not_a_crash(bare):
    (bare / "ceiling.json").write_text('{"scenario": 1}', encoding="utf-8")
    assert "'scenario' is 1" in " ".join(found(bare)["recomputed"])
    (bare / "ceiling.json").unlink()
    wrong = found(bare)
    assert set(wrong["where"]) == {"tables/ceiling.csv", "claims.csv"}  # judged on all tables
    assert wrong["recomputed"].str.contains("ceiling.json: no such file").all()


def test_a_ceiling_in_a_run_of_real_patients_is_found(bare):
    info = storage.read_json(bare / "run.json")
    storage.write_json(bare / "run.json", info | {"data": "real"})
    wrong = found(bare)
    words = " ".join(wrong.loc[wrong["where"] == "tables/ceiling.csv", "recomputed"])
    assert "data is 'real'; allowed: simulated" in words


# ------------------------------------------------ alterations that leave a run in agreement with itself


def remake(run):
    """Make all tables again from the altered files, and all digests, counts and pages fit them."""
    made = verify.Run(run)
    for path in sorted((run / "tables").glob("*.csv")):
        if made.makes(path.stem):
            caption = report.read_caption(path.with_suffix(".html")).removeprefix(
                "SIMULATED DATA. "
            )
            report.save_table(
                run, path.stem, made.table(path.stem), data=made.data, caption=caption
            )
    info = storage.read_json(run / "run.json") | {"expected": report.expected_counts(run)}
    storage.write_json(run / "run.json", info | {"files": report.digests(run)})


@pytest.mark.parametrize(
    ("keep", "what"),
    [
        (lambda f: f["participant_id"] != "sub-0060", "everyone of the split is scored"),
        (
            lambda f: ~((f["participant_id"] == "sub-0060") & (f["arm"] == "clinical_logistic")),
            "everyone of the split is scored",
        ),
        (
            lambda f: ~((f["participant_id"] == "sub-0060") & (f["arm"] == "daft") & (f["fold"] == "2")),
            "scored by each model",
        ),
        (lambda f: ~((f["arm"] == "daft") & (f["fold"] == "2") & (f["partition"] == "test")), "a model of every fold"),
    ],
)  # fmt: skip
def test_who_is_left_out_everywhere_is_found(bare, keep, what):
    edit(bare / "predictions.csv", lambda f: f[keep(f)])
    remake(bare)
    wrong = found(bare)
    assert what in set(wrong["what"])
    assert set(wrong.loc[wrong["what"] == "table", "where"].str[:6]) <= {"claims"}


def test_seeds_other_than_those_of_the_settings_are_found(bare):
    info = storage.read_json(bare / "run.json")
    info["settings"]["training_seeds"] = [0, 1]
    storage.write_json(bare / "run.json", info)
    wrong = found(bare)
    assert set(wrong["what"]) == {"seeds are those of the settings"} and len(wrong) == 5


def test_simulated_patients_called_real_are_found(bare):
    info = storage.read_json(bare / "run.json")
    storage.write_json(bare / "run.json", info | {"data": "real"})
    assert "kind of data" in set(found(bare)["what"])


def test_infinity_is_not_near_a_number(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x\ninf\n", encoding="utf-8")
    assert verify.compare(path, pd.DataFrame({"x": [0.5]}), "t.csv")[0][-1] == "differ"
    path.write_text("x\n0.5\n", encoding="utf-8")
    assert verify.compare(path, pd.DataFrame({"x": [np.inf]}), "t.csv")[0][-1] == "differ"
    path.write_text("x\ninf\n", encoding="utf-8")
    assert verify.compare(path, pd.DataFrame({"x": [np.inf]}), "t.csv")[0][-1] == "agree"


def test_another_look_of_a_table_is_no_difference(bare):
    page = bare / "tables" / "paper.html"
    text = page.read_text("utf-8")
    assert 'class="short"' in text
    page.write_text(text.replace(' class="short"', ""), encoding="utf-8")
    assert found(bare).empty


def test_sentences_with_other_numbers_or_without_the_stamp_are_found(light):
    planted = {
        "index.html": ("<h3>How to read", "<p>AUC 0.99</p><h3>How to read"),
        "claims.html": ("<main>", "<main><p>AUC 0.99</p>"),
        "tables/paper.html": ("</main>", "<p>AUC 0.99</p></main>"),
        "tables/no_skill.html": ("<strong>SIMULATED DATA</strong>", "<strong>DATA</strong>"),
    }
    for file, (old, new) in planted.items():
        text = (light / file).read_text("utf-8")
        assert old in text
        (light / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    refit(light)
    storage.write_json(light / "pages.json", {"files": report.page_digests(light)})
    wrong = found(light)
    assert {where.split(": ")[0] for where in wrong["where"]} == set(planted)


def test_ledger_checklists_and_tables_that_are_missing_or_left_over_are_found(light):
    (light / "claims.csv").unlink()
    (light / "checklists" / "probast_ai.csv").unlink()
    (light / "checklists" / "other.md").write_text("AUC 0.99", encoding="utf-8")
    (light / "tables" / "old.html").write_text("<p>AUC 0.99</p>", encoding="utf-8")
    refit(light)
    storage.write_json(light / "pages.json", {"files": report.page_digests(light)})
    places = {"claims.csv", "checklists/probast_ai.csv", "checklists/other.md", "tables/old.html"}
    assert places <= set(found(light)["where"])
