"""What clinical variables do in a model: SHAP values of all patients and of one, permutation, agreement.

SHAP values and logits are log-odds of the outcome: to the right, or up, is towards the outcome. Figures of
several patients take one value a patient and variable (`results.shap_means`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rlvo_lib.config import InputError
from rlvo_lib.figures.style import (
    COLOURS,
    GRID,
    INK,
    NO_SKILL,
    WITH,
    Figure,
    canvas,
    name_of,
    need,
)

UNIT = "log-odds of the outcome"
#: Towards the outcome, and away from it; told apart by the side they point to as well.
TOWARDS, AWAY = WITH, COLOURS[0]


def shap_bars(
    importance: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    top: int = 20,
    variable: str = "variable",
) -> Figure:
    """Mean absolute SHAP value of each variable with its interval (`results.shap_importance`).

    ``variable="group"`` draws groups of variables (`results.shap_groups`). One arm a figure.
    """
    frame = need(one_arm(importance), variable, "mean_abs_shap", "low", "high").head(top)[::-1]
    figure = canvas(6.6, 1.0 + 0.27 * len(frame))
    axis = figure.axes[0]
    y = np.arange(len(frame))
    spread = [frame["mean_abs_shap"] - frame["low"], frame["high"] - frame["mean_abs_shap"]]
    axis.barh(y, frame["mean_abs_shap"], color=COLOURS[5], height=0.65)
    axis.errorbar(frame["mean_abs_shap"], y, xerr=np.abs(spread), fmt="none", color=INK, capsize=2)
    axis.set_yticks(y, _names(labels, frame[variable]), fontsize=8.5)
    axis.set(xlabel="Mean |SHAP value| [95 % CI over patients]", xlim=(0, None))
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    return figure


def shap_beeswarm(
    shap: pd.DataFrame,
    *,
    order: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    top: int = 20,
    unit: str = UNIT,
) -> Figure:
    """One point a patient and variable; colour is the value, from the variable's lowest to highest.

    Columns variable, value, shap. Values that are not numbers, and variables made of several columns, are
    grey. ``order`` lists the variables from the top (default: as they come).
    """
    import seaborn as sns
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    frame = need(one_arm(shap), "variable", "value", "shap")
    chosen = [v for v in (order or frame["variable"].unique()) if v in set(frame["variable"])][:top]
    frame = frame[frame["variable"].isin(chosen)].copy()
    value = pd.to_numeric(frame["value"], errors="coerce")
    low = value.groupby(frame["variable"]).transform("min")
    spread = value.groupby(frame["variable"]).transform("max") - low
    frame["colour"] = (value - low) / spread.where(spread > 0)
    figure = canvas(7.0, 1.2 + 0.32 * len(chosen))
    axis = figure.axes[0]
    axis.axvline(0, color=NO_SKILL, linewidth=1)
    style = {"order": chosen, "size": 4, "warn_thresh": 1, "ax": axis, "x": "shap", "y": "variable"}
    known = frame["colour"].notna()
    if known.any():
        sns.swarmplot(
            data=frame[known], hue="colour", palette="cividis", hue_norm=(0, 1), legend=False, **style
        )  # fmt: skip
    if (~known).any():
        sns.swarmplot(data=frame[~known], color="#999999", **style)
    axis.set_yticks(range(len(chosen)), _names(labels, chosen), fontsize=8.5)
    axis.set(xlabel=f"SHAP value ({unit})", ylabel="")
    axis.locator_params(axis="x", nbins=6)
    axis.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)
    axis.xaxis.get_offset_text().set(x=1.0, horizontalalignment="left")  # beside the label
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    bar = figure.colorbar(
        ScalarMappable(cmap=colormaps["cividis"]), ax=axis, ticks=[0, 1], pad=0.02, shrink=0.7
    )
    bar.ax.set_yticklabels(["low", "high"], fontsize=8.5)
    bar.set_label("Value of the variable", fontsize=8.5)
    bar.outline.set_visible(False)
    return figure


def shap_dependence(
    shap: pd.DataFrame,
    variables: Sequence[str],
    *,
    labels: Mapping[str, str] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
    y: pd.Series | None = None,
    columns: int = 3,
    unit: str = UNIT,
) -> Figure:
    """SHAP value against the value of a variable, a panel each; a missing value stands left of the rest.

    Parameters
    ----------
    shap : participant_id, variable, value, shap.
    choices : variable -> the meanings of its codes, in the order of their places; others are quantities.
    y : outcome by participant_id: patients with it are filled, those without are open.

    Raises
    ------
    InputError
        If a variable has no rows.
    """
    frame = need(one_arm(shap), "participant_id", "variable", "value", "shap")
    for name in variables:
        if name not in set(frame["variable"]):
            known = ", ".join(frame["variable"].unique())
            raise InputError(f"figure: no SHAP values of variable '{name}'; allowed: {known}")
    columns = min(columns, len(variables))
    rows = -(-len(variables) // columns)
    figure = canvas(
        2.7 * columns + 0.3, 2.4 * rows + 0.7, rows, columns, squeeze=False, sharey=True
    )
    for number, axis in enumerate(figure.axes):
        if number >= len(variables):
            axis.set_visible(False)
            continue
        name = variables[number]
        own = frame[frame["variable"] == name]
        _depend(axis, own, (choices or {}).get(name), y)
        title = "\n".join(textwrap.wrap(name_of(labels, name), 34))
        axis.set_xlabel(title, fontsize=8.5)
    figure.supylabel(f"SHAP value ({unit})", fontsize=9)
    if y is not None:
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5
        )
    return figure


def _depend(
    axis: Axes, rows: pd.DataFrame, meanings: Sequence[str] | None, y: pd.Series | None
) -> None:
    """One variable's points; codes are spread a little, the same way each time."""
    value = pd.to_numeric(rows["value"], errors="coerce").to_numpy(float)
    known = value[np.isfinite(value)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    missing_at = low - 0.15 * ((high - low) or 1.0) - (0.5 if meanings else 0.0)
    x = np.where(np.isfinite(value), value, missing_at)
    if meanings:
        x = x + 0.24 * (np.arange(len(x)) % 7 / 6 - 0.5)
    event = np.zeros(len(rows), bool)
    if y is not None:
        event = y[rows["participant_id"]].to_numpy() == 1
    axis.axhline(0, color=NO_SKILL, linewidth=1)
    for part, face, word in ((~event, "none", "without the outcome"), (event, TOWARDS, "with it")):
        axis.scatter(
            x[part], rows["shap"].to_numpy()[part], s=18, linewidths=1.0, facecolors=face,
            edgecolors=TOWARDS if word == "with it" else AWAY, label=word if y is not None else None,
        )  # fmt: skip
    axis.grid(axis="y", color=GRID, linewidth=0.6)
    if meanings:
        ticks = list(range(len(meanings)))
        words = ["\n".join(textwrap.wrap(w, 12, break_long_words=False)) for w in meanings]
        if len(known) < len(value):
            ticks, words = [missing_at, *ticks], ["missing", *words]
        axis.set_xticks(ticks, words, fontsize=7.5)
    elif len(known) < len(value):
        axis.axvline(low - 0.075 * ((high - low) or 1.0), color=GRID, linewidth=1)
        inside = [t for t in axis.get_xticks() if low <= t <= high]
        axis.set_xticks(
            [missing_at, *inside], ["missing", *(f"{t:g}" for t in inside)], fontsize=7.5
        )


def shap_waterfall(
    rows: pd.DataFrame,
    *,
    labels: Mapping[str, str] | None = None,
    top: int = 9,
    axis: Axes | None = None,
    title: str = "",
) -> Figure:
    """How one patient's variables lead from the base value to the logit, the largest on top.

    Bars to the right raise the logit, bars to the left lower it; the numbers say by how much. Base value:
    what the model gives for training patients in the place of this one's variables. The probabilities
    under base and logit are the model's own, not risks of patients.

    Parameters
    ----------
    rows : variable, shap, base, logit of one patient and arm, and perhaps ``text``, the values in words.
    top : variables drawn on their own; the rest are one bar.
    axis : axes to draw on, for instance beside an image; a figure of its own if not given.
    """
    frame = need(one_arm(rows), "variable", "shap", "base", "logit")
    if frame["variable"].duplicated().any():
        raise InputError(
            "figure: a variable stands twice; allowed: the rows of one patient, averaged over models"
        )
    size = frame["shap"].abs()
    frame = frame.loc[size.sort_values(ascending=False, kind="stable").index]
    texts = frame["text"] if "text" in frame else pd.Series("", index=frame.index)
    names = [
        name_of(labels, v) + (f": {text}" if text else "")
        for v, text in zip(frame["variable"], texts, strict=True)
    ]
    steps = list(frame["shap"])
    if len(steps) > top + 1:
        names = [*names[:top], f"{len(steps) - top} other variables"]
        steps = [*steps[:top], float(np.sum(steps[top:]))]
    base, logit = float(frame["base"].iloc[0]), float(frame["logit"].iloc[0])
    figure = axis.figure if axis is not None else canvas(6.0, 1.5 + 0.3 * len(steps))
    axis = axis if axis is not None else figure.axes[0]
    _draw_steps(axis, steps[::-1], base)
    y = np.arange(len(steps))
    axis.set_yticks(y, [_wrapped(name) for name in names[::-1]], fontsize=7.5)
    axis.tick_params(axis="y", length=0)
    for value, place, word, up in ((base, -0.6, "base", "top"), (logit, len(steps) - 0.4, "this patient", "bottom")):  # fmt: skip
        axis.axvline(value, color=NO_SKILL, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
        axis.text(
            value, place, f"{word} {value:+.2f} ({100 / (1 + np.exp(-value)):.1f} %)", fontsize=7.5,
            color=INK, ha="center", va=up,
        )  # fmt: skip
    axis.set(ylim=(-1.5, len(steps) + 0.5), xlabel=f"Logit ({UNIT})")
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x", color=GRID, linewidth=0.6)
    if title:
        axis.set_title(title, fontsize=9.5, color=INK)
    return figure


def _draw_steps(axis: Axes, steps: Sequence[float], base: float) -> None:
    """Bars from below, each starting where the one under it ends."""
    start = base + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    ends = start + np.asarray(steps)
    span = float(np.ptp(np.concatenate([[base], ends]))) or 1.0
    digits = _digits(steps)
    for y, (left, step) in enumerate(zip(start, steps, strict=True)):
        axis.barh(y, step, left=left, height=0.66, color=TOWARDS if step > 0 else AWAY)
        right = step >= 0
        axis.text(
            left + step + (0.015 if right else -0.015) * span, y, f"{step:+.{digits}f}", va="center",
            ha="left" if right else "right", fontsize=7.5, color=INK,
        )  # fmt: skip
        if y:
            axis.plot([left, left], [y - 0.67, y - 0.33], color=NO_SKILL, linewidth=0.8)
    low, high = min(base, *ends), max(base, *ends)
    axis.set_xlim(low - 0.22 * span, high + 0.22 * span)
    axis.locator_params(axis="x", nbins=5)


def _digits(steps: Sequence[float]) -> int:
    """Decimals that leave the largest step two digits that count; two to five.

    >>> _digits([0.4, -0.1]), _digits([0.014]), _digits([0.0])
    (2, 3, 2)
    """
    largest = max(abs(step) for step in steps)
    return int(np.clip(1 - np.floor(np.log10(largest)), 2, 5)) if largest > 0 else 2


def permutation_bars(
    importance: pd.DataFrame, *, labels: Mapping[str, str] | None = None, top: int = 20
) -> Figure:
    """The fall of the AUC when each variable is permuted, and beside it its mean absolute SHAP value.

    Columns of `results.permutation_importance`; the line at 0 is a variable that the model does not use.
    """
    frame = need(one_arm(importance), "variable", "auc_drop", "low", "high", "mean_abs_shap")
    frame = frame.head(top)[::-1]
    figure = canvas(8.0, 1.2 + 0.27 * len(frame), 1, 2, sharey=True, width_ratios=[3, 2])
    falls, sizes = figure.axes
    y = np.arange(len(frame))
    falls.axvline(0, color=NO_SKILL, linestyle=(0, (2, 2)), linewidth=1.2)
    spread = [frame["auc_drop"] - frame["low"], frame["high"] - frame["auc_drop"]]
    falls.errorbar(
        frame["auc_drop"], y, xerr=np.abs(spread), fmt="o", color=COLOURS[0], markersize=4.5, capsize=2,
        linewidth=1.3,
    )  # fmt: skip
    falls.set_yticks(y, _names(labels, frame["variable"]), fontsize=8.5)
    falls.set_xlabel(
        "Fall of the AUC when permuted\n[95 % CI over patients]; 0: not used", fontsize=9
    )
    sizes.barh(y, frame["mean_abs_shap"], color=COLOURS[5], height=0.6)
    sizes.set_xlabel("Mean |SHAP value|\n(log-odds)", fontsize=9)
    sizes.tick_params(axis="y", length=0)
    for axis in (falls, sizes):
        axis.grid(axis="x", color=GRID, linewidth=0.6)
        axis.locator_params(axis="x", nbins=5)
    return figure


def agreement_heatmap(
    agreement: pd.DataFrame,
    *,
    between: str = "arms",
    value: str = "rho",
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Rank correlations of importances between models, as a matrix with its numbers written in.

    Parameters
    ----------
    agreement : `results.shap_agreement`.
    between : "folds", "seeds" or "arms".
    value : "rho" (importances of variables) or "patients_rho" (signed values within patients).

    Raises
    ------
    InputError
        If nothing was compared so, or ``value`` is neither.
    """
    if value not in ("rho", "patients_rho"):
        raise InputError(f"figure: value is '{value}'; allowed: rho, patients_rho")
    frame = need(agreement, "between", "first", "second", value)
    rows = frame[frame["between"] == between]
    if rows.empty:
        known = ", ".join(frame["between"].unique())
        raise InputError(f"figure: no agreement between {between}; allowed: {known}")
    names = list(dict.fromkeys([*rows["first"], *rows["second"]]))
    matrix = np.full((len(names), len(names)), np.nan)
    for row in rows.itertuples():
        i, j = names.index(row.first), names.index(row.second)
        matrix[i, j] = matrix[j, i] = getattr(row, value)
    figure = canvas(2.9 + 0.62 * len(names), 1.9 + 0.5 * len(names))
    axis = figure.axes[0]
    image = axis.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1)
    for (i, j), number in np.ndenumerate(matrix):
        text = "" if i == j else ("–" if np.isnan(number) else f"{number:.2f}")
        dark = np.isfinite(number) and abs(number) > 0.65
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)
    shown = [_wrapped(name_of(labels, name), 22) for name in names]
    axis.set_xticks(
        range(len(names)), shown, fontsize=8, rotation=35, ha="right", rotation_mode="anchor"
    )
    axis.set_yticks(range(len(names)), shown, fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axis, shrink=0.8, pad=0.03, ticks=[-1, 0, 1])
    bar.set_label("Spearman's ρ (0: no agreement)", fontsize=8.5)
    bar.outline.set_visible(False)
    return figure


def one_arm(frame: pd.DataFrame) -> pd.DataFrame:
    """The table, if it is of one arm.

    Raises
    ------
    InputError
        If it is of several (names them).
    """
    if "arm" in frame and frame["arm"].nunique() > 1:
        raise InputError(
            f"figure: the table is of arms {', '.join(frame['arm'].unique())}; allowed: one of them"
        )
    return frame


def _names(labels: Mapping[str, str] | None, variables: Sequence[str]) -> list[str]:
    return [_wrapped(name_of(labels, v)) for v in variables]


def _wrapped(text: str, width: int = 44) -> str:
    """At most two lines; what does not fit is left out."""
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder=" …"))
