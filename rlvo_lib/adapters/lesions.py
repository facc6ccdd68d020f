"""Lesion masks: found, measured against an atlas of arterial territories on the same grid, written.

The arterial atlas numbers 32 territories: an odd label is on the left, the next even one is the same
territory on the right. Left and right are those of the world (RAS+, +x is the right side), so they come
from the affine and not from the order of the voxels. Nothing is resampled or turned: an atlas or a mask
on another grid is an error, and masks are written with voxels and affine as they came.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from rlvo_lib import images, storage
from rlvo_lib.config import InputError

TERRITORIES = 32
SAME_PLACE_MM = 1e-3  # affines that differ by less are one grid


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie."""

    shape: tuple[int, ...]
    affine: np.ndarray  # (4, 4), voxel indices to world mm (RAS+)

    def __str__(self) -> str:
        sizes = " x ".join(f"{size:.4g}" for size in images.voxel_sizes(self.affine))
        first = ", ".join(f"{place:.4g}" for place in self.affine[:3, 3])
        return (
            f"{' x '.join(map(str, self.shape))} voxels of {sizes} mm, axes "
            f"{''.join(nib.aff2axcodes(self.affine))}, first voxel at {first} mm"
        )

    def is_same(self, other: Grid) -> bool:
        """Whether both have their voxels in the same places and the same order."""
        return self.shape == other.shape and np.allclose(
            self.affine, other.affine, rtol=0, atol=SAME_PLACE_MM
        )

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


@dataclass(frozen=True)
class MaskHeader:
    """What a mask's header says of it."""

    grid: Grid
    dtype: str  # of the voxels as stored: uint8, int16, ...
    plain: bool  # uint8, 3D and unscaled: the stored bytes are the values


@dataclass(frozen=True)
class Lesion:
    """A mask and what it holds."""

    path: Path
    header: MaskHeader
    voxels: np.ndarray  # (33,) lesion voxels outside the atlas, then in each territory
    coded: float  # value of a lesion voxel; 1 where there is none

    @property
    def total(self) -> int:
        """All lesion voxels."""
        return int(self.voxels.sum())

    @property
    def outside(self) -> int:
        """Lesion voxels that lie in no territory."""
        return int(self.voxels[0])

    @property
    def ml(self) -> np.ndarray:
        """Volumes in mL, (33,): the whole lesion, then its part in each territory."""
        return np.array([self.total, *self.voxels[1:]]) * self.header.grid.voxel_ml

    @property
    def clean(self) -> bool:
        """Whether the file can be copied as it is: plain uint8, 0 and 1."""
        return self.header.plain and self.coded == 1


@dataclass(frozen=True)
class Atlas:
    """Territories: a label for each voxel, 0 outside all of them."""

    path: Path
    grid: Grid
    labels: np.ndarray  # (X * Y * Z,) uint8, the first index running fastest


def read_header(path: Path) -> MaskHeader:
    """Grid and data type of a NIfTI file, from its header alone.

    Raises
    ------
    InputError
        If it is no readable 3D NIfTI file.
    """
    kind, _ = images.check_header(path)
    try:
        image = kind.from_filename(path)
    except (nib.spatialimages.HeaderDataError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is damaged, its header cannot be read ({error})") from error
    dtype = image.get_data_dtype()
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
    grid = Grid(tuple(image.shape[:3]), np.array(image.affine, dtype=float))
    return MaskHeader(grid, dtype.name, dtype == np.uint8 and image.ndim == 3 and not scaled)


def load_atlas(path: Path) -> Atlas:
    """Read an atlas of 32 territories.

    Raises
    ------
    InputError
        If it is unreadable, has other labels than 0 to 32, or its left labels do not lie to the left of
        its right ones (an affine of the wrong sign).
    """
    array, affine = images.load_nifti(path)
    found = np.unique(array)
    if not np.array_equal(found, np.arange(TERRITORIES + 1)):
        raise InputError(
            f"{path}: has {len(found)} labels from {found[0]:g} to {found[-1]:g}; allowed: an atlas with "
            f"all of 0 to {TERRITORIES}"
        )
    atlas = Atlas(path, Grid(array.shape, affine), array.ravel(order="F").astype(np.uint8))
    x = _mean_x(atlas)
    swapped = [label for label in range(1, TERRITORIES, 2) if not x[label] < x[label + 1]]
    if swapped:
        raise InputError(
            f"{path}: label {swapped[0]} (left) has its middle at x = {x[swapped[0]]:.4g} mm and label "
            f"{swapped[0] + 1} (right) at {x[swapped[0] + 1]:.4g} mm; allowed: left below right, as the "
            "affine counts"
        )
    return atlas


def _mean_x(atlas: Atlas) -> np.ndarray:
    """World x in mm of the middle of each label, (33,); positive is the right side."""
    n = np.bincount(atlas.labels, minlength=TERRITORIES + 1)
    axes = np.unravel_index(np.arange(atlas.labels.size), atlas.grid.shape, order="F")
    middle = [np.bincount(atlas.labels, weights=axis, minlength=len(n)) / n for axis in axes]
    return atlas.grid.affine[0, :3] @ middle + atlas.grid.affine[0, 3]


def refuse_other_grids(headers: dict[Path, MaskHeader], atlas: Atlas) -> None:
    """Raise if the masks (one or more) are not all on the grid of the atlas.

    Raises
    ------
    InputError
        Naming two masks and their grids, or the atlas and the masks' grid.
    """
    first, *others = headers
    grid = headers[first].grid
    for path in others:
        if not headers[path].grid.is_same(grid):
            raise InputError(
                f"{path}: its grid ({headers[path].grid}) is not that of {first.name} ({grid}); allowed: "
                "all masks on one grid"
            )
    if not atlas.grid.is_same(grid):
        raise InputError(
            f"{atlas.path}: its grid ({atlas.grid}) is not that of the masks ({grid}, as {first.name}); "
            "allowed: an atlas on the masks' grid"
        )


def measure(path: Path, header: MaskHeader, atlas: Atlas) -> Lesion:
    """Count the lesion voxels of a mask on the atlas's grid, by territory.

    Raises
    ------
    InputError
        If the mask is unreadable or holds more than 0 and one value above 0.
    """
    array, _ = images.load_nifti(path)
    flat = array.ravel(order="F")
    places = np.flatnonzero(flat)
    values = np.unique(flat[places])
    if len(values) > 1 or (len(values) and values[0] < 0):
        shown = ", ".join(f"{value:g}" for value in values[:5]) + (", …" if values[5:].size else "")
        raise InputError(
            f"{path}: is no mask, it holds {shown} beside 0; allowed: 0 and one value above"
        )
    counts = np.bincount(atlas.labels[places], minlength=TERRITORIES + 1)
    return Lesion(path, header, counts, float(values[0]) if len(values) else 1.0)


def find_masks(folder: Path, names: re.Pattern[str]) -> dict[str, Path]:
    """The masks of a folder and its sub-folders (one level), by patient: the group 1 of ``names``.

    Raises
    ------
    InputError
        If there is no such folder, no mask, or a patient has two.
    """
    if not folder.is_dir():
        what = "is a file; allowed: a folder (unpack an archive first)"
        raise InputError(f"{folder}: {what if folder.exists() else 'no such folder'}")
    masks: dict[str, Path] = {}
    for path in sorted([*folder.glob("*.nii.gz"), *folder.glob("*/*.nii.gz")]):
        match = names.fullmatch(path.name)
        if not match:
            continue
        if match[1] in masks:
            raise InputError(
                f"{folder}: patient '{match[1]}' has two masks, {masks[match[1]].relative_to(folder)} and "
                f"{path.relative_to(folder)}; allowed: one"
            )
        masks[match[1]] = path
    if not masks:
        raise InputError(f"{folder}: holds no lesion mask; allowed: files like sub-3_lesion.nii.gz")
    return masks


def is_written(lesion: Lesion, target: Path) -> bool:
    """Whether `write` has nothing to do."""
    if not target.exists():
        return False
    if lesion.clean:
        return is_copied(lesion.path, target)
    try:
        header = read_header(target)
        there, _ = images.load_nifti(target)
    except InputError:
        return False
    array, _ = images.load_nifti(lesion.path)
    same = header.plain and header.grid.is_same(lesion.header.grid)
    return same and np.array_equal(array > 0, there)


def write(lesion: Lesion, target: Path) -> None:
    """Copy a clean mask; write another as uint8 0 and 1. Voxels and affine stay as they are."""
    if lesion.clean:
        copy(lesion.path, target)
    else:
        array, affine = images.load_nifti(lesion.path)
        images.save_nifti(target, (array > 0).astype(np.uint8), affine)


def is_copied(source: Path, target: Path) -> bool:
    """Whether the target is there with the bytes of the source."""
    return target.exists() and filecmp.cmp(source, target, shallow=False)


def copy(source: Path, target: Path) -> None:
    """Copy a file byte for byte; the target is whole or absent."""
    with storage.atomic(target) as temporary:
        shutil.copyfile(source, temporary)
