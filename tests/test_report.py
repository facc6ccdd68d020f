"""Tables, figures, provenance and pages on disk: same bytes, stamped, escaped, relative, offline."""

import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from made_run import finished_run, make_ceiling
from PIL import Image

from rlvo_lib import dataset, figures, report, storage
from rlvo_lib.config import InputError, project_root
from rlvo_lib.report import provenance
from rlvo_lib.report.checklists import CHECKLISTS
from rlvo_lib.report.page import SECTIONS, _part
from rlvo_lib.report.summary import fill_page, filled, keep_summary

FRAME = pd.DataFrame({"arm": ["daft", "<b>&_%$"], "auc": [0.123456789, np.nan], "n": [118, 0]})
WORDS = "AUC of <everything> & more. Second sentence."


@pytest.fixture(scope="module")
def made(tmp_path_factory, study):
    return finished_run(tmp_path_factory, study)


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
        shares = dict.fromkeys(["share", "share_without", "share_with_outcome"], [0.2])
        figure = figures.missingness_bars(pd.DataFrame({"variable": ["hir"]} | shares))
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


def test_a_figure_of_scans_is_written_as_png_alone(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "scans.svg").write_text("of an earlier run")
    figure = figures.canvas(3, 2)
    figure.subplots().imshow(np.zeros((4, 4)))
    assert report.save_figure(tmp_path, "scans", figure, data="simulated").exists()
    assert not (tmp_path / "figures" / "scans.svg").exists()


def many_coloured():
    figure = figures.canvas(3, 2)
    figure.axes[0].scatter(np.arange(400), np.arange(400) % 20, c=np.arange(400), s=4)
    return figure


def test_a_drawing_is_written_with_a_palette_and_looks_the_same(tmp_path):
    figure = many_coloured()
    figures.png(figure, dpi=140)  # the layout settles
    plain = io.BytesIO()
    figure.savefig(plain, format="png", dpi=140, metadata={"Software": None})
    indexed = Image.open(io.BytesIO(figures.png(figure, dpi=140, text={"Description": "≥ 1"})))
    assert indexed.mode == "P" and indexed.info["Description"] == "≥ 1"
    before = np.asarray(Image.open(plain).convert("RGB")).astype(int)
    after = np.asarray(indexed.convert("RGB")).astype(int)
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 256
    assert len(np.unique(after.reshape(-1, 3), axis=0)) == 256
    apart = np.abs(before - after).max(axis=2)
    assert apart.max() < 64 and np.mean(apart > 16) < 0.01
    assert (after[before.sum(axis=2) == 3 * 255] == 255).all()  # white stays white


def test_a_figure_of_scans_keeps_every_colour():
    figure = figures.canvas(3, 2)
    figure.axes[0].imshow(np.random.default_rng(0).uniform(size=(40, 40, 3)))
    with Image.open(io.BytesIO(figures.png(figure, dpi=100))) as image:
        assert image.mode == "RGB"


def test_a_figure_names_what_it_is_drawn_from(tmp_path):
    report.save_table(tmp_path, "performance", FRAME, data="real", caption="Words")
    storage.write_text(tmp_path / "predictions.csv", "a,b\n")
    with pytest.raises(InputError, match=r"'roc_points': tables/roc_points.csv is not in the run"):
        report.save_figure(
            tmp_path, "roc", figures.canvas(3, 2), data="real", sources=["roc_points"]
        )
    assert not (tmp_path / "figures").exists()
    sources = ("performance", "predictions.csv")
    png = report.save_figure(tmp_path, "roc", figures.canvas(3, 2), data="real", sources=sources)
    files = ["tables/performance.csv", "predictions.csv"]
    assert report.read_sources(png) == {f: storage.digest(tmp_path / f) for f in files}
    assert (
        report.read_sources(report.save_figure(tmp_path, "a", figures.canvas(3, 2), data="real"))
        == {}
    )
    with pytest.raises(InputError, match="not a readable PNG"):
        report.read_sources(tmp_path / "predictions.csv")


def test_a_long_table_has_no_latex_and_its_page_shows_the_first_rows(tmp_path):
    frame = pd.DataFrame({"x": range(report.LONGEST + 1)})
    short = report.save_table(
        tmp_path, "points", frame.head(report.LONGEST), data="real", caption="A"
    )
    assert short.with_suffix(".tex").exists()
    path = report.save_table(tmp_path, "points", frame, data="simulated", caption="Points. More.")
    assert not path.with_suffix(".tex").exists() and len(storage.read_csv(path)) == len(frame)
    page = path.with_suffix(".html").read_text("utf-8")
    assert report.read_caption(path.with_suffix(".html")) == "SIMULATED DATA. Points. More."
    assert page.count("<tr>") == 1 + 20 and 'href="points.csv"' in page and "of 131 rows" in page


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
    assert content["expected"]["cohort"] == 73 and content["expected"]["included"] == 72
    assert content["expected"]["predictions"]["daft / test / 0 / 1"] == 24
    assert "numpy" in content["software"]["packages"] and content["software"]["python"]
    assert content["files"]["predictions.csv"] == storage.digest(made / "predictions.csv")
    assert "tables/paper.csv" in content["files"] and "run.json" not in content["files"]


def test_changes_count_unless_they_are_of_the_reference_run_or_the_readme(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        command = ["git", *who, "-c", "commit.gpgsign=false", *words]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(provenance, "project_root", lambda: tmp_path)
    assert provenance._commit() == ""  # not a checkout
    files = ["README.md", "reports/reference/run.json", "notebooks/06_results.ipynb"]
    for name in files:
        storage.write_text(tmp_path / name, "before")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    for name, words in zip(files, ("", "", "+changes"), strict=True):
        storage.write_text(tmp_path / name, "after")
        assert re.fullmatch(rf"[0-9a-f]{{40,64}}{re.escape(words)}", provenance._commit())


def test_digests_of_the_pages_are_written_last(made):
    files = storage.read_json(made / "pages.json")["files"]
    pages = {"index.html", "claims.html", "notebooks/01_cohort.html", "notebooks/01_cohort.ipynb"}
    pages |= {f"checklists/{n}.{e}" for n in CHECKLISTS for e in ("csv", "md")}
    assert set(files) == pages
    assert all(storage.digest(made / name) == files[name] for name in pages)
    recorded = storage.read_json(made / "run.json")["files"]
    assert "attributions/maps/sub-0050_occlusion.nii.gz" in recorded and not pages & set(recorded)


def test_the_page_shows_the_ensemble_with_its_interval(made):
    row = storage.read_csv(made / "claims.csv").set_index("id").loc["multimodal-auc"]
    text = (made / "index.html").read_text("utf-8")
    assert f">{row['here']:.3f} ± {row['here_sd']:.3f}<" in text
    assert f">ensemble {row['ensemble']:.3f} [{row['low']:.3f}, {row['high']:.3f}]; " in text


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


def test_the_parts_of_the_page_come_in_order(made):
    text = (made / "index.html").read_text("utf-8")
    parts = [part for part, *_ in SECTIONS]
    assert parts[:3] == ["discrimination", "calibration", "utility"]
    order = ["results", *parts, "claims", "checklists", "tables", "notebooks", "provenance"]
    places = [text.index(f'<h2 id="{part}">') for part in order]
    assert places == sorted(places)
    within = dict(zip(order, zip(places, places[1:], strict=False), strict=False))
    named = text[slice(*within["discrimination"])]
    assert 'src="figures/roc.png"' in named and "tables/no_skill.csv" in named
    assert 'drawn from <a href="tables/roc_points.csv">roc_points.csv</a>' in named
    assert "tables/roc_points.csv" in named and "tables/calibration" not in named
    assert 'href="tables/comparisons.csv"' in text[slice(*within["comparisons"])]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("pr_band", "discrimination"),
        ("precision", "precision"),
        ("precision_recall", "discrimination"),
        ("predictor_screen", ""),
        ("decision_curve", "utility"),
        ("calibration_curve", "calibration"),
        ("risk", "risk"),
        ("comparisons_flagged", "comparisons"),
        ("subgroups", "subgroups"),
        ("development_size", "precision"),
        ("missingness", ""),
    ],
)
def test_a_table_or_figure_has_its_part_of_the_page(name, part):
    assert _part(name) == part


def test_the_page_says_why_f1_is_weak_and_what_flagging_everyone_gives(made):
    text = (made / "index.html").read_text("utf-8")
    rows = storage.read_csv(made / "tables" / "no_skill.csv")
    row = rows[(rows["how"] == "flagging everyone") & (rows["partition"] == "test")].iloc[0]
    assert "improper" in text and "blind to true negatives" in text
    words = f"has F1 {row['value']:.3f} with {row['events']} events in {row['n']} patients"
    assert words in text and row["value"] == pytest.approx(2 * row["events"] / (row["events"] + 24))


def test_each_claim_leads_to_its_table_and_cell(made):
    text = (made / "claims.html").read_text("utf-8")
    rows = {m[1]: m[0] for m in re.finditer(r'<tr id="([\w-]+)">.*?</tr>', text, re.S)}
    ledger = storage.read_csv(made / "claims.csv")
    assert list(rows) == list(ledger["id"])
    auc = rows["multimodal-auc"]
    assert 'href="tables/performance.html"' in auc and "arm daft, metric auc" in auc
    assert 'href="notebooks/01_cohort.html#cell-id=make-1"' in auc
    assert 'href="notebooks/01_cohort.html#cell-id=ledger"' in rows["prevalence-test"]
    assert "[0.549, 0.851]" in auc and "not applied to simulated patients" in auc
    assert 'href="claims.html"' in (made / "index.html").read_text("utf-8")


def test_links_to_cells_lead_to_an_anchor(made):
    for path in made.rglob("*.html"):
        for link in Links(path).links:
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            if anchor and not link.startswith("data:"):
                assert f'id="{anchor}"' in target.read_text("utf-8"), f"{path.name}: {link}"


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
    assert (
        'id="utility"' not in text and 'id="checklists"' not in text
    )  # parts of which it has nothing
    with pytest.raises(InputError, match=r"not a finished run folder \(no study\.toml"):
        report.write_index(tmp_path)


def test_a_broken_notebook_is_named(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    (tmp_path / "run" / "notebooks" / "02_broken.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"02_broken\.ipynb: not a readable notebook"):
        report.write_index(tmp_path / "run")


# ---------------------------------------------------------------------------------------- ceiling


@pytest.fixture
def simulated(raw, write_dataset, study, words):
    """A simulated dataset folder that holds a ceiling."""
    root = write_dataset(raw)
    info = storage.read_json(root / "dataset_description.json") | {"scenario": "paper"}
    storage.write_json(root / "dataset_description.json", info)
    storage.write_json(root / dataset.CEILING, make_ceiling())
    return dataset.load_dataset(root, study, words)


def test_the_ceiling_is_kept_with_the_run_as_it_was_written(simulated, tmp_path):
    run = tmp_path / "run"
    assert report.keep_ceiling(run, simulated) == make_ceiling()
    kept, given = run / "ceiling.json", simulated.root / dataset.CEILING
    assert kept.read_bytes() == given.read_bytes()
    assert report.read_ceiling(kept) == make_ceiling()
    assert report.digests(run) == {"ceiling.json": storage.digest(given)}


def test_without_a_ceiling_nothing_of_an_earlier_one_stays(simulated, tmp_path):
    run = tmp_path / "run"
    report.keep_ceiling(run, simulated)
    for name in ("tables/ceiling.csv", "figures/ceiling.png", "tables/flow.csv"):
        storage.write_text(run / name, "old")
    (simulated.root / dataset.CEILING).unlink()
    assert report.keep_ceiling(run, simulated) is None
    assert [p.name for p in run.rglob("*") if p.is_file()] == ["flow.csv"]
    assert "written without derivatives/ceiling.json" in report.NO_CEILING["simulated"]


def test_a_real_dataset_with_a_planted_ceiling_is_refused(simulated, study, words, tmp_path):
    description = simulated.root / "dataset_description.json"
    storage.write_json(description, storage.read_json(description) | {"simulated": False})
    with pytest.raises(InputError, match=r"derivatives/ceiling\.json holds a simulator's truth"):
        dataset.load_dataset(simulated.root, study, words)
    # were it planted after the dataset was read, it would not be looked at
    real = dataclasses.replace(simulated, simulated=False)
    (simulated.root / dataset.CEILING).write_text("not looked at")
    assert report.keep_ceiling(tmp_path / "run", real) is None
    assert not (tmp_path / "run").exists() and "no ceiling" in report.NO_CEILING["real"]


def test_a_ceiling_of_another_prevalence_or_of_several_centres_is_not_kept(simulated, tmp_path):
    path = simulated.root / dataset.CEILING
    storage.write_json(path, make_ceiling() | {"prevalence": 0.99})
    with pytest.raises(InputError, match="'prevalence' is 0.99; allowed: None, as in"):
        report.keep_ceiling(tmp_path / "run", simulated)
    storage.write_json(path, make_ceiling())
    centres = ["SIM1", "SIM2"] * len(simulated.raw)
    joined = simulated.raw.assign(centre=centres[: len(simulated.raw)])
    both = dataclasses.replace(simulated, raw=joined)
    assert report.keep_ceiling(tmp_path / "run", both) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, r"ceiling\.json: not valid JSON"),
        ("{", r"ceiling\.json: not valid JSON"),
        ("\udcff", r"ceiling\.json: not valid JSON"),
        ("[]", r"ceiling\.json: the file is \[\]; allowed: an object"),
        ('{"scenario": ""}', r"""ceiling\.json: 'scenario' is ""; allowed: text"""),
        (
            json.dumps(make_ceiling() | {"scenario": "null"}),
            "'scenario' is 'null'; allowed: 'paper'",
        ),
    ],
)
def test_a_bad_ceiling_names_file_and_field_and_is_not_kept(simulated, tmp_path, content, message):
    path = simulated.root / dataset.CEILING
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        report.keep_ceiling(tmp_path / "run", simulated)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        report.read_ceiling(tmp_path / "none.json")


def test_the_page_shows_the_ceiling_and_leads_to_its_file(made):
    text = (made / "index.html").read_text("utf-8")
    assert 'href="ceiling.json"' in text and 'href="tables/ceiling.csv"' in text
    assert "24 test patients; 2,000 or more are needed" in text


# ---------------------------------------------------------------------------------------- summary


def test_a_summary_holds_no_row_of_a_patient(made, tmp_path):
    folder = keep_summary(made, tmp_path / "summary")
    names = {path.name for path in folder.iterdir()}
    assert {"performance.csv", "comparisons.csv", "flow.csv", "summary.json"} <= names
    assert not {"exclusions.csv", "roc_points.csv", "cohort.csv", "predictions.csv"} & names
    text = "".join(p.read_text("utf-8") for p in folder.iterdir() if p.suffix != ".png")
    assert not re.search(r"sub-\d", text) and "/home" not in text
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["patients"] == 72 and summary["data"] == "simulated"


def test_a_table_of_patients_is_refused_in_a_summary(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "run")
    table = pd.read_csv(run / "tables" / "flow.csv", dtype=str)
    table.assign(step="left out: SUB-0001").to_csv(run / "tables" / "flow.csv", index=False)
    with pytest.raises(InputError, match="table 'flow', column 'step': holds rows of patients"):
        keep_summary(run, tmp_path / "summary")
    assert not (tmp_path / "summary").exists()
    with pytest.raises(InputError, match="not a finished run folder"):
        keep_summary(tmp_path, tmp_path / "summary")


def test_a_page_shows_the_summaries_it_names(made, tmp_path):
    keep_summary(made, tmp_path / "results" / "today")
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    mark = "<!-- summary: ../results/today -->\n"
    page.write_text(f"Before.\n\n{mark}stale\n<!-- end -->\n\nAfter.\n")
    fill_page(page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before.") and text.endswith("After.\n") and "stale" not in text
    assert (
        "Simulated data, 72 patients, 6 with the outcome; 4-fold cross-validation; run of" in text
    )
    performance = pd.read_csv(made / "tables" / "performance.csv")
    auc = performance.query("arm == 'daft' and metric == 'auc'").iloc[0]
    assert (
        f"| Imaging + clinical, DAFT | {auc.ensemble:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in text
    )
    assert filled(page) == text


def test_the_page_of_the_second_study_shows_its_committed_results():
    page = project_root() / "docs" / "soop.md"
    assert filled(page) == page.read_text(encoding="utf-8"), "run: make soop-results"
    assert not re.search(r"sub-\d", page.read_text(encoding="utf-8"))


def test_a_page_shows_the_tables_it_names(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "aucs.csv").write_text("arm,auc\nncct | cta,0.500\ndaft,\n")
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- table: tables/aucs.csv -->\nstale\n<!-- end -->\n\nAfter.\n")
    fill_page(page)
    shown = "| arm | auc |\n| --- | --- |\n| ncct / cta | 0.500 |\n| daft |  |\n"
    assert shown in page.read_text(encoding="utf-8") and "stale" not in filled(page)
