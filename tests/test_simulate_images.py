"""Simulated scans: what was put in can be read back where a radiologist would look."""

import numpy as np
import pytest
from scipy import ndimage

from rlvo_lib.simulate import arteries, patients, physics
from rlvo_lib.simulate.anatomy import Grid, Pose, interpolate, sample

VOXEL_ML = np.prod(physics.PERFUSION.spacing) / 1000


@pytest.fixture(scope="module")
def people():
    return patients.select(300, 4)[0].to_dict("records")


def pick(people, **conditions):
    """The first patient that meets the conditions (values or predicates)."""
    for patient in people:
        if all(c(patient[k]) if callable(c) else patient[k] == c for k, c in conditions.items()):
            return patient
    raise LookupError(conditions)


@pytest.fixture(scope="module")
def rendered(people):
    """Four different strokes: (patient, scans, truth)."""
    chosen = [
        pick(people, site="M1", truncal=0, side=0, tandem=0, core_ml=lambda v: v > 25),
        pick(people, site="M1", truncal=1, side=1, tandem=0),
        pick(people, site="ICA", truncal=0, side=1, core_ml=lambda v: v > 10),
        pick(people, site="M2", truncal=0, side=0, core_ml=0.0),
    ]
    return [(p, *physics.render(p, np.random.default_rng(9))) for p in chosen]


def test_scans_have_the_stated_grids_and_units(rendered):
    for _, scans, _ in rendered:
        ncct, cta = scans["ncct"][0], scans["cta"][0]
        assert (ncct.shape, ncct.dtype) == (physics.NCCT.shape, np.int16)
        assert (cta.shape, cta.dtype) == (physics.CTA.shape, np.int16)
        assert ncct.min() >= -1024 and 900 < ncct.max() <= 3071
        brain = ncct[(ncct > 0) & (ncct < 80)]
        assert 27 < np.median(brain) < 38
        for name, low, high in (("cbf", 15, 60), ("cbv", 1.5, 4), ("mtt", 3, 8), ("tmax", 1, 5)):
            volume = scans[name][0]
            assert (volume.shape, volume.dtype) == (physics.PERFUSION.shape, np.float32)
            assert low < np.median(volume[volume > 0]) < high, name
            assert 700 < (volume > 0).sum() * VOXEL_ML < 1500


def test_perfusion_volumes_are_the_patients(rendered):
    for patient, scans, _ in rendered:
        tmax, cbf = scans["tmax"][0], scans["cbf"][0]
        x = physics.PERFUSION.axis(0)[:, None, None]
        healthy = (cbf > 0) & ((x < -8) if patient["side"] == 1 else (x > 8))
        core = (cbf > 0) & (cbf < 0.30 * cbf[healthy].mean())
        measured = {"core_ml": core.sum(), "tmax6_ml": (tmax > 6).sum()}
        measured |= {"tmax4_ml": (tmax > 4).sum(), "tmax10_ml": (tmax > 10).sum()}
        for name, voxels in measured.items():
            wanted = patient[name]
            assert abs(voxels * VOXEL_ML - wanted) <= max(5.0, 0.10 * wanted), name


def test_lesion_lies_on_the_stated_side(rendered):
    for patient, scans, truth in rendered:
        slow = np.argwhere(scans["tmax"][0] > 6) * physics.PERFUSION.spacing
        world = slow + physics.PERFUSION.origin
        to_head = np.linalg.inv(np.array(truth["head_to_world"]))
        head_x = world @ to_head[0, :3] + to_head[0, 3]
        assert (np.sign(head_x) == (1 if patient["side"] == 1 else -1)).all()
        occlusion = np.array([*truth["occlusion"]["start"], 1.0])
        assert np.sign((to_head @ occlusion)[0]) == np.sign(head_x[0])


def test_cbv_index_is_the_patients(rendered):
    for patient, scans, _ in rendered:
        tmax, cbv = scans["tmax"][0], scans["cbv"][0]
        x = physics.PERFUSION.axis(0)[:, None, None]
        healthy = (cbv > 0) & ((x < -8) if patient["side"] == 1 else (x > 8))
        index = cbv[tmax > 6].mean() / cbv[healthy].mean()
        assert index == pytest.approx(patient["cbv_index"], abs=0.08)


def test_occluded_lumen_holds_no_contrast(rendered):
    for patient, scans, _ in rendered:
        mask, cta = scans["vessels"][0], scans["cta"][0]
        clot = ndimage.binary_erosion(mask == 2) if patient["site"] != "M2" else mask == 2
        assert (mask == 2).sum() >= 3
        filled = cta[ndimage.binary_erosion(mask == 1)]
        assert np.median(filled) > 180
        if clot.sum() >= 3:
            assert np.median(cta[clot]) < 0.6 * np.median(filled)


def test_embolus_crosses_the_bifurcation_and_truncal_occlusion_spares_it(people):
    for truncal in (0, 1):
        patient = pick(people, site="M1", truncal=truncal)
        rng = np.random.default_rng(2)
        tree = arteries.build(patient, rng)
        arteries.occlude(tree, patient, rng)
        side = "R" if patient["side"] == 1 else "L"
        at_fork = tree[f"M1_{side}"].clot[-1]
        beyond = sum(tree[f"M2_{t}_{side}"].clot.sum() for t in ("superior", "inferior"))
        assert (at_fork, beyond > 0) == ((0.0, False) if truncal else (1.0, True))
        taper = tree[f"M1_{side}"].radius.min() / tree[f"M1_{side}"].calibre.min()
        assert taper < 0.6 if truncal else taper == pytest.approx(1.0)


def test_dense_clot_is_brighter_on_ncct(people):
    patient = pick(people, site="M1", truncal=0, clot_length_mm=lambda v: v > 12)
    bright = []
    for hu in (45.0, 65.0):
        scans, _ = physics.render(patient | {"clot_hu": hu}, np.random.default_rng(3))
        mask = scans["vessels"][0]
        where = np.argwhere(mask == 2) * physics.CTA.spacing + physics.CTA.origin
        index = (where - physics.NCCT.origin) / physics.NCCT.spacing
        values = ndimage.map_coordinates(scans["ncct"][0].astype(float), index.T, order=1)
        bright.append(np.mean(values))
    assert bright[1] - bright[0] > 3  # of 20 HU, thick slices leave a part


def test_calcium_rises_with_the_latent(people):
    patient = pick(people, site="M1", tandem=0)
    amounts = []
    for load in (-1.5, 0.2, 1.5, 3.0):
        rng = np.random.default_rng(4)
        tree = arteries.build(patient, rng)
        rows = arteries.siphon_plaques(tree, patient | {"siphon_calcium": load}, rng)
        amounts.append((rows[:, 3] ** 3 * rows[:, 4]).sum())
    assert amounts[0] < amounts[1] < amounts[2] < amounts[3]


def test_good_collaterals_fill_the_branches_beyond_the_clot(people):
    patient = pick(people, site="M1", truncal=0)
    side = "R" if patient["side"] == 1 else "L"
    fill = []
    for collateral in (-2.0, 0.0, 2.0):
        rng = np.random.default_rng(5)
        tree = arteries.build(patient, rng)
        arteries.occlude(tree, patient | {"collateral": collateral}, rng)
        fill.append(np.mean([tree[n].fill.mean() for n in arteries.distal_to_m1(side)]))
    assert fill[0] < fill[1] < fill[2] < 1


def test_tortuosity_lengthens_the_carotid(people):
    patient = pick(people, site="M2")
    lengths = [
        arteries.build(patient | {"tortuosity_z": z}, np.random.default_rng(6))["ICA_R"].length
        for z in (-2.0, 0.0, 2.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_every_vessel_starts_on_another_one(people):
    """No floating vessels."""
    tree = arteries.build(people[0], np.random.default_rng(7))
    for name, tube in tree.items():
        if name.startswith(("ICA", "BA")):
            continue
        others = np.concatenate([t.points for other, t in tree.items() if other != name])
        gap = np.sqrt(((others - tube.points[0]) ** 2).sum(axis=1)).min()
        assert gap < 1.5, name


def test_images_do_not_show_what_lies_behind_the_occlusion(people):
    """Only the visible latents reach the scans: the outcome side changes no voxel."""
    patient = pick(people, site="M1", icad=1)
    hidden = {"underlying_stenosis": 5.0, "hardness": -3.0, "etici": "3", "rescue_type": 0}
    hidden |= {"rlvo": 0, "icad": 0, "etiology": "OTH", "final_stenosis": 0.0, "n_passes": 1}
    first, _ = physics.render(patient, np.random.default_rng(8))
    second, _ = physics.render(patient | hidden, np.random.default_rng(8))
    for name in first:
        np.testing.assert_array_equal(first[name][0], second[name][0])


def test_painted_tube_keeps_its_volume():
    grid = Grid((40, 40, 40), (1.5, 1.5, 1.5), (0.0, 0.0, 0.0))
    z = np.arange(10, 50, 0.5)
    for radius in (0.6, 1.5, 3.0):
        points = np.stack([np.full_like(z, 29.3), np.full_like(z, 30.1), z], axis=1)
        share, product = physics.paint(
            points, np.full(len(z), radius), np.full(len(z), 300.0), grid
        )
        inner = share[:, :, 12:28].sum(axis=(0, 1)).mean() * 1.5**2
        assert inner == pytest.approx(np.pi * radius**2, rel=0.25)
        np.testing.assert_allclose(product, 300 * share, rtol=1e-4)


def test_interpolation_keeps_a_linear_field():
    source = Grid((10, 12, 9), (4.0, 3.0, 5.0), (-20.0, -15.0, -18.0))
    target = Grid((7, 9, 8), (2.0, 2.0, 2.0), (-10.0, -8.0, -6.0))
    x, y, z = (source.axis(k).reshape([-1 if a == k else 1 for a in range(3)]) for k in range(3))
    found = interpolate((x + 2 * y - z).astype(np.float32), source, target)
    x, y, z = (target.axis(k).reshape([-1 if a == k else 1 for a in range(3)]) for k in range(3))
    np.testing.assert_allclose(found, x + 2 * y - z, atol=1e-4)


def test_sampling_follows_the_pose():
    """A head that is moved by whole voxels shows the same anatomy, moved."""
    grid = Grid((20, 20, 20), (2.5, 2.5, 2.5), (-25.0, -25.0, -25.0))
    still = Pose(np.eye(3), np.ones(3), np.zeros(3))
    moved = Pose(np.eye(3), np.ones(3), np.array([5.0, -2.5, 0.0]))
    a, b = (sample(("ventricle",), pose, grid)["ventricle"] for pose in (still, moved))
    np.testing.assert_allclose(b[2:, :-1], a[:-2, 1:], atol=1e-3)
    angled = Pose.draw(np.random.default_rng(1), male=True)
    points = np.array([[10.0, 20.0, -5.0]])
    np.testing.assert_allclose(angled.to_world(points)[0], (angled.affine @ [10, 20, -5, 1])[:3])


def test_other_stenoses_narrow_vessels_that_are_open(people):
    patient = pick(people, site="M1", other_stenosis=1)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        tree = arteries.build(patient, rng)
        found = arteries.other_stenoses(tree, patient, rng)
        arteries.occlude(tree, patient, rng)
        assert 1 <= len(found) <= 2
        for stenosis in found:
            tube = tree[stenosis["vessel"]]
            assert not tube.clot.any()
            narrowest = (tube.radius / tube.calibre).min()
            assert narrowest == pytest.approx(1 - stenosis["degree"], abs=0.02)


def test_tandem_lesion_dims_the_carotid_of_the_affected_side(people):
    patient = pick(people, site="M1", tandem=1)
    rng = np.random.default_rng(1)
    tree = arteries.build(patient, rng)
    arteries.tandem(tree, patient, rng)
    own, other = ("R", "L") if patient["side"] == 1 else ("L", "R")
    assert tree[f"ICA_{own}"].fill[0] < 0.8 < tree[f"ICA_{other}"].fill[0]
    assert tree[f"ICA_{own}"].radius[0] < 0.75 * tree[f"ICA_{own}"].calibre[0]
