"""What the published test set can say of an AUC, of a difference and of an F1: drawn again and again.

The test sets drawn are binormal with equal variances (`rlvo_lib.metrics.binormal`): every number
marked as a simulation depends on that shape. Each simulation has a seed of its own, the seed given
plus a fixed number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib.metrics import binormal
from rlvo_lib.metrics import sample_size as size
from rlvo_lib.metrics.checks import quantile
from rlvo_lib.results.planning import points_of
from rlvo_lib.results.published import (
    EXACT,
    FORMULA,
    HALF_PRINTED,
    Model,
    Published,
    statement,
)

CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.9)
SMALL_GAIN = 0.05  # a difference in AUC that a better model may realistically bring
NEAR_AUC, NEAR_DIFFERENCE, NEAR_F1 = (
    0.01,
    0.01,
    0.02,
)  # how near an observed value is to a published
ALPHA = 0.05
Rows = Iterator[dict[str, Any]]


def _simulated(draws: int, seed: int, kept: int | None = None) -> str:
    some = "" if kept is None else f" ({kept} kept)"
    return f"simulation, {draws} draws{some}, seed {seed}"


# -------------------------------------------------------------------------------------- one AUC


def one_auc(paper: Published, *, draws: int, seed: int) -> Rows:
    """The sampling error of each published AUC: by formula, and of drawn test sets."""
    for number, model in enumerate(paper.with_auc):
        yield from _errors(paper, model)
        yield from _drawn_auc(paper, model, draws, seed + 100 + number)


def _errors(paper: Published, model: Model) -> Rows:
    events, n = paper.counts
    own = f"{model.label}, AUC {model.auc:.2f} from {events} events of {n}"
    se = size.auc_se(model.auc, events, n)
    half = quantile(0.95) * se
    low, high = model.auc - half, model.auc + half
    how = f"{FORMULA} (hanley-mcneil)"
    yield statement(f"auc-se-{model.id}", f"{own}: SE {se:.4f}", se, "SE of AUC", how, model.auc)
    words = f"{own}: 95 % interval {low:.3f} to {high:.3f}, width {2 * half:.3f}"
    for name, value, what in (
        ("low", low, "lower limit of AUC"),
        ("high", high, "upper limit of AUC"),
        ("width", 2 * half, "width"),
    ):
        yield statement(f"auc-{name}-{model.id}", words, value, what, how, model.auc)
    exact = size.auc_se(model.auc, events, n, "binormal")
    words = f"{own}: SE {exact:.4f} if the scores are normal"
    yield statement(
        f"auc-se-binormal-{model.id}", words, exact, "SE of AUC", f"{FORMULA} (binormal)", model.auc
    )
    if not model.auc_sd > 0:
        return
    for method, value in (("hanley-mcneil", se), ("binormal", exact)):
        ratio = value / model.auc_sd
        words = f"{own}: the SE is {ratio:.1f} times the published ± {model.auc_sd:.2f}"
        yield statement(
            f"auc-se-ratio-{method}-{model.id}", words, ratio, "ratio", f"{FORMULA} ({method})", model.auc_sd
        )  # fmt: skip


def _drawn_auc(paper: Published, model: Model, draws: int, seed: int) -> Rows:
    sets = binormal.simulate_auc(model.auc, *paper.counts, draws=draws, seed=seed)
    how, own = _simulated(draws, seed), f"{model.label}, true AUC {model.auc:.2f}"
    width = sets["high"] - sets["low"]
    short, long = np.quantile(width, [0.05, 0.95])
    words = f"{own}: DeLong intervals are {width.mean():.3f} wide on average, {short:.3f} to {long:.3f} in 90 %"
    for name, value, what in (
        ("mean", width.mean(), "mean width"),
        ("p5", short, "width, 5 % quantile"),
        ("p95", long, "width, 95 % quantile"),
    ):
        yield statement(f"delong-width-{name}-{model.id}", words, value, what, how, model.auc)
    near = (sets["auc"] - model.auc).abs() <= NEAR_AUC
    value, kept = _mean(width[near]), int(near.sum())
    words = (
        f"{own}: where the observed AUC is within {NEAR_AUC:.2f} of it, they are {value:.3f} wide"
    )
    yield statement(
        f"delong-width-given-{model.id}", words, value, "mean width", _simulated(draws, seed, kept), model.auc
    )  # fmt: skip
    for name, low, high in (("Wald", "low", "high"), ("logit", "logit_low", "logit_high")):
        covered = float(((sets[low] <= model.auc) & (model.auc <= sets[high])).mean())
        words = f"{own}: nominal 95 % DeLong intervals ({name}) cover it in {covered * 100:.1f} %"
        yield statement(
            f"coverage-{name.lower()}-{model.id}", words, covered, "probability", how, model.auc
        )
    low, high = np.quantile(sets["auc"], [0.025, 0.975])
    words = f"{own}: the middle 95 % of observed AUCs run from {low:.3f} to {high:.3f}"
    yield statement(f"observed-low-{model.id}", words, low, "AUC, 2.5 % quantile", how, model.auc)
    yield statement(
        f"observed-high-{model.id}", words, high, "AUC, 97.5 % quantile", how, model.auc
    )
    above = float((sets["low"] > 0.5).mean())
    words = f"{own}: significantly above 0.5 (two-sided 5 %, DeLong) with probability {above:.2f}"
    yield statement(f"significant-{model.id}", words, above, "probability", how, model.auc)


def _mean(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")


# ---------------------------------------------------------------------------- paired difference


def paired_difference(paper: Published, *, draws: int, seed: int) -> Rows:
    """What the published difference in AUC can mean, by the correlation of the two models."""
    for number, (a, b) in enumerate(paper.pairs):
        yield from _difference_errors(paper, a, b)
        yield from _difference_sizes(paper, a, b)
        for k, correlation in enumerate(CORRELATIONS):
            own = seed + 200 + 20 * number + 2 * k
            yield from _drawn_difference(paper, a, b, correlation, draws, own)
    for number, model in enumerate(paper.with_auc):
        yield from _auto_direction(paper, model, draws, seed + 300 + number)
    if paper.with_auc:
        useless = Model("useless", "a useless model", 0.5, np.nan, np.nan)
        yield from _auto_direction(paper, useless, draws, seed + 299)


def _difference_errors(paper: Published, a: Model, b: Model) -> Rows:
    from scipy.special import ndtr

    difference, name = a.auc - b.auc, f"{a.id}-{b.id}"
    how = f"{FORMULA} (hanley-mcneil)"
    for r in CORRELATIONS:
        se = size.auc_difference_se(a.auc, b.auc, r, *paper.counts)
        half = quantile(0.95) * se
        p = float(2 * ndtr(-abs(difference) / se))
        words = (
            f"{difference:.2f} between {a.label} and {b.label}, AUCs correlating by {r:.1f}: SE {se:.3f}, "
            f"95 % interval {difference - half:.2f} to {difference + half:.2f}, p = {p:.2g}"
        )
        for what, value, unit in (
            ("se", se, "SE of difference"),
            ("low", difference - half, "lower limit of difference"),
            ("high", difference + half, "upper limit of difference"),
            ("p", p, "p"),
        ):
            id = f"difference-{what}-r{r * 100:.0f}-{name}"
            yield statement(id, words, value, unit, how, difference)
        se = size.auc_difference_se(a.auc, 1 - b.auc, -r, *paper.counts)
        turned = float(2 * ndtr(-abs(a.auc + b.auc - 1) / se))
        words = (
            f"the same with the score of {b.label} turned round (AUC {1 - b.auc:.2f}, correlation "
            f"{0 - r:.1f}): p = {turned:.2g} in place of {p:.2g}"
        )
        yield statement(
            f"difference-turned-p-r{r * 100:.0f}-{name}", words, turned, "p", how, difference
        )
    for method in ("hanley-mcneil", "binormal"):
        r = size.correlation_for_significance(a.auc, b.auc, *paper.counts, method=method)
        words = f"p < 0.05 for {difference:.2f} takes two AUCs that correlate by more than {r:.2f}"
        yield statement(
            f"difference-needs-r-{method}-{name}", words, r, "correlation", f"{FORMULA} ({method})", difference
        )  # fmt: skip


def _difference_sizes(paper: Published, a: Model, b: Model) -> Rows:
    events, n = paper.counts
    name, difference = f"{a.id}-{b.id}", a.auc - b.auc
    better = max(a.auc, b.auc)
    for r in CORRELATIONS[:-1]:
        found = size.detectable_difference(a.auc, b.auc, r, events, n)
        words = f"AUCs correlating by {r:.1f}: 80 % power for a difference of {found:.2f}"
        id = f"detectable-r{r * 100:.0f}-{name}"
        yield statement(id, words, found, "difference in AUC", f"{FORMULA} (hanley-mcneil)", difference)  # fmt: skip
        for what, other in (("published", min(a.auc, b.auc)), ("small", better - SMALL_GAIN)):
            needed = size.n_for_auc_difference(better, other, r, events / n, method="binormal")
            words = (
                f"AUCs correlating by {r:.1f}: 80 % power for {other:.2f} against {better:.2f} takes "
                f"{needed} patients at {events} of {n}"
            )
            id = f"n-difference-{what}-r{r * 100:.0f}-{name}"
            yield statement(id, words, needed, "patients", f"{FORMULA} (binormal)", difference)


def _drawn_difference(
    paper: Published, a: Model, b: Model, correlation: float, draws: int, seed: int
) -> Rows:
    difference, middle = abs(a.auc - b.auc), (a.auc + b.auc) / 2
    high, low = max(a.auc, b.auc), min(a.auc, b.auc)
    options = {"draws": draws, "seed": seed}
    null = binormal.simulate_pair(middle, middle, correlation, *paper.counts, **options)
    options["seed"] = seed + 1
    true = binormal.simulate_pair(high, low, correlation, *paper.counts, **options)
    near = (true["difference"] - difference).abs() <= NEAR_DIFFERENCE
    of_aucs = np.corrcoef(true["auc_a"], true["auc_b"])[0, 1] if draws > 1 else np.nan
    same, real = _simulated(draws, seed), _simulated(draws, seed + 1)
    kept = _simulated(draws, seed + 1, int(near.sum()))
    median = float(true.loc[near, "p"].median()) if near.any() else float("nan")
    rounding = 1e-12
    rows = (
        ("chance", (null["difference"] >= difference - rounding).mean(), "probability", same,
         f"both AUC {middle:.3f}: a difference of {difference:.2f} or more in this direction"),
        ("chance-either", (null["difference"].abs() >= difference - rounding).mean(), "probability", same,
         f"both AUC {middle:.3f}: a difference of {difference:.2f} or more in either direction"),
        ("power", (true["p"] < ALPHA).mean(), "probability", real,
         f"truly {low:.2f} and {high:.2f}: DeLong's test is significant"),
        ("median-p", median, "p", kept,
         f"truly {low:.2f} and {high:.2f}, observed difference within {NEAR_DIFFERENCE:.2f} of "
         f"{difference:.2f}: median p of DeLong's test"),
        ("type-1", (null["p"] < ALPHA).mean(), "probability", same,
         f"both AUC {middle:.3f}: DeLong's test is significant all the same"),
        ("of-aucs", of_aucs, "correlation", real,
         f"truly {low:.2f} and {high:.2f}: correlation of the two AUCs"),
    )  # fmt: skip
    for what, value, unit, how, words in rows:
        text = f"scores correlating by {correlation:.1f}; {words}: {value:.2g}"
        id = f"drawn-{what}-rho{correlation * 100:.0f}-{a.id}-{b.id}"
        yield statement(id, text, value, unit, how, a.auc - b.auc)


def _auto_direction(paper: Published, model: Model, draws: int, seed: int) -> Rows:
    sets = binormal.simulate_auto_direction(model.auc, *paper.counts, draws=draws, seed=seed)
    how, published = _simulated(draws, seed), np.nan if model.id == "useless" else model.auc
    mean, flipped = float(sets["reported"].mean()), float(sets["flipped"].mean())
    own = (
        f"{model.label}, true AUC {model.auc:.2f}: a routine that detects the direction of a score"
    )
    words = f"{own} reports {mean:.3f} on average"
    yield statement(f"auto-direction-auc-{model.id}", words, mean, "AUC", how, published)
    words = f"{own} turns it round in {flipped * 100:.0f} % of test sets"
    yield statement(
        f"auto-direction-flips-{model.id}", words, flipped, "probability", how, published
    )


# ----------------------------------------------------------------------------- operating points


def operating_points(paper: Published, *, draws: int, seed: int) -> Rows:
    """The confusion tables behind each published F1, and what thresholds of both kinds give."""
    tables = {model.id: points_of(paper, model) for model in paper.with_f1}
    for model in paper.with_f1:
        yield from _feasible(paper, model, tables[model.id])
    filled = [m for m in paper.with_f1 if len(tables[m.id])]
    for b, a in zip(filled, filled[1:], strict=False):
        first, second = tables[a.id], tables[b.id]
        overlap = (first["f1_low"].to_numpy()[:, None] <= second["f1_high"].to_numpy()) & (
            second["f1_low"].to_numpy() <= first["f1_high"].to_numpy()[:, None]
        )
        share = float(overlap.mean())
        words = (
            f"of {overlap.size} combinations of a table with F1 {a.f1:.2f} and one with {b.f1:.2f}, the "
            f"95 % intervals of F1 overlap in {share * 100:.0f} %"
        )
        yield statement(f"f1-overlap-{a.id}-{b.id}", words, share, "share", EXACT, a.f1 - b.f1)
    for number, model in enumerate(paper.with_f1):
        if np.isfinite(model.auc):
            yield from _thresholds(paper, model, draws, seed + 400 + number)


def _feasible(paper: Published, model: Model, points: pd.DataFrame) -> Rows:
    printed, id = f"{model.label}, F1 {model.f1:.2f}", model.id
    words = f"{printed}: {len(points)} pairs of true and false alarms round to it"
    yield statement(f"pairs-{id}", words, len(points), "pairs", EXACT, model.f1)
    if points.empty:
        return
    for what, column in (
        ("sensitivity", "sensitivity"), ("specificity", "specificity"), ("precision", "precision"),
        ("sampling SD of F1", "f1_sd"),
    ):  # fmt: skip
        low, high = float(points[column].min()), float(points[column].max())
        words = f"{printed}: {what} anywhere from {low:.3f} to {high:.3f}"
        unit = "SD of F1" if column == "f1_sd" else what
        yield statement(f"pairs-{column}-low-{id}", words, low, f"lowest {unit}", EXACT, model.f1)
        yield statement(
            f"pairs-{column}-high-{id}", words, high, f"highest {unit}", EXACT, model.f1
        )
    if np.isfinite(model.auc):
        share = float(points["compatible"].mean())
        words = f"{printed}: {share * 100:.0f} % of the pairs are arithmetically compatible with AUC {model.auc:.2f}"
        yield statement(f"pairs-compatible-{id}", words, share, "share", EXACT, model.auc)
    yield from _half_found(points, model, printed)
    least = int(np.ceil(0.3 * paper.events_test))
    some = points[points["tp"] >= least]
    if len(some):
        value = float(some["balanced_accuracy"].max())
        words = f"{printed}: the pairs with {least} true alarms or more have balanced accuracy of at most {value:.3f}"
        yield statement(f"pairs-balanced-{id}", words, value, "balanced accuracy", EXACT, model.f1)


def _half_found(points: pd.DataFrame, model: Model, printed: str) -> Rows:
    """The sampling of F1 at the pair that finds nearest to half of the events."""
    away = (points["sensitivity"] - 0.5).abs().round(9)
    rank = pd.DataFrame({"away": away, "off": (points["f1"] - model.f1).abs()})
    pair = points.loc[rank.sort_values(["away", "off"], kind="stable").index[0]]
    words = (
        f"{printed} from {pair.tp:.0f} true and {pair.fp:.0f} false alarms: sampling SD {pair.f1_sd:.3f}, "
        f"95 % {pair.f1_low:.2f} to {pair.f1_high:.2f}"
    )
    for name, value, what in (
        ("sd", pair.f1_sd, "SD of F1"),
        ("low", pair.f1_low, "F1, 2.5 % quantile"),
        ("high", pair.f1_high, "F1, 97.5 % quantile"),
    ):
        yield statement(f"pair-half-{name}-{model.id}", words, value, what, EXACT, model.f1)


def _thresholds(paper: Published, model: Model, draws: int, seed: int) -> Rows:
    events, n = paper.counts
    best = binormal.best_f1(model.auc, events / n)
    own, how = f"{model.label}, AUC {model.auc:.2f}", f"{FORMULA} (binormal)"
    words = (
        f"{own}: the best F1 of a binormal curve is {best.f1:.3f} (sensitivity {best.sensitivity:.2f}, "
        f"specificity {best.specificity:.2f})"
    )
    for what, value, unit in (
        ("f1", best.f1, "F1"),
        ("sensitivity", best.sensitivity, "sensitivity"),
        ("specificity", best.specificity, "specificity"),
    ):
        yield statement(f"best-{what}-{model.id}", words, value, unit, how, model.f1)
    sets = binormal.simulate_f1(model.auc, events, n, draws=draws, seed=seed)
    near = sets[(sets["auc"] - model.auc).abs() <= NEAR_F1]
    conditions = (
        ("given", near, f", observed AUC within {NEAR_F1:.2f}", _simulated(draws, seed, len(near))),
        ("all", sets, "", _simulated(draws, seed)),
    )
    rules = (("fixed", "fixed beforehand"), ("tuned", "tuned on the same patients"))
    for name, some, words, method in conditions:
        for rule, how_set in rules:
            text, f1 = f"{own}{words}; threshold {how_set}", some[rule]
            found = (
                ("mean", _mean(f1), "F1", "mean F1"),
                ("sd", float(f1.std()) if len(f1) > 1 else np.nan, "SD of F1", "SD of F1"),
                ("reached", _mean(f1 >= model.f1 - HALF_PRINTED), "probability",
                 f"probability of an F1 that rounds to {model.f1:.2f} or more"),
            )  # fmt: skip
            for what, value, unit, in_words in found:
                id = f"{rule}-f1-{what}-{name}-{model.id}"
                yield statement(
                    id, f"{text}: {in_words} {value:.3f}", value, unit, method, model.f1
                )
        gain = _mean(some["tuned"]) - _mean(some["fixed"])
        words_gain = f"{own}{words}: a threshold tuned on the same patients gains {gain:.3f}"
        yield statement(
            f"tuned-optimism-{name}-{model.id}", words_gain, gain, "F1", method, model.f1
        )
        everyone = 2 * events / (events + n)
        no_gain = _mean(some["tuned"] <= everyone + 1e-12)
        words_none = f"{own}{words}: tuning finds nothing better than flagging everyone ({everyone:.4f}) in {no_gain * 100:.1f} %"
        yield statement(f"tuned-everyone-{name}-{model.id}", words_none, no_gain, "probability", method, model.f1)  # fmt: skip
