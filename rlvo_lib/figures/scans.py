"""The mosaic for quality control: a patient a row, a picture a column."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import COLOURS, INK, NO_SKILL, Figure, canvas
from rlvo_lib.preprocess.pictures import Picture

CONTOURS = ("#FFD24A", COLOURS[5], COLOURS[1])


def scan_mosaic(patients: Mapping[str, Mapping[str, Picture]]) -> Figure:
    """Each patient's pictures side by side (`preprocess.pictures`), with what each outline is below.

    Right of the patient on the left, front up; sagittal: front on the left. One colour scale for the
    overlays of all. A picture that a patient's scans do not allow is left empty and said so.

    Raises
    ------
    InputError
        If there is nothing to show.
    """
    names = list(dict.fromkeys(name for row in patients.values() for name in row))
    if not names:
        raise InputError("mosaic: no pictures to show")
    figure = canvas(
        1.75 * len(names) + 0.9, 2.0 * len(patients) + 0.6, len(patients), len(names), squeeze=False
    )
    axes = np.array(figure.axes).reshape(len(patients), len(names))
    overlay, outlined = None, {}
    for (participant, row), line in zip(patients.items(), axes, strict=True):
        for name, axis in zip(names, line, strict=True):
            axis.set(xticks=[], yticks=[], aspect="equal")
            axis.spines[:].set_visible(False)
            if name in row:
                drawn = draw_picture(axis, row[name])
                overlay = drawn if drawn is not None else overlay
                outlined |= {contour: CONTOURS[k] for k, contour in enumerate(row[name].contours)}
            else:
                axis.text(0.5, 0.5, "no scan", ha="center", va="center", color=NO_SKILL, fontsize=8)
        line[0].set_ylabel(participant, fontsize=8, color=INK)
    for name, axis in zip(names, axes[0], strict=True):
        axis.set_title(name, fontsize=9, color=INK)
    if overlay is not None:
        unit = next(
            p.unit for row in patients.values() for p in row.values() if p.overlay is not None
        )
        bar = figure.colorbar(overlay, ax=list(axes[:, -1]), shrink=0.5, pad=0.02)
        bar.set_label(f"Tmax, {unit}", fontsize=8)
        bar.outline.set_visible(False)
    said = "   ".join(f"{what}: {_word(colour)}" for what, colour in outlined.items())
    figure.supxlabel(said, fontsize=8, color=INK)
    return figure


def _word(colour: str) -> str:
    return dict(zip(CONTOURS, ("yellow", "light blue", "orange"), strict=True))[colour]


def draw_picture(axis: Axes, picture: Picture):
    """Draw one picture; returns what was laid over in colour, or None."""
    image = picture.image.T
    turned = picture.axes[0] == "x"  # x grows to the patient's right, which is drawn on the left
    axis.imshow(image, origin="lower", cmap="gray", vmin=picture.low, vmax=picture.high)
    for contour, colour in zip(picture.contours.values(), CONTOURS, strict=False):
        if contour.any() and not contour.all():
            axis.contour(contour.T.astype(float), levels=[0.5], colors=[colour], linewidths=0.6)
    laid = None
    if picture.overlay is not None:
        laid = axis.imshow(
            picture.overlay.T, origin="lower", cmap="inferno", alpha=0.75,
            vmin=picture.overlay_low, vmax=picture.overlay_high,
        )  # fmt: skip
    axis.invert_xaxis()  # right on the left; of a sagittal picture, the front
    left, right = ("R", "L") if turned else ("A", "P")
    for letter, x, align in ((left, 0.03, "left"), (right, 0.97, "right")):
        axis.text(
            x, 0.5, letter, transform=axis.transAxes, ha=align, va="center", fontsize=8,
            fontweight="bold", color="#FFD24A",
        )  # fmt: skip
    return laid
