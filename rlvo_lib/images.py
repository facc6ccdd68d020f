"""Scans in and out: NIfTI and DICOM files, geometry and HU checks, resampling, windowing.

Conventions
-----------
* World coordinates are millimetres, RAS+: +x towards the patient's right, +y anterior, +z
  superior. nibabel's affine is the only truth; voxel data stay in the order they are stored.
* CT is in HU; perfusion maps are in mL/100 g/min (CBF), mL/100 g (CBV), s (MTT, Tmax).
* Every fault a user can cause is an ``InputError`` of one line that names the file.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from rlvo_lib.config import InputError
from rlvo_lib.storage import atomic

MAX_VOXELS = 512 * 512 * 2000
"""Largest volume that is read: more than any head CT; a larger header is a fault or an attack."""

MAX_HEADER_BYTES = 1 << 20
"""Largest distance from the start of a file to its voxels (header and extensions)."""


def save_nifti(
    path: str | Path,
    array: np.ndarray,
    affine: np.ndarray,
    *,
    scaled_int16: bool = False,
    description: str = "",
    level: int = 1,
) -> Path:
    """Write `array` (X, Y, Z) with its voxel-to-world-mm (RAS+) `affine`; the same input, same bytes.

    int16, uint8 and float32 are kept; bool becomes uint8, float64 float32, other integers int16
    (OverflowError if they do not fit). ``scaled_int16=True`` stores floats as int16 with a scale
    factor: half the size, an error of at most half of (max - min) / 65000.
    The file appears at once (temporary file, then rename), gzip of a `level` without name or date when
    the path ends in ``.gz``. sform and qform are both set, code 1 (scanner), unless the affine is
    sheared: a qform cannot say that, so it gets code 0 and only the sform counts. `description`: at
    most 79 ASCII characters for the header.
    """
    path = Path(path)
    data = _storable(np.asarray(array))
    header = nib.Nifti1Header()
    slope = 1.0
    inter = 0.0
    if scaled_int16 and data.dtype == np.float32:
        low, high = (float(data.min()), float(data.max())) if data.size else (0.0, 0.0)
        slope = float(np.float32((high - low) / 65000.0)) or 1.0
        inter = float(np.float32((high + low) / 2.0))
        data = np.rint((data.astype(np.float64) - inter) / slope).astype(np.int16)
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_xyzt_units("mm")
    header.set_slope_inter(slope, inter)
    affine = np.asarray(affine, dtype=np.float64)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=0 if is_sheared(affine) else 1, strip_shears=True)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header["descrip"] = description.encode("ascii")
    content = header.binaryblock + b"\0\0\0\0" + data.tobytes(order="F")
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=level, mtime=0)
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


def _storable(array: np.ndarray) -> np.ndarray:
    """`array` in one of the types that are written: little-endian int16, uint8 or float32."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return array.astype("<f4")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iu":
        raise TypeError(f"cannot store {array.dtype} voxels: numbers only")
    if array.size and (array.min() < -32768 or array.max() > 32767):
        raise OverflowError(f"values {array.min()}..{array.max()} do not fit into int16")
    return array.astype("<i2")


def load_nifti(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as stored, (X, Y, Z) float32, and their 4x4 affine (voxel indices to world mm, RAS+).

    Raises InputError naming the file and the fault: missing, not NIfTI, damaged or truncated, not
    3D, empty or impossibly large (refused from the header, before unpacking), NaN or infinite
    voxels, an affine that cannot be inverted.
    """
    path = Path(path)
    kind, claimed = check_header(path)
    try:
        image = kind.from_bytes(_unpacked(path, claimed))
        if image.get_data_dtype().kind not in "iuf":
            raise InputError(
                f"{path}: holds colours or complex numbers; one number a voxel allowed"
            )
        array = np.asarray(image.dataobj, dtype=np.float32)
        affine = np.array(image.affine, dtype=np.float64)
    except nib.spatialimages.HeaderDataError as error:
        raise InputError(f"{path}: is not a readable NIfTI file ({error})") from error
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is damaged or truncated ({reason})") from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not np.isfinite(array.sum(dtype=np.float64)) and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(f"{path}: {bad} voxels are NaN or infinite; only finite values allowed")
    return array, affine


def _unpacked(path: Path, claimed: int) -> bytes:
    """A file's content, unpacked to its end (so that gzip's checksum is compared) if gzipped.

    Never more than the `claimed` bytes and a MiB is unpacked: a bomb ends in EOFError.
    """
    packed = path.read_bytes()
    if packed[:2] != b"\x1f\x8b":
        return packed
    parts, room = [], claimed + MAX_HEADER_BYTES
    while packed[:2] == b"\x1f\x8b":  # a file may be several gzip members, as bgzip writes it
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(packed, room))
        room -= len(parts[-1])
        if not member.eof:
            raise EOFError("longer than its header says" if room <= 0 else "the file ends early")
        packed = member.unused_data
        if packed and room <= 0:
            raise EOFError("longer than its header says")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_header(path: Path) -> tuple[type, int]:
    """Refuse, from the first bytes alone, a file that is not a NIfTI volume of sensible size.

    Returns the class that reads it and the bytes its header claims.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        if start[:2] == b"\x1f\x8b":
            start = zlib.decompressobj(wbits=31).decompress(start, 540)
        elif path.suffix == ".gz":
            raise InputError(f"{path}: is not gzip-compressed, as its name says (.gz)")
    except (OSError, zlib.error) as error:
        raise InputError(f"{path}: is damaged or cannot be read ({error})") from error
    kind = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
    sizes = {int.from_bytes(start[:4], order): order for order in ("little", "big")}
    size = next((s for s in sizes if s in kind), None)
    if size is None or len(start) < size:
        raise InputError(f"{path}: is not a NIfTI file, or is cut off in its header")
    endian = "<" if sizes[size] == "little" else ">"
    header = kind[size].header_class(start[:size], endianness=endian, check=False)
    shape = [int(n) for n in header["dim"][1 : 1 + max(0, min(7, int(header["dim"][0])))]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    said = " x ".join(map(str, shape))
    if len(shape) != 3:
        raise InputError(f"{path}: has {len(shape)} dimensions ({said}); one 3D volume is allowed")
    if min(shape) < 1:
        raise InputError(f"{path}: has an empty dimension ({said}); each must be at least 1")
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise InputError(f"{path}: claims {said} voxels; at most {MAX_VOXELS:,} are read")
    if not 0 <= float(header["vox_offset"]) <= MAX_HEADER_BYTES:
        raise InputError(f"{path}: claims a header of {float(header['vox_offset']):.0f} bytes")
    with np.errstate(all="ignore"):
        affine = np.asarray(header.get_best_affine(), dtype=float)
        volume = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else 0.0
    if not 1e-6 < volume < 1e6:
        raise InputError(f"{path}: its affine cannot be inverted (voxel volume {volume:.3g} mm3)")
    voxel_bytes = max(int(header["bitpix"]), 8) // 8
    return kind[size], int(header["vox_offset"]) + int(np.prod(shape, dtype=np.int64)) * voxel_bytes


def is_sheared(affine: np.ndarray, tolerance: float = 1e-3) -> bool:
    """Whether the voxel axes are not at right angles (cosine over `tolerance`): a tilted gantry.

    >>> is_sheared(np.diag([0.5, 0.5, 5, 1]))
    False
    """
    axes = np.asarray(affine, dtype=float)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > tolerance)


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with its axes closest to x, y, z of the world (RAS+), nothing interpolated.

    >>> array, affine = canonical(np.arange(8.0).reshape(2, 2, 2), np.diag([-1.0, 1, 1, 1]))
    >>> array[0, 0, 0], affine[0, 0]
    (np.float64(4.0), np.float64(1.0))
    """
    image = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    return np.asarray(image.dataobj), np.array(image.affine)


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Edge lengths of a voxel along its three axes, in mm.

    >>> voxel_sizes(np.diag([-0.5, 0.5, 5, 1])).tolist()
    [0.5, 0.5, 5.0]
    """
    return np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)


# --------------------------------------------------------------------------------------- CT values

AIR_HU = -1024.0
"""The lowest HU kept: scanners pad with lower values (-1500, -2000, -3024), which mean nothing."""


def load_ct(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """A CT scan as (X, Y, Z) float32 HU and its affine; padding below -1024 is clipped to -1024.

    Raises InputError as `load_nifti` does, and where the values cannot be HU (`check_hu`).
    """
    array, affine = load_nifti(path)
    return check_hu(array, path), affine


def check_hu(array: np.ndarray, path: str | Path) -> np.ndarray:
    """`array` with padding clipped to -1024 HU; InputError, naming `path`, if it is not a head CT.

    A head CT has air (something at or below -200 HU) and soft tissue (some voxels in 0-100 HU,
    more than 1 in 100). A picture scaled to 0-255 or 0-1, or a brain cut out of its skull, has not.
    """
    low, high = float(array.min()), float(array.max())
    said = f"{path}: its values {low:g} to {high:g}"
    if low >= 0 and high <= 255:
        scale = "0 to 1" if high <= 1 else "0 to 255"
        raise InputError(f"{said} are a picture's ({scale}); a CT must be in HU, air near -1000")
    if low > -200:
        raise InputError(f"{said} hold no air (nothing below -200); a CT must be in HU, uncropped")
    sample = array[::2, ::2]
    tissue = float(np.count_nonzero((sample > 0) & (sample < 100)) / sample.size)
    if tissue < 0.01:
        raise InputError(
            f"{said} hold hardly any soft tissue ({tissue:.1%} of voxels in 0 to 100 HU, at least "
            "1 % in a head CT)"
        )
    return np.maximum(array, np.float32(AIR_HU)) if low < AIR_HU else array


def window(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """`array` scaled so that `low` becomes 0 and `high` 1, and clipped there; float32.

    >>> window(np.array([-50.0, 20.0, 500.0]), 0, 80).tolist()
    [0.0, 0.25, 1.0]
    """
    scaled = (np.asarray(array, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0, out=scaled)


# -------------------------------------------------------------------------------------- resampling


def field_of_view(
    shape: tuple[int, ...],
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: tuple[int, ...],
) -> np.ndarray:
    """Which voxels of the target grid have their centre inside the scan; bool of `target_shape`.

    A scan's field of view ends at the outer faces of its outer voxels, not at their centres.
    """
    to_source = np.linalg.inv(affine) @ np.asarray(target_affine)
    inside = np.ones(target_shape, dtype=bool)
    for row, n in zip(to_source[:3], shape, strict=True):
        i, j, k = (
            np.arange(m, dtype=np.float64) * step
            for m, step in zip(target_shape, row[:3], strict=True)
        )
        place = i[:, None, None] + j[:, None] + (k + row[3])
        inside &= (place >= -0.5) & (place <= n - 0.5)
    return inside


def resample(
    array: np.ndarray,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: tuple[int, int, int],
    fill: float,
    order: int = 1,
) -> np.ndarray:
    """`array` (X, Y, Z) on another grid, by one interpolation; float32 of `target_shape`.

    Both affines are 4x4, voxel indices to world mm (RAS+); sheared and mirrored ones are fine.
    Where the target voxel is larger than the source voxel (t > s mm along a source axis) the
    source is first smoothed with a Gaussian of sigma = sqrt(t^2 - s^2) / 2.355 mm, so that detail
    the target cannot hold is averaged and not aliased. Outside the field of view: `fill`.
    """
    from scipy import ndimage

    target_affine = np.asarray(target_affine, dtype=float)
    inside = field_of_view(array.shape, affine, target_affine, target_shape)
    if not inside.any():
        return np.full(target_shape, fill, dtype=np.float32)
    to_source = np.linalg.inv(affine) @ target_affine
    sizes = voxel_sizes(affine)
    directions = np.asarray(affine, dtype=float)[:3, :3] / sizes
    steps = np.linalg.norm(target_affine[:3, :3].T @ directions, axis=0)
    sigmas = np.sqrt(np.maximum(steps**2 - sizes**2, 0.0)) / 2.355 / sizes
    sigmas[sigmas < 0.2] = 0.0
    part, start = _needed_part(array.shape, to_source, target_shape, 4.0 * sigmas + 2.0)
    source = array[part].astype(np.float32, copy=False)
    if sigmas.any():
        source = ndimage.gaussian_filter(source, sigmas, mode="nearest", truncate=3.0)
    out = ndimage.affine_transform(
        source,
        to_source[:3, :3],
        to_source[:3, 3] - start,
        output_shape=tuple(target_shape),
        output=np.float32,
        order=order,
        mode="nearest",
    )
    out[~inside] = fill
    return out


def _needed_part(
    shape: tuple[int, ...], to_source: np.ndarray, target_shape: tuple[int, ...], margin: np.ndarray
) -> tuple[tuple[slice, ...], np.ndarray]:
    """The block of source voxels (slices, and its first index) that a target grid looks at."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in target_shape])).reshape(3, -1)
    places = to_source[:3, :3] @ corners + to_source[:3, 3:]
    last = np.asarray(shape) - 1
    first = np.clip(np.floor(places.min(axis=1) - margin), 0, last).astype(int)
    stop = np.clip(np.ceil(places.max(axis=1) + margin), 0, last).astype(int) + 1
    return tuple(slice(a, b) for a, b in zip(first, stop, strict=True)), first.astype(float)


# ------------------------------------------------------------------------------------------- DICOM


def from_dicom(source: str | Path, out_path: str | Path) -> Path:
    """Convert the one non-contrast CT series of a folder (or .tar.gz) of DICOM files to NIfTI.

    dcm2niix reads the files; where the gantry was tilted or the slices lie unevenly it also writes
    a straightened copy (``_Tilt``, ``_Eq``), and that one is kept: right angles and even slices.
    Values are HU. Only voxels and geometry reach the output: no header text.

    Raises InputError: no DICOM there, several patients, several series (named by number), a series
    that is not a plain CT (derived maps, colours), values that cannot be HU.
    """
    source, out_path = Path(source), Path(out_path)
    if not source.exists():
        raise InputError(f"{source}: no such folder or archive")
    with tempfile.TemporaryDirectory(prefix="rlvo-dicom-") as temporary:
        folder = source
        if source.is_file():
            folder = _unpack(source, Path(temporary) / "dicom")
        converted = Path(temporary) / "nifti"
        converted.mkdir()
        said = _run_dcm2niix(folder, converted)
        chosen = _one_series(source, converted, said)
        array, affine = load_nifti(chosen)
    array = check_hu(array, source)
    return save_nifti(out_path, np.rint(array).astype(np.int16), affine)


def _unpack(archive: Path, folder: Path) -> Path:
    """The plain files of a tar archive, at most 4 GB, never outside `folder`."""
    try:
        with tarfile.open(archive) as tar:
            if sum(member.size for member in tar.getmembers()) > 4e9:
                raise InputError(f"{archive}: holds more than 4 GB; unpack it yourself")
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise InputError(f"{archive}: is not a folder or a whole tar archive ({reason})") from error
    return folder


def _run_dcm2niix(folder: Path, out: Path) -> str:
    """Convert everything in `folder`, with sidecars (for the checks; they are thrown away)."""
    import dcm2niix

    command = [dcm2niix.bin, "-b", "y", "-ba", "n", "-z", "n", "-f", "%s_%j", "-o", out, folder]
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout + done.stderr


def _one_series(source: Path, converted: Path, said: str) -> Path:
    """The NIfTI file to keep, once it is sure that there is one plain CT series of one patient."""
    sidecars = {path: json.loads(path.read_text()) for path in sorted(converted.glob("*.json"))}
    if not sidecars:
        trouble = [line for line in said.splitlines() if line.startswith("Error")]
        reason = trouble[-1] if trouble else "dcm2niix found none"
        raise InputError(f"{source}: no DICOM series that can be read ({reason})")
    patients = {str(tags.get("PatientID", "")) for tags in sidecars.values()}
    if len(patients) > 1:
        raise InputError(f"{source}: files of {len(patients)} patients; one patient is allowed")
    series = {tags["SeriesInstanceUID"]: tags for tags in sidecars.values()}
    named = ", ".join(
        f"{tags.get('SeriesNumber', '?')} ({tags.get('SeriesDescription', 'no description')})"
        for tags in series.values()
    )
    if len(series) > 1:
        raise InputError(f"{source}: {len(series)} series: {named}; give a folder with one")
    tags = next(iter(series.values()))
    kind = [str(word).upper() for word in tags.get("ImageType", [])]
    if "PERFUSION" in kind or any(word.startswith("RCB") for word in kind):
        raise InputError(
            f"{source}: series {named} is a perfusion map ({'/'.join(kind)}), not a CT"
        )
    if tags.get("Modality") != "CT":
        raise InputError(f"{source}: series {named} is {tags.get('Modality')}; CT is allowed")
    files = sorted(converted.glob("*.nii"), key=lambda path: _straightness(path.stem))
    if not files:
        raise InputError(f"{source}: series {named} could not be converted")
    best = [path for path in files if _straightness(path.stem) == _straightness(files[-1].stem)]
    if len(best) > 1:
        raise InputError(f"{source}: series {named} falls into {len(best)} volumes; one is allowed")
    return best[0]


def _straightness(stem: str) -> int:
    """How much dcm2niix straightened a file: 0 as scanned, 1 tilt or spacing, 2 both.

    >>> [_straightness(name) for name in ("2", "2_Tilt_1", "2_Eq_1", "2_Tilt_Eq_1")]
    [0, 1, 1, 2]
    """
    return ("_Tilt" in stem) + ("_Eq" in stem)
