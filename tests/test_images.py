import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from rlvo_lib import images
from rlvo_lib.config import InputError

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -20], [0, 0, 5, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_what_is_saved_is_loaded(tmp_path, dtype):
    array = (np.random.default_rng(0).normal(size=(5, 6, 7)) * 40 + 50).astype(dtype)
    path = images.save_nifti(tmp_path / "a.nii.gz", array, AFFINE)
    back, affine = images.load_nifti(path)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, array)
    np.testing.assert_allclose(affine, AFFINE)


def test_saved_header_says_type_scanner_space_and_mm(tmp_path):
    path = images.save_nifti(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16), AFFINE)
    image = nib.load(path)
    assert image.get_data_dtype() == np.int16
    assert image.header.get_xyzt_units()[0] == "mm"
    for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(matrix, AFFINE, atol=1e-5)


def test_a_sheared_affine_is_kept_in_the_sform_alone(tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.5
    path = images.save_nifti(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16), sheared)
    image = nib.load(path)
    np.testing.assert_allclose(image.affine, sheared, atol=1e-5)
    assert image.get_qform(coded=True)[0] is None


def test_the_same_volume_gives_the_same_bytes_without_name_or_date(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    one = images.save_nifti(tmp_path / "one.nii.gz", array, AFFINE).read_bytes()
    two = images.save_nifti(tmp_path / "another.nii.gz", array, AFFINE).read_bytes()
    assert one == two
    assert one[3] == 0 and one[4:8] == b"\0\0\0\0"  # no flags (name), no time


def test_scaled_storage_keeps_values_to_half_a_step(tmp_path):
    array = np.random.default_rng(0).uniform(0, 80, (6, 6, 6)).astype(np.float32)
    path = images.save_nifti(tmp_path / "a.nii.gz", array, AFFINE, scaled_int16=True)
    assert nib.load(path).get_data_dtype() == np.int16
    np.testing.assert_allclose(images.load_nifti(path)[0], array, atol=0.51 * 80 / 65000)


def test_integers_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(OverflowError, match="40000"):
        images.save_nifti(tmp_path / "a.nii.gz", np.full((2, 2, 2), 40000), AFFINE)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        images.save_nifti(tmp_path / "file" / "a.nii.gz", np.zeros((2, 2, 2)), AFFINE)


def _written(tmp_path, change):
    """A valid file whose unpacked bytes went through `change`."""
    path = images.save_nifti(tmp_path / "a.nii.gz", np.ones((4, 5, 6), np.float32), AFFINE)
    content = change(bytearray(gzip.decompress(path.read_bytes())))
    path.write_bytes(gzip.compress(bytes(content), mtime=0))
    return path


def _with_dims(*dims):
    def change(content):
        content[40:56] = struct.pack("<8h", len(dims), *dims, *[1] * (7 - len(dims)))
        return content

    return change


def _with_voxel(value):
    def change(content):
        content[-4:] = struct.pack("<f", value)
        return content

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c[:-100], "damaged or truncated"),
        (lambda c: c[:100], "cut off in its header"),
        (lambda c: bytearray(b"not a scan, only words\n" * 40), "not a NIfTI"),
        (_with_dims(4, 5, 3, 2), "4 dimensions"),
        (_with_dims(4, 0, 6), "empty dimension"),
        (_with_dims(4, -5, 6), "empty dimension"),
        (_with_dims(20000, 20000, 30000), "claims 20000 x 20000 x 30000 voxels"),
        (_with_voxel(np.nan), "1 voxels are NaN"),
        (_with_voxel(np.inf), "infinite"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, change, says):
    path = _written(tmp_path, change)
    with pytest.raises(InputError, match=says) as error:
        images.load_nifti(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_a_text_file_and_a_cut_off_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        images.load_nifti(tmp_path / "none.nii.gz")
    text = tmp_path / "text.nii.gz"
    text.write_text("hello")
    with pytest.raises(InputError, match="not gzip-compressed"):
        images.load_nifti(text)
    noise = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    path = images.save_nifti(tmp_path / "a.nii.gz", noise, AFFINE)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="damaged or truncated"):
        images.load_nifti(path)


def test_a_colour_picture_is_refused(tmp_path):
    colours = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, AFFINE), tmp_path / "tmax.nii.gz")
    with pytest.raises(InputError, match=r"tmax.nii.gz: holds colours"):
        images.load_nifti(tmp_path / "tmax.nii.gz")


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    noise = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    path = images.save_nifti(tmp_path / "a.nii.gz", noise, AFFINE)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the stored checksum, so that unpacking itself succeeds
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        images.load_nifti(path)


def test_a_file_of_several_gzip_members_is_read_whole(tmp_path):
    array = np.arange(600, dtype=np.int16).reshape(10, 10, 6)
    path = images.save_nifti(tmp_path / "a.nii.gz", array, AFFINE)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))
    np.testing.assert_array_equal(images.load_nifti(path)[0], array)


def test_much_more_data_than_claimed_is_refused(tmp_path):
    path = images.save_nifti(tmp_path / "a.nii.gz", np.ones((2, 2, 2), np.int16), AFFINE)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(50_000_000)))
    with pytest.raises(InputError, match="longer than its header says"):
        images.load_nifti(path)


def test_an_unpacked_file_is_read_too(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = images.save_nifti(tmp_path / "a.nii", array, AFFINE)
    np.testing.assert_array_equal(images.load_nifti(path)[0], array)


def test_a_flat_affine_is_refused(tmp_path):
    flat = AFFINE.copy()
    flat[2, 2] = 0

    def change(content):
        for row in range(3):
            content[280 + 16 * row : 296 + 16 * row] = struct.pack("<4f", *flat[row])
        return content

    with pytest.raises(InputError, match="cannot be inverted"):
        images.load_nifti(_written(tmp_path, change))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = images.save_nifti(tmp_path / "a.nii.gz", np.ones((2, 2, 2), np.float32), AFFINE)
    header = _with_dims(30000, 30000, 30000)(bytearray(gzip.decompress(path.read_bytes())))
    path.write_bytes(gzip.compress(bytes(header) + bytes(50_000_000), mtime=0))
    with pytest.raises(InputError, match="at most"):
        images.load_nifti(path)


def test_shear():
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.0
    assert images.is_sheared(sheared) and not images.is_sheared(AFFINE)


@pytest.mark.parametrize("axes", ["LAS", "PIR", "SLP"])
def test_canonical_turns_the_volume_and_keeps_every_place(axes):
    start = nib.orientations.axcodes2ornt(axes)
    array = np.arange(24.0).reshape(2, 3, 4)
    image = nib.Nifti1Image(array, np.eye(4)).as_reoriented(start)
    turned, affine = images.canonical(np.asarray(image.dataobj), image.affine)
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    for voxel in np.ndindex(array.shape):
        value = np.asarray(image.dataobj)
        place = np.linalg.inv(affine) @ image.affine @ [*np.argwhere(value == array[voxel])[0], 1]
        assert turned[tuple(np.rint(place[:3]).astype(int))] == array[voxel]


# ------------------------------------------------------------------------------------------ HU


def _head(rng):
    array = np.full((20, 20, 10), -1000.0, np.float32)
    array[5:15, 5:15] = 40 + rng.normal(0, 4, (10, 10, 10))
    return array


def test_padding_is_clipped_and_hu_kept():
    array = _head(np.random.default_rng(0))
    array[0] = -1500
    checked = images.check_hu(array, "x.nii.gz")
    assert checked.min() == -1024
    np.testing.assert_array_equal(checked[1:], array[1:])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (lambda h: (h + 1000) / 8, "0 to 255"),
        (lambda h: (h + 1000) / 2000, "0 to 1"),
        (lambda h: np.maximum(h, -20), "no air"),
        (lambda h: np.where(h > -500, 900, h), "hardly any soft tissue"),
    ],
)
def test_what_is_not_in_hu_is_refused(values, says):
    with pytest.raises(InputError, match=says) as error:
        images.check_hu(values(_head(np.random.default_rng(0))), "sub-1_ncct.nii.gz")
    assert "sub-1_ncct.nii.gz" in str(error.value)


# ------------------------------------------------------------------------------------ resampling


def _linear(shape, affine):
    """A volume whose value is a linear function of the world position, and that function."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return (world @ [1.0, -2.0, 0.5] + 7).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(-20, 20), min_size=3, max_size=3),
    st.floats(-0.4, 0.4),
    st.floats(0.8, 4.0),
    st.booleans(),
)
def test_a_linear_volume_stays_so_on_any_grid(angles, shear, spacing, mirrored):
    source = np.diag([1.5, 1.5, 3.0, 1.0])
    source[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ source[:3, :3]
    source[:3, 2] += shear * source[:3, 1]
    source[:3, 3] = -source[:3, :3] @ [19.5, 19.5, 9.5]
    target = np.diag([-spacing if mirrored else spacing, spacing, spacing, 1.0])
    target[:3, 3] = -target[:3, :3] @ [3.5, 3.5, 3.5] + [1, -2, 0.5]
    out = images.resample(_linear((40, 40, 20), source), source, target, (8, 8, 8), fill=-999)
    expected = _linear((8, 8, 8), target)
    # Away from the faces: there smoothing has only one side to average over.
    inner = images.field_of_view((28, 28, 12), _inset(source), target, (8, 8, 8))
    np.testing.assert_allclose(out[inner], expected[inner], atol=2e-3)


def _inset(affine):
    inner = affine.copy()
    inner[:3, 3] += affine[:3, :3] @ [6, 6, 4]
    return inner


def test_outside_the_field_of_view_is_filled_and_its_edge_is_the_voxel_face():
    out = images.resample(np.ones((4, 4, 4), np.float32), np.eye(4), np.eye(4), (6, 4, 4), fill=-5)
    assert (out[:4] == 1).all() and (out[4:] == -5).all()
    half = np.eye(4)
    half[0, 3] = -0.45
    assert images.field_of_view((4, 4, 4), np.eye(4), half, (4, 4, 4)).all()
    half[0, 3] = -0.55
    assert not images.field_of_view((4, 4, 4), np.eye(4), half, (4, 4, 4))[0].any()


def test_a_coarser_grid_averages_instead_of_picking():
    noise = np.random.default_rng(0).normal(size=(60, 60, 60)).astype(np.float32)
    target = np.diag([3.0, 3.0, 3.0, 1.0])
    out = images.resample(noise, np.eye(4), target, (20, 20, 20), fill=0)
    assert out.std() < 0.25  # picking every third voxel would leave 1.0
    assert abs(out.mean()) < 0.02


def test_a_grid_far_away_is_all_fill():
    far = np.eye(4)
    far[0, 3] = 500
    assert (images.resample(np.ones((3, 3, 3)), np.eye(4), far, (2, 2, 2), fill=9) == 9).all()


@pytest.mark.parametrize(
    "field, value, says",
    [
        ("datatype", 77, "a type that NIfTI does not have"),
        ("vox_offset", 0, "claims a header of 0 bytes"),
        ("vox_offset", -5, "claims a header of -5 bytes"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, field, value, says):
    path = images.save_nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16), np.eye(4))
    with path.open("rb") as file:
        header = nib.Nifti1Header.from_fileobj(file)
    header[field] = value
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    with pytest.raises(InputError, match=says):
        images.load_nifti(path)
