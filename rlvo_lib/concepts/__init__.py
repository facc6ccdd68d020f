"""Reading the images first, then fusing: a bottleneck of concepts that a clinician can name and correct.

Readers (`reader`) are networks that learn columns which a person read off the scans of training patients;
their outputs (`reads`) stand in the place of such readings where a model is used, and nobody is asked for
them then. A penalised logistic regression, or DAFT, fuses them with the clinical data (`bottleneck`).
"""

from rlvo_lib.concepts.bottleneck import Bottleneck, ConceptDaft
from rlvo_lib.concepts.quality import reading_quality
from rlvo_lib.concepts.reader import ReaderNet, predict_reads, read_settings
from rlvo_lib.concepts.reads import ReadCodes

__all__ = [
    "Bottleneck", "ConceptDaft", "ReadCodes", "ReaderNet", "predict_reads", "read_settings",
    "reading_quality",
]  # fmt: skip
