import errno
import multiprocessing
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvo_lib import storage
from rlvo_lib.config import InputError


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), storage.atomic(tmp_path / "a.csv") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    storage.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), storage.atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise KeyError
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_full_disk_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"the disk is full; free some space"):  # noqa: SIM117
        with storage.atomic(tmp_path / "a.csv"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "reports").write_text("")
    with pytest.raises(InputError, match="a file is in the way of a folder"):
        storage.write_text(tmp_path / "reports" / "a.txt", "")


def test_doubles_read_back_exactly(tmp_path):
    values = np.random.default_rng(0).random(2000)
    storage.write_csv(tmp_path / "p.csv", pd.DataFrame({"probability": values}))
    assert (storage.read_csv(tmp_path / "p.csv")["probability"].to_numpy() == values).all()


def test_identifiers_stay_text(tmp_path):
    storage.write_csv(tmp_path / "p.csv", pd.DataFrame({"participant_id": ["007"], "n": [1]}))
    assert storage.read_csv(tmp_path / "p.csv")["participant_id"][0] == "007"


def test_json_is_strict(tmp_path):
    storage.write_json(tmp_path / "a.json", {"b": [float("nan"), 1.5, (float("inf"),)], "c": None})
    assert storage.read_json(tmp_path / "a.json") == {"b": [None, 1.5, [None]], "c": None}


def test_missing_and_empty_tables_are_named(tmp_path):
    with pytest.raises(InputError, match=r"p\.csv: no such file"):
        storage.read_csv(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("")
    with pytest.raises(InputError, match=r"p\.csv: not a readable CSV table"):
        storage.read_csv(tmp_path / "p.csv")


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=4))
def test_keys_do_not_depend_on_the_order_of_entries(content):
    backwards = dict(reversed(content.items()))
    assert storage.key(content) == storage.key(backwards)


def test_code_key_differs_between_modules_and_covers_packages():
    assert storage.code_key("cohort") != storage.code_key("config")
    assert storage.code_key("simulate") == storage.code_key("simulate")


def _hold(folder, started):
    with storage.lock(folder / "work"):
        started.set()
        time.sleep(0.5)


def test_the_second_process_waits_for_the_first(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, started))
    process.start()
    assert started.wait(30)
    begun = time.monotonic()
    with storage.lock(tmp_path / "work"):
        waited = time.monotonic() - begun
    process.join()
    assert waited > 0.2
