"""What a NIfTI file says of itself, read from its first bytes before anything is unpacked."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from rlvo_lib.config import InputError

MAX_VOXELS = 512 * 512 * 2000
"""Largest volume that is read: more than any head CT; a larger header is a fault or an attack."""

MAX_HEADER_BYTES = 1 << 20
"""Largest distance from the start of a file to its voxels (header and extensions)."""

_KINDS = {348: nib.Nifti1Image, 540: nib.Nifti2Image}


@dataclass(frozen=True)
class Header:
    """The header of a volume of sensible size."""

    kind: type  # the nibabel class that reads the file
    fields: nib.Nifti1Header  # as stored
    shape: tuple[int, int, int]
    affine: np.ndarray  # 4x4, voxel indices to world mm (RAS+): sform before qform
    claimed_bytes: int  # of the unpacked file

    @property
    def codes(self) -> tuple[int, int]:
        """qform and sform code; 0: the file does not say."""
        return int(self.fields["qform_code"]), int(self.fields["sform_code"])


def check_header(path: Path) -> tuple[type, int]:
    """Refuse, from the first bytes alone, a file that is not a NIfTI volume of sensible size.

    Returns the class that reads it and the bytes its header claims; InputError as `read_header`.
    """
    header = read_header(path)
    return header.kind, header.claimed_bytes


def read_header(path: str | Path) -> Header:
    """The header of a NIfTI file, from its first bytes alone: nothing large is ever unpacked.

    Raises InputError naming the file and the fault: missing, not NIfTI, not 3D, empty or impossibly
    large, colours or complex numbers in place of one number a voxel, an affine that cannot be
    inverted.
    """
    path = Path(path)
    fields, kind = _fields(path)
    shape = _shape(path, fields)
    with np.errstate(all="ignore"):
        affine = np.asarray(fields.get_best_affine(), dtype=float)
        volume = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else 0.0
    if not 1e-6 < volume < 1e6:
        raise InputError(f"{path}: its affine cannot be inverted (voxel volume {volume:.3g} mm3)")
    voxel_bytes = max(int(fields["bitpix"]), 8) // 8
    claimed = int(fields["vox_offset"]) + int(np.prod(shape, dtype=np.int64)) * voxel_bytes
    return Header(kind, fields, shape, affine, claimed)


def _fields(path: Path) -> tuple[nib.Nifti1Header, type]:
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
    sizes = {int.from_bytes(start[:4], order): order for order in ("little", "big")}
    size = next((s for s in sizes if s in _KINDS), None)
    if size is None or len(start) < size:
        raise InputError(f"{path}: is not a NIfTI file, or is cut off in its header")
    endian = "<" if sizes[size] == "little" else ">"
    kind = _KINDS[size]
    return kind.header_class(start[:size], endianness=endian, check=False), kind


def _shape(path: Path, fields: nib.Nifti1Header) -> tuple[int, int, int]:
    shape = [int(n) for n in fields["dim"][1 : 1 + max(0, min(7, int(fields["dim"][0])))]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    said = " x ".join(map(str, shape))
    if _is_colour(path, fields):
        raise InputError(
            f"{path}: holds colours or complex numbers; one number a voxel allowed (not a screenshot, "
            "nor a map drawn in colours)"
        )
    if len(shape) != 3:
        raise InputError(
            f"{path}: has {len(shape)} dimensions ({said}){_series(shape)}; one 3D volume is allowed"
        )
    if min(shape) < 1:
        raise InputError(f"{path}: has an empty dimension ({said}); each must be at least 1")
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise InputError(f"{path}: claims {said} voxels; at most {MAX_VOXELS:,} are read")
    size = int(fields["sizeof_hdr"])
    if not size <= float(fields["vox_offset"]) <= MAX_HEADER_BYTES:
        raise InputError(
            f"{path}: claims a header of {float(fields['vox_offset']):.0f} bytes; allowed: {size:,} to "
            f"{MAX_HEADER_BYTES:,} before the voxels"
        )
    return tuple(shape)


def _is_colour(path: Path, fields: nib.Nifti1Header) -> bool:
    try:
        return fields.get_data_dtype().kind not in "iuf"
    except KeyError:
        code = int(fields["datatype"])
        raise InputError(
            f"{path}: stores its voxels in a type that NIfTI does not have ({code})"
        ) from None
    except nib.spatialimages.HeaderDataError:
        return False  # an unknown type: what reads the voxels says so


def _series(shape: list[int]) -> str:
    """What more than three dimensions usually are."""
    if len(shape) < 4 or min(shape) < 1:
        return ""
    if shape[-1] in (3, 4):
        return f", {shape[-1]} values a voxel: colours, or a vector"
    return f", {shape[-1]} volumes: a series over time, as raw CT perfusion is"
