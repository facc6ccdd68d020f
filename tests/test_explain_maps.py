import dataclasses

import nibabel
import numpy as np
import pandas as pd
import phantoms
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from rlvo_lib import encoders, experiment, explain, images, preprocess
from rlvo_lib.config import InputError, load_settings
from rlvo_lib.explain import attribution, layers
from rlvo_lib.explain import maps as on_scans
from rlvo_lib.fusion import build_model

OF_MODEL = [name for name, method in explain.METHODS.items() if not method.control]


@pytest.fixture(scope="module")
def task(analysis, tensors):
    experiment.run_arms(analysis, tensors, ["daft"])
    return experiment.plan(analysis, tensors, ["daft"])[0]


@pytest.fixture
def model(analysis, tensors, task):
    return explain.FusedModel.load(analysis, tensors, task)


@pytest.fixture(scope="module")
def people(analysis, tensors, task):
    return [str(p) for p in explain.unseen(analysis, tensors, task)[:3]]


class Corner(torch.nn.Module):
    """A network that is the mean of one corner of its first channel, standardised."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, image, tabular=None):
        d, h, w = (n // 2 for n in image.shape[2:])
        return image[:, :1, d:, h:, w:].mean(dim=(1, 2, 3, 4))[:, None]


# ------------------------------------------------------------------------------------- methods


@pytest.mark.parametrize("method", ["integrated_gradients", "expected_gradients", "occlusion"])
def test_a_map_shows_the_region_that_the_model_looks_at(model, people, method):
    looks = dataclasses.replace(model, network=Corner(model.network.encoder))
    bright = torch.ones_like(model.images(people[:1]))
    found = explain.attribute(looks, people[:1], method, images=bright)[0]
    d, h, w = (n // 2 for n in found.shape)
    inside = found[d + 3 :, h + 3 :, w + 3 :]
    assert inside.min() >= 0 and inside.mean() > 0
    assert np.abs(found[: d - 3, : h - 3, : w - 3]).max() < 1e-6
    against = explain.attribute(looks, people[:1], method, images=bright, target="other")[0]
    np.testing.assert_array_equal(against, -found)


def test_integrated_gradients_add_up_to_the_change_from_the_mean_image(model, people):
    channels = explain.attribute_channels(model, people, "integrated_gradients")
    image, tabular = model.images(people), model.tabular(people)
    mean = model.mean_image.expand_as(image)
    wanted = model.logits(image, tabular) - model.logits(mean, tabular)
    found = channels.sum(axis=(1, 2, 3, 4))
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    whole = explain.attribute(model, people, "integrated_gradients")
    np.testing.assert_allclose(channels.sum(axis=1), whole, atol=1e-6)


def test_expected_gradients_add_up_to_the_change_from_the_background_where_the_model_is_linear(
    model, people
):
    looks = dataclasses.replace(model, network=Corner(model.network.encoder))
    found = explain.attribute(looks, people, "expected_gradients").sum(axis=(1, 2, 3))
    own = looks.logits(model.images(people), None)
    others = looks.logits(model.images(model.background), None)
    np.testing.assert_allclose(found, own - others.mean(), rtol=1e-3, atol=1e-5)


def test_occlusion_is_that_of_captum(model, people):
    from captum.attr import Occlusion

    image, tabular = model.images(people[:1]), model.tabular(people[:1])
    box, step = attribution.occluding_box(tuple(image.shape[2:]))
    with torch.inference_mode():
        wanted = Occlusion(lambda x: model.network(x, tabular.expand(len(x), -1))[:, 0]).attribute(
            image, (7, box, box, box), (7, step, step, step), model.mean_image,
            perturbations_per_eval=16,
        )  # fmt: skip
    found = explain.attribute(model, people[:1], "occlusion")
    np.testing.assert_allclose(found, wanted[:, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("method", list(explain.METHODS))
def test_a_method_s_maps_are_of_its_kind_and_repeat(model, people, method):
    torch.set_num_threads(1)
    found = explain.attribute(model, people, method)
    assert found.shape == (3, *model.analysis.settings.grid_shape) and found.dtype == np.float32
    assert np.isfinite(found).all() and not any(map(explain.is_flat, found))
    assert (found.min() < 0) == explain.METHODS[method].signed
    np.testing.assert_array_equal(explain.attribute(model, people, method), found)
    alone = explain.attribute(model, people[1:2], method)[0]
    np.testing.assert_allclose(alone, found[1], atol=1e-5 * np.abs(found).max())
    assert not any(module.training for module in model.network.modules())


def test_a_model_that_ignores_the_image_has_flat_maps_and_controls_do_not_notice(model, people):
    with torch.no_grad():
        model.network.head.weight.zero_()
    for method in explain.METHODS:
        flat = [explain.is_flat(one) for one in explain.attribute(model, people, method)]
        assert flat == [method in OF_MODEL] * 3, method


@pytest.mark.parametrize("method", list(explain.METHODS))
def test_an_absent_scan_stays_absent(analysis, tensors, task, people, method):
    patient = people[0]
    record = tensors.records[patient]
    lacking = record | {"channels": record["channels"][:-1], "reasons": {"tmax": "not made"}}
    fewer = dataclasses.replace(tensors, records=tensors.records | {patient: lacking})
    settings = dataclasses.replace(analysis.settings, absent="flag")
    flagged = dataclasses.replace(analysis, settings=settings)
    parts, encoder = experiment.fold_encoder(flagged, fewer, task)
    network = experiment.build_network(settings, task.arm, len(encoder.names)).eval()
    model = explain.FusedModel(flagged, fewer, task, network, encoder, parts["train"])
    assert torch.isnan(model.images([patient])[0, -1]).all()
    found = explain.attribute(model, [patient], method)
    assert np.isfinite(found).all() and np.abs(found).max() > 0
    if explain.METHODS[method].by_channel:
        assert not explain.attribute_channels(model, [patient], method)[0, -1].any()


@pytest.mark.parametrize("inputs", ["per-modality", "shared"])
def test_maps_of_layers_sum_over_the_encoders_of_scans(analysis, tensors, task, people, inputs):
    channels = ("ncct", "cta")
    arm = dataclasses.replace(task.arm, channels=channels)
    settings = dataclasses.replace(analysis.settings, encoder_inputs=inputs)
    other = dataclasses.replace(analysis, settings=settings)
    task = dataclasses.replace(task, what=arm)
    parts, encoder = experiment.fold_encoder(other, tensors, task)
    network = experiment.build_network(settings, arm, len(encoder.names)).eval()
    model = explain.FusedModel(other, tensors, task, network, encoder, parts["train"])
    found = explain.attribute(model, people, "hirescam")
    blocks = [f"encoder.trunks.{k}.blocks.0" for k in range(len(network.encoder.trunks))]
    assert len(blocks) == (2 if inputs == "per-modality" else 1)
    each = [explain.attribute(model, people, "hirescam", layer=name) for name in blocks]
    np.testing.assert_allclose(found, np.sum(each, axis=0), atol=1e-6)
    assert np.isfinite(explain.attribute(model, people, "gradcam")).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "lime"}, "method 'lime' is not known; allowed: gradcam, hirescam"),
        ({"target": "both"}, "target 'both' is not known; allowed: outcome, other"),
        ({"layer": "encoder.trunk"}, "layer 'encoder.trunk' is not one of the network; allowed: encoder, "),
        ({"layer": "head"}, "the layer holds no map"),
        ({"layer": "encoder", "method": "occlusion"}, "which looks at none; allowed with: gradcam, hirescam"),
        ({"images": torch.zeros(2, 7, 16, 20, 16)}, "2 images for 1 patients"),
    ],
)  # fmt: skip
def test_what_cannot_be_attributed(model, people, arguments, words):
    given = {"method": "gradcam"} | arguments
    with pytest.raises(InputError, match=words):
        explain.attribute(model, people[:1], **given)


def test_channels_are_told_apart_only_by_some_methods(model, people):
    with pytest.raises(InputError, match="allowed: integrated_gradients, expected_gradients"):
        explain.attribute_channels(model, people, "occlusion")


def test_a_model_without_images_has_no_maps(analysis, tensors, model, task, people):
    arm = dataclasses.replace(task.arm, channels=())
    blind = dataclasses.replace(model, task=dataclasses.replace(task, what=arm))
    with pytest.raises(InputError, match="no image channels and no convolution"):
        explain.attribute(blind, people, "gradcam")
    with pytest.raises(InputError, match="no image channels and no convolution"):
        explain.maps_of_folds(analysis, tensors, [blind.task])


# -------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("encoder", "wanted"),
    [
        ("light", (8, 0)),
        ("daft-resnet", (8, 0.5)),
        ("monai-resnet", (8, 0)),
        ("monai-densenet", (8, 2)),
    ],
)
def test_where_a_layer_looks_follows_from_strides_and_borders(encoder, wanted):
    network = build_model(encoder=encoder, in_channels=2, base_filters=2).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert layers.looks_at(network, "encoder") == pytest.approx(wanted, abs=1e-5)
    assert layers.looks_at(network, "block") == pytest.approx((16, wanted[1]), abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_feature_lies_on_the_map_where_the_image_moves_it(model, people):
    """A network that reads one feature voxel: its map peaks where the image's gradient is centred."""

    class One(torch.nn.Module):
        def __init__(self, encoder, block):
            super().__init__()
            self.encoder, self.block = encoder, block

        def forward(self, image, tabular=None):
            return self.encoder(image)[:, :, 3, 3, 3].sum(dim=1, keepdim=True)

    torch.manual_seed(0)
    network = One(encoders.Encoder(1, base_filters=4), model.network.block).eval()
    image = torch.rand(4, 1, 48, 48, 48, requires_grad=True)
    slope = torch.autograd.grad(network(image).sum(), image)[0][:, 0].abs().sum(dim=0).numpy()
    at = ndimage.center_of_mass(slope)
    stride, offset = layers.looks_at(network, "encoder")
    assert at == pytest.approx([stride * 3 + offset] * 3, abs=1.0)
    one = np.zeros((6, 6, 6))
    one[3, 3, 3] = 1
    placed = layers.spread(one, stride, offset, (48, 48, 48))
    assert ndimage.center_of_mass(placed) == pytest.approx(at, abs=1.0)
    stretched = ndimage.zoom(one, 8, order=1, grid_mode=True, mode="nearest")
    assert np.allclose(ndimage.center_of_mass(stretched), 27.5), "edge to edge is 3.5 voxels off"


# ----------------------------------------------------------------------------------- on scans

BLOB = {"left": np.array([-36.0, 8.0, -62.0]), "right": np.array([36.0, 8.0, -62.0])}  # world mm


def _stored(how):
    """The NCCT grid of the phantoms, its voxels in another order, or turned in the world."""
    shape, affine = (72, 88, 34), phantoms.NCCT[1].copy()
    if how == "LAS":
        affine[:, 3] = affine @ [71, 0, 0, 1]
        affine[:, 0] *= -1
    elif how == "oblique":
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("ZYX", [9, -6, 7], degrees=True).as_matrix()
        affine = turn @ affine
    elif how == "PSR":
        affine = affine[:, [1, 2, 0, 3]]
        shape = (88, 34, 72)
        affine[:, 3] = affine @ [87, 0, 0, 1]
        affine[:, 0] *= -1
    return shape, affine


@pytest.mark.parametrize(
    ("how", "side"),
    [("RAS", "left"), ("LAS", "left"), ("LAS", "right"), ("oblique", "right"), ("PSR", "right")],
)  # fmt: skip
def test_a_bright_place_is_found_again_at_its_world_position(tmp_path, how, side):
    """Scan to tensor to map to NIfTI: voxel order, turn, head pose and flip to one side included."""
    shape, affine = _stored(how)
    head = phantoms.pose(dx=3, dy=-4, yaw=5, roll=-3)
    data = phantoms.dataset(tmp_path, {"sub-0001": side, "sub-0002": side})
    hu = phantoms.template_hu(shape, affine, head)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    away = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - BLOB[side], axis=-1)
    bright = hu + 60 * np.exp(-0.5 * (away / 3.5) ** 2)
    for participant, volume in (("sub-0001", hu), ("sub-0002", bright)):
        path = phantoms.scan_path(tmp_path, participant, "ncct")
        images.save_nifti(path, np.rint(volume).astype(np.int16), affine)
    settings = load_settings(
        "smoke", cache=tmp_path / "cache", out=tmp_path / "run", workers=1,
        grid_shape=(32, 40, 32), grid_spacing_mm=3.0,
    )  # fmt: skip
    cache = preprocess.prepare(data, settings)
    assert cache.records["sub-0002"]["flipped"] == (side == "right")
    plain, lit = cache.load(["sub-0001", "sub-0002"], ["ncct"]).astype(np.float32)[:, 0]
    map_ = lit - plain
    assert np.linalg.norm(on_scans.peak_mm(cache, "sub-0002", map_, "ncct") - BLOB[side]) < 3.5
    opened = dataclasses.make_dataclass("Opened", ["settings", "dataset"])(settings, data)
    on_scans.save_map(opened, cache, "sub-0002", map_, "ncct", "map.nii.gz", "log-odds")
    file = nibabel.load(settings.out / "map.nii.gz")
    scan = nibabel.load(phantoms.scan_path(tmp_path, "sub-0002", "ncct"))
    assert file.shape == scan.shape
    np.testing.assert_allclose(file.affine, scan.affine, atol=1e-4)
    assert nibabel.aff2axcodes(file.affine) == nibabel.aff2axcodes(scan.affine)
    header = file.header
    assert header.get_xyzt_units()[0] == "mm"
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-3)
    native = np.asarray(file.dataobj)
    strong = np.where(native > 0.5 * native.max(), native, 0)
    at = ndimage.center_of_mass(strong)
    assert np.linalg.norm((file.affine @ [*at, 1])[:3] - BLOB[side]) < 3.0, (
        "within a voxel of the tensor"
    )
    shown = np.asarray(scan.dataobj, float)[tuple(np.rint(at).astype(int))]
    assert shown > 60, "the scan itself is bright where the map peaks"


def test_maps_of_patients_are_kept_and_those_on_scans_follow(analysis, tensors, task, tmp_path):
    settings = dataclasses.replace(analysis.settings, out=tmp_path / "run")
    here = dataclasses.replace(analysis, settings=settings)
    maps = explain.maps_of_folds(here, tensors, [task], ["gradcam", "occlusion", "edges"])
    again = explain.maps_of_folds(here, tensors, [task], ["gradcam", "occlusion", "edges"])
    assert len(maps.participants) == settings.mapped_patients
    for method, values in maps.values.items():
        np.testing.assert_array_equal(again.values[method], values)
        np.testing.assert_array_equal(maps.by_model[method][0], values)
    table = explain.write_maps(here, tensors, maps)
    assert set(table["method"]) == {"gradcam", "occlusion"}, "controls are not written"
    assert table["participant_id"].nunique() == settings.saliency_patients
    for row in table.itertuples():
        loaded, affine = images.load_nifti(settings.out / row.map)
        own = tensors.records[row.participant_id]["scans"][row.scan]
        assert list(loaded.shape) == own["shape"]
        np.testing.assert_allclose(affine, own["affine"], atol=1e-3)
        array = maps.of(row.participant_id, row.method)
        assert row.highest == array.max() and loaded.max() <= array.max() + 1e-6
        assert row.y_true == analysis.y[row.participant_id] and row.reason == ""
    header = nibabel.load(settings.out / table["map"][0]).header
    assert header["descrip"].item().decode().startswith("SIMULATED DATA")


def test_a_flat_map_is_said_and_not_written(analysis, tensors, people, tmp_path):
    settings = dataclasses.replace(analysis.settings, out=tmp_path / "run")
    here = dataclasses.replace(analysis, settings=settings)
    flat = explain.Maps(
        "daft", people, {"gradcam": np.zeros((3, *settings.grid_shape), np.float32)}
    )
    table = explain.write_maps(here, tensors, flat, people[:1])
    assert table["reason"].tolist() == ["no gradient reaches the image"]
    assert table["map"].tolist() == [""] and table[["x_mm", "y_mm", "z_mm"]].isna().all(axis=None)
    assert not list(tmp_path.rglob("*.nii.gz"))


def test_a_patient_s_map_is_the_mean_over_the_models_that_did_not_see_the_patient():
    one = np.ones((2, 1, 1, 1)), np.full((2, 1, 1, 1), 3.0)
    mean = on_scans._mean_over_models(["a", "b", "c"], [["a", "b"], ["b", "c"]], one)
    assert mean.ravel().tolist() == [1.0, 2.0, 3.0]


def test_maps_are_of_one_arm_and_of_known_methods(analysis, tensors, task):
    with pytest.raises(InputError, match="method 'lime' is not known"):
        explain.maps_of_folds(analysis, tensors, [task], ["lime"])
    other = dataclasses.replace(task, what=dataclasses.replace(task.arm, name="film"))
    with pytest.raises(InputError, match="maps of the arms daft, film"):
        explain.maps_of_folds(analysis, tensors, [task, other], ["edges"])


def test_groups_are_by_label_and_by_outcome_of_prediction():
    y = pd.Series({"a": 1, "b": 1, "c": 0, "d": 0, "e": 0})
    found = explain.groups(y, pd.Series({"a": 0.5, "b": 0.4, "c": 0.9, "d": 0.1, "e": np.nan}), 0.5)
    assert found == {
        "outcome": ["a", "b"], "no outcome": ["c", "d"], "TP": ["a"], "FN": ["b"], "FP": ["c"], "TN": ["d"],
    }  # fmt: skip


def test_group_maps_lie_on_the_template(analysis, tensors, people, tmp_path):
    settings = dataclasses.replace(analysis.settings, out=tmp_path / "run")
    here = dataclasses.replace(analysis, settings=settings)
    values = np.zeros((3, *settings.grid_shape), np.float32)
    values[0, 2, 5, 7], values[1, 2, 5, 7], values[2, 9, 9, 9] = 1.0, 3.0, 8.0
    maps = explain.Maps("daft", people, {"gradcam": values})
    table = explain.write_group_maps(
        here, maps, {"TP": people[:2], "FP": ["sub-none"], "TN": people[2:]}
    )
    assert table["n"].tolist() == [2, 0, 1] and table["map"].tolist()[1] == ""
    loaded, affine = images.load_nifti(settings.out / table["map"][0])
    assert loaded[2, 5, 7] == 2.0 == table["highest"][0]
    np.testing.assert_allclose(affine, explain.template_affine(here), atol=1e-4)
    place = affine @ [2, 5, 7, 1]
    assert table.loc[0, ["x_mm", "y_mm", "z_mm"]].tolist() == pytest.approx(place[:3], abs=0.06)
    assert place[0] < 0, "the affected side is the left one"
    pose = np.array(tensors.records[people[0]]["head_to_world"])
    to_tensor = np.linalg.inv(tensors.affine(people[0])) @ pose
    flip = np.diag([-1.0 if tensors.records[people[0]]["flipped"] else 1.0, 1, 1, 1])
    np.testing.assert_allclose((to_tensor @ flip @ place)[:3], [2, 5, 7], atol=1e-3)


def test_the_window_of_a_scan_is_that_of_its_channel(tensors, people):
    low, high, unit = explain.window_of(tensors, people[0], "ncct")
    assert low < high and unit == "HU"
    with pytest.raises(InputError, match="no channel shows scan 'dwi'"):
        explain.window_of(tensors, people[0], "dwi")


def test_occlusion_is_the_same_in_either_order_of_memory(analysis, tensors, task):
    maps = []
    for last in (True, False):
        settings = dataclasses.replace(analysis.settings, channels_last=last)
        model = explain.FusedModel.load(analysis, tensors, task)
        model = dataclasses.replace(
            model, analysis=dataclasses.replace(analysis, settings=settings)
        )
        ids = explain.chosen(analysis, tensors, task, 2)
        maps.append(explain.attribute(model, ids, "occlusion"))
    np.testing.assert_allclose(*maps, atol=1e-5)
    assert np.abs(maps[0]).max() > 1e-5
