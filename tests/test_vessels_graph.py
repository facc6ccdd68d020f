import json

import numpy as np
import pandas as pd
import pytest
from phantoms import NCCT, fine_cta_hu, head_hu
from scipy.spatial import cKDTree

from rlvo_lib import vessels
from rlvo_lib.head import head_frame

SPACING = 0.6


def tube(path, radius, shape=(60, 60, 90), spacing=SPACING):
    """Mask of a tube through `path` (n, 3) mm of `radius` (n,) mm, and its affine."""
    affine = np.diag([spacing] * 3 + [1.0])
    grid = np.stack(np.meshgrid(*[np.arange(n) * spacing for n in shape], indexing="ij"), axis=-1)
    away, nearest = cKDTree(path).query(grid.reshape(-1, 3))
    mask = (away < np.broadcast_to(radius, len(path))[nearest]).reshape(shape)
    return mask, affine


def line(n=200, x=18.13, y=18.22, z=(6, 48)):
    return np.column_stack([np.full(n, x), np.full(n, y), np.linspace(*z, n)])


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.4])
def test_the_calibre_of_a_tube_is_its_own(radius):
    points = vessels.graph(*tube(line(), radius)).points
    middle = points[(points.z > 12) & (points.z < 42)]
    assert middle.radius_mm.mean() == pytest.approx(radius, abs=0.12)
    assert np.abs(middle.x - 18.13).max() < 0.7


@pytest.mark.parametrize("x", [18.0, 18.3, 18.13])
def test_a_straight_tube_is_never_lost(x):
    graph = vessels.graph(*tube(line(x=x, y=18.3), 1.5))
    assert graph.segments.length_mm.sum() == pytest.approx(41, abs=3)


def test_the_tortuosity_of_a_half_circle_is_known():
    angle = np.linspace(0, np.pi, 200)
    path = np.column_stack([np.full(200, 18), 18 + 12 * np.cos(angle), 20 + 12 * np.sin(angle)])
    segments = vessels.graph(*tube(path, 1.5)).segments
    assert len(segments) == 1
    assert segments.tortuosity[0] == pytest.approx(np.pi / 2 - 1, abs=0.08)


def test_a_narrowing_is_graded_where_it_is():
    path = line()
    radius = 2.2 * (1 - 0.6 * np.exp(-(((path[:, 2] - 27) / 2.5) ** 2)))
    found = vessels.graph(*tube(path, radius)).stenoses
    assert len(found) == 1
    assert found.degree[0] == pytest.approx(0.6, abs=0.1) and found.z[0] == pytest.approx(
        27, abs=1.2
    )


def test_a_taper_is_no_narrowing():
    assert vessels.graph(*tube(line(), np.linspace(2.5, 1.0, 200))).stenoses.empty


def test_a_fork_has_three_segments():
    a, b = np.array([18.0, 18, 6]), np.array([18.0, 18, 25])
    ends = [np.array([8.0, 18, 45]), np.array([28.0, 18, 45])]
    path = np.concatenate([np.linspace(p, q, 80) for p, q in [(a, b), (b, ends[0]), (b, ends[1])]])
    graph = vessels.graph(*tube(path, 1.5))
    assert len(graph.segments) == 3 and graph.measures["vessel_components"] == 1


@pytest.mark.parametrize("case", ["empty", "voxel", "box", "noise", "two slices"])
def test_any_mask_has_a_graph(case):
    mask = np.zeros((40, 40, 40), bool)
    if case == "voxel":
        mask[20, 20, 20] = True
    elif case == "box":
        mask[:] = True
    elif case == "noise":
        mask = np.random.default_rng(0).random(mask.shape) < 0.3
    elif case == "two slices":
        mask = np.zeros((20, 20, 2), bool)
        mask[5:15, 9:11] = True
    graph = vessels.graph(mask, np.diag([0.7, 0.7, 0.7, 1]))
    summary = graph.summary()
    json.dumps(summary, allow_nan=False)
    assert summary["vessel_volume_ml"] == pytest.approx(mask.sum() * 0.343e-3, abs=1e-3)
    assert summary["occlusion_side"] == "none"


def test_a_mask_that_is_no_tree_is_said_so():
    graph = vessels.graph(np.ones((60, 60, 60), bool), np.eye(4))
    assert "not a vessel tree" in graph.notes[0] and graph.points.empty


def test_sides_and_asymmetry_follow_the_midline():
    mask, affine = tube(line(x=8.0), 1.5)
    other, _ = tube(line(x=28.0, z=(6, 27)), 1.5)
    affine[0, 3] = -18
    graph = vessels.graph(mask | other, affine)
    assert graph.measures["vessel_left_ml"] > 1.7 * graph.measures["vessel_right_ml"]
    assert 0.25 < graph.measures["vessel_asymmetry"] < 0.4
    assert set(graph.points[graph.points.x < -2].side) == {"left"}


def test_the_same_mask_gives_the_same_graph_in_any_stored_order():
    mask, affine = tube(line(), 1.5)
    turned = affine.copy()
    turned[:3, 3] += affine[:3, 0] * (mask.shape[0] - 1)
    turned[:3, 0] *= -1
    one, two = vessels.graph(mask, affine), vessels.graph(mask[::-1], turned)
    pd.testing.assert_frame_equal(one.points, vessels.graph(mask, affine).points)
    assert one.measures["vessel_length_mm"] == pytest.approx(
        two.measures["vessel_length_mm"], rel=0.05
    )


def test_an_occluded_middle_cerebral_artery_is_found_where_it_ends():
    hu, affine, _ = fine_cta_hu(dark=((22, -60, -120), (90, 60, -40)))
    frame = head_frame(head_hu(*NCCT), NCCT[1])
    graph = vessels.graph(vessels.segment(hu, affine, frame), affine, hu, frame)
    found = graph.occlusion
    assert found["side"] == "right" and found["segment"] == "M1" and found["score"] > 0.5
    assert np.linalg.norm([found["x"] - 22, found["y"] - 10, found["z"] + 93.5]) < 3
    assert graph.measures["vessel_left_ml"] > 1.5 * graph.measures["vessel_right_ml"]
    json.dumps(graph.summary(), allow_nan=False)


def test_a_whole_tree_has_no_occlusion_and_tubes_of_known_calibre():
    hu, affine, truth = fine_cta_hu()
    graph = vessels.graph(truth, affine, hu, head_frame(head_hu(*NCCT), NCCT[1]))
    assert graph.summary()["occlusion_side"] == "none" and graph.stenoses.empty
    m1 = graph.points[
        (graph.points.x.abs() > 15) & (graph.points.x.abs() < 28) & (graph.points.z < -85)
    ]
    assert m1.radius_mm.median() == pytest.approx(1.5, abs=0.2)


def box_on(side, corners):
    """A box given for the right side, mirrored for the left."""
    (x0, *low), (x1, *high) = corners
    return corners if side == "right" else ((-x1, *low), (-x0, *high))


BEYOND = ((22, -60, -120), (90, 60, -40))  # M1 and all it feeds
CLOT = ((20, -60, -98), (29, 60, -86))  # its middle; the branches fill
ORIGIN = ((12.5, -60, -98), (90, 60, -40))  # all from where it leaves the carotid: no stump
CAROTID_END = ((5, -60, -98.5), (30, 60, -85))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("dark", "start", "segment"),
    [
        (BEYOND, (22, 9.8, -93.6), "M1"),
        (CLOT, (20, 10.2, -93.8), "M1"),
        (ORIGIN, (12.5, 11.5, -94.7), "M1"),
        (CAROTID_END, (10, 11.5, -98.5), "ICA"),
    ],
)
def test_an_occlusion_is_found_on_its_side_where_it_begins(side, dark, start, segment):
    hu, affine, mask = fine_cta_hu(dark=box_on(side, dark))
    found = vessels.graph(mask, affine, hu, head_frame(head_hu(*NCCT), NCCT[1])).occlusion
    assert found["side"] == side and found["segment"] == segment and found["score"] > 0.5
    place = np.array([found[axis] for axis in "xyz"])
    assert np.linalg.norm(place - np.array(start) * [1 if side == "right" else -1, 1, 1]) < 3


def test_an_occlusion_does_not_depend_on_how_the_scan_is_stored():
    hu, affine, mask = fine_cta_hu(dark=CLOT)
    frame = head_frame(head_hu(*NCCT), NCCT[1])
    las = affine @ np.diag([-1.0, 1, 1, 1])
    las[:3, 3] += affine[:3, 0] * (hu.shape[0] - 1)
    one = vessels.graph(mask, affine, hu, frame).occlusion
    two = vessels.graph(mask[::-1], las, hu[::-1], frame).occlusion
    assert one["side"] == two["side"] == "right"
    assert np.linalg.norm([one[axis] - two[axis] for axis in "xyz"]) < 1.5


def test_a_carotid_that_is_missing_is_an_occlusion_below():
    hu, affine, mask = fine_cta_hu(dark=((-20, -60, -120), (-5, 60, -97)))
    found = vessels.graph(mask, affine, hu, head_frame(head_hu(*NCCT), NCCT[1])).occlusion
    assert found["side"] == "left" and found["segment"] == "ICA"
    assert np.linalg.norm([found["x"] + 10, found["y"] - 10, found["z"] + 106]) < 4


def test_without_a_frame_that_of_the_cta_is_taken_and_without_both_there_is_no_candidate():
    hu, affine, mask = fine_cta_hu(dark=CLOT)
    own = vessels.graph(mask, affine, hu, head_frame(hu, affine, "cta")).occlusion
    assert vessels.graph(mask, affine, hu).occlusion == own
    assert vessels.graph(mask, affine).occlusion == {}


def test_a_narrowing_without_a_centre_line_is_no_occlusion_if_the_artery_goes_on_as_brightly():
    hu, affine, mask = fine_cta_hu()
    x = np.arange(hu.shape[0]) * affine[0, 0] + affine[0, 3]
    gap = (x > 18) & (x < 26)
    mask[gap] = False
    frame = head_frame(head_hu(*NCCT), NCCT[1])
    assert vessels.graph(mask, affine, hu, frame).occlusion == {}
    hu[gap] = np.minimum(hu[gap], 60)
    assert vessels.graph(mask, affine, hu, frame).occlusion["side"] == "right"


def test_one_branch_that_is_missing_is_no_occlusion_of_its_trunk():
    hu, affine, mask = fine_cta_hu(dark=((34, -60, -87), (90, 2, -40)))
    frame = head_frame(head_hu(*NCCT), NCCT[1])
    assert vessels.graph(mask, affine, hu, frame).occlusion == {}


def test_a_mask_of_noise_has_no_trouble_with_occlusions():
    hu, affine, _ = fine_cta_hu()
    mask = np.random.default_rng(0).random(hu.shape) < 0.05
    graph = vessels.graph(mask, affine, np.full_like(hu, 300), head_frame(head_hu(*NCCT), NCCT[1]))
    json.dumps(graph.summary(), allow_nan=False)
