"""One bootstrap for all scores: those of the same patients are judged on the same resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlvo_lib import metrics
from rlvo_lib.results.evaluation.scored import Scored

RESAMPLES, SEED = 2000, 2025
#: Resamples times patients times scores that are worth waiting for, and the fewest resamples.
WORTH, FEWEST = 2e8, 200
#: Statistics of resamples that draw patients whatever their outcome: they depend on prevalence.
WHOEVER = ("average_precision", "f1", "brier", "scaled_brier")


@dataclass(frozen=True)
class Resampled:
    """Replicates ``(resamples,)`` by statistic, for each score by name."""

    values: Mapping[str, Mapping[str, np.ndarray]]
    resamples: int
    seed: int

    def limits(self, score: str, statistic: str) -> tuple[float, float, str, str]:
        return percentiles(self.values[score][statistic], stratified=statistic == "auc")


def resamples_for(patients: int, scores: int, wanted: int | None) -> tuple[int, str]:
    """How many resamples, and a note where that is fewer than usual because the table is large.

    >>> resamples_for(118, 3, None)
    (2000, '')
    >>> resamples_for(100_000, 10, None)[0]
    200
    """
    if wanted is not None:
        return wanted, ""
    few = max(FEWEST, min(RESAMPLES, int(WORTH // (patients * scores))))
    return few, (
        f"{few} bootstrap resamples in place of {RESAMPLES}, because the table is large (--resamples)"
        if few < RESAMPLES
        else ""
    )


def resampled(scores: Sequence[Scored], *, resamples: int, seed: int) -> Resampled:
    """Replicates of every score.

    AUC: stratified by outcome. Others: patients are drawn whatever their outcome, NaN where a resample has
    one class only. F1 at the score's threshold. Brier scores of probabilities only.
    """
    groups: dict[tuple, list[Scored]] = {}
    for score in scores:
        groups.setdefault((score.rows.tobytes(), score.probability), []).append(score)
    found: dict[str, dict[str, np.ndarray]] = {}
    for (_, probability), group in groups.items():
        y, columns = group[0].y, np.column_stack([score.s for score in group])
        drawn = metrics.bootstrap_many(
            y, columns, ("auc",), stratified=True, n=resamples, seed=seed
        ) | metrics.bootstrap_many(
            y, columns, WHOEVER if probability else WHOEVER[:2],
            thresholds=[score.cut[0] for score in group],
            stratified=False, n=resamples, seed=seed,
        )  # fmt: skip
        for k, score in enumerate(group):
            found[score.name] = {statistic: values[:, k] for statistic, values in drawn.items()}
    return Resampled(found, resamples, seed)


def percentiles(replicates: np.ndarray, *, stratified: bool) -> tuple[float, float, str, str]:
    """95 % percentile limits of the replicates that are not NaN, how they were found, and why they are NaN.

    >>> percentiles(np.ones(100), stratified=True)[2:]
    ('stratified bootstrap, percentile, 100 resamples', 'the same value in every resample: no interval')
    """
    kept = replicates[~np.isnan(replicates)]
    dropped = replicates.size - kept.size
    kind = "stratified bootstrap" if stratified else "bootstrap over patients"
    text = f"{kind}, percentile, {kept.size} resamples"
    text += f" ({dropped} of one class only dropped)" if dropped else ""
    if not kept.size:
        return np.nan, np.nan, text, "every resample has one class only: no interval"
    if np.ptp(kept) < 1e-15:
        return np.nan, np.nan, text, "the same value in every resample: no interval"
    low, high = np.quantile(kept, [0.025, 0.975])
    return float(low), float(high), text, ""
