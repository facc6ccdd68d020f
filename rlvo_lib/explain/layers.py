"""Where in the image the voxels of a layer's feature map look.

A feature map has fewer voxels than the image. Stretching it edge to edge, as an interpolation to the image's
size does, takes voxel i to lie at stride × (i + 1/2) - 1/2; a convolution of stride 2 with a border of one voxel
looks at 2 i. At an eighth of the grid the two are 3.5 image voxels apart: 10 mm on a grid of 3 mm. So the place is
measured here instead.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from rlvo_lib.config import InputError

PROBE = 256  # voxels of the image that is sent through, along the axis that is measured
SHORT = 16  # and along the others
NAMED = 8  # so many layers an error names


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """A layer of a network by its name, one of ``network.named_modules()``.

    Raises
    ------
    InputError
        For a name that does not exist; says some that do.
    """
    layers = dict(network.named_modules())
    if not name or name not in layers:
        known = [n for n, module in layers.items() if isinstance(module, nn.Conv3d)]
        places = [n for n in layers if n == "encoder" or n.rpartition(".")[0].endswith("blocks")]
        allowed = ", ".join([*places, *known][:NAMED]) or "none: the network has no convolution"
        raise InputError(f"layer '{name}' is not one of the network; allowed: {allowed}, ...")
    return layers[name]


def spread(
    features: np.ndarray, stride: float, offset: float, shape: tuple[int, int, int]
) -> np.ndarray:
    """A map of a layer (d, h, w) on the image's grid (D, H, W), trilinear; float32.

    Voxel i of the layer lies at ``stride * i + offset`` of the image, the same along each axis
    (`looks_at`); beyond the outermost the map goes on as it is there.

    Examples
    --------
    >>> spread(np.array([[[0.0, 1.0]]]), 2.0, 0.0, (1, 1, 4)).ravel().tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    from scipy import ndimage

    return ndimage.affine_transform(
        features.astype(np.float32), np.full(3, 1 / stride), -offset / stride,
        output_shape=shape, order=1, mode="nearest",
    )  # fmt: skip


def looks_at(network: nn.Module, name: str) -> tuple[float, float]:
    """Stride and offset of a layer: its voxel i has its receptive field about ``stride * i + offset``.

    In voxels of the image, the same along each axis, as the encoders' kernels are cubes. Measured on a copy of the
    network whose convolutions are plain means: an image of 1 gives the weight that each feature voxel has within
    the image, a ramp times that the mean place it looks at.
    """
    twin = _of_means(network)
    place = find_layer(twin, name)
    ramp = torch.arange(PROBE, dtype=torch.float64).view(1, 1, -1, 1, 1)
    ramp = ramp.expand(1, twin.encoder.in_channels, PROBE, SHORT, SHORT)
    ones, zeros = torch.ones_like(ramp), torch.zeros_like(ramp)
    of_ramp, of_ones, of_zeros = (_seen(twin, place, image) for image in (ramp, ones, zeros))
    at = (of_ramp - of_zeros) / (of_ones - of_zeros)
    middle = len(at) // 2
    stride = round(float(at[middle + 1] - at[middle]), 6)
    return stride, round(float(at[middle]) - stride * middle, 6)


def _of_means(network: nn.Module) -> nn.Module:
    """A copy of the network that only averages: no norms, no modulation, no largest values."""
    twin = copy.deepcopy(network).double().cpu().eval()
    twin.block.modulation = None
    twin.encoder.mean.zero_()
    twin.encoder.sd.fill_(1.0)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm3d):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool3d):
                pool = nn.AvgPool3d(child.kernel_size, child.stride, child.padding)
                setattr(parent, name, pool)
            elif isinstance(child, nn.Conv3d):
                nn.init.constant_(child.weight, 1.0 / child.weight[0].numel())
                if child.bias is not None:
                    nn.init.zeros_(child.bias)
    return twin


def _seen(twin: nn.Module, place: nn.Module, image: Tensor) -> Tensor:
    """What a layer holds along the middle of the first axis, for an image (1, C, D, H, W)."""
    held = []
    hook = place.register_forward_hook(lambda _module, _given, output: held.append(output))
    with torch.inference_mode():
        twin.block(twin.encoder(image))
    hook.remove()
    if not held or held[0].ndim != 5:
        raise InputError(
            "the layer holds no map; allowed: one within the encoder or the last block"
        )
    features = held[0][0].mean(dim=0)
    return features[:, features.shape[1] // 2, features.shape[2] // 2]
