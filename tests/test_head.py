import numpy as np
import pytest
from phantoms import CTA, NCCT, PERF, head_hu, perfusion_maps, pose

from rlvo_lib.head import head_frame


@pytest.mark.parametrize(
    "moved",
    [
        {},
        {"dx": 8, "dy": -6, "dz": 5, "yaw": 5, "roll": -4},
        {"dx": -7, "dy": 5, "dz": -6, "yaw": -6, "roll": 3},
        {"dx": 3, "yaw": 2, "roll": 6},
    ],
)
def test_a_known_pose_is_found(moved):
    true = pose(**moved)
    frame = head_frame(head_hu(*NCCT, true), NCCT[1])
    angle = np.degrees(np.arccos(np.clip(frame.affine[:3, 0] @ true[:3, 0], -1, 1)))
    assert angle < 0.7
    # In the head's own mm: the plane, the middle of its length, and the vertex.
    offset = (np.linalg.inv(true) @ frame.affine)[:3, 3]
    assert abs(offset[0]) < 1.5
    assert abs(offset[1]) < 3.0
    assert -5.0 < offset[2] < 0.0  # where the cross-section reaches 15 cm2, a few mm below the top
    assert 165 < frame.length_mm < 195
    assert frame.flags == ()


def test_the_frame_is_rigid_and_its_midline_has_the_right_on_its_right():
    true = pose(dx=6, yaw=4, roll=-3)
    frame = head_frame(head_hu(*NCCT, true), NCCT[1])
    rotation = frame.affine[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    right_ear = (true @ [70, 0, -90, 1])[:3]
    assert frame.midline[:3] @ right_ear - frame.midline[3] == pytest.approx(70, abs=1.5)


def test_the_stored_orientation_of_the_voxels_does_not_matter():
    array = head_hu(*NCCT, pose(dx=5, yaw=3))
    flipped = NCCT[1] @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] = NCCT[1][:3, 3] + NCCT[1][:3, 0] * (array.shape[0] - 1)
    one = head_frame(array, NCCT[1])
    two = head_frame(array[::-1], flipped)
    np.testing.assert_allclose(one.affine, two.affine, atol=1e-4)


def test_a_head_cut_at_the_top_and_a_pose_from_a_slab_are_flagged():
    shape, affine = CTA
    low = affine.copy()
    low[2, 3] -= 40
    frame = head_frame(head_hu(shape, low), low, "cta")
    assert "the top of the head is outside the cta" in frame.flags
    assert "pose taken from the cta, no ncct" in frame.flags


def test_the_cut_faces_of_a_slab_do_not_turn_its_pose():
    true = pose(dx=4, yaw=-4, roll=6)
    frame = head_frame(head_hu(*CTA, true), CTA[1], "cta")
    assert np.degrees(np.arccos(frame.affine[:3, 0] @ true[:3, 0])) < 1.5


def test_the_vertex_of_a_head_cut_at_the_top_is_extrapolated():
    shape, affine = NCCT
    whole = head_frame(head_hu(shape, affine), affine)
    cut = head_frame(
        head_hu((*shape[:2], 28), affine), affine
    )  # the last slice 15 mm under the top
    assert abs(cut.affine[2, 3] - whole.affine[2, 3]) < 5
    assert cut.flags == ("the top of the head is outside the ncct",)


def test_a_few_slices_still_give_a_frame():
    shape, affine = NCCT
    frame = head_frame(head_hu((*shape[:2], 2), affine), affine)
    np.testing.assert_allclose(frame.affine[:3, :3], np.eye(3), atol=0.2)


def test_a_perfusion_map_gives_a_midline_where_there_is_no_ct():
    true = pose(dx=5, yaw=4)
    frame = head_frame(perfusion_maps("left", true)["cbf"], PERF[1], "cbf")
    point = (true @ [0, 0, -65, 1])[:3]
    assert abs(frame.midline[:3] @ point - frame.midline[3]) < 4


def test_an_empty_scan_gives_a_flag_not_a_crash():
    frame = head_frame(np.full(NCCT[0], -1000.0), NCCT[1])
    assert frame.flags == ("no head found in ncct",)
