"""Where attribution falls: regions against what their volume alone would get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import COLOURS, GRID, INK, NO_SKILL, Figure, canvas, name_of, need

KINDS = {"structure": "Structures", "territory": "Territories", "truth": "True lesion\n(simulator)"}


def region_forest(
    enrichment: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    methods: Sequence[str] = (),
    failing: Sequence[str] = (),
) -> Figure:
    """Enrichment of the positive attribution in each region, a panel a method (`results.region_enrichment`).

    The dashed line at 1 is what the region's volume alone would get; the axis is logarithmic. A region
    without an interval is left empty.

    Parameters
    ----------
    methods : panels, in order; empty: all of the table.
    failing : methods whose panel says that they failed a check.
    """
    frame = need(enrichment, "method", "kind", "region", "enrichment", "low", "high")
    shown = [m for m in (methods or frame["method"].unique()) if m in set(frame["method"])]
    if not shown:
        raise InputError("figure of regions: no row of these methods")
    frame = frame[frame["enrichment"].notna()]
    if frame.empty:
        raise InputError("figure of regions: no region has a value")
    regions = frame[["kind", "region"]].drop_duplicates().sort_values(
        "kind", key=lambda kinds: kinds.map(list(KINDS).index), kind="stable"
    )  # fmt: skip
    names = [
        region.upper() if kind == "territory" and len(region) == 3 else region.replace("_", " ")
        for kind, region in regions.to_numpy()
    ]
    figure = canvas(
        2.3 + 1.75 * len(shown), 1.5 + 0.27 * len(names), 1, len(shown), sharey=True, sharex=True,
        squeeze=False,
    )  # fmt: skip
    y = np.arange(len(names))
    for k, (axis, method) in enumerate(zip(figure.axes, shown, strict=True)):
        own = regions.merge(frame[frame["method"] == method], how="left", on=["kind", "region"])
        low, middle, high = (own[c].to_numpy(float) for c in ("low", "enrichment", "high"))
        axis.axvline(1, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1)
        known = np.isfinite(middle) & (middle > 0)
        spread = np.nan_to_num(np.abs([middle - low, high - middle])[:, known])
        axis.errorbar(
            middle[known], y[known], xerr=spread, fmt="o", color=COLOURS[k % len(COLOURS)],
            markersize=4, capsize=2,
        )  # fmt: skip
        note = "\n(failed a check)" if method in failing else ""
        axis.set_title(f"{name_of(labels, method)}{note}", fontsize=8, color=INK)
        axis.grid(axis="x", color=GRID, linewidth=0.6)
    first = figure.axes[0]
    first.set(yticks=y, ylim=(len(names) - 0.4, -0.6), xscale="log")
    first.set_yticklabels(names, fontsize=8)
    start = 0
    for kind, count in regions["kind"].value_counts(sort=False).items():
        words = KINDS[kind]
        first.text(
            -0.95, start + (count - 1) / 2, words, transform=first.get_yaxis_transform(), rotation=90,
            fontsize=8, fontweight="bold", color=INK, ha="center", va="center",
        )  # fmt: skip
        if start:
            for axis in figure.axes:
                axis.axhline(start - 0.5, color=GRID, linewidth=1)
        start += count
    ticks = [0.25, 0.5, 1, 2, 4, 8]
    for axis in figure.axes:
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks], fontsize=7.5)
        axis.minorticks_off()
    figure.supxlabel("Share of the positive attribution / share of the volume [95 % CI over patients]", fontsize=9)  # fmt: skip
    return figure
