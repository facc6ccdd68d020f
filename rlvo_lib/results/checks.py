"""Method by check: which explanations can be believed, each by a criterion fixed before it was measured.

`explanation_checks` makes the table from ``attributions/checks.csv`` (`explain.checks_of_folds`, and for what needs
networks trained for the purpose `explain.label_rows`, `seed_rows`, `learnt_rows`, `null_rows`). Intervals are 95 %
percentile intervals of a bootstrap over patients, whose values are averaged over fold models first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import InputError

#: Of fewer patients no interval is made.
LEAST_PATIENTS = 5
ALIKE = (
    0.5  # rank correlation from which on two maps count as alike: a quarter of the variance shared
)
RELIABLE = 0.7  # the usual bound of reliability
SIGNIFICANT = 0.05
#: Methods that look at no model: they show what fails.
CONTROLS = ("edges", "random")
DATED = "of networks trained on simulated patients for it: studies/rlvo/explain"
RETRAINED = "needs networks trained for it: make explain-checks"
CHECK_TABLE_COLUMNS = [
    "arm", "method", "check", "value", "low", "high", "reference", "criterion", "verdict", "n", "reason", "data",
]  # fmt: skip


@dataclass(frozen=True)
class Check:
    """What is asked of an explanation, what is measured, when it passes, and what is missing if it is not made."""

    label: str
    asks: str
    measure: str
    criterion: str
    needs: str = "not measured"


CHECKS = {
    "model_randomisation": Check(
        "weights drawn anew",
        "Is the map another one when all of the network's weights are drawn anew?",
        "rank correlation of the maps' absolute values over the voxels of the head (Adebayo et al., 2018)",
        f"upper limit below {ALIKE:g}",
    ),
    "label_randomisation": Check(
        "outcomes dealt anew",
        "Is the map another one when the network was trained on outcomes dealt out anew?",
        "rank correlation of the maps' absolute values over the voxels of the head (Adebayo et al., 2018)",
        f"upper limit below {ALIKE:g}",
        RETRAINED,
    ),
    "deletion": Check(
        "deletion",
        "Does the logit fall sooner when what is marked is replaced by the mean image than in random order?",
        "area between the curves over the share of boxes, log-odds",
        "lower limit above 0",
    ),
    "insertion": Check(
        "insertion",
        "Does the logit rise sooner when what is marked is put into the mean image than in random order?",
        "area between the curves over the share of boxes, log-odds",
        "lower limit above 0",
    ),
    "stability_folds": Check(
        "fold models",
        "Do the fold models mark the same boxes of a patient they did not see?",
        "reliability of their mean map: Spearman and Brown of the mean rank correlation over boxes",
        f"lower limit of at least {RELIABLE:g}",
        "needs several fold models that explain the same patients",
    ),
    "stability_seeds": Check(
        "training seeds",
        "Do networks that differ in their seed alone mark the same boxes?",
        "reliability of their mean map: Spearman and Brown of the mean rank correlation over boxes",
        f"lower limit of at least {RELIABLE:g}",
        RETRAINED,
    ),
    "stability_shifts": Check(
        "shift by a voxel",
        "Does the map of an image moved by one voxel, moved back, mark the same boxes?",
        "rank correlation over boxes",
        f"lower limit of at least {RELIABLE:g}",
    ),
    "pointing": Check(
        "pointing game",
        "Does the highest voxel lie in the true lesion more often than a voxel of the head would?",
        "share of patients; its chance is the lesion's share of the head, patient by patient",
        f"p below {SIGNIFICANT:g}, one-sided, Poisson-binomial",
        "needs a simulated cohort, whose lesions are known",
    ),
    "enrichment": Check(
        "enrichment in the lesion",
        "Is more of the positive attribution in the true lesion than its volume would get?",
        "mean share of attribution over mean share of volume",
        "lower limit above 1",
        "needs a simulated cohort, whose lesions are known",
    ),
    "learnt": Check(
        "enrichment by learning",
        "Is more in the true lesion than with a network trained on outcomes dealt out anew?",
        "mean share of attribution over the mean share of that network",
        "lower limit above 1",
        RETRAINED,
    ),
    "null_scenario": Check(
        "nothing to find",
        "Is no region enriched where nothing predicts?",
        "enrichment of the region with the highest lower limit",
        "no region's lower limit above 1 (95 % for all regions together, Bonferroni)",
        RETRAINED,
    ),
}


@dataclass(frozen=True)
class _Found:
    """What a check found: its value with limits, what chance gives, whether it passes, and on whom."""

    value: float
    low: float
    high: float
    reference: float
    passes: bool
    n: int
    reason: str = ""


def explanation_checks(
    checks: pd.DataFrame, *, data: str, resamples: int = 2000, seed: int = 2025
) -> pd.DataFrame:
    """The table of methods and checks.

    Parameters
    ----------
    checks
        One row a patient and measurement: participant_id, arm, method, check, measure, part, value, reference.
    data
        ``simulated`` or ``real``.

    Returns
    -------
    DataFrame with `CHECK_TABLE_COLUMNS`: one row an arm, method and check of `CHECKS`, ``verdict`` pass, fail or
    ``not made`` with the reason. ``reference`` is what a map that knows nothing would get.

    Raises
    ------
    InputError
        For a missing column, or a check that is not known.
    """
    for column in (
        "participant_id",
        "arm",
        "method",
        "check",
        "measure",
        "part",
        "value",
        "reference",
    ):
        if column not in checks:
            raise InputError(f"checks of explanations: column '{column}' is missing")
    for name in checks["check"].unique():
        if name not in CHECKS:
            raise InputError(f"check '{name}' is not known; allowed: {', '.join(CHECKS)}")
    rows = []
    for arm, of_arm in checks.groupby("arm", sort=False):
        for method, of_method in of_arm.groupby("method", sort=False):
            for name in CHECKS:
                found = _judged(name, of_method[of_method["check"] == name], resamples, seed)
                rows.append((arm, method, name, *_cells(name, found)))
    return pd.DataFrame(rows, columns=CHECK_TABLE_COLUMNS[:-1]).assign(data=data)


def usable_methods(table: pd.DataFrame) -> list[str]:
    """The methods that fail no check that was made, and of which one was; never a control."""
    usable = []
    for method, rows in table.groupby("method", sort=False):
        verdicts = set(rows["verdict"])
        if "pass" in verdicts and "fail" not in verdicts and method not in CONTROLS:
            usable.append(str(method))
    return usable


def joined_checks(table: pd.DataFrame, dated: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """A run's table whose checks that were not made are filled in from a dated result of other networks.

    ``source`` says where from, in the reason of each such row. Rows of a method that the dated table does not
    have stay as they are; where it has several arms the first is taken. ``data`` stays the run's: what a row was measured
    on is in its reason.
    """
    other = dated.drop_duplicates(["method", "check"]).set_index(["method", "check"])
    rows = []
    for row in table.to_dict("records"):
        key = (row["method"], row["check"])
        if row["verdict"] == "not made" and key in other.index:
            made = other.loc[key]
            if made["verdict"] != "not made":
                kept = ("value", "low", "high", "reference", "verdict", "n")
                said = f"{source}; {made['reason']}" if _text(made["reason"]) else source
                row = row | {name: made[name] for name in kept} | {"reason": said}
        rows.append(row)
    return pd.DataFrame(rows, columns=table.columns)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _cells(name: str, found: _Found | str) -> tuple:
    """Value, limits, reference, criterion, verdict, n and reason of a row."""
    criterion = CHECKS[name].criterion
    if isinstance(found, str):
        return (*(np.nan,) * 4, criterion, "not made", 0, found)
    numbers = (found.value, found.low, found.high, found.reference)
    verdict = "pass" if found.passes else "fail"
    return (*numbers, criterion, verdict, found.n, found.reason)


def _judged(name: str, rows: pd.DataFrame, resamples: int, seed: int) -> _Found | str:
    """What a check found, or why it is not made."""
    if rows.empty:
        return CHECKS[name].needs
    rows = rows.dropna(subset=["value"])
    n = rows["participant_id"].nunique()
    if n < LEAST_PATIENTS:
        return (
            f"{n} patients with a map that is not flat; {LEAST_PATIENTS} are needed for an interval"
        )
    return _JUDGES[name](rows, resamples, seed)


# ---------------------------------------------------------------------------------- each check


def _unlike(rows: pd.DataFrame, resamples: int, seed: int) -> _Found:
    """Maps must differ from those of a network that learnt nothing."""
    values = _of_patients(rows[(rows["measure"] == "absolute") & (rows["part"] == "all")])["value"]
    mean, low, high = _mean_interval(values.to_numpy(), resamples, seed)
    return _Found(mean, low, high, 0.0, high < ALIKE, len(values))


def _reliable(rows: pd.DataFrame, resamples: int, seed: int) -> _Found:
    """Maps of M models must agree so far that their mean is reliable."""
    rows = rows[rows["measure"] == "boxes"]
    models = int(str(rows["part"].iloc[0]).split()[0])
    means = _of_patients(rows)
    limits = _mean_interval(means["value"].to_numpy(), resamples, seed)
    mean, low, high = (spearman_brown(r, models) for r in limits)
    other = spearman_brown(float(means["reference"].mean()), models)
    reason = f"{models} models; reference: their maps of different patients"
    return _Found(mean, low, high, other, low >= RELIABLE, len(means), reason)


def spearman_brown(r: float, models: int) -> float:
    """Reliability of the mean of so many maps whose mean correlation is r: m r / (1 + (m - 1) r); 0 for r < 0.

    >>> spearman_brown(0.5, 3)
    0.75
    """
    r = r if np.isnan(r) else max(r, 0.0)
    return models * r / (1 + (models - 1) * r)


def _steady(rows: pd.DataFrame, resamples: int, seed: int) -> _Found:
    """A map must hardly change when the image moves by a voxel."""
    values = _of_patients(rows[rows["measure"] == "boxes"])["value"].to_numpy()
    mean, low, high = _mean_interval(values, resamples, seed)
    return _Found(mean, low, high, 0.0, low >= RELIABLE, len(values))


def _sooner(sign: float) -> Callable[[pd.DataFrame, int, int], _Found]:
    """The logit must move sooner than with random orders; ``sign`` -1 where it is to fall."""

    def judge(rows: pd.DataFrame, resamples: int, seed: int) -> _Found:
        areas = curve_areas(rows, sign)
        mean, low, high = _mean_interval(areas.to_numpy(), resamples, seed)
        return _Found(mean, low, high, 0.0, low > 0, len(areas))

    return judge


def curve_areas(rows: pd.DataFrame, sign: float) -> pd.Series:
    """The area between each patient's curve and that of random orders, by participant_id (log-odds).

    ``part`` is the share of boxes as text ("5%"), ``value`` and ``reference`` the change of the logit; both curves
    meet at 0 and at 100 %. Trapezoids.
    """
    share = rows["part"].str.rstrip("%").astype(float) / 100
    gap = (rows["value"] - rows["reference"]) * sign
    wide = pd.DataFrame({"p": rows["participant_id"], "share": share, "gap": gap})
    wide = wide.pivot_table(index="p", columns="share", values="gap", aggfunc="mean", sort=True)
    x = np.concatenate([[0.0], wide.columns.to_numpy(float), [1.0]])
    y = np.pad(wide.to_numpy(), ((0, 0), (1, 1)))
    return pd.Series(((y[:, 1:] + y[:, :-1]) / 2) @ np.diff(x), index=wide.index)


def _points(rows: pd.DataFrame, resamples: int, seed: int) -> _Found:
    """The highest voxel must lie in the lesion more often than chance."""
    means = _of_patients(rows)
    hits, n = round(means["value"].sum()), len(means)
    p = poisson_binomial_tail(means["reference"].to_numpy(), hits)
    low, high = metrics.wilson(hits, n)
    chance = float(means["reference"].mean())
    return _Found(hits / n, low, high, chance, p < SIGNIFICANT, n, f"p = {p:.2g}")


def poisson_binomial_tail(chances: np.ndarray, hits: int) -> float:
    """Probability of so many hits or more when each patient has a chance of their own.

    >>> poisson_binomial_tail(np.array([0.5, 0.5]), 2)
    0.25
    """
    distribution = np.array([1.0])
    for chance in chances:
        distribution = np.convolve(distribution, [1 - chance, chance])
    return float(min(1.0, distribution[hits:].sum()))


def _enriched(rows: pd.DataFrame, resamples: int, seed: int) -> _Found:
    """The share of attribution must be more than that of the reference."""
    means = _of_patients(rows)
    value, low, high = _ratio_interval(means, resamples, seed)
    return _Found(value, low, high, 1.0, low > 1, len(means))


def _nothing(rows: pd.DataFrame, resamples: int, seed: int) -> _Found | str:
    """No region may be enriched; the limits hold for all regions together."""
    found, n = {}, 0
    groups = list(rows.groupby("part", sort=False))
    for region, part in groups:
        means = _of_patients(part)
        if len(means) < LEAST_PATIENTS or not means["reference"].sum() > 0:
            continue
        n = max(n, len(means))
        found[region] = _ratio_interval(means, resamples, seed, level=1 - 0.05 / len(groups))
    if not found:
        return "no region with a volume"
    highest = max(found, key=lambda region: found[region][1])
    enriched = [region for region, limits in found.items() if limits[1] > 1]
    said = f"{len(enriched)} of {len(found)} regions: {', '.join(enriched)}" if enriched else ""
    return _Found(*found[highest], 1.0, not enriched, n, said or f"highest: {highest}")


_JUDGES: dict[str, Callable[[pd.DataFrame, int, int], _Found | str]] = {
    "model_randomisation": _unlike,
    "label_randomisation": _unlike,
    "deletion": _sooner(-1.0),
    "insertion": _sooner(1.0),
    "stability_folds": _reliable,
    "stability_seeds": _reliable,
    "stability_shifts": _steady,
    "pointing": _points,
    "enrichment": _enriched,
    "learnt": _enriched,
    "null_scenario": _nothing,
}


# ----------------------------------------------------------------------------------- intervals


def _of_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Value and reference of each patient, averaged over whatever models they have; by participant_id."""
    return rows.groupby("participant_id", sort=True)[["value", "reference"]].mean()


def _draws(n: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, n) weights of patients drawn with replacement, of sum 1."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n


def _mean_interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean over patients and its limits."""
    means = _draws(len(values), resamples, seed) @ values
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def _ratio_interval(
    means: pd.DataFrame, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Ratio of the mean value to the mean reference, and its limits."""
    means = means.dropna()
    value, reference = (means[name].to_numpy() for name in ("value", "reference"))
    draws = _draws(len(means), resamples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = (draws @ value) / (draws @ reference)
        ratio = float(value.mean() / reference.mean())
    ratios = ratios[np.isfinite(ratios)]
    if not np.isfinite(ratio) or not ratios.size:
        return np.nan, np.nan, np.nan
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return ratio, float(low), float(high)


def check_labels(names: Sequence[str] = ()) -> dict[str, str]:
    """The words for some checks (default: all), for tables and figures."""
    return {name: CHECKS[name].label for name in names or CHECKS}


def check_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """One row a check, one column a method: verdict, value and limits in words; and ``data``.

    >>> row = {"method": "gradcam", "check": "deletion", "verdict": "pass", "value": 1.0, "low": 0.5, "high": 1.5}
    >>> check_matrix(pd.DataFrame([row | {"data": "simulated"}]))["gradcam"].tolist()
    ['pass: 1.00 [0.50, 1.50]']
    """
    words = []
    for row in table.itertuples():
        numbers = f": {row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
        words.append(row.verdict + (numbers if np.isfinite(row.value) else ""))
    wide = table.assign(words=words).pivot(index="check", columns="method", values="words")
    order = [name for name in CHECKS if name in wide.index]
    wide = wide.loc[order, table["method"].drop_duplicates().tolist()]
    wide.insert(0, "check", [CHECKS[name].label for name in order])
    return wide.reset_index(drop=True).rename_axis(columns=None).assign(data=table["data"].iloc[0])
