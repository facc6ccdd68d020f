"""The arterial tree as tubes: centre lines in head mm, radii in mm, contrast filling, disease.

A `Tube` is a sampled centre line. `build` makes the circle of Willis with its carotids and the
middle cerebral branches; `Occlusion` and the functions here then close one segment and narrow
others. What lies behind an occlusion is never drawn: the label depends on it.
Calibres follow section 4c of the evidence tables.
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
    venous: bool = False
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


def build(patient: dict, rng: np.random.Generator) -> dict[str, Tube]:
    """The patient's tree before disease; names end in _L or _R except the midline vessels."""
    tree: dict[str, Tube] = {}
    scale = float(np.exp(rng.normal(0, 0.07))) * (1.03 if patient["age"] >= 60 else 1.0)
    excess = 0.15 * np.exp(0.45 * patient["tortuosity_z"])
    for side, sign in (("L", -1.0), ("R", 1.0)):
        _carotid_side(tree, side, np.array([sign, 1.0, 1.0]), scale, excess, rng)
    radius = 1.6 * scale
    tree["BA"] = make_tube("BA", BASILAR, (1.15 * radius, radius), (0.02, rng.uniform(0, 6), 30.0))
    acoa = [tree["A2_L"].points[0], tree["A2_R"].points[0]]
    tree["ACoA"] = make_tube("ACoA", acoa, (0.75, 0.75), fill=0.8)
    return tree


def _carotid_side(tree, side, mirror, scale, excess, rng) -> None:
    """Carotid, middle, anterior and posterior cerebral artery of one side, added to `tree`."""

    def wobble(points, sd=0.8):
        points = np.array(points, dtype=float)
        points[1:-1] += rng.normal(0, sd, points[1:-1].shape)
        return points

    def add(name, points, radii, curve=0.0, wavelength=22.0, fill=1.0):
        wave = (curve, rng.uniform(0, 2 * np.pi), wavelength)
        points = np.asarray(points) * mirror
        radii = (radii[0] * scale, radii[1] * scale)
        tree[f"{name}_{side}"] = make_tube(f"{name}_{side}", points, radii, wave, fill=fill)

    def at(name, share):
        tube = tree[f"{name}_{side}"]
        return tube.points[round(share * (len(tube.points) - 1))] * mirror

    add("ICA", wobble(ICA, 0.6), (2.35, 1.8), 0.35 * excess, 26.0)
    end = np.array([13.0, 2.0, -15.0])
    reach = np.clip(rng.normal(1.0, 0.18), 0.7, 1.4)  # M1 of about 24 (17-34) mm
    shift = (BIFURCATION - end) * (reach - 1) * np.array([0.35, 0.6, 0.6])
    fork = BIFURCATION + shift + rng.normal(0, 0.8, 3)
    middle = end + 0.5 * (fork - end) + [0, 2.0 + rng.normal(0, 1), 1.5 + rng.normal(0, 1)]
    add("M1", [end, middle, fork], (1.58, 1.42), 0.55 * excess, 21.0)
    add(
        "M2_superior",
        np.vstack([fork, wobble(M2_SUPERIOR, 1.2)]),
        (1.2, 0.65),
        0.4 * excess,
        17.0,
        0.9,
    )
    add(
        "M2_inferior",
        np.vstack([fork, wobble(M2_INFERIOR, 1.2)]),
        (1.2, 0.65),
        0.4 * excess,
        17.0,
        0.9,
    )
    for name, (parent, share, points) in MCA_BRANCHES.items():
        add(
            name,
            np.vstack([at(parent, share), wobble(points, 1.6)]),
            (0.85, 0.5),
            0.3 * excess,
            15.0,
            0.8,
        )
    early = np.vstack([at("M1", 0.55), [(31, 8, -20), (38, 14, -25), (46, 10, -27), (52, 2, -25)]])
    add("anterior_temporal", early, (0.7, 0.5), 0.1, 15.0, 0.8)
    slim = 0.55 if rng.random() < 0.10 else 1.0
    add("A1", np.vstack([end, A1]), (1.15 * slim, 1.1 * slim), 0.3 * excess, 16.0, 0.95)
    add("A2", np.vstack([A1[-1], wobble(A2, 0.5)]), (1.0, 0.65), 0.04, 20.0, 0.9)
    fetal = rng.random() < 0.17
    thin = 1.1 if fetal else float(np.clip(rng.normal(0.55, 0.2), 0.2, 1.0))
    basilar_top = np.array(BASILAR[-1], dtype=float)
    add(
        "P1", np.vstack([basilar_top, P1]), ((0.5, 0.5) if fetal else (1.1, 1.05)), 0.03, 20.0, 0.95
    )
    add("P2", np.vstack([P1[-1], wobble(P2, 0.8)]), (1.05, 0.6), 0.04, 20.0, 0.85)
    add("PCoA", [at("ICA", 0.93), (12, -6, -15.5), P1[-1]], (thin, thin), 0.02, 20.0, 0.9)


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
    for tube in tubes:
        tube.venous = True
    return tubes


def distal_to_m1(side: str) -> list[str]:
    """Names of the middle cerebral branches beyond M1 on one side."""
    return [f"{name}_{side}" for name in ("M2_superior", "M2_inferior", *MCA_BRANCHES)]


def occlude(tree: dict[str, Tube], patient: dict, rng: np.random.Generator) -> dict:
    """Close the patient's segment: clot, proximal taper or abrupt end, collateral filling beyond.

    Returns where the occlusion starts and ends (head mm) and its length (mm).
    """
    side = "R" if patient["side"] == 1 else "L"
    site, length, truncal = patient["site"], patient["clot_length_mm"], patient["truncal"] == 1
    trunk = "M2_inferior" if patient["m2_inferior"] else "M2_superior"
    path = {
        "ICA": (f"ICA_{side}", f"M1_{side}", f"{trunk}_{side}"),
        "M1": (f"M1_{side}", f"{trunk}_{side}"),
        "M2": (f"{trunk}_{side}",),
    }[site]
    first = tree[path[0]]
    if truncal:
        # Atherosclerotic: within the trunk, sparing the bifurcation, with a tapered end.
        room = first.length - 3.0 if site != "M2" else 0.6 * first.length
        start = room - min(length, room - 4.0) if site == "ICA" else rng.uniform(0.25, 0.45) * room
        start = max(3.0, min(start, room - length))
        stop = min(start + length, room)
    else:
        # Embolus: lodged across the bifurcation, with an abrupt end.
        before = {"ICA": 0.50, "M1": 0.62, "M2": 0.0}[site] * length
        start = max(1.0, first.length - before) if site != "M2" else rng.uniform(0.8, 3.0)
        stop = start + length
    _dim_beyond(tree, patient, side, site, trunk, truncal, rng)
    _stagnate(first, site, start, patient["collateral"], rng)
    end = _lay_clot(tree, path, start, stop)
    if truncal:
        before = np.clip((start - first.arc) / 5.0, 0, 1)
        beyond = np.clip((first.arc - stop) / 3.0, 0, 1)
        first.radius = first.radius * np.maximum(
            0.35 + 0.65 * np.maximum(before, beyond), first.clot
        )
    else:
        _reach_into_neighbours(tree, patient, side, site, trunk, start, length)
    begin = first.points[np.searchsorted(first.arc, start).clip(0, len(first.points) - 1)]
    return {"start": begin.tolist(), "end": end.tolist(), "length_mm": float(stop - start),
            "vessel": first.name, "truncal": bool(truncal)}  # fmt: skip


def _lay_clot(
    tree: dict[str, Tube], path: tuple[str, ...], start: float, stop: float
) -> np.ndarray:
    """Mark clot from `start` to `stop` mm along consecutive tubes; returns its far end, head mm."""
    offset, end = 0.0, tree[path[0]].points[0]
    for name in path:
        tube = tree[name]
        inside = (tube.arc + offset >= start) & (tube.arc + offset <= stop)
        tube.clot[inside] = 1.0
        if inside.any():
            end = tube.points[np.flatnonzero(inside)[-1]]
        offset += tube.length
        if offset > stop:
            break
    return end


def _reach_into_neighbours(tree, patient, side, site, trunk, start, length) -> None:
    """An embolus at a bifurcation also enters the other branch by a few millimetres."""
    if site == "ICA":
        a1 = tree[f"A1_{side}"]
        a1.clot[a1.arc <= min(5.0, 0.2 * length)] = 1.0
    if site == "M1":
        other = "M2_superior" if trunk == "M2_inferior" else "M2_inferior"
        tube = tree[f"{other}_{side}"]
        tube.clot[tube.arc <= min(5.0, 0.25 * length)] = 1.0


def _quality(collateral: float) -> float:
    """Share of full contrast that collaterals can bring, 0..1."""
    return float(1 / (1 + np.exp(0.1 - collateral)))


def _dim_beyond(tree, patient, side, site, trunk, truncal, rng) -> None:
    """Branches beyond the clot fill through collaterals: better with good ones, from far to near."""
    quality = _quality(patient["collateral"])
    children = [f"{n}_{side}" for n, (parent, *_) in MCA_BRANCHES.items() if parent == trunk]
    names = [f"{trunk}_{side}", *children] if site == "M2" else distal_to_m1(side)
    for name in names:
        tube = tree[name]
        far = tube.arc / max(tube.length, 1.0)
        lost = rng.random() < 0.45 * (1 - quality)
        tube.fill = tube.fill * (0.12 + 0.88 * quality) * (0.55 + 0.45 * far) * (0.3 if lost else 1)
    if site == "M2":
        first = tree[f"{trunk}_{side}"]
        first.fill = np.where(first.arc < 6.0, np.maximum(first.fill, 0.9), first.fill)
    if site == "ICA":
        cross = 0.75 if truncal else 0.25 + 0.2 * quality
        tree[f"M1_{side}"].fill *= cross
        tree[f"A1_{side}"].fill *= 0.85
        tree[f"anterior_temporal_{side}"].fill *= cross
    if site == "M1":
        tree[f"anterior_temporal_{side}"].fill *= 0.5


def _stagnate(
    tube: Tube, site: str, start: float, collateral: float, rng: np.random.Generator
) -> None:
    """Contrast before the clot is full; beyond it within the same vessel only what collaterals bring."""
    beyond = tube.arc > start
    back = 1.0 if site == "M2" else 0.3 + 0.45 * _quality(collateral)
    tube.fill = np.where(beyond, tube.fill * back, tube.fill)
    if site == "ICA":
        standing = rng.uniform(0.35, 0.95)  # a standing column looks like a cervical occlusion
        tube.fill = tube.fill * np.where(beyond, 1.0, standing)


def tandem(tree: dict[str, Tube], patient: dict, rng: np.random.Generator) -> None:
    """A cervical carotid lesion: a slender, weakly filled carotid on its way through the skull."""
    tube = tree["ICA_R" if patient["side"] == 1 else "ICA_L"]
    calibre, flow = rng.uniform(0.45, 0.7), rng.uniform(0.3, 0.75)
    near = np.clip(1.3 - tube.arc / 45.0, 0, 1)
    tube.radius = tube.radius * (1 - (1 - calibre) * near)
    tube.fill = tube.fill * (1 - (1 - flow) * np.clip(near + 0.35, 0, 1))


def other_stenoses(tree: dict[str, Tube], patient: dict, rng: np.random.Generator) -> list[dict]:
    """One or two focal stenoses on vessels that the occlusion does not touch."""
    side = "R" if patient["side"] == 1 else "L"
    far = "L" if side == "R" else "R"
    names = [f"M1_{far}", f"ICA_{far}", "BA", f"P2_{side}", f"P2_{far}", f"A1_{far}"]
    chosen = rng.permutation(len(names))[: 1 + (rng.random() < 0.35)]
    found = []
    for index in chosen:
        tube = tree[names[index]]
        share = rng.uniform(0.72, 0.9) if "ICA" in tube.name else rng.uniform(0.25, 0.6)
        degree, centre = rng.uniform(0.5, 0.8), share * tube.length
        narrowing = 1 - degree * np.exp(-(((tube.arc - centre) / 2.6) ** 2))
        tube.radius = tube.radius * narrowing
        place = tube.points[np.searchsorted(tube.arc, centre)]
        found.append({"vessel": tube.name, "degree": float(degree), "at": place.tolist()})
    return found


def siphon_plaques(tree: dict[str, Tube], patient: dict, rng: np.random.Generator) -> np.ndarray:
    """Calcified plaques of both siphons, rows of (x, y, z head mm, radius mm, HU); (0, 5) if none."""
    rows = []
    for side in ("L", "R"):
        own = (side == "R") == (patient["side"] == 1)
        load = patient["siphon_calcium"] + (0.0 if own else rng.normal(0, 0.5))
        amount = np.clip(load + 0.65, 0, 4)  # none below the cut of grade 0, rising with the latent
        tube = tree[f"ICA_{side}"]
        for _ in range(int(round(3.2 * amount))):
            here = int(len(tube.points) * rng.uniform(0.55, 0.93))
            direction = rng.normal(0, 1, 3)
            direction /= np.sqrt((direction**2).sum())
            spot = tube.points[here] + direction * tube.calibre[here]
            size = np.clip(0.75 + 0.22 * amount + rng.normal(0, 0.15), 0.5, 2.2)
            rows.append([*spot, size, rng.uniform(450, 1000)])
    return np.array(rows).reshape(-1, 5)
