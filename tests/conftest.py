"""Fixtures that several test files share: a hand-made table, and one small simulated cohort."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from rlvo_lib import dictionary, storage
from rlvo_lib.config import load_settings, load_study


@pytest.fixture(scope="session")
def study():
    return load_study("rlvo")


@pytest.fixture(scope="session")
def words(study):
    return dictionary.load(study.dictionary_path)


@pytest.fixture
def raw(study, words):
    """Eight patients as text, as participants.tsv holds them; half have the outcome."""
    n = 8
    text = {}
    for field in words.fields.values():
        if field.timing == "DERIVED" or (field.timing == "ID" and field.type != "datetime"):
            continue
        if field.is_categorical:
            text[field.name] = [list(field.choices)[i % len(field.choices)] for i in range(n)]
        elif field.is_quantity:
            low, high = field.low or 0, field.high or 100
            text[field.name] = [str(int(low + i % (high - low + 1))) for i in range(n)]
        elif field.type == "datetime":
            text[field.name] = [f"2020-01-0{1 + i} 10:00" for i in range(n)]
        else:
            text[field.name] = ["A"] * n
    text["age"] = [str(60 + i) for i in range(n)]
    text["admit_year"] = ["2020"] * n
    text["occl_site_cta"] = ["3"] * n
    text["etici_final"] = ["0", "3", "2c", "2b50", "2a", "3", "3", "3"]
    text["final_stenosis_pct"] = ["-98", "60", "20", "0", "10", "50", "0", "10"]
    text["rescue_type"] = ["0", "0", "2", "0", "0", "0", "0", "0"]
    text["tmax10_ml"], text["tmax6_ml"], text["tmax4_ml"] = ["10"] * n, ["50"] * n, ["90"] * n
    text["core_ml"] = ["10"] * n
    text["ivt_pre"], text["access_failure"], text["n_passes"] = ["0"] * n, ["0"] * n, ["1"] * n
    text["hir"], text["mismatch_ratio"] = ["0.2"] * n, ["5"] * n
    text["puncture_datetime"] = [f"2020-01-0{1 + i} 11:00" for i in range(n)]
    index = pd.Index([f"sub-{i:02d}" for i in range(n)], name="participant_id")
    return pd.DataFrame(text, index=index)


@pytest.fixture
def write_dataset(tmp_path):
    """A function that writes a text table as a table-only dataset folder."""

    def write(raw, root=None, *, simulated=True):
        root = root or tmp_path / "dataset"
        root.mkdir(parents=True, exist_ok=True)
        raw.reset_index().to_csv(root / "participants.tsv", sep="\t", index=False)
        description = {"Name": "made by a test", "BIDSVersion": "1.10.0", "simulated": simulated}
        storage.write_json(root / "dataset_description.json", description)
        return root

    return write


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """One folder for all test processes of this session, so that slow things are made once."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def settings(shared_folder):
    """The smoke profile on fewer patients, with cache and run folder of this test session."""
    return load_settings(
        "smoke", patients=40, cache=shared_folder / "cache", out=shared_folder / "run", workers=1
    )


@pytest.fixture(scope="session")
def analysis(settings):
    """The small simulated cohort, opened."""
    from rlvo_lib.analysis import open_analysis

    with storage.lock(settings.cache / "fixture"):
        return open_analysis(settings)


@pytest.fixture(scope="session")
def tensors(analysis):
    """Its model tensors."""
    return analysis.tensors()


@pytest.fixture
def other_run(settings, tmp_path):
    """The same settings with a cache and run folder of the test's own."""
    return dataclasses.replace(settings, cache=tmp_path / "cache", out=tmp_path / "run")
