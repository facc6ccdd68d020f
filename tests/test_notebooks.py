"""The runner, and the hygiene of the committed notebooks."""

import json
import re

import nbformat
import pytest

from rlvo_lib import notebooks
from rlvo_lib.config import InputError, project_root

PATHS = sorted((project_root() / "notebooks").glob("*.ipynb"))


def test_the_six_notebooks_and_the_appendix_are_there():
    assert [path.stem for path in PATHS] == [*notebooks.NAMES, *notebooks.APPENDICES]
    assert notebooks.APPENDICES == ("appendix_embedded_cohort",)


def test_a_notebook_is_small_enough_to_be_committed():
    assert all(path.stat().st_size < 2e6 for path in PATHS)


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_one_parameters_cell_of_commented_literals(notebook):
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert not [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]
    for line in tagged[0].source.splitlines():
        assert re.fullmatch(r"\w+ = (\"[^\"]*\"|\{\})  # .+", line), line


def test_outputs_are_stored_and_come_from_a_clean_run(notebook):
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert sum(bool(c.outputs) for c in code) >= 5, "nbval compares nothing without outputs"
    assert "papermill" not in notebook.metadata
    for cell in code:
        assert "papermill" not in cell.metadata
        assert not [
            o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"
        ]


def test_no_addresses_paths_or_network_in_outputs(notebook):
    text = json.dumps([c.get("outputs", []) for c in notebook.cells])
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    for pattern in (r"0x[0-9a-f]{8,}", r"/(home|root|tmp|work|Users)/", r"https?://"):
        assert not re.search(pattern, text), pattern


def test_simulated_notebooks_say_so(notebook):
    text = json.dumps([c.get("outputs", []) for c in notebook.cells])
    assert "SIMULATED DATA" in text


def test_structure_of_each_notebook(notebook):
    words = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for part in ("# ", "**Question.**", "**In.**", "**Out.**", "## Checks", "## Saved",
                 "## What this means, and what it does not"):  # fmt: skip
        assert part in words
    assert all(len(c.source.splitlines()) <= 25 for c in notebook.cells if c.cell_type == "code")


def test_unknown_parameters_are_refused_before_anything_runs():
    with pytest.raises(
        InputError, match=r"has no parameter 'profil'; allowed: profile, study, data"
    ):
        notebooks.check_parameters(PATHS[0], {"profil": "smoke"})
    notebooks.check_parameters(PATHS[0], {"profile": "smoke", "overrides": {}})


def _tiny(tmp_path, monkeypatch, source):
    monkeypatch.setattr(notebooks, "source", lambda name: tmp_path / f"{name}.ipynb")
    cells = [nbformat.v4.new_code_cell("x = 1  # a number"), nbformat.v4.new_code_cell(source)]
    cells[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    nbformat.write(book, tmp_path / "tiny.ipynb")


def test_a_run_notebook_holds_neither_times_nor_paths(tmp_path, monkeypatch):
    _tiny(tmp_path, monkeypatch, "import sys; print(x); print('noi' + 'se', file=sys.stderr)")
    path = notebooks.run_one("tiny", tmp_path / "out", {"x": 5})
    text = path.read_text()
    assert '"5\\n"' in text and "noise" not in text
    assert "papermill" not in text.replace("injected-parameters", "") and str(tmp_path) not in text
    assert path.read_bytes() == notebooks.run_one("tiny", tmp_path / "out", {"x": 5}).read_bytes()


def test_a_failing_notebook_is_kept_apart_and_named(tmp_path, monkeypatch):
    _tiny(tmp_path, monkeypatch, "1 / 0")
    with pytest.raises(notebooks.NotebookError, match=r"notebook tiny, cell 2: ZeroDivisionError"):
        notebooks.run_one("tiny", tmp_path / "out", {})
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["tiny.failed.ipynb"]


def test_a_fault_of_the_input_comes_through_as_one_line(tmp_path, monkeypatch):
    code = "from rlvo_lib.config import InputError\nraise InputError('age 200; allowed: 0 to 120')"
    _tiny(tmp_path, monkeypatch, code)
    with pytest.raises(InputError, match=r"^age 200; allowed: 0 to 120$"):
        notebooks.run_one("tiny", tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_a_run_folder_is_cleared_of_an_earlier_run_and_another_folder_is_not(tmp_path):
    for name in ("cohort.csv", "split.csv", "run.json", "figures/old.png", "mine.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    notebooks.clear(tmp_path)  # no run wrote a notebook here: somebody's own folder
    assert (tmp_path / "figures" / "old.png").exists() and (tmp_path / "run.json").exists()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_cohort.ipynb").write_text("")
    notebooks.clear(tmp_path)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["cohort.csv", "mine.txt", "split.csv"]
