"""One series of DICOM files to NIfTI, by dcm2niix."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

import numpy as np

from rlvo_lib.config import InputError
from rlvo_lib.images.hounsfield import check_hu
from rlvo_lib.images.nifti import load_nifti, save_nifti


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
            folder = unpacked(source, Path(temporary) / "dicom")
        converted = Path(temporary) / "nifti"
        converted.mkdir()
        said = _run_dcm2niix(folder, converted)
        chosen = _one_series(source, converted, said)
        array, affine = load_nifti(chosen)
    array = check_hu(array, source)
    return save_nifti(out_path, np.rint(array).astype(np.int16), affine)


def unpacked(archive: Path, folder: Path) -> Path:
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
