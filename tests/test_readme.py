"""The README says what the code does."""

import json
import re
import shutil

import pytest

from rlvo_lib import report
from rlvo_lib.config import InputError, load_study, project_root
from rlvo_lib.notebooks import APPENDICES, NAMES
from rlvo_lib.report.reference import keep_reference, readme_part
from rlvo_lib.report.summary import TABLE, render_table

ROOT = project_root()
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_shown_is_that_of_the_reference_run():
    assert readme_part(ROOT / "reports" / "reference", "reports/reference") in README


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_notebook_and_module_is_named():
    for name in (*NAMES, *APPENDICES):
        assert f"notebooks/{name}.ipynb" in README
    modules = {p.stem for p in (ROOT / "rlvo_lib").iterdir() if p.suffix == ".py" or p.is_dir()}
    for module in modules - {"__init__", "__pycache__", "templates"}:
        assert f"`{module}`" in README, module


def test_every_arm_of_the_study_is_named():
    for arm in load_study("rlvo").arms:
        assert f"`{arm}`" in README, arm


def test_make_targets_that_are_named_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"make ([a-z-]+)", README):
        assert target in targets, target


def test_the_page_of_the_embedded_cohort_holds_the_committed_tables_and_no_others():
    page = (ROOT / "docs" / "embedded_cohort.md").read_text(encoding="utf-8")
    marks = list(TABLE.finditer(page))
    shown = [mark[2].rpartition("/")[2] for mark in marks]
    assert sorted(shown) == [
        "ceilings.csv", "cost.csv", "leaks.csv", "readings.csv", "scenarios.csv", "signal_rules.csv",
    ]  # fmt: skip
    for mark in marks:
        path = ROOT / "docs" / mark[2]
        table = render_table(path) if path.exists() else ""
        assert mark[0] == mark[1] + table + mark[3], "run: make simulation-checks"


def test_simulation_and_purpose_are_said_at_the_top():
    top = README[:2500]
    assert "SIMULATED" in top and "not a medical device" in top


def test_reference_stays_small():
    files = [p for p in (ROOT / "reports" / "reference").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 15e6


def test_a_run_of_real_patients_is_refused_as_reference(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(ROOT / "reports" / "reference", run)
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"data": "real"}))
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    with pytest.raises(InputError, match="holds real patients"):
        keep_reference(run, tmp_path / "reference", tmp_path / "README.md")
    (run / "index.html").unlink()
    with pytest.raises(InputError, match="not a finished run folder"):
        keep_reference(run, tmp_path / "reference", tmp_path / "README.md")
    assert not (tmp_path / "reference").exists()


def test_the_reference_page_is_stamped_and_offline():
    page = (ROOT / "reports" / "reference" / "index.html").read_text(encoding="utf-8")
    assert report.SIMULATED in page
    assert not re.search(r'(src|href)="(https?:)?//', re.sub(r'href="https://doi[^"]*"', "", page))
