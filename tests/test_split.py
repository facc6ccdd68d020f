"""The split: who is where, that it is drawn once, and that no patient is on two sides."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlvo_lib import cohort, dataset
from rlvo_lib.config import InputError


def _build(raw, write_dataset, study, words):
    return cohort.build(dataset.load_dataset(write_dataset(raw), study, words), study, words)


def _with(study, **validation):
    return dataclasses.replace(study, validation=study.validation | validation)


VARIED = {
    "age": (40, 95), "nihss_adm": (2, 42), "sbp_adm": (90, 220), "glucose_adm": (70, 300),
    "lkw_to_ct_min": (30, 1200), "clot_length_mm": (3, 60), "perviousness_hu": (0, 60),
    "duration_min": (10, 200), "nihss_24h": (0, 42),
}  # fmt: skip


@pytest.fixture
def many(raw, write_dataset, study, words):
    """200 patients, half with the outcome, who share nothing but what the rules need."""
    rows = [raw.set_axis([f"sub-{k}x{i}" for i in range(8)]).assign(
        admit_year=str(2017 + k % 7), centre=["Bar", "Gir", "Lle"][k % 3],
    ) for k in range(25)]  # fmt: skip
    large = pd.concat(rows)
    large.index.name = "participant_id"
    rng = np.random.default_rng(4)
    for column, (low, high) in VARIED.items():
        large[column] = rng.integers(low, high, len(large)).astype(str)
    return _build(large, write_dataset, study, words)


def test_split_sizes_and_stratified_folds(many, study, words):
    split = cohort.make_split(many, study, words, seed=1, given=None)
    counts = cohort.split_counts(many, split, study)
    assert (split["partition"] == "test").sum() == round(200 * 0.197)
    folds = counts[counts["fold"] != "all"]
    assert folds["events"].max() - folds["events"].min() <= 1
    assert set(split[split["partition"] == "test"]["fold"]) == {""}


def test_split_is_the_seed_s_and_not_the_order_s(many, study, words):
    split = cohort.make_split(many, study, words, seed=1, given=None)
    shuffled = many.sample(frac=1, random_state=3)
    assert cohort.make_split(shuffled, study, words, seed=1, given=None).equals(split)
    assert not cohort.make_split(many, study, words, seed=2, given=None).equals(split)


def test_a_given_split_is_honoured_and_checked(many, study, words, tmp_path):
    split = cohort.make_split(many, study, words, seed=1, given=None)
    path = tmp_path / "given.csv"
    split.to_csv(path, index=False)
    assert cohort.make_split(many, study, words, seed=9, given=path).equals(split)
    split.iloc[1:].to_csv(path, index=False)
    with pytest.raises(InputError, match="1 eligible patients are not in it"):
        cohort.make_split(many, study, words, seed=9, given=path)
    split.assign(fold="7").to_csv(path, index=False)
    with pytest.raises(InputError, match="fold '7'; allowed: train with fold 1 to 4"):
        cohort.make_split(many, study, words, seed=9, given=path)
    pd.concat([split, split.iloc[:1]]).to_csv(path, index=False)
    with pytest.raises(InputError, match="stands in it twice"):
        cohort.read_split(path)


def test_a_fold_with_one_outcome_only_is_refused(raw, write_dataset, study, words, tmp_path):
    frame = _build(raw, write_dataset, study, words)
    rows = {"participant_id": raw.index, "partition": "train", "fold": list("11234423")}
    path = tmp_path / "given.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    with pytest.raises(InputError, match="fold 1 has only patients with the outcome"):
        cohort.make_split(frame, study, words, seed=0, given=path)


def test_too_few_events_for_the_folds_are_named(raw, write_dataset, study, words):
    raw["etici_final"], raw["final_stenosis_pct"], raw["rescue_type"] = "3", "10", "0"
    raw.loc["sub-00", "rescue_type"] = "1"
    frame = _build(raw, write_dataset, study, words)
    with pytest.raises(InputError, match=r"the rarer outcome has [01] of 6 training patients"):
        cohort.make_split(frame, study, words, seed=0, given=None)


def test_a_stratified_holdout_has_the_prevalence_of_all(many, study, words):
    plan = _with(study, holdout="stratified", test_fraction=0.25)
    counts = cohort.split_counts(
        many, cohort.make_split(many, plan, words, seed=3, given=None), plan
    )
    whole = counts[counts["fold"] == "all"].set_index("partition")
    assert whole.loc["test", ["n", "events"]].tolist() == [50, 25]


def test_a_split_by_date_holds_the_latest_patients_out(many, study, words):
    plan = _with(study, holdout="date")
    split = cohort.make_split(many, plan, words, seed=1, given=None).set_index("participant_id")
    year = many.set_index("participant_id")["admit_year"].astype(int)
    test = split["partition"] == "test"
    assert year[split.index[test]].min() > year[split.index[~test]].max()
    # 24 patients a year (32 in the first four): the last year, 0.12, is nearer to 0.197 than two, 0.24
    assert sorted(set(year[split.index[test]])) == [2022, 2023]
    months = [f"2020-{1 + k // 8 % 12:02d}-01 10:00" for k in range(200)]
    by_scan = _with(study, holdout="date", date_column="scan_datetime")
    dated = cohort.make_split(many.assign(scan_datetime=months), by_scan, words, seed=1, given=None)
    held_out = dated["participant_id"][dated["partition"] == "test"]
    month = pd.Series(months, index=many["participant_id"]).str[5:7]
    assert set(month[held_out]) == {"11", "12"}  # 0.16, nearer to 0.197 than three months, 0.24


def test_a_split_by_centre_holds_whole_centres_out(many, study, words):
    centre = many.set_index("participant_id")["centre"]
    plan = _with(study, holdout="centre", test_centres=["Gir"])
    split = cohort.make_split(many, plan, words, seed=1, given=None).set_index("participant_id")
    assert set(centre[split.index[split["partition"] == "test"]]) == {"Gir"}
    assert "Gir" not in set(centre[split.index[split["partition"] == "train"]])
    drawn = cohort.make_split(many, _with(study, holdout="centre"), words, seed=1, given=None)
    held_out = drawn.loc[drawn["partition"] == "test", "participant_id"]
    assert (
        centre[held_out].nunique() == 1
        and len(held_out) == (centre == centre[held_out.iloc[0]]).sum()
    )
    with pytest.raises(
        InputError, match="centre 'Vic' has no eligible patient; allowed: Bar, Gir, Lle"
    ):
        cohort.make_split(
            many, _with(study, holdout="centre", test_centres=["Vic"]), words, seed=1, given=None
        )


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("centre", "n/a", r"'sub-0x0', column 'centre': no value \(1 patients\)"),
        ("admit_year", "", r"'sub-0x0', column 'admit_year': no value \(1 patients\)"),
    ],
)
def test_a_split_by_something_unknown_is_refused(many, study, words, column, value, message):
    many.loc[0, column] = value
    plan = _with(study, holdout="centre" if column == "centre" else "date")
    with pytest.raises(InputError, match=message):
        cohort.make_split(many, plan, words, seed=1, given=None)


def test_one_centre_or_one_date_cannot_be_split(many, study, words):
    with pytest.raises(InputError, match="one centre, 'Bar'; allowed: several"):
        cohort.make_split(
            many.assign(centre="Bar"), _with(study, holdout="centre"), words, seed=1, given=None
        )
    with pytest.raises(InputError, match="all patients have the date '2020'"):
        cohort.make_split(
            many.assign(admit_year="2020"), _with(study, holdout="date"), words, seed=1, given=None
        )


def test_a_test_part_without_the_outcome_is_refused(many, study, words):
    events = many.index[many["rlvo"] == "1"]
    many = many.drop(events[8:])  # 8 of 108 have it
    plan = _with(study, test_fraction=0.02)
    with pytest.raises(InputError, match="the test part has only patients without the outcome"):
        for seed in range(20):
            cohort.make_split(many, plan, words, seed=seed, given=None)


def test_a_design_without_a_test_part(many, study, words):
    plan = _with(study, design="cross-validation")
    split = cohort.make_split(many, plan, words, seed=1, given=None)
    assert set(split["partition"]) == {"train"} and set(split["fold"]) == set("1234")


@pytest.mark.parametrize("holdout", ["random", "stratified", "date", "centre"])
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6))
def test_the_same_patient_under_two_identifiers_is_never_parted(many, study, words, holdout, seed):
    again = many.iloc[::3].assign(
        participant_id=[f"sub-again{i}" for i in range(len(many.iloc[::3]))]
    )
    both = pd.concat([many, again], ignore_index=True)
    split = cohort.make_split(both, _with(study, holdout=holdout), words, seed=seed, given=None)
    place = split.set_index("participant_id")[["partition", "fold"]].agg("/".join, axis=1)
    for one, other in zip(many["participant_id"].iloc[::3], again["participant_id"], strict=True):
        assert place[one] == place[other]
    assert len(split) == len(both)


def test_a_given_split_that_parts_a_patient_is_refused(many, study, words, tmp_path):
    again = many.iloc[[0]].assign(participant_id="sub-again")
    split = cohort.make_split(many, study, words, seed=1, given=None)
    side = split.set_index("participant_id").loc["sub-0x0", "partition"]
    other = {"train": ("test", ""), "test": ("train", "1")}[side]
    row = pd.DataFrame([["sub-again", *other]], columns=split.columns)
    pd.concat([split, row]).to_csv(tmp_path / "given.csv", index=False)
    both = pd.concat([many, again], ignore_index=True)
    with pytest.raises(
        InputError, match="'sub-0x0' and 'sub-again' have the same or nearly the same"
    ):
        cohort.make_split(both, study, words, seed=1, given=tmp_path / "given.csv")


def test_a_given_split_needs_a_test_part_where_the_design_has_one(many, study, words, tmp_path):
    ids = many["participant_id"]
    rows = {
        "participant_id": ids,
        "partition": "train",
        "fold": [str(1 + i // 8 % 4) for i in range(len(ids))],
    }
    pd.DataFrame(rows).to_csv(tmp_path / "given.csv", index=False)
    with pytest.raises(InputError, match="the test part has no patient"):
        cohort.make_split(many, study, words, seed=1, given=tmp_path / "given.csv")
    plan = _with(study, design="cross-validation")
    assert len(cohort.make_split(many, plan, words, seed=1, given=tmp_path / "given.csv")) == 200


def test_folds_that_a_spreadsheet_wrote_are_read(many, study, words, tmp_path):
    split = cohort.make_split(many, study, words, seed=1, given=None)
    other = split.assign(fold=split["fold"].where(split["fold"] == "", split["fold"] + ".0"))
    other.assign(participant_id=" " + other["participant_id"]).to_csv(
        tmp_path / "given.csv", index=False
    )
    assert cohort.make_split(many, study, words, seed=9, given=tmp_path / "given.csv").equals(split)


def test_a_date_must_be_a_date(many, study, words):
    with pytest.raises(
        InputError, match="date_column 'sex' is of type radio; allowed: a date or a number"
    ):
        cohort.make_split(
            many, _with(study, holdout="date", date_column="sex"), words, seed=1, given=None
        )


def test_too_few_patients_for_an_inner_part_are_named(many, study, words):
    few = many.groupby("rlvo").head(6)  # 6 with and 6 without the outcome
    plan = _with(study, design="cross-validation", inner_fraction=0.1)
    with pytest.raises(
        InputError, match="[89] patients are left to train on.*2 patients in the inner part"
    ):
        cohort.make_split(few, plan, words, seed=1, given=None)


# --------------------------------------------------------------------------------------- freezing

REAL = {"name": "ours", "simulated": False, "embedded": False}
EMBEDDED = {"name": "embedded", "simulated": True, "embedded": True}


@pytest.fixture
def frozen(many, study, words, tmp_path):
    """A function that freezes a cohort and its split in one run folder."""

    def freeze(frame=many, *, seed=1, dataset=REAL, plan=None):
        split = cohort.make_split(frame, study, words, seed=seed, given=None)
        cohort.freeze_split(frame, split, tmp_path, plan=plan or {"seed": seed}, dataset=dataset)
        return split

    return freeze


def test_the_split_is_written_once_with_its_fingerprints(frozen, tmp_path):
    split = frozen()
    record = json.loads((tmp_path / "split.json").read_text())
    assert record["patients"] == 200 and record["plan"] == {"seed": 1} and record["dataset"] == REAL
    assert set(record["sha256"]) == {"cohort.csv", "split.csv"}
    before = (tmp_path / "split.csv").stat().st_mtime_ns
    frozen()
    assert (tmp_path / "split.csv").stat().st_mtime_ns == before
    assert cohort.read_split(tmp_path / "split.csv").equals(split)
    assert all(kept == now for _, kept, now in cohort.frozen_files(tmp_path))


def test_a_changed_dataset_is_refused_with_the_difference(frozen, many):
    frozen()
    with pytest.raises(InputError, match=r"the split is frozen.*'sub-0x0' is gone\)"):
        frozen(many.iloc[1:])
    one = many.copy()
    one.loc[3, ["age", "sbp_adm"]] = ["99", "111"]
    with pytest.raises(
        InputError,
        match=r"'sub-0x3' age: '\d+' became '99', 'sub-0x3' sbp_adm: '\d+' became '111'\)",
    ):
        frozen(one)
    with pytest.raises(InputError, match=r"column 'age' is gone"):
        frozen(many.drop(columns="age"))
    with pytest.raises(InputError, match=r"and 195 more\)"):
        frozen(many.assign(age="96"))


def test_another_plan_is_refused_by_name(frozen):
    frozen()
    with pytest.raises(InputError, match="the plan is another: seed was 1 and is 2"):
        frozen(seed=2)
    with pytest.raises(InputError, match="outcome_definition was None and is 'etici_2b50'"):
        frozen(plan={"seed": 1, "outcome_definition": "etici_2b50"})
    with pytest.raises(InputError, match="it is drawn otherwise now"):
        frozen(seed=2, plan={"seed": 1})


def test_another_dataset_is_refused_by_name(frozen, tmp_path):
    frozen()
    with pytest.raises(InputError, match="the dataset is another: simulated was False and is True"):
        frozen(dataset=REAL | {"simulated": True})
    with pytest.raises(
        InputError, match="the dataset is another: name was 'ours' and is 'embedded'"
    ):
        frozen(dataset=EMBEDDED)
    with pytest.raises(InputError, match="holds the run of dataset 'ours'; give another --out"):
        cohort.refuse_embedded_over(tmp_path)


def test_changed_exclusions_are_refused_with_what_helps(frozen, many):
    frozen()
    fewer = many.copy()
    fewer.loc[3, ["included", "exclusion"]] = ["0", "quality-control"]
    with pytest.raises(
        InputError,
        match=r"frozen, and the dataset's exclusions.csv is new \(in or out now: 'sub-0x3'\); take it away "
        "to go on with this run; give another --out for a new run",
    ):
        frozen(fewer, dataset=REAL | {"exclusions": "ab"})


def test_exclusions_that_are_gone_or_say_otherwise_are_refused(frozen):
    frozen(dataset=REAL | {"exclusions": "ab"})
    frozen(dataset=REAL | {"exclusions": "ab"})
    with pytest.raises(InputError, match="exclusions.csv changed since; put the former one back"):
        frozen(dataset=REAL | {"exclusions": "cd"})
    with pytest.raises(
        InputError, match="exclusions.csv is gone or empty; put the former one back"
    ):
        frozen()


@pytest.mark.parametrize("name", ["cohort.csv", "split.csv", "split.json"])
def test_a_file_that_was_deleted_is_refused(frozen, tmp_path, name):
    frozen()
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"is missing, although|was changed or deleted by hand"):
        frozen()
    with pytest.raises(InputError):
        frozen(seed=2)


def test_a_split_edited_by_hand_is_refused(frozen, tmp_path):
    frozen()
    path = tmp_path / "split.csv"
    path.write_text(path.read_text().replace("train,1", "train,2", 1))
    with pytest.raises(
        InputError, match=r"split\.csv: the split is frozen, and this file was changed"
    ):
        frozen()


@pytest.mark.parametrize("text", [b"{", b"{}", b"[]", b"\xff\xfe", b'{"sha256": 1}'])
def test_a_damaged_record_is_named(frozen, tmp_path, text):
    frozen()
    (tmp_path / "split.json").write_bytes(text)
    with pytest.raises(
        InputError, match=r"split\.json: not readable \(\w+\); allowed: as it was written"
    ):
        frozen()


def test_what_was_made_of_the_embedded_cohort_is_replaced(frozen, tmp_path):
    frozen(dataset=EMBEDDED)
    cohort.refuse_embedded_over(tmp_path)
    other = frozen(seed=2, dataset=EMBEDDED)
    assert cohort.read_split(tmp_path / "split.csv").equals(other)
    frozen(dataset=REAL)  # the embedded run can be made again
    with pytest.raises(InputError, match="the split is frozen"):
        frozen(dataset=EMBEDDED)


def test_text_that_looks_like_a_formula_does_not_count_as_a_change(frozen, many, tmp_path):
    risky = many.assign(centre="=HYPERLINK(1)")
    frozen(risky)
    assert ",=HYPERLINK" not in (tmp_path / "cohort.csv").read_text()
    frozen(risky)
