import math

import numpy as np
import pytest
from phantoms import PERF, perfusion_maps, pose

from rlvo_lib import perfusion

BALL_14, BALL_28 = 4 / 3 * math.pi * 1.4**3, 4 / 3 * math.pi * 2.8**3  # mL


def _parameters(side, head=None, **changes):
    maps = perfusion_maps(side, head) | changes
    head = np.eye(4) if head is None else head
    midline = np.append(head[:3, 0], head[:3, 0] @ head[:3, 3])
    return perfusion.parameters(maps["cbf"], maps["cbv"], maps["tmax"], PERF[1], midline)


@pytest.mark.parametrize("side", ["left", "right"])
def test_known_volumes_on_either_side(side):
    found = _parameters(side, pose(dx=5, yaw=4, roll=2))
    assert found["tmax_side"] == side
    assert found["core_ml"] == pytest.approx(BALL_14, rel=0.1)
    assert found["tmax6_ml"] == found["tmax4_ml"] == pytest.approx(BALL_28, rel=0.1)
    assert found["tmax10_ml"] == pytest.approx(BALL_14, rel=0.1)
    assert found["mismatch_ratio"] == pytest.approx(8, rel=0.1)
    assert found["hir"] == pytest.approx(1 / 8, rel=0.1)
    assert found["cbv_index"] == pytest.approx((0.8 / 8 + 3.6 * 7 / 8) / 3.0, rel=0.03)


def test_ratios_that_do_not_apply_are_missing():
    maps = perfusion_maps("left")
    normal = np.where(maps["cbf"] > 0, 1.5, 0).astype(np.float32)
    found = _parameters("left", tmax=normal, cbf=np.where(maps["cbf"] > 0, 50, 0))
    assert found["core_ml"] == found["tmax6_ml"] == 0
    assert found["tmax_side"] == "none"
    assert all(math.isnan(found[name]) for name in ("mismatch_ratio", "hir", "cbv_index"))


def test_an_island_below_one_ml_is_not_counted():
    tmax = perfusion_maps("left")["tmax"]
    before = _parameters("left")["tmax6_ml"]
    tmax[35:37, 27, 10] = 9.0  # two voxels of 0.08 mL on the right
    assert _parameters("left", tmax=tmax)["tmax6_ml"] == before
    tmax[33:37, 25:29, 9:12] = 9.0  # 3.8 mL
    assert _parameters("left", tmax=tmax)["tmax6_ml"] == pytest.approx(before + 3.84, abs=0.1)


def test_core_needs_late_flow_and_the_affected_side():
    maps = perfusion_maps("left")
    maps["cbf"][22:24, 27:30, 10:12] = 3.0  # a ventricle: no flow, no delay
    maps["cbf"][33, 27, 10] = 3.0
    maps["tmax"][33, 27, 10] = 5.0
    assert _parameters("left", **maps)["core_ml"] == _parameters("left")["core_ml"]


def test_sides_follow_the_plane_not_the_voxel_order():
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    right = perfusion.right_of((4, 3, 2), affine, np.array([1.0, 0, 0, -3.0]))
    np.testing.assert_array_equal(right[:, 0, 0], [True, True, False, False])


def test_empty_maps_have_an_empty_brain():
    assert not perfusion.brain_mask(np.zeros((3, 3, 3)), np.zeros((3, 3, 3))).any()
