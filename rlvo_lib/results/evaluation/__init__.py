"""Anyone's predictions: a table with a row a patient, an outcome and scores, from any software.

`outcomes` reads the outcome, `scored` finds the patients of each score, `resampled` draws them;
`measures`, `points`, `pairs`, `curves` and `strata` judge the scores; `tables` puts all together.
"""

from rlvo_lib.results.evaluation.curves import patient_risks
from rlvo_lib.results.evaluation.resampled import RESAMPLES, SEED, resamples_for
from rlvo_lib.results.evaluation.scored import Scored, check_patients, scored_columns
from rlvo_lib.results.evaluation.tables import CAPTIONS, evaluate, evaluation_tables

__all__ = [
    "CAPTIONS",
    "RESAMPLES",
    "SEED",
    "Scored",
    "check_patients",
    "evaluate",
    "evaluation_tables",
    "patient_risks",
    "resamples_for",
    "scored_columns",
]
