"""What is studied: ``study.toml``, read, checked and frozen."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvo_lib.config.arms import Arm, Reader, check_arms, check_readers, read_arms, read_readers
from rlvo_lib.config.errors import InputError
from rlvo_lib.config.imaging import (
    PERFUSION_PARAMETERS,
    SIDES,
    Channel,
    Grid,
    Scan,
    View,
    check_imaging,
    read_channels,
    read_grid,
    read_scans,
    read_views,
)
from rlvo_lib.config.subgroups import Subgroup, check_subgroups, read_subgroups


def project_root() -> Path:
    """The checkout this package was installed from, or the current folder for an installed wheel."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "studies").is_dir() else Path.cwd()


@dataclass(frozen=True)
class Rule:
    """One comparison of a column with a value: a label criterion, an eligibility or a consistency rule.

    ``op`` is one of ``>``, ``>=``, ``<``, ``<=``, ``==``, ``in``, ``between`` (both ends included),
    ``known`` (there is a value),
    ``code`` (consistency only: the missing code, ``""`` for a value that is present) or, for
    eligibility only, ``label-known`` and ``any-scan`` (at least one of the scans in ``value``).
    A value in ``unknown`` cannot be judged: it counts as missing. Where ``not_applicable_when`` is met
    the column does not apply (code -98), and the rule is not met.
    """

    id: str
    text: str
    op: str
    column: str = ""
    value: Any = None
    unknown: tuple[str, ...] = ()
    not_applicable_when: Rule | None = None


@dataclass(frozen=True)
class Definition:
    """One definition of the outcome: its criteria, and patients it leaves out."""

    id: str
    text: str
    criteria: tuple[Rule, ...]
    exclude: tuple[Rule, ...] = ()  # eligibility rules added to the study's


@dataclass(frozen=True)
class Consistency:
    """What must hold between columns: where every ``when`` is met, every ``then`` is met too.

    A rule about a missing value is not judged. ``severity`` is ``error`` or ``warning``.
    """

    id: str
    text: str
    severity: str
    when: tuple[Rule, ...]
    then: tuple[Rule, ...]


@dataclass(frozen=True)
class TerritoryAtlas:
    """An atlas of territories that a dataset holds, and the columns of a lesion's volume in them (mL)."""

    path: str  # NIfTI of labels, in the dataset folder
    territories: tuple[str, ...]  # the n-th column is the volume in label n
    volume: str  # the column of the whole lesion's volume
    beside: tuple[str, ...]  # arms that are asked what the explained arm is


COMPARISONS = (">", ">=", "<", "<=", "==", "in", "between", "known")
ELIGIBILITY_OPS = (*COMPARISONS, "label-known", "any-scan")
CONSISTENCY_OPS = (*COMPARISONS, "code")
DESIGNS = ("holdout", "cross-validation")
HOLDOUTS = ("random", "stratified", "date", "centre")
MAIN = "main"  # the id of the outcome's definition that is not a sensitivity one


@dataclass(frozen=True)
class Study:
    """What is predicted, from what, and how it is validated; read from ``study.toml``."""

    name: str
    title: str
    citation: str
    folder: Path
    outcome: str
    outcome_name: str  # what a patient with the outcome is called
    negative_label: str
    question: str
    criteria: tuple[Rule, ...]
    definitions: dict[str, Definition]  # of the outcome: ``main`` first, then the sensitivity ones
    definition: str  # the one in force: `criteria` and `eligibility` are its
    eligibility: tuple[Rule, ...]
    consistency: tuple[Consistency, ...]
    ordered: tuple[tuple[str, ...], ...]  # columns that must not decrease from one to the next
    predictors: dict[str, tuple[str, ...]]
    optional_predictors: tuple[str, ...]  # sets that a dataset may lack
    measures: dict[str, tuple[str, ...]]  # sets of columns of the tensors' table
    readers: dict[str, Reader]
    scans: dict[str, Scan]
    channels: dict[str, Channel]
    grid: Grid
    views: dict[str, View]
    measured: dict[str, str]  # column of the dictionary: the perfusion parameter it corresponds to
    arms: dict[str, Arm]
    validation: dict[str, Any]
    threshold: dict[str, Any]
    explain_arm: str
    explain_background: str  # the scan that maps are laid over; empty: none
    explain_beside: tuple[str, ...]  # arms that are explained beside it
    explain_atlas: TerritoryAtlas | None  # None: nothing is explained by territories of an atlas
    profiles: dict[str, dict[str, Any]]  # settings that this study changes, by profile
    notes: dict[str, str]  # what the notebooks say of this study: ``outcome``, ``images``
    comparisons: tuple[tuple[str, str], ...]
    subgroups: tuple[Subgroup, ...]
    published: dict[str, dict[str, Any]]
    published_design: dict[str, int]  # patients and events of the published parts, and folds
    claims: tuple[dict[str, Any], ...]
    flip_to_side: str
    side_column: str
    side_codes: dict[str, str]
    embedded: bool  # whether the package simulates a cohort of this study
    dictionary: str = "data_dictionary.csv"

    @property
    def dictionary_path(self) -> Path:
        """The study's data dictionary, a CSV file in REDCap's format."""
        return self.folder / self.dictionary

    def under(self, definition: str) -> Study:
        """This study with another definition of its outcome: other criteria, exclusions and name.

        Raises
        ------
        InputError
            If the study file has no such definition.
        """
        if definition not in self.definitions:
            raise InputError(
                f"outcome definition '{definition}' is not known; allowed: "
                f"{', '.join(self.definitions)}"
            )
        chosen, left_out = self.definitions[definition], self.definitions[self.definition].exclude
        rules = [rule for rule in self.eligibility if rule not in left_out]
        place = next((i for i, r in enumerate(rules) if r.op == "label-known"), len(rules))
        return dataclasses.replace(
            self,
            definition=definition,
            criteria=chosen.criteria,
            eligibility=(*rules[:place], *chosen.exclude, *rules[place:]),
        )

    def repeated(self, repeats: int) -> Study:
        """This study with another number of repetitions of its cross-validation; 0: its own.

        Raises
        ------
        InputError
            If its design has a test part: that is not repeated.
        """
        if not repeats or repeats == self.repeats:
            return self
        if self.validation["design"] != "cross-validation":
            raise InputError(
                f"setting 'repeats' is {repeats}; allowed: only for a study without a test part "
                "(design cross-validation)"
            )
        return dataclasses.replace(self, validation=self.validation | {"repeats": repeats})

    @property
    def images_only(self) -> Study:
        """This study for a dataset without any outcome: only a rule about scans decides who is in."""
        return dataclasses.replace(
            self,
            criteria=(),
            eligibility=tuple(rule for rule in self.eligibility if rule.op == "any-scan"),
            consistency=(),
            predictors={},
            readers={},
            arms={},
        )

    @property
    def outcome_label(self) -> str:
        """What a patient with the outcome is called; a sensitivity definition is named with it."""
        if self.definition == MAIN:
            return self.outcome_name
        return f"{self.outcome_name} ({self.definitions[self.definition].text})"

    @property
    def repeats(self) -> int:
        """How often the cross-validation is repeated, each time with folds of its own."""
        return int(self.validation.get("repeats", 1))

    @property
    def text(self) -> str:
        """The study file as it stands on disk."""
        return (self.folder / "study.toml").read_text(encoding="utf-8")

    @property
    def concepts(self) -> dict[str, str]:
        """Each column that is read off images, with the reader that learns it."""
        return {c: reader.name for reader in self.readers.values() for c in reader.concepts}

    def measures_of(self, sets: tuple[str, ...]) -> tuple[str, ...]:
        """The measured quantities of some sets, in the order of the study file."""
        return tuple(column for name in sets for column in self.measures[name])

    def columns_of(self, arm: Arm) -> tuple[str, ...]:
        """The predictor columns of an arm, in the order of the study file."""
        return tuple(column for name in arm.predictors for column in self.predictors[name])


def load_study(name: str = "rlvo") -> Study:
    """Read ``studies/<name>/study.toml``.

    Raises
    ------
    InputError
        If there is no such study, or the file names an arm, channel or predictor set that it does
        not define.
    """
    studies = project_root() / "studies"
    path = studies / name / "study.toml"
    if not path.is_file():
        known = sorted(p.parent.name for p in studies.glob("*/study.toml"))
        raise InputError(
            f"study '{name}' does not exist; allowed: {', '.join(known) or 'none found'}"
        )
    return read_study(path)


def read_study(path: Path) -> Study:
    """A study file, wherever it lies; its dictionary is looked for in the same folder."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} of study '{path.parent.name}': {error}") from error
    where = f"study.toml of study '{path.parent.name}'"
    try:
        definitions = _parse_definitions(raw["outcome"])
        study = Study(
            name=raw["name"],
            title=raw["title"],
            citation=raw.get("citation", ""),
            folder=path.parent,
            outcome=raw["outcome"]["name"],
            outcome_name=raw["outcome"]["label"],
            negative_label=raw["outcome"]["negative_label"],
            question=raw["outcome"]["question"],
            criteria=definitions[MAIN].criteria,
            definitions=definitions,
            definition=MAIN,
            eligibility=tuple(_parse_rule(rule) for rule in raw.get("eligibility", [])),
            consistency=tuple(_parse_consistency(rule) for rule in raw.get("consistency", [])),
            ordered=tuple(tuple(columns) for columns in raw.get("ordered", [])),
            predictors={name: tuple(columns) for name, columns in raw["predictors"].items()},
            optional_predictors=tuple(raw.get("optional_predictors", ())),
            measures={name: tuple(columns) for name, columns in raw.get("measures", {}).items()},
            readers=read_readers(raw),
            scans=read_scans(raw),
            channels=read_channels(raw),
            grid=read_grid(raw),
            views=read_views(raw),
            measured=dict(raw.get("measured", {})),
            arms=read_arms(raw),
            validation=raw["validation"],
            threshold=raw["threshold"],
            explain_arm=raw.get("explain", {}).get("arm", ""),
            explain_background=raw.get("explain", {}).get("background", ""),
            explain_beside=tuple(raw.get("explain", {}).get("beside", ())),
            explain_atlas=_read_atlas(raw, where),
            profiles=raw.get("profiles", {}),
            notes={"outcome": "", "images": ""} | raw.get("notes", {}),
            comparisons=tuple(
                (pair["first"], pair["second"]) for pair in raw.get("comparisons", [])
            ),
            subgroups=read_subgroups(raw),
            published=raw.get("published", {}),
            published_design=raw.get("published_design", {}),
            claims=tuple(raw.get("claims", [])),
            flip_to_side=raw.get("flip_to_side", "none"),
            side_column=raw.get("side_column", ""),
            side_codes={str(code): side for code, side in raw.get("side_codes", {}).items()},
            embedded=raw.get("embedded", False),
            dictionary=raw.get("dictionary", "data_dictionary.csv"),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: missing or unknown entry {error}") from error
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    _check_study(study, where)
    return study


def _read_atlas(raw: dict[str, Any], where: str) -> TerritoryAtlas | None:
    """``[explain.atlas]``: path, the predictor sets ``territories`` and ``volume``, and arms ``beside``."""
    given = raw.get("explain", {}).get("atlas")
    if given is None:
        return None
    for key in ("territories", "volume"):
        if given[key] not in raw["predictors"]:
            raise InputError(
                f"{where}: predictor set of explain.atlas.{key} '{given[key]}' is not defined; allowed: "
                f"{', '.join(raw['predictors'])}"
            )
    volume = raw["predictors"][given["volume"]]
    if len(volume) != 1:
        raise InputError(
            f"{where}: explain.atlas.volume '{given['volume']}' has {len(volume)} columns; allowed: a "
            "predictor set of one, the volume of the whole lesion"
        )
    territories = tuple(raw["predictors"][given["territories"]])
    return TerritoryAtlas(given["path"], territories, volume[0], tuple(given.get("beside", ())))


def _parse_rule(raw: dict[str, Any], **given: str) -> Rule:
    parts = dict(raw)
    if "not_applicable_when" in parts:
        parts["not_applicable_when"] = _parse_rule(parts["not_applicable_when"], id="", text="")
    if isinstance(parts.get("value"), list):
        parts["value"] = tuple(parts["value"])
    return Rule(**({**given, **parts} | {"unknown": tuple(parts.get("unknown", ()))}))


def _parse_definitions(raw: dict[str, Any]) -> dict[str, Definition]:
    """``main`` and the sensitivity definitions; a criterion of theirs is an id of main's, or its own."""
    main = {rule["id"]: _parse_rule(rule) for rule in raw["criteria"]}
    definitions = {MAIN: Definition(MAIN, "the study's", tuple(main.values()))}
    for entry in raw.get("definitions", []):
        criteria = tuple(
            main[c] if isinstance(c, str) else _parse_rule(c) for c in entry.get("criteria", main)
        )
        exclude = tuple(_parse_rule(rule) for rule in entry.get("exclude", []))
        definitions[entry["id"]] = Definition(entry["id"], entry["text"], criteria, exclude)
    return definitions


def _parse_consistency(raw: dict[str, Any]) -> Consistency:
    parts = {
        side: tuple(_parse_rule(rule, id=raw["id"], text=raw["text"]) for rule in raw.get(side, []))
        for side in ("when", "then")
    }
    return Consistency(**(raw | {"severity": raw.get("severity", "error")} | parts))


def _check_validation(study: Study, refuse: Callable[[str, Any, Any], None]) -> None:
    plan = study.validation
    if "design" not in plan:
        refuse("design of validation", "", DESIGNS)
    for name, allowed in (("design", DESIGNS), ("holdout", HOLDOUTS)):
        if plan.get(name, allowed[0]) not in allowed:
            refuse(name, plan[name], allowed)
    for name, least in (("folds", 2), ("repeats", 1)):
        value = plan.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            refuse(f"{name} of validation", value, (f"a whole number of at least {least}",))
    shares = ["inner_fraction"] + ["test_fraction"] * (plan["design"] == "holdout")
    for name in shares:
        value = plan.get(name)
        if not isinstance(value, float) or not 0 < value < 1:
            refuse(f"{name} of validation", value, ("a share between 0 and 1",))
    if study.repeats > 1 and plan["design"] == "holdout":
        refuse("design with repeats", plan["design"], ("cross-validation",))


def _check_study(study: Study, where: str) -> None:
    def refuse(what: str, value: str, allowed: Any) -> None:
        raise InputError(f"{where}: {what} '{value}' is not defined; allowed: {', '.join(allowed)}")

    criteria = [rule for d in study.definitions.values() for rule in d.criteria]
    exclusions = [rule for d in study.definitions.values() for rule in d.exclude]
    relations = [rule for c in study.consistency for rule in (*c.when, *c.then)]
    for rules, ops in (
        (criteria, COMPARISONS),
        ((*study.eligibility, *exclusions), ELIGIBILITY_OPS),
        (relations, CONSISTENCY_OPS),
    ):
        for rule in rules:
            if rule.op not in ops:
                refuse(f"op of rule '{rule.id}'", rule.op, ops)
    for relation in study.consistency:
        if relation.severity not in ("error", "warning"):
            refuse(f"severity of '{relation.id}'", relation.severity, ("error", "warning"))
    _check_validation(study, refuse)
    check_imaging(study.scans, study.channels, study.grid, study.views, refuse, where)
    for rule in study.eligibility:
        for name in rule.value if rule.op == "any-scan" else ():
            if name not in study.scans:
                refuse(f"scan of rule '{rule.id}'", name, study.scans)
    for column, name in study.measured.items():
        if name not in PERFUSION_PARAMETERS:
            refuse(f"parameter measured for column '{column}'", name, PERFUSION_PARAMETERS)
    if study.explain_background and study.explain_background not in study.scans:
        refuse("background of maps", study.explain_background, study.scans)
    check_arms(study, refuse)
    check_readers(study, refuse)
    for name in study.optional_predictors:
        if name not in study.predictors:
            refuse("set of optional_predictors", name, study.predictors)
    for pair in study.comparisons:
        for name in pair:
            if name not in study.arms:
                refuse("arm in comparisons", name, study.arms)
    check_subgroups(study.subgroups, refuse)
    if study.explain_arm and study.explain_arm not in study.arms:
        refuse("arm to explain", study.explain_arm, study.arms)
    for name in study.explain_beside:
        if name not in study.arms:
            refuse("arm to explain beside", name, study.arms)
    for name in study.explain_atlas.beside if study.explain_atlas else ():
        if name not in study.arms:
            refuse("arm of explain.atlas.beside", name, study.arms)
    if study.flip_to_side not in SIDES:
        refuse("flip_to_side", study.flip_to_side, SIDES)
