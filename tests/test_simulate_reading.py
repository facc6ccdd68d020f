"""Reading tests: each latent that a scan shows comes back when it is measured plainly (fine grid).

The scans are cut to a box around what is read, and the head's own fields stay coarse, to be quick; the
whole fine scans are read by `make simulation-checks`.
"""

import dataclasses

import numpy as np
import pytest

from rlvo_lib.simulate import arteries, occlusion, patients, reading, rendering, wall
from rlvo_lib.simulate import scanner as scanners
from rlvo_lib.simulate.anatomy import Pose

FINE = dataclasses.replace(rendering.GRIDS["fine"], head_mm=2.5)
COHORT = rendering.GRIDS["cohort"]


@pytest.fixture(scope="module")
def people():
    latents = patients.select(599, 2025)[0]
    return latents.assign(scanner="A").to_dict("records")


def pick(people, count=1, **conditions):
    """The first patients that meet the conditions (values or predicates), with their place."""
    found = [
        (index, patient)
        for index, patient in enumerate(people)
        if all(c(patient[k]) if callable(c) else patient[k] == c for k, c in conditions.items())
    ]
    assert len(found) >= count, conditions
    return found[:count]


def stream(index):
    return np.random.SeedSequence([2025, 1, index])


def disease(patient, index):
    """Pose, occlusion and stenoses of a patient without rendering."""
    rng = rendering._streams(stream(index))
    pose = Pose.draw(rng["pose"], patient["male"] == 1)
    tree = arteries.build(patient, rng["tree"])
    stenoses = (
        wall.other_stenoses(tree, patient, rng["stenoses"]) if patient["other_stenosis"] else []
    )
    return pose, occlusion.occlude(tree, patient, rng["occlusion"]), stenoses


@pytest.fixture
def box(monkeypatch):
    """Cut the CT scans to `half` mm around a place in the world."""

    def cut(place, half):
        corner, extent = tuple(np.asarray(place) - half), np.full(3, 2.0 * half)
        for scan in ("NCCT", "CTA"):
            monkeypatch.setattr(scanners, f"{scan}_CORNER", corner)
            monkeypatch.setattr(scanners, f"{scan}_EXTENT", extent)

    return cut


def around_clot(patient, index, box, **changed):
    pose, closed, _ = disease(patient, index)
    places = pose.to_world(np.array([closed["start"], closed["end"]]))
    reach = np.linalg.norm(places - places.mean(axis=0), axis=1).max()
    box(places.mean(axis=0), reach + 22)
    return rendering.render(patient | {"has_ctp": 0} | changed, stream(index), FINE)


def test_clot_density_and_place_of_the_occlusion_come_back(people, box):
    """Density within 3 HU, the occlusion within 3 mm."""
    chosen = pick(people, 3, site="M1", truncal=0, clot_length_mm=lambda v: 9 < v < 25)
    for (index, patient), hu, scanner in zip(chosen, (42.0, 54.0, 66.0), "ABA", strict=True):
        found = around_clot(patient | {"clot_hu": hu, "scanner": scanner}, index, box)
        assert reading.clot_density(found) == pytest.approx(hu, abs=3)
        start = np.array(found.truth["occlusion"]["start"])
        assert np.linalg.norm(reading.occlusion_start(found) - start) < 3


def test_truncal_occlusion_is_found_within_3_mm(people, box):
    for index, patient in pick(people, 2, site="M1", truncal=1, other_stenosis=0):
        found = around_clot(patient, index, box, has_ncct=0)
        start = np.array(found.truth["occlusion"]["start"])
        assert np.linalg.norm(reading.occlusion_start(found) - start) < 3


def test_permeable_clots_gain_density_on_cta(people, box):
    ((index, patient),) = pick(people, site="M1", truncal=0, clot_length_mm=lambda v: 12 < v < 25)
    gains = []
    for perviousness in (0.0, 12.0, 30.0):
        gains.append(
            reading.perviousness(around_clot(patient, index, box, perviousness_hu=perviousness))
        )
    assert gains[2] - gains[0] == pytest.approx(30, abs=6)
    assert gains[0] < gains[1] < gains[2]


def test_degree_of_a_stenosis_comes_back(people, box):
    """Within 15 points, where neither bone, calcium nor another vessel lies beside it."""
    read = 0
    for index, patient in enumerate(people):
        if not patient["other_stenosis"] or read == 3:
            continue
        pose, _, stenoses = disease(patient, index)
        for k, stenosis in enumerate(stenoses):
            if not stenosis["vessel"].startswith("M1"):
                continue
            box(pose.to_world(np.array([stenosis["at"]]))[0], 20)
            found = rendering.render(patient | {"has_ctp": 0, "has_ncct": 0}, stream(index), FINE)
            assert reading.stenosis_degree(found, k) == pytest.approx(stenosis["degree"], abs=0.15)
            read += 1
    assert read >= 3


def test_calcium_score_rises_with_the_latent(people, box):
    ((index, patient),) = pick(people, site="M2", side=1, tandem=0)
    pose, *_ = disease(patient, index)
    box(pose.to_world(np.array([[13.0, 2.0, -22.0]]))[0], 22)
    scores = [
        reading.calcium(
            rendering.render(
                patient | {"siphon_calcium": load, "has_ctp": 0, "has_cta": 0}, stream(index), FINE
            ),
            "R",
        )
        for load in (-1.5, 0.2, 1.5, 3.0)
    ]
    assert scores[0] < scores[1] < scores[2] < scores[3]


@pytest.mark.parametrize("plan", [FINE, COHORT], ids=["fine", "cohort"])
def test_perfusion_volumes_come_back_on_both_grids(people, plan):
    """Within 10 %, or 3 mL."""
    for index, patient in pick(people, 4, core_ml=lambda v: v > 15):
        found = rendering.render(patient | {"has_ncct": 0, "has_cta": 0}, stream(index), plan)
        measured = reading.volumes(found, patient["side"])
        for name in ("core", "tmax4", "tmax6", "tmax10"):
            laid = found.truth["volumes_ml"][name]
            assert measured[f"{name}_ml"] == pytest.approx(laid, rel=0.10, abs=3), (index, name)


def test_collaterals_are_read_off_the_branches_beyond_the_clot(people):
    ((index, patient),) = pick(people, site="M1", truncal=0)
    side = "R" if patient["side"] == 1 else "L"
    hu = []
    for collateral in (-2.0, 0.0, 2.0):
        found = rendering.render(
            patient | {"collateral": collateral, "has_ncct": 0, "has_ctp": 0}, stream(index), COHORT
        )
        names = [
            n
            for n in found.tree["vessel"].unique()
            if n.startswith(("M2", "ang", "rol")) and n.endswith(side)
        ]
        hu.append(reading.filling(found, names))
    assert hu[0] < hu[1] < hu[2]


def test_tandem_lesion_dims_the_carotid_on_cta(people):
    ((index, patient),) = pick(people, site="M1", tandem=0)
    vessel = f"ICA_{'R' if patient['side'] == 1 else 'L'}"
    open_, narrow = (
        reading.along(
            rendering.render(
                patient | {"tandem": tandem, "has_ncct": 0, "has_ctp": 0}, stream(index), COHORT
            ),
            vessel,
        )
        for tandem in (0, 1)
    )
    low = open_["arc"].between(15, 40)  # below the siphon, within the slab
    assert narrow["hu"][low].mean() < 0.85 * open_["hu"][low].mean()


def test_branches_of_a_truncal_occlusion_leave_the_fork_open(people, box):
    """What tells the two kinds apart: contrast at the end of M1, or clot."""
    hu = []
    for truncal in (0, 1):
        ((index, patient),) = pick(
            people, site="M1", truncal=truncal, clot_length_mm=lambda v: 8 < v < 14
        )
        found = around_clot(patient, index, box, has_ncct=0, collateral=1.5)
        line = reading.along(found, f"M1_{'R' if patient['side'] == 1 else 'L'}")
        hu.append(line["hu"][line["arc"] > line["arc"].max() - 1.5].mean())
    assert hu[1] > hu[0] + 50
