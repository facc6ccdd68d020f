"""Arms × folds × seeds as independent tasks, each with one result folder; together ``predictions.csv``.

A task fits one arm, or one reader of images, on one fold's training part and scores the patients held out
of the fold (``out-of-fold``) and the test set. It runs in a process of one thread, so its bytes do not
depend on how many run beside it, and is kept under the content of all that went in: a run that was
interrupted, or is repeated, continues with what is finished. `arms` who can take part, `tasks` what is
to be done, `cases` the arrays, `fitting` how one is done, `combining` arms made of others, `running` all of it.
"""

from rlvo_lib.experiment.arms import arm_patients, explained_arm, ladder
from rlvo_lib.experiment.cases import arm_cases, fold_cases, fold_encoder
from rlvo_lib.experiment.combining import average_arms, recalibrated, stack_arms
from rlvo_lib.experiment.fitting import (
    build_network,
    fit_concepts,
    load_network,
    offset_model,
    run_task,
)
from rlvo_lib.experiment.running import (
    PREDICTION_COLUMNS,
    histories,
    reading,
    run_arms,
    run_tasks,
    single_source,
)
from rlvo_lib.experiment.tasks import Task, fold_patients, plan, reader_tasks

__all__ = [
    "PREDICTION_COLUMNS", "Task", "arm_cases", "arm_patients", "average_arms", "build_network", "explained_arm",
    "fit_concepts", "fold_cases", "fold_encoder", "fold_patients", "histories", "ladder", "load_network",
    "offset_model", "plan", "reader_tasks", "reading", "recalibrated", "run_arms", "run_task", "run_tasks",
    "single_source", "stack_arms",
]  # fmt: skip
