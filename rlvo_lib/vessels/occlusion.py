"""Where the way from a carotid to the middle cerebral branches is interrupted: the occlusion's candidate.

On each side the shortest way is sought from the carotid at the skull base to the branches in the
Sylvian fissure: along the centre lines wherever there are any, and straight across where there is no
lumen. An occluded carotid end or M1 leaves a gap that has to be crossed, whether it shows a stump or
is missing from its origin on, and whether or not collaterals fill the branches beyond it. The side
whose way has more millimetres without a lumen is the candidate's; its place is where the way first
leaves the lumen. What a side lacks altogether, carotid or branches, is taken from the other, mirrored
in the mid-sagittal plane. Two ways alike: no candidate, as with most occlusions beyond the first fork,
which leave another branch open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib.head import HeadFrame

# Where these arteries run in any adult, mm, in generous boxes. Across: from the midline. Along and up:
# from M1 itself, which does not depend on how the head is tilted, and M1 within a share of the head.
MIDLINE_MM = 4.0  # nearer to it: basilar artery, second segments of the anterior cerebral arteries
M1_MM, M1_HEIGHT, M1_SLACK_MM, M1_RADIUS_MM = (15.0, 28.0), -0.55, 20.0, 0.9
CAROTID_MM, CAROTID_DOWN_MM, CAROTID_ALONG_MM, CAROTID_RADIUS_MM = 25.0, (6.0, 40.0), 20.0, 1.2
BRANCHES_MM, BRANCHES_UP_MM, BRANCHES_RADIUS_MM = 25.0, (10.0, 30.0), 0.6
BEHIND_MM = 35.0  # further behind M1: branches of the posterior cerebral artery

BRAIN_HU = 35.0
CLOT_HU = 100.0  # fresh clot has 50 to 90: what is darker is not filled
LEAST_LUMEN_MM = 4.0  # shorter pieces are specks of calcium
REACH_MM = 25.0  # the longest gap crossed at once: an M1's length
MOST_LEAPING = 3000  # points a side that gaps may begin or end at: four times those of a clear scan
DETOUR = 20.0  # so many mm within a lumen rather than one without
LEAST_GAP_MM = 4.0  # what a side lacks more than the other; a tight narrowing hides less of a lumen
SURE_GAP_MM = 8.0
BRIGHT_SHARE, BEYOND_MM = 0.7, 6.0  # of the wide arteries' contrast; taken over so many mm
CORRIDOR_MM, EDGE_SIGMA_MM = 4.0, 0.5
BEND_MM = 15.0  # a carotid's last bends, beyond where the way takes the short cut, measure so much
TIP_MM, CONE = 6.0, 0.7  # of a stump too short for a centre line; the cosine of 45 degrees
NEAR_MM, EDGE_SHARE = 0.6, 0.5  # the wall is at half the lumen's contrast
ICA_MM, ANTERIOR_MM = 17.0, 8.0  # from the midline: no carotid ends further out; the ACA is nearer


@dataclass(frozen=True)
class _Way:
    """The way of one side from carotid to branches.

    places : (n, 3) head mm, own side positive; rows : of `points`, -1 where mirrored from the other
    side; jumps : (n - 1,) mm of each step that has no lumen, 0 for the others.
    """

    places: np.ndarray
    rows: np.ndarray
    jumps: np.ndarray

    @property
    def gap_mm(self) -> float:
        return float(self.jumps.sum())


def find_occlusion(
    points: pd.DataFrame,
    segments: pd.DataFrame,
    frame: HeadFrame,
    cta: np.ndarray,
    affine: np.ndarray,
) -> dict[str, Any]:
    """The candidate: side, x, y, z (world mm), segment, score (0 to 1), and its end; {} if there is none.

    points, segments : as in `network.VesselGraph`, points with hu; cta : (X, Y, Z) HU; affine : 4x4.
    The score is the surplus of missing lumen (gap_mm), full at 8 mm; end_x, end_y, end_z: where the
    lumen resumes beyond the first gap.
    """
    to_head = np.linalg.inv(frame.affine)
    head = points[["x", "y", "z"]].to_numpy(float) @ to_head[:3, :3].T + to_head[:3, 3]
    radius = points["radius_mm"].to_numpy(float)
    m1 = _m1(head, radius, frame)
    if m1 is None:
        return {}
    links = _links(points, segments)
    filled, links = _filled(points, links, head)
    sides = {sign: head * [sign, 1, 1] for sign in (1, -1)}
    ways = {sign: _way(side, radius, filled, links, m1) for sign, side in sides.items()}
    right, left = (
        way or (ways[-sign] and _way(sides[sign], radius, filled, links, m1, ways[-sign].places))
        for sign, way in ways.items()
    )
    if right is None or left is None:
        return {}
    contrast = points["hu"].to_numpy(float) - BRAIN_HU
    arterial = max(1.0, float(np.percentile(contrast[radius > CAROTID_RADIUS_MM], 85)))
    right, left = (
        _without_narrowings(way, sign, contrast / arterial, frame, cta, affine)
        for sign, way in ((1, right), (-1, left))
    )
    surplus = right.gap_mm - left.gap_mm
    if abs(surplus) < LEAST_GAP_MM:
        return {}
    sign, way = (1, right) if surplus > 0 else (-1, left)
    start, ahead = _start(way, sign, head, radius, links)
    resumed = frame.affine[:3, :3] @ (_resumed(way) * [sign, 1, 1]) + frame.affine[:3, 3]
    place = frame.affine[:3, :3] @ start + frame.affine[:3, 3]
    tip = _tip(place, frame.affine[:3, :3] @ ahead, cta, affine)
    lateral = abs(float(to_head[0, :3] @ tip + to_head[0, 3]))
    beyond_t = lateral > ICA_MM or _feeds_anterior(way, sides[sign], links, m1)
    x, y, z = (float(v) for v in tip)
    return {
        "side": "right" if sign > 0 else "left", "x": x, "y": y, "z": z,
        "segment": "M1" if beyond_t else "ICA",
        "score": min(1.0, abs(surplus) / SURE_GAP_MM), "gap_mm": abs(surplus),
        "end_x": float(resumed[0]), "end_y": float(resumed[1]), "end_z": float(resumed[2]),
    }  # fmt: skip


def _m1(head: np.ndarray, radius: np.ndarray, frame: HeadFrame) -> np.ndarray | None:
    """Depth and height (y, z head mm) of the first segments of the middle cerebral arteries."""
    away = np.abs(head[:, 0])
    m1 = (away > M1_MM[0]) & (away < M1_MM[1]) & (head[:, 1] > 0) & (radius > M1_RADIUS_MM)
    m1 &= np.abs(head[:, 2] - M1_HEIGHT * frame.length_mm) < M1_SLACK_MM
    return np.median(head[m1, 1:], axis=0) if m1.any() else None


def _links(points: pd.DataFrame, segments: pd.DataFrame) -> np.ndarray:
    """Pairs of rows of `points` (n, 2) that a lumen joins: neighbours, and ends that share a node."""
    owner = points["segment"].to_numpy()
    inner = np.flatnonzero(owner[1:] == owner[:-1])
    number = segments["segment"].to_numpy()
    rows = np.r_[np.searchsorted(owner, number), np.searchsorted(owner, number, side="right") - 1]
    nodes = np.r_[segments["start"].to_numpy(), segments["end"].to_numpy()]
    order = np.argsort(nodes, kind="stable")
    same = nodes[order][1:] == nodes[order][:-1]
    joints = np.stack([rows[order][:-1][same], rows[order][1:][same]], axis=1)
    return np.concatenate([np.stack([inner, inner + 1], axis=1), joints])


def _filled(
    points: pd.DataFrame, links: np.ndarray, head: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which points lie in a lumen with contrast, bool (n,), and the links between those."""
    from scipy.ndimage import uniform_filter1d

    hu = uniform_filter1d(points["hu"].to_numpy(float), 5, mode="nearest")
    filled = hu > CLOT_HU
    links = links[filled[links].all(axis=1)]
    part = _parts(len(head), links)
    mm = np.bincount(part[links[:, 0]], weights=_lengths(head, links), minlength=len(head))
    filled &= mm[part] >= LEAST_LUMEN_MM
    return filled, links[filled[links].all(axis=1)]


def _lengths(places: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)


def _parts(n: int, links: np.ndarray) -> np.ndarray:
    """Number of the connected part that each of n points belongs to."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(_matrix(n, links, np.ones(len(links))), directed=False)[1]


def _matrix(n: int, pairs: np.ndarray, cost: np.ndarray):
    """Sparse n x n costs; of several for a pair, the least. None is 0, which would be no link."""
    from scipy.sparse import coo_matrix

    low, high = pairs.min(axis=1), pairs.max(axis=1)
    order = np.lexsort((cost, low * n + high))
    low, high, cost = low[order], high[order], np.maximum(cost[order], 1e-6)
    first = np.r_[True, (np.diff(low) != 0) | (np.diff(high) != 0)][: len(low)]
    return coo_matrix((cost[first], (low[first], high[first])), shape=(n, n)).tocsr()


def _way(
    head: np.ndarray, radius: np.ndarray, filled: np.ndarray, links: np.ndarray,
    m1: np.ndarray, other: np.ndarray | None = None,
) -> _Way | None:  # fmt: skip
    """The way with the least missing lumen; None without carotid or branches, or too far apart.

    head : (n, 3), own side positive; other : the other side's way, for what is missing of this one.
    """
    from scipy.sparse.csgraph import dijkstra
    from scipy.spatial import cKDTree

    along, up = head[:, 1] - m1[0], head[:, 2] - m1[1]
    own = filled & (head[:, 0] > MIDLINE_MM) & (along > -BEHIND_MM)
    carotid = own & (head[:, 0] < CAROTID_MM) & (radius > CAROTID_RADIUS_MM)
    carotid &= (up < -CAROTID_DOWN_MM[0]) & (up > -CAROTID_DOWN_MM[1])
    carotid &= np.abs(along) < CAROTID_ALONG_MM
    branch = own & (head[:, 0] > BRANCHES_MM) & (radius > BRANCHES_RADIUS_MM)
    branch &= (up > BRANCHES_UP_MM[0]) & (up < BRANCHES_UP_MM[1])
    rows = np.flatnonzero(own)
    number = np.full(len(head), -1)
    number[rows] = np.arange(len(rows))
    lumen = number[links]
    lumen = lumen[(lumen >= 0).all(axis=1)]
    places, starts, ends = head[rows], number[carotid], number[branch]
    starts = _lowest(starts, places, lumen)
    bare = np.empty((0, 2), dtype=int)
    if other is not None:
        first = len(places)
        places = np.concatenate([places, other])
        rows = np.r_[rows, np.full(len(other), -1)]
        virtual = np.arange(first, len(places))
        bare = np.stack([virtual[:-1], virtual[1:]], axis=1)
        starts = starts if len(starts) else virtual[:1]
        ends = np.r_[ends, virtual[-1:]]  # what is left of the branches can be out of reach
    if not len(starts) or not len(ends):
        return None
    n = len(places)
    some = np.arange(0, n, 1 + n // MOST_LEAPING)
    leaps = some[cKDTree(places[some]).query_pairs(REACH_MM, output_type="ndarray")]
    leaps = np.concatenate([leaps, bare])
    source = np.stack([np.full(len(starts), n), starts], axis=1)
    cost = [_lengths(places, lumen) / DETOUR, _lengths(places, leaps), np.zeros(len(starts))]
    matrix = _matrix(n + 1, np.concatenate([lumen, leaps, source]), np.concatenate(cost))
    away, before = dijkstra(matrix, directed=False, indices=n, return_predecessors=True)
    at = ends[away[ends].argmin()]
    if not np.isfinite(away[at]):
        return None
    path = [at]
    while before[path[-1]] != n:
        path.append(before[path[-1]])
    path = np.array(path[::-1])
    steps = np.sort(np.stack([path[:-1], path[1:]], axis=1), axis=1)
    known = np.isin(steps @ [n, 1], np.sort(lumen, axis=1) @ [n, 1])
    return _Way(places[path], rows[path], np.where(known, 0.0, _lengths(places, steps)))


def _lowest(starts: np.ndarray, places: np.ndarray, lumen: np.ndarray) -> np.ndarray:
    """The lowest of `starts` in each connected part."""
    part = _parts(len(places), lumen)[starts]
    order = np.lexsort((places[starts, 2], part))
    return starts[order][np.unique(part[order], return_index=True)[1]]


def _without_narrowings(
    way: _Way, sign: int, share: np.ndarray, frame: HeadFrame, cta: np.ndarray, affine: np.ndarray
) -> _Way:
    """The way without the gaps that are no occlusion but a lumen too narrow for a centre line.

    Beyond these the artery is as bright as others, and between the ends it is brighter than clot.
    """
    jumps = way.jumps.copy()
    arc = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(way.places, axis=0), axis=1))]
    world = (way.places * [sign, 1, 1]) @ frame.affine[:3, :3].T + frame.affine[:3, 3]
    for at in np.flatnonzero(jumps):
        beyond = way.rows[(arc >= arc[at + 1]) & (arc <= arc[at + 1] + BEYOND_MM)]
        beyond = beyond[beyond >= 0]
        bright = len(beyond) > 0 and float(np.median(share[beyond])) > BRIGHT_SHARE
        if bright and _joined(world[at], world[at + 1], cta, affine):
            jumps[at] = 0.0
    return _Way(way.places, way.rows, jumps)


def _joined(start: np.ndarray, end: np.ndarray, cta: np.ndarray, affine: np.ndarray) -> bool:
    """Whether what is brighter than clot joins two places (world mm), near the line between them."""
    from scipy import ndimage

    box, offset = _box(cta, affine, np.stack([start, end]), CORRIDOR_MM)
    size = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = ndimage.gaussian_filter(box.astype(np.float32), EDGE_SIGMA_MM / size)
    line = end - start
    along = np.clip(offset @ line / (line @ line), 0, 1)
    corridor = np.linalg.norm(offset - along[..., None] * line, axis=-1) < CORRIDOR_MM
    labels = ndimage.label(corridor & (smooth > CLOT_HU), np.ones((3, 3, 3)))[0]
    near = [np.linalg.norm(offset - at, axis=-1) < CORRIDOR_MM / 2 for at in (0 * line, line)]
    ends = [set(np.unique(labels[part])) - {0} for part in near]
    return bool(ends[0] & ends[1])


def _box(
    cta: np.ndarray, affine: np.ndarray, places: np.ndarray, margin_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the scan around places (n, 3) world mm; (..., 3) mm of its voxels from the first."""
    inverse = np.linalg.inv(affine)
    at = places @ inverse[:3, :3].T + inverse[:3, 3]
    margin = margin_mm / np.linalg.norm(affine[:3, :3], axis=0)
    low = np.clip(np.floor(at.min(axis=0) - margin), 0, np.array(cta.shape) - 1).astype(int)
    high = np.clip(np.ceil(at.max(axis=0) + margin) + 1, low + 1, cta.shape).astype(int)
    box = cta[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    index = np.stack(np.meshgrid(*[np.arange(n) for n in box.shape], indexing="ij"), axis=-1)
    return box, (index + low - at[0]) @ affine[:3, :3].T


def _resumed(way: _Way) -> np.ndarray:
    """Where the lumen resumes beyond the way's first true gap, own side positive."""
    least = min(LEAST_GAP_MM, float(way.jumps.max()))
    return way.places[int(np.flatnonzero(way.jumps >= least)[0]) + 1]


def _start(
    way: _Way, sign: int, head: np.ndarray, radius: np.ndarray, links: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the way's first true gap begins (head mm), and the direction there.

    From a bend the way leaves the lumen before its end: where all that follows lies within
    `BEND_MM`, the far end of that is taken.
    """
    from scipy.sparse.csgraph import dijkstra

    least = min(LEAST_GAP_MM, float(way.jumps.max()))
    at = int(np.flatnonzero(way.jumps >= least)[0])
    row = int(way.rows[at])
    here, there = way.places[at] * [sign, 1, 1], way.places[at + 1] * [sign, 1, 1]
    if row < 0:
        return here, np.zeros(3)
    past = way.rows[max(0, at - 6) : at]
    onward = links[~np.isin(links, past).any(axis=1)]
    matrix = _matrix(len(head), onward, _lengths(head, onward))
    away, before = dijkstra(matrix, directed=False, indices=row, return_predecessors=True)
    rest = np.flatnonzero(np.isfinite(away))
    if at and np.linalg.norm(head[rest] - here, axis=1).max() < BEND_MM:
        wide = rest[radius[rest] > 0.5 * radius[row]]
        end = int(wide[away[wide].argmax()])
        back = end
        while away[end] - away[back] < 4.0 and before[back] >= 0:
            back = before[back]
        if back != end:
            here, there = head[end], 2 * head[end] - head[back]
    return here, (there - here) / max(float(np.linalg.norm(there - here)), 1e-9)


def _feeds_anterior(way: _Way, head: np.ndarray, links: np.ndarray, m1: np.ndarray) -> bool:
    """Whether the carotid that the way begins in goes on, on its own side, into the anterior cerebral artery."""
    own = links[(head[links, 0] > MIDLINE_MM).all(axis=1)]
    part = _parts(len(head), own)
    anterior = (head[:, 0] > MIDLINE_MM) & (head[:, 0] < ANTERIOR_MM)
    anterior &= (head[:, 1] > m1[0]) & (head[:, 2] > m1[1] - CAROTID_DOWN_MM[0])
    row = int(way.rows[0])
    return row >= 0 and bool(anterior[part == part[row]].any())


def _tip(place: np.ndarray, ahead: np.ndarray, cta: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The end of the lumen before `place` in the direction `ahead` (world mm), where there is one.

    The farthest voxel, by the direction, of those over half the contrast that are connected with the
    place and lie within 6 mm and 45 degrees of it.
    """
    from scipy import ndimage

    if not ahead.any():
        return place
    box, offset = _box(cta, affine, place[None], TIP_MM)
    length = np.linalg.norm(offset, axis=-1)
    forward = offset @ ahead
    near = length < NEAR_MM + np.linalg.norm(affine[:3, :3], axis=0).max() / 2
    lumen = float(np.median(box[near])) - BRAIN_HU
    lumen = box > BRAIN_HU + EDGE_SHARE * lumen
    cone = (length < TIP_MM) & (forward > CONE * length) | near
    labels = ndimage.label(lumen & cone)[0]
    mine = np.isin(labels, np.setdiff1d(labels[near & lumen], 0))
    if not mine.any():  # nothing at the place is brighter than half of its own contrast
        return place
    far = np.flatnonzero(mine)[forward[mine].argmax()]
    return place + offset.reshape(-1, 3)[far]
