"""Maps of what in an image moves a network's logit: six methods, and two controls that know nothing.

All maps are on the tensor's grid, summed over the image's channels; positive speaks for the target. The value a
map compares with ("absent") is the mean image of training patients, or those patients one by one, never zeros.
What a map says is about the model, not about the disease.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlvo_lib.config import InputError
from rlvo_lib.explain.layers import find_layer, looks_at, spread
from rlvo_lib.explain.model import FusedModel

TARGETS = {"outcome": 1.0, "other": -1.0}
STEPS = 16  # between baseline and image: Gauss-Legendre nodes, or background patients
BOX_SHARE = 0.25  # side of the occluding box, as a share of the smallest grid side
BOXES = 200  # an occlusion moves the box by half its side, unless these would be more; then by all of it
NOISE_SD_SHARE = 1 / 16  # smoothness of the random control, as a share of the smallest grid side


@dataclass(frozen=True)
class Method:
    """A way to attribute: its name in words, the unit of its maps, and what it can do.

    signed : whether a negative value speaks against the target (else none is negative).
    layered : whether it looks at a layer, which can be chosen. by_channel : whether it tells channels apart.
    control : it looks at no model and must fail the checks of explanations.
    """

    label: str
    unit: str
    signed: bool = True
    layered: bool = False
    by_channel: bool = False
    control: bool = False


METHODS = {
    "gradcam": Method("Grad-CAM", "log-odds, weight × feature", layered=True),
    "hirescam": Method("HiResCAM, first block", "log-odds, gradient × feature", layered=True),
    "integrated_gradients": Method("Integrated gradients", "log-odds a voxel", by_channel=True),
    "expected_gradients": Method("Expected gradients", "log-odds a voxel", by_channel=True),
    "occlusion": Method("Occlusion", "change of the log-odds"),
    "edges": Method("Edges of the image (control)", "window a voxel", signed=False, control=True),
    "random": Method("Random (control)", "SD", control=True),
}  # fmt: skip


def attribute(
    model: FusedModel,
    participants: Sequence[str],
    method: str,
    *,
    layer: str = "",
    images: Tensor | None = None,
    target: str = "outcome",
) -> np.ndarray:
    """Maps of several patients on the tensor's grid, (N, D, H, W) float32, in the method's unit.

    Parameters
    ----------
    method
        One of `METHODS`. ``gradcam`` (Selvaraju et al., ICCV 2017) without its ReLU: the positive part is the
        published map, the negative part that of the other class; ``hirescam`` (Draelos & Carin, 2020);
        ``integrated_gradients`` (Sundararajan et al., ICML 2017) from `FusedModel.mean_image`;
        ``expected_gradients`` (Erion et al., 2021) over `FusedModel.background`; ``occlusion`` (Zeiler & Fergus,
        ECCV 2014) by boxes of the mean image.
    layer
        Of the ``layered`` methods, a name of ``network.named_modules()``; empty: the trunk's output for
        ``gradcam``, the first block for ``hirescam``.
    images
        (N, C, D, H, W) in the place of the patients' own.
    target
        ``outcome``: positive raises the logit; ``other``: positive lowers it.

    Raises
    ------
    InputError
        For an unknown method, layer or target, a model without images, or a patient lacking a channel of which the
        network is not told.
    """
    known, sign = _checked(method, layer, target)
    image = _images(model, participants, images)
    if known.control:
        maps = [_CONTROLS[method](model, p, x) for p, x in zip(participants, image, strict=True)]
        return np.stack(maps).astype(np.float32) * np.float32(sign if known.signed else 1.0)
    tabular = model.tabular(participants)
    if known.layered:
        return sign * _of_layers(model, image, tabular, method, layer)
    return _one_by_one(model, image, tabular, _BY_IMAGE[method], sign).sum(axis=1)


def attribute_channels(
    model: FusedModel,
    participants: Sequence[str],
    method: str,
    *,
    images: Tensor | None = None,
    target: str = "outcome",
) -> np.ndarray:
    """Maps (N, C, D, H, W) float32 of each image channel, of a method that tells them apart.

    See `attribute`, which is their sum over channels.
    """
    known, sign = _checked(method, "", target)
    if not known.by_channel:
        allowed = ", ".join(name for name, one in METHODS.items() if one.by_channel)
        raise InputError(f"method '{method}' does not tell channels apart; allowed: {allowed}")
    image = _images(model, participants, images)
    return _one_by_one(model, image, model.tabular(participants), _BY_IMAGE[method], sign)


def is_flat(values: np.ndarray) -> bool:
    """Whether a map is the same everywhere: no gradient reaches the image, so nothing can be drawn.

    >>> is_flat(np.zeros((2, 2, 2)))
    True
    """
    return not np.ptp(values) > 0


def _checked(method: str, layer: str, target: str) -> tuple[Method, float]:
    if method not in METHODS:
        raise InputError(f"method '{method}' is not known; allowed: {', '.join(METHODS)}")
    if target not in TARGETS:
        raise InputError(f"target '{target}' is not known; allowed: {', '.join(TARGETS)}")
    if layer and not METHODS[method].layered:
        allowed = ", ".join(name for name, one in METHODS.items() if one.layered)
        raise InputError(
            f"layer '{layer}' with method '{method}', which looks at none; allowed with: {allowed}"
        )
    return METHODS[method], TARGETS[target]


def _images(model: FusedModel, participants: Sequence[str], images: Tensor | None) -> Tensor:
    model.require_images()
    image = model.images(participants) if images is None else model.placed(images)
    if len(image) != len(participants):
        raise InputError(
            f"{len(image)} images for {len(participants)} patients; allowed: one for each"
        )
    return image


# ---------------------------------------------------------------------------------- the network


@dataclass(frozen=True)
class _OfImage:
    """The logit (N,) as a function of images without NaN; a channel absent in ``like`` stays absent."""

    model: FusedModel
    like: Tensor  # (1 or N, C, D, H, W)

    def __call__(self, image: Tensor, tabular: Tensor | None = None) -> Tensor:
        absent = self.like.isnan().flatten(2).all(2)[:, :, None, None, None]
        if absent.any():
            image = image.masked_fill(absent, float("nan"))
        if tabular is not None and len(tabular) != len(image):
            tabular = tabular.repeat(len(image) // len(tabular), 1)
        return self.model.network(image, tabular)[:, 0]


def _one_by_one(
    model: FusedModel, image: Tensor, tabular: Tensor | None, explain: Callable, sign: float
) -> np.ndarray:
    """Maps (N, C, D, H, W) of a method that takes one patient at a time."""
    maps = []
    for k in range(len(image)):
        own = None if tabular is None else tabular[k : k + 1]
        found = explain(model, _OfImage(model, image[k : k + 1]), image[k : k + 1], own)
        maps.append(sign * found.detach().float().cpu().numpy()[0])
    return np.stack(maps).astype(np.float32)


def _captum(name: str) -> type:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of captum's own imports
        from captum import attr
    return getattr(attr, name)


def _baseline(model: FusedModel, image: Tensor) -> Tensor:
    """The mean image of training patients; what is absent in the patient is absent in both."""
    return model.placed(torch.where(image.isnan(), torch.zeros_like(image), model.mean_image))


def _integrated_gradients(
    model: FusedModel, logit: _OfImage, image: Tensor, tabular: Tensor | None
) -> Tensor:
    return _captum("IntegratedGradients")(logit).attribute(
        image.nan_to_num(0.0), _baseline(model, image), additional_forward_args=tabular,
        n_steps=STEPS, method="gausslegendre", internal_batch_size=model.batch,
    )  # fmt: skip


def _expected_gradients(
    model: FusedModel, logit: _OfImage, image: Tensor, tabular: Tensor | None
) -> Tensor:
    """Mean over background patients b of (x - b) × gradient at b + a (x - b), one a of each stratum of 0..1."""
    mean, x = _baseline(model, image), image.nan_to_num(0.0)
    pool = model.background
    chosen = [
        pool[k] for k in np.linspace(0, len(pool) - 1, min(STEPS, len(pool))).round().astype(int)
    ]
    rng = np.random.default_rng(model.analysis.settings.seed)
    places = (rng.permutation(len(chosen)) + 0.5) / len(chosen)
    total = torch.zeros_like(x)
    for start in range(0, len(chosen), model.batch):
        part = chosen[start : start + model.batch]
        other = model.images(part)
        away = x - torch.where(other.isnan() | image.isnan(), mean, other)
        a = torch.as_tensor(places[start : start + len(part)], dtype=x.dtype, device=x.device)
        between = model.placed(x - (1 - a[:, None, None, None, None]) * away)
        between = between.detach().requires_grad_()
        with torch.enable_grad():
            slope = torch.autograd.grad(logit(between, tabular).sum(), between)[0]
        total = total + (slope * away).sum(dim=0, keepdim=True)
    return total / len(chosen)


def _occlusion(model: FusedModel, logit: _OfImage, image: Tensor, tabular: Tensor | None) -> Tensor:
    channels, *shape = image.shape[1:]
    box, step = occluding_box(tuple(shape))
    with torch.inference_mode():
        found = _captum("Occlusion")(logit).attribute(
            image.nan_to_num(0.0), (channels, box, box, box), (channels, step, step, step),
            _baseline(model, image), additional_forward_args=tabular,
            perturbations_per_eval=model.batch,
        )  # fmt: skip
    return found[:, :1]  # a box holds all channels, each of which bears the whole change


def occluding_box(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Side of the occluding box and how far it moves, in voxels.

    >>> occluding_box((32, 40, 32)), occluding_box((128, 160, 128))
    ((8, 8), (32, 32))
    """
    box = max(2, int(min(shape) * BOX_SHARE))
    step = max(1, box // 2)
    many = np.prod([-(-(n - box) // step) + 1 for n in shape])
    return box, step if many <= BOXES else box


_BY_IMAGE = {
    "integrated_gradients": _integrated_gradients,
    "expected_gradients": _expected_gradients,
    "occlusion": _occlusion,
}


# ----------------------------------------------------------------------------------- its layers


def _of_layers(
    model: FusedModel, image: Tensor, tabular: Tensor | None, method: str, layer: str
) -> np.ndarray:
    """Maps (N, D, H, W) of a method that looks at feature maps, summed over its layers."""
    total = np.zeros((len(image), *image.shape[2:]), np.float32)
    for name in [layer] if layer else _own_layers(model, method):
        place, geometry = find_layer(model.network, name), looks_at(model.network, name)
        for start in range(0, len(image), model.batch):
            part = image[start : start + model.batch]
            own = None if tabular is None else tabular[start : start + len(part)]
            features = _LAYERED[method](_OfImage(model, part), place, part.nan_to_num(0.0), own)
            features = features.reshape(-1, len(part), *features.shape[1:]).sum(axis=0)
            for k, one in enumerate(features, start):
                total[k] += spread(one, *geometry, image.shape[2:])
    return total


def _own_layers(model: FusedModel, method: str) -> list[str]:
    """The trunk's output, or the first block of each trunk."""
    if method == "gradcam":
        return ["encoder"]
    return [f"encoder.trunks.{k}.blocks.0" for k in range(len(model.network.encoder.trunks))]


def _gradcam(logit: _OfImage, place: object, image: Tensor, tabular: Tensor | None) -> np.ndarray:
    """(M, d, h, w): channels of the layer, weighted by the mean gradient each has; their sum."""
    found = _captum("LayerGradCam")(logit, place).attribute(
        image.requires_grad_(), additional_forward_args=tabular, relu_attributions=False
    )
    return found.detach().float().cpu().numpy()[:, 0]


def _hirescam(logit: _OfImage, place: object, image: Tensor, tabular: Tensor | None) -> np.ndarray:
    """(M, d, h, w): gradient times value of the layer, voxel by voxel; their sum over channels."""
    found = _captum("LayerGradientXActivation")(logit, place).attribute(
        image.requires_grad_(), additional_forward_args=tabular
    )
    return found.detach().float().cpu().numpy().sum(axis=1)


_LAYERED = {"gradcam": _gradcam, "hirescam": _hirescam}


# ------------------------------------------------------------------------------------- controls


def _edges(_model: FusedModel, _participant: str, image: Tensor) -> np.ndarray:
    """Size of the image's gradient, summed over channels: what any picture has, whatever the model."""
    steps = np.gradient(image.nan_to_num(0.0).cpu().numpy(), axis=(1, 2, 3))
    return np.sqrt(np.sum(np.square(steps), axis=0)).sum(axis=0)


def _random(model: FusedModel, participant: str, image: Tensor) -> np.ndarray:
    """Smooth noise of SD 1 that depends on the patient's name and the run's seed."""
    from scipy import ndimage

    seed = [model.analysis.settings.seed, zlib.crc32(str(participant).encode())]
    noise = np.random.default_rng(seed).normal(size=tuple(image.shape[1:]))
    smooth = ndimage.gaussian_filter(noise, NOISE_SD_SHARE * min(noise.shape), mode="wrap")
    return smooth / smooth.std()


_CONTROLS = {"edges": _edges, "random": _random}
