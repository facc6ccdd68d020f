"""The small files of a run folder, and how each of its tables is made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from rlvo_lib import cohort, dictionary, report, results, storage
from rlvo_lib.config import InputError, Study
from rlvo_lib.results import recalibration

RECALIBRATED = "_recalibrated"  # ends the names of an applied run's tables after recalibration


@dataclass(frozen=True)
class Run:
    """The small files of a run folder, each read once."""

    root: Path

    def __post_init__(self) -> None:
        if not (self.root / "run.json").is_file():
            raise InputError(f"{self.root}: not a finished run folder (no run.json in it)")

    @cached_property
    def info(self) -> dict:
        """``run.json``."""
        try:
            content = storage.read_json(self.root / "run.json")
            report.stamp_text(content["data"])
            return content
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.root / 'run.json'}: not readable ({error})") from error

    @property
    def data(self) -> str:
        """``simulated`` or ``real``."""
        return self.info["data"]

    @property
    def resampling(self) -> dict[str, int]:
        """Number and seed of the bootstrap resamples."""
        settings = self.info["settings"]
        return {"resamples": int(settings["bootstrap_resamples"]), "seed": int(settings["seed"])}

    @cached_property
    def study(self) -> Study:
        """The study file as it was when the run was made, under the run's outcome definition."""
        return report.run_study(self.root, self.info)

    @cached_property
    def dictionary(self) -> dictionary.Dictionary:
        """The data dictionary as it was when the run was made."""
        return dictionary.load(self.root / "data_dictionary.csv")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """``predictions.csv``."""
        return storage.read_csv(self.root / "predictions.csv")

    @cached_property
    def thresholds(self) -> pd.DataFrame:
        """``thresholds.csv``."""
        return storage.read_csv(self.root / "thresholds.csv")

    @cached_property
    def cohort(self) -> pd.DataFrame:
        """``cohort.csv``, as text."""
        return cohort.read_frame(self.root)

    @cached_property
    def split(self) -> pd.DataFrame:
        """``split.csv``, as text."""
        return cohort.read_split(self.root / "split.csv")

    def attributions(self, name: str) -> pd.DataFrame:
        """A file of ``attributions``: what tables of explanations are made from."""
        return storage.read_csv(self.root / "attributions" / f"{name}.csv")

    @property
    def shap(self) -> pd.DataFrame:
        """``attributions/shap.csv``."""
        return self.attributions("shap")

    @cached_property
    def y(self) -> pd.Series:
        """Outcome (0 or 1) of the eligible patients, by participant_id."""
        return cohort.labels(self.cohort, self.study)

    @property
    def explained(self) -> str:
        """The arm whose modalities, regions, modulation and checks are explained."""
        return str(self.attributions("modalities")["arm"].iloc[0])

    def checks(self) -> pd.DataFrame:
        """The checks of explanations, with those of networks trained for it where the run keeps them."""
        made = results.explanation_checks(
            self.attributions("checks"), data=self.data, **self.resampling
        )
        if not (self.root / "attributions" / "checks_dated.csv").exists():
            return made
        return results.joined_checks(made, self.attributions("checks_dated"), source=results.DATED)

    def of_explained(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of the explained arm."""
        return frame[frame["arm"] == self.explained]

    @cached_property
    def ceiling(self) -> dict:
        """``ceiling.json``: the copy of a simulated dataset's that the run keeps."""
        return report.read_ceiling(self.root / "ceiling.json")

    def table(self, name: str) -> pd.DataFrame:
        """A table recomputed from the files (not read from ``tables``), made once."""
        if name not in self._tables:
            made = BUILDERS[name](self) if name in BUILDERS else self._of_applied(name)
            self._tables[name] = report.with_data(made, self.data)
        return self._tables[name]

    def makes(self, name: str) -> bool:
        """Whether a table is made from the files: of an applied run also those of its recalibration."""
        stem = name.removesuffix(RECALIBRATED)
        applied = self.info.get("applied") and (name == "recalibration" or stem in BUILDERS)
        return name in BUILDERS or bool(applied)

    def _of_applied(self, name: str) -> pd.DataFrame:
        if name == "recalibration":
            return recalibration.recalibration_table(
                self.predictions, self.thresholds, self.study, data=self.data
            )
        return self._recalibrated.table(name.removesuffix(RECALIBRATED))

    @cached_property
    def _recalibrated(self) -> Run:
        """An applied run after recalibration in the large: other probabilities and thresholds."""
        run = Run(self.root)
        moved = recalibration.in_the_large(self.predictions, self.thresholds, self.study)
        run.__dict__["predictions"], run.__dict__["thresholds"] = moved
        return run

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        return {}


#: Simulated cohorts of the published design for each bootstrap resample of a run.
DRAWS = 10

#: Table of a run -> how it is made from the run's files.
BUILDERS: dict[str, Callable[[Run], pd.DataFrame]] = {
    "flow": lambda run: cohort.flow(run.cohort, run.study),
    "exclusions": lambda run: cohort.exclusions(run.cohort, run.study),
    "split_counts": lambda run: cohort.split_counts(run.cohort, run.split, run.study),
    "table1": lambda run: cohort.table1(
        run.cohort, run.split, run.study, run.dictionary, by="label"
    ),
    "table1_partition": lambda run: cohort.table1(
        run.cohort, run.split, run.study, run.dictionary, by="partition"
    ),
    "missingness": lambda run: cohort.missingness(run.cohort, run.study, run.dictionary),
    "label_overlap": lambda run: cohort.label_overlap(run.cohort, run.study, run.dictionary),
    "label_sources": lambda run: cohort.label_sources(run.cohort, run.study, run.dictionary),
    "label_bounds": lambda run: cohort.label_bounds(run.cohort, run.study),
    "label_definitions": lambda run: cohort.label_definitions(
        run.cohort, run.study, run.dictionary
    ),
    "predictor_screen": lambda run: cohort.screen_predictors(
        run.cohort, run.split, run.study, run.dictionary
    ),
    "performance": lambda run: results.performance(
        run.predictions, run.thresholds, run.study, data=run.data, **run.resampling
    ),
    "out_of_fold": lambda run: results.out_of_fold(
        run.predictions, run.thresholds, run.study, data=run.data, **run.resampling
    ),
    "no_skill": lambda run: results.no_skill(run.predictions, data=run.data),
    "paper": lambda run: results.paper_table(
        run.table("performance"), run.table("out_of_fold"), run.study
    ),
    "comparisons_averaged": lambda run: results.comparisons(
        results.averaged_repetitions(run.predictions), run.study, data=run.data, **run.resampling
    ),
    "comparisons": lambda run: results.comparisons(
        run.predictions, run.study, data=run.data, **run.resampling
    ),
    "comparisons_flagged": lambda run: results.comparisons_flagged(
        run.predictions, run.thresholds, run.study, data=run.data
    ),
    "comparisons_folds": lambda run: results.comparisons_folds(
        run.predictions, run.study, data=run.data
    ),
    "subgroups": lambda run: results.subgroups(
        run.predictions, run.cohort, run.study, run.dictionary, data=run.data
    ),
    "ceiling": lambda run: results.ceiling_table(
        run.ceiling, run.predictions, run.table("performance"), run.study, data=run.data
    ),
    "calibration": lambda run: results.calibration_table(run.predictions, run.study, data=run.data),
    "calibration_points": lambda run: results.calibration_points(
        run.predictions, run.study, data=run.data
    ),
    "calibration_curve": lambda run: results.calibration_curve(
        run.predictions, run.study, data=run.data
    ),
    "roc_points": lambda run: results.roc_points(run.predictions, run.study, data=run.data),
    "roc_band": lambda run: results.roc_band(
        run.predictions, run.study, data=run.data, **run.resampling
    ),
    "pr_points": lambda run: results.pr_points(run.predictions, run.study, data=run.data),
    "pr_band": lambda run: results.pr_band(
        run.predictions, run.study, data=run.data, **run.resampling
    ),
    "decision_curve": lambda run: results.decision_curve(
        run.predictions, run.study, data=run.data, **run.resampling
    ),
    "operating_points": lambda run: results.operating_points(
        run.predictions, run.study, data=run.data
    ),
    "risk_distribution": lambda run: results.risk_distribution(
        run.predictions, run.study, data=run.data
    ),
    "precision": lambda run: results.precision(run.predictions, run.study, data=run.data),
    "development_size": lambda run: results.development_size(
        run.predictions, run.study, data=run.data
    ),
    "feasible_points": lambda run: results.feasible_points(run.study, data=run.data),
    "consistency": lambda run: results.consistency(
        run.study,
        data=run.data,
        draws=DRAWS * run.resampling["resamples"],
        seed=run.resampling["seed"],
    ),
    "shap_importance": lambda run: results.shap_importance(
        run.shap, players=run.attributions("players"), data=run.data, **run.resampling
    ),
    "shap_groups": lambda run: results.shap_groups(
        run.shap, run.attributions("players"), data=run.data, **run.resampling
    ),
    "shap_agreement": lambda run: results.shap_agreement(run.shap, data=run.data, **run.resampling),
    "permutation_importance": lambda run: results.permutation_importance(
        run.attributions("permuted"),
        run.y,
        shap=run.of_explained(run.shap),
        data=run.data,
        **run.resampling,
    ),  # fmt: skip
    "modality_shares": lambda run: results.modality_shares(
        run.attributions("modalities"), run.y, data=run.data, **run.resampling
    ),
    "modality_coalitions": lambda run: results.modality_coalitions(
        run.attributions("modalities"), run.y, data=run.data, **run.resampling
    ),
    "modality_interactions": lambda run: results.modality_interactions(
        run.attributions("modalities"), run.y, data=run.data, **run.resampling
    ),
    "modulation_summary": lambda run: results.modulation_summary(
        run.attributions("modulation"), data=run.data
    ),
    "territory_risk": lambda run: results.territory_risk(
        run.attributions("territories"), data=run.data
    ),
    "territory_sides": lambda run: results.territory_sides(
        run.attributions("territories"), data=run.data
    ),
    "territory_agreement": lambda run: results.territory_agreement(
        run.attributions("territories"), data=run.data, **run.resampling
    ),
    "region_enrichment": lambda run: results.region_enrichment(
        run.attributions("regions"), data=run.data, **run.resampling
    ),
    "explanation_checks": lambda run: run.checks(),
    "region_claims": lambda run: results.region_claims(
        run.table("region_enrichment"), run.table("explanation_checks"), data=run.data
    ),
    "counterfactuals": lambda run: results.counterfactual_table(
        run.attributions("counterfactuals"), data=run.data, **run.resampling
    ),
    "concept_importance": lambda run: results.reads_importance(
        run.attributions("reads"), run.attributions("reading"), data=run.data, **run.resampling
    ),
    "concept_what_if": lambda run: results.what_if_effects(
        run.attributions("what_if"), data=run.data, **run.resampling
    ),
    "concept_agreement": lambda run: results.concept_agreement(
        run.of_explained(run.shap), run.attributions("reads"), data=run.data, **run.resampling
    ),
}

#: Table of a run -> the file that it is made from, where not every run has it.
NEEDS = {"ceiling": "ceiling.json"} | {
    table: f"attributions/{name}.csv"
    for table, name in {
        "shap_importance": "shap", "shap_groups": "shap", "shap_agreement": "shap",
        "permutation_importance": "permuted", "modality_shares": "modalities",
        "modality_coalitions": "modalities", "modality_interactions": "modalities",
        "modulation_summary": "modulation", "territory_risk": "territories",
        "territory_sides": "territories", "territory_agreement": "territories",
        "region_enrichment": "regions", "region_claims": "regions", "explanation_checks": "checks",
        "counterfactuals": "counterfactuals", "concept_importance": "reads", "concept_what_if": "what_if",
        "concept_agreement": "reads",
    }.items()
}  # fmt: skip
