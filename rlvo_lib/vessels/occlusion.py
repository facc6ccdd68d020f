"""Where a large artery ends too early: the candidate for the occlusion.

A wide, bright centre line that ends inside the scan, leads back to the neck on its own side, and has
dark tissue before it instead of bone, while the other side goes on: that is what an occluded carotid or
middle cerebral artery leaves in a CTA. Ends at the edge of the scan, at bone (a carotid of the bone's own
density), and those whose vessel goes on as brightly after a short gap (a narrowing too fine to see)
are not candidates. No candidate is a valid answer, and the usual one for occlusions beyond M1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib.head import HeadFrame

LEAST_RADIUS_MM = 1.2
LEAST_SHARE, MOST_SHARE = (
    0.35,
    1.2,
)  # of the wide arteries' enhancement; a standing column of contrast is dim
LAST_MM, DIRECTION_MM = 6.0, 4.0  # of a centre line, where its calibre and its direction are taken
LATERAL_MM = (4.0, 50.0)  # from the midline
TIP_SHARE = 0.5  # a skeleton ends so many radii before the tip
DARK_HU, BONE_HU = 120.0, 300.0
AHEAD_MM = 5.0
DOWN_MM = 10.0  # a proximal end leads down by at least so much
GAP_MM, GAP_SHARE = 13.0, 0.7
MIRROR_MM, MISSING_MM, ENOUGH_MM = 14.0, 4.0, 8.0
LEAST_SCORE = 0.25


@dataclass(frozen=True)
class _End:
    """One end of a tree: its tip (world mm, head mm), direction, calibre and enhancement."""

    tip: np.ndarray
    head: np.ndarray
    direction: np.ndarray
    radius_mm: float
    share: float
    component: int


def find_occlusion(
    points: pd.DataFrame,
    segments: pd.DataFrame,
    frame: HeadFrame,
    cta: np.ndarray,
    affine: np.ndarray,
) -> dict[str, Any]:
    """The likeliest proximal end: side, x, y, z (world mm), segment, score (0 to 1); {} if there is none.

    points, segments : as in `network.VesselGraph`, points with hu; cta : (X, Y, Z) HU.
    """
    wide = points["radius_mm"] > LEAST_RADIUS_MM
    if not wide.any():
        return {}
    brain = 35.0
    arterial = float(np.percentile(points["hu"][wide], 85)) - brain
    lines = points.assign(share=(points["hu"] - brain) / max(arterial, 1.0))
    lines["component"] = lines["segment"].map(segments.set_index("segment")["component"])
    steps = lines.groupby("segment")["arc_mm"].diff()
    lines["step_mm"] = steps.fillna(0.0)
    to_head = np.linalg.inv(frame.affine)
    head = lines[["x", "y", "z"]].to_numpy(float) @ to_head[:3, :3].T + to_head[:3, 3]
    ends = _ends(lines, segments, to_head)
    scored = [(_score(end, ends, lines, head, cta, affine), i) for i, end in enumerate(ends)]
    score, best = max(scored, default=(0.0, -1), key=lambda pair: pair[0])
    if score < LEAST_SCORE:
        return {}
    end = ends[best]
    x, y, z = (float(v) for v in end.tip)
    side = "right" if end.head[0] > 0 else "left"
    return {
        "side": side, "x": x, "y": y, "z": z, "segment": _segment(end, lines, head), "score": score,
    }  # fmt: skip


def _ends(lines: pd.DataFrame, segments: pd.DataFrame, to_head: np.ndarray) -> list[_End]:
    """All loose ends, their tip a radius beyond the skeleton's, which stops short of it."""
    nodes = segments[["start", "end"]].to_numpy()
    met = np.bincount(nodes.ravel())
    values = lines[["x", "y", "z", "arc_mm", "radius_mm", "share"]].to_numpy(float)
    owner, component = lines["segment"].to_numpy(), lines["component"].to_numpy()
    found = []
    for number, pair in zip(segments["segment"].to_numpy(), nodes, strict=True):
        rows = np.arange(*np.searchsorted(owner, (number, number + 1)))
        for node, order in zip(pair, (rows, rows[::-1]), strict=True):
            if met[node] != 1:
                continue
            part = values[order]
            away = np.abs(part[:, 3] - part[0, 3])
            radius, share = np.median(part[away <= LAST_MM, 4:], axis=0)
            back = part[min(len(part) - 1, int(np.searchsorted(away, DIRECTION_MM))), :3]
            length = float(np.linalg.norm(part[0, :3] - back))
            direction = (part[0, :3] - back) / length if length > 0 else np.zeros(3)
            tip = part[0, :3] + direction * TIP_SHARE * radius
            head = to_head[:3, :3] @ tip + to_head[:3, 3]
            turned = to_head[:3, :3] @ direction
            found.append(
                _End(tip, head, turned, float(radius), float(share), int(component[rows[0]]))
            )
    return found


def _score(
    end: _End, ends: list[_End], lines: pd.DataFrame, head: np.ndarray,
    cta: np.ndarray, affine: np.ndarray,
) -> float:  # fmt: skip
    """0 to 1: how much an end looks like an occlusion of its vessel."""
    if end.radius_mm < LEAST_RADIUS_MM or not LEAST_SHARE < end.share < MOST_SHARE:
        return 0.0
    if not LATERAL_MM[0] < abs(end.head[0]) < LATERAL_MM[1]:
        return 0.0
    if not _dark_ahead(end, cta, affine) or not _leads_down(end, lines, head):
        return 0.0
    if _goes_on(end, ends):
        return 0.0
    missing = _missing(end, lines, head)
    calibre = min(1.0, end.radius_mm / 1.6)
    return float(calibre * min(1.0, end.share / 0.6) * (0.2 + 0.8 * missing))


def _dark_ahead(end: _End, cta: np.ndarray, affine: np.ndarray) -> bool:
    """Whether soft tissue, and neither bone nor the scan's edge, lies before the tip."""
    from scipy import ndimage

    world = end.tip
    inverse = np.linalg.inv(affine)
    size = np.linalg.norm(affine[:3, :3], axis=0)
    at = inverse[:3, :3] @ world + inverse[:3, 3]
    if (np.minimum(at, np.array(cta.shape) - 1 - at) * size < 2.5).any():
        return False
    low = np.maximum(np.floor(at - AHEAD_MM / size), 0).astype(int)
    high = np.minimum(np.ceil(at + AHEAD_MM / size) + 1, cta.shape).astype(int)
    box = cta[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    soft = ndimage.uniform_filter(box.astype(np.float32), 3, mode="nearest")
    return float(np.mean(soft < DARK_HU)) > 0.35 and float(np.mean(soft > BONE_HU + 250)) < 0.2


def _leads_down(end: _End, lines: pd.DataFrame, head: np.ndarray) -> bool:
    own = (lines["component"] == end.component).to_numpy() & (head[:, 0] * end.head[0] > 0)
    own &= np.abs(head[:, 0]) > LATERAL_MM[0]
    return bool(own.any()) and end.head[2] - float(head[own, 2].min()) >= DOWN_MM


def _goes_on(end: _End, ends: list[_End]) -> bool:
    """Whether another wide end, as bright, faces this one across a short gap."""
    for other in ends:
        gap = other.head - end.head
        length = float(np.linalg.norm(gap))
        alike = other.radius_mm > 0.6 * end.radius_mm and other.share > GAP_SHARE * end.share
        if other is end or length > GAP_MM or not alike:
            continue
        ahead = float(gap @ end.direction) > 0.3 * length
        if ahead and float(other.direction @ end.direction) < 0:
            return True
    return False


def _missing(end: _End, lines: pd.DataFrame, head: np.ndarray) -> float:
    """How much of the other side's wide arteries around the mirrored tip this side lacks, 0 to 1."""
    from scipy.spatial import cKDTree

    mirrored = head * [-1, 1, 1]
    other = (head[:, 0] * end.head[0] < 0) & (lines["radius_mm"] > 0.9).to_numpy()
    other &= np.abs(head[:, 0]) > LATERAL_MM[0]
    beyond = mirrored - end.head
    other &= np.linalg.norm(beyond, axis=1) < MIRROR_MM
    if other.sum() < 3:
        return 0.0
    usual = float(lines["share"][other].median())
    bright = (lines["share"] > 0.6 * usual).to_numpy()
    same = bright & (head[:, 0] * end.head[0] > 0)
    if not same.any():
        return 1.0
    away = cKDTree(head[same]).query(mirrored[other])[0]
    return min(1.0, float(lines["step_mm"][other][away > MISSING_MM].sum()) / ENOUGH_MM)


def _segment(end: _End, lines: pd.DataFrame, head: np.ndarray) -> str:
    """ICA or M1, by general anatomy: M1 begins where the artery turns outwards, 15 mm off the midline."""
    return "M1" if abs(end.head[0]) > 17 else "ICA"
