"""Scanners: field of view, slices, tilt, noise and kernel of each; and the grids that they write.

A `GridPlan` says how fine the scans are; a `Scanner` what is its own. Together they give the grid of
each scan in world mm (RAS+). Noise levels and voxels: evidence tables, sections 4a and 4b.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from rlvo_lib.simulate.anatomy import Grid, filling

# Corner and extent of what each scan covers, scanner mm.
NCCT_CORNER, NCCT_EXTENT = (-95.0, -133.25, -70.0), np.array([190.0, 240.0, 175.0])
CTA_CORNER, CTA_EXTENT = (-76.5, -108.75, -50.75), np.array([153.0, 183.0, 90.0])
CTP_CORNER, CTP_EXTENT = (-88.0, -122.0, -21.5), np.array([176.0, 208.0, 100.0])

#: Published mean diameters, mm (evidence tables, section 4c).
CALIBRES = {
    "internal carotid terminus": 3.6, "M1": 3.1, "M2": 2.4, "A1": 2.3, "A2": 2.0, "P1": 2.2,
    "basilar": 3.2, "ACoA": 1.5, "PCoA": 1.2, "M3": 1.4,
}  # fmt: skip
CLEAR_VOXELS = 1.5  # an artery of fewer voxels across is not drawn at its calibre


@dataclass(frozen=True)
class GridPlan:
    """How fine the scans of a dataset are, in mm."""

    name: str
    ncct_mm: float  # in the slice
    ncct_part_mm: float  # thin slices that are averaged into one
    ncct_slice_mm: float
    cta_mm: float
    ctp_mm: float  # in the slice
    ctp_slice_mm: float
    head_mm: float  # step of the fields a head is made from

    def with_cta_mm(self, mm: float) -> GridPlan:
        """The same plan with another voxel of the CTA."""
        return replace(self, cta_mm=float(mm))


#: ``cohort``: coarse enough for 599 patients in two minutes; ``fine``: as a hospital's scans.
GRIDS = {
    "cohort": GridPlan("cohort", 2.5, 2.5, 5.0, 1.5, 4.0, 5.0, 2.5),
    "fine": GridPlan("fine", 0.45, 1.0, 3.0, 0.6, 2.0, 5.0, 1.25),
}


@dataclass(frozen=True)
class Scanner:
    """What differs between scanners."""

    name: str
    kvp: int
    slice_factor: float  # of the plan's NCCT slices
    tilt_deg: tuple[float, float]  # range of the gantry's tilt on NCCT
    wider_mm: float  # larger field of view of the CTA, left and right, front and back
    ctp_extent_mm: float  # coverage of the perfusion scan along z
    ncct_noise_hu: float  # at 0.45 x 0.45 x 5 mm, reconstructed for the brain
    cta_noise_hu: float  # at 0.5 mm
    arterial_hu: float  # mean enhancement of the carotid
    venous_hu: float  # and of the sinuses: the later the phase, the more
    streak_hu: float  # beam hardening between the petrous bones


#: Fictional scanners; shares by scenario (`scenarios`). B tilts the gantry and scans early, C is older.
SCANNERS = {
    "A": Scanner("A", 120, 1.0, (0.0, 0.0), 0.0, 100.0, 4.0, 16.0, 365.0, 95.0, 6.0),
    "B": Scanner("B", 100, 1.0, (-12.0, -4.0), 6.0, 100.0, 4.4, 18.0, 390.0, 75.0, 8.0),
    "C": Scanner("C", 120, 5.0 / 3.0, (0.0, 0.0), 0.0, 80.0, 5.0, 22.0, 320.0, 135.0, 12.0),
}


def lost_calibres(plan: GridPlan) -> list[str]:
    """Arteries that the plan's CTA voxels are too coarse for, with calibre and what is lost.

    An artery under 1.5 voxels across is drawn wider and fainter: its cross-section stays, its
    calibre does not.

    >>> lost_calibres(GRIDS["fine"])
    []
    >>> lost_calibres(GRIDS["cohort"].with_cta_mm(2.0))[0]
    'M2: 2.4 mm drawn as 3.0 mm'
    """
    drawn = CLEAR_VOXELS * plan.cta_mm
    return [f"{n}: {d:.1f} mm drawn as {drawn:.1f} mm" for n, d in CALIBRES.items() if d < drawn]


def ncct_grid(plan: GridPlan, scanner: Scanner, rng: np.random.Generator) -> tuple[Grid, int]:
    """The grid of the NCCT's thin slices, and how many of them make one slice."""
    thickness = plan.ncct_slice_mm * (scanner.slice_factor if plan.name == "fine" else 1.0)
    parts = max(1, round(thickness / plan.ncct_part_mm))
    spacing = (plan.ncct_mm, plan.ncct_mm, thickness / parts)
    tilt = float(np.round(rng.uniform(*scanner.tilt_deg), 1))
    extent = NCCT_EXTENT * [1, 1, (NCCT_EXTENT[2] // thickness) * thickness / NCCT_EXTENT[2]]
    return filling(extent, spacing, NCCT_CORNER, tilt), parts


def cta_grid(plan: GridPlan, scanner: Scanner) -> Grid:
    """The grid of the CTA: a slab around the circle of Willis."""
    wider = scanner.wider_mm * np.array([1, 1, 0])
    corner = tuple(np.array(CTA_CORNER) - wider / 2)
    return filling(CTA_EXTENT + wider, (plan.cta_mm,) * 3, corner)


def ctp_grid(plan: GridPlan, scanner: Scanner) -> Grid:
    """The grid of the perfusion maps; a narrow detector covers less, from the same lowest slice."""
    extent = np.array([*CTP_EXTENT[:2], scanner.ctp_extent_mm])
    return filling(extent, (plan.ctp_mm, plan.ctp_mm, plan.ctp_slice_mm), CTP_CORNER)


def noise(grid: Grid, sd: float, fwhm_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of SD `sd`, correlated in the slice as by a kernel of `fwhm_mm`, (X, Y, Z) float32."""
    field = rng.standard_normal(grid.shape, dtype=np.float32)
    sigma = [fwhm_mm / 2.355 / s for s in grid.spacing[:2]]
    if max(sigma) > 0.3:
        field = ndimage.gaussian_filter(field, [*sigma, 0], mode="wrap", truncate=3)
        field /= field.std()
    field *= np.float32(sd)
    return field


def ncct_noise_sd(scanner: Scanner, grid: Grid, parts: int) -> float:
    """SD on NCCT voxels of `grid`, `parts` thin slices each; averaged voxels keep a part of the noise.

    Between neighbouring voxels noise is correlated, so it falls less than with the root of the volume.
    """
    volume = np.prod(grid.spacing) * parts / (0.45 * 0.45 * 5.0)
    return scanner.ncct_noise_hu * float(volume) ** -0.17


def cta_noise_sd(scanner: Scanner, grid: Grid) -> float:
    """SD on CTA voxels; as `ncct_noise_sd`."""
    return scanner.cta_noise_hu * float(np.prod(grid.spacing) / 0.5**3) ** -0.17


def sidecar(scan: str, grid: Grid, scanner: Scanner, thickness: float) -> dict:
    """What is written beside a scan (BIDS names); it depends on scanner and grid only."""
    return {
        "Simulated": True,
        "Note": "SIMULATED DATA. No patient stands behind this scan.",
        "Modality": "CT",
        "Manufacturer": "simulated",
        "ManufacturersModelName": f"simulated scanner {scanner.name}",
        "KVP": 80 if scan in ("cbf", "cbv", "mtt", "tmax") else scanner.kvp,
        "SliceThickness": round(thickness, 3),
        "GantryDetectorTilt": grid.tilt_deg,
        "Units": {"cbf": "mL/100 g/min", "cbv": "mL/100 g", "mtt": "s", "tmax": "s"}.get(
            scan, "HU"
        ),
    }
