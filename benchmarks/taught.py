"""Do networks find what is there? Outcomes simulated on real masks and clinical tables, so that the truth is known.

    python benchmarks/taught.py data/soop studies/soop/semi_simulated/DATE

The patients, masks and tables are those of the SOOP study; the outcomes are drawn from a risk that is written below,
fixed before any was drawn. So how a network is trained can be settled without an outcome of a patient. Each truth is one
cross-validation of the study; AUC out of fold, and that of the true risk (the ceiling). The CSV holds no patient.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from rlvo_lib import cohort, experiment, metrics, storage
from rlvo_lib.analysis import Analysis, open_analysis
from rlvo_lib.config import load_settings

ARMS = [
    "clinical_logistic", "volume", "clinical_volume", "clinical_territories", "image", "concat", "daft",
    "daft_untaught", "daft_offset",
]  # fmt: skip
#: Log-odds a standard deviation: of age, NIHSS and prior stroke in both truths, then of the lesion.
CLINICAL = {"age": 0.5, "nihss": 1.1, "prior_stroke": 0.2}
TRUTHS = {
    "volume": {"lesion_ml": 0.7},
    "territories": {
        "lesion_ml": 0.45,
        **dict.fromkeys(("territory_05_ml", "territory_06_ml", "territory_23_ml", "territory_24_ml"), 0.35),
        **dict.fromkeys(("territory_25_ml", "territory_26_ml"), 0.3),
        **dict.fromkeys(("territory_07_ml", "territory_09_ml", "territory_11_ml"), 0.2),
    },
}  # fmt: skip


def true_logit(table: pd.DataFrame, lesion: dict[str, float]) -> pd.Series:
    """The log-odds of each patient: sums of standardised values, volumes as log(1 + mL)."""
    total = pd.Series(0.0, table.index)
    for name, weight in (CLINICAL | lesion).items():
        values = pd.to_numeric(table[name], errors="coerce")
        values = np.log1p(values) if name.endswith("_ml") else values
        values = values.fillna(values.median())
        total += weight * (values - values.mean()) / max(values.std(), 0.05)
    return total - total.mean()


def with_outcomes(analysis: Analysis, logit: pd.Series, seed: int) -> Analysis:
    """The analysis with outcomes drawn from a risk, and folds of their own."""
    drawn = np.random.default_rng(seed).random(len(logit)) < expit(logit)
    mrs = pd.Series(np.where(drawn, 4.0, 1.0), logit.index)
    table = analysis.dataset.table.copy()
    table.loc[mrs.index, "mrs_discharge"] = mrs.astype(table["mrs_discharge"].dtype)
    frame = analysis.frame.copy()
    poor = pd.Series(np.where(drawn, "1", "0"), logit.index)
    own = frame["participant_id"].map(poor)
    outcome = analysis.settings.study.outcome
    frame[outcome] = own.where(own.notna(), frame[outcome])
    study = analysis.settings.study
    split = cohort.make_split(
        frame, study, analysis.dictionary, seed=analysis.settings.seed, given=None
    )
    dataset = dataclasses.replace(analysis.dataset, table=table)
    return dataclasses.replace(analysis, dataset=dataset, frame=frame, split=split)


def main(data: str, out: str) -> None:
    """Write ``auc.csv``: truth, arm, n, events, auc."""
    analysis = open_analysis(load_settings("demo", study="soop", data=data, repeats=1))
    tensors, rows = analysis.tensors(), []
    ids = sorted(cohort.included(analysis.frame).index)
    for truth, lesion in TRUTHS.items():
        logit = true_logit(analysis.dataset.table.loc[ids], lesion)
        own = with_outcomes(analysis, logit, seed=0)
        y = own.y[ids].to_numpy(int)
        rows.append(
            (truth, "the true risk", len(y), int(y.sum()), metrics.auc(y, logit.to_numpy()))
        )
        predictions = experiment.run_arms(own, tensors, ARMS)
        for arm, part in predictions.groupby("arm", sort=False):
            auc = metrics.auc(part["y_true"], part["probability"])
            rows.append((truth, arm, len(part), int(part["y_true"].sum()), auc))
    table = pd.DataFrame(rows, columns=["truth", "arm", "n", "events", "auc"]).round(4)
    storage.write_csv(Path(out) / "auc.csv", table.assign(data="simulated outcomes on real masks"))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:3])
