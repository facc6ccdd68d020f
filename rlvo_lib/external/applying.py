"""The whole of it: open the run, read the other dataset, score, prove, write."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlvo_lib import storage
from rlvo_lib.config import InputError
from rlvo_lib.external import writing
from rlvo_lib.external.arrivals import Arrivals, availability, open_arrivals
from rlvo_lib.external.frozen import dataset_kind, open_frozen
from rlvo_lib.external.scoring import PREFIX, proof, score, together


def apply_run(
    run: str | Path,
    data: str | Path,
    *,
    out: Path,
    cache: Path,
    development: Path | None = None,
    arms: Sequence[str] | None = None,
    recalibrate: bool = False,
) -> Path:
    """Apply a frozen run to another dataset folder and write a run folder of the result.

    Nothing is fitted on the new patients. The run's own held-out and test patients are scored in the same
    pass and must come out as they were reported.

    Parameters
    ----------
    run : a finished run folder.
    data : the other dataset folder, in the same format.
    out : the folder to write; only an earlier result of this function may be replaced.
    cache : where the run's trained models lie, and the new patients' tensors will.
    development : the run's own dataset folder; left out for a run of the embedded cohort.
    arms : those of the run to apply; left out: all.
    recalibrate : also recalibrate in the large on the new patients (`results.recalibration`).

    Returns
    -------
    ``out``.

    Raises
    ------
    InputError
        If the run, its data or models are not those it was finished with; if the new dataset has faults,
        is of another kind of data, or can be scored by no arm.
    """
    run, data, out = Path(run), Path(data), Path(out)
    writing.refuse_other_folder(out, run)
    if (run / "run.json").is_file():  # before minutes of work
        if not data.is_dir():
            raise InputError(f"dataset folder {data} does not exist")
        _refuse_other_kind(run, data)
    with tempfile.TemporaryDirectory() as scratch:
        frozen = open_frozen(run, development=development, cache=cache, scratch=Path(scratch))
        arrivals = open_arrivals(data, frozen)
        if recalibrate and arrivals.no_outcome:
            raise InputError(f"--recalibrate: {arrivals.no_outcome}; allowed: with known outcomes")
        both, tensors = together(frozen, arrivals)
        table = availability(frozen, arrivals, both, tensors, arms)
        chosen = list(table["arm"][table["applied"]])
        if not chosen:
            raise InputError(
                f"{data}: no arm of the run can score its patients; {table['arm'].iloc[0]}: "
                f"{table['reason'].iloc[0]}"
            )
        made = score(frozen, both, tensors, chosen)
        proven = proof(frozen.predictions, made)
        return writing.write(
            out,
            frozen,
            arrivals,
            _of_new(made, arrivals),
            {"availability": table, "proof": proven},
            recalibrate=recalibrate,
        )


def _refuse_other_kind(run: Path, data: Path) -> None:
    try:
        kind = storage.read_json(run / "run.json")["data"]
    except (ValueError, KeyError, TypeError):
        return  # `open_frozen` says what is wrong with it
    if dataset_kind(data) != kind:
        raise InputError(
            f"{data}: the data are {dataset_kind(data)}, those of the run {kind}; allowed: a run and a "
            "dataset of one kind, so that simulated patients are never taken for real ones"
        )


def _of_new(made: pd.DataFrame, arrivals: Arrivals) -> pd.DataFrame:
    """The predictions of the new patients, under their own identifiers, with their outcomes.

    Where no outcome is known, ``y_true`` is empty.
    """
    new = made[made["participant_id"].str.startswith(PREFIX)].reset_index(drop=True)
    new["participant_id"] = new["participant_id"].str.removeprefix(PREFIX)
    y = arrivals.analysis.y.reindex(new["participant_id"])
    new["y_true"] = y.to_numpy() if y.isna().all() else y.to_numpy(int)
    return new
