"""The dataset folder: deterministic, resumable, refused where it would hide something else."""

import errno
import gzip
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from phantoms import scan_path

from rlvo_lib import cohort, config, images, storage, validation
from rlvo_lib import workers as parallel
from rlvo_lib.config import InputError
from rlvo_lib.dataset import load_dataset
from rlvo_lib.metrics import auc
from rlvo_lib.simulate import (
    SCENARIOS,
    ceiling,
    coarse_warning,
    dataset,
    patients,
    rendering,
    write_dataset,
)

SEED, N = 3, 24
SCANS = ("ncct", "cta", "cbf", "cbv", "mtt", "tmax")
#: What only the procedure and what followed it can tell; no scan may depend on it.
OUTCOME = {
    "rlvo": 1, "etici": "0", "etici_rank": 0, "final_stenosis": 99.0, "rescue_type": 3, "n_passes": 8,
    "unreached": 1, "underlying_stenosis": 95.0, "hardness": 3.0,
}  # fmt: skip
#: Fields of a NIfTI header that place the voxels.
GEOMETRY = (
    "dim", "pixdim", "srow_x", "srow_y", "srow_z", "qform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z",
)  # fmt: skip


WITH_SCANS = ("paper", "missing")  # of the others the tables; the long test renders them

write_patient = dataset._write_patient


def in_this_process(work, tasks, **_):
    """In the place of the pool of processes, where only what is written is judged."""
    for task in tasks:
        work(*task)


def quick_ceiling(path, scenario, prevalence):
    """In the place of the ceiling, which has tests of its own; tells the process it is made in."""
    threads = os.environ.get("OMP_NUM_THREADS")
    given = {"scenario": scenario, "prevalence": prevalence, "threads": threads}
    storage.write_json(path, given)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dataset of each scenario; those with scans are written by two processes."""
    place = tmp_path_factory.mktemp("sim")
    made = {}
    for name in SCENARIOS:
        options = {
            "patients": N,
            "seed": SEED,
            "scenario": name,
            "table_only": name not in WITH_SCANS,
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dataset, "_write_ceiling", quick_ceiling)
            if options["table_only"]:
                patch.setattr(parallel, "run", in_this_process)
            made[name] = write_dataset(place / name, **options)
    return made


@pytest.fixture(scope="module")
def folder(folders):
    return folders["paper"]


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def interrupted(copy):
    """The folder as a kill would leave it: one patient and all that comes last are not there."""
    for name in ("dataset_description.json", "participants.tsv", "participants.json", "split.csv"):
        (copy / name).unlink()
    (copy / "derivatives/truth/sub-0004/sub-0004_truth.json").unlink()
    scan_path(copy, "sub-0004", "cta").unlink()
    return copy


def contents(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): storage.digest(p) for p in files}


def latents_of(folder):
    return storage.read_csv(folder / "derivatives/truth/latents.csv").set_index("participant_id")


def header_of(path):
    with gzip.open(path) as file:
        return nib.Nifti1Header(file.read(348), check=False)


# ------------------------------------------------------------------------------------- the format


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_is_a_valid_dataset(folders, study, words, scenario):
    folder = folders[scenario]
    faults = validation.validate(folder, study, words, read_scans=True)
    assert list(faults.loc[faults["severity"] == "error", "message"]) == []
    loaded = load_dataset(folder, study, words)
    assert loaded.simulated and len(loaded.table) == N
    description = storage.read_json(folder / "dataset_description.json")
    assert description["scenario"] == scenario
    assert SCENARIOS[scenario].text in (folder / "README").read_text()
    assert storage.read_json(folder / "derivatives/ceiling.json")["scenario"] == scenario


@pytest.mark.long
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in WITH_SCANS])
def test_scans_of_every_scenario_are_valid(tmp_path, study, words, scenario):
    folder = write_dataset(tmp_path / "sim", patients=N, seed=SEED, scenario=scenario)
    faults = validation.validate(folder, study, words, read_scans=True)
    assert list(faults.loc[faults["severity"] == "error", "message"]) == []


def test_a_cohort_like_the_study_gives_only_clinical_warnings(folder, study, words):
    faults = validation.validate(folder, study, words)
    clinical = tuple(rule.text for rule in study.consistency if rule.severity == "warning")
    assert all(message.startswith(clinical) for message in faults["message"])


def test_scenarios_have_the_names_and_words_of_the_settings():
    assert list(SCENARIOS) == list(config.SCENARIOS)
    assert all(SCENARIOS[name].text == text for name, text in config.SCENARIOS.items())
    assert config.load_settings("smoke", scenario="signal").scenario == "signal"
    with pytest.raises(InputError, match="'scenario' is 'papr'; allowed: paper, null, signal"):
        config.load_settings("smoke", scenario="papr")


def test_everything_says_that_it_is_simulated(folder):
    assert "SIMULATED" in (folder / "README").read_text()
    assert "SIMULATED" in storage.read_json(folder / "dataset_description.json")["Name"]
    assert storage.read_json(folder / "participants.json")["Simulated"] is True
    volumes = sorted(folder.rglob("*.nii.gz"))
    assert len(volumes) == N * (len(SCANS) + 4)
    assert {header_of(path)["descrip"].item() for path in volumes} == {b"SIMULATED DATA"}
    sidecars = sorted(folder.glob("sub-*/*/*.json"))
    scans = sorted(folder.glob("sub-*/*/*.nii.gz"))
    assert [str(p).removesuffix(".json") for p in sidecars] == [
        str(p).removesuffix(".nii.gz") for p in scans
    ]
    assert all(storage.read_json(path)["Simulated"] is True for path in sidecars)


def test_columns_are_described_in_the_words_of_the_dictionary(folder):
    about = storage.read_json(folder / "participants.json")
    header = (folder / "participants.tsv").read_text().splitlines()[0].split("\t")
    assert set(about) == {*header, "Simulated", "Note"}
    assert about["age"] == {"Description": "Age", "Units": "y", "Levels": {"-99": "not recorded"}}
    assert about["sex"]["Levels"] == {"0": "female", "1": "male", "-99": "not recorded"}


def test_scans_are_written_as_rendered(folder):
    row = patients.select(N, SEED)[0].to_dict("records")[5]
    drawn = rendering.render(row, np.random.SeedSequence([SEED, 1, 5]))
    for scan, (array, affine) in drawn.scans.items():
        written, its_affine = images.load_nifti(scan_path(folder, row["participant_id"], scan))
        np.testing.assert_array_equal(written, array)
        np.testing.assert_allclose(its_affine, affine, atol=1e-4)


def test_truth_lies_only_under_derivatives(folder):
    truth = folder / "derivatives" / "truth"
    masks = [f"{name}.nii.gz" for name in ("vessels", "lesion", "clot", "territory")]
    for end in (*masks, "tree.tsv.gz", "truth.json"):
        assert len(list(truth.glob(f"sub-*/*_{end}"))) == N
        assert not list(folder.glob(f"sub-*/**/*_{end}"))
    expected = {scan_path(folder, f"sub-{i:04d}", scan) for i in range(1, N + 1) for scan in SCANS}
    assert set(folder.glob("sub-*/**/*.nii.gz")) == expected
    header = (folder / "participants.tsv").read_text().splitlines()[0].split("\t")
    latents = set(latents_of(folder).columns) - set(header)
    assert {"rlvo", "etiology", "underlying_stenosis", "scanner"} <= latents
    assert not {"rlvo", "split", "cv_fold"} & set(header)
    tree = pd.read_csv(truth / "sub-0001/sub-0001_tree.tsv.gz", sep="\t")
    assert {"vessel", "radius_mm"} <= set(tree) and len(tree) > 100


def test_split_is_the_simulators(folder):
    split = cohort.read_split(folder / "split.csv")
    assert (split["partition"] == "test").sum() == patients.study_counts(N)[1][0]
    assert set(split.loc[split["partition"] == "test", "fold"]) == {""}


def test_only_scans_that_were_made_are_written(folders):
    folder = folders["missing"]
    made = latents_of(folder)[["has_ncct", "has_cta", "has_ctp"]]
    assert (made == 0).any().any(), "nobody lacks a scan: the test would show nothing"
    for name, row in made.iterrows():
        for scan in SCANS:
            path = scan_path(folder, name, scan)
            expected = bool(row[f"has_{scan if scan in ('ncct', 'cta') else 'ctp'}"])
            assert path.exists() == expected, path
            assert Path(str(path).removesuffix(".nii.gz") + ".json").exists() == expected


# ---------------------------------------------------------------------------- no label in the files


def test_no_file_of_a_patient_depends_on_the_outcome(tmp_path):
    """Headers, sidecars and voxels: the same bytes whatever became of the patient."""
    row = patients.select(N, SEED)[0].to_dict("records")[2]
    assert set(OUTCOME) <= set(row)
    for name, patient in (("as_drawn", row), ("changed", row | OUTCOME)):
        dataset._write_patient(tmp_path / name, SEED, 2, patient, "cohort", None)
    assert len(contents(tmp_path / "as_drawn")) > 12
    assert contents(tmp_path / "as_drawn") == contents(tmp_path / "changed")


def test_headers_and_sidecars_tell_the_scanner_and_the_pose_only(folder):
    seen = {}
    for name, scanner in latents_of(folder)["scanner"].items():
        for scan in SCANS:
            path = scan_path(folder, name, scan)
            header = header_of(path)
            words = json.loads(Path(str(path).removesuffix(".nii.gz") + ".json").read_text())
            words.pop("GantryDetectorTilt", None)  # part of the pose
            for field in GEOMETRY:
                header[field] = 0
            seen.setdefault((scanner, scan), set()).add((header.binaryblock, json.dumps(words)))
    assert len(seen) >= 2 * len(SCANS)
    assert all(len(kinds) == 1 for kinds in seen.values())


@pytest.mark.long
def test_file_sizes_do_not_tell_the_label(tmp_path):
    """AUC of the total file size of 200 patients, half of them events (standard error 0.041)."""
    latents, _ = patients.draw(2000, np.random.default_rng(1))
    sizes, labels = [], []
    for label in (0, 1):
        rows = latents[latents["rlvo"] == label].head(100).to_dict("records")
        for index, row in enumerate(rows):
            row["participant_id"] = f"sub-{label}{index:03d}"
            dataset._write_patient(tmp_path, 1, 2 * index + label, row, "cohort", None)
            folder = tmp_path / row["participant_id"]
            sizes.append(float(sum(p.stat().st_size for p in folder.rglob("*.gz"))))
            labels.append(label)
    assert auc(np.array(labels), np.array(sizes)) == pytest.approx(0.5, abs=0.12)


# ------------------------------------------------------------------------- the same bytes, resumed


def test_bytes_do_not_depend_on_the_number_of_workers(folder, tmp_path):
    """The folder was made by two processes; here three patients are made in this one."""
    rows = patients.select(N, SEED)[0].to_dict("records")
    for index in (0, 7, 19):
        dataset._write_patient(tmp_path, SEED, index, rows[index], "cohort", None)
        for path in (
            p for p in tmp_path.rglob(f"*{rows[index]['participant_id']}*.*") if p.is_file()
        ):
            twin = folder / path.relative_to(tmp_path)
            assert path.read_bytes() == twin.read_bytes(), path.name


def test_the_ceiling_is_made_by_one_thread_however_many_work(folder, interrupted, monkeypatch):
    monkeypatch.setattr(dataset, "_write_ceiling", quick_ceiling)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (interrupted / "derivatives/ceiling.json").unlink()
    write_dataset(interrupted, patients=N, seed=SEED, workers=1)
    assert storage.read_json(interrupted / "derivatives/ceiling.json")["threads"] == "1"
    assert contents(interrupted) == contents(folder)


def test_the_ceiling_is_that_of_scenario_and_prevalence(tmp_path, monkeypatch):
    monkeypatch.setattr(ceiling, "compute", lambda *asked: {"asked": list(asked)})
    dataset._write_ceiling(tmp_path / "ceiling.json", "shift", 0.3)
    assert storage.read_json(tmp_path / "ceiling.json") == {"asked": ["shift", 0.3]}


def test_interrupted_work_continues_where_it_stopped(folder, interrupted, monkeypatch):
    made = []
    monkeypatch.setattr(
        dataset,
        "_write_patient",
        lambda *a: made.append(a[3]["participant_id"]) or write_patient(*a),
    )
    write_dataset(interrupted, patients=N, seed=SEED, workers=1)
    assert made == ["sub-0004"]
    assert contents(interrupted) == contents(folder)


def test_patients_in_several_batches_are_the_same(folder, interrupted, monkeypatch):
    for name in ("sub-0002", "sub-0009", "sub-0020"):
        shutil.rmtree(interrupted / name)
        shutil.rmtree(interrupted / "derivatives/truth" / name)
    monkeypatch.setattr(dataset, "BATCH", 2)
    write_dataset(interrupted, patients=N, seed=SEED, workers=1)
    assert contents(interrupted) == contents(folder)


def test_the_size_of_a_scan_depends_on_its_grid_alone(folder):
    """Scans are stored without compression: nothing of what they show is in their size."""
    sizes = {}
    for path in folder.glob("sub-*/*/*.nii.gz"):
        scan = path.name.split("_")[1]
        key = scan, nib.load(path).shape
        sizes.setdefault(key, set()).add(path.stat().st_size)
    assert len(sizes) >= 6 and all(len(found) == 1 for found in sizes.values())


def test_finished_folder_is_returned_at_once(copy, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("nothing should be drawn again")

    monkeypatch.setattr(patients, "select", refuse)
    assert write_dataset(copy, patients=N, seed=SEED) == copy


def test_description_comes_last(interrupted, monkeypatch):
    """A failure while the table is written leaves a folder that is not a dataset."""

    def full(*_, **__):
        raise InputError("cannot write participants.tsv: the disk is full")

    monkeypatch.setattr(dataset, "_write_tsv", full)
    with pytest.raises(InputError, match="disk is full"):
        write_dataset(interrupted, patients=N, seed=SEED, workers=1)
    assert not (interrupted / "dataset_description.json").exists()


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "papr"}, "scenario is 'papr'; allowed: paper, null, signal"),
        ({"grid": "finest"}, "grid is 'finest'; allowed: cohort, fine"),
        ({"patients": 19}, "patients is 19; allowed: 20 or more"),
        ({"patients": 0}, "patients is 0; allowed: 20 or more"),
        ({"patients": 100_000}, "at most 99999 with scans"),
        ({"patients": 500_001, "table_only": True}, "500000 of tables only"),
        ({"prevalence": 0.0}, "prevalence is 0.0; allowed: between 0 and 1"),
        ({"prevalence": float("nan")}, "prevalence is nan; allowed"),
        ({"prevalence": 0.999}, "prevalence is 0.999"),
        ({"cta_mm": 0.2}, "cta_mm is 0.2; allowed: 0.3 to 4 mm"),
        ({"cta_mm": 5}, "cta_mm is 5; allowed: 0.3 to 4 mm"),
        ({"seed": -1}, "seed is -1; allowed: 0 or more"),
        ({"workers": 0}, "workers is 0; allowed: 1 or more"),
    ],
)
def test_unusable_arguments_are_named(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_dataset(tmp_path / "new", **{"patients": N} | options)
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 4}, "seed 3 instead of 4"),
        ({"scenario": "null"}, "scenario paper instead of null"),
        ({"grid": "fine"}, "grid cohort instead of fine"),
        ({"prevalence": 0.4}, "prevalence the default instead of 0.4"),
        ({"test": 9}, "test the default instead of 9"),
        ({"cta_mm": 2.0}, "cta_mm the default instead of 2.0"),
        ({"table_only": True}, "table_only False instead of True"),
    ],
)
def test_other_simulation_is_refused(copy, options, message):
    with pytest.raises(InputError, match=f"holds another simulation \\({message}\\)"):
        write_dataset(copy, **{"patients": N, "seed": SEED} | options)


def test_folder_of_an_older_version_is_refused(copy):
    path = copy / "derivatives/truth/generation.json"
    storage.write_json(path, storage.read_json(path) | {"code": "0" * 16})
    with pytest.raises(InputError, match="simulated by another version"):
        write_dataset(copy, patients=N, seed=SEED)


# --------------------------------------------------------------------------------------------- disk


def disk_with(monkeypatch, free_mb):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(dataset.shutil, "disk_usage", lambda _: usage(1e12, 0, free_mb * 1e6))


def test_estimate_of_the_disk_is_about_what_is_used(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and "sub-" in str(p)]
    on_disk = sum(-(-p.stat().st_size // 4096) * 4096 for p in files) / 1e6 / N
    assert on_disk <= dataset._patient_mb("cohort", None) * 1.1
    assert on_disk >= dataset._patient_mb("cohort", None) * 0.8


def test_grids_are_the_renderers():
    assert {name: disk.cta_mm for name, disk in dataset.DISK.items()} == {
        name: plan.cta_mm for name, plan in rendering.GRIDS.items()
    }
    disk = dataset.DISK["cohort"]
    halved = dataset._patient_mb("cohort", 0.75)  # half the edge, eight times the voxels
    assert halved == pytest.approx(disk.rest_mb + 8 * disk.cta_mb)


def test_too_little_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    disk_with(monkeypatch, free_mb=20)
    with pytest.raises(InputError, match=r"needs about [\d,]+ MB more and the disk has 20 MB free"):
        write_dataset(tmp_path / "deep" / "new", patients=N)
    assert not (tmp_path / "deep" / "new").exists()


def test_what_is_there_needs_no_room(folder, interrupted, monkeypatch):
    """A quarter of the whole cohort's size is room enough for the one patient that is left."""
    disk_with(monkeypatch, free_mb=0.25 * N * dataset._patient_mb("cohort", None))
    write_dataset(interrupted, patients=N, seed=SEED, workers=1)
    assert contents(interrupted) == contents(folder)


def test_disk_that_fills_up_is_said_and_the_work_goes_on_later(folder, interrupted, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="the disk is full; free some space and run again"):
            write_dataset(interrupted, patients=N, seed=SEED, workers=1)
    assert not (interrupted / "dataset_description.json").exists()
    write_dataset(interrupted, patients=N, seed=SEED, workers=1)
    assert contents(interrupted) == contents(folder)


# --------------------------------------------------------------------------------- table, coarse CTA


def test_tables_only(tmp_path, study, words, monkeypatch):
    monkeypatch.setattr(dataset, "_write_ceiling", quick_ceiling)
    monkeypatch.setattr(parallel, "run", in_this_process)
    options = {"table_only": True, "prevalence": 0.4, "test": 60}
    out = write_dataset(tmp_path / "table", patients=300, seed=SEED, workers=1, **options)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "README",
        "dataset_description.json",
        "derivatives/ceiling.json",
        "derivatives/truth/generation.json",
        "derivatives/truth/latents.csv",
        "participants.json",
        "participants.tsv",
        "split.csv",
    ]
    faults = validation.validate(out, study, words)
    assert not (faults["severity"] == "error").any()
    description = storage.read_json(out / "dataset_description.json")
    assert {name: description.get(name) for name in options} == options
    assert not {"grid", "cta_mm"} & set(description)
    assert (cohort.read_split(out / "split.csv")["partition"] == "test").sum() == 60
    assert latents_of(out)["rlvo"].mean() == pytest.approx(0.4)
    assert storage.read_json(out / "derivatives/ceiling.json")["prevalence"] == 0.4
    assert "tables only" in (out / "README").read_text()


def test_whole_numbers_are_written_without_a_decimal_point(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "x": [3.0, 0.1], "n": [1, -99], "y": [-97.0, 1e6]})
    dataset._write_tsv(tmp_path / "t.tsv", table)
    assert (tmp_path / "t.tsv").read_text() == "id\tx\tn\ty\na\t3\t1\t-97\nb\t0.1\t-99\t1000000\n"


def test_a_cta_too_coarse_for_the_vessels_is_said(tmp_path, monkeypatch):
    warning = coarse_warning("cohort", 3.0)
    assert warning.startswith("CTA voxels of 3 mm are too coarse") and "M1" in warning
    assert warning == warning.strip() and "\n" not in warning
    assert coarse_warning("cohort", None) == ""
    assert len(coarse_warning("cohort", 1.0)) < len(warning)
    monkeypatch.setattr(dataset, "_write_ceiling", quick_ceiling)
    monkeypatch.setattr(parallel, "run", in_this_process)
    out = tmp_path / "coarse"
    write_dataset(out, patients=N, seed=SEED, cta_mm=3.0, table_only=True, workers=1)
    assert warning in (out / "README").read_text()
    assert storage.read_json(out / "dataset_description.json")["cta_mm"] == 3.0


def test_cta_has_the_voxels_asked_for(tmp_path):
    row = patients.select(N, SEED)[0].to_dict("records")[0]
    dataset._write_patient(tmp_path, SEED, 0, row, "cohort", 3.0)
    _, affine = images.load_nifti(scan_path(tmp_path, row["participant_id"], "cta"))
    np.testing.assert_allclose(images.voxel_sizes(affine), 3.0, atol=1e-3)


def test_a_finished_folder_that_lost_something_is_completed(folder, copy, monkeypatch):
    whole = contents(folder)
    shutil.rmtree(copy / "sub-0003")
    (copy / "participants.tsv").unlink()
    write_dataset(copy, patients=N, seed=SEED, workers=1)
    assert contents(copy) == whole


@pytest.mark.parametrize("content", ["{", "[1]", '{"seed": 3}'])
def test_a_damaged_record_is_named(copy, content):
    (copy / "derivatives/truth/generation.json").write_text(content)
    with pytest.raises(InputError, match="generation.json is damaged; allowed: a new folder"):
        write_dataset(copy, patients=N, seed=SEED)
