"""Which stack of a patient becomes which scan, by stated preferences; what they leave open is listed.

All scans of a patient come from one study: the only one that has a CTA, else the only one that has an
NCCT, else the only one that has maps. Within it the preferences of `PREFERRED` decide. A tie, a doubt
about what a stack is, or several studies that could be the baseline are left to a person, whose
answers (`read_choices`) go before every rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from rlvo_lib import storage
from rlvo_lib.config import InputError
from rlvo_lib.dataset import IDENTIFIER
from rlvo_lib.dicom.headers import Header
from rlvo_lib.dicom.kinds import MAPS, SCANS, Kind, kind_of, soft
from rlvo_lib.dicom.series import Stack

NONE = "none"
COLUMNS = ["participant_id", "scan", "candidates", "reason", "state", "choice"]


@dataclass(frozen=True)
class Preference:
    """What is wanted of a CT. Among stacks of allowed thickness and kernel the thinnest is taken."""

    thinnest_mm: float  # thinner is mostly noise
    thickest_mm: float  # thicker: a person decides
    usual_mm: float  # thicker is taken, and noted


#: The one place for what is preferred. Both scans: a soft kernel (`kernels`); bone kernels are refused.
PREFERRED = {
    "ncct": Preference(thinnest_mm=0.5, thickest_mm=10.0, usual_mm=5.0),
    "cta": Preference(thinnest_mm=0.3, thickest_mm=3.0, usual_mm=1.25),
}
SAME_MM = 0.06  # thicknesses that differ by less are one
APART_MIN = 60.0  # scans further apart are not reconstructions of one: before and after a treatment
AFTER_CTA_MIN = 1.0  # a plain scan that much after the start of the CTA may hold its contrast
PHASE_S = 5.0  # CTAs that much apart are not reconstructions of one, but phases


@dataclass(frozen=True)
class Outcome:
    """What was decided for one stack or one scan.

    ``status``: ``chosen``, ``not chosen`` (another one is better), ``set aside``, ``refused`` (it has a
    fault), ``undecided``.
    """

    stack: Stack
    kind: Kind
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Open:
    """A scan that a person must decide: the stacks it could be, and why the rules do not."""

    scan: str
    candidates: tuple[Stack, ...]
    reason: str

    @property
    def state(self) -> str:
        """Changes when the candidates do, so that an old answer is never taken for a new question."""
        return storage.key(sorted((s.label, s.first.series_uid, s.files) for s in self.candidates))


@dataclass
class Choice:
    """All decisions for one patient."""

    chosen: dict[str, Stack] = field(default_factory=dict)
    open: list[Open] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by label
    refused: dict[str, str] = field(default_factory=dict)  # scans without a usable stack: reason


@dataclass(frozen=True)
class Answer:
    """A person's answer for one scan: a stack's label, or ``none``."""

    label: str
    state: str = ""  # of the question that was answered; "" where none was asked
    kept: bool = False  # from an earlier run
    series_uid: str = ""  # that the label stood for then


def choose(stacks: tuple[Stack, ...], answers: Mapping[str, Answer], where: str = "") -> Choice:
    """Decide for one patient. ``answers`` are by scan; ``where`` names the patient in messages.

    An answer to a question that is another one by now leaves the scan undecided. The study that the
    answers name is the baseline for all scans.

    Raises
    ------
    InputError
        If an answer names no stack of the patient, or one that cannot be that scan.
    """
    kinds = _after_cta(stacks, {stack.label: kind_of(stack) for stack in stacks})
    made = _decided(stacks, kinds, None)
    if not answers:
        return made
    by_label = {stack.label: stack for stack in stacks}
    asked = {question.scan: question for question in made.open}
    good, stale = {}, {}
    for scan, answer in answers.items():
        other = answer.state and (scan not in asked or asked[scan].state != answer.state)
        if other or (answer.kept and not _still_there(scan, answer, by_label, kinds)):
            stale[scan] = answer
        else:
            _check_answer(scan, answer, by_label, kinds, where)
            good[scan] = answer
    studies = {by_label[a.label].study for a in good.values() if a.label != NONE}
    made = _decided(stacks, kinds, studies.pop() if len(studies) == 1 else None)
    for scan in SCANS:
        if scan in good:
            _take(scan, good[scan].label, by_label, made)
        elif scan in stale:
            _reopen(scan, stale[scan], stacks, made)
    return made


def _decided(stacks: tuple[Stack, ...], kinds: Mapping[str, Kind], study: int | None) -> Choice:
    """What the rules decide; ``study`` is the baseline, if a person has named it."""
    made = Choice()
    for stack in stacks:
        kind = kinds[stack.label]
        status = "set aside" if kind.name == "aside" else "refused" if stack.fault else "not chosen"
        made.outcomes[stack.label] = Outcome(stack, kind, status, kind.reason or stack.fault)
    by_scan = {
        scan: [s for s in stacks if kinds[s.label].name == scan and not s.fault] for scan in SCANS
    }
    for scan in ("ncct", "cta"):
        by_scan[scan] = _without_sharp(by_scan[scan], scan, made)
    study, doubt = (study, "") if study else _baseline(by_scan)
    for scan in SCANS:
        _decide(scan, by_scan[scan], kinds, study, doubt, made)
    _ask_about_hours(made)
    _tell_refused(stacks, kinds, made)
    return made


def _after_cta(stacks: tuple[Stack, ...], kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """The kinds; a plain scan that was made after a CTA of its study is doubtful."""
    ctas = [stack for stack in stacks if kinds[stack.label].name == "cta"]
    made = dict(kinds)
    for stack in stacks:
        kind = kinds[stack.label]
        if kind.name != "ncct" or kind.unsure:
            continue
        before = [_start(cta) for cta in ctas if cta.study == stack.study]
        first = min((time for time in before if time), default=None)
        own = _start(stack)
        if own and first and (own - first).total_seconds() >= AFTER_CTA_MIN * 60:
            doubt = "made after the CTA: it may hold contrast, or be of after a treatment"
            made[stack.label] = replace(kind, unsure=doubt)
    return made


def _ask_about_hours(made: Choice) -> None:
    """Leave an NCCT open that is hours away from the CTA: it may be of another state."""
    if "ncct" not in made.chosen or "cta" not in made.chosen:
        return
    apart = _minutes_apart([made.chosen["ncct"], made.chosen["cta"]])
    if apart > APART_MIN:
        reason = f"made {apart:.0f} minutes from the CTA: are both of the baseline?"
        _leave_open("ncct", [made.chosen.pop("ncct")], reason, made)


def _note(made: Choice, stack: Stack, status: str, reason: str) -> None:
    old = made.outcomes[stack.label]
    made.outcomes[stack.label] = Outcome(stack, old.kind, status, reason)


def _without_sharp(stacks: list[Stack], scan: str, made: Choice) -> list[Stack]:
    kept = []
    for stack in stacks:
        if soft(stack, scan) == "sharp":
            _note(made, stack, "set aside", "a sharp kernel (bone or lung); a soft one is needed")
        else:
            kept.append(stack)
    return kept


def _baseline(by_scan: Mapping[str, list[Stack]]) -> tuple[int | None, str]:
    """The study that the scans are taken from; None, and why, if several could be it."""
    for scans, what in ((("cta",), "a CTA"), (("ncct",), "an NCCT"), (MAPS, "maps")):
        studies = sorted({stack.study for scan in scans for stack in by_scan[scan]})
        if len(studies) > 1:
            listed = " and ".join(map(str, studies))
            return None, f"studies {listed} each have {what}: which one is the baseline?"
        if studies:
            return studies[0], _earlier(by_scan["ncct"], studies[0])
    return None, ""


def _earlier(plain: list[Stack], study: int) -> str:
    """Why a study with an NCCT of its own may be a follow-up: an NCCT of hours before; "" if none is."""
    own = [stack for stack in plain if stack.study == study]
    before = [stack for stack in plain if stack.study < study]
    if not own or not before or _minutes_apart([*before, *own]) <= APART_MIN:
        return ""
    return f"study {before[0].study} has an earlier NCCT than study {study}: which one is the baseline?"


def _decide(
    scan: str,
    stacks: list[Stack],
    kinds: Mapping[str, Kind],
    study: int | None,
    doubt: str,
    made: Choice,
) -> None:
    if not stacks:
        return
    if doubt:
        _leave_open(scan, stacks, doubt, made)
        return
    own = [stack for stack in stacks if stack.study == study]
    if not own:
        reason = f"not in study {study}, which the other scans are from"
        _leave_open(scan, stacks, reason, made)
        return
    for stack in stacks:
        if stack.study != study:
            _note(
                made, stack, "not chosen", f"not in study {study}, which the scans are taken from"
            )
    sure = [stack for stack in own if not kinds[stack.label].unsure]
    if not sure:
        _leave_open(scan, own, kinds[own[0].label].unsure, made)
        return
    best, reason = _best(scan, sure)
    if reason:
        _leave_open(scan, best, reason, made)
        return
    made.chosen[scan] = best[0]
    _note(made, best[0], "chosen", _why(scan, best[0], own))
    for stack in own:
        if stack is best[0]:
            continue
        unsure = kinds[stack.label].unsure
        _note(made, stack, "not chosen", unsure or f"{best[0].label} is preferred")


def _best(scan: str, stacks: list[Stack]) -> tuple[list[Stack], str]:
    """The preferred stack; or those between which the preferences do not decide, and why."""
    if scan in MAPS:
        return stacks, "" if len(stacks) == 1 else f"{len(stacks)} maps of the same name"
    known = [stack for stack in stacks if soft(stack, scan) == "soft"]
    if not known:
        return stacks, "a kernel that is not known here: is it a soft one?"
    want = PREFERRED[scan]
    fitting = [
        stack for stack in known
        if stack.thickness_mm and want.thinnest_mm <= stack.thickness_mm <= want.thickest_mm
    ]  # fmt: skip
    if not fitting:
        return known, (
            f"no slices of {want.thinnest_mm:g} to {want.thickest_mm:g} mm: is one of these good enough?"
        )
    apart = _minutes_apart(fitting)
    if apart > APART_MIN:
        return fitting, f"acquired {apart:.0f} minutes apart: which one is the baseline?"
    phases = _phases(fitting) if scan == "cta" else 1
    if phases > 1:
        return fitting, f"{phases} acquisitions: which of the phases is the arterial one?"
    thinnest = min(stack.thickness_mm for stack in fitting)
    best = [stack for stack in fitting if stack.thickness_mm - thinnest < SAME_MM]
    if len(best) == 1:
        return best, ""
    return best, f"{len(best)} stacks of {thinnest:g} mm with a soft kernel"


def _start(stack: Stack) -> datetime | None:
    """When the first slice was made; None where the files do not say."""
    return _time(min(stack.headers, key=lambda header: (header.date or "9", header.time or "9")))


def _time(header: Header) -> datetime | None:
    clock = header.time[:6].ljust(6, "0") if len(header.time) >= 4 else ""
    try:
        return datetime.strptime(header.date + clock, "%Y%m%d%H%M%S")
    except ValueError:
        return None


def _minutes_apart(stacks: list[Stack]) -> float:
    """Between the first and the last of some scans, where the files say when they were made."""
    times = [time for time in map(_start, stacks) if time]
    return (max(times) - min(times)).total_seconds() / 60 if times else 0.0


def _phases(stacks: list[Stack]) -> int:
    """How many acquisitions some CTAs are of: the times of their slices lie together, or apart.

    Only times of the acquisition count; those of a series may be of its reconstruction.
    """
    spans = []
    for stack in stacks:
        times = [_time(header) for header in stack.headers if header.acquired]
        if times and None not in times:
            spans.append((min(times), max(times)))
    count, end = 0, None
    for first, last in sorted(spans):
        count += end is None or (first - end).total_seconds() > PHASE_S
        end = last if end is None else max(end, last)
    return count


def _why(scan: str, stack: Stack, own: list[Stack]) -> str:
    if scan in MAPS:
        said = stack.first.unit
        return "" if said else "the unit is not stated; the vendors' usual one is meant"
    parts = ["the only one" if len(own) == 1 else "the thinnest with a soft kernel"]
    if stack.thickness_mm and stack.thickness_mm > PREFERRED[scan].usual_mm:
        parts.append(f"thicker ({stack.thickness_mm:g} mm) than {PREFERRED[scan].usual_mm:g} mm")
    if stack.first.lossy:
        parts.append("compressed with loss")
    return "; ".join([*parts, *stack.notes])


def _leave_open(scan: str, stacks: list[Stack], reason: str, made: Choice) -> None:
    made.open.append(Open(scan, tuple(stacks), reason))
    for stack in stacks:
        _note(made, stack, "undecided", reason)


def _check_answer(
    scan: str,
    answer: Answer,
    by_label: Mapping[str, Stack],
    kinds: Mapping[str, Kind],
    where: str,
) -> None:
    if answer.label == NONE:
        return
    stack = by_label.get(answer.label)
    if stack is None:
        raise InputError(
            f"{where}{scan}: choice {answer.label!r}; allowed: none, or one of {', '.join(by_label)}"
        )
    kind = kinds[stack.label]
    fits = kind.name in SCANS and (kind.name in MAPS) == (scan in MAPS)
    fits = fits or (scan not in MAPS and kind.name == "aside" and kind.overridable)
    if stack.fault or stack.times > 1 or not stack.at_mm or not fits:
        reason = stack.fault or kind.reason or f"it is {kind.name}, or not one volume"
        raise InputError(
            f"{where}{scan}: choice {answer.label!r} cannot be used: {reason}; allowed: another, or none"
        )


def _still_there(
    scan: str, answer: Answer, by_label: Mapping[str, Stack], kinds: Mapping[str, Kind]
) -> bool:
    """Whether an answer of an earlier run still names the series that it named then."""
    try:
        _check_answer(scan, answer, by_label, kinds, "")
    except InputError:
        return False
    stack = by_label.get(answer.label)
    return stack is None or answer.series_uid in ("", stack.first.series_uid)


def _take(scan: str, label: str, by_label: Mapping[str, Stack], made: Choice) -> None:
    """Put a person's choice in the place of what the rules decided."""
    question = next((q for q in made.open if q.scan == scan), None)
    made.open = [q for q in made.open if q.scan != scan]
    made.refused.pop(scan, None)
    before = list(question.candidates) if question else []
    before += [made.chosen.pop(scan)] if scan in made.chosen else []
    for stack in before:
        _note(made, stack, "not chosen", "a person chose otherwise")
    if label != NONE:
        made.chosen[scan] = by_label[label]
        _note(made, by_label[label], "chosen", "a person's choice")


def _reopen(scan: str, answer: Answer, stacks: tuple[Stack, ...], made: Choice) -> None:
    """Ask again, since the question is another one than was answered."""
    question = next((q for q in made.open if q.scan == scan), None)
    candidates = list(question.candidates) if question else []
    candidates += [made.chosen.pop(scan)] if scan in made.chosen else []
    made.open = [q for q in made.open if q.scan != scan]
    made.refused.pop(scan, None)
    known = (
        answer.label if answer.label in {NONE, *(s.label for s in stacks)} else "a series not here"
    )
    reason = f"the candidates have changed since the answer ({known})"
    _leave_open(scan, candidates, reason, made)


def _tell_refused(stacks: tuple[Stack, ...], kinds: Mapping[str, Kind], made: Choice) -> None:
    """Scans of which there is a stack, but none that can be used."""
    for stack in stacks:
        scan = kinds[stack.label].name
        open_scans = {question.scan for question in made.open}
        if scan in SCANS and stack.fault and scan not in made.chosen and scan not in open_scans:
            made.refused.setdefault(scan, f"{stack.label}: {stack.fault}")


def read_choices(path: str | Path) -> dict[str, dict[str, Answer]]:
    """Answers by participant and scan, from a table with participant_id, scan and choice.

    ``undecided.csv`` with its last column filled in is one. Rows without a choice are left out.

    Raises
    ------
    InputError
        If a column is missing, or a row is no answer; the message names file, line and value.
    """
    table = storage.read_csv(
        path, dtype=dict.fromkeys([*COLUMNS, "series_uid"], str), keep_default_na=False
    )
    lacking = {"participant_id", "scan", "choice"} - set(table.columns)
    if lacking:
        raise InputError(f"{path}: column {sorted(lacking)[0]!r} is missing; allowed: {COLUMNS}")
    answers: dict[str, dict[str, Answer]] = {}
    for line, row in enumerate(table.to_dict("records"), start=2):
        label, scan, who = (row[name].strip() for name in ("choice", "scan", "participant_id"))
        if not label:
            continue
        if scan not in SCANS:
            raise InputError(f"{path}, line {line}: scan {scan!r}; allowed: {', '.join(SCANS)}")
        if not IDENTIFIER.fullmatch(who):
            raise InputError(
                f"{path}, line {line}: participant_id {who!r}; allowed: sub- and letters or digits"
            )
        if scan in answers.setdefault(who, {}):
            raise InputError(f"{path}, line {line}: a second answer for {who} {scan}; allowed: one")
        answers[who][scan] = Answer(
            label, row.get("state", "").strip(), series_uid=row.get("series_uid", "").strip()
        )
    return answers
