"""Small volumes of known content for the imaging tests: ellipsoid heads, vessels, dataset folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial.transform import Rotation

from rlvo_lib import dataset as dataset_folder
from rlvo_lib import images
from rlvo_lib.config import load_study
from rlvo_lib.registration import load_template

NCCT = ((72, 88, 34), np.diag([2.5, 2.5, 5.0, 1.0]))
NCCT[1][:3, 3] = [-90, -110, -150]
CTA = ((100, 120, 60), np.diag([1.5, 1.5, 1.5, 1.0]))
CTA[1][:3, 3] = [-75, -90, -110]
PERF = ((45, 55, 20), np.diag([4.0, 4.0, 5.0, 1.0]))
PERF[1][:3, 3] = [-88, -108, -105]


def pose(dx=0.0, dy=0.0, dz=0.0, yaw=0.0, roll=0.0, pitch=0.0, size=(1.0, 1.0, 1.0)) -> np.ndarray:
    """4x4, head mm (origin: midline, middle, vertex) to world mm; angles in degrees.

    Turns and sizes are about the origin; without pitch the vertex stays where it is.
    """
    affine = np.eye(4)
    turn = Rotation.from_euler("ZYX", [yaw, roll, pitch], degrees=True).as_matrix()
    affine[:3, :3] = turn * size
    affine[:3, 3] = [dx, dy, dz]
    return affine


def _head_mm(shape, affine, head) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    to_head = np.linalg.inv(head) @ affine
    return np.einsum("ab,bijk->aijk", to_head[:3, :3], index) + to_head[:3, 3, None, None, None]


def head_hu(shape, affine, head=None, seed: int | None = 0) -> np.ndarray:
    """An ellipsoid head (150 x 190 x 190 mm) with skull, brain, ventricles, nose and neck, in HU."""
    head = np.eye(4) if head is None else head
    x, y, z = _head_mm(shape, affine, head)
    z = z + 95.0

    def within(a, b, c, cx=0.0, cy=0.0, cz=0.0):
        return ((np.abs(x) - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2 < 1

    hu = np.full(shape, -1000.0, np.float32)
    hu[(z < -20) & (x**2 / 55**2 + (y + 10) ** 2 / 60**2 < 1)] = 40
    hu[(np.abs(x) < 12) & (y > 80) & (y < 112) & (np.abs(z + 50) < 20)] = 40
    hu[within(75, 95, 95)] = 30
    hu[within(70, 90, 90)] = 900
    brain = within(64, 84, 84)
    hu[brain] = 33
    hu[within(8, 30, 12, cx=12, cz=20)] = 8
    hu[within(20, 35, 10, cx=35, cy=10, cz=-55)] = 600
    if seed is not None:
        hu += np.random.default_rng(seed).normal(0, 4, shape).astype(np.float32)
    return hu


def template_hu(shape, affine, head=None, seed: int | None = 0, noise=5.0) -> np.ndarray:
    """The package's template as a scan of it would show it in the pose `head`, in HU."""
    template = load_template()
    head = np.eye(4) if head is None else head
    place = np.linalg.inv(head) @ affine
    hu = images.resample(template.array, template.affine, place, shape, fill=-1000)
    if seed is not None:
        hu += np.random.default_rng(seed).normal(0, noise, shape).astype(np.float32)
    return hu


def arteries(shape, affine, head=None, carotid_mm: float = 3.6) -> np.ndarray:
    """Mask of a simple arterial tree: carotid ends, M1 (3 mm) and two M2 (2.4 mm) a side, A2."""
    head = np.eye(4) if head is None else head
    mask = np.zeros(shape, bool)
    for s in (-1, 1):
        ends = [
            ((10 * s, 10, -108), (10 * s, 12, -95), carotid_mm),
            ((10 * s, 12, -95), (32 * s, 8, -92), 3.0),
            ((32 * s, 8, -92), (44 * s, 5, -78), 2.4),
            ((44 * s, 5, -78), (47 * s, -10, -62), 2.4),
            ((32 * s, 8, -92), (42 * s, -8, -85), 2.4),
            ((42 * s, -8, -85), (46 * s, -30, -72), 2.4),
            ((10 * s, 12, -95), (2 * s, 25, -88), 2.2),
            ((2 * s, 25, -88), (2 * s, 35, -65), 2.2),
        ]
        for a, b, diameter in ends:
            _add_tube(mask, affine, head, np.array(a, float), np.array(b, float), diameter)
    return mask


def _add_tube(mask, affine, head, a, b, diameter) -> None:
    """Set the voxels within half of `diameter` of the line from `a` to `b` (head mm)."""
    to_index = np.linalg.inv(affine) @ head
    ends = (to_index[:3, :3] @ np.stack([a, b], 1) + to_index[:3, 3:]).T
    reach = diameter / np.linalg.norm(affine[:3, 0])
    first = np.clip(np.floor(ends.min(0) - reach), 0, mask.shape).astype(int)
    stop = np.clip(np.ceil(ends.max(0) + reach) + 1, 0, mask.shape).astype(int)
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ first
    place = np.moveaxis(_head_mm(stop - first, shifted, head), 0, -1)
    along = np.clip((place - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)[..., None]
    box = tuple(slice(i, j) for i, j in zip(first, stop, strict=True))
    mask[box] |= np.linalg.norm(place - a - along * (b - a), axis=-1) < diameter / 2


def cta_hu(head=None, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A CTA slab in HU, its affine and the true fraction of each voxel that is artery."""
    shape, affine = CTA
    fine = affine @ np.diag([1 / 3, 1 / 3, 1 / 3, 1])
    fine[:3, 3] -= affine[:3, :3] @ [1 / 3, 1 / 3, 1 / 3]
    truth = arteries(tuple(3 * n for n in shape), fine, head).astype(np.float32)
    truth = truth.reshape(shape[0], 3, shape[1], 3, shape[2], 3).mean(axis=(1, 3, 5))
    blurred = ndimage.gaussian_filter(truth, 0.35)
    hu = head_hu(shape, affine, head, seed=None)
    hu = hu + blurred * (370 - np.clip(hu, None, 370))
    hu += np.random.default_rng(seed).normal(0, 12, shape).astype(np.float32)
    return hu.astype(np.float32), affine, truth


FINE_CTA = ((188, 226, 76), np.diag([0.8, 0.8, 0.8, 1.0]))
FINE_CTA[1][:3, 3] = [-75, -90, -112]


def fine_cta_hu(
    seed: int = 0, bone=None, dark=None, contrast_hu: float = 340.0, carotid_mm: float = 3.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A CTA of 0.8 mm in HU, its affine and the mask of the arterial tree of `arteries`.

    bone : ((x, y, z), (x, y, z)) corners of a block of bone (700 HU), head mm; the arteries run through
    it. dark : a box of the same form within which the arteries do not fill.
    """
    shape, affine = FINE_CTA
    axes = [np.arange(n) * affine[a, a] + affine[a, 3] for a, n in enumerate(shape)]

    def box(corners):
        inside = [(p >= a) & (p <= b) for p, a, b in zip(axes, *corners, strict=True)]
        return np.ix_(*inside)

    truth = arteries(shape, affine, carotid_mm=carotid_mm)
    hu = head_hu(shape, affine, seed=None)
    if bone is not None:
        hu[box(bone)] = 700
    if dark is not None:
        truth[box(dark)] = False
    hu[truth] = 35 + contrast_hu
    hu = ndimage.gaussian_filter(hu, 0.6 / 0.8)
    hu += np.random.default_rng(seed).normal(0, 15, shape).astype(np.float32)
    return hu.astype(np.float32), affine, truth


def perfusion_maps(side: str, head=None) -> dict[str, np.ndarray]:
    """CBF, CBV, MTT, Tmax with a core ball (r 14 mm) in a penumbra ball (r 28 mm) on one side."""
    shape, affine = PERF
    head = np.eye(4) if head is None else head
    x, y, z = _head_mm(shape, affine, head)
    brain = (x / 64) ** 2 + (y / 84) ** 2 + ((z + 95) / 84) ** 2 < 1
    centre = -30.0 if side == "left" else 30.0
    r = np.sqrt((x - centre) ** 2 + y**2 + (z + 65) ** 2)
    maps = {
        "cbf": np.where(r < 14, 6.0, np.where(r < 28, 25.0, 50.0)),
        "cbv": np.where(r < 14, 0.8, np.where(r < 28, 3.6, 3.0)),
        "mtt": np.where(r < 28, 9.0, 4.0),
        "tmax": np.where(r < 14, 12.0, np.where(r < 28, 8.0, 1.5)),
    }
    return {name: (brain * m).astype(np.float32) for name, m in maps.items()}


def write_patient(root: Path, participant_id: str, side: str, head=None, scans=None) -> None:
    """One patient's scans in a dataset folder; `scans` names those to write (default all)."""
    volumes = {"ncct": (head_hu(*NCCT, head), NCCT[1]), "cta": cta_hu(head)[:2]}
    grain = 1 + 0.02 * np.random.default_rng(0).standard_normal(PERF[0]).clip(-3, 3)
    maps = perfusion_maps(side, head).items()
    volumes |= {name: ((values * grain).astype(np.float32), PERF[1]) for name, values in maps}
    for scan in scans if scans is not None else volumes:
        array, affine = volumes[scan]
        kept = np.rint(array).astype(np.int16) if scan in ("ncct", "cta") else array
        images.save_nifti(scan_path(root, participant_id, scan), kept, affine)


def scan_path(root: Path, participant_id: str, scan: str) -> Path:
    """Where a scan of the rLVO study lies, by its name."""
    return dataset_folder.scan_path(root, participant_id, load_study().scans[scan])


def dataset(root: Path, sides: dict[str, str]) -> dataset_folder.Dataset:
    """A dataset folder's table (only the affected side), as `rlvo_lib.dataset.load_dataset` would give it."""
    codes = {"left": "0", "right": "1"}
    table = pd.DataFrame(
        {"side": [codes.get(s, np.nan) for s in sides.values()]}, index=list(sides), dtype=object
    ).rename_axis("participant_id")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "test", "simulated": False}))
    return dataset_folder.Dataset(
        root=root, name="test", simulated=False, raw=table, table=table, scans=load_study().scans
    )
