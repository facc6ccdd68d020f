"""What a stack is: NCCT, CTA, one of four perfusion maps, or something that is set aside with a reason.

Rules read the image type, the contrast tags, the number of images at a place, the orientation, the
kernel and, in several languages, words of the description. `kind_of` applies them in a fixed order,
the surest first. What points to two kinds at once is neither: a person decides.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

import numpy as np

from rlvo_lib.dicom.headers import CT_IMAGES
from rlvo_lib.dicom.kernels import sharpness
from rlvo_lib.dicom.series import DYNAMIC, Stack

SCANS = ("ncct", "cta", "cbf", "cbv", "mtt", "tmax")
MAPS = ("cbf", "cbv", "mtt", "tmax")

SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
NO_IMAGES = {  # by the beginning of the SOP class
    "1.2.840.10008.5.1.4.1.1.88": "a structured report, such as a dose report",
    "1.2.840.10008.5.1.4.1.1.104": "a document",
    "1.2.840.10008.5.1.4.1.1.11": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.66": "a segmentation or registration",
    "1.2.840.10008.5.1.4.1.1.481": "radiotherapy data",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map object, which is not read yet",
}
LEAST_SLICES = 8
LEAST_MM = {"ncct": 90.0, "cta": 60.0, "map": 20.0}  # along the normal
MOST_MM = 700.0  # longer is a scan of the body
OBLIQUE = np.cos(np.radians(40.0))  # gantries tilt by up to 30 degrees

_WORD = {  # beginnings and ends of words are marked by blanks
    "localizer": r" (SCOUT|TOPOGRAM|TOPOGRAMA|TOPO|LOCALIZER|LOCALISER|LOCALIZADOR|SURVIEW|SCANOGRAM|SCANO) ",
    "dose": r" (DOSE|DOSIS|DOSERELEVANT) ",
    "bolus": r" (SMART ?PREP|BOLUS|PRE ?MONITORING|MONITORING|MONITORIZACION|TRACKER|LOCATOR|TIMING|S ?& ?V) ",
    "projection": r" (T?MIPS?|MINIPS?|MIN IP|MPRS?|VRT|VR|SSD|3D|CURVED|REFORMAT|REFORMATTED|REFORMATS|RADIAL|THICK SLAB|SLABS?|"
    r"COR|CORONAL|SAG|SAGITTAL|SAGITAL|ROTATION|SPIN) ",
    "processed": r" (SUBTRACTION|SUBTRACTED|SUB|DSA|BONE ?REMOVED|BONE ?REMOVAL|BONELESS|MONOENERGETIC|"
    r"MONO|MONOPLUS|VMI|\d* ?KEV|IODINE|VNC|VUE|VIRTUAL|MIXED|MAR|OPTIMUM CONTRAST|EFF Z|Z EFF|ELECTRON DENSITY) ",
    "summary": r" (SUMMARY|RESUMEN|PENUMBRA|MISMATCH|TISSUE|OVERLAY|FUSION|COLOR|COLOUR|RGB) ",
    "perfusion": r" (PERF|PERFU|PERFUSION|CTP|VPCT|PCT|4D|DYN|DYNAMIC|DYNAMISCH|SHUTTLE|JOG) ",
    "late": r" (VENOUS|VENOSA|VENOSO|VENOS|VENEUX|VEINS?|PORTAL|CTV|DELAYED|DELAY|TARDIA|LATE|SPAT|SPAET|"
    r"2ND|3RD|[23] PHASE|PHASE ?[23]|P[23]|FASE ?[23]|POST ?CONTRAST|POSTCONTRASTE) ",
    "angiography": r" (CTA|ANGIO|ANGIOGRAPHY|ANGIOGRAFIA|ANGIOTC|ANGIO ?TAC|ATC|COW|WILLIS|CAROTID|"
    r"CAROTIDS|CAROTIDES|CIRCLE|ARTERIAL|TSA|TSAO|ANGIOSCANNER|TROSC) ",
    "plain": r" (NCCT|NECT|NCT|NON ?CONTRAST|NONCON|NON ?CON|UNENHANCED|NATIV|NATIVE|PLAIN|WITHOUT|"
    r"SIN CONTRASTE|SIN CIV|SIMPLE|BASAL|SANS INJECTION|SANS IV|OHNE KM|SENZA MDC|WO|NOCONTRAST|NO CONTRAST) ",
    "contrast": r" (POST|CONTRAST|CONTRASTE|WITH|W|IV|CON CIV|CE|CECT|ENHANCED|INJ|INJECTE|MDC|KM|GADO) ",
    "head": r" (HEAD|BRAIN|SKULL|CRANEO|CRANIO|CRANEAL|CRANIAL|CEREBRAL|CEREBRO|CEREBRUM|ENCEFALO|CABEZA|"
    r"KOPF|SCHAEDEL|SCHADEL|TETE|CRANE|CERVEAU|TESTA|ENCEFALICO|STROKE|ICTUS|HEADNECK|HEAD NECK|NEUROCRANIUM|"
    r"ENCEPHALE|CABECA|CRANI|WILLIS|COW|VERTEX) ",
    "neck": r" (NECK|CAROTID|CAROTIDS|CUELLO|HALS|COU|TSA|TSAO|ARCH|CERVICAL) ",
    "neck_only": r" (NECK|CUELLO|HALS|COU|CERVICAL) ",
    "elsewhere": r" (CHEST|THORAX|TORAX|ABDOMEN|PELVIS|LUNG|LUNGS|CSPINE|TSPINE|LSPINE|SPINE|LUMBAR|KNEE|"
    r"HIP|FOOT|LEG|EXTREMITY|HEART|CARDIAC|CORONARY|PULMONARY|AORTA|RENAL|LIVER|FACE|FACIAL|MAXILLOFACIAL|"
    r"MANDIBLE|SINUS|SINUSES|ORBIT|ORBITS|TEMPORAL|IAC|PETROUS) ",
    "follow_up": r" (FOLLOW ?UP|CONTROL|KONTROLLE|VERLAUF|24 ?H|48 ?H|POST ?OP|DYNACT|XPERCT|CBCT) ",
    "sharp": r" (BONE|HUESO|OS|KNOCHEN|OSSO|LUNG|SHARP|EDGE|HIGH ?RES|HR) ",
    "soft": r" (SOFT|BRAIN|STANDARD|STND|SMOOTH|PARENCHYMA|PARENQUIMA|WEICHTEIL|BLANDO|CEREBRO) ",
}  # fmt: skip
WORDS = {name: re.compile(pattern) for name, pattern in _WORD.items()}
#: A plain scan in words, with the agent that it is said to lack.
WITHOUT = re.compile(
    _WORD["plain"].rstrip() + r"(?: (?:IV|INTRAVENOUS|CONTRAST|CONTRASTE|INJECTION|KM|MDC|CIV))* "
)
NO_AGENT = {
    "",
    "NO",
    "NONE",
    "N",
    "NON",
    "NO CONTRAST",
    "NO CONTRASTE",
    "NINGUNO",
    "WITHOUT",
    "KEIN",
}

#: Perfusion maps by their names; the first that fits counts.
MAP_NAMES = (
    ("relative", r" (RCBF|RCBV|RMTT|RELCBF|RELCBV|RELATIVE CBF|RELATIVE CBV) ", "a relative map"),
    ("tmax", r" (TMAX|T ?MAX|TMAXD|TIME TO MAXIMUM) ", ""),
    ("cbf", r" (CBF|CBFD|CEREBRAL BLOOD FLOW|BLOOD FLOW) ", ""),
    ("cbv", r" (CBV|CBVD|CEREBRAL BLOOD VOLUME|BLOOD VOLUME) ", ""),
    ("mtt", r" (MTT|MTTD|MEAN TRANSIT TIME) ", ""),
    ("other", r" (TTP|TTD|TTS|TTPM|TIME TO PEAK|TIME TO DRAIN|TIME TO START|DELAY MAP|PS|PERMEABILITY|"
     r"FLOW EXTRACTION|KTRANS|IRF|TIRF|PBV|SAT|R2) ", "another perfusion map than CBF, CBV, MTT or Tmax"),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What a stack is. ``name`` is one of `SCANS`, or ``aside``: not used, for the ``reason``.

    ``unsure`` says why a person must decide whether the stack is the scan that it seems to be;
    ``overridable``, that a person may take the stack for a CT although it was set aside.
    """

    name: str
    reason: str = ""
    unsure: str = ""
    overridable: bool = False


def words_of(text: str) -> str:
    """Text in capitals, without accents and marks, one blank around every word.

    >>> words_of("Cráneo_s/c 5.0 H31s")
    ' CRANEO S C 5 0 H31S '
    """
    decomposed = unicodedata.normalize("NFKD", text.upper())
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return f" {' '.join(re.findall(r'[A-Z0-9&]+', letters))} "


def _unaccented_marks(text: str) -> str:
    """Descriptions with the field's own shorthand for contrast written out."""
    text = re.sub(r"(?i)(?<![a-z0-9])w\s*/\s*o(?![a-z])", " WITHOUT ", text)
    text = re.sub(r"(?i)(?<![a-z0-9])(s|c)\s*/\s*(c|civ)(?![a-z])",
                  lambda m: " WITHOUT " if m[1] in "sS" else " CONTRAST ", text)  # fmt: skip
    text = re.sub(r"(?i)(?<![a-z0-9])c\s*-(?![a-z0-9])", " WITHOUT ", text)
    text = re.sub(r"(?i)(?<![a-z0-9])c\s*\+(?![a-z0-9])", " CONTRAST ", text)
    return re.sub(r"(?i)(?<![a-z0-9])\+\s*c(?![a-z0-9])", " CONTRAST ", text)


def kind_of(stack: Stack) -> Kind:
    """What a stack is, by its headers alone."""
    first = stack.first
    own = words_of(_unaccented_marks(f"{first.description} {first.protocol}"))
    series = words_of(_unaccented_marks(first.description))
    image_type = words_of(" ".join(first.image_type))
    return (
        _no_volume(stack)
        or _picture(stack, series, image_type)
        or _map(stack, series, image_type)
        or _dynamic(stack, series, own)
        or _processed(stack, series, image_type)
        or _elsewhere(stack, series, own)
        or _too_short(stack)
        or _with_doubt(_contrast(stack, series, own), stack, series)
    )


def _aside(reason: str) -> Kind:
    return Kind("aside", reason)


def _no_volume(stack: Stack) -> Kind | None:
    """Objects that hold no CT volume at all."""
    first = stack.first
    if first.fault and not first.sop_class:
        return _aside(first.fault)
    for begin, what in NO_IMAGES.items():
        if first.sop_class == begin or first.sop_class.startswith(f"{begin}."):
            return _aside(what)
    if first.sop_class == SECONDARY or first.sop_class.startswith(f"{SECONDARY}."):
        return _aside("a secondary capture: a picture of a screen, not a measurement")
    if first.modality not in ("CT", ""):
        known = {"MR": "MR", "PT": "PET", "XA": "angiography (XA)", "US": "ultrasound", "SR": "a report",
                 "CR": "a radiograph", "DX": "a radiograph", "OT": "another object", "NM": "SPECT"}  # fmt: skip
        return _aside(f"not a CT: {known.get(first.modality, 'another modality')}")
    if first.sop_class not in CT_IMAGES:
        return _aside("not a CT image object")
    return None


def _picture(stack: Stack, series: str, image_type: str) -> Kind | None:
    first = stack.first
    if first.samples != 1 or first.photometric.startswith(("RGB", "PALETTE", "YBR")):
        return _aside("a picture of colours, not a measurement; export the map's grey values")
    if "LOCALIZER" in image_type or WORDS["localizer"].search(series):
        return _aside("a localizer")
    if WORDS["dose"].search(series):
        return _aside("a dose report")
    return None


def _map(stack: Stack, series: str, image_type: str) -> Kind | None:
    """A perfusion map: named as one by its image type, else by its description."""
    for text in (image_type, series):
        for name, pattern, reason in MAP_NAMES:
            if not re.search(pattern, text):
                continue
            if name == "other" and text is series and not WORDS["perfusion"].search(series):
                continue  # letters that mean other things elsewhere
            if name == "relative":
                unit = f", in {stack.first.unit}" if stack.first.unit in KNOWN_UNITS else ""
                how = " with a real-world value mapping" if stack.first.mapped else ""
                shape = "multi-frame " if stack.first.frames > 1 else ""
                return _aside(f"a relative (regional) {shape}perfusion map{how}{unit}; allowed: "
                              "CBF in mL/100 g/min, CBV in mL/100 g")  # fmt: skip
            if name == "other":
                return _aside(reason)
            if WORDS["summary"].search(series) or WORDS["projection"].search(series):
                return _aside("a summary or a reformatted picture of a perfusion map")
            return _checked_map(stack, name)
    return None


#: Units that files state, and the factor to this package's (mL/100 g/min, mL/100 g, s). Brain
#: weighs 1.05 g/mL. Where nothing is stated, the vendors' usual unit is meant: 1.
UNITS: dict[str, dict[str, float]] = {
    "cbf": {"ml/100g/min": 1.0, "ml/100ml/min": 1 / 1.05, "ml/min/100g": 1.0, "ml/min/100ml": 1 / 1.05,
            "ml/100ml/s": 60 / 1.05, "ml/100g/s": 60.0},
    "cbv": {"ml/100g": 1.0, "ml/100ml": 1 / 1.05},
    "mtt": {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 0.001, "msec": 0.001},
    "tmax": {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 0.001, "msec": 0.001},
}  # fmt: skip
UNSTATED = ("", "us", "hu", "1")
KNOWN_UNITS = {unit for units in UNITS.values() for unit in units}


def unit_factor(scan: str, unit: str) -> float | None:
    """What a map's values are multiplied with; None where the unit is another one.

    >>> unit_factor("tmax", "ms"), unit_factor("cbf", ""), unit_factor("cbf", "furlongs")
    (0.001, 1.0, None)
    """
    said = re.sub(r"[\s().]", "", unit.lower())
    return 1.0 if said in UNSTATED else UNITS[scan].get(said)


def _checked_map(stack: Stack, name: str) -> Kind:
    if stack.times > 1:
        return _aside(f"{stack.times} images at each position: not one map")
    if _axial(stack) is False:
        return _aside("a reformatted map: its slices are not axial")
    if unit_factor(name, stack.first.unit) is None:
        return _aside("a map in a unit that is not known here")
    if stack.extent_mm < LEAST_MM["map"] - 1e-6:
        return _aside(f"a map of {stack.slices} slices over {stack.extent_mm:.0f} mm; at least "
                      f"{LEAST_MM['map']:.0f} mm")  # fmt: skip
    return Kind(name)


def _dynamic(stack: Stack, series: str, own: str) -> Kind | None:
    first = stack.first
    if WORDS["bolus"].search(series) or (stack.times >= 4 and stack.slices == 1):
        return _aside("bolus tracking: one place over time")
    if stack.times >= DYNAMIC or (first.temporal or 0) >= DYNAMIC:
        return _aside(
            f"a perfusion series over time ({stack.times} images at each of {stack.slices} positions): "
            "recognised, and left for a later release, which will make the maps from it"
        )
    if WORDS["perfusion"].search(series) or (stack.times > 1 and WORDS["perfusion"].search(own)):
        return _aside("named as perfusion, and none of the maps: a raw perfusion series or a part of one; "
                      "maps from it come in a later release")  # fmt: skip
    return None


def _processed(stack: Stack, series: str, image_type: str) -> Kind | None:
    for name, what in (
        ("projection", "a projection or reformatted picture (MIP, MPR, 3D)"),
        ("processed", "processed: subtraction, dual energy or bone removal"),
        ("late", "a later phase: venous or delayed"),
    ):
        if WORDS[name].search(series) or WORDS[name].search(image_type):
            return Kind("aside", what, overridable=True)
    if "PROJECTION IMAGE" in stack.first.image_type or "CSA" in image_type:
        return Kind("aside", "a projection or reformatted picture (MIP, MPR, 3D)", overridable=True)
    if _axial(stack) is False:
        return _aside("a reformatted picture: its slices are not axial")
    return None


def _axial(stack: Stack) -> bool | None:
    """Whether slices are axial but for the gantry's tilt; None if that is not said."""
    across = stack.normal
    return bool(abs(across[2]) >= OBLIQUE) if across.any() else None


def _elsewhere(stack: Stack, series: str, own: str) -> Kind | None:
    """Another part of the body than the head: by the series' words, else by the tag, else by the protocol.

    A tag is often that of the whole study: where the series names the head, a person decides.
    """
    if WORDS["head"].search(series):
        return None
    part = words_of(stack.first.body_part)
    for text in (series, part, own):
        if WORDS["elsewhere"].search(text):
            return Kind("aside", "another part of the body than the head", overridable=True)
        if WORDS["head"].search(text) or WORDS["neck"].search(text):
            return None
    return None


def _with_doubt(kind: Kind, stack: Stack, series: str) -> Kind:
    """The kind, with what in the series' words makes a person decide."""
    if kind.unsure or kind.name not in SCANS:
        return kind
    part = words_of(stack.first.body_part)
    head = WORDS["head"].search(series)
    doubt = ""
    if WORDS["neck_only"].search(series) and not head:
        doubt = "named as of the neck, and not as of the head"
    elif head and WORDS["elsewhere"].search(series):
        doubt = "the description names the head and another part of the body"
    elif WORDS["elsewhere"].search(part) and not (
        WORDS["head"].search(part) or WORDS["neck"].search(part)
    ):
        doubt = "named as of the head, but the tag of the body part says another"
    elif WORDS["follow_up"].search(series):
        doubt = "named as of a follow-up"
    return replace(kind, unsure=doubt) if doubt else kind


def _too_short(stack: Stack) -> Kind | None:
    if stack.fault:
        return None  # refused for that, and told so
    if stack.slices < LEAST_SLICES or stack.extent_mm < LEAST_MM["cta"]:
        return _aside(f"{stack.slices} slices over {stack.extent_mm:.0f} mm: not a whole head (at least "
                      f"{LEAST_SLICES} slices and {LEAST_MM['cta']:.0f} mm)")  # fmt: skip
    if stack.extent_mm > MOST_MM:
        return _aside(
            f"{stack.extent_mm:.0f} mm long: a scan of the body (at most {MOST_MM:.0f} mm)"
        )
    return None


def _contrast(stack: Stack, series: str, own: str) -> Kind:
    """NCCT or CTA, by the contrast tag and the words; unsure where they disagree."""
    agent = words_of(stack.first.contrast).strip() not in NO_AGENT
    study = words_of(_unaccented_marks(stack.first.study_description))
    plain = WORDS["plain"].search(series)
    angiography = WORDS["angiography"].search(series)
    if not plain and not angiography:  # the protocol is often that of the whole study
        plain, angiography = (WORDS[name].search(own) for name in ("plain", "angiography"))
    if plain and angiography:
        plain = WORDS["plain"].search(series) if not WORDS["angiography"].search(series) else None
        if plain is None:
            return Kind("cta" if agent else "ncct",
                        unsure="the description names both angiography and a plain scan")  # fmt: skip
        angiography = None
    # "without contrast" names no agent, but "with and without" does
    enhanced = WORDS["contrast"].search(re.sub(WITHOUT, " ", series))
    if angiography:
        if agent or stack.first.contrast == "":
            return Kind("cta")
        return Kind("cta", unsure="named as angiography, but the contrast tag says no agent")
    if agent:
        what = "named as plain" if plain else "not named as angiography"
        return Kind(
            "ncct" if plain else "cta", unsure=f"a contrast agent is stated, but it is {what}"
        )
    if enhanced:
        if plain:
            return Kind("ncct", unsure="named as with contrast and as plain")
        return Kind(
            "cta", unsure="named as with contrast, but no agent is stated, and not angiography"
        )
    if stack.extent_mm < LEAST_MM["ncct"] and not stack.fault:
        return _aside(f"{stack.extent_mm:.0f} mm of a plain CT: not a whole head (at least "
                      f"{LEAST_MM['ncct']:.0f} mm)")  # fmt: skip
    if (
        plain
        or WORDS["head"].search(words_of(stack.first.body_part))
        or WORDS["head"].search(own + study)
    ):
        return Kind("ncct")
    return Kind("ncct", unsure="nothing says whether it is a head, or whether contrast was given")


def soft(stack: Stack, scan: str) -> str:
    """``soft``, ``sharp`` or ``unknown``: the kernel's, or where it is not said, the description's."""
    found = sharpness(stack.first.kernel, scan)
    series = words_of(stack.first.description)
    if found == "unknown":
        if WORDS["sharp"].search(series):
            return "sharp"
        if not stack.first.kernel and WORDS["soft"].search(series):
            return "soft"
    return found
