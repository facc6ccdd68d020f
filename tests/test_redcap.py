"""REDCap's documented import rules, each stated by one broken row and the fault it gives."""

import csv

import pytest

from rlvo_lib import dictionary
from rlvo_lib.config import InputError
from rlvo_lib.dictionary import REDCAP_COLUMNS, redcap_faults

(
    NAME, FORM, SECTION, TYPE, LABEL, CHOICES, NOTE, VALIDATION, LOW, HIGH, IDENTIFIER, BRANCHING,
    REQUIRED, ALIGNMENT, QUESTION, MATRIX, RANKING, ANNOTATION,
) = REDCAP_COLUMNS  # fmt: skip


def _row(name, form="visit", kind="text", **cells):
    return dict.fromkeys(REDCAP_COLUMNS, "") | {
        NAME: name, FORM: form, TYPE: kind, LABEL: name.title(), **cells
    }  # fmt: skip


def _sheet():
    """Eleven fields that break no rule, one of each kind."""
    pain = {CHOICES: "1, low | 2, high", MATRIX: "pain"}
    return [
        _row("record_id"),
        _row("age", **{VALIDATION: "integer", LOW: "0", HIGH: "120", REQUIRED: "y"}),
        _row("born", **{VALIDATION: "date_dmy", LOW: "1900-01-01", HIGH: "today", IDENTIFIER: "y"}),
        _row("seen", **{VALIDATION: "datetime_ymd", LOW: "[born]"}),
        _row("sex", kind="radio", **{CHOICES: "0, female | 1, male | -9, unknown", ALIGNMENT: "RH"}),
        _row("signs", kind="checkbox", **{CHOICES: "1, weak | 2, numb"}),
        _row("weight", "scores", **{VALIDATION: "number_1dp_comma_decimal", LOW: "2,5"}),
        _row("smoker", "scores", "yesno", **{BRANCHING: "[signs(1)] = '1' and [visit_complete] = '2'"}),
        _row("index", "scores", "calc", **{CHOICES: "if([smoker] = '1', [base_arm_1][age] / 2, '')"}),
        _row("pain_rest", "scores", "radio", **pain, **{RANKING: "y"}),
        _row("pain_move", "scores", "radio", **pain),
    ]  # fmt: skip


def _write(path, rows, header=REDCAP_COLUMNS):
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(header)
        writer.writerows(list(row.values()) if isinstance(row, dict) else row for row in rows)
    return path


def test_the_committed_dictionary_can_be_imported(study):
    assert redcap_faults(study.dictionary_path) == []


def test_a_sheet_that_breaks_no_rule_has_no_fault(tmp_path):
    assert redcap_faults(_write(tmp_path / "good.csv", _sheet())) == []


NO_NAME = "allowed: lower-case letters, digits and single underscores, beginning with a letter"
NO_FORM = "allowed: lower-case letters, digits and underscores, beginning with a letter"
BROKEN = [
    # names of fields
    (3, {NAME: "Seen"}, f"Variable / Field Name is 'Seen'; {NO_NAME}"),
    (3, {NAME: "seen-at"}, f"Variable / Field Name is 'seen-at'; {NO_NAME}"),
    (3, {NAME: "2seen"}, f"Variable / Field Name is '2seen'; {NO_NAME}"),
    (3, {NAME: "seen_"}, f"Variable / Field Name is 'seen_'; {NO_NAME}"),
    (3, {NAME: "seen__at"}, f"Variable / Field Name is 'seen__at'; {NO_NAME}"),
    (3, {NAME: ""}, f"Variable / Field Name is ''; {NO_NAME}"),
    (3, {NAME: "s" * 101}, "at most 100 characters (26 advised)"),
    (3, {NAME: "record_id"}, "Variable / Field Name is 'record_id'; allowed: each name once"),
    (3, {NAME: "redcap_event_name"}, "allowed: a name that REDCap does not keep for itself"),
    (3, {NAME: "scores_complete"}, "allowed: a name that REDCap does not keep for itself"),
    # the record identifier, forms, types, labels
    (0, {TYPE: "notes"}, "Field Type is 'notes'; allowed: text, since the first field is the record"),
    (10, {FORM: "Scores"}, f"Form Name is 'Scores'; {NO_FORM}"),
    (10, {FORM: "1st"}, f"Form Name is '1st'; {NO_FORM}"),
    (10, {FORM: "visit"}, "Form Name is 'visit'; allowed: the fields of a form together; 'scores' stands"),
    (5, {TYPE: "multi"}, "Field Type is 'multi'; allowed: text, notes, radio, dropdown"),
    (3, {LABEL: " "}, "Field Label is ' '; allowed: some text"),
    # choices
    (4, {CHOICES: ""}, "Choices, Calculations, OR Slider Labels is ''; allowed: code, label |"),
    (4, {CHOICES: "0, female | male"}, "is 'male'; allowed: code, label | code, label, none of them"),
    (4, {CHOICES: "0, female | 1,"}, "is '1,'; allowed: code, label | code, label, none of them"),
    (4, {CHOICES: "0, female | 1 m, male"}, "is '1 m'; allowed: codes of letters, digits and"),
    (4, {CHOICES: "0, female | 0, male"}, "is '0'; allowed: each code once"),
    (7, {CHOICES: "1, yes"}, "is '1, yes'; allowed: nothing at a field of type yesno"),
    (3, {CHOICES: "1, yes"}, "is '1, yes'; allowed: nothing at a field of type text"),
    # calculations and branching
    (8, {CHOICES: " "}, "is ' '; allowed: an equation"),
    (8, {CHOICES: "([age] + 1"}, "is '([age] + 1'; allowed: brackets, parentheses and quotes that"),
    (8, {CHOICES: "([age) + 1]"}, "allowed: brackets, parentheses and quotes that are closed"),
    (8, {CHOICES: "if([smoker] = '1, 1, 0)"}, "allowed: brackets, parentheses and quotes that are"),
    (8, {CHOICES: "[age] / [height]"}, "is '[height]'; allowed: a field of this file"),
    (8, {CHOICES: "[index] + 1"}, "allowed: an equation that does not refer to its own field"),
    (7, {BRANCHING: "[height] > 1"}, "Branching Logic (Show field only if...) is '[height]'; allowed: a"),
    (7, {BRANCHING: "[age] > 1)"}, "is '[age] > 1)'; allowed: brackets, parentheses and quotes"),
    # validation
    (6, {VALIDATION: "float", LOW: ""}, "Slider Number is 'float'; allowed: integer, number, number_1dp"),
    (7, {VALIDATION: "integer"}, "Slider Number is 'integer'; allowed: nothing at a field of type yesno"),
    (0, {LOW: "1"}, "Text Validation Min is '1'; allowed: nothing without a validation of integer"),
    (7, {HIGH: "1"}, "Text Validation Max is '1'; allowed: nothing without a validation of integer"),
    (1, {LOW: "0.5"}, "Text Validation Min is '0.5'; allowed: a value of validation type integer"),
    (6, {LOW: "2.5"}, "is '2.5'; allowed: a value of validation type number_1dp_comma_decimal"),
    (2, {LOW: "01-01-1900"}, "is '01-01-1900'; allowed: a value of validation type date_dmy"),
    (3, {LOW: "[height]"}, "Text Validation Min is '[height]'; allowed: a field of this file"),
    (1, {LOW: "today"}, "Text Validation Min is 'today'; allowed: a value of validation type integer"),
    (1, {LOW: "121"}, "Text Validation Min is '121'; allowed: at most Text Validation Max, '120'"),
    # flags
    (1, {IDENTIFIER: "yes"}, "Identifier? is 'yes'; allowed: y or empty"),
    (1, {REQUIRED: "Y"}, "Required Field? is 'Y'; allowed: y or empty"),
    (1, {ALIGNMENT: "LEFT"}, "Custom Alignment is 'LEFT'; allowed: RV, RH, LV, LH or empty"),
    # matrices
    (9, {RANKING: "x"}, "Matrix Ranking? is 'x'; allowed: y or empty"),
    (4, {RANKING: "y"}, "Matrix Ranking? is 'y'; allowed: only in a matrix of radio fields"),
    (4, {MATRIX: "Sex group"}, "Matrix Group Name is 'Sex group'; allowed: lower-case letters"),
    (4, {MATRIX: "age"}, "Matrix Group Name is 'age'; allowed: lower-case letters"),
    (7, {MATRIX: "habits"}, "Field Type is 'yesno'; allowed: radio or checkbox in a matrix"),
    (4, {MATRIX: "pain", CHOICES: "1, low | 2, high"}, "is 'pain'; allowed: the fields of a matrix together"),
    (10, {CHOICES: "1, low | 3, high"}, "allowed: type and choices of the matrix, '1, low | 2, high'"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "cells", "fault"), BROKEN)
def test_each_rule_by_one_broken_row(place, cells, fault, tmp_path):
    rows = _sheet()
    rows[place] |= cells
    faults = redcap_faults(_write(tmp_path / "broken.csv", rows))
    assert len(faults) == 1, faults
    line = 11 if "together" in fault and MATRIX in cells else place + 2
    assert faults[0].startswith(f"line {line}, field '") and fault in faults[0]


def test_all_faults_come_at_once_and_in_the_order_of_the_file(tmp_path):
    rows = _sheet()
    rows[1][NAME], rows[4][CHOICES], rows[4][ALIGNMENT] = "Years", "0, female | 1,", "X"
    faults = redcap_faults(_write(tmp_path / "broken.csv", rows))
    assert [fault.split(":")[0] for fault in faults] == [
        "line 3, field 'Years'", "line 6, field 'sex'", "line 6, field 'sex'",
        "line 10, field 'index'",
    ]  # fmt: skip


def test_the_line_named_is_the_files_own(tmp_path):
    rows = _sheet()
    rows[0][NOTE], rows[1][LABEL] = "on two\nlines", ""
    (fault,) = redcap_faults(_write(tmp_path / "lines.csv", rows))
    assert fault.startswith("line 4, field 'age': Field Label is ''")


def test_the_eighteen_columns_stand_exactly_and_in_order(tmp_path):
    swapped = [*REDCAP_COLUMNS[:2], LABEL, SECTION, *REDCAP_COLUMNS[4:]]
    for name, header, fault in (
        ("swapped", swapped, "line 1: column 3 is 'Field Label'; allowed: 'Section Header'"),
        ("short", REDCAP_COLUMNS[:-1], "line 1: column 18 is ''; allowed: 'Field Annotation'"),
        ("long", [*REDCAP_COLUMNS, "Why"], "line 1: column 19 is 'Why'; allowed: no column beyond"),
    ):
        (found,) = redcap_faults(_write(tmp_path / f"{name}.csv", _sheet(), header))
        assert found.startswith(fault)


def test_files_that_hold_no_dictionary(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert redcap_faults(empty)[0].startswith("line 1: column 1 is ''; allowed: 'Variable")
    assert redcap_faults(_write(tmp_path / "header.csv", []))[0].startswith(
        "line 2: the file has no"
    )
    short = _write(tmp_path / "short.csv", [*_sheet(), ["lonely", "scores"]])
    assert redcap_faults(short) == ["line 13: has 2 cells; allowed: 18"]
    latin = tmp_path / "latin.csv"
    latin.write_bytes("á".encode("latin-1"))
    with pytest.raises(InputError, match="latin.csv is not in UTF-8"):
        redcap_faults(latin)
    with pytest.raises(InputError, match="does not exist"):
        redcap_faults(tmp_path / "absent.csv")


def test_what_an_equation_refers_to():
    refers = dictionary.redcap.variables
    assert refers("[a] / [b]") == ("a", "b")
    assert refers("if([a] = '[c]', [event_1][b], [a])") == ("a", "b")
    assert refers("sum([signs(2)], [a][last-instance], [b:value])") == ("signs", "a", "b")
    assert refers("") == ()
