import pytest
import torch

from rlvo_lib.config import ENCODERS
from rlvo_lib.fusion import FUSIONS, AffineModulation, BlockScales, TabularNet, build_model, pooled

FUSED = [f for f in FUSIONS if f != "none"]
MODULATED = [(f, location) for f in ("film", "daft") for location in range(5)]


def _model(fusion, **options):
    torch.manual_seed(0)
    options = dict(in_channels=1, n_outputs=3, n_tabular=0 if fusion == "none" else 14) | options
    return build_model(fusion=fusion, **options)


def _inputs(n=2, channels=1, side=16):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(n, channels, side, side, side, generator=generator)
    return image, torch.rand(n, 14, generator=generator)


def _count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("fusion", "locations", "parameters"),
    [
        ("none", (3,), 56_535),
        ("concat1fc", (3,), 56_577),
        ("concat2fc", (3,), 56_639),
        ("1fc-concat-1fc", (3,), 56_607),
        ("interactive", (3,), 56_855),
        ("film", (0, 1, 2), 56_719),
        ("film", (3,), 56_783),
        ("film", (4,), 56_847),
        ("daft", (0, 1, 2), 56_783),
        ("daft", (3,), 56_911),
        ("daft", (4,), 56_975),
    ],
)
def test_published_parameter_counts(fusion, locations, parameters):
    for location in locations:
        assert _count(_model(fusion, location=location)) == parameters


@pytest.mark.parametrize(("pooling", "width"), [("mean", 32), ("max", 32), ("mean-max", 64)])
def test_the_head_sees_what_was_pooled(pooling, width):
    model = _model("none", pooling=pooling)
    assert model.head.in_features == width
    model.eval()
    image = torch.rand(2, 1, 32, 32, 32)
    features = model.block(model.encoder(image))
    parts = {"mean": features.mean((2, 3, 4)), "max": features.flatten(2).max(2).values}
    seen = torch.cat([parts[name] for name in pooling.split("-")], 1)
    torch.testing.assert_close(model(image), model.head(seen))


def test_pooling_widens_every_fusion_and_another_is_refused():
    for fusion in ("concat1fc", "concat2fc", "1fc-concat-1fc", "film", "daft"):
        wide = _model(fusion, pooling="mean-max")
        assert wide(torch.rand(2, 1, 32, 32, 32), torch.rand(2, 14)).shape == (2, 3)
    with pytest.raises(ValueError, match="pooling 'median' is not known; allowed: mean, max"):
        _model("daft", pooling="median")


# --------------------------------------------------------------------------------- FiLM and DAFT


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


def _fixed(model, alpha, beta):
    """Let a model's modulation take these numbers for every α and β."""
    modulation = model.block.modulation

    def coefficients(features, tabular):
        ones = torch.ones(features.shape[:2])
        return alpha * ones, beta * ones

    modulation.coefficients = coefficients
    return model


@pytest.mark.parametrize(("fusion", "location"), MODULATED)
def test_alpha_one_and_beta_zero_is_the_image_only_network(fusion, location):
    image, tabular = _inputs()
    fused, plain = _model(fusion, location=location).eval(), _model("none").eval()
    shared = {k: v for k, v in fused.state_dict().items() if "modulation" not in k}
    missing, unknown = plain.load_state_dict(shared, strict=False)
    assert missing == (["block.norm1.weight", "block.norm1.bias"] if location == 3 else [])
    assert not unknown
    torch.testing.assert_close(_fixed(fused, 1.0, 0.0)(image, tabular), plain(image))
    assert not torch.allclose(_fixed(fused, 2.0, 0.3)(image, tabular), plain(image))


@pytest.mark.parametrize("location", range(5))
def test_each_location_touches_what_it_says(location):
    """The block by hand, α = 2 and β = 0.3 written where the location is."""
    block = _fixed(_model("film", location=location).eval(), 2.0, 0.3).block
    block.norm1.running_mean.uniform_(-0.1, 0.1), block.norm2.running_mean.uniform_(-0.1, 0.1)
    x = torch.rand(2, 16, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    main, skip = (2 * x + 0.3 if location in (0, k) else x for k in (2, 1))
    out = block.norm1(block.conv1(main))
    out = torch.relu(2 * out + 0.3 if location == 3 else out)
    out = block.norm2(block.conv2(2 * out + 0.3 if location == 4 else out))
    torch.testing.assert_close(block(x, None), torch.relu(out + block.skip(skip)))
    # and in the modules' own inputs: which path sees the features as they were
    seen = {}
    for name in ("conv1", "skip", "norm1", "conv2"):
        module = getattr(block, name)
        module.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    block(x, None)
    assert torch.equal(seen["conv1"], x) is (location not in (0, 2))
    assert torch.equal(seen["skip"], x) is (location not in (0, 1))
    assert (seen["conv2"].min() >= 0.3) == (location == 4)  # shifted after the ReLU


@pytest.mark.parametrize("location", range(5))
def test_only_location_3_takes_the_norm_its_own_scale(location):
    block = _model("daft", location=location).block
    assert block.norm1.affine is (location != 3)
    assert block.norm2.affine and block.skip[1].affine
    assert block.modulation.expand.out_features == 2 * (16 if location < 3 else 32)


def test_film_coefficients_do_not_see_the_image_and_daft_ones_do():
    features, tabular = torch.rand(1, 32, 2, 2, 2), torch.rand(1, 14)
    for fusion, same in (("film", True), ("daft", False)):
        modulation = _model(fusion).block.modulation
        a = modulation.coefficients(features, tabular)[0]
        assert torch.equal(modulation.coefficients(3 * features + 1, tabular)[0], a) is same


@pytest.mark.parametrize(
    ("switches", "rows"), [({}, 16), (dict(shift=False), 8), (dict(scale=False), 8)]
)
def test_scale_only_and_shift_only(switches, rows):
    modulation = AffineModulation(8, 5, 3, sees_image=True, **switches)
    features, tabular = torch.rand(2, 8, 2, 2, 2), torch.rand(2, 5)
    alpha, beta = modulation.coefficients(features, tabular)
    assert modulation.expand.out_features == rows and alpha.shape == beta.shape == (2, 8)
    assert torch.equal(alpha, torch.ones(2, 8)) is (switches == dict(scale=False))
    assert torch.equal(beta, torch.zeros(2, 8)) is (switches == dict(shift=False))


@pytest.mark.parametrize(
    ("activation", "function"), [("tanh", torch.tanh), ("sigmoid", torch.sigmoid)]
)
def test_activation_is_of_alpha_never_of_beta(activation, function):
    features, tabular = torch.rand(2, 8, 2, 2, 2), 50 * torch.rand(2, 5)
    torch.manual_seed(0)
    linear = AffineModulation(8, 5, 3, sees_image=False)
    torch.manual_seed(0)
    bent = AffineModulation(8, 5, 3, sees_image=False, activation=activation)
    alpha, beta = linear.coefficients(features, tabular)
    assert alpha.abs().max() > 1 and beta.abs().max() > 1
    assert torch.equal(bent.coefficients(features, tabular)[0], function(alpha))
    assert torch.equal(bent.coefficients(features, tabular)[1], beta)


@pytest.mark.parametrize(("fusion", "location"), MODULATED)
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_identity_start_is_the_image_only_network_at_first(fusion, location, activation):
    image, tabular = _inputs()
    model = _model(fusion, location=location, identity_start=True, activation=activation).eval()
    plain = _model("none").eval()
    shared = {k: v for k, v in model.state_dict().items() if "modulation" not in k}
    plain.load_state_dict(shared, strict=False)
    torch.testing.assert_close(model(image, tabular), plain(image))
    assert _count(model) == _count(_model(fusion, location=location))
    model(image, tabular).sum().backward()  # and it can leave the start
    assert model.block.modulation.expand.weight.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------ interactive


def _interactive(**options):
    """An interactive network in evaluation whose a_k are about 1, not the vanishing ones of a start."""
    model = _model("interactive", **options).eval()
    with torch.no_grad():
        for weight in model.scales.parameters():
            weight.uniform_(0, 4 / weight.shape[1])
    return model


def test_interactive_multiplies_the_input_of_each_block():
    image, tabular = _inputs()
    model = _interactive()
    a = model.scales(tabular)
    assert [v.shape[1] for v in a] == [4, 4, 8, 16]
    wide = [v[:, :, None, None, None] for v in a]
    trunk = model.encoder.trunks[0]
    x = trunk.stem(image)
    for k, block in enumerate(trunk.blocks):
        x = block(wide[k] * x)
    by_hand = model.head(pooled(model.block(wide[3] * x)))
    torch.testing.assert_close(model(image, tabular), by_hand)
    assert not torch.allclose(model.head(pooled(model.block(x))), by_hand)


def test_interactive_scales_are_one_chain_of_layers():
    scales, t = BlockScales(14, (4, 4, 8, 16)), torch.rand(2, 14)
    first = torch.relu(t @ scales.reduce.weight.T)
    second = first @ scales.expand[0].weight.T @ scales.expand[1].weight.T
    torch.testing.assert_close(scales(t)[1], second)
    assert _count(scales) == 14 * 8 + 8 * 4 + 4 * 4 + 4 * 8 + 8 * 16


def test_scales_of_one_are_the_image_only_network():
    image, tabular = _inputs()
    fused, plain = _model("interactive").eval(), _model("none").eval()
    plain.load_state_dict({k: v for k, v in fused.state_dict().items() if "scales" not in k})
    fused.scales.forward = lambda t: [torch.ones(len(t), n) for n in (4, 4, 8, 16)]
    torch.testing.assert_close(fused(image, tabular), plain(image))


def test_interactive_works_with_one_encoder_a_scan():
    image, tabular = _inputs(channels=2)
    scans = (("ncct", (0,)), ("cta", (1,)))
    for share in (True, False):
        model = _interactive(in_channels=2, scans=scans, share_weights=share)
        one_by_one = torch.cat([model(image[i : i + 1], tabular[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(model(image, tabular), one_by_one)
        assert not torch.allclose(model(image, tabular.flip(0)), one_by_one)


# --------------------------------------------------------------------------------- concatenation


@pytest.mark.parametrize("fusion", ["concat1fc", "concat2fc", "1fc-concat-1fc"])
def test_concatenation_by_hand(fusion):
    image, tabular = _inputs()
    model = _model(fusion).eval()
    gap = pooled(model.block(model.encoder(image)))
    if fusion == "1fc-concat-1fc":
        z = torch.cat([gap, torch.relu(model.hidden(tabular))], 1)
    else:
        z = torch.cat([gap, tabular], 1)
        z = torch.relu(model.hidden(z)) if fusion == "concat2fc" else z
    torch.testing.assert_close(model(image, tabular), model.head(z))


# ----------------------------------------------------------------------------------- every fusion


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("fusion", FUSED)
def test_both_inputs_matter_and_get_gradients(fusion, encoder):
    image, tabular = _inputs(4)
    image.requires_grad_(), tabular.requires_grad_()
    model = _model(fusion, encoder=encoder)  # in training, where batch norm keeps features apart
    logits = model(image, tabular)
    assert logits.shape == (4, 3)
    (logits * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    assert image.grad.abs().sum() > 0 and tabular.grad.abs().sum() > 0
    assert not torch.allclose(model(image, tabular.flip(0)), logits)


@pytest.mark.parametrize("location", range(5))
def test_tabular_data_matter_at_every_location(location):
    image, tabular = _inputs()
    tabular.requires_grad_()
    model = _model("daft", location=location).eval()
    logits = model(image, tabular)
    logits.sum().backward()
    assert tabular.grad.abs().sum() > 0
    assert not torch.allclose(model(image, tabular.flip(0)), logits)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fuse_continues_from_the_encoder_or_says_why_not(fusion):
    image, tabular = _inputs()
    model = _model(fusion).eval()
    logits = model(image, tabular)
    if fusion == "interactive":
        assert model.trunk_needs_tabular
        with pytest.raises(
            ValueError, match="fusion 'interactive', whose encoder depends on the tab"
        ):
            model.fuse(model.encoder(image), tabular)
    else:
        assert not model.trunk_needs_tabular
        assert torch.equal(model.fuse(model.encoder(image), tabular), logits)
    assert torch.equal(model.finish(model.trunk(image, tabular), tabular), logits)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_same_seed_gives_the_same_gradients(encoder):
    def gradients():
        image, tabular = _inputs()
        model = _model("daft", encoder=encoder)
        model(image, tabular).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(gradients(), gradients())
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_bfloat16_and_channels_last_compute_the_same_function(fusion):
    image, tabular = _inputs(4)
    model = _model(fusion, flags=True).eval()
    plain = model(image, tabular)
    last = model.to(memory_format=torch.channels_last_3d)
    image_last = image.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(last(image_last, tabular), plain, atol=1e-4, rtol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(image, tabular).float(), plain, atol=0.02, rtol=0)


def test_a_narrow_network_keeps_one_unit_between_the_layers():
    assert _model("daft", base_filters=1, n_tabular=1).block.modulation.reduce.out_features == 1


def test_tabular_network_ignores_the_image():
    assert TabularNet(14, 2)(None, _inputs()[1]).shape == (2, 2)


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(fusion="gate"), f"fusion 'gate' is not known; allowed: {', '.join(FUSIONS)}"),
        (dict(fusion="daft"), "fusion 'daft' needs tabular data"),
        (dict(encoder="vgg"), "encoder 'vgg' is not known"),
        (dict(location=5), "location 5 is not known; allowed: 0: block input, both paths; 1:"),
        (dict(location=-1), "location -1 is not known"),
        (dict(scale=False, shift=False), "scale and shift are both False; allowed: one of them"),
        (dict(activation="relu"), "activation 'relu' is not known; allowed: linear, tanh, sigmoid"),
        (
            dict(activation="sigmoid", identity_start=True),
            "identity_start with activation 'sigmoid'; allowed: linear, tanh",
        ),
    ],
)
def test_bad_models(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(in_channels=1, **options)


@pytest.mark.parametrize("fusion", FUSED)
def test_wrong_tabular_width_is_named(fusion):
    image, tabular = _inputs()
    with pytest.raises(ValueError, match=r"tabular data of shape \(2, 13\); allowed: \(N, 14\)"):
        _model(fusion)(image, tabular[:, :13])
    with pytest.raises(ValueError, match="tabular data of shape None"):
        _model(fusion)(image)


def test_more_channels_than_the_model_was_built_for_are_named():
    with pytest.raises(ValueError, match=r"shape \(2, 2, 16, 16, 16\); allowed: \(N, 1, D, H, W\)"):
        _model("none")(_inputs(channels=2)[0])


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("side", [8, 12, 16, 17, 20])
def test_a_training_batch_of_one_works_or_is_named(encoder, side):
    image, tabular = _inputs(1, side=side)
    model = _model("daft", encoder=encoder, base_filters=1)
    assert torch.isfinite(model.eval()(image, tabular)).all()
    one_voxel = model.encoder(image).shape[2] <= 2
    model.train()
    if one_voxel:
        words = rf"batch of 1 image on a grid of \({side}, {side}, {side}\) voxels"
        with pytest.raises(ValueError, match=words):
            model(image, tabular)
    else:
        assert torch.isfinite(model(image, tabular)).all()


def test_a_training_batch_of_one_on_a_larger_grid_is_fine():
    image, tabular = _inputs(1, side=32)
    assert torch.isfinite(_model("daft").train()(image, tabular)).all()
