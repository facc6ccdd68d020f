"""One stack of DICOM slices to one NIfTI file, by dcm2niix, and checks that it is what it should be.

dcm2niix sees the files of the stack only, decodes and sorts them. Slices that lean or lie unevenly are
straightened here (`straightening`): right angles and even slices. Only voxels and the affine are taken
from what dcm2niix writes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from rlvo_lib.config import InputError, Scan
from rlvo_lib.dicom import straightening
from rlvo_lib.dicom.kinds import MAPS, unit_factor
from rlvo_lib.dicom.series import Stack, positions
from rlvo_lib.images import AIR_HU, MAX_VOXELS, check_hu, is_sheared, save_nifti, voxel_sizes

TIMEOUT_S = 1800
PLACE_MM = 0.1  # how well a converted voxel must lie where the DICOM file says
HEAD_CM2 = 450.0  # a larger cross-section in the upper half of a scan is a trunk's, not a head's


@dataclass(frozen=True)
class Volume:
    """A converted scan: (X, Y, Z) int16 HU or float32 map, its affine (RAS+ mm), what was straightened."""

    array: np.ndarray
    affine: np.ndarray
    straightened: list[str]
    notes: tuple[str, ...] = ()


def convert(stack: Stack, scan: str, place: Scan, out_path: Path, workspace: Path) -> Volume:
    """Convert a stack as the scan `scan` and write it to `out_path`, whole or not at all.

    ``place`` is the study's description of the scan: for a map its unit and range.

    Raises
    ------
    InputError
        If dcm2niix cannot read the files, makes not exactly one volume of them, or makes one that does
        not lie where the files say, is not in HU, or is no map in its unit.
    """
    volume = load(stack, scan, workspace)
    if scan in MAPS:
        volume = _checked_map(volume, stack, scan, place)
    else:
        volume = _checked_ct(volume, stack)
    save_nifti(out_path, volume.array, volume.affine)
    return volume


def load(stack: Stack, scan: str, workspace: Path) -> Volume:
    """A stack as one volume, straight and even, checked against the positions in its headers."""
    folder, converted = workspace / "slices", workspace / "nifti"
    for made in (folder, converted):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
    for number, header in enumerate(stack.headers):
        _lay(header.path, folder / f"{number:06d}.dcm")
    said, status = _run_dcm2niix(folder, converted)
    chosen = _one_volume(stack, converted, said, status)
    image = nib.load(chosen)
    if image.ndim != 3 or np.prod(image.shape, dtype=float) > MAX_VOXELS:
        shape = " x ".join(map(str, image.shape))
        raise InputError(f"{stack.label}: becomes {shape} voxels; one 3D volume is allowed")
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(f"{stack.label}: holds colours; one number a voxel is allowed")
    array, affine = _values(image), np.array(image.affine, float)
    del image
    _check_slices(stack, array.shape, affine)
    straightened = straightening.needed(stack)
    if straightened:
        lowest = 0.0 if scan in MAPS else AIR_HU
        if scan not in MAPS:
            array = np.maximum(array, array.dtype.type(AIR_HU))  # padding would bleed into the edge
        array, affine = straightening.straighten(array, affine, stack, lowest)
    else:
        _check_place(stack, array.shape, affine)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(converted, ignore_errors=True)
    return Volume(array, affine, straightened)


def _values(image: nib.Nifti1Image) -> np.ndarray:
    """Voxels with slope and intercept applied: int16 where they are whole numbers, else float32.

    CT is stored as whole numbers with an intercept of -1024, which nibabel makes float64 of: four times
    the memory.
    """
    stored = np.asanyarray(image.dataobj.get_unscaled())
    slope, inter = float(image.dataobj.slope), float(image.dataobj.inter)
    if stored.dtype.kind == "f" or slope != 1.0 or inter != round(inter) or stored.itemsize > 2:
        return np.asarray(stored, np.float32) * np.float32(slope) + np.float32(inter)
    array = np.empty(stored.shape, np.int16, order="F")
    for k in range(stored.shape[2]):
        plane = stored[..., k].astype(np.int32) + int(inter)
        array[..., k] = np.clip(plane, -32768, 32767)
    return array


def _lay(source: Path, target: Path) -> None:
    """The file under another name, without a copy where the disk can do that."""
    try:
        os.symlink(os.path.abspath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def _run_dcm2niix(folder: Path, out: Path) -> tuple[str, int]:
    """Convert everything in `folder`: no sidecar, defaults of no user, slices of a stack together.

    Unsigned voxels become signed where they fit (``-l n``): dcm2niix fails on its own copy of uneven
    slices otherwise.
    """
    import dcm2niix

    command = [
        dcm2niix.bin, "-b", "n", "-z", "n", "-m", "y", "-l", "n", "-g", "i", "-f", "v", "-o", out, folder,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True, text=True, errors="replace", check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "", -1
    return done.stdout + done.stderr, done.returncode


def _one_volume(stack: Stack, converted: Path, said: str, status: int) -> Path:
    """The NIfTI file to keep, once it is sure that there is one volume, and none of it is missing."""
    # copies, which are made anew here; and drawings of an overlay plane, which are no voxels
    others = ("_Tilt", "_Eq", "_ROI")
    files = [p for p in sorted(converted.glob("*.nii")) if not any(m in p.stem for m in others)]
    trouble = [line for line in said.splitlines() if line.startswith(("Error", "Unsupported"))]
    if not files or trouble or status:
        _refuse_full(stack, converted)
        codec = COMPRESSIONS.get(stack.first.transfer, "")
        how = f", {codec} compression" if codec else ""
        raise InputError(
            f"{stack.label}: cannot be decoded by dcm2niix ({stack.files} files{how}); allowed: the same "
            "series exported without compression (Explicit VR Little Endian)"
        )
    if len(files) > 1:
        raise InputError(f"{stack.label}: falls into {len(files)} volumes; one is allowed")
    return files[0]


def _refuse_full(stack: Stack, folder: Path) -> None:
    """An error that stops the whole run where it is the disk for temporary files that is full."""
    bytes_needed = 2 * stack.first.rows * stack.first.columns * len(stack.at_mm)
    if shutil.disk_usage(folder).free < bytes_needed:
        raise InputError(f"cannot write {folder}: the disk is full; free some space, or set TMPDIR")


COMPRESSIONS = {
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "high-throughput JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.202": "high-throughput JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.203": "high-throughput JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE lossless",
}


def _check_slices(stack: Stack, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Compare rows, columns, number of slices and size of a pixel with the headers."""
    first = stack.first
    if shape[2] != stack.slices:
        raise InputError(f"{stack.label}: {stack.slices} slices became {shape[2]}")
    if sorted(shape[:2]) != sorted((first.rows, first.columns)):
        raise InputError(
            f"{stack.label}: {first.rows} x {first.columns} became {shape[0]} x {shape[1]}"
        )
    size = np.sort(voxel_sizes(affine)[:2])
    if len(first.spacing) != 2 or np.abs(size - np.sort(first.spacing)).max() > 0.01:
        raise InputError(f"{stack.label}: the size of its pixels is not that of the headers")


def _check_place(stack: Stack, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Compare the affine with the headers' positions: the slices' planes, and voxels within them."""
    if is_sheared(affine):
        raise InputError(f"{stack.label}: its axes are not at right angles after conversion")
    lps = np.diag([-1.0, -1.0, 1.0])
    index = (np.linalg.inv(affine) @ np.vstack([lps @ _ends(stack).T, np.ones((1, 2))]))[:3]
    third = np.sort(index[2])
    off = voxel_sizes(affine)[2] * max(abs(third[0]), abs(third[1] - (shape[2] - 1)))
    if stack.slices > 1 and off > PLACE_MM:
        raise InputError(f"{stack.label}: its last slices lie {off:.1f} mm off after conversion")
    corner = np.clip(index[:2].round(), 0, np.array(shape[:2])[:, None] - 1)
    if np.abs(index[:2] - corner).max() * max(stack.first.spacing) > PLACE_MM:
        raise InputError(f"{stack.label}: its voxels do not lie where the files say")


def _ends(stack: Stack) -> np.ndarray:
    """First voxels of the first and the last slice, (2, 3) mm LPS."""
    places = positions(stack.headers)
    order = np.argsort(places @ stack.normal, kind="stable")
    return places[[order[0], order[-1]]]


# ---------------------------------------------------------------------------------------- values


def _checked_ct(volume: Volume, stack: Stack) -> Volume:
    """HU as int16, padding clipped to -1024; an error if they are none, or those of a trunk."""
    array = volume.array
    if array.dtype != np.int16:
        if not np.isfinite(array).all():
            raise InputError(f"{stack.label}: voxels that are NaN or infinite")
        array = np.clip(np.rint(array), AIR_HU, 32767).astype(np.int16)
    else:
        np.maximum(array, np.int16(AIR_HU), out=array)
    check_hu(array, stack.label)
    _check_head(array, volume.affine, stack)
    return Volume(array, volume.affine, volume.straightened, volume.notes)


def _check_head(array: np.ndarray, affine: np.ndarray, stack: Stack) -> None:
    """Refuse a trunk: in the upper half of the scan cross-sections are a head's.

    A CTA from the aortic arch to the vertex passes; one that ends at the neck does not.
    """
    step = max(1, array.shape[0] // 128)
    up = array if affine[2, 2] > 0 else array[..., ::-1]
    upper = up[::step, ::step, array.shape[2] // 2 :: max(1, array.shape[2] // 40)]
    pixel_cm2 = float(np.prod(voxel_sizes(affine)[:2])) * step**2 / 100
    area = np.count_nonzero(upper > -300, axis=(0, 1)) * pixel_cm2
    typical = float(np.median(area))
    if typical > HEAD_CM2:
        raise InputError(
            f"{stack.label}: a cross-section of {typical:.0f} cm2 in the upper half of the scan; at most "
            f"{HEAD_CM2:.0f} in a head"
        )


def _checked_map(volume: Volume, stack: Stack, scan: str, place: Scan) -> Volume:
    """A map in its unit, float32, padding 0; an error if its values are not those of the unit."""
    factor = unit_factor(scan, stack.first.unit)
    if factor is None:
        raise InputError(f"{stack.label}: its unit is not known; allowed: {place.unit}")
    array = volume.array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{stack.label}: voxels that are NaN or infinite")
    notes = []
    lowest = float(array.min())
    if lowest < min(place.low, 0.0) and (array == lowest).mean() > 0.01:
        array[array == lowest] = 0.0  # what stands outside the brain, such as -1024
        notes.append("the lowest value, outside the brain, became 0")
    array *= np.float32(factor)
    share = float(((array < place.low) | (array > place.high)).mean())
    if not array.any() or share > 0.01:
        raise InputError(
            f"{stack.label}: {'only zeros' if not array.any() else f'{share:.0%} of its values lie'}"
            f"{'' if not array.any() else f' outside {place.low:g} to {place.high:g} {place.unit}'}; "
            f"allowed: a {scan.upper()} map in {place.unit}"
        )
    return Volume(array, volume.affine, volume.straightened, tuple(notes))
