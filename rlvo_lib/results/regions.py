"""Where attribution falls, against what a region's volume alone would get."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.results.checks import usable_methods

COLUMNS = (
    "arm", "method", "kind", "region", "n", "volume_share", "share", "enrichment", "low", "high",
    "enrichment_negative", "low_negative", "high_negative", "over_control", "low_over_control",
    "high_over_control", "hit_rate", "chance", "reason", "data",
)  # fmt: skip
NEEDED = ("participant_id", "arm", "method", "region", "kind", "share", "share_negative", "volume_share", "hit")  # fmt: skip
LEAST = 2  # patients of an interval
CONTROL = "edges"  # the method that knows the image and no model


def region_enrichment(
    regions: pd.DataFrame, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """Attribution in each region, as a multiple of what its volume would get, with a 95 % interval over patients.

    Enrichment is the mean share of the attribution over the mean share of the volume (a ratio of means): 1 is what a
    map that knows nothing gets. A mean of patients' ratios would be ruled by those whose region is a few voxels, and
    a geometric mean has no value where one patient's region gets nothing.

    Any map that follows the image is enriched where the image has edges, as at vessels, whatever the model: only
    what exceeds the control `CONTROL` says something of the model.

    Parameters
    ----------
    regions : `explain.region_shares`; a row a patient, method, kind and region. A patient without the region, or
        whose map is flat, counts in neither mean.

    Returns
    -------
    DataFrame with `COLUMNS`: n patients; mean shares; enrichment of the positive attribution, [low, high] by
    percentile bootstrap over patients; the same of the negative one; over_control: mean share over that of the
    method ``edges`` in the same patients, with its interval; hit_rate: how often the highest voxel lies in
    the region, beside chance, the mean share of the volume. NaN with a reason where nothing can be said.

    Examples
    --------
    >>> one = {"arm": "a", "method": "m", "region": "core", "kind": "structure", "share_negative": 0.0, "hit": 1.0}
    >>> rows = [one | {"participant_id": p, "share": s, "volume_share": 0.1} for p, s in zip("ab", (0.2, 0.4))]
    >>> region_enrichment(pd.DataFrame(rows), data="simulated")[["enrichment", "hit_rate"]].iloc[0].tolist()
    [3.0000000000000004, 1.0]
    """
    for column in NEEDED:
        if column not in regions:
            raise InputError(f"regions: column '{column}' is missing")
    rows = []
    edges = regions[regions["method"] == CONTROL].set_index(
        ["arm", "kind", "region", "participant_id"]
    )["share"]
    for keys, part in regions.groupby(["arm", "method", "kind", "region"], sort=False):
        arm, method, kind, region = keys
        same = [(arm, kind, region, p) for p in part["participant_id"]]
        control = np.nan if method == CONTROL else edges.reindex(same).to_numpy()
        rows.append((*keys, *_row(part.assign(control=control), resamples, seed), data))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(part: pd.DataFrame, resamples: int, seed: int) -> tuple:
    ordered = part.sort_values("participant_id")
    known = ordered[ordered["share"].notna()]
    against = ordered[ordered["share_negative"].notna()]
    paired = known[known["control"].notna()]
    hits = ordered["hit"].dropna()
    volume = float(known["volume_share"].mean()) if len(known) else np.nan
    reason = ""
    if len(known) < LEAST:
        reason = f"{len(known)} patients with a map that is not flat; {LEAST} are needed"
    return (
        len(known), volume, float(known["share"].mean()) if len(known) else np.nan,
        *_ratio(known["share"], known["volume_share"], resamples, seed),
        *_ratio(against["share_negative"], against["volume_share"], resamples, seed),
        *_ratio(paired["share"], paired["control"], resamples, seed),
        float(hits.mean()) if len(hits) else np.nan, volume, reason,
    )  # fmt: skip


def _ratio(
    share: pd.Series, volume: pd.Series, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Ratio of the means and its percentile bootstrap interval over patients; NaN where nothing divides."""
    n = len(share)
    if n < LEAST:
        return np.nan, np.nan, np.nan
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    above, below = draws @ share.to_numpy(float), draws @ volume.to_numpy(float)
    if not (below > 0).all():
        return np.nan, np.nan, np.nan
    low, high = np.quantile(above / below, [0.025, 0.975])
    return float(share.mean() / volume.mean()), float(low), float(high)


CLAIM_COLUMNS = (
    "arm", "rank", "method", "kind", "region", "enrichment", "low", "high", "n", "reason", "data",
)  # fmt: skip


def region_claims(enrichment: pd.DataFrame, checks: pd.DataFrame, *, data: str) -> pd.DataFrame:
    """The regions that may be claimed: enriched by a method that failed no check, and more than the image's edges are.

    Parameters
    ----------
    enrichment, checks : `region_enrichment` and `explanation_checks` of one arm.

    Returns
    -------
    DataFrame with `CLAIM_COLUMNS`, structures and territories whose interval lies above 1, and that of the
    enrichment over the edges' too; the highest lower limit first. Where there is none, one row that gives the reason.
    """
    usable = usable_methods(checks)
    rows = enrichment[enrichment["method"].isin(usable) & (enrichment["kind"] != "truth")]
    rows = rows[(rows["low"] > 1) & (rows["low_over_control"] > 1)].sort_values(
        ["low", "region"], ascending=[False, True]
    )
    if rows.empty:
        arm = enrichment["arm"].iloc[0] if len(enrichment) else ""
        why = (
            "no region's intervals lie above 1" if usable else "no method passed all of its checks"
        )
        rows = pd.DataFrame([{"arm": arm, "method": "", "kind": "", "region": "", "reason": why}])
    made = rows.reset_index(drop=True).assign(data=data)
    made["rank"] = range(1, len(made) + 1)
    return made.reindex(columns=list(CLAIM_COLUMNS))
