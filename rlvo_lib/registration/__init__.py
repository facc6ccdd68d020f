"""Heads on a template, scans on each other, and the masks and matrices that go with it.

template is the package's own symmetric head, or a user's; alignment lays a patient's head on it;
within lays a CTA on the NCCT and says whether both are of one head; masks has head and intracranial
space; outline a hint that the head moved. solver does the work, itk is SimpleITK's second opinion.

All transforms are 4x4 matrices between world mm (RAS+), template mm (a head frame: right, anterior,
superior; origin in the mid-plane, at the middle of the head's length, at the vertex) and voxels.
"""

from rlvo_lib.registration.alignment import KINDS, Alignment, align
from rlvo_lib.registration.masks import brain_mask_ct, head_mask
from rlvo_lib.registration.outline import MOTION_MM, motion
from rlvo_lib.registration.template import Template, load_template
from rlvo_lib.registration.within import MIN_MAP_INSIDE, Within, map_inside, within_patient

__all__ = [
    "KINDS",
    "MIN_MAP_INSIDE",
    "MOTION_MM",
    "Alignment",
    "Template",
    "Within",
    "align",
    "brain_mask_ct",
    "head_mask",
    "load_template",
    "map_inside",
    "motion",
    "within_patient",
]
