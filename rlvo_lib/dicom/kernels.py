"""Reconstruction kernels by vendor: soft (brain and vessels), sharp (bone, lung), or not known here.

Siemens: a letter or two and a number that rises with sharpness (H31s, J40s, Hr38, Bv40). GE: words.
Philips: UA to UC and A to C are soft. Canon (Toshiba): FC01-FC28 and FC41-FC44 are soft, the others sharp.
The names are those that the vendors write into ConvolutionKernel.
"""

from __future__ import annotations

import re

SIEMENS = re.compile(
    r"(?:[HBJIUTDCS]|H[RVCPFN]|B[RVFLPY]|Q[RV]|S[AB])(\d{2})[A-Z]?(?:[\\ ].*)?", re.ASCII
)
#: Siemens numbers up to which a kernel is soft enough, by scan. CTA is read sharper than brain.
SIEMENS_SOFT = {"ncct": 45, "cta": 49}
SOFT = {
    # GE
    "STANDARD", "STD", "STND", "SOFT", "SMOOTH", "BRAIN", "HD STANDARD", "HD SOFT",
    # Philips
    "UA", "UB", "UC", "A", "B", "C", "XA", "XB", "XC", "BRAIN STANDARD", "BRAIN SMOOTH",
}  # fmt: skip
SHARP = {
    # GE
    "BONE", "BONEPLUS", "BONE PLUS", "EDGE", "LUNG", "ULTRA", "DETAIL", "CHST", "HD BONE", "HD EDGE",
    "HD DETAIL", "HD ULTRA", "HD LUNG",
    # Philips
    "D", "E", "L", "YA", "YB", "YC", "YD", "UD", "UE", "EB", "EC", "SC", "BONE DETAIL",
}  # fmt: skip
CANON = re.compile(r"FC(\d{2})(?:-H|D|H)?", re.ASCII)
CANON_SOFT = {*range(1, 6), *range(8, 29), *range(41, 45)}

#: How a kernel may be written into an output: one of the above, and nothing else.
WRITTEN = SOFT | SHARP


def sharpness(kernel: str, scan: str) -> str:
    """``soft``, ``sharp`` or ``unknown`` for ``scan`` (``ncct`` or ``cta``).

    >>> [sharpness(k, "ncct") for k in ("H31s", "Hr68f", "STD+", "BONEPLUS", "UB", "FC26", "FC30", "X")]
    ['soft', 'sharp', 'soft', 'sharp', 'soft', 'soft', 'sharp', 'unknown']
    >>> sharpness("Bv48d", "ncct"), sharpness("Bv48d", "cta")
    ('sharp', 'soft')
    """
    name = plain(kernel)
    if name in SOFT:
        return "soft"
    if name in SHARP:
        return "sharp"
    if match := SIEMENS.fullmatch(name):
        return "soft" if int(match[1]) <= SIEMENS_SOFT[scan] else "sharp"
    if match := CANON.fullmatch(name):
        return "soft" if int(match[1]) in CANON_SOFT else "sharp"
    return "unknown"


def plain(kernel: str) -> str:
    """A kernel in capitals, without the ``+`` that GE adds for edge enhancement.

    >>> plain(" Std+ ")
    'STD'
    """
    return " ".join(kernel.upper().replace("_", " ").split()).rstrip("+ ")


def code(kernel: str) -> str:
    """A kernel as it may stand in an output; "" unless it is one of the vendors' codes.

    >>> code("Hr38"), code("STD+"), code("Dr. Who")
    ('Hr38', 'STD+', '')
    """
    name = plain(kernel)
    written = re.sub(r"[^A-Za-z0-9+ ]", " ", kernel).strip()[:16]
    if name in WRITTEN or SIEMENS.fullmatch(name) or CANON.fullmatch(name):
        return written.split()[0] if SIEMENS.fullmatch(name) else written
    return ""
