import io

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rlvo_lib import figures
from rlvo_lib.config import InputError
from rlvo_lib.figures.overlay import FLAT

RIGHT_FRONT_TOP = np.array([30.0, 21.0, 9.0])  # world mm


def draw(figure):
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def turned(yaw, roll):
    """Voxels of 3 mm whose axes are turned about the middle of a 31 × 41 × 31 grid."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("ZY", [yaw, roll], degrees=True).as_matrix() * 3.0
    affine[:3, 3] = -affine[:3, :3] @ [15, 20, 15]
    return affine


def stored(flips, order=(0, 1, 2)):
    """Voxels of 3 mm along the world's axes, some reversed, in another order; their shape."""
    shape = np.array([31, 41, 31])
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for voxel_axis, world_axis in enumerate(order):
        sign = -1 if world_axis in flips else 1
        affine[world_axis, voxel_axis] = 3.0 * sign
        affine[world_axis, 3] = -sign * 3.0 * (shape[world_axis] - 1) / 2
    return affine, tuple(shape[list(order)])


def with_voxel(affine, shape, world, value=2.0):
    volume = np.zeros(shape)
    index = np.rint((np.linalg.inv(affine) @ [*world, 1])[:3]).astype(int)
    volume[tuple(index)] = value
    return volume


def bright(axis):
    """World mm (across, up) of the middle of what a panel draws over the scan."""
    image = axis.images[1]
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape
    at = np.argwhere(~np.ma.getmaskarray(image.get_array())).mean(axis=0)
    return left + (at[1] + 0.5) * (right - left) / columns, bottom + (at[0] + 0.5) * (
        top - bottom
    ) / rows


@pytest.mark.parametrize(
    ("affine", "shape"),
    [
        stored(()),
        stored((0,)),
        stored((0, 1)),
        stored((1, 2), (2, 0, 1)),
        (turned(0, 0), (31, 41, 31)),
    ],
    ids=["RAS", "LAS", "LPS", "permuted", "centred"],
)
def test_a_map_is_shown_on_its_own_side_however_voxels_are_stored(affine, shape):
    figure = draw(
        figures.overlay(np.zeros(shape), with_voxel(affine, shape, RIGHT_FRONT_TOP), affine)
    )
    axial, coronal, projection = figure.axes[:3]
    assert bright(axial) == pytest.approx((30, 21)) == bright(projection)
    assert bright(coronal) == pytest.approx((30, 9))
    for axis in (axial, coronal, projection):
        x = axis.transAxes.inverted().transform(axis.transData.transform(bright(axis)))
        assert x[0] < 0.3 and x[1] > 0.5, "right of the patient on the left, front or top above"
        letters = {t.get_text(): axis.transData.transform(t.get_position())[0] for t in axis.texts}
        assert letters["R"] < letters["L"]
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["axial, z = 9 mm", "coronal, y = 21 mm", "axial projection"]
    bars = [axis.get_ylabel() for axis in figure.axes[3:]]
    assert bars == ["Scan (HU)", "Map (log-odds)"]


def test_an_oblique_volume_is_brought_to_the_world_s_axes_first():
    affine, shape = turned(20, 10), (31, 41, 31)
    figure = draw(
        figures.overlay(np.zeros(shape), with_voxel(affine, shape, RIGHT_FRONT_TOP), affine)
    )
    nearest = np.linalg.inv(affine) @ [*RIGHT_FRONT_TOP, 1]
    world = (affine @ [*np.rint(nearest[:3]), 1])[:3]
    assert bright(figure.axes[0]) == pytest.approx(world[:2], abs=1.6)  # half a voxel
    assert bright(figure.axes[1]) == pytest.approx(world[[0, 2]], abs=1.6)


def test_a_sagittal_slice_has_the_front_on_the_left():
    affine, shape = stored((0,))
    map_ = with_voxel(affine, shape, RIGHT_FRONT_TOP)
    figure = draw(figures.overlay(map_ * 0, map_, affine, planes=["sagittal"], mip=False))
    axis = figure.axes[0]
    assert bright(axis) == pytest.approx((21, 9))
    letters = {t.get_text(): axis.transData.transform(t.get_position())[0] for t in axis.texts}
    assert letters["A"] < letters["P"]


def test_a_signed_map_has_colours_around_zero_and_weak_voxels_are_left_out():
    map_ = np.zeros((4, 4, 4))
    map_[1, 1, 1], map_[2, 2, 1], map_[3, 3, 1] = 1.0, -2.0, 0.01
    figure = figures.overlay(map_ * 0, map_, np.eye(4), planes=["axial"])
    for axis in figure.axes[:2]:
        assert axis.images[1].get_clim() == (-2, 2)
        assert axis.images[1].get_array().count() == 2
    strict = figures.overlay(map_ * 0, np.abs(map_), np.eye(4), planes=["axial"], limit=4.0)
    assert strict.axes[0].images[1].get_clim() == (0, 4)


def test_the_projection_keeps_the_value_largest_in_size():
    map_ = np.zeros((3, 3, 3))
    map_[1, 1] = [0.5, -2.0, 1.0]
    figure = figures.overlay(map_ * 0, map_, np.eye(4), planes=["axial"])
    assert figure.axes[1].images[1].get_array().compressed().tolist() == [-2.0]


def test_the_projection_shows_vessels_or_the_mean_of_the_scan():
    scan, vessels = np.full((3, 3, 4), 1000.0), np.zeros((3, 3, 4))
    scan[:, :, 1:], vessels[1, 1, 2] = 20.0, 1.0
    figure = figures.overlay(scan, scan, np.eye(4), planes=["axial"])
    assert (figure.axes[1].images[0].get_array() == 35.0).all()  # (80 + 3 × 20) / 4
    figure = figures.overlay(scan, scan, np.eye(4), planes=["axial"], vessels=vessels)
    beneath = figure.axes[1].images[0].get_array()
    assert beneath[1, 1] == 80.0 and beneath.sum() == 80.0


def test_a_flat_map_is_said_and_not_drawn():
    figure = draw(figures.overlay(np.ones((4, 4, 4)), np.zeros((4, 4, 4)), np.eye(4)))
    assert all(len(axis.images) == 1 for axis in figure.axes[:3])
    assert FLAT in [text.get_text() for text in figure.axes[0].texts]
    assert "Map (log-odds)" not in [axis.get_ylabel() for axis in figure.axes]


def test_outlines_are_named_where_a_slice_cuts_them():
    map_, mask = np.zeros((9, 9, 9)), np.zeros((9, 9, 9), bool)
    map_[4, 4, 4], mask[3:6, 3:6, 3:6] = 1.0, True
    figure = draw(figures.overlay(map_ * 0, map_, np.eye(4), outlines={"core": mask}))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["core"]
    path = figure.axes[0].collections[0].get_paths()[0].get_extents()
    assert (path.x0, path.x1) == pytest.approx((2.5, 5.5))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"map_": np.zeros((4, 4))}, r"scan of shape \(4, 4, 4\), map of \(4, 4\)"),
        ({"map_": np.full((4, 4, 4), np.nan)}, "NaN or infinite"),
        (
            {"planes": ["oblique"]},
            "plane 'oblique' is not known; allowed: axial, coronal, sagittal",
        ),
        ({"at_mm": (0, 0, 9)}, r"at_mm \[0.0, 0.0, 9.0\] lies outside the scan"),
        ({"outlines": {"core": np.zeros((3, 3, 3))}}, "core of"),
    ],
)
def test_what_cannot_be_shown(arguments, words):
    given = {
        "scan": np.zeros((4, 4, 4)),
        "map_": np.ones((4, 4, 4)),
        "affine": np.eye(4),
    } | arguments
    with pytest.raises(InputError, match=words):
        figures.overlay(**given)


def test_groups_share_slices_and_colours():
    strong, weak = np.zeros((5, 5, 5)), np.zeros((5, 5, 5))
    strong[1, 2, 3], weak[1, 2, 3] = 4.0, -1.0
    figure = draw(
        figures.group_maps(
            {"TP": strong, "FN": weak, "TN": weak * 0}, np.eye(4), counts={"TP": 3, "FN": 0}
        )
    )
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["TP\nn = 3", "FN\nn = 0", "TN"]
    assert figure.axes[0].images[1].get_clim() == (-4, 4) == figure.axes[1].images[1].get_clim()
    assert len(figure.axes[2].images) == 1, "a flat mean is not drawn"
    assert {t.get_text() for t in figure.axes[0].texts} == {"A", "O"}
    with pytest.raises(InputError, match="no group"):
        figures.group_maps({}, np.eye(4))


def test_groups_that_are_all_flat_say_so():
    figure = draw(figures.group_maps({"TP": np.zeros((4, 4, 4))}, np.eye(4)))
    assert FLAT in [text.get_text() for text in figure.axes[0].texts]
