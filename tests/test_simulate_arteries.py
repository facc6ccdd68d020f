"""The arterial tree, wall disease and the occlusion, before any scan is made of them."""

import numpy as np
import pytest

from rlvo_lib.simulate import arteries, occlusion, patients, wall


@pytest.fixture(scope="module")
def people():
    return patients.select(300, 4)[0].to_dict("records")


def pick(people, **conditions):
    """The first patient that meets the conditions (values or predicates)."""
    for patient in people:
        if all(c(patient[k]) if callable(c) else patient[k] == c for k, c in conditions.items()):
            return patient
    raise LookupError(conditions)


def side_of(patient):
    return "R" if patient["side"] == 1 else "L"


def grown(patient, seed, **changed):
    return arteries.build(patient | changed, np.random.default_rng(seed))


def test_every_vessel_starts_on_another_one(people):
    """No floating vessels."""
    for seed in range(12):
        tree = grown(people[seed], seed)
        for name, tube in tree.items():
            if name.startswith(("ICA", "BA")):
                continue
            others = np.concatenate([t.points for other, t in tree.items() if other != name])
            gap = np.sqrt(((others - tube.points[0]) ** 2).sum(axis=1)).min()
            assert gap < 1.5, (seed, name)


def test_calibres_and_the_length_of_m1_are_the_published_ones(people):
    """Means over 80 sides against section 4c of the evidence tables (diameter and length, mm)."""
    trees = [grown(people[k], k) for k in range(40)]
    sides = [(tree, side) for tree in trees for side in "LR"]

    def start(name):
        return np.mean([2 * t[f"{name}_{s}"].radius[0] for t, s in sides])

    assert start("M1") == pytest.approx(3.1, abs=0.4)
    assert start("M2_superior") == pytest.approx(2.4, abs=0.4)
    assert start("A1") == pytest.approx(2.3, abs=0.3)
    assert np.mean([2 * t[f"ICA_{s}"].radius[-1] for t, s in sides]) == pytest.approx(3.6, abs=0.4)
    assert np.mean([t[f"M1_{s}"].length for t, s in sides]) == pytest.approx(22.5, abs=2)
    assert 4 < np.std([t[f"M1_{s}"].length for t, s in sides]) < 9
    assert np.mean([2 * t["BA"].radius.mean() for t in trees]) == pytest.approx(3.2, abs=0.5)


def test_cubes_of_the_radii_add_up_at_the_forks(people):
    for seed in range(10):
        tree = grown(people[seed], seed)
        for side in "LR":
            trunks = [t for n, t in tree.items() if n.startswith("M2") and n.endswith(side)]
            parent = tree[f"M1_{side}"].radius[-1]
            assert sum(t.radius[0] ** 3 for t in trunks) == pytest.approx(parent**3, rel=1e-6)
            ica = tree[f"ICA_{side}"].radius[-1] ** 3
            assert (
                tree[f"M1_{side}"].radius[0] ** 3 + tree[f"A1_{side}"].radius[0] ** 3 <= 1.001 * ica
            )


def test_variants_occur_as_often_as_they_do(people):
    """Shares of 240 sides against the literature in the evidence tables; SE about 3 points."""
    trees = [grown(people[k], k) for k in range(120)]
    names = [(set(t), t, s) for t in trees for s in "LR"]
    three = np.mean([f"M2_middle_{s}" in n for n, _, s in names])
    early = np.mean([f"early_frontal_{s}" in n for n, _, s in names])
    slender = np.mean([f"PCoA_{s}" not in n or t[f"PCoA_{s}"].radius[0] < 0.5 for n, t, s in names])
    fetal = np.mean([t[f"P1_{s}"].radius[0] < 0.8 for _, t, s in names])
    assert three == pytest.approx(0.12, abs=0.06)
    assert early == pytest.approx(0.08, abs=0.05)
    assert slender == pytest.approx(0.44, abs=0.10)
    assert fetal == pytest.approx(0.17, abs=0.07)


def test_tortuosity_lengthens_the_carotid(people):
    lengths = [grown(people[0], 6, tortuosity_z=z)["ICA_R"].length for z in (-2.0, 0.0, 2.0)]
    assert lengths[0] < lengths[1] < lengths[2]


def test_embolus_crosses_the_bifurcation_and_truncal_occlusion_spares_it(people):
    for truncal in (0, 1):
        patient = pick(people, site="M1", truncal=truncal)
        tree, side = grown(patient, 2), side_of(patient)
        occlusion.occlude(tree, patient, np.random.default_rng(2))
        trunk = tree[f"M1_{side}"]
        beyond = sum(tree[f"M2_{t}_{side}"].clot.sum() for t in ("superior", "inferior"))
        assert (trunk.clot[-1], beyond > 0) == ((0.0, False) if truncal else (1.0, True))
        taper = trunk.radius.min() / trunk.calibre.min()
        assert taper < 0.6 if truncal else taper == pytest.approx(1.0)


def test_clot_has_the_patients_length(people):
    for patient in people[:40]:
        if patient["truncal"] or patient["clot_length_mm"] > 30:
            continue  # a trunk may be shorter than the clot
        tree = grown(patient, 3)
        found = occlusion.occlude(tree, patient, np.random.default_rng(3))
        assert found["length_mm"] == pytest.approx(patient["clot_length_mm"])
        path = [t for t in tree.values() if t.clot.any() and t.name.endswith(side_of(patient))]
        drawn = sum(t.clot.sum() for t in path) * arteries.STEP_MM
        assert drawn > 0.75 * patient["clot_length_mm"]


def test_good_collaterals_fill_the_branches_beyond_the_clot(people):
    patient = pick(people, site="M1", truncal=0)
    fill = []
    for collateral in (-2.0, 0.0, 2.0):
        tree = grown(patient, 5)
        occlusion.occlude(tree, patient | {"collateral": collateral}, np.random.default_rng(5))
        names = arteries.distal_to_m1(tree, side_of(patient))
        fill.append(np.mean([tree[n].fill.mean() for n in names]))
    assert fill[0] < fill[1] < fill[2] < 1


def test_other_stenoses_narrow_vessels_that_are_open(people):
    patient = pick(people, site="M1", other_stenosis=1)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        tree = arteries.build(patient, rng)
        found = wall.other_stenoses(tree, patient, rng)
        occlusion.occlude(tree, patient, rng)
        assert 1 <= len(found) <= 2
        for stenosis in found:
            tube = tree[stenosis["vessel"]]
            assert not tube.clot.any()
            narrowest = (tube.radius / tube.calibre).min()
            assert narrowest == pytest.approx(1 - stenosis["degree"], abs=0.03)


def test_tandem_lesion_dims_the_carotid_of_the_affected_side(people):
    patient = pick(people, site="M1", tandem=1)
    tree = grown(patient, 1)
    wall.tandem(tree, patient, np.random.default_rng(1))
    own, other = ("R", "L") if patient["side"] == 1 else ("L", "R")
    assert tree[f"ICA_{own}"].fill[0] < 0.8 < tree[f"ICA_{other}"].fill[0]
    assert tree[f"ICA_{own}"].radius[0] < 0.75 * tree[f"ICA_{own}"].calibre[0]


def test_calcium_rises_with_the_latent(people):
    patient = pick(people, site="M1", tandem=0)
    amounts = []
    for load in (-1.5, 0.2, 1.5, 3.0):
        rows = wall.siphon_plaques(
            grown(patient, 4), patient | {"siphon_calcium": load}, np.random.default_rng(4)
        )
        amounts.append((rows[:, 3] ** 3 * rows[:, 4]).sum())
    assert amounts[0] < amounts[1] < amounts[2] < amounts[3]
