"""All that one patient's tensor depends on, besides the content of the files."""

from __future__ import annotations

from dataclasses import dataclass

from rlvo_lib.config import Channel, Grid, Scan, View


@dataclass(frozen=True)
class Task:
    """One patient's work: their scans, and what the study and the settings want made of them."""

    participant_id: str
    root: str
    scans: dict[str, str]  # name -> path
    kinds: dict[str, Scan]  # name -> what the study file says of it
    side: str | None
    flip_to_side: str
    grid: Grid
    channels: dict[str, Channel]
    views: dict[str, View]
    grid_shape: tuple[int, int, int]
    grid_spacing_mm: float
    template: str  # a CT template's file; empty: the package's own
    excluded: dict[str, str]  # scans that a person set aside, with the reason
