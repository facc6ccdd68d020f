"""``ceiling.json``: read from a simulated dataset, and kept in the run folder so that it can be verified.

The report alone reads it: nothing that trains, chooses or scores a model does.
"""

from __future__ import annotations

from pathlib import Path

from rlvo_lib import dataset, results, storage
from rlvo_lib.config import InputError

FILE = "ceiling.json"
#: Why a run has no ceiling, by the kind of its data.
NO_CEILING = {
    "real": "Real patients: nobody knows how well they could be predicted, so there is no ceiling.",
    "simulated": (
        f"No ceiling: this simulated dataset was written without {dataset.CEILING}, or joins several "
        "simulated centres, to which none belongs."
    ),
}


def keep_ceiling(run: str | Path, data: dataset.Dataset) -> dict | None:
    """The ceiling of a simulated dataset, copied into the run folder; None if it has none (`NO_CEILING`).

    A copy that an earlier run left is replaced, or removed with its table and figure.

    Raises
    ------
    InputError
        As `read_ceiling`; and if it belongs to another scenario or prevalence than the dataset's.
    """
    run, source = Path(run), data.root / dataset.CEILING
    for stale in (run / FILE, *run.glob("tables/ceiling.*"), *run.glob("figures/ceiling.*")):
        stale.unlink(missing_ok=True)
    if not data.simulated or not source.exists():
        return None
    if "centre" in data.raw and data.raw["centre"].nunique() > 1:
        return None
    ceiling = read_ceiling(source)
    description = dataset.read_description(data.root)
    for field in ("scenario", "prevalence"):
        held, wanted = ceiling.get(field), description.get(field)
        if held != wanted:
            raise InputError(
                f"{source}: '{field}' is {held!r}; allowed: {wanted!r}, as in dataset_description.json"
            )
    storage.write_text(run / FILE, source.read_text(encoding="utf-8"))
    return ceiling


def read_ceiling(path: str | Path) -> dict:
    """A ceiling file, checked (`results.check_ceiling`).

    Raises
    ------
    InputError
        If the file is missing or is no JSON; if a field is not what it must be (file and field named).
    """
    path = Path(path)
    try:
        content = storage.read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    return results.check_ceiling(content, str(path))
