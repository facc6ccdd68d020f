"""Simulated patients: latent causes, raw procedural outcomes, and what the hospital recorded.

A latent aetiology (cardioembolic, ICAD, cervical large-artery, other) drives the clinical table,
the images (through the latents returned here) and the procedure. The label is never drawn: it
follows from eTICI, final stenosis and rescue by the study's rule. Coefficients and the marginals
they were calibrated to are those of the project's evidence tables, sections 1b, 1d and 3c; they are
frozen. Units are in the column names of the data dictionary; missing values are written as the
codes -99 (not recorded), -98 (not applicable) and -97 (not done or inadequate).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError
from rlvo_lib.simulate.recording import record

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


def _choose(rng: np.random.Generator, shares: np.ndarray) -> np.ndarray:
    """One category index a row, with the row's probabilities `shares` (n, k)."""
    u = rng.random(len(shares))[:, None]
    return (u > np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)


def _bernoulli(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """0/1 integers, one a row."""
    return (rng.random(len(p)) < p).astype(int)


def draw(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw `n` consecutive patients from the generator.

    Returns
    -------
    latents : DataFrame (n rows)
        The truth: causes, true imaging quantities (HU, mm, mL, 0..1), outcome-side quantities.
    table : DataFrame (n rows)
        What was recorded: the data dictionary's columns, except identifier, split and label, with
        reader noise and missing codes.

    Examples
    --------
    >>> latents, table = draw(50, np.random.default_rng(1))
    >>> len(latents), bool((table["tmax6_ml"] <= table["tmax4_ml"]).all())
    (50, True)
    """
    lat = _history(n, rng)
    _disease(lat, rng)
    _clot_and_vessels(lat, rng)
    _procedure(lat, rng)
    return pd.DataFrame(lat), record(lat, rng)


def _history(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Aetiology, demographics, comorbidity, medication, times (section 1b)."""
    e = _choose(rng, np.tile([0.50, 0.085, 0.13, 0.285], (n, 1)))

    def of(by_etiology: list[float]) -> np.ndarray:
        """The patient's value from one value an aetiology."""
        return np.asarray(by_etiology, dtype=float)[e]

    age = np.clip(rng.normal(of([77, 70, 70, 69]), of([10.5, 12, 11, 15.5])), 20, 101)
    age = np.round(age)
    az = (age - 73) / 13
    male = _bernoulli(rng, of([0.43, 0.62, 0.67, 0.52]))
    htn = _bernoulli(rng, sigmoid(of([0.95, 1.25, 0.75, 0.40]) + 0.55 * az))
    dm = _bernoulli(rng, sigmoid(of([-1.30, -0.60, -1.05, -1.60])))
    af = _bernoulli(rng, sigmoid(of([0.80, -2.6, -2.3, -2.9])))
    smoking_logit = of([-2.05, -0.70, -0.75, -1.35]) - 0.60 * az + 0.30 * (male - 0.5)
    oac = _bernoulli(rng, np.where(af == 1, 0.50, 0.03))
    onset = np.where(rng.random(n) < 0.30, np.where(rng.random(n) < 0.70, 1, 2), 0)
    lkw = np.exp(
        rng.normal(
            np.where(onset > 0, np.log(620), np.log(225)),
            np.where(onset > 0, 0.42, 0.55),
        )
    )
    ivt_window = (onset == 0) & (lkw < 330) & (oac == 0)
    glucose = np.exp(rng.normal(np.log(117), 0.24, n)) * np.where(dm == 1, 1.35, 1.0)
    return {
        "etiology": np.array(ETIOLOGIES, dtype=object)[e],
        "etiology_code": e,
        "age": age,
        "age_z": az,
        "male": male,
        "hypertension": htn,
        "diabetes": dm,
        "dyslipidemia": _bernoulli(rng, sigmoid(of([-0.25, 0.30, 0.20, -0.45]))),
        "smoking": _bernoulli(rng, sigmoid(smoking_logit)),
        "af": af,
        "prior_stroke": _bernoulli(rng, of([0.17, 0.20, 0.15, 0.13])),
        "cad": _bernoulli(rng, sigmoid(-2.15 + 0.30 * az + 0.50 * male + 0.45 * dm)),
        "anticoagulant": np.where(oac == 1, np.where(rng.random(n) < 0.45, 1, 2), 0),
        "antiplatelet": _bernoulli(rng, sigmoid(-0.9 + 0.5 * az - 1.5 * oac)),
        "pre_mrs": np.searchsorted([0.42, 0.98, 1.55, 2.25], rng.normal(0.50 * az, 1)),
        "sbp": rng.normal(148, 25, n) + 6 * htn,
        "glucose": glucose,
        "onset_type": onset,
        "lkw_to_groin_min": np.clip(lkw, 60, 1440),
        "ivt": _bernoulli(rng, np.where(ivt_window, 0.86, 0.07)),
        "transfer": _bernoulli(rng, sigmoid(-0.35 + 0.8 * (np.log(lkw) - 5.7))),
        "off_hours": _bernoulli(rng, np.full(n, 0.60)),
    }


def _disease(lat: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Occlusion site and side, collaterals, perfusion volumes in mL, ASPECTS, NIHSS."""
    n, az = len(lat["age"]), lat["age_z"]
    e = lat["etiology_code"]
    icad, laa = (e == 1).astype(float), (e == 2).astype(float)
    shares = np.array(
        [[0.19, 0.51, 0.30], [0.27, 0.61, 0.12], [0.34, 0.50, 0.16], [0.17, 0.50, 0.33]]
    )
    site = _choose(rng, shares[e])
    col = rng.normal(0, 1, n) + 0.55 * icad + 0.30 * laa - 0.20 * az
    hir = sigmoid(-0.40 - 0.50 * col + rng.normal(0, 0.72, n))
    spread = np.exp(-0.16 * col + rng.normal(0, 0.42, n))
    tmax6 = np.minimum(np.array([165.0, 128.0, 70.0])[site] * spread, MAX_TMAX6_ML)
    tmax4 = tmax6 * (1 + np.exp(-0.55 + 0.15 * col + rng.normal(0, 0.34, n)))
    tmax4 = np.minimum(tmax4, np.maximum(MAX_TMAX4_ML, 1.05 * tmax6))
    late = np.log(lat["lkw_to_groin_min"]) - 5.6
    share = sigmoid(-2.05 - 0.60 * col + 1.125 * (hir - 0.4) + 0.25 * late + rng.normal(0, 0.95, n))
    core = np.minimum(tmax6 * share, MAX_CORE_ML)
    core = np.where(rng.random(n) < sigmoid(-1.75 + 0.9 * col - 0.05 * core), 0.0, core)
    aspects = np.clip(np.round(9.7 - 0.026 * core - rng.exponential(0.55, n)), 0, 10)
    nihss = np.array([17.4, 16.1, 12.4])[site] - 0.8 * col + 0.9 * az
    nihss = nihss + 0.045 * (core - 18) - 1.5 * icad + rng.normal(0, 5, n)
    lat |= {
        "icad": icad.astype(int),
        "site": SITES[site],
        "site_code": site,
        "side": (rng.random(n) >= 0.51).astype(int),
        "tandem": _bernoulli(rng, np.array([0.02, 0.03, 0.80, 0.02])[e]),
        "m2_inferior": _bernoulli(rng, np.full(n, 0.5)),
        "collateral": col,
        "hir": hir,
        "tmax4_ml": tmax4,
        "tmax6_ml": tmax6,
        "tmax10_ml": tmax6 * hir,
        "core_ml": core,
        "cbv_index": np.clip(0.84 - 0.40 * core / tmax6 + rng.normal(0, 0.11, n), 0.25, 1.2),
        "aspects": aspects,
        "nihss": np.clip(np.round(nihss), 2, 42),
    }


def _clot_and_vessels(lat: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Clot density (HU), length (mm), perviousness (HU); wall disease and tortuosity."""
    n, az, icad = len(lat["age"]), lat["age_z"], lat["icad"]
    e = lat["etiology_code"]
    site = lat["site_code"]
    length = np.array([20.0, 13.0, 9.0])[site] * np.exp(rng.normal(0, 0.5, n))
    siphon = rng.normal(0, 1, n) + 0.60 * az + np.array([0, 0.95, 0.45, 0])[e]
    siphon = siphon + 0.25 * lat["diabetes"]
    lat |= {
        "clot_hu": np.clip(rng.normal(np.array([54.0, 47.0, 51.0, 52.0])[e], 8.5), 22, 90),
        "clot_length_mm": np.clip(length * np.where(icad == 1, 0.70, 1.0), 2, 75),
        "perviousness_hu": np.clip(rng.gamma(1.1, 9, n) - 2 + 2 * icad, -8, 60),
        "truncal": _bernoulli(rng, np.array([0.08, 0.55, 0.10, 0.08])[e]),
        "other_stenosis": _bernoulli(rng, np.array([0.06, 0.38, 0.20, 0.06])[e]),
        "siphon_calcium": siphon,
        "siphon_grade": np.searchsorted([-0.65, 0.42], siphon),
        "tortuosity_z": rng.normal(0.30 * az + 0.15 * lat["hypertension"], 1),
    }


def _procedure(lat: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Raw outcomes of the thrombectomy and the label that follows from them (section 3c)."""
    n, az, icad, tort = len(lat["age"]), lat["age_z"], lat["icad"], lat["tortuosity_z"]
    unreached = _bernoulli(rng, sigmoid(-4.25 + 0.65 * tort + 0.40 * az)) == 1
    plaque = 100 * np.where(icad == 1, rng.beta(6.5, 2.8, n), rng.beta(0.5, 12, n))
    occult = (icad == 0) & (rng.random(n) < 0.014)
    under = np.where(occult, rng.uniform(50, 95, n), plaque)
    tight = (under > 50).astype(int)
    hardness = (
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
        + 0.30 * az
        + 0.30 * (lat["off_hours"] - 0.6)
    )
    rate = np.exp(-0.20 + 0.30 * hardness + 0.45 * tight) * rng.gamma(1.3, 1 / 1.3, n)
    passes = np.where(unreached, 0, np.minimum(1 + rng.poisson(rate), 8))
    rescue = _bernoulli(rng, np.where(tight == 1, 0.52, 0.006)) * ~unreached
    kind = 1 + _choose(rng, np.tile([0.27, 0.18, 0.55], (n, 1)))
    treated = np.clip(rng.normal(34, 16, n), 0, 90)
    final = np.where(rescue == 1, treated, np.clip(under + rng.normal(0, 4, n), 0, 99))
    p_fail = sigmoid(-3.62 + 0.80 * hardness + 0.22 * (passes - 2) + 0.90 * tight - 0.65 * rescue)
    failed = (rng.random(n) < p_fail) | unreached
    bad = np.where(unreached, 0, _choose(rng, np.tile([0.40, 0.12, 0.48], (n, 1))))
    good = rng.random(n) < sigmoid(0.95 - 0.45 * (passes - 1.9))
    best = np.where(rng.random(n) < 0.66, 6, 5)
    fair = np.where(rng.random(n) < 0.63, 4, 3)
    etici = np.where(failed, bad, np.where(good, best, fair))
    lat |= {
        "unreached": unreached.astype(int),
        "underlying_stenosis": under,
        "hardness": hardness,
        "n_passes": passes,
        "rescue_type": np.where(rescue == 1, kind, 0),
        "final_stenosis": np.round(final),
        "etici_rank": etici,
        "etici": ETICI[etici],
    }
    lat["rlvo"] = label(lat["etici"], lat["final_stenosis"], lat["rescue_type"]).astype(int)


def label(etici: np.ndarray, final_stenosis: np.ndarray, rescue_type: np.ndarray) -> np.ndarray:
    """The study's rule on raw outcomes: stenosis > 50 % where assessable, eTICI 0-2a, or rescue.

    >>> label(np.array(["0", "3", "3"]), np.array([90, 51, 50]), np.array([0, 0, 0])).tolist()
    [True, True, False]
    """
    stenosed = (np.asarray(final_stenosis) > 50) & (np.asarray(etici) != "0")
    failed = np.isin(np.asarray(etici).astype(str), ["0", "1", "2a"])
    return stenosed | failed | (np.asarray(rescue_type) > 0)


def study_counts(patients: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """((training patients, events), (test patients, events)) in the study's proportions.

    >>> study_counts(599)
    ((481, 77), (118, 16))
    >>> study_counts(20)
    ((16, 4), (4, 1))
    """
    (train, train_events), (test, test_events) = STUDY_TRAIN, STUDY_TEST
    n_test = round(patients * test / (train + test))
    n_train = patients - n_test
    events = max(FOLDS, round(n_train * train_events / train))
    return (n_train, events), (n_test, max(1, round(n_test * test_events / test)))


def select(patients: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Choose exactly the study's numbers of events and non-events from a pool of drawn patients.

    Returns latents, participants table and split, each with `participant_id` as first column and
    in the same, shuffled order. Raises InputError below 20 patients.
    """
    if patients < MIN_PATIENTS:
        raise InputError(
            f"patients is {patients}; allowed: {MIN_PATIENTS} or more "
            f"(four folds and a test part each need an event)"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    parts = dict(zip(("train", "test"), study_counts(patients), strict=True))
    latents, table = draw(max(2000, 8 * patients), rng)
    positive = rng.permutation(np.flatnonzero(latents["rlvo"] == 1))
    negative = rng.permutation(np.flatnonzero(latents["rlvo"] == 0))
    chosen, partition, fold = [], [], []
    for name, (size, events) in parts.items():
        rows = np.concatenate([positive[:events], negative[: size - events]])
        positive, negative = positive[events:], negative[size - events :]
        chosen.append(rows)
        partition += [name] * size
        # Dealing events first and the others after keeps fold events and sizes within one.
        fold.append(
            rng.permutation(FOLDS)[np.arange(size) % FOLDS] + 1
            if name == "train"
            else np.zeros(size, dtype=int)
        )
    rows, partition, fold = (
        np.concatenate(chosen),
        np.array(partition),
        np.concatenate(fold),
    )
    order = rng.permutation(patients)
    ids = [f"sub-{i + 1:04d}" for i in range(patients)]
    latents = latents.iloc[rows[order]].reset_index(drop=True)
    table = table.iloc[rows[order]].reset_index(drop=True)
    split = pd.DataFrame({"partition": partition[order], "fold": fold[order]})
    split["fold"] = split["fold"].map(lambda f: str(f) if f else "")
    for frame in (latents, table, split):
        frame.insert(0, "participant_id", ids)
    return latents, table, split
