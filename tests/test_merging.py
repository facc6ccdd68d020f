"""Shards of a run: cut, run in caches of their own, and merged."""

import dataclasses

import pytest

from rlvo_lib import experiment, storage, workers
from rlvo_lib.config import InputError
from rlvo_lib.experiment import merging, running

ARMS = ["clinical_logistic", "clinical_mlp"]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Tasks run here: a fresh process would import torch again."""
    monkeypatch.setattr(workers, "run", lambda f, tasks, **_: [f(*task) for task in tasks])


@pytest.fixture(scope="module")
def whole(analysis, tmp_path_factory):
    """The small simulated cohort with a cache of its own."""
    settings = dataclasses.replace(
        analysis.settings, cache=tmp_path_factory.mktemp("whole"), epochs_max=1
    )
    return dataclasses.replace(analysis, settings=settings)


def elsewhere(analysis, cache):
    return dataclasses.replace(
        analysis, settings=dataclasses.replace(analysis.settings, cache=cache)
    )


def run_shard(analysis, cache, shard, arms=ARMS):
    own = elsewhere(analysis, cache)
    return experiment.run_tasks(own, None, running.plan_arms(own, None, arms), shard)


@pytest.fixture
def finished(tmp_path):
    """Writes a task's folder by hand, finished or not."""

    def write(cache, name="daft-1-abc", result="predictions.csv", text="a,b\n1,2\n"):
        folder = tmp_path / cache / "tasks" / name
        storage.write_text(folder / "model.safetensors", "weights")
        if result:
            storage.write_text(folder / result, text)
        return folder

    return write


def test_two_shards_in_two_caches_merge_into_the_bytes_of_one_run(whole, tmp_path):
    together = experiment.run_arms(whole, None, ARMS)
    caches = [tmp_path / "one", tmp_path / "two"]
    assert [run_shard(whole, cache, (k, 2)) for k, cache in enumerate(caches, 1)] == [4, 4]
    target = elsewhere(whole, tmp_path / "merged")
    tasks = running.plan_arms(target, None, ARMS)
    assert len(running.unfinished(tasks)) == 8
    assert merging.merge(caches, target.settings.cache) == merging.Merged(8, 0, 0)
    assert not running.unfinished(tasks) and experiment.run_tasks(target, None, tasks) == 0
    assert storage.csv_text(experiment.run_arms(target, None, ARMS)) == storage.csv_text(together)
    assert merging.merge(caches, target.settings.cache) == merging.Merged(0, 8, 0)
    assert len(experiment.histories(tasks)) > 0  # not the results alone


def test_shards_share_all_the_work_and_nothing_twice(whole):
    tasks = running.plan_arms(whole, None, ARMS)
    work = [(whole, None, task) for task in tasks]
    for n in (1, 2, 3, 11):
        parts = [running.in_shard(work, (i, n)) for i in range(1, n + 1)]
        assert sorted(t.title for part in parts for *_, t in part) == sorted(t.title for t in tasks)


def test_tasks_of_the_same_readers_stay_in_one_shard(whole, tmp_path):
    arms = whole.settings.study.arms
    reader = next(iter(whole.settings.study.readers.values()))
    tasks = []
    for fold in (1, 2, 3):
        read = experiment.Task(reader, fold, 0, tmp_path / f"read-{fold}")
        tasks += [
            experiment.Task(arms[name], fold, 0, tmp_path / f"{name}-{fold}", (read,))
            for name in ("concepts", "concepts_imaging")
        ]
    parts = [running.in_shard([(whole, None, t) for t in tasks], (i, 2)) for i in (1, 2)]
    assert [{t.fold for *_, t in part} for part in parts] == [{1, 3}, {2}]
    assert [len(part) for part in parts] == [4, 2]


def test_unfinished_tasks_are_left_out_and_counted(finished, tmp_path):
    finished("a", "daft-1-abc")
    finished("a", "daft-2-abc", result="")
    finished("a", "read-siphon-1-abc", result="reads.csv")
    finished("a", "read-siphon-2-abc", result="predictions.csv")  # not what ends a reader
    finished("b", "daft-2-abc", result="")
    assert merging.merge([tmp_path / "a", tmp_path / "b" / "tasks"], tmp_path / "c") == (
        merging.Merged(2, 0, 2)
    )
    there = sorted(p.name for p in (tmp_path / "c" / "tasks").iterdir() if p.is_dir())
    assert there == ["daft-1-abc", "read-siphon-1-abc"]


def test_a_finished_task_takes_the_place_of_an_unfinished_one(finished, tmp_path):
    here = finished("c", result="")
    finished("a")
    (tmp_path / "a" / "tasks" / "daft-1-abc" / ".predictions-x.csv").write_text("half")
    assert merging.merge([tmp_path / "a"], tmp_path / "c").copied == 1
    assert sorted(p.name for p in here.iterdir()) == ["model.safetensors", "predictions.csv"]


def test_other_bytes_under_the_same_key_are_named_and_nothing_is_copied(finished, tmp_path):
    mine = finished("c")
    before = (mine / "predictions.csv").read_bytes()
    finished("a", text="a,b\n1,3\n")
    finished("a", "ncct-1-abc")
    with pytest.raises(InputError, match=r"daft-1-abc \(predictions.csv\) in .*Nothing was copied"):
        merging.merge([tmp_path / "a"], tmp_path / "c")
    assert (mine / "predictions.csv").read_bytes() == before
    assert not (tmp_path / "c" / "tasks" / "ncct-1-abc").exists()
    finished("b")
    with pytest.raises(InputError, match="daft-1-abc"):  # two sources that differ
        merging.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "d")


def test_what_is_no_cache_and_the_cache_itself_are_refused(finished, tmp_path):
    finished("a")
    with pytest.raises(InputError, match="holds no folder 'tasks'"):
        merging.merge([tmp_path / "absent"], tmp_path / "a")
    with pytest.raises(InputError, match="is the cache to merge into"):
        merging.merge([tmp_path / "a"], tmp_path / "a")
