"""Simulated patients: latent causes, raw procedural outcomes, and what the hospital recorded.

A latent aetiology (cardioembolic, ICAD, cervical large-artery, other) drives the clinical table,
the images (through the latents returned here) and the procedure. The label is never drawn: it
follows from eTICI, final stenosis and rescue by the study's rule. Coefficients and the marginals
they were calibrated to are those of the project's evidence tables, sections 1b, 1d and 3c; they are
frozen, and `scenarios` holds what differs between scenarios. Units are in the column names of the
data dictionary; missing values are written as the codes -99 (not recorded), -98 (not applicable) and
-97 (not done or inadequate).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.simulate import scenarios
from rlvo_lib.simulate.recording import record, scan
from rlvo_lib.simulate.scenarios import Index, Scenario

ETIOLOGIES = ("CE", "ICAD", "LAA", "OTH")
ETICI = np.array(["0", "1", "2a", "2b50", "2b67", "2c", "3"], dtype=object)
SITES = np.array(["ICA", "M1", "M2"], dtype=object)

# The study's counts: patients and events in the training and the test part.
STUDY_TRAIN, STUDY_TEST = (481, 77), (118, 16)
FOLDS = 4
MIN_PATIENTS = 20

# Largest lesion that a hemisphere within the perfusion slab can hold, in mL.
MAX_TMAX6_ML, MAX_TMAX4_ML = 330.0, 430.0
MAX_CORE_ML = 300.0  # the data dictionary's range


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function, 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-x))


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1.0 - p))


def _choose(rng: np.random.Generator, shares: np.ndarray) -> np.ndarray:
    """One category index a row, with the row's probabilities `shares` (n, k)."""
    u = rng.random(len(shares))[:, None]
    return (u > np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)


def _bernoulli(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """0/1 integers, one a row."""
    return (rng.random(len(p)) < p).astype(int)


def draw(
    n: int, rng: np.random.Generator, scenario: str = "paper"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw `n` consecutive patients from the generator.

    Returns
    -------
    latents : DataFrame (n rows)
        The truth: causes, true imaging quantities (HU, mm, mL, 0..1), which scans were made on which
        scanner, outcome-side quantities.
    table : DataFrame (n rows)
        What was recorded: the data dictionary's columns, except identifier, split and label, with
        reader noise and missing codes.

    Raises
    ------
    InputError
        For an unknown scenario, or fewer than one patient.

    Examples
    --------
    >>> latents, table = draw(50, np.random.default_rng(1))
    >>> len(latents), bool((table["tmax6_ml"] <= table["tmax4_ml"]).all())
    (50, True)
    """
    if n < 1:
        raise InputError(f"n is {n}; allowed: 1 or more patients")
    plan = scenarios.named(scenario)
    lat = _latents(n, rng, plan)
    return pd.DataFrame(lat), record(lat, rng, plan)


def draw_latents(n: int, rng: np.random.Generator, scenario: str = "paper") -> pd.DataFrame:
    """The latents of `n` patients, as in `draw`, without what was recorded.

    >>> draw_latents(50, np.random.default_rng(1), "signal")["site"].unique().tolist()
    ['M1']
    """
    return pd.DataFrame(_latents(n, rng, scenarios.named(scenario)))


def _latents(n: int, rng: np.random.Generator, plan: Scenario) -> dict[str, np.ndarray]:
    """The truth about `n` patients, one array a column."""
    lat = scenarios.traits(n, rng, plan.index)
    _history(lat, rng, plan)
    _disease(lat, rng, plan.index)
    _clot_and_vessels(lat, rng, plan.index)
    scan(lat, rng, plan)
    behind = lat
    if plan.outcome_of_another:
        other = rng.permutation(n)
        behind = {name: values[other] for name, values in lat.items()}
    lat |= _procedure(behind, rng, plan.index)
    return lat


def _history(lat: dict[str, np.ndarray], rng: np.random.Generator, plan: Scenario) -> None:
    """Aetiology, demographics, comorbidity, medication, times (section 1b)."""
    n, told = len(lat["index"]), lat["index_clinical"]
    shows = plan.index or scenarios.NOTHING_SHOWS
    e = _choose(rng, np.tile(plan.etiology, (n, 1)))

    def of(by_etiology: list[float]) -> np.ndarray:
        """The patient's value from one value an aetiology."""
        return np.asarray(by_etiology, dtype=float)[e]

    age = rng.normal(of([77, 70, 70, 69]) + plan.age_years, of([10.5, 12, 11, 15.5]))
    age = np.round(np.clip(age, 20, 101))
    az = (age - 73) / 13
    male = _bernoulli(rng, sigmoid(_logit(of([0.43, 0.62, 0.67, 0.52])) + plan.male_logit))
    htn = _bernoulli(rng, sigmoid(of([0.95, 1.25, 0.75, 0.40]) + 0.55 * az))
    dm = _bernoulli(rng, sigmoid(of([-1.30, -0.60, -1.05, -1.60]) + plan.diabetes_logit))
    af_logit = of([0.80, -2.6, -2.3, -2.9]) + shows.af_logit * told
    af = _bernoulli(rng, np.full(n, 0.5) if shows.by_af else sigmoid(af_logit))
    lipids = of([-0.25, 0.30, 0.20, -0.45]) + shows.dyslipidemia_logit * told
    smoking = of([-2.05, -0.70, -0.75, -1.35]) - 0.60 * az + 0.30 * (male - 0.5)
    stroke = _logit(of([0.17, 0.20, 0.15, 0.13])) + shows.prior_stroke_logit * told
    oac = _bernoulli(rng, np.where(af == 1, 0.50, 0.03))
    onset = np.where(rng.random(n) < plan.unwitnessed, np.where(rng.random(n) < 0.70, 1, 2), 0)
    unseen = (onset > 0).astype(int)
    median, sd = np.log(plan.lkw_median_min)[unseen], np.array(plan.lkw_log_sd)[unseen]
    lkw = np.exp(rng.normal(median, sd))
    ivt_window = (onset == 0) & (lkw < 330) & (oac == 0)
    glucose = np.exp(rng.normal(np.log(117), 0.24, n) + shows.log_glucose * told)
    coronary = -2.15 + 0.30 * az + 0.50 * male + 0.45 * dm + shows.cad_logit * told
    handicap = rng.normal(0.50 * az + shows.pre_mrs_z * told, 1)
    lat |= {
        "etiology": np.array(ETIOLOGIES, dtype=object)[e],
        "etiology_code": e,
        "age": age,
        "age_z": az,
        "male": male,
        "hypertension": htn,
        "diabetes": dm,
        "dyslipidemia": _bernoulli(rng, sigmoid(lipids)),
        "smoking": _bernoulli(rng, sigmoid(smoking + plan.smoking_logit)),
        "af": af,
        "prior_stroke": _bernoulli(rng, sigmoid(stroke)),
        "cad": _bernoulli(rng, sigmoid(coronary)),
        "anticoagulant": np.where(oac == 1, np.where(rng.random(n) < 0.45, 1, 2), 0),
        "antiplatelet": _bernoulli(rng, sigmoid(-0.9 + 0.5 * az - 1.5 * oac)),
        "pre_mrs": np.searchsorted([0.42, 0.98, 1.55, 2.25], handicap),
        "sbp": rng.normal(148, 25, n) + 6 * htn + shows.sbp_mmhg * told,
        "glucose": glucose * np.where(dm == 1, 1.35, 1.0),
        "onset_type": onset,
        "lkw_to_groin_min": np.clip(lkw, 60, 1440),
        "ivt": _bernoulli(rng, np.where(ivt_window, 0.86, 0.07)),
        "transfer": _bernoulli(rng, sigmoid(-0.35 + 0.8 * (np.log(lkw) - 5.7))),
        "off_hours": _bernoulli(rng, np.full(n, 0.60)),
    }


def _disease(lat: dict[str, np.ndarray], rng: np.random.Generator, index: Index | None) -> None:
    """Occlusion site and side, collaterals, perfusion volumes, ASPECTS, NIHSS."""
    n, az = len(lat["age"]), lat["age_z"]
    e = lat["etiology_code"]
    icad, laa = (e == 1).astype(float), (e == 2).astype(float)
    shares = np.array(
        [[0.19, 0.51, 0.30], [0.27, 0.61, 0.12], [0.34, 0.50, 0.16], [0.17, 0.50, 0.33]]
    )
    site = _choose(rng, shares[e]) if index is None else np.full(n, 1)
    col = rng.normal(0, 1, n) + 0.55 * icad + 0.30 * laa - 0.20 * az
    lat |= {
        "icad": icad.astype(int),
        "site": SITES[site],
        "site_code": site,
        "side": (rng.random(n) >= 0.51).astype(int),
        "tandem": _bernoulli(rng, np.array([0.02, 0.03, 0.80, 0.02])[e]),
        "m2_inferior": _bernoulli(rng, np.full(n, 0.5)),
        "collateral": col,
    }
    lat |= _volumes(lat, rng) if index is None else scenarios.same_volumes(n, rng, index)
    core, tmax6 = lat["core_ml"], lat["tmax6_ml"]
    aspects = np.clip(np.round(9.7 - 0.026 * core - rng.exponential(0.55, n)), 0, 10)
    nihss = np.array([17.4, 16.1, 12.4])[site] - 0.8 * col + 0.9 * az
    nihss = nihss + 0.045 * (core - 18) - 1.5 * icad + rng.normal(0, 5, n)
    nihss = nihss + (index or scenarios.NOTHING_SHOWS).nihss_points * lat["index_clinical"]
    lat |= {
        "tmax10_ml": tmax6 * lat["hir"],
        "cbv_index": np.clip(0.84 - 0.40 * core / tmax6 + rng.normal(0, 0.11, n), 0.25, 1.2),
        "aspects": aspects,
        "nihss": np.clip(np.round(nihss), 2, 42),
    }


def _volumes(lat: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Core, Tmax > 4 s and Tmax > 6 s in mL, and the hypoperfusion intensity ratio."""
    n, col = len(lat["age"]), lat["collateral"]
    hir = sigmoid(-0.40 - 0.50 * col + rng.normal(0, 0.72, n))
    spread = np.exp(-0.16 * col + rng.normal(0, 0.42, n))
    tmax6 = np.minimum(np.array([165.0, 128.0, 70.0])[lat["site_code"]] * spread, MAX_TMAX6_ML)
    tmax4 = tmax6 * (1 + np.exp(-0.55 + 0.15 * col + rng.normal(0, 0.34, n)))
    tmax4 = np.minimum(tmax4, np.maximum(MAX_TMAX4_ML, 1.05 * tmax6))
    late = np.log(lat["lkw_to_groin_min"]) - 5.6
    share = sigmoid(-2.05 - 0.60 * col + 1.125 * (hir - 0.4) + 0.25 * late + rng.normal(0, 0.95, n))
    core = np.minimum(tmax6 * share, MAX_CORE_ML)
    core = np.where(rng.random(n) < sigmoid(-1.75 + 0.9 * col - 0.05 * core), 0.0, core)
    return {"hir": hir, "tmax4_ml": tmax4, "tmax6_ml": tmax6, "core_ml": core}


def _clot_and_vessels(
    lat: dict[str, np.ndarray], rng: np.random.Generator, index: Index | None
) -> None:
    """Clot density (HU), length (mm), perviousness (HU); wall disease and tortuosity."""
    n, az, icad = len(lat["age"]), lat["age_z"], lat["icad"]
    e = lat["etiology_code"]
    site = lat["site_code"]
    length = np.array([20.0, 13.0, 9.0])[site] * np.exp(rng.normal(0, 0.5, n))
    siphon = rng.normal(0, 1, n) + 0.60 * az + np.array([0, 0.95, 0.45, 0])[e]
    siphon = siphon + 0.25 * lat["diabetes"]
    truncal = np.array([0.08, 0.55, 0.10, 0.08])[e] * (index is None)
    lat |= {
        "clot_hu": np.clip(rng.normal(np.array([54.0, 47.0, 51.0, 52.0])[e], 8.5), 22, 90),
        "clot_length_mm": np.clip(length * np.where(icad == 1, 0.70, 1.0), 2, 75),
        "perviousness_hu": np.clip(rng.gamma(1.1, 9, n) - 2 + 2 * icad, -8, 60),
        "truncal": _bernoulli(rng, truncal),
        "other_stenosis": _bernoulli(rng, np.array([0.06, 0.38, 0.20, 0.06])[e]),
        "siphon_calcium": siphon,
        "siphon_grade": np.searchsorted([-0.65, 0.42], siphon),
        "tortuosity_z": rng.normal(0.30 * az + 0.15 * lat["hypertension"], 1),
    }


def _hardness(lat: dict[str, np.ndarray]) -> np.ndarray:
    """How hard the clot is to remove, 0 on average (section 3c)."""
    tort = lat["tortuosity_z"]
    return (
        0.45 * np.log(lat["clot_length_mm"] / 13)
        + 0.40 * tort
        - 0.015 * (lat["perviousness_hu"] - 6)
        - 0.020 * (lat["clot_hu"] - 52)
        + 0.50 * (lat["site"] == "M2")
        + 0.45 * (lat["site"] == "ICA")
        + 0.65 * lat["tandem"]
        + 0.30 * lat["truncal"]
        + 0.25 * (lat["siphon_grade"] == 2)
        - 0.16 * (lat["aspects"] - 9)
        + 0.30 * lat["age_z"]
        + 0.30 * (lat["off_hours"] - 0.6)
    )


def _procedure(
    lat: dict[str, np.ndarray], rng: np.random.Generator, index: Index | None
) -> dict[str, np.ndarray]:
    """Raw outcomes of the thrombectomy and the label that follows from them (section 3c)."""
    n, tort, hardness = len(lat["age"]), lat["tortuosity_z"], _hardness(lat)
    routes = 1.0 if index is None else index.other_routes
    p_unreached = sigmoid(-4.25 + 0.65 * tort + 0.40 * lat["age_z"])
    unreached = _bernoulli(rng, routes * p_unreached) == 1
    icad = (lat["icad"] == 1) & (rng.random(n) < routes)
    plaque = 100 * np.where(icad, rng.beta(6.5, 2.8, n), rng.beta(0.5, 12, n))
    occult = ~icad & (rng.random(n) < routes * 0.014)
    under = np.where(occult, rng.uniform(50, 95, n), plaque)
    tight = (under > 50).astype(int)
    rate = np.exp(-0.20 + 0.30 * hardness + 0.45 * tight) * rng.gamma(1.3, 1 / 1.3, n)
    passes = np.where(unreached, 0, np.minimum(1 + rng.poisson(rate), 8))
    rescue = _bernoulli(rng, np.where(tight == 1, 0.52, routes * 0.006)) * ~unreached
    kind = 1 + _choose(rng, np.tile([0.27, 0.18, 0.55], (n, 1)))
    treated = np.clip(rng.normal(34, 16, n), 0, 90)
    final = np.where(rescue == 1, treated, np.clip(under + rng.normal(0, 4, n), 0, 99))
    failing = -3.62 + 0.80 * hardness + 0.22 * (passes - 2) + 0.90 * tight - 0.65 * rescue
    if index is not None:
        direction = np.where(lat["af"] == 1, 1, -1) if index.by_af else 1
        failing = index.intercept + index.slope * direction * lat["index"]
    failed = (rng.random(n) < sigmoid(failing)) | unreached
    bad = np.where(unreached, 0, _choose(rng, np.tile([0.40, 0.12, 0.48], (n, 1))))
    good = rng.random(n) < sigmoid(0.95 - 0.45 * (passes - 1.9))
    best = np.where(rng.random(n) < 0.66, 6, 5)
    fair = np.where(rng.random(n) < 0.63, 4, 3)
    etici = np.where(failed, bad, np.where(good, best, fair))
    outcome = {
        "unreached": unreached.astype(int),
        "underlying_stenosis": under,
        "hardness": hardness,
        "n_passes": passes,
        "rescue_type": np.where(rescue == 1, kind, 0),
        "final_stenosis": np.round(final),
        "etici_rank": etici,
        "etici": ETICI[etici],
    }
    derived = label(outcome["etici"], outcome["final_stenosis"], outcome["rescue_type"])
    return outcome | {"rlvo": derived.astype(int)}


def label(etici: np.ndarray, final_stenosis: np.ndarray, rescue_type: np.ndarray) -> np.ndarray:
    """The study's rule on raw outcomes: stenosis > 50 % where assessable, eTICI 0-2a, or rescue.

    >>> label(np.array(["0", "3", "3"]), np.array([90, 51, 50]), np.array([0, 0, 0])).tolist()
    [True, True, False]
    """
    stenosed = (np.asarray(final_stenosis) > 50) & (np.asarray(etici) != "0")
    failed = np.isin(np.asarray(etici).astype(str), ["0", "1", "2a"])
    return stenosed | failed | (np.asarray(rescue_type) > 0)


def study_counts(
    patients: int, prevalence: float | None = None, test: int | None = None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """((training patients, events), (test patients, events)) in the study's proportions.

    `prevalence` (share with the outcome in both parts) and `test` (test patients) replace the study's.
    Each fold and the test part keep at least one of both outcomes.

    >>> study_counts(599)
    ((481, 77), (118, 16))
    >>> study_counts(20)
    ((16, 4), (4, 1))
    >>> study_counts(2481, prevalence=0.5, test=2000)
    ((481, 240), (2000, 1000))
    """
    (train, train_events), (held_out, test_events) = STUDY_TRAIN, STUDY_TEST
    n_test = round(patients * held_out / (train + held_out)) if test is None else test
    n_train = patients - n_test
    shares = (train_events / train, test_events / held_out)
    train_share, test_share = shares if prevalence is None else (prevalence, prevalence)
    return (
        (n_train, int(np.clip(round(n_train * train_share), FOLDS, n_train - FOLDS))),
        (n_test, int(np.clip(round(n_test * test_share), 1, n_test - 1))),
    )


def training_counts(plan: Scenario, prevalence: float | None = None) -> tuple[int, int]:
    """Training patients and events of a cohort of the study's size; InputError as in `select`."""
    patients = STUDY_TRAIN[0] + STUDY_TEST[0]
    _check_selection(patients, prevalence, None)
    return study_counts(patients, plan.prevalence if prevalence is None else prevalence)[0]


def _check_selection(patients: int, prevalence: float | None, test: int | None) -> None:
    """InputError for numbers that leave a fold or the test part without one of the outcomes."""
    if patients < MIN_PATIENTS:
        raise InputError(
            f"patients is {patients}; allowed: {MIN_PATIENTS} or more "
            f"(four folds and a test part each need an event)"
        )
    if test is not None and not 2 <= test <= patients - 2 * FOLDS:
        raise InputError(
            f"test is {test}; allowed with {patients} patients: 2 to {patients - 2 * FOLDS} "
            f"(four folds and a test part each need both outcomes)"
        )
    if prevalence is None:
        return
    (n_train, _), (n_test, _) = study_counts(patients, test=test)
    least = max(FOLDS / n_train, 1 / n_test)
    if not least <= prevalence <= 1 - least:
        low = np.ceil(least * 1e4) / 1e4  # inwards, so that what is named is allowed
        raise InputError(
            f"prevalence is {prevalence}; allowed with {n_train} training and {n_test} test patients: "
            f"{low:g} to {1 - low:g} (four folds and a test part each need both outcomes)"
        )


def _pool(
    events: int, others: int, rng: np.random.Generator, plan: Scenario
) -> dict[str, np.ndarray]:
    """Latents of as many consecutive patients as hold so many events and others."""
    size = int(1.1 * max(events / 0.15, others / 0.80)) + 200
    pool = _latents(size, rng, plan)
    while pool["rlvo"].sum() < events or (1 - pool["rlvo"]).sum() < others:
        more = _latents(size, rng, plan)
        pool = {name: np.concatenate([values, more[name]]) for name, values in pool.items()}
    return pool


def select(
    patients: int,
    seed: int,
    scenario: str = "paper",
    *,
    prevalence: float | None = None,
    test: int | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Choose exact numbers of events and non-events from a pool of drawn patients.

    Parameters
    ----------
    patients : 20 or more; 599 gives the study's counts, other numbers keep its proportions.
    scenario : one of `SCENARIOS`.
    prevalence : share with the outcome in both parts; left out: the scenario's.
    test : number of test patients; left out: the study's share.

    Returns
    -------
    latents, table, split : DataFrames with `participant_id` as first column, in the same, shuffled
        order. split: partition ("train", "test") and fold ("1" to "4", "" in the test part).

    Raises
    ------
    InputError
        For an unknown scenario, or numbers that leave a fold or the test part without one of the
        outcomes.

    Examples
    --------
    >>> latents, _, split = select(60, 1, prevalence=0.5, test=20)
    >>> latents.groupby(split["partition"])["rlvo"].sum().to_dict()
    {'test': 10, 'train': 20}
    """
    plan = scenarios.named(scenario)
    _check_selection(patients, prevalence, test)
    prevalence = plan.prevalence if prevalence is None else prevalence
    parts = dict(zip(("train", "test"), study_counts(patients, prevalence, test), strict=True))
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    events = sum(part[1] for part in parts.values())
    pool = _pool(events, patients - events, rng, plan)
    positive = rng.permutation(np.flatnonzero(pool["rlvo"] == 1))
    negative = rng.permutation(np.flatnonzero(pool["rlvo"] == 0))
    chosen, partition, fold = [], [], []
    for name, (size, events) in parts.items():
        chosen += [positive[:events], negative[: size - events]]
        positive, negative = positive[events:], negative[size - events :]
        partition += [name] * size
        # Dealing events first and the others after keeps fold events and sizes within one.
        fold.append(
            rng.permutation(FOLDS)[np.arange(size) % FOLDS] + 1
            if name == "train"
            else np.zeros(size, dtype=int)
        )
    order = rng.permutation(patients)
    rows = np.concatenate(chosen)[order]
    lat = {name: values[rows] for name, values in pool.items()}
    latents, table = pd.DataFrame(lat), record(lat, rng, plan)
    split = pd.DataFrame(
        {"partition": np.array(partition)[order], "fold": np.concatenate(fold)[order]}
    )
    split["fold"] = split["fold"].map(lambda f: str(f) if f else "")
    width = max(4, len(str(patients)))
    ids = [f"sub-{i + 1:0{width}d}" for i in range(patients)]
    for frame in (latents, table, split):
        frame.insert(0, "participant_id", ids)
    return latents, table, split
