"""External validation: a frozen run applied to another dataset folder, nothing fitted on it.

`frozen` opens the run and checks that data, models and files are still those it was made with; `arrivals`
reads the other dataset and says which arms can score whom; `scoring` scores its patients beside the
run's own, whose probabilities must come out as they were reported: the proof that nothing was refitted;
`writing` leaves a run folder of the usual format, which `rlvo verify` checks.
"""

from rlvo_lib.external.applying import apply_run
from rlvo_lib.external.arrivals import Arrivals, open_arrivals
from rlvo_lib.external.frozen import FrozenRun, open_frozen
from rlvo_lib.external.scoring import TOLERANCE, proof, score
from rlvo_lib.external.summary import keep_summary

__all__ = [
    "TOLERANCE", "Arrivals", "FrozenRun", "apply_run", "keep_summary", "open_arrivals", "open_frozen",
    "proof", "score",
]  # fmt: skip
