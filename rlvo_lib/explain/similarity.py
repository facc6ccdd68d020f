"""How alike two maps are: rank correlation over voxels or boxes of the head, and structural similarity.

Maps are (N, D, H, W) on the tensor grid, one a patient; what is compared are their values (N, V) at the voxels
of the head, or their means in its boxes. Air is left out: where no scan ever shows anything all maps are 0, and
would agree.
"""

from __future__ import annotations

import warnings

import numpy as np

from rlvo_lib.explain.model import FusedModel

#: Voxels that a rank correlation is taken over, at most; evenly thinned, the same for all maps.
MOST_VOXELS = 20_000
#: A voxel is of the head where some channel differs by more than this between background patients (0..1).
VARIES = 0.02
#: Boxes along the grid's shortest axis: of 12 mm on the cohort's grid.
BOXES_ALONG = 8
#: Share of a box's voxels that must be of the head.
HEAD_SHARE = 0.1


def head_mask(model: FusedModel) -> np.ndarray:
    """Where images show anything: (D, H, W) bool, some channel differs between background patients.

    The same for all patients of a fold, and independent of any explanation.
    """
    low, high = None, None
    for participant in model.background:
        image = model.images([participant])[0].float().cpu().numpy()
        low = image if low is None else np.fmin(low, image)
        high = image if high is None else np.fmax(high, image)
    return (np.nan_to_num(high - low) > VARIES).any(axis=0)


def head_boxes(inside: np.ndarray, along: int = BOXES_ALONG) -> np.ndarray:
    """The box of each voxel: (D, H, W) int, 0 up to the number of boxes, -1 where a box holds no head.

    Boxes are cubes with a side of the shortest axis over ``along``; those with less than `HEAD_SHARE` of head
    are left out, so that air is no part of any comparison or order.

    >>> int(head_boxes(np.ones((4, 4, 4), bool), along=2).max())
    7
    """
    side = max(1, min(inside.shape) // along)
    places = np.meshgrid(*(np.arange(n) // side for n in inside.shape), indexing="ij")
    counts = [int(p.max()) + 1 for p in places]
    flat = np.ravel_multi_index(places, counts)
    size = np.bincount(flat.ravel(), minlength=np.prod(counts))
    kept = np.flatnonzero(np.bincount(flat.ravel(), inside.ravel()) >= HEAD_SHARE * size)
    number = np.full(len(size), -1)
    number[kept] = np.arange(len(kept))
    return number[flat]


def box_means(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The mean of each map (N, D, H, W) in each box: (N, B) float64.

    >>> box_means(np.arange(4.0).reshape(1, 1, 1, 4), np.array([[[0, 0, 1, -1]]])).tolist()
    [[0.5, 2.0]]
    """
    within = boxes >= 0
    size = np.bincount(boxes[within])
    sums = [np.bincount(boxes[within], one[within].astype(np.float64)) for one in maps]
    return np.array(sums).reshape(len(maps), -1) / size


def voxels(maps: np.ndarray, where: np.ndarray, most: int = MOST_VOXELS) -> np.ndarray:
    """The values of maps (N, D, H, W) at the voxels of a mask, evenly thinned to so many: (N, V).

    >>> voxels(np.arange(8.0).reshape(1, 2, 2, 2), np.ones((2, 2, 2), bool), 3).tolist()
    [[0.0, 3.0, 6.0]]
    """
    inside = np.flatnonzero(where)
    inside = inside[:: max(1, -(-len(inside) // most))]
    return maps.reshape(len(maps), -1)[:, inside]


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation (N,) of pairs of rows (N, V); tied values have their mean rank.

    Returns
    -------
    NaN where the first row is flat (there is nothing to compare), 0 where only the second is (it shares
    nothing with the first).

    Examples
    --------
    >>> rank_correlation(np.array([[1.0, 2.0, 3.0]]), np.array([[9.0, 4.0, 1.0]])).round(3).tolist()
    [-1.0]
    """
    one, other = _unit_ranks(first), _unit_ranks(second)
    return np.where(one.any(axis=1), (one * other).sum(axis=1), np.nan)


def _unit_ranks(values: np.ndarray) -> np.ndarray:
    """Centred ranks (N, V) of length 1; 0 throughout for a flat row."""
    from scipy.stats import rankdata

    ranks = rankdata(values.astype(np.float64), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    size = np.sqrt((ranks * ranks).sum(axis=1, keepdims=True))
    return np.divide(ranks, size, out=np.zeros_like(ranks), where=size > 0)


def agreement(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean rank correlation (N,) of each patient's rows between M models, and between different patients.

    Parameters
    ----------
    values
        M arrays (N, V), of the same patients in the same order.

    Returns
    -------
    Of each patient, the mean over pairs of models; and the mean over the same pairs between the patient's row
    and the next patient's (NaN for one patient). NaN where all rows of a patient are flat; a pair of which one is
    flat counts as 0.
    """
    units = [_unit_ranks(one) for one in values]
    own, other = [], []
    for first in range(len(units)):
        for second in range(first + 1, len(units)):
            own.append((units[first] * units[second]).sum(axis=1))
            other.append((units[first] * np.roll(units[second], 1, axis=0)).sum(axis=1))
    flat = ~np.any([unit.any(axis=1) for unit in units], axis=0)
    flat_or_alone = flat | (len(flat) < 2)
    return (
        np.where(flat, np.nan, np.mean(own, axis=0)),
        np.where(flat_or_alone, np.nan, np.mean(other, axis=0)),
    )


def structural_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """SSIM (N,) of the absolute values of pairs of maps (N, D, H, W), each brought to a maximum of 1.

    Wang et al. (2004) with a window of 7 voxels, as Adebayo et al. (2018) compare maps. Flat maps as in
    `rank_correlation`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skimage.metrics import structural_similarity as ssim

    found = []
    for one, other in zip(np.abs(first), np.abs(second), strict=True):
        if not one.max() > 0 or not other.max() > 0:
            found.append(0.0 if one.max() > 0 else np.nan)
            continue
        found.append(float(ssim(one / one.max(), other / other.max(), data_range=1.0)))
    return np.array(found)
