"""The ceiling of a scenario: how well a predictor that knows the true latents does.

For each arm (clinical variables, each modality, all imaging, all) the AUC of a predictor that is given
the latents visible to it: fitted on very many patients (`infinite`), and on cohorts of the study's size
(`fitted`, with its spread over replicate cohorts), always scored on very many other patients. AUC does
not depend on the share of events among those scored; the prevalence only sets the events of a cohort.

Features are the latents or their logarithms, dummies of categories, and the product that the scenario's
outcome holds; standardised. Fitted and scored are those who have the arm's scans. An arm whose latents
include another's is no worse: it takes the better of the two.

- `infinite`: a mixture over the true aetiologies, the sum of P(aetiology | features) P(outcome |
  aetiology, features), each part a logistic regression. A single one has an AUC up to 0.024 lower on
  the same patients; gradient boosting on 300,000 patients is nowhere above the mixture.
  Where an index decides the outcome, its logit is linear, and one regression does it.
- `fitted`: logistic regression with a fixed penalty, ridge where many latents say a little each, lasso
  where an index shows in a few (chosen on 25 replicate cohorts of another seed); and, without an index,
  a mixture of ICAD (with the cohort's own risk in it) and the others. The one with the better mean counts.
  It is the best of what was tried, no proof that nothing is better: a model's share of it may exceed 1.

An AUC on 100,000 patients has a standard error of about 0.0025.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from rlvo_lib.simulate import patients, scenarios
from rlvo_lib.simulate.scenarios import Scenario

#: Latents that a modality shows, whether or not anyone could measure them.
VISIBLE: dict[str, tuple[str, ...]] = {
    "ncct": (
        "age", "male", "site", "side", "m2_inferior", "truncal", "clot_hu", "clot_length_mm",
        "siphon_calcium", "tortuosity_z", "core_ml", "tmax6_ml", "lkw_to_groin_min", "lesion_grain_mm",
    ),
    "cta": (
        "age", "male", "site", "side", "m2_inferior", "truncal", "clot_length_mm", "clot_hu",
        "perviousness_hu", "collateral", "tandem", "tortuosity_z", "siphon_calcium", "other_stenosis",
        "tangle_grain_mm",
    ),
    "vessels": (  # segmented from the CTA, whose densities decide what is found
        "age", "male", "site", "side", "m2_inferior", "truncal", "clot_length_mm", "clot_hu",
        "perviousness_hu", "collateral", "tandem", "tortuosity_z", "siphon_calcium", "other_stenosis",
        "tangle_grain_mm",
    ),
    "ctp": (
        "age", "male", "site", "side", "m2_inferior", "core_ml", "tmax4_ml", "tmax6_ml", "tmax10_ml",
        "cbv_index", "lesion_grain_mm",
    ),
}  # fmt: skip
#: The true values behind the study's clinical predictors.
CLINICAL = (
    "age", "male", "hypertension", "diabetes", "dyslipidemia", "smoking", "af", "prior_stroke", "cad",
    "antiplatelet", "anticoagulant", "pre_mrs", "nihss", "sbp", "glucose", "onset_type",
    "lkw_to_groin_min", "transfer", "ivt", "side",
)  # fmt: skip
#: An arm and the arms whose latents are all among its own.
PARTS = {
    "cta": ("vessels",), "imaging": ("ncct", "cta", "vessels", "ctp"), "all": ("clinical", "imaging"),
    "all_additive": ("clinical", "imaging"),
}  # fmt: skip
MADE = {"ncct": "has_ncct", "cta": "has_cta", "vessels": "has_cta", "ctp": "has_ctp"}

#: Patients that `infinite` is fitted on, patients that everything is scored on, replicate cohorts.
FITTED_ON, EVALUATED_ON, REPLICATES = 100_000, 100_000, 60
SEED = 20251126

PREDICTOR = (
    "logistic regression on the true latents, plain or as a mixture over the true aetiologies, the better "
    "of both and of what the arm's parts reach; fitted: with a fixed penalty"
)
ICAD = 1  # the aetiology's code
# Inverse penalties on standardised features.
LARGE_C, RIDGE_C, LASSO_C = 1.0, 0.01, 0.1

LOGS = {
    "clot_length_mm", "lkw_to_groin_min", "lesion_grain_mm", "tangle_grain_mm", "glucose", "core_ml", "tmax4_ml",
    "tmax6_ml", "tmax10_ml",
}  # fmt: skip
CATEGORIES = {"site": ("ICA", "M2"), "onset_type": (1, 2), "anticoagulant": (1, 2)}


def visible(arm: str) -> tuple[str, ...]:
    """Names of the latents that an arm sees: a modality, clinical, imaging, all or all_additive.

    >>> "tangle_grain_mm" in visible("imaging"), "sbp" in visible("imaging"), "sbp" in visible("all")
    (True, False, True)
    """
    clinical = CLINICAL if arm in ("clinical", "all", "all_additive") else ()
    seen = [name for modality in _modalities(arm) for name in VISIBLE[modality]]
    return tuple(dict.fromkeys([*seen, *clinical]))


def compute(
    scenario: str,
    prevalence: float | None = None,
    *,
    replicates: int = REPLICATES,
    patients_many: int = FITTED_ON,
) -> dict:
    """The ceiling of every arm of a scenario, as written to ``derivatives/ceiling.json``.

    Parameters
    ----------
    scenario : one of `SCENARIOS`.
    prevalence : share with the outcome in a cohort of 481; left out: the scenario's.
    replicates : number of replicate cohorts.
    patients_many : patients that `infinite` is fitted on, and others that everything is scored on.

    Returns
    -------
    dict
        ``arms`` holds for each arm the AUCs ``infinite``, ``fitted`` (mean over replicate cohorts),
        ``fitted_sd``, ``fitted_low`` and ``fitted_high`` (2.5 and 97.5 percentiles), and ``latents``.
        ``all_additive`` is ``all`` without products of image latents and clinical variables.

    Raises
    ------
    InputError
        For an unknown scenario, or a prevalence that a cohort of 599 cannot have.

    Examples
    --------
    >>> found = compute("null", replicates=2, patients_many=4000)
    >>> found["events_fitted"], abs(found["arms"]["all"]["infinite"] - 0.5) < 0.05
    (77, True)
    """
    plan = scenarios.named(scenario)
    size, events = patients.training_counts(plan, prevalence)
    rng = np.random.default_rng(SEED)
    pool, others = (patients.draw_latents(patients_many, rng, scenario) for _ in range(2))
    cohorts = _cohorts(pool["rlvo"].to_numpy(), size, events, replicates, rng)
    arms = {arm: _arm(arm, pool, others, cohorts, plan) for arm in _arms(plan)}
    if not plan.scans_missing:  # else the parts have other patients
        _no_worse_than_parts(arms)
    arms.setdefault("all_additive", arms["all"])
    given = {} if prevalence is None else {"prevalence": prevalence}
    return given | {
        "scenario": scenario,
        "n_fitted": size,
        "events_fitted": events,
        "replicates": replicates,
        "evaluated_on": patients_many,
        "predictor": PREDICTOR,
        "arms": {arm: _summary(arm, *found) for arm, found in arms.items()},
    }


def features(arm: str, latents: pd.DataFrame, plan: Scenario) -> tuple[np.ndarray, list[str]]:
    """The features (n, p) of an arm and their names."""
    columns = {}
    for name in visible(arm):
        columns |= _transformed(name, latents[name])
    if _multiplies(arm, plan):
        # Centred, so that a product holds nothing of its factors.
        af = columns["af"] - columns["af"].mean()
        for name in {"lesion_grain_mm", "tangle_grain_mm"} & set(columns):
            columns[f"af x {name}"] = af * (columns[name] - columns[name].mean())
    return np.column_stack(list(columns.values())), list(columns)


def _arms(plan: Scenario) -> tuple[str, ...]:
    product = plan.index is not None and plan.index.by_af
    return ("clinical", *VISIBLE, "imaging", "all", *(["all_additive"] if product else []))


def _modalities(arm: str) -> tuple[str, ...]:
    if arm == "clinical":
        return ()
    return (arm,) if arm in VISIBLE else tuple(VISIBLE)


def _multiplies(arm: str, plan: Scenario) -> bool:
    """Whether the scenario's product of an image trait and a clinical variable belongs to the arm."""
    return plan.index is not None and plan.index.by_af and arm == "all"


def _scanned(arm: str, latents: pd.DataFrame) -> np.ndarray:
    """Who has every scan of the arm; a model has nobody else."""
    return latents[[MADE[m] for m in _modalities(arm)]].to_numpy().all(axis=1)


def _transformed(name: str, values: pd.Series) -> dict[str, np.ndarray]:
    """One or more columns of a latent."""
    if name in CATEGORIES:
        return {f"{name} {v}": (values == v).to_numpy(dtype=float) for v in CATEGORIES[name]}
    values = values.to_numpy(dtype=float)
    return {name: np.log1p(values) if name in LOGS else values}


def _arm(
    arm: str, pool: pd.DataFrame, others: pd.DataFrame, cohorts: list[np.ndarray], plan: Scenario
) -> tuple[float, np.ndarray]:
    """AUC of the knowing predictor of one arm: from very many patients, and from each cohort."""
    have, judged = _scanned(arm, pool), _scanned(arm, others)
    x, z = _standardised(features(arm, pool, plan)[0], features(arm, others[judged], plan)[0])
    y, outcome = pool["rlvo"].to_numpy(), others.loc[judged, "rlvo"].to_numpy() == 1
    # An outcome that follows an index does not depend on the aetiology.
    groups = pool["etiology_code"].to_numpy() if plan.index is None else np.zeros(len(y), dtype=int)
    infinite = _auc(outcome, _mixture(x[have], groups[have], y[have], z))
    families = [_plain_scores, _mixed_scores] if plan.index is None else [_plain_scores]
    fitted = np.array([
        [_auc(outcome, scores(x[rows[have[rows]]], groups[rows[have[rows]]], y[rows[have[rows]]], z, plan))
         for rows in cohorts] for scores in families
    ])  # fmt: skip
    return infinite, fitted[fitted.mean(axis=1).argmax()]


def _no_worse_than_parts(arms: dict[str, tuple[float, np.ndarray]]) -> None:
    """An arm that sees what others see can predict as they do."""
    for arm, parts in PARTS.items():
        for part in (p for p in parts if arm in arms and p in arms):
            infinite, fitted = arms[arm]
            other, better = arms[part]
            arms[arm] = max(infinite, other), max(fitted, better, key=np.mean)


def _summary(arm: str, infinite: float, fitted: np.ndarray) -> dict:
    low, high = np.percentile(fitted, [2.5, 97.5])
    found = {
        "infinite": infinite,
        "fitted": fitted.mean(),
        "fitted_sd": fitted.std(ddof=1),
        "fitted_low": low,
        "fitted_high": high,
    }
    return {k: round(float(v), 4) for k, v in found.items()} | {"latents": list(visible(arm))}


def _plain_scores(x, groups, y, z, plan: Scenario) -> np.ndarray:
    """Scores of `z` by one regression fitted on a cohort."""
    return z @ _cohort_model(plan).fit(x, y).coef_[0]


def _mixed_scores(x, groups, y, z, plan: Scenario) -> np.ndarray:
    """P(ICAD) x the cohort's risk in ICAD + P(another cause) x the risk fitted among the others."""
    icad = groups == ICAD
    if icad.sum() < 2 or len(set(y[~icad])) < 2:
        return _plain_scores(x, groups, y, z, plan)
    share = _cohort_model(plan).fit(x, icad).predict_proba(z)[:, 1]
    risk = _cohort_model(plan).fit(x[~icad], y[~icad]).predict_proba(z)[:, 1]
    return share * y[icad].mean() + (1 - share) * risk


def _standardised(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the mean and SD of `x`; what does not vary is dropped."""
    mean, sd = x.mean(axis=0), x.std(axis=0)
    varies = sd > 1e-9
    x, z = ((m - mean)[:, varies] / sd[varies] for m in (x, z))
    return x, z


def _logistic() -> LogisticRegression:
    return LogisticRegression(C=LARGE_C, solver="newton-cholesky", max_iter=100)


def _cohort_model(plan: Scenario) -> LogisticRegression:
    """The model of one cohort: the penalty is fixed, a cohort does not choose it."""
    if plan.index is None:
        return LogisticRegression(C=RIDGE_C, solver="newton-cholesky", max_iter=100)
    return LogisticRegression(l1_ratio=1, C=LASSO_C, solver="liblinear", max_iter=1000)


def _mixture(x: np.ndarray, groups: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """P(outcome) for the features `z`, over the groups that the patients of `x` belong to."""
    codes = np.unique(groups)
    several = len(codes) > 1
    share = _logistic().fit(x, groups).predict_proba(z) if several else np.ones((len(z), 1))
    total = np.zeros(len(z))
    for k, code in enumerate(codes):
        rows = groups == code
        total += share[:, k] * _logistic().fit(x[rows], y[rows]).predict_proba(z)[:, 1]
    return total


def _cohorts(
    y: np.ndarray, size: int, events: int, replicates: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Rows of the pool for each replicate cohort, with exact numbers of events as in `select`."""
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)

    def one() -> np.ndarray:
        others = rng.choice(negative, size - events, replace=False)
        return np.concatenate([rng.choice(positive, events, replace=False), others])

    return [one() for _ in range(replicates)]


def _auc(outcome: np.ndarray, score: np.ndarray) -> float:
    """AUC by sorting the non-events only, ties one half: `metrics.auc` for many large scores."""
    others, events = np.sort(score[~outcome]), np.sort(score[outcome])
    below = np.searchsorted(others, events, side="left") + np.searchsorted(others, events, "right")
    return float(below.mean() / (2 * len(others)))
