"""``wrong_predictions.html`` of a run: the largest errors at the run's threshold, each with what moved it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlvo_lib import storage
from rlvo_lib.analysis import Analysis
from rlvo_lib.casebook import explaining
from rlvo_lib.casebook.case import Cases
from rlvo_lib.casebook.parts import Part, render_page
from rlvo_lib.experiment import Task
from rlvo_lib.preprocess import TensorCache
from rlvo_lib.results import reported_partition

WRONG_PAGE = "wrong_predictions.html"
SHOWN = 3  # of each kind


def wrong_cases(cases: Cases, *, shown: int = SHOWN) -> pd.DataFrame:
    """The false negatives and false positives where results are reported, the largest error first.

    Returns
    -------
    DataFrame with participant_id, error ("false negative" or "false positive"), probability, y_true, seeds
    (share of seeds that flag), rank (1 is the largest of its kind), of (how many there are), shown (bool).
    """
    own = cases.predictions[cases.predictions["arm"] == cases.arm.name]
    patients = cases.patients[cases.patients["partition"] == reported_partition(own)]
    frames = []
    for error, y in (("false negative", 1), ("false positive", 0)):
        wrong = patients[(patients["y_true"] == y) & ((patients["flagged"] >= 0.5) != bool(y))]
        wrong = wrong.sort_values("probability", ascending=bool(y), kind="stable")
        rank = range(1, len(wrong) + 1)
        frames.append(wrong.assign(error=error, rank=rank, of=len(wrong)))
    found = pd.concat(frames).reset_index().rename(columns={"flagged": "seeds"})
    columns = ["participant_id", "error", "probability", "y_true", "seeds", "rank", "of"]
    return found[columns].assign(shown=found["rank"] <= shown)


def write_wrong_predictions(
    run: str | Path,
    analysis: Analysis,
    tensors: TensorCache,
    tasks: Sequence[Task],
    *,
    predictions: pd.DataFrame,
    thresholds: pd.DataFrame,
    data: str,
    method: str = "",
    shown: int = SHOWN,
) -> Path:
    """Write the page of wrong predictions of one arm into its run folder.

    Parameters
    ----------
    run : the run folder; its table of checks is read.
    tasks : the arm's finished tasks, all folds and seeds.
    predictions, thresholds : as in the run's files; at least the arm's.
    method : of the maps; left out: as `explaining.choose_method` chooses.
    shown : cases of each kind.

    Returns
    -------
    Path of the page.
    """
    run = Path(run)
    cases = Cases(analysis, tensors, tasks[0].arm, list(tasks), predictions, thresholds)
    checks = explaining.read_checks(run, cases.arm.name)
    method = explaining.choose_method(checks, method)
    wrong = wrong_cases(cases, shown=shown)
    parts = [_summary(cases, wrong)]
    parts += [
        _case(cases, row, method, checks) for row in wrong[wrong["shown"]].itertuples(index=False)
    ]
    page = render_page(
        "Wrong predictions", parts, data=data, back="index.html",
        lead=f"{cases.arm.label}: patients on the wrong side of the run's threshold, the largest errors first.",
    )  # fmt: skip
    storage.write_text(run / WRONG_PAGE, page)
    return run / WRONG_PAGE


def _summary(cases: Cases, wrong: pd.DataFrame) -> Part:
    counts = wrong["error"].value_counts()
    said = " and ".join(f"{counts.get(e, 0)} {e}s" for e in ("false negative", "false positive"))
    limits = " / ".join(f"{limit:.1%}" for limit in cases.limits.values())
    return Part(
        "How many, and who",
        [
            f"At the threshold of {limits} there are {said}. Large errors were picked: what they show is no "
            "average, and an explanation says what moved the model, not why it was wrong."
        ],
        table=wrong[wrong["shown"]].drop(columns="shown"),
        caption=f"The largest errors of {cases.arm.label}; rank among all of its kind.",
    )


def _case(cases: Cases, row, method: str, checks: pd.DataFrame | None) -> Part:
    made = explaining.drivers_part(cases, row.participant_id, method, checks)
    outcome = cases.study.outcome_label if row.y_true else cases.study.negative_label
    said = f"Predicted probability {row.probability:.1%}; what happened: {outcome}."
    text = [said, *[words for words in made.text if words != explaining.NOT_CAUSAL]]
    return Part(
        f"{row.participant_id}, {row.error} {row.rank} of {row.of}",
        text,
        made.beside,
        notes=made.notes,
    )
