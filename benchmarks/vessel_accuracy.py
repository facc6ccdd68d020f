"""Accuracy of the vessel mask and its graph against the truth of a simulated dataset with fine scans.

    rlvo simulate FOLDER --grid fine --patients 40 --seed 4711
    python benchmarks/vessel_accuracy.py FOLDER OUT.csv

One row a patient, one process. How each figure is computed:

dice              2 TP / (2 TP + FN + FP) over arteries of at least 1.5 mm. TP and FN: voxels of filled artery (level
                  1 of the true mask) whose vessel, by the nearest wall of the true tree, has there a radius of 0.75 mm or more
                  (after stenoses), found and missed. FP: found voxels that are none of the true mask. Neither right nor
                  wrong are found voxels of thinner arteries and, since a mask's edge is a matter of half a voxel, those within
                  1 mm (a voxel if larger) of the wall of a thinner artery and nearer to it than to a wide one; and clot and tangles (levels 2, 3).
                  No artery is left out for being faint: those that fill through collaterals count.
dice_visible      the same, but arteries with under 60 HU of contrast are neither right nor wrong.
cldice            Shit et al., CVPR 2021: harmonic mean of the share of the found centre line that lies in wide true arteries
                  (what lies in the neutral voxels above left out) and of the true centre line that lies in the mask.
radius_bias, _sd  found minus true radius (mm) along the centre line, points within 1 mm of a true one of 0.75 mm or more.
side, distance_mm the occlusion candidate: side agrees; distance to the proximal start of the true clot's centre line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from rlvo_lib import images, vessels
from rlvo_lib.head import head_frame

WIDE_MM, RIM_MM, VISIBLE_HU = 0.75, 1.0, 60.0
STEP_MM = 0.3


def true_tree(table: pd.DataFrame) -> pd.DataFrame:
    """The true centre lines every 0.3 mm: x, y, z (world mm), radius_mm, fill, clot, vessel."""
    columns = ["x", "y", "z", "radius_mm", "fill", "clot"]
    lines = []
    for name, line in table.groupby("vessel", sort=False):
        values = line[columns].to_numpy(float)
        arc = np.r_[0, np.cumsum(np.linalg.norm(np.diff(values[:, :3], axis=0), axis=1))]
        at = np.linspace(0, arc[-1], max(2, int(arc[-1] / STEP_MM) + 1))
        columns_at = {c: np.interp(at, arc, values[:, i]) for i, c in enumerate(columns)}
        lines.append(pd.DataFrame(columns_at).assign(vessel=name))
    return pd.concat(lines, ignore_index=True)


def owners(places: np.ndarray, tree: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The point of the tree whose wall is nearest to each place (n, 3) world mm; mm outside the wall."""
    if not len(places):
        return np.array([], dtype=int), np.array([])
    away, near = cKDTree(tree[["x", "y", "z"]].to_numpy()).query(places, k=8)
    outside = away - tree["radius_mm"].to_numpy()[near]
    best = outside.argmin(axis=1)
    rows = np.arange(len(places))
    return near[rows, best], outside[rows, best]


def overlap(
    found: np.ndarray,
    truth: np.ndarray,
    affine: np.ndarray,
    tree: pd.DataFrame,
    visible: np.ndarray,
) -> dict[str, float]:
    """Dice and centre-line Dice as defined above; `visible` says which points of the tree are."""
    radius = tree["radius_mm"].to_numpy()
    places = np.argwhere(truth == 1)
    owner, _ = owners(_world(places, affine), tree)
    wide = radius[owner] >= WIDE_MM
    hit = found[tuple(places.T)]
    loose = np.argwhere(found & (truth == 0))
    beside, outside = owners(_world(loose, affine), tree)
    rim = max(RIM_MM, float(images.voxel_sizes(affine).max()))
    neutral = (radius[beside] < WIDE_MM) & (outside < rim)
    false = int(np.count_nonzero(~neutral))

    def dice(counted: np.ndarray) -> float:
        right, missed = int((hit & counted).sum()), int((~hit & counted).sum())
        return 2 * right / max(1, 2 * right + missed + false)

    true_wide = np.zeros(truth.shape, dtype=bool)
    true_wide[tuple(places[wide].T)] = True
    ignored = (truth > 0) & ~true_wide
    ignored[tuple(loose[neutral].T)] = True
    line = skeletonize(found) & ~ignored
    true_line = skeletonize(true_wide)
    precision = (line & true_wide).sum() / max(1, line.sum())
    recall = (true_line & found).sum() / max(1, true_line.sum())
    return {
        "dice": dice(wide),
        "dice_visible": dice(wide & visible[owner]),
        "cldice": 2 * precision * recall / max(1e-9, precision + recall),
        "line_precision": precision,
        "line_recall": recall,
        "false_ml": false * abs(np.linalg.det(affine[:3, :3])) / 1000,
    }


def _world(places: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return places @ affine[:3, :3].T + affine[:3, 3]


def calibre(points: pd.DataFrame, tree: pd.DataFrame) -> dict[str, float]:
    """Error of the radius along the centre line, mm."""
    if points.empty:
        return {"radius_bias_mm": np.nan, "radius_sd_mm": np.nan}
    at = cKDTree(tree[["x", "y", "z"]].to_numpy())
    away, near = at.query(points[["x", "y", "z"]].to_numpy(float))
    truth = tree["radius_mm"].to_numpy()[near]
    counted = (away < 1.0) & (truth >= WIDE_MM)
    error = points["radius_mm"].to_numpy()[counted] - truth[counted]
    return {"radius_bias_mm": float(error.mean()), "radius_sd_mm": float(error.std())}


def measure(dataset: str | Path, participant_id: str) -> dict:
    """All figures of one patient; InputError if a scan cannot be read."""
    dataset = Path(dataset)
    scan, known = dataset / participant_id / "ct", dataset / "derivatives/truth" / participant_id
    cta, affine = images.load_ct(scan / f"{participant_id}_cta.nii.gz")
    ncct = scan / f"{participant_id}_ncct.nii.gz"
    frame = head_frame(*images.load_ct(ncct), "ncct") if ncct.exists() else None
    truth = images.load_nifti(known / f"{participant_id}_vessels.nii.gz")[0].astype(np.uint8)
    tree = true_tree(pd.read_csv(known / f"{participant_id}_tree.tsv.gz", sep="\t"))
    latent = json.loads((known / f"{participant_id}_truth.json").read_text())
    begun = time.process_time()
    mask = vessels.segment(cta, affine, frame)
    masked = time.process_time()
    graph = vessels.graph(mask, affine, cta, frame)
    done = time.process_time()
    row = {"participant_id": participant_id, "scanner": latent["scanner"]}
    full = np.percentile(cta[truth == 1], 90) - 35
    row |= overlap(mask, truth, affine, tree, tree["fill"].to_numpy() * full >= VISIBLE_HU)
    row |= calibre(graph.points, tree)
    occlusion, found = latent["occlusion"], graph.occlusion
    row["site"] = occlusion["vessel"].split("_")[0]
    row["truncal"] = occlusion["truncal"]
    row["true_side"] = {"R": "right", "L": "left"}[occlusion["vessel"][-1]]
    row["side"] = found.get("side", "none")
    place = np.array([found.get(axis, np.nan) for axis in "xyz"])
    row["distance_mm"] = float(np.linalg.norm(place - np.array(occlusion["start"])))
    row["score"] = found.get("score", 0.0)
    row["true_stenoses"] = len(latent["stenoses"])
    row |= _stenoses(graph.stenoses, latent["stenoses"])
    return row | {"mask_cpu_s": masked - begun, "graph_cpu_s": done - masked}


def _stenoses(found: pd.DataFrame, true: list[dict], reach_mm: float = 5.0) -> dict[str, int]:
    """True narrowings with a candidate within 5 mm, and candidates without one."""
    at = found[["x", "y", "z"]].to_numpy(float).reshape(-1, 3)
    near = [[np.linalg.norm(place - np.array(s["at"])) <= reach_mm for place in at] for s in true]
    table = np.array(near, dtype=bool).reshape(len(true), len(at))
    return {
        "stenoses_found": int(table.any(axis=1).sum()) if len(at) else 0,
        "stenoses_false": int((~table.any(axis=0)).sum()) if len(at) else 0,
    }


def summarise(rows: pd.DataFrame) -> dict[str, float]:
    """Means over patients, and the shares of M1 and ICA occlusions with the side and place found."""
    proximal = rows[rows["site"].isin(["M1", "ICA"])]
    distal = rows.drop(proximal.index)
    right = proximal["side"] == proximal["true_side"]
    numbers = [
        "dice", "dice_visible", "cldice", "line_precision", "line_recall", "radius_bias_mm",
        "radius_sd_mm", "mask_cpu_s", "graph_cpu_s",
    ]  # fmt: skip
    out = {"patients": len(rows)} | {n: round(float(rows[n].mean()), 3) for n in numbers}
    out["dice_lowest"] = round(float(rows["dice"].min()), 3)
    out["share_dice_85"] = round(float((rows["dice"] >= 0.85).mean()), 3)
    out["m1_ica"] = len(proximal)
    if len(proximal):
        out["side_right"] = round(float(right.mean()), 3)
        out["within_5_mm"] = round(float((right & (proximal["distance_mm"] <= 5)).mean()), 3)
        out["median_distance_mm"] = round(float(proximal["distance_mm"].median()), 2)
    out["m2"] = len(distal)
    out["m2_right_side"] = int((distal["side"] == distal["true_side"]).sum())
    out["m2_wrong_side"] = int((~distal["side"].isin(["none"]) & (distal["side"] != distal["true_side"])).sum())  # fmt: skip
    for name in ("true_stenoses", "stenoses_found", "stenoses_false"):
        out[name] = int(rows[name].sum())
    return out


def main(dataset: str, out: str) -> None:
    ids = sorted(p.name for p in Path(dataset).glob("sub-*"))
    rows = []
    for participant_id in ids:
        rows.append(measure(dataset, participant_id))
        pd.DataFrame(rows).round(4).to_csv(out, index=False)
        print(participant_id, f"dice {rows[-1]['dice']:.3f}", file=sys.stderr)
    print(json.dumps(summarise(pd.DataFrame(rows)), indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
