import pytest
import torch

from rlvo_lib.fusion import FUSIONS, build_model, pooled


def _model(fusion, **options):
    torch.manual_seed(0)
    n_tabular = 0 if fusion == "none" else 14
    return build_model(fusion=fusion, in_channels=1, n_tabular=n_tabular, n_outputs=3, **options)


def _inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 1, 32, 32, 32, generator=generator), torch.rand(2, 14, generator=generator)


@pytest.mark.parametrize(
    ("fusion", "parameters"),
    [("none", 56_535), ("concat1fc", 56_577), ("film", 56_783), ("daft", 56_911)],
)
def test_published_parameter_counts(fusion, parameters):
    assert sum(p.numel() for p in _model(fusion).parameters()) == parameters


@pytest.mark.parametrize("fusion", ["film", "daft"])
def test_modulation_is_alpha_times_features_plus_beta(fusion):
    modulation = _model(fusion).block.modulation
    features, tabular = torch.rand(2, 32, 2, 2, 2), torch.rand(2, 14)
    alpha, beta = modulation.coefficients(features, tabular)
    z = torch.cat([pooled(features), tabular], 1) if fusion == "daft" else tabular
    by_hand = torch.relu(z @ modulation.reduce.weight.T) @ modulation.expand.weight.T
    torch.testing.assert_close(torch.cat([alpha, beta], 1), by_hand)
    out = modulation(features, tabular)
    torch.testing.assert_close(out[0, 3], alpha[0, 3] * features[0, 3] + beta[0, 3])


def test_alpha_one_and_beta_zero_is_the_image_only_network():
    image, tabular = _inputs()
    fused, plain = _model("daft").eval(), _model("none").eval()
    shared = {k: v for k, v in fused.state_dict().items() if "modulation" not in k}
    plain.load_state_dict(shared, strict=False)
    ones, zeros = torch.ones(2, 32), torch.zeros(2, 32)
    fused.block.modulation.coefficients = lambda features, tabular: (ones, zeros)
    torch.testing.assert_close(fused(image, tabular), plain(image))


@pytest.mark.parametrize("fusion", [f for f in FUSIONS if f != "none"])
def test_both_inputs_matter_and_get_gradients(fusion):
    image, tabular = _inputs()
    image.requires_grad_(), tabular.requires_grad_()
    model = _model(fusion).eval()
    logits = model(image, tabular)
    logits.sum().backward()
    assert image.grad.abs().sum() > 0 and tabular.grad.abs().sum() > 0
    assert not torch.allclose(model(image, tabular.flip(0)), logits)


def test_film_coefficients_do_not_see_the_image_and_daft_ones_do():
    features, tabular = torch.rand(1, 32, 2, 2, 2), torch.rand(1, 14)
    for fusion, same in (("film", True), ("daft", False)):
        modulation = _model(fusion).block.modulation
        a = modulation.coefficients(features, tabular)[0]
        assert torch.equal(modulation.coefficients(3 * features + 1, tabular)[0], a) is same


def test_fuse_continues_from_the_encoder():
    image, tabular = _inputs()
    model = _model("daft").eval()
    torch.testing.assert_close(model.fuse(model.encoder(image), tabular), model(image, tabular))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(fusion="gate"), "fusion 'gate' is not known; allowed: none, concat1fc, film, daft"),
        (dict(fusion="daft"), "fusion 'daft' needs tabular data"),
        (dict(encoder="vgg"), "encoder 'vgg' is not known"),
    ],
)
def test_bad_models(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(in_channels=1, **options)


def test_wrong_tabular_width_is_named():
    image, tabular = _inputs()
    with pytest.raises(ValueError, match=r"tabular data of shape \(2, 13\); allowed: \(N, 14\)"):
        _model("daft")(image, tabular[:, :13])
    with pytest.raises(ValueError, match="tabular data of shape None"):
        _model("daft")(image)
