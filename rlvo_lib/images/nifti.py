"""NIfTI files in and out: written whole and repeatable, read only once their header makes sense."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from rlvo_lib.config import InputError
from rlvo_lib.images.geometry import is_sheared
from rlvo_lib.images.header import MAX_HEADER_BYTES, read_header
from rlvo_lib.storage import atomic


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


def load_nifti(path: str | Path, *, fill: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as stored, (X, Y, Z) float32, and their 4x4 affine (voxel indices to world mm, RAS+).

    NaN and infinite voxels take the value `fill`; without one they are refused.

    Raises InputError naming the file and the fault: missing, not NIfTI, damaged or truncated, not
    3D, empty or impossibly large (refused from the header, before unpacking), NaN or infinite
    voxels, an affine that cannot be inverted.
    """
    path = Path(path)
    header = read_header(path)
    try:
        image = header.kind.from_bytes(_unpacked(path, header.claimed_bytes))
        array = np.asarray(image.dataobj, dtype=np.float32)
        affine = np.array(image.affine, dtype=np.float64)
    except nib.spatialimages.HeaderDataError as error:
        raise InputError(f"{path}: is not a readable NIfTI file ({error})") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is damaged or truncated ({reason})") from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not np.isfinite(array.sum(dtype=np.float64)) and not np.isfinite(array).all():
        if fill is None:
            bad = int((~np.isfinite(array)).sum())
            raise InputError(
                f"{path}: {bad} voxels are NaN or infinite; only finite values allowed"
            )
        array = np.nan_to_num(array, nan=fill, posinf=fill, neginf=fill)
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
