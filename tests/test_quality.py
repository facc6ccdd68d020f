"""Quality control: flags, and the pictures a person looks at."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from phantoms import dataset, pose, write_patient

from rlvo_lib import config, figures, preprocess
from rlvo_lib.config import InputError
from rlvo_lib.preprocess import quality

SIDES = {"sub-0001": "left", "sub-0002": "right"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two patients, the second with an NCCT alone; dataset, settings, tensors."""
    root = tmp_path_factory.mktemp("quality")
    write_patient(root, "sub-0001", "left", pose(dx=4, yaw=3))
    write_patient(root, "sub-0002", "right", scans=["ncct"])
    settings = config.load_settings("smoke", cache=root / "cache", workers=1)
    data = dataset(root, SIDES)
    return data, settings, preprocess.prepare(data, settings)


def test_a_registration_that_fits_worse_than_the_others_is_named():
    costs = np.random.default_rng(0).normal(0.05, 0.005, 40).clip(0.04, 0.06)
    table = pd.DataFrame({"registration_cost": costs, "cta_cost": costs})
    assert quality.cohort_flags(table) == {}
    table.loc[7, "cta_cost"] = 0.3
    assert list(quality.cohort_flags(table)) == [7]
    assert "CTA fits the NCCT worse" in quality.cohort_flags(table)[7][0]
    assert quality.cohort_flags(table.iloc[:10]) == {}  # too few to say what is usual
    assert quality.cohort_flags(table.assign(cta_cost=np.nan)) == {}


def test_costs_are_compared_among_patients_measured_alike():
    """A head found in a CTA, or a pose that was not fitted, costs more without standing out."""
    costs = np.linspace(0.006, 0.009, 60)
    table = pd.DataFrame(
        {"registration_cost": costs, "head_scan": "ncct", "alignment": "affine"},
        index=[f"sub-{n:04d}" for n in range(60)],
    )
    table.loc[table.index[:25], "head_scan"] = "cta"
    table.loc[table.index[:25], "registration_cost"] *= 3
    table.loc[table.index[-1], ["registration_cost", "alignment"]] = [0.06, "symmetry"]
    assert quality.cohort_flags(table) == {}
    table.loc["sub-0030", "registration_cost"] = 0.02
    assert list(quality.cohort_flags(table)) == ["sub-0030"]
    assert "cost 0.020, median 0.008" in quality.cohort_flags(table)["sub-0030"][0]


def test_flags_say_what_to_look_at(prepared):
    data, settings, _ = prepared
    task = preprocess.cache.patient_task(data, settings, "sub-0001")
    assert (
        quality.flags(task, {"vessel_volume_ml": 5.0, "tmax_side": "left", "motion_ncct_mm": 0.4})
        == []
    )
    words = quality.flags(
        task,
        {"vessel_volume_ml": 0.2, "tmax_side": "right", "motion_cta_mm": 6.0, "coverage_cta": 0.12},
    )
    for said in ("cta covers only 12 %", "few vessels found (0.20 mL)", "motion?"):
        assert any(said.replace(" %", "%") in word for word in words), said
    assert "delayed flow is on the right, recorded side is left" in words
    unknown = dataclasses.replace(task, side=None)
    assert quality.flags(unknown, {}) == ["affected side unknown: not flipped"]


def test_the_pictures_lie_in_the_head(prepared):
    data, settings, cache = prepared
    drawn = preprocess.pictures(data, settings, cache, "sub-0001")
    assert list(drawn) == ["axial", "sagittal", "vessels", "perfusion"]
    axial = drawn["axial"]
    assert axial.image.shape == axial.contours["template"].shape
    # The phantom's brain is mirror-symmetric about the middle of the picture, but for its lesion.
    head = axial.image > -300
    assert (head == head[::-1]).mean() > 0.98
    # Template and head overlap: Dice of their outlines.
    both = 2 * (head & axial.contours["template"]).sum()
    assert both / (head.sum() + axial.contours["template"].sum()) > 0.9
    late = drawn["perfusion"].overlay
    assert np.nanmin(late) > 6 and np.isfinite(late[: late.shape[0] // 2]).sum() > 50
    assert not np.isfinite(late[late.shape[0] // 2 :]).any()  # the lesion is on the left
    assert drawn["vessels"].contours["vessel mask"].any()
    assert list(preprocess.pictures(data, settings, cache, "sub-0002")) == ["axial", "sagittal"]


def test_the_mosaic_draws_every_patient_and_says_what_is_missing(prepared):
    data, settings, cache = prepared
    rows = {p: preprocess.pictures(data, settings, cache, p) for p in SIDES}
    figure = figures.scan_mosaic(rows)
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert len(axes) == 8
    assert [axis.get_title() for axis in axes[:4]] == ["axial", "sagittal", "vessels", "perfusion"]
    assert axes[0].get_ylabel() == "sub-0001" and axes[4].get_ylabel() == "sub-0002"
    words = [[text.get_text() for text in axis.texts] for axis in axes]
    assert words[0][:2] == ["R", "L"] and words[1][:2] == ["A", "P"] and words[6] == ["no scan"]
    np.testing.assert_array_equal(axes[0].images[0].get_array(), rows["sub-0001"]["axial"].image.T)
    assert axes[0].xaxis_inverted()
    assert "template: yellow" in figure.get_supxlabel()
    with pytest.raises(InputError, match="no pictures"):
        figures.scan_mosaic({"sub-0001": {}})
