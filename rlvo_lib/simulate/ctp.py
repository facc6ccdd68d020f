"""Perfusion maps as software makes them: a bolus through tissue, noisy frames, deconvolution.

Tissue gets a flow, a blood volume and a delay; its time curve is

    C(t) = (rho / k_H) CBF / 6000 (AIF(t - delay) * R)(t),   R a gamma transit-time residue,

with rho = 1.04 g/mL and k_H = 0.733 (evidence tables, section 4d). Frames are noisy. The maps come from
block-circulant deconvolution with truncated singular values (Wu et al., Magn Reson Med 2003), as
vendors do it: Tmax is where the residue peaks, CBF its height, CBV the area of the curve over that of
the artery, MTT their ratio. CBF in mL/100 g/min, CBV in mL/100 g, MTT and Tmax in s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaincc

from rlvo_lib.simulate.anatomy import Grid, smooth_noise
from rlvo_lib.simulate.lesion import Lesion, rank_volume

FRAME_S, FRAMES = 1.5, 44
FINE_S = 0.1  # step of the noiseless curves
BOLUS_S = 9.0  # arrival in the artery
AIF_PEAK_HU = 350.0
NORMAL_TRANSIT_S = 3.7  # of grey matter, at which software is calibrated
TRUNCATION = 0.15  # of the largest singular value
TISSUE = 1.04 / 0.733 / 6000  # (rho / k_H) per mL/100 g/min and s
TRANSITS_S = np.geomspace(1.5, 30.0, 40)  # mean transit times that are tabled
DELAYS_S = np.arange(0.0, 20.5, 0.5)
NOISE_HU = 0.5  # SD of a voxel in a frame, after the software's smoothing
ARTEFACT_SHARE = 0.43  # of maps with delay that is no stroke, median 12 mL (PMC6731139)


def maps(
    patient: dict,
    lesion: Lesion,
    grey: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], float]:
    """CBF, CBV, MTT and Tmax (X, Y, Z) float32, 0 outside brain; and the mL of artefact drawn."""
    tissue = _tissue(patient, lesion, grey, grid, rng)
    artefact = _add_artefact(tissue, lesion, grid, rng)
    brain = lesion.brain
    delay, transit, gain = _physical(*(tissue[n][brain] for n in ("tmax", "cbf", "cbv")))
    curves = _curves(delay, transit) * (TISSUE * gain * tissue["cbf"][brain])[:, None]
    curves += np.float32(NOISE_HU) * rng.standard_normal(curves.shape, dtype=np.float32)
    found = _deconvolved(curves, _table().scale)
    out = {}
    # Values are kept in binary steps well below the noise, which makes the files small.
    for name, steps in {"cbf": 4, "cbv": 64, "mtt": 16, "tmax": 16}.items():
        volume = np.zeros(grid.shape, dtype=np.float32)
        volume[brain] = np.rint(found[name] * steps) / steps
        out[name] = volume
    return out, artefact


def _tissue(patient, lesion, grey, grid, rng) -> dict[str, np.ndarray]:
    """What the software should find: Tmax, CBF, CBV of every voxel, before noise.

    Core lies below 0.28 of the healthy side's mean flow, other delayed tissue above 0.335.
    """
    patch = smooth_noise(grid, 6.0, rng)
    normal = 2.2 + 0.7 * (1 - grey) + 0.30 * patch
    tmax = np.where(lesion.tmax > 4, lesion.tmax, np.clip(normal, 1.2, 3.6))
    tmax = np.where(lesion.ipsi & (lesion.tmax > 0), np.maximum(tmax, lesion.tmax), tmax)
    wave = 0.09 * smooth_noise(grid, 7.0, rng)
    level = float(np.exp(rng.normal(0, 0.10)))
    healthy = level * (24 + 28 * grey) * np.clip(1 + wave, 0.7, 1.4)
    mean = float(healthy[lesion.contra].mean())
    drop = np.interp(tmax, [3, 4, 6, 10, 15], [1, 0.92, 0.74, 0.50, 0.40])
    flow = np.maximum(healthy * drop, mean * (0.36 + 0.03 * np.abs(wave) / 0.09))
    within = np.interp(lesion.depth, [0, 1], [0.10, 0.22]) * (0.85 + 0.3 * grey)
    cbf = np.where(lesion.core, mean * np.clip(within, 0.05, 0.26), flow)
    pool = (1.9 + 1.4 * grey) * np.clip(1 + wave, 0.7, 1.4)
    pool_mean = float(pool[lesion.contra].mean())
    dead = lesion.core & (tmax > 6)
    slow = (tmax > 6) & ~lesion.core & lesion.ipsi
    want = patient["cbv_index"] * pool_mean * (dead.sum() + slow.sum())
    scale = (want - 0.22 * float(pool[dead].sum())) / max(float(pool[slow].sum()), 1.0)
    scale = float(np.clip(scale, 0.45, 1.5))
    cbv = np.where(lesion.core, 0.22 * pool, np.where(slow, scale * pool, pool))
    return {"tmax": tmax, "cbf": cbf, "cbv": cbv}


def _add_artefact(tissue: dict, lesion: Lesion, grid: Grid, rng: np.random.Generator) -> float:
    """Delay without a stroke (43 % of maps): near the base and at the rim, away from the lesion; mL."""
    drawn, wanted = rng.random() < ARTEFACT_SHARE, float(np.exp(rng.normal(np.log(12), 0.9)))
    rough = smooth_noise(grid, 6.0, rng)
    wanted = min(wanted, 25.0, 0.3 * lesion.volumes_ml["tmax6"])
    if not drawn:
        return 0.0
    low = np.linspace(1.0, -1.0, grid.shape[2], dtype=np.float32)
    away = lesion.brain & ~lesion.ipsi
    reach = rank_volume(rough + low, away, grid.voxel_ml)
    here = reach < wanted
    tissue["tmax"][here] = np.interp(reach[here], [0, wanted], [9.0, 6.2])
    return round(float(here.sum()) * grid.voxel_ml, 2)


# ------------------------------------------------------------------------------ the forward model


def _artery(t: np.ndarray) -> np.ndarray:
    """Arterial enhancement in HU at time t (s): a gamma variate and its recirculation."""

    def bolus(start, beta):
        x = np.maximum(t - start, 0)
        return (x / (3 * beta)) ** 3 * np.exp(3 - x / beta)

    return AIF_PEAK_HU * (bolus(BOLUS_S, 1.5) + 0.17 * bolus(BOLUS_S + 9.0, 2.5))


@dataclass(frozen=True)
class Table:
    """Noiseless curves and what deconvolution makes of them, by transit time and delay."""

    curves: np.ndarray  # (transits, fine times) of unit flow without delay, HU
    delay: np.ndarray  # (transits, Tmax) s: the delay that is found as each of `tmax`
    scale: float  # what deconvolution finds of normal grey matter's flow
    gain: np.ndarray  # (transits, delays): flow found, over `scale`, of its true one
    area: np.ndarray  # (transits, delays): blood volume found, of its true one
    tmax: np.ndarray  # s


@lru_cache(maxsize=1)
def _table() -> Table:
    t = np.arange(0, FRAME_S * FRAMES + 1, FINE_S)
    artery = _artery(t)
    residue = gammaincc(3, 3 * t[None] / TRANSITS_S[:, None])  # shape 3, mean the transit time
    size = 2 * len(t)
    spectrum = np.fft.rfft(artery, size) * np.fft.rfft(residue, size, axis=1)
    curves = np.fft.irfft(spectrum, size, axis=1)[:, : len(t)] * FINE_S
    pairs = np.meshgrid(np.arange(len(TRANSITS_S)), DELAYS_S, indexing="ij")
    sampled = _sample(curves, pairs[0].ravel().astype(float), pairs[1].ravel())
    found = _deconvolved(sampled * TISSUE * 50)
    shape = pairs[0].shape
    peak = np.maximum.accumulate(found["tmax"].reshape(shape), axis=1)
    targets = np.arange(0, 20.25, 0.25)
    delay = np.stack([np.interp(targets, row, DELAYS_S) for row in peak])
    gain = found["cbf"].reshape(shape) / 50
    scale = float(np.interp(NORMAL_TRANSIT_S, TRANSITS_S, gain[:, 1]))
    area = found["cbv"].reshape(shape) / (50 * TRANSITS_S / 60)[:, None]
    return Table(curves, delay, scale, gain / scale, area, targets)


def _sample(curves: np.ndarray, row: np.ndarray, delay: np.ndarray) -> np.ndarray:
    """Frames (n, FRAMES) of delayed curves; `row` may lie between two of the table."""
    frames = FRAME_S * np.arange(FRAMES)
    at = (
        np.clip((frames[None] - delay[:, None]) / FINE_S, 0, curves.shape[1] - 1)
        .round()
        .astype(int)
    )
    low = np.clip(row.astype(int), 0, len(curves) - 2)
    part = (row - low)[:, None]
    return (1 - part) * curves[low[:, None], at] + part * curves[low[:, None] + 1, at]


def _row(transit: np.ndarray) -> np.ndarray:
    """Place of a transit time between the rows of the table."""
    step = np.log(TRANSITS_S[1] / TRANSITS_S[0])
    return np.clip(np.log(transit / TRANSITS_S[0]) / step, 0, len(TRANSITS_S) - 1.001)


def _curves(delay: np.ndarray, transit: np.ndarray) -> np.ndarray:
    return _sample(_table().curves, _row(transit), delay)


def _physical(tmax, cbf, cbv) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Delay (s), transit time (s) and flow factor that the software turns into these values.

    Deconvolution finds less flow the shorter the transit, and the scan
    ends before the last of the bolus has passed; factors undo both (``gain``, ``area`` of the table).
    """
    table, flow, volume = _table(), np.ones(len(cbf)), np.ones(len(cbf))
    place = np.clip(tmax / 0.25, 0, len(table.tmax) - 1).round().astype(int)
    for _ in range(3):
        transit = 60 * cbv * volume / (cbf * flow)
        transit = np.clip(transit, TRANSITS_S[0], TRANSITS_S[-1])
        row = _row(transit).round().astype(int)
        delay = table.delay[row, place]
        at = np.clip(delay / 0.5, 0, len(DELAYS_S) - 1).round().astype(int)
        flow = 1 / np.maximum(table.gain[row, at], 0.05)
        volume = 1 / np.maximum(table.area[row, at], 0.2)
    return delay, transit, flow


# ------------------------------------------------------------------------------- deconvolution


@lru_cache(maxsize=1)
def _inverse() -> np.ndarray:
    """The truncated inverse of the block-circulant arterial matrix, (2 FRAMES, FRAMES)."""
    size = 2 * FRAMES
    artery = np.zeros(size)
    artery[:FRAMES] = _artery(FRAME_S * np.arange(FRAMES))
    column = FRAME_S * artery
    matrix = np.stack([np.roll(column, k) for k in range(size)], axis=1)
    u, s, v = np.linalg.svd(matrix)
    keep = s > TRUNCATION * s[0]
    inverse = np.einsum("ki,k,jk->ij", v[keep], 1 / s[keep], u[:, keep])
    return np.ascontiguousarray(inverse[:, :FRAMES]).astype(np.float32)


def _deconvolved(curves: np.ndarray, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Maps' values from time curves (n, FRAMES) in HU; delay is counted from the artery's arrival."""
    residue = np.einsum("nf,rf->nr", curves.astype(np.float32), _inverse(), optimize=True)
    peak = residue[:, : FRAMES - 2].argmax(axis=1)
    rows = np.arange(len(curves))
    before, top, after = residue[rows, peak - 1], residue[rows, peak], residue[rows, peak + 1]
    bend = np.minimum(before - 2 * top + after, -1e-9)
    shift = np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    area = FRAME_S * float(_artery(FRAME_S * np.arange(FRAMES)).sum())
    cbf = np.maximum(top / TISSUE / scale, 0.1)
    cbv = np.maximum(curves.sum(axis=1) * FRAME_S / area / TISSUE / 60, 0.05)
    return {
        "cbf": cbf,
        "cbv": cbv,
        "mtt": np.clip(60 * cbv / cbf, 1.2, 30),
        "tmax": np.clip((peak + shift) * FRAME_S, 0, 25),
    }
