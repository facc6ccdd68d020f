"""Reporting checklists: filled from the run, every pointer leads somewhere, the rest is the authors'."""

import re
import shutil

import pytest
from made_run import finished_run

from rlvo_lib import report, storage
from rlvo_lib.report.checklists import (
    ABSENT,
    AUTHORS,
    CHECKLISTS,
    FROM_RUN,
    IN_PART,
    POINTED,
    checklists,
)
from rlvo_lib.report.run_facts import facts


@pytest.fixture(scope="module")
def made(tmp_path_factory, study):
    return finished_run(tmp_path_factory, study)


@pytest.fixture(scope="module")
def filled(made):
    return {name: table.set_index("item") for name, table in checklists(made).items()}


def numbered(last):
    return [str(k) for k in range(1, last + 1)]


def test_every_item_is_there_once(filled):
    assert {name: len(table) for name, table in filled.items()} == {
        "tripod_ai": 52, "claim_2024": 44, "probast_ai": 34,
    }  # fmt: skip
    assert all(table.index.is_unique for table in filled.values())
    bare = [re.match(r"\d+", item).group() for item in filled["tripod_ai"].index]
    assert list(dict.fromkeys(bare)) == numbered(27)
    assert list(filled["claim_2024"].index) == numbered(44)
    parts = filled["probast_ai"]["section"].value_counts()
    assert parts.to_dict() == {"Development": 16, "Evaluation": 18}


def test_only_tripod_has_words_of_ours(filled):
    assert (filled["tripod_ai"]["topic"] != "").all()
    for name in ("claim_2024", "probast_ai"):
        assert (filled[name][["topic", "answer"]] == "").all(axis=None)
        assert "not at hand" in CHECKLISTS[name][1]


def test_every_item_has_a_status_and_nobody_answers_for_the_authors(filled):
    answered = {name: set(table["status"]) for name, table in filled.items()}
    assert answered["tripod_ai"] <= {FROM_RUN, IN_PART, AUTHORS, ABSENT}
    for name in ("claim_2024", "probast_ai"):  # nobody judges for the reader
        assert answered[name] <= {POINTED, AUTHORS, ABSENT}
    for table in filled.values():
        assert (table.loc[table["status"] == AUTHORS, "authors"] != "").all()
        assert (table.loc[table["status"] == AUTHORS, "answer"] == "").all()
        assert (
            table.loc[table["status"].isin([FROM_RUN, IN_PART, POINTED]), "evidence"] != ""
        ).all()
    tripod = filled["tripod_ai"]["status"]
    for item in ("1", "2", "17", "18a", "18b", "18d", "19", "25", "26", "27c"):
        assert tripod[item] == AUTHORS


def test_every_pointer_leads_to_a_file_and_a_cell_of_the_run(made, filled):
    pointers = {p for t in filled.values() for e in t["evidence"] for p in e.split("; ") if p}
    assert {"study.toml", "tables/flow.csv", "figures/roc.png"} <= pointers
    assert "notebooks/01_cohort.html#cell-id=make-0" in pointers  # where the flow is made
    for pointer in pointers:
        file, _, anchor = pointer.partition("#")
        assert (made / file).is_file(), pointer
        if anchor:
            assert f'id="{anchor}"' in (made / file).read_text("utf-8"), pointer
    for name in CHECKLISTS:
        text = (made / "checklists" / f"{name}.md").read_text("utf-8")
        for link in re.findall(r"\]\((.*?)\)", text):
            assert (made / "checklists" / link.split("#")[0]).is_file(), link


def test_answers_are_the_runs_numbers(made, filled):
    answers = filled["tripod_ai"]["answer"]
    assert answers["20a"] == "73 assessed, 72 included, 18 with the outcome"
    assert answers["21"].startswith("training part: 48 patients, ")
    assert answers["8a"].startswith("Refractory LVO: any of final stenosis > 50 %; eTICI 0–2a; ")
    assert answers["5b"] == "admitted 2020"
    assert answers["15"].endswith("by the rule max-f1 on the out-of-fold predictions")
    auc = storage.read_csv(made / "tables" / "performance.csv").query("metric == 'auc'")
    daft = auc.set_index("arm").loc["daft"]
    words = f"DAFT {daft['ensemble']:.3f} [{daft['low']:.3f}, {daft['high']:.3f}]"
    assert words in answers["23a"]
    assert not any("{" in answer for answer in answers)


def test_what_a_run_lacks_is_not_claimed(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "run")
    for path in [*(run / "tables").iterdir(), run / "cohort.csv", run / "thresholds.csv"]:
        path.unlink()
    shutil.rmtree(run / "notebooks")
    known = facts(run)
    assert not {"assessed", "years", "missing", "performance", "parts"} & set(known)
    tripod = checklists(run)["tripod_ai"].set_index("item")
    assert tripod.loc["20a", "status"] == ABSENT and tripod.loc["20a", "answer"] == ""
    assert tripod.loc["15", "status"] == ABSENT
    assert tripod.loc["8a", "status"] == IN_PART  # the study file says it
    assert not tripod["evidence"].str.contains("tables/|notebooks/").any()


def test_simulated_patients_document_the_software_and_real_ones_a_study(made, tmp_path):
    for name, (title, _) in CHECKLISTS.items():
        text = (made / "checklists" / f"{name}.md").read_text("utf-8")
        assert text.startswith(f"# {title}\n\n**SIMULATED DATA.** ")
        assert "documents the software, not a study" in text
        assert set(storage.read_csv(made / "checklists" / f"{name}.csv")["data"]) == {"simulated"}
    table = checklists(made)["tripod_ai"].assign(data="real")
    assert "SIMULATED" not in report.render_checklist("tripod_ai", table.head(3))
    run = shutil.copytree(made, tmp_path / "run")
    info = storage.read_json(run / "run.json") | {"data": "real"}
    storage.write_json(run / "run.json", info)
    assert "sharing" not in facts(run)


def test_the_page_counts_the_items(made, filled):
    text = (made / "index.html").read_text("utf-8")
    part = text[text.index('id="checklists"') :]
    for name, (title, _) in CHECKLISTS.items():
        written = int((filled[name]["status"] == AUTHORS).sum())
        row = part[part.index(f">{title}<") :].split("</tr>")[0]
        assert f">{len(filled[name])}<" in row and f">{written}<" in row
        assert f'checklists/{name}.md"' in part


def test_the_same_run_gives_the_same_bytes(made):
    before = {p.name: p.read_bytes() for p in (made / "checklists").iterdir()}
    report.write_checklists(made)
    assert before == {p.name: p.read_bytes() for p in (made / "checklists").iterdir()}
    assert len(before) == 6


def test_how_a_split_was_drawn_that_came_with_the_dataset_is_not_claimed(study, tmp_path):
    from rlvo_lib.report.run_facts import _given_design

    assert _given_design(tmp_path, study) == ""
    storage.write_json(tmp_path / "split.json", {"plan": {"seed": 0}})
    assert _given_design(tmp_path, study) == ""
    storage.write_json(tmp_path / "split.json", {"plan": {"given": "abc"}})
    words = _given_design(tmp_path, study)
    assert "not recorded" in words and "random" not in words and "4 folds" in words
