"""The head: one canonical atlas, and each patient's own pose, size, age and folding.

Space: head mm, RAS+ (x right, y anterior, z superior), origin between the commissures, close to
MNI coordinates. `Pose` carries head mm to world mm (RAS+); a scan's `Grid` has its own place in the
world. The atlas holds smooth level sets (mm, positive inside) rather than labels, so that voxels of
any grid get partial volumes and no surface is blocky. It is symmetric: x stands for |x|.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import ndimage

ATLAS_ORIGIN_MM = np.array([-90.0, -120.0, -82.5])
ATLAS_EXTENT_MM = np.array([180.0, 217.5, 182.5])

# Vault thicknesses below the skin, in mm.
SCALP_MM, SKULL_MM = 5.0, 6.5
WHITE_HU, GREY_ABOVE_WHITE_HU, CSF_HU = 28.0, 9.0, 8.0


@dataclass(frozen=True)
class Grid:
    """A voxel grid: shape (X, Y, Z), spacing in mm, centre of voxel 0 in mm of the scanner.

    `tilt_deg` turns the scanner's axes about the patient's left-right axis, as a tilted gantry does.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    tilt_deg: float = 0.0

    @property
    def affine(self) -> np.ndarray:
        """Voxel indices to world mm, (4, 4)."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = self.origin
        if self.tilt_deg:
            turn = np.eye(4)
            turn[:3, :3] = _rotation(np.deg2rad([self.tilt_deg, 0, 0]))
            affine = turn @ affine
        return affine

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(np.prod(self.spacing)) / 1000

    def axis(self, k: int) -> np.ndarray:
        """Scanner mm of the voxel centres along axis `k`."""
        return self.origin[k] + self.spacing[k] * np.arange(self.shape[k])

    def part(self, box: tuple[slice, slice, slice]) -> Grid:
        """The grid of a box of voxels."""
        starts = zip(self.origin, self.spacing, box, strict=True)
        origin = tuple(o + s * b.start for o, s, b in starts)
        return replace(self, shape=tuple(b.stop - b.start for b in box), origin=origin)


def filling(extent_mm: np.ndarray, spacing: tuple, start: tuple, tilt_deg: float = 0.0) -> Grid:
    """The grid of `spacing` mm whose voxels fill a box of `extent_mm` from the corner `start`."""
    shape = tuple(max(2, round(e / s)) for e, s in zip(extent_mm, spacing, strict=True))
    origin = tuple(float(a + s / 2) for a, s in zip(start, spacing, strict=True))
    return Grid(shape, tuple(float(s) for s in spacing), origin, tilt_deg)


def atlas_grid(step_mm: float) -> Grid:
    """The grid of the atlas in head mm."""
    shape = tuple(int(n) for n in np.round(ATLAS_EXTENT_MM / step_mm) + 1)
    return Grid(shape, (step_mm,) * 3, tuple(ATLAS_ORIGIN_MM))


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


def resample(
    volumes: np.ndarray, source: np.ndarray, target: Grid, *, beyond: str = "border"
) -> np.ndarray:
    """Volumes (C, X, Y, Z) float32 with the 4x4 `source` (voxel to world mm), seen on `target`; linear.

    Beyond the source its edge is repeated ("border"), or nothing is there ("zeros").
    """
    return _interpolated(volumes, np.linalg.inv(source) @ target.affine, target.shape, beyond)


def box_of(corners: tuple, affine: np.ndarray, shape: tuple) -> tuple[slice, slice, slice] | None:
    """The voxels of a grid (shape, 4x4 affine) that hold a box ((low, high) mm along x, y, z), or None."""
    ends = np.stack(np.meshgrid(*corners, [1.0], indexing="ij")).reshape(4, -1)
    places = np.einsum("ij,jn->in", np.linalg.inv(affine)[:3], ends)
    low = np.clip(np.floor(places.min(axis=1)), 0, shape).astype(int)
    high = np.clip(np.ceil(places.max(axis=1)) + 1, 0, shape).astype(int)
    if (high <= low).any():
        return None
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _interpolated(volumes: np.ndarray, index: np.ndarray, shape: tuple, beyond: str) -> np.ndarray:
    """Volumes (C, X, Y, Z) at `index` (4x4, target voxel to source voxel)."""
    import torch
    from torch.nn import functional

    def normalised(shape):
        """Voxel indices to the -1..1 of each axis, (4, 4)."""
        scale = 2.0 / np.maximum(np.array(shape) - 1, 1)
        matrix = np.diag([*scale, 1.0])
        matrix[:3, 3] = -1
        return matrix

    map_ = normalised(volumes.shape[1:]) @ index @ np.linalg.inv(normalised(shape))
    order = [2, 1, 0]  # torch counts the last axis first
    theta = np.concatenate([map_[np.ix_(order, order)], map_[order, 3:]], axis=1)
    theta = torch.from_numpy(theta[None].astype(np.float32))
    places = functional.affine_grid(theta, [1, 1, *shape], align_corners=True)
    stack = torch.from_numpy(np.ascontiguousarray(volumes, dtype=np.float32))[None]
    found = functional.grid_sample(
        stack, places, mode="bilinear", padding_mode=beyond, align_corners=True
    )
    return found[0].numpy()


def smooth_noise(grid: Grid, sd_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit variance and correlation length `sd_mm` on `grid`, made coarsely."""
    step = tuple(max(s, sd_mm / 1.2) for s in grid.spacing)
    extent = [s * (n - 1) for s, n in zip(grid.spacing, grid.shape, strict=True)]
    shape = tuple(int(np.ceil(e / s)) + 2 for e, s in zip(extent, step, strict=True))
    coarse = rng.standard_normal(shape, dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, [sd_mm / s for s in step], mode="wrap", truncate=3)
    coarse /= coarse.std()
    if step == grid.spacing:
        return coarse[tuple(slice(n) for n in grid.shape)]
    return resample(coarse[None], Grid(shape, step, grid.origin, grid.tilt_deg).affine, grid)[0]


def rolled_noise(grid: Grid, sd_mm: float, rng: np.random.Generator) -> np.ndarray:
    """As `smooth_noise`, quickly: two periodic fields, kept, moved at random and mixed at random."""
    first, second = (
        np.roll(field, [int(rng.integers(n)) for n in field.shape], axis=(0, 1, 2))
        for field in _periodic_noise(grid.shape, grid.spacing, sd_mm)
    )
    angle = rng.uniform(0, 2 * np.pi)
    return np.float32(np.cos(angle)) * first + np.float32(np.sin(angle)) * second


@lru_cache(maxsize=8)
def _periodic_noise(shape: tuple, spacing: tuple, sd_mm: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)

    def field() -> np.ndarray:
        white = rng.standard_normal(shape, dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, [sd_mm / s for s in spacing], mode="wrap")
        return smooth / smooth.std()

    return field(), field()


@dataclass(frozen=True)
class Head:
    """A patient's head on the atlas grid: fields in head mm, float32, and the layers above the brain.

    depth, base: see `atlas` · csf, grey: share 0..1 · tissue: HU of brain and CSF above the skull base
    and of the face below it · marrow: a unit random field.
    """

    grid: Grid
    pose: Pose
    fields: dict[str, np.ndarray]
    scalp_mm: float
    outer_mm: float  # scalp and skull together

    def on(self, target: Grid, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Fields of the head, or of the atlas, on a scan's grid, (X, Y, Z) float32 each."""
        canonical = atlas(self.grid.spacing[0])
        stack = np.stack([self.fields[n] if n in self.fields else canonical[n] for n in names])
        seen = resample(stack, self.pose.affine @ self.grid.affine, target)
        return dict(zip(names, seen, strict=True))

    def with_loss(self, share: np.ndarray, affine: np.ndarray) -> Head:
        """The same head whose brain has lost a `share` of its density; (X, Y, Z) with its 4x4 to the world."""
        found = np.argwhere(share > 0)
        if not len(found):
            return self
        to_world = self.pose.affine @ self.grid.affine
        ends = tuple(zip(found.min(axis=0) - 1, found.max(axis=0) + 1, strict=True))
        box = box_of(ends, np.linalg.inv(affine) @ to_world, self.grid.shape)
        place = np.eye(4)
        place[:3, 3] = [b.start for b in box]
        shape = tuple(b.stop - b.start for b in box)
        index = np.linalg.inv(affine) @ to_world @ place
        loss = _interpolated(share[None], index, shape, "zeros")[0]
        tissue = self.fields["tissue"].copy()
        tissue[box] *= 1 - loss * (1 - self.fields["csf"][box])
        return replace(self, fields=self.fields | {"tissue": tissue})


def build_head(patient: dict, pose: Pose, step_mm: float, rng: np.random.Generator) -> Head:
    """Folding, atrophy by age, and layers of one patient's head on an atlas grid of `step_mm`."""
    grid, canonical = atlas_grid(step_mm), atlas(step_mm)
    atrophy = float(np.clip(0.45 + (patient["age"] - 70) / 45 + rng.normal(0, 0.15), 0, 1.3))
    scalp = SCALP_MM + rng.normal(0, 0.6)
    outer = scalp + SKULL_MM + rng.normal(0, 0.7)
    width = max(step_mm, 1.5)
    below = canonical["depth"] - np.float32(
        outer + 0.8 + 1.2 * atrophy
    )  # below the brain's surface
    # Sulci are thin sheets where a smooth random field is zero; the ribbon lines them and the brain.
    fold = np.abs(rolled_noise(grid, 4.2, rng))
    surface = ramp(15 - below + 4 * (1 - fold), 5.0)
    sulcus = np.clip(np.float32(1.0 + 0.5 * atrophy) - fold * 4.5, 0, 0.9) * surface
    csf = np.maximum(sulcus, 1 - ramp(below, width))
    csf = np.maximum(csf, ramp(canonical["ventricle"] + np.float32(2.4 * (atrophy - 0.4)), width))
    csf = np.maximum(csf, ramp(canonical["cistern"] + np.float32(0.8 * (atrophy - 0.5)), width))
    csf = np.maximum(csf, 1 - ramp(canonical["base"] - np.float32(1.0), width))
    ribbon = np.clip(2.6 - 3.0 * fold, 0, 1) * ramp(18 - below, 6.0)
    grey = np.maximum(ramp(4.0 - below, width), ribbon)
    grey = np.maximum(grey, ramp(canonical["deep_grey"], width))
    soft = np.float32(WHITE_HU) + np.float32(GREY_ABOVE_WHITE_HU) * grey
    fields = {
        "depth": canonical["depth"],
        "base": canonical["base"],
        "csf": csf,
        "grey": grey,
        # The seam lies in the bone of the base.
        "tissue": np.where(
            canonical["base"] > -2.25,
            soft * (1 - csf) + np.float32(CSF_HU) * csf,
            canonical["face"],
        ),
        "marrow": rolled_noise(grid, 5.0, rng),
    }
    return Head(grid, pose, fields, scalp, outer)


@lru_cache(maxsize=2)
def atlas(step_mm: float) -> dict[str, np.ndarray]:
    """Level sets of the canonical head on `atlas_grid`, float32 (mm; territories without unit).

    depth: below the skin · base: above the skull base · ventricle, cistern, deep_grey: inside them
    · tentorium: above it · face: HU of what lies below the base · mca, m2_superior, m2_inferior,
    ica, aca, pca, core: nearness to the middle of a territory (0 at its middle, negative outwards).
    """
    grid = atlas_grid(step_mm)
    x, y, z = np.meshgrid(np.abs(grid.axis(0)), grid.axis(1), grid.axis(2), indexing="ij")
    fields = {
        "depth": np.clip(_depth(x, y, z, step_mm), -15, 45),
        "base": np.clip(z - _base_height(x, y, step_mm), -25, 25),
        "ventricle": np.clip(_ventricles(x, y, z), -12, 12),
        "cistern": np.clip(_cisterns(x, y, z), -8, 8),
        "deep_grey": np.clip(_deep_grey(x, y, z), -8, 8),
        "tentorium": np.clip(z - np.where(y < -22, -8 - 0.30 * x, -60), -20, 20),
        "face": _face(x, y, z, step_mm),
    } | _territories(x, y, z)
    return {name: field.astype(np.float32) for name, field in fields.items()}


def head_x(pose: Pose, grid: Grid) -> np.ndarray:
    """Head mm from the midline (right positive) of each voxel of a scan, (X, Y, Z) float32."""
    row = (np.linalg.inv(pose.affine) @ grid.affine)[0].astype(np.float32)
    i, j, k = (
        np.arange(n, dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, n in enumerate(grid.shape)
    )
    return row[0] * i + row[1] * j + row[2] * k + row[3]


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


def _depth(x, y, z, step_mm) -> np.ndarray:
    """Depth below the skin: a rounded box-like vault that narrows slowly towards the neck."""
    half = np.where(z > 8, 79.0, 140.0)
    width = 73 + 2.5 * np.tanh((-(y + 17)) / 40)  # wider at the parietal bones than the forehead
    p = 2.15
    rho = (np.abs(x / width) ** p + np.abs((y + 17) / 93) ** p + np.abs((z - 8) / half) ** p) ** (
        1 / p
    )
    gradient = np.gradient(rho, step_mm)
    # |x| has a kink at the midline; the one-sided slope there is zero anyway.
    slope = np.sqrt(sum(g**2 for g in gradient))
    return (1 - rho) / np.maximum(slope, 0.006)


def _base_height(x, y, step_mm) -> np.ndarray:
    """Height z (mm) of the inner skull base: three fossae, sella, clivus, petrous and wing ridges."""
    x, y = x[:, :, 0], y[:, :, 0]

    def blurred(plane, sd_mm):
        return ndimage.gaussian_filter(plane.astype(float), sd_mm / step_mm)

    middle = np.where(x > 16, -40.0, np.where(y > -10, -33.0, -33 + 1.35 * (y + 10)))
    roof = -23 + 13 * np.exp(-(((x - 32) / 15) ** 2) - ((y - 46) / 22) ** 2)
    height = np.where(y > 20, roof, np.where(y > -26, middle, -60.0))
    height = np.maximum(height, -60.0)
    height = blurred(height, 5.0)
    ridge = np.exp(-(((y + 16 + 0.45 * (x - 12)) / 6) ** 2)) * ((x > 10) & (x < 66))
    wing = np.exp(-(((y - 20 + 0.10 * x) / 5) ** 2)) * ((x > 10) & (x < 55))
    height = np.maximum(height, -60 + 32 * blurred(ridge, 3.0))
    height = height + 7 * blurred(wing, 3.0)
    return blurred(height, 2.5)[:, :, None]


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


def _face(x, y, z, step_mm) -> np.ndarray:
    """HU below the skull base: muscle and fat, orbits with globes, air sinuses, mastoid cells."""
    hu = np.full(x.shape, 30.0)

    def put(level, value):
        nonlocal hu
        share = ramp(level, step_mm)
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
        "aca": aca,
        "pca": near((16, -66, 6), (24, 34, 24)) - 0.15,
        "core": near((33, 2, 8), (13, 26, 19)),
    }
