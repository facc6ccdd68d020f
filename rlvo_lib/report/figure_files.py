"""Figures on disk: PNG and SVG whose bytes depend on the figure only."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from rlvo_lib import figures, storage
from rlvo_lib.config import InputError
from rlvo_lib.report.table_files import stamp_text


def save_figure(
    run: str | Path, name: str, figure: Figure, *, data: str, caption: str = "", dpi: int = 140
) -> Path:
    """Write ``figures/<name>.png`` and ``.svg``; a figure of simulated data is stamped first.

    A figure that shows scans is written as PNG alone: an SVG would hold the same pixels again. The caption
    is kept inside the files (``Description``), from where the page takes it.

    Returns
    -------
    Path of the PNG file.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(f"figure name '{name}'; allowed: a-z, 0-9 and _")
    stamp = stamp_text(data)
    if stamp:
        figures.stamp(figure, stamp)
    folder = Path(run) / "figures"
    description = f"{stamp}. {caption}".strip() if stamp else caption
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with storage.atomic(png) as temporary:
        metadata = {"Software": None, "Description": description}
        figure.savefig(temporary, format="png", dpi=dpi, metadata=metadata)
    if any(axes.images for axes in figure.axes):
        svg.unlink(missing_ok=True)  # of an earlier run
        return png
    with rc_context({"svg.hashsalt": name}), storage.atomic(svg) as temporary:
        metadata = {"Date": None, "Creator": None, "Description": description}
        figure.savefig(temporary, format="svg", dpi=dpi, metadata=metadata)
    return png


def read_description(png: str | Path) -> tuple[str, int, int]:
    """The caption kept in a PNG file, and its width and height in pixels."""
    from PIL import Image

    with Image.open(png) as image:
        return str(image.info.get("Description", "")), image.width, image.height
