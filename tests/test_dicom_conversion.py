"""One stack to one NIfTI file: straight, even, in place, in HU or the map's unit, or refused."""

import dicoms
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from rlvo_lib import images
from rlvo_lib.config import InputError
from rlvo_lib.dicom import conversion, kinds, series
from rlvo_lib.dicom.headers import read_headers


def _stack(paths):
    (patient,) = series.patients(read_headers(sorted(paths)).headers)[0]
    (stack,) = patient.stacks
    return stack


def _convert(paths, scan, study, tmp_path):
    out = tmp_path / "out.nii.gz"
    volume = conversion.convert(_stack(paths), scan, study.scans[scan], out, tmp_path / "work")
    array, affine = images.load_nifti(out)
    np.testing.assert_array_equal(array, volume.array)
    return array, affine, volume


def _places_lps(shape, affine):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    return (np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3, None, None, None]) * np.array(
        [-1, -1, 1]
    ).reshape(3, 1, 1, 1)


def _smooth(x, y, z):
    """A head that is even enough to be compared after interpolation: HU rise along all axes."""
    inside = (x / 90) ** 2 + (y / 95) ** 2 + ((z - 70) / 85) ** 2 < 1
    return np.where(inside, 40 + 2 * x + 3 * y + 4 * z, -1000.0)


def _compare(array, affine):
    truth = _smooth(*_places_lps(array.shape, affine))
    body = ndimage.binary_erosion((truth > -700) & (array > -700), iterations=2)
    assert body.sum() > 1000
    return np.abs(array - truth)[body].max()


@pytest.mark.parametrize("order", ["up", "down"])
def test_a_plain_stack_is_written_as_it_is(tmp_path, study, order):
    heights = [5.0 * i for i in range(30)][:: 1 if order == "up" else -1]
    array, affine, volume = _convert(
        dicoms.ncct(tmp_path / "in", heights=heights), "ncct", study, tmp_path
    )
    assert array.shape == (32, 32, 30) and not volume.straightened
    np.testing.assert_array_equal(array, dicoms.head_hu(*_places_lps(array.shape, affine)))


@pytest.mark.parametrize("tilt", [-12.0, 18.5])
def test_a_tilted_gantry_is_straightened(tmp_path, study, tilt):
    paths = dicoms.ncct(tmp_path / "in", tilt=tilt, values=_smooth)
    array, affine, volume = _convert(paths, "ncct", study, tmp_path)
    assert volume.straightened == ["gantry tilt"] and not images.is_sheared(affine)
    assert _compare(array, affine) < 1.0  # HU; 4 HU a mm along the table, 3 to the back


def test_uneven_slices_are_resampled_to_even_ones(tmp_path, study):
    heights = [3.0 * i for i in range(14)] + [39 + 6.0 * i for i in range(1, 18)]
    paths = dicoms.ncct(tmp_path / "in", heights=heights, values=_smooth)
    array, affine, volume = _convert(paths, "ncct", study, tmp_path)
    assert volume.straightened == ["uneven slices"]
    assert _compare(array, affine) < 1.0
    ends = _places_lps(array.shape, affine)[2][0, 0, [0, -1]]
    np.testing.assert_allclose(sorted(ends), [0, heights[-1]], atol=3.1)


def test_tilt_and_uneven_slices_together(tmp_path, study):
    heights = [4.0 * i for i in range(14)] + [52 + 7.0 * i for i in range(1, 14)]
    paths = dicoms.ncct(tmp_path / "in", heights=heights, tilt=15.0, values=_smooth)
    array, affine, volume = _convert(paths, "ncct", study, tmp_path)
    assert volume.straightened == ["gantry tilt", "uneven slices"]
    assert _compare(array, affine) < 1.0


def test_an_enhanced_multiframe_ct_is_converted(tmp_path, study):
    path = dicoms.enhanced(tmp_path / "in")
    assert kinds.kind_of(_stack([path])) == kinds.Kind("ncct")
    array, affine, _ = _convert([path], "ncct", study, tmp_path)
    np.testing.assert_array_equal(array, dicoms.head_hu(*_places_lps(array.shape, affine)))


def test_padding_becomes_air_and_slopes_are_applied(tmp_path, study):
    stored = lambda x, y, z: dicoms.head_hu(x, y, z) + 0.0 * x  # noqa: E731
    paths = dicoms.ncct(tmp_path / "in", values=stored)
    for path in paths:
        data = pydicom.dcmread(path)
        voxels = data.pixel_array.astype(np.int32) * 2
        voxels[:3] = 0  # padding: -2024
        data.PixelData = voxels.astype("<u2").tobytes()
        data.RescaleSlope, data.RescaleIntercept = 0.5, -1024
        data.save_as(path)
    array, affine, _ = _convert(paths, "ncct", study, tmp_path)
    truth = dicoms.head_hu(*_places_lps(array.shape, affine))
    assert array.min() == images.AIR_HU
    kept = array > images.AIR_HU
    np.testing.assert_array_equal(array[kept], truth[kept])


def test_the_same_stack_gives_the_same_bytes(tmp_path, study):
    paths = dicoms.ncct(tmp_path / "in", tilt=10.0)
    _convert(paths, "ncct", study, tmp_path)
    first = (tmp_path / "out.nii.gz").read_bytes()
    _convert(paths, "ncct", study, tmp_path)
    assert (tmp_path / "out.nii.gz").read_bytes() == first
    assert not (tmp_path / "work/slices").exists()


# ------------------------------------------------------------------------------------------ maps


@pytest.mark.parametrize(
    "scan, unit, stored, value",
    [("cbf", "ml/100g/min", 50, 50), ("cbf", "ml/100ml/min", 42, 40), ("cbf", "", 50, 50),
     ("cbv", "ml/100g", 4, 4), ("mtt", "s", 5, 5), ("tmax", "ms", 6000, 6)],
)  # fmt: skip
def test_maps_come_out_in_the_study_s_units(tmp_path, study, scan, unit, stored, value):
    paths = dicoms.perfusion_map(tmp_path / "in", scan.upper(), stored, RescaleType=unit)
    array, _, volume = _convert(paths, scan, study, tmp_path)
    np.testing.assert_allclose(np.unique(array), [0, value], rtol=1e-6)
    assert volume.notes == ("the lowest value, outside the brain, became 0",)


@pytest.mark.parametrize(
    "stored, said", [(3000, "outside -20 to 400 mL/100 g/min"), (-1024, "only zeros")]
)
def test_maps_with_values_of_another_unit_are_refused(tmp_path, study, stored, said):
    paths = dicoms.perfusion_map(tmp_path / "in", "CBF", stored)
    with pytest.raises(InputError, match=said):
        _convert(paths, "cbf", study, tmp_path)
    assert not (tmp_path / "out.nii.gz").exists()


# --------------------------------------------------------------------------------------- refused


def test_pictures_and_trunks_are_no_head_ct(tmp_path, study):
    grey = dicoms.ncct(
        tmp_path / "a", values=lambda x, y, z: np.clip(dicoms.head_hu(x, y, z), 0, 255)
    )
    with pytest.raises(InputError, match="a CT must be in HU"):
        _convert(grey, "ncct", study, tmp_path)
    trunk = dicoms.cta(
        tmp_path / "b",
        values=lambda x, y, z: np.where((x / 150) ** 2 + (y / 150) ** 2 < 1, 40.0, -1000.0),
    )
    with pytest.raises(InputError, match="cross-section of .* cm2 in the upper half"):
        _convert(trunk, "cta", study, tmp_path)
    assert not (tmp_path / "out.nii.gz").exists()


def test_the_arch_to_the_vertex_passes_and_the_neck_to_the_abdomen_does_not(tmp_path, study):
    def body(x, y, z):
        trunk = (z < -80) & ((x / 150) ** 2 + (y / 150) ** 2 < 1)
        return np.where(trunk, 40.0, dicoms.head_hu(x, y, z))

    whole = dicoms.cta(tmp_path / "a", values=body, heights=[-170 + 5.0 * i for i in range(66)])
    _convert(whole, "cta", study, tmp_path)
    low = dicoms.cta(tmp_path / "b", values=body, heights=[-350 + 5.0 * i for i in range(60)])
    with pytest.raises(InputError, match="upper half"):
        _convert(low, "cta", study, tmp_path)


def test_a_volume_that_does_not_lie_where_the_headers_say_is_refused(tmp_path, study, monkeypatch):
    """A converter that flips, drops or moves slices would be noticed."""
    real = conversion.nib.load

    def moved(change):
        def load(path):
            image = real(path)
            altered = tmp_path / "altered.nii"
            changed = change(np.asarray(image.dataobj).astype(np.int16), image.affine.copy())
            conversion.nib.Nifti1Image(*changed).to_filename(altered)
            return real(altered)

        return load

    def shifted(array, affine):
        affine[2, 3] += 5
        return array, affine

    def dropped(array, affine):
        return array[..., :-1], affine

    def sheared(array, affine):
        affine[1, 2] += 1
        return array, affine

    def sideways(array, affine):
        affine[0, 3] += 3
        return array, affine

    paths = dicoms.ncct(tmp_path / "in")
    for change, said in (
        (shifted, "last slices lie 5.0 mm off"), (dropped, "30 slices became 29"),
        (sheared, "not at right angles"), (sideways, "do not lie where the files say"),
    ):  # fmt: skip
        monkeypatch.setattr(conversion.nib, "load", moved(change))
        with pytest.raises(InputError, match=said):
            conversion.load(_stack(paths), "ncct", tmp_path / "work")


def test_lossless_jpeg_is_read(tmp_path, study):
    """dcm2niix decodes JPEG lossless by itself; SimpleITK writes it."""
    import SimpleITK as sitk

    paths = dicoms.ncct(tmp_path / "in")
    for path in paths:
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetImageIO("GDCMImageIO")
        writer.SetCompressor("JPEG")
        writer.SetFileName(str(tmp_path / "packed.dcm"))
        writer.Execute(sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkInt16))
        packed, data = pydicom.dcmread(tmp_path / "packed.dcm"), pydicom.dcmread(path)
        for name in ("PixelData", "PixelRepresentation", "BitsStored", "HighBit"):
            setattr(data, name, getattr(packed, name))
        data.RescaleIntercept = packed.get("RescaleIntercept", 0)
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        data.save_as(path, enforce_file_format=True)
    header = read_headers(paths).headers[0]
    assert conversion.COMPRESSIONS[header.transfer] == "JPEG lossless" and not header.fault
    array, affine, _ = _convert(paths, "ncct", study, tmp_path)
    np.testing.assert_array_equal(array, dicoms.head_hu(*_places_lps(array.shape, affine)))


def test_an_overlay_plane_is_not_taken_for_a_second_volume(tmp_path, study):
    paths = dicoms.ncct(tmp_path / "in")
    plain = _convert(paths, "ncct", study, tmp_path)[0]
    for path in paths:
        data = pydicom.dcmread(path)
        for tag, vr, value in (
            (0x60000010, "US", 32), (0x60000011, "US", 32), (0x60000040, "CS", "G"),
            (0x60000050, "SS", [1, 1]), (0x60000100, "US", 1), (0x60000102, "US", 0),
            (0x60003000, "OW", b"\xff" * 128),
        ):  # fmt: skip
            data.add_new(tag, vr, value)
        data.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(_convert(paths, "ncct", study, tmp_path)[0], plain)
