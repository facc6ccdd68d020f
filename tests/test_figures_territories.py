"""Figures of territories, tested by the data they hold."""

import numpy as np
import pandas as pd
import pytest
from test_results_territories import made

from rlvo_lib import figures, results
from rlvo_lib.config import InputError


@pytest.fixture
def asked():
    net = made([1, 0, -0.5, -0.4], noise=0.1, touched=(20, 20, 20, 2))
    return pd.concat([net, made([0.5, 0.2, -0.5, -0.4], arm="base"), made([0] * 4, arm="even")])


def test_the_forest_shows_each_side_of_each_territory(asked):
    risk = results.territory_risk(asked, data="simulated")
    figure = figures.territory_forest(risk, size_ml=10.0, labels={"net": "Network"})
    figure.canvas.draw()
    assert [axis.get_title() for axis in figure.axes] == ["Network", "base"], "even sees no place"
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_yticklabels()] == ["front", "back"]
    points = [line for line in first.lines if len(line.get_xdata()) == 1]
    own = risk[(risk["arm"] == "net") & (risk["size_ml"] == 10)]
    assert sorted(p.get_xdata()[0] for p in points) == pytest.approx(sorted(own["beyond_volume"]))
    faint = [p for p in points if (p.get_alpha() or 1) < 1]
    assert [p.get_xdata()[0] for p in faint] == own.loc[
        own["touched"] == 2, "beyond_volume"
    ].tolist()


def test_a_size_that_was_not_asked_and_a_model_without_places_are_refused(asked):
    risk = results.territory_risk(asked, data="simulated")
    with pytest.raises(InputError, match="size_ml is 3; allowed: 1, 10"):
        figures.territory_forest(risk, size_ml=3)
    with pytest.raises(InputError, match="no arm tells territories apart"):
        figures.territory_forest(risk[risk["arm"] == "even"], size_ml=1.0)


def test_the_scatter_has_a_point_a_territory_and_the_correlation(asked):
    risk = results.territory_risk(asked, data="simulated")
    agreement = results.territory_agreement(asked, data="simulated", resamples=50)
    figure = figures.territory_scatter(risk, agreement, first="net", second="base")
    figure.canvas.draw()
    assert len(figure.axes) == 2 and "ρ 1.00" in figure.axes[0].get_title()
    drawn = np.concatenate([c.get_offsets() for c in figure.axes[1].collections])
    at = risk[risk["size_ml"] == 10].set_index(["arm", "label"])["beyond_volume"]
    assert sorted(drawn[:, 0]) == pytest.approx(sorted(at["base"]))
    assert sorted(drawn[:, 1]) == pytest.approx(sorted(at["net"]))
    flat = figures.territory_scatter(risk, agreement, first="net", second="even")
    assert "not defined" in flat.axes[0].get_title()
    with pytest.raises(InputError, match="no agreement of 'base' and 'net'"):
        figures.territory_scatter(risk, agreement, first="base", second="net")
