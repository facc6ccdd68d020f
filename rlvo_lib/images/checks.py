"""A scan that is not what it should be, stopped early: findings from its header and from its voxels.

`header_findings` needs the first bytes of a file, `voxel_findings` the whole volume; `load_scan` does
both and gives the volume. What a scan should be is said by the study file: ``ct`` (HU), ``map`` (a
quantity in a unit) or ``mask`` (0 and 1). docs/imaging.md has the table of limits.

What is no fault: a left-handed affine (dcm2niix writes such), an oblique one, any order of the axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from rlvo_lib.config import Scan
from rlvo_lib.images.field import field_findings
from rlvo_lib.images.findings import Finding, error, refuse, warning
from rlvo_lib.images.geometry import is_sheared, shear_degrees, voxel_sizes
from rlvo_lib.images.header import Header, read_header
from rlvo_lib.images.hounsfield import clip_padding, hu_findings
from rlvo_lib.images.nifti import load_nifti

MOST_SHEAR_DEGREES = 30.0
"""CT gantries tilt by up to 30 degrees (the usual mechanical limit); more is a broken affine."""

SAME_PLACE_MM = 1.0
"""qform and sform may differ by so much, or by half a voxel: rounding of the quaternion, no shift."""

THICKEST_MM = {"ct": 10.0, "map": 15.0, "mask": 15.0}
"""Longest voxel edge: routine head CT has slices of 0.5 to 5, old protocols and perfusion of 10 mm."""

MOST_ANISOTROPY = 20.0
"""Slice thickness over pixel size: 5 mm at 0.45 mm is 11, 10 mm at 0.5 mm the extreme."""

WIDEST_MM = 1000.0
"""Longest field of view: from the aortic arch to the vertex are 450 mm. 2 m is a head in cm x 10."""

NARROWEST_MM = {"ct": 100.0, "map": 100.0, "mask": 0.0}
"""The two longer sides of a field of view hold a head's breadth (150 mm); 20 mm is a head in cm. A
mask may be cropped to what it marks."""

THINNEST_MM = {"ct": 30.0, "map": 5.0, "mask": 0.0}
"""Shortest side: a stack under 3 cm is a localiser or a part of a series, not a head."""

THIN_MM = {"ct": 80.0, "map": 0.0, "mask": 0.0}
"""From the circle of Willis to the convexity are some 90 mm: a thinner slab lacks one of the two."""

COARSEST_STEP_HU = 4.0
"""Grey and white matter differ by 6 to 8 HU; 8-bit storage of a whole CT has steps of 7 to 16."""

MOST_IMPLAUSIBLE = 0.01
"""Share of a map's voxels that may lie outside what its unit allows (artefacts at vessels and bone)."""


# --------------------------------------------------------------------------------------------- header


def header_findings(path: str | Path, scan: Scan) -> list[Finding]:
    """What a scan's header tells: places, orientation, shear, voxel size, extent, storage.

    Raises InputError where the file is no NIfTI volume at all (`read_header`).
    """
    header = read_header(path)
    return [
        *_place_findings(header),
        *_shear_findings(header.affine),
        *_size_findings(header, scan.kind),
        *_step_findings(header, scan.kind),
    ]


def _place_findings(header: Header) -> Iterator[Finding]:
    """Whether the header says where the volume lies, and only one thing."""
    qcode, scode = header.codes
    if not qcode and not scode:
        what = "does not say where it lies, so that left and right are unknown"
        mend = "an sform or qform with a code above 0: convert again from DICOM"
        yield error(what, "qform code 0, sform code 0", mend)
    if not qcode or not scode or is_sheared(header.affine):
        return  # a qform cannot hold a shear, and then only the sform counts
    corners = nib.affines.apply_affine(header.affine, _corners(header.shape))
    others = nib.affines.apply_affine(header.fields.get_qform(), _corners(header.shape))
    apart = float(np.linalg.norm(corners - others, axis=1).max())
    allowed = max(SAME_PLACE_MM, float(voxel_sizes(header.affine).min()) / 2)
    if apart > allowed:
        axes = ["".join(nib.aff2axcodes(a)) for a in (header.affine, header.fields.get_qform())]
        what = f"its sform and qform put it in two places, {apart:.1f} mm apart"
        value = f"sform {axes[0]}, code {scode}; qform {axes[1]}, code {qcode}"
        mend = (
            f"one place (up to {SAME_PLACE_MM:g} mm or half a voxel): keep the right one, e.g. with "
            "nibabel image.set_qform(image.affine, code=1) if it is the sform"
        )
        yield error(what, value, mend)


def _corners(shape: tuple[int, ...]) -> np.ndarray:
    return np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T


def _shear_findings(affine: np.ndarray) -> Iterator[Finding]:
    if not is_sheared(affine):
        return
    angle = shear_degrees(affine)
    value, what = f"{angle:.1f} degrees", "its axes are not at right angles"
    if angle > MOST_SHEAR_DEGREES:
        mend = f"at most {MOST_SHEAR_DEGREES:g} degrees, as far as a CT gantry tilts"
        yield error(f"{what}, by more than any gantry tilts", value, mend)
    else:
        mend = "right angles, or a tilted gantry: resampling puts each voxel in its true place"
        yield warning(f"{what}: a tilted gantry that was not straightened", value, mend)


def _size_findings(header: Header, kind: str) -> Iterator[Finding]:
    """Voxels and field of view of sizes that no head scan has."""
    sizes = voxel_sizes(header.affine)
    extent = np.sort(sizes * header.shape)
    said = " x ".join(f"{mm:.4g}" for mm in sizes * header.shape) + " mm"
    voxels = " x ".join(f"{mm:.4g}" for mm in sizes) + " mm"
    if extent[2] > WIDEST_MM or extent[1] < NARROWEST_MM[kind]:
        size = "large" if extent[2] > WIDEST_MM else "small"
        what = f"its field of view is too {size} for a head: voxel sizes in another unit than mm?"
        yield error(what, said, f"{NARROWEST_MM[kind]:g} to {WIDEST_MM:g} mm")
        return
    if sizes.max() > THICKEST_MM[kind]:
        what = "its slices are too thick"
        yield error(what, voxels, f"voxels of at most {THICKEST_MM[kind]:g} mm")
    elif sizes.max() / sizes.min() > MOST_ANISOTROPY:
        what = "its voxels are much longer than wide"
        yield warning(what, voxels, f"a ratio of at most {MOST_ANISOTROPY:g}")
    if extent[0] < THINNEST_MM[kind]:
        n = header.shape[int(np.argmin(sizes * header.shape))]
        what = f"too few slices ({n}): a localiser, or a part of a series"
        yield error(what, said, f"at least {THINNEST_MM[kind]:g} mm")
    elif extent[0] < THIN_MM[kind]:
        what = "a slab that cannot hold both the circle of Willis and the convexity"
        yield warning(what, said, f"at least {THIN_MM[kind]:g} mm")


def _step_findings(header: Header, kind: str) -> Iterator[Finding]:
    """HU stored with so few levels that tissue cannot be told apart."""
    if kind != "ct" or header.fields.get_data_dtype().kind == "f":
        return
    slope = header.fields.get_slope_inter()[0]
    step = abs(float(slope)) if slope else 1.0
    if step > COARSEST_STEP_HU:
        bits = header.fields.get_data_dtype().itemsize * 8
        what = "its HU are stored in coarse steps, grey and white matter cannot be told apart"
        yield warning(what, f"{step:.2g} HU, {bits} bits", f"at most {COARSEST_STEP_HU:g} HU")


# --------------------------------------------------------------------------------------------- voxels


def voxel_findings(array: np.ndarray, affine: np.ndarray, scan: Scan) -> list[Finding]:
    """What the voxels of a scan tell: unit, pictures taken for scans, padding, field of view.

    `array` (X, Y, Z) as stored, finite; `affine` 4x4, voxel indices to world mm (RAS+).
    """
    if scan.kind == "mask":
        return list(_mask_findings(array))
    found = hu_findings(array) if scan.kind == "ct" else list(_map_findings(array, scan))
    return found or field_findings(array, affine, scan.kind)


def _mask_findings(array: np.ndarray) -> Iterator[Finding]:
    low, high = float(array.min()), float(array.max())
    binary = np.count_nonzero(array == 0) + np.count_nonzero(array == 1) == array.size
    if not binary:
        yield error("holds values other than 0 and 1", f"{low:g} to {high:g}", "a binary mask")
    elif high == 0:
        yield warning("holds nothing but zeros", "", "a mask with something in it")


def _map_findings(array: np.ndarray, scan: Scan) -> Iterator[Finding]:
    low, high = float(array.min()), float(array.max())
    value = f"values {low:g} to {high:g}"
    if not array.any():
        yield error("holds nothing but zeros", "", f"a map in {scan.unit}")
        return
    if low == 0 and high in (1, 255) and _is_quantised(array, high):
        what = f"its values are a picture's (0 to {high:g}, in 256 levels)"
        yield error(what, value, f"a map in {scan.unit}, not a picture of one")
        return
    outside = np.count_nonzero(array < scan.low) + np.count_nonzero(array > scan.high)
    if outside > MOST_IMPLAUSIBLE * array.size:
        what = (
            f"{outside / array.size:.0%} of the voxels lie outside {scan.low:g} to {scan.high:g} "
            f"{scan.unit}: another unit, or another map"
        )
        yield error(what, value, f"a map in {scan.unit}")


def _is_quantised(array: np.ndarray, high: float) -> bool:
    """Whether all values are 256 levels at most, evenly spaced from 0 to `high`."""
    levels = array.astype(np.float32, copy=False) * np.float32(255.0 / high)
    return bool(np.abs(levels - np.rint(levels)).max() < 1e-3)


def load_scan(
    path: str | Path, scan: Scan, *, fill: float | None = None
) -> tuple[np.ndarray, np.ndarray, list[Finding]]:
    """A scan as (X, Y, Z) float32, its 4x4 affine (voxel indices to world mm, RAS+), and warnings.

    The padding of a CT is raised to -1024 HU. NaN and infinite voxels take the value `fill`; without
    one they are refused. Raises InputError, one line that names the file, at the first error: what
    `load_nifti` refuses, then the header's findings, then the voxels'.
    """
    warnings = refuse(header_findings(path, scan), path)
    array, affine = load_nifti(path, fill=fill)
    warnings += refuse(voxel_findings(array, affine, scan), path)
    return (clip_padding(array) if scan.kind == "ct" else array), affine, warnings


def scan_findings(path: str | Path, scan: Scan) -> list[Finding]:
    """All findings of a scan, header and voxels; InputError only where it cannot be read at all."""
    found = header_findings(path, scan)
    array, affine = load_nifti(path)
    return [*found, *voxel_findings(array, affine, scan)]
