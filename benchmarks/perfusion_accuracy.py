"""Perfusion parameters measured from simulated maps, against the truth that they were made from.

    python benchmarks/perfusion_accuracy.py DATASET OUT   # a folder of `rlvo simulate`

Writes OUT/perfusion_accuracy.csv (a row a patient and parameter) and OUT/perfusion_summary.csv. The
mid-sagittal plane is found in the NCCT (else CTA, else CBF), as in preprocessing; the affected side is the
recorded one, and once more left to be found. A volume counts as right within 10 % or 5 mL.

The truth is what was laid into the patient (docs/embedded_cohort.md): core, Tmax > 4, 6 and 10 s in mL.
Tmax > 8 s is where the intended delay of 8 s lies between the contours of 10 and 6 s. Artefact is the delay
that was drawn and is no stroke.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import images, perfusion, progress, storage
from rlvo_lib.config import load_study
from rlvo_lib.dataset import scan_path
from rlvo_lib.head import head_frame
from rlvo_lib.simulate.lesion import DELAYS_S

MAPS = ("cbf", "cbv", "tmax")
SIDES = {"L": "left", "R": "right"}
TOLERANCE, TOLERANCE_ML = 0.10, 5.0


def true_parameters(truth: dict[str, Any], cbv_index: float) -> dict[str, float]:
    """The parameters (`perfusion.NAMES`) that the patient was given; those that do not apply are absent."""
    ml = truth["volumes_ml"]
    inner, outer = DELAYS_S[2], DELAYS_S[3]  # intended delay just beyond 10 s, and just within 6 s
    share = np.clip((inner - 8.0) / (inner - outer), 0, 1)
    found = {
        "core_rcbf30_ml": ml["core"],
        "tmax4_ml": ml["tmax4"],
        "tmax6_ml": ml["tmax6"],
        "tmax8_ml": ml["tmax10"] + share * (ml["tmax6"] - ml["tmax10"]),
        "tmax10_ml": ml["tmax10"],
        "mismatch_tmax6_rcbf30_ml": ml["tmax6"] - ml["core"],
        "cbv_index_tmax6": cbv_index,
        "artefact_islands_ml": ml["artefact"],
    }
    if ml["core"] > 0:
        found["mismatch_ratio_tmax6_rcbf30"] = ml["tmax6"] / ml["core"]
    if ml["tmax6"] > 0:
        found["hir_tmax10_tmax6"] = ml["tmax10"] / ml["tmax6"]
    return {name: found[name] for name in perfusion.NAMES if name in found}


def patient(root: Path, participant_id: str, cbv_index: float) -> list[dict[str, Any]]:
    """One row a parameter: truth, measured, error, within; nothing for a patient without maps."""
    scans = load_study().scans
    paths = {name: scan_path(root, participant_id, scans[name]) for name in (*MAPS, "ncct", "cta")}
    if not all(paths[name].exists() for name in MAPS):
        return []
    maps = {name: images.load_nifti(paths[name]) for name in MAPS}
    shows = next((s for s in ("ncct", "cta") if paths[s].exists()), "cbf")
    frame = head_frame(*(images.load_ct(paths[shows]) if shows != "cbf" else maps["cbf"]), shows)
    place = root / "derivatives" / "truth" / participant_id / f"{participant_id}_truth.json"
    truth = storage.read_json(place)
    side = SIDES[truth["occlusion"]["vessel"][-1]]
    begun = time.process_time()
    arrays = [array for array, _ in maps.values()]
    found = perfusion.measure(*arrays, maps["cbf"][1], frame.midline, side)
    seconds = time.process_time() - begun
    alone = perfusion.measure(*arrays, maps["cbf"][1], frame.midline)
    rows = []
    for name, true in true_parameters(truth, cbv_index).items():
        measured = found.values.get(name, np.nan)
        error = measured - true
        within = abs(error) <= max(TOLERANCE_ML, TOLERANCE * true) if name.endswith("_ml") else None
        rows.append({
            "participant_id": participant_id, "parameter": name, "truth": true, "measured": measured,
            "error": error, "within": within, "midline_from": shows, "side_found": alone.tmax_side == side,
            "same_alone": alone.values == found.values, "cpu_seconds": seconds,
        })  # fmt: skip
    return rows


def accuracy(root: Path, participants: list[str] | None = None) -> pd.DataFrame:
    """`patient` of all (or the named) patients of a simulated dataset."""
    truth = root / "derivatives" / "truth"
    latents = pd.read_csv(truth / "latents.csv", index_col="participant_id")
    names = participants or sorted(
        p.name for p in truth.glob("sub-*") if any(p.glob("*_truth.json"))
    )
    rows = []
    for name in progress.track(names, label="perfusion"):
        rows += patient(root, name, float(latents.at[name, "cbv_index"]))
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a parameter: patients, share within 10 % or 5 mL, bias, spread and the worst error."""
    rows = []
    for name, part in table.groupby("parameter", sort=False):
        part = part.dropna(subset="error")
        size = part["error"].abs()
        rows.append({
            "parameter": name, "n": len(part), "unit": "mL" if name.endswith("_ml") else "",
            "within": part["within"].astype(float).mean() if name.endswith("_ml") else np.nan,
            "mean_error": part["error"].mean(), "median_size": size.median(),
            "size_90": size.quantile(0.9), "largest": size.max(),
            "rank_correlation": part["truth"].corr(part["measured"], method="spearman"),
        })  # fmt: skip
    return pd.DataFrame(rows).round(4)


def main(root: str, out: str) -> None:
    table = accuracy(Path(root))
    storage.write_csv(Path(out) / "perfusion_accuracy.csv", table.round(4))
    found = summary(table)
    storage.write_csv(Path(out) / "perfusion_summary.csv", found)
    one = table.drop_duplicates("participant_id")
    print(found.to_string(index=False))
    print(f"side found without the recorded one: {one['side_found'].mean():.1%} of {len(one)}; "
          f"{one['cpu_seconds'].mean():.3f} CPU seconds a patient")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a simulated dataset and a folder for the results")
    main(*sys.argv[1:])
