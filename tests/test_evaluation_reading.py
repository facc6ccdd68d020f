"""Other people's CSVs: what is read, what is said of it, and what is refused."""

import re

import pandas as pd
import pytest

from rlvo_lib.config import InputError
from rlvo_lib.intake.scores import read_numbers, read_scores, with_numbers
from rlvo_lib.results.evaluation import check_patients, scored_columns
from rlvo_lib.results.evaluation.outcomes import read_outcome


@pytest.fixture
def written(tmp_path):
    """Write text or bytes as a file and read it."""

    def read(content, truth="y_true"):
        path = tmp_path / "p.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_scores(path, truth=truth)

    return read


@pytest.mark.parametrize(
    "text",
    [
        "y_true,risk\n1,0.5\n0,0.25\n",
        "y_true;risk\n1;0.5\n0;0.25\n",
        "y_true\trisk\n1\t0.5\n0\t0.25\n",
        "y_true|risk\n1|0.5\n0|0.25\n",
        '"y_true","risk"\n"1","0.5"\n"0","0.25"\n',
        ' y_true , "risk" \n 1 , 0.5\n 0 , 0.25 \n',
        "\ufeffy_true,risk\r\n1,0.5\r\n\r\n0,0.25\r\n",
        "sep=;\ny_true;risk\n1;0.5\n0;0.25",
        "y_true;risk\n1;0,5\n0;0,25\n",
        'y_true,risk\n1,"0,5"\n0,"0,25"\n',
        "y_true,risk\n1,50%\n0,25 %\n",
        "y_true,risk\n1,5e-1\n0,.25\n",
    ],
)
def test_the_same_two_patients_however_they_are_written(written, text):
    table = with_numbers(written(text), ["risk"])
    assert list(table.frame.columns) == ["y_true", "risk"]
    assert table.frame["risk"].tolist() == [0.5, 0.25]
    assert read_outcome(table.frame["y_true"])[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("y_true;risk\n1;0,5\n0;0\n", "column 'risk': decimal commas read as points"),
        ("y_true,risk\n1,50%\n0,2%\n", "column 'risk': percent signs read as hundredths"),
        ("y_true\trisk\n1\t0.5\n", "rows: 1, separator: tab"),
        ("y_true,risk\n1,0.5\n".encode("utf-16"), "rows: 1, separator: comma"),
        ("y_true,risk,né\n1,0.5,a\n".encode("latin-1"), "letters were read as Windows-1252"),
    ],
)
def test_what_was_read_in_another_way_is_said(written, text, note):
    assert any(note in said for said in with_numbers(written(text), None).notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "it is empty"),
        (" \n\n", "it is empty"),
        ("y_true,risk\n", "has a header and no rows"),
        ("outcome,risk\n1,0.5\n", "column 'y_true' is not in the table; its columns: outcome, risk"),
        ("a;b;c\n1;2;3\n", "its columns: a, b, c; name the outcome with --truth"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "no text that can be recognised; allowed: a CSV file"),
        (b"y_true,risk\n1,0\x010.5\n", "holds the control character 0x01"),
        ("y_true,risk\n1,0,5\n", "row 2: has 3 fields; allowed: 2"),
        ("y_true,risk\n1\n", "row 2: has 1 fields; allowed: 2"),
        ("y_true,risk,risk\n1,0.5,0.6\n", "two columns are named 'risk'"),
        ('"y_true,risk\n1,0.5\n', "quotation marks"),
        ('y_true,risk\n1,"0.5\n', "quotation marks do not match"),
    ],
)  # fmt: skip
def test_files_that_are_no_table_of_predictions(written, content, words):
    with pytest.raises(InputError, match=re.escape(words)):
        written(content)


def test_a_folder_and_an_absent_file(tmp_path):
    with pytest.raises(InputError, match="not a readable CSV table: it is a folder"):
        read_scores(tmp_path, truth="y")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="rlvo verify"):
        read_scores(tmp_path, truth="y")
    with pytest.raises(InputError, match="no such file"):
        read_scores(tmp_path / "absent.csv", truth="y")


@pytest.mark.parametrize("word", ["", "NA", "NaN", "nan", "N/A", "null", "<NA>", "."])
def test_words_for_nothing(written, word):
    table = with_numbers(written(f"y_true,risk\n1,{word}\n0,0.5\n"), ["risk"])
    assert table.frame["risk"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["0.5", "high"], "column 'risk', row 3: 'high'; allowed: finite numbers"),
        (["0.5", "inf"], "row 3: 'inf'"),
        (["0.5", "1e999"], "row 3: '1e999'"),
        (["0,5", "0.5"], "'0,5' has a comma and '0.5' in row 3 a point; allowed: one decimal mark"),
        (["1,234", "2,500"], "'1,234' may be read with a decimal comma or with a thousands comma"),
        (["50%", "0.5"], "row 2: '50%'"),
        (["1_0", "0.5"], "'1_0'"),
        (["1.2.3", "0.5"], "'1.2.3'"),
    ],
)
def test_numbers_with_no_or_two_readings(cells, words):
    with pytest.raises(InputError, match=re.escape(words)):
        read_numbers(pd.Series(cells, index=[2, 3], name="risk"))


def test_without_named_scores_text_columns_are_left_alone(written):
    table = with_numbers(written("y_true,site,a\n1,Ghent,0.5\n0,Bern,0.25\n"), None, ["y_true"])
    assert table.frame["a"].tolist() == [0.5, 0.25]
    assert table.frame["site"].tolist() == ["Ghent", "Bern"]
    assert table.frame["y_true"].tolist() == ["1", "0"]
    with pytest.raises(InputError, match="column 'nope' is not in the table"):
        with_numbers(table, ["nope"])


# ---------------------------------------------------------------------------------- outcome


@pytest.mark.parametrize(
    ("values", "event"),
    [
        ([1, 0, None], None), ([1.0, 0.0, None], None), ([True, False, None], None),
        (["1", "0", None], None), (["1.0", "0.0", None], None), (["TRUE", "False", None], None),
        (["yes", "no", None], "yes"), (["Yes", "No", None], "yes"), (["dead", "alive", None], "dead"),
        ([2, 1, None], "2"), (["0", "1", None], "0"),
    ],
)  # fmt: skip
def test_outcomes_in_many_spellings(values, event):
    coded, note = read_outcome(pd.Series(values, name="y", dtype=object), event)
    assert coded.tolist()[:2] == [1, 0] and pd.isna(coded.iloc[2])
    plain = event is None and str(values[0]) in ("1", "1.0")
    assert (note == "") == plain


@pytest.mark.parametrize(
    ("values", "event", "words"),
    [
        (["yes", "no"], None, "holds 'no', 'yes'; allowed: 0 and 1, or True and False, or two values of which --event"),
        ([2, 1], None, "holds '1', '2'"),
        (["yes", "no"], "dead", "--event dead: outcome 'y' holds 'no', 'yes'"),
        (["yes", "no", "unknown"], "yes", "holds 3 values ('no', 'unknown', 'yes'); allowed: two"),
        ([None, None], None, "no row has a value"),
        ([str(k) for k in range(30)], None, "and 22 more"),
    ],
)  # fmt: skip
def test_outcomes_that_are_not_guessed(values, event, words):
    with pytest.raises(InputError, match=re.escape(words)):
        read_outcome(pd.Series(values, name="y", dtype=object), event)


# ---------------------------------------------------------------------------------- patients


def test_patients_are_told_apart_by_a_column():
    frame = pd.DataFrame({"Patient_ID": ["a", "b", None], "case": ["x", "x", "y"]}, index=[2, 3, 4])
    assert (
        check_patients(frame) == "patients told apart by column 'Patient_ID'; rows without one: 1"
    )
    with pytest.raises(InputError, match=re.escape("patient 'x' (column 'case') has 2 rows, first 2 and 3; allowed: one row a patient")):  # fmt: skip
        check_patients(frame, "case")
    with pytest.raises(InputError, match="column 'mrn' is not in the table"):
        check_patients(frame, "mrn")
    assert "nobody looked for duplicates" in check_patients(frame[["case"]])


def test_a_runs_own_predictions_are_sent_to_verify():
    frame = pd.DataFrame(
        {"participant_id": ["a", "b", "a"], "arm": "daft", "fold": [1, 1, 2], "y_true": 1}
    )
    with pytest.raises(
        InputError, match="patient 'a'.*a row for each model .arm, fold.*rlvo verify RUN"
    ):
        check_patients(frame)


# ---------------------------------------------------------------------------------- scores


def test_rows_without_outcome_or_score_are_counted():
    frame = pd.DataFrame({"y": [1, 0, None, 1, 0], "a": [0.9, None, 0.5, 0.2, 0.1]})
    (score,), _ = scored_columns(frame, "y")
    assert (score.without_outcome, score.without_score) == (1, 1)
    assert score.rows.tolist() == [0, 3, 4] and score.counts() == {
        "n": 3,
        "events": 2,
        "missing": 2,
    }


def test_the_same_score_named_twice_is_judged_once():
    frame = pd.DataFrame({"y": [1, 0], "a": [0.9, 0.1]})
    assert [score.name for score in scored_columns(frame, "y", ["a", "a"])[0]] == ["a"]


def test_a_score_outside_0_to_1_is_no_probability_and_percent_is_not_rescaled():
    frame = pd.DataFrame({"y": [1, 0], "logit": [-2.0, 1.0], "percent": [40.0, 2.0]})
    logit, percent = scored_columns(frame, "y", ["logit", "percent"])[0]
    assert logit.reason == ("not a probability (values -2 to 1, not rescaled): discrimination only")
    assert "values 2 to 40, not rescaled; if they are percent, divide by 100" in percent.reason


def test_a_threshold_is_of_a_score():
    frame = pd.DataFrame({"y": [1, 0], "a": [0.9, 0.1]})
    assert scored_columns(frame, "y", ["a"], thresholds={"a": 0.4})[0][0].threshold == 0.4
    for thresholds, words in (({"b": 0.4}, "threshold of 'b'"), ({"a": float("nan")}, "finite")):
        with pytest.raises(InputError, match=words):
            scored_columns(frame, "y", ["a"], thresholds=thresholds)
