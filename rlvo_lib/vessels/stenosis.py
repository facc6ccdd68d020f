"""Narrowings of a lumen along its centre line, as NASCET grades them: 1 - least / reference calibre."""

from __future__ import annotations

import numpy as np
import pandas as pd

STENOSES = ["x", "y", "z", "degree", "radius_mm", "reference_mm", "segment", "side"]
LEAST_DEGREE = 0.4
REACH_MM = (3.0, 9.0)  # from the narrowest place, where the reference is taken on both sides
LEAST_REFERENCE_MM = 0.9


def find_stenoses(points: pd.DataFrame, segments: pd.DataFrame) -> pd.DataFrame:
    """Places where a segment is narrower by `LEAST_DEGREE` than both before and behind, `STENOSES`.

    The reference is the lesser of the median radii 3 to 9 mm on either side, so that a vessel's taper
    or the end of a wide one is no narrowing.
    """
    rows = []
    values = points[["x", "y", "z", "arc_mm", "radius_mm"]].to_numpy(float)
    owner, sides = points["segment"].to_numpy(), points["side"].to_numpy()
    long = segments["length_mm"].to_numpy() > 2 * REACH_MM[0] + 3
    for number in segments["segment"].to_numpy()[long]:
        first, stop = np.searchsorted(owner, (number, number + 1))
        arc, radius = values[first:stop, 3], values[first:stop, 4]
        for i in _narrow_places(arc, radius):
            away = arc - arc[i]
            before = radius[(away <= -REACH_MM[0]) & (away >= -REACH_MM[1])]
            behind = radius[(away >= REACH_MM[0]) & (away <= REACH_MM[1])]
            if len(before) < 3 or len(behind) < 3:
                continue
            reference = min(np.median(before), np.median(behind))
            degree = 1 - radius[i] / reference
            if reference >= LEAST_REFERENCE_MM and degree >= LEAST_DEGREE:
                at = tuple(values[first + i, :3])
                rows.append((*at, degree, radius[i], reference, number, sides[first + i]))
    table = pd.DataFrame(rows, columns=STENOSES)
    return table.sort_values("degree", ascending=False, ignore_index=True)


def _narrow_places(arc: np.ndarray, radius: np.ndarray) -> list[int]:
    """Points that are the narrowest within 3 mm."""
    return [
        i for i in range(len(arc)) if radius[i] <= radius[np.abs(arc - arc[i]) <= REACH_MM[0]].min()
    ]
