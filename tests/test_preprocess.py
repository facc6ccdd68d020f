import dataclasses
import gzip
import json
import multiprocessing
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from phantoms import CTA, NCCT, PERF, dataset, head_hu, pose, template_hu, write_patient

from rlvo_lib import config, images, perfusion, preprocess
from rlvo_lib.config import InputError
from rlvo_lib.exclusions import Exclusions

SHAPE = (16, 20, 16)


@pytest.fixture
def settings(tmp_path):
    return config.load_settings("smoke", cache=tmp_path / "cache", workers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three patients: complete and left, the mirror case right, and one with the NCCT alone."""
    root = tmp_path_factory.mktemp("dataset")
    write_patient(root, "sub-0001", "left", pose(dx=4, yaw=3))
    write_patient(root, "sub-0002", "right", pose(dx=-4, yaw=-3))
    write_patient(root, "sub-0003", "left", scans=["ncct"])
    return root


SIDES = {"sub-0001": "left", "sub-0002": "right", "sub-0003": "left"}


# ------------------------------------------------------------------------------------------ grid


def _grid(side, flip="left", region="hemisphere", shape=SHAPE, spacing=6.0):
    return preprocess.tensor_affine(
        np.eye(4), 185.0, side, flip_to=flip, region=region, shape=shape, spacing_mm=spacing
    )


@pytest.mark.parametrize(("flip", "outwards"), [("left", -1), ("right", 1)])
def test_the_grid_reaches_from_across_the_midline_outwards(flip, outwards):
    affine = _grid(flip, flip)
    first = affine[0, 3] - 3.0
    last = affine[0, 3] + affine[0, 0] * (SHAPE[0] - 1) + 3.0
    edges = sorted([first, last])
    assert edges == pytest.approx(sorted([-outwards * 12.0, outwards * 84.0]))
    assert affine[0, 0] > 0  # not mirrored


def test_the_other_side_is_the_mirror_image_in_the_midline():
    affected, mirrored = _grid("left"), _grid("right")
    np.testing.assert_allclose(mirrored, np.diag([-1.0, 1, 1, 1]) @ affected)
    assert np.linalg.det(mirrored[:3, :3]) < 0 < np.linalg.det(affected[:3, :3])


def test_an_unknown_side_or_no_flip_is_not_mirrored():
    np.testing.assert_allclose(_grid(None), _grid("left"))
    centred = _grid("right", "none")
    middle = centred @ [(SHAPE[0] - 1) / 2, 0, 0, 1]
    assert middle[0] == pytest.approx(0) and centred[0, 0] > 0
    np.testing.assert_allclose(centred, _grid("right", "none", "convexity"))


def test_the_extent_does_not_depend_on_the_resolution():
    coarse, finer = _grid("left"), _grid("left", shape=(32, 40, 32), spacing=3.0)
    corner = coarse @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(finer @ [-0.5, -0.5, -0.5, 1], corner)


def test_the_region_of_both_hemispheres_is_mirrored_in_itself():
    """The crop from the circle of Willis to the convexity: its floor is the hemisphere's."""
    both, mirrored = _grid("left", region="convexity"), _grid("right", region="convexity")
    turned = mirrored @ np.array(
        [[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    np.testing.assert_allclose(turned, both)
    assert both[2, 3] == _grid("left")[2, 3] == pytest.approx(-0.64 * 185 + 3)


def test_the_region_of_the_head_ends_above_the_vertex():
    top = _grid("left", region="head") @ [0, 0, SHAPE[2] - 0.5, 1]
    assert top[2] == pytest.approx(5.0)


# --------------------------------------------------------------------------------------- tensors


def test_a_complete_patient_gets_every_channel_in_range(folder, settings):
    cache = preprocess.prepare(dataset(folder, SIDES), settings, ["sub-0001"])
    channels = tuple(settings.study.channels)
    assert cache.table.at["sub-0001", "available"] == channels
    tensor = cache.load(["sub-0001"], channels)
    assert tensor.dtype == np.float16 and tensor.shape == (1, len(channels), *SHAPE)
    assert tensor.min() >= 0 and tensor.max() <= 1
    by_name = dict(zip(channels, tensor[0].astype(float), strict=True))
    # Deep white matter at 33 HU in the window 0..80; normal Tmax 1.5 s or penumbra 8 s of 16.
    assert np.median(by_name["ncct"][4:12, 6:14, 6:10]) == pytest.approx(33 / 80, abs=0.03)
    assert by_name["tmax"].max() == pytest.approx(12 / 16, abs=0.05)
    assert 0.05 < by_name["vessels"].max() < 1
    row = cache.table.loc["sub-0001"]
    assert row["flags"] == "" and row["tmax_side"] == "left"
    assert row["core_rcbf30_ml"] == pytest.approx(11.5, rel=0.1)
    assert 1 < row["vessel_volume_ml"] < 5
    assert row["coverage_ncct"] > 0.9


def test_the_record_tells_what_was_done_without_the_settings(folder, settings):
    data = dataset(folder, SIDES)
    left_out = {("sub-0002", "cta"): "late phase"}
    data = dataclasses.replace(data, exclusions=Exclusions(scans=left_out))
    records = preprocess.prepare(data, settings, ["sub-0001", "sub-0002"]).records
    assert not records["sub-0001"]["flipped"] and records["sub-0002"]["flipped"]
    grid = records["sub-0002"]["grid"]
    assert (grid["flip_to_side"], grid["region"], grid["alignment"]) == (
        "left", "hemisphere", "affine",
    )  # fmt: skip
    assert (grid["shape"], grid["spacing_mm"]) == (list(SHAPE), 6.0)
    assert records["sub-0002"]["excluded"] == {"cta": "late phase"}


def test_mirrored_patients_give_the_same_tensor(folder, settings):
    channels = ("ncct", "cta", "vessels", "cbf", "tmax")
    cache = preprocess.prepare(dataset(folder, SIDES), settings, ["sub-0001", "sub-0002"])
    one, two = cache.load(["sub-0001", "sub-0002"], channels).astype(float)
    for name, a, b in zip(channels, one, two, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97, name
        assert np.corrcoef(a.ravel(), b[::-1].ravel())[0, 1] < 0.9, name
    for name, view in settings.study.views.items():
        left, right = cache.load(["sub-0001", "sub-0002"], ["ncct"], view=name).astype(float)
        kept = [cache.records[p] for p in ("sub-0001", "sub-0002")]
        grids = [np.array(record["views"][name]["affine"]) for record in kept]
        assert [np.linalg.det(grid[:3, :3]) > 0 for grid in grids] == [True, False]
        if not view.follow:  # what is followed is found in each patient anew
            assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.9, name
        heads = [np.linalg.inv(np.array(record["head_to_world"])) for record in kept]
        corners = [(head @ grid)[:3, 3] for head, grid in zip(heads, grids, strict=True)]
        assert np.linalg.norm(corners[0] - corners[1] * [-1, 1, 1]) < 4.0, name


def test_the_affine_leads_from_the_tensor_back_to_the_scan(folder, settings):
    cache = preprocess.prepare(dataset(folder, SIDES), settings, ["sub-0002"])
    tmax = cache.load(["sub-0002"], ["tmax"])[0, 0].astype(float)
    place = cache.affine("sub-0002") @ [*np.argwhere(tmax > 0.6).mean(axis=0), 1]
    core = pose(dx=-4, yaw=-3) @ [30, 0, -65, 1]
    np.testing.assert_allclose(place, core, atol=3)


def test_the_vessel_channel_follows_a_mask_the_user_gives(folder, settings, tmp_path):
    root = tmp_path / "own"
    write_patient(root, "sub-0001", "left", scans=["ncct", "cta"])
    mask = np.zeros(CTA[0], np.uint8)
    mask[20:30, 50:70, 20:30] = 1
    path = root / "sub-0001" / "ct" / "sub-0001_vessels.nii.gz"
    images.save_nifti(path, mask, CTA[1])
    cache = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    assert cache.table.at["sub-0001", "vessel_volume_ml"] == pytest.approx(2000 * 3.375e-3)
    assert cache.load(["sub-0001"], ["vessels"]).max() > 0.9
    images.save_nifti(path, mask[1:], CTA[1])
    with pytest.raises(InputError, match="sub-0001.*another grid"):
        preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    images.save_nifti(path, mask * 3, CTA[1])
    with pytest.raises(InputError, match="binary"):
        preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)


def test_a_map_goes_back_to_the_voxels_of_the_scan(folder, settings):
    """A mark at the core, drawn on the tensor's grid, lies at the core on the NCCT's own voxels."""
    cache = preprocess.prepare(dataset(folder, SIDES), settings, ["sub-0002"])
    tmax = cache.load(["sub-0002"], ["tmax"])[0, 0].astype(np.float32)
    native, affine = cache.to_native("sub-0002", np.float32(tmax > 0.6), "ncct")
    assert native.shape == NCCT[0]
    np.testing.assert_allclose(affine, NCCT[1])
    middle = affine @ [*np.argwhere(native > 0.5).mean(axis=0), 1]
    np.testing.assert_allclose(middle, pose(dx=-4, yaw=-3) @ [30, 0, -65, 1], atol=3)
    with pytest.raises(InputError, match="sub-0002: no scan 'dwi'; has: ncct, cta"):
        cache.to_native("sub-0002", tmax, "dwi")


def test_a_cta_made_after_the_head_moved_is_brought_back(tmp_path, settings):
    still, moved = tmp_path / "still", tmp_path / "moved"
    shift = np.eye(4)
    shift[:3, 3] = [6, -5, 8]
    for root in (still, moved):
        write_patient(root, "sub-0001", "left", scans=["ncct", "cta"])
    path = moved / "sub-0001" / "ct" / "sub-0001_cta.nii.gz"
    array, affine = images.load_ct(path)
    images.save_nifti(path, np.rint(array).astype(np.int16), shift @ affine)
    one = preprocess.prepare(dataset(still, SIDES), settings, ["sub-0001"])
    two = preprocess.prepare(dataset(moved, SIDES), settings, ["sub-0001"])
    assert two.table.at["sub-0001", "cta_shift_mm"] == pytest.approx(125**0.5, abs=1)
    assert "CTA moved by" in two.table.at["sub-0001", "flags"]
    for channel in ("cta", "vessels"):
        pair = [c.load(["sub-0001"], [channel]).astype(float).ravel() for c in (one, two)]
        assert np.corrcoef(*pair)[0, 1] > 0.95, channel
    to_cta = two.affine("sub-0001", "cta") @ np.linalg.inv(two.affine("sub-0001"))
    np.testing.assert_allclose(to_cta[:3, 3], shift[:3, 3], atol=2.5)


@pytest.mark.parametrize("offset", [60, -400])
def test_a_cta_of_another_scanners_world_is_brought_to_the_ncct(tmp_path, settings, offset):
    """Neither lost as lying elsewhere, nor drawn where it does not belong; another head stays there."""
    root, shift = tmp_path / "data", np.eye(4)
    head = pose(dx=4, yaw=3)
    for scan, grid in (("ncct", NCCT), ("cta", (CTA[0], CTA[1]))):
        hu = template_hu(*grid, head)
        shift[2, 3] = offset if scan == "cta" else 0
        path = root / "sub-0001" / "ct" / f"sub-0001_{scan}.nii.gz"
        images.save_nifti(path, np.rint(hu).astype(np.int16), shift @ grid[1])
    cache = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    move = np.array(cache.records["sub-0001"]["moves"]["cta"])
    np.testing.assert_allclose(move @ [0, 0, -85 + offset, 1], [0, 0, -85, 1], atol=1.5)
    assert "CTA moved by" in cache.table.at["sub-0001", "flags"]
    path = root / "sub-0001" / "ct" / "sub-0001_cta.nii.gz"
    other = template_hu(*CTA, head @ np.diag([0.9, 1.08, 1.0, 1.0]))
    images.save_nifti(path, np.rint(other).astype(np.int16), shift @ CTA[1])
    cache = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    assert not cache.records["sub-0001"]["moves"]
    assert re.search("different heads|too little in common", cache.table.at["sub-0001", "flags"])


def test_a_cta_of_another_head_is_not_used_unless_one_says_so(tmp_path, settings):
    """Two heads of one table row: the template's, and one that is smaller across."""
    root = tmp_path / "mixed"
    write_patient(root, "sub-0001", "left", scans=["ncct", "cta"])
    small = np.diag([0.88, 1.06, 0.94, 1.0])
    own, other = template_hu(*NCCT), template_hu(*CTA, small)
    for scan, hu, affine in (("ncct", own, NCCT[1]), ("cta", other, CTA[1])):
        images.save_nifti(
            root / "sub-0001" / "ct" / f"sub-0001_{scan}.nii.gz",
            np.rint(hu).astype(np.int16),
            affine,
        )
    cache = preprocess.prepare(dataset(root, SIDES), settings, ["sub-0001"])
    reasons = cache.missing(["sub-0001"], ["cta"]) | {
        "v": cache.records["sub-0001"]["reasons"]["vessels"]
    }
    assert all("cta not used: CTA and NCCT of different heads" in why for why in reasons.values())
    assert "different heads" in cache.table.at["sub-0001", "flags"]
    trusting = dataclasses.replace(settings.study.grid, other_head="flag")
    study = dataclasses.replace(settings.study, grid=trusting)
    used = preprocess.prepare(
        dataset(root, SIDES), dataclasses.replace(settings, study=study), ["sub-0001"]
    )
    assert "cta" in used.table.at["sub-0001", "available"]
    assert "different heads" in used.table.at["sub-0001", "flags"]


def test_a_channel_of_what_differs_from_the_other_hemisphere(folder, settings):
    """The late flow stands out, the rest is no difference: 0.5 of a window from -16 to 16 s."""
    channel = config.Channel("tmax", -16.0, 16.0, "s", minus_mirror=(0.0, 16.0))
    channels = settings.study.channels | {"tmax_difference": channel}
    study = dataclasses.replace(settings.study, channels=channels)
    cache = preprocess.prepare(
        dataset(folder, SIDES), dataclasses.replace(settings, study=study), ["sub-0002"]
    )
    tmax, differing = cache.load(["sub-0002"], ["tmax", "tmax_difference"])[0].astype(float)
    healthy = (tmax > 0.08) & (tmax < 0.1)
    assert np.median(differing[healthy]) == pytest.approx(0.5, abs=0.01)
    core = tmax > 0.7  # 12 s against 1.5 s
    assert differing[core].mean() == pytest.approx(0.5 + 10.5 / 32, abs=0.03)
    record = cache.records["sub-0002"]["windows"]["tmax_difference"]
    window = {"scan": "tmax", "low": -16.0, "high": 16.0, "unit": "s"}
    assert record == window | {"minus_mirror": [0.0, 16.0]}


def test_a_difference_covers_only_what_both_sides_show(tmp_path, settings):
    """A map of one hemisphere has no difference to show: absent, not "no difference"."""
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left", scans=["ncct", "tmax"])
    path = root / "sub-0001" / "perf" / "sub-0001_tmax.nii.gz"
    array, affine = images.load_nifti(path)
    images.save_nifti(path, array[:25], affine)  # up to 10 mm right of the midline
    channel = config.Channel("tmax", -16.0, 16.0, "s", minus_mirror=(0.0, 16.0))
    channels = settings.study.channels | {"tmax_difference": channel}
    study = dataclasses.replace(settings.study, channels=channels)
    settings = dataclasses.replace(settings, study=study)
    cache = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    row = cache.table.loc["sub-0001"]
    assert row["coverage_tmax"] > 0.8
    assert row["coverage_tmax_difference"] == pytest.approx(20 / 96, abs=0.05)  # 10 mm a side
    assert "tmax_difference covers only" in row["flags"]


def test_absent_channels_are_nan_and_flagged_never_zero(folder, settings):
    cache = preprocess.prepare(dataset(folder, SIDES), settings, ["sub-0001", "sub-0003"])
    channels = ("cta", "ncct")
    present = cache.present(["sub-0001", "sub-0003"], channels)
    np.testing.assert_array_equal(present, [[True, True], [False, True]])
    tensors = cache.load(["sub-0001", "sub-0003"], channels, absent="nan")
    assert np.isnan(tensors[1, 0]).all() and not np.isnan(tensors[1, 1]).any()
    assert not np.isnan(tensors[0]).any()
    assert cache.present(["sub-0003"], channels, "base").tolist() == [[False, True]]
    view = cache.load(["sub-0003"], channels, view="base", absent="nan")
    assert view.shape[2:] == settings.study.views["base"].shape
    assert np.isnan(view[0, 0]).all() and not np.isnan(view[0, 1]).any()
    assert cache.missing(["sub-0003"], ["cta"], "base") == {"sub-0003": "no cta scan"}
    with pytest.raises(InputError, match="sub-0003: no channel 'cta' \\(no cta scan\\)"):
        cache.load(["sub-0003"], ["cta"], view="base")
    measured = cache.measures(["sub-0001", "sub-0003"], ["measured_vessel_share", "tmax6_ml"])
    assert np.isfinite(measured[0]).all() and np.isnan(measured[1]).all()
    with pytest.raises(InputError, match="'weight' is not measured in these scans"):
        cache.measures(["sub-0001"], ["weight"])
    with pytest.raises(InputError, match="absent is 'zero'; allowed: refuse, nan"):
        cache.load(["sub-0001"], channels, absent="zero")


def test_a_template_of_ones_own_and_each_alignment(folder, settings, tmp_path):
    """Rigid and affine poses of a plain ellipsoid head; a CT of one's own as template."""
    head = head_hu(*NCCT)
    own = images.save_nifti(tmp_path / "own.nii.gz", np.rint(head).astype(np.int16), NCCT[1])
    for alignment in config.imaging.ALIGNMENTS:
        grid = config.Grid(alignment=alignment)
        study = dataclasses.replace(settings.study, grid=grid)
        chosen = dataclasses.replace(settings, study=study, template=str(own))
        cache = preprocess.prepare(dataset(folder, SIDES), chosen, ["sub-0002"])
        assert cache.table.at["sub-0002", "alignment"] == alignment
        mid = np.linalg.inv(np.array(cache.records["sub-0002"]["head_to_world"]))
        # the mid-plane of the head that the phantom was drawn in
        place = mid @ pose(dx=-4, yaw=-3) @ [0, 40, -60, 1]
        assert abs(place[0]) < 1.0
    with pytest.raises(InputError, match="setting 'template' is .*no such file"):
        config.load_settings("smoke", template="no/such/template.nii.gz")


# ------------------------------------------------------------------------- what no model may read


@pytest.fixture
def own_mask(tmp_path):
    """A folder of one patient with a true mask (1 artery, 2 clot, 3 tangle), and a function that gives one."""
    root = tmp_path / "simulated"
    write_patient(root, "sub-0001", "left", scans=["ncct", "cta"])
    truth = np.zeros(CTA[0], np.uint8)
    truth[20:30, 50:70, 20:30] = 1
    truth[24:27, 60:70, 20:30] = 2
    truth[70:80, 50:70, 20:30] = 3
    known = root / "derivatives" / "truth" / "sub-0001"
    images.save_nifti(known / "sub-0001_vessels.nii.gz", truth, CTA[1])

    def give(mask):
        path = root / "sub-0001" / "ct" / "sub-0001_vessels.nii.gz"
        images.save_nifti(path, mask.astype(np.uint8), CTA[1])
        return dataset(root, {"sub-0001": "left"})

    return give, truth


@pytest.mark.parametrize(
    "same",
    [
        lambda t: t > 0,
        lambda t: t == 1,
        lambda t: t == 2,
        lambda t: t == 3,
        lambda t: (t == 1) | (t == 2),
        lambda t: (t == 1) | (t == 3),
        lambda t: (t > 0) & (np.arange(t.size).reshape(t.shape) % 97 > 0),  # all but a few voxels
    ],
    ids=range(7),
)
def test_the_true_vessels_are_no_input_of_a_model(own_mask, settings, same):
    give, truth = own_mask
    words = "the true vessels of a simulated patient may not be a model's input"
    with pytest.raises(
        InputError, match=f"patient sub-0001: sub-0001/ct/sub-0001_vessels.*{words}"
    ):
        preprocess.prepare(give(same(truth)), settings)
    assert not list((settings.cache / "tensors").glob("*/record.json"))


def test_the_truth_is_no_input_in_another_order_of_its_voxels(own_mask, settings):
    give, truth = own_mask
    data = give(truth == 1)
    for scan in ("cta", "vessels"):
        path = data.root / "sub-0001" / "ct" / f"sub-0001_{scan}.nii.gz"
        image = nib.load(path)
        las = nib.orientations.axcodes2ornt(("L", "A", "S"))
        nib.save(image.as_reoriented(las), path)
    with pytest.raises(InputError, match="the true vessels of a simulated patient"):
        preprocess.prepare(data, settings)


def test_the_truth_is_no_input_under_another_name_or_in_template_space(own_mask, settings):
    give, truth = own_mask
    data = give(truth > 0)
    (data.root / "derivatives/truth/sub-0001/sub-0001_vessels.nii.gz").rename(
        data.root / "derivatives/truth/sub-0001/sub-0001_artery.nii.gz"
    )
    elsewhere = dataclasses.replace(settings.study, grid=config.Grid("template"))
    for study in (settings.study, elsewhere):
        with pytest.raises(InputError, match="the true artery of a simulated patient"):
            preprocess.prepare(data, dataclasses.replace(settings, study=study))


def test_a_mask_that_is_not_the_truth_is_taken(own_mask, settings):
    give, truth = own_mask
    mask = truth == 1
    mask[20:22] = False  # as a good segmentation: Dice 0.88
    cache = preprocess.prepare(give(mask), settings)
    volume = mask.sum() * 3.375e-3
    assert cache.table.at["sub-0001", "vessel_volume_ml"] == pytest.approx(volume, abs=1e-3)


def test_tensors_do_not_depend_on_what_lies_in_derivatives(own_mask, settings, tmp_path):
    give, truth = own_mask
    data = give(np.roll(truth > 0, 5))
    with_truth = preprocess.prepare(data, settings)
    (data.root / "derivatives" / "ceiling.json").write_text("not read")
    shutil.rmtree(data.root / "derivatives" / "truth")
    fresh = dataclasses.replace(settings, cache=tmp_path / "fresh")
    without = preprocess.prepare(data, fresh)
    assert with_truth.fingerprint == without.fingerprint
    names = list(with_truth.table.at["sub-0001", "available"])
    np.testing.assert_array_equal(
        with_truth.load(["sub-0001"], names), without.load(["sub-0001"], names)
    )


# ------------------------------------------------------------------------------- missing, unusable


def test_a_missing_modality_is_absent_and_said_so(folder, settings):
    cache = preprocess.prepare(dataset(folder, SIDES), settings)
    assert cache.table.at["sub-0003", "available"] == ("ncct",)
    assert cache.missing(SIDES, ["ncct"]) == {}
    assert cache.missing(SIDES, ["ncct", "vessels"]) == {"sub-0003": "no vessels or CTA scan"}
    assert cache.missing(SIDES, ["tmax"]) == {"sub-0003": "no tmax scan"}
    with pytest.raises(InputError, match="sub-0003.*'cta'"):
        cache.load(["sub-0001", "sub-0003"], ["ncct", "cta"])
    with pytest.raises(InputError, match="sub-9999"):
        cache.load(["sub-9999"], ["ncct"])


def test_a_patient_without_scans_has_no_channel(tmp_path, settings):
    cache = preprocess.prepare(dataset(tmp_path, {"sub-0001": "left"}), settings)
    assert cache.table.at["sub-0001", "available"] == ()
    with pytest.raises(InputError, match="no scan"):
        cache.affine("sub-0001")


def test_an_unknown_side_is_flagged(folder, settings):
    cache = preprocess.prepare(dataset(folder, {"sub-0001": "?"}), settings)
    assert "affected side unknown" in cache.table.at["sub-0001", "flags"]


def test_a_wrong_side_is_flagged_by_the_perfusion(folder, settings):
    cache = preprocess.prepare(dataset(folder, {"sub-0001": "right"}), settings)
    assert "recorded side is right" in cache.table.at["sub-0001", "flags"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_scan_names_patient_and_file_and_leaves_nothing(tmp_path, settings, workers):
    root = tmp_path / "data"
    ids = [f"sub-{i:04d}" for i in range(9)]
    for p in ids:
        array = np.full(NCCT[0], -1000, np.int16)
        array[20:50, 20:60, 5:25] = 40
        images.save_nifti(root / p / "ct" / f"{p}_ncct.nii.gz", array, NCCT[1])
    bad = root / "sub-0004" / "ct" / "sub-0004_ncct.nii.gz"
    bad.write_bytes(bad.read_bytes()[:-100])
    settings = dataclasses.replace(settings, workers=workers)
    with pytest.raises(InputError) as error:
        preprocess.prepare(dataset(root, dict.fromkeys(ids, "left")), settings)
    said = str(error.value)
    assert said.startswith("patient sub-0004: sub-0004/ct/sub-0004_ncct.nii.gz")
    assert str(tmp_path) not in said
    for record in (settings.cache / "tensors").glob("*/record.json"):
        assert json.loads(record.read_text())["participant_id"] != "sub-0004"


# ------------------------------------------------------------------------------------------- cache


def test_what_is_there_is_reused_and_what_changed_is_not(folder, settings, monkeypatch):
    data = dataset(folder, SIDES)
    first = preprocess.prepare(data, settings, ["sub-0003"])
    made = []
    monkeypatch.setattr(preprocess.cache, "_make_one", lambda task, f: made.append(task))
    again = preprocess.prepare(data, settings, ["sub-0003"])
    assert made == [] and again.fingerprint == first.fingerprint
    monkeypatch.undo()
    other = preprocess.prepare(
        dataset(folder, SIDES | {"sub-0003": "right"}), settings, ["sub-0003"]
    )
    assert other.fingerprint != first.fingerprint
    larger = dataclasses.replace(settings, grid_shape=(8, 8, 8))
    assert preprocess.prepare(data, larger, ["sub-0003"]).fingerprint != first.fingerprint


def test_a_changed_scan_is_never_the_old_tensor(tmp_path, settings):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left", scans=["ncct"])
    data = dataset(root, {"sub-0001": "left"})
    before = preprocess.prepare(data, settings)
    path = root / "sub-0001" / "ct" / "sub-0001_ncct.nii.gz"
    images.save_nifti(path, head_hu(*NCCT, seed=5).astype(np.int16), NCCT[1])
    after = preprocess.prepare(data, settings)
    assert before.fingerprint != after.fingerprint
    one, two = (c.load(["sub-0001"], ["ncct"]) for c in (before, after))
    assert (one != two).any()


def test_a_changed_scan_of_the_same_size_and_time_is_seen(tmp_path, settings):
    """As a copy that keeps times leaves it: the file's own time of change tells."""
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left", scans=["ncct"])
    data = dataset(root, {"sub-0001": "left"})
    path = root / "sub-0001" / "ct" / "sub-0001_ncct.nii.gz"

    def write(seed):
        plain = nib.Nifti1Image(head_hu(*NCCT, seed=seed).astype(np.int16), NCCT[1])
        plain.header["xyzt_units"] = 2
        path.write_bytes(gzip.compress(plain.to_bytes(), 0, mtime=0))
        os.utime(path, ns=(10**18, 10**18))

    write(1)
    before, size = preprocess.prepare(data, settings), path.stat().st_size
    write(2)
    assert path.stat().st_size == size
    assert preprocess.prepare(data, settings).fingerprint != before.fingerprint


@pytest.mark.parametrize("own", [True, False])
def test_another_template_in_the_same_file_is_another_tensor(tmp_path, settings, monkeypatch, own):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left", scans=["ncct"])
    file = tmp_path / "template.nii.gz"
    images.save_nifti(file, np.rint(head_hu(*NCCT, seed=1)).astype(np.int16), NCCT[1])
    if own:
        settings = dataclasses.replace(settings, template=str(file))
    else:  # the package's own
        monkeypatch.setattr(preprocess.cache, "TEMPLATE_FILE", file)
    before = preprocess.prepare(dataset(root, SIDES), settings, ["sub-0001"])
    images.save_nifti(file, np.rint(head_hu(*NCCT, seed=2)).astype(np.int16), NCCT[1])
    after = preprocess.prepare(dataset(root, SIDES), settings, ["sub-0001"])
    assert after.fingerprint != before.fingerprint


def test_a_tensor_that_was_deleted_is_made_again(folder, settings):
    data = dataset(folder, SIDES)
    cache = preprocess.prepare(data, settings, ["sub-0003"])
    (cache.folder / cache.table.at["sub-0003", "key"] / "tensor.npy").unlink()
    assert preprocess.prepare(data, settings, ["sub-0003"]).load(["sub-0003"], ["ncct"]).any()


def test_the_same_content_touched_or_moved_is_found_again(tmp_path, settings):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left", scans=["ncct"])
    before = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    os.utime(root / "sub-0001" / "ct" / "sub-0001_ncct.nii.gz", (1, 1))
    root.rename(tmp_path / "moved")
    after = preprocess.prepare(dataset(tmp_path / "moved", {"sub-0001": "left"}), settings)
    assert after.fingerprint == before.fingerprint


def test_two_at_once_do_not_make_the_same_thing_twice(folder, settings, monkeypatch):
    data, made, real = dataset(folder, SIDES), [], preprocess.cache._make_one

    def counted(task, where):
        made.append(task.participant_id)
        real(task, where)

    monkeypatch.setattr(preprocess.cache, "_make_one", counted)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: preprocess.prepare(data, settings), range(2))
    assert sorted(made) == sorted(SIDES)
    assert one.fingerprint == two.fingerprint


def _prepare_and_note(root, cache, notes):
    """In a process of its own: prepare, and write down which patients were made here."""
    real = preprocess.cache._make_one

    def noted(task, where):
        with open(notes, "a") as file:
            file.write(f"{task.participant_id}\n")
        real(task, where)

    preprocess.cache._make_one = noted
    settings = config.load_settings("smoke", cache=cache, workers=1)
    preprocess.prepare(dataset(root, SIDES), settings)


def test_two_processes_share_a_cache(folder, settings, tmp_path):
    context = multiprocessing.get_context("spawn")
    arguments = (folder, settings.cache, tmp_path / "notes")
    pair = [context.Process(target=_prepare_and_note, args=arguments) for _ in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join()
        assert process.exitcode == 0
    made = (tmp_path / "notes").read_text().split()
    assert sorted(made) == sorted(SIDES)  # each patient once, by one of the two
    cache = preprocess.prepare(dataset(folder, SIDES), settings)
    assert cache.load(["sub-0003"], ["ncct"]).any()


def test_a_tensor_cut_off_in_writing_is_made_again(folder, settings, monkeypatch):
    data = dataset(folder, SIDES)

    def fails(path, content):
        raise InputError("cannot write: the disk is full")

    monkeypatch.setattr(preprocess.cache.storage, "write_json", fails)
    with pytest.raises(InputError, match="full"):
        preprocess.prepare(data, settings, ["sub-0003"])
    monkeypatch.undo()
    assert preprocess.prepare(data, settings, ["sub-0003"]).load(["sub-0003"], ["ncct"]).any()


def test_a_patient_who_is_not_in_the_table_is_named(folder, settings):
    with pytest.raises(InputError, match="sub-0042"):
        preprocess.prepare(dataset(folder, SIDES), settings, ["sub-0042"])


def test_maps_on_different_grids_are_measured_apart(tmp_path, settings):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left")
    path = root / "sub-0001" / "perf" / "sub-0001_tmax.nii.gz"
    array, affine = images.load_nifti(path)
    images.save_nifti(path, array[:, :, 1:], PERF[1])
    cache = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    assert "perfusion maps lie on different grids" in cache.table.at["sub-0001", "flags"]
    assert cache.records["sub-0001"]["not_measured"] == dict.fromkeys(
        perfusion.NAMES, "perfusion maps lie on different grids"
    )
    assert "tmax" in cache.table.at["sub-0001", "available"]
    assert not any("; " in flag for flag in cache.records["sub-0001"]["flags"])  # joined by those
    assert affine.shape == (4, 4)


def test_what_a_missing_map_leaves_unmeasured_is_missing_with_the_reason(tmp_path, settings):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left", scans=["ncct", "cbf", "mtt"])
    record = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings).records["sub-0001"]
    assert record["not_measured"] == dict.fromkeys(perfusion.NAMES, "no cbv and no tmax map")


@pytest.mark.parametrize(("scan", "shift"), [("mtt", 40.0), ("tmax", 40.0), ("tmax", 400.0)])
def test_any_map_that_lies_beside_the_brain_is_flagged(tmp_path, settings, scan, shift):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left", scans=["ncct", "cbf", scan])
    path = root / "sub-0001" / "perf" / f"sub-0001_{scan}.nii.gz"
    array, affine = images.load_nifti(path)
    affine[0, 3] += shift
    images.save_nifti(path, array, affine)
    cache = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    flags = cache.table.at["sub-0001", "flags"]
    assert f"of the {scan} map's brain lies in the NCCT's intracranial space" in flags
    assert "perfusion maps lie on different grids" in flags


def test_a_vessel_mask_without_its_cta_is_said_to_be_unchecked(own_mask, settings):
    """Where the CTA would have been moved, a mask alone lies where it should not."""
    give, _ = own_mask
    mask = np.zeros(CTA[0], np.uint8)
    mask[40:50, 50:70, 20:30] = 1
    data = give(mask)
    left_out = Exclusions(scans={("sub-0001", "cta"): "late phase"})
    data = dataclasses.replace(data, exclusions=left_out)
    flags = preprocess.prepare(data, settings).table.at["sub-0001", "flags"]
    assert "vessel mask without its CTA: taken to lie where the ncct does, not checked" in flags


def test_an_excluded_scan_is_absent_with_the_persons_reason(folder, settings):
    data = dataset(folder, SIDES)
    bad = {("sub-0001", "cta"): "late phase", ("sub-0001", "tmax"): "motion"}
    bad |= {("sub-0002", "vessels"): "veins"}
    data = dataclasses.replace(data, exclusions=Exclusions(scans=bad))
    cache = preprocess.prepare(data, settings, ["sub-0001", "sub-0002"])
    for channel, reason in {
        "cta": "cta scan excluded: late phase",
        "vessels": "cta scan excluded: late phase",  # segmented from it
        "tmax": "tmax scan excluded: motion",
    }.items():
        assert cache.missing(["sub-0001"], [channel]) == {"sub-0001": reason}
    assert cache.missing(["sub-0002"], ["vessels"]) == {"sub-0002": "vessels scan excluded: veins"}
    assert np.isnan(cache.table.at["sub-0001", "tmax6_ml"])
    plain = preprocess.prepare(dataset(folder, SIDES), settings, ["sub-0001"])
    assert not plain.missing(["sub-0001"], ["cta", "tmax"])  # not the excluded one's tensor


def test_a_map_of_zeros_is_refused(tmp_path, settings):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left", scans=["ncct"])
    path = root / "sub-0001" / "perf" / "sub-0001_cbf.nii.gz"
    images.save_nifti(path, np.zeros(PERF[0], np.float32), PERF[1])
    with pytest.raises(InputError, match=r"sub-0001_cbf.*nothing but zeros"):
        preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)


@pytest.mark.parametrize(
    ("change", "seen"), [(lambda tmax: tmax * 1000, "s"), (lambda tmax: tmax - 1000, "s")]
)
def test_a_map_in_another_unit_is_refused(tmp_path, settings, change, seen):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left")
    path = root / "sub-0001" / "perf" / "sub-0001_tmax.nii.gz"
    array, affine = images.load_nifti(path)
    images.save_nifti(path, change(array), affine)
    with pytest.raises(InputError, match=rf"sub-0001_tmax.*allowed: a map in {seen}"):
        preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)


def test_a_scan_that_hardly_covers_the_grid_is_absent_with_a_reason(tmp_path, settings):
    root = tmp_path / "data"
    write_patient(root, "sub-0001", "left")
    path = root / "sub-0001" / "perf" / "sub-0001_mtt.nii.gz"
    array, affine = images.load_nifti(path)
    affine[0, 3] += 5000.0
    images.save_nifti(path, array, affine)
    cache = preprocess.prepare(dataset(root, {"sub-0001": "left"}), settings)
    reasons = cache.missing(["sub-0001"], ["mtt"])
    assert "covers under 10% of the grid" in reasons["sub-0001"]
    assert "ncct" in cache.table.at["sub-0001", "available"]
