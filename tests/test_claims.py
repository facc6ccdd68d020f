"""The ledger of claims: verdicts, the intervals implied for published values, and where each is made."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from made_run import make_predictions

from rlvo_lib import results
from rlvo_lib.config import InputError, load_study, project_root
from rlvo_lib.results.cells import tables_made
from rlvo_lib.results.sources import auc_interval, f1_interval, resolve, sd_interval

JUDGED = {"ensemble_column": "ensemble", "low_column": "low", "high_column": "high"}


@pytest.fixture(scope="module")
def study():
    claims = (
        {"id": "auc", "text": "AUC", "kind": "performance", "value": 0.70, "sd": 0.02}
        | {"interval": [0.549, 0.851]}
        | {"source": {"table": "performance", "where": {"arm": "daft", "metric": "auc"},
                      "column": "mean", "sd_column": "sd", **JUDGED}},
        {"id": "beats", "text": "beats imaging", "kind": "performance", "expect": "positive"}
        | {"source": {"table": "comparisons", "where": {"a": "daft", "b": "imaging"},
                      "column": "difference", **JUDGED, "ensemble_column": "difference"}},
        {"id": "regions", "text": "regions", "kind": "attribution"},
        {"id": "patients", "text": "60 test patients", "kind": "count", "value": 60}
        | {"source": {"table": "performance", "where": {"arm": "daft", "metric": "auc"}, "column": "n"}},
        {"id": "prevalence", "text": "16 of 118", "kind": "arithmetic", "value": 0.136, "decimals": 3}
        | {"source": {"op": "ratio", "of": [16, 118]}},
        {"id": "below", "text": "F1 below flagging everyone", "kind": "arithmetic"}
        | {"expect": "negative", "stated_by": "check"}
        | {"source": {"op": "minus", "of": [0.19, {"op": "flag_everyone_f1", "of": [16, 118]}]}},
    )  # fmt: skip
    return dataclasses.replace(load_study("rlvo"), claims=claims)


@pytest.fixture(scope="module")
def predictions():
    return make_predictions()


@pytest.fixture(scope="module")
def performance(predictions, study):
    thresholds = results.choose_thresholds(predictions)
    return results.performance(predictions, thresholds, study, data="simulated", resamples=50)


def ledger(study, performance, predictions, data):
    tables = {
        "performance": performance,
        "comparisons": results.comparisons(predictions, study, data=data),
    }
    return results.claims(study, tables, data=data).set_index("id")


def test_on_simulated_data_no_model_claim_can_be_judged(study, performance, predictions):
    table = ledger(study, performance, predictions, "simulated")
    # even where the simulated number is the published one
    exact = performance.copy()
    same = (exact["arm"] == "daft") & (exact["metric"] == "auc")
    exact.loc[same, ["mean", "ensemble", "low", "high"]] = 0.7
    for frame in (table, ledger(study, exact, predictions, "simulated")):
        judged = frame[frame["kind"].isin(["performance", "attribution"])]
        assert len(judged) == 3
        assert set(judged["verdict"]) == {"not reproducible without the cohort"}
    assert table.loc["patients", "verdict"] == "reproduced"
    assert table.loc["patients", "reason"] == "by construction of the simulator"
    assert table.loc["auc", "published"] == "0.70 ± 0.02"
    assert table.loc["auc", "where"] == "tables/performance.csv: mean of arm daft, metric auc"
    with pytest.raises(InputError, match="data is 'synthetic'"):
        results.claims(study, {}, data="synthetic")


def test_arithmetic_claims(study, performance, predictions):
    table = ledger(study, performance, predictions, "simulated")
    assert table.loc["prevalence", "here"] == pytest.approx(16 / 118)
    assert table.loc["prevalence", "verdict"] == "reproduced"
    assert table.loc["below", "verdict"] == "reproduced"
    assert table.loc["below", "here"] == pytest.approx(0.19 - 32 / 134)
    wrong = dataclasses.replace(study, claims=({**study.claims[4], "value": 0.137},))
    assert results.claims(wrong, {}, data="real").loc[0, "verdict"] == "inconsistent"


def test_on_real_data_model_claims_are_compared(study, performance, predictions):
    def judge(ensemble, low, high):
        frame = performance.copy()
        rows = (frame["arm"] == "daft") & (frame["metric"] == "auc")
        # the mean over the fold models lies elsewhere and has no say
        frame.loc[rows, ["mean", "ensemble", "low", "high"]] = [0.99, ensemble, low, high]
        return ledger(study, frame, predictions, "real").loc["auc", "verdict"]

    assert judge(0.68, 0.55, 0.80) == "consistent"
    assert judge(0.60, 0.52, 0.69) == "differs"  # 0.70 is outside ours
    assert judge(0.86, 0.65, 0.95) == "differs"  # ours is outside theirs
    assert judge(0.86, np.nan, np.nan) == "not testable"
    table = ledger(study, performance, predictions, "real")
    assert table.loc["regions", "verdict"] == "not testable"
    assert table.loc["beats", "verdict"] in ("consistent", "not testable")


def test_the_interval_of_a_claim_is_that_of_the_estimate_beside_it(study, performance, predictions):
    table = ledger(study, performance, predictions, "real")
    row = performance.set_index(["arm", "metric"]).loc[("daft", "auc")]
    auc = table.loc["auc"]
    assert (auc["here"], auc["here_sd"]) == (row["mean"], row["sd"])
    assert list(auc[["ensemble", "low", "high"]]) == list(row[["ensemble", "low", "high"]])
    known = table[table["low"].notna()]
    assert list(known.index) == ["auc", "beats"]
    assert (known["low"] < known["ensemble"]).all() and (known["ensemble"] < known["high"]).all()
    assert table.loc["beats", "ensemble"] == table.loc["beats", "here"]


def test_the_claims_of_the_study_file_have_an_interval_or_none():
    of_models = {c["id"]: c for c in load_study("rlvo").claims if c["kind"] == "performance"}
    spreads = {name for name in of_models if name.endswith("-sd")}
    assert len(of_models) == 10 and len(spreads) == 4
    for name, claim in of_models.items():
        assert (set(JUDGED) <= set(claim["source"])) == (name not in spreads)
        assert ("interval" in claim) == ("value" in claim)


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (3, "claim 'patients' of kind 'count' names ensemble_column; allowed: only with kind"),
        (0, "claim 'auc' names low_column; needed: ensemble_column, low_column and high_column"),
    ],
)
def test_columns_of_an_interval_that_do_not_fit_are_named(study, claim, words):
    faulty = study.claims[claim]
    columns = JUDGED if claim == 3 else {"low_column": "low"}
    source = {k: v for k, v in faulty["source"].items() if k not in JUDGED} | columns
    wrong = dataclasses.replace(study, claims=({**faulty, "source": source},))
    with pytest.raises(InputError, match=words):
        results.claims(wrong, {}, data="real")


def test_another_number_of_real_patients_is_another_cohort(study, performance, predictions):
    other = performance.assign(n=61)
    real = ledger(study, other, predictions, "real").loc["patients"]
    assert real["verdict"] == "another cohort" and real["reason"].startswith("61 here: ")
    assert (
        ledger(study, performance, predictions, "real").loc["patients", "verdict"] == "reproduced"
    )
    simulated = ledger(study, other, predictions, "simulated").loc["patients"]
    assert simulated["verdict"] == "inconsistent"
    assert simulated["reason"] == "this run simulated another number of patients"


def test_a_claim_that_points_nowhere(study):
    absent = results.claims(study, {}, data="simulated").set_index("id")
    assert absent.loc["patients", "verdict"] == "not computed"
    assert absent.loc["patients", "reason"] == "this run has no table 'performance'"
    table = pd.DataFrame({"arm": ["daft"] * 2, "metric": "auc", "n": 1})
    with pytest.raises(InputError, match="points at 2 rows"):
        results.claims(study, {"performance": table.assign(mean=1.0, sd=1.0)}, data="real")
    unknown = dataclasses.replace(study, claims=({"id": "x", "text": "t", "kind": "guess"},))
    with pytest.raises(InputError, match="claim 'x' has kind 'guess'; allowed: count"):
        results.claims(unknown, {}, data="real")


# ------------------------------------------------------------------- the claims of the study file


@pytest.fixture(scope="module")
def stated():
    return results.claims(load_study("rlvo"), {}, data="simulated").set_index("id")


def test_every_number_of_the_abstract_is_a_claim(stated):
    printed = set(stated.loc[stated["stated_by"] == "paper", "published"])
    wanted = {"599", "481", "118", "77", "16", "4", "0.160", "0.136", "0.80"}
    wanted |= {"0.53 ± 0.02", "0.19 ± 0.05", "0.70 ± 0.02", "0.39 ± 0.02", "0.02", "0.05"}
    assert wanted | {"> 50 %", "0–2a", "2017–2023"} <= printed


def test_what_follows_from_the_papers_numbers_is_computed_from_the_design(stated):
    computed = stated[stated["kind"].isin(["arithmetic", "definition"])]
    assert set(computed["verdict"]) == {"reproduced"}
    assert stated.loc["prevalence", "where"] == "ratio(sum(77, 16), sum(481, 118))"
    study = load_study("rlvo")
    other = dataclasses.replace(
        study, published_design=study.published_design | {"events_test": 17}
    )
    changed = results.claims(other, {}, data="simulated").set_index("id")
    assert changed.loc["prevalence-test", "verdict"] == "inconsistent"
    assert changed.loc["flag-everyone", "verdict"] == "inconsistent"
    low, high = changed.loc["multimodal-auc", ["implied_low", "implied_high"]]
    assert low > stated.loc["multimodal-auc", "implied_low"]
    assert high < stated.loc["multimodal-auc", "implied_high"]


def test_a_definition_is_the_study_files_rule(study):
    claim = {"id": "x", "text": "t", "kind": "definition", "value": "> 70"}
    claim |= {"printed": "> 70 %", "source": {"criterion": "stenosis"}}
    row = results.claims(dataclasses.replace(study, claims=(claim,)), {}, data="real").iloc[0]
    assert (row["here_text"], row["published"]) == ("> 50", "> 70 %")
    assert (row["verdict"], row["reason"]) == ("inconsistent", "> 50 here")
    assert row["test"] == "the study file's rule is the printed one"
    # the paper's definition, also where a sensitivity definition lacks the criterion
    for name in load_study("rlvo").definitions:
        other = dataclasses.replace(study.under(name), claims=(claim,))
        assert results.claims(other, {}, data="real").loc[0, "here_text"] == "> 50"


def test_the_test_behind_each_verdict_is_named(study, performance, predictions):
    real = ledger(study, performance, predictions, "real")["test"]
    assert real["auc"] == (
        "published value inside the 95 % interval over patients of our ensemble, and our ensemble "
        "inside the 95 % interval implied for theirs"
    )
    assert real["beats"] == "95 % interval over patients is above 0 as a whole"
    assert real["prevalence"] == "the value here rounds to the printed one (3 decimals)"
    assert real["patients"] == "the number here is the printed one"
    assert real["regions"] == "none, as no number was published"
    simulated = ledger(study, performance, predictions, "simulated")["test"]
    assert simulated["auc"] == f"not applied to simulated patients: {real['auc']}"
    assert (simulated != "").all()


@pytest.mark.parametrize(("sd", "verdict"), [(0.02, "consistent"), (0.08, "differs")])
def test_the_published_spread_is_judged_by_what_four_models_imply(study, performance, sd, verdict):
    claim = {"id": "sd", "text": "±", "kind": "performance", "value": 0.02}
    claim |= {"interval": {"op": "sd_interval", "of": [0.02, {"design": "folds"}]}}
    claim |= {"source": {"table": "performance", "where": {"arm": "daft", "metric": "auc"}}}
    claim["source"] |= {"column": "sd"}
    one = dataclasses.replace(study, claims=(claim,))
    row = results.claims(one, {"performance": performance.assign(sd=sd)}, data="real").iloc[0]
    assert row["verdict"] == verdict and "0.011 to 0.075 implied for theirs" in row["reason"]
    absent = results.claims(one, {}, data="real").iloc[0]
    assert absent["verdict"] == "not testable"


# ------------------------------------------------------------------------------ implied intervals


def test_implied_intervals_have_known_values():
    # paper_consistency.md: Hanley-McNeil for 16 of 118, and the SD of four models
    assert auc_interval(0.53, 16, 118) == pytest.approx((0.375, 0.685), abs=5e-4)
    assert auc_interval(0.70, 16, 118) == pytest.approx((0.549, 0.851), abs=5e-4)
    assert sd_interval(0.02, 4) == pytest.approx((0.011, 0.075), abs=5e-4)
    assert auc_interval(0.99, 3, 9)[1] == 1.0


def test_the_interval_of_an_f1_covers_every_operating_point_that_may_have_made_it():
    low, high = f1_interval(0.39, 16, 118)
    rng = np.random.default_rng(0)
    limits = []
    for hits, alarms in [(6, 9), (8, 17), (12, 33), (16, 51)]:  # all have F1 0.39
        tp = rng.binomial(16, hits / 16, 40_000)
        fp = rng.binomial(102, alarms / 102, 40_000)
        limits.append(np.quantile(2 * tp / (tp + fp + 16), [0.025, 0.975], method="inverted_cdf"))
    limits = np.array(limits)
    assert limits[1] == pytest.approx((0.22, 0.56), abs=0.01)  # one pair alone, 8 and 17
    assert low <= limits[:, 0].min() + 0.005 and high >= limits[:, 1].max() - 0.005
    assert (low, high) == pytest.approx((limits[:, 0].min(), limits[:, 1].max()), abs=0.01)
    with pytest.raises(InputError, match="F1 0.99 cannot be reached with 2 events in 4 patients"):
        f1_interval(0.99, 2, 4)


# -------------------------------------------------------------------------- sources and notebooks


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"design": "n"}, "published_design has no 'n'; it has: n_train"),
        ({"published": "film"}, "published has no 'film'; it has: imaging, daft"),
        ({"published": "daft", "column": "ap"}, "published.daft has no 'ap'"),
        ({"criterion": "tici"}, "criterion has no 'tici'; it has: stenosis"),
        ({"file": "x"}, "a claim's source is {'file': 'x'}; allowed"),
        ({"op": "power", "of": [1]}, "op 'power'; allowed: ratio"),
    ],
)
def test_a_source_that_is_not_there_is_named(study, source, words):
    with pytest.raises(InputError, match=words):
        resolve(source, {}, study)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"interval": {"op": "guess", "of": [1]}}, "interval 'guess'; allowed: auc_interval"),
        ({"value": "0.70"}, "kind 'performance' has value '0.70'; allowed: text of a definition"),
        ({"kind": "definition"}, "kind 'definition' has value 0.7; allowed: text of a definition"),
        ({"expect": "up"}, "claim 'auc': expect is positive or negative"),
    ],
)
def test_a_faulty_claim_is_named(study, change, words):
    wrong = dataclasses.replace(study, claims=({**study.claims[0], **change},))
    with pytest.raises(InputError, match=words):
        results.claims(wrong, {}, data="real")


def write_notebook(folder, name, *sources):
    cells = [
        {"cell_type": "code", "id": f"{name}-{k}", "source": [source]}
        for k, source in enumerate(sources)
    ]
    folder.mkdir(exist_ok=True)
    text = json.dumps({"cells": [{"cell_type": "markdown", "source": "save('a')"}, *cells]})
    (folder / f"{name}.ipynb").write_text(text, encoding="utf-8")


def test_the_cell_that_makes_a_table_is_found(tmp_path, study, performance, predictions):
    write_notebook(
        tmp_path, "01_a", "def save(name):\n    report.save_table(out, name)\n    'flow'"
    )
    write_notebook(
        tmp_path, "02_b", "save('performance', t)", "%magic", "x = save_table(out, 'flow')"
    )
    write_notebook(tmp_path, "03_c", "save('performance', t)", "results.claims(study, tables)")
    write_notebook(tmp_path, "03_c.failed", "save('other', t)")
    cells = results.table_cells(tmp_path)
    assert cells == {
        "performance": ("03_c", "03_c-0"), "flow": ("02_b", "02_b-2"), "claims": ("03_c", "03_c-1"),
    }  # fmt: skip
    tables = {"performance": performance}
    table = results.claims(study, tables, data="simulated", cells=cells).set_index("id")
    columns = ["notebook", "cell", "table", "row"]
    assert list(table.loc["auc", columns]) == [
        "03_c", "03_c-0", "performance", "arm daft, metric auc",
    ]  # fmt: skip
    assert list(table.loc["prevalence", columns]) == ["03_c", "03_c-1", "", ""]  # the ledger's own
    assert list(table.loc["beats", columns]) == ["", "", "comparisons", ""]  # no cell makes it
    assert results.table_cells(tmp_path / "none") == {}
    (tmp_path / "04_d.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"04_d\.ipynb: not a readable notebook"):
        results.table_cells(tmp_path)


def test_tables_named_in_a_loop_are_found():
    assert tables_made("for n, t in {'a': x, 'b': y}.items():\n    keep(n, t, 'More words')") == [
        "a",
        "b",
    ]
    assert tables_made("save = 1") == []


def test_the_projects_notebooks_make_the_tables_that_claims_are_read_from():
    cells = results.table_cells(project_root() / "notebooks")
    named = {c.get("source", {}).get("table") for c in load_study("rlvo").claims} - {None}
    assert named | {"claims", "flow", "table1"} <= set(cells)
