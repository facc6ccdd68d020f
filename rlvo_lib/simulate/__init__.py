"""The embedded cohort: simulated patients whose truth is known, in the format real data have.

patients draws latents, the clinical table and the raw outcomes; recording is what the hospital wrote
down; anatomy, arteries and physics turn one patient's latents into scans; dataset writes the folder.
"""

from rlvo_lib.simulate.dataset import SCENARIOS, write_dataset

__all__ = ["SCENARIOS", "write_dataset"]
