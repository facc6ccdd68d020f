"""What may leave the hospital: names for patients, shifted dates, and the few header fields of a sidecar.

A secret of 32 random bytes is made once and kept in the private folder, beside the dataset and never in
it. From it and from nothing else follow

* the name of a patient without a row in the list of patients: ``sub-`` and ten letters or digits, keyed
  hash (HMAC-SHA-256) of the original identifier;
* the days by which all dates of a patient move: 30 to 1094 earlier, keyed hash of ``sub-...``, so that
  the dates of a patient's table can be moved by the same days. The time of day stays.

Without the secret neither can be undone or repeated.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rlvo_lib import storage
from rlvo_lib.config import InputError
from rlvo_lib.dataset import IDENTIFIER
from rlvo_lib.dicom import kernels
from rlvo_lib.dicom.headers import Header
from rlvo_lib.intake.dates import written

SECRET = "secret.key"
SHIFT_DAYS = (30, 1094)  # earlier; never later: a date in the future is a fault
PATIENT_COLUMNS = ["patient_id", "participant_id"]


def read_secret(private: Path) -> bytes:
    """The secret of a private folder, made if there is none yet; readable by its owner only.

    Raises
    ------
    InputError
        If the file is there and is no secret, or cannot be written.
    """
    path = private / SECRET
    if not path.exists():
        with storage.atomic(path) as temporary:
            temporary.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        os.chmod(path, 0o600)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InputError(f"{path}: is no secret; allowed: 64 hexadecimal digits, as made here once")
    return bytes.fromhex(text)


def _keyed(secret: bytes, purpose: str, text: str) -> bytes:
    return hmac.new(secret, f"{purpose}\0{text}".encode(), hashlib.sha256).digest()


def participant(secret: bytes, original: str) -> str:
    """``sub-`` and ten letters or digits for an original identifier.

    >>> participant(bytes(32), "12345") == participant(bytes(32), "12345")
    True
    """
    code = base64.b32encode(_keyed(secret, "participant", original)).decode().lower()
    return f"sub-{code[:10]}"


def shift_days(secret: bytes, participant_id: str) -> int:
    """By how many days all dates of a patient move: a negative number, `SHIFT_DAYS` earlier.

    >>> -1094 <= shift_days(bytes(32), "sub-0001") <= -30
    True
    """
    low, high = SHIFT_DAYS
    number = int.from_bytes(_keyed(secret, "days", participant_id)[:8], "big")
    return -(low + number % (high - low + 1))


def shifted(date: str, time: str, days: int) -> str:
    """A DICOM date and time moved by `days`, as the dataset writes it; "" where it is none.

    >>> shifted("20210305", "143059.5", -31), shifted("20210305", "", -31), shifted("soon", "", 0)
    ('2021-02-02 14:30', '2021-02-02', '')
    """
    digits = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", date)
    clock = re.match(r"(\d{2}):?(\d{2})", time)
    try:
        when = datetime(*(int(part) for part in digits.groups())) + timedelta(days=days)
        if clock:
            when = when.replace(hour=int(clock[1]), minute=int(clock[2]))
    except (AttributeError, ValueError, OverflowError):
        return ""
    return written(when, clock is not None)


def read_patients(path: str | Path) -> dict[str, str]:
    """The hospital's list: original identifier to ``sub-...``, from a table of two columns.

    Raises
    ------
    InputError
        If a column is missing, an identifier is not allowed, or one stands for two.
    """
    table = storage.read_csv(path, dtype=dict.fromkeys(PATIENT_COLUMNS, str), keep_default_na=False)
    lacking = [name for name in PATIENT_COLUMNS if name not in table]
    if lacking:
        raise InputError(
            f"{path}: column {lacking[0]!r} is missing; allowed: {', '.join(PATIENT_COLUMNS)}"
        )
    named: dict[str, str] = {}
    for line, (original, name) in enumerate(
        table[PATIENT_COLUMNS].itertuples(index=False), start=2
    ):
        original, name = original.strip(), name.strip()
        name = name if name.startswith("sub-") else f"sub-{name}"
        if not IDENTIFIER.fullmatch(name):
            raise InputError(
                f"{path}, line {line}: participant_id {name!r}; allowed: letters a-z and digits"
            )
        if original in named or name.casefold() in {n.casefold() for n in named.values()}:
            raise InputError(
                f"{path}, line {line}: patient or participant {name!r} a second time; allowed: one "
                "row each"
            )
        named[original] = name
    return named


# ------------------------------------------------------------------------------------- the sidecar

MANUFACTURERS = {
    "GE": "GE", "SIEMENS": "Siemens", "PHILIPS": "Philips", "CANON": "Canon", "TOSHIBA": "Toshiba",
    "HITACHI": "Hitachi", "FUJIFILM": "Fujifilm", "NEUSOFT": "Neusoft", "UIH": "United Imaging",
    "UNITED": "United Imaging", "SAMSUNG": "Samsung", "NEUROLOGICA": "NeuroLogica",
    "MARCONI": "Marconi", "PICKER": "Picker", "ELSCINT": "Elscint", "SHIMADZU": "Shimadzu",
}  # fmt: skip
_MODELS = """
SOMATOM Force Drive Definition AS AS+ Flash Edge Sensation Emotion Perspective Scope Confidence
go.Top go.Up go.All go.Now go.Open X.cite X.ceed Pro.Pulse NAEOTOM Alpha Open Volume Zoom Plus
LightSpeed VCT Pro Ultra QX/i RT Discovery CT750 HD Revolution EVO CT Apex Maxima Frontier GSI
Optima CT660 CT540 CT680 CT580 BrightSpeed Elite HiSpeed Dual NX/i CT/i Advantage ProSpeed ACTs
Brilliance iCT Ingenuity Incisive IQon Spectral Big Bore Core Mx8000 IDT Gemini MX SP
Aquilion ONE PRIME Genesis Vision Lightning Exceed LB Precision Prime Asteion Activion Helios Start
SCENARIA Supria Eclos Pronto NeuViz uCT CereTom BodyTom OmniTom Series PQ Ultra-Z Elite Pro16 Power
Slice TSX-101A TSX-201A TSX-301A TSX-302A TSX-303A TSX-305A TSX-306A
"""
#: Words of the names of CT scanners. A model's name is kept if it holds these, and numbers, only.
MODEL_WORDS = set(_MODELS.casefold().split())
UNITS = {"cbf": "mL/100 g/min", "cbv": "mL/100 g", "mtt": "s", "tmax": "s"}


def sidecar(
    scan: str,
    header: Header,
    *,
    thickness_mm: float | None,
    tilt_deg: float,
    straightened: list[str],
) -> dict[str, Any]:
    """What is written beside a scan: numbers within sense, and codes from lists of this package.

    The keys are those of simulated scans and ``ConvolutionKernel``, ``Resampled`` (what was straightened:
    ``gantry tilt``, ``uneven slices``). A value that is not of its kind is left out.
    """
    fields = {
        "Simulated": False,
        "Modality": "CT",
        "Manufacturer": manufacturer(header.manufacturer),
        "ManufacturersModelName": model(header.model),
        "KVP": _between(header.kvp, 40, 200),
        "SliceThickness": _between(thickness_mm, 0.1, 50),
        "GantryDetectorTilt": _between(tilt_deg, -45, 45),
        "ConvolutionKernel": "" if scan in UNITS else kernels.code(header.kernel),
        "Units": UNITS.get(scan, "HU"),
        "Resampled": straightened,
    }
    return {name: value for name, value in fields.items() if value not in ("", None, [])}


def manufacturer(text: str) -> str:
    """The vendor, from the list of this package; "" for any other text.

    >>> manufacturer("GE MEDICAL SYSTEMS"), manufacturer("Hospital of Saint Nobody")
    ('GE', '')
    """
    words = text.upper().split()
    return MANUFACTURERS.get(words[0], "") if words else ""


def model(text: str) -> str:
    """The scanner's model if all of its words are those of scanners; else "".

    >>> model("SOMATOM Definition AS+"), model("Brilliance 64"), model("SOMATOM of Dr. Who")
    ('SOMATOM Definition AS+', 'Brilliance 64', '')
    """
    words = text.split()
    known = all(
        word.casefold() in MODEL_WORDS or re.fullmatch(r"\d{1,3}", word, re.ASCII) for word in words
    )
    named = any(word.casefold() in MODEL_WORDS for word in words)
    return " ".join(words) if known and named and len(words) <= 6 else ""


def _between(value: float | None, low: float, high: float) -> float | None:
    if value is None or not low <= value <= high:
        return None
    value = round(float(value), 3)
    return int(value) if value == int(value) else value
