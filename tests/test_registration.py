"""Heads on a template, scans on each other: known motions, masks, flags, and bad input."""

import hashlib

import nibabel as nib
import numpy as np
import pytest
from phantoms import CTA, NCCT, PERF, head_hu, perfusion_maps, pose, template_hu
from realdata import folder
from scipy.spatial.transform import Rotation

from rlvo_lib import config, dicom, dictionary, images
from rlvo_lib.config import InputError
from rlvo_lib.head import head_frame
from rlvo_lib.registration import (
    KINDS,
    MOTION_MM,
    align,
    brain_mask_ct,
    head_mask,
    itk,
    load_template,
    map_inside,
    motion,
    solver,
    within_patient,
)
from rlvo_lib.registration.alignment import MIDDLE, rigid_part, straightened
from rlvo_lib.registration.template import TEMPLATE_FILE
from rlvo_lib.registration.within import displacement

DIGEST = "94b15b5f6ace37c168061d52b8d468a1b75e9e47463a465654a9fbd2200a8090"


def apart(found, true):
    """Angle (degrees) between two template-to-world matrices, scales aside, and mm at the middle."""
    turns = [np.linalg.svd(m[:3, :3]) for m in (found, true)]
    one, two = (u @ v for u, _, v in turns)
    angle = np.degrees(Rotation.from_matrix(one.T @ two).magnitude())
    place = [m[:3, :3] @ MIDDLE + m[:3, 3] for m in (found, true)]
    return angle, np.linalg.norm(place[0] - place[1])


# ------------------------------------------------------------------------------------------ template


def test_the_template_is_its_own_mirror_image_and_lies_in_a_head_frame():
    template = load_template()
    assert (template.array == template.array[::-1]).all()
    middle = template.affine @ [(template.array.shape[0] - 1) / 2, 0, 0, 1]
    assert middle[0] == 0.0
    frame = head_frame(template.array, template.affine)
    np.testing.assert_allclose(frame.affine, np.eye(4), atol=0.1)
    assert (template.volume.array == template.volume.array[::-1]).all()


def test_the_committed_template_is_small_stamped_and_known():
    content = TEMPLATE_FILE.read_bytes()
    assert len(content) < 400_000
    assert hashlib.sha256(content).hexdigest() == DIGEST
    image = nib.load(TEMPLATE_FILE)
    assert image.get_data_dtype() == np.int16
    assert b"SIMULATED DATA" in bytes(image.header["descrip"])


@pytest.mark.long
def test_the_template_is_made_again_with_the_same_bytes(tmp_path):
    from rlvo_lib.simulate import template as builder

    path = builder.write(tmp_path / "template.nii.gz")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == DIGEST


def test_a_users_template_is_straightened_and_made_symmetric(tmp_path):
    true = pose(dx=6, dy=-8, dz=20, yaw=8, roll=-5)
    grid = (100, 120, 100), np.diag([-2.0, 2.0, 2.0, 1.0])
    grid[1][:3, 3] = [100, -120, -150]
    path = images.save_nifti(tmp_path / "own.nii.gz", np.rint(template_hu(*grid, true)), grid[1])
    own, packaged = load_template(path), load_template()
    assert (own.array == own.array[::-1]).all()
    assert own.symmetry > 0.95
    fit = solver.similarity(packaged.volume, own.volume, np.eye(4))
    assert fit.similarity > 0.97
    # What is aligned to it is aligned.
    there = pose(dx=-4, yaw=-3, pitch=4, size=(1.03, 0.98, 1.0))
    found = align(template_hu(*NCCT, there), NCCT[1], "ncct", template=own)
    assert found.kind == "affine"
    assert apart(found.affine, there)[0] < 1.5


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("picture", "a CT must be in HU"),
        ("cut", "whole head"),
        ("one-sided", "halves are not alike"),
        ("small", "must show at least 95 %"),
        ("missing", "own.nii.gz"),
    ],
)
def test_a_template_that_is_no_head_is_refused(tmp_path, what, message):
    shape, affine = NCCT
    array = template_hu(shape, affine)
    if what == "picture":
        array = np.clip(array, 0, 255)
    if what == "cut":
        array = array[..., :22]
    if what == "one-sided":
        array[40:, :, :] = -1000
        array[:10, :10] = 40
    if what == "small":
        affine = affine @ np.diag([0.6, 0.6, 0.6, 1])
    path = tmp_path / "own.nii.gz"
    if what != "missing":
        images.save_nifti(path, np.rint(array), affine)
    with pytest.raises(InputError, match=message) as error:
        load_template(path)
    assert str(path) in str(error.value)


# ----------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize(
    "moved",
    [
        {},
        {"dx": 8, "dy": -6, "yaw": 5, "roll": -4, "pitch": 6, "size": (1.04, 0.97, 1.02)},
        {"dx": -7, "dy": 9, "yaw": -8, "roll": 3, "pitch": -9, "size": (0.95, 1.03, 0.98)},
        {"pitch": 14, "dy": 10, "dz": -8, "size": (1.12, 1.0, 0.97)},
        {"pitch": -14, "dy": -10, "dz": -8},
    ],
)
def test_a_known_pose_pitch_and_size_are_found(moved):
    true = pose(**moved)
    array = template_hu(*NCCT, true)
    affine, rigid = (align(array, NCCT[1], "ncct", kind=k) for k in ("affine", "rigid"))
    assert (affine.kind, rigid.kind) == ("affine", "rigid")
    assert affine.cost < 0.03
    assert affine.cost == rigid.cost
    for found in (affine, rigid):
        angle, mm = apart(found.affine, true)
        assert angle < 0.6
        assert mm < 0.8
    np.testing.assert_allclose(
        affine.scales, sorted(moved.get("size", (1, 1, 1)))[::-1], atol=0.012
    )
    np.testing.assert_allclose(rigid.scales, 1.0, atol=1e-9)
    np.testing.assert_allclose(affine.midline, rigid.midline, atol=1e-6)


def test_the_mid_plane_is_at_least_as_exact_as_by_symmetry_alone():
    true = pose(dx=5, yaw=6, roll=-5, pitch=5)
    array = template_hu(*NCCT, true)
    angles = {}
    for kind in KINDS:
        normal = align(array, NCCT[1], "ncct", kind=kind).midline[:3]
        angles[kind] = np.degrees(np.arccos(np.clip(normal @ true[:3, 0], -1, 1)))
    assert angles["affine"] <= max(angles["symmetry"], 0.2)
    assert angles["rigid"] == pytest.approx(angles["affine"], abs=1e-3)


def test_symmetry_alone_is_the_head_frame():
    array = head_hu(*NCCT, pose(dx=4, yaw=3))
    found = align(array, NCCT[1], "ncct", kind="symmetry")
    np.testing.assert_array_equal(found.affine, head_frame(array, NCCT[1]).affine)
    assert found.kind == "symmetry" and found.flags == ()
    assert 0 < found.cost < 1


def test_how_the_voxels_are_stored_does_not_matter():
    true = pose(dx=5, yaw=4, pitch=5)
    array = template_hu(*NCCT, true)
    flipped = NCCT[1] @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] = NCCT[1][:3, 3] + NCCT[1][:3, 0] * (array.shape[0] - 1)
    one = align(array, NCCT[1], "ncct")
    two = align(array[::-1], flipped, "ncct")
    np.testing.assert_allclose(one.affine, two.affine, atol=2e-3)
    turned = np.moveaxis(array, 2, 0)
    axes = NCCT[1][:, [2, 0, 1, 3]]
    np.testing.assert_allclose(one.affine, align(turned, axes, "ncct").affine, atol=2e-3)


def test_a_tilted_gantry_changes_little():
    """Slices that lean by 15 degrees, once as a turned affine and once as a sheared one."""
    true = pose(dx=3, yaw=-4, pitch=3, size=(1.02, 1.0, 0.98))
    for angle, sheared in ((15, False), (15, True)):
        tilt = np.eye(4)
        tilt[:3, :3] = Rotation.from_euler("X", angle, degrees=True).as_matrix()
        affine = tilt @ NCCT[1]
        shape = (72, 100, 44)
        affine[:3, 3] = [-90, -110, -190] if not sheared else [-90, -90, -190]
        if sheared:
            affine[:3, 2] = [0, 0, 5.0]
        found = align(template_hu(shape, affine, true), affine, "ncct")
        assert found.kind == "affine"
        angle, mm = apart(found.affine, true)
        assert angle < 1.0 and mm < 1.5


@pytest.mark.parametrize(("first", "last"), [(0, 28), (9, 34), (9, 29)])
def test_a_head_cut_at_the_top_or_the_base_is_still_laid_right(first, last):
    true = pose(dx=3, yaw=-4, pitch=4, size=(1.03, 0.98, 1.0))
    affine = NCCT[1].copy()
    affine[2, 3] += 5.0 * first
    found = align(template_hu((*NCCT[0][:2], last - first), affine, true), affine, "ncct")
    assert found.kind == "affine"
    angle, mm = apart(found.affine, true)
    assert angle < 2.0 and mm < 2.5


def test_a_contrasted_slab_alone_is_laid_right():
    true = pose(dx=3, dy=2, yaw=-4, roll=3, pitch=4)
    array = template_hu(*CTA, true, noise=12)
    sinus = np.zeros(CTA[0], bool)
    sinus[48:54, 5:12, 10:50] = True
    array[sinus & (array > 0)] = 300
    found = align(array, CTA[1], "cta")
    assert found.kind == "affine"
    angle, mm = apart(found.affine, true)
    assert angle < 2.5 and mm < 3.5
    assert "pose taken from the cta, no ncct" in found.flags


def test_a_lesion_does_not_pull_the_head():
    true = pose(dx=3, yaw=-4, pitch=4)
    plain = template_hu(*NCCT, true)
    bled = plain.copy()
    bled[20:34, 40:60, 14:22][plain[20:34, 40:60, 14:22] > 0] = 75
    one, two = (align(a, NCCT[1], "ncct").affine for a in (plain, bled))
    angle, mm = apart(one, two)
    assert angle < 0.15 and mm < 0.2


def test_a_perfusion_map_alone_gives_symmetry_and_a_flag():
    cbf = perfusion_maps("left", pose(dx=5, yaw=4))["cbf"]
    found = align(cbf, PERF[1], "cbf", kind="affine")
    assert found.kind == "symmetry" and np.isnan(found.cost)
    assert "affine alignment not done: only a cbf map" in found.flags
    assert "affine" not in " ".join(align(cbf, PERF[1], "cbf", kind="symmetry").flags)


@pytest.mark.parametrize("value", [-1000.0, 0.0, 40.0])
def test_a_scan_of_nothing_falls_back_with_a_flag(value):
    found = align(np.full(NCCT[0], value, np.float32), NCCT[1], "ncct")
    assert found.kind == "symmetry"
    assert any("alignment not" in flag for flag in found.flags)
    assert np.isfinite(found.affine).all()


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_a_few_slices_are_no_head_to_register(slices):
    found = align(template_hu((*NCCT[0][:2], slices), NCCT[1]), NCCT[1], "ncct")
    assert found.kind == "symmetry"
    assert any("alignment not taken" in flag or "not done" in flag for flag in found.flags)


def test_something_else_than_a_head_is_not_believed():
    box = np.full(NCCT[0], -1000.0, np.float32)
    box[15:50, 20:70, 5:30] = 50
    found = align(box, NCCT[1], "ncct")
    assert found.kind == "symmetry"
    assert any("unlike the template" in f or "scales" in f or "turned" in f for f in found.flags)


def test_an_unknown_kind_is_named_with_what_is_allowed():
    with pytest.raises(InputError, match="'elastic'; allowed: symmetry, rigid, affine"):
        align(np.zeros((4, 4, 4)), np.eye(4), "ncct", kind="elastic")


def test_the_same_scan_gives_the_same_bytes():
    array = template_hu(*NCCT, pose(dx=5, yaw=4, pitch=5))
    one, two = (align(array.copy(), NCCT[1].copy(), "ncct") for _ in range(2))
    assert one.affine.tobytes() == two.affine.tobytes()
    assert one.cost == two.cost


def test_the_matrices_of_a_random_affine_come_apart_as_they_should():
    rng = np.random.default_rng(3)
    matrix = pose(dx=2, yaw=4, roll=-3, pitch=5, size=(1.1, 0.9, 1.05))
    rigid = rigid_part(matrix, MIDDLE)
    np.testing.assert_allclose(rigid[:3, :3].T @ rigid[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(rigid) == pytest.approx(1)
    np.testing.assert_allclose((rigid @ [*MIDDLE, 1]), matrix @ [*MIDDLE, 1], atol=1e-9)
    matrix[:3, :3] += rng.normal(0, 0.002, (3, 3))
    straight = straightened(matrix)
    assert np.abs(straight[:3, 0] @ straight[:3, 1:3]).max() < 1e-12
    np.testing.assert_allclose(straight, matrix, atol=1.0)


# ---------------------------------------------------------------------------------- solver and SimpleITK


def test_generators_are_what_a_small_motion_does():
    names = ("about_x", "about_y", "about_z")
    for name, matrix in zip(names, solver.generators(names), strict=True):
        turn = Rotation.from_euler(name[-1], 1e-6).as_matrix()
        np.testing.assert_allclose(matrix[:3, :3], (turn - np.eye(3)) / 1e-6, atol=1e-5)
    scale, shear = solver.generators(("scale_y", "shear_yz"))
    assert scale[1, 1] == 1 and scale.sum() == 1
    assert shear[1, 2] == shear[2, 1] == 1 and shear.sum() == 2


def test_simpleitk_sees_our_places_with_x_and_y_turned_round():
    affine = pose(dx=5, dy=-7, dz=3, yaw=20) @ np.diag([2.0, 3.0, 4.0, 1.0])
    image = itk.image(np.zeros((4, 5, 6), np.float32), affine)
    assert image.GetSize() == (4, 5, 6)
    place = affine @ [1, 2, 3, 1]
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint((1, 2, 3)), [-place[0], -place[1], place[2]], atol=1e-9
    )
    matrix = pose(dx=5, yaw=10, roll=-4, pitch=3)
    for rigid in (True, False):
        found = itk.transform(matrix, MIDDLE, rigid=rigid)
        np.testing.assert_allclose(itk.matrix(found), matrix, atol=1e-9)
        moved = matrix @ [10, 20, 30, 1]
        np.testing.assert_allclose(
            found.TransformPoint((-10.0, -20.0, 30.0)), [-moved[0], -moved[1], moved[2]], atol=1e-9
        )


def test_simpleitk_finds_the_same_optimum():
    true = pose(dx=2, dy=-3, dz=2, yaw=3, pitch=-4)
    template = load_template()
    moving = solver.volume(
        template_hu(*NCCT, true), NCCT[1], np.eye(4), template.volume.affine,
        template.volume.array.shape, -300, 600,
    )  # fmt: skip
    ours = solver.register(template.volume, moving, np.eye(4), solver.RIGID, MIDDLE, steps=30)
    theirs = itk.register(template.volume, moving, np.eye(4), MIDDLE, rigid=True, steps=80)
    angle, mm = apart(ours, theirs)
    assert angle < 0.5 and mm < 0.5
    short = [
        itk.register(template.volume, moving, np.eye(4), MIDDLE, rigid=True, steps=3).tobytes()
        for _ in range(2)
    ]
    assert short[0] == short[1]


def test_no_similarity_where_nothing_is_shared():
    volume = load_template().volume
    fit = solver.similarity(volume, volume, pose(dx=1000))
    assert np.isnan(fit.similarity) and fit.overlap == 0
    same = solver.similarity(volume, volume, np.eye(4))
    assert same.similarity == pytest.approx(1)


# --------------------------------------------------------------------------------------------- within


def scans(cta_moved=None, cta_head=None):
    """An NCCT and a CTA slab of one head; the CTA's affine moved by `cta_moved`."""
    head = pose(dx=3, yaw=4, pitch=2)
    ncct = template_hu(*NCCT, head)
    cta = template_hu(*CTA, head if cta_head is None else cta_head, seed=1, noise=12)
    moved = np.eye(4) if cta_moved is None else cta_moved
    return cta, moved @ CTA[1], ncct, NCCT[1]


def test_scans_that_lie_on_each_other_are_left_alone():
    found = within_patient(*scans())
    np.testing.assert_array_equal(found.affine, np.eye(4))
    assert (found.shift_mm, found.turn_deg, found.same_head) == (0.0, 0.0, True)
    assert found.flags == () and found.similarity > 0.97


@pytest.mark.parametrize(
    "moved", [{"dx": 20}, {"dy": -12, "dz": 12, "yaw": 12}, {"dz": 8, "pitch": 15}, {"roll": -9}]
)
def test_a_moved_cta_is_brought_back(moved):
    motion_ = pose(**moved)
    found = within_patient(*scans(motion_))
    shift, turn = displacement(found.affine @ motion_, np.array([0.0, 0, -85]))
    assert shift < 0.7 and turn < 0.4
    assert found.same_head is True
    assert found.flags[0].startswith("CTA moved by")
    np.testing.assert_allclose(found.affine[:3, :3] @ found.affine[:3, :3].T, np.eye(3), atol=1e-9)


def test_a_start_brings_together_what_is_far_apart():
    motion_ = pose(dx=150, yaw=70)
    assert within_patient(*scans(motion_)).same_head is not True
    found = within_patient(*scans(motion_), start=np.linalg.inv(motion_) @ pose(dx=6))
    shift, turn = displacement(found.affine @ motion_, np.array([0.0, 0, -85]))
    assert found.same_head is True and shift < 0.7 and turn < 0.4


@pytest.mark.parametrize("size", [(1.04, 1, 0.98), (0.97, 1.03, 1), (1.0, 0.97, 1.03)])
def test_another_head_is_named(size):
    found = within_patient(*scans(cta_head=pose(dx=-2, yaw=-3, size=size)))
    assert found.same_head is False
    assert found.flags[0].startswith("CTA and NCCT of different heads (correlation ")
    np.testing.assert_array_equal(found.affine, np.eye(4))


def test_scans_without_a_head_or_without_overlap_are_not_judged():
    cta, cta_affine, ncct, ncct_affine = scans()
    empty = np.full_like(ncct, -1000)
    for pair in ((cta, cta_affine, empty, ncct_affine), (empty, ncct_affine, ncct, ncct_affine)):
        found = within_patient(*pair)
        assert found.same_head is None and found.flags == ("no head to compare in CTA and NCCT",)
    found = within_patient(cta, pose(dz=400) @ cta_affine, ncct, ncct_affine)
    assert found.same_head is None
    assert "too little in common (0%)" in found.flags[0]


def test_a_map_outside_the_skull_shows():
    head = pose(dx=3, yaw=4)
    cbf = perfusion_maps("left", head)["cbf"]
    brain = brain_mask_ct(head_hu(*NCCT, head), NCCT[1])
    assert map_inside(cbf, PERF[1], brain, NCCT[1]) > 0.97
    assert map_inside(cbf, pose(dx=20) @ PERF[1], brain, NCCT[1]) < 0.93
    assert np.isnan(map_inside(cbf, pose(dz=500) @ PERF[1], brain, NCCT[1]))


# ---------------------------------------------------------------------------------------------- masks


def test_the_head_is_found_without_its_headrest_and_cables():
    array = template_hu(*NCCT, seed=None)
    truth = head_mask(array, NCCT[1])
    assert truth[36, 44, 20] and not truth[2, 2].any()
    shown = array.copy()
    shown[10:62, 1:3] = 100  # a shell along the back of the head, 5 mm thick
    shown[4:5, 20:60, 10] = 900  # a cable
    found = head_mask(shown, NCCT[1])
    assert not found[10:62, 1:3][~truth[10:62, 1:3]].any()
    assert not found[4, 20:60, 10].any()
    assert (found == truth).mean() > 0.999
    # sinuses and mouth are inside the head
    assert found.sum() >= ((array > -300) & truth).sum()


@pytest.mark.parametrize("scan", [NCCT, CTA])
def test_the_brain_mask_is_inside_the_skull(scan):
    shape, affine = scan
    array = head_hu(shape, affine)
    brain = brain_mask_ct(array, affine, head_frame(head_hu(*NCCT), NCCT[1]))
    index = np.indices(shape).reshape(3, -1)
    x, y, z = affine[:3, :3] @ index + affine[:3, 3:]
    radius = np.sqrt((x / 64) ** 2 + (y / 84) ** 2 + ((z + 95) / 84) ** 2).reshape(shape)
    above = (z > -135).reshape(shape)
    deep = above & (radius < 0.88) & (array < 200)
    assert brain[deep].mean() > 0.99
    assert brain[above & (radius > 1.13)].mean() < 0.01


def test_masks_on_fine_voxels_are_those_of_coarse_ones():
    fine = (144, 176, 34), NCCT[1] @ np.diag([0.5, 0.5, 1, 1])
    for make in (head_mask, brain_mask_ct):
        coarse_ml = make(template_hu(*NCCT), NCCT[1]).sum() * 2.5 * 2.5 * 5 / 1000
        fine_mask = make(template_hu(*fine), fine[1])
        assert fine_mask.shape == fine[0] and fine_mask.dtype == bool
        assert fine_mask.sum() * 1.25 * 1.25 * 5 / 1000 == pytest.approx(coarse_ml, rel=0.06)


@pytest.mark.parametrize("shape", [(8, 8, 8), (40, 40, 1), (1, 1, 1)])
def test_there_is_nothing_in_an_empty_scan(shape):
    empty = np.full(shape, -1000.0, np.float32)
    assert not head_mask(empty, NCCT[1]).any()
    assert not brain_mask_ct(empty, NCCT[1]).any()
    assert motion(empty, NCCT[1]) == 0.0


# ------------------------------------------------------------------------------------- motion and maps


def test_a_still_head_however_askew_does_not_look_moved():
    for head in (pose(), pose(yaw=8, roll=-8, pitch=8, dx=5)):
        assert motion(template_hu(*NCCT, head), NCCT[1]) < MOTION_MM / 2


@pytest.mark.parametrize("jump", [(5.0, 0.0), (0.0, 5.0)])
def test_slices_that_jump_aside_look_moved(jump):
    still = template_hu(*NCCT, pose(yaw=3))
    moved = template_hu(*NCCT, pose(*jump) @ pose(yaw=3))
    mixed = np.concatenate([still[..., :24], moved[..., 24:]], axis=2)
    assert motion(mixed, NCCT[1]) > MOTION_MM
    assert motion(mixed, NCCT[1]) == pytest.approx(5.0, abs=1.5)
    assert motion(mixed[::-1], NCCT[1]) == pytest.approx(motion(mixed, NCCT[1]), abs=0.3)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_map_goes_to_the_native_scan_and_back(mirror):
    head = pose(dx=4, yaw=5, pitch=6, size=(1.03, 0.98, 1.0))
    found = align(template_hu(*NCCT, head), NCCT[1], "ncct")
    grid = np.diag([3.0, 3.0, 3.0, 1.0])
    grid[:3, 3] = [-60, -60, -130]
    affine = found.affine @ np.diag([mirror, 1, 1, 1]) @ grid
    index = np.indices((40, 40, 30)) - np.array([25, 22, 15])[:, None, None, None]
    saliency = np.exp(-(index**2).sum(axis=0) / (2 * 4.0**2)).astype(np.float32)
    fine = (144, 176, 68), NCCT[1] @ np.diag([0.5, 0.5, 0.5, 1])
    native = images.resample(saliency, affine, fine[1], fine[0], fill=0.0)
    assert native.shape == fine[0]
    peak = fine[1] @ [*np.unravel_index(native.argmax(), fine[0]), 1]
    there = affine @ [25, 22, 15, 1]
    assert np.linalg.norm(peak - there) < 2.0
    back = images.resample(native, fine[1], affine, saliency.shape, fill=0)
    seen = images.field_of_view(fine[0], fine[1], affine, saliency.shape)
    assert np.abs(back - saliency)[seen].max() < 0.08
    assert not images.resample(saliency, affine, pose(dx=900), (5, 5, 5), fill=0.0).any()


# ------------------------------------------------------------------------------------------ real scans


@pytest.fixture(scope="module")
def ge_head(tmp_path_factory):
    archive = folder() / "ge_head_ncct.tar.gz"
    if not archive.is_file():
        pytest.skip("real scans not here: set RLVO_REALDATA to their folder")
    root = tmp_path_factory.mktemp("ge") / "data"
    study = config.load_study("rlvo")
    words = dictionary.load(study.dictionary_path)
    dicom.convert_folder(archive, root, study, words, patient="sub-0001")
    return images.load_ct(root / "sub-0001" / "ct" / "sub-0001_ncct.nii.gz")


def test_a_real_head_is_levelled(ge_head):
    before, rigid, affine = (align(*ge_head, "ncct", kind=kind) for kind in KINDS)
    assert (rigid.kind, affine.kind) == ("rigid", "affine") and affine.flags == ()
    # The frame leaves this head with its chin up by some 10 degrees (seen in the picture).
    assert before.cost > 0.3
    assert affine.cost < 0.15
    nod = np.linalg.inv(before.affine) @ rigid.affine
    assert 7 < np.degrees(np.arctan2(nod[2, 1], nod[1, 1])) < 13
    cosine = np.clip(before.midline[:3] @ rigid.midline[:3], -1, 1)
    assert np.degrees(np.arccos(cosine)) < 1.5
    brain = brain_mask_ct(*ge_head, affine.frame)
    ml = brain.sum() * abs(np.linalg.det(ge_head[1][:3, :3])) / 1000
    assert 1200 < ml < 1700
    assert motion(*ge_head) < MOTION_MM


def test_a_skull_without_a_brain_is_not_registered():
    path = folder() / "ct_sheared_affine.nii.gz"
    if not path.is_file():
        pytest.skip("real scans not here: set RLVO_REALDATA to their folder")
    found = align(*images.load_ct(path), "ncct")
    assert found.kind == "symmetry"
    assert any("unlike the template" in flag for flag in found.flags)
