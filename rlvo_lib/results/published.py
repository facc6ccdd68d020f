"""What a study file says was published, as numbers to compute with, and one statement about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rlvo_lib.config import InputError, Study

DESIGN = ("n_train", "events_train", "n_test", "events_test", "folds")
EXACT, FORMULA = "exact", "formula"
HALF_PRINTED = 0.005  # published scores are printed with two decimals


@dataclass(frozen=True)
class Model:
    """A published model; NaN for what was not published."""

    id: str
    label: str
    auc: float
    auc_sd: float
    f1: float


@dataclass(frozen=True)
class Published:
    """Patients and events of the published parts, the number of folds, and the models."""

    n_train: int
    events_train: int
    n_test: int
    events_test: int
    folds: int
    models: tuple[Model, ...]

    @property
    def counts(self) -> tuple[int, int]:
        """Events and patients of the test set."""
        return self.events_test, self.n_test

    @property
    def with_auc(self) -> tuple[Model, ...]:
        """The models whose AUC was published."""
        return tuple(model for model in self.models if np.isfinite(model.auc))

    @property
    def with_f1(self) -> tuple[Model, ...]:
        """The models whose F1 was published."""
        return tuple(model for model in self.models if np.isfinite(model.f1))

    @property
    def pairs(self) -> tuple[tuple[Model, Model], ...]:
        """Each later model against the first that has an AUC, as the study file orders them."""
        models = self.with_auc
        return tuple((model, models[0]) for model in models[1:] if model.auc != models[0].auc)

    @property
    def best_auc(self) -> float:
        """The highest published AUC; NaN if there is none."""
        return max((model.auc for model in self.with_auc), default=np.nan)


def read_published(study: Study) -> Published | None:
    """The published design and models; None for a study that names no published design.

    Raises
    ------
    InputError
        If the design lacks a number, or has one that cannot be.
    """
    design = study.published_design
    if not design:
        return None
    where = f"study.toml of study '{study.name}': published_design"
    for name in DESIGN:
        if not isinstance(design.get(name), int) or design[name] < 1:
            raise InputError(
                f"{where}: {name} is {design.get(name)!r}; allowed: a whole number of at least 1"
            )
    for part in ("train", "test"):
        events, n = design[f"events_{part}"], design[f"n_{part}"]
        if not events < n:
            raise InputError(f"{where}: {events} events of {n} patients in {part}; allowed: fewer")
    models = tuple(
        Model(
            id=name,
            label=values.get("label", name),
            **{key: float(values.get(key, np.nan)) for key in ("auc", "auc_sd", "f1")},
        )
        for name, values in study.published.items()
    )
    return Published(**{name: design[name] for name in DESIGN}, models=models)


def statement(
    id: str, words: str, value: float, what: str, method: str = EXACT, published: float = np.nan
) -> dict[str, Any]:
    """One row of `consistency`, without its section."""
    return {
        "id": id,
        "statement": words,
        "published": float(published),
        "value": float(value),
        "what": what,
        "method": method,
    }
