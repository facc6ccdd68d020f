"""Pages of the picture book: one simulated patient's scans beside the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.figures.style import COLOURS, INK, Figure, canvas, stamp, titled

MAPS = {"tmax": ("Tmax", "s", 16.0), "cbf": ("CBF", "mL/100 g/min", 80.0)}
SLAB_MM = 24.0  # of the maximum-intensity projection


def phantom_page(
    scans: dict[str, tuple[np.ndarray, np.ndarray]],
    tree: pd.DataFrame,
    occlusion: dict,
    title: str,
) -> Figure:
    """NCCT, CTA projection, vessel tree, Tmax and CBF of a simulated patient, the occlusion marked.

    Parameters
    ----------
    scans : name to (array (X, Y, Z), affine (4, 4)): ncct and cta in HU, tmax in s, cbf in
        mL/100 g/min; axial pictures are drawn as radiologists see them, the patient's right on the left.
    tree : vessel, x, y, z (world mm, RAS+), radius_mm, fill (0..1), clot (0 or 1).
    occlusion : ``start`` and ``end`` in world mm.
    """
    figure = canvas(12.0, 8.2, rows=2, columns=3)
    axes = figure.axes
    place = (np.array(occlusion["start"]) + np.array(occlusion["end"])) / 2
    _slice(axes[0], scans["ncct"], place, (0, 80), "NCCT at the occlusion (0 to 80 HU)")
    _projection(axes[1], scans["cta"], place, "CTA, maximum over 24 mm (0 to 500 HU)")
    for axis in axes[:2]:
        _mark(axis, occlusion)
    _tree(axes[2], tree, occlusion)
    for axis, (name, (label, unit, high)) in zip(axes[3:5], MAPS.items(), strict=True):
        where = _middle_of_delay(*scans["tmax"])
        shown = _slice(axis, scans[name], where, (0, high), f"{label} ({unit})", "turbo")
        figure.colorbar(shown, ax=axis, shrink=0.7)
    level = place + [0, 0, 32]
    _slice(axes[5], scans["ncct"], level, (0, 80), "NCCT 32 mm higher (0 to 80 HU)")
    return stamp(titled(figure, title))


def _plane(axis, image: np.ndarray, affine: np.ndarray, window, title: str, colours="gray"):
    """An axial image (X, Y) in world mm, patient's right on the left."""
    x = affine[0, 3] + affine[0, 0] * (np.arange(image.shape[0] + 1) - 0.5)
    y = affine[1, 3] + affine[1, 1] * (np.arange(image.shape[1] + 1) - 0.5)
    shown = axis.imshow(
        image.T, origin="lower", cmap=colours, vmin=window[0], vmax=window[1],
        extent=(x[0], x[-1], y[0], y[-1]), interpolation="nearest",
    )  # fmt: skip
    axis.set_xlim(85, -85)
    axis.set_ylim(-112, 85)
    axis.set_axis_off()
    axis.set_title(title, fontsize=9.5, color=INK)
    return shown


def _slice(axis, scan, place: np.ndarray, window, title: str, colours="gray"):
    volume, affine = scan
    index = np.linalg.inv(affine) @ [*place, 1]
    k = int(np.clip(round(float(index[2])), 0, volume.shape[2] - 1))
    return _plane(axis, volume[:, :, k], affine, window, title, colours)


def _projection(axis, scan, place: np.ndarray, title: str) -> None:
    volume, affine = scan
    thickness = float(np.linalg.norm(affine[:3, 2]))
    k = (np.linalg.inv(affine) @ [*place, 1])[2]
    low = max(0, int(k - 0.15 * SLAB_MM / thickness))
    high = min(volume.shape[2], int(k + 0.85 * SLAB_MM / thickness))
    _plane(axis, volume[:, :, low:high].max(axis=2), affine, (0, 500), title)


def _middle_of_delay(tmax: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """World mm of the slice with most tissue of Tmax > 6 s."""
    k = int((tmax > 6).sum(axis=(0, 1)).argmax())
    return (affine @ [*(n / 2 for n in tmax.shape[:2]), k, 1])[:3]


def _mark(axis, occlusion: dict) -> None:
    x, y, _ = occlusion["start"]
    axis.annotate(
        "", xy=(x, y), xytext=(x + (28 if x > 0 else -28), y + 26),
        arrowprops={"arrowstyle": "-|>", "color": COLOURS[4], "lw": 1.6},
    )  # fmt: skip


def _tree(axis, tree: pd.DataFrame, occlusion: dict) -> None:
    """The tree from in front: width the calibre, grey the filling, red the clot."""
    for _, part in tree.groupby("vessel", sort=False):
        x, z, fill = (part[n].to_numpy() for n in ("x", "z", "fill"))
        for k in range(len(part) - 1):
            clot = bool(part["clot"].iloc[k])
            colour = COLOURS[1] if clot else str(round(0.85 * (1 - float(fill[k])), 3))
            width = 2.2 * float(part["radius_mm"].iloc[k])
            axis.plot(x[k : k + 2], z[k : k + 2], color=colour, lw=width, solid_capstyle="round")
    x, _, z = occlusion["start"]
    axis.annotate(
        "", xy=(x, z), xytext=(x + (22 if x > 0 else -22), z - 20),
        arrowprops={"arrowstyle": "-|>", "color": COLOURS[4], "lw": 1.6},
    )  # fmt: skip
    axis.set_aspect("equal")
    axis.invert_xaxis()
    axis.set_axis_off()
    axis.set_title(
        "Arteries from in front: calibre, filling (grey), clot (red)", fontsize=9.5, color=INK
    )
