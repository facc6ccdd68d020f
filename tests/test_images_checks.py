"""What the checks of a scan find, what they leave alone, and where their limits lie."""

import gzip
import struct
import tarfile
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import realdata
from phantoms import CTA, NCCT, PERF, dataset, head_hu, perfusion_maps, write_patient

from rlvo_lib import config, images, preprocess
from rlvo_lib.config import InputError

SCANS = config.load_study("rlvo").scans
CT, CBF, TMAX, MASK = (SCANS[name] for name in ("ncct", "cbf", "tmax", "vessels"))


@pytest.fixture(scope="module")
def head():
    return head_hu(*NCCT)


def _save(path, array, affine, *, codes=(1, 1), qform=None, slope=None):
    """As any program may write it."""
    image = nib.Nifti1Image(array, None)
    image.header.set_sform(affine, code=codes[1])
    image.header.set_qform(affine if qform is None else qform, code=codes[0], strip_shears=True)
    image.header.set_data_dtype(array.dtype)
    nib.Nifti1Image(array, None, image.header).to_filename(path)
    if slope:
        content = bytearray(path.read_bytes())
        content[112:120] = struct.pack("<2f", slope, -1024)
        path.write_bytes(bytes(content))
    return path


def _header(tmp_path, affine, shape=NCCT[0], scan=CT, **how):
    path = _save(tmp_path / "scan.nii", np.zeros(shape, np.uint8), affine, **how)
    return images.header_findings(path, scan)


def _only(findings):
    assert len(findings) == 1, findings
    return findings[0]


# --------------------------------------------------------------------------------------------- header


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PIR"])
def test_any_order_and_direction_of_the_axes_is_accepted(tmp_path, axes):
    image = nib.Nifti1Image(np.zeros(NCCT[0], np.uint8), NCCT[1])
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(axes))
    assert _header(tmp_path, turned.affine, turned.shape) == []


def test_an_oblique_affine_is_no_shear(tmp_path):
    c, s = np.cos(0.3), np.sin(0.3)
    tilt = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    assert _header(tmp_path, tilt @ NCCT[1]) == []


@pytest.mark.parametrize(
    ("degrees", "severity"), [(0.05, None), (18.5, "warning"), (29.9, "warning"), (30.1, "error")]
)
def test_shear_is_named_with_its_angle(tmp_path, degrees, severity):
    affine = NCCT[1].copy()
    affine[1, 2] = affine[2, 2] * np.tan(np.radians(degrees))
    found = _header(tmp_path, affine, codes=(0, 1))
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert not found or found[0].value == f"{degrees} degrees"


def test_a_header_that_says_nothing_of_left_and_right_is_refused(tmp_path):
    found = _only(_header(tmp_path, NCCT[1], codes=(0, 0)))
    assert found.severity == "error" and "left and right are unknown" in found.what
    for codes in ((1, 0), (0, 2), (1, 4)):
        assert _header(tmp_path, NCCT[1], codes=codes) == []


def test_qform_and_sform_must_agree_to_a_millimetre(tmp_path):
    moved = NCCT[1].copy()
    moved[0, 3] += 1.2  # half a voxel is 1.25 mm
    assert _header(tmp_path, NCCT[1], qform=moved) == []
    moved[0, 3] += 0.2
    found = _only(_header(tmp_path, NCCT[1], qform=moved))
    assert found.severity == "error" and "1.4 mm apart" in found.what
    mirrored = np.diag([-1.0, 1, 1, 1]) @ NCCT[1]
    found = _only(_header(tmp_path, NCCT[1], qform=mirrored))
    assert "sform RAS, code 1; qform LAS, code 1" in found.value and "set_qform" in found.allowed
    assert _header(tmp_path, NCCT[1], qform=mirrored, codes=(0, 1)) == []
    fine = np.diag([0.5, 0.5, 0.5, 1.0])
    moved = fine.copy()
    moved[1, 3] = 0.9  # over half a voxel, under 1 mm
    assert _header(tmp_path, fine, (300, 300, 300), qform=moved) == []


def test_the_qform_of_a_sheared_scan_does_not_count(tmp_path):
    """dcm2niix writes both codes for a tilted gantry, and a qform cannot say it."""
    affine = NCCT[1].copy()
    affine[1, 2] = 1.6
    assert _only(_header(tmp_path, affine, codes=(2, 2))).severity == "warning"


@pytest.mark.parametrize(
    ("sizes", "shape", "scan", "found"),
    [
        ((0.45, 0.45, 5), (512, 512, 32), CT, None),
        ((0.5, 0.5, 10), (400, 400, 15), CT, None),
        ((0.5, 0.5, 10.1), (400, 400, 15), CT, ("error", "slices are too thick")),
        ((0.35, 0.35, 8), (512, 512, 20), CT, ("warning", "much longer than wide")),
        ((1.7, 1.7, 10), (128, 128, 4), CBF, None),
        ((1.7, 1.7, 16), (128, 128, 4), CBF, ("error", "slices are too thick")),
        ((0.045, 0.045, 0.5), (512, 512, 32), CT, ("error", "too small")),
        ((4.5, 4.5, 50), (512, 512, 32), CT, ("error", "too large")),
        ((0.45, 0.45, 5), (512, 512, 1), CT, ("error", "too few slices (1)")),
        ((0.45, 0.45, 5), (512, 512, 5), CT, ("error", "too few slices (5)")),
        ((0.45, 0.45, 5), (512, 512, 12), CT, ("warning", "slab")),
        ((1, 1, 1), (15, 18, 1), MASK, None),
        ((1, 1, 10), (150, 180, 101), MASK, ("error", "too large")),
    ],
)
def test_voxels_and_fields_of_view_of_a_head(tmp_path, sizes, shape, scan, found):
    affine = np.diag([*map(float, sizes), 1.0])
    what = [(f.severity, f.what) for f in _header(tmp_path, affine, shape, scan)]
    assert len(what) == (found is not None)
    assert found is None or (what[0][0] == found[0] and found[1] in what[0][1])


def test_coarse_steps_of_hu_are_named(tmp_path):
    found = _only(_header(tmp_path, NCCT[1], slope=7.1))
    assert found.severity == "warning" and found.value == "7.1 HU, 8 bits"
    assert _header(tmp_path, NCCT[1], slope=3.9) == []
    assert _header(tmp_path, NCCT[1], slope=7.1, scan=CBF) == []


# ------------------------------------------------------------------------------------------------ CT


def test_a_head_has_no_findings(head):
    assert images.voxel_findings(head, NCCT[1], CT) == []
    assert images.voxel_findings(head_hu(*NCCT, seed=None), NCCT[1], CT) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: np.clip((h + 1000) / 8, 0, 255), "picture's (0 to 255)"),
        (lambda h: np.clip((h + 1000) / 2000, 0, 1), "picture's (0 to 1)"),
        (lambda h: np.rint(np.maximum(h, -1024) + 1024), "without their offset"),
        (lambda h: h + 1000, "without their offset"),
        (lambda h: np.where(h < 0, h + 65536, h), "stored as unsigned"),
        (lambda h: np.where(h < -200, 0, h), "holds no air"),
        (lambda h: (h - h.mean()) / h.std(), "holds no air"),
        (lambda h: np.zeros_like(h), "every voxel has the same value"),
        (lambda h: np.full_like(h, -1024), "every voxel has the same value"),
    ],
)
def test_what_is_not_in_hu_is_named(head, change, says):
    found = _only(images.voxel_findings(change(head), NCCT[1], CT))
    assert found.severity == "error" and says in found.what


@pytest.mark.parametrize("padding", [-1500, -2000, -3024, -32768])
def test_padding_below_air_is_no_fault_and_is_clipped(tmp_path, head, padding):
    padded = np.rint(head).astype(np.int16)
    padded[:3] = padding
    path = images.save_nifti(tmp_path / "ncct.nii.gz", padded, NCCT[1])
    array, affine, warnings = images.load_scan(path, CT)
    assert warnings == [] and array.min() == images.AIR_HU
    np.testing.assert_array_equal(array[3:], padded[3:])
    np.testing.assert_allclose(affine, NCCT[1])


def test_a_border_of_water_is_named(head):
    padded = head.copy()
    padded[:6] = padded[-6:] = padded[:, :6] = padded[:, -6:] = 0
    found = images.voxel_findings(padded, NCCT[1], CT)
    assert "filled with 0 HU" in found[0].what and found[0].severity == "warning"


def test_a_head_that_is_cut_is_named_by_its_side(head):
    affine = NCCT[1]
    assert images.voxel_findings(head[:, :, 4:], affine, CT) == []
    cut = {
        "left": images.voxel_findings(head[14:], affine, CT),
        "right": images.voxel_findings(head[:-14], affine, CT),
        "back": images.voxel_findings(head[:, 14:], affine, CT),
        "front": images.voxel_findings(head[:, :-32], affine, CT),
        "top": images.voxel_findings(head[:, :, :-12], affine, CT),
    }
    for name, findings in cut.items():
        found = _only(findings)
        assert found.severity == "warning" and "cut off" in found.what
        assert found.value.startswith(name) and "," not in found.value, (name, found.value)
    mirrored = images.voxel_findings(head[14:][::-1], affine @ np.diag([-1.0, 1, 1, 1]), CT)
    assert _only(mirrored).value.startswith("left")


def test_a_head_rest_and_shoulders_at_the_border_are_no_cut(head):
    rest = np.random.default_rng(1).normal(0, 9, head.shape).astype(np.float32)
    rest[15:55, :2] += 60  # a shell of 5 mm along the back, and foam above it
    rest[15:55, 2:6] -= 900
    rest[:, :, :3] += 40  # shoulders, over 150 mm below the vertex
    changed = np.zeros(head.shape, bool)
    changed[15:55, :6] = changed[:, :, :3] = True
    rest = np.where(changed, rest, head)
    assert images.voxel_findings(rest, NCCT[1], CT) == []


def test_words_burned_into_every_slice_are_refused(head):
    written = head.copy()
    written[3:13, 80:87, :] = 3071
    found = _only(images.voxel_findings(written, NCCT[1], CT))
    assert found.severity == "error" and "burned in" in found.what


# --------------------------------------------------------------------------------------------- maps


def test_maps_have_no_findings():
    for name, values in perfusion_maps("left").items():
        assert images.voxel_findings(values, PERF[1], SCANS[name]) == [], name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m * 0, "nothing but zeros"),
        (lambda m: m * 100, "another unit, or another map"),
        (lambda m: np.rint(m * 255 / m.max()), "picture's (0 to 255"),
        (lambda m: np.rint(m * 255 / m.max()) / 255, "picture's (0 to 1"),
    ],
)
def test_maps_that_are_none_are_named(change, says):
    cbf = perfusion_maps("left")["cbf"]
    cbf = cbf * np.random.default_rng(0).uniform(0.5, 1.5, cbf.shape).astype(np.float32)
    found = _only(images.voxel_findings(change(cbf), PERF[1], CBF))
    assert found.severity == "error" and says in found.what and found.allowed.startswith("a map in")


def test_a_colour_bar_is_seen_in_a_map_of_grey_levels():
    tmax = perfusion_maps("left")["tmax"]
    tmax[-3:, 8:48, :] = np.linspace(0.1, 12, 40)[None, :, None]
    found = _only(images.voxel_findings(tmax, PERF[1], TMAX))
    assert found.severity == "error" and "colour bar" in found.what


def test_masks():
    mask = np.zeros((20, 20, 20), np.float32)
    assert _only(images.voxel_findings(mask, np.eye(4), MASK)).severity == "warning"
    mask[3:5] = 1
    assert images.voxel_findings(mask, np.eye(4), MASK) == []
    assert "0 to 2" in _only(images.voxel_findings(mask * 2, np.eye(4), MASK)).value


# ------------------------------------------------------------------------------------- whole files


def test_the_first_error_names_the_file_and_warnings_are_handed_back(tmp_path, head):
    sheared = NCCT[1].copy()
    sheared[1, 2] = 1.6
    path = images.save_nifti(tmp_path / "ncct.nii.gz", np.rint(head).astype(np.int16), sheared)
    _, affine, warnings = images.load_scan(path, CT)
    assert images.is_sheared(affine) and "tilted gantry" in _only(warnings).words
    assert images.scan_findings(path, CT) == warnings
    images.save_nifti(path, np.rint(head + 1024).astype(np.int16), sheared)
    with pytest.raises(InputError, match=r"ncct.nii.gz: its values are HU without their offset"):
        images.load_scan(path, CT)
    assert [f.severity for f in images.scan_findings(path, CT)] == ["warning", "error"]


def test_a_series_and_colours_are_named_from_the_header(tmp_path):
    path = tmp_path / "cta.nii"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4, 30), np.int16), np.eye(4)), path)
    with pytest.raises(InputError, match=r"30 volumes: a series over time, as raw CT perfusion"):
        images.header_findings(path, CT)
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4, 3), np.uint8), np.eye(4)), path)
    with pytest.raises(InputError, match="3 values a voxel: colours"):
        images.header_findings(path, CBF)
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4, 1, 3), np.float32), np.eye(4)), path)
    with pytest.raises(InputError, match="3 values a voxel"):
        images.header_findings(path, CBF)
    colours = np.zeros((8, 8, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), path)
    with pytest.raises(InputError, match="holds colours"):
        images.header_findings(path, CBF)


def _claiming(path, *dims):
    content = bytearray(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_bytes())
    content[40:56] = struct.pack("<8h", len(dims), *dims, *[1] * (7 - len(dims)))
    path.write_bytes(gzip.compress(bytes(content) + bytes(30_000_000)))
    return path


@pytest.mark.parametrize(
    ("dims", "says"), [((1000, 1000, 1001), "at most"), ((512, 0, 30), "empty dimension")]
)
def test_a_size_that_cannot_be_is_refused_before_anything_is_unpacked(tmp_path, dims, says):
    path = _claiming(tmp_path / "a.nii.gz", *dims)
    tracemalloc.start()
    with pytest.raises(InputError, match=says):
        images.load_scan(path, CT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # of the 30 MB that the file holds, nothing was unpacked


def test_an_output_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    """A folder without the right to write, or a disk mounted read-only."""
    import errno
    import tempfile

    for number, says in ((errno.EACCES, "no permission"), (errno.EROFS, "the disk is read-only")):

        def refused(*_, number=number, **__):
            raise OSError(number, "refused")

        monkeypatch.setattr(tempfile, "mkstemp", refused)
        with pytest.raises(InputError, match=rf"cannot write .*out.nii.gz: {says}"):
            images.save_nifti(tmp_path / "out.nii.gz", np.zeros((2, 2, 2)), np.eye(4))


# -------------------------------------------------------------------- nothing is mirrored on the way


def test_a_left_handed_scan_gives_the_same_tensor(tmp_path):
    """The same head with its voxels stored the other way round, as dcm2niix writes them."""
    settings = config.load_settings("smoke", cache=tmp_path / "cache", workers=1)
    write_patient(tmp_path / "ras", "sub-0001", "left")
    for path in (tmp_path / "ras").rglob("*.nii.gz"):
        image = nib.load(path)
        turned = image.as_reoriented(nib.orientations.axcodes2ornt("LAS"))
        assert np.linalg.det(image.affine) > 0 > np.linalg.det(turned.affine)
        other = tmp_path / "las" / path.relative_to(tmp_path / "ras")
        images.save_nifti(other, np.asarray(turned.dataobj), turned.affine)
    sides = {"sub-0001": "left"}
    channels = tuple(settings.study.channels)
    kept = {
        name: preprocess.prepare(dataset(tmp_path / name, sides), settings)
        for name in ("ras", "las")
    }
    one, two = (cache.load(["sub-0001"], channels).astype(float) for cache in kept.values())
    np.testing.assert_allclose(
        kept["las"].affine("sub-0001"), kept["ras"].affine("sub-0001"), atol=0.3
    )
    for name, a, b in zip(channels, one[0], two[0], strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99, name
        assert np.corrcoef(a.ravel(), b[::-1].ravel())[0, 1] < 0.9, name
    assert kept["las"].table.at["sub-0001", "tmax_side"] == "left"
    assert CTA[0][0] != PERF[0][0]  # each scan on its own grid


# ----------------------------------------------------------------------------- embedded and real scans


def test_embedded_scans_have_no_findings_but_the_cut_of_the_cta_slab(analysis):
    scans, seen = analysis.settings.study.scans, 0
    for patient in analysis.dataset.table.index[:6]:
        for name, scan in scans.items():
            path = analysis.dataset.scan(patient, name)
            if path is None:
                continue
            seen += 1
            found = [f for f in images.scan_findings(path, scan) if "cut off" not in f.what]
            assert found == [], (patient, name)
            if name != "cta":  # the slab is narrower than a head, and lower
                assert images.scan_findings(path, scan) == []
    assert seen >= 30


def _real(name):
    path = realdata.folder() / name
    if not path.is_file():
        pytest.skip("real scans not here: set RLVO_REALDATA to their folder")
    return path


def test_the_sheared_ct_is_accepted_with_its_angle_and_its_coarse_steps():
    path = _real("ct_sheared_affine.nii.gz")
    assert images.read_header(path).codes == (2, 2)
    _, affine, warnings = images.load_scan(path, CT)
    assert images.shear_degrees(affine) == pytest.approx(18.5, abs=0.01)
    assert [f.value for f in warnings] == ["18.5 degrees", "7.1 HU, 8 bits"]


def test_real_lesion_masks_have_no_findings(tmp_path):
    with tarfile.open(_real("soop/lesion_masks.tar")) as archive:
        members = [m for m in archive if m.name.endswith(".nii.gz")][:20]
        archive.extractall(tmp_path, members, filter="data")
    paths = sorted(tmp_path.rglob("*.nii.gz"))
    assert len(paths) == 20
    for path in paths:
        assert images.scan_findings(path, MASK) == [], path.name
        assert nib.aff2axcodes(images.read_header(path).affine) == ("L", "A", "S")
