"""From a patient's latents and anatomy to scans: NCCT, CTA, CBF, CBV, MTT, Tmax, and their truth.

Space: every grid is axis-aligned in world mm (RAS+) and shared by the session; the head has its own
pose in it. CT is in HU (int16), perfusion in mL/100 g/min, mL/100 g, s and s (float32, 0 outside
brain). NCCT slices are the mean of two thin ones, so structures get the partial volume of thick
slices. Values follow sections 4a to 4d of the evidence tables.
"""

from __future__ import annotations

import numpy as np

from rlvo_lib.simulate import arteries
from rlvo_lib.simulate.anatomy import (
    SCALP_MM,
    SKULL_MM,
    Grid,
    Pose,
    head_x,
    interpolate,
    ramp,
    sample,
    smooth_noise,
)

FIELD = Grid((76, 96, 70), (2.5, 2.5, 2.5), (-93.75, -132.0, -68.75))
NCCT = Grid((76, 96, 35), (2.5, 2.5, 5.0), (-93.75, -132.0, -67.5))
CTA = Grid((102, 122, 60), (1.5, 1.5, 1.5), (-75.75, -108.0, -50.0))
PERFUSION = Grid((44, 52, 20), (4.0, 4.0, 5.0), (-86.0, -120.0, -19.0))

WHITE_HU, GREY_ABOVE_WHITE_HU, CSF_HU, BLOOD_HU = 28.0, 9.0, 8.0, 41.0
TERRITORY = {"ICA": "ica", "M1": "mca"}
FIELDS = ("depth", "base", "ventricle", "cistern", "deep_grey", "face")


def render(patient: dict, rng: np.random.Generator) -> tuple[dict, dict]:
    """Scans and truth of one patient.

    Parameters
    ----------
    patient : dict
        One row of the latents that `patients.draw` returns.
    rng : Generator
        The patient's own random stream.

    Returns
    -------
    scans : dict of (array (X, Y, Z), affine (4, 4)), keys ncct, cta, cbf, cbv, mtt, tmax, vessels;
        ``vessels`` is the true mask on the CTA grid: 1 filled artery, 2 clot.
    truth : dict
        Pose, occlusion, stenoses (world mm) and the volumes that were drawn (mL).
    """
    pose = Pose.draw(rng, patient["male"] == 1)
    tree = arteries.build(patient, rng)
    stenoses = arteries.other_stenoses(tree, patient, rng) if patient["other_stenosis"] else []
    plaques = arteries.siphon_plaques(tree, patient, rng)
    if patient["tandem"]:
        arteries.tandem(tree, patient, rng)
    occlusion = arteries.occlude(tree, patient, rng)
    head = _head(patient, pose, rng)
    maps, infarct, volumes = _perfusion(patient, pose, head, rng)
    scans = {name: (volume, PERFUSION.affine) for name, volume in maps.items()}
    scans["ncct"] = (_ncct(patient, pose, head, tree, plaques, infarct, rng), NCCT.affine)
    cta, mask = _cta(patient, pose, head, tree, plaques, rng)
    scans["cta"], scans["vessels"] = (cta, CTA.affine), (mask, CTA.affine)
    for entry, keys in ((occlusion, ("start", "end")), *((s, ("at",)) for s in stenoses)):
        for key in keys:
            entry[key] = pose.to_world(np.array([entry[key]]))[0].round(2).tolist()
    truth = {
        "head_to_world": pose.affine.round(6).tolist(),
        "occlusion": occlusion,
        "stenoses": stenoses,
        "plaques": len(plaques),
        "volumes_ml": volumes,
    }
    return scans, truth


def paint(
    points: np.ndarray, radius: np.ndarray, value: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each voxel inside tubes through `points` (n, 3) world mm, and share x value.

    Only voxels near a point are touched. A tube thinner than a voxel keeps its cross-section: it is
    drawn wider and fainter. `grid` is isotropic.
    """
    h, pad = grid.spacing[0], 5
    shape = np.array(grid.shape) + 2 * pad
    share = np.zeros(int(shape.prod()), dtype=np.float32)
    product = np.zeros_like(share)
    thick = np.maximum(radius, 0.75 * h)
    peak = (radius / thick) ** 2
    at = (points - np.array(grid.origin)) / h + pad
    middle = np.rint(at).astype(np.int64)
    half = np.ceil(thick / h + 0.5).astype(int)
    inside = ((middle >= half[:, None]) & (middle < shape - half[:, None])).all(axis=1)
    for m in np.unique(half[inside]):
        rows = np.flatnonzero(inside & (half == m))
        step = np.arange(-m, m + 1)
        near = middle[rows][:, :, None] + step  # (n, 3, 2m+1) voxel indices
        gap = ((near - at[rows][:, :, None]) * h).astype(np.float32) ** 2
        square = gap[:, 0, :, None, None] + gap[:, 1, None, :, None] + gap[:, 2, None, None, :]
        flat = near[:, 0] * (shape[1] * shape[2])
        flat = flat[:, :, None, None] + (near[:, 1] * shape[2])[:, None, :, None]
        flat = flat + near[:, 2][:, None, None, :]
        reach = (thick[rows] + 0.5 * h).astype(np.float32)[:, None, None, None]
        n, i, j, k = np.nonzero(square < reach**2)
        amount = (reach[n, 0, 0, 0] - np.sqrt(square[n, i, j, k])) / np.float32(h)
        amount = np.minimum(amount, 1) * peak[rows].astype(np.float32)[n]
        index = flat[n, i, j, k]
        np.maximum.at(share, index, amount)
        np.maximum.at(product, index, amount * value[rows].astype(np.float32)[n])
    crop = (slice(pad, -pad),) * 3
    return share.reshape(shape)[crop], product.reshape(shape)[crop]


def _head(patient: dict, pose: Pose, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Level sets and soft-tissue shares of one head on the field grid."""
    head = sample(FIELDS, pose, FIELD)
    atrophy = float(np.clip(0.45 + (patient["age"] - 70) / 45 + rng.normal(0, 0.15), 0, 1.3))
    scalp = SCALP_MM + rng.normal(0, 0.6)
    skull = SKULL_MM + rng.normal(0, 0.7)
    outer = scalp + skull
    below = head["depth"] - np.float32(outer + 0.8 + 1.2 * atrophy)  # mm below the brain's surface
    # Sulci are thin sheets where a smooth random field is zero; the ribbon lines them and the brain.
    fold = np.abs(smooth_noise(FIELD, 4.2, rng))
    surface = ramp(15 - below + 4 * (1 - fold), 5.0)
    sulcus = np.clip(np.float32(1.0 + 0.5 * atrophy) - fold * 4.5, 0, 0.9) * surface
    csf = np.maximum(sulcus, 1 - ramp(below, 2.5))
    csf = np.maximum(csf, ramp(head["ventricle"] + np.float32(2.4 * (atrophy - 0.4)), 2.5))
    csf = np.maximum(csf, ramp(head["cistern"] + np.float32(0.8 * (atrophy - 0.5)), 2.5))
    csf = np.maximum(csf, 1 - ramp(head["base"] - np.float32(1.0), 2.5))
    ribbon = np.clip(2.6 - 3.0 * fold, 0, 1) * ramp(18 - below, 6.0)
    grey = np.maximum(ramp(4.0 - below, 2.5), ribbon)
    grey = np.maximum(grey, ramp(head["deep_grey"], 2.5))
    soft = np.float32(WHITE_HU) + np.float32(GREY_ABOVE_WHITE_HU) * grey
    return head | {
        "csf": csf,
        "grey": grey,
        "soft": soft * (1 - csf) + np.float32(CSF_HU) * csf,
        "marrow": smooth_noise(FIELD, 5.0, rng),
        "scalp_mm": scalp,
        "outer_mm": outer,
    }


def _compose(head: dict, level: dict[str, np.ndarray], width: float) -> np.ndarray:
    """HU from level sets at a grid of `width` mm: air, scalp, vault, base, face, brain and CSF."""
    depth, base = level["depth"], level["base"]
    scalp, outer = np.float32(head["scalp_mm"]), np.float32(head["outer_mm"])
    vault = ramp(depth - scalp, width) * ramp(outer - depth, width) * ramp(base + 9, 6.0)
    middle = ((depth - 0.5 * (scalp + outer)) / np.float32(1.5)) ** 2
    bone = 1150 - 620 * np.exp(-middle) + 60 * level["marrow"]
    inner = ramp(depth - outer, width)
    cranium = inner * ramp(base, width)
    floor = inner * ramp(base + np.float32(4.5), width) - cranium
    face = ramp(depth - scalp, width) * (1 - ramp(base + np.float32(4.5), width)) * (1 - vault)
    skin = ramp(depth, width) - vault - cranium - floor - face
    hu = cranium * level["soft"] + vault * bone + floor * (760 + 120 * level["marrow"])
    hu += face * level["face"] + np.maximum(skin, 0) * np.float32(-5)
    hu += (1 - ramp(depth, width)) * np.float32(-1000)
    return hu


def _gather(tree: dict[str, arteries.Tube], pose: Pose, tubes=None) -> dict[str, np.ndarray]:
    """All tube samples in one: world mm points, radius, fill, clot."""
    tubes = list(tree.values()) if tubes is None else tubes
    points = pose.to_world(np.concatenate([t.points for t in tubes]))
    names = ("radius", "fill", "clot", "calibre")
    return {"points": points} | {n: np.concatenate([getattr(t, n) for t in tubes]) for n in names}


def _overlay(hu: np.ndarray, share: np.ndarray, product: np.ndarray) -> None:
    """Replace tissue by what was painted, in place."""
    hu *= 1 - share
    hu += product


def _plaque_paint(plaques: np.ndarray, pose: Pose, grid: Grid, bloom: float):
    return paint(pose.to_world(plaques[:, :3]), plaques[:, 3] + bloom, plaques[:, 4], grid)


def _ncct(patient, pose, head, tree, plaques, infarct, rng) -> np.ndarray:
    """Non-contrast CT, (X, Y, Z) int16 HU: dense clot, calcium, early infarct, thick slices."""
    hours = (patient["lkw_to_groin_min"] - 65) / 60
    uptake = np.clip(0.030 + 0.011 * hours, 0.03, 0.15) * rng.uniform(0.8, 1.2)
    level = {k: head[k] for k in ("depth", "base", "face", "marrow")}
    level["soft"] = head["soft"] * (1 - np.float32(uptake) * infarct * (1 - head["csf"]))
    hu = _compose(head, level, 2.5)
    blood = BLOOD_HU + rng.normal(0, 1.2)
    vessels = _gather(tree, pose)
    every = slice(None, None, 2)  # half the samples suffice at 2.5 mm
    value = np.where(vessels["clot"] > 0, patient["clot_hu"], blood)
    radius = np.where(vessels["clot"] > 0, vessels["calibre"], vessels["radius"])
    _overlay(hu, *paint(vessels["points"][every], radius[every], value[every], FIELD))
    sinus = _gather(tree, pose, arteries.veins(np.random.default_rng(0)))
    value = np.full(len(sinus["radius"]), blood + 9)
    _overlay(hu, *paint(sinus["points"][every], sinus["radius"][every], value[every], FIELD))
    if len(plaques):
        _overlay(hu, *_plaque_paint(plaques, pose, FIELD, 0.3))
    near = np.clip((head["depth"] - np.float32(head["outer_mm"])) / 6, 0, 5)
    hu += np.float32(3) * np.exp(-near) * (head["depth"] > head["outer_mm"])  # cupping
    hu = 0.5 * (hu[:, :, 0::2] + hu[:, :, 1::2])
    noise = rng.standard_normal((NCCT.shape[0] + 1, NCCT.shape[1] + 1, NCCT.shape[2]), np.float32)
    noise = (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) * np.float32(0.5)
    hu += np.float32(rng.uniform(1.9, 2.7)) * noise
    return _int16(hu)


def _cta(patient, pose, head, tree, plaques, rng) -> tuple[np.ndarray, np.ndarray]:
    """CTA slab, (X, Y, Z) int16 HU, and the true vessel mask: 1 filled artery, 2 clot."""
    level = {
        k: interpolate(head[k], FIELD, CTA) for k in ("depth", "base", "soft", "face", "marrow")
    }
    hu = _compose(head, level, 1.5) + np.float32(4)
    arterial = float(np.clip(rng.normal(360, 60), 210, 520))
    venous = float(np.clip(rng.normal(105, 50), 20, 230))
    sinus = _gather(tree, pose, arteries.veins(np.random.default_rng(0)))
    value = np.full(len(sinus["radius"]), 45 + venous)
    _overlay(hu, *paint(sinus["points"], sinus["radius"], value, CTA))
    vessels = _gather(tree, pose)
    clot = vessels["clot"] > 0
    lumen = BLOOD_HU + arterial * vessels["fill"]
    value = np.where(clot, patient["clot_hu"] + patient["perviousness_hu"], lumen)
    radius = np.where(clot, vessels["calibre"], vessels["radius"])
    share, product = paint(vessels["points"], radius, value, CTA)
    _overlay(hu, share, product)
    mask = (share > 0.35).astype(np.uint8)
    if clot.any():
        occluded, _ = paint(vessels["points"][clot], radius[clot], value[clot], CTA)
        mask[(occluded > 0.35) & (occluded >= share)] = 2
    if len(plaques):
        _overlay(hu, *_plaque_paint(plaques, pose, CTA, 0.4))
    noise = rng.standard_normal(tuple(n + 1 for n in CTA.shape), np.float32)
    noise = noise[1:] + noise[:-1]
    noise = noise[:, 1:] + noise[:, :-1]
    noise = noise[:, :, 1:] + noise[:, :, :-1]
    hu += np.float32(rng.uniform(9, 14) / np.sqrt(8)) * noise
    return _int16(hu), mask


def _int16(hu: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(hu, -1024, 3071)).astype(np.int16)


def _perfusion(patient, pose, head, rng) -> tuple[dict, np.ndarray, dict]:
    """CBF, CBV, MTT, Tmax maps; infarct severity 0..1 on the field grid; volumes drawn in mL."""
    region = TERRITORY.get(patient["site"])
    region = region or ("m2_inferior" if patient["m2_inferior"] else "m2_superior")
    fields = sample((region, "core", "tentorium"), pose, PERFUSION)
    level = {k: interpolate(head[k], FIELD, PERFUSION) for k in ("depth", "base", "csf", "grey")}
    brain = (level["depth"] > head["outer_mm"] + 1.5) & (level["base"] > 0) & (level["csf"] < 0.85)
    sign = 1.0 if patient["side"] == 1 else -1.0
    lateral = np.float32(sign) * head_x(pose, PERFUSION)
    ipsi = brain & (lateral > 1.5) & (fields["tentorium"] > 0)
    contra = brain & (lateral < -1.5)
    grey = level["grey"]

    voxel_ml = float(np.prod(PERFUSION.spacing)) / 1000
    room = 0.97 * ipsi.sum() * voxel_ml
    t4, t6, t10 = (min(patient[f"tmax{k}_ml"], room * s) for k, s in ((4, 1), (6, 0.94), (10, 0.9)))
    core_ml = min(patient["core_ml"], 0.95 * t6)
    rough = smooth_noise(PERFUSION, 9.0, rng) + 0.5 * smooth_noise(PERFUSION, 4.0, rng)
    score = fields[region] + np.float32(0.16) * rough
    reach = _rank_volume(score, ipsi, voxel_ml)
    knots = np.maximum.accumulate(np.array([0, t10, t6, t4, 1.30 * t4 + 12])) + 1e-3 * np.arange(5)
    normal = 1.7 + 0.7 * (1 - grey) + 0.35 * smooth_noise(PERFUSION, 6.0, rng)
    normal = np.clip(normal + 0.15 * rng.standard_normal(grey.shape, np.float32), 0.5, 3.6)
    lesion = np.interp(reach, knots, [17.0, 10.0, 6.0, 4.0, 0.0]).astype(np.float32)
    tmax = np.where(ipsi, np.maximum(lesion, np.where(lesion > 4, lesion, normal)), normal)

    blur = smooth_noise(PERFUSION, 5.0, rng)
    if region in ("mca", "ica"):
        inner = 0.55 * fields["core"] + 0.45 * fields[region]
    else:
        inner = fields[region]
    inner = inner + np.float32(0.20) * blur - np.float32(20) * (tmax <= 6)
    rank = _rank_volume(inner, ipsi, voxel_ml)
    core = rank < core_ml
    cbf, cbv = _flow(patient, grey, tmax, core, rank / max(core_ml, voxel_ml), contra, rng)
    mtt = np.clip(60 * cbv / np.maximum(cbf, 0.5), 1.2, 30)
    severity = np.where(core, np.clip(1.5 - rank / max(core_ml, voxel_ml), 0, 1), 0)
    infarct = interpolate(severity.astype(np.float32), PERFUSION, FIELD)
    z = FIELD.axis(2)
    infarct[:, :, (z < PERFUSION.axis(2)[0]) | (z > PERFUSION.axis(2)[-1])] = 0
    steps = {"cbf": (cbf, 4), "cbv": (cbv, 64), "mtt": (mtt, 16), "tmax": (tmax, 16)}
    # Values are kept in binary steps well below the noise, which halves the files.
    maps = {k: (np.rint(m * s) / s * brain).astype(np.float32) for k, (m, s) in steps.items()}
    drawn = {"core": core_ml, "tmax4": t4, "tmax6": t6, "tmax10": t10}
    return maps, infarct, {k: round(float(v), 2) for k, v in drawn.items()}


def _rank_volume(score: np.ndarray, region: np.ndarray, voxel_ml: float) -> np.ndarray:
    """Volume in mL of the region's voxels that score higher than each voxel; infinite outside."""
    rank = np.full(score.shape, np.inf)
    values = score[region]
    order = np.argsort(-values, kind="stable")
    place = np.empty(len(values))
    place[order] = (np.arange(len(values)) + 0.5) * voxel_ml
    rank[region] = place
    return rank


def _flow(patient, grey, tmax, core, depth, contra, rng) -> tuple[np.ndarray, np.ndarray]:
    """CBF (mL/100 g/min) and CBV (mL/100 g): core below 0.28, the rest above 0.33 of normal mean."""
    wave = 0.09 * smooth_noise(PERFUSION, 7.0, rng)
    speckle = 0.05 * rng.standard_normal(grey.shape, np.float32)
    level = float(np.exp(rng.normal(0, 0.10)))
    healthy = level * (24 + 28 * grey) * np.clip(1 + wave + speckle, 0.7, 1.4)
    mean = float(healthy[contra].mean())
    drop = np.interp(tmax, [3, 4, 6, 10, 15], [1, 0.92, 0.74, 0.50, 0.40])
    flow = np.maximum(healthy * drop, mean * (0.335 + 0.03 * np.abs(wave) / 0.09))
    within = np.interp(depth, [0, 1], [0.10, 0.25]) * (0.85 + 0.3 * grey) + 0.4 * speckle
    cbf = np.where(core, mean * np.clip(within, 0.03, 0.28), flow)
    pool = (1.9 + 1.4 * grey) * np.clip(1 + wave + 0.7 * speckle, 0.7, 1.4)
    pool_mean = float(pool[contra].mean())
    dead = core & (tmax > 6)
    slow = (tmax > 6) & ~core & np.isfinite(depth)
    dead_sum = 0.22 * float(pool[dead].sum())
    want = patient["cbv_index"] * pool_mean * (dead.sum() + slow.sum()) - dead_sum
    scale = float(np.clip(want / max(float(pool[slow].sum()), 1.0), 0.45, 1.5))
    cbv = np.where(core, 0.22 * pool, np.where(slow, scale * pool, pool))
    return cbf, cbv
