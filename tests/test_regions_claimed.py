"""Which regions may be claimed, and their figure."""

import numpy as np
import pandas as pd
import pytest

from rlvo_lib import figures, results
from rlvo_lib.config import InputError


def _enrichment():
    rows = [
        ("gradcam", "structure", "core", 3.0, 2.0, 4.0, 1.5),
        ("gradcam", "structure", "vessels", 5.0, 4.0, 6.0, 0.9),
        ("gradcam", "truth", "lesion", 9.0, 8.0, 10.0, 5.0),
        ("gradcam", "territory", "mca", 1.3, 1.2, 1.4, 1.1),
        ("occlusion", "structure", "core", 8.0, 7.0, 9.0, 6.0),
        ("edges", "structure", "core", 2.0, 1.5, 2.5, 1.5),
    ]
    columns = ["method", "kind", "region", "enrichment", "low", "high", "low_over_control"]
    return pd.DataFrame(rows, columns=columns).assign(arm="daft", n=20, reason="")


def _checks(**verdicts):
    rows = [("daft", method, "deletion", verdict) for method, verdict in verdicts.items()]
    return pd.DataFrame(rows, columns=["arm", "method", "check", "verdict"])


def test_a_region_is_claimed_by_a_method_that_passed_and_beyond_the_edges_of_the_image():
    checks = _checks(gradcam="pass", occlusion="fail", edges="pass")
    found = results.region_claims(_enrichment(), checks, data="simulated")
    assert list(found["region"]) == ["core", "mca"]
    assert set(found["method"]) == {"gradcam"} and list(found["rank"]) == [1, 2]


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [("fail", "no method passed all of its checks"), ("not made", "no method passed all")],
)
def test_without_a_method_that_passed_nothing_is_claimed_and_the_reason_is_given(verdict, reason):
    checks = _checks(gradcam=verdict, occlusion=verdict)
    found = results.region_claims(_enrichment(), checks, data="simulated")
    assert len(found) == 1 and found["enrichment"].isna().all()
    assert reason in found["reason"].iloc[0]


def test_a_usable_method_that_marks_nothing_is_said_so():
    weak = _enrichment().assign(low=0.5)
    found = results.region_claims(weak, _checks(gradcam="pass"), data="simulated")
    assert found["reason"].iloc[0] == "no region's intervals lie above 1"


def test_the_forest_shows_each_kind_and_says_what_failed():
    figure = figures.region_forest(_enrichment(), failing=("occlusion",))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["gradcam", "occlusion\n(failed a check)", "edges"]
    words = {text.get_text() for text in figure.axes[0].texts}
    assert {"Structures", "Territories"} <= words
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == ["core", "vessels", "MCA", "lesion"]


def test_a_forest_of_nothing_is_refused():
    with pytest.raises(InputError, match="no region has a value"):
        figures.region_forest(_enrichment().assign(enrichment=np.nan))
    with pytest.raises(InputError, match="no row of these methods"):
        figures.region_forest(_enrichment(), methods=("other",))
