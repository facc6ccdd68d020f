"""What lies at the edge of a scan's field of view: a head that is cut, padding, words burned in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rlvo_lib.images.findings import Finding, error, warning
from rlvo_lib.images.geometry import canonical, voxel_sizes

CUT = "the head is cut off by the field of view"
COARSE_MM = 4.0
TISSUE_HU = -300.0  # skin and all below it; foam of a head rest is under -800
DEEP_MM = 8.0
"""A head rest's shell or a sheet is thinner; a head that is cut is thicker where it is cut."""

CRANIUM_MM = 120.0
"""Depth below the topmost tissue that is looked at: below are jaw, nose and shoulders, often cut."""

MOST_CUT_CM2 = 10.0
"""Area of a head on one lateral face of the field of view: a scalp or an ear that grazes it is less."""

MOST_TOP_CM2 = 100.0
"""Area of the uppermost section: a head of 190 x 150 mm has it 3 cm below its vertex."""

MOST_BORDER = 0.2
"""Share of the border's voxels with one and the same value that is not air."""

LEAST_BURNED = 60
"""Pixels that have the same value, not the background's, in every slice: letters, or a colour bar."""

SLICES_COMPARED = 9


def field_findings(array: np.ndarray, affine: np.ndarray, kind: str) -> list[Finding]:
    """Findings at the edges of a CT (HU) or map; `array` (X, Y, Z), `affine` to world mm (RAS+)."""
    found = list(_burned_in(array, affine, TISSUE_HU if kind == "ct" else 0.0))
    if kind == "ct":
        found += [*_border_findings(array), *_cut_findings(array, affine)]
    return found


def _burned_in(array: np.ndarray, affine: np.ndarray, background: float) -> Iterator[Finding]:
    """Pixels that are the same through all slices: a bar, a scale or words, so a picture."""
    axis = int(np.argmax(np.abs(affine[2, :3]) / voxel_sizes(affine)))
    n = array.shape[axis]
    if n < SLICES_COMPARED:
        return
    slices = np.moveaxis(array, axis, 0)
    first, *others = slices[np.linspace(0, n - 1, SLICES_COMPARED).astype(int)]
    same = np.ones(first.shape, dtype=bool)
    for other in others:
        same &= first == other
    same &= (first > background) & (first != 0)  # zeros are padding, which is named elsewhere
    _, counts = np.unique(first[same], return_counts=True)
    burned = int(counts[counts < same.size / 20].sum())  # what fills more is padding too
    if burned >= LEAST_BURNED:
        what = "the same pixels in every slice: a colour bar or words are burned in"
        yield error(what, f"{burned} pixels a slice", "a scan, not a picture of one")


def _border_findings(array: np.ndarray) -> Iterator[Finding]:
    """A border filled with one value that is not air, as a program leaves it that pads with zeros."""
    faces = np.concatenate(
        [np.take(array, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    )
    values, counts = np.unique(np.rint(faces), return_counts=True)
    common = float(values[counts.argmax()])
    share = counts.max() / faces.size
    if share > MOST_BORDER and common > TISSUE_HU:
        what = f"its border is filled with {common:g} HU, which is tissue or water and not air"
        mend = "air (-1000) or less outside the scanned field: resample again, with that filling"
        yield warning(what, f"{share:.0%} of the border", mend)


def _cut_findings(array: np.ndarray, affine: np.ndarray) -> Iterator[Finding]:
    """A head that reaches the border of the field of view."""
    from scipy import ndimage

    steps = np.maximum(np.rint(COARSE_MM / voxel_sizes(affine)), 1).astype(int)
    coarse, placed = canonical(
        array[:: steps[0], :: steps[1], :: steps[2]], affine @ np.diag([*steps.astype(float), 1.0])
    )
    sizes = voxel_sizes(placed)
    tissue = coarse > TISSUE_HU
    sections = np.count_nonzero(tissue, axis=(0, 1)) * sizes[0] * sizes[1] / 100.0
    wide = np.flatnonzero(sections > MOST_CUT_CM2)
    if not len(wide):
        return
    first = max(0, wide[-1] - int(CRANIUM_MM / sizes[2]))
    across = ndimage.generate_binary_structure(3, 1)
    across[1, 1, [0, 2]] = False  # sections are eroded each by itself
    depth = max(1, round(DEEP_MM / sizes[:2].min()))
    solid = ndimage.binary_erosion(tissue[:, :, first:], across, depth, border_value=1)
    faces = {"left": solid[0], "right": solid[-1], "back": solid[:, 0], "front": solid[:, -1]}
    cut = {"top": float(sections[-1])} if sections[-1] > MOST_TOP_CM2 else {}
    for name, face in faces.items():
        along = sizes[1] if name in ("left", "right") else sizes[0]
        cm2 = np.count_nonzero(face) * along * sizes[2] / 100.0
        if cm2 > MOST_CUT_CM2:
            cut[name] = cm2
    if cut:
        value = ", ".join(f"{name} {cm2:.0f} cm2" for name, cm2 in cut.items())
        mend = (
            f"at most {MOST_TOP_CM2:g} cm2 on the uppermost slice, {MOST_CUT_CM2:g} cm2 on a side"
        )
        yield warning(CUT, value, mend)
