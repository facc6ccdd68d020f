"""Views beside the tensor, and what is measured in the scans: alike on both sides, NaN where there is nothing."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rlvo_lib.config import Channel, View, load_settings
from rlvo_lib.dataset import Dataset
from rlvo_lib.preprocess import cache, grid, measures, tensor
from rlvo_lib.preprocess.tensor import Patient

MIRROR = np.diag([-1.0, 1, 1, 1])
VIEW = View(
    ("ncct", "cta"), (17, 13, 11), 2.0, (34.0, 19.0, -97.0), "occlusion", (10.0, 0.0, 2.0)
)  # fmt: skip
#: A volume of 121 x 101 x 91 voxels of 1 mm whose middle is the point (0, 20, -97) of the head.
AFFINE = np.eye(4)
AFFINE[:3, 3] = [-60, -30, -142]
SHAPE = (121, 101, 91)
START, END = np.array([28.0, 19.0, -96.0]), np.array([38.0, 19.0, -96.0])


def _task(side, flip="left"):
    study = load_settings("smoke").study
    return SimpleNamespace(
        side=side, flip_to_side=flip, channels=study.channels, excluded={}, grid=study.grid
    )


def _patient(side, found=True, scale=1.0):
    """A right-sided patient of made volumes, or the mirror image; in head mm, which are world mm."""
    sign = 1 if side == "right" else -1
    volumes = {
        name: (array.copy() if side == "right" else array[::-1].copy(), AFFINE)
        for name, array in _volumes().items()
    }
    places = {}
    for end, place in (("", START), ("end_", END)):
        for axis, value in zip("xyz", place * [sign, 1, 1], strict=True):
            places[f"occlusion_{end}{axis}_mm"] = value if found else None
    other = "left" if side == "right" else "right"
    vessels = places | {
        "occlusion_side": side if found else "none",
        "occlusion_segment": "M1" if found else "none",
        "occlusion_gap_mm": 10.0 if found else None,
        f"vessel_{side}_ml": 1.0, f"vessel_{other}_ml": 3.0,
        f"tortuosity_{side}": 0.4, f"tortuosity_{other}": 0.2,
    }  # fmt: skip
    up = np.arange(-130.0, -100.0)
    line = pd.DataFrame({"x": sign * 16.0, "y": 10.0, "z": up, "radius_mm": 2.0})
    return Patient(
        volumes, SimpleNamespace(affine=np.eye(4)), 190.0 * scale, 190.0,
        centre_line=line, vessels=vessels,
    )  # fmt: skip


@functools.cache
def _volumes():
    """NCCT and CTA of a right-sided patient, HU: a clot of 55 HU, 27 voxels of calcium by the carotid."""
    rng, (x, y, z), volumes = np.random.default_rng(0), _mm(), {}
    clot = (np.abs(y - 19) < 4) & (np.abs(z + 96) < 4) & (x > 24) & (x < 42)
    for name, hu, excess in (("ncct", 30.0, 25), ("cta", 40.0, 60)):
        volumes[name] = (hu + rng.normal(0, 1, SHAPE) + excess * clot).astype(np.float32)
    volumes["ncct"][(np.abs(x - 14) <= 1) & (np.abs(y - 10) <= 1) & (np.abs(z + 115) <= 1)] = 300
    return volumes


def _mm():
    return [
        i + offset
        for i, offset in zip(np.indices(SHAPE, np.float32), AFFINE[:3, 3], strict=True)
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("found", [True, False])
def test_the_view_of_a_right_sided_patient_is_that_of_their_mirror_image(found):
    shown = {
        side: tensor._view(VIEW, _task(side), _patient(side, found)) for side in ("left", "right")
    }
    (left, on_left), (right, on_right) = shown["left"], shown["right"]
    assert left.shape == (2, *VIEW.shape) and left.dtype == np.float16
    np.testing.assert_allclose(left.astype(float), right.astype(float), atol=1e-3)
    np.testing.assert_allclose(MIRROR @ on_left["affine"], on_right["affine"])
    assert on_left["followed"] == on_right["followed"] == found
    assert left[0].max() > 0.55, "the clot is in it"


def test_a_view_follows_the_occlusion_and_falls_back_to_its_centre():
    middle = [(n - 1) / 2 for n in VIEW.shape]
    for found, centre in ((True, [38.0, 19.0, -94.0]), (False, [34.0, 19.0, -97.0])):
        _, record = tensor._view(VIEW, _task("right"), _patient("right", found))
        np.testing.assert_allclose((np.array(record["affine"]) @ [*middle, 1])[:3], centre)
    still = dataclasses.replace(VIEW, follow="")
    _, record = tensor._view(still, _task("right"), _patient("right"))
    np.testing.assert_allclose((np.array(record["affine"]) @ [*middle, 1])[:3], VIEW.centre_mm)
    assert record["followed"] is False


def test_an_occlusion_of_the_other_side_is_not_followed():
    patient = _patient("left")
    assert tensor.occlusion_place(_task("right"), patient) is None
    assert tensor._view(VIEW, _task("right"), patient)[1]["followed"] is False
    assert tensor.occlusion_place(_task(None), patient) == pytest.approx(START * [-1, 1, 1])


def test_the_centre_of_a_view_grows_with_the_head_and_the_occlusion_does_not():
    middle = [*[(n - 1) / 2 for n in VIEW.shape], 1]

    def centre(scale, occlusion):
        pose = np.eye(4)
        pose[:3, 3] = [5, 6, 7]
        found = grid.view_affine(
            VIEW, pose, scale, "left", flip_to="none", occlusion=occlusion
        )  # fmt: skip
        assert found[0, 0] == VIEW.spacing_mm, "not mirrored where the tensor is not"
        return (found @ middle)[:3] - [5, 6, 7]

    np.testing.assert_allclose(centre(1.1, None), np.array([-34.0, 19.0, -97.0]) * 1.1)
    np.testing.assert_allclose(centre(1.1, np.array([-28.0, 19, -96])), [-38.0, 19, -94])


def test_a_channel_without_its_scan_is_absent_from_the_view():
    patient = _patient("left")
    del patient.volumes["cta"]
    array, record = tensor._view(VIEW, _task("left"), patient)
    assert record["channels"] == ["ncct"] and array.shape == (1, *VIEW.shape)
    whole, _ = tensor._view(VIEW, _task("left"), _patient("left"))
    np.testing.assert_array_equal(array[0], whole[0])
    patient.volumes.clear()
    array, record = tensor._view(VIEW, _task("left"), patient)
    assert record["channels"] == [] and array.shape == (0, *VIEW.shape)


def test_a_view_holds_the_windowed_scan_at_its_place():
    patient = _patient("right")
    x, _, _ = _mm()
    patient.volumes = {"ncct": (x, AFFINE)}  # HU are mm outwards
    array, _ = tensor._view(dataclasses.replace(VIEW, follow=""), _task("right"), patient)
    outwards = 34 + 2.0 * (8 - np.arange(17))  # mirrored: the first voxel is the outermost
    window: Channel = _task("right").channels["ncct"]
    expected = np.clip((outwards - window.low) / (window.high - window.low), 0, 1)
    np.testing.assert_allclose(array[0, :, 6, 5].astype(float), expected, atol=1e-3)


# ---------------------------------------------------------------------------------------- measures


def test_measures_of_mirrored_patients_are_the_same_and_known():
    left, right = (measures.measured(_task(side), _patient(side)) for side in ("left", "right"))
    assert list(left) == [f"measured_{name}" for name in measures.NAMES]
    assert left == pytest.approx(right, abs=1e-4)
    known = {
        "occlusion": 1, "occlusion_carotid": 0, "occlusion_out_mm": 28, "occlusion_anterior_mm": 19,
        "occlusion_up_mm": -96, "occlusion_gap_mm": 10, "resumes_out_mm": 38, "resumes_up_mm": -96,
        "vessel_share": 0.25, "tortuosity": 0.4, "tortuosity_other": 0.2,
    }  # fmt: skip
    assert {name: left[f"measured_{name}"] for name in known} == pytest.approx(known)
    assert left["measured_clot_hu"] == pytest.approx(55, abs=1)
    assert left["measured_clot_excess_hu"] == pytest.approx(25, abs=1.5)
    assert left["measured_clot_enhanced_hu"] == pytest.approx(45, abs=1.5)
    assert left["measured_siphon_calcium_ml"] == pytest.approx(0.027)


def test_places_are_mm_of_the_template_whatever_the_size_of_the_head():
    large = measures.measured(_task("left"), _patient("left", scale=1.25))
    assert large["measured_occlusion_out_mm"] == pytest.approx(28 / 1.25)
    assert large["measured_resumes_up_mm"] == pytest.approx(-96 / 1.25)
    assert large["measured_occlusion_gap_mm"] == 10  # what a person would measure


def test_what_is_absent_is_nan_and_no_occlusion_is_zero():
    none = measures.measured(_task("left"), _patient("left", found=False))
    assert none["measured_occlusion"] == 0.0 and none["measured_vessel_share"] == 0.25
    placed = [n for n in none if "_mm" in n or "clot" in n or "carotid" in n]
    assert len(placed) == 10 and np.isnan([none[name] for name in placed]).all()
    assert measures.measured(_task("right"), _patient("left"))["measured_occlusion"] == 0.0
    without = _patient("left")
    without.vessels, without.centre_line = {}, None
    assert np.isnan(list(measures.measured(_task("left"), without).values())).all()
    plain = _patient("left")
    del plain.volumes["ncct"]
    found = measures.measured(_task("left"), plain)
    lost = ("clot_hu", "clot_excess_hu", "clot_enhanced_hu", "siphon_calcium_ml")
    assert np.isnan([found[f"measured_{name}"] for name in lost]).all()
    assert found["measured_occlusion_out_mm"] == pytest.approx(28)


def test_bone_is_no_clot_and_a_gap_of_nothing_has_no_density():
    bone = _patient("left")
    array, affine = bone.volumes["ncct"]
    bone.volumes["ncct"] = np.where(array > 45, 900, array), affine
    assert np.isnan(measures.measured(_task("left"), bone)["measured_clot_hu"])
    point = _patient("left")
    point.vessels |= {f"occlusion_end_{a}_mm": point.vessels[f"occlusion_{a}_mm"] for a in "xyz"}
    found = measures.measured(_task("left"), point)
    assert np.isnan(found["measured_clot_hu"]) and found["measured_occlusion"] == 1


def test_a_siphon_without_calcium_has_none_and_calcium_far_from_it_does_not_count():
    clean = _patient("left")
    array, affine = clean.volumes["ncct"]
    calcium = array > 200
    clean.volumes["ncct"] = np.where(calcium, 30, array), affine
    assert measures.measured(_task("left"), clean)["measured_siphon_calcium_ml"] == 0.0
    far = _patient("left")
    far.volumes["ncct"] = np.roll(np.where(calcium, 300, 30), 20, axis=1), affine
    assert measures.measured(_task("left"), far)["measured_siphon_calcium_ml"] == 0.0


def test_the_task_of_a_patient_holds_the_study_views(tmp_path):
    settings = load_settings("smoke", cache=tmp_path)
    table = pd.DataFrame({"side": ["1"]}, index=["sub-1"], dtype=object)
    data = Dataset(tmp_path, "test", False, table, table, settings.study.scans)
    task = cache.patient_task(data, settings, "sub-1")
    assert task.side == "right" and task.views == settings.study.views
