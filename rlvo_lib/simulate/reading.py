"""Plain measurements on a rendered patient: does the image hold what was put in?

A method may use the truth to know where to look (centre lines, pose), never what it should find. They
show that the phantom carries its latents; they are no tool for real scans.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from rlvo_lib.simulate.anatomy import Grid
from rlvo_lib.simulate.ct import COARSE_MM, PSF_SIGMA_MM, paint
from rlvo_lib.simulate.rendering import Rendered

STEP_MM = 0.25  # between samples along a vessel
TISSUE_HU = 45.0  # on CTA
AGATSTON_HU = 130.0  # calcium threshold (Agatston et al., JACC 1990)


def volumes(rendered: Rendered, side: int) -> dict[str, float]:
    """Core (CBF under 30 % of the healthy side's mean) and Tmax > 4, 6, 10 s of the affected side, mL."""
    cbf, affine = rendered.scans["cbf"]
    tmax = rendered.scans["tmax"][0]
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    to_head = np.linalg.inv(np.array(rendered.truth["head_to_world"])) @ affine
    index = np.stack(np.indices(cbf.shape), axis=-1)
    x = np.einsum("...k,k->...", index, to_head[0, :3]) + to_head[0, 3]
    own = (x > 0) == (side == 1)
    healthy = cbf[(cbf > 0) & ~own & (np.abs(x) > 3)].mean()
    found = {f"tmax{k}_ml": float((own & (tmax > k)).sum() * ml) for k in (4, 6, 10)}
    return found | {"core_ml": float((own & (cbf > 0) & (cbf < 0.30 * healthy)).sum() * ml)}


def along(rendered: Rendered, vessel: str, scan: str = "cta") -> pd.DataFrame:
    """HU on a vessel's centre line: arc (mm from its start), hu, and where (x, y, z world mm)."""
    rows = rendered.tree[rendered.tree["vessel"] == vessel]
    points = rows[["x", "y", "z"]].to_numpy()
    arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    s = np.arange(0, arc[-1], STEP_MM)
    where = np.stack([np.interp(s, arc, points[:, k]) for k in range(3)], axis=1)
    frame = pd.DataFrame(where, columns=["x", "y", "z"])
    return frame.assign(arc=s, hu=_sample(rendered.scans[scan], where))


def occlusion_start(rendered: Rendered) -> np.ndarray:
    """World mm of the place where the contrast of the occluded vessel falls under half of what it was."""
    vessel = rendered.truth["occlusion"]["vessel"]
    line = along(rendered, vessel)
    if not vessel.startswith("ICA"):  # look from the vessel before
        parent = "ICA" if vessel.startswith("M1") else "M1"
        before = along(rendered, f"{parent}_{vessel[-1]}")
        line = pd.concat(
            [before[before["arc"] > before["arc"].max() - 12], line], ignore_index=True
        )
    else:
        line = line[line["arc"] > 15].reset_index(drop=True)  # within the scan
    hu = ndimage.uniform_filter1d(line["hu"].to_numpy(), 5)
    plateau = np.quantile(hu[: int(12 / STEP_MM)], 0.25)  # calcium may lie beside much of it
    low = np.flatnonzero(hu - TISSUE_HU < 0.5 * (plateau - TISSUE_HU))
    low = low[low > int(4 / STEP_MM)]
    return line.loc[low[0] if len(low) else len(line) - 1, ["x", "y", "z"]].to_numpy(float)


def clot_density(rendered: Rendered) -> float:
    """HU of the clot on NCCT: mean of the voxels that it fills, freed of what shares them."""
    hu, affine = rendered.scans["ncct"]
    share = _clot_share(rendered, affine, hu.shape)
    return _unmixed(hu, share)


def perviousness(rendered: Rendered) -> float:
    """HU that the clot gains from NCCT to CTA."""
    hu, affine = rendered.scans["cta"]
    share = _clot_share(rendered, affine, hu.shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.max() < COARSE_MM:  # else the scanner's blur is less than a voxel
        share = ndimage.gaussian_filter(share, PSF_SIGMA_MM / spacing, truncate=3)
    return _unmixed(hu, share) - clot_density(rendered)


def stenosis_degree(rendered: Rendered, index: int) -> float:
    """1 - diameter / reference diameter of a stenosis, from the contrast of cross-sections of the vessel.

    The contrast summed over a cross-section is proportional to the lumen's area, however blurred.
    """
    stenosis = rendered.truth["stenoses"][index]
    line = along(rendered, stenosis["vessel"])
    points = line[["x", "y", "z"]].to_numpy()
    centre = int(np.linalg.norm(points - np.array(stenosis["at"]), axis=1).argmin())
    tree = rendered.tree[rendered.tree["vessel"] == stenosis["vessel"]]
    reach = float(tree["radius_mm"].quantile(0.8)) + 0.9
    span = int(10 / STEP_MM)
    places = np.arange(max(4, centre - span), min(len(points) - 4, centre + span))
    area = np.array([_section(rendered, points, i, reach) for i in places])
    distance = np.abs(places - centre) * STEP_MM
    narrow = ndimage.uniform_filter1d(area, 3)[distance < 1.5].min()
    reference = np.median(area[distance > 5.5])
    return float(1 - np.sqrt(max(narrow, 0) / reference))


def calcium(rendered: Rendered, side: str) -> float:
    """Mass-like score of calcium around one siphon on NCCT: mm3 x HU above 130, over 1000."""
    hu, affine = rendered.scans["ncct"]
    rows = rendered.tree[rendered.tree["vessel"] == f"ICA_{side}"]
    points = rows[["x", "y", "z"]].to_numpy()
    points = points[int(0.55 * len(points)) :]
    shape = np.array(hu.shape)
    index = np.linalg.inv(affine)
    at = np.einsum("ij,nj->ni", index[:3, :3], points) + index[:3, 3]
    low = np.clip(at.min(axis=0) - 12, 0, shape).astype(int)
    high = np.clip(at.max(axis=0) + 12, 0, shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    places = np.stack(np.mgrid[box], axis=-1).reshape(-1, 3)
    world = np.einsum("ij,nj->ni", affine[:3, :3], places) + affine[:3, 3]
    near = np.min(np.linalg.norm(world[:, None] - points[None, ::2], axis=2), axis=1) < 4.0
    values = hu[box].reshape(-1)[near].astype(float)
    voxel = abs(np.linalg.det(affine[:3, :3]))
    return float((values[values > AGATSTON_HU] - AGATSTON_HU).sum() * voxel / 1000)


def filling(rendered: Rendered, vessels: list[str]) -> float:
    """Mean HU along vessels on CTA."""
    return float(np.mean([along(rendered, v)["hu"].mean() for v in vessels]))


def _sample(scan: tuple[np.ndarray, np.ndarray], world: np.ndarray) -> np.ndarray:
    volume, affine = scan
    index = np.linalg.inv(affine)
    at = np.einsum("ij,...j->...i", index[:3, :3], world) + index[:3, 3]
    return ndimage.map_coordinates(
        volume.astype(np.float32), np.moveaxis(at, -1, 0), order=1, mode="nearest"
    )


def _section(rendered: Rendered, points: np.ndarray, i: int, reach: float) -> float:
    """Contrast above the surrounding tissue summed over a disc across the vessel, HU mm2."""
    axis = points[min(i + 3, len(points) - 1)] - points[max(i - 3, 0)]
    axis = axis / np.linalg.norm(axis)
    first = np.cross(axis, [0.31, 0.67, 0.68])
    first = first / np.linalg.norm(first)
    second = np.cross(axis, first)
    step = 0.3
    u, v = np.meshgrid(*[np.arange(-reach - 1.5, reach + 1.5 + step, step)] * 2, indexing="ij")
    world = points[i] + u[..., None] * first + v[..., None] * second
    hu = _sample(rendered.scans["cta"], world)
    r = np.hypot(u, v)
    ring = hu[(r > reach) & (r < reach + 1.5)]
    around = np.median(ring[ring < 120]) if (ring < 120).any() else ring.min()  # not bone
    return float((hu - around)[r <= reach].sum() * step**2)


def _clot_share(rendered: Rendered, affine: np.ndarray, shape: tuple) -> np.ndarray:
    """Share of each voxel that is clot, painted from the true centre lines in thin layers."""
    rows = rendered.tree[rendered.tree["clot"] == 1]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    parts = max(1, round(spacing[2] / max(spacing[0], 0.5)))
    thin = _Oblique(
        (*shape[:2], shape[2] * parts), (*spacing[:2], spacing[2] / parts), affine, parts
    )
    points, radius = [], []
    for _, part in rows.groupby("vessel", sort=False):
        at = part[["x", "y", "z"]].to_numpy()
        s = np.linspace(0, len(at) - 1, 8 * len(at))
        points.append(np.stack([np.interp(s, range(len(at)), at[:, k]) for k in range(3)], axis=1))
        radius.append(np.interp(s, range(len(at)), part["radius_mm"]))
    points, radius = np.concatenate(points), np.concatenate(radius)
    share, _ = paint(points, radius, np.ones(len(radius)), thin)
    return share.reshape(*shape, parts).mean(axis=3)


class _Oblique(Grid):
    """A grid given by its affine."""

    def __init__(self, shape, spacing, affine, parts):
        super().__init__(shape, spacing, (0, 0, 0))
        thin = affine @ np.diag([1, 1, 1 / parts, 1])
        thin[:3, 3] = affine[:3, 3] - affine[:3, 2] * (parts - 1) / (2 * parts)
        object.__setattr__(self, "_affine", thin)

    @property
    def affine(self) -> np.ndarray:
        return self._affine


def _unmixed(hu: np.ndarray, share: np.ndarray) -> float:
    """HU of what fills `share` of the voxels: a line through HU against share, read off at 1.

    Voxels beside bone, calcium or contrast (over 150 HU) are left out; NaN where none is left that is
    at least half full.
    """
    box = ndimage.find_objects(ndimage.binary_dilation(share > 0.1, iterations=4).astype(np.uint8))
    if not box:
        return float("nan")
    hu, share = hu[box[0]].astype(float), share[box[0]].astype(float)
    near = (share > 0.1) & ~ndimage.binary_dilation(hu > 150, iterations=2)
    if near.sum() < 10 or share[near].max() < 0.5:
        return float("nan")
    slope, start = np.polyfit(share[near], hu[near], 1)
    return float(start + slope)
