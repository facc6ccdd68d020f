"""Figures on disk: PNG and SVG whose bytes depend on the figure, its caption and its sources only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from rlvo_lib import figures, storage
from rlvo_lib.config import InputError
from rlvo_lib.report.table_files import stamp_text


def save_figure(
    run: str | Path,
    name: str,
    figure: Figure,
    *,
    data: str,
    caption: str = "",
    sources: Sequence[str] = (),
    dpi: int = 120,
    vector: bool = True,
) -> Path:
    """Write ``figures/<name>.png`` and ``.svg``; a figure of simulated data is stamped first.

    A drawing is written with a palette (`figures.png`). A figure that shows scans is written as PNG alone,
    in all its colours: an SVG would hold the same pixels again. The caption is kept inside the files
    (``Description``), from where the page takes it, and so are the sources with their digests (``Sources``).

    Parameters
    ----------
    sources : what the figure is drawn from, saved before it: names of tables (``"roc_points"``), or files of
        the run (``"predictions.csv"``).
    vector : whether an SVG is written beside the PNG.

    Returns
    -------
    Path of the PNG file.

    Raises
    ------
    InputError
        If a source is not in the run folder.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(f"figure name '{name}'; allowed: a-z, 0-9 and _")
    stamp = stamp_text(data)
    drawn_from = source_digests(run, sources)
    if stamp:
        figures.stamp(figure, stamp)
    folder = Path(run) / "figures"
    text = {"Description": f"{stamp}. {caption}".strip() if stamp else caption}
    if drawn_from:
        text["Sources"] = "\n".join(f"{file} {digest}" for file, digest in drawn_from.items())
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with storage.atomic(png) as temporary:
        temporary.write_bytes(figures.png(figure, dpi=dpi, text=text))
    if not vector or any(axes.images for axes in figure.axes):
        svg.unlink(missing_ok=True)  # of an earlier run
        return png
    with (
        rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}),
        storage.atomic(svg) as temporary,
    ):
        metadata = {"Date": None, "Creator": None, "Description": text["Description"]}
        figure.savefig(temporary, format="svg", dpi=dpi, metadata=metadata)
    return png


def source_digests(run: str | Path, sources: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each source of a figure, by its path inside the run folder."""
    found = {}
    for source in sources:
        file = source if "." in source else f"tables/{source}.csv"
        if not (Path(run) / file).is_file():
            raise InputError(f"figure source '{source}': {file} is not in the run; save it first")
        found[file] = storage.digest(Path(run) / file)
    return found


def read_sources(png: str | Path) -> dict[str, str]:
    """The files that a figure was drawn from, and the SHA-256 they had; empty if it names none."""
    lines = _entry(png, "Sources").splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if " " in line)


def read_description(png: str | Path) -> tuple[str, int, int]:
    """The caption kept in a PNG file, and its width and height in pixels."""
    from PIL import Image

    with Image.open(png) as image:
        return str(image.info.get("Description", "")), image.width, image.height


def _entry(png: str | Path, keyword: str) -> str:
    from PIL import Image

    try:
        with Image.open(png) as image:
            return str(image.info.get(keyword, ""))
    except OSError as error:
        raise InputError(f"{png}: not a readable PNG ({error})") from error
