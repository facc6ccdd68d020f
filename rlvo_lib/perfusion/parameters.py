"""Volumes and ratios of a patient's perfusion maps, as the field's software reports them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlvo_lib.config.imaging import PERFUSION_PARAMETERS as NAMES
from rlvo_lib.perfusion.regions import DEFICIT_S, THRESHOLDS_S, Regions, regions

__all__ = ["NAMES", "Parameters", "measure", "parameters_of"]

BOTH_SIDES = (
    0.5  # late flow of the other side, as a share of the affected one's, from which on a flag
)


@dataclass(frozen=True)
class Parameters:
    """What was measured: each name of `NAMES` is in ``values`` or, with the reason, in ``reasons``."""

    values: dict[str, float]  # mL, or a ratio
    reasons: dict[str, str]  # why a parameter does not apply
    side: str  # the hemisphere that was measured: "left", "right" or "none"
    tmax_side: str  # the hemisphere with more Tmax > 6 s: "left", "right" or "none"
    flags: tuple[str, ...] = ()  # what a person should look at

    def record(self) -> dict[str, Any]:
        """The same as plain values that JSON can hold, numbers rounded to four digits."""
        rounded = {name: round(value, 4) for name, value in self.values.items()}
        return asdict(self) | {"values": rounded, "flags": list(self.flags)}


def measure(
    cbf: np.ndarray,
    cbv: np.ndarray,
    tmax: np.ndarray,
    affine: np.ndarray,
    midline: np.ndarray,
    side: str | None = None,
    brain: np.ndarray | None = None,
) -> Parameters:
    """The parameters of one patient; arguments as `regions`.

    Core is flow under 30 % of the healthy hemisphere's mean within the deficit of Tmax > 6 s, so that
    it is never larger than the deficit. Only the affected hemisphere counts; what was left out of
    Tmax > 6 s is ``artefact_islands_ml``.

    >>> flow = np.zeros((20, 10, 10), np.float32); flow[1:19, 1:9, 1:9] = 50
    >>> late = np.where(flow > 0, 2.0, 0); late[2:6, 2:6, 2:6] = 8; flow[3:5, 3:5, 2:6] = 6
    >>> affine = np.diag([5.0, 5, 5, 1]); plane = np.array([1.0, 0, 0, 47.5])
    >>> found = measure(flow, flow / 15, late, affine, plane)
    >>> found.side, found.reasons
    ('left', {})
    >>> [round(found.values[name], 3) for name in ("tmax6_ml", "core_rcbf30_ml", "hir_tmax10_tmax6")]
    [8.0, 2.0, 0.0]
    """
    return parameters_of(regions(cbf, cbv, tmax, affine, midline, side, brain), cbv)


def parameters_of(found: Regions, cbv: np.ndarray) -> Parameters:
    """The parameters of regions that are known already; `cbv` is the map they were found in."""
    ml = found.voxel_ml
    late = {s: float(np.count_nonzero(found.late[s])) * ml for s in THRESHOLDS_S}
    values = {f"tmax{s}_ml": late[s] for s in THRESHOLDS_S}
    values["artefact_islands_ml"] = float(np.count_nonzero(found.artefact)) * ml
    reasons: dict[str, str] = {}
    none_late = "no tissue with Tmax > 6 s"
    deficit = found.late[DEFICIT_S]
    if late[DEFICIT_S] > 0:
        values["hir_tmax10_tmax6"] = late[10] / late[DEFICIT_S]
    else:
        reasons["hir_tmax10_tmax6"] = none_late
    if math.isnan(found.mean_cbf):
        lacking = "no healthy hemisphere with flow in the maps to normalise by"
        reasons |= dict.fromkeys((n for n in NAMES if "rcbf" in n or n.startswith("cbv_")), lacking)
        return _in_order(values, reasons, found, _flags(found, late[DEFICIT_S]))
    core = float(np.count_nonzero(found.core)) * ml
    values["core_rcbf30_ml"] = core
    values["mismatch_tmax6_rcbf30_ml"] = late[DEFICIT_S] - core
    if core > 0:
        values["mismatch_ratio_tmax6_rcbf30"] = late[DEFICIT_S] / core
    else:
        reasons["mismatch_ratio_tmax6_rcbf30"] = "no core: nothing to divide by"
    if not deficit.any():
        reasons["cbv_index_tmax6"] = none_late
    else:
        values["cbv_index_tmax6"] = float(cbv[deficit].mean(dtype=float)) / found.mean_cbv
    return _in_order(values, reasons, found, _flags(found, late[DEFICIT_S]))


def _in_order(
    values: dict[str, float], reasons: dict[str, str], found: Regions, flags: tuple[str, ...]
) -> Parameters:
    return Parameters(
        values={name: values[name] for name in NAMES if name in values},
        reasons={name: reasons[name] for name in NAMES if name in reasons},
        side=found.side,
        tmax_side=found.tmax_side,
        flags=flags,
    )


def _flags(found: Regions, late_ml: float) -> tuple[str, ...]:
    if found.side == "none" or found.other_ml <= BOTH_SIDES * late_ml:
        return ()
    other = "right" if found.side == "left" else "left"
    if late_ml == 0:
        return (f"late flow on the {other} only, {found.other_ml:.0f} mL, which is not counted",)
    return (
        f"late flow on both sides: Tmax > 6 s in {late_ml:.0f} mL on the {found.side} and, not "
        f"counted, {found.other_ml:.0f} mL on the {other}",
    )
