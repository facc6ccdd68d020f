"""The benchmark of explanations: its networks, tables and command line, on a few simulated patients."""

import dataclasses
import importlib

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import experiment, explain, metrics, results, storage, workers
from rlvo_lib.config import InputError, project_root

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(project_root() / "benchmarks"))
    benchmark = importlib.import_module("explain_checks")


@pytest.fixture(scope="module")
def small(settings):
    return dataclasses.replace(settings, explained_patients=8, mapped_patients=8)


@pytest.fixture(scope="module")
def trained(analysis, tensors, small):
    """Networks of the shared cohort in the place of the three scenarios: own outcomes, and dealt out anew."""
    own = dataclasses.replace(analysis, settings=small)
    experiment.run_arms(own, tensors, ["daft"])
    both = (
        benchmark.train(own, tensors, "daft", 0),
        benchmark.train(own, tensors, "daft", 0, "dealt anew"),
    )
    return tuple(dataclasses.replace(one, tasks=one.tasks[:2]) for one in both)


def test_networks_are_trained_once_for_their_outcomes(trained, analysis, tensors, small):
    first, dealt = trained
    assert {t.folder for t in first.tasks}.isdisjoint({t.folder for t in dealt.tasks})
    assert isinstance(dealt.analysis, explain.PermutedLabels)
    again = benchmark.train(dataclasses.replace(analysis, settings=small), tensors, "daft", 0)
    assert [t.folder for t in again.tasks[:2]] == [t.folder for t in first.tasks]


def test_the_table_of_networks_has_the_auc_of_each_fold_and_of_their_mean(trained):
    first, dealt = trained
    table = benchmark.network_table([first, dealt])
    assert list(table) == benchmark.NETWORK_COLUMNS and len(table) == 2 * (len(first.tasks) + 1)
    test = storage.read_csv(first.tasks[1].result).query("partition == 'test'")
    row = table[(table["outcomes"] == "own") & (table["fold"] == 2)].iloc[0]
    assert row["auc"] == pytest.approx(metrics.auc(test["y_true"], test["probability"]))
    frames = [storage.read_csv(t.result).query("partition == 'test'") for t in first.tasks]
    mean = pd.concat(frames).groupby("participant_id")[["y_true", "probability"]].mean()
    row = table[(table["outcomes"] == "own") & table["fold"].isna()].iloc[0]
    assert row["auc"] == pytest.approx(metrics.auc(mean["y_true"], mean["probability"]))
    assert row["n"] == len(mean) and row["events"] == mean["y_true"].sum()


def test_every_check_is_made_and_the_tables_are_written(trained, small, tmp_path, monkeypatch):
    first, dealt = trained
    kinds = {("signal", "own"): first, ("signal", "dealt anew"): dealt, ("null", "own"): first}
    monkeypatch.setattr(benchmark, "METHODS", ("gradcam", "edges", "random"))
    monkeypatch.setattr(workers, "run", lambda make, calls, **_: [make(*c) for c in calls])
    monkeypatch.setattr(benchmark, "cohort", lambda scenario, _: (scenario, None))
    monkeypatch.setattr(
        benchmark, "train",
        lambda scenario, _, arm, seed, outcomes="own": kinds[scenario, outcomes],
    )  # fmt: skip
    table = benchmark.run(small, "daft", [0, 1], tmp_path)
    verdicts = table.set_index(["method", "check"])["verdict"]
    assert set(verdicts["gradcam"].index) == set(results.CHECKS)
    lacking = verdicts["edges"][verdicts["edges"] == "not made"]
    assert list(lacking.index) in ([], ["stability_shifts"]), "made in half of the patients"
    assert verdicts["gradcam", "stability_seeds"] == "pass", "the same networks twice"
    assert verdicts["edges", "label_randomisation"] == verdicts["random", "learnt"] == "fail"
    written = storage.read_csv(tmp_path / "checks.csv")
    np.testing.assert_allclose(written["value"], table["value"], atol=1e-4)
    assert set(written["data"]) == {"simulated"}
    regions = storage.read_csv(tmp_path / "regions.csv")
    assert set(regions["outcomes"]) == {"own", "dealt anew"} and "lesion" in set(regions["region"])
    assert storage.read_json(tmp_path / "about.json")["training_seeds"] == [0, 1]
    assert (tmp_path / "networks.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--arm", "clinical_mlp"], "--arm is 'clinical_mlp'; allowed: ncct, cta"),
     (["--seeds", "0,x"], "--seeds is '0,x'"), (["--seeds", "1,1"], "--seeds is '1,1'")],
)  # fmt: skip
def test_arms_without_images_and_seeds_that_are_none_are_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        benchmark.parse(["out", *arguments])
    assert benchmark.parse(["out", "--seeds", "3,4"]).seeds == [3, 4]
