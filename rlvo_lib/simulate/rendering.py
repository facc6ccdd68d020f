"""From a patient's latents to scans with their sidecars, and the truth behind them.

The head has its own pose in the world (RAS+ mm), which every scan of the patient shares. Each part
draws from a random stream of its own: what one shows does not shift what another draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlvo_lib.simulate import arteries, ct, ctp, lesion, occlusion, wall
from rlvo_lib.simulate import scanner as scanners
from rlvo_lib.simulate.anatomy import Grid, Head, Pose, build_head
from rlvo_lib.simulate.scanner import GRIDS, GridPlan, lost_calibres

__all__ = ["GRIDS", "GridPlan", "Rendered", "lost_calibres", "render"]

CLOT_SHARE = 0.2  # a thick NCCT slice seldom holds more
PARTS = (
    "pose", "tree", "veins", "stenoses", "plaques", "tandem", "tangles", "occlusion", "head", "lesion",
    "ncct", "cta", "ctp",
)  # fmt: skip


@dataclass(frozen=True)
class Rendered:
    """One patient's scans and truth.

    scans : name to (array (X, Y, Z), affine (4, 4)): ncct, cta in int16 HU; cbf, cbv, mtt, tmax
        float32 in mL/100 g/min, mL/100 g, s, s (0 outside brain); only those that were made.
    sidecars : name of a scan to what its JSON says.
    masks : truth, name to (uint8 array, affine): ``vessels`` (1 filled artery, 2 clot, 3 tangle of
        collaterals) on the CTA's grid, ``clot`` on the NCCT's, ``lesion`` (1 Tmax > 6 s, 2 core) and ``territory``
        (see `lesion.territories`) on the maps'.
    tree : truth, the centre lines: vessel, x, y, z (world mm), radius_mm, fill, clot.
    truth : pose, occlusion, stenoses (world mm), volumes laid (mL).
    """

    scans: dict[str, tuple[np.ndarray, np.ndarray]]
    sidecars: dict[str, dict]
    masks: dict[str, tuple[np.ndarray, np.ndarray]]
    tree: pd.DataFrame
    truth: dict


def render(
    patient: dict, stream: np.random.SeedSequence, plan: GridPlan = GRIDS["cohort"]
) -> Rendered:
    """Scans and truth of one patient.

    Parameters
    ----------
    patient : one row of the latents that `patients.draw` returns.
    stream : the patient's own source of randomness; the same for every plan.
    plan : how fine the scans are.
    """
    rng = _streams(stream)
    scanner = scanners.SCANNERS[patient["scanner"]]
    pose = Pose.draw(rng["pose"], patient["male"] == 1)
    tree = arteries.build(patient, rng["tree"])
    stenoses = []
    if patient["other_stenosis"]:
        stenoses = wall.other_stenoses(tree, patient, rng["stenoses"])
    plaques = wall.siphon_plaques(tree, patient, rng["plaques"])
    if patient["tandem"]:
        wall.tandem(tree, patient, rng["tandem"])
    closed = occlusion.occlude(tree, patient, rng["occlusion"])
    head = build_head(patient, pose, plan.head_mm, rng["head"])
    tangles = lesion.tangles(patient, head, rng["tangles"])
    person = ct.Patient(patient, head, tree, plaques, arteries.veins(rng["veins"]), tangles)
    maps_grid = scanners.ctp_grid(plan, scanner)
    wanted = ("depth", "base", "csf", "grey", "tentorium", "core", *lesion.TERRITORIES)
    seen = head.on(maps_grid, tuple(dict.fromkeys([*wanted, lesion.territory(patient)])))
    stroke = lesion.lay(patient, head, maps_grid, seen, rng["lesion"])
    parts = _Parts({}, {}, {}, scanner)
    artefact = 0.0
    if patient["has_ctp"]:
        maps, artefact = ctp.maps(patient, stroke, seen["grey"], maps_grid, rng["ctp"])
        for name, volume in maps.items():
            parts.add(name, volume, maps_grid)
    if patient["has_ncct"]:
        hu, grid, share = ct.ncct(
            person, stroke.infarct, maps_grid.affine, plan, scanner, rng["ncct"]
        )
        parts.add("ncct", hu, grid)
        parts.masks["clot"] = (np.uint8(share > CLOT_SHARE), grid.affine)
    if patient["has_cta"]:
        hu, grid, mask = ct.cta(person, plan, scanner, rng["cta"])
        parts.add("cta", hu, grid)
        parts.masks["vessels"] = (mask, grid.affine)
    delayed = np.uint8((stroke.tmax > 6) & stroke.ipsi) + np.uint8(stroke.core)
    parts.masks["lesion"] = (delayed, maps_grid.affine)
    parts.masks["territory"] = (lesion.territories(head, maps_grid, seen), maps_grid.affine)
    truth = {
        "head_to_world": pose.affine.round(6).tolist(),
        "scanner": scanner.name,
        "occlusion": _in_world(closed, ("start", "end"), pose),
        "stenoses": [_in_world(s, ("at",), pose) for s in stenoses],
        "plaques": len(plaques),
        "volumes_ml": stroke.volumes_ml | {"artefact": artefact},
    }
    return Rendered(parts.scans, parts.sidecars, parts.masks, _centre_lines(tree, head), truth)


def _streams(stream: np.random.SeedSequence) -> dict[str, np.random.Generator]:
    """A generator a part, from the patient's stream."""
    return {
        part: np.random.default_rng(
            np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, k))
        )
        for k, part in enumerate(PARTS)
    }


@dataclass
class _Parts:
    scans: dict
    sidecars: dict
    masks: dict
    scanner: scanners.Scanner

    def add(self, name: str, volume: np.ndarray, grid: Grid) -> None:
        """A scan with its sidecar."""
        self.scans[name] = (volume, grid.affine)
        self.sidecars[name] = scanners.sidecar(name, grid, self.scanner, grid.spacing[2])


def _in_world(entry: dict, keys: tuple[str, ...], pose: Pose) -> dict:
    """The entry with its places in world mm."""
    places = {k: pose.to_world(np.array([entry[k]]))[0].round(2).tolist() for k in keys}
    return entry | places


def _centre_lines(tree: dict[str, arteries.Tube], head: Head) -> pd.DataFrame:
    """The tree in world mm, a row every 1.4 mm."""
    tubes = list(tree.values())

    def of(name: str) -> np.ndarray:
        return np.concatenate([getattr(tube, name)[::2] for tube in tubes])

    points = head.pose.to_world(of("points")).round(2)
    return pd.DataFrame({
        "vessel": np.repeat([t.name for t in tubes], [len(t.points[::2]) for t in tubes]),
        "x": points[:, 0], "y": points[:, 1], "z": points[:, 2],
        "radius_mm": of("radius").round(3), "fill": of("fill").round(3), "clot": of("clot").astype(int),
    })  # fmt: skip
