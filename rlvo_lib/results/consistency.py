"""What follows from the published numbers alone: each statement recomputed, none typed.

Only the study file's published scores and published design go in. Sections on one test set (the
precision of an AUC, a paired difference, an F1) are in `rlvo_lib.results.redraws`; the rest is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from rlvo_lib import metrics
from rlvo_lib.config import Study
from rlvo_lib.metrics import binormal
from rlvo_lib.metrics import sample_size as size
from rlvo_lib.results import redraws
from rlvo_lib.results.planning import PARAMETERS
from rlvo_lib.results.published import (
    EXACT,
    FORMULA,
    HALF_PRINTED,
    Published,
    read_published,
    statement,
)

COLUMNS = ("section", "id", "statement", "published", "value", "what", "method")
RATES = (0.50, 0.25)  # flag rates of the random classifiers
SHRINKAGES = (0.9, 0.85, 0.8)
WIDTHS = (0.10, 0.15, 0.20)


def consistency(
    study: Study, *, data: str, draws: int = binormal.DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Every statement that follows from the published scores and counts, each with its number.

    Parameters
    ----------
    draws : drawn test sets of each simulation.
    seed : of the simulations; each adds a number of its own, named under ``method``.

    Returns
    -------
    DataFrame with section, id, statement, published (the paper's number that the statement is about;
    NaN if none), value, what (it is), method (exact, a formula, or a simulation with its draws and seed),
    data. Empty for a study without a published design.
    """
    published = read_published(study)
    rows: list[dict[str, Any]] = []
    if published:
        parts = {
            "F1 without skill": _without_skill(published),
            "one AUC": redraws.one_auc(published, draws=draws, seed=seed),
            "paired difference": redraws.paired_difference(published, draws=draws, seed=seed),
            "operating points": redraws.operating_points(published, draws=draws, seed=seed),
            "patients for development": _development(published),
            "patients for a test set": _test_size(published),
            "the split": _split(published),
            "spread over folds": _fold_spread(published),
        }
        rows = [{"section": name, **row} for name, part in parts.items() for row in part]
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(data=data)


def _without_skill(paper: Published) -> Iterator[dict[str, Any]]:
    events, n = paper.counts
    y = np.repeat([1, 0], [events, n - events])
    share, everyone = events / n, metrics.flag_everyone_f1(y)
    counts = f"{events} of {n}"
    yield statement(
        "f1-everyone", f"flagging all {n} test patients, {events} with the outcome, has F1 {everyone:.4f}",
        everyone, "F1",
    )  # fmt: skip
    yield statement(
        "precision-everyone", f"precision of flagging everyone: {share:.4f}", share, "share"
    )
    for rate in RATES:
        found = metrics.coin_f1(y, rate)
        words = (
            f"flagging {rate * 100:.0f} % of patients at random has an expected F1 of {found:.3f}"
        )
        yield statement(f"f1-random-{rate * 100:.0f}", words, found, "F1")
    found = metrics.coin_f1(y, share)
    words = f"flagging at random as often as the outcome occurs ({counts}) has an expected F1 of {found:.3f}"
    yield statement("f1-random-prevalence", words, found, "F1")
    words = (
        f"the same from expected precision and sensitivity instead of the expected F1: {share:.3f}"
    )
    yield statement("f1-random-prevalence-plug-in", words, share, "F1", FORMULA)
    yield statement("f1-nobody", "flagging nobody has F1 0 (precision is undefined)", 0.0, "F1")
    accuracy = 1 - share
    other = 2 * accuracy / (1 + accuracy)  # F1 of the other class
    for name, value, unit in (
        ("accuracy", accuracy, "accuracy"),
        ("macro-f1", other / 2, "macro F1"),
        ("weighted-f1", accuracy * other, "weighted F1"),
    ):
        yield statement(f"{name}-nobody", f"flagging nobody: {unit} {value:.3f}", value, unit)
    words = f"average precision of a constant score is the prevalence, {share:.3f}"
    yield statement("ap-constant", words, share, "average precision")
    for model in paper.with_f1:
        for name, value, what in (
            ("everyone", everyone, "flagging everyone"),
            ("coin", metrics.coin_f1(y, 0.5), "flagging half at random"),
        ):
            side = "below" if model.f1 < value else "above" if model.f1 > value else "equal to"
            words = f"{model.label}: the published F1 of {model.f1:.2f} is {side} that of {what}, {value:.4f}"
            yield statement(
                f"f1-over-{name}-{model.id}", words, model.f1 - value, "difference in F1", EXACT, model.f1
            )  # fmt: skip
        tuned = "was not" if model.f1 < everyone - HALF_PRINTED else "may have been"
        words = (
            f"a threshold tuned for F1 on the test patients reaches at least {everyone:.4f}; "
            f"{model.label} with {model.f1:.2f} {tuned} tuned on them"
        )
        yield statement(f"f1-tuned-floor-{model.id}", words, everyone, "F1", EXACT, model.f1)


def _development(paper: Published) -> Iterator[dict[str, Any]]:
    if not np.isfinite(paper.best_auc):
        return
    n, events, c = paper.n_train, paper.events_train, paper.best_auc
    share = (paper.folds - 1) / paper.folds
    part_n, part_events = round(n * share), round(events * share)
    r2, largest = size.r2_cox_snell(c, events / n), size.r2_max(events / n)
    words = f"events in the {paper.folds - 1}/{paper.folds} of the training patients that a fold model sees: {part_events}"
    yield statement("events-fold", words, part_events, "events", EXACT, events)
    words = f"a C statistic of {c:.2f} at {events} of {n} is a Cox-Snell R2 of {r2:.3f}"
    yield statement("r2", words, r2, "Cox-Snell R2", "binormal, numerical integration", c)
    words = f"the largest Cox-Snell R2 at {events} of {n} is {largest:.3f}"
    yield statement("r2-max", words, largest, "Cox-Snell R2", FORMULA)
    for k in PARAMETERS:
        for name, count in (("", events), ("-fold", part_events)):
            words = f"{count} events for {k} parameters: {count / k:.1f} each"
            yield statement(
                f"epv{name}-{k}", words, count / k, "events per parameter", EXACT, count
            )
        shrinkage = size.expected_shrinkage(k, n, r2)
        words = f"{k} parameters from {n} patients: expected shrinkage {shrinkage:.2f}"
        yield statement(
            f"shrinkage-{k}", words, shrinkage, "shrinkage factor", "formula (Riley 2019)", n
        )
        needed = size.riley_development(k, events / n, r2=r2).n_shrinkage
        words = f"{k} parameters with an expected shrinkage of 0.9 take {needed} patients"
        yield statement(f"n-shrinkage-{k}", words, needed, "patients", "formula (Riley 2019)", n)
    for name, patients in (("", n), ("-fold", part_n)):
        for s in SHRINKAGES:
            found = size.parameters_supported(patients, r2, s)
            words = f"{patients} patients support {found:.1f} parameters at an expected shrinkage of {s:g}"
            yield statement(
                f"parameters{name}-{s * 100:.0f}", words, found, "parameters", "formula (Riley 2019)", n
            )  # fmt: skip


def _test_size(paper: Published) -> Iterator[dict[str, Any]]:
    if not np.isfinite(paper.best_auc):
        return
    events, n = paper.counts
    all_events, all_n = events + paper.events_train, n + paper.n_train
    for where, (k, of) in (("test", (events, n)), ("all", (all_events, all_n))):
        for width in WIDTHS:
            for method in size.SE_METHODS:
                found = size.n_for_auc_width(paper.best_auc, k / of, width, method)
                words = (
                    f"a 95 % interval of width {width:.2f} around an AUC of {paper.best_auc:.2f} takes "
                    f"{found} patients ({found * k / of:.0f} with the outcome) at {k} of {of}"
                )
                name = f"n-width-{width * 100:.0f}-{where}-{method}"
                yield statement(name, words, found, "patients", f"{FORMULA} ({method})", n)


def _split(paper: Published) -> Iterator[dict[str, Any]]:
    from scipy.stats import hypergeom

    events, n = paper.counts
    all_events, all_n = events + paper.events_train, n + paper.n_train
    expected = n * all_events / all_n
    drawn = hypergeom(all_n, all_events, n)
    pmf = drawn.pmf(np.arange(min(all_events, n) + 1))
    words = (
        f"{n} of {all_n} patients at random would hold {expected:.1f} of the {all_events} events"
    )
    yield statement("split-expected", words, expected, "events", EXACT, events)
    below = float(drawn.cdf(events))
    words = f"a random split holds {events} events or fewer with probability {below:.2f}"
    yield statement("split-lower", words, below, "probability", "exact (hypergeometric)", events)
    both = float(pmf[pmf <= pmf[events] * (1 + 1e-7)].sum())
    words = f"two-sided (all counts no likelier than {events}): {both:.2f}"
    yield statement("split-two-sided", words, both, "probability", "exact (hypergeometric)", events)
    floor, ceiling = int(np.floor(expected)), int(np.ceil(expected))
    is_so = (
        "may have been stratified by outcome"
        if floor <= events <= ceiling
        else "was not so stratified, or before exclusions or within another unit"
    )
    for name, count in (("least", floor), ("most", ceiling)):
        words = (
            f"a split stratified by outcome holds {floor} or {ceiling} events; with {events} the split "
            f"{is_so}"
        )
        yield statement(f"split-stratified-{name}", words, count, "events", EXACT, events)


def _fold_spread(paper: Published) -> Iterator[dict[str, Any]]:
    from scipy.stats import chi2, t

    events, n, k = *paper.counts, paper.folds
    for model in paper.with_auc:
        sd, own = model.auc_sd, model.id
        if k < 2 or not np.isfinite(sd) or sd <= 0:
            continue
        se = size.auc_se(model.auc, events, n, "binormal")
        printed = f"{model.label}: an SD of {sd:.2f} over {k} fold models"
        correlation = 1 - (sd / se) ** 2
        words = f"{printed} on one test set implies AUCs that correlate by {correlation:.2f}"
        yield statement(f"fold-correlation-{own}", words, correlation, "correlation", FORMULA, sd)
        of_mean = sd / np.sqrt(k)
        words = f"{printed}: SE of their mean from retraining alone, {of_mean:.3f}"
        yield statement(f"fold-se-{own}", words, of_mean, "SE of AUC", FORMULA, sd)
        half = float(t.ppf(0.975, k - 1)) * of_mean
        words = f"{printed}: t interval of the mean over retraining alone, ± {half:.3f}"
        yield statement(f"fold-t-{own}", words, half, "half width", FORMULA, sd)
        low, high = (sd * np.sqrt((k - 1) / chi2.ppf(q, k - 1)) for q in (0.975, 0.025))
        words = f"{printed}: the SD itself is known only to {low:.3f} to {high:.3f} (95 %)"
        yield statement(f"fold-sd-low-{own}", words, low, "lower limit of SD", FORMULA, sd)
        yield statement(f"fold-sd-high-{own}", words, high, "upper limit of SD", FORMULA, sd)
        both = float(np.hypot(of_mean, se))
        words = (
            f"{model.label}: SE from retraining and from the {events} events together, {both:.4f}"
        )
        yield statement(
            f"fold-combined-se-{own}", words, both, "SE of AUC", f"{FORMULA} (binormal)", sd
        )
        words = f"{model.label}: the interval for new patients is near ± {1.96 * both:.2f}, not ± {sd:.2f}"
        yield statement(f"fold-combined-half-{own}", words, 1.96 * both, "half width", f"{FORMULA} (binormal)", sd)  # fmt: skip
        fold_n, fold_events = round(paper.n_train / k), round(paper.events_train / k)
        for method in ("binormal", "hanley-mcneil"):
            found = size.auc_se(model.auc, fold_events, fold_n, method)
            words = f"SE of an AUC of {model.auc:.2f} in a validation fold ({fold_events} of {fold_n}): {found:.3f}"
            yield statement(f"fold-validation-se-{method}-{own}", words, found, "SE of AUC", f"{FORMULA} ({method})", model.auc)  # fmt: skip
            chance = float(chi2.cdf((k - 1) * (sd / found) ** 2, k - 1))
            words = (
                f"if the {k} AUCs came from {k} different validation folds, an SD of {sd:.2f} or less "
                f"would have probability {chance:.3f}"
            )
            yield statement(f"fold-validation-p-{method}-{own}", words, chance, "probability", f"{FORMULA} ({method})", sd)  # fmt: skip
        averaged = binormal.averaged_auc(model.auc, k, float(np.clip(correlation, 0, 1)))
        words = (
            f"{k} models with AUC {model.auc:.2f} whose scores correlate by {max(correlation, 0):.2f}: their "
            f"averaged score has AUC {averaged:.3f}, not the mean of the AUCs"
        )
        yield statement(
            f"fold-averaged-{own}", words, averaged, "AUC", f"{FORMULA} (binormal)", model.auc
        )
    for a, b in paper.pairs:
        if k < 2 or not a.auc_sd > 0 or not b.auc_sd > 0:
            continue
        ratio = abs(a.auc - b.auc) / np.sqrt((a.auc_sd**2 + b.auc_sd**2) / k)
        p = 2 * float(t.sf(ratio, 2 * (k - 1)))
        words = (
            f"a t test of {k} against {k} fold AUCs ({a.label} and {b.label}) has t = {ratio:.1f}: it asks "
            "whether retraining noise explains the difference, not whether new patients would show it"
        )
        name = f"{a.id}-{b.id}"
        yield statement(f"fold-test-t-{name}", words, ratio, "t", FORMULA, a.auc - b.auc)
        yield statement(f"fold-test-p-{name}", f"p of that t test, {2 * (k - 1)} degrees of freedom: {p:.2g}", p, "p", FORMULA, a.auc - b.auc)  # fmt: skip
