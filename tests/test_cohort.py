import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvo_lib import cohort, dataset
from rlvo_lib.config import InputError


def _build(raw, write_dataset, study, words):
    return cohort.build(dataset.load_dataset(write_dataset(raw), words), study)


def test_label_of_eight_known_patients(raw, write_dataset, study, words):
    frame = _build(raw, write_dataset, study, words)
    assert frame["rlvo"].tolist() == ["1", "1", "1", "0", "1", "0", "0", "0"]


def test_stenosis_of_exactly_fifty_is_not_refractory(raw, write_dataset, study, words):
    raw["final_stenosis_pct"] = "50"
    raw["etici_final"], raw["rescue_type"] = "3", "0"
    assert set(_build(raw, write_dataset, study, words)["rlvo"]) == {"0"}


@pytest.mark.parametrize(
    ("stenosis", "etici", "rescue", "label"),
    [
        ("-99", "3", "0", ""),  # a missing criterion is never a negative
        ("-99", "2a", "0", "1"),  # any known criterion is enough
        ("-98", "0", "-99", "1"),
        ("-98", "3", "0", "0"),  # not applicable does not meet its criterion
        ("10", "n/a", "0", ""),
    ],
)
def test_missing_criteria(raw, write_dataset, study, words, stenosis, etici, rescue, label):
    columns = ["final_stenosis_pct", "etici_final", "rescue_type"]
    raw.loc["sub-00", columns] = [stenosis, etici, rescue]
    frame = _build(raw, write_dataset, study, words).set_index("participant_id")
    assert frame.loc["sub-00", "rlvo"] == label
    assert frame.loc["sub-00", "exclusion"] == ("" if label else "outcome")


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=3, max_size=3))
def test_label_rule_against_its_words(met):
    label = cohort.derive_label(pd.DataFrame([met], columns=list("abc"))).iloc[0]
    if 1.0 in met:
        assert label == 1
    elif np.isnan(met).any():
        assert np.isnan(label)
    else:
        assert label == 0


def test_a_stored_label_is_never_read(raw, write_dataset, study, words):
    frame = _build(raw.assign(rlvo="1"), write_dataset, study, words)
    assert frame["rlvo"].tolist() == ["1", "1", "1", "0", "1", "0", "0", "0"]
    assert list(frame.columns).count("rlvo") == 1


def test_flow_counts_each_patient_once_at_the_first_rule_not_met(raw, write_dataset, study, words):
    raw.loc["sub-01", ["age", "admit_year"]] = ["17", "2010"]
    raw.loc["sub-02", "admit_year"] = "2016"
    raw.loc["sub-03", "final_stenosis_pct"] = "-99"
    flow = cohort.flow(_build(raw, write_dataset, study, words), study).set_index("step")
    assert flow["excluded"].to_dict() == {
        "assessed": 0, "anterior": 0, "adult": 1, "years": 1, "outcome": 1, "included": 0,
    }  # fmt: skip
    assert flow.loc["assessed", "n"] == 8 and flow.loc["included", "n"] == 5


def test_nobody_eligible_is_said(raw, write_dataset, study, words):
    raw["age"] = "12"
    with pytest.raises(InputError, match="none of 8 patients is eligible"):
        _build(raw, write_dataset, study, words)


def test_a_table_without_a_source_of_the_label_is_refused(raw, write_dataset, study, words):
    loaded = dataset.load_dataset(write_dataset(raw.drop(columns="rescue_type")), words)
    with pytest.raises(
        InputError, match="column 'rescue_type' is missing; it is needed for 'rescue"
    ):
        cohort.build(loaded, study)


def test_label_overlap(raw, write_dataset, study, words):
    overlap = cohort.label_overlap(_build(raw, write_dataset, study, words), study, words)
    counts = {(r.stenosis, r.etici, r.rescue): r.n for r in overlap.itertuples()}
    assert counts == {(0, 0, 0): 4, (0, 1, 0): 2, (1, 0, 0): 1, (0, 0, 1): 1}


def test_missingness_keeps_the_reason(raw, write_dataset, study, words):
    raw.loc["sub-00", "core_ml"], raw.loc["sub-01", "core_ml"] = "-97", ""
    table = cohort.missingness(_build(raw, write_dataset, study, words), study, words)
    row = table.set_index("variable").loc["core_ml"]
    assert (row["n_missing"], row["not_recorded"], row["not_done"]) == (2, 1, 1)
    assert row["share"] == 0.25 and row["share_with_outcome"] == 0.5


def test_typed_names_patient_column_and_value(raw, write_dataset, words):
    raw.loc["sub-05", "age"] = "seventy"
    with pytest.raises(
        InputError, match="patient 'sub-05', column 'age': 'seventy' is not a number"
    ):
        dataset.load_dataset(write_dataset(raw), words)


def test_dataset_folder_faults(raw, write_dataset, words, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        dataset.load_dataset(tmp_path / "absent", words)
    root = write_dataset(raw)
    description = root / "dataset_description.json"
    description.write_text(json.dumps({"Name": "x"}))
    with pytest.raises(InputError, match="'simulated' is None; allowed: true or false"):
        dataset.load_dataset(root, words)
    description.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        dataset.load_dataset(root, words)
    description.unlink()
    with pytest.raises(InputError, match=r"dataset_description\.json is missing"):
        dataset.load_dataset(root, words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable tab-separated table"),
        ("participant_id\tage\n", "the table has no patients"),
        ("age\n60\n", "column 'participant_id' is missing"),
        ("participant_id\tage\nsub-1\t60\nsub-1\t61\n", "'sub-1' stands in more than one row"),
        (
            "participant_id\tage\tsex\nsub-1\t60\n",
            "line 2: patient 'sub-1' has 2 fields; allowed: 3",
        ),
        ("participant_id\tage\nsub-1\t60\t1\n", "line 2: patient 'sub-1' has 3 fields; allowed: 2"),
        ("participant_id\tage\tage\nsub-1\t60\t1\n", "column 'age' stands in it twice"),
        ("participant_id,age\nsub-1,60\n", "separated by commas; allowed: tabs"),
    ],
)
def test_table_faults(raw, write_dataset, words, text, message):
    root = write_dataset(raw)
    (root / "participants.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        dataset.load_dataset(root, words)


# ---------------------------------------------------------------------------------------- split


@pytest.fixture
def many(raw, write_dataset, study, words):
    large = pd.concat([raw.set_axis([f"sub-{k}x{i}" for i in range(8)]) for k in range(25)])
    large.index.name = "participant_id"
    return _build(large, write_dataset, study, words)


def test_split_sizes_and_stratified_folds(many, study):
    split = cohort.make_split(many, study, seed=1, given=None)
    counts = cohort.split_counts(many, split, study)
    assert (split["partition"] == "test").sum() == round(200 * 0.197)
    folds = counts[counts["fold"] != "all"]
    assert folds["events"].max() - folds["events"].min() <= 1
    assert set(split[split["partition"] == "test"]["fold"]) == {""}


def test_split_is_the_seed_s_and_not_the_order_s(many, study):
    split = cohort.make_split(many, study, seed=1, given=None)
    shuffled = many.sample(frac=1, random_state=3)
    assert cohort.make_split(shuffled, study, seed=1, given=None).equals(split)
    assert not cohort.make_split(many, study, seed=2, given=None).equals(split)


def test_a_given_split_is_honoured_and_checked(many, study, tmp_path):
    split = cohort.make_split(many, study, seed=1, given=None)
    path = tmp_path / "given.csv"
    split.to_csv(path, index=False)
    assert cohort.make_split(many, study, seed=9, given=path).equals(split)
    split.iloc[1:].to_csv(path, index=False)
    with pytest.raises(InputError, match="1 eligible patients are not in it"):
        cohort.make_split(many, study, seed=9, given=path)
    split.assign(fold="7").to_csv(path, index=False)
    with pytest.raises(InputError, match="fold '7'; allowed: train with fold 1 to 4"):
        cohort.make_split(many, study, seed=9, given=path)
    pd.concat([split, split.iloc[:1]]).to_csv(path, index=False)
    with pytest.raises(InputError, match="stands in it twice"):
        cohort.read_split(path)


def test_a_fold_with_one_outcome_only_is_refused(raw, write_dataset, study, words, tmp_path):
    frame = _build(raw, write_dataset, study, words)
    rows = {"participant_id": raw.index, "partition": "train", "fold": list("11234423")}
    path = tmp_path / "given.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    with pytest.raises(InputError, match="fold 1 has only patients with the outcome"):
        cohort.make_split(frame, study, seed=0, given=path)


def test_too_few_events_for_the_folds_are_named(raw, write_dataset, study, words):
    raw["etici_final"], raw["final_stenosis_pct"], raw["rescue_type"] = "3", "10", "0"
    raw.loc["sub-00", "rescue_type"] = "1"
    frame = _build(raw, write_dataset, study, words)
    with pytest.raises(InputError, match=r"the rarer outcome has [01] of 6 training patients"):
        cohort.make_split(frame, study, seed=0, given=None)


def test_the_frozen_split_refuses_other_patients(many, study, tmp_path):
    split = cohort.make_split(many, study, seed=1, given=None)
    cohort.keep_split(split, tmp_path, replace=False)
    cohort.keep_split(split, tmp_path, replace=False)
    with pytest.raises(InputError, match=r"the split is frozen.*'sub-0x0' is gone"):
        cohort.keep_split(split[split["participant_id"] != "sub-0x0"], tmp_path, replace=False)
    with pytest.raises(InputError, match="same patients, other assignment"):
        other = cohort.make_split(many, study, seed=2, given=None)
        cohort.keep_split(other, tmp_path, replace=False)
    cohort.keep_split(other, tmp_path, replace=True)
    assert cohort.read_split(tmp_path / "split.csv").equals(other)


def test_simulated_data_cannot_pass_for_real(raw, write_dataset, words):
    root = write_dataset(raw, simulated=False)
    (root / "derivatives" / "truth").mkdir(parents=True)
    with pytest.raises(InputError, match="derivatives/truth holds a simulator's truth"):
        dataset.load_dataset(root, words)


# --------------------------------------------------------------------------------------- table 1


def test_table1_against_numbers_by_hand(raw, write_dataset, study, words):
    frame = _build(raw, write_dataset, study, words)
    split = pd.DataFrame({"participant_id": raw.index, "partition": ["train"] * 6 + ["test"] * 2})
    table = cohort.table1(frame, split, study, words, by="label")
    age = table[table["variable"] == "Age (y)"].iloc[0]
    # ages of the refractory: 60, 61, 62, 64
    assert age[study.outcome_label] == "61.5 [60.8,62.5]"
    a, b = np.array([60, 61, 62, 64]), np.array([63, 65, 66, 67])
    smd = (a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert abs(float(age["smd"])) == pytest.approx(abs(smd), abs=5e-4)
    by_part = cohort.table1(frame, split, study, words, by="partition")
    assert {"train", "test"} <= set(by_part.columns)
