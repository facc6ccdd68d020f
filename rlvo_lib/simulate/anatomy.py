"""The head: one canonical atlas, and each patient's own pose, size and atrophy.

Space: head mm, RAS+ (x right, y anterior, z superior), origin between the commissures, close to
MNI coordinates. `Pose` carries head mm to world mm (RAS+). The atlas holds smooth level sets
(mm, positive inside) rather than labels, so that a patient's voxels get partial volumes at any
grid and no surface is blocky. It is symmetric: x stands for |x|.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

ATLAS_STEP_MM = 2.5
ATLAS_ORIGIN_MM = np.array([-90.0, -120.0, -82.5])
ATLAS_SHAPE = (73, 88, 74)

# Vault thicknesses below the skin, in mm.
SCALP_MM, SKULL_MM = 5.0, 6.5


@dataclass(frozen=True)
class Grid:
    """An axis-aligned voxel grid: shape (X, Y, Z), spacing in mm, centre of voxel 0 in world mm."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    @property
    def affine(self) -> np.ndarray:
        """Voxel indices to world mm, (4, 4)."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = self.origin
        return affine

    def axis(self, k: int) -> np.ndarray:
        """World mm of the voxel centres along axis `k`."""
        return self.origin[k] + self.spacing[k] * np.arange(self.shape[k])


@dataclass(frozen=True)
class Pose:
    """world mm = rotation @ (size * head mm) + shift."""

    rotation: np.ndarray
    size: np.ndarray
    shift: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, male: bool) -> Pose:
        """A head a few degrees and millimetres off centre, its size varying by some 4 %."""
        angles = np.deg2rad(np.clip(rng.normal(0, 3, 3), -9, 9))
        size = 1 + np.clip(rng.normal(0.012 if male else -0.012, 0.022, 3), -0.06, 0.06)
        shift = np.clip(rng.normal(0, 5, 3), -10, [10, 10, 8])
        return cls(_rotation(angles), size, shift)

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Head mm (n, 3) to world mm (n, 3)."""
        return np.einsum("ij,nj->ni", self.rotation, points * self.size) + self.shift

    @property
    def affine(self) -> np.ndarray:
        """Head mm to world mm, (4, 4)."""
        affine = np.eye(4)
        affine[:3, :3] = self.rotation * self.size
        affine[:3, 3] = self.shift
        return affine


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z, by `angles` in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.einsum("ij,jk,kl->il", rz, ry, rx)


def ramp(level: np.ndarray, width: float) -> np.ndarray:
    """Share of a voxel of `width` mm inside a surface whose signed distance is `level` mm."""
    return np.clip(level / np.float32(width) + np.float32(0.5), 0, 1)


def interpolate(volume: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Linear interpolation between two grids that share the world axes; edge values beyond."""
    for k in range(3):
        position = (target.axis(k) - source.origin[k]) / source.spacing[k]
        position = np.clip(position, 0, source.shape[k] - 1)
        low = np.minimum(position.astype(int), source.shape[k] - 2)
        part = (position - low).astype(np.float32).reshape([-1 if a == k else 1 for a in range(3)])
        below, above = np.take(volume, low, axis=k), np.take(volume, low + 1, axis=k)
        above -= below
        above *= part
        below += above
        volume = below
    return volume


def smooth_noise(grid: Grid, sd_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit variance and correlation length `sd_mm` on `grid`, made coarsely."""
    step = tuple(max(s, sd_mm / 1.2) for s in grid.spacing)
    extent = [s * (n - 1) for s, n in zip(grid.spacing, grid.shape, strict=True)]
    shape = tuple(int(np.ceil(e / s)) + 2 for e, s in zip(extent, step, strict=True))
    coarse = rng.standard_normal(shape, dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, [sd_mm / s for s in step], mode="wrap", truncate=3)
    coarse /= coarse.std()
    return interpolate(coarse, Grid(shape, step, grid.origin), grid)


@lru_cache(maxsize=1)
def atlas() -> dict[str, np.ndarray]:
    """Level sets of the canonical head on the atlas grid, float32 (mm; territories without unit).

    depth: below the skin · base: above the skull base · ventricle, cistern, deep_grey: inside them
    · tentorium: above it · face: HU of what lies below the base · mca, m2_superior, m2_inferior,
    ica, core: nearness to the middle of a territory (0 at its middle, negative outwards).
    """
    axes = [ATLAS_ORIGIN_MM[k] + ATLAS_STEP_MM * np.arange(ATLAS_SHAPE[k]) for k in range(3)]
    x, y, z = np.meshgrid(np.abs(axes[0]), axes[1], axes[2], indexing="ij")
    fields = {
        "depth": np.clip(_depth(x, y, z), -15, 45),
        "base": np.clip(z - _base_height(x, y), -25, 25),
        "ventricle": np.clip(_ventricles(x, y, z), -12, 12),
        "cistern": np.clip(_cisterns(x, y, z), -8, 8),
        "deep_grey": np.clip(_deep_grey(x, y, z), -8, 8),
        "tentorium": np.clip(z - np.where(y < -22, -8 - 0.30 * x, -60), -20, 20),
        "face": _face(x, y, z),
    } | _territories(x, y, z)
    return {name: field.astype(np.float32) for name, field in fields.items()}


def sample(names: tuple[str, ...], pose: Pose, grid: Grid) -> dict[str, np.ndarray]:
    """Atlas fields seen by a posed head on a world grid, (X, Y, Z) float32 each; linear.

    All fields are gathered at once, one x plane after the other, which stays in the cache: several
    times quicker than one resampling a field.
    """
    fields = atlas()
    stack = np.stack([fields[name].ravel() for name in names], axis=1)
    to_head = pose.rotation.T / pose.size[:, None]  # inverse of rotation @ diag(size)
    out = np.empty((*grid.shape, len(names)), dtype=np.float32)
    strides = np.array([ATLAS_SHAPE[1] * ATLAS_SHAPE[2], ATLAS_SHAPE[2], 1])
    yz = [grid.axis(1)[:, None] - pose.shift[1], grid.axis(2)[None, :] - pose.shift[2]]
    for plane, x in enumerate(grid.axis(0) - pose.shift[0]):
        index, parts = 0, []
        for k in range(3):
            head = to_head[k, 0] * x + to_head[k, 1] * yz[0] + to_head[k, 2] * yz[1]
            at = np.clip((head - ATLAS_ORIGIN_MM[k]) / ATLAS_STEP_MM, 0, ATLAS_SHAPE[k] - 1.001)
            low = at.astype(np.int64)
            parts.append((at - low).astype(np.float32).ravel())
            index = index + low * strides[k]
        out[plane] = _trilinear(stack, index.ravel(), parts, strides).reshape(out.shape[1:])
    return {name: np.ascontiguousarray(out[..., i]) for i, name in enumerate(names)}


def _trilinear(stack, index, parts, strides) -> np.ndarray:
    """Values (n, fields) of `stack` between the eight corners at `index`, `parts` of a step on."""
    total = np.zeros((len(index), stack.shape[1]), dtype=np.float32)
    for corner in range(8):
        weight, shift = np.float32(1), 0
        for k in range(3):
            upper = corner >> k & 1
            weight = weight * (parts[k] if upper else 1 - parts[k])
            shift += upper * strides[k]
        total += stack[index + shift] * weight[:, None]
    return total


def head_x(pose: Pose, grid: Grid) -> np.ndarray:
    """Head mm from the midline (right positive) of each voxel, (X, Y, Z) float32."""
    row = pose.rotation[:, 0] / pose.size[0]
    parts = [
        (row[k] * (grid.axis(k) - pose.shift[k])).astype(np.float32).reshape(
            [-1 if a == k else 1 for a in range(3)]
        )
        for k in range(3)
    ]  # fmt: skip
    return parts[0] + parts[1] + parts[2]


def _ellipsoid(x, y, z, centre, axes) -> np.ndarray:
    """Approximate signed distance (mm, positive inside) of an ellipsoid."""
    q = [(v - c) / a for v, c, a in zip((x, y, z), centre, axes, strict=True)]
    rho = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
    slope = np.sqrt(sum((v / a) ** 2 for v, a in zip(q, axes, strict=True))) / np.maximum(rho, 1e-6)
    return (1 - rho) / np.maximum(slope, 1e-6)


def _tube(x, y, z, points, radii) -> np.ndarray:
    """Signed distance (mm, positive inside) of a tube of varying radius along `points`."""
    best = np.full(x.shape, -99.0)
    for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        a, b = np.array(a, float), np.array(b, float)
        along = (x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1] + (z - a[2]) * (b - a)[2]
        t = np.clip(along / ((b - a) ** 2).sum(), 0, 1)
        dist = np.sqrt(sum((v - a[k] - t * (b - a)[k]) ** 2 for k, v in enumerate((x, y, z))))
        best = np.maximum(best, ra + t * (rb - ra) - dist)
    return best


def _depth(x, y, z) -> np.ndarray:
    """Depth below the skin: a rounded box-like vault that narrows slowly towards the neck."""
    half = np.where(z > 8, 79.0, 140.0)
    width = 73 + 2.5 * np.tanh((-(y + 17)) / 40)  # wider at the parietal bones than the forehead
    p = 2.15
    rho = (np.abs(x / width) ** p + np.abs((y + 17) / 93) ** p + np.abs((z - 8) / half) ** p) ** (
        1 / p
    )
    gradient = np.gradient(rho, ATLAS_STEP_MM)
    # |x| has a kink at the midline; the one-sided slope there is zero anyway.
    slope = np.sqrt(sum(g**2 for g in gradient))
    return (1 - rho) / np.maximum(slope, 0.006)


def _base_height(x, y) -> np.ndarray:
    """Height z (mm) of the inner skull base: three fossae, sella, clivus, petrous and wing ridges."""
    x, y = x[:, :, 0], y[:, :, 0]
    middle = np.where(x > 16, -40.0, np.where(y > -10, -33.0, -33 + 1.35 * (y + 10)))
    roof = -23 + 13 * np.exp(-(((x - 32) / 15) ** 2) - ((y - 46) / 22) ** 2)
    height = np.where(y > 20, roof, np.where(y > -26, middle, -60.0))
    height = np.maximum(height, -60.0)
    height = ndimage.gaussian_filter(height, 2.0)
    ridge = np.exp(-(((y + 16 + 0.45 * (x - 12)) / 6) ** 2)) * ((x > 10) & (x < 66))
    wing = np.exp(-(((y - 20 + 0.10 * x) / 5) ** 2)) * ((x > 10) & (x < 55))
    height = np.maximum(height, -60 + 32 * ndimage.gaussian_filter(ridge, 1.2))
    height = height + 7 * ndimage.gaussian_filter(wing, 1.2)
    return ndimage.gaussian_filter(height, 1.0)[:, :, None]


def _ventricles(x, y, z) -> np.ndarray:
    lateral = [(9, 30, 0), (8, 12, 9), (12, -10, 21), (18, -30, 19), (24, -44, 8), (23, -62, 4)]
    temporal = [(24, -42, 6), (33, -28, -10), (30, -12, -18)]
    lateral = _tube(x, y, z, lateral, [4.0, 4.5, 4.5, 5.0, 6.0, 2.5])
    temporal = _tube(x, y, z, temporal, [4.0, 2.0, 1.5])
    third = _ellipsoid(x, y, z, (0, -8, 0), (2.2, 15, 9))
    fourth = _ellipsoid(x, y, z, (0, -44, -33), (7, 5, 9))
    return np.max([lateral, temporal, third, fourth], axis=0)


def _cisterns(x, y, z) -> np.ndarray:
    """Sylvian and interhemispheric fissures, suprasellar, prepontine and ambient cisterns."""
    bounds = np.min([x - 40, 66 - x, y + 34, 18 - y], axis=0)
    sylvian = np.minimum(2.0 - np.abs(z - 2 + 0.45 * y), bounds)
    bulge = 42 - 0.010 * (y + 3) ** 2 - 0.010 * (z - 1) ** 2  # the insula is convex outwards
    insular = np.min([1.1 - np.abs(x - bulge), y + 26, 18 - y, z + 16, 17 - z], axis=0)
    stem = _tube(x, y, z, [(14, 2, -14), (26, 4, -13.5), (38, 3, -14)], [2.5, 0.9, 0.9])
    suprasellar = _ellipsoid(x, y, z, (0, -1, -15), (17, 14, 8))
    ring = np.sqrt((x / 1.12) ** 2 + (y + 24 + 0.2 * x) ** 2)
    ambient = np.min([1.3 - np.abs(ring - 16.5 - 0.12 * z), z + 20, 4 - z, -20 - y], axis=0)
    prepontine = np.min(
        [3.5 - np.abs(y + 14 + 0.55 * (z + 18) * -1), 14 - x, z + 56, -16 - z], axis=0
    )
    above = np.max([z - 32, y - 34, -52 - y], axis=0)
    falx = np.minimum(1.5 - x, above)
    magna = _ellipsoid(x, y, z, (0, -72, -52), (22, 9, 7))
    return np.max([sylvian, insular, stem, suprasellar, ambient, prepontine, falx, magna], axis=0)


def _deep_grey(x, y, z) -> np.ndarray:
    lentiform = _ellipsoid(x, y, z, (24, 1, 1), (6.5, 16, 9))
    caudate = _tube(x, y, z, [(14, 22, 4), (15, 8, 14), (19, -14, 22)], [5.5, 4.5, 2.5])
    thalamus = _ellipsoid(x, y, z, (12, -18, 7), (8, 13, 9))
    bulge = 38.5 - 0.010 * (y + 3) ** 2 - 0.010 * (z - 1) ** 2
    insula = np.min([2.2 - np.abs(x - bulge), y + 24, 18 - y, z + 13, 16 - z], axis=0)
    basal = _tube(x, y, z, [(14, 3, -14), (26, 4, -14), (40, 2, -13)], [4.0, 5.0, 4.0])
    return np.max([lentiform, caudate, thalamus, insula, basal], axis=0)


def _face(x, y, z) -> np.ndarray:
    """HU below the skull base: muscle and fat, orbits with globes, air sinuses, mastoid cells."""
    hu = np.full(x.shape, 30.0)

    def put(level, value):
        nonlocal hu
        share = ramp(level, ATLAS_STEP_MM)
        hu = hu * (1 - share) + value * share

    put(_ellipsoid(x, y, z, (0, 25, -70), (60, 60, 30)), 45)
    put(_ellipsoid(x, y, z, (40, 20, -62), (14, 30, 22)), -40)
    put(_ellipsoid(x, y, z, (33, 46, -31), (18, 26, 18)), 650)
    put(_ellipsoid(x, y, z, (33, 48, -31), (15, 25, 15)), -80)
    put(_ellipsoid(x, y, z, (33, 62, -31), (12, 12, 12)), 18)
    put(_ellipsoid(x, y, z, (27, 42, -62), (16, 18, 16)), 500)
    put(_ellipsoid(x, y, z, (27, 42, -62), (13, 15, 13)), -950)
    put(_ellipsoid(x, y, z, (0, 42, -50), (12, 30, 20)), 250)
    put(_ellipsoid(x, y, z, (6, 42, -50), (4, 27, 17)), -900)
    put(_ellipsoid(x, y, z, (7, 12, -36), (7, 11, 7)), -950)
    put(_ellipsoid(x, y, z, (56, -36, -50), (11, 16, 16)), 250)
    put(_ellipsoid(x, y, z, (57, -20, -46), (8, 4, 4)), -800)
    return hu


def _territories(x, y, z) -> dict[str, np.ndarray]:
    """Minus the scaled distance from the middle of each territory."""

    def near(centre, axes):
        return -np.sqrt(
            sum(((v - c) / a) ** 2 for v, c, a in zip((x, y, z), centre, axes, strict=True))
        )

    mca = near((43, -6, 17), (25, 46, 34))
    aca = near((9, 24, 38), (12, 46, 30)) - 0.30
    return {
        "mca": mca,
        "m2_superior": near((45, 14, 26), (20, 34, 27)),
        "m2_inferior": near((46, -36, 12), (21, 32, 27)),
        "ica": np.maximum(mca, aca),
        "core": near((33, 2, 8), (13, 26, 19)),
    }
