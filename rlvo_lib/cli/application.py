"""What all commands share: the application they are registered with, and how an argument is read."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlvo_lib.config import PROFILES, InputError

if TYPE_CHECKING:
    from rlvo_lib.config import Settings

app = typer.Typer(
    name="rlvo",
    help=(
        "Predict, before a thrombectomy, which large vessel occlusions will be refractory: the whole "
        "study as one command, on an embedded SIMULATED cohort or on your own dataset; other studies "
        "(--study) through the same library. "
        "Research software, not a medical device."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
adapt_app = typer.Typer(
    help="Make a dataset folder from a published dataset.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(adapt_app, name="adapt")

#: Options that several commands have.
Data = Annotated[
    Path | None,
    typer.Option(help="Your dataset folder; left out: the embedded simulated cohort."),
]
Profile = Annotated[str, typer.Option(help=f"How much: {', '.join(PROFILES)}.")]
StudyName = Annotated[str, typer.Option(help="A folder of studies/.")]
RunFolder = Annotated[
    Path | None,
    typer.Option(help="Run folder; left out: reports/ and your dataset's name, or reports/latest."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting, e.g. --set epochs_max=20."),
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(help="Where finished work is kept; left out: $RLVO_CACHE, or .rlvo_cache."),
]
ShardText = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only the I-th of N parts of the work, e.g. 1/3, then 2/3, 3/3.",
    ),
]


def complain(message: str) -> int:
    """Write one line on the error stream; the exit status of what could not be carried out."""
    print("rlvo: " + " ".join(message.split()), file=sys.stderr)
    return 2


def read_changes(items: list[str] | None, command: str) -> dict[str, object]:
    """The settings that ``--set`` changes, by name."""
    changes = dict(_setting(item) for item in items or [])
    for name in {"profile", "study", "data", "out", "cache"} & set(changes):
        raise InputError(
            f"--set {name}: not a setting; allowed: the options of `rlvo {command} --help`"
        )
    return changes


def _setting(item: str) -> tuple[str, object]:
    """``NAME=VALUE`` as a name and a Python literal, or text where it is none."""
    import ast

    name, equals, value = item.partition("=")
    if not equals:
        raise InputError(f"--set {item}: allowed: NAME=VALUE")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), value


def read_settings(
    profile: str,
    study: str,
    data: Path | None,
    out: Path | None,
    cache: Path | None,
    changes: dict[str, object],
) -> Settings:
    """The settings of a command; its paths are taken from where the user stands."""
    from rlvo_lib.config import load_settings

    paths = {
        name: path.resolve() if path else ""
        for name, path in (("data", data), ("out", out), ("cache", cache))
    }
    return load_settings(profile, study=study, **paths, **changes)


def read_shard(text: str) -> tuple[int, int]:
    """A shard i/n as (i, n).

    >>> read_shard("2/3")
    (2, 3)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(
            f"--shard {text}: allowed: I/N with whole numbers, I from 1 to N, e.g. 1/3"
        )
    return part, parts


def read_names(text: str, option: str) -> list[str]:
    """Names between commas; an `InputError` where there is none.

    >>> read_names("ncct, daft", "--arms")
    ['ncct', 'daft']
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option} {text!r}: allowed: one or more names between commas")
    return list(dict.fromkeys(names))


def from_project(path: Path | str) -> str:
    """A path as it stands in a stored notebook: from the project's folder, never absolute."""
    from rlvo_lib.config import project_root

    return Path(os.path.relpath(path, project_root())).as_posix() if path else ""
