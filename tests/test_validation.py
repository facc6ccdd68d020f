import dataclasses
import errno
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from phantoms import scan_path

from rlvo_lib import images, storage, validation
from rlvo_lib.config import InputError, Rule
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.simulate import patients
from rlvo_lib.validation import scans, screen
from rlvo_lib.validation.relations import half_unit


@pytest.fixture
def raw(raw):
    """Ten patients whose columns also agree with each other; five have the outcome."""
    more = raw.loc[["sub-07", "sub-01"]].set_axis(["sub-08", "sub-09"])
    more["scan_datetime"] = ["2020-02-01 10:00", "2020-02-02 10:00"]
    more["puncture_datetime"] = ["2020-02-01 11:00", "2020-02-02 11:00"]
    more["age"], more["sbp_adm"], more["glucose_adm"] = ["80", "81"], ["150", "151"], ["90", "91"]
    ten = pd.concat([raw, more]).rename_axis("participant_id")
    agreeing = {"core_ml": "10", "ivt_pre": "0", "access_failure": "0", "n_passes": "1"}
    return ten.assign(clot_length_mm="30", lkw_to_ct_min="100", **agreeing)


LABELS = ["1", "1", "1", "0", "1", "0", "0", "0", "0", "1"]


@pytest.fixture
def check(write_dataset, study, words):
    """A function that writes a table and returns its faults."""

    def faults(raw, **options):
        return validation.validate(
            write_dataset(raw), study, options.pop("words", words), **options
        )

    return faults


def _one(faults):
    assert len(faults) == 1, faults.to_string()
    return faults.iloc[0]


def _more(raw, n):
    """``n`` patients made from the ten, no two of the same content."""
    many = pd.concat([raw] * (n // 10 + 1)).iloc[:n]
    many.index = pd.Index([f"sub-{i:04d}" for i in range(n)], name="participant_id")
    for column in ("lkw_to_ct_min", "sbp_adm", "glucose_adm", "duration_min"):
        many[column] = [str(100 + i % 160) for i in range(n)]
    many["clot_hu"] = [f"{20 + i / 10:.1f}" for i in range(n)]
    many["scan_datetime"] = pd.date_range("2020-01-01", periods=n, freq="D").strftime(
        "%Y-%m-%d 10:00"
    )
    many["puncture_datetime"] = many["scan_datetime"].str.replace("10:00", "11:00")
    return many


# ------------------------------------------------------------------------------------- exclusions


def test_every_problem_of_the_exclusions_is_a_fault(raw, write_dataset, study, words):
    root = write_dataset(raw)
    file = root / "exclusions.csv"
    file.write_text("participant_id,scan,reason\nsub-99,,motion\nsub-01,mri,motion\nsub-02,,\n")
    faults = validation.validate(root, study, words)
    assert set(faults["severity"]) == {"error"} and set(faults["where"]) == {"exclusions.csv"}
    assert faults["participant_id"].tolist() == ["sub-99", "sub-01", "sub-02"]
    assert faults["message"].tolist() == [
        "line 2: patient 'sub-99' is not in the table",
        "line 3: patient 'sub-01': scan 'mri' is not known",
        "line 4: patient 'sub-02' has no reason",
    ]
    file.write_text("participant_id;reason\n")
    assert "separated by semicolons" in _one(validation.validate(root, study, words))["message"]
    file.write_text("participant_id,reason\nsub-01,motion\n")
    assert validation.validate(root, study, words).empty


def test_exclusions_may_leave_too_few_patients(raw, write_dataset, study, words):
    root = write_dataset(raw)
    rows = [f"{name},motion" for name, y in zip(raw.index, LABELS, strict=True) if y == "1"]
    (root / "exclusions.csv").write_text("\n".join(["participant_id,reason", *rows]))
    assert "without the outcome" in _one(validation.validate(root, study, words))["message"]


# ----------------------------------------------------------------------------------------- values


def test_a_good_table_has_no_faults(raw, check):
    assert check(raw).empty


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("age", "seventy", "whole number 0 to 120"),
        ("age", "130", "whole number 0 to 120"),
        ("age", "70.5", "whole number 0 to 120"),
        ("age", "-98", "missing: -99"),  # a missing code that this column does not have
        ("sex", "2", "0 (female), 1 (male)"),
        ("etici_final", "IIb", "2b50"),
        ("scan_datetime", "yesterday", "date and time"),
        ("scan_datetime", "2020-02-30 10:00", "date and time"),
        ("core_ml", "301", "0 to 300"),
        ("core_ml", "7,5", "0 to 300"),
        ("mismatch_ratio", "inf", "0 or more"),
        ("admit_year", "", "whole number"),  # required
    ],
)
def test_a_bad_value_names_patient_column_value_and_what_is_allowed(
    raw, check, column, value, allowed
):
    raw.loc["sub-03", column] = value
    fault = _one(check(raw))
    assert (fault["severity"], fault["participant_id"]) == ("error", "sub-03")
    assert (fault["where"], fault["value"]) == (column, value)
    assert allowed in fault["allowed"]


def test_all_faults_come_at_once_and_always_in_the_same_order(raw, check):
    raw.loc["sub-00", "age"] = "200"
    raw.loc["sub-01", "sex"] = "m"
    raw.loc["sub-02", "tmax10_ml"] = "60"  # above tmax6_ml, 50
    raw.loc["sub-03", "puncture_datetime"] = "2019-01-01 10:00"
    raw["shoe_size"] = "43"
    faults = check(raw)
    assert faults["where"].tolist() == [
        "shoe_size",
        "age",
        "sex",
        "tmax10_ml",
        "scan_datetime",
        "hir",
    ]
    assert (faults[faults["where"] == "shoe_size"]["severity"] == "warning").all()
    pd.testing.assert_frame_equal(faults, check(raw))


def test_white_space_around_values_is_no_fault(raw, check):
    assert check(raw.map(lambda text: f" {text} ")).empty


def test_missing_values_are_no_faults(raw, check):
    raw.loc["sub-00", ["nihss_adm", "aspects"]] = ["-99", "-97"]
    raw.loc["sub-01", "nihss_adm"] = "n/a"
    assert check(raw).empty


def test_missing_columns(raw, check):
    faults = check(raw.drop(columns=["etici_final", "aspects"]))
    severity = faults.set_index("where")["severity"].to_dict()
    assert severity == {"etici_final": "error", "aspects": "warning"}


def test_a_column_without_any_value_is_one_fault(raw, check):
    raw["aspects"], raw["rescue_type"] = ["-99", "-97"] * 5, "-99"
    faults = check(raw).set_index("where")
    severity = {"aspects": "warning", "rescue_type": "error", "rlvo": "error"}  # all left have it
    assert faults["severity"].to_dict() == severity
    assert (
        "every value of 'rescue_type' is missing; the outcome"
        in faults.loc["rescue_type", "message"]
    )


def test_a_date_in_the_future_is_an_error(raw, check):
    tomorrow = pd.Timestamp.now() + pd.Timedelta(days=2)
    raw.loc["sub-02", "scan_datetime"] = f"{tomorrow:%Y-%m-%d %H:%M}"
    fault = _one(check(raw))
    assert fault["severity"] == "error" and fault["message"].endswith("lies in the future")


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x","y")', "@SUM(A1)", "+1|x", "-cmd"])
def test_a_formula_in_a_text_field_is_a_warning(raw, check, text):
    raw["centre"] = "-0.5"  # a number is no formula
    raw.loc["sub-02", "centre"] = text
    fault = _one(check(raw))
    assert (fault["severity"], fault["participant_id"], fault["value"]) == (
        "warning",
        "sub-02",
        text,
    )
    assert "is a formula" in fault["message"]


def test_a_formula_anywhere_else_is_an_error_or_a_named_column(raw, check):
    raw.loc["sub-02", "age"] = "=1+1"
    faults = check(raw.assign(**{"=cmd": "1"}))
    assert faults["severity"].tolist() == ["warning", "error", "warning"]
    assert faults["where"].tolist() == ["=cmd", "age", "=cmd"]


@pytest.mark.parametrize("name", ["../sub-00", "sub-00/x", "sub 00", "sub-00 .", "00", "sub-é"])
def test_identifiers_must_be_bids_and_lead_nowhere(raw, write_dataset, study, words, name):
    root = write_dataset(raw.rename(index={"sub-00": name}))
    outside = root.parent / "sub-00" / "ct" / "sub-00_ncct.nii.gz"
    outside.parent.mkdir(parents=True)
    outside.write_text("not an image")
    fault = _one(validation.validate(root, study, words))
    assert (fault["severity"], fault["value"]) == ("error", name)
    assert "is not a BIDS identifier (line 2)" in fault["message"]


def test_ragged_rows_and_doubled_patients_stand_among_the_others(raw, write_dataset, study, words):
    raw.loc["sub-04", "age"] = "200"
    root = write_dataset(raw)
    path = root / "participants.tsv"
    lines = path.read_text().splitlines()
    lines[2] += "\tx"
    lines.append(lines[4].replace(f"\t{raw.loc['sub-03', 'age']}\t", "\t300\t", 1))
    path.write_text("\n".join(lines))
    faults = validation.validate(root, study, words).set_index("message")
    width = len(lines[0].split("\t"))
    assert faults.index.tolist() == [
        f"line 3 has {width + 1} fields, and is not read further",
        "Age: '200' is not allowed",
        "Age: '300' is not allowed",
        "stands in 2 rows: lines 5 and 12".replace(" and ", ", "),
    ]
    assert faults["participant_id"].tolist() == ["sub-01", "sub-04", "sub-03", "sub-03"]
    assert (faults["severity"] == "error").all()


def test_a_table_of_nothing_but_ragged_rows(raw, write_dataset, study, words):
    root = write_dataset(raw)
    (root / "participants.tsv").write_text("participant_id\tage\nsub-1\nsub-2\t1\t2\n")
    faults = validation.validate(root, study, words)
    assert faults["participant_id"].tolist()[:2] == ["sub-1", "sub-2"]


def test_what_is_no_table_at_all_stays_one_clear_line(raw, write_dataset, study, words, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        validation.validate(tmp_path / "absent", study, words)
    root = write_dataset(raw)
    (root / "participants.tsv").write_text("participant_id\tage\n")
    with pytest.raises(InputError, match="has no patients"):
        validation.validate(root, study, words)


# ------------------------------------------------------------------------------------------ units


def _with_units(words, name, **units):
    fields = words.fields | {name: dataclasses.replace(words[name], other_units=units)}
    return Dictionary(fields)


def test_a_value_in_another_unit_gets_a_hint(raw, check, words):
    raw.loc["sub-03", "glucose_adm"] = "6.7"
    fault = _one(check(raw, words=_with_units(words, "glucose_adm", **{"mmol/L": 18.016})))
    assert fault["message"].endswith("'6.7' is not allowed; looks like mmol/L (121 mg/dL)")


def test_a_column_in_another_unit_is_one_warning(raw, check, words):
    many = _more(raw, 40)
    in_hours = _with_units(words, "duration_min", h=60)
    many["duration_min"] = [str(5 + i % 2) for i in range(40)]  # 5 h is 300 min, the most allowed
    assert check(many, words=in_hours).empty  # 6 h would be 360
    many["duration_min"] = "5"
    fault = _one(check(many, words=in_hours))
    assert (fault["severity"], fault["where"]) == ("warning", "duration_min")
    assert fault["message"] == "all 40 values (5 to 5) look like h, not min"
    assert check(many.iloc[:9], words=in_hours).empty  # too few to say
    many["duration_min"] = ["5"] * 39 + ["90"]
    assert check(many, words=in_hours).empty


def test_a_column_of_zeros_is_in_any_unit(raw, check, words):
    many = _more(raw, 16).assign(final_stenosis_pct="0", etici_final="3")
    many.loc[many.index[::3], "etici_final"] = "2a"
    assert check(many, words=_with_units(words, "final_stenosis_pct", fraction=100)).empty


# -------------------------------------------------------------------------------------- relations


def test_days_are_compared_where_a_time_of_day_is_missing(raw, check):
    raw.loc["sub-03", "puncture_datetime"] = raw.loc["sub-03", "scan_datetime"][:10]
    assert check(raw).empty
    raw.loc["sub-03", "puncture_datetime"] = "2020-01-03"  # the scan is of the 4th
    assert _one(check(raw))["where"] == "scan_datetime"


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        (("10", "50", "0.2"), None),
        (("10", "50", "0.21"), None),  # 10.5 / 50 is 0.21
        (("10.0", "50.0", "0.21"), "hir is 0.21, but tmax10_ml 10.0 / tmax6_ml 50.0 is 0.2"),
        (("10.0", "50.0", "0.204"), "hir is 0.204, but tmax10_ml 10.0 / tmax6_ml 50.0 is 0.2"),
        (("10", "50", "0.3"), "hir is 0.3, but tmax10_ml 10 / tmax6_ml 50 is 0.2"),
        (("12.34", "50.00", "0.2468"), None),
        (("0", "0", "-98"), None),
        (("0", "0", "0"), None),
        (("-97", "0", "0.2"), None),
        (("10", "50", "-98"), "hir is -98 and tmax6_ml is 50"),
        (("10", "50", "-99"), None),
        (("-97", "50", "0.2"), None),
        (("10", "-97", "0.2"), None),
    ],
)
def test_a_ratio_agrees_with_its_parts_within_the_rounding(raw, check, parts, fault):
    raw.loc["sub-03", ["tmax10_ml", "tmax6_ml", "hir"]] = parts
    raw.loc["sub-03", "mismatch_ratio"] = "-99"
    faults = check(raw)
    if fault is None:
        assert faults.empty
    else:
        found = _one(faults)
        assert (found["severity"], found["where"], found["message"]) == ("error", "hir", fault)


@pytest.mark.parametrize("ratio", ["-99", "-97"])
def test_a_ratio_that_does_not_apply_and_is_not_recorded_is_a_warning(raw, check, ratio):
    raw.loc["sub-03", ["tmax10_ml", "tmax6_ml", "hir", "mismatch_ratio"]] = ["0", "0", ratio, "-99"]
    fault = _one(check(raw))
    assert (fault["severity"], fault["where"]) == ("warning", "hir")
    assert fault["message"] == f"hir is {ratio} and tmax6_ml is 0"
    assert fault["allowed"].startswith("-98 (not applicable) where tmax6_ml is 0")


@pytest.mark.parametrize(("core", "least"), [("0", "99"), ("0.0", "990"), ("0.00", "9900")])
def test_a_denominator_of_nought_is_known_to_half_its_last_digit(raw, check, core, least):
    raw.loc["sub-03", ["tmax6_ml", "hir", "core_ml"]] = ["50", "0.2", core]
    for ratio in ("-98", least, "99999"):
        raw.loc["sub-03", "mismatch_ratio"] = ratio
        assert check(raw).empty
    raw.loc["sub-03", "mismatch_ratio"] = "60.0"
    fault = _one(check(raw))
    assert (fault["severity"], fault["where"]) == ("error", "mismatch_ratio")
    assert fault["message"].endswith(f"/ core_ml {core} is at least {float(least):.3g}")


def test_half_a_unit_of_the_last_digit():
    text = pd.Series(["12", "0.4", " 0.40 ", "1e3", "1.5E-3", "-3.0", "5."])
    np.testing.assert_allclose(half_unit(text), [0.5, 0.05, 0.005, 500, 5e-5, 0.05, 0.5])


def test_a_ratio_is_never_refused_for_correct_rounding(raw, check):
    rng = np.random.default_rng(0)
    many = _more(raw, 400)
    top, bottom = rng.uniform(0, 60, 400), rng.uniform(60, 300, 400)
    many["tmax10_ml"] = [f"{v:.1f}" for v in top]
    many["tmax6_ml"] = [f"{v:.0f}" for v in bottom]
    many["hir"] = [f"{v:.2f}" for v in top / bottom]
    many["tmax4_ml"], many["mismatch_ratio"] = "600", [f"{v:.1f}" for v in bottom.round() / 10]
    assert check(many).empty


@pytest.mark.parametrize(
    ("etici", "stenosis", "message"),
    [
        ("0", "40", "final_stenosis_pct is 40 and etici_final is 0"),
        ("0", "-99", "final_stenosis_pct is -99 and etici_final is 0"),
        ("3", "-98", "final_stenosis_pct is -98 and etici_final is 3"),
        ("-99", "-98", None),
        ("-99", "40", None),
    ],
)
def test_a_source_that_does_not_apply_has_its_code(raw, check, etici, stenosis, message):
    raw.loc["sub-06", ["etici_final", "final_stenosis_pct"]] = [etici, stenosis]
    faults = check(raw)
    assert faults["message"].tolist() == ([message] if message else [])
    if message:
        fault = faults.iloc[0]
        assert (fault["severity"], fault["where"]) == ("error", "final_stenosis_pct")
        assert fault["allowed"] == "-98 (not applicable) where etici_final is 0, and only there"


def test_the_stored_outcome_is_the_derived_one(raw, check):
    stored = raw.assign(rlvo=[*LABELS[:-1], " 1.0 "])
    assert check(stored).empty
    stored.loc["sub-03", "rlvo"] = "1"
    fault = _one(check(stored))
    assert (fault["severity"], fault["participant_id"], fault["where"]) == (
        "error",
        "sub-03",
        "rlvo",
    )
    assert fault["message"].startswith(
        "stored 1, derived 0 (final_stenosis_pct 0, etici_final 2b50"
    )


@pytest.mark.parametrize(
    ("stored", "stenosis", "severity", "message"),
    [
        ("-99", "0", "warning", "stored -99, derived 0"),
        ("", "0", "warning", "stored empty, derived 0"),
        ("0", "-99", "error", "stored 0, derived missing"),
        ("-99", "-99", None, ""),
        ("maybe", "0", "error", "stored maybe, derived 0"),
    ],
)
def test_a_stored_outcome_that_is_missing_or_cannot_be_known(
    raw, check, stored, stenosis, severity, message
):
    raw = raw.assign(rlvo=LABELS)
    raw.loc["sub-06", ["rlvo", "final_stenosis_pct"]] = [stored, stenosis]
    faults = check(raw)
    assert faults["severity"].tolist() == ([severity] if severity else [])
    assert not severity or faults["message"].iloc[0].startswith(message)


def test_the_stored_outcome_is_the_main_definition_s(raw, write_dataset, study, words):
    root = write_dataset(raw.assign(rlvo=LABELS))
    faults = validation.validate(root, study.under("etici_only"), words)
    assert not faults["message"].str.startswith("stored").any()


def test_a_faulty_source_is_said_once(raw, check):
    raw = raw.assign(rlvo=LABELS)
    raw.loc["sub-00", "final_stenosis_pct"] = "not done"  # eTICI 0: -98 would be asked for
    raw.loc["sub-06", "final_stenosis_pct"] = "200"
    assert check(raw)["where"].tolist() == ["final_stenosis_pct"] * 2


@pytest.mark.parametrize(
    ("values", "where", "severity", "message"),
    [
        (
            {"ivt_pre": "1", "anticoagulant": "2", "onset_type": "0"},
            "anticoagulant",
            "warning",
            "takes an anticoagulant (ivt_pre 1, anticoagulant 2)",
        ),
        ({"ivt_pre": "1", "anticoagulant": "-99", "onset_type": "0"}, "", "", ""),
        ({"ivt_pre": "-99", "anticoagulant": "2"}, "", "", ""),
        (
            {"ivt_pre": "1", "anticoagulant": "0", "onset_type": "0", "lkw_to_ct_min": "271"},
            "lkw_to_ct_min",
            "warning",
            "(ivt_pre 1, onset_type 0, lkw_to_ct_min 271)",
        ),
        (
            {"access_failure": "1", "n_passes": "2", "rescue_type": "0"},
            "n_passes",
            "error",
            "(access_failure 1, n_passes 2)",
        ),
        (
            {"n_passes": "0", "first_pass_etici": "3"},
            "first_pass_etici",
            "error",
            "(n_passes 0, first_pass_etici 3)",
        ),
        ({"n_passes": "0", "first_pass_etici": "-98"}, "", "", ""),
        (
            {"core_ml": "60.0", "mismatch_ratio": "0.83"},
            "mismatch_ratio",
            "warning",
            "larger than the volume with Tmax > 6 s (mismatch_ratio 0.83)",
        ),
    ],
)
def test_the_study_s_own_relations(raw, check, values, where, severity, message):
    raw.loc["sub-03", list(values)] = list(values.values())
    faults = check(raw)
    assert faults["where"].tolist() == ([where] if where else [])
    if where:
        fault = faults.iloc[0]
        assert fault["severity"] == severity and fault["message"].endswith(message)


def test_what_a_relation_allows_is_said_in_words(raw, check):
    raw.loc["sub-03", ["n_passes", "first_pass_etici"]] = ["0", "3"]
    raw.loc["sub-05", ["ivt_pre", "anticoagulant", "onset_type"]] = ["1", "1", "0"]
    raw.loc["sub-05", "lkw_to_ct_min"] = "300"
    allowed = check(raw).set_index("where")["allowed"].to_dict()
    assert allowed == {
        "anticoagulant": "anticoagulant: 0 (none)",
        "lkw_to_ct_min": "lkw_to_ct_min: at most 270",
        "first_pass_etici": "first_pass_etici: -98 (not applicable) or -99 (not recorded)",
    }


def test_a_relation_may_ask_for_a_value_and_for_a_range(raw, write_dataset, study, words):
    relation = dataclasses.replace(
        study.consistency[0],
        when=(),
        then=(
            Rule("", "", "code", "nihss_adm", ""),
            Rule("", "", "between", "age", (60, 66)),
        ),
    )
    raw["age"] = "65"
    raw.loc["sub-01", "nihss_adm"], raw.loc["sub-07", "age"] = "-99", "67"
    other = dataclasses.replace(study, consistency=(relation,))
    faults = validation.validate(write_dataset(raw), other, words)
    assert faults["participant_id"].tolist() == ["sub-01", "sub-07"]
    assert set(faults["allowed"]) == {"nihss_adm: a value; age: 60 to 66"}


# ------------------------------------------------------------------------------------- duplicates


def test_the_same_content_under_two_identifiers(raw, check):
    twin = raw.loc[["sub-03"]].rename(index={"sub-03": "sub-99"})
    fault = _one(check(pd.concat([raw, twin])))
    assert (fault["severity"], fault["participant_id"], fault["value"]) == (
        "error",
        "sub-99",
        "sub-03",
    )
    assert fault["message"] == "the same content as sub-03 (lines 5 and 12)"


def test_a_corrected_copy_is_a_warning_that_says_what_differs(raw, check):
    twin = raw.loc[["sub-03"]].rename(index={"sub-03": "sub-99"})
    twin[["age", "cad", "centre"]] = ["31", str(1 - int(raw.loc["sub-03", "cad"])), "B"]
    twin["scan_datetime"] = "-99"
    fault = _one(check(pd.concat([raw, twin])))
    assert (fault["severity"], fault["participant_id"], fault["value"]) == (
        "warning",
        "sub-99",
        "sub-03",
    )
    assert fault["message"].startswith("nearly the same content as sub-03 (lines 5 and 12); of ")
    assert fault["message"].endswith(
        " columns that both have, age, cad differ; a split keeps them on one side"
    )


def test_one_patient_three_times_is_named_by_what_is_the_same(raw, check):
    twin = raw.loc[["sub-03"] * 2].set_axis(["sub-98", "sub-99"])
    twin["age"] = "31"
    faults = check(pd.concat([raw, twin]).rename_axis("participant_id"))
    assert faults["severity"].tolist() == ["warning", "error"]
    assert faults["participant_id"].tolist() == ["sub-98", "sub-99"]
    assert faults["value"].tolist() == ["sub-03", "sub-98"]


def test_the_same_scan_time_and_five_quantities(raw, check):
    twin = raw.loc[["sub-03"]].rename(index={"sub-03": "sub-99"})
    twin[["sex", "age", "sbp_adm"]] = [str(1 - int(raw.loc["sub-03", "sex"])), "31", "99"]
    fault = _one(check(pd.concat([raw, twin])))
    assert (fault["severity"], fault["participant_id"], fault["value"]) == (
        "warning",
        "sub-99",
        "sub-03",
    )
    assert fault["message"].startswith("the same scan_datetime as sub-03 (lines 5 and 12)")
    twin["scan_datetime"] = "2020-01-04 10:01"
    assert check(pd.concat([raw, twin])).empty


def test_many_of_one_scan_time_are_compared_as_wholes(raw, check):
    many = _more(raw, 64).assign(scan_datetime="2020-01-01 10:00")
    assert check(many).empty
    many.loc["sub-0050"] = many.loc["sub-0010"]
    for column in ("sex", "cad", "diabetes"):
        many.loc["sub-0050", column] = str(1 - int(many.loc["sub-0010", column]))
    fault = _one(check(many))
    assert (fault["severity"], fault["participant_id"], fault["value"]) == (
        "warning", "sub-0050", "sub-0010",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ scans


def _save(root, patient, scan, seed=0):
    """Noise in a sphere: of the size of a head, and all that the checks ask of one."""
    place = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0)
    noise = np.random.default_rng(seed).integers(-150, 200, place.shape)
    array = np.where(place < 9, noise, -1000).astype(np.int16)
    return images.save_nifti(scan_path(root, patient, scan), array, np.diag([8.0, 8, 8, 1]))


@pytest.fixture
def scanned(raw, write_dataset):
    """A dataset folder in which every patient has an NCCT and a CTA."""
    root = write_dataset(raw)
    for seed, patient in enumerate(raw.index):
        _save(root, patient, "ncct", seed)
        _save(root, patient, "cta", seed + 100)
    return root


def test_a_dataset_with_scans_has_no_faults(scanned, study, words):
    (scanned / "sub-00" / "ct" / "sub-00_cta.json").write_text("{}")  # a BIDS sidecar
    (scanned / "sub-00" / ".DS_Store").write_text("")
    assert validation.validate(scanned, study, words).empty
    assert validation.validate(scanned, study, words, read_scans=True).empty


def test_scans_are_checked_by_patient_and_file(scanned, study, words):
    scan_path(scanned, "sub-01", "cta").write_text("not an image")
    fault = _one(validation.validate(scanned, study, words))
    assert (fault["severity"], fault["participant_id"]) == ("error", "sub-01")
    assert fault["where"] == "sub-01/ct/sub-01_cta.nii.gz"


def test_reading_the_scans_finds_what_headers_do_not_show(raw, write_dataset, study, words):
    root = write_dataset(raw)
    for seed, patient in enumerate(raw.index):
        path = _save(root, patient, "ncct", seed)
    path.write_bytes(path.read_bytes()[:-2000])
    assert validation.validate(root, study, words).empty
    faults = validation.validate(root, study, words, read_scans=True)
    assert faults["participant_id"].tolist() == ["sub-09"]
    assert "damaged or truncated" in faults["message"].iloc[0]


def test_geometry_is_judged_from_headers_and_values_from_voxels(scanned, study, words):
    array, affine = images.load_nifti(scan_path(scanned, "sub-01", "cta"))
    images.save_nifti(scan_path(scanned, "sub-01", "cta"), array.astype(np.int16), affine / 10)
    images.save_nifti(scan_path(scanned, "sub-02", "ncct"), (array + 1024).astype(np.int16), affine)
    tilted = affine.copy()
    tilted[1, 2] = 2.0
    images.save_nifti(scan_path(scanned, "sub-03", "cta"), array.astype(np.int16), tilted)
    faults = validation.validate(scanned, study, words)
    assert faults[["severity", "where"]].to_numpy().tolist() == [
        ["error", "sub-01/ct/sub-01_cta.nii.gz"], ["warning", "sub-03/ct/sub-03_cta.nii.gz"],
    ]  # fmt: skip
    assert "too small for a head" in faults["message"].iloc[0]
    assert (
        "tilted gantry" in faults["message"].iloc[1] and "14.0 degrees" in faults["value"].iloc[1]
    )
    read = validation.validate(scanned, study, words, read_scans=True)
    fault = _one(read[read["where"] == "sub-02/ct/sub-02_ncct.nii.gz"])
    assert fault["severity"] == "error" and "without their offset" in fault["message"]


def test_folders_without_a_row_and_rows_without_a_scan(scanned, study, words):
    _save(scanned, "sub-99", "cta", 7)
    (scanned / "sub-98").mkdir()
    scan_path(scanned, "sub-02", "cta").unlink()
    for scan in ("ncct", "cta"):
        scan_path(scanned, "sub-03", scan).unlink()
    faults = validation.validate(scanned, study, words).set_index("participant_id")
    assert (faults["severity"] == "warning").all()
    assert faults["message"].to_dict() == {
        "sub-98": "scans without a row are not used (images: 0)",
        "sub-99": "scans without a row are not used (images: 1)",
        "sub-02": "lacks cta",
        "sub-03": "a row without any scan",
    }
    assert faults.loc["sub-02", "allowed"] == "as other patients: ncct, cta"


def test_files_that_are_no_scan_are_named_once_a_patient(scanned, study, words):
    for number in range(7):
        (scanned / "sub-02" / "ct" / f"slice{number}.dcm").write_text("")
    fault = _one(validation.validate(scanned, study, words))
    assert (fault["severity"], fault["participant_id"], fault["value"]) == (
        "warning",
        "sub-02",
        "7 files",
    )
    assert fault["message"].endswith("slice4.dcm and 2 more")


def test_the_same_file_under_two_patients(scanned, study, words):
    copied = scan_path(scanned, "sub-01", "cta").read_bytes()
    scan_path(scanned, "sub-05", "cta").write_bytes(copied)
    scan_path(scanned, "sub-01", "ncct").write_bytes(copied)  # within one patient: not judged
    fault = _one(validation.validate(scanned, study, words))
    assert (fault["severity"], fault["participant_id"], fault["value"]) == (
        "error",
        "sub-05",
        "sub-01",
    )
    assert fault["where"] == "sub-05/ct/sub-05_cta.nii.gz"


def test_equal_masks_of_two_patients_are_no_fault(scanned, study, words):
    copied = scan_path(scanned, "sub-01", "cta").read_bytes()
    scan_path(scanned, "sub-05", "cta").write_bytes(copied)
    masks = study.scans | {"cta": dataclasses.replace(study.scans["cta"], kind="mask")}
    assert validation.validate(scanned, dataclasses.replace(study, scans=masks), words).empty


@pytest.mark.parametrize("place", ["sub-02", "sub-02/ct", "sub-02/ct\udcff"])
def test_a_file_name_that_is_not_utf_8_can_be_written(scanned, study, words, tmp_path, place):
    (scanned / place).mkdir(exist_ok=True)
    try:
        (scanned / place / "Tom\udcf3grafo.nii.gz").write_text("")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    fault = _one(validation.validate(scanned, study, words))
    assert (fault["severity"], fault["participant_id"]) == ("warning", "sub-02")
    assert fault["where"] == f"{place}/Tom\\xf3grafo.nii.gz".replace("\udcff", "\\xff")
    storage.write_json(tmp_path / "faults.json", [fault.to_dict()])
    assert storage.read_json(tmp_path / "faults.json") == [fault.to_dict()]


def test_a_link_that_leads_out_of_the_dataset(scanned, study, words, tmp_path):
    outside = tmp_path / "elsewhere"
    (scanned / "sub-01").rename(outside)
    (scanned / "sub-01").symlink_to(outside)
    (scanned / "sub-02" / "ct").rename(tmp_path / "ct")
    (scanned / "sub-02" / "ct").symlink_to(tmp_path / "ct")
    (scanned / "sub-03" / "ct").rename(scanned / "stored")
    (scanned / "sub-03" / "ct").symlink_to(scanned / "stored")  # inside: allowed
    faults = validation.validate(scanned, study, words)
    links = faults[faults["severity"] == "error"]
    assert links["where"].tolist() == ["sub-01", "sub-02/ct"]
    assert set(links["message"]) == {"a link that leads out of the dataset"}
    assert faults["participant_id"].tolist() == ["sub-01", "sub-02"]


def test_a_link_to_itself_is_no_scan(scanned, study, words):
    path = scan_path(scanned, "sub-01", "cta")
    path.unlink()
    path.symlink_to(path)
    fault = _one(validation.validate(scanned, study, words))
    assert (fault["participant_id"], fault["message"]) == ("sub-01", "lacks cta")


def test_a_folder_that_cannot_be_read(scanned, study, words, monkeypatch):
    check = scans._check_scans

    def refuse(root, patient, *rest):
        if patient == "sub-01":
            raise PermissionError(errno.EACCES, "Permission denied")
        return check(root, patient, *rest)

    monkeypatch.setattr(scans, "_check_scans", refuse)
    faults = validation.validate(scanned, study, words)
    assert faults["participant_id"].tolist() == ["sub-01"]
    assert faults["message"].tolist() == ["cannot be read (Permission denied)"]


# ------------------------------------------------------------------------------- cohort and split


def _split(root, rows):
    text = "\n".join(["participant_id,partition,fold", *(",".join(row) for row in rows)])
    (root / "split.csv").write_text(text + "\n")


def test_a_faulty_split_is_found(raw, write_dataset, study, words):
    root = write_dataset(raw)
    _split(root, [(name, "train", str(1 + i % 3)) for i, name in enumerate(raw.index)])
    fault = validation.validate(root, study, words).iloc[0]
    assert fault["where"] == "split.csv" and "fold 4 has no patient" in fault["message"]


@pytest.fixture
def divided(raw, write_dataset):
    """Forty patients with a split of their own: eight in the test part, folds of eight."""
    many = _more(raw, 40)
    root = write_dataset(many)
    rows = [
        [name, "test", ""] if i < 8 else [name, "train", str(i // 8)]
        for i, name in enumerate(many.index)
    ]
    _split(root, rows)
    return root, many, rows


def test_a_good_split_has_no_faults(divided, study, words):
    assert validation.validate(divided[0], study, words).empty


def test_patients_of_the_split_who_are_unknown_or_stand_twice(divided, study, words):
    root, _, rows = divided
    _split(root, [*rows, ["sub-9999", "train", "1"]])
    fault = _one(validation.validate(root, study, words))
    assert (fault["severity"], fault["participant_id"], fault["where"]) == (
        "warning", "sub-9999", "split.csv",
    )  # fmt: skip
    _split(root, [*rows, rows[0]])
    fault = _one(validation.validate(root, study, words))
    assert fault["severity"] == "error" and "'sub-0000' stands in it twice" in fault["message"]


def test_one_patient_on_both_sides_under_two_identifiers(divided, write_dataset, study, words):
    root, many, _ = divided
    many.loc["sub-0030"] = many.loc["sub-0001"]
    write_dataset(many)
    faults = validation.validate(root, study, words)
    assert faults["where"].tolist() == ["participants.tsv", "split.csv"]
    assert (faults["severity"] == "error").all()
    assert (
        "'sub-0001' and 'sub-0030' have the same or nearly the same content"
        in faults["message"].iloc[1]
    )


def test_a_corrected_copy_on_the_other_side_is_an_error(divided, write_dataset, study, words):
    root, many, _ = divided
    many.loc["sub-0030"] = many.loc["sub-0001"]
    many.loc["sub-0030", ["age", "nihss_adm"]] = ["31", "-99"]
    write_dataset(many)
    faults = validation.validate(root, study, words)
    assert faults["severity"].tolist() == ["warning", "error"]
    assert faults["where"].tolist() == ["participants.tsv", "split.csv"]
    assert "'sub-0001' and 'sub-0030'" in faults["message"].iloc[1]


def test_the_table_s_own_split_columns_must_agree(divided, write_dataset, study, words):
    root, many, rows = divided
    columns = {
        name: dataclasses.replace(
            words["centre"], name=name, timing="ID", type=kind, missing=("-98",)
        )
        for name, kind in (("split", "text"), ("cv_fold", "integer"))
    }
    own = Dictionary(words.fields | columns)
    many["split"] = [row[1] for row in rows]
    many["cv_fold"] = [row[2] or "-98" for row in rows]
    write_dataset(many)
    assert validation.validate(root, study, own).empty
    many.loc["sub-0030", ["split", "cv_fold"]] = ["test", "-98"]
    write_dataset(many)
    faults = validation.validate(root, study, own)
    assert faults["message"].tolist() == [
        "'split' is test, but split.csv has train",
        "'cv_fold' is -98, but split.csv has 3",
    ]
    (root / "split.csv").unlink()
    faults = validation.validate(root, study, own)
    assert faults["severity"].tolist() == ["warning", "warning"]
    assert "is not used" in faults["message"].iloc[0]


def test_nobody_eligible(raw, check):
    fault = _one(check(raw.assign(age="12")))
    assert fault["severity"] == "error" and "none of 10 patients is eligible" in fault["message"]


def test_only_one_outcome(raw, check):
    fault = _one(check(raw.assign(etici_final="3", final_stenosis_pct="0", rescue_type="0")))
    assert (fault["severity"], fault["where"]) == ("error", "rlvo")
    assert fault["message"] == "all 10 eligible patients are without the outcome"


def test_a_single_patient(raw, check):
    fault = _one(check(raw.iloc[[3]]))
    assert fault["severity"] == "error" and fault["message"] == "a single eligible patient"


def test_too_few_patients_for_the_folds(raw, check):
    fault = _one(check(raw.iloc[:6]))
    assert fault["message"] == "of 6 eligible patients 4 have the outcome: too few for the folds"


def test_the_cohort_is_checked_beside_other_errors(raw, check):
    raw.loc["sub-03", "age"] = "200"
    faults = check(raw.assign(etici_final="3", final_stenosis_pct="0", rescue_type="0"))
    assert faults["where"].tolist() == ["age", "rlvo"]


def test_require_valid_says_the_first_and_how_many(raw, write_dataset, study, words):
    raw.loc["sub-02", "age"], raw.loc["sub-03", "sex"] = "200", "x"
    with pytest.raises(InputError, match=r"patient 'sub-02', age: .*2 errors in all") as caught:
        validation.require_valid(write_dataset(raw), study, words)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------- bad, and large

ODD = ["nan", "inf", "1e400", "1e308", "1e-320", "-0", "٣", "x" * 500, "2020-01-01T25:00", "9999-12-31",
       "0000-01-01", "=1", "'", "\x1b[31m", "[red]", "-98", "-99", "", "n/a", " ", "0", "True", "0x10",
       "../x", "\u202e", ".5", "5.", "+5", "1e3", "2020-01-01 10:00Z", "\u2028"]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_no_text_in_a_table_ends_in_anything_but_faults(raw, write_dataset, study, words, seed):
    rng = np.random.default_rng(seed)
    odd = raw.assign(rlvo="0", **{"": "", "a/b": "1"})
    for _ in range(rng.choice([3, 60, 400])):
        odd.iat[rng.integers(len(odd)), rng.integers(odd.shape[1])] = ODD[rng.integers(len(ODD))]
    root = write_dataset(odd.iloc[: rng.integers(1, 11)])
    (root / "split.csv").write_text("participant_id,partition,fold\nsub-01,train,9\n../x,,\n")
    faults = validation.validate(root, study, words)
    assert len(faults) and faults.map(lambda cell: isinstance(cell, str)).all(axis=None)
    assert "errors" in validation.show(faults, "odd").splitlines()[-1]


def _simulated(folder, n):
    """A table of ``n`` simulated patients, without scans."""
    _, table, split = patients.select(n, 7)
    text = table.astype(object).map(
        lambda v: f"{v:g}" if isinstance(v, float) and v == round(v) else str(v)
    )
    folder.mkdir()
    text.to_csv(folder / "participants.tsv", sep="\t", index=False)
    storage.write_csv(folder / "split.csv", split)
    storage.write_json(folder / "dataset_description.json", {"Name": "x", "simulated": True})
    return folder


def test_fifty_thousand_patients_take_less_than_half_a_minute(tmp_path, study, words):
    root = _simulated(tmp_path / "big", 50_000)
    begun = time.monotonic()
    faults = validation.validate(root, study, words)
    assert time.monotonic() - begun < 30
    texts = {relation.text for relation in study.consistency}
    warnings = faults[faults["severity"] == "warning"]["message"]
    # Scans are timed to the minute: among so many, two patients of one minute may be alike by chance.
    alike = warnings[warnings.str.startswith("the same scan_datetime as")]
    assert len(alike) <= 1
    assert {m.rsplit(" (", 1)[0] for m in warnings.drop(alike.index)} <= texts


def test_memory_grows_no_faster_than_the_table(tmp_path, study, words):
    peaks = []
    for n in (500, 500, 2000):  # the first one loads what later ones find loaded
        root = _simulated(tmp_path / f"{n}-{len(peaks)}", n)
        tracemalloc.start()
        validation.validate(root, study, words)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 5 * peaks[1]


# ----------------------------------------------------------------------------------------- screen


def _faults(n, **given):
    row = {"severity": "warning", "participant_id": "", "where": "age", "value": "1", "allowed": "2",
           "message": "wrong"}  # fmt: skip
    return pd.DataFrame([row | given | {"participant_id": f"sub-{i}"} for i in range(n)])


def test_the_screen_shows_errors_first_and_fifty_of_a_kind():
    faults = pd.concat(
        [_faults(1284), _faults(2, severity="error", where="sex"), _faults(60, where="nihss")]
    )
    text = validation.show(faults, "mine")
    lines = [line for line in text.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines[2:4]] == ["error", "error"]
    assert text.count("and 1,234 more (see --json)") == 1 and "and 10 more (see --json)" in text
    assert len([line for line in lines if "sub-" in line]) == 2 + 50 + 50
    assert lines[-1] == "mine: 2 errors, 1,344 warnings"
    assert max(map(len, lines)) <= 160 and "\x1b" not in text


def test_files_of_many_patients_are_one_kind():
    faults = _faults(60)
    faults["where"] = [f"{name}/ct/x.nii.gz" for name in faults["participant_id"]]
    assert "and 10 more" in validation.show(faults, "mine")


def test_text_of_a_dataset_cannot_take_over_the_screen():
    evil = "[red]x[/red] \x1b[2J\x07\u202e :smile: \r\n" + "y" * 1000
    text = validation.show(_faults(1, message=evil, value=evil, where=evil, allowed=evil), evil)
    assert "[red]x[/red]" in text and ":smile:" in text
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(text)
    assert screen.printable("a\x1b") == "a\\x1b"
    assert text.count("y") < 5 * 300


def test_on_a_terminal_the_table_fits_and_has_colours(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = validation.show(_faults(3, severity="error", message="long " * 40), "mine")
    assert "\x1b[" in text and "mine: 3 errors, 0 warnings" in text
    assert text.count("\n") > 3 * 5  # the message is folded
