"""A real head before and after import: the sagittal view of an openly licensed NCCT with tilted gantry.

    python benchmarks/real_head.py ge_head_ncct.tar.gz docs/real_head.png

Left: the slices as they are stored, taken to lie evenly and at right angles, as a reader that looks
at pixels alone shows them. Middle: after `rlvo dicom`, on the scanner's axes. Right: laid on the
template, whose outline is drawn. The scan: dcm_qa_ct, Chris Rorden, data by Aliza Medical Imaging,
BSD-2-Clause; `make realdata` says where it comes from.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom

from rlvo_lib import config, dicom, dictionary, figures, images, registration
from rlvo_lib.dicom.sources import unpacked

STEP_MM = 0.5
HU = (-100.0, 150.0)


def stacked(archive: Path, folder: Path) -> np.ndarray:
    """The middle sagittal view (Y, Z) of the slices one on the other, each as high as their mean gap."""
    slices = [pydicom.dcmread(path) for path in unpacked(archive, folder).rglob("*.dcm")]
    slices.sort(key=lambda s: float(s.ImagePositionPatient[2]))
    heights = [float(s.ImagePositionPatient[2]) for s in slices]
    gap = (heights[-1] - heights[0]) / (len(slices) - 1)
    hu = np.stack(
        [s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices]
    )
    view = hu[:, ::-1, hu.shape[2] // 2].T
    across = float(slices[0].PixelSpacing[0])
    grid = np.diag([STEP_MM, STEP_MM, 1.0, 1.0])
    size = int(view.shape[0] * across / STEP_MM), int(view.shape[1] * gap / STEP_MM), 1
    flat = view[:, :, None].astype(np.float32)
    return images.resample(flat, np.diag([across, gap, 1, 1]), grid, size, HU[0])[:, :, 0]


def sagittal(array: np.ndarray, affine: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The view (Y, Z) in the plane x = 0 of `pose` (its mm to the world's)."""
    grid = np.diag([1.0, STEP_MM, STEP_MM, 1.0])
    grid[:3, 3] = [0, -130, -170]
    return images.resample(array, affine, pose @ grid, (1, 500, 360), -1000.0)[0]


def main(archive: Path, out: Path) -> None:
    study = config.load_study("rlvo")
    words = dictionary.load(study.dictionary_path)
    with tempfile.TemporaryDirectory() as folder:
        before = stacked(archive, Path(folder) / "slices")
        dicom.convert_folder(archive, Path(folder) / "data", study, words, patient="sub-0001")
        scan = Path(folder) / "data" / "sub-0001" / "ct" / "sub-0001_ncct.nii.gz"
        array, affine = images.load_ct(scan)
    found = registration.align(array, affine, "ncct")
    world = np.eye(4)
    world[:3, 3] = found.frame.affine[:3, 3]
    template = registration.load_template()
    outline = sagittal(template.array, template.affine, np.eye(4)) > -300
    figure = figures.canvas(9.6, 3.4, 1, 3)
    views = {
        "as stored: tilt and gaps ignored": before,
        "after rlvo dicom": sagittal(array, affine, world),
        "laid on the template (yellow)": sagittal(array, affine, found.affine),
    }
    for axis, (title, view) in zip(figure.axes, views.items(), strict=True):
        axis.imshow(view.T, origin="lower", cmap="gray", vmin=HU[0], vmax=HU[1])
        axis.set_title(title, fontsize=9)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.axes[2].contour(
        outline.T.astype(float), levels=[0.5], colors=["#FFD24A"], linewidths=0.8
    )
    figure.savefig(out, dpi=110, metadata={"Software": None})
    print(
        f"cost {found.cost:.2f}, scales {np.round(found.scales, 2).tolist()}, {list(found.flags)}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
