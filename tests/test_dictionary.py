import csv

import pytest

from rlvo_lib import dictionary
from rlvo_lib.config import InputError, project_root


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


def _rows(study):
    with open(study.dictionary_path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _write(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


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
