"""Miniature DICOM series with a head in them, written by pydicom: for tests of what a PACS exports."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
)

PIXELS, PIXEL_MM = 32, 7.5
SLICES, SLICE_MM = 30, 5.0
#: Text that must never reach an output, as a hostile or careless header may hold it.
PLANTED = {
    "PatientName": "=HYPERLINK(Planted)^Jos\u00e9\nNewline",
    "InstitutionName": "Planted Hospital",
    "ReferringPhysicianName": "Planted^Doctor",
    "StudyDescription": "Planted study",
    "ProtocolName": "Planted protocol",
    "AccessionNumber": "PLANTED77",
    "StationName": "PLANTEDSTATION",
    "ManufacturerModelName": "Planted scanner of Dr. X",
    "ContrastBolusAgent": "",
    "ImageComments": "../../Planted comment",
    "PatientBirthDate": "19470203",
    "SoftwareVersions": "PLANTED 1.0",
}


def uid(*parts) -> str:
    """A DICOM identifier that is the same for the same parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return f"1.2.826.0.1.3680043.8.498.{int(digest[:30], 16)}"


def head_hu(x, y, z, artery_hu=40.0):
    """HU of a head at places in mm, LPS: skull, brain, an artery up its middle, a bright right ear."""
    hu = np.full(np.broadcast(x, y, z).shape, -1000.0)
    hu[(np.abs(x) < 50) & (np.abs(y) < 50) & (z < 20)] = 40
    radius = np.sqrt((x / 78) ** 2 + (y / 95) ** 2 + ((z - 70) / 85) ** 2)
    hu[radius < 1.0] = 900
    hu[radius < 0.88] = 35
    hu[(np.abs(x) < 8) & (np.abs(y - 10) < 8) & (radius < 0.88)] = artery_hu
    hu[(np.abs(x + 92) < 8) & (np.abs(y) < 20) & (np.abs(z - 60) < 20)] = 300  # right, in LPS -x
    return hu


def plane(orientation, position, pixels=PIXELS, pixel_mm=PIXEL_MM):
    """World mm, LPS, of all pixels of a slice: three arrays (rows, columns)."""
    rows, columns = np.meshgrid(np.arange(pixels), np.arange(pixels), indexing="ij")
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    return [position[i] + (row[i] * columns + column[i] * rows) * pixel_mm for i in range(3)]


def write(folder, name, **tags) -> Path:
    """One DICOM file with these tags; ``_meta`` and ``PixelData`` as they are."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags["SOPClassUID"]
    meta.MediaStorageSOPInstanceUID = tags["SOPInstanceUID"]
    meta.TransferSyntaxUID = tags.pop("_transfer", ExplicitVRLittleEndian)
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    for key, value in tags.items():
        if value is not None:
            setattr(data, key, value)
    path = folder / name
    with pydicom.config.disable_value_validation():
        data.save_as(path, enforce_file_format=True)
    return path


def series(
    folder,
    *,
    patient="P1",
    study=1,
    number=1,
    description="HEAD WITHOUT",
    kernel="H31s",
    slices=SLICES,
    slice_mm=SLICE_MM,
    thickness=None,
    heights=None,
    tilt=0.0,
    times=1,
    drop=(),
    artery_hu=40.0,
    values=None,
    name="{0}-{1:04d}.dcm",
    date="20210305",
    first=1,
    **tags,
) -> list[Path]:
    """A series of CT slices from below upwards. ``tags`` go over the usual ones; None leaves one out.

    ``heights``: z of the slices in mm; ``tilt``: of the gantry, degrees; ``times``: images a place;
    ``drop``: slices that are not written; ``values(x, y, z)``: HU at places in LPS mm.
    """
    angle = np.radians(tilt)
    orientation = [1.0, 0, 0, 0, float(np.cos(angle)), -float(np.sin(angle))]
    heights = [i * slice_mm for i in range(slices)] if heights is None else heights
    series_uid = tags.pop("SeriesInstanceUID", uid(patient, study, number))
    paths, instance = [], first - 1
    for time in range(times):
        for i, z in enumerate(heights):
            instance += 1
            if i in drop:
                continue
            position = [-PIXEL_MM * (PIXELS - 1) / 2, -PIXEL_MM * (PIXELS - 1) / 2, float(z)]
            hu = (values or head_hu)(
                *plane(orientation, position), **({} if values else {"artery_hu": artery_hu})
            )
            stored = np.rint(hu + 1024).astype("<u2")
            usual = {
                "SOPClassUID": CTImageStorage,
                "SOPInstanceUID": uid(series_uid, instance),
                "StudyInstanceUID": uid(patient, study),
                "SeriesInstanceUID": series_uid,
                "Modality": "CT",
                "PatientID": patient,
                "PatientName": "Doe^Jane",
                "StudyDate": date,
                "StudyTime": f"{9 + study:02d}0000",
                "AcquisitionDate": date,
                "AcquisitionTime": f"{9 + study:02d}3{number % 10}0{time % 10}",
                "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                "SeriesDescription": description,
                "BodyPartExamined": "HEAD",
                "SeriesNumber": number,
                "AcquisitionNumber": 1,
                "InstanceNumber": instance,
                "ImagePositionPatient": position,
                "ImageOrientationPatient": orientation,
                "PixelSpacing": [PIXEL_MM, PIXEL_MM],
                "SliceThickness": slice_mm if thickness is None else thickness,
                "KVP": 120,
                "GantryDetectorTilt": tilt,
                "ConvolutionKernel": kernel,
                "Manufacturer": "SIEMENS",
                "ManufacturerModelName": "SOMATOM Force",
                "PatientPosition": "HFS",
                "Rows": PIXELS,
                "Columns": PIXELS,
                "SamplesPerPixel": 1,
                "PhotometricInterpretation": "MONOCHROME2",
                "BitsAllocated": 16,
                "BitsStored": 16,
                "HighBit": 15,
                "PixelRepresentation": 0,
                "RescaleIntercept": -1024,
                "RescaleSlope": 1,
            }
            made = usual | tags
            made.setdefault("PixelData", stored.tobytes())
            paths.append(write(folder, name.format(number, instance), **made))
    return paths


def ncct(folder, **tags) -> list[Path]:
    return series(folder, **{"number": 2, "description": "HEAD WITHOUT"} | tags)


def cta(folder, **tags) -> list[Path]:
    usual = {
        "number": 5, "description": "CTA HEAD", "kernel": "Bv36", "slice_mm": 1.25,
        "heights": [40.0 + 1.25 * i for i in range(52)], "artery_hu": 350.0, "ContrastBolusAgent": "IOMERON",
    }  # fmt: skip
    return series(folder, **usual | tags)


def map_values(scale):
    """Values of a perfusion map on the head of `head_hu`: `scale` in the brain, -1024 elsewhere."""

    def values(x, y, z):
        inside = (x / 78) ** 2 + (y / 95) ** 2 + ((z - 70) / 85) ** 2 < 0.7
        return np.where(inside, scale, -1024.0)

    return values


def perfusion_map(folder, scan, scale, **tags) -> list[Path]:
    usual = {
        "number": {"CBF": 21, "CBV": 22, "MTT": 23, "TMAX": 24}.get(scan, 29),
        "description": f"Neuro {scan}", "kernel": "", "slices": 16, "slice_mm": 5.0,
        "heights": [20 + 5.0 * i for i in range(16)], "values": map_values(scale),
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL", "PERFUSION", scan],
        "ContrastBolusAgent": "IOMERON",
    }  # fmt: skip
    return series(folder, **usual | tags)


def localizer(folder, **tags) -> list[Path]:
    usual = {
        "number": 1,
        "description": "Topogram",
        "slices": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
    }
    return series(folder, **usual | tags)


def enhanced(folder, *, patient="P1", study=1, number=7, slices=SLICES, **tags) -> Path:
    """An enhanced multi-frame CT: the head of `series` in one file."""

    def item(**values):
        made = pydicom.Dataset()
        for key, value in values.items():
            setattr(made, key, value)
        return made

    orientation = [1.0, 0, 0, 0, 1.0, 0]
    frames, voxels = [], []
    for i in range(slices):
        position = [-PIXEL_MM * (PIXELS - 1) / 2, -PIXEL_MM * (PIXELS - 1) / 2, i * SLICE_MM]
        voxels.append(np.rint(head_hu(*plane(orientation, position)) + 1024).astype("<u2"))
        frames.append(
            item(
                PlanePositionSequence=Sequence([item(ImagePositionPatient=position)]),
                FrameContentSequence=Sequence([item(
                    StackID="1", InStackPositionNumber=i + 1, DimensionIndexValues=[1, i + 1],
                    FrameAcquisitionNumber=1,
                )]),
            )
        )  # fmt: skip
    kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared = item(
        PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=orientation)]),
        PixelMeasuresSequence=Sequence(
            [item(PixelSpacing=[PIXEL_MM, PIXEL_MM], SliceThickness=SLICE_MM)]
        ),
        PixelValueTransformationSequence=Sequence(
            [item(RescaleIntercept=-1024, RescaleSlope=1, RescaleType="HU")]
        ),
        CTImageFrameTypeSequence=Sequence([item(FrameType=kind)]),
        CTReconstructionSequence=Sequence([item(ConvolutionKernel="UB")]),
    )
    series_uid = uid(patient, study, number)
    usual = {
        "SOPClassUID": EnhancedCTImageStorage, "SOPInstanceUID": uid(series_uid, 1),
        "StudyInstanceUID": uid(patient, study), "SeriesInstanceUID": series_uid,
        "Modality": "CT", "PatientID": patient, "PatientName": "Doe^Jane", "StudyDate": "20210305",
        "StudyTime": "100000", "AcquisitionDateTime": "20210305103500",
        "ImageType": kind, "SeriesDescription": "Brain plain", "SeriesNumber": number,
        "InstanceNumber": 1, "Manufacturer": "Philips", "ManufacturerModelName": "Incisive CT",
        "Rows": PIXELS, "Columns": PIXELS, "NumberOfFrames": slices, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": 0, "SharedFunctionalGroupsSequence": Sequence([shared]),
        "PerFrameFunctionalGroupsSequence": Sequence(frames),
        "PixelData": np.stack(voxels).tobytes(),
    }  # fmt: skip
    return write(folder, f"enhanced-{number}", **usual | tags)


def broken_jpeg(path) -> None:
    """Turn a file into one that claims lossless JPEG and holds voxels that no decoder reads."""
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xc3" + bytes(range(256)) * 4])
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)
