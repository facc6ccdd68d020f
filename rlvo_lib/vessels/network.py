"""The graph of a vessel mask and what is measured on it: volumes, asymmetry, tortuosity, narrowings.

Sides are the patient's, told by the mid-sagittal plane of the head frame. The recorded affected side
is not an input: what is found here can be compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib.head import HeadFrame, head_frame
from rlvo_lib.vessels.centreline import centre_lines
from rlvo_lib.vessels.occlusion import find_occlusion
from rlvo_lib.vessels.space import bounding_box
from rlvo_lib.vessels.stenosis import STENOSES, find_stenoses

MOST_ML = 150.0  # all intracranial arteries hold 10 to 25 mL
LEAST_MM3 = 5.0  # a component under this volume is left out


@dataclass(frozen=True)
class VesselGraph:
    """Centre lines and what was found on them; tables are empty where there is nothing.

    points : segment, x, y, z (world mm, RAS+), radius_mm, arc_mm, side, and hu where a CTA was given.
    segments : segment, start, end, length_mm, chord_mm, radius_mm, component, side, tortuosity.
    stenoses : x, y, z, degree (0 to 1), radius_mm, reference_mm, segment, side.
    occlusion : side, x, y, z, segment, score, gap_mm, end_x, end_y, end_z, or empty: none found.
    """

    points: pd.DataFrame
    segments: pd.DataFrame
    stenoses: pd.DataFrame
    occlusion: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """What the quality record keeps: numbers, words and lists that JSON can hold."""
        found = self.occlusion
        out: dict[str, Any] = {k: _plain(v) for k, v in self.measures.items()}
        out["occlusion_side"] = found.get("side", "none")
        out["occlusion_segment"] = found.get("segment", "none")
        for axis in "xyz":
            out[f"occlusion_{axis}_mm"] = _plain(found.get(axis, float("nan")), 1)
            out[f"occlusion_end_{axis}_mm"] = _plain(found.get(f"end_{axis}", float("nan")), 1)
        out["occlusion_gap_mm"] = _plain(found.get("gap_mm", float("nan")), 1)
        out["occlusion_score"] = _plain(found.get("score", 0.0))
        rows = self.stenoses.to_dict("records")
        out["stenoses"] = [
            {k: v if isinstance(v, str) else _plain(float(v), 2) for k, v in row.items()}
            for row in rows
        ]
        out["vessel_notes"] = list(self.notes)
        return out


def _plain(value: float, digits: int = 3) -> float | None:
    return None if not np.isfinite(value) else round(float(value), digits)


def graph(
    mask: np.ndarray,
    affine: np.ndarray,
    cta: np.ndarray | None = None,
    frame: HeadFrame | None = None,
) -> VesselGraph:
    """The `VesselGraph` of a mask (X, Y, Z), whoever made it, with its 4x4 affine.

    cta : HU on the same grid; without it, no occlusion is looked for. frame : the head's pose; None:
    taken from the CTA, or else the middle of the mask's box divides right from left.
    """
    mask = np.asarray(mask) > 0
    affine = np.asarray(affine, dtype=float)
    if frame is None and cta is not None:
        frame = head_frame(np.asarray(cta), affine, "cta")
    ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    right, total = _right_and_all(mask, affine, frame)
    measures = {
        "vessel_volume_ml": total * ml,
        "vessel_left_ml": (total - right) * ml,
        "vessel_right_ml": right * ml,
        "vessel_asymmetry": (total - 2 * right) / total if total else float("nan"),
    }
    notes: tuple[str, ...] = ()
    if total * ml > MOST_ML:
        notes = (f"the mask holds {total * ml:.0f} mL: not a vessel tree, no centre lines",)
        mask = np.zeros_like(mask)
    points, segments = centre_lines(_without_specks(mask, LEAST_MM3 / (1000 * ml)), affine)
    points = points.assign(side=_sides(points[["x", "y", "z"]].to_numpy(float), frame))
    if cta is not None:
        points["hu"] = _values(np.asarray(cta), affine, points)
    segments = segments.assign(
        side=_side_of_segments(points, len(segments)),
        tortuosity=segments["length_mm"] / segments["chord_mm"].clip(lower=1e-3) - 1,
    )
    measures["vessel_components"] = float(segments["component"].nunique())
    measures["vessel_length_mm"] = float(segments["length_mm"].sum())
    for name in ("left", "right"):
        measures[f"tortuosity_{name}"] = _tortuosity(segments[segments["side"] == name])
    stenoses = find_stenoses(points, segments) if len(points) else pd.DataFrame(columns=STENOSES)
    found: dict[str, Any] = {}
    if frame is not None and cta is not None and len(points):
        found = find_occlusion(points, segments, frame, np.asarray(cta), affine)
    return VesselGraph(points, segments, stenoses, found, measures, notes)


def _right_and_all(
    mask: np.ndarray, affine: np.ndarray, frame: HeadFrame | None
) -> tuple[int, int]:
    """Voxels on the right, and all."""
    places = np.argwhere(mask)
    if not len(places):
        return 0, 0
    world = places @ affine[:3, :3].T + affine[:3, 3]
    return int(np.count_nonzero(_lateral(world, frame) > 0)), len(places)


def _lateral(world: np.ndarray, frame: HeadFrame | None) -> np.ndarray:
    """Mm to the right of the midline, of points (n, 3) in world mm."""
    if frame is None:
        return world[:, 0] - (world[:, 0].min() + world[:, 0].max()) / 2
    return world @ frame.midline[:3] - frame.midline[3]


def _sides(world: np.ndarray, frame: HeadFrame | None) -> np.ndarray:
    if not len(world):
        return np.array([], dtype=object)
    return np.where(_lateral(world, frame) > 0, "right", "left").astype(object)


def _side_of_segments(points: pd.DataFrame, count: int) -> np.ndarray:
    """The side on which most points of each segment lie."""
    right = np.where(points["side"] == "right", 1.0, -1.0)
    balance = np.bincount(points["segment"].to_numpy(int), weights=right, minlength=count)
    return np.where(balance > 0, "right", "left").astype(object)


def _without_specks(mask: np.ndarray, voxels: float) -> np.ndarray:
    from scipy import ndimage

    if not mask.any():
        return mask
    box = bounding_box(mask)
    labels, n = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    keep = np.bincount(labels.ravel(), minlength=n + 1) >= voxels
    keep[0] = False
    out = np.zeros_like(mask)
    out[box] = keep[labels]
    return out


def _values(cta: np.ndarray, affine: np.ndarray, points: pd.DataFrame) -> np.ndarray:
    """HU at points, linear."""
    from scipy import ndimage

    world = points[["x", "y", "z"]].to_numpy(float)
    inverse = np.linalg.inv(affine)
    at = inverse[:3, :3] @ world.T + inverse[:3, 3:]
    return ndimage.map_coordinates(cta, at, output=np.float32, order=1, mode="nearest")


def _tortuosity(segments: pd.DataFrame) -> float:
    """Arc / chord - 1 of the longer, wider segments, weighted by their length; NaN without any."""
    wide = segments[(segments["radius_mm"] >= 0.75) & (segments["length_mm"] >= 8)]
    wide = wide[wide["chord_mm"] > 3]
    if wide.empty:
        return float("nan")
    return float(np.average(wide["tortuosity"], weights=wide["length_mm"]))
