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


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        (" =1+1", "' =1+1"),
        ("\t=1", "'\t=1"),
        ("a\r=1", "a\n=1"),
        ("＝1", "'＝1"),
        ("-99", "-99"),
        ("-0.5", "-0.5"),
        ("-1.5e-05", "-1.5e-05"),
        ("-3.0 [-5.0,2.0]", "-3.0 [-5.0,2.0]"),
        ("sub-01", "sub-01"),
        ("'=x", "'=x"),
    ],
)
def test_a_written_cell_is_never_a_formula(tmp_path, text, written):
    storage.write_csv(tmp_path / "t.csv", pd.DataFrame({"a": [text], text: ["b"], "n": [-0.5]}))
    read = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    assert read["a"][0] == written and list(read) == ["a", written, "n"]
    assert read["n"][0] == "-0.5"


CELLS = st.text(st.sampled_from("=+-@\t\r\n' \"1.,ax"), max_size=6)


@given(st.lists(st.one_of(CELLS, st.none()), min_size=1, max_size=5))
def test_what_is_written_is_the_same_when_read_and_written_again(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    storage.write_csv(path, pd.DataFrame({"a": pd.Series(cells, dtype=object), "b": "x"}))
    first = path.read_bytes()
    read = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert len(read) == len(cells)
    assert not [cell for cell in read["a"] if storage.is_formula(cell)]
    storage.write_csv(path, read)
    assert path.read_bytes() == first


def test_the_table_given_is_not_changed_and_numbers_stay_as_they_are(tmp_path):
    mixed = pd.Series([1, None, "=x"], dtype=object)
    frame = pd.DataFrame({"a": mixed, "b": pd.Categorical(["-x", "y", "-x"])})
    assert storage.csv_text(frame) == "a,b\n1,'-x\n,y\n'=x,'-x\n"
    assert frame["a"].tolist() == [1, None, "=x"]
    storage.write_csv(tmp_path / "t.csv", frame)
    assert (tmp_path / "t.csv").read_text() == storage.csv_text(frame)


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
