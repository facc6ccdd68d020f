"""The tidy table of a grid that was run: each variant against the unchanged arm, out of fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from rlvo_lib import results
from rlvo_lib.ablation.running import Planned, predictions
from rlvo_lib.ablation.variants import BASE
from rlvo_lib.config import InputError, Study
from rlvo_lib.results.predictions import scores_of
from rlvo_lib.results.uncertainty import interval


def table(planned: Sequence[Planned]) -> pd.DataFrame:
    """One row a variant and arm of a grid that was run (`score`), and one for each that cannot run."""
    analysis = planned[0].analysis
    data = "simulated" if analysis.dataset.simulated else "real"
    scored = score(predictions(planned), analysis.settings.study, data=data)
    ran = {(r.group, r.variant, r.arm): k for k, r in enumerate(scored.itertuples())}
    rows = []
    for one in planned:
        key = (one.variant.group, one.variant.name, one.variant.arm.name)
        if key in ran:
            rows.append(scored.iloc[ran[key]].to_dict())
        else:
            names = dict(zip(("group", "variant", "arm"), key, strict=True))
            rows.append(names | {"n": 0, "events": 0, "reason": one.reason, "data": data})
    return pd.DataFrame(rows, columns=scored.columns)


def score(frame: pd.DataFrame, study: Study, *, data: str) -> pd.DataFrame:
    """Discrimination of each variant out of fold, and its difference to the unchanged arm.

    Parameters
    ----------
    frame : `predictions` of a grid.
    data : ``"simulated"`` or ``"real"``.

    Returns
    -------
    DataFrame with group, variant, arm, n_train (mean over the folds), n, events, auc with its 95 % limits
    low and high (DeLong, logit scale), difference (variant minus unchanged arm, on the patients of both)
    with its limits difference_low and difference_high (paired DeLong), p, p_holm (over all rows), reason
    (why something is NaN), data. Several seeds are averaged, as in `rlvo_lib.results`.

    Raises
    ------
    InputError
        If a test patient was predicted: ablations are judged out of fold only.
    """
    if (frame["partition"] == "test").any():
        raise InputError(
            "ablations: the table holds predictions of the test set; allowed: out-of-fold"
        )
    label = frame["group"] + "/" + frame["variant"] + "/" + frame["arm"]
    rows = label.to_frame("label").join(frame[["group", "variant", "arm"]]).drop_duplicates()
    labelled = frame.assign(arm=label)
    bases = {f"{BASE}/{BASE}/{arm}" for arm in frame["arm"].unique()}
    pairs = [(r.label, f"{BASE}/{BASE}/{r.arm}") for r in rows.itertuples() if r.label not in bases]
    against = results.comparisons(
        labelled, dataclasses.replace(study, comparisons=tuple(pairs)), data=data
    ).set_index("a")
    pooled = results.ensembles(labelled, "out-of-fold")
    found = {scores.arm: scores for scores in scores_of(pooled, rows["label"])}
    trained = labelled.groupby("arm")["n_train"].mean()
    out = []
    for row in rows.itertuples():
        scores = found[row.label]
        auc, low, high, _ = interval(scores, "auc", [], resamples=1, seed=0)
        line = {
            "group": row.group, "variant": row.variant, "arm": row.arm,
            "n_train": float(trained[row.label]), "n": scores.y.size, "events": int(scores.y.sum()),
            "auc": auc, "low": low, "high": high, "reason": "",
        }  # fmt: skip
        if row.label in against.index:
            other = against.loc[row.label]
            line |= {
                "difference": other["difference"], "difference_low": other["low"],
                "difference_high": other["high"], "p": other["p"], "p_holm": other["p_holm"],
                "reason": other["reason"],
            }  # fmt: skip
        out.append(line)
    columns = [
        "group", "variant", "arm", "n_train", "n", "events", "auc", "low", "high", "difference",
        "difference_low", "difference_high", "p", "p_holm", "reason",
    ]  # fmt: skip
    return pd.DataFrame(out, columns=columns).assign(data=data)
