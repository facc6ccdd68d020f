"""When the CTA was taken: enhancement of arteries and of the dural sinuses.

A scan taken too late shows veins as bright as arteries, which no segmentation without a model of
both can tell apart; one taken too early, or with too little contrast, shows neither. Under 150 HU the
arteries of a CTA count as poorly opacified.
"""

from __future__ import annotations

import numpy as np

from rlvo_lib.head import HeadFrame, head_frame
from rlvo_lib.images import voxel_sizes
from rlvo_lib.vessels.space import bounding_box, surroundings

POOR_HU = 150.0
LATE_RATIO = 0.8
BONE_HU, BONE_RIM_MM = 450.0, 1.8
LEAST_VOXELS = 30
SINUS_ML = 1.0  # the sinuses within a CTA's slab hold several


def contrast_phase(
    cta: np.ndarray,
    affine: np.ndarray,
    mask: np.ndarray,
    frame: HeadFrame | None = None,
) -> dict[str, float]:
    """HU of arteries and sinuses, and their ratio; NaN where there is too little to measure.

    cta : (X, Y, Z) HU with its 4x4 affine; mask : arteries on the same grid.
    arterial_hu : 90th percentile within the mask, so that the wide arteries count and partial volumes
    do not. venous_hu : what the brightest mL reaches, smoothed by 1 mm, where superior sagittal sinus,
    torcula, transverse and straight sinus run, away from bone and arteries. venous_ratio : their ratio above the brain's HU. The
    flags `poor_opacification` (arterial under 150 HU) and `late_phase` (ratio over 0.8) are 0 or 1.
    """
    from scipy import ndimage

    cta = np.asarray(cta)
    frame = head_frame(cta, affine, "cta") if frame is None else frame
    space = surroundings(cta, affine, frame)
    arteries = cta[np.asarray(mask) > 0]
    arterial = float(np.percentile(arteries, 95)) if len(arteries) >= LEAST_VOXELS else float("nan")
    venous = float("nan")
    zone = space.inside & space.veins & (space.head_mm[1] < -20)
    if zone.any():
        where = space.enlarged(zone, cta.shape)
        box = bounding_box(where)
        part, size = cta[box].astype(np.float32), voxel_sizes(affine)
        smooth = ndimage.gaussian_filter(part, np.minimum(1.0 / size, 2.0), truncate=2.0)
        apart = ndimage.distance_transform_edt(smooth < BONE_HU, sampling=size) > BONE_RIM_MM
        values = smooth[where[box] & apart & ~(np.asarray(mask)[box] > 0)]
        count = int(SINUS_ML * 1000 / np.prod(size))
        if len(values) >= 2 * count:
            venous = float(np.partition(values, -count)[-count])
    above = arterial - space.brain_hu
    ratio = (venous - space.brain_hu) / above if above > 20 else float("nan")
    return {
        "arterial_hu": arterial,
        "venous_hu": venous,
        "venous_ratio": ratio,
        "poor_opacification": float(not arterial >= POOR_HU),
        "late_phase": float(ratio > LATE_RATIO),
    }
