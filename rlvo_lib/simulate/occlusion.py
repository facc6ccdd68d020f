"""The occlusion: an embolus across a bifurcation or a tapered truncal one, and what flows beyond it.

Centre lines in head mm, radii in mm. What lies behind the occlusion (a residual stenosis) is never
drawn: the label depends on it.
"""

from __future__ import annotations

import numpy as np

from rlvo_lib.simulate.arteries import MCA_BRANCHES, Tube, distal_to_m1

TAPER_MM = 5.0  # of the lumen before a truncal occlusion


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
        before = np.clip((start - first.arc) / TAPER_MM, 0, 1)
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
    names = [f"{trunk}_{side}", *children] if site == "M2" else distal_to_m1(tree, side)
    for name in names:
        tube = tree[name]
        far = tube.arc / max(tube.length, 1.0)
        lost = rng.random() < 0.45 * (1 - quality)
        tube.fill = tube.fill * (0.12 + 0.88 * quality) * (0.55 + 0.45 * far) * (0.3 if lost else 1)
    if site == "M2":
        first = tree[f"{trunk}_{side}"]
        first.fill = np.where(first.arc < 6.0, np.maximum(first.fill, 0.9), first.fill)
    cross = 0.75 if truncal else 0.25 + 0.2 * quality
    if site == "ICA":
        tree[f"M1_{side}"].fill *= cross
        tree[f"A1_{side}"].fill *= 0.85
    early = [n for n in (f"anterior_temporal_{side}", f"early_frontal_{side}") if n in tree]
    for name in early:
        tree[name].fill *= {"ICA": cross, "M1": 0.5, "M2": 1.0}[site]


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
