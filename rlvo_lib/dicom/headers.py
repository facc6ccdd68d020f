"""What the package reads of a DICOM file's header, and whether its voxels are all there.

Only the tags of `TAGS` are read, and no voxels. Positions and orientations are DICOM's own: mm, LPS+
(+x left, +y posterior, +z superior), of the centre of the first voxel.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlvo_lib import progress, workers

DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR: a table of contents, no image
#: CT, enhanced CT, and legacy converted enhanced CT.
CT_IMAGES = tuple(f"1.2.840.10008.5.1.4.1.1.2{tail}" for tail in ("", ".1", ".2"))
TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
    "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime",
    "AcquisitionDateTime", "ContentTime", "ImageType", "SeriesDescription", "StudyDescription",
    "ProtocolName", "BodyPartExamined", "SeriesNumber", "AcquisitionNumber", "InstanceNumber",
    "TemporalPositionIdentifier", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "KVP", "GantryDetectorTilt", "ConvolutionKernel",
    "ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusVolume", "Manufacturer",
    "ManufacturerModelName", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "PixelPaddingValue", "RescaleType",
    "RescaleSlope", "RescaleIntercept", "LossyImageCompression", "BurnedInAnnotation",
    "RealWorldValueMappingSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
DEFLATED = b"1.2.840.10008.1.2.1.99"
BARE = "DICOM without a preamble; allowed: files as part 10 of DICOM says, exported anew"
CHUNK = 500  # files that one process reads before it hands them back
SPAWN_FROM = 4000  # files from which further processes are worth their start


@dataclass(frozen=True)
class Header:
    """One DICOM file. Text is as written there, and must not reach an output by itself."""

    path: Path
    size: int = 0  # bytes
    fault: str = ""  # why the file cannot be used, in words of this package
    sop_class: str = ""
    sop_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    transfer: str = ""  # transfer syntax
    modality: str = ""
    patient_id: str = ""
    issuer: str = ""
    birth: str = ""
    sex: str = ""
    date: str = ""  # of the acquisition, else series, else study: YYYYMMDD
    time: str = ""  # HHMMSS...
    acquired: bool = False  # whether date and time are those of the acquisition
    study_date: str = ""
    content_time: str = ""
    image_type: tuple[str, ...] = ()
    description: str = ""
    study_description: str = ""
    protocol: str = ""
    body_part: str = ""
    series: int | None = None
    acquisition: int | None = None
    instance: int | None = None
    temporal: int | None = None
    position: tuple[float, ...] = ()  # mm, LPS+
    orientation: tuple[float, ...] = ()  # of a row, of a column
    spacing: tuple[float, ...] = ()  # mm between rows, between columns
    thickness: float | None = None  # mm
    kvp: float | None = None
    tilt: float | None = None  # degrees
    kernel: str = ""
    contrast: str = ""
    manufacturer: str = ""
    model: str = ""
    rows: int = 0
    columns: int = 0
    frames: int = 1
    samples: int = 1
    photometric: str = ""
    unit: str = ""  # of the values, where the file says it
    mapped: bool = False  # has a real-world value mapping
    lossy: bool = False
    padding: float | None = None  # stored value that means: nothing here
    frame_positions: tuple[tuple[float, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Reading:
    """All headers of some files, and how many files were none of DICOM, or its tables of contents."""

    headers: tuple[Header, ...]
    others: int
    directories: int


def read_headers(paths: Sequence[Path], *, processes: int = 1) -> Reading:
    """The headers of those `paths` that are DICOM files, in their order, with progress."""
    chunks = [tuple(paths[at : at + CHUNK]) for at in range(0, len(paths), CHUNK)]
    alone = processes < 2 or len(paths) < SPAWN_FROM
    if alone:
        read = [read_header(path) for path in progress.track(paths, label="headers")]
    else:
        done = workers.run(
            _read_chunk, [(chunk,) for chunk in chunks], workers=processes, label="headers"
        )
        read = [header for chunk in done for header in chunk]
    return Reading(
        tuple(h for h in read if h is not None and h.sop_class != DIRECTORY),
        sum(h is None for h in read),
        sum(h is not None and h.sop_class == DIRECTORY for h in read),
    )


def _read_chunk(paths: tuple[Path, ...]) -> list[Header | None]:
    return [read_header(path) for path in paths]


def read_header(path: Path) -> Header | None:
    """The header of a file; None if it is not DICOM.

    A file that begins with its data, without preamble and ``DICM``, has a fault and nothing else.
    """
    import pydicom
    from pydicom.config import disable_value_validation

    try:
        size = path.stat().st_size
        with path.open("rb") as file, warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            start = file.read(1024)
            if start[128:132] != b"DICM":
                return Header(path, size, fault=BARE) if _is_bare(start) else None
            if DEFLATED in start:  # its header is packed, and unpacks to any size
                return Header(path, size, fault="deflated; allowed: exported without compression")
            file.seek(0)
            data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
            header = _header(path, size, data)
            return replace(header, fault=_unusable(header, data, file, size))
    except OSError as error:
        return Header(path, fault=f"cannot be read ({error.strerror or 'damaged'})")
    except Exception:  # a damaged header fails in pydicom in many ways, and each means the same
        return Header(path, size, fault="damaged or cut off in its header")


def _is_bare(start: bytes) -> bool:
    """Whether a file begins with elements of group 0008 (or 0002), as old exports do."""
    group, element = (int.from_bytes(start[at : at + 2], "little") for at in (0, 2))
    length = int.from_bytes(start[4:8], "little")
    explicit = start[4:6] in (b"UL", b"UI", b"CS", b"OB", b"SH")
    return group in (2, 8) and element < 0x20 and len(start) > 64 and (explicit or length < 256)


def _header(path: Path, size: int, data: Any) -> Header:
    shared, frames = _groups(data)
    kind = _within(shared, "CTImageFrameTypeSequence")
    plane = _within(shared, "PlaneOrientationSequence")
    pixels = _within(shared, "PixelMeasuresSequence")
    recon = _within(shared, "CTReconstructionSequence")
    rescale = _within(shared, "PixelValueTransformationSequence")
    mapping = _first(data, "RealWorldValueMappingSequence") or _within(
        shared, "RealWorldValueMappingSequence"
    )
    exposure = _within(shared, "CTXRayDetailsSequence")
    moment = _text(data, "AcquisitionDateTime")
    positions = tuple(
        _numbers(_within(frame, "PlanePositionSequence"), "ImagePositionPatient")
        for frame in frames
    )
    date = _text(data, "AcquisitionDate") or moment[:8]
    time = _text(data, "AcquisitionTime") if _text(data, "AcquisitionDate") else moment[8:14]
    acquired = bool(date)
    for level in ("Series", "Study"):
        if not date:
            date, time = _text(data, f"{level}Date"), _text(data, f"{level}Time")
    return Header(
        path=path,
        size=size,
        sop_class=_text(data, "SOPClassUID") or _text(data.file_meta, "MediaStorageSOPClassUID"),
        sop_uid=_text(data, "SOPInstanceUID"),
        study_uid=_text(data, "StudyInstanceUID"),
        series_uid=_text(data, "SeriesInstanceUID"),
        transfer=_text(data.file_meta, "TransferSyntaxUID"),
        modality=_text(data, "Modality"),
        patient_id=_text(data, "PatientID"),
        issuer=_text(data, "IssuerOfPatientID"),
        birth=_text(data, "PatientBirthDate"),
        sex=_text(data, "PatientSex"),
        date=date,
        time=time,
        acquired=acquired,
        study_date=_text(data, "StudyDate") + _text(data, "StudyTime"),
        content_time=_text(data, "ContentTime"),
        image_type=_words(data, "ImageType") or _words(kind, "FrameType"),
        description=_text(data, "SeriesDescription"),
        study_description=_text(data, "StudyDescription"),
        protocol=_text(data, "ProtocolName"),
        body_part=_text(data, "BodyPartExamined") or _anatomy(shared),
        series=_whole(data, "SeriesNumber"),
        acquisition=_whole(data, "AcquisitionNumber"),
        instance=_whole(data, "InstanceNumber"),
        temporal=_whole(data, "TemporalPositionIdentifier"),
        position=_numbers(data, "ImagePositionPatient"),
        orientation=_numbers(data, "ImageOrientationPatient")
        or _numbers(plane, "ImageOrientationPatient"),
        spacing=_numbers(data, "PixelSpacing") or _numbers(pixels, "PixelSpacing"),
        thickness=_number(data, "SliceThickness", _number(pixels, "SliceThickness")),
        kvp=_number(data, "KVP", _number(exposure, "KVP")),
        tilt=_number(data, "GantryDetectorTilt"),
        kernel=_kernel(data) or _kernel(recon),
        contrast=_contrast(data),
        manufacturer=_text(data, "Manufacturer"),
        model=_text(data, "ManufacturerModelName"),
        rows=_whole(data, "Rows") or 0,
        columns=_whole(data, "Columns") or 0,
        frames=max(_whole(data, "NumberOfFrames") or 1, 1),
        samples=_whole(data, "SamplesPerPixel") or 1,
        photometric=_text(data, "PhotometricInterpretation"),
        unit=_unit(mapping) or _text(rescale, "RescaleType") or _text(data, "RescaleType"),
        mapped=mapping is not None,
        lossy=_text(data, "LossyImageCompression") == "01",
        padding=_number(data, "PixelPaddingValue"),
        frame_positions=positions,
    )


def _groups(data: Any) -> tuple[Any, list[Any]]:
    """Shared functional groups of an enhanced object (those of frame 1 where not shared), and frames."""
    import pydicom

    frames = list(data.get("PerFrameFunctionalGroupsSequence") or [])
    merged = pydicom.Dataset()
    if frames:
        merged.update(frames[0])
    shared = _first(data, "SharedFunctionalGroupsSequence")
    if shared is not None:
        merged.update(shared)
    return merged, frames


def _unusable(header: Header, data: Any, file: Any, size: int) -> str:
    """Why the voxels of a file cannot be used: not there, or fewer than the header says."""
    if header.sop_class == DIRECTORY:
        return ""
    image = header.sop_class in CT_IMAGES
    if not header.series_uid or not header.study_uid or (image and not header.rows):
        return "damaged or cut off in its header"
    if not header.rows or not header.columns:
        return ""  # no image: told by its kind
    syntax = data.file_meta.TransferSyntaxUID
    here = (
        size - file.tell() - (8 if syntax.is_implicit_VR else 12)
    )  # less the element's own header
    if here <= 0:
        return "cut off: holds no voxels"
    if syntax.is_private or syntax.is_encapsulated:
        file.seek(max(0, size - 64))
        whole = b"\xfe\xff\xdd\xe0" in file.read()  # the mark that ends compressed voxels
        return "" if whole or syntax.is_private else "cut off within its compressed voxels"
    bits = _whole(data, "BitsAllocated") or 16
    claimed = header.rows * header.columns * header.samples * header.frames * bits // 8
    if here < claimed:
        return f"cut off: holds {here:,} of {claimed:,} bytes of voxels"
    return ""


# ------------------------------------------------------------------- values, whatever stands there


def _text(data: Any, name: str) -> str:
    value = None if data is None else data.get(name)
    return "" if value is None else _writable(str(value))


def _writable(text: str) -> str:
    """Text without what no file can hold: zero bytes, and halves of characters."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "").strip()


def _words(data: Any, name: str) -> tuple[str, ...]:
    value = None if data is None else data.get(name)
    if value is None or value == "":
        return ()
    many = [value] if isinstance(value, str) else value
    return tuple(str(word).strip().upper() for word in many)


def _kernel(data: Any) -> str:
    """The kernel; Siemens writes the strength of iterative reconstruction as a second value."""
    value = None if data is None else data.get("ConvolutionKernel")
    first = value if isinstance(value, str) or not value else value[0]
    return _writable(str(first or ""))


def _number(data: Any, name: str, default: float | None = None) -> float | None:
    try:
        value = float(data.get(name))
    except (TypeError, ValueError, AttributeError):
        return default
    return value if math.isfinite(value) else default


def _whole(data: Any, name: str) -> int | None:
    value = _number(data, name)
    return None if value is None else int(value)


def _numbers(data: Any, name: str) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in data.get(name))
    except (TypeError, ValueError, AttributeError):
        return ()
    return values if all(math.isfinite(value) for value in values) else ()


def _first(data: Any, name: str) -> Any:
    items = None if data is None else data.get(name)
    return items[0] if items else None


def _within(groups: Any, name: str) -> Any:
    return _first(groups, name)


def _anatomy(shared: Any) -> str:
    region = _first(_within(shared, "FrameAnatomySequence"), "AnatomicRegionSequence")
    return _text(region, "CodeMeaning")


def _contrast(data: Any) -> str:
    """The contrast agent, however it is said; "" where nothing is said."""
    agent = _first(data, "ContrastBolusAgentSequence")
    volume = _number(data, "ContrastBolusVolume", 0.0)
    return (
        _text(data, "ContrastBolusAgent")
        or _text(agent, "CodeMeaning")
        or ("volume given" if volume else "")
    )


def _unit(mapping: Any) -> str:
    return _text(_first(mapping, "MeasurementUnitsCodeSequence"), "CodeValue")
