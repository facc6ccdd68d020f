"""The head template: the package's own, or any head CT by its path.

Template mm is a head frame (`rlvo_lib.head`): +x right, +y anterior, +z superior; origin in the
mid-plane, midway along the head, at the vertex. The template equals its mirror image, so that nothing
that is aligned to it leans to a side. `python -m rlvo_lib.simulate.template` makes the package's own
from the embedded anatomy; its axes are those of the commissures (AC-PC), near enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from rlvo_lib import images
from rlvo_lib.config import InputError
from rlvo_lib.head import head_frame
from rlvo_lib.registration.blocks import coarse
from rlvo_lib.registration.masks import coarse_head
from rlvo_lib.registration.solver import Volume

TEMPLATE_FILE = Path(__file__).with_name("template.nii.gz")

GRID_MM = 5.0
GRID_SHAPE = (37, 47, 32)
GRID = np.diag([GRID_MM] * 3 + [1.0])
GRID[:3, 3] = [-GRID_MM * 18, -GRID_MM * 23, -145.0]
"""Where heads are compared: 5 mm voxels along the axes of the head frame, vertex to skull base."""

WINDOW_HU = (-300.0, 600.0)
DEPTH_MM = 135.0  # compared down to so far below the vertex: skull base and orbits, no jaw, no neck
RIM_MM = 10.0  # and so far around the head
OWN_MM, OWN_SHAPE = 2.5, (64, 82, 72)  # a user's template is brought to the size of the own one
MIN_SYMMETRY = 0.80


@dataclass(frozen=True)
class Template:
    """array (X, Y, Z) float32 HU, equal to its mirror image `array[::-1]`; affine: voxels to template
    mm; volume: what is compared (5 mm, grey 0..1); length_mm: the head's, skin to skin; symmetry: correlation of the given CT with its
    mirror image before it was made symmetric; source: path of the file."""

    array: np.ndarray
    affine: np.ndarray
    volume: Volume
    length_mm: float
    symmetry: float
    source: str


def load_template(path: str | Path | None = None) -> Template:
    """The package's own template (None), or a head CT in HU brought into template mm.

    A user's CT may lie and be stored in any way: its own head frame is found, it is resampled once to
    2.5 mm along that frame, and made symmetric as the mean of itself and its mirror image. Its pitch
    stays its own: it defines what level is.
    InputError, naming the file: not a CT in HU, no head in it, a head cut at the top, above the
    skull base or far too small, or one whose halves do not agree (correlation under 0.8).
    """
    path = TEMPLATE_FILE if path is None else Path(path)
    stat = path.stat() if path.is_file() else None
    return _load(path, stat and (stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=4)
def _load(path: Path, state: tuple[int, int] | None) -> Template:
    array, affine = images.load_ct(path)
    if path == TEMPLATE_FILE:
        return _template(array, affine, 1.0, path.name)
    frame = head_frame(*coarse(array, affine), "ncct")
    if frame.flags:
        raise InputError(f"{path}: {frame.flags[0]}; a template must be a CT of a whole head")
    grid = np.diag([OWN_MM] * 3 + [1.0])
    grid[:3, 3] = [-OWN_MM * (OWN_SHAPE[0] - 1) / 2, -OWN_MM * (OWN_SHAPE[1] - 1) / 2, -170.0]
    seen = images.field_of_view(array.shape, affine, frame.affine @ grid, OWN_SHAPE)
    straight = images.resample(array, affine, frame.affine @ grid, OWN_SHAPE, fill=images.AIR_HU)
    straight[~coarse_head(straight, np.full(3, OWN_MM))] = images.AIR_HU
    upper = slice(int((170.0 - DEPTH_MM) / OWN_MM), None)
    covered = seen[16:-16, 16:-16, upper].mean()
    if covered < 0.95:
        raise InputError(
            f"{path}: shows {covered:.0%} of the head down to the skull base; a template must show "
            "at least 95 %"
        )
    window = np.clip(straight[..., upper], *WINDOW_HU).ravel()
    symmetry = float(
        np.corrcoef(window, np.clip(straight[::-1, :, upper], *WINDOW_HU).ravel())[0, 1]
    )
    if not symmetry >= MIN_SYMMETRY:
        raise InputError(
            f"{path}: its halves are not alike (correlation {symmetry:.2f}); a template of a head "
            f"must have at least {MIN_SYMMETRY:g}"
        )
    return _template((straight + straight[::-1]) / 2, grid, symmetry, str(path))


def _template(array: np.ndarray, affine: np.ndarray, symmetry: float, source: str) -> Template:
    from scipy import ndimage

    low, high = WINDOW_HU
    grey = images.resample(np.clip(array, low, high), affine, GRID, GRID_SHAPE, fill=low)
    grey = (grey - np.float32(low)) / np.float32(high - low)
    grey = (grey + grey[::-1]) / 2
    near = ndimage.binary_dilation(grey > 0.1, iterations=round(RIM_MM / GRID_MM))
    z = GRID[2, 3] + GRID_MM * np.arange(GRID_SHAPE[2])
    inside = near & (z > -DEPTH_MM) & images.field_of_view(array.shape, affine, GRID, GRID_SHAPE)
    length = head_frame(array, affine).length_mm
    return Template(array, affine, Volume(grey, GRID, inside), length, symmetry, source)
