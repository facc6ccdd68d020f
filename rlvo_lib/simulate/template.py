"""The package's own head template, made from the embedded anatomy: `make template`.

The mean of many simulated heads (their folding, atrophy, scalp and skull differ; one size, no turn),
as a non-contrast CT without noise, in HU. Head mm of the anatomy become template mm: the same axes,
the origin moved to where `rlvo_lib.head.head_frame` puts a head's own (mid-plane, middle of its
length, vertex). The mid-plane lies exactly between two columns of voxels, and the template equals its
mirror image bit by bit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from rlvo_lib import images
from rlvo_lib.head import head_frame
from rlvo_lib.registration.template import TEMPLATE_FILE
from rlvo_lib.simulate.anatomy import Grid, Pose, build_head
from rlvo_lib.simulate.ct import tissue

HEADS = 48
SEED = 2026
STEP_MM = 2.5
SHAPE = (64, 82, 72)
FLOOR_MM = -85.0  # head mm of the lowest voxels, under the skull base
FRONT_MM = 90.0
DESCRIPTION = "SIMULATED DATA: mean of simulated heads, HU, symmetric; rlvo-repro"


def grid() -> Grid:
    """The template's voxels in head mm."""
    low = (-STEP_MM * (SHAPE[0] - 1) / 2, FRONT_MM - STEP_MM * (SHAPE[1] - 1), FLOOR_MM)
    return Grid(SHAPE, (STEP_MM,) * 3, low)


def build() -> tuple[np.ndarray, np.ndarray]:
    """The template, (X, Y, Z) int16 HU, and its affine (voxels to template mm); always the same."""
    rng = np.random.default_rng(SEED)
    pose = Pose(np.eye(3), np.ones(3), np.zeros(3))
    total = np.zeros(SHAPE, dtype=np.float64)
    for _ in range(HEADS):
        age = float(np.clip(rng.normal(70, 12), 40, 95))
        total += tissue(build_head({"age": age}, pose, STEP_MM, rng), grid())
    mean = total / HEADS
    mean = np.rint((mean + mean[::-1]) / 2).astype(np.int16)
    affine = grid().affine
    origin = head_frame(mean.astype(np.float32), affine).affine[:3, 3]
    affine[1:3, 3] -= origin[1:].round(1)
    return mean, affine


def write(path: str | Path) -> Path:
    """Write the template as NIfTI; the same bytes each time."""
    return images.save_nifti(path, *build(), description=DESCRIPTION, level=9)


if __name__ == "__main__":
    print(write(sys.argv[1] if len(sys.argv) > 1 else TEMPLATE_FILE))
