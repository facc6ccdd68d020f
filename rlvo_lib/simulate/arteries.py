"""The arterial tree as tubes: centre lines in head mm, radii in mm, contrast filling, disease.

A `Tube` is a sampled centre line. `build` makes the circle of Willis with its carotids and the
middle cerebral branches, in the frequent variants; `wall` and `occlusion` then narrow and close.
Calibres and the length of M1 are published means (evidence tables, section 4c); at a fork the cubes of the
radii add up (Murray 1926). M2 runs on as M3, A2 as A3, and the basilar artery begins with a vertebral
one: they are longer than the segments they are named for. Contrast falls by a tenth from one generation to the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import CubicHermiteSpline

STEP_MM = 0.7

# Centre lines for the right side (x > 0), head mm.
ICA = [
    (25, -19, -62), (25, -20, -50), (21, -17, -43), (14, -11, -38), (12, -10, -31), (12, -2, -27),
    (12, 7, -26), (12, 10, -21), (12, 5, -17.5), (13, 2, -15),
]  # fmt: skip
TERMINUS = np.array([13.0, 2.0, -15.0])  # of the internal carotid
BIFURCATION = np.array([37.0, 3.0, -14.5])
M2_SUPERIOR = [(40, 8, -7), (41, 11, 4), (41.5, 10, 14), (47, 8, 19), (53, 4, 26), (53, 0, 37)]
M2_INFERIOR = [
    (41, -3, -9),
    (41.5, -14, 1),
    (42, -24, 10),
    (48, -33, 16),
    (54, -42, 21),
    (52, -50, 31),
]
M2_MIDDLE = [(42, 1, -8), (42.5, -2, 3), (43, -6, 13), (50, -18, 20), (54, -24, 30)]
ANTERIOR_TEMPORAL = [(31, 8, -20), (38, 14, -25), (46, 10, -27), (52, 2, -25)]
EARLY_FRONTAL = [(33, 11, -8), (39, 22, -2), (44, 31, 6), (45, 37, 16)]
MCA_BRANCHES = {
    "frontal": ("M2_superior", 0.30, [(41, 19, 6), (45, 27, 10), (47, 31, 19), (44, 32, 29)]),
    "rolandic": ("M2_superior", 0.42, [(43, 0, 16), (50, -6, 18), (56, -9, 27), (54, -12, 38)]),
    "temporal": ("M2_inferior", 0.18, [(45, -12, -8), (53, -18, -11), (57, -30, -6)]),
    "angular": ("M2_inferior", 0.48, [(47, -32, 4), (55, -44, 3), (53, -57, 10), (47, -67, 19)]),
}
A1 = [(10, 6, -13), (5, 10, -12), (2.5, 13, -11)]
A2 = [(2.5, 22, -8), (2.5, 34, 3), (2.5, 37, 16), (2.5, 28, 31), (2.5, 8, 40), (2.5, -20, 42)]
BASILAR = [(0, -27, -62), (0, -22, -48), (0, -17, -34), (0, -16, -22), (0, -17, -17)]
P1 = [(6, -17, -15), (11, -16, -14)]
P2 = [(17, -22, -11), (19, -33, -6), (16, -48, -1), (13, -66, 2), (12, -84, 4)]
SAGITTAL_SINUS = [
    (0, 56, 30),
    (0, 40, 55),
    (0, 15, 69),
    (0, -22, 71),
    (0, -57, 59),
    (0, -84, 32),
    (0, -93, 6),
]
TRANSVERSE_SINUS = [
    (0, -92, 2),
    (28, -85, -6),
    (50, -62, -14),
    (56, -46, -22),
    (50, -42, -36),
    (41, -42, -54),
]
STRAIGHT_SINUS = [(0, -32, 9), (0, -50, 11), (0, -72, 8), (0, -91, 4)]


@dataclass
class Tube:
    """A sampled vessel: points (n, 3) head mm; radius (n,) mm; fill (n,) share of full contrast;
    clot (n,) 0 or 1; calibre: radius before disease."""

    name: str
    points: np.ndarray
    radius: np.ndarray
    fill: np.ndarray
    clot: np.ndarray = field(init=False)
    calibre: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.clot = np.zeros(len(self.points))
        self.calibre = self.radius.copy()

    @property
    def arc(self) -> np.ndarray:
        """Arc length from the start, mm."""
        steps = np.sqrt((np.diff(self.points, axis=0) ** 2).sum(axis=1))
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def length(self) -> float:
        """Length of the centre line, mm."""
        return float(self.arc[-1])


def make_tube(
    name: str,
    controls: list | np.ndarray,
    radii: tuple[float, float],
    wave: tuple[float, float, float] = (0.0, 0.0, 20.0),
    **options,
) -> Tube:
    """A smooth tube through `controls` (head mm), its radius going linearly between `radii`.

    `wave` is (arc/chord - 1 to add, phase in radians, wavelength in mm): a sine across the
    centre line whose amplitude a gives arc/chord of about 1 + (pi a / wavelength)^2.
    """
    controls = np.asarray(controls, dtype=float)
    knots = np.concatenate([[0], np.cumsum(np.sqrt((np.diff(controls, axis=0) ** 2).sum(axis=1)))])
    s = np.linspace(0, knots[-1], max(4, int(np.ceil(knots[-1] / STEP_MM)) + 1))
    tangents = np.gradient(controls, knots, axis=0)
    points = CubicHermiteSpline(knots, controls, tangents)(s)
    excess, phase, wavelength = wave
    if excess > 0:
        amplitude = wavelength / np.pi * np.sqrt(excess)
        window = np.clip(np.minimum(s, s[-1] - s) / 5, 0, 1)
        angle = 2 * np.pi * s / wavelength + phase
        points[:, 1] += amplitude * window * np.sin(angle)
        points[:, 2] += 0.7 * amplitude * window * np.cos(1.3 * angle)
    radius = np.interp(s, [0, s[-1]], radii)
    fill = np.full(len(s), options.pop("fill", 1.0))
    return Tube(name, points, radius, fill, **options)


def murray(parent: float, shares: list[float]) -> list[float]:
    """Radii of the branches of a vessel of radius `parent` mm, by their shares of its flow.

    r0^3 = r1^3 + r2^3 (Murray, Proc Natl Acad Sci 1926).

    >>> [round(r, 3) for r in murray(1.5, [0.5, 0.5])]
    [1.191, 1.191]
    """
    total = sum(shares)
    return [float(parent * (share / total) ** (1 / 3)) for share in shares]


def build(patient: dict, rng: np.random.Generator) -> dict[str, Tube]:
    """The patient's tree before disease; names end in _L or _R except the midline vessels."""
    tree: dict[str, Tube] = {}
    scale = float(np.exp(rng.normal(0, 0.07))) * (1.03 if patient["age"] >= 60 else 1.0)
    excess = 0.15 * np.exp(0.45 * patient["tortuosity_z"])
    radius = 1.6 * scale
    tree["BA"] = make_tube("BA", BASILAR, (1.15 * radius, radius), (0.02, rng.uniform(0, 6), 30.0))
    for side, sign in (("L", -1.0), ("R", 1.0)):
        _Side(tree, side, scale, excess, np.array([sign, 1.0, 1.0]), rng).grow()
    if rng.random() < 0.93:  # else the circle is open in front
        ends = [tree["A2_L"].points[0], tree["A2_R"].points[0]]
        tree["ACoA"] = make_tube("ACoA", ends, (0.75, 0.75), fill=0.8)
    return tree


@dataclass
class _Side:
    """One side of the tree while it grows: carotid, middle, anterior and posterior artery."""

    tree: dict[str, Tube]
    side: str
    scale: float  # of calibres
    excess: float  # arc / chord - 1
    mirror: np.ndarray
    rng: np.random.Generator

    def wobble(self, points: list, sd: float = 0.8) -> np.ndarray:
        points = np.array(points, dtype=float)
        points[1:-1] += self.rng.normal(0, sd, points[1:-1].shape)
        return points

    def add(self, name, points, radii, curve=0.0, wavelength=22.0, fill=1.0) -> None:
        """A vessel through `points` (right side, head mm) of `radii` (start, end; mm)."""
        wave = (curve, self.rng.uniform(0, 2 * np.pi), wavelength)
        points = np.asarray(points) * self.mirror
        radii = (radii[0] * self.scale, radii[1] * self.scale)
        name = f"{name}_{self.side}"
        self.tree[name] = make_tube(name, points, radii, wave, fill=fill)

    def at(self, name: str, share: float) -> np.ndarray:
        """The point at a share of a vessel's length, right side."""
        tube = self.tree[f"{name}_{self.side}"]
        return tube.points[round(share * (len(tube.points) - 1))] * self.mirror

    def grow(self) -> None:
        """All vessels of the side."""
        self.add("ICA", self.wobble(ICA, 0.6), (2.35, 1.8), 0.35 * self.excess, 26.0)
        hypoplastic = 0.55 if self.rng.random() < 0.10 else 1.0  # of the A1
        m1, a1 = murray(1.8, [0.72, 0.28])
        self._middle(m1)
        end = TERMINUS
        a1 = a1 * hypoplastic
        self.add("A1", np.vstack([end, A1]), (a1, 0.95 * a1), 0.3 * self.excess, 16.0, 0.95)
        self.add("A2", np.vstack([A1[-1], self.wobble(A2, 0.5)]), (1.0, 0.65), 0.04, 20.0, 0.9)
        self._posterior()

    def _middle(self, radius: float) -> None:
        """M1, two or three M2 trunks, their branches and an anterior temporal artery."""
        rng, excess = self.rng, self.excess
        reach = np.clip(rng.normal(0.80, 0.20), 0.4, 1.2)  # M1 of about 22 (12-34) mm
        fork = TERMINUS + reach * (BIFURCATION - TERMINUS) + rng.normal(0, 0.8, 3)
        middle = TERMINUS + 0.5 * (fork - TERMINUS)
        middle = middle + [0, 2.0 + rng.normal(0, 1), 1.5 + rng.normal(0, 1)]
        m1 = (radius, 0.94 * radius)
        self.add("M1", [TERMINUS, middle, fork], m1, 0.55 * excess, 21.0, 0.90)
        dominance = np.clip(rng.normal(0.5, 0.07), 0.35, 0.65)
        shares = [dominance, 1 - dominance]
        three = rng.random() < 0.12
        trunks = [("M2_superior", M2_SUPERIOR), ("M2_inferior", M2_INFERIOR)]
        if three:
            shares, trunks = [*shares, 0.35], [*trunks, ("M2_middle", M2_MIDDLE)]
        radii = murray(0.94 * radius, shares)
        for (name, points), start in zip(trunks, radii, strict=True):
            course = np.vstack([fork, self.wobble(points, 1.2)])
            self.add(name, course, (start, 0.54 * start), 0.4 * excess, 17.0, 0.82)
        for name, (parent, share, points) in MCA_BRANCHES.items():
            course = np.vstack([self.at(parent, share), self.wobble(points, 1.6)])
            self.add(name, course, (0.85, 0.5), 0.3 * excess, 15.0, 0.74)
        course = np.vstack([self.at("M1", 0.55), ANTERIOR_TEMPORAL])
        self.add("anterior_temporal", course, (0.7, 0.5), 0.1, 15.0, 0.8)
        if rng.random() < 0.08:
            course = np.vstack([self.at("M1", 0.6), EARLY_FRONTAL])
            self.add("early_frontal", course, (0.85, 0.55), 0.2, 15.0, 0.85)

    def _posterior(self) -> None:
        """P1, P2 and the posterior communicating artery: fetal, slender or lacking in many."""
        fetal = self.rng.random() < 0.17
        radius = float(self.rng.normal(0.50, 0.2))
        top = np.array(BASILAR[-1], dtype=float)
        p1 = (0.5, 0.5) if fetal else (1.1, 1.05)
        self.add("P1", np.vstack([top, P1]), p1, 0.03, 20.0, 0.95)
        course = np.vstack([P1[-1], self.wobble(P2, 0.8)])
        self.add("P2", course, (1.05, 0.6), 0.04, 20.0, 0.85)
        if fetal or radius > 0.35:
            radius = 1.1 if fetal else min(radius, 1.0)
            course = [self.at("ICA", 0.93), (12, -6, -15.5), P1[-1]]
            self.add("PCoA", course, (radius, radius), 0.02, 20.0, 0.9)


def veins(rng: np.random.Generator) -> list[Tube]:
    """Dural sinuses and deep veins; the right transverse sinus is often the larger."""
    right = 2.6 + 1.0 * rng.random()
    tubes = [
        make_tube("sagittal", SAGITTAL_SINUS, (2.2, 4.0)),
        make_tube("straight", STRAIGHT_SINUS, (2.0, 2.6)),
    ]
    for side, sign, radius in (("L", -1, 5.4 - right), ("R", 1, right)):
        points = np.array(TRANSVERSE_SINUS, float) * [sign, 1, 1]
        tubes.append(make_tube(f"transverse_{side}", points, (radius, radius + 0.5)))
        inner = [(2.5 * sign, 5, 11), (2.5 * sign, -15, 15), (0, -32, 9)]
        tubes.append(make_tube(f"internal_cerebral_{side}", inner, (0.8, 1.1)))
    return tubes


def distal_to_m1(tree: dict[str, Tube], side: str) -> list[str]:
    """Names of the middle cerebral branches beyond M1 on one side."""
    names = ("M2_superior", "M2_inferior", "M2_middle", *MCA_BRANCHES)
    return [f"{name}_{side}" for name in names if f"{name}_{side}" in tree]
