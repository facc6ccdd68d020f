"""The embedded cohort: simulated patients whose truth is known, in the format real data have.

scenarios says what is simulated; patients draws latents, the clinical table and the raw outcomes;
recording is what the hospital wrote down; rendering turns one patient's latents into scans; ceiling
is how well anything could predict; dataset writes the folder.
"""

from rlvo_lib.simulate.dataset import SCENARIOS, coarse_warning, write_dataset

__all__ = ["SCENARIOS", "coarse_warning", "write_dataset"]
