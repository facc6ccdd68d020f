"""Tables of what was done: one for the dataset, without any header text, and those for the hospital only.

`stack_table` has one row a stack, in words and numbers of this package: it lies in the dataset.
`undecided_table`, `patient_table` and `series_table` hold what identifies patients, or text of headers:
they lie in the private folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from rlvo_lib.dicom import kernels
from rlvo_lib.dicom.choice import COLUMNS, Choice, Open
from rlvo_lib.dicom.series import Stack
from rlvo_lib.validation.screen import printable

STACK_COLUMNS = [
    "participant_id", "stack", "images", "slices", "thickness_mm", "kernel", "kind", "status", "reason",
]  # fmt: skip
LINES = 40  # patients or reasons listed on the screen


@dataclass
class Work:
    """One patient: who it is, what was decided, and what came of it."""

    participant_id: str
    original: str
    choice: Choice
    days: int = 0
    made: dict[str, str] = field(default_factory=dict)  # scan: label of its stack
    failed: dict[str, str] = field(default_factory=dict)  # scan, or "": reason
    unchanged: bool = False  # finished before, and found again
    left: bool = False  # left as an earlier run made it


@dataclass
class Summary:
    """The whole job: all patients, and what lay in the folder besides them."""

    works: list[Work]
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    without_row: list[str] = field(default_factory=list)
    dry: bool = False
    private: str = ""

    @property
    def in_order(self) -> bool:
        """Whether nothing was left undecided, refused or failed."""
        return not (
            self.skipped or self.without_row or self.counts["files that cannot be used"]
        ) and all(
            not (work.choice.open or work.choice.refused or work.failed) for work in self.works
        )


def stack_table(works: Sequence[Work]) -> pd.DataFrame:
    """One row a stack: what it is, what was done with it, and why."""
    rows = []
    for work in works:
        for outcome in work.choice.outcomes.values():
            stack = outcome.stack
            failure = next(
                (work.failed[s] for s, label in _taken(work) if label == stack.label), ""
            )
            rows.append(
                {
                    "participant_id": work.participant_id,
                    "stack": stack.label,
                    "images": stack.files if stack.first.frames == 1 else stack.first.frames,
                    "slices": stack.slices,
                    "thickness_mm": _thickness(stack),
                    "kernel": kernels.code(stack.first.kernel),
                    "kind": outcome.kind.name if outcome.kind.name != "aside" else "",
                    "status": "refused" if failure else outcome.status,
                    "reason": failure or outcome.reason,
                }
            )
    return pd.DataFrame(rows, columns=STACK_COLUMNS)


def _taken(work: Work) -> list[tuple[str, str]]:
    return [(s, stack.label) for s, stack in work.choice.chosen.items() if s in work.failed]


def _thickness(stack: Stack) -> str:
    value = stack.thickness_mm
    return "" if value is None or not 0 < value < 100 else f"{value:g}"


def undecided_table(works: Sequence[Work]) -> pd.DataFrame:
    """What a person must decide, with an empty column ``choice``; holds text of headers."""
    rows = [
        {
            "participant_id": work.participant_id,
            "scan": question.scan,
            "candidates": " | ".join(described(stack) for stack in question.candidates),
            "reason": question.reason,
            "state": question.state,
            "choice": "",
        }
        for work in works
        for question in work.choice.open
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def described(stack: Stack) -> str:
    """A stack as a person recognises it: label, description, thickness, kernel, number of slices."""
    first = stack.first
    said = printable(first.description) or "no description"
    kernel = printable(first.kernel) or "kernel not said"
    return f"{stack.label}: {said}, {_thickness(stack) or '?'} mm, {kernel}, {stack.slices} slices"


def patient_table(works: Sequence[Work]) -> pd.DataFrame:
    """The link between original identifiers and the dataset, and the days that dates were moved by."""
    rows = [(work.original, work.participant_id, work.days) for work in works]
    return pd.DataFrame(rows, columns=["patient_id", "participant_id", "days"])


def series_table(works: Sequence[Work]) -> pd.DataFrame:
    """`stack_table` with the series' descriptions; holds text of headers."""
    table = stack_table(works)
    texts = [
        printable(outcome.stack.first.description)
        for work in works
        for outcome in work.choice.outcomes.values()
    ]
    table.insert(2, "description", texts)
    return table


# ----------------------------------------------------------------------------------- on the screen


def show(summary: Summary, name: str) -> str:
    """What was done and what is left to do, as text."""
    lines = [f"{printable(name)}:"]
    lines += [f"  {n:,} {what}" for what, n in summary.counts.items() if n]
    lines += _shortened(
        [f"  left out: {printable(where)}: {why}" for where, why in summary.skipped]
    )
    table = stack_table(summary.works)
    aside = table[table["status"] == "set aside"]
    for reason, count in Counter(aside["reason"]).most_common(LINES):
        lines.append(f"  set aside: {reason}: {count}")
    if summary.dry:
        lines += _listed(summary.works)
    for heading, told in (("undecided", _open), ("refused", _refused)):
        lines += _shortened(
            [f"  {heading}: {line}" for work in summary.works for line in told(work)]
        )
    lines += _shortened([f"  no row in participants.tsv: {who}" for who in summary.without_row])
    lines.append(f"{printable(name)}: {_last(summary)}")
    return "\n".join(lines)


def _listed(works: Sequence[Work]) -> list[str]:
    """Each stack with its description and what would become of it: for a person at the hospital."""
    lines = []
    for work in works:
        for outcome in work.choice.outcomes.values():
            why = f" ({outcome.reason})" if outcome.reason else ""
            kind = "" if outcome.kind.name == "aside" else f"{outcome.kind.name}, "
            about = described(outcome.stack)
            lines.append(f"  {work.participant_id} {about}: {kind}{outcome.status}{why}")
    return lines


def refused_table(works: Sequence[Work]) -> pd.DataFrame:
    """Patients that were refused as a whole, by their original identifier."""
    rows = [(work.original, work.failed[""]) for work in works if "" in work.failed]
    return pd.DataFrame(rows, columns=["patient_id", "reason"])


def _open(work: Work) -> list[str]:
    return [_asked(work, question) for question in work.choice.open]


def _asked(work: Work, question: Open) -> str:
    labels = ", ".join(stack.label for stack in question.candidates)
    return f"{work.participant_id} {question.scan}: {question.reason} ({labels})"


def _refused(work: Work) -> list[str]:
    told = {**work.choice.refused, **work.failed}
    return [f"{work.participant_id} {scan or 'patient'}: {why}" for scan, why in told.items()]


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - LINES
    return lines if more <= 0 else [*lines[:LINES], f"  … and {more:,} more such lines"]


def _last(summary: Summary) -> str:
    scans = Counter(scan for work in summary.works for scan in work.made)
    if summary.dry:
        scans = Counter(scan for work in summary.works for scan in work.choice.chosen)
    listed = ", ".join(f"{n:,} {scan}" for scan, n in scans.items()) or "no scans"
    words = "would be converted" if summary.dry else "there"
    open_ = sum(len(work.choice.open) for work in summary.works)
    refused = sum(len(_refused(work)) for work in summary.works)
    found = sum(work.unchanged for work in summary.works)
    again = f", {found:,} of them finished before" if found else ""
    answer = f"; answer in {summary.private}/undecided.csv" if open_ and not summary.dry else ""
    return (
        f"{len(summary.works):,} patients{again}; {listed} {words}; {open_} undecided, {refused} "
        f"refused{answer}"
    )
