"""The simulated head: grids and poses agree, folding follows age, fields survive resampling."""

import numpy as np
import pytest

from rlvo_lib.simulate import anatomy
from rlvo_lib.simulate.anatomy import Grid, Pose, build_head, resample

STILL = Pose(np.eye(3), np.ones(3), np.zeros(3))


def coordinates(grid):
    index = np.stack(np.indices(grid.shape), axis=-1)
    return np.einsum("ij,...j->...i", grid.affine[:3, :3], index) + grid.affine[:3, 3]


def test_affine_gives_the_axes_of_an_upright_grid():
    grid = Grid((4, 5, 6), (2.0, 3.0, 5.0), (-1.0, 2.0, 7.0))
    np.testing.assert_allclose(coordinates(grid)[3, 4, 5], [5.0, 14.0, 32.0])
    assert grid.voxel_ml == pytest.approx(0.030)


def test_tilted_grid_turns_about_the_left_right_axis_and_keeps_distances():
    grid = Grid((4, 5, 6), (2.0, 3.0, 5.0), (-1.0, 2.0, 7.0), tilt_deg=-10.0)
    np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), grid.spacing)
    assert np.linalg.det(grid.affine) > 0
    np.testing.assert_allclose(grid.affine[0], [2.0, 0, 0, -1.0])
    assert grid.affine[2, 2] == pytest.approx(5 * np.cos(np.deg2rad(10)))


def test_part_is_a_box_of_its_grid():
    grid = Grid((3, 4, 10), (2.0, 3.0, 5.0), (-1.0, 2.0, 7.0), tilt_deg=6.0)
    box = (slice(1, 3), slice(0, 4), slice(3, 7))
    np.testing.assert_allclose(coordinates(grid.part(box)), coordinates(grid)[box])


def test_box_holds_every_voxel_within_its_corners():
    grid = Grid((20, 24, 30), (2.0, 3.0, 5.0), (-20.0, -30.0, -70.0), tilt_deg=-9.0)
    corners = ((-7.0, 9.0), (-12.0, 15.0), (-31.0, 22.0))
    box = anatomy.box_of(corners, grid.affine, grid.shape)
    world = coordinates(grid)
    inside = np.all(
        [(world[..., k] >= a) & (world[..., k] <= b) for k, (a, b) in enumerate(corners)], 0
    )
    assert inside.any() and not inside[box].all()
    inside[box] = False
    assert not inside.any()
    assert anatomy.box_of(((900, 901), (0, 1), (0, 1)), grid.affine, grid.shape) is None


def test_filled_box_is_covered_edge_to_edge():
    grid = anatomy.filling(np.array([100.0, 60.0, 30.0]), (2.0, 2.0, 5.0), (-50.0, 0.0, 10.0))
    assert grid.shape == (50, 30, 6)
    assert grid.origin == (-49.0, 1.0, 12.5)


@pytest.mark.parametrize("tilt", [0.0, -9.0])
def test_resampling_keeps_a_linear_field(tilt):
    source = Grid((20, 22, 19), (4.0, 3.0, 5.0), (-40.0, -33.0, -45.0))
    target = Grid((7, 9, 8), (2.0, 2.0, 2.0), (-10.0, -8.0, -6.0), tilt)
    x, y, z = np.moveaxis(coordinates(source), -1, 0)
    found = resample((x + 2 * y - z).astype(np.float32)[None], source.affine, target)[0]
    x, y, z = np.moveaxis(coordinates(target), -1, 0)
    np.testing.assert_allclose(found, x + 2 * y - z, atol=1e-3)


def test_beyond_the_source_its_edge_or_nothing():
    source = Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    target = Grid((2, 2, 2), (1.0, 1.0, 1.0), (50.0, 50.0, 50.0))
    ones = np.ones((1, 4, 4, 4), np.float32)
    assert (resample(ones, source.affine, target) == 1).all()
    assert (resample(ones, source.affine, target, beyond="zeros") == 0).all()


def test_pose_and_its_affine_agree():
    pose = Pose.draw(np.random.default_rng(1), male=True)
    points = np.array([[10.0, 20.0, -5.0]])
    np.testing.assert_allclose(pose.to_world(points)[0], (pose.affine @ [10, 20, -5, 1])[:3])


def test_head_x_is_the_distance_from_the_midline():
    pose = Pose.draw(np.random.default_rng(2), male=False)
    grid = Grid((5, 6, 7), (4.0, 4.0, 5.0), (-10.0, 3.0, 8.0), tilt_deg=-8.0)
    head = np.einsum(
        "ij,...j->...i", np.linalg.inv(pose.affine)[:3, :3], coordinates(grid) - pose.shift
    )
    np.testing.assert_allclose(anatomy.head_x(pose, grid), head[..., 0], atol=1e-4)


def test_head_moves_with_its_pose():
    """A head that is moved by whole voxels shows the same anatomy, moved."""
    grid = Grid((20, 20, 20), (2.5, 2.5, 2.5), (-25.0, -25.0, -25.0))
    moved = Pose(np.eye(3), np.ones(3), np.array([5.0, -2.5, 0.0]))
    patient = {"age": 70}
    a, b = (
        build_head(patient, pose, 2.5, np.random.default_rng(3)).on(grid, ("tissue", "ventricle"))
        for pose in (STILL, moved)
    )
    for name in a:
        np.testing.assert_allclose(b[name][2:, :-1], a[name][:-2, 1:], atol=1e-3)


def test_atrophy_grows_with_age():
    share = [
        build_head({"age": age}, STILL, 2.5, np.random.default_rng(4)).fields["csf"].mean()
        for age in (40, 65, 90)
    ]
    assert share[0] < share[1] < share[2]


def test_atlas_is_symmetric_and_finer_steps_show_the_same():
    coarse, fine = anatomy.atlas(2.5), anatomy.atlas(1.25)
    for name in ("depth", "ventricle", "mca", "base"):
        np.testing.assert_allclose(fine[name], fine[name][::-1], atol=1e-4)
    for name in ("ventricle", "mca", "core"):  # no gradient or blur in them: the same formula
        np.testing.assert_allclose(coarse[name], fine[name][::2, ::2, ::2], atol=1e-4)


def test_smooth_noise_has_unit_variance_and_the_asked_length():
    grid = Grid((60, 60, 60), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    for sd in (4.0, 12.0):
        field = anatomy.smooth_noise(grid, sd, np.random.default_rng(5))
        assert field.std() == pytest.approx(1.0, abs=0.25)
        lag = round(sd * np.sqrt(2) / 2.0)  # autocorrelation exp(-d^2 / 4 sd^2): 0.61 there
        a, b = field[lag:].ravel(), field[:-lag].ravel()
        assert np.corrcoef(a, b)[0, 1] == pytest.approx(np.exp(-0.5), abs=0.15)


def test_rolled_noise_has_unit_variance_and_differs_from_patient_to_patient():
    grid = Grid((40, 40, 40), (2.5, 2.5, 2.5), (0.0, 0.0, 0.0))
    first, second = (anatomy.rolled_noise(grid, 4.2, np.random.default_rng(k)) for k in (1, 2))
    assert first.std() == pytest.approx(1.0, abs=0.05)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.15
