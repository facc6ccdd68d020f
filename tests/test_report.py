"""Tables, figures, provenance and pages on disk: same bytes, stamped, escaped, relative, offline."""

import html.parser
import json
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from made_run import make_run

from rlvo_lib import figures, report, storage
from rlvo_lib.config import InputError

FRAME = pd.DataFrame({"arm": ["daft", "<b>&_%$"], "auc": [0.123456789, np.nan], "n": [118, 0]})
WORDS = "AUC of <everything> & more. Second sentence."


@pytest.fixture(scope="module")
def made(tmp_path_factory, study):
    run = make_run(tmp_path_factory.mktemp("page") / "run", study)
    cells = [
        nbformat.v4.new_markdown_cell("# Cohort: who <is> in it?\n\nText with `code`."),
        nbformat.v4.new_code_cell(
            "print('<b>')", execution_count=1,
            outputs=[nbformat.v4.new_output("stream", name="stdout", text="<script>alert(1)</script>")],
        ),
        nbformat.v4.new_code_cell("1 + 1", execution_count=2, outputs=[
            nbformat.v4.new_output("execute_result", {"image/png": "iVBORw0KGgo=", "text/plain": "2"}, execution_count=2),
        ]),
    ]  # fmt: skip
    (run / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run / "notebooks" / "01_cohort.ipynb")
    report.write_index(run)
    return run


class Links(html.parser.HTMLParser):
    """Collects every address in a page, and complains of tags that do not close."""

    EMPTY = ("meta", "img", "br", "hr", "input", "link")

    def __init__(self, path):
        super().__init__()
        self.links, self.open = [], []
        self.feed(path.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [v for k, v in attributes if k in ("href", "src")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.EMPTY:
            return
        assert self.open.pop() == tag


def test_a_table_is_saved_in_three_forms(tmp_path):
    path = report.save_table(tmp_path, "performance", FRAME, data="simulated", caption=WORDS)
    assert path == tmp_path / "tables" / "performance.csv"
    back = storage.read_csv(path)
    assert list(back.columns) == ["arm", "auc", "n", "data"] and set(back["data"]) == {"simulated"}
    assert back["auc"][0] == 0.123456789
    page = path.with_suffix(".html").read_text("utf-8")
    assert "SIMULATED DATA" in page and "<b>&" not in page and "&lt;b&gt;&amp;_%$" in page
    assert '<td class="number">0.123</td>' in page and '<td class="number">–</td>' in page
    assert report.read_caption(path.with_suffix(".html")) == f"SIMULATED DATA. {WORDS}"
    tex = path.with_suffix(".tex").read_text("utf-8")
    assert r"\caption{SIMULATED DATA. AUC of <everything> \& more. Second sentence.}" in tex
    assert r"<b>\&\_\%\$ & – & 0 \\" in tex


def test_a_table_of_real_patients_is_not_stamped(tmp_path):
    path = report.save_table(tmp_path, "performance", FRAME, data="real", caption=WORDS)
    for suffix in (".csv", ".html", ".tex"):
        assert "SIMULATED" not in path.with_suffix(suffix).read_text("utf-8")
    assert set(storage.read_csv(path)["data"]) == {"real"}


@pytest.mark.parametrize(
    ("name", "frame", "data", "words"),
    [
        ("a/b", FRAME, "real", "table name 'a/b'"),
        ("a", FRAME, "synthetic", "data is 'synthetic'; allowed: simulated, real"),
        (
            "a",
            FRAME.assign(data="simulated"),
            "real",
            "column 'data' holds .*; this run's is 'real'",
        ),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, name, frame, data, words):
    with pytest.raises(InputError, match=words):
        report.save_table(tmp_path, name, frame, data=data, caption="")
    assert not list(tmp_path.rglob("*.csv"))


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    def save(folder):
        figure = figures.missingness_bars(pd.DataFrame({"variable": ["hir"], "share": [0.2]}))
        return report.save_figure(
            tmp_path / folder, "missing", figure, data="simulated", caption="Missing"
        )

    first, second = save("a"), save("b")
    for suffix in (".png", ".svg"):
        content = first.with_suffix(suffix).read_bytes()
        assert content == second.with_suffix(suffix).read_bytes()
    assert b"SIMULATED DATA. Missing" in first.with_suffix(".svg").read_bytes()
    real = figures.canvas(3, 2)
    report.save_figure(tmp_path, "real", real, data="real")
    assert figures.stamped(real) == ""
    with pytest.raises(InputError, match="figure name 'A b'"):
        report.save_figure(tmp_path, "A b", real, data="real")


def test_a_saved_figure_is_stamped(tmp_path):
    figure = figures.canvas(3, 2)
    report.save_figure(tmp_path, "stamped", figure, data="simulated")
    assert figures.stamped(figure) == "SIMULATED DATA"


def test_provenance_names_everything_and_no_place(made, study):
    text = (made / "run.json").read_text("utf-8")
    content = json.loads(text)
    assert content["data"] == "simulated" and content["study"]["name"] == "rlvo"
    assert content["study"]["sha256"] == storage.digest(made / "study.toml")
    assert (made / "study.toml").read_text("utf-8") == study.text
    assert content["settings"]["data"] == "data"  # the last part of an absolute path
    assert "/home" not in text and str(made) not in text
    assert content["expected"]["split"] == {"test": 24, "train": 48}
    assert content["expected"]["cohort"] == 72
    assert content["expected"]["predictions"]["daft / test / 0 / 1"] == 24
    assert "numpy" in content["software"]["packages"] and content["software"]["python"]
    assert content["files"]["predictions.csv"] == storage.digest(made / "predictions.csv")
    assert "tables/paper.csv" in content["files"] and "run.json" not in content["files"]


def test_every_page_is_stamped_and_its_links_lead_somewhere(made):
    pages = sorted(made.rglob("*.html"))
    assert made / "index.html" in pages and made / "notebooks" / "01_cohort.html" in pages
    for page in pages:
        text = page.read_text("utf-8")
        assert 'class="stamp"' in text and "SIMULATED DATA" in text
        assert "not a medical device" in text
        assert not re.search(r"(src|href)=\"(https?:)?//|@import|url\(", text), page.name
        for link in Links(page).links:
            target = link.split("#")[0]
            assert not target.startswith("/") and "//" not in target.removeprefix("data:")
            if target and not target.startswith("data:"):
                assert (page.parent / target).exists(), f"{page.name}: {link}"


def test_the_index_shows_the_papers_table_first_and_all_else(made):
    text = (made / "index.html").read_text("utf-8")
    first = text.index("<table>")
    assert "published, another cohort" in text[first : text.index("</table>", first)]
    assert "AUC and F1" not in text[:first]
    for part in (
        "Research software",
        "Claims and what became of them",
        "figures/roc.png",
        "Provenance",
    ):
        assert part in text
    assert "Cohort: who &lt;is&gt; in it?" in text
    assert "ROC curves of &lt;all&gt; arms." in text
    assert "tables/roc_points.csv" in text
    assert "<b>72</b>" in text  # patients
    assert str(made) not in text


def test_the_index_is_the_same_each_time(made):
    before = (made / "index.html").read_bytes()
    report.write_index(made)
    assert (made / "index.html").read_bytes() == before


def test_a_notebook_page_escapes_what_was_printed(made):
    text = (made / "notebooks" / "01_cohort.html").read_text("utf-8")
    assert "<script>" not in text and "&lt;script&gt;alert" in text
    assert 'src="data:image/png;base64,' in text


def test_an_empty_run_has_a_page_too(tmp_path, study):
    page = report.write_index(tmp_path, study=study, data="real")
    text = page.read_text("utf-8")
    assert "SIMULATED" not in text and study.question in text
    with pytest.raises(InputError, match=r"not a finished run folder \(no study\.toml"):
        report.write_index(tmp_path)


def test_a_broken_notebook_is_named(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "run" / "notebooks" / "02_broken.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"02_broken\.ipynb: not a readable notebook"):
        report.write_index(tmp_path / "run")
