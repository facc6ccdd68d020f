"""PNG files with a palette: a drawing has few colours, and one byte for each pixel is enough."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

COLOURS = 256  # what a palette holds
FREQUENT = 64  # of them: the most frequent colours of the drawing
MOST = 20_000  # colours of a drawing; a picture with more keeps them all


def png(figure: Figure, *, dpi: int, text: dict[str, str] | None = None) -> bytes:
    """A figure as PNG whose bytes depend on the figure and the text alone.

    A drawing is written with a palette of 256 of its colours (`_kept`); one left out, such as a shade at
    the edge of a line, becomes the nearest. A figure that shows scans keeps every colour.

    Parameters
    ----------
    text : entries kept inside the file, by keyword, such as ``Description``.
    """
    from PIL import Image, PngImagePlugin

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, metadata={"Software": None})
    with Image.open(drawn) as image:
        pixels = np.asarray(image.convert("RGB"))
    found, places = _palette(pixels, exact=any(axes.images for axes in figure.axes))
    if found is None:
        picture = Image.fromarray(pixels)
    else:
        picture = Image.fromarray(places)
        picture.putpalette(found.tobytes(), "RGB")
    entries = PngImagePlugin.PngInfo()
    for keyword, words in (text or {}).items():
        entries.add_text(keyword, words) if words.isascii() else entries.add_itxt(keyword, words)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True, dpi=(dpi, dpi), pnginfo=entries)
    return buffer.getvalue()


def _palette(pixels: np.ndarray, *, exact: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """The palette (k, 3) uint8 and each pixel's place in it (H, W) uint8, of pixels (H, W, 3) uint8.

    ``exact``: no palette if more colours are needed than it holds.
    """
    coded = pixels.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    codes, inverse, counts = np.unique(coded, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(coded.shape)
    if len(codes) > (COLOURS if exact else MOST):
        return None, pixels[..., 0]
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.int32)
    kept = _kept(colours, counts)
    distance = ((colours[:, None] - colours[None, kept]) ** 2).sum(axis=2)
    return colours[kept].astype(np.uint8), distance.argmin(axis=1).astype(np.uint8)[inverse]


def _kept(colours: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Places of the colours that the palette keeps: the frequent ones, then those missed the most.

    A colour is missed by its squared distance from the nearest one kept, times its pixels.
    """
    kept = list(np.argsort(-counts, kind="stable")[:FREQUENT])
    nearest = ((colours[:, None] - colours[None, kept]) ** 2).sum(axis=2).min(axis=1)
    while len(kept) < min(COLOURS, len(colours)):
        kept.append(int((nearest * counts).argmax()))
        nearest = np.minimum(nearest, ((colours - colours[kept[-1]]) ** 2).sum(axis=1))
    return np.sort(kept)
