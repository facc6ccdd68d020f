"""Perfusion maps from a scanner's software: are they what they are said to be, and relative to what.

A map that was exported as a picture (colours, grey values, a legend) or in another unit looks like a
map, and would be measured without complaint. `check_map` refuses it and says how to mend it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlvo_lib.config import InputError

MAX_OUTSIDE = 0.01  # share of voxels that may lie outside the range that the unit allows
LEAST_TISSUE = 200  # voxels above 0 from which on a median is judged
#: Median over the voxels above 0: what is possible in a map of a head. Simulated maps (80 patients): CBF 21-34,
#: CBV 1.9-2.3, MTT 3.6-5.5, Tmax 2.6-3.3; the limits are four to fifteen times as wide.
MEDIAN = {"cbf": (5.0, 150.0), "cbv": (0.5, 15.0), "mtt": (1.0, 20.0), "tmax": (0.2, 15.0)}
#: Where the median lies in most maps: a factor that leads there is named as the likely one.
USUAL = {"cbf": (12.0, 80.0), "cbv": (1.0, 6.0), "mtt": (2.5, 12.0), "tmax": (0.5, 8.0)}
_TIMES = ((0.001, "ms"), (0.1, "tenths of a second"), (0.01, "hundredths of a second"))
_MANIFOLD = (
    (0.1, "10 times the unit"),
    (0.01, "100 times the unit"),
    (0.001, "1000 times the unit"),
)
#: What a map is multiplied by to mend it, and what it was in.
SCALES = {
    "cbf": (*_MANIFOLD, (60.0, "mL/100 g/s"), (100.0, "mL/g/min")),
    "cbv": (*_MANIFOLD, (100.0, "mL/g, or a fraction")),
    "mtt": _TIMES,
    "tmax": _TIMES,
}
OFFSETS = (1024.0, 32768.0)  # of stored values whose rescale intercept was lost
FEW_VALUES = 8
PICTURE_MAX = (200, 255)  # the largest value of a picture of 8 bits lies here
STATIC_SHARE = 0.001  # of a slice's voxels that are the same in all slices: a legend, or text
LEAST_COLOURED = 1000  # voxels from which on colours are looked for
SAME_COLOURS = 0.9  # share of them that the 256 most frequent colours make up
LEGEND_STEPS = 100  # a legend's bar goes through so many values
NUMBERS = (
    "the map's numbers, not its picture (in the software, export parametric maps, not screenshots "
    "or secondary captures)"
)


def check_map(
    array: np.ndarray, name: str, low: float, high: float, unit: str, path: str
) -> tuple[str, ...]:
    """Refuse what is no map of this quantity; what is merely odd comes back as flags.

    Parameters
    ----------
    array : (X, Y, Z) map
    name : "cbf", "cbv", "mtt" or "tmax", whose usual values are known; another name: range only
    low, high, unit : what 99 % of the voxels lie within (the study file's)
    path : the file, named in messages

    Raises
    ------
    InputError
        For zeros alone, a picture (`picture_signs`), over 1 % of voxels outside the range, or a median
        that no head has; with the likely unit and the factor that mends it.

    >>> grey = np.random.default_rng(0).gamma(9.0, 3.0, (20, 20, 8))
    >>> check_map(grey, "cbf", -20, 400, "mL/100 g/min", "cbf.nii.gz")
    ()
    >>> try:
    ...     check_map(10 * grey, "cbf", -20, 400, "mL/100 g/min", "cbf.nii.gz")
    ... except InputError as error:
    ...     print(str(error)[-80:])
    allowed: a map in mL/100 g/min. It looks like 10 times the unit: multiply by 0.1
    """
    if not array.any():
        raise InputError(f"{path}: holds nothing but zeros")
    signs = picture_signs(array)
    if signs:
        raise InputError(f"{path}: looks like a picture ({'; '.join(signs)}); allowed: {NUMBERS}")
    outside = float(np.count_nonzero((array < low) | (array > high)) / array.size)
    tissue = array[array > 0]
    median = float(np.median(tissue)) if len(tissue) >= LEAST_TISSUE else float("nan")
    values = f"values {array.min():.3g} to {array.max():.3g}, median {median:.3g}"
    if outside > MAX_OUTSIDE:
        raise InputError(
            f"{path}: {outside:.0%} of the voxels lie outside {low:g} to {high:g} {unit} ({values}); "
            f"allowed: a map in {unit}{_padding(array, low, high) or _mend(array, name, high, median)}"
        )
    least, most = MEDIAN.get(name, (float("-inf"), float("inf")))
    if median < least or median > most:
        raise InputError(
            f"{path}: the median of the {name} map is {median:.3g} ({values}); allowed: {least:g} to "
            f"{most:g} {unit}{_mend(array, name, high, median)}"
        )
    return _flags(array, tissue)


def _padding(array: np.ndarray, low: float, high: float) -> str:
    """What mends a map that is good but for the value around the head."""
    lowest = float(array.min())
    if lowest >= low:
        return ""
    rest = array[array != lowest]
    wrong = np.count_nonzero((rest < low) | (rest > high))
    if not len(rest) or wrong > MAX_OUTSIDE * len(rest):
        return ""
    return f". The {array.size - len(rest)} voxels of {lowest:g} look like padding: set them to 0"


def _mend(array: np.ndarray, name: str, high: float, median: float) -> str:
    """How the map can be mended, as far as its values tell."""
    low_usual, high_usual = USUAL.get(name, (0.0, -1.0))
    fits = [
        f"{what}: multiply by {factor:g}"
        for factor, what in SCALES.get(name, ())
        if low_usual <= median * factor <= high_usual
        and np.count_nonzero(array * factor > high) <= MAX_OUTSIDE * array.size
    ]
    shifted = array[array > array.min()]
    for offset in OFFSETS:
        usual = len(shifted) and low_usual <= np.median(shifted) - offset <= high_usual
        if usual and np.count_nonzero(shifted - offset > high) <= MAX_OUTSIDE * len(shifted):
            fits.append(f"values with an offset: subtract {offset:g}, and set what is below 0 to 0")
    said = f". It looks like {', or '.join(fits)}" if fits else ". It may be another map"
    if _whole(array) and array.min() >= 0 and array.max() <= PICTURE_MAX[1]:
        said += "; or a picture's grey values, which cannot be mended"
    elif _whole(array):
        said += (
            " (whole numbers: the software's scale factor, the rescale slope of its DICOM files, may "
            "have been lost)"
        )
    return said


def _flags(array: np.ndarray, tissue: np.ndarray) -> tuple[str, ...]:
    flags = []
    some = tissue[:: max(1, len(tissue) // 50_000)]
    distinct = len(np.unique(some))
    if distinct < FEW_VALUES:
        flags.append(f"only {distinct} different values")
    same = (array[..., 1:] == array[..., :-1]).all(axis=(0, 1)) & array[..., 1:].any(axis=(0, 1))
    if same.any():
        flags.append(f"{int(same.sum())} of {array.shape[2]} slices repeat the one before")
    return tuple(flags)


# ------------------------------------------------------------------------------------------ pictures


def picture_signs(array: np.ndarray) -> list[str]:
    """What shows that an array (X, Y, Z) is a picture of a map; empty for a map, and for a mask.

    All slices the same; a legend or text at the same place of every slice; whole numbers up to 255
    with white voxels, few levels, a legend's bar, or slices that are the colour channels of one picture.
    """
    background = float(np.median(array[np.ix_(*[(0, -1)] * 3)]))
    signs = _static_signs(array, background)
    if signs or not _is_eight_bit(array):
        return signs
    counts = np.bincount(array[array != background].astype(np.int64), minlength=256)
    if counts[255] >= 10 and counts[255] > 3 * counts[254]:
        signs.append(f"whole numbers up to 255, {int(counts[255])} voxels at 255")
    if 0 < np.count_nonzero(counts) < FEW_VALUES:
        signs.append(f"whole numbers up to 255, of which {np.count_nonzero(counts)} occur")
    if _are_channels(array):
        signs.append("its slices are the colour channels of one picture")
    if any(_holds_bar(array[..., k], background) for k in range(min(array.shape[2], 64))):
        signs.append("whole numbers up to 255 and the bar of a legend")
    return signs


def _whole(array: np.ndarray) -> bool:
    return bool((array == np.rint(array)).all())


def _is_eight_bit(array: np.ndarray) -> bool:
    low, high = float(array.min()), float(array.max())
    return low >= 0 and PICTURE_MAX[0] <= high <= PICTURE_MAX[1] and _whole(array)


def _static_signs(array: np.ndarray, background: float) -> list[str]:
    """What is the same in all slices: brain is not."""
    from scipy import ndimage

    slices = array.shape[2]
    static = (array == array[..., :1]).all(axis=2) & (array[..., 0] != background)
    least = max(20, STATIC_SHARE * static.size)
    if slices < 2 or np.count_nonzero(static) < least:
        return []
    drawn = array[..., 0] != background
    if (
        len(np.unique(array[..., 0])) > 2
        and (static == drawn).all()
        and (np.count_nonzero((array != background).any(axis=2) & ~drawn) == 0)
    ):
        return [f"all {slices} slices are the same"]
    if slices < 3:
        return []
    labels, n = ndimage.label(array != background)
    largest = np.bincount(labels.ravel(), minlength=n + 1)[1:].argmax() + 1
    apart = static & (labels != largest).all(axis=2)
    if np.count_nonzero(apart) < least:
        return []
    return [f"{np.count_nonzero(apart)} voxels beside the head are the same in all {slices} slices"]


def _are_channels(array: np.ndarray) -> bool:
    """Whether slices go together by threes as red, green and blue: few combinations occur."""
    slices = array.shape[2]
    if slices not in (3, 4) and slices % 3:
        return False
    third = slices // 3
    ways = [array[..., :3]] if slices == 4 else [
        array.reshape(*array.shape[:2], third, 3),
        np.moveaxis(array.reshape(*array.shape[:2], 3, third), 2, -1),
    ]  # fmt: skip
    for colours in ways:
        triples = colours.reshape(-1, 3).astype(np.int64)
        triples = triples[triples.any(axis=1)]
        if len(triples) < LEAST_COLOURED:
            continue
        triples = triples[:: max(1, len(triples) // 200_000)]
        codes = np.sort(np.bincount(triples @ (65536, 256, 1)))
        # a colour table has 256; smoothed edges make some more
        if codes[-256:].sum() > SAME_COLOURS * len(triples):
            return True
    return False


def _holds_bar(picture: np.ndarray, background: float) -> bool:
    """Whether a slice holds a narrow strip, apart from the head, that runs through the values."""
    from scipy import ndimage

    labels, n = ndimage.label(picture != background)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    for k, box in enumerate(ndimage.find_objects(labels), start=1):
        height, width = (s.stop - s.start for s in box)
        long, short = max(height, width), min(height, width)
        if long < 4 * short or sizes[k] < max(40, 0.9 * long * short):
            continue
        strip = picture[box] if height == long else picture[box].T
        profile = np.median(strip, axis=1)
        steps = np.diff(profile)
        if np.ptp(profile) >= LEGEND_STEPS and ((steps >= 0).all() or (steps <= 0).all()):
            return True
    return False


# --------------------------------------------------------------------------------- brain and grid


def brain_mask(cbf: np.ndarray, tmax: np.ndarray) -> np.ndarray:
    """The brain in maps that are 0 outside it: the largest region with any flow, holes filled.

    Holes, such as ventricles that the software left out, are filled slice by slice; they have neither
    flow nor delay and count nowhere.
    """
    from scipy import ndimage

    tissue = (cbf > 0) | (tmax > 0)
    labels, n = ndimage.label(tissue)
    if n == 0:
        return tissue
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return np.stack(
        [ndimage.binary_fill_holes(largest[..., k]) for k in range(largest.shape[2])], axis=2
    )


def check_same_grid(volumes: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Raise an `InputError` that names the first map on another grid than the first one.

    ``volumes`` holds (array, affine) by name. One run of the software gives all maps on one grid.
    """
    (first, (array, affine)), *rest = volumes.items()
    for name, (other, other_affine) in rest:
        if other.shape != array.shape or not np.allclose(other_affine, affine, atol=1e-2):
            raise InputError(
                f"perfusion map {name} lies on another grid ({_grid(other, other_affine)}) than "
                f"{first} ({_grid(array, affine)}); allowed: maps of one run of the software, with the "
                "same voxels and affine"
            )


def _grid(array: np.ndarray, affine: np.ndarray) -> str:
    spacing = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    origin = ", ".join(f"{x:.1f}" for x in np.asarray(affine)[:3, 3])
    return (
        f"{' x '.join(map(str, array.shape))} voxels of {' x '.join(f'{s:.3g}' for s in spacing)} mm, "
        f"first at {origin}"
    )


# -------------------------------------------------------------------------------------- relative


def relative(volume: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    """A map (X, Y, Z) divided by its mean over the healthy hemisphere's tissue; float32.

    ``healthy`` is `Regions.healthy`: the other hemisphere's brain, more than 3 mm from the midline,
    with flow and without fluid. The mean, not the median: software does so.

    Raises
    ------
    InputError
        If there is nothing to divide by.

    >>> relative(np.array([[[2.0, 6.0, 3.0]]]), np.array([[[True, True, False]]])).tolist()
    [[[0.5, 1.5, 0.75]]]
    """
    mean = float(volume[healthy].mean(dtype=float)) if healthy.any() else 0.0
    if not mean > 0:
        raise InputError(
            f"a relative map: the healthy hemisphere's mean is {mean:g} over "
            f"{np.count_nonzero(healthy)} voxels; allowed: above 0"
        )
    return (volume / mean).astype(np.float32)


def smoothed(
    volume: np.ndarray, brain: np.ndarray, affine: np.ndarray, fwhm_mm: float
) -> np.ndarray:
    """A map smoothed within each slice by a Gaussian (FWHM in mm), brain with brain only; float32.

    For maps whose software does not smooth; nothing is smoothed by default, as vendors' maps are, and
    smoothing moves the edge of every volume. Slices lie along the third axis. 0 outside ``brain``.
    """
    from scipy import ndimage

    spacing = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    sigma = [*(fwhm_mm / 2.3548 / spacing[:2]), 0.0]
    inside = brain.astype(np.float32)
    weight = ndimage.gaussian_filter(inside, sigma)
    blurred = ndimage.gaussian_filter(np.where(brain, volume, 0).astype(np.float32), sigma)
    return np.where(brain, blurred / np.maximum(weight, 1e-6), 0).astype(np.float32)
