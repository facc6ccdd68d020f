"""DICOM in: from what a hospital's PACS exports to scans of a dataset folder.

`convert_folder` finds the files (`sources`), reads their headers (`headers`), sorts them into stacks of
slices (`series`), says what each is (`kinds`, `kernels`), chooses one for each scan (`choice`), converts
it (`conversion`), and lets out no text of a header (`deidentify`, `report`).
"""

from rlvo_lib.dicom.choice import PREFERRED, Preference
from rlvo_lib.dicom.folder import convert_folder
from rlvo_lib.dicom.report import Summary, Work, show, stack_table

__all__ = ["PREFERRED", "Preference", "Summary", "Work", "convert_folder", "show", "stack_table"]
