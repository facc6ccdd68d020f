"""The subgroups in which a model is judged: named in the study file before anybody looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Subgroup:
    """Patients told apart by one column: by its codes, or (a quantity) by where it is cut.

    ``cut`` (70, 80) makes three strata: below 70, 70 to below 80, 80 and more.
    """

    id: str
    text: str
    column: str
    cut: tuple[float, ...] = ()


def read_subgroups(raw: dict[str, Any]) -> tuple[Subgroup, ...]:
    """The ``[[subgroups]]`` of a study file."""
    return tuple(
        Subgroup(**(entry | {"cut": tuple(entry.get("cut", ()))}))
        for entry in raw.get("subgroups", [])
    )


def check_subgroups(
    subgroups: tuple[Subgroup, ...], refuse: Callable[[str, Any, Any], None]
) -> None:
    """Cuts rise, and each subgroup has a name of its own."""
    seen: set[str] = set()
    for group in subgroups:
        if group.id in seen:
            refuse("second subgroup", group.id, ("an id once",))
        seen.add(group.id)
        if list(group.cut) != sorted(set(group.cut)):
            refuse(f"cut of subgroup '{group.id}'", group.cut, ("rising numbers",))
