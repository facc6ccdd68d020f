"""How well heads are laid on the template, and CTA on NCCT, against a simulated dataset's truth.

    python benchmarks/registration_accuracy.py DATASET OUT.csv [patients]

Writes a tidy CSV (participant_id, task, scan, kind, measure, value) and prints a summary. The truth
(`derivatives/truth/*_truth.json`: head mm to world mm) is read here, never by the library. The template
is made from the same anatomy as the patients: real heads differ from it more.

Measures: plane_deg, pitch_deg, x_mm, y_mm, z_mm (the middle of the head, in its own mm), landmark_<name>
(distance in template mm between where a landmark lands and where the template has it), cost, seconds;
for pairs: similarity, size_gain, found_different, shift_mm, error_mm, error_deg.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from rlvo_lib import images
from rlvo_lib.head import head_frame
from rlvo_lib.registration import (
    KINDS,
    align,
    alignment,
    brain_mask_ct,
    itk,
    load_template,
    map_inside,
    motion,
    solver,
    within_patient,
)
from rlvo_lib.registration.blocks import coarse
from rlvo_lib.simulate import rendering
from rlvo_lib.simulate import template as builder

MIDDLE = np.array([0.0, 0.0, -85.0, 1.0])
#: Homologous places in head mm of the embedded anatomy, right side; the left is mirrored.
LANDMARKS = {
    "carotid_terminus": (13, 2, -15), "m1_bifurcation": (37, 3, -14.5), "ventricle": (12, -10, 21),
    "basilar_tip": (0, -17, -17), "third_ventricle": (0, -8, 0), "striatum": (33, 2, 8),
    "convexity": (45, 10, 45), "vertex": (0, -17, 80), "occiput": (10, -90, 5),
}  # fmt: skip


def head_to_template() -> np.ndarray:
    """4x4, head mm of the embedded anatomy to template mm: a shift."""
    affine = np.eye(4)
    affine[:3, 3] = load_template().affine[:3, 3] - builder.grid().affine[:3, 3]
    return affine


def true_affine(dataset: Path, patient: str) -> np.ndarray:
    """4x4, template mm to world mm, as the patient was made (size and all)."""
    path = dataset / "derivatives" / "truth" / patient / f"{patient}_truth.json"
    pose = np.array(json.loads(path.read_text())["head_to_world"])
    return pose @ np.linalg.inv(head_to_template())


def errors(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Angles, offsets and landmark distances of a found template-to-world matrix against the true one."""
    turn = true[:3, :3] / np.linalg.norm(true[:3, :3], axis=0)
    u, _, v = np.linalg.svd(found[:3, :3])
    off = turn.T @ (u @ v)
    normal = np.linalg.inv(found)[0, :3]
    cosine = abs(normal @ turn[:, 0]) / np.linalg.norm(normal)
    out = {
        "plane_deg": float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        "pitch_deg": float(np.degrees(np.arctan2(off[2, 1], off[1, 1]))),
    }
    shift = (np.linalg.inv(true) @ found @ MIDDLE - MIDDLE)[:3]
    out |= dict(zip(("x_mm", "y_mm", "z_mm"), map(float, shift), strict=True))
    for name, place in LANDMARKS.items():
        for side in (1, -1) if place[0] else (1,):
            there = head_to_template() @ [place[0] * side, *place[1:], 1.0]
            moved = np.linalg.inv(found) @ true @ there - there
            label = f"landmark_{name}" + ("" if not place[0] else "_right" if side > 0 else "_left")
            out[label] = float(np.linalg.norm(moved[:3]))
    return out


def scans_of(dataset: Path, patient: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    paths = {s: dataset / patient / "ct" / f"{patient}_{s}.nii.gz" for s in ("ncct", "cta")}
    return {s: images.load_ct(path) for s, path in paths.items() if path.is_file()}


def moved(volume_affine: np.ndarray, middle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """4x4: a random motion of up to 20 mm and 15 degrees about `middle`, world mm."""
    axis, way = rng.normal(size=3), rng.normal(size=3)
    angle = np.radians(rng.uniform(0, 15))
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    shift = way / np.linalg.norm(way) * rng.uniform(0, 20)
    out[:3, 3] = middle + shift - out[:3, :3] @ middle
    return out


def patient_rows(dataset: Path, patient: str, other: dict, seed: int = 0) -> list[dict]:
    """All measures of one patient; `other`: the scans of another patient, for the different heads."""
    rows: list[dict] = []

    def add(task: str, scan: str, kind: str, values: dict) -> None:
        rows.extend(
            {"participant_id": patient, "task": task, "scan": scan, "kind": kind, "measure": m,
             "value": v} for m, v in values.items()
        )  # fmt: skip

    scans, true = scans_of(dataset, patient), true_affine(dataset, patient)
    for scan, (array, affine) in scans.items():
        for kind in KINDS:
            start = time.process_time()
            found = align(array, affine, scan, kind=kind)
            took = time.process_time() - start
            done = {"cost": found.cost, "seconds": took, "fell_back": float(found.kind != kind)}
            add("align", scan, kind, errors(found.affine, true) | done)
        add("motion", scan, "", {"step_mm": motion(array, affine)})
    if "ncct" in scans and "cta" in scans:
        _add_pairs(add, scans, other, true, np.random.default_rng([seed, int(patient[-4:])]))
    if "ncct" in scans:
        _add_map(add, dataset, patient, scans["ncct"])
    return rows


def _add_pairs(add, scans: dict, other: dict, true: np.ndarray, rng: np.random.Generator) -> None:
    (ncct, ncct_affine), (cta, cta_affine) = scans["ncct"], scans["cta"]
    middle = (true @ MIDDLE)[:3]
    start = time.process_time()
    same = within_patient(cta, cta_affine, ncct, ncct_affine)
    took = time.process_time() - start
    add("pair", "cta", "same", _pair(same) | {"seconds": took})
    motion_ = moved(cta_affine, middle, rng)
    away = within_patient(cta, motion_ @ cta_affine, ncct, ncct_affine)
    left = away.affine @ motion_
    error = float(np.linalg.norm(left[:3, :3] @ middle + left[:3, 3] - middle))
    turn = float(np.degrees(Rotation.from_matrix(left[:3, :3]).magnitude()))
    add("pair", "cta", "moved", _pair(away) | {"error_mm": error, "error_deg": turn})
    if "cta" in other:
        different = within_patient(*other["cta"], ncct, ncct_affine)
        add("pair", "cta", "different", _pair(different))


def _pair(found) -> dict[str, float]:
    return {
        "similarity": found.similarity,
        "size_gain": found.size_gain,
        "found_different": float(found.same_head is False),
        "undecided": float(found.same_head is None),
        "shift_mm": found.shift_mm,
    }


def _add_map(add, dataset: Path, patient: str, ncct: tuple[np.ndarray, np.ndarray]) -> None:
    path = dataset / patient / "perf" / f"{patient}_cbf.nii.gz"
    if not path.is_file():
        return
    values, affine = images.load_nifti(path)
    brain = brain_mask_ct(*ncct, align(*ncct, "ncct", kind="symmetry").frame)
    for shift in (0.0, 5.0, 10.0, 20.0):
        away = affine.copy()
        away[0, 3] += shift
        share = map_inside(values, away, brain, ncct[1])
        add("map", "cbf", f"moved {shift:g} mm", {"inside": share})


def scanner_rows(dataset: Path, most: int = 20) -> list[dict]:
    """Pairs whose NCCT and CTA come from different scanners (noise, slices, tilt, contrast), rendered
    here on the cohort grid from the dataset's latents: of one head, and of two."""
    latents = pd.read_csv(dataset / "derivatives" / "truth" / "latents.csv").head(most)
    rows, last = [], None
    for k, patient in enumerate(latents.to_dict("records")):
        stream = np.random.SeedSequence([2026, 1, k])
        one, two = ("ABC"[(k + j) % 3] for j in (0, 1))
        patient |= {"has_ncct": 1, "has_cta": 1, "has_ctp": 0}
        ncct = rendering.render(patient | {"scanner": one}, stream).scans["ncct"]
        cta = rendering.render(patient | {"scanner": two}, stream).scans["cta"]
        pairs = {"same, two scanners": cta} | ({"different, two scanners": last} if last else {})
        for kind, (array, affine) in pairs.items():
            found = within_patient(array, affine, *ncct)
            rows += [
                {"participant_id": patient["participant_id"], "task": "pair", "scan": "cta",
                 "kind": kind, "measure": m, "value": v} for m, v in _pair(found).items()
            ]  # fmt: skip
        last = cta
    return rows


def solver_rows(dataset: Path, most: int = 10) -> list[dict]:
    """Gauss-Newton and SimpleITK (12 parameters, 300 steps) from the same start on the same volumes."""
    fixed, rows = load_template().volume, []
    for path in sorted(dataset.glob("sub-*/ct/sub-*_ncct.nii.gz"))[:most]:
        array, affine = coarse(*images.load_ct(path), low=-1000.0, high=1500.0)
        head = alignment.head_volume(array, affine, head_frame(array, affine))
        begin = time.process_time()
        ours = solver.register(
            fixed, head, np.eye(4), solver.HEAD_AFFINE, MIDDLE[:3], prior=alignment.PRIOR
        )
        between = time.process_time()
        theirs = itk.register(fixed, head, np.eye(4), MIDDLE[:3], rigid=False)
        end = time.process_time()
        one, two = (alignment.rigid_part(m, MIDDLE[:3]) for m in (ours, theirs))
        turn = Rotation.from_matrix(one[:3, :3].T @ two[:3, :3]).magnitude()
        values = {
            "apart_deg": float(np.degrees(turn)),
            "apart_mm": float(np.linalg.norm(((ours - theirs) @ MIDDLE)[:3])),
            "gauss_newton_seconds": between - begin,
            "simpleitk_seconds": end - between,
            "gauss_newton_cost": 1 - solver.similarity(fixed, head, ours).similarity,
            "simpleitk_cost": 1 - solver.similarity(fixed, head, theirs).similarity,
        }
        rows += [
            {"participant_id": path.name[:8], "task": "solver", "scan": "ncct", "kind": "affine",
             "measure": m, "value": v} for m, v in values.items()
        ]  # fmt: skip
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """n, mean, SD, median, and the largest absolute value of each measure."""
    groups = table.groupby(["task", "scan", "kind", "measure"], sort=False)["value"]
    return groups.agg(
        n="count", mean="mean", sd="std", median="median", low="min", high="max"
    ).round(4)


def main(dataset: Path, out: Path, most: int | None = None) -> None:
    """Measure every patient of a simulated dataset, write the CSV and print the summary."""
    patients = sorted(path.name for path in dataset.glob("sub-*"))[:most]
    rows: list[dict] = []
    for k, patient in enumerate(patients):
        rows += patient_rows(dataset, patient, scans_of(dataset, patients[(k + 1) % len(patients)]))
    rows += scanner_rows(dataset) + solver_rows(dataset)
    table = pd.DataFrame(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False, float_format="%.5g")
    with pd.option_context("display.max_rows", None, "display.width", 120):
        print(summary(table))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
