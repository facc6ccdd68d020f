import numpy as np
import pytest

from rlvo_lib import images, validation
from rlvo_lib.config import InputError
from rlvo_lib.dataset import scan_path


def _faults(raw, write_dataset, study, words):
    return validation.validate(write_dataset(raw), study, words)


def test_a_good_table_has_no_faults(raw, write_dataset, study, words):
    assert _faults(raw, write_dataset, study, words).empty


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
        ("core_ml", "301", "0 to 300"),
    ],
)
def test_a_bad_value_names_patient_column_value_and_what_is_allowed(
    raw, write_dataset, study, words, column, value, allowed
):
    raw.loc["sub-03", column] = value
    faults = _faults(raw, write_dataset, study, words)
    assert len(faults) == 1
    fault = faults.iloc[0]
    assert (fault["severity"], fault["participant_id"]) == ("error", "sub-03")
    assert (fault["where"], fault["value"]) == (column, value)
    assert allowed in fault["allowed"]


def test_all_faults_come_at_once(raw, write_dataset, study, words):
    raw.loc["sub-00", "age"] = "200"
    raw.loc["sub-01", "sex"] = "m"
    raw.loc["sub-02", "tmax10_ml"] = "60"  # above tmax6_ml, 50
    raw.loc["sub-03", "puncture_datetime"] = "2019-01-01 10:00"
    raw["shoe_size"] = "43"
    faults = _faults(raw, write_dataset, study, words)
    assert set(faults["where"]) == {"age", "sex", "tmax10_ml", "scan_datetime", "shoe_size"}
    assert (faults[faults["where"] == "shoe_size"]["severity"] == "warning").all()


def test_missing_values_are_no_faults(raw, write_dataset, study, words):
    raw.loc["sub-00", ["nihss_adm", "core_ml"]] = ["-99", "-97"]
    raw.loc["sub-01", "nihss_adm"] = "n/a"
    assert _faults(raw, write_dataset, study, words).empty


def test_missing_columns(raw, write_dataset, study, words):
    faults = _faults(raw.drop(columns=["etici_final", "aspects"]), write_dataset, study, words)
    severity = faults.set_index("where")["severity"].to_dict()
    assert severity == {"etici_final": "error", "aspects": "warning"}


def test_identifiers_must_be_bids(raw, write_dataset, study, words):
    raw = raw.rename(index={"sub-00": "../sub-00"})
    faults = _faults(raw, write_dataset, study, words)
    assert faults["message"].tolist() == ["not a BIDS identifier"]


def test_scans_are_checked_by_patient_and_file(raw, write_dataset, study, words):
    root = write_dataset(raw)
    images.save_nifti(scan_path(root, "sub-00", "ncct"), np.zeros((4, 4, 4), np.int16), np.eye(4))
    broken = scan_path(root, "sub-01", "cta")
    broken.parent.mkdir(parents=True)
    broken.write_text("not an image")
    (root / "sub-99").mkdir()
    faults = validation.validate(root, study, words).set_index("participant_id")
    assert faults.loc["sub-01", "where"] == "sub-01/ct/sub-01_cta.nii.gz"
    assert faults.loc["sub-99", "severity"] == "warning"
    assert "sub-00" not in faults.index


def test_require_valid_says_the_first_and_how_many(raw, write_dataset, study, words):
    raw.loc["sub-02", "age"], raw.loc["sub-03", "sex"] = "200", "x"
    with pytest.raises(InputError, match=r"patient 'sub-02', age: .*2 errors in all") as caught:
        validation.require_valid(write_dataset(raw), study, words)
    assert "\n" not in str(caught.value)


def test_a_faulty_split_is_found(raw, write_dataset, study, words):
    root = write_dataset(raw)
    rows = [f"{name},train,{1 + i % 3}" for i, name in enumerate(raw.index)]
    (root / "split.csv").write_text("participant_id,partition,fold\n" + "\n".join(rows))
    fault = validation.validate(root, study, words).iloc[0]
    assert fault["where"] == "split.csv" and "fold 4 has no patient" in fault["message"]


def test_reading_the_scans_finds_what_headers_do_not_show(raw, write_dataset, study, words):
    root = write_dataset(raw)
    path = scan_path(root, "sub-00", "ncct")
    array = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    images.save_nifti(path, array, np.eye(4))
    path.write_bytes(path.read_bytes()[:-2000])
    assert validation.validate(root, study, words).empty
    faults = validation.validate(root, study, words, read_scans=True)
    assert faults["participant_id"].tolist() == ["sub-00"]
    assert "damaged or truncated" in faults["message"].iloc[0]
