"""The dataset folder: deterministic, resumable, refused where it would hide something else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from phantoms import scan_path

from rlvo_lib import cohort, config, dictionary, images, storage, validation
from rlvo_lib.config import InputError
from rlvo_lib.dataset import load_dataset
from rlvo_lib.metrics import auc
from rlvo_lib.simulate import dataset, patients, physics, write_dataset

SEED, N = 3, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("sim") / "cohort", patients=N, seed=SEED)


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def contents(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): storage.digest(p) for p in files}


def test_folder_is_a_valid_dataset_stamped_as_simulated(folder, study):
    study = config.load_study("rlvo")
    words = dictionary.load(study.dictionary_path)
    faults = validation.validate(folder, study, words)
    assert set(faults["severity"]) <= {"warning"}
    clinical = tuple(rule.text for rule in study.consistency if rule.severity == "warning")
    assert all(message.startswith(clinical) for message in faults["message"])
    loaded = load_dataset(folder, study, words)
    assert loaded.simulated
    assert len(loaded.table) == N
    for scan in dataset.WRITTEN_SCANS:
        assert loaded.scan("sub-0001", scan).exists()
    assert "SIMULATED" in (folder / "README").read_text()
    assert "SIMULATED" in json.loads((folder / "dataset_description.json").read_text())["Name"]


def test_scans_carry_their_true_affine(folder):
    array, affine = images.load_nifti(scan_path(folder, "sub-0001", "cta"))
    assert array.shape == physics.CTA.shape
    np.testing.assert_allclose(affine, physics.CTA.affine)


def test_truth_lies_only_under_derivatives(folder):
    assert not list(folder.glob("sub-*/ct/*vessels*"))
    assert len(list((folder / "derivatives" / "truth").glob("sub-*/*_vessels.nii.gz"))) == N
    header = (folder / "participants.tsv").read_text().splitlines()[0].split("\t")
    assert not {"rlvo", "etiology", "underlying_stenosis", "split", "cv_fold"} & set(header)


def test_split_is_the_simulators(folder):
    split = cohort.read_split(folder / "split.csv")
    assert (split["partition"] == "test").sum() == patients.study_counts(N)[1][0]
    assert set(split.loc[split["partition"] == "test", "fold"]) == {""}


def test_bytes_do_not_depend_on_the_number_of_workers(folder, tmp_path):
    """The folder was made by two processes; here three patients are made in this one."""
    rows = patients.select(N, SEED)[0].to_dict("records")
    for index in (0, 7, 19):
        dataset._write_patient(tmp_path, SEED, index, rows[index])
        for path in (
            p for p in tmp_path.rglob(f"*{rows[index]['participant_id']}*.*") if p.is_file()
        ):
            twin = folder / path.relative_to(tmp_path)
            assert path.read_bytes() == twin.read_bytes(), path.name


def test_interrupted_work_continues_where_it_stopped(folder, copy, monkeypatch):
    whole = contents(folder)
    (copy / "dataset_description.json").unlink()
    (copy / "participants.tsv").unlink()
    (copy / "derivatives/truth/sub-0004/sub-0004_truth.json").unlink()
    scan_path(copy, "sub-0004", "cta").unlink()
    made = []
    write = dataset._write_patient
    monkeypatch.setattr(
        dataset, "_write_patient", lambda *a: made.append(a[3]["participant_id"]) or write(*a)
    )
    write_dataset(copy, patients=N, seed=SEED, workers=1)
    assert made == ["sub-0004"]
    assert contents(copy) == whole


def test_finished_folder_is_returned_at_once(copy, monkeypatch):
    def refuse(*_):
        raise AssertionError("nothing should be drawn again")

    monkeypatch.setattr(patients, "select", refuse)
    assert write_dataset(copy, patients=N, seed=SEED) == copy


def test_description_comes_last(copy, monkeypatch):
    """A failure while the table is written leaves a folder that is not a dataset."""
    (copy / "dataset_description.json").unlink()
    (copy / "participants.tsv").unlink()

    def full(*_, **__):
        raise InputError("cannot write participants.tsv: the disk is full")

    monkeypatch.setattr(dataset, "_write_tsv", full)
    with pytest.raises(InputError, match="disk is full"):
        write_dataset(copy, patients=N, seed=SEED)
    assert not (copy / "dataset_description.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "papr"}, "scenario is 'papr'; allowed: paper"),
        ({"patients": 19}, "patients is 19; allowed: 20 or more"),
        ({"patients": 0}, "patients is 0; allowed: 20 or more"),
        ({"patients": 10_000}, "at most 9999"),
        ({"seed": -1}, "seed is -1; allowed: 0 or more"),
        ({"workers": 0}, "workers is 0; allowed: 1 or more"),
    ],
)
def test_unusable_arguments_are_named(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_dataset(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not a simulated dataset"):
        write_dataset(tmp_path, patients=N)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_dataset(tmp_path / "file", patients=N)


def test_other_simulation_is_refused(copy):
    with pytest.raises(InputError, match="seed 3 instead of 4"):
        write_dataset(copy, patients=N, seed=4)


def test_folder_of_an_older_version_is_refused(copy):
    path = copy / "derivatives/truth/generation.json"
    storage.write_json(path, storage.read_json(path) | {"code": "0" * 16})
    with pytest.raises(InputError, match="simulated by another version"):
        write_dataset(copy, patients=N, seed=SEED)


@pytest.mark.long
def test_file_sizes_do_not_tell_the_label(tmp_path):
    """AUC of the total file size of 200 patients, half of them events (standard error 0.041)."""
    latents, _ = patients.draw(2000, np.random.default_rng(1))
    sizes, labels = [], []
    for label in (0, 1):
        rows = latents[latents["rlvo"] == label].head(100).to_dict("records")
        for index, row in enumerate(rows):
            row["participant_id"] = f"sub-{label}{index:03d}"
            dataset._write_patient(tmp_path, 1, 2 * index + label, row)
            folder = tmp_path / row["participant_id"]
            sizes.append(float(sum(p.stat().st_size for p in folder.rglob("*.gz"))))
            labels.append(label)
    assert auc(np.array(labels), np.array(sizes)) == pytest.approx(0.5, abs=0.12)
