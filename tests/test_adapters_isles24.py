"""ISLES'24 as a dataset folder, on a miniature with its names that is written here; no file of it is used."""

import json
import shutil

import nibabel as nib
import numpy as np
import openpyxl
import pandas as pd
import pytest
from phantoms import NCCT, PERF, cta_hu, head_hu, perfusion_maps, scan_path
from test_cli import rlvo

from rlvo_lib import config, dataset, dictionary, images, notebooks, storage, validation
from rlvo_lib.adapters import isles24, phenotype
from rlvo_lib.analysis import open_analysis, open_images
from rlvo_lib.config import InputError

BASELINE = {
    "Center": "1", "Sex": "F", "Age": "74", "Atrial fibrillation": "1", "Hypertension": "1",
    "Diabetes": "0", "Hyperlipidemia": "0", "Anticoagulation": "1", "Lipid lowering drugs": "0",
    "PAIs": "1", "Glucose": "118", "INR": "1.0", "Wake-up": "0", "In-House": "0", "Referral": "1",
    "Onset to door": "1:05:00", "NIHSS at admission": "14", "mRS at admission": "5",
    "mRS premorbid": "1", "Door to imaging": "0:20:30", "Door to groin": "1:00:00",
}  # fmt: skip
OTHER = BASELINE | {"Age": "61", "NIHSS at admission": "9", "Onset to door": "2:30:00"}
OUTCOME = {"NIHSS 24h": "6", "mRS 3 months": "2", "TICI postinterventional": "2b"}
ONE, TWO, THREE = "sub-stroke0001", "sub-stroke0002", "sub-stroke0005"


@pytest.fixture(scope="module")
def volumes():
    ncct = np.rint(head_hu(*NCCT)).astype(np.int16)
    hu, affine, _ = cta_hu()
    maps = {name: (values, PERF[1]) for name, values in perfusion_maps("left").items()}
    return {"ncct": (ncct, NCCT[1]), "cta": (np.rint(hu).astype(np.int16), affine)} | maps


def _save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.save_nifti(path, array, np.eye(4) if affine is None else affine)


def _write_patient(root, patient, volumes, *, raw="raw_data", session="ses-01", kind="csv"):
    """As the public folder has it; the registered scans are the same, as if nothing had moved."""
    for name, (array, affine) in volumes.items():
        array = array.copy()
        array[1, 1, 1] += int(patient[-1])  # no two patients have the same file
        below = "" if name in ("ncct", "cta") else "perfusion-maps/"
        own = root / raw / patient / session / below / f"{patient}_{session}_{name}.nii.gz"
        _save(own, array, affine)
        if name != "ncct":
            moved = root / "derivatives" / patient / session / below
            _save(moved / f"{patient}_{session}_space-ncct_{name}.nii.gz", array, affine)
    series = root / raw / patient / session / f"{patient}_{session}_ctp.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 2, 30), np.int16), np.eye(4)), series)
    derived = root / "derivatives" / patient
    for name in ("lvo-msk", "cow-msk"):
        mask = np.zeros((4, 4, 4), np.uint8)
        _save(derived / session / f"{patient}_{session}_space-ncct_{name}.nii.gz", mask)
    later = session.replace("1", "2")
    for name in ("dwi", "lesion-msk"):
        _save(derived / later / f"{patient}_{later}_space-ncct_{name}.nii.gz", np.ones((4, 4, 4)))
    baseline = BASELINE if patient == ONE else OTHER
    _write_clinical(root, patient, "ses-01", "demographic_baseline", baseline, kind)
    _write_clinical(root, patient, "ses-02", "outcome", OUTCOME, kind)


def _write_clinical(root, patient, session, what, values, kind="csv"):
    path = root / "phenotype" / patient / session / f"{patient}_{session}_{what}.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "csv":
        path.write_text("\n".join(",".join(line) for line in (values.keys(), values.values())))
        return
    book = openpyxl.Workbook()
    for line in (values.keys(), values.values()):
        book.active.append([int(v) if v.isdigit() else v for v in line])
    book.save(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory, volumes):
    """Two patients, one with .xlsx tables; read only."""
    root = tmp_path_factory.mktemp("isles") / "train"
    _write_patient(root, ONE, volumes)
    _write_patient(root, TWO, volumes, kind="xlsx")
    return root


@pytest.fixture(scope="module")
def adapted(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "dataset"
    return isles24.adapt(source, out), out


@pytest.fixture
def small(tmp_path, volumes):
    """One patient with an NCCT, a CTA and one map, to be changed."""
    root = tmp_path / "train"
    _write_patient(root, ONE, {name: volumes[name] for name in ("ncct", "cta", "tmax")})
    return root


def _table(out):
    return pd.read_csv(out / "participants.tsv", sep="\t", dtype=str, index_col="participant_id")


def _said(report, what):
    return report[report["what"] == what].set_index("participant_id")["value"].to_dict()


def _raw(root, name, patient=ONE):
    below = "" if name in ("ncct", "cta", "ctp") else "perfusion-maps"
    return root / "raw_data" / patient / "ses-01" / below / f"{patient}_ses-01_{name}.nii.gz"


def _registered(root, name, patient=ONE):
    below = "" if name == "cta" else "perfusion-maps"
    folder = root / "derivatives" / patient / "ses-01" / below
    return folder / f"{patient}_ses-01_space-ncct_{name}.nii.gz"


# --------------------------------------------------------------------------------------- the dataset


def test_scans_are_copied_under_the_studys_names_and_nothing_else(adapted, source):
    _, out = adapted
    for patient in (ONE, TWO):
        files = sorted(path.name for path in (out / patient).rglob("*.nii.gz"))
        assert files == sorted(f"{patient}_{name}.nii.gz" for name in isles24.SCANS)
        assert not any(path.is_symlink() for path in (out / patient).rglob("*"))
    assert scan_path(out, ONE, "ncct").read_bytes() == _raw(source, "ncct").read_bytes()
    assert scan_path(out, ONE, "cta").read_bytes() == _registered(source, "cta").read_bytes()
    assert scan_path(out, TWO, "tmax").read_bytes() == _registered(source, "tmax", TWO).read_bytes()


def test_what_is_outcome_or_comes_later_is_set_aside_and_said(adapted):
    report, out = adapted
    assert _said(report, "series over time set aside") == {
        name: f"{name}_ses-01_ctp.nii.gz" for name in (ONE, TWO)
    }
    masks = report[report["what"] == "mask set aside"]
    assert len(masks) == 4 and masks["value"].str.contains("lvo|cow").all()
    assert _said(report, "follow-up set aside") == {ONE: "2", TWO: "2"}
    assert not list(out.rglob("*msk*")) and not list(out.rglob("*dwi*"))
    stored = pd.read_csv(out / isles24.REPORT, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(stored, report)
    assert set(report["what"]) <= set(isles24.KINDS)


def test_clinical_values_have_the_dictionarys_codes(adapted):
    _, out = adapted
    row, other = _table(out).loc[ONE], _table(out).loc[TWO]
    assert row.to_dict() == {
        "centre": "centre1", "age": "74", "sex": "0", "hypertension": "1", "diabetes": "0",
        "dyslipidemia": "0", "af_known": "1", "antiplatelet": "1", "pre_mrs": "1", "nihss_adm": "14",
        "lkw_to_ct_min": "86", "nihss_24h": "6", "mrs_90d": "2",
    }  # fmt: skip
    changed = {"age": "61", "nihss_adm": "9", "lkw_to_ct_min": "170"}
    assert other.to_dict() == row.to_dict() | changed  # from a workbook
    words = dictionary.load(config.load_study("rlvo").dictionary_path)
    assert set(row.index) <= set(words.fields)


def test_columns_without_a_clear_counterpart_are_named_with_the_reason(adapted):
    report, _ = adapted
    unused = report[report["what"] == "column not used"].set_index("value")["detail"]
    assert unused["glucose"] == "its unit is not told"
    assert "no controls" in unused["tici postinterventional"]
    assert "etici_final" not in _table(adapted[1]).columns
    assert (unused != "not known").all()


def test_the_dataset_says_that_it_is_real_and_under_which_licence(adapted):
    description = json.loads((adapted[1] / "dataset_description.json").read_text())
    assert description["simulated"] is False and description["License"] == "CC BY-NC-SA 4.0"


def test_native_scans_are_taken_when_asked_for(small, tmp_path_factory):
    array, affine = images.load_nifti(_raw(small, "cta"))
    affine[0, 3] += 2
    _save(_raw(small, "cta"), array.astype(np.int16), affine)
    out = tmp_path_factory.mktemp("out")
    isles24.adapt(small, out / "native", native=True)
    isles24.adapt(small.parent, out / "registered")  # the folder above train
    for name, there in (("native", affine[0, 3]), ("registered", affine[0, 3] - 2)):
        assert images.load_nifti(scan_path(out / name, ONE, "cta"))[1][0, 3] == there
    isles24.adapt(small, out / "registered", native=True)  # another choice is not taken for done
    assert images.load_nifti(scan_path(out / "registered", ONE, "cta"))[1][0, 3] == affine[0, 3]


def test_a_scan_that_was_not_registered_is_taken_in_its_own_space(small, tmp_path):
    _registered(small, "cta").unlink()
    report = isles24.adapt(small, tmp_path / "out")
    assert _said(report, "registered scan missing") == {ONE: f"{ONE}_ses-01_cta.nii.gz"}
    assert scan_path(tmp_path / "out", ONE, "cta").read_bytes() == _raw(small, "cta").read_bytes()
    assert set(report[report["what"] == "scan missing"]["value"]) == {"cbf", "cbv", "mtt"}


def test_the_names_of_the_readme_are_read_too(tmp_path, volumes):
    root, patient = tmp_path / "isles", "sub-strokecase0007"
    kept = {name: volumes[name] for name in ("ncct", "tmax")}
    _write_patient(root, patient, kept, raw="rawdata", session="ses-0001")
    shutil.rmtree(root / "phenotype")
    for session, what, values in (
        ("ses-0001", "demographic_baseline", BASELINE), ("ses-0002", "outcome", OUTCOME),
    ):  # fmt: skip
        path = root / "phenotype" / session / f"{patient}_{session}_{what}.csv"
        path.parent.mkdir(parents=True)
        path.write_text(";".join(values) + "\n" + ";".join(values.values()) + "\n")
    isles24.adapt(root, tmp_path / "out")
    assert scan_path(tmp_path / "out", patient, "tmax").exists()
    assert _table(tmp_path / "out").loc[patient, "nihss_adm"] == "14"


# ----------------------------------------------------------------------------------- what is faulty


def test_files_that_cannot_be_used_are_left_out_with_the_reason(small, tmp_path):
    damaged = _registered(small, "tmax")
    damaged.write_bytes(damaged.read_bytes()[:-300])
    nib.save(
        nib.Nifti1Image(np.zeros((4, 4, 2, 30), np.int16), np.eye(4)), _registered(small, "cta")
    )
    report = isles24.adapt(small, tmp_path / "out")
    why = report[report["what"] == "file that cannot be used"].set_index("value")["detail"]
    assert "damaged or truncated" in why[damaged.name]
    assert "raw CT perfusion" in why[_registered(small, "cta").name]
    assert str(tmp_path) not in "".join(why)
    assert not scan_path(tmp_path / "out", ONE, "tmax").exists()
    assert scan_path(tmp_path / "out", ONE, "ncct").exists()


def test_voxels_of_a_map_without_a_value_become_zero_and_are_said(small, tmp_path):
    array, affine = images.load_nifti(_registered(small, "tmax"))
    array[array == 0] = np.nan
    _save(_registered(small, "tmax"), array, affine)
    report = isles24.adapt(small, tmp_path / "out")
    assert _said(report, "voxels without a value") == {ONE: _registered(small, "tmax").name}
    written, _ = images.load_nifti(scan_path(tmp_path / "out", ONE, "tmax"))
    np.testing.assert_array_equal(written, np.nan_to_num(array))
    array, affine = images.load_nifti(_raw(small, "ncct"))
    array[0, 0, 0] = np.nan
    _save(_raw(small, "ncct"), array, affine)
    report = isles24.adapt(small, tmp_path / "out")
    assert "NaN" in report[report["what"] == "file that cannot be used"]["detail"].iloc[0]
    assert not scan_path(tmp_path / "out", ONE, "ncct").exists()  # of a CT nothing is filled in


def test_clinical_values_are_not_guessed(tmp_path, small):
    odd = BASELINE | {"Hyperlipidemia": "2", "Sex": "nan", "Age": "74.6", "Wake-up": "1",
                      "NIHSS at admission": "n/a", "mRS premorbid": "moderate", "Center": "Zurich"}  # fmt: skip
    _write_clinical(small, ONE, "ses-01", "demographic_baseline", odd)
    report = isles24.adapt(small, tmp_path / "out")
    row = _table(tmp_path / "out").loc[ONE]
    missing = ["dyslipidemia", "sex", "nihss_adm", "pre_mrs", "centre", "lkw_to_ct_min"]
    assert set(row[missing]) == {"-99"} and row["age"] == "74"
    said = set(report[report["what"] == "value without a reading"]["value"])
    assert said == {"hyperlipidemia: 2", "mrs premorbid: moderate", "center: Zurich"}


@pytest.mark.parametrize(
    ("onset", "imaging", "found"),
    [
        ("1:05:00", "0:20:30", "86"),
        ("0 days 01:05:00", "00:20", "85"),
        ("1 day, 1:00:00", "0:10:00", "-99"),  # beyond what the dictionary allows
        ("0:02:00", "0:03:00", "-99"),
        ("65", "0:20:00", "-99"),  # minutes or hours?
        ("", "0:20:00", "-99"),
    ],
)
def test_time_from_onset_to_imaging(onset, imaging, found):
    cells = {"wake-up": "0", "onset to door": onset, "door to imaging": imaging}
    value, lines = phenotype._last_known_well(cells)
    assert value == found
    assert bool(lines) == (found == "-99" and onset != "")


def test_a_patient_without_tables_and_one_without_scans_stay(small, tmp_path):
    shutil.rmtree(small / "phenotype" / ONE)
    _write_clinical(small, THREE, "ses-01", "demographic_baseline", BASELINE)
    (small / "phenotype" / THREE / "ses-01" / f"{THREE}_ses-01_outcome.csv").write_text("what\n1\n")
    report = isles24.adapt(small, tmp_path / "out")
    table = _table(tmp_path / "out")
    assert set(table.loc[ONE]) == {"-99"} and table.loc[THREE, "age"] == "74"
    assert (report["what"] == "no clinical file").sum() == 2
    assert _said(report, "file that cannot be used") == {THREE: f"{THREE}_ses-01_outcome.csv"}
    assert (report[report["participant_id"] == THREE]["what"] == "scan missing").sum() == 6


# ------------------------------------------------------------------------------------ again, refused


def test_work_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    out, checked, real = tmp_path / "out", [], isles24._check_and_copy

    def counted(path, target, scan):
        checked.append(path.name)
        if len(checked) == 2:
            raise InputError(f"cannot write {target}: the disk is full")
        return real(path, target, scan)

    shutil.copytree(small / "raw_data" / ONE, small / "raw_data" / TWO)
    for path in (small / "raw_data" / TWO).rglob("*.nii.gz"):
        path.rename(path.with_name(path.name.replace(ONE, TWO)))
    first = isles24.adapt(small, tmp_path / "whole")
    monkeypatch.setattr(isles24, "_check_and_copy", counted)
    with pytest.raises(InputError, match="disk is full"):
        isles24.adapt(small, out)
    assert not (out / "dataset_description.json").exists()
    again = isles24.adapt(small, out)
    pd.testing.assert_frame_equal(again, first)
    before = len(checked)
    pd.testing.assert_frame_equal(isles24.adapt(small, out), first)
    assert len(checked) == before  # all was there
    scan_path(out, ONE, "ncct").unlink()
    isles24.adapt(small, out)
    assert len(checked) == before + 1 and scan_path(out, ONE, "ncct").exists()


def test_what_is_no_isles_folder_or_another_dataset_is_refused(source, tmp_path, small):
    with pytest.raises(InputError, match="no such folder"):
        isles24.adapt(tmp_path / "none", tmp_path / "out")
    (tmp_path / "train.7z").write_text("")
    with pytest.raises(InputError, match="unpack train.7z"):
        isles24.adapt(tmp_path / "train.7z", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no folder raw_data"):
        isles24.adapt(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "empty" / "raw_data").mkdir()
    with pytest.raises(InputError, match="holds no patient"):
        isles24.adapt(tmp_path / "empty", tmp_path / "out")
    for out in (small, small / "dataset", small.parent):
        with pytest.raises(InputError, match="apart from the source"):
            isles24.adapt(small, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.docx").write_text("")
    with pytest.raises(InputError, match=r"thesis.docx"):
        isles24.adapt(source, tmp_path / "mine")
    storage.write_json(tmp_path / "sim" / "dataset_description.json", {"simulated": True})
    with pytest.raises(InputError, match="simulated"):
        isles24.adapt(source, tmp_path / "sim")


def test_the_command(small, tmp_path):
    code, out, err = rlvo("adapt", "isles24", small, "--out", tmp_path / "out")
    assert code == 0, err
    assert "series over time set aside: 1" in out and "no rLVO outcome" in out
    code, _, err = rlvo("adapt", "isles24", tmp_path / "no", "--out", tmp_path / "out")
    assert code == 2 and "no such folder" in err


# ------------------------------------------------------------------------------- on to the notebooks


def test_images_open_without_any_outcome(adapted, tmp_path):
    _, out = adapted
    study = config.load_study("rlvo")
    faults = validation.validate(out, study, dictionary.load(study.dictionary_path))
    errors = faults[faults["severity"] == "error"]
    assert errors["message"].str.contains("column '.+' is missing").all()
    assert {"etici_final", "side"} <= set(errors["where"])
    settings = config.load_settings(
        "smoke", data=out, out=tmp_path / "run", cache=tmp_path / "cache", workers=1
    )
    with pytest.raises(InputError, match="is missing"):
        open_analysis(settings)
    analysis = open_images(settings)
    assert list(analysis.frame["included"]) == ["1", "1"] and analysis.y.empty
    assert analysis.split.empty and not (tmp_path / "run").exists()
    tensors = analysis.tensors()
    assert tensors.missing([ONE, TWO], list(study.channels)) == {}
    assert "affected side unknown" in tensors.table.at[ONE, "flags"]
    assert isinstance(analysis.dataset, dataset.Dataset) and analysis.dataset.kind == "real"


def test_notebook_02_runs_on_it(adapted, tmp_path):
    parameters = {
        "profile": "smoke",
        "data": str(adapted[1]),
        "out": str(tmp_path / "run"),
        "overrides": {"cache": str(tmp_path / "cache")},
    }
    path = notebooks.run_one("02_preprocessing", tmp_path / "notebooks", parameters)
    said = path.read_text(encoding="utf-8")
    assert "Real data. 2 patients" in said and "The outcome of nobody is known" in said
    available = storage.read_csv(tmp_path / "run" / "tables" / "availability.csv")
    assert (available["available"] == 2).all() and len(available) == 7
    assert (tmp_path / "run" / "figures" / "mosaic_ncct.png").exists()
