import codecs
import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvo_lib import cohort, dataset
from rlvo_lib.config import InputError, Scan, read_study


@pytest.fixture
def write_table(raw, write_dataset):
    """A function that writes bytes or text as the participants.tsv of a dataset folder."""
    root = write_dataset(raw)

    def write(content):
        data = content if isinstance(content, bytes) else content.encode()
        (root / "participants.tsv").write_bytes(data)
        return root

    return write


def test_typed_names_patient_column_and_value(raw, write_dataset, words, study):
    raw.loc["sub-05", "age"] = "seventy"
    with pytest.raises(
        InputError, match="patient 'sub-05', column 'age': 'seventy' is not a number"
    ):
        dataset.load_dataset(write_dataset(raw), study, words)


def test_typed_values_and_missing_codes(words):
    raw = pd.DataFrame({"age": [" 70 ", "-99", "n/a", "71.0"], "sex": ["1", "", " 0", "-99"]})
    table = dataset.typed(raw.assign(shoe_size="43"), words)
    assert table["age"].fillna(0).tolist() == [70, 0, 0, 71]
    assert table["sex"].fillna("missing").tolist() == ["1", "missing", "0", "missing"]
    assert list(table) == ["age", "sex"]
    codes = dataset.missing_codes(pd.Series(["", "n/a", "-98", " -97 ", "0"], index=list("abcde")))
    assert codes.to_dict() == {"a": "-99", "b": "-99", "c": "-98", "d": "-97", "e": ""}


def test_infinity_is_no_number(words):
    with pytest.raises(InputError, match="'inf' is not a number"):
        dataset.typed(pd.DataFrame({"mismatch_ratio": ["inf"]}, index=["sub-1"]), words)


def test_dataset_folder_faults(raw, write_dataset, words, tmp_path, study):
    with pytest.raises(InputError, match="does not exist"):
        dataset.load_dataset(tmp_path / "absent", study, words)
    root = write_dataset(raw)
    description = root / "dataset_description.json"
    description.write_text(json.dumps({"Name": "x"}))
    with pytest.raises(InputError, match="'simulated' is None; allowed: true or false"):
        dataset.load_dataset(root, study, words)
    for name in ("null", '""', '" "', "5", "[]"):
        description.write_text(f'{{"Name": {name}, "simulated": true}}')
        with pytest.raises(InputError, match="'Name' is .*; allowed: the dataset's name"):
            dataset.load_dataset(root, study, words)
    description.write_bytes(codecs.BOM_UTF8 + b'{"Name": "mine", "simulated": true}')
    assert dataset.load_dataset(root, study, words).name == "mine"
    description.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        dataset.load_dataset(root, study, words)
    description.unlink()
    with pytest.raises(InputError, match=r"dataset_description\.json is missing"):
        dataset.load_dataset(root, study, words)


def test_simulated_data_cannot_pass_for_real(raw, write_dataset, words, study):
    root = write_dataset(raw, simulated=False)
    assert dataset.load_dataset(root, study, words).kind == "real"
    (root / "derivatives" / "truth").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a simulator's truth; allowed: true"):
        dataset.load_dataset(root, study, words)


@pytest.mark.parametrize(
    ("file", "more", "sign"),
    [
        ("dataset_description.json", {"scenario": "paper"}, "'scenario' is there"),
        ("dataset_description.json", {"Name": "SIMULATED cohort"}, "'Name' says SIMULATED"),
        ("participants.json", {"Simulated": True}, "participants.json says Simulated: true"),
    ],
)
def test_a_simulated_dataset_cannot_be_relabelled(
    raw, write_dataset, words, study, file, more, sign
):
    root = write_dataset(raw, simulated=False)
    path = root / file
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(held | more))
    with pytest.raises(InputError, match=f"'simulated' is false, but {sign}; allowed: true"):
        dataset.load_dataset(root, study, words)


# ------------------------------------------------------------------------------- reading a table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable tab-separated table"),  # an empty file
        ("\n\n", "its first line is empty"),
        ("participant_id\tage\n", "the table has no patients"),  # a header only
        ("age\n60\n", "column 'participant_id' is missing"),
        ("participant_id\tage\nsub-1\t60\nsub-1\t61\n", "'sub-1' stands in more than one row"),
        ("participant_id\tage\nsub-1\t60\n\nsub-1\t61\n", r"lines 2 and 4"),
        (
            "participant_id\tage\tsex\nsub-1\t60\n",
            "line 2: patient 'sub-1' has 2 fields; allowed: 3",
        ),
        ("participant_id\tage\nsub-1\t60\t1\n", "line 2: patient 'sub-1' has 3 fields; allowed: 2"),
        ("participant_id\tage\tage\nsub-1\t60\t1\n", "column 'age' stands in it twice"),
        ("participant_id\tage\t age\nsub-1\t60\t1\n", "column 'age' stands in it twice"),
        ("participant_id,age\nsub-1,60\n", "separated by commas; allowed: tabs"),
        ('"participant_id";"age"\nsub-1;60\n', "separated by semicolons; allowed: tabs"),
        ("participant_id\tage\t\t \n", r"2 columns have no name \(columns 3, 4 of 4\)"),
        ("age\tparticipant_id\n60\tsub-1\t1\n", "line 2: patient 'sub-1' has 3 fields"),
        ("age\tparticipant_id\n60\n", "line 2: the row has 1 fields; allowed: 2"),
        ("participant_id\tage\nsub-1\t60\n sub-1 \t61\n", "'sub-1' stands in more than one row"),
        (f"participant_id\nsub-1\n{'x' * 131_073}\n", "line 3: a field of over 131,072 characters"),
    ],
)
def test_table_faults(write_table, words, text, message, study):
    with pytest.raises(InputError, match=message) as caught:
        dataset.load_dataset(write_table(text), study, words)
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_named(write_table, words, study):
    root = write_table("")
    (root / "participants.tsv").unlink()
    with pytest.raises(InputError, match=r"participants\.tsv is missing"):
        dataset.load_dataset(root, study, words)


def test_a_byte_order_mark_is_accepted(write_table, words, study):
    content = codecs.BOM_UTF8 + b"participant_id\tcentre\r\nsub-1\tM\xc3\xa1laga\r\n"
    loaded = dataset.load_dataset(write_table(content), study, words)
    assert loaded.table["centre"].to_dict() == {"sub-1": "Málaga"}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_gets_its_own_advice(write_table, words, encoding, study):
    mark = codecs.BOM_UTF16_LE if encoding.endswith("le") else codecs.BOM_UTF16_BE
    text = "participant_id\tage\nsub-1\t60\n".encode(encoding)
    with pytest.raises(InputError, match="in UTF-16 .*allowed: save the table as UTF-8"):
        dataset.load_dataset(write_table(mark + text), study, words)
    with pytest.raises(InputError, match="line 1: holds a zero byte"):
        dataset.load_dataset(write_table(text), study, words)


def test_mixed_encodings_name_the_first_line_that_is_not_utf_8(write_table, words, study):
    content = "participant_id\tcentre\nsub-1\tMálaga\n".encode() + "sub-2\tCórdoba\n".encode(
        "latin-1"
    )
    with pytest.raises(InputError, match=r"line 3: is not in UTF-8 \(byte 0xf3\)"):
        dataset.load_dataset(write_table(content), study, words)


def test_two_gigabytes_of_commas_are_refused_before_they_are_read(
    write_table, words, monkeypatch, study
):
    root = write_table(",,,,\n")
    with open(root / "participants.tsv", "r+b") as handle:
        handle.truncate(2_000_000_000)  # a sparse file: takes no room

    def refuse(*_):
        raise AssertionError("the file is read")

    monkeypatch.setattr(dataset.Path, "read_bytes", refuse)
    with pytest.raises(InputError, match="2,000 MB, too large for a table; allowed: 200 MB"):
        dataset.load_dataset(root, study, words)


def test_rows_keep_the_lines_they_begin_on(write_table):
    text = 'participant_id\tcentre\nsub-1\t"A\tB"\n\n sub-2\tC ""\nsub-3\nsub-4 \tD\r\n'
    table = dataset.read_table(write_table(text))
    assert table.rows.index.tolist() == [2, 4, 6]
    assert table.rows["participant_id"].tolist() == ["sub-1", "sub-2", "sub-4"]
    assert table.rows["centre"].tolist() == ["A\tB", 'C ""', "D"]
    assert table.ragged == ((5, "sub-3", 1),) and table.width == 2


def _patients(n):
    return ["participant_id\tcentre", *(f"sub-{i}\tA" for i in range(2, n + 1))]


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ({10: '\t"ok', 20: '\t"ok'}, r"lines 10 to 20: .*line 10 is closed in line 20 only"),
        ({10: '\t"ok', 11: '\t"ok'}, r"lines 10 to 11: .*line 10 is closed in line 11 only"),
        ({25: '\t"ok'}, r"lines 25 to 30: .*line 25 is not closed"),
        ({30: '\t"ok'}, r"line 30: .*line 30 is not closed"),
        ({1: '\t"ok'}, r"lines 1 to 30: .*line 1 is not closed"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_stray_quotation_mark_is_refused(write_table, marks, message, end):
    lines = _patients(30)
    for line, mark in marks.items():
        lines[line - 1] += mark
    with pytest.raises(InputError, match=message) as caught:
        dataset.read_table(write_table("\n".join(lines) + end))
    assert 'a quotation mark (")' in str(caught.value) and "\n" not in str(caught.value)


def test_a_quotation_mark_that_swallows_very_much_is_named_too(write_table):
    lines = [*_patients(2), 'sub-3\t"A', *("x" * 1000 for _ in range(200))]
    with pytest.raises(InputError, match=r"lines 3 to \d+: a quotation mark"):
        dataset.read_table(write_table("\n".join(lines)))


CELLS = st.text(st.sampled_from("ab\" '\u2028\x0b\x1cé"), max_size=4)


@given(
    st.lists(st.lists(CELLS, min_size=1, max_size=4).map("\t".join), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_no_line_of_a_table_ever_vanishes(tmp_path_factory, lines, end):
    folder = tmp_path_factory.mktemp("lines")
    text = end.join(["participant_id\tcentre\tage", "sub-1\tA\t60", *lines])
    (folder / "participants.tsv").write_bytes(text.encode())
    try:
        table = dataset.read_table(folder)
    except InputError as error:
        assert "a quotation mark" in str(error)
        return
    found = [*table.rows.index, *(line for line, _, _ in table.ragged)]
    written = re.split("\r\n|\r|\n", text)
    filled = {number for number, line in enumerate(written, start=1) if line.strip()} - {1}
    assert filled <= set(found) and len(found) == len(set(found))
    assert all(written[line - 1].count("\t") == 2 for line in set(found) - filled)


def test_a_row_of_nothing_but_tabs_is_a_patient_without_a_name(write_table):
    table = dataset.read_table(write_table("participant_id\tage\n\t\n"))
    assert table.rows["participant_id"].tolist() == [""]


def test_names_of_columns_may_have_spaces_around_them(write_table, words, study):
    loaded = dataset.load_dataset(write_table("participant_id\t age \nsub-1\t 60 \n"), study, words)
    assert loaded.table["age"].tolist() == [60]


@pytest.mark.parametrize("name", ["../sub-1", "sub-1/../..", "sub 1", "sub-1 ", "/etc/passwd", ""])
def test_an_identifier_that_leads_elsewhere_is_never_part_of_a_path(tmp_path, name, study):
    with pytest.raises(InputError, match="allowed: sub- and letters or digits"):
        dataset.scan_path(tmp_path, name, study.scans["ncct"])
    empty = pd.DataFrame()
    data = dataset.Dataset(tmp_path, "x", True, empty, empty, study.scans)
    with pytest.raises(InputError, match="allowed: sub- and letters or digits"):
        data.scan(name, "ncct")


def test_a_scan_is_found_or_is_none(tmp_path, study):
    path = dataset.scan_path(tmp_path, "sub-1", study.scans["tmax"])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    data = dataset.Dataset(tmp_path, "x", True, pd.DataFrame(), pd.DataFrame(), study.scans)
    assert data.scan("sub-1", "tmax") == path and data.scan("sub-1", "cta") is None


# ---------------------------------------------------------------------------- what no model may read


@pytest.mark.parametrize(
    "place", ["derivatives", "Derivatives", "{0}/../derivatives", "x/derivatives"]
)
def test_a_study_file_that_takes_scans_from_derivatives_is_refused(study, tmp_path, place):
    path = f"{place}/truth/{{0}}/{{0}}_vessels.nii.gz"
    text = study.text.replace("{0}/ct/{0}_vessels.nii.gz", path)
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    with pytest.raises(
        InputError, match=r"path of scan 'vessels' is '.*'; allowed: a path outside"
    ):
        read_study(tmp_path / "study.toml")
    (tmp_path / "study.toml").write_text(study.text, encoding="utf-8")
    assert read_study(tmp_path / "study.toml").scans == study.scans


def both_ways(root, scan):
    """What `scan_path` and `Dataset.scan` do with a scan of sub-1 that is there."""
    data = dataset.Dataset(root, "x", True, pd.DataFrame(), pd.DataFrame(), {"scan": scan})
    return [lambda: dataset.scan_path(root, "sub-1", scan), lambda: data.scan("sub-1", "scan")]


def refused(root, scan):
    for look in both_ways(root, scan):
        with pytest.raises(InputError, match=r"a folder derivatives/; allowed: a scan outside it"):
            look()


@pytest.fixture
def known(tmp_path):
    """A file of a simulator's truth, in a dataset folder."""
    path = tmp_path / "data" / dataset.TRUTH / "sub-1" / "sub-1_vessels.nii.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"true")
    return path


def test_a_scan_in_derivatives_is_refused_by_its_name(known, tmp_path):
    refused(tmp_path / "data", Scan("derivatives/truth/{0}/{0}_vessels.nii.gz", "mask"))
    (tmp_path / "data" / "sub-1").mkdir()
    refused(tmp_path / "data", Scan("{0}/../derivatives/truth/{0}/{0}_vessels.nii.gz", "mask"))
    (tmp_path / "data" / "derivatives" / "truth").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "derivatives" / "truth").symlink_to(tmp_path / "elsewhere")
    refused(tmp_path / "data", Scan("derivatives/truth/{0}/{0}_vessels.nii.gz", "mask"))


@pytest.mark.parametrize(
    "link", ["file", "folder", "patient", "chain", "other dataset", "derivatives"]
)
def test_a_link_into_derivatives_is_refused(known, tmp_path, link):
    root, scan = tmp_path / "data", Scan("{0}/ct/{0}_vessels.nii.gz", "mask")
    if link == "other dataset":
        root = tmp_path / "other"
    if link == "derivatives":  # itself a link: its target is the truth under another name
        (tmp_path / "data" / "derivatives").rename(tmp_path / "elsewhere")
        (tmp_path / "data" / "derivatives").symlink_to(tmp_path / "elsewhere")
        known = tmp_path / "elsewhere" / "truth" / "sub-1" / known.name
    path = root / "sub-1" / "ct" / "sub-1_vessels.nii.gz"
    if link == "folder":
        path.parent.parent.mkdir()
        path.parent.symlink_to(known.parent)
    elif link == "patient":
        (known.parent / "ct").mkdir()
        known.rename(known.parent / "ct" / known.name)
        path.parent.parent.symlink_to(known.parent)
    else:
        path.parent.mkdir(parents=True)
        step = tmp_path / "step"
        step.symlink_to(known)
        path.symlink_to(step if link == "chain" else known)
    assert path.is_file()
    refused(root, scan)


def test_other_links_and_a_dataset_below_a_folder_of_that_name_are_read(tmp_path):
    root, scan = tmp_path / "derivatives" / "data", Scan("{0}/ct/{0}_ncct.nii.gz", "ct")
    path = root / "sub-1" / "ct" / "sub-1_ncct.nii.gz"
    path.parent.mkdir(parents=True)
    (root / "annex").write_bytes(b"scan")
    path.symlink_to(root / "annex")  # as git-annex keeps files
    assert [look() for look in both_ways(root, scan)] == [path, path]


def test_columns_of_the_simulators_truth_are_not_used(raw, write_dataset, study, words):
    names = ["plan_fail", "truncal", "siphon_calcium", "lesion_grain_mm"]
    assert not [name for name in names if name in words]
    root = write_dataset(raw.assign(**dict.fromkeys(names, "1")))
    data = dataset.load_dataset(root, study, words)
    for patient in raw.index:
        path = dataset.scan_path(root, patient, study.scans["ncct"])
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    assert set(data.table) <= set(words.fields)
    assert not set(names) & set(cohort.build(data, study, words))


# ---------------------------------------------------------------------------------------- content


def test_dates_are_read_strictly():
    text = pd.Series(["2020-03-01 10:30", "2020-03-01T10:30:05", " 2020-03-01 ", "2020-13-01",
                      "20200301", "2020", "01/03/2020", "2020-03-01 10:30+02:00", ""])  # fmt: skip
    assert dataset.datetimes(text).notna().tolist() == [True] * 3 + [False] * 6


def test_the_same_content_under_two_names_is_one_group(raw, words):
    twin = raw.loc[["sub-03"]].rename(index={"sub-03": "sub-99"})
    twin[["age", "core_ml", "sex"]] = [
        f"{raw.loc['sub-03', 'age']}.0",
        " 10.00",
        raw.loc["sub-03", "sex"] + " ",
    ]
    twin["scan_datetime"], twin["hir"] = "2021-01-01 10:00", "0.20"  # ID and calculated: no content
    both = pd.concat([raw, twin])
    group = dataset.content_groups(both.assign(note=range(9)), words)
    assert group["sub-99"] == group["sub-03"] and group.nunique() == 8
    twin[["age", "core_ml", "sbp_adm"]] = ["18", "11", "99"]  # three of them: another patient
    assert dataset.content_groups(pd.concat([raw, twin]), words).nunique() == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"age": "18"},
        {"age": "-99"},
        {"sex": "-99", "core_ml": "11"},
        {"centre": "B", "operator": "Z", "admit_year": "2022"},  # not the patient's own
        {"scan_datetime": "-99", "puncture_datetime": "-99"},
    ],
)
def test_a_patient_entered_again_and_corrected_is_one_group(raw, words, changes):
    twin = raw.loc[["sub-03"]].rename(index={"sub-03": "sub-99"}).assign(**changes)
    group = dataset.content_groups(pd.concat([raw, twin]), words)
    assert group["sub-99"] == group["sub-03"] and group.nunique() == 8


def test_reasons_for_a_missing_value_are_no_content(raw, words):
    twin = raw.loc[["sub-03"]].rename(index={"sub-03": "sub-99"})
    raw.loc["sub-03", "core_ml"], twin["core_ml"] = "-99", "-97"
    assert dataset.content_groups(pd.concat([raw, twin]), words).nunique() == 8


def test_too_little_content_makes_no_group(words):
    four = {"age": "70", "nihss_adm": "10", "sbp_adm": "140", "glucose_adm": "120", "sex": "1"}
    raw = pd.DataFrame([four | {"core_ml": "-99"}] * 2, index=["sub-1", "sub-2"])
    assert dataset.content_groups(raw, words).tolist() == [0, 1]
    assert dataset.content_groups(raw.assign(core_ml="5"), words).tolist() == [0, 0]


@given(st.lists(st.sampled_from(["70", "70.0", " 7e1", "71", "-99", "", "n/a", "x"]), min_size=1))
def test_value_codes_are_equal_where_values_are(words, text):
    codes = dataset.value_codes(pd.Series(text), words["age"])
    read = [{"70": 1, "70.0": 1, "7e1": 1, "71": 2, "x": 3}.get(t.strip(), 0) for t in text]
    for a, code in zip(read, codes, strict=True):
        assert (code == -1) == (a == 0)
        assert [code == other for other in codes] == [a == other for other in read]


def test_grouping_ten_thousand_rows_compares_no_pairs(words):
    rng = np.random.default_rng(0)
    columns = ["age", "nihss_adm", "sbp_adm", "glucose_adm", "core_ml"]
    raw = pd.DataFrame({c: rng.integers(0, 40, 10_000).astype(str) for c in columns})
    expected = raw.groupby(columns).ngroup()
    group = dataset.content_groups(raw, words)
    assert pd.factorize(group)[0].tolist() == pd.factorize(expected)[0].tolist()


def test_an_excluded_scan_is_one_that_the_patient_does_not_have(raw, write_dataset, study, words):
    root = write_dataset(raw)
    for name in ("cta", "ncct"):
        path = dataset.scan_path(root, "sub-01", study.scans[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a scan")
    (root / "exclusions.csv").write_text("participant_id,scan,reason\nsub-01,cta,late phase\n")
    data = dataset.load_dataset(root, study, words)
    assert data.scan("sub-01", "cta") is None and data.scan("sub-01", "ncct") is not None
    assert (
        data.exclusions.scans == {("sub-01", "cta"): "late phase"} and not data.exclusions.patients
    )
    (root / "exclusions.csv").write_text("participant_id,scan,reason\nsub-01,ct,late phase\n")
    with pytest.raises(
        InputError, match=r"exclusions.csv, line 2: patient 'sub-01': scan 'ct' is not"
    ):
        dataset.load_dataset(root, study, words)
