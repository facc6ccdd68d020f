"""The data dictionary: one file in REDCap's format that says what every column may hold.

Types, choices and ranges stand in REDCap's own columns; what REDCap has no column for stands in its
Field Annotation: ``@TIMING=PRE @UNIT='mmHg' @MISSING=-99,-97``.

=====================  =======================================================================
``@TIMING=``           when the value becomes known (below); every row has one
``@UNIT='mg/dL'``      unit of a quantity
``@MISSING=-99,-97``   codes allowed for a missing value: `MISSING_REASONS`
``@RANGE=0,1``         range of a calculated value, for which REDCap has no columns; an end may be empty
``@OTHER_UNITS=``      ``'mmol/L:18.0156'``: units that hospitals use besides, and the factor that
                       turns a value in them into the column's own unit
``@SPELLING=TICI``     codes that are written in many ways ("IIb", "TICI 2b") and read on import
``@IMPUTE=never``      a missing value is never filled in, as for a ratio that does not apply
=====================  =======================================================================

Timing is one of

========================  ====================================================================
``PRE``                   known before the intervention: may be a predictor
``PRE_SENSITIVITY``       known before, but not the patient's biology (year, centre, vendor): a
                          predictor only with the setting ``allow_sensitivity_predictors``
``INTRA``, ``POST``       known during or after the intervention: never a predictor
``ID``                    identifies a patient or a scan: never a predictor
``DERIVED``               computed from other columns: a predictor only if all of them may be
========================  ====================================================================

A ``leakage_register.csv`` beside the dictionary names what is never a predictor whatever a dictionary
says of it. `reading` reads both files into `fields`; `redcap` holds REDCap's own rules, `page` the page
for people.
"""

from rlvo_lib.dictionary.fields import MISSING_REASONS, TIMINGS, Dictionary, Field
from rlvo_lib.dictionary.leakage import REGISTER, Registered
from rlvo_lib.dictionary.page import main, render
from rlvo_lib.dictionary.reading import load
from rlvo_lib.dictionary.redcap import REDCAP_COLUMNS, redcap_faults

__all__ = [
    "MISSING_REASONS",
    "REDCAP_COLUMNS",
    "REGISTER",
    "TIMINGS",
    "Dictionary",
    "Field",
    "Registered",
    "load",
    "main",
    "redcap_faults",
    "render",
]
