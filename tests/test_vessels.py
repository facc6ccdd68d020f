import numpy as np
import pytest
from phantoms import CTA, NCCT, arteries, cta_hu, fine_cta_hu, head_hu, pose
from scipy import ndimage

from rlvo_lib import vessels
from rlvo_lib.head import head_frame
from rlvo_lib.vessels import space
from rlvo_lib.vessels.vesselness import eigenvalues, tubeness


@pytest.fixture(scope="module")
def frame():
    return head_frame(head_hu(*NCCT), NCCT[1])


def on_the_right(affine, shape, beyond_mm):
    return (np.arange(shape[0]) * affine[0, 0] + affine[0, 3] > beyond_mm)[:, None, None]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("moved", [{}, {"dx": 3, "dy": -4, "dz": 3, "yaw": 4, "roll": -3}])
def test_the_arterial_tree_is_found(moved):
    hu, affine, truth = cta_hu(pose(**moved))
    found = vessels.segment(hu, affine)
    assert found.dtype == bool and found.shape == hu.shape
    assert dice(found, truth >= 0.5) > 0.85
    assert (truth[found] > 0.1).mean() > 0.98  # next to nothing but vessels


def test_skull_and_skull_base_are_not_vessels():
    hu, affine, _ = cta_hu()
    bone = head_hu(*CTA, seed=None) > 500
    assert not (vessels.segment(hu, affine) & bone).any()


def test_an_occluded_branch_is_not_invented():
    hu, affine, truth = cta_hu()
    place = np.arange(hu.shape[0]) * affine[0, 0] + affine[0, 3]
    behind = truth * (place > 20)[:, None, None]
    plain = head_hu(*CTA, seed=None)
    found = vessels.segment(np.where(behind > 0, plain, hu), affine)
    assert dice(found, (truth - behind) >= 0.5) > 0.85
    assert not found[place > 26].any()


def test_a_sinus_at_the_back_of_the_skull_is_left_out():
    hu, affine, truth = cta_hu()
    x, y, z = (np.arange(n) * affine[a, a] + affine[a, 3] for a, n in enumerate(hu.shape))
    outline = np.sqrt(np.clip(1 - ((z + 95) / 84) ** 2, 0, 1)) * 84
    near = np.abs(y[:, None] + outline[None, :] - 4) < 3
    sinus = (np.abs(x) < 4)[:, None, None] & near[None]
    found = vessels.segment(np.where(sinus, 250, hu).astype(np.float32), affine)
    assert (found & sinus).sum() < 0.05 * sinus.sum()
    assert dice(found, truth >= 0.5) > 0.8


def test_a_straight_sinus_in_the_midline_is_left_out():
    hu, affine, truth = cta_hu()
    x, y, z = (np.arange(n) * affine[a, a] + affine[a, 3] for a, n in enumerate(hu.shape))
    sinus = (np.abs(x) < 3)[:, None, None] & (y < -35)[:, None] & (np.abs(z + 75) < 3)
    sinus &= hu < 100  # inside the skull
    late = np.where(sinus, 200, hu).astype(np.float32)
    frame = head_frame(head_hu(*NCCT), NCCT[1])
    found = vessels.segment(late, affine, frame)
    assert (found & sinus).sum() < 0.05 * sinus.sum()
    assert dice(found, truth >= 0.5) > 0.85


def test_without_contrast_or_head_the_mask_is_empty():
    shape, affine = CTA
    assert vessels.segment(head_hu(shape, affine), affine).mean() < 1e-4
    assert not vessels.segment(np.full(shape, -1000.0, np.float32), affine).any()


def test_stored_orientation_does_not_matter():
    hu, affine, _ = cta_hu()
    turned = affine.copy()
    turned[:3, 3] += affine[:3, 1] * (hu.shape[1] - 1)
    turned[:3, 1] *= -1
    one, two = vessels.segment(hu, affine), vessels.segment(hu[:, ::-1], turned)
    assert dice(one, two[:, ::-1]) > 0.97


def test_the_phantom_itself_has_both_carotids():
    mask = arteries(*CTA)
    assert mask[:50].sum() > 100 and mask[50:].sum() > 100


# ------------------------------------------------------------------------------- voxels under 1.1 mm


def test_fine_voxels_give_the_tree_without_a_frame_of_the_ncct():
    hu, affine, truth = fine_cta_hu()
    found = vessels.segment(hu.astype(np.int16), affine)
    assert dice(found, truth) > 0.93
    assert (found == vessels.segment(hu.astype(np.int16), affine)).all()


@pytest.mark.parametrize(
    "bone",
    [((11, -5, -115), (26, 25, -100)), ((2, -5, -115), (26, 25, -100))],
    ids=["beside", "around"],
)
def test_a_carotid_that_touches_bone_or_runs_through_it_is_kept_and_the_bone_is_not(bone, frame):
    hu, affine, truth = fine_cta_hu(bone=bone, carotid_mm=4.8)
    found = vessels.segment(hu, affine, frame)
    assert not (found & (hu > 550)).any()
    assert dice(found, truth) > 0.92
    low = truth.copy()
    low[..., 14:] = False  # the carotids within the height of the bone
    low &= on_the_right(affine, truth.shape, 0)
    assert (found & low).sum() > 0.8 * low.sum()


def test_finer_voxels_than_needed_are_worked_on_coarser_and_given_back():
    hu, affine, truth = fine_cta_hu()
    box = (slice(60, 150), slice(70, 170), slice(0, 60))
    fine = ndimage.zoom(hu[box], 2, order=1, grid_mode=True, mode="nearest")
    finer = affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    finer[:3, 3] = affine[:3, :3] @ (np.array([60, 70, 0]) - 0.25) + affine[:3, 3]
    frame = head_frame(head_hu(*NCCT), NCCT[1])
    found = vessels.segment(fine, finer, frame)
    assert found.shape == fine.shape
    expected = ndimage.zoom(
        truth[box].astype(np.float32), 2, order=1, grid_mode=True, mode="nearest"
    )
    assert dice(found, expected > 0.5) > 0.85


def test_faint_arteries_are_found_by_their_shape(frame):
    hu, affine, truth = fine_cta_hu()
    faint, _, _ = fine_cta_hu(contrast_hu=60)
    right = on_the_right(affine, truth.shape, 28)
    mixed = np.where(right, faint, hu)
    found = vessels.segment(mixed, affine, frame)
    assert (found & truth & right).sum() > 0.6 * (truth & right).sum()
    assert (found & ~ndimage.binary_dilation(truth, iterations=2)).sum() < 0.02 * truth.sum()


@pytest.mark.parametrize("make", [
    lambda hu: np.full((40, 40, 40), -1000.0),
    lambda hu: np.zeros((3, 3, 3), np.int16),
    lambda hu: np.full((60, 60, 2), 35.0, np.float32),
    lambda hu: hu[40:60, 50:90, 30:32],
    lambda hu: np.random.default_rng(0).normal(40, 400, (30, 30, 30)),
], ids=["air", "27 voxels", "two slices", "a piece", "noise"])  # fmt: skip
def test_no_head_no_contrast_and_slivers_give_a_mask(make):
    hu = make(fine_cta_hu()[0])
    affine = np.diag([-0.8, 0.8, 0.8, 1.0])
    found = vessels.segment(hu, affine)
    assert found.shape == hu.shape and found.dtype == bool
    assert not vessels.graph(found, affine, hu).occlusion


def test_no_contrast_in_a_head_gives_next_to_nothing(frame):
    hu, affine, _ = fine_cta_hu(contrast_hu=0)
    assert vessels.segment(hu, affine, frame).mean() < 1e-5


def test_phase_says_when_arteries_or_veins_are_bright(frame):
    hu, affine, truth = fine_cta_hu()
    x, y, z = (np.arange(n) * affine[a, a] + affine[a, 3] for a, n in enumerate(hu.shape))
    sinus = (np.abs(x) < 4)[:, None, None] & (np.abs(y + 70) < 4)[:, None] & (np.abs(z + 70) < 30)
    usual = vessels.contrast_phase(np.where(sinus, 130, hu), affine, truth, frame)
    late = vessels.contrast_phase(np.where(sinus, 340, hu), affine, truth, frame)
    assert usual["arterial_hu"] == pytest.approx(375, abs=30)
    assert usual["venous_hu"] == pytest.approx(130, abs=15) and usual["late_phase"] == 0
    assert late["late_phase"] == 1 and late["poor_opacification"] == 0
    faint, _, _ = fine_cta_hu(contrast_hu=60)
    assert vessels.contrast_phase(faint, affine, truth, frame)["poor_opacification"] == 1
    empty = vessels.contrast_phase(hu, affine, np.zeros_like(truth), frame)
    assert np.isnan(empty["arterial_hu"]) and empty["poor_opacification"] == 1


# ---------------------------------------------------------------------------------------- vesselness


def test_eigenvalues_are_those_of_lapack():
    rows = np.random.default_rng(0).normal(size=(6, 500))
    rows[:, 0] = 0
    full = np.empty((500, 3, 3))
    for k, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]):
        full[:, i, j] = full[:, j, i] = rows[k]
    assert np.allclose(eigenvalues(rows), np.linalg.eigvalsh(full).T, atol=1e-6)


def test_a_tube_answers_at_its_own_scale_and_a_sheet_or_a_ball_do_not():
    x, y, z = (np.indices((41, 41, 41)) - 20) * 0.6
    middle = np.zeros(x.shape, bool)
    middle[20, 20, 20] = True

    def answer(shape, scales=(1.4,)):
        return tubeness(300 * shape.astype(np.float32), middle, np.full(3, 0.6), scales)[0]

    tube = answer(np.hypot(x, y) < 2.0)
    assert tube == pytest.approx(300 * 0.37, rel=0.1)
    assert answer(np.hypot(x, y) < 2.0, (0.6,)) < 0.2 * tube
    assert answer(np.abs(x) < 2.0) < 0.05 * tube
    assert answer(x**2 + y**2 + z**2 < 4.0) < 0.2 * tube


def test_neighbourhoods_by_shifts_are_those_of_scipy():
    mask = np.random.default_rng(0).random((12, 9, 7)) < 0.04
    assert (space.grown(mask, 3) == ndimage.binary_dilation(mask, iterations=3)).all()
    cube = ndimage.binary_dilation(mask, structure=np.ones((3, 3, 3)))
    assert (space.grown(mask, corners=True) == cube).all()
    for size in (np.array([1.5, 1.4, 2.0]), np.full(3, 0.6)):
        away = ndimage.distance_transform_edt(~mask, sampling=size)
        for mm in (0.5, 1.8, 3.0, 3.1):
            assert (space.nearer(mask, mm, size) == (away < mm)).all()
    assert not space.nearer(np.zeros((4, 4, 4), bool), 3.0, np.ones(3)).any()
