"""Pages of the picture book: a simulated patient's scans, and the arteries as they were put in.

Volumes are ``(X, Y, Z)`` with a 4x4 affine to world mm (RAS+); axial pictures as in `explanation`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
from rlvo_lib.figures.overlay import mark_sides, show_slice
from rlvo_lib.figures.style import COLOURS, INK, Figure, canvas, need, stamp, titled

Scan = tuple[np.ndarray, np.ndarray]

NEEDED = ("ncct", "cta", "tmax", "cbf")
TMAX_S, CBF_ML = 16.0, 80.0  # upper ends of the windows
BELOW_MM, ABOVE_MM = 9.0, 16.0  # the CTA's slab around the occlusion
CLOSE_MM, CLOSE_SLAB_MM = 24.0, 4.0  # half width and half thickness of the close view
SIPHON, SIPHON_SLAB_MM = (0.55, 0.93), 6.0  # share of the carotid's course; half thickness
ARROW = {"arrowstyle": "-|>", "color": COLOURS[4], "lw": 1.6}


def phantom_page(
    scans: dict[str, Scan], tree: pd.DataFrame, occlusion: dict, title: str = ""
) -> Figure:
    """Scans of a simulated patient, the occlusion marked by an arrow; stamped as simulated.

    Upper row: NCCT and CTA around the occlusion, the CTA close by, the true arteries from in front.
    Lower row: Tmax, CBF and NCCT on the slice with most delay, the NCCT around the carotid siphons.

    Parameters
    ----------
    scans : name to (array (X, Y, Z), affine): ncct and cta in HU, tmax in s, cbf in mL/100 g/min (0
        outside the brain).
    tree : columns vessel, x, y, z (world mm), radius_mm, fill (0..1), clot (0 or 1): rows along each
        vessel, with the carotids ICA_L and ICA_R.
    occlusion : ``start`` and ``end`` in world mm.

    Raises
    ------
    InputError
        If a scan, a column or a carotid is missing.
    """
    for name in NEEDED:
        if name not in scans:
            raise InputError(f"phantom page: no scan '{name}'; needed: {', '.join(NEEDED)}")
    need(tree, "vessel", "x", "y", "z", "radius_mm", "fill", "clot")
    start = np.array(occlusion["start"], dtype=float)
    middle = (start + np.array(occlusion["end"], dtype=float)) / 2
    figure = canvas(14.0, 8.4, rows=2, columns=4)
    upper, lower = figure.axes[:4], figure.axes[4:8]
    _axial(upper[0], scans["ncct"], middle[2], (0, 0), (0, 80), "NCCT at the occlusion, 0 to 80 HU")
    around = (BELOW_MM, ABOVE_MM)
    _axial(upper[1], scans["cta"], middle[2], around, (0, 500), "CTA, 25 mm maximum, 0 to 500 HU")
    close = (CLOSE_SLAB_MM, CLOSE_SLAB_MM)
    _axial(upper[2], scans["cta"], middle[2], close, (0, 450), "CTA close by, 8 mm maximum")
    _crop(upper[2], middle)
    for axis, size in zip(upper, (26.0, 26.0, 9.0), strict=False):
        _point(axis, start, size)
    _tree(upper[3], tree, start)
    z = _most_delay(*scans["tmax"])
    _map(figure, lower[0], scans["tmax"], z, scans["cbf"][0] > 0, TMAX_S, "Tmax (s)")
    _map(figure, lower[1], scans["cbf"], z, scans["cbf"][0] > 0, CBF_ML, "CBF (mL/100 g/min)")
    _axial(lower[2], scans["ncct"], z, (0, 0), (10, 50), "NCCT at the same level, 10 to 50 HU")
    _siphons(lower[3], scans["ncct"], tree)
    return stamp(titled(figure, title))


def _axial(
    axis: Axes, scan: Scan, z: float, around: tuple[float, float], window, title: str
) -> None:
    """The slice at the height `z`, or the maximum from `around` mm below to above it."""
    volume, affine = scan
    image = volume[:, :, _slab(volume, affine, z, around)].max(axis=2)
    show_slice(axis, image, affine, cmap="gray", vmin=window[0], vmax=window[1])
    mark_sides(axis)
    _named(axis, title)


def _slab(volume: np.ndarray, affine: np.ndarray, z: float, around: tuple[float, float]) -> slice:
    """Slices from `around` mm below to above the world height `z` in the middle of the scan."""
    middle = affine @ [volume.shape[0] / 2, volume.shape[1] / 2, 0, 1]
    place = (z - middle[2]) / affine[2, 2]
    low, high = (place + gap / affine[2, 2] for gap in (-around[0], around[1]))
    first = int(np.clip(round(low), 0, volume.shape[2] - 1))
    return slice(first, int(np.clip(round(high), first, volume.shape[2] - 1)) + 1)


def _crop(axis: Axes, middle: np.ndarray) -> None:
    """Show only what lies `CLOSE_MM` around the occlusion."""
    for text in axis.texts:
        text.set_visible(False)
    axis.set(xlim=(middle[0] + CLOSE_MM, middle[0] - CLOSE_MM))
    axis.set(ylim=(middle[1] - CLOSE_MM, middle[1] + CLOSE_MM))


def _point(axis: Axes, start: np.ndarray, size: float) -> None:
    """An arrow of `size` mm each way, from outside and in front, to the start of the occlusion."""
    x, y = start[:2]
    outwards = size if x > 0 else -size
    axis.annotate("", xy=(x, y), xytext=(x + outwards, y + size), arrowprops=ARROW)


def _tree(axis: Axes, tree: pd.DataFrame, start: np.ndarray) -> None:
    """Arteries from in front: width the calibre, grey the filling, colour the clot."""
    for _, part in tree.groupby("vessel", sort=False):
        x, z, fill, radius = (part[n].to_numpy(float) for n in ("x", "z", "fill", "radius_mm"))
        for k in range(len(part) - 1):
            clot = part["clot"].iloc[k] == 1
            colour = COLOURS[1] if clot else str(round(0.85 * (1 - min(fill[k], 1.0)), 3))
            axis.plot(
                x[k : k + 2], z[k : k + 2], color=colour, lw=2.0 * radius[k],
                solid_capstyle="round",
            )  # fmt: skip
    below = (start[0], start[2] - 26)
    axis.annotate("", xy=(start[0], start[2] - 2), xytext=below, arrowprops=ARROW)
    axis.set(aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.invert_xaxis()
    mark_sides(axis)
    for letter in axis.texts[-2:]:
        letter.set_color(INK)
    _named(axis, "Arteries from in front: grey is filling, red clot")


def _map(figure: Figure, axis: Axes, scan: Scan, z: float, brain, high: float, title: str) -> None:
    """A perfusion map where there is brain, with its scale."""
    volume, affine = scan
    k = _slab(volume, affine, z, (0, 0)).start
    shown = np.ma.masked_where(~brain[:, :, k], volume[:, :, k])
    colours = colormaps["turbo"].with_extremes(bad="black")
    image = show_slice(axis, shown, affine, cmap=colours, vmin=0, vmax=high)
    mark_sides(axis)
    _named(axis, title)
    bar = figure.colorbar(image, ax=axis, shrink=0.7, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _most_delay(tmax: np.ndarray, affine: np.ndarray) -> float:
    """World height, in the middle of the scan, of the slice with most tissue of Tmax > 6 s."""
    k = int((tmax > 6).sum(axis=(0, 1)).argmax())
    return float((affine @ [tmax.shape[0] / 2, tmax.shape[1] / 2, k, 1])[2])


def _siphons(axis: Axes, ncct: Scan, tree: pd.DataFrame) -> None:
    """The NCCT around both siphons in a wide window, cut to 30 mm around them."""
    courses = [tree[tree["vessel"] == name] for name in ("ICA_L", "ICA_R")]
    if min(len(c) for c in courses) == 0:
        raise InputError("phantom page: the tree has not both carotids; needed: ICA_L, ICA_R")
    first, last = SIPHON
    bends = [c.iloc[int(first * len(c)) : int(np.ceil(last * len(c)))] for c in courses]
    middle = pd.concat(bends)[["x", "y", "z"]].to_numpy(float).mean(axis=0)
    around = (SIPHON_SLAB_MM, SIPHON_SLAB_MM)
    _axial(axis, ncct, middle[2], around, (0, 700), "NCCT, siphons, 12 mm maximum, 0 to 700 HU")
    for text in axis.texts:
        text.set_visible(False)
    axis.set(xlim=(middle[0] + 30, middle[0] - 30), ylim=(middle[1] - 30, middle[1] + 30))


def _named(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9.5, color=INK)
