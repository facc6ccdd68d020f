import json
import math

import numpy as np
import pytest
from phantoms import PERF, perfusion_maps, pose

from rlvo_lib import perfusion
from rlvo_lib.config import InputError, load_study

BALL_14, BALL_28 = 4 / 3 * math.pi * 1.4**3, 4 / 3 * math.pi * 2.8**3  # mL
VOXEL_ML = 0.08
RATIOS = ("mismatch_ratio_tmax6_rcbf30", "hir_tmax10_tmax6", "cbv_index_tmax6")


def _midline(head=None):
    head = np.eye(4) if head is None else head
    return np.append(head[:3, 0], head[:3, 0] @ head[:3, 3])


def _measured(side, head=None, given=None, brain=None, **changes):
    maps = perfusion_maps(side, head) | changes
    return perfusion.measure(
        maps["cbf"], maps["cbv"], maps["tmax"], PERF[1], _midline(head), given, brain
    )


def _box(array, x, y, z, value):
    """Set the box [x, x + 4 voxels) and so on: 64 voxels, 5.12 mL."""
    array[x : x + 4, y : y + 4, z : z + 4] = value


# ----------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("side", ["left", "right"])
def test_known_volumes_on_either_side(side):
    found = _measured(side, pose(dx=5, yaw=4, roll=2))
    assert found.tmax_side == found.side == side and found.flags == ()
    v = found.values
    assert v["core_rcbf30_ml"] == pytest.approx(BALL_14, rel=0.1)
    assert v["tmax6_ml"] == v["tmax4_ml"] == pytest.approx(BALL_28, rel=0.1)
    assert v["tmax10_ml"] == v["tmax8_ml"] == pytest.approx(BALL_14, rel=0.1)
    assert v["mismatch_tmax6_rcbf30_ml"] == v["tmax6_ml"] - v["core_rcbf30_ml"]
    assert v["mismatch_ratio_tmax6_rcbf30"] == pytest.approx(8, rel=0.1)
    assert v["hir_tmax10_tmax6"] == pytest.approx(1 / 8, rel=0.1)
    assert v["cbv_index_tmax6"] == pytest.approx((0.8 / 8 + 3.6 * 7 / 8) / 3.0, rel=0.03)
    assert v["artefact_islands_ml"] == 0 and found.reasons == {}


def test_each_name_has_a_value_or_a_reason_and_the_record_is_json():
    maps = perfusion_maps("left")
    normal = np.where(maps["cbf"] > 0, 1.5, 0).astype(np.float32)
    found = _measured("left", tmax=normal, cbf=np.where(maps["cbf"] > 0, 50, 0))
    assert found.side == found.tmax_side == "none"
    assert {*found.values} | {*found.reasons} == {*perfusion.NAMES}
    assert not {*found.values} & {*found.reasons}
    assert all(value == 0 for value in found.values.values())
    assert found.reasons == {
        "mismatch_ratio_tmax6_rcbf30": "no core: nothing to divide by",
        "hir_tmax10_tmax6": "no tissue with Tmax > 6 s",
        "cbv_index_tmax6": "no tissue with Tmax > 6 s",
    }
    assert json.loads(json.dumps(found.record()))["reasons"] == found.reasons


def test_a_deficit_without_core_has_no_mismatch_ratio_but_the_others():
    maps = perfusion_maps("left")
    found = _measured("left", cbf=np.maximum(maps["cbf"], np.where(maps["cbf"] > 0, 25, 0)))
    assert found.values["core_rcbf30_ml"] == 0
    assert found.values["mismatch_tmax6_rcbf30_ml"] == found.values["tmax6_ml"] > 80
    assert list(found.reasons) == ["mismatch_ratio_tmax6_rcbf30"]


def test_maps_of_one_hemisphere_cannot_be_normalised():
    maps = perfusion_maps("left")
    right = perfusion.right_of(PERF[0], PERF[1], np.array([1.0, 0, 0, -4.0]))
    found = _measured("left", **{name: np.where(right, 0, m) for name, m in maps.items()})
    assert found.values["tmax6_ml"] == pytest.approx(BALL_28, rel=0.1)
    for name in ("core_rcbf30_ml", "mismatch_tmax6_rcbf30_ml", *RATIOS[::2]):
        assert "no healthy hemisphere" in found.reasons[name] and name not in found.values
    assert "hir_tmax10_tmax6" in found.values


def test_scaling_flow_or_volume_changes_nothing_that_is_relative():
    maps = perfusion_maps("right")
    one = _measured("right")
    two = _measured("right", cbf=2.5 * maps["cbf"], cbv=0.4 * maps["cbv"])
    assert two.values == pytest.approx(one.values)


def test_a_mirrored_patient_has_the_mirrored_side_and_the_same_numbers():
    maps = perfusion_maps("left", pose(dx=6))
    affine, midline = PERF[1].copy(), _midline(pose(dx=6))
    flip = np.diag([-1.0, 1, 1, 1])
    one = perfusion.measure(*(maps[n] for n in ("cbf", "cbv", "tmax")), affine, midline)
    two = perfusion.measure(
        *(maps[n] for n in ("cbf", "cbv", "tmax")), flip @ affine, midline * [1, 1, 1, -1]
    )
    assert (one.side, two.side) == ("left", "right")
    assert two.values == one.values


def test_volumes_are_nested_and_the_core_within_the_deficit():
    rng = np.random.default_rng(3)
    maps = perfusion_maps("left")
    brain = maps["cbf"] > 0
    tmax = np.where(brain, maps["tmax"] + rng.normal(0, 2.5, brain.shape), 0)
    cbf = np.where(brain, maps["cbf"] + rng.normal(0, 8, brain.shape), 0)
    found = perfusion.regions(cbf, maps["cbv"], tmax, PERF[1], _midline())
    for outer, inner in ((4, 6), (6, 8), (8, 10)):
        assert (found.late[outer] | ~found.late[inner]).all()
        assert found.late[outer].sum() > found.late[inner].sum()
    assert found.core.any() and (found.late[6] | ~found.core).all()


# ------------------------------------------------------------------------------------ left out


def test_an_island_below_one_ml_changes_nothing():
    tmax = perfusion_maps("left")["tmax"]
    before = _measured("left").values
    tmax[18:20, 12:15, 10:12] = 9.0  # 12 voxels on the left, 0.96 mL
    after = _measured("left", tmax=tmax).values
    assert after.pop("artefact_islands_ml") == pytest.approx(12 * VOXEL_ML)
    assert after == {n: v for n, v in before.items() if n != "artefact_islands_ml"}
    tmax[20, 12, 10] = 9.0  # 1.04 mL: counted
    counted = _measured("left", tmax=tmax).values
    assert counted["tmax6_ml"] == pytest.approx(before["tmax6_ml"] + 13 * VOXEL_ML)
    assert counted["artefact_islands_ml"] == 0


def test_late_flow_of_the_other_hemisphere_is_an_artefact():
    tmax = perfusion_maps("left")["tmax"]
    before = _measured("left").values
    _box(tmax, 32, 25, 9, 9.0)
    after = _measured("left", tmax=tmax)
    assert after.values["tmax6_ml"] == before["tmax6_ml"] and after.side == "left"
    assert after.values["artefact_islands_ml"] == pytest.approx(64 * VOXEL_ML)
    assert after.flags == ()


def test_as_much_on_the_other_side_is_flagged_and_the_given_side_counts():
    left, right = perfusion_maps("left"), perfusion_maps("right")
    right["tmax"][:, :25][right["tmax"][:, :25] > 6] = 2.0  # what remains is smaller
    tmax = np.maximum(left["tmax"], right["tmax"])
    found = _measured("left", tmax=tmax)
    assert found.side == "left" and "late flow on both sides" in found.flags[0]
    other = _measured("left", tmax=tmax, given="right")
    assert (other.side, other.tmax_side) == ("right", "left")
    assert 0 < other.values["tmax6_ml"] < found.values["tmax6_ml"]


def test_late_flow_on_the_other_side_alone_is_not_called_late_on_both():
    found = _measured("left", given="right")
    assert found.values["tmax6_ml"] == 0
    (flag,) = found.flags
    assert flag.startswith("late flow on the left only, ") and "not counted" in flag


def test_an_island_that_is_late_on_both_sides_is_left_out():
    tmax = perfusion_maps("left")["tmax"]
    before = _measured("left").values["tmax6_ml"]
    _box(tmax, 14, 12, 8, 9.0)  # x -32 to -20 mm
    assert _measured("left", tmax=tmax).values["tmax6_ml"] > before + 5
    _box(tmax, 27, 12, 8, 9.0)  # its mirror image, 20 to 32 mm
    found = _measured("left", tmax=tmax)
    assert found.values["tmax6_ml"] == before
    assert found.values["artefact_islands_ml"] == pytest.approx(128 * VOXEL_ML)


def test_ventricles_beside_the_lesion_are_no_core_and_no_deficit():
    maps, before = perfusion_maps("left"), _measured("left").values
    for x in (19, 22):  # x -12 and 0 mm: one in each hemisphere, the left one touches the lesion
        for name, value in (("cbf", 2.0), ("cbv", 0.2), ("tmax", 14.0)):
            maps[name][x : x + 3, 25:30, 8:11] = value
    found = _measured("left", **maps).values
    assert found["core_rcbf30_ml"] == pytest.approx(before["core_rcbf30_ml"], abs=2.0)
    assert found["tmax6_ml"] == pytest.approx(before["tmax6_ml"], abs=4.0)
    assert found["artefact_islands_ml"] > 2


def test_low_flow_without_delay_is_no_core():
    maps = perfusion_maps("left")
    _box(maps["cbf"], 14, 10, 8, 3.0)  # an old scar
    _box(maps["tmax"], 14, 10, 8, 5.0)
    assert (
        _measured("left", **maps).values["core_rcbf30_ml"]
        == _measured("left").values["core_rcbf30_ml"]
    )


def test_low_flow_beside_the_deficit_belongs_to_it_from_four_seconds_on():
    maps, before = perfusion_maps("left"), _measured("left").values
    core = maps["cbf"] == 6
    edge = core & ~np.roll(core, 1, axis=0)  # one layer of the core: its neighbours stay late
    maps["tmax"][edge] = 5.0
    found = _measured("left", **maps).values
    assert found["core_rcbf30_ml"] == before["core_rcbf30_ml"]
    assert found["tmax6_ml"] == before["tmax6_ml"]
    maps["tmax"][maps["tmax"] > 6] = 5.0  # no deficit at all
    none = _measured("left", **maps)
    assert none.values["core_rcbf30_ml"] == none.values["tmax6_ml"] == 0
    assert none.values["tmax4_ml"] == before["tmax4_ml"]


def test_noise_of_tmax_where_nothing_flows_does_not_matter():
    maps = perfusion_maps("left")
    core = maps["cbf"] == 6
    late = maps["tmax"].copy()
    late[core & (np.indices(core.shape).sum(axis=0) % 4 == 0)] = 1.0  # a quarter of its voxels
    found, clean = _measured("left", tmax=late).values, _measured("left").values
    assert found["core_rcbf30_ml"] == pytest.approx(clean["core_rcbf30_ml"], rel=0.02)
    assert found["tmax6_ml"] == clean["tmax6_ml"]


def test_a_given_brain_leaves_the_skull_out():
    maps = perfusion_maps("left")
    brain = maps["cbf"] > 0
    skull = np.zeros(PERF[0], bool)
    skull[8:20, 2:12, 4:14] = ~brain[8:20, 2:12, 4:14]  # beside the brain, on the left
    for name in maps:
        maps[name][skull] = 20.0
    whole = _measured("left", **maps).values["tmax6_ml"]
    assert _measured("left", brain=brain, **maps).values["tmax6_ml"] < whole - 20


def test_sides_follow_the_plane_not_the_voxel_order():
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    right = perfusion.right_of((4, 3, 2), affine, np.array([1.0, 0, 0, -3.0]))
    np.testing.assert_array_equal(right[:, 0, 0], [True, True, False, False])


def test_empty_maps_have_an_empty_brain():
    zeros = np.zeros((3, 3, 3))
    assert not perfusion.brain_mask(zeros, zeros).any()
    found = perfusion.measure(zeros, zeros, zeros, np.eye(4), np.array([1.0, 0, 0, 0]))
    assert found.values["tmax4_ml"] == 0 and "core_rcbf30_ml" in found.reasons


# ------------------------------------------------------------------------------ relative, grids


def test_relative_maps_have_a_healthy_mean_of_one():
    maps = perfusion_maps("left")
    found = perfusion.regions(maps["cbf"], maps["cbv"], maps["tmax"], PERF[1], _midline())
    rcbf = perfusion.relative(maps["cbf"], found.healthy)
    assert rcbf[found.healthy].mean() == pytest.approx(1) and rcbf.dtype == np.float32
    assert rcbf[maps["cbf"] == 6].max() == pytest.approx(0.12)
    with pytest.raises(InputError, match="healthy hemisphere's mean is 0 over 0 voxels"):
        perfusion.relative(maps["cbf"], np.zeros(PERF[0], bool))


def test_smoothing_keeps_a_flat_brain_flat_up_to_its_edge():
    brain = perfusion_maps("left")["cbf"] > 0
    flat = perfusion.smoothed(np.where(brain, 50.0, 0), brain, PERF[1], 8.0)
    np.testing.assert_allclose(flat[brain], 50, rtol=1e-5)
    assert not flat[~brain].any()
    spike = np.zeros(PERF[0])
    spike[20, 27, 10] = 1.0
    spread = perfusion.smoothed(spike, brain, PERF[1], 8.0)
    assert spread.max() < 0.3 and spread[:, :, 9].max() == 0  # within the slice


def test_a_map_on_another_grid_is_named():
    maps = {name: (m, PERF[1]) for name, m in perfusion_maps("left").items()}
    perfusion.check_same_grid(maps)
    moved = PERF[1].copy()
    moved[0, 3] += 2
    with pytest.raises(
        InputError, match=r"map tmax lies on another grid .* first at -86.0.* than cbf"
    ):
        perfusion.check_same_grid(maps | {"tmax": (maps["tmax"][0], moved)})
    with pytest.raises(InputError, match=r"map cbv .*45 x 55 x 10 voxels"):
        perfusion.check_same_grid(maps | {"cbv": (maps["cbv"][0][..., :10], PERF[1])})


# --------------------------------------------------------------------------------- check of maps


@pytest.fixture
def maps():
    """Maps with the spread of real ones: tissue differs from voxel to voxel."""
    rng = np.random.default_rng(1)
    made = perfusion_maps("left")
    return {n: (m * rng.lognormal(0, 0.25, m.shape)).astype(np.float32) for n, m in made.items()}


def _check(array, name):
    scan = load_study().scans[name]
    return perfusion.check_map(array, name, scan.low, scan.high, scan.unit, f"sub-1_{name}.nii.gz")


@pytest.mark.parametrize("name", ["cbf", "cbv", "mtt", "tmax"])
def test_maps_pass(maps, name):
    assert _check(maps[name], name) == ()
    assert _check(np.where(maps[name] > 0, maps[name], -1), name) == ()  # padding below 0


def test_whole_seconds_pass(maps):
    assert _check(np.rint(maps["tmax"]), "tmax") == ()
    assert _check(np.rint(maps["cbf"]), "cbf") == ()


@pytest.mark.parametrize(
    ("name", "factor", "said"),
    [
        ("tmax", 1000, r"looks like ms: multiply by 0\.001"),
        ("tmax", 10, r"looks like tenths of a second: multiply by 0\.1"),
        ("mtt", 1000, r"looks like ms: multiply by 0\.001"),
        ("mtt", 10, r"looks like tenths of a second: multiply by 0\.1"),
        ("cbf", 10, r"looks like 10 times the unit: multiply by 0\.1"),
        ("cbf", 0.01, r"mL/g/min: multiply by 100"),
        ("cbf", 1 / 60, r"mL/100 g/s: multiply by 60"),
        ("cbv", 0.01, r"mL/g, or a fraction: multiply by 100"),
        ("cbv", 100, r"looks like 100 times the unit: multiply by 0\.01"),
    ],
)
def test_another_unit_is_refused_with_what_mends_it(maps, name, factor, said):
    with pytest.raises(InputError, match=rf"sub-1_{name}.nii.gz: .*allowed: .*{said}"):
        _check(factor * maps[name], name)


def test_whole_numbers_of_a_lost_scale_are_named(maps):
    with pytest.raises(InputError, match="rescale slope of its DICOM files, may have been lost"):
        _check(np.rint(100 * maps["cbv"]), "cbv")


def test_padding_and_a_lost_intercept_are_named(maps):
    outside = maps["cbf"] == 0
    with pytest.raises(InputError, match=r"\d+ voxels of -1024 look like padding: set them to 0"):
        _check(np.where(outside, -1024, maps["cbf"]), "cbf")
    with pytest.raises(InputError, match="an offset: subtract 1024, and set what is below 0 to 0"):
        _check(np.where(outside, 0, np.rint(maps["cbf"]) + 1024), "cbf")


def test_another_map_is_refused(maps):
    with pytest.raises(InputError, match="median of the tmax map is .* It looks like tenths"):
        _check(maps["cbf"], "tmax")
    with pytest.raises(InputError, match="median of the cbf map"):
        _check(maps["cbv"], "cbf")


def test_zeros_are_refused_and_few_values_flagged(maps):
    with pytest.raises(InputError, match="nothing but zeros"):
        _check(np.zeros(PERF[0]), "cbf")
    assert "only 3 different values" in _check(perfusion_maps("left")["tmax"], "tmax")
    maps["tmax"][..., 11] = maps["tmax"][..., 10]
    assert _check(maps["tmax"], "tmax") == ("1 of 20 slices repeat the one before",)


def _grey(volume, top):
    """A map as an 8-bit picture: [0, top] becomes 0..255."""
    return np.rint(np.clip(volume / top, 0, 1) * 255).astype(np.float32)


def _jet(grey):
    """Red, green and blue of a rainbow, 0..255 each, in a new last axis."""
    level = grey / 255.0
    channels = [np.clip(1.5 - np.abs(4 * level - peak), 0, 1) for peak in (3, 2, 1)]
    return np.rint(np.stack(channels, -1) * 255) * (grey > 0)[..., None]


def test_a_grey_picture_of_a_map_is_refused(maps):
    for name, top in (("cbf", 60), ("cbv", 4), ("mtt", 9), ("tmax", 9)):
        with pytest.raises(InputError, match=r"a picture \(whole numbers up to 255, .* at 255"):
            _check(_grey(maps[name], top), name)


def test_a_grey_picture_without_white_has_an_impossible_median(maps):
    dim = np.minimum(_grey(maps["tmax"], 16), 253)
    with pytest.raises(InputError, match="tmax.*picture's grey values"):
        _check(dim, "tmax")


@pytest.mark.parametrize("whole", [True, False])
def test_a_legend_in_every_slice_is_refused(maps, whole):
    drawn = _grey(maps["cbf"], 200) if whole else maps["cbf"].copy()
    drawn[1:3, 5:50] = np.linspace(5, 240, 45).round()[None, :, None]
    with pytest.raises(InputError, match="90 voxels beside the head are the same in all 20 slices"):
        _check(drawn, "cbf")


def test_a_legend_in_one_slice_of_whole_numbers_is_refused(maps):
    drawn = _grey(maps["cbf"], 200)
    drawn[1:3, 5:50, 3] = np.linspace(5, 240, 45).round()
    with pytest.raises(InputError, match="the bar of a legend"):
        _check(drawn, "cbf")


def test_burnt_in_text_is_refused(maps):
    drawn = maps["cbf"].copy()
    drawn[2:12:2, 2:6] = 120.0  # strokes
    with pytest.raises(InputError, match="20 voxels beside the head"):
        _check(drawn, "cbf")


def test_channels_of_a_colour_picture_are_refused(maps):
    grey = _grey(maps["cbf"][..., 8:14], 80)
    colours = _jet(np.kron(grey, np.ones((3, 3, 1))))  # as large as a small picture
    for stack in (
        colours[..., 2, :],  # one slice, its colours as slices
        colours.reshape(*colours.shape[:2], -1),  # RGBRGB...
        np.moveaxis(colours, -1, 2).reshape(*colours.shape[:2], -1),  # RR..GG..BB..
    ):
        assert any("colour channels" in sign for sign in perfusion.picture_signs(stack))
    with pytest.raises(InputError, match="looks like a picture"):
        _check(colours.reshape(*colours.shape[:2], -1), "cbf")


def test_a_grey_picture_saved_as_three_equal_channels_is_refused(maps):
    with pytest.raises(InputError, match="all 3 slices are the same"):
        _check(np.repeat(maps["cbf"][..., 10:11], 3, axis=2), "cbf")


def test_bands_of_colour_are_refused(maps):
    bands = np.digitize(maps["cbf"], [5, 15, 30, 50]) * 60.0
    with pytest.raises(InputError, match="whole numbers up to 255, of which 4 occur"):
        _check(bands, "cbf")


def test_three_thick_slices_and_masks_are_no_pictures(maps):
    thick = maps["cbf"][..., 8:11]
    assert perfusion.picture_signs(thick) == [] == perfusion.picture_signs(np.rint(thick))
    mask = (perfusion_maps("left")["tmax"] > 6).astype(np.float32)
    assert perfusion.picture_signs(mask) == []
    assert perfusion.picture_signs(np.repeat(mask[..., 10:11], 3, axis=2)) == []
