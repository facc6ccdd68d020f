import numpy as np
import pytest
from phantoms import CTA, NCCT, arteries, cta_hu, head_hu, pose

from rlvo_lib import vessels
from rlvo_lib.head import head_frame


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
