"""What imaging costs: a whole cohort, one patient at clinical resolution, ratios against named peers.

    make imaging-speed              # about 10 minutes on two cores; writes a dated table
    python benchmarks/imaging.py OUT [ratios] [vessels] [clinical] [cohort]

``ratios``: load, reorient, resample, window one CTA with this package, MONAI and TorchIO (if it is
installed: ``pip install torchio==1.2.1``; it is no dependency). ``vessels``: the segmentation against
scikit-image's ``frangi`` over the same scales. ``clinical``: CTA 512 x 512 x 400 and NCCT
512 x 512 x 40 as DICOM files to a tensor. ``cohort``: 599 simulated patients, cold. Parts that are to
be compared run in turn, in processes of one thread each; `over_ours` is their time over this package's.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
from stages import Memory

ROOT = Path(__file__).resolve().parents[1]
TARGET_MM, TARGET_SHAPE = 1.0, (128, 160, 96)
WINDOW = (0.0, 400.0)
REPEATS = 5
CTA_SHAPE, CTA_MM = (512, 512, 400), (0.45, 0.45, 0.6)
NCCT_SHAPE, NCCT_MM = (512, 512, 40), (0.45, 0.45, 4.0)
WHOLE_CORNER, WHOLE_EXTENT = (-100.0, -112.0, -70.0), (200.0, 224.0, 175.0)  # mm, as the NCCT's


def child(call: str, *arguments: str) -> dict[str, float]:
    """Run one function of this file in a process of its own; its result, seconds and peak memory."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, __file__, "--child", call, *arguments],
        env=os.environ | threads | {"TQDM_DISABLE": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{call} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_gib() -> float:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


# ---------------------------------------------------------------------------- load, reorient, resample, window


def ours(path: str) -> np.ndarray:
    from rlvo_lib import images

    array, affine = images.canonical(*images.load_ct(path))
    grid = np.diag([TARGET_MM] * 3 + [1.0])
    middle = affine @ [*((np.array(array.shape) - 1) / 2), 1]
    grid[:3, 3] = middle[:3] - TARGET_MM * (np.array(TARGET_SHAPE) - 1) / 2
    values = images.resample(array, affine, grid, TARGET_SHAPE, fill=-1000.0)
    return images.window(values, *WINDOW)


def monai(path: str) -> np.ndarray:
    from monai import transforms as t

    steps = t.Compose([
        t.LoadImage(image_only=True, ensure_channel_first=True),
        t.Orientation("RAS", labels=None),
        t.Spacing((TARGET_MM,) * 3, mode="bilinear"),
        t.ResizeWithPadOrCrop(TARGET_SHAPE),
        t.ScaleIntensityRange(*WINDOW, 0.0, 1.0, clip=True),
    ])  # fmt: skip
    return np.asarray(steps(path))[0]


def torchio(path: str) -> np.ndarray:
    import torchio as tio

    steps = tio.Compose([
        tio.ToCanonical(),
        tio.Resample(TARGET_MM),
        tio.CropOrPad(TARGET_SHAPE),
        tio.Clamp(*WINDOW),
        tio.RescaleIntensity((0, 1), in_min_max=WINDOW),
    ])  # fmt: skip
    return steps(tio.ScalarImage(path)).numpy()[0]


def one_load(who: str, path: str) -> dict[str, float]:
    """Median seconds of one patient's CTA, the first run (imports, caches) left out."""
    import torch

    torch.set_num_threads(1)
    work: Callable[[str], np.ndarray] = {"ours": ours, "monai": monai, "torchio": torchio}[who]
    times = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        out = work(path)
        times.append(time.perf_counter() - begun)
        assert out.shape == TARGET_SHAPE and out.min() >= 0 and out.max() <= 1
    return {"seconds": float(np.median(times[1:])), "peak_gib": peak_gib()}


def ratios(rows: list[dict], folder: Path) -> None:
    """This package's transforms, and the peers', on one CTA of 0.6 mm voxels."""
    from rlvo_lib import images

    scan = _clinical_scans(1)["cta"]
    path, own = images.save_nifti(folder / "cta.nii.gz", *scan), float("nan")
    for who in ("ours", "monai", "torchio"):
        try:
            found = child("one_load", who, str(path))
        except RuntimeError as error:
            if who != "torchio":
                raise
            print(f"torchio left out ({error}); pip install torchio==1.2.1", file=sys.stderr)
            continue
        size = " x ".join(map(str, scan[0].shape))
        own = found["seconds"] if who == "ours" else own
        found["over_ours"] = found["seconds"] / own
        rows.append({"what": f"load, reorient, resample, window a CTA of {size}: {who}"} | found)


# ------------------------------------------------------------------------------------- one clinical patient


def _clinical_scans(step: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """NCCT and CTA of one simulated patient; `step` 0: at clinical resolution, 1: as rendered.

    The cohort's CTA is a slab about the circle of Willis; at clinical resolution it is rendered of the
    whole head that the NCCT shows. A slab in 512 x 512 x 400 voxels would be mostly air: cheap to
    segment, and by its cut faces unlike the NCCT.
    """
    from unittest import mock

    from rlvo_lib import images
    from rlvo_lib.simulate import patients, rendering, scanner

    latents = patients.select(20, 2025)[0].to_dict("records")
    latent = next(p for p in latents if p["has_cta"] and p["has_ncct"])
    whole = {"CTA_CORNER": WHOLE_CORNER, "CTA_EXTENT": np.array(WHOLE_EXTENT)}
    with nullcontext() if step else mock.patch.multiple(scanner, **whole):
        stream = np.random.SeedSequence([2025, 1, 0])
        drawn = rendering.render(latent, stream, rendering.GRIDS["fine"])
    if step:
        return drawn.scans
    out = {}
    for scan, shape, spacing in (("ncct", NCCT_SHAPE, NCCT_MM), ("cta", CTA_SHAPE, CTA_MM)):
        array, affine = drawn.scans[scan]
        grid = np.diag([*spacing, 1.0])
        middle = affine @ [*((np.array(array.shape) - 1) / 2), 1]
        grid[:3, 3] = middle[:3] - np.array(spacing) * (np.array(shape) - 1) / 2
        fine = images.resample(array.astype(np.float32), affine, grid, shape, fill=-1000.0)
        out[scan] = np.rint(fine).astype(np.int16), grid
    return out


def write_dicom(folder: Path, scan: str, array: np.ndarray, affine: np.ndarray) -> None:
    """A scan (X, Y, Z) HU as a series of CT slices, with the tags that tell NCCT from CTA."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    number = {"ncct": 2, "cta": 3}[scan]
    study, series = generate_uid(entropy_srcs=["study"]), generate_uid(entropy_srcs=[scan])
    frame = generate_uid(entropy_srcs=["frame"])
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    size = np.linalg.norm(affine[:3, :3], axis=0)
    folder.mkdir(parents=True)
    for k in range(array.shape[2]):
        slice_, meta = Dataset(), FileMetaDataset()
        meta.MediaStorageSOPClassUID = slice_.SOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = generate_uid(
            entropy_srcs=[scan, str(k)]
        )
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.file_meta = meta
        slice_.PatientID, slice_.PatientName = "P1", "Phantom^Simulated"
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, series
        slice_.FrameOfReferenceUID, slice_.SeriesNumber = frame, number
        slice_.StudyDate = slice_.SeriesDate = slice_.AcquisitionDate = "20200102"
        slice_.StudyTime = slice_.SeriesTime = slice_.AcquisitionTime = f"12{number:02d}00"
        slice_.Modality, slice_.Manufacturer = "CT", "Phantom"
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.SeriesDescription = {"ncct": "Head without contrast", "cta": "CTA head"}[scan]
        slice_.BodyPartExamined, slice_.PatientPosition = "HEAD", "HFS"
        slice_.ConvolutionKernel, slice_.KVP = {"ncct": "H31s", "cta": "H30f"}[scan], "120"
        if scan == "cta":
            slice_.ContrastBolusAgent = "iodine"
        slice_.SliceThickness = slice_.SpacingBetweenSlices = float(size[2])
        slice_.PixelSpacing = [float(size[1]), float(size[0])]
        slice_.ImageOrientationPatient = [*(lps[:3, 0] / size[0]), *(lps[:3, 1] / size[1])]
        slice_.ImagePositionPatient = [round(float(v), 4) for v in (lps @ [0, 0, k, 1])[:3]]
        slice_.InstanceNumber, slice_.AcquisitionNumber = k + 1, 1
        slice_.Rows, slice_.Columns = array.shape[1], array.shape[0]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
        slice_.PixelRepresentation = 1
        slice_.RescaleSlope, slice_.RescaleIntercept, slice_.RescaleType = "1", "0", "HU"
        slice_.PixelData = np.ascontiguousarray(array[:, :, k].T).tobytes()
        slice_.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)


def one_patient(source: str, out: str) -> dict[str, float]:
    """`rlvo dicom` on the folder, then the tensor at the profile `full`."""
    from rlvo_lib import config, dataset, dictionary, preprocess

    memory, begun = Memory(), time.perf_counter()
    start = "from rlvo_lib.cli import main; main()"
    subprocess.run([sys.executable, "-c", start, "dicom", source, "--out", out], check=True)
    converted = time.perf_counter() - begun
    study = config.load_study("rlvo")
    data = dataset.load_dataset(out, study, dictionary.load(study.dictionary_path))
    settings = config.load_settings("full", cache=Path(out).parent / "cache", workers=1)
    cache = preprocess.prepare(data, settings)
    assert {"ncct", "cta", "vessels"} <= set(cache.table["available"].iloc[0])
    assert "different heads" not in cache.table["flags"].iloc[0]
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "of_which_dicom": converted, "peak_gib": memory.stop()}


def clinical(rows: list[dict], folder: Path) -> None:
    """One patient at clinical resolution, DICOM to tensor, one thread."""
    for scan, (array, affine) in _clinical_scans().items():
        write_dicom(folder / "dicom" / scan, scan, array, affine)
    found = child("one_patient", str(folder / "dicom"), str(folder / "dataset"))
    converted = found.pop("of_which_dicom")
    what = "CTA 512 x 512 x 400 and NCCT 512 x 512 x 40"
    rows.append(
        {"what": f"{what}, DICOM to tensor", "at_most": 90.0, "peak_gib_at_most": 4.0} | found
    )
    rows.append({"what": f"{what}: of which `rlvo dicom`", "seconds": converted})


# ------------------------------------------------------------------------------------------------- cohort


def cohort(rows: list[dict], folder: Path, patients: int = 599) -> None:
    """The embedded cohort at the cohort grid, all of imaging, from an empty cache, two processes."""
    from rlvo_lib import config, dataset, dictionary, preprocess
    from rlvo_lib.analysis import embedded_dataset

    settings = config.load_settings("demo", patients=patients, workers=2)
    words = dictionary.load(settings.study.dictionary_path)
    data = dataset.load_dataset(embedded_dataset(settings), settings.study, words)
    empty = not (settings.cache / "tensors").exists()  # else a cold cache elsewhere
    place = settings.cache if empty else folder / "cache"
    cold = config.load_settings("demo", patients=patients, workers=2, cache=place)
    memory, begun = Memory(), time.perf_counter()
    preprocess.prepare(data, cold)
    seconds = time.perf_counter() - begun
    rows.append(
        {"what": f"{patients} simulated patients, scans to tensors, cold", "at_most": 180.0}
        | {"seconds": seconds, "peak_gib": memory.stop()}
    )


CROP_SHAPE, CROP_MM = (256, 256, 200), (0.6, 0.6, 0.45)
SCALES_MM = (0.9, 1.3)  # of `vessels.segmentation`


def one_filter(who: str, path: str) -> dict[str, float]:
    """Seconds and peak memory of one method on the crop, in this process."""
    from rlvo_lib import images, vessels
    from rlvo_lib.head import head_frame

    array, affine = images.load_ct(path)
    frame = head_frame(array, affine, "cta")
    voxels = images.voxel_sizes(affine)
    begun = time.perf_counter()
    if who == "segment":
        assert vessels.segment(array, affine, frame).any()
    else:
        from skimage.filters import frangi

        frangi(array, sigmas=[s / voxels.mean() for s in SCALES_MM], black_ridges=False)
    return {"seconds": time.perf_counter() - begun, "peak_gib": peak_gib()}


def vessels_against_frangi(rows: list[dict], folder: Path) -> None:
    """The whole segmentation (bone, shape, veins, edges) against scikit-image's `frangi` alone."""
    from rlvo_lib import images

    array, affine = _clinical_scans(1)["cta"]
    grid = np.diag([*CROP_MM, 1.0])
    middle = affine @ [*((np.array(array.shape) - 1) / 2), 1]
    grid[:3, 3] = middle[:3] - np.array(CROP_MM) * (np.array(CROP_SHAPE) - 1) / 2
    crop = images.resample(array.astype(np.float32), affine, grid, CROP_SHAPE, fill=-1000.0)
    path = images.save_nifti(folder / "cta.nii.gz", np.rint(crop).astype(np.int16), grid)
    found = {who: child("one_filter", who, str(path)) for who in ("segment", "frangi")}
    for who, row in found.items():
        ratio = {"over_ours": row["seconds"] / found["segment"]["seconds"]}
        what = f"vessels in 256 x 256 x 200 voxels, scales {SCALES_MM} mm: {who}"
        rows.append({"what": what} | row | ratio)


PARTS = {
    "ratios": ratios,
    "vessels": vessels_against_frangi,
    "clinical": clinical,
    "cohort": cohort,
}


def main(out: Path, parts: list[str]) -> None:
    rows: list[dict] = []
    for name in parts:
        with tempfile.TemporaryDirectory(prefix="rlvo-imaging-") as folder:
            PARTS[name](rows, Path(folder))
        print(pd.DataFrame(rows).tail(3).to_string(index=False), flush=True)
    columns = ["what", "seconds", "at_most", "peak_gib", "peak_gib_at_most", "over_ours"]
    table = pd.DataFrame(rows, columns=columns).round(2)
    table["machine"] = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    out.mkdir(parents=True, exist_ok=True)
    path = out / "speed.csv"
    if path.is_file():  # parts that were not run again stay
        known = pd.read_csv(path)
        table = pd.concat([known[~known["what"].isin(table["what"])], table])
    table.to_csv(path, index=False)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        print(json.dumps(globals()[sys.argv[2]](*sys.argv[3:])))
    else:
        main(Path(sys.argv[1]), sys.argv[2:] or list(PARTS))
