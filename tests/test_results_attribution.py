"""Tables of importance: known answers, laws, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import metrics, results
from rlvo_lib.config import InputError
from rlvo_lib.results.attribution import spearman


def shap_frame(values, *, arm="daft", seed=0, fold=1, variables=None):
    """SHAP values (patients, variables) as rows."""
    values = np.asarray(values, float)
    n, m = values.shape
    names = variables or [f"v{k}" for k in range(m)]
    people = [f"sub-{k}" for k in range(n)]
    return pd.DataFrame({
        "participant_id": np.repeat(people, m), "arm": arm, "seed": seed, "fold": fold,
        "variable": names * n, "value": 1.0, "shap": values.ravel(), "base": -1.0,
        "logit": np.repeat(values.sum(axis=1) - 1.0, m),
    })  # fmt: skip


def test_means_are_over_the_models_of_a_patient_and_still_add_up():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 4, 3))
    rows = pd.concat([shap_frame(first), shap_frame(second, fold=2)]).assign(text="no")
    means = results.shap_means(rows)
    assert len(means) == 12 and set(means["text"]) == {"no"}
    np.testing.assert_allclose(means["shap"], (first + second).ravel() / 2)
    sums = means.groupby("participant_id").agg({"shap": "sum", "base": "first", "logit": "first"})
    np.testing.assert_allclose(sums["shap"] + sums["base"], sums["logit"])


def test_models_are_averaged_before_sizes_are_taken():
    """Two folds that contradict each other leave nothing."""
    values = np.array([[0.3, 0.1], [-0.2, 0.1]])
    rows = pd.concat([shap_frame(values), shap_frame(-values, fold=2)])
    table = results.shap_importance(rows, data="real", resamples=50)
    assert table["mean_abs_shap"].abs().max() < 1e-15


def test_importance_tells_the_group_of_a_variable():
    players = pd.DataFrame({"arm": "daft", "variable": ["v0", "v1"], "group": ["A", "B"]})
    table = results.shap_importance(
        shap_frame([[0.1, 0.4], [0.1, 0.2]]), data="real", players=players, resamples=50
    )
    assert table[["variable", "group"]].to_numpy().tolist() == [["v1", "B"], ["v0", "A"]]
    assert list(table.columns)[-1] == "data"


def test_variables_of_a_group_that_contradict_each_other_cancel():
    players = pd.DataFrame(
        {"arm": "daft", "variable": ["v0", "v1", "v2"], "group": ["A", "A", "B"]}
    )
    rows = shap_frame([[0.5, -0.5, 0.1], [0.4, 0.2, -0.3]])
    table = results.shap_groups(rows, players, data="simulated", resamples=100).set_index("group")
    assert table["mean_abs_shap"].to_dict() == pytest.approx({"A": 0.3, "B": 0.2})
    assert table.loc["A", ["low", "high"]].tolist() == pytest.approx([0.0, 0.6])
    assert table["variables"].to_dict() == {"A": 2, "B": 1} and table["rank"].to_dict() == {
        "A": 1,
        "B": 2,
    }
    with pytest.raises(InputError, match="variable 'v2' has no group"):
        results.shap_groups(rows, players.iloc[:2], data="real")


# ----------------------------------------------------------------------------------- permutation


@pytest.fixture
def permuted():
    """Forty patients; the logit is the first variable plus a little noise, the second is not used."""
    rng = np.random.default_rng(1)
    n = 40
    people = [f"sub-{k:02d}" for k in range(n)]
    x, noise = rng.normal(size=n), 0.1 * rng.normal(size=n)
    y = pd.Series((x + rng.normal(size=n) > 0.3).astype(int), index=people)
    frames = [pd.DataFrame({"variable": "", "repeat": 0, "logit": x + noise}, index=people)]
    for repeat in range(4):
        used = x[rng.permutation(n)] + noise
        frames.append(
            pd.DataFrame({"variable": "age", "repeat": repeat, "logit": used}, index=people)
        )
        frames.append(
            pd.DataFrame({"variable": "sex", "repeat": repeat, "logit": x + noise}, index=people)
        )
    rows = pd.concat(frames).rename_axis("participant_id").reset_index()
    return rows.assign(arm="daft", seed=0), y


def test_permuting_what_the_model_uses_costs_discrimination_and_nothing_else_does(permuted):
    rows, y = permuted
    table = results.permutation_importance(rows, y, data="real", resamples=300)
    by = table.set_index("variable")
    own = rows[rows["variable"] == ""].set_index("participant_id")["logit"]
    others = [
        metrics.auc(y, part.set_index("participant_id")["logit"][y.index])
        for _, part in rows[rows["variable"] == "age"].groupby("repeat")
    ]
    whole = metrics.auc(y, own[y.index])
    assert by.loc["age", "auc_drop"] == pytest.approx(whole - np.mean(others))
    assert by.loc["age", "low"] > 0 and by.loc["age", "high"] > by.loc["age", "auc_drop"]
    assert by.loc["sex", ["auc_drop", "low", "high"]].abs().max() < 1e-12
    assert table["rank"].tolist() == [1, 2] and set(table["repeats"]) == {4}
    assert set(table["no_skill"]) == {0.0} and set(table["auc"]) == {whole}
    assert list(table.columns)[-1] == "data"


def test_permutation_is_the_same_whatever_the_order_of_rows_and_after_reading_a_file(permuted):
    rows, y = permuted
    wanted = results.permutation_importance(rows, y, data="real", resamples=50)
    shuffled = rows.sample(frac=1, random_state=3).replace({"variable": {"": np.nan}})
    found = results.permutation_importance(shuffled, y[::-1], data="real", resamples=50)
    pd.testing.assert_frame_equal(found, wanted)


def test_the_mean_shap_value_stands_beside_permutation(permuted):
    rows, y = permuted
    shap = shap_frame([[0.5, -0.1], [-0.3, 0.1]], variables=["age", "bmi"])
    table = results.permutation_importance(rows, y, data="real", shap=shap, resamples=20)
    by = table.set_index("variable")["mean_abs_shap"]
    assert by["age"] == pytest.approx(0.4) and np.isnan(by["sex"])


def test_permutation_without_both_outcomes_has_a_reason(permuted):
    rows, y = permuted
    table = results.permutation_importance(rows, y * 0, data="real", resamples=20)
    assert table[["auc_drop", "low", "high", "auc", "rank"]].isna().all(axis=None)
    assert set(table["reason"]) == {"one outcome only: no AUC"} and set(table["events"]) == {0}


def test_faulty_permuted_logits_are_named(permuted):
    rows, y = permuted
    for change, words in (
        (rows.drop(columns="logit"), "column 'logit' is missing"),
        (rows[rows["variable"] != ""], "none is unpermuted"),
        (rows.iloc[:-1], "some patients lack some variables"),
    ):
        with pytest.raises(InputError, match=words):
            results.permutation_importance(change, y, data="real")
    with pytest.raises(InputError, match="patient 'sub-00' has no outcome"):
        results.permutation_importance(rows, y.iloc[1:], data="real")


# ------------------------------------------------------------------------------------- agreement


def test_rank_correlation_is_that_of_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 6, size=(2, 3, 12))
    found = spearman(a, b)
    for row in range(3):
        assert found[row] == pytest.approx(spearmanr(a[row], b[row]).statistic)
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_folds_and_arms_that_agree_and_that_do_not():
    rng = np.random.default_rng(2)
    size = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
    values = size * rng.choice([-1, 1], size=(12, 5)) * rng.uniform(0.95, 1.05, size=(12, 5))
    rows = pd.concat([
        shap_frame(values), shap_frame(3 * values, fold=2),
        shap_frame(values[:, ::-1], arm="film"), shap_frame(values[:, ::-1], arm="film", fold=2),
    ])  # fmt: skip
    table = results.shap_agreement(rows, data="real", resamples=100)
    assert table["between"].tolist() == ["folds", "folds", "arms"]
    folds = table.iloc[0]
    assert (folds["first"], folds["second"]) == ("daft, fold 1", "daft, fold 2")
    assert folds[["rho", "low", "high", "patients_rho"]].tolist() == pytest.approx([1] * 4)
    arms = table.iloc[2]
    assert (arms["first"], arms["second"], arms["rho"]) == ("daft", "film", pytest.approx(-1))
    assert arms["variables"] == 5 and arms["n"] == 12 and arms["reason"] == ""


def test_seeds_are_compared_by_the_mean_over_their_folds():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(6, 5))
    half = rng.normal(size=(6, 5))
    rows = pd.concat([
        shap_frame(values + half, fold=1), shap_frame(values - half, fold=2),
        shap_frame(values, seed=1, fold=1), shap_frame(values, seed=1, fold=2),
    ])  # fmt: skip
    table = results.shap_agreement(rows, data="real", resamples=50)
    seeds = table[table["between"] == "seeds"].iloc[0]
    assert (seeds["first"], seeds["second"]) == ("daft, seed 0", "daft, seed 1")
    assert seeds["rho"] == pytest.approx(1) and seeds["patients_rho"] == pytest.approx(1)
    assert "daft, seed 0, fold 1" in set(table["first"])


def test_what_cannot_be_compared_has_a_reason():
    values = np.random.default_rng(4).normal(size=(5, 4))
    fewer = shap_frame(values[:, :2], arm="small")
    table = results.shap_agreement(pd.concat([shap_frame(values), fewer]), data="real")
    assert np.isnan(table["rho"].iloc[0])
    assert table["reason"].iloc[0] == "2 variables in both; a rank correlation needs 3"
    held_out = shap_frame(values).assign(participant_id=lambda f: "x" + f["participant_id"], fold=2)
    table = results.shap_agreement(pd.concat([shap_frame(values), held_out]), data="real")
    assert table["rho"].iloc[0] == pytest.approx(1) and table["n"].iloc[0] == 0
    assert table[["low", "high", "patients_rho"]].isna().all(axis=None)
    assert table["reason"].iloc[0] == "not the same patients: no interval over them"
