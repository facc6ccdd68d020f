"""Virtual lesions in the territories of an atlas, and what models make of them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from rlvo_lib import experiment, explain, images, results, storage
from rlvo_lib.analysis import open_analysis
from rlvo_lib.config import InputError, load_settings
from rlvo_lib.dataset import scan_path
from rlvo_lib.explain import atlas, lesions, territories
from rlvo_lib.explain.model import FusedModel
from rlvo_lib.preprocess.cache import patient_task

N, SHAPE = 40, (20, 24, 17)
AFFINE = np.array([[-8.0, 0, 0, 78], [0, 8, 0, -112], [0, 0, 8, -50], [0, 0, 0, 1]])
VOXEL_ML = 0.512
TABLES = ["clinical_territories", "clinical_volume"]
BESIDE = [*TABLES, "daft_untaught"]


def _labels():
    """Sixteen pairs of blocks of 8 x 5 x 4 voxels (82 mL); odd labels on the left, as the source's atlas."""
    labels = np.zeros(SHAPE, np.uint8)
    for pair in range(16):
        y, z = divmod(pair, 4)
        block = (slice(2 + 5 * y, 7 + 5 * y), slice(4 * z, 4 * z + 4))
        labels[(slice(11, 19), *block)] = 2 * pair + 1  # x in the world below 0
        labels[(slice(2, 10), *block)] = 2 * pair + 2
    return labels


def _write(root, study, rng):
    labels, rows = _labels(), []
    for i in range(N):
        centre = np.array([rng.integers(3, 17), rng.integers(4, 20), rng.integers(3, 14)])
        apart = np.indices(SHAPE) - centre.reshape(3, 1, 1, 1)
        mask = (apart**2).sum(axis=0) <= (1 + i % 4) ** 2
        images.save_nifti(scan_path(root, f"sub-{i}", study.scans["lesion"]), mask, AFFINE)
        parts = np.bincount(labels[mask], minlength=33) * VOXEL_ML
        poor = parts[1:17].sum() > 5 or i % 5 == 0
        row = {
            "participant_id": f"sub-{i}",
            "age": 40 + i,
            "sex": i % 2,
            "race": "w",
            "acute_stroke": 1,
        }
        row |= {"prior_stroke": int(i % 3 == 0), "bmi": 20 + i % 9, "nihss": i % 20, "etiology": 1}
        row |= {"lesion_ml": round(mask.sum() * VOXEL_ML, 3), "mrs_discharge": 4 if poor else 1}
        rows.append(row | {f"territory_{k:02d}_ml": round(parts[k], 3) for k in range(1, 33)})
    pd.DataFrame(rows).astype(str).to_csv(root / "participants.tsv", sep="\t", index=False)
    about = {"Name": "invented", "BIDSVersion": "1.10.0", "simulated": True}
    storage.write_json(root / "dataset_description.json", about)
    images.save_nifti(root / study.explain_atlas.path, labels, AFFINE)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Forty invented patients with an atlas, two folds, two repetitions."""
    folder = tmp_path_factory.mktemp("territories")
    (folder / "data").mkdir()
    settings = load_settings(
        "smoke", study="soop", data=folder / "data", out=folder / "run", cache=folder / "cache",
        workers=1, epochs_max=1, base_filters=2,
    )  # fmt: skip
    _write(folder / "data", settings.study, np.random.default_rng(2))
    plan = settings.study.validation | {"repeats": 2, "folds": 2}
    study = dataclasses.replace(settings.study, validation=plan)
    return open_analysis(dataclasses.replace(settings, study=study))


@pytest.fixture(scope="module")
def tensors(opened):
    return opened.tensors()


@pytest.fixture(scope="module")
def tasks(opened, tensors):
    experiment.run_arms(opened, tensors, ["daft", "daft_untaught", *TABLES])
    return experiment.plan(opened, tensors, ["daft"])


@pytest.fixture(scope="module")
def asked(opened, tensors, tasks):
    return explain.territory_logits(opened, tensors, tasks, beside=[*BESIDE, "clinical_logistic"])


# --------------------------------------------------------------------------------------- lesions


def test_a_lesion_is_compact_inside_its_territory_and_of_its_size():
    labels = _labels()
    laid = lesions.lay(labels, AFFINE)
    assert [(one.label, one.size_ml) for one in laid[:5]] == [
        (1, 1.0), (1, 3.0), (1, 10.0), (1, 30.0), (2, 1.0),
    ]  # fmt: skip
    for one in laid:
        assert set(labels.ravel()[one.voxels]) == {one.label}
        assert one.ml == pytest.approx(len(one.voxels) * VOXEL_ML)
        assert abs(one.ml - one.size_ml) <= VOXEL_ML / 2
    first = [set(one.voxels) for one in laid[:4]]
    assert first[0] < first[1] < first[2] < first[3], "nested"
    places = np.stack(np.unravel_index(laid[3].voxels, SHAPE), axis=1)
    assert np.ptp(places, axis=0).max() <= 6, "no line through the block, no scatter"


def test_a_territory_too_small_for_a_size_has_no_such_lesion():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[0, 0, :4], labels[5:, 5:, 5:] = 1, 2
    laid = lesions.lay(labels, np.diag([10.0, 10, 10, 1]), (1, 3, 10))
    assert [(one.label, one.size_ml) for one in laid] == [(1, 1), (1, 3), (2, 1), (2, 3), (2, 10)]


def test_the_lesion_starts_inside_a_bent_territory():
    labels = np.zeros((9, 9, 1), np.uint8)
    labels[0, :], labels[:, 0], labels[8, :] = 1, 1, 1  # its centroid lies in the open
    (one,) = lesions.lay(labels, np.diag([10.0, 10, 10, 1]), (3,))
    assert (labels.ravel()[one.voxels] == 1).all() and len(one.voxels) == 3


def test_an_atlas_with_other_labels_than_the_study_has_columns_is_refused(tmp_path):
    path = images.save_nifti(tmp_path / "atlas.nii.gz", _labels(), AFFINE)
    assert lesions.load_atlas(path, 32)[0].max() == 32
    with pytest.raises(InputError, match="33 labels from 0 to 32; allowed: 0 and all of 1 to 31"):
        lesions.load_atlas(path, 31)


def test_virtual_masks_pass_the_way_of_real_ones(opened, tensors):
    labels, task = _labels(), patient_task(opened.dataset, opened.settings, "sub-3")
    path = opened.dataset.scan("sub-3", "lesion")
    real = np.flatnonzero(images.load_nifti(path)[0].ravel())
    one = lesions.VirtualLesion(1, 1.0, len(real) * VOXEL_ML, real)
    made = lesions.on_grid(labels, AFFINE, [one], task, "lesion")
    assert made.shape == (2, 1, *opened.settings.grid_shape) and not made[0].any()
    np.testing.assert_array_equal(made[1], tensors.load(["sub-3"], ["lesion"])[0])


# ---------------------------------------------------------------------------------------- models


class _Linear(nn.Module):
    """Logit = sum of image x weight (D, H, W), plus a number of each patient's."""

    trunk_needs_tabular = False

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float32))

    def trunk(self, image, tabular=None):
        return image

    def fuse(self, features, tabular=None):
        return (features * self.weight).sum(dim=(1, 2, 3, 4))[:, None]


def test_a_linear_network_gives_its_own_order_of_territories(opened, tensors, tasks):
    """Weights known by territory: their order is found, and volume drops out."""
    weights = np.random.default_rng(5).permutation(32).astype(float)
    path = opened.dataset.root / opened.settings.study.explain_atlas.path
    labels, affine = lesions.load_atlas(path, 32)
    to_atlas = np.linalg.inv(affine) @ tensors.affine("sub-3")
    on_grid = atlas.nearest(labels, to_atlas, opened.settings.grid_shape)
    weight = np.where(on_grid > 0, weights[on_grid.astype(int) - 1], 0.0)
    what, _ = territories._what(opened, tensors, tasks[0].arm)
    model = FusedModel(opened, tensors, tasks[0], _Linear(weight), None, [])
    logits = territories.network_logits(model, ["sub-3", "sub-4"], what)
    assert logits.shape == (1 + len(what.laid), 2) and not logits[0].any()
    table = territories._named(territories.rows(tasks[0], what, logits), opened)
    risk = results.territory_risk(table, data="simulated")
    at = risk[risk["size_ml"] == 30].set_index("label")
    found = np.corrcoef(at["beyond_volume"].rank(), weights[at.index - 1])[0, 1]
    assert found > 0.98, "a coarse grid blurs neighbours, no more"
    flat = FusedModel(opened, tensors, tasks[0], _Linear(np.ones_like(weight)), None, [])
    volume = territories.network_logits(flat, ["sub-3"], what)[:, 0]
    np.testing.assert_allclose(volume, what.tensors.astype(float).sum(axis=(1, 2, 3, 4)), rtol=1e-5)
    ml = volume[1:] * opened.settings.grid_spacing_mm**3 / 1000
    apart = np.abs(ml / [one.ml for one in what.laid] - 1)
    assert apart.max() < 0.35 and apart.mean() < 0.1, (
        "voxels of 8 mm on a grid of 10 mm keep volume so far"
    )


def test_all_models_are_asked_with_patients_whom_they_did_not_see(asked, opened, tasks):
    assert list(asked.columns) == explain.TERRITORY_COLUMNS
    assert list(asked["arm"].unique()) == ["daft", *BESIDE], "clinical data alone see no lesion"
    for _, rows in asked.groupby("arm"):
        assert set(zip(rows["seed"], rows["fold"], strict=True)) == {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert set(asked["n"]) == {opened.settings.explained_patients}
    assert set(asked["side"]) == {"left", "right"} and asked["label"].nunique() == 32
    touched = (opened.dataset.table["territory_05_ml"] > 0).sum()
    assert set(asked.loc[asked["label"] == 5, "touched"]) == {touched}
    large = (opened.dataset.table["territory_05_ml"] >= 10).sum()
    own = asked[(asked["label"] == 5) & (asked["size_ml"] == 10)]
    assert set(own["as_large"]) == {large}


def test_a_model_of_the_table_is_given_the_volumes(asked, opened, tensors):
    task = experiment.plan(opened, tensors, ["clinical_territories"])[0]
    rows = asked[(asked["arm"] == "clinical_territories") & (asked["seed"] == task.seed)]
    row = rows[(rows["fold"] == task.fold) & (rows["label"] == 7) & (rows["size_ml"] == 10)].iloc[0]
    model = explain.TableModel.load(opened, tensors, task)
    ids = explain.chosen(opened, tensors, task, opened.settings.explained_patients, each=True)
    table = opened.dataset.table.loc[ids].copy()
    table[[c for c in table if c.startswith("territory_")]] = 0.0
    table["lesion_ml"] = table["territory_07_ml"] = row["ml"]
    logit = model.of_matrix(None, model.encoder.transform(table))
    assert row["logit"] == pytest.approx(logit.mean(), abs=1e-4)
    names = list(model.encoder.names)
    assert row["coefficient"] == pytest.approx(
        model.model.coef[names.index("territory_07_ml")], rel=1e-4
    )
    assert asked.loc[asked["arm"] != "clinical_territories", "coefficient"].isna().all()
    risk = results.territory_risk(asked, data="simulated")
    even = risk[risk["arm"] == "clinical_volume"]
    assert not even["beyond_volume"].any(), "volume alone tells no territories apart"


def test_asked_again_it_is_found_and_the_same(asked, opened, tensors, tasks, monkeypatch):
    def never(*_, **__):
        raise AssertionError("made anew")

    monkeypatch.setattr(territories, "network_logits", never)
    again = explain.territory_logits(opened, tensors, tasks, beside=BESIDE)
    pd.testing.assert_frame_equal(again, asked)


def test_who_was_taught_by_whom_is_said(opened):
    study = opened.settings.study
    said = explain.territory_teaching(study, ["daft", *BESIDE])
    assert said == "daft was taught by clinical_territories: these agree by construction. "
    assert explain.territory_teaching(study, ["daft", "clinical_volume"]) == ""


def test_the_caption_says_what_the_range_is(asked):
    words = explain.territory_caption(asked)
    assert "(1, 3, 10, 30 mL where it fits)" in words and "4 models an arm" in words
    assert "no confidence intervals" in words and "not what a lesion does" in words


def test_what_cannot_be_asked_says_why(opened, tensors, tasks, tmp_path, settings):
    arms = opened.settings.study.arms
    assert explain.territories_reason(opened, arms["daft"]) == ""
    assert "no network that sees" in explain.territories_reason(opened, arms["clinical_volume"])
    elsewhere = dataclasses.replace(opened.dataset, root=tmp_path)
    without = dataclasses.replace(opened, dataset=elsewhere)
    assert "holds no derivatives/atlas" in explain.territories_reason(without, arms["daft"])
    assert explain.territory_logits(without, tensors, tasks).empty
    none = dataclasses.replace(opened.settings.study, explain_atlas=None)
    other = dataclasses.replace(opened, settings=dataclasses.replace(opened.settings, study=none))
    assert "names no atlas" in explain.territories_reason(other, arms["daft"])


def test_the_offset_of_a_network_is_given_the_lesion_too(opened, tensors, tasks):
    """An arm that starts from the logit of a model of volumes: the virtual volume is its, not the patient's."""
    task = experiment.plan(opened, tensors, ["clinical_volume"])[0]
    base = explain.TableModel.load(opened, tensors, task)
    what, _ = territories._what(opened, tensors, tasks[0].arm)
    weight = np.zeros(opened.settings.grid_shape)
    model = FusedModel(
        opened, tensors, tasks[0], _Linear(weight), None, [], (base.encoder, base.model)
    )
    logits = territories.network_logits(model, ["sub-3"], what)
    known = territories.table_logits(base, ["sub-3"], what)
    np.testing.assert_allclose(logits, known, atol=1e-5)
    assert np.ptp(logits) > 0


def test_names_and_sides_are_the_dictionarys(opened):
    assert territories.territory_name(opened.dictionary, "territory_01_ml") == (
        "anterior cerebral artery", "left",
    )  # fmt: skip
    assert territories.territory_name(opened.dictionary, "lesion_ml")[1] == ""


def test_group_maps_of_masks_lie_over_the_territories(opened, tmp_path):
    picture = explain.template_picture(opened)
    assert picture.shape == opened.settings.grid_shape
    world = explain.template_affine(opened) @ [*np.argwhere(picture > 0).mean(axis=0), 1]
    inside = np.argwhere(_labels() > 0)
    middle = (AFFINE @ [*inside.mean(axis=0), 1])[:3]
    np.testing.assert_allclose(world[:3], middle, atol=6)
    assert len(np.unique(picture)) == 4, "three greys, and nothing"
    without = dataclasses.replace(
        opened, dataset=dataclasses.replace(opened.dataset, root=tmp_path)
    )
    assert explain.template_picture(without) is None


def test_each_model_is_asked_about_as_many_and_shares_have_both_outcomes(opened, tensors, tasks):
    first, second = tasks[:2]  # two folds of one seed, so 3 patients are 2 a fold
    assert len(explain.chosen(opened, tensors, first, 3)) == 2
    both = explain.chosen(opened, tensors, first, 3, each=True)
    assert len(both) == 3 and opened.y[both].sum() == 2
    assert opened.y[explain.chosen(opened, tensors, second, 3, each=True)].sum() == 1
    effects = explain.modulation_effects(opened, tensors, tasks[:1])
    assert set(effects["n"]) == {opened.settings.explained_patients}
    assert effects["alpha_sd"].notna().all()
