"""What the simulated patients were calibrated to, and what is published about it.

One table of the values of the project's evidence tables (sections 1b, 1c, 1d, 3) that the generator is
held to on 20,000 patients of the scenario `paper`; `measure` puts what a draw has beside it. Shares are in
%, volumes in mL, times in min. Published values are context and no target: the sources disagree among
themselves. Tolerances hold sampling error and the rounding of the calibrated value.

Of section 1c only scores whose items the generator has are here, as logistic regressions on their items:
Score-ICAD without the two infarct patterns (no cortical infarct, border zone), which no latent describes;
the items behind the Vall d'Hebron model are those named for it in section 2. Of section 3 the AUCs after
fitting on 481 patients are in `ceiling`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from rlvo_lib.metrics import auc
from rlvo_lib.simulate import ceiling, scenarios

Measure = Callable[[pd.DataFrame, pd.DataFrame], float]


@dataclass(frozen=True)
class Marginal:
    """One value of the evidence tables: `what` measures it from latents and table."""

    name: str
    section: str
    what: Measure
    calibrated: float
    tolerance: float
    published: str
    not_met: str = ""  # the reason, where a value is known not to be met


def measure(latents: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Every value of `MARGINALS` on a draw of the scenario `paper`.

    Returns
    -------
    DataFrame: name, section, measured, calibrated, tolerance, published, met (bool), reason (why a value
    is known not to be met).

    Examples
    --------
    >>> from rlvo_lib.simulate import patients
    >>> found = measure(*patients.draw(3000, np.random.default_rng(1)))
    >>> len(found) == len(MARGINALS), bool(found["met"].mean() > 0.8)
    (True, True)
    """
    rows = [
        (m.name, m.section, m.what(latents, table), m.calibrated, m.tolerance, m.published)
        for m in MARGINALS
    ]
    names = ["name", "section", "measured", "calibrated", "tolerance", "published"]
    found = pd.DataFrame(rows, columns=names)
    found["met"] = (found["measured"] - found["calibrated"]).abs() <= found["tolerance"]
    return found.assign(reason=[m.not_met for m in MARGINALS])


def _percent(column: str, *values: object) -> Measure:
    """Share of patients whose latent is 1, or one of `values`."""
    return lambda latents, _: 100 * latents[column].isin(values or (1,)).mean()


def _recorded(column: str, value: object) -> Measure:
    """Share among patients for whom the value was recorded."""

    def what(_: pd.DataFrame, table: pd.DataFrame) -> float:
        known = ~table[column].isin([-99, -98, -97])
        return 100 * (table.loc[known, column] == value).mean()

    return what


def _lost(column: str, *codes: int) -> Measure:
    """Share of patients with a missing code."""
    return lambda _, table: 100 * table[column].isin(codes).mean()


def _quantile(column: str, q: float) -> Measure:
    return lambda latents, _: float(latents[column].quantile(q))


def _spearman(a: str, b: str) -> Measure:
    """Of two latents, or of a latent and a recorded read."""

    def what(latents: pd.DataFrame, table: pd.DataFrame) -> float:
        second = latents[b] if b in latents else table[b].where(table[b] > -97)
        return float(spearmanr(latents[a], second, nan_policy="omit")[0])

    return what


def _flags(latents: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The items of scores for intracranial atherosclerosis, as numbers; NaN where not recorded."""
    sign = table["hyperdense_sign"].where(table["hyperdense_sign"] >= 0)
    return latents.assign(
        no_af=1 - latents["af"],
        proximal=(latents["site"] != "M2").astype(int),
        severe_calcium=(latents["siphon_grade"] == 2).astype(int),
        no_sign=1 - sign,
    )


def _odds(item: str) -> Measure:
    """Crude odds ratio of an item for ICAD."""

    def what(latents: pd.DataFrame, table: pd.DataFrame) -> float:
        (a, b), (c, d) = pd.crosstab(_flags(latents, table)[item], latents["icad"]).to_numpy()
        return float(d * a / (b * c))

    return what


def _score(items: tuple[str, ...], outcome: str) -> Measure:
    """AUC of a logistic regression on the items, fitted to the outcome, by five-fold cross-validation."""

    def what(latents: pd.DataFrame, table: pd.DataFrame) -> float:
        x = _flags(latents, table)[list(items)].dropna()
        return _auc(x.to_numpy(dtype=float), latents.loc[x.index, outcome].to_numpy())

    return what


def _arm(arm: str) -> Measure:
    """AUC of a logistic regression on the true latents of an arm, by five-fold cross-validation."""

    def what(latents: pd.DataFrame, _: pd.DataFrame) -> float:
        x = ceiling.features(arm, latents, scenarios.named("paper"))[0]
        return _auc(x[:, x.std(axis=0) > 0], latents["rlvo"].to_numpy())

    return what


def _perfusion_values(latents: pd.DataFrame, _: pd.DataFrame) -> float:
    """The same on the software's values alone, without site or age; volumes as logarithms."""
    volumes = np.log1p(latents[["core_ml", "tmax4_ml", "tmax6_ml", "tmax10_ml"]])
    ratios = latents[["hir", "cbv_index"]]
    return _auc(np.column_stack([volumes, ratios]), latents["rlvo"].to_numpy())


def _auc(x: np.ndarray, y: np.ndarray) -> float:
    model = LogisticRegression(solver="newton-cholesky")
    x = StandardScaler().fit_transform(x)
    return auc(y, cross_val_predict(model, x, y, cv=5, method="decision_function"))


def _reliability(read: str, latent: str, scale: Callable = np.asarray) -> Measure:
    """Squared correlation of a read with the truth, which is the correlation of two such readers."""

    def what(latents: pd.DataFrame, table: pd.DataFrame) -> float:
        known = table[read] > -97
        return float(
            np.corrcoef(scale(table.loc[known, read]), scale(latents.loc[known, latent]))[0, 1] ** 2
        )

    return what


def _graded(read: str, latent: str) -> Measure:
    """The same for a read in grades: the polyserial correlation, that of the scale below the grades."""

    def what(latents: pd.DataFrame, table: pd.DataFrame) -> float:
        known = table[read] > -97
        grade = table.loc[known, read].to_numpy()
        cuts = norm.ppf(np.cumsum(np.bincount(grade)[:-1]) / len(grade))
        r = np.corrcoef(grade, latents.loc[known, latent])[0, 1]
        return float((r * grade.std() / norm.pdf(cuts).sum()) ** 2)

    return what


def _kappa(read: str, latent: str) -> Measure:
    """Cohen's kappa of a yes/no read with the truth."""

    def what(latents: pd.DataFrame, table: pd.DataFrame) -> float:
        known = table[read] >= 0
        a, b = table.loc[known, read].to_numpy(), latents.loc[known, latent].to_numpy()
        chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
        return float(((a == b).mean() - chance) / (1 - chance))

    return what


def _pattern(stenosis: bool, failure: bool, rescue: bool) -> Measure:
    """Patients with exactly these criteria among 93 with the outcome."""

    def what(latents: pd.DataFrame, _: pd.DataFrame) -> float:
        met = _criteria(latents[latents["rlvo"] == 1])
        return 93 * (met == [stenosis, failure, rescue]).all(axis=1).mean()

    return what


def _criteria(latents: pd.DataFrame) -> np.ndarray:
    """Stenosis, eTICI 0 to 2a, rescue of each patient, (n, 3) bool."""
    stenosis = (latents["final_stenosis"] > 50) & (latents["etici"] != "0")
    return np.column_stack([stenosis, latents["etici_rank"] <= 2, latents["rescue_type"] > 0])


def _criterion(k: int) -> Measure:
    return lambda latents, _: 100 * _criteria(latents)[:, k].mean()


def _within(group: str, value: object, what: Measure) -> Measure:
    """The measure among patients with a value of a latent."""

    def within(latents: pd.DataFrame, table: pd.DataFrame) -> float:
        rows = latents[group] == value
        return what(latents[rows], table[rows])

    return within


def _quartiles(name: str, column: str, values: tuple, published: str) -> list[Marginal]:
    """Median, first and third quartile, within 4 % and 0.4 units."""
    return [
        Marginal(f"{name}, {label}", "1b", _quantile(column, q), v, 0.4 + 0.04 * v, published)
        for (label, q), v in zip(
            {"median": 0.5, "first quartile": 0.25, "third quartile": 0.75}.items(),
            values,
            strict=True,
        )
    ]


def _shares(section: str, rows: dict[str, tuple], tolerance: float = 1.3) -> list[Marginal]:
    """Percentages: name to (measure, calibrated, published)."""
    return [
        Marginal(f"{k}, %", section, w, c, _points(c, tolerance), p)
        for k, (w, c, p) in rows.items()
    ]


def _of_93(count: float) -> float:
    """Tolerance of a count among 93: rounding, and 3 SE of the some 3,200 events of 20,000 patients."""
    share = count / 93
    return float(0.5 + 3 * 93 * np.sqrt(max(share * (1 - share), 0.002) / 3200))


def _points(percent: float, most: float) -> float:
    """Tolerance of a percentage: 15 % of it, at least 3 SE of 20,000 patients and how it is rounded."""
    rounded = 0.5 if percent == round(percent) else 0.05
    error = 3 * np.sqrt(percent * (100 - percent) / 20_000)
    return float(min(most, max(0.15 * percent, error + rounded)))


def _categories(section: str, name: str, column: str, percents: dict, published: str) -> list:
    rows = {f"{name} {v}": (_percent(column, v), c, published) for v, c in percents.items()}
    return _shares(section, rows)


SPEARMAN = 0.035  # rounding, and 4 SE of 20,000 patients
#: Correlations that the coefficients of section 1b do not give, and why.
NOT_MET = {
    "core_ml and aspects": "the formula given for ASPECTS makes -0.63 of it, and -0.45 with ASPECTS as read"
}

VDH = ("no_af", "smoking", "proximal", "hir", "siphon_grade")
ABC2D = ("no_af", "hypertension", "nihss", "no_sign", "diabetes")
SCORE_ICAD = (
    "no_af", "hypertension", "diabetes", "smoking", "dyslipidemia", "other_stenosis", "siphon_grade",
)  # fmt: skip

# fmt: off
MARGINALS: tuple[Marginal, ...] = (
    *_quartiles("age", "age", (74, 65, 82), "72±13 GSR-ET [S8]; 74±13 DeGIR [S9]; 71 (60-80) MR CLEAN [M]; 66 (56-73) China [S17]"),
    *_shares("1b", {
        "male": (_percent("male"), 50.3, "50 GSR-ET [S8]; 46 DeGIR [S9]; 53 HERMES [M]; 62.9 China [S17]"),
        "hypertension": (_percent("hypertension"), 67.7, "71 STRATIS [M]; 51 MR CLEAN [M]; 66.3 Germany; 54.2 China [S17]"),
        "diabetes": (_percent("diabetes"), 22.0, "25 STRATIS [M]; 17 HERMES [M]; 17.1 Germany; 17.6 China [S17]"),
        "dyslipidaemia": (_percent("dyslipidemia"), 45.0, "58.6 Germany"),
        "current smoking": (_percent("smoking"), 20.7, "31 HERMES [M]; 22.9 Germany; 29.2 China [S17]"),
        "atrial fibrillation": (_percent("af"), 38.5, "37 STRATIS [M]; 33 HERMES [M]; 43.8 Germany; 41.0 China [S17]"),
        "prior stroke or TIA": (_percent("prior_stroke"), 15.9, "13.9 Germany; 18.4 and TIA 2.2 China [S17]"),
        "anticoagulant": (_percent("anticoagulant", 1, 2), 21.0, "10.4 Germany"),
        "antiplatelet": (_percent("antiplatelet"), 26.0, "31.6 Germany"),
        "tandem": (_percent("tandem"), 12.3, "12.1 Catalonia [S5]; 21.9 China [S17]"),
        "onset not witnessed": (_percent("onset_type", 1, 2), 30.0, "none found"),
        "thrombolysis": (_percent("ivt"), 40.0, "53 Catalonia [S5]; 59 GSR-ET [S8]; 29.8 China [S17]"),
        "truncal occlusion": (_percent("truncal"), 12.3, "16-17 Korea [S37]"),
        "other intracranial stenosis": (_percent("other_stenosis"), 10.5, "none found"),
        "core 0 mL": (_percent("core_ml", 0.0), 13.0, "none found"),
    }),
    Marginal("core 70 mL or more, %", "1b", lambda latents, _: 100 * (latents["core_ml"] >= 70).mean(), 6.8, 1.0, "none found"),
    Marginal("hyperdense sign, %", "1b", _recorded("hyperdense_sign", 1), 59.0, 1.5, "sensitivity 62 for LVO [PMC7289154]"),
    *_categories("1b", "pre-stroke mRS", "pre_mrs", {0: 64, 1: 16, 2: 11, 3: 6, 4: 2}, "0-2 in 85 (cardioembolic) to 96 (cervical) MR CLEAN [S22]"),
    *_categories("1b", "site", "site", {"ICA": 21, "M1": 51.5, "M2": 27.4}, "16.6/52.4/12.1 Catalonia [S5]; 22/61/16 MR CLEAN [S23]; 21/69/8 HERMES [M]"),
    *_categories("1b", "siphon calcification", "siphon_grade", {0: 24, 1: 34, 2: 43}, "22/38/41 NCCT, 28/35/37 CTA [S41]"),
    *_shares("1b", {f"collateral score {v}": (_recorded("collateral_tan", v), c, "6/35/39/20 MR CLEAN [M]") for v, c in enumerate((6, 31, 42, 21))}),
    *_quartiles("last known well to groin", "lkw_to_groin_min", (299, 184, 512), "208 (160-265) MR CLEAN [M]; 224±176 GSR-ET [S8]; 217 (163-391) Germany; 300 (210-440) China [S17]"),
    *_quartiles("NIHSS", "nihss", (15, 11, 19), "17.5 (13-21) Catalonia [S5]; 15 (10-19) GSR-ET [S8]; 16 (12-20) China [S17]"),
    *_quartiles("Tmax > 6 s", "tmax6_ml", (115, 78, 165), "122 (71-185) and 104 (83-136) DEFUSE 3 [S18]"),
    *_quartiles("core", "core_ml", (11.6, 3.6, 28.5), "12.2 (2.4-37.6) and 9.4 (2.2-17.1) DEFUSE 3 [S18]"),
    *_quartiles("ASPECTS", "aspects", (9, 8, 9), "8 (7-10) GSR-ET [S8]; 9 (7-10) China [S17]"),
    *_quartiles("clot density, HU", "clot_hu", (52.5, 46.6, 58.4), "61±8 if hyperdense [S27]; thrombosed 45-68 [S28]"),
    *_quartiles("clot length, mm", "clot_length_mm", (12.4, 8.4, 18.4), "16.1 (7.6-25.2) [S25]"),
    *_quartiles("perviousness, HU", "perviousness_hu", (5.3, 1.3, 11.9), "median 6-7 [M]"),
    Marginal("HIR, median", "1b", _quantile("hir", 0.5), 0.40, 0.02, "0.44 and 0.33 DEFUSE 3 [S18]; 0.4 (0.2-0.5) [S19]"),
    Marginal("HIR in ICAD, median", "1b", _within("icad", 1, _quantile("hir", 0.5)), 0.33, 0.02, "odds ratio 0.69, step not stated [S2]"),
    Marginal("HIR for ICAD, AUC", "1b", lambda latents, _: auc(latents["icad"], -latents["hir"]), 0.59, 0.02, "0.62 [S35]"),
    *(Marginal(f"Spearman {a} and {b}", "1b", _spearman(a, b), c, SPEARMAN, p, NOT_MET.get(f"{a} and {b}", "")) for a, b, c, p in (
        ("hir", "collateral_tan", -0.41, "-0.29 with collaterals on DSA [S21]"), ("core_ml", "hir", 0.44, "none found"),
        ("core_ml", "aspects", -0.56, "none found"), ("nihss", "tmax6_ml", 0.34, "none found"),
        ("nihss", "core_ml", 0.33, "none found"), ("age", "nihss", 0.19, "none found"),
    )),
    # The odds ratios' standard errors are 5 to 10 %.
    *(Marginal(f"odds ratio for ICAD, {item}", "1c", _odds(item), c, 0.2 * c, p) for item, c, p in (
        ("no_af", 10.2, "9.33 [S2]; 27 [S32]"), ("smoking", 2.6, "2.91 [S2]"), ("proximal", 3.0, "4.0 [S2]"),
        ("diabetes", 2.1, "2.8 [S32]; 1.98 [S36]"), ("hypertension", 1.4, "2.9 [S32]; 1.97 [S36]"),
        ("no_sign", 2.6, "2.86 [S32]"), ("male", 1.7, "none found"), ("severe_calcium", 2.8, "about 6.6 [S2]"),
        ("other_stenosis", 7.3, "3 points in Score-ICAD [S31]"), ("truncal", 13.7, "93 against 10 % on DSA [S38]"),
    )),
    *(Marginal(f"AUC for {outcome}, {name}", "1c", _score(items, outcome), c, 0.02, p) for name, items, outcome, c, p in (
        ("Vall d'Hebron model", VDH, "icad", 0.81, "0.88 [S2]"),
        ("ABC2D", ABC2D, "icad", 0.78, "0.88 [S32]; 0.63 external [S33]"),
        ("Score-ICAD", SCORE_ICAD, "icad", 0.84, "0.88, 0.82 [S31]; 0.71 external [S33]"),
        ("Vall d'Hebron model", VDH, "rlvo", 0.66, "none found"),
        ("ABC2D", ABC2D, "rlvo", 0.63, "none found"),
        ("Score-ICAD", SCORE_ICAD, "rlvo", 0.68, "none found"),
    )),
    *_shares("1d", {f"{label} missing": (_lost(label.split()[0], *codes), c, p) for label, codes, c, p in (
        ("age", (-99,), 0.0, "0"), ("hypertension", (-99,), 0.5, "none found"), ("dyslipidemia", (-99,), 2.0, "none found"),
        ("smoking_current", (-99,), 8.0, "none found"), ("pre_mrs", (-99,), 2.0, "none found"),
        ("sbp_adm", (-99,), 4.0, "none found"), ("glucose_adm", (-99,), 6.0, "none found"),
        ("aspects", (-99,), 2.0, "26 of records incomplete [S10]"), ("collateral_tan", (-97,), 5.0, "none found"),
        ("core_ml", (-99, -97), 12.0, "none found"), ("core_ml (motion)", (-97,), 2.0, "none found"),
        ("clot_hu", (-97,), 15.0, "none found"), ("siphon_calc", (-97,), 3.0, "31 without thin slices [S42]"),
        ("etiology_toast", (-99,), 5.9, "5.9 [S17]"), ("mrs_90d", (-99,), 12.0, "19.7 [S69]"),
    )}),
    *_shares("3", {
        "outcome": (_percent("rlvo"), 15.9, "93 of 599 [S1]; failure 11.6-16.8 [S9, S10]"),
        "eTICI 0-2a": (_criterion(1), 7.3, "16.8 GSR [S10]; 12.1 STRATIS [S12]; 11.6 DeGIR [S9]"),
        "final stenosis > 50 %": (_criterion(0), 4.8, "ICAS-LVO 8.3 [S2]"),
        "rescue": (_criterion(2), 5.1, "refractory 8.3, of which 52 angioplasty or stent [S16]"),
        "2c or 3 after the first pass": (lambda _, table: 100 * table["first_pass_etici"].isin(["2c", "3"]).mean(), 36.0, "none found"),
    }),
    *_categories("3", "eTICI", "etici", {"0": 4.2, "1": 0.6, "2a": 2.5, "2b50": 10.1, "2b67": 17.3, "2c": 22.0, "3": 43.2}, "8/3/14/14/30/23/9 HERMES [S13]"),
    *_categories("3", "passes", "n_passes", {0: 2, 1: 47, 2: 26, 3: 13, 4: 6, 5: 3, 6: 2}, "1/2-3/4 and more 50/31.6/18.4 of the recanalised [S30]"),
    *_shares("3", {f"outcome in {e}": (_within("etiology", e, _percent("rlvo")), c, "none found") for e, c in (("CE", 9), ("ICAD", 91), ("LAA", 11), ("OTH", 8))}, 2.5),
    *_shares("3", {"ICAD among those with the outcome": (_within("rlvo", 1, _percent("icad")), 49.0, "60 of refractory [S16]")}, 3.0),
    *(Marginal(f"of 93: {name}", "3", _pattern(*met), c, _of_93(c), "none found") for name, met, c in (
        ("eTICI only", (False, True, False), 39), ("rescue only", (False, False, True), 23), ("stenosis only", (True, False, False), 23),
        ("stenosis and rescue", (True, False, True), 4), ("eTICI and rescue", (False, True, True), 2),
        ("stenosis and eTICI", (True, True, False), 2), ("all three", (True, True, True), 0),
    )),
    Marginal("AUC, clinical", "3", _arm("clinical"), 0.64, 0.02, "none found"),
    Marginal("AUC, perfusion values", "3", _perfusion_values, 0.56, 0.02, "none found"),
    Marginal("AUC, vessel and clot", "3", _arm("cta"), 0.72, 0.02, "none found"),
    Marginal("AUC, all", "3", _arm("all"), 0.74, 0.02, "0.70 multimodal network [S1]"),
    *(Marginal(f"reliability of {read}", "reads", what, c, 0.1, "0.6 to 0.8 between readers, assumed") for read, what, c in (
        ("clot_hu", _reliability("clot_hu", "clot_hu"), 0.7), ("perviousness_hu", _reliability("perviousness_hu", "perviousness_hu"), 0.7),
        ("clot_length_mm", _reliability("clot_length_mm", "clot_length_mm", np.log), 0.7), ("ica_tortuosity", _reliability("ica_tortuosity", "tortuosity_z"), 0.7),
        ("aspects", _graded("aspects", "aspects"), 0.7), ("siphon_calc", _graded("siphon_calc", "siphon_calcium"), 0.7),
        ("collateral_tan", _graded("collateral_tan", "collateral"), 0.7), ("occl_type_cta", _kappa("occl_type_cta", "truncal"), 0.7),
        ("other_stenosis_cta", _kappa("other_stenosis_cta", "other_stenosis"), 0.7),
    )),
)
# fmt: on
