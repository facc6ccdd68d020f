"""The simulated patients are those of the evidence tables, on 20,000 of them."""

import numpy as np
import pytest

from rlvo_lib.simulate import marginals, patients


@pytest.fixture(scope="module")
def found():
    drawn = patients.draw(20_000, np.random.default_rng(11))
    return marginals.measure(*drawn).set_index("name")


@pytest.mark.parametrize("marginal", marginals.MARGINALS, ids=lambda m: m.name)
def test_value_is_that_of_the_evidence(found, marginal):
    row = found.loc[marginal.name]
    assert row["met"] == (marginal.not_met == ""), (row["measured"], marginal.not_met)


def test_what_is_not_met_is_known_and_has_a_reason(found):
    missed = found[~found["met"]]
    assert list(missed.index) == ["Spearman core_ml and aspects"]
    assert (
        missed["reason"].str.len().gt(20).all() and (found.loc[found["met"], "reason"] == "").all()
    )


def test_small_shares_are_held_closely():
    """A generator that never loses a value, or never has a grade, is found out."""
    latents, table = patients.draw(20_000, np.random.default_rng(11))
    known = table["hypertension"].replace(-99, 0)
    without = latents["etici"].replace("1", "0")
    found = marginals.measure(latents.assign(etici=without), table.assign(hypertension=known))
    missed = set(found.loc[~found["met"], "name"])
    assert {"hypertension missing, %", "eTICI 1, %"} <= missed, missed


def test_names_are_unique_and_every_value_has_a_section_and_a_source(found):
    assert found.index.is_unique
    assert set(found["section"]) == {"1b", "1c", "1d", "3", "reads"}
    assert (found["published"] != "").all()
    assert found["measured"].notna().all()


def test_a_value_out_of_tolerance_is_not_met():
    latents, table = patients.draw(4000, np.random.default_rng(2))
    found = marginals.measure(latents.assign(prior_stroke=0), table).set_index("name")
    assert found.loc["prior stroke or TIA, %", "measured"] == 0
    assert not found.loc["prior stroke or TIA, %", "met"]
    assert found.loc["hypertension, %", "met"]


def test_the_shifted_centre_is_another_population():
    found = marginals.measure(*patients.draw(20_000, np.random.default_rng(11), "shift"))
    missed = set(found.loc[~found["met"], "name"])
    assert {
        "male, %",
        "diabetes, %",
        "current smoking, %",
        "age, median",
        "clot_hu missing, %",
    } <= missed
