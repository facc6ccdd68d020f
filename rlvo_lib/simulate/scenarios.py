"""Scenarios of the embedded cohort: what is simulated, as frozen coefficients.

A scenario is a set of coefficients of one generator (`patients`, `recording`); the defaults are the
study-like scenario `paper`. All are frozen. Those of `paper` were chosen before any network was trained on
the cohort, from published values alone. The image traits of `signal` and `interaction` were chosen so
that a small network of the default settings finds them (tried on one cohort), not tuned beyond that.
Units are in the names; a `_logit` is added to the logit of a share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvo_lib.config import SCENARIOS as WORDS
from rlvo_lib.config import InputError


@dataclass(frozen=True)
class Index:
    """One standard normal index that decides the outcome, and how it shows.

    P(eTICI 0 to 2a) = 1 / (1 + exp(-(intercept + slope * index))); without atrial fibrillation the
    slope changes its sign if `by_af`. A copy with correlation r is r * index + sqrt(1 - r^2) * noise.
    """

    intercept: float  # sets the share with the outcome in the pool
    slope: float
    grain_r: float  # copy behind `lesion_grain_mm`, seen in NCCT and CTP
    tangle_r: (
        float | None
    )  # copy behind `tangle_grain_mm`, seen in CTA; None: that behind the grain
    clinical_r: float | None  # copy behind clinical variables; None: they know nothing of it
    by_af: bool = False  # then half of the patients have it, whatever the aetiology

    # A high index is a lesion, and tangles of collateral vessels, in many small patches instead of few
    # large ones of the same volume; the clip lies at +-2 SD.
    grain_mm: tuple[float, float] = (4.5, 20.0)
    tangle_ml: float = 45.0

    # Shift per SD of the clinical copy. None of them shows in an image (age, sex, diabetes and the
    # time from onset would), and none alone tells much.
    log_glucose: float = 0.20
    sbp_mmhg: float = 20.0
    nihss_points: float = 4.5
    pre_mrs_z: float = 0.85
    af_logit: float = 0.9
    dyslipidemia_logit: float = 0.9
    prior_stroke_logit: float = 0.9
    cad_logit: float = 0.9

    # The same disease in everybody, so that neither volumes nor mean intensities tell anything:
    # M1, no truncal occlusion, mean and SD of volumes in mL and of ratios.
    core_ml: tuple[float, float] = (95.0, 12.0)
    tmax6_ml: tuple[float, float] = (190.0, 20.0)
    tmax4_per_tmax6: tuple[float, float] = (1.60, 0.05)
    hir: tuple[float, float] = (0.40, 0.03)
    lesion_freedom: float = 3.0  # the outline follows the grain, hardly the territory
    infarct_scale: float = 4.0  # so that NCCT shows the infarct

    # Share of the other routes to the outcome that is left (no access, plaque, rescue).
    other_routes: float = 0.02


# Without an index its clinical copy is 0 in everybody, and what it would shift stays.
NOTHING_SHOWS = Index(intercept=0.0, slope=0.0, grain_r=0.0, tangle_r=None, clinical_r=None)


@dataclass(frozen=True)
class Scenario:
    """Coefficients of the generator; the defaults are those of the scenario `paper`."""

    name: str
    prevalence: float | None = None  # share with the outcome; None: the study's counts
    centre: str = "SIM1"

    # Case mix: shares of cardioembolic, ICAD, cervical large artery, other; shifts of the rest.
    etiology: tuple[float, ...] = (0.50, 0.085, 0.13, 0.285)
    age_years: float = 0.0
    male_logit: float = 0.0
    diabetes_logit: float = 0.0
    smoking_logit: float = 0.0
    # Last known well to groin: log-normal in witnessed and in unwitnessed onset.
    unwitnessed: float = 0.30
    lkw_median_min: tuple[float, float] = (225.0, 620.0)
    lkw_log_sd: tuple[float, float] = (0.55, 0.42)

    # What was scanned and written down.
    scanners: tuple[float, ...] = (0.50, 0.35, 0.15)  # A, B, C; C has thick slices only
    scans_missing: bool = False  # modalities missing for reasons
    missing_not_at_random: bool = False  # more values missing for what they would be
    missing_factor: float = 1.0  # on every share of missing values of the clinical table

    # Where the outcome comes from.
    outcome_of_another: bool = False
    index: Index | None = None

    @property
    def text(self) -> str:
        """What is simulated, in words."""
        return WORDS[self.name]


# The infarct is hours old in everybody, and the time says nothing.
_LATE = {"lkw_median_min": (600.0, 600.0), "lkw_log_sd": (0.25, 0.25)}

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("paper"),
        Scenario(
            "null",
            outcome_of_another=True,
        ),
        Scenario(
            "signal",
            prevalence=0.5,  # as many events as a network needs to find a trait in 481 patients
            index=Index(intercept=0.0, slope=4.0, grain_r=0.90, tangle_r=0.90, clinical_r=0.95),
            **_LATE,
        ),
        # Half of the patients have the outcome. Only then is its share the same at every value of the image
        # trait once patients with and without AF are mixed; at 16 % both ends of the trait would be at
        # risk, and an additive model would reach 0.73.
        Scenario(
            "interaction",
            prevalence=0.5,
            index=Index(
                intercept=0.0, slope=2.2, grain_r=1.0, tangle_r=None, clinical_r=None, by_af=True
            ),
            **_LATE,
        ),
        Scenario(
            "shift",
            prevalence=0.22,
            centre="SIM2",
            etiology=(0.42, 0.155, 0.13, 0.295),  # ICAD nearly twice as frequent
            age_years=-5.0,
            male_logit=0.40,
            diabetes_logit=0.50,
            smoking_logit=0.40,
            unwitnessed=0.42,  # more late presenters
            lkw_median_min=(270.0, 680.0),
            scanners=(0.15, 0.50, 0.35),
            missing_factor=1.8,
        ),
        Scenario(
            "missing",
            scans_missing=True,
            missing_not_at_random=True,
        ),
    )
}


def named(name: str) -> Scenario:
    """The scenario called `name`; InputError if there is none.

    >>> named("shift").centre
    'SIM2'
    """
    if name not in SCENARIOS:
        raise InputError(f"scenario is {name!r}; allowed: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def traits(n: int, rng: np.random.Generator, index: Index | None) -> dict[str, np.ndarray]:
    """The index of `n` patients, its clinical copy (SD 1), and the image latents that show it.

    `lesion_grain_mm`, `tangle_grain_mm` (mm), `tangle_ml`, `lesion_freedom` and `infarct_scale` (factors) are
    constant without an index.
    """
    if index is None:
        constant = {"index": 0.0, "index_clinical": 0.0, "tangle_ml": 0.0}
        constant |= {"lesion_grain_mm": 9.0, "lesion_freedom": 0.16, "infarct_scale": 1.0}
        constant |= {"tangle_grain_mm": 9.0}
        return {name: np.full(n, value) for name, value in constant.items()}
    truth = rng.normal(size=n)

    def copy(r: float) -> np.ndarray:
        return r * truth + np.sqrt(1 - r * r) * rng.normal(size=n)

    middle = np.log(index.grain_mm).mean()
    step = (np.log(index.grain_mm[1]) - middle) / 2

    def grain_mm(z: np.ndarray) -> np.ndarray:
        return np.clip(np.exp(middle - step * z), *index.grain_mm)

    grain = copy(index.grain_r)
    tangle = grain if index.tangle_r is None else copy(index.tangle_r)
    return {
        "index": truth,
        "index_clinical": np.zeros(n) if index.clinical_r is None else copy(index.clinical_r),
        "lesion_grain_mm": grain_mm(grain),
        "lesion_freedom": np.full(n, index.lesion_freedom),
        "infarct_scale": np.full(n, index.infarct_scale),
        "tangle_ml": np.full(n, index.tangle_ml),
        "tangle_grain_mm": grain_mm(tangle),
    }


def same_volumes(n: int, rng: np.random.Generator, index: Index) -> dict[str, np.ndarray]:
    """Perfusion volumes (mL) and ratio, alike in all and independent of everything; within 2.5 SD."""

    def about(mean: float, sd: float) -> np.ndarray:
        return mean + sd * np.clip(rng.normal(size=n), -2.5, 2.5)

    tmax6 = about(*index.tmax6_ml)
    return {
        "hir": about(*index.hir),
        "tmax4_ml": tmax6 * about(*index.tmax4_per_tmax6),
        "tmax6_ml": tmax6,
        "core_ml": about(*index.core_ml),
    }
