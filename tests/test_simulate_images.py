"""Simulated scans on the cohort's grids: units, pose, territory; only what is visible reaches them."""

import numpy as np
import pytest
from scipy import ndimage

from rlvo_lib import vessels
from rlvo_lib.simulate import ct, ctp, lesion, patients, reading, rendering
from rlvo_lib.simulate import scanner as scanners
from rlvo_lib.simulate.anatomy import Grid
from rlvo_lib.simulate.ceiling import VISIBLE

PLAN = rendering.GRIDS["cohort"]


@pytest.fixture(scope="module")
def people():
    return patients.select(300, 4)[0].to_dict("records")


def pick(people, **conditions):
    """The first patient that meets the conditions (values or predicates)."""
    for patient in people:
        if all(c(patient[k]) if callable(c) else patient[k] == c for k, c in conditions.items()):
            return patient
    raise LookupError(conditions)


def shown(patient, index=9, **changed):
    return rendering.render(patient | changed, np.random.SeedSequence([4, 1, index]))


@pytest.fixture(scope="module")
def rendered(people):
    """Four different strokes on three scanners: (patient, rendered)."""
    chosen = [
        pick(people, site="M1", truncal=0, side=0, tandem=0, core_ml=lambda v: v > 25)
        | {"scanner": "A"},
        pick(people, site="M1", truncal=1, side=1, tandem=0) | {"scanner": "B"},
        pick(people, site="ICA", truncal=0, side=1, core_ml=lambda v: v > 10) | {"scanner": "C"},
        pick(people, site="M2", truncal=0, side=0, core_ml=0.0) | {"scanner": "B"},
    ]
    return [(p, shown(p)) for p in chosen]


def head_coordinates(shape, affine, truth):
    index = np.stack(np.indices(shape), axis=-1)
    to_head = np.linalg.inv(np.array(truth["head_to_world"])) @ affine
    return np.einsum("ij,...j->...i", to_head[:3, :3], index) + to_head[:3, 3]


def test_scans_have_the_stated_units(rendered):
    for _, found in rendered:
        for name in ("ncct", "cta"):
            assert found.scans[name][0].dtype == np.int16
        ncct = found.scans["ncct"][0]
        assert ncct.min() >= -1024 and 900 < ncct.max() <= 3071
        assert 27 < np.median(ncct[(ncct > 0) & (ncct < 80)]) < 38
        for name, low, high in (("cbf", 15, 60), ("cbv", 1.5, 4), ("mtt", 3, 8), ("tmax", 1, 5)):
            volume, affine = found.scans[name]
            assert volume.dtype == np.float32
            assert low < np.median(volume[volume > 0]) < high, name
            assert 550 < (volume > 0).sum() * abs(np.linalg.det(affine)) / 1000 < 1500


def test_scanners_differ_in_field_of_view_tilt_and_slices(people):
    patient = people[0]
    grids = {name: shown(patient, scanner=name).scans for name in "ABC"}
    assert grids["A"]["cta"][0].shape != grids["B"]["cta"][0].shape
    assert grids["A"]["tmax"][0].shape[2] > grids["C"]["tmax"][0].shape[2]
    assert grids["A"]["ncct"][1][1, 2] == 0 != grids["B"]["ncct"][1][1, 2]
    fine = rendering.GRIDS["fine"]
    thickness = {}
    for name, scanner in scanners.SCANNERS.items():
        thin, parts = scanners.ncct_grid(fine, scanner, np.random.default_rng(0))
        thickness[name] = round(thin.spacing[2] * parts, 6)
    assert thickness == {"A": 3.0, "B": 3.0, "C": 5.0}
    assert fine.cta_mm <= 0.7


def test_sidecars_say_that_they_are_simulated_and_depend_on_the_scanner_only(people):
    first, second = people[0] | {"scanner": "B"}, people[1] | {"scanner": "B"}
    one, other = shown(first, 3), shown(second, 3)
    for name, sidecar in one.sidecars.items():
        assert sidecar["Simulated"] is True and "SIMULATED" in sidecar["Note"]
        assert sidecar == other.sidecars[name]
        np.testing.assert_array_equal(one.scans[name][1], other.scans[name][1])


def test_perfusion_volumes_are_the_patients(rendered):
    """Within 10 %, or 3 mL; what the deconvolution finds, after noise."""
    for patient, found in rendered:
        for name, ml in reading.volumes(found, patient["side"]).items():
            laid = found.truth["volumes_ml"][name.removesuffix("_ml")]
            assert ml == pytest.approx(laid, rel=0.10, abs=3), name


def test_lesion_lies_on_the_stated_side_in_its_territory(rendered):
    for patient, found in rendered:
        mask, affine = found.masks["lesion"]
        x = head_coordinates(mask.shape, affine, found.truth)[..., 0]
        assert (np.sign(x[mask > 0]) == (1 if patient["side"] == 1 else -1)).all()
        start = np.linalg.inv(np.array(found.truth["head_to_world"])) @ [
            *found.truth["occlusion"]["start"],
            1,
        ]
        assert np.sign(start[0]) == np.sign(x[mask > 0][0])


def test_lesions_stay_inside_the_occluded_arterys_territory(people):
    """As long as they fit into it: the middle cerebral artery's, with an ICA also the anterior one's."""
    for site, own in (("M1", (2,)), ("M2", (2,)), ("ICA", (1, 2))):
        for patient in [p for p in people if p["site"] == site and p["tmax6_ml"] < 150][:4]:
            found = shown(patient, has_ncct=0, has_cta=0)
            delayed, fed = (found.masks[name][0] for name in ("lesion", "territory"))
            artery = (fed[delayed > 0] - 1) % 3 + 1
            assert np.isin(artery, own).mean() > 0.97, site


def test_territories_have_the_published_size_and_side(rendered):
    """MCA 250 to 300 mL a hemisphere, ACA about 80, PCA about 90, of which a 100 mm slab shows most."""
    volumes = []
    for _, found in rendered:
        mask, affine = found.masks["territory"]
        x = head_coordinates(mask.shape, affine, found.truth)[..., 0]
        assert (x[(mask > 0) & (mask < 4)] > 0).all() and (x[mask > 3] < 0).all()
        ml = np.bincount(mask.ravel(), minlength=7)[1:] * abs(np.linalg.det(affine)) / 1000
        volumes.append(ml.reshape(2, 3))
    aca, mca, pca = np.mean(volumes, axis=(0, 1))
    assert 230 < mca < 340 and 50 < aca < 130 and 50 < pca < 130


def test_cbv_index_is_the_patients(rendered):
    for patient, found in rendered:
        tmax, cbv = found.scans["tmax"][0], found.scans["cbv"][0]
        x = head_coordinates(tmax.shape, found.scans["tmax"][1], found.truth)[..., 0]
        own = (x > 0) == (patient["side"] == 1)
        index = cbv[own & (tmax > 6)].mean() / cbv[~own & (cbv > 0)].mean()
        assert index == pytest.approx(patient["cbv_index"], abs=0.10)


def test_healthy_tissue_has_normal_perfusion(rendered):
    """Grey about 53, white 25 mL/100 g/min, blood volume 3.3 and 1.9, transit 3.7 and 4.6 s (section 4d)."""
    for patient, found in rendered:
        cbf, affine = found.scans["cbf"]
        x = head_coordinates(cbf.shape, affine, found.truth)[..., 0]
        healthy = ((x > 0) == (patient["side"] == 0)) & (np.abs(x) > 3) & (cbf > 0)
        low, high = np.quantile(cbf[healthy], [0.2, 0.9])
        assert 17 < low < 33 and 40 < high < 75
        assert 3.0 < np.median(found.scans["mtt"][0][healthy]) < 5.5
        assert 2 < np.median(found.scans["tmax"][0][healthy]) < 3.6


def test_deconvolution_undoes_the_forward_model():
    for tmax, cbf, cbv in ((2.5, 50, 3.3), (3.0, 24, 1.9), (8.0, 25, 3.0), (13.0, 5, 0.7)):
        wanted = [np.array([float(v)]) for v in (tmax, cbf, cbv)]
        delay, transit, factor = ctp._physical(*wanted)
        curves = ctp._curves(delay, transit) * (ctp.TISSUE * factor * cbf)[:, None]
        found = ctp._deconvolved(curves, ctp._table().scale)
        assert found["tmax"][0] == pytest.approx(tmax, abs=0.15)
        assert found["cbf"][0] == pytest.approx(cbf, rel=0.03)
        assert found["cbv"][0] == pytest.approx(cbv, rel=0.05)


def test_delay_that_is_no_stroke_is_as_frequent_and_as_large_as_published(people):
    """43 % of maps, median 12 mL (3-21), and it is left out of the truth."""
    drawn = []
    for k in range(120):
        region = np.zeros((44, 52, 20), bool)
        region[5:40, 5:45, 2:18] = True
        ipsi = region & (np.arange(44)[:, None, None] < 22)
        volumes = {"tmax6": 200.0}
        stroke = lesion.Lesion(ipsi * 0.0, ipsi, ipsi * 0.0, region, ipsi, region & ~ipsi, volumes)
        grid = Grid((44, 52, 20), (4.0, 4.0, 5.0), (0.0, 0.0, 0.0))
        tissue = {"tmax": np.zeros(grid.shape)}
        ml = ctp._add_artefact(tissue, stroke, grid, np.random.default_rng(k))
        assert (tissue["tmax"][ipsi] == 0).all()
        drawn.append(ml)
    drawn = np.array(drawn)
    assert (drawn > 0).mean() == pytest.approx(0.43, abs=0.12)
    assert np.median(drawn[drawn > 0]) == pytest.approx(12, abs=5)
    assert drawn.max() <= 25.1


def test_occluded_lumen_holds_no_contrast(rendered):
    for patient, found in rendered:
        mask, cta = found.masks["vessels"][0], found.scans["cta"][0]
        clot = ndimage.binary_erosion(mask == 2) if patient["site"] != "M2" else mask == 2
        assert (mask == 2).sum() >= 3
        filled = cta[ndimage.binary_erosion(mask == 1)]
        assert np.median(filled) > 180
        if clot.sum() >= 3:
            assert np.median(cta[clot]) < 0.6 * np.median(filled)


def test_contrast_ends_a_little_before_an_embolus(people):
    """The clot is drawn over the lumen as a ball, convex towards the flow: half a calibre reaches back."""
    patient = pick(people, site="M1", truncal=0, clot_length_mm=lambda v: v > 10)
    found = shown(patient)
    line = reading.along(found, f"M1_{'R' if patient['side'] == 1 else 'L'}")
    start = np.array(found.truth["occlusion"]["start"])
    arc = line["arc"][np.linalg.norm(line[["x", "y", "z"]] - start, axis=1).argmin()]
    half = reading.occlusion_start(found)
    reached = line["arc"][np.linalg.norm(line[["x", "y", "z"]] - half, axis=1).argmin()]
    assert 0 <= arc - reached < 4


def test_dense_clot_is_brighter_on_ncct(people):
    patient = pick(people, site="M1", truncal=0, clot_length_mm=lambda v: v > 12)
    dim, bright = (shown(patient, clot_hu=hu) for hu in (45.0, 65.0))
    clot = dim.masks["clot"][0] > 0
    gain = bright.scans["ncct"][0][clot].mean() - dim.scans["ncct"][0][clot].mean()
    assert 4 < gain < 20  # of 20 HU, thick slices leave a part


def test_infarct_is_darker_and_darker_the_later(people):
    patient = pick(people, core_ml=lambda v: v > 60)
    brightness = []
    for minutes in (120, 700):
        found = shown(patient, lkw_to_groin_min=minutes)
        whole = shown(patient, lkw_to_groin_min=minutes, infarct_scale=0.0)
        change = found.scans["ncct"][0].astype(float) - whole.scans["ncct"][0]
        brightness.append(change[change < -0.5].mean())
    assert brightness[1] < brightness[0] < -0.5


def test_images_do_not_show_what_lies_behind_the_occlusion(people):
    """Only the visible latents reach the scans: the outcome side changes no voxel, no header."""
    patient = pick(people, site="M1", icad=1)
    hidden = {"underlying_stenosis": 5.0, "hardness": -3.0, "etici": "3", "rescue_type": 0}
    hidden |= {"rlvo": 0, "icad": 0, "etiology": "OTH", "final_stenosis": 0.0, "n_passes": 1}
    first, second = shown(patient), shown(patient, **hidden)
    for name in first.scans:
        np.testing.assert_array_equal(first.scans[name][0], second.scans[name][0])
        np.testing.assert_array_equal(first.scans[name][1], second.scans[name][1])
        assert first.sidecars[name] == second.sidecars[name]


MODALITIES = {"ncct": ("ncct",), "cta": ("cta",), "ctp": ("cbf", "cbv", "mtt", "tmax")}
CHANGED = {
    "age": 45.0, "male": 0, "site": "ICA", "side": 0, "m2_inferior": 1, "clot_hu": 90.0,
    "clot_length_mm": 22.0, "perviousness_hu": 60.0, "truncal": 0, "other_stenosis": 1,
    "siphon_calcium": 2.5, "tandem": 1, "collateral": -2.0, "tortuosity_z": 2.0, "core_ml": 5.0,
    "tmax4_ml": 200.0, "tmax6_ml": 120.0, "tmax10_ml": 30.0, "cbv_index": 0.4, "tangle_grain_mm": 5.0,
    "lesion_grain_mm": 5.0, "lkw_to_groin_min": 900.0,
}  # fmt: skip
#: Latents whose effect on the segmented vessels is looked at too.
SEGMENTED = ("clot_hu", "perviousness_hu", "siphon_calcium", "collateral", "truncal")
BASE = {
    "age": 80.0, "male": 1, "site": "M1", "side": 1, "m2_inferior": 0, "truncal": 1,
    "other_stenosis": 0, "tandem": 0, "core_ml": 50.0, "tmax4_ml": 260.0, "tmax6_ml": 160.0,
    "tmax10_ml": 70.0, "clot_length_mm": 9.0, "siphon_calcium": 0.5, "scanner": "A",
    "tangle_ml": 30.0,
}  # fmt: skip


class Recorded(dict):
    """A patient that remembers which latents were looked at."""

    def __init__(self, patient):
        super().__init__(patient)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


@pytest.fixture(scope="module")
def moved(people):
    """Which modalities change when one latent does."""
    base, firsts = people[0] | BASE, {}
    found = {}
    for latent, value in CHANGED.items():
        site = "M2" if latent == "m2_inferior" else "M1"  # the trunk decides nothing in M1
        if site not in firsts:
            firsts[site] = shown(base, site=site)
        first, second = firsts[site], shown(base, **{"site": site, latent: value})
        found[latent] = {
            modality
            for modality, scans in MODALITIES.items()
            if any(not np.array_equal(first.scans[s][0], second.scans[s][0]) for s in scans)
        }
        if "cta" in found[latent] and latent in SEGMENTED:
            segmented = [vessels.segment(*r.scans["cta"]) for r in (first, second)]
            if not np.array_equal(*segmented):
                found[latent].add("vessels")
    return found


@pytest.mark.parametrize("latent", CHANGED)
def test_a_latent_is_visible_exactly_where_the_ceiling_says(moved, latent):
    """The ceiling's register of visible latents and the renderer agree, latent by latent."""
    visible = {m for m in MODALITIES if latent in VISIBLE[m]}
    if latent in SEGMENTED:
        visible |= {"vessels"} & {m for m in VISIBLE if latent in VISIBLE[m]}
    assert moved[latent] == visible


def test_register_of_visible_latents_is_complete(people):
    """Whatever the renderer looks at is in the register, or cannot tell anything of the outcome."""
    patient = Recorded(people[0] | BASE)
    rendering.render(patient, np.random.SeedSequence([4, 1, 9]))
    told = {latent for modality in VISIBLE.values() for latent in modality}
    silent = {
        "scanner",
        "has_ncct",
        "has_cta",
        "has_ctp",
        "infarct_scale",
        "lesion_freedom",
        "tangle_ml",
    }
    assert patient.read - silent == told == set(CHANGED)


def test_tangles_of_collaterals_have_their_volume_on_the_affected_side(people):
    """Whatever their grain; none where a scenario has none."""
    for grain in (5.0, 18.0):
        patient = people[0] | {"tangle_ml": 40.0, "tangle_grain_mm": grain, "has_ctp": 0}
        found = shown(patient, has_ncct=0)
        mask, affine = found.masks["vessels"]
        ml = (mask == 3).sum() * abs(np.linalg.det(affine)) / 1000
        assert ml == pytest.approx(40, rel=0.25)
        x = head_coordinates(mask.shape, affine, found.truth)[..., 0][mask == 3]
        assert (np.sign(x) == (1 if patient["side"] == 1 else -1)).all()
    assert not (shown(people[0], has_ncct=0, has_ctp=0).masks["vessels"][0] == 3).any()


def test_painted_tube_keeps_its_volume():
    z = np.arange(10, 50, 0.3)
    for spacing in ((1.5, 1.5, 1.5), (0.5, 0.5, 1.0)):
        shape = tuple(int(60 / s) for s in spacing)
        grid = Grid(shape, spacing, (0.0, 0.0, 0.0))
        for radius in (0.4, 1.0, 3.0):
            points = np.stack([np.full_like(z, 29.3), np.full_like(z, 30.1), z], axis=1)
            share, product = ct.paint(points, np.full(len(z), radius), np.full(len(z), 300.0), grid)
            inner = share[:, :, int(18 / spacing[2]) : int(42 / spacing[2])]
            area = inner.sum(axis=(0, 1)).mean() * spacing[0] * spacing[1]
            assert area == pytest.approx(np.pi * radius**2, rel=0.10)
            np.testing.assert_allclose(product, 300 * share, rtol=1e-4)


def test_same_stream_same_scans_and_other_stream_others(people):
    first, again, other = shown(people[2]), shown(people[2]), shown(people[2], index=10)
    for name in first.scans:
        np.testing.assert_array_equal(first.scans[name][0], again.scans[name][0])
        assert not np.array_equal(first.scans[name][0], other.scans[name][0])


def test_only_the_scans_that_were_made_are_there(people):
    found = shown(people[3], has_cta=0, has_ctp=0)
    assert set(found.scans) == set(found.sidecars) == {"ncct"}
    assert set(found.masks) == {"clot", "lesion", "territory"}


def test_lost_calibres_are_named():
    assert rendering.lost_calibres(rendering.GRIDS["fine"]) == []
    lost = rendering.lost_calibres(PLAN.with_cta_mm(3.0))
    assert "M1: 3.1 mm drawn as 4.5 mm" in lost
