"""The ceiling of a scenario: how well the best predictor that knows the true latents does.

For each arm (clinical variables, each modality, all imaging, all) the AUC of a predictor that is given
the latents visible to it: fitted on very many patients (`infinite`), and on cohorts of the study's size
(`fitted`, with its spread over replicate cohorts), always scored on very many other patients. AUC does
not depend on the share of events among those scored; the prevalence only sets the events of a cohort.

Features are the latents or their logarithms, dummies of categories, and the product that the scenario's
outcome holds; standardised, and 0 where the scan that shows them was not made.

- `infinite`: a mixture over the true aetiologies, the sum of P(aetiology | features) P(outcome |
  aetiology, features), each part a logistic regression. A single one has an AUC up to 0.024 lower on
  the same patients; gradient boosting on 300,000 patients is nowhere above the mixture.
  Where an index decides the outcome, its logit is linear, and one regression does it.
- `fitted`: logistic regression with a fixed penalty, ridge where many latents say a little each, lasso
  where an index shows in a few. Chosen on 25 replicate cohorts of another seed among ridge, lasso, squares,
  boosting and forests; no other choice was better by more than 0.003 in any arm.

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
    "vessels": (
        "age", "male", "site", "side", "m2_inferior", "truncal", "clot_length_mm", "collateral",
        "tandem", "tortuosity_z", "other_stenosis",
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
MADE = {"ncct": "has_ncct", "cta": "has_cta", "vessels": "has_cta", "ctp": "has_ctp"}

#: Patients that `infinite` is fitted on, patients that everything is scored on, replicate cohorts.
FITTED_ON, EVALUATED_ON, REPLICATES = 100_000, 100_000, 100
SEED = 20251126

PREDICTOR = (
    "logistic regression on the true latents; infinite: a mixture of them over the true aetiologies; "
    "fitted: with a fixed penalty"
)
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
    arms.setdefault("all_additive", arms["all"])
    return {
        "scenario": scenario,
        "n_fitted": size,
        "events_fitted": events,
        "replicates": replicates,
        "evaluated_on": patients_many,
        "predictor": PREDICTOR,
        "arms": arms,
    }


def features(arm: str, latents: pd.DataFrame, plan: Scenario) -> tuple[np.ndarray, list[str]]:
    """The features (n, p) of an arm, NaN where the scan that shows them was not made, and their names."""
    columns = {}
    for name in visible(arm):
        seen = _seen(arm, name, latents)
        for label, values in _transformed(name, latents[name]).items():
            columns[label] = np.where(seen, values, np.nan)
    if _multiplies(arm, plan):
        # Centred, so that a product holds nothing of its factors.
        af = columns["af"] - columns["af"].mean()
        for name in {"lesion_grain_mm", "tangle_grain_mm"} & set(columns):
            columns[f"af x {name}"] = af * (columns[name] - np.nanmean(columns[name]))
    for modality in _modalities(arm):
        columns[MADE[modality]] = latents[MADE[modality]].to_numpy(dtype=float)
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


def _seen(arm: str, name: str, latents: pd.DataFrame) -> np.ndarray:
    """Whether each patient has what shows the latent: the clinical table, or one of the scans."""
    if name in CLINICAL and arm in ("clinical", "all", "all_additive"):
        return np.ones(len(latents), dtype=bool)
    showing = [MADE[m] for m in _modalities(arm) if name in VISIBLE[m]]
    return latents[showing].to_numpy().any(axis=1)


def _transformed(name: str, values: pd.Series) -> dict[str, np.ndarray]:
    """One or more columns of a latent."""
    if name in CATEGORIES:
        return {f"{name} {v}": (values == v).to_numpy(dtype=float) for v in CATEGORIES[name]}
    values = values.to_numpy(dtype=float)
    return {name: np.log1p(values) if name in LOGS else values}


def _arm(
    arm: str, pool: pd.DataFrame, others: pd.DataFrame, cohorts: list[np.ndarray], plan: Scenario
) -> dict:
    """Ceilings of one arm."""
    x, z = _standardised(features(arm, pool, plan)[0], features(arm, others, plan)[0])
    y, outcome = pool["rlvo"].to_numpy(), others["rlvo"].to_numpy() == 1
    # An outcome that follows an index does not depend on the aetiology.
    groups = pool["etiology_code"].to_numpy() if plan.index is None else np.zeros(len(y), dtype=int)
    infinite = _auc(outcome, _mixture(x, groups, y, z))
    slopes = [_cohort_model(plan).fit(x[rows], y[rows]).coef_[0] for rows in cohorts]
    fitted = np.array([_auc(outcome, score) for score in np.array(slopes) @ z.T])
    low, high = np.percentile(fitted, [2.5, 97.5])
    found = {
        "infinite": infinite,
        "fitted": fitted.mean(),
        "fitted_sd": fitted.std(ddof=1),
        "fitted_low": low,
        "fitted_high": high,
    }
    return {k: round(float(v), 4) for k, v in found.items()} | {"latents": list(visible(arm))}


def _standardised(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the mean and SD of `x`; what is not seen is 0, what does not vary is dropped."""
    mean, sd = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    varies = sd > 1e-9
    x, z = (np.nan_to_num((m - mean)[:, varies] / sd[varies]) for m in (x, z))
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
