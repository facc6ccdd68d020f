import dataclasses

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import experiment, explain, images, results
from rlvo_lib.config import InputError
from rlvo_lib.explain import atlas
from rlvo_lib.explain import regions as parts


@pytest.fixture(scope="module")
def occluded(analysis, tensors):
    """Patients whose occlusion was found on the affected side, and who have all scans."""
    table = tensors.table
    found = table["measured_occlusion"].eq(1) & table["available"].map(len).eq(7)
    return [str(p) for p in table.index[found]]


def test_the_atlas_is_that_of_the_generic_anatomy():
    labels, affine = atlas.build()
    kept, place = atlas.load()
    np.testing.assert_array_equal(kept, labels)
    np.testing.assert_allclose(place, affine)
    swapped = np.array([0, 4, 5, 6, 1, 2, 3, 7])[labels[::-1]]
    np.testing.assert_array_equal(swapped, labels)  # its mirror image
    right = (affine @ [*np.argwhere(labels == 2).mean(axis=0), 1])[0]
    assert right > 20, "label 2 is the right MCA"


def test_territories_lie_on_a_patient_where_the_simulator_drew_them(analysis, tensors):
    dice = []
    for participant in tensors.table.index[:6]:
        labels = atlas.on_tensor(analysis.settings, tensors, participant)
        file = (
            analysis.dataset.root
            / "derivatives/truth"
            / participant
            / f"{participant}_territory.nii.gz"
        )
        drawn, affine = images.load_nifti(file)
        to_drawn = np.linalg.inv(affine) @ tensors.affine(participant)
        wanted = atlas.nearest(drawn.astype(np.uint8), to_drawn, labels.shape)
        seen = images.field_of_view(drawn.shape, affine, tensors.affine(participant), labels.shape)
        for label in (1, 2, 3, 4, 5, 6):
            both, one, other = (
                (labels == label) & seen & (wanted == label),
                (labels == label) & seen,
                wanted == label,
            )
            if other.sum() > 30:
                dice.append(2 * both.sum() / (one.sum() + other.sum()))
    assert np.mean(dice) > 0.85 and min(dice) > 0.6


def test_an_atlas_of_other_labels_is_refused(tmp_path):
    path = images.save_nifti(tmp_path / "atlas.nii.gz", np.full((4, 4, 4), 9, np.uint8), np.eye(4))
    with pytest.raises(InputError, match="holds the value 9; allowed in an atlas: labels 0 to 7"):
        atlas.load(path)


def test_structures_lie_where_the_simulator_drew_them(analysis, tensors, occluded):
    """The measured occlusion holds the true clot, core and penumbra are the true ones."""
    held, dice = [], []
    for participant in occluded[:8]:
        found = explain.regions_of(analysis, tensors, participant, judged=True)
        own, drawn = found.masks["structure"], found.masks["truth"]
        held.append((own["occlusion"] & drawn["clot"]).any())
        both = (own["penumbra"] & drawn["penumbra"]).sum()
        dice.append(2 * both / (own["penumbra"].sum() + drawn["penumbra"].sum()))
        assert not (own["core"] & own["penumbra"]).any()
        assert not (own["vessels"] & own["vessel_wall"]).any()
        assert (own["rest"] & own["contralateral"]).sum() == 0
        assert (drawn["lesion"] >= drawn["clot"]).all()
    assert np.mean(held) > 0.8 and np.mean(dice) > 0.9


def test_the_contralateral_half_is_beyond_the_midline_on_either_side(analysis, tensors):
    for side in ("left", "right"):
        participant = tensors.table.index[tensors.table["side"] == side][0]
        found = explain.regions_of(analysis, tensors, participant)
        beyond = np.argwhere(found.masks["structure"]["contralateral"])
        world = beyond @ tensors.affine(participant)[:3, :3].T + tensors.affine(participant)[:3, 3]
        pose = np.linalg.inv(tensors.records[participant]["head_to_world"])
        x = world @ pose[0, :3] + pose[0, 3]
        assert (x < 0).all() if side == "right" else (x > 0).all()
        mca = found.masks["territory"]["mca"] & ~found.masks["structure"]["contralateral"]
        assert mca.sum() > 0.95 * found.masks["territory"]["mca"].sum()


def test_truth_is_only_of_simulated_patients(analysis, tensors):
    real = dataclasses.replace(analysis.dataset, simulated=False)
    with pytest.raises(InputError, match="is not simulated: nobody knows its truth"):
        explain.truth(dataclasses.replace(analysis, dataset=real), tensors, tensors.table.index[0])
    elsewhere = dataclasses.replace(analysis.dataset, root=analysis.settings.cache)
    with pytest.raises(InputError, match="no truth in derivatives/truth"):
        explain.truth(
            dataclasses.replace(analysis, dataset=elsewhere), tensors, tensors.table.index[0]
        )


def test_a_thin_mask_is_kept_on_a_coarse_grid():
    thin = np.zeros((20, 20, 20), bool)
    thin[10, 10, 4:16] = True  # 1 mm wide
    coarse = np.diag([4.0, 4, 4, 1])
    assert not parts.on_grid(thin, np.eye(4), coarse, (5, 5, 5)).any()
    kept = parts.on_grid(thin, np.eye(4), coarse, (5, 5, 5), any_of_it=True)
    assert [tuple(at) for at in np.argwhere(kept)] == [(2, 2, k) for k in (1, 2, 3, 4)]


def test_shares_are_of_the_field_and_what_lies_outside_is_told():
    array, field = np.zeros((4, 4, 4), np.float32), np.ones((4, 4, 4), bool)
    field[3] = False
    core = np.zeros_like(field)
    core[0, 0] = True
    array[0, 0, 0], array[1, 1, 1], array[2, 2, 2], array[3, 3, 3] = 3.0, 1.0, -5.0, 12.0
    rows = {row[0]: row[2:] for row in parts.shares_of(array, field, [("structure", "core", core)])}
    assert rows["core"] == (0.75, 0.0, 4 / 48, 1.0, "")
    share, negative, volume, hit, _ = rows["outside"]
    assert (share, negative, volume, hit) == (0.75, 0.0, 0.25, 1.0)
    flat = parts.shares_of(array * 0, field, [("structure", "core", core)])[0]
    assert np.isnan(flat[2]) and np.isnan(flat[5]) and flat[6] == "no gradient reaches the image"
    below = parts.shares_of(-np.abs(array), field, [("structure", "core", core)])[0]
    assert np.isnan(below[2]) and below[6] == "nothing in the field speaks for the outcome"


def test_regions_of_maps_and_their_enrichment(analysis, tensors):
    """A map that is the lesion is enriched in it, one of noise in nothing."""
    experiment.run_arms(analysis, tensors, ["daft"])
    task = experiment.plan(analysis, tensors, ["daft"])[0]
    people = [str(p) for p in explain.unseen(analysis, tensors, task)]
    lesion = [explain.truth(analysis, tensors, p)["penumbra"] for p in people]
    noise = np.random.default_rng(0).normal(size=(len(people), *lesion[0].shape)).astype(np.float32)
    maps = explain.Maps("daft", people, {"lesion": np.float32(lesion), "noise": noise})
    shares = explain.region_shares(analysis, tensors, maps)
    assert set(shares["kind"]) == {"structure", "territory", "truth"}
    pd.testing.assert_frame_equal(explain.region_shares(analysis, tensors, maps), shares)
    table = results.region_enrichment(shares, data="simulated", resamples=200)
    assert table.columns[-1] == "data"
    table = table.set_index(["method", "kind", "region"])
    own = table.loc[("lesion", "truth", "penumbra")]
    assert own["share"] == 1 and own["hit_rate"] == 1 and own["low"] > 1
    assert own["enrichment"] == pytest.approx(1 / own["chance"])
    assert table.loc[("lesion", "structure", "penumbra"), "low"] > 1
    by_chance = table.loc["noise"].query("region in ['penumbra', 'mca', 'rest']")
    assert by_chance["enrichment"].between(0.9, 1.1).all()
    assert by_chance["enrichment_negative"].between(0.9, 1.1).all()


def _row(participant, share, volume, **other):
    return {
        "participant_id": participant, "arm": "a", "method": "m", "region": "core", "kind": "structure",
        "share": share, "share_negative": 0.0, "volume_share": volume, "hit": 1.0,
    } | other  # fmt: skip


def test_enrichment_is_a_ratio_of_means():
    rows = [_row("p1", 0.0, 0.1), _row("p2", 0.6, 0.1), _row("p3", np.nan, 0.9, hit=np.nan)]
    found = results.region_enrichment(pd.DataFrame(rows), data="real").iloc[0]
    assert found["enrichment"] == pytest.approx(3.0)  # 0.3 / 0.1; p3 is flat and counts in neither
    assert (found["low"], found["high"]) == pytest.approx((0.0, 6.0))
    assert (found["n"], found["chance"], found["hit_rate"], found["data"]) == (2, 0.1, 1.0, "real")


def test_enrichment_is_set_against_the_edges_of_the_same_patients():
    rows = [_row(f"p{k}", 0.2 + 0.1 * k, 0.1) for k in range(3)]
    rows += [_row(f"p{k}", 0.1 + 0.05 * k, 0.1, method="edges") for k in range(2)]
    found = results.region_enrichment(pd.DataFrame(rows), data="real").set_index("method")
    over = found.loc["m", ["over_control", "low_over_control", "high_over_control"]]
    assert over.tolist() == pytest.approx([2.0, 2.0, 2.0])  # p2 has no edges and is left out
    assert found.loc["m", "enrichment"] == pytest.approx(3.0)
    assert np.isnan(found.loc["edges", "over_control"])


def test_enrichment_does_not_depend_on_the_order_of_rows():
    rows = pd.DataFrame([_row(f"p{k}", 0.1 * k, 0.2) for k in range(6)])
    first = results.region_enrichment(rows, data="real")
    pd.testing.assert_frame_equal(results.region_enrichment(rows[::-1], data="real"), first)


def test_one_patient_has_no_interval_and_a_column_may_not_lack():
    found = results.region_enrichment(pd.DataFrame([_row("p1", 0.5, 0.1)]), data="real").iloc[0]
    assert np.isnan(found["enrichment"]) and found["reason"].startswith("1 patients")
    with pytest.raises(InputError, match="column 'share' is missing"):
        results.region_enrichment(
            pd.DataFrame([_row("p1", 0.5, 0.1)]).drop(columns="share"), data="real"
        )
