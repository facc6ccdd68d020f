"""The dataset folder that an import writes into, and what is refused there."""

from __future__ import annotations

import csv
import io
import json
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from rlvo_lib import __version__, storage
from rlvo_lib.config import InputError
from rlvo_lib.intake.ledger import LISTED

BIDS_VERSION = "1.10.0"
SPLIT = "split.csv"
TABLE = "participants.tsv"
DESCRIPTION = "dataset_description.json"
REPORT = "derivatives/import/report"


def read_description(out: Path) -> dict:
    """``dataset_description.json`` of a folder that may be written into; empty if there is none.

    Raises
    ------
    InputError
        If the folder is a file, or holds a simulated dataset.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; allowed: a folder, or a name that is still free")
    path = out / DESCRIPTION
    description = {}
    if path.exists():
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise InputError(f"{path}: not valid JSON ({error})") from error
        if not isinstance(description, dict):
            raise InputError(f"{path}: allowed: a JSON object")
    if description.get("simulated") is True or (out / "derivatives" / "truth").exists():
        raise InputError(
            f"{out}: holds a simulated dataset; allowed: another folder, so that real and simulated "
            "patients never mix"
        )
    return description


def table_text(table: pd.DataFrame, separator: str) -> str:
    """A table as it is written to disk: UTF-8 text, Unix line ends, quotes only where needed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.itertuples(index=False, name=None))
    return buffer.getvalue()


def refuse_own_source(out: Path, file: Path) -> None:
    """Raise if the file to be imported is one that the import writes."""
    for name in (TABLE, SPLIT):
        if (out / name).exists() and file.exists() and (out / name).samefile(file):
            raise InputError(
                f"{file}: would be written over by its own import; allowed: another folder, or the file "
                "moved out of this one"
            )


def refuse_overwriting(out: Path, texts: dict[str, str]) -> None:
    """Raise if a file is there already with other content."""
    for name, text in texts.items():
        path = out / name
        if path.exists() and path.read_bytes() != text.encode():
            raise InputError(
                f"{path}: is there already, with other content; allowed: --replace, to write over it"
            )


def write(
    out: Path, texts: dict[str, str], report: pd.DataFrame, facts: dict, description: dict
) -> None:
    """Write all files of an import: all of them, or none if the disk is full or the import is stopped.

    They lie beside their places first, and then take their names, the description last: a folder that
    has one is complete.
    """
    conversions = report[~report["conversion"].isin(LISTED)].to_dict("records")
    with ExitStack() as stack:  # what was entered first takes its name last
        for name, text in {
            DESCRIPTION: _json(description),
            f"{REPORT}.json": _json({**facts, "conversions": conversions}),
            f"{REPORT}.csv": storage.csv_text(report),
            **texts,
        }.items():
            temporary = stack.enter_context(storage.atomic(out / name))
            temporary.write_text(text, encoding="utf-8", newline="\n")


def _json(content: dict) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"


def describe(old: dict, name: str, out: Path) -> dict:
    """``dataset_description.json``: what was there, with what the import knows."""
    return {
        **old,
        "Name": name or old.get("Name") or out.resolve().name,
        "BIDSVersion": BIDS_VERSION,
        "simulated": False,
        "GeneratedBy": [{"Name": "rlvo import", "Version": __version__}],
    }
