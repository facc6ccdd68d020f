"""Maps of what in an image moves a network's logit: six methods, and two controls that know nothing.

All maps are on the tensor's grid, summed over the image's channels; positive speaks for the target. The value a
map compares with ("absent") is the mean image of training patients, or those patients one by one, never zeros.
What a map says is about the model, not about the disease.
"""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlvo_lib.config import InputError
from rlvo_lib.explain.layers import find_layer, looks_at, spread
from rlvo_lib.explain.model import FusedModel

TARGETS = {"outcome": 1.0, "other": -1.0}
STEPS = 12  # between baseline and image: Gauss-Legendre nodes, or background patients
BOX_SHARE = 0.25  # side of the occluding box, as a share of the smallest grid side
BOXES = 100  # an occlusion moves the box by half its side, unless these would be more; then by all of it
BOXED_VOXELS = (
    150_000_000  # if all boxes have more to pass through the network, a third of the side instead
)
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
    "gradcam": Method("Grad-CAM", "log-odds, weight x feature", layered=True),
    "hirescam": Method("HiResCAM, first block", "log-odds, gradient x feature", layered=True),
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
        return np.float32(sign) * _of_layers(model, image, tabular, method, layer)
    maps = [one.sum(axis=0) for one in _BY_IMAGE[method](model, image, tabular)]
    return np.float32(sign) * np.stack(maps).astype(np.float32)


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
    maps = list(_BY_IMAGE[method](model, image, model.tabular(participants)))
    return np.float32(sign) * np.stack(maps).astype(np.float32)


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


def _captum(name: str) -> type:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of captum's own imports
        from captum import attr
    return getattr(attr, name)


def _baseline(model: FusedModel, image: Tensor) -> Tensor:
    """The mean image of training patients; what is absent in the patient is absent in both."""
    return model.placed(torch.where(image.isnan(), torch.zeros_like(image), model.mean_image))


def _integrated_gradients(
    model: FusedModel, image: Tensor, tabular: Tensor | None
) -> Iterator[np.ndarray]:
    for k in range(len(image)):
        one, own = image[k : k + 1], None if tabular is None else tabular[k : k + 1]
        found = _captum("IntegratedGradients")(_OfImage(model, one)).attribute(
            one.nan_to_num(0.0), _baseline(model, one), additional_forward_args=own,
            n_steps=STEPS, method="gausslegendre", internal_batch_size=model.batch,
        )  # fmt: skip
        yield found[0].detach().cpu().numpy()


def _expected_gradients(
    model: FusedModel, image: Tensor, tabular: Tensor | None
) -> Iterator[np.ndarray]:
    """Mean over background patients b of (x - b) × gradient at b + a (x - b), one a of each stratum of 0..1."""
    pool = model.background
    places = np.linspace(0, len(pool) - 1, min(STEPS, len(pool))).round().astype(int)
    shares = np.random.default_rng(model.analysis.settings.seed).permutation(len(places)) + 0.5
    for start in range(0, len(image), model.batch):
        part = image[start : start + model.batch]
        own = None if tabular is None else tabular[start : start + len(part)]
        logit, x, mean = _OfImage(model, part), part.nan_to_num(0.0), _baseline(model, part)
        total = torch.zeros_like(x)
        for place, share in zip(places, shares / len(places), strict=True):
            other = model.images([pool[place]])
            away = x - torch.where(other.isnan() | part.isnan(), mean, other)
            between = (x - (1 - share) * away).requires_grad_()
            with torch.enable_grad():
                slope = torch.autograd.grad(logit(between, own).sum(), between)[0]
            total += slope * away
        yield from (total / len(places)).cpu().numpy()


def _occlusion(model: FusedModel, image: Tensor, tabular: Tensor | None) -> Iterator[np.ndarray]:
    """How much the logit falls when a box of all channels is replaced; the mean of boxes that overlap.

    The same as captum's ``Occlusion``, which copies the image a few times more for each box.
    """
    box, step = occluding_box(tuple(image.shape[2:]))
    starts = [
        sorted({min(k, n - box) for k in range(0, n - box + step, step)}) for n in image.shape[2:]
    ]
    boxes = [tuple(slice(k, k + box) for k in place) for place in itertools.product(*starts)]
    for k in range(len(image)):
        logit, own = (
            _OfImage(model, image[k : k + 1]),
            None if tabular is None else tabular[k : k + 1],
        )
        x, mean = image[k : k + 1].nan_to_num(0.0), _baseline(model, image[k : k + 1])
        total, count = np.zeros((2, *image.shape[2:]))
        with torch.inference_mode():
            whole = float(logit(x, own)[0])
            for start in range(0, len(boxes), model.batch):
                part = boxes[start : start + model.batch]
                many = model.placed(x.repeat(len(part), *[1] * (x.ndim - 1)))
                many = (
                    many.clone() if len(part) == 1 else many
                )  # `repeat` of one may be the image itself
                for copy, place in zip(many, part, strict=True):
                    copy[:, *place] = mean[0][:, *place]
                for place, left in zip(part, logit(many, own).tolist(), strict=True):
                    total[place] += whole - left
                    count[place] += 1
        yield (total / count)[None]  # of all channels together


def occluding_box(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Side of the occluding box and how far it moves, in voxels.

    >>> occluding_box((32, 40, 32)), occluding_box((128, 160, 128))
    ((8, 8), (43, 43))
    """

    def boxes(box: int, step: int) -> int:
        return int(np.prod([-(-(n - box) // step) + 1 for n in shape]))

    box = max(2, int(min(shape) * BOX_SHARE))
    if boxes(box, box) * np.prod(shape) > BOXED_VOXELS:
        box = -(-min(shape) // 3)
    step = max(1, box // 2)
    return box, step if boxes(box, step) <= BOXES else box


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
