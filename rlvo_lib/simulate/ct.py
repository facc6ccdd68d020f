"""Non-contrast CT and CT angiography of one patient, in HU, and where the clot and the lumen lie.

A scan is composed of tissue from the head's level sets, then vessels and calcium are painted over
it with the partial volume of each voxel, then the scanner adds its blur, shading and noise. Values
follow sections 4a and 4b of the evidence tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from rlvo_lib.simulate import scanner as scanners
from rlvo_lib.simulate.anatomy import Grid, Head, box_of, ramp, resample
from rlvo_lib.simulate.arteries import Tube
from rlvo_lib.simulate.scanner import GridPlan, Scanner

BLOOD_HU = 41.0
SINUS_ABOVE_BLOOD_HU = 9.0
FIELDS = ("depth", "base", "marrow", "tissue")
SLAB_VOXELS = 4_000_000  # tissue is composed in slabs of about so many voxels
# Head mm along x, y, z: all of the head, and where the bone of the base casts streaks.
HEAD_BOX_MM = ((-80.0, 80.0), (-114.0, 80.0), (-140.0, 92.0))
STREAK_BOX_MM = ((-50.0, 50.0), (-46.0, -2.0), (-54.0, -10.0))
PSF_SIGMA_MM = 0.5  # of the CTA
COARSE_MM = 1.2  # from here on, voxels blur more than the scanner
TANGLE_HU = 170.0  # contrast of a tangle of collateral vessels
MASK_SHARE = 0.35  # a voxel is vessel in the true mask from this share on


@dataclass(frozen=True)
class Patient:
    """What both scans are made from: latents, head, vessels (head mm) and calcified plaques."""

    latents: dict
    head: Head
    tree: dict[str, Tube]
    plaques: np.ndarray  # (n, 5): x, y, z head mm, radius mm, HU
    veins: list[Tube]
    tangles: np.ndarray | None = None  # share 0..1 on the head's grid


def ncct(
    patient: Patient,
    infarct: np.ndarray,
    infarct_affine: np.ndarray,
    plan: GridPlan,
    scanner: Scanner,
    rng: np.random.Generator,
) -> tuple[np.ndarray, Grid, np.ndarray]:
    """NCCT (X, Y, Z) int16 HU, its grid, and the share of each voxel that is clot, float32.

    `infarct` is the severity 0..1 on the perfusion grid. Water uptake grows with time; slices are
    means of thin ones, so that structures get the partial volume of thick slices.
    """
    thin, parts = scanners.ncct_grid(plan, scanner, rng)
    hours = (patient.latents["lkw_to_groin_min"] - 65) / 60
    uptake = np.clip(0.030 + 0.0085 * hours, 0.03, 0.15) * rng.uniform(0.8, 1.2)
    uptake = np.float32(min(uptake * patient.latents["infarct_scale"], 0.5))
    blood = BLOOD_HU + rng.normal(0, 1.2)
    streak = scanner.streak_hu * rng.uniform(0.5, 1.0), rng.uniform(0, 2 * np.pi)

    def shade(hu: np.ndarray, level: dict, slab: Grid) -> None:
        near = np.clip((level["depth"] - np.float32(patient.head.outer_mm)) / 6, 0, 5)
        hu += np.float32(3) * np.exp(-near) * (level["depth"] > patient.head.outer_mm)  # cupping
        _add_streaks(hu, patient.head, slab, level["depth"], *streak)

    hu = tissue(patient.head.with_loss(uptake * infarct, infarct_affine), thin, shade)
    _paint_sinuses(hu, patient, thin, blood + SINUS_ABOVE_BLOOD_HU)
    tubes = gather(patient.tree, patient.head, thin)
    _overlay(
        hu, *paint(tubes["points"], tubes["calibre"], np.full(len(tubes["clot"]), blood), thin)
    )
    clot = tubes["clot"] > 0
    density = np.full(int(clot.sum()), float(patient.latents["clot_hu"]))
    share, product = paint(tubes["points"][clot], tubes["calibre"][clot], density, thin)
    _overlay(hu, share, product)
    _paint_plaques(hu, patient, thin, bloom=0.3)
    hu, share = _slices(hu, parts), _slices(share, parts)
    grid = _thick(thin, parts)
    hu += scanners.noise(grid, scanners.ncct_noise_sd(scanner, thin, parts), 1.0, rng)
    return _int16(hu), grid, share


def cta(
    patient: Patient, plan: GridPlan, scanner: Scanner, rng: np.random.Generator
) -> tuple[np.ndarray, Grid, np.ndarray]:
    """CTA slab (X, Y, Z) int16 HU, its grid, and the true mask: 1 filled artery, 2 clot,
    3 tangle of collaterals."""
    grid = scanners.cta_grid(plan, scanner)
    arterial = float(np.clip(rng.normal(scanner.arterial_hu, 60), 210, 520))
    venous = float(np.clip(rng.normal(scanner.venous_hu, 45), 20, 230))
    hu = tissue(patient.head, grid)
    hu += np.float32(4)  # capillary contrast
    _paint_sinuses(hu, patient, grid, 45 + venous)
    tubes = gather(patient.tree, patient.head, grid)
    clot = tubes["clot"] > 0
    lumen = BLOOD_HU + arterial * tubes["fill"]
    share, product = paint(tubes["points"][~clot], tubes["radius"][~clot], lumen[~clot], grid)
    _overlay(hu, share, product)
    mask = (share > MASK_SHARE).astype(np.uint8)
    if clot.any():  # over the lumen: an embolus has a convex face, which contrast surrounds
        density = patient.latents["clot_hu"] + patient.latents["perviousness_hu"]
        density = np.full(int(clot.sum()), float(density))
        share, product = paint(tubes["points"][clot], tubes["calibre"][clot], density, grid)
        _overlay(hu, share, product)
        mask[share > MASK_SHARE] = 2
    if patient.tangles is not None:
        source = patient.head.pose.affine @ patient.head.grid.affine
        share = resample(patient.tangles[None], source, grid, beyond="zeros")[0]
        hu += np.float32(TANGLE_HU) * share
        mask[(share > 0.5) & (mask == 0)] = 3
    _paint_plaques(hu, patient, grid, bloom=0.4)
    if plan.cta_mm < COARSE_MM:
        hu = ndimage.gaussian_filter(hu, PSF_SIGMA_MM / plan.cta_mm, truncate=3)
    hu += scanners.noise(grid, scanners.cta_noise_sd(scanner, grid), 1.0, rng)
    return _int16(hu), grid, mask


def tissue(head: Head, grid: Grid, shade=None) -> np.ndarray:
    """HU of air, scalp, vault, base, face, brain and CSF on a grid, slab by slab.

    `shade` may alter the HU of a slab.
    """
    out = np.full(grid.shape, -1000, dtype=np.float32)
    box = box_of(HEAD_BOX_MM, np.linalg.inv(head.pose.affine) @ grid.affine, grid.shape)
    if box is None:
        return out
    step = max(1, SLAB_VOXELS // (grid.shape[0] * grid.shape[1]))
    for first in range(box[2].start, box[2].stop, step):
        here = (*box[:2], slice(first, min(first + step, box[2].stop)))
        slab = grid.part(here)
        level = head.on(slab, FIELDS)
        hu = _compose(head, level, float(np.cbrt(np.prod(grid.spacing))))
        if shade:
            shade(hu, level, slab)
        out[here] = hu
    return out


def _compose(head: Head, level: dict[str, np.ndarray], width: float) -> np.ndarray:
    """HU from level sets at voxels of about `width` mm.

    From outside: air, skin, scalp, the vault's two tables with the diploe between; inside the vault
    brain and CSF above the base, 4.5 mm of bone as its floor, and the face below.
    """
    depth, base, tissue = level["depth"], level["base"], level["tissue"]
    scalp, outer = np.float32(head.scalp_mm), np.float32(head.outer_mm)
    above_skin, above_scalp = ramp(depth, width), ramp(depth - scalp, width)
    inner = ramp(depth - outer, width)
    vault = above_scalp - above_scalp * inner
    vault *= ramp(base + np.float32(9), 6.0)
    middle = (depth - np.float32(0.5 * (head.scalp_mm + head.outer_mm))) / np.float32(1.5)
    bone = np.float32(1150) - np.float32(620) * np.exp(-(middle**2)) + 60 * level["marrow"]
    floor_top = ramp(base + np.float32(4.5), width)
    cranium = inner * ramp(base, width)
    floor = inner * floor_top - cranium
    face = above_scalp * (1 - floor_top) * (1 - vault)
    skin = np.maximum(above_skin - vault - cranium - floor - face, 0)
    hu = (cranium + face) * tissue
    hu += vault * bone
    hu += floor * (np.float32(760) + 120 * level["marrow"])
    hu -= np.float32(5) * skin
    hu += np.float32(1000) * above_skin
    hu -= np.float32(1000)
    return hu


def _add_streaks(
    hu: np.ndarray, head: Head, slab: Grid, depth: np.ndarray, amplitude: float, phase: float
) -> None:
    """Dark and bright bands between the petrous bones (Hounsfield bar), HU, in place."""
    to_head = (np.linalg.inv(head.pose.affine) @ slab.affine).astype(np.float32)
    box = box_of(STREAK_BOX_MM, to_head, slab.shape)
    if box is None:
        return
    i, j, k = np.ogrid[box]
    x, y, z = (r[0] * i + r[1] * j + (r[2] * k + r[3]) for r in to_head[:3])
    band = np.exp(-(((y + 24) / 9) ** 2) - ((z + 32) / 9) ** 2 - (x / 38) ** 4)
    wave = np.cos(2 * np.pi / 11 * y + phase) - 0.6
    hu[box] += amplitude * band * wave * (depth[box] > head.outer_mm)


def gather(tree: dict[str, Tube], head: Head, grid: Grid) -> dict[str, np.ndarray]:
    """Samples of all tubes in one, about two thirds of a voxel apart: world mm, mm, shares, clot."""
    step = 0.66 * min(grid.spacing)
    parts: dict[str, list] = {n: [] for n in ("points", "radius", "fill", "clot", "calibre")}
    for tube in tree.values():
        arc = tube.arc
        s = np.linspace(0, arc[-1], max(2, int(np.ceil(arc[-1] / step)) + 1))
        points = np.stack([np.interp(s, arc, tube.points[:, k]) for k in range(3)], axis=1)
        parts["points"].append(head.pose.to_world(points))
        for name in ("radius", "fill", "calibre"):
            parts[name].append(np.interp(s, arc, getattr(tube, name)))
        parts["clot"].append(np.interp(s, arc, tube.clot) >= 0.5)
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def paint(
    points: np.ndarray, radius: np.ndarray, value: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each voxel inside tubes through `points` (n, 3) world mm, and share x value.

    Only voxels near a point are touched. A tube thinner than a voxel keeps its cross-section: it is
    drawn wider and fainter.
    """
    spacing = np.array(grid.spacing)
    h = float(np.cbrt(np.prod(spacing)))
    pad = int(np.ceil((float(np.max(radius, initial=h)) + h) / spacing.min())) + 2
    shape = np.array(grid.shape) + 2 * pad
    share = np.zeros(int(shape.prod()), dtype=np.float32)
    product = np.zeros_like(share)
    thick = np.maximum(radius, 0.75 * h)
    peak = (radius / thick) ** 2
    thick = np.sqrt(thick**2 - h**2 / 12)  # the ramp at the rim adds pi h^2 / 12 to the section
    to_voxel = np.linalg.inv(grid.affine)
    at = np.einsum("ij,nj->ni", to_voxel[:3, :3], points) + to_voxel[:3, 3] + pad
    middle = np.rint(at).astype(np.int64)
    half = np.ceil((thick[:, None] + 0.5 * h) / spacing).astype(int)
    inside = ((middle >= half) & (middle < shape - half)).all(axis=1)
    sizes = half @ np.array([10_000, 100, 1])
    for size in np.unique(sizes[inside]):
        rows = np.flatnonzero(inside & (sizes == size))
        steps = [np.arange(-m, m + 1) for m in half[rows[0]]]
        gaps = [
            ((middle[rows, k, None] + steps[k] - at[rows, k, None]) * spacing[k]).astype(np.float32)
            ** 2
            for k in range(3)
        ]
        square = gaps[0][:, :, None, None] + gaps[1][:, None, :, None] + gaps[2][:, None, None, :]
        first, second, third = (middle[rows, k, None] + steps[k] for k in range(3))
        flat = (first * (shape[1] * shape[2]))[:, :, None, None]
        flat = flat + (second * shape[2])[:, None, :, None] + third[:, None, None, :]
        reach = (thick[rows] + 0.5 * h).astype(np.float32)[:, None, None, None]
        n, i, j, k = np.nonzero(square < reach**2)
        amount = (reach[n, 0, 0, 0] - np.sqrt(square[n, i, j, k])) / np.float32(h)
        amount = np.minimum(amount, 1) * peak[rows].astype(np.float32)[n]
        index = flat[n, i, j, k]
        np.maximum.at(share, index, amount)
        np.maximum.at(product, index, amount * value[rows].astype(np.float32)[n])
    crop = (slice(pad, -pad),) * 3
    return share.reshape(shape)[crop], product.reshape(shape)[crop]


def _overlay(hu: np.ndarray, share: np.ndarray, product: np.ndarray) -> None:
    """Replace tissue by what was painted, in place."""
    hu *= 1 - share
    hu += product


def _paint_sinuses(hu: np.ndarray, patient: Patient, grid: Grid, value: float) -> None:
    found = gather({tube.name: tube for tube in patient.veins}, patient.head, grid)
    _overlay(
        hu, *paint(found["points"], found["radius"], np.full(len(found["radius"]), value), grid)
    )


def _paint_plaques(hu: np.ndarray, patient: Patient, grid: Grid, bloom: float) -> None:
    """Calcium, larger than it is by the scanner's blur (`bloom` mm), denser than what it covers."""
    rows = patient.plaques
    if not len(rows):
        return
    points = patient.head.pose.to_world(rows[:, :3])
    _overlay(hu, *paint(points, rows[:, 3] + bloom, rows[:, 4], grid))


def _slices(thin: np.ndarray, parts: int) -> np.ndarray:
    """Means of `parts` consecutive slices."""
    return thin.reshape(*thin.shape[:2], -1, parts).mean(axis=3, dtype=np.float32)


def _thick(thin: Grid, parts: int) -> Grid:
    """The grid of slices made of `parts` thin ones."""
    x, y, z = thin.origin
    shape = (*thin.shape[:2], thin.shape[2] // parts)
    spacing = (*thin.spacing[:2], thin.spacing[2] * parts)
    return Grid(shape, spacing, (x, y, z + thin.spacing[2] * (parts - 1) / 2), thin.tilt_deg)


def _int16(hu: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(hu, -1024, 3071)).astype(np.int16)
