"""How right imaging is, on simulated scans whose truth is known: one table, dated.

    make imaging-accuracy           # about an hour on two cores, most of it to simulate; resumes
    python benchmarks/imaging_accuracy.py OUT [fine patients] [cohort patients]

Registration and perfusion are judged on both grids, vessels on the fine one (0.6 mm CTA), on datasets
of a seed that nothing was tuned on. Each patient's measures are kept in the cache and found again.
`accuracy.csv` is the summary, beside what was asked; one CSV a part has every measure of it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pandas as pd
import perfusion_accuracy
import registration_accuracy
import vessel_accuracy

from rlvo_lib import config, storage, workers

SEED = 4711
CACHE = config.project_root() / ".rlvo_cache" / "imaging-accuracy"
#: What each part is measured by: a change of these is measured anew.
CODE = {
    "vessels": ("images", "head", "vessels"),
    "perfusion": ("images", "head", "perfusion"),
    "registration": ("images", "head", "registration"),
}
MOST_REGISTERED = 20  # fine patients; each takes half a minute


def simulated(grid: str, patients: int) -> Path:
    """A simulated dataset of this grid, made if it is not there."""
    out = CACHE / f"{grid}-{SEED}-{patients}-{storage.code_key('simulate')}"
    start = "from rlvo_lib.cli import main; main()"
    call = [sys.executable, "-c", start, "simulate", str(out), "--grid", grid]
    call += ["--patients", str(patients), "--seed", str(SEED)]
    if not (out / "derivatives" / "ceiling.json").is_file():
        subprocess.run(call, check=True)
    return out


def measure(part: str, dataset: Path, patient: str, other: str, out: Path) -> None:
    """One patient's measures of one part, as rows in a file of its own."""
    if part == "vessels":
        rows = [vessel_accuracy.measure(dataset, patient)]
    elif part == "registration":
        scans = registration_accuracy.scans_of(dataset, other)
        rows = registration_accuracy.patient_rows(dataset, patient, scans)
    else:
        latents = pd.read_csv(dataset / "derivatives" / "truth" / "latents.csv", index_col=0)
        rows = perfusion_accuracy.patient(dataset, patient, float(latents.at[patient, "cbv_index"]))
    storage.write_csv(out, pd.DataFrame(rows))


def table(part: str, dataset: Path) -> pd.DataFrame:
    """Every patient's measures of one part, made where they are not there."""
    names = sorted(path.name for path in dataset.glob("sub-*"))
    names = names[:MOST_REGISTERED] if part == "registration" and "fine" in dataset.name else names
    tool = [Path(__file__), Path(__file__).with_name(f"{part.removesuffix('s')}_accuracy.py")]
    code = storage.key(storage.code_key(*CODE[part]), [storage.digest(path) for path in tool])
    files = [CACHE / "measures" / code / part / dataset.name / f"{name}.csv" for name in names]
    pairs = zip(names, [*names[1:], names[0]], files, strict=True)
    todo = [(part, dataset, name, other, f) for name, other, f in pairs if not f.is_file()]
    if todo:
        workers.run(measure, todo, workers=2, label=f"{part}, {dataset.name}")
    return pd.concat([pd.read_csv(file) for file in files], ignore_index=True)


#: What was asked of the vessels (`vessel_accuracy.summarise`).
VESSELS_ASKED = {"dice": 0.85, "cldice": 0.9, "side_right": 0.98, "within_5_mm": 0.9}


def vessel_rows(found: pd.DataFrame) -> list[dict]:
    """The summary of all patients, a row a measure."""
    summary = vessel_accuracy.summarise(found)
    counts = {"side_right": summary["m1_ica"], "within_5_mm": summary["m1_ica"]}
    counts["median_distance_mm"] = summary["m1_ica"]
    return [
        {"part": "vessels", "grid": "fine", "measure": name, "value": value}
        | {"n": counts.get(name, len(found)), "asked": VESSELS_ASKED.get(name)}
        for name, value in summary.items()
    ]


def perfusion_rows(found: pd.DataFrame, grid: str) -> list[dict]:
    """The share of patients within 10 % or 5 mL, a row a volume."""
    summary = perfusion_accuracy.summary(found)
    return [
        {"part": "perfusion", "grid": grid, "measure": f"{row.parameter}: within 10 % or 5 mL"}
        | {"n": row.n, "value": row.within, "asked": 1.0}
        for row in summary.itertuples()
        if row.parameter.endswith("_ml") and "artefact" not in row.parameter
    ]


def registration_rows(found: pd.DataFrame, grid: str) -> list[dict]:
    """Pose errors of the NCCT on the template, and whether two heads are told apart."""
    rows = []
    pose = found[(found["task"] == "align") & (found["scan"] == "ncct")]
    for kind in ("symmetry", "affine"):
        for measure_ in ("plane_deg", "pitch_deg", "x_mm", "y_mm", "z_mm"):
            values = pose.loc[(pose["kind"] == kind) & (pose["measure"] == measure_), "value"].abs()
            for what, value in (("mean", values.mean()), ("worst", values.max())):
                rows.append(
                    {"part": "registration", "grid": grid, "n": len(values), "value": value}
                    | {"measure": f"NCCT, {kind}: {what} |{measure_}|"}
                )
    pairs = (
        found[found["task"] == "pair"].groupby(["kind", "measure"])["value"].agg(["mean", "size"])
    )
    for kind, measure_, asked in (
        ("same", "found_different", 0.0), ("moved", "found_different", 0.0),
        ("different", "found_different", 1.0), ("moved", "error_mm", None),
    ):  # fmt: skip
        if (kind, measure_) in pairs.index:
            mean, n = pairs.loc[(kind, measure_)]
            rows.append(
                {"part": "registration", "grid": grid, "n": int(n), "value": mean, "asked": asked}
                | {"measure": f"CTA and NCCT, {kind} head: mean {measure_}"}
            )
    return rows


def main(out: Path, fine: int, cohort: int) -> None:
    datasets = {"fine": simulated("fine", fine), "cohort": simulated("cohort", cohort)}
    rows: list[dict] = []
    vessels = table("vessels", datasets["fine"])
    storage.write_csv(out / "vessels.csv", vessels.round(4))
    rows += vessel_rows(vessels)
    for grid, dataset in datasets.items():
        perfusion = table("perfusion", dataset)
        storage.write_csv(out / f"perfusion_{grid}.csv", perfusion_accuracy.summary(perfusion))
        rows += perfusion_rows(perfusion, grid)
        registration = table("registration", dataset)
        summary = registration_accuracy.summary(registration).reset_index()
        storage.write_csv(out / f"registration_{grid}.csv", summary)
        rows += registration_rows(registration, grid)
    accuracy = pd.DataFrame(rows, columns=["part", "grid", "measure", "n", "value", "asked"])
    accuracy["value"] = accuracy["value"].astype(float).round(3)
    accuracy["asked"] = accuracy["asked"].astype(object).where(accuracy["asked"].notna(), "")
    accuracy["machine"] = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    storage.write_csv(out / "accuracy.csv", accuracy)
    print(accuracy.to_string(index=False))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[2:]]
    main(Path(sys.argv[1]), *(given + [40, 60][len(given) :]))
