"""What clinical variables switch in a network's features, summed over channels so that models compare.

A change of α or β is measured in that channel's SD over patients. Channels count by ``weight``, how much
the logit hangs on the channel being modulated patient by patient; weights of a model add up to 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlvo_lib.config import InputError

NEEDED = (
    "arm", "seed", "fold", "channel", "variable", "change", "d_alpha", "d_beta", "flips", "d_active",
    "alpha_sd", "beta_sd", "weight",
)  # fmt: skip
MODEL = ["arm", "seed", "fold"]
#: Measures of `modulation_summary`: of a channel, a change of the variable.
MEASURES = {
    "alpha": "mean |change of α|, SDs over patients",
    "beta": "mean |change of β|, SDs over patients",
    "flips": "share of patients whose α changes sign",
    "active": "mean |change of the share of voxels that pass the ReLU|",
}
CONSTANT = "the same in all patients"


def modulation_channels(modulation: pd.DataFrame, *, data: str) -> pd.DataFrame:
    """Changes of α and β in the channel's SDs over patients, and the channel's rank by weight.

    Returns
    -------
    The rows given, with alpha_sds, beta_sds (NaN, with a reason, where the coefficient is the same in all
    patients), share (the channel's of the model's weights), rank (1: most of the logit hangs on it), reason,
    data.
    """
    frame = _checked(modulation)
    each = frame.drop_duplicates([*MODEL, "channel"])[[*MODEL, "channel", "weight"]]
    total = each.groupby(MODEL)["weight"].transform("sum")
    each = each.assign(share=each["weight"] / total.where(total > 0))
    each["rank"] = each.groupby(MODEL)["weight"].rank(method="first", ascending=False).astype(int)
    frame = frame.merge(each.drop(columns="weight"), on=[*MODEL, "channel"], how="left")
    reasons = pd.Series("", index=frame.index)
    for name, letter in (("alpha", "α"), ("beta", "β")):
        sd = frame[f"{name}_sd"].where(frame[f"{name}_sd"] > 0)
        frame[f"{name}_sds"] = frame[f"d_{name}"] / sd
        reasons = reasons.where(
            sd.notna(), reasons.map(lambda r: f"{r}; " if r else "") + f"{letter}: {CONSTANT}"
        )
    return frame.assign(reason=reasons, data=data)


def modulation_summary(modulation: pd.DataFrame, *, data: str) -> pd.DataFrame:
    """How much each change of a clinical variable moves the modulation, over fold models.

    Returns
    -------
    DataFrame with arm, variable, change, measure (`MEASURES`), value (mean over models), sd_models, lowest,
    highest (of the models), models, n (patients a model), reason, data; the variable that moves α most
    first.
    """
    frame = modulation_channels(modulation, data=data)
    sizes = {
        "alpha": frame["alpha_sds"].abs(), "beta": frame["beta_sds"].abs(), "flips": frame["flips"],
        "active": frame["d_active"].abs(),
    }  # fmt: skip
    tables = []
    for measure, size in sizes.items():
        keys = [*MODEL, "variable", "change"]
        of = frame[[*keys, "share", "n"]].assign(size=size).groupby(keys, sort=False)
        own = of.apply(lambda rows: _weighted(rows["size"], rows["share"]), include_groups=False)
        own = own.rename("value").reset_index()
        by = own.groupby(["arm", "variable", "change"], sort=False)["value"]
        table = by.agg(
            value="mean", sd_models="std", lowest="min", highest="max", models="size"
        ).reset_index()
        why = _why_nothing(measure, frame)
        table["reason"] = np.where(table["value"].isna(), why, "")
        tables.append(table.assign(measure=measure, n=int(frame["n"].max())))
    together = pd.concat(tables, ignore_index=True)
    first = together[together["measure"] == "alpha"].set_index(["arm", "variable"])["value"]
    most = first.fillna(0.0).groupby(level=[0, 1]).max()
    place = pd.MultiIndex.from_frame(together[["arm", "variable"]])
    together = together.assign(most=-most.reindex(place).to_numpy())
    together = together.sort_values(["arm", "most", "variable", "change"], kind="stable")
    columns = ["arm", "variable", "change", "measure", "value", "sd_models", "lowest", "highest",
               "models", "n", "reason"]  # fmt: skip
    return together[columns].reset_index(drop=True).assign(data=data)


def _checked(modulation: pd.DataFrame) -> pd.DataFrame:
    for column in NEEDED:
        if column not in modulation:
            raise InputError(
                f"modulation: column '{column}' is missing; needed: {', '.join(NEEDED)}"
            )
    if modulation.empty:
        raise InputError("modulation: no rows; the arm's fusion scales and shifts no feature")
    return modulation


def _weighted(size: pd.Series, share: pd.Series) -> float:
    """The mean over channels by their shares; NaN if all that counts is NaN."""
    known = size.notna() & share.notna()
    total = share[known].sum()
    return float((size[known] * share[known]).sum() / total) if total > 0 else np.nan


def _why_nothing(measure: str, frame: pd.DataFrame) -> str:
    if frame["share"].isna().all():
        return "no channel's modulation moves the logit"
    return {
        "alpha": f"α: {CONSTANT}", "beta": f"β: {CONSTANT}",
        "active": "no ReLU follows the modulation", "flips": "not known",
    }[measure]  # fmt: skip
