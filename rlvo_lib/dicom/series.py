"""Files to series, and series to stacks: sets of parallel slices that make one volume, or several.

A series (one SeriesInstanceUID) should be one volume and often is not: localizers among the slices,
two kernels, several time points. It is split wherever slices cannot belong to one volume; each part is
a `Stack`. What cannot be split is kept with its fault.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rlvo_lib.dicom.headers import Header

#: A gap of this many times both of its neighbours is a hole. A scan with two spacings (thin through
#: the skull base, thick above) has no such gap.
HOLE = 1.4
#: Gaps that differ by less, in mm, are even: positions are written with few decimals.
EVEN_MM = 0.05
#: Images at a place from which a series is one over time: raw perfusion.
DYNAMIC = 8
#: What tells apart slices at one position, tried in this order.
SPLITS: tuple[tuple[str, Callable[[Header], Hashable]], ...] = (
    ("image type", lambda h: h.image_type),
    ("temporal position", lambda h: h.temporal),
    ("acquisition", lambda h: h.acquisition),
    ("acquisition time", lambda h: (h.date, h.time)),
    ("slice thickness", lambda h: h.thickness),
    ("content time", lambda h: h.content_time),
)


@dataclass(frozen=True)
class Stack:
    """Parallel slices of one series, in the order of their positions along the normal.

    `at_mm` is the place of each slice along the normal. ``times`` is how many slices lie at each place.
    """

    headers: tuple[Header, ...] = field(repr=False)
    label: str = ""  # study1_series4, study1_series4_part2
    patient: str = field(default="", repr=False)  # the original identifier
    study: int = 0  # of the patient, by time
    fault: str = ""  # why it cannot be used
    notes: tuple[str, ...] = ()
    at_mm: tuple[float, ...] = field(default=(), repr=False)
    times: int = 1

    @property
    def first(self) -> Header:
        return self.headers[0]

    @property
    def files(self) -> int:
        return len(self.headers)

    @property
    def slices(self) -> int:
        """How many different places the slices have."""
        return max(len(self.at_mm) // max(self.times, 1), 1)

    @property
    def normal(self) -> np.ndarray:
        """Unit normal of the slices, LPS."""
        return normal(self.first.orientation)

    @property
    def extent_mm(self) -> float:
        """From the first slice to the last, along the normal."""
        return self.at_mm[-1] - self.at_mm[0] if self.at_mm else 0.0

    @property
    def gaps_mm(self) -> np.ndarray:
        """Distances between neighbouring slices along the normal."""
        return np.diff(np.unique(np.round(self.at_mm, 3)))

    @property
    def thickness_mm(self) -> float | None:
        """Of the thickest slice; where the files say nothing, the distance between slices."""
        said = [h.thickness for h in self.headers if h.thickness]
        gaps = self.gaps_mm
        return max(said) if said else float(np.median(gaps)) if len(gaps) else None

    @property
    def even(self) -> bool:
        """Whether neighbouring slices have one distance."""
        gaps = self.gaps_mm
        return bool(len(gaps) < 2 or np.ptp(gaps) <= max(EVEN_MM, 0.02 * float(gaps.max())))

    @property
    def tilt_deg(self) -> float:
        """Angle between the slices' normal and the line that their first voxels lie on."""
        places = positions(self.headers)
        if len(places) < 2:
            return 0.0
        line = places[-1] - places[0]
        length = float(np.linalg.norm(line))
        if not length:
            return 0.0
        cosine = min(abs(float(line @ self.normal)) / length, 1.0)
        return float(np.degrees(np.arccos(cosine)))


def normal(orientation: Sequence[float]) -> np.ndarray:
    """Unit normal of a slice from its direction cosines, LPS; zero where they are no orientation."""
    if len(orientation) != 6:
        return np.zeros(3)
    across = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(across))
    return across / length if length > 0.9 else np.zeros(3)


def positions(headers: Iterable[Header]) -> np.ndarray:
    """First voxels of all slices, (n, 3) mm LPS, also of the frames of a multi-frame file."""
    rows = []
    for header in headers:
        rows += header.frame_positions if header.frames > 1 else [header.position]
    return np.array(rows, float) if rows and all(len(r) == 3 for r in rows) else np.zeros((0, 3))


@dataclass(frozen=True)
class Patient:
    """The stacks of one patient, and why none of them can be used, if so."""

    original: str
    stacks: tuple[Stack, ...]
    fault: str = ""


def patients(headers: Sequence[Header]) -> tuple[list[Patient], int]:
    """All patients of some files, in the order of their identifiers; and how many files were doubles.

    A file that was exported twice counts once. Files without an identifier are one patient a study.
    """
    kept, doubles, clashing = _without_doubles(_with_issuer(headers))
    by_series: dict[str, list[Header]] = defaultdict(list)
    for header in kept:
        by_series[header.series_uid or str(header.path)].append(header)
    shared = {uid for uid, group in by_series.items() if len({who(h) for h in group}) > 1}
    by_patient: dict[str, list[Header]] = defaultdict(list)
    for header in kept:
        by_patient[who(header)].append(header)
    made = []
    for original in sorted(by_patient):
        own = by_patient[original]
        made.append(Patient(original, tuple(_stacks(own, shared, clashing)), _two_people(own)))
    return made, doubles


def _with_issuer(headers: Sequence[Header]) -> list[Header]:
    """The headers; a file that does not name the identifier's issuer has that of the others, if one only.

    Maps from another workstation often lack it, and are of the same patient.
    """
    issuers: dict[str, set[str]] = defaultdict(set)
    for header in headers:
        if header.issuer:
            issuers[header.patient_id].add(header.issuer)
    lone = {name: next(iter(found)) for name, found in issuers.items() if len(found) == 1}
    return [h if h.issuer else replace(h, issuer=lone.get(h.patient_id, "")) for h in headers]


def who(header: Header) -> str:
    """What a patient is known by: the identifier, with the hospital that gave it where said.

    Files without one are known by their study: ``"(none) 1.2.840..."``.
    """
    if not header.patient_id:
        return f"(none) {header.study_uid}"
    return header.patient_id + (f" / {header.issuer}" if header.issuer else "")


def _two_people(headers: list[Header]) -> str:
    births = {h.birth for h in headers if h.birth}
    sexes = {h.sex for h in headers if h.sex in ("M", "F")}
    if len(births) > 1 or len(sexes) > 1:
        what = f"{len(births)} dates of birth" if len(births) > 1 else "two sexes"
        return f"files under one patient identifier have {what}: two patients, or a fault of entry"
    return ""


def _without_doubles(headers: Sequence[Header]) -> tuple[list[Header], int, set[str]]:
    """Each image once; and series in which one image identifier stands for different files."""
    seen: dict[str, Header] = {}
    kept, doubles, clashing = [], 0, set()
    for header in headers:
        uid = header.sop_uid
        if not uid or uid not in seen:
            seen[uid] = header
            kept.append(header)
        elif _content(seen[uid]) == _content(header):
            doubles += 1
        else:
            clashing |= {header.series_uid, seen[uid].series_uid}
            kept.append(header)
    return kept, doubles, clashing


def _content(header: Header) -> str:
    return hashlib.sha256(header.path.read_bytes()).hexdigest()


def _stacks(headers: list[Header], shared: set[str], clashing: set[str]) -> list[Stack]:
    """The stacks of a patient, labelled by study (in the order of time) and series number."""
    study_when: dict[str, str] = {}
    for header in headers:
        when = header.study_date or header.date or "9"
        study_when[header.study_uid] = min(when, study_when.get(header.study_uid, "9"))
    order = sorted(study_when, key=lambda uid: (study_when[uid], uid))
    by_series: dict[tuple[int, str], list[Header]] = defaultdict(list)
    for header in headers:
        by_series[(order.index(header.study_uid) + 1, header.series_uid)].append(header)
    names: Counter[str] = Counter()
    made = []
    for (study, uid), group in sorted(
        by_series.items(), key=lambda item: (item[0][0], item[1][0].series or 0, item[0][1])
    ):
        name = f"study{study}_series{_number(group[0])}"
        names[name] += 1
        if names[name] > 1:
            name += "bcdefghijklmnopqrstuvwxyz"[min(names[name] - 2, 24)]
        fault = ""
        if uid in shared:
            fault = "files of two patients under one series identifier"
        elif uid in clashing:
            fault = "two different files under one image identifier"
        parts = split(group)
        for number, stack in enumerate(parts, start=1):
            label = name if len(parts) == 1 else f"{name}_part{number}"
            made.append(
                replace(stack, label=label, patient=who(group[0]), study=study,
                        fault=fault or stack.fault)
            )  # fmt: skip
    return made


def _number(header: Header) -> str:
    """The series number, if it is one: labels stand in the dataset, and no other number may."""
    return str(header.series) if header.series is not None and 0 <= header.series < 100_000 else "X"


def split(headers: Sequence[Header]) -> list[Stack]:
    """The stacks of one series, largest first.

    Files that cannot be read stay with the others of their series: a volume that lacks them is not
    whole, and is refused.
    """
    whole = [h for h in headers if not h.fault]
    faults = [h.fault for h in headers if h.fault]
    lacking = ""
    if faults:
        lacking = f"{len(faults)} of {len(headers)} files: {Counter(faults).most_common(1)[0][0]}"
        if not whole:
            return [Stack(tuple(headers), fault=lacking)]
    groups: dict[Hashable, list[Header]] = defaultdict(list)
    for header in whole:
        groups[_key(header)].append(header)
    made = [part for group in groups.values() for part in _timed(group)]
    if lacking:
        made = [replace(stack, fault=lacking) for stack in made]
    return sorted(
        made, key=lambda stack: (-stack.files, stack.first.instance or 0, stack.first.path)
    )


def _key(header: Header) -> Hashable:
    """What all slices of one volume share. A multi-frame file is a volume by itself."""
    alone = str(header.path) if header.frames > 1 else ""
    return (
        alone, header.sop_class, header.modality, header.rows, header.columns, header.samples,
        header.photometric, header.kernel, header.kvp, header.image_type[:3],
        "LOCALIZER" in header.image_type, header.description,
        tuple(np.round(header.orientation, 2) + 0.0), tuple(np.round(header.spacing, 3)),
    )  # fmt: skip


def _timed(headers: list[Header]) -> list[Stack]:
    """A group as one stack where each position is there once; else split by what tells slices apart."""
    stack = _stack(headers)
    if stack.times == 1 or stack.fault or stack.first.frames > 1:
        return [stack]
    for name, part_of in SPLITS:
        parts: dict[Hashable, list[Header]] = defaultdict(list)
        for header in headers:
            parts[part_of(header)].append(header)
        stacks = [_stack(part) for part in parts.values()]
        # as many volumes as there are slices at a place, each with all places
        if len(stacks) == stack.times and all(s.times == 1 and not s.fault for s in stacks):
            note = f"one of {len(stacks)} volumes in a series, told apart by {name}"
            return [replace(s, notes=(note,)) for s in stacks] if len(stacks) < DYNAMIC else [stack]
    if stack.times < DYNAMIC:
        fault = f"{stack.times} images at each position, and nothing tells the volumes apart"
        stack = replace(stack, fault=fault)
    return [stack]


def _stack(headers: list[Header]) -> Stack:
    """Slices in the order of their places, with the fault that keeps them from being a volume."""
    first = headers[0]
    across = normal(first.orientation)
    places = positions(headers)
    count = sum(h.frames for h in headers)
    if not first.rows or not across.any() or len(places) != count:
        fault = "slices without position or orientation" if first.rows and count > 1 else ""
        return Stack(tuple(headers), fault=fault)
    at = places @ across
    order = np.argsort(at, kind="stable")
    if len(headers) == count:  # single frames
        headers = [headers[i] for i in order]
    at = at[order]
    unique, counts = np.unique(np.round(at, 2), return_counts=True)
    times = int(counts.max())
    fault = ""
    if times > 1 and counts.min() != times:
        full = int((counts == times).sum())
        fault = (
            f"{times} images at each of {full} positions and fewer at {len(unique) - full}: volumes "
            "that are not whole, or mixed"
        )
    stack = Stack(tuple(headers), at_mm=tuple(float(v) for v in at), times=times, fault=fault)
    if times == 1:
        stack = replace(stack, fault=_sideways(places[order], across) or holes(stack))
    return stack


def _sideways(places: np.ndarray, across: np.ndarray) -> str:
    """A fault where the slices do not lie along one line: parts with other fields of view."""
    if len(places) < 3:
        return ""
    line = places[-1] - places[0]
    line = line / (line @ across)
    off = places - places[0] - np.outer((places - places[0]) @ across, line)
    worst = float(np.abs(off).max())
    return (
        f"slices shifted sideways by up to {worst:.1f} mm: parts of several scans"
        if worst > 1.0
        else ""
    )


def holes(stack: Stack) -> str:
    """In words, where slices are missing; "" where none is.

    A gap clearly larger than both of its neighbours is a hole, whatever the numbers say. A jump in the
    instance numbers is one where the gap is larger, too.
    """
    gaps = np.diff(stack.at_mm)
    if len(gaps) < 2:
        return ""
    before = np.concatenate([[gaps[1]], gaps[:-1]])
    after = np.concatenate([gaps[1:], [gaps[-2]]])
    usual = float(np.median(gaps))
    wide = gaps > HOLE * np.maximum(before, after)
    numbers = [h.instance for h in stack.headers]
    if len(numbers) == len(gaps) + 1 and None not in numbers:
        jumps = np.abs(np.diff(np.array(numbers)))
        usual_jump = int(np.median(jumps))
        wide |= (jumps > usual_jump) & (gaps > HOLE * usual)
    if not wide.any():
        return ""
    missing = sum(max(round(float(g) / usual) - 1, 1) for g in gaps[wide])
    where = ", ".join(
        f"{gaps[i]:.1f} mm after slice {i + 1} of {len(gaps) + 1}" for i in np.flatnonzero(wide)[:3]
    )
    return f"about {missing} slices missing (gap of {where}; usual gap {usual:.1f} mm)"
