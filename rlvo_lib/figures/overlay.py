"""Maps laid over scans, as radiologists read them, and mean maps of groups of patients.

Volumes are ``(X, Y, Z)`` with a 4×4 affine from voxel indices to world mm (RAS+). Which side is which comes from the
affine, never from the order of the voxels: the patient's right is on the left of the picture in axial and coronal
slices, anterior or superior up, and R and L are written on each. A volume whose axes are oblique is first brought to
the world's axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from rlvo_lib import images
from rlvo_lib.config import InputError
from rlvo_lib.figures.style import COLOURS, INK, Figure, canvas, titled

#: Plane to (across the picture, up the picture, through it) as world axes.
PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
FLAT = "No gradient reaches the image: there is no map to show"
STRAIGHT = 0.02  # sine of the angle up to which axes count as the world's
SIDES_COLOUR = "#FFD24A"
SIGNED, UNSIGNED = "PuOr_r", "inferno"


def overlay(
    scan: np.ndarray,
    map_: np.ndarray,
    affine: np.ndarray,
    *,
    planes: Sequence[str] = ("axial", "coronal"),
    mip: bool = True,
    window: tuple[float, float] = (0.0, 80.0),
    unit: str = "HU",
    map_unit: str = "log-odds",
    at_mm: Sequence[float] | None = None,
    limit: float | None = None,
    threshold: float = 0.15,
    outlines: Mapping[str, np.ndarray] | None = None,
    beside: Callable[[Axes], object] | None = None,
    vessels: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """A map over a scan: slices through its largest value, and its largest values projected from above.

    Parameters
    ----------
    scan, map_ : ``(X, Y, Z)`` on the same grid. A map with negative values is shown in two colours around 0 (orange
        speaks for the outcome, purple against), another from dark to bright. A map that is the same everywhere is
        not drawn: the figure says so.
    affine : ``(4, 4)``, voxel indices to world mm (RAS+).
    planes : of `PLANES`, a slice each. mip : also an axial projection: the map's value that is largest in size
        along each line from top to bottom, over the scan's mean within its window (its maximum would be skull).
    vessels : mask ``(X, Y, Z)``; given, the projection shows its maximum in the place of the scan.
    window, unit : of the scan. map_unit : of the map.
    at_mm : world mm (RAS+) that the slices go through; None: where the map is largest in size.
    limit : the map's value at the end of the colour bar; None: its largest in size.
    threshold : what is below this share of the limit is not drawn.
    outlines : name to mask ``(X, Y, Z)``, drawn as lines where they are cut, and named.
    beside : draws on axes to the right of the images, for instance the same patient's waterfall.
    """
    scan, map_ = np.asarray(scan, float), np.asarray(map_, float)
    outlines = {name: np.asarray(mask, float) for name, mask in (outlines or {}).items()}
    lumen = {} if vessels is None else {"vessels": np.asarray(vessels, float)}
    _check(scan, map_, planes, outlines | lumen)
    flat = not np.ptp(map_) > 0
    volumes = [scan, map_, *outlines.values(), *lumen.values()]
    (scan, map_, *masks), grid = _straight(volumes, affine)
    beneath = _projected(scan, masks.pop() if lumen else None, window)
    at = _place(map_, grid, at_mm)
    panels = [(plane, False) for plane in planes] + [("axial", True)] * mip
    widths = [1.0] * len(panels) + [1.1] * (beside is not None)
    figure = canvas(
        3.1 * len(panels) + 1.6 + 6.0 * (beside is not None), 4.1, 1, len(widths), squeeze=False,
        width_ratios=widths,
    )  # fmt: skip
    axes = figure.axes[: len(panels)]
    if beside is not None:
        beside(figure.axes[len(panels)])
    colours = _colours(map_, limit)
    colour = None
    for axis, (plane, whole) in zip(axes, panels, strict=True):
        seen = beneath if whole else _cut(scan, plane, at)
        grey = _draw(axis, seen, plane, grid, window)
        if not flat:
            shown = _cut(map_, plane, at, whole, by_size=True)
            shown = np.ma.masked_where(np.abs(shown) < threshold * colours["vmax"], shown)
            colour = show_plane(axis, shown, plane, grid, alpha=0.6, **colours)
        _outline(axis, outlines, [_cut(m, plane, at, whole) for m in masks], plane, grid)
        mark_sides(axis, *_letters(plane))
        axis.set_title(_said(plane, at, whole, grid), fontsize=8.5, color=INK)
    _bar(figure, axes, grey, f"Scan ({unit})", "left")
    if colour is None:
        axes[0].text(
            0.5, 0.02, FLAT, transform=axes[0].transAxes, fontsize=8, color="white", ha="center"
        )
    else:
        _bar(figure, axes, colour, f"Map ({map_unit})", "right")
    if outlines:
        figure.legend(loc="outside lower center", ncols=len(outlines), fontsize=8, frameon=False)
    return titled(figure, title) if title else figure


def group_maps(
    maps: Mapping[str, np.ndarray],
    affine: np.ndarray,
    *,
    background: np.ndarray | None = None,
    counts: Mapping[str, int] | None = None,
    window: tuple[float, float] = (0.0, 80.0),
    map_unit: str = "log-odds",
    threshold: float = 0.15,
    sides: tuple[str, str] = ("O", "A"),
    title: str = "",
) -> Figure:
    """Mean maps of groups on one grid, a column a group, an axial and a coronal slice each, in one colour scale.

    Parameters
    ----------
    maps : group to ``(X, Y, Z)``, in the order they are shown. counts : group to patients, written above.
    affine : ``(4, 4)`` to template mm; ``sides`` are the letters at the right and the left of the grid:
        by default O (the other side) and A (the affected one, brought to the left).
    background : ``(X, Y, Z)`` on the same grid, in HU; None: the map alone.
    The slices go through the place where the mean over groups of the map's size is largest, the same for all.
    """
    if not maps:
        raise InputError("group maps: no group to show")
    stack = [np.asarray(m, float) for m in maps.values()]
    beneath = np.zeros(stack[0].shape) if background is None else np.asarray(background, float)
    for one in stack:
        _check(beneath, one, ("axial",), {})
    (beneath, *stack), grid = _straight([beneath, *stack], affine)
    limit = max(float(np.abs(m).max()) for m in stack)
    signed = np.concatenate([[m.min(), m.max()] for m in stack])
    at = _place(np.mean(np.abs(stack), axis=0), grid, None)
    figure = canvas(2.3 * len(stack) + 1.4, 5.4, 2, len(stack), squeeze=False)
    axes, colour = np.array(figure.axes[: 2 * len(stack)]).reshape(2, -1), None
    for column, (name, one) in enumerate(zip(maps, stack, strict=True)):
        for axis, plane in zip(axes[:, column], ("axial", "coronal"), strict=True):
            _draw(axis, _cut(beneath, plane, at), plane, grid, window)
            if np.ptp(one) > 0:
                shown = _cut(one, plane, at)
                shown = np.ma.masked_where(np.abs(shown) < threshold * limit, shown)
                colour = show_plane(axis, shown, plane, grid, alpha=0.7, **_colours(signed, limit))
            mark_sides(axis, *sides)
        n = f"\nn = {counts[name]}" if counts and name in counts else ""
        axes[0, column].set_title(f"{name}{n}", fontsize=9, color=INK)
    for row, plane in enumerate(("axial", "coronal")):
        axes[row, 0].set_ylabel(_said(plane, at, False, grid), fontsize=8.5, color=INK)
    if colour is None:
        axes[0, 0].text(
            0.5, 0.02, FLAT, transform=axes[0, 0].transAxes, fontsize=7, color="white", ha="center"
        )
    else:
        _bar(figure, list(axes.ravel()), colour, f"Mean map ({map_unit})", "right")
    return titled(figure, title) if title else figure


# ------------------------------------------------------------------------------------- volumes


def _check(
    scan: np.ndarray, map_: np.ndarray, planes: Sequence[str], outlines: Mapping[str, np.ndarray]
) -> None:
    for name, other in {"map": map_, **outlines}.items():
        if scan.shape != other.shape or scan.ndim != 3:
            raise InputError(
                f"overlay: scan of shape {scan.shape}, {name} of {other.shape}; allowed: the same (X, Y, Z)"
            )
    if not np.isfinite(map_).all():
        raise InputError("overlay: the map holds NaN or infinite values; allowed: finite ones")
    for plane in planes:
        if plane not in PLANES:
            raise InputError(f"overlay: plane '{plane}' is not known; allowed: {', '.join(PLANES)}")


def _straight(
    volumes: Sequence[np.ndarray], affine: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Volumes along the world's axes, (X, Y, Z) growing to the right, front and top, and their affine."""
    affine = np.asarray(affine, float)
    axes = affine[:3, :3] / images.voxel_sizes(affine)
    near = np.sort(np.abs(axes), axis=0)
    if near[1].max() <= STRAIGHT and len(set(np.abs(axes).argmax(axis=0))) == 3:
        made = [images.canonical(volume, affine) for volume in volumes]
        return [volume for volume, _ in made], made[0][1]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volumes[0].shape])).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    step = images.voxel_sizes(affine)[np.abs(axes).argmax(axis=1)]
    low, extent = world.min(axis=1), np.ptp(world, axis=1)
    grid = np.diag([*step, 1.0])
    grid[:3, 3] = low
    shape = tuple(int(n) for n in np.ceil(extent / step).astype(int) + 1)
    lowest = [float(volumes[0].min())] + [0.0] * (len(volumes) - 1)
    pairs = zip(volumes, lowest, strict=True)
    return [images.resample(volume, affine, grid, shape, fill) for volume, fill in pairs], grid


def _projected(
    scan: np.ndarray, vessels: np.ndarray | None, window: tuple[float, float]
) -> np.ndarray:
    """What lies beneath a projection from above (X, Y), within the scan's window."""
    if vessels is None:
        return np.clip(scan, *window).mean(axis=2)
    return window[0] + (window[1] - window[0]) * np.clip(vessels.max(axis=2), 0, 1)


def _place(map_: np.ndarray, grid: np.ndarray, at_mm: Sequence[float] | None) -> np.ndarray:
    """Voxel indices (3,) that slices go through: nearest to a world place, or the largest in size."""
    if at_mm is None:
        return np.array(np.unravel_index(int(np.abs(map_).argmax()), map_.shape))
    index = np.rint((np.linalg.inv(grid) @ [*at_mm, 1.0])[:3]).astype(int)
    if ((index < 0) | (index >= map_.shape)).any():
        raise InputError(
            f"overlay: at_mm {[round(float(v), 1) for v in at_mm]} lies outside the scan"
        )
    return index


def _cut(
    volume: np.ndarray, plane: str, at: np.ndarray, whole: bool = False, by_size: bool = False
) -> np.ndarray:
    """A slice (across, up) through a voxel; or along the whole axis the highest, or largest in size."""
    across, up, through = PLANES[plane]
    volume = volume.transpose(across, up, through)
    if not whole:
        return volume[:, :, at[through]]
    if not by_size:
        return volume.max(axis=2)
    place = np.abs(volume).argmax(axis=2)[:, :, None]
    return np.take_along_axis(volume, place, axis=2)[:, :, 0]


# ------------------------------------------------------------------------------------- drawing


def _colours(map_: np.ndarray, limit: float | None) -> dict:
    largest = (float(np.abs(map_).max()) or 1.0) if limit is None else float(limit) or 1.0
    signed = bool(np.min(map_) < 0)
    return {
        "cmap": SIGNED if signed else UNSIGNED,
        "vmin": -largest if signed else 0.0,
        "vmax": largest,
    }


def _draw(
    axis: Axes, values: np.ndarray, plane: str, grid: np.ndarray, window: tuple[float, float]
) -> AxesImage:
    return show_plane(axis, values, plane, grid, cmap="gray", vmin=window[0], vmax=window[1])


def _outline(
    axis: Axes,
    outlines: Mapping[str, np.ndarray],
    cuts: Sequence[np.ndarray],
    plane: str,
    grid: np.ndarray,
) -> None:
    across, up, _ = PLANES[plane]
    figure = axis.get_figure()
    drawn = {line.get_label() for line in figure.axes[0].lines}
    for k, (name, cut) in enumerate(zip(outlines, cuts, strict=True)):
        colour = COLOURS[(2 + k) % len(COLOURS)]
        if name not in drawn:
            figure.axes[0].plot([], [], color=colour, label=name)
        if cut.max() > 0.5 > cut.min():
            x, y = (
                grid[a, a] * np.arange(n) + grid[a, 3]
                for a, n in zip((across, up), cut.shape, strict=True)
            )
            axis.contour(x, y, cut.T, levels=[0.5], colors=[colour], linewidths=1.2)


def _letters(plane: str) -> tuple[str, str]:
    return ("A", "P") if plane == "sagittal" else ("R", "L")


def _said(plane: str, at: np.ndarray, whole: bool, grid: np.ndarray) -> str:
    """The panel's name, and where it lies in world mm."""
    through = PLANES[plane][2]
    mm = grid[through, through] * at[through] + grid[through, 3]
    return "axial projection" if whole else f"{plane}, {'xyz'[through]} = {mm:.0f} mm"


def _bar(figure: Figure, axes: Sequence[Axes], image: AxesImage, label: str, place: str) -> None:
    bar = figure.colorbar(image, ax=axes, location=place, shrink=0.75, pad=0.02)
    bar.set_label(label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def show_plane(
    axis: Axes, values: np.ndarray, plane: str, grid: np.ndarray, **options
) -> AxesImage:
    """Draw a slice (across, up) of a volume along the world's axes in world mm (4×4 ``grid``).

    The patient's right is on the left of axial and coronal slices, the front on the left of sagittal ones.
    """
    sides = []
    for a, n in zip(PLANES[plane][:2], values.shape, strict=True):
        low = float(grid[a, 3] - grid[a, a] / 2)
        sides.append((low, low + float(grid[a, a]) * n))
    image = axis.imshow(
        values.T, origin="lower", extent=(*sides[0], *sides[1]), interpolation="nearest", **options
    )
    axis.set(xlim=sides[0][::-1], ylim=sides[1], aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    return image


def show_slice(axis: Axes, values: np.ndarray, affine: np.ndarray, **options) -> AxesImage:
    """Draw an axial slice ``(X, Y)`` in world mm, right of the patient on the left, anterior up.

    The affine's in-plane axes may be flipped; a rotation is shown along the nearest world axis.
    """
    sides = []
    for k in (0, 1):
        step = float(np.linalg.norm(affine[:3, k])) * (-1 if affine[k, k] < 0 else 1)
        if np.abs(affine[:3, k]).argmax() != k:
            raise InputError("slice: the first two voxel axes are not left-right and back-front")
        start = float(affine[k, 3]) - step / 2
        sides.append((start, start + step * values.shape[k]))
    image = axis.imshow(
        values.T, origin="lower", extent=(*sides[0], *sides[1]), interpolation="nearest", **options
    )
    # world x grows to the patient's right; it is drawn to the left
    axis.set(xlim=(max(sides[0]), min(sides[0])), ylim=(min(sides[1]), max(sides[1])))
    axis.set(aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    return image


def mark_sides(axis: Axes, first: str = "R", second: str = "L") -> None:
    """Letters at the left and right edges of a slice drawn by `show_slice` or `show_plane`."""
    left, right = axis.get_xlim()
    middle = sum(axis.get_ylim()) / 2
    inset = 0.03 * (right - left)
    for letter, x, align in ((first, left + inset, "left"), (second, right - inset, "right")):
        axis.text(
            x,
            middle,
            letter,
            ha=align,
            va="center",
            fontsize=9,
            fontweight="bold",
            color=SIDES_COLOUR,
        )
