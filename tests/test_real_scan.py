"""Real scans through the package: DICOM to dataset folder to model-ready tensor.

The files lie outside the project (their licences allow use, nothing is copied in): in the folder
that RLVO_REALDATA names, by default ``../shared/realdata``. Without them the tests are skipped.
"""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from rlvo_lib import config, dataset, dicom, dictionary, images, preprocess
from rlvo_lib.config import InputError
from rlvo_lib.dicom.sources import unpacked
from rlvo_lib.head import head_frame

REALDATA = Path(
    os.environ.get("RLVO_REALDATA") or config.project_root().parent / "shared" / "realdata"
)
GE = REALDATA / "ge_head_ncct.tar.gz"

pytestmark = pytest.mark.skipif(
    not GE.is_file(), reason="real scans not here: set RLVO_REALDATA to their folder"
)


@pytest.fixture(scope="session")
def real_dataset(tmp_path_factory):
    """A dataset folder of one real patient: the GE head NCCT, converted from its DICOM files."""
    root = tmp_path_factory.mktemp("real") / "dataset"
    root.mkdir()
    (root / "participants.tsv").write_text("participant_id\tage\tside\nsub-0001\t-99\t0\n")
    (root / "dataset_description.json").write_text(
        '{"Name": "GE head", "BIDSVersion": "1.10.0", "DatasetType": "raw", "simulated": false}'
    )
    study = config.load_study("rlvo")
    words = dictionary.load(study.dictionary_path)
    summary = dicom.convert_folder(GE, root, study, words, patient="sub-0001")
    assert summary.in_order, dicom.show(summary, "dataset")
    return dataset.load_dataset(root, study, words)


@pytest.fixture(scope="session")
def dicom_slices(tmp_path_factory):
    """The 28 DICOM files, by position."""
    pydicom = pytest.importorskip("pydicom")
    folder = unpacked(GE, tmp_path_factory.mktemp("ge"))
    slices = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    assert len(slices) == 28
    return sorted(slices, key=lambda d: float(d.ImagePositionPatient[2]))


def _pixel_places(data, step=4):
    """World mm (RAS) of every `step`-th pixel of a DICOM slice, (3, rows, columns)."""
    rows, columns = np.meshgrid(*[np.arange(0, n, step) for n in (512, 512)], indexing="ij")
    origin, orientation = (
        np.array(tag, float) for tag in (data.ImagePositionPatient, data.ImageOrientationPatient)
    )
    down, across = (float(s) for s in data.PixelSpacing)
    places = (
        origin[:, None, None]
        + orientation[:3, None, None] * across * columns
        + orientation[3:, None, None] * down * rows
    )
    return places * np.array([-1, -1, 1])[:, None, None]


def _sample(array, affine, places):
    index = np.tensordot(np.linalg.inv(affine)[:3, :3], places, 1)
    index += np.linalg.inv(affine)[:3, 3, None, None]
    return ndimage.map_coordinates(array, index, order=1, cval=np.nan), index


def test_the_converted_head_is_straight_and_whole(real_dataset, dicom_slices):
    array, affine = images.load_ct(real_dataset.scan("sub-0001", "ncct"))
    assert not images.is_sheared(affine)
    assert array.min() == images.AIR_HU and array.max() > 1500
    # Right angles and each voxel at its DICOM place (here and in the HU tests): nothing leans.
    # Even slices, and the first and last where the scanner had them: 151.94 mm along the table is
    # 144.1 mm across slices tilted by 18.5 degrees.
    extent = images.voxel_sizes(affine)[2] * (array.shape[2] - 1)
    assert extent == pytest.approx(151.94 * np.cos(np.radians(18.5)), abs=0.1)
    for data, k in ((dicom_slices[0], 0), (dicom_slices[-1], array.shape[2] - 1)):
        _, index = _sample(array, affine, _pixel_places(data, 64))
        np.testing.assert_allclose(index[2], k, atol=0.01)


@pytest.mark.parametrize("k", [0, 5, 10, 13, 15, 19, 23])
def test_hu_are_those_of_the_dicom_at_the_same_place(real_dataset, dicom_slices, k):
    """At slices that fall next to an evenly spaced one; between them the values are interpolated."""
    array, affine = images.load_ct(real_dataset.scan("sub-0001", "ncct"))
    data = dicom_slices[k]
    assert (data.RescaleSlope, data.RescaleIntercept) == (1, 0)
    pixels = data.pixel_array[::4, ::4].astype(float)
    found, index = _sample(array, affine, _pixel_places(data))
    assert np.abs(index[2] - index[2].round()).max() < 0.06
    tissue = (pixels > 0) & (pixels < 100) & np.isfinite(found)
    assert tissue.sum() > 2000
    difference = (found - pixels)[tissue]
    assert np.median(np.abs(difference)) < 1.5
    assert abs(difference.mean()) < 1.5


def test_slices_between_follow_the_dicom_where_tissue_is_even(real_dataset, dicom_slices):
    array, affine = images.load_ct(real_dataset.scan("sub-0001", "ncct"))
    for k in (12, 17, 20, 23):
        pixels = dicom_slices[k].pixel_array[::4, ::4].astype(float)
        found, _ = _sample(array, affine, _pixel_places(dicom_slices[k]))
        tissue = ndimage.binary_erosion((pixels > 0) & (pixels < 100), iterations=4)
        assert np.median(np.abs(found - pixels)[tissue]) < 3.5, k


def test_the_brain_is_whole_and_the_median_plane_halves_it(real_dataset):
    array, affine = images.load_ct(real_dataset.scan("sub-0001", "ncct"))
    grid = np.diag([3.0, 3.0, 3.0, 1.0])
    grid[:3, 3] = [-100, -140, -60]
    head = images.resample(array, affine, grid, (67, 90, 80), fill=-1000)
    brain = ndimage.binary_opening((head > 5) & (head < 70), iterations=3)
    labels, _ = ndimage.label(brain)
    brain = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    ml = brain.sum() * 0.027
    assert 900 < ml < 1700
    frame = head_frame(array, affine)
    assert frame.flags in ((), ("the top of the head is outside the ncct",))
    # The median plane lies in the middle of the brain: as much on its right as on its left.
    places = np.argwhere(brain) @ grid[:3, :3].T + grid[:3, 3]
    right = (places @ frame.midline[:3] > frame.midline[3]).mean()
    assert right == pytest.approx(0.5, abs=0.03)


def test_the_head_becomes_a_tensor_with_brain_in_it(real_dataset, tmp_path):
    settings = config.load_settings("demo", cache=tmp_path, workers=1)
    cache = preprocess.prepare(real_dataset, settings)
    assert cache.table.at["sub-0001", "available"] == ("ncct",)
    assert cache.missing(["sub-0001"], ["tmax"]) == {"sub-0001": "no tmax scan"}
    tensor = cache.load(["sub-0001"], ["ncct"])[0, 0].astype(float)
    assert tensor.shape == (32, 40, 32)
    assert cache.table.at["sub-0001", "coverage_ncct"] > 0.95
    middle = tensor[10:26, 12:28, 10:24] * 80
    assert 20 < np.median(middle) < 45  # HU of living brain
    assert ((middle > 0) & (middle < 60)).mean() > 0.97  # brain, not bone
    # The skull is in the grid, on its lateral side: some 20 mm inside the edge, at the template's size.
    skull = (tensor == 1.0)[:, 12:28, 8:20].any(axis=(1, 2))
    assert skull[:10].any() and not skull[10:24].any()


def test_the_sheared_ct_is_resampled_to_its_true_place():
    array, affine = images.load_ct(REALDATA / "ct_sheared_affine.nii.gz")
    assert images.is_sheared(affine)
    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    grid[:3, 3] = [-90, -110, -95]
    out = images.resample(array, affine, grid, (70, 90, 60), fill=-1024)
    # Points of the source, found on the target by both affines (values of a smoothed source).
    smooth = ndimage.gaussian_filter(array, [1.7, 1.7, 0])
    rng = np.random.default_rng(0)
    index = np.stack([rng.integers(20, n - 20, 4000) for n in array.shape])
    world = affine[:3, :3] @ index + affine[:3, 3:]
    there = np.linalg.inv(grid)[:3, :3] @ world + np.linalg.inv(grid)[:3, 3:]
    inside = ((there > 1) & (there < np.array(out.shape)[:, None] - 2)).all(axis=0)
    found = ndimage.map_coordinates(out, there[:, inside], order=1)
    true = smooth[tuple(index[:, inside])]
    assert inside.sum() > 1000
    assert np.corrcoef(found, true)[0, 1] > 0.98
    # The shear matters: ignoring it (a diagonal affine) misses.
    plain = np.diag([*np.linalg.norm(affine[:3, :3], axis=0), 1.0])
    plain[:3, 3] = affine[:3, 3]
    wrong = images.resample(array, plain, grid, (70, 90, 60), fill=-1024)
    missed = ndimage.map_coordinates(wrong, there[:, inside], order=1)
    assert np.corrcoef(missed, true)[0, 1] < 0.9


def _sagittal(array, affine, step=1.0):
    """The plane halfway across a scan, (y, z) on a grid of `step` mm."""
    grid = np.diag([step, step, step, 1.0])
    grid[:3, 3] = [-1, -140, -40]
    return images.resample(array, affine, grid, (3, int(280 / step), int(200 / step)), fill=-1000)[
        1
    ]


def _naive(dicom_slices):
    """The stack as software shows it that believes in even slices and an upright gantry."""
    array = np.stack([d.pixel_array.T[:, ::-1] for d in dicom_slices], axis=-1).astype(np.float32)
    affine = np.diag([-0.4882812, 0.4882812, 4.22, 1.0])
    affine[:3, 3] = [125, -125, -25]
    return array, affine


def _extent(plane):
    """Length and height of the head in a sagittal plane of 1 mm, in mm."""
    head = ndimage.binary_fill_holes(ndimage.binary_opening(plane > -200, iterations=3))
    labels, _ = ndimage.label(head)
    head = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return np.ptp(np.argwhere(head), axis=0)


def test_the_head_is_not_sheared(real_dataset, dicom_slices):
    """The line from the first voxel of the lowest slice to that of the highest is upright in the world:
    the table moved along z while the slices leaned. Taken as upright slices the head is sheared."""
    array, affine = images.load_ct(real_dataset.scan("sub-0001", "ncct"))
    first, last = (
        np.array(d.ImagePositionPatient) * [-1, -1, 1] for d in (dicom_slices[0], dicom_slices[-1])
    )
    np.testing.assert_allclose(last - first, [0, 0, 151.94], atol=0.01)
    # the slices lean by 18.5 degrees against that line; those of the output are at right angles to theirs
    axes = affine[:3, :3] / images.voxel_sizes(affine)
    assert np.degrees(np.arccos(abs(axes[2, 2]))) == pytest.approx(18.5, abs=0.05)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    # taken as even and upright slices the head is squashed
    naive, naive_affine = _naive(dicom_slices)
    top = _sagittal(naive, naive_affine)
    true = _sagittal(array, affine)
    assert abs(_extent(true)[1] - _extent(top)[1]) > 20


def test_no_step_in_the_sagittal_view(real_dataset, dicom_slices):
    """At the change from 4.2 to 7.4 mm slices the inner table of the skull runs on without a kink.

    Along the outside of the head, seen from the side, the place of the forehead and the occiput is
    followed from slice to slice; its slope (mm across per mm along) must not jump where the gaps change.
    """
    array, affine = images.load_ct(real_dataset.scan("sub-0001", "ncct"))
    spacing = images.voxel_sizes(affine)
    middle = array[array.shape[0] // 2 - 3 : array.shape[0] // 2 + 4].max(axis=0)  # (Y, Z)
    change_mm = 13 * 4.22 * np.cos(np.radians(18.5))  # above the first slice

    def slopes(plane, y_mm, z_mm, at):
        edge = np.array([np.flatnonzero(column > 300)[-1] for column in plane.T]) * y_mm  # forehead
        near = np.abs(z_mm - at) < 22
        below, above = near & (z_mm <= at), near & (z_mm > at)
        return [np.polyfit(z_mm[part], edge[part], 1)[0] for part in (below, above)]

    z_mm = np.arange(middle.shape[1]) * spacing[2]
    below, above = slopes(middle, spacing[1], z_mm, change_mm)
    bend = abs(above - below)
    naive, _ = _naive(dicom_slices)
    flat = naive[253:260].max(axis=0)
    z_mm = np.arange(28) * 4.22
    below, above = slopes(flat, 0.488, z_mm, 13.5 * 4.22)
    assert bend < 0.6 * abs(above - below), (bend, abs(above - below))


def test_the_sidecar_and_the_report_hold_codes_and_numbers(real_dataset):
    import json

    path = real_dataset.scan("sub-0001", "ncct")
    about = json.loads(path.with_name("sub-0001_ncct.json").read_text())
    assert about == {
        "Simulated": False, "Modality": "CT", "Manufacturer": "GE",
        "ManufacturersModelName": "HiSpeed Dual", "KVP": 120, "SliceThickness": 7,
        "GantryDetectorTilt": 18.5, "ConvolutionKernel": "STD+", "Units": "HU",
        "Resampled": ["gantry tilt", "uneven slices"],
    }  # fmt: skip
    report = (real_dataset.root / "derivatives/dicom/report.csv").read_text()
    assert "sub-0001,study1_series2,28,28,7,STD+,ncct,chosen" in report
    for text in ("QMNx85rKkkg", "REMOVED", "Aliza"):
        for file in real_dataset.root.rglob("*"):
            assert file.is_dir() or text.encode() not in file.read_bytes(), file


def test_an_enhanced_relative_perfusion_map_is_recognised_and_set_aside(tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(REALDATA / "enhanced_ct_rcbf.dcm", tmp_path / "in" / "map.dcm")
    study = config.load_study("rlvo")
    words = dictionary.load(study.dictionary_path)
    summary = dicom.convert_folder(tmp_path / "in", tmp_path / "out", study, words)
    table = dicom.stack_table(summary.works)
    assert list(table["status"]) == ["set aside"]
    assert table.at[0, "slices"] == table.at[0, "images"] == 2
    assert table.at[0, "reason"] == (
        "a relative (regional) multi-frame perfusion map with a real-world value mapping, in ml/100ml/s; "
        "allowed: CBF in mL/100 g/min, CBV in mL/100 g"
    )
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_an_atlas_is_not_a_ct():
    mask = REALDATA / "soop" / "ArterialAtlas136.nii.gz"
    if not mask.is_file():
        pytest.skip("no SOOP atlas in the real data folder")
    with pytest.raises(InputError, match="a CT must be in HU"):
        images.load_ct(mask)
    assert nib.aff2axcodes(images.load_nifti(mask)[1]) == ("L", "A", "S")


def test_no_header_text_reaches_the_output(real_dataset):
    path = real_dataset.scan("sub-0001", "ncct")
    header = nib.load(path).header
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        assert bytes(header[field]).strip(b"\0") == b"", field
    assert len(header.extensions) == 0


def test_a_trained_arm_gives_the_real_head_a_probability(real_dataset, analysis, tensors):
    from rlvo_lib import experiment, training
    from rlvo_lib.training import Cases

    experiment.run_arms(analysis, tensors, ["ncct"])
    task = experiment.plan(analysis, tensors, ["ncct"])[0]
    network = experiment.load_network(analysis, task, 0)
    real = preprocess.prepare(real_dataset, analysis.settings).load(["sub-0001"], ["ncct"])
    simulated = tensors.load(list(analysis.y.index[:1]), ["ncct"])
    cases = Cases(np.concatenate([real, simulated]), None, np.zeros(2))
    probability = 1 / (1 + np.exp(-training.predict_logit(network, cases, analysis.settings)))
    assert np.isfinite(probability).all() and (probability > 0).all() and (probability < 1).all()
    assert probability[0] != probability[1], "the network looks at the scan"


def test_nothing_is_found_in_the_converted_head(real_dataset):
    path = real_dataset.scan("sub-0001", "ncct")
    assert images.scan_findings(path, real_dataset.scans["ncct"]) == []
