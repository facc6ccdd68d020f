import csv
import dataclasses
import math

import pytest

from rlvo_lib import dictionary
from rlvo_lib.config import InputError, project_root
from rlvo_lib.dictionary import REDCAP_COLUMNS, Dictionary


def test_committed_page_is_what_the_dictionary_renders(study, words):
    page = (project_root() / "data_dictionary.md").read_text(encoding="utf-8")
    assert page == dictionary.render(words, study.outcome_label), "run: make dictionary"


def test_every_column_of_the_study_file_is_in_the_dictionary(study, words):
    rules = [rule.column for rule in (*study.criteria, *study.eligibility) if rule.column]
    predictors = [column for group in study.predictors.values() for column in group]
    for column in (*rules, *predictors, study.side_column):
        assert column in words


def test_all_predictor_sets_are_known_before_the_intervention(study, words):
    for group in study.predictors.values():
        words.refuse_leakage(group)


def test_every_other_timing_is_refused_as_a_predictor(words):
    refused = [f.name for f in words.fields.values() if f.timing not in ("PRE", "DERIVED")]
    assert {"n_passes", "etici_final", "nihss_24h", "admit_year", "participant_id"} <= set(refused)
    for column in refused:
        with pytest.raises(InputError, match=f"column '{column}' cannot be a predictor"):
            words.refuse_leakage((column,))


def test_sensitivity_columns_need_the_switch(words):
    only = [f.name for f in words.fields.values() if f.timing == "PRE_SENSITIVITY"]
    assert {"admit_year", "centre", "operator", "off_hours", "ctp_vendor"} <= set(only)
    words.refuse_leakage(only, allow_sensitivity=True)
    for column in only:
        reason = words.leakage(column)
        assert f"column '{column}' cannot be a predictor: its timing is PRE_SENSITIVITY" in reason
        assert reason.endswith("or PRE_SENSITIVITY with the setting allow_sensitivity_predictors")
        assert words.leakage(column, allow_sensitivity=True) == ""
    assert "with the setting" not in words.leakage("n_passes")
    with pytest.raises(InputError, match="its timing is INTRA"):
        words.refuse_leakage(("age", "n_passes"), allow_sensitivity=True)


def test_leakage_is_asked_for_without_raising(words):
    assert words.leakage("age") == words.leakage("hir") == ""
    assert words.leakage("shoe_size") == "column 'shoe_size' is not in the data dictionary"


def test_a_derived_column_is_judged_by_its_parents(words):
    words.refuse_leakage(("hir", "mismatch_ratio"))
    with pytest.raises(InputError, match=r"'rlvo' \(made from 'final_stenosis_pct'\)"):
        words.refuse_leakage(("rlvo",))


def test_types_and_choices(words):
    assert words["age"].is_quantity and not words["age"].is_categorical
    assert words["sex"].choices == {"0": "female", "1": "male"}
    assert words["hir"].is_quantity and (words["hir"].low, words["hir"].high) == (0, 1)
    assert words["final_stenosis_pct"].missing == ("-99", "-98")
    assert "2b50" in words["etici_final"].choices
    with pytest.raises(InputError, match="column 'shoe_size' is not in the data dictionary"):
        words["shoe_size"]


def test_a_calculated_column_marked_pre_is_still_judged_by_its_parents(words):
    fields = dict(words.fields)
    fields["rlvo"] = dataclasses.replace(fields["rlvo"], timing="PRE")
    assert "(made from 'final_stenosis_pct')" in Dictionary(fields).leakage("rlvo")
    fields["double"] = dataclasses.replace(fields["hir"], name="double", parents=("rlvo", "age"))
    assert "'double' (made from 'final_stenosis_pct')" in Dictionary(fields).leakage("double")
    fields["hir"] = dataclasses.replace(fields["hir"], parents=("ctp_vendor",))
    reason = Dictionary(fields).leakage("hir")
    assert "'hir' (made from 'ctp_vendor')" in reason and dictionary.fields.SETTING in reason
    assert Dictionary(fields).leakage("hir", allow_sensitivity=True) == ""


def test_the_setting_that_the_message_names_exists(settings):
    assert getattr(settings, dictionary.fields.SETTING) is False


def _register(study):
    path = study.folder / dictionary.REGISTER
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


#: What must never be a predictor; what a hospital knows beforehand but is not the patient stands last.
REGISTERED = [
    "groin_puncture_time", "puncture_to_recan", "procedure_duration", "n_passes",
    "first_line_technique", "device_brand", "stent_retriever_size", "bgc_used", "first_pass_tici",
    "etici_final", "aol_score", "final_stenosis_pct", "reocclusion_intraproc", "rescue_any",
    "rescue_type", "ia_tirofiban", "iib_iiia", "ia_lytic", "cervical_stent", "intracranial_stent",
    "balloon", "access_failure", "access_site_crossover", "dsa_occlusion_type",
    "dsa_collateral_asitn", "dsa_icad_suspected", "perforation", "dissection", "vasospasm",
    "distal_embolus_ent", "contrast_volume", "fluoroscopy_time", "heparin_intraproc",
    "anaesthesia_final", "anaesthesia_conversion", "postproc_antithrombotic", "toast_discharge",
    "af_new_inhospital", "nihss_24h", "nihss_discharge", "followup_infarct_volume", "hi_ph_sich",
    "craniectomy", "edema", "mrs_discharge", "mrs_90d", "death", "los", "repeat_ct_after_groin",
    "repeat_cta_after_groin", "image_after_puncture", "followup_dwi",
]  # fmt: skip
BORDERLINE = ["anaesthesia_planned", "operator", "year", "hours"]


def test_the_register_is_complete(study, words):
    names = {row["name"]: row for row in _register(study)}
    assert set(REGISTERED) | set(BORDERLINE) <= set(names)
    borderline = {name for name, row in names.items() if row["timing"] == "PRE_SENSITIVITY"}
    assert set(BORDERLINE) <= borderline and not borderline & set(REGISTERED)
    for row in names.values():
        if row["field"]:
            assert words[row["field"]].timing == row["timing"], row["name"]


def test_every_registered_name_is_refused_in_any_spelling(study, words):
    for row in _register(study):
        name = row["name"]
        for written in (name, name.upper(), name.replace("_", " "), name.title().replace("_", "-")):
            with pytest.raises(InputError) as caught:
                words.refuse_leakage((written,))
            message = f"column '{written}' cannot be a predictor: its timing is {row['timing']}"
            assert str(caught.value).startswith(message) and row["why"] in str(caught.value)
            passes = row["timing"] == "PRE_SENSITIVITY" and written in words
            assert (words.leakage(written, allow_sensitivity=True) == "") == passes


def test_every_registered_name_is_refused_although_a_dictionary_marks_it_pre(study, words):
    for row in _register(study):
        column = dataclasses.replace(words["age"], name=row["name"])
        fields = dict(words.fields) | {row["name"]: column}
        assert "leakage register" in Dictionary(fields, words.register).leakage(row["name"])
        assert Dictionary(fields).leakage(row["name"]) == "", "only the register refuses it"


def test_the_stricter_of_register_and_dictionary_holds(words):
    fields = dict(words.fields)
    fields["operator"] = dataclasses.replace(fields["operator"], timing="POST")
    reason = Dictionary(fields, words.register).leakage("operator", allow_sensitivity=True)
    assert "its timing is POST" in reason


def _rows(study):
    with open(study.dictionary_path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _write(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_dictionary_that_marks_a_registered_name_as_pre_is_refused(study, tmp_path):
    rows = _rows(study)
    register = (study.folder / dictionary.REGISTER).read_text(encoding="utf-8")
    (tmp_path / dictionary.REGISTER).write_text(register, encoding="utf-8")
    assert dictionary.load(_write(tmp_path / "good.csv", rows)).register
    for column, timing, instead in (
        ("n_passes", "PRE", "INTRA"), ("first_pass_etici", "PRE_SENSITIVITY", "INTRA"),
        ("off_hours", "PRE", "PRE_SENSITIVITY"),
    ):  # fmt: skip
        broken = [dict(row) for row in rows]
        row = next(row for row in broken if row["Variable / Field Name"] == column)
        old = f"@TIMING={instead}"
        row["Field Annotation"] = row["Field Annotation"].replace(old, f"@TIMING={timing}")
        message = f"field '{column}' has timing {timing}, but the leakage register names it"
        with pytest.raises(InputError, match=message) as caught:
            dictionary.load(_write(tmp_path / "broken.csv", broken))
        assert str(caught.value).endswith(f"allowed: {instead}")
    (tmp_path / dictionary.REGISTER).unlink()
    assert dictionary.load(_write(tmp_path / "broken.csv", broken)).register == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,timing,why\nx,INTRA,y\n", "column 'field' of a leakage register is missing"),
        ("name,timing,field,why\nx,PRE,,y\n", "line 2: timing of 'x' is 'PRE'; allowed: PRE_SENS"),
        ("name,timing,field,why\nx,INTRA,,\n", "line 2: 'x' has no reason in column 'why'"),
        ("name,timing,field,why\n--,INTRA,,y\n", "line 2: name is '--'; allowed: letters"),
        ("name,timing,field,why\nx y,INTRA,,z\nX-Y,POST,,z\n", "'X-Y' is registered twice"),
        ("name,timing,field,why\nx,INTRA,shoe,y\n", "field of 'x' is 'shoe'; allowed: a field of"),
    ],
)
def test_faulty_registers_are_refused(text, message, study, tmp_path):
    (tmp_path / dictionary.REGISTER).write_text(text)
    with pytest.raises(InputError, match=message):
        dictionary.load(_write(tmp_path / "data_dictionary.csv", _rows(study)))


def test_annotations_of_the_study(words):
    assert words["glucose_adm"].other_units == {"mmol/L": pytest.approx(180.156 / 10)}
    assert words["sbp_adm"].other_units["kPa"] == pytest.approx(1000 / 133.322, rel=1e-5)
    assert words["core_ml"].other_units == {"L": 1000, "cm3": 1}
    assert words["age"].other_units == {} and words["age"].spelling == "" and words["age"].impute
    assert [f.name for f in words.fields.values() if f.spelling] == [
        "first_pass_etici", "etici_final",
    ]  # fmt: skip
    assert [f.name for f in words.fields.values() if not f.impute] == ["hir", "mismatch_ratio"]
    assert words["hir"].ratio == ("tmax10_ml", "tmax6_ml") and words["rlvo"].ratio is None
    assert words["mismatch_ratio"].ratio == ("tmax6_ml", "core_ml")


def test_every_field_says_what_it_is_and_why(words):
    for field in words.fields.values():
        assert field.label and len(field.note) > 40 and field.note.endswith("."), field.name


def _evaluate(equation, **values):
    """REDCap's equation of ``if``, ``or`` and ``isblankormissingcode`` in Python; blank is ""."""
    code = equation.replace("isblankormissingcode", "blank").replace("if(", "choose(")
    for name in values:
        code = code.replace(f"[{name}]", f"v_{name}")
    code = code.replace(" = ", " == ")

    class Value(str):
        def __gt__(self, other):
            return (math.nan if self in ("", "-99", "-98") else float(self)) > other

    names = {f"v_{name}": Value(value) for name, value in values.items()}
    functions = {
        "choose": lambda test, yes, no: yes if test else no,
        "blank": lambda value: value in ("", "-99", "-98", "-97"),
    }
    return eval(code, {"__builtins__": {}}, names | functions)


@pytest.mark.parametrize(
    ("stenosis", "etici", "rescue", "label"),
    [
        ("10", "3", "0", 0), ("51", "3", "0", 1), ("50", "2b", "0", 0), ("10", "2a", "0", 1),
        ("10", "3", "2", 1), ("-98", "0", "0", 1), ("-99", "3", "0", ""), ("10", "", "0", ""),
        ("10", "3", "-99", ""), ("-99", "3", "3", 1), ("60", "-99", "", 1), ("", "", "", ""),
    ],
)  # fmt: skip
def test_redcaps_own_outcome_is_blank_where_a_criterion_is_missing(
    stenosis, etici, rescue, label, study, words
):
    row = next(r for r in _rows(study) if r["Variable / Field Name"] == "rlvo")
    equation = row["Choices, Calculations, OR Slider Labels"]
    values = {"final_stenosis_pct": stenosis, "etici_final": etici, "rescue_type": rescue}
    assert words["rlvo"].parents == tuple(values)
    assert _evaluate(equation, **values) == label


def _field(annotation="@TIMING=PRE", kind="text", choices="", validation="", low="", high=""):
    return dict.fromkeys(REDCAP_COLUMNS, "") | {
        "Variable / Field Name": "x", "Form Name": "f", "Field Type": kind, "Field Label": "X",
        "Choices, Calculations, OR Slider Labels": choices, "Field Annotation": annotation,
        "Text Validation Type OR Show Slider Number": validation, "Text Validation Min": low,
        "Text Validation Max": high,
    }  # fmt: skip


def _load(tmp_path, *fields):
    return dictionary.load(_write(tmp_path / "d.csv", list(fields)))


def test_marks_and_remarks_of_an_annotation(tmp_path):
    annotation = (
        "@OTHER_UNITS='g/L:100, a b:0.5' @TIMING=PRE @UNIT='mg / dL' mail me@home @MISSING=-99"
    )
    field = _load(tmp_path, _field(annotation, validation="number", low="0"))["x"]
    assert field.other_units == {"g/L": 100, "a b": 0.5}
    assert (field.unit, field.missing, field.timing) == ("mg / dL", ("-99",), "PRE")
    assert (field.low, field.high, field.allowed) == (0, None, "0 or more")


NUMBER = dict(validation="number")
CODES = dict(kind="radio", choices="0, no | 1, yes")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (_field("@TIMING=PRE @HIDDEN"), "'@HIDDEN' is unknown; allowed: @TIMING, @UNIT, @MISSING"),
        (_field("@TIMING=PRE @UNITS='mm'"), "annotation '@UNITS' is unknown"),
        (_field("@TIMING=PRE @"), "annotation '@' is unknown"),
        (_field("@TIMING=PRE @UNIT"), "annotation '@UNIT' is malformed; allowed: @UNIT=value"),
        (_field("@TIMING=PRE @UNIT="), "annotation '@UNIT=' is malformed"),
        (_field("@TIMING=PRE @UNIT= 'mm'"), "annotation '@UNIT=' is malformed"),
        (_field("@TIMING=PRE @UNIT='mm"), "annotation '@UNIT='mm' is malformed"),
        (_field("@TIMING=PRE @UNIT='mm'@MISSING=-99"), "'@UNIT='mm'@MISSING=-99' is malformed"),
        (_field("@TIMING=PRE @TIMING=POST"), "'@TIMING' stands there twice; allowed: once"),
        (_field("@TIMING=PRE @MISSING=-99,"), "@MISSING is '-99,'; allowed: -99, -98, -97"),
        (_field("@TIMING=PRE @MISSING=-1"), "@MISSING is '-1'; allowed"),
        (_field("@TIMING=PRE @MISSING=-99,-99"), "@MISSING is '-99,-99'; allowed"),
        (_field("@TIMING=PRE @SPELLING=NIHSS", **CODES), "@SPELLING is 'NIHSS'; allowed: TICI"),
        (_field("@TIMING=PRE @SPELLING=TICI"), "@SPELLING is for codes"),
        (_field("@TIMING=PRE @IMPUTE=always", **NUMBER), "@IMPUTE is 'always'; allowed: never"),
        (_field("@TIMING=PRE @OTHER_UNITS='cm:10'", **NUMBER), "@OTHER_UNITS is for quantities"),
        (_field("@TIMING=PRE @UNIT='mm' @OTHER_UNITS='cm'", **NUMBER), "@OTHER_UNITS has 'cm'"),
        (_field("@TIMING=PRE @UNIT='mm' @OTHER_UNITS='cm:0'", **NUMBER), "has 'cm:0'; allowed: unit"),
        (_field("@TIMING=PRE @UNIT='mm' @OTHER_UNITS='cm:x'", **NUMBER), "'x' is not a number"),
        (_field("@TIMING=PRE @UNIT='mm' @OTHER_UNITS='mm:1'", **NUMBER), "not the column's own"),
        (_field("@TIMING=PRE @UNIT='mm' @OTHER_UNITS='m:1,m:2'", **NUMBER), "has 'm:2'"),
        (_field("@TIMING=DERIVED @UNIT='mm' @RANGE=1", kind="calc"), "@RANGE is '1'; allowed: low,"),
        (_field("@TIMING=PRE @RANGE=0,1", **CODES), "@RANGE is for quantities"),
        (_field("@TIMING=PRE @MISSING=-99", **NUMBER, low="-100"), "-99 is also a value of the range"),
        (_field("@TIMING=PRE @MISSING=-97", **NUMBER, low="-100", high="0"), "-97 is also a value"),
        (_field(**NUMBER, low="2", high="1"), "range is 2 to 1; allowed: the lower number first"),
        (_field(**NUMBER, low="few"), "'few' is not a number; allowed: as 12 or 0.5"),
        (_field(validation="float"), "validation type 'float' is not REDCap's; allowed: integer"),
        (_field(kind="checkbox"), "'checkbox' is not one column of a table; allowed: text"),
        (_field(kind="radio"), "choice '' is doubled or malformed"),
        (_field(kind="radio", choices="0, no | 0, yes"), "choice '0, yes' is doubled"),
        (_field(kind="calc", choices="[x] + 1"), "field 'x' is calculated from itself"),
        (_field(kind="calc", choices="[y] + 1"), "calculated from 'y', which is not defined"),
    ],
)  # fmt: skip
def test_faulty_rows_are_refused(field, message, tmp_path):
    with pytest.raises(InputError) as caught:
        _load(tmp_path, field)
    assert message in str(caught.value) and str(caught.value).startswith("d.csv")
    if "calculated" not in message:
        assert "line 2, field 'x'" in str(caught.value)


def test_a_circle_of_calculations_is_refused(tmp_path):
    first = _field("@TIMING=DERIVED", kind="calc", choices="[y] + 1")
    second = first | {
        "Variable / Field Name": "y",
        "Choices, Calculations, OR Slider Labels": "[x]",
    }
    with pytest.raises(InputError, match="field 'x' is calculated from itself"):
        _load(tmp_path, first, second)


def test_redcaps_other_types_of_one_column(tmp_path):
    fields = [
        _field(kind="dropdown", choices="a, one | b, two, or three"),
        _field(kind="truefalse"), _field(kind="notes"), _field(validation="date_dmy", low="2000-01-01"),
        _field(validation="number_2dp"), _field(validation="email"),
    ]  # fmt: skip
    for place, field in enumerate(fields):
        field["Variable / Field Name"] = f"x{place}"
    words = _load(tmp_path, *fields)
    types = [field.type for field in words.fields.values()]
    assert types == ["radio", "yesno", "text", "datetime", "number", "text"]
    assert words["x0"].choices == {"a": "one", "b": "two, or three"}
    assert words["x1"].choices == {"0": "false", "1": "true"}
    assert words["x3"].low is None


def test_the_page_shows_units_notes_and_the_register(words):
    page = dictionary.render(words, "Outcome")
    for part in (
        "# Data dictionary: Outcome\n",
        "| -98 | not applicable |",
        "Missing Data Codes",
        "| mg/dL | mmol/L × 18.0156 |",
        "0 to 1; calculated: tmax10_ml / tmax6_ml",
        "; never filled in |",
        "## Imaging read before the intervention",
        "| `mtici_final` | POST | `etici_final` |",
    ):
        assert part in page, part
    for field in words.fields.values():
        assert f"| `{field.name}` | {field.label} |" in page and f" | {field.note} |" in page
    assert "## Leakage register" not in dictionary.render(Dictionary(words.fields), "Outcome")


def test_wording_is_no_part_of_what_a_content_key_is_made_of(words):
    reworded = dataclasses.replace(words["age"], note="Other words.", section="Other")
    assert repr(reworded) == repr(words["age"])
    assert repr(dataclasses.replace(words["age"], high=90)) != repr(words["age"])


def test_faulty_dictionaries_are_refused(study, tmp_path):
    rows = _rows(study)
    twice = _write(tmp_path / "twice.csv", rows + rows[-1:])
    with pytest.raises(InputError, match="is defined twice"):
        dictionary.load(twice)
    rows[0]["Field Annotation"] = "@TIMING=LATER"
    with pytest.raises(
        InputError, match=r"line 2: timing of 'participant_id' is 'LATER'; allowed: PRE"
    ):
        dictionary.load(_write(tmp_path / "timing.csv", rows))
    lacking = [{k: v for k, v in row.items() if k != "Field Type"} for row in rows]
    with pytest.raises(InputError, match="column 'Field Type' of a REDCap dictionary is missing"):
        dictionary.load(_write(tmp_path / "columns.csv", lacking))
    with pytest.raises(InputError, match="does not exist"):
        dictionary.load(tmp_path / "absent.csv")
