"""What the hospital scanned and wrote down: reads of the images with reader error, missing values.

Image-read variables are noisy human reads of the latents (reliability about 0.6 to 0.8). A read
keeps the mean and spread of what is read, so that the marginals stay those of the evidence tables.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.simulate.scenarios import Scenario

NOT_RECORDED, NOT_APPLICABLE, NOT_DONE = -99, -98, -97

# Share of patients without a value, section 1d; columns whose absence depends on other things
# (smoking, blood pressure, glucose, perfusion, follow-up) have their own rule in `_lose`.
MISSING = {
    "hypertension": (0.005, NOT_RECORDED),
    "diabetes": (0.005, NOT_RECORDED),
    "af_known": (0.005, NOT_RECORDED),
    "dyslipidemia": (0.02, NOT_RECORDED),
    "cad": (0.02, NOT_RECORDED),
    "prior_stroke_tia": (0.01, NOT_RECORDED),
    "antiplatelet": (0.02, NOT_RECORDED),
    "anticoagulant": (0.02, NOT_RECORDED),
    "pre_mrs": (0.02, NOT_RECORDED),
    "aspects": (0.02, NOT_RECORDED),
    "hyperdense_sign": (0.02, NOT_RECORDED),
    "occl_type_cta": (0.04, NOT_DONE),
    "siphon_calc": (0.03, NOT_DONE),
    "other_stenosis_cta": (0.03, NOT_DONE),
    "icad_suspected_cta": (0.03, NOT_DONE),
    "collateral_tan": (0.05, NOT_DONE),
    "ica_tortuosity": (0.04, NOT_DONE),
    "etiology_toast": (0.059, NOT_RECORDED),
    "nihss_24h": (0.05, NOT_RECORDED),
}
CTP_COLUMNS = (
    "core_ml", "tmax4_ml", "tmax6_ml", "tmax10_ml", "hir", "mismatch_ratio", "cbv_index",
)  # fmt: skip
NCCT_READS = ("aspects", "hyperdense_sign", "clot_hu", "perviousness_hu")
CTA_READS = (
    "perviousness_hu", "clot_length_mm", "occl_type_cta", "siphon_calc", "other_stenosis_cta",
    "icad_suspected_cta", "collateral_tan", "ica_tortuosity",
)  # fmt: skip


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def reread(
    truth: np.ndarray,
    mean: float,
    sd: float,
    reliability: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """A human read of `truth` with the given reliability (squared correlation with the truth).

    The read is mean + r (truth - mean) + noise, r^2 the reliability; mean and SD stay those of `truth`.
    """
    share = np.sqrt(reliability)
    return (
        mean + share * (truth - mean) + np.sqrt(1 - reliability) * sd * rng.normal(size=len(truth))
    )


def misread(truth: np.ndarray, rate: float, sensitivity: float, rng: np.random.Generator):
    """A 0/1 read with the given sensitivity and as many positives as the truth has (`rate`)."""
    false = rate * (1 - sensitivity) / (1 - rate)
    return (rng.random(len(truth)) < np.where(truth == 1, sensitivity, false)).astype(int)


def scan(lat: dict[str, np.ndarray], rng: np.random.Generator, plan: Scenario) -> None:
    """The year, the scanner (independent of everything), and which scans were made."""
    n = len(lat["age"])
    lat["year"] = rng.integers(2017, 2024, n)
    lat["scanner"] = np.array(["A", "B", "C"], dtype=object)[
        np.searchsorted(np.cumsum(plan.scanners)[:-1], rng.random(n), side="right")
    ]
    made = {name: np.ones(n, dtype=int) for name in ("has_ncct", "has_cta", "has_ctp")}
    lat |= made | {"ctp_moved": np.zeros(n, dtype=int)}
    if plan.scans_missing:
        _skip_scans(lat, rng)


def _skip_scans(lat: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Perfusion skipped or spoiled, CTA not made, NCCT kept at the referring hospital."""
    n, early, old = len(lat["age"]), _early(lat), lat["year"] <= 2018
    moved = rng.random(n) < 0.03
    skipped = rng.random(n) < 0.07 + 0.14 * early + 0.06 * lat["ivt"] + 0.15 * old
    # Contrast is held back from kidneys at risk; some transfers come with a CTA of elsewhere.
    renal = 0.04 * (lat["age"] >= 80) + 0.06 * lat["diabetes"]
    no_cta = rng.random(n) < 0.01 + renal + 0.06 * lat["transfer"]
    no_ncct = (rng.random(n) < 0.10 * lat["transfer"]) & ~no_cta
    lat |= {
        "has_ncct": (~no_ncct).astype(int),
        "has_cta": (~no_cta).astype(int),
        "has_ctp": (~skipped & ~moved).astype(int),
        "ctp_moved": (moved & ~skipped).astype(int),
    }


def _early(lat: dict[str, np.ndarray]) -> np.ndarray:
    """Within 4.5 h of a witnessed onset, where perfusion changes no decision."""
    return (lat["lkw_to_groin_min"] < 270) & (lat["onset_type"] == 0)


def record(lat: dict[str, np.ndarray], rng: np.random.Generator, plan: Scenario) -> pd.DataFrame:
    """The data dictionary's columns for the patients of `lat`, with codes for what is missing."""
    columns = _admission(lat, plan) | _image_reads(lat, rng) | _perfusion(lat)
    columns |= _times(lat, rng) | _procedure(lat, rng) | _follow_up(lat, rng)
    table = pd.DataFrame(columns)
    _lose(table, lat, rng, plan)
    return table[list(ORDER)]


def _admission(lat: dict[str, np.ndarray], plan: Scenario) -> dict[str, np.ndarray]:
    n = len(lat["age"])
    return {
        "centre": np.full(n, plan.centre, dtype=object),
        "age": lat["age"].astype(int),
        "sex": lat["male"],
        "hypertension": lat["hypertension"],
        "diabetes": lat["diabetes"],
        "dyslipidemia": lat["dyslipidemia"],
        "smoking_current": lat["smoking"],
        "af_known": lat["af"],
        "prior_stroke_tia": lat["prior_stroke"],
        "cad": lat["cad"],
        "antiplatelet": lat["antiplatelet"],
        "anticoagulant": lat["anticoagulant"],
        "pre_mrs": lat["pre_mrs"].astype(int),
        "nihss_adm": lat["nihss"].astype(int),
        "sbp_adm": np.clip(np.round(lat["sbp"]), 70, 280).astype(int),
        "glucose_adm": np.clip(np.round(lat["glucose"]), 40, 600).astype(int),
        "onset_type": lat["onset_type"],
        "transfer": lat["transfer"],
        "ivt_pre": lat["ivt"],
        "side": lat["side"],
        "tandem_cta": lat["tandem"],
    }


def _image_reads(lat: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Variables that a person read off NCCT and CTA."""
    n = len(lat["age"])
    # Stagnant contrast below a terminal occlusion is at times read as a cervical occlusion.
    site = np.array([2, 3, 4])[lat["site_code"]]
    pseudo = (site == 2) & (lat["tandem"] == 0) & (rng.random(n) < 0.12)
    hyperdense = (rng.random(n) < _sigmoid((lat["clot_hu"] - 50) / 3.2)).astype(int)
    length = reread(np.log(lat["clot_length_mm"]), 2.52, 0.60, 0.70, rng)
    siphon = np.searchsorted([-0.65, 0.42], reread(lat["siphon_calcium"], 0.23, 1.26, 0.75, rng))
    truncal = misread(lat["truncal"], 0.123, 0.76, rng)
    other = misread(lat["other_stenosis"], 0.105, 0.74, rng)
    suspicion = -3.3 + 2.6 * truncal + 1.5 * other + 0.6 * (siphon == 2) - 0.4 * hyperdense
    tan = np.searchsorted([-1.90, -0.35, 1.10], lat["collateral"] + rng.normal(0, 0.75, n))
    tortuosity = reread(lat["tortuosity_z"], 0.09, 1.05, 0.70, rng)
    return {
        "occl_site_cta": np.where(pseudo, 1, site),
        "aspects": np.clip(np.round(reread(lat["aspects"], 8.6, 1.1, 0.70, rng)), 0, 10).astype(
            int
        ),
        "hyperdense_sign": hyperdense,
        "clot_hu": np.clip(reread(lat["clot_hu"], 52.4, 8.8, 0.70, rng), 20, 100).round(1),
        "clot_length_mm": np.clip(np.exp(length), 1, 80).round(1),
        "perviousness_hu": np.clip(
            reread(lat["perviousness_hu"], 8.1, 9.4, 0.65, rng), -10, 100
        ).round(1),
        "occl_type_cta": truncal,
        "siphon_calc": siphon.astype(int),
        "other_stenosis_cta": other,
        "icad_suspected_cta": (rng.random(n) < _sigmoid(suspicion)).astype(int),
        "collateral_tan": tan.astype(int),
        "ica_tortuosity": np.clip(0.15 * np.exp(0.45 * tortuosity), 0, 2).round(3),
    }


def _perfusion(lat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Perfusion software's output in whole mL; ratios are formed from the rounded volumes."""
    core, tmax4, tmax6, tmax10 = (
        np.round(lat[name]) for name in ("core_ml", "tmax4_ml", "tmax6_ml", "tmax10_ml")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        hir = np.where(tmax6 > 0, np.round(tmax10 / tmax6, 2), NOT_APPLICABLE)
        mismatch = np.where(core > 0, np.round(tmax6 / core, 2), NOT_APPLICABLE)
    return {
        "core_ml": core,
        "tmax4_ml": tmax4,
        "tmax6_ml": tmax6,
        "tmax10_ml": tmax10,
        "hir": hir,
        "mismatch_ratio": mismatch,
        "cbv_index": np.round(lat["cbv_index"], 2),
        "ctp_vendor": np.full(len(core), 9),
    }


def _times(lat: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Year, scan and puncture time (shifted dates; hour and weekday fit on- or off-hours)."""
    n = len(lat["age"])
    ct_to_groin = np.round(np.clip(rng.normal(67, 15, n), 45, 90))
    year = lat["year"]
    off = lat["off_hours"] == 1
    weekend = off & (rng.random(n) < 0.45)
    start = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]")
    start = np.busday_offset(start, 0, roll="forward", weekmask="Mon")  # first Monday of the year
    weekday = np.where(weekend, rng.integers(5, 7, n), rng.integers(0, 5, n))
    day = start + (7 * rng.integers(0, 51, n) + weekday).astype("timedelta64[D]")
    minute = np.where(
        weekend,
        rng.integers(0, 1440, n),
        np.where(off, (1080 + rng.integers(0, 840, n)) % 1440, 480 + rng.integers(0, 600, n)),
    )
    puncture = day.astype("datetime64[m]") + minute.astype("timedelta64[m]")
    scan = puncture - ct_to_groin.astype(int).astype("timedelta64[m]")
    lkw = np.clip(np.round(lat["lkw_to_groin_min"] - ct_to_groin), 10, 1440).astype(int)
    return {
        "admit_year": scan.astype("datetime64[Y]").astype(int) + 1970,
        "lkw_to_ct_min": lkw,
        "scan_datetime": np.datetime_as_string(scan, unit="s").astype(object),
        "puncture_datetime": np.datetime_as_string(puncture, unit="s").astype(object),
    }


def _procedure(lat: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The angiography report: raw outcomes as drawn, and what goes with them."""
    n, passes = len(lat["age"]), lat["n_passes"]
    rescued = lat["rescue_type"] > 0
    names = np.array(["0", "1", "2a", "2b50", "2b67", "2c", "3"], dtype=object)
    early = np.searchsorted([0.45, 0.53, 0.73, 0.93], rng.random(n))
    first = np.where(passes == 1, lat["etici_rank"], np.minimum(early, lat["etici_rank"]))
    technique = 1 + np.searchsorted([0.30, 0.55, 0.98], rng.random(n))
    tight = lat["underlying_stenosis"] > 50
    reocclusion = (rng.random(n) < np.where(tight, 0.267, 0.03)) & (passes > 0)
    cervical = (lat["tandem"] == 1) & (passes > 0) & (rng.random(n) < 0.50)
    duration = 18 + 13 * passes + 22 * rescued + 12 * cervical + 35 * lat["unreached"]
    duration = duration * np.exp(rng.normal(0, 0.35, n))
    stenosis = np.where(lat["etici"] == "0", NOT_APPLICABLE, lat["final_stenosis"])
    return {
        "access_failure": lat["unreached"],
        "n_passes": passes,
        "first_pass_etici": np.where(passes == 0, str(NOT_APPLICABLE), names[first]),
        "first_technique": np.where(passes == 0, NOT_APPLICABLE, technique),
        "reocclusion": reocclusion.astype(int),
        "rescue_type": lat["rescue_type"],
        "antiplatelet_ia": (rng.random(n) < np.where(rescued, 0.45, 0.03)).astype(int),
        "cervical_stent": cervical.astype(int),
        "etici_final": lat["etici"],
        "final_stenosis_pct": stenosis.astype(int),
        "duration_min": np.clip(np.round(duration), 5, 300).astype(int),
    }


def _follow_up(lat: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Discharge aetiology, NIHSS at 24 h, symptomatic bleeding, mRS at 90 days."""
    n, failed = len(lat["age"]), lat["etici_rank"] <= 2
    known = np.array([2, 1, 1, 3])[lat["etiology_code"]]
    found = rng.random(n) < np.array([0.85, 0.75, 0.85, 0.15])[lat["etiology_code"]]
    bleed = rng.random(n) < _sigmoid(-3.2 + 0.008 * lat["core_ml"] + 0.6 * failed)
    nihss = lat["nihss"] * np.where(failed, 0.95, 0.50) + 6 * bleed + rng.normal(0, 4, n)
    nihss = np.clip(np.round(nihss), 0, 42)
    poor = -0.9 + 0.09 * nihss + 0.45 * lat["age_z"] + 0.40 * lat["pre_mrs"]
    mrs = np.searchsorted([-1.3, -0.5, 0.1, 0.7, 1.4, 1.9], poor + rng.normal(0, 0.9, n))
    return {
        "etiology_toast": np.where(found, known, 4),
        "nihss_24h": nihss.astype(int),
        "sich": bleed.astype(int),
        "mrs_90d": mrs.astype(int),
    }


def _lose(
    table: pd.DataFrame, lat: dict[str, np.ndarray], rng: np.random.Generator, plan: Scenario
) -> None:
    """Replace values by missing codes, at random and not at random (section 1d)."""
    n = len(table)

    def drop(columns: list[str], probability: np.ndarray | float, code: int) -> None:
        rows = rng.random(n) < plan.missing_factor * probability
        for name in columns:
            table.loc[rows, name] = code

    for name, (share, code) in MISSING.items():
        drop([name], share, code)
    # Not at random: an aphasic patient cannot say, and smokers are asked more often than not.
    severe = (lat["nihss"] > 20).astype(float)
    drop(["smoking_current"], 0.055 + 0.06 * severe + 0.05 * lat["smoking"], NOT_RECORDED)
    # Direct-to-angiography patients skip the emergency room's measurements.
    direct = ((lat["transfer"] == 0) & (rng.random(n) < 0.25)).astype(float)
    drop(["sbp_adm"], 0.02 + 0.12 * direct, NOT_RECORDED)
    drop(["glucose_adm"], 0.035 + 0.15 * direct, NOT_RECORDED)
    worse = 0.06 + 0.09 * (lat["pre_mrs"] >= 3) + 0.05 * (lat["ivt"] == 0)
    drop(["mrs_90d"], worse + 0.05 * (table["mrs_90d"] >= 4), NOT_RECORDED)
    if plan.missing_not_at_random:
        # No informant for the dependent; normal lipids and glucose are not written down; a very
        # high pressure is treated first; atrial fibrillation is missed rather than excluded.
        drop(["pre_mrs"], 0.15 * (lat["pre_mrs"] >= 3), NOT_RECORDED)
        drop(["dyslipidemia"], 0.15 * (lat["dyslipidemia"] == 0), NOT_RECORDED)
        drop(["glucose_adm"], 0.15 * (lat["glucose"] < 110), NOT_RECORDED)
        drop(["sbp_adm"], 0.20 * (lat["sbp"] > 180), NOT_RECORDED)
        drop(["af_known"], 0.06 * (lat["af"] == 1), NOT_RECORDED)
    # Clot density needs slices of 2.5 mm or less.
    thick = lat["scanner"] == "C"
    table.loc[thick, ["clot_hu", "perviousness_hu"]] = NOT_DONE
    drop(["clot_length_mm"], np.where(thick, 0.5, 0.01), NOT_DONE)
    _lose_perfusion(table, lat, rng, plan)
    table.loc[lat["has_ncct"] == 0, list(NCCT_READS)] = NOT_DONE
    table.loc[lat["has_cta"] == 0, list(CTA_READS)] = NOT_DONE
    # The site is then known from the referral; whether the neck was open is not.
    table.loc[lat["has_cta"] == 0, "tandem_cta"] = NOT_RECORDED


def _lose_perfusion(
    table: pd.DataFrame, lat: dict[str, np.ndarray], rng: np.random.Generator, plan: Scenario
) -> None:
    """The software's values: lost with the maps, or (all maps made) for the reasons of section 1d."""
    n, old = len(table), lat["year"] <= 2018
    skipped, moved = (lat["has_ctp"] == 0) & (lat["ctp_moved"] == 0), lat["ctp_moved"] == 1
    if not plan.scans_missing:
        # Perfusion is skipped in the early window and was rarer at first; motion spoils a few.
        share = 0.035 + 0.05 * _early(lat) + 0.05 * lat["ivt"] + 0.11 * old
        skipped = rng.random(n) < plan.missing_factor * share
        moved = rng.random(n) < plan.missing_factor * 0.02
    for name in CTP_COLUMNS:
        table.loc[moved, name] = NOT_DONE
        table.loc[skipped, name] = NOT_RECORDED


ORDER = (
    "admit_year", "centre", "age", "sex", "hypertension", "diabetes", "dyslipidemia",
    "smoking_current", "af_known", "prior_stroke_tia", "cad", "antiplatelet", "anticoagulant",
    "pre_mrs", "nihss_adm", "sbp_adm", "glucose_adm", "onset_type", "lkw_to_ct_min", "transfer",
    "ivt_pre", "side", "occl_site_cta", "tandem_cta", "aspects", "hyperdense_sign", "clot_hu",
    "clot_length_mm", "perviousness_hu", "occl_type_cta", "siphon_calc", "other_stenosis_cta",
    "icad_suspected_cta", "collateral_tan", "ica_tortuosity", "core_ml", "tmax4_ml", "tmax6_ml",
    "tmax10_ml", "hir", "mismatch_ratio", "cbv_index", "ctp_vendor", "scan_datetime",
    "puncture_datetime", "access_failure", "n_passes", "first_pass_etici", "first_technique",
    "reocclusion", "rescue_type", "antiplatelet_ia", "cervical_stent", "etici_final",
    "final_stenosis_pct", "duration_min", "etiology_toast", "nihss_24h", "sich", "mrs_90d",
)  # fmt: skip
