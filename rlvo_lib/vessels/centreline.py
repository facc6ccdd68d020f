"""Centre lines of a vessel mask: a skeleton, cut at its forks into segments, with the calibre along them.

A segment is a chain of points between two ends or forks. Points are world mm (RAS+); calibres are radii
in mm. The radius is that of the tube whose volume the mask has there: each voxel of the mask belongs
to the nearest point of the skeleton, and r = sqrt(V / (pi L)) over a few neighbouring points, which has
no floor at half a voxel as the distance to the wall has.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

POINTS = ["segment", "x", "y", "z", "radius_mm", "arc_mm"]
SEGMENTS = ["segment", "start", "end", "length_mm", "chord_mm", "radius_mm", "component"]
SPUR_RADII = 1.5  # an end segment shorter than so many radii of its parent is no vessel
WINDOW = 5  # points over which calibre and course are averaged


def centre_lines(mask: np.ndarray, affine: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Points and segments of a mask, bool (X, Y, Z), with its 4x4 affine; both may be empty.

    points : segment, x, y, z (world mm), radius_mm, arc_mm (from the segment's start).
    segments : segment, start and end (node numbers; two segments that share one meet there),
    length_mm, chord_mm, radius_mm (median), component (number of the connected tree).
    """
    if not mask.any():
        return pd.DataFrame(columns=POINTS), pd.DataFrame(columns=SEGMENTS)
    filled = np.argwhere(mask)
    first = filled.min(axis=0)
    stop = filled.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
    skeleton = np.argwhere(_skeleton(np.pad(mask[box], 1))) - 1 + first
    places = skeleton @ affine[:3, :3].T + affine[:3, 3]
    links = _links(skeleton, places)
    volume = _volumes(filled @ affine[:3, :3].T + affine[:3, 3], places, affine)
    for _ in range(2):
        chains = _chains(len(places), links)
        keep = _without_spurs(chains, places, volume, len(places))
        if keep.all():
            break
        volume, places, links = _thinned(volume, places, links, keep)
    return _tables(_chains(len(places), links), places, volume, links)


def _skeleton(mask: np.ndarray) -> np.ndarray:
    """Thinned mask (Lee, 1994) with at least a voxel in each connected part.

    The algorithm erases a part that is symmetric about the faces of its voxels (a straight tube four
    voxels wide): such a part is thinned again without its first layer of voxels.
    """
    from scipy import ndimage
    from skimage.morphology import skeletonize

    cube = np.ones((3, 3, 3))
    skeleton = skeletonize(mask)
    labels, n = ndimage.label(mask, structure=cube)
    for axes in ((0,), (1,), (0, 1), (0, 1, 2)):
        lost = np.bincount(labels[skeleton], minlength=n + 1) == 0
        lost[0] = False
        if not lost.any():
            return skeleton
        part = lost[labels]
        for axis in axes:
            part &= np.roll(part, 1, axis)
        skeleton |= skeletonize(part)
    lost = np.bincount(labels[skeleton], minlength=n + 1) == 0
    for k in np.flatnonzero(lost[1:]) + 1:
        places = np.argwhere(labels == k)
        away = ((places - places.mean(axis=0)) ** 2).sum(axis=1)
        skeleton[tuple(places[away.argmin()])] = True
    return skeleton


def _links(skeleton: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pairs of neighbouring voxels (n, 2), without the long sides of small triangles."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(skeleton).query_pairs(1.8, output_type="ndarray")
    if not len(pairs):
        return pairs
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    length = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    n = len(skeleton)
    tree = minimum_spanning_tree(coo_matrix((length, (pairs[:, 0], pairs[:, 1])), shape=(n, n)))
    tree = tree.tocoo()
    chosen = np.stack([tree.row, tree.col], axis=1)
    return np.concatenate([chosen, _closing(pairs, chosen, n)])


def _closing(pairs: np.ndarray, tree: np.ndarray, n: int) -> np.ndarray:
    """Links that close a ring of more than a few voxels (the circle of Willis), left out by the tree."""
    from scipy.sparse import coo_matrix

    ones = np.ones(len(tree), dtype=np.int32)
    near = coo_matrix((ones, (tree[:, 0], tree[:, 1])), shape=(n, n)).tocsr()
    near = near + near.T
    reach = near.copy()
    for _ in range(3):
        reach = ((reach @ near) + reach + near).astype(bool).astype(np.int32)
    rest = pairs[np.asarray(reach[pairs[:, 0], pairs[:, 1]]).ravel() == 0]
    rings = []
    seen: set[int] = set()
    for a, b in rest.tolist():  # one link a place is enough
        if a not in seen and b not in seen:
            rings.append((a, b))
            seen |= {a, b, *near[a].indices.tolist(), *near[b].indices.tolist()}
    return np.array(rings, dtype=int).reshape(-1, 2)


def _volumes(filled: np.ndarray, places: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Volume of the mask (mm3) that belongs to each point of the skeleton."""
    from scipy.spatial import cKDTree

    nearest = cKDTree(places).query(filled)[1]
    counts = np.bincount(nearest, minlength=len(places))
    return counts * abs(float(np.linalg.det(affine[:3, :3])))


def _chains(n: int, links: np.ndarray) -> list[list[int]]:
    """Paths between ends and forks, as lists of points; rings without a fork begin anywhere."""
    near: list[list[int]] = [[] for _ in range(n)]
    for a, b in links.tolist():
        near[a].append(b)
        near[b].append(a)
    nodes = [i for i in range(n) if len(near[i]) != 2]
    done: set[tuple[int, int]] = set()
    chains = []

    def follow(start: int, second: int) -> list[int]:
        chain = [start, second]
        while len(near[chain[-1]]) == 2 and chain[-1] != start:
            one, other = near[chain[-1]]
            chain.append(other if one == chain[-2] else one)
        return chain

    on_path = set(nodes)
    for start in nodes:
        for second in near[start]:
            if (start, second) not in done:
                chain = follow(start, second)
                done |= {(chain[0], chain[1]), (chain[-1], chain[-2])}
                chains.append(chain)
                on_path.update(chain)
    for start in range(n):
        if start not in on_path:
            chain = follow(start, near[start][0])
            chains.append(chain)
            on_path.update(chain)
    return chains


def _radius(chain: list[int], places: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Calibre along a chain, mm."""
    from scipy.ndimage import uniform_filter1d

    if len(chain) < 2:
        return np.cbrt(volume[chain] * 3 / (4 * np.pi))
    steps = np.linalg.norm(np.diff(_course(places[chain]), axis=0), axis=1)
    share = (np.r_[steps, steps[-1]] + np.r_[steps[0], steps]) / 2
    v = uniform_filter1d(volume[chain].astype(float), WINDOW, mode="nearest")
    mm = uniform_filter1d(share, WINDOW, mode="nearest")
    return np.sqrt(v / (np.pi * mm))


def _without_spurs(
    chains: list[list[int]], places: np.ndarray, volume: np.ndarray, n: int
) -> np.ndarray:
    """Which points stay when short end segments are taken off their forks, bool (n,)."""
    degree = np.zeros(n, dtype=int)
    for chain in chains:
        degree[chain[0]] += 1
        degree[chain[-1]] += 1
    keep = np.ones(n, dtype=bool)
    widest: dict[int, float] = {}
    for chain in chains:
        radius = float(_radius(chain, places, volume).max())
        for end in (chain[0], chain[-1]):
            widest[end] = max(widest.get(end, 0.0), radius)
    for chain in chains:
        fork = max(chain[0], chain[-1], key=lambda i: degree[i])
        loose = min(degree[chain[0]], degree[chain[-1]]) == 1 and degree[fork] > 2
        if loose:
            length = np.linalg.norm(np.diff(places[chain], axis=0), axis=1).sum()
            if length < SPUR_RADII * widest[fork]:
                keep[[i for i in chain if i != fork]] = False
    return keep


def _thinned(volume, places, links, keep):
    """The skeleton without some points; their volume goes to the nearest that stay."""
    from scipy.spatial import cKDTree

    number = np.cumsum(keep) - 1
    nearest = cKDTree(places[keep]).query(places[~keep])[1]
    kept = volume[keep] + np.bincount(nearest, weights=volume[~keep], minlength=int(keep.sum()))
    links = links[keep[links].all(axis=1)]
    return kept, places[keep], number[links]


def _course(places: np.ndarray) -> np.ndarray:
    """Places (n, 3) along a chain, without the steps of the voxels; the ends stay."""
    from scipy.ndimage import uniform_filter1d

    if len(places) <= WINDOW:
        return places
    smooth = uniform_filter1d(places, WINDOW, axis=0, mode="nearest")
    smooth[[0, -1]] = places[[0, -1]]
    return smooth


def _tables(chains, places, volume, links) -> tuple[pd.DataFrame, pd.DataFrame]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(places)
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    component = connected_components(graph, directed=False)[1]
    points, segments = [], []
    for number, chain in enumerate(chains or [[0]]):
        radius = _radius(chain, places, volume)
        at = _course(places[chain])
        arc = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(at, axis=0), axis=1))]
        points.append(np.column_stack([np.full(len(chain), number), at, radius, arc]))
        chord = float(np.linalg.norm(at[-1] - at[0]))
        segments.append(
            (number, chain[0], chain[-1], float(arc[-1]), chord, float(np.median(radius)),
             int(component[chain[0]]))
        )  # fmt: skip
    table = pd.DataFrame(np.concatenate(points), columns=POINTS).astype({"segment": int})
    return table, pd.DataFrame(segments, columns=SEGMENTS)
