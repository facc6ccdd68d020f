"""Where flow is delayed and where tissue is lost: the patient's volumes laid into a territory.

All on the perfusion grid. Volumes (mL) are met exactly by ranking voxels: a voxel's `reach` is the
volume of those that rank before it, so the region where reach < V holds V mL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvo_lib.simulate.anatomy import Grid, Head, head_x, smooth_noise

TERRITORY = {"ICA": "ica", "M1": "mca"}
TERRITORIES = ("aca", "mca", "pca")
ACA, MCA = 1, 2
OWN = {"ICA": (ACA, MCA)}  # territories of an occluded artery; MCA alone for the others
ELSEWHERE = 1.5  # so much lower ranks what another artery feeds: it is reached last
# Tmax at the middle of the lesion, on both sides of its contours of 10, 6 and 4 s, and beyond, s. It steps
# there, so that the noise of the maps moves few voxels across.
DELAYS_S = (17.0, 11.3, 8.7, 6.5, 5.5, 4.3, 3.7, 0.0)
FAR = 1e6  # reach outside the region, mL


@dataclass(frozen=True)
class Lesion:
    """The stroke on the perfusion grid, (X, Y, Z) each.

    tmax: intended Tmax of delayed tissue, s, 0 elsewhere · core: bool · depth: rank within the core,
    0 at its middle to 1 at its rim · brain, ipsi, contra: bool · volumes_ml: those laid.
    """

    tmax: np.ndarray
    core: np.ndarray
    depth: np.ndarray
    brain: np.ndarray
    ipsi: np.ndarray
    contra: np.ndarray
    volumes_ml: dict[str, float]

    @property
    def infarct(self) -> np.ndarray:
        """Severity of the infarct 0..1, falling towards its rim."""
        return np.where(self.core, np.clip(1.5 - self.depth, 0, 1), 0).astype(np.float32)


def territory(patient: dict) -> str:
    """The atlas field of the occluded artery's territory."""
    trunk = "m2_inferior" if patient["m2_inferior"] else "m2_superior"
    return TERRITORY.get(patient["site"], trunk)


def lay(patient: dict, head: Head, grid: Grid, seen: dict, rng: np.random.Generator) -> Lesion:
    """The patient's Tmax and core volumes as regions of the affected hemisphere.

    `seen` holds the head's fields on `grid`: depth, base, csf, tentorium, core and the territory.
    `lesion_grain_mm` is the correlation length of the outline, `lesion_freedom` its weight.
    """
    region = territory(patient)
    brain = (seen["depth"] > head.outer_mm + 1.5) & (seen["base"] > 0) & (seen["csf"] < 0.85)
    sign = 1.0 if patient["side"] == 1 else -1.0
    lateral = np.float32(sign) * head_x(head.pose, grid)
    ipsi = brain & (lateral > 1.5) & (seen["tentorium"] > 0)
    ml = grid.voxel_ml
    room = 0.97 * float(ipsi.sum()) * ml
    t4, t6, t10 = (min(patient[f"tmax{k}_ml"], room * s) for k, s in ((4, 1), (6, 0.94), (10, 0.9)))
    core_ml = min(patient["core_ml"], 0.95 * t6)
    grain, freedom = float(patient["lesion_grain_mm"]), np.float32(patient["lesion_freedom"])
    rough = smooth_noise(grid, grain, rng) + 0.5 * smooth_noise(grid, grain / 2.25, rng)
    own = OWN.get(patient["site"], (MCA,))
    elsewhere = ~np.isin((territories(head, grid, seen) - 1) % 3 + 1, own)
    score = seen[region] + freedom * rough - np.float32(ELSEWHERE) * elsewhere
    reach = rank_volume(score, ipsi, ml)
    knots = np.repeat([t10, t6, t4], 2) + 1e-3 * np.arange(6)
    knots = np.maximum.accumulate(
        np.concatenate([[0], knots, [1.30 * t4 + 12]])
    ) + 1e-3 * np.arange(8)
    tmax = np.interp(reach, knots, DELAYS_S).astype(np.float32)
    inner = seen[region]
    if region in ("mca", "ica"):
        inner = 0.55 * seen["core"] + 0.45 * inner
    inner = inner + 1.25 * freedom * smooth_noise(grid, 0.55 * grain, rng)
    rank = rank_volume(inner - np.float32(1000) * (tmax <= 6), ipsi, ml)
    core = rank < core_ml
    volumes = {"core": core_ml, "tmax4": t4, "tmax6": t6, "tmax10": t10}
    return Lesion(
        tmax=tmax,
        core=core,
        depth=np.minimum(rank / max(core_ml, ml), 1.0),
        brain=brain,
        ipsi=ipsi,
        contra=brain & (lateral < -1.5),
        volumes_ml={name: round(float(v), 2) for name, v in volumes.items()},
    )


def tangles(patient: dict, head: Head, rng: np.random.Generator) -> np.ndarray | None:
    """Share of each voxel that is a tangle of collateral vessels, on the head's own grid; None if none.

    `tangle_ml` mL in the affected hemisphere, in patches of about `tangle_grain_mm`. They stand in
    the scenarios that put a trait into the CTA; like the vessels of a moyamoya pattern.
    """
    if patient["tangle_ml"] <= 0:
        return None
    grid, fields = head.grid, head.fields
    x, _, z = (
        axis.astype(np.float32) for axis in np.meshgrid(*map(grid.axis, range(3)), indexing="ij")
    )
    sign = 1.0 if patient["side"] == 1 else -1.0
    inside = (fields["depth"] > head.outer_mm + 3) & (fields["base"] > 4) & (sign * x > 6)
    inside &= (z > -24) & (z < 24)  # within every CTA slab
    ml = grid.voxel_ml * float(np.prod(head.pose.size))
    rank = rank_volume(smooth_noise(grid, float(patient["tangle_grain_mm"]), rng), inside, ml)
    edge = patient["tangle_ml"]
    return np.clip(1.5 - rank / edge, 0, 1).astype(np.float32) * (rank < 1.5 * edge)


def territories(head: Head, grid: Grid, seen: dict) -> np.ndarray:
    """Whose territory each voxel of the cerebrum is: 1 ACA, 2 MCA, 3 PCA on the right, 4 to 6 on the left."""
    nearest = np.argmax(np.stack([seen[name] for name in TERRITORIES]), axis=0).astype(np.uint8) + 1
    left = head_x(head.pose, grid) < 0
    cerebrum = (seen["depth"] > head.outer_mm + 1.5) & (seen["base"] > 0) & (seen["tentorium"] > 0)
    return np.where(cerebrum, nearest + 3 * left, 0).astype(np.uint8)


def rank_volume(score: np.ndarray, region: np.ndarray, voxel_ml: float) -> np.ndarray:
    """Volume in mL of the region's voxels that score higher than each voxel; `FAR` outside.

    >>> rank_volume(np.array([3.0, 1.0, 2.0, 9.0]), np.array([True, True, True, False]), 1.0)
    array([5.0e-01, 2.5e+00, 1.5e+00, 1.0e+06])
    """
    rank = np.full(score.shape, FAR)
    values = score[region]
    order = np.argsort(-values, kind="stable")
    place = np.empty(len(values))
    place[order] = (np.arange(len(values)) + 0.5) * voxel_ml
    rank[region] = place
    return rank
