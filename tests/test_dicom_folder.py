"""`rlvo dicom` as a whole: a folder as a PACS exports it becomes a dataset, and nothing leaks."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import dicoms
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from typer.testing import CliRunner

from rlvo_lib import cli, dataset, dicom, validation
from rlvo_lib.config import InputError
from rlvo_lib.dicom import sources


@pytest.fixture
def convert(study, words, tmp_path):
    """A function that converts a folder into ``tmp_path/data``."""

    def run(source, **options):
        return dicom.convert_folder(source, tmp_path / "data", study, words, **options)

    return run


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One patient as a PACS exports: localizer, NCCT in two kernels, CTA, four maps, and the rest."""
    folder = tmp_path_factory.mktemp("pacs") / "export"
    dicoms.localizer(folder / "A")
    dicoms.ncct(folder / "A", name="IM{1:04d}")  # no extension
    dicoms.ncct(folder / "A", number=3, kernel="H60s", description="HEAD BONE")
    dicoms.cta(folder / "B")
    dicoms.cta(
        folder / "B",
        number=6,
        slice_mm=3.0,
        description="CTA MIP",
        heights=[20 + 3 * i for i in range(24)],
    )
    for scan, scale in (("CBF", 50.0), ("CBV", 4.0), ("MTT", 5.0), ("TMAX", 3.0)):
        dicoms.perfusion_map(folder / "C", scan, scale)
    dicoms.series(
        folder / "C", number=20, description="CTP 4D", slices=2, times=10, heights=[60.0, 70.0]
    )
    dicoms.series(folder / "D", number=30, description="Dose", slices=1,
                  SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67", Modality="SR", Rows=None)  # fmt: skip
    dicoms.series(folder / "D", number=31, description="RAPID summary", slices=1,
                  SOPClassUID="1.2.840.10008.5.1.4.1.1.7", PhotometricInterpretation="RGB")  # fmt: skip
    (folder / "README.txt").write_text("not DICOM")
    (folder / "empty").write_text("")
    return folder


def test_a_whole_export_becomes_a_dataset(convert, exported, study, words, tmp_path):
    summary = convert(exported)
    assert summary.in_order, dicom.show(summary, "x")
    (work,) = summary.works
    assert work.made == {
        "ncct": "study1_series2", "cta": "study1_series5", "cbf": "study1_series21",
        "cbv": "study1_series22", "mtt": "study1_series23", "tmax": "study1_series24",
    }  # fmt: skip
    assert summary.counts["files that are not DICOM, ignored"] == 2
    table = pd.read_csv(tmp_path / "data/derivatives/dicom/report.csv", keep_default_na=False)
    said = table.set_index("stack")["reason"]
    for stack, reason in {
        1: "localizer", 3: "sharp kernel", 6: "projection", 20: "perfusion series over time",
        30: "structured report", 31: "secondary capture",
    }.items():  # fmt: skip
        assert reason in said[f"study1_series{stack}"], stack
    loaded = dataset.load_dataset(tmp_path / "data", study, words)
    assert not loaded.simulated
    faults = validation.validate(tmp_path / "data", study, words, read_scans=True)
    # The miniature's slabs are as thin as they look.
    thin = faults["message"].str.contains("a slab that cannot hold|the head is cut off")
    assert (faults.loc[thin, "severity"] == "warning").all()
    faults = faults[~thin]
    assert not [m for m in faults["message"] if "nii" in m], faults.to_string()
    assert faults[faults["where"].str.contains("nii", na=False)].empty


def test_voxels_lie_where_the_headers_say_and_hold_hu(convert, exported, tmp_path):
    name = convert(exported).works[0].participant_id
    image = nib.load(tmp_path / f"data/{name}/ct/{name}_ncct.nii.gz")
    index = np.argwhere(np.ones(image.shape))
    x, y, z = (image.affine[:3, :3] @ index.T + image.affine[:3, 3:]) * [[-1], [-1], [1]]
    np.testing.assert_array_equal(image.get_fdata().ravel(), dicoms.head_hu(x, y, z))
    maps = nib.load(tmp_path / f"data/{name}/perf/{name}_cbf.nii.gz")
    assert set(np.unique(maps.get_fdata())) == {0.0, 50.0}


def test_no_text_of_the_headers_reaches_the_dataset(convert, study, words, tmp_path):
    source = tmp_path / "in"
    planted = dicoms.PLANTED | {
        "SeriesDescription": "../../HEAD Planted WITHOUT\n=1+1",
        "ConvolutionKernel": "H31s Planted",
        "Manufacturer": "SIEMENS Planted Hospital",
    }
    dicoms.ncct(source, patient="../../PLANTED-007", **planted)
    dicoms.cta(source, patient="../../PLANTED-007", **planted | {
        "ContrastBolusAgent": "Planted agent", "SeriesDescription": "CTA @Planted"})  # fmt: skip
    summary = convert(source)
    assert sorted(summary.works[0].made) == ["cta", "ncct"]
    out = tmp_path / "data"
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 8
    for path in files:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = content[:20] + gzip.decompress(content)
        for text in (
            b"lanted",
            b"LANTED",
            b"HYPERLINK",
            b"007",
            b"1947",
            b"20210305",
            b"2021-03-05",
            b"../",
        ):
            assert text not in content, (path, text)
            assert text.decode() not in str(path.relative_to(tmp_path))
        for uid in (dicoms.uid("../../PLANTED-007", 1), dicoms.uid("../../PLANTED-007", 1, 2)):
            assert uid.encode() not in content
    assert not list(tmp_path.parent.glob("*lanted*"))
    # the screen shows neither
    assert "lanted" not in dicom.show(summary, "data").lower()
    about = json.loads(next(out.rglob("*_ncct.json")).read_text())
    assert about == {
        "Simulated": False, "Modality": "CT", "Manufacturer": "Siemens", "KVP": 120,
        "SliceThickness": 5, "GantryDetectorTilt": 0, "ConvolutionKernel": "H31s", "Units": "HU",
    }  # fmt: skip


def test_identifiers_and_dates_come_from_a_secret_outside_the_dataset(convert, tmp_path):
    dicoms.ncct(tmp_path / "in", patient="A")
    dicoms.ncct(tmp_path / "in", patient="B", number=9)
    summary = convert(tmp_path / "in")
    table = pd.read_csv(tmp_path / "data/participants.tsv", sep="\t")
    links = pd.read_csv(tmp_path / "data_private/patients.csv").set_index("patient_id")
    assert sorted(links.index) == ["A", "B"]
    assert list(table["participant_id"]) == sorted(links["participant_id"])
    times = {"A": "2021-03-05 10:32", "B": "2021-03-05 10:39"}
    for original, (name, days) in links.iterrows():
        assert -1094 <= days <= -30
        when = pd.Timestamp(table.set_index("participant_id").at[name, "scan_datetime"])
        assert when - pd.Timedelta(days=days) == pd.Timestamp(times[original])
    assert links["days"].nunique() == 2
    secret = (tmp_path / "data_private/secret.key").read_text().strip()
    for path in ("", "secret.key", "patients.csv", "series.csv"):
        assert os.stat(tmp_path / "data_private" / path).st_mode & 0o077 == 0, path
    for path in (tmp_path / "data").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()
    # the same secret gives the same names in another dataset; another secret others
    assert summary.works[0].participant_id == links.at["A", "participant_id"]
    shutil.rmtree(tmp_path / "data_private")
    with pytest.raises(InputError, match="secret.key: is missing"):
        convert(tmp_path / "in")
    other = convert_elsewhere(tmp_path, convert)
    with pytest.raises(InputError, match="another secret"):
        convert(tmp_path / "in", private=other)


def convert_elsewhere(tmp_path, convert):
    from rlvo_lib.dicom import deidentify

    other = tmp_path / "other"
    deidentify.read_secret(other)
    return other


def test_a_list_of_patients_names_them_and_who_is_not_in_it_is_refused(convert, tmp_path):
    for number, patient in enumerate(("00123", "B", "C"), start=1):
        dicoms.ncct(tmp_path / "in", patient=patient, number=number)
    listed = tmp_path / "patients.csv"
    listed.write_text("patient_id,participant_id\n00123,sub-0007\nB,0008\n")
    summary = convert(tmp_path / "in", patients_path=listed)
    assert [w.participant_id for w in summary.works if w.made] == ["sub-0007", "sub-0008"]
    assert [w.failed for w in summary.works if not w.made] == [{"": "not in the list of patients"}]
    assert not summary.in_order
    refused = pd.read_csv(tmp_path / "data_private/refused.csv")
    assert refused.values.tolist() == [["C", "not in the list of patients"]]
    for text, message in (
        ("patient_id\nA\n", "participant_id"),
        ("patient_id,participant_id\nA,../x\n", "line 2: participant_id"),
        ("patient_id,participant_id\nA,sub-1\nB,sub-1\n", "line 3.*second time"),
    ):
        listed.write_text(text)
        with pytest.raises(InputError, match=message):
            convert(tmp_path / "in", patients_path=listed)


def test_a_table_of_an_import_is_left_alone_and_patients_without_a_row_are_named(convert, tmp_path):
    dicoms.ncct(tmp_path / "in", patient="A")
    dicoms.ncct(tmp_path / "in", patient="B", number=9)
    out = tmp_path / "data"
    out.mkdir()
    (out / "participants.tsv").write_text("participant_id\tage\nsub-0007\t71\n")
    (out / "dataset_description.json").write_text('{"Name": "mine", "simulated": false}')
    listed = tmp_path / "patients.csv"
    listed.write_text("patient_id,participant_id\nA,sub-0007\nB,sub-0008\n")
    summary = convert(tmp_path / "in", patients_path=listed)
    assert summary.without_row == ["sub-0008"] and not summary.in_order
    assert (out / "participants.tsv").read_text() == "participant_id\tage\nsub-0007\t71\n"
    assert json.loads((out / "dataset_description.json").read_text())["Name"] == "mine"
    assert (out / "sub-0008/ct/sub-0008_ncct.nii.gz").exists()


# ------------------------------------------------------------------------ undecided, and answers


def test_a_tie_is_left_to_a_person_whose_answer_is_kept(convert, tmp_path):
    dicoms.ncct(tmp_path / "in", number=2)
    dicoms.ncct(tmp_path / "in", number=3)
    summary = convert(tmp_path / "in")
    assert not summary.works[0].made and not summary.in_order
    open_path = tmp_path / "data_private/undecided.csv"
    asked = pd.read_csv(open_path, keep_default_na=False)
    assert list(asked["scan"]) == ["ncct"]
    assert "2 stacks of 5 mm" in asked.at[0, "reason"]
    assert (
        "study1_series2: HEAD WITHOUT, 5 mm, H31s, 30 slices | study1_series3"
        in asked.at[0, "candidates"]
    )
    asked["choice"] = "study1_series3"
    answers = tmp_path / "answers.csv"
    asked.to_csv(answers, index=False)
    summary = convert(tmp_path / "in", choices_path=answers)
    assert summary.works[0].made == {"ncct": "study1_series3"} and summary.in_order
    assert pd.read_csv(open_path).empty
    # a later run needs no answer again, and one more candidate is a new question
    assert convert(tmp_path / "in").works[0].unchanged
    dicoms.ncct(tmp_path / "in", number=4)
    (work,) = convert(tmp_path / "in").works
    (question,) = work.choice.open
    assert question.reason == "the candidates have changed since the answer (study1_series3)"
    assert len(question.candidates) == 3 and not work.made


def test_a_kept_answer_is_asked_again_when_its_label_means_another_series(convert, tmp_path):
    dicoms.ncct(tmp_path / "in", number=2)
    dicoms.ncct(tmp_path / "in", number=3)
    name = convert(tmp_path / "in").works[0].participant_id
    answers = tmp_path / "answers.csv"
    answers.write_text(f"participant_id,scan,choice\n{name},ncct,study1_series3\n")
    assert convert(tmp_path / "in", choices_path=answers).in_order
    # an older study is found: what was study 1 is study 2 now
    dicoms.ncct(tmp_path / "in", study=9, number=3, date="20200101")
    (work,) = convert(tmp_path / "in").works
    assert not work.made and "the candidates have changed" in work.choice.open[0].reason


@pytest.mark.parametrize(
    "row, message",
    [
        ("{0},ncct,study1_series9", "choice 'study1_series9'; allowed: none, or one of"),
        ("{0},cta,study1_series1", "cannot be used: a localizer"),
        ("{0},head,study1_series2", "scan 'head'; allowed: ncct"),
        ("../x,ncct,study1_series2", "participant_id '../x'"),
    ],
)
def test_answers_that_are_none_are_refused(convert, tmp_path, row, message):
    dicoms.localizer(tmp_path / "in")
    dicoms.ncct(tmp_path / "in")
    listed = tmp_path / "patients.csv"
    listed.write_text("patient_id,participant_id\nP1,sub-1\n")
    answers = tmp_path / "answers.csv"
    answers.write_text("participant_id,scan,choice\n" + row.format("sub-1") + "\n")
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "in", patients_path=listed, choices_path=answers)
    assert not (tmp_path / "data/sub-1").exists()


def test_an_answer_of_none_takes_away_what_was_made(convert, tmp_path):
    dicoms.ncct(tmp_path / "in")
    name = convert(tmp_path / "in").works[0].participant_id
    scan = tmp_path / f"data/{name}/ct/{name}_ncct.nii.gz"
    assert scan.exists()
    answers = tmp_path / "answers.csv"
    answers.write_text(f"participant_id,scan,choice\n{name},ncct,none\n")
    convert(tmp_path / "in", choices_path=answers)
    assert not scan.exists() and not scan.with_name(f"{name}_ncct.json").exists()


# -------------------------------------------------------------------------- finished work, again


def test_finished_patients_are_not_converted_twice_unless_their_files_changed(
    convert, tmp_path, monkeypatch
):
    paths = dicoms.ncct(tmp_path / "in", patient="A")
    dicoms.ncct(tmp_path / "in", patient="B", number=9)
    convert(tmp_path / "in")
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.nii.gz")}
    again = convert(tmp_path / "in")
    assert [w.unchanged for w in again.works] == [True, True]
    assert {p: p.stat().st_mtime_ns for p in written} == written
    # voxels of one file change, under the same name, size and header
    content = bytearray(paths[4].read_bytes())
    content[-40:] = bytes(reversed(content[-40:-2])) + b"\x01\x04"
    paths[4].write_bytes(content)
    assert [w.unchanged for w in convert(tmp_path / "in").works] == [False, True]
    # a result that was taken away is made again
    next(iter(written)).unlink()
    assert sorted(w.unchanged for w in convert(tmp_path / "in").works) == [False, True]
    assert all(path.exists() for path in written)


def test_the_same_files_give_the_same_bytes(convert, study, words, exported, tmp_path):
    first = convert(exported)
    dicom.convert_folder(
        exported, tmp_path / "again", study, words, private=tmp_path / "data_private"
    )
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file() and path.name != "dataset_description.json":
            assert (
                tmp_path / "again" / path.relative_to(tmp_path / "data")
            ).read_bytes() == path.read_bytes()
    assert first.in_order


def test_a_killed_run_is_taken_up_again(convert, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(stack, scan, *rest):
        if scan == "cta":
            raise Killed
        return whole(stack, scan, *rest)

    whole = dicom.folder.conversion.convert
    dicoms.ncct(tmp_path / "in" / "a")
    dicoms.cta(tmp_path / "in" / "b")
    monkeypatch.setattr(dicom.folder.conversion, "convert", killed)
    with pytest.raises(Killed):
        convert(tmp_path / "in")
    assert len(list((tmp_path / "data").rglob("*.nii.gz"))) == 1
    monkeypatch.setattr(dicom.folder.conversion, "convert", whole)
    summary = convert(tmp_path / "in")
    assert summary.in_order and set(summary.works[0].made) == {"ncct", "cta"}


def test_what_a_killed_run_began_goes_where_it_is_not_chosen_any_more(
    convert, tmp_path, monkeypatch
):
    test_a_killed_run_is_taken_up_again(convert, tmp_path, monkeypatch)
    name = convert(tmp_path / "in").works[0].participant_id
    record = tmp_path / "data_private" / "finished" / f"{name}.json"
    scan = f"{name}/ct/{name}_ncct.nii.gz"
    record.write_text(json.dumps({"begun": [scan]}))
    shutil.rmtree(tmp_path / "in" / "a")
    convert(tmp_path / "in", overwrite=True)
    assert not (tmp_path / "data" / scan).exists()
    assert not (tmp_path / "data" / scan.replace(".nii.gz", ".json")).exists()


def test_an_export_without_the_files_of_an_earlier_one_takes_nothing_away(convert, tmp_path):
    dicoms.ncct(tmp_path / "in" / "a")
    dicoms.cta(tmp_path / "in" / "b")
    name = convert(tmp_path / "in").works[0].participant_id
    table = (tmp_path / "data/derivatives/dicom/report.csv").read_text()
    dicoms.ncct(tmp_path / "later", study=2, date="20210309")
    summary = convert(tmp_path / "later")
    assert summary.works[0].failed[""].startswith("an earlier run made cta, ncct of series")
    assert not summary.in_order
    assert len(list((tmp_path / "data").rglob("*.nii.gz"))) == 2
    assert (tmp_path / "data/derivatives/dicom/report.csv").read_text() == table
    assert convert(tmp_path / "in").in_order
    assert convert(tmp_path / "later", overwrite=True).in_order
    scans = [path.name for path in (tmp_path / "data").rglob("*.nii.gz")]
    assert scans == [f"{name}_ncct.nii.gz"]


def test_files_without_a_preamble_and_deflated_ones_are_named(convert, tmp_path):
    dicoms.ncct(tmp_path / "in" / "whole")
    bare, packed = dicoms.cta(tmp_path / "in" / "other")[:2]
    pydicom.dcmwrite(
        bare, pydicom.Dataset(pydicom.dcmread(bare)), implicit_vr=True, little_endian=True
    )
    data = pydicom.dcmread(packed)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(packed, enforce_file_format=True)
    summary = convert(tmp_path / "in")
    said = {os.path.basename(name): reason for name, reason in summary.skipped}
    assert "without a preamble" in said[bare.name] and "deflated" in said[packed.name]
    assert not summary.in_order and "ncct" in summary.works[0].made


def test_a_full_disk_for_temporary_files_stops_the_run(convert, tmp_path, monkeypatch):
    dicoms.ncct(tmp_path / "in")
    monkeypatch.setattr(dicom.folder.conversion, "_run_dcm2niix", lambda *_: ("", 1))
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="the disk is full"):
        convert(tmp_path / "in")


def test_a_dataset_that_would_hold_the_dicom_files_is_refused(convert, study, words, tmp_path):
    dicoms.ncct(tmp_path / "data" / "export")
    for source in (tmp_path / "data", tmp_path / "data" / "export"):
        with pytest.raises(InputError, match="would hold the DICOM files"):
            convert(source)


def test_files_that_lack_the_issuer_of_the_identifier_are_of_the_same_patient(convert, tmp_path):
    dicoms.ncct(tmp_path / "in", IssuerOfPatientID="HOSPITAL")
    dicoms.cta(tmp_path / "in")
    (work,) = convert(tmp_path / "in").works
    assert set(work.made) == {"ncct", "cta"}


def test_patients_of_two_issuers_under_one_name_of_the_list_are_refused(convert, tmp_path):
    dicoms.ncct(tmp_path / "in" / "a", IssuerOfPatientID="HOSPITAL A")
    dicoms.ncct(tmp_path / "in" / "b", IssuerOfPatientID="HOSPITAL B", number=3)
    table = tmp_path / "patients.csv"
    table.write_text("patient_id,participant_id\nP1,sub-0001\n")
    summary = convert(tmp_path / "in", patients_path=table)
    assert [work.failed[""][:15] for work in summary.works] == ["another patient"] * 2
    assert not list((tmp_path / "data").rglob("*.nii.gz"))
    table.write_text(
        "patient_id,participant_id\nP1 / HOSPITAL A,sub-0001\nP1 / HOSPITAL B,sub-0002\n"
    )
    assert convert(tmp_path / "in", patients_path=table).in_order


def test_one_private_folder_for_two_datasets_lists_each_ones_own_patients(
    convert, study, words, tmp_path
):
    dicoms.ncct(tmp_path / "one")
    dicoms.ncct(tmp_path / "two", patient="P2")
    private = tmp_path / "data_private"
    convert(tmp_path / "one", private=private)
    other = tmp_path / "other"
    summary = dicom.convert_folder(tmp_path / "two", other, study, words, private=private)
    rows = pd.read_csv(other / "participants.tsv", sep="\t")
    assert list(rows["participant_id"]) == [summary.works[0].participant_id]


def test_a_member_without_a_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(zipfile.ZipInfo("."), b"x")
    with pytest.raises(InputError, match="without a name"):
        sources.unpacked(tmp_path / "a.zip", tmp_path / "to")


def test_scans_of_others_are_not_written_over(convert, tmp_path):
    dicoms.ncct(tmp_path / "in")
    scan = tmp_path / "data/sub-7/ct/sub-7_ncct.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(b"mine")
    summary = convert(tmp_path / "in", patient="sub-7")
    assert "is there already" in summary.works[0].failed["ncct"]
    assert scan.read_bytes() == b"mine"
    assert convert(tmp_path / "in", patient="sub-7", overwrite=True).in_order
    assert nib.load(scan).shape == (32, 32, 30)


def test_a_dry_run_writes_nothing(convert, exported, tmp_path):
    summary = convert(exported, dry_run=True)
    shown = dicom.show(summary, "data")
    assert "study1_series2: HEAD WITHOUT, 5 mm, H31s, 30 slices: ncct, chosen" in shown
    assert "study1_series1: Topogram" in shown and "set aside (a localizer)" in shown
    assert "1 ncct, 1 cta, 1 cbf, 1 cbv, 1 mtt, 1 tmax would be converted" in shown
    assert list(tmp_path.iterdir()) == []


def test_one_bad_patient_does_not_stop_the_others(convert, tmp_path):
    for number, patient in enumerate("ABC", start=1):
        dicoms.ncct(
            tmp_path / "in", patient=patient, number=number, drop=(11,) if patient == "B" else ()
        )
    dicoms.cta(tmp_path / "in", patient="B")
    summary = convert(tmp_path / "in")
    assert [sorted(w.made) for w in summary.works] == [["ncct"], ["cta"], ["ncct"]]
    (reason,) = summary.works[1].choice.refused.values()
    assert "study1_series2: about 1 slices missing (gap of 10.0 mm after slice 11 of 29" in reason
    assert not summary.in_order


# --------------------------------------------------------------------------------- bad input


def test_two_people_under_one_series_or_identifier_are_refused(convert, tmp_path):
    shared = dicoms.uid("shared")
    for patient in "AB":
        dicoms.ncct(tmp_path / "in" / patient, patient=patient, SeriesInstanceUID=shared,
                    first=1 if patient == "A" else 101)  # fmt: skip
    summary = convert(tmp_path / "in")
    assert len(summary.works) == 2 and not any(w.made for w in summary.works)
    for work in summary.works:
        assert "files of two patients under one series identifier" in work.choice.refused["ncct"]
    shutil.rmtree(tmp_path / "in")
    dicoms.ncct(tmp_path / "in", PatientBirthDate="19400101")
    dicoms.cta(tmp_path / "in", PatientBirthDate="19500101")
    (work,) = convert(tmp_path / "in").works
    assert "2 dates of birth" in work.failed[""] and not work.made


def test_what_was_made_goes_when_the_patient_turns_out_to_be_two(convert, tmp_path):
    dicoms.ncct(tmp_path / "in", PatientBirthDate="19400101")
    convert(tmp_path / "in")
    assert len(list((tmp_path / "data").rglob("*.nii.gz"))) == 1
    dicoms.cta(tmp_path / "in", PatientBirthDate="19500101")
    assert not convert(tmp_path / "in").in_order
    assert not list((tmp_path / "data").rglob("sub-*_*"))
    assert not (tmp_path / "data/participants.tsv").exists()


def test_files_without_an_identifier_need_a_name(convert, tmp_path):
    dicoms.ncct(tmp_path / "in", PatientID="")
    (work,) = convert(tmp_path / "in").works
    assert "without a patient identifier" in work.failed[""]
    (work,) = convert(tmp_path / "in", patient="sub-1").works
    assert work.made == {"ncct": "study1_series2"}
    dicoms.ncct(tmp_path / "in", patient="B", number=9)
    with pytest.raises(InputError, match="--patient: 2 patients"):
        convert(tmp_path / "in", patient="sub-1")


def test_compressed_voxels_that_cannot_be_decoded_are_named(convert, tmp_path):
    for path in dicoms.ncct(tmp_path / "in"):
        dicoms.broken_jpeg(path)
    dicoms.cta(tmp_path / "in")
    (work,) = convert(tmp_path / "in").works
    assert "cannot be decoded" in work.failed["ncct"] and "JPEG lossless" in work.failed["ncct"]
    assert list(work.made) == ["cta"]
    assert not [p for p in (tmp_path / "data").rglob("*ncct*")]


def test_a_truncated_file_spoils_its_series_and_is_named(convert, tmp_path):
    paths = dicoms.ncct(tmp_path / "in")
    paths[7].write_bytes(paths[7].read_bytes()[:-500])
    paths = dicoms.cta(tmp_path / "in")
    paths[0].write_bytes(paths[0].read_bytes()[:300])
    summary = convert(tmp_path / "in")
    (reason,) = summary.works[0].choice.refused.values()
    assert "1 of 30 files: cut off: holds 1,548 of 2,048 bytes of voxels" in reason
    assert summary.skipped == [("5-0001.dcm", "damaged or cut off in its header")]
    assert list(summary.works[0].made) == ["cta"] and not summary.in_order


def test_folders_without_dicom_are_refused(convert, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        convert(tmp_path / "nowhere")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no DICOM file that can be read, among 0 files"):
        convert(tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="among 1 files"):
        convert(tmp_path / "in")
    with pytest.raises(InputError, match="notes.txt: is a file; allowed: a folder"):
        convert(tmp_path / "in" / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_outputs_that_must_not_be_written_are_refused(convert, study, words, tmp_path):
    dicoms.ncct(tmp_path / "in")
    with pytest.raises(InputError, match="lies in the dataset"):
        convert(tmp_path / "in", private=tmp_path / "data" / "secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_description.json").write_text('{"Name": "x", "simulated": true}')
    with pytest.raises(InputError, match="simulated"):
        convert(tmp_path / "in")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        dicom.convert_folder(tmp_path / "in", tmp_path / "file", study, words)
    with pytest.raises(InputError, match="cannot write"):
        dicom.convert_folder(tmp_path / "in", tmp_path / "file" / "below", study, words)


def test_a_read_only_output_is_refused(convert, tmp_path, monkeypatch):
    """Also for root, who may write anywhere: the system call itself fails."""
    import tempfile

    dicoms.ncct(tmp_path / "in")
    real = tempfile.mkstemp

    def read_only(*args, **kwargs):
        if str(tmp_path / "data") in str(kwargs.get("dir")):
            raise OSError(30, "Read-only file system")
        return real(*args, **kwargs)

    monkeypatch.setattr(tempfile, "mkstemp", read_only)
    with pytest.raises(InputError, match="cannot write .*: the disk is read-only"):
        convert(tmp_path / "in")


def test_two_processes_into_one_dataset_wait_for_each_other(tmp_path):
    for number, patient in enumerate("ABC", start=1):
        dicoms.ncct(tmp_path / "in", patient=patient, number=number)
    command = [sys.executable, "-c", "from rlvo_lib.cli import main; main()", "dicom", "in", "--out",
               "data", "--workers", "1"]  # fmt: skip
    running = [
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    found = sorted("3 of them finished before" in out for out, _ in said)
    assert found == [False, True], said
    assert len(list((tmp_path / "data").rglob("*.nii.gz"))) == 3
    assert not [path for path in (tmp_path / "data").rglob("*") if path.name.startswith(".")]


def test_archives_are_read_and_hostile_ones_are_not(convert, tmp_path):
    paths = dicoms.ncct(tmp_path / "plain")
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/a.tar.gz", "w:gz") as tar:
        for path in paths[:15]:
            tar.add(path, arcname=path.name)
    with zipfile.ZipFile(tmp_path / "in/b.zip", "w") as packed:
        for path in paths[15:]:
            packed.write(path, arcname=f"DICOM/{path.name}")
    with zipfile.ZipFile(tmp_path / "in/evil.zip", "w") as packed:
        packed.write(paths[0], arcname="../../evil.dcm")
    with tarfile.open(tmp_path / "in/evil.tar", "w") as tar:
        tar.add(paths[0], arcname="../evil.dcm")
    (tmp_path / "in/broken.tar.gz").write_bytes((tmp_path / "in/a.tar.gz").read_bytes()[:900])
    summary = convert(tmp_path / "in")
    assert summary.works[0].made == {"ncct": "study1_series2"}
    assert nib.load(next((tmp_path / "data").rglob("*.nii.gz"))).shape == (32, 32, 30)
    said = dict(summary.skipped)
    assert set(said) == {"evil.zip", "evil.tar", "broken.tar.gz"}
    assert "leads out of it" in said["evil.zip"] and "leads out of it" in said["evil.tar"]
    assert not list(tmp_path.rglob("evil.dcm"))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_claims_too_much_is_refused_before_unpacking(tmp_path, monkeypatch, kind):
    (tmp_path / "zeros").write_bytes(bytes(5_000_000))
    archive = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.write(tmp_path / "zeros", "zeros")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(tmp_path / "zeros", "zeros")
    monkeypatch.setattr(sources, "MAX_ARCHIVE_BYTES", 4_000_000)
    with pytest.raises(InputError, match="claims 0.0 GB in 1 files; allowed"):
        sources.unpacked(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_archives_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "link", "link")
    for name in ("a.zip", "a.tar"):
        with pytest.raises(InputError, match="leads out of it"):
            sources.unpacked(tmp_path / name, tmp_path / "out")


def test_links_that_lead_out_are_not_followed(convert, tmp_path):
    dicoms.ncct(tmp_path / "in")
    dicoms.cta(tmp_path / "elsewhere")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/file.dcm").symlink_to(next((tmp_path / "elsewhere").iterdir()))
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    summary = convert(tmp_path / "in")
    assert list(summary.works[0].made) == ["ncct"]
    assert summary.skipped == [
        ("file.dcm", "a symbolic link that leads out of the folder"),
        ("link", "a symbolic link that leads out of the folder"),
    ]


# ----------------------------------------------------------------------------------- the command


def test_the_command_and_its_exit_status(exported, tmp_path):
    run = CliRunner().invoke(cli.app, ["dicom", str(exported), "--out", str(tmp_path / "data")])
    assert run.exit_code == 0, run.output
    assert "1 patients; 1 ncct, 1 cta, 1 cbf, 1 cbv, 1 mtt, 1 tmax there; 0 undecided" in run.output
    dicoms.ncct(tmp_path / "tie", number=2)
    dicoms.ncct(tmp_path / "tie", number=3)
    arguments = ["dicom", str(tmp_path / "tie"), "--out", str(tmp_path / "tied"), "--workers", "1"]
    run = CliRunner().invoke(cli.app, arguments)
    assert run.exit_code == 1 and "answer in tied_private/undecided.csv" in run.output
    run = CliRunner().invoke(cli.app, ["dicom", str(tmp_path / "no"), "--out", str(tmp_path / "x")])
    assert isinstance(run.exception, InputError)


def test_a_study_without_ct_is_refused(words, tmp_path):
    from rlvo_lib.config import load_study

    dicoms.ncct(tmp_path / "in")
    with pytest.raises(InputError, match="--study soop: has none of the scans ncct"):
        dicom.convert_folder(tmp_path / "in", tmp_path / "data", load_study("soop"), words)


def test_a_second_batch_joins_the_first(convert, tmp_path):
    dicoms.ncct(tmp_path / "one", patient="A")
    dicoms.ncct(tmp_path / "two", patient="B")
    first, second = convert(tmp_path / "one"), convert(tmp_path / "two")
    names = sorted(w.participant_id for s in (first, second) for w in s.works)
    for file, mark in (("data/participants.tsv", "\t"), ("data/derivatives/dicom/report.csv", ",")):
        assert list(pd.read_csv(tmp_path / file, sep=mark)["participant_id"]) == names
    assert len(pd.read_csv(tmp_path / "data_private/patients.csv")) == 2


def test_the_embedded_sidecar_has_the_same_keys(convert, exported, tmp_path):
    from rlvo_lib.simulate import scanner

    plan, machine = scanner.GRIDS["cohort"], scanner.SCANNERS["A"]
    made = scanner.sidecar("ncct", scanner.cta_grid(plan, machine), machine, 5.0)
    convert(exported)
    about = json.loads(next((tmp_path / "data").rglob("*_ncct.json")).read_text())
    assert set(made) - {"Note"} <= set(about)
    assert set(about) - set(made) <= {"ConvolutionKernel", "Resampled"}


def test_pydicom_reads_what_the_tests_write(tmp_path):
    path = dicoms.ncct(tmp_path)[0]
    assert pydicom.dcmread(path).pixel_array.shape == (32, 32)
