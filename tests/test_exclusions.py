import pytest

from rlvo_lib.config import InputError
from rlvo_lib.exclusions import Exclusions, problems, read_exclusions

PATIENTS, SCANS = ["sub-1", "sub-2", "sub-3"], ["ncct", "cta"]


@pytest.fixture
def read(tmp_path):
    """A function that writes the file and reads it."""

    def write_and_read(text, encoding="utf-8"):
        (tmp_path / "exclusions.csv").write_bytes(text.encode(encoding))
        return read_exclusions(tmp_path, PATIENTS, SCANS)

    return write_and_read


def test_no_file_and_a_header_alone_exclude_nobody(tmp_path, read):
    assert read_exclusions(tmp_path, PATIENTS, SCANS) == Exclusions()
    assert read("participant_id,reason\n") == Exclusions()
    assert Exclusions().fingerprint == ""


def test_patients_and_scans_with_their_reasons(read):
    text = 'participant_id,reason,scan\r\nsub-1, motion ,\r\n\r\nsub-2,"late, no arteries",cta\r\n'
    found = read(text)
    assert found.patients == {"sub-1": "motion"}
    assert found.scans == {("sub-2", "cta"): "late, no arteries"}
    assert read(text, "utf-8-sig") == found
    assert read("scan,reason,participant_id\ncta,late,sub-2\n").scans == {("sub-2", "cta"): "late"}


def test_the_fingerprint_follows_content_not_order_or_spaces(read):
    one = read("participant_id,reason\nsub-1,a\nsub-2,b\n").fingerprint
    assert read("reason,participant_id\nb, sub-2\na,sub-1\n").fingerprint == one
    assert read("participant_id,reason\nsub-1,a\nsub-2,c\n").fingerprint != one
    assert read("participant_id,reason,scan\nsub-1,a,\nsub-2,b,cta\n").fingerprint != one


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("sub-9,motion,", r"line 2: patient 'sub-9' is not in the table; allowed: patients of"),
        ("sub-1,motion,mri", r"line 2: .*scan 'mri' is not known; allowed: none .* ncct, cta"),
        ("sub-1,motion,CTA", r"scan 'CTA' is not known"),
        ("sub-1,,", r"line 2: patient 'sub-1' has no reason; allowed: a reason"),
        ("sub-1,  ,cta", r"has no reason"),
        ("sub-1,a,\nsub-1,b,", r"line 3: patient 'sub-1' stands in line 2 already"),
        ("sub-1,a,cta\nsub-2,a,cta\nsub-1,b,cta", r"line 4: .*scan 'cta', stands in line 2"),
        ("sub-1,a,cta\nsub-1,b,", r"line 2: .*line 3 excludes the patient as a whole"),
        ("sub-1,late, no arteries,cta", r"line 2: .*another number of fields.*in quotation marks"),
        ("sub-1,motion", r"another number of fields"),
        (f"sub-1,{'x' * 121},", r"a reason of 121 characters; allowed: a line of at most 120"),
        ("sub-1,bell \a,", r"printable"),
        ("sub-1,a,mri\nsub-9,b,", r"\(2 problems in all\)"),
        ('sub-1,"open,', r"line 2: not readable .*allowed: fields with commas"),
    ],
)
def test_a_faulty_row_is_refused_with_its_line(read, rows, message):
    with pytest.raises(InputError, match=message) as caught:
        read(f"participant_id,reason,scan\n{rows}\n")
    assert "exclusions.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 'participant_id' is missing"),
        ("participant_id\nsub-1\n", "column 'reason' is missing"),
        ("participant_id,reason,scans\n", "column 'scans' is not known; allowed: participant_id"),
        ("participant_id,reason,reason\n", "column 'reason' stands in it twice"),
        ("participant_id;reason\nsub-1;motion\n", "columns are separated by semicolons"),
        ("participant_id\treason\n", "columns are separated by tabs"),
        ("participant_id,reason\n\0", "zero bytes; allowed: text in UTF-8"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(read, text, message):
    with pytest.raises(InputError, match=message):
        read(text)


def test_other_encodings_are_named(read):
    with pytest.raises(InputError, match="UTF-16"):
        read("participant_id,reason\n", "utf-16")
    with pytest.raises(InputError, match=r"line 2: is not in UTF-8 \(byte 0xf3\)"):
        read("participant_id,reason\nsub-1,artefacto de oclusi\xf3n\n", "latin-1")


def test_a_folder_or_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "exclusions.csv"
    with path.open("wb") as file:
        file.truncate(6_000_000)
    with pytest.raises(InputError, match="6 MB; allowed: 5 MB"):
        problems(tmp_path, PATIENTS, SCANS)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_exclusions(tmp_path, PATIENTS, SCANS)


def test_a_file_that_would_silently_not_be_read_is_refused(tmp_path):
    link = tmp_path / "exclusions.csv"
    link.symlink_to(tmp_path / "moved.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_exclusions(tmp_path, PATIENTS, SCANS)
    link.unlink()
    (tmp_path / "Exclusions.CSV").write_text("participant_id,reason\nsub-1,motion\n")
    with pytest.raises(
        InputError, match=r"Exclusions.CSV: would not be read; allowed: the name ex"
    ):
        read_exclusions(tmp_path, PATIENTS, SCANS)
