"""ISLES'24 as a dataset folder: acute CT of stroke patients, without the rLVO outcome.

In comes the unpacked ``train`` folder of the public dataset (Riedel et al., arXiv 2408.11142; Zenodo
10.5281/zenodo.17652035 and earlier versions; CC BY-NC-SA 4.0: whoever uses it brings it, and nothing of
it is in this package)::

    raw_data/sub-stroke0001/ses-01/sub-stroke0001_ses-01_{ncct,cta,ctp}.nii.gz
    raw_data/sub-stroke0001/ses-01/perfusion-maps/sub-stroke0001_ses-01_{cbf,cbv,mtt,tmax}.nii.gz
    derivatives/sub-stroke0001/ses-01/[perfusion-maps/]sub-stroke0001_ses-01_space-ncct_*.nii.gz
    derivatives/sub-stroke0001/ses-02/..., phenotype/sub-stroke0001/ses-0{1,2}/...

The names that its README gives (``rawdata``, ``sub-strokecase0001``, ``ses-0001``) are read too. Out come
NCCT, CTA and perfusion maps of the first session under the names of the rLVO study, and the clinical
values with a counterpart there (`phenotype`). All of session 2 (MRI after treatment, the final infarct),
the masks of occlusion and circle of Willis, and the raw perfusion series are set aside and counted: the
first two are outcome or read by a person, and maps from the series are not made yet.

Every file is read whole before it is taken; one that cannot be used is left out with the reason. What is
unusual is listed in ``derivatives/adapt/report.csv``: participant_id, what (`KINDS`), value, detail.
"""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rlvo_lib import __version__, dataset, images, progress, storage
from rlvo_lib.adapters import phenotype
from rlvo_lib.config import InputError, Scan, load_study
from rlvo_lib.intake import folder

REPORT = "derivatives/adapt/report.csv"
LEDGER = "derivatives/adapt/isles24.json"  # what became of each source file, so that work resumes
REPORT_COLUMNS = ["participant_id", "what", "value", "detail"]
SCANS = ("ncct", "cta", "cbf", "cbv", "mtt", "tmax")
RAW, REGISTERED, CLINICAL = ("raw_data", "rawdata"), ("derivatives",), ("phenotype",)
FIRST = re.compile(r"ses-0*1")
FILE = re.compile(
    r"(?P<patient>sub-[A-Za-z0-9]+)_ses-0*1(?:_space-(?P<space>[A-Za-z0-9]+))?"
    r"_(?P<suffix>[A-Za-z0-9-]+)\.nii(?:\.gz)?"
)
ASIDE = {
    "ctp": ("series over time set aside", "maps are not made from it yet"),
    "lvo-msk": ("mask set aside", "read by a person: no model input"),
    "cow-msk": ("mask set aside", "some arteries in several labels, not a vessel mask"),
    "lesion-msk": ("mask set aside", "the infarct after treatment: no model input"),
}
#: What a report can list, in its order.
KINDS = (
    "file that cannot be used", "scan missing", "no clinical file", "value without a reading",
    "voxels without a value", "unusual scan", "registered scan missing", "series over time set aside",
    "mask set aside", "file of another name", "follow-up set aside", "column not used",
)  # fmt: skip
Line = tuple[str, str, str, str]  # of the report


@dataclass(frozen=True)
class Source:
    """The folders of the unpacked dataset."""

    raw: Path
    registered: Path
    clinical: Path

    @property
    def patients(self) -> list[str]:
        """Everybody with a folder of scans, or with a clinical file."""
        names = {p.name for part in (self.raw, self.registered) for p in part.glob("sub-*")}
        names |= {p.name.split("_")[0] for p in self.clinical.rglob("sub-*_*")}
        return sorted(name for name in names if dataset.IDENTIFIER.fullmatch(name))


def adapt(source: str | Path, out: str | Path, *, native: bool = False) -> pd.DataFrame:
    """Write ISLES'24 as a dataset folder; the report is returned, and written into it.

    Parameters
    ----------
    source : the folder that holds ``raw_data`` and ``derivatives``, or the one above it.
    out : the dataset folder, new or begun from the same source; interrupted work goes on where it
        stopped. Files are copied (about 15 GB for all patients), ``dataset_description.json`` comes
        last.
    native : take CTA and maps in their own space (``raw_data``), not those registered to the NCCT
        (``derivatives``) where there are such.

    Returns
    -------
    DataFrame with the columns participant_id, what, value, detail.

    Raises
    ------
    InputError
        If there is no such dataset, or ``out`` holds another one or lies within the source.
    """
    out = Path(out)
    found = find(Path(source))
    folder.read_description(out)  # refuses a file and a simulated dataset
    _refuse_other(out, Path(source))
    patients = found.patients
    if not patients:
        raise InputError(f"{source}: holds no patient; allowed: folders like sub-stroke0001")
    ledger = storage.read_json(out / LEDGER) if (out / LEDGER).exists() else {}
    (out / folder.DESCRIPTION).unlink(missing_ok=True)  # only what is whole has one
    storage.write_json(out / LEDGER, ledger)
    rows, lines, columns = [], [], set()
    scans = load_study("rlvo").scans
    for patient in progress.track(patients, label="patients"):
        lines += _write_scans(found, out, patient, scans, native, ledger)
        storage.write_json(out / LEDGER, ledger)
        values, said, names = phenotype.read_patient(found.clinical, patient)
        rows.append({"participant_id": patient} | values)
        lines += [(patient, *line) for line in said]
        columns |= names
    report = _report([*lines, *_unused(columns)])
    storage.write_text(out / folder.TABLE, folder.table_text(pd.DataFrame(rows), "\t"))
    storage.write_csv(out / REPORT, report)
    storage.write_json(out / folder.DESCRIPTION, _description())
    return report


def find(source: Path) -> Source:
    """The parts of the unpacked dataset, in ``source`` or in its folder ``train``."""
    if not source.is_dir():
        what = "is a file; allowed: a folder (unpack train.7z first)"
        raise InputError(f"{source}: {what if source.exists() else 'no such folder'}")
    for root in (source, source / "train"):
        raw = next((root / name for name in RAW if (root / name).is_dir()), None)
        if raw:
            return Source(raw, root / REGISTERED[0], root / CLINICAL[0])
    raise InputError(
        f"{source}: has no folder raw_data; allowed: the unpacked train folder of ISLES'24, with "
        "raw_data, derivatives and phenotype"
    )


def _refuse_other(out: Path, source: Path) -> None:
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InputError(
            f"{out}: lies within {source}, or around it; allowed: a folder apart from the source"
        )
    others = (
        [path for path in out.glob("*") if not path.name.startswith(".")] if out.is_dir() else []
    )
    if others and not (out / LEDGER).exists():
        raise InputError(
            f"{out}: holds another dataset or other files ({others[0].name}); allowed: a new folder"
        )


# ------------------------------------------------------------------------------------------- scans


def _write_scans(
    source: Source, out: Path, patient: str, scans: dict[str, Scan], native: bool, ledger: dict
) -> Iterator[Line]:
    """Take a patient's scans, and say what was not taken."""
    own, registered = (
        _first_session(source.raw, patient),
        _first_session(source.registered, patient),
    )
    files: dict[tuple[str, str], Path] = {}
    for path in (*own, *registered):
        match = FILE.fullmatch(path.name)
        if match and match["patient"] == patient and match["space"] in (None, "ncct"):
            files.setdefault((match["space"] or "", match["suffix"].lower()), path)
        elif path.name.endswith((".nii", ".nii.gz")):
            yield patient, "file of another name", path.name, "not used"
    for suffix, (what, why) in ASIDE.items():
        if (path := files.get(("ncct", suffix)) or files.get(("", suffix))) is not None:
            yield patient, what, path.name, why
    later = [
        path
        for part in (source.raw, source.registered)
        for path in part.glob(f"{patient}/ses-*/**/*.nii*")
        if not FIRST.fullmatch(path.relative_to(part / patient).parts[0])
    ]
    if later:
        yield patient, "follow-up set aside", str(len(later)), "images after the treatment"
    for name in SCANS:
        order = ("", "ncct") if native or name == "ncct" else ("ncct", "")
        path = next((files[space, name] for space in order if (space, name) in files), None)
        target = dataset.scan_path(out, patient, scans[name])
        if path is None:
            target.unlink(missing_ok=True)
            yield patient, "scan missing", name, ""
            continue
        if order[0] == "ncct" and path == files.get(("", name)):
            yield patient, "registered scan missing", path.name, "taken in its own space"
        for line in _take(path, target, scans[name], ledger):
            yield patient, *line


def _first_session(part: Path, patient: str) -> list[Path]:
    """All files of a patient's first session, sorted; those deepest in the tree last."""
    return sorted(
        path
        for session in part.glob(f"{patient}/ses-*")
        if FIRST.fullmatch(session.name)
        for path in session.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def _take(path: Path, target: Path, scan: Scan, ledger: dict) -> list[tuple[str, str, str]]:
    """Check and copy one file, unless that was done; what there is to say of it."""
    stat = path.stat()
    mark = [path.name, path.parent.name, stat.st_size, stat.st_mtime_ns]
    key = "/".join(target.parts[-3:])
    known = ledger.get(key)
    if known and known["source"] == mark and known["written"] == target.exists():
        return [tuple(line) for line in known["lines"]]
    lines, written = _check_and_copy(path, target, scan)
    ledger[key] = {"source": mark, "written": written, "lines": lines}
    return lines


def _check_and_copy(
    path: Path, target: Path, scan: Scan
) -> tuple[list[tuple[str, str, str]], bool]:
    try:
        filled, unusual = _checked(path, scan)
    except InputError as error:
        target.unlink(missing_ok=True)
        reason = str(error).replace(f"{path}: ", "")
        return [("file that cannot be used", path.name, reason)], False
    lines = [("unusual scan", path.name, finding.words) for finding in unusual]
    if filled is None:
        _copy(path, target)
    else:
        images.save_nifti(target, *filled)
        lines.append(("voxels without a value", path.name, "NaN or infinite: written as 0"))
    return lines, True


def _checked(
    path: Path, scan: Scan
) -> tuple[tuple[np.ndarray, np.ndarray] | None, list[images.Finding]]:
    """A scan's warnings; and a map with its affine if it had voxels without a value, now 0."""
    try:
        return None, images.load_scan(path, scan)[2]
    except InputError:
        if scan.kind != "map":
            raise
    # a map may have no value outside the brain; one that is faulty otherwise fails again
    array, affine, unusual = images.load_scan(path, scan, fill=0.0)
    return (array, affine), unusual


def _copy(path: Path, target: Path) -> None:
    """The file byte by byte, compressed if it was not; never a link."""
    with storage.atomic(target) as temporary:
        if path.suffix == ".gz":
            shutil.copyfile(path, temporary)
        else:
            temporary.write_bytes(gzip.compress(path.read_bytes(), compresslevel=1, mtime=0))


# ------------------------------------------------------------------------------------------- report


def _unused(columns: set[str]) -> Iterator[Line]:
    """Columns of the clinical files that are not used, each once."""
    used = {column.source for column in phenotype.COLUMNS} | set(phenotype.TIMES[1:])
    for name in sorted(columns - used):
        yield "", "column not used", name, phenotype.LEFT_OUT.get(name, "not known")


def _report(lines: list[Line]) -> pd.DataFrame:
    ordered = sorted(lines, key=lambda line: KINDS.index(line[1]))  # patients keep their order
    return pd.DataFrame(ordered, columns=REPORT_COLUMNS, dtype=str)


def _description() -> dict:
    return {
        "Name": "ISLES'24, training part, acute CT",
        "BIDSVersion": folder.BIDS_VERSION,
        "License": "CC BY-NC-SA 4.0",
        "ReferencesAndLinks": ["arXiv:2408.11142", "doi:10.5281/zenodo.17652035"],
        "simulated": False,
        "GeneratedBy": [{"Name": "rlvo adapt isles24", "Version": __version__}],
    }


def show(report: pd.DataFrame, name: str) -> str:
    """The report in short: how many of each kind, and the first few of them."""
    lines = [f"{name}: written; listed in {REPORT}:"]
    for what, group in report.groupby("what", sort=False):
        named = [f"{row.participant_id} {row.value}".strip() for row in group.itertuples()]
        lines.append(f"  {what}: {len(group)} ({', '.join(named[:3])}{' …' if named[3:] else ''})")
    lines.append(
        "  no rLVO outcome in it: `rlvo validate` says so, and notebook 02 shows the images"
    )
    return "\n".join(lines)
