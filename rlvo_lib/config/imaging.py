"""What a study file says of its images: scans, channels of the tensor, and the grid they lie on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlvo_lib.config.errors import InputError

SCAN_KINDS = ("ct", "map", "mask")
SPACES = ("head", "template")
ALIGNMENTS = ("symmetry", "rigid", "affine")
OTHER_HEADS = ("absent", "flag")
REGIONS = ("hemisphere", "convexity", "head")
SIDES = ("left", "right", "none")
#: The folder of a dataset that no model may read: the truth of simulated patients lies there.
DERIVATIVES = "derivatives"
#: What is measured from perfusion maps (`rlvo_lib.perfusion`), each with its threshold in its name.
PERFUSION_PARAMETERS = (
    "core_rcbf30_ml", "tmax4_ml", "tmax6_ml", "tmax8_ml", "tmax10_ml", "mismatch_tmax6_rcbf30_ml",
    "mismatch_ratio_tmax6_rcbf30", "hir_tmax10_tmax6", "cbv_index_tmax6", "artefact_islands_ml",
)  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """A scan of a patient: where it lies in a dataset folder (``{0}`` is the participant) and what it is.

    ``kind`` is ``ct`` (HU), ``map`` (a quantity in ``unit``, of which 99 % of voxels lie within
    ``[low, high]``) or ``mask`` (0 and 1).
    """

    path: str
    kind: str
    unit: str = ""
    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True)
class Channel:
    """One channel of the model tensor: a scan, and the window ``[low, high]`` that becomes 0..1.

    ``minus_mirror = [a, b]``: the channel is the scan, clipped to a..b, minus its own mirror image
    in the mid-sagittal plane: what differs from the other hemisphere. ``low`` and ``high`` are then
    differences, and no difference lies at (0 - low) / (high - low).
    """

    scan: str
    low: float
    high: float
    unit: str
    minus_mirror: tuple[float, float] | None = None


@dataclass(frozen=True)
class Grid:
    """Where the tensor's grid lies.

    space : ``head``: it follows each patient's head; ``template``: the scans already share a
        standard space, in which it stands still around ``centre_mm`` (world mm, RAS+).
    alignment : of a head: ``symmetry`` (its own mirror symmetry and outline, rigid, no pitch),
        ``rigid`` or ``affine`` (registered to the template; affine also brings it to one size).
    region : ``hemisphere`` (the affected one, from 12 mm across the midline, circle of Willis to
        near the convexity), ``convexity`` (both, circle of Willis to near the convexity) or
        ``head`` (centred on the cranium). How much of it fits is the settings' grid shape and spacing.
    other_head : what becomes of a CTA that shows another head than the NCCT: ``absent`` (it and its
        vessels count as absent, with the reason) or ``flag`` (it is used, and flagged).
    """

    space: str = "head"
    alignment: str = "affine"
    region: str = "hemisphere"
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    other_head: str = "absent"


@dataclass(frozen=True)
class View:
    """A second grid beside the tensor's, in the head's axes: finer, or of another part of the head.

    channels : of the study, with their windows. shape, spacing_mm : voxels along x, y, z, and their edge.
    centre_mm : its centre on the affected side: mm outwards from the midline, anterior, superior (from
        the vertex), of the template. follow : ``occlusion``: its centre is where the vessel graph found the
        occlusion on the affected side, plus ``offset_mm`` (the same axes); where it found none, ``centre_mm``.
    """

    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    spacing_mm: float
    centre_mm: tuple[float, float, float]
    follow: str = ""
    offset_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


def read_views(raw: Mapping[str, Any]) -> dict[str, View]:
    """The study file's table ``[views]``."""
    views = {}
    for name, entry in raw.get("views", {}).items():
        given = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        views[name] = View(**given)
    return views


def read_scans(raw: Mapping[str, Any]) -> dict[str, Scan]:
    """The study file's table ``[scans]``."""
    return {name: Scan(**scan) for name, scan in raw.get("scans", {}).items()}


def read_channels(raw: Mapping[str, Any]) -> dict[str, Channel]:
    """The study file's table ``[channels]``."""
    channels = {}
    for name, entry in raw.get("channels", {}).items():
        clip = entry.get("minus_mirror")
        clip = {"minus_mirror": tuple(map(float, clip))} if clip is not None else {}
        channels[name] = Channel(**(entry | clip))
    return channels


def read_grid(raw: Mapping[str, Any]) -> Grid:
    """The study file's table ``[grid]``."""
    entry = raw.get("grid", {})
    return Grid(**(entry | {"centre_mm": tuple(map(float, entry.get("centre_mm", (0, 0, 0))))}))


def check_imaging(
    scans: Mapping[str, Scan],
    channels: Mapping[str, Channel],
    grid: Grid,
    views: Mapping[str, View],
    refuse: Callable[[str, Any, Any], None],
    where: str,
) -> None:
    """Calls `refuse` (what, value, allowed) at the first entry of the file `where` that makes no sense."""
    for name, scan in scans.items():
        if scan.kind not in SCAN_KINDS:
            refuse(f"kind of scan '{name}'", scan.kind, SCAN_KINDS)
        if "{0}" not in scan.path:
            refuse(f"path of scan '{name}'", scan.path, ("a path with {0} for the participant",))
        if DERIVATIVES in re.split(r"[\\/]", scan.path.casefold()):
            raise InputError(
                f"{where}: path of scan '{name}' is '{scan.path}'; allowed: a path outside "
                f"{DERIVATIVES}/, which no model may read"
            )
    for name, channel in channels.items():
        if channel.scan not in scans:
            refuse(f"scan of channel '{name}'", channel.scan, scans)
        if not channel.low < channel.high:
            window = f"{channel.low} to {channel.high}"
            refuse(f"window of channel '{name}'", window, ("low < high",))
        clip = channel.minus_mirror
        if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
            refuse(f"minus_mirror of channel '{name}'", list(clip), ("two numbers, low < high",))
        if clip is not None and grid.space != "head":
            refuse(f"minus_mirror of channel '{name}'", list(clip), ("none in template space",))
    for what, value, allowed in (
        ("space", grid.space, SPACES),
        ("alignment", grid.alignment, ALIGNMENTS),
        ("region", grid.region, REGIONS),
        ("other_head", grid.other_head, OTHER_HEADS),
    ):
        if value not in allowed:
            refuse(f"{what} of the grid", value, allowed)
    for name, view in views.items():
        for channel in view.channels:
            if channel not in channels:
                refuse(f"channel of view '{name}'", channel, channels)
        if view.follow not in ("", "occlusion"):
            refuse(f"follow of view '{name}'", view.follow, ("occlusion",))
        whole = all(isinstance(n, int) and n >= 8 for n in view.shape)
        if len(view.shape) != 3 or not whole or not view.spacing_mm > 0:
            shape = f"{list(view.shape)} of {view.spacing_mm} mm"
            refuse(
                f"grid of view '{name}'", shape, ("three whole numbers from 8, spacing above 0",)
            )
        if len(view.centre_mm) != 3 or len(view.offset_mm) != 3:
            refuse(f"centre of view '{name}'", str(view.centre_mm), ("three numbers",))
        if grid.space != "head":
            refuse(f"view '{name}'", name, ("none in template space",))
    if len(grid.centre_mm) != 3:
        refuse("centre_mm of the grid", str(grid.centre_mm), ("three numbers",))
