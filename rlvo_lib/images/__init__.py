"""Scans in and out: NIfTI files, geometry and HU checks, resampling, windowing.

Conventions
-----------
* World coordinates are millimetres, RAS+: +x towards the patient's right, +y anterior, +z
  superior. nibabel's affine is the only truth; voxel data stay in the order they are stored.
* CT is in HU; perfusion maps are in mL/100 g/min (CBF), mL/100 g (CBV), s (MTT, Tmax).
* Every fault a user can cause is an ``InputError`` of one line that names the file.
"""

from rlvo_lib.images.checks import header_findings, load_scan, scan_findings, voxel_findings
from rlvo_lib.images.field import CUT
from rlvo_lib.images.findings import Finding
from rlvo_lib.images.geometry import canonical, is_sheared, shear_degrees, voxel_sizes
from rlvo_lib.images.header import MAX_VOXELS, Header, check_header, read_header
from rlvo_lib.images.hounsfield import AIR_HU, check_hu, load_ct, window
from rlvo_lib.images.nifti import load_nifti, save_nifti
from rlvo_lib.images.resampling import field_of_view, resample

__all__ = [
    "AIR_HU",
    "CUT",
    "Finding",
    "Header",
    "MAX_VOXELS",
    "canonical",
    "check_header",
    "check_hu",
    "field_of_view",
    "header_findings",
    "is_sheared",
    "load_ct",
    "load_nifti",
    "load_scan",
    "read_header",
    "resample",
    "save_nifti",
    "scan_findings",
    "shear_degrees",
    "voxel_findings",
    "voxel_sizes",
    "window",
]
