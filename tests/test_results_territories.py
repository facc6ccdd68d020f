"""Risk beyond volume by territory: known answers on made-up logits."""

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import results
from rlvo_lib.config import InputError
from rlvo_lib.results.territories import LEAST_TOUCHED

NAMES = ["front", "front", "back", "back"]
SIDES = ["left", "right"] * 2


def made(effects, *, arm="net", models=4, noise=0.0, volume=0.5, touched=(20, 20, 20, 20), seed=0):
    """Logits of four territories: -1, plus volume x log(1 + mL), plus the territory's effect."""
    rng, rows = np.random.default_rng(seed), []
    for model in range(models):
        for size in (1.0, 10.0):
            for k, effect in enumerate(effects):
                logit = -1 + volume * np.log1p(size) + effect + noise * rng.normal()
                rows.append((arm, model // 2, model % 2, k + 1, NAMES[k], SIDES[k], size, size, logit, -1.0,
                             0.1, 0.3, touched[k], touched[k], 5))  # fmt: skip
    columns = ["arm", "seed", "fold", "label", "territory", "side", "size_ml", "ml", "logit", "empty",
               "change_sd", "coefficient", "touched", "as_large", "n"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def test_the_effect_of_a_territory_is_what_is_left_of_its_change():
    table = results.territory_risk(made([1.0, 0.0, -0.5, -0.5]), data="simulated")
    assert list(table.columns)[-1] == "data" and set(table["data"]) == {"simulated"}
    for size, own in table.groupby("size_ml"):
        assert own["beyond_volume"].to_numpy() == pytest.approx([1.0, 0.0, -0.5, -0.5])
        change = 0.5 * np.log1p(size) + np.array([1.0, 0.0, -0.5, -0.5])
        assert own["change"].to_numpy() == pytest.approx(change)
        assert own["rank"].tolist() == [1, 2, 3, 3]
    assert table["low"].to_numpy() == pytest.approx(table["high"].to_numpy()), "models agree"
    assert set(table["n_models"]) == {4} and not table["reason"].any()


def test_a_model_of_volume_alone_has_nothing_beyond():
    table = results.territory_risk(made([1e-9, 0.0, 0.0, 0.0]), data="real")
    assert (table["beyond_volume"] == 0).all() and (table["rank"] == 1).all()


def test_the_range_is_the_spread_of_models():
    table = results.territory_risk(made([0, 0, 0, 0], models=40, noise=1.0), data="real")
    assert (table["low"] < table["beyond_volume"]).all()
    width = (table["high"] - table["low"]).mean()
    assert width == pytest.approx(2 * 1.96 * np.sqrt(3 / 4), rel=0.15), (
        "SD 1, less the mean of four"
    )
    one = results.territory_risk(made([1, 0, 0, 0], models=1), data="real")
    assert one["low"].isna().all() and set(one["reason"]) == {"one model: no range"}


def test_where_few_patients_have_a_lesion_is_flagged():
    frame = made([1, 0, 0, 0], touched=(3, LEAST_TOUCHED, 50, 50))
    frame.loc[frame["size_ml"] == 10, "as_large"] = 2
    table = results.territory_risk(frame, data="real").set_index(["size_ml", "label"])["reason"]
    assert table[1.0, 1] == "reached by the lesions of 3 patients: too few to learn from"
    assert table[1.0, 2] == "" and table[10.0, 2].startswith("extrapolated: 2 patients")


def test_left_is_set_against_right():
    table = results.territory_sides(made([1.0, 0.25, -0.5, 0.5]), data="real").set_index(
        ["territory", "size_ml"]
    )
    assert table.loc[("front", 1.0), "difference"] == pytest.approx(0.75)
    assert table.loc[("back", 10.0), "difference"] == pytest.approx(-1.0)
    assert (table["same_sign"] == 1).all() and (table["n_models"] == 4).all()
    one = made([1.0, 0.0, 0.0, 0.0]).assign(side="left", territory=lambda f: f["label"].astype(str))
    none = results.territory_sides(one, data="real")  # an atlas without sides
    assert none.empty and list(none.columns) == list(
        results.territory_sides(made([1.0, 0, 0, 0]), data="real").columns
    )


def test_agreement_is_the_rank_correlation_over_territories():
    net, base = made([3, 2, 1, 0]), made([30, 5, 4, 1], arm="base")
    turned, even = made([0, 1, 2, 3], arm="turned"), made([0, 0, 0, 0], arm="even")
    table = results.territory_agreement(
        pd.concat([net, base, turned, even]), data="real", resamples=50
    )
    assert table[["first", "second"]].drop_duplicates().to_numpy().tolist() == [
        ["net", "base"], ["net", "turned"], ["net", "even"], ["base", "turned"], ["base", "even"],
        ["turned", "even"],
    ]  # fmt: skip
    table = table[table["first"] == "net"].set_index(["second", "size_ml"])
    for column in ("rho", "low", "high"):
        assert table.loc[("base", 1.0), column] == pytest.approx(1)
        assert table.loc[("turned", 10.0), column] == pytest.approx(-1)
    assert np.isnan(table.loc[("even", 1.0), "rho"])
    assert table.loc[("even", 1.0), "reason"] == "an arm does not tell territories apart"
    assert set(table["over"]) == {"models"} and set(table["n_models"]) == {4}


def test_agreement_leaves_out_what_was_not_learnt_and_needs_three():
    few = (20, 20, 20, 1)
    both = [made([3, 2, 1, 9], touched=few), made([3, 2, 1, -9], arm="base", touched=few)]
    table = results.territory_agreement(pd.concat(both), data="real", resamples=20)
    assert table["rho"].to_numpy() == pytest.approx(1) and set(table["n_territories"]) == {3}
    fewer = (20, 20, 1, 1)
    both = [made([3, 2, 1, 9], touched=fewer), made([3, 2, 1, 9], arm="base", touched=fewer)]
    table = results.territory_agreement(pd.concat(both), data="real", resamples=20)
    assert table["rho"].isna().all() and table["reason"].str.contains("3 are needed").all()


def test_the_limits_hold_the_noise_of_models_and_are_the_same_each_time():
    both = pd.concat([
        made([1, 0.5, 0, -0.5], models=10, noise=1.0), made([1, 0.5, 0, -0.5], arm="base", models=10),
    ])  # fmt: skip
    first, again = (results.territory_agreement(both, data="real", seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert (first["low"] < first["high"]).all()
    one = results.territory_agreement(both[(both["seed"] == 0) & (both["fold"] == 0)], data="real")
    assert one["rho"].notna().all() and one["low"].isna().all()


def test_the_size_to_show_is_the_largest_that_fits_everywhere():
    frame = made([1, 0, 0, 0])
    frame = frame[(frame["size_ml"] == 1) | (frame["label"] > 2)]
    assert results.common_size(results.territory_risk(frame, data="real")) == 1.0
    assert results.common_size(results.territory_risk(made([1, 0, 0, 0]), data="real")) == 10.0


def test_faulty_tables_are_refused():
    with pytest.raises(InputError, match="column 'touched' is missing"):
        results.territory_risk(made([1, 0, 0, 0]).drop(columns="touched"), data="real")
    with pytest.raises(InputError, match="no rows"):
        results.territory_risk(made([1, 0, 0, 0]).iloc[:0], data="real")


def test_a_territory_without_a_side_is_read_back_from_a_file(tmp_path):
    frame = made([1, 0, 0, 0]).assign(side=np.nan)
    assert set(results.territory_risk(frame, data="real")["side"]) == {""}
