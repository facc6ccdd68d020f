"""Pages about single patients: the report of one patient, and the wrong predictions of a run.

`case` is a patient of a finished run, `drivers` what moves the fold models in them, `explaining` the parts
of a page that explain, `parts` what a page is made of; `patient_page` and `wrong_predictions` are the pages,
`writing` opens a run and writes one.
"""

from rlvo_lib.casebook.case import Cases, choose_arm
from rlvo_lib.casebook.parts import Part, Picture, render_page
from rlvo_lib.casebook.patient_page import render_patient
from rlvo_lib.casebook.writing import open_cases, write_case
from rlvo_lib.casebook.wrong_predictions import (
    WRONG_PAGE,
    write_wrong_predictions,
    wrong_cases,
)

__all__ = [
    "WRONG_PAGE", "Cases", "Part", "Picture", "choose_arm", "open_cases", "render_page", "render_patient",
    "write_case", "write_wrong_predictions", "wrong_cases",
]  # fmt: skip
