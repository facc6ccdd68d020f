"""CT perfusion: maps as a scanner's software makes them, and the field's parameters from them.

`maps` judges whether an array is the map that it is said to be, and normalises it; `regions` lays
the thresholds over the maps and leaves out what is no stroke; `parameters` are the volumes and
ratios, each with its threshold in its name. Units throughout: CBF mL/100 g/min, CBV mL/100 g, MTT and
Tmax s, volumes mL; arrays (X, Y, Z), world mm (RAS+). What is measured serves quality control and
tables; the affected side may be given, and no number is a model's input unless a study says so.
"""

from rlvo_lib.perfusion.maps import (
    brain_mask,
    check_map,
    check_same_grid,
    picture_signs,
    relative,
    smoothed,
)
from rlvo_lib.perfusion.parameters import NAMES, Parameters, measure, parameters_of
from rlvo_lib.perfusion.regions import Regions, regions, right_of

__all__ = [
    "NAMES",
    "Parameters",
    "Regions",
    "brain_mask",
    "check_map",
    "check_same_grid",
    "measure",
    "parameters_of",
    "picture_signs",
    "regions",
    "relative",
    "right_of",
    "smoothed",
]
