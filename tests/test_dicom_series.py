"""Headers and stacks of slices: what belongs together, what is missing, and files that are damaged."""

import dicoms
import numpy as np
import pydicom
import pytest

from rlvo_lib.dicom import series
from rlvo_lib.dicom.headers import read_header, read_headers


def _stacks(paths):
    (patient,) = series.patients(read_headers(sorted(paths)).headers)[0]
    return patient.stacks


def test_a_plain_series_is_one_even_stack(tmp_path):
    (stack,) = _stacks(dicoms.ncct(tmp_path))
    assert (stack.label, stack.slices, stack.times, stack.fault) == ("study1_series2", 30, 1, "")
    assert stack.extent_mm == pytest.approx(145) and stack.even and stack.thickness_mm == 5
    assert stack.tilt_deg == pytest.approx(0)
    np.testing.assert_allclose(stack.normal, [0, 0, 1])


def test_a_tilted_gantry_is_measured(tmp_path):
    (stack,) = _stacks(dicoms.ncct(tmp_path, tilt=18.5))
    assert stack.tilt_deg == pytest.approx(18.5, abs=0.01)
    assert stack.extent_mm == pytest.approx(145 * np.cos(np.radians(18.5)))
    assert not stack.fault


def test_two_spacings_by_design_are_uneven_and_not_a_hole(tmp_path):
    """As of old scanners: thin slices through the skull base, thick ones above."""
    heights = [4.2 * i for i in range(14)] + [4.2 * 13 + 1.1 + 7.4 * i for i in range(14)]
    (stack,) = _stacks(dicoms.ncct(tmp_path, heights=heights))
    assert not stack.even and not stack.fault


@pytest.mark.parametrize(
    "drop, said",
    [
        ((11,), "about 1 slices missing (gap of 10.0 mm after slice 11 of 29; usual gap 5.0 mm)"),
        ((11, 12), "about 2 slices missing (gap of 15.0 mm"),
        (
            (5, 20),
            "about 2 slices missing (gap of 10.0 mm after slice 5 of 28, 10.0 mm after slice 19",
        ),
        ((1,), "about 1 slices missing"),
        ((28,), "about 1 slices missing"),
        ((9, 11, 13), "about 3 slices missing"),
    ],
)
def test_missing_slices_are_named(tmp_path, drop, said):
    (stack,) = _stacks(dicoms.ncct(tmp_path, drop=drop))
    assert said in stack.fault


def test_a_hole_is_named_also_when_instances_were_numbered_again(tmp_path):
    heights = [5.0 * i for i in range(30) if i != 14]
    (stack,) = _stacks(dicoms.ncct(tmp_path, heights=heights))
    assert "about 1 slices missing" in stack.fault


def test_a_localizer_and_two_kernels_in_one_series_are_split(tmp_path):
    uid = dicoms.uid("mixed")
    shared = {"SeriesInstanceUID": uid, "number": 4}
    paths = dicoms.series(tmp_path, **shared)
    paths += dicoms.series(tmp_path, **shared, kernel="H60s", first=101)
    paths += dicoms.series(tmp_path, **shared, slices=1, first=201, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
                           ImageOrientationPatient=[0, 1, 0, 0, 0, -1])  # fmt: skip
    stacks = _stacks(paths)
    assert [(s.label, s.first.kernel, s.slices) for s in stacks] == [
        ("study1_series4_part1", "H31s", 30),
        ("study1_series4_part2", "H60s", 30),
        ("study1_series4_part3", "H31s", 1),
    ]
    assert not any(s.fault for s in stacks)


def test_two_phases_in_one_series_are_split_by_acquisition(tmp_path):
    uid = dicoms.uid("phases")
    paths = dicoms.cta(tmp_path, SeriesInstanceUID=uid)
    paths += dicoms.cta(tmp_path, SeriesInstanceUID=uid, first=201, AcquisitionNumber=2)
    stacks = _stacks(paths)
    assert [s.notes for s in stacks] == [
        ("one of 2 volumes in a series, told apart by acquisition",)
    ] * 2


def test_a_series_over_time_stays_one_stack(tmp_path):
    (stack,) = _stacks(dicoms.series(tmp_path, times=10, slices=4))
    assert (stack.times, stack.slices, stack.fault) == (10, 4, "")
    (stack,) = _stacks(dicoms.series(tmp_path / "cut", times=10, slices=4, drop=())[:-2])
    assert "volumes that are not whole" in stack.fault


def test_volumes_that_nothing_tells_apart_stay_together(tmp_path):
    paths = dicoms.ncct(tmp_path, times=2, AcquisitionTime="103200")
    (stack,) = _stacks(paths)
    assert stack.fault == "2 images at each position, and nothing tells the volumes apart"


def test_parts_of_two_fields_of_view_are_not_one_volume(tmp_path):
    paths = dicoms.ncct(tmp_path)
    for path in paths[20:]:
        data = pydicom.dcmread(path)
        data.ImagePositionPatient[0] += 12.0
        data.save_as(path)
    (stack,) = _stacks(paths)
    assert "slices shifted sideways by up to" in stack.fault


def test_files_exported_twice_count_once_and_clashes_are_refused(tmp_path):
    paths = dicoms.ncct(tmp_path / "a") + dicoms.ncct(tmp_path / "b")
    people, doubles = series.patients(read_headers(paths).headers)
    assert doubles == 30 and people[0].stacks[0].slices == 30
    dicoms.ncct(tmp_path / "b", artery_hu=350.0)
    people, doubles = series.patients(read_headers(paths).headers)
    assert doubles < 30
    assert people[0].stacks[0].fault == "two different files under one image identifier"


def test_studies_are_numbered_by_time(tmp_path):
    paths = dicoms.ncct(tmp_path / "b", study=1, date="20210306")
    paths += dicoms.ncct(tmp_path / "a", study=2, date="20210305")
    stacks = _stacks(paths)
    assert [(s.label, s.first.date) for s in stacks] == [
        ("study1_series2", "20210305"), ("study2_series2", "20210306"),
    ]  # fmt: skip


def test_an_enhanced_object_is_a_stack_of_frames(tmp_path):
    (stack,) = _stacks([dicoms.enhanced(tmp_path)])
    assert (stack.files, stack.slices, stack.first.frames) == (1, 30, 30)
    assert stack.even and stack.extent_mm == 145 and stack.first.kernel == "UB"
    assert (stack.first.date, stack.first.time) == ("20210305", "103500")


# -------------------------------------------------------------------------------- files by themselves


def test_what_is_no_dicom_is_counted_and_no_more(tmp_path):
    (tmp_path / "a.dcm").write_text("text")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "DICOMDIR").write_bytes(
        dicoms.write(
            tmp_path, "c", SOPClassUID="1.2.840.10008.1.3.10", SOPInstanceUID="1.2"
        ).read_bytes()
    )
    reading = read_headers([tmp_path / name for name in ("a.dcm", "b", "DICOMDIR")])
    assert (reading.headers, reading.others, reading.directories) == ((), 2, 1)


@pytest.mark.parametrize("keep", [140, 250, 400, -2048, -2047, -1])
def test_files_that_are_cut_off_have_a_fault(tmp_path, keep):
    path = dicoms.ncct(tmp_path)[0]
    assert read_header(path).fault == ""
    path.write_bytes(path.read_bytes()[:keep])
    assert "cut off" in read_header(path).fault


def test_compressed_voxels_that_are_cut_off_have_a_fault(tmp_path):
    path = dicoms.ncct(tmp_path)[0]
    dicoms.broken_jpeg(path)
    assert read_header(path).fault == ""
    path.write_bytes(path.read_bytes()[:-100])
    assert read_header(path).fault == "cut off within its compressed voxels"


def test_strange_values_are_no_values(tmp_path):
    """Written by scanners and by hand: no number, infinite, a list where one is due."""
    path = dicoms.ncct(tmp_path, KVP=None, SeriesNumber=None, PixelSpacing=None)[0]
    data = path.read_bytes()
    for old, new in ((b"5.0", b"NaN"), (b"H31s", b"\xff\xfe\xfd\xfc")):
        data = data.replace(old, new)
    path.write_bytes(data)
    header = read_header(path)
    assert (header.kvp, header.series, header.spacing, header.fault) == (None, None, (), "")


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_never_stops_the_reading(tmp_path, seed):
    path = dicoms.ncct(tmp_path)[0]
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(132, len(content) - 2048, 30):
        content[at] = rng.integers(0, 256)
    path.write_bytes(content)
    header = read_header(path)
    assert header is None or isinstance(header.fault, str)
    if header is not None and header.series_uid:
        series.patients([header])
