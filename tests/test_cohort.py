import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvo_lib import cohort, dataset, storage
from rlvo_lib.config import InputError


def _build(raw, write_dataset, study, words):
    return cohort.build(dataset.load_dataset(write_dataset(raw), study, words), study, words)


def test_label_of_eight_known_patients(raw, write_dataset, study, words):
    frame = _build(raw, write_dataset, study, words)
    assert frame["rlvo"].tolist() == ["1", "1", "1", "0", "1", "0", "0", "0"]


def test_stenosis_of_exactly_fifty_is_not_refractory(raw, write_dataset, study, words):
    raw["final_stenosis_pct"] = "50"
    raw["etici_final"], raw["rescue_type"] = "3", "0"
    assert set(_build(raw, write_dataset, study, words)["rlvo"]) == {"0"}


@pytest.mark.parametrize(
    ("stenosis", "etici", "rescue", "label"),
    [
        ("-99", "3", "0", ""),  # a missing criterion is never a negative
        ("-99", "2a", "0", "1"),  # any known criterion is enough
        ("-98", "0", "-99", "1"),
        ("-98", "3", "0", ""),  # something is open to measure: not applicable is no answer
        ("-98", "0", "0", "1"),
        ("10", "n/a", "0", ""),
    ],
)
def test_missing_criteria(raw, write_dataset, study, words, stenosis, etici, rescue, label):
    columns = ["final_stenosis_pct", "etici_final", "rescue_type"]
    raw.loc["sub-00", columns] = [stenosis, etici, rescue]
    frame = _build(raw, write_dataset, study, words).set_index("participant_id")
    assert frame.loc["sub-00", "rlvo"] == label
    assert frame.loc["sub-00", "exclusion"] == ("" if label else "outcome")


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=3, max_size=3))
def test_label_rule_against_its_words(met):
    label = cohort.derive_label(pd.DataFrame([met], columns=list("abc"))).iloc[0]
    if 1.0 in met:
        assert label == 1
    elif np.isnan(met).any():
        assert np.isnan(label)
    else:
        assert label == 0


def test_a_stored_label_is_never_read(raw, write_dataset, study, words):
    frame = _build(raw.assign(rlvo="1"), write_dataset, study, words)
    assert frame["rlvo"].tolist() == ["1", "1", "1", "0", "1", "0", "0", "0"]
    assert list(frame.columns).count("rlvo") == 1


def test_flow_counts_each_patient_once_at_the_first_rule_not_met(raw, write_dataset, study, words):
    raw.loc["sub-01", ["age", "admit_year"]] = ["17", "2010"]
    raw.loc["sub-02", "admit_year"] = "2016"
    raw.loc["sub-03", "final_stenosis_pct"] = "-99"
    flow = cohort.flow(_build(raw, write_dataset, study, words), study).set_index("step")
    assert flow["excluded"].to_dict() == {
        "assessed": 0, "anterior": 0, "adult": 1, "years": 1, "imaging": 0, "outcome": 1, "included": 0,
    }  # fmt: skip
    assert flow.loc["assessed", "n"] == 8 and flow.loc["included", "n"] == 5
    assert flow["unknown"].sum() == 0
    raw.loc["sub-04", "age"] = "-99"
    flow = cohort.flow(_build(raw, write_dataset, study, words), study).set_index("step")
    assert flow.loc["adult", ["excluded", "unknown"]].tolist() == [2, 1]


def test_excluded_patients_are_listed_with_what_decided(raw, write_dataset, study, words):
    raw.loc["sub-01", "age"], raw.loc["sub-02", "admit_year"] = "17", "2016"
    raw.loc["sub-00", "age"] = "-99"  # unknown: the rule is not met
    raw.loc["sub-03", "final_stenosis_pct"] = "-99"
    table = cohort.exclusions(_build(raw, write_dataset, study, words), study)
    assert table[["participant_id", "step", "found"]].to_numpy().tolist() == [
        ["sub-00", "adult", "age: not recorded"],
        ["sub-01", "adult", "age: 17"],
        ["sub-02", "years", "admit_year: 2016"],
        [
            "sub-03",
            "outcome",
            "final_stenosis_pct: not recorded; etici_final: 2b50; rescue_type: 0",
        ],
    ]


def test_baseline_imaging_is_a_rule_where_the_dataset_has_scans(raw, write_dataset, study, words):
    root = write_dataset(raw)
    loaded = dataset.load_dataset(root, study, words)
    flow = cohort.flow(cohort.build(loaded, study, words), study).set_index("step")
    assert flow.loc["imaging", "text"].endswith("not assessed, the dataset has no scans")
    for name, scan in (("sub-00", "ncct"), ("sub-01", "cta"), ("sub-02", "tmax")):
        path = dataset.scan_path(root, name, study.scans[scan])
        path.parent.mkdir(parents=True)
        path.write_bytes(b"a scan")
    frame = cohort.build(loaded, study, words)
    assert cohort.included(frame).index.tolist() == ["sub-00", "sub-01"]
    assert cohort.included(frame)["scans"].tolist() == ["ncct", "cta"]
    found = cohort.exclusions(frame, study).set_index("participant_id")["found"]
    assert found["sub-02"] == "no ncct or cta"
    assert "not assessed" not in cohort.flow(frame, study).set_index("step").loc["imaging", "text"]


def _excluding(raw, write_dataset, study, words, text):
    root = write_dataset(raw)
    (root / "exclusions.csv").write_text("participant_id,reason\n" + text, encoding="utf-8")
    return cohort.build(dataset.load_dataset(root, study, words), study, words)


def test_exclusions_for_quality_are_a_step_before_the_outcome(raw, write_dataset, study, words):
    raw.loc["sub-01", "age"] = "17"
    raw.loc["sub-02", ["final_stenosis_pct", "rescue_type"]] = ["-99", "-99"]  # outcome unknown
    text = "sub-00,motion\nsub-01,motion\nsub-02,motion\nsub-03,late contrast\n"
    frame = _excluding(raw, write_dataset, study, words, text)
    flow = cohort.flow(frame, study).set_index("step")
    assert list(flow.index)[-3:] == ["quality-control", "outcome", "included"]
    step = flow.loc["quality-control"]
    assert step["text"] == "not excluded by quality control (motion 2, late contrast 1)"
    assert (step["excluded"], step["n"], step["unknown"]) == (3, 4, 0)  # sub-01 is too young
    assert flow.loc["adult", "excluded"] == 1 and flow.loc["outcome", "excluded"] == 0
    assert cohort.included(frame).index.tolist() == ["sub-04", "sub-05", "sub-06", "sub-07"]
    listed = cohort.exclusions(frame, study).set_index("participant_id")
    assert listed["step"].to_dict()["sub-02"] == "quality-control"
    assert listed.loc["sub-03", ["rule", "found"]].tolist() == [
        "not excluded by quality control", "late contrast",
    ]  # fmt: skip


def test_who_is_excluded_for_quality_does_not_depend_on_the_outcome(
    raw, write_dataset, study, words
):
    text = "sub-00,motion\nsub-03,motion\n"
    one = _excluding(raw, write_dataset, study, words, text)
    raw[["final_stenosis_pct", "etici_final", "rescue_type"]] = ["-99", "-99", "-99"]
    raw.loc["sub-07", "etici_final"] = "2a"
    two = _excluding(raw, write_dataset, study, words, text)
    for frame in (one, two):
        out = frame.set_index("participant_id")["exclusion"] == "quality-control"
        assert out[out].index.tolist() == ["sub-00", "sub-03"]
    other = study.under("no_access_failure")
    frame = _excluding(raw, write_dataset, other, words, text)
    steps = cohort.flow(frame, other)
    assert steps["step"].tolist()[-4:] == ["quality-control", "reached", "outcome", "included"]


def test_many_reasons_are_counted_together(raw, write_dataset, study, words):
    text = "".join(f"sub-0{i},reason {i}\n" for i in range(7))
    flow = cohort.flow(_excluding(raw, write_dataset, study, words, text), study)
    said = flow.set_index("step").loc["quality-control", "text"]
    assert said.endswith("reason 3 1, reason 4 1, other reasons 2)")


def test_the_tables_of_a_run_need_only_its_frame(raw, write_dataset, study, words, tmp_path):
    frame = _excluding(raw, write_dataset, study, words, "sub-00,motion\n")
    storage.write_csv(tmp_path / "cohort.csv", frame)
    kept = cohort.read_frame(tmp_path)
    assert cohort.flow(kept, study).equals(cohort.flow(frame, study))
    assert cohort.exclusions(kept, study).equals(cohort.exclusions(frame, study))
    again = cohort.assign(
        kept.set_index("participant_id").drop(columns=["included", "exclusion"]), study, words
    )
    assert again["exclusion"].tolist() == frame["exclusion"].tolist()
    assert (
        "quality-control"
        not in cohort.flow(frame.drop(columns="quality_exclusion"), study)["step"].tolist()
    )


def test_columns_that_the_dictionary_does_not_know_reach_no_file(raw, write_dataset, study, words):
    frame = _build(raw.assign(name="Jane Doe"), write_dataset, study, words)
    assert "name" not in frame and "age" in frame


def test_nobody_eligible_is_said(raw, write_dataset, study, words):
    raw["age"] = "12"
    with pytest.raises(InputError, match="none of 8 patients is eligible"):
        _build(raw, write_dataset, study, words)


def test_a_table_without_a_source_of_the_label_is_refused(raw, write_dataset, study, words):
    loaded = dataset.load_dataset(write_dataset(raw.drop(columns="rescue_type")), study, words)
    with pytest.raises(
        InputError, match="column 'rescue_type' is missing; it is needed for 'rescue"
    ):
        cohort.build(loaded, study, words)


def test_label_overlap(raw, write_dataset, study, words):
    overlap = cohort.label_overlap(_build(raw, write_dataset, study, words), study, words)
    counts = {(r.stenosis, r.etici, r.rescue): r.n for r in overlap.itertuples()}
    assert counts == {(0, 0, 0): 4, (0, 1, 0): 2, (1, 0, 0): 1, (0, 0, 1): 1}


def test_label_sources_count_what_is_unknown(raw, write_dataset, study, words):
    raw.loc["sub-03", "final_stenosis_pct"] = "-99"  # eTICI 2b50, no rescue: outcome unknown
    raw.loc["sub-04", "final_stenosis_pct"] = "-99"  # eTICI 2a: the outcome all the same
    table = cohort.label_sources(_build(raw, write_dataset, study, words), study, words)
    rows = table.set_index("criterion").drop(columns="text")
    assert rows.loc["stenosis"].tolist() == [1, 4, 1, 2]
    assert rows.loc["etici"].tolist() == [2, 6, 0, 0]
    assert (rows.sum(axis=1) == 8).all()


def test_label_bounds_say_what_dropping_the_unknown_may_do(raw, write_dataset, study, words):
    raw.loc[["sub-03", "sub-05"], "final_stenosis_pct"] = "-99"
    table = cohort.label_bounds(_build(raw, write_dataset, study, words), study).set_index("case")
    assert (table["unknown"] == 2).all()
    assert table["n"].tolist() == [6, 8, 8] and table["events"].tolist() == [4, 4, 6]
    assert table.loc["known", "prevalence"] > table.loc["all 0", "prevalence"]
    assert table.loc["all 1", "prevalence"] == 0.75


def test_every_definition_of_the_outcome(raw, write_dataset, study, words):
    # labels under main: 00 eTICI 0, 01 stenosis 60, 02 stent, 04 eTICI 2a
    raw["access_failure"], raw["cervical_stent"] = "0", "0"
    raw.loc["sub-00", "access_failure"] = "1"
    raw.loc["sub-05", "cervical_stent"] = "1"
    raw.loc["sub-07", "etici_final"] = "2b"  # not split: unknown whether it is 2b50
    table = cohort.label_definitions(_build(raw, write_dataset, study, words), study, words)
    columns = ["n", "events", "unknown", "excluded", "gained", "lost"]
    rows = {r.definition: [getattr(r, c) for c in columns] for r in table.itertuples()}
    assert rows == {
        "main": [8, 4, 0, 0, 0, 0],
        "stenosis_only": [8, 1, 0, 0, 0, 3],
        "etici_only": [8, 2, 0, 0, 0, 2],
        "rescue_only": [8, 1, 0, 0, 0, 3],
        "etici_2b50": [7, 5, 1, 0, 1, 0],
        "no_access_failure": [7, 3, 0, 1, 0, 0],
        "cervical_stent": [8, 5, 0, 0, 1, 0],
    }
    assert table.loc[table["in_force"], "definition"].tolist() == ["main"]


def test_a_definition_in_force_changes_label_and_name(raw, write_dataset, study, words):
    other = study.under("etici_only")
    frame = _build(raw, write_dataset, other, words)
    assert frame["rlvo"].tolist() == ["1", "0", "0", "0", "1", "0", "0", "0"]
    assert other.outcome_label == "Refractory LVO (eTICI 0–2a alone)"
    table = cohort.label_definitions(frame, other, words).set_index("definition")
    assert table["in_force"].to_dict()["etici_only"] and table.loc["main", "events"] == 4
    assert other.under("main") == study


def test_a_definition_whose_column_is_missing_says_so(raw, write_dataset, study, words):
    frame = _build(raw.drop(columns="cervical_stent"), write_dataset, study, words)
    table = cohort.label_definitions(frame, study, words).set_index("definition")
    assert table.loc["cervical_stent", "reason"] == "column 'cervical_stent' is missing"
    assert np.isnan(table.loc["cervical_stent", "prevalence"])
    assert table.loc["main", "reason"] == ""


def test_missingness_keeps_the_reason(raw, write_dataset, study, words):
    raw.loc["sub-00", "core_ml"], raw.loc["sub-01", "core_ml"] = "-97", ""
    table = cohort.missingness(_build(raw, write_dataset, study, words), study, words)
    row = table.set_index("variable").loc["core_ml"]
    assert (row["n_missing"], row["not_recorded"], row["not_done"]) == (2, 1, 1)
    assert row["share"] == 0.25 and row["share_with_outcome"] == 0.5


# --------------------------------------------------------------------------------------- table 1


def test_table1_against_numbers_by_hand(raw, write_dataset, study, words):
    frame = _build(raw, write_dataset, study, words)
    split = pd.DataFrame({"participant_id": raw.index, "partition": ["train"] * 6 + ["test"] * 2})
    table = cohort.table1(frame, split, study, words, by="label")
    age = table[table["variable"] == "Age (y)"].iloc[0]
    # ages of the refractory: 60, 61, 62, 64
    assert age[study.outcome_label] == "61.5 [60.8,62.5]"
    a, b = np.array([60, 61, 62, 64]), np.array([63, 65, 66, 67])
    smd = (a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert abs(float(age["smd"])) == pytest.approx(abs(smd), abs=5e-4)
    by_part = cohort.table1(frame, split, study, words, by="partition")
    assert {"train", "test"} <= set(by_part.columns)
    with pytest.raises(InputError, match="allowed: label, partition"):
        cohort.table1(frame, split, study, words, by="centre")


def test_table1_counts_missing_values_and_does_not_call_them_a_level(
    raw, write_dataset, study, words
):
    raw.loc["sub-00", "smoking_current"] = "-99"
    frame = _build(raw, write_dataset, study, words)
    split = pd.DataFrame({"participant_id": raw.index, "partition": ["train"] * 6 + ["test"] * 2})
    table = cohort.table1(frame, split, study, words, by="label")
    rows = table[table["variable"] == words["smoking_current"].label]
    assert set(rows["level"]) == set(words["smoking_current"].choices.values())
    assert rows["missing"].iloc[0] == "1"


def test_our_smds_are_tableone_s_where_it_has_one(analysis, study, words):
    from tableone import TableOne

    frame, split = analysis.frame, analysis.split
    for by in ("label", "partition"):
        values, categorical = cohort.table1_values(frame, split, study, words, by=by)
        own = cohort.standardised_differences(values, categorical)
        columns = list(own)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = TableOne(
                values, columns=columns, categorical=categorical, groupby="group", smd=True,
                pval=False, include_null=False,
                continuous=[c for c in columns if c not in categorical],
            ).tableone  # fmt: skip
        (shown,) = (table[c] for c in table.columns if "SMD" in c[-1])
        theirs = {v.split(",")[0]: smd for (v, _), smd in shown.items() if smd not in ("", "nan")}
        compared = [n for n in columns if np.isfinite(own[n]) and own[n] and n in theirs]
        assert len(compared) > 20
        for name in compared:
            shown_smd = float(theirs[name].replace("<0.001", "0"))
            assert own[name] == pytest.approx(shown_smd, abs=6e-4), name


def test_table1_has_an_smd_where_tableone_has_none(raw, write_dataset, study, words):
    raw["transfer"] = ["1", "1", "1", "0", "1", "0", "0", "0"]  # as the outcome
    raw["aspects"] = "9"
    raw["siphon_calc"] = ["-97", "-97", "-97", "1", "-97", "1", "2", "0"]  # none with the outcome
    frame = _build(raw, write_dataset, study, words)
    split = pd.DataFrame({"participant_id": raw.index, "partition": ["train"] * 6 + ["test"] * 2})
    table = cohort.table1(frame, split, study, words, by="label").drop_duplicates("variable")
    shown = table.set_index("variable")["smd"]
    assert shown[words["transfer"].label] == "inf"
    assert shown[f"{words['aspects'].label} (points)"] == "0.000"
    assert shown[words["siphon_calc"].label] == ""


# ---------------------------------------------------------------------------------------- screen


@pytest.fixture
def screened(study, words):
    """120 patients: an honest age; a glucose that gives the outcome away; a record number as SBP."""
    rng = np.random.default_rng(0)
    n = 120
    y = (np.arange(n) % 5 == 0).astype(int)
    frame = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:03d}" for i in range(n)],
            "age": rng.integers(40, 90, n).astype(str),
            "glucose_adm": np.where(y == 1, 300 + rng.integers(0, 9, n), 100 + rng.integers(0, 9, n)).astype(str),
            "sbp_adm": [str(80 + i) for i in range(n)],
            "sex": np.where(y == 1, "1", "0"),
            "nihss_adm": np.where(y == 1, "-99", "12"),
            "lkw_to_ct_min": [str(100 + 3 * i) for i in range(n)],
            "scan_datetime": pd.date_range("2020-01-01", periods=n).strftime("%Y-%m-%d %H:%M")[::-1],
            "rlvo": y.astype(str),
            "scans": "",
            "included": "1",
            "exclusion": "",
        }
    )  # fmt: skip
    return frame


def test_the_screen_finds_leaks_and_lets_honest_predictors_pass(screened, study, words):
    split = pd.DataFrame({"participant_id": screened["participant_id"], "partition": "train"})
    table = cohort.screen_predictors(screened, split, study, words).set_index("variable")
    assert table.loc["age", "warning"] == ""
    assert table.loc["glucose_adm", "separation"] == 1
    assert table.loc["glucose_adm", "warning"] == "nearly separates the outcome"
    assert table.loc["sex", "warning"] == "nearly separates the outcome"
    assert table.loc["nihss_adm", "warning"] == (
        "whether it is missing nearly separates the outcome; whether it is missing goes with the outcome"
    )
    assert table.loc["nihss_adm", "p_missing"] < 1e-20 and np.isnan(table.loc["age", "p_missing"])
    assert table.loc["sbp_adm", "warning"] == "follows the identifier; follows a date"
    assert table.loc["sbp_adm", "date"] == pytest.approx(-1)


def test_the_screen_sees_copies_of_the_year_and_codes_in_steps(screened, study, words):
    screened["admit_year"] = [str(2017 + i // 20) for i in range(len(screened))]
    screened["aspects"] = [str(i // 20) for i in range(len(screened))]
    screened["collateral_tan"] = [str(i // 30) for i in range(len(screened))]
    shuffled = np.random.default_rng(1).permutation(screened["scan_datetime"])  # shifted dates
    split = pd.DataFrame({"participant_id": screened["participant_id"], "partition": "train"})
    table = cohort.screen_predictors(screened.assign(scan_datetime=shuffled), split, study, words)
    warning = table.set_index("variable")["warning"]
    assert warning["aspects"] == "follows the identifier; follows a date"
    assert "follows the identifier" in warning["collateral_tan"]
    assert warning["age"] == ""


def test_the_screen_never_looks_at_the_test_part(screened, study, words):
    split = pd.DataFrame({"participant_id": screened["participant_id"], "partition": "train"})
    split.loc[60:, "partition"] = "test"
    before = cohort.screen_predictors(screened, split, study, words)
    changed = screened.copy()
    changed.loc[60:, "age"], changed.loc[60:, "rlvo"] = "50", "1"
    assert cohort.screen_predictors(changed, split, study, words).equals(before)


def test_without_criteria_or_their_columns_no_outcome_is_known(raw, study, words):
    assert cohort.derive_label(pd.DataFrame(index=["a", "b"])).isna().all()
    assert cohort.outcome_is_known(raw, study, words)
    assert not cohort.outcome_is_known(raw.drop(columns="rescue_type"), study, words)
    unknown = raw.assign(final_stenosis_pct="-99", etici_final="-99", rescue_type="-99")
    assert not cohort.outcome_is_known(unknown, study, words)
    unknown.loc["sub-03", "rescue_type"] = "2"  # one known case is enough: eligibility comes later
    assert cohort.outcome_is_known(unknown, study, words)


def test_a_study_for_its_images_asks_for_scans_alone(study):
    images = study.images_only
    assert [rule.id for rule in images.eligibility] == ["imaging"]
    assert images.criteria == () and images.scans == study.scans
    assert images.channels == study.channels and images.flip_to_side == study.flip_to_side
