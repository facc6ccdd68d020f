import os

import pytest

from rlvo_lib import workers


def _square(number, path=None):
    if path:
        path.touch()
    return number * number, os.getpid(), os.environ["OMP_NUM_THREADS"]


def _fail(number):
    raise ValueError(f"task {number}")


def test_results_keep_the_order_of_the_tasks():
    done = workers.run(_square, [(n,) for n in range(5)], workers=2, label="squares")
    assert [value for value, _, _ in done] == [0, 1, 4, 9, 16]
    assert os.getpid() not in {pid for _, pid, _ in done}
    assert {threads for _, _, threads in done} == {"1"}


def test_few_tasks_stay_in_this_process(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = workers.run(_square, [(3,)], workers=2, label="squares", spawn_from=2)
    assert done[0][:2] == (9, os.getpid())


def test_an_error_ends_the_run_and_the_environment_is_restored(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with pytest.raises(ValueError, match="task"):
        workers.run(_fail, [(1,), (2,)], workers=2, label="failing")
    assert "OMP_NUM_THREADS" not in os.environ


def test_kept_processes_serve_several_runs_and_end():
    with workers.kept(2):
        first = workers.run(_square, [(n,) for n in range(4)], workers=2, label="first")
        with pytest.raises(ValueError, match="task"):
            workers.run(_fail, [(1,), (2,)], workers=2, label="failing")
        second = workers.run(_square, [(n,) for n in range(4)], workers=1, label="second")
    assert [value for value, _, _ in second] == [0, 1, 4, 9]
    pids = {pid for _, pid, _ in [*first, *second]}
    assert len(pids) <= 2 and os.getpid() not in pids
    assert {threads for _, _, threads in second} == {"1"}
    after = workers.run(_square, [(1,)], workers=1, label="after")
    assert after[0][1] not in pids
