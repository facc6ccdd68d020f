"""Drawn data of the figure of expected widths."""

import numpy as np
import pytest

from rlvo_lib import figures
from rlvo_lib.config import InputError
from rlvo_lib.metrics import precision_plan


@pytest.fixture
def table():
    import pandas as pd

    plans = [precision_plan(n, 0.2, (0.6, 0.8)).assign(whose="planned") for n in (400, 100, 200)]
    plans.append(precision_plan(150, 0.2, (0.6, 0.8)).assign(whose="this run"))
    return pd.concat(plans, ignore_index=True)


def test_a_line_an_auc_falls_with_n_and_the_run_is_marked(table):
    figure = figures.auc_width_by_n(table)
    figure.canvas.draw()
    axis = figure.axes[0]
    low, high, upright, own = axis.lines
    np.testing.assert_array_equal(low.get_xdata(), [100, 200, 400])
    for line, area in ((low, 0.6), (high, 0.8)):
        expected = [
            precision_plan(n, 0.2, (area,)).set_index("quantity").at["auc", "width"]
            for n in (100, 200, 400)
        ]
        np.testing.assert_allclose(line.get_ydata(), expected)
        assert (np.diff(line.get_ydata()) < 0).all()
    assert list(upright.get_xdata()) == [150, 150]
    np.testing.assert_array_equal(own.get_xdata(), [150, 150])
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["AUC 0.60", "AUC 0.80", "this run: 150 patients, 30 with the outcome"]


def test_a_table_without_planned_sizes_is_refused(table):
    with pytest.raises(InputError, match="planned"):
        figures.auc_width_by_n(table[table["whose"] == "this run"])
    with pytest.raises(InputError, match="no column 'width'"):
        figures.auc_width_by_n(table.drop(columns="width"))
