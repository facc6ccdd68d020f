import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvo_lib import dataset, dictionary, twins
from rlvo_lib.config import load_study
from rlvo_lib.simulate import patients

COLUMNS, QUANTITIES = 30, 12  # of the made tables
EVIDENCE = np.arange(COLUMNS) < QUANTITIES


def _table(n, seed=0):
    """Codes of ``n`` different patients: quantities of 200 values, then yes and no."""
    rng = np.random.default_rng(seed)
    quantities = rng.integers(0, 200, (n, QUANTITIES))
    return np.hstack([quantities, rng.integers(0, 2, (n, COLUMNS - QUANTITIES))]).astype(np.int32)


def _joined(codes, evidence=EVIDENCE):
    """Whether the last row is in the group of the first: by the same content, and by alike content."""
    same, alike = twins.find(codes, evidence)
    others = len(np.unique(alike[:-1])) == len(codes) - 1
    assert others, "different rows are one group"
    return bool(same[0] == same[-1]), bool(alike[0] == alike[-1])


def _simulated(n, seed=0):
    """Codes of ``n`` simulated patients as a dataset has them."""
    words = dictionary.load(load_study("rlvo").dictionary_path)
    _, table = patients.draw(n, np.random.default_rng(seed))
    text = table.astype(object).map(lambda v: f"{v:g}" if isinstance(v, float) else str(v))
    return dataset.content_codes(text, words), words


@settings(max_examples=40, deadline=None)
@given(columns=st.lists(st.integers(0, COLUMNS - 1), max_size=2, unique=True), data=st.data())
def test_two_differing_columns_never_hide_a_patient_entered_twice(columns, data):
    codes = np.vstack([_table(300), _table(300)[:1]])
    for column in columns:
        codes[-1, column] = data.draw(st.sampled_from([-1, 200, 201]))
    assert _joined(codes) == (not columns, True)


def test_three_differing_columns_are_another_patient():
    codes = np.vstack([_table(300), _table(300)[:1]])
    codes[-1, [0, 14, 20]] = 200
    assert _joined(codes) == (False, False)


@pytest.mark.parametrize(("missing", "differing", "alike"), [
    (10, 2, True), (11, 2, False), (11, 1, True), (15, 1, True), (16, 1, False), (16, 0, False),
])  # fmt: skip
def test_one_in_ten_of_fifteen_compared_columns_may_differ(missing, differing, alike):
    codes = np.vstack([_table(300), _table(300)[:1]])
    codes[-1, COLUMNS - missing :] = -1
    codes[-1, :differing] = 200
    assert _joined(codes) == (False, alike)


@pytest.mark.parametrize(("quantities", "alike"), [(5, True), (4, False)])
def test_five_rare_values_must_be_the_same(quantities, alike):
    codes = np.vstack([_table(300), _table(300)[:1]])
    codes[-1, quantities:QUANTITIES] = -1
    assert _joined(codes) == (False, alike)
    codes[0] = codes[-1]
    assert _joined(codes) == (alike, alike)


def test_zeros_are_no_evidence():
    codes = _table(300)
    codes[:, :QUANTITIES] = 0
    codes[:, :4] = _table(300)[:, :4]
    codes[-1] = codes[0]
    assert _joined(codes) == (False, False)


def test_alike_patients_are_one_group_by_way_of_others():
    codes = np.vstack([_table(300), *[_table(300)[:1]] * 3])
    codes[300, [0, 13]] = 200
    codes[301, [0, 13]] = 200
    codes[301, [1, 14]] = 201  # differs from the first row in four
    codes[302, [2, 15]] = 202
    same, alike = twins.find(codes, EVIDENCE)
    assert len(set(alike[[0, 300, 301, 302]])) == 1 and len(np.unique(alike)) == 300
    assert len(np.unique(same)) == 303


@given(st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_groups_do_not_depend_on_the_order_of_rows(seed):
    codes = np.vstack([_table(200), _table(200)[:20]])
    codes[200:210, 3] = 201
    order = np.random.default_rng(seed).permutation(len(codes))
    _, alike = twins.find(codes, EVIDENCE)
    _, shuffled = twins.find(codes[order], EVIDENCE)
    pairs = pd.DataFrame({"a": alike[order], "b": shuffled}).drop_duplicates()
    assert len(pairs) == len(np.unique(alike)) == 200


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 5)])
def test_next_to_nothing(shape):
    same, alike = twins.find(np.zeros(shape, dtype=np.int32), np.full(shape[1], True))
    assert same.tolist() == alike.tolist() == list(range(shape[0]))


def test_no_two_of_five_thousand_simulated_patients_are_one():
    codes, words = _simulated(5000)
    group = dataset.twins_of(codes, words)
    assert group.nunique().tolist() == [5000, 5000]


def test_every_corrected_copy_among_simulated_patients_is_found():
    codes, words = _simulated(600)
    rng = np.random.default_rng(1)
    copies = codes.iloc[:200].copy()
    for row in range(200):
        copies.iat[row, rng.integers(codes.shape[1])] = rng.choice([-1, codes.to_numpy().max() + 1])
    both = pd.concat([codes, copies], ignore_index=True)
    alike = dataset.twins_of(both, words)["alike"].to_numpy()
    assert (alike[:200] == alike[600:]).all() and len(np.unique(alike)) == 600


def _lesions(n, seed):
    """A text table like the second study's: few clinical columns, and volumes of which most are 0."""
    rng = np.random.default_rng(seed)
    volumes = np.zeros((n, 32))
    size = np.where(rng.random(n) < 0.1, 0, np.exp(rng.normal(1, 2, n)))  # one in ten is empty
    place = rng.choice(32, n, p=rng.dirichlet(np.full(32, 0.5)))
    for step in range(3):
        has = rng.random(n) < (1, 0.4, 0.4)[step]
        volumes[np.arange(n), (place + step) % 32] = np.round(
            size * has * (0.8, 0.15, 0.05)[step], 1
        )
    table = {f"territory_{i + 1:02d}_ml": volumes[:, i] for i in range(32)}
    table |= {
        "lesion_ml": volumes.sum(axis=1).round(1),
        "age": rng.normal(62, 14, n).round().clip(18, 89),
        "sex": rng.integers(0, 2, n),
        "bmi": rng.normal(29, 6, n).round().clip(13, 80),
        "nihss": np.minimum(rng.negative_binomial(1, 0.2, n), 42),
        "mrs_discharge": rng.choice(7, n),
    }
    return pd.DataFrame(table).map(lambda value: f"{value:g}")


@pytest.mark.parametrize("seed", range(3))
def test_a_small_table_of_mostly_zeros_groups_no_different_patients(seed):
    words = dictionary.load(load_study("soop").dictionary_path)
    table = _lesions(1700, seed)
    assert dataset.content_groups(table, words).nunique() == 1700
    large = table[(table.filter(like="territory").astype(float) > 2).sum(axis=1) >= 3].iloc[:20]
    corrected = large.assign(sex="-99", nihss="20")
    group = dataset.content_groups(pd.concat([table, corrected], ignore_index=True), words)
    found = group[1700:].to_numpy() == group[large.index].to_numpy()
    assert found.mean() >= 0.9  # where a volume or an age is a common one, four say too little


@pytest.mark.parametrize("changed", [0, 1, 2, 12])
def test_many_nearly_identical_rows_do_not_explode(changed):
    rng, n = np.random.default_rng(0), 50_000
    codes = np.repeat(rng.integers(0, 1000, (100, 54)), n // 100, axis=0).astype(np.int32)
    for _ in range(changed):
        codes[np.arange(n), rng.integers(54, size=n)] = rng.integers(2000, 60_000, n)
    begun = time.monotonic()
    _, alike = twins.find(codes, np.arange(54) < 20)
    assert time.monotonic() - begun < 20
    assert (len(np.unique(alike)) == 100) == (changed < 2)
